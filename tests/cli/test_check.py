"""The commands about configurations: check and schema."""

from __future__ import annotations

import json

import pytest


def test_check_prints_every_problem_with_its_path(place):
    """All problems come at once, in words and as data, with exit code 1."""
    config = place.folder / "config.json"
    config.write_text(json.dumps({"t_a": {"afer": ["x"], "run": "r"}, "t_b": {"after": "x", "run": "r"}}))
    found = place.json("check", str(config), code=1, storage=False)
    assert found["valid"] is False
    assert found["tasks"] == 2
    assert {problem["path"] for problem in found["problems"]} >= {"t_a.afer", "t_b.after"}
    text = place.run("check", str(config), code=1, storage=False).stdout
    assert "did you mean 'after'?" in text
    assert "t_b.after: " in text


def test_check_accepts_what_is_right(place):
    """A configuration without problems is exit code 0, also from standard input."""
    config = json.dumps({"t_a": {"after": ["x"], "run": "anything", "using": "anything"}})
    assert place.json("check", "-", stdin=config, storage=False) == {
        "valid": True,
        "tasks": 1,
        "problems": [],
        "warnings": [],
        "external_triggers": ["x"],
        "similar_names": [],
    }
    text = place.run("check", "-", stdin=config, storage=False).stdout
    assert text == "1 task, no problems\nexpects these triggers from outside: x\n"


def test_check_lists_the_triggers_from_outside_and_similar_names(place):
    """A name that only differs in spelling, or in a letter, from another one is pointed out, and is not a problem."""
    config = json.dumps(
        {
            "t_import": {"after": ["pageReceived", "page1", "page2"], "run": "r"},
            "t_mail": {"after": ["t_imports", "page_received"], "run": "r"},
        }
    )
    found = place.json("check", "-", stdin=config, storage=False)
    assert found["valid"] is True
    assert found["external_triggers"] == ["page1", "page2", "pageReceived", "page_received", "t_imports"]
    assert found["similar_names"] == [["pageReceived", "page_received"], ["t_import", "t_imports"]]
    text = place.run("check", "-", stdin=config, storage=False).stdout
    assert "similar names: t_import and t_imports; is one of them a typo?" in text


def test_check_points_out_what_is_nearly_an_outcome(place):
    """It is no problem, because any name can be a trigger, but nothing in the library fires it."""
    rules = {"t_a": {"after": ["x"], "run": "r"}, "t_b": {"after": ["t_a:fail"], "run": "r"}}
    text = place.run("check", "-", stdin=json.dumps(rules), storage=False).stdout
    outcomes = "t_a:abandoned, t_a:ended, t_a:failed, t_a:missed and t_a:skipped"
    why = f"t_a:fail is not an outcome of t_a: its outcomes are {outcomes}"
    assert f"\nwarning: t_b.after: {why}\n" in text
    found = place.json("check", "-", stdin=json.dumps(rules), storage=False)
    assert (found["valid"], found["warnings"]) == (True, [{"path": "t_b.after", "message": why}])


def test_check_warns_about_delays_that_are_probably_not_meant(place):
    """The exit code is 0, because the rules are valid."""
    rules = {"t_a": {"after": ["x"], "delay": {"for": "PT1M", "since": "last"}, "run": "r"}}
    lines = place.run("check", "-", stdin=json.dumps(rules), storage=False).stdout.splitlines()
    assert lines[0] == "1 task, no problems"
    assert lines[-1].startswith("warning: t_a.delay.since: without andEvery, the task runs once")


def test_check_knows_what_the_manager_of_the_application_fires(place):
    """With --app the finalizing trigger does not come from outside; without it, nothing says that it does not."""
    rules = json.dumps({"t_a": {"after": ["x", "sessionFinalized"], "run": "survey.ok"}})
    app = ["--app", "survey_app:finalizing"]
    assert place.json("check", "-", *app, stdin=rules, storage=False)["external_triggers"] == ["x"]
    assert "sessionFinalized" in place.run("check", "-", stdin=rules, storage=False).stdout


def test_check_with_the_application_knows_its_tasks_and_runners(place):
    """With --app a `run` or `using` that the application lacks is a problem."""
    config = json.dumps({"t_a": {"after": ["x"], "run": "survey.okk", "using": "thread"}})
    options = ["--app", "survey_app:firing_only"]
    found = place.json("check", "-", *options, stdin=config, storage=False, code=1)
    assert [problem["path"] for problem in found["problems"]] == ["t_a.run", "t_a.using"]
    assert "did you mean 'survey.ok'?" in found["problems"][0]["message"]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not JSON"),
        ("", "not JSON"),
        ("[]", "a mapping"),
        ('{"t": {"run": "r", "after": ["x"]}, "t": {}}', "the key 't' appears twice"),
        ('{"t": NaN}', "NaN is not a number"),
        ("\xff", "not JSON"),
        ("[" * 100_000, "nested too deep"),
    ],
)
def test_what_is_no_configuration_is_a_problem(place, text, words):
    """Whatever the file holds, the answer is a problem and exit code 1."""
    (place.folder / "config.json").write_bytes(text.encode("latin-1"))
    found = place.json("check", "config.json", code=1, storage=False)
    assert words in found["problems"][0]["message"]


def test_the_schema_is_json(place):
    """`schema` prints the JSON Schema, which knows the directives."""
    schema = json.loads(place.run("schema", storage=False).stdout)
    assert schema["$schema"].startswith("https://json-schema.org/")
    assert "andEvery" in json.dumps(schema)
