"""GGUF in Hugging Face's words: the metadata, and the parts put together.

Knows what GGUF's keys mean, and no architecture: one that is not served yet but speaks in these
keys needs no line here. The tensors' names are _gguf_tensors.py's, the tokenizer's data is
_gguf_vocabulary.py's.
"""

from pathlib import Path

from octavo.errors import BadCheckpoint
from octavo.loader.checkpoint import Checkpoint, Metadata
from octavo.loader.dialects import _gguf_tensors
from octavo.loader.dialects._gguf_vocabulary import read_vocabulary
from octavo.loader.gguf import GGUF, MAGIC, Described, Fields, read_gguf
from octavo.loader.vocabulary import Vocabulary
from octavo.registry import names
from octavo.types import Json

_COUNTS = {
    "hidden_size": "embedding_length",
    "intermediate_size": "feed_forward_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "sliding_window_pattern": "attention.sliding_window_pattern",
}
_NUMBERS = {
    "rms_norm_eps": "attention.layer_norm_rms_epsilon",
    "rope_theta": "rope.freq_base",
    "rope_local_base_freq": "rope.freq_base_swa",
}
# What few architectures compute, and the value that asks for nothing; so does 0, which files
# write for "not used".
_SPECIAL_COUNTS = {
    "sliding_window": "attention.sliding_window",
    "num_local_experts": "expert_count",
}
_SPECIAL_NUMBERS = {
    "attn_logit_softcapping": ("attn_logit_softcapping", 0),
    "final_logit_softcapping": ("final_logit_softcapping", 0),
    "attention_multiplier": ("attention.scale", 0),
    "embedding_multiplier": ("embedding_scale", 1),
    "residual_multiplier": ("residual_scale", 1),
    "logits_scaling": ("logit_scale", 1),
    "clip_qkv": ("attention.clamp_kqv", 0),
    "alibi_bias_max": ("attention.max_alibi_bias", 0),
}
# An architecture must ask for these where a checkpoint has them (Metadata.refuse_unread).
_VITAL = (
    *_SPECIAL_COUNTS,
    *_SPECIAL_NUMBERS,
    "rope_scaling",
    "rope_freqs",
    "partial_rotary_factor",
    "v_head_dim",
)
_ROPE_SCALING = {
    "factor": "factor",
    "original_max_position_embeddings": "original_context_length",
    "attention_factor": "attn_factor",
}
_MOST = 2**20  # heads, layers, columns: far above any model's
_DEFAULT_THETA = 10_000.0
_BLOCKS_VERSION = 2  # of the layouts in octavo/quant


def speaks(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(MAGIC)) == MAGIC


def open_file(path: Path) -> Checkpoint:
    file = read_gguf(path)
    _refuse_other_files(file)
    fields, architecture = file.fields, _architecture(file)
    vocabulary = read_vocabulary(fields)
    tensors = _gguf_tensors.rename(file.tensors)
    metadata = _metadata(fields, architecture, tensors, vocabulary)
    return Checkpoint(
        path=path,
        metadata=metadata,
        tensors=_gguf_tensors.as_models_read_them(tensors, metadata, architecture),
        vocabulary=vocabulary,
        chat_template=fields.text("tokenizer.chat_template"),
        name=fields.text("general.name"),
        license=fields.text("general.license"),
    )


def _metadata(
    fields: Fields,
    architecture: str,
    tensors: dict[str, Described],
    vocabulary: Vocabulary | None,
) -> Metadata:
    words: Json = {"model_type": architecture or None}
    words["vocab_size"] = _gguf_tensors.vocabulary_size(tensors, vocabulary)
    if tensors:
        words |= _words(fields, architecture, len(tensors))
        words["rope_freqs"] = _gguf_tensors.take_rope_freqs(tensors, words.get("head_dim"))
    keys = _COUNTS | _NUMBERS | _SPECIAL_COUNTS
    keys |= {word: key for word, (key, _) in _SPECIAL_NUMBERS.items()}
    return Metadata(
        {word: value for word, value in words.items() if value is not None},
        spelled={word: f"{architecture}.{key}" for word, key in keys.items()},
        vital=_VITAL,
    )


def _refuse_other_files(file: GGUF) -> None:
    fields = file.fields
    if (fields.integer("split.count") or 1) > 1:
        raise fields.wrong("split.count", "join the parts into one file first")
    version = fields.integer("general.quantization_version")
    if version not in (None, _BLOCKS_VERSION):
        raise fields.wrong("general.quantization_version", f"only {_BLOCKS_VERSION} is read")
    if fields.text("general.type") not in (None, "model"):
        raise fields.wrong("general.type", "only a 'model' is read")


def _architecture(file: GGUF) -> str:
    """Raises BadCheckpoint for one that octavo/models does not have, where there are tensors: a
    vocabulary alone is of use whatever it was made for."""
    key = "general.architecture"
    architecture = file.fields.text(key)
    if file.tensors and architecture is None:
        raise BadCheckpoint(f"the file has tensors, but no {key}")
    known = names("octavo.models")
    if file.tensors and (architecture or "").lower().replace("-", "_") not in known:
        raise file.fields.wrong(key, f"these are served: {', '.join(known)}")
    return architecture or ""


def _words(fields: Fields, architecture: str, num_tensors: int) -> Json:
    """config.json's fields; None where the file does not say one."""
    key = f"{architecture}.".__add__
    words: Json = {word: fields.integer(key(name), 1, _MOST) for word, name in _COUNTS.items()}
    words |= {word: fields.positive(key(name)) for word, name in _NUMBERS.items()}
    words |= {word: fields.integer(key(name)) or None for word, name in _SPECIAL_COUNTS.items()}
    for word, (name, nothing) in _SPECIAL_NUMBERS.items():
        value = fields.number(key(name))
        words[word] = None if value in (0, nothing) else value
    if (words["num_hidden_layers"] or 0) > num_tensors:  # lists are made of so many layers
        raise fields.wrong(key("block_count"), f"there are {num_tensors} tensors")
    words["max_position_embeddings"] = fields.integer(key("context_length"), 1)
    words["rope_theta"] = words["rope_theta"] or _DEFAULT_THETA
    words["rope_scaling"] = _rope_scaling(fields, key("rope"))
    return words | _heads(fields, architecture, words)


def _heads(fields: Fields, architecture: str, words: Json) -> Json:
    """What a file may leave out because the rest implies it."""
    heads, hidden = words["num_attention_heads"], words["hidden_size"]
    if heads is None or hidden is None:
        return {}
    attention = f"{architecture}.attention"
    kv_heads = words["num_key_value_heads"] or heads
    if heads % kv_heads:
        raise fields.wrong(f"{attention}.head_count", f"not a multiple of {kv_heads} KV heads")
    head_dim = words["head_dim"] or hidden // heads
    if head_dim % 2 or not head_dim:
        raise fields.wrong(f"{attention}.head_count", f"a head is {head_dim} wide, not even")
    rotated = fields.integer(f"{architecture}.rope.dimension_count") or head_dim
    v_head_dim = fields.integer(f"{attention}.value_length") or head_dim
    return {
        "num_key_value_heads": kv_heads,
        "head_dim": head_dim,
        "partial_rotary_factor": rotated / head_dim if rotated != head_dim else None,
        "v_head_dim": v_head_dim if v_head_dim != head_dim else None,
    }


def _rope_scaling(fields: Fields, rope: str) -> Json | None:
    kind, old = fields.text(f"{rope}.scaling.type"), fields.number(f"{rope}.scale_linear")
    if kind is None and old not in (None, 0, 1):
        return {"rope_type": "linear", "factor": fields.positive(f"{rope}.scale_linear")}
    if kind in (None, "none"):
        return None
    said = {word: fields.positive(f"{rope}.scaling.{key}") for word, key in _ROPE_SCALING.items()}
    return {"rope_type": kind} | {word: value for word, value in said.items() if value is not None}
