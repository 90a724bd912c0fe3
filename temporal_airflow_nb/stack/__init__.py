"""Embedded stacks and connections to a cluster: how they start, where they are, which of them is in use."""
