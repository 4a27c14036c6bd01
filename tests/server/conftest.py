"""A byte is a token, and the answer is the last message again: small, real and predictable."""

import asyncio
import codecs

import pytest

from octavo.errors import BadRequest, QueueFull
from octavo.types import Delta, Finished, PromptScored, TokenLogprob, Usage


class ByteTokenizer:
    vocab_size = 257
    bos_id = 256

    def token_bytes(self, token_id):
        return b"" if token_id == self.bos_id else bytes([token_id])

    def prompt_ids(self, text):
        return list(text.encode())

    def chat_ids(self, messages):
        return list(messages[-1].content.encode())


class EchoEngine:
    """Keeps the contract of AsyncEngine. What it is asked to refuse or to break, it does."""

    name = "echo"
    fingerprint = "fp_echo"
    max_context = 4096

    def __init__(self, pace=0.0):
        self.tokenizer = ByteTokenizer()
        self.pace = pace  # seconds a token
        self.running = {}
        self.requests = []
        self.stopping = asyncio.Event()

    async def start(self):
        self.stopping.clear()

    async def stop(self):
        self.stopping.set()

    def submit(self, request):
        if not request.prompt_ids:
            raise BadRequest("it has no tokens", "prompt")
        if bytes(request.prompt_ids) == b"full":
            raise QueueFull(waiting=3, limit=3)
        self.requests.append(request)
        self.running[request.id] = request
        return EchoStream(self, request)

    async def events(self, request):
        params, prompt = request.params, request.prompt_ids
        if params.prompt_logprobs is not None:
            yield PromptScored(tuple(scored(t, params.prompt_logprobs) for t in prompt[1:]))
        decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        said, reason, stop = 0, "stop", None
        for token in prompt[: params.max_tokens]:
            await asyncio.sleep(self.pace)
            if self.stopping.is_set():
                reason = "cancelled"
                break
            if token == ord("!"):
                raise RuntimeError("a bug in the engine")
            said += 1
            text = decoder.decode(bytes([token]))
            if text in params.stop:
                stop, text = text, ""
            logprobs = () if params.logprobs is None else (scored(token, params.logprobs),)
            yield Delta(text, (token,), logprobs)
            if stop:
                break
        if not stop and reason == "stop" and said < len(prompt):
            reason = "length"
        if bytes(prompt) == b"fail":
            yield Finished("error", Usage(4, said, 0), params.seed, error="the step failed")
        else:
            yield Finished(reason, Usage(len(prompt), said, 1), params.seed, stop)


class EchoStream:
    def __init__(self, engine, request):
        self.engine, self.request = engine, request
        self.inner = engine.events(request)

    def __aiter__(self):
        return self

    async def __anext__(self):
        return await anext(self.inner)

    async def aclose(self):
        self.engine.running.pop(self.request.id, None)
        await self.inner.aclose()


def scored(token, top):
    """Halves of halves: the k-th likeliest rival has probability 2 ** -(k + 1)."""
    rivals = tuple(((token + k) % 256, -0.5 * (k + 1)) for k in range(top))
    return TokenLogprob(token, -0.5, rivals)


@pytest.fixture
def engine():
    return EchoEngine()
