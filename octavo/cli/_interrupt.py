"""Ctrl-C asks once and insists twice."""

import signal
from types import FrameType
from typing import Self


class Interrupt:
    """Within it the first Ctrl-C sets `asked`, so that a generation ends between two tokens with
    the engine in good order; the second is KeyboardInterrupt, wherever the program is."""

    def __init__(self) -> None:
        self.asked = False

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._heard)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _heard(self, _signal: int, _frame: FrameType | None) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
