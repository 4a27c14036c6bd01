"""What OpenAI's generating endpoints say alike: common fields, usage, errors, frames."""

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias

import msgspec
from msgspec import Meta, Struct
from sse_starlette import ServerSentEvent

from octavo.errors import (
    BadRequest,
    OctavoError,
    PromptTooLong,
    QueueFull,
    RateLimited,
    Unauthorized,
    UnknownModel,
    UnknownPrevious,
)
from octavo.server.bodies import CacheSalt, Timeout, refuse_unserved
from octavo.server.calls import Reply
from octavo.server.protocols._formats import Format, schema_field, schema_of
from octavo.types import Finished, Json, SamplingParams

DONE = ServerSentEvent("[DONE]", sep="\n")
MAX_CHOICES = 128
MAX_STOPS = 32
MAX_STOP_LENGTH = 1000  # characters

# Padding that hides how long each token is; nobody is sent any.
NEUTRAL_STREAM: Mapping[str, tuple[Any, ...]] = {"include_obfuscation": (False,)}
NEUTRAL_CACHE: Mapping[str, tuple[Any, ...]] = {"comparison_response_id": (), "prewarm": (False,)}

Limit = Annotated[int, Meta(ge=1, lt=2**31)]
CacheRetention: TypeAlias = Literal["in_memory", "24h"]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Metadata = Annotated[
    dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]],
    Meta(max_length=16),
]


class StreamOptions(Struct):
    include_usage: bool | None = None
    include_obfuscation: bool | None = None  # not served: see NEUTRAL_STREAM


class CacheOptions(Struct):
    # Not served: see NEUTRAL_CACHE.
    comparison_response_id: str | None = None
    prewarm: bool | None = None
    # Accepted because they change no token.
    mode: Literal["implicit", "explicit"] | None = None
    ttl: Literal["30m", "12h"] | None = None


class Sampled(Struct, kw_only=True):
    """Fields of all bodies. Absent and null mean the same."""

    model: str
    stream: bool | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: dict[int, float] | None = None
    seed: int | None = None
    stop: str | list[str] | None = None
    # Ours and vLLM's, beyond OpenAI's.
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    ignore_eos: bool | None = None
    stop_token_ids: list[int] | None = None
    priority: Annotated[int, Meta(ge=-(2**31), lt=2**31)] | None = None
    timeout: Timeout | None = None
    cache_salt: CacheSalt | None = None
    # Ours: what the answer must be. `grammar` is Lark or GBNF.
    regex: str | None = None
    grammar: str | None = None
    choice: Annotated[list[str], Meta(min_length=1)] | None = None
    # Accepted because it changes no token.
    user: str | None = None


class Common(Sampled, kw_only=True):
    """Fields of the two bodies that may ask for several answers."""

    stream_options: StreamOptions | None = None
    n: Annotated[int, Meta(ge=1, le=MAX_CHOICES)] | None = None
    max_tokens: int | None = None
    prompt_logprobs: int | None = None
    response_format: Format | None = None

    @property
    def schema(self) -> Json | None:
        """What the text must be, None: anything. Raises BadRequest."""
        return schema_of(self.response_format, "response_format")

    @property
    def names(self) -> dict[str, str]:
        """Of params: ours -> what they are called here, if other."""
        given = self.response_format
        if given is None or given.type == "text":
            return {}
        return {"schema": schema_field(given, "response_format")}


def sampling(
    body: Sampled,
    *,
    max_tokens: int | None,
    logprobs: int | None,
    prompt_logprobs: int | None = None,
    schema: Json | None = None,
) -> SamplingParams:
    """The fields all endpoints spell alike, and those that they do not."""
    top_k = None if body.top_k in (0, -1) else body.top_k  # both mean "all" to vLLM's clients
    given: dict[str, Any] = {
        "max_tokens": max_tokens,
        "logprobs": logprobs,
        "temperature": body.temperature,
        # OpenAI takes 0 and means the likeliest token; so does any share it alone reaches.
        "top_p": 1e-9 if body.top_p == 0 else body.top_p,
        "presence_penalty": body.presence_penalty,
        "frequency_penalty": body.frequency_penalty,
        "repetition_penalty": body.repetition_penalty,
        "min_p": body.min_p,
        "top_k": top_k,
        "logit_bias": body.logit_bias,
        "seed": body.seed,
        "stop": stop_strings([body.stop] if isinstance(body.stop, str) else body.stop, "stop"),
        "stop_token_ids": tuple(body.stop_token_ids or ()),
        "ignore_eos": body.ignore_eos,
        "prompt_logprobs": prompt_logprobs,
        "schema": schema,
        "regex": body.regex,
        "grammar": body.grammar,
        "choice": None if body.choice is None else tuple(body.choice),
    }
    return SamplingParams(**{name: value for name, value in given.items() if value is not None})


def stop_strings(stops: Sequence[str] | None, field: str) -> tuple[str, ...]:
    """Raises BadRequest for more or longer ones than are looked for."""
    stops = tuple(stops or ())
    if len(stops) > MAX_STOPS:
        raise BadRequest(f"{len(stops)} stop strings are more than {MAX_STOPS}, give fewer", field)
    longest = max(map(len, stops), default=0)
    if longest > MAX_STOP_LENGTH:
        raise BadRequest(f"{longest} characters are more than {MAX_STOP_LENGTH}, shorten it", field)
    if "" in stops:
        raise BadRequest("a stop string is empty, give at least one character", field)
    return stops


def wants_usage(body: Common) -> bool:
    """Raises BadRequest."""
    if body.stream_options is None:
        return False
    if not body.stream:
        raise BadRequest("it needs stream: true", "stream_options")
    refuse_unserved(body.stream_options, NEUTRAL_STREAM, "stream_options.")
    return bool(body.stream_options.include_usage)


def refuse_streamed_scores(body: Common) -> None:
    """Raises BadRequest."""
    if body.stream and body.prompt_logprobs is not None:
        raise BadRequest("a stream cannot carry it, ask with stream: false", "prompt_logprobs")


def head(reply: Reply, kind: str) -> Json:
    return {
        "id": reply.id,
        "object": kind,
        "created": reply.created,
        "model": reply.call.model,
        "system_fingerprint": reply.fingerprint,
    }


def usage(reply: Reply, ends: Mapping[int, Finished]) -> Json:
    """A prompt counts once, however many choices answer it."""
    firsts = [ends[k].usage for k in range(0, reply.num_choices, reply.call.n)]
    prompt = sum(first.prompt_tokens for first in firsts)
    said = 0 if reply.call.silent else sum(end.usage.completion_tokens for end in ends.values())
    told: Json = {
        "prompt_tokens": prompt,
        "completion_tokens": said,
        "total_tokens": prompt + said,
        "prompt_tokens_details": {"cached_tokens": sum(first.cached_tokens for first in firsts)},
    }
    if thought := sum(end.usage.reasoning_tokens for end in ends.values()):
        told["completion_tokens_details"] = {"reasoning_tokens": thought}
    return told


def frame(data: Json) -> ServerSentEvent:
    return ServerSentEvent(msgspec.json.encode(data).decode(), sep="\n")


async def closed_with_done(
    frames: AsyncIterator[ServerSentEvent],
) -> AsyncIterator[ServerSentEvent]:
    """`frames`, then the end mark; an error on the way becomes a frame, as every SDK expects."""
    try:
        async for one in frames:
            yield one
    except OctavoError as error:
        yield frame(problem(error))
    yield DONE


def problem(error: OctavoError) -> Json:
    """The error envelope."""
    kind, code = "server_error", None
    match error:
        case UnknownModel():
            kind, code = "invalid_request_error", "model_not_found"
        case PromptTooLong():
            kind, code = "invalid_request_error", "context_length_exceeded"
        case UnknownPrevious():
            kind, code = "invalid_request_error", "previous_response_not_found"
        case Unauthorized():
            kind, code = "invalid_request_error", "invalid_api_key"
        case QueueFull() | RateLimited():
            kind, code = "rate_limit_error", "rate_limit_exceeded"
        case _ if error.status < 500:
            kind = "invalid_request_error"
    return {"error": {"message": str(error), "type": kind, "param": error.field, "code": code}}
