"""Chooses free loopback ports for a stack, if possible those of its earlier start.

The stack manager chooses the ports before it starts the services. Another program may take a port in between: the
manager then chooses again.
"""

from __future__ import annotations

import os
import random
import socket
from collections.abc import Iterable, Mapping

from temporal_airflow_nb.errors import InvalidInputError, ServiceUnavailableError

LOOPBACK = "127.0.0.1"

# Below the range from which operating systems take ports for outgoing connections: none of those takes the port of a
# service that restarts.
_RANGE = range(20_000, 32_000)

REQUESTS = {
    "temporal": "TEMPORAL_AIRFLOW_PORT",
    "temporal_ui": "TEMPORAL_AIRFLOW_UI_PORT",
    "airflow_ui": "TEMPORAL_AIRFLOW_API_PORT",
}
"""Environment variables with which a user asks for a port, by the port's name."""


def is_free(port: int) -> bool:
    """Return whether a server could listen on this loopback port now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        # As servers do: closed connections that the system still remembers don't count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen(1)
        except (OSError, OverflowError):
            return False
    return True


def can_listen_on(host: str) -> bool:
    """Return whether a server could listen on this address. Only Linux has all of 127.0.0.0/8."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True


def requested(environ: Mapping[str, str] | None = None) -> dict[str, int]:
    """Return the ports that environment variables ask for, by name."""
    environ = os.environ if environ is None else environ
    return {
        name: _parse_port(variable, environ[variable])
        for name, variable in REQUESTS.items()
        if environ.get(variable)
    }


def _parse_port(variable: str, text: str) -> int:
    if text.isascii() and text.isdigit() and 1 <= int(text) <= 65535:
        return int(text)
    raise InvalidInputError(
        f"{variable}={text!r} is not a port.",
        hint="Give a number from 1 to 65535, or unset it.",
        variable=variable,
    )


def choose(
    names: Iterable[str],
    *,
    asked: Mapping[str, int] | None = None,
    recorded: Mapping[str, int] | None = None,
    avoid: Iterable[int] = (),
) -> dict[str, int]:
    """Choose a free port for each name.

    Parameters
    ----------
    names
        What the ports are for.
    asked
        Ports that the user asks for, by name. A taken one is an error.
    recorded
        Ports of the stack's earlier start, by name. A taken one is replaced.
    avoid
        Ports that were free when chosen and taken when their service started.

    Raises
    ------
    ServiceUnavailableError
        A port that was asked for is taken, or none is free.
    """
    asked, recorded = asked or {}, recorded or {}
    used = set(avoid)
    chosen: dict[str, int] = {}
    names = list(names)
    for name in names:
        if name in asked:
            port = asked[name]
            if port in used or not is_free(port):
                raise ServiceUnavailableError(
                    f"Port {port}, asked for by {REQUESTS.get(name, name)}, is taken.",
                    hint="Stop the program that listens there, choose another port, or unset the variable.",
                    address=f"{LOOPBACK}:{port}",
                    service=name,
                )
            chosen[name] = port
            used.add(port)
    for name in names:
        if name not in chosen:
            chosen[name] = _pick_port(recorded.get(name), used)
            used.add(chosen[name])
    return {name: chosen[name] for name in names}


def _pick_port(preferred: int | None, used: set[int]) -> int:
    if preferred and preferred not in used and is_free(preferred):
        return preferred
    # At random, so that stacks that start at the same time rarely choose the same port.
    for port in random.sample(_RANGE, k=200):
        if port not in used and is_free(port):
            return port
    raise ServiceUnavailableError(
        f"No free port found between {_RANGE.start} and {_RANGE.stop} on {LOOPBACK}.",
        hint="Stop some of the programs that listen there.",
        address=LOOPBACK,
    )


def listens(pid: int, port: int) -> bool:
    """Return whether this process, and not another one, listens on the port."""
    import psutil

    try:
        connections = psutil.Process(pid).net_connections(kind="tcp")
    except psutil.NoSuchProcess:
        return False
    except psutil.AccessDenied:
        # This user may not list the connections of the process. A listener of any process has to be enough.
        return not is_free(port)
    return any(c.status == psutil.CONN_LISTEN and c.laddr.port == port for c in connections)
