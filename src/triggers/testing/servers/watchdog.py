"""Run one server until it ends, or until the process that started it ends.

:mod:`triggers.testing.servers` starts this file as a script (`python watchdog.py PARENT UID GID FOLDER
COMMAND…`). The script is the parent of the server and prints its process id. When the process PARENT has
ended, even by `kill -9`, the script kills the server with all of its processes and removes the folder.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import select
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import NoReturn

#: Seconds between two checks whether the parent still exists.
POLL = 0.25
_PR_SET_PDEATHSIG = 1


def family(pid: int) -> list[int]:
    """Return the process and all of its descendants that exist now, parents first.

    A signal to the process group is not enough: each process of PostgreSQL has a session of its own.
    """
    children: dict[int, list[int]] = {}
    for child, parent in _processes():
        children.setdefault(parent, []).append(child)
    found = [pid]
    for each in found:  # the list grows during the loop
        found.extend(children.get(each, ()))
    return found


def _processes() -> list[tuple[int, int]]:
    if not Path("/proc/self/stat").exists():
        listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)  # noqa: S607 - its folder differs between systems
        return [(int(pid), int(parent)) for pid, parent in map(str.split, listing.stdout.splitlines())]
    pairs = []
    for entry in os.listdir("/proc"):  # noqa: PTH208 - a thousand Path objects for a thousand processes
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat", "rb") as stat:  # noqa: PTH123 - as above
                # The name in parentheses may contain any character, also a parenthesis.
                pairs.append((int(entry), int(stat.read().rpartition(b")")[2].split()[1])))
    return pairs


def signal_family(pid: int, number: int) -> None:
    """Send the signal to the process and its descendants, including those that are created meanwhile."""
    seen: set[int] = set()
    while fresh := [each for each in family(pid) if each not in seen]:
        for each in fresh:
            with contextlib.suppress(ProcessLookupError):
                os.kill(each, number)
        seen.update(fresh)


def _become(uid: int, gid: int) -> None:
    if uid != os.geteuid():
        os.setgroups([])
        os.setgid(gid)
        os.setuid(uid)


def _serve(watchdog: int, uid: int, gid: int, command: list[str]) -> NoReturn:
    try:
        os.dup2(2, 1)
        for number in (signal.SIGTERM, signal.SIGCHLD, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_DFL)
        _become(uid, gid)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != watchdog:
                os._exit(1)
        os.execvp(command[0], command)  # noqa: S606 - the command of the caller, which runs as the same user
    except OSError as error:
        os.write(2, f"cannot run {command[0]}: {error}\n".encode())
    finally:
        os._exit(127)


def main(arguments: list[str]) -> int:
    """Run the server. Return its exit code, or 128 plus the number of the signal that killed it."""
    parent, uid, gid = (int(number) for number in arguments[:3])
    folder, command = arguments[3], arguments[4:]
    told_to_end: list[int] = []
    reader, writer = os.pipe()
    os.set_blocking(reader, False)
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    signal.signal(signal.SIGTERM, lambda number, _: told_to_end.append(number))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    watchdog = os.getpid()
    server = os.fork()
    if server == 0:
        _serve(watchdog, uid, gid, command)
    with contextlib.suppress(BrokenPipeError):
        os.write(1, b"%d\n" % server)
    while True:
        select.select([reader], [], [], POLL)
        with contextlib.suppress(BlockingIOError):
            os.read(reader, 4096)
        ended, status = os.waitpid(server, os.WNOHANG)
        orphaned = os.getppid() != parent
        if not ended and (orphaned or told_to_end):
            signal_family(server, signal.SIGKILL)
            _, status = os.waitpid(server, 0)
            ended = server
        if ended:
            if orphaned:
                shutil.rmtree(folder, ignore_errors=True)
            code = os.waitstatus_to_exitcode(status)
            return code if code >= 0 else 128 - code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
