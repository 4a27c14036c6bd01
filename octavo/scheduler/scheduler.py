"""Which tokens the next step computes, and who gives way when pages run out.

Pure Python: no tensors, no clock, no I/O. One step is planned, run by the engine and committed
before the next is planned:

    add ──▶ waiting ──plan──▶ running ──finish──▶ gone
               ▲                 │
               └──── preempt ────┘     pages given back, tokens kept, computed again later

Both queues are in order of (priority, tag, arrival); a request's tag is the share that its tenant
had used when it came (shares.py). The first is served first. The last of the running gives way: to
those before it when pages run out, and to one that waits before it when all places are taken.

The background stands behind all others and has shares and a queue's bound of its own. It is given
tokens only in steps in which nobody else runs or waits; meanwhile it keeps its places and pages
until they are wanted. So, cached prefixes aside, the others are served as if it were not there.

A request that arrives waits for the step that runs. So prompts are computed in short steps where
one may arrive that is served before them.
"""

from bisect import insort
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from math import inf
from operator import attrgetter
from typing import TypeAlias

from octavo.errors import BadRequest, OutOfPages, QueueFull
from octavo.kvcache.tables import PageTables
from octavo.scheduler.sequence import Sequence
from octavo.scheduler.shares import Shares, cost, estimate
from octavo.types import Request

# Tokens of prompts in a short step. It takes a third of the time of one of 256; a long prompt takes
# a sixth more time in all.
SHORT = 64

_Order: TypeAlias = tuple[bool, float, float, float]  # in the background, priority, tag, arrival
_order = attrgetter("order")
_LAST: _Order = (True, inf, inf, inf)


@dataclass(frozen=True, slots=True)
class Chunk:
    """The tokens [start, end) of a sequence."""

    sequence: Sequence
    start: int
    end: int
    samples: bool  # its last token is the sequence's last: a next one can be chosen


@dataclass(frozen=True, slots=True)
class Step:
    chunks: tuple[Chunk, ...]
    preempted: tuple[Sequence, ...]

    @property
    def num_tokens(self) -> int:
        return sum(chunk.end - chunk.start for chunk in self.chunks)


class Scheduler:
    """`step_tokens` is at most the `max_chunk` that `tables` was made for, and at least
    `max_running`."""

    def __init__(
        self, tables: PageTables, *, max_running: int, max_waiting: int, step_tokens: int
    ) -> None:
        assert max_running <= step_tokens <= tables.max_chunk
        self.tables = tables
        self._max_running = max_running
        self._max_requests = max_running + max_waiting  # and as many in the background
        self._step_tokens = step_tokens
        self._waiting: list[Sequence] = []
        self._running: list[Sequence] = []
        self._live: dict[str, Sequence] = {}
        self._shares = Shares(), Shares()  # of the foreground, of the background
        self._arrivals = 0
        self.num_preempted = 0  # over all time

    @property
    def num_waiting(self) -> int:
        """Beside the background."""
        return sum(not sequence.is_background for sequence in self._waiting)

    @property
    def num_running(self) -> int:
        """Beside the background."""
        return sum(not sequence.is_background for sequence in self._running)

    @property
    def num_background(self) -> int:
        return len(self._running) + len(self._waiting) - self.num_running - self.num_waiting

    @property
    def has_work(self) -> bool:
        return bool(self._live)

    @property
    def sequences(self) -> Iterator[Sequence]:
        """All that wait or run, in order of arrival."""
        return iter(tuple(self._live.values()))

    def add(self, request: Request, seed: int) -> Sequence:
        """Queues the request; the order of calls is the order of arrival. Raises BadRequest or
        QueueFull."""
        self._check(request)
        kin = [s for s in self._live.values() if s.is_background == request.is_background]
        if len(kin) >= self._max_requests:
            raise QueueFull(len(kin), 1, self._max_requests)
        order = (request.is_background, request.priority, self._tag(request, kin), self._arrivals)
        salt = (request.cache_salt or "").encode(errors="surrogatepass")
        sequence = Sequence(request, seed, order, self.tables.open(salt))
        self._arrivals += 1
        self._live[request.id] = sequence
        insort(self._waiting, sequence, key=_order)
        return sequence

    def _tag(self, request: Request, kin: list[Sequence]) -> float:
        shares = self._shares[request.is_background]
        if not kin:
            shares.clear()
        floor = min((sequence.order[2] for sequence in kin), default=0.0)
        guess = estimate(len(request.prompt_ids), request.params)
        return shares.tag(request.tenant, guess, floor)

    def _check(self, request: Request) -> None:
        if request.id in self._live:
            raise BadRequest(f"{request.id!r} has not finished yet, choose another", "id")
        if not request.prompt_ids:
            raise BadRequest("it is empty, give at least one token", "prompt_ids")
        num_tokens, limit = len(request.prompt_ids), self.tables.max_tokens
        if num_tokens >= limit:
            raise BadRequest(
                f"{num_tokens} tokens and one to answer exceed the {limit} that the KV pages "
                "hold: shorten the prompt or allow more memory",
                "prompt_ids",
            )

    def plan(self, late: Collection[str] = ()) -> Step:
        """What to compute next: the next token of all that are decoding, then, in order, prompts
        and the forced tokens of answers, up to step_tokens in all, and up to SHORT of those that
        may soon give way. Sequences that are `late`, by id, keep their places and pages and are
        passed over. Empty only when there is no work, or all that run are late. Before it is
        called, every sequence that the last step sampled was given its token or finished, unless
        it was late."""
        firsts = [queue[0] for queue in (self._running, self._waiting) if queue]
        plan = _Plan(self._step_tokens, is_background=all(s.is_background for s in firsts))
        for sequence in [s for s in self._running if s.num_left == 1 and s.id not in late]:
            self._serve(sequence, plan)
        for sequence in [s for s in self._running if s.num_left > 1]:
            self._admit(plan, before=sequence.order)
            self._serve(sequence, plan)
        self._admit(plan)
        return plan.step()

    def _serve(self, sequence: Sequence, plan: "_Plan") -> None:
        """The next chunk of a running sequence; others, or in the end itself, give way to it."""
        if sequence in plan.preempted or plan.is_closed_to(sequence):
            return
        while room := self._room(sequence, plan):
            end = min(sequence.num_computed + room, len(sequence.tokens))
            try:
                self.tables.extend(sequence.table, end)
            except OutOfPages:
                if self._give_way(plan) is sequence:
                    return
            else:
                plan.serve(sequence, end)
                return

    def _room(self, sequence: Sequence, plan: "_Plan") -> int:
        """Tokens that the step still has for it."""
        if sequence.num_left == 1 or not self._gives_way_soon(sequence):
            return plan.tokens_left
        return min(plan.tokens_left, plan.short_left)

    def _gives_way_soon(self, sequence: Sequence) -> bool:
        """It may: a request of another tenant who was here lately would come before it."""
        is_background, _, tag, _ = sequence.order
        shares = self._shares[is_background]
        return is_background or shares.another_precedes(sequence.request.tenant, tag)

    def _give_way(self, plan: "_Plan") -> Sequence:
        """The last of the running does."""
        last = self._running.pop()
        self.tables.release(last.table)
        last.num_computed = 0
        last.num_preempted += 1
        self.num_preempted += 1
        insort(self._waiting, last, key=_order)
        plan.drop(last)
        return last

    def _admit(self, plan: "_Plan", before: _Order = _LAST) -> None:
        """Waiting sequences in their order: one that must wait lets nobody pass, and those that
        have just given way must wait."""
        while self._waiting and plan.tokens_left and not plan.is_short:
            sequence = self._waiting[0]
            if sequence.order > before or plan.is_closed_to(sequence):
                return
            if not self._room(sequence, plan):
                return
            if not self._make_place(sequence, plan):
                return
            if not self._begin(sequence, plan):
                return
            del self._waiting[0]
            insort(self._running, sequence, key=_order)
            self._serve(sequence, plan)

    def _make_place(self, sequence: Sequence, plan: "_Plan") -> bool:
        """Where all places are taken, the last of the running gives way to one that comes before
        it. What it computed stays findable, so that little is computed again."""
        if len(self._running) < self._max_running:
            return True
        if self._running[-1].order < sequence.order:
            return False
        self._give_way(plan)
        return True

    def _begin(self, sequence: Sequence, plan: "_Plan") -> bool:
        """Needs room for all tokens and the one to come, beside a page for each of the running to
        grow: it shall not be preempted as soon as it begins. The background makes room."""
        tables = self.tables
        searches = not sequence.wants_prompt_logits
        prefix = tables.find(sequence.table, sequence.tokens) if searches else tables.nothing()
        spare = sum(not plan.leaves_out(other) for other in self._running)
        while not tables.fits(prefix, len(sequence.tokens) + 1, spare):
            if not (self._running and plan.leaves_out(self._running[-1])):
                return False
            self._give_way(plan)
        tables.hold(sequence.table, prefix)
        sequence.num_computed = prefix.num_tokens
        if not sequence.num_preempted:
            sequence.num_read = sequence.cached_tokens = prefix.num_tokens
        return True

    def commit(self, step: Step, late: Collection[Chunk] = ()) -> None:
        """The step has run: what it computed may be shared, what no query sees again is given
        back. Sequences that finished meanwhile are passed over. The logits of `late` chunks were
        of no use yet: their last tokens are computed again."""
        for chunk in step.chunks:
            sequence = chunk.sequence
            if self._live.get(sequence.id) is sequence:
                sequence.num_computed = chunk.end - (chunk in late)
                self.tables.computed(sequence.table, sequence.tokens, sequence.num_computed)

    def append(self, sequence: Sequence, *token_ids: int) -> None:
        """The token chosen after a chunk that samples, and those known to follow it; `is_full` may
        hold from now on."""
        assert sequence.num_left == 0, f"{sequence} has no logits to choose a token from"
        for token_id in token_ids:
            assert not self.is_full(sequence), f"{sequence} should have finished"
            sequence.tokens.append(token_id)
            sequence.output_ids.append(token_id)

    def is_full(self, sequence: Sequence) -> bool:
        """No further token could be computed: finish it."""
        return len(sequence.tokens) >= self.tables.max_tokens

    def finish(self, sequence: Sequence) -> None:
        """Between two steps or while one runs, not between plan and run: the pages are gone, the
        full ones stay findable."""
        del self._live[sequence.id]
        queue = self._running if sequence in self._running else self._waiting
        queue.remove(sequence)
        self.tables.release(sequence.table)
        request = sequence.request
        true = cost(sequence.num_read, sequence.cached_tokens, len(sequence.output_ids))
        guess = estimate(sequence.num_prompt, request.params)
        self._shares[request.is_background].settle(request.tenant, guess, true)

    def cancel(self, id: str) -> Sequence | None:
        """Finishes the sequence, if there is one that waits or runs."""
        if (sequence := self._live.get(id)) is not None:
            self.finish(sequence)
        return sequence


class _Plan:
    """A step in the making, for the background or for all others."""

    def __init__(self, num_tokens: int, *, is_background: bool) -> None:
        self.tokens_left = num_tokens
        self.is_short = False  # of pages or places: a sequence it could serve has given way
        self._is_background = is_background
        self._answered: str | None = None  # tenant of a prompt that ends in this step
        self.preempted: list[Sequence] = []
        self._chunks: dict[Sequence, Chunk] = {}

    def serve(self, sequence: Sequence, end: int) -> None:
        start = sequence.num_computed
        self._chunks[sequence] = Chunk(sequence, start, end, end == len(sequence.tokens))
        self.tokens_left -= end - start
        if end == len(sequence.tokens) and end - start > 1 and sequence.is_prompt_left:
            self._answered = sequence.request.tenant

    @property
    def short_left(self) -> int:
        """Tokens that are left of SHORT, less the prompts that are in the step already."""
        sizes = (chunk.end - chunk.start for chunk in self._chunks.values())
        return max(0, SHORT - sum(size for size in sizes if size > 1))

    def leaves_out(self, sequence: Sequence) -> bool:
        return sequence.is_background and not self._is_background

    def is_closed_to(self, sequence: Sequence) -> bool:
        """Where a prompt ends in this step, its first token comes with the step's end. Prompts of
        other tenants, who had more, would delay it: they are left to the next step."""
        others = self._answered is not None and sequence.request.tenant != self._answered
        waits = others and sequence.num_left > 1 and sequence.is_prompt_left
        return waits or self.leaves_out(sequence)

    def drop(self, sequence: Sequence) -> None:
        self.is_short |= not self.leaves_out(sequence)
        self.preempted.append(sequence)
        if (chunk := self._chunks.pop(sequence, None)) is not None:
            self.tokens_left += chunk.end - chunk.start

    def step(self) -> Step:
        for sequence, chunk in self._chunks.items():
            sequence.num_read = max(sequence.num_read, min(chunk.end, sequence.num_prompt))
        return Step(tuple(self._chunks.values()), tuple(self.preempted))
