"""Creates runs: launched by a user, triggered by tasks and assets; starts queued ones."""
