"""Speed on CPUs: a model's forward is recorded once, as a flat program that C++ replays each step.

Knows how neighbouring ops are joined and which buffers they may share; the kernels are in cpp/.
"""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from mmap import MADV_DONTNEED, mmap
from typing import Any, TypeAlias

import numpy as np

from octavo.errors import BadCheckpoint
from octavo.kernels import _cpu
from octavo.kernels.ops import KVLayer, Limits, Model
from octavo.kvcache.pool import PagePool
from octavo.quant import _codes
from octavo.registry import entry
from octavo.types import Batch, Bytes, KVGroup, Logits, RawTensor, Tensor

PAGE_FORMATS = ("float16", "int8")
INSTRUCTION_SET: str = _cpu.instruction_sets()[0]
SLICE_BYTES = 1 << 20  # of a tensor repacked at a time
MAPPED_AROUND = 1 << 16  # bytes of a file that come with one that is read
NO_WINDOW = 1 << 30  # keys

Weight: TypeAlias = "_cpu.Weight | Tensor"


@contextmanager
def loader(threads: int) -> Iterator[Callable[[RawTensor], Weight]]:
    """`weight`, for tensors that share memory (huge pages pay only where many lie together) and
    are repacked beside each other: all are ready when the context is left."""
    arena, parts = _cpu.Arena(), list[Future[None]]()
    with ThreadPoolExecutor(threads) as pool:

        def load(raw: RawTensor) -> Weight:
            if len(raw.shape) == 1:
                return _vector(raw)
            packed, put = _matrix(raw, arena)
            parts.extend(pool.submit(_put_rows, raw, part, put) for part in _slices(raw))
            return packed

        try:
            yield load
            for part in parts:
                part.result()
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def weight(raw: RawTensor) -> Weight:
    """A matrix repacked for the kernels (cpp/weights.h), or a vector as float32."""
    with loader(1) as load:
        return load(raw)


def _vector(raw: RawTensor) -> Tensor:
    _file_of(raw)
    # A copy: one that lies in the file would keep all of the file in memory.
    values: Tensor = np.array(entry("octavo.quant", raw.format).dequantize(raw.data), np.float32)
    return values.reshape(-1) if raw.rows is None else values.reshape(-1)[raw.rows]


def _slices(raw: RawTensor) -> Iterator[slice]:
    """Of the rows, whole groups of eight."""
    rows = raw.shape[0]
    step = max(8, SLICE_BYTES // max(1, raw.data.shape[1]) // 8 * 8)
    return (slice(first, min(first + step, rows)) for first in range(0, rows, step))


def _put_rows(raw: RawTensor, part: slice, put: Callable[[int, Bytes], None]) -> None:
    """Reads a slice of the rows and lets go of it, so that the file and the weights made of it are
    never both in this process's memory. The system's cache keeps the file."""
    file = _file_of(raw)
    put(part.start, raw.data[part] if raw.rows is None else raw.data[raw.rows[part]])
    if file is not None:
        start = _address(raw.data[part]) - _address(np.frombuffer(file, np.uint8))
        ahead = start % MAPPED_AROUND
        size = min(raw.data[part].nbytes + ahead + MAPPED_AROUND, len(file) - start + ahead)
        file.madvise(MADV_DONTNEED, start - ahead, size)


def _file_of(raw: RawTensor) -> mmap | None:
    """The mapping that the tensor is a view of. Raises BadCheckpoint where the file became shorter
    since: to touch what is gone ends the process."""
    base: Any = raw.data
    while isinstance(base, np.ndarray):
        base = base.base
    base = base.obj if isinstance(base, memoryview) else base
    if not isinstance(base, mmap):
        return None
    if base.size() < len(base):
        raise BadCheckpoint(f"the file became shorter before tensor {raw.name!r} was read")
    return base


def _address(data: Bytes) -> int:
    address: int = data.__array_interface__["data"][0]
    return address


def weight_bytes(weight: Weight) -> int:
    return weight.nbytes if isinstance(weight, np.ndarray) else weight.bytes


def _matrix(
    raw: RawTensor, arena: "_cpu.Arena"
) -> tuple["_cpu.Weight", Callable[[int, Bytes], None]]:
    """Memory for the matrix, and what fills its rows from one on."""
    rows, columns = raw.shape
    split: Callable[[Bytes], _codes.Codes] | None
    split = getattr(entry("octavo.quant", raw.format), "split", None)
    if split is None:
        floats = _cpu.Weight.floats(arena, rows, columns, raw.format)
        return floats, partial(floats.put_floats, INSTRUCTION_SET)
    one = split(np.empty_like(raw.data[:1]))
    has_min, has_sub = one.min is not None, one.sub_scale is not None
    codes = _cpu.Weight.codes(arena, rows, columns, one.bits, one.group, has_min, has_sub)
    return codes, lambda first, rows: put_codes(codes, first, split(rows))


def put_codes(weight: "_cpu.Weight", first: int, c: _codes.Codes) -> None:
    """Fills rows from `first` on."""
    weight.put_codes(
        INSTRUCTION_SET,
        first,
        [(plane.bits, plane.bytes) for plane in c.planes],
        c.scale.view(np.uint16),
        None if c.min is None else c.min.view(np.uint16),
        c.sub_scale,
        None if c.sub_min is None else c.sub_min.view(np.int8),
    )


def compile(model: Model, pools: Sequence[PagePool], limits: Limits) -> "Program":
    recorder = Recorder(model.groups)
    logits = model.forward(recorder)
    return Program(recorder.nodes, logits, pools, limits)


@dataclass(slots=True, eq=False)
class Node:
    """A value of the recorded program: what makes it, and from which others."""

    op: str
    inputs: tuple["Node", ...]
    width: int  # columns
    constants: tuple[Any, ...] = ()


class Recorder:
    """The ops, writing down what they are asked."""

    def __init__(self, groups: tuple[KVGroup, ...]) -> None:
        self.nodes: list[Node] = []
        self._groups = groups

    def embed(self, table: "_cpu.Weight") -> Node:
        return self._node("embed", (), table.columns, table)

    def linear(self, x: Node, weight: "_cpu.Weight", bias: Tensor | None = None) -> Node:
        if weight.columns != x.width:
            raise BadCheckpoint(f"a matrix has {weight.columns} columns for {x.width} inputs")
        return self._node("linear", (x,), weight.rows, weight, bias)

    def rms_norm(self, x: Node, weight: Tensor, eps: float) -> Node:
        return self._node("rms_norm", (x,), x.width, weight, eps)

    def rope(self, x: Node, inv_freq: Tensor) -> Node:
        return self._node("rope", (x,), x.width, np.ascontiguousarray(inv_freq, np.float32))

    def attention(self, q: Node, k: Node, v: Node, layer: KVLayer, scale: float) -> Node:
        group = self._groups[layer.group]
        if k.width != group.kv_heads * group.head_dim or v.width != k.width:
            raise BadCheckpoint(
                f"keys and values have {k.width} and {v.width} columns, not "
                f"{group.kv_heads} heads of {group.head_dim}"
            )
        scaled = self.scale(q, scale)
        heads = q.width // group.head_dim
        return self._node("attend", (scaled, k, v), q.width, layer, heads)

    def silu_mul(self, gate: Node, up: Node) -> Node:
        return self._node("silu_mul", (gate, up), gate.width)

    def gelu_mul(self, gate: Node, up: Node) -> Node:
        return self._node("gelu_mul", (gate, up), gate.width)

    def add(self, a: Node, b: Node) -> Node:
        return self._node("add", (a, b), a.width)

    def scale(self, x: Node, factor: float) -> Node:
        return self._node("scale", (x,), x.width, factor)

    def take(self, x: Node) -> Node:
        return self._node("take", (x,), x.width)

    def _node(self, op: str, inputs: tuple[Node, ...], width: int, *constants: Any) -> Node:
        node = Node(op, inputs, width, constants)
        self.nodes.append(node)
        return node


@dataclass(slots=True, eq=False)
class Instruction:
    """One call of the native recorder. May write where it reads: its columns do not mix."""

    reads: list[Node]
    writes: list[Node]
    call: Callable[..., None]  # with the buffers of reads, then of writes
    in_place: bool = False


class Program:
    """Owns the native program; weights and pools are kept alive by it."""

    def __init__(
        self, nodes: list[Node], logits: Node, pools: Sequence[PagePool], limits: Limits
    ) -> None:
        pages = [
            (pool.pages, pool.dtype, pool.group.head_dim, pool.group.window or NO_WINDOW)
            for pool in pools
        ]
        self._native = _cpu.Program(
            INSTRUCTION_SET, limits.threads, limits.tokens, limits.rows, pages
        )
        buffers = _Buffers(self._native)
        instructions = list(_lower(nodes, self._native))
        _record(instructions, buffers, keep=logits)
        self._native.result(buffers.of(logits), logits.width)
        self._batch: Batch | None = None

    @property
    def buffer_bytes(self) -> int:
        return self._native.buffer_bytes

    def run(self, batch: Batch) -> None:
        self._batch = batch  # the native program reads its arrays until the next run
        self._native.run(
            batch.token_ids, batch.positions, batch.starts, list(batch.tables), batch.outputs
        )

    def logits(self, first: int, last: int) -> Logits:
        return Logits(*self._native.logits(first, last))

    def start_profile(self) -> None:
        self._native.start_profile()

    def stop_profile(self) -> "list[_cpu.Measured]":
        """What each operation has taken since; the first two are "elapsed", all time, and "replay",
        the time of the program's stages."""
        return self._native.stop_profile()


def _lower(nodes: list[Node], native: "_cpu.Program") -> Iterator[Instruction]:
    """Nodes in an order that computes them. Matrices that read the same input become one stage;
    an input of codes is quantized once."""
    done: set[int] = set()
    angles: dict[bytes, Node] = {}
    for node in nodes:
        if id(node) in done:
            continue
        if node.op == "linear":
            together = [n for n in nodes if n.op == "linear" and n.inputs == node.inputs]
            done.update(map(id, together))
            yield from _linears(together, native)
        elif node.op == "rope":
            yield from _rope(node, angles, native)
        elif node.op == "attend":
            yield from _attend(node, native)
        else:
            yield _row_op(node, native)


def _linears(together: list[Node], native: "_cpu.Program") -> Iterator[Instruction]:
    (x,) = together[0].inputs
    for is_codes in (True, False):
        some = [n for n in together if n.constants[0].is_codes == is_codes]
        if not some:
            continue
        read = x
        if is_codes:
            read = Node("tiles", (x,), x.width)
            yield Instruction([x], [read], lambda a, to: native.quantize(a, x.width, to))
        yield Instruction([read], some, partial(_products, native, some))


def _products(native: "_cpu.Program", nodes: list[Node], x: int, *out: int) -> None:
    native.linear(
        x,
        [
            (node.constants[0], _padded(node.constants[1]), to)
            for node, to in zip(nodes, out, strict=True)
        ],
    )


def _padded(bias: object) -> Tensor | None:
    """Filled up to whole groups of eight rows, as the weights are."""
    if bias is None:
        return None
    values = np.asarray(bias, np.float32)
    return np.pad(values, (0, -len(values) % 8))


def _rope(node: Node, angles: dict[bytes, Node], native: "_cpu.Program") -> Iterator[Instruction]:
    (inv_freq,) = node.constants
    half, heads = len(inv_freq), node.width // (2 * len(inv_freq))
    table = angles.get(inv_freq.tobytes())
    if table is None:
        table = angles[inv_freq.tobytes()] = Node("angles", (), 2 * half)
        yield Instruction([], [table], lambda to: native.angles(inv_freq, to))
    yield Instruction(
        [*node.inputs, table],
        [node],
        lambda a, angle, to: native.rope(a, angle, heads, half, to),
        in_place=True,
    )


def _attend(node: Node, native: "_cpu.Program") -> Iterator[Instruction]:
    q, k, v = node.inputs
    layer, heads = node.constants
    yield Instruction([k, v], [], lambda k, v: native.store_kv(k, v, layer.group, layer.index))
    yield Instruction(
        [q], [node], lambda q, to: native.attend(q, heads, layer.group, layer.index, to)
    )


def _row_op(node: Node, native: "_cpu.Program") -> Instruction:
    constants = node.constants
    width = -(-node.width // 8) * 8  # buffers have room for it, and what fills them up is zero

    def norm(a: int, to: int) -> None:
        weight, eps = constants
        values = np.ascontiguousarray(weight, np.float32)
        native.rms_norm(a, values, node.width // len(values), eps, to)

    calls: dict[str, Callable[..., None]] = {
        "embed": lambda to: native.embed(constants[0], to),
        "take": native.take,
        "rms_norm": norm,
        "add": lambda a, b, to: native.add(a, b, width, to),
        "scale": lambda a, to: native.scale(a, constants[0], width, to),
        "silu_mul": lambda a, b, to: native.silu_mul(a, b, width, to),
        "gelu_mul": lambda a, b, to: native.gelu_mul(a, b, width, to),
    }
    in_place = node.op not in ("embed", "take")
    return Instruction(list(node.inputs), [node], calls[node.op], in_place)


class _Buffers:
    """Which buffer holds which node; a buffer whose node nobody reads any more is used again."""

    def __init__(self, native: "_cpu.Program") -> None:
        self._native = native
        self._of: dict[int, int] = {}
        self._free: dict[tuple[bool, int], list[int]] = {}

    def of(self, node: Node) -> int:
        return self._of[id(node)]

    def take(self, node: Node) -> int:
        is_tiles = node.op == "tiles"
        free = self._free.get((is_tiles, node.width), [])
        make = self._native.tiles if is_tiles else self._native.buffer
        self._of[id(node)] = free.pop() if free else make(node.width)
        return self.of(node)

    def give_back(self, node: Node) -> None:
        self._free.setdefault((node.op == "tiles", node.width), []).append(self.of(node))

    def start_outputs(self) -> None:
        """Buffers made from here on have a row for each wanted token, not for each token."""
        self._native.start_outputs()
        self._free.clear()


def _record(instructions: list[Instruction], buffers: _Buffers, keep: Node) -> None:
    last_use = {id(node): i for i, step in enumerate(instructions) for node in step.reads}
    for i, step in enumerate(instructions):
        over = {id(n): n for n in step.reads if last_use[id(n)] == i and n is not keep}
        if any(node.op == "take" for node in step.writes):
            buffers.start_outputs()
            over.clear()  # read again for every block of rows
        reads = [buffers.of(node) for node in step.reads]
        if step.in_place:
            for node in over.values():
                buffers.give_back(node)
        step.call(*reads, *[buffers.take(node) for node in step.writes])
        if not step.in_place:
            for node in over.values():
                buffers.give_back(node)
