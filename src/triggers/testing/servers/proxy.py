"""A network that fails on command: a proxy between a client and a server on this machine.

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

if TYPE_CHECKING:
    from collections.abc import Callable

Direction = Literal["client", "server"]

#: Bytes that are read at once.
_PIECE = 1 << 16
#: Seconds that a connection to the target may take.
_CONNECT_TIMEOUT = 10.0
#: Seconds after which a thread that waits for a socket looks whether there is still anything to do.
_LOOK = 0.2
#: Where a server listens whose URL does not say so.
_PORTS = {"postgresql": 5432, "postgres": 5432, "redis": 6379, "amqp": 5672}


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a proxy has done up to now.

    Attributes:
        accepted: connections of clients that were accepted.
        refused: those of them for which the target could not be reached; they were closed.
        cut: connections that were cut, by hand or by a pattern.
        open: connections that are open now.
        from_client: bytes of clients that were delivered to the target.
        from_server: bytes of the target that were delivered to clients.
    """

    accepted: int
    refused: int
    cut: int
    open: int
    from_client: int
    from_server: int


@dataclass(eq=False, slots=True)
class Cut:
    """A cut that waits for its bytes; what :meth:`Proxy.cut_after` returns."""

    pattern: bytes
    direction: Direction
    deliver: bool
    times: int
    #: How many connections it has cut.
    made: int = 0
    #: For how many the bytes have not come yet.
    left: int = field(init=False)
    _done: threading.Event = field(default_factory=threading.Event, repr=False)

    def __post_init__(self) -> None:
        self.left = self.times

    def wait(self, timeout: timedelta = timedelta(seconds=30)) -> bool:
        """Wait until the last of its cuts was made; False if that took longer than the timeout."""
        return self._done.wait(timeout.total_seconds())

    def _count(self) -> None:
        self.made += 1
        if self.made == self.times:
            self._done.set()


class Proxy:
    """A TCP proxy on the loopback, for any number of connections, that can be told to fail.

    It may be used from several threads. What is cut is cut for good; a client may connect again at once.

    Args:
        target: a URL (`postgresql://…`, also one with `?host=/folder` for a Unix socket, `redis://…`, `amqp://…`),
            a host and port, or the path of a Unix socket. It need not be there yet, or may go and come.
    """

    def __init__(self, target: str | tuple[str, int] | Path) -> None:
        self._url = target if isinstance(target, str) else ""
        self._target = _address(target) if isinstance(target, str) else target
        # Whoever looks at what follows, or sends, has the lock: after `hold` and `cut` nothing passes.
        self._change = threading.Condition()
        self._held = self._closed = False
        self._delay = 0.0
        self._orders: list[Cut] = []
        self._links: set[_Link] = set()
        self._accepted = self._refused = self._cut = 0
        self._delivered: dict[Direction, int] = {"client": 0, "server": 0}
        self._threads: set[threading.Thread] = set()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=512)
        self._listener.settimeout(_LOOK)
        #: Where clients connect: host and port.
        self.address: tuple[str, int] = self._listener.getsockname()
        self._start(self._accept)

    @property
    def url(self) -> str:
        """The target's URL with the proxy's address in it.

        Raises:
            ValueError: the target is not a URL.
        """
        if not self._url:
            raise ValueError("the target of this proxy is no URL: use its address")
        parts = urlsplit(self._url)
        user, at, _ = parts.netloc.rpartition("@")
        query = [pair for pair in parse_qsl(parts.query) if pair[0] not in {"host", "port"}]
        host, port = self.address
        return urlunsplit(parts._replace(netloc=f"{user}{at}{host}:{port}", query=urlencode(query)))

    @property
    def traffic(self) -> Traffic:
        """What it has done up to now."""
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
        """Drop every connection that is open now, on both sides; how many there were."""
        with self._change:
            links = list(self._links)
            for link in links:
                self._drop(link)
        return len(links)

    def hold(self) -> None:
        """Let nothing pass, in either direction, not even the end of a connection: a network that is gone.

        Connections seem to stay, and new ones to be made. A second call changes nothing.
        """
        with self._change:
            self._held = True

    def release(self) -> None:
        """Undo :meth:`hold`: what was sent meanwhile is delivered, except over what was cut meanwhile."""
        with self._change:
            self._held = False
            self._change.notify_all()

    def delay(self, duration: timedelta) -> None:
        """From now on, deliver each piece so much later than it came; zero: at once."""
        self._delay = duration.total_seconds()

    def cut_after(
        self, pattern: bytes, times: int = 1, *, direction: Direction = "client", deliver: bool = True
    ) -> Cut:
        """Cut each of the next connections over which the bytes come, as soon as they do.

        Args:
            pattern: what to wait for. It may come in pieces; it is looked for in all that comes over one
                connection in one direction from now on.
            times: how many connections are cut before the order is forgotten.
            direction: who sends the bytes.
            deliver: True: the piece with their end is still delivered, and nothing of an answer: the receiver
                does what it was told, at about the time at which the sender sees its connection end. False:
                that piece does not arrive. So `deliver=False` with the server's confirmation as the pattern
                is the case in which it is *done* and the client does not know.

        Raises:
            ValueError: there are no bytes to wait for, or the count is not positive.
        """
        if not pattern or times < 1:
            raise ValueError(f"wait for at least one byte, at least once: not for {pattern!r}, {times} times")
        cut = Cut(pattern, direction, deliver, times)
        with self._change:
            self._orders.append(cut)
        return cut

    def forget(self) -> None:
        """Forget every order of :meth:`cut_after` that still waits."""
        with self._change:
            self._orders.clear()

    def close(self) -> None:
        """Drop every connection and listen no more; all threads have ended. A second call does nothing."""
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
        """Carry what one side sends to the other, until either ends."""
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
        """Wait until something may pass.

        Raises:
            ConnectionError: nothing will any more.
        """
        self._change.wait_for(lambda: link.dropped or not self._held)
        if link.dropped:
            raise ConnectionAbortedError

    def _look(self, link: _Link, sender: Direction, piece: bytes) -> Cut | None:
        """The cut that is to be made after the piece was carried; one before it is made here."""
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
            cut._count()  # noqa: SLF001 - of this module

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
            writable.poll(_LOOK * 1_000)

    def _drop(self, link: _Link) -> None:
        if not link.dropped:
            self._cut += 1
            link.dropped = True
            link.end()
            self._links.discard(link)
            self._change.notify_all()

    def _leave(self, link: _Link) -> None:
        """The last of the two threads closes: a socket that another thread still uses is only shut down."""
        with self._change:
            link.users -= 1
            if link.users:
                return
            self._links.discard(link)
        link.client.close()
        link.server.close()


@dataclass(eq=False, slots=True)
class _Link:
    """One client's connection and the one to the target that belongs to it."""

    client: socket.socket
    server: socket.socket
    #: Threads that still use it.
    users: int = 2
    dropped: bool = False
    #: The side from which nothing is delivered any more.
    mute: Direction | None = None
    #: For each order, the last bytes, with which its pattern may begin.
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
        raise ValueError(f"the URL of the proxy's target has no port: {url!r}")
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
