"""Signs of life within a stream, as the official clients read them: there are none to be seen."""

from itertools import pairwise

import anthropic
import httpx
import openai
import pytest

from octavo.server import stream

TEXT = "x" * 40


@pytest.fixture(autouse=True)
def often(monkeypatch):
    monkeypatch.setattr(stream, "PING_SECONDS", 0.03)


@pytest.fixture
def client(slow):
    with openai.OpenAI(base_url=slow[1] + "/v1", api_key="none", max_retries=0) as client:
        yield client


def test_they_are_sent(slow):
    body = {"model": "echo", "prompt": TEXT, "max_tokens": 40, "stream": True}
    streams = (httpx.post(slow[1] + "/v1/completions", json=body).text for _ in range(5))
    # A machine that is busy elsewhere may tell all of a stream at once, without a ping.
    lines = next((said.split("\n") for said in streams if ": ping" in said), [])
    assert ": ping" in lines
    # An empty line after one would be the end of an event.
    assert all(after for ping, after in pairwise(lines) if ping == ": ping")


@pytest.mark.thorough
def test_a_chat_goes_on(client):
    chunks = client.chat.completions.create(
        model="echo", messages=[{"role": "user", "content": TEXT}], stream=True
    )
    said = [choice.delta.content for chunk in chunks for choice in chunk.choices]
    assert "".join(filter(None, said)) == TEXT


@pytest.mark.thorough
def test_a_completion_goes_on(client):
    chunks = client.completions.create(model="echo", prompt=TEXT, max_tokens=40, stream=True)
    assert "".join(choice.text for chunk in chunks for choice in chunk.choices) == TEXT


@pytest.mark.thorough
def test_a_response_goes_on_also_when_it_is_taken_up_again(client):
    events = list(client.responses.create(model="echo", input=TEXT, stream=True))
    assert events[-1].response.output_text == TEXT
    slow = client.responses.create(model="echo", input=TEXT, background=True)
    again = client.responses.retrieve(slow.id, stream=True, starting_after=3)
    assert list(again)[-1].response.output_text == TEXT


@pytest.mark.thorough
def test_a_message_goes_on(slow):
    with anthropic.Anthropic(base_url=slow[1], api_key="none", max_retries=0) as client:
        asked = [{"role": "user", "content": TEXT}]
        with client.messages.stream(model="echo", max_tokens=40, messages=asked) as events:
            assert "".join(events.text_stream) == TEXT
