"""Exceptions that raise whatever is asked of them."""

from __future__ import annotations

import traceback


def refuse(*_args, **_more):
    message = "hostile"
    raise RuntimeError(message)


class Kind(type):
    """A metaclass that answers nothing about its classes."""

    def __getattribute__(cls, name):
        refuse()

    __hash__ = type.__hash__
    __eq__ = refuse


class Unhashable(type):
    """A metaclass whose classes cannot be looked up."""

    __hash__ = refuse
    __eq__ = refuse


class ByKindError(Exception, metaclass=Kind):
    pass


class ByHashError(Exception, metaclass=Unhashable):
    pass


class ByAttributesError(Exception):
    """Answers no question about its attributes, `__class__` among them."""

    def __getattribute__(self, name):
        refuse()


class ByClassError(Exception):
    """Says of its class what is not so."""

    @property
    def __class__(self):
        refuse()


class ByTextError(Exception):
    """Has no text, no truth and no length, equals nothing, and cannot be looked up."""

    __str__ = __repr__ = __bool__ = __len__ = __eq__ = __hash__ = __format__ = refuse


class ByPartsError(Exception):
    """Hides what stands behind it."""

    __traceback__ = __cause__ = __context__ = __notes__ = args = property(refuse)


class ByStateError(Exception):
    """Lets nobody look at its state, or change it."""

    __dict__ = property(refuse)
    __setattr__ = __reduce_ex__ = __setstate__ = refuse


#: By name: pytest would ask the classes themselves.
HOSTILE = {
    "ByKindError": ByKindError,
    "ByHashError": ByHashError,
    "ByAttributesError": ByAttributesError,
    "ByClassError": ByClassError,
    "ByTextError": ByTextError,
    "ByPartsError": ByPartsError,
    "ByStateError": ByStateError,
}


#: Those that the standard library's logging can print.
PRINTABLE = ("ByHashError", "ByStateError")


def undisturbed(call):
    """What the call returns; where it raises, the test fails, without the exception, which pytest cannot show."""
    try:
        return call()
    except BaseException as error:  # noqa: BLE001 - so that the test fails in words
        where = "".join(traceback.format_tb(error.__traceback__))
    raise AssertionError(f"{where}raised in the place of what should have happened")
