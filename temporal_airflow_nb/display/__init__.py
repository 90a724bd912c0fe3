"""A run's snapshot as something to look at: HTML, a terminal, plain text. One model, three renderers."""
