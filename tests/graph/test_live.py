"""The graph of a session says what is stored, on a storage in memory and in a file."""

from __future__ import annotations

import pytest

from triggers import FinalizingTriggerManager, Registry, Triggers, task
from triggers.graph import session_graph
from triggers.session import PAGE

RULES = {
    "t_import": {"after": ["first", "complete"], "run": "ok"},
    "t_each": {"after": ["t_import"], "andEvery": "page", "run": "maybe"},
    "t_repair": {"after": ["t_each:failed", "approved"], "run": "ok"},
    "t_report": {"after": ["sessionFinalized"], "run": "ok"},
}


def tasks() -> Registry:
    registry = Registry()

    @task(name="ok", registry=registry)
    def ok(context):
        return {}

    @task(name="maybe", registry=registry)
    def maybe(context):
        if "bad" in context.trigger_kwargs["page"]:
            message = "bad page"
            raise ValueError(message)
        return {}

    return registry


@pytest.fixture(params=["memory", "sqlite"])
def app(request, tmp_path):
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path / 's.db'}?synchronous=normal"
    with Triggers(url, runner="inline", registry=tasks(), manager=FinalizingTriggerManager) as opened:
        yield opened


def play(app, pages=2):
    session = app.session("order <17>")
    session.update_configuration(RULES)
    for _ in range(pages):
        session.fire("page")
    session.fire("page", {"bad": True})
    session.fire("first")
    session.fire("complete")
    return session


def nodes(session):
    return {node.label: node for node in session_graph(session).nodes}


def met(session):
    graph = session_graph(session)
    return {(edge.source, edge.target) for edge in graph.edges if edge.met}


def test_every_instance_and_every_firing_counts(app):
    """Pages are read to their end: statuses of tasks, and firings of external triggers."""
    found = nodes(play(app, pages=PAGE + 10))
    assert found["t_each"].statuses == {"finished": PAGE + 10, "failed": 1}
    assert found["t_import"].statuses == {"finished": 1}
    assert found["t_repair"].statuses == {"unstarted": 1}
    fired = {name: node.fired for name, node in found.items() if node.kind == "trigger"}
    assert fired == {"first": 1, "complete": 1, "page": PAGE + 11, "approved": 0, "sessionFinalized": 0}
    assert found["sessionFinalized"].notes == ("when the session is complete",)


def test_edges_show_what_the_waiting_instance_has(app):
    """The outcome has come, the approval has not; then the instance runs, and has both."""
    session = play(app)
    repair = {("task t_each", "task t_repair"), ("trigger approved", "task t_repair")}
    assert met(session) & repair == {("task t_each", "task t_repair")}
    session.fire("approved")
    assert met(session) >= repair


def test_the_latest_waiting_instance_counts_even_if_another_one_is_later(app):
    """A replay has a higher number, but what somebody wants to know is what the other one waits for."""
    session = app.session("s")
    session.update_configuration(
        {"t": {"after": [{"any": ["early", "page"]}], "andEvery": "page", "run": "maybe"}}
    )
    session.fire("page", {"bad": True})
    session.fire("early")
    session.update_configuration({"t": {"after": ["early", "more"], "andEvery": "page", "run": "maybe"}})
    session.fire("page")
    session.replay_failed_instance("t#0")
    statuses = {instance.name: str(instance.status) for instance in session.storage}
    assert statuses == {"t#0": "replayed", "t#1": "unstarted", "t#2": "failed"}
    assert met(session) == {("trigger early", "task t"), ("trigger page", "task t")}
    assert nodes(session)["t"].statuses == {"replayed": 1, "unstarted": 1, "failed": 1}


def test_a_removed_task_is_still_there(app):
    """Its instances are counted."""
    session = play(app)
    session.replace_configuration({name: rule for name, rule in RULES.items() if name != "t_each"})
    assert nodes(session)["t_each"].notes == ("no longer configured",)
    assert nodes(session)["t_each"].statuses == {"finished": 2, "failed": 1}


def test_the_title_is_the_session(app):
    """It is escaped where it is drawn."""
    assert session_graph(play(app)).title == "Session order <17>"


def test_a_session_that_does_not_exist_has_an_empty_graph(app):
    """Nothing is configured and nothing has happened."""
    assert [node.label for node in session_graph(app.session("new")).nodes] == ["sessionFinalized"]


def test_a_session_of_another_manager_is_drawn_without_its_finalizing_trigger(app):
    """This manager does not know which trigger that is."""
    app.session("s").update_configuration({"t": {"after": ["a"], "run": "ok"}})

    class Other(FinalizingTriggerManager):
        name = "other"
        finalize_trigger = "otherEnd"

    with Triggers(app.storage, runner=None, registry=tasks(), manager=Other) as other:
        assert [node.label for node in session_graph(other.session("s")).nodes] == ["a", "t"]


def test_firings_are_counted_by_trigger(app):
    """Those of tasks and outcomes, too."""
    counts = play(app).storage.firing_counts()
    assert counts == {
        "page": 3,
        "first": 1,
        "complete": 1,
        "t_import": 1,
        "t_each": 2,
        "t_each:failed": 1,
    }
