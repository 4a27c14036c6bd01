"""Our engine at a piece of work, timed from token ids to the last event: everything that a request
pays is in it. Also what the work must cost at least. Knows no peer."""

import time
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

from octavo.bench._work import token_id

if TYPE_CHECKING:
    from octavo.engine.loading import Loaded

NOTHING_AROUND = nullcontext()


@dataclass(frozen=True, slots=True)
class Work:
    prompt_tokens: int
    new_tokens: int  # steps of the timed generation
    batch: int
    context: int  # tokens that each sequence holds when generation is timed
    kv_dtype: str = "float16"

    @property
    def orders(self) -> dict[str, dict[str, int]]:
        """What a peer is told to do, by kind."""
        generate = {"sequences": self.batch, "context": self.context, "steps": self.new_tokens}
        return {"prompt": {"tokens": self.prompt_tokens}, "generate": generate}

    @property
    def room(self) -> dict[str, int]:
        tokens = max(self.prompt_tokens, self.context + self.new_tokens)
        return {"sequences": self.batch, "tokens": tokens}

    @property
    def most_steps(self) -> int:
        """That the first sequence of a batch may take: it generates on while the others are
        prefilled, one step a chunk of theirs at most."""
        return self.new_tokens + self.batch * (self.context // 128 + 2)


@dataclass(frozen=True, slots=True)
class Cost:
    """What a model must do at least, to hold speeds against the machine's limits."""

    token_multiply_adds: int  # of the matrices, for a token of a prompt; the head is not needed
    head_multiply_adds: int
    step_bytes: int  # weights, and the keys and values of a batch


class Ours:
    name = "ours"

    def __init__(self, model: str, work: Work, threads: int | None) -> None:
        from octavo.config import Config
        from octavo.engine.engine import Engine
        from octavo.engine.loading import load

        config = Config(
            model,
            max_context=max(work.prompt_tokens, work.context) + work.most_steps + 1,
            max_running=work.batch,
            step_tokens=max(256, 2 * work.batch),
            threads=threads,
            prefix_cache=False,
            kv_dtype=work.kv_dtype,
        )
        self.work, self.loaded = work, load(config)
        self._engine = Engine(config, self.loaded)

    def seconds(self, kind: str, around: AbstractContextManager[None] = NOTHING_AROUND) -> float:
        """`around` surrounds what is timed."""
        if kind == "prompt":
            return self._prompt(self.work.prompt_tokens, around)
        return self._generate(around)

    def wake(self) -> None:
        self._prompt(min(64, self.work.prompt_tokens), NOTHING_AROUND)

    def _prompt(self, num_tokens: int, around: AbstractContextManager[None]) -> float:
        """From a prompt to its first token."""
        with around:
            start = time.perf_counter()
            self._add("prompt", num_tokens, 1)
            while self._engine.has_work:
                self._engine.step()
            return time.perf_counter() - start

    def _generate(self, around: AbstractContextManager[None]) -> float:
        """`new_tokens` steps, once every sequence of the batch has its first token."""
        from octavo.types import Delta

        begun: set[str] = set()
        for i in range(self.work.batch):
            self._add(f"sequence {i}", self.work.context, self.work.most_steps)
        while len(begun) < self.work.batch:
            begun.update(id for id, event in self._engine.step() if isinstance(event, Delta))
        with around:
            start = time.perf_counter()
            for _ in range(self.work.new_tokens):
                self._engine.step()
            seconds = time.perf_counter() - start
        for id in begun:
            self._engine.cancel(id)
        self._engine.step()
        return seconds

    def _add(self, id: str, num_tokens: int, max_tokens: int) -> None:
        from octavo.types import Request, SamplingParams

        params = SamplingParams(max_tokens=max_tokens, temperature=0, ignore_eos=True, seed=0)
        size = self._engine.tokenizer.vocab_size
        ids = tuple(token_id(i, size) for i in range(num_tokens))
        self._engine.add(Request(id, ids, params))


def cost_of(loaded: "Loaded", work: Work) -> Cost:
    from octavo.kvcache.pool import page_bytes
    from octavo.loader.checkpoint import open_checkpoint
    from octavo.types import PAGE_SIZE

    tensors = open_checkpoint(loaded.path).tensors
    matrices = {name: raw for name, raw in tensors.items() if len(raw.shape) == 2}
    table = matrices.pop("model.embed_tokens.weight")
    is_tied = matrices.pop("lm_head.weight", None) is None
    inner = sum(prod(raw.shape) for raw in matrices.values())
    # Of a table that is not the head as well, a step reads one row a token.
    unread = 0 if is_tied else table.data.nbytes
    seen = sum(
        page_bytes(group, work.kv_dtype)
        // PAGE_SIZE
        * min(work.context, group.window or work.context)
        for group in loaded.groups
    )
    weights = loaded.plan.weight_bytes - unread
    return Cost(inner, prod(table.shape), weights + work.batch * seen)
