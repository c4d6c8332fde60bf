"""Sessions that version 2 itself has played: its tasks, its operations, and what it shows of a session.

`data/version2_law.jsonl` has 200 random sessions with what version 2 stored after each operation and everything that
followed from it. `data/version2_sessions.jsonl` has 80 that were stopped half-way, with the bytes of its cache.
"""

from __future__ import annotations

import base64
import json
from pathlib import Path

from triggers import Registry, task
from triggers.core.names import split_instance_name
from triggers.core.status import Status

DATA = Path(__file__).parent / "data"


def lines(name):
    """The sessions in a file."""
    return [json.loads(line) for line in (DATA / name).read_text("utf-8").splitlines()]


def dump_of(session):
    """The bytes that version 2 has stored of a session."""
    return base64.b64decode(session["dump"])


def version2_tasks():
    """The tasks of these sessions."""
    registry = Registry()

    @task(name="Pass", registry=registry)
    def succeed(context):
        return {"kw": context.trigger_kwargs}

    @task(name="Fail", registry=registry)
    def fail(context):
        message = "x"
        raise RuntimeError(message)

    @task(name="FailFirst", registry=registry)
    def fail_first(context):
        if context.task_instance.depth == 0:
            message = "x"
            raise RuntimeError(message)
        return {"second": True}

    @task(name="Skip", registry=registry)
    def skip(context):
        raise context.skip({"why": 1})

    @task(name="Retry", registry=registry, max_retries=2)
    def retry(context):
        depth = context.task_instance.depth
        if depth == 0:
            raise context.retry(RuntimeError("x"))
        return {"retried": depth}

    return registry


def do(manager, operation):
    """Perform an operation, and everything that follows from it."""
    kind, *given = operation
    if kind == "configure":
        manager.update_configuration(given[0])
    elif kind == "fire":
        manager.fire(*given)
    else:
        act_on_a_failed_instance(manager, kind, *given)


def act_on_a_failed_instance(manager, kind, which, *given):
    """Replay or skip one of the failed instances, in the order of task and number; do nothing if there is none."""
    failed = sorted(
        (instance.name for instance in manager.storage if instance.status is Status.FAILED),
        key=split_instance_name,
    )
    if not failed:
        return
    name = failed[which % len(failed)]
    if kind == "replay":
        manager.replay_failed_instance(name, *given)
    else:
        cascade, result = given
        manager.skip_failed_instance(name, cascade, result if cascade else None)


def shown(view):
    """A session in the form in which version 2 was written down."""
    return {
        "inst": {
            each.name: [
                each.status.value,
                dict(each.kwargs),
                each.result if each.status is Status.FINISHED else None,
                each.parent,
                each.depth,
            ]
            for each in view
        },
        "ut": sorted(rule.task for rule in view.get_unresolved_tasks()),
        "ui": sorted(each.name for each in view.get_unresolved_instances()),
    }


def expected(after):
    """What version 2 has stored, in that form."""
    return {**after, "ut": sorted(after["ut"]), "ui": sorted(after["ui"])}
