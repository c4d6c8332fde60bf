"""SPEAK: the log of every task instance, complete, bounded, safe, and reviewable.

A block of a task has a logger that is a `logging.Logger`: what it says goes to the application's handlers,
and is recorded with its context whatever the application's logging is set to.
"""

from triggers.logs.block import LogBlock
from triggers.logs.current import bind, current_logger, detached, mask_secret, propagate
from triggers.logs.log import InstanceLog
from triggers.logs.logger import TriggersLogger
from triggers.logs.sanitizing.exceptions import exception_record
from triggers.logs.sanitizing.redact import REDACTED, SECRET_WORDS
from triggers.logs.sanitizing.sensitive import Sensitive
from triggers.logs.settings import LogIdentity, LogSettings

__all__ = [
    "REDACTED",
    "SECRET_WORDS",
    "InstanceLog",
    "LogBlock",
    "LogIdentity",
    "LogSettings",
    "Sensitive",
    "TriggersLogger",
    "bind",
    "current_logger",
    "detached",
    "exception_record",
    "mask_secret",
    "propagate",
]
