"""The pause between two sweeps. Meanwhile, a worker dispatches what other processes announce."""

from __future__ import annotations

import math
import time
from typing import TYPE_CHECKING

from triggers.exceptions import StorageError
from triggers.storages.announcements import SILENCE, listen

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from triggers.health import Problems
    from triggers.storages.base import Listener, Storage

#: The shortest pause between two dispatches, in seconds. For this time after an announcement,
#: a process does not announce what it releases.
SPACING = SILENCE

#: The place of a problem with announcements.
LISTENER = "listening for announced work"


class SweepPause:
    """Waits between two sweeps in the thread that sweeps.

    After an announcement, due instances are dispatched at once, and repeatedly while announcements arrive.
    After the last one, the pause ends, so that the next sweep finds instances that were not announced.

    Args:
        storage: the storage.
        dispatch: dispatches due instances.
        has_room: returns whether this process would run another instance at once. If not, others get it.
        woken: ends the pause; cleared at its end.
        problems: where a listener that does not work is reported.
    """

    def __init__(
        self,
        storage: Storage,
        dispatch: Callable[[], object],
        has_room: Callable[[], bool],
        woken: threading.Event,
        problems: Problems,
    ) -> None:
        self._storage = storage
        self._dispatch = dispatch
        self._has_room = has_room
        self._woken = woken
        self._problems = problems
        self._listener: Listener | None = None
        self._heard_at = self._ended_at = -math.inf

    def last(self, seconds: float) -> None:
        """Wait for this time, in seconds, or until there may be something that only a sweep finds."""
        now = time.monotonic()
        silent_until = self._heard_at + SPACING
        if silent_until > self._ended_at:  # the sweep could not see what was released later in that time
            seconds = min(seconds, max(silent_until - now, 0.0))
        until = now + seconds
        try:
            self._listener = self._listener or listen(self._storage, self._woken)
            if self._hears(seconds, self._listener):
                self._dispatch_until(until, self._listener)
        except StorageError:  # the next sweep reports it, if it is not over by then
            self._woken.wait(max(until - time.monotonic(), 0.0))
        except BaseException as error:  # noqa: BLE001 - whatever the error is, the sweep must continue
            self._problems.report("plugin", LISTENER, error, "until it works, this process only sweeps")
            self._woken.wait(max(until - time.monotonic(), 0.0))
        else:
            self._problems.resolve(LISTENER)
        self._woken.clear()
        self._ended_at = time.monotonic()

    def _hears(self, seconds: float, listener: Listener) -> bool:
        """Wait for an announcement; return whether there was one."""
        heard = listener.wait(seconds)
        if heard:
            self._heard_at = time.monotonic()
        return heard

    def _dispatch_until(self, until: float, listener: Listener) -> None:
        """Dispatch as long as work is announced, until that monotonic time."""
        waits = True
        while time.monotonic() < until and not self._woken.is_set():
            if waits and self._has_room():
                self._dispatch()
                waits = False
            self._woken.wait(SPACING)
            if self._hears(0, listener):
                waits = True
            elif not waits:
                return

    def close(self) -> None:
        """Close the listener and its connection."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.close()
