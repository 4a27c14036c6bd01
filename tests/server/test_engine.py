"""The server over the real engine, on a tiny random model: nobody's pages stay behind."""

import asyncio
import random
import threading
from contextlib import suppress

import httpx
import openai
import pytest
from checkpoints import write_tiny
from serving import serving, wait_until

from octavo.config import Config
from octavo.engine.async_engine import AsyncEngine
from octavo.engine.engine import Engine
from octavo.server.state import State
from octavo.types import Finished


class Watched(Engine):
    """Keeps what its requests were told last, and the grammars it was to compile."""

    def __init__(self, config):
        super().__init__(config)
        self.ends, self.compiled, self.may_compile = [], [], threading.Event()
        self.may_compile.set()

    def compile(self, params):
        if params.constraint:
            self.compiled.append(params.constraint.text)
            self.may_compile.wait()
        return super().compile(params)

    def step(self):
        told = super().step()
        self.ends += [event for _, event in told if isinstance(event, Finished)]
        return told


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """(engine, base URL); two sequences run at a time, more than three wait in vain."""
    path = write_tiny(tmp_path_factory.mktemp("models") / "tiny.gguf", context=8192)
    engine = Watched(Config(str(path), memory=64 << 20, max_running=2, max_waiting=4))
    with serving(AsyncEngine(engine)) as (_, url):
        yield engine, url


@pytest.fixture(scope="module")
def client(served):
    url = f"{served[1]}/v1"
    options = {"max_retries": 0, "_strict_response_validation": True}
    with openai.OpenAI(base_url=url, api_key="none", **options) as client:
        yield client


def said(text, **fields):
    return {"model": "tiny", "messages": [{"role": "user", "content": text}], **fields}


def is_idle(engine):
    return not engine.num_running and not engine.num_waiting and not engine.pages[0].held


@pytest.mark.parametrize("temperature", [0, 1])
def test_streamed_or_whole_one_seed_gives_one_text(client, temperature):
    ask = said("The sky is", temperature=temperature, seed=7, max_tokens=40)
    ask |= {"logprobs": True, "top_logprobs": 1}
    whole = client.chat.completions.create(**ask).choices[0]
    chunks = [c.choices[0] for c in client.chat.completions.create(**ask, stream=True)]
    assert "".join(chunk.delta.content or "" for chunk in chunks) == whole.message.content
    parts = [chunk.logprobs.content for chunk in chunks if chunk.logprobs]
    assert [token for part in parts for token in part] == whole.logprobs.content


def test_the_named_seed_and_fingerprint_repeat_an_answer(client):
    ask = said("Once", max_tokens=20, n=2)
    first = client.chat.completions.create(**ask)
    again = client.chat.completions.create(**ask, seed=first.seed)
    texts = [[choice.message.content for choice in answer.choices] for answer in (first, again)]
    assert texts[0] == texts[1]
    assert first.system_fingerprint == again.system_fingerprint


def test_an_echo_scores_every_token_of_its_prompt(client):
    ids = [5, 6, 7, 8]
    choice = client.with_raw_response.completions.create(
        model="tiny", prompt=ids, echo=True, logprobs=1, max_tokens=2, temperature=0
    ).http_response.json()["choices"][0]
    scores = choice["logprobs"]["token_logprobs"]
    assert scores[0] is None
    assert len(scores) == len(ids) + 2
    assert all(score <= 0 for score in scores[1:])


def test_a_stop_string_is_not_shown(client):
    ask = said("The sky is", temperature=0, max_tokens=40)
    text = client.chat.completions.create(**ask).choices[0].message.content
    stop = text[10:12]
    stopped = client.chat.completions.create(**ask, stop=[stop]).choices[0]
    assert (stopped.message.content, stopped.finish_reason) == (text[: text.index(stop)], "stop")


def test_a_second_request_finds_the_pages_of_the_first(client):
    ask = said("the same words, over and over. " * 10, max_tokens=1)
    client.chat.completions.create(**ask)
    usage = client.chat.completions.create(**ask).usage
    assert usage.prompt_tokens_details.cached_tokens >= usage.prompt_tokens - 32


@pytest.mark.parametrize(
    ("field", "value"),
    [("logit_bias", {"99999999999": 1}), ("stop_token_ids", [2**40]), ("prompt", [304])],
)
def test_tokens_that_the_model_lacks_are_refused_by_name(client, field, value):
    with pytest.raises(openai.BadRequestError) as refusal:
        client.completions.create(model="tiny", **{"prompt": "x", "extra_body": {field: value}})
    assert refusal.value.param.startswith(field)


def test_a_full_queue_is_429_and_not_a_wait(client):
    running = client.chat.completions.create(
        **said("x"), stream=True, extra_body={"ignore_eos": True}
    )
    next(running)
    with pytest.raises(openai.RateLimitError) as refused:
        client.completions.create(model="tiny", prompt=["x"] * 6, max_tokens=1)
    running.close()
    headers = refused.value.response.headers
    assert 0 < int(headers["retry-after-ms"]) <= 1000 * int(headers["retry-after"])


def test_an_idle_server_takes_as_many_choices_as_run_and_wait_and_refuses_more(client):
    client = client.with_options(max_retries=9)  # the engine may not know yet who left before
    whole = client.completions.create(model="tiny", prompt=["x", "y"], n=3, max_tokens=1)
    assert len(whole.choices) == 6
    for field, asked in (("n", {"prompt": "x", "n": 7}), ("prompt", {"prompt": ["x"] * 7})):
        with pytest.raises(openai.BadRequestError) as refused:
            client.completions.create(model="tiny", **asked)
        assert refused.value.param == field
        assert "7 answers are wanted, no more than 6 " in str(refused.value)


@pytest.mark.parametrize("fields", [{}, {"n": 2}, {"stream": True}, {"stream": True, "n": 2}])
def test_who_leaves_gives_all_pages_back_at_once(served, fields):
    engine, url = served
    wait_until(lambda: is_idle(engine))
    engine.ends.clear()

    async def leave():
        async with httpx.AsyncClient(base_url=url, timeout=None) as http:
            ask = said("Go on", ignore_eos=True, **fields)
            asking = asyncio.create_task(http.post("/v1/chat/completions", json=ask))
            while engine.num_running < fields.get("n", 1):
                await asyncio.sleep(0.002)
            asking.cancel()
            with suppress(asyncio.CancelledError):
                await asking

    asyncio.run(leave())
    wait_until(lambda: len(engine.ends) == fields.get("n", 1) and is_idle(engine))
    assert {end.reason for end in engine.ends} == {"cancelled"}
    assert all(end.usage.completion_tokens < 4000 for end in engine.ends)


@pytest.mark.parametrize("fields", [{}, {"stream": True}])
def test_who_leaves_before_its_grammar_is_compiled_has_it_compiled_no_more(served, fields):
    engine, url = served
    one, two = (f"{name} of {len(fields)}" for name in ("one", "two"))  # not compiled yet
    engine.may_compile.clear()
    engine.compiled.clear()

    async def leave():
        async with httpx.AsyncClient(base_url=url, timeout=None) as http:

            def ask(regex):
                body = said("Go on", regex=regex, **fields)
                return asyncio.create_task(http.post("/v1/chat/completions", json=body))

            first = ask(one)
            while engine.compiled != [one]:
                await asyncio.sleep(0.002)
            second = ask(two)
            await asyncio.sleep(0.1)
            second.cancel()
            await asyncio.sleep(0.1)
            engine.may_compile.set()
            assert (await first).status_code == 200

    asyncio.run(leave())
    wait_until(lambda: is_idle(engine))
    assert set(engine.compiled) == {one}


def test_random_leavers_leave_nothing_behind(served, client):
    engine, url = served
    chance = random.Random(0)

    async def leave(http, k):
        ask = said(f"{k} goes", ignore_eos=True, stream=bool(k % 2))
        with suppress(TimeoutError, httpx.HTTPStatusError):
            async with asyncio.timeout(chance.uniform(0, 0.15)):
                await http.post("/v1/chat/completions", json=ask)

    async def all_of_them():
        async with httpx.AsyncClient(base_url=url) as http:
            await asyncio.gather(*(leave(http, k) for k in range(40)))

    asyncio.run(all_of_them())
    wait_until(lambda: is_idle(engine))
    assert client.completions.create(model="tiny", prompt="x", max_tokens=3).choices


def test_responses_go_on_from_pages_that_are_still_there(client):
    text = "What was said before. " * 8
    fields = {"model": "tiny", "max_output_tokens": 20, "extra_body": {"ignore_eos": True}}
    first = client.responses.create(input=text, **fields)
    then = client.responses.create(input="And?", previous_response_id=first.id, **fields)
    assert then.usage.input_tokens_details.cached_tokens >= first.usage.input_tokens // 16 * 16
    spoken = [{"role": "user", "content": text}, first.output[0].to_dict()]
    again = client.responses.create(
        input=[*spoken, {"role": "user", "content": "And?"}],
        **fields | {"extra_body": {"ignore_eos": True, "seed": then.seed}},
    )
    assert again.output_text == then.output_text


def test_a_response_in_the_background_is_cancelled_within_a_step(served, client):
    fields = {"model": "tiny", "background": True, "extra_body": {"ignore_eos": True}}
    running = [client.responses.create(input="Go on", **fields) for _ in range(3)]  # one waits
    wait_until(lambda: client.responses.retrieve(running[1].id).status == "in_progress")
    for one in reversed(running):
        assert client.responses.cancel(one.id).status == "cancelled"
    wait_until(lambda: is_idle(served[0]))
    assert client.responses.retrieve(running[0].id).output_text


@pytest.mark.thorough
def test_a_response_that_is_begun_anew_says_the_same(tmp_path):
    path = write_tiny(tmp_path / "tiny.gguf", context=8192)
    config = Config(str(path), memory=64 << 20)
    fields = {"model": "tiny", "max_output_tokens": 3000, "extra_body": {"ignore_eos": True}}
    with (
        serving(AsyncEngine(config), state=State(tmp_path / "state.db"), drain_seconds=0) as (
            server,
            url,
        ),
        openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client,
    ):
        stream = client.responses.create(input="x", background=True, stream=True, **fields)
        heard = [next(stream) for _ in range(12)]
        server.end()
        *rest, last = stream
        assert last.type == "error"
    with (
        serving(AsyncEngine(config), state=State(tmp_path / "state.db")) as (_, url),
        openai.OpenAI(base_url=f"{url}/v1", api_key="none") as client,
    ):
        again = client.responses.retrieve(heard[0].response.id, stream=True)
        for one in (*heard, *rest):
            assert next(again) == one
        again.close()
        client.responses.cancel(heard[0].response.id)
