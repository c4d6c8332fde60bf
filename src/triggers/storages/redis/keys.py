"""Where in Redis what is kept: partitions, keys, and members of the sorted sets.

Every session belongs to one of a fixed number of partitions. All keys of a partition have its tag in braces,
so they share one slot of a cluster: a session, and what is due in its partition, change together. UIDs stand
in keys as base64 of their UTF-8, never as they are; within hashes and sorted sets names are bytes like
others.
"""

from __future__ import annotations

from base64 import urlsafe_b64decode, urlsafe_b64encode
from hashlib import sha256
from typing import Final, NamedTuple

#: Digits of an instance's number, so that the order of bytes is that of numbers; a name has up to 18.
DIGITS: Final = 18

#: Digits of a record's place in its session's log.
CURSOR_DIGITS: Final = 16

#: The keys of so many sessions are remembered.
KNOWN: Final = 4_096

#: The notes of commits are kept in one set for so many microseconds of the storage's time.
NOTED: Final = 60_000_000


class PartitionKeys(NamedTuple):
    """The keys of a partition; the scripts say what they hold."""

    tag: bytes
    world: bytes
    out: bytes
    cool: bytes
    lease: bytes
    uids: bytes
    rules: bytes
    logged: bytes
    ended: bytes

    @classmethod
    def of(cls, prefix: str, number: int) -> PartitionKeys:
        """Those of the partition of that number."""
        tag = f"{{{prefix}:p{number}}}:".encode()
        return cls(tag, *(tag + name.encode() for name in cls._fields[1:]))

    def done(self, now: int) -> bytes:
        """Where the commits of that minute are noted."""
        return b"%bdone:%d" % (self.tag, now // NOTED)

    def session(self, uid: str) -> SessionKeys:
        """The keys of one of its sessions."""
        return self.session_keys(member_of_uid(uid))

    def session_keys(self, place: bytes) -> SessionKeys:
        """Those of the session that is called so."""
        return SessionKeys(place, *(b"%b%c:%b" % (self.tag, kind, place) for kind in b"scxq"))


class SessionKeys(NamedTuple):
    """The keys of a session, after what it is called in them."""

    place: bytes
    s: bytes
    c: bytes
    x: bytes
    q: bytes


class Keyspace:
    """All keys of a storage whose partitions have been counted.

    Args:
        prefix: what every key begins with.
        partitions: how many there are.
    """

    def __init__(self, prefix: str, partitions: int) -> None:
        self.partitions = tuple(PartitionKeys.of(prefix, number) for number in range(partitions))
        self._known: dict[str, tuple[PartitionKeys, SessionKeys]] = {}

    def keys_of(self, uid: str) -> tuple[PartitionKeys, SessionKeys]:
        """The keys of a session, after those of its partition."""
        found = self._known.get(uid)
        if found is None:
            partition = self.partitions[self.number_of(uid)]
            found = partition, partition.session(uid)
            if len(self._known) >= KNOWN:
                self._known.clear()
            self._known[uid] = found
        return found

    def number_of(self, uid: str) -> int:
        """Which partition a session belongs to, for ever."""
        return int.from_bytes(sha256(uid.encode()).digest()[:8]) % len(self.partitions)


def member_of_uid(uid: str) -> bytes:
    """What a session is called in keys and in the sets of its partition."""
    return urlsafe_b64encode(uid.encode()).rstrip(b"=")


def uid_of_member(place: bytes) -> str:
    """The UID that is called so."""
    return urlsafe_b64decode(place + b"=" * (-len(place) % 4)).decode()


def instance_place(task: str, number: int) -> bytes:
    """What an instance is called: task, NUL, number; no name has a NUL."""
    return b"%b\0%018d" % (task.encode(), number)


def instance_of_place(place: bytes) -> tuple[str, int]:
    """The task and number of the instance that is called so."""
    return place[: -DIGITS - 1].decode(), int(place[-DIGITS:])


def member_of_instance(session: bytes, instance: bytes) -> bytes:
    """What an instance is called in the sets of its partition; base64 has no bar."""
    return b"%b|%b" % (session, instance)


def instance_of_member(member: bytes) -> tuple[str, str, int]:
    """UID, task and number of the instance that is called so."""
    session, _, instance = member.partition(b"|")
    return (uid_of_member(session), *instance_of_place(instance))
