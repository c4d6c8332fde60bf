"""Where a server is to be found, and whose it is."""

from __future__ import annotations

import contextlib
import random
import socket
import sys

from triggers.testing.servers.base import ServerError

if sys.platform != "win32":
    import pwd

#: Below the ports that Linux gives to outgoing connections: a port of a stopped server is not taken by one.
_PORTS = range(15_000, 32_000)


def nobody() -> tuple[int, int]:
    """The user and group of nobody, for programs that refuse to run as root."""
    entry = pwd.getpwnam("nobody")
    return entry.pw_uid, entry.pw_gid


def free_port() -> int:
    """A port of the loopback that nobody listens on now.

    Raises:
        ServerError: there is none.
    """
    for port in random.SystemRandom().sample(_PORTS, 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise ServerError(f"no port of {_PORTS.start} to {_PORTS.stop - 1} is free on 127.0.0.1")
