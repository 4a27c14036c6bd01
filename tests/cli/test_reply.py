"""An answer is shown as it comes, and ends where Ctrl-C says."""

import os
import signal

import pytest

from octavo.cli._interrupt import Interrupt
from octavo.cli._reply import receive
from octavo.errors import StepFailed
from octavo.types import Delta, Finished, Usage

END = Finished("stop", Usage(prompt_tokens=7, completion_tokens=2, cached_tokens=3), seed=1)


def events(*all_of_them, closed):
    try:
        for event in all_of_them:
            if event == "ctrl-c":
                os.kill(os.getpid(), signal.SIGINT)
            else:
                yield event
    finally:
        closed.append(True)


def test_an_answer_is_shown_as_it_comes_and_counted():
    shown, closed = [], []
    stream = events(Delta("Hel", (1,)), Delta("", (2,)), Delta("lo", (3, 4)), END, closed=closed)
    reply = receive(stream, shown.append)
    assert (reply.text, "".join(shown)) == ("Hello", "Hello")
    assert (reply.end, reply.num_tokens, closed) == (END, 4, [True])
    assert "prompt of 7 tokens, 3 found again" in reply.speed
    assert "answer of 4 tokens at" in reply.speed


def test_ctrl_c_ends_it_after_the_token_under_way_and_the_engine_is_told():
    closed = []
    stream = events(Delta("a", (1,)), "ctrl-c", Delta("b", (2,)), Delta("c", (3,)), closed=closed)
    reply = receive(stream, lambda text: None)
    assert (reply.text, reply.end, closed) == ("ab", None, [True])


def test_a_second_ctrl_c_does_not_wait():
    closed = []
    stream = events("ctrl-c", "ctrl-c", Delta("a", (1,)), closed=closed)
    with pytest.raises(KeyboardInterrupt):
        receive(stream, lambda text: None)
    assert closed == [True]


def test_ctrl_c_means_what_it_did_before_once_an_answer_is_over():
    before = signal.getsignal(signal.SIGINT)
    with Interrupt():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) == before


def test_an_answer_that_failed_is_an_error():
    failed = Finished("error", END.usage, seed=1, error="the step failed: why")
    with pytest.raises(StepFailed, match="why"):
        receive(events(Delta("a", (1,)), failed, closed=[]), lambda text: None)


def test_an_answer_without_a_token_can_be_described():
    reply = receive(events(END, closed=[]), lambda text: None)
    assert reply.speed == "no token"
