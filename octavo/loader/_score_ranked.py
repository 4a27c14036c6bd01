"""SentencePiece's byte-pair encoding: of two neighbours that join to a token, the pair whose token
scores highest joins first; what remains unknown falls back to bytes. A space is written as U+2581.

The `tokenizers` library wants the merges spelled out, and those of a large vocabulary take more
than a second (Gemma's 262,144 tokens have 513,511). But a text can only become tokens that lie
in it: the merges between those are few and quickly found. So a text brings its own small model,
until so much text has gone through that all merges at once would have been cheaper.
"""

import threading
from collections.abc import Iterable
from typing import Final

from tokenizers import AddedToken, models
from tokenizers import Tokenizer as Pipeline

from octavo.loader.vocabulary import TokenType, Vocabulary

SPACE: Final = "▁"
_BYTES: Final = [f"<0x{byte:02X}>" for byte in range(256)]
# Finding a text's tokens costs about 10 us a character, finding all merges about 1 s.
_CHARACTERS_BEFORE_ALL: Final = 100_000


class ScoreRanked:
    def __init__(self, vocabulary: Vocabulary, ids: dict[str, int]) -> None:
        """`ids` holds the tokens that text may become."""
        self._scores, self._types = vocabulary.scores or [], vocabulary.types
        spaced = [token for token in ids if " " in token]
        self._ids = ids | {token.replace(" ", SPACE): ids[token] for token in spaced}
        self._bytes = {token: ids[token] for token in _BYTES if token in ids}
        self._unknown = _unknown(vocabulary) if len(self._bytes) < 256 else None
        self._lengths = sorted({len(token) for token in self._ids})
        self._prefix = SPACE if vocabulary.add_space_prefix else ""
        self._characters, self._all, self._lock = 0, None, threading.Lock()

    _all: Pipeline | None

    def encode(self, text: str) -> list[int]:
        if not text:
            return []
        spelled = self._prefix + text.replace(" ", SPACE)
        return self._pipeline(spelled).encode(spelled, add_special_tokens=False).ids

    def piece_bytes(self, piece: str) -> bytes:
        return piece.replace(SPACE, " ").encode()

    def _pipeline(self, text: str) -> Pipeline:
        with self._lock:
            self._characters += len(text)
            if self._all is None and self._characters > _CHARACTERS_BEFORE_ALL:
                self._all = self._build(self._ids)
            return self._all or self._build(self._within(text))

    def _within(self, text: str) -> dict[str, int]:
        """The tokens that lie in `text`."""
        ids: dict[str, int] = {}
        for length in self._lengths:
            parts = {text[i : i + length] for i in range(len(text) - length + 1)}
            ids |= {part: self._ids[part] for part in parts & self._ids.keys()}
        return ids

    def _build(self, ids: dict[str, int]) -> Pipeline:
        types = self._types
        user_defined = [t for t, i in ids.items() if types[i] == TokenType.USER_DEFINED]
        unknown = self._unknown or {}
        model = models.BPE(
            {**self._bytes, **unknown, **ids},
            self._merges(ids),
            byte_fallback=True,
            fuse_unk=True,
            unk_token=next(iter(unknown), None),
        )
        pipeline = Pipeline(model)
        pipeline.add_tokens([AddedToken(token, normalized=False) for token in user_defined])
        return pipeline

    def _merges(self, ids: dict[str, int]) -> list[tuple[str, str]]:
        """Highest score first. Equal ones as in the files that Hugging Face publishes: by the ids
        of left and right. (SentencePiece takes the leftmost in the text, which a list of merges
        cannot say; it matters for overlaps like "a" "aa" "a" alone.)"""
        mergeable = (TokenType.NORMAL, TokenType.UNUSED)
        products = [i_and_t for i_and_t in ids.items() if self._types[i_and_t[1]] in mergeable]
        products.sort(key=lambda product: -self._scores[product[1]])
        merges: list[tuple[str, str]] = []
        for token, _ in products:
            merges += _halves(token, ids)
        return merges


def _halves(token: str, ids: dict[str, int]) -> Iterable[tuple[str, str]]:
    halves = [
        (token[:cut], token[cut:])
        for cut in range(1, len(token))
        if token[:cut] in ids and token[cut:] in ids
    ]
    if len(halves) > 1:
        halves.sort(key=lambda half: (ids[half[0]], ids[half[1]]))
    return halves


def _unknown(vocabulary: Vocabulary) -> dict[str, int] | None:
    i = vocabulary.unk_id
    return None if i is None else {vocabulary.tokens[i]: i}
