"""What the crash tests share."""

from __future__ import annotations

import pytest

from tests.crash.world import World


@pytest.fixture
def world(tmp_path):
    """A world of its own for each test."""
    return World(tmp_path)
