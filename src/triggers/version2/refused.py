"""Why a session is not imported."""

from __future__ import annotations

from typing import Final

#: How many problems of a session are reported.
MOST: Final = 20


class RefusedError(Exception):
    """A session cannot be imported. Nothing of it was stored.

    Attributes:
        problems: each problem as (path, message). A path begins in the stored session; "" is the whole value.
    """

    def __init__(self, *problems: tuple[str, str]) -> None:
        super().__init__("; ".join(f"{path or '$'}: {message}" for path, message in problems))
        self.problems = problems[:MOST]

    def inside(self, part: str) -> RefusedError:
        """Return the same error for the value that contains this one, under this part of its path."""
        return RefusedError(*((joined(part, path), message) for path, message in self.problems))


def joined(part: str, path: str) -> str:
    """Return the path that begins with the part."""
    return part if not path else f"{part}{path}" if path.startswith("[") else f"{part}.{path}"
