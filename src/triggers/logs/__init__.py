"""The log of every task instance: complete, bounded, without secrets, and reviewable.

A block of a task has a logger that is a `logging.Logger`. Its records go to the application's handlers, and
are stored with their context regardless of the application's logging configuration.
"""

from triggers.logs.block import LogBlock
from triggers.logs.current import bind, current_logger, detached, mask_secret, propagate
from triggers.logs.failures import RemoteFailure
from triggers.logs.log import InstanceLog
from triggers.logs.logger import TriggersLogger
from triggers.logs.sanitizing.exceptions import exception_record
from triggers.logs.sanitizing.sensitive import Sensitive
from triggers.logs.settings import LogIdentity, LogSettings
from triggers.redaction import REDACTED, SECRET_WORDS

__all__ = [
    "REDACTED",
    "SECRET_WORDS",
    "InstanceLog",
    "LogBlock",
    "LogIdentity",
    "LogSettings",
    "RemoteFailure",
    "Sensitive",
    "TriggersLogger",
    "bind",
    "current_logger",
    "detached",
    "exception_record",
    "mask_secret",
    "propagate",
]
