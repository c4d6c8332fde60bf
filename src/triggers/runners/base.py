"""What a runner promises.

A runner is only told that an instance may be ready; whether it runs is decided by the claim. So a
runner may lose a hint, repeat it or deliver it late, and nothing is lost or done twice. It must

1. return from `submit` at once, whatever is going on, and never raise because it has too much to do;
2. call the executor's `run` for each hint that it keeps, from as many threads or processes as it likes;
3. after `close` run nothing more, until it is started again.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from triggers.storages.base import ReadyInstance


def _never(_: BaseException) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Delivery:
    """How a hint came to where it is followed, for runners that must be able to take it back.

    Attributes:
        label: of the message that brought it; goes into the name of the claim, so that
            :meth:`RunnerHost.abort` finds the claim by it. "" for none.
        around: makes a context that is entered around the user's code alone.
        is_stop: whether an exception out of the user's code only means that the process, or the thread, is to
            go: the instance is let go, due at once, and the exception raised again.
    """

    label: str = ""
    around: Callable[[], AbstractContextManager[object]] = nullcontext
    is_stop: Callable[[BaseException], bool] = _never


#: A hint that came by itself.
BY_ITSELF = Delivery()


class RunnerHost(Protocol):
    """What an application gives its runners."""

    def run(self, uid: str, task: str, number: int, delivery: Delivery = BY_ITSELF) -> bool:
        """Run an instance if it can be claimed."""
        ...

    def abort(
        self,
        uid: str,
        task: str,
        number: int,
        label: str,
        error: BaseException,
        *,
        timeout: float | None = None,
    ) -> bool:
        """Fail what a message was to run: the claim that it led to, or a scheduled instance.

        Returns:
            Whether it did; False if another message runs it, or it needs no run any more.

        Raises:
            StorageError: the storage is away; nothing was changed.
        """
        ...

    def lose(self, uid: str, task: str, number: int, label: str) -> bool:
        """Rescue what a worker was running that is known to be dead: a crash is counted, and it runs again.

        Returns:
            Whether it was running under the claim that the message of that label led to.

        Raises:
            StorageError: the storage is away; the sweep finds it once its lease has run out.
        """
        ...

    def watch_tasks(self, learn: Callable[[str], None]) -> None:
        """Call `learn` with the name of every task that runs here, and with each that comes, when it comes.

        Args:
            learn: a bound method; it is forgotten with its object. What it raises reaches whoever defines
                the task.
        """
        ...

    def start(self) -> None:
        """Begin to sweep in the background; again after a :meth:`rest`."""
        ...

    def pause_sweeping(self) -> None:
        """Sweep no more in the background, until the next :meth:`start`."""
        ...

    def sweep(self) -> object:
        """Sweep once, here and now.

        Raises:
            StorageError: the storage is away.
        """
        ...

    def pull(self, limit: int) -> list[ReadyInstance]:
        """Take up to so many instances that are ready, straight from the storage."""
        ...


class Runner(Protocol):
    """The plug for running."""

    def start(self, host: RunnerHost) -> None:
        """Learn what to call; called when the application is made, and after a `close`, to take hints again.

        Nothing need start yet. A runner may have a method `tend`, called after each sweep, that starts again
        what has died, and `threads`, the number of its threads here.
        """
        ...

    def submit(self, due: ReadyInstance) -> None:
        """A hint: this instance may be ready."""
        ...

    def is_idle(self) -> bool:
        """Whether it neither runs anything here nor has a hint to follow."""
        ...

    def close(self, timeout: float | None) -> bool:
        """Take no more hints, until the next `start`, and wait for what runs here; returns whether it ended.

        Args:
            timeout: how long to wait, in seconds; None until it has ended.
        """
        ...
