# Written by nanobind.stubgen: pytest tests/kernels/test_stub.py --bless
"""Octavo's native kernels."""

from collections.abc import Sequence
from typing import Annotated

import numpy
from numpy.typing import NDArray


def instruction_sets() -> list[str]:
    """Those this machine can run, best first."""

class Arena:
    """Memory for weights; see cpp/arena.h."""

    def __init__(self) -> None: ...

class Weight:
    """A packed matrix; see cpp/weights.h."""

    @staticmethod
    def codes(arena: Arena, rows: int, columns: int, bits: int, group: int, has_min: bool, has_sub: bool) -> Weight: ...

    @staticmethod
    def floats(arena: Arena, rows: int, columns: int, format: str) -> Weight: ...

    def put_codes(self, instruction_set: str, first: int, planes: Sequence[tuple[int, Annotated[NDArray[numpy.uint8], dict(shape=(None, None, None, None), device='cpu', writable=False)]]], scale: Annotated[NDArray[numpy.uint16], dict(shape=(None, None), device='cpu', writable=False)], min: Annotated[NDArray[numpy.uint16], dict(shape=(None, None), device='cpu', writable=False)] | None, sub_scale: Annotated[NDArray[numpy.int8], dict(shape=(None, None), order='C', device='cpu', writable=False)] | None, sub_min: Annotated[NDArray[numpy.int8], dict(shape=(None, None), order='C', device='cpu', writable=False)] | None) -> None:
        """Rows [first, first + rows of the planes); see octavo/quant/_codes.py."""

    def put_floats(self, instruction_set: str, first: int, data: Annotated[NDArray[numpy.uint8], dict(shape=(None, None), order='C', device='cpu', writable=False)]) -> None:
        """Rows [first, first + len(data)), as bytes of the weight's own format."""

    @property
    def rows(self) -> int: ...

    @property
    def columns(self) -> int: ...

    @property
    def is_codes(self) -> bool: ...

    @property
    def bytes(self) -> int: ...

    def unpack(self) -> Annotated[NDArray[numpy.float32], dict(shape=(None, None))]:
        """float32 [rows, columns]"""

class Measured:
    """What one operation took; see cpp/program.h."""

    @property
    def op(self) -> str: ...

    @property
    def ticks(self) -> int: ...

    @property
    def is_head(self) -> bool: ...

    @property
    def heads(self) -> int: ...

    @property
    def head_dim(self) -> int: ...

    @property
    def window(self) -> int: ...

    @property
    def key_bytes(self) -> int:
        """A token's keys and values, of one layer."""

    @property
    def rows(self) -> int: ...

    @property
    def columns(self) -> int: ...

    @property
    def bits(self) -> int:
        """Of a matrix: its codes', or 16 or 32 of its floats."""

    @property
    def bytes(self) -> int: ...

class Program:
    """A model recorded as stages; see cpp/program.h."""

    def __init__(self, instruction_set: str, threads: int, max_tokens: int, max_rows: int, pools: Sequence[tuple[Annotated[NDArray[numpy.uint8], dict(shape=(None, None, None, None, None), order='C', device='cpu')], str, int, int]]) -> None: ...

    def buffer(self, arg: int, /) -> int: ...

    def tiles(self, arg: int, /) -> int: ...

    def start_outputs(self) -> None: ...

    def embed(self, arg0: object, arg1: int, /) -> None: ...

    def take(self, arg0: int, arg1: int, /) -> None: ...

    def rms_norm(self, arg0: int, arg1: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)], arg2: int, arg3: float, arg4: int, /) -> None: ...

    def add(self, arg0: int, arg1: int, arg2: int, arg3: int, /) -> None: ...

    def scale(self, arg0: int, arg1: float, arg2: int, arg3: int, /) -> None: ...

    def silu_mul(self, arg0: int, arg1: int, arg2: int, arg3: int, /) -> None: ...

    def gelu_mul(self, arg0: int, arg1: int, arg2: int, arg3: int, /) -> None: ...

    def angles(self, arg0: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu', writable=False)], arg1: int, /) -> None: ...

    def rope(self, arg0: int, arg1: int, arg2: int, arg3: int, arg4: int, /) -> None: ...

    def quantize(self, arg0: int, arg1: int, arg2: int, /) -> None: ...

    def store_kv(self, arg0: int, arg1: int, arg2: int, arg3: int, /) -> None: ...

    def attend(self, arg0: int, arg1: int, arg2: int, arg3: int, arg4: int, /) -> None: ...

    def linear(self, arg0: int, arg1: Sequence[tuple[object, object | None, int]], /) -> None: ...

    def result(self, arg0: int, arg1: int, /) -> None: ...

    @property
    def buffer_bytes(self) -> int: ...

    def start_profile(self) -> None: ...

    def stop_profile(self) -> list[Measured]: ...

    def run(self, token_ids: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], positions: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], starts: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)], tables: Sequence[Annotated[NDArray[numpy.int32], dict(shape=(None, None), order='C', device='cpu', writable=False)]], outputs: Annotated[NDArray[numpy.int32], dict(shape=(None,), order='C', device='cpu', writable=False)]) -> None: ...

    def logits(self, arg0: int, arg1: int, /) -> tuple[Annotated[NDArray[numpy.float32], dict(shape=(None, None))], Annotated[NDArray[numpy.float32], dict(shape=(None, None))]]: ...

def sample(instruction_set: str, logits: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu')], maxima: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu')], temperature: float, top_k: int, top_p: float, min_p: float, repetition_penalty: float, presence_penalty: float, frequency_penalty: float, seed: int, position: int, prompt: Sequence[int], output: Sequence[int], bias_ids: Sequence[int], biases: Sequence[float], allowed: Annotated[NDArray[numpy.uint32], dict(shape=(None,), order='C', device='cpu', writable=False)] | None = None) -> int | None:
    """
    The chosen token id; None where logits are not numbers. See cpp/kernels/sample.cpp.
    """

def log_sum_exp(instruction_set: str, logits: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu')], maxima: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu')]) -> float:
    """Not finite where the logits hold no choice."""

def top(instruction_set: str, logits: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu')], maxima: Annotated[NDArray[numpy.float32], dict(shape=(None,), order='C', device='cpu')], count: int) -> list[int]: ...

def read_bytes(instruction_set: str, data: Annotated[NDArray[numpy.uint8], dict(shape=(None,), order='C', device='cpu', writable=False)], ahead: int) -> float:
    """
    Reads all of it once, calling for what lies `ahead` bytes on (0: for nothing); what comes back means nothing.
    """

def multiply_bytes(instruction_set: str, rounds: int) -> int:
    """1536 multiply-adds of bytes a round."""

def multiply_floats(instruction_set: str, rounds: int) -> float:
    """384 multiply-adds of floats a round."""
