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
        cuts = pretokenizers.named(vocabulary.pre or "default")
        merges = _merges(vocabulary, ids)
        self._pipeline = Pipeline(models.BPE(ids, merges, ignore_merges=cuts.whole_pieces))
        self._pipeline.pre_tokenizer = cuts.build()
        if (normalizer := cuts.normalizer()) is not None:
            self._pipeline.normalizer = normalizer
        self._pipeline.add_tokens(user_defined(vocabulary, ids.values()))

    def encode(self, text: str) -> list[int]:
        # As a batch of one, so that other threads may run meanwhile.
        (encoded,) = self._pipeline.encode_batch_fast([text], add_special_tokens=False)
        return encoded.ids

    def encode_within(self, text: str) -> list[int]:
        return self.encode(text)

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


def _merges(vocabulary: Vocabulary, ids: dict[str, int]) -> list[tuple[str, str]]:
    """Without those of, or to, what text may not become: they can never happen."""
    merges = []
    for merge in vocabulary.merges or ():
        left, space, right = merge.partition(" ")
        if left + right in ids and left in ids and right in ids:
            merges.append((left, right))
        elif not space:
            raise BadCheckpoint(f"tokenizer.ggml.merges: {merge!r} is not two tokens and a space")
    return merges
