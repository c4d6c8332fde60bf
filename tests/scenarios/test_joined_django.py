"""What is special about joining a transaction of Django's."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from tests.scenarios.applications import application_of
from triggers import Triggers
from triggers.exceptions import StorageError

pytest.importorskip("django")


@pytest.fixture(params=["sqlite, django", "postgres, django"])
def application(request, tmp_path):
    with application_of(request.param, request, tmp_path) as made:
        yield made


@pytest.fixture
def manager(application):
    triggers = Triggers(application.url, runner=None)
    yield triggers.session("respondent-17")
    triggers.close()


def firings(manager):
    return manager.storage.head.firings


def test_outside_of_atomic_it_is_refused(application, manager):
    """It is said what to write."""
    connection = application.connections[application.alias]
    with pytest.raises(StorageError, match=r"transaction\.atomic\(\)"), manager.joined(connection):
        raise AssertionError


def test_a_transaction_that_django_has_given_up_is_refused(application, manager):
    """After an error in it, Django lets nobody query until the end of the atomic block; nor may we."""
    from django.db import transaction  # noqa: PLC0415 - where it is installed

    with application.transaction() as connection, manager.joined(connection):
        manager.fire("one")
        with application.atomic(using=application.alias):
            transaction.set_rollback(True, using=application.alias)
            with pytest.raises(transaction.TransactionManagementError):
                manager.fire("two")
        manager.fire("three")
    assert firings(manager) == 2


def test_hooks_come_in_the_order_of_what_else_waits_for_the_commit(application, manager, monkeypatch):
    """They are callbacks among the application's own."""
    heard = []
    monkeypatch.setattr(type(manager), "_post_fire", lambda _, name, __: heard.append(name))
    monkeypatch.setattr(type(manager), "_hooked", True)
    with application.transaction() as connection:
        connection.on_commit(lambda: heard.append("before"))
        with manager.joined(connection):
            manager.fire("fired")
        connection.on_commit(lambda: heard.append("after"))
    assert heard == ["before", "fired", "after"]


PROJECT = """
    import sys, warnings
    warnings.filterwarnings("ignore", "SQLite")
    import django
    from django.conf import settings

    engine, name, url = sys.argv[1:]
    database = {"ENGINE": engine, "OPTIONS": {"transaction_mode": "IMMEDIATE"} if "sqlite" in engine else {}}
    if "sqlite" in engine:
        database["NAME"] = name
    else:
        import psycopg
        parts = psycopg.conninfo.conninfo_to_dict(name)
        named = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
        database |= {key: parts.get(value, "") for key, value in named.items()}
        schema = url.rpartition("schema=")[2] + "_project"
        with psycopg.connect(name) as first:
            first.execute(f"CREATE SCHEMA {schema}")
        database["OPTIONS"] = {"options": f"-c search_path={schema}"}
    settings.configure(DATABASES={"default": database}, INSTALLED_APPS=["django.contrib.contenttypes"])
    django.setup()

    from django.core.management import call_command
    from django.db import connection, models, transaction
    from django.contrib.contenttypes.models import ContentType
    from django.test import TestCase
    call_command("migrate", verbosity=0)

    from triggers import TaskContext, TriggerManager, Triggers, task

    ran, heard = [], []

    class Told(TriggerManager):
        def _post_fire(self, name, tasks_scheduled):
            heard.append(name)

    @task(name="page")
    def page(context):
        ran.append(context.trigger_kwargs["pageReceived"]["number"])

    triggers = Triggers(url, runner="inline", manager=Told)
    manager = triggers.session("respondent-17")
    manager.update_configuration({"t_page": {"andEvery": "pageReceived", "run": "page"}})

    def receive(number, fail=False):
        with transaction.atomic():
            ContentType.objects.create(app_label="page", model=str(number))
            with manager.joined(connection):
                manager.fire("pageReceived", {"number": number})
                assert number not in ran
            if fail:
                raise ValueError(number)

    receive(1)
    try:
        receive(2, fail=True)
    except ValueError:
        pass
    with transaction.atomic():
        receive(3)
        try:
            receive(4, fail=True)
        except ValueError:
            pass
        assert ran == [1], ran
    assert ran == [1, 3], ran
    assert heard == ["pageReceived", "t_page"] * 2, heard
    pages = ContentType.objects.filter(app_label="page").values_list("model", flat=True)
    assert sorted(pages) == ["1", "3"]
    assert manager.storage["t_page#1"].status == "finished"

    class Tests(TestCase):
        def test_capturing(self):
            with self.captureOnCommitCallbacks(execute=False) as callbacks:
                receive(5)
            assert len(callbacks) == 1 and 5 not in ran

    import unittest
    result = unittest.TextTestRunner(stream=sys.stderr).run(unittest.defaultTestLoader.loadTestsFromTestCase(Tests))
    assert result.wasSuccessful()
    assert "t_page#2" not in manager.storage  # the test case was rolled back
    print("done")
"""


@pytest.mark.parametrize("kind", ["sqlite3", "postgresql"])
def test_a_project_with_its_own_settings(kind, request, tmp_path):
    """Models and firings in one transaction, by `django.db.connection`, in a database that Django has made."""
    if kind == "sqlite3":
        name = tmp_path / "project.db"
        url = f"sqlite:///{name}?driver=sqlite3&shared=yes"
    else:
        url = request.getfixturevalue("postgres_url")
        name = url.rpartition("schema=")[0].rstrip("?&")
    program = tmp_path / "project.py"
    program.write_text(textwrap.dedent(PROJECT), "utf-8")
    command = [sys.executable, str(program), f"django.db.backends.{kind}", str(name), url]
    root = str(Path(__file__).parents[2])
    env = {**os.environ, "PYTHONPATH": root}
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, env=env)
    assert done.stdout == "done\n", done.stderr
