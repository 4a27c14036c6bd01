"""The background, rule by rule: it works while nobody else is there, and is in nobody's way."""

import pytest

from octavo.errors import QueueFull
from octavo.kvcache.tables import PageTables
from octavo.scheduler.scheduler import SHORT, Scheduler
from octavo.types import KVGroup, Request, SamplingParams

TOKEN = 9


def scheduler_of(num_pages=100, max_running=4, max_waiting=8, step_tokens=32):
    group = KVGroup(num_layers=1, kv_heads=1, head_dim=8)
    return Scheduler(
        PageTables([group], [num_pages], max_chunk=step_tokens),
        max_running=max_running,
        max_waiting=max_waiting,
        step_tokens=step_tokens,
    )


def add(scheduler, id, num_tokens=20, *, is_background=False, tenant="", **params):
    """Prompts share nothing."""
    prompt = (ord(id[0]) * 100 + len(id), *range(1, num_tokens))
    params = SamplingParams(**{"max_tokens": 100, **params})
    request = Request(id, prompt, params, tenant=tenant, is_background=is_background)
    return scheduler.add(request, seed=0)


def run(scheduler, times=1):
    """The ids that the last step served."""
    for _ in range(times):
        step = scheduler.plan()
        scheduler.commit(step)
        for chunk in step.chunks:
            if chunk.samples:
                scheduler.append(chunk.sequence, TOKEN)
    return [chunk.sequence.id for chunk in step.chunks]


def test_it_is_a_batch_like_any_other_while_nobody_else_is_there():
    scheduler = scheduler_of()
    for id in "abc":
        add(scheduler, id, is_background=True)
    assert run(scheduler, 4) == ["a", "b", "c"]


def test_it_rests_with_its_pages_while_others_run_and_goes_on_where_it_was():
    scheduler = scheduler_of()
    slow = add(scheduler, "slow", is_background=True)
    run(scheduler, 5)
    had, held = list(slow.tokens), slow.table.num_held
    add(scheduler, "guest")
    for _ in range(4):
        assert run(scheduler) == ["guest"]
    assert (slow.tokens, slow.table.num_held, slow.num_preempted) == (had, held, 0)
    scheduler.cancel("guest")
    assert run(scheduler) == ["slow"]
    assert len(slow.tokens) == len(had) + 1


def test_its_steps_are_short_since_whoever_comes_waits_for_the_one_that_runs():
    scheduler = scheduler_of(step_tokens=256)
    add(scheduler, "batch", 200, is_background=True)
    assert scheduler.plan().num_tokens == SHORT
    add(scheduler, "guest", 200)
    assert scheduler.plan().num_tokens == 200


def test_it_gives_places_to_others_the_last_first():
    scheduler = scheduler_of(max_running=2)
    first, second = (add(scheduler, id, is_background=True) for id in ("b", "bb"))
    run(scheduler, 2)
    add(scheduler, "guest")
    assert run(scheduler) == ["guest"]
    assert (first.num_preempted, second.num_preempted) == (0, 1)
    assert (scheduler.num_running, scheduler.num_background) == (1, 2)


def test_two_others_need_not_take_turns_for_its_places():
    scheduler = scheduler_of(max_running=2)
    for id in ("b", "bb"):
        add(scheduler, id, num_tokens=5, is_background=True)
    run(scheduler, 2)
    for id in ("f", "ff"):
        add(scheduler, id, num_tokens=5)
    assert run(scheduler) == ["f", "ff"]


def test_it_gives_pages_to_others_before_they_must_wait():
    scheduler = scheduler_of(num_pages=3)
    slow = add(scheduler, "slow", 20, is_background=True)
    run(scheduler, 2)
    add(scheduler, "guest", 40)
    assert run(scheduler) == ["guest"]
    assert (slow.num_preempted, slow.table.num_held) == (1, 0)


def test_each_of_the_two_queues_has_the_bound():
    scheduler = scheduler_of(max_running=1, max_waiting=1)
    for id in ("b", "bb"):
        add(scheduler, id, is_background=True)
    with pytest.raises(QueueFull):
        add(scheduler, "bbb", is_background=True)
    for id in ("f", "ff"):
        add(scheduler, id)
    with pytest.raises(QueueFull):
        add(scheduler, "fff")


def test_what_a_key_has_in_the_background_costs_it_nothing_elsewhere():
    scheduler = scheduler_of(max_running=1)
    add(scheduler, "b", tenant="busy", is_background=True)
    run(scheduler, 20)
    busy = add(scheduler, "f", tenant="busy")
    other = add(scheduler, "ff", tenant="other")
    assert busy.order < other.order
    assert busy.order[2] == other.order[2] == 0.0


def test_keys_have_equal_shares_of_it():
    scheduler = scheduler_of(max_running=1)
    for k in range(1, 5):
        add(scheduler, "m" * k, tenant="much", is_background=True)
    add(scheduler, "l", tenant="little", is_background=True)
    order = []
    while scheduler.has_work:
        (id,) = run(scheduler)
        order.append(id)
        scheduler.cancel(id)
    assert order[:2] == ["m", "l"]
