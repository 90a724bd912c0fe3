"""The live grid of a run in a notebook: follows the run in a thread, shows it as HTML and as a widget."""
