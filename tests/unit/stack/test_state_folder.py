from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

import pytest

from temporal_airflow_nb.errors import InvalidInputError, ServiceUnavailableError
from temporal_airflow_nb.stack import state_folder

NOBODY = 65534
as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")


def mode(path):
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_home_is_private_and_ignored_by_git(tmp_path):
    home = tmp_path / "above" / "home"
    state_folder.prepare_home(home)
    assert mode(home) == 0o700
    assert (home / ".gitignore").read_text() == "*\n"
    state_folder.prepare_home(home)


def test_a_home_that_is_a_file_is_refused(tmp_path):
    home = tmp_path / "home"
    home.write_text("")
    with pytest.raises(InvalidInputError, match="is not a folder"):
        state_folder.prepare_home(home)
    with pytest.raises(InvalidInputError, match="is not a folder"):
        state_folder.prepare_home(home / "below")


def test_a_home_whose_parent_cannot_be_written_is_refused():
    with pytest.raises(InvalidInputError, match="The state folder /proc/home can't be created"):
        state_folder.prepare_home(Path("/proc/home"))


@as_root
def test_another_users_home_is_refused(tmp_path):
    os.chown(tmp_path, NOBODY, -1)
    with pytest.raises(InvalidInputError, match=r"belongs to user .*, and you are user root"):
        state_folder.prepare_home(tmp_path)


@as_root
def test_a_home_without_access_is_refused():
    with tempfile.TemporaryDirectory() as above:
        os.chmod(above, 0o755)
        home = Path(above) / "home"
        home.mkdir(mode=0o500)
        os.chown(home, NOBODY, NOBODY)
        code = (
            "import os, pathlib, sys; from temporal_airflow_nb.stack import state_folder;"
            "os.setuid(int(sys.argv[2])); state_folder.prepare_home(pathlib.Path(sys.argv[1]))"
        )
        done = subprocess.run([sys.executable, "-c", code, home, str(NOBODY)], capture_output=True, text=True)
        assert "can't be read and written by user" in done.stderr


@pytest.mark.parametrize("name", ["wh?t", "two\nlines", "long" * 120])
def test_a_path_that_a_database_cannot_have_is_refused(tmp_path, name):
    with pytest.raises(InvalidInputError, match="state folder's path"):
        state_folder.prepare_home(tmp_path / name)


def test_stack_json_is_private_and_replaced_in_one_step(tmp_path):
    state_folder.write_stack(tmp_path, {"id": "1"})
    state_folder.write_stack(tmp_path, {"id": "2"})
    assert mode(tmp_path / state_folder.STACK_FILE) == 0o600
    assert state_folder.read_stack(tmp_path) == {"id": "2"}
    assert [p.name for p in tmp_path.iterdir()] == [state_folder.STACK_FILE]


@pytest.mark.parametrize("text", ["", "{", "[]", "\udcff"])
def test_a_damaged_stack_json_is_ignored(tmp_path, text):
    (tmp_path / state_folder.STACK_FILE).write_bytes(text.encode("utf-8", "surrogateescape"))
    assert state_folder.read_stack(tmp_path) == {}


def test_without_stack_json_no_stack_runs(tmp_path):
    assert state_folder.read_stack(tmp_path / "nowhere") == {}
    assert not state_folder.manager_is_running(tmp_path / "nowhere")


def test_a_manager_runs_while_its_lock_is_held(tmp_path):
    # After a crash of the machine: the record has a pid that another process has now.
    state_folder.write_stack(
        tmp_path, {"id": "1", "state": "ready", "keeper": {"pid": os.getpid(), "create_time": 0}}
    )
    (tmp_path / state_folder.MANAGER_LOCK).touch()
    assert not state_folder.manager_is_running(tmp_path)
    with state_folder.acquire_lock(tmp_path / state_folder.MANAGER_LOCK, timeout=1, waiting_for="nobody"):
        assert state_folder.manager_is_running(tmp_path)
    assert not state_folder.manager_is_running(tmp_path)


def test_a_lock_has_one_holder_at_a_time(tmp_path):
    path, order = tmp_path / "lock", []

    def second():
        with state_folder.acquire_lock(path, timeout=5, waiting_for="the first"):
            order.append("second")

    with state_folder.acquire_lock(path, timeout=5, waiting_for="nobody"):
        thread = threading.Thread(target=second)
        thread.start()
        with (
            pytest.raises(ServiceUnavailableError, match="A start still holds"),
            state_folder.acquire_lock(path, timeout=0.1, waiting_for="A start"),
        ):
            pass
        order.append("first")
    thread.join()
    assert order == ["first", "second"]


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "x.json"
    state_folder.write_private(path, json.dumps(1))
    with pytest.raises(UnicodeEncodeError):
        state_folder.write_private(path, "\ud800")
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]
    assert path.read_text() == "1"


def test_the_last_lines_of_a_log_are_read(tmp_path):
    log = tmp_path / "x.log"
    assert state_folder.read_log_tail(log) == ""
    log.write_text("x" * 10_000 + "\none\n\ntwo\nthree\n")
    assert state_folder.read_log_tail(log, 2) == "two\nthree"
