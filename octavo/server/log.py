"""What was said, in order, for any number of readers, each from where it likes and at its own pace.

Owns the items and the wait for the next. Knows not what they are. Belongs to one event loop.

    write ─▶ [ 0 | 1 | 2 | 3 ]  ◀─ follow(2): 2, 3, and whatever comes, until `end`
"""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Log(Generic[Item]):
    def __init__(self, items: Iterable[Item] = (), *, is_over: bool = False) -> None:
        """With `items` and over: what was kept of a log that ended."""
        self.items = list(items)
        self.is_over = is_over
        self._news = asyncio.Event()

    def write(self, item: Item) -> None:
        assert not self.is_over
        self.items.append(item)
        self._tell()

    def end(self) -> None:
        """Nothing more will be written. Once is enough, more does no harm."""
        self.is_over = True
        self._tell()

    async def follow(self, start: int = 0) -> AsyncGenerator[Item, None]:
        """Items from place `start` on, as they come."""
        place = start
        while True:
            while place < len(self.items):
                yield self.items[place]
                place += 1
            if self.is_over:
                return
            await self._news.wait()

    def _tell(self) -> None:
        """Wakes those who wait now; later ones wait for the next."""
        self._news.set()
        self._news = asyncio.Event()
