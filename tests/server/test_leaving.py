"""Clients that leave in the queue, in prefill and in decode: what they cost, and what they leave.

The engine steps when the test says so. A step that is under way when a client leaves ends; the
request is in no other.
"""

import threading
import time
from contextlib import contextmanager

import httpx
import pytest
from checkpoints import write_tiny
from serving import serving, wait_until

from octavo.config import Config
from octavo.engine.async_engine import AsyncEngine
from octavo.engine.engine import Engine
from octavo.server.gate import Gate
from octavo.server.keys import Keys, Limits
from octavo.server.state import State
from octavo.types import PAGE_SIZE

STEP_TOKENS, PROMPT = 64, 200  # tokens


class Stepped(Engine):
    """Takes a step for each permit, or as it likes while it is free."""

    def __init__(self, config):
        super().__init__(config)
        self.is_free, self.is_blocked, self.num_steps = True, False, 0
        self._permits = threading.Semaphore(0)

    def step(self):
        self.is_blocked = not self.is_free
        while not self.is_free and not self._permits.acquire(timeout=0.05):
            pass
        self.is_blocked = False
        told = super().step()
        self.num_steps += 1
        return told

    def hold(self):
        self.is_free = False

    def take(self, num_steps):
        """Until the step after them has begun, and waits."""
        wanted = self.num_steps + num_steps
        for _ in range(num_steps):
            self._permits.release()
        wait_until(lambda: self.num_steps >= wanted and self.is_blocked)

    @property
    def held(self):
        return sum(group.held for group in self.pages)


@pytest.fixture(scope="module")
def keys(tmp_path_factory):
    state = State(tmp_path_factory.mktemp("state") / "state.db")
    yield Keys(state)
    state.close()


@pytest.fixture(scope="module")
def served(tmp_path_factory, keys):
    """(engine, base URL); one sequence runs at a time."""
    path = write_tiny(tmp_path_factory.mktemp("models") / "tiny.gguf", context=8192)
    limits = {"memory": 64 << 20, "max_running": 1, "step_tokens": STEP_TOKENS}
    engine = Stepped(Config(str(path), **limits))
    gate = Gate(keys, allow_anonymous=True)
    with serving(AsyncEngine(engine), gate=gate) as (_, url):
        yield engine, url
        engine.is_free = True


def prompt(seed):
    return [5 + (seed * 31 + k * k) % 200 for k in range(PROMPT)]


@contextmanager
def asking(url, ids, headers=None):
    """Its explanation's URL; the client leaves at the end."""
    body = {"model": "tiny", "prompt": ids, "max_tokens": 4000, "ignore_eos": True, "stream": True}
    path = f"{url}/v1/completions"
    with httpx.stream("POST", path, json=body, headers=headers, timeout=60) as reply:
        yield f"{url}/v1/requests/{reply.headers['x-request-id']}/explain"


def state(explain, key=None):
    headers = {"x-api-key": key} if key else None
    return httpx.get(explain, headers=headers).json()["choices"][0]["state"]


def cached(url, ids):
    body = {"model": "tiny", "prompt": ids, "max_tokens": 1}
    usage = httpx.post(f"{url}/v1/completions", json=body, timeout=60).json()["usage"]
    return usage["prompt_tokens_details"]["cached_tokens"]


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_in_prefill(served, steps):
    engine, url = served
    engine.hold()
    ids = prompt(steps)
    with asking(url, ids) as explain:
        engine.take(steps)
    wait_until(lambda: state(explain) == "left")
    engine.take(1)  # which had begun
    wait_until(lambda: not engine.num_running and not engine.held)
    engine.is_free = True
    whole_pages = (steps + 1) * STEP_TOKENS // PAGE_SIZE * PAGE_SIZE
    assert cached(url, ids) == whole_pages


@pytest.mark.parametrize("tokens", [1, 40])
def test_in_decode(served, tokens):
    engine, url = served
    engine.hold()
    ids = prompt(10 + tokens)
    with asking(url, ids) as explain:
        engine.take(-(-PROMPT // STEP_TOKENS) + tokens - 1)
        wait_until(lambda: httpx.get(explain).json()["choices"][0]["tokens"]["completion"])
    wait_until(lambda: state(explain) == "left")
    engine.take(1)  # which had begun
    wait_until(lambda: not engine.num_running and not engine.held)
    engine.is_free = True
    assert cached(url, ids) == PROMPT // PAGE_SIZE * PAGE_SIZE


def test_in_the_queue(served):
    engine, url = served
    ids = prompt(20)
    cached(url, ids)  # its pages are there from before
    engine.hold()
    with asking(url, prompt(21)) as first:
        engine.take(1)
        with asking(url, ids) as explain:
            engine.take(1)  # after which the engine hears of the second
            wait_until(lambda: engine.num_waiting == 1)
            assert state(explain) == "queued"
            held = engine.held
        wait_until(lambda: state(explain) == "left")
        engine.take(1)  # which had begun
        wait_until(lambda: not engine.num_waiting)
        assert engine.num_running == 1
        assert engine.held <= held + STEP_TOKENS // PAGE_SIZE  # the first's, who goes on
    wait_until(lambda: state(first) == "left")
    engine.is_free = True
    wait_until(lambda: not engine.num_running and not engine.held)
    assert cached(url, ids) == PROMPT // PAGE_SIZE * PAGE_SIZE


@pytest.mark.parametrize("steps", [0, 1, 2, 4])
def test_its_key_pays_for_what_was_computed(served, keys, steps):
    """Four steps compute the prompt and the first token."""
    engine, url = served
    ids = prompt(30 + steps)
    _, text = keys.create("alice", Limits(tokens_per_minute=1000))
    engine.hold()
    begin = time.monotonic()
    with asking(url, ids, {"x-api-key": text}) as explain:
        engine.take(steps)
    wait_until(lambda: state(explain, text) == "left")
    left = httpx.get(f"{url}/v1/models", headers={"x-api-key": text})
    flown_back = (time.monotonic() - begin) * 1000 / 60
    engine.take(1)  # which had begun
    engine.is_free = True
    cached(url, ids)  # after which nothing is left of it
    spent = 1000 - int(left.headers["x-ratelimit-remaining-tokens"])
    told = min(steps * STEP_TOKENS, PROMPT + 1)
    assert told - flown_back - 1 <= spent <= told
