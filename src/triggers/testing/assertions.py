"""Assertions about a session. A failure says why.

They work on any session in any storage, and need no test framework. An assertion that fails raises
:class:`AssertionError` with everything that is stored about the instance.
"""

from __future__ import annotations

import logging
import re
from functools import partial
from pprint import pformat
from textwrap import indent
from typing import TYPE_CHECKING, Any, Final

from triggers.core.status import Status
from triggers.exceptions import UnknownInstanceError
from triggers.session import SessionView, TaskInstance, level_name
from triggers.timers import timers_of

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from datetime import datetime
    from typing import NoReturn

    from triggers.manager import TriggerManager
    from triggers.timers import Timer

#: How many records of an instance a message shows at most: the latest ones.
SHOWN_RECORDS: Final = 50

#: How many instances a message lists at most.
SHOWN_INSTANCES: Final = 50

_ANYTHING: Final[Any] = object()


class SessionAssertions:
    """Assertions about one session. Each call reads what is stored at that time.

    An assertion about an instance returns the instance. If the assertion fails, its message shows what is
    stored about the instance: its status and history, why it waits, its error with context and traceback, and
    its log.

    Args:
        session: the manager of the session, or its view (``manager.storage``).
        asserted: receives (UID, name) of each instance that was asserted to have failed.
    """

    def __init__(
        self, session: TriggerManager | SessionView, *, asserted: set[tuple[str, str]] | None = None
    ) -> None:
        self._asserted = set[tuple[str, str]]() if asserted is None else asserted
        self.view: SessionView = session if isinstance(session, SessionView) else session.storage

    def __repr__(self) -> str:
        return f"<SessionAssertions about {self.view.uid!r}>"

    # -- statuses ---------------------------------------------------------------------------------------

    def assert_instance_status(self, name: str, status: Status | str) -> TaskInstance:
        """Assert that the instance exists and has this one of the eight statuses."""
        __tracebackhide__ = True
        wanted, instance = Status(status), self._find(name)
        if instance is None:
            self._fail_missing(name, wanted)
        if instance.status is not wanted:
            found = f"{name} of session {self.view.uid!r} is {instance.status}"
            self._fail(f"{found}, but should be {wanted}", instance)
        return instance

    def assert_instance_finished(
        self, name: str, expected_result: Mapping[str, Any] | None = _ANYTHING
    ) -> TaskInstance:
        """Assert that the instance has finished.

        Args:
            name: the name of the instance.
            expected_result: the result to compare with; None and ``{}`` are the same. Without it, any result
                passes.
        """
        __tracebackhide__ = True
        instance = self.assert_instance_status(name, Status.FINISHED)
        if expected_result is not _ANYTHING and (instance.result or {}) != (expected_result or {}):
            self._fail(
                f"{name} of session {self.view.uid!r} has finished with\n{_data(instance.result)}\n"
                f"but should have finished with\n{_data(expected_result)}",
                instance,
            )
        return instance

    def assert_instance_failed(
        self, name: str, exception_type: type[BaseException] | str | None = None, match: str | None = None
    ) -> TaskInstance:
        """Assert that the instance has failed.

        Args:
            name: the name of the instance.
            exception_type: the exact type that was raised, not one of its base classes: the type, its name,
                or its qualified name (``package.module.Name``).
            match: a regular expression that is searched for in the exception's message.
        """
        __tracebackhide__ = True
        instance = self.assert_instance_status(name, Status.FAILED)
        error = instance.error or {}
        if exception_type is not None and not _is_type(error, exception_type):
            wanted = exception_type if isinstance(exception_type, str) else _qualified(exception_type)
            found = error.get("qualified_type", "no exception")
            self._fail(
                f"{name} of session {self.view.uid!r} has failed with {found}, "
                f"but should have failed with {wanted}",
                instance,
            )
        if match is not None and not re.search(match, error.get("message", "")):
            self._fail(
                f"{name} of session {self.view.uid!r} has failed with the message\n"
                f"  {error.get('message', '')!r}\n"
                f"which does not match\n  {match!r}",
                instance,
            )
        self._asserted.add((self.view.uid, instance.name))
        return instance

    def assert_instance_skipped(self, name: str) -> TaskInstance:
        """Assert that the instance was skipped, by its task or by a person."""
        __tracebackhide__ = True
        return self.assert_instance_status(name, Status.SKIPPED)

    def assert_instance_replayed(self, name: str) -> TaskInstance:
        """Assert that the instance failed and was replaced by a new one."""
        __tracebackhide__ = True
        return self.assert_instance_status(name, Status.REPLAYED)

    def assert_instance_abandoned(self, name: str) -> TaskInstance:
        """Assert that the `unless` of its task stopped the instance before it started."""
        __tracebackhide__ = True
        return self.assert_instance_status(name, Status.ABANDONED)

    def assert_instance_unstarted(self, name: str) -> TaskInstance:
        """Assert that the instance still waits for triggers."""
        __tracebackhide__ = True
        return self.assert_instance_status(name, Status.UNSTARTED)

    def assert_instance_scheduled(self, name: str) -> TaskInstance:
        """Assert that the instance may run, now or after a cooldown, and that no worker has claimed it."""
        __tracebackhide__ = True
        return self.assert_instance_status(name, Status.SCHEDULED)

    def assert_instance_running(self, name: str) -> TaskInstance:
        """Assert that a worker has claimed the instance and has not ended it yet."""
        __tracebackhide__ = True
        return self.assert_instance_status(name, Status.RUNNING)

    def assert_instance_missing(self, name: str) -> None:
        """Assert that the session has no instance of that name."""
        __tracebackhide__ = True
        instance = self._find(name)
        if instance is not None:
            self._fail(
                f"{name} of session {self.view.uid!r} is {instance.status}, but should not exist", instance
            )

    # -- the session ------------------------------------------------------------------------------------

    def assert_unresolved_tasks(self, expected: Iterable[str]) -> None:
        """Assert that exactly these tasks, in any order, have no instance yet or one that is not resolved."""
        __tracebackhide__ = True
        found = {rule.task for rule in self.view.get_unresolved_tasks()}
        self._compare("unresolved tasks", found, set(expected), self._explained)

    def assert_unresolved_instances(self, expected: Iterable[str]) -> None:
        """Assert that exactly these instances, in any order, are unstarted, scheduled, running or failed."""
        __tracebackhide__ = True
        found = {instance.name: instance for instance in self.view.get_unresolved_instances()}
        self._compare("unresolved instances", set(found), set(expected), partial(self._described, found))

    def assert_unresolved_logs(self, expected: Iterable[str], min_level: int = logging.WARNING) -> None:
        """Assert that exactly these instances, in any order, have records that no review covers.

        Instances that were replayed or skipped do not count.
        """
        __tracebackhide__ = True
        unresolved = self.view.get_instances_with_unresolved_logs(min_level)
        found = {instance.name: instance for instance in unresolved}
        what = f"instances with unresolved records at {level_name(min_level)} or above"
        self._compare(what, set(found), set(expected), partial(self._described, found))

    def assert_no_unresolved_logs(self, min_level: int = logging.WARNING) -> None:
        """Assert that every record at or above the level is covered by a review."""
        __tracebackhide__ = True
        self.assert_unresolved_logs([], min_level)

    def assert_finalized(self) -> None:
        """Assert that the session is finalized: its finalizing trigger has fired."""
        __tracebackhide__ = True
        if not self.view.finalized:
            open_tasks = [rule.task for rule in self.view.get_unresolved_tasks()]
            told = self._explained(open_tasks)
            self._fail("\n".join([f"session {self.view.uid!r} is not finalized, but should be", *told]))

    def assert_not_finalized(self) -> None:
        """Assert that the finalizing trigger of the session has not fired yet."""
        __tracebackhide__ = True
        if self.view.finalized:
            self._fail(f"session {self.view.uid!r} is finalized, but should not be")

    # -- timers -----------------------------------------------------------------------------------------

    def assert_timer(self, name: str, at: datetime | None = None) -> Timer:
        """Assert that a timer is set.

        Args:
            name: its name, as in ``fire_later(…, name=…)``; for the delay or the deadline of an instance, the
                name of the instance.
            at: when it should be due, as an aware datetime; None for any time.

        Returns:
            The timer.
        """
        __tracebackhide__ = True
        found = {timer.instance or timer.name: timer for timer in self._timers()}
        if name not in found:
            instance = self._find(name)
            self._fail_timers(f"has no timer {name!r}, but should have one", found.values(), instance)
        timer = found[name]
        if timer.problem or (at is not None and timer.at != at):
            wanted = f"be due at {at.isoformat(sep=' ')}" if at is not None else "elapse"
            self._fail_timers(f"has the timer {name!r}, which should {wanted}", found.values())
        return timer

    def assert_no_timers(self) -> None:
        """Assert that no timer is set in the session: no ``fire_later``, no delay, no deadline."""
        __tracebackhide__ = True
        if found := list(self._timers()):
            self._fail_timers("should have no timers", found)

    def _timers(self) -> Iterator[Timer]:
        return timers_of(self.view._reader, self.view.uid)  # noqa: SLF001 - a part of the view

    def _fail_timers(
        self, what: str, timers: Iterable[Timer], instance: TaskInstance | None = None
    ) -> NoReturn:
        __tracebackhide__ = True
        lines = [f"  {_told(timer)}" for timer in timers] or ["  none"]
        self._fail("\n".join([f"session {self.view.uid!r} {what}; its timers:", *lines]), instance)

    # -- messages ---------------------------------------------------------------------------------------

    def describe(self, name: str) -> str:
        """Return what is stored about an instance, as readable text.

        Raises:
            UnknownInstanceError: the session has no instance of that name.
        """
        return "\n".join(_description(self.view, self.view[name]))

    def _fail_missing(self, name: str, status: Status) -> NoReturn:
        __tracebackhide__ = True
        lines = [f"session {self.view.uid!r} has no instance {name!r}, which should be {status}"]
        task = name.rpartition("#")[0] or name
        if task in self.view.tasks:
            lines.append(self._why(task))
        lines += [f"  {listed}" for listed in _listed(self.view)]
        self._fail("\n".join(lines))

    def _compare(
        self,
        what: str,
        found: set[str],
        expected: set[str],
        tell: Callable[[Collection[str]], Iterable[str]],
    ) -> None:
        __tracebackhide__ = True
        if found == expected:
            return
        lines = [
            f"{what} of session {self.view.uid!r} are\n  {_names(found)}\nbut should be\n  {_names(expected)}"
        ]
        lines += tell(sorted(found ^ expected))
        self._fail("\n".join(lines))

    def _explained(self, tasks: Collection[str]) -> Iterator[str]:
        known = self.view.tasks
        for task in tasks:
            yield self._why(task) if task in known else f"  {task} is not a task of this session"

    def _why(self, name: str) -> str:
        return f"  why: {self.view.explain(name).sentence}"

    def _described(self, found: Mapping[str, TaskInstance], names: Collection[str]) -> Iterator[str]:
        """The description of each instance, as it was found, or as it is now."""
        for name in names:
            instance = found.get(name) or self._find(name)
            description = instance and "\n".join(_description(self.view, instance))
            yield f"{name}:\n{description}" if description else f"  {name} does not exist"

    def _find(self, name: str) -> TaskInstance | None:
        try:
            return self.view[name]
        except UnknownInstanceError:
            return None

    def _fail(self, message: str, instance: TaskInstance | None = None) -> NoReturn:
        __tracebackhide__ = True
        description = _description(self.view, instance) if instance is not None else ()
        raise AssertionError("\n".join([message, *description]))


# -- the description of an instance ---------------------------------------------------------------------


def _description(view: SessionView, instance: TaskInstance) -> Iterator[str]:
    yield f"  status: {instance.status}, attempt {instance.attempt}" + (
        f", {_count(instance.crashes, 'crash', 'crashes')}" if instance.crashes else ""
    )
    yield "  history:"
    for at, status, remark in instance.history:
        yield f"    {at.isoformat(sep=' ')} {status} {remark}".rstrip()
    yield f"  kwargs:\n{_data(instance.kwargs)}"
    if instance.result is not None:
        yield f"  result:\n{_data(instance.result)}"
    yield f"  why: {view.explain(instance.name).sentence}"
    yield from _error(instance.error)
    yield from _log(view, instance)


def _error(error: Mapping[str, Any] | None) -> Iterator[str]:
    if error is None:
        return
    yield f"  error: {error['type']}: {error['message']}"
    if error.get("context"):
        yield f"  context of the error:\n{_data(error['context'])}"
    yield indent(error.get("traceback", "").rstrip(), "    ")


def _log(view: SessionView, instance: TaskInstance) -> Iterator[str]:
    count = sum(instance.log_counts.values())
    if not count:
        yield "  log: nothing"
        return
    yield f"  log: {_count(count, 'record', 'records')}" + (
        f", of which the last {SHOWN_RECORDS} are shown" if count > SHOWN_RECORDS else ""
    )
    for record in view.logs(instance, limit=SHOWN_RECORDS, latest=True):
        entry = record.entry
        yield f"    {level_name(entry.level)} {entry.logger}: {entry.message}"
        if entry.context:
            yield _data(entry.context, "      ")


def _listed(view: SessionView) -> Iterator[str]:
    stored = [
        f"{instance.name} is {instance.status}"
        for instance, _ in zip(view, range(SHOWN_INSTANCES), strict=False)
    ]
    yield from stored or ["the session has no instances"]


def _told(timer: Timer) -> str:
    """Return what a timer does and when, in one line."""
    does = (
        f"{timer.kind} of {timer.instance}" if timer.instance else f"{timer.name!r} fires {timer.trigger!r}"
    )
    problem = f", put aside: {timer.problem}" if timer.problem else ""
    return f"{timer.at.isoformat(sep=' ')} {does}{problem}"


def _count(number: int, one: str, more: str) -> str:
    return f"{number} {one if number == 1 else more}"


def _names(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "none"


def _data(value: Any, margin: str = "    ") -> str:
    return indent(pformat(value, width=100, sort_dicts=False), margin)


def _qualified(kind: type[BaseException]) -> str:
    return f"{kind.__module__}.{kind.__qualname__}"


def _is_type(error: Mapping[str, Any], wanted: type[BaseException] | str) -> bool:
    if isinstance(wanted, str):
        return wanted in {error.get("type"), error.get("qualified_type")}
    return error.get("qualified_type") == _qualified(wanted)
