"""Pickles that ask for more than plain data, each in the kwargs of an instance of an otherwise ordinary session."""

from __future__ import annotations

import pickle
import struct
from collections import OrderedDict, deque
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from pathlib import Path

RULES = {"t": {"after": ["a"], "unless": [], "andEvery": None, "run": "r", "using": None, "withParams": {}}}

#: The path of the value in the session.
PLACE = "instances.t#0.kwargs.a.x"

HOLE = "<the value>"


def session(value, **metas):
    """A session with one unstarted instance that has the value in its kwargs."""
    instance = {
        "task": "t",
        "status": "unstarted",
        "kwargs": {"a": {"x": value}},
        "abandonState": [],
        "metadata": {},
    }
    return {"tasks": RULES, "instances": {"t#0": instance}, "metas": {"latest_kwargs": {}, **metas}}


def with_instructions(code, *, protocol=4):
    """A pickle of the session in which these instructions make the value."""
    hole = pickle.dumps(HOLE, protocol)
    hole = hole[
        hole.index(HOLE.encode()) - 2 : -1
    ]  # the opcode, its length, the text, and how it is memoized
    whole = pickle.dumps(session(HOLE), protocol)
    whole = (
        whole[11:] if whole[2:3] == b"\x95" else whole[2:]
    )  # without the frame, whose length would be wrong
    assert whole.count(hole) == 1
    # The replaced text is memoized, and later positions count on that.
    return b"\x80\x04" + whole.replace(hole, code + b"\x94")


def text(value):
    """The instructions for a text."""
    return b"\x8c" + bytes([len(value)]) + value.encode()


def call(module, name, argument=b""):
    """The instructions that call something with one text."""
    return text(module) + text(name) + b"\x93" + argument + b"\x85R"


class Reduced:
    """A pickle of it calls a function when it is loaded."""

    def __init__(self, function, *arguments):
        self.made = function, arguments

    def __reduce__(self):
        return self.made


class Stateful:
    """A pickle of it sets attributes when it is loaded."""

    def __init__(self):
        self.attribute = 1


def calls(path):
    """Name → instructions that would make the file, or find what could."""
    touch = f"touch {path}"
    return {
        "os.system": call("os", "system", text(touch)),
        "posix.system, by the older instruction": b"cposix\nsystem\n" + text(touch) + b"\x85R",
        "builtins.eval": call("builtins", "eval", text(f"open({str(path)!r}, 'w')")),
        "an attribute of datetime": call("datetime", "datetime.fromisoformat", text("2020-01-01")),
        "a module of datetime": call("datetime", "sys", text("x")),
        "a name with a space": b"cdatetime\ndatetime x\n" + text("x") + b"\x85R",
        "a text that only looks like the name": call("datetime ", "datetime", text("x")),
        "datetime with other arguments": text("datetime") + text("datetime") + b"\x93K\x01K\x01K\x01\x87R",
        "the class datetime itself": text("datetime") + text("datetime") + b"\x93",
        "a call of a text": text("x") + text("y") + b"\x85R",
        "a class by its instruction": b"(S'touch'\nios\nsystem\n",
        "an object by its instruction": b"(" + text("os") + text("system") + b"\x93" + text(touch) + b"o",
        "a new object": text("os") + text("system") + b"\x93" + text(touch) + b"\x85\x81",
        "a new object with names": text("os") + text("system") + b"\x93" + text(touch) + b"\x85}\x92",
        "a state": b"}}" + text("k") + b"K\x01sb",
        "a state of a class": text("datetime") + text("datetime") + b"\x93}b",
        "an extension of one byte": b"\x82\x01",
        "an extension of two bytes": b"\x83\x01\x01",
        "an extension of four bytes": b"\x84\x01\x01\x01\x01",
        "a persistent id": b"Pname\n",
        "a persistent id from the stack": text("name") + b"Q",
        "a value that is thrown away": text("os") + text("system") + b"\x93" + text(touch) + b"\x85R0K\x01",
    }


def objects():
    """Name → a value that a program may have put into its kwargs, and that is not read."""
    return {
        "a decimal": Decimal("1.5"),
        "a date": date(2020, 1, 1),
        "a duration": timedelta(1),
        "a time with a zone": datetime(2020, 1, 1, tzinfo=UTC),
        "an ordered mapping": OrderedDict(a=1),
        "a queue": deque([1]),
        "a set": {1},
        "an object": Stateful(),
        "a path": Path("x"),
        "a call": Reduced(print, "x"),
        "a complex number": 1j,
        "a bytearray": bytearray(b"x"),
        "an integer of more than 64 bits": 2**64,
        "an integer of more than 2,000 bits": 2**2048,
    }


def damaged():
    """Name → instructions that no pickle of a program has, or that ask for too much."""
    laughs = b"]\x94" + b"".join(
        b"](" + b"j" + struct.pack("<I", 100_000 + level) + b"j" + struct.pack("<I", 100_000 + level) + b"e"
        b"r" + struct.pack("<I", 100_001 + level)
        for level in range(60)
    )
    laughs = b"]r" + struct.pack("<I", 100_000) + laughs[2:]
    return {
        "a text of exabytes": b"\x8d" + struct.pack("<Q", 2**62) + b"x",
        "bytes of exabytes": b"\x8e" + struct.pack("<Q", 2**62) + b"x",
        "a bytearray of exabytes": b"\x96" + struct.pack("<Q", 2**62) + b"x",
        "a text of gigabytes": b"X" + struct.pack("<I", 2**31) + b"x",
        "bytes of gigabytes": b"B" + struct.pack("<I", 2**31) + b"x",
        "an integer of gigabytes": b"\x8b" + struct.pack("<i", 2**31 - 1) + b"x",
        "an integer of a negative length": b"\x8b" + struct.pack("<i", -1) + b"x",
        "an integer with many digits": b"I" + b"9" * 100_000 + b"\n",
        "a list that doubles sixty times": laughs,
        "a list in itself": b"]r\xff\xff\xff\x7fj\xff\xff\xff\x7fa",
        "a mapping in itself": b"}r\xff\xff\xff\x7f" + text("k") + b"j\xff\xff\xff\x7fs",
        "a list in 101 lists": b"]" * 101 + b"a" * 100,
        "a tuple in many tuples as a key": b"})" + b"\x85" * 100_000 + b"K\x01s",
        "a tuple as a key": b"})K\x01s",
        "a list as a key": b"}]K\x01s",
        "something that was never remembered": b"j\xff\xff\xff\x7f",
        "the top of an empty stack": b"((00",
        "an unknown instruction": b"\xff",
        "a text that is not UTF-8": b"\x8c\x01\xff",
        "a mark too few": b"e",
        "not a number": b"G" + struct.pack(">d", float("nan")),
        "a lone surrogate": b"\x8c\x03\xed\xa0\x80",
    }
