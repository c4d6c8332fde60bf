"""The application: tasks, and the one Triggers object that web processes, workers and the sweep share."""

from __future__ import annotations

import os

from celery import Celery

from triggers import TaskContext, Triggers, task
from triggers.runners.celery import CeleryRunner

RULES = {
    "t_importPage": {"andEvery": "pageReceived", "run": "survey.ImportPage"},
    "t_score": {"after": ["t_importPage", "questionnaireComplete"], "run": "survey.Score"},
}


@task(name="survey.ImportPage", max_retries=3)
def import_page(context: TaskContext) -> dict[str, int]:
    """Take a page in."""
    page = context.trigger_kwargs["pageReceived"]
    with context.get_logger_context() as logger:
        if not page.get("answers"):
            logger.warning("Page %d came without answers.", page["number"])
    return {"number": page["number"], "answers": len(page.get("answers", ()))}


@task(name="survey.Score")
def score(context: TaskContext) -> dict[str, int]:
    """Count what the first page that was taken in has brought."""
    return {"score": 10 * context.trigger_kwargs["t_importPage"]["answers"]}


# A broker only carries hints: nothing is kept in it that is not in the storage, so it need not be safe.
celery_app = Celery("survey", broker=os.environ["BROKER_URL"])
celery_app.conf.update(
    broker_connection_retry_on_startup=True,
    worker_prefetch_multiplier=1,
)

runner = CeleryRunner(celery_app, sweep=os.environ.get("SWEEP_IN_WORKERS", "1") == "1")
runner.bind("survey.ImportPage", queue="pages")
triggers = Triggers(os.environ["STORAGE_URL"], runner=runner, complete_registry=True)
