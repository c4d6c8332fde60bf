"""The commands that run tasks, or schedule lost ones for other processes."""

from __future__ import annotations

import logging
import signal
import threading
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Final

import click

from triggers.cli import documents, render
from triggers.cli.options import PAUSE, Target, common, pass_where, settle
from triggers.logs.formatters import ConsoleFormatter
from triggers.worker.sweep import SweepReport

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import FrameType

    from rich.progress import Progress

    from triggers import Triggers

#: Seconds that a stopping worker waits for running instances.
STOP_WITHIN: Final = 30.0

#: Seconds between two checks of a worker that all its threads are alive.
RESTART_PAUSE: Final = 5.0


@click.command()
@common
@pass_where
def sweep(where: Target) -> None:
    """Recover instances that lost their worker.

    With --app, it also runs due instances, and ends when nothing is due.
    """
    with _terminal_log(), where.opened() as app:
        with render.progress(quiet=where.json) as bar:
            report = _sweep(app, bar)
        backlog = app.storage.reader.backlog()
    if where.json:
        left = {"ready": backlog.ready, "later": backlog.later, "running": backlog.running}
        counts = {"recovered": report.recovered, "failed": report.failed, "dispatched": report.dispatched}
        documents.emit({**counts, **left})
        return
    render.say(*_sweep_lines(report, runs=app.has_runner))
    render.say(f"left: {backlog.ready:,} ready, {backlog.later:,} due later, {backlog.running:,} running")
    if backlog.ready and not app.has_runner:
        render.say(
            "This command ran no task. Run the tasks in a process that has them: triggers work --app ..."
        )


def _sweep_lines(report: SweepReport, *, runs: bool) -> Iterator[str]:
    lost = report.recovered + report.failed
    if lost:
        ends = f"{report.recovered:,} scheduled again, {report.failed:,} failed after too many losses"
        yield f"{render.plural(lost, 'instance')} had lost the worker: {ends}"
    else:
        yield "no instance had lost its worker"
    if runs:
        yield (
            f"dispatched {render.plural(report.dispatched, 'due instance')}"
            if report.dispatched
            else "nothing was due"
        )


def _sweep(app: Triggers, bar: Progress) -> SweepReport:
    """Sweep until nothing is due; each time, the runners of this process run what was dispatched."""
    job = bar.add_task("sweeping", total=None, left="")
    most = 0

    def look() -> None:
        nonlocal most
        backlog = app.storage.reader.backlog()
        left = backlog.ready + backlog.running
        most = max(most, left)
        bar.update(job, description="running", total=most, completed=most - left, left=f"{left:,} left")

    total = SweepReport()
    include_recent = True  # also what a process scheduled just before it died
    while True:
        report = app.sweep(include_recent=include_recent)
        include_recent = False
        total = SweepReport(
            total.recovered + report.recovered,
            total.failed + report.failed,
            total.dispatched + report.dispatched,
        )
        settle(app, (lambda: None) if bar.disable else look)
        if not report.dispatched:
            return total


@contextmanager
def _terminal_log() -> Iterator[None]:
    """Print records at WARNING and above on standard error, with their level, if no handler takes them.

    Without it, Python prints their text alone. An application that configures logging is not affected.
    """
    before, handler = logging.lastResort, logging.StreamHandler()
    handler.setLevel(logging.WARNING)
    handler.setFormatter(ConsoleFormatter())
    logging.lastResort = handler
    try:
        yield
    finally:
        logging.lastResort = before


#: The numbers of received signals, in order. A signal handler may put into this queue; it must not raise.
_Stops = SimpleQueue[int]


@contextmanager
def _signals() -> Iterator[_Stops]:
    """Collect SIGTERM and SIGINT instead of being interrupted by them; ignore them afterwards.

    The process then ends by itself, and a late signal would only disturb the shutdown of the interpreter.
    """
    stops: _Stops = SimpleQueue()

    def stop(number: int, _: FrameType | None) -> None:
        stops.put(number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    try:
        yield stops
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)


@click.command()
@click.option(
    "--stop-within",
    type=click.FloatRange(0),
    default=STOP_WITHIN,
    show_default=True,
    metavar="SECONDS",
    help="How long running instances may take to end after the signal.",
)
@common
@pass_where
def work(where: Target, stop_within: float) -> None:
    """Run due instances until SIGTERM or Ctrl-C."""
    if not where.names_app:
        message = "work needs the tasks: pass --app module:attribute"
        raise click.UsageError(message)
    app = where.open()
    if not app.has_runner:
        app.close()
        message = "the application has runner=None, so it cannot run tasks; give it a runner in this process"
        raise click.UsageError(message)
    with _terminal_log(), _signals() as stops:
        if not where.json:
            click.echo("Working. Stop it with Ctrl-C or SIGTERM.", err=True)
        name = signal.Signals(_until_stopped(app, stops)).name
        _close(app, stops, stop_within)
        if where.json:
            documents.emit({"signal": name})
        else:
            click.echo(f"Stopped by {name}.", err=True)


def _until_stopped(app: Triggers, stops: _Stops) -> int:
    """Work until a signal is received, and return it. Start again what could not start."""
    starting = _Background("triggers-start", app.start)
    while True:
        with suppress(Empty):
            return stops.get(timeout=RESTART_PAUSE)
        if starting.is_over():
            app.start()


def _close(app: Triggers, stops: _Stops, timeout: float) -> None:
    """Close the application. A second signal releases running instances at once; a third ends that wait.

    Raises:
        TriggersError: the application could not be closed.
    """
    closing = _Background("triggers-close", lambda: app.close(timeout))
    if not closing.ends_before(stops):
        closing = _Background("triggers-close-now", lambda: app.close(0))
        closing.ends_before(stops)
    if closing.error is not None:
        raise closing.error


class _Background:
    """A call in another thread while this one waits for signals; made in this thread if none can start."""

    def __init__(self, name: str, act: Callable[[], None]) -> None:
        self.error: Exception | None = None
        self._act = act
        self._thread = threading.Thread(target=self._do, name=name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the system cannot start more threads
            self._do()

    def _do(self) -> None:
        try:
            self._act()
        except Exception as error:  # noqa: BLE001 - the waiting thread raises it
            self.error = error

    def is_over(self) -> bool:
        """Return whether the call has returned or raised."""
        return not self._thread.is_alive()

    def ends_before(self, stops: _Stops) -> bool:
        """Wait for the call to end; return False if a signal was received first."""
        while not self.is_over():
            with suppress(Empty):
                stops.get(timeout=PAUSE)
                return False
        return True


@click.command()
@click.option(
    "--folder",
    type=click.Path(file_okay=False, path_type=Path),
    help="The folder for the files of the demo.  [default: triggers-demo]",
)
@click.option("--seed", type=int, default=1996, show_default=True, help="The seed of all random choices.")
@click.option(
    "--workers",
    type=click.IntRange(1, 64),
    default=4,
    show_default=True,
    help="How many threads run tasks, or how many processes in two Celery workers.",
)
@click.option(
    "--respondents", type=click.IntRange(1, 944), default=944, show_default=True, help="How many respondents."
)
@click.option(
    "--runner",
    type=click.Choice(["threads", "celery"]),
    default="threads",
    show_default=True,
    help="What runs the tasks.",
)
@click.option(
    "--broker",
    default="redis",
    show_default=True,
    metavar="URL",
    help="The broker of Celery; redis or rabbitmq starts a private one.",
)
@click.option("--kill-workers", is_flag=True, help="Kill a random process of the workers every second.")
@common
@pass_where
def demo(where: Target, /, **options: Any) -> None:
    """Run a demo: a real questionnaire, from pages to scores.

    The pages arrive in random order. You can kill it and start it again: the counts are the same. With
    --storage, the sessions are stored there. Instead of a URL, postgresql or redis starts a private server,
    which is deleted at the end.
    """
    from triggers.demo.results import OtherSurveyError  # noqa: PLC0415 - nothing else needs the survey
    from triggers.demo.show import show  # noqa: PLC0415

    if where.app:
        message = "the demo is an application itself: omit --app"
        raise click.UsageError(message)
    try:
        show(storage=where.storage, as_json=where.json, **options)
    except OtherSurveyError as error:
        raise click.UsageError(str(error)) from error


COMMANDS: Final = (demo, sweep, work)
