"""llama.cpp's C interface as its forks share it; what differs among them is their own file's.

A fork's file passes the module of its ctypes bindings, a model's and a context's parameters and
two functions: one that forgets all tokens, one that frees a model.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any, TypeAlias

from octavo.bench._work import token_id

PIECE = 512  # tokens of a prompt given at once, the forks' own default
SLACK = 64  # tokens of room that nobody asked for

Row: TypeAlias = tuple[int, int, int]  # token id, position, sequence


@dataclass(frozen=True, slots=True)
class Fork:
    package: str
    bindings: str  # the module's name
    forget: Callable[[Any, Any], None]  # of (bindings, context)
    free_model: str

    def find(self) -> str:
        self.load()
        try:
            return version(self.package)
        except PackageNotFoundError:
            return "unknown"

    def load(self) -> Any:
        try:
            return import_module(self.bindings)
        except ImportError as error:
            hint = f"pip install {self.package}, or give --peer {self.package}=PYTHON"
            raise ImportError(f"{self.package} is not installed here: {hint}") from error


class Llama:
    """One model and one context, for `sequences` of `tokens` each."""

    def __init__(
        self,
        fork: Fork,
        path: str,
        *,
        threads: int,
        sequences: int,
        tokens: int,
        of_model: Mapping[str, object],
        of_context: Mapping[str, object],
    ) -> None:
        self._fork, self._c = fork, fork.load()
        self._c.llama_backend_init()
        params = _set(self._c.llama_model_default_params(), of_model)
        self._model = self._c.llama_model_load_from_file(path.encode(), params)
        if not self._model:
            raise RuntimeError(f"{fork.package} cannot open this model")
        room = {
            "n_ctx": sequences * (tokens + SLACK),
            "n_batch": PIECE,
            "n_ubatch": PIECE,
            "n_seq_max": sequences,
            "n_threads": threads,
            "n_threads_batch": threads,
        }
        params = _set(self._c.llama_context_default_params(), {**room, **of_context})
        self._context = self._c.llama_init_from_model(self._model, params)
        if not self._context:
            self._free_model()
            raise RuntimeError(
                f"{fork.package} has no room for {sequences} sequences of {tokens} tokens"
            )

    def close(self) -> None:
        self._c.llama_free(self._context)
        self._free_model()

    def prompt(self, tokens: int) -> float:
        self._fork.forget(self._c, self._context)
        start = time.perf_counter()
        self._prefill(tokens, sequence=0)
        return time.perf_counter() - start

    def generate(self, sequences: int, context: int, steps: int) -> float:
        self._fork.forget(self._c, self._context)
        for sequence in range(sequences):
            self._prefill(context, sequence)
        start = time.perf_counter()
        for step in range(steps):
            rows = [(token_id(step), context + step, sequence) for sequence in range(sequences)]
            self._decode(rows, wanted=range(sequences))
        return time.perf_counter() - start

    def _free_model(self) -> None:
        getattr(self._c, self._fork.free_model)(self._model)

    def _prefill(self, num_tokens: int, sequence: int) -> None:
        for first in range(0, num_tokens, PIECE):
            last = min(first + PIECE, num_tokens)
            rows = [(token_id(i), i, sequence) for i in range(first, last)]
            self._decode(rows, wanted=[len(rows) - 1] if last == num_tokens else [])

    def _decode(self, rows: Sequence[Row], wanted: Sequence[int]) -> None:
        """One forward pass, with logits of the wanted rows."""
        batch = self._c.llama_batch_init(len(rows), 0, 1)
        batch.n_tokens = len(rows)
        for i, (token, position, sequence) in enumerate(rows):
            batch.token[i], batch.pos[i] = token, position
            batch.n_seq_id[i], batch.seq_id[i][0] = 1, sequence
            batch.logits[i] = i in wanted
        status = self._c.llama_decode(self._context, batch)
        self._c.llama_batch_free(batch)
        if status:
            raise RuntimeError(f"{self._fork.package} failed to decode, status {status}")


def _set(params: Any, values: Mapping[str, object]) -> Any:
    for name, value in values.items():
        setattr(params, name, value)
    return params
