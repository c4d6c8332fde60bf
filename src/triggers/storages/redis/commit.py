"""One try of a commit: load, run the decision, and store its changes if nothing has changed meanwhile."""

from __future__ import annotations

import secrets
import time
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from triggers.core.exchange import Changes, Slice
from triggers.core.rules import NO_RULES
from triggers.exceptions import TriggersError
from triggers.storages.base import ConflictError, run_decision
from triggers.storages.redis import rows
from triggers.storages.redis.changes import ANY, CommitArguments
from triggers.storages.redis.server import Pauses
from triggers.storages.redis.slice import VERSION, Head, head_from, parts_of, slice_from
from triggers.storages.redis.store import Call

if TYPE_CHECKING:
    from triggers.core.exchange import Decision, Need
    from triggers.core.state import Firing
    from triggers.storages.redis.rows import SeenState
    from triggers.storages.redis.store import RedisStore

#: How many firings are read at a time for tasks that catch up.
HISTORY: Final = 1_000

#: How long others wait at most for a commit that has had too many conflicts, in milliseconds.
QUEUE_TTL: Final = 250

#: For how long a commit whose answer was lost is sent again, in seconds. commit.lua remembers its id for 900
#: seconds.
RESENT: Final = 600.0

#: How long to ask, after an interrupt, whether the commit was stored, in seconds.
OUTCOME_TIMEOUT: Final = 5.0

#: The first pause before a waiting commit checks whether it is next, and the longest wait, in seconds.
LOOK: Final = 0.001
LONGEST_WAIT: Final = 1.0


class QueueTicket:
    """A request of one commit that others wait for it.

    It only saves work; correctness comes from the check of versions. Without it, if many processes fire into
    one session, each firing that is stored has been decided many times in vain.

    Attributes:
        token: identifies the commit; b"" until it has asked.
    """

    __slots__ = ("token",)

    def __init__(self) -> None:
        self.token: bytes = b""

    def ask(self) -> None:
        """Ask the others to wait, from the next load of the head on."""
        self.token = self.token or secrets.token_hex(8).encode()


class CommitAttempt:
    """One try to run a decision and store its changes.

    Args:
        store: the connection to Redis.
        uid: the session.
        until: the monotonic time at which the commit times out.
        ticket: whether this commit has asked the others to wait.
        exclusive: whether no other decision about the session may be stored in the meantime.
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
        """Run the decision and store its changes.

        Raises:
            ConflictError: something has changed in the meantime. Nothing was stored; try again.
            NeedsSession: nothing was stored; try again exclusively.
            StorageError: the changes cannot be stored.
        """
        head = self._load_head_queued(decision.prefetch)
        changes = self._run(head, decision)
        self._store_changes(head, changes)
        return changes

    def preview(self, decision: Decision) -> Changes:
        """Run the decision without waiting for other commits, and store nothing.

        Raises:
            ConflictError: the session has changed between two steps of reading; try again.
        """
        return self._run(self._head_and(decision.prefetch), decision)

    def _run(self, head: Head, decision: Decision) -> Changes:
        load = partial(self._load, head, decision.prefetch)
        return run_decision(decision, head.session, load, exclusive=self._exclusive)

    def _load_head_queued(self, guess: Need | None) -> Head:
        """The head; if another commit has asked to wait, after waiting for it."""
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
        """The head, with what the decision will most likely need, in one round trip."""
        if guess is None:
            return load_head(self._store, self._uid, self._until)
        # A commit between the two loads changes the version, which the slice carries.
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
        if found == b"CHANGED" or (self._exclusive and found[VERSION] != b"%d" % head.version):
            raise ConflictError(self._uid)
        slice_ = slice_from(need, found, self._seen, self._keys.s)
        if need.history:
            slice_.history = self._history(head.session.firings, need.history)
        return slice_

    def _history(self, last: int, triggers: frozenset[str]) -> list[Firing]:
        """Every firing of these triggers, without payloads. Firings never change."""
        found: list[Firing] = []
        for first in range(1, last + 1, HISTORY):
            numbers = range(first, min(first + HISTORY, last + 1))
            texts = self._store.ask(self._until, "HMGET", self._keys.s, *(b"f%d" % n for n in numbers))
            read = (rows.firing_from(n, text, b"") for n, text in zip(numbers, texts, strict=True) if text)
            found += (firing for firing in read if firing.trigger in triggers)
        return found

    # -- what it changes --------------------------------------------------------------------------------

    def _store_changes(self, head: Head, changes: Changes) -> None:
        writing = CommitArguments(changes, self._keys.place, head, self._seen, exclusive=self._exclusive)
        if not writing:
            return
        rules = changes.session.rules
        stores_rules = changes.writes_head and (head.version is None or changes.new_rules)
        to_store = self._store.rules_to_store(self._partition, rules) if stores_rules else []
        parts = writing.parts(secrets.token_bytes(12), self._ticket.token, to_store)
        timed = (self._partition.timed,) if writing.changes_timers else ()
        said = self._send(head.session.now, timed, parts)
        if said == b"CHANGED":
            raise ConflictError(self._uid)
        if said.startswith(b"DAMAGED"):
            raise rows.damaged_timer(said.removeprefix(b"DAMAGED"), self._keys.s)
        if to_store:
            self._store.have_stored(self._partition, rules)

    def _send(self, now: int, timed: tuple[bytes, ...], parts: list[Any]) -> bytes:
        partition, keys = self._partition, self._keys
        places = (
            partition.world,
            partition.done(now),
            keys.s,
            keys.c,
            keys.x,
            keys.q,
            partition.out,
            partition.cool,
            partition.lease,
            partition.uids,
            partition.rules,
            partition.logged,
            partition.ended,
            *timed,
        )
        # The script remembers the id of this commit for longer than the commit is sent again.
        until = min(self._until, time.monotonic() + RESENT)
        said: bytes
        try:
            said = self._store.run("commit", places, parts, until)
        except TriggersError:
            raise
        except (
            BaseException
        ) as error:  # an interrupt: the server can have stored the commit, or still store it
            error.add_note(self._outcome(places, parts, until))
            raise
        return said

    def _outcome(self, places: tuple[bytes, ...], parts: list[Any], until: float) -> str:
        """Send an interrupted commit again, which stores it at most once; returns what happened to it."""
        try:
            said = self._store.run("commit", places, parts, min(until, time.monotonic() + OUTCOME_TIMEOUT))
        except Exception:  # noqa: BLE001 - the interrupt is what is raised
            return (
                f"It is unknown whether the commit to session {self._uid!r} was stored: look at the session "
                f"before you repeat it."
            )
        return f"The commit to session {self._uid!r} was {'not ' if said == b'CHANGED' else ''}stored."


def load_head(store: RedisStore, uid: str, until: float, asking: tuple[bytes, int] | None = None) -> Head:
    """Load the head of a session; with a token and a time in milliseconds, ask other commits to wait."""
    partition, keys = store.keys_of(uid)
    found = store.run("queue" if asking else "head", (partition.world, keys.s, keys.q), asking or (), until)
    return read_head(store, uid, found, until)


def read_head(store: RedisStore, uid: str, found: list[Any], until: float) -> Head:
    """Read the answer of head.lua or queue.lua, with the session's rules."""
    rules = NO_RULES if found[0] is None else store.rules(store.keys_of(uid)[0], found[1], until)
    return head_from(uid, found, rules)
