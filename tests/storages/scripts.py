"""Programs of their own, in which connections live and end: what a test cannot do to its own process."""

from __future__ import annotations

import subprocess
import sys
import textwrap
import warnings

from triggers.storages.sqlite import SqliteStorage
from triggers.testing.conformance.steps import Steps

DRIVERS = ("pysqlite3", "sqlite3")

#: What every script begins with.
BEGINNING = """
import os, sys, threading, time, warnings
warnings.simplefilter("ignore")
from triggers import Triggers
from triggers.exceptions import StorageError

url = sys.argv[1]

def descriptors(of="a.db"):
    names = (os.path.join("/proc/self/fd", name) for name in os.listdir("/proc/self/fd"))
    return sum(of in os.readlink(name) for name in names if os.path.lexists(name))

def end_of(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""


def opened(url):
    """The storage, without the warning that one of the drivers comes with."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "SQLite .* can corrupt", RuntimeWarning)
        return SqliteStorage(url)


def counted(url):
    """How many firings are stored in session "s", as somebody sees it who comes later."""
    storage = opened(url)
    try:
        return Steps(storage, "s").head.firings
    finally:
        storage.close()


def run(script, url, *given, mutant="", seconds=120):
    """Run the script to its end in a new process; returns what it printed, and its exit code.

    Args:
        script: its text, which follows that of :data:`BEGINNING`.
        url: of the storage.
        given: further arguments.
        mutant: what is done to the library before.
        seconds: how long it may take.
    """
    text = f"{BEGINNING}\n{textwrap.dedent(mutant)}\n{textwrap.dedent(script)}"
    ended = subprocess.run(
        [sys.executable, "-c", text, url, *given],
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    return ended.stdout + ended.stderr, ended.returncode
