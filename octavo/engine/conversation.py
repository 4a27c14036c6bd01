"""Conversations as Python callers write them: OpenAI's dicts, or our own values.

Owns what such a dict may hold, so that nothing in it is lost; what is wrong with one is told by
where it stands. Knows no model.
"""

import json
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Struct

from octavo.engine.tools import called, check_results, offered, tool
from octavo.errors import BadRequest
from octavo.types import Message, Tool, ToolCall, Tools

Messages: TypeAlias = Sequence[Message | Mapping[str, Any]]
Given = TypeVar("Given", bound=Struct)


class _CalledFunction(Struct, forbid_unknown_fields=True):
    name: str
    arguments: str | dict[str, Any]


class _Call(Struct, forbid_unknown_fields=True):
    id: str
    function: _CalledFunction
    type: Literal["function"] = "function"


class _Part(Struct, forbid_unknown_fields=True):
    text: str
    type: Literal["text"] = "text"


class _Message(Struct, forbid_unknown_fields=True):
    role: str
    content: str | list[_Part] | None = None
    reasoning_content: str | None = None
    tool_calls: list[_Call] | None = None
    tool_call_id: str | None = None


class _Function(Struct, forbid_unknown_fields=True):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None  # arguments always keep to their schema


class _Tool(Struct, forbid_unknown_fields=True):
    function: _Function
    type: Literal["function"] = "function"


def read_messages(given: Messages) -> tuple[Message, ...]:
    """Raises BadRequest."""
    messages = [_message(one, f"messages[{place}]") for place, one in enumerate(given)]
    check_results((f"messages[{i}].tool_call_id", one) for i, one in enumerate(messages))
    return tuple(messages)


def _message(given: Message | Mapping[str, Any], where: str) -> Message:
    if isinstance(given, Message):
        return given
    said = _read(given, _Message, where)
    if isinstance(content := said.content or "", list):
        content = "\n".join(part.text for part in content)
    calls = [_call(one, f"{where}.tool_calls[{i}]") for i, one in enumerate(said.tool_calls or ())]
    return Message(
        "system" if said.role == "developer" else said.role,  # templates know no other
        content,
        said.reasoning_content or "",
        tuple(calls),
        said.tool_call_id,
    )


def _call(given: _Call, where: str) -> ToolCall:
    arguments = given.function.arguments
    text = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
    return called(given.id, given.function.name, text, field=f"{where}.function.arguments")


def read_tools(given: Sequence[Mapping[str, Any]] | None, choice: str) -> Tools | None:
    """`choice`: "auto", "none", "required", or the name of the tool to call. Raises BadRequest."""
    defined = [_tool(one, f"tools[{place}]") for place, one in enumerate(given or ())]
    match choice:
        case "auto" | "none" | "required":
            return offered(defined, choice, None)
    return offered(defined, "named", [choice])


def _tool(given: Mapping[str, Any], where: str) -> Tool:
    said = _read(given, _Tool, where).function
    where = f"{where}.function"
    return tool(said.name, said.description, said.parameters, where=where, schema="parameters")


def _read(given: Mapping[str, Any], shape: type[Given], where: str) -> Given:
    try:
        return msgspec.convert({k: v for k, v in given.items() if v is not None}, shape)
    except msgspec.ValidationError as error:
        raise BadRequest(str(error), where) from None
