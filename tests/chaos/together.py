"""Several processes that begin something at the same moment, and say what came of it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.crash.processes import begin, end

if TYPE_CHECKING:
    from collections.abc import Sequence


#: What an act calls once it is prepared; it returns when all the others are, too.
Ready = Callable[[], None]


def together(acts: Sequence[Callable[[Ready], Any]]) -> list[Any]:
    """Do each in a process of its own; what they return, which is JSON, in their order."""
    with tempfile.TemporaryDirectory() as folder:
        notes = [Path(folder) / str(place) for place in range(len(acts))]
        ready, gate = os.pipe(), os.pipe()
        children = [begin(_member(act, note, ready, gate)) for act, note in zip(acts, notes, strict=True)]
        os.close(ready[1])
        for _ in acts:
            assert os.read(ready[0], 1), "somebody has ended before all were ready"
        for side in (ready[0], *gate):
            os.close(side)
        assert [end(child) for child in children] == [0] * len(acts)
        return [json.loads(note.read_text("utf-8")) for note in notes]


def _member(
    act: Callable[[Ready], Any], note: Path, ready: tuple[int, int], gate: tuple[int, int]
) -> Callable[[], None]:
    def wait() -> None:
        os.close(gate[1])
        os.write(ready[1], b"1")
        os.read(gate[0], 1)  # ends when nobody holds the other end any more

    return lambda: _write(note, act(wait))


def _write(note: Path, found: Any) -> None:
    note.write_text(json.dumps(found), "utf-8")
