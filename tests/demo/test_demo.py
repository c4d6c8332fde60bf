"""The questionnaire, played: complete, the same every time, and indifferent to being killed."""

from __future__ import annotations

import json
import logging
import random
import subprocess
import sys
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from triggers import Status, Triggers
from triggers.demo.assessment import is_plausible, oddity, score
from triggers.demo.main import SEED, TOLERANCE, DemoCounts, run
from triggers.demo.results import OtherSurveyError, Results, results_in
from triggers.demo.rules import survey_rules
from triggers.demo.show import show
from triggers.demo.study import PAGES, arrivals_of, is_embedded, is_incomplete, read_answers, uid_of
from triggers.demo.tasks import survey
from triggers.exceptions import StorageError
from triggers.testing import TriggersHarness

ROOT = Path(__file__).parents[2]

#: The first two whose education stays implausible are among so many.
RESPONDENTS = 50
NUMBERS = range(1, RESPONDENTS + 1)
ANSWERS = dict(enumerate(read_answers(), start=1))
COMPLETE = [number for number in NUMBERS if not is_incomplete(number, SEED)]
INCOMPLETE = [number for number in NUMBERS if is_incomplete(number, SEED)]

#: Enough for a machine under load, and soon over for a test.
LEASE, GRACE = timedelta(seconds=1), timedelta(seconds=0.3)

#: Plays a few respondents, and kills itself right after the commit of that number among those that do such a thing.
CHILD = """
import os, signal, sys
from datetime import timedelta
from pathlib import Path
from triggers.demo.main import run
from triggers.storages.sqlite import SqliteStorage

DOES = {
    "anything": lambda changes: True,
    "configured": lambda changes: changes.new_rules,
    "claimed": lambda changes: changes.claimed is not None,
    "imported": lambda changes: bool(changes.fired) and changes.fired[0].trigger.endswith("Imported"),
    "finalized": lambda changes: any(firing.trigger == "sessionFinalized" for firing in changes.fired),
    "replayed": lambda changes: any(moved.status == "replayed" for moved, _ in changes.transitioned),
    "skipped": lambda changes: any(moved.status == "skipped" for moved, _ in changes.transitioned),
    "never": lambda changes: False,
}
folder, respondents, does, left = Path(sys.argv[1]), int(sys.argv[2]), DOES[sys.argv[3]], int(sys.argv[4])
commit = SqliteStorage.commit

def commit_and_die(*given, **options):
    global left
    changes = commit(*given, **options)
    left -= does(changes)
    if left <= 0:
        os.kill(os.getpid(), signal.SIGKILL)
    return changes

SqliteStorage.commit = commit_and_die
run(
    f"sqlite:///{folder / 'survey.db'}",
    results_path=folder / "results.db",
    respondents=respondents,
    lease=timedelta(seconds=1),
    grace=timedelta(seconds=0.3),
)
"""


def play(folder: Path, respondents: int = RESPONDENTS, **options) -> DemoCounts:
    return run(
        f"sqlite:///{folder / 'survey.db'}?synchronous=normal",
        results_path=folder / "results.db",
        respondents=respondents,
        **{"lease": LEASE, "grace": GRACE, **options},
    )


def found_in(folder: Path, task: str | None = None):
    with closing(Results(str(folder / "results.db"))) as results:
        return results.rows(task)


@pytest.fixture(scope="module")
def played(tmp_path_factory):
    folder = tmp_path_factory.mktemp("survey")
    return folder, play(folder, workers=4)


@pytest.fixture
def sessions(played):
    folder, _ = played
    with Triggers(f"sqlite:///{folder / 'survey.db'}", runner=None, registry=survey) as triggers:
        yield {number: triggers.session(uid_of(number)).storage for number in NUMBERS}


def test_nothing_is_left_to_do(played):
    """At the end nothing is scheduled, running or failed, and every complete session is finalized."""
    _, counts = played
    assert counts.sessions == RESPONDENTS
    assert counts.finalized == len(COMPLETE)
    assert (counts.instances["scheduled"], counts.instances["running"], counts.instances["failed"]) == (
        0,
        0,
        0,
    )
    assert counts.results == counts.instances["finished"]


@pytest.mark.parametrize("workers", [1, 3])
def test_threads_make_no_difference(played, tmp_path, workers):
    """Any number of threads ends with the same counts and the same table."""
    folder, counts = played
    assert play(tmp_path, workers=workers) == counts
    assert found_in(tmp_path) == found_in(folder)


def test_the_storage_makes_no_difference(played, tmp_path):
    """In memory it ends with the same counts and the same table."""
    folder, counts = played
    assert run("memory://", results_path=tmp_path / "results.db", respondents=RESPONDENTS) == counts
    assert found_in(tmp_path) == found_in(folder)


def test_everybody_who_completes_is_scored(played):
    """The score of each complete respondent is the one computed straight from the file, and nobody else has one."""
    folder, _ = played
    scores = {respondent: found for _, respondent, _, found in found_in(folder, "t_score")}
    expected = {}
    for number in COMPLETE:
        answers = ANSWERS[number]
        plausible = is_plausible(answers["age"], answers["educ"], TOLERANCE)
        expected[uid_of(number)] = {**score(answers), "news": answers["TVnews"], "plausible": plausible}
    assert scores == expected


def test_every_page_is_taken_in_once(played):
    """Each page of each complete respondent is in the table once, as it is in the file."""
    folder, _ = played
    imported = sorted(
        (respondent, found["page"], found["answers"])
        for _, respondent, _, found in found_in(folder, "t_importResponses")
    )
    assert imported == sorted(
        (uid_of(number), page, {name: ANSWERS[number][name] for name in names})
        for number in COMPLETE
        for page, names in PAGES.items()
    )


def test_repeats_do_nothing(sessions):
    """A session holds each message once, in the order in which they first arrived."""
    for number, session in sessions.items():
        fired = [
            (firing.trigger, firing.key)
            for firing in session._reader.firings(session.uid)
            if firing.key is not None and not firing.source
        ]
        sent = [(arrival.trigger, arrival.key) for arrival in arrivals_of(number, ANSWERS[number], SEED)]
        assert fired == list(dict.fromkeys(sent))


def test_playing_it_again_does_nothing(played):
    """A second run over a survey that is done ends with the same counts and the same table."""
    folder, counts = played
    before = found_in(folder)
    assert play(folder) == counts
    assert found_in(folder) == before


def test_embedded_questionnaires_have_no_browser(played, sessions):
    """Of an embedded questionnaire the browser task is abandoned; of any other complete one it has the browser."""
    folder, _ = played
    browsers = {
        respondent: found["browser"] for _, respondent, _, found in found_in(folder, "t_importBrowser")
    }
    for number, session in sessions.items():
        assert [instance.name for instance in session.instances_of_task("t_importBrowser")] == [
            "t_importBrowser#0"
        ]
        status = session["t_importBrowser#0"].status
        if is_embedded(number, SEED):
            assert status is Status.ABANDONED
        else:
            assert status is (Status.FINISHED if number in COMPLETE else Status.UNSTARTED)
            first = next(a for a in arrivals_of(number, ANSWERS[number], SEED) if a.trigger == "pageReceived")
            assert browsers.get(session.uid) == (first.kwargs["browser"] if number in COMPLETE else None)


def test_who_never_completes_is_never_taken_in(sessions):
    """An incomplete questionnaire waits for its completion, says so, and is not finalized."""
    for number in INCOMPLETE:
        assert sessions[number]["t_importSubject#0"].status is Status.UNSTARTED
        assert "questionnaireComplete" in sessions[number].explain("t_importSubject").sentence
        assert not sessions[number].finalized


def test_who_never_completes_is_reminded_and_closed_later(played, sessions):
    """Both timers are set and come days later; a completion abandons the reminder and meets the deadline."""
    _, counts = played
    assert counts.timers == 2 * len(INCOMPLETE) > 0
    for number, session in sessions.items():
        waits = number in INCOMPLETE
        (reminder,) = session.instances_of_task("t_remind")
        assert reminder.status is (Status.UNSTARTED if waits else Status.ABANDONED)
        assert list(session.instances_of_task("t_close")) == []
        if waits:
            assert "unless questionnaireComplete fires before" in session.explain("t_remind").sentence
            assert "then t_importSubject:missed fires" in session.explain("t_importSubject").sentence


def test_after_two_weeks_an_incomplete_questionnaire_is_closed(tmp_path):
    """On a clock that moves, the reminder comes after three days, and the deadline after fourteen."""
    number = INCOMPLETE[0]
    with TriggersHarness(registry=survey) as harness, closing(results_in(str(tmp_path / "r.db"))) as results:
        results.prepare(SEED)
        session = harness.session(uid_of(number))
        session.update_configuration(survey_rules(tmp_path / "r.db"))
        for arrival in arrivals_of(number, ANSWERS[number], SEED):
            session.fire(arrival.trigger, arrival.kwargs, key=arrival.key)
        harness.advance(timedelta(days=3))
        assert [task for _, _, task, _ in results.rows()] == ["t_remind"]
        harness.advance(timedelta(days=10, hours=23))
        assert results.count() == 1
        harness.advance(timedelta(hours=1))
        ((_, _, _, found),) = results.rows("t_close")
        assert found == {"lacks": ["questionnaireComplete"]}


def test_a_failed_check_is_flagged_once(played, sessions):
    """By a task that runs after the first failure, with its error; a second failure flags nobody again."""
    folder, _ = played
    flagged = {respondent: found for _, respondent, _, found in found_in(folder, "t_flag")}
    failed = {n for n in COMPLETE if not is_plausible(ANSWERS[n]["age"], ANSWERS[n]["educ"], 0)}
    assert flagged.keys() == {uid_of(number) for number in failed}
    for number in failed:
        session = sessions[number]
        assert flagged[session.uid] == {
            "instance": "t_checkSubject#0",
            "error": session["t_checkSubject#0"].error["message"],
        }
        assert [instance.name for instance in session.instances_of_task("t_flag")] == ["t_flag#0"]


def test_implausible_ages_are_reviewed(sessions):
    """A check that fails is replayed once with a tolerance, and skipped if it fails again; its session goes on."""
    ends = set()
    for number in COMPLETE:
        age, educ = ANSWERS[number]["age"], ANSWERS[number]["educ"]
        checks = [instance.status.value for instance in sessions[number].instances_of_task("t_checkSubject")]
        if is_plausible(age, educ, 0):
            assert checks == ["finished"]
        else:
            assert checks == ["replayed", "finished" if is_plausible(age, educ, TOLERANCE) else "skipped"]
            error = sessions[number]["t_checkSubject#0"].error
            assert (error["type"], error["context"]["age"], error["context"]["educ"]) == (
                "ValueError",
                age,
                educ,
            )
        ends.add(checks[-1])
        assert sessions[number].finalized
    assert ends == {"finished", "skipped"}


def test_odd_answers_are_warned_about_with_the_answers(sessions):
    """Exactly the odd pages and the votes for the farther candidate are warned about, with the answers as context."""
    warned = {}
    for number, session in sessions.items():
        for record in session.logs(min_level=logging.WARNING):
            if record.entry.level == logging.WARNING:
                warned.setdefault(number, []).append(record.entry)
    expected = dict.fromkeys(COMPLETE, 0)
    for number in COMPLETE:
        answers = ANSWERS[number]
        pages = [{name: answers[name] for name in names} for names in PAGES.values()]
        expected[number] = sum(oddity(page) is not None for page in pages) + (
            score(answers)["agrees"] is False
        )
    assert {number: len(entries) for number, entries in warned.items()} == {
        n: c for n, c in expected.items() if c
    }
    for number, entries in warned.items():
        for entry in entries:
            shown = entry.context.get("answers", entry.context)
            assert (
                ANSWERS[number].items()
                >= {n: v for n, v in shown.items() if n in ANSWERS[number] and n != "vote"}.items()
            )


def test_warned_counts_each_instance_that_said_so(played, sessions):
    """The count of warned instances is that of instances at WARNING or above."""
    _, counts = played
    levels = [instance.log_level for session in sessions.values() for instance in session]
    assert counts.warned == sum(level >= logging.WARNING for level in levels)
    assert 0 < counts.warned < len(levels) / 5


def test_more_respondents_continue_with_fewer(played, tmp_path):
    """Twenty respondents first and then all of them end as all of them at once."""
    folder, counts = played
    assert play(tmp_path, 20).sessions == 20
    assert play(tmp_path) == counts
    assert found_in(tmp_path) == found_in(folder)


def test_another_seed_is_refused(played):
    """Files that hold the survey of one seed are not mixed with that of another, and stay as they are."""
    folder, counts = played
    with pytest.raises(OtherSurveyError, match=f"seed {SEED}, not 7"):
        play(folder, seed=7)
    assert play(folder) == counts


# -- killed ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("does", "number", "respondents"),
    [
        ("configured", 5, 8),
        ("claimed", 20, 8),
        ("imported", 7, 8),
        ("finalized", 2, 8),
        ("replayed", 3, 45),
        ("skipped", 1, 45),
    ],
)
def test_kill_9_at_each_kind_of_commit_changes_nothing(tmp_path, does, number, respondents):
    """Killed right after a commit of each kind and started again, it ends with the same counts and the same table."""
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    undisturbed.mkdir()
    killed.mkdir()
    assert die(killed, respondents, does, number)
    assert play(killed, respondents) == play(undisturbed, respondents)
    assert found_in(killed) == found_in(undisturbed)


@pytest.mark.parametrize(
    ("kills", "respondents"),
    [(10, 8), pytest.param(200, 40, marks=[pytest.mark.slow, pytest.mark.timeout(3600)])],
)
def test_kill_9_again_and_again_changes_nothing(tmp_path, kills, respondents):
    """Killed many times, at commits and at any moment, it ends with the same counts and the same table."""
    undisturbed, killed = tmp_path / "undisturbed", tmp_path / "killed"
    undisturbed.mkdir()
    killed.mkdir()
    expected = play(undisturbed, respondents)
    dice = random.Random(kills)
    deaths = 0
    for _ in range(kills):
        if dice.random() < 0.7:
            deaths += die(killed, respondents, "anything", dice.randrange(1, 30 * respondents))
        else:
            deaths += die(killed, respondents, "never", 1, after=dice.uniform(0.3, 3))
    assert deaths > kills / 3
    assert play(killed, respondents) == expected
    assert found_in(killed) == found_in(undisturbed)


def die(folder: Path, respondents: int, does: str, number: int, after: float | None = None) -> bool:
    """Play until killed, at a commit, or after so many seconds; False if it was done before."""
    arguments = [str(folder), str(respondents), does, str(number)]
    with subprocess.Popen([sys.executable, "-c", CHILD, *arguments], stderr=subprocess.DEVNULL) as child:
        try:
            child.wait(after)
        except subprocess.TimeoutExpired:
            child.kill()
    assert child.returncode in {0, -9}
    return child.returncode != 0


# -- shown -------------------------------------------------------------------------------------------------


def test_the_last_line_is_for_programs(played, capsys):
    """Shown, it ends with one line of JSON that has the counts, and tells how to look into the sessions."""
    folder, counts = played
    show(folder, respondents=RESPONDENTS)
    printed = capsys.readouterr().out.splitlines()
    shown = json.loads(printed[-1])
    expected = counts.to_json()
    assert shown.pop("seconds") >= 0
    del expected["seconds"]
    assert shown == expected
    assert set(shown) == {"sessions", "finalized", "firings", "instances", "warned", "results", "timers"}
    assert any("triggers show respondent-043 --storage sqlite:///" in line for line in printed)


def test_json_is_all_that_a_program_gets(played, capsys):
    """With as_json the counts are the only line, and nothing stands on standard error."""
    folder, _ = played
    show(folder, respondents=RESPONDENTS, as_json=True)
    printed = capsys.readouterr()
    assert json.loads(printed.out)["sessions"] == RESPONDENTS
    assert printed.out.count("\n") == 1
    assert printed.err == ""


def test_what_tasks_say_stays_off_the_terminal(tmp_path, capsys):
    """The warnings of the tasks are recorded, and not printed between the bars."""
    counts = show(tmp_path / "new folder", respondents=10)
    assert counts.warned
    assert "Odd answers" not in "".join(capsys.readouterr())


def test_results_of_other_sessions_are_noticed(tmp_path, capsys):
    """Where the results have gone and the sessions have not, it says so instead of a finding."""
    show(tmp_path, respondents=5)
    (tmp_path / "results.db").unlink()
    show(tmp_path, respondents=5)
    assert "does not belong to these sessions" in capsys.readouterr().out


def test_a_folder_that_cannot_be_is_a_clear_error(tmp_path):
    """A file where the folder should be is a StorageError that names it."""
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot create the folder"):
        show(tmp_path / "file")


@pytest.mark.parametrize(
    ("number", "says"), [(2, "t_score found"), (6, "drops t_importBrowser#0"), (43, "failed")]
)
def test_the_example_plays_one_respondent(number, says):
    """The example shows what each message sets off, whatever becomes of the questionnaire."""
    example = ROOT / "examples" / "questionnaire" / "one_respondent.py"
    done = subprocess.run(
        [sys.executable, "-W", "error", str(example), str(number)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert says in done.stdout


def test_the_example_has_the_packaged_data():
    """The data beside the example is the file that the package ships."""
    packaged = ROOT / "src" / "triggers" / "demo" / "anes96.tsv"
    assert (ROOT / "examples" / "questionnaire" / "anes96.tsv").read_bytes() == packaged.read_bytes()
