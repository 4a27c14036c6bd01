"""The values that cross packages. Pure data: no behaviour beyond what its fields imply."""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
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

# stop: a stop string, a stop token or the model's own end of turn. tool_calls: the same, and it has
# called tools. length: max_tokens or the context is full. cancelled: the client left. timeout: the
# request's own. error: the step it was in failed, or a call in it is malformed.
FinishReason = Literal["stop", "tool_calls", "length", "cancelled", "timeout", "error"]


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
    """Rows of logits, and the maximum of each LOGITS_BLOCK neighbours, so that whoever looks for
    the largest need not read all. A block that holds a NaN has NaN as its maximum."""

    values: Tensor  # float32 [rows, vocab]
    maxima: Tensor  # float32 [rows, blocks]; the last block of a row may be shorter


@dataclass(frozen=True, slots=True)
class Grammar:
    """What an answer must be, in the notation of one file of octavo/grammar/fronts."""

    kind: str  # its name: "json_schema", "regex", "lark", ...
    text: str


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
    # What the answer must be, whole; one of them at most. `constraint` tells them as one.
    schema: Any = None  # JSON Schema: text, a dict, or a type that pydantic describes; kept as text
    regex: str | None = None  # a regular expression that the whole answer matches
    grammar: str | Grammar | None = None  # Lark, or GBNF, as llama.cpp has it
    choice: tuple[str, ...] | None = None  # one of these texts

    @property
    def constraint(self) -> Grammar | None:
        """None: the answer may be anything."""
        if self.schema is not None:
            return Grammar("json_schema", self.schema)
        if self.regex is not None:
            return Grammar("regex", self.regex)
        if isinstance(self.grammar, str):
            return Grammar("gbnf" if _GBNF_RULE.search(self.grammar) else "lark", self.grammar)
        if self.choice is not None:
            return Grammar("choice", json.dumps(self.choice))
        return self.grammar

    def held_to(self, grammar: Grammar | None) -> "SamplingParams":
        """With this constraint instead of its own."""
        if grammar == self.constraint:
            return self
        return replace(self, schema=None, regex=None, choice=None, grammar=grammar)

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
        self._check_constraint()

    def _check_constraint(self) -> None:
        if isinstance(self.choice, str):
            raise BadRequest(f"{self.choice!r} is one text, give a tuple of texts", "choice")
        if self.choice is not None and not self.choice:
            raise BadRequest("it is empty, give at least one text", "choice")
        for name in ("regex", "grammar"):
            if not isinstance(value := getattr(self, name), str | Grammar | None):
                raise BadRequest(f"{value!r} is not a text", name)
        kinds = ("schema", "regex", "grammar", "choice")
        names = [name for name in kinds if getattr(self, name) is not None]
        if len(names) > 1:
            raise BadRequest(f"it cannot stand beside {names[0]}, give one of them", names[1])
        if self.schema is not None:
            object.__setattr__(self, "schema", _schema_text(self.schema))


MAX_LOGPROBS = 20
_GBNF_RULE = re.compile(r"^[ \t]*[A-Za-z][\w-]*[ \t]*::=", re.MULTILINE)  # Lark writes `name: ...`


def _schema_text(schema: Any) -> str:
    """Properties keep their order, in which the answer has them. Raises BadRequest."""
    if isinstance(schema, str):
        return schema
    try:
        return json.dumps(schema if isinstance(schema, dict | bool) else _described(schema))
    except (TypeError, ValueError, RecursionError) as error:
        problem = f"{error}, give JSON text, a dict, or a type that pydantic knows"
        raise BadRequest(problem, "schema") from None


def _described(kind: Any) -> Json:
    """A type's schema, as pydantic makes it. Raises TypeError, also where that is not installed."""
    try:
        from pydantic import TypeAdapter
        from pydantic.errors import PydanticUndefinedAnnotation, PydanticUserError
    except ImportError:
        raise TypeError("it is not JSON, and pydantic 2 is not installed") from None
    try:
        adapter = kind if isinstance(kind, TypeAdapter) else TypeAdapter(kind)
        return adapter.json_schema()
    except (PydanticUserError, PydanticUndefinedAnnotation) as error:
        raise TypeError(f"no schema of it is known: {error.message.split('. ')[0]}") from None


def _within(name: str, value: float, low: float, high: float, *, open_low: bool = False) -> None:
    if not isinstance(value, (int, float)):
        raise BadRequest(f"{value!r} is not a number", name)
    if not (low <= value <= high) or (open_low and value == low) or math.isnan(value):
        interval = f"{'(' if open_low else '['}{low}, {high}]"
        raise BadRequest(f"{value} is not in {interval}", name)


@dataclass(frozen=True, slots=True)
class Reading:
    """How an answer is told apart into thoughts, text and calls, as the model's dialect has it."""

    tools: tuple[str, ...] = ()  # which may be called; without any, nothing is taken for a call
    is_thinking: bool = False  # the prompt ends within a thought
    max_thought: int | None = None  # tokens of all thoughts; then the thought is closed by force
    is_held: bool = False  # the text is held to a grammar: then nothing within it is a call


@dataclass(frozen=True, slots=True)
class Request:
    """What the engine is asked for: token ids in, events out."""

    id: str
    prompt_ids: tuple[int, ...]
    params: SamplingParams = SamplingParams()
    priority: int = 0  # lower runs first; equals by fair share, then in order of arrival
    tenant: str = ""  # between whom shares are fair
    cache_salt: str | None = None  # prefixes are shared only among requests that have the same
    timeout: float | None = None  # seconds from acceptance to its end
    reading: Reading | None = None  # None: the answer is text, whatever stands in it
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
    reasoning_tokens: int = 0  # of the completion, in thoughts


@dataclass(frozen=True, slots=True)
class Timing:
    """Where a request's time, in seconds, and memory went: waiting + prefill + decode."""

    waiting: float = 0.0  # until the first step it was in
    prefill: float = 0.0  # from there to its first token
    decode: float = 0.0  # from there to its end
    preemptions: int = 0  # times its pages were taken and computed again
    pages: int = 0  # KV pages it read at its end, of every group; shared ones included


@dataclass(frozen=True, slots=True)
class CallDelta:
    """What a step added to a call of a tool. The first of a call has its id and its name."""

    index: int  # of the call within the answer
    arguments: str = ""  # JSON text; all of a call's join to an object
    id: str | None = None
    name: str | None = None


@dataclass(frozen=True, slots=True)
class Delta:
    """What one step added. `text` may be empty: a character or a stop string may be half done. Read
    the thought first, then the text, then the calls; a step that says them in another order makes
    several Deltas, the first of which has all its tokens."""

    text: str
    token_ids: tuple[int, ...]
    logprobs: tuple[TokenLogprob, ...] = ()  # one a token, when asked for
    reasoning: str = ""
    calls: tuple[CallDelta, ...] = ()


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
class Tool:
    """A function that a model may call. Whoever asked runs it."""

    name: str
    description: str | None
    parameters: Json  # JSON Schema of an object: its arguments
    field: str = "tools"  # where the schema stands, in the words of whoever sent it


@dataclass(frozen=True, slots=True)
class ToolCall:
    id: str
    name: str
    arguments: str  # JSON text of an object


@dataclass(frozen=True, slots=True)
class Tools:
    """The model is told of all of them."""

    all: tuple[Tool, ...]
    callable: tuple[str, ...]  # the names of those that it may call
    is_required: bool = False  # the answer is at least one call, and no text
    is_parallel: bool = True  # it may be several


@dataclass(frozen=True, slots=True)
class Thinking:
    """How a model that reasons shall think. Each None: as it does unasked."""

    field: str  # that asks for it, in the words of whoever sent it
    is_wanted: bool | None = None
    max_tokens: int | None = None  # of the thought, which is closed by force at that many
    effort: str | None = None  # a word that the model's template knows


@dataclass(frozen=True, slots=True)
class Message:
    role: str
    content: str
    reasoning: str = ""  # of an assistant: what it thought before
    tool_calls: tuple[ToolCall, ...] = ()  # of an assistant
    tool_call_id: str | None = None  # of a tool: the call whose result the content is


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation, and how it may go on."""

    messages: tuple[Message, ...]
    tools: Tools | None = None
    thinking: Thinking | None = None
    field: str = "messages"  # where they stood, in the words of whoever sent them
    may_shorten: bool = False  # the oldest are left out where not all fit the context
