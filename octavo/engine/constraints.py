"""What answers are held to while they are written: a matcher each, its mask made beside the step.

    begin ──▶ masks of the sequences that the step will sample ──┐  threads of their own
    the step runs                                                │
    end   ◀── those that are there are sampled by ◀──────────────┘
    follow ─▶ the token that was chosen, and the tokens that it forces

Who has no mask when the step is over is late: it has no part in steps until the mask is there, and
then its last token is computed once more. So nobody waits for anybody else's grammar, and the same
tokens come of it.
"""

from collections import deque
from collections.abc import Collection, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from threading import Condition
from time import thread_time

from octavo.errors import StepFailed
from octavo.grammar.compiled import Full, Matcher
from octavo.grammar.matcher import Grammars
from octavo.scheduler.scheduler import Chunk
from octavo.scheduler.sequence import Sequence
from octavo.types import Ints

PATIENCE = 0.02  # seconds that nothing but masks is waited for; who comes meanwhile waits as long
HEAVY = 0.005  # seconds of a mask; most take a few hundredths of that
MOST_FORCED = 128  # tokens appended at once: each takes a tenth of a millisecond of all others'
THREADS = 4  # most masks that may turn out heavy at once before others' are late


@dataclass(slots=True, eq=False)
class Held:
    """One sequence's."""

    matcher: Matcher
    keeps_eos: bool  # False: the model's end of turn is left out while anything else may follow
    mask: Ints | None = None  # of the next token
    error: str | None = None  # why there is none
    is_asked: bool = False
    is_late: bool = False  # there was no mask when its step was over
    cost: float = 0.0  # seconds of its masks, the last ones counting most

    @property
    def is_ready(self) -> bool:
        return self.mask is not None or self.error is not None

    def make(self, *, renews: bool = False) -> bool:
        """Any thread. False where the grammar is to be compiled anew first, and `renews` is not."""
        began = thread_time()
        try:
            mask = self.matcher.mask(keeps_eos=self.keeps_eos, renews=renews)
        except Full:
            return False
        except StepFailed as error:
            self.error = str(error)
        except BaseException as error:  # also a panic of Rust: nobody may wait for it for ever
            self.error = f"no mask could be made: {type(error).__name__}: {error}"
        else:
            self.cost = (self.cost + thread_time() - began) / 2
            self.mask = mask
        return True


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
        self._jobs = deque[Held]()
        self._threads = ThreadPoolExecutor(THREADS, "octavo-masks")
        # Heavy ones wait for each other, not the others for them, and have one thread of the CPUs'.
        self._heavy = ThreadPoolExecutor(1, "octavo-heavy-masks")
        self._made = Condition()  # told of each mask; only the engine's thread waits

    @property
    def late(self) -> Collection[str]:
        """Ids of those that have no mask yet: they have no part in the next step."""
        return {id for id, held in self._held.items() if held.is_late and not held.is_ready}

    def open(self, sequence: Sequence) -> None:
        params = sequence.request.params
        if (grammar := params.constraint) is not None:
            matcher = self._grammars.compile(grammar).matcher()
            self._held[sequence.id] = Held(matcher, keeps_eos=not params.ignore_eos)

    def close(self, id: str) -> None:
        if held := self._held.pop(id, None):
            held.error = "it has ended"  # so no mask is made that nobody wants

    def begin(self, chunks: Iterable[Chunk]) -> None:
        """Asks for the masks that the chunks' next tokens need."""
        for held in self._ends(chunks).values():
            if not held.is_asked:
                held.is_asked = True
                if held.cost > HEAVY:
                    self._heavy.submit(self._make, held)
                else:
                    self._jobs.append(held)
        self._go_on()

    def end(self, chunks: Collection[Chunk]) -> dict[str, Held]:
        """The step is over: those of the chunks that sample under a grammar, by sequence, late ones
        among them. Waits only where nothing of the step can go on without a mask."""
        self._go_on()
        ends = self._ends(chunks)
        if len(ends) == len(chunks):
            self._wait_for_one(ends.values())
        for held in ends.values():
            held.is_late = not held.is_ready
        return ends

    def wait(self) -> None:
        """Where all are late: for one of their masks, a little while at a time."""
        self._wait_for_one([held for held in self._held.values() if held.is_late])

    def _ends(self, chunks: Iterable[Chunk]) -> dict[str, Held]:
        if not self._held:  # as in most steps
            return {}
        ids = (chunk.sequence.id for chunk in chunks if chunk.samples)
        return {id: self._held[id] for id in ids if id in self._held}

    def _wait_for_one(self, some: Collection[Held]) -> None:
        with self._made:
            self._made.wait_for(lambda: any(held.is_ready for held in some), PATIENCE)

    def _go_on(self) -> None:
        """One thread makes the masks of a step, a second would take another core from it; unless
        the first is held up by one that is heavy."""
        if self._jobs:
            self._threads.submit(self._work)

    def _work(self) -> None:
        while self._jobs:
            try:
                held = self._jobs.popleft()
            except IndexError:  # another thread took it
                return
            self._make(held)

    def _make(self, held: Held, *, renews: bool = False) -> None:
        if not held.is_ready and not held.make(renews=renews):
            # Compiling is heavy, and waits for others of the same grammar.
            self._heavy.submit(self._make, held, renews=True)
        with self._made:
            self._made.notify()

    def follow(self, sequence: Sequence, *token_ids: int) -> Following:
        """What follows the tokens that were chosen. Who wants logprobs has each token computed by
        itself: no tokens then. Raises StepFailed."""
        held = self._held.get(sequence.id)
        if held is None:
            return NOTHING
        held.mask, held.is_asked, held.is_late = None, False, False
        for token_id in token_ids:
            held.matcher.consume(token_id)
        forced: list[int] = []
        if self.forces_text and sequence.request.params.logprobs is None:
            forced = held.matcher.forced()[:MOST_FORCED]
            for follower in forced:
                held.matcher.consume(follower)
        return Following(tuple(forced), held.matcher.is_complete)
