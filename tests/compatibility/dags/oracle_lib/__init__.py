"""Code that several DAG files of this folder share, like a user's own helper module."""
