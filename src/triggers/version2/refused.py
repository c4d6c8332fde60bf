"""Why a session is not imported."""

from __future__ import annotations

from typing import Final

#: How many problems of a session are reported.
MOST: Final = 20

#: How many characters of a path, and of a message, are reported.
LONGEST: Final = 1_000


class RefusedError(Exception):
    """A session cannot be imported. Nothing of it was stored.

    Attributes:
        problems: each problem as (path, message). A path begins in the stored session; "" is the whole value.
    """

    def __init__(self, *problems: tuple[str, str]) -> None:
        super().__init__("a session of version 2 cannot be imported")
        self.problems: tuple[tuple[str, str], ...] = tuple(
            (path[:LONGEST], message[:LONGEST]) for path, message in problems[:MOST]
        )

    def inside(self, part: str) -> RefusedError:
        """Return the same error for the value that contains this one, under this part of its path."""
        return RefusedError(*((joined(part, path), message) for path, message in self.problems))


def joined(part: str, path: str) -> str:
    """Return the path that begins with the part. Either can be empty."""
    if not part:
        return path
    return part if not path else f"{part}{path}" if path.startswith("[") else f"{part}.{path}"
