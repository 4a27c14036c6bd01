"""Gemma 3, text: four norms a layer, normalised q and k heads, GELU-gated MLP; five layers that
see a sliding window, then one that sees everything, each kind with its own RoPE base."""

import math
from dataclasses import dataclass
from typing import Self

from octavo.kernels.ops import KVLayer, Ops, Value
from octavo.loader.checkpoint import Metadata, Weights
from octavo.models._rope import Rope
from octavo.types import KVGroup


@dataclass(frozen=True, slots=True)
class Config:
    vocab_size: int
    hidden_size: int
    mlp_size: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    norm_eps: float
    query_scalar: float  # scores are divided by its square root
    rope: Rope  # of the layers that see everything
    local_rope: Rope  # of the others
    window: int  # positions a query of theirs sees, its own included
    full_every: int  # the last of so many layers sees everything

    @classmethod
    def read(cls, meta: Metadata) -> Self:
        meta.require(
            hidden_activation="gelu_pytorch_tanh",
            attention_bias=False,
            attn_logit_softcapping=None,
            final_logit_softcapping=None,
            use_bidirectional_attention=False,
        )
        hidden, heads = meta.integer("hidden_size"), meta.integer("num_attention_heads")
        num_layers, head_dim = meta.integer("num_hidden_layers"), meta.integer("head_dim", 256)
        # GGUF does not say it, and the one size where it is not head_dim has 62 layers.
        query_scalar = hidden / heads if num_layers == 62 else head_dim
        return cls(
            vocab_size=meta.integer("vocab_size"),
            hidden_size=hidden,
            mlp_size=meta.integer("intermediate_size"),
            num_layers=num_layers,
            num_heads=heads,
            num_kv_heads=meta.integer("num_key_value_heads"),
            head_dim=head_dim,
            norm_eps=meta.number("rms_norm_eps"),
            query_scalar=meta.number("query_pre_attn_scalar", query_scalar),
            rope=Rope.read(meta),
            local_rope=Rope(theta=meta.number("rope_local_base_freq", 10_000.0)),
            window=meta.integer("sliding_window"),
            full_every=meta.integer("sliding_window_pattern", 6),
        )

    def windows(self) -> list[int | None]:
        """What each layer sees; None: everything."""
        layers = range(1, self.num_layers + 1)
        return [None if i % self.full_every == 0 else self.window for i in layers]


class Model:
    def __init__(self, config: Config, weights: Weights) -> None:
        self.config = config
        windows = config.windows()
        kinds = [window for window in (None, config.window) if window in windows]
        self.groups = tuple(
            KVGroup(windows.count(window), config.num_kv_heads, config.head_dim, window)
            for window in kinds
        )
        self.embedding = weights["model.embed_tokens"]
        self.layers = [
            Layer(
                config,
                weights.under(f"model.layers.{i}"),
                KVLayer(group=kinds.index(window), index=windows[:i].count(window)),
                config.rope if window is None else config.local_rope,
            )
            for i, window in enumerate(windows)
        ]
        self.norm = weights["model.norm"]
        head = weights.get("lm_head")
        self.head = self.embedding if head is None else head  # tied when the file has none

    def forward(self, ops: Ops) -> Value:
        # Rounded to float32 like llama.cpp's; transformers rounds it to the embedding's dtype,
        # which is float32 wherever we compare.
        x = ops.scale(ops.embed(self.embedding), math.sqrt(self.config.hidden_size))
        for layer in self.layers:
            x = layer.forward(ops, x)
        x = ops.rms_norm(ops.take(x), self.norm, self.config.norm_eps)
        return ops.linear(x, self.head)


class Layer:
    def __init__(self, config: Config, weights: Weights, kv: KVLayer, rope: Rope) -> None:
        self.attention_norm = Norm(config, weights, "input_layernorm")
        self.attention = Attention(config, weights.under("self_attn"), kv, rope)
        self.attention_out_norm = Norm(config, weights, "post_attention_layernorm")
        self.mlp_norm = Norm(config, weights, "pre_feedforward_layernorm")
        self.mlp = MLP(weights.under("mlp"))
        self.mlp_out_norm = Norm(config, weights, "post_feedforward_layernorm")

    def forward(self, ops: Ops, x: Value) -> Value:
        mixed = self.attention.forward(ops, self.attention_norm.forward(ops, x))
        x = ops.add(x, self.attention_out_norm.forward(ops, mixed))
        out = self.mlp.forward(ops, self.mlp_norm.forward(ops, x))
        return ops.add(x, self.mlp_out_norm.forward(ops, out))


class Attention:
    def __init__(self, config: Config, weights: Weights, kv: KVLayer, rope: Rope) -> None:
        self.kv, self.scale = kv, config.query_scalar**-0.5
        self.inv_freq = rope.inv_freq(config.head_dim)
        self.q, self.k, self.v, self.out = (weights[f"{name}_proj"] for name in "qkvo")
        self.q_norm, self.k_norm = (Norm(config, weights, f"{name}_norm") for name in "qk")

    def forward(self, ops: Ops, x: Value) -> Value:
        q = ops.rope(self.q_norm.forward(ops, ops.linear(x, self.q)), self.inv_freq)
        k = ops.rope(self.k_norm.forward(ops, ops.linear(x, self.k)), self.inv_freq)
        v = ops.linear(x, self.v)
        return ops.linear(ops.attention(q, k, v, self.kv, self.scale), self.out)


class MLP:
    def __init__(self, weights: Weights) -> None:
        self.gate, self.up, self.down = (weights[f"{name}_proj"] for name in ("gate", "up", "down"))

    def forward(self, ops: Ops, x: Value) -> Value:
        gated = ops.gelu_mul(ops.linear(x, self.gate), ops.linear(x, self.up))
        return ops.linear(gated, self.down)


class Norm:
    """The loader hands over 1 + w where a checkpoint keeps w."""

    def __init__(self, config: Config, weights: Weights, name: str) -> None:
        self.weight, self.eps = weights[name], config.norm_eps

    def forward(self, ops: Ops, x: Value) -> Value:
        return ops.rms_norm(x, self.weight, self.eps)


def tiny() -> Config:
    return Config(
        vocab_size=97,
        hidden_size=32,
        mlp_size=48,
        num_layers=3,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        norm_eps=1e-6,
        query_scalar=8,
        rope=Rope(theta=1_000_000),
        local_rope=Rope(theta=10_000),
        window=20,
        full_every=2,
    )
