"""Engines over models that are loaded once, what to ask them, and what they tell.

from engines import asked, engine_over, run        (tests/ is on the path)
"""

from collections import defaultdict
from dataclasses import replace

from octavo.config import Config
from octavo.engine.engine import Engine
from octavo.types import Delta, Finished, PromptScored, Request, SamplingParams


def engine_over(loaded, *, num_pages=512, max_context=None, program=None, **options):
    """A new engine, at no cost; `num_pages` in every group instead of those that memory holds."""
    plan = replace(
        loaded.plan,
        num_pages=tuple(num_pages for _ in loaded.groups),
        max_context=min(max_context or loaded.plan.max_context, num_pages * 16),
    )
    loaded = replace(loaded, plan=plan, program=program or loaded.program)
    return Engine(Config(str(loaded.path), **options), loaded)


def asked(id="a", prompt=(5, 6, 7), *, priority=0, **params):
    return Request(
        id,
        tuple(prompt),
        SamplingParams(**{"max_tokens": 8, "ignore_eos": True, **params}),
        priority,
    )


def run(engine, *requests):
    """Every request's events, by id."""
    for one in requests:
        engine.add(one)
    told = defaultdict(list)
    while engine.has_work:
        for id, event in engine.step():
            told[id].append(event)
    return told


def answer(engine, *args, **kwargs):
    """The events of one request that is alone."""
    one = asked(*args, **kwargs)
    return run(engine, one)[one.id]


def tokens(events):
    return [token for event in events if isinstance(event, Delta) for token in event.token_ids]


def text(events):
    return "".join(event.text for event in events if isinstance(event, Delta))


def logprobs(events):
    """Of the prompt and of the answer, floats as they are: equal only where the logits were."""
    scores = [
        score for event in events if isinstance(event, PromptScored) for score in event.logprobs
    ]
    return scores + [
        score for event in events if isinstance(event, Delta) for score in event.logprobs
    ]


def end(events):
    *_, last = events
    assert isinstance(last, Finished)
    return last
