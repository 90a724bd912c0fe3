"""Settings are read from %config, the environment, pyproject.toml and the defaults, in this order."""

from __future__ import annotations

import pytest

from temporal_airflow_nb.config import environment, pyproject, settings
from temporal_airflow_nb.errors import InvalidInputError


@pytest.fixture
def project_settings(tmp_path, monkeypatch):
    """Return a function that writes the project's settings; the working directory is in the project."""
    folder = tmp_path / "project" / "notebooks"
    folder.mkdir(parents=True)
    monkeypatch.chdir(folder)

    def write(text):
        path = tmp_path / "project" / "pyproject.toml"
        path.write_text(f"[tool.other]\nx = 1\n[tool.temporal-airflow-nb]\n{text}\n")
        return path

    return write


def test_settings_have_defaults(project_settings):
    found = {name: settings.get(name) for name in ("home", "wait", "view", "worker_lost", "linger")}
    assert found == {"home": None, "wait": False, "view": "grid", "worker_lost": None, "linger": 600.0}
    assert settings.get("production") == ["*prod*"]


def test_each_source_overrides_the_next(shell, project_settings, monkeypatch):
    project_settings('view = "graph"')
    assert settings.get("view") == "graph"
    monkeypatch.setenv("TEMPORAL_AIRFLOW_VIEW", "gantt")
    assert settings.get("view") == "gantt"
    shell.run("%config TemporalDag.view = 'none'")
    assert settings.get("view") == "none"


def test_names_may_have_dashes_and_values_keep_their_types(project_settings):
    project_settings('worker-lost = "fail"\nwait = true\nlinger = 5\nproduction = ["live-*"]')
    assert settings.get("worker_lost") == "fail"
    assert settings.get("wait") is True
    assert settings.get("linger") == 5
    assert settings.get("production") == ["live-*"]


def test_text_of_the_environment_is_converted(monkeypatch):
    monkeypatch.setenv("TEMPORAL_AIRFLOW_WAIT", "yes")
    monkeypatch.setenv("TEMPORAL_AIRFLOW_LINGER", "0")
    monkeypatch.setenv("TEMPORAL_AIRFLOW_PRODUCTION", "live-*, *prod*")
    assert settings.get("wait") is True
    assert settings.get("linger") == 0
    assert settings.get("production") == ["live-*", "*prod*"]


def test_an_invalid_value_is_named_with_its_source(project_settings, monkeypatch):
    path = project_settings('view = "grd"\nlinger = -1\nproduction = "prod"')
    for name, words in (("view", "view is"), ("linger", "linger is -1"), ("production", "production is")):
        with pytest.raises(InvalidInputError, match=words) as caught:
            settings.get(name)
        assert str(path) in str(caught.value)
    monkeypatch.setenv("TEMPORAL_AIRFLOW_WAIT", "perhaps")
    with pytest.raises(InvalidInputError, match=r'\$TEMPORAL_AIRFLOW_WAIT is "perhaps"') as caught:
        settings.get("wait")
    assert "true, false" in str(caught.value)


def test_an_unknown_key_gives_a_warning_with_a_suggestion(project_settings):
    project_settings('veiw = "graph"')
    with pytest.warns(UserWarning, match=r"has no setting 'veiw'\. Did you mean view\?"):
        settings.get("view")
    assert settings.get("view") == "grid"


def test_a_file_that_is_not_toml_is_named(project_settings):
    path = project_settings("view = graph")
    with pytest.raises(InvalidInputError, match="isn't TOML") as caught:
        settings.get("view")
    assert str(path) in str(caught.value)


def test_commands_use_the_projects_state_folder(project_settings, monkeypatch):
    path = project_settings('home = "state"')
    assert environment.home_path() == pyproject.home() == path.parent / "state"
    assert settings.get("home") == str(path.parent / "state")
    monkeypatch.setenv("TEMPORAL_AIRFLOW_HOME", "/elsewhere")
    assert str(environment.home_path()) == "/elsewhere"


def test_an_edited_project_file_is_read_again(project_settings):
    project_settings('view = "graph"')
    assert settings.get("view") == "graph"
    project_settings('view = "gantt"  # now')
    assert settings.get("view") == "gantt"


def test_config_lists_settings_and_refuses_invalid_values(shell, capsys, caplog):
    shell.run("%config TemporalDag")
    text = capsys.readouterr().out
    assert all(f"TemporalDag.{name}" in text for name in ("home", "wait", "view", "linger", "production"))
    shell.run("%config TemporalDag.view = 'grd'")
    assert "expected any of ['grid', 'graph', 'gantt', 'none']" in caplog.text
    assert settings.get("view") == "grid"
