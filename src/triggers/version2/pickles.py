"""Read a pickle without trusting it.

A pickle is a program. This module runs it on a machine of its own, which knows only the instructions for
plain data and can make only one other thing: a :class:`~datetime.datetime`. No class is looked up, nothing is
imported, and nothing that the pickle names is called. What else it asks for becomes a :class:`Foreign` value,
which does nothing, so that the caller can say where in the session it is.

The machine runs a limited number of instructions, and each makes at most one small value, besides text that
is in the pickle itself. So its memory is limited, whatever lengths and positions the pickle claims.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, NamedTuple

from triggers.core.values import INTEGER_RANGE, shown, type_name
from triggers.version2.refused import RefusedError

#: How many instructions a pickle may have. A session of version 2 has one for about three bytes.
MAX_STEPS: Final = 4_000_000

#: What may be the key of a mapping. Only these can be hashed in a time that the pickle cannot choose.
_KEYS: Final = frozenset({str, int, float, bool, bytes, datetime, type(None)})

#: The length of the one argument from which a pickle makes a naive datetime.
_DATETIME_BYTES: Final = 10


class Foreign(NamedTuple):
    """Stands for something that is not read.

    Attributes:
        what: what it is, for a message.
    """

    what: str


def read_pickle(raw: bytes) -> tuple[Any, Foreign | None]:
    """Return the plain data in a pickle of any protocol from 2 on, and something that was not read, if any.

    Raises:
        RefusedError: it is damaged, too large, or has an instruction that is not allowed.
    """
    import pickletools  # noqa: PLC0415 - only an import needs it

    machine = _Machine()
    end = 0
    try:
        for opcode, argument, place in pickletools.genops(raw):
            machine.step(opcode.name, argument)
            end = (place or 0) + 1
        (value,) = machine.stack
    except RefusedError:
        raise
    except Exception as error:  # noqa: BLE001 - a damaged program can fail in any way
        raise RefusedError(("", f"the pickle is damaged: {shown(error)}")) from None
    if end != len(raw):
        raise RefusedError(("", "the pickle is followed by other data"))
    return value, machine.foreign


class _Machine:
    """The stack and the memo of a pickle."""

    def __init__(self) -> None:
        self.stack: list[Any] = []
        self.marked: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.foreign: Foreign | None = None
        self.steps = 0

    def step(self, name: str, argument: Any) -> None:
        """Run one instruction.

        Raises:
            RefusedError: it is not one of those for plain data, or there are too many.
        """
        self.steps += 1
        if self.steps > MAX_STEPS:
            raise RefusedError(("", f"the pickle has more than {MAX_STEPS:,} instructions"))
        if name in _IGNORED:
            return
        if name in _PUSHES:
            self.stack.append(_PUSHES[name](argument))
        elif name in _STEPS:
            _STEPS[name](self, argument)
        else:
            raise RefusedError(("", f"the pickle has the instruction {name}, which is not allowed"))

    def find_class(self, module: Any, name: Any) -> Any:
        """Return the only class that may be used; anything else is foreign."""
        if not (type(module) is str and type(name) is str):
            return self.unread("a class whose name is not text is not read")
        if (module, name) == ("datetime", "datetime"):
            return datetime
        return self.unread(f"{shown(f'{module}.{name}')} is not read: only 'datetime.datetime' is")

    def unread(self, what: str) -> Foreign:
        """Return a value that stands for something that is not read."""
        self.foreign = Foreign(what)
        return self.foreign

    def since_mark(self) -> list[Any]:
        """Return what was pushed after the last mark, and remove it and the mark."""
        found, self.stack = self.stack, self.marked.pop()
        return found

    def call(self, made: Any, arguments: Any) -> Any:
        """Return the datetime with these arguments; anything else that is called is foreign."""
        if isinstance(made, Foreign):
            return made
        if made is datetime and type(arguments) is tuple and len(arguments) == 1:
            (state,) = arguments
            if type(state) is bytes and len(state) == _DATETIME_BYTES:
                return datetime(state)  # type: ignore[arg-type, call-arg]  # noqa: DTZ001 - as a pickle makes it
        return self.unread("only a datetime without a time zone is made from its bytes")

    def put(self, target: Any, key: Any, value: Any) -> None:
        """Store an item of a mapping."""
        if type(key) not in _KEYS:
            raise RefusedError(("", f"a mapping has a key of the type {type_name(type(key))}"))
        if not isinstance(target, Foreign):
            target[key] = value


def _mark(machine: _Machine, _: Any) -> None:
    machine.marked.append(machine.stack)
    machine.stack = []


def _tuple_of(count: int) -> _Step:
    def make(machine: _Machine, _: Any) -> None:
        machine.stack[-count:] = [tuple(machine.stack[-count:])]

    return make


def _marked_tuple(machine: _Machine, _: Any) -> None:
    found = machine.since_mark()
    machine.stack.append(tuple(found))


def _append(machine: _Machine, _: Any) -> None:
    value = machine.stack.pop()
    _extend(machine.stack[-1], [value])


def _appends(machine: _Machine, _: Any) -> None:
    found = machine.since_mark()
    _extend(machine.stack[-1], found)


def _extend(target: Any, values: list[Any]) -> None:
    if not isinstance(target, Foreign):
        target.extend(values)


def _set_item(machine: _Machine, _: Any) -> None:
    value, key = machine.stack.pop(), machine.stack.pop()
    machine.put(machine.stack[-1], key, value)


def _set_items(machine: _Machine, _: Any) -> None:
    found = machine.since_mark()
    for key, value in zip(found[::2], found[1::2], strict=True):
        machine.put(machine.stack[-1], key, value)


def _memoize(machine: _Machine, _: Any) -> None:
    machine.memo[len(machine.memo)] = machine.stack[-1]


def _memoize_at(machine: _Machine, place: int) -> None:
    machine.memo[place] = machine.stack[-1]


def _recall(machine: _Machine, place: int) -> None:
    machine.stack.append(machine.memo[place])


def _class_on_stack(machine: _Machine, _: Any) -> None:
    name, module = machine.stack.pop(), machine.stack.pop()
    machine.stack.append(machine.find_class(module, name))


def _class_named(machine: _Machine, names: str) -> None:
    module, _, name = names.partition(" ")
    machine.stack.append(machine.find_class(module, name))


def _call(machine: _Machine, _: Any) -> None:
    arguments, made = machine.stack.pop(), machine.stack.pop()
    machine.stack.append(machine.call(made, arguments))


def _call_with_names(machine: _Machine, _: Any) -> None:
    del machine.stack[-3:-1]
    machine.stack[-1] = machine.unread("an object is not read")


def _set_state(machine: _Machine, _: Any) -> None:
    machine.stack.pop()
    machine.stack[-1] = machine.unread("an object with a state of its own is not read")


def _extension(machine: _Machine, number: Any) -> None:
    machine.stack.append(machine.unread(f"the registered extension {number} is not read"))


def _persistent(machine: _Machine, _: Any) -> None:
    machine.stack.append(machine.unread("a persistent id is not read"))


def _persistent_on_stack(machine: _Machine, _: Any) -> None:
    machine.stack[-1] = machine.unread("a persistent id is not read")


def _whole(number: int) -> Any:
    in_range = INTEGER_RANGE[0] <= number <= INTEGER_RANGE[1]
    return number if in_range else Foreign("an integer of more than 64 bits cannot be stored")


_Step = Callable[[_Machine, Any], None]

#: Instructions about the pickle itself.
_IGNORED: Final = frozenset({"PROTO", "FRAME", "STOP"})

#: Instruction → makes the value that it pushes from its argument.
_PUSHES: Final[dict[str, Callable[[Any], Any]]] = {
    "NONE": lambda _: None,
    "NEWTRUE": lambda _: True,
    "NEWFALSE": lambda _: False,
    "EMPTY_DICT": lambda _: {},
    "EMPTY_LIST": lambda _: [],
    "EMPTY_TUPLE": lambda _: (),
    **dict.fromkeys(("BININT", "BININT1", "BININT2", "LONG1"), _whole),
    **dict.fromkeys(("BINFLOAT", "SHORT_BINBYTES", "BINBYTES"), lambda argument: argument),
    **dict.fromkeys(("SHORT_BINUNICODE", "BINUNICODE", "BINUNICODE8"), lambda argument: argument),
}

#: Instruction → what it does.
_STEPS: Final[dict[str, _Step]] = {
    "MARK": _mark,
    "TUPLE": _marked_tuple,
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "APPEND": _append,
    "APPENDS": _appends,
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "MEMOIZE": _memoize,
    "BINPUT": _memoize_at,
    "LONG_BINPUT": _memoize_at,
    "BINGET": _recall,
    "LONG_BINGET": _recall,
    "STACK_GLOBAL": _class_on_stack,
    "GLOBAL": _class_named,
    "REDUCE": _call,
    "NEWOBJ": _call,
    "NEWOBJ_EX": _call_with_names,
    "BUILD": _set_state,
    "EXT1": _extension,
    "EXT2": _extension,
    "EXT4": _extension,
    "PERSID": _persistent,
    "BINPERSID": _persistent_on_stack,
}
