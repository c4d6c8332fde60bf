from __future__ import annotations

import copy
import json
import logging
import pickle  # noqa: TID251 - what a pickle has is what this is about

import pytest

from triggers.exceptions import with_context
from triggers.logs import REDACTED, LogSettings, Sensitive, mask_secret
from triggers.logs.sanitizing.sanitizer import Sanitizer

SECRET = "hunter22-correct-horse"  # noqa: S105 - what must not be kept


def texts_of(record):
    """All that a handler is given, as text."""
    return logging.Formatter().format(record) + repr(vars(record))


def test_it_shows_nothing_and_gives_its_value_when_asked():
    """Every way to write it gives the mark; `reveal` gives the value."""
    hidden = Sensitive(SECRET)
    written = [
        repr(hidden),
        str(hidden),
        f"{hidden}",
        f"{hidden:>40}",
        f"{hidden!r}",
        "%s" % hidden,  # noqa: UP031 - every way
        "%r" % hidden,  # noqa: UP031 - as above
    ]
    assert written == [REDACTED] * len(written)
    assert hidden.reveal() == SECRET
    assert not hasattr(hidden, "__dict__")


def test_a_pickle_does_not_have_it():
    """Nothing of the value is in a pickle of any protocol; what comes out says why it reveals nothing."""
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        text = pickle.dumps({"key": Sensitive(SECRET)}, protocol)
        assert SECRET.encode() not in text
        restored = pickle.loads(text)["key"]  # noqa: S301 - our own
        assert str(restored) == REDACTED
        with pytest.raises(LookupError, match="read the value again"):
            restored.reveal()


def test_copies_are_the_same_object():
    """A copy, deep or not, is the object itself, so configurations that hold it can be copied."""
    hidden = Sensitive([SECRET])
    assert copy.copy(hidden) is hidden
    assert copy.deepcopy({"a": [hidden]})["a"][0] is hidden
    assert hidden != Sensitive([SECRET])


@pytest.mark.parametrize("value", [SECRET, SECRET.encode(), [SECRET], {"a": SECRET}, object()])
def test_it_is_hidden_wherever_it_is_logged(kit, application, value):
    """As argument, context of block, call and exception, `extra`, key, and text of an exception."""
    hidden = Sensitive(value)
    with pytest.raises(ValueError, match="redacted"), kit.log.block({"block": [hidden]}) as logger:  # noqa: PT012 - one story
        logger.warning("Sent %s and %r", hidden, [hidden], context={"call": {"deep": (hidden,)}})
        logger.warning("Sent %(it)s", {"it": hidden}, extra={"attribute": hidden})
        logger.warning("Wrong %d", hidden)
        logger.warning(hidden, context={hidden: 1})
        raise with_context(ValueError("Refused", hidden), {"error": hidden})
    entries = kit.finish()
    assert SECRET not in repr(entries)
    assert [entry.message for entry in entries[:2]] == [
        f"Sent {REDACTED} and [{REDACTED}]",
        f"Sent {REDACTED}",
    ]
    assert entries[0].context == {"block": [REDACTED], "call": {"deep": [REDACTED]}}
    assert entries[1].context["attribute"] == REDACTED
    assert (entries[3].message, entries[3].context[REDACTED]) == (REDACTED, 1)
    assert entries[4].exception["context"] == {"error": REDACTED}
    for record in application.collector.records:
        assert SECRET not in texts_of(record)


def test_its_value_can_be_masked_too(kit):
    """Given to `mask_secret`, its value is hidden in texts that hold it in the open."""
    with kit.log.block() as logger:
        mask_secret(Sensitive(SECRET))
        logger.info("Sent %s", SECRET)
    assert kit.finish()[0].message == f"Sent {REDACTED}"


def test_a_class_of_ones_own_is_hidden_as_well():
    """A subclass is hidden, even one that shows itself."""

    class Card(Sensitive):
        __slots__ = ()

        def __repr__(self):
            return self.reveal()

    assert Sanitizer(LogSettings()).context({"card": Card(SECRET)}).data == {"card": REDACTED}


def test_json_refuses_it():
    """It never slips into JSON by accident."""
    with pytest.raises(TypeError):
        json.dumps({"a": Sensitive(SECRET)})
