"""The commands that only read sessions: sessions, show, explain."""

from __future__ import annotations

import pytest

from triggers import FinalizingTriggerManager, task, with_context
from triggers.core.exchange import Changes, Decision, Need

UID = "respondent-17"

#: Looks like markup, format strings, an option, and is hard on every terminal; and still is a name.
NASTY = "[red]x[/red] 'q\" %s {0} :a --json 日本 🎉"


def squeezed(text):
    """Without the spaces and line ends that a table needs."""
    return "".join(text.split())


# -- sessions -------------------------------------------------------------------------------------------


def test_sessions_are_listed_in_the_order_of_their_uids(place):
    """Every session has a line of JSON, sorted by UID, with the keys that the reference names."""
    for uid in ("b", NASTY, "a"):
        place.play(uid)
    found = place.lines("sessions")
    assert [line["uid"] for line in found] == sorted(["b", NASTY, "a"])
    assert found[0]["tasks"] == 7
    assert found[0]["manager"] == "default"
    assert found[0]["created_at"].endswith("Z")
    assert {"pending", "firings", "finalized", "metadata", "modified_at"} <= found[0].keys()


def test_sessions_are_paged(place):
    """With --limit and --after a program walks through all sessions, and a person is told how to go on."""
    for uid in "abcde":
        place.open().session(uid).fire("x")
    first = place.lines("sessions", "--limit", "2")
    second = place.lines("sessions", "--limit", "2", "--after", first[-1]["uid"])
    rest = place.lines("sessions", "--limit", "0", "--after", second[-1]["uid"])
    assert [line["uid"] for line in (*first, *second, *rest)] == list("abcde")
    assert "--after b" in place.run("sessions", "--limit", "2").stdout
    assert "--after" not in place.run("sessions", "--limit", "5").stdout


def test_an_empty_storage_has_no_sessions(place):
    """For programs nothing at all is printed, for people a sentence; either way it is no error."""
    place.open().close()
    assert place.run("sessions", "--json").stdout == ""
    assert place.run("sessions").stdout == "There are no sessions.\n"


# -- show -----------------------------------------------------------------------------------------------


def test_show_lists_what_needs_somebody_first(played):
    """Failed instances come before waiting ones, and those before the resolved ones."""
    shown = played.json("show", "respondent-17")
    statuses = [instance["status"] for instance in shown["instances"]]
    assert statuses[0] == "failed"
    assert statuses[1] == "unstarted"
    assert sorted(statuses[2:]) == ["abandoned", "finished", "finished", "finished", "finished", "replayed"]
    assert shown["more"] is False


def test_show_says_why_an_instance_is_where_it_is(played):
    """Waiting ones name what they lack, abandoned ones what stopped them, failed ones the error, retries their parent."""
    by_name = {instance["name"]: instance for instance in played.json("show", "respondent-17")["instances"]}
    assert by_name["t_wait#0"]["waits_for"] == ["y", "z"]
    assert by_name["t_browser#0"]["abandoned_by"] == ["isEmbedded"]
    assert by_name["t_bad#0"]["error"] == {"type": "ValueError", "message": "spam [bold]"}
    assert by_name["t_again#1"]["parent"] == "t_again#0"
    assert by_name["t_importSubject#0"]["log"]["level"] == "WARNING"
    assert by_name["t_importSubject#0"]["log"]["counts"] == {"INFO": 1, "WARNING": 1}
    text = squeezed(played.run("show", "respondent-17").stdout)
    for words in (
        "waits for y, z (needs page and (y or z))",
        "stopped by isEmbedded",
        "ValueError: spam [bold]",
    ):
        assert squeezed(words) in text


def test_show_names_the_tasks_without_an_instance(played):
    """A task of which no trigger has fired is shown with what it waits for."""
    shown = played.json("show", "respondent-17")
    assert shown["tasks_without_instance"] == [{"task": "t_never", "waits_for": ["x"], "needs": "x"}]
    assert "t_never" in played.run("show", "respondent-17").stdout


@pytest.mark.parametrize(
    ("narrow", "names"),
    [
        (["--status", "failed"], ["t_bad#0"]),
        (["--status", "failed", "--status", "abandoned"], ["t_bad#0", "t_browser#0"]),
        (["--task", "t_again"], ["t_again#0", "t_again#1"]),
        (["--task", "t_nothing"], []),
        (["--unresolved-logs"], ["t_bad#0", "t_importSubject#0"]),
    ],
)
def test_show_can_be_narrowed(played, narrow, names):
    """--status, --task and --unresolved-logs leave out all other instances."""
    shown = played.json("show", "respondent-17", *narrow)
    assert sorted(instance["name"] for instance in shown["instances"]) == sorted(names)


def test_show_cuts_a_long_session(place):
    """Of a long session the first 50 instances are shown, with how to see more; --limit 0 shows all."""
    with place.open(runner=None) as app:
        manager = app.session("long")
        manager.update_configuration({"t_each": {"andEvery": "page", "run": "survey.ok"}})
        for _ in range(60):
            manager.fire("page")
    shown = place.json("show", "long")
    assert len(shown["instances"]) == 50
    assert shown["more"] is True
    assert "--limit 0" in place.run("show", "long").stdout
    whole = place.json("show", "long", "--limit", "0")
    assert [instance["number"] for instance in whole["instances"]] == list(range(60))
    assert whole["more"] is False


def test_show_of_one_instance_has_everything(played):
    """Kwargs, result, history, and the error with its causes and contexts."""
    bad = played.json("show", "respondent-17", "t_bad#0")
    assert bad["kwargs"] == {"t_importSubject": {"subjectId": 7}}
    assert bad["error"]["context"] == {"score": 3}
    assert bad["error"]["cause"]["type"] == "KeyError"
    assert [step["status"] for step in bad["history"]] == ["unstarted", "scheduled", "running", "failed"]
    assert played.json("show", "respondent-17", "t_importSubject#0")["result"] == {"subjectId": 7}
    assert "Traceback" in played.run("show", "respondent-17", "t_bad#0").stdout


def test_show_of_one_instance_has_the_contexts_of_its_exceptions(place):
    """Each exception of the tree is shown with its context, the traceback follows, and logs --traceback agrees."""
    registry = place.open().registry

    @task(name="survey.deep", registry=registry)
    def deep(context):
        with context.get_logger_context():
            try:
                raise with_context(KeyError("row"), {"table": "answers"})
            except KeyError as error:
                raise with_context(ValueError("spam"), {"score": 3}) from error

    with place.open(registry=registry) as app:
        app.session("s").update_configuration({"t": {"after": ["x"], "run": "survey.deep"}})
        app.session("s").fire("x")
    for command in (["show", "s", "t#0"], ["logs", "s", "--traceback"]):
        text = place.run(*command).stdout
        assert "ValueError: spam (score=3) at " in text
        assert "caused by KeyError: 'row' (table=answers) at " in text
        assert text.index("(table=answers)") < text.index("Traceback")


def test_show_says_why_it_lists_no_instance(played):
    """A list that is empty because of options, of a typo or of a missing configuration is told apart."""
    found = "No instance matches these options; the session has 8 instances."
    assert found in played.run("show", UID, "--status", "running").stdout
    text = played.run("show", UID, "--task", "t_baad").stdout
    assert "The session has no task 't_baad'; did you mean 't_bad'?" in text
    played.run("fire", "fresh", "x")
    assert "no configuration yet, so it has no instances" in played.run("show", "fresh").stdout
    played.run("configure", "fresh", "-", stdin='{"t": {"after": ["y"], "run": "survey.ok"}}')
    assert "No task has an instance yet." in played.run("show", "fresh").stdout


def test_rows_without_a_value_are_left_out_and_labels_are_not_repeated(played):
    """An instance whose status says it all has no reason, and only the first line of its history has a label."""
    lines = played.run("show", UID, "t_importSubject#0").stdout.splitlines()
    labels = [line.split()[0] for line in lines[2:] if line and not line.startswith(" ")]
    assert labels == ["status", "run", "attempts", "kwargs", "result", "log", "history"]


@pytest.mark.parametrize(
    ("instance", "hint"),
    [
        ("t_bad", "task 't_bad' has 1 instance: t_bad#0"),
        ("t_again#7", "task 't_again' has 2 instances: t_again#0 to t_again#1"),
        ("t_never#0", "task 't_never' has no instance yet"),
        ("t_baad#0", "did you mean 't_bad'?"),
    ],
)
@pytest.mark.parametrize("command", ["show", "logs", "replay", "skip", "resolve-logs"])
def test_a_hint_names_instances_of_the_same_task(played, command, instance, hint):
    """A wrong name of an instance is answered with those that its task has, by every command."""
    error = played.error(command, UID, instance, code=1)
    assert error["type"] == "UnknownInstanceError"
    assert error["message"].endswith(f"; {hint}")


def test_stored_types_are_printed_as_they_can_be_given(place):
    """A Decimal or a date comes out as the object that --kwargs takes for it."""
    place.run("fire", "s", "x", "--kwargs", '{"due": {"$date": "2026-11-22"}, "cost": {"$decimal": "9.90"}}')
    with place.open(runner=None) as app:
        app.session("s").update_configuration({"t": {"after": ["x"], "run": "survey.ok"}}, catch_up=True)
    kwargs = place.json("show", "s", "t#0")["kwargs"]
    assert kwargs == {"x": {"due": {"$date": "2026-11-22"}, "cost": {"$decimal": "9.90"}}}


@pytest.mark.parametrize("command", ["show", "logs", "explain"])
def test_names_are_text_and_never_markup(place, command):
    """A UID with brackets, quotes, braces and emoji is shown and found as it is, by every command."""
    place.play(NASTY)
    extra = ["t_bad"] if command == "explain" else []
    assert place.run(command, NASTY, *extra).stdout
    if command == "show":
        assert NASTY in place.run("show", NASTY).stdout


def test_tables_fit_into_eighty_columns(place):
    """Whatever the length of UIDs and names, no line is wider than the terminal, and no character of them is lost."""
    uid, task = "u" * 255, "t" * 255
    with place.open(runner=None) as app:
        app.session(uid).update_configuration({task: {"after": ["x", "y"], "run": "survey.ok"}})
        app.session(uid).fire("x")
    for command in (["sessions"], ["show", uid, "--limit", "3"]):
        lines = place.run(*command).stdout.splitlines()
        table = [line for line in lines if "Session" not in line]
        assert max(map(len, table)) <= 80
    assert place.run("sessions").stdout.count("u") >= 255
    assert place.run("show", uid).stdout.replace(uid, "").count("t") >= 255


# -- explain --------------------------------------------------------------------------------------------


def test_explain_says_what_a_task_waits_for(played):
    """In words and as data: what is lacking, what stopped it, which failed instance to deal with."""
    waiting = played.json("explain", "respondent-17", "t_wait")
    assert waiting["waiting"][0]["lacks"] == ["y", "z"]
    assert waiting["counts"] == {"unstarted": 1}
    assert played.json("explain", "respondent-17", "t_browser")["vetoed_by"] == {
        "t_browser#0": ["isEmbedded"]
    }
    assert played.json("explain", "respondent-17", "t_bad")["waits_for"] == ["t_bad#0"]
    assert "waits for y and z" in played.run("explain", "respondent-17", "t_wait#0").stdout


def test_explain_gives_the_command_that_helps(played):
    """For a failed instance it prints commands that can be copied into a shell."""
    assert "triggers replay respondent-17 't_bad#0'" in played.run("explain", "respondent-17", "t_bad").stdout


def test_explain_says_what_holds_up_the_finalizing_trigger(place):
    """A task that waits for it gets it when all others are done; how many are not is said for people."""
    rules = {
        "t_bad": {"after": ["x"], "run": "survey.bad"},
        "t_last": {"after": ["sessionFinalized"], "run": "survey.ok"},
    }
    with place.open(manager=FinalizingTriggerManager) as app:
        app.session("s").update_configuration(rules)
        app.session("s").fire("x")
    told = "sessionFinalized is fired when the session is complete; 1 of 2 tasks are open (triggers show s)"
    assert place.run("explain", "s", "t_last").stdout.endswith(f"{told}\n")
    assert "is complete" not in place.run("explain", "s", "t_bad").stdout
    place.run("skip", "s", "t_bad#0")
    assert "is complete" not in place.run("explain", "s", "t_last").stdout


# -- what is not there ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["show", "nobody"], "no session 'nobody'"),
        (["show", "respondent-17", "t_bad#9"], "no instance 't_bad#9'"),
        (["show", "respondent-17", "t_bad"], "'t_bad' is not the name of an instance"),
        (["logs", "nobody"], "no session 'nobody'"),
        (["logs", "respondent-17", "t_bad#9"], "no instance 't_bad#9'"),
        (["explain", "nobody", "t_bad"], "no session 'nobody'"),
        (["explain", "respondent-17", "t_baad"], "did you mean 't_bad'?"),
        (["explain", "respondent-17", "t_bad#9"], "no instance 't_bad#9'; task 't_bad' has 1 instance"),
    ],
)
def test_what_is_not_there_is_exit_code_1(played, command, words):
    """An unknown session, instance or task is one line that names it, and exit code 1."""
    error = played.run(*command, code=1).stderr
    assert words in error
    assert error.count("\n") == 1
    assert words in played.error(*command, code=1)["message"]


def test_a_session_can_be_read_whose_manager_is_not_here(place):
    """Without the application's manager a session is shown like any other."""
    with place.open(runner=None) as app:
        app.session("s").fire("x")
        app.storage.commit("s", Decision("adopt", _adopted))
    assert place.json("show", "s")["manager"] == "of.Another"


def _adopted(session):
    session.manager = "of.Another"
    yield Need()
    return Changes(session)
