"""Children of a test: processes that are forked, do one thing, and end or are killed."""

from __future__ import annotations

import ctypes
import gc
import os
import signal
import sys
import traceback
import warnings
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_PR_SET_PDEATHSIG = 1

#: How :func:`end` names the end of a process that was killed.
KILLED = -signal.SIGKILL


def fork() -> int:
    """Fork; threads that other tests left waiting in this process take no part and hold no lock of ours."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def begin(act: Callable[[], object]) -> int:
    """Do it in a child of its own, and return its process id; on Linux it dies with its parent."""
    parent = os.getpid()
    pid = fork()
    if pid:
        return pid
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
        if os.getppid() != parent:
            os._exit(1)
    gc.disable()  # a collection would copy every page that the child shares with its parent
    code = 1
    try:
        act()
        code = 0
    except BaseException:  # noqa: BLE001 - whatever it is, the child ends here
        traceback.print_exc()
    finally:
        os._exit(code)


def end(pid: int) -> int:
    """Wait for a child: its exit code, or the negative number of the signal that killed it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def in_child(act: Callable[[], object]) -> int:
    """Do it in a child of its own and wait for its end."""
    return end(begin(act))
