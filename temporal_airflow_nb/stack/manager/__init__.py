"""The stack manager, a process that starts, restarts and ends a stack's services."""
