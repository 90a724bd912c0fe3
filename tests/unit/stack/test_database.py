"""The kind of database of a state folder, and the errors for one that it can't have."""

from __future__ import annotations

import pytest

from temporal_airflow_nb.errors import InvalidInputError
from temporal_airflow_nb.stack.services import database


@pytest.fixture
def home(tmp_path):
    (tmp_path / "airflow").mkdir()
    return tmp_path


def test_a_new_folder_gets_the_requested_database(home):
    assert database.choose_kind(home, None) == "sqlite"
    assert database.choose_kind(home, "sqlite") == "sqlite"
    assert database.choose_kind(home, "postgres") == "postgres"
    assert database.url(home) == f"sqlite:///{home}/airflow/airflow.db"


@pytest.mark.parametrize(("there", "other"), [("sqlite", "postgres"), ("postgres", "sqlite")])
def test_a_folder_keeps_its_database(home, there, other):
    if there == "postgres":
        database.record_postgres(home, 5432)
    else:
        database.sqlite_path(home).touch()
    assert database.choose_kind(home, None) == there
    with pytest.raises(InvalidInputError, match=r"was created with .*, and .* is asked for\.\n.*--home"):
        database.choose_kind(home, other)


def test_the_password_is_kept_and_not_shown(home):
    database.record_postgres(home, 5432)
    password = database.password(home)
    database.record_postgres(home, 5433)
    assert database.password(home) == password
    assert database.url(home) == f"postgresql+psycopg2://airflow:{password}@127.0.0.1:5433/airflow"
    assert database.address(home) == "postgresql://127.0.0.1:5433/airflow"
    assert (home / "airflow" / "postgres.json").stat().st_mode & 0o077 == 0


def test_missing_packages_are_named(home, monkeypatch):
    monkeypatch.setattr(database, "PACKAGES", (*database.PACKAGES, "no_such_driver"))
    with pytest.raises(InvalidInputError) as error:
        database.choose_kind(home, "postgres")
    assert "no_such_driver" in error.value.message
    assert "asyncpg" not in error.value.message
    assert error.value.hint == "Install them: pip install 'temporal-airflow-nb[postgres]'"
    assert database.choose_kind(home, "sqlite") == "sqlite"


def test_an_unknown_kind_is_bad_input(home):
    with pytest.raises(InvalidInputError, match="no database 'mysql'"):
        database.choose_kind(home, "mysql")
