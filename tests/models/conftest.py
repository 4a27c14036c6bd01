"""Random checkpoints that anyone can make again from a config.json: seeded by name, no torch."""

import json
from dataclasses import dataclass
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest

from octavo.kernels import reference
from octavo.kernels.ops import Limits
from octavo.kvcache.pool import PagePool
from octavo.loader.checkpoint import Metadata, Weights
from octavo.registry import entry, names
from octavo.types import Batch, RawTensor

CASES = sorted((Path(__file__).parent / "golden").glob("*.json"))
NO_PAGE = 2**31 - 1  # reading it is an error


@pytest.fixture(params=CASES, ids=lambda path: path.stem)
def case(request):
    return Case(request.param)


@pytest.fixture(params=names("octavo.models"))
def model(request):
    """The tiny instance that every architecture brings, on random weights."""
    module = entry("octavo.models", request.param)
    config = module.tiny()
    return module.Model(config, weights(noise(config)))


@pytest.fixture
def run():
    return Run


class Run:
    """A model in the reference home, with empty pages."""

    def __init__(self, model, num_pages=16):
        self.pools = [PagePool(group, num_pages, "float32") for group in model.groups]
        self.num_pages = num_pages
        self.program = reference.compile(model, self.pools, Limits(1024, 16, 1024, 1))

    def step(self, *sequences, last=None):
        """The logits of the last tokens, or of all, [rows, vocab], of sequences that each bring
        (token ids, the position of the first, its table of pages: one, or one a KV group)."""
        ids, positions, starts = [], [], [0]
        tables = np.full((len(self.pools), len(sequences), self.num_pages), NO_PAGE, np.int32)
        for i, (token_ids, first, pages) in enumerate(sequences):
            ids += list(token_ids)
            positions += range(first, first + len(token_ids))
            starts.append(len(ids))
            tables[:, i, : np.shape(pages)[-1]] = pages
        flat = (np.array(numbers, np.int32) for numbers in (ids, positions, starts))
        outputs = np.arange(len(ids), dtype=np.int32)[-(last or len(ids)) :]
        self.program.run(Batch(*flat, tuple(tables), outputs))
        return self.program.logits(0, len(outputs)).values


@dataclass(frozen=True)
class Case:
    """A config.json under golden/, the checkpoint of noise that it describes, and beside it the
    logits that transformers gives that checkpoint."""

    path: Path

    @property
    def fields(self):
        return json.loads(self.path.read_text())

    @property
    def golden(self):
        return self.path.with_suffix(".npy")

    @property
    def token_ids(self):
        """Past every window, across four pages."""
        return np.random.RandomState(0).randint(0, self.fields["vocab_size"], 50)

    def tensors(self):
        module = entry("octavo.models", self.fields["model_type"])
        return noise(module.Config.read(Metadata(self.fields)), **switches(self.fields))

    def logits(self):
        """The reference's, for every token."""
        module = entry("octavo.models", self.fields["model_type"])
        model = module.Model(module.Config.read(Metadata(self.fields)), weights(self.tensors()))
        return Run(model).step((self.token_ids, 0, (2, 0, 3, 1)))


def switches(fields):
    biased = {"self_attn": "attention_bias", "mlp": "mlp_bias"}
    return {
        "biases": [part for part, field in biased.items() if fields.get(field)],
        "own_head": not fields["tie_word_embeddings"],
    }


def noise(config, biases=(), own_head=False):
    """A checkpoint: values by the names that Hugging Face's files have."""
    c = config
    q, kv = c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim
    layer = {
        "self_attn.q_proj": (q, c.hidden_size),
        "self_attn.k_proj": (kv, c.hidden_size),
        "self_attn.v_proj": (kv, c.hidden_size),
        "self_attn.o_proj": (c.hidden_size, q),
        "mlp.gate_proj": (c.mlp_size, c.hidden_size),
        "mlp.up_proj": (c.mlp_size, c.hidden_size),
        "mlp.down_proj": (c.hidden_size, c.mlp_size),
        "self_attn.q_norm": (c.head_dim,),
        "self_attn.k_norm": (c.head_dim,),
        "input_layernorm": (c.hidden_size,),
        "post_attention_layernorm": (c.hidden_size,),
        "pre_feedforward_layernorm": (c.hidden_size,),
        "post_feedforward_layernorm": (c.hidden_size,),
    }
    shapes = {"model.embed_tokens.weight": (c.vocab_size, c.hidden_size)}
    shapes["model.norm.weight"] = (c.hidden_size,)
    if own_head:
        shapes["lm_head.weight"] = (c.vocab_size, c.hidden_size)
    for i in range(c.num_layers):
        for name, shape in layer.items():
            shapes[f"model.layers.{i}.{name}.weight"] = shape
            if name.endswith("_proj") and name.split(".")[0] in biases:
                shapes[f"model.layers.{i}.{name}.bias"] = shape[:1]
    return {name: values(name, shape) for name, shape in shapes.items()}


def values(name, shape):
    """Seeded by the name; RandomState's stream is frozen for good, a Generator's is not."""
    spread = np.random.RandomState(crc32(name.encode())).standard_normal(shape) * 0.2
    return (spread + ("norm" in name)).astype(np.float32)


def weights(tensors):
    return Weights({name: raw(name, tensor) for name, tensor in tensors.items()}, reference.weight)


def raw(name, tensor):
    rows = tensor.reshape(-1, tensor.shape[-1])
    return RawTensor(name, "f32", tensor.shape, rows.view(np.uint8))
