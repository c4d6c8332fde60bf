"""The commands that change a session: configure, fire, replay, skip."""

from __future__ import annotations

import json
from datetime import date, datetime, timedelta
from decimal import Decimal
from uuid import UUID

import pytest

from triggers import FinalizingTriggerManager, TriggerManager

RULES = json.dumps(
    {"t_one": {"after": ["x"], "run": "survey.ok"}, "t_two": {"after": ["t_one"], "run": "survey.ok"}}
)


def kwargs_of(place, uid, trigger):
    """What the trigger's latest firing brought."""
    with place.open(runner=None) as app:
        return app.session(uid).storage.latest_kwargs.get(trigger)


def statuses(place, uid):
    """Instance → status."""
    return {instance["name"]: instance["status"] for instance in place.json("show", uid)["instances"]}


# -- fire -----------------------------------------------------------------------------------------------


def test_a_firing_says_what_it_did(place):
    """The document names what was created and released; nothing runs with --storage."""
    place.run("configure", "s", "-", stdin=RULES)
    fired = place.json("fire", "s", "x", "-p", "page=3")
    assert fired == {
        "uid": "s",
        "trigger": "x",
        "number": 1,
        "duplicate": False,
        "created": ["t_one#0"],
        "scheduled": ["t_one#0"],
        "abandoned": [],
        "finalized": False,
        "listeners": ["t_one"],
        "new_session": False,
    }
    assert statuses(place, "s") == {"t_one#0": "scheduled"}


def test_a_firing_says_that_no_task_listens(place):
    """A trigger that no rule names is stored, and the text has the name that was probably meant."""
    place.run(
        "configure", "s", "-", stdin=json.dumps({"t_one": {"after": ["pageReceived"], "run": "survey.ok"}})
    )
    assert place.json("fire", "s", "page_received")["listeners"] == []
    text = place.run("fire", "s", "page_received").stdout
    assert "no task listens to page_received; did you mean 'pageReceived'?" in text
    assert "no task listens to z\n" in place.run("fire", "s", "z").stdout
    assert "no task listens" not in place.run("fire", "s", "pageReceived").stdout
    why = place.run("explain", "s", "t_one").stdout
    assert "perhaps" not in why  # it was fired in the meantime


def test_the_application_runs_what_is_released(place):
    """With --app the application's runner runs it in this process, cascades too, before the command ends."""
    place.run("configure", "s", "-", stdin=RULES)
    for number, app in enumerate(("inline", "threads")):
        options = ["--app", f"survey_app:{app}"]
        place.run("configure", app, "-", *options, stdin=RULES, storage=False)
        text = place.run("fire", app, "x", *options, storage=False).stdout
        assert "scheduled t_one#0 (now finished)" in text, number
        assert statuses(place, app) == {"t_one#0": "finished", "t_two#0": "finished"}


def test_a_key_makes_a_repeat_harmless(place):
    """The second firing with a key does nothing and says so; with other kwargs it is exit code 1."""
    first = place.json("fire", "s", "x", "-p", "a=1", "--key", "k")
    again = place.json("fire", "s", "x", "-p", "a=1", "--key", "k")
    assert (first["duplicate"], again["duplicate"]) == (False, True)
    assert again["number"] == first["number"] == 1
    assert "nothing was changed" in place.run("fire", "s", "x", "-p", "a=1", "--key", "k").stdout
    error = place.error("fire", "s", "x", "-p", "a=2", "--key", "k", code=1)
    assert error["type"] == "IdempotencyConflictError"


def test_an_unknown_session_is_made(place):
    """Firing into a session that does not exist makes it, keeps the firing, and says that nothing can run yet."""
    text = place.run("fire", "fresh", "x").stdout
    assert "created the session, with the manager default" in text
    assert "no configuration yet" in text
    assert place.json("show", "fresh")["firings"] == 1


@pytest.mark.parametrize(
    ("given", "kwargs"),
    [
        (["--kwargs", '{"a": 1}'], {"a": 1}),
        (["-p", "a=1", "-p", "b=text", "-p", 'c="1"', "-p", "d=[1, {}]", "-p", "e="], {"a": 1, "b": "text", "c": "1", "d": [1, {}], "e": ""}),
        (["-p", "zip=01234", "-p", "n=NaN", "-p", "eq=a=b"], {"zip": "01234", "n": "NaN", "eq": "a=b"}),
        (["--kwargs", '{"a": 1, "b": 1}', "-p", "b=2"], {"a": 1, "b": 2}),
        (["--kwargs", '{"$$ref": 1}'], {"$ref": 1}),
        ([], {}),
    ],
)  # fmt: skip
def test_kwargs_are_json_or_pairs(place, given, kwargs):
    """--kwargs takes an object, -p one key over it: JSON if it reads as JSON, else text."""
    place.run("fire", "s", "x", *given)
    assert kwargs_of(place, "s", "x") == kwargs


def test_kwargs_have_every_type_that_can_be_stored(place):
    """The objects of one key that stand for other types become those types, in --kwargs and in -p."""
    written = {
        "at": {"$datetime": "2026-11-22T10:15:00+00:00"},
        "took": {"$timedelta": [1, 30, 0]},
        "cost": {"$decimal": "9.90"},
        "id": {"$uuid": "0f8fad5b-d9cb-469f-a165-70867728950e"},
        "raw": {"$bytes": "aGVsbG8="},
    }
    place.run("fire", "s", "x", "--kwargs", json.dumps(written), "-p", 'on={"$date": "2026-11-22"}')
    assert kwargs_of(place, "s", "x") == {
        "at": datetime.fromisoformat("2026-11-22T10:15:00+00:00"),
        "took": timedelta(days=1, seconds=30),
        "cost": Decimal("9.90"),
        "id": UUID("0f8fad5b-d9cb-469f-a165-70867728950e"),
        "raw": b"hello",
        "on": date(2026, 11, 22),
    }


def test_kwargs_come_from_a_file_or_standard_input(place):
    """--kwargs-file reads a file, and - standard input; a byte order mark is no harm."""
    (place.folder / "kwargs.json").write_text('{"a": "ä"}', encoding="utf-8-sig")
    place.run("fire", "s", "x", "--kwargs-file", "kwargs.json")
    assert kwargs_of(place, "s", "x") == {"a": "ä"}
    place.run("fire", "s", "x", "--kwargs-file", "-", stdin='{"b": 2}')
    assert kwargs_of(place, "s", "x") == {"b": 2}


def test_kwargs_have_tuples_sets_and_any_key(place):
    """Containers that JSON lacks are written as they are stored, and fired as what they stand for."""
    written = {
        "pair": {"$tuple": [1, {"$set": [{"$date": "2026-11-22"}]}]},
        "by": {"$dict": [1, {"$date": "2026-11-22"}]},
    }
    place.run("fire", "s", "x", "--kwargs", json.dumps(written))
    day = date(2026, 11, 22)
    assert kwargs_of(place, "s", "x") == {"pair": (1, {day}), "by": {1: day}}
    place.run("fire", "s", "x", "--kwargs", json.dumps({"$dict": [1, 2, "a", 3]}))
    assert kwargs_of(place, "s", "x") == {1: 2, "a": 3}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (["--kwargs", "{"], "not JSON"),
        (["--kwargs", "[1]"], "expected a JSON object"),
        (["--kwargs", '{"a": 1, "a": 2}'], "appears twice"),
        (["--kwargs", '{"a": Infinity}'], "Infinity is not a number"),
        (["--kwargs", '{"a": [{"$ref": 1}]}'], "value.a[0]: '$ref' is not a type"),
        (["--kwargs", '{"a": {"$datetime": "soon"}}'], "is not a valid datetime"),
        (["--kwargs", '{"a": {"$decimal": "many"}}'], "is not a valid decimal"),
        (["--kwargs", '{"a": {"$tuple": "ab"}}'], '"ab" is not a valid tuple: a list is needed'),
        (["--kwargs", '{"a": {"$tuple": [{"$dat": 1}]}}'], "value.a[0]: '$dat' is not a type"),
        (["--kwargs", '{"a": {"$set": [[]]}}'], "is not a valid set: unhashable type"),
        (["--kwargs", '{"a": {"$dict": [1]}}'], "[1] is not a valid dict"),
        (["--kwargs", '{"a": {"$timedelta": 5}}'], "is not a valid timedelta"),
        (["--kwargs", '{"a": "\\ud800"}'], "lone surrogate"),
        (["--kwargs", '{"a": 1' + "0" * 30 + "}"], "more than 64 bits"),
        (["-p", "a"], "not of the form key=value"),
        (["-p", "=1"], "not of the form key=value"),
        (["-p", 'a={"$date": 1}'], "is not a valid date"),
        (["--kwargs-file", "nowhere.json"], "nowhere.json"),
        (["--kwargs", "{}", "--kwargs-file", "-"], "exclude each other"),
        (["--key", "k" * 256], "1 to 255 characters"),
    ],
)
def test_wrong_kwargs_are_wrong_use(place, given, words):
    """Whatever cannot be kept as it is meant is exit code 2, one line that says what; nothing is fired."""
    place.open().close()
    result = place.run("fire", "s", "x", *given, code=2, stdin="")
    assert words in result.stderr
    assert result.stderr.count("\n") == 1
    assert place.run("sessions", "--json").stdout == ""


@pytest.mark.parametrize("name", ["", "a\nb", "x" * 256, "\u202eab"])
def test_names_that_cannot_be_kept_are_wrong_use(place, name):
    """A UID or trigger that nobody could see whole is refused, and shown escaped."""
    for words in ([name, "x"], ["s", name]):
        result = place.run("fire", *words, code=2)
        assert "\u202e" not in result.stderr
        assert result.stderr.count("\n") == 1


# -- configure ------------------------------------------------------------------------------------------


def test_configure_gives_a_session_its_tasks(place):
    """The configuration is stored; a second one takes its place."""
    assert place.json("configure", "s", "-", stdin=RULES) == {"uid": "s", "tasks": 2}
    place.run("configure", "s", "-", stdin='{"t_other": {"after": ["x"], "run": "r"}}')
    assert place.json("show", "s")["tasks_without_instance"][0]["task"] == "t_other"


def test_catching_up_sees_what_was_fired_before(place):
    """Without --catch-up a new task waits for another firing; with it, it takes the recorded one."""
    place.run("fire", "s", "x")
    place.run("fire", "t", "x")
    place.run("configure", "s", "-", stdin=RULES)
    place.run("configure", "t", "-", "--catch-up", stdin=RULES)
    assert statuses(place, "s") == {}
    assert "configured after" in place.run("show", "s").stdout
    assert statuses(place, "t") == {"t_one#0": "scheduled"}


@pytest.mark.parametrize("config", ['{"t": {"afer": ["x"], "run": "r"}}', "{", "[]"])
def test_a_wrong_configuration_is_refused(place, config):
    """Its problems are told, as data too, with exit code 1, and the session is not made."""
    error = place.error("configure", "s", "-", stdin=config, code=1)
    assert error["type"] == "ConfigurationError"
    assert error["problems"]
    assert place.error("show", "s", code=1)


# -- replay and skip ------------------------------------------------------------------------------------


def test_replay_makes_a_new_instance(played):
    """The failed one is replayed by the next number, which is scheduled."""
    document = played.json("replay", "respondent-17", "t_bad#0")
    assert document == {
        "uid": "respondent-17",
        "replayed": "t_bad#0",
        "instance": "t_bad#1",
        "status": "scheduled",
    }
    found = statuses(played, "respondent-17")
    assert (found["t_bad#0"], found["t_bad#1"]) == ("replayed", "scheduled")


def test_replay_with_other_kwargs(played):
    """--kwargs replaces all the kwargs that the instance had."""
    played.run("replay", "respondent-17", "t_bad#0", "--kwargs", '{"t_importSubject": {"subjectId": 8}}')
    assert played.json("show", "respondent-17", "t_bad#1")["kwargs"] == {"t_importSubject": {"subjectId": 8}}


def test_the_kwargs_of_a_replay_are_by_trigger(played):
    """An object that is not an object for each trigger is wrong use, and nothing is replayed."""
    played.run("replay", "respondent-17", "t_bad#0", "--kwargs", '{"subjectId": 8}', code=2)
    assert statuses(played, "respondent-17")["t_bad#0"] == "failed"


@pytest.mark.parametrize("command", ["replay", "skip"])
@pytest.mark.parametrize("instance", ["t_importSubject#0", "t_wait#0", "t_browser#0", "t_again#0"])
def test_only_what_failed_is_replayed_or_skipped(played, command, instance):
    """Of any other instance the status is told, with exit code 1, and nothing changes."""
    before = statuses(played, "respondent-17")
    error = played.error(command, "respondent-17", instance, code=1)
    assert error["type"] == "InvalidStatusError"
    assert before[instance] in error["message"]
    assert statuses(played, "respondent-17") == before


def test_replaying_a_removed_task_is_refused(played):
    """The instance of a task that is no longer configured can be skipped, but not replayed."""
    played.run("configure", "respondent-17", "-", stdin=RULES)
    error = played.error("replay", "respondent-17", "t_bad#0", code=1)
    assert "no longer in the configuration" in error["message"]
    assert played.json("skip", "respondent-17", "t_bad#0")["status"] == "skipped"


def test_skip_cascades_only_on_request(played):
    """Without --cascade nothing follows; with it the task's name is fired with the result that was given."""
    played.run("skip", "respondent-17", "t_bad#0")
    assert kwargs_of(played, "respondent-17", "t_bad") is None
    played.play("another")
    document = played.json(
        "skip", "another", "t_bad#0", "--cascade", "--result", '{"given": {"$decimal": "1"}}'
    )
    assert document == {"uid": "another", "instance": "t_bad#0", "status": "skipped", "cascaded": True}
    assert kwargs_of(played, "another", "t_bad") == {"given": Decimal(1)}


def test_a_result_without_a_cascade_is_wrong_use(played):
    """It would go nowhere, so nothing is skipped."""
    played.run("skip", "respondent-17", "t_bad#0", "--result", "{}", code=2)
    assert statuses(played, "respondent-17")["t_bad#0"] == "failed"


@pytest.mark.parametrize("command", ["replay", "skip", "resolve-logs"])
def test_nothing_is_made_for_what_does_not_exist(place, command):
    """An unknown session or instance is exit code 1, and stays unknown."""
    place.open().session("s").fire("x")
    assert place.error(command, "nobody", "t#0", code=1)["type"] == "UnknownSessionError"
    assert place.error(command, "s", "t#0", code=1)["type"] == "UnknownInstanceError"
    assert place.error(command, "s", "t", code=1)["type"] == "UnknownInstanceError"
    assert [line["uid"] for line in place.lines("sessions")] == ["s"]


# -- managers -------------------------------------------------------------------------------------------


def test_a_session_is_changed_by_its_own_manager(finalizing):
    """With --storage a session of the finalising manager finalises when its last task is resolved."""
    finalizing.run("fire", "respondent-17", "x")
    finalizing.run(
        "configure", "respondent-17", "-", stdin='{"t_bad": {"after": ["q"], "run": "survey.bad"}}'
    )
    assert finalizing.json("show", "respondent-17")["finalized"] is None
    finalizing.run("skip", "respondent-17", "t_bad#0")
    assert finalizing.json("show", "respondent-17")["finalized"] is not None


def test_a_new_session_gets_the_manager_that_is_named(place):
    """--manager says whose the session is; another name later is refused, and an unknown one is wrong use."""
    place.run("fire", "s", "x", "--manager", "finalizing")
    assert place.json("show", "s")["manager"] == "finalizing"
    place.run("fire", "s", "x")
    error = place.error("fire", "s", "x", "--manager", "default", code=1)
    assert error["type"] == "ManagerMismatchError"
    assert place.json("show", "s")["firings"] == 2
    assert (
        "did you mean 'finalizing'?" in place.run("fire", "t", "x", "--manager", "finalising", code=2).stderr
    )


@pytest.mark.parametrize(
    "command",
    [["fire", "s", "y"], ["configure", "s", "-"], ["replay", "s", "t#0"], ["resolve-logs", "s", "t#0"]],
)
def test_a_session_of_a_manager_that_is_not_here_is_not_changed(place, command):
    """Without the class of its manager a session can be read only: exit code 1, nothing changes."""

    class Own(TriggerManager):
        name = "of.Our.Application"

    with place.open(runner=None, manager=Own) as app:
        app.session("s").fire("x")
    error = place.error(*command, code=1, stdin="{}")
    assert error["type"] == "ManagerMismatchError"
    assert "of.Our.Application" in error["message"]
    assert place.json("show", "s")["firings"] == 1


def test_the_manager_option_goes_with_a_storage(place):
    """An application has its own manager, so --manager beside --app is wrong use."""
    options = ["--app", "survey_app:inline", "--manager", FinalizingTriggerManager.name]
    place.run("fire", "s", "x", *options, storage=False, code=2)
