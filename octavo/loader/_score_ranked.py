"""SentencePiece's byte-pair encoding: of two neighbours that join to a token, the pair whose token
scores highest joins first; what remains unknown falls back to bytes. A space is written as U+2581.

The `tokenizers` library wants every merge spelled out beforehand. For Gemma's 262,144 tokens that
is 513,511 merges, more than a second and 130 MB. But a text can only become tokens that lie in it,
so a text brings its own small model, of those tokens and the merges between them.
"""

import re
from collections.abc import Iterable
from typing import Final

from tokenizers import AddedToken, models
from tokenizers import Tokenizer as Pipeline

from octavo.loader.vocabulary import TokenType, Vocabulary

SPACE: Final = "▁"
_WORD: Final = re.compile(f"{SPACE}*[^{SPACE}]+|{SPACE}+")
_JOINS_WORDS: Final = re.compile(f"[^{SPACE}]{SPACE}")
_OPENING: Final = 3  # characters by which tokens are told apart that may begin at a place
_BYTES: Final = [f"<0x{byte:02X}>" for byte in range(256)]
_MERGED: Final = (TokenType.NORMAL.value, TokenType.UNUSED.value)


class ScoreRanked:
    def __init__(self, vocabulary: Vocabulary, ids: dict[str, int]) -> None:
        """`ids` holds the tokens that text may become."""
        self._scores, self._types = vocabulary.scores or [], vocabulary.types
        spaced = [token for token in ids if " " in token]
        self._ids = ids | {token.replace(" ", SPACE): ids[token] for token in spaced}
        longer = sorted((token for token in self._ids if len(token) > _OPENING), key=len)
        self._reach = {token[:_OPENING]: len(token) for token in longer}  # the longest comes last
        inner = [token for token in self._ids if token.find(SPACE, 1) > 0]
        self._joining = [token for token in inner if _JOINS_WORDS.search(token)]
        self._always = {token: ids[token] for token in _BYTES if token in ids}
        self._unknown: str | None = None
        if len(self._always) < 256 and vocabulary.unk_id is not None:
            self._unknown = vocabulary.tokens[vocabulary.unk_id]
            self._always[self._unknown] = vocabulary.unk_id
        self._prefix = SPACE if vocabulary.add_space_prefix else ""

    def encode(self, text: str) -> list[int]:
        return self.encode_within(self._prefix + text) if text else []

    def encode_within(self, text: str) -> list[int]:
        """Text that continues another: no space is put before it."""
        spelled = text.replace(" ", SPACE)
        pipeline = self._pipeline(self._within(spelled))
        # As a batch of one, so that other threads may run meanwhile.
        (encoded,) = pipeline.encode_batch_fast([spelled], add_special_tokens=False)
        return encoded.ids

    def piece_bytes(self, piece: str) -> bytes:
        return piece.replace(SPACE, " ").encode()

    def _within(self, text: str) -> dict[str, int]:
        """The tokens that lie in `text`. To look everywhere for all lengths takes 15 microseconds a
        character where no word comes twice, and only as far as some token reaches, 3."""
        known, reach = self._ids, self._reach.get
        found: dict[str, int] = {}
        for word in set(_WORD.findall(text)):
            for start in range(len(word)):
                farthest = start + reach(word[start : start + _OPENING], _OPENING)
                for end in range(start + 1, min(farthest, len(word)) + 1):
                    if (part := word[start:end]) in known:
                        found[part] = known[part]
        return found | {token: known[token] for token in self._joining if token in text}

    def _pipeline(self, ids: dict[str, int]) -> Pipeline:
        model = models.BPE(
            self._always | ids,
            self._merges(ids),
            byte_fallback=True,
            fuse_unk=True,
            unk_token=self._unknown,
        )
        pipeline = Pipeline(model)
        types = self._types
        before = [token for token, i in ids.items() if types[i] == TokenType.USER_DEFINED]
        pipeline.add_tokens([AddedToken(token, normalized=False) for token in before])
        return pipeline

    def _merges(self, ids: dict[str, int]) -> list[tuple[str, str]]:
        """Highest score first; of one token's several, by the ids of left and right. (SentencePiece
        takes the leftmost in the text, which a list of merges cannot say. Only where the halves of
        one token overlap, as in "a" "aa" "a", might that differ.)"""
        merged = [token for token, i in ids.items() if self._types[i] in _MERGED]
        merged.sort(key=lambda token: -self._scores[ids[token]])
        return [halves for token in merged for halves in _halves(token, ids)]


def _halves(token: str, ids: dict[str, int]) -> Iterable[tuple[str, str]]:
    cuts = ((token[:cut], token[cut:]) for cut in range(1, len(token)))
    halves = [half for half in cuts if half[0] in ids and half[1] in ids]
    return sorted(halves, key=lambda half: (ids[half[0]], ids[half[1]]))
