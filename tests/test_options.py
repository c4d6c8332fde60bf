"""The options of tasks and of applications: checked where they are set, in words that say what is accepted."""

from __future__ import annotations

import functools
import math
import re
from datetime import timedelta
from decimal import Decimal

import pytest

from triggers import Limits, Registry, TriggerManager, Triggers, TriggerTask
from triggers.exceptions import InvalidNameError, InvalidOptionError
from triggers.options import CELERY, OPTIONS
from triggers.runners.inline import InlineRunner
from triggers.storages.memory import MemoryStorage
from triggers.task import TaskOptions, task
from triggers.testing import TriggersHarness

WRONG = [
    ("max_retries", "5", "a whole number, 0 or more, not '5'"),
    ("max_retries", -1, "a whole number, 0 or more, not -1"),
    ("max_retries", 1.0, "a whole number"),
    ("max_retries", True, "a whole number"),
    ("max_retries", None, "a whole number"),
    (
        "timeout",
        "5",
        "a timedelta or a number of seconds, longer than 0 and at most 100 years, or None, not '5'",
    ),
    ("timeout", 0, "longer than 0"),
    ("timeout", -1.5, "longer than 0"),
    ("timeout", 1e-9, "longer than 0"),
    ("timeout", math.nan, "longer than 0"),
    ("timeout", math.inf, "at most 100 years"),
    ("timeout", timedelta(0), "longer than 0"),
    ("timeout", True, "a number of seconds"),
    ("timeout", Decimal(5), "a number of seconds"),
    ("lease", timedelta.max, "at most 100 years"),
    ("lease", [60], "a number of seconds"),
    ("max_crashes", 0, "a whole number, 1 or more, or None"),
    ("max_crashes", 2.5, "a whole number"),
    ("on_lost", "Retry", "'retry' or 'fail', not 'Retry'"),
    ("on_lost", None, "'retry' or 'fail'"),
    ("on_lost", [], "'retry' or 'fail'"),
    ("log_context", "text", "a mapping, or None"),
    ("log_context", [("a", 1)], "a mapping, or None"),
    ("queue", 5, "a string of at least one character, or None"),
    ("queue", "", "a string of at least one character"),
    ("priority", 256, "a whole number from 0 to 255"),
    ("priority", "high", "a whole number from 0 to 255"),
    ("rate_limit", "10 per minute", "a string like '10/s'"),
    ("rate_limit", -1, "a number of tasks per second"),
    ("time_limit", "60", "a number of seconds"),
    ("soft_time_limit", 0, "a number of seconds"),
    ("expires", "tomorrow", "a datetime, a timedelta or a number of seconds"),
    ("ignore_result", 1, "True or False, or None, not 1"),
    ("delivery_mode", True, "1 or 2 or 'transient' or 'persistent', or None"),
]

RIGHT = [
    ("max_retries", 0),
    ("timeout", None),
    ("timeout", 5),
    ("timeout", 0.5),
    ("timeout", timedelta(hours=1)),
    ("lease", 120),
    ("max_crashes", 1),
    ("on_lost", "fail"),
    ("log_context", {"a": 1}),
    ("queue", "imports"),
    ("priority", 0),
    ("rate_limit", "10/m"),
    ("rate_limit", 0.5),
    ("time_limit", 60),
    ("soft_time_limit", timedelta(minutes=1)),
    ("ignore_result", False),
    ("delivery_mode", "transient"),
]


def body(**attributes):
    """The body of a task class."""
    return {"_run": lambda self, context: None, "registry": Registry(), "name": "t", **attributes}


def define(**attributes):
    return type("Task", (TriggerTask,), body(**attributes))


@pytest.mark.parametrize(("option", "value", "accepted"), WRONG)
def test_a_wrong_value_is_refused_when_the_task_is_defined(option, value, accepted):
    """The error names the task, the option, the value and what is accepted; nothing is registered."""
    tasks = Registry()
    for make in (
        lambda: task(**{"name": "t", "registry": tasks, option: value})(print),
        lambda: define(registry=tasks, **{option: value}),
    ):
        with pytest.raises(InvalidOptionError, match=re.escape(accepted)) as error:
            make()
        assert re.match(rf"task .*: {option} must be ", str(error.value))
        assert f"not {value!r}" in str(error.value)
    assert list(tasks) == []


@pytest.mark.parametrize(("option", "value"), RIGHT)
def test_a_valid_value_is_taken_as_it_is(option, value):
    """As an option of the decorator and as an attribute of a class."""
    tasks = Registry()
    task(**{"name": "t", "registry": tasks, option: value})(print)
    assert getattr(tasks.get("t"), option) == value
    assert getattr(define(**{option: value}), option) == value


def test_a_wrong_registry_is_refused():
    """Nothing could be registered there."""
    for make in (lambda: task(name="t", registry={})(print), lambda: define(registry={})):
        with pytest.raises(InvalidOptionError, match=r"registry must be a triggers\.Registry, not {}"):
            make()


def test_a_value_of_a_base_or_a_mixin_is_checked_too():
    """Wherever the class has it from; a base without `_run` is checked when it is defined itself."""
    with pytest.raises(InvalidOptionError, match="timeout must be"):
        type("Base", (TriggerTask,), {"timeout": "5"})
    with pytest.raises(InvalidOptionError, match="timeout must be"):
        type("Task", (type("Mixin", (), {"timeout": "5"}), TriggerTask), body())


def test_a_value_that_an_instance_computes_is_checked_too():
    """A property, or what `__init__` sets, is an option like any other."""
    with pytest.raises(InvalidOptionError, match=r"task 't': timeout must be .* not '5'"):
        define(timeout=property(lambda self: "5"))
    with pytest.raises(InvalidOptionError, match="task 't': lease must be"):
        define(__init__=lambda self: setattr(self, "lease", -1))
    define(timeout=property(lambda self: 5))


def test_a_value_that_cannot_be_compared_or_shown_is_refused_all_the_same():
    """What a foreign object raises is no concern of who reads the error."""

    class Hostile(int):
        def __le__(self, other):
            message = "no order"
            raise RuntimeError(message)

        __ge__ = __repr__ = __le__

    with pytest.raises(
        InvalidOptionError, match="max_retries must be a whole number, 0 or more, not <value without a repr>"
    ):
        define(max_retries=Hostile())


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("max_retry", "max_retries"),
        ("maxRetries", "max_retries"),
        ("nmae", "name"),
        ("time_out", "timeout"),
        ("Timeout", "timeout"),
        ("laese", "lease"),
        ("max_crash", "max_crashes"),
        ("onlost", "on_lost"),
        ("log_contexts", "log_context"),
        ("rate_limits", "rate_limit"),
        ("softtimelimit", "soft_time_limit"),
        ("qeue", "queue"),
        ("ignore_results", "ignore_result"),
    ],
)
def test_a_typo_of_an_option_is_refused_with_what_was_meant(given, meant):
    """Of the decorator and of a class alike."""
    with pytest.raises(InvalidOptionError, match=f"@task has no option '{given}'; did you mean '{meant}'"):
        task(**{"name": "t", given: 0})
    own = body(**{given: 0})
    if meant == "name":
        del own["name"]
    with pytest.raises(InvalidOptionError, match=f"there is no option '{given}'; did you mean '{meant}'"):
        type("Task", (TriggerTask,), own)


def test_an_unknown_option_of_the_decorator_is_refused():
    """With the options that there are; nothing given to the decorator is ignored."""
    with pytest.raises(
        InvalidOptionError,
        match="@task has no option 'colour'; the options are: name, max_retries, retry_policy, timeout",
    ):
        task(colour="red")


def test_a_class_may_have_attributes_of_its_own():
    """Constants, methods and properties, and names that are like those of options that it sets, too."""
    define(
        TIMEOUT=30,
        MAX_RETRY=3,
        _timeouts=1,
        url="https://a.example",
        fname="a",
        game="chess",
        rename=True,
        release=7,
        timeouts=[1, 2],
        timeout=5,
        retries=property(lambda self: 3),
        max_retry=lambda self: 3,
    )


def test_celery_options_stand_in_one_mapping():
    """Whatever a task, or what it inherits from, sets of them; what is None is not set."""
    tasks = Registry()
    base = type("Base", (TriggerTask,), {"queue": "imports", "priority": 3, "expires": None})
    task(name="function", registry=tasks, rate_limit="10/s", time_limit=60)(print)
    assert tasks.get("function").celery_options == {"rate_limit": "10/s", "time_limit": 60}
    heir = type("Task", (base,), body(priority=5, soft_time_limit=timedelta(minutes=1)))
    assert heir().celery_options == {
        "queue": "imports",
        "priority": 5,
        "soft_time_limit": timedelta(minutes=1),
    }
    assert define()().celery_options == {}


def test_the_type_checker_knows_every_option():
    """The options that are accepted, and those that the signature of the decorator has, are the same."""
    assert TaskOptions.__annotations__.keys() == {"name", *OPTIONS}
    assert CELERY.keys() < OPTIONS.keys()


@pytest.mark.parametrize("wrong", [5, "", None, "a\nb"])
def test_a_name_is_checked_like_every_name(wrong):
    """As that of a session or a trigger."""
    with pytest.raises(InvalidNameError):
        define(name=wrong)
    if wrong is not None:
        with pytest.raises(InvalidNameError):
            task(name=wrong, registry=Registry())(print)


def test_numbers_are_seconds():
    """A timeout and a lease given as numbers work like timedeltas."""
    tasks = Registry()

    @task(name="slow", registry=tasks, timeout=0.02, lease=120)
    async def slow(context):
        import asyncio  # noqa: PLC0415 - for this task

        await asyncio.sleep(3600)

    with TriggersHarness(registry=tasks) as harness:
        session = harness.session("s")
        session.update_configuration({"t": {"after": ["go"], "run": "slow"}})
        session.fire("go")
        message = r"longer than its timeout of 0:00:00\.02"
        harness.check(session).assert_instance_failed("t#0", "TaskTimeoutError", match=message)


@pytest.mark.parametrize(
    ("cooldown", "message"),
    [
        ("5", "not '5'"),
        (math.nan, "not nan"),
        (timedelta.max, "at most 100 years"),
        (1e300, "at most 100 years"),
    ],
)
def test_a_cooldown_that_cannot_be_waited_for_is_refused(cooldown, message):
    """At once, in the task that asks for it."""
    with pytest.raises(
        InvalidOptionError, match=f"retry: cooldown must be a timedelta or a number .*{message}"
    ):
        define()().retry(cooldown=cooldown)
    assert define()().retry(cooldown=None).cooldown == timedelta()


# -- functions and other callables ----------------------------------------------------------------------


class Adder:
    """A callable object."""

    def __init__(self, amount):
        self.amount = amount

    def __call__(self, context):
        return {"sum": context.trigger_kwargs["go"]["n"] + self.amount}

    def add(self, context):
        return self(context)


def add(amount, context):
    return {"sum": context.trigger_kwargs["go"]["n"] + amount}


async def add_later(amount, context):
    return add(amount, context)


CALLABLES = {
    "a partial": functools.partial(add, 2),
    "a partial of a partial": functools.partial(functools.partial(add), 2),
    "a partial of a coroutine function": functools.partial(add_later, 2),
    "an object": Adder(2),
    "a partial of an object": functools.partial(Adder(2)),
    "a bound method": Adder(2).add,
    "a partial method": functools.partial(Adder.add, Adder(2)),
    "a lambda": lambda context: add(2, context),
}


@pytest.mark.parametrize("what", CALLABLES)
def test_any_callable_may_be_a_task(what):
    """With a name, whatever has none of its own runs like a function, and is returned unchanged."""
    tasks = Registry()
    assert task(name="add", registry=tasks)(CALLABLES[what]) is CALLABLES[what]
    assert type(tasks.get("add")).__module__ == __name__
    with TriggersHarness(registry=tasks) as harness:
        session = harness.session("s")
        session.update_configuration({"t": {"after": ["go"], "run": "add"}})
        session.fire("go", {"n": 1})
        assert session.storage["t#0"].result == {"sum": 3}


@pytest.mark.parametrize("what", ["a partial", "an object"])
def test_a_callable_without_a_name_needs_one(what):
    """The error says how to give one."""
    for make in (lambda: task(CALLABLES[what]), lambda: task(max_retries=1)(CALLABLES[what])):
        with pytest.raises(InvalidOptionError, match=r"does not have a name: write @task\(name=…\)$"):
            make()


@pytest.mark.parametrize("given", ["survey.Import", 5])
def test_what_cannot_be_called_is_no_task(given):
    """Least of all a name, which is an option; it is refused with and without one."""
    for make in (lambda: task(given), lambda: task(name="t", registry=Registry())(given)):
        with pytest.raises(
            InvalidOptionError, match=rf"@task is for functions, not for {given!r}; options are given"
        ):
            make()


# -- applications ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("option", "value", "accepted"),
    [
        ("lease", "60", "a timedelta or a number of seconds, longer than 0 and at most 100 years, not '60'"),
        ("lease", None, "a timedelta or a number of seconds"),
        ("grace", 0, "longer than 0"),
        ("sweep_interval", timedelta(-1), "longer than 0"),
        ("sweep_interval", math.inf, "at most 100 years"),
        ("max_crashes", "3", "a whole number, 1 or more, not '3'"),
        ("max_crashes", 0, "a whole number, 1 or more"),
        ("limits", {"payload": 5}, "a triggers.Limits"),
        ("limits", Limits, "a triggers.Limits"),
        ("registry", [], "a triggers.Registry"),
        ("complete_registry", "yes", "True or False"),
        ("manager", TriggerManager.__init__, "a subclass of TriggerManager"),
        ("manager", dict, "a subclass of TriggerManager"),
        ("managers", TriggerManager, "a sequence of subclasses of TriggerManager"),
        ("managers", [dict], "a sequence of subclasses of TriggerManager"),
        ("runner", 5, "the name of a runner or a runner, or None"),
        ("runners", ["threads"], "a mapping of names to runners, or None"),
        ("runners", {"own": "threads"}, "a mapping of names to runners, or None"),
    ],
)
def test_a_wrong_option_of_an_application_is_refused(option, value, accepted):
    """By name, with what is accepted, before anything is opened or started."""
    with pytest.raises(InvalidOptionError, match=f"Triggers: {option} must be .*{re.escape(accepted)}"):
        Triggers("nothing://that.could/be-opened", **{option: value})


def test_the_durations_of_an_application_may_be_seconds():
    """Numbers work like timedeltas."""
    tasks = Registry()
    task(name="one", registry=tasks)(lambda context: {"lease": context.lease_lost})
    with Triggers(
        MemoryStorage(), runner=InlineRunner(), registry=tasks, lease=60, grace=0.5, sweep_interval=5
    ) as triggers:
        session = triggers.session("s")
        session.update_configuration({"t": {"after": ["go"], "run": "one"}})
        session.fire("go")
        assert session.storage["t#0"].result == {"lease": False}


@pytest.mark.parametrize(
    "wrong", [{"payload": "1"}, {"nesting": -1}, {"tasks": 1.5}, {"cascade_depth": None}]
)
def test_a_wrong_limit_is_refused(wrong):
    """Each is a whole number."""
    ((name, value),) = wrong.items()
    with pytest.raises(
        InvalidOptionError, match=rf"Limits: {name} must be a whole number, 0 or more, not {value!r}"
    ):
        Limits(**wrong)
