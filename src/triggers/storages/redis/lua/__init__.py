"""Lua by name: each script is in a file that begins with a description of its keys and arguments."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib.resources import files
from typing import NamedTuple

#: The placeholder in scripts for the expression of the storage's time.
_CLOCK = "@clock@"

#: The placeholder in scripts for a function that reads a key that is not among the keys of the script. The
#: error of the server then contains the key.
_NAMED = "@named@"
_NAMED_FUNCTION = """local function named(command, key, ...)
  local found = redis.pcall(command, key, ...)
  if type(found) == 'table' and found.err then error({err = found.err .. ' ' .. key}) end
  return found
end"""

#: The server's clock, in microseconds since the Unix epoch. A Lua number represents this exactly.
SERVER_CLOCK = "(function() local t = redis.call('TIME') return t[1] * 1000000 + t[2] end)()"


class Script(NamedTuple):
    """The text of a script, and its SHA-1, by which a server finds it."""

    text: str
    sha: str


@cache
def script(name: str, clock: str = SERVER_CLOCK) -> Script:
    """The script `<name>.lua`, with a Lua expression for the time in microseconds."""
    text = (files(__name__) / f"{name}.lua").read_text("utf-8")
    text = text.replace(_CLOCK, clock).replace(_NAMED, _NAMED_FUNCTION)
    return Script(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())
