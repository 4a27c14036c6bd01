"""The policies one by one, on sequences whose tokens nobody computes."""

import pytest

from octavo.errors import BadRequest, QueueFull
from octavo.kvcache.tables import PageTables
from octavo.scheduler.scheduler import Scheduler
from octavo.types import KVGroup, Request, SamplingParams

TOKEN = 9


def scheduler_of(num_pages=100, max_running=4, max_waiting=8, step_tokens=32):
    group = KVGroup(num_layers=1, kv_heads=1, head_dim=8)
    tables = PageTables([group], [num_pages], step_tokens)
    return Scheduler(
        tables, max_running=max_running, max_waiting=max_waiting, step_tokens=step_tokens
    )


def add(scheduler, id, num_tokens, first=0, priority=0, **params):
    """Prompts with different first tokens share nothing."""
    prompt_ids = (first, *range(1, num_tokens))
    request = Request(id, prompt_ids, SamplingParams(**params), priority)
    return scheduler.add(request, seed=0)


def chunks(step):
    return [(chunk.sequence.id, chunk.start, chunk.end) for chunk in step.chunks]


def run(scheduler, times=1):
    """Runs steps; whatever samples gets a token. What the last step computed."""
    for _ in range(times):
        step = scheduler.plan()
        scheduler.commit(step)
        for chunk in step.chunks:
            if chunk.samples:
                scheduler.append(chunk.sequence, TOKEN)
    return chunks(step)


def test_every_decode_comes_first_and_prompts_share_the_rest_of_the_budget():
    scheduler = scheduler_of()
    add(scheduler, "a", 5)
    assert run(scheduler) == [("a", 0, 5)]
    add(scheduler, "b", 50, first=1)
    add(scheduler, "c", 20, first=2)
    assert run(scheduler) == [("a", 5, 6), ("b", 0, 31)]
    assert run(scheduler) == [("a", 6, 7), ("b", 31, 50), ("c", 0, 12)]
    assert run(scheduler) == [("a", 7, 8), ("b", 50, 51), ("c", 12, 20)]
    assert run(scheduler) == [("a", 8, 9), ("b", 51, 52), ("c", 20, 21)]


def test_a_chunk_samples_when_it_reaches_the_last_token():
    scheduler = scheduler_of()
    add(scheduler, "a", 40)
    first = scheduler.plan()
    scheduler.commit(first)
    second = scheduler.plan()
    assert [step.chunks[0].samples for step in (first, second)] == [False, True]
    assert [step.num_tokens for step in (first, second)] == [32, 8]


def test_equal_priorities_run_in_order_of_arrival_and_lower_ones_first():
    scheduler = scheduler_of(max_running=1)
    for id, priority in (("a", 1), ("b", 0), ("c", 1), ("d", 0)):
        add(scheduler, id, 3, priority=priority)
    order = []
    while scheduler.has_work:
        [(id, _, _)] = run(scheduler)
        order.append(id)
        scheduler.cancel(id)
    assert order == ["b", "d", "a", "c"]


def test_an_urgent_newcomer_passes_a_prompt_that_is_half_computed():
    scheduler = scheduler_of()
    add(scheduler, "long", 100)
    run(scheduler)
    add(scheduler, "urgent", 20, first=1, priority=-1)
    add(scheduler, "patient", 20, first=2)
    assert run(scheduler) == [("urgent", 0, 20), ("long", 32, 44)]
    assert run(scheduler) == [("urgent", 20, 21), ("long", 44, 75)]


def test_no_more_than_max_running_run():
    scheduler = scheduler_of(max_running=2)
    for i, id in enumerate("abc"):
        add(scheduler, id, 3, first=i)
    assert run(scheduler) == [("a", 0, 3), ("b", 0, 3)]
    scheduler.cancel("a")
    assert run(scheduler) == [("b", 3, 4), ("c", 0, 3)]
    assert (scheduler.num_running, scheduler.num_waiting) == (2, 0)


def test_one_that_waits_for_pages_lets_nobody_pass():
    scheduler = scheduler_of(num_pages=6)
    add(scheduler, "a", 30)
    run(scheduler)
    add(scheduler, "large", 70, first=1)
    add(scheduler, "small", 3, first=2)
    assert run(scheduler) == [("a", 30, 31)]
    scheduler.cancel("a")
    assert run(scheduler) == [("large", 0, 32)]


@pytest.mark.parametrize(("num_tokens", "begins"), [(31, True), (32, False)])
def test_a_newcomer_has_room_for_one_token_more_and_leaves_each_of_the_running_a_page(
    num_tokens, begins
):
    scheduler = scheduler_of(num_pages=5)
    add(scheduler, "a", 16)
    run(scheduler)
    add(scheduler, "b", num_tokens, first=1)
    step = scheduler.plan()  # a has taken its second page
    assert [chunk.sequence.id for chunk in step.chunks] == (["a", "b"] if begins else ["a"])


def test_when_pages_run_out_the_last_in_gives_way_and_continues_where_it_was():
    scheduler = scheduler_of(num_pages=6, step_tokens=64)
    a = add(scheduler, "a", 30)
    b = add(scheduler, "b", 30, first=1)
    run(scheduler, times=18)
    assert (len(a.tokens), len(b.tokens), scheduler.num_preempted) == (48, 48, 0)
    run(scheduler)
    step = scheduler.plan()  # both would write position 48, no page is left
    assert step.preempted == (b,)
    assert chunks(step) == [("a", 48, 49)]
    assert (b.num_preempted, len(b.output_ids), scheduler.num_waiting) == (1, 19, 1)
    scheduler.cancel("a")
    assert run(scheduler) == [("b", 32, 49)]  # a took the last of b's full pages
    assert b.output_ids == [TOKEN] * 20
    assert b.cached_tokens == 0, "its own pages are none of an earlier request's"


def test_one_that_gave_way_comes_before_those_that_wait():
    scheduler = scheduler_of(num_pages=6, max_running=2, step_tokens=64)
    for i, id in enumerate("abc"):
        add(scheduler, id, 30, first=i)
    run(scheduler, times=20)
    assert scheduler.num_preempted == 1
    scheduler.cancel("a")
    assert [id for id, _, _ in run(scheduler)] == ["b"]


def test_one_that_gives_way_to_a_prompt_leaves_the_step_that_was_planned():
    scheduler = scheduler_of(num_pages=10, step_tokens=4)
    patient = add(scheduler, "patient", 16, priority=1)
    run(scheduler, times=4)
    add(scheduler, "urgent", 111, first=1)
    assert run(scheduler) == [("patient", 16, 17), ("urgent", 0, 3)]
    run(scheduler, times=31)
    step = scheduler.plan()  # the last of ten pages went to position 48 of the patient one
    assert step.preempted == (patient,)
    assert chunks(step) == [("urgent", 96, 100)], "and its part of the budget is used"
    assert len(patient.output_ids) == 33


def test_prompts_whose_logits_are_wanted_are_computed_from_the_start():
    scheduler = scheduler_of(step_tokens=64)
    add(scheduler, "a", 40)
    run(scheduler)
    scored = add(scheduler, "scored", 40, prompt_logprobs=0)
    other = add(scheduler, "other", 40)
    assert run(scheduler) == [("a", 40, 41), ("scored", 0, 40), ("other", 32, 40)]
    assert (scored.cached_tokens, other.cached_tokens) == (0, 32)


def test_requests_with_different_salts_share_nothing():
    scheduler = scheduler_of(step_tokens=64, max_running=6)
    for id, salt in zip("abcdef", ("us", "them", "us", None, "\ud800", None), strict=True):
        sequence = scheduler.add(Request(id, tuple(range(40)), cache_salt=salt), seed=0)
        run(scheduler)
        assert sequence.cached_tokens == (32 if id in "cf" else 0)


def test_the_queue_is_bounded():
    scheduler = scheduler_of(max_running=1, max_waiting=1)
    add(scheduler, "a", 3)
    add(scheduler, "b", 3)
    full = "2 requests run or wait already, 1 more would be over the limit of 2: try again later"
    with pytest.raises(QueueFull, match=full):
        add(scheduler, "c", 3)
    run(scheduler)
    with pytest.raises(QueueFull, match=full):
        add(scheduler, "c", 3)
    scheduler.cancel("a")
    add(scheduler, "c", 3)


@pytest.mark.parametrize(
    ("prompt_ids", "complaint"),
    [
        ((), "prompt_ids: it is empty"),
        (range(32), "prompt_ids: 32 tokens and one to answer exceed the 32 that the KV pages hold"),
    ],
)
def test_what_can_never_run_is_refused(prompt_ids, complaint):
    scheduler = scheduler_of(num_pages=2)
    with pytest.raises(BadRequest, match=complaint):
        scheduler.add(Request("a", tuple(prompt_ids)), seed=0)
    assert not scheduler.has_work


def test_an_id_is_used_once_at_a_time():
    scheduler = scheduler_of()
    add(scheduler, "a", 3)
    with pytest.raises(BadRequest, match="id: 'a' has not finished yet"):
        add(scheduler, "a", 3)
    scheduler.cancel("a")
    add(scheduler, "a", 3)


def test_the_longest_prompt_that_is_accepted_gets_one_token():
    scheduler = scheduler_of(num_pages=2)
    sequence = add(scheduler, "a", 31)
    run(scheduler)
    assert len(sequence.output_ids) == 1
    assert scheduler.is_full(sequence)


def test_a_full_sequence_takes_no_token():
    scheduler = scheduler_of(num_pages=2)
    sequence = add(scheduler, "a", 31)
    run(scheduler)
    scheduler.commit(scheduler.plan())
    with pytest.raises(AssertionError, match="should have finished"):
        scheduler.append(sequence, TOKEN)


def test_a_token_is_chosen_from_logits():
    scheduler = scheduler_of()
    sequence = add(scheduler, "a", 40)
    scheduler.commit(scheduler.plan())
    with pytest.raises(AssertionError, match="has no logits"):
        scheduler.append(sequence, TOKEN)


def test_cancelled_sequences_are_gone_before_the_next_plan_and_leave_a_prefix():
    scheduler = scheduler_of(max_running=1)
    running, waiting = add(scheduler, "running", 40), add(scheduler, "waiting", 40)
    run(scheduler)
    assert scheduler.cancel("waiting") is waiting
    assert scheduler.cancel("running") is running
    assert scheduler.cancel("running") is None
    assert chunks(scheduler.plan()) == []
    assert scheduler.tables.counts()[0].held == 0
    add(scheduler, "next", 40)
    assert run(scheduler) == [("next", 32, 40)]


def test_a_step_passes_over_who_left_while_it_ran_though_the_name_is_in_use_again():
    scheduler = scheduler_of()
    add(scheduler, "a", 20)
    step = scheduler.plan()
    scheduler.cancel("a")
    again = add(scheduler, "a", 20, first=1)
    scheduler.commit(step)
    assert again.num_computed == 0
    assert scheduler.tables.counts()[0].findable == 0


def test_a_failed_step_leaves_nothing_to_find():
    scheduler = scheduler_of()
    add(scheduler, "a", 20)
    for chunk in scheduler.plan().chunks:
        scheduler.finish(chunk.sequence)
    assert not scheduler.has_work
    add(scheduler, "b", 20)
    assert run(scheduler) == [("b", 0, 20)]


def test_a_sequence_says_how_far_it_is():
    scheduler = scheduler_of()
    sequence = add(scheduler, "a", 40)
    run(scheduler)
    assert repr(sequence) == "Sequence('a', 32/40 tokens computed)"
    assert (sequence.num_prompt, sequence.num_left) == (40, 8)


def test_tokens_known_beyond_the_next_are_computed_in_one_step():
    scheduler = scheduler_of()
    one = add(scheduler, "a", 5)
    scheduler.commit(scheduler.plan())
    scheduler.append(one, *[TOKEN] * 8)
    assert run(scheduler) == [("a", 5, 13)]
    assert len(one.output_ids) == 9
    scheduler.append(add_known(scheduler, one), *[TOKEN] * 40)
    assert run(scheduler) == [("a", 14, 46)]  # no more than step_tokens
    assert run(scheduler) == [("a", 46, 54)]


def add_known(scheduler, sequence):
    """Its next token computed, so that more can be appended."""
    scheduler.commit(scheduler.plan())
    return sequence


def test_what_is_late_is_computed_again_and_nothing_else():
    scheduler = scheduler_of()
    add(scheduler, "a", 20)
    step = scheduler.plan()
    scheduler.commit(step, late=step.chunks)
    assert run(scheduler) == [("a", 19, 20)]
    assert run(scheduler) == [("a", 20, 21)]


def test_tokens_known_of_an_answer_keep_no_prompt_of_others_waiting():
    """A prompt that ends would: whom it belongs to is answered first."""
    scheduler = scheduler_of()
    one = add(scheduler, "a", 5)
    scheduler.commit(scheduler.plan())
    scheduler.append(one, *[TOKEN] * 6)
    scheduler.add(Request("b", (1, 2, 3), tenant="other"), seed=0)
    assert chunks(scheduler.plan()) == [("a", 5, 11), ("b", 0, 3)]
