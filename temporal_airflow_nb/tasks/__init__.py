"""How one try of one task runs: zygotes, the supervisor, its client, callbacks."""
