"""Llama: pre-norm decoder, grouped-query attention, SwiGLU MLP. So are SmolLM2 and Mistral."""

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
    rope: Rope
    window: int | None = None  # positions a query sees, its own included; None: all

    @classmethod
    def read(cls, meta: Metadata) -> Self:
        meta.require(hidden_act="silu", partial_rotary_factor=1.0)
        hidden, heads = meta.integer("hidden_size"), meta.integer("num_attention_heads")
        return cls(
            vocab_size=meta.integer("vocab_size"),
            hidden_size=hidden,
            mlp_size=meta.integer("intermediate_size"),
            num_layers=meta.integer("num_hidden_layers"),
            num_heads=heads,
            num_kv_heads=meta.integer("num_key_value_heads", heads),
            head_dim=meta.integer("head_dim", hidden // heads),
            norm_eps=meta.number("rms_norm_eps"),
            rope=Rope.read(meta),
            window=meta.integer("sliding_window", None),
        )


class Model:
    def __init__(self, config: Config, weights: Weights) -> None:
        self.config = config
        self.groups = (
            KVGroup(config.num_layers, config.num_kv_heads, config.head_dim, config.window),
        )
        self.embedding = weights["model.embed_tokens"]
        self.layers = [
            Layer(config, weights.under(f"model.layers.{i}"), KVLayer(group=0, index=i))
            for i in range(config.num_layers)
        ]
        self.norm = weights["model.norm"]
        head = weights.get("lm_head")
        self.head = self.embedding if head is None else head  # tied when the file has none

    def forward(self, ops: Ops) -> Value:
        x = ops.embed(self.embedding)
        for layer in self.layers:
            x = layer.forward(ops, x)
        x = ops.rms_norm(ops.take(x), self.norm, self.config.norm_eps)
        return ops.linear(x, self.head)


class Layer:
    def __init__(self, config: Config, weights: Weights, kv: KVLayer) -> None:
        self.eps = config.norm_eps
        self.attention_norm = weights["input_layernorm"]
        self.attention = Attention(config, weights.under("self_attn"), kv)
        self.mlp_norm = weights["post_attention_layernorm"]
        self.mlp = MLP(weights.under("mlp"))

    def forward(self, ops: Ops, x: Value) -> Value:
        normed = ops.rms_norm(x, self.attention_norm, self.eps)
        x = ops.add(x, self.attention.forward(ops, normed))
        normed = ops.rms_norm(x, self.mlp_norm, self.eps)
        return ops.add(x, self.mlp.forward(ops, normed))


class Attention:
    def __init__(self, config: Config, weights: Weights, kv: KVLayer) -> None:
        self.kv, self.scale = kv, config.head_dim**-0.5
        self.inv_freq = config.rope.inv_freq(config.head_dim)
        self.q, self.k, self.v, self.out = (Linear(weights, f"{name}_proj") for name in "qkvo")

    def forward(self, ops: Ops, x: Value) -> Value:
        q = ops.rope(self.q.forward(ops, x), self.inv_freq)
        k = ops.rope(self.k.forward(ops, x), self.inv_freq)
        v = self.v.forward(ops, x)
        return self.out.forward(ops, ops.attention(q, k, v, self.kv, self.scale))


class MLP:
    def __init__(self, weights: Weights) -> None:
        self.gate, self.up, self.down = (
            Linear(weights, f"{name}_proj") for name in ("gate", "up", "down")
        )

    def forward(self, ops: Ops, x: Value) -> Value:
        gated = ops.silu_mul(self.gate.forward(ops, x), self.up.forward(ops, x))
        return self.down.forward(ops, gated)


class Linear:
    """A matrix, and a bias where the checkpoint has one."""

    def __init__(self, weights: Weights, name: str) -> None:
        self.weight, self.bias = weights[name], weights.get(f"{name}.bias")

    def forward(self, ops: Ops, x: Value) -> Value:
        return ops.linear(x, self.weight, self.bias)


def tiny() -> Config:
    return Config(
        vocab_size=97,
        hidden_size=32,
        mlp_size=48,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        norm_eps=1e-6,
        rope=Rope(theta=10_000),
    )
