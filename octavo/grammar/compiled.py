"""A grammar that is compiled, and the answers that follow it: which token may come next, and which
must.

Owns what is said of a grammar that cannot be followed, and that one which its answers have filled
is compiled anew. Knows neither notations nor which grammars are kept.

    Compiled ──┬─ prototype ──copies──▶ Matcher, Matcher, ...     one lexer, whose states they share
               └─ the next, once a limit of that lexer is met     each then moves to it, and replays
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
A_MASK = 8  # of them that a mask counts as: where nothing is forced each of them takes one
REPLAYED = 256  # tokens in a row, a millisecond in which no other thread runs
SOON = 256  # tokens: what an answer fills anew within so many it fills by itself
WORD = 32  # tokens of a word of a mask


class Full(Exception):
    """The mask lacks tokens: answers have filled the grammar."""


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
        """One of its answers has met a limit of the lexer, which all of them share with the states
        that they came to. llguidance does not always tell; but then no token may begin an answer,
        not even the one that may."""
        return prototype.validate_tokens(self._first) < len(self._first)

    def renewed(self, full: LLMatcher, *, is_shared: bool) -> LLMatcher:
        """A prototype in place of one that is full. Shared, it is the same for all who had that
        one; else it is for one answer alone, whatever others do."""
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
            while num_left > 0 and (following := matcher.forced() or matcher.only()):
                for token_id in following[:num_left]:
                    matcher.consume(token_id)
                num_left -= max(len(following), A_MASK)
            return None if matcher.mask().any() else NO_ANSWER
        except StepFailed as error:
            return str(error)


class Matcher:
    """Follows one answer, token by token. One thread at a time."""

    def __init__(
        self, grammar: Compiled, prototype: LLMatcher, ends: Ints, *, is_first: bool
    ) -> None:
        """`ends` is the mask of the tokens that end a turn. The first is all that has used the
        prototype so far."""
        self._grammar, self._prototype, self._ends = grammar, prototype, ends
        self._matcher = prototype.deep_copy()
        self._consumed: list[int] = []
        # Whether the prototype is this answer's alone, and before which token it is soon full.
        self._is_apart, self._soon_until = is_first, PROBED if is_first else 0
        self._mask = np.zeros_like(ends)

    def mask(self, *, keeps_eos: bool = True, renews: bool = True) -> Ints:
        """uint32 [words]: bit i % 32 of word i // 32 is set where token i may come next; without
        `keeps_eos` those that end a turn are not, unless nothing else may come. The same array each
        time. Raises StepFailed where that costs more than it may, and Full where the grammar is to
        be compiled anew first, unless that `renews` it."""
        _fill(self._mask, self._matcher)
        while self._is_full:
            if not renews:
                raise Full
            self._begin_anew()
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
        """The only token that may come next, where there is one and it ends no turn: none, or one.
        Raises StepFailed."""
        allowed = int.from_bytes(self.mask(keeps_eos=False).tobytes(), "little")
        is_one = allowed.bit_count() == 1 and not (self._mask & self._ends).any()
        return [allowed.bit_length() - 1] if is_one else []

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
        """Then nothing that the matcher says counts, until a mask begins anew."""
        return self._grammar.is_full(self._prototype)

    def _begin_anew(self) -> None:
        """With the prototype that others have, or, where that was soon full again, with one of its
        own. Raises StepFailed where its own was."""
        is_soon = len(self._consumed) < self._soon_until
        if is_soon and self._is_apart:
            raise StepFailed(f"{NOT_FOLLOWED}: {TOO_LONG}")
        self._is_apart, self._soon_until = is_soon, len(self._consumed) + SOON
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
