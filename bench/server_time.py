"""How much of the processors' time a private server has taken, as Linux tells."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from triggers.testing.servers import Server

_TICK = os.sysconf("SC_CLK_TCK")


def seconds_of(server: Server) -> float:
    """Of its first process, of those that it started, and of those that have ended, in seconds."""
    process = server._process
    pid = process.pid if process is not None else 0
    stats = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            number, _, rest = path.read_text("ascii", errors="replace").partition(" (")
        except OSError:
            continue  # it has ended
        fields = rest.rpartition(") ")[2].split()
        stats[int(number)] = (int(fields[1]), [int(part) for part in fields[11:15]])
    ticks = sum(stats.get(pid, (0, [0]))[1])
    ticks += sum(sum(own[:2]) for parent, own in stats.values() if parent == pid)
    return ticks / _TICK
