"""Grammars over a model's tokens: which token may come next, and which must.

    Grammar ──fronts/──▶ llguidance's form ──compile──▶ Compiled ──matcher──▶ Matcher, one an answer

Owns the model's vocabulary as llguidance has it and the grammars that are kept compiled. Knows no
sequence and no logits. Compiling lets other threads run, and is bounded (fronts/_checked.py); how
many compile at once is bounded here.
"""

from collections import OrderedDict
from dataclasses import dataclass
from functools import lru_cache
from sys import getsizeof
from threading import BoundedSemaphore, Lock
from types import ModuleType
from weakref import WeakValueDictionary

from llguidance import LLTokenizer, TokenizerWrapper

from octavo.errors import BadRequest
from octavo.grammar.compiled import Compiled
from octavo.loader.tokenizer import Tokenizer
from octavo.registry import entry
from octavo.types import Grammar

MOST_CHARACTERS = 1 << 20  # of a grammar's text
KEPT = 32  # grammars, compiled, beyond those in use
KEPT_BYTES = 192 << 20  # of those, as estimated: no compiled one was found that takes more than
A_GRAMMAR, A_CHARACTER = 4 << 20, 100  # bytes, of any, and more for each character of its text;
# to which its answers add up to 20 MB of the states they come to, as few do.
# Where any text may come, llguidance has beforehand which tokens are within: of four such sets two
# do as well, in two thirds of the time and memory.
SLICES = [r'[^"\\\x00-\x1F\x7F]{1,10}', r'[^"\\\x00-\x1F\x7F]+']
SHORT = 128  # bytes of a text whose tokens are remembered
FORESIGHT = 1024  # bytes of a text that must come whose tokens are looked up at once


class Grammars:
    """Threads may share one."""

    def __init__(self, tokenizer: Tokenizer, vocab_size: int) -> None:
        """`vocab_size` counts logits; ids beyond the tokenizer's are never allowed."""
        self._tokenizer, self._size = tokenizer, vocab_size
        self._vocabulary: LLTokenizer | None = None
        self._lock = Lock()  # of what follows
        self._recent = OrderedDict[Grammar, Compiled | _Refusal]()
        self._num_bytes = 0  # of the recent ones
        self._in_use = WeakValueDictionary[Grammar, Compiled]()
        self._compiling = BoundedSemaphore(1)  # of the CPUs, the engine needs the others

    def prepare(self) -> None:
        """Hands the vocabulary to llguidance, which for 262,144 tokens takes 2 s, twice keeps all
        other threads waiting for less than half of it, and 120 MB. The first `compile` does it
        otherwise."""
        with self._compiling:
            self._prepared()

    def _prepared(self) -> LLTokenizer:
        if self._vocabulary is None:
            ends = sorted(self._tokenizer.eos_ids) or [self._size]  # llguidance wants one
            size = max(self._size, ends[-1] + 1)
            asked = TokenizerWrapper(_Vocabulary(self._tokenizer, size, ends))
            whole = LLTokenizer(asked, n_vocab=size, eos_token=ends, slices=[])
            self._vocabulary = whole.with_slices(SLICES)
        return self._vocabulary

    def compile(self, grammar: Grammar) -> "Compiled":
        """Any thread; the same grammar is compiled once while it is kept, or in use. Raises
        BadRequest, remembered likewise."""
        if len(grammar.text) > MOST_CHARACTERS:
            problem = f"{len(grammar.text)} characters are more than {MOST_CHARACTERS}"
            raise BadRequest(problem, _front(grammar).FIELD)
        if (known := self.known(grammar)) is not None:
            return known
        with self._compiling:
            made = self._known(grammar) or self._keep(grammar, self._compiled(grammar))
        return _unless_refused(made)

    def known(self, grammar: Grammar) -> "Compiled | None":
        """As `compile`, but what is not kept is not compiled: it never waits for another's."""
        found = self._known(grammar)
        return None if found is None else _unless_refused(found)

    def _known(self, grammar: Grammar) -> "Compiled | _Refusal | None":
        with self._lock:
            if grammar in self._recent:
                self._recent.move_to_end(grammar)
                return self._recent[grammar]
            return self._in_use.get(grammar)

    def _keep(self, grammar: Grammar, made: "Compiled | _Refusal") -> "Compiled | _Refusal":
        with self._lock:
            self._recent[grammar] = made
            self._num_bytes += _num_bytes(grammar, made)
            if isinstance(made, Compiled):
                self._in_use[grammar] = made
            while len(self._recent) > KEPT or self._num_bytes > KEPT_BYTES:
                self._num_bytes -= _num_bytes(*self._recent.popitem(last=False))
        return made

    def _compiled(self, grammar: Grammar) -> "Compiled | _Refusal":
        front = _front(grammar)
        try:
            grammar.text.encode()
            text = front.read(grammar.text)
        except BadRequest as error:
            return _Refusal(error.problem, error.field)
        except UnicodeEncodeError:
            return _Refusal("half of a surrogate pair is no character, leave it out", front.FIELD)
        made = Compiled(text, self._prepared())
        if (problem := made.problem()) is not None:
            return _Refusal(problem, front.FIELD)
        return made


def _num_bytes(grammar: Grammar, made: "Compiled | _Refusal") -> int:
    """An estimate: llguidance tells no sizes."""
    if isinstance(made, _Refusal):
        return getsizeof(grammar.text) + getsizeof(made.problem)
    return getsizeof(grammar.text) + A_GRAMMAR + A_CHARACTER * len(grammar.text)


@dataclass(frozen=True, slots=True)
class _Refusal:
    """What is left of a BadRequest, which would keep alive what it was raised over."""

    problem: str
    field: str | None


def _unless_refused(made: "Compiled | _Refusal") -> "Compiled":
    if isinstance(made, _Refusal):
        raise BadRequest(made.problem, made.field)
    return made


def _front(grammar: Grammar) -> ModuleType:
    return entry("octavo.grammar.fronts", grammar.kind)


class _Vocabulary:
    """What llguidance asks of a tokenizer."""

    def __init__(self, tokenizer: Tokenizer, size: int, ends: list[int]) -> None:
        known = range(min(size, tokenizer.vocab_size))
        self._tokenizer = tokenizer
        self.tokens = [tokenizer.token_bytes(i, special=True) for i in known]
        self.tokens += [b""] * (size - len(known))
        self.special_token_ids = sorted(i for i in tokenizer.control_ids if i < size)
        self.special_token_ids += [i for i in ends if i >= len(known)]
        self.eos_token_id, self.bos_token_id = ends[0], tokenizer.bos_id
        control = set(self.special_token_ids)
        self._by_bytes = {token: i for i, token in enumerate(self.tokens) if i not in control}
        self._longest = max(map(len, self._by_bytes))
        self._foresight = max(FORESIGHT, 4 * self._longest)
        self._short_ids = lru_cache(4096)(self._encoded)  # keys come again with every object

    def __call__(self, text: str | bytes) -> list[int]:
        """Asked at each token of text that must come, of all that is left of it: of a long one the
        first tokens are told, those that what is left out has no part in."""
        spelled = text if isinstance(text, bytes) else text.encode()
        if len(spelled) > self._foresight:
            return self._first(spelled)
        return list((self._short_ids if len(spelled) <= SHORT else self._encoded)(spelled))

    def _first(self, spelled: bytes) -> list[int]:
        seen = spelled[: self._foresight].decode(errors="ignore").encode()
        ids, num_unsure = list(self._encoded(seen)), self._longest
        while num_unsure > 0:
            num_unsure -= len(self.tokens[ids.pop()])
        return ids

    def _encoded(self, spelled: bytes) -> tuple[int, ...]:
        """Some vocabularies change a text as they cut it, or leave out bytes they cannot spell."""
        ids = self._tokenizer.encode_within(spelled.decode())
        same = b"".join(self.tokens[i] for i in ids) == spelled
        return tuple(ids if same else self._longest_first(spelled))

    def _longest_first(self, spelled: bytes) -> list[int]:
        """As far as there are tokens for it."""
        ids: list[int] = []
        while spelled:
            cuts = (spelled[:size] for size in range(self._longest, 0, -1))
            token_id = next((self._by_bytes[cut] for cut in cuts if cut in self._by_bytes), None)
            if token_id is None:
                break
            ids.append(token_id)
            spelled = spelled[len(self.tokens[token_id]) :]
        return ids
