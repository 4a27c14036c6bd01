"""octavo bench: one benchmark per file of octavo/bench, each with a `command` of its own."""

import typer

from octavo.cli import Folder


class Benchmarks(Folder):
    folder = "octavo.bench"


command = typer.Typer(
    cls=Benchmarks, no_args_is_help=True, add_completion=False, rich_markup_mode=None
)


@command.callback()
def _bench() -> None:
    """Measure speed, against the machine's limits and against peers.

    \b
    Examples:
        octavo bench roofline
        octavo bench offline smollm2
    """
