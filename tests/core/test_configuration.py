"""Configuration: what is accepted, and every problem of what is not, at once, each with its path."""

from __future__ import annotations

import json
import re

import jsonschema
import pytest
from hypothesis import given

from triggers.core.configuration import ELSEWHERE, check_configuration, is_custom, json_schema, near_miss
from triggers.core.directives import MAX_TERMS
from triggers.core.rules import DIRECTIVES, RESERVED, rule_set
from triggers.core.values import Limits
from triggers.exceptions import ConfigurationError, InvalidValueError
from triggers.options import OPTIONS
from triggers.testing.conformance import strategies

FORMS = 'must be a list of names, such as ["pageReceived"], or one of {"all": […]}, {"any": […]}, {"atLeast": 2, "of": […]}'


def problems(configuration, **known):
    with pytest.raises(ConfigurationError) as error:
        check_configuration(configuration, **known)
    assert all(f"{path}: {message}" in str(error.value) for path, message in error.value.problems[:20])
    return list(error.value.problems)


def task(**written):
    return {"t": {"after": ["a"], "run": "r", **written}}


# -- what is accepted ---------------------------------------------------------------------------------------


@given(strategies.configurations())
def test_what_is_valid_is_accepted_and_changes_nothing(configuration):
    """Every configuration of the language becomes rules, and is left as it was written."""
    before = json.dumps(configuration)
    rules = check_configuration(configuration)
    assert list(rules.rules) == list(configuration)
    assert json.dumps(configuration) == before


@given(strategies.configurations())
def test_the_json_schema_accepts_what_is_valid(configuration):
    """An editor that follows the schema has no complaint."""
    jsonschema.validate(configuration, json_schema(), cls=jsonschema.Draft202012Validator)


def test_the_json_schema_is_one():
    """It is valid itself, and names every directive with a description."""
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    directives = schema["$defs"]["TaskDirectives"]["properties"]
    assert set(directives) == set(DIRECTIVES)
    assert all(directive["description"] for directive in directives.values())


@pytest.mark.parametrize(
    "wrong",
    [
        {"t": {"after": ["a"]}},
        task(after="a"),
        task(after=[1]),
        task(after={"any": []}),
        task(after={"atLeast": 0, "of": ["a"]}),
        task(withParams={"a": 1}),
        task(run=""),
        [],
    ],
)
def test_the_json_schema_refuses_what_has_the_wrong_shape(wrong):
    """What the schema can say, it says."""
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, json_schema(), cls=jsonschema.Draft202012Validator)


def test_sets_and_tuples_are_lists():
    """Where names belong, a set or a tuple of them is as good, at any depth; sets are put in order."""
    written = check_configuration(
        task(after={"any": ({"all": {"c", "b"}}, "a")}, unless=frozenset({"y", "x"}))
    )
    same = check_configuration(task(after={"any": [{"all": ["b", "c"]}, "a"]}, unless=["x", "y"]))
    assert written.rules == same.rules
    assert written.digest == same.digest


def test_nothing_may_be_left_out_by_none():
    """None is the same as not to write a directive that need not be written."""
    rule = check_configuration(
        {"t": {"after": None, "andEvery": "a", "unless": None, "run": "r", "using": None}}
    ).rules["t"]
    assert (rule.after.names, rule.and_every, list(rule.unless), rule.using) == ({"a"}, "a", [], None)


def test_custom_directives_are_kept_as_they_are():
    """Whatever can be stored, None and nested lists, too."""
    extras = {"colour": None, "owner": {"team": [None, {"x": []}]}, "": 1, "after this": ["a"]}
    assert check_configuration(task(**extras)).rules["t"].extras == extras


def test_an_empty_configuration_has_no_tasks():
    """Nothing is a configuration, too: it takes every task away."""
    assert check_configuration({}).rules == {}


# -- shapes ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("configuration", "path", "message"),
    [
        (None, "$", "a configuration must be a mapping of task names to directives, not a NoneType"),
        ([], "$", "a configuration must be a mapping of task names to directives, not a list"),
        ("{}", "$", "a configuration must be a mapping of task names to directives, not a str"),
        ({"t": None}, "t", "must be a mapping of directives"),
        ({"t": ["a"]}, "t", "must be a mapping of directives"),
        ({"t": {"after": ["a"]}}, "t.run", "is missing"),
        (task(run=None), "t.run", "a name must be a string, not NoneType"),
        (task(run=""), "t.run", "a name must have 1 to 255 characters; this one has 0"),
        (task(run=7), "t.run", "a name must be a string, not int"),
        (task(using=7), "t.using", "a name must be a string, not int"),
        (task(using="a\nb"), "t.using", r"a name must be printable; 'a\nb' has '\n' at position 1"),
        (task(andEvery=["a"]), "t.andEvery", "a name must be a string, not list"),
        (task(andEvery=""), "t.andEvery", "a name must have 1 to 255 characters; this one has 0"),
        (task(withParams=[]), "t.withParams", "must be a mapping"),
        (task(withParams=None), "t.withParams", "must be a mapping"),
        (task(withParams={"api": 5}), "t.withParams.api", "must be a mapping"),
        (task(after="a"), "t.after", FORMS),
        (task(after=7), "t.after", FORMS),
        (task(after={}), "t.after", FORMS),
        (task(after={"some": ["a"]}), "t.after", FORMS),
        (task(after=[["a"]]), "t.after[0]", FORMS),
        (task(after=["a", 7]), "t.after[1]", FORMS),
        (task(after=["a", None]), "t.after[1]", FORMS),
        (task(after=["a", ""]), "t.after[1]", "a name must have 1 to 255 characters; this one has 0"),
        (task(after={"all": "a"}), "t.after.all", "must be a list of names"),
        (task(after={"any": []}), "t.after.any", "needs at least one term"),
        (task(after=["b", {"any": []}]), "t.after[1].any", "needs at least one term"),
        (
            task(after={"any": ["a"], "of": ["b"]}),
            "t.after.of",
            "is not allowed here: a condition has the key all or any, or the keys atLeast and of",
        ),
        (task(after={"any": ["a", {"all": ["b", 7]}]}), "t.after.any[1].all[1]", FORMS),
        (task(after={"atLeast": 1}), "t.after.of", "is missing"),
        (task(after={"of": ["a"]}), "t.after.atLeast", "is missing"),
        (
            task(after={"atLeast": 0, "of": ["a"]}),
            "t.after.atLeast",
            "Input should be greater than or equal to 1",
        ),
        (
            task(after={"atLeast": "2", "of": ["a", "b"]}),
            "t.after.atLeast",
            "must be a whole number",
        ),
        (task(after={"atLeast": True, "of": ["a"]}), "t.after.atLeast", "must be a whole number"),
        (task(after={"atLeast": 1.5, "of": ["a"]}), "t.after.atLeast", "must be a whole number"),
        (
            task(after={"atLeast": 3, "of": ["a", "a", "b"]}),
            "t.after",
            "atLeast 3 can never be met by 2 distinct terms",
        ),
        (
            task(after={"atLeast": 2, "of": [{"any": ["a", "b"]}, {"any": ["a", "b"]}]}),
            "t.after",
            "atLeast 2 can never be met by 1 distinct terms",
        ),
        (task(unless="a"), "t.unless", FORMS),
        (task(unless={"any": []}), "t.unless.any", "needs at least one term"),
        (
            task(after=[]),
            "t",
            "after is empty and there is no andEvery, so nothing would ever start this task",
        ),
        (
            task(after=None),
            "t",
            "after is empty and there is no andEvery, so nothing would ever start this task",
        ),
        (
            task(after={"all": []}),
            "t",
            "after is empty and there is no andEvery, so nothing would ever start this task",
        ),
        (
            task(after={"any": [{"all": []}, {"atLeast": 1, "of": [{"all": [{"all": []}]}]}]}),
            "t",
            "after is empty and there is no andEvery, so nothing would ever start this task",
        ),
        (
            {"t": {"run": "r"}},
            "t",
            "after is empty and there is no andEvery, so nothing would ever start this task",
        ),
        ({"<t>": {"run": "r", "after": "a"}}, "<t>.after", FORMS),
        ({"[key]": {"run": "r", "after": "a"}}, "[key].after", FORMS),
    ],
)
def test_each_directive_can_be_wrong_in_each_way(configuration, path, message):
    """One problem, one path, one message that says what belongs there."""
    assert problems(configuration) == [(path, message)]


@pytest.mark.parametrize(
    ("configuration", "path"),
    [
        ({"": {"after": ["a"], "run": "r"}}, ""),
        ({"x" * 256: {"after": ["a"], "run": "r"}}, "x" * 256),
        ({"a\nb": {"after": ["a"], "run": "r"}}, r"'a\nb'"),
        ({7: {"after": ["a"], "run": "r"}}, "[7]"),
        ({None: {"after": ["a"], "run": "r"}}, "None"),
    ],
)
def test_a_task_needs_a_name(configuration, path):
    """Names of tasks are names like all others; one that cannot be printed is shown escaped."""
    ((found, message),) = problems(configuration)
    assert found == path
    assert message.startswith("a name must")


@pytest.mark.parametrize("key", [1, None, ("a",)])
def test_directives_have_names_that_are_strings(key):
    """JSON has no other keys."""
    assert [message for _, message in problems({"t": {"after": ["a"], "run": "r", key: 1}})] == [
        "Keys should be strings"
    ]


@pytest.mark.parametrize(
    ("written", "path", "message"),
    [
        ({"extra": {1j}}, "t.extra[1j]", "cannot store a complex"),
        ({"extra": {"deep": [object]}}, "t.extra.deep[0]", "cannot store a type"),
        ({"extra": float("nan")}, "t.extra", "JSON cannot represent nan"),
        ({"withParams": {"a": {"b": (1j,)}}}, "t.withParams.a.b[0]", "cannot store a complex"),
        ({"withParams": {"a": {"b": 10**30}}}, "t.withParams.a.b", "an integer of more than 64 bits"),
        ({"extra": "x" * 1_048_600}, "t.extra", "bytes are more than the limit"),
    ],
)
def test_what_cannot_be_stored_is_refused(written, path, message):
    """Parameters and custom directives are values like kwargs."""
    ((found, said),) = problems(task(**written))
    assert found == path
    assert message in said


def test_conditions_nest_as_deep_as_they_can_be_kept():
    """Beyond that they are refused by path, like every other problem, however deep they are."""

    def nested(depth):
        condition = "a"
        for n in range(depth):
            condition = {"any": [{"all": [condition]}, f"b{n}"]}
        return task(after=condition)

    assert check_configuration(nested(20)).rules["t"].after.is_met({"b19"})
    for depth in (30, 70, 200, 20_000):
        ((path, message),) = problems(nested(depth))
        assert path.startswith("t.after.any[0].all[0].any[0]")
        assert not message.startswith("the configuration")
    loop = []
    loop.append({"any": loop})
    assert "cyclic reference" in problems(task(after=loop))[0][1]


@pytest.mark.parametrize("kind", [list, tuple, set, frozenset])
def test_a_condition_has_so_many_terms_and_no_more(kind):
    """Whatever it is written as and wherever it stands; the limit and the number are told."""
    names = [f"a{n}" for n in range(MAX_TERMS + 1)]
    assert len(check_configuration(task(after=kind(names[1:]))).rules["t"].after.names) == MAX_TERMS
    for directive in ("after", "unless"):
        ((path, message),) = problems(task(**{directive: kind(names)}))
        assert (path, message) == (f"t.{directive}", "10001 terms are more than the limit of 10000")


def test_parameters_nest_as_deep_as_they_can_be_kept():
    """A value that is accepted on its own, but not inside of a configuration, is a problem, no other error."""
    value = {}
    for _ in range(98):
        value = {"k": value}
    ((path, message),) = problems(task(extra=value))
    assert path.startswith("t.extra.k.k")
    assert "nested too deep" in message
    loop = {}
    loop["k"] = loop
    assert "holds itself" in problems(task(extra=loop))[0][1]


def test_a_configuration_that_is_too_large_as_a_whole_is_refused():
    """Each part is small enough, all together they are not."""
    part = "x" * 1_000_000
    configuration = {f"t{n}": {"after": ["a"], "run": "r", "extra": part} for n in range(68)}
    ((path, message),) = problems(configuration)
    assert path == "$"
    assert "bytes are more than the limit of 67,108,864" in message


class Remote(dict):
    """Is read from somewhere when it is looked into."""

    def __iter__(self):
        message = "no connection"
        raise OSError(message)

    keys = items = __iter__


@pytest.mark.parametrize("configuration", [Remote(t=1), {"t": Remote(after=["a"], run="r")}])
def test_a_configuration_that_cannot_be_read_is_refused(configuration):
    """What kept it from being read is told as its problem, and is the cause of the error."""
    with pytest.raises(ConfigurationError, match="the configuration cannot be read: OSError") as error:
        check_configuration(configuration)
    assert [path for path, _ in error.value.problems] == ["$"]
    assert isinstance(error.value.__cause__, OSError)


# -- near misses and reserved words ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("afer", "after"),
        ("After", "after"),
        ("AFTER", "after"),
        ("aftr", "after"),
        ("afters", "after"),
        ("rum", None),
        ("runs", "run"),
        ("Run", "run"),
        ("andevery", "andEvery"),
        ("and_every", "andEvery"),
        ("and-every", "andEvery"),
        ("and every", "andEvery"),
        ("andEvry", "andEvery"),
        ("unles", "unless"),
        ("Unless", "unless"),
        ("with_params", "withParams"),
        ("withParam", "withParams"),
        ("withparms", "withParams"),
        ("usng", "using"),
        ("useing", "using"),
        ("colour", None),
        ("description", None),
        ("owner", None),
        ("params", None),
        ("", None),
        (7, None),
        (None, None),
    ],
)
def test_a_slip_of_the_pen_is_noticed(written, meant):
    """A key that looks like a directive names the right word; what looks like none is a custom directive."""
    assert near_miss(written) == meant
    assert is_custom(written) == (meant is None)
    if meant:
        path = f"t.{written}"
        assert (path, f"unknown directive {written!r}: did you mean {meant!r}?") in problems(
            task(**{written: ["b"]})
        )


@pytest.mark.parametrize("word", [word for word in RESERVED if word not in ELSEWHERE])
def test_words_of_later_versions_are_refused(word):
    """No configuration of today gives them a meaning of its own."""
    assert problems(task(**{word: 1})) == [(f"t.{word}", f"{word!r} is reserved for a later version")]


@pytest.mark.parametrize("word", ELSEWHERE)
def test_words_of_other_systems_are_refused(word):
    """The message says where that is set, or what to do instead, for every usual spelling of the word."""
    first, *others = word.split("_")
    camel = first + "".join(map(str.capitalize, others))
    for spelled in (word, camel, word.replace("_", "-"), word.upper()):
        assert problems(task(**{spelled: 1})) == [(f"t.{spelled}", f"{spelled!r} {ELSEWHERE[word]}")]
        assert check_configuration(task(**{f"x-{spelled}": 1})).rules


def test_a_key_with_the_prefix_of_custom_directives_is_always_one():
    """So every key that is refused has a name that is not."""
    for word in (*DIRECTIVES, *RESERVED, *ELSEWHERE, "after_all", "withParam"):
        assert not is_custom(word) or word == "after_all"
        assert is_custom(f"x-{word}")
        assert check_configuration(task(**{f"x-{word}": 1})).rules["t"].extras == {f"x-{word}": 1}


def test_options_that_messages_name_exist():
    """Each option of a task that a message names is an option of tasks, so that following the message works."""
    named = {word for text in ELSEWHERE.values() for word in re.findall(r"@task\((\w+)=", text)}
    assert named == {"timeout", "max_retries", "queue", "rate_limit"}
    assert named <= OPTIONS.keys()


# -- rules of a newer version -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("written", "path"),
    [
        *(({"after": ["a"], "run": "r", word: 1}, f"t.{word}") for word in RESERVED),
        ({"after": [{"trigger": "a", "where": {"n": 1}, "as": "b"}], "run": "r"}, "t.after"),
        ({"after": {"atLeast": {"b": "n"}, "of": "a"}, "run": "r"}, "t.after"),
        ({"after": {"any": [["a"]], "new": 1}, "run": "r"}, "t.after"),
        ({"after": ["a"], "unless": {"trigger": "b"}, "run": "r"}, "t.unless"),
        ({"andEvery": {"trigger": "a", "where": {"n": 1}}, "run": "r"}, "t.andEvery"),
        ({"after": ["a"], "forward": {}}, "t.forward"),
        ({"after": ["a"], "delay": "P1M"}, "t.delay"),
        ({"after": ["a"], "delay": {"for": "PT1M", "since": "noon"}}, "t.delay"),
        ({"after": ["a"], "delay": {"for": "PT1M", "upTo": 5}}, "t.delay"),
        ({"after": ["a"], "deadline": 7}, "t.deadline"),
        ({"after": ["a"], "deadline": {"in": "PT1M", "late": "retry"}}, "t.deadline"),
        ({"after": ["a"], "deadline": {"at": "noon"}}, "t.deadline"),
    ],
)
def test_stored_rules_of_a_newer_version_can_be_read(written, path):
    """They name what is not understood, keep it as it is written, and list the triggers."""
    rules = rule_set({"t": written})
    assert path in rules.unsupported
    assert "a" in rules.rules["t"].named
    assert json.loads(rules.body)["t"] == written


def test_rules_of_this_version_are_understood():
    """Every form of a condition that can be configured is understood when it is read from a storage."""
    forms = (["a"], {"all": ["a", {"any": ["b", "c"]}]}, {"any": ["a"]}, {"atLeast": 1, "of": ["a", "b"]})
    for form in forms:
        configuration = {"t": {"after": form, "unless": form, "andEvery": "e", "run": "r", "x-when": 1}}
        assert check_configuration(configuration).unsupported == ()


# -- what is known ----------------------------------------------------------------------------------------------


def test_an_unknown_run_is_refused_where_the_registry_is_complete():
    """The message has the nearest name, or what there is; elsewhere any name passes."""
    configuration = {"t": {"after": ["a"], "run": "survey.Imprt"}}
    assert check_configuration(configuration).rules
    assert problems(configuration, tasks=["survey.Import", "survey.Mail"]) == [
        ("t.run", "unknown task 'survey.Imprt'; did you mean 'survey.Import'?")
    ]
    assert problems(configuration, tasks=["zzz", "yyy"]) == [
        ("t.run", "unknown task 'survey.Imprt'; the known tasks are: yyy, zzz")
    ]
    assert problems(configuration, tasks=[]) == [
        ("t.run", "unknown task 'survey.Imprt'; the known tasks are: none")
    ]
    assert check_configuration(configuration, tasks=["survey.Imprt"]).rules


def test_an_unknown_runner_is_refused_where_they_are_known():
    """A task without one is content with the default."""
    assert check_configuration(task(), runners=["threads"]).rules
    assert check_configuration(task(using="threads"), runners=["threads"]).rules
    assert problems(task(using="thread"), runners=["threads"]) == [
        ("t.using", "unknown runner 'thread'; did you mean 'threads'?")
    ]


def test_names_of_the_wrong_type_are_reported_once():
    """What is no name is not looked up as well."""
    assert len(problems({"t": {"after": ["a"], "run": 7}, "u": 5}, tasks=["r"], runners=["x"])) == 2


# -- tasks that wait for each other ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("after", "stuck"),
    [
        ({"t": ["t"]}, {"t": "t"}),
        ({"t": ["u"], "u": ["t"]}, {"t": "u", "u": "t"}),
        ({"t": ["a", "u"], "u": ["b", "t"]}, {"t": "u", "u": "t"}),
        ({"t": ["u"], "u": ["v"], "v": ["t"], "w": ["a"]}, {"t": "u", "u": "v", "v": "t"}),
        ({"t": {"any": ["a", "u"]}, "u": ["t"]}, {}),
        ({"t": {"atLeast": 2, "of": ["a", "t", "u"]}, "u": ["t"]}, {"t": "t, u", "u": "t"}),
        ({"t": {"atLeast": 2, "of": ["a", "b", "u"]}, "u": ["t"]}, {}),
        ({"t": ["u"], "u": ["a"]}, {}),
        ({"t": ["u"], "u": ["v", "a"], "v": ["v"]}, {"t": "u", "u": "v", "v": "v"}),
    ],
)
def test_tasks_that_can_never_start_are_found(after, stuck):
    """Those that wait for themselves or each other with no other way to start are named, with what they wait for."""
    configuration = {name: {"after": condition, "run": "r"} for name, condition in after.items()}
    if not stuck:
        assert check_configuration(configuration).rules
        return
    assert dict(problems(configuration)) == {
        f"{name}.after": f"can never start: it waits for {missing}, which can never start before it"
        for name, missing in stuck.items()
    }


def test_and_every_counts_as_waiting():
    """A task that wants every end of itself never has a first one."""
    assert problems({"t": {"andEvery": "t", "run": "r"}})[0][0] == "t.after"


def test_a_veto_holds_nobody_up():
    """A task may name itself or a later one in `unless`."""
    assert check_configuration({"t": {"after": ["a"], "unless": ["t"], "run": "r"}}).rules


# -- all at once --------------------------------------------------------------------------------------------------


def test_every_problem_is_reported_at_once():
    """Whoever mends a configuration sees everything that is wrong with it, each with its path."""
    found = problems(
        {
            "t_one": {"afer": ["a"], "run": "nobody"},
            "t_two": {"after": ["a", 7], "run": "r", "within": 5, "extra": 1j},
            "t_three": {"after": "a", "unless": {"any": []}, "using": "nowhere"},
            "": {"after": ["a"], "run": "r"},
        },
        tasks=["r"],
        runners=["threads"],
    )
    assert sorted(path for path, _ in found) == sorted(
        [
            "t_one.afer",
            "t_one",
            "t_one.run",
            "t_two.after[1]",
            "t_two.within",
            "t_two.extra",
            "t_three.after",
            "t_three.unless.any",
            "t_three.run",
            "t_three.using",
            "",
        ]
    )


def test_ten_thousand_tasks_are_accepted_and_no_more():
    """A chain of them is checked in one go; the limit can be set."""
    chain = {f"t{n}": {"after": [f"t{n - 1}" if n else "a"], "run": "r"} for n in range(10_000)}
    rules = check_configuration(chain)
    assert len(rules.rules) == 10_000
    assert len(rules.waiting_for("a")) == 10_000
    chain["one more"] = {"after": ["a"], "run": "r"}
    assert problems(chain) == [("$", "10,001 tasks are more than the limit of 10,000")]
    assert problems({"t": {}, "u": {}}, limits=Limits(tasks=1)) == [
        ("$", "2 tasks are more than the limit of 1")
    ]


def test_the_text_has_the_first_problems_and_their_count():
    """The error of the largest wrong configuration can be printed; its attribute has every problem."""
    long = "n" * 240
    with pytest.raises(ConfigurationError) as error:
        check_configuration({f"{long}{number}": {"after": ["a"], "afer": ["b"]} for number in range(5_000)})
    assert len(error.value.problems) == 10_000
    text = str(error.value)
    first, *lines, last = text.splitlines()
    assert (first, last) == ("10,000 problems in the configuration:", "  and 9,980 more")
    assert lines == [f"  {path}: {message}" for path, message in error.value.problems[:20]]
    assert len(text) < 10_000


def test_a_task_that_waits_for_many_is_one_short_problem():
    """Of the names that it waits for, the problem has the first ones and the count."""
    names = [f"t{number}" for number in range(300)]
    found = problems({name: {"after": names, "run": "r"} for name in names})
    listed = ", ".join(names[:10])
    message = f"can never start: it waits for {listed} and 290 more, which can never start before it"
    assert found[0] == ("t0.after", message)


def test_a_problem_is_an_error_that_can_be_sent():
    """It is a ValueError, says how many problems there are, and survives being copied to another process."""
    import copy  # noqa: PLC0415 - for this test alone

    with pytest.raises(ValueError, match=r"1 problem in the configuration:\n  t.run: is missing") as error:
        check_configuration({"t": {"after": ["a"]}})
    again = copy.copy(error.value)
    assert (str(again), again.problems) == (str(error.value), error.value.problems)
    assert not isinstance(error.value, InvalidValueError)
