"""Formats a message with its arguments; each argument is converted to text only once."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any
from uuid import UUID

from triggers.logs.sanitizing.shapes import marker, message_of, type_name
from triggers.logs.sanitizing.texts import fit_text

if TYPE_CHECKING:
    from triggers.logs.sanitizing.sanitizer import Sanitizer

#: Types of arguments that handlers may get unchanged.
_LEAVES = frozenset({str, int, float, bool, type(None), datetime, date, time, timedelta, Decimal, UUID})


#: Message, template, the message and the arguments for handlers, whether anything was cut.
Words = tuple[str, str, str, tuple[Any, ...], bool]


def text_of(message: object) -> str:
    """Return the text of a message that is not exactly a str, as ``str()`` returns it, or a marker."""
    if isinstance(message, BaseException):
        return message_of(message)
    try:
        return str.__str__(str(message))
    except Exception:  # noqa: BLE001 - the object's own code
        return marker(message)


class _Once:
    """An argument that is converted to text only once, and remembers whether that was by ``%s``."""

    __slots__ = ("_value", "other", "text")

    def __init__(self, value: object) -> None:
        self._value = value
        self.text: str | None = None
        self.other = False

    def __str__(self) -> str:
        self.text = str.__str__(str(self._value)) if self.text is None else self.text
        return self.text

    def __repr__(self) -> str:
        self.other = True
        return str.__str__(repr(self._value))


def format_message(
    msg: object, args: tuple[Any, ...], sanitizer: Sanitizer, secrets: tuple[str, ...]
) -> Words:
    """Format a message as the standard library does, but convert each argument only once.

    Returns:
        The message with its arguments, sanitized; the template; a message and plain arguments from which
        handlers get the same text; whether anything was cut. If the arguments do not match the template, they
        are appended to the message, and nothing is raised.
    """
    template: str = msg if type(msg) is str else text_of(msg)
    limit = sanitizer.settings.max_string
    if not args:
        message, was_cut = fit_text(template, limit, secrets)
        return message, message, message, (), was_cut
    try:
        for arg in args:
            kind = type(arg)
            if kind is str:
                if len(arg) > limit:
                    break
            elif kind not in _LEAVES:
                break
        else:
            text = template % args
            message, was_cut = fit_text(text, limit, secrets)
            if message is text and not secrets:
                return message, sanitizer.template(template), template, args, False
            return message, fit_text(template, limit, secrets)[0], message, (), was_cut
        text, send, send_args = _of_objects(template, tuple(sanitizer.argument(arg, secrets) for arg in args))
    except Exception as problem:  # noqa: BLE001 - a wrong template, or code of the arguments
        text, send, send_args = _misfit(template, problem, sanitizer.shown(list(args), secrets))
    message, was_cut = fit_text(text, limit, secrets)
    template = fit_text(template, limit, secrets)[0]
    if message is not text or secrets:
        send, send_args = message, ()
    return message, template, send, send_args, was_cut


def _of_objects(template: str, args: tuple[Any, ...]) -> tuple[str, str, tuple[Any, ...]]:
    if len(args) == 1 and args[0] and isinstance(args[0], Mapping):
        text = template % args[0]
        return text, text, ()
    once = tuple(arg if type(arg) in _LEAVES else _Once(arg) for arg in args)
    try:
        text = template % once
    except TypeError:
        text = template % args
        return text, text, ()
    if any(type(arg) is _Once and (arg.other or arg.text is None) for arg in once):
        return text, text, ()
    return text, template, tuple(arg.text if type(arg) is _Once else arg for arg in once)


def _misfit(template: str, problem: Exception, shown: Any) -> tuple[str, str, tuple[Any, ...]]:
    text = f"{template} <{type_name(type(problem))} while filling in the arguments {shown}>"
    return text, text, ()
