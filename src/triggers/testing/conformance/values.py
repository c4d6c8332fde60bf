# ruff: noqa: E501, S101, PLR2004 - as in tests: docstrings have one line, assert is used, numbers are expected values
"""Values and names: everything that the core accepts is read as it was stored, and no name has a special meaning."""

from __future__ import annotations

import uuid
from datetime import UTC, date, datetime, time, timedelta, timezone
from decimal import Decimal
from itertools import count
from typing import TYPE_CHECKING, Any, Final

import pytest
from hypothesis import given
from hypothesis.stateful import run_state_machine_as_test

from triggers.core.values import DEFAULT_LIMITS, decode
from triggers.exceptions import InvalidValueError
from triggers.testing.conformance import strategies
from triggers.testing.conformance.fixtures import NAMES, StorageFixtures
from triggers.testing.conformance.machine import SessionMachine, shown
from triggers.testing.conformance.model import same
from triggers.testing.conformance.steps import Steps

if TYPE_CHECKING:
    from collections.abc import Callable

    from triggers.storages.base import Storage
    from triggers.testing.conformance.sandbox import StorageSandbox

#: Values of every type, with the largest and smallest that can be stored.
VALUES: Final[dict[str, Any]] = {
    "none": None,
    "booleans": [True, False],
    "integers": [0, -1, 2**31, 2**53 + 1, 2**63 - 1, -(2**63), 2**64 - 1],
    "floats": [0.0, -0.0, 1.0, 0.1, 1e300, 5e-324, -1.7976931348623157e308],
    "texts": [
        "",
        " ",
        "\x00",
        "\x1f\x7f",
        "\\",
        '"',
        "'",
        "\N{PILE OF POO}",
        "\u2028",
        "\uffff",
        "$date",
        "a" * 5_000,
    ],
    "datetimes": [
        datetime(2026, 1, 2, 3, 4, 5, 678901),  # noqa: DTZ001 - naive datetimes must stay naive
        datetime(2026, 1, 2, tzinfo=UTC),
        datetime(1, 1, 1, tzinfo=timezone(timedelta(hours=-12, minutes=30))),
        datetime.max,  # noqa: DTZ901 - the largest value
    ],
    "dates": [date(2026, 1, 2), date.min, date.max],
    "times": [time(), time(23, 59, 59, 999999), time(1, tzinfo=timezone(timedelta(hours=14)))],
    "timedeltas": [timedelta(), timedelta.min, timedelta.max, timedelta(microseconds=-1)],
    "decimals": [Decimal("1.10"), Decimal("-0"), Decimal("1E+400"), Decimal("0.1"), Decimal(10) ** -400],
    "uuids": [uuid.UUID(int=0), uuid.UUID("12345678-1234-5678-1234-567812345678")],
    "bytes": [b"", b"\x00\xff", bytes(range(256))],
    "empty": [[], {}, [[]], {"": {}}, [{}, [None]]],
    "$date": {"$date": "2026-01-02"},
    "tuples": [(), (1, "a"), ((), [(None,)]), {"a": (b"",)}],
    "sets": [set(), {1, "a", None, (1, 2.5)}, frozenset(), frozenset({date(2026, 1, 2), frozenset({True})})],
    "keys": [
        {1: "a", "1": "b", None: "c", 2.5: "d", b"": "e", (1, "$"): "f", date(2026, 1, 2): {2: 3}},
        {True: 1, frozenset({"a"}): 2, Decimal("1.10"): 3, uuid.UUID(int=0): 4, timedelta(1): 5},
    ],
    "$tuple": [
        {"$tuple": [1]},
        {"$set": [1]},
        {"$dict": [1, 2]},
        {"$dict": 1, "$": 2},
        {1: {"$dict": ["a"]}},
    ],
    "$$": {"$": 1, "$$bytes": "AA==", "$uuid": None},
}


class Values(StorageFixtures):
    """Tests of promises 5 and 6 for values and names, and the comparison with the reference model."""

    def test_values_are_read_as_they_were_stored(self, storage: Storage, place: StorageSandbox) -> None:
        """Promise 6: kwargs, results, errors, replacement kwargs and metadata of every type are read as they were stored, with any handle."""
        steps = Steps(storage)
        steps.configure({"t": {"after": ["a"], "run": "r"}})
        steps.fire("a", VALUES)
        steps.fail(steps.start("t#0"), VALUES)
        steps.replay("t#0", {"a": VALUES})
        steps.run("t#1", VALUES)
        steps.add_metadata("t#1", VALUES)
        steps.describe(VALUES)
        other = Steps(place.open())
        fired, cascade = other.firings()
        read = [
            decode(fired.kwargs),
            decode(cascade.kwargs),
            decode(other["t#0"].error or ""),
            decode(other["t#1"].metadata),
            decode(other.head.metadata),
            other.kwargs("t#0")["a"],
            other.kwargs("t#1")["a"],
        ]
        for value in read:
            assert same(value, VALUES)

    def test_any_value_is_read_as_it_was_stored(self, storage: Storage) -> None:
        """Promise 6: that is so for every value that Hypothesis draws from the accepted types."""
        uids = count()

        @given(kwargs=strategies.kwargs())
        def check(kwargs: dict[str, Any]) -> None:
            steps = Steps(storage, f"session {next(uids)}")
            steps.fire("a", kwargs)
            assert same(decode(steps.firings()[0].kwargs), kwargs)

        check()

    @pytest.mark.parametrize("character", ["x", "\N{PILE OF POO}"])
    def test_a_payload_of_the_largest_size_is_stored(self, steps: Steps, character: str) -> None:
        """Promise 6: exactly 1 MiB is stored and read. One byte more is an error before anything is written."""
        size = DEFAULT_LIMITS.payload - len('{"v":""}')
        text = character * (size // len(character.encode()))
        text += "x" * (size - len(text.encode()))
        steps.fire("a", {"v": text})
        assert decode(steps.firings()[0].kwargs) == {"v": text}
        with pytest.raises(InvalidValueError, match="kwargs: 1,048,577 bytes"):
            steps.fire("a", {"v": text + "x"})
        assert steps.head.firings == 1

    def test_names_that_look_like_code_are_uids(self, storage: Storage) -> None:
        """Promise 6: every name is a session of its own, and no two names are confused."""
        for uid in NAMES:
            Steps(storage, uid).fire("a", {"uid": uid}, key="k")
        for uid in NAMES:
            steps = Steps(storage, uid)
            assert [decode(firing.kwargs) for firing in steps.firings()] == [{"uid": uid}]
            assert steps.head.uid == uid
        assert len(storage.reader.sessions(limit=1_000)) == len(NAMES)

    def test_names_that_look_like_code_are_triggers_tasks_and_keys(self, storage: Storage) -> None:
        """Promise 6: in one session, each name is a trigger, a task, an owner and a key of its own."""
        steps = Steps(storage)
        steps.configure({name: {"after": [f"{name[:254]}!"], "run": name} for name in _short()})
        for name in _short():
            fired = steps.fire(f"{name[:254]}!", {"n": name}, key=name)
            assert [made.task for made in fired.created] == [name]
            assert steps.fire(f"{name[:254]}!", {"n": name}, key=name).duplicate_of == fired.fired[0]
            for other in ("b", "c"):
                assert steps.fire(other, {"n": name}, key=name).duplicate_of is None
        assert steps.head.firings == 3 * len(_short())
        assert {each.task: each.status.value for each in steps.instances()} == dict.fromkeys(
            _short(), "scheduled"
        )
        for name in _short():
            instance = steps.storage.reader.instance(steps.uid, name, 0)
            assert instance is not None
            assert list(steps.kwargs_of([instance])) == [{f"{name[:254]}!": {"n": name}}]
            assert steps.start(f"{name}#0", owner=name).fence == 1
            assert steps[f"{name}#0"].owner == name
            assert [each.task for each in storage.reader.instances(steps.uid, task=name)] == [name]
        latest = storage.reader.latest(steps.uid, [f"{name[:254]}!" for name in _short()])
        assert len(latest) == len(_short())
        assert {each.task for each in storage.due(1_000, grace=1, include_recent=True)} == set()
        assert storage.reader.counters(steps.uid).keys() == set(_short())

    def test_names_that_look_like_code_are_found_in_the_index(self, storage: Storage) -> None:
        """Promise 6: an instance that waits for such a name is changed by this trigger, and by no other."""
        steps = Steps(storage)
        names = _short()
        steps.configure({f"t_{n}": {"after": ["a", name], "run": "r"} for n, name in enumerate(names)})
        steps.fire("a")
        for n, name in enumerate(names):
            assert steps.waiting(name) == {f"t_{n}#0"}
        for n, name in enumerate(names):
            assert [each.name for each in steps.fire(name).triggered] == [f"t_{n}#0"]
            assert steps.waiting(name) == set()

    def test_a_firing_loads_only_the_instances_that_lack_its_trigger(self, steps: Steps) -> None:
        """Promise 5: a firing loads only the instances that lack its trigger, even if there are hundreds of others."""
        steps.configure(
            {
                "t_page": {"andEvery": "page", "run": "page"},
                "t_pair": {"after": ["odd"], "andEvery": "page", "run": "pair"},
                "t_last": {"after": ["page", "end"], "run": "last"},
            }
        )
        for n in range(60):
            steps.fire("page", {"n": n})
        assert steps.waiting("page") == set()
        assert steps.waiting("end") == {"t_last#0"}
        assert [each.name for each in steps.fire("end").triggered] == ["t_last#0"]
        assert len(steps.waiting("odd")) == 60
        assert len(steps.fire("odd").triggered) == 60
        assert steps.waiting("odd") == set()

    def test_it_agrees_with_the_reference_model(self, make_place: Callable[[], StorageSandbox]) -> None:
        """All promises: after each step of any sequence, the storage shows the same session as the reference model."""

        class Machine(SessionMachine):
            def make_place(self) -> StorageSandbox:
                return make_place()

        run_state_machine_as_test(Machine)

    def test_firing_numbers_continue_with_a_new_handle(self, place: StorageSandbox) -> None:
        """Promise 3: a new handle continues the numbers of the firings."""
        for n in range(1, 6):
            steps = Steps(place.open())
            assert steps.fire("a", {"n": n}).fired[0].number == n
            before = shown(steps)
            steps.storage.close()
            assert shown(Steps(place.open())) == before


def _short() -> list[str]:
    """The names that are still different when a mark is added after their first 254 characters."""
    return [name for name in NAMES if len(name) < 255]
