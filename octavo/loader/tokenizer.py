"""Text to token ids and back, as a checkpoint's vocabulary says.

Owns which text becomes a control token: never text that somebody merely wrote. `encode` takes
control tokens for plain text unless asked, and a rendered chat carries those of its template only
(template.py hides the others). How plain text is merged is _byte_level.py's or _score_ranked.py's.
"""

import codecs
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from octavo.errors import BadCheckpoint, BadRequest
from octavo.loader._byte_level import ByteLevel
from octavo.loader._score_ranked import ScoreRanked
from octavo.loader.template import ChatTemplate, check_text
from octavo.loader.vocabulary import TokenType, Vocabulary
from octavo.types import Json, Message

_CONTROL: Final = (TokenType.CONTROL.value, TokenType.UNKNOWN.value)  # plain ints: a fast `in`


class Tokenizer:
    """Threads may share one."""

    def __init__(self, vocabulary: Vocabulary, chat_template: str | None = None) -> None:
        """Raises BadCheckpoint, also for a pre-tokenizer that Octavo does not know."""
        self._tokens, self._types = vocabulary.tokens, vocabulary.types
        ids = _ids_of_text(vocabulary)
        kind = ByteLevel if vocabulary.kind == "bpe" else ScoreRanked
        self._text = kind(vocabulary, ids)
        self._control = _ControlTokens(vocabulary)
        self._template = ChatTemplate(
            chat_template, self._control.ids, _special_variables(vocabulary)
        )
        self.chat_template = chat_template
        self._add_eos, self._eos_id = vocabulary.add_eos, vocabulary.eos_id
        self._drop_space = vocabulary.add_space_prefix and vocabulary.kind == "spm"
        self.vocab_size = len(vocabulary.tokens)
        self.bos_id = vocabulary.bos_id
        self.add_bos = vocabulary.add_bos and vocabulary.bos_id is not None
        self.control_ids = frozenset(self._control.ids.values())
        ends = {vocabulary.eos_id, *vocabulary.eot_ids} - {None}
        self.eos_ids = frozenset(i for i in ends if i is not None)

    @property
    def has_chat_template(self) -> bool:
        return self.chat_template is not None

    @property
    def control_tokens(self) -> Mapping[str, int]:
        """Their ids, by how they are spelled."""
        return self._control.ids

    @property
    def template_variables(self) -> frozenset[str]:
        """The names that the chat template looks up. Raises BadCheckpoint for one that is none."""
        return self._template.variables if self.has_chat_template else frozenset()

    def encode(self, text: str, special: bool = False) -> list[int]:  # noqa: FBT001, FBT002
        """No BOS is added. Control tokens are recognised only where `special`. What a vocabulary
        cannot spell (some lack a few bytes) is left out, as the model's own tokenizer does.
        Raises BadRequest for a lone surrogate."""
        check_text(text, "text")
        return self._encode_pieces(self._control.split(text)) if special else self._encode(text)

    def encode_within(self, text: str) -> list[int]:
        """Text that continues another: no space is put before it."""
        return self._text.encode_within(text)

    def decode(self, ids: Iterable[int], special: bool = False) -> str:  # noqa: FBT001, FBT002
        """Control tokens are shown only where `special`; bytes that are no UTF-8 become U+FFFD."""
        text = b"".join(self.token_bytes(i, special=special) for i in ids).decode(errors="replace")
        return text.removeprefix(" ") if self._drop_space else text

    def token_bytes(self, token_id: int, *, special: bool = False) -> bytes:
        """What one token adds to a text; a control token adds nothing unless `special`."""
        if not 0 <= token_id < self.vocab_size:
            raise BadRequest(f"{token_id} is not in [0, {self.vocab_size})", "token id")
        token, kind = self._tokens[token_id], self._types[token_id]
        if kind in _CONTROL:
            return token.encode() if special else b""
        if kind == TokenType.BYTE:
            return bytes([_byte(token)])
        if kind == TokenType.USER_DEFINED:
            return token.encode()
        return self._text.piece_bytes(token)

    def prompt_ids(self, text: str) -> list[int]:
        """A raw prompt: control tokens are its writer's to use; BOS and EOS as the file says."""
        check_text(text, "prompt")
        ids = self._with_bos(self._encode_pieces(self._control.split(text)))
        if self._add_eos and self._eos_id is not None and ids[-1:] != [self._eos_id]:
            ids.append(self._eos_id)
        return ids

    def render(
        self,
        messages: Sequence[Message | Mapping[str, Any]],
        tools: Sequence[Json] | None = None,
        add_generation_prompt: bool = True,  # noqa: FBT001, FBT002
        **extra: Any,
    ) -> str:
        """The chat as the model's template writes it. Raises BadRequest."""
        return self._template.render(messages, tools, add_generation_prompt, extra)

    def chat_ids(
        self,
        messages: Sequence[Message | Mapping[str, Any]],
        tools: Sequence[Json] | None = None,
        add_generation_prompt: bool = True,  # noqa: FBT001, FBT002
        **extra: Any,
    ) -> list[int]:
        """A rendered chat: control tokens are the template's, never a message's. BOS once, as the
        file says or the template writes. Raises BadRequest."""
        hidden = self._template.render_hidden(messages, tools, add_generation_prompt, extra)
        pieces = self._control.split(hidden)
        return self._with_bos(
            self._encode_pieces(
                piece if isinstance(piece, int) else self._template.reveal(piece)
                for piece in pieces
            )
        )

    def _with_bos(self, ids: list[int]) -> list[int]:
        if self.bos_id is None or not self.add_bos or ids[:1] == [self.bos_id]:
            return ids
        return [self.bos_id, *ids]

    def _encode_pieces(self, pieces: Iterable[str | int]) -> list[int]:
        ids: list[int] = []
        for piece in pieces:
            ids += [piece] if isinstance(piece, int) else self._encode(piece)
        return ids

    def _encode(self, text: str) -> list[int]:
        return self._text.encode(text)


class _ControlTokens:
    """Finds control tokens as they are spelled: leftmost first, of those the longest."""

    def __init__(self, vocabulary: Vocabulary) -> None:
        types, tokens = vocabulary.types, vocabulary.tokens
        self.ids = {tokens[i]: i for i, kind in enumerate(types) if kind in _CONTROL and tokens[i]}
        self._lengths = sorted({len(token) for token in self.ids}, reverse=True)
        first = "".join(sorted({re.escape(token[0]) for token in self.ids}))
        self._openings = re.compile(f"[{first}]" if first else "(?!)")

    def split(self, text: str) -> list[str | int]:
        """Text and control tokens in turn; no text is empty."""
        pieces: list[str | int] = []
        end = 0
        for opening in self._openings.finditer(text):
            at = opening.start()
            if at >= end and (token := self._at(text, at)) is not None:
                pieces += [text[end:at], self.ids[token]]
                end = at + len(token)
        return [piece for piece in [*pieces, text[end:]] if piece != ""]

    def _at(self, text: str, at: int) -> str | None:
        for length in self._lengths:
            if (token := text[at : at + length]) in self.ids:
                return token
        return None


def _ids_of_text(vocabulary: Vocabulary) -> dict[str, int]:
    """The tokens that plain text may become."""
    tokens, types = vocabulary.tokens, vocabulary.types
    pairs = enumerate(zip(tokens, types, strict=True))
    ids = {token: i for i, (token, kind) in pairs if kind not in _CONTROL and token}
    if len(ids) + sum(map(types.count, _CONTROL)) < len(tokens):
        _refuse_duplicates(tokens, ids)
    return ids


def _refuse_duplicates(tokens: list[str], ids: dict[str, int]) -> None:
    for i, token in enumerate(tokens):
        if ids.get(token, i) > i:
            raise BadCheckpoint(f"tokens {i} and {ids[token]} are both {token!r}")


def _special_variables(vocabulary: Vocabulary) -> dict[str, str]:
    ids = {
        "bos_token": vocabulary.bos_id,
        "eos_token": vocabulary.eos_id,
        "unk_token": vocabulary.unk_id,
        "pad_token": vocabulary.pad_id,
    }
    return {name: vocabulary.tokens[i] for name, i in ids.items() if i is not None}


def _byte(token: str) -> int:
    """The byte that "<0x0A>" stands for."""
    try:
        return codecs.decode(token.removeprefix("<0x").removesuffix(">"), "hex")[0]
    except (ValueError, IndexError):
        raise BadCheckpoint(f"token {token!r} is of type byte, but not as <0x0A>") from None
