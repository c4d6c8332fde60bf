"""Bring sessions over from the cache of version 2 into a storage, each with one commit."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from triggers.core.decisions import import_session
from triggers.core.names import check_name
from triggers.core.values import decode
from triggers.exceptions import InvalidNameError
from triggers.version2.refused import RefusedError
from triggers.version2.shape import check_shape
from triggers.version2.stored import read_session
from triggers.version2.translate import MARK, translate

if TYPE_CHECKING:
    from collections.abc import Iterator

    from triggers.app import Triggers
    from triggers.version2.cache import CachedSession, Version2Cache


class Result(StrEnum):
    """What became of a session."""

    IMPORTED = "imported"
    PRESENT = "present"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one session.

    Attributes:
        uid: its UID.
        key: its key in the cache.
        result: whether it was imported, was imported before, or cannot be.
        problems: why it was refused, as (path, message). The path "" is the whole session.
        renamed: the custom keys that were renamed, as (path, new name).
    """

    uid: str
    key: str
    result: Result
    problems: tuple[tuple[str, str], ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()


def import_all(
    app: Triggers, cache: Version2Cache, *, limit: int | None = None, dry_run: bool = False
) -> Iterator[Outcome]:
    """Import the sessions in a cache, and yield what became of each.

    It can be interrupted at any moment and repeated: a session is stored as a whole or not at all, and one
    that is there stays as it is.

    Args:
        app: the application whose storage gets the sessions, under its manager.
        cache: the cache.
        limit: how many sessions are imported at most, None for all.
        dry_run: check everything and store nothing.

    Raises:
        StorageError: the cache or the storage failed. What was imported before stays.
    """
    imported = 0
    for session in cache.sessions():
        if limit is not None and imported >= limit:
            return
        outcome = _import_one(app, cache, session, dry_run=dry_run)
        imported += outcome.result is Result.IMPORTED
        yield outcome


def _import_one(app: Triggers, cache: Version2Cache, session: CachedSession, *, dry_run: bool) -> Outcome:
    uid, key = session.uid.decode(errors="backslashreplace"), session.key.decode(errors="backslashreplace")
    try:
        check_name(session.uid.decode(), "UID")
        if _is_present(app, uid, key):
            return Outcome(uid, key, Result.PRESENT)
        old = check_shape(read_session(cache.read(session)))
        manager = app.session(uid)
        found = translate(old, key, app.storage.now(), manager.policy)
        if not dry_run and manager.store(import_session(manager.policy, found.session)).refused:
            # Another process has stored it in the meantime.
            return Outcome(uid, key, Result.PRESENT if _is_present(app, uid, key) else Result.REFUSED)
        return Outcome(uid, key, Result.IMPORTED, renamed=found.renamed)
    except (InvalidNameError, UnicodeDecodeError) as error:
        return Outcome(uid, key, Result.REFUSED, (("uid", str(error)),))
    except RefusedError as refused:
        return Outcome(uid, key, Result.REFUSED, refused.problems)


def _is_present(app: Triggers, uid: str, key: str) -> bool:
    """Return whether the session was imported before.

    Raises:
        RefusedError: the storage has another session with this UID.
    """
    head = app.storage.reader.session(uid)
    if head is None:
        return False
    mark = decode(head.metadata).get(MARK)
    if isinstance(mark, dict) and mark.get("key") == key:
        return True
    raise RefusedError(("uid", "the storage has a session with this UID that was not imported from this key"))
