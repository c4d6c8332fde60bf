"""Plays the survey: everything arrives, what fails is reviewed, and the end is counted.

It may be killed at any moment and started again, and ends with the same counts: each message that arrives
has a key, so that it counts once, and what is left to do is read from the storage.
"""

from __future__ import annotations

import logging
import time
from collections import Counter
from contextlib import closing, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from triggers.app import Triggers
from triggers.core.status import Status
from triggers.demo.results import results_in
from triggers.demo.rules import survey_rules
from triggers.demo.study import RESPONDENTS, Arrival, arrivals, uid_of
from triggers.demo.tasks import survey
from triggers.exceptions import InvalidStatusError
from triggers.manager import FinalizingTriggerManager
from triggers.runners.threads import ThreadsRunner

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping
    from pathlib import Path

    from triggers.manager import TriggerManager
    from triggers.runners.base import Runner
    from triggers.session import TaskInstance

    #: Told what is being done, how much of it is done, and how much there is.
    Progress = Callable[[str, int, int], None]

#: The year of the study.
SEED = 1996

#: Threads that run tasks.
WORKERS = 4

#: How soon the work of a process that was killed is taken up.
LEASE = timedelta(seconds=5)

#: The sweep of a process that was started again begins after this.
GRACE = timedelta(seconds=2)

#: The pause between two sweeps.
SWEEP_INTERVAL = timedelta(seconds=1)

#: By how many years a review is milder than the rule.
TOLERANCE = 2

#: The task that fails for some data.
CHECK = "t_checkSubject"

#: No task here can bring a process down, so its loss never counts against them, however often one kills it.
CRASHES = 1_000_000

#: Pause between two looks at what is left to do.
LOOK = timedelta(seconds=0.2)


@dataclass(frozen=True, slots=True)
class DemoCounts:
    """What there is at the end; the same for the same seed, but for the seconds.

    Attributes:
        sessions: one for each respondent.
        finalized: sessions that are complete.
        firings: what the application and the tasks fired, cascades too; a repeat is none.
        instances: status → instances.
        warned: instances that said something at WARNING or above.
        results: rows in the survey's own table, one for each finished instance.
        tasks: task → status → instances.
        seconds: how long this run took.
    """

    sessions: int
    finalized: int
    firings: int
    instances: Mapping[str, int]
    warned: int
    results: int
    tasks: Mapping[str, Mapping[str, int]] = field(repr=False)
    seconds: float = field(compare=False)

    def to_json(self) -> dict[str, Any]:
        """The counts as plain data, one level deep but for the instances."""
        return {
            "sessions": self.sessions,
            "finalized": self.finalized,
            "firings": self.firings,
            "instances": dict(self.instances),
            "warned": self.warned,
            "results": self.results,
            "seconds": round(self.seconds, 1),
        }


def run(
    storage_url: str,
    *,
    results_path: Path,
    seed: int = SEED,
    workers: int = WORKERS,
    runner: Runner | None = None,
    respondents: int = RESPONDENTS,
    progress: Progress = lambda *_: None,
    lease: timedelta = LEASE,
    grace: timedelta = GRACE,
) -> DemoCounts:
    """Play the survey to its end, or, where a run was stopped, from there to its end.

    Args:
        storage_url: where the sessions are kept.
        results_path: where the survey's own table is kept.
        seed: of everything that is made up.
        workers: threads that run tasks.
        runner: what runs tasks instead of those threads.
        respondents: how many of them, from the first.
        progress: told how it goes; what it raises ends the run.
        lease: see :class:`~triggers.app.Triggers`.
        grace: see :class:`~triggers.app.Triggers`.

    Returns:
        What there is at the end; a run that finds everything done changes nothing and returns the same.

    Raises:
        OtherSurveyError: the table holds the results of another seed.
        StorageError: the storage cannot be used.
    """
    started = time.monotonic()
    results = results_in(str(results_path.resolve()))
    triggers = application(storage_url, runner or ThreadsRunner(workers), lease=lease, grace=grace)
    with closing(results), triggers:
        results.prepare(seed)
        managers = [triggers.session(uid_of(number)) for number in range(1, respondents + 1)]
        receive(managers, arrivals(respondents, seed), survey_rules(results_path.resolve()), progress)
        settle(triggers, "working", progress)
        for step in (replay, skip):
            review(managers, step)
            settle(triggers, "reviewing", progress)
        return count(managers, results.count(), started)


def application(
    storage_url: str, runner: Runner, *, lease: timedelta = LEASE, grace: timedelta = GRACE
) -> Triggers:
    """The survey's application: the same in each of its processes.

    Args:
        storage_url: where the sessions are kept.
        runner: what runs tasks.
        lease: see :class:`~triggers.app.Triggers`.
        grace: see :class:`~triggers.app.Triggers`.

    Raises:
        StorageError: the storage cannot be used.
    """
    return Triggers(
        storage_url,
        runner=runner,
        manager=FinalizingTriggerManager,
        registry=survey,
        complete_registry=True,
        lease=lease,
        grace=grace,
        sweep_interval=SWEEP_INTERVAL,
        max_crashes=CRASHES,
    )


def receive(
    managers: Iterable[TriggerManager],
    arriving: list[Arrival],
    rules: Mapping[str, Mapping[str, Any]],
    progress: Progress,
) -> None:
    """Fire everything that arrives, as a survey's server would; a session is configured when it begins."""
    waiting = {manager.uid: manager for manager in managers}
    begun: dict[str, TriggerManager] = {}
    for done, arrival in enumerate(arriving):
        if arrival.uid not in begun:
            begun[arrival.uid] = waiting[arrival.uid]
            begun[arrival.uid].update_configuration(rules)
        begun[arrival.uid].fire(arrival.trigger, arrival.kwargs, key=arrival.key)
        progress("arriving", done + 1, len(arriving))


def settle(triggers: Triggers, what: str, progress: Progress) -> None:
    """Wait until nothing is left to run."""
    most = 0
    while not triggers.join(LOOK):
        backlog = triggers.storage.reader.backlog()
        left = backlog.ready + backlog.later + backlog.running
        most = max(most, left)
        progress(what, most - left, most)
    if most:
        progress(what, most, most)


def review(managers: Iterable[TriggerManager], step: Callable[[TriggerManager, TaskInstance], None]) -> None:
    """Look at everything that failed. What another process of this demo has just settled is left alone."""
    for manager in managers:
        for failed in manager.storage.find(statuses={Status.FAILED}):
            with suppress(InvalidStatusError):
                step(manager, failed)


def replay(manager: TriggerManager, failed: TaskInstance) -> None:
    """Give a check one second chance, with a tolerance; anything else failed for want of disk or the like."""
    if failed.task != CHECK:
        manager.replay_failed_instance(failed)
    elif failed.parent is None:
        manager.replay_failed_instance(failed, {**failed.kwargs, "review": {"tolerance": TOLERANCE}})


def skip(manager: TriggerManager, failed: TaskInstance) -> None:
    """Give up a check that failed with the tolerance, too, and let the rest go on."""
    if failed.task == CHECK and failed.parent is not None:
        manager.skip_failed_instance(failed, cascade=True, result={"plausible": False})


def count(managers: Iterable[TriggerManager], results: int, started: float) -> DemoCounts:
    """Read from the storage what there is."""
    finalized = firings = warned = 0
    tasks: dict[str, Counter[str]] = {}
    sessions = [manager.storage for manager in managers]
    for session in sessions:
        head = session.head
        firings += head.firings
        finalized += head.finalized is not None
        for instance in session:
            tasks.setdefault(instance.task, Counter())[instance.status.value] += 1
            warned += instance.log_level >= logging.WARNING
    return DemoCounts(
        sessions=len(sessions),
        finalized=finalized,
        firings=firings,
        instances={status.value: sum(of[status.value] for of in tasks.values()) for status in Status},
        warned=warned,
        results=results,
        tasks={task: dict(of) for task, of in tasks.items()},
        seconds=time.monotonic() - started,
    )
