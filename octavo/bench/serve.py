"""A server under load, ours or any other that speaks OpenAI's /v1/completions: what clients see."""

from collections.abc import Awaitable, Sequence
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
    flood: Annotated[
        int | None,
        typer.Option(min=1, help="Then all of it again beside so many other clients that ask on."),
    ] = None,
    flood_key: Annotated[
        str | None, typer.Option(help="Their API key; --key if not given.")
    ] = None,
    explain: Annotated[
        bool,
        typer.Option("--explain", help="Ask an Octavo server what it added to queue and prefill."),
    ] = False,
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
        octavo bench serve --concurrency 1 --requests 40 --key KEY --flood 16 --flood-key OTHER
    """
    import json
    from dataclasses import replace

    from octavo.bench._load import Load

    turns = _numbers("concurrency", concurrency, int) if rate is None else []
    rates = [] if rate is None else _numbers("rate", rate, float)
    load = Load(url, model, requests, prompt_tokens, new_tokens, shared_prefix, seed, key, explain)
    others = replace(load, key=flood_key or key, seed=seed + 1, explains=False)
    with saying():
        rows = measure(load, turns, rates)
        if flood:
            rows += measure(load, turns, rates, others, flood)
    found = {"url": url, "model": model, "rows": rows}
    typer.echo(json.dumps(found) if as_json else _table(rows))
    if any(row["failed"] for row in rows):
        raise typer.Exit(1)


def measure(
    load: "Load",
    concurrencies: Sequence[int],
    rates: Sequence[float],
    others: "Load | None" = None,
    flood: int = 0,
) -> list[Found]:
    """A row for each, beside a flood of so many `others`; no prompt is asked twice."""
    import uvloop  # what clients cost is missing in the server, where both share CPUs

    from octavo.bench._load import closed, open_

    turns: list[tuple[str, Any, float]] = [("concurrency", closed, c) for c in concurrencies]
    turns += [("rate", open_, r) for r in rates]
    rows: list[Found] = []
    for place, (kind, ask, number) in enumerate(turns):
        say(f"{kind} {number:g}{f' beside {flood}' if others else ''} ...")
        begin = (place + (len(turns) if others else 0)) * load.requests
        asking = ask(load, number, begin)
        if others:
            asking = _beside(asking, others, flood)
        rows.append({kind: number, "flood": flood} | uvloop.run(_timed(asking)))
    return rows


async def _timed(asking: "Awaitable[list[Seen]]") -> Found:
    from time import perf_counter

    begin = perf_counter()
    heard = await asking
    return _row(heard, perf_counter() - begin)


async def _beside(asking: "Awaitable[list[Seen]]", others: "Load", flood: int) -> "list[Seen]":
    """What they saw; a flood that broke off is a failure as well."""
    from octavo.bench._load import Seen, flooded

    async with flooded(others, flood) as errors:
        heard = await asking
    return heard + [Seen(error=f"the flood: {error}") for error in errors]


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
        "added": _percentiles([seen.added for seen in well if seen.added is not None]),
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
        raise BadConfig(
            option, f"{text!r} is not a list of positive numbers: give one such as 1,4,16"
        )
    return numbers


def _table(rows: Sequence[Found]) -> str:
    heads = ["", "requests", "failed", "tokens/s", "first token ms", "between ms", "total s"]
    if with_added := any(row["added"] for row in rows):
        heads.append("added ms")
    lines = [heads, ["", "", "", "", *["p50/p90/p99"] * (len(heads) - 4)]]
    for row in rows:
        name = f"{row['concurrency']} at once" if "concurrency" in row else f"{row['rate']:g}/s"
        name += f" beside {row['flood']}" if row["flood"] else ""
        lines.append(
            [
                name,
                str(row["requests"]),
                str(row["failed"]),
                f"{row['tokens_per_second']:.1f}",
                _shown(row["first_token"], 1000, 0),
                _shown(row["between_tokens"], 1000, 1),
                _shown(row["total"], 1, 2),
                *([_shown(row["added"], 1000, 1)] if with_added else []),
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
