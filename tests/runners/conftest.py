"""Celery workers for tests, real processes: each is started when the first test asks for it, and serves them all."""

from __future__ import annotations

import itertools
import os
import secrets
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.runners.celery_app import TOLD, make_app, queues

ROOT = Path(__file__).parents[2]

#: Nothing here takes so long, in seconds, unless it hangs.
PATIENCE = 60.0


def until(happens, timeout=PATIENCE):
    """Wait until that is true, or true enough, and return it."""
    end = time.monotonic() + timeout
    while not (found := happens()):
        assert time.monotonic() < end, "it did not happen in time"
        time.sleep(0.02)
    return found


class Worker:
    """A Celery worker: its processes, its queues, and a link to the storage that it works on."""

    def __init__(self, folder, broker, *, pool="prefork", sweep=True, concurrency=2, options=()):
        self.broker, self.prefix = broker, f"t{secrets.token_hex(4)}"
        self.link, self.log = folder / "storage", folder / "log"
        self.point_to(folder / "nowhere.db")
        told = {"BROKER": broker, "PREFIX": self.prefix, "LINK": str(self.link), "SWEEP": "yes" * sweep}
        self._command = [
            *(sys.executable, "-m", "celery", "-A", "tests.runners.celery_app", "worker"),
            *(f"--pool={pool}", f"--concurrency={concurrency}", f"--queues={','.join(queues(self.prefix))}"),
            *("--without-gossip", "--without-mingle", "--loglevel=INFO", f"--hostname={self.prefix}@%h"),
            *options,
        ]
        self._environment = {**os.environ, **{TOLD + key: value for key, value in told.items()}}
        self.start()

    def start(self):
        """Start its processes, anew after they were killed."""
        self.log.write_bytes(b"")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, cwd=ROOT, env=self._environment, stdout=log, stderr=log, start_new_session=True
            )
        until(lambda: self.says(" ready.") or self.process.poll() is not None)
        assert self.process.poll() is None, self.log.read_text()

    def says(self, text):
        """Whether that stands in its log."""
        return text in self.log.read_text("utf-8", "replace")

    def app(self):
        """Its application as another process makes it."""
        return make_app(self.broker, self.prefix)

    def point_to(self, path):
        """Let it work on that file from now on."""
        fresh = self.link.with_suffix(f".{secrets.token_hex(4)}")
        fresh.symlink_to(path)
        fresh.replace(self.link)

    def kill(self):
        """Kill its main process, and so its children."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def stop(self):
        """Let it finish what it runs, for a while."""
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(PATIENCE)


@pytest.fixture(scope="session")
def make_worker(tmp_path_factory):
    """Starts workers that live as long as the tests; asked for the same again, it gives the same."""
    numbers, made = itertools.count(), {}

    def make_worker(broker, **settings):
        key = (broker, *sorted(settings.items()))
        if key not in made or made[key].process.poll() is not None:
            made[key] = Worker(tmp_path_factory.mktemp(f"worker{next(numbers)}"), broker, **settings)
        return made[key]

    yield make_worker
    for worker in made.values():
        worker.process.terminate()
    for worker in made.values():
        worker.stop()
