"""Send commands to Redis, with retries while it is unavailable, and translate its errors."""

from __future__ import annotations

import random
import re
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

from triggers.exceptions import StorageBusyError, StorageCorruptError, StorageError, StorageFullError
from triggers.fork import reset_after_fork
from triggers.storages.redis.keys import type_of_key
from triggers.storages.redis.nodes import (
    AWAY,
    AskError,
    AuthenticationError,
    Cluster,
    Command,
    MovedError,
    NoPermissionError,
    NoScriptError,
    OutOfMemoryError,
    Single,
    is_unanswered,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from triggers.storages.redis.nodes import Exchange, Node, Part
    from triggers.storages.redis.url import RedisUrl

#: The first and the longest pause before a retry, in seconds. Each pause is twice the previous one.
PAUSE: Final = 0.01
LONGEST_PAUSE: Final = 1.0

#: Errors that end soon: the server runs a long script, or lacks replicas.
_PASSING: Final = ("BUSY", "NOREPLICAS", "UNBLOCKED")

#: The error for a key that is being moved to another node. Scripts read all keys before they write.
_MOVING: Final = "non local key"

#: The first word of the error for a key whose value has another type than the command needs.
_WRONG_TYPE: Final = "WRONGTYPE"

#: A key of a storage, in an error of the server.
_KEY: Final = re.compile(r"\{\S+\}:[a-z]+(?::[\w-]+)?")

#: The error of a server that cannot write to its disk.
_UNABLE: Final = ("MISCONF",)


class WrongTypeError(StorageCorruptError):
    """A key has a value of another type than it must have. Nothing was changed in its partition."""


class RedisServer:
    """One server, or the masters of a cluster.

    Args:
        url: the server or cluster.
    """

    def __init__(self, url: RedisUrl) -> None:
        self.url = url
        self.after_fork()
        reset_after_fork(self)

    # A child process must neither use nor close inherited connections: the sockets belong to its parent.
    def after_fork(self) -> None:
        """Forget the inherited connections in a child process, which opens its own when needed."""
        inherited.append(getattr(self, "_link", None))
        self._lock = threading.Lock()
        self._link: Single | Cluster | None = None

    def close(self) -> None:
        """Close all connections, those in use after their use. A later call opens new ones."""
        with self._lock:
            link, self._link = self._link, None
        if link is not None:
            link.close()

    def ask(self, command: Command, until: float) -> Any:
        """Run one command, with retries until that monotonic time; returns its answer.

        Raises:
            StorageError: there was no answer, or the answer was an error.
        """
        return self.ask_all([command], until)[0]

    def ask_all(
        self, commands: Sequence[Command], until: float, *, partly: bool = False, damaged: bool = False
    ) -> list[Any]:
        """Run several commands, with one round trip to each node that is involved, and return their answers.

        If an answer is lost, the command is run again.

        Args:
            commands: the commands.
            until: the monotonic time at which the call times out.
            partly: accept some answers if a node of a cluster is unavailable; the other answers are None.
            damaged: return a `WrongTypeError` as the answer of its command instead of raising it.

        Raises:
            StorageError: a command had no answer, or the answer was an error.
        """
        answers: list[Any] = [None] * len(commands)
        left = list(range(len(commands)))
        pauses = Pauses(until)
        unanswered = False
        while True:
            try:
                left = self._try(commands, left, answers)
                if not left or (partly and len(left) < len(commands)):
                    return [_accepted(answer, damaged=damaged) for answer in answers]
                problem: Exception = answers[left[0]]
            except AuthenticationError as error:
                raise self.translated(error) from error
            except AWAY as error:
                problem = error
            unanswered = unanswered or is_unanswered(problem)
            if not pauses.wait():
                raise self._timed_out(problem, unanswered=unanswered) from problem
            if isinstance(problem, AWAY):
                self._renew()

    def _try(self, commands: Sequence[Command], left: list[int], answers: list[Any]) -> list[int]:
        """Try once; returns the commands to retry, whose answers are their errors."""
        link = self._connect()
        groups: dict[Node, list[int]] = {}
        for n in left:
            groups.setdefault(link.node_of(commands[n].key), []).append(n)
        begun: list[tuple[Node, list[int], Exchange]] = []
        for node, numbers in groups.items():
            try:
                begun.append((node, numbers, node.begin([commands[n] for n in numbers])))
            except AuthenticationError:
                raise
            except AWAY as error:
                _note(error, numbers, answers)
        for node, numbers, exchange in begun:
            try:
                for n, answer in zip(numbers, node.end(exchange), strict=True):
                    failed = isinstance(answer, Exception)
                    answers[n] = self._second(link, node, commands[n], answer) if failed else answer
            except AuthenticationError:
                raise
            except AWAY as error:
                _note(error, numbers, answers)
        return [
            n
            for n in left
            if isinstance(answers[n], Exception) and not isinstance(answers[n], WrongTypeError)
        ]

    def _second(self, link: Single | Cluster, node: Node, command: Command, error: Exception) -> Any:
        """Handle an error of the server: returns the answer of a second try, or an error to retry later.

        A `WrongTypeError` is an answer, too, so that the other commands get theirs.

        Raises:
            StorageError: no other try can succeed.
        """
        if isinstance(error, AskError):
            if isinstance(error, MovedError):
                link.renew()
                node = link.node_of(command.key)
                (answer,) = node.ask([command])
            else:
                (answer,) = link.at(error.host, error.port).ask([command], asking=True)
            if not isinstance(answer, Exception):
                return answer
            error = answer
        if isinstance(error, NoScriptError) and command.script is not None:
            words = ("EVAL", command.script.text, *command.words[2:])
            (answer,) = node.ask([command._replace(words=words)])
            if not isinstance(answer, Exception):
                return answer
            error = answer
        if isinstance(error, AWAY) or str(error).startswith(_PASSING) or _MOVING in str(error):
            return error
        if str(error).startswith(_WRONG_TYPE):
            return self._wrong_type(node, command, str(error))
        raise self.translated(error) from error

    def _wrong_type(self, node: Node, command: Command, said: str) -> WrongTypeError:
        """The error that names the keys. Nothing was changed, because scripts read keys before they write."""
        keys = [*command.keys, *(key.encode() for key in _KEY.findall(said))]
        types = node.ask([Command(key, ("TYPE", key)) for key in keys])
        wrong = [
            f"key {key.decode()} is a {found.decode()} and must be a {type_of_key(key).decode()}"
            for key, found in zip(keys, types, strict=True)
            if found not in {b"none", type_of_key(key)}
        ]
        return WrongTypeError(
            f"{self.url.shown}: {'; '.join(wrong) or said}; another program has written it, and nothing was "
            f"changed in its partition: find that program, and restore a backup"
        )

    def _connect(self) -> Single | Cluster:
        link = self._link
        if link is None:
            with self._lock:
                if self._link is None:
                    self._link = Cluster(self.url) if self.url.cluster else Single(self.url)
                link = self._link
        return link

    def _renew(self) -> None:
        """Connect again, to the servers that are available now."""
        link = self._link
        if link is not None:
            link.close()
            try:
                link.renew()
            except AWAY:
                return

    def masters(self) -> list[Node]:
        """The masters, by the latest information; they may be unavailable."""
        return self._connect().masters()

    def ask_masters(self, *words: Part) -> list[Any]:
        """Run a command without keys on every master; returns the answers, which can be errors of a server.

        Raises:
            StorageError: a master does not answer.
        """
        pauses = Pauses(time.monotonic() + self.url.timeout)
        while True:
            try:
                return [node.ask([Command(b"", words)])[0] for node in self.masters()]
            except AuthenticationError as error:
                raise self.translated(error) from error
            except AWAY as error:
                if not pauses.wait():
                    raise self._timed_out(error, unanswered=False) from error

    def scan(self, pattern: bytes, page: int) -> Iterator[tuple[Node, bytes]]:
        """Yield the keys of all masters that match a pattern, each with its master; some perhaps twice.

        Args:
            pattern: the pattern, as the command SCAN takes it.
            page: how many keys a server looks at for one answer.

        Raises:
            StorageError: a master does not answer.
        """
        with self._translating():
            masters = self._connect().masters()
        for node in masters:
            cursor = b"0"
            while True:
                cursor, keys = self.ask_node(node, "SCAN", cursor, "MATCH", pattern, "COUNT", page)
                yield from ((node, key) for key in keys)
                if cursor == b"0":
                    break

    def ask_node(self, node: Node, *words: Part) -> Any:
        """Run a command on one server, without retries; returns its answer.

        Raises:
            StorageError: there was no answer, or the answer was an error.
        """
        with self._translating():
            (answer,) = node.ask([Command(b"", words)])
        if isinstance(answer, Exception):
            raise self.translated(answer) from answer
        return answer

    @contextmanager
    def _translating(self) -> Iterator[None]:
        try:
            yield
        except AuthenticationError as error:
            raise self.translated(error) from error
        except AWAY as error:
            raise StorageBusyError(f"{self.url.shown} did not answer ({error}): try again") from error

    def translated(self, error: Exception) -> StorageError:
        """The exception of Triggers for an error of the server."""
        said, where = str(error), self.url.shown
        if isinstance(error, OutOfMemoryError):
            return StorageFullError(
                f"{where} has no memory left (maxmemory); nothing was changed: free memory or raise it"
            )
        if said.startswith(_UNABLE):
            return StorageFullError(f"{where} cannot write to its disk; nothing was changed: {said}")
        if isinstance(error, AuthenticationError):
            return StorageError(f"{where} does not accept the user or the password: {said}")
        if isinstance(error, NoPermissionError):
            return StorageError(
                f"{where} does not permit this user a command that is needed; nothing was changed: {said}"
            )
        if "WRONGTYPE" in said:
            return StorageCorruptError(f"{where} has a key of another type than it should be: {said}")
        return StorageError(f"{where}: {said}")

    def _timed_out(self, error: Exception, *, unanswered: bool) -> StorageError:
        where = f"{self.url.shown} did not answer for too long ({error})"
        if unanswered:
            return StorageBusyError(
                f"{where}: it is not known whether the last command was executed: look at the session before "
                f"you try again, or fire again with the same key"
            )
        return StorageBusyError(f"{where}; nothing was changed: try again")


def _accepted(answer: Any, *, damaged: bool) -> Any:
    """The answer; None for that of an unavailable node.

    Raises:
        WrongTypeError: the answer is one, and `damaged` is false.
    """
    if isinstance(answer, WrongTypeError):
        if damaged:
            return answer
        raise answer
    return None if isinstance(answer, Exception) else answer


def _note(error: Exception, numbers: list[int], answers: list[Any]) -> None:
    for n in numbers:
        answers[n] = error


class Pauses:
    """Pauses that grow, with jitter so that clients do not retry at the same moment, until a monotonic time.

    Args:
        until: no pause ends after this time.
        first: the first pause, in seconds.
        longest: the longest pause, in seconds.
    """

    __slots__ = ("_longest", "_next", "_until")

    def __init__(self, until: float, first: float = PAUSE, longest: float = LONGEST_PAUSE) -> None:
        self._until = until
        self._next = first
        self._longest = longest

    def wait(self) -> bool:
        """Sleep for the next pause; returns False, without a pause, if the time is over."""
        rest = self._until - time.monotonic()
        if rest <= 0:
            return False
        time.sleep(min(self._next * random.uniform(0.5, 1.0), rest))  # noqa: S311 - not a secret
        self._next = min(2 * self._next, self._longest)
        return True


#: Connections that child processes have inherited and must neither use nor close.
inherited: list[Any] = []
