"""What a log may keep, and what it must hide: every limit in one place."""

from __future__ import annotations

import logging
from dataclasses import dataclass, fields
from datetime import timedelta
from typing import TYPE_CHECKING, Any, get_args

from triggers.logs.sanitizing.policy import ContextPolicy
from triggers.logs.sanitizing.redact import SECRET_WORDS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

#: A record of this level or above is something that somebody should look at.
ATTENTION = logging.WARNING


@dataclass(frozen=True, slots=True)
class LogSettings:
    """How the logs of a manager's instances are recorded; immutable, so one object serves them all.

    Attributes:
        record_level: a record below it is kept only if the application's logger takes it; a number or a
            name of the standard library's.
        max_depth: containers within containers, the context itself being the first.
        max_items: items of one container.
        max_nodes: values of one context, containers included.
        max_string: characters of one string, or of a message; bytes of one bytes value.
        max_context: size of one context as JSON, in bytes of UTF-8.
        max_traceback: characters of one traceback, and bytes of all contexts of one exception's tree.
        max_records: records of one attempt that are kept.
        max_bytes: their size, in bytes.
        max_important: how many of them may be those at WARNING or above, kept whenever they came; half of
            the rest goes to the first of the other records, half to the latest of all.
        flush_records: this many gathered records are written without waiting for the end of the task,
        flush_bytes: or this many bytes of them,
        flush_interval: or the first one after they have waited this long.
        redact: whole words of keys whose values are hidden: ``password`` also hides ``db_password2`` and
            ``dbPassword``; several words must stand together (``api key``); ``=token`` means the whole key.
        context_policy: what of a context is stored and handed to the application's handlers: ``all`` of it;
            ``allowed``, which leaves out every key, at any depth, that is not among `allowed_keys`; or
            ``keys``, which keeps every key but of each value only its type (``<str>``). It holds for the
            contexts of managers, tasks, blocks, calls and exceptions, not for the text of messages.
        allowed_keys: the keys that ``context_policy="allowed"`` keeps; a mapping under one of them keeps
            those of its keys that are allowed too.
        capture: names of other loggers of the application (``sqlalchemy.engine``; ``root`` for all) whose
            records, and those of the loggers below them, are kept with the instance too when they are logged
            within a block. Only what such a logger emits is kept: its level is its own.
        capture_counts: whether captured records count towards the level of the instance.
        converters: pairs of a type and a function that makes plain data of its values; consulted, for
            subclasses too, before anything that is known about a type.
        strict: for tests: what the application's handlers raise, and what goes wrong in preparing a
            record, is raised into the task. Otherwise it is reported once and the task goes on.
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
                message = f"LogSettings.{field.name} is {value!r}; it must be more than nothing"
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


#: Deeper than this, neither the recorder nor a reader of the stored JSON could recurse safely.
MAX_DEPTH = 40


@dataclass(frozen=True, slots=True)
class LogIdentity:
    """Whose log it is.

    Attributes:
        uid: of the session.
        task: name of the task in the configuration (``t_importSubject``).
        instance: name of the instance (``t_importSubject#0``).
        attempt: how many times this instance has been claimed, this time included.
        fence: the number that only the present holder of the instance has.
    """

    uid: str
    task: str
    instance: str
    attempt: int = 1
    fence: int = 1


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
        message = f"{level!r} is no logging level; use a number or one of {names}"
        raise ValueError(message)
    return number


def names_of(capture: Iterable[str]) -> tuple[str, ...]:
    """Return the names of loggers to capture; that of the root logger is empty.

    Raises:
        TypeError: it is a single name, which would be taken for its letters, or no names.
    """
    names = () if isinstance(capture, str) else tuple(capture)
    if isinstance(capture, str) or not all(isinstance(name, str) for name in names):
        message = f"capture={capture!r} must be a list of names of loggers"
        raise TypeError(message)
    return tuple("" if name == "root" else name for name in dict.fromkeys(names))
