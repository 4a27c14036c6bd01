"""One peer at one piece of work: which of its ways is the fastest, and what it failed at."""

from collections.abc import Mapping
from math import inf
from pathlib import Path
from typing import TypeAlias

from octavo.bench._peer_process import Asked, Failed, PeerProcess
from octavo.errors import BadConfig

Way: TypeAlias = dict[str, object]
WAKE = 64  # tokens of a prompt that is not timed


class Rival:
    """Does `orders` (by kind: what to order, with which arguments) whenever it is asked."""

    def __init__(self, asked: Asked) -> None:
        """Raises BadConfig where the peer is not installed."""
        self.name, self._process = asked.name, PeerProcess(asked)
        try:
            self.version: str = self._process.order("find")
            self._ways: list[Way] = self._process.order("ways")
        except Failed as failed:
            self.close()
            raise BadConfig("peer", str(failed)) from failed

    def try_ways(
        self, path: Path, room: Mapping[str, int], orders: Mapping[str, Mapping[str, int]]
    ) -> None:
        """Does all orders in every way once, and keeps the fastest way of each."""
        self._path, self._room, self._orders = path, room, orders
        self.problem: str | None = None  # the first one
        self.ways: dict[str, Way] = {}  # by kind; without those that failed
        self._opened: Way | None = None
        best = dict.fromkeys(orders, inf)
        for way in self._ways:
            for kind in orders:
                seconds = self._seconds(kind, way)
                if seconds is not None and seconds < best[kind]:
                    best[kind], self.ways[kind] = seconds, way

    def seconds(self, kind: str) -> float | None:
        """None for what it failed at, now or before."""
        if kind not in self.ways:
            return None
        seconds = self._seconds(kind, self.ways[kind])
        if seconds is None:
            del self.ways[kind]
        return seconds

    def close(self) -> None:
        self._process.close()

    def _seconds(self, kind: str, way: Way) -> float | None:
        try:
            if way != self._opened:
                self._open(way)
            seconds: float = self._process.order(kind, **self._orders[kind])
        except Failed as failed:
            self.problem = self.problem or str(failed)
            if not self._process.is_alive:
                self._opened = None
            return None
        return seconds

    def _open(self, way: Way) -> None:
        self._opened = None
        self._process.order("open", path=str(self._path), **self._room, **way)
        self._process.order("prompt", tokens=min(WAKE, self._room["tokens"]))
        self._opened = way
