"""A purge of a SQLite file gets along with whoever uses it."""

from __future__ import annotations

import pytest

from triggers.core.terms import AttemptReport
from triggers.storages.base import Purge, Purged
from triggers.storages.sqlite import SqliteStorage
from triggers.testing.conformance.fixtures import batch, entry
from triggers.testing.conformance.steps import Steps

OLD = Purge(entry().at + 1, max_level=100, threshold=30, contexts_only=False, dry_run=False)


@pytest.fixture
def url(tmp_path):
    return f"sqlite:///{tmp_path}/s.db?synchronous=normal&busy_timeout=0.05"


@pytest.fixture
def storage(url):
    storage = SqliteStorage(url)
    yield storage
    storage.close()


@pytest.fixture
def steps(storage):
    """Steps on a session with a record that was reviewed, and one that asks for nothing."""
    steps = Steps(storage)
    steps.configure({"t": {"andEvery": "a", "run": "r"}})
    steps.fire("a")
    steps.start("t#0")
    steps.keep_logs(AttemptReport("t", 0, 1, 1), batch(entry(level=40, n=1), entry(level=20, n=2)))
    steps.resolve_logs("t#0", {})
    return steps


def test_looking_for_records_needs_no_lock(url, storage, steps):
    """While another connection writes, a dry run counts, and a purge that finds nothing is done."""
    other = SqliteStorage(url)
    with other._file.transaction():
        assert storage.purge_logs(OLD._replace(dry_run=True)) == Purged(2, None)
        assert storage.purge_logs(OLD._replace(before=0)) == Purged(0, None)
    other.close()


@pytest.mark.parametrize("contexts_only", [False, True])
def test_a_review_that_is_taken_back_meanwhile_counts(url, storage, steps, monkeypatch, contexts_only):
    """What was found is looked at again under the lock: the record that asks for a review by then stays as it is."""
    other = Steps(SqliteStorage(url), steps.uid)
    begin = storage._file.transaction

    def reopened_before(timeout=None):
        other.reopen_logs("t#0", {})
        return begin(timeout)

    monkeypatch.setattr(storage._file, "transaction", reopened_before)
    assert storage.purge_logs(OLD._replace(contexts_only=contexts_only)) == Purged(1, None)
    left = [(each.level, dict(each.context)) for each in storage.reader.logs(steps.uid)]
    assert left == ([(40, {"n": 1}), (20, {})] if contexts_only else [(40, {"n": 1})])
    other.storage.close()
