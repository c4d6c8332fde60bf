"""The options of tasks and applications, which are checked where they are set.

A duration is a timedelta or a number of seconds.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

from triggers.core.durations import LONGEST
from triggers.core.values import Limits, shown
from triggers.exceptions import InvalidOptionError
from triggers.redaction import hide

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: How similar to an option (0 to 1, difflib's ratio) another name must be to count as a typo of it.
NEAR_MISS = 0.8

#: Up to this length of an option, a typo of it has the same letters: `nmae` is one, `game` is not.
SHORT = 5


@dataclass(frozen=True, slots=True)
class Option:
    """What an option accepts.

    Attributes:
        accepted: what is accepted, in words, for error messages.
        is_valid: returns whether a value is accepted. If it raises, the value is not accepted.
    """

    accepted: str
    is_valid: Callable[[Any], bool]

    def check(self, owner: str, name: str, value: object) -> None:
        """Refuse a value that is not accepted.

        Args:
            owner: what the option belongs to, for the beginning of the message.
            name: the name of the option.
            value: the value.

        Raises:
            InvalidOptionError: the value is not accepted. The message says what is.
        """
        try:
            valid = self.is_valid(value)
        except Exception:  # noqa: BLE001 - the value can be any object
            valid = False
        if not valid:
            message = f"{owner}: {name} must be {self.accepted}, not {hide(shown(value), ())}"
            raise InvalidOptionError(message)

    def or_none(self) -> Option:
        """Return this option with None as another accepted value."""
        return Option(f"{self.accepted}, or None", lambda value: value is None or self.is_valid(value))


def duration(given: timedelta | float) -> timedelta:
    """Return a duration as a timedelta. A number counts as seconds."""
    return given if isinstance(given, timedelta) else timedelta(seconds=given)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_duration(value: Any) -> bool:
    if _is_number(value):
        return 0 < value <= LONGEST.total_seconds() and duration(value) > timedelta()
    return isinstance(value, timedelta) and timedelta() < value <= LONGEST


def _whole(least: int, most: int | None = None) -> Option:
    def is_valid(value: Any) -> bool:
        return (
            isinstance(value, int)
            and _is_number(value)
            and least <= value <= (value if most is None else most)
        )

    return Option(
        f"a whole number, {least} or more" if most is None else f"a whole number from {least} to {most}",
        is_valid,
    )


def _one_of(*words: Any) -> Option:
    return Option(
        " or ".join(repr(word) for word in words),
        lambda value: type(value) in {*map(type, words)} and value in words,
    )


def _is_list(value: object) -> bool:
    """Return whether a value is not a text, and can be read more than once, unlike an iterator."""
    return isinstance(value, Collection) and not isinstance(value, str)


def _is_manager(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, type) and hasattr(value, "policy_for"))


DURATION = Option("a timedelta or a number of seconds, longer than 0 and at most 100 years", _is_duration)
_TEXT = Option("a string of at least one character", lambda value: isinstance(value, str) and bool(value))
_FLAG = Option("True or False", lambda value: isinstance(value, bool))
_MAPPING = Option("a mapping", lambda value: isinstance(value, Mapping))
_REGISTRY = Option(
    "a triggers.Registry", lambda value: hasattr(value, "register") and hasattr(value, "names")
)
_RUNNER = Option(
    "the name of a runner or a runner", lambda value: isinstance(value, str) or hasattr(value, "submit")
)
_RATE = Option(
    "a number of tasks per second or a string like '10/s', '100/m' or '1000/h'",
    lambda value: (
        (_is_number(value) and value >= 0)
        or (isinstance(value, str) and re.fullmatch(r"\d+(\.\d+)?(/[smh])?", value) is not None)
    ),
)
_EXPIRY = Option(
    "a datetime, a timedelta or a number of seconds",
    lambda value: isinstance(value, datetime) or _is_duration(value),
)


def _is_retry(value: object) -> bool:
    from triggers.core.directives import retry_problems  # noqa: PLC0415 - its import is slow; see that module

    return not retry_problems(value)


_RETRY = Option("a mapping as for `retry` in a rule, such as {'max': 5, 'first': 'PT10S'}", _is_retry)

#: The options of a task, except its name.
TASK: dict[str, Option] = {
    "max_retries": _whole(0),
    "retry_policy": _RETRY.or_none(),
    "timeout": DURATION.or_none(),
    "lease": DURATION.or_none(),
    "max_crashes": _whole(1).or_none(),
    "on_lost": _one_of("retry", "fail"),
    "log_context": _MAPPING.or_none(),
    "registry": _REGISTRY,
}

#: Celery's options of a task. Only :class:`triggers.runners.celery.CeleryRunner` uses them.
CELERY: dict[str, Option] = {
    "queue": _TEXT.or_none(),
    "exchange": _TEXT.or_none(),
    "routing_key": _TEXT.or_none(),
    "priority": _whole(0, 255).or_none(),
    "rate_limit": _RATE.or_none(),
    "time_limit": DURATION.or_none(),
    "soft_time_limit": DURATION.or_none(),
    "expires": _EXPIRY.or_none(),
    "ignore_result": _FLAG.or_none(),
    "track_started": _FLAG.or_none(),
    "acks_late": _FLAG.or_none(),
    "acks_on_failure_or_timeout": _FLAG.or_none(),
    "reject_on_worker_lost": _FLAG.or_none(),
    "store_errors_even_if_ignored": _FLAG.or_none(),
    "serializer": _TEXT.or_none(),
    "compression": _TEXT.or_none(),
    "delivery_mode": _one_of(1, 2, "transient", "persistent").or_none(),
}

#: Every option of a task.
OPTIONS = {**TASK, **CELERY}

#: The options of an application.
APPLICATION: dict[str, Option] = {
    "runner": _RUNNER.or_none(),
    "runners": Option(
        "a mapping of names to runners",
        lambda value: all(isinstance(name, str) and hasattr(each, "submit") for name, each in value.items()),
    ).or_none(),
    "manager": Option("a subclass of TriggerManager or the name of an installed one", _is_manager),
    "managers": Option(
        "a sequence of subclasses of TriggerManager or of names of installed ones",
        lambda value: _is_list(value) and all(map(_is_manager, value)),
    ),
    "plugins": Option(
        "a list of names",
        lambda value: _is_list(value) and all(isinstance(name, str) for name in value),
    ),
    "registry": _REGISTRY,
    "complete_registry": _FLAG,
    "lease": DURATION,
    "grace": DURATION,
    "sweep_interval": DURATION,
    "max_crashes": _whole(1),
    "limits": Option("a triggers.Limits", lambda value: isinstance(value, Limits)),
}

#: How long an instance waits before a retry. A negative cooldown counts as none.
COOLDOWN = Option(
    "a timedelta or a number of seconds, at most 100 years",
    lambda value: (
        (isinstance(value, timedelta) and value <= LONGEST)
        or (_is_number(value) and -LONGEST.total_seconds() <= value <= LONGEST.total_seconds())
    ),
).or_none()


def check_application(given: Mapping[str, object]) -> None:
    """Check the options of an application, given by name.

    Raises:
        InvalidOptionError: an option is not valid.
    """
    for name, option in APPLICATION.items():
        option.check("Triggers", name, given[name])


def check_known(given: Iterable[str]) -> None:
    """Check the names of the options that `@task` was given.

    Raises:
        InvalidOptionError: an option does not exist.
    """
    known = ("name", *OPTIONS)
    for name in given:
        if name not in known:
            meant = _meant(name, known) or next(iter(difflib.get_close_matches(name, known, n=1)), None)
            hint = f"did you mean {meant!r}?" if meant else f"the options are: {', '.join(known)}"
            message = f"@task has no option {name!r}; {hint}"
            raise InvalidOptionError(message)


def check_class(kind: type, base: type) -> None:
    """Check the options that a task class sets, and refuse attributes whose names are typos of an option.

    Methods, properties, names that begin with an underscore and constants in capital letters are not checked
    for typos. Neither is a name that resembles an option which the class also sets.

    Args:
        kind: the class.
        base: the class that has the options' defaults.

    Raises:
        InvalidOptionError: an option is not valid, or a name is a typo.
    """
    owner = f"task {kind.__module__}.{kind.__qualname__}"
    inherited = [vars(one) for one in kind.__mro__ if one not in base.__mro__]
    found = {name: value for attributes in reversed(inherited) for name, value in attributes.items()}
    plain = {name: value for name, value in found.items() if not hasattr(type(value), "__get__")}
    for name in OPTIONS.keys() & plain.keys():
        OPTIONS[name].check(owner, name, plain[name])
    for name in plain.keys() & vars(kind).keys():
        meant = _meant(name, ("name", *OPTIONS))
        if meant is not None and meant not in found and not callable(plain[name]):
            message = (
                f"{owner}: there is no option {name!r}; did you mean {meant!r}? "
                "If it is a constant of your own, write it in capital letters"
            )
            raise InvalidOptionError(message)


def check_instance(task: object) -> None:
    """Check the options of a registered task, also those that its instance sets or computes.

    Raises:
        InvalidOptionError: an option is not valid.
    """
    for name, option in OPTIONS.items():
        if name in TASK or hasattr(task, name):
            option.check(f"task {shown(getattr(task, 'name', task))}", name, getattr(task, name, None))


def _meant(name: str, known: Iterable[str]) -> str | None:
    """Return the option of which a name is probably a typo; None if it is an option or resembles none."""
    if name in known or name.startswith("_") or name.isupper():
        return None
    close = {option: _likeness(name.lower(), option) for option in known}
    best = max(close, key=lambda option: close[option])
    return best if close[best] >= NEAR_MISS else None


def _likeness(name: str, option: str) -> float:
    flat, spelled = name.replace("_", ""), option.replace("_", "")
    if len(spelled) <= SHORT:
        return float(set(flat) == set(spelled))
    pairs = ((flat, spelled), (name, option))
    return max(difflib.SequenceMatcher(None, *pair).ratio() for pair in pairs)
