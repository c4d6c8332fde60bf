"""What people see of instances and exceptions that are rarer than others."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from datetime import timedelta

import pytest

from triggers import Registry, task, with_context
from triggers.cli.records import record_lines
from triggers.core import decisions

RULES = {"t": {"after": ["x"], "run": "survey.rare"}}


def words(text):
    """The text without what a table puts between its words."""
    return " ".join(text.split())


def run_once(place, body):
    """A session `s` whose only task is that function, fired once."""
    registry = Registry()
    task(name="survey.rare", registry=registry)(body)
    with place.open(registry=registry) as app:
        manager = app.session("s")
        manager.update_configuration(RULES)
        manager.fire("x", {"text": "y" * 1_000})


def test_a_cooldown_shows_when_it_ends(place):
    """A retry that waits is shown with its due time, and counted as due later."""

    def body(context):
        raise context.retry(cooldown=timedelta(days=1))

    run_once(place, body)
    shown = place.json("show", "s", "t#1")
    due = shown["run_at"][:19].replace("T", " ")
    assert f"due at {due} UTC; replays t#0" in words(place.run("show", "s").stdout)
    assert place.json("sweep")["later"] == 1


def test_an_instance_that_nobody_can_run_says_so(place):
    """Workers that do not have the task return it; the reason says how often."""
    run_once(place, lambda _: {})
    with place.open(runner="inline", registry=Registry()) as app:
        app.session("s").fire("other")
        app.session("s").update_configuration({"t_new": {"after": ["y"], "run": "survey.nowhere"}})
        app.session("s").fire("y")
    assert "no worker has its task; workers returned it 1 time" in words(place.run("show", "s").stdout)


def test_a_running_instance_names_its_worker(place):
    """While its lease lasts, an instance shows who runs it."""
    with place.open(runner=None) as app:
        manager = app.session("s")
        manager.update_configuration(RULES)
        manager.fire("x")
        terms = decisions.Terms(lease=10**12)
        app.storage.commit("s", decisions.claim(manager.policy, "t", 0, "host:1", lambda *_: terms))
    assert "run by host:1" in words(place.run("show", "s").stdout)
    assert place.json("show", "s")["instances"][0]["owner"] == "host:1"


def test_a_waiting_instance_of_a_removed_task_says_so(place):
    """Nothing can start it any more, and that is why."""
    with place.open(runner=None) as app:
        manager = app.session("s")
        manager.update_configuration({"t": {"after": ["x", "y"], "run": "survey.ok"}})
        manager.fire("x")
        manager.replace_configuration({})
    assert "its task is no longer configured" in words(place.run("show", "s").stdout)
    assert place.json("show", "s")["instances"][0]["waits_for"] == []


def test_every_branch_of_an_exception_is_shown(place):
    """Members of a group, notes, and the exception that was being handled each have a line."""

    def body(context):
        with context.get_logger_context():
            try:
                raise KeyError("first")  # noqa: TRY301 - its context is the point
            except KeyError:
                inner = with_context(ValueError("inner"), {"row": 3})
                inner.add_note("look at row 3")
                raise ExceptionGroup("several", [inner, TypeError("other")])  # noqa: B904 - as above

    run_once(place, body)
    lines = [line.strip() for line in place.run("logs", "s").stdout.splitlines()]
    assert any(line.startswith("ExceptionGroup: several") for line in lines)
    assert "ValueError: inner (row=3)" in lines
    assert "look at row 3" in lines
    assert "TypeError: other" in lines
    assert any(line.startswith("while handling KeyError: 'first'") for line in lines)


def test_a_captured_record_is_marked(place):
    """It was neither reviewed nor does it ask for that, so nobody is told its kind."""

    def body(context):
        with context.get_logger_context(capture=["survey.library"]) as logger:
            logging.getLogger("survey.library").error("Too slow")
            logger.info("Begun")

    run_once(place, body)
    captured, own = place.lines("logs", "s")
    assert [(each["message"], each["counts"]) for each in (captured, own)] == [
        ("Too slow", False),
        ("Begun", True),
    ]
    first, *_ = place.run("logs", "s").stdout.splitlines()
    assert first.endswith("Too slow (captured)")
    assert place.json("show", "s", "t#0")["log"]["level"] == "INFO"


def test_only_what_is_less_important_is_dim(played):
    """On a terminal, time and kind of a record are dim; its level and its message are not."""
    with played.open(runner=None) as app:
        (record,) = app.session("respondent-17").storage.logs("t_bad#0")
    line, *_ = record_lines(record, traceback=False)
    assert not line.style
    dim = "".join(line.plain[span.start : span.end] for span in line.spans if span.style == "dim")
    assert dim.endswith(f" kind {record.fingerprint}")
    assert "ERROR" not in dim
    assert "spam" not in dim


def test_a_long_value_is_cut_for_people_only(place):
    """A long value is cut with how much is missing; programs get all of it."""
    run_once(place, lambda _: {})
    assert "more characters)" in words(place.run("show", "s", "t#0").stdout)
    assert place.json("show", "s", "t#0")["kwargs"]["x"]["text"] == "y" * 1_000


def on_a_terminal(place, *command):
    """What a command prints, and what it shows on standard error where that is a terminal."""
    import pty  # noqa: PLC0415 - not on Windows

    terminal, end = pty.openpty()
    environment = {**os.environ, "SURVEY_URL": place.url, "TERM": "xterm"}
    with subprocess.Popen(
        [sys.executable, "-m", "triggers", *command],
        cwd=place.folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=end,
    ) as process:
        os.close(end)
        seen = b""
        try:
            while chunk := os.read(terminal, 65536):
                seen += chunk
        except OSError:  # the other end is closed
            pass
        out = process.stdout.read().decode()
    os.close(terminal)
    assert process.returncode == 0, seen
    return out, seen.decode()


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
def test_long_work_has_a_bar_on_a_terminal(place):
    """Where standard error is a terminal a bar shows how much is left, and standard output stays clean."""
    place.run("configure", "s", "-", stdin='{"t": {"andEvery": "x", "run": "survey.ok"}}')
    for _ in range(5):
        place.run("fire", "s", "x")
    out, seen = on_a_terminal(place, "sweep", "--app", "survey_app:threads")
    assert "running" in seen or "sweeping" in seen
    assert "left: 0 ready" in out
    assert "\x1b" not in out


@pytest.mark.skipif(sys.platform == "win32", reason="there are no pseudo-terminals")
@pytest.mark.parametrize(
    ("command", "doing", "done"),
    [
        (["purge", "--logs-older-than", "0s"], "deleting records", "deleted 2 records\n"),
        (
            ["purge", "--contexts-older-than", "0s", "--dry-run"],
            "counting contexts",
            "would delete the contexts of 1 record\n",
        ),
        (
            ["resolve-logs", "--all-sessions", "--fingerprint", "k"],
            "recording reviews",
            "reviewed 0 records of kind k\n",
        ),
    ],
)
def test_what_goes_over_all_sessions_has_a_bar(played, command, doing, done):
    """On a terminal it says what it is doing, and the result stands alone on standard output."""
    out, seen = on_a_terminal(played, *command, "--app", "survey_app:threads")
    assert doing in seen
    assert out.endswith(done)
    assert "\x1b" not in out
