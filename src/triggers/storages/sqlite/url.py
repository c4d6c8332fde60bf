"""The URL of a SQLite file, the drivers for it, and the versions of SQLite that are safe."""

from __future__ import annotations

import importlib
import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote

from triggers.core.similar_names import did_you_mean
from triggers.exceptions import StorageError
from triggers.redaction import shown_scheme

if TYPE_CHECKING:
    from types import ModuleType

#: The default for how long a writer waits for others, in seconds.
BUSY_TIMEOUT: Final = 30.0

#: The longest such timeout in seconds; SQLite counts milliseconds in 32 bits.
LONGEST_TIMEOUT: Final = 1_000_000.0

_OPTIONS: Final = {
    "driver": ("auto", "pysqlite3", "sqlite3"),
    "synchronous": ("full", "normal"),
    "shared": ("no", "yes"),
    "mode": ("rw", "ro"),
}

#: A location with a user, a password or a token, with any number of slashes.
_CREDENTIALS: Final = re.compile(r"sqlite:/*(?:[^/]*@|[^@]*:[^@]*@)")


def is_safe(version: tuple[int, int, int]) -> bool:
    """Whether this version of SQLite is free of the defect that can corrupt a WAL file.

    From 3.7.0 to 3.51.2, two connections that write and checkpoint at the same instant can damage the file.
    This is fixed in 3.51.3, 3.50.7 and 3.44.6 (https://sqlite.org/wal.html, "the WAL-reset bug").
    """
    return version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51, 0) or (3, 44, 6) <= version < (3, 45, 0)


def load_driver(name: str) -> ModuleType:
    """Import the SQLite module of that name; `auto` means pysqlite3 if it is installed, else sqlite3.

    Raises:
        StorageError: the module is not installed.
    """
    names = ("pysqlite3", "sqlite3") if name == "auto" else (name,)
    for candidate in names:
        try:
            return importlib.import_module(candidate)
        except ImportError:
            continue
    message = f"the SQLite module {name!r} is not installed: pip install {name}, or use driver=auto"
    raise StorageError(message)


@dataclass(frozen=True, slots=True)
class SqliteUrl:
    """The parts of a URL: the path of the file, and the options."""

    path: str
    driver: str = "auto"
    synchronous: str = "full"
    busy_timeout: float = BUSY_TIMEOUT
    shared: str = "no"
    mode: str = "rw"

    @classmethod
    def parse(cls, url: str) -> SqliteUrl:
        """Read ``sqlite:///file.db?option=value``.

        Raises:
            StorageError: the URL has no path, or an unknown option or value. The message shows the URL only
                if it has no password, which an SQLite URL never has.
        """
        location, _, query = url.partition("?")
        path = unquote(location.removeprefix("sqlite:///"))
        if _CREDENTIALS.match(location):
            message = (
                f"{shown_scheme(url)!r} does not name a file: an SQLite URL has no user, password or host; "
                f"write sqlite:///file.db, and %40 for an @ in the path"
            )
            raise StorageError(message)
        if not location.startswith("sqlite:///") or not path or path == ":memory:":
            message = (
                f"{shown_scheme(url)!r} does not name a file: write sqlite:///file.db or "
                f"sqlite:////absolute/file.db, or use memory://"
            )
            raise StorageError(message)
        if not _is_path(path):
            message = f"{shown_scheme(url)!r} does not name a file: no file system has such a path"
            raise StorageError(message)
        options: dict[str, Any] = dict(parse_qsl(query, keep_blank_values=True))
        for key, value in options.items():
            if key == "busy_timeout" and _seconds(value) is not None:
                options[key] = _seconds(value)
            elif value not in _OPTIONS.get(key, ()):
                raise StorageError(f"{shown_scheme(location)!r} has {_problem(key)}")
        return cls(path, **options)


def _problem(given: str) -> str:
    """What is wrong with an option. An unknown one is not named, because it can be a part of a password."""
    options = {**_OPTIONS, "busy_timeout": ("seconds",)}
    known = "; ".join(f"{name}={'|'.join(values)}" for name, values in options.items())
    what = f"an invalid value for {given}" if given in options else "an unknown option"
    hint = "" if given in options else did_you_mean(given, options)
    return f"{what}; the options are: {known}{hint}"


def _is_path(text: str) -> bool:
    try:
        return b"\0" not in os.fsencode(text)
    except UnicodeEncodeError:
        return False


def _seconds(text: str) -> float | None:
    try:
        seconds = float(text)
    except ValueError:
        return None
    return seconds if 0 <= seconds <= LONGEST_TIMEOUT else None
