"""Tokens per second of the engine itself: a prompt, and generation of a batch; everything that a
request pays is counted, from its token ids to the last event."""

import time
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Annotated

import typer

from octavo.bench._work import token_id

if TYPE_CHECKING:
    from octavo.bench.roofline import Roofline
    from octavo.engine.engine import Engine
    from octavo.engine.loading import Loaded


@dataclass(frozen=True, slots=True)
class Work:
    prompt_tokens: int
    new_tokens: int
    batch: int
    context: int  # tokens that each sequence holds when generation is timed
    kv_dtype: str = "float16"


@dataclass(frozen=True, slots=True)
class Cost:
    """What a model must do at least, to hold speeds against the machine's limits."""

    prompt_multiply_adds: int  # of the matrices, per token; the head is not needed
    step_bytes: int  # weights, and the keys and values of `batch` sequences


def command(
    model: Annotated[str, typer.Argument(help="Name or path of the model.")] = "smollm2",
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
        int | None, typer.Option(help="One for each usable CPU if not given.")
    ] = None,
    kv_dtype: Annotated[str, typer.Option(help="How KV pages keep numbers.")] = "float16",
    peer: Annotated[
        str | None, typer.Option(help="Measure llama-cpp-python too, in turns with ours.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON.")] = False,
) -> None:
    """Measure prompt and generation speed, as tokens/s, as a share of the machine's limits, and as
    a ratio to a peer.

    \b
    Examples:
        octavo bench offline smollm2 --peer llama-cpp-python
        octavo bench offline gemma3-270m --batch 16 --context 512 --json
    """
    import json

    work = Work(prompt_tokens, new_tokens, batch, context or prompt_tokens, kv_dtype)
    found = measure(model, work, runs, threads, peer)
    typer.echo(json.dumps(found) if as_json else _table(found))


def measure(
    model: str, work: Work, runs: int, threads: int | None, peer: str | None
) -> dict[str, object]:
    from octavo.bench.roofline import measure as measure_roofline
    from octavo.config import Config
    from octavo.engine.engine import Engine
    from octavo.engine.loading import load
    from octavo.registry import entry

    config = Config(
        model,
        max_context=max(work.prompt_tokens, work.context) + _steps(work) + 1,
        max_running=work.batch,
        step_tokens=max(256, work.batch),
        threads=threads,
        prefix_cache=False,
        kv_dtype=work.kv_dtype,
    )
    loaded = load(config)
    engine = Engine(config, loaded)
    other = None
    if peer is not None:
        room = max(work.prompt_tokens, work.batch * (work.context + work.new_tokens))
        other = entry("octavo.bench._peers", peer).Peer(
            loaded.path, threads=loaded.plan.threads, room=room, batch=work.batch
        )
    before = measure_roofline(loaded.plan.threads)
    _prompt(engine, min(64, work.prompt_tokens))  # wakes everything up
    times: list[tuple[float, ...]] = []
    for _ in range(runs):
        ours = (_prompt(engine, work.prompt_tokens), _generate(engine, work))
        theirs = (
            ()
            if other is None
            else (
                other.prompt(work.prompt_tokens),
                other.generate(work.batch, work.context, work.new_tokens),
            )
        )
        times.append(ours + theirs)
    medians = [median(column) for column in zip(*times, strict=True)]
    roofline = before.or_better(measure_roofline(loaded.plan.threads))
    return _result(loaded, work, medians, roofline, peer)


def _steps(work: Work) -> int:
    """The first of a batch go on while the last are prefilled, a step a chunk at most."""
    return work.new_tokens + work.batch * (work.context // 128 + 2)


def _prompt(engine: "Engine", num_tokens: int) -> float:
    """Seconds from a prompt to its first token."""
    start = time.perf_counter()
    _add(engine, "prompt", num_tokens, 1)
    while engine.has_work:
        engine.step()
    return time.perf_counter() - start


def _generate(engine: "Engine", work: Work) -> float:
    """Seconds of `new_tokens` steps, once every sequence of the batch has its first token."""
    from octavo.types import Delta

    begun: set[str] = set()
    for i in range(work.batch):
        _add(engine, f"sequence {i}", work.context, _steps(work))
    while len(begun) < work.batch:
        begun.update(id for id, event in engine.step() if isinstance(event, Delta))
    start = time.perf_counter()
    for _ in range(work.new_tokens):
        engine.step()
    seconds = time.perf_counter() - start
    for id in begun:
        engine.cancel(id)
    engine.step()
    return seconds


def _add(engine: "Engine", id: str, num_tokens: int, max_tokens: int) -> None:
    from octavo.types import Request, SamplingParams

    params = SamplingParams(max_tokens=max_tokens, temperature=0, ignore_eos=True, seed=0)
    size = engine.tokenizer.vocab_size
    engine.add(Request(id, tuple(token_id(i, size) for i in range(num_tokens)), params))


def _cost(loaded: "Loaded", work: Work) -> Cost:
    from octavo.kvcache.pool import page_bytes
    from octavo.loader.checkpoint import open_checkpoint
    from octavo.types import PAGE_SIZE

    shapes = {name: raw.shape for name, raw in open_checkpoint(loaded.path).tensors.items()}
    matrices = {name: shape for name, shape in shapes.items() if len(shape) == 2}
    table = matrices.pop("model.embed_tokens.weight")
    is_tied = matrices.pop("lm_head.weight", None) is None
    inner = sum(rows * columns for rows, columns in matrices.values())
    head = table[0] * table[1]
    # Of a table that is not the head as well, a step reads one row a token.
    read = 1.0 if is_tied else (inner + head) / (inner + 2 * head)
    seen = sum(
        page_bytes(group, work.kv_dtype)
        // PAGE_SIZE
        * min(work.context, group.window or work.context)
        for group in loaded.groups
    )
    return Cost(inner, int(loaded.plan.weight_bytes * read) + work.batch * seen)


def _result(
    loaded: "Loaded", work: Work, medians: list[float], roofline: "Roofline", peer: str | None
) -> dict[str, object]:
    cost = _cost(loaded, work)
    prompt_seconds, generation_seconds = medians[:2]
    macs = work.prompt_tokens * cost.prompt_multiply_adds / prompt_seconds
    read = work.new_tokens * cost.step_bytes / generation_seconds
    found: dict[str, object] = {
        "model": loaded.name,
        **asdict(work),
        "prompt_tokens_per_second": round(work.prompt_tokens / prompt_seconds, 2),
        "generation_tokens_per_second": round(work.batch * work.new_tokens / generation_seconds, 2),
        "prompt_share_of_int8_peak": round(macs / roofline.byte_multiply_adds_per_second, 3),
        "generation_share_of_bandwidth": round(read / roofline.read_bytes_per_second, 3),
        "roofline": asdict(roofline),
    }
    if peer is not None:
        prompt, generation = medians[2:]
        found |= {
            "peer": peer,
            "peer_prompt_tokens_per_second": round(work.prompt_tokens / prompt, 2),
            "peer_generation_tokens_per_second": round(
                work.batch * work.new_tokens / generation, 2
            ),
            "prompt_ratio": round(prompt / prompt_seconds, 2),
            "generation_ratio": round(generation / generation_seconds, 2),
        }
    return found


def _table(found: dict[str, object]) -> str:
    lines = [
        f"{found['model']}: a prompt of {found['prompt_tokens']}; generation of {found['batch']} x "
        f"{found['new_tokens']} after {found['context']} tokens in {found['kv_dtype']} pages",
        f"prompt      {found['prompt_tokens_per_second']:>9} tokens/s   "
        f"{found['prompt_share_of_int8_peak']:.0%} of the int8 peak",
        f"generation  {found['generation_tokens_per_second']:>9} tokens/s   "
        f"{found['generation_share_of_bandwidth']:.0%} of read bandwidth",
    ]
    if "peer" in found:
        lines += [
            f"{found['peer']}: prompt {found['peer_prompt_tokens_per_second']} tokens/s, "
            f"generation {found['peer_generation_tokens_per_second']} tokens/s",
            f"ours / theirs: prompt {found['prompt_ratio']}x, "
            f"generation {found['generation_ratio']}x",
        ]
    return "\n".join(lines)
