"""octavo serve: a model over HTTP."""

from typing import Annotated, Any

import typer

from octavo.cli._flags import flags
from octavo.cli._words import size
from octavo.config import Config, Plan
from octavo.loader import hub


@flags("config", Config, leave={"model", "home"})
def command(
    model: Annotated[str, typer.Argument(help="A model's name or path.")] = hub.DEFAULT,
    *,
    host: Annotated[str, typer.Option(help="Where to listen; 0.0.0.0 is everywhere.")] = (
        "127.0.0.1"
    ),
    port: Annotated[int, typer.Option(help="0 takes a free one and names it.")] = 8000,
    config: dict[str, Any],
) -> None:
    """Serve a model over HTTP, in OpenAI's shapes.

    Ctrl-C lets what runs finish for a few seconds, a second one does not.

    \b
    Examples:
        octavo serve
        octavo serve gemma3-270m --port 8080 --memory 2GiB --max-context 4096
        curl http://127.0.0.1:8000/v1/models
    """
    asked = Config(model, **config)
    from octavo.engine.async_engine import AsyncEngine
    from octavo.engine.engine import Engine
    from octavo.server.process import Server, listen

    with listen(host, port) as listener:  # a port that is taken is found before the model loads
        engine = Engine(asked)
        listener.listen()  # whoever calls once the address is said is heard as soon as we can
        address = listener.getsockname()
        name = f"[{address[0]}]" if ":" in address[0] else address[0]
        typer.echo(f"{engine.name} at http://{name}:{address[1]}/v1", err=True)
        typer.echo(_memory(engine.plan), err=True)
        Server(AsyncEngine(engine)).run(sockets=[listener])


def _memory(plan: Plan) -> str:
    used = plan.weight_bytes + plan.buffer_bytes + plan.page_bytes
    parts = {"weights": plan.weight_bytes, "buffers": plan.buffer_bytes, "pages": plan.page_bytes}
    return (
        f"memory {size(used)} of {size(plan.memory)} allowed: "
        + " + ".join(f"{name} {size(num_bytes)}" for name, num_bytes in parts.items())
        + f"; context {plan.max_context} tokens, {plan.threads} threads"
    )
