"""What a decision asks for: the arguments of the script that finds it, and the slice from its answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from pydantic_core import from_json

from triggers.core.exchange import Slice
from triggers.core.state import Session
from triggers.storages.redis import rows
from triggers.storages.redis.keys import instance_of_place, instance_place, keyed_field

if TYPE_CHECKING:
    from collections.abc import Iterable

    from triggers.core.exchange import Need
    from triggers.core.rules import RuleSet
    from triggers.storages.redis.nodes import Part
    from triggers.storages.redis.rows import SeenState


class Head(NamedTuple):
    """The head of a session, and what only this storage knows about it.

    Attributes:
        session: the head.
        version: is increased by every exclusive commit; None if the session is not stored.
        made: how many instances the session has created.
        token: the token of a commit that asks the others to wait, None if there is none.
        manager: the stored manager, whatever a decision has changed since.
        metadata: the stored metadata.
        next_timer_at: the stored time of the first timer.
    """

    session: Session
    version: int | None
    made: int
    token: bytes | None
    manager: str = ""
    metadata: str = ""
    next_timer_at: int | None = None


def head_from(uid: str, answer: list[Any], rules: RuleSet) -> Head:
    """Create a head from the answer of head.lua."""
    version, _, manager, numbers, metadata, now, token = answer
    if version is None:
        return Head(Session(uid, int(now)), None, 0, token)
    firings, pending, finalized, created_at, modified_at, made, *timers = from_json(numbers)
    name, text = manager.decode(), metadata.decode()
    place = (uid, int(now), 1, rules, name)
    session = Session(*place, firings, pending, finalized, text, created_at, modified_at, *timers)
    return Head(session, int(version), made, token, name, text, session.next_timer_at)


def parts_of(need: Need) -> list[Part]:
    """The arguments of slice.lua after the version; the script describes them."""
    parts: list[Part] = [keyed_field(*need.key) if need.key else b""]
    if need.tasks is None:
        parts.append(-1)
    else:
        parts.append(len(need.tasks))
        parts += need.tasks
    parts.append(len(need.latest))
    parts += ["t" + trigger for trigger in need.latest]
    parts.append(len(need.waiting))
    parts += need.waiting
    parts.append(len(need.instances))
    parts += [instance_place(*where) for where in need.instances]
    parts.append(len(need.unstarted))
    parts += need.unstarted
    parts.append(int(need.payloads))
    parts += ("" if need.flagged is None else need.flagged, need.flagged_limit)
    if need.levels is None:
        parts.append(0)
    else:
        beyond, threshold, chosen = need.levels
        parts += (1, beyond, threshold, f",{','.join(map(str, chosen))},")
    if need.timers or need.timer_names:
        parts += timer_parts(need.timers, need.timer_names)
    return parts


#: Where the answer of slice.lua has the version of the session.
VERSION: Final = 7


def timer_parts(limit: int, names: Iterable[str] = (), begin: bytes = rows.FIRST_TIMER) -> list[Part]:
    """The last arguments of slice.lua: up to `limit` timers from `begin` on, and those with names."""
    return [limit, begin, *names]


def slice_from(need: Need, answer: list[Any], seen: dict[tuple[str, int], SeenState], key: bytes) -> Slice:
    """Create a slice, without history, from the answer of slice.lua, and add the loaded states to `seen`.

    Raises:
        StorageCorruptError: a timer in the hash with this key cannot be read.
    """
    keyed, counters, latest, instances, payloads, flagged, level, _, *timers = answer
    found = Slice(level=level)
    if keyed:
        found.keyed = rows.firing_from(int(keyed[0]), keyed[1], keyed[2])
    if counters:
        found.counters = rows.counters_from(counters)
    for trigger, text in zip(need.latest, latest, strict=True):
        if text is not None:
            found.latest[trigger] = rows.latest_from(text)
    for n in range(0, len(instances), 3):
        place, state, rest = instances[n : n + 3]
        instance = rows.instance_from(place, state, rest)
        seen[instance.task, instance.number] = rows.seen_from(state)
        found.instances.append(instance)
    if len(found.instances) > 1:
        found.instances.sort(key=lambda instance: instance.ref or 0)
    found.payloads = {int(n): text.decode() for n, text in zip(payloads[::2], payloads[1::2], strict=True)}
    found.flagged = [instance_of_place(place) for place in flagged]
    if timers:
        found.timers = rows.timers_from(timers[0], key)
        found.named_timers = {timer.name: timer for timer in rows.timers_from(timers[1], key)}
    return found
