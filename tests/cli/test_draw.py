"""The command that draws: what it draws, in which format, where to, and how it refuses."""

from __future__ import annotations

import json

import pytest

from tests.graph.drawings import assert_can_be_read, chart, drawing
from triggers import TriggerManager

UID = "respondent-17"
RULES = {
    "t_a": {"after": ["go"], "run": "survey.ok"},
    "t_b": {"after": ["t_a:failed"], "run": "survey.ok", "unless": ["stop"]},
    "t_c": {"after": ["t_b"], "run": "survey.ok"},
}


@pytest.fixture
def config(place):
    path = place.folder / "rules.json"
    path.write_text(json.dumps(RULES), "utf-8")
    return str(path)


def labels(document):
    return [node["label"] for node in document["nodes"]]


def test_rules_are_drawn_as_mermaid(place, config):
    """Without --format. No storage is opened; the file may be standard input."""
    text = place.run("graph", "--config", config, storage=False).stdout
    assert [label[0] for _, label, _ in chart(text).nodes.values()] == ["go", "stop", "t_a", "t_b", "t_c"]
    assert place.run("graph", "--config", "-", stdin=json.dumps(RULES), storage=False).stdout == text


def test_rules_are_drawn_as_svg(place, config):
    """With --format svg."""
    drawn = drawing(place.run("graph", "--config", config, "--format", "svg", storage=False).stdout)
    assert_can_be_read(drawn)
    assert len(drawn.boxes) == 5


def test_a_session_is_drawn_with_what_has_happened(played):
    """Statuses, firings and met edges, in both formats and as data."""
    nodes = chart(played.run("graph", UID).stdout).nodes.values()
    assert ("[", ["t_bad", "1 failed"], "failed") in nodes
    assert ("([", ["page \u00d72"], "fired") in nodes
    drawn = drawing(played.run("graph", UID, "--format", "svg").stdout)
    assert ["t_again", "survey.again", "1 finished", "1 replayed"] in drawn.words()
    document = played.json("graph", UID)
    assert document["title"] == f"Session {UID}"
    by_label = {node["label"]: node for node in document["nodes"]}
    assert by_label["t_browser"]["statuses"] == {"abandoned": 1}
    assert by_label["page"]["fired"] == 2
    assert by_label["page"]["run"] is None
    wait = [edge for edge in document["edges"] if edge["target"] == by_label["t_wait"]["key"]]
    assert [(edge["source"], edge["met"]) for edge in wait] == [
        (by_label["page"]["key"], True),
        (by_label["any of"]["key"], False),
    ]


def test_the_document_has_the_keys_of_the_reference(place, config):
    """Without a session, `fired` and `met` are null, as is whatever does not apply."""
    document = place.json("graph", "--config", config, storage=False)
    assert document["title"] is None
    assert document["nodes"][2] == {
        "key": "task t_a",
        "kind": "task",
        "label": "t_a",
        "run": "survey.ok",
        "notes": [],
        "fired": None,
        "statuses": {},
        "met": None,
    }
    assert document["edges"][:2] == [
        {"source": "trigger go", "target": "task t_a", "kind": "after", "outcome": None, "met": None},
        {"source": "task t_a", "target": "task t_b", "kind": "after", "outcome": "failed", "met": None},
    ]


def test_output_goes_to_a_file(place, config):
    """It is UTF-8, and nothing is printed."""
    rules = {"日": {"after": ["é"], "run": "r"}}
    for form in ("mermaid", "svg"):
        args = ("graph", "--config", "-", "--format", form, "--output", f"out.{form}")
        assert place.run(*args, stdin=json.dumps(rules), storage=False).output == ""
        assert "日" in (place.folder / f"out.{form}").read_text("utf-8")
    place.run("graph", "--config", config, "--json", "--output", "out.json", storage=False)
    assert "t_a" in labels(json.loads((place.folder / "out.json").read_text("utf-8")))


def test_a_file_that_cannot_be_written_is_wrong_usage(place, config):
    """The message names it."""
    error = place.error("graph", "--config", config, "--output", "no/out.svg", code=2, storage=False)
    assert error["message"] == "Could not open file 'no/out.svg': No such file or directory"


def test_an_error_leaves_no_file_behind(played):
    """The file is opened when there is something to write."""
    played.run("graph", "nobody", "--output", "out.svg", code=1)
    assert not (played.folder / "out.svg").exists()


def test_a_part_is_drawn(place, config):
    """--task draws one task and what is next to it; a task that is not there is told, with what was meant."""
    assert labels(place.json("graph", "--config", config, "--task", "t_c", storage=False)) == ["t_b", "t_c"]
    error = place.error("graph", "--config", config, "--task", "tc", code=1, storage=False)
    assert error["message"] == "there is no task 'tc' to draw; did you mean 't_c'?"


@pytest.mark.parametrize("args", [[], [UID, "--config", "rules.json"]])
def test_it_must_be_clear_what_to_draw(place, config, args):
    """Either a session or a file."""
    error = place.error("graph", *args, code=2)
    assert error["message"].startswith("say what to draw: the UID of a session, or --config FILE")


def test_json_has_no_format(place, config):
    """It is one itself."""
    error = place.error("graph", "--config", config, "--format", "svg", code=2, storage=False)
    assert error["message"].startswith("--json and --format exclude each other")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("{", ["$", "not JSON: Expecting property name enclosed in double quotes: line 1 column 2 (char 1)"]),
        ('{"t": {"after": ["a"]}}', ["t.run", "is missing"]),
    ],
)
def test_a_configuration_with_problems_is_not_drawn(place, text, problem):
    """The problems are told as by `configure`."""
    error = place.error("graph", "--config", "-", stdin=text, code=1, storage=False)
    assert [[one["path"], one["message"]] for one in error["problems"]] == [problem]


def test_an_application_checks_the_rules_and_names_its_finalizing_trigger(place):
    """As `check` does with --app."""
    app = ("--app", "survey_app:finalizing")
    rules = json.dumps({"t_a": {"after": ["sessionFinalized"], "run": "survey.ok"}})
    document = place.json("graph", "--config", "-", *app, stdin=rules, storage=False)
    assert document["nodes"][0]["notes"] == ["when the session is complete"]
    wrong = rules.replace("survey.ok", "survey.okay")
    error = place.error("graph", "--config", "-", *app, stdin=wrong, code=1, storage=False)
    assert error["problems"][0]["message"] == "unknown task 'survey.okay'; did you mean 'survey.ok'?"


def test_a_session_is_drawn_with_its_own_manager(finalizing):
    """It knows the trigger that finalizes, though --storage alone was given."""
    document = finalizing.json("graph", UID)
    assert "sessionFinalized" in labels(document)


def test_a_session_of_an_unknown_manager_is_drawn(place):
    """To look at it needs no code of the application."""

    class Audited(TriggerManager):
        name = "audited"

    place.play("other", manager=Audited)
    assert "t_bad" in labels(place.json("graph", "other"))


def test_an_unknown_session_is_told(played):
    """It is no empty picture."""
    assert played.error("graph", "nobody", code=1)["type"] == "UnknownSessionError"


def test_rules_that_are_too_large_for_svg_are_told(place):
    """The message says what to do instead; Mermaid has no limit."""
    rules = json.dumps({f"t_{n}": {"after": ["go"], "run": "r"} for n in range(1_001)})
    text = place.run("graph", "--config", "-", "--format", "svg", stdin=rules, code=1, storage=False).stderr
    assert "too large for SVG: draw one task and what is next to it, or use Mermaid" in text
    assert len(chart(place.run("graph", "--config", "-", stdin=rules, storage=False).stdout).nodes) == 1_002
