"""Fair shares: nobody's crowd keeps another waiting, and nobody pays for a pause."""

from collections import Counter

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from octavo.kvcache.tables import PageTables
from octavo.scheduler.scheduler import SHORT, Scheduler
from octavo.scheduler.shares import MOST_TENANTS, Shares, cost
from octavo.types import KVGroup, Request, SamplingParams

TOKEN = 9


class Served:
    """A scheduler whose tokens nobody computes, and what each tenant had of it."""

    def __init__(self, max_running=4, num_pages=400, step_tokens=64):
        tables = PageTables([KVGroup(1, 1, 8)], [num_pages], max_chunk=step_tokens)
        self.scheduler = Scheduler(
            tables, max_running=max_running, max_waiting=200, step_tokens=step_tokens
        )
        self.had, self.asked, self.steps, self.firsts = Counter(), 0, 0, {}

    def ask(self, tenant, num_prompt=30, num_new=20, priority=0, topic=None):
        self.asked += 1
        first = 10 + self.asked if topic is None else topic  # unless told, nothing is shared
        prompt = (first, *range(num_prompt - 1))
        params = SamplingParams(max_tokens=num_new)
        request = Request(str(self.asked), prompt, params, priority, tenant)
        self.scheduler.add(request, seed=0)
        return request.id

    def step(self):
        step = self.scheduler.plan()
        self.scheduler.commit(step)
        self.steps += 1
        for chunk in step.chunks:
            sequence, tenant = chunk.sequence, chunk.sequence.request.tenant
            new = min(chunk.end, sequence.num_prompt) - min(chunk.start, sequence.num_prompt)
            self.had[tenant] += cost(new, 0, chunk.samples)
            if chunk.samples:
                self.scheduler.append(sequence, TOKEN)
                self.firsts.setdefault(sequence.id, self.steps)
                if len(sequence.output_ids) == sequence.request.params.max_tokens:
                    self.scheduler.finish(sequence)
        return step

    def waiting_of(self, tenant):
        live = self.scheduler.sequences
        return sum(sequence.request.tenant == tenant for sequence in live)


sizes = st.tuples(st.integers(5, 60), st.integers(1, 40))


@examples(25)
@given(st.lists(sizes, min_size=2, max_size=4))
def test_tenants_that_always_ask_have_as_much_of_the_machine(asking):
    """Whatever the sizes of their requests. The bound is what one step and one request per place
    can set apart (Sheng et al., theorem 4.8, for requests that are not cut short)."""
    served, tenants = Served(), [str(i) for i in range(len(asking))]
    for _ in range(400):
        for tenant, (num_prompt, num_new) in zip(tenants, asking, strict=True):
            while served.waiting_of(tenant) < 6:
                served.ask(tenant, num_prompt, num_new)
        served.step()
    largest = max(cost(num_prompt, 0, num_new) for num_prompt, num_new in asking)
    had = [served.had[tenant] for tenant in tenants]
    assert max(had) - min(had) <= 2 * 4 * largest + 64


@given(st.lists(st.tuples(st.floats(1, 1e4), st.floats(0, 2e4)), max_size=40))
def test_one_tenant_is_served_in_order_of_arrival(requests):
    shares, tags = Shares(), []
    for guess, true in requests:
        tags.append(shares.tag("a", guess, floor=min(tags, default=0.0)))
        shares.settle("a", guess, true)
    assert tags == sorted(tags)


def test_a_guest_does_not_wait_for_a_flood():
    served = Served(max_running=4)
    for _ in range(60):
        served.ask("flood", num_new=100)
    for _ in range(30):
        served.step()
    begin = served.steps
    guest = served.ask("guest")
    for _ in range(3):
        served.step()
    assert served.firsts[guest] - begin <= 2


def test_the_guest_takes_one_place_and_who_gave_it_is_first_of_those_that_wait():
    served = Served(max_running=4)
    flood = [served.ask("flood", num_new=100) for _ in range(8)]
    for _ in range(5):
        served.step()
    served.ask("guest", num_new=3)
    (given,) = served.step().preempted
    assert given.id == flood[3]
    assert not any(served.step().preempted for _ in range(3))
    assert flood[3] in {chunk.sequence.id for chunk in served.step().chunks}
    assert given.num_preempted == 1


def test_a_prompt_that_ends_in_a_step_does_not_wait_for_prompts_of_others():
    served = Served(max_running=8)
    for _ in range(4):
        served.ask("flood", num_prompt=200)
    served.step()
    guest = served.ask("guest", num_prompt=20)
    served.step()  # the first of the flood comes first
    while guest not in served.firsts:
        step = served.step()
    (own,) = [chunk.sequence for chunk in step.chunks if chunk.sequence.id == guest]
    later = [c for c in step.chunks if c.sequence.order > own.order and c.end - c.start > 1]
    assert later == []
    assert step.num_tokens < 64


def test_prompts_of_a_flood_take_short_steps_once_a_guest_was_there():
    served = Served(step_tokens=256)
    for _ in range(2):
        served.ask("flood", num_prompt=200, num_new=90)
    assert served.step().num_tokens == 256, "while nobody else has asked"
    guest = served.ask("guest", num_prompt=200)
    assert num_of_prompts(served.step(), guest) == 200, "its own prompt has all that is there"
    for _ in range(30):
        served.step()
    served.ask("flood", num_prompt=200)
    assert num_of_prompts(served.step()) == SHORT
    guest = served.ask("guest", num_prompt=200)
    step = served.step()
    assert (num_of_prompts(step, guest), num_of_prompts(step)) == (200, 200)


def num_of_prompts(step, id=None):
    sizes = [(c.sequence.id, c.end - c.start) for c in step.chunks if c.end - c.start > 1]
    return sum(size for whose, size in sizes if id in (None, whose))


def test_a_pause_saves_nothing_up():
    served = Served(max_running=2)
    for _ in range(300):
        while served.waiting_of("busy") < 4:
            served.ask("busy")
        served.step()
    before = served.had["busy"]
    for _ in range(200):
        for tenant in ("busy", "late"):
            while served.waiting_of(tenant) < 4:
                served.ask(tenant)
        served.step()
    assert served.had["busy"] - before == pytest.approx(served.had["late"], rel=0.1)


def test_priority_comes_before_shares():
    served = Served(max_running=1)
    for _ in range(5):
        served.ask("much", num_new=50, priority=0)
    patient = served.ask("nothing yet", priority=1)
    for _ in range(250):
        served.step()
    assert patient not in served.firsts


def test_what_was_not_generated_is_not_paid_for():
    shares = Shares()
    shares.tag("short", 1000.0, floor=0.0)
    shares.settle("short", 1000.0, 10.0)
    assert shares.tag("short", 1.0, floor=0.0) == 10.0


def test_cached_tokens_hardly_count():
    """Who asks on about the same gets more answers than who asks something new each time."""
    served, answered = Served(max_running=2), Counter()
    for _ in range(400):
        for tenant, topic in (("again", 5), ("anew", None)):
            while served.waiting_of(tenant) < 3:
                served.ask(tenant, num_prompt=160, num_new=1, topic=topic)
        before = {sequence.id: sequence.request.tenant for sequence in served.scheduler.sequences}
        served.step()
        after = {sequence.id for sequence in served.scheduler.sequences}
        answered.update(tenant for id, tenant in before.items() if id not in after)
    assert answered["anew"] > 20
    assert answered["again"] > 1.5 * answered["anew"]


def test_who_leaves_the_queue_has_paid_nothing():
    served = Served(max_running=1)
    served.ask("flood", num_new=100)
    served.step()
    for _ in range(20):
        served.scheduler.cancel(served.ask("leaves", num_prompt=100))
    others = [served.ask("other", num_new=20) for _ in range(5)]
    late = served.ask("leaves", num_new=20)
    for _ in range(300):
        served.step()
    assert served.firsts[late] < served.firsts[others[1]]


def test_tenants_of_the_past_are_forgotten():
    shares = Shares()
    for k in range(3 * MOST_TENANTS):
        shares.tag(str(k), 1.0, floor=float(k))
    assert len(shares._used) <= MOST_TENANTS + 1
