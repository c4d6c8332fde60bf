from __future__ import annotations

import itertools
import logging
from dataclasses import dataclass, field

import pytest

from triggers.logs import InstanceLog, LogIdentity, LogSettings, report

IDENTITY = LogIdentity("respondent-17", "t_importSubject", "t_importSubject#0", attempt=2, fence=3)


class Collector(logging.Handler):
    """A handler of the application that keeps what it is given."""

    def __init__(self):
        super().__init__()
        self.records = []

    def emit(self, record):
        self.records.append(record)


@dataclass
class Kit:
    """An instance log, all that it has written, and a clock that stands still unless it is moved."""

    log: InstanceLog = None
    batches: list = field(default_factory=list)
    clock: list = field(default_factory=lambda: [1_790_000_000_000_000])

    def write(self, batch):
        self.batches.append(batch)

    def finish(self):
        """Hand over, as the end of an instance does; returns every record in its order."""
        self.batches.append(self.log.drain())
        return self.entries

    @property
    def entries(self):
        return sorted(
            (entry for batch in self.batches for entry in batch.entries), key=lambda entry: entry.seq
        )

    @property
    def counts(self):
        total = {}
        for batch in self.batches:
            for level, count in batch.counts.items():
                total[level] = total.get(level, 0) + count
        return total

    @property
    def dropped(self):
        return sum(batch.dropped for batch in self.batches)


_names = itertools.count()


@pytest.fixture(autouse=True)
def _nothing_reported_yet(monkeypatch):
    """What is reported once in a process is reported once in each test."""
    monkeypatch.setattr(report, "_reported", set())


@pytest.fixture
def name():
    """A name of an application's logger that no other test uses."""
    return f"application_{next(_names)}.tasks"


@pytest.fixture
def application(name):
    """The application's logger, set to INFO, with a handler that keeps records."""
    logger = logging.getLogger(name)
    logger.setLevel(logging.INFO)
    logger.collector = Collector()
    logger.addHandler(logger.collector)
    yield logger
    logger.handlers.clear()


@pytest.fixture
def make(name):
    def make(write=None, context=None, task_context=None, **settings):
        kit = Kit()
        kit.log = InstanceLog(
            IDENTITY,
            write=write or kit.write,
            now=lambda: kit.clock[0],
            settings=LogSettings(**settings),
            context=context,
            task_context=task_context,
            logger_name=name,
        )
        return kit

    return make


@pytest.fixture
def kit(make):
    return make()
