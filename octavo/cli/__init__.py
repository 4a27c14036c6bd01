"""The command line: one command per file, named as it is typed, found by being in this folder.

A file offers  command    a function that typer turns into a command (its docstring is the help),
                          or a typer.Typer with commands of its own

Owns what all commands share: finding them, and how an error, Ctrl-C or a closed pipe ends one.
Nothing heavy is imported before a command runs, so that the prompt comes back at once.
"""

import os
import sys
from io import TextIOWrapper
from typing import Annotated, Any

import typer
from typer.core import TyperGroup
from typer.main import get_command

from octavo.errors import BadConfig, BadRequest, OctavoError, UnknownName
from octavo.registry import entry, names

FAILED = 1  # at work: no network, a damaged file, a full disk
MISUSED = 2  # typer ends so too, where a flag is unknown or its value no number
INTERRUPTED = 130  # what shells report for a program that Ctrl-C ended
PIPE_CLOSED = 141  # and for one whose reader left


class Folder(TyperGroup):
    """The commands in the files of one folder, each imported when it is asked for."""

    folder = "octavo.cli"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.commands: dict[str, Any] = dict.fromkeys(names(self.folder))  # to list and suggest

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        try:
            command = entry(self.folder, cmd_name).command
        except UnknownName:
            return None
        if isinstance(command, typer.Typer):
            made: Any = get_command(command)
        else:
            alone = typer.Typer(add_completion=False, rich_markup_mode=None)
            alone.command(cmd_name)(command)
            made = get_command(alone)
        made.name = cmd_name
        return made


class Commands(Folder):
    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (BadConfig, BadRequest, UnknownName) as error:
            raise _refused(str(error), MISUSED) from error
        except KeyboardInterrupt as error:
            raise typer.Exit(INTERRUPTED) from error
        except BrokenPipeError as error:
            # Python flushes stdout once more when it ends: let that go nowhere.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(PIPE_CLOSED) from error
        except (OctavoError, OSError) as error:
            raise _refused(str(error), FAILED) from error
        except Exception as error:
            if ctx.params["traceback"] or _is_typers(error):
                raise
            hint = "this is a bug of Octavo; `octavo --traceback COMMAND ...` shows where it is"
            raise _refused(f"{type(error).__name__}: {error}; {hint}", FAILED) from error


def _is_typers(error: Exception) -> bool:
    """A wrong option and the like, which typer words and ends by itself."""
    return type(error).__module__.startswith(("typer.", "click."))


def _refused(sentence: str, code: int) -> typer.Exit:
    typer.secho(sentence, fg=typer.colors.RED, err=True)
    return typer.Exit(code)


def _show_version(asked: bool) -> None:  # noqa: FBT001 (typer calls it)
    if asked:
        from importlib.metadata import version

        typer.echo(f"octavo {version('octavo')}")
        raise typer.Exit


app = typer.Typer(
    cls=Commands,
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def _octavo(
    *,
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")
    ] = False,
    traceback: Annotated[
        bool, typer.Option("--traceback", help="Show where an unexpected error happened.")
    ] = False,
) -> None:
    """Octavo serves open-weight language models on the machine you have.

    octavo run "Why is the sky blue?"
    """


def main() -> None:
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # a letter that a terminal lacks ends no answer
            stream.reconfigure(errors="replace")
    app()
