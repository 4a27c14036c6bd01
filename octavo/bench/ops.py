"""Where a step's time goes, per operation, and how near to the machine's limit each one runs.

Operations alike are one line: matrices of the same shape and width of codes, attention of the same
window, every other kind by its name. A line's limit is the longer of two times: to read its bytes
at read bandwidth, to multiply at the peak of its kind of numbers.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from octavo.bench._ours import Ours, Work
from octavo.bench._progress import say, saying

if TYPE_CHECKING:
    from octavo.bench.roofline import Roofline
    from octavo.kernels._cpu import Measured


KINDS = {"linear": "linear", "attend": "attention"}  # of operations; all others are "rows"


@dataclass(frozen=True, slots=True)
class Line:
    kind: str  # linear, attention, rows, waiting, python
    op: str
    seconds: float  # of a step, or of the whole prompt
    share: float  # of all time
    bytes_per_second: float = 0.0
    multiply_adds_per_second: float = 0.0
    limit_share: float | None = None  # None: it has no limit of its own


@dataclass(slots=True)
class Load:
    """What operations alike have taken and done."""

    kind: str
    seconds: float = 0.0
    bytes: float = 0.0
    multiply_adds: float = 0.0
    peak: float = 0.0  # multiply-adds/s of their numbers


def command(
    model: Annotated[str, typer.Argument(help="Name or path of the model.")] = "smollm2",
    *,
    prompt: Annotated[
        int | None, typer.Option(min=1, help="Measure a prompt of so many tokens, not generation.")
    ] = None,
    new_tokens: Annotated[
        int | None, typer.Option(min=1, help="Steps of the timed generation; 64 if not given.")
    ] = None,
    batch: Annotated[
        int | None, typer.Option(min=1, help="Sequences generated together; 1 if not given.")
    ] = None,
    context: Annotated[
        int | None, typer.Option(min=1, help="Tokens each sequence holds before; 512 if not given.")
    ] = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="One for each usable CPU if not given.")
    ] = None,
    kv_dtype: Annotated[str, typer.Option(help="How KV pages keep numbers.")] = "float16",
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON.")] = False,
) -> None:
    """Measure where the time of a step goes: per operation its time, its share, its GB/s and G
    multiply-adds/s, and its share of the machine's limit.

    \b
    Examples:
        octavo bench ops smollm2 --batch 16 --context 512
        octavo bench ops gemma3-270m --prompt 512 --json
    """
    import json

    from octavo.bench._random_model import path_of
    from octavo.errors import BadConfig

    if prompt and (new_tokens or batch or context):
        problem = "it is measured alone: leave out --new-tokens, --batch and --context"
        raise BadConfig("prompt", problem)
    work = Work(prompt or 1, new_tokens or 64, batch or 1, context or 512, kv_dtype)
    with saying():
        name, lines = measure(path_of(model), work, threads, is_prompt=prompt is not None)
    if as_json:
        told = {"prompt_tokens": prompt} if prompt else asdict(work) | {"prompt_tokens": None}
        typer.echo(json.dumps({"model": name, **told, "ops": [asdict(x) for x in lines]}))
        return
    typer.echo(f"{'op':<32}{'us':>10}{'share':>8}{'GB/s':>8}{'GMAC/s':>8}{'of limit':>10}")
    typer.echo("\n".join(map(_text, lines)))


def measure(
    model: str, work: Work, threads: int | None, *, is_prompt: bool
) -> tuple[str, list[Line]]:
    """The model's name, and one line a kind of operation, the longest first; then what is spent
    beside the operations."""
    from octavo.bench.roofline import measure as measure_roofline

    say("loading")
    ours = Ours(model, work, threads)
    roofline = measure_roofline(ours.loaded.plan.threads)
    profile = Profile(ours)
    kind = "prompt" if is_prompt else "generate"
    say("measuring")
    ours.seconds(kind)
    ours.seconds(kind, profile.taken())
    roofline = roofline.or_better(measure_roofline(ours.loaded.plan.threads))
    steps = 1 if is_prompt else work.new_tokens
    return ours.loaded.name, profile.lines(steps, _Tokens(work, is_prompt=is_prompt), roofline)


@dataclass(frozen=True, slots=True)
class _Tokens:
    """How many tokens what was measured has computed."""

    work: Work
    is_prompt: bool

    @property
    def computed(self) -> int:
        return self.work.prompt_tokens if self.is_prompt else self.work.batch * self.work.new_tokens

    @property
    def with_logits(self) -> int:
        return 1 if self.is_prompt else self.computed

    def keys(self, window: int) -> int:
        """That all queries of a layer see together."""
        if self.is_prompt:
            return sum(min(t + 1, window) for t in range(self.work.prompt_tokens))
        seen = range(self.work.context + 1, self.work.context + 1 + self.work.new_tokens)
        return self.work.batch * sum(min(keys, window) for keys in seen)


class Profile:
    def __init__(self, ours: Ours) -> None:
        from octavo.kernels.cpu import Program

        assert isinstance(ours.loaded.program, Program)  # the home that serves
        self._program = ours.loaded.program
        self._threads = ours.loaded.plan.threads
        self._measured: list[Measured] = []
        self._seconds = 0.0

    @contextmanager
    def taken(self) -> Iterator[None]:
        self._program.start_profile()
        start = time.perf_counter()
        yield
        self._seconds = time.perf_counter() - start
        self._measured = self._program.stop_profile()

    def lines(self, steps: int, tokens: _Tokens, roofline: "Roofline") -> list[Line]:
        """Times of threads that work beside each other are shared out: together they are the
        step's time."""
        elapsed, replay, *operations = self._measured
        a_tick = self._seconds / elapsed.ticks
        loads: dict[str, Load] = {}
        for one in operations:
            load = loads.setdefault(_name(one), Load(KINDS.get(one.op, "rows")))
            load.seconds += one.ticks * a_tick / self._threads
            _count(load, one, steps, tokens, roofline)
        worked = sum(load.seconds for load in loads.values())
        outside = (elapsed.ticks - replay.ticks) * a_tick
        longest = sorted(loads.items(), key=lambda item: -item[1].seconds)
        found = [self._line(name, load, steps, roofline) for name, load in longest]
        waiting = self._seconds - outside - worked
        return [
            *found,
            Line("waiting", "threads waiting", waiting / steps, waiting / self._seconds),
            Line("python", "sampling, scheduling", outside / steps, outside / self._seconds),
        ]

    def _line(self, name: str, load: Load, steps: int, roofline: "Roofline") -> Line:
        seconds = max(load.seconds, 1e-12)
        limits = [load.bytes / roofline.read_bytes_per_second]
        if load.peak:
            limits.append(load.multiply_adds / load.peak)
        return Line(
            load.kind,
            name,
            seconds / steps,
            seconds / self._seconds,
            load.bytes / seconds,
            load.multiply_adds / seconds,
            round(max(limits) / seconds, 3) if load.peak else None,
        )


def _name(one: "Measured") -> str:
    if one.op == "linear":
        return f"linear {one.bits} bits, {one.rows} x {one.columns}"
    if one.op == "attend":
        from octavo.kernels.cpu import NO_WINDOW

        return "attention" + (f", window {one.window}" if one.window < NO_WINDOW else "")
    return one.op


def _count(load: Load, one: "Measured", steps: int, tokens: _Tokens, roofline: "Roofline") -> None:
    """What the operation must read and multiply at least."""
    if one.op == "linear":
        of_tokens = tokens.with_logits if one.is_head else tokens.computed
        load.bytes += one.bytes * steps
        load.multiply_adds += one.rows * one.columns * of_tokens
        is_float = one.bits >= 16
        load.peak = (
            roofline.float_multiply_adds_per_second
            if is_float
            else roofline.byte_multiply_adds_per_second
        )
    elif one.op == "attend":
        keys = tokens.keys(one.window)
        # The queries of a prompt share what is read of a key.
        load.bytes += one.key_bytes * (tokens.computed if tokens.is_prompt else keys)
        load.multiply_adds += 2 * one.heads * one.head_dim * keys
        load.peak = roofline.float_multiply_adds_per_second


def _text(line: Line) -> str:
    read = f"{line.bytes_per_second / 1e9:.1f}" if line.bytes_per_second else ""
    multiplied = f"{line.multiply_adds_per_second / 1e9:.1f}" if read else ""
    limit = "" if line.limit_share is None else f"{line.limit_share:.0%}"
    return (
        f"{line.op:<32}{line.seconds * 1e6:>10.1f}{line.share:>8.1%}{read:>8}{multiplied:>8}"
        f"{limit:>10}"
    )
