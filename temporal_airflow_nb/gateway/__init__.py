"""The gateway: the HTTP server in the worker process, for notebooks and the command line."""
