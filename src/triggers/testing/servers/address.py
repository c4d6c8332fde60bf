"""Choose the port of a server, and the user that it runs as."""

from __future__ import annotations

import contextlib
import random
import socket
import sys

from triggers.testing.servers.base import ServerError

if sys.platform != "win32":
    import pwd

#: Below the ports that Linux uses for outgoing connections, so that none takes the port of a stopped server.
_PORTS = range(15_000, 32_000)


def nobody() -> tuple[int, int]:
    """Return the ids of the user and group `nobody`, for programs that refuse to run as root."""
    entry = pwd.getpwnam("nobody")
    return entry.pw_uid, entry.pw_gid


def free_port() -> int:
    """Return a port of the loopback interface on which no program listens now.

    Raises:
        ServerError: no port is free.
    """
    for port in random.SystemRandom().sample(_PORTS, 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise ServerError(
        f"none of the ports {_PORTS.start} to {_PORTS.stop - 1} that were tried is free on 127.0.0.1"
    )
