"""Say on the error stream, once, what went wrong beneath a task that must not notice it."""

from __future__ import annotations

import sys
import traceback

from triggers.logs.sanitizing.shapes import type_name

#: Different problems that are told apart; beyond these, silence.
MAX_REPORTS = 100
_reported: set[tuple[str, str]] = set()


def report_once(what: str, problem: BaseException) -> None:
    """Print a problem and its traceback to standard error, the first time that this kind of it happens here.

    Args:
        what: what failed, and what happens instead, as a sentence; with the type of the problem it tells
            kinds apart.
        problem: what was raised.
    """
    kind = (what, type_name(type(problem)))
    if kind in _reported or len(_reported) >= MAX_REPORTS:
        return
    _reported.add(kind)
    try:
        trace = "".join(traceback.format_exception(problem, limit=-10))
        print(f"triggers: {what} (reported once)\n{trace}", end="", file=sys.stderr)  # noqa: T201 - no log is left to use
    except Exception:  # noqa: BLE001, S110 - a process without a usable error stream goes on without one
        pass
