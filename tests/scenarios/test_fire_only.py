"""A process without a runner fires, and others run what it released."""

from __future__ import annotations

from triggers import Registry, Triggers
from triggers.task import task

tasks = Registry()


@task(name="fire_only.Note", registry=tasks)
def note(context):
    return {"saw": context.trigger_kwargs["go"]}


def test_what_a_process_without_a_runner_releases_is_due_at_once(tmp_path):
    """The next sweep of a worker runs it: nobody else was told, so there is no grace to wait for."""
    url = f"sqlite:///{tmp_path / 'shared.db'}"
    web = Triggers(url, runner=None)
    session = web.session("s")
    session.update_configuration({"t_note": {"after": ["go"], "run": "fire_only.Note"}})
    session.fire("go", {"page": 1})
    worker = Triggers(url, runner="inline", registry=tasks)
    assert worker.sweep().dispatched == 1
    assert session.storage["t_note#0"].result == {"saw": {"page": 1}}
    worker.close()
    web.close()
