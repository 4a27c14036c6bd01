"""octavo run: one prompt, one answer."""

import json
import sys
from dataclasses import asdict
from time import perf_counter
from typing import TYPE_CHECKING, Annotated, Any

import typer

from octavo.cli import INTERRUPTED
from octavo.cli._flags import flags
from octavo.cli._prompt import piped_text
from octavo.cli._reply import Screen, nowhere, receive, speed, to_stdout
from octavo.config import Config
from octavo.errors import BadRequest
from octavo.loader import hub
from octavo.types import Message, SamplingParams

if TYPE_CHECKING:
    from octavo.engine.llm import LLM, Completion

ALONE = {"model", "max_running", "max_waiting", "step_tokens", "prefix_cache", "home"}
NOT_SHOWN = {"logit_bias", "logprobs", "prompt_logprobs"}


@flags("config", Config, leave=ALONE)
@flags("params", SamplingParams, leave=NOT_SHOWN, max_tokens=512, temperature=0.7, top_p=0.95)
def command(
    first: Annotated[
        str | None,
        typer.Argument(metavar="MODEL", help=f"A name or path; if not given: {hub.DEFAULT}."),
    ] = None,
    second: Annotated[str | None, typer.Argument(metavar="PROMPT", help="What to answer.")] = None,
    *,
    system: Annotated[str | None, typer.Option(help="What the model is told first.")] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Continue the text as it is.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, once done.")] = False,
    stats: Annotated[bool, typer.Option("--stats", help="Times and counts, on stderr.")] = False,
    params: dict[str, Any],
    config: dict[str, Any],
) -> None:
    """Answer one prompt on stdout, and say nothing else there.

    A single argument is the prompt, unless it names a model. Text that is piped in is the prompt,
    or comes before it, an empty line between them. A model without a chat template continues the
    text. What a model thinks first goes to stderr. Ctrl-C ends the answer where it is.

    \b
    Examples:
        octavo run "Why is the sky blue?"
        octavo run gemma3-270m "The sky is"
        octavo run --system "You are terse." --temperature 0 "Why is the sky blue?"
        cat notes.txt | octavo run "Summarise this in one sentence."
    """
    began, asked = perf_counter(), SamplingParams(**params)
    model, prompt = _model_and_prompt(first, second)
    _check(prompt, system, is_raw=raw)
    from octavo.engine.llm import LLM

    llm = LLM(model, **config, max_running=1)
    loaded = perf_counter() - began
    stream = llm.stream(_question(llm, model, piped_text(prompt), system, is_raw=raw), asked)
    answer = receive(stream, nowhere if as_json else Screen())
    to_stdout(_end_of(model, answer, as_json=as_json))
    if stats:
        typer.echo(f"loaded in {loaded:.2f} s · {speed(answer)} · seed {answer.seed}", err=True)
    if answer.finish_reason == "cancelled":
        raise typer.Exit(INTERRUPTED)
    if answer.usage.completion_tokens == asked.max_tokens and answer.finish_reason == "length":
        typer.echo(f"(cut off by --max-tokens {asked.max_tokens})", err=True)


def _model_and_prompt(first: str | None, second: str | None) -> tuple[str, str | None]:
    if first is None or second is not None or hub.is_name(first):
        return first or hub.DEFAULT, second
    if meant := hub.close_to(first):
        typer.echo(f"{first!r} is taken as the prompt; the model's name is {meant!r}", err=True)
    return hub.DEFAULT, first


def _check(prompt: str | None, system: str | None, *, is_raw: bool) -> None:
    if prompt is None and sys.stdin.isatty():
        raise BadRequest('there is none: octavo run "Why is the sky blue?"', "prompt")
    if is_raw and system is not None:
        raise BadRequest("--raw has no place for it: leave one of them out", "--system")


def _question(
    llm: "LLM", model: str, text: str, system: str | None, *, is_raw: bool
) -> str | list[Message]:
    if not text:
        raise BadRequest("it is empty: give some text", "prompt")
    if is_raw:
        return text
    if not llm.tokenizer.has_chat_template:
        if system is not None:
            raise BadRequest(f"{model} has no chat template to say it in: leave it out", "--system")
        typer.echo(f"{model} has no chat template, it continues the text:", err=True)
        return text
    told = [Message("system", system)] if system is not None else []
    return [*told, Message("user", text)]


def _end_of(model: str, answer: "Completion", *, as_json: bool) -> str:
    """What stdout ends with: a line break where the text has none, or all of it as JSON."""
    if not as_json:
        return "" if answer.text.endswith("\n") else "\n"
    said = {
        "model": model,
        "text": answer.text,
        "reasoning": answer.reasoning,
        "finish_reason": answer.finish_reason,
        "seed": answer.seed,
        "usage": asdict(answer.usage),
        "timing": asdict(answer.timing),
    }
    return json.dumps(said, ensure_ascii=False) + "\n"
