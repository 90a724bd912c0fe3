"""The manager: a process that starts a stack's services, restarts dead ones and ends them all."""
