"""Everything a Scheduler promises, under random arrivals, cancellations and failed steps, over
memory on paper: a slot remembers a hash of every token up to the one it was written for, and the
next token is drawn from what the slots say."""

from collections import Counter
from zlib import crc32

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from octavo.errors import BadRequest, QueueFull
from octavo.kvcache.tables import PageTables
from octavo.scheduler.scheduler import Scheduler
from octavo.types import PAGE_SIZE, KVGroup, Request, SamplingParams

MAX_WAITING = 6
WORDS = ((2,) * PAGE_SIZE, (2,) * PAGE_SIZE, (3,) * PAGE_SIZE, (4,) * 5)
requests = st.tuples(
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=5).map(lambda words: sum(words, ())),
    st.builds(
        SamplingParams,
        max_tokens=st.sampled_from([60, 80, 40, 1]),
        prompt_logprobs=st.sampled_from([None, None, 0]),
    ),
    st.sampled_from([0, 0, 1, -1]),  # priority
    st.sampled_from(["a", "a", "b", "c"]),  # tenant
    st.sampled_from([False, False, True]),  # in the background
)
arrivals = st.lists(st.lists(requests, max_size=3), min_size=3, max_size=8)
engines = st.builds(
    lambda **options: PaperEngine(**options),
    windows=st.sampled_from([[None], [None, 33], [5, None], [16, 33]]),
    num_pages=st.tuples(*[st.sampled_from([9, 7, 12, 5])] * 2),
    max_running=st.sampled_from([4, 3, 1]),
    beyond=st.sampled_from([40, 10, 0]),
    prefix_cache=st.sampled_from([True, True, False]),
)
additions = st.tuples(st.just("add"), st.lists(requests, min_size=1, max_size=5))
steps = st.tuples(st.just("steps"), st.sampled_from([20, 5, 1]))
happenings = st.one_of(
    additions,
    additions,
    steps,
    steps,
    st.tuples(st.sampled_from(["leave", "leave_during_a_step"]), st.integers(0, 9)),
    st.tuples(st.just("fail"), st.none()),
)


class PaperEngine:
    def __init__(self, windows, num_pages, max_running, beyond, prefix_cache):
        self.made_of = windows, num_pages, max_running, beyond
        self.windows = windows
        self.max_running, self.step_tokens = max_running, max_running + beyond
        groups = [KVGroup(num_layers=1, kv_heads=1, head_dim=8, window=w) for w in windows]
        self.tables = PageTables(
            groups, num_pages[: len(groups)], self.step_tokens, prefix_cache=prefix_cache
        )
        self.scheduler = Scheduler(
            self.tables,
            max_running=max_running,
            max_waiting=MAX_WAITING,
            step_tokens=self.step_tokens,
        )
        self.slots = [{} for _ in windows]  # (page, slot) -> hash of the tokens up to there
        self.live = {}
        self.running = set()  # ids
        self.ended, self.times_late, self.times_rested = Counter(), Counter(), Counter()
        self.resting = set()  # ids: late, and not to be planned for yet
        self.accepted = 0

    def without_cache(self):
        return PaperEngine(*self.made_of, prefix_cache=False)

    def add(self, requests):
        for request in requests:
            self.add_one(str(self.accepted), *request)

    def add_one(self, id, prompt_ids, params, priority, tenant, is_background):
        self._add(Request(id, prompt_ids, params, priority, tenant, is_background=is_background))

    def _add(self, request):
        if len(request.prompt_ids) >= self.tables.max_tokens:
            with pytest.raises(BadRequest, match=f"{self.tables.max_tokens} that the KV pages"):
                self.scheduler.add(request, seed=0)
        elif self._num_live(request.is_background) >= self.max_running + MAX_WAITING:
            with pytest.raises(QueueFull):
                self.scheduler.add(request, seed=0)
        else:
            self.live[request.id] = self.scheduler.add(request, seed=0)
            self.accepted += 1

    def _num_live(self, is_background):
        return sum(one.is_background == is_background for one in self.live.values())

    def steps(self, times):
        for _ in range(times):
            self.step()

    def leave(self, choice):
        for id in sorted(self.live)[choice : choice + 1]:
            self._cancel(self.live[id])

    def leave_during_a_step(self, choice):
        self.step(leaving=sorted(self.running)[choice : choice + 1])

    def fail(self, _):
        for chunk in self._plan().chunks:
            for position in range(chunk.start, chunk.end):
                self._write(chunk.sequence, position, "nonsense")
            self._cancel(chunk.sequence)

    def finish(self):
        for _ in range(3000):
            if not self.scheduler.has_work:
                break
            self.step()
        assert sum(self.ended.values()) == self.accepted
        assert not any(count.held for count in self.tables.counts())

    def step(self, leaving=()):
        step = self._plan()
        self._run(step)
        for id in leaving:
            self._cancel(self.live[id])
        late = [chunk for chunk in step.chunks if chunk.samples and self._is_late(chunk)]
        self.resting = {id for id in self.resting if not self._is_there(id)}
        self.resting |= {chunk.sequence.id for chunk in late}
        self.scheduler.commit(step, late)
        self._sample(step, late)
        return step

    def _is_late(self, chunk):
        """Now and then its mask is not there yet; three times in a row at most."""
        times = self.times_late[chunk.sequence.id]
        self.times_late[chunk.sequence.id] = 0 if times == 3 else times + 1
        return times < 3 and crc32(f"{chunk.sequence.id} {chunk.end}".encode()) % 4 == 0

    def _is_there(self, id):
        """The mask that was late, a few steps on."""
        self.times_rested[id] += 1
        return crc32(f"{id} {self.times_rested[id]}".encode()) % 3 == 0

    def _cancel(self, sequence):
        assert self.scheduler.cancel(sequence.id) is sequence
        assert self.scheduler.cancel(sequence.id) is None
        self._end(sequence)

    def _end(self, sequence):
        del self.live[sequence.id]
        self.running.discard(sequence.id)
        self.ended[sequence.id] += 1

    def _plan(self):
        turn = {s.id for s in self.live.values() if not s.is_background} or set(self.live)
        decoding = {id for id in self.running & turn if self.live[id].num_left == 1}
        waiting = [s for id, s in self.live.items() if id not in self.running]
        step = self.scheduler.plan(self.resting)
        served = {chunk.sequence.id for chunk in step.chunks}
        preempted = {sequence.id for sequence in step.preempted}
        begun = served - self.running
        self.running = (self.running | begun) - preempted
        rests = decoding & self.resting
        assert decoding - rests <= served | preempted, "a decode waits for no one"
        assert not rests & served, "who is late sits out"
        assert served or rests or not self.live, "there is progress as long as there is work"
        assert served <= turn, "the background waits for all others"
        self._check_limits(step)
        self._check_order(step, waiting, begun)
        return step

    def _check_limits(self, step):
        assert step.num_tokens <= self.step_tokens
        assert len(self.running) <= self.max_running
        assert self._foreground(self.running) == self.scheduler.num_running
        assert len({chunk.sequence.id for chunk in step.chunks}) == len(step.chunks)
        for chunk in step.chunks:
            sequence = chunk.sequence
            assert sequence.num_computed == chunk.start < chunk.end <= len(sequence.tokens)
            assert chunk.samples == (chunk.end == len(sequence.tokens))

    def _foreground(self, ids):
        return sum(not self.live[id].is_background for id in ids)

    def _check_order(self, step, waiting, begun):
        """In order of priority, share and arrival; the last give way when pages or places are
        short."""
        for sequence in waiting:
            if sequence.id in self.live and sequence.id not in begun:
                assert all(self.live[id].order < sequence.order for id in begun), "nobody passes"
        running = sorted((self.live[id] for id in self.running), key=lambda s: s.order)
        ends = {chunk.sequence.id: chunk.end for chunk in step.chunks}
        if running and running[0].id not in self.resting:
            assert running[0].id in ends, "the first of all moves on in every step"
        turn = [s for s in running if s.is_background == running[0].is_background]
        prompts = [s for s in turn if s.num_left > 1]
        lefts = [len(s.tokens) - ends.get(s.id, s.num_computed) for s in prompts]
        answered = {s.request.tenant for s, left in zip(prompts, lefts, strict=True) if not left}
        for i, left in enumerate(lefts):
            # Then the budget is spent, or the prompt of another tenant must not wait for it.
            if left and not answered - {prompts[i].request.tenant}:
                assert step.num_tokens == self.step_tokens
                assert not any(s.id in ends for s in prompts[i + 1 :])
        for sequence in step.preempted:
            assert all(other.order < sequence.order for other in running)
            assert sequence.num_computed == 0

    def _run(self, step):
        for chunk in step.chunks:
            sequence = chunk.sequence
            for position in range(chunk.start, chunk.end):
                self._write(sequence, position, hash(tuple(sequence.tokens[: position + 1])))
        for chunk in step.chunks:
            self._check_what_it_sees(chunk)

    def _write(self, sequence, position, content):
        for pages, slots in zip(sequence.table.pages, self.slots, strict=True):
            slots[pages[position // PAGE_SIZE], position % PAGE_SIZE] = content

    def _check_what_it_sees(self, chunk):
        sequence = chunk.sequence
        for g, window in enumerate(self.windows):
            first = 0 if window is None else max(0, chunk.start - window + 1)
            for position in range(first, chunk.end):
                expected = hash(tuple(sequence.tokens[: position + 1]))
                assert self._slot(sequence, g, position) == expected

    def _slot(self, sequence, g, position):
        return self.slots[g][sequence.table.pages[g][position // PAGE_SIZE], position % PAGE_SIZE]

    def _sample(self, step, late):
        for chunk in step.chunks:
            sequence = chunk.sequence
            if not chunk.samples or chunk in late or sequence.id not in self.live:
                continue
            limit = sequence.request.params.max_tokens
            self.scheduler.append(sequence, *self._chosen(sequence, limit))
            if len(sequence.output_ids) == limit or self.scheduler.is_full(sequence):
                self._check_answer(sequence)
                self.scheduler.finish(sequence)
                self._end(sequence)

    def _chosen(self, sequence, limit):
        """A token, and sometimes those that must follow it."""
        tokens, chosen = list(sequence.tokens), []
        room = min(limit or 1 << 30, self.tables.max_tokens - sequence.num_prompt)
        most = min(room - len(sequence.output_ids), 1 + hash(tuple(tokens)) % 3 * 9)
        for _ in range(most):
            chosen.append(hash(tuple(tokens)) % 5)
            tokens.append(chosen[-1])
        return chosen

    def _check_answer(self, sequence):
        tokens = list(sequence.request.prompt_ids)
        for token in sequence.output_ids:
            assert token == hash(tuple(tokens)) % 5
            tokens.append(token)
        assert tokens == sequence.tokens
        found = sequence.cached_tokens
        assert found % PAGE_SIZE == 0
        assert found < sequence.num_prompt
        if sequence.wants_prompt_logits:
            assert found == 0

    def check(self):
        """Every sequence is live or has ended once, and only those that run hold pages."""
        assert list(self.scheduler.sequences) == list(self.live.values())
        foreground = self._foreground(self.live)
        assert self.scheduler.num_waiting == foreground - self._foreground(self.running)
        assert self.scheduler.num_background == len(self.live) - foreground
        assert sorted([*self.live, *self.ended.elements()]) == sorted(
            map(str, range(self.accepted))
        )
        for g, count in enumerate(self.tables.counts()):
            held = {
                page
                for sequence in self.live.values()
                for page in sequence.table.pages[g][sequence.table.first[g] :]
            }
            assert count.held == len(held)
        for sequence in self.live.values():
            assert sequence.id in self.running or not sequence.table.num_pages


@examples(80)
@given(engines, st.lists(happenings, min_size=3, max_size=16))
def test_whatever_happens_every_promise_holds(engine, happenings):
    for verb, argument in happenings:
        getattr(engine, verb)(argument)
        engine.check()
    engine.finish()


@examples(40)
@given(engines, st.lists(requests, min_size=3, max_size=MAX_WAITING))
def test_a_crowd_that_nobody_leaves_is_served_to_the_end(engine, requests):
    engine.add(requests)
    engine.finish()
    engine.check()


@examples(30)
@given(engines, arrivals, st.data())
def test_the_others_are_served_as_if_there_were_no_background(engine, arrivals, data):
    """Step by step the same tokens of the same requests. Without cached prefixes: what one finds
    depends on what others left."""
    engine, alone, counts = engine.without_cache(), engine.without_cache(), Counter()
    for requests in arrivals:
        for *request, is_background in requests:
            kind = "b" if is_background else "f"
            counts[kind] += 1
            for each in (engine,) if is_background else (engine, alone):
                each.add_one(f"{kind}{counts[kind]}", *request, is_background)
        for _ in range(data.draw(st.sampled_from([4, 1, 15]))):
            assert foreground(engine.step()) == foreground(alone.step())
    for each in (engine, alone):
        each.finish()


def foreground(step):
    chunks = [(c.sequence.id, c.start, c.end) for c in step.chunks if not c.sequence.is_background]
    return chunks, [s.id for s in step.preempted if not s.is_background]
