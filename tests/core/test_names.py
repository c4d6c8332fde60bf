"""Names: what is one, what is not, and the names of instances."""

from __future__ import annotations

from enum import StrEnum

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggers.core.names import (
    MAX_NAME,
    check_name,
    instance_name,
    is_name,
    split_instance_name,
    visible,
)
from triggers.exceptions import InvalidNameError, UnknownInstanceError
from triggers.testing.conformance.fixtures import NAMES


@pytest.mark.parametrize("name", NAMES)
def test_whatever_a_person_can_see_is_a_name(name):
    """Any printable string up to the limit is data, also where it looks like code."""
    assert check_name(name, "UID") is name


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (None, "a UID must be a string, not NoneType"),
        (7, "a UID must be a string, not int"),
        (b"a", "a UID must be a string, not bytes"),
        ("", "a UID must have 1 to 255 characters; this one has 0"),
        ("x" * 256, "a UID must have 1 to 255 characters; this one has 256"),
        ("a\x00b", r"a UID must be printable; 'a\x00b' has '\x00' at position 1"),
        ("a\n", r"a UID must be printable; 'a\n' has '\n' at position 1"),
        ("\x7f", r"at position 0"),
        ("a\x85", r"at position 1"),
        ("\ud800", r"has '\ud800' at position 0"),
        ("a\u2028b", r"'\u2028' at position 1"),
        ("a\u2029b", r"'\u2029' at position 1"),
        ("user\u202etxt.exe", r"'\u202e' at position 4"),
        ("a\u2066b", r"'\u2066' at position 1"),
    ],
)
def test_what_nobody_can_see_is_no_name(name, message):
    """Wrong types, lengths, control characters, surrogates and direction marks are refused with their place."""
    with pytest.raises(InvalidNameError) as error:
        check_name(name, "UID")
    assert message in str(error.value)


@pytest.mark.parametrize("name", [None, 7, b"a", "", "x" * 256, "a\n", "\ud800", "a\u202e"])
def test_what_nothing_can_be_called_can_be_told_without_an_error(name):
    """The same names that are refused elsewhere; whoever only looks for something need not catch anything."""
    assert not is_name(name)
    assert all(map(is_name, NAMES))


class Page(StrEnum):
    FIRST = "firstPageReceived"


def test_a_name_is_kept_as_a_plain_string():
    """A member of an enumeration is as good as its value, and its class is not kept with it."""
    name = check_name(Page.FIRST, "trigger")
    assert type(name) is str
    assert name == "firstPageReceived"


@given(st.text(st.characters(codec="utf-8"), min_size=1, max_size=MAX_NAME), st.integers(0, 10**18 - 1))
def test_an_instances_name_can_be_taken_apart(task, number):
    """Whatever the task is called, marks and numbers in it, too."""
    assert split_instance_name(instance_name(task, number)) == (task, number)


@pytest.mark.parametrize(
    "name",
    [
        "",
        "#",
        "#0",
        "t",
        "t#",
        "t#x",
        "t#-1",
        "t#01",
        "t#00",
        "t# 1",
        "t#1 ",
        "t#1.0",
        "t#+1",
        "t#1_0",
        "t#\u0661",
        "t#\u00b2",
    ]
    + ["t#" + "9" * digits for digits in (19, 5_000)],
)
def test_what_is_no_instances_name_is_refused(name):
    """The message shows what the names of instances look like; no number is too long to be told so."""
    with pytest.raises(UnknownInstanceError, match="for example, 't_importSubject#0'"):
        split_instance_name(name)


class Lying:
    """Says that it is a string."""

    @property
    def __class__(self):
        return str

    def __repr__(self):
        message = "no words"
        raise RuntimeError(message)


@pytest.mark.parametrize(
    ("name", "shown"), [(None, "None"), (0, "0"), (b"t#0", "b't#0'"), (("t", 0), "('t', 0)")]
)
def test_what_is_no_string_is_no_instances_name(name, shown):
    """It is refused in the words of every other one, not with an error of Python's."""
    with pytest.raises(UnknownInstanceError) as error:
        split_instance_name(name)
    assert str(error.value).startswith(f"{shown} is not the name of an instance")


def test_what_only_says_that_it_is_a_string_is_refused():
    """As a name and as an instance's name; nothing of its own is asked, so nothing of its own is raised."""
    with pytest.raises(InvalidNameError, match=r"must be a string, not tests\.core\.test_names\.Lying"):
        check_name(Lying(), "UID")
    with pytest.raises(UnknownInstanceError, match=r"^<value without a repr> is not the name of an instance"):
        split_instance_name(Lying())


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("日本 🎉 👩‍🔬 é", "日本 🎉 👩‍🔬 é"),
        ("a\nb\tc\r", "a\\nb\\tc\\r"),
        ("\x1b[2J\x9b\x7f\x00", "\\x1b[2J\\x9b\\x7f\\x00"),
        ("\u202eabc\u2066", "\\u202eabc\\u2066"),
        ("\u2028\ud800", "\\u2028\\ud800"),
    ],
)
def test_what_a_terminal_would_obey_is_escaped(text, shown):
    """Controls, reversing marks, line separators and surrogates become escapes; letters and emoji stay."""
    assert visible(text) == shown
