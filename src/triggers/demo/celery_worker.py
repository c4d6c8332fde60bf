"""The survey's Celery application, and its worker: `… -m triggers.demo.celery_worker NAME CHILDREN GRACE`.

Needs Celery; only :mod:`triggers.demo.workers` imports it.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from datetime import timedelta
from typing import Final

from celery import Celery, signals

from triggers.demo.main import application
from triggers.runners.celery import CeleryRunner

#: The environment variables with the URLs. Other users could read them in a command line.
STORAGE: Final = "TRIGGERS_DEMO_STORAGE"
BROKER: Final = "TRIGGERS_DEMO_BROKER"

#: A separate queue, for brokers that other applications use, too.
QUEUE: Final = "triggers-demo"


def celery_app(broker_url: str) -> Celery:
    """Return the Celery application, which is not connected yet."""
    app = Celery("triggers-demo", broker=broker_url)
    app.conf.update(
        broker_connection_retry_on_startup=True,
        task_default_queue=QUEUE,
        worker_enable_remote_control=False,
    )
    return app


def main(name: str, processes: str, grace: str) -> None:
    """Work until killed, or until the process that holds the other end of standard input has ended.

    Standard output gets one line, `ready`, when the worker is ready.
    """
    threading.Thread(target=_end_with_starter, name="demo-lifeline", daemon=True).start()
    signals.worker_ready.connect(_say_ready)
    app = celery_app(os.environ[BROKER])
    application(os.environ[STORAGE], CeleryRunner(app), grace=timedelta(seconds=float(grace)))
    options = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=WARNING"]
    app.worker_main(
        [
            "--quiet",
            "worker",
            "--pool=prefork",
            f"--concurrency={processes}",
            f"--hostname={name}@%h",
            *options,
        ]
    )


def _say_ready(**_: object) -> None:
    os.write(1, b"ready\n")


def _end_with_starter() -> None:
    # Not through sys.stdin: a forked child closes it, and would wait for a lock that this thread holds.
    while os.read(0, 1):
        pass
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main(*sys.argv[1:])
