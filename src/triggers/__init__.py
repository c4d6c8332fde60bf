"""Runs tasks when a combination of events has happened.

This module exports what applications need, and has no code of its own. Tasks and their context are defined in
:mod:`triggers.task`, errors in :mod:`triggers.exceptions`.
"""

from triggers.app import Triggers
from triggers.core.explain import Explanation
from triggers.core.rules import Rule
from triggers.core.status import Status
from triggers.core.values import Limits
from triggers.exceptions import (
    ConfigurationError,
    IdempotencyConflictError,
    InvalidStatusError,
    StatusChange,
    StorageError,
    TriggersError,
    WorkerLost,
    with_context,
)
from triggers.health import Health, Problem
from triggers.logs import LogSettings, Sensitive, current_logger, mask_secret, propagate
from triggers.manager import FinalizingTriggerManager, FireResult, TriggerManager
from triggers.previews import Preview, PreviewedFiring
from triggers.session import SessionView, TaskInstance
from triggers.task import Registry, TaskContext, TriggerTask, task
from triggers.timers import Timer
from triggers.worker.sweep import SweepReport

#: The version of the package; pyproject.toml reads it from here.
__version__ = "3.0.0a1"

__all__ = [
    "ConfigurationError",
    "Explanation",
    "FinalizingTriggerManager",
    "FireResult",
    "Health",
    "IdempotencyConflictError",
    "InvalidStatusError",
    "Limits",
    "LogSettings",
    "Preview",
    "PreviewedFiring",
    "Problem",
    "Registry",
    "Rule",
    "Sensitive",
    "SessionView",
    "Status",
    "StatusChange",
    "StorageError",
    "SweepReport",
    "TaskContext",
    "TaskInstance",
    "Timer",
    "TriggerManager",
    "TriggerTask",
    "Triggers",
    "TriggersError",
    "WorkerLost",
    "__version__",
    "current_logger",
    "mask_secret",
    "propagate",
    "task",
    "with_context",
]
