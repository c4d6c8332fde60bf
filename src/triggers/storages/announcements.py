"""Announce work to the workers of other processes, and listen for such announcements.

An announcement is a hint. If it is lost, the next sweep finds the work. Storages that cannot announce
anything need none of this: their workers sweep at their interval.
"""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from triggers.storages.base import Listener, Storage

_log = logging.getLogger(__name__)

#: A process announces nothing for this time after an announcement, in seconds. So who hears one must look at
#: once, and again after this time.
SILENCE: Final = 0.02

#: How long an announcement may take, in seconds.
TIMEOUT: Final = 1.0

#: How long no announcement is tried after one has failed, in seconds.
ERROR_PAUSE: Final = 5.0

#: A listener checks this often whether it is woken, in seconds.
SLICE: Final = 0.05

#: The first and the longest pause before a lost connection is opened again, in seconds.
FIRST_PAUSE: Final = 0.5
LONGEST_PAUSE: Final = 30.0


def announce(storage: Storage) -> None:
    """Announce that work is due, or is due earlier than before, if the storage can do that."""
    act = getattr(storage, "announce", None)
    if act is not None:
        act()


def listen(storage: Storage, woken: threading.Event) -> Listener:
    """The listener of the storage; one that hears nothing if the storage has none."""
    begin = getattr(storage, "listen", None)
    listener: Listener = DeafListener(woken) if begin is None else begin(woken)
    return listener


class DeafListener:
    """A listener that hears nothing, and only waits.

    Args:
        woken: ends every wait.
        is_late: whether announcements set the event, so that earlier ones were missed. Then the first wait
            ends at once.
    """

    def __init__(self, woken: threading.Event, *, is_late: bool = False) -> None:
        self._woken = woken
        self._is_late = is_late

    def wait(self, timeout: float) -> bool:
        """Wait until the event is set, up to that time in seconds; return whether something was missed."""
        is_late, self._is_late = self._is_late, False
        if not is_late:
            self._woken.wait(timeout)
        return is_late

    def close(self) -> None:
        """Do nothing: it has no connection."""


class Announcer:
    """Sends announcements, at most one in :data:`SILENCE` seconds of a process. Any thread may use it.

    Args:
        where: where they are sent, for messages.
        send: sends one until that monotonic time, or raises.
    """

    def __init__(self, where: str, send: Callable[[float], object]) -> None:
        self._where = where
        self._send = send
        self._silent_until = 0.0
        self._fails = False

    def announce(self) -> None:
        """Send an announcement. If that fails, it is logged, and none is sent for a while."""
        now = time.monotonic()
        if now < self._silent_until:
            return
        self._silent_until = now + SILENCE
        try:
            self._send(now + TIMEOUT)
        except Exception as error:  # noqa: BLE001 - whatever the error is, what is announced is stored
            self._silent_until = now + ERROR_PAUSE
            if not self._fails:
                what = "%s: work could not be announced, so workers find it in their next sweep: %s"
                _log.warning(what, self._where, error)
            self._fails = True
        else:
            self._fails = False


class Subscription(Protocol):
    """A connection that receives announcements."""

    def heard(self, seconds: float) -> bool:
        """Wait up to that time; return whether an announcement has arrived.

        Raises:
            Exception: the connection is lost.
        """
        ...

    def close(self) -> None:
        """Close the connection. A second call does nothing."""
        ...


class ConnectedListener:
    """A listener with a connection of its own, which is opened at the first wait.

    A lost connection is opened again, after pauses that grow. Only the thread that waits refers to this
    object, so a forked child, which does not have that thread, never closes the connection of its parent.

    Args:
        where: where it listens, for messages.
        subscribe: opens the connection; returns None if announcements cannot be received there.
        woken: ends every wait.
    """

    def __init__(
        self, where: str, subscribe: Callable[[], Subscription | None], woken: threading.Event
    ) -> None:
        self._where = where
        self._subscribe = subscribe
        self._woken = woken
        self._subscription: Subscription | None = None
        self._retry_at = 0.0
        self._pause = 0.0

    def wait(self, timeout: float) -> bool:
        """Wait for an announcement, up to that time in seconds; returns whether there may be one."""
        until = time.monotonic() + timeout
        while True:
            if self._hears(min(SLICE, max(until - time.monotonic(), 0.0))):
                return True
            if self._woken.is_set() or time.monotonic() >= until:
                return False

    def close(self) -> None:
        """Close the connection. A later wait opens another one."""
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            subscription.close()

    def _hears(self, seconds: float) -> bool:
        if time.monotonic() < self._retry_at:
            self._woken.wait(seconds)
            return False
        try:
            if self._subscription is None:
                return self._connect()
            return self._subscription.heard(seconds)
        except Exception as error:  # noqa: BLE001 - whatever the error is, the sweep continues
            self._rest(error)
            return False

    def _connect(self) -> bool:
        """Open the connection. What was announced before that was not heard, so it returns True."""
        self._subscription = self._subscribe()
        if self._subscription is None:
            self._retry_at = float("inf")
            return False
        if self._pause:
            _log.info("%s: announcements of work are received again", self._where)
        self._pause = 0.0
        return True

    def _rest(self, error: Exception) -> None:
        if not self._pause:
            what = (
                "%s: announcements of work cannot be received; until they can, this process only sweeps: %s"
            )
            _log.warning(what, self._where, error)
        self._pause = min(2 * self._pause, LONGEST_PAUSE) or FIRST_PAUSE
        self._retry_at = time.monotonic() + self._pause
        self.close()
