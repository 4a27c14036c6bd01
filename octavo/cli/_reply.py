"""One answer on its way to the terminal: shown as it comes, timed, stopped by Ctrl-C."""

import sys
from collections.abc import Callable, Generator
from dataclasses import dataclass
from time import perf_counter

from octavo.cli._interrupt import Interrupt
from octavo.errors import StepFailed
from octavo.types import Delta, Event, Finished


@dataclass(frozen=True, slots=True)
class Reply:
    text: str
    end: Finished | None  # None: Ctrl-C came before it
    num_tokens: int
    first_token: float | None  # seconds after asking; None: there was none
    seconds: float

    @property
    def speed(self) -> str:
        """How long the prompt took, and how fast tokens came after it."""
        if self.first_token is None:
            return "no token"
        said = [f"first token after {self.first_token:.2f} s"]
        if self.end and (prompt := self.end.usage.prompt_tokens):
            cached = self.end.usage.cached_tokens
            said.append(
                f"prompt of {prompt} tokens" + (f", {cached} found again" if cached else "")
            )
        later = self.num_tokens - 1
        pace = f" at {later / (self.seconds - self.first_token):.1f} tokens/s" if later else ""
        said.append(f"answer of {self.num_tokens} tokens{pace}")
        return " · ".join(said)


def receive(events: Generator[Event, None, None], show: Callable[[str], None]) -> Reply:
    """Raises StepFailed where the engine could not finish."""
    began = perf_counter()
    parts: list[str] = []
    num_tokens, first_token, end = 0, None, None
    with Interrupt() as interrupt:
        for event in events:
            if isinstance(event, Delta):
                first_token = first_token or perf_counter() - began
                num_tokens += len(event.token_ids)
                parts.append(event.text)
                show(event.text)
            elif isinstance(event, Finished):
                end = event
            if interrupt.asked:
                break
        events.close()
    if end and end.reason == "error":
        raise StepFailed(end.error or "the engine could not compute a step")
    return Reply("".join(parts), end, num_tokens, first_token, perf_counter() - began)


def to_stdout(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def nowhere(text: str) -> None:
    """For answers that are shown once they are whole."""
