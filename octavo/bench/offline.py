"""Tokens per second of the engine itself, a prompt and generation of a batch, beside the machine's
limits and peers: all measured in one run, by turns."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from octavo.bench._ours import Cost, Ours, Work, cost_of
from octavo.bench._progress import say, saying

if TYPE_CHECKING:
    from octavo.bench._rival import Rival
    from octavo.bench.roofline import Roofline

Seconds: TypeAlias = Mapping[str, float | None]  # by kind; None: it failed
Found: TypeAlias = dict[str, Any]  # a line of --json

TITLES = {"prompt": "prompt", "generate": "generation"}  # how results call each kind


def command(
    model: Annotated[
        str, typer.Argument(help="Name or path of the model; random-1b is made here.")
    ] = "smollm2",
    *,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Tokens of the timed prompt.")] = 512,
    new_tokens: Annotated[int, typer.Option(min=1, help="Steps of the timed generation.")] = 64,
    batch: Annotated[int, typer.Option(min=1, help="Sequences generated together.")] = 1,
    context: Annotated[
        int | None,
        typer.Option(min=1, help="Tokens each sequence holds before; the prompt's if not given."),
    ] = None,
    runs: Annotated[int, typer.Option(min=1, help="The median of so many is told.")] = 5,
    threads: Annotated[
        int | None, typer.Option(min=1, help="One for each usable CPU if not given.")
    ] = None,
    kv_dtype: Annotated[str, typer.Option(help="How KV pages keep numbers.")] = "float16",
    peer: Annotated[
        list[str] | None,
        typer.Option(
            help="Measure another engine too, in turns with ours; NAME, or NAME=PYTHON for the "
            "interpreter that has it. May be given several times."
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON.")] = False,
) -> None:
    """Measure prompt and generation speed, as tokens/s, as a share of the machine's limits, and as
    a ratio to peers.

    Of ours, everything that a request pays is timed; of a peer, forward passes alone, in the
    fastest of its ways. random-1b has 1.2 billion random weights in Q4_0; random-1b-q6_k and so on
    have other formats.

    \b
    Examples:
        octavo bench offline smollm2 --peer llama-cpp-python --peer ik-llama-cpp-python
        octavo bench offline gemma3-270m --batch 16 --context 512 --json
        octavo bench offline random-1b --context 8
    """
    import json

    from octavo.bench._random_model import path_of

    work = Work(prompt_tokens, new_tokens, batch, context or prompt_tokens, kv_dtype)
    with saying(), rivals(peer or ()) as beside:
        found = measure(path_of(model), work, runs, threads, beside)
    typer.echo(json.dumps(found) if as_json else _table(found))


@contextmanager
def rivals(asked: Sequence[str]) -> "Iterator[list[Rival]]":
    """Peers that are known to be there. Raises UnknownName, BadConfig."""
    from octavo.bench._peer_process import parse
    from octavo.bench._rival import Rival

    with ExitStack() as stack:
        found = []
        for one in [parse(text) for text in asked]:
            found.append(Rival(one))
            stack.callback(found[-1].close)
        yield found


def measure(
    model: str, work: Work, runs: int, threads: int | None, beside: "Sequence[Rival]"
) -> Found:
    say("loading")
    ours = Ours(model, work, threads)
    loaded = ours.loaded
    for rival in beside:
        say(f"{loaded.name}: which way is the fastest of {rival.name}")
        room = {**work.room, "threads": loaded.plan.threads}
        rival.try_ways(loaded.path, room, work.orders)
    ours.wake()
    medians, roofline = _by_turns(ours, beside, runs)
    found = _of_ours(loaded.name, work, runs, medians[0], cost_of(loaded, work), roofline)
    if beside:
        others = [
            _of_a_peer(rival, work, medians[0], theirs)
            for rival, theirs in zip(beside, medians[1:], strict=True)
        ]
        found |= {"peers": others} | {key: _least(others, key) for key in _RATIOS}
    return found


def _by_turns(ours: Ours, beside: "Sequence[Rival]", runs: int) -> "tuple[list[Seconds], Roofline]":
    """The median of each kind, for each in turn; and the machine's limits, measured before, after
    and between: what a shared machine reads varies from second to second."""
    from octavo.bench.roofline import measure as measure_roofline

    threads, name = ours.loaded.plan.threads, ours.loaded.name
    everyone: list[Ours | Rival] = [ours, *beside]
    times: list[dict[str, list[float | None]]] = [
        {kind: [] for kind in ours.work.orders} for _ in everyone
    ]
    roofline = measure_roofline(threads)
    for run in range(runs):
        for kind in ours.work.orders:
            for one, its in zip(everyone, times, strict=True):
                say(f"{name}: run {run + 1} of {runs}, {TITLES[kind]}, {one.name}")
                its[kind].append(one.seconds(kind))
        roofline = roofline.or_better(measure_roofline(threads))
    return [{kind: _median(column) for kind, column in its.items()} for its in times], roofline


def _median(seconds: Sequence[float | None]) -> float | None:
    """None where one is missing: what fails now and then has no speed."""
    known = [one for one in seconds if one is not None]
    return median(known) if len(known) == len(seconds) else None


def _of_ours(
    model: str, work: Work, runs: int, seconds: Seconds, cost: Cost, roofline: "Roofline"
) -> Found:
    prompt, generation = seconds["prompt"], seconds["generate"]
    assert prompt, "ours does not fail"
    assert generation, "ours does not fail"
    peak = roofline.byte_multiply_adds_per_second
    of_prompt = work.prompt_tokens * cost.token_multiply_adds
    of_step = work.batch * (cost.token_multiply_adds + cost.head_multiply_adds)
    read = work.new_tokens * cost.step_bytes / generation
    return {
        "model": model,
        **asdict(work),
        "runs": runs,
        **_speeds(work, seconds),
        "prompt_share_of_int8_peak": round(of_prompt / prompt / peak, 3),
        "generation_share_of_int8_peak": round(work.new_tokens * of_step / generation / peak, 3),
        "generation_share_of_bandwidth": round(read / roofline.read_bytes_per_second, 3),
        "roofline": asdict(roofline),
    }


_RATIOS = [f"{title}_ratio" for title in TITLES.values()]


def _of_a_peer(rival: "Rival", work: Work, ours: Seconds, theirs: Seconds) -> Found:
    found: Found = {"peer": rival.name, "version": rival.version, **_speeds(work, theirs)}
    for kind, title in TITLES.items():
        mine, other = ours[kind], theirs[kind]
        found[f"{title}_ratio"] = round(other / mine, 4) if mine and other else None
        found[f"{title}_way"] = rival.ways.get(kind)
    failed = any(seconds is None for seconds in theirs.values())
    return found | {"problem": rival.problem if failed else None}


def _speeds(work: Work, seconds: Seconds) -> Found:
    tokens = {"prompt": work.prompt_tokens, "generate": work.batch * work.new_tokens}
    return {
        f"{title}_tokens_per_second": round(tokens[kind] / taken, 2) if taken else None
        for kind, title in TITLES.items()
        for taken in [seconds[kind]]
    }


def _least(peers: Sequence[Found], key: str) -> float | None:
    """The ratio to the better peer."""
    ratios = [peer[key] for peer in peers if peer[key] is not None]
    return min(ratios, default=None)


def _table(found: Found) -> str:
    lines = [
        f"{found['model']}: a prompt of {found['prompt_tokens']}; generation of {found['batch']} x "
        f"{found['new_tokens']} after {found['context']} tokens in {found['kv_dtype']} pages",
        f"prompt      {found['prompt_tokens_per_second']:>9} tokens/s   "
        f"{found['prompt_share_of_int8_peak']:.0%} of the int8 peak",
        f"generation  {found['generation_tokens_per_second']:>9} tokens/s   "
        f"{found['generation_share_of_bandwidth']:.0%} of read bandwidth, "
        f"{found['generation_share_of_int8_peak']:.0%} of the int8 peak",
    ]
    for peer in found.get("peers", ()):
        lines.append(f"{peer['peer']} {peer['version']}: {_beside(peer)}")
        if peer["problem"]:
            lines.append(f"  {peer['problem']}")
    return "\n".join(lines)


def _beside(peer: Found) -> str:
    return ", ".join(
        f"{title} {peer[f'{title}_tokens_per_second']} tokens/s, ours is "
        f"{peer[f'{title}_ratio']:.2f}x that"
        if peer[f"{title}_ratio"] is not None
        else f"no {title}"
        for title in TITLES.values()
    )
