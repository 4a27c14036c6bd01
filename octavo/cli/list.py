"""octavo list: the models that are here, and those with a name that could be."""

import typer

from octavo.cli._words import size
from octavo.loader import hub


def command() -> None:
    """List the models that are here, and those with a short name.

    \b
    Example:
        octavo list
    """
    here = dict(hub.installed())
    rows = [(name, size(path.stat().st_size), str(path)) for name, path in here.items()]
    rows += [
        (name, size(alias.size), f"not here: octavo pull {name}")
        for name, alias in hub.ALIASES.items()
        if name not in here
    ]
    width = max(len(name) for name, _, _ in rows)
    for name, bytes_, where in rows:
        typer.echo(f"{name:{width}}  {bytes_:>9}  {where}")
