"""Whatever a session, a trigger, a task or a key is called: refused by name, or kept apart from all others."""

from __future__ import annotations

import itertools
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz import junk
from triggers import Triggers
from triggers.core.names import idempotency_key
from triggers.exceptions import ConfigurationError, InvalidNameError, UnknownInstanceError

#: Names that somebody's storage takes for one another, or for something else than a name.
# fmt: off
ODD = (
    "a", "A", "a ", " a", "a\u00a0", "a\u200b", "á", "a\u0301", "\uff41", "\u0430", "ß", "ss", "\u017f", "i", "İ", "\u0131",
    "ﬁ", "fi", "1", "01", "1.0", "+1", "1e0", "0x1", "٣", "3", "-0", "0", "NULL", "null", "None", "nan",
    "inf", "true", "x'61'", "'", "''", '"', "`", "\\", "\\'", "%", "_", "a%", "*", "?", "[a]", "{a}", "}{",
    "{}", "{0}", "$", "$date", "$$a", "'; DROP TABLE sessions; --", "a' OR '1'='1", "--", "/*", ":a", "?1",
    "@a", "#", "#0", "a#0", "a#0#0", "a##", "../a", "/etc/passwd", "a/b", "a%2Fb", "a%252Fb", "%2F",
    "C:\\a", "~", "a:b", "a,b", "a;b", "a|b", "http://a/b?c#d", "<script>", "&amp;", "{{7*7}}", "${a}",
    "$(a)", "%s%n", "a=b", "__proto__", "constructor", "toString", "שלום", "\u200fa",
    "\U0001f469\u200d\U0001f4bb", "\U0001f3f4\U000e0067", "\U0010ffff", "\ue000", "\ufdd0", "\ufeff",
    "\u0378", "x" * 255, "é" * 255, "\U0001f600" * 255, "y" * 254 + "#", "Z̸̡͍̈",
)
# fmt: on

#: What is no name.
# fmt: off
REFUSED = (
    "", "\0", "a\0b", "a\nb", "\r\n", "\t", "\x1b[31m", "\x7f", "\x85", "\u2028", "\u2029", "\ud800",
    "a\udfff", "\u202e", "a\u2066b", "x" * 256, "x" * 5_000_000, None, 0, 1.5, True, b"a", bytearray(b"a"),
    ("a",), ["a"], {"a": 1}, object(), str, junk.Hostile(), junk.Impostor(), junk.Unprintable(),
    junk.Array(), junk.Colour.RED,
)
# fmt: on


@pytest.fixture(params=["memory", "sqlite"])
def triggers(request, tmp_path):
    """An application that only fires, on each storage."""
    url = "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/a.db?synchronous=normal"
    with Triggers(url, runner=None) as made:
        yield made


def said(triggers, uid):
    """What was fired into a session: trigger, key and kwargs."""
    fired = triggers.storage.reader.firings(uid, limit=10_000)
    return [(each.trigger, each.key, each.kwargs) for each in fired]


def test_odd_names_of_sessions_are_kept_apart(triggers):
    """Each of these sessions has its own firing and no other's, and is listed once."""
    for number, uid in enumerate(ODD):
        triggers.session(uid).fire("said", {"n": number}, key="k")
    for number, uid in enumerate(ODD):
        assert said(triggers, uid) == [("said", "k", f'{{"n":{number}}}')], uid
        assert triggers.existing_session(uid).storage.latest_kwargs["said"] == {"n": number}
    assert sorted(view.uid for view in triggers.sessions()) == sorted(ODD)


def test_odd_names_of_triggers_and_keys_are_kept_apart(triggers):
    """Within one session each trigger, and each key, is its own."""
    manager = triggers.session("one")
    for number, name in enumerate(ODD):
        assert not manager.fire(name, {"n": number}, key="k").duplicate
    for number, name in enumerate(ODD):
        assert manager.storage.latest_kwargs[name] == {"n": number}, name
        assert manager.fire(name, {"n": number}, key="k").number == number + 1
    first = [manager.fire("keyed", {"n": number}, key=key).number for number, key in enumerate(ODD)]
    again = [manager.fire("keyed", {"n": number}, key=key) for number, key in enumerate(ODD)]
    assert [each.number for each in again] == first
    assert all(each.duplicate for each in again)


def test_odd_names_of_tasks_are_kept_apart(triggers):
    """Tasks of these names run after triggers of these names, each after its own, and are found by their names."""
    manager = triggers.session("one")
    rules = {name: {"run": name, "after": [f"of {name}"[:255]], "unless": ["never"]} for name in ODD}
    manager.update_configuration(rules)
    twice = {
        cut
        for cut, names in itertools.groupby(sorted(f"of {name}"[:255] for name in ODD))
        if len(list(names)) > 1
    }
    for name in ODD:
        released = manager.fire(f"of {name}"[:255]).scheduled
        assert f"{name}#0" in released
        assert len(released) == (2 if f"of {name}"[:255] in twice else 1)
    for name in ODD:
        instance = manager.storage[f"{name}#0"]
        assert (instance.task, instance.number, instance.status) == (name, 0, "scheduled")
        assert manager.storage.tasks[name].run == name
        assert manager.storage.explain(name).sentence
    assert sorted(each.task for each in manager.storage) == sorted(ODD)


@pytest.mark.parametrize("name", REFUSED, ids=lambda name: f"{type(name).__name__}")
def test_what_is_no_name_is_refused_and_leaves_nothing(name, triggers):
    """As a UID, a trigger, a key or a task it is refused, and nothing is stored."""
    with pytest.raises(InvalidNameError):
        triggers.session(name)
    manager = triggers.session("one")
    with pytest.raises(InvalidNameError):
        manager.fire(name)
    if name is not None:
        with pytest.raises(InvalidNameError):
            manager.fire("a", key=name)
    for rule in (
        {"run": "a", "after": [name]},
        {"run": name, "after": ["a"]},
        {"run": "a", "andEvery": 0 if name is None else name},
    ):
        with pytest.raises(ConfigurationError):
            manager.update_configuration({"t_a": rule})
    assert not manager.storage.exists


@given(st.text(min_size=1, max_size=300), st.text(min_size=1, max_size=300))
@settings(max_examples=60)
def test_any_two_texts_are_two_names_on_both_storages_or_none(tmp_path_factory, one, other):
    """What one storage takes for a name the other does, too, and both keep two names apart."""
    folder = tmp_path_factory.mktemp("names")
    answers = []
    for url in ("memory://", f"sqlite:///{folder}/a.db?synchronous=normal"):
        with Triggers(url, runner=None) as triggers:
            answers.append([_fired(triggers, name) for name in (one, other)])
            if one != other and all(answers[-1]):
                assert said(triggers, one) == [(one, one, "{}")]
                assert said(triggers, other) == [(other, other, "{}")]
    assert answers[0] == answers[1]


def _fired(triggers, name):
    try:
        triggers.session(name).fire(name, key=name)
    except InvalidNameError:
        return False
    return True


#: What looks like the name of an instance, and is none that there is.
# fmt: off
NO_INSTANCES = (
    "", "#", "#0", "a", "a#", "a#-1", "a#+0", "a#00", "a#0 ", " a#0", "a#0\n", "a#1.0", "a#0x0",
    "a#\u0660", "a#1", "a#" + "9" * 500, "a#18446744073709551616", "b#0", "A#0", "a#0#0", "\ud800#0",
    "a\0#0", "x" * 6_000_000, "#" * 300, None, 0, 1.5, b"a#0", ("a", 0), ["a#0"], object(), junk.Hostile(),
    junk.Impostor(), junk.Unprintable(),
)
# fmt: on

ASKED = {
    "storage[…]": lambda manager, name: manager.storage[name],
    "replay": lambda manager, name: manager.replay_failed_instance(name),
    "skip": lambda manager, name: manager.skip_failed_instance(name),
    "skip and cascade": lambda manager, name: manager.skip_failed_instance(name, cascade=True),
    "schedule": lambda manager, name: manager.update_instance_status(name, "scheduled"),
    "skip by status": lambda manager, name: manager.update_instance_status(name, "skipped"),
    "replay by status": lambda manager, name: manager.update_instance_status(name, "replayed"),
    "metadata": lambda manager, name: manager.update_instance_metadata(name, {"a": 1}),
    "resolve": lambda manager, name: manager.mark_instance_logs_resolved(name),
}


@pytest.mark.parametrize("asked", ASKED)
def test_what_is_no_instance_is_said_to_be_none(asked, triggers):
    """Each method that takes an instance's name says that there is none, shortly, and changes nothing."""
    manager = triggers.session("one")
    manager.update_configuration({"a": {"run": "a", "after": ["x"]}})
    manager.fire("x")
    before = manager.storage["a#0"].stored
    for name in NO_INSTANCES:
        with pytest.raises(UnknownInstanceError) as caught:
            ASKED[asked](manager, name)
        assert len(str(caught.value)) < 1_000
    assert manager.storage["a#0"].stored == before


def test_names_that_are_no_names_are_not_in_a_session(triggers):
    """To ask whether a session has an instance is no error, whatever is asked for."""
    manager = triggers.session("one")
    manager.fire("x")
    for name in NO_INSTANCES:
        assert name not in manager.storage


def test_idempotency_keys_of_different_work_differ():
    """No two pairs of a session and an instance have one key, however they are spelled."""
    pairs = list(itertools.product(ODD, [f"{name}#0" for name in ODD]))
    assert len({idempotency_key(*pair) for pair in pairs}) == len(pairs)


def test_the_table_of_odd_names_is_what_it_says():
    """All of them differ, and some only by what a careless comparison would not see."""
    assert len(set(ODD)) == len(ODD)
    for fold in (str.casefold, str.strip, lambda name: unicodedata.normalize("NFKC", name)):
        assert len({fold(name) for name in ODD}) < len(ODD)
