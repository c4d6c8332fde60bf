"""Stored data names plugins: only those of this distribution, and those that the application permits, are imported.

The plugins here are really installed: a distribution with entry points, whose import writes a file.
"""

from __future__ import annotations

import importlib
import sys

import pytest
from click.testing import CliRunner

from triggers import Triggers, plugins, task
from triggers.cli import main
from triggers.exceptions import InvalidOptionError, ManagerMismatchError, PluginError
from triggers.manager import TriggerManager
from triggers.runners.inline import InlineRunner

MODULE = """
import os, pathlib
pathlib.Path(os.environ["IMPORTED"]).write_text("the plugin was imported")

from triggers.manager import TriggerManager
from triggers.runners.inline import InlineRunner

class Audited(TriggerManager):
    name = "audited"

class Remote(InlineRunner):
    name = "remote"

class False_(InlineRunner):
    pass
"""
ENTRY_POINTS = """
[triggers.managers]
audited = stranger:Audited

[triggers.runners]
remote = stranger:Remote
threads = stranger:False_
"""

RULES = {"t_good": {"after": ["go"], "run": "plain"}}
REMOTE = {**RULES, "t_remote": {"after": ["go"], "run": "plain", "using": "remote"}}


class Audited(TriggerManager):
    """The same manager as the plugin's, in the process that made the sessions."""

    name = "audited"


@pytest.fixture
def imported(tmp_path, monkeypatch):
    """The file that the import of the installed plugin writes."""
    site = tmp_path / "site"
    (site / "stranger-1.0.dist-info").mkdir(parents=True)
    (site / "stranger.py").write_text(MODULE)
    (site / "stranger-1.0.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: stranger\nVersion: 1.0\n"
    )
    (site / "stranger-1.0.dist-info" / "entry_points.txt").write_text(ENTRY_POINTS)
    monkeypatch.setenv("IMPORTED", str(tmp_path / "imported"))
    monkeypatch.setattr(sys, "path", [*sys.path, str(site)])  # after this distribution
    importlib.invalidate_caches()
    for cached in (plugins.names, plugins._own_names):
        cached.cache_clear()
    yield tmp_path / "imported"
    sys.modules.pop("stranger", None)
    for cached in (plugins.names, plugins._own_names):
        cached.cache_clear()


@pytest.fixture(params=["sqlite", "postgres", "redis"])
def url(request, tmp_path):
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/s.db?synchronous=normal"
    return request.getfixturevalue(f"{request.param}_url")


@pytest.fixture
def registry(tasks):
    @task(name="plain", registry=tasks)
    def plain(context):
        pass

    return tasks


def test_the_name_of_a_sessions_manager_imports_nothing(url, imported, registry, caplog):
    """Its session is shown and left alone, that is reported with what to do, and other sessions run."""
    for uid, kind in (("theirs", Audited), ("ours", TriggerManager)):
        with Triggers(url, runner=None, manager=kind, registry=registry) as app:
            app.session(uid).update_configuration(RULES)
            app.session(uid).fire("go")
    with Triggers(url, runner="inline", registry=registry) as app:
        app.sweep(include_recent=True)
        assert app.session("ours").storage["t_good#0"].status == "finished"
        assert app.session("theirs").storage["t_good#0"].status == "scheduled"
        (problem,) = app.health().problems
        assert (problem.kind, problem.place) == ("plugin", "manager 'audited'")
        assert "permit it with Triggers(…, plugins=['audited'])" in problem.error
        with pytest.raises(ManagerMismatchError, match=r"plugins=\['audited'\]"):
            app.existing_session("theirs")
    assert sum("manager 'audited'" in record.getMessage() for record in caplog.records) == 1
    assert not imported.exists()

    with Triggers(url, runner="inline", registry=registry, plugins=["audited"]) as app:
        assert type(app.existing_session("theirs")).__module__ == "stranger"
        assert app.join(timeout=10)
        assert app.session("theirs").storage["t_good#0"].status == "finished"
    assert imported.exists()


def test_a_using_imports_nothing(url, imported, registry, caplog):
    """Its instance stays scheduled, that is reported with what to do, and all others run."""
    with Triggers(url, runner="inline", registry=registry) as app:
        session = app.session("s")
        session.update_configuration(REMOTE)
        session.fire("go")
        assert {name: session.storage[name].status for name in ("t_good#0", "t_remote#0")} == {
            "t_good#0": "finished",
            "t_remote#0": "scheduled",
        }
        (problem,) = app.health().problems
        assert (problem.kind, problem.place) == ("plugin", "runner 'remote'")
        assert "permit it with Triggers(…, plugins=['remote'])" in problem.error
    assert sum("runner 'remote'" in record.getMessage() for record in caplog.records) == 1
    assert not imported.exists()

    with Triggers(url, runner="inline", registry=registry, plugins=["remote"]) as app:
        app.sweep(include_recent=True)
        assert app.join(timeout=10)
    assert imported.exists()


def test_what_the_application_names_itself_is_permitted(imported, registry):
    """A runner that `runner=` names may also be named by a `using`; and objects need no permission."""
    for runner in ("remote", "inline"):
        given = {} if runner == "remote" else {"runners": {"remote": InlineRunner()}}
        with Triggers("memory://", runner=runner, registry=registry, **given) as app:
            app.session("s").update_configuration(REMOTE)
            app.session("s").fire("go")
            assert app.session("s").storage["t_remote#0"].status == "finished"
            assert not app.health().problems
        assert imported.exists() == (runner == "remote")
        imported.unlink(missing_ok=True)


def test_nobody_else_can_take_a_name_of_this_distribution(imported, registry):
    """An installed package that registers the name `threads`, too, is not imported for it."""
    with Triggers("memory://", runner="threads", registry=registry) as app:
        app.session("s").update_configuration(RULES)
        app.session("s").fire("go")
        assert app.join(timeout=10)
    assert not imported.exists()


def test_the_names_of_plugins_are_checked(imported):
    """A typo would otherwise be noticed when a session is not run."""
    with pytest.raises(
        PluginError, match="no runner or manager 'audted' is installed; did you mean 'audited'"
    ):
        Triggers("memory://", plugins=["audted"])
    with pytest.raises(InvalidOptionError, match="plugins must be a list of names"):
        Triggers("memory://", plugins="audited")
    with pytest.raises(PluginError, match=r"no runner or manager 'redis://…' is installed"):
        Triggers("memory://", plugins=["redis://:hunter2@host"])
    assert not imported.exists()


def test_names_that_can_be_read_only_once_are_refused():
    """The check itself would have read them, and none would be left."""
    for option in ("plugins", "managers"):
        with pytest.raises(InvalidOptionError, match=f"{option} must be a"):
            Triggers("memory://", **{option: iter(["finalizing"])})


def run(*arguments):
    """Run a command."""
    return CliRunner().invoke(main, arguments)


def test_the_command_line_imports_what_it_is_told_to(tmp_path, imported, registry):
    """Every command reads the session; one that changes it needs --plugin, and says so."""
    url = f"sqlite:///{tmp_path}/s.db"
    with Triggers(url, runner=None, manager=Audited, registry=registry) as app:
        app.session("theirs").update_configuration(RULES)
        app.session("theirs").fire("go")
    for command in (["sessions"], ["show", "theirs"], ["logs", "theirs"], ["sweep"]):
        result = run(*command, "--storage", url)
        assert result.exit_code == 0, result.output
    refused = run("fire", "theirs", "more", "--storage", url)
    assert (refused.exit_code, refused.stderr.count("\n")) == (1, 1)
    assert "--plugin audited" in refused.stderr
    assert not imported.exists()
    assert run("fire", "theirs", "more", "--storage", url, "--plugin", "audited").exit_code == 0
    assert imported.exists()
    assert run("show", "theirs", "--app", "a:b", "--plugin", "audited").exit_code == 2
    assert run("show", "theirs", "--storage", url, "--plugin", "other").exit_code == 2
