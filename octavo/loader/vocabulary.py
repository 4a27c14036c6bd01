"""A tokenizer's data, as a checkpoint keeps it. Knows neither a file format nor how to tokenize."""

from dataclasses import dataclass
from enum import IntEnum
from typing import Literal


class TokenType(IntEnum):
    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3  # text of a user's message never becomes one
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True, slots=True)
class Vocabulary:
    kind: Literal["bpe", "spm"]  # byte-level pair merges, or SentencePiece's ranked by score
    tokens: list[str]  # by id
    types: list[int]  # TokenType of each
    pre: str | None = None  # how text is cut before it is merged, as GGUF names it
    merges: list[str] | None = None  # "left right", the strongest first
    scores: list[float] | None = None
    bos_id: int | None = None
    eos_id: int | None = None
    unk_id: int | None = None
    pad_id: int | None = None
    eot_ids: tuple[int, ...] = ()  # other tokens that end a turn
    add_bos: bool = False  # before a prompt
    add_eos: bool = False  # after it
    add_space_prefix: bool = False
