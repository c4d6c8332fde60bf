"""Runs the survey: all messages arrive, failed instances are reviewed, and the results are counted.

You can kill it at any moment and start it again, and it ends with the same counts. Each message has a key,
so that it counts once, and the remaining work is read from the storage.
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

    #: Called with the current step, how much of it is done, and how much there is in total.
    Progress = Callable[[str, int, int], None]

#: The default seed: the year of the study.
SEED = 1996

#: How many threads run tasks, by default.
WORKERS = 4

#: After this time, the instances of a killed process are scheduled again.
LEASE = timedelta(seconds=5)

#: The age from which a sweep dispatches a scheduled instance again.
GRACE = timedelta(seconds=2)

#: The pause between two sweeps.
SWEEP_INTERVAL = timedelta(seconds=1)

#: The tolerance of a review, in years.
TOLERANCE = 2

#: The task that fails for implausible data.
CHECK = "t_checkSubject"

#: No task of the demo crashes its process, so that instances never fail because they were lost often.
CRASHES = 1_000_000

#: The pause between two checks of the remaining work.
LOOK = timedelta(seconds=0.2)


@dataclass(frozen=True, slots=True)
class DemoCounts:
    """The counts at the end; the same for the same seed, except the seconds.

    Attributes:
        sessions: one for each respondent.
        finalized: sessions that are finalized.
        firings: firings by the application and by tasks, without repeats.
        instances: status → number of instances.
        warned: instances with records at WARNING or above.
        results: rows in the table of results, one for each finished instance.
        timers: timers that are set: the reminder and the deadline of each incomplete questionnaire.
        tasks: task → status → number of instances.
        seconds: how long this run took.
    """

    sessions: int
    finalized: int
    firings: int
    instances: Mapping[str, int]
    warned: int
    results: int
    timers: int
    tasks: Mapping[str, Mapping[str, int]] = field(repr=False)
    seconds: float = field(compare=False)

    def to_json(self) -> dict[str, Any]:
        """Return the counts as plain data, without the counts by task."""
        return {
            "sessions": self.sessions,
            "finalized": self.finalized,
            "firings": self.firings,
            "instances": dict(self.instances),
            "warned": self.warned,
            "results": self.results,
            "timers": self.timers,
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
    """Run the survey to its end; a run that was stopped continues.

    Args:
        storage_url: the storage of the sessions.
        results_path: the file with the table of results.
        seed: the seed of all random choices.
        workers: how many threads run tasks.
        runner: a runner to use instead of those threads.
        respondents: how many respondents, beginning with the first.
        progress: called with the progress; an exception of it ends the run.
        lease: see :class:`~triggers.app.Triggers`.
        grace: see :class:`~triggers.app.Triggers`.

    Returns:
        The counts at the end. If everything was done before, the run changes nothing and returns the same.

    Raises:
        OtherSurveyError: the table has the results of another seed.
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
    """Create the application of the survey, the same in each of its processes.

    Args:
        storage_url: the storage of the sessions.
        runner: the runner of the tasks.
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
    """Fire all messages, as the server of a survey would; the first one of a session configures it."""
    waiting = {manager.uid: manager for manager in managers}
    begun: dict[str, TriggerManager] = {}
    for done, arrival in enumerate(arriving):
        if arrival.uid not in begun:
            begun[arrival.uid] = waiting[arrival.uid]
            begun[arrival.uid].update_configuration(rules)
        begun[arrival.uid].fire(arrival.trigger, arrival.kwargs, key=arrival.key)
        progress("arriving", done + 1, len(arriving))


def settle(triggers: Triggers, what: str, progress: Progress) -> None:
    """Wait until no instance is due or running, and report the progress."""
    most = 0
    while not triggers.join(LOOK):
        backlog = triggers.storage.reader.backlog()
        left = backlog.ready + backlog.later + backlog.running
        most = max(most, left)
        progress(what, most - left, most)
    if most:
        progress(what, most, most)


def review(managers: Iterable[TriggerManager], step: Callable[[TriggerManager, TaskInstance], None]) -> None:
    """Review every failed instance, except those that another process of the demo has just reviewed."""
    for manager in managers:
        for failed in manager.storage.find(statuses={Status.FAILED}):
            with suppress(InvalidStatusError):
                step(manager, failed)


def replay(manager: TriggerManager, failed: TaskInstance) -> None:
    """Replay a failed check once, with a tolerance. Another task failed because of the machine: replay it."""
    if failed.task != CHECK:
        manager.replay_failed_instance(failed)
    elif failed.parent is None:
        manager.replay_failed_instance(failed, {**failed.kwargs, "review": {"tolerance": TOLERANCE}})


def skip(manager: TriggerManager, failed: TaskInstance) -> None:
    """Skip a check that failed with the tolerance, too, so that the tasks that wait for it continue."""
    if failed.task == CHECK and failed.parent is not None:
        manager.skip_failed_instance(failed, cascade=True, result={"plausible": False})


def count(managers: Iterable[TriggerManager], results: int, started: float) -> DemoCounts:
    """Count sessions, firings and instances in the storage."""
    finalized = firings = warned = timers = sessions = 0
    tasks: dict[str, Counter[str]] = {}
    for manager in managers:
        session = manager.storage
        head = session.head
        sessions += 1
        timers += sum(1 for _ in manager.timers())
        firings += head.firings
        finalized += head.finalized is not None
        for instance in session:
            tasks.setdefault(instance.task, Counter())[instance.status.value] += 1
            warned += instance.log_level >= logging.WARNING
    return DemoCounts(
        sessions=sessions,
        finalized=finalized,
        firings=firings,
        instances={status.value: sum(of[status.value] for of in tasks.values()) for status in Status},
        warned=warned,
        results=results,
        timers=timers,
        tasks={task: dict(of) for task, of in tasks.items()},
        seconds=time.monotonic() - started,
    )
