"""One answer on its way to the terminal: shown as it comes, ended by Ctrl-C, described."""

import signal
import sys
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Self

import typer

from octavo.types import Delta

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


def receive(stream: "Stream", show: Callable[[Delta], None]) -> "Completion":
    """The whole answer, or what there was of it at Ctrl-C. Raises StepFailed."""
    with Interrupt(stream.close):
        for delta in stream:
            show(delta)
        return stream.completion


class Screen:
    """An answer as it comes: its text on stdout; what was thought before it on stderr, dimmed, on
    lines of its own."""

    def __init__(self) -> None:
        self._is_thinking = False

    def __call__(self, delta: Delta) -> None:
        if delta.reasoning:
            typer.secho(delta.reasoning, dim=True, err=True, nl=False)
            self._is_thinking = True
        if delta.text:
            if self._is_thinking:
                typer.echo(err=True)
                self._is_thinking = False
            to_stdout(delta.text)


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


def nowhere(_: Delta) -> None:
    """For answers that are shown once they are whole."""
