"""The reference model, held against its laws in sessions that Hypothesis makes up."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from triggers.testing.conformance import strategies as made
from triggers.testing.conformance.model import (
    RESOLVED,
    RUNNING,
    SCHEDULED,
    UNSTARTED,
    Model,
    awaited,
    can_abandon,
    can_schedule,
    exceptional_in,
    vetoing,
)
from triggers.testing.orders import orders

NAMES = (*made.TRIGGERS, *made.TASKS)


def played(configuration, firings):
    model = Model()
    model.configure(configuration)
    for firing in firings:
        model.fire(*firing)
    return model


def ends(model):
    """How many instances of each task ended in which status."""
    return Counter((instance.task, instance.status) for instance in model.instances.values())


# At most five firings, with names of tasks among them, as if those had finished.
MIXED = st.lists(made.firings(NAMES), max_size=5)


@given(configuration=made.configurations(unless=False), firings=MIXED, data=st.data())
def test_for_after_alone_the_order_does_not_matter(configuration, firings, data):
    """The same firings in another order end with as many scheduled and unstarted instances of each task."""
    shuffled = data.draw(st.permutations(firings))
    assert ends(played(configuration, firings)) == ends(played(configuration, shuffled))


@given(configuration=made.configurations(unless=False, and_every=False), firings=MIXED)
@settings(max_examples=50)
def test_for_after_alone_no_order_of_all_matters(configuration, firings):
    """Without `andEvery`, each task has the same one instance in the same status after every order there is."""
    expected = ends(played(configuration, firings))
    for order in orders(firings, sample=60):
        assert ends(played(configuration, order)) == expected


@given(configuration=made.configurations(), firings=MIXED)
def test_vetoes_that_come_last_change_nothing_that_is_scheduled(configuration, firings):
    """What `unless` abandons is what would not have been scheduled at that point without it."""
    for place in range(len(firings) + 1):
        before = played(configuration, firings[:place])
        after = played(configuration, firings)
        for name, instance in before.instances.items():
            if instance.status != UNSTARTED:
                assert after.instances[name].status == instance.status


@given(configuration=made.configurations(outcomes=False), firings=MIXED)
def test_catching_up_is_as_if_it_had_been_there(configuration, firings):
    """A configuration that catches up with all firings ends as one that saw them one by one."""
    late = played({}, firings)
    late.configure(configuration, catch_up=True)
    assert late.snapshot() == played(configuration, firings).snapshot()


@given(configuration=made.configurations(), firings=MIXED)
def test_configuring_the_same_again_changes_nothing(configuration, firings):
    """Decisions depend on rules and on what was taken: to decide again is to decide the same."""
    model = played(configuration, firings)
    before = model.snapshot()
    model.configure(configuration, catch_up=True)
    assert model.snapshot() == before


@given(configuration=made.configurations(), firings=MIXED, again=st.integers(0, 4))
def test_a_repeated_key_never_changes_anything(configuration, firings, again):
    """However often each keyed firing is repeated, the session is the same."""
    keyed = [(trigger, kwargs, str(n)) for n, (trigger, kwargs, _) in enumerate(firings)]
    repeated = [firing for n in range(len(keyed)) for firing in [*keyed[: n + 1], *keyed[: n + 1][again:]]]
    assert played(configuration, keyed).snapshot() == played(configuration, repeated).snapshot()


class Life(RuleBasedStateMachine):
    """One session, with everything that can happen to it, checked against what must always be so."""

    @initialize(
        configuration=made.configurations(),
        finalizing=st.sampled_from([None, "d", "end"]),
        max_crashes=st.integers(1, 3),
    )
    def start(self, configuration, finalizing, max_crashes):
        self.model = Model(finalizing, max_crashes=max_crashes)
        self.model.configure(configuration)
        self.seen = {}
        self.cascades = Counter()

    def some(self, data, status):
        names = [name for name, instance in self.model.instances.items() if instance.status == status]
        return data.draw(st.sampled_from(names)) if names else None

    @rule(firing=made.firings((*made.TRIGGERS, "end"), keys=["k"]))
    def fire(self, firing):
        before = {task: len(self.model.instances_of(task)) for task in self.model.configuration}
        try:
            result = self.model.fire(*firing)
        except ValueError:
            return
        trigger = firing[0]
        created = Counter(name.rpartition("#")[0] for name in result.created)
        for task, named in self.model.configuration.items():
            instances = self.model.instances_of(task)
            took = [i for i in instances if result.number in i.taken.values() and i.parent is None]
            hears = trigger in awaited(named) | vetoing(named) and not result.duplicate
            assert created[task] <= 1
            assert created[task] == 0 or hears
            assert not hears or before[task] + created[task] > 0
            if hears and trigger == named.get("andEvery"):
                assert took

    @rule(
        data=st.data(),
        how=st.sampled_from(["finish", "fail", "retry", "skip", "release", "expire", "run on"]),
    )
    def run(self, data, how):
        name = self.some(data, SCHEDULED)
        if name is None or (fence := self.model.claim(name)) is None:
            return
        if how == "finish":
            assert self.model.finish(name, fence, {"n": fence})
            self.cascades[name] += 1
        elif how == "fail":
            assert self.model.fail(name, fence, "boom")
        elif how == "retry":
            assert self.model.retry(name, fence, 1, 2)
        elif how == "skip":
            assert self.model.skip_running(name, fence)
        elif how == "release":
            assert self.model.release(name, fence)
        elif how == "expire":
            assert self.model.expire(name)

    @rule(data=st.data(), behind=st.integers(1, 2))
    def ghost(self, data, behind):
        name = self.some(data, RUNNING)
        if name is not None:
            before = self.model.snapshot()
            assert not self.model.finish(name, self.model.instances[name].fence - behind)
            assert self.model.snapshot() == before

    @rule(data=st.data())
    def lose(self, data):
        name = self.some(data, RUNNING)
        if name is not None:
            assert self.model.expire(name)

    @rule(data=st.data(), what=st.sampled_from(["replay", "replace", "skip", "cascade"]))
    def mend(self, data, what):
        name = self.some(data, "failed")
        if name is None:
            return
        if what in ("replay", "replace"):
            if name.rpartition("#")[0] in self.model.configuration:
                new = self.model.replay(name, {"n": 0} if what == "replace" else None)
                assert self.model.instances[new].parent == name
        else:
            self.model.skip(name, cascade=what == "cascade", result={"n": 0})
            self.cascades[name] += what == "cascade"

    @rule(microseconds=st.sampled_from([1, 10**6, 10**8]))
    def wait(self, microseconds):
        self.model.advance(microseconds)

    @precondition(lambda self: len(self.model.firings) < 20)
    @rule(configuration=made.configurations(), catch_up=st.booleans())
    def configure(self, configuration, catch_up):
        self.model.configure(configuration, catch_up=catch_up)

    @invariant()
    def nothing_resolved_changes(self):
        now = self.model.snapshot()["instances"]
        for name, old in self.seen.items():
            new = now[name]
            if old["status"] in RESOLVED:
                assert new == old
            if old["status"] != UNSTARTED:
                assert (new["kwargs"], new["taken"], new["vetoes"]) == (
                    old["kwargs"],
                    old["taken"],
                    old["vetoes"],
                )
            assert new["taken"].items() >= old["taken"].items()
            assert new["fence"] >= old["fence"]
        self.seen = now

    @invariant()
    def no_decision_is_pending(self):
        for instance in self.model.instances.values():
            named = self.model.configuration.get(instance.task)
            if instance.status == UNSTARTED and named is not None:
                assert not can_schedule(named, instance.taken)
                assert not can_abandon(named, instance.vetoes)

    @invariant()
    def numbers_have_no_gaps(self):
        assert [firing.number for firing in self.model.firings] == list(range(1, len(self.model.firings) + 1))
        for task in {instance.task for instance in self.model.instances.values()}:
            assert [i.number for i in self.model.instances_of(task)] == list(
                range(len(self.model.instances_of(task)))
            )

    @invariant()
    def every_cascade_is_fired_once(self):
        causes = Counter(firing.cause for firing in self.model.firings if ":" not in firing.trigger)
        assert causes.pop("finalizing", 0) == self.model.finalized
        causes.pop(None, None)
        assert causes == +self.cascades

    @invariant()
    def what_an_instance_took_was_fired(self):
        for instance in self.model.instances.values():
            for trigger, number in instance.taken.items():
                assert self.model.firings[number - 1].trigger == trigger
                if instance.parent is None:
                    assert instance.kwargs[trigger] == self.model.firings[number - 1].kwargs

    @invariant()
    def a_complete_session_is_finalised(self):
        model = self.model
        needed = set(model.configuration) - model.waiting_for_finalizing()
        usual = needed - exceptional_in(model.configuration)
        if model.finalizing_trigger is not None and usual and not needed & set(model.unresolved_tasks()):
            assert model.finalized


TestLife = Life.TestCase
TestLife.settings = settings(max_examples=100, stateful_step_count=40, deadline=None)
