"""Assertions about a session, whose failure says why.

They work on any session in any storage, and need no test framework: each raises :class:`AssertionError`
with the story of the instance.
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

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
    from typing import NoReturn

    from triggers.manager import TriggerManager

#: Records of an instance that a message shows: the latest ones.
SHOWN_RECORDS: Final = 50

#: Instances that a message lists.
SHOWN_INSTANCES: Final = 50

_ANYTHING: Final[Any] = object()


class SessionAssertions:
    """Assertions about one session; each call looks at what is stored then.

    An assertion about an instance returns that instance. One that fails shows what is stored of it: its
    status and history, why it waits, its error with context and traceback, and its log.

    Args:
        session: its manager, or its view (``manager.storage``).
    """

    def __init__(self, session: TriggerManager | SessionView) -> None:
        self.view = session if isinstance(session, SessionView) else session.storage

    def __repr__(self) -> str:
        return f"<SessionAssertions about {self.view.uid!r}>"

    # -- the statuses -----------------------------------------------------------------------------------

    def assert_instance_finished(
        self, name: str, expected_result: Mapping[str, Any] | None = _ANYTHING
    ) -> TaskInstance:
        """The instance has finished.

        Args:
            name: of the instance.
            expected_result: what it returned; None and ``{}`` are the same. Unless given, anything will do.
        """
        __tracebackhide__ = True
        instance = self._in_status(name, Status.FINISHED)
        if expected_result is not _ANYTHING and (instance.result or {}) != (expected_result or {}):
            self._fail(
                f"{name} of session {self.view.uid!r} has finished with\n{_data(instance.result)}\n"
                f"and should have finished with\n{_data(expected_result)}",
                instance,
            )
        return instance

    def assert_instance_failed(
        self, name: str, exception_type: type[BaseException] | str | None = None, match: str | None = None
    ) -> TaskInstance:
        """The instance has failed.

        Args:
            name: of the instance.
            exception_type: the very type that was raised, not one of its bases: the type, its name, or its
                qualified name (``package.module.Name``).
            match: a regular expression to be found in the exception's message.
        """
        __tracebackhide__ = True
        instance = self._in_status(name, Status.FAILED)
        error = instance.error or {}
        if exception_type is not None and not _is_type(error, exception_type):
            wanted = exception_type if isinstance(exception_type, str) else _qualified(exception_type)
            found = error.get("qualified_type", "no exception")
            self._fail(
                f"{name} of session {self.view.uid!r} has failed with {found}, and should have with {wanted}",
                instance,
            )
        if match is not None and not re.search(match, error.get("message", "")):
            self._fail(
                f"{name} of session {self.view.uid!r} has failed with the message\n"
                f"  {error.get('message', '')!r}\n"
                f"in which this is not found:\n  {match!r}",
                instance,
            )
        return instance

    def assert_instance_skipped(self, name: str) -> TaskInstance:
        """The instance was skipped, by its task or by hand."""
        __tracebackhide__ = True
        return self._in_status(name, Status.SKIPPED)

    def assert_instance_replayed(self, name: str) -> TaskInstance:
        """The instance failed and another one took its place."""
        __tracebackhide__ = True
        return self._in_status(name, Status.REPLAYED)

    def assert_instance_abandoned(self, name: str) -> TaskInstance:
        """The instance was stopped by its `unless`."""
        __tracebackhide__ = True
        return self._in_status(name, Status.ABANDONED)

    def assert_instance_unstarted(self, name: str) -> TaskInstance:
        """The instance waits for triggers."""
        __tracebackhide__ = True
        return self._in_status(name, Status.UNSTARTED)

    def assert_instance_scheduled(self, name: str) -> TaskInstance:
        """The instance is ready to run, now or after a cooldown, and no worker has it."""
        __tracebackhide__ = True
        return self._in_status(name, Status.SCHEDULED)

    def assert_instance_running(self, name: str) -> TaskInstance:
        """A worker has the instance."""
        __tracebackhide__ = True
        return self._in_status(name, Status.RUNNING)

    def assert_instance_missing(self, name: str) -> None:
        """There is no such instance."""
        __tracebackhide__ = True
        instance = self._find(name)
        if instance is not None:
            self._fail(
                f"{name} of session {self.view.uid!r} is {instance.status}, and should not be there", instance
            )

    # -- the session ------------------------------------------------------------------------------------

    def assert_unresolved_tasks(self, expected: Iterable[str]) -> None:
        """These tasks, and no others, have no instance yet or one that is not resolved; in any order."""
        __tracebackhide__ = True
        found = {rule.task for rule in self.view.get_unresolved_tasks()}
        self._compare("unresolved tasks", found, set(expected), self._explained)

    def assert_unresolved_instances(self, expected: Iterable[str]) -> None:
        """These instances, and no others, are unstarted, scheduled, running or failed; in any order."""
        __tracebackhide__ = True
        found = {instance.name: instance for instance in self.view.get_unresolved_instances()}
        self._compare("unresolved instances", set(found), set(expected), partial(self._told, found))

    def assert_unresolved_logs(self, expected: Iterable[str], min_level: int = logging.WARNING) -> None:
        """These instances, and no others, have records that no review covers; in any order.

        Instances that were replayed or skipped do not count.
        """
        __tracebackhide__ = True
        unresolved = self.view.get_instances_with_unresolved_logs(min_level)
        found = {instance.name: instance for instance in unresolved}
        what = f"instances with unresolved records from {level_name(min_level)} on"
        self._compare(what, set(found), set(expected), partial(self._told, found))

    def assert_no_unresolved_logs(self, min_level: int = logging.WARNING) -> None:
        """No instance has records at or above the level that no review covers."""
        __tracebackhide__ = True
        self.assert_unresolved_logs([], min_level)

    def assert_finalized(self) -> None:
        """The finalising trigger has fired."""
        __tracebackhide__ = True
        if not self.view.finalized:
            open_tasks = [rule.task for rule in self.view.get_unresolved_tasks()]
            told = self._explained(open_tasks)
            self._fail("\n".join([f"session {self.view.uid!r} is not finalised, and should be", *told]))

    def assert_not_finalized(self) -> None:
        """The finalising trigger has not fired."""
        __tracebackhide__ = True
        if self.view.finalized:
            self._fail(f"session {self.view.uid!r} is finalised, and should not be")

    # -- what is said -----------------------------------------------------------------------------------

    def describe(self, name: str) -> str:
        """What is stored of an instance, for a person.

        Raises:
            UnknownInstanceError: there is none of that name.
        """
        return "\n".join(_story(self.view, self.view[name]))

    def _in_status(self, name: str, status: Status) -> TaskInstance:
        __tracebackhide__ = True
        instance = self._find(name)
        if instance is None:
            self._fail_missing(name, status)
        if instance.status is not status:
            found = f"{name} of session {self.view.uid!r} is {instance.status}"
            self._fail(f"{found}, and should be {status}", instance)
        return instance

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
            f"{what} of session {self.view.uid!r} are\n  {_names(found)}\nand should be\n  {_names(expected)}"
        ]
        lines += tell(sorted(found ^ expected))
        self._fail("\n".join(lines))

    def _explained(self, tasks: Collection[str]) -> Iterator[str]:
        known = self.view.tasks
        for task in tasks:
            yield self._why(task) if task in known else f"  {task} is no task of this session"

    def _why(self, name: str) -> str:
        return f"  why: {self.view.explain(name).sentence}"

    def _told(self, found: Mapping[str, TaskInstance], names: Collection[str]) -> Iterator[str]:
        """The story of each instance, as it was found, or as it is now."""
        for name in names:
            instance = found.get(name) or self._find(name)
            story = instance and "\n".join(_story(self.view, instance))
            yield f"{name}:\n{story}" if story else f"  there is no {name}"

    def _find(self, name: str) -> TaskInstance | None:
        try:
            return self.view[name]
        except UnknownInstanceError:
            return None

    def _fail(self, message: str, instance: TaskInstance | None = None) -> NoReturn:
        __tracebackhide__ = True
        story = _story(self.view, instance) if instance is not None else ()
        raise AssertionError("\n".join([message, *story]))


# -- the story of an instance ---------------------------------------------------------------------------


def _story(view: SessionView, instance: TaskInstance) -> Iterator[str]:
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
        f", the last {SHOWN_RECORDS} of them" if count > SHOWN_RECORDS else ""
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
    yield from stored or ["it has no instances at all"]


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
