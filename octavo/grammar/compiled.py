"""A grammar that is compiled, and the answers that follow it: which token may come next, and which
must.

Owns what is said of a grammar that cannot be followed. Knows neither notations nor what is kept.
"""

import numpy as np
from llguidance import LLMatcher, LLTokenizer

from octavo.errors import StepFailed
from octavo.grammar.fronts._checked import sentence
from octavo.types import Ints

NO_ANSWER = "no answer fits it: see what it requires that never ends, or that nothing can be"
# Of what llguidance says of its limits, and what to do about it.
TOO_MUCH = {
    "too many items": "too much may follow at one place, or a text without end must: where it "
    "leads to itself let that be left out, else ask for less that is fixed or alike",
    "current row has": "too much may follow at one place: give fewer alternatives",
    "too many expressions": "its texts and patterns are too long together: shorten them",
    "too many states": "its texts and patterns are too long together: shorten them",
    "symbols.len()": "it has too many rules: give fewer",
}
PROBED = 512  # tokens that must come, after which it is seen whether an answer can go on
WORD = 32  # tokens of a word of a mask


class Compiled:
    """A grammar, ready to be followed by any number of answers."""

    def __init__(self, prototype: LLMatcher, vocabulary: LLTokenizer) -> None:
        self._prototype = prototype
        self._ends = np.zeros(-(-vocabulary.vocab_size // WORD), np.uint32)
        for token_id in vocabulary.eos_tokens:
            self._ends[token_id // WORD] |= np.uint32(1 << token_id % WORD)

    def matcher(self) -> "Matcher":
        """At the beginning of an answer."""
        return Matcher(self._prototype.deep_copy(), self._ends)

    def problem(self) -> str | None:
        """Why no answer can be begun, in one sentence."""
        matcher, num_left = self.matcher(), PROBED
        try:
            while num_left > 0 and (forced := matcher.forced()[:num_left]):
                for token_id in forced:
                    matcher.consume(token_id)
                num_left -= len(forced)
            return None if matcher.mask().any() else NO_ANSWER
        except StepFailed as error:
            return str(error)


class Matcher:
    """Follows one answer, token by token. One thread at a time."""

    def __init__(self, matcher: LLMatcher, ends: Ints) -> None:
        """`ends` is the mask of the tokens that end a turn."""
        self._matcher, self._ends = matcher, ends
        self._mask = np.zeros_like(ends)

    def mask(self, *, keeps_eos: bool = True) -> Ints:
        """uint32 [words]: bit i % 32 of word i // 32 is set where token i may come next; without
        `keeps_eos` those that end a turn are not, unless nothing else may come. The same array each
        time. Raises StepFailed where that costs more than it may."""
        self._matcher.unsafe_compute_mask_ptr(self._mask.ctypes.data, self._mask.nbytes)
        self._check()
        if not keeps_eos and (rest := self._mask & ~self._ends).any():
            self._mask[:] = rest
        return self._mask

    def consume(self, token_id: int) -> None:
        """`token_id` is one of those allowed. Raises StepFailed."""
        self._matcher.consume_token(token_id)
        self._check()

    def forced(self) -> list[int]:
        """The tokens of the text that must come next, or of its first kB, as far as it is sure how
        they are cut: the last may be one with what follows. Not consumed."""
        return [] if self.is_complete else self._matcher.compute_ff_tokens()

    @property
    def is_complete(self) -> bool:
        """Nothing can follow."""
        return self._matcher.is_stopped()

    @property
    def may_end(self) -> bool:
        """What was consumed is a whole answer."""
        return self._matcher.is_accepting()

    def _check(self) -> None:
        if self._matcher.is_error():
            cause = sentence(self._matcher.get_error())
            if "NoExtension" in cause:
                raise StepFailed(NO_ANSWER)
            told = next((TOO_MUCH[said] for said in TOO_MUCH if said in cause.lower()), cause)
            raise StepFailed(f"the grammar cannot be followed within its limits: {told}")
