"""A response of OpenAI's, as an object and as the events it comes in.

    created queued? in_progress (the events of items)... completed | incomplete | failed | error

What somebody cancelled ends as `incomplete` with the status cancelled: there is no other word for
it. `error` is the end of the stream, not of the response: the server stops.
"""

from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct
from sse_starlette import ServerSentEvent

from octavo.errors import CapacityError, OctavoError
from octavo.server.calls import Reply, completed
from octavo.server.protocols._openai import problem
from octavo.server.protocols._openai_output import Output, Told
from octavo.types import Delta, Event, Finished, Json

Frames: TypeAlias = Iterator[ServerSentEvent]


class Script:
    """The events of one response, numbered from 0 without a gap, and what it has said so far."""

    def __init__(self, reply: Reply) -> None:
        self.is_over = False
        self._reply = reply
        self._number = 0
        self._waits = bool(reply.call.thread and reply.call.thread.is_background)
        self._output = Output(reply)

    def opening(self) -> Frames:
        status = "queued" if self._waits else "in_progress"
        yield self._at("created", status)
        yield self._at(status, status)

    def hear(self, event: Event) -> Frames:
        """Raises what `completed` raises, and then says nothing."""
        end = completed(event) if isinstance(event, Finished) else None
        if self._waits:
            self._waits = False
            yield self._at("in_progress", "in_progress")
        if isinstance(event, Delta):
            yield from self._events(self._output.hear(event))
        if end:
            yield from self._complete(end)

    def cancel(self) -> Frames:
        self.is_over = True
        yield from self._events(self._output.close("incomplete"))
        yield self._at("incomplete", "cancelled", self._output.items)

    def fail(self, error: OctavoError) -> Frames:
        self.is_over = True
        if isinstance(error, CapacityError):
            said = problem(error)["error"]
            yield self._numbered(
                "error", {name: said[name] for name in ("code", "message", "param")}
            )
            return
        yield from self._events(self._output.close("incomplete"))
        response = _response(self._reply, "failed", self._output.items)
        yield self._event("failed", response=failed(response, error))

    def _complete(self, end: Finished) -> Frames:
        self.is_over = True
        status = status_at(end)
        yield from self._events(self._output.finish(status))
        yield self._event(status, response=ended(self._reply, self._output.items, end))

    def _events(self, told: Told) -> Frames:
        for kind, fields in told:
            yield self._event(kind, **fields)

    def _at(self, event: str, status: str, output: Sequence[Json] = ()) -> ServerSentEvent:
        return self._event(event, response=_response(self._reply, status, output))

    def _event(self, kind: str, **fields: Any) -> ServerSentEvent:
        return self._numbered(f"response.{kind}", fields)

    def _numbered(self, kind: str, fields: Json) -> ServerSentEvent:
        data = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return _frame(kind, msgspec.json.encode(data))


class Said(Struct):
    """Of an event what whoever keeps it has to know."""

    type: str
    response: msgspec.Raw = msgspec.Raw()  # empty: it carries none

    @property
    def is_last(self) -> bool:
        return self.type in ("response.completed", "response.incomplete", "response.failed")


def frame(data: bytes) -> ServerSentEvent:
    """An event once more, out of its data."""
    return _frame(msgspec.json.decode(data, type=Said).type, data)


def _frame(kind: str, data: bytes) -> ServerSentEvent:
    return ServerSentEvent(data.decode(), event=kind, sep="\n")


def ended(reply: Reply, output: Sequence[Json], end: Finished) -> Json:
    status, usage, timing = status_at(end), end.usage, end.timing
    is_whole = status == "completed"
    took = timing.waiting + timing.prefill + timing.decode
    return _response(reply, status, output) | {
        "completed_at": int(reply.created + took) if is_whole else None,
        "incomplete_details": None if is_whole else {"reason": "max_output_tokens"},
        "seed": end.seed,
        "usage": {
            "input_tokens": usage.prompt_tokens,
            "input_tokens_details": {"cached_tokens": usage.cached_tokens, "cache_write_tokens": 0},
            "output_tokens": usage.completion_tokens,
            "output_tokens_details": {"reasoning_tokens": usage.reasoning_tokens},
            "total_tokens": usage.prompt_tokens + usage.completion_tokens,
        },
    }


def failed(response: Json, error: OctavoError) -> Json:
    """`response`, as one of which nothing more will come."""
    said = {"code": "server_error", "message": str(error)}
    return response | {"status": "failed", "error": said}


def status_at(end: Finished) -> str:
    return "incomplete" if end.reason == "length" else "completed"


def _response(reply: Reply, status: str, output: Sequence[Json]) -> Json:
    return {
        "id": reply.id,
        "object": "response",
        "created_at": reply.created,
        "completed_at": None,
        "status": status,
        "error": None,
        "incomplete_details": None,
        "model": reply.call.model,
        "output": output,
        "usage": None,
        **reply.call.repeated,
        "seed": reply.call.params.seed,
        "system_fingerprint": reply.fingerprint,
    }
