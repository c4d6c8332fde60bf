"""A Celery worker hears of work that nobody has sent it, and of retries that its children ask for."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.runners.conftest import until
from triggers import Triggers

#: A worker that sweeps once an hour. Nothing but an announcement makes it look in between.
WORKER = """
import sys, warnings
warnings.simplefilter("ignore")
from celery import Celery
from triggers import Registry, Triggers
from triggers.runners.celery import CeleryRunner
from triggers.task import task

url, broker, queue = sys.argv[1:]
app = Celery("wake", broker=broker, set_as_current=False)
app.conf.update(task_default_queue=queue, broker_connection_retry_on_startup=True)
tasks = Registry()

@task(name="wake.Note", registry=tasks, max_retries=2)
def note(context):
    if context.task_instance.depth < 2:
        raise context.retry(cooldown=0.1)

triggers = Triggers(url, runner=CeleryRunner(app), registry=tasks, sweep_interval=3600)
app.worker_main(["worker", "--pool=prefork", "--concurrency=1", "--without-gossip", "--without-mingle"])
"""


@pytest.mark.parametrize("kind", ["postgres", "valkey"])
def test_a_celery_worker_does_not_wait_for_its_sweep(request, kind, redis_server):
    """A process without a runner fires three times; each instance runs three times, with retries in the child."""
    url = request.getfixturevalue(f"{kind}_url")
    queue = f"wake-{kind}"
    web = Triggers(url, runner=None)
    session = web.session("s")
    session.update_configuration({"t_note": {"andEvery": "go", "run": "wake.Note"}})
    command = [sys.executable, "-c", WORKER, url, redis_server.url, queue]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as worker:
        for n in range(3):
            session.fire("go")
            until(lambda n=n: f"t_note#{3 * n + 2}" in session.storage)
            until(lambda n=n: session.storage[f"t_note#{3 * n + 2}"].status == "finished")
        worker.terminate()
        worker.wait(60)
    web.close()
