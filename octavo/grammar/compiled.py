"""A grammar that is compiled, and the answers that follow it: which token may come next, and which
must.

Owns what is said of a grammar that cannot be followed. Knows neither notations nor what is kept.
"""

from threading import Lock

import numpy as np
from llguidance import LLMatcher, LLTokenizer

from octavo.errors import StepFailed
from octavo.grammar.fronts._checked import compiled, sentence
from octavo.types import Ints

NOT_FOLLOWED = "the grammar cannot be followed within its limits"
NO_ANSWER = "no answer fits it: see what it requires that never ends, or that nothing can be"
TOO_LONG = "its texts and patterns are too long together: shorten them"
# Of what llguidance says of its limits, and what to do about it.
TOO_MUCH = {
    "too many items": "too much may follow at one place, or a text without end must: where it "
    "leads to itself let that be left out, else ask for less that is fixed or alike",
    "current row has": "too much may follow at one place: give fewer alternatives",
    "too many expressions": TOO_LONG,
    "too many states": TOO_LONG,
    "fuel exhausted": TOO_LONG,
    "symbols.len()": "it has too many rules: give fewer",
}
PROBED = 512  # tokens that must come, after which it is seen whether an answer can go on
REPLAYED = 256  # tokens in a row, a millisecond in which no other thread runs
WORD = 32  # tokens of a word of a mask


class Full(Exception):
    """A mask lacks tokens, and its matcher is to be renewed."""


class Compiled:
    """A grammar, ready to be followed by any number of answers. Threads may share one."""

    def __init__(self, grammar: str, vocabulary: LLTokenizer) -> None:
        """`grammar` was checked (fronts/_checked.py)."""
        self._grammar, self._vocabulary = grammar, vocabulary
        self._prototype = compiled(grammar, vocabulary)
        self._renewing = Lock()
        self._ends = np.zeros(-(-vocabulary.vocab_size // WORD), np.uint32)
        for token_id in vocabulary.eos_tokens:
            self._ends[token_id // WORD] |= np.uint32(1 << token_id % WORD)
        mask = _fill(np.zeros_like(self._ends), self._prototype.deep_copy())
        self._first = _tokens(mask & ~self._ends)[:1]  # that may come

    def matcher(self, *, is_first: bool = False) -> "Matcher":
        """At the beginning of an answer."""
        return Matcher(self, self._prototype, self._ends, is_first=is_first)

    def is_full(self, prototype: LLMatcher) -> bool:
        """One of its answers has met a limit of the lexer. That is the prototype's, and keeps the
        states that answers come to: then nothing may come for it, which llguidance does not always
        tell."""
        return prototype.validate_tokens(self._first) < len(self._first)

    def renewed(self, full: LLMatcher, *, is_shared: bool) -> LLMatcher:
        """A prototype for an answer whose own is full: shared again, or else for this answer alone,
        whatever others do."""
        if not is_shared:
            return compiled(self._grammar, self._vocabulary)
        with self._renewing:
            if self._prototype is full:
                self._prototype = compiled(self._grammar, self._vocabulary)
            return self._prototype

    def problem(self) -> str | None:
        """Why no answer can be begun, in one sentence."""
        matcher, num_left = self.matcher(is_first=True), PROBED
        try:
            while num_left > 0 and (forced := matcher.forced() or matcher.only()):
                for token_id in forced[:num_left]:
                    matcher.consume(token_id)
                num_left -= len(forced)
            return None if matcher.mask().any() else NO_ANSWER
        except StepFailed as error:
            return str(error)


class Matcher:
    """Follows one answer, token by token. One thread at a time."""

    def __init__(
        self, grammar: Compiled, prototype: LLMatcher, ends: Ints, *, is_first: bool
    ) -> None:
        """`ends` is the mask of the tokens that end a turn. Before the first no answer has used the
        prototype."""
        self._grammar, self._prototype, self._ends = grammar, prototype, ends
        self._matcher = prototype.deep_copy()
        self._consumed: list[int] = []
        # Of the prototype: that it is this answer's alone, and up to which token it is new.
        self._is_apart, self._lasts_until = is_first, PROBED if is_first else 0
        self._mask = np.zeros_like(ends)
        self.renews = True  # False: a mask for which the grammar is to be compiled raises Full

    def mask(self, *, keeps_eos: bool = True) -> Ints:
        """uint32 [words]: bit i % 32 of word i // 32 is set where token i may come next; without
        `keeps_eos` those that end a turn are not, unless nothing else may come. The same array each
        time. Raises StepFailed where that costs more than it may."""
        _fill(self._mask, self._matcher)
        while self._is_full:
            if not self.renews:
                raise Full
            self.renew()
            _fill(self._mask, self._matcher)
        self._check()
        if not keeps_eos and (rest := self._mask & ~self._ends).any():
            self._mask[:] = rest
        return self._mask

    def consume(self, token_id: int) -> None:
        """`token_id` is one of those allowed. Raises StepFailed."""
        self._consumed.append(token_id)
        self._matcher.consume_token(token_id)
        if self._matcher.is_error() and not self._is_full:
            self._check()

    def forced(self) -> list[int]:
        """The tokens of the text that must come next, or of its first kB, as far as it is sure how
        they are cut: the last may be one with what follows. Not consumed."""
        if self._matcher.is_stopped():
            return []
        forced = self._matcher.compute_ff_tokens()
        return [] if self._is_full else forced

    def only(self) -> list[int]:
        """The one token that may come next and ends no turn, where it is one. Raises StepFailed."""
        allowed = _tokens(self.mask(keeps_eos=False))
        return allowed if len(allowed) == 1 and not _tokens(self._mask & self._ends) else []

    @property
    def is_complete(self) -> bool:
        """Nothing can follow."""
        return self._matcher.is_stopped() and not self._matcher.is_error()

    @property
    def may_end(self) -> bool:
        """What was consumed is a whole answer."""
        return self._matcher.is_accepting()

    @property
    def _is_full(self) -> bool:
        """The next mask sees to it, which takes as long as compiling does."""
        return self._grammar.is_full(self._prototype)

    def renew(self) -> None:
        """Takes as long as compiling does. Raises StepFailed where what is this answer's alone was
        soon full again."""
        is_soon = len(self._consumed) < self._lasts_until
        if is_soon and self._is_apart:
            raise StepFailed(f"{NOT_FOLLOWED}: {TOO_LONG}")
        self._is_apart, self._lasts_until = is_soon, len(self._consumed) + REPLAYED
        self._prototype = self._grammar.renewed(self._prototype, is_shared=not is_soon)
        self._matcher = self._prototype.deep_copy()
        for at in range(0, len(self._consumed), REPLAYED):
            self._matcher.consume_tokens(self._consumed[at : at + REPLAYED])

    def _check(self) -> None:
        if self._matcher.is_error():
            cause = sentence(self._matcher.get_error())
            if "NoExtension" in cause:
                raise StepFailed(NO_ANSWER)
            told = next((TOO_MUCH[said] for said in TOO_MUCH if said in cause.lower()), cause)
            raise StepFailed(f"{NOT_FOLLOWED}: {told}")


def _fill(mask: Ints, matcher: LLMatcher) -> Ints:
    matcher.unsafe_compute_mask_ptr(mask.ctypes.data, mask.nbytes)
    return mask


def _tokens(mask: Ints) -> list[int]:
    ids: list[int] = np.unpackbits(mask.view(np.uint8), bitorder="little").nonzero()[0].tolist()
    return ids
