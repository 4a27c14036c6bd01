"""POST /v1/completions, in OpenAI's words: raw prompts, no chat template.

parse   their JSON  -> our Call, or a BadRequest that names the field
chunks  our Events  -> their server-sent chunks
whole   our Answers -> their single answer
"""

from collections.abc import AsyncIterator, Sequence
from functools import reduce
from typing import Annotated, Any, TypeAlias

import msgspec
from msgspec import Meta
from sse_starlette import ServerSentEvent

from octavo.errors import BadRequest
from octavo.server.bodies import decode, refuse_unserved
from octavo.server.calls import Answer, Call, Events, Prompt, Reply, completed
from octavo.server.protocols._logprobs import LegacyLogprobs, joined, prompt_logprobs
from octavo.server.protocols._openai import (
    MAX_CHOICES,
    Common,
    closed_with_done,
    frame,
    head,
    problem,
    refuse_streamed_scores,
    sampling,
    usage,
    wants_usage,
)
from octavo.server.protocols._unserved import UNSERVED
from octavo.types import (
    MAX_LOGPROBS,
    Delta,
    Event,
    Finished,
    Json,
    PromptScored,
    SamplingParams,
)

__all__ = ["ID_HEADER", "PATH", "PREFIX", "chunks", "parse", "problem", "whole"]

PATH = "/v1/completions"
PREFIX = "cmpl-"
ID_HEADER = "x-request-id"
KIND = "text_completion"
DEFAULT_MAX_TOKENS = 16  # OpenAI's, on this endpoint only

Id: TypeAlias = Annotated[int, Meta(ge=0, lt=2**31)]


class Body(Common, kw_only=True):
    prompt: str | list[str | Id | list[Id]] | None = None
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=MAX_LOGPROBS)] | None = None
    # Not served: see NEUTRAL.
    best_of: int | None = None
    suffix: str | None = None


NEUTRAL: dict[str, tuple[Any, ...]] = {"suffix": ("",)}


def parse(raw: bytes) -> Call:
    body, ignored = decode(raw, Body, unserved=UNSERVED)
    refuse_unserved(body, NEUTRAL | {"best_of": (body.n or 1,)})
    refuse_streamed_scores(body)
    prompts, n = _prompts(body.prompt), body.n or 1
    if n * len(prompts) > MAX_CHOICES:
        problem = f"{len(prompts)} times n {n} is more than {MAX_CHOICES}, ask for fewer"
        raise BadRequest(problem, "prompt")
    silent = body.max_tokens == 0 and bool(body.echo)
    return Call(
        model=body.model,
        prompts=prompts,
        params=_params(body, max_tokens=1 if silent else body.max_tokens),
        n=n,
        priority=body.priority or 0,
        timeout=body.timeout,
        cache_salt=body.cache_salt,
        stream=bool(body.stream),
        include_usage=wants_usage(body),
        echo=bool(body.echo),
        silent=silent,
        names=body.names,
        ignored=ignored,
    )


def _params(body: Body, max_tokens: int | None) -> SamplingParams:
    limit = DEFAULT_MAX_TOKENS if max_tokens is None else max_tokens
    scored = body.prompt_logprobs
    if body.echo and body.logprobs is not None:
        if scored is not None:
            raise BadRequest("echo and logprobs say it already, leave it out", "prompt_logprobs")
        scored = body.logprobs
    return sampling(
        body,
        max_tokens=limit,
        logprobs=body.logprobs,
        prompt_logprobs=scored,
        schema=body.schema,
    )


def _prompts(prompt: str | list[str | int | list[int]] | None) -> tuple[Prompt, ...]:
    """A text, token ids, or several of either; null is the empty text."""
    if prompt is None or isinstance(prompt, str):
        return (prompt or "",)
    if not prompt or [] in prompt:
        raise BadRequest("a list is empty, give at least one token", "prompt")
    if len({type(part) for part in prompt}) > 1:
        raise BadRequest("it mixes texts and token ids, give one kind", "prompt")
    if ids := tuple(part for part in prompt if isinstance(part, int)):
        return (ids,)
    return tuple(tuple(part) if isinstance(part, list) else str(part) for part in prompt)


def chunks(reply: Reply, events: Events) -> AsyncIterator[ServerSentEvent]:
    return closed_with_done(_chunks(reply, events))


async def _chunks(reply: Reply, events: Events) -> AsyncIterator[ServerSentEvent]:
    common = head(reply, KIND) | ({"usage": None} if reply.call.include_usage else {})
    scribes = [LegacyLogprobs(reply.tokenizer) for _ in range(reply.num_choices)]
    ends: dict[int, Finished] = {}
    async for index, event in _prompts_first(events):
        if spoken := _spoken(reply, index, event, scribes[index]):
            yield frame(common | {"choices": [_choice(index, *spoken)]})
        if isinstance(event, Finished):
            ends[index] = completed(event)
            last = _choice(index, "", None, finish_reason=_reason(reply, event))
            yield frame(common | {"choices": [last], "seed": event.seed})
    if reply.call.include_usage:
        yield frame(common | {"choices": [], "usage": usage(reply, ends), "seed": ends[0].seed})


async def _prompts_first(events: Events) -> Events:
    """Every choice begins with its prompt, also where nobody asked for scores."""
    begun: set[int] = set()
    async for index, event in events:
        if index not in begun and not isinstance(event, PromptScored):
            yield index, PromptScored(())
        begun.add(index)
        yield index, event


def _spoken(
    reply: Reply, index: int, event: Event, scribe: LegacyLogprobs
) -> tuple[str, Json | None] | None:
    """The text and logprobs that an event adds to its choice, if any."""
    asked = reply.call.params.logprobs is not None
    match event:
        case PromptScored(logprobs=scored) if reply.call.echo:
            ids, prompt = reply.prompt_ids[index // reply.call.n], _prompt(reply, index)
            text = prompt if isinstance(prompt, str) else ""
            return _echo(reply, index), scribe.prompt(ids, scored, text) if asked else None
        case Delta(text=text, logprobs=logprobs) if (text or logprobs) and not reply.call.silent:
            return text, scribe.part(logprobs) if asked else None
    return None


def _echo(reply: Reply, index: int) -> str:
    prompt = _prompt(reply, index)
    if isinstance(prompt, str):
        return prompt
    raw = b"".join(map(reply.tokenizer.token_bytes, reply.prompt_ids[index // reply.call.n]))
    return raw.decode(errors="replace")


def _prompt(reply: Reply, index: int) -> Prompt:
    """That a choice answers."""
    return reply.call.prompts[index // reply.call.n]


def _choice(index: int, text: str, logprobs: Json | None, **more: Any) -> Json:
    return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": None} | more


def _reason(reply: Reply, end: Finished) -> str:
    return "length" if reply.call.silent else end.reason


def whole(reply: Reply, answers: Sequence[Answer]) -> bytes:
    body = head(reply, KIND) | {
        "choices": [_whole_choice(reply, index, answer) for index, answer in enumerate(answers)],
        "usage": usage(reply, {k: answer.end for k, answer in enumerate(answers)}),
        "seed": answers[0].end.seed,
    }
    return msgspec.json.encode(body)


def _whole_choice(reply: Reply, index: int, answer: Answer) -> Json:
    scribe = LegacyLogprobs(reply.tokenizer)
    events = (PromptScored(answer.prompt_logprobs), Delta(answer.text, (), answer.logprobs))
    spoken = [part for event in events if (part := _spoken(reply, index, event, scribe))]
    logprobs = [part for _, part in spoken if part is not None]
    more: Json = {"finish_reason": _reason(reply, answer.end), "seed": answer.end.seed}
    if _has_own_scores(reply.call):
        more["prompt_logprobs"] = prompt_logprobs(answer.prompt_logprobs, reply.tokenizer)
    text = "".join(text for text, _ in spoken)
    return _choice(index, text, reduce(joined, logprobs) if logprobs else None, **more)


def _has_own_scores(call: Call) -> bool:
    """An echo with logprobs holds the scores of the prompt in its own lists."""
    return call.params.prompt_logprobs is not None and not (
        call.echo and call.params.logprobs is not None
    )
