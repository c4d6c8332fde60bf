"""Runs one server for as long as the process that asked for it lives, and not a second longer.

Started as a script (`python keeper.py PARENT UID GID FOLDER COMMAND…`) by :mod:`triggers.testing.servers`, as
the parent of the server: what `kill -9` does to a test run, it does to the servers of the run, too. It prints
the server's process id. It ends when the server ends; when the parent is gone it kills the server with all of
its processes and removes the folder.
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

#: Seconds between two looks at whether the parent lives.
LOOK = 0.25
_PR_SET_PDEATHSIG = 1


def family(pid: int) -> list[int]:
    """The process and all of its descendants that are there now, parents first.

    PostgreSQL gives each of its processes a session of its own: a signal to a group does not reach them.
    """
    children: dict[int, list[int]] = {}
    for child, parent in _processes():
        children.setdefault(parent, []).append(child)
    found = [pid]
    for each in found:  # grows while it is walked
        found.extend(children.get(each, ()))
    return found


def _processes() -> list[tuple[int, int]]:
    if not Path("/proc/self/stat").exists():
        listing = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True)  # noqa: S607 - wherever it is
        return [(int(pid), int(parent)) for pid, parent in map(str.split, listing.stdout.splitlines())]
    pairs = []
    for entry in os.listdir("/proc"):  # noqa: PTH208 - a thousand Path objects for a thousand processes
        if entry.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{entry}/stat", "rb") as stat:  # noqa: PTH123 - as above
                # The name in parentheses may hold anything, also a parenthesis.
                pairs.append((int(entry), int(stat.read().rpartition(b")")[2].split()[1])))
    return pairs


def signal_family(pid: int, number: int) -> None:
    """Send the signal to the process and its descendants, also to those that appear meanwhile."""
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
        os.execvp(command[0], command)  # noqa: S606 - the command of the caller, who is the same user
    except OSError as error:
        os.write(2, f"cannot run {command[0]}: {error}\n".encode())
    finally:
        os._exit(127)


def main(arguments: list[str]) -> int:
    """Run the server; the exit code is its own (minus the signal that killed it, as 128 + number)."""
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
        select.select([reader], [], [], LOOK)
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
