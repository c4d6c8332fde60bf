"""The page about scaling shows what the simulation prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_simulation_prints_what_the_page_shows():
    """Chance has a seed, so each run prints the same table, line by line."""
    command = [sys.executable, "-m", "bench.sweep_simulation"]
    printed = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=True
    ).stdout
    page = (ROOT / "docs" / "explanation" / "scaling.md").read_text("utf-8")
    assert f"```text\n{printed}```\n" in page
