"""What a benchmark is doing, on stderr, where somebody watches."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

CLEAR = "\r\x1b[2K"


def say(text: str) -> None:
    """In place of what was said before. No spinner: its thread would take time from what is
    timed."""
    if sys.stderr.isatty():
        print(CLEAR + text[:100], end="", file=sys.stderr, flush=True)


@contextmanager
def saying() -> Iterator[None]:
    """Leaves a clean line behind, also after Ctrl-C."""
    try:
        yield
    finally:
        say("")
