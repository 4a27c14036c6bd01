"""Tools, whoever asks: their definitions, the choice among them, calls and results, all checked.

Knows no protocol's spelling: who calls gives the place of each thing in it, for the errors.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

import msgspec

from octavo.errors import BadRequest
from octavo.types import Delta, Json, Message, Tool, ToolCall, Tools

MAX_TOOLS = 1024
_NAME = re.compile(r"[A-Za-z0-9_.-]{1,128}")
_NO_ARGUMENTS: Json = {"type": "object", "properties": {}, "additionalProperties": False}

# required: the answer is calls. named: it is one call, of the tool that has a name.
Mode = Literal["auto", "none", "required", "named"]


def tool(name: str, description: str | None, parameters: Any, *, where: str, schema: str) -> Tool:
    """`where` the definition stands, and the name of its field that is the schema. Raises
    BadRequest."""
    if not _NAME.fullmatch(name):
        problem = f"{name[:80]!r} is not 1 to 128 letters, digits, '_', '-' and '.'"
        raise BadRequest(problem, f"{where}.name")
    field = f"{where}.{schema}"
    if parameters is None:
        parameters = _NO_ARGUMENTS
    if not isinstance(parameters, dict):
        raise BadRequest("it is no JSON Schema, give an object", field)
    kind = parameters.get("type", "object")
    if kind != "object":
        problem = f"arguments are an object, not {msgspec.json.encode(kind).decode()[:80]}"
        raise BadRequest(problem, f"{field}.type")
    return Tool(name, description, {"type": "object", **parameters}, field)


def offered(
    tools: Sequence[Tool], mode: Mode, names: Sequence[str] | None, *, is_parallel: bool = True
) -> Tools | None:
    """What a model is told of, and may or must call: all tools, or those of these `names`. None
    where it is told of none. Raises BadRequest."""
    known = _by_name(tools)
    for name in names or ():
        if name not in known:
            raise BadRequest(f"there is no tool {name[:80]!r}, give one of tools", "tool_choice")
    if not tools:
        if mode == "required":
            raise BadRequest("no tool is given that you would run: give one", "tool_choice")
        return None
    if mode == "none":
        return None
    callable = tuple(dict.fromkeys(known if names is None else names))
    if not callable:
        raise BadRequest("no tool may be called, give the names of some", "tool_choice")
    is_required = mode in ("required", "named")
    return Tools(tuple(tools), callable, is_required, is_parallel and mode != "named")


def _by_name(tools: Sequence[Tool]) -> dict[str, Tool]:
    if len(tools) > MAX_TOOLS:
        raise BadRequest(f"{len(tools)} are more than {MAX_TOOLS}, give fewer", "tools")
    known: dict[str, Tool] = {}
    for tool in tools:
        if tool.name in known:
            where, _, _ = tool.field.rpartition(".")
            problem = f"two are called {tool.name!r}, give each a name of its own"
            raise BadRequest(problem, f"{where}.name")
        known[tool.name] = tool
    return known


def called(id: str, name: str, arguments: str, *, field: str) -> ToolCall:
    """A call that comes back, arguments as text. Raises BadRequest where they are no object."""
    if not is_object(arguments or "{}"):
        raise BadRequest("it is not the JSON text of an object, give one", field)
    return ToolCall(id, name, arguments or "{}")


def is_object(text: str) -> bool:
    """Is it the JSON text of one? Its numbers may be larger than a double holds."""
    try:
        msgspec.json.decode(text, type=dict[str, msgspec.Raw])
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def check_results(messages: Iterable[tuple[str, Message]]) -> None:
    """(where it stands, message). Raises BadRequest for the result of a call nobody made."""
    made: set[str] = set()
    for where, message in messages:
        made.update(call.id for call in message.tool_calls)
        if message.tool_call_id is not None and message.tool_call_id not in made:
            problem = f"no message before it calls a tool as {message.tool_call_id[:80]!r}"
            raise BadRequest(problem, where)


def one_turn(first: Message, second: Message) -> Message:
    """Two messages of one role as one: their texts line by line, their calls in order."""

    def lines(*texts: str) -> str:
        return "\n".join(text for text in texts if text)

    return Message(
        first.role,
        lines(first.content, second.content),
        lines(first.reasoning, second.reasoning),
        (*first.tool_calls, *second.tool_calls),
    )


def calls_of(deltas: Iterable[Delta]) -> tuple[ToolCall, ...]:
    """The calls of an answer; the last one's arguments may be cut off."""
    calls: dict[int, ToolCall] = {}
    for part in (part for delta in deltas for part in delta.calls):
        if part.id is not None and part.name is not None:
            calls[part.index] = ToolCall(part.id, part.name, part.arguments)
        else:
            begun = calls[part.index]
            calls[part.index] = replace(begun, arguments=begun.arguments + part.arguments)
    return tuple(calls.values())
