"""What happened to the newest requests: what /v1/requests/{id}/explain tells, and what is counted.

Owns the entries of the last MAX_KEPT replies, and of as many in the background. Knows events, but
no protocol and no HTTP.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from time import monotonic

from octavo.errors import UnknownName
from octavo.server.calls import Reply
from octavo.server.metrics import Metrics
from octavo.server.running import Listener
from octavo.types import Delta, Event, Finished, Json

MAX_KEPT = 1000


class Journal:
    def __init__(
        self, metrics: Metrics, listeners: Sequence[Callable[[Reply], Listener]] = ()
    ) -> None:
        """Each of `listeners` makes one of a reply, which hears and is closed with its entry."""
        self.metrics, self._listeners = metrics, listeners
        # Two, by `in_background`: a batch of many lines pushes nobody else's entries out.
        self._entries = OrderedDict[str, Entry](), OrderedDict[str, Entry]()

    def open(
        self,
        reply: Reply,
        tenant: str,
        *,
        in_background: bool,
    ) -> "Entry":
        """The entry is explained to its tenant alone. Where a listener raises, there is none."""
        entry = Entry(reply, tenant, self.metrics, in_background=in_background)
        with ExitStack() as made:
            for listener in self._listeners:
                entry.listeners.append(listener(reply))
                made.callback(entry.listeners[-1].close)
            made.pop_all()
        entries = self._entries[in_background]
        entries[reply.id] = entry
        if len(entries) > MAX_KEPT:
            entries.popitem(last=False)
        return entry

    def explain(self, id: str, tenant: str) -> Json:
        """Raises UnknownName."""
        foreground, background = self._entries
        entry = foreground.get(id) or background.get(id)
        if entry is None or entry.tenant != tenant:
            raise UnknownName(f"the journal of the last {MAX_KEPT} requests", id[:100], close=[])
        return entry.explained()


class Entry:
    """Of one reply. Whoever opens it closes it."""

    def __init__(self, reply: Reply, tenant: str, metrics: Metrics, *, in_background: bool) -> None:
        # Not the reply: it holds the prompt.
        self._head = {
            "id": reply.id,
            "object": "request.explanation",
            "created": reply.created,
            "model": reply.call.model,
            "system_fingerprint": reply.fingerprint,
            "priority": reply.call.priority,
            "background": in_background,
        }
        self._in_background = in_background
        self.tenant, self._metrics = tenant, metrics
        self.listeners: list[Listener] = []
        self._begun = monotonic()
        n = reply.call.n
        self._choices = [_Choice(len(reply.prompt_ids[k // n])) for k in range(reply.num_choices)]

    def hear(self, index: int, event: Event) -> None:
        now, choice = monotonic(), self._choices[index]
        match event:
            case Delta(token_ids=ids) if ids:
                if not self._in_background:
                    self._time(choice.last, now)
                choice.last = now
                choice.num_tokens += len(ids)
            case Finished():
                choice.end = event
                self._metrics.finished(event)
                if not self._in_background:
                    self._metrics.took(event.timing, now - self._begun)
        for listener in self.listeners:
            listener.hear(index, event)

    def _time(self, last: float | None, now: float) -> None:
        if last is None:
            self._metrics.first_token(now - self._begun)
        else:
            self._metrics.next_token(now - last)

    def close(self) -> None:
        for choice in self._choices:
            if choice.end is None and not choice.was_left:
                choice.was_left = True
                self._metrics.left()
        while self.listeners:
            self.listeners.pop().close()

    def explained(self) -> Json:
        choices = [
            {"index": index, **choice.explained()} for index, choice in enumerate(self._choices)
        ]
        return self._head | {"choices": choices}


class _Choice:
    def __init__(self, num_prompt: int) -> None:
        self.num_prompt = num_prompt
        self.num_tokens = 0
        self.last: float | None = None  # when its last token was heard
        self.end: Finished | None = None
        self.was_left = False

    def explained(self) -> Json:
        if self.end is None:
            state = "left" if self.was_left else "queued" if self.last is None else "generating"
            tokens = {"prompt": self.num_prompt, "completion": self.num_tokens}
            return {"state": state, "tokens": tokens}
        usage, timing = self.end.usage, self.end.timing
        return {
            "state": "finished",
            "finish_reason": self.end.reason,
            "error": self.end.error,
            "seed": self.end.seed,
            "seconds": {
                "queue": timing.waiting,
                "prefill": timing.prefill,
                "decode": timing.decode,
            },
            "tokens": {
                "prompt": usage.prompt_tokens,
                "cached": usage.cached_tokens,
                "computed": usage.prompt_tokens - usage.cached_tokens,
                "completion": usage.completion_tokens,
            },
            "pages": timing.pages,
            "preemptions": timing.preemptions,
        }
