"""Lua by name: each script stands in a file that opens with the map of its keys and arguments."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import NamedTuple

#: Where a script says so, the expression that gives the storage's time is put in.
_CLOCK = "@clock@"

#: The server's own clock, in microseconds since the Unix epoch; a Lua number keeps all digits of that.
SERVER_CLOCK = "(function() local t = redis.call('TIME') return t[1] * 1000000 + t[2] end)()"


class Script(NamedTuple):
    """A script and the name under which a server keeps it."""

    text: str
    sha: str


@cache
def script(name: str, clock: str = SERVER_CLOCK) -> Script:
    """The script `<name>.lua`, going by the clock that the Lua expression reads, in microseconds."""
    text = (files(__name__) / f"{name}.lua").read_text("utf-8").replace(_CLOCK, clock)
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
