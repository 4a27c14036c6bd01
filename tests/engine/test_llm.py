"""octavo.LLM over a tiny model."""

import subprocess
import sys

import pytest

import octavo
from octavo import LLM, Message, SamplingParams
from octavo.engine.llm import _parsed
from octavo.types import Grammar

PARAMS = SamplingParams(max_tokens=12, seed=7, ignore_eos=True)
CHAT = [{"role": "user", "content": "hello"}]


@pytest.fixture(scope="module")
def llm(llama_path):
    with LLM(llama_path, max_waiting=4, max_running=2) as llm:
        yield llm


def test_one_prompt_gives_one_answer(llm):
    answer = llm.generate("hello there", PARAMS)
    assert answer.prompt_ids == tuple(llm.tokenizer.prompt_ids("hello there"))
    assert answer.text == llm.tokenizer.decode(answer.token_ids)
    assert (answer.finish_reason, answer.stop, answer.seed) == ("length", None, 7)
    assert answer.usage.completion_tokens == len(answer.token_ids) == 12
    assert answer.logprobs == answer.prompt_logprobs == ()
    assert answer.timing.decode > 0


def test_many_prompts_give_their_answers_in_order_also_beyond_the_queue(llm):
    prompts = [f"number {i}" for i in range(11)]
    answers = llm.generate(prompts, PARAMS)
    for prompt, answer in zip(prompts, answers, strict=True):
        assert answer.token_ids == llm.generate(prompt, PARAMS).token_ids


def test_prompts_may_be_token_ids(llm):
    ids = llm.tokenizer.prompt_ids("hello there")
    wanted = llm.generate("hello there", PARAMS).token_ids
    assert llm.generate(ids, PARAMS).token_ids == wanted
    assert [a.token_ids for a in llm.generate([ids, tuple(ids)], PARAMS)] == [wanted, wanted]


def test_no_prompts_give_no_answers(llm):
    assert llm.generate([], PARAMS) == []
    assert llm.chat([], PARAMS) == []


def test_parameters_may_be_one_each(llm):
    params = [SamplingParams(max_tokens=n, ignore_eos=True) for n in (1, 2)]
    answers = llm.generate(["a", "b"], params)
    assert [len(answer.token_ids) for answer in answers] == [1, 2]
    with pytest.raises(octavo.BadRequest, match="params: 2 for 1 prompts"):
        llm.generate(["a"], params)


def test_a_conversation_is_answered_as_the_template_renders_it(llm):
    wanted = llm.generate(llm.tokenizer.chat_ids(CHAT), PARAMS).token_ids
    assert llm.chat(CHAT, PARAMS).token_ids == wanted
    assert llm.chat([Message("user", "hello")], PARAMS).token_ids == wanted
    assert [answer.token_ids for answer in llm.chat([CHAT, CHAT], PARAMS)] == [wanted, wanted]
    without = llm.chat(CHAT, PARAMS, add_generation_prompt=False).prompt_ids
    assert without == tuple(llm.tokenizer.chat_ids(CHAT, add_generation_prompt=False))


def test_logprobs_come_where_asked_for(llm):
    answer = llm.generate("hello", SamplingParams(max_tokens=3, logprobs=1, prompt_logprobs=0))
    assert [scored.token_id for scored in answer.logprobs] == list(answer.token_ids)
    assert [scored.token_id for scored in answer.prompt_logprobs] == list(answer.prompt_ids[1:])


def test_a_score_is_the_logprob_of_every_token_but_the_first(llm):
    ids = llm.tokenizer.prompt_ids("hello there")
    scores = llm.score("hello there")
    assert [score.token_id for score in scores] == ids[1:]
    assert all(score.logprob < 0 for score in scores)
    assert llm.score(ids) == scores


def test_a_stream_gives_what_the_whole_answer_is(llm):
    whole = llm.generate("hello there", PARAMS)
    stream = llm.stream("hello there", PARAMS)
    deltas = list(stream)
    assert "".join(delta.text for delta in deltas) == whole.text
    assert tuple(token for delta in deltas for token in delta.token_ids) == whole.token_ids
    assert stream.completion.text == whole.text
    assert llm.stream(CHAT, PARAMS).completion.token_ids == llm.chat(CHAT, PARAMS).token_ids


def test_streams_may_be_read_in_turn(llm):
    streams = [llm.stream(f"number {i}", PARAMS) for i in range(3)]
    texts = [""] * 3
    for pieces in zip(*streams, strict=True):
        texts = [text + piece.text for text, piece in zip(texts, pieces, strict=True)]
    assert texts == [llm.generate(f"number {i}", PARAMS).text for i in range(3)]


@pytest.mark.parametrize("leave", ["close", "with", "drop"])
def test_a_stream_that_is_left_is_cancelled(llm, leave):
    stream = llm.stream("hello", SamplingParams(ignore_eos=True))
    next(stream)
    if leave == "close":
        stream.close()
    elif leave == "with":
        with stream:
            next(stream)
    else:
        del stream
    llm.generate("something else", SamplingParams(max_tokens=2))
    assert not llm.engine.has_work


def test_what_a_closed_stream_has_said_can_still_be_read(llm):
    with llm.stream("hello", SamplingParams(ignore_eos=True)) as stream:
        said = [next(stream) for _ in range(3)]
    assert stream.completion.finish_reason == "cancelled"
    assert stream.completion.text == "".join(delta.text for delta in said)


def test_a_bad_prompt_is_refused_before_anything_runs(llm):
    with pytest.raises(octavo.BadRequest, match="prompt: token 304"):
        llm.generate([[5], [304]], PARAMS)
    assert not llm.engine.has_work


def test_a_stop_string_alone_is_no_tuple_of_them():
    with pytest.raises(octavo.BadRequest, match="stop: 'abc' is one text"):
        SamplingParams(stop="abc")


@pytest.mark.parametrize("nothing", [[], ()])
def test_a_choice_among_nothing_is_refused(nothing):
    with pytest.raises(octavo.BadRequest, match="choice: it is empty"):
        SamplingParams(choice=nothing)
    assert SamplingParams(schema={}, stop=[]).constraint == Grammar("json_schema", "{}")


def test_an_interrupted_batch_leaves_nothing_behind(llm, monkeypatch):
    def interrupt():
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(llm.engine, "step", interrupt)
        with pytest.raises(KeyboardInterrupt):
            llm.generate(["hello"] * 3)
    assert len(llm.generate("hello", PARAMS).token_ids) == 12
    assert not llm.engine.has_work


def test_a_bar_is_shown_where_asked_for(llm, capsys):
    llm.generate(["a"] * 6, PARAMS)
    assert capsys.readouterr().err == ""
    llm.generate(["a"] * 6, PARAMS, progress=True)
    assert "6/6 prompts" in capsys.readouterr().err


def test_a_closed_llm_says_so(llama_path):
    llm = LLM(llama_path)
    stream = llm.stream("hello", PARAMS)
    llm.close()
    for use in (lambda: llm.generate("hello"), lambda: next(stream)):
        with pytest.raises(octavo.BadRequest, match="LLM: it is closed"):
            use()


@pytest.mark.thorough
def test_importing_octavo_imports_nothing_heavy_and_offers_all_its_names():
    code = (
        "import sys, octavo\n"
        "heavy = {'numpy', 'tokenizers', 'jinja2', 'asyncio', 'rich'} & sys.modules.keys()\n"
        "assert not heavy, heavy\n"
        "for name in octavo.__all__: assert getattr(octavo, name), name\n"
        "assert set(octavo.__all__) <= set(dir(octavo))\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        octavo.nothing  # noqa: B018


def test_an_integer_too_long_for_python_is_absent_and_no_error():
    assert _parsed("7" * 5000) is None
    assert _parsed("[" * 100_000) is None
    assert _parsed('{"a": 1}') == {"a": 1}
