"""octavo serve as a process: it says where it listens and what it takes, answers, and ends."""

import json
import re
import signal
import socket
import urllib.request

import pytest
from checkpoints import write_tiny


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("models") / "tiny.gguf")


@pytest.mark.processes
def test_it_says_where_it_is_and_what_it_takes_and_ends_with_ctrl_c(program, tiny):
    limits = ("--memory", "64MiB", "--max-context", 256)
    process = program("serve", tiny, "--port", 0, *limits)
    place, memory = process.stderr.readline(), process.stderr.readline()
    url = re.fullmatch(r"tiny at (http://127\.0\.0\.1:\d+/v1)\n", place)[1]
    assert "of 67.1 MB allowed: weights" in memory
    assert "context 256 tokens" in memory
    body = {"model": "tiny", "prompt": "The sky", "max_tokens": 3}
    asked = urllib.request.Request(
        f"{url}/completions", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(asked, timeout=60) as answer:
        assert json.load(answer)["usage"]["completion_tokens"] == 3
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 0


@pytest.mark.processes
def test_a_port_that_is_taken_is_said_before_the_model_is_looked_for(program):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        process = program("serve", "./absent.gguf", "--port", port)
        _, said = process.communicate(timeout=60)
    assert process.returncode == 2
    assert f"{port} cannot be opened" in said
    assert len(said.splitlines()) == 1


@pytest.mark.processes
def test_callers_without_a_key_from_anywhere_and_all_they_say_in_the_log_if_asked_for(
    program, tiny
):
    flags = ("--host", "0.0.0.0", "--allow-anonymous", "--log-requests", "--traces")
    process = program("serve", tiny, "--port", 0, "--memory", "64MiB", *flags)
    port = re.search(r":(\d+)/v1", process.stderr.readline())[1]
    body = {"model": "tiny", "prompt": "The sky", "max_tokens": 3}
    asked = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    with urllib.request.urlopen(asked, timeout=60) as answer:
        said = json.load(answer)
    process.send_signal(signal.SIGINT)
    _, log = process.communicate(timeout=60)
    assert process.returncode == 0
    (line,) = [line for line in log.splitlines() if "request_log" in line]
    logged = json.loads(line[line.index("{") :])
    assert logged["id"] == said["id"]
    assert logged["prompts"] == ["The sky"]
    assert logged["answers"] == [said["choices"][0]["text"]]
