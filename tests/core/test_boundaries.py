"""Foreign types at the edges of the core: what they raise becomes an error with a path, or has no effect."""

from __future__ import annotations

from collections import UserDict
from datetime import datetime

import pytest

from triggers.core.records import LogBatch
from triggers.core.rules import NO_RULES
from triggers.core.values import Limits, decode, encode, encode_mapping, type_name
from triggers.exceptions import InvalidOptionError, InvalidValueError


class Hostile(type):
    """A metaclass whose attributes and subclass checks raise."""

    def __getattribute__(cls, name):
        message = f"no {name} here"
        raise RuntimeError(message)


class Strange(metaclass=Hostile):
    """A class of which nothing can be asked."""


class Unhashable(type):
    """A metaclass whose classes cannot be hashed."""

    def __hash__(cls):
        message = "no hash here"
        raise RuntimeError(message)


class Odd(metaclass=Unhashable):
    """A class that cannot be looked up."""


class Shifted(datetime):
    """A datetime that equals nothing, so it would not come back equal."""

    __hash__ = None

    def __eq__(self, other):
        return False


@pytest.mark.parametrize("value", [Strange(), Odd()], ids=["attributes", "hash"])
def test_a_type_that_cannot_be_asked_is_refused(value):
    """The error is InvalidValueError, alone and as the whole mapping."""
    with pytest.raises(InvalidValueError, match="kwargs"):
        encode({"v": value}, "kwargs")
    with pytest.raises(InvalidValueError, match="kwargs"):
        encode_mapping(value, "kwargs")


def test_a_value_that_would_come_back_unequal_is_refused():
    """A subclass is stored as its base only if nothing is lost."""
    with pytest.raises(InvalidValueError, match="come back as something else"):
        encode({"v": Shifted(2026, 1, 1)}, "kwargs")


def test_a_subclass_of_a_date_is_stored_as_its_base():
    """A subclass that adds nothing comes back equal, as the base."""

    class Day(datetime):
        pass

    back = decode(encode({"v": Day(2026, 1, 1)}, "kwargs"))["v"]
    assert (type(back), back) == (datetime, datetime(2026, 1, 1))  # noqa: DTZ001 - a naive time is a value, too


def test_a_value_whose_reading_never_ends_is_refused():
    """A mapping that makes a new mapping at every level is too deep."""

    class Deep(UserDict):
        def __getitem__(self, key):
            return self[key]

    with pytest.raises(InvalidValueError, match="kwargs"):
        encode({"v": Deep(a=1)}, "kwargs")


def test_a_container_without_a_list_cannot_be_decoded():
    """Text that no process of ours wrote is an error."""
    with pytest.raises(TypeError, match="a list is needed"):
        decode('{"$tuple": 1}')


def test_limits_are_whole_numbers():
    """A limit of another type is named."""
    with pytest.raises(InvalidOptionError, match="payload must be a whole number"):
        Limits(payload="5")


def test_a_property_instead_of_a_name_is_shown_as_unknown():
    """The name of a type is found without running its code, or is a question mark."""

    class Named(type):
        @property
        def __module__(cls):
            message = "no module here"
            raise RuntimeError(message)

    assert "?" in type_name(Named("X", (), {}))


def test_batches_are_joined_in_order():
    """Counts by level and what was dropped are added up."""
    joined = LogBatch([], {20: 1}, 1) + LogBatch([], {20: 2, 40: 1}, 2)
    assert (joined.counts, joined.dropped) == ({20: 3, 40: 1}, 3)


def test_without_rules_no_trigger_is_expected():
    """Triggers that a task fires are not external."""
    assert NO_RULES.external == ()
