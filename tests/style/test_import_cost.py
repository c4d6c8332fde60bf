"""What loading the library does not load: every program, and every shell that asks for help, would pay for it.

No time is measured here. Each case starts an interpreter and asks which modules it has imported.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import entry_points
from importlib.util import find_spec

import pytest

#: What the parts that need it import when they are used.
OPTIONAL = (
    "asyncio",
    "celery",
    "email",
    "filters",
    "hypothesis",
    "importlib.metadata",
    "kombu",
    "psycopg",
    "psycopg_pool",
    "pydantic",
    "pydantic_core",
    "pytest",
    "redis",
    "rich",
    "sqlalchemy",
    "sqlite3",
    "ssl",
    "subprocess",
    "triggers.core.directives",
    "triggers.demo",
    "triggers.kwargs",
    "triggers.runners.celery",
    "triggers.runners.threads",
    "triggers.storages.memory",
    "triggers.storages.postgres",
    "triggers.storages.redis",
    "triggers.storages.sqlite",
    "triggers.testing",
)
#: What the command line is made of.
COMMAND_LINE = ("click", "triggers.cli")

HELP = """
from triggers.cli import main
try:
    main(["--help"])
except SystemExit as end:
    assert end.code == 0
"""

FIRST_SESSION = """
from triggers import Triggers
with Triggers("memory://") as app:
    app.session("s").update_configuration({"t_x": {"after": ["a"], "run": "r"}})
"""


def loaded_by(code: str) -> set[str]:
    """The modules that an interpreter has imported after the code, besides those that it starts with."""
    program = f"import sys\nbefore = set(sys.modules)\n{code}\nprint(*sorted(set(sys.modules) - before))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True
    )
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("code", "spared"),
    [
        ("import triggers", OPTIONAL + COMMAND_LINE),
        ("from triggers import *", OPTIONAL + COMMAND_LINE),
        (HELP, OPTIONAL),
    ],
    ids=["import", "import all", "help"],
)
def test_what_is_not_used_is_not_loaded(code, spared):
    """Neither `import triggers` nor `triggers --help` loads pydantic, asyncio, rich, a driver, or a storage."""
    loaded = loaded_by(code)
    assert "triggers.app" in loaded
    assert loaded.isdisjoint(spared), f"loaded though nothing has used it: {sorted(loaded & set(spared))}"


def test_pytest_loads_no_part_of_the_library_for_its_plugin():
    """At the start of pytest only the plugin itself is imported, by the name of its entry point."""
    (entry,) = entry_points(group="pytest11", name="triggers")
    loaded = loaded_by(f"import pytest\nbefore = set(sys.modules)\nimport {entry.value}")
    assert loaded == {entry.value}


def test_the_first_configuration_loads_what_checks_it():
    """The names above are those that `sys.modules` has: what is used is found under them."""
    loaded = loaded_by(FIRST_SESSION)
    used = {"pydantic", "pydantic_core", "importlib.metadata", "triggers.core.directives"}
    assert used | {"triggers.storages.memory"} <= loaded
    # `find_spec` raises for a loaded module that has no spec, as kombu.
    assert all(name in sys.modules or find_spec(name) for name in (*OPTIONAL, *COMMAND_LINE))
