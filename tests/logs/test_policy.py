from __future__ import annotations

import re
from datetime import date
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from triggers.core.values import encode
from triggers.exceptions import with_context
from triggers.logs import LogSettings, exception_record
from triggers.logs.sanitizing.sanitizer import Sanitizer

PERSON = {"name": "Eve", "page": 3, "answers": [{"page": 4, "name": "Adam"}, "free text"], "password": "x"}


def kept(value, **settings):
    fit = Sanitizer(LogSettings(**settings)).context(value)
    encode(fit.data, "context")
    return fit.data


def test_all_of_a_context_is_kept_unless_the_manager_says_otherwise():
    """Without a policy nothing is left out but what names a secret."""
    assert kept(PERSON) == {**PERSON, "password": "[redacted]"}


def test_only_allowed_keys_are_kept_at_any_depth():
    """A key that is not allowed is left out with its value, in every mapping, and the mapping says so."""
    assert kept(PERSON, context_policy="allowed", allowed_keys=("page", "answers")) == {
        "page": 3,
        "answers": [{"page": 4, "…": "[keys left out]"}, "free text"],
        "…": "[keys left out]",
    }
    assert kept({"page": {"name": "Eve"}}, context_policy="allowed", allowed_keys=("page",)) == {
        "page": {"…": "[keys left out]"}
    }
    assert kept([1], context_policy="allowed", allowed_keys=("page",)) == {"…": "[keys left out]"}
    assert kept({"page": 1}, context_policy="allowed", allowed_keys=("page",)) == {"page": 1}


def test_keys_only_keeps_the_types_of_values():
    """Every key stays where it is; of a value there is only what it is, and a secret stays marked as one."""
    value = {
        **PERSON,
        "none": None,
        "yes": True,
        "price": Decimal("1.5"),
        "born": date(1996, 11, 5),
        "raw": b"x",
    }
    assert kept(value, context_policy="keys") == {
        "name": "<str>",
        "page": "<int>",
        "answers": [{"page": "<int>", "name": "<str>"}, "<str>"],
        "password": "[redacted]",
        "none": "<NoneType>",
        "yes": "<bool>",
        "price": "<decimal.Decimal>",
        "born": "<datetime.date>",
        "raw": "<bytes>",
    }


@pytest.mark.parametrize("policy", ["allowed", "keys"])
def test_it_holds_for_storing_and_forwarding_wherever_the_context_comes_from(make, application, policy):
    """Contexts of manager, task, block, bind, call, `extra` and exception: not one shows Eve."""
    allowed = ("page",) if policy == "allowed" else ()
    person = {"page": 3, "person": {"name": "Eve-4711"}}
    kit = make(context=person, task_context=person, context_policy=policy, allowed_keys=allowed)
    with pytest.raises(ValueError, match="Refused"), kit.log.block(person) as logger:  # noqa: PT012 - one story
        logger.bind(person).warning("Bound", context=person)
        logger.warning("Extra", extra={**person, "context": person})
        try:
            raise with_context(KeyError("inner"), person)
        except KeyError as error:
            raise with_context(ValueError("Refused"), person) from error
    entries = kit.finish()
    assert "Eve-4711" not in repr(entries)
    assert "Eve-4711" not in "".join(repr(vars(record)) for record in application.collector.records)
    page = 3 if policy == "allowed" else "<int>"
    assert {entry.context["page"] for entry in entries} == {page}
    assert entries[2].exception["context"]["page"] == page
    assert entries[2].exception["cause"]["context"]["page"] == page
    assert application.collector.records[1].page == page


def test_messages_are_not_its_business(make):
    """What somebody writes into a message stays, also where it does not fit its arguments."""
    kit = make(context_policy="keys")
    with kit.log.block() as logger:
        logger.info("Page %s", 3)
        logger.info("Page %d", "three")
    assert kit.finish()[0].message == "Page 3"
    assert "three" in kit.entries[1].message


def test_cuts_do_not_tell_the_names_of_keys():
    """The path of a cut would name a key that is not allowed."""
    fit = Sanitizer(LogSettings(context_policy="allowed", allowed_keys=("page",))).context(
        {"page": 1, "eve@example.org": "x" * 5_000}
    )
    assert fit.truncated == ("context",)
    assert "eve" not in repr(fit)


def test_an_exceptions_record_follows_it_without_a_block():
    """The error of an instance, which no block has seen, keeps to the policy."""
    error = with_context(ValueError("Refused"), {"name": "Eve-4711"})
    assert exception_record(error, LogSettings(context_policy="keys"))["context"] == {"name": "<str>"}


@given(
    st.recursive(
        st.text() | st.integers() | st.none(),
        lambda x: st.lists(x) | st.dictionaries(st.text(), x),
        max_leaves=30,
    )
)
def test_whatever_comes_stays_bounded_and_unread(value):
    """Under "keys" every leaf is the name of a type, and everything can be stored."""
    limits = LogSettings(context_policy="keys", max_context=2_000)
    fit = Sanitizer(limits).context({"value": value})
    assert len(encode(fit.data, "context").encode()) <= limits.max_context
    assert all(
        re.fullmatch(r"<\w+>|\[redacted\]|….*|\[truncated .*\]|<.*>", leaf) for leaf in _leaves(fit.data)
    )


def _leaves(data):
    if type(data) in (dict, list):
        for item in data.values() if type(data) is dict else data:
            yield from _leaves(item)
    else:
        yield data


@pytest.mark.parametrize(
    "wrong",
    [
        {"context_policy": "some"},
        {"context_policy": "allowed"},
        {"allowed_keys": ("page",)},
        {"context_policy": "keys", "allowed_keys": ("page",)},
        {"context_policy": "allowed", "allowed_keys": "page"},
    ],
)
def test_policies_that_mean_nothing_are_refused(wrong):
    """A policy nobody knows, an empty list of allowed keys, and a list that no policy reads."""
    with pytest.raises(ValueError, match="LogSettings"):
        LogSettings(**wrong)
