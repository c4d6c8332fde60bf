"""A firing as it is made for a decision: its name and key are checked, its payload encoded, a repeat recognised."""

from __future__ import annotations

from collections import UserDict
from types import MappingProxyType

import pytest
from hypothesis import given

from triggers import Limits, Triggers
from triggers.core.state import Firing, new_firing
from triggers.core.values import decode
from triggers.exceptions import IdempotencyConflictError, InvalidNameError, InvalidValueError
from triggers.storages.memory import MemoryStorage
from triggers.testing.conformance import strategies
from triggers.testing.conformance.model import same
from triggers.testing.conformance.steps import Steps


def test_a_firing_has_no_number_and_no_time_yet():
    """Both are the storage's; without a key there is nothing that a repeat must agree in."""
    assert new_firing("a") == Firing(0, "a", "{}", 0)
    made = new_firing("a", {"n": 1}, depth=2, source="t#0")
    assert made == Firing(0, "a", '{"n":1}', 0, 2, "t#0")


@given(strategies.kwargs())
def test_the_order_of_the_keys_does_not_matter_for_a_repeat(payload):
    """The payload comes back in the order in which it was given; what a repeat must agree in is the same."""
    reordered = dict(reversed(payload.items()))
    first, second = new_firing("a", payload, "k"), new_firing("a", reordered, "k")
    assert same(decode(second.kwargs), reordered)
    assert list(decode(second.kwargs)) == list(reordered)
    assert first.fingerprint == second.fingerprint


def test_another_payload_is_another_occurrence():
    """A value, a key more or a type that differs makes a repeat a conflict."""
    payloads = [{}, {"n": 1}, {"n": 2}, {"n": 1.0}, {"n": "1"}, {"n": 1, "m": None}]
    assert len({new_firing("a", payload, "k").fingerprint for payload in payloads}) == len(payloads)


def test_any_mapping_is_a_payload():
    """None is an empty one."""
    assert new_firing("a", MappingProxyType({"n": 1})).kwargs == '{"n":1}'
    assert new_firing("a", None).kwargs == "{}"


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"trigger": ""}, InvalidNameError, "trigger"),
        ({"key": ""}, InvalidNameError, "key"),
        ({"kwargs": [1]}, InvalidValueError, "^kwargs: must be a mapping, not a list$"),
        ({"kwargs": {"n": {1j}}}, InvalidValueError, "kwargs.n"),
        ({"kwargs": {"n": 1}, "limits": Limits(payload=5)}, InvalidValueError, "7 bytes are more than"),
    ],
)
def test_what_cannot_be_fired_is_refused(given, error, message):
    """The message says which part of the firing it is about."""
    with pytest.raises(error, match=message):
        new_firing(**{"trigger": "a", **given})


def test_a_mapping_that_cannot_be_read_is_refused():
    """The message has what its own reading raised."""

    class Broken(UserDict):
        def __getitem__(self, key):
            message = "the database is closed"
            raise RuntimeError(message)

    message = r"^kwargs: this .*Broken cannot be read: RuntimeError\('the database is closed'\)$"
    with pytest.raises(InvalidValueError, match=message):
        new_firing("a", Broken(n=1))


def test_the_test_kit_fires_what_a_manager_fires():
    """Each recognises a repeat of the other's firing, and a conflict with it."""
    storage = MemoryStorage()
    with Triggers(storage, runner=None) as app:
        session, steps = app.session("s"), Steps(storage, "s")
        session.fire("a", {"n": 1, "m": 2}, key="k")
        assert steps.fire("a", {"m": 2, "n": 1}, key="k").duplicate_of.number == 1
        steps.fire("b", {"n": 1, "m": 2}, key="k")
        assert session.fire("b", {"m": 2, "n": 1}, key="k").duplicate
        with pytest.raises(IdempotencyConflictError):
            steps.fire("a", {"n": 1}, key="k")
