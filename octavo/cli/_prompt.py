"""Text that is piped in."""

import os
import select
import stat
import sys

import typer

from octavo.errors import BadRequest

PATIENCE = 2.0  # seconds in which a pipe must begin to speak when there is a prompt without it


def piped_text(prompt: str | None, patience: float = PATIENCE) -> str:
    """What to ask: what stdin holds, and `prompt` after an empty line. One final line break is the
    shell's, not the text's. Raises BadRequest where that is no text."""
    piped = _read() if prompt is None or _speaks(patience) else ""
    return "\n\n".join(part for part in (piped, prompt) if part)


def _read() -> str:
    try:
        text = sys.stdin.buffer.read().decode()
    except UnicodeDecodeError as error:
        raise BadRequest(
            f"byte {error.start} is not UTF-8: convert the text first, with iconv for example",
            "standard input",
        ) from error
    return text.removesuffix("\n").removesuffix("\r")


def _speaks(patience: float) -> bool:
    """Whether something is piped in. A pipe that somebody merely left open (over ssh, from another
    program) must not make us wait for good."""
    try:
        kind = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError, AttributeError):  # closed, or no file at all
        return False
    if stat.S_ISREG(kind):
        return True
    if not (stat.S_ISFIFO(kind) or stat.S_ISSOCK(kind)):
        return False
    if select.select([sys.stdin], [], [], patience)[0]:
        return True
    typer.echo("nothing came from standard input: going on without it", err=True)
    return False
