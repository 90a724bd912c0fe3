"""The commands ``airflow temporal …``."""

from airflow._shared.module_loading import import_string

from temporal_airflow_nb.airflow_plugin import commands


def test_every_command_names_an_existing_function(monkeypatch):
    """Airflow imports the function only when the command is called."""
    paths = []
    monkeypatch.setattr(commands, "lazy_load_command", paths.append)
    commands.get_cli_commands()
    assert len(paths) == 2
    assert all(callable(import_string(path)) for path in paths)
