"""What a review leaves open, what taking it back opens again, and what records of one kind share."""

from __future__ import annotations

import pytest

from triggers.core import decisions
from triggers.core.decisions.review import MAX_AUDITS
from triggers.core.exchange import Changes, Need, Slice
from triggers.core.records import fingerprint, without_contexts
from triggers.core.state import Instance, Session
from triggers.core.status import Status
from triggers.core.terms import Finalizing, Policy
from triggers.core.values import decode
from triggers.exceptions import UnknownInstanceError
from triggers.storages.memory import MemoryStorage
from triggers.testing.clock import VirtualClock
from triggers.testing.conformance.fixtures import batch, entry
from triggers.testing.conformance.steps import Steps

ME = {"by": "ada", "reason": "a joke"}


@pytest.fixture
def clock():
    return VirtualClock()


@pytest.fixture
def ending(clock):
    """Steps on a session that ends once its one instance has finished and everything at WARNING is reviewed."""
    steps = Steps(MemoryStorage(clock=clock), "s", Policy(finalizing=Finalizing("end", max_level=30)))
    steps.configure({"t": {"andEvery": "a", "run": "r"}})
    steps.fire("a")
    return steps


def decided(decision, *answers):
    """What a decision asks for, and what it comes to."""
    needs = [next(decision)]
    *before, last = answers
    needs += [decision.send(answer) for answer in before]
    with pytest.raises(StopIteration) as end:
        decision.send(last)
    return needs, end.value.value


def reviewed(instance, *answers, through=None, records=None):
    decision = decisions.resolve_logs(Policy(), "t", 0, ME, through, records)(Session("s", 5, ref=1))
    return decided(decision, Slice(instances=[instance]), *answers)


def test_a_review_of_everything_looks_at_no_record():
    """It asks for the instance alone, whatever the log holds."""
    instance = Instance("t", 0, Status.FINISHED, 0, 0, log_count=10_000, log_unresolved=40, log_chosen=(9,))
    needs, changes = reviewed(instance)
    assert [need.levels for need in needs] == [None]
    assert isinstance(changes, Changes)
    assert (instance.log_unresolved, instance.log_resolved, instance.log_chosen) == (0, 10_000, ())


@pytest.mark.parametrize("chosen", [{"through": 0}, {"records": []}, {"records": [0, 99]}])
def test_a_review_of_nothing_changes_no_level(chosen):
    """The level is counted anew, from the threshold on, out of what was said; it is in the audit all the same."""
    counts = {20: 7, 30: 1, 40: 1}
    instance = Instance(
        "t", 0, Status.FINISHED, 0, 0, log_count=9, log_unresolved=40, log_counts=dict(counts)
    )
    needs, _ = reviewed(instance, **chosen)
    assert [need.levels for need in needs] == [None]
    assert (instance.log_unresolved, instance.log_resolved, instance.log_chosen) == (40, 0, ())
    assert len(decode(instance.log_audit)) == 1


def test_a_review_of_a_part_asks_what_is_left():
    """For the highest level beyond the mark, from the threshold on, without those that were chosen."""
    instance = Instance("t", 0, Status.FINISHED, 0, 0, log_count=9, log_unresolved=40, log_resolved=2)
    needs, _ = reviewed(instance, Slice(level=30), records=[7, 1, 3, 7, 10])
    assert needs[1] == Need(instances=(("t", 0),), levels=(2, 30, (3, 7)))
    assert (instance.log_unresolved, instance.log_chosen) == (30, (3, 7))
    needs, _ = reviewed(instance, Slice(level=0), through=6)
    assert needs[1].levels == (6, 30, (7,))
    assert (instance.log_unresolved, instance.log_resolved, instance.log_chosen) == (0, 6, (7,))


def test_a_mark_never_goes_back():
    """A review through an earlier record than one before takes nothing back."""
    instance = Instance("t", 0, Status.FINISHED, 0, 0, log_count=9, log_resolved=5, log_chosen=(8,))
    reviewed(instance, Slice(), through=3)
    assert (instance.log_resolved, instance.log_chosen) == (5, (8,))


def test_reviews_of_what_does_not_exist_are_refused(ending):
    """By name; nothing is stored."""
    for review in (ending.resolve_logs, ending.reopen_logs):
        with pytest.raises(UnknownInstanceError, match="t#7"):
            review("t#7", ME)


def test_the_last_review_ends_the_session_in_its_own_commit(ending):
    """Whether of all records or of chosen ones: the firing of the end is among the changes of the review."""
    attempt = ending.start("t#0")
    ending.keep_logs(attempt, batch(entry(level=40), entry(level=30)))
    assert ending.finish(attempt).fired[0].trigger == "t"
    assert ending.head.finalized is None
    assert ending.resolve_logs("t#0", ME, records=[1]).fired == []
    changes = ending.resolve_logs("t#0", ME, records=[2])
    assert [firing.trigger for firing in changes.fired] == ["end"]
    assert ending.head.finalized == changes.fired[0].number


def test_a_session_that_has_ended_stays_so(ending):
    """Taking a review back, or a record that comes late, flags the instance; the end is never fired again."""
    attempt = ending.start("t#0")
    ending.keep_logs(attempt, batch(entry(level=40)))
    ending.finish(attempt)
    ending.resolve_logs("t#0", ME)
    finalized = ending.head.finalized
    assert ending.reopen_logs("t#0", ME).fired == []
    ending.keep_logs(attempt, batch(entry(level=30)))
    assert (ending.head.finalized, ending["t#0"].log_unresolved) == (finalized, 40)
    assert ending.resolve_logs("t#0", ME).fired == []
    assert [each["outcome"] for each in decode(ending["t#0"].log_audit)] == [
        "resolved",
        "reopened",
        "resolved",
    ]


def test_a_review_taken_back_holds_the_end_again(ending):
    """As long as the session has not ended; only a finished instance holds it."""
    attempt = ending.start("t#0")
    ending.keep_logs(attempt, batch(entry(level=30)))
    ending.resolve_logs("t#0", ME)
    ending.reopen_logs("t#0", ME)
    ending.finish(attempt)
    assert ending.head.finalized is None
    ending.resolve_logs("t#0", ME)
    assert ending.head.finalized is not None


def test_the_first_and_the_latest_reviews_are_kept(ending):
    """Of so many that they would fill the instance, those in the middle are left out, the oldest of them first."""
    ending.keep_logs(ending.start("t#0"), batch(entry(level=30)))
    for number in range(MAX_AUDITS + 20):
        ending.resolve_logs("t#0", {"by": "ada", "reason": f"look {number}"})
    half = MAX_AUDITS // 2
    kept = [int(each["reason"].removeprefix("look ")) for each in decode(ending["t#0"].log_audit)]
    assert kept == [*range(half), *range(half + 20, MAX_AUDITS + 20)]


def test_a_kind_has_a_short_name_that_lasts():
    """The same in every process and on every machine, of 16 digits; a lone surrogate does no harm."""
    assert fingerprint(entry()) == "7bcc0bb5bbe044fc"
    odd = entry()
    odd.template = "\ud800"
    assert len(fingerprint(odd)) == 16


def test_contexts_are_taken_out_of_a_tree_at_any_depth():
    """Causes, members and members of members; what else there is stays, and the tree itself is not changed."""
    leaf = {"type": "K", "context": {"a": 1}}
    tree = {
        "type": "G",
        "context": {"b": {"context": 2}},
        "cause": leaf,
        "notes": ["context"],
        "members": [{"members": [leaf]}],
    }
    bare = {"type": "K", "context": {}}
    assert without_contexts(tree) == {
        "type": "G",
        "context": {},
        "cause": bare,
        "notes": ["context"],
        "members": [{"members": [bare]}],
    }
    assert leaf["context"] == {"a": 1}
    assert without_contexts(None) is None
