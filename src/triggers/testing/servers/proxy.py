"""A proxy between a client and a server on this machine, to simulate a network that fails.

::

    with PostgresServer() as server, Proxy(server.url) as network:
        with Triggers(network.url) as triggers:
            network.cut_after(b"COMMIT", direction="server", deliver=False)
            ...  # the server has committed, and its answer is lost
"""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self
from urllib.parse import parse_qsl, unquote, urlencode, urlsplit, urlunsplit

from triggers.redaction import shown_scheme

if TYPE_CHECKING:
    from collections.abc import Callable

Direction = Literal["client", "server"]

#: How many bytes are read at once.
_PIECE = 1 << 16
#: How many seconds a connection to the target may take.
_CONNECT_TIMEOUT = 10.0
#: After so many seconds, a thread that waits for a socket checks whether the proxy is closed.
_POLL = 0.2
#: The port of a server whose URL has none.
_PORTS = {"postgresql": 5432, "postgres": 5432, "redis": 6379, "amqp": 5672}


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a proxy has done so far.

    Attributes:
        accepted: the number of connections from clients.
        refused: how many of them were closed because the target could not be reached.
        cut: how many connections were cut, by :meth:`Proxy.cut` or by a pattern.
        open: how many connections are open now.
        from_client: how many bytes from clients were delivered to the target.
        from_server: how many bytes from the target were delivered to clients.
    """

    accepted: int
    refused: int
    cut: int
    open: int
    from_client: int
    from_server: int


@dataclass(eq=False, slots=True)
class Cut:
    """A cut that waits for its pattern; :meth:`Proxy.cut_after` returns it."""

    pattern: bytes
    direction: Direction
    deliver: bool
    times: int
    #: How many connections it has cut.
    made: int = 0
    #: How many connections it has still to cut.
    left: int = field(init=False)
    _done: threading.Event = field(default_factory=threading.Event, repr=False)

    def __post_init__(self) -> None:
        self.left = self.times

    def wait(self, timeout: timedelta = timedelta(seconds=30)) -> bool:
        """Wait until the last of its connections was cut; return False if the timeout passes first."""
        return self._done.wait(timeout.total_seconds())

    def _count(self) -> None:
        self.made += 1
        if self.made == self.times:
            self._done.set()


class Proxy:
    """A TCP proxy on the loopback interface for any number of connections, which fails on command.

    It may be used from several threads. A connection that was cut stays cut; the client may connect again at
    once.

    Args:
        target: a URL (`postgresql://…`, also with `?host=/folder` for a Unix socket, `redis://…`,
            `amqp://…`), a host and port, or the path of a Unix socket. The target may be stopped and started
            at any time.
    """

    def __init__(self, target: str | tuple[str, int] | Path) -> None:
        self._url = target if isinstance(target, str) else ""
        self._target = _address(target) if isinstance(target, str) else target
        # A thread that reads the fields below, or sends, holds this lock: after `hold` and `cut` nothing
        # passes.
        self._change = threading.Condition()
        self._held = self._closed = False
        self._delay = 0.0
        self._orders: list[Cut] = []
        self._links: set[_Link] = set()
        self._accepted = self._refused = self._cut = 0
        self._delivered: dict[Direction, int] = {"client": 0, "server": 0}
        self._threads: set[threading.Thread] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._listener.settimeout(_POLL)
        #: The host and port for clients.
        self.address: tuple[str, int] = self._listener.getsockname()
        self._start(self._accept)

    @property
    def url(self) -> str:
        """The URL of the target with the address of the proxy.

        Raises:
            ValueError: the target is not a URL.
        """
        if not self._url:
            raise ValueError(
                "the target of this proxy is not a URL: use the proxy's address instead of its url"
            )
        parts = urlsplit(self._url)
        user, at, _ = parts.netloc.rpartition("@")
        query = [pair for pair in parse_qsl(parts.query) if pair[0] not in {"host", "port"}]
        host, port = self.address
        return urlunsplit(parts._replace(netloc=f"{user}{at}{host}:{port}", query=urlencode(query)))

    @property
    def traffic(self) -> Traffic:
        """What the proxy has done so far."""
        with self._change:
            return Traffic(
                accepted=self._accepted,
                refused=self._refused,
                cut=self._cut,
                open=len(self._links),
                from_client=self._delivered["client"],
                from_server=self._delivered["server"],
            )

    def cut(self) -> int:
        """Drop every open connection, on both sides. Return how many they were."""
        with self._change:
            links = list(self._links)
            for link in links:
                self._drop(link)
        return len(links)

    def hold(self) -> None:
        """Let nothing pass in either direction, not even the end of a connection.

        It is like a network that drops all packets. Open connections seem to stay open, and new ones seem to
        be accepted. A second call changes nothing.
        """
        with self._change:
            self._held = True

    def release(self) -> None:
        """Undo :meth:`hold`.

        What was sent meanwhile is delivered, except on connections that were cut meanwhile.
        """
        with self._change:
            self._held = False
            self._change.notify_all()

    def delay(self, duration: timedelta) -> None:
        """Deliver all data with this delay from now on; zero means at once."""
        self._delay = duration.total_seconds()

    def cut_after(
        self, pattern: bytes, times: int = 1, *, direction: Direction = "client", deliver: bool = True
    ) -> Cut:
        """Cut the next connections on which the pattern is sent, as soon as it is sent.

        Args:
            pattern: the bytes to wait for. They are looked for in everything that is sent on one connection
                in one direction from now on, also if they arrive in several pieces.
            times: how many connections are cut.
            direction: who sends the bytes.
            deliver: whether the piece with the end of the pattern is still delivered. If it is, no answer to
                it is: the receiver acts on the piece, and the sender sees its connection end. For example,
                use `deliver=False` with the server's confirmation as the pattern: the server has committed,
                and the client does not know.

        Raises:
            ValueError: the pattern is empty, or `times` is not positive.
        """
        if not pattern or times < 1:
            raise ValueError(
                f"the pattern must not be empty and times must be at least 1: {pattern!r}, {times}"
            )
        cut = Cut(pattern, direction, deliver, times)
        with self._change:
            self._orders.append(cut)
        return cut

    def forget(self) -> None:
        """Cancel every :meth:`cut_after` that still waits for its pattern."""
        with self._change:
            self._orders.clear()

    def close(self) -> None:
        """Drop every connection and stop listening. All threads have ended when this returns.

        A second call does nothing.
        """
        with self._change:
            self._closed = True
            for link in list(self._links):
                self._drop(link)
            self._change.notify_all()
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that listens, on Linux
        while threads := self._at_work():
            for thread in threads:
                thread.join()
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _at_work(self) -> list[threading.Thread]:
        with self._change:
            return list(self._threads)

    def _start(self, work: Callable[..., None], *arguments: object) -> None:
        def run() -> None:
            try:
                work(*arguments)
            finally:
                with self._change:
                    self._threads.discard(thread)

        with self._change:
            thread = threading.Thread(target=run, name="triggers-proxy", daemon=True)
            self._threads.add(thread)
            thread.start()

    def _accept(self) -> None:
        while not self._closed:
            try:
                client, _ = self._listener.accept()
            except TimeoutError:
                continue
            except OSError:
                return  # closed
            with self._change:
                self._accepted += 1
            self._start(self._link, client)

    def _link(self, client: socket.socket) -> None:
        with self._change:
            self._change.wait_for(lambda: self._closed or not self._held)
        try:
            server = _connect(self._target)
        except OSError:
            with self._change:
                self._refused += 1
            client.close()
            return
        for end in (client, server):
            if end.family != socket.AF_UNIX:
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = _Link(client, server)
        with self._change:
            self._links.add(link)
            if self._closed:
                self._drop(link)
        self._start(self._pump, link, "server")
        self._pump(link, "client")

    def _pump(self, link: _Link, sender: Direction) -> None:
        """Forward what one side sends to the other, until either side ends."""
        source, target = (link.client, link.server) if sender == "client" else (link.server, link.client)
        try:
            while piece := source.recv(_PIECE):
                if self._delay:
                    with self._change:
                        self._change.wait_for(lambda: link.dropped, self._delay)
                cut = self._look(link, sender, piece)
                self._carry(link, sender, target, piece)
                if cut:
                    self._make(cut, link)
            with self._change:
                self._pass(link)
            target.shutdown(socket.SHUT_WR)
        except OSError:  # either side has reset the connection, or it was dropped
            link.end()
        finally:
            self._leave(link)

    def _pass(self, link: _Link) -> None:
        """Wait until data may pass on this connection.

        Raises:
            ConnectionError: the connection was dropped.
        """
        self._change.wait_for(lambda: link.dropped or not self._held)
        if link.dropped:
            raise ConnectionAbortedError

    def _look(self, link: _Link, sender: Direction, piece: bytes) -> Cut | None:
        """Return the cut to make after the piece was forwarded. A cut that comes before it is made here."""
        with self._change:
            self._pass(link)
            orders = [cut for cut in self._orders if cut.direction == sender]
            cut = next((cut for cut in orders if link.completes(cut, piece)), None)
            if cut is None:
                return None
            cut.left -= 1
            if not cut.left:
                self._orders.remove(cut)
            if not cut.deliver:
                self._make(cut, link)
                raise ConnectionAbortedError
            link.mute = "server" if sender == "client" else "client"
            return cut

    def _make(self, cut: Cut, link: _Link) -> None:
        with self._change:
            self._drop(link)
            cut._count()  # noqa: SLF001 - within one module

    def _carry(self, link: _Link, sender: Direction, target: socket.socket, piece: bytes) -> None:
        rest = memoryview(piece)
        while rest:
            with self._change:
                self._pass(link)
                if link.mute == sender:
                    return
                with contextlib.suppress(BlockingIOError):
                    count = target.send(rest, socket.MSG_DONTWAIT)
                    self._delivered[sender] += count
                    rest = rest[count:]
                    continue
            writable = select.poll()
            writable.register(target, select.POLLOUT)
            writable.poll(_POLL * 1_000)

    def _drop(self, link: _Link) -> None:
        if not link.dropped:
            self._cut += 1
            link.dropped = True
            link.end()
            self._links.discard(link)
            self._change.notify_all()

    def _leave(self, link: _Link) -> None:
        """The last of the two threads closes the sockets; before that, they are only shut down."""
        with self._change:
            link.users -= 1
            if link.users:
                return
            self._links.discard(link)
        link.client.close()
        link.server.close()


@dataclass(eq=False, slots=True)
class _Link:
    """The connection of one client, and the connection to the target that belongs to it."""

    client: socket.socket
    server: socket.socket
    #: How many threads still use it.
    users: int = 2
    dropped: bool = False
    #: The side whose data are no longer delivered.
    mute: Direction | None = None
    #: For each cut, the last bytes, which may be the beginning of its pattern.
    tails: dict[Cut, bytes] = field(default_factory=dict)

    def completes(self, cut: Cut, piece: bytes) -> bool:
        seen = self.tails.get(cut, b"") + piece
        self.tails[cut] = seen[max(0, len(seen) - len(cut.pattern) + 1) :]
        return cut.pattern in seen

    def end(self) -> None:
        for side in (self.client, self.server):
            with contextlib.suppress(OSError):
                side.shutdown(socket.SHUT_RDWR)


def _address(url: str) -> tuple[str, int] | Path:
    parts = urlsplit(url)
    query = dict(parse_qsl(parts.query))
    port = int(query.get("port") or parts.port or _PORTS.get(parts.scheme.partition("+")[0], 0))
    host = query.get("host") or unquote(parts.hostname or "127.0.0.1")
    if not port:
        raise ValueError(f"the URL of the target has no port: {shown_scheme(url)!r}")
    return Path(host) / f".s.PGSQL.{port}" if host.startswith("/") else (host, port)


def _connect(target: tuple[str, int] | Path) -> socket.socket:
    if not isinstance(target, Path):
        connection = socket.create_connection(target, _CONNECT_TIMEOUT)
        connection.settimeout(None)
        return connection
    connection = socket.socket(socket.AF_UNIX)
    try:
        connection.connect(str(target))
    except OSError:
        connection.close()
        raise
    return connection
