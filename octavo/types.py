"""The values that cross packages. Pure data: no behaviour beyond what its fields imply."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

from numpy.typing import NDArray

from octavo.errors import BadRequest

Tensor: TypeAlias = NDArray[Any]  # shapes are written beside the name, as # [tokens, hidden]
Ints: TypeAlias = NDArray[Any]
Bytes: TypeAlias = NDArray[Any]
Json: TypeAlias = dict[str, Any]
PageId: TypeAlias = int

PAGE_SIZE = 16  # tokens per KV page
LOGITS_BLOCK = 64  # neighbours in a row of logits that share a maximum

# stop: a stop string, a stop token or the model's own end of turn. length: max_tokens or the
# context is full. cancelled: the client left. timeout: the request's own. error: the step it was in
# failed.
FinishReason = Literal["stop", "length", "cancelled", "timeout", "error"]


@dataclass(frozen=True, slots=True)
class RawTensor:
    """A tensor as it lies in the file: nothing copied, nothing decoded."""

    name: str
    format: str  # a file name of octavo/quant: "q4_0", "f16", ...
    shape: tuple[int, ...]  # [rows, columns], or [columns] of a vector
    data: Bytes  # uint8 [rows, bytes of a row], mapped read-only; a vector has one row
    rows: Ints | None = None  # row i of the tensor is row rows[i] of data; None: as stored


@dataclass(frozen=True, slots=True)
class KVGroup:
    """The attention layers that keep keys and values alike: one pool of pages serves them all."""

    num_layers: int
    kv_heads: int
    head_dim: int
    window: int | None = None  # a query sees this many positions, its own included; None: all


@dataclass(frozen=True, slots=True)
class Batch:
    """The tokens of one step, all sequences laid end to end."""

    token_ids: Ints  # int32 [tokens]
    positions: Ints  # int32 [tokens]       place of each token within its own sequence
    starts: Ints  # int32 [sequences+1]  sequence i owns tokens starts[i]:starts[i+1]
    tables: tuple[Ints, ...]  # per KV group: int32 [sequences, pages], in reading order;
    #   entries beyond a sequence's last page, or of pages that left the window, are never read
    outputs: Ints  # int32 [rows]  the tokens whose logits are wanted, ascending


@dataclass(frozen=True, slots=True)
class Logits:
    """Rows of them, and the largest of each LOGITS_BLOCK neighbours: whoever looks for large ones
    need not look at all. The maximum of what is not all numbers is not a number."""

    values: Tensor  # float32 [rows, vocab]
    maxima: Tensor  # float32 [rows, blocks]; the last block of a row may be shorter


@dataclass(frozen=True, slots=True)
class SamplingParams:
    """How the next token is chosen. Defaults ask for nothing special."""

    max_tokens: int | None = None  # of the answer; None: until the context is full
    temperature: float = 1.0  # 0: greedy
    top_k: int | None = None  # keep the k likeliest
    top_p: float = 1.0  # keep the likeliest that together reach this probability
    min_p: float = 0.0  # keep what is at least this share of the likeliest
    repetition_penalty: float = 1.0  # divides positive, multiplies negative logits of tokens seen
    presence_penalty: float = 0.0  # subtracted once for a token generated before
    frequency_penalty: float = 0.0  # subtracted for each time it was generated
    logit_bias: Mapping[int, float] = field(default_factory=dict)  # added, by token id
    seed: int | None = None  # None: the engine draws one and names it
    stop: tuple[str, ...] = ()  # text that ends the answer and is not shown
    stop_token_ids: tuple[int, ...] = ()  # tokens that end it too
    ignore_eos: bool = False  # go on after the model's own end of turn
    logprobs: int | None = None  # alternatives named beside each token; None: no logprobs at all
    prompt_logprobs: int | None = None  # the same for each token of the prompt

    def __post_init__(self) -> None:
        _within("temperature", self.temperature, 0, 100)
        _within("top_p", self.top_p, 0, 1, open_low=True)
        _within("min_p", self.min_p, 0, 1)
        _within("repetition_penalty", self.repetition_penalty, 0, 100, open_low=True)
        _within("presence_penalty", self.presence_penalty, -100, 100)
        _within("frequency_penalty", self.frequency_penalty, -100, 100)
        for name, low, high in (
            ("max_tokens", 1, 2**31 - 1),
            ("top_k", 1, 2**31 - 1),
            ("seed", -(2**63), 2**64 - 1),
            ("logprobs", 0, MAX_LOGPROBS),
            ("prompt_logprobs", 0, MAX_LOGPROBS),
        ):
            if (value := getattr(self, name)) is not None:
                if not isinstance(value, int) or isinstance(value, bool):
                    raise BadRequest(f"{value!r} is not a whole number", name)
                _within(name, value, low, high)
        for token, bias in self.logit_bias.items():
            _within(f"logit_bias[{token}]", bias, -100, 100)
        if isinstance(self.stop, str):  # each of its letters would be one
            raise BadRequest(f"{self.stop!r} is one text, give a tuple of texts", "stop")
        if "" in self.stop:
            raise BadRequest("a stop string is empty, give at least one character", "stop")


MAX_LOGPROBS = 20


def _within(name: str, value: float, low: float, high: float, *, open_low: bool = False) -> None:
    if not isinstance(value, (int, float)):
        raise BadRequest(f"{value!r} is not a number", name)
    if not (low <= value <= high) or (open_low and value == low) or math.isnan(value):
        interval = f"{'(' if open_low else '['}{low}, {high}]"
        raise BadRequest(f"{value} is not in {interval}", name)


@dataclass(frozen=True, slots=True)
class Request:
    """What the engine is asked for: token ids in, events out."""

    id: str
    prompt_ids: tuple[int, ...]
    params: SamplingParams = SamplingParams()
    priority: int = 0  # lower runs first; equals by fair share, then in order of arrival
    tenant: str = ""  # between whom shares are fair
    timeout: float | None = None  # seconds from acceptance to its end
    is_background: bool = False  # runs only while nothing else does, and delays nothing else

    def __post_init__(self) -> None:
        if self.timeout is not None:
            _within("timeout", self.timeout, 0, math.inf, open_low=True)


@dataclass(frozen=True, slots=True)
class TokenLogprob:
    """log p of a token before temperature, penalties and cuts, and its likeliest rivals."""

    token_id: int
    logprob: float
    top: tuple[tuple[int, float], ...] = ()  # (token id, logprob), likeliest first


@dataclass(frozen=True, slots=True)
class Usage:
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int  # of the prompt, found in pages of earlier requests


@dataclass(frozen=True, slots=True)
class Timing:
    """Where a request's time, in seconds, and memory went: waiting + prefill + decode."""

    waiting: float = 0.0  # until the first step it was in
    prefill: float = 0.0  # from there to its first token
    decode: float = 0.0  # from there to its end
    preemptions: int = 0  # times its pages were taken and computed again
    pages: int = 0  # KV pages it read at its end, of every group; shared ones included


@dataclass(frozen=True, slots=True)
class Delta:
    """What one step added. `text` may be empty: a character or a stop string may be half done."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] = ()  # one a token, when asked for


@dataclass(frozen=True, slots=True)
class PromptScored:
    """The logprob of every prompt token but the first; comes before the first Delta."""

    logprobs: tuple[TokenLogprob, ...]


@dataclass(frozen=True, slots=True)
class Finished:
    reason: FinishReason
    usage: Usage
    seed: int
    stop: str | int | None = None  # the stop string or stop token that ended it
    error: str | None = None  # one sentence, when reason is "error"
    timing: Timing = Timing()


# A request that was accepted yields any number of the others, then exactly one Finished.
Event: TypeAlias = PromptScored | Delta | Finished


@dataclass(frozen=True, slots=True)
class PageCounts:
    """Of one KV group. A findable page is held or free."""

    total: int
    held: int
    findable: int


@dataclass(frozen=True, slots=True)
class Load:
    """What an engine is at."""

    num_running: int
    num_waiting: int
    num_background: int  # running or waiting, beside the others
    batch_size: int  # sequences of the last step
    hit_ratio: float  # of all prompt tokens so far, found in pages of earlier requests
    pages: tuple[PageCounts, ...]  # per KV group
    step_failures: Mapping[str, int]  # by cause, over all time


@dataclass(frozen=True, slots=True)
class Message:
    role: str
    content: str
