"""GGUF's tensors as transformers names, shapes and orders them."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace
from operator import contains
from typing import Final

import numpy as np

from octavo.errors import BadCheckpoint
from octavo.loader.checkpoint import Metadata
from octavo.loader.gguf import Described
from octavo.loader.vocabulary import Vocabulary
from octavo.registry import entry
from octavo.types import Ints, RawTensor

_MODEL: Final = {
    "token_embd": "model.embed_tokens",
    "output_norm": "model.norm",
    "output": "lm_head",
}
_LAYER: Final = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "attn_q_norm": "self_attn.q_norm",
    "attn_k_norm": "self_attn.k_norm",
    "post_attention_norm": "post_attention_layernorm",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
    "post_ffw_norm": "post_feedforward_layernorm",
}
_NAME = re.compile(r"(?:blk\.(\d+)\.)?(\w+)\.(weight|bias)")

# Architectures whose q and k rows GGUF keeps in adjacent rotary pairs (0, 1), (2, 3), ...; in
# transformers, and in our `rope`, the pairs are (d, d + head_dim / 2).
# fmt: off
_ADJACENT_PAIRS: Final = frozenset({
    "arcee", "arctic", "baichuan", "command-r", "cohere2", "deci", "deepseek", "ernie4_5",
    "granite", "granitemoe", "internlm2", "llama", "llama4", "minicpm", "mistral3", "olmo",
    "orion", "plamo", "smollm3", "xverse",
})
# fmt: on

# What the rows and columns of a tensor count, by the end of its name.
_SHAPES: Final = {
    "embed_tokens.weight": ("vocab_size", "hidden_size"),
    "lm_head.weight": ("vocab_size", "hidden_size"),
    "norm.weight": ("hidden_size",),
    "input_layernorm.weight": ("hidden_size",),
    "post_attention_layernorm.weight": ("hidden_size",),
    "pre_feedforward_layernorm.weight": ("hidden_size",),
    "post_feedforward_layernorm.weight": ("hidden_size",),
    "q_proj.weight": ("q_size", "hidden_size"),
    "k_proj.weight": ("kv_size", "hidden_size"),
    "v_proj.weight": ("kv_size", "hidden_size"),
    "o_proj.weight": ("hidden_size", "q_size"),
    "q_proj.bias": ("q_size",),
    "k_proj.bias": ("kv_size",),
    "v_proj.bias": ("kv_size",),
    "o_proj.bias": ("hidden_size",),
    "q_norm.weight": ("head_dim or q_size",),  # head by head, or all at once
    "k_norm.weight": ("head_dim or kv_size",),
    "gate_proj.weight": ("intermediate_size", "hidden_size"),
    "up_proj.weight": ("intermediate_size", "hidden_size"),
    "down_proj.weight": ("hidden_size", "intermediate_size"),
    "gate_proj.bias": ("intermediate_size",),
    "up_proj.bias": ("intermediate_size",),
    "down_proj.bias": ("hidden_size",),
}
_EMBEDDING = "model.embed_tokens.weight"
_ROPE_FREQS = "rope_freqs.weight"


def rename(tensors: Mapping[str, Described]) -> dict[str, Described]:
    """By transformers' names; a tensor that has none there keeps GGUF's."""
    found: dict[str, Described] = {}
    for name, described in tensors.items():
        word = _renamed(name, tensors)
        if word in found:
            raise BadCheckpoint(f"two tensors are {word}, one of them {name!r}", described.offset)
        found[word] = described
    return found


def _renamed(name: str, tensors: Mapping[str, Described]) -> str:
    if (match := _NAME.fullmatch(name)) is None:
        return name
    layer, part, kind = match.groups()
    word = _MODEL.get(part) if layer is None else _LAYER.get(part)
    if layer and part == "ffn_norm" and f"blk.{layer}.post_ffw_norm.weight" in tensors:
        word = "pre_feedforward_layernorm"  # the MLP has a norm on both sides
    inside = "" if layer is None else f"model.layers.{layer}."
    return f"{inside}{word}.{kind}" if word else name


def take_rope_freqs(
    tensors: dict[str, Described], head_dim: int | None
) -> tuple[float, ...] | None:
    """What Llama 3's scaling divides each rotary frequency by; the tensor is taken out."""
    if (described := tensors.pop(_ROPE_FREQS, None)) is None:
        return None
    raw = described.tensor
    if raw.format != "f32" or head_dim is None or raw.shape != (head_dim // 2,):
        raise BadCheckpoint(
            f"{_ROPE_FREQS} is {raw.format} {raw.shape}, not one f32 a rotary pair of head_dim "
            f"{head_dim}",
            described.offset,
        )
    values = entry("octavo.quant", raw.format).dequantize(raw.data)[0]
    if not (np.isfinite(values) & (values > 0)).all():
        raise BadCheckpoint(f"{_ROPE_FREQS} has a factor that is not positive", described.offset)
    return tuple(values.tolist())


def vocabulary_size(tensors: Mapping[str, Described], vocabulary: Vocabulary | None) -> int | None:
    """Rows of the embedding, one for each token; the tokens' number where there are no tensors."""
    num_tokens = len(vocabulary.tokens) if vocabulary else None
    if (described := tensors.get(_EMBEDDING)) is None:
        return num_tokens
    rows = described.tensor.shape[0]
    if num_tokens not in (None, rows):
        raise BadCheckpoint(
            f"token_embd.weight has {rows} rows for {num_tokens} tokens", described.offset
        )
    return rows


def as_models_read_them(
    tensors: Mapping[str, Described], metadata: Metadata, architecture: str
) -> dict[str, RawTensor]:
    """Shapes checked, rotary pairs where our `rope` wants them."""
    sizes = _sizes(metadata) if tensors else {}
    adjacent = architecture in _ADJACENT_PAIRS
    found: dict[str, RawTensor] = {}
    for name, described in tensors.items():
        raw = replace(described.tensor, name=name)
        _check(raw, sizes, described.offset)
        if adjacent and re.search(r"self_attn\.[qk]_proj\.", name):
            raw = _in_halves(raw, sizes["head_dim"])
        found[name] = raw
    return found


def _sizes(metadata: Metadata) -> dict[str, int]:
    words = ("vocab_size", "hidden_size", "head_dim")
    sizes = {word: metadata.integer(word) for word in words}
    sizes["q_size"] = metadata.integer("num_attention_heads") * sizes["head_dim"]
    sizes["kv_size"] = metadata.integer("num_key_value_heads") * sizes["head_dim"]
    mlp = metadata.integer("intermediate_size", None)
    return sizes if mlp is None else sizes | {"intermediate_size": mlp}


def _check(raw: RawTensor, sizes: Mapping[str, int], offset: int) -> None:
    if len(raw.shape) == 1 and entry("octavo.quant", raw.format).BLOCK != 1:
        raise BadCheckpoint(f"tensor {raw.name!r} is a vector in {raw.format}, not floats", offset)
    words = _SHAPES.get(".".join(raw.name.split(".")[-2:]))
    if words is None:
        return
    allowed = [[sizes.get(size) for size in word.split(" or ")] for word in words]
    if len(raw.shape) != len(words) or not all(map(contains, allowed, raw.shape)):
        raise BadCheckpoint(
            f"tensor {raw.name!r} is {_by(raw.shape)}, not {_by(words)}: "
            f"{', '.join(f'{name} is {size}' for name, size in sizes.items())}",
            offset,
        )


def _by(sizes: Iterable[object]) -> str:
    return " by ".join(map(str, sizes))


def _in_halves(raw: RawTensor, head_dim: int) -> RawTensor:
    rows = _halves_from_pairs(raw.shape[0], head_dim)
    if len(raw.shape) > 1:
        return replace(raw, rows=rows)
    # A vector is one row, so its numbers are put in order here: the loader's only copy.
    numbers = raw.data.reshape(raw.shape[0], -1)
    return replace(raw, data=numbers[rows].reshape(1, -1))


def _halves_from_pairs(rows: int, head_dim: int) -> Ints:
    """Row i in transformers' order is this row of GGUF's: pair d of a head is (2d, 2d + 1) there
    and (d, d + head_dim / 2) here."""
    heads = np.arange(rows, dtype=np.int64).reshape(-1, head_dim // 2, 2)
    return heads.swapaxes(1, 2).reshape(-1)
