"""llama.cpp through the C interface that llama-cpp-python carries."""

import ctypes
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from typing import Any, TypeAlias

from octavo.bench._work import token_id
from octavo.errors import BadConfig

PIECE = 512  # tokens of a prompt given at once, the peer's own default
AND_DATA = True  # llama_memory_clear forgets the numbers too, not only where they are

Row: TypeAlias = tuple[int, int, int]  # token id, position, sequence


class Peer:
    def __init__(self, path: Path, *, threads: int, room: int, batch: int) -> None:
        try:
            self._c: Any = import_module("llama_cpp")
        except ImportError as error:
            problem = "llama-cpp-python is not installed: pip install llama-cpp-python"
            raise BadConfig("peer", problem) from error
        with _silence(self._c):
            self._c.llama_backend_init()
            self._model = self._c.llama_model_load_from_file(
                str(path).encode(), self._c.llama_model_default_params()
            )
            params = self._c.llama_context_default_params()
            params.n_ctx, params.n_batch, params.n_ubatch = room + PIECE, PIECE, PIECE
            params.n_seq_max = batch
            params.n_threads = params.n_threads_batch = threads
            params.kv_unified = False  # one stream a sequence is the faster way here
            self._context = self._c.llama_init_from_model(self._model, params)
        if not self._context:
            raise BadConfig("peer", f"llama-cpp-python cannot open {path}")

    def prompt(self, num_tokens: int) -> float:
        self._forget()
        start = time.perf_counter()
        self._prefill(num_tokens, sequence=0)
        return time.perf_counter() - start

    def generate(self, batch: int, context: int, steps: int) -> float:
        self._forget()
        for sequence in range(batch):
            self._prefill(context, sequence)
        start = time.perf_counter()
        for step in range(steps):
            rows = [(token_id(step), context + step, sequence) for sequence in range(batch)]
            self._decode(rows, wanted=range(batch))
        return time.perf_counter() - start

    def _forget(self) -> None:
        self._c.llama_memory_clear(self._c.llama_get_memory(self._context), AND_DATA)

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
            raise BadConfig("peer", f"llama-cpp-python failed to decode, status {status}")


@contextmanager
def _silence(c: Any) -> Iterator[None]:
    """The peer's messages while it loads are not ours to print."""
    callback = c.llama_log_callback(lambda level, text, data: None)
    c.llama_log_set(callback, ctypes.c_void_p())
    kept.append(callback)  # C calls it later too
    yield


kept: list[object] = []
