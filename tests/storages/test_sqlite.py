"""SQLite keeps the promises that every storage keeps, with each driver and each setting."""

from __future__ import annotations

import itertools
import sqlite3
import warnings

import pytest

from tests.storages.examples import FewExamples
from triggers.storages.sqlite import SqliteStorage
from triggers.storages.sqlite.url import is_safe
from triggers.testing.conformance import StorageConformance
from triggers.testing.conformance.sandbox import StorageSandbox


def sqlite_places(folder, options):
    """Gives the function that the suite asks for: each place is a file of its own."""
    numbers = itertools.count()

    def make():
        url = f"sqlite:///{folder}/{next(numbers)}.db?{options}"

        def open_with(clock):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "SQLite .* can corrupt a file in WAL mode", RuntimeWarning)
                return SqliteStorage(url, clock=clock)

        return StorageSandbox(open_with)

    return make


class TestSqlite(StorageConformance):
    """The suite, as SQLite is used by default: WAL, and nothing acknowledged before it is on the disk."""

    @pytest.fixture
    def make_place(self, tmp_path):
        return sqlite_places(tmp_path, "driver=auto&synchronous=full")


class TestSqliteNormal(FewExamples, StorageConformance):
    """The suite, with the faster setting."""

    @pytest.fixture
    def make_place(self, tmp_path):
        return sqlite_places(tmp_path, "driver=auto&synchronous=normal")


class TestSqliteOfTheStandardLibrary(FewExamples, StorageConformance):
    """The suite, with Python's own module, in whichever mode its version can be trusted with."""

    @pytest.fixture
    def make_place(self, tmp_path):
        return sqlite_places(tmp_path, "driver=sqlite3")

    @pytest.fixture
    def overtaking(self, place):
        if not is_safe(sqlite3.sqlite_version_info):
            pytest.skip("without WAL, a commit waits for those who read")
        return place.open()
