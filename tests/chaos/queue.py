"""The way to Celery workers: their application, a broker that doubles, delays and loses messages, and garbage."""

from __future__ import annotations

import os
import random
import warnings
from contextlib import closing
from typing import TYPE_CHECKING, Any, Final

from celery import Celery
from celery.app.amqp import AMQP
from celery.platforms import SecurityWarning
from kombu import Producer

from triggers.runners.celery import CeleryRunner

if TYPE_CHECKING:
    from collections.abc import Callable

    from triggers import Triggers

#: What becomes of a message, and how often.
FATES: Final = {"once": 3, "twice": 4, "late": 2, "never": 1}

#: So many messages that came late are delivered together, the latest first.
LATE: Final = 5


class Tricky(Producer):  # type: ignore[misc]
    """Publishes messages twice, late and in another order, or not at all."""

    dice = random.Random()
    late: Final[list[tuple[Any, dict[str, Any]]]] = []

    def publish(self, body: Any, **options: Any) -> Any:
        """Publish a message, as fate has it."""
        (fate,) = self.dice.choices([*FATES], [*FATES.values()])
        if fate == "late":
            self.late.append((body, options))
            if len(self.late) >= LATE:
                while self.late:
                    held, how = self.late.pop()
                    super().publish(held, **how)
        for _ in range({"once": 1, "twice": 2}.get(fate, 0)):
            super().publish(body, **options)


class _Amqp(AMQP):  # type: ignore[misc]
    Producer = Tricky


class Queue:
    """Celery on a broker.

    Args:
        broker: its URL.
        seed: decides what becomes of messages.
        calm: whether every message comes once, in order.
    """

    def __init__(self, broker: str, seed: int, *, calm: bool = False) -> None:
        self.broker = broker
        self._seed = seed
        self._calm = calm
        self._held: list[Triggers] = []

    def app(self) -> Celery:
        """The application, as each process has it."""
        app = Celery("chaos", broker=self.broker, set_as_current=False, amqp=AMQP if self._calm else _Amqp)
        app.conf.update(
            task_default_queue="chaos",
            broker_connection_retry_on_startup=True,
            broker_connection_max_retries=None,
            worker_hijack_root_logger=False,
            worker_redirect_stdouts=False,
            worker_enable_remote_control=False,
        )
        return app

    def runner(self, life: int) -> CeleryRunner:
        """The runner of a process that sends."""
        Tricky.dice.seed(f"{self._seed} {life}")
        Tricky.late.clear()
        return CeleryRunner(self.app(), deadline=2.0)

    def work(self, build: Callable[[CeleryRunner], Triggers], at_once: int) -> None:
        """Be a worker, with a pool of processes, until told to stop."""
        app = self.app()
        self._held.append(build(CeleryRunner(app, deadline=2.0)))
        Tricky.dice.seed(f"{self._seed} {os.getpid()}")
        warnings.simplefilter("ignore", SecurityWarning)  # where the tests are root, the workers are, too
        options = ["--without-gossip", "--without-mingle", "--without-heartbeat", "--loglevel=WARNING"]
        try:
            app.worker_main(
                [
                    "--quiet",
                    "worker",
                    "--pool=prefork",
                    f"--concurrency={at_once}",
                    f"-nw{os.getpid()}@%h",
                    *options,
                ]
            )
        except SystemExit as stop:
            os._exit(stop.code if isinstance(stop.code, int) else 1)

    def purge(self) -> int:
        """Lose every message that waits; how many there were."""
        app = self.app()
        with app.connection_for_write() as connection:
            queue = app.amqp.queues["chaos"](connection.default_channel)
            queue.declare()
            count: int = queue.purge()
        return count

    def send_garbage(self) -> None:
        """Send what no worker can use."""
        app = self.app()
        with app.connection_for_write() as connection, closing(Producer(connection)) as producer:
            where = {"routing_key": "chaos", "exchange": ""}
            app.amqp.queues["chaos"](connection.default_channel).declare()
            producer.publish(
                b"\xff no JSON", content_type="application/json", content_encoding="utf-8", **where
            )
            producer.publish(
                b"\x80\x04N.",
                content_type="application/x-python-serialize",
                content_encoding="binary",
                **where,
            )
            producer.publish({"no": "task"}, serializer="json", **where)
            for name, args in GARBAGE:
                app.send_task(name, args, producer=producer)


#: Messages for tasks and instances that are not there, or not there like that.
GARBAGE: Final[tuple[tuple[str, tuple[Any, ...]], ...]] = (
    ("no.such.task", ("s-1", "t_notes#0")),
    ("plain", ("nobody", "t_notes#0")),
    ("plain", ("s-1", "t_notes#999999")),
    ("plain", ("s-1", "t_subject#0")),
    ("subject", ("s-1", "t_notes#0")),
    ("triggers.run", ("s-1", "t_score#0")),
    ("plain", ("s-1",)),
    ("plain", ()),
    ("plain", (None, {"a": [1]})),
    ("plain", ("s-1", "t_notes#" + "9" * 5_000)),
)
