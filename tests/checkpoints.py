"""Writes tiny but complete GGUF checkpoints: seeded random weights in any mix of formats, a small
tokenizer, a chat template. Knows the file format through the `gguf` package, not through ours.

    from checkpoints import write_tiny              (tests/ is on the path)
    path = write_tiny(tmp_path / "tiny.gguf", "gemma3", ["q5_0", "q6_k"], seed=1)
"""

from collections.abc import Mapping, Sequence
from functools import cache
from itertools import cycle
from pathlib import Path
from typing import Any

import gguf
import numpy as np

# fmt: off
ALL_FORMATS = (  # octavo/quant's
    "f32", "f16", "bf16", "q4_0", "q4_1", "q5_0", "q5_1", "q8_0",
    "q2_k", "q3_k", "q4_k", "q5_k", "q6_k",
)
MERGES = [
    "Ġ t", "h e", "Ġ a", "i n", "r e", "o n", "Ġt he", "e r", "Ġ s", "a t", "Ġ w", "e n", "Ġ o",
    "o r", "Ġ b", "i s", "Ġ c", "e s", "n d", "o u", "a n", "Ġ f", "in g", "e d", "Ġo f", "Ġa nd",
    "Ġ m", "Ġ p", "l l", "Ġ in", "h a", "Ġt o", "l e", "a s", "Ġ h", "o w", "Ġ d", "Ġ n", "i t",
]
# fmt: on
HIDDEN, MLP, HEADS, HEAD_DIM = 256, 512, 4, 64

CHATML = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}"
    "<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
TURNS = (
    "{{ bos_token }}{% for message in messages %}<start_of_turn>"
    "{{ 'model' if message['role'] == 'assistant' else message['role'] }}\n{{ message['content'] }}"
    "<end_of_turn>\n{% endfor %}{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


def write_tiny(
    path: Path,
    architecture: str = "llama",
    formats: str | Sequence[str] = "q4_1",
    *,
    seed: int = 0,
    layers: int | None = None,
    window: int | None = None,
    tied: bool = True,
    biases: bool = False,
    rope_factors: Sequence[float] | None = None,
    context: int = 2048,
    metadata: Mapping[str, Any] | None = None,
) -> Path:
    """Writes a checkpoint to `path` and returns it.

    architecture  "llama" (2 layers, byte-level BPE of 304 tokens, ChatML template) or "gemma3" (6
                  layers, of which the last sees everything; SentencePiece; `window` defaults to 24)
    formats       of the matrices, the embedding included: one, or several dealt out in turn;
                  names as in octavo/quant, ALL_FORMATS has them all. Norms are F32.
    tied          no output head of its own
    biases        on q, k, v and o (llama)
    rope_factors  what Llama 3's scaling divides each of the 32 rotary frequencies by
    metadata      more fields, or others' values, by GGUF key: str, bool, int, float or a list;
                  None leaves one out

    Both have a hidden size of 256, an MLP of 512, 4 heads and 2 KV heads (gemma3: 1) of 64.
    """
    gemma = architecture == "gemma3"
    layers = layers or (6 if gemma else 2)
    kv_heads = 1 if gemma else 2
    fields = _numbers(architecture, layers, kv_heads, context)
    if gemma or window:
        fields[f"{architecture}.attention.sliding_window"] = window or 24
    fields |= (_sentencepiece() if gemma else _byte_level()) | dict(metadata or {})
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in fields.items():
        if value is not None:
            _add_field(writer, key, value)
    dealt = cycle([formats] if isinstance(formats, str) else formats)
    num_tokens = len(fields["tokenizer.ggml.tokens"])
    matrices = _matrices(layers, kv_heads, num_tokens, tied=tied).items()
    vectors = _vectors(layers, kv_heads, gemma=gemma, biases=biases and not gemma).items()
    packed = tuple((name, next(dealt), *shape) for name, shape in matrices)
    for name, data, kind in _tensors(packed, tuple(vectors), seed):
        writer.add_tensor(name, data, raw_dtype=kind)
    if rope_factors is not None:
        writer.add_tensor("rope_freqs.weight", np.array(rope_factors, np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@cache  # most tests want one of a few models
def _tensors(matrices, vectors, seed):
    random = np.random.default_rng(seed)
    tensors = []
    for name, form, rows, columns in matrices:
        kind = gguf.GGMLQuantizationType[form.upper()]
        tensors.append((name, random_matrix(form, rows, columns, random), kind))
    for name, (size, mean) in vectors:
        tensors.append((name, (mean + random.normal(0, 0.1, size)).astype(np.float32), None))
    return tensors


def random_matrix(form: str, rows: int, columns: int, random: np.random.Generator) -> np.ndarray:
    """Packed weights of deviation 1 / √columns: uint8 [rows, bytes]."""
    deviation = columns**-0.5
    kind = gguf.GGMLQuantizationType[form.upper()]
    if form.endswith("_k"):
        return _random_blocks(form, rows, columns, deviation, random)
    floats = random.normal(0, deviation, (rows, columns)).astype(np.float32)
    return gguf.quants.quantize(floats, kind).view(np.uint8)


# Of the K-quants, which `gguf` cannot quantize to: where a block has its scale and its minimum, and
# the mean of its codes.
_HALVES = {
    "q2_k": (80, 82, 1.5),
    "q3_k": (108, None, 0),
    "q4_k": (0, 2, 7.5),
    "q5_k": (0, 2, 15.5),
    "q6_k": (208, None, 0),
}


def _random_blocks(form, rows, columns, deviation, random):
    kind = gguf.GGMLQuantizationType[form.upper()]
    block, size = gguf.GGML_QUANT_SIZES[kind]
    made = random.integers(0, 256, (rows, columns // block, size), dtype=np.uint8)
    scale_at, min_at, mean = _HALVES[form]

    def scale_by(scale):
        made[..., scale_at : scale_at + 2] = scale.astype(np.float16)[..., None].view(np.uint8)
        if min_at is not None:
            low = (scale * mean).astype(np.float16)
            made[..., min_at : min_at + 2] = low[..., None].view(np.uint8)
        return made.reshape(rows, -1)

    unscaled = gguf.dequantize(scale_by(np.ones(made.shape[:2])), kind).std()
    return scale_by(random.uniform(0.5, 1.5, made.shape[:2]) * deviation / unscaled)


def _numbers(architecture, layers, kv_heads, context):
    gemma = architecture == "gemma3"
    numbers = {
        "block_count": layers,
        "context_length": context,
        "embedding_length": HIDDEN,
        "feed_forward_length": MLP,
        "attention.head_count": HEADS,
        "attention.head_count_kv": kv_heads,
        "attention.key_length": HEAD_DIM,
        "attention.value_length": HEAD_DIM,
        "attention.layer_norm_rms_epsilon": 1e-6,
        "rope.freq_base": 1_000_000.0 if gemma else 10_000.0,
    }
    named = {"general.name": f"Tiny {architecture}", "general.license": "apache-2.0"}
    return named | {f"{architecture}.{key}": value for key, value in numbers.items()}


def _matrices(layers, kv_heads, num_tokens, *, tied):
    q, kv = HEADS * HEAD_DIM, kv_heads * HEAD_DIM
    shapes = {"token_embd.weight": (num_tokens, HIDDEN)}
    if not tied:
        shapes["output.weight"] = (num_tokens, HIDDEN)
    for i in range(layers):
        shapes |= {
            f"blk.{i}.attn_q.weight": (q, HIDDEN),
            f"blk.{i}.attn_k.weight": (kv, HIDDEN),
            f"blk.{i}.attn_v.weight": (kv, HIDDEN),
            f"blk.{i}.attn_output.weight": (HIDDEN, q),
            f"blk.{i}.ffn_gate.weight": (MLP, HIDDEN),
            f"blk.{i}.ffn_up.weight": (MLP, HIDDEN),
            f"blk.{i}.ffn_down.weight": (HIDDEN, MLP),
        }
    return shapes


def _vectors(layers, kv_heads, *, gemma, biases):
    """Name -> (size, mean)."""
    norms = ["attn_norm", "ffn_norm"]
    norms += ["post_attention_norm", "post_ffw_norm"] if gemma else []
    sizes = {"attn_q": HEADS * HEAD_DIM, "attn_output": HIDDEN}
    sizes |= dict.fromkeys(("attn_k", "attn_v"), kv_heads * HEAD_DIM)
    vectors = {"output_norm.weight": (HIDDEN, 1)}
    for i in range(layers):
        vectors |= {f"blk.{i}.{norm}.weight": (HIDDEN, 1) for norm in norms}
        if gemma:
            vectors |= {f"blk.{i}.attn_{x}_norm.weight": (HEAD_DIM, 1) for x in "qk"}
        if biases:
            vectors |= {f"blk.{i}.{name}.bias": (size, 0) for name, size in sizes.items()}
    return vectors


def _byte_level():
    """Three control tokens, the 256 bytes in GPT-2's disguise, one token a merge."""
    control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in printable]
    letters = dict(zip(printable, map(chr, printable), strict=True))
    letters |= {byte: chr(256 + i) for i, byte in enumerate(hidden)}
    tokens = control + [letters[byte] for byte in range(256)]
    tokens += [merge.replace(" ", "") for merge in MERGES]
    tokens += [f"<spare_{i}>" for i in range(304 - len(tokens))]
    ordinary = 256 + len(MERGES)
    return {
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "smollm",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.token_type": [3] * 3 + [1] * ordinary + [5] * (301 - ordinary),
        "tokenizer.ggml.merges": MERGES,
        "tokenizer.ggml.bos_token_id": 1,
        "tokenizer.ggml.eos_token_id": 2,
        "tokenizer.ggml.unknown_token_id": 0,
        "tokenizer.ggml.padding_token_id": 2,
        "tokenizer.ggml.add_bos_token": False,
        "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.chat_template": CHATML,
    }


def _sentencepiece():
    """Six control tokens, the 256 bytes, ASCII and one piece a merge, the first scored highest."""
    control = ["<pad>", "<eos>", "<bos>", "<unk>", "<start_of_turn>", "<end_of_turn>"]
    bytes_ = [f"<0x{byte:02X}>" for byte in range(256)]
    letters = ["▁", *map(chr, range(33, 127))]
    pieces = [merge.replace(" ", "").replace("Ġ", "▁") for merge in MERGES]
    pieces = list(dict.fromkeys(letters + pieces))
    num_special = len(control) + len(bytes_)
    return {
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.pre": "default",
        "tokenizer.ggml.tokens": control + bytes_ + pieces,
        "tokenizer.ggml.scores": [0.0] * num_special
        + [-1e4 if len(piece) == 1 else -float(rank) for rank, piece in enumerate(pieces)],
        "tokenizer.ggml.token_type": [3] * len(control) + [6] * 256 + [1] * len(pieces),
        "tokenizer.ggml.bos_token_id": 2,
        "tokenizer.ggml.eos_token_id": 1,
        "tokenizer.ggml.unknown_token_id": 3,
        "tokenizer.ggml.padding_token_id": 0,
        "tokenizer.ggml.add_bos_token": True,
        "tokenizer.ggml.add_eos_token": False,
        "tokenizer.ggml.add_space_prefix": False,
        "tokenizer.chat_template": TURNS,
    }


def _add_field(writer, key, value):
    add = {
        str: writer.add_string,
        bool: writer.add_bool,
        int: writer.add_uint32,
        float: writer.add_float32,
        list: writer.add_array,
    }
    add[type(value)](key, value)
