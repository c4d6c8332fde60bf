"""Sessions in a SQLite file, made through the library, and ways to call the command line on them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from triggers import FinalizingTriggerManager, Registry, Triggers, task, with_context
from triggers.cli import main
from triggers.core import decisions

if TYPE_CHECKING:
    from pathlib import Path

#: The application as a module of the current folder.
APP = """
import os, sys, threading
from triggers import Registry, Triggers, task

registry = Registry()

@task(name="survey.ok", registry=registry)
def ok(context):
    return {"subjectId": 7}

@task(name="survey.bad", registry=registry)
def bad(context):
    raise ValueError("spam")

@task(name="survey.hang", registry=registry)
def hang(context):
    print("begun", file=sys.stderr, flush=True)
    threading.Event().wait()

def make(**options):
    return Triggers(os.environ["SURVEY_URL"], registry=registry, **options)

def inline():
    return make(runner="inline")

def threads():
    return make(runner="threads")

def firing_only():
    return make(runner=None)

def finalizing():
    return make(manager="finalizing")

number = 7
"""

RULES = {
    "t_importSubject": {"after": ["firstPage", "complete"], "run": "survey.warn"},
    "t_responses": {"after": ["t_importSubject"], "andEvery": "page", "run": "survey.ok"},
    "t_bad": {"after": ["t_importSubject"], "run": "survey.bad"},
    "t_again": {"after": ["t_importSubject"], "run": "survey.again"},
    "t_browser": {"after": ["t_importSubject", "page"], "unless": ["isEmbedded"], "run": "survey.ok"},
    "t_wait": {"after": ["page", {"any": ["y", "z"]}], "run": "survey.ok"},
    "t_never": {"after": ["x"], "run": "survey.ok"},
}


def survey_tasks() -> Registry:
    registry = Registry()

    @task(name="survey.ok", registry=registry)
    def ok(context):
        return {"subjectId": 7}

    @task(name="survey.warn", registry=registry)
    def warn(context):
        with context.get_logger_context({"page": "\x1b[2J"}) as logger:
            logger.info("Looked")
            logger.warning("Missing [red]names[/red]\nsecond \x1b[31mline", extra={"context": {"missing": 2}})
        return {"subjectId": 7}

    @task(name="survey.bad", registry=registry)
    def bad(context):
        with context.get_logger_context():
            try:
                {}["x"]
            except KeyError as error:
                raise with_context(ValueError("spam [bold]"), {"score": 3}) from error

    @task(name="survey.again", registry=registry)
    def again(context):
        if context.task_instance.depth == 0:
            raise context.retry(ValueError("not yet"))
        return {}

    return registry


@dataclass
class StorageSandbox:
    """A folder with a storage and an application.

    Attributes:
        folder: it.
        url: of the storage.
    """

    folder: Path
    url: str

    def open(self, **options) -> Triggers:
        return Triggers(self.url, **{"runner": "inline", "registry": survey_tasks(), **options})

    def play(self, uid: str, rules=RULES, **options) -> None:
        """A session with instances that failed, wait, were abandoned, retried and finished."""
        with self.open(**options) as app:
            manager = app.session(uid)
            manager.update_configuration(rules)
            manager.fire("isEmbedded")
            manager.fire("firstPage", {"responses": {"a": 1}})
            manager.fire("page", {"number": 1}, key="p1")
            manager.fire("page", {"number": 2}, key="p2")
            manager.fire("complete")

    def lose(self, uid: str, run: str = "survey.ok") -> None:
        """A session whose only instance was claimed by a process that is no more."""
        with self.open(runner=None) as app:
            manager = app.session(uid)
            manager.update_configuration({"t_lost": {"after": ["a"], "run": run}})
            manager.fire("a")
            terms = decisions.Terms(lease=1)
            app.storage.commit(uid, decisions.claim(manager.policy, "t_lost", 0, "gone", lambda *_: terms))

    def run(self, *args, code=0, stdin=None, storage=True):
        """Call the command line in this process; returns what it printed."""
        given = [*args, "--storage", self.url] if storage else [*args]
        result = CliRunner().invoke(main, given, input=stdin, prog_name="triggers")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert code in (None, result.exit_code), result.output
        return result

    def json(self, *args, **options):
        """The document that a command prints."""
        (line,) = self.run(*args, "--json", **options).stdout.splitlines()
        return json.loads(line)

    def lines(self, *args, **options):
        """The documents that a command prints, one on each line."""
        return [json.loads(line) for line in self.run(*args, "--json", **options).stdout.splitlines()]

    def error(self, *args, **options):
        """The error that a command ends with, as for programs; nothing else is printed."""
        result = self.run(*args, "--json", **options)
        assert result.stdout == ""
        return json.loads(result.stderr)["error"]

    def start(self, *args, **variables) -> subprocess.Popen[str]:
        """Start the program in a process of its own, in the folder."""
        environment = {k: v for k, v in os.environ.items() if not k.startswith("TRIGGERS_")}
        return subprocess.Popen(
            [sys.executable, "-m", "triggers", *args],
            cwd=self.folder,
            env={**environment, "SURVEY_URL": self.url, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )


@pytest.fixture
def place(tmp_path, monkeypatch):
    """An empty storage beside an application, in the current folder."""
    (tmp_path / "survey_app.py").write_text(APP, "utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TRIGGERS_APP", raising=False)
    monkeypatch.delenv("TRIGGERS_STORAGE", raising=False)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "survey_app", raising=False)
    url = f"sqlite:///{tmp_path / 'survey.db'}"
    monkeypatch.setenv("SURVEY_URL", url)
    yield StorageSandbox(tmp_path, url)
    sys.modules.pop("survey_app", None)


@pytest.fixture
def played(place):
    """The same with a session that has something of everything."""
    place.play("respondent-17")
    return place


@pytest.fixture
def finalizing(place):
    """The same where the session belongs to the manager that finalises."""
    place.play("respondent-17", manager=FinalizingTriggerManager)
    return place
