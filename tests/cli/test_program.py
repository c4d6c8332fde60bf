"""The program as a whole: where its options stand, how it ends, what it prints where."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from triggers import task

HANGS = json.dumps({"t_hang": {"after": ["x"], "run": "survey.hang"}})


def finished(process):
    """Exit code, standard output and standard error of a process that ends by itself."""
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


# -- where the sessions are -----------------------------------------------------------------------------


def test_options_stand_before_or_behind_the_command(played):
    """--storage and --json mean the same on either side."""
    behind = played.run("sessions", "--json").stdout
    before = played.run("--json", "--storage", played.url, "sessions", storage=False).stdout
    assert before == behind != ""


def test_the_environment_says_where_the_sessions_are(played, monkeypatch):
    """TRIGGERS_STORAGE and TRIGGERS_APP stand in for the options; the application goes first, an option before both."""
    monkeypatch.setenv("TRIGGERS_STORAGE", played.url)
    assert len(played.lines("sessions", storage=False)) == 1
    monkeypatch.setenv("TRIGGERS_APP", "survey_app:number")
    assert "not a Triggers object" in played.error("sessions", storage=False, code=2)["message"]
    assert len(played.lines("sessions")) == 1


@pytest.mark.parametrize("app", ["inline", "threads", "firing_only"])
def test_an_application_is_found_in_the_current_folder(played, app):
    """--app module:attribute imports from there; a callable is called."""
    assert len(played.lines("sessions", "--app", f"survey_app:{app}", storage=False)) == 1


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ([], "--app module:attribute or --storage URL"),
        (["--app", "survey_app"], "write module:attribute"),
        (["--app", ":x"], "write module:attribute"),
        (["--app", "survey_ap:inline"], "there is no module survey_ap"),
        (["--app", "survey_app.sub:inline"], "survey_app"),
        (["--app", "survey_app:inlin"], "has no attribute 'inlin'"),
        (["--app", "survey_app:number"], "is a int, not a Triggers object"),
        (["--app", "broken:app"], "ZeroDivisionError: division by zero"),
        (["--app", "exits:app"], "SystemExit"),
        (["--app", "needs:app"], "No module named 'not_installed'"),
        (["--app", "survey_app:inline", "--storage", "sqlite:///x.db"], "exclude each other"),
        (["--storage", "survey.db"], "not a valid storage URL"),
        (["--storage", "sqlit:///survey.db"], "did you mean 'sqlite'?"),
        (["--storage", "memory://"], "exists only within one process"),
    ],
)
def test_a_wrong_place_is_wrong_use(place, options, words):
    """Whatever leads to no storage is exit code 2 and one line that says why, with no traceback."""
    (place.folder / "broken.py").write_text("1 / 0")
    (place.folder / "exits.py").write_text("raise SystemExit(0)")
    (place.folder / "needs.py").write_text("import not_installed")
    result = place.run("sessions", *options, storage=False, code=2)
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    error = place.error("sessions", *options, storage=False, code=2)
    assert words in error["message"]
    for name in ("broken", "exits", "needs"):
        sys.modules.pop(name, None)


@pytest.mark.parametrize("command", [["sessions"], ["show", "s"], ["sweep"], ["replay", "s", "t#0"]])
def test_a_slip_in_the_path_makes_no_file(place, command):
    """Only `fire` and `configure` make a storage; everything else says that there is none, with exit code 1."""
    url = f"sqlite:///{place.folder / 'surwey.db'}"
    assert "there is no file" in place.error(*command, "--storage", url, storage=False, code=1)["message"]
    assert not (place.folder / "surwey.db").exists()


def test_a_file_that_is_no_storage_is_one_line(place):
    """A file of something else is exit code 1, and stays as it is."""
    (place.folder / "survey.db").write_text("no database " * 100)
    result = place.run("sessions", code=1)
    assert result.stderr.count("\n") == 1
    assert (place.folder / "survey.db").read_text() == "no database " * 100


@pytest.mark.parametrize(
    "url",
    [
        "sqlite://ada:hunter2@host/x.db",
        "sqlite:///x.db?password=hunter2",
        "sqlit://ada:hunter2@host/x",
        "ada:hunter2@host/x",
        "redis:/:hunter2@host",
        "redis://:hunter2#@host",
        "postgresql://ada:1/hunter2@host/x",
        "postgresql://ada:hunter2@[host/x",
        "host=host password=hunter2",
    ],
)
def test_passwords_are_never_printed(place, url):
    """Whatever is wrong with a URL, its password is in no message, also if it was meant for another option."""
    for options in (["--storage", url], ["--storage", url, "--json"], ["--app", url]):
        result = place.run("fire", "s", "x", *options, storage=False, code=None)
        assert result.exit_code in (1, 2)
        assert "hunter2" not in result.output


# -- wrong use ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command",
    [
        ["frie"],
        ["show"],
        ["sessions", "--limit", "-1"],
        ["sessions", "--limit", "x"],
        ["show", "a", "b", "c"],
        ["logs", "a", "--level", "loud"],
        ["show", "a", "--status", "done"],
        ["--wrong"],
        ["sessions", "--wrong"],
    ],
)
def test_wrong_use_is_exit_code_2(place, command):
    """An unknown command or option, or a wrong value, is one line, as JSON where that is asked for."""
    result = place.run(*command, code=2)
    assert result.stdout == ""
    assert result.stderr.count("\n") == 1
    assert place.error(*command, code=2)["type"] == "UsageError"


def test_no_command_is_answered_with_the_help(place):
    """`triggers` alone prints what there is, on standard error, and ends with 2."""
    result = place.run(storage=False, code=2)
    assert result.stdout == ""
    assert "Commands:" in result.stderr


def test_each_command_has_help(place):
    """`triggers COMMAND --help` is exit code 0 and names the options that every command has."""
    commands = ["check", "configure", "demo", "explain", "fire", "logs", "purge", "replay"]
    for command in [*commands, "resolve-logs", "schema", "sessions", "show", "skip", "sweep", "work"]:
        text = place.run(command, "--help", storage=False).stdout
        assert all(option in text for option in ("--app", "--storage", "--json")), command
    assert all(command in place.run("--help", storage=False).stdout for command in commands)


# -- the real program -----------------------------------------------------------------------------------


def test_the_program_ends_with_its_exit_codes(played):
    """In a process of its own: 0, 1 and 2, results on one stream and one line of error on the other."""
    code, out, err = finished(played.start("show", "respondent-17", "--json", "--storage", played.url))
    assert (code, err) == (0, "")
    assert json.loads(out)["uid"] == "respondent-17"
    code, out, err = finished(played.start("show", "nobody", "--storage", played.url))
    assert (code, out, err) == (1, "", "triggers: there is no session 'nobody'\n")
    code, out, err = finished(played.start("show"))
    assert (code, out) == (2, "")
    assert err.startswith("triggers show: Missing argument 'UID'")


def test_the_program_has_a_name_of_its_own(place):
    """`triggers` is installed beside the interpreter, and is the same as `python -m triggers`."""
    done = subprocess.run(
        [f"{sys.prefix}/bin/triggers", "--version"], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.startswith("triggers ")
    assert finished(place.start("--version"))[1] == done.stdout


def test_output_that_the_terminal_cannot_show_is_escaped(place):
    """Where the encoding is ASCII, nothing fails: other characters are escaped, and tables drawn without them."""
    place.run("fire", "日本 🎉", "x")
    code, out, err = finished(
        place.start("sessions", "--storage", place.url, PYTHONIOENCODING="ascii", PYTHONUTF8="0")
    )
    assert (code, err) == (0, "")
    assert "\\u65e5\\u672c" in out


def test_no_colour_but_on_a_terminal(played):
    """Through a pipe there is no escape sequence in anything that is printed."""
    for command in (["sessions"], ["show", "respondent-17"], ["logs", "respondent-17"]):
        code, out, _ = finished(played.start(*command, "--storage", played.url))
        assert code == 0
        assert "\x1b" not in out


def test_a_reader_that_goes_away_is_no_error(place):
    """When nobody reads on, as with `| head`, the program ends at once and says nothing."""
    registry = place.open().registry

    @task(name="survey.talks", registry=registry)
    def talks(context):
        with context.get_logger_context() as logger:
            for number in range(2_000):
                logger.warning("Line %d %s", number, "x" * 100)

    with place.open(registry=registry) as app:
        app.session("s").update_configuration({"t": {"after": ["x"], "run": "survey.talks"}})
        app.session("s").fire("x")
    process = place.start("logs", "s", "--limit", "0", "--storage", place.url)
    assert "Line 0 " in process.stdout.readline()
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 141
    process.stderr.close()


def in_a_shell(place, command):
    """Run a shell command with the program as `$P`; return exit code, standard output and standard error."""
    done = subprocess.run(
        ["/bin/sh", "-c", command],
        cwd=place.folder,
        env={**os.environ, "P": f"{sys.executable} -m triggers", "TRIGGERS_STORAGE": place.url},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout, done.stderr


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
@pytest.mark.parametrize("buffered", ["PYTHONUNBUFFERED=1", "PYTHONUNBUFFERED="])
@pytest.mark.parametrize("command", ["show respondent-17", "logs respondent-17", "--help", "schema"])
def test_an_output_that_is_full_is_one_line(played, command, buffered):
    """If the output cannot be written, the exit code is 1 and one line says why, as JSON if that is asked for."""
    words = "the output could not be written: No space left on device"
    command = f"{buffered} $P {command}"
    assert in_a_shell(played, f"{command} > /dev/full") == (1, "", f"triggers: {words}\n")
    code, out, err = in_a_shell(played, f"{command} --json > /dev/full")
    if "--help" not in command:
        assert (code, out, json.loads(err)["error"]) == (1, "", {"type": "OutputError", "message": words})


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a device that is always full")
def test_an_error_that_cannot_be_written_keeps_its_exit_code(played):
    """If standard error is full, the exit code is that of the error."""
    assert in_a_shell(played, "$P show nobody 2> /dev/full") == (1, "", "")
    assert in_a_shell(played, "$P frie 2> /dev/full") == (2, "", "")


@pytest.mark.skipif(sys.platform == "win32", reason="there is no POSIX shell")
def test_closed_streams_are_like_the_null_device(played):
    """A command whose streams are closed does its work, prints no traceback, and leaves the storage intact."""
    assert in_a_shell(played, "$P show respondent-17 >&-") == (0, "", "")
    assert in_a_shell(played, "$P fire respondent-17 page >&- 2>&- <&-") == (0, "", "")
    assert in_a_shell(played, "$P show nobody 2>&-") == (1, "", "")
    assert in_a_shell(played, "$P configure s - <&-")[0] == 1
    assert played.json("show", "respondent-17")["firings"] == 10


def test_an_interrupt_is_quiet_and_lets_go(place):
    """Ctrl-C while a task runs ends with 130 and no traceback, and another process can run the task at once."""
    place.run("configure", "s", "-", stdin=HANGS)
    process = place.start("fire", "s", "x", "--app", "survey_app:threads")
    assert process.stderr.readline() == "begun\n"
    process.send_signal(signal.SIGINT)
    code, out, err = finished(process)
    assert (code, out, err) == (130, "", "")
    assert place.json("show", "s", "t_hang#0")["status"] == "scheduled"


def test_help_loads_no_storage():
    """`triggers --help` imports neither a storage nor a driver nor the demonstration."""
    program = (
        "import sys; from triggers.cli import main\n"
        "try: main(['--help'])\n"
        "except SystemExit: pass\n"
        "plain = ('announcements', 'base', 'in_time', 'joining', 'transaction', 'after_commit', 'scope', 'frameworks')\n"
        "heavy = {'sqlite3', 'pysqlite3', 'psycopg', 'redis', 'celery', 'kombu', 'sqlalchemy', 'django'}\n"
        "print([m for m in sys.modules if m.startswith('triggers.demo') or m.partition('.')[0] in heavy"
        " or m.startswith('triggers.storages.') and m.rpartition('.')[2] not in plain], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stderr == "[]\n"
