"""Finds which user of this machine is at the other end of a loopback connection. Linux only.

A server on a loopback port can be reached by every user of the machine. The kernel knows the user of each socket.
"""

from __future__ import annotations

import os
import socket
import struct
import sys
from contextlib import suppress
from pathlib import Path

Address = tuple[str, int]

# From Linux's uapi/linux/sock_diag.h and inet_diag.h.
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 1
_ALL_STATES = 0xFFFFFFFF
_ANY_COOKIE = 0xFFFFFFFF
_REQUEST = struct.Struct("=IHHIIBBBBIHH16s16sIII")
# In an answer: the header of netlink, four numbers of a byte, the id of the socket, three numbers of four bytes.
_USER = struct.Struct("=16x4x48x12xI")


def is_of_another_user(client: Address, server: Address) -> bool:
    """Return whether a user other than this process's, and other than root, has opened a connection.

    Parameters
    ----------
    client, server
        The IPv4 addresses and ports of its two ends, on this machine.

    Returns
    -------
    bool
        False as well if the system doesn't tell the user.
    """
    uid = find_user(client, server)
    return uid is not None and uid not in (os.geteuid(), 0)


def find_user(client: Address, server: Address) -> int | None:
    """Return the user id of the process that opened a connection; None if it can't be found."""
    if not sys.platform.startswith("linux"):
        return None
    uid = None
    with suppress(OSError, ValueError, struct.error):
        uid = _ask_kernel(client, server)
    if uid is None:
        with suppress(OSError, ValueError):
            uid = _read_table(client, server)
    return None if uid is not None and _is_unmapped(uid) else uid


def _ask_kernel(client: Address, server: Address) -> int | None:
    request = _REQUEST.pack(
        *(_REQUEST.size, _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST, 1, 0),
        *(socket.AF_INET, socket.IPPROTO_TCP, 0, 0, _ALL_STATES),
        *(socket.htons(client[1]), socket.htons(server[1])),
        *(socket.inet_aton(client[0]), socket.inet_aton(server[0])),
        *(0, _ANY_COOKIE, _ANY_COOKIE),
    )
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_SOCK_DIAG) as netlink:
        netlink.settimeout(1)
        netlink.send(request)
        answer = netlink.recv(8192)
    kind = struct.unpack_from("=4xH", answer)[0]
    return int(_USER.unpack_from(answer)[0]) if kind == _SOCK_DIAG_BY_FAMILY else None


def _read_table(client: Address, server: Address) -> int | None:
    wanted = [_in_table(client), _in_table(server)]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[1:3] == wanted:
            return int(fields[7])
    return None


def _in_table(address: Address) -> str:
    # The kernel prints the four bytes of the address as one number of this machine.
    (number,) = struct.unpack("=I", socket.inet_aton(address[0]))
    return f"{number:08X}:{address[1]:04X}"


def _is_unmapped(uid: int) -> bool:
    """Return whether a number stands for every user that has no number in this container."""
    with suppress(OSError, ValueError):
        overflow = int(Path("/proc/sys/kernel/overflowuid").read_text())
        *_, mapped = Path("/proc/self/uid_map").read_text().split()
        return uid == overflow and int(mapped) < 2**32 - 1
    return False
