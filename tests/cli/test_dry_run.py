"""The option --dry-run of the commands that change a session: what would happen is printed, and nothing is changed."""

from __future__ import annotations

import json

import pytest

RULES = json.dumps({"t_one": {"after": ["x"], "run": "survey.ok"}})

DRY_RUNS = {
    "fire": (["fire", "respondent-17", "page", "-p", "note=[bold]3[/bold]"], None, "would schedule"),
    "replay": (["replay", "respondent-17", "t_bad#0"], None, "would create t_bad#1"),
    "skip": (["skip", "respondent-17", "t_bad#0", "--cascade"], None, "would skip t_bad#0"),
    "configure": (["configure", "respondent-17", "-"], RULES, "would change the configuration"),
}


@pytest.mark.parametrize("name", DRY_RUNS)
def test_a_dry_run_prints_what_would_happen(played, name):
    """Nothing is changed, and the command without the option then does it."""
    command, stdin, printed = DRY_RUNS[name]
    before = played.json("show", "respondent-17")
    text = played.run(*command, "--dry-run", stdin=stdin).stdout
    assert printed in text
    assert text.endswith("\nnothing was changed\n")
    document = played.json(*command, "--dry-run", stdin=stdin)
    assert (document["dry_run"], document["uid"], document["is_empty"]) == (True, "respondent-17", False)
    assert played.json("show", "respondent-17") == before
    played.run(*command, stdin=stdin)
    assert played.json("show", "respondent-17") != before


def test_a_dry_run_shows_kwargs_as_they_are(played):
    """What looks like markup is text; in the document, every type is written as in --kwargs."""
    command = [
        "fire",
        "respondent-17",
        "page",
        "-p",
        "note=[bold]3[/bold]",
        "-p",
        'on={"$date": "2026-11-30"}',
    ]
    assert "'note': '[bold]3[/bold]'" in played.run(*command, "--dry-run").stdout
    (fired,) = played.json(*command, "--dry-run")["fired"]
    assert fired["kwargs"] == {"note": "[bold]3[/bold]", "on": {"$date": "2026-11-30"}}


def test_a_dry_run_creates_no_file_and_no_session(place):
    """A file that does not exist is an error; in one that exists, the session would be created."""
    for command in (["fire", "s", "x"], ["configure", "s", "-"]):
        assert "there is no file" in place.error(*command, "--dry-run", code=1, stdin=RULES)["message"]
    place.open().close()
    assert "would create the session\n" in place.run("fire", "s", "x", "--dry-run").stdout
    assert place.json("configure", "s", "-", "--dry-run", stdin=RULES)["new_session"] is True
    assert place.lines("sessions") == []


def test_a_dry_run_with_the_application_runs_nothing(place):
    """The runner of the application gets nothing to do."""
    options = ["--app", "survey_app:inline"]
    place.run("configure", "s", "-", *options, stdin=RULES, storage=False)
    text = place.run("fire", "s", "x", "--dry-run", *options, storage=False).stdout
    assert "would schedule t_one#0" in text
    assert place.json("show", "s")["instances"] == []


def test_a_dry_run_fails_like_the_command(played):
    """The error and the exit code are those of the command."""
    for command in (["replay", "respondent-17", "t_good#7"], ["skip", "nobody", "t#0"]):
        assert played.error(*command, "--dry-run", code=1) == played.error(*command, code=1)
    played.run("skip", "respondent-17", "t_bad#0")
    for name in ("replay", "skip"):
        command = [name, "respondent-17", "t_bad#0"]
        assert played.error(*command, "--dry-run", code=1) == played.error(*command, code=1)


@pytest.mark.parametrize("when", [["--after", "P3D"], ["--at", "2030-01-31T12:00:00Z"]])
def test_a_timer_has_no_dry_run(place, when):
    """What it would fire is decided when it elapses."""
    done = place.run("fire", "new", "page", "--dry-run", *when, code=2)
    assert "excludes --after and --at" in done.stderr
