"""The layout of the data in Redis: partitions, keys, and members of sorted sets.

Every session belongs to one of a fixed number of partitions. All keys of a partition contain its tag in
braces, so they share one slot of a cluster, and a session and the due instances of its partition change
together. In keys, a UID is written as base64 of its UTF-8 bytes. In hashes and sorted sets, names are written
as they are.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from typing import Final, NamedTuple

#: Digits of an instance's number, so that the order of bytes is that of numbers.
DIGITS: Final = 18

#: Digits of a record's cursor.
CURSOR_DIGITS: Final = 16

#: The keys of this many sessions are cached.
KNOWN: Final = 4_096

#: The ids of all commits in this many microseconds of the storage's time are in one set.
NOTED: Final = 60_000_000

#: The part of a key after the tag in braces → the type of its value, as Redis names it.
TYPES: Final = {
    **dict.fromkeys(("meta", "world", "q"), b"string"),
    **dict.fromkeys(("s", "c", "rules"), b"hash"),
    **dict.fromkeys(("x", "out", "cool", "lease", "uids", "logged", "ended", "timed"), b"zset"),
    "done": b"set",
}


def type_of_key(key: bytes) -> bytes:
    """The type that the value of this key must have, as Redis names it."""
    return TYPES[key.partition(b"}:")[2].partition(b":")[0].decode()]


class PartitionKeys(NamedTuple):
    """The keys of a partition; the scripts describe their values."""

    tag: bytes
    world: bytes
    out: bytes
    cool: bytes
    lease: bytes
    uids: bytes
    rules: bytes
    logged: bytes
    ended: bytes
    timed: bytes

    @classmethod
    def of(cls, prefix: str, number: int) -> PartitionKeys:
        """Build the keys with the tag of the partition, which contains its number."""
        tag = f"{{{prefix}:p{number}}}:".encode()
        return cls(tag, *(tag + name.encode() for name in cls._fields[1:]))

    def done(self, now: int) -> bytes:
        """The key of the set with the ids of the commits in that minute."""
        return b"%bdone:%d" % (self.tag, now // NOTED)

    def session(self, uid: str) -> SessionKeys:
        """The keys for a UID that belongs to this partition."""
        return self.session_keys(member_of_uid(uid))

    def session_keys(self, place: bytes) -> SessionKeys:
        """Like :meth:`session`, for a UID that is already encoded."""
        return SessionKeys(place, *(b"%b%c:%b" % (self.tag, kind, place) for kind in b"scxq"))


class SessionKeys(NamedTuple):
    """The encoded UID of a session, and its keys; slice.lua describes their values."""

    place: bytes
    s: bytes
    c: bytes
    x: bytes
    q: bytes


class Keyspace:
    """All keys of a storage.

    Args:
        prefix: the prefix of every key.
        partitions: the number of partitions.
    """

    def __init__(self, prefix: str, partitions: int) -> None:
        self.partitions: tuple[PartitionKeys, ...] = tuple(
            PartitionKeys.of(prefix, number) for number in range(partitions)
        )
        self._known: dict[str, tuple[PartitionKeys, SessionKeys]] = {}

    def keys_of(self, uid: str) -> tuple[PartitionKeys, SessionKeys]:
        """The keys of a session's partition, and those of the session."""
        found = self._known.get(uid)
        if found is None:
            partition = self.partitions[self.number_of(uid)]
            found = partition, partition.session(uid)
            if len(self._known) >= KNOWN:
                self._known.clear()
            self._known[uid] = found
        return found

    def number_of(self, uid: str) -> int:
        """The number of the partition that a session always belongs to."""
        return int.from_bytes(sha256(uid.encode()).digest()[:8]) % len(self.partitions)


def member_of_uid(uid: str) -> bytes:
    """The name of a session in keys and in the sets of its partition."""
    return urlsafe_b64encode(uid.encode()).rstrip(b"=")


def uid_of_member(place: bytes) -> str:
    """The UID of the session with this name in keys."""
    return urlsafe_b64decode(place + b"=" * (-len(place) % 4)).decode()


def instance_place(task: str, number: int) -> bytes:
    """The name of an instance in its session: task, NUL, number. No task name contains a NUL."""
    return b"%b\0%018d" % (task.encode(), number)


def instance_of_place(place: bytes) -> tuple[str, int]:
    """The task and number in the name of an instance."""
    return place[: -DIGITS - 1].decode(), int(place[-DIGITS:])


def member_of_instance(session: bytes, instance: bytes) -> bytes:
    """The name of an instance in the sets of its partition. The separator does not occur in base64."""
    return b"%b|%b" % (session, instance)


def keyed_field(trigger: str, key: str) -> bytes:
    """The field with the number of the firing that used an idempotency key."""
    return b"k%b\0%b" % (trigger.encode(), key.encode())


def order_of_timer(at: int, number: int) -> bytes:
    """A time and a number, so that the order of bytes is that of timers."""
    return b"%019d %018d " % (at, number)


def member_of_timed(manager: str, at: int, session: bytes) -> bytes:
    """The name of a session with timers in the set of its partition. No manager's name contains a NUL."""
    return b"%b\0%019d %b" % (manager.encode(), at, session)


def instance_of_member(member: bytes) -> tuple[str, str, int]:
    """UID, task and number in the name of an instance in the sets of its partition."""
    session, _, instance = member.partition(b"|")
    return (uid_of_member(session), *instance_of_place(instance))
