"""The settings of logs: all limits, and what must be hidden."""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import TYPE_CHECKING, Any, get_args

from triggers.logs.sanitizing.policy import ContextPolicy
from triggers.redaction import SECRET_WORDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: The lowest level of important records.
ATTENTION = logging.WARNING


@dataclass(frozen=True, slots=True)
class LogSettings:
    """How the logs of a manager's instances are recorded; immutable, so that all of them share one object.

    Attributes:
        record_level: a record below it is stored only if the application's logger is enabled for its level; a
            number, or the name of a level.
        max_depth: nesting of containers, including the context itself.
        max_items: items of one container.
        max_nodes: values of one context, containers included.
        max_string: characters of one string, or of a message; bytes of one bytes value.
        max_context: size of one context as JSON, in bytes of UTF-8.
        max_traceback: characters of one traceback, and bytes of all contexts of one exception's tree.
        max_records: records of one attempt that are stored.
        max_bytes: their size, in bytes.
        max_important: how many of them may be records at WARNING or above. Half of the rest is for the first
            of the other records, half for the latest.
        flush_records: the number of buffered records at which they are written, before the task ends.
        flush_bytes: the size of the buffered records, in bytes, at which they are written.
        flush_interval: the age of the buffered records at which they are written, while the task continues.
        redact: words of keys whose values are hidden, in any case and however they are joined: ``password``
            also hides ``db_password2`` and ``dbPassword``, ``api key`` also ``apikey`` and ``X-Api-Key``. A
            word of six letters or more may end a longer word (``PGPASSWORD``). ``=token`` means the whole
            key.
        context_policy: which part of a context is stored and passed to the application's handlers: ``all`` of
            it; ``allowed``, which omits every key, at any depth, that is not in `allowed_keys`; or ``keys``,
            which keeps all keys but only the type of each value (``<str>``). It applies to the contexts of
            managers, tasks, blocks, calls and exceptions, not to the text of messages.
        allowed_keys: the keys that ``context_policy="allowed"`` keeps; a mapping under one of them
            keeps only its allowed keys.
        capture: names of other loggers of the application (``sqlalchemy.engine``; ``root`` for all) whose
            records, and those of their child loggers, are stored with the instance when they are logged
            within a block. The level of such a logger still applies.
        capture_counts: whether captured records count towards the level of the instance.
        converters: pairs of a type and a function that converts its values to plain data; used, also for
            subclasses, before the built-in conversions.
        strict: for tests: exceptions of the application's handlers, and exceptions while a record is
            prepared, are raised into the task. Otherwise each is reported once and the task continues.
    """

    record_level: int | str = logging.INFO
    max_depth: int = 8
    max_items: int = 100
    max_nodes: int = 1_000
    max_string: int = 4_096
    max_context: int = 16 * 1024
    max_traceback: int = 64 * 1024
    max_records: int = 1_000
    max_bytes: int = 1024 * 1024
    max_important: int = 500
    flush_records: int = 64
    flush_bytes: int = 64 * 1024
    flush_interval: timedelta = timedelta(seconds=1)
    redact: tuple[str, ...] = SECRET_WORDS
    context_policy: ContextPolicy = "all"
    allowed_keys: tuple[str, ...] = ()
    capture: tuple[str, ...] = ()
    capture_counts: bool = False
    converters: tuple[tuple[type, Callable[[Any], Any]], ...] = ()
    strict: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "record_level", level_number(self.record_level))
        for field in fields(self):
            value = getattr(self, field.name)
            if field.name.startswith(("max_", "flush_")) and not value:
                message = f"LogSettings.{field.name} is {value!r}; it must be greater than 0"
                raise ValueError(message)
        if not 0 < self.max_depth <= MAX_DEPTH:
            message = f"LogSettings.max_depth is {self.max_depth}; it must be 1 to {MAX_DEPTH}"
            raise ValueError(message)
        object.__setattr__(self, "capture", names_of(self.capture))
        self._check_policy()
        self._check_registries()

    def _check_registries(self) -> None:
        words: Any = self.redact
        if type(words) is not tuple or not all(isinstance(word, str) for word in words):
            message = (
                f"LogSettings.redact is {words!r}; it must be a tuple of words: (*SECRET_WORDS, 'salary')"
            )
            raise ValueError(message)
        pairs: Any = self.converters
        for pair in pairs:
            if len(pair) != 2 or not isinstance(pair[0], type) or not callable(pair[1]):  # noqa: PLR2004 - a pair
                message = f"LogSettings.converters has {pair!r}; it must have pairs of a type and a function"
                raise ValueError(message)

    def _check_policy(self) -> None:
        if self.context_policy not in get_args(ContextPolicy):
            names = ", ".join(get_args(ContextPolicy))
            message = f"LogSettings.context_policy is {self.context_policy!r}; it must be one of {names}"
            raise ValueError(message)
        keys: Any = self.allowed_keys
        if type(keys) is not tuple or bool(keys) != (self.context_policy == "allowed"):
            message = (
                f"LogSettings.allowed_keys is {keys!r} and context_policy is {self.context_policy!r}; "
                'a tuple of keys goes with "allowed", an empty one with the others'
            )
            raise ValueError(message)


#: The deepest nesting with which writing and reading the stored JSON can recurse safely.
MAX_DEPTH = 40


@dataclass(frozen=True, slots=True)
class LogIdentity:
    """The instance and the attempt to which a log belongs.

    Attributes:
        uid: the session.
        task: the name of the task in the configuration (``t_importSubject``).
        instance: the name of the instance (``t_importSubject#0``).
        attempt: how many times this instance has been claimed, including this time.
        fence: the fencing token of the claim.
    """

    uid: str
    task: str
    instance: str
    attempt: int = 1
    fence: int = 1

    @property
    def attributes(self) -> dict[str, Any]:
        """The attributes that identify the instance and the attempt in every LogRecord."""
        return {
            "triggers.uid": self.uid,
            "triggers.task": self.task,
            "triggers.instance": self.instance,
            "triggers.attempt": self.attempt,
        }


def level_number(level: int | str) -> int:
    """Return the number of a level given by number or name.

    Raises:
        ValueError: the standard library knows no level of that name.
    """
    if isinstance(level, int):
        return int(level)
    number = logging.getLevelNamesMapping().get(level.upper())
    if number is None:
        names = ", ".join(logging.getLevelNamesMapping())
        message = f"{level!r} is not a logging level; use a number or one of {names}"
        raise ValueError(message)
    return number


def names_of(capture: Iterable[str]) -> tuple[str, ...]:
    """Return the names of loggers to capture, each once; that of the root logger is empty.

    Raises:
        TypeError: it is a single string, or not a list of strings.
    """
    names = () if isinstance(capture, str) else tuple(capture)
    if isinstance(capture, str) or not all(isinstance(name, str) for name in names):
        message = f"capture={capture!r} must be a list of logger names"
        raise TypeError(message)
    return tuple("" if name == "root" else name for name in dict.fromkeys(names))
