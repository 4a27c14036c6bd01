"""The app over a real socket, spoken to by the official client with strict validation."""

import asyncio
import json
import socket
import threading

import httpx
import openai
import pytest
from echoes import ByteTokenizer, EchoEngine
from serving import serving, wait_until

from octavo.server.gate import Gate

CHAT, TEXT = "/v1/chat/completions", "/v1/completions"


def said(text, **fields):
    return {"model": "echo", "messages": [{"role": "user", "content": text}], **fields}


@pytest.fixture(scope="module")
def client(echo):
    with openai.OpenAI(
        base_url=f"{echo[1]}/v1", api_key="none", max_retries=0, _strict_response_validation=True
    ) as client:
        yield client


@pytest.fixture(scope="module")
def lenient(echo):
    with openai.OpenAI(base_url=f"{echo[1]}/v1", api_key="none") as client:
        yield client


@pytest.fixture(scope="module")
def http(echo):
    with httpx.Client(base_url=echo[1]) as http:
        yield http


def test_a_chat_in_one_piece(client):
    answer = client.chat.completions.create(**said("Hello ☕"), logprobs=True, top_logprobs=2)
    choice = answer.choices[0]
    assert (choice.message.content, choice.finish_reason) == ("Hello ☕", "stop")
    assert len(choice.logprobs.content) == answer.usage.completion_tokens == 9
    assert answer.usage.prompt_tokens_details.cached_tokens == 1
    assert answer.system_fingerprint == "fp_echo"
    assert answer.model == "echo"


def test_a_chat_in_a_stream(client):
    options = {"include_usage": True}
    stream = client.chat.completions.create(**said("Hello ☕"), stream=True, stream_options=options)
    *chunks, last = list(stream)
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks) == "Hello ☕"
    assert chunks[0].choices[0].delta.role == "assistant"
    assert [c.choices[0].finish_reason for c in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    assert all(chunk.usage is None for chunk in chunks)
    assert (last.choices, last.usage.completion_tokens) == ([], 9)


def test_the_clients_own_stream_helper_follows(client):
    with client.chat.completions.stream(**said("Hello ☕")) as stream:
        assert stream.get_final_completion().choices[0].message.content == "Hello ☕"


@pytest.mark.parametrize("stream", [False, True])
def test_several_answers_have_their_own_index_and_seed(echo, client, stream):
    answer = client.chat.completions.create(**said("ab"), n=3, seed=40, stream=stream)
    choices = [c for chunk in answer for c in chunk.choices] if stream else answer.choices
    assert {choice.index for choice in choices} == {0, 1, 2}
    assert [request.params.seed for request in echo[0].requests[-3:]] == [40, 41, 42]


def test_a_request_without_a_seed_is_told_the_one_it_got(echo, client):
    answer = client.chat.completions.create(**said("ab"))
    assert answer.seed == echo[0].requests[-1].params.seed
    *_, last = client.chat.completions.create(**said("ab"), stream=True)
    assert last.seed == echo[0].requests[-1].params.seed
    assert client.chat.completions.create(**said("ab"), seed=7).seed == 7


@pytest.mark.parametrize("prompt", ["ab", ["ab"], [97, 98], [[97, 98]]])
def test_a_completion_of_every_kind_of_prompt(client, lenient, prompt):
    answer = client.completions.create(model="echo", prompt=prompt)
    assert (answer.choices[0].text, answer.usage.prompt_tokens) == ("ab", 2)
    # OpenAI streams finish_reason null here too, and its own strict types do not allow it.
    stream = lenient.completions.create(model="echo", prompt=prompt, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == "ab"


def test_several_prompts_in_one_body(client):
    answer = client.completions.create(model="echo", prompt=["ab", "cde"], n=2)
    assert [(c.index, c.text) for c in answer.choices] == list(
        enumerate(["ab", "ab", "cde", "cde"])
    )
    assert (answer.usage.prompt_tokens, answer.usage.completion_tokens) == (5, 10)


def test_a_completion_with_logprobs(client):
    answer = client.completions.create(model="echo", prompt="ab", logprobs=2, max_tokens=1)
    choice = answer.choices[0]
    assert (choice.text, choice.finish_reason, choice.logprobs.tokens) == ("a", "length", ["a"])
    assert choice.logprobs.top_logprobs == [{"a": -0.5, "b": -1.0}]


def test_a_stop_string_ends_it(client):
    answer = client.chat.completions.create(**said("one\ntwo"), stop="\n")
    assert (answer.choices[0].message.content, answer.choices[0].finish_reason) == ("one", "stop")


def test_the_model_is_listed(client):
    assert [model.id for model in client.models.list()] == ["echo"]
    assert client.models.retrieve("echo").owned_by == "octavo"
    with pytest.raises(openai.NotFoundError) as refusal:
        client.models.retrieve("org/other")
    assert refusal.value.code == "model_not_found"


def test_alive(http):
    assert http.get("/health").json() == {"status": "ok"}


@pytest.mark.parametrize("stream", [False, True])
def test_refusals_are_the_clients_own_exceptions(client, stream):
    create = client.chat.completions.create
    with pytest.raises(openai.BadRequestError) as refusal:
        create(**said("x"), stream=stream, temperature=-1)
    assert refusal.value.param == "temperature"
    assert refusal.value.type == "invalid_request_error"
    with pytest.raises(openai.NotFoundError, match=r"'gpt-9'.*'echo'") as refusal:
        create(**said("x") | {"model": "gpt-9"}, stream=stream)
    assert (refusal.value.code, refusal.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.RateLimitError):
        create(**said("full"), stream=stream)


def test_a_call_is_begun_whole_or_not_at_all(echo, client):
    with pytest.raises(openai.RateLimitError):
        client.completions.create(model="echo", prompt=["ab", "full"])
    assert not echo[0].running


def test_a_prompt_of_no_tokens_or_of_unknown_ones(client):
    with pytest.raises(openai.BadRequestError) as refusal:
        client.completions.create(model="echo", prompt="")
    assert refusal.value.param == "prompt"
    with pytest.raises(openai.BadRequestError, match="257"):
        client.completions.create(model="echo", prompt=[1, 257])


@pytest.mark.parametrize("text", ["ab?", "ab!"])
def test_an_engine_that_fails_is_an_error_and_not_an_answer(echo, client, text):
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(**said(text))
    with pytest.raises(openai.InternalServerError):
        client.chat.completions.create(**said(text), n=2)
    stream = client.chat.completions.create(**said(text), stream=True)
    with pytest.raises(openai.APIError, match=r"engine|step"):
        list(stream)
    wait_until(lambda: not echo[0].running)
    assert client.chat.completions.create(**said("ab")).choices[0].message.content == "ab"


@pytest.mark.parametrize("stream", [False, True])
def test_unknown_fields_are_named_in_a_header(http, stream):
    body = said("ab", stream=stream, topp=1, **{"é\r\nx: y": 2})
    reply = http.post(CHAT, json=body)
    assert reply.status_code == 200
    assert reply.headers["x-octavo-ignored"] == "topp, %C3%A9%0D%0Ax%3A%20y"
    many = {f"field{k}": k for k in range(25)}
    assert (
        http.post(CHAT, json=said("a", **many))
        .headers["x-octavo-ignored"]
        .endswith("field19, and 5 more")
    )
    assert "x-octavo-ignored" not in http.post(CHAT, json=said("a")).headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", CHAT, 405),
        ("POST", "/v1/nothing", 404),
        ("POST", CHAT + "/", 404),
        ("POST", "/v1/messages/batches", 404),
        ("GET", "/v1/messages", 405),
        ("GET", "/v1/" + "n" * 60_000, 404),
    ],
)
def test_wrong_turns_are_answered_in_the_envelope(http, method, path, status):
    reply = http.request(method, path)
    assert reply.status_code == status
    assert path[:100] in reply.json()["error"]["message"]
    assert len(reply.content) < 300
    is_anthropics = path.startswith("/v1/messages")
    assert reply.json().get("type") == ("error" if is_anthropics else None)


def test_a_body_in_another_encoding_is_refused_as_such(http):
    twice = [("content-encoding", "identity"), ("content-encoding", "gzip")]
    for headers in ({"content-encoding": "gzip"}, twice):
        reply = http.post(CHAT, content=b"\x1f\x8b", headers=headers)
        assert (reply.status_code, reply.json()["error"]["param"]) == (400, "content-encoding")


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff", b"[" * 100_000, b'{"model": NaN}'])
def test_bodies_that_are_none(http, raw):
    for path in (CHAT, TEXT):
        reply = http.post(path, content=raw)
        assert (reply.status_code, reply.json()["error"]["code"]) == (400, None)


def test_a_body_too_large_is_refused_unread(http):
    reply = http.post(CHAT, content=b" " * (17 << 20))
    assert (reply.status_code, reply.json()["error"]["type"]) == (413, "invalid_request_error")


def test_large_prompts_are_read_beside_the_event_loop(client):
    texts = ["ab" * 3000] * 4
    answer = client.completions.create(model="echo", prompt=texts, max_tokens=2)
    assert (answer.choices[3].text, answer.usage.prompt_tokens) == ("ab", 24_000)


@pytest.mark.parametrize(("text", "is_aside"), [("ab", False), ("ab" * 100, True)])
@pytest.mark.parametrize("n", [1, 2])
def test_large_replies_are_framed_beside_the_event_loop(text, n, is_aside):
    framed_in = set()

    class Noting(ByteTokenizer):
        def token_bytes(self, token_id, *, special=False):
            framed_in.add(threading.current_thread().name)
            return super().token_bytes(token_id, special=special)

    engine = EchoEngine()
    engine.tokenizer = Noting()
    with serving(engine) as (_, url):
        body = said(text, logprobs=True, top_logprobs=5, n=n)
        choices = httpx.post(url + CHAT, json=body).json()["choices"]
    assert [choice["message"]["content"] for choice in choices] == [text] * n
    (thread,) = framed_in
    assert thread.startswith("Thread") != is_aside  # the loop is in a thread of the test's


@pytest.mark.parametrize(
    ("path", "prompt"),
    [
        (CHAT, "messages"),
        (TEXT, "prompt"),
        ("/v1/responses", "input"),
        ("/v1/messages", "messages"),
    ],
)
def test_a_salt_reaches_the_engine(echo, http, path, prompt):
    text = "Hi" if prompt != "messages" else said("Hi")["messages"]
    limit = "max_output_tokens" if prompt == "input" else "max_tokens"
    body = {"model": "echo", limit: 5, prompt: text}
    for given, salt in (({}, None), ({"cache_salt": None}, None), ({"cache_salt": "s"}, "s")):
        reply = http.post(path, json=body | given)
        assert echo[0].requests[-1].cache_salt == salt
        assert "cache_salt" not in reply.headers.get("x-octavo-ignored", "")
    for bad in ("", 1, ["s"]):
        reply = http.post(path, json=body | {"cache_salt": bad})
        assert reply.status_code == 400
        assert reply.json()["error"]["message"].startswith("cache_salt: ")
    reply = http.post(path, content=json.dumps(body | {"cache_salt": "\ud800"}))
    assert reply.status_code == 400


def test_a_prompt_longer_than_the_context_is_refused_in_its_own_words(client):
    with pytest.raises(openai.BadRequestError, match=r"9000 tokens .* 8192") as refusal:
        client.chat.completions.create(**said("a" * 9000))
    assert (refusal.value.code, refusal.value.param) == ("context_length_exceeded", "messages")
    with pytest.raises(openai.BadRequestError) as refusal:
        client.completions.create(model="echo", prompt=[[1], [1] * 8192])
    assert (refusal.value.code, refusal.value.param) == ("context_length_exceeded", "prompt")


def test_a_bug_beside_all_handlers_is_told_in_an_envelope_too(capfd):
    class Broken(Gate):
        def headers(self, key):
            raise ZeroDivisionError

    with serving(EchoEngine(), gate=Broken()) as (_, url):
        for path in (CHAT, "/health", "/nowhere"):
            reply = httpx.get(url + path)
            assert (reply.status_code, reply.json()["error"]["type"]) == (500, "server_error")
    assert "ZeroDivisionError" in capfd.readouterr().err


@pytest.mark.parametrize("fields", [{}, {"n": 2}, {"stream": True}, {"stream": True, "n": 2}])
def test_a_client_that_leaves_takes_its_sequences_along(slow, fields):
    engine, url = slow
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:
        client.sendall(post(said("a" * 4000, **fields)))
        wait_until(lambda: len(engine.running) == fields.get("n", 1))
    wait_until(lambda: not engine.running)


def post(body):
    raw = json.dumps(body).encode()
    return (
        f"POST {CHAT} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {len(raw)}\r\n\r\n".encode()
        + raw
    )


def test_many_streams_at_once_do_not_mix(echo):
    async def one(client, k):
        stream = await client.chat.completions.create(**said(f"stream {k} " * 5), stream=True)
        return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    async def all_of_them():
        async with openai.AsyncOpenAI(base_url=f"{echo[1]}/v1", api_key="none") as client:
            return await asyncio.gather(*(one(client, k) for k in range(12)))

    assert asyncio.run(all_of_them()) == [f"stream {k} " * 5 for k in range(12)]


def test_a_request_that_took_too_long_by_its_own_word_is_not_tried_again(slow):
    with httpx.Client(base_url=slow[1]) as http:
        refused = http.post(CHAT, json=said("x" * 1000, timeout=0))
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "timeout")
        late = http.post(CHAT, json=said("late", timeout=0.5))
        assert (late.status_code, late.headers["x-should-retry"]) == (504, "false")
        assert late.json()["error"]["param"] == "timeout"
        assert "timeout" in late.json()["error"]["message"]
        stream = http.post(CHAT, json=said("late", timeout=0.5, stream=True))
        assert '{"error":{"message":"timeout' in stream.text
        message = {"model": "echo", "max_tokens": 9, "timeout": 0.5}
        message["messages"] = [{"role": "user", "content": "late"}]
        assert http.post("/v1/messages", json=message).json()["error"]["type"] == "timeout_error"
