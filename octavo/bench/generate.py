"""Tokens per second of the engine alone, on the very prompts that `octavo bench serve` asks for.

So that what a server costs is the quotient of two commands.
"""

from typing import Annotated, Any

import typer

from octavo.bench._progress import say, saying


def command(
    model: Annotated[str, typer.Argument(help="Name or path of the model.")] = "smollm2",
    *,
    concurrency: Annotated[int, typer.Option(min=1, help="Sequences at a time.")] = 16,
    requests: Annotated[int, typer.Option(min=1, help="Prompts in all.")] = 32,
    prompt_tokens: Annotated[int, typer.Option(min=1, help="Of each prompt, about.")] = 256,
    new_tokens: Annotated[int, typer.Option(min=1, help="Of each answer.")] = 64,
    shared_prefix: Annotated[
        int, typer.Option(min=0, help="Tokens with which every prompt begins alike.")
    ] = 0,
    seed: Annotated[int, typer.Option(help="Of the prompts.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON.")] = False,
) -> None:
    """Measure what a server over the same engine could reach at most.

    \b
    Examples:
        octavo bench generate smollm2 --requests 48 --prompt-tokens 64 --new-tokens 128
        octavo bench serve --concurrency 16 --requests 48 --prompt-tokens 64 --new-tokens 128
    """
    import json
    from time import perf_counter

    from octavo.bench._load import Load
    from octavo.engine.llm import LLM
    from octavo.types import SamplingParams

    load = Load("", model, requests, prompt_tokens, new_tokens, shared_prefix, seed)
    prompts = [load.prompt(number) for number in range(requests)]
    with saying():
        say("loading")
        llm = LLM(model, max_running=concurrency)
        llm.generate("the", SamplingParams(max_tokens=2))  # its threads are awake
        say("generating ...")
        begin = perf_counter()
        params = SamplingParams(max_tokens=new_tokens, temperature=0, ignore_eos=True)
        answers = llm.generate(prompts, params, progress=False)
        seconds = perf_counter() - begin
    found: dict[str, Any] = {
        "model": model,
        "concurrency": concurrency,
        "requests": requests,
        "seconds": seconds,
        "prompt_tokens": sum(answer.usage.prompt_tokens for answer in answers),
        "new_tokens": sum(answer.usage.completion_tokens for answer in answers),
    }
    found["tokens_per_second"] = found["new_tokens"] / seconds
    shown = f"{found['tokens_per_second']:.1f} tokens/s: {found['new_tokens']} in {seconds:.2f} s"
    typer.echo(json.dumps(found) if as_json else shown)
