"""Byte-level byte-pair encoding, GPT-2's kind: every byte is a printable character, so no text is
unknown. Owns the merging; control tokens are not text and none of its business.
"""

from collections.abc import Iterable
from typing import Final

from tokenizers import AddedToken, models
from tokenizers import Tokenizer as Pipeline

from octavo.errors import BadCheckpoint
from octavo.loader import pretokenizers
from octavo.loader.vocabulary import TokenType, Vocabulary

# GPT-2's alphabet: printable bytes stand for themselves, the others for characters from U+0100 on.
_PRINTABLE: Final = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
_HIDDEN: Final = [byte for byte in range(0x100) if byte not in _PRINTABLE]
_BYTES_OF_CHARACTERS: Final = {0x100 + rank: byte for rank, byte in enumerate(_HIDDEN)}


class ByteLevel:
    def __init__(self, vocabulary: Vocabulary, ids: dict[str, int]) -> None:
        """`ids` holds the tokens that text may become. Raises BadCheckpoint."""
        self._vocabulary = vocabulary
        cuts = pretokenizers.named(vocabulary.pre or "default")
        merges = [_pair(merge) for merge in vocabulary.merges or ()]
        self._pipeline = Pipeline(_model(ids, merges, whole_pieces=cuts.whole_pieces))
        self._pipeline.pre_tokenizer = cuts.build()
        if (normalizer := cuts.normalizer()) is not None:
            self._pipeline.normalizer = normalizer
        self._pipeline.add_tokens(user_defined(vocabulary, ids.values()))

    def encode(self, text: str) -> list[int]:
        return self._pipeline.encode(text, add_special_tokens=False).ids

    def piece_bytes(self, piece: str) -> bytes:
        try:
            return piece.translate(_BYTES_OF_CHARACTERS).encode("latin-1")
        except UnicodeEncodeError:  # not of the alphabet: the piece is what it says
            return piece.encode()


def user_defined(vocabulary: Vocabulary, ids: Iterable[int]) -> list[AddedToken]:
    """The tokens that are found in a text before it is cut and merged."""
    tokens, types = vocabulary.tokens, vocabulary.types
    return [
        AddedToken(tokens[i], normalized=False) for i in ids if types[i] == TokenType.USER_DEFINED
    ]


def _pair(merge: str) -> tuple[str, str]:
    left, space, right = merge.partition(" ")
    if not (left and space and right):
        raise BadCheckpoint(f"tokenizer.ggml.merges: {merge!r} is not two tokens and a space")
    return left, right


def _model(ids: dict[str, int], merges: list[tuple[str, str]], *, whole_pieces: bool) -> models.BPE:
    try:
        return models.BPE(ids, merges, ignore_merges=whole_pieces)
    except Exception:  # a merge of, or to, what text may not become: it can never happen
        possible = [
            (left, right)
            for left, right in merges
            if left in ids and right in ids and left + right in ids
        ]
        return models.BPE(ids, possible, ignore_merges=whole_pieces)
