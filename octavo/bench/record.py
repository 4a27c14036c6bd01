"""The recorded run: the works that the documents quote, measured by one command into one file."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from octavo.bench._ours import Work
from octavo.bench._progress import saying

if TYPE_CHECKING:
    from octavo.bench._record import Record, RecordedStep, Row
    from octavo.bench._rival import Rival


@dataclass(frozen=True, slots=True)
class Planned:
    """One run of `octavo bench offline`, and what it is meant to reach."""

    name: str  # for --only
    model: str
    work: Work
    prompt_ratio: float | None = None  # to the better peer
    generation_ratio: float | None = None
    generation_share: float | None = None  # of the limit
    with_prompt: bool = False  # whether the prompt is a row too


@dataclass(frozen=True, slots=True)
class PlannedStep:
    """One run of `octavo bench ops`."""

    model: str
    work: Work
    is_prompt: bool = False


PLAN = (
    Planned("smollm2", "smollm2", Work(512, 64, 1, 8), 1.4, 1.7, with_prompt=True),
    Planned("smollm2-batch", "smollm2", Work(512, 32, 16, 512), generation_ratio=4.5),
    Planned("smollm2-context", "smollm2", Work(512, 32, 1, 4000), generation_ratio=3.0),
    Planned("gemma3-270m", "gemma3-270m", Work(512, 64, 1, 8), 1.4, 1.3, with_prompt=True),
    Planned("random-1b", "random-1b", Work(512, 32, 1, 8), generation_share=0.8, with_prompt=True),
)
OPS = "ops"  # for --only
STEPS = (
    *(
        PlannedStep(model, Work(512, 1, 1, 8), is_prompt=True)
        for model in (
            "smollm2",
            "gemma3-270m",
            "random-100m-q4_k",
            "random-100m-q5_k",
            "random-100m-q6_k",
            "random-100m-q8_0",
            "random-100m-f16",
        )
    ),
    PlannedStep("smollm2", Work(4000, 1, 1, 8), is_prompt=True),
    PlannedStep("smollm2", Work(1, 64, 1, 8)),
    PlannedStep("smollm2", Work(1, 32, 16, 512)),
    PlannedStep("smollm2", Work(1, 32, 1, 4000)),
    PlannedStep("smollm2", Work(1, 32, 1, 4000, "int8")),
    PlannedStep("gemma3-270m", Work(1, 64, 1, 8)),
    PlannedStep("random-1b", Work(1, 32, 1, 8)),
)


def command(
    file: Annotated[Path, typer.Argument(help="Where the record goes, as JSON.")],
    *,
    peer: Annotated[
        list[str] | None,
        typer.Option(help="As in `octavo bench offline`. May be given several times."),
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="The median of so many is recorded.")] = 5,
    threads: Annotated[
        int | None, typer.Option(min=1, help="One for each usable CPU if not given.")
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(help=f"Some of it: {', '.join([*(one.name for one in PLAN), OPS])}."),
    ] = None,
    plot: Annotated[bool, typer.Option("--plot", help="`octavo bench plot` at once.")] = False,
) -> None:
    """Measure every work that the documents quote, ours and peers by turns, into one file.

    Takes about half an hour with two peers and three runs. The machine's limits are measured beside
    each work.

    \b
    Examples:
        octavo bench record docs/performance.json --peer llama-cpp-python --peer ik-llama-cpp-python
        octavo bench record try.json --runs 1 --only smollm2
    """
    from octavo.bench import _figures
    from octavo.bench import plot as plotting
    from octavo.bench.offline import rivals
    from octavo.errors import BadConfig

    if not file.parent.is_dir():
        raise BadConfig("file", f"there is no folder {str(file.parent)!r}: make it first")
    if plot:
        plotting.require_matplotlib()
    planned, steps = _chosen(only or ())
    with saying(), rivals(peer or ()) as beside:
        found = measure(planned, steps, runs, threads, beside, file)
    typer.echo(_figures.tables(found)["works"], nl=False)
    if plot:
        plotting.command(file)


def measure(
    planned: Sequence[Planned],
    steps: Sequence[PlannedStep],
    runs: int,
    threads: int | None,
    beside: "Sequence[Rival]",
    file: Path,
) -> "Record":
    """What there is after each work lies in FILE.part: half an hour is not lost to what fails at
    its end, and an earlier record stays whole until this one is."""
    import datetime
    from importlib.metadata import version

    import msgspec

    from octavo.bench._random_model import path_of
    from octavo.bench._record import Record, RecordedWork, Result, write
    from octavo.bench.offline import measure as measure_work
    from octavo.engine.machine import usable_cpus

    models = [*(one.model for one in planned), *(one.model for one in steps)]
    paths = {model: path_of(model) for model in models}
    part = file.with_name(f"{file.name}.part")
    record = Record(
        octavo=version("octavo"),
        date=datetime.date.today().isoformat(),
        processor=_processor(),
        cpus=usable_cpus(),
        works=[],
        steps=[],
    )
    for one in planned:
        found = measure_work(paths[one.model], one.work, runs, threads, beside)
        result = msgspec.convert(found, Result)
        record.works.append(RecordedWork(rows=_rows(one), result=result))
        write(part, record)
    for step in steps:
        record.steps.append(_measure_step(step, paths[step.model], threads))
        write(part, record)
    part.replace(file)
    return record


def _measure_step(planned: PlannedStep, path: str, threads: int | None) -> "RecordedStep":
    import msgspec

    from octavo.bench import ops
    from octavo.bench._record import RecordedOp, RecordedStep

    work, is_prompt = planned.work, planned.is_prompt
    model, lines = ops.measure(path, work, threads, is_prompt=is_prompt)
    title = f"prompt of {work.prompt_tokens:,}" if is_prompt else _generation(work)
    return RecordedStep(
        model=model,
        title=title,
        ops=msgspec.convert(lines, list[RecordedOp], from_attributes=True),
    )


def _chosen(only: Sequence[str]) -> tuple[Sequence[Planned], Sequence[PlannedStep]]:
    from octavo.errors import BadConfig

    if not only:
        return PLAN, STEPS
    known = {one.name: one for one in PLAN}
    if unknown := [name for name in only if name not in (*known, OPS)]:
        raise BadConfig("only", f"there is no {unknown[0]!r}: give {', '.join([*known, OPS])}")
    if not set(only) - {OPS}:
        raise BadConfig("only", f"{OPS} alone is no record: name a work beside it")
    return [known[name] for name in only if name != OPS], STEPS if OPS in only else ()


def _rows(planned: Planned) -> "list[Row]":
    from octavo.bench._record import Row

    work = planned.work
    rows = [
        Row(
            title=_generation(work),
            of="generation",
            ratio=planned.generation_ratio,
            share=planned.generation_share,
        )
    ]
    if planned.with_prompt:
        title = f"prompt of {work.prompt_tokens}"
        rows.insert(0, Row(title=title, of="prompt", ratio=planned.prompt_ratio))
    return rows


def _generation(work: Work) -> str:
    who = "one sequence" if work.batch == 1 else f"{work.batch} sequences"
    pages = "" if work.kv_dtype == "float16" else f", {work.kv_dtype} pages"
    return f"{who} after {work.context:,} tokens{pages}"


def _processor() -> str:
    """As it names itself."""
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name":
            return value.strip()
    return os.uname().machine
