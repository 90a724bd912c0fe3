"""Runs one try of one task: zygotes, supervisor, the client that answers tasks, callbacks."""
