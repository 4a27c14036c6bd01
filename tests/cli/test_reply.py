"""An answer is shown as it comes, and ends where Ctrl-C says."""

import os
import signal
from threading import Timer

import pytest
from checkpoints import write_tiny

from octavo import LLM, SamplingParams
from octavo.cli._reply import Screen, receive, speed
from octavo.types import Delta

ENDLESS = SamplingParams(temperature=0, ignore_eos=True)


@pytest.fixture(scope="module")
def llm(tmp_path_factory):
    path = write_tiny(tmp_path_factory.mktemp("models") / "tiny.gguf", context=32_768)
    return LLM(path, memory=512 << 20, max_running=1, step_tokens=16)


def interrupt(_=""):
    os.kill(os.getpid(), signal.SIGINT)


def test_an_answer_is_shown_as_it_comes_and_described(llm):
    shown = []
    asked = SamplingParams(max_tokens=9, seed=1, ignore_eos=True)
    answer = receive(llm.stream("The sky", asked), shown.append)
    assert "".join(delta.text for delta in shown) == answer.text
    assert len(shown) > 1
    assert f"prompt of {answer.usage.prompt_tokens} tokens in " in speed(answer)
    assert "answer of 9 tokens at " in speed(answer)


def test_ctrl_c_ends_it_and_the_next_answer_is_as_ever(llm):
    asked = SamplingParams(temperature=0, max_tokens=9)
    before = llm.generate("The sky", asked).text
    answer = receive(llm.stream("The sky", ENDLESS), interrupt)
    assert answer.finish_reason == "cancelled"
    assert before.startswith(answer.text)
    assert llm.generate("The sky", asked).text == before
    assert not llm.engine.has_work


def test_ctrl_c_ends_a_prompt_that_is_still_being_read(llm):
    timer = Timer(0.05, interrupt)
    timer.start()
    answer = receive(llm.stream([5] * 30_000, ENDLESS), lambda delta: None)
    timer.join()
    assert (answer.finish_reason, answer.usage.completion_tokens) == ("cancelled", 0)
    assert speed(answer).endswith("answer of 0 tokens")


def test_a_second_ctrl_c_does_not_wait(llm):
    with pytest.raises(KeyboardInterrupt):
        receive(llm.stream("The sky", ENDLESS), lambda delta: (interrupt(), interrupt()))


def test_ctrl_c_means_what_it_did_before_once_an_answer_is_over(llm):
    before = signal.getsignal(signal.SIGINT)
    receive(llm.stream("The sky", SamplingParams(max_tokens=1)), lambda delta: None)
    assert signal.getsignal(signal.SIGINT) == before


def test_thoughts_are_set_apart_from_the_answer(capsys):
    show = Screen()
    for delta in (
        Delta("", (1,), reasoning="Let "),
        Delta("", (2,), reasoning="me see."),
        Delta("", (3,)),
        Delta("42", (4,)),
        Delta("!", (5,)),
    ):
        show(delta)
    assert capsys.readouterr() == ("42!", "Let me see.\n")
    show(Delta("", (6,), reasoning="Hm."))
    show(Delta("So", (7,), reasoning=" Yes."))
    assert capsys.readouterr() == ("So", "Hm. Yes.\n")
