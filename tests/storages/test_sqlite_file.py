"""A SQLite file among threads, processes, full disks, other people's files and other versions."""

from __future__ import annotations

import os
import sqlite3
import stat
import sys
import tempfile
import threading
import time
import traceback
import warnings
from contextlib import contextmanager
from pathlib import Path

import pytest

from triggers.core.exchange import Decision
from triggers.exceptions import (
    SchemaVersionError,
    StorageBusyError,
    StorageCorruptError,
    StorageError,
    StorageFullError,
)
from triggers.storages.sqlite import SqliteStorage
from triggers.storages.sqlite.creation import NETWORK_FILE_SYSTEMS, check_file_system
from triggers.storages.sqlite.file import APPLICATION_ID, SLICE
from triggers.storages.sqlite.url import SqliteUrl, is_safe, load_driver
from triggers.testing.conformance.fixtures import SURVEY, at_once
from triggers.testing.conformance.machine import shown
from triggers.testing.conformance.steps import Steps

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

#: Threads that fork are warned of since Python 3.12; these tests fork from the main thread and hold no lock.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


@pytest.fixture
def path(tmp_path):
    return tmp_path / "survey.db"


def opened(path, options=""):
    return SqliteStorage(f"sqlite:///{path}?{options}" if options else f"sqlite:///{path}")


def started(function):
    """Begin the function in a forked process."""
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            function()
            status = 0
        except BaseException:  # noqa: BLE001 - whatever it is, the parent must hear of it
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    return pid


def ended(pid):
    """Whether the process has ended well."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


@contextmanager
def held_by_another_process(path):
    """Another process holds the write lock for as long as the block runs."""
    ready, leave = os.pipe(), os.pipe()

    def hold():
        os.close(leave[1])
        with opened(path)._file.transaction():
            os.write(ready[1], b"x")
            os.read(leave[0], 1)

    pid = started(hold)
    os.close(leave[0])
    assert os.read(ready[0], 1) == b"x"
    try:
        yield
    finally:
        os.close(leave[1])
        os.close(ready[0])
        os.close(ready[1])
        assert ended(pid)


# -- whose file it is ------------------------------------------------------------------------------------


def test_only_its_owner_can_read_a_new_file(path):
    """The file, and what SQLite puts beside it, is for its owner alone, whatever the umask says."""
    before = os.umask(0)
    try:
        storage = opened(path)
        Steps(storage).fire("a")
    finally:
        os.umask(before)
    modes = {entry.name: stat.S_IMODE(entry.stat().st_mode) for entry in path.parent.iterdir()}
    assert modes == dict.fromkeys(["survey.db", "survey.db-wal", "survey.db-shm"], 0o600)
    storage.close()


def test_a_dangling_link_is_not_followed(path):
    """A file is not made where a link of somebody else's points to."""
    path.symlink_to(path.parent / "elsewhere.db")
    with pytest.raises(StorageError, match="a link to a file that does not exist"):
        opened(path)
    assert not (path.parent / "elsewhere.db").exists()


@pytest.mark.parametrize("mode", ["DELETE", "WAL"])
@pytest.mark.parametrize("driver", ["auto", "sqlite3"])
def test_a_sqlite_file_of_another_application_is_left_alone(path, mode, driver):
    """It is refused by name, and not a byte of it changes, whatever its journal's mode."""
    with sqlite3.connect(path) as connection:
        connection.execute(f"PRAGMA journal_mode = {mode}")
        connection.execute("CREATE TABLE theirs (x)")
    connection.close()
    before = path.read_bytes()
    with (
        ignored_warning(),
        pytest.raises(StorageCorruptError, match="another application: choose another path"),
    ):
        opened(path, f"driver={driver}")
    assert path.read_bytes() == before
    assert [entry.name for entry in path.parent.iterdir()] == ["survey.db"]


@pytest.mark.parametrize(
    "content",
    [
        b"Dear diary,\n" * 100,
        b"x",
        b"Dear diary," * 46,
        b"Dear diary," * 47,
        b"SQLite format 3\x00" + b"\xff" * 5_000,
    ],
)
def test_what_is_no_sqlite_file_is_left_alone(path, content):
    """Text, and what only looks like SQLite, is refused; not a byte of it changes."""
    path.write_bytes(content)
    with pytest.raises(StorageError, match=r"survey\.db"):
        opened(path)
    assert path.read_bytes() == content
    assert [entry.name for entry in path.parent.iterdir()] == ["survey.db"]


def test_a_text_file_is_called_what_it_is(path):
    """The message says what is wrong and what to do."""
    path.write_text("Dear diary,\n" * 100)
    with pytest.raises(StorageCorruptError, match=r"damaged or not a SQLite file .*: restore a backup"):
        opened(path)


def test_damage_is_reported_and_not_made_worse(path):
    """A file of ours whose pages are damaged says so when they are needed."""
    storage = opened(path)
    steps = Steps(storage)
    for _ in range(50):
        steps.fire("a", {"n": "x" * 500})
    storage.close()
    content = bytearray(path.read_bytes())
    content[2_000:] = b"\xa5" * (len(content) - 2_000)
    path.write_bytes(content)
    with pytest.raises(StorageCorruptError, match="damaged"):
        Steps(opened(path)).firings()
    with pytest.raises(StorageCorruptError, match="damaged"):
        Steps(opened(path)).fire("a")


def test_a_folder_that_is_not_there_is_named(tmp_path):
    """The message says which folder is missing."""
    with pytest.raises(
        StorageError, match=r"nowhere is not a folder: create it first, for the file survey.db"
    ):
        opened(tmp_path / "nowhere" / "survey.db")


def test_a_folder_in_place_of_the_file_is_refused(tmp_path):
    """A path that is a folder cannot be opened, and says which it is."""
    with pytest.raises(StorageError, match=tmp_path.name):
        opened(tmp_path)


@needs_fork
def test_a_folder_that_cannot_be_written_is_reported():
    """Where no file can be made, or no journal beside it, the error names the path; nobody crashes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        storage = opened(folder / "there.db")
        Steps(storage).fire("a")
        storage.close()
        (folder / "there.db").chmod(0o666)
        folder.chmod(0o555)

        def refused():
            if os.getuid() == 0:
                os.setgid(65534)
                os.setuid(65534)
            with pytest.raises(StorageError, match=r"new\.db cannot be created: Permission denied"):
                opened(folder / "new.db")
            with pytest.raises(StorageError, match=r"there\.db"):
                Steps(opened(folder / "there.db")).fire("a")

        assert ended(started(refused))
        folder.chmod(0o755)
        assert Steps(opened(folder / "there.db")).head.firings == 1


# -- versions ---------------------------------------------------------------------------------------------


def test_a_file_of_a_newer_version_is_left_alone(path):
    """A schema that this version does not know is refused, with both versions, and stays as it is."""
    opened(path).close()
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 99")
    connection.close()
    before = path.read_bytes()
    with pytest.raises(
        SchemaVersionError, match=r"schema version 99, and this version of Triggers knows .*: upgrade"
    ):
        opened(path)
    assert path.read_bytes() == before


def test_the_file_says_that_it_is_ours(path):
    """Application and schema are in the header, where other tools look for them."""
    opened(path).close()
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
        assert connection.execute("PRAGMA user_version").fetchone()[0] >= 1
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    connection.close()


@needs_fork
def test_processes_that_begin_at_once_agree_on_one_schema(tmp_path):
    """Four processes open one new file at the same moment: all of them work with it."""
    for attempt in range(20):
        path = tmp_path / f"{attempt}.db"
        gate, open_gate = os.pipe()

        def begin(path=path, gate=gate, open_gate=open_gate):
            os.close(open_gate)
            os.read(gate, 1)
            Steps(opened(path), f"session {os.getpid()}").fire("a")

        pids = [started(begin) for _ in range(4)]
        os.close(open_gate)
        os.close(gate)
        assert [ended(pid) for pid in pids] == [True] * len(pids)
        sessions = opened(path).sessions()
        assert {session.uid for session in sessions} == {f"session {pid}" for pid in pids}


def test_threads_that_begin_at_once_agree_on_one_schema(path):
    """Eight storages made at the same moment in one process: all of them work with the file."""
    at_once([lambda n=n: Steps(opened(path), f"session {n}").fire("a") for n in range(8)])
    assert len(opened(path).sessions()) == 8


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ((3, 6, 23), False),
        ((3, 34, 1), False),
        ((3, 40, 1), False),
        ((3, 44, 5), False),
        ((3, 44, 6), True),
        ((3, 44, 99), True),
        ((3, 45, 0), False),
        ((3, 46, 1), False),
        ((3, 50, 6), False),
        ((3, 50, 7), True),
        ((3, 51, 0), False),
        ((3, 51, 2), False),
        ((3, 51, 3), True),
        ((3, 52, 0), True),
        ((3, 53, 4), True),
        ((4, 0, 0), True),
    ],
)
def test_versions_that_can_corrupt_a_file_are_known(version, safe):
    """Write-ahead logging is used with those versions of SQLite alone that are free of the defect."""
    assert is_safe(version) is safe


class Driver:
    """A driver's module that says it has another version of SQLite inside."""

    def __init__(self, version):
        self._module = load_driver("auto")
        self.sqlite_version_info = version
        self.sqlite_version = ".".join(map(str, version))

    def __getattr__(self, name):
        return getattr(self._module, name)


@pytest.mark.parametrize(
    ("version", "options", "expected"),
    [
        ((3, 53, 0), "", ("wal", 2)),
        ((3, 53, 0), "synchronous=full", ("wal", 2)),
        ((3, 53, 0), "synchronous=normal", ("wal", 1)),
        ((3, 40, 1), "", ("delete", 3)),
        ((3, 40, 1), "synchronous=normal", ("delete", 3)),
    ],
)
def test_durability_is_what_the_url_and_the_version_say(path, monkeypatch, version, options, expected):
    """FULL by default; NORMAL on request; a version that cannot be trusted with WAL is used without it."""
    monkeypatch.setattr("triggers.storages.sqlite.file.load_driver", lambda _: Driver(version))
    with ignored_warning():
        storage = opened(path, options)
    with storage._file.reading() as run:
        assert (*run("PRAGMA journal_mode").fetchone(), *run("PRAGMA synchronous").fetchone()) == expected
        assert run("PRAGMA trusted_schema").fetchone() == (0,)


def test_a_version_that_cannot_be_trusted_warns_once_and_says_what_to_do(path, monkeypatch):
    """The warning names version and file, what is done about it, and the better way."""
    monkeypatch.setattr("triggers.storages.sqlite.file.load_driver", lambda _: Driver((3, 40, 1)))
    with pytest.warns(
        RuntimeWarning, match=r"SQLite 3\.40\.1 can corrupt .*survey\.db.*journal_mode=DELETE.*install"
    ) as seen:
        storage = opened(path)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Steps(storage).fire("a")
    assert len(seen) == 1
    assert seen[0].filename == __file__, "it points at who opened the storage"


# -- locks ------------------------------------------------------------------------------------------------


@needs_fork
def test_a_writer_waits_as_long_as_it_was_told_and_no_longer(path):
    """While another process writes, a commit is refused after the timeout, and nothing has changed."""
    storage = opened(path, "busy_timeout=0.1")
    steps = Steps(storage)
    steps.configure(SURVEY)
    before = shown(steps)
    with held_by_another_process(path):
        with pytest.raises(
            StorageBusyError, match=r"survey\.db stayed locked .* 0\.1 s; nothing was changed"
        ):
            steps.fire("first")
        with pytest.raises(StorageBusyError):
            storage.due(10, grace=0, include_recent=True) or storage.renew([], 1)
        assert shown(steps) == before, "reading waits for nobody"
    assert shown(steps) == before
    assert steps.fire("first").fired[0].number == 1


@needs_fork
def test_a_timeout_is_for_one_commit_alone(path):
    """A commit may wait shorter than the file's timeout; the message says how long, and the next one waits as ever."""
    storage = opened(path, "busy_timeout=20")
    steps = Steps(storage)
    steps.fire("a")
    with held_by_another_process(path), pytest.raises(StorageBusyError, match=r"for 0\.05 s"):
        storage.commit("session", NOTHING, timeout=0.05)
    with storage._file.reading() as run:
        assert run("PRAGMA busy_timeout").fetchone() == (SLICE * 1000,)


def test_a_thread_that_writes_is_waited_for_too(path):
    """Within a process the lock is waited for as long as was asked."""
    storage = opened(path)
    with storage._file.transaction():
        caught = []

        def impatient():
            with pytest.raises(StorageBusyError) as error:
                storage.commit("session", NOTHING, timeout=0.05)
            caught.append(str(error.value))

        thread = threading.Thread(target=impatient)
        thread.start()
        thread.join()
    assert "0.05 s; nothing was changed: try again" in caught[0]


def test_a_reader_sees_one_moment(path):
    """What is committed while a read is going on is not seen by it, and does not wait for it."""
    storage, other = opened(path), Steps(opened(path))
    other.fire("a")
    with storage._file.reading() as run:
        assert run("SELECT count(*) FROM firings").fetchone() == (1,)
        other.fire("a")
        assert run("SELECT count(*) FROM firings").fetchone() == (1,)
    assert other.head.firings == 2


# -- processes ----------------------------------------------------------------------------------------------


@needs_fork
def test_a_child_uses_connections_of_its_own(path):
    """After a fork the child writes through a connection of its own, and both see what either has stored."""
    steps = Steps(opened(path))
    steps.fire("a")
    inherited = steps.storage._file._pool.connections

    def child():
        assert steps.storage._file._pool.connections == []
        assert steps.fire("a").fired[0].number == 2
        steps.storage.close()

    assert ended(started(child))
    assert inherited
    assert steps.storage._file._pool.connections == []
    assert steps.fire("a").fired[0].number == 3


@needs_fork
def test_a_child_does_not_take_its_parents_locks(path):
    """A transaction that is open at the fork keeps its lock while the child comes, is refused, and goes."""
    storage = opened(path)
    Steps(storage).fire("a")

    def refused():
        with pytest.raises(StorageError, match="do not fork within a transaction"):
            Steps(storage).fire("a")
        storage.close()

    def waits():
        other = sqlite3.connect(path, timeout=0, isolation_level=None)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            other.execute("BEGIN IMMEDIATE")

    with storage._file.transaction() as run:
        run("UPDATE sessions SET firings = 7")
        assert ended(started(refused))
        assert ended(started(waits)), "the end of the first child has let nothing go"
    assert Steps(storage).head.firings == 7


@needs_fork
def test_processes_and_threads_write_side_by_side(path):
    """Two processes of three threads each: no firing is lost, none is numbered twice, and the file stays sound."""
    steps = Steps(opened(path, "synchronous=normal"))
    steps.configure({"t_page": {"andEvery": "page", "run": "page"}})

    def write():
        at_once(
            [
                lambda n=n: [steps.fire("page", {"by": os.getpid(), "n": n}) for _ in range(20)]
                for n in range(3)
            ]
        )

    pids = [started(write) for _ in range(2)]
    assert [ended(pid) for pid in pids] == [True] * len(pids)
    assert [firing.number for firing in steps.firings()] == list(range(1, 121))
    assert [instance.number for instance in steps.instances()] == list(range(120))
    with steps.storage._file.reading() as run:
        assert run("PRAGMA integrity_check").fetchone() == ("ok",)


@needs_fork
def test_a_process_that_dies_in_the_middle_leaves_nothing(path):
    """A process that is killed within a commit has changed nothing, and its lock is gone with it."""
    steps = Steps(opened(path, "busy_timeout=5"))
    steps.configure(SURVEY)
    before = shown(steps)

    def dies():
        with steps.storage._file.transaction() as run:
            run("UPDATE sessions SET firings = 99")
            run("DELETE FROM waiting")
            os.kill(os.getpid(), 9)

    assert not ended(started(dies))
    assert shown(steps) == before
    assert steps.fire("first").fired[0].number == 1


def test_connections_of_ended_threads_are_closed(path):
    """A process that starts many threads, one after the other, keeps one connection."""
    steps = Steps(opened(path))
    for _ in range(10):
        thread = threading.Thread(target=steps.fire, args=("a",))
        thread.start()
        thread.join()
    assert steps.head.firings == 10
    assert len(steps.storage._file._pool.connections) == 1


def test_a_closed_storage_opens_again_when_it_is_used(path):
    """Closing lets go of everything; a second call does nothing; a later use begins anew."""
    storage = opened(path)
    steps = Steps(storage)
    steps.fire("a")
    storage.close()
    storage.close()
    assert [entry.name for entry in path.parent.iterdir()] == ["survey.db"]
    assert steps.fire("a").fired[0].number == 2


# -- space --------------------------------------------------------------------------------------------------


def test_a_full_disk_changes_nothing(path):
    """Where there is no room for a commit, it is refused as a whole; reading, and what still fits, goes on."""
    storage = opened(path)
    steps = Steps(storage)
    steps.configure(SURVEY)
    steps.fire("first")
    before = shown(steps)
    connection = storage._file._pool.connections[0].connection
    pages = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(StorageFullError, match=r"no space left for .*survey\.db; nothing was changed"):
        steps.fire("complete", {"large": "x" * 500_000})
    assert shown(steps) == before
    connection.execute("PRAGMA max_page_count = 1073741823")
    assert [each.name for each in steps.fire("complete", {"large": "x" * 500_000}).scheduled()] == [
        "t_subject#0"
    ]


# -- file systems -------------------------------------------------------------------------------------------

MOUNTS = """\
/dev/vda / ext4 rw,relatime 0 0
server:/home /home nfs4 rw 0 0
/dev/vdb /home/local xfs rw 0 0
//server/share /mnt/my\\040share cifs rw 0 0
sshfs /mnt/far fuse.sshfs rw 0 0
nonsense
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/var/lib/survey.db", None),
        ("/home/ann/survey.db", "nfs4"),
        ("/home/local/survey.db", None),
        ("/homely/survey.db", None),
        ("/mnt/my share/survey.db", "cifs"),
        ("/mnt/far/away/survey.db", "fuse.sshfs"),
    ],
)
def test_network_file_systems_are_refused(tmp_path, path, kind):
    """A file on a mount of a kind on which SQLite's locks fail is refused, with the mount; local ones are not."""
    mounts = tmp_path / "mounts"
    mounts.write_text(MOUNTS)
    if kind is None:
        assert check_file_system(path, str(mounts)) is None
        return
    with pytest.raises(StorageError, match=rf"a network file system \({kind}\).*use a local disk"):
        check_file_system(path, str(mounts))
    assert kind in NETWORK_FILE_SYSTEMS


def test_a_link_to_a_network_file_system_is_followed(tmp_path):
    """It counts where the file really is."""
    far = tmp_path / "far"
    far.mkdir()
    (tmp_path / "near").symlink_to(far)
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/vda / ext4 rw 0 0\nserver:/far {far} nfs rw 0 0\n")
    with pytest.raises(StorageError, match="network"):
        check_file_system(str(tmp_path / "near" / "survey.db"), str(mounts))


def test_a_system_that_lists_no_mounts_is_trusted(tmp_path):
    """Where nothing can be known nothing is refused."""
    assert check_file_system("/var/lib/survey.db", str(tmp_path / "nothing")) is None


# -- URLs -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("sqlite:///survey.db", SqliteUrl("survey.db")),
        ("sqlite:////var/survey.db", SqliteUrl("/var/survey.db")),
        ("sqlite:///my%20survey.db", SqliteUrl("my survey.db")),
        (
            "sqlite:///s.db?driver=sqlite3&synchronous=normal&busy_timeout=0.5",
            SqliteUrl("s.db", "sqlite3", "normal", 0.5),
        ),
        ("sqlite:///s.db?busy_timeout=0", SqliteUrl("s.db", busy_timeout=0)),
    ],
)
def test_urls_are_read(url, expected):
    """Path and options, with what holds where an option is not given."""
    assert SqliteUrl.parse(url) == expected


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("sqlite://", "does not name a file"),
        ("sqlite:///", "does not name a file"),
        ("sqlite://survey.db", "does not name a file"),
        ("sqlite:///:memory:", "use memory://"),
        ("sqlite:///s.db?driver=oracle", "an invalid value for driver; the options are: driver=auto"),
        ("sqlite:///s.db?synchronous=off", "an invalid value for synchronous"),
        ("sqlite:///s.db?speed=fast", "an unknown option; the options are"),
        ("sqlite:///s.db?busy_timeout=long", "an invalid value for busy_timeout"),
        ("sqlite:///s.db?busy_timeout=-1", "an invalid value for busy_timeout"),
        ("sqlite:///s.db?busy_timeout=nan", "an invalid value for busy_timeout"),
        ("sqlite:///s.db?busy_timeout=inf", "an invalid value for busy_timeout"),
        ("sqlite:///s.db?driver=", "an invalid value for driver"),
    ],
)
def test_urls_that_say_nothing_sensible_are_refused(url, message):
    """The message says what is wrong and what is known."""
    with pytest.raises(StorageError, match=message):
        SqliteUrl.parse(url)


def test_a_driver_that_is_not_installed_is_named(monkeypatch):
    """The message says how to get it; `auto` takes what there is."""
    monkeypatch.setitem(sys.modules, "pysqlite3", None)
    with pytest.raises(
        StorageError, match="'pysqlite3' is not installed: pip install pysqlite3, or use driver=auto"
    ):
        load_driver("pysqlite3")
    assert load_driver("auto") is sqlite3


def test_it_says_which_file_it_is(path):
    """Its representation is its URL; its clock is the system's."""
    storage = SqliteStorage.from_url(f"sqlite:///{path}")
    assert repr(storage) == f"SqliteStorage('sqlite:///{path}')"
    assert abs(storage.now() - time.time_ns() // 1000) < 60_000_000
    assert storage.reader is storage


@contextmanager
def ignored_warning():
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "SQLite .* can corrupt", RuntimeWarning)
        yield


def _nothing(session):
    raise AssertionError("nothing is decided while somebody else writes")
    yield session


NOTHING = Decision("nothing", _nothing)


def test_a_file_that_is_closed_amid_a_commit_of_another_thread_waits_for_no_one_and_breaks_nothing(tmp_path):
    """A thread that is in the middle of a commit when the storage is closed ends it, and it is stored."""
    path = tmp_path / "a.db"
    storage = SqliteStorage(f"sqlite:///{path}")
    inside, closed = threading.Event(), threading.Event()

    def commit() -> None:
        with storage._file.transaction() as run:
            inside.set()
            assert closed.wait(60)
            run("INSERT INTO rule_sets (digest, body) VALUES ('d', '{}')")

    thread = threading.Thread(target=commit)
    thread.start()
    assert inside.wait(60)
    storage.close()
    closed.set()
    thread.join(60)
    with storage._file.reading() as run:
        assert run("SELECT digest FROM rule_sets").fetchall() == [("d",)]
