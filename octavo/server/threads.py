"""A pool of threads beside the event loop for one kind of work: when all of them are busy, only
work of that kind waits, and asyncio's own threads stay free for the rest of the server.

Knows not what is done in them.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, TypeVar

T = TypeVar("T")


class Threads(ThreadPoolExecutor):
    async def run(self, function: Callable[..., T], *arguments: Any, **named: Any) -> T:
        """What `function` returns or raises. A caller that is cancelled waits for its end first, so
        that nothing goes on behind its back."""
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self, partial(function, *arguments, **named))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait({future})
            raise
