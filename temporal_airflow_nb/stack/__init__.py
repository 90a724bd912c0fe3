"""Embedded stacks and connections to a cluster, and which of them is in use."""
