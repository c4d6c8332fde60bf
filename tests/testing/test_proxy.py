"""The proxy fails exactly when and how it was told to."""

from __future__ import annotations

import contextlib
import socket
import threading
from datetime import timedelta

import pytest

from triggers.testing.servers.proxy import Proxy


class Echo:
    """A server that answers each piece with the same bytes, and remembers what it was sent."""

    def __init__(self, family=socket.AF_INET, address=("127.0.0.1", 0)):
        self.received = b""
        self.ended = threading.Event()
        self._threads = []
        self._listener = socket.socket(family)
        self._listener.bind(address)
        self._listener.listen()
        self.address = self._listener.getsockname()
        self._run(self._accept)

    def _run(self, work, *arguments):
        thread = threading.Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self):
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self._run(self._answer, connection)

    def _answer(self, connection):
        with connection, contextlib.suppress(OSError):
            while piece := connection.recv(65_536):
                self.received += piece
                connection.sendall(piece)
        self.ended.set()

    def close(self):
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def echo():
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def proxy(echo):
    with Proxy(echo.address) as proxy:
        yield proxy


@pytest.fixture
def connect(proxy):
    with contextlib.ExitStack() as stack:
        yield lambda: stack.enter_context(socket.create_connection(proxy.address, 10))


def say(client, words):
    client.sendall(words)
    return client.recv(65_536)


def test_what_is_sent_arrives_in_both_directions(connect, proxy, echo):
    """Without an order a proxy only counts: every byte arrives, and so does the end."""
    client = connect()
    sent = bytes(range(256)) * 2_000
    writer = threading.Thread(target=lambda: (client.sendall(sent), client.shutdown(socket.SHUT_WR)))
    writer.start()
    assert b"".join(iter(lambda: client.recv(65_536), b"")) == sent
    writer.join()
    assert echo.received == sent
    traffic = proxy.traffic
    assert (traffic.accepted, traffic.cut, traffic.from_client, traffic.from_server) == (
        1,
        0,
        len(sent),
        len(sent),
    )


def test_it_leads_to_a_unix_socket_as_well(tmp_path):
    """A target may be the path of a Unix socket."""
    server = Echo(socket.AF_UNIX, str(tmp_path / "socket"))
    with Proxy(tmp_path / "socket") as proxy, socket.create_connection(proxy.address, 10) as client:
        assert say(client, b"hello") == b"hello"
    server.close()


def test_cut_drops_every_connection_and_lets_new_ones_pass(connect, proxy, echo):
    """After a cut each side sees the end of its connection; the next connection works."""
    clients = [connect(), connect()]
    for client in clients:
        assert say(client, b"a") == b"a"
    assert proxy.cut() == 2
    assert [client.recv(1) for client in clients] == [b"", b""]
    assert echo.ended.wait(10)
    assert say(connect(), b"b") == b"b"
    assert (proxy.traffic.cut, proxy.traffic.open) == (2, 1)


def test_nothing_passes_while_it_is_held(connect, proxy, echo):
    """Held bytes arrive after the release, none before, and no end of a connection either."""
    client = connect()
    assert say(client, b"a") == b"a"
    proxy.hold()
    client.sendall(b"b")
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.recv(1)
    assert echo.received == b"a"
    proxy.release()
    client.settimeout(10)
    assert client.recv(1) == b"b"


def test_a_connection_made_while_it_is_held_works_after_the_release(connect, proxy):
    """A client can connect to a network that is gone, and waits."""
    proxy.hold()
    client = connect()
    client.sendall(b"a")
    proxy.release()
    assert client.recv(1) == b"a"


def test_what_was_held_is_lost_by_a_cut(connect, proxy, echo):
    """A network that comes back after its connections were given up delivers nothing of them."""
    client = connect()
    assert say(client, b"a") == b"a"
    proxy.hold()
    client.sendall(b"b")
    proxy.cut()
    proxy.release()
    assert client.recv(1) == b""
    assert echo.ended.wait(10)
    assert echo.received == b"a"


def test_a_cut_after_delivery_loses_the_answer(connect, proxy, echo):
    """The server has got the bytes; the client gets no answer."""
    client = connect()
    cut = proxy.cut_after(b"COMMIT")
    assert say(client, b"BEGIN") == b"BEGIN"
    assert say(client, b"COMMIT;") == b""
    assert cut.wait()
    assert echo.ended.wait(10)
    assert echo.received == b"BEGINCOMMIT;"
    assert (cut.made, proxy.traffic.cut, proxy.traffic.from_server) == (1, 1, 5)


def test_a_cut_before_delivery_loses_the_order(connect, proxy, echo):
    """The server never gets the bytes."""
    client = connect()
    cut = proxy.cut_after(b"COMMIT", deliver=False)
    assert say(client, b"COMMIT") == b""
    assert cut.wait()
    assert echo.ended.wait(10)
    assert echo.received == b""


def test_a_cut_can_wait_for_the_server(connect, proxy, echo):
    """With the server as the sender, what the client said passes, and the answer with the bytes does not."""
    client = connect()
    proxy.cut_after(b"done", direction="server", deliver=False)
    assert say(client, b"do") == b"do"
    assert say(client, b"done") == b""
    assert echo.received == b"dodone"


def test_an_answer_can_be_the_last_that_passes(connect, proxy):
    """With the server as the sender and delivery, the client gets the answer and then the end."""
    client = connect()
    proxy.cut_after(b"done", direction="server")
    assert say(client, b"done") == b"done"
    assert client.recv(1) == b""


def test_the_bytes_may_come_in_pieces(connect, proxy, echo):
    """A pattern is found across the borders of pieces, but never across two connections."""
    cut = proxy.cut_after(b"COMMIT")
    first, second = connect(), connect()
    assert say(first, b"COM") == b"COM"
    assert say(second, b"MIT") == b"MIT"
    assert cut.made == 0
    assert say(first, b"MIT") == b""
    assert cut.wait()


def test_an_order_is_forgotten_after_so_many_cuts(connect, proxy):
    """An order for two connections cuts two, and the third passes; so does one after `forget`."""
    cut = proxy.cut_after(b"x", times=2)
    assert say(connect(), b"x") == b""
    assert not cut.wait(timedelta(0))
    assert say(connect(), b"x") == b""
    assert cut.wait()
    assert say(connect(), b"x") == b"x"
    proxy.cut_after(b"x")
    proxy.forget()
    assert say(connect(), b"x") == b"x"


def test_a_delay_holds_each_piece_back(connect, proxy, echo):
    """With a delay of an hour nothing has arrived yet; without one, the next piece does at once."""
    client = connect()
    proxy.delay(timedelta(hours=1))
    client.sendall(b"a")
    client.settimeout(0.2)
    with pytest.raises(TimeoutError):
        client.recv(1)
    proxy.delay(timedelta(0))
    assert say(connect(), b"b") == b"b"
    assert echo.received == b"b"


def test_a_target_that_is_not_there_ends_the_connection(connect, proxy, echo):
    """A client of a server that is down is told so by the end of its connection."""
    echo.close()
    assert connect().recv(1) == b""
    assert proxy.traffic.refused == 1


def test_closing_twice_and_while_held_is_safe(echo):
    """Close ends everything, whatever was ordered before; a second one does nothing."""
    proxy = Proxy(echo.address)
    with socket.create_connection(proxy.address, 10) as client:
        assert say(client, b"a") == b"a"
        proxy.hold()
        client.sendall(b"b")
        proxy.close()
        proxy.close()
        assert client.recv(1) == b""
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(proxy.address, 10)


@pytest.mark.parametrize(
    ("url", "through"),
    [
        ("redis://:secret@127.0.0.1:7000/3", "redis://:secret@{}/3"),
        ("amqp://user:secret@localhost:7000//", "amqp://user:secret@{}//"),
        ("redis://localhost", "redis://{}"),
        (
            "postgresql://postgres@/db?host=%2Ftmp%2Ffolder&port=7000&schema=a",
            "postgresql://postgres@{}/db?schema=a",
        ),
    ],
)
def test_a_url_leads_through_the_proxy(url, through):
    """The proxy's URL is the target's with another address; all else in it stays."""
    with Proxy(url) as proxy:
        assert proxy.url == through.format("{}:{}".format(*proxy.address))


def test_a_target_that_is_no_url_gives_none(proxy):
    """Asked for a URL, a proxy whose target has none says what to use."""
    with pytest.raises(ValueError, match="use the proxy's address"):
        _ = proxy.url


@pytest.mark.parametrize(("pattern", "times"), [(b"", 1), (b"x", 0)])
def test_an_order_that_means_nothing_is_refused(proxy, pattern, times):
    """Nothing to wait for, or no times, is a mistake."""
    with pytest.raises(ValueError, match="must not be empty and times must be at least 1"):
        proxy.cut_after(pattern, times)
