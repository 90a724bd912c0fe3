"""What several files of this folder share; a user's own helper module, as far as the engine knows."""
