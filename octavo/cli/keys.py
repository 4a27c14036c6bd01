"""octavo keys: who may use the server, and how much."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from octavo.errors import BadConfig
from octavo.loader import hub

if TYPE_CHECKING:
    from octavo.server.keys import Keys

command = typer.Typer(no_args_is_help=True, add_completion=False, rich_markup_mode=None)


@command.callback()
def _keys_command() -> None:
    """Make, list and revoke the API keys of `octavo serve`.

    \b
    Examples:
        octavo keys create alice
        octavo keys list
        octavo keys revoke 1f2e3d4c
    """


@command.command()
def create(
    name: Annotated[str, typer.Argument(help="Whose key it is; for the list.")],
    *,
    requests_per_minute: Annotated[int | None, typer.Option(help="No limit if not given.")] = None,
    tokens_per_minute: Annotated[
        int | None, typer.Option(help="Of prompts, unless cached, and of answers.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option(help="Requests that run or wait at a time.")
    ] = None,
    priority: Annotated[int, typer.Option(help="Of its requests; lower runs first.")] = 0,
) -> None:
    """Make a key. It is shown this once, and stored as a hash.

    \b
    Examples:
        octavo keys create alice
        octavo keys create batch --tokens-per-minute 20000 --concurrency 2 --priority 10
    """
    if not name.strip() or not name.isprintable():
        raise BadConfig("name", f"{name!r} cannot be told in a list: give one line of text")
    from octavo.server.keys import Limits

    limits = Limits(requests_per_minute, tokens_per_minute, concurrency, priority)
    key, text = _keys().create(name, limits)
    typer.echo(f"key {key.id} of {name}; it is not shown again:", err=True)
    typer.echo(text)


@command.command("list")
def list_keys() -> None:
    """List the keys, without their secrets."""
    keys = _keys().all()
    if not keys:
        typer.echo("no keys: `octavo keys create NAME` makes one", err=True)
    for key in keys:
        made = time.strftime("%Y-%m-%d", time.localtime(key.created))
        limits = [
            f"{value:,} {what}"
            for value, what in (
                (key.limits.requests_per_minute, "requests/min"),
                (key.limits.tokens_per_minute, "tokens/min"),
                (key.limits.concurrency, "at a time"),
            )
            if value is not None
        ]
        limits += [f"priority {key.limits.priority}"] if key.limits.priority else []
        typer.echo(f"{key.id}  {made}  {key.name}  {', '.join(limits) or 'no limits'}")


@command.command()
def revoke(id: Annotated[str, typer.Argument(help="As `octavo keys list` shows it.")]) -> None:
    """Revoke a key, from its next request on."""
    key = _keys().revoke(id)
    typer.echo(f"revoked {key.id} of {key.name}", err=True)


def _keys() -> "Keys":
    from octavo.server.keys import Keys
    from octavo.server.state import State

    return Keys(State(hub.home() / "state.db"))
