"""How many examples Hypothesis tries on a storage: most of the time of these suites is theirs."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis.stateful import run_state_machine_as_test

from triggers.testing.conformance.machine import SessionMachine


class FewExamples:
    """A suite with a fifth of the examples, for a storage of which another suite tries more."""

    part = 5

    @pytest.fixture(autouse=True)
    def _few_examples(self):
        before = settings.get_current_profile_name()
        settings.register_profile("few", settings(), max_examples=settings().max_examples // self.part)
        settings.load_profile("few")
        yield
        settings.load_profile(before)


class HalfTheExamples(FewExamples):
    """A suite with half of the examples, and a long form with many."""

    part = 2

    @pytest.mark.slow
    def test_it_agrees_with_the_reference_model_for_long(self, make_place):
        """All promises, as in the short form."""

        class Machine(SessionMachine):
            def make_place(self):
                return make_place()

        run_state_machine_as_test(Machine, settings=settings(max_examples=1_000, deadline=None))
