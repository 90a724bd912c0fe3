"""Clients of a stack: three ways to carry out its operations, by one protocol."""
