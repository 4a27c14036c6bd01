"""octavo chat: a conversation in the terminal."""

import contextlib
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from octavo.cli import INTERRUPTED
from octavo.cli._flags import flags
from octavo.cli._reply import Screen, receive, speed, to_stdout
from octavo.config import Config
from octavo.errors import BadRequest, OctavoError
from octavo.loader import hub
from octavo.types import Message, SamplingParams

if TYPE_CHECKING:
    from octavo.engine.llm import Completion, Stream

QUITS = 2  # Ctrl-C so many times in a row, at the prompt


@flags("config", Config, leave={"model", "max_running", "max_waiting", "step_tokens", "home"})
@flags(
    "params",
    SamplingParams,
    leave={"logit_bias", "logprobs", "prompt_logprobs"},
    temperature=0.7,
    top_p=0.95,
)
def command(
    model: Annotated[str, typer.Argument(help="A model's name or path.")] = hub.DEFAULT,
    *,
    system: Annotated[str | None, typer.Option(help="What the model is told first.")] = None,
    params: dict[str, Any],
    config: dict[str, Any],
) -> None:
    """Talk to a model; /help lists the commands of a conversation.

    Ctrl-C ends a reply where it is, twice at the prompt ends the conversation.

    \b
    Examples:
        octavo chat
        octavo chat smollm2 --system "You are terse." --temperature 0
    """
    asked = SamplingParams(**params)
    from octavo.engine.llm import LLM

    llm = LLM(model, **config, max_running=1)
    if not llm.tokenizer.has_chat_template:
        raise BadRequest("it has no chat template, it continues text: use octavo run", model)
    chat = Chat(lambda messages: llm.stream(messages, asked), system)
    typer.secho(f"{model}: /help for help, /exit to leave", dim=True, err=True)
    with _line_editing():
        _converse(chat)


@dataclass(slots=True)
class Chat:
    """What was said, and the /commands, each a method of that name."""

    ask: Callable[[list[Message]], "Stream"]
    instruction: str | None
    turns: list[Message] = field(default_factory=list)
    last: "Completion | None" = None

    def messages(self) -> list[Message]:
        first = [Message("system", self.instruction)] if self.instruction else []
        return first + self.turns

    def say(self, text: str) -> None:
        """One turn; what cannot be answered is taken back."""
        self.turns.append(Message("user", text))
        try:
            self.last = receive(self.ask(self.messages()), Screen())
        except BaseException:
            self.turns.pop()
            raise
        self.turns.append(Message("assistant", self.last.text, self.last.reasoning))
        to_stdout("\n")

    def help(self, _: str) -> str:
        """/help           this"""
        return "\n".join([*(act.__doc__ or "" for act in COMMANDS.values()), LEAVE])

    def clear(self, _: str) -> str:
        """/clear          forget what was said"""
        self.turns.clear()
        return "forgotten"

    def system(self, text: str) -> str:
        """/system TEXT    forget, and tell the model TEXT first from now on"""
        self.instruction = text or None
        self.turns.clear()
        return "a new conversation" + ("" if text else ", with no instruction")

    def stats(self, _: str) -> str:
        """/stats          times and counts of the last reply"""
        return speed(self.last) if self.last else "there was no reply yet"

    def save(self, name: str) -> str:
        """/save FILE      write the conversation as JSON"""
        from octavo.loader.template import message_data

        said = [message_data(turn) for turn in self.messages()]
        try:
            Path(name).write_text(json.dumps(said, ensure_ascii=False, indent=2) + "\n")
        except OSError as error:
            return f"{name or 'FILE'} was not written ({error.strerror}): /save FILE"
        return f"{len(said)} messages are in {name}"


COMMANDS = {
    act.__name__: act for act in (Chat.clear, Chat.help, Chat.save, Chat.stats, Chat.system)
}
LEAVE = "/exit           leave; so does Ctrl-D"


def _converse(chat: Chat) -> None:
    interrupts = 0
    while interrupts < QUITS:
        try:
            line = _read_line()
        except KeyboardInterrupt:
            interrupts += 1
            typer.echo("\nonce more leaves" if interrupts < QUITS else "", err=True)
            continue
        interrupts = 0
        if line is None or line == "/exit":
            return
        if line:
            _take(chat, line)
    raise typer.Exit(INTERRUPTED)


def _read_line() -> str | None:
    """None at the end."""
    try:
        return input(">>> " if sys.stdin.isatty() else "").strip()
    except EOFError:
        return None
    except UnicodeDecodeError as error:
        raise BadRequest("it is not UTF-8: convert it first", "standard input") from error


def _take(chat: Chat, line: str) -> None:
    if not line.startswith("/"):
        try:
            chat.say(line)
        except OctavoError as error:  # too long for the context, for example: one may go on
            typer.secho(str(error), fg=typer.colors.RED, err=True)
        return
    name, _, rest = line[1:].partition(" ")
    act = COMMANDS.get(name)
    said = act(chat, rest.strip()) if act else f"there is no /{name}: /help lists what there is"
    typer.secho(said, dim=True, err=True)


@contextlib.contextmanager
def _line_editing() -> Any:
    """Arrow keys, and the lines of earlier conversations."""
    try:
        import readline
    except ImportError:  # some builds of Python have none: then lines are plain
        yield
        return
    file = hub.home() / "chat_history"
    with contextlib.suppress(OSError):  # none yet
        readline.read_history_file(file)
    readline.set_history_length(1000)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # a folder that may not be written costs no more
            file.parent.mkdir(parents=True, exist_ok=True)
            readline.write_history_file(file)
