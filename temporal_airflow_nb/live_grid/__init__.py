"""The live grid of a run in a notebook, as HTML and as a widget."""
