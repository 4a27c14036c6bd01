"""Runs single ops and whole tiny models, one batch made by hand at a time.

forward = lambda ops, load: ops.scale(ops.embed(load(floats(table))), 2)
compute(forward, tokens(3))        as the cpu home records and replays it
meaning(forward, tokens(3))        as the reference's formulas read, in double precision
"""

from types import SimpleNamespace

import numpy as np

from octavo.kernels import cpu
from octavo.kernels.ops import Limits
from octavo.kernels.reference import Formulas
from octavo.kernels.reference import weight as dequantized
from octavo.kvcache.pool import PagePool
from octavo.loader.checkpoint import Weights, open_checkpoint
from octavo.registry import entry
from octavo.types import PAGE_SIZE, Batch, RawTensor

NO_PAGE = 2**31 - 1  # reading it is an error
ULP = 2.0**-24  # the most by which a float32 operation is off, as a share of its result


def noise(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype(np.float32)


def floats(values):
    """A checkpoint's F32 tensor."""
    rows = np.ascontiguousarray(values, np.float32)
    return RawTensor("x", "f32", rows.shape, rows.reshape(-1, rows.shape[-1]).view(np.uint8))


def packed(form, data, rows=None):
    """A checkpoint's matrix in one of octavo/quant's formats."""
    file = entry("octavo.quant", form)
    height = len(data) if rows is None else len(rows)
    return RawTensor("w", form, (height, data.shape[1] // file.BYTES * file.BLOCK), data, rows)


def tokens(count, outputs=None):
    """Token i is i, of one sequence that begins."""
    return batch(range(count), range(count), [0, count] if count else [0], outputs=outputs)


def batch(token_ids, positions, starts, tables=(), outputs=None):
    wanted = range(len(token_ids)) if outputs is None else outputs
    lists = (token_ids, positions, starts, wanted)
    ids, places, cuts, rows = (np.array(list(values), np.int32) for values in lists)
    return Batch(ids, places, cuts, tuple(np.array(table, np.int32) for table in tables), rows)


def model_of(forward, load, groups=()):
    return SimpleNamespace(groups=groups, forward=lambda ops: ops.take(forward(ops, load)))


def compute(forward, step, *, threads=1):
    return Compiled(forward, threads=threads).run(step)


def meaning(forward, step, pools=()):
    def exact(raw):
        return dequantized(raw).astype(np.float64)

    return forward(Formulas(step, pools), exact)[step.outputs]


class Compiled:
    """Ops without attention in the cpu home."""

    def __init__(self, forward, *, threads=1, most=64):
        model = model_of(forward, cpu.weight)
        self.program = cpu.compile(model, (), Limits(most, most, most, threads))

    def run(self, step):
        self.program.run(step)
        return self.program.logits(0, len(step.outputs)).values.copy()


class Running:
    """A model and its pages in a home. Untouched pages are full of what nobody may ever read."""

    def __init__(self, home, model, *, threads=1, pages=64, tokens=512, dtype="float16"):
        self.pools = [PagePool(group, pages, dtype) for group in model.groups]
        for pool in self.pools:
            pool.pages[:] = 0x80  # -128 is no code either
            for floats in floats_of(pool):
                floats[0::2], floats[1::2] = np.nan, np.inf
        self.program = home.compile(model, self.pools, Limits(tokens, 32, tokens, threads))

    def step(self, *sequences):
        """The logits of every token, [tokens, vocab], of sequences that each bring (token ids,
        the position of the first, its table of pages: one, or one for each KV group)."""
        step = steps(sequences, len(self.pools))
        self.program.run(step)
        return self.program.logits(0, len(step.outputs)).values.copy()


def floats_of(pool):
    """Of all layers, the numbers of its pages, or their scales where the numbers are codes."""
    for layer in range(pool.group.num_layers):
        if pool.format.SCALE:
            yield from (pool.key_scales(layer), pool.value_scales(layer))
        else:
            yield from (pool.keys(layer), pool.values(layer))


def steps(sequences, num_groups):
    """The batch of all tokens of (token ids, first position, table) each."""
    ids, positions, starts = [], [], [0]
    width = max(np.shape(table)[-1] for _, _, table in sequences)
    tables = np.full((num_groups, len(sequences), width), NO_PAGE, np.int32)
    for i, (token_ids, first, table) in enumerate(sequences):
        ids += list(token_ids)
        positions += range(first, first + len(token_ids))
        starts.append(len(ids))
        tables[:, i, : np.shape(table)[-1]] = table
    return batch(ids, positions, starts, tuple(tables))


def pages_for(num_tokens, seed=0, pages=64):
    """As many pages as hold so many tokens, in no order."""
    count = -(-num_tokens // PAGE_SIZE)
    return np.random.default_rng(seed).permutation(pages)[:count]


def tiny_model(path, home):
    """The checkpoint at `path` with its weights as `home` keeps them."""
    checkpoint = open_checkpoint(path)
    module = entry("octavo.models", checkpoint.metadata.text("model_type"))
    config = module.Config.read(checkpoint.metadata)
    return module.Model(config, Weights(checkpoint.tensors, home.weight))
