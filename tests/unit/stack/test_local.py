from __future__ import annotations

import stat

import pytest

from temporal_airflow_nb.errors import InvalidInputError
from temporal_airflow_nb.stack import state_folder
from temporal_airflow_nb.stack.local import LocalStack
from temporal_airflow_nb.stack.manager import control


def test_a_second_start_releases_the_share_in_the_first_stack(tmp_path, monkeypatch):
    monkeypatch.setattr(control, "start_manager", lambda *_, **__: None)
    stack = LocalStack(tmp_path, linger=60.0)
    stack.start()
    # No manager runs in the folder, as if another process had ended the stack.
    stack.start()
    stack._release()
    assert state_folder.try_lock_owners(tmp_path, exclusive=True) is not None


def test_registering_a_folder_creates_a_private_state_folder(tmp_path):
    stack = LocalStack(tmp_path / "new")
    stack.register_folder(tmp_path)
    assert stat.S_IMODE(stack.home.stat().st_mode) == 0o700


def test_registering_a_folder_checks_the_state_folder(tmp_path):
    with pytest.raises(InvalidInputError, match="can't contain"):
        LocalStack(tmp_path / "new?").register_folder(tmp_path)
