"""Real prompts continued: pinned, the same however they are asked for, and as the weights in
floating point would have them."""

import json
import math
from pathlib import Path

import pytest

from octavo import LLM, SamplingParams
from octavo.kernels import _cpu, cpu

pytestmark = pytest.mark.models
GOLDEN = Path(__file__).parent / "golden"
NUM_TOKENS = 32
GREEDY = SamplingParams(max_tokens=NUM_TOKENS, temperature=0)
# Without vector instructions everything takes about thirty times as long.
FEW, SHORT = 3, SamplingParams(max_tokens=8, temperature=0)

PROMPTS = [
    "The capital of France is Paris. The capital of Japan is",
    "The old lighthouse keeper had not spoken to anyone for three weeks when",
    'def factorial(n):\n    """Return n! for n >= 0."""\n',
    "1, 1, 2, 3, 5, 8, 13,",
    "Shopping list:\n- eggs\n- milk\n-",
    "Il était une fois, dans un petit village au bord de la mer,",
    "Der schnellste Weg zum Bahnhof ist",
    "Q: What is 17 + 25?\nA:",
    '{"name": "Ada Lovelace", "born": 1815, "occupation":',
    "| City | Country |\n|---|---|\n| Oslo | Norway |\n| Lima |",
    "SELECT name, price FROM products WHERE",
    "Water boils at a lower temperature on a mountain because 🏔️",
]
CHATS = [  # for a model that has a template
    [{"role": "user", "content": "Why is the sky blue?"}],
    [
        {"role": "system", "content": "You answer in one short sentence."},
        {"role": "user", "content": "Name three primary colours."},
        {"role": "assistant", "content": "Red, yellow and blue."},
        {"role": "user", "content": "And what do the last two make?"},
    ],
]


def prompts_for(llm):
    """As token ids."""
    tokenizer = llm.tokenizer
    chats = CHATS if tokenizer.has_chat_template else []
    return [*map(tokenizer.prompt_ids, PROMPTS), *map(tokenizer.chat_ids, chats)]


@pytest.mark.parametrize("instruction_set", _cpu.instruction_sets())
def test_greedy_answers_are_pinned(path, name, instruction_set, golden, monkeypatch):
    monkeypatch.setattr(cpu, "INSTRUCTION_SET", instruction_set)
    with LLM(path, max_context=512) as llm:
        prompts, params = prompts_for(llm), GREEDY
        if instruction_set == "generic":
            prompts, params = prompts[:FEW], SHORT
        pages = [_page(llm.tokenizer, answer) for answer in llm.generate(prompts, params)]
    written = json.dumps(pages, indent=2, ensure_ascii=False) + "\n"
    golden(GOLDEN / f"{name}.{instruction_set}.json", written.encode())


def _page(tokenizer, answer):
    return {
        "prompt": tokenizer.decode(answer.prompt_ids, special=True),
        "answer": answer.text,
        "token_ids": " ".join(map(str, answer.token_ids)),
    }


@pytest.mark.parametrize("temperature", [0, 0.8])
def test_an_answer_streamed_alone_is_the_one_that_came_whole_among_others(fast, temperature):
    prompts = prompts_for(fast)
    params = [
        SamplingParams(max_tokens=NUM_TOKENS, temperature=temperature, seed=i, logprobs=3)
        for i in range(len(prompts))
    ]
    answers = fast.generate(prompts, params)
    for prompt, asked, answer in zip(prompts, params, answers, strict=True):
        deltas = list(fast.stream(prompt, asked))
        assert "".join(delta.text for delta in deltas) == answer.text
        assert tuple(i for delta in deltas for i in delta.token_ids) == answer.token_ids
        assert tuple(p for delta in deltas for p in delta.logprobs) == answer.logprobs


# Activations are rounded to eight bits, which costs each product with a matrix 0.5 % of its size
# (RMS; why: tests/kernels/test_cpu.py). Four in a row a layer, all independent: in 30 layers 5.5 %
# for SmolLM2, in 18 layers 4.2 % for Gemma. Logits deviate by 3.7 and 4.7 from their mean, so the
# difference of two is off by sqrt(2) * 0.055 * 3.7 = sqrt(2) * 0.042 * 4.7 = 0.28.
DEVIATION = 0.28


def test_a_greedy_token_is_the_likeliest_in_floating_point_unless_two_are_close(fast, exact):
    errors = []
    for answer in fast.generate(prompts_for(fast), GREEDY):
        meant = _scores(exact, answer)
        for token_id, score in zip(answer.token_ids, meant, strict=True):
            assert score.token_id == token_id
            assert score.logprob >= score.top[0][1] - 3 * DEVIATION
        found = _scores(fast, answer)
        errors += [_margin(f) - _margin(m) for f, m in zip(found, meant, strict=True)]
    assert math.sqrt(sum(e * e for e in errors) / len(errors)) < DEVIATION


def _scores(llm, answer):
    """Of the tokens of an answer, under `llm`."""
    params = SamplingParams(max_tokens=1, prompt_logprobs=2)
    scored = llm.generate([*answer.prompt_ids, *answer.token_ids], params).prompt_logprobs
    return scored[-len(answer.token_ids) :]


def _margin(score):
    (_, first), (_, second) = score.top
    return first - second
