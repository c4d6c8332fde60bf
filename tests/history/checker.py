"""Whether what clients were told can be true: every answer together, in some order that agrees with real time.

Sessions are serialised, and every commit says when it was made, so the order is known and cheap to check:
the model, taken through the commits in that order, must give every answer, and end as what is stored. Two more checks
trust no clock of the storage: the numbers of firings against real time, and, for each instance alone, a search for
any order at all that explains what was said of it.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

from tests.history.clients import CONFIGURATION
from tests.invariants import differences, snapshot
from triggers.core.values import decode
from triggers.testing.conformance.model import FAILED, FINISHED, RUNNING, SCHEDULED, UNSTARTED, Model
from triggers.testing.conformance.steps import Steps

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tests.history.clients import Call
    from triggers.storages.base import Storage

#: Status and fence of an instance.
State = tuple[str, int]

ENDS = {"finish": FINISHED, "fail": FAILED, "release": SCHEDULED}


def check(calls: list[Call], storage: Storage, *, one_lock: bool = True) -> list[str]:
    """Every contradiction in what the clients were told and what is stored; none if all is well.

    Args:
        calls: what they were told.
        storage: where it is stored.
        one_lock: whether the time of a commit tells its place also where nothing was changed. A storage that locks
            instances may look at the time, wait for another commit, and then refuse.
    """
    problems = [f"{call} raised" for call in calls if call.error]
    done = [call for call in calls if not call.error]
    for uid in sorted({call.uid for call in calls}):
        own = [call for call in done if call.uid == uid]
        replayable = own if one_lock else [call for call in own if _changed_something(call)]
        problems += replayed(replayable, Steps(storage, uid))
        problems += out_of_order(own)
        problems += incomplete(own, Steps(storage, uid))
        problems += miscounted(own)
        for name, about in _by_instance(own).items():
            if not explained(name, about):
                problems.append(f"{uid}: nothing explains what was said of {name}: {about}")
    return problems


def _changed_something(call: Call) -> bool:
    return (
        call.op == "fire"
        or (call.op == "claim" and call.result is not None)
        or bool(call.op in ENDS and call.result["accepted"])
    )


# -- the model, in the order of the commits --------------------------------------------------------------------


def replayed(calls: Iterable[Call], steps: Steps) -> list[str]:
    """Answers, and stored data, that the model does not give when it does the same in the same order."""
    model, problems, last = Model(), [], 0
    model.configure(CONFIGURATION)
    for call in sorted((call for call in calls if call.at), key=lambda call: call.at):
        if not max(call.invoked, last) <= call.at <= call.returned:
            problems.append(f"{call} was committed out of its time")
        last, model.now = call.at, call.at
        expected = _answer(model, call)
        if expected != call.result:
            problems.append(f"{call} should have been answered {expected}")
    return problems + [
        f"{steps.uid}: {part} is {found}, should be {wanted}"
        for part, (found, wanted) in differences(snapshot(steps), snapshot(model)).items()
    ]


def _answer(model: Model, call: Call) -> Any:
    given = call.given
    if call.op == "fire":
        fired = model.fire(given["trigger"], given["kwargs"], given["key"])
        return {"number": fired.number, "duplicate": fired.duplicate, "scheduled": _scheduled(model)}
    if call.op == "claim":
        return model.claim(given["name"])
    name, fence = given["name"], given["fence"]
    if call.op == "finish":
        accepted = model.finish(name, fence, {})
        number = len(model.firings) if accepted else None
        return {"accepted": accepted, "number": number, "scheduled": _scheduled(model) if accepted else []}
    accepted = model.fail(name, fence, "failed") if call.op == "fail" else model.release(name, fence)
    again = [name] if accepted and call.op == "release" else []
    return {"accepted": accepted, "number": None, "scheduled": again}


def _scheduled(model: Model) -> list[str]:
    return sorted(name for step in model.last_step for name in step.scheduled)


# -- numbers and real time --------------------------------------------------------------------------------------


def _numbers(calls: Iterable[Call]) -> list[tuple[int, Call]]:
    """What made a firing, with its number, in the order of the numbers; repeats made none."""
    made = [call for call in calls if call.op in {"fire", "finish"} and call.result["number"] is not None]
    return sorted(
        ((call.result["number"], call) for call in made if not call.result.get("duplicate")),
        key=lambda numbered: numbered[0],
    )


def out_of_order(calls: Iterable[Call]) -> list[str]:
    """What was answered before something else was asked, and has a higher number all the same."""
    problems, latest = [], None
    for _, call in _numbers(calls):
        if latest is not None and call.returned < latest.invoked:
            problems.append(f"{call} had returned before {latest} was asked, which has a lower number")
        if latest is None or call.invoked > latest.invoked:
            latest = call
    return problems


def incomplete(calls: list[Call], steps: Steps) -> list[str]:
    """Acknowledged firings that are not stored, stored ones that nobody fired, and keys with two numbers."""
    stored = {firing.number: firing for firing in steps.firings()}
    problems = []
    for call in (call for call in calls if call.op == "fire"):
        firing = stored.get(call.result["number"])
        wanted = (call.given["trigger"], call.given["kwargs"], call.given["key"])
        if firing is None or (firing.trigger, decode(firing.kwargs), firing.key) != wanted:
            problems.append(f"{call} was acknowledged, and stored is {firing}")
    said = Counter(number for number, _ in _numbers(calls))
    if said != Counter(stored.keys()):
        problems.append(
            f"{steps.uid}: {sorted(stored)} are stored, {sorted(said.elements())} were acknowledged"
        )
    return problems


def miscounted(calls: list[Call]) -> list[str]:
    """Counts that leave out what had been acknowledged, or have what had not been asked for yet."""
    numbered = _numbers(calls)
    problems = []
    for call in (call for call in calls if call.op == "count"):
        least = max((number for number, made in numbered if made.returned < call.invoked), default=0)
        most = sum(made.invoked < call.returned for _, made in numbered)
        if not least <= call.result <= most:
            problems.append(
                f"{call} counted {call.result}, which cannot be: at least {least}, at most {most}"
            )
    return problems


# -- one instance, in any order that explains it ------------------------------------------------------------------


def _by_instance(calls: Iterable[Call]) -> dict[str, list[Call]]:
    about: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        if "name" in call.given:
            about[call.given["name"]].append(call)
        for name in call.result["scheduled"] if call.op in {"fire", "finish"} else ():
            about[name].append(call)
    return about


def explained(name: str, calls: list[Call]) -> bool:
    """Whether some order of the calls, which agrees with real time, gives all the answers about that instance.

    It is a search (Wing and Gong), made short by what was tried before: which calls are done, and the state.
    """
    tried: set[tuple[int, State]] = set()
    heads: list[tuple[int, State]] = [(0, (UNSTARTED, 0))]
    while heads:
        done, state = heads.pop()
        if done == (1 << len(calls)) - 1:
            return True
        if (done, state) in tried:
            continue
        tried.add((done, state))
        heads += _next(name, calls, done, state)
    return False


def _next(name: str, calls: list[Call], done: int, state: State) -> list[tuple[int, State]]:
    """What may come next. A call that changes nothing and may come now may come first of all, so nothing else is tried."""
    left = [place for place in range(len(calls)) if not done >> place & 1]
    first = min(calls[place].returned for place in left)
    heads = []
    for place in left:
        after = _after(calls[place], name, state) if calls[place].invoked <= first else None
        if after == state:
            return [(done | 1 << place, state)]
        if after is not None:
            heads.append((done | 1 << place, after))
    return heads


def _after(call: Call, name: str, state: State) -> State | None:
    """The state after a call, None if it could not have been answered so in this one."""
    status, fence = state
    if call.given.get("name") != name:
        return (SCHEDULED, fence) if status == UNSTARTED else None
    if call.op == "read":
        return state if call.result == [status, fence] else None
    if call.op == "claim":
        if call.result is None:
            return state if status != SCHEDULED else None
        return (RUNNING, fence + 1) if state == (SCHEDULED, call.result - 1) else None
    holds = state == (RUNNING, call.given["fence"])
    if call.result["accepted"] != holds:
        return None
    return (ENDS[call.op], fence + (call.op == "release")) if holds else state
