"""What a grammar costs and gains: masks beside a decode step, and text that need not be sampled."""

import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer

from octavo.types import Json

if TYPE_CHECKING:
    from octavo.engine.engine import Engine

PROMPT, STEPS = 128, 24  # tokens; of one turn
BATCHES = (1, 16)

# All that JSON has, without an end: names, numbers, short and long texts, lists.
RECORDS: Json = {
    "type": "array",
    "minItems": 1000,
    "items": {
        "type": "object",
        "properties": {
            "id": {"type": "integer"},
            "name": {"type": "string", "maxLength": 20},
            "kind": {"enum": ["red", "green", "blue"]},
            "about": {"type": "string"},
            "sizes": {"type": "array", "items": {"type": "number"}, "maxItems": 3},
        },
        "required": ["id", "name", "kind", "about", "sizes"],
        "additionalProperties": False,
    },
}
_NAMES = (
    "is_the_customer_satisfied_with_the_delivery",
    "does_the_customer_want_to_be_called_back",
    "should_the_order_be_sent_once_again",
    "was_the_parcel_damaged_on_its_way",
)
LONG_KEYS: Json = {
    "type": "object",
    "properties": {name: {"enum": ["yes", "no", "unknown"]} for name in _NAMES},
    "required": list(_NAMES),
    "additionalProperties": False,
}


@dataclass(frozen=True, slots=True)
class Masks:
    sequences: int
    plain_ms: float  # a step without masks
    masked_ms: float
    cost: float  # the median of masked / plain - 1, over turns beside each other


@dataclass(frozen=True, slots=True)
class Forced:
    tokens: int
    masks_tokens_per_second: float
    forced_tokens_per_second: float
    speedup: float
    is_same_text: bool


def command(
    model: Annotated[str, typer.Argument(help="Name or path of the model.")] = "smollm2",
    *,
    turns: Annotated[int, typer.Option(min=1, help="Of each measurement; the median counts.")] = 9,
    threads: Annotated[int | None, typer.Option(help="All CPUs if not given.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON.")] = False,
) -> None:
    """Measure what masks add to a decode step, and how much faster forced text makes an answer.

    \b
    Examples:
        octavo bench grammar smollm2
        octavo bench grammar gemma3-270m --json
    """
    import json

    from octavo.config import Config
    from octavo.engine.engine import Engine

    config = Config(
        model, max_context=1024, max_running=max(BATCHES), threads=threads, prefix_cache=False
    )
    engine = Engine(config)
    engine.grammars.prepare()
    costs = [masks(engine, sequences, turns) for sequences in BATCHES]
    gain = forced(engine, turns)
    if as_json:
        found: dict[str, Any] = {"model": engine.name, "vocabulary": engine.tokenizer.vocab_size}
        found |= {"masks": [asdict(cost) for cost in costs], "forced": asdict(gain)}
        typer.echo(json.dumps(found))
        return
    typer.echo(f"{engine.name}, a vocabulary of {engine.tokenizer.vocab_size}, {turns} turns each")
    for cost in costs:
        typer.echo(
            f"  {cost.sequences:2} sequences: {cost.plain_ms:.2f} ms a step, "
            f"{cost.masked_ms:.2f} ms with masks, {cost.cost:+.1%}"
        )
    same = "the same text" if gain.is_same_text else "ANOTHER TEXT"
    typer.echo(
        f"  forced text: {gain.forced_tokens_per_second:.0f} tokens/s, "
        f"{gain.masks_tokens_per_second:.0f} with masks alone, {gain.speedup:.2f}x, {same}"
    )


def masks(engine: "Engine", sequences: int, turns: int) -> Masks:
    """With and without masks in turn, so that both meet the same weather."""
    engine.constraints.forces_text = False
    pairs = [
        (_step_ms(engine, sequences, None), _step_ms(engine, sequences, RECORDS))
        for _ in range(turns)
    ]
    engine.constraints.forces_text = True
    plain, masked = zip(*pairs, strict=True)
    cost = median(with_masks / without - 1 for without, with_masks in pairs)
    return Masks(sequences, median(plain), median(masked), cost)


def _step_ms(engine: "Engine", sequences: int, schema: Json | None) -> float:
    from octavo.types import Delta

    begun: set[str] = set()
    for i in range(sequences):
        _add(engine, str(i), schema, ignore_eos=True)
    while len(begun) < sequences:
        begun.update(id for id, event in engine.step() if isinstance(event, Delta))
    start = time.perf_counter()
    for _ in range(STEPS):
        engine.step()
    seconds = time.perf_counter() - start
    for id in begun:
        engine.cancel(id)
    engine.step()
    return seconds / STEPS * 1e3


def forced(engine: "Engine", turns: int) -> Forced:
    texts: dict[bool, tuple[str, int]] = {}
    speeds: dict[bool, list[float]] = {True: [], False: []}
    for _ in range(turns):
        for forces in (True, False):
            engine.constraints.forces_text = forces
            text, num_tokens, seconds = _answer(engine)
            texts[forces] = text, num_tokens
            speeds[forces].append(num_tokens / seconds)
    engine.constraints.forces_text = True
    gain = median(fast / slow for fast, slow in zip(speeds[True], speeds[False], strict=True))
    slow, fast = median(speeds[False]), median(speeds[True])
    return Forced(texts[True][1], slow, fast, gain, is_same_text=texts[True] == texts[False])


def _answer(engine: "Engine") -> tuple[str, int, float]:
    """(text, tokens, seconds from the first token to the last)."""
    _add(engine, "answer", LONG_KEYS, ignore_eos=False)
    parts: list[tuple[str, int]] = []
    start = 0.0
    for text, num_tokens in _deltas(engine):
        start = start or time.perf_counter()
        parts.append((text, num_tokens))
    seconds = time.perf_counter() - start
    return "".join(text for text, _ in parts), sum(count for _, count in parts), seconds


def _deltas(engine: "Engine") -> Iterator[tuple[str, int]]:
    from octavo.types import Delta

    while engine.has_work:
        for _, event in engine.step():
            if isinstance(event, Delta):
                yield event.text, len(event.token_ids)


def _add(engine: "Engine", id: str, schema: Json | None, *, ignore_eos: bool) -> None:
    from octavo.bench._work import token_id
    from octavo.types import Request, SamplingParams

    params = SamplingParams(
        max_tokens=800, temperature=0, seed=0, ignore_eos=ignore_eos, schema=schema
    )
    size = engine.tokenizer.vocab_size
    engine.add(Request(id, tuple(token_id(i, size) for i in range(PROMPT)), params))
