"""Reports on standard error, once, a problem that must not reach the task."""

from __future__ import annotations

import sys
import traceback

from triggers.logs.sanitizing.shapes import type_name

#: Different problems that are reported; further ones are not.
MAX_REPORTS = 100
_reported: set[tuple[str, str]] = set()


def report_once(what: str, problem: BaseException) -> None:
    """Print a problem and its traceback to standard error, once per kind and process.

    Args:
        what: a sentence with what failed and what happens instead; it and the type of the exception are the
            kind.
        problem: the exception.
    """
    kind = (what, type_name(type(problem)))
    if kind in _reported or len(_reported) >= MAX_REPORTS:
        return
    _reported.add(kind)
    try:
        trace = "".join(traceback.format_exception(problem, limit=-10))
        print(f"triggers: {what} (reported once)\n{trace}", end="", file=sys.stderr)  # noqa: T201 - logging itself has failed
    except Exception:  # noqa: BLE001, S110 - a process without a usable standard error continues
        pass
