"""octavo bench perplexity on tiny random models, which know nothing: their perplexity is about the
size of their vocabulary."""

import json
import math

import pytest
from checkpoints import write_tiny
from typer.testing import CliRunner

from octavo import LLM, BadRequest
from octavo.bench.perplexity import measure
from octavo.cli import app

TEXT = "The sea is large tonight, and the lamp is lit. " * 3


@pytest.fixture(scope="module", params=["llama", "gemma3"])
def path(request, tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("models") / "tiny.gguf", request.param)


def test_perplexity_is_the_exponent_of_the_mean_surprise(path):
    with LLM(path) as llm:
        logprobs = [one.logprob for one in llm.score(TEXT)]
        score = measure(llm, TEXT)
    assert score.tokens == len(logprobs)
    assert score.perplexity == pytest.approx(math.exp(-sum(logprobs) / len(logprobs)))
    assert score.bits_per_byte == pytest.approx(-sum(logprobs) / math.log(2) / len(TEXT))


def test_a_text_beyond_the_context_comes_in_windows_that_each_begin_a_text(path):
    with LLM(path, max_context=33) as llm:
        tokenizer = llm.tokenizer
        bos = [tokenizer.bos_id] if tokenizer.add_bos else []
        ids, step = tokenizer.encode(TEXT), 32 - len(bos)
        windows = [bos + ids[first : first + step] for first in range(0, len(ids), step)]
        assert len(windows) > 2
        logprobs = [one.logprob for window in windows for one in llm.score(window)]
        score = measure(llm, TEXT)
    assert score.tokens == len(logprobs) == len(ids) - (0 if bos else len(windows))
    assert score.perplexity == pytest.approx(math.exp(-sum(logprobs) / len(logprobs)))


def test_a_text_of_one_token_has_nothing_to_score(path):
    with LLM(path) as llm, pytest.raises(BadRequest, match="fewer than two tokens"):
        measure(llm, "" if llm.tokenizer.add_bos else "t")


def ask(*arguments, **options):
    return CliRunner().invoke(app, ["bench", "perplexity", *map(str, arguments)], **options)


@pytest.mark.parametrize("home", ["cpu", "reference"])
def test_the_command_reads_a_file_or_what_is_piped_in(path, home, tmp_path):
    (tmp_path / "text.txt").write_text(TEXT)
    told = ask(path, "--home", home, "--json", "--text", tmp_path / "text.txt")
    piped = ask(path, "--home", home, "--json", input=TEXT)
    found, again = json.loads(told.stdout), json.loads(piped.stdout)
    assert (found["model"], found["home"]) == ("tiny", home)
    assert found["perplexity"] == again["perplexity"] > 100
    assert ask(path, "--home", home, input=TEXT).stdout.startswith(f"tiny, {home}: perplexity ")


def test_what_is_no_text_is_refused(path):
    told = ask(path, input=b"\xff")
    assert told.exit_code == 2
    assert told.stderr == "text: it is not UTF-8 (invalid start byte): convert it\n"
