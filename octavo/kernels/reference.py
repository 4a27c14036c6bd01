"""What every op means, in NumPy float32. Never optimised: the other homes are tested against it.

Owns no memory but the logits of the last batch. Knows no architecture and no file format.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from octavo.kernels.ops import KVLayer, Limits, Model
from octavo.kvcache.pool import PagePool
from octavo.registry import entry
from octavo.types import LOGITS_BLOCK, PAGE_SIZE, Batch, Ints, Logits, RawTensor, Tensor

PAGE_FORMATS = ("float16", "int8", "float32")
INSTRUCTION_SET = "numpy"


@contextmanager
def loader(threads: int) -> Iterator[Callable[[RawTensor], Tensor]]:
    """NumPy keeps its own threads; here there is nothing to wait for."""
    yield weight


def weight(raw: RawTensor) -> Tensor:
    """float32, in the tensor's own shape."""
    packed = raw.data if raw.rows is None else raw.data[raw.rows]
    values: Tensor = entry("octavo.quant", raw.format).dequantize(packed)
    return values.reshape(raw.shape)


def weight_bytes(weight: Tensor) -> int:
    return weight.nbytes


def compile(model: Model, pools: Sequence[PagePool], limits: Limits) -> "Program":
    """There is nothing to prepare, and no limit to hold: arrays are made as they are needed."""
    return Program(model, pools)


class Program:
    buffer_bytes = 0

    def __init__(self, model: Model, pools: Sequence[PagePool]) -> None:
        self._model, self._pools = model, pools

    def run(self, batch: Batch) -> None:
        self._logits: Tensor = self._model.forward(Formulas(batch, self._pools))

    def logits(self, first: int, last: int) -> Logits:
        return with_maxima(self._logits[first:last])


def with_maxima(values: Tensor) -> Logits:
    """Rows of logits and the maxima of their blocks."""
    starts = np.arange(0, values.shape[1], LOGITS_BLOCK)
    return Logits(values, np.maximum.reduceat(values, starts, axis=1))


class Formulas:
    """The ops over one batch, each computed as it is called."""

    def __init__(self, batch: Batch, pools: Sequence[PagePool] = ()) -> None:
        self._batch, self._pools = batch, pools

    def embed(self, table: Tensor) -> Tensor:
        return table[self._batch.token_ids]

    def linear(self, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
        product = x @ weight.T
        return product if bias is None else product + bias

    def rms_norm(self, x: Tensor, weight: Tensor, eps: float) -> Tensor:
        heads = x.reshape(len(x), -1, len(weight))
        mean_square = np.mean(heads * heads, axis=-1, keepdims=True)
        return (heads / np.sqrt(mean_square + np.float32(eps)) * weight).reshape(x.shape)

    def rope(self, x: Tensor, inv_freq: Tensor) -> Tensor:
        angle = self._batch.positions[:, None].astype(np.float32) * inv_freq  # [tokens, half]
        cos, sin = np.cos(angle)[:, None], np.sin(angle)[:, None]  # the same for every head
        a, b = np.moveaxis(x.reshape(len(x), -1, 2, len(inv_freq)), 2, 0)  # [tokens, heads, half]
        return np.concatenate([a * cos - b * sin, b * cos + a * sin], axis=-1).reshape(x.shape)

    def attention(self, q: Tensor, k: Tensor, v: Tensor, layer: KVLayer, scale: float) -> Tensor:
        batch, pool = self._batch, self._pools[layer.group]
        mixed = np.empty_like(q)
        for i, table in enumerate(batch.tables[layer.group]):
            new = slice(batch.starts[i], batch.starts[i + 1])  # this sequence's rows of q, k and v
            positions = batch.positions[new]
            _store(pool, layer.index, table, positions, k[new], v[new])
            scaled = q[new] * np.float32(scale)
            mixed[new] = _attend(scaled, pool, layer.index, table, positions)
        return mixed

    def silu_mul(self, gate: Tensor, up: Tensor) -> Tensor:
        sigmoid = np.exp(-np.logaddexp(np.float32(0), -gate))  # 1 / (1 + e^-x) would overflow
        return gate * sigmoid * up

    def gelu_mul(self, gate: Tensor, up: Tensor) -> Tensor:
        """Hendrycks and Gimpel, "Gaussian error linear units", section 2."""
        inner = np.float32(np.sqrt(2 / np.pi)) * (gate + np.float32(0.044715) * gate**3)
        return gate * (1 + np.tanh(inner)) / 2 * up

    def add(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b

    def scale(self, x: Tensor, factor: float) -> Tensor:
        return x * np.float32(factor)

    def take(self, x: Tensor) -> Tensor:
        return x[self._batch.outputs]


def _store(pool: PagePool, layer: int, table: Ints, positions: Ints, k: Tensor, v: Tensor) -> None:
    """One sequence's rows of k and v [tokens, kv_heads * head_dim], as the page's format has it."""
    page, slot = table[positions // PAGE_SIZE], positions % PAGE_SIZE
    keys, key_scales = pool.format.encode(k.reshape(len(k), pool.group.kv_heads, -1))
    values, value_scales = pool.format.encode(v.reshape(len(v), pool.group.kv_heads, -1))
    pool.keys(layer)[page, :, :, slot] = keys
    pool.values(layer)[page, :, slot] = values
    if pool.format.SCALE:
        pool.key_scales(layer)[page, :, slot] = key_scales
        pool.value_scales(layer)[page, :, slot] = value_scales


def _past(pool: PagePool, layer: int, pages: Ints, inside: slice) -> tuple[Tensor, Tensor]:
    """What the slots `inside` these pages mean: keys [kv_heads, 1, head_dim, past] and values
    [kv_heads, 1, past, head_dim]."""
    kv_heads, head_dim = pool.group.kv_heads, pool.group.head_dim

    def joined(of_pages: Tensor, axis: int, *shape: int) -> Tensor:
        return np.moveaxis(of_pages[pages], 0, axis).reshape(kv_heads, 1, *shape)

    k = joined(pool.keys(layer), 2, head_dim, -1)[..., inside].astype(np.float32)
    v = joined(pool.values(layer), 1, -1, head_dim)[:, :, inside].astype(np.float32)
    if pool.format.SCALE:
        k *= joined(pool.key_scales(layer), 1, 1, -1)[..., inside]
        v *= joined(pool.value_scales(layer), 1, -1, 1)[:, :, inside]
    return k, v


def _attend(q: Tensor, pool: PagePool, layer: int, table: Ints, positions: Ints) -> Tensor:
    """softmax(q kᵀ) v of one sequence, over the positions that its first query can see and all
    after it: [queries, heads * head_dim]."""
    kv_heads, head_dim = pool.group.kv_heads, pool.group.head_dim
    window = pool.group.window or positions[-1] + 1
    first, end = max(0, positions[0] - window + 1), positions[-1] + 1
    past = np.arange(first, end)
    pages = table[first // PAGE_SIZE : (end - 1) // PAGE_SIZE + 1]  # others may be gone
    inside = slice(first % PAGE_SIZE, first % PAGE_SIZE + len(past))
    k, v = _past(pool, layer, pages, inside)

    # [queries, kv_heads, query heads that share one, head_dim] -> [.., share, queries, head_dim]
    heads = q.reshape(len(q), kv_heads, -1, head_dim).transpose(1, 2, 0, 3)

    distance = positions[:, None] - past  # [queries, past]
    visible = (distance >= 0) & (distance < window)
    scores = np.where(visible, heads @ k, -np.inf)
    weights = np.exp(scores - scores.max(axis=-1, keepdims=True))
    mixed = weights / weights.sum(axis=-1, keepdims=True) @ v
    return mixed.transpose(2, 0, 1, 3).reshape(q.shape)
