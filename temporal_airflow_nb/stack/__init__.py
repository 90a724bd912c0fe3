"""The embedded stack: its processes, its state folder, and the way to talk to it."""
