"""A SQLite file that can only be read: by its URL, by its permissions, or on a read-only file system."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tempfile
import traceback
import warnings
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from click.testing import CliRunner

from triggers import Registry, Triggers, task
from triggers.cli import main
from triggers.exceptions import StorageError

pytestmark = pytest.mark.filterwarnings("ignore:SQLite .* can corrupt:RuntimeWarning")

RULES = {"t_a": {"after": ["go"], "run": "plain"}, "t_b": {"after": ["t_a", "never"], "run": "plain"}}

#: The commands that read, and what they print.
READING = {
    ("sessions",): "one",
    ("show", "one"): "t_a#0",
    ("show", "one", "t_a#0"): "finished",
    ("explain", "one", "t_b"): "never",
    ("logs", "one"): "hello",
    ("fire", "one", "never", "--dry-run"): "would schedule t_b#0",
    ("configure", "two", "rules.json", "--dry-run"): "would create the session",
}
WRITING = (
    ("fire", "one", "go"),
    ("fire", "two", "go"),
    ("configure", "one", "rules.json"),
)

#: The user and the group that own no file.
NOBODY = 65534

#: In a mount namespace of its own, so that nothing remains mounted; the folder can be written at `writable`.
READ_ONLY = (
    'mkdir "$1/writable" && mount --bind "$1/folder" "$1/writable" && mount --bind "$1/folder" "$1/folder" \
    && mount -o remount,ro,bind "$1/folder" && exec "$2" -c "$3" "$1"'
)


@pytest.fixture(params=["pysqlite3", "sqlite3"])
def url(request, tmp_path, monkeypatch):
    """A file with one session, which no process has open: in WAL mode, and in that of an unsafe SQLite."""
    pytest.importorskip(request.param)
    (tmp_path / "folder").mkdir()
    (tmp_path / "rules.json").write_text(json.dumps(RULES))
    monkeypatch.chdir(tmp_path)
    registry = Registry()

    @task(name="plain", registry=registry)
    def plain(context):
        with context.get_logger_context() as logger:
            logger.info("hello")

    url = f"sqlite:///{tmp_path}/folder/s.db?driver={request.param}"
    with Triggers(url, runner="inline", registry=registry) as app:
        session = app.session("one")
        session.update_configuration(RULES)
        session.fire("go", {"n": 1})
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["s.db"]
    return url


def read_only(path, url, *script):
    """Run Python in another process, for which the folder is on a read-only file system."""
    lines = ["from tests.storages.test_sqlite_read_only import *", f"url = {url!r}", *script]
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", READ_ONLY, "sh"]
    if shutil.which("unshare") is None or subprocess.run([*command[:4], "true"], check=False).returncode:
        pytest.skip("this user cannot mount a file system")
    done = subprocess.run(
        [*command, path, sys.executable, "\n".join(lines)],
        capture_output=True,
        text=True,
        check=False,
        env={"PYTHONPATH": ":".join(sys.path), "PATH": "/usr/bin:/bin:/usr/sbin:/sbin"},
    )
    assert done.returncode == 0, done.stderr


def check(url):
    """Every command that reads works, and every one that writes says why it does not."""
    for command, printed in READING.items():
        result = CliRunner().invoke(main, [*command, "--storage", url])
        assert (result.exit_code, printed in result.output) == (0, True), result.output
    for command in WRITING:
        result = CliRunner().invoke(main, [*command, "--storage", url])
        assert (result.exit_code, "is opened read-only; nothing was changed" in result.output) == (1, True), (
            result.output
        )


def test_a_file_can_be_read_with_mode_ro(url, tmp_path):
    """Reading works, writing says what to do, and the file stays as it is."""
    before = (tmp_path / "folder" / "s.db").read_bytes()
    check(f"{url}&mode=ro")
    with Triggers(f"{url}&mode=ro", runner=None) as app:
        for write in (
            lambda: app.session("one").fire("go"),
            lambda: app.session("one").update_configuration(RULES),
            lambda: app.purge_logs(older_than=timedelta()),
            lambda: app.storage.renew([], 1),
        ):
            with pytest.raises(StorageError, match=r"is opened read-only; .*: remove mode=ro from the URL"):
                write()
        assert [one.name for one in app.session("one").storage] == ["t_a#0", "t_b#0"]
        assert app.sweep().dispatched == 0, "nothing is due, so nothing is written"
    assert (tmp_path / "folder" / "s.db").read_bytes() == before


def test_a_file_on_a_read_only_file_system_can_be_read(url, tmp_path):
    """Without an option in the URL, and with it."""
    read_only(tmp_path, url, "check(url)", "check(url + '&mode=ro')")


def test_what_another_process_writes_is_read(url, tmp_path):
    """It has the file open for writing at another place: what is in its log is read, too, and later changes."""
    read_only(
        tmp_path,
        url,
        "with Triggers(url.replace('/folder/', '/writable/'), runner=None) as writer:",
        "    writer.session('two').fire('go')",
        "    with Triggers(url, runner=None) as reader:",
        "        assert [one.uid for one in reader.sessions()] == ['one', 'two']",
        "        writer.session('three').fire('go')",
        "        assert [one.uid for one in reader.sessions()] == ['one', 'three', 'two']",
        "with Triggers(url, runner=None) as reader:",
        "    assert [one.uid for one in reader.sessions()] == ['one', 'three', 'two']",
        "    with Triggers(url.replace('/folder/', '/writable/'), runner=None) as writer:",
        "        writer.session('four').fire('go')",
        "    assert [one.uid for one in reader.sessions()] == ['four', 'one', 'three', 'two']",
    )


def test_a_file_that_changes_while_it_is_read_is_read_again(url, tmp_path):
    """SQLite reads a file in WAL mode without locks there, so what it has read may be half of a change."""
    read_only(
        tmp_path,
        url,
        "with Triggers(url, runner=None) as reader:",
        "    changed = url.replace('/folder/', '/writable/')",
        "    try:",
        "        with reader.storage._file.reading() as run:",
        "            immutable = run.snapshot is not None",
        "            with Triggers(changed, runner=None) as writer:",
        "                writer.session('two').fire('go')" if "pysqlite3" in url else "                pass",
        "    except Exception as error:",
        "        assert immutable and 'was changed while it was read' in str(error), error",
        "    else:",
        "        assert not immutable",
        f"    assert immutable == {'pysqlite3' in url}",
        "    assert reader.session('one').storage.exists",
    )


def test_a_log_without_shared_memory_says_what_sqlite_needs(tmp_path, url):
    """A copy of a file and its log on a read-only file system: SQLite must create a file to read the log."""
    if "pysqlite3" not in url:
        pytest.skip("there is a log in WAL mode only")
    path = tmp_path / "folder" / "s.db"
    with Triggers(url, runner=None) as writer:
        writer.session("two").fire("go")
        (tmp_path / "copy").mkdir()
        for name in ("s.db", "s.db-wal"):
            shutil.copy(path.parent / name, tmp_path / "copy" / name)
    shutil.rmtree(path.parent)
    (tmp_path / "copy").rename(path.parent)
    read_only(
        tmp_path,
        url,
        "with pytest.raises(StorageError, match='SQLite cannot create .*s.db-shm beside it; .*copy both'):",
        "    Triggers(url, runner=None)",
    )


@pytest.fixture
def immutable(tmp_path):
    """Makes a file one that nobody, not even root, may change, until the end of the test."""
    path = str(tmp_path / "folder" / "s.db")
    program = shutil.which("chattr")
    if program is None:
        pytest.skip("chattr is missing")
    yield lambda: subprocess.run([program, "+i", path], check=False, capture_output=True).returncode == 0
    subprocess.run([program, "-i", path], check=False, capture_output=True)


def test_a_file_that_may_not_be_written_can_be_read(url, immutable):
    """The same by the permissions of the file; the message says what to change."""
    if not immutable():
        pytest.skip("this file system has no immutable files, or this user may not make one")
    check(url)
    with (
        Triggers(url, runner=None) as app,
        pytest.raises(StorageError, match="let this process write to the file and to its folder"),
    ):
        app.session("one").fire("go")


@pytest.fixture
def public(url, tmp_path):
    """The URL of a copy that everybody may read, in a folder that everybody may list."""
    with tempfile.TemporaryDirectory() as folder:
        Path(shutil.copy(tmp_path / "folder" / "s.db", folder)).chmod(0o644)
        Path(folder).chmod(0o755)
        yield url.replace(f"{tmp_path}/folder", folder)


def as_another_user(act):
    """Call a function in a child process of a user who has only the rights that everybody has."""
    if os.geteuid() != 0:
        pytest.skip("only root can become another user")
    child = os.fork()
    if child == 0:
        try:
            os.setgroups([])
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            act()
        except BaseException:  # noqa: BLE001 - the child ends here, whatever it raises
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_a_file_and_a_folder_of_another_user_can_be_read(public):
    """There, SQLite reports that it may not write, and not that it cannot open a file."""

    def act():
        with Triggers(public, runner=None) as app:
            assert app.session("one").storage["t_a#0"].status == "finished"
            with pytest.raises(StorageError, match="let this process write to the file and to its folder"):
                app.session("one").fire("go")

    as_another_user(act)


def test_a_file_that_may_not_be_read_says_so(public):
    """And not that its log lacks something."""
    Path(public.partition("///")[2].partition("?")[0]).chmod(0o600)

    def act():
        for option in ("", "&mode=ro"):
            with pytest.raises(StorageError, match=r"s.db cannot be read: let this process read the file"):
                Triggers(f"{public}{option}", runner=None)

    as_another_user(act)


def test_what_cannot_be_read_is_refused(url, tmp_path):
    """A file that does not exist, one with an older schema, and an empty one."""
    with pytest.raises(StorageError, match=r"there is no file .*none.db, and mode=ro does not create one"):
        Triggers(f"sqlite:///{tmp_path}/none.db?mode=ro", runner=None)
    assert not (tmp_path / "none.db").exists()
    path = tmp_path / "folder" / "s.db"
    with closing(sqlite3.connect(path)) as file:
        file.execute("PRAGMA user_version = 0")
    with pytest.raises(StorageError, match=r"has schema version 0, .*: open it for writing once"):
        Triggers(f"{url}&mode=ro", runner=None)
    path.write_bytes(b"")
    with pytest.raises(StorageError, match="has schema version 0"):
        Triggers(f"{url}&mode=ro", runner=None)


def test_reading_with_an_unsafe_sqlite_warns_of_nothing(url):
    """The defect is one of writers, and the mode of the file is left as it is."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Triggers(f"{url}&mode=ro", runner=None).close()
