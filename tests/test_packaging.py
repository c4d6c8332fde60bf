"""What is installed is the whole package, and nothing else."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from importlib.metadata import entry_points, version
from pathlib import Path
from zipfile import ZipFile

import pytest

import triggers

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
GROUPS = sorted(PROJECT["entry-points"])


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The names of the files in a wheel built from this checkout."""
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True)
    (path,) = folder.glob("*.whl")
    with ZipFile(path) as archive:
        return set(archive.namelist())


def test_the_wheel_holds_every_file_of_the_package(wheel):
    """Modules, types, SQL and the demo's data are all installed: what stands in src/triggers is in the wheel."""
    source = ROOT / "src"
    files = {
        path.relative_to(source).as_posix()
        for path in (source / "triggers").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {name for name in wheel if name.startswith("triggers/")} == files
    assert "triggers/py.typed" in wheel
    assert {Path(name).suffix for name in files} >= {".py", ".sql", ".tsv"}


def test_the_wheel_holds_nothing_but_the_package(wheel):
    """An installation adds the package and the plugin for pytest: no tests, bench or examples beside them."""
    assert {name.split("/")[0] for name in wheel} == {
        "triggers",
        "_triggers_pytest_plugin.py",
        f"session_triggers-{triggers.__version__}.dist-info",
    }


def test_the_installed_version_is_the_declared_one():
    """The environment was installed from this source, so its tests speak of this version."""
    assert version(PROJECT["name"]) == triggers.__version__


@pytest.mark.parametrize("group", GROUPS)
def test_every_entry_point_leads_to_something(group):
    """Each declared storage, runner, manager and plugin can be loaded by its name."""
    for name, target in PROJECT["entry-points"][group].items():
        (entry,) = entry_points(group=group, name=name)
        assert entry.value == target
        assert entry.load() is not None


def test_the_command_is_there():
    """`triggers` on the command line leads to something that can be called."""
    (entry,) = entry_points(group="console_scripts", name="triggers")
    assert callable(entry.load())
