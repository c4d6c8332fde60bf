"""What every test stands on: how hard Hypothesis looks, and logging as it was before the test.

`HYPOTHESIS_PROFILE=thorough make test ARGS="-k storage"` looks harder for one run.
"""

from __future__ import annotations

import logging
import os

import pytest
from hypothesis import HealthCheck, settings

# No deadline in any of them: a machine under load is slow, not wrong.
settings.register_profile("dev", max_examples=100, deadline=None, print_blob=True)
# A fresh clone has no database of earlier failures; the blob that is printed repeats one.
settings.register_profile(
    "ci",
    settings.get_profile("dev"),
    database=None,
    derandomize=False,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("thorough", settings.get_profile("dev"), max_examples=5_000)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE") or ("ci" if os.environ.get("CI") else "dev"))


@pytest.fixture(autouse=True)
def _logging_as_it_was():
    """A test that turns logging off, or configures it, does so for itself alone."""
    root, disabled = logging.root, logging.root.manager.disable
    loggers = [item for item in root.manager.loggerDict.values() if isinstance(item, logging.Logger)]
    before = [(logger, logger.level, logger.disabled) for logger in (root, *loggers)]
    yield
    root.manager.disable = disabled
    for logger, level, was_disabled in before:
        logger.setLevel(level)
        logger.disabled = was_disabled
