"""The state folder of a stack: access checks, file locks, and ``stack.json``, the record of the stack.

The stack manager and every process that starts, uses or checks a stack call this module. Three files are locked with
``flock``. A lock belongs to an open file description: it ends when the last descriptor of that is closed, and so with
its process, however the process dies. A process that takes several takes them in this order, and waits for the first
two only:

1. ``stack.lock`` (:data:`START_LOCK`): a process that starts, stops or joins the stack has it meanwhile.
2. ``keeper.lock`` (:data:`MANAGER_LOCK`): the stack manager has it as long as it runs.
3. ``owners.lock`` (:data:`OWNERS_LOCK`): shared by the processes that use a stack together; the manager tries to get it
   exclusively, to see whether any process is left.

Only the manager writes ``stack.json``, in one step, so that the other processes read it without a lock.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import pwd
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypedDict, cast

from temporal_airflow_nb.errors import InvalidInputError, ServiceUnavailableError
from temporal_airflow_nb.private_files import write_private

if TYPE_CHECKING:
    from temporal_airflow_nb.stack.processes import ProcessIdentity

STACK_FILE = "stack.json"
START_LOCK = "stack.lock"
# Both names are older than the name "manager". They stay: a running manager of an earlier version has this lock and
# this entry, and must be found.
MANAGER_LOCK = "keeper.lock"
MANAGER: Final = "keeper"
OWNERS_LOCK = "owners.lock"
LOGS = "logs"

# SQLite refuses file names of more than 512 bytes; the files below the folder need some of them.
MAX_HOME_BYTES = 440


class ServiceRow(TypedDict):
    """The state of one service."""

    name: str
    state: str
    address: str | None
    pid: int | None


class StackRecord(TypedDict, total=False):
    """The contents of ``stack.json``."""

    id: str
    version: str
    state: str
    keeper: ProcessIdentity | None
    detached: bool
    lingers: bool
    services: list[ServiceRow]
    gateway: dict[str, str]
    temporal: dict[str, str]
    airflow: dict[str, str]
    ports: dict[str, int]


def prepare_home(home: Path) -> None:
    """Create the state folder if need be, and check that this user can run a stack in it.

    Raises
    ------
    InvalidInputError
        The path isn't a folder, belongs to another user, can't be written, or its name can't be used.
    """
    check_path(home)
    try:
        home.mkdir(parents=True, mode=0o700)
    except FileExistsError:
        check_access(home)
    except NotADirectoryError:
        raise _not_a_folder(home) from None
    except OSError as error:
        raise InvalidInputError(
            f"The state folder {home} can't be created: {error.strerror}",
            hint="Choose another one with TEMPORAL_AIRFLOW_HOME or --home.",
            path=str(home),
        ) from None
    try:
        (home / LOGS).mkdir(mode=0o700, exist_ok=True)
        ignore = home / ".gitignore"
        if not ignore.exists():
            ignore.write_text("*\n")
    except OSError as error:
        raise InvalidInputError(
            f"The state folder {home} can't be written: {error.strerror}",
            hint="Change that, or choose another one with TEMPORAL_AIRFLOW_HOME or --home.",
            path=str(home),
        ) from None


def check_path(home: Path) -> None:
    """Refuse a path that is too long for SQLite or has characters that a database address can't have."""
    name = os.fsencode(home)
    if len(name) > MAX_HOME_BYTES:
        raise InvalidInputError(
            f"The state folder's path has {len(name)} bytes, too many for SQLite (most: {MAX_HOME_BYTES}).",
            hint="Choose a shorter one with TEMPORAL_AIRFLOW_HOME or --home.",
            path=str(home),
        )
    bad = [c for c in ("?", "\n", "\r") if c in str(home)]
    if bad:
        raise InvalidInputError(
            f"The state folder's path {str(home)!r} contains {bad[0]!r}, which a database address can't contain.",
            hint="Choose another one with TEMPORAL_AIRFLOW_HOME or --home.",
            path=str(home),
        )


def check_access(home: Path) -> None:
    """Check that a state folder is a folder of this user that can be read and written."""
    try:
        facts = home.stat()
    except PermissionError:
        raise _no_access(home) from None
    except FileNotFoundError:
        raise _not_a_folder(home) from None
    if not home.is_dir():
        raise _not_a_folder(home)
    if facts.st_uid != os.geteuid():
        raise InvalidInputError(
            f"The state folder {home} belongs to {_user_name(facts.st_uid)}, and you are {_user_name(os.geteuid())}.",
            hint="A stack belongs to one user: choose your own folder with TEMPORAL_AIRFLOW_HOME or --home.",
            path=str(home),
        )
    if not os.access(home, os.R_OK | os.W_OK | os.X_OK):
        raise _no_access(home)


def _not_a_folder(home: Path) -> InvalidInputError:
    return InvalidInputError(
        f"The state folder {home} is not a folder.",
        hint="Choose another one with TEMPORAL_AIRFLOW_HOME or --home.",
        path=str(home),
    )


def _no_access(home: Path) -> InvalidInputError:
    return InvalidInputError(
        f"The state folder {home} can't be read and written by {_user_name(os.geteuid())}.",
        hint="Change its permissions, or choose another one with TEMPORAL_AIRFLOW_HOME or --home.",
        path=str(home),
    )


def _user_name(uid: int) -> str:
    try:
        return f"user {pwd.getpwuid(uid).pw_name}"
    except KeyError:
        return f"user {uid}"


def write_stack(home: Path, stack: StackRecord) -> None:
    """Replace ``stack.json``."""
    write_private(home / STACK_FILE, json.dumps(stack, indent=2) + "\n")


def read_stack(home: Path) -> StackRecord:
    """Return the contents of ``stack.json``; ``{}`` if the file doesn't exist or is damaged.

    They were true when the manager wrote them, and stay after it was killed: :func:`manager_is_running` returns whether
    the stack still runs.
    """
    try:
        stack = json.loads((home / STACK_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    except PermissionError:
        raise _no_access(home) from None
    return cast(StackRecord, stack) if isinstance(stack, dict) else {}


def read_ui_urls(home: Path) -> dict[str, str]:
    """Return the addresses of the stack's UIs, with the keys ``airflow`` and ``temporal``."""
    stack = read_stack(home)
    found = {"airflow": stack.get("airflow"), "temporal": stack.get("temporal")}
    return {name: service["ui_url"] for name, service in found.items() if service}


@contextlib.contextmanager
def acquire_lock(path: Path, *, timeout: float, waiting_for: str) -> Iterator[int]:
    """Lock a file exclusively inside the block; yield the file's descriptor.

    Parameters
    ----------
    path
        The file, which is created if it doesn't exist.
    timeout
        Seconds to wait for the lock.
    waiting_for
        The process that has the lock, as the error names it.

    Raises
    ------
    ServiceUnavailableError
        Another process still has the lock after ``timeout`` seconds.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        # Polled: a blocking `flock` has no timeout. `O_CLOEXEC` keeps the lock from programs that the holder starts.
        deadline = time.monotonic() + timeout
        while not _try_lock(fd, path, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise ServiceUnavailableError(
                    f"{waiting_for} still holds {path} after {timeout:.0f} s.",
                    hint=f"See the logs in {path.parent / LOGS}, or end that process.",
                    path=str(path),
                )
            time.sleep(0.05)
        yield fd
    finally:
        # This also releases the lock. The file stays: two processes could lock two files of this name otherwise.
        os.close(fd)


def _try_lock(fd: int, path: Path, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except OSError as error:
        # Another process has the lock. Any other error comes from a file system without locks, such as some network
        # file systems.
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise InvalidInputError(
            f"The file system of {path.parent} doesn't support file locks: {error.strerror}",
            hint="Choose a folder on a local disk with TEMPORAL_AIRFLOW_HOME or --home.",
            path=str(path.parent),
        ) from None
    return True


def manager_is_running(home: Path) -> bool:
    """Return whether a manager runs this stack, which is whether its lock is taken.

    The recorded pid isn't enough: after a reboot another process may have it.
    """
    path = home / MANAGER_LOCK
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError:
        raise _no_access(home) from None
    # A shared lock, so that two processes that check at the same time don't take each other for a manager.
    try:
        return not _try_lock(fd, path, fcntl.LOCK_SH)
    finally:
        os.close(fd)


def try_lock_owners(home: Path, *, exclusive: bool) -> int | None:
    """Try to take the owners' lock; return a descriptor that holds it, or None."""
    path = home / OWNERS_LOCK
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if _try_lock(fd, path, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH):
        return fd
    os.close(fd)
    return None


def log_path(home: Path, service: str) -> Path:
    """Return the file that a service's output is written to."""
    return home / LOGS / f"{service}.log"


def read_log_tail(log: Path, lines: int = 3) -> str:
    """Return the last lines of a log that aren't empty, for an error message."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 4096))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])
