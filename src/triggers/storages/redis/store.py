"""What all parts of the storage use: the server, the keyspace, its scripts, and the cached rule sets."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from triggers.exceptions import StorageCorruptError
from triggers.health import Problems
from triggers.storages.redis.keyspace import check_server, keyspace_lost, open_keyspace
from triggers.storages.redis.lua import script
from triggers.storages.redis.nodes import Command, call
from triggers.storages.redis.server import RedisServer
from triggers.storages.rule_cache import RuleCache

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from triggers.core.rules import RuleSet
    from triggers.storages.redis.keys import Keyspace, PartitionKeys, SessionKeys
    from triggers.storages.redis.nodes import Part
    from triggers.storages.redis.url import RedisUrl

#: For this many pairs of partition and rule set, it is remembered that they are stored; one more empties the
#: set.
MAX_KNOWN: Final = 64_000

#: The answer of a script if the keyspace is not the one that was opened.
GONE: Final = b"GONE"


class Call(NamedTuple):
    """A script to run: its name, its keys (the first is the partition's `world`), and its arguments."""

    name: str
    keys: Sequence[bytes]
    parts: Iterable[Part] = ()


class RedisStore:
    """The keyspace of one storage in one Redis.

    Args:
        url: the server, and the options.
        clock: the Lua expression for the time.

    Raises:
        StorageError: the server does not answer, can lose acknowledged data, or contains other data under the
            prefix.
    """

    def __init__(self, url: RedisUrl, clock: str) -> None:
        self.url = url
        self.server: RedisServer = RedisServer(url)
        self._clock = clock
        self.problems: Problems = Problems()
        self._rules: RuleCache[bytes] = RuleCache(self.problems)
        self._stored: set[tuple[bytes, str]] = set()
        try:
            check_server(self.server)
            self.keyspace: Keyspace
            self.token: bytes
            self.keyspace, self.token = open_keyspace(self.server)
        except BaseException:
            self.server.close()
            raise

    def until(self, timeout: float | None = None) -> float:
        """The monotonic time at which an operation that begins now times out."""
        return time.monotonic() + (self.url.timeout if timeout is None else timeout)

    def keys_of(self, uid: str) -> tuple[PartitionKeys, SessionKeys]:
        """The keys of a session's partition, and those of the session."""
        return self.keyspace.keys_of(uid)

    def run(self, name: str, keys: Sequence[bytes], parts: Iterable[Part], until: float) -> Any:
        """Run one script and return its answer.

        Raises:
            StorageCorruptError: the keyspace no longer exists; nothing was written.
        """
        return self.run_all([Call(name, keys, parts)], until)[0]

    def run_all(
        self, calls: Sequence[Call], until: float, *, partly: bool = False, damaged: bool = False
    ) -> list[Any]:
        """Run several scripts, with one round trip to each node that is involved, and return their answers.

        With `partly`, the answers of an unavailable node are None, if other nodes answer. With `damaged`, the
        answer of a script that found a key of a wrong type is a `WrongTypeError`, which is raised otherwise.
        """
        commands = [call(script(one.name, self._clock), one.keys, (self.token, *one.parts)) for one in calls]
        answers = self.server.ask_all(commands, until, partly=partly, damaged=damaged)
        if GONE in answers:
            raise keyspace_lost(self.server)
        return answers

    def ask(self, until: float, *words: Part) -> Any:
        """Run one command, whose second word is a key of a partition, and return the answer."""
        return self.ask_each([words], until)[0]

    def ask_each(self, queries: Sequence[tuple[Part, ...]], until: float) -> list[Any]:
        """Run several of these commands, with one round trip to each node, and return their answers.

        Raises:
            SchemaVersionError: a newer version of Triggers has migrated the keyspace.
            StorageCorruptError: the keyspace no longer exists.
        """
        commands = [Command(_key(words), words) for words in queries]
        checks = [Command(key, ("GET", key)) for key in {_world_of(command.key) for command in commands}]
        # The checks come last: a keyspace that is unchanged after a query was unchanged during the query.
        answers = self.server.ask_all([*commands, *checks], until)
        if any(token != self.token for token in answers[len(commands) :]):
            raise keyspace_lost(self.server)
        return answers[: len(commands)]

    def rules(self, partition: PartitionKeys, digest: bytes, until: float) -> RuleSet:
        """The rule set with this digest, which a session of this partition uses."""

        def read(digest: bytes) -> str:
            body: bytes | None = self.ask(until, "HGET", partition.rules, digest)
            if body is None:
                message = f"{self.url.shown} has lost the rule set {digest.decode()}: restore a backup"
                raise StorageCorruptError(message)
            return body.decode()

        return self._rules.one(digest, read)

    def rules_to_store(self, partition: PartitionKeys, rules: RuleSet) -> list[Part]:
        """Digest and text of a rule set; nothing if this process knows that the partition has stored it."""
        return [] if (partition.tag, rules.digest) in self._stored else [rules.digest, rules.body]

    def have_stored(self, partition: PartitionKeys, rules: RuleSet) -> None:
        """Remember that the partition has stored this rule set, which is never deleted."""
        if len(self._stored) >= MAX_KNOWN:
            self._stored.clear()
        self._stored.add((partition.tag, rules.digest))


def _world_of(key: bytes) -> bytes:
    """The key `world` of the partition that this key belongs to."""
    return b"%b}:world" % key.partition(b"}")[0]


def _key(words: tuple[Part, ...]) -> bytes:
    key = words[1]
    assert isinstance(key, bytes)  # noqa: S101 - the callers are all here, and their keys are bytes
    return key
