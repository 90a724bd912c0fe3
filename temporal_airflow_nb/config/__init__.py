"""Every setting: environment variables, ``pyproject.toml``, IPython's configuration."""
