"""What every part of the storage stands on: the server, its world, scripts run in it, rule sets read once."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from triggers.exceptions import StorageCorruptError
from triggers.storages.redis.keyspace import check_server, keyspace_lost, open_keyspace
from triggers.storages.redis.lua import script
from triggers.storages.redis.nodes import Command, call
from triggers.storages.redis.server import RedisServer
from triggers.storages.rule_cache import RuleCache

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from triggers.core.rules import RuleSet
    from triggers.storages.redis.keys import PartitionKeys, SessionKeys
    from triggers.storages.redis.nodes import Part
    from triggers.storages.redis.url import RedisUrl

#: Of so many rule sets it is known which partition has them; one more empties that set.
MAX_KNOWN: Final = 64_000

#: What scripts answer where the world is not the one that was opened.
GONE: Final = b"GONE"


class Call(NamedTuple):
    """A script to run: its name, its keys, of which the first is the partition's world, and its arguments."""

    name: str
    keys: Sequence[bytes]
    parts: Iterable[Part] = ()


class RedisStore:
    """One world in one Redis.

    Args:
        url: where it is, and how it is used.
        clock: the Lua expression that gives the time.

    Raises:
        StorageError: the server does not answer, may forget, or has something else there.
    """

    def __init__(self, url: RedisUrl, clock: str) -> None:
        self.url = url
        self.server = RedisServer(url)
        self._clock = clock
        self._rules: RuleCache[bytes] = RuleCache()
        self._stored: set[tuple[bytes, str]] = set()
        try:
            check_server(self.server)
            self.world, self.token = open_keyspace(self.server)
        except BaseException:
            self.server.close()
            raise

    def until(self, timeout: float | None = None) -> float:
        """The monotonic time at which an operation gives up that begins now."""
        return time.monotonic() + (self.url.timeout if timeout is None else timeout)

    def keys_of(self, uid: str) -> tuple[PartitionKeys, SessionKeys]:
        """The keys of a session, and of its partition."""
        return self.world.keys_of(uid)

    def run(self, name: str, keys: Sequence[bytes], parts: Iterable[Part], until: float) -> Any:
        """The answer of one script, whose first argument says which world is meant.

        Raises:
            StorageCorruptError: the world is not there any more; nothing was written.
        """
        return self.run_all([Call(name, keys, parts)], until)[0]

    def run_all(self, calls: Sequence[Call], until: float, *, partly: bool = False) -> list[Any]:
        """The answers of several scripts, with one round trip to each node that has to do with them.

        With `partly` those of a node that is away are None, if others answer.
        """
        commands = [call(script(one.name, self._clock), one.keys, (self.token, *one.parts)) for one in calls]
        answers = self.server.ask_all(commands, until, partly=partly)
        if GONE in answers:
            raise keyspace_lost(self.url)
        return answers

    def ask(self, until: float, *words: Part) -> Any:
        """The answer to one command whose second word is its key."""
        return self.server.ask(Command(_key(words), words), until)

    def rules(self, world: PartitionKeys, digest: bytes, until: float) -> RuleSet:
        """The rule set of that digest, as a session of that partition refers to it."""

        def read(digest: bytes) -> str:
            body: bytes | None = self.ask(until, "HGET", world.rules, digest)
            if body is None:
                message = f"{self.url.shown} has lost the rules {digest.decode()}: restore a backup"
                raise StorageCorruptError(message)
            return body.decode()

        return self._rules.one(digest, read)

    def rules_to_store(self, world: PartitionKeys, rules: RuleSet) -> list[Part]:
        """Digest and body, unless this process knows that the partition has them."""
        return [] if (world.tag, rules.digest) in self._stored else [rules.digest, rules.body]

    def have_stored(self, world: PartitionKeys, rules: RuleSet) -> None:
        """The partition has this rule set, for ever."""
        if len(self._stored) >= MAX_KNOWN:
            self._stored.clear()
        self._stored.add((world.tag, rules.digest))


def _key(words: tuple[Part, ...]) -> bytes:
    key = words[1]
    assert isinstance(key, bytes)  # noqa: S101 - the callers are all here, and their keys are bytes
    return key
