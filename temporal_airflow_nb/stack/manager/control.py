"""Starts and ends a stack manager, from the process that wants a stack.

A stack that isn't detached ends with its owner, the process that started it. The owner has the write end of a pipe, and
the manager reads the other end: an end of file means that the owner is gone, and the byte ``d`` that the stack goes on
without an owner. A stack that lingers can be shared: each process that uses it has a shared lock on ``owners.lock``.

The kernel closes descriptors and releases locks when a process dies, however it dies, so that no clean-up in the owner
is needed. A forked child inherits both, and must close them: ``_close_held_fds`` does so in each child.
"""

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
# Longer than the manager's own limit, so that its error, which names the service, comes first.
START_TIMEOUT = 270.0
STOP_TIMEOUT = 30.0
RELOAD_SIGNAL = signal.SIGUSR1
"""Makes a manager read the list of watched folders again."""

# Descriptors of owners' pipes and locks that are open in this process. Several threads may add and remove entries; each
# is a single operation on the set, which needs no lock.
_held_fds: set[int] = set()


def _close_held_fds() -> None:
    while _held_fds:
        os.close(_held_fds.pop())


# A forked child, say of `multiprocessing`, must not keep its parent's stack alive. Programs that are started with exec
# don't inherit these descriptors.
os.register_at_fork(after_in_child=_close_held_fds)


class StackOwnership:
    """Ties a stack to this process by the write end of the pipe that its manager reads.

    Parameters
    ----------
    fd
        The descriptor, which belongs to this object from now on.
    """

    def __init__(self, fd: int) -> None:
        self._fd: int | None = fd
        _held_fds.add(fd)

    def detach_stack(self) -> None:
        """Tell the manager that the stack goes on without an owner."""
        if self._fd is not None:
            with contextlib.suppress(BrokenPipeError):
                os.write(self._fd, b"d")
        self.release()

    def release(self) -> None:
        """Close the pipe; the manager then ends the stack or lets it linger, unless it is detached."""
        # In a forked child, `_close_held_fds` has closed the descriptor, and its number may belong to another file.
        if self._fd is not None and self._fd in _held_fds:
            _held_fds.discard(self._fd)
            os.close(self._fd)
        self._fd = None


class StackShare:
    """This process's share in a stack that ends some time after its last share was released.

    Parameters
    ----------
    home
        The stack's state folder.
    fd
        A descriptor with a shared lock on ``owners.lock``, which belongs to this object from now on.
    """

    def __init__(self, home: Path, fd: int) -> None:
        self._home = home
        self._fd: int | None = fd
        _held_fds.add(fd)

    def release(self) -> bool:
        """Give the share up; return whether no other process has one."""
        if self._fd is not None and self._fd in _held_fds:
            _held_fds.discard(self._fd)
            os.close(self._fd)
        self._fd = None
        # An exclusive lock is granted if no process has a shared one. It is held for a moment only.
        exclusive = state_folder.try_lock_owners(self._home, exclusive=True)
        if exclusive is not None:
            os.close(exclusive)
        return exclusive is not None


def take_share(home: Path) -> StackShare | None:
    """Take a share in a stack; return None if another process has the lock exclusively.

    The manager has it for a moment when it checks whether any process has a share, and keeps it once it ends the stack.
    """
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
        The state folder, prepared. The caller has ``stack.lock``, and no manager runs in the folder.
    detach
        Whether the stack outlives this process.
    command
        The manager's command, up to and including the folder; the package's own if omitted.
    options
        Further options of the command.
    settings
        Environment variables of the manager, in addition to those of this process.

    Returns
    -------
    StackOwnership or None
        Ties the stack to this process; None for a detached stack.

    Raises
    ------
    TemporalAirflowError
        The stack doesn't start, for the reason that the manager or a service has reported.
    """
    stack_id = uuid.uuid4().hex
    ready, ready_end = os.pipe()
    owner_end, owner_fd = os.pipe()
    owner = StackOwnership(owner_fd)
    arguments = [*options, "--ready-fd", str(ready_end)]
    pass_fds = [ready_end]
    if not detach:
        # Only the read end: if the manager inherited the write end too, it would never read an end of file.
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
        # From here on only the manager has the write end: its death ends the wait with an end of file.
        os.close(ready_end)
        ready_end = -1
        _await_ready(ready, process, home)
    # Also after an interrupt: nothing of a stack that hasn't started completely may be left.
    except BaseException:
        owner.release()
        if process is not None:
            stop_manager(home, process.pid, stack_id, process=process)
        raise
    finally:
        for fd in (ready, ready_end, owner_end):
            if fd >= 0:
                os.close(fd)
    # The manager is a child of this process: without a `wait` it would stay a zombie after its end.
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
    """End a manager and every process of its stack, and wait until none is left.

    The manager gets SIGTERM, and after ``STOP_TIMEOUT`` seconds SIGKILL, after which its watchdog kills the services.
    Processes of the stack that are left then are found by its id and killed here.
    """
    # The pid is the manager's as long as the manager has its lock, or is a child of this process that wasn't reaped.
    if state_folder.manager_is_running(home) or (process is not None and process.poll() is None):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)
    # The manager releases its lock as its last action, after its services have ended.
    if not wait_until_gone(home, STOP_TIMEOUT):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        wait_until_gone(home, 5.0)
    if process is not None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(5.0)
    processes.kill_all(stack_id)


def stop_stack(home: Path) -> None:
    """End the stack that runs in a folder, if one does."""
    stack = state_folder.read_stack(home)
    manager = stack.get(state_folder.MANAGER)
    if manager is not None and state_folder.manager_is_running(home):
        stop_manager(home, manager["pid"], stack["id"])


def reload_folders(home: Path) -> None:
    """Have the folder's manager, if one runs, watch the folders that are listed now."""
    manager = state_folder.read_stack(home).get(state_folder.MANAGER) or {}
    if state_folder.manager_is_running(home) and processes.is_alive(manager):
        os.kill(manager["pid"], RELOAD_SIGNAL)


def wait_until_gone(home: Path, timeout: float) -> bool:
    """Wait until no manager runs the stack; return False after ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while state_folder.manager_is_running(home):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.03)
    return True
