"""A trigger that no task listens to is told where people look: the result, the log, the explanation.

The same cause, a name that matches nothing and is accepted in silence, was looked for in: a `run` that no worker has
(test_missing_tasks.py), a misspelled directive (tests/core/test_configuration.py), options of tasks
(tests/test_options.py), and `triggers check` and `triggers fire` (tests/cli).
"""

from __future__ import annotations

import logging

import pytest

PASSING = "triggers.testing.PassThrough"


@pytest.fixture(autouse=True)
def configured(session):
    session.update_configuration(
        {
            "t_import": {"after": ["pageReceived", "go"], "run": PASSING},
            "t_mail": {"after": ["t_import"], "unless": ["go"], "run": PASSING},
        }
    )


def test_a_result_has_the_listeners(session):
    """They are the tasks whose rules name the trigger, in the order of the configuration, for a repeat as well."""
    assert session.fire("go", key="k").listeners == ("t_import", "t_mail")
    assert session.fire("go", key="k").listeners == ("t_import", "t_mail")
    assert session.fire("pageReceived").listeners == ("t_import",)
    assert session.fire("pagereceived").listeners == ()


def test_a_firing_that_nobody_hears_is_logged(session, caplog):
    """It is a DEBUG record with the probable name; a firing that is heard is not mentioned."""
    with caplog.at_level(logging.DEBUG, "triggers.manager"):
        session.fire("go")
        assert caplog.messages == []
        session.fire("pagereceived")
        session.fire("zzz")
    assert caplog.messages == [
        "session 's': no task listens to 'pagereceived'; did you mean 'pageReceived'?",
        "session 's': no task listens to 'zzz'",
    ]


def test_a_session_without_rules_has_no_listeners(harness, caplog):
    """Nothing is logged before it is configured, because firings then wait for a configuration."""
    with caplog.at_level(logging.DEBUG, "triggers.manager"):
        assert harness.session("new").fire("go").listeners == ()
    assert caplog.messages == []


HINT = "{} has fired, but no task listens to it: perhaps it should have been pageReceived"


@pytest.mark.parametrize(
    "written", ["page_received", "PageReceived", "pageRecieved", "pageRecevied", "pagesReceived"]
)
def test_an_explanation_finds_the_wrong_name(session, written):
    """A task that waits, with or without an instance, is explained with the similar name that has fired."""
    session.fire(written)
    assert HINT.format(written) in session.storage.explain("t_import").sentence
    session.fire("go")
    found = session.storage.explain("t_import#0")
    assert HINT.format(written) in found.sentence
    assert found.waiting[0].similar == {"pageReceived": written}


def test_an_explanation_finds_another_spelling_of_long_ago(session):
    """Another spelling is looked up by name, so that later firings do not hide it."""
    session.fire("page_received")
    for _ in range(100):
        session.fire("tick")
    assert HINT.format("page_received") in session.storage.explain("t_import").sentence


@pytest.mark.parametrize("written", ["tick", "pageSent", "pageReceived2", "go"])
def test_an_explanation_is_silent_about_other_names(session, written):
    """A name that is not similar, or that a task listens to, is not mentioned."""
    session.fire(written)
    assert "perhaps" not in session.storage.explain("t_import").sentence
