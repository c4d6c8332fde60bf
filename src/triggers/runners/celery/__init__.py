"""Tasks on Celery workers."""

from triggers.runners.celery.runner import CeleryRunner, by_name

__all__ = ["CeleryRunner", "by_name"]
