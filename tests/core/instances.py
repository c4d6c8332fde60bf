"""Instances in any status."""

from __future__ import annotations

from triggers.core.status import Status


def in_status(steps, status):
    """The name of an instance in that status."""
    steps.configure({"t": {"after": ["a", "b"], "unless": ["c"], "run": "r"}})
    steps.fire("a")
    if status is Status.ABANDONED:
        steps.fire("c")
    elif status is not Status.UNSTARTED:
        steps.fire("b")
    if status in {Status.UNSTARTED, Status.ABANDONED, Status.SCHEDULED}:
        return "t#0"
    attempt = steps.start("t#0")
    if status is Status.FINISHED:
        steps.finish(attempt)
    elif status is Status.SKIPPED:
        steps.skip_running(attempt)
    elif status is not Status.RUNNING:
        steps.fail(attempt)
    if status is Status.REPLAYED:
        steps.replay("t#0")
    return "t#0"
