"""How well a model foretells a text, so that what a home's speed costs in quality is one number.

    perplexity = e^(-mean of log p(token | the tokens before it))

What is scored are the engine's own logprobs, by the same steps that serve a request.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from octavo.errors import BadRequest

if TYPE_CHECKING:
    from octavo.engine.llm import LLM


@dataclass(frozen=True, slots=True)
class Score:
    tokens: int  # that have a logprob: all but the first of each window
    perplexity: float
    bits_per_byte: float  # of the text; also comparable between tokenizers
    seconds: float


def command(
    model: Annotated[str, typer.Argument(help="Name or path of the model.")] = "smollm2",
    *,
    text: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="Its file; what is piped in if not given."),
    ] = None,
    home: Annotated[str, typer.Option(help="Which kernels compute: cpu, reference.")] = "cpu",
    kv_dtype: Annotated[str, typer.Option(help="How KV pages keep numbers.")] = "float16",
    as_json: Annotated[bool, typer.Option("--json", help="One line of JSON.")] = False,
) -> None:
    """Measure the perplexity of a text, in windows of the model's context where it is longer.

    \b
    Examples:
        octavo bench perplexity smollm2 --text book.txt
        octavo bench perplexity gemma3-270m --text book.txt --home reference --json
    """
    import json

    from octavo.engine.llm import LLM

    words = _read(text)
    with LLM(model, home=home, kv_dtype=kv_dtype, max_running=1, prefix_cache=False) as llm:
        score = measure(llm, words)
        name = llm.engine.name
    if as_json:
        typer.echo(json.dumps({"model": name, "home": home, "kv_dtype": kv_dtype, **asdict(score)}))
        return
    typer.echo(
        f"{name}, {home}: perplexity {score.perplexity:.4f} of {score.tokens} tokens, "
        f"{score.bits_per_byte:.4f} bits a byte, {kv_dtype} pages, in {score.seconds:.1f} s"
    )


def measure(llm: "LLM", text: str) -> Score:
    """Raises BadRequest for a text with nothing to score."""
    start = time.perf_counter()
    windows = _windows(llm.tokenizer.prompt_ids(text), llm.engine.max_context - 1, _bos(llm))
    logprobs = [scored.logprob for window in windows for scored in llm.score(window)]
    if not logprobs:
        raise BadRequest("it has fewer than two tokens, give more", "text")
    surprise = -math.fsum(logprobs)  # nats
    return Score(
        tokens=len(logprobs),
        perplexity=math.exp(surprise / len(logprobs)),
        bits_per_byte=surprise / math.log(2) / len(text.encode()),
        seconds=time.perf_counter() - start,
    )


def _windows(ids: Sequence[int], size: int, bos: list[int]) -> Iterator[list[int]]:
    """Windows end to end, of `size` tokens at most; those after the first begin with `bos` too."""
    yield [*ids[:size]]
    step = size - len(bos)
    for first in range(size, len(ids), step):
        yield [*bos, *ids[first : first + step]]


def _bos(llm: "LLM") -> list[int]:
    """What the model's file puts before every text."""
    tokenizer = llm.tokenizer
    return [tokenizer.bos_id] if tokenizer.add_bos and tokenizer.bos_id is not None else []


def _read(path: Path | None) -> str:
    """Raises BadRequest for what is not UTF-8."""
    import sys

    try:
        return (sys.stdin.buffer.read() if path is None else path.read_bytes()).decode()
    except UnicodeDecodeError as error:
        raise BadRequest(f"it is not UTF-8 ({error.reason}): convert it", "text") from None
