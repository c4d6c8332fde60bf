"""Every step of the protocol, with a session that is ready for it: where the processes of the crash tests die."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tests.crash.world import CONFIGURATION, World, plan
from tests.invariants import Fire
from triggers import FinalizingTriggerManager
from triggers.core.decisions import AttemptReport, RetryTerms
from triggers.core.names import split_instance_name
from triggers.core.records import LogBatch, LogEntry
from triggers.core.values import DEFAULT_LIMITS
from triggers.testing.conformance.steps import SECOND, Steps

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.crash.healing import Ticking
    from triggers import Triggers
    from triggers.storages.sqlite import SqliteStorage

POLICY = FinalizingTriggerManager.policy_for(30 * SECOND, DEFAULT_LIMITS)

HELLO = "hello"

_ERROR = {"type": "ValueError", "message": "no"}


class Scene:
    """A session of a world in the hands of one process.

    Args:
        world: where.
        storage: this process's handle.
        clock: its clock.
        uid: the session.
    """

    def __init__(self, world: World, storage: SqliteStorage, clock: Ticking, uid: str) -> None:
        self.world = world
        self.storage = storage
        self.clock = clock
        self.uid = uid
        self.steps = Steps(storage, uid, POLICY)

    @cached_property
    def app(self) -> Triggers:
        """An application that only fires."""
        return self.world.app(None, storage=self.storage)

    def configure(self) -> None:
        """The session gets its rules."""
        self.app.session(self.uid).update_configuration(CONFIGURATION)

    def fire(self, *triggers: str) -> None:
        """The first of these triggers that the plan has, each time, happens."""
        for trigger in triggers:
            self.world.fire(self.app, next(fire for fire in fires(self.uid) if fire.trigger == trigger))

    def fire_all(self) -> None:
        """All of the plan happens."""
        self.configure()
        for fire in plan(self.uid):
            self.world.fire(self.app, fire)

    def run_all_but(self, *tasks: str) -> None:
        """Everything runs, as far as it can without these tasks."""
        self.fire_all()
        for _ in range(20):
            ready = self.storage.due(100, grace=SECOND)
            for due in ready:
                if due.task not in tasks:
                    self.app.run(*due[:3])
            rest_of = {each.name for each in self.steps.instances() if each.status == "scheduled"}
            if all(name.partition("#")[0] in tasks for name in rest_of):
                return
            self.clock.advance(100)

    def start(self, name: str, **terms: Any) -> AttemptReport:
        """A worker claims the instance and begins to run it."""
        attempt = self.steps.start(name, "worker", **terms)
        self.world.runs.write(
            what="start", uid=self.uid, instance=name, attempt=attempt.attempt, fence=attempt.fence
        )
        return attempt

    def held(self, name: str) -> AttemptReport:
        """The attempt that holds the instance now."""
        stored = self.steps[name]
        return AttemptReport(*split_instance_name(name), stored.fence, stored.attempt)

    def said(self, attempt: AttemptReport) -> AttemptReport:
        """The attempt with something to say."""
        return replace(attempt, logs=_batch(), metadata={"seen": True})

    def finish(self, attempt: AttemptReport) -> None:
        """The attempt returns."""
        assert self.steps.finish(self.said(attempt), {"fence": attempt.fence}).refused == ""

    def fail(self, attempt: AttemptReport) -> None:
        """The attempt raises."""
        assert self.steps.fail(self.said(attempt), _ERROR).refused == ""


def _batch() -> LogBatch:
    entries = [
        LogEntry(
            seq, 1, level, "crash", f"record {seq}", "record %d", {"seq": seq}, None, "file.py", 1, "run"
        )
        for seq, level in ((1, 20), (2, 30))
    ]
    return LogBatch(entries, {20: 1, 30: 1}, 0)


def fires(uid: str) -> list[Fire]:
    """All that may happen: the plan, and a trigger that no task listens to."""
    return [*plan(uid), Fire(uid, HELLO, "hello-0", "h0")]


def _nothing(_: Scene) -> None:
    """The file is there, and empty."""


@dataclass(frozen=True, slots=True)
class Step:
    """One step.

    Attributes:
        prepare: brings a session to where the step can be done.
        act: does it.
        uid: the session.
        planned: whether the session comes to its planned end all the same.
        modelled: whether the model can tell from the stored history what happened.
        lost: how many runs are lost with it at most.
        purged: whether records may have been removed.
        lost: how many runs are lost by it at most.
    """

    prepare: Callable[[Scene], object]
    act: Callable[[Scene], object]
    uid: str = "s-1"
    planned: bool = True
    modelled: bool = True
    lost: int = 1
    purged: bool = False


def _then(*parts: Callable[[Scene], object]) -> Callable[[Scene], None]:
    def prepare(scene: Scene) -> None:
        for part in parts:
            part(scene)

    return prepare


def _started(name: str, **terms: Any) -> Callable[[Scene], None]:
    return _then(Scene.fire_all, lambda scene: scene.start(name, **terms))


def _failed(name: str) -> Callable[[Scene], None]:
    return _then(_started(name), lambda scene: scene.fail(scene.held(name)))


def _fired(*triggers: str) -> Callable[[Scene], None]:
    return _then(Scene.configure, lambda scene: scene.fire(*triggers))


def _expired(name: str, **terms: Any) -> Callable[[Scene], None]:
    return _then(_started(name, **terms), lambda scene: scene.clock.advance(61))


def _replaced(scene: Scene) -> None:
    """The first attempt lost its lease, and a second one runs."""
    _expired("t_subject#0")(scene)
    scene.steps.recover("t_subject#0", 1)
    scene.clock.advance(2)
    scene.start("t_subject#0")


def _ghost(scene: Scene) -> None:
    """The first attempt comes back from the dead."""
    ghost = scene.said(AttemptReport("t_subject", 0, 1, 1))
    assert scene.steps.finish(ghost, {"fence": 1}).refused


def _small(scene: Scene) -> None:
    """The session has two of its tasks only, and all has happened."""
    part = {task: CONFIGURATION[task] for task in ("t_subject", "t_responses")}
    scene.app.session(scene.uid).replace_configuration(part)
    for fire in plan(scene.uid):
        scene.world.fire(scene.app, fire)


def _retry(scene: Scene) -> None:
    terms = RetryTerms(20_000, 3, '"too often"')
    assert scene.steps.fail(scene.said(scene.held("t_flaky#0")), _ERROR, terms).created


def _renew(scene: Scene) -> None:
    assert scene.steps.renew(scene.held("t_subject#0")) == set()


def _dispatch(scene: Scene) -> None:
    assert scene.storage.due(100, grace=SECOND)


def _resolve(scene: Scene) -> None:
    scene.app.session(scene.uid).mark_instance_logs_resolved("t_failing#0", by="me")
    scene.clock.advance(1)


def _fire_later(scene: Scene) -> None:
    """A timer will fire what the plan has, too, with the same key: it happens once in all."""
    hello = next(fire for fire in fires(scene.uid) if fire.trigger == HELLO)
    session = scene.app.session(scene.uid)
    session.fire_later(hello.trigger, hello.kwargs, after=10, name="hello", key=hello.key)


_timed = _then(Scene.configure, _fire_later, lambda scene: scene.clock.advance(11))


STEPS: dict[str, Step] = {
    "configure": Step(_nothing, Scene.configure),
    "fire into an unknown session": Step(_nothing, lambda scene: scene.fire(HELLO)),
    "fire, which makes an instance": Step(Scene.configure, lambda scene: scene.fire("first")),
    "fire, which completes joins": Step(_fired("first"), lambda scene: scene.fire("complete")),
    "fire for every page": Step(
        _fired("first", "page"), lambda scene: scene.world.fire(scene.app, plan("s-1")[3])
    ),
    "fire, which abandons": Step(_fired("first"), lambda scene: scene.fire("embedded"), uid="s-0"),
    "fire again": Step(_fired("first"), lambda scene: scene.fire("first")),
    "reconfigure, catching up": Step(
        _small,
        lambda scene: scene.app.session(scene.uid).replace_configuration(CONFIGURATION, catch_up=True),
        modelled=False,
    ),
    "set a timer": Step(Scene.configure, _fire_later),
    "cancel a timer": Step(
        _then(Scene.configure, _fire_later),
        lambda scene: scene.app.session(scene.uid).cancel_timer("hello"),
    ),
    "sweep, which lets a timer elapse": Step(_timed, lambda scene: scene.app.sweep()),
    "fire, before which a timer elapses": Step(_timed, lambda scene: scene.fire("first")),
    "claim": Step(Scene.fire_all, lambda scene: scene.steps.start("t_subject#0", "worker")),
    "give back": Step(
        Scene.fire_all, lambda scene: scene.steps.claim("t_subject#0", able=False), modelled=False
    ),
    "keep logs": Step(
        _started("t_subject#0"), lambda scene: scene.steps.keep_logs(scene.held("t_subject#0"), _batch())
    ),
    "renew": Step(_started("t_subject#0"), _renew),
    "finish, with a cascade": Step(
        _started("t_subject#0"), lambda scene: scene.finish(scene.held("t_subject#0")), planned=False
    ),
    "finish, which finalises": Step(
        _then(
            lambda scene: scene.run_all_but("t_failing", "t_score"),
            lambda scene: _mend(scene, "t_failing#0"),
            lambda scene: scene.start("t_score#0"),
        ),
        lambda scene: scene.finish(scene.held("t_score#0")),
        uid="s-2",
    ),
    "fail": Step(_started("t_failing#0"), lambda scene: scene.fail(scene.held("t_failing#0"))),
    "retry": Step(_started("t_flaky#0"), _retry),
    "skip itself": Step(
        _started("t_notes#0"),
        lambda scene: scene.steps.skip_running(scene.said(scene.held("t_notes#0"))),
        planned=False,
    ),
    "replay": Step(
        _failed("t_failing#0"),
        lambda scene: scene.app.session(scene.uid).replay_failed_instance("t_failing#0"),
    ),
    "skip": Step(
        _failed("t_notes#0"),
        lambda scene: scene.app.session(scene.uid).skip_failed_instance("t_notes#0"),
        planned=False,
    ),
    "skip, with a cascade": Step(
        _failed("t_subject#0"),
        lambda scene: scene.app.session(scene.uid).skip_failed_instance(
            "t_subject#0", cascade=True, result={"a": 1}
        ),
        planned=False,
    ),
    "move by hand": Step(
        _started("t_flaky#0"),
        lambda scene: scene.app.session(scene.uid).update_instance_status("t_flaky#0", "failed"),
        planned=False,
        modelled=False,
    ),
    "add metadata": Step(
        Scene.fire_all,
        lambda scene: scene.app.session(scene.uid).update_instance_metadata("t_subject#0", {"a": 1}),
    ),
    "add metadata to the session": Step(
        Scene.fire_all, lambda scene: scene.app.session(scene.uid).update_session_metadata({"a": 1})
    ),
    "resolve logs": Step(
        _failed("t_failing#0"),
        lambda scene: scene.app.session(scene.uid).mark_instance_logs_resolved(
            "t_failing#0", by="me", through=1
        ),
    ),
    "reopen logs": Step(
        _then(_failed("t_failing#0"), _resolve),
        lambda scene: scene.app.session(scene.uid).reopen_instance_logs("t_failing#0", by="me"),
    ),
    "purge records": Step(
        _then(_failed("t_failing#0"), _resolve),
        lambda scene: scene.app.purge_logs(timedelta(0)),
        purged=True,
    ),
    "purge contexts": Step(
        _then(_failed("t_failing#0"), _resolve),
        lambda scene: scene.app.purge_logs(timedelta(0), contexts_only=True),
        purged=True,
    ),
    "release": Step(
        _started("t_subject#0"), lambda scene: scene.steps.release(scene.said(scene.held("t_subject#0")))
    ),
    "sweep, which recovers": Step(_expired("t_subject#0"), lambda scene: scene.app.sweep()),
    "sweep, which fails": Step(
        _expired("t_subject#0", crash_budget=1), lambda scene: scene.app.sweep(), planned=False
    ),
    "refuse a ghost": Step(_replaced, _ghost, lost=2),
    "dispatch": Step(_then(Scene.fire_all, lambda scene: scene.clock.advance(31)), _dispatch),
    "run a task": Step(Scene.fire_all, lambda scene: scene.app.run(scene.uid, "t_subject", 0)),
}


def _mend(scene: Scene, name: str) -> None:
    scene.start(name)
    scene.fail(scene.held(name))
    new = scene.app.session(scene.uid).replay_failed_instance(name).name
    scene.start(new)
    scene.finish(scene.held(new))
