"""The activities that the worker executes."""
