"""Runs the coroutine of a task in a thread, whether or not an event loop runs in it already."""

from __future__ import annotations

import contextvars
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable


def run_anywhere(make: Callable[[], Any]) -> Any:
    """Run a coroutine to its end, in another thread if this thread already runs an event loop."""
    import asyncio  # noqa: PLC0415 - its import is slow, and most tasks are not coroutines

    if asyncio._get_running_loop() is None:  # noqa: SLF001 - the public function raises, and the task could see that
        return asyncio.run(make())
    with ThreadPoolExecutor(1, thread_name_prefix="triggers-async") as pool:
        return pool.submit(contextvars.copy_context().run, asyncio.run, make()).result()
