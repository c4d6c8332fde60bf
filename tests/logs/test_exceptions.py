from __future__ import annotations

import asyncio
import copy
import logging
import pickle  # noqa: TID251 - what applications may do with an exception that we have touched
import sys
import threading
from dataclasses import dataclass
from inspect import currentframe
from types import ModuleType

import pytest

from triggers.core.values import encode
from triggers.exceptions import Skip, context_of, with_context
from triggers.logs import LogSettings, exception_record


class Jsonschema(Exception):  # noqa: N818 - named after the library that does so
    """Has a context of its own, as jsonschema's ValidationError has."""

    def __init__(self, message, context=()):
        super().__init__(message)
        self.context = list(context)


@dataclass(frozen=True)
class Frozen(Exception):  # noqa: N818 - a kind of class
    code: int


@dataclass(frozen=True, slots=True)
class FrozenSlots(Exception):  # noqa: N818 - a kind of class
    code: int


class Slots(Exception):  # noqa: N818 - a kind of class
    __slots__ = ("code",)


class Guarded(Exception):  # noqa: N818 - a kind of class
    def __setattr__(self, name, value):
        raise AttributeError(name)

    def __getattribute__(self, name):
        if name == "__dict__":
            raise AttributeError(name)
        return super().__getattribute__(name)


KINDS = [
    lambda: ValueError("plain", 1),
    lambda: Jsonschema("schema", [1]),
    lambda: Frozen(5),
    lambda: FrozenSlots(5),
    lambda: Slots("slots"),
    lambda: Guarded("guarded"),
    KeyboardInterrupt,
    lambda: ExceptionGroup("group", [ValueError("member")]),
    lambda: OSError(2, "No such file", "name"),
]
NAMES = ["plain", "own context", "frozen", "frozen slots", "slots", "guarded", "base", "group", "os"]


@pytest.mark.parametrize("make_error", KINDS, ids=NAMES)
def test_any_exception_takes_context(make_error):
    """The same exception comes back, with context, merged on a second call; all else of it is as it was."""
    error = make_error()
    before = (error.args, str(error))
    given = {"page": {"number": 1}, "lock": threading.Lock()}
    assert with_context(exc=error, context=given) is error
    assert with_context(error, {"page": {"answers": 2}, "more": 3}) is error
    assert context_of(error) == {"page": {"number": 1, "answers": 2}, "lock": given["lock"], "more": 3}
    assert given["page"] == {"number": 1}
    assert (error.args, str(error)) == before
    if isinstance(error, Jsonschema):
        assert error.context == [1]


@pytest.mark.parametrize("make_error", KINDS, ids=NAMES)
def test_what_could_be_pickled_still_can(make_error):
    """Context keeps no exception from being pickled, whatever stands in it, nor changes what comes back."""
    try:
        pickle.loads(pickle.dumps(make_error()))  # noqa: S301 - our own
    except Exception:  # noqa: BLE001 - some classes never could
        pytest.skip("this class of exceptions cannot be pickled by itself")
    error = with_context(make_error(), {"page": 1, "lock": threading.Lock(), "deep": [{"lambda": print}]})
    again = pickle.loads(pickle.dumps(error))  # noqa: S301 - our own
    assert (type(again), str(again.args), str(again)) == (type(error), str(error.args), str(error))
    if context_of(again):
        assert context_of(again) == {
            "page": 1,
            "lock": "<_thread.lock>",
            "deep": [{"lambda": "<builtins.builtin_function_or_method>"}],
        }


def test_the_context_of_an_ordinary_exception_is_pickled_too():
    """From another process a plain exception comes back with its context."""
    error = with_context(ValueError("x"), {"page": 1, "deep": {"list": [1, None]}})
    assert context_of(pickle.loads(pickle.dumps(error))) == {"page": 1, "deep": {"list": [1, None]}}  # noqa: S301
    assert context_of(copy.copy(error)) == {"page": 1, "deep": {"list": [1, None]}}


def test_context_that_is_no_mapping():
    """On the way to raise an error, a wrong context is kept, not raised."""
    assert context_of(with_context(ValueError(), "odd")) == {"context": "odd"}
    assert context_of(ValueError()) == {}


def test_a_copy_is_given():
    """Neither what was given nor what is read later is shared with the exception."""
    given = {"page": {"number": 1}}
    error = with_context(ValueError(), given)
    given["page"]["number"] = 2
    context_of(error)["page"]["number"] = 3
    assert context_of(error) == {"page": {"number": 1}}


def test_the_documented_example(kit, application):
    """An exception that leaves the block is logged with its context over the block's, and goes on unchanged."""
    error = ValueError("Response data failed spam check.")
    with pytest.raises(ValueError, match="spam check") as raised, kit.log.block({"app_version": "1"}):  # noqa: PT012
        line = currentframe().f_lineno + 1
        raise with_context(exc=error, context={"spam_score": 7, "threshold": 5})
    assert raised.value is error
    (entry,) = kit.finish()
    assert (entry.level, entry.message) == (logging.ERROR, "ValueError: Response data failed spam check.")
    assert entry.context == {"app_version": "1", "spam_score": 7, "threshold": 5}
    assert (entry.pathname, entry.lineno, entry.function) == (__file__, line, "test_the_documented_example")
    assert entry.exception["qualified_type"] == "builtins.ValueError"
    assert entry.exception["context"] == {"spam_score": 7, "threshold": 5}
    assert entry.exception["traceback"].endswith("\nValueError: Response data failed spam check.\n")
    (record,) = application.collector.records
    assert record.exc_info[1] is error
    assert logging.Formatter().format(record).endswith("ValueError: Response data failed spam check.")


def test_it_is_logged_once_however_many_blocks_it_leaves(kit):
    """One exception, three blocks: one record; another one, though equal, is another record."""
    error = ValueError("same")
    for _ in range(2):
        with (
            pytest.raises(ValueError, match="same"),
            kit.log.block({"outer": 1}),
            kit.log.block({"inner": 1}),
        ):
            raise error
    with pytest.raises(ValueError, match="same"), kit.log.block():
        raise ValueError("same")
    assert [entry.context for entry in kit.finish()] == [{"outer": 1, "inner": 1}, {}]


@pytest.mark.parametrize(
    ("error", "level"),
    [
        (ValueError(), logging.ERROR),
        (KeyboardInterrupt(), logging.ERROR),
        (SystemExit(3), logging.ERROR),
        (BaseExceptionGroup("all", [SystemExit()]), logging.ERROR),
        (Skip(), logging.INFO),
        (asyncio.CancelledError(), logging.INFO),
    ],
    ids=lambda value: type(value).__name__,
)
def test_levels_of_exceptions(kit, error, level):
    """Errors are errors, and so are exits; the framework's own signals and a cancellation are not."""
    with pytest.raises(type(error)) as raised, kit.log.block():
        raise error
    assert raised.value is error
    assert [entry.level for entry in kit.finish()] == [level]


@pytest.mark.parametrize("asyncio_is", ["not imported", "being imported"])
def test_an_exception_leaves_a_block_whether_or_not_asyncio_is_there(kit, monkeypatch, asyncio_is):
    """It is logged and goes on unchanged where no code has imported asyncio, or another thread is just doing so."""
    if asyncio_is == "not imported":
        monkeypatch.delitem(sys.modules, "asyncio")
    else:
        monkeypatch.setitem(sys.modules, "asyncio", ModuleType("asyncio"))
    with pytest.raises(KeyError), kit.log.block():
        raise KeyError("lost")
    (entry,) = kit.finish()
    assert entry.level == logging.ERROR


def test_a_closed_generator_says_nothing(kit):
    """Closing a generator inside of a block is no exception of the task."""

    def generate():
        with kit.log.block():
            yield 1

    generator = generate()
    next(generator)
    generator.close()
    assert kit.finish() == []


def test_the_cause_chain_notes_and_members(kit):
    """Causes, what was being handled, notes and members of groups are kept as a tree, each with its context."""

    def fail():
        try:
            try:
                raise with_context(KeyError("first"), {"depth": 1})
            except KeyError as error:
                raise with_context(ValueError("second"), {"depth": 2}) from error
        except ValueError:
            inner = with_context(TypeError("member"), {"member": True})
            inner.add_note("a note")
            raise ExceptionGroup("third", [inner, ExceptionGroup("nested", [OSError("last")])])  # noqa: B904

    with pytest.raises(ExceptionGroup), kit.log.block():
        fail()
    tree = kit.finish()[0].exception
    second = tree["context_exception"]
    assert (tree["message"], tree["cause"]) == ("third (2 sub-exceptions)", None)
    assert (second["qualified_type"], second["context"]) == ("builtins.ValueError", {"depth": 2})
    assert (second["cause"]["message"], second["cause"]["context"]) == ("'first'", {"depth": 1})
    member, nested = tree["members"]
    assert (member["context"], member["notes"]) == ({"member": True}, ["a note"])
    assert nested["members"][0]["qualified_type"] == "builtins.OSError"
    text = tree["traceback"]
    wanted = [
        "KeyError: 'first'\n",
        "The above exception was the direct cause of the following exception:\n",
        "ValueError: second\n",
        "During handling of the above exception, another exception occurred:\n",
        "ExceptionGroup: third (2 sub-exceptions)\n",
        "| TypeError: member\n| a note\n",
        "| | OSError: last\n",
    ]
    places = [text.index(part) for part in wanted]
    assert places == sorted(places)


def test_what_is_suppressed_stays_away():
    """`raise … from None` hides what was being handled, as it does everywhere."""
    with pytest.raises(ValueError, match="shown") as raised:  # noqa: PT012 - the nesting is what is tested
        try:
            raise KeyError("hidden")  # noqa: TRY301 - as a task does
        except KeyError:
            raise ValueError("shown") from None
    assert "hidden" not in str(exception_record(raised.value, LogSettings()))


class Unprintable(Exception):  # noqa: N818 - a kind of class
    def __str__(self):
        raise RuntimeError

    __repr__ = __str__
    __notes__ = property(__str__)


def endless():
    """An exception that is its own cause, by way of another."""
    one, other = ValueError("one"), ValueError("other")
    one.__cause__, other.__cause__ = other, one
    return one


def long_chain():
    error = ValueError("0")
    for number in range(3_000):
        following = ValueError(str(number))
        following.__cause__ = error
        error = following
    return error


def deep_group():
    error = ValueError("inside")
    for _ in range(900):
        error = ExceptionGroup("around", [error])
    return error


def deep_recursion():
    def descend():
        descend()

    try:
        descend()
    except RecursionError as error:
        return error


@pytest.mark.parametrize(
    "error",
    [
        Unprintable(),
        endless(),
        long_chain(),
        deep_group(),
        deep_recursion(),
        ExceptionGroup("wide", [ValueError(str(number)) for number in range(1_000)]),
        ValueError("x" * 1_000_000),
        ValueError("lone \ud800 surrogate \0"),
        SyntaxError("wrong", ("file.py", 1, 2, "a b", 1, 3)),
        with_context(ValueError(), {"big": ["x" * 4_000] * 100, "nan": float("nan")}),
        UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    ],
    ids=lambda error: (
        error.args[0][:12] if error.args and type(error.args[0]) is str else type(error).__name__
    ),
)
def test_any_exception_is_bounded_data(kit, error):
    """However long its chain, its group, its text or its stack, an exception is stored, and within bounds."""
    with pytest.raises(type(error)), kit.log.block():
        raise error
    (entry,) = kit.finish()
    text = encode(dict(entry.exception), "exception")
    assert len(text) < 400_000
    assert len(entry.exception["traceback"]) < 66_000
    assert entry.exception["qualified_type"].endswith(type(error).__qualname__)
    assert entry.exception == exception_record(error, LogSettings())


def test_cuts_of_an_exception_are_listed(kit):
    """What was cut of an exception is listed among the record's cuts."""
    with pytest.raises(ValueError, match="xx"), kit.log.block():
        raise with_context(ValueError("x" * 10_000), {"page": ["y" * 9_000]}) from long_chain()
    cuts = kit.finish()[0].truncated
    assert {"message", "exception.message", "exception.cause", "exception.context.page.0"} <= set(cuts)


def test_a_long_stack_keeps_both_ends():
    """Of a deep recursion the way in and the innermost frames stay."""
    text = exception_record(deep_recursion(), LogSettings())["traceback"]
    assert "in deep_recursion" in text
    assert "frames]" in text
    assert text.rstrip().endswith("RecursionError: maximum recursion depth exceeded")


def test_no_local_variable_is_kept():
    """A traceback shows lines of source, never values of variables."""

    def fail():
        password = "hunter" + str(22)
        raise ValueError(len(password))

    with pytest.raises(ValueError, match="8") as raised:
        fail()
    assert "hunter22" not in str(exception_record(raised.value, LogSettings()))


def test_secrets_in_an_exceptions_context_are_hidden(kit):
    """An exception's context is redacted like every other."""
    headers = {"Authorization": "hunter22"}
    error = with_context(ValueError("x"), {"headers": headers})
    with pytest.raises(ValueError, match="x"), kit.log.block():
        raise error
    assert "hunter22" not in str(kit.finish())


@pytest.mark.parametrize("exc_info", [True, "exception", "triple", (None, None, None), None])
def test_exc_info_in_all_its_spellings(kit, application, exc_info):
    """`exc_info` may be true, an exception, a triple, or say that there is none."""
    try:
        raise ValueError("at hand")  # noqa: TRY301 - it is to be at hand
    except ValueError as error:
        given = {"exception": error, "triple": (type(error), error, error.__traceback__)}.get(
            exc_info, exc_info
        )
        with kit.log.block() as logger:
            logger.warning("said", exc_info=given)
    (entry,) = kit.finish()
    assert (entry.exception is None) == (not exc_info or exc_info == (None, None, None))
    assert (application.collector.records[0].exc_info is None) == (entry.exception is None)


def test_an_explicit_exception_record_does_not_stand_for_the_automatic_one(kit):
    """A task that logs an exception as a warning and lets it go on has failed all the same: that is logged too."""
    with pytest.raises(ValueError, match="x"), kit.log.block() as logger:  # noqa: PT012 - all of it is the task
        try:
            raise ValueError("x")  # noqa: TRY301 - as a task does
        except ValueError:
            logger.warning("going on", exc_info=True)
            raise
    assert [entry.level for entry in kit.finish()] == [logging.WARNING, logging.ERROR]


def test_a_signal_has_no_traceback_at_the_handlers(kit, application):
    """Retry and skip are told to the handlers in one line; the exception's tree is kept all the same."""
    with pytest.raises(Skip), kit.log.block():
        raise with_context(Skip(), {"reason": "embedded"})
    (entry,) = kit.finish()
    (record,) = application.collector.records
    assert (record.exc_info, record.exc_text, record.context) == (None, None, {"reason": "embedded"})
    assert entry.exception["type"] == "Skip"


def test_endless_context_does_not_stop_the_error():
    """A context that holds itself, or is nested without end, is attached, logged and pickled like any other."""
    ring = {"page": 1}
    ring["self"] = ring
    deep = {}
    for _ in range(3_000):
        deep = {"deep": deep}
    error = with_context(with_context(ValueError("x"), ring), {"deep": deep})
    record = exception_record(error, LogSettings())
    assert record["context"]["page"] == 1
    assert pickle.loads(pickle.dumps(error)).args == ("x",)  # noqa: S301 - our own


def test_the_text_of_a_whole_tree_is_bounded():
    """Fifty members with long messages and notes are small enough to be stored."""
    members = []
    for number in range(60):
        members.append(ValueError(f"{number}" + "ä" * 9_000))
        for _ in range(20):
            members[-1].add_note("\x01" * 9_000)
    record = exception_record(ExceptionGroup("wide", members), LogSettings())
    assert len(encode(dict(record), "exception").encode()) < 1024 * 1024
