"""When one of those that run should end, told from how long the last ones took.

Owns their durations. Knows no clock: seconds are given.
"""

from collections import deque

UNKNOWN = 1.0  # seconds; what is told before any has ended
REMEMBERED = 32


class Forecast:
    def __init__(self) -> None:
        self._took = deque[float](maxlen=REMEMBERED)

    def ended(self, seconds: float) -> None:
        """One has, which ran for so long."""
        self._took.append(seconds)

    def next_end(self, num_running: int) -> float:
        """In how many seconds, when so many run side by side and end evenly."""
        if not self._took:
            return UNKNOWN
        return sum(self._took) / len(self._took) / max(1, num_running)
