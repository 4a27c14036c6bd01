"""The installed program on the default model, as a newcomer meets it: run, serve, stop."""

import json
import re
import shutil
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import openai
import pytest

from octavo.types import PAGE_SIZE

pytestmark = pytest.mark.models
MODEL = "smollm2"
QUESTION = [{"role": "user", "content": "Why is the sky blue?"}]
SEEDED = {"max_tokens": 24, "seed": 7, "temperature": 0.8}
FLAGS = ("--max-tokens", 24, "--seed", 7, "--temperature", 0.8, "--top-p", 1)
MB = 10**6
# What a process may hold beside weights and pages: Python, its libraries, buffers, the tokenizer.
SPARE = 200 * MB


def octavo(*arguments, **options):
    """The command as the install put it beside Python, started."""
    command = shutil.which("octavo", path=Path(sys.executable).parent)
    assert command, "the tests run in the environment that octavo is installed in"
    pipes = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([command, *map(str, arguments)], **pipes, **options)


def said(*arguments):
    """(stdout, stderr) of a command that ends well."""
    with octavo(*arguments, text=True) as process:
        out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    return out, err


@pytest.fixture(scope="module", autouse=True)
def model(smollm2_path):
    """Fetched before anything is asked, so that no test is about the network."""


@contextmanager
def serve(*arguments):
    """(the process, its base URL, its line about memory); killed if it has not ended by then."""
    with octavo("serve", *arguments, "--port", 0, text=True) as process:
        try:
            place, memory = process.stderr.readline(), process.stderr.readline()
            yield process, re.search(r"http://\S+", place)[0], memory
        finally:
            process.kill()


@pytest.fixture(scope="module")
def server():
    with serve(MODEL) as running:
        yield running


@pytest.fixture(scope="module")
def client(server):
    _, url, _ = server
    with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def answer(client):
    return client.chat.completions.create(model=MODEL, messages=QUESTION, **SEEDED)


def test_run_needs_no_more_than_a_prompt():
    text, errors = said("run", "Why is the sky blue?", "--max-tokens", 12)
    assert text.strip()
    assert errors == "(cut off by --max-tokens 12)\n"


def test_run_streams_the_completion_and_nothing_else_to_stdout():
    endless = ("--ignore-eos", "--max-tokens", 2000, "--seed", 1)
    with octavo("run", *endless, "Tell me a long story.", bufsize=0) as process:
        first = process.stdout.read(1)
        assert process.poll() is None  # it has begun to speak long before it is done
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=60)
    text = (first + rest).decode()
    assert process.returncode == 130, errors
    assert text.strip()
    assert text.endswith("\n")


def test_the_server_says_which_models_it_has(client):
    assert [model.id for model in client.models.list()] == [MODEL]


def test_a_whole_answer_has_openai_s_shape(answer):
    (choice,) = answer.choices
    assert choice.message.role == "assistant"
    assert choice.message.content.strip()
    assert choice.finish_reason == "length"
    assert answer.usage.completion_tokens == 24
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 24
    assert answer.system_fingerprint.startswith("fp_")


def test_a_streamed_answer_is_the_whole_one_in_pieces(client, answer):
    stream = client.chat.completions.create(
        model=MODEL,
        messages=QUESTION,
        stream=True,
        stream_options={"include_usage": True},
        **SEEDED,
    )
    *chunks, last = stream
    pieces = [chunk.choices[0].delta.content or "" for chunk in chunks]
    assert len([piece for piece in pieces if piece]) > 1
    assert "".join(pieces) == answer.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == "length"
    assert last.usage.completion_tokens == 24


def test_the_command_line_and_http_give_the_same_answer(answer):
    out, _ = said("run", MODEL, QUESTION[0]["content"], "--json", *FLAGS)
    assert json.loads(out)["text"] == answer.choices[0].message.content


@pytest.mark.parametrize("name", [MODEL, "gemma3-270m"])
def test_memory_is_weights_touched_pages_and_a_little(name):
    facts = json.loads(said("show", name, "--json")[0])
    with serve(name) as (process, url, memory), openai.OpenAI(base_url=url, api_key="-") as client:
        tokens = 0
        for i in range(4):
            text = f"{i} " + "The quick brown fox jumps over the lazy dog. " * 60
            usage = client.completions.create(model=name, prompt=text, max_tokens=32).usage
            tokens += usage.total_tokens + PAGE_SIZE  # pages are taken whole
        held = resident(process.pid)
    weights = float(re.search(r"weights ([\d.]+) MB", memory)[1]) * MB
    assert held <= weights + tokens * facts["kv_bytes_per_token"] + SPARE


def resident(pid):
    """Bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(re.search(r"VmRSS:\s+(\d+) kB", status)[1]) * 1024


def test_a_server_that_is_told_to_end_ends_well():
    with serve(MODEL, "--max-context", 512) as (process, url, _):
        with openai.OpenAI(base_url=url, api_key="none", max_retries=0) as client:
            stream = client.chat.completions.create(
                model=MODEL, messages=QUESTION, stream=True, max_tokens=64
            )
            next(stream)
            process.send_signal(signal.SIGTERM)
            ends = [chunk.choices[0].finish_reason for chunk in stream]
        assert process.wait(30) == 0
    assert ends[-1] in ("stop", "length")
