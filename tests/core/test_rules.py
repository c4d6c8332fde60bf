"""Rules: what a task listens to, what is exempt from finalising, and how a rule set is named and kept."""

from __future__ import annotations

from hypothesis import given

from triggers.core.conditions import condition_from_json
from triggers.core.configuration import check_configuration
from triggers.core.rules import NO_RULES, read_rules, rule_from_json, rule_set
from triggers.testing.conformance import strategies
from triggers.testing.conformance.model import Model, awaited, vetoing


@given(strategies.configurations())
def test_rules_come_back_from_their_body(configuration):
    """What a storage keeps is read as equal rules, in the same order, with the same digest."""
    rules = rule_set(configuration)
    again = read_rules(rules.body)
    assert list(again.rules.items()) == list(rules.rules.items())
    assert list(again.rules) == list(configuration)
    assert again.digest == rules.digest


@given(strategies.configurations())
def test_every_name_leads_to_the_tasks_that_listen(configuration):
    """The listeners of a name are exactly the tasks that name it, in whatever role."""
    rules = rule_set(configuration)
    for name in (*strategies.TRIGGERS, *strategies.TASKS):
        listening = {task for task, rule in configuration.items() if name in awaited(rule) | vetoing(rule)}
        assert {rule.task for rule in rules.listeners.get(name, ())} == listening


@given(strategies.configurations())
def test_those_that_wait_for_a_trigger_are_found_through_others(configuration):
    """Directly or through the tasks that they wait for, as the reference model finds them."""
    rules = rule_set(configuration)
    for trigger in strategies.TRIGGERS:
        model = Model(finalizing_trigger=trigger)
        model.configure(configuration)
        assert rules.waiting_for(trigger) == model.waiting_for_finalizing()
        assert rules.waiting_for(trigger) is rules.waiting_for(trigger), "it is found once"


@given(strategies.configurations())
def test_upstream_is_the_reverse_of_waiting(configuration):
    """A task's upstream are the other tasks that it waits for, each once."""
    rules = rule_set(configuration)
    for task in configuration:
        upstream = rules.upstream(task)
        names = {other: (other, *(f"{other}:{word}" for word in strategies.WORDS)) for other in configuration}
        waited_for = {
            other for other in names if any(task in rules.waiting_for(name) for name in names[other])
        }
        assert set(upstream) == waited_for - {task}
        assert len(upstream) == len(set(upstream))


def test_a_veto_is_no_wait():
    """A task that names the trigger only in `unless` does not wait for it."""
    rules = rule_set({"t": {"after": ["a"], "unless": ["end"], "run": "r"}})
    assert rules.waiting_for("end") == frozenset()


def test_and_every_is_implied_in_after():
    """It is one more term of a list, one term beside any other form, and not added where it stands already."""
    both = condition_from_json(["a", "e"])
    assert rule_from_json("t", {"after": ["a"], "andEvery": "e", "run": "r"}).after == both
    assert rule_from_json("t", {"after": ["a", "e"], "andEvery": "e", "run": "r"}).after == both
    assert rule_from_json("t", {"andEvery": "e", "run": "r"}).after == condition_from_json(["e"])
    either = rule_from_json("t", {"after": {"any": ["a", "e"]}, "andEvery": "e", "run": "r"}).after
    assert either == condition_from_json([{"any": ["a", "e"]}, "e"])
    assert not either.is_met({"a"})


def test_an_empty_unless_never_vetoes():
    """Left out or empty, it has no names, and is false as a truth value."""
    for written in ({}, {"unless": []}, {"unless": {"all": []}}):
        unless = rule_from_json("t", {"after": ["a"], "run": "r", **written}).unless
        assert (list(unless), bool(unless)) == ([], False)


def test_defaults_lie_under_the_kwargs():
    """Mappings are merged at every depth, anything else is replaced; the rule keeps its own copy."""
    rule = rule_from_json("t", {"after": ["a"], "run": "r", "withParams": {"a": {"x": {"y": 1, "z": [1]}}}})
    assert rule.with_defaults({"a": {"x": {"z": [2]}}, "b": {}}) == {"a": {"x": {"y": 1, "z": [2]}}, "b": {}}
    rule.with_defaults({})["a"]["x"]["y"] = 2
    assert rule.with_params == {"a": {"x": {"y": 1, "z": [1]}}}


@given(strategies.configurations())
def test_what_a_rule_serializes_is_the_same_rule(configuration):
    """It is valid, configures the same, and has every directive."""
    for rule in rule_set(configuration).rules.values():
        written = rule.serialize()
        assert check_configuration({str(rule): written}).rules[rule.task] == rule
        assert {"after", "unless", "andEvery", "run", "using", "withParams"} <= written.keys()


def test_a_rule_answers_for_its_conditions():
    """Its conditions are collections of names, in alphabetical order; a nested name counts like any other."""
    written = {"after": {"any": ["c", {"all": ["b", "a"]}]}, "unless": ["v", "u"], "run": "r"}
    rule = rule_from_json("t", written)
    assert rule.name == str(rule) == rule.task == "t"
    assert rule.after_sorted == list(rule.after) == ["a", "b", "c"]
    assert rule.unless_sorted == ["u", "v"]
    assert ("a" in rule.after, "u" in rule.after, len(rule.after)) == (True, False, 3)
    assert [name for name in ("a", "v", "x") if rule.uses_trigger(name)] == ["a", "v"]


def test_other_keys_are_extras():
    """Directives have their attributes; everything else is kept as it is."""
    rule = rule_from_json(
        "t",
        {
            "after": ["a"],
            "run": "r",
            "using": "celery",
            "withParams": {"a": {"x": 1}},
            "colour": None,
            "owner": {"team": ["x"]},
        },
    )
    assert (rule.run, rule.using, rule.with_params) == ("r", "celery", {"a": {"x": 1}})
    assert rule.extras == {"colour": None, "owner": {"team": ["x"]}}
    assert rule.named == {"a"}


def test_an_instance_lacks_a_trigger_in_each_of_its_roles():
    """A trigger in `after` and in `unless` is lacked until it was taken as both."""
    rule = rule_from_json("t", {"after": {"any": ["a", "b"]}, "unless": ["a", "c"], "run": "r"})
    assert rule.lacks({}, ()) == {"a", "b", "c"}
    assert rule.lacks({"a": 1}, ()) == {"a", "b", "c"}
    assert rule.lacks({"a": 1}, ("a",)) == {"b", "c"}, "a branch that is met already still wants the others"
    assert rule.lacks({"a": 1, "b": 2}, ("a", "c")) == set()


def test_the_digest_names_the_content():
    """The order of keys makes no difference to it; anything else does."""
    one = rule_set({"t": {"after": ["a"], "run": "r"}, "u": {"after": ["b"], "run": "r"}})
    two = rule_set({"u": {"run": "r", "after": ["b"]}, "t": {"run": "r", "after": ["a"]}})
    other = rule_set({"t": {"after": ["a"], "run": "r"}, "u": {"after": ["c"], "run": "r"}})
    assert one.digest == two.digest
    assert one.digest != other.digest
    assert len(one.digest) == 64


def test_no_rules_listen_to_nothing():
    """A session that was never configured has an empty rule set."""
    assert (NO_RULES.rules, NO_RULES.listeners, NO_RULES.body) == ({}, {}, "{}")
    assert NO_RULES.waiting_for("a") == frozenset()
    assert NO_RULES.upstream("a") == ()
