"""What a runner promises.

A runner is only told that an instance may be ready; whether it runs is decided by the claim. So a
runner may lose a hint, repeat it or deliver it late, and nothing is lost or done twice. It must

1. return from `submit` at once, whatever is going on, and never raise because it has too much to do;
2. call the executor's `run` for each hint that it keeps, from as many threads or processes as it likes;
3. after `close` run nothing more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from triggers.storages.base import Due


class Work(Protocol):
    """What an application gives its runners."""

    def run(self, uid: str, task: str, number: int) -> bool:
        """Run an instance if it can be claimed."""
        ...

    def pull(self, limit: int) -> list[Due]:
        """Take up to so many instances that are ready, straight from the storage."""
        ...


class Runner(Protocol):
    """The plug for running."""

    def start(self, work: Work) -> None:
        """Learn what to call; called once, before the first hint. Nothing need start yet."""
        ...

    def submit(self, due: Due) -> None:
        """A hint: this instance may be ready."""
        ...

    def is_idle(self) -> bool:
        """Whether it neither runs anything here nor has a hint to follow."""
        ...

    def close(self, timeout: float | None) -> bool:
        """Take no more hints and wait for what runs here; returns whether all of it has ended.

        Args:
            timeout: how long to wait, in seconds; None until it has ended.
        """
        ...
