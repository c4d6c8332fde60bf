"""Which SQLite file, through which SQLite module: URLs, drivers, and which versions can be trusted."""

from __future__ import annotations

import importlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qsl, unquote

from triggers.exceptions import StorageError

if TYPE_CHECKING:
    from types import ModuleType

#: How long a writer waits for others, in seconds, unless the URL says otherwise.
BUSY_TIMEOUT: Final = 30.0

#: The longest that it may be told to wait, in seconds; SQLite counts milliseconds in 32 bits.
LONGEST_TIMEOUT: Final = 1_000_000.0

_OPTIONS: Final = {
    "driver": ("auto", "pysqlite3", "sqlite3"),
    "synchronous": ("full", "normal"),
    "shared": ("no", "yes"),
}


def is_safe(version: tuple[int, int, int]) -> bool:
    """Whether this version of SQLite is free of the defect that can corrupt a WAL file.

    Two connections that write and checkpoint at the same instant could damage the file in 3.7.0 to 3.51.2;
    mended in 3.51.3, 3.50.7 and 3.44.6 (https://sqlite.org/wal.html, "the WAL-reset bug").
    """
    return version >= (3, 51, 3) or (3, 50, 7) <= version < (3, 51, 0) or (3, 44, 6) <= version < (3, 45, 0)


def load_driver(name: str) -> ModuleType:
    """The SQLite module of that name; `auto` takes pysqlite3 where it is installed.

    Raises:
        StorageError: it is not installed.
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
    """The parts of a URL: where the file is, and how it is to be used."""

    path: str
    driver: str = "auto"
    synchronous: str = "full"
    busy_timeout: float = BUSY_TIMEOUT
    shared: str = "no"

    @classmethod
    def parse(cls, url: str) -> SqliteUrl:
        """Read ``sqlite:///file.db?option=value``.

        Raises:
            StorageError: it has no path, or an option that is not known.
        """
        location, _, query = url.partition("?")
        path = unquote(location.removeprefix("sqlite:///"))
        if not location.startswith("sqlite:///") or not path or path == ":memory:":
            message = (
                f"{url!r} names no file: write sqlite:///file.db or sqlite:////absolute/file.db, "
                f"or use memory://"
            )
            raise StorageError(message)
        if not _is_path(path):
            message = f"{url!r} names no file: no file system has such a path"
            raise StorageError(message)
        options: dict[str, Any] = dict(parse_qsl(query, keep_blank_values=True))
        for key, value in options.items():
            if key == "busy_timeout" and _seconds(value) is not None:
                options[key] = _seconds(value)
            elif value not in _OPTIONS.get(key, ()):
                known = "; ".join(f"{name}={'|'.join(values)}" for name, values in _OPTIONS.items())
                message = f"{url!r}: {key}={value} is not an option; known are: {known}; busy_timeout=seconds"
                raise StorageError(message)
        return cls(path, **options)


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
