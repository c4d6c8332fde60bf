# ruff: noqa: S101 - as in tests: docstrings have one line, assert is used, numbers are expected values
"""Announcements: a storage that has them lets workers in other processes start at once."""

from __future__ import annotations

import threading
from contextlib import closing
from typing import TYPE_CHECKING

import pytest

from triggers.storages.announcements import announce, listen
from triggers.testing.conformance.fixtures import StorageFixtures
from triggers.testing.conformance.steps import Steps

if TYPE_CHECKING:
    from collections.abc import Iterator

    from triggers.storages.base import Listener
    from triggers.testing.conformance.sandbox import StorageSandbox

#: How long a test waits for an announcement before it fails, in seconds.
TIMEOUT = 60.0


class Announcements(StorageFixtures):
    """Tests of promise 14. They are skipped for storages without the methods `announce` and `listen`."""

    @pytest.fixture
    def woken(self) -> threading.Event:
        """The event that ends the waits of the listener."""
        return threading.Event()

    @pytest.fixture
    def listener(self, place: StorageSandbox, woken: threading.Event) -> Iterator[Listener]:
        """A listener of one handle that has heard everything that was announced so far."""
        storage = place.open()
        if not (hasattr(storage, "announce") and hasattr(storage, "listen")):
            pytest.skip("this storage does not announce work")
        with closing(listen(storage, woken)) as listener:
            while listener.wait(0.2):
                pass
            yield listener

    def test_a_listener_hears_what_another_handle_announces(
        self, place: StorageSandbox, listener: Listener, woken: threading.Event
    ) -> None:
        """Promise 14: an announcement after a commit ends the wait of a listener of another handle."""
        steps = Steps(place.open())
        steps.configure({"t_page": {"andEvery": "page", "run": "page"}})
        steps.fire("page")
        announce(steps.storage)
        assert listener.wait(TIMEOUT) or woken.is_set()

    def test_what_is_announced_between_two_waits_is_heard(
        self, place: StorageSandbox, listener: Listener, woken: threading.Event
    ) -> None:
        """Promise 14: an announcement is not lost because nobody waits at that moment; it is heard once."""
        announce(place.open())
        heard = listener.wait(TIMEOUT) or woken.is_set()
        woken.clear()
        while listener.wait(0.2):
            pass
        assert heard
        assert not woken.is_set()

    @pytest.mark.usefixtures("listener")
    def test_a_new_listener_may_have_missed_something(self, place: StorageSandbox) -> None:
        """Promise 14: what was announced before it was there is heard at once; after that, nothing is."""
        announce(place.open())
        with closing(listen(place.open(), threading.Event())) as late:
            assert late.wait(TIMEOUT)
            while late.wait(0.2):
                pass

    def test_a_listener_that_is_woken_does_not_wait(self, listener: Listener, woken: threading.Event) -> None:
        """Promise 14: the event ends a wait, also one that has begun."""
        threading.Timer(0.05, woken.set).start()
        listener.wait(TIMEOUT)
        assert woken.is_set()

    def test_nothing_is_heard_if_nothing_is_announced(
        self, listener: Listener, woken: threading.Event
    ) -> None:
        """Promise 14: a wait without an announcement ends with False."""
        assert not listener.wait(0.2)
        assert not woken.is_set()

    def test_announcing_without_a_listener_changes_nothing(self, place: StorageSandbox) -> None:
        """Promise 14: an announcement that nobody hears is not an error, nor is a second one."""
        storage = place.open()
        for _ in range(2):
            announce(storage)
        assert storage.reader.sessions() == []

    def test_a_closed_listener_can_be_closed_again(self, listener: Listener) -> None:
        """Promise 14: a second close does nothing."""
        listener.close()
        listener.close()
