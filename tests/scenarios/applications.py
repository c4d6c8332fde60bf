"""Applications that have a database of their own, and keep the library's tables in it: one for each kind of connection.

Each has a table of pages, and may write to it, roll back, and make savepoints in the way of its kind.
"""

from __future__ import annotations

import warnings
from contextlib import contextmanager
from typing import ClassVar
from urllib.parse import parse_qs, urlsplit

import pytest

from triggers.storages.sqlite.url import load_driver


class RolledBackError(Exception):
    """Raised to have a transaction, or a savepoint, rolled back."""


class Application:
    """One kind of connection.

    Attributes:
        url: of the storage.
        is_told: whether its kind says when it has committed.
    """

    is_told = True
    table = "pages"

    def __init__(self, url):
        self.url = url

    @contextmanager
    def transaction(self):
        """Gives what is to be joined; commits, or rolls back if something is raised."""
        raise NotImplementedError

    @contextmanager
    def savepoint(self):
        """Rolled back if something is raised."""
        raise NotImplementedError

    def run(self, statement):
        """Run a statement in the transaction; returns the rows of a query."""
        raise NotImplementedError

    def close(self):
        """Let go of the connection."""

    def write(self, number):
        """Store a page."""
        self.run(f"INSERT INTO {self.table} VALUES ({number})")  # noqa: S608 - a table of the test's own

    def pages(self):
        """The numbers of the pages that are stored."""
        with self.transaction():
            found = self.run(f"SELECT number FROM {self.table}")  # noqa: S608 - as above
        return sorted(row[0] for row in found)

    def make_table(self):
        """Make the table of the pages."""
        with self.transaction():
            self.run(f"CREATE TABLE {self.table} (number INTEGER)")


class _BareSavepoints:
    @contextmanager
    def savepoint(self):
        self.run("SAVEPOINT inner_one")
        try:
            yield
        except BaseException:
            self.run("ROLLBACK TO SAVEPOINT inner_one")
            self.run("RELEASE SAVEPOINT inner_one")
            raise
        self.run("RELEASE SAVEPOINT inner_one")


class BareSqlite(_BareSavepoints, Application):
    """The driver's connection, which begins transactions by itself."""

    is_told = False
    isolation: ClassVar = {}

    def __init__(self, path, driver="auto"):
        super().__init__(f"sqlite:///{path}?driver={driver}&synchronous=normal&shared=yes&busy_timeout=5")
        self.connection = load_driver(driver).connect(str(path), check_same_thread=False, **self.isolation)
        self.connection.execute("PRAGMA synchronous = NORMAL")

    @contextmanager
    def transaction(self):
        with self.connection:
            yield self.connection

    def run(self, statement):
        return self.connection.execute(statement).fetchall()

    def close(self):
        self.connection.close()


class ExplicitSqlite(BareSqlite):
    """The driver's connection, on which the application begins transactions."""

    isolation: ClassVar = {"isolation_level": None}

    @contextmanager
    def transaction(self):
        self.connection.execute("BEGIN IMMEDIATE")
        with super().transaction() as connection:
            yield connection


class _Alchemy:
    def __init__(self, url, engine):
        super().__init__(url)
        self.engine = engine
        self.current = None

    @contextmanager
    def transaction(self):
        with self.engine.begin() as connection:
            self.current = connection
            yield connection

    @contextmanager
    def savepoint(self):
        with self.current.begin_nested():
            yield

    def run(self, statement):
        found = self.current.exec_driver_sql(statement)
        return found.fetchall() if found.returns_rows else []

    def close(self):
        self.engine.dispose()


class _AlchemySession(_Alchemy):
    @contextmanager
    def transaction(self):
        from sqlalchemy.orm import Session  # noqa: PLC0415 - where it is installed

        with Session(self.engine) as session, session.begin():
            self.current = session
            yield session

    def run(self, statement):
        found = self.current.connection().exec_driver_sql(statement)
        return found.fetchall() if found.returns_rows else []


class AlchemySqlite(_Alchemy, Application):
    """SQLAlchemy's connection."""

    def __init__(self, path):
        sqlalchemy = pytest.importorskip("sqlalchemy")
        url = f"sqlite:///{path}?synchronous=normal&shared=yes&busy_timeout=5"
        engine = sqlalchemy.create_engine(f"sqlite:///{path}", module=load_driver("auto"))
        sqlalchemy.event.listen(engine, "connect", lambda raw, _: raw.execute("PRAGMA synchronous = NORMAL"))
        super().__init__(url, engine)


class AlchemySessionSqlite(_AlchemySession, AlchemySqlite):
    """SQLAlchemy's session."""


class _Django:
    def __init__(self, url, engine, **settings):
        super().__init__(url)
        pytest.importorskip("django")
        import django  # noqa: PLC0415 - where it is installed
        from django.conf import settings as configured  # noqa: PLC0415 - as above

        if not configured.configured:  # other tests may have done the same
            database = {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}
            configured.configure(DATABASES={"default": database}, INSTALLED_APPS=[], LOGGING_CONFIG=None)
            django.setup()
        from importlib import import_module  # noqa: PLC0415 - as above

        from django.db import DEFAULT_DB_ALIAS, connections, transaction  # noqa: PLC0415 - needs the settings

        base = import_module(f"django.db.backends.{engine}.base")
        self.alias, self.connections, self.atomic = "survey", connections, transaction.atomic
        defaults = dict(connections[DEFAULT_DB_ALIAS].settings_dict)
        defaults.update(settings, ENGINE=f"django.db.backends.{engine}")
        connections[self.alias] = base.DatabaseWrapper(defaults, alias=self.alias)

    @contextmanager
    def transaction(self):
        with self.atomic(using=self.alias):
            yield self.connections[self.alias]

    @contextmanager
    def savepoint(self):
        with self.atomic(using=self.alias):
            yield

    def run(self, statement):
        with self.connections[self.alias].cursor() as cursor:
            cursor.execute(statement)
            return cursor.fetchall() if cursor.description else []

    def close(self):
        self.connections[self.alias].close()
        del self.connections[self.alias]


class DjangoSqlite(_Django, Application):
    """Django's connection; it uses Python's own module."""

    def __init__(self, path):
        url = f"sqlite:///{path}?driver=sqlite3&synchronous=normal&shared=yes&busy_timeout=5"
        start = "PRAGMA synchronous = NORMAL"
        super().__init__(url, "sqlite3", NAME=str(path), OPTIONS={"init_command": start})


class _Postgres:
    """A schema of its own beside the library's, on a server."""

    def __init__(self, url, *args, **kwargs):
        self.schema = parse_qs(urlsplit(url).query)["schema"][0] + "_app"
        self.table = f"{self.schema}.pages"
        super().__init__(url, *args, **kwargs)

    def make_table(self):
        with self.transaction():
            self.run(f"CREATE SCHEMA {self.schema}")
        super().make_table()


def without_schema(url):
    """The URL for programs that do not know our own option, and its parts."""
    psycopg = pytest.importorskip("psycopg")
    parts = urlsplit(url)
    rest = "&".join(part for part in parts.query.split("&") if not part.startswith("schema="))
    return psycopg.conninfo.conninfo_to_dict(parts._replace(query=rest).geturl())


class BarePostgres(_BareSavepoints, _Postgres, Application):
    """psycopg's connection, which begins transactions by itself."""

    is_told = False

    def __init__(self, url, **options):
        import psycopg  # noqa: PLC0415 - where it is installed

        super().__init__(url)
        self.connection = psycopg.connect(**without_schema(url), **options)

    @contextmanager
    def transaction(self):
        with self.connection.transaction():
            yield self.connection

    def run(self, statement):
        found = self.connection.execute(statement)
        return found.fetchall() if found.description else []

    def close(self):
        self.connection.close()


class AutocommitPostgres(BarePostgres):
    """psycopg's connection, on which the application begins transactions."""

    def __init__(self, url):
        super().__init__(url, autocommit=True)


class AlchemyPostgres(_Postgres, _Alchemy, Application):
    """SQLAlchemy's connection."""

    def __init__(self, url):
        sqlalchemy = pytest.importorskip("sqlalchemy")
        parts = without_schema(url)
        engine = sqlalchemy.create_engine("postgresql+psycopg://", connect_args=parts)
        super().__init__(url, engine)


class AlchemySessionPostgres(_AlchemySession, AlchemyPostgres):
    """SQLAlchemy's session."""


class DjangoPostgres(_Postgres, _Django, Application):
    """Django's connection."""

    def __init__(self, url):
        parts = without_schema(url)
        super().__init__(
            url,
            "postgresql",
            NAME=parts.get("dbname", "postgres"),
            USER=parts.get("user", ""),
            PASSWORD=parts.get("password", ""),
            HOST=parts.get("host", ""),
            PORT=parts.get("port", ""),
            OPTIONS={},
        )


ON_A_FILE = {
    "sqlite": BareSqlite,
    "sqlite, explicit": ExplicitSqlite,
    "sqlite, sqlalchemy": AlchemySqlite,
    "sqlite, sqlalchemy session": AlchemySessionSqlite,
    "sqlite, django": DjangoSqlite,
}
ON_A_SERVER = {
    "postgres": BarePostgres,
    "postgres, autocommit": AutocommitPostgres,
    "postgres, sqlalchemy": AlchemyPostgres,
    "postgres, sqlalchemy session": AlchemySessionPostgres,
    "postgres, django": DjangoPostgres,
}
KINDS = [*ON_A_FILE, *ON_A_SERVER]


@contextmanager
def application_of(kind, request, folder):
    """An application of that kind, with its table."""
    if kind in ON_A_FILE:
        made = ON_A_FILE[kind](folder / "survey.db")
    else:
        made = ON_A_SERVER[kind](request.getfixturevalue("postgres_url"))
    made.make_table()
    try:
        with warnings.catch_warnings():
            # Python's own SQLite may be one that is used in a slower, safe mode.
            warnings.filterwarnings("ignore", "SQLite", RuntimeWarning)
            yield made
    finally:
        made.close()
