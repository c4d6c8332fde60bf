"""The commands about what tasks said: logs, resolve-logs, purge."""

from __future__ import annotations

import json
import signal
from datetime import timedelta

import pytest

from tests.cli.conftest import RULES
from triggers import FinalizingTriggerManager, TriggerManager
from triggers.cli.values import duration

HIDDEN = {chr(code) for code in (*range(9), *range(11, 32), 127, *range(128, 160), 0x202E)}
UID = "respondent-17"
WARNED = "t_importSubject#0"


def fingerprints(place):
    """Level → kind of the records."""
    return {record["level"]: record["fingerprint"] for record in place.lines("logs", UID)}


@pytest.fixture
def played(place):
    """A session with three records: at INFO, WARNING and ERROR. No task retries, which is one more WARNING."""
    place.play(UID, {task: rule for task, rule in RULES.items() if task != "t_again"})
    return place


# -- logs -----------------------------------------------------------------------------------------------


def test_logs_have_message_context_and_exception(played):
    """A record shows what was said, with what was known; an exception with its context and what caused it."""
    text = played.run("logs", "respondent-17").stdout
    assert "Missing [red]names[/red]" in text
    assert "missing=2" in text
    assert "ValueError: spam [bold] (score=3)" in text
    assert "caused by KeyError: 'x'" in text
    assert "Traceback" not in text
    assert "Traceback" in played.run("logs", "respondent-17", "--traceback").stdout


def test_control_characters_never_reach_the_terminal(played):
    """What a task logged cannot move the cursor, clear the screen or fake a line of the log."""
    for command in (
        ["logs", "respondent-17"],
        ["logs", "respondent-17", "--json"],
        ["show", "respondent-17"],
    ):
        assert not HIDDEN & set(played.run(*command).stdout)
    lines = played.run("logs", "respondent-17").stdout.splitlines()
    assert "  | second \\x1b[31mline" in lines


def test_a_record_is_a_line_of_json(played):
    """Programs get each record with its cursor, its instance and every field that was stored."""
    info, warning, error = played.lines("logs", "respondent-17")
    assert [info["level"], warning["level"], error["level"]] == ["INFO", "WARNING", "ERROR"]
    assert warning["context"] == {"page": "\x1b[2J", "missing": 2}
    assert (warning["instance"], warning["number"], warning["attempt"]) == ("t_importSubject#0", 2, 1)
    assert warning["resolved"] is False
    assert error["exception"]["cause"]["type"] == "KeyError"
    assert info["cursor"] < warning["cursor"] < error["cursor"]


@pytest.mark.parametrize(
    ("query", "levels"),
    [
        (["--level", "warning"], ["WARNING", "ERROR"]),
        (["--level", "40"], ["ERROR"]),
        (["--text", "missing"], ["WARNING"]),
        (["t_bad#0"], ["ERROR"]),
        (["--limit", "1"], ["INFO"]),
        (["--text", "%"], []),
    ],
)
def test_logs_can_be_asked_for(played, query, levels):
    """Level, text, instance and limit leave out all other records."""
    assert [record["level"] for record in played.lines("logs", "respondent-17", *query)] == levels


def test_logs_are_paged_by_cursor(played):
    """Page by page, each record comes exactly once, and a person is told the cursor."""
    whole = played.lines("logs", "respondent-17")
    walked, after = [], "0"
    while page := played.lines("logs", "respondent-17", "--limit", "1", "--after", after):
        walked += page
        after = str(page[-1]["cursor"])
    assert walked == whole
    assert f"--after {whole[0]['cursor']}" in played.run("logs", "respondent-17", "--limit", "1").stdout
    assert "--after" not in played.run("logs", "respondent-17", "--limit", "3").stdout


def test_unresolved_leaves_out_what_was_reviewed(played):
    """After a review only the records of other instances are left, and the reviewed ones say so."""
    played.run("resolve-logs", "respondent-17", "t_importSubject#0")
    left = played.lines("logs", "respondent-17", "--unresolved")
    assert {record["instance"] for record in left} == {"t_bad#0"}
    assert "(reviewed)" in played.run("logs", "respondent-17").stdout


def test_the_latest_records_can_be_asked_for(played):
    """The last ones that the query lets through, in their order; nobody is told that there are earlier ones."""
    whole = played.lines("logs", UID)
    assert played.lines("logs", UID, "--latest", "--limit", "2") == whole[1:]
    assert played.lines("logs", UID, "--latest", "--limit", "0") == whole
    assert played.lines("logs", UID, WARNED, "--latest", "--limit", "1") == [whole[1]]
    assert "There are more" not in played.run("logs", UID, "--latest", "--limit", "1").stdout
    assert played.run("logs", UID, "--latest", "--level", "50").stdout == "No record matches these options.\n"


def test_records_of_a_kind_can_be_asked_for(played):
    """Each record says its kind; a person is told that of what asks for a review."""
    kinds = fingerprints(played)
    found = played.lines("logs", UID, "--fingerprint", kinds["WARNING"])
    assert [record["level"] for record in found] == ["WARNING"]
    assert played.lines("logs", UID, "--fingerprint", "0" * 16) == []
    text = played.run("logs", UID).stdout
    assert f"kind {kinds['WARNING']}" in text
    assert kinds["INFO"] not in text


def followed(process, count):
    """So many more records that the process shows."""
    return [json.loads(process.stdout.readline()) for _ in range(count)]


def interrupted(process):
    """What there is to say of a process that is told to stop: exit code, the rest of the output, errors."""
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    return process.returncode, out, err


def test_a_log_is_followed_until_an_interrupt(played):
    """It begins with the latest records, shows each that comes once, purges or not, and ends without a word."""
    options = ["--json", "--interval", "0.02", "--storage", played.url]
    process = played.start("logs", UID, "--follow", "--limit", "2", *options)
    whole = played.lines("logs", UID)
    assert followed(process, 2) == whole[1:]
    for _ in range(2):
        before = played.lines("logs", UID)[-1]["cursor"]
        with played.open() as app:
            app.session(UID).replay_failed_instance(app.session(UID).storage.instances_of_task("t_bad")[-1])
        assert followed(process, 1) == played.lines("logs", UID, "--after", before)
        played.run("purge", "--logs-older-than", "0s")
    assert interrupted(process) == (130, "", "")


def test_what_is_followed_can_be_narrowed_down(played):
    """By instance, level, text or kind; with --after it begins behind a record, for people and for programs."""
    cursor = str(played.lines("logs", UID)[0]["cursor"])
    options = ["--interval", "0.02", "--storage", played.url]
    by_text = played.start("logs", UID, "--follow", "--text", "missing", *options)
    after = played.start("logs", UID, "--follow", "--after", cursor, "--limit", "1", "--json", *options)
    assert "Missing [red]names[/red]" in by_text.stdout.readline()
    assert [record["level"] for record in followed(after, 2)] == ["WARNING", "ERROR"]
    with played.open() as app:
        app.session("other").update_configuration({"t": {"after": ["x"], "run": "survey.warn"}})
        app.session("other").fire("x")
        app.session(UID).replay_failed_instance("t_bad#0")
    (record,) = followed(after, 1)
    assert (record["instance"], record["level"]) == ("t_bad#1", "ERROR")
    assert interrupted(after) == (130, "", "")
    code, rest, err = interrupted(by_text)
    assert (code, err) == (130, "")
    assert "spam" not in rest


@pytest.mark.parametrize("interval", ["0", "-1", "soon"])
def test_an_interval_is_a_time(played, interval):
    """Nothing, less than nothing and words are wrong use."""
    played.run("logs", UID, "--follow", "--interval", interval, code=2)


# -- resolve-logs ---------------------------------------------------------------------------------------


def test_a_review_is_kept(played):
    """Who, why and through which record are kept with the instance, which no longer asks for a review."""
    options = ["--by", "ada", "--reason", "known"]
    document = played.json("resolve-logs", "respondent-17", "t_importSubject#0", *options)
    assert document["through"] == 2
    assert document["unresolved"] is None
    shown = played.json("show", "respondent-17", "t_importSubject#0")
    (review,) = shown["reviews"]
    assert (review["by"], review["reason"], review["through"]) == ("ada", "known", 2)
    assert shown["log"] == {
        "level": "WARNING",
        "unresolved": None,
        "counts": {"INFO": 1, "WARNING": 1},
        "dropped": 0,
    }
    assert (
        "by ada, reviewed through record 2: known"
        in played.run("show", "respondent-17", "t_importSubject#0").stdout
    )


def test_a_review_up_to_a_record_leaves_the_rest(played):
    """With --through what comes behind that record still needs a review."""
    document = played.json("resolve-logs", "respondent-17", "t_importSubject#0", "--through", "1")
    assert document["unresolved"] == "WARNING"
    text = played.run("resolve-logs", "respondent-17", "t_importSubject#0", "--through", "1").stdout
    assert "still needs a review" in text


def test_chosen_records_are_reviewed(played):
    """Each --record is covered, and the rest still asks; a number that is no record is wrong use."""
    document = played.json("resolve-logs", UID, WARNED, "--record", "1")
    assert document == {
        "uid": UID,
        "instance": WARNED,
        "outcome": "resolved",
        "through": None,
        "records": [1],
        "unresolved": "WARNING",
        "finalized": False,
    }
    text = played.run("resolve-logs", UID, WARNED, "--record", "2", "--record", "1", "--by", "ada").stdout
    assert text == f"{WARNED} was reviewed in records 1, 2\n"
    assert "by ada, reviewed in records 1, 2" in played.run("show", UID, WARNED).stdout
    error = played.error("resolve-logs", UID, WARNED, "--record", "3", code=2)
    assert error["message"] == f"{WARNED} has no record 3; its last record is 2"


def test_a_review_is_taken_back(played):
    """With --reopen all of the instance asks for a review again, and the audit says who wanted that."""
    played.run("resolve-logs", UID, WARNED)
    document = played.json("resolve-logs", UID, WARNED, "--reopen", "--by", "eve", "--reason", "look again")
    assert (document["outcome"], document["unresolved"]) == ("reopened", "WARNING")
    assert "by eve, reopened: look again" in played.run("show", UID, WARNED).stdout
    assert "was reopened" in played.run("resolve-logs", UID, WARNED, "--reopen").stdout
    outcomes = [review["outcome"] for review in played.json("show", UID, WARNED)["reviews"]]
    assert outcomes == ["resolved", "reopened", "reopened"]


def test_a_kind_is_reviewed_in_a_session(played):
    """Every record of it there is, and no other; a second time there is none left."""
    kind = fingerprints(played)["WARNING"]
    played.play("another")
    document = played.json("resolve-logs", UID, "--fingerprint", kind, "--by", "ada")
    assert document == {"uid": UID, "fingerprint": kind, "resolved": 1}
    assert (
        played.run("resolve-logs", UID, "--fingerprint", kind).stdout
        == f"reviewed 0 records of kind {kind}\n"
    )
    left = [record["level"] for record in played.lines("logs", UID, "--unresolved")]
    assert left == ["INFO", "ERROR"]
    assert len(played.lines("logs", "another", "--unresolved")) == 4


def test_a_kind_is_reviewed_in_every_session(played):
    """Also where that finalises a session; one whose manager is not here is left alone."""

    class Foreign(TriggerManager):
        name = "of.Our.Application"

    class Holding(FinalizingTriggerManager):
        name = "finalizing"
        finalize_max_level = 30

    kind = fingerprints(played)["WARNING"]
    played.play("foreign", manager=Foreign)
    played.play("held", manager=Holding)
    document = played.json("resolve-logs", "--all-sessions", "--fingerprint", kind, "--reason", "known")
    assert document == {"uid": None, "fingerprint": kind, "resolved": 2}
    left = {
        uid: played.lines("logs", uid, "--fingerprint", kind, "--unresolved")
        for uid in (UID, "held", "foreign")
    }
    assert {uid: len(records) for uid, records in left.items()} == {UID: 0, "held": 0, "foreign": 1}
    (review,) = played.json("show", "held", WARNED)["reviews"]
    assert (review["reason"], review["records"]) == ("known", [2])


@pytest.mark.parametrize(
    "scope",
    [
        [],
        [UID],
        ["--fingerprint", "k"],
        ["--all-sessions"],
        [UID, "--all-sessions"],
        [UID, "--all-sessions", "--fingerprint", "k"],
        [UID, WARNED, "--fingerprint", "k"],
        [UID, "--fingerprint", "k", "--record", "1"],
        ["--all-sessions", "--fingerprint", "k", "--reopen"],
        [UID, WARNED, "--record", "1", "--through", "2"],
        [UID, WARNED, "--record", "1", "--reopen"],
        [UID, WARNED, "--through", "0", "--reopen"],
        [UID, WARNED, "--record", "0"],
        [UID, "--reopen"],
    ],
)
def test_a_review_says_exactly_what_it_covers(played, scope):
    """Too little, or what contradicts itself, is wrong use, and nothing is kept."""
    assert played.error("resolve-logs", *scope, code=2)["type"] == "UsageError"
    assert played.json("show", UID, WARNED)["reviews"] == []


# -- purge ----------------------------------------------------------------------------------------------


def test_old_records_are_purged(played):
    """What asks for a review stays; a dry run counts and changes nothing."""
    whole = played.lines("logs", UID)
    assert played.run("purge", "--logs-older-than", "1d").stdout == "deleted 0 records\n"
    dry = played.json("purge", "--logs-older-than", "0s", "--dry-run")
    assert dry == {"dry_run": True, "contexts": None, "records": 1}
    assert played.run("purge", "--logs-older-than", "0s", "--dry-run").stdout == "would delete 1 record\n"
    assert played.lines("logs", UID) == whole
    assert played.run("purge", "--logs-older-than", "0s").stdout == "deleted 1 record\n"
    assert played.lines("logs", UID) == whole[1:]
    played.run("resolve-logs", UID, WARNED)
    assert played.json("purge", "--logs-older-than", "0s", "--level", "INFO")["records"] == 0
    assert played.json("purge", "--logs-older-than", "0s", "--level", "warning")["records"] == 1
    assert [record["level"] for record in played.lines("logs", UID)] == ["ERROR"]


def test_contexts_may_be_purged_sooner(played):
    """Messages stay as long as they were to; both ages together do what each alone does."""
    played.run("resolve-logs", UID, WARNED)
    both = ["--contexts-older-than", "0s", "--logs-older-than", "1d"]
    assert (
        played.run("purge", *both, "--dry-run").stdout
        == "would delete the contexts of 2 records\nwould delete 0 records\n"
    )
    assert played.json("purge", *both) == {"dry_run": False, "contexts": 2, "records": 0}
    contexts = [bool(record["context"]) for record in played.lines("logs", UID)]
    assert contexts == [False, False, True], "who reviews the error needs its context"


@pytest.mark.parametrize(
    "ages",
    [
        [],
        ["--level", "INFO"],
        ["--logs-older-than", "30"],
        ["--logs-older-than", "-1d"],
        ["--logs-older-than", "1.5d"],
        ["--logs-older-than", ""],
        ["--logs-older-than", "9999999999d"],
        ["--logs-older-than", "1d", "--contexts-older-than", "24h"],
        ["--logs-older-than", "1d", "--level", "loud"],
    ],
)
def test_a_purge_says_what_is_to_go(played, ages):
    """No age, one that is none, or contexts that are to outlive their records, is wrong use; nothing goes."""
    assert played.error("purge", *ages, code=2)["type"] == "UsageError"
    assert len(played.lines("logs", UID)) == 3


def test_an_age_is_a_number_of_units():
    """Weeks, days, hours, minutes and seconds, which add up."""
    assert [duration(text) for text in ("30d", "12h", "90m", "45s", "2w", "1d12h", "0s")] == [
        timedelta(days=30),
        timedelta(hours=12),
        timedelta(minutes=90),
        timedelta(seconds=45),
        timedelta(days=14),
        timedelta(days=1, hours=12),
        timedelta(),
    ]
