"""One try at a decision: load what it asks for, let it decide, store it if all still is as it was."""

from __future__ import annotations

import secrets
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from triggers.core.exchange import Changes, Slice
from triggers.core.rules import NO_RULES
from triggers.storages.base import ConflictError, run_decision
from triggers.storages.redis import rows
from triggers.storages.redis.changes import ANY, CommitArguments
from triggers.storages.redis.server import Pauses
from triggers.storages.redis.slice import Head, head_from, parts_of, slice_from
from triggers.storages.redis.store import Call

if TYPE_CHECKING:
    from triggers.core.exchange import Decision, Need
    from triggers.core.state import Firing
    from triggers.storages.redis.rows import SeenState
    from triggers.storages.redis.store import RedisStore

#: So many firings are read at a time for tasks that catch up.
HISTORY: Final = 1_000

#: Whoever has met conflicts too often asks the others to wait, for so many milliseconds at most.
QUEUE_TTL: Final = 250

#: How long a commit whose answer was lost is sent again, in seconds; commit.lua keeps its note for 900.
RESENT: Final = 600.0

#: The first pause before the others look whether it is their turn, and the longest wait, in seconds.
LOOK: Final = 0.001
LONGEST_WAIT: Final = 1.0


class QueueTicket:
    """One commit's wish that others wait: politeness only, what makes it right is the check of versions.

    Without it a session into which many processes fire is decided about many times for each firing that is
    stored.

    Attributes:
        token: names the commit, b"" as long as it has not asked.
    """

    __slots__ = ("token",)

    def __init__(self) -> None:
        self.token = b""

    def ask(self) -> None:
        """Ask from now on."""
        self.token = self.token or secrets.token_hex(8).encode()


class CommitAttempt:
    """One try.

    Args:
        store: where.
        uid: the session.
        until: the monotonic time at which it gives up.
        turn: whether this commit has asked the others to wait.
        exclusive: whether no other decision about the session may be made meanwhile.
    """

    def __init__(
        self, store: RedisStore, uid: str, until: float, ticket: QueueTicket, *, exclusive: bool
    ) -> None:
        self._store = store
        self._uid = uid
        self._until = until
        self._ticket = ticket
        self._exclusive = exclusive
        self._partition, self._keys = store.keys_of(uid)
        self._seen: dict[tuple[str, int], SeenState] = {}
        self._guessed: Any = None

    def make(self, decision: Decision) -> Changes:
        """Decide and store.

        Raises:
            ConflictError: something has changed meanwhile: nothing was stored, and it is to be tried again.
            NeedsSession: nothing was stored, and it is to be tried again exclusively.
            StorageError: it cannot be stored.
        """
        guess = decision.prefetch
        head = self._load_head_queued(guess)
        metadata = head.session.metadata
        load = partial(self._load, head, guess)
        changes = run_decision(decision, head.session, load, exclusive=self._exclusive)
        self._store_changes(head, changes, metadata)
        return changes

    def _load_head_queued(self, guess: Need | None) -> Head:
        """The head; where somebody has asked for a moment alone, after a wait for one's own turn."""
        if not self._ticket.token:
            head = self._head_and(guess)
            if head.token is None or not self._exclusive:
                return head
            self._guessed = None
            self._ticket.ask()
        pauses = Pauses(min(self._until, time.monotonic() + LONGEST_WAIT), LOOK, 8 * LOOK)
        while True:
            head = load_head(self._store, self._uid, self._until, (self._ticket.token, QUEUE_TTL))
            if head.token == self._ticket.token or not pauses.wait():
                return head

    def _head_and(self, guess: Need | None) -> Head:
        """The head, and in the same round trip what will most likely be needed."""
        if guess is None:
            return load_head(self._store, self._uid, self._until)
        # What comes between the two changes the version, so a commit that needs it the same is refused.
        head, self._guessed = self._store.run_all(
            [self._head_call(), self._slice_call(guess, ANY)], self._until
        )
        return read_head(self._store, self._uid, head, self._until)

    def _head_call(self) -> Call:
        return Call("head", (self._partition.world, self._keys.s, self._keys.q), ())

    def _slice_call(self, need: Need, version: int | bytes) -> Call:
        keys = (self._partition.world, self._keys.s, self._keys.c, self._keys.x)
        return Call("slice", keys, (version, *parts_of(need)))

    # -- what the decision sees -------------------------------------------------------------------------

    def _load(self, head: Head, guess: Need | None, need: Need) -> Slice:
        if head.version is None:
            return Slice()
        found, self._guessed = self._guessed, None
        if found is None or need != guess:
            version = head.version if self._exclusive else ANY
            (found,) = self._store.run_all([self._slice_call(need, version)], self._until)
        if found == b"CHANGED":
            raise ConflictError(self._uid)
        slice_ = slice_from(need, found, self._seen)
        if need.history:
            slice_.history = self._history(head.session.firings, need.history)
        return slice_

    def _history(self, last: int, triggers: frozenset[str]) -> list[Firing]:
        """Every firing of these triggers, without the payloads; firings never change."""
        found: list[Firing] = []
        for first in range(1, last + 1, HISTORY):
            numbers = range(first, min(first + HISTORY, last + 1))
            texts = self._store.ask(self._until, "HMGET", self._keys.s, *(b"f%d" % n for n in numbers))
            read = (rows.firing_from(n, text, b"") for n, text in zip(numbers, texts, strict=True) if text)
            found += (firing for firing in read if firing.trigger in triggers)
        return found

    # -- what it changes --------------------------------------------------------------------------------

    def _store_changes(self, head: Head, changes: Changes, metadata: str) -> None:
        known = (self._keys.place, head.version, head.made, metadata, self._seen)
        writing = CommitArguments(changes, *known, exclusive=self._exclusive)
        if not writing:
            return
        rules = changes.session.rules
        stores_rules = changes.writes_head and (head.version is None or changes.new_rules)
        to_store = self._store.rules_to_store(self._partition, rules) if stores_rules else []
        parts = writing.parts(secrets.token_bytes(12), self._ticket.token, to_store)
        said = self._send(head.session.now, parts)
        if said == b"CHANGED":
            raise ConflictError(self._uid)
        if to_store:
            self._store.have_stored(self._partition, rules)

    def _send(self, now: int, parts: list[Any]) -> bytes:
        world, keys = self._partition, self._keys
        places = (
            world.world,
            world.done(now),
            keys.s,
            keys.c,
            keys.x,
            keys.q,
            world.out,
            world.cool,
            world.lease,
            world.uids,
            world.rules,
            world.logged,
            world.ended,
        )
        # The note of this commit is kept for longer than it is sent again.
        until = min(self._until, time.monotonic() + RESENT)
        said: bytes = self._store.run("commit", places, parts, until)
        return said


def load_head(store: RedisStore, uid: str, until: float, asking: tuple[bytes, int] | None = None) -> Head:
    """The head of a session, if there is one; with a token and milliseconds, ask the others to wait."""
    partition, keys = store.keys_of(uid)
    found = store.run("queue" if asking else "head", (partition.world, keys.s, keys.q), asking or (), until)
    return read_head(store, uid, found, until)


def read_head(store: RedisStore, uid: str, found: list[Any], until: float) -> Head:
    """The head that the script found."""
    rules = NO_RULES if found[0] is None else store.rules(store.keys_of(uid)[0], found[1], until)
    return head_from(uid, found, rules)
