"""A thread for work that takes long, by turns of those who send it.

    a  ▮ ▮ ▮ ▮ ▮        b's only piece is done second, whatever a sends
    b  ▮

Who sends much waits for their own. Work that its sender no longer waits for is not begun.
"""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from threading import Lock
from typing import TypeVar

_Made = TypeVar("_Made")


class Turns:
    """Any event loop may ask."""

    def __init__(self, name: str) -> None:
        self._thread = ThreadPoolExecutor(1, name)
        self._lock = Lock()
        self._waiting = OrderedDict[str, deque[Callable[[], None]]]()  # whose turn is next, first

    async def do(self, sender: str, work: Callable[[], _Made]) -> _Made:
        """Raises what `work` does."""
        done = Future[_Made]()
        with self._lock:
            self._waiting.setdefault(sender, deque()).append(partial(_do, work, done))
        self._thread.submit(self._next)
        return await asyncio.wrap_future(done)

    def _next(self) -> None:
        with self._lock:
            sender, pieces = self._waiting.popitem(last=False)
            piece = pieces.popleft()
            if pieces:
                self._waiting[sender] = pieces
        piece()


def _do(work: Callable[[], _Made], done: Future[_Made]) -> None:
    if not done.set_running_or_notify_cancel():  # nobody waits for it any more
        return
    try:
        done.set_result(work())
    except BaseException as error:  # also a panic of Rust
        done.set_exception(error)
