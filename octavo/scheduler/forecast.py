"""When one of the running requests should end, judged by how long the last ones took.

Owns their durations. Knows no clock: seconds are given.
"""

from collections import deque

UNKNOWN = 1.0  # seconds; what is told before any has ended
REMEMBERED = 32


class Forecast:
    def __init__(self) -> None:
        self._took = deque[float](maxlen=REMEMBERED)

    def ended(self, seconds: float) -> None:
        """A request has ended that ran for so long."""
        self._took.append(seconds)

    def next_end(self, num_running: int) -> float:
        """Seconds until one of `num_running` ends, which are taken to end evenly spaced."""
        if not self._took:
            return UNKNOWN
        return sum(self._took) / len(self._took) / max(1, num_running)
