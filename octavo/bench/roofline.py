"""What this machine can do at most, with the instructions and threads that this build uses."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from typing import Annotated

import typer

RUNS = 7
READ_BYTES = 256 << 20  # far more than any cache holds
AHEAD = (0, 4096)  # bytes prefetched: some processors read more with it, some with their own
ROUNDS = 2_000_000  # some ten milliseconds: to wake a thread takes a tenth of one


@dataclass(frozen=True, slots=True)
class Roofline:
    instruction_set: str
    threads: int
    read_bytes_per_second: float
    byte_multiply_adds_per_second: float
    float_multiply_adds_per_second: float

    def or_better(self, other: "Roofline") -> "Roofline":
        """Each limit as the one or the other saw it: what disturbs a run only lowers them."""
        return Roofline(
            self.instruction_set,
            self.threads,
            max(self.read_bytes_per_second, other.read_bytes_per_second),
            max(self.byte_multiply_adds_per_second, other.byte_multiply_adds_per_second),
            max(self.float_multiply_adds_per_second, other.float_multiply_adds_per_second),
        )


def command(
    *,
    threads: Annotated[
        int | None, typer.Option(min=1, help="One for each usable CPU if not given.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON.")] = False,
) -> None:
    """Measure the machine's limits: read bandwidth, multiply-adds of bytes and of floats.

    \b
    Example:
        octavo bench roofline --threads 2
    """
    import json

    found = measure(threads)
    if as_json:
        typer.echo(json.dumps(asdict(found)))
        return
    typer.echo(f"instruction set        {found.instruction_set}, {found.threads} threads")
    typer.echo(f"read bandwidth         {found.read_bytes_per_second / 1e9:8.1f} GB/s")
    typer.echo(f"int8 multiply-adds     {found.byte_multiply_adds_per_second / 1e9:8.1f} G/s")
    typer.echo(f"float32 multiply-adds  {found.float_multiply_adds_per_second / 1e9:8.1f} G/s")


def measure(threads: int | None = None) -> Roofline:
    """The best of some runs: a limit is what nothing disturbs."""
    import numpy as np

    from octavo.engine.machine import usable_cpus
    from octavo.kernels import _cpu
    from octavo.kernels.cpu import INSTRUCTION_SET

    threads = threads or usable_cpus()
    parts = np.array_split(np.ones(READ_BYTES, np.uint8), threads)
    with ThreadPoolExecutor(threads) as pool:

        def best(work: Callable[[int], object]) -> float:
            return min(_seconds(pool, work, threads) for _ in range(RUNS))

        def read(ahead: int) -> float:
            return best(lambda i: _cpu.read_bytes(INSTRUCTION_SET, parts[i], ahead))

        reading = min(map(read, AHEAD))
        multiply_bytes = best(lambda i: _cpu.multiply_bytes(INSTRUCTION_SET, ROUNDS))
        multiply_floats = best(lambda i: _cpu.multiply_floats(INSTRUCTION_SET, ROUNDS))
    return Roofline(
        INSTRUCTION_SET,
        threads,
        READ_BYTES / reading,
        1536 * ROUNDS * threads / multiply_bytes,
        384 * ROUNDS * threads / multiply_floats,
    )


def _seconds(pool: ThreadPoolExecutor, work: Callable[[int], object], threads: int) -> float:
    start = time.perf_counter()
    list(pool.map(work, range(threads)))
    return time.perf_counter() - start
