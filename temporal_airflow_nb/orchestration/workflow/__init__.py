"""The workflow that executes a run, and the data that it exchanges with activities."""
