"""The engine's core: requests in, events out, one step at a time, in one thread at a time.

Owns the scheduler, the answers under way and the clock. Knows no thread, no event loop and no
protocol.

    add ──▶ scheduler ──plan──▶ runner ──outcomes──▶ scheduler.commit ──▶ answers ──▶ events

A request that `add` took ends in exactly one Finished, whatever happens to it.
"""

import logging
import secrets
from collections import Counter
from collections.abc import Iterable
from functools import cached_property
from time import monotonic

from octavo.config import Config, Plan
from octavo.engine.answer import Answer, End
from octavo.engine.chat_format import ChatFormat
from octavo.engine.constraints import NOTHING, Constraints
from octavo.engine.loading import Loaded, fingerprint, load
from octavo.engine.runner import Outcome, Runner
from octavo.errors import BadRequest, PromptTooLong, StepFailed
from octavo.grammar.compiled import Compiled
from octavo.grammar.matcher import Grammars
from octavo.kvcache.tables import PageTables
from octavo.loader.tokenizer import Tokenizer
from octavo.scheduler.scheduler import Scheduler, Step
from octavo.scheduler.sequence import Sequence
from octavo.types import Delta, Event, Load, PageCounts, Request, SamplingParams

logger = logging.getLogger(__name__)

Told = tuple[str, Event]  # request id, what it is told


class Engine:
    def __init__(self, config: Config, loaded: Loaded | None = None) -> None:
        """Loads the model, which may fetch it, unless it is given. Raises NotFetched,
        BadCheckpoint, BadConfig."""
        loaded = load(config) if loaded is None else loaded
        self.config = config
        self.name: str = loaded.name
        self.plan: Plan = loaded.plan
        self.tokenizer: Tokenizer = loaded.tokenizer
        self.chat_format = ChatFormat(loaded.tokenizer, config.tool_dialect)
        self._loaded = loaded
        tables = PageTables(
            loaded.groups,
            loaded.plan.num_pages,
            max_chunk=config.step_tokens,
            prefix_cache=config.prefix_cache,
        )
        self._scheduler = Scheduler(
            tables,
            max_running=config.max_running,
            max_waiting=config.max_waiting,
            step_tokens=config.step_tokens,
        )
        self.grammars = Grammars(loaded.tokenizer, loaded.vocab_size)
        self.constraints = Constraints(self.grammars)
        self._runner = Runner(
            loaded.program,
            len(loaded.groups),
            loaded.limits,
            loaded.plan.max_context,
            self.constraints,
        )
        self._answers: dict[str, Answer] = {}
        self._deadlines: dict[str, float] = {}  # of the requests that have one
        self._untold: list[Told] = []
        self._batch_size = self._prompt_tokens = self._cached_tokens = 0
        self._step_failures: Counter[str] = Counter()

    @property
    def max_context(self) -> int:
        """Tokens of a prompt and its answer together."""
        return self.plan.max_context

    @cached_property
    def fingerprint(self) -> str:
        """Same fingerprint, same seed, same request: same tokens. The first look reads the file."""
        return fingerprint(self._loaded)

    @property
    def has_work(self) -> bool:
        return self._scheduler.has_work or bool(self._untold)

    @property
    def num_waiting(self) -> int:
        return self._scheduler.num_waiting

    @property
    def num_running(self) -> int:
        return self._scheduler.num_running

    @property
    def load(self) -> Load:
        """Any thread may look."""
        prompted, found = self._prompt_tokens, self._cached_tokens
        return Load(
            num_running=self.num_running,
            num_waiting=self.num_waiting,
            num_background=self._scheduler.num_background,
            batch_size=self._batch_size,
            hit_ratio=found / prompted if prompted else 0.0,
            pages=self.pages,
            step_failures=dict(self._step_failures),
        )

    @property
    def pages(self) -> tuple[PageCounts, ...]:
        """Per KV group."""
        return self._scheduler.tables.counts()

    def check(self, request: Request) -> None:
        """Raises BadRequest for what no engine of this model could serve. Any thread may call;
        a grammar that is not kept is compiled first."""
        params, prompt = request.params, request.prompt_ids
        if not prompt:
            raise BadRequest("it is empty, give at least one token", "prompt")
        if len(prompt) >= self.max_context:
            raise PromptTooLong(len(prompt), self.max_context, "prompt")
        self._check_tokens("prompt", prompt)
        self._check_tokens("stop_token_ids", params.stop_token_ids)
        self._check_tokens("logit_bias", params.logit_bias)
        if request.reading and request.reading.max_thought and params.logprobs is not None:
            problem = "a thought that is closed by force has none there, leave one of them out"
            raise BadRequest(problem, "logprobs")
        self.compile(params)

    def compile(self, params: SamplingParams) -> Compiled | None:
        """What an answer is held to; kept at least as long as the caller keeps it. Any thread may
        call. Raises BadRequest."""
        return None if params.constraint is None else self.grammars.compile(params.constraint)

    def _check_tokens(self, field: str, token_ids: Iterable[int]) -> None:
        size = self._loaded.vocab_size
        for token_id in token_ids:
            if not 0 <= token_id < size:
                raise BadRequest(f"token {token_id} is not in [0, {size})", field)

    def add(self, request: Request) -> Sequence:
        """Queues the request; the sequence returned may be read, not changed. Raises BadRequest or
        QueueFull, and then has changed nothing."""
        self.check(request)
        seed = request.params.seed
        seed = secrets.randbits(63) if seed is None else seed
        sequence = self._scheduler.add(request, seed)
        self.constraints.open(sequence)
        answer = Answer(sequence, self.tokenizer, self.chat_format, self.max_context, monotonic())
        self._answers[request.id] = answer
        if answer.deadline is not None:
            self._deadlines[request.id] = answer.deadline
        return sequence

    def cancel(self, id: str) -> None:
        """Its pages are free at once; the next step tells its Finished. Nothing where it has
        finished already."""
        if self._scheduler.cancel(id) is not None:
            self._tell_end(id, End("cancelled"))

    def step(self) -> list[Told]:
        """Computes one step, if there is work, and returns all that is new."""
        self._end_late()
        if self._scheduler.has_work:
            step = self._scheduler.plan(self.constraints.late)
            if step.chunks:
                self._compute(step)
            else:
                self.constraints.wait()
        told, self._untold = self._untold, []
        return told

    def _compute(self, step: Step) -> None:
        now = monotonic()
        self._batch_size = len(step.chunks)
        for chunk in step.chunks:
            self._answers[chunk.sequence.id].begin(now)
        try:
            outcomes = self._runner.run(step)
        except StepFailed as error:
            logger.exception("a step failed")
            self._step_failures[type(error.__cause__ or error).__name__] += 1
            self._fail(step, str(error))
        else:
            self._scheduler.commit(step, [out.chunk for out in outcomes if out.is_late])
            self._tell(outcomes)

    def _end_late(self) -> None:
        """The requests whose time is over, running or waiting."""
        now = monotonic()
        for id in [id for id, deadline in self._deadlines.items() if deadline <= now]:
            self._scheduler.cancel(id)
            timeout = self._answers[id].sequence.request.timeout
            problem = f"timeout: {timeout:g} s have passed: give it longer, or ask for less"
            self._tell_end(id, End("timeout", problem=problem))

    def _tell(self, outcomes: Iterable[Outcome]) -> None:
        now = monotonic()
        for outcome in outcomes:
            sequence = outcome.chunk.sequence
            if outcome.error:
                self._end_failed(sequence, outcome.error)
                continue
            try:
                self._tell_of(outcome, now)
            except StepFailed as error:
                self._end_failed(sequence, str(error))

    def _tell_of(self, outcome: Outcome, now: float) -> None:
        sequence, following = outcome.chunk.sequence, NOTHING
        if outcome.sampled:
            following = self.constraints.follow(sequence, outcome.sampled.token_id)
        answer = self._answers[sequence.id]
        events = answer.take(outcome, following, now)
        if closing := answer.closing:
            events += answer.close_thought(self.constraints.follow(sequence, *closing))
        if token_ids := [
            i for event in events if isinstance(event, Delta) for i in event.token_ids
        ]:
            self._scheduler.append(sequence, *token_ids)
        self._untold += [(sequence.id, event) for event in events]
        if answer.end:
            self._scheduler.finish(sequence)
            self._tell_end(sequence.id, answer.end)

    def _fail(self, step: Step, problem: str) -> None:
        """The requests of the step end, the others go on."""
        for chunk in step.chunks:
            self._end_failed(chunk.sequence, problem)

    def _end_failed(self, sequence: Sequence, problem: str) -> None:
        self._scheduler.finish(sequence)
        self._tell_end(sequence.id, End("error", problem=problem))

    def _tell_end(self, id: str, end: End) -> None:
        self._deadlines.pop(id, None)
        self.constraints.close(id)
        finished = self._answers.pop(id).finished(end, monotonic())
        self._prompt_tokens += finished.usage.prompt_tokens
        self._cached_tokens += finished.usage.cached_tokens
        self._untold.append((id, finished))
