"""A network that fails on command, in a process of its own, so that whoever forks others has no threads."""

from __future__ import annotations

import json
import os
import socket
from typing import TYPE_CHECKING, Any, Self

from tests.crash.processes import begin, end
from triggers.testing.servers.proxy import Proxy

if TYPE_CHECKING:
    from triggers.testing.servers.proxy import Cut


class Network:
    """Between clients and a server: can be held, let go and cut, as :class:`~triggers.testing.servers.proxy.Proxy` does.

    A context manager; the process ends with it, or with the one that made it.

    Args:
        target: the server's URL.
    """

    def __init__(self, target: str) -> None:
        self._here, there = socket.socketpair()
        self.pid = begin(lambda: _serve(target, self._here, there))
        self._owner = os.getpid()
        there.close()
        self._answers = self._here.makefile("r")
        #: Where clients connect.
        self.url: str = self._answer()

    def hold(self) -> None:
        """Nothing passes any more."""
        self._ask("hold")

    def release(self) -> None:
        """What was held back passes."""
        self._ask("release")

    def cut(self) -> int:
        """Drop every connection; how many there were."""
        count: int = self._ask("cut")
        return count

    def cut_after(self, pattern: str, direction: str, times: int = 1, *, deliver: bool = True) -> None:
        """Drop each of the next connections over which the bytes come."""
        self._ask("cut_after", pattern, direction, times, deliver)

    def made(self) -> int:
        """How many connections the orders of :meth:`cut_after` have cut."""
        count: int = self._ask("made")
        return count

    def forget(self) -> None:
        """Forget the orders that still wait."""
        self._ask("forget")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if os.getpid() == self._owner:
            self._here.shutdown(socket.SHUT_RDWR)  # those who were forked meanwhile have it, too
            self._answers.close()
            self._here.close()
            end(self.pid)

    def _ask(self, what: str, *given: Any) -> Any:
        self._here.sendall(json.dumps([what, *given]).encode() + b"\n")
        return self._answer()

    def _answer(self) -> Any:
        line = self._answers.readline()
        assert line, "the network's process has ended"
        return json.loads(line)


def _serve(target: str, others: socket.socket, here: socket.socket) -> None:
    others.close()
    cuts: list[Cut] = []
    with Proxy(target) as proxy, here.makefile("r") as orders:
        here.sendall(json.dumps(proxy.url).encode() + b"\n")
        for line in orders:
            what, *given = json.loads(line)
            answer: object = None
            if what == "cut_after":
                pattern, direction, times, deliver = given
                cuts.append(proxy.cut_after(pattern.encode(), times, direction=direction, deliver=deliver))
            elif what == "made":
                answer = sum(cut.made for cut in cuts)
            else:
                answer = getattr(proxy, what)()
            here.sendall(json.dumps(answer).encode() + b"\n")
