"""A recorded run as a file holds it: results of `octavo bench offline`, each with the rows that are
read off it, so that tables and pictures need nothing else. Knows neither how to measure nor how to
draw."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, TypeAlias

from msgspec import DecodeError, Struct, json

from octavo.bench.roofline import Roofline
from octavo.errors import BadRequest

Of: TypeAlias = Literal["prompt", "generation"]


class PeerResult(Struct, kw_only=True):
    peer: str
    version: str
    prompt_tokens_per_second: float | None
    generation_tokens_per_second: float | None
    prompt_ratio: float | None  # ours / the peer's
    generation_ratio: float | None
    prompt_way: dict[str, Any] | None
    generation_way: dict[str, Any] | None
    problem: str | None


class Result(Struct, kw_only=True):
    """The line of `octavo bench offline --json`."""

    model: str
    prompt_tokens: int
    new_tokens: int
    batch: int
    context: int
    kv_dtype: str
    runs: int
    prompt_tokens_per_second: float
    generation_tokens_per_second: float
    prompt_share_of_int8_peak: float
    generation_share_of_int8_peak: float
    generation_share_of_bandwidth: float
    roofline: Roofline
    peers: list[PeerResult] = []
    prompt_ratio: float | None = None  # to the better peer
    generation_ratio: float | None = None

    def speed(self, of: Of) -> float:
        speed: float = getattr(self, f"{of}_tokens_per_second")
        return speed

    def ratio(self, of: Of) -> float | None:
        ratio: float | None = getattr(self, f"{of}_ratio")
        return ratio

    def limit(self, of: Of) -> tuple[float, str]:
        """(share, name) of the limit that it comes nearest to."""
        compute = getattr(self, f"{of}_share_of_int8_peak"), "int8 peak"
        if of == "prompt":
            return compute
        return max(compute, (self.generation_share_of_bandwidth, "bandwidth"))


class Row(Struct, kw_only=True, omit_defaults=True):
    """What one result says about one kind of work, and what it is meant to reach."""

    title: str
    of: Of
    ratio: float | None = None  # to the better peer
    share: float | None = None  # of the limit


class RecordedWork(Struct, kw_only=True):
    rows: list[Row]
    result: Result


class RecordedOp(Struct, kw_only=True):
    """A line of `octavo bench ops`."""

    kind: str
    op: str
    seconds: float
    share: float  # of the step's time
    bytes_per_second: float
    multiply_adds_per_second: float
    limit_share: float | None


class RecordedStep(Struct, kw_only=True):
    """Where the time of a step, or of a prompt, goes: `octavo bench ops`."""

    model: str
    title: str
    ops: list[RecordedOp]

    @property
    def seconds(self) -> float:
        return sum(op.seconds for op in self.ops)

    def share(self, *kinds: str) -> float:
        """Of the time."""
        return sum(op.share for op in self.ops if op.kind in kinds)

    def limit_share(self, kind: str) -> float | None:
        """Of the limits of its operations, one after the other; None where there is no such."""
        limited = [op for op in self.ops if op.kind == kind and op.limit_share is not None]
        if not limited:
            return None
        spent = sum(op.seconds for op in limited)
        return sum(op.seconds * (op.limit_share or 0) for op in limited) / spent


class Record(Struct, kw_only=True):
    octavo: str  # version
    date: str  # ISO
    processor: str  # as it names itself
    cpus: int  # that this process may use
    works: list[RecordedWork]
    steps: list[RecordedStep] = []

    @property
    def rows(self) -> list[tuple[Row, Result]]:
        return [(row, work.result) for work in self.works for row in work.rows]

    @property
    def peers(self) -> list[str]:
        """Their names, in the order of their columns."""
        peers = [peer.peer for work in self.works for peer in work.result.peers]
        return [*dict.fromkeys(peers)]

    def versions(self, peer: str) -> Sequence[str]:
        found = [one for work in self.works for one in work.result.peers if one.peer == peer]
        return [*dict.fromkeys(one.version for one in found)]


def read(path: Path) -> Record:
    """Raises BadRequest for what is no record."""
    try:
        return json.decode(path.read_bytes(), type=Record)
    except (DecodeError, UnicodeDecodeError) as error:
        problem = f"it is no record of `octavo bench record` ({error}): give another file"
        raise BadRequest(problem, str(path)) from error


def write(path: Path, record: Record) -> None:
    path.write_bytes(json.format(json.encode(record), indent=2) + b"\n")
