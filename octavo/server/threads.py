"""Threads of one's own, beside the event loop: whoever keeps them busy leaves all others to others.

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
        """Also who is cancelled waits for its end, so that nothing goes on behind the caller's
        back."""
        loop = asyncio.get_running_loop()
        future = loop.run_in_executor(self, partial(function, *arguments, **named))
        try:
            return await asyncio.shield(future)
        except asyncio.CancelledError:
            await asyncio.wait({future})
            raise
