"""Models of random weights, to measure what no model at hand has: a size, or a format.

Llama's shape, a byte-level vocabulary that is made up but valid, weights that keep activations as
large as a trained model's. Deterministic: the same file everywhere. Written piece by piece, at the
speed of the disk, in the layout that loader/gguf.py draws.
"""

import os
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from math import prod
from pathlib import Path
from types import MappingProxyType
from typing import TypeAlias

import numpy as np

from octavo.bench._progress import say
from octavo.errors import BadConfig
from octavo.loader import hub
from octavo.registry import entry
from octavo.types import Bytes, Tensor

DEVIATION = 0.02  # of the weights, as Llama's are before training
PIECE = 8 << 20  # bytes made at a time
ALIGNMENT = 32
NUM_CONTROL = 256

Field: TypeAlias = str | bool | int | float | list[str] | list[int]


@dataclass(frozen=True, slots=True)
class Shape:
    hidden: int
    mlp: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab: int
    context: int = 131_072
    theta: float = 500_000.0

    @property
    def matrices(self) -> dict[str, tuple[int, int]]:
        """(rows, columns) by GGUF's names."""
        q, kv, hidden = self.heads * self.head_dim, self.kv_heads * self.head_dim, self.hidden
        shapes = {"token_embd.weight": (self.vocab, hidden)}
        for i in range(self.layers):
            shapes |= {
                f"blk.{i}.attn_q.weight": (q, hidden),
                f"blk.{i}.attn_k.weight": (kv, hidden),
                f"blk.{i}.attn_v.weight": (kv, hidden),
                f"blk.{i}.attn_output.weight": (hidden, q),
                f"blk.{i}.ffn_gate.weight": (self.mlp, hidden),
                f"blk.{i}.ffn_up.weight": (self.mlp, hidden),
                f"blk.{i}.ffn_down.weight": (hidden, self.mlp),
            }
        return shapes

    @property
    def norms(self) -> list[str]:
        kinds = ("attn_norm", "ffn_norm")
        names = [f"blk.{i}.{kind}.weight" for i in range(self.layers) for kind in kinds]
        return [*names, "output_norm.weight"]


SHAPES = MappingProxyType(
    {
        "1b": Shape(2048, 8192, 16, 32, 8, 64, 128_256),  # Llama 3.2 1B's
        "100m": Shape(768, 3072, 12, 12, 4, 64, 32_768),
    }
)


@dataclass(frozen=True, slots=True)
class Format:
    number: int  # as GGUF counts them
    halves: tuple[tuple[int, float], ...]  # (byte of the block, factor) of each scale and minimum


# A minimum is what takes the mean of the codes to 0.
FORMATS = MappingProxyType(
    {
        "f32": Format(0, ()),
        "f16": Format(1, ()),
        "bf16": Format(30, ()),
        "q4_0": Format(2, ((0, 1),)),
        "q4_1": Format(3, ((0, 1), (2, -7.5))),
        "q5_0": Format(6, ((0, 1),)),
        "q5_1": Format(7, ((0, 1), (2, -15.5))),
        "q8_0": Format(8, ((0, 1),)),
        "q4_k": Format(12, ((0, 1), (2, 7.5))),
        "q5_k": Format(13, ((0, 1), (2, 15.5))),
        "q6_k": Format(14, ((208, 1),)),
    }
)
# The formats that are plain floats: (unsigned type of the same width, mask of the sign and fraction
# bits, exponent bits). Random bits under the mask and that exponent are floats of 2^-6 to 2^-5.
FLOATS = MappingProxyType(
    {
        "f32": ("<u4", 0x807F_FFFF, 0x3C80_0000),
        "f16": ("<u2", 0x83FF, 0x2400),
        "bf16": ("<u2", 0x807F, 0x3C80),
    }
)
_F32 = 0
_USUAL = "q4_0"


def path_of(name: str) -> str:
    """The file of random-SIZE or random-SIZE-FORMAT, written when it is first needed; any other
    name as it is. Raises BadConfig."""
    if not (said := re.fullmatch(r"random-(\w+)(?:-(\w+))?", name)):
        return name
    size, form = said[1], said[2] or _USUAL
    if size not in SHAPES or form not in FORMATS:
        problem = f"{name!r} is not made here: random-SIZE-FORMAT has the sizes "
        known = f"{', '.join(SHAPES)} and the formats {', '.join(FORMATS)}"
        raise BadConfig("model", problem + known)
    path = hub.home() / "bench" / f"{name}.gguf"
    if not path.exists():
        say(f"writing {name}")
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_suffix(f".{os.getpid()}")
        try:
            write(part, SHAPES[size], form, name=name)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
    return str(path)


def write(path: Path, shape: Shape, form: str, *, name: str = "random") -> None:
    """Raises BadConfig for a shape whose rows are not whole blocks."""
    block = entry("octavo.quant", form).BLOCK
    if wrong := [columns for _, columns in shape.matrices.values() if columns % block]:
        raise BadConfig("model", f"{wrong[0]} columns are not whole blocks of {block} ({form})")
    fields = {"general.name": name, **_numbers(shape), **_vocabulary(shape.vocab)}
    tensors = [*_tensors(shape, form)]
    with path.open("wb") as file:
        file.write(struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(fields)))
        file.write(b"".join(_string(key) + _typed(value) for key, value in fields.items()))
        offset = 0
        for tensor in tensors:
            told = (len(tensor.shape), *reversed(tensor.shape), tensor.number, offset)
            file.write(_string(tensor.name) + struct.pack(f"<I{len(tensor.shape)}QIQ", *told))
            offset += tensor.num_bytes + -tensor.num_bytes % ALIGNMENT
        for tensor in tensors:
            file.write(bytes(-file.tell() % ALIGNMENT))
            for piece in tensor.pieces:
                file.write(piece.data)
        file.write(bytes(-file.tell() % ALIGNMENT))


@dataclass(frozen=True, slots=True)
class _Tensor:
    name: str
    shape: tuple[int, ...]
    number: int  # of its format
    num_bytes: int
    pieces: Iterator[Tensor]


def _tensors(shape: Shape, form: str) -> Iterator[_Tensor]:
    blocks = entry("octavo.quant", form)
    for seed, (name, matrix) in enumerate(shape.matrices.items()):
        num_bytes = prod(matrix) // blocks.BLOCK * blocks.BYTES
        data = _random(form, num_bytes, seed)
        yield _Tensor(name, matrix, FORMATS[form].number, num_bytes, data)
    ones = np.ones(shape.hidden, "<f4")
    for name in shape.norms:
        yield _Tensor(name, ones.shape, _F32, ones.nbytes, iter([ones]))


def _random(form: str, num_bytes: int, seed: int) -> Iterator[Bytes]:
    """Blocks of random codes. A block's scale is the same everywhere but for its sign, so that no
    format has a mean to speak of."""
    size = entry("octavo.quant", form).BYTES
    bits = np.random.SFC64(seed)  # a bit generator's stream never changes, distributions' may
    scale = _scale(form)
    for first in count(0, PIECE // size * size):
        if (wanted := min(num_bytes - first, PIECE // size * size)) <= 0:
            return
        made = bits.random_raw(-(-wanted // 8)).view(np.uint8)[:wanted]
        yield _scaled(form, made.reshape(-1, size), scale)


def _scaled(form: str, made: Bytes, scale: float) -> Bytes:
    """In place: [blocks, bytes]."""
    if form in FLOATS:
        kind, kept, exponent = FLOATS[form]
        numbers = made.view(kind)
        numbers &= kept
        numbers |= exponent
        return made
    signs = made[:, FORMATS[form].halves[0][0]] & 1
    for at, factor in FORMATS[form].halves:
        both = np.array([[scale * factor], [-scale * factor]], "<f2").view(np.uint8)
        made[:, at : at + 2] = both[signs]
    return made


def _scale(form: str) -> float:
    """What gives the weights their deviation, found on a sample."""
    if form in FLOATS:
        return 1.0
    blocks = entry("octavo.quant", form)
    made = np.random.SFC64(0).random_raw(blocks.BYTES * 64).view(np.uint8)
    sample = _scaled(form, made.reshape(-1, blocks.BYTES), 1.0)
    return float(DEVIATION / blocks.dequantize(sample).std())


def _numbers(shape: Shape) -> dict[str, Field]:
    return {
        "general.architecture": "llama",
        "general.quantization_version": 2,
        "llama.block_count": shape.layers,
        "llama.context_length": shape.context,
        "llama.embedding_length": shape.hidden,
        "llama.feed_forward_length": shape.mlp,
        "llama.attention.head_count": shape.heads,
        "llama.attention.head_count_kv": shape.kv_heads,
        "llama.attention.key_length": shape.head_dim,
        "llama.attention.value_length": shape.head_dim,
        "llama.attention.layer_norm_rms_epsilon": 1e-5,
        "llama.rope.dimension_count": shape.head_dim,
        "llama.rope.freq_base": shape.theta,
        "llama.vocab_size": shape.vocab,
    }


def _vocabulary(size: int) -> dict[str, Field]:
    """The 256 bytes in GPT-2's disguise, a few merges, tokens that nothing becomes, and control
    tokens last, as Llama 3 has them."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    tokens = [chr(byte) for byte in printable]
    tokens += [chr(0x100 + i) for i in range(256 - len(printable))]
    merges = ["Ġ t", "h e", "Ġt he", "i n", "Ġ a", "r e", "o n", "e r"]
    tokens += [merge.replace(" ", "") for merge in merges]
    tokens += [f"Ġmade{i}up" for i in range(size - NUM_CONTROL - len(tokens))]
    ordinary = len(tokens)
    tokens += ["<|begin_of_text|>", "<|end_of_text|>"]
    tokens += [f"<|reserved_special_token_{i}|>" for i in range(NUM_CONTROL - 2)]
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "llama-bpe",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [1] * ordinary + [3] * NUM_CONTROL,
        "tokenizer.ggml.merges": merges,
        "tokenizer.ggml.bos_token_id": ordinary,
        "tokenizer.ggml.eos_token_id": ordinary + 1,
        "tokenizer.ggml.add_bos_token": True,
    }


_U32, _I32, _FLOAT, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9


def _typed(value: Field) -> bytes:
    match value:
        case bool():
            return struct.pack("<I?", _BOOL, value)
        case int():
            return struct.pack("<II", _U32, value)
        case float():
            return struct.pack("<If", _FLOAT, value)
        case str():
            return struct.pack("<I", _STRING) + _string(value)
        case [str(), *_]:
            strings = b"".join(_string(str(one)) for one in value)
            return struct.pack("<IIQ", _ARRAY, _STRING, len(value)) + strings
        case _:
            return struct.pack("<IIQ", _ARRAY, _I32, len(value)) + np.array(value, "<i4").tobytes()


def _string(text: str) -> bytes:
    return struct.pack("<Q", len(text.encode())) + text.encode()
