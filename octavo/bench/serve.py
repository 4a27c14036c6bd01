"""A server under load, ours or any other that speaks OpenAI's /v1/completions: what clients see."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

import typer

from octavo.bench._progress import say, saying
from octavo.errors import BadConfig

if TYPE_CHECKING:
    from octavo.bench._load import Load, Seen

Found: TypeAlias = dict[str, Any]  # a line of --json

SHARES = (50, 90, 99)  # percentiles


def command(
    *,
    url: Annotated[str, typer.Option(help="Of the server, without /v1.")] = "http://127.0.0.1:8000",
    model: Annotated[str, typer.Option(help="As the server calls it.")] = "smollm2",
    concurrency: Annotated[
        str, typer.Option(help="Clients that ask again when answered; several are tried in turn.")
    ] = "1,4,16",
    rate: Annotated[
        str | None,
        typer.Option(help="Instead: requests a second, which come whether others are answered."),
    ] = None,
    requests: Annotated[int, typer.Option(min=1, help="Of each turn.")] = 32,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Of each prompt, about.")] = 256,
    new_tokens: Annotated[int, typer.Option(min=1, help="Of each answer.")] = 64,
    shared_prefix: Annotated[
        int, typer.Option(min=0, help="Tokens with which every prompt begins alike.")
    ] = 0,
    key: Annotated[str | None, typer.Option(help="An API key.")] = None,
    seed: Annotated[int, typer.Option(help="Of the prompts and of when they come.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON.")] = False,
) -> None:
    """Measure a server as its clients see it: time to first token, between tokens, tokens/s.

    The clients share the machine's cores with a server on it.

    \b
    Examples:
        octavo serve smollm2 &
        octavo bench serve --model smollm2 --concurrency 1,4,16 --requests 32
        octavo bench serve --url http://127.0.0.1:8080 --model m --rate 0.5,2 --shared-prefix 200
    """
    import json

    if shared_prefix > prompt_tokens:
        problem = f"{shared_prefix} is more than the {prompt_tokens} of --prompt-tokens"
        raise BadConfig("shared_prefix", problem)
    turns = _numbers("concurrency", concurrency, int) if rate is None else []
    rates = [] if rate is None else _numbers("rate", rate, float)
    try:
        from octavo.bench._load import Load
    except ImportError as error:
        raise BadConfig("bench", "it needs httpx: pip install 'octavo[bench]'") from error
    load = Load(url, model, requests, prompt_tokens, new_tokens, shared_prefix, seed, key)
    with saying():
        rows = measure(load, turns, rates)
    found = {"url": url, "model": model, "rows": rows}
    typer.echo(json.dumps(found) if as_json else _table(rows))
    if any(row["failed"] for row in rows):
        raise typer.Exit(1)


def measure(load: "Load", concurrencies: Sequence[int], rates: Sequence[float]) -> list[Found]:
    """A row for each; no prompt is asked twice."""
    import asyncio
    from time import perf_counter

    from octavo.bench._load import closed, open_

    turns: list[tuple[str, Any, float]] = [("concurrency", closed, c) for c in concurrencies]
    turns += [("rate", open_, r) for r in rates]
    rows: list[Found] = []
    for place, (kind, ask, number) in enumerate(turns):
        say(f"{kind} {number:g} ...")
        begin = perf_counter()
        heard = asyncio.run(ask(load, number, place * load.requests))
        rows.append({kind: number} | _row(heard, perf_counter() - begin))
    return rows


def _row(heard: "Sequence[Seen]", seconds: float) -> Found:
    well = [seen for seen in heard if seen.error is None]
    errors = [seen.error for seen in heard if seen.error is not None]
    new = sum(seen.new_tokens for seen in well)
    return {
        "requests": len(heard),
        "failed": len(errors),
        "error": errors[0] if errors else None,
        "seconds": seconds,
        "prompt_tokens": sum(seen.prompt_tokens for seen in well),
        "new_tokens": new,
        "tokens_per_second": new / seconds,
        "first_token": _percentiles([seen.first for seen in well if seen.first is not None]),
        "between_tokens": _percentiles([gap for seen in well for gap in seen.gaps]),
        "total": _percentiles([seen.total for seen in well]),
    }


def _percentiles(seconds: Sequence[float]) -> dict[str, float] | None:
    """Of the nearest rank: a value that somebody saw."""
    ordered = sorted(seconds)
    if not ordered:
        return None
    return {f"p{share}": ordered[-(-share * len(ordered) // 100) - 1] for share in SHARES}


def _numbers(option: str, text: str, kind: type) -> list[Any]:
    try:
        numbers = [kind(part) for part in text.split(",")]
    except ValueError:
        numbers = []
    if not numbers or not all(0 < number < 1e6 for number in numbers):
        raise BadConfig(option, f"{text!r} is not a list of positive numbers such as 1,4,16")
    return numbers


def _table(rows: Sequence[Found]) -> str:
    heads = ["", "requests", "failed", "tokens/s", "first token ms", "between ms", "total s"]
    lines = [heads, ["", "", "", "", *["p50/p90/p99"] * 3]]
    for row in rows:
        name = f"{row['concurrency']} at once" if "concurrency" in row else f"{row['rate']:g}/s"
        lines.append(
            [
                name,
                str(row["requests"]),
                str(row["failed"]),
                f"{row['tokens_per_second']:.1f}",
                _shown(row["first_token"], 1000, 0),
                _shown(row["between_tokens"], 1000, 1),
                _shown(row["total"], 1, 2),
            ]
        )
    widths = [max(len(line[column]) for line in lines) for column in range(len(heads))]
    shown = [
        "  ".join(cell.rjust(w) for cell, w in zip(line, widths, strict=True)) for line in lines
    ]
    shown += [f"failed: {row['error']}" for row in rows if row["error"]]
    return "\n".join(shown)


def _shown(percentiles: dict[str, float] | None, factor: float, digits: int) -> str:
    if percentiles is None:
        return "-"
    return "/".join(f"{value * factor:.{digits}f}" for value in percentiles.values())
