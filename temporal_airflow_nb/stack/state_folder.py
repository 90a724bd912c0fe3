"""The stack's state folder: who may use it, its locks, and ``stack.json``, what is known about the stack."""

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
from typing import Any

from temporal_airflow_nb.errors import InvalidInputError, ServiceUnavailableError
from temporal_airflow_nb.private_files import write_private

STACK_FILE = "stack.json"
START_LOCK = "stack.lock"
# The file and the key below are older than the name "manager". They stay: the manager of an earlier version may hold
# the lock, and must be found there.
MANAGER_LOCK = "keeper.lock"
MANAGER = "keeper"
OWNERS_LOCK = "owners.lock"
"""Held, shared, by each process for which a stack is kept whose starter may die."""
LOGS = "logs"

# SQLite refuses names over 512 bytes; the longest file below the folder takes some of them.
MAX_HOME_BYTES = 440


def prepare_home(home: Path) -> None:
    """Create the state folder if need be, and check that this user may keep a stack in it.

    Raises
    ------
    InvalidInputError
        It is not a folder, belongs to somebody else, can't be written, or its name can't be used.
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
    """Refuse a folder name that a database inside it could not be opened under."""
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
            f"The state folder's path {str(home)!r} holds {bad[0]!r}, which a database address can't.",
            hint="Choose another one with TEMPORAL_AIRFLOW_HOME or --home.",
            path=str(home),
        )


def check_access(home: Path) -> None:
    """Check an existing state folder: a folder, ours, and open to us."""
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
            hint="A stack is one user's: choose your own folder with TEMPORAL_AIRFLOW_HOME or --home.",
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


def write_stack(home: Path, stack: dict[str, Any]) -> None:
    """Write ``stack.json``."""
    write_private(home / STACK_FILE, json.dumps(stack, indent=2) + "\n")


def read_stack(home: Path) -> dict[str, Any]:
    """Return what ``stack.json`` says, ``{}`` where there is none or it is damaged.

    It says what was true when it was written; ask :func:`manager_is_running` whether the stack is still there.
    """
    try:
        stack = json.loads((home / STACK_FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return {}
    except PermissionError:
        raise _no_access(home) from None
    return stack if isinstance(stack, dict) else {}


def read_ui_urls(home: Path) -> dict[str, str]:
    """Return the addresses of the stack's UIs, by whose they are."""
    stack = read_stack(home)
    return {name: stack[name]["ui_url"] for name in ("airflow", "temporal") if stack.get(name)}


@contextlib.contextmanager
def acquire_lock(path: Path, *, timeout: float, waiting_for: str) -> Iterator[int]:
    """Hold an exclusive lock on a file; yields the file's descriptor.

    The lock belongs to this process and is gone when it dies. ``waiting_for`` names the holder in the error.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + timeout
        while not _try_lock(fd, path, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                raise ServiceUnavailableError(
                    f"{waiting_for} still holds {path} after {timeout:.0f} s.",
                    hint="See the logs beside it, or end that process.",
                    path=str(path),
                )
            time.sleep(0.05)
        yield fd
    finally:
        os.close(fd)


def _try_lock(fd: int, path: Path, kind: int) -> bool:
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise InvalidInputError(
            f"The file system of {path.parent} has no file locks: {error.strerror}",
            hint="Choose a folder on a local disk with TEMPORAL_AIRFLOW_HOME or --home.",
            path=str(path.parent),
        ) from None
    return True


def manager_is_running(home: Path) -> bool:
    """Whether a manager runs this stack. Its lock tells: a pid may be another's after a reboot."""
    path = home / MANAGER_LOCK
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return False
    except PermissionError:
        raise _no_access(home) from None
    try:
        return not _try_lock(fd, path, fcntl.LOCK_SH)
    finally:
        os.close(fd)


def try_lock_owners(home: Path, *, exclusive: bool) -> int | None:
    """Return a descriptor that holds the owners' lock, shared or ``exclusive``; None where others' holds forbid it."""
    path = home / OWNERS_LOCK
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if _try_lock(fd, path, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH):
        return fd
    os.close(fd)
    return None


def log_path(home: Path, service: str) -> Path:
    """Return where a process of the stack writes what it prints."""
    return home / LOGS / f"{service}.log"


def read_log_tail(log: Path, lines: int = 3) -> str:
    """Return the last lines of a log, for an error message."""
    try:
        with log.open("rb") as file:
            file.seek(0, os.SEEK_END)
            file.seek(max(0, file.tell() - 4096))
            text = file.read().decode("utf-8", "replace")
    except OSError:
        return ""
    return "\n".join([line for line in text.splitlines() if line.strip()][-lines:])
