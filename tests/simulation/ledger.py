"""What was committed, step by step, and the reference model taken through the same steps.

In a simulation only one thing happens at a time, so the ledger sees every commit in the very order in which the
storage made it, also one whose process died before it learned of it. Each must do what the model says.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from tests.invariants import FINALIZING, differences, snapshot
from triggers.core import decisions
from triggers.core.status import Status
from triggers.core.values import decode
from triggers.testing.conformance.machine import REFUSALS, timeline
from triggers.testing.conformance.model import NOT_CHARGED, RUNNING, Model
from triggers.testing.conformance.steps import Steps

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from triggers.core.exchange import Changes
    from triggers.storages.base import Lease, Storage


class Ledger:
    """All that was committed, and what it must have come to.

    Args:
        on_recovery: called with the session, task, number and old fence of each claim that was taken away.

    Attributes:
        models: session → its model.
        ends: (session, instance, fence) → how often an end of that claim was accepted.
        seen: what happened, how often.
    """

    def __init__(self, on_recovery: Callable[[str, str, int, int], None]) -> None:
        self.models: dict[str, Model] = {}
        self.ends: Counter[tuple[str, str, int]] = Counter()
        self.seen: Counter[str] = Counter()
        self.leases: dict[tuple[str, str], int | None] = defaultdict(int)
        self.trials: dict[tuple[str, str], int | None] = {}
        self._on_recovery = on_recovery

    def note(self, decision: str, given: Mapping[str, Any], changes: Changes) -> None:
        """Take the model through a commit, and compare what came of it."""
        uid = changes.session.uid
        model = self.models.setdefault(uid, Model(FINALIZING))
        model.now = changes.session.now
        model.called_at = given.get("called_at")
        self.seen[f"{decision} refused" if changes.refused else decision] += 1
        try:
            getattr(self, f"_{decision}")(model, uid, given, changes)
        except tuple(REFUSALS) as refusal:
            message = f"session {uid}: {decision} was stored, and the model refuses it: {refusal}"
            raise AssertionError(message) from refusal

    def renew(self, leases: Collection[Lease], until: int) -> set[Lease]:
        """Note a heartbeat for these claims; returns those that it extended."""
        held = {lease for lease in leases if self._is_held(lease)}
        for lease in held:
            self.leases[lease.uid, f"{lease.task}#{lease.number}"] = until
        return held

    def _is_held(self, lease: Lease) -> bool:
        instance = self.models[lease.uid].instances[f"{lease.task}#{lease.number}"]
        return (instance.status, instance.fence) == (RUNNING, lease.fence)

    def compare(self, storage: Storage) -> dict[str, Any]:
        """Compare every session, as it is stored, with its model; returns what is stored."""
        stored = {}
        for uid, model in self.models.items():
            stored[uid] = snapshot(Steps(storage, uid))
            for part, (found, wanted) in differences(stored[uid], snapshot(model)).items():
                assert found == wanted, f"session {uid}: {part}"
            stored[uid]["times"] = timeline(Steps(storage, uid))
            assert stored[uid]["times"] == model.timeline(), f"session {uid}: times"
        return stored

    # -- the application -------------------------------------------------------------------------------------

    def _fire(self, model: Model, uid: str, given: Mapping[str, Any], changes: Changes) -> None:
        firing = given["firing"]
        expected = model.fire(firing.trigger, decode(firing.kwargs), firing.key)
        found = changes.duplicate_of or changes.fired[0]
        assert (found.number, changes.duplicate_of is not None) == (expected.number, expected.duplicate)
        self.seen["fire repeated"] += expected.duplicate
        _check_effects(model, changes)

    def _configure(self, model: Model, uid: str, given: Mapping[str, Any], changes: Changes) -> None:
        model.configure(given["rules"].configuration, catch_up=given["catch_up"], merge=given["merge"])

    def _set_timer(self, model: Model, uid: str, given: Mapping[str, Any], changes: Changes) -> None:
        timer = given["timer"]
        model.fire_later(timer.trigger, given["after"], timer.name, decode(timer.kwargs), timer.key)

    def _elapse(self, model: Model, uid: str, given: Mapping[str, Any], changes: Changes) -> None:
        assert not changes.refused
        model.called_at = given["until"]
        before = len(model.firings)
        model.elapse()
        assert [each.at for each in changes.fired] == [each.at for each in model.firings[before:]]
        self.seen["timer elapsed"] += bool(changes.timers)

    def _replay(self, model: Model, uid: str, given: Mapping[str, Any], changes: Changes) -> None:
        assert [made.name for made in changes.created] == [model.replay(_name(given))]

    def _skip(self, model: Model, uid: str, given: Mapping[str, Any], changes: Changes) -> None:
        result = given["result"]
        payload = None if result is None else decode(result)
        model.skip(_name(given), cascade=result is not None, result=payload)
        _check_effects(model, changes)

    def _set_status(self, model: Model, uid: str, given: Mapping[str, Any], changes: Changes) -> None:
        assert given["status"] is Status.SCHEDULED, "the only move by hand in these simulations"
        model.schedule(_name(given))

    # -- the worker ------------------------------------------------------------------------------------------

    def _claim(self, model: Model, uid: str, given: Mapping[str, Any], changes: Changes) -> None:
        name, claimed = _name(given), changes.claimed
        if changes.refused == decisions.MUST_RUN_ALONE:
            assert model.instances[name].crashes >= NOT_CHARGED
            return
        fence = model.claim(name)
        assert (None if claimed is None else claimed.fence) == fence, f"claim of {name}: {changes.refused}"
        if claimed is not None:
            self.leases[uid, name] = claimed.lease_until

    def _finish(self, model: Model, uid: str, given: Mapping[str, Any], changes: Changes) -> None:
        name, fence = _held(given)
        self._ended(uid, name, fence, changes, done=model.finish(name, fence, decode(given["result"])))

    def _fail(self, model: Model, uid: str, given: Mapping[str, Any], changes: Changes) -> None:
        name, fence = _held(given)
        terms = given["retry"]
        self.seen["timed out"] += "TaskTimeoutError" in given["error"]
        if terms is None:
            self._ended(uid, name, fence, changes, done=model.fail(name, fence, "error"))
            return
        kwargs = None if terms.kwargs is None else decode(terms.kwargs)
        successor = model.retry(name, fence, terms.cooldown, terms.limit, kwargs)
        self._ended(uid, name, fence, changes, done=successor is not None)
        made = [] if successor in (None, name) else [successor]
        assert [instance.name for instance in changes.created] == made

    def _skip_running(self, model: Model, uid: str, given: Mapping[str, Any], changes: Changes) -> None:
        name, fence = _held(given)
        self._ended(uid, name, fence, changes, done=model.skip_running(name, fence))

    def _release(self, model: Model, uid: str, given: Mapping[str, Any], changes: Changes) -> None:
        name, fence = _held(given)
        assert model.release(name, fence) == (not changes.refused)

    def _keep_logs(self, model: Model, uid: str, given: Mapping[str, Any], changes: Changes) -> None:
        assert not changes.refused, "what anybody says is kept"

    def _ended(self, uid: str, name: str, fence: int, changes: Changes, *, done: bool) -> None:
        assert done == (not changes.refused), (
            f"end of {name} with fence {fence}: {changes.refused or 'accepted'}"
        )
        if done:
            self.ends[uid, name, fence] += 1
            _check_effects(self.models[uid], changes)

    # -- the sweep -------------------------------------------------------------------------------------------

    def _recover(self, model: Model, uid: str, given: Mapping[str, Any], changes: Changes) -> None:
        name, fence = _name(given), given["fence"]
        instance = model.instances[name]
        held = instance.status == RUNNING and instance.fence == fence
        late = held and (self.leases[uid, name] or 0) < model.now
        assert late == (not changes.refused), (
            f"recovery of {name} with fence {fence}: {changes.refused or 'done'}"
        )
        if not late:
            return
        after = changes.transitioned[0][0]
        if after.status is Status.RUNNING:  # its worker gets a trial
            assert instance.crashes >= NOT_CHARGED or not after.budget
            assert self.trials.get((uid, name)) != self.leases[uid, name]
            self.leases[uid, name] = self.trials[uid, name] = after.lease_until
        else:
            assert model.expire(name, fail_at_once=not after.budget)
            self._on_recovery(uid, given["task"], given["number"], fence)


def _name(given: Mapping[str, Any]) -> str:
    return f"{given['task']}#{given['number']}"


def _held(given: Mapping[str, Any]) -> tuple[str, int]:
    attempt = given["attempt"]
    return f"{attempt.task}#{attempt.number}", attempt.fence


def _check_effects(model: Model, changes: Changes) -> None:
    """What was created, scheduled and abandoned is what the model says."""
    step = model.last_step if changes.fired else []
    created = {made.name for made in changes.created if made.parent is None}
    assert created == {name for each in step for name in each.created}
    touched = [*changes.created, *changes.triggered]
    for status, wanted in ((Status.SCHEDULED, "scheduled"), (Status.ABANDONED, "abandoned")):
        found = {
            instance.name for instance in touched if instance.status is status and instance.parent is None
        }
        assert found == {name for each in step for name in getattr(each, wanted)}
