"""A pickle is read without trusting it: plain data comes back, everything else is refused, and nothing is run."""

from __future__ import annotations

import base64
import json
import pickle
import subprocess
import sys
import zlib
from datetime import datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.version2 import hostile
from tests.version2.played import lines
from triggers.version2 import pickles, stored
from triggers.version2.refused import RefusedError
from triggers.version2.stored import MAX_STORED, MAX_VALUE, read_session

PLAIN = [
    *("", "é", "x" * 300, "x" * 70_000, "\U0001f600"),
    *(0, 1, -1, 255, 256, 65_535, 65_536, -(2**31), 2**63, 2**64 - 1, 1.5, -0.0),
    *(None, True, False, (), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4), [], {}, {1: 2}),
]

#: Before protocol 3, these need classes that are not read.
BYTES = [
    b"x",
    b"x" * 300,
    datetime(2017, 5, 1, 12, 30, 15, 123_456),
    datetime(1, 1, 1),
    datetime(9999, 12, 31),
]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_plain_data_comes_back(protocol):
    """Whatever the protocol, what version 2 stores is read as Python reads it."""
    for value in [*PLAIN, *(BYTES if protocol > 2 else ())]:
        assert repr(read_session(pickle.dumps({"x": value}, protocol))) == repr({"x": value})


_KEYS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False)
    | st.text()
    | st.binary()
)
_VALUES = st.recursive(
    _KEYS | st.datetimes(),
    lambda inner: st.lists(inner) | st.dictionaries(_KEYS, inner) | st.lists(inner).map(tuple),
    max_leaves=20,
)


@settings(max_examples=settings().max_examples // 4)
@given(st.dictionaries(st.text(), _VALUES), st.sampled_from([3, 4, 5]), st.booleans())
def test_generated_data_comes_back(value, protocol, compressed):
    """It is equal, with the same types, also if it was compressed."""
    raw = pickle.dumps(value, protocol)
    found = read_session(zlib.compress(raw) if compressed else raw)
    assert repr(found) == repr(pickle.loads(raw))


def test_the_sessions_of_version_2_come_back():
    """The bytes of its cache are read as Python reads them, with values that are in several places."""
    for session in lines("version2_sessions.jsonl"):
        raw = base64.b64decode(session["dump"])
        assert read_session(raw) == pickle.loads(raw)


@pytest.fixture
def few(monkeypatch):
    """Limits that a test reaches soon."""
    for module in (pickles, stored):
        monkeypatch.setattr(module, "MAX_STEPS", 300_000)
    monkeypatch.setattr(stored, "MAX_VALUES", 300_000)


def refused(raw):
    with pytest.raises(RefusedError) as error:
        read_session(raw)
    ((path, message),) = error.value.problems
    return path, message


@pytest.mark.parametrize("name", hostile.calls(""))
def test_nothing_is_called(name, tmp_path):
    """What a pickle wants to call is refused, with the place where it is; nothing is run or imported."""
    made = tmp_path / "made"
    modules = set(sys.modules)
    path, message = refused(hostile.with_instructions(hostile.calls(made)[name]))
    assert not made.exists()
    assert set(sys.modules) <= modules | {"pickletools"}
    assert path in {hostile.PLACE, ""}, message
    assert path or "instruction" in message or "not read" in message or "damaged" in message


@pytest.mark.parametrize(
    "names",
    [
        ("datetime", "datetime.datetime"),
        ("datetime", "date"),
        ("datetime", "Datetime"),
        ("_datetime", "datetime"),
        ("datetime.datetime", "datetime"),
        ("datetime\0", "datetime"),
        ("datetime", ""),
        ("datetime", None),
        (["datetime"], "datetime"),
    ],
)
def test_only_one_class_is_found(names):
    """The module and the name are compared exactly, and nothing is looked up."""
    machine = pickles._Machine()
    assert machine.find_class("datetime", "datetime") is datetime
    assert machine.foreign is None
    assert machine.find_class(*names) is machine.foreign


@pytest.mark.parametrize("name", hostile.objects())
def test_objects_are_refused_where_they_are(name):
    """An object that is not read is named with its path, so that the application can store something else."""
    value = hostile.objects()[name]
    for protocol in (4, 5):
        path, message = refused(pickle.dumps(hostile.session(value), protocol))
        if path == "":
            assert "instruction" in message
        else:
            assert path.startswith(hostile.PLACE)
    if name == "a decimal":
        assert (path, message) == (
            hostile.PLACE,
            "'decimal.Decimal' is not read: only 'datetime.datetime' is",
        )


@pytest.mark.parametrize("name", sorted(hostile.damaged().keys() - {"not a number", "a lone surrogate"}))
def test_damaged_pickles_are_refused(name, few):
    """Lengths, positions and nestings that a pickle only claims are refused."""
    path, message = refused(hostile.with_instructions(hostile.damaged()[name]))
    assert path == "" or path.startswith(hostile.PLACE)
    assert message


def test_a_value_that_replaces_another_does_not_hide_it():
    """A key that is set twice has one value, and the other one was made, too."""
    text, system = hostile.text, hostile.call("os", "system", hostile.text("x"))
    assert (
        refused(hostile.with_instructions(b"}" + text("k") + system + b"s" + text("k") + b"K\x01s"))[0] == ""
    )


@pytest.mark.parametrize(
    ("raw", "message"),
    [
        (b"", "neither"),
        (b"\x80", "damaged"),
        (b"\x80\x04.", "damaged"),
        (b"\x80\x04}", "damaged"),
        (b"\x80\x04}.x", "followed"),
        (b"\x80\x04}}.", "damaged"),
        (b"\x80\x04].", "mapping"),
        (b"{", "JSON is damaged"),
        (b'{"x": NaN}', "NaN"),
        (b'{"x":' + b"[" * 100_000, "JSON is damaged"),
        (b'{"x":' + b"[" * 101 + b"]" * 101 + b"}", "nested deeper"),
        (b'{"x":[' + b"1," * 300_000 + b"1]}", "values"),
        (b"\x1f\x8b\x08", "neither"),
        (b"x\x9c\xff\xff\xff", "damaged"),
        (zlib.compress(b"\x80\x04}.")[:-1], "does not end"),
        (zlib.compress(b"\x80\x04}.") + b"x", "does not end"),
        (zlib.compress(zlib.compress(b"\x80\x04}.")), "neither"),
        (b"\x80" + b"x" * MAX_STORED, "bytes"),
        (zlib.compress(bytes(MAX_VALUE + 1)), "without its compression"),
        (b"\x80\x04" + b"}" * 300_001, "instructions"),
        (
            b"\x80\x04}\x8c\x01k](" + b"X\x00\x00\x10\x00" + b"x" * 2**20 + b"\x94" + b"h\x00" * 64 + b"es.",
            "text",
        ),
    ],
)
def test_other_values_are_refused(raw, message, few):
    """What is no session, or is too large, is refused with the reason."""
    path, found = refused(raw)
    assert message in found
    assert path == "" or path.startswith(("x[0][0]", "k["))


LIMITED = """
import base64, json, resource, sys, zlib
from tests.version2 import hostile
from triggers.version2.refused import RefusedError
from triggers.version2.shape import check_shape
from triggers.version2.stored import MAX_VALUE, read_session
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
bombs = [hostile.with_instructions(code) for code in hostile.damaged().values()]
bombs += [zlib.compress(b"\\x80\\x04" + one * (MAX_VALUE // len(one) - 2)) for one in (b"}", b"]\\x94", b"(", b"}K\\x01K\\x02s")]
bombs += [b"{" + b'"x":[' + b"{}," * 5_000_000]
for bomb in bombs:
    try:
        read_session(bomb)
    except RefusedError:
        pass
for wrong in (
    {"tasks": {}, "instances": {str(number): 1 for number in range(1_000_000)}},
    {"tasks": {}, "instances": {"t#0": {"status": "failed", "abandonState": [1] * 3_000_000}}},
    {"tasks": {"t": {str(number): 1 for number in range(1_000_000)}}},
    {str(number): 1 for number in range(1_000_000)},
):
    try:
        check_shape(wrong)
    except RefusedError:
        pass
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""


@pytest.mark.slow
def test_memory_is_limited():
    """The memory of a process stays below 600 MiB, whatever a few kilobytes ask for."""
    done = subprocess.run([sys.executable, "-c", LIMITED], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 600


def test_json_comes_back():
    """A cache with JSON is read, too; its times are text."""
    value = {"tasks": {}, "x": [1, 1.5, None, True, "é", {"2020-01-01T00:00:00Z": []}]}
    assert read_session(json.dumps(value).encode()) == value
    assert read_session(zlib.compress(json.dumps(value).encode())) == value
