"""octavo serve: a model over HTTP."""

from enum import Enum
from socket import socket
from typing import Annotated, Any

import typer

from octavo.cli._flags import flags
from octavo.cli._words import size
from octavo.config import Config, Plan
from octavo.errors import BadConfig
from octavo.loader import hub

LONGEST_DRAIN = 24 * 3600.0  # seconds


class UnknownFieldsAre(Enum):
    """What a request with a field that nobody knows meets."""

    NAMED = "name"
    REFUSED = "refuse"


class MetricNames(Enum):
    """octavo/server/metrics.py has them all."""

    OCTAVO = "octavo"
    VLLM = "vllm"


@flags("config", Config, leave={"model", "home"})
def command(
    model: Annotated[str, typer.Argument(help="A model's name or path.")] = hub.DEFAULT,
    *,
    host: Annotated[str, typer.Option(help="Where to listen; 0.0.0.0 is everywhere.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="0 takes a free one and names it.")] = 8000,
    allow_anonymous: Annotated[
        bool, typer.Option("--allow-anonymous", help="Serve callers without a key, from anywhere.")
    ] = False,
    cors_origin: Annotated[
        list[str] | None,
        typer.Option(help="Of a web page that may call from a browser; several times, * for all."),
    ] = None,
    drain_seconds: Annotated[
        float, typer.Option(help="What runs at the end may go on for so long, a day at most.")
    ] = 5.0,
    unknown_fields: Annotated[
        UnknownFieldsAre, typer.Option(help="Name them in the reply, or refuse the request.")
    ] = UnknownFieldsAre.NAMED,
    metrics_compat: Annotated[
        MetricNames, typer.Option(help="Whose names /metrics uses.")
    ] = MetricNames.OCTAVO,
    log_requests: Annotated[
        bool, typer.Option("--log-requests", help="Log every prompt and answer, word for word.")
    ] = False,
    traces: Annotated[
        bool,
        typer.Option("--traces", help="Send OpenTelemetry traces to where OTEL_* variables say."),
    ] = False,
    config: dict[str, Any],
) -> None:
    """Serve a model over HTTP, in OpenAI's and Anthropic's shapes.

    Ctrl-C and SIGTERM let what runs finish for --drain-seconds, a second one does not.

    \b
    Examples:
        octavo serve
        octavo serve gemma3-270m --port 8080 --memory 2GiB --max-context 4096
        curl http://127.0.0.1:8000/v1/models
    """
    asked = Config(model, **config)
    from octavo.engine.async_engine import AsyncEngine
    from octavo.engine.engine import Engine
    from octavo.server.exchange import UnknownFields
    from octavo.server.gate import Gate, is_loopback
    from octavo.server.keys import Keys
    from octavo.server.process import Server, listen, raise_file_limit
    from octavo.server.state import State

    state = State(hub.home() / "state.db")
    keys = Keys(State(state.path))  # who asks does not wait for what others write
    is_local = is_loopback(host)
    if not (keys.are_there or allow_anonymous or is_local):
        raise _unguarded(host)
    _check_drain(drain_seconds)
    raise_file_limit()
    heard = _heard(log_requests=log_requests, traces=traces)
    origins = cors_origin or ()
    gate = Gate(keys, allow_anonymous=allow_anonymous, is_local=is_local, origins=origins)
    with listen(host, port) as listener:  # a port that is taken is found before the model loads
        engine = Engine(asked)
        typer.echo(f"{engine.name} at {_url(listener)}", err=True)
        typer.echo(_memory(engine.plan), err=True)
        fields = UnknownFields(are_refused=unknown_fields is UnknownFieldsAre.REFUSED)
        server = Server(
            AsyncEngine(engine),
            drain_seconds,
            gate=gate,
            state=state,
            unknown_fields=fields,
            metric_names=metrics_compat.value,
            cors_origins=origins,
            **heard,
        )
        server.run(sockets=[listener])


def _unguarded(host: str) -> BadConfig:
    problem = "others reach it and no key is asked for: make one with `octavo keys create`"
    return BadConfig("host", f"{host}: {problem}, or give --allow-anonymous")


def _check_drain(seconds: float) -> None:
    """Raises BadConfig."""
    if not 0 <= seconds <= LONGEST_DRAIN:  # nan is not, either
        problem = f"{seconds:g} is not in [0, {LONGEST_DRAIN:g}]: give seconds within"
        raise BadConfig("drain_seconds", problem)


def _url(listener: socket) -> str:
    host, port, *_ = listener.getsockname()
    return f"http://{f'[{host}]' if ':' in host else host}:{port}/v1"


def _heard(*, log_requests: bool, traces: bool) -> dict[str, Any]:
    """Options of create_app for who else hears of requests. Raises BadConfig."""
    listeners: list[Any] = []
    middleware: list[Any] = []
    if log_requests:
        import logging

        from octavo.server.request_log import LoggedRequest

        logging.basicConfig()
        listeners.append(LoggedRequest)
    if traces:
        from starlette.middleware import Middleware

        from octavo.server.traces import Continued, Traces

        listeners.append(Traces.exported().open)
        middleware.append(Middleware(Continued))
    return {"listeners": listeners, "middleware": middleware}


def _memory(plan: Plan) -> str:
    used = plan.weight_bytes + plan.buffer_bytes + plan.page_bytes
    parts = {"weights": plan.weight_bytes, "buffers": plan.buffer_bytes, "pages": plan.page_bytes}
    return (
        f"memory {size(used)} of {size(plan.memory)} allowed: "
        + " + ".join(f"{name} {size(num_bytes)}" for name, num_bytes in parts.items())
        + f"; context {plan.max_context} tokens, {plan.threads} threads"
    )
