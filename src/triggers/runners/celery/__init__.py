"""Run tasks on the workers of a Celery application."""

from triggers.runners.celery.runner import CeleryRunner, by_name

__all__ = ["CeleryRunner", "by_name"]
