"""One answer on its way to the terminal: shown as it comes, ended by Ctrl-C, described."""

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from octavo.engine.llm import Completion, Stream


class Interrupt:
    """Within it the first Ctrl-C calls `ask`; the second is KeyboardInterrupt, wherever the program
    is then. So a generation ends between two steps, with the engine in good order."""

    def __init__(self, ask: Callable[[], None]) -> None:
        self._ask = ask
        self._was_asked = False

    def __enter__(self) -> Self:
        self._before = signal.signal(signal.SIGINT, self._heard)
        return self

    def __exit__(self, *_: object) -> None:
        signal.signal(signal.SIGINT, self._before)

    def _heard(self, _signal: int, _frame: FrameType | None) -> None:
        if self._was_asked:
            raise KeyboardInterrupt
        self._was_asked = True
        self._ask()


def receive(stream: "Stream", show: Callable[[str], None]) -> "Completion":
    """The whole answer, or what there was of it at Ctrl-C. Raises StepFailed."""
    with Interrupt(stream.close):
        for delta in stream:
            show(delta.text)
        return stream.completion


def speed(answer: "Completion") -> str:
    """How long the prompt took, and how fast tokens came after it."""
    usage, timing = answer.usage, answer.timing
    prompt = f"prompt of {usage.prompt_tokens} tokens"
    if usage.cached_tokens:
        prompt += f", {usage.cached_tokens} of them found in the cache,"
    said = [f"{prompt} in {timing.waiting + timing.prefill:.2f} s"]
    later = usage.completion_tokens - 1
    pace = f" at {later / timing.decode:.1f} tokens/s" if later > 0 and timing.decode else ""
    return " · ".join([*said, f"answer of {usage.completion_tokens} tokens{pace}"])


def to_stdout(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def nowhere(text: str) -> None:
    """For answers that are shown once they are whole."""
