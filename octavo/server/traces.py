"""Spans of requests, for OpenTelemetry. Imported only where traces are asked for.

    POST traceparent ─▶ chat smollm2 ──────────────────────────────────────▶
                        ├─ queue ──▶├─ prefill ──▶├─ decode ────────────────▶   for each answer

Owns the tracer. No span holds text of a request: neither prompts nor answers nor stop strings.
"""

import time
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from starlette.types import ASGIApp, Receive, Scope, Send

from octavo.errors import BadConfig
from octavo.server import gen_ai
from octavo.server.calls import Reply
from octavo.types import Chat, Delta, Event, Finished

MISSING = "it needs OpenTelemetry's packages: pip install '.[otel]' in Octavo's folder"
FAILURES = ("error", "timeout", "cancelled")  # reasons to finish

try:
    from opentelemetry import context, propagate, trace
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.trace import Span, SpanKind, StatusCode
except ImportError as error:
    raise BadConfig("traces", MISSING) from error


class Traces:
    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("octavo", version("octavo"))

    @classmethod
    def exported(cls) -> "Traces":
        """By OTLP over HTTP, where and as the OTEL_* environment variables say. Raises BadConfig
        where the exporter is not installed."""
        try:
            from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
            from opentelemetry.sdk.trace.export import BatchSpanProcessor
        except ImportError as error:
            raise BadConfig("traces", MISSING) from error
        provider = TracerProvider()  # flushes at exit
        provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
        return cls(provider)

    def open(self, reply: Reply) -> "TracedRequest":
        """Within the span that the caller is in, if it named one."""
        asked = dict(_asked(reply))
        name = f"{asked[gen_ai.OPERATION]} {reply.call.model}"
        span = self._tracer.start_span(name, kind=SpanKind.SERVER, attributes=asked)
        return TracedRequest(self._tracer, span, reply)


class TracedRequest:
    """Hears one reply, as journal.Entry does."""

    def __init__(self, tracer: trace.Tracer, span: Span, reply: Reply) -> None:
        self._tracer, self._span = tracer, span
        self._n, self._num_choices = reply.call.n, reply.num_choices
        self._begun = time.time_ns()
        self._has_begun_to_speak = False
        self._ends: dict[int, Finished] = {}

    def hear(self, index: int, event: Event) -> None:
        match event:
            case Delta() if not self._has_begun_to_speak:
                self._has_begun_to_speak = True
                seconds = (time.time_ns() - self._begun) / 1e9
                self._span.set_attribute(gen_ai.FIRST_CHUNK, seconds)
            case Finished():
                self._ends[index] = event
                self._trace_phases(index, event)

    def close(self) -> None:
        ends = [self._ends[index] for index in sorted(self._ends)]
        reasons: list[str] = [end.reason for end in ends]
        reasons += ["cancelled"] * (self._num_choices - len(ends))  # its client left
        prompts = [end.usage for index, end in self._ends.items() if index % self._n == 0]
        self._span.set_attributes(
            {
                gen_ai.FINISH_REASONS: reasons,
                gen_ai.INPUT_TOKENS: sum(usage.prompt_tokens for usage in prompts),
                gen_ai.CACHED_TOKENS: sum(usage.cached_tokens for usage in prompts),
                gen_ai.OUTPUT_TOKENS: sum(end.usage.completion_tokens for end in ends),
            }
        )
        for failure in set(reasons) & set(FAILURES):
            self._span.set_attribute(gen_ai.ERROR, failure)
            self._span.set_status(StatusCode.ERROR)
        self._span.end()

    def _trace_phases(self, index: int, end: Finished) -> None:
        """Their lengths are the engine's; they begin when the request did."""
        within, start = trace.set_span_in_context(self._span), self._begun
        timing = end.timing
        phases = {"queue": timing.waiting, "prefill": timing.prefill, "decode": timing.decode}
        for name, seconds in phases.items():
            span = self._tracer.start_span(
                name, within, attributes={gen_ai.CHOICE: index}, start_time=start
            )
            start += round(seconds * 1e9)
            span.end(start)


def _asked(reply: Reply) -> Iterator[tuple[str, Any]]:
    call, params = reply.call, reply.call.params
    is_chat = isinstance(call.prompts[0], Chat)
    given = {
        gen_ai.OPERATION: gen_ai.CHAT if is_chat else gen_ai.TEXT,
        gen_ai.PROVIDER: "octavo",
        gen_ai.MODEL: call.model,
        gen_ai.RESPONSE_MODEL: call.model,
        gen_ai.RESPONSE_ID: reply.id,
        gen_ai.CHOICES: reply.num_choices,
        gen_ai.STREAM: call.stream,
        gen_ai.MAX_TOKENS: params.max_tokens,
        gen_ai.TEMPERATURE: params.temperature,
        gen_ai.TOP_P: params.top_p,
        gen_ai.TOP_K: params.top_k,
        gen_ai.SEED: params.seed,
        gen_ai.FREQUENCY_PENALTY: params.frequency_penalty,
        gen_ai.PRESENCE_PENALTY: params.presence_penalty,
    }
    yield from ((name, value) for name, value in given.items() if value is not None)


class Continued:
    """Middleware: what a request does belongs to the trace that its headers name."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        sent = scope.get("headers", [])  # a lifespan has none
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in sent}
        token = context.attach(propagate.extract(headers))
        try:
            await self._app(scope, receive, send)
        finally:
            context.detach(token)
