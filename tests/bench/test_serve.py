"""A server under load, seen by its clients."""

import asyncio
import json

import pytest
from checkpoints import write_tiny
from echoes import EchoEngine
from serving import serving, wait_until
from typer.testing import CliRunner

from octavo.bench._load import WORDS, Load, closed, open_
from octavo.bench.serve import _percentiles, measure
from octavo.cli import app
from octavo.config import Config
from octavo.engine.async_engine import AsyncEngine
from octavo.engine.llm import LLM


@pytest.fixture(scope="module")
def echo():
    engine = EchoEngine(0.002)
    with serving(engine) as (_, url):
        yield engine, url


def load_of(url, **fields):
    options = {"requests": 6, "prompt_tokens": 20, "new_tokens": 5, "shared_prefix": 8, "seed": 1}
    return Load(url, "echo", **(options | fields))


def texts(engine, count):
    return [bytes(request.prompt_ids).decode() for request in engine.requests[-count:]]


def test_every_request_is_seen_to_its_end(echo):
    heard = asyncio.run(closed(load_of(echo[1]), 3))
    assert len(heard) == 6
    for seen in heard:
        assert seen.error is None
        assert seen.new_tokens == 5
        assert len(seen.gaps) == 4
        assert seen.first >= 0.002
        assert seen.first + sum(seen.gaps) <= seen.total
    prompts = [text.split(" ") for text in texts(echo[0], 6)]
    assert {tuple(words[:8]) for words in prompts} == {tuple(prompts[0][:8])}
    assert len({tuple(words) for words in prompts}) == 6
    assert all(len(words) == 20 and set(words) <= set(WORDS) for words in prompts)


def test_never_more_at_once_than_there_are_clients(echo, monkeypatch):
    engine, most = echo[0], []
    submit = engine.submit
    monkeypatch.setattr(
        engine, "submit", lambda request: (most.append(len(engine.running)), submit(request))[1]
    )
    asyncio.run(closed(load_of(echo[1], requests=12), 2))
    assert max(most) == 1  # beside the one that comes


def test_an_open_loop_does_not_wait_for_answers(echo):
    heard = asyncio.run(open_(load_of(echo[1], new_tokens=50, requests=5), rate=200))
    assert [seen.error for seen in heard] == [None] * 5


def test_what_fails_is_counted_and_said(echo):
    (seen,) = asyncio.run(closed(load_of(echo[1], requests=1, new_tokens=0), 1))
    assert seen.error.startswith("400: ")
    (seen,) = asyncio.run(closed(load_of("http://127.0.0.1:9", requests=1), 1))
    assert seen.error.startswith("127.0.0.1:9 does not answer")


def test_percentiles_are_values_somebody_saw():
    assert _percentiles([0.3, 0.1, 0.2]) == {"p50": 0.2, "p90": 0.3, "p99": 0.3}
    assert _percentiles(range(1, 101)) == {"p50": 50, "p90": 90, "p99": 99}
    assert _percentiles([]) is None


def bench(*arguments):
    return CliRunner().invoke(app, ["bench", "serve", *arguments])


def test_the_command_prints_a_row_for_each_turn(echo):
    common = ["--url", echo[1], "--model", "echo", "--requests", "4", "--new-tokens", "3"]
    found = json.loads(bench(*common, "--concurrency", "1,2", "--json").stdout)
    assert [row["concurrency"] for row in found["rows"]] == [1, 2]
    assert [row["new_tokens"] for row in found["rows"]] == [12, 12]
    assert all(row["tokens_per_second"] > 0 for row in found["rows"])
    shown = bench(*common, "--rate", "100").stdout
    assert "100/s" in shown
    assert "p50/p90/p99" in shown


def test_a_flood_of_others_is_there_while_the_rows_beside_it_are_measured(echo, monkeypatch):
    engine, beside = echo[0], []
    submit = engine.submit
    monkeypatch.setattr(
        engine, "submit", lambda request: (beside.append(len(engine.running)), submit(request))[1]
    )
    common = ["--url", echo[1], "--model", "echo", "--requests", "5", "--new-tokens", "9"]
    found = json.loads(bench(*common, "--concurrency", "1", "--flood", "4", "--json").stdout)
    assert [(row["flood"], row["requests"], row["failed"]) for row in found["rows"]] == [
        (0, 5, 0),
        (4, 5, 0),
    ]
    # Beside the one that comes; the last one answered may not have been let go yet.
    assert max(beside[:5]) <= 1
    assert max(beside) in (4, 5)
    wait_until(lambda: not engine.running)


def test_a_flood_that_breaks_off_is_a_failure(echo):
    load = load_of(echo[1])
    (row,) = measure(load, [1], [], load_of(echo[1], new_tokens=0), 2)
    assert row["failed"] == 2
    assert row["error"].startswith("the flood: 400")


def test_what_the_server_added_is_the_rest(tmp_path):
    path = write_tiny(tmp_path / "echo.gguf")
    with serving(AsyncEngine(Config(str(path), memory=64 << 20))) as (_, url):
        common = ["--url", url, "--model", "echo", "--requests", "3", "--new-tokens", "3"]
        asked = [*common, "--concurrency", "1", "--prompt-tokens", "9", "--explain"]
        (row,) = json.loads(bench(*asked, "--json").stdout)["rows"]
        assert 0 < row["added"]["p50"] < row["first_token"]["p99"]
        assert "added ms" in bench(*asked).stdout


def test_the_engine_alone_is_asked_the_same(echo, tmp_path, monkeypatch):
    heard = []
    generate = LLM.generate
    monkeypatch.setattr(
        LLM,
        "generate",
        lambda self, prompts, *a, **k: (heard.append(prompts), generate(self, prompts, *a, **k))[1],
    )
    path = write_tiny(tmp_path / "tiny.gguf")
    shape = ["--requests", "6", "--prompt-tokens", "20", "--new-tokens", "5", "--seed", "1"]
    asked = ["bench", "generate", str(path), *shape, "--shared-prefix", "8", "--json"]
    found = json.loads(CliRunner().invoke(app, asked).stdout)
    assert found["new_tokens"] == 30
    assert found["tokens_per_second"] == found["new_tokens"] / found["seconds"]
    asyncio.run(closed(load_of(echo[1]), 1))
    assert heard[-1] == texts(echo[0], 6)


@pytest.mark.parametrize(
    ("arguments", "option"),
    [
        (["--concurrency", "1,x"], "concurrency"),
        (["--concurrency", "0"], "concurrency"),
        (["--rate", "-1"], "rate"),
        (["--rate", "nan"], "rate"),
        (["--shared-prefix", "300"], "shared_prefix"),
        (["--url", "localhost:8000"], "url"),
        (["--url", "http://localhost:none"], "url"),
    ],
)
def test_wrong_numbers_are_refused_by_name(arguments, option):
    refused = bench(*arguments)
    assert refused.exit_code == 2
    assert option in refused.output


def test_failures_are_said_and_end_with_1(echo):
    refused = bench("--url", echo[1], "--model", "other", "--requests", "2", "--concurrency", "1")
    assert refused.exit_code == 1
    assert "other" in refused.output
