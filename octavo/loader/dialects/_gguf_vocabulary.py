"""GGUF's keys `tokenizer.ggml.*` as a Vocabulary."""

from typing import Any, Final, Literal

import numpy as np

from octavo.errors import BadCheckpoint
from octavo.loader.gguf import Fields
from octavo.loader.vocabulary import TokenType, Vocabulary

_KINDS: Final[dict[str, Literal["bpe", "spm"]]] = {"gpt2": "bpe", "llama": "spm"}
_NO_TOKENIZER: Final = (None, "none", "no_vocab")

# Without `add_bos_token` in the file: SentencePiece's kind adds it, byte-level ones only these.
_BPE_WITH_BOS: Final = ("llama3", "llama-v3", "llama-bpe", "falcon3", "pixtral", "tekken")

# Control tokens that end a turn. GGUF has one key for them, many models have several; config files
# that would name them all (generation_config.json) are lost in conversion.
_END_OF_TURN: Final = frozenset(
    {"<|im_end|>", "<|eot_id|>", "<|eom_id|>", "<|end|>", "<end_of_turn>", "<EOT>", "_<EOT>"}
    | {"<|endoftext|>", "<|end_of_text|>", "<|END_OF_TURN_TOKEN|>"}
)


def read_vocabulary(fields: Fields) -> Vocabulary | None:
    if (model := fields.text("tokenizer.ggml.model")) in _NO_TOKENIZER:
        return None
    if (kind := _KINDS.get(str(model))) is None:
        raise fields.wrong("tokenizer.ggml.model", f"these are read: {', '.join(_KINDS)}")
    tokens = _required(fields.texts(_key("tokens")), "tokens")
    pre, add_bos = fields.text("tokenizer.ggml.pre"), _flag(fields, "add_bos_token")
    add_space_prefix = _flag(fields, "add_space_prefix")
    types = _types(fields, len(tokens))
    return Vocabulary(
        kind=kind,
        tokens=tokens,
        types=types,
        pre=pre,
        merges=_required(fields.texts(_key("merges")), "merges") if kind == "bpe" else None,
        scores=_required(_scores(fields, len(tokens)), "scores") if kind == "spm" else None,
        bos_id=_id(fields, "bos", tokens),
        eos_id=_id(fields, "eos", tokens),
        unk_id=_id(fields, "unknown", tokens),
        pad_id=_id(fields, "padding", tokens),
        eot_ids=_eot_ids(fields, tokens, types),
        add_bos=(kind == "spm" or pre in _BPE_WITH_BOS) if add_bos is None else add_bos,
        add_eos=_flag(fields, "add_eos_token") or False,
        add_space_prefix=kind == "spm" if add_space_prefix is None else add_space_prefix,
    )


def _key(name: str) -> str:
    return f"tokenizer.ggml.{name}"


def _flag(fields: Fields, name: str) -> bool | None:
    return fields.flag(_key(name))


def _required(value: Any, name: str) -> Any:
    if value is None:
        raise BadCheckpoint(f"the file names a tokenizer, but has no {_key(name)}")
    return value


def _types(fields: Fields, num_tokens: int) -> list[int]:
    types = _one_per_token(fields, "token_type", "iu", num_tokens)
    if types is None:
        return [TokenType.NORMAL.value] * num_tokens
    if num_tokens and not (types.min() >= min(TokenType) and types.max() <= max(TokenType)):
        raise fields.wrong(_key("token_type"), f"a type is not in [1, {max(TokenType)}]")
    return types.tolist()


def _scores(fields: Fields, num_tokens: int) -> list[float] | None:
    scores = _one_per_token(fields, "scores", "f", num_tokens)
    if scores is not None and not np.isfinite(scores).all():
        raise fields.wrong(_key("scores"), "one of them is not finite")
    return None if scores is None else scores.tolist()


def _one_per_token(fields: Fields, name: str, kinds: str, num_tokens: int) -> Any:
    values = fields.array(_key(name))
    if values is None:
        return None
    if values.dtype.kind not in kinds:
        raise fields.wrong(_key(name), f"not numbers of kind {kinds!r}")
    if len(values) != num_tokens:
        raise fields.wrong(_key(name), f"{len(values)} for {num_tokens} tokens")
    return values


def _id(fields: Fields, name: str, tokens: list[str]) -> int | None:
    token_id = fields.integer(key := _key(f"{name}_token_id"))
    if token_id is not None and token_id >= len(tokens):
        raise fields.wrong(key, f"there are {len(tokens)} tokens")
    return token_id


def _eot_ids(fields: Fields, tokens: list[str], types: list[int]) -> tuple[int, ...]:
    named = {_id(fields, name, tokens) for name in ("eot", "eom")} - {None}
    control = TokenType.CONTROL.value  # looked up once: there are many tokens
    known = {i for i, kind in enumerate(types) if kind == control and tokens[i] in _END_OF_TURN}
    return tuple(sorted(known | {i for i in named if i is not None}))
