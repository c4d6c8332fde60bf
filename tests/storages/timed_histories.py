"""Generated histories of a session with timers, and what is seen of it after any schedule of sweeps."""

from __future__ import annotations

import random
from datetime import timedelta

from hypothesis import strategies as st

from triggers.core.status import Status
from triggers.core.terms import AttemptReport, Finalizing, Policy
from triggers.testing.conformance import strategies
from triggers.testing.conformance.fixtures import batch, entry
from triggers.testing.conformance.steps import SECOND, Steps

#: Which log records keep the session from being finalized: none, or those of this level.
GATES = (None, None, Finalizing("d"), Finalizing("d", 30))

_WHICH = st.integers(0, 1_000)
_FIRINGS = strategies.firings(keys=("k1", "k2"))
_SECONDS = st.integers(1, 12)

#: What happens: (word, arguments).
_EVENTS = st.one_of(
    st.tuples(st.just("fire"), _FIRINGS),
    st.tuples(st.just("fire"), _FIRINGS),
    st.tuples(st.just("fire_later"), st.tuples(_FIRINGS, _SECONDS, st.sampled_from(["x", "y"]))),
    st.tuples(st.just("cancel"), st.sampled_from(["x", "y"])),
    st.tuples(st.just("run"), st.tuples(_WHICH, st.sampled_from(["finish", "fail", "skip", "warn"]))),
    st.tuples(st.just("configure"), strategies.configurations(times=True)),
    st.tuples(st.just("resolve"), st.none()),
)


def histories(*, configures=True):
    """Histories: the first rules, the gate, and events, each with the seconds that pass before it."""
    events = _EVENTS if configures else _EVENTS.filter(lambda event: event[0] != "configure")
    pauses = st.sampled_from([0, 0, 1, 1, 2, 3, 5, 8, 30])
    return st.tuples(
        strategies.configurations(times=True),
        st.sampled_from(GATES),
        st.lists(st.tuples(pauses, events), min_size=3, max_size=12),
    )


def never(place, steps, pause):
    """Let time pass, and do not sweep."""
    place.advance(timedelta(seconds=pause))


def each_second(place, steps, pause):
    """Let time pass, and sweep every second."""
    for _ in range(pause):
        place.advance(timedelta(seconds=1))
        steps.elapse()


def sometimes(seed):
    """Let time pass, and sweep at random moments, sometimes twice."""
    dice = random.Random(seed)

    def schedule(place, steps, pause):
        left = pause * SECOND
        while left:
            part = min(left, dice.choice([1, SECOND - 1, SECOND, 4 * SECOND]))
            place.advance(timedelta(microseconds=part))
            left -= part
            for _ in range(dice.choice([0, 1, 1, 2])):
                steps.elapse()

    return schedule


def played(place, history, schedule, look=lambda steps: None):
    """Play a history with a schedule of sweeps, and look at the session after each event."""
    configuration, finalizing, events = history
    steps = Steps(place.open(), "session", Policy(finalizing=finalizing))
    steps.configure(configuration)
    for pause, (word, given) in events:
        schedule(place, steps, pause)
        _DO[word](steps, given)
        look(steps)
    for _ in range(4):  # a timer can set another one
        schedule(place, steps, 30)
        place.advance(timedelta(days=3))
        while steps.elapse().timers:
            look(steps)
    return steps


def _run(steps, given):
    """Let an instance run that is scheduled. A sweep comes before, so that each schedule knows the same ones."""
    which, end = given
    steps.elapse()
    ready = [name for name, status in sorted(steps.statuses().items()) if status == "scheduled"]
    if not ready:
        return
    attempt = steps.start(ready[which % len(ready)])
    if end == "warn":
        logs = batch(entry(level=30))
        attempt = AttemptReport(attempt.task, attempt.number, attempt.fence, attempt.attempt, logs)
    ends = {"fail": lambda: steps.fail(attempt), "skip": lambda: steps.skip_running(attempt)}
    ends.get(end, lambda: steps.finish(attempt, {"r": 1}))()


def _fire(steps, firing):
    trigger, kwargs, key = firing
    steps.fire(trigger, kwargs if key is None else {}, key)


def _fire_later(steps, given):
    (trigger, kwargs, key), seconds, name = given
    steps.fire_later(trigger, timedelta(seconds=seconds), kwargs if key is None else {}, name, key)


def _resolve(steps, _):
    for instance in steps.instances():
        if instance.log_unresolved:
            steps.resolve_logs(instance.name, {"by": "test"})


_DO = {
    "fire": _fire,
    "fire_later": _fire_later,
    "cancel": Steps.cancel,
    "run": _run,
    "configure": Steps.configure,
    "resolve": _resolve,
}


def seen(steps):
    """Return everything about the session that must not depend on when somebody looked."""
    return (
        steps.firings(),
        [
            (
                *(each.name, each.status, each.created_at, each.taken, each.vetoes, each.kwargs),
                *(each.result, each.error, each.cascade_depth, each.attempt, each.log_unresolved),
            )
            for each in steps.instances()
        ],
        steps.timers(),
        (steps.head.finalized, steps.head.pending, steps.head.firings),
    )


def moves(steps):
    """Return each outcome → how often instances have made its move, by their histories."""
    words = {Status.FAILED: "failed", Status.SKIPPED: "skipped", Status.ABANDONED: "abandoned"}
    counted = {}
    for instance in steps.instances():
        made = [line.split(" ")[1] for line in instance.history.splitlines()]
        ended = any(word in {*words.values(), "finished"} for word in made)
        for word in (*made, *(["ended"] if ended else ())):
            name = f"{instance.task}:{word}"
            counted[name] = counted.get(name, 0) + 1
    return counted
