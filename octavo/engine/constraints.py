"""What answers are held to while they are written: a matcher each, its mask made beside the step.

    begin ──▶ masks of the sequences that the step will sample ──┐  threads of their own
    the step runs                                                │
    wait  ◀── who is late sits this step out, with its mask ◀────┘
    follow ─▶ the token that was chosen, and the tokens that it forces

Late is who takes longer than the step and GRACE: a grammar that is costly to follow costs its
sender. Its last token is computed once more in the next step; nobody else's answer waits for it.
"""

from collections import deque
from collections.abc import Iterable
from collections.abc import Sequence as Items
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Condition

from octavo.errors import StepFailed
from octavo.grammar.matcher import Grammars, Matcher
from octavo.scheduler.scheduler import Chunk
from octavo.scheduler.sequence import Sequence
from octavo.types import Ints

GRACE = 0.005  # seconds; a mask takes a few hundredths of that
THREADS = 4  # most grammars that may be late at once before they delay others'


@dataclass(slots=True, eq=False)
class Held:
    """One sequence's."""

    matcher: Matcher
    keeps_eos: bool  # False: the model's end of turn is left out while anything else may follow
    mask: Ints | None = None  # of the next token
    error: str | None = None  # why there is none
    is_asked: bool = False

    @property
    def is_ready(self) -> bool:
        return self.mask is not None or self.error is not None


@dataclass(frozen=True, slots=True)
class Following:
    """What a grammar says once a token is chosen."""

    token_ids: tuple[int, ...] = ()  # must come next
    is_complete: bool = False  # and nothing can after those


NOTHING = Following()


class Constraints:
    """`forces_text` is False where masks alone are measured: the same tokens, one at a time."""

    def __init__(self, grammars: Grammars) -> None:
        self.forces_text = True
        self._grammars = grammars
        self._held: dict[str, Held] = {}
        self._threads = ThreadPoolExecutor(THREADS, "octavo-masks")
        self._jobs = deque[Held]()
        self._made = Condition()  # told of each mask; only the engine's thread waits

    def open(self, sequence: Sequence) -> None:
        params = sequence.request.params
        if (grammar := params.constraint) is not None:
            matcher = self._grammars.compile(grammar).matcher()
            self._held[sequence.id] = Held(matcher, keeps_eos=not params.ignore_eos)

    def close(self, id: str) -> None:
        self._held.pop(id, None)

    def begin(self, chunks: Iterable[Chunk]) -> None:
        """Asks for the masks that the chunks' next tokens need."""
        ends = (self._held.get(chunk.sequence.id) for chunk in chunks if chunk.samples)
        wanted = [held for held in ends if held and not held.is_ready and not held.is_asked]
        for held in wanted:
            held.is_asked = True
        self._jobs.extend(wanted)
        if self._jobs:  # one thread: a second takes another core from the step
            self._threads.submit(self._work)

    def _work(self) -> None:
        while self._jobs:
            try:
                held = self._jobs.popleft()
            except IndexError:  # the thread of another step took it
                return
            try:
                held.mask = held.matcher.mask(keeps_eos=held.keeps_eos)
            except StepFailed as error:
                held.error = str(error)
            except BaseException as error:  # also a panic of Rust: nobody may wait for it for ever
                held.error = f"no mask could be made: {type(error).__name__}: {error}"
            with self._made:
                self._made.notify()

    def wait(self, chunks: Items[Chunk]) -> dict[str, Held]:
        """Those of the chunks that sample under a grammar, by sequence; late ones are not ready."""
        ends = {chunk.sequence.id for chunk in chunks if chunk.samples}
        wanted = {id: held for id, held in self._held.items() if id in ends}
        if not wanted:
            return wanted
        with self._made:
            self._made.wait_for(lambda: all(held.is_ready for held in wanted.values()), GRACE)
            if len(wanted) == len(chunks):  # there is nothing else to go on with
                self._made.wait_for(lambda: any(held.is_ready for held in wanted.values()))
        return wanted

    def follow(self, sequence: Sequence, *token_ids: int) -> Following:
        """What follows the tokens that were chosen. Who wants logprobs has each token computed by
        itself: no tokens then. Raises StepFailed."""
        held = self._held.get(sequence.id)
        if held is None:
            return NOTHING
        held.mask, held.is_asked = None, False
        for token_id in token_ids:
            held.matcher.consume(token_id)
        forced: list[int] = []
        if self.forces_text and sequence.request.params.logprobs is None:
            forced = held.matcher.forced()
            for follower in forced:
                held.matcher.consume(follower)
        return Following(tuple(forced), held.matcher.is_complete)
