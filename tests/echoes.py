"""An engine that needs no model: a byte is a token, the answer is the last message once more.

from echoes import EchoEngine              (tests/ is on the path)
"""

import asyncio
import codecs
from dataclasses import replace

from octavo.engine.chat_format import ChatFormat
from octavo.engine.reply import ReplyStream, deltas
from octavo.errors import BadRequest, CapacityError, QueueFull
from octavo.types import Delta, Finished, Load, PageCounts, PromptScored, TokenLogprob, Usage


class ByteTokenizer:
    bos_id = 256

    def __init__(self, chat_template="{{ messages }}"):
        self.chat_template, self.control_tokens = chat_template, {}

    @property
    def template_variables(self):
        names = ("enable_thinking", "reasoning_effort")
        return frozenset(name for name in names if name in self.chat_template)

    def token_bytes(self, token_id, *, special=False):
        if token_id == self.bos_id:
            return b"<bos>" if special else b""
        if not 0 <= token_id < 256:
            raise BadRequest(f"{token_id} is not in [0, 257)", "token id")
        return bytes([token_id])

    def prompt_ids(self, text):
        return list(text.encode())

    def encode(self, text):
        return list(text.encode())

    def decode(self, ids, special=False):
        raw = b"".join(self.token_bytes(i, special=special) for i in ids)
        return raw.decode(errors="replace")

    def encode_within(self, text):
        return self.encode(text)

    def render(self, messages, tools=None, **extra):
        """The last message, whatever it may call."""
        self.given = {"messages": messages, "tools": tools, **extra}
        return messages[-1]["content"]

    def chat_ids(self, messages, tools=None, **extra):
        return self.encode(self.render(messages, tools, **extra))


class EchoEngine:
    """Keeps the contract of AsyncEngine. What it is asked to refuse or to break, it does."""

    is_alive = is_ready = True
    name = "echo"
    fingerprint = "fp_echo"
    max_context = 8192
    reopens_in = 1.5  # seconds
    max_running = 8
    max_requests = 1 << 20

    def __init__(self, pace=0.0, template="{{ messages }}"):
        """Its tokenizer renders nothing; the template tells how the model writes calls."""
        self.tokenizer = ByteTokenizer(template)
        self.chat_format = ChatFormat(self.tokenizer)
        self.pace = pace  # seconds a token
        self.running = {}
        self.requests = []
        self.stopping = False

    async def prepare(self, params, tenant):
        if params.regex == "(":
            raise BadRequest("unclosed group", "regex")
        if params.schema == '{"not": {}}':
            raise BadRequest("'not' at $ is not enforced, leave it out", "schema")

    async def start(self):
        self.stopping, self.is_ready = False, True

    load = Load(1, 0, 0, 1, 0.5, (PageCounts(10, 4, 2),), {"ValueError": 3})

    @property
    def num_requests(self):
        return len(self.running)

    def close(self, reopens_in):
        self.is_ready = False

    async def stop(self):
        self.stopping = True

    def submit_all(self, requests):
        for request in requests:
            self.check(request)
        return [self.submit(request) for request in requests]

    def check(self, request):
        if not self.is_ready:
            raise CapacityError("stopping", retry_after=self.reopens_in)
        if not request.prompt_ids:
            raise BadRequest("it has no tokens", "prompt")
        if max(request.prompt_ids) > 256:
            raise BadRequest(f"token {max(request.prompt_ids)} is not in [0, 257)", "prompt")
        if bytes(request.prompt_ids) == b"full":
            raise QueueFull(held=3, wanted=1, limit=3)

    def submit(self, request):
        self.requests.append(request)
        self.running[request.id] = request
        return EchoStream(self, request)

    async def events(self, request):
        params, prompt = request.params, request.prompt_ids
        if params.prompt_logprobs is not None:
            yield PromptScored(tuple(scored(t, params.prompt_logprobs) for t in prompt[1:]))
        if request.reading is not None:
            async for event in self.told_apart(request):
                yield event
            return
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        heard = prompt[: params.max_tokens]
        reason, stop = ("length" if len(heard) < len(prompt) else "stop"), None
        error = None
        for said, token in enumerate(heard):
            await asyncio.sleep(self.pace)
            text = decoder.decode(bytes([token]))
            reason, stop = self.ending(text, params.stop) or (reason, None)
            if stop is not None or reason in ("error", "cancelled"):
                heard = heard[:said]
                break
            logprobs = () if params.logprobs is None else (scored(token, params.logprobs),)
            yield Delta(text, (token,), logprobs)
        if request.timeout is not None and request.timeout < 1:
            reason, error = "timeout", f"timeout: {request.timeout} s have passed"
        yield Finished(reason, Usage(len(prompt), len(heard), 1), params.seed, stop, error)

    async def told_apart(self, request):
        """A prompt that a model of this template could have said, as its calls and thoughts."""
        params, prompt, spelling = request.params, request.prompt_ids, self.chat_format.spelling
        reply = ReplyStream(
            self.tokenizer, spelling, request.reading, params.stop, "id{}".format, ()
        )
        called = False
        heard = prompt[: params.max_tokens]
        for place, token in enumerate(heard):
            await asyncio.sleep(self.pace)
            if self.stopping:
                yield Finished("cancelled", Usage(len(prompt), place, 1), params.seed)
                return
            parts = reply.push(token) + (reply.flush() if place == len(heard) - 1 else [])
            first, *others = deltas(parts)
            for delta in (replace(first, token_ids=(token,)), *others):
                called |= bool(delta.calls)
                yield delta
        reason = "length" if len(heard) < len(prompt) else "tool_calls" if called else "stop"
        usage = Usage(len(prompt), len(heard), 1, reply.num_thought)
        yield Finished(reason, usage, params.seed, reply.stopped)

    def ending(self, text, stops):
        if text == "!":
            raise RuntimeError("a bug in the engine")
        if self.stopping:
            return "cancelled", None
        if text == "?":
            return "error", None
        return ("stop", text) if text in stops else None


class EchoStream:
    """Closed while somebody waits for an event, it gives them that one as its last."""

    def __init__(self, engine, request):
        self.engine, self.request = engine, request
        self.inner = engine.events(request)
        self.is_closed = False
        self.num_spent = 0

    def __aiter__(self):
        return self

    async def __anext__(self):
        if self.is_closed:
            raise StopAsyncIteration
        self.num_spent = self.num_spent or len(self.request.prompt_ids) - 1  # one is cached
        event = await anext(self.inner)
        self.num_spent += len(event.token_ids) if isinstance(event, Delta) else 0
        if isinstance(event, Finished):
            self.engine.running.pop(self.request.id, None)
        if self.is_closed:
            await self.inner.aclose()
        return event

    async def aclose(self):
        self.is_closed = True
        self.engine.running.pop(self.request.id, None)
        if not self.inner.ag_running:
            await self.inner.aclose()


def scored(token, top):
    """Halves of halves: the k-th likeliest rival has probability 2 ** -(k + 1)."""
    rivals = tuple(((token + k) % 256, -0.5 * (k + 1)) for k in range(top))
    return TokenLogprob(token, -0.5, rivals)
