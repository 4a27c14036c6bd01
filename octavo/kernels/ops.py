"""The contract: every op a model may call, once, as types. Shapes are what reference.py does.

A model is written once, as `forward(ops)`. A home gives it an `ops` and decides what a Value is:
an array that is computed at once (reference), or a node of a program that is recorded once and
replayed every step (cpu). The batch belongs to the home: a model never sees it.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol, TypeAlias

from octavo.kvcache.pool import PagePool
from octavo.types import Batch, KVGroup, Logits, RawTensor, Tensor

Value: TypeAlias = Any  # [tokens, width] in one home's own form
Weight: TypeAlias = Any  # a checkpoint tensor in one home's own form


@dataclass(frozen=True, slots=True)
class KVLayer:
    """Which pages an attention layer reads and writes."""

    group: int  # index into the model's groups
    index: int  # the layer's place within the group


class Ops(Protocol):
    def embed(self, table: Weight) -> Value:
        """The table's row for each token of the batch: [tokens, hidden]."""

    def linear(self, x: Value, weight: Weight, bias: Weight | None = None) -> Value:
        """[tokens, in] @ [out, in]ᵀ + [out] -> [tokens, out]"""

    def rms_norm(self, x: Value, weight: Weight, eps: float) -> Value:
        """x / sqrt(mean(x²) + eps) * weight, over each len(weight) columns: a row of
        heads * head_dim columns is normalised head by head."""

    def rope(self, x: Value, inv_freq: Tensor) -> Value:
        """Rotates the pairs (x[d], x[d + half]) of every head by position * inv_freq[d];
        half = len(inv_freq), head_dim = 2 * half."""

    def attention(self, q: Value, k: Value, v: Value, layer: KVLayer, scale: float) -> Value:
        """Writes k and v [tokens, kv_heads * head_dim] into the pages, in the pages' own
        precision, then attends causally (within the group's window, if it has one) from
        q [tokens, heads * head_dim] over each sequence's whole past."""

    def silu_mul(self, gate: Value, up: Value) -> Value: ...

    def gelu_mul(self, gate: Value, up: Value) -> Value:
        """gelu(gate) * up, with the tanh form of GELU."""

    def add(self, a: Value, b: Value) -> Value: ...

    def scale(self, x: Value, factor: float) -> Value: ...

    def take(self, x: Value) -> Value:
        """The rows whose logits are wanted (`Batch.outputs`): [rows, width]. Called once; what a
        model computes after it is computed for those rows only."""


class Model(Protocol):
    """What the homes and the engine need of an architecture."""

    groups: tuple[KVGroup, ...]

    def forward(self, ops: Ops) -> Value:
        """Logits of the wanted rows: [rows, vocab]."""


@dataclass(frozen=True, slots=True)
class Limits:
    """The most one step may hold; buffers are made for it, once."""

    tokens: int
    sequences: int
    rows: int  # rows of logits made at a time
    threads: int


class Program(Protocol):
    """A model made ready to run."""

    buffer_bytes: int

    def run(self, batch: Batch) -> None:
        """Computes every token of the batch up to `take`, and fills its KV pages."""

    def logits(self, first: int, last: int) -> Logits:
        """Of the wanted rows [first, last) of the last batch; at most `Limits.rows` of them, valid
        until the next call."""


class Home(Protocol):
    """A module of this folder that computes."""

    PAGE_FORMATS: tuple[str, ...]  # of octavo/kvcache/formats: the KV pages it can read
    INSTRUCTION_SET: str  # of the machine; another one may give other bits

    def loader(self, threads: int) -> AbstractContextManager[Callable[[RawTensor], Weight]]:
        """For all the tensors of one model: brings each into this home's own form. They may be
        used once the context is left."""

    def weight_bytes(self, weight: Weight) -> int:
        """The memory it takes."""

    def compile(self, model: Model, pools: Sequence[PagePool], limits: Limits) -> Program: ...
