"""Starting a manager and ending it, from the process that wants a stack."""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from temporal_airflow_nb.errors import ServiceUnavailableError, from_dict
from temporal_airflow_nb.stack import processes, state_folder

MANAGER_MODULE = "temporal_airflow_nb.stack.manager.manager"
START_TIMEOUT = 270.0
STOP_TIMEOUT = 30.0
RELOAD_SIGNAL = signal.SIGUSR1
"""Tells a manager that there are other folders to watch."""

_held_fds: set[int] = set()


def _close_held_fds() -> None:
    while _held_fds:
        os.close(_held_fds.pop())


# A forked child must not keep its parent's stack alive.
os.register_at_fork(after_in_child=_close_held_fds)


class StackOwnership:
    """This process's hold on a stack that it started: the stack ends when the hold does."""

    def __init__(self, fd: int) -> None:
        self._fd: int | None = fd
        _held_fds.add(fd)

    def detach_stack(self) -> None:
        """Let the stack go on without this process."""
        if self._fd is not None:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._fd, b"d")
        self.release()

    def release(self) -> None:
        """Let go."""
        if self._fd is not None and self._fd in _held_fds:
            _held_fds.discard(self._fd)
            os.close(self._fd)
        self._fd = None


class StackShare:
    """This process's share in a stack that is kept for several: it ends with the last of them."""

    def __init__(self, home: Path, fd: int) -> None:
        self._home = home
        self._fd: int | None = fd
        _held_fds.add(fd)

    def release(self) -> bool:
        """Let go; returns whether nobody else holds the stack."""
        if self._fd is not None and self._fd in _held_fds:
            _held_fds.discard(self._fd)
            os.close(self._fd)
        self._fd = None
        alone = state_folder.try_lock_owners(self._home, exclusive=True)
        if alone is not None:
            os.close(alone)
        return alone is not None


def take_share(home: Path) -> StackShare | None:
    """Take a share in a stack; None while its manager looks whether anybody has one, or ends it."""
    fd = state_folder.try_lock_owners(home, exclusive=False)
    return None if fd is None else StackShare(home, fd)


def start_manager(
    home: Path,
    *,
    detach: bool,
    command: Sequence[str] | None = None,
    options: Sequence[str] = (),
    settings: Mapping[str, str] | None = None,
) -> StackOwnership | None:
    """Start a manager and wait until its stack is ready.

    Parameters
    ----------
    home
        The state folder, prepared, with no manager.
    detach
        Whether the stack outlives this process.
    command
        The manager's command, up to and with its folder.
    options
        Its options that say what is to run.
    settings
        Variables that it has beside this process's own.

    Returns
    -------
    StackOwnership or None
        What ties the stack to this process; None for a detached one.

    Raises
    ------
    TemporalAirflowError
        Why it doesn't start, as the manager or the service says.
    """
    stack_id = uuid.uuid4().hex
    ready, ready_end = os.pipe()
    owner_end, owner_fd = os.pipe()
    owner = StackOwnership(owner_fd)
    arguments = [*options, "--ready-fd", str(ready_end)]
    pass_fds = [ready_end]
    if not detach:
        arguments += ["--owner-fd", str(owner_end)]
        pass_fds.append(owner_end)
    env = {
        **os.environ,
        **(settings or {}),
        **processes.python_path(os.environ),
        processes.STACK_ID_VARIABLE: stack_id,
    }
    process = None
    try:
        process = processes.spawn(
            [*(command or processes.python_command(MANAGER_MODULE, str(home))), *arguments],
            log=state_folder.log_path(home, "manager"),
            env=env,
            pass_fds=pass_fds,
        )
        os.close(ready_end)
        ready_end = -1
        _await_ready(ready, process, home)
    except BaseException:
        owner.release()
        if process is not None:
            stop_manager(home, process.pid, stack_id, process=process)
        raise
    finally:
        for fd in (ready, ready_end, owner_end):
            if fd >= 0:
                os.close(fd)
    # The manager is this process's child until then: a dead one is taken off the process table.
    threading.Thread(target=process.wait, name="temporal-airflow-manager", daemon=True).start()
    if detach:
        owner.release()
        return None
    return owner


def _await_ready(fd: int, process: subprocess.Popen[bytes], home: Path) -> None:
    answer = b""
    deadline = time.monotonic() + START_TIMEOUT
    while not answer.endswith(b"\n"):
        if not select.select([fd], [], [], max(0.0, deadline - time.monotonic()))[0]:
            raise ServiceUnavailableError(
                f"The stack in {home} is not ready after {START_TIMEOUT:.0f} s.",
                hint=f"See the logs in {home / state_folder.LOGS}.",
            )
        chunk = os.read(fd, 65536)
        if not chunk:
            break
        answer += chunk
    message: dict[str, Any] = json.loads(answer) if answer.endswith(b"\n") else {}
    if "error" in message:
        raise from_dict(message["error"])
    if "ready" not in message:
        process.wait(STOP_TIMEOUT)
        log = state_folder.log_path(home, "manager")
        raise ServiceUnavailableError(
            f"The stack's manager ended before it was ready (exit code {process.returncode}). "
            f"Last in its log:\n{state_folder.read_log_tail(log)}",
            hint=f"See {log}.",
            service="manager",
        )


def stop_manager(
    home: Path, pid: int, stack_id: str, *, process: subprocess.Popen[bytes] | None = None
) -> None:
    """End a manager with all that it started, and wait until nothing of it is left."""
    if state_folder.manager_is_running(home) or (process is not None and process.poll() is None):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    if not wait_until_gone(home, STOP_TIMEOUT):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        wait_until_gone(home, 5.0)
    if process is not None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5.0)
    processes.kill_all(stack_id)


def reload_folders(home: Path) -> None:
    """Tell the folder's manager, if one runs, that there are other folders to watch."""
    manager = state_folder.read_stack(home).get(state_folder.MANAGER) or {}
    if state_folder.manager_is_running(home) and processes.is_alive(manager):
        os.kill(manager["pid"], RELOAD_SIGNAL)


def wait_until_gone(home: Path, timeout: float) -> bool:
    """Wait until no manager runs the stack; returns whether that is so."""
    deadline = time.monotonic() + timeout
    while state_folder.manager_is_running(home):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.03)
    return True
