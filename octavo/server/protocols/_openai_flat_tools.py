"""Tools and thoughts in the words of Responses, which are one level flatter than chat's.

A response says again what was asked of it, and what goes on from others has its prompt only later:
so a body becomes what is said again, and tools are made of that.
"""

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from octavo.errors import BadRequest
from octavo.server.bodies import Unknown
from octavo.server.protocols._openai_tools import Reasoning
from octavo.server.protocols._openai_tools import read_thinking as read_reasoning
from octavo.server.tools import Mode, offered, tool
from octavo.types import Json, Thinking, Tool, Tools


class FlatTool(Struct):
    type: str
    name: str | None = None
    description: str | None = None
    parameters: Any = None
    strict: bool | None = None  # arguments always keep to their schema


class FlatChosen(Struct):
    type: str
    name: str | None = None


class FlatChoice(Struct):
    type: str
    name: str | None = None
    mode: Literal["auto", "required"] | None = None
    tools: list[FlatChosen] | None = None


class FlatReasoning(Reasoning):
    summary: Literal["auto"] | None = None  # of which there is none: thoughts come whole


def not_functions(tools: list[FlatTool] | None) -> Unknown:
    """Tools that others would run: clients send them to whoever answers, and do without."""
    return {f"tools[{i}]": None for i, one in enumerate(tools or ()) if one.type != "function"}


def repeated_tools(tools: list[FlatTool] | None) -> list[Json]:
    return [
        {
            "type": "function",
            "name": one.name,
            "description": one.description,
            "parameters": one.parameters,
            "strict": True,
        }
        for one in tools or ()
        if one.type == "function"
    ]


def repeated_choice(choice: str | FlatChoice | None) -> str | Json:
    """Raises BadRequest for what is no choice."""
    match choice:
        case None:
            return "auto"
        case "auto" | "none" | "required":
            return choice
        case FlatChoice(type="function", name=str(name)):
            return {"type": "function", "name": name}
        case FlatChoice(type="allowed_tools", mode=str(mode), tools=list(tools)):
            chosen = [{"type": "function", "name": _name(one, i)} for i, one in enumerate(tools)]
            return {"type": "allowed_tools", "mode": mode, "tools": chosen}
    kind = choice if isinstance(choice, str) else choice.type
    problem = f"{kind[:40]!r} is none of 'auto', 'none', 'required', a function, 'allowed_tools'"
    raise BadRequest(problem, "tool_choice")


def _name(one: FlatChosen, place: int) -> str:
    if one.type != "function" or one.name is None:
        raise BadRequest("only functions are served, name one", f"tool_choice.tools[{place}]")
    return one.name


def repeated_reasoning(reasoning: FlatReasoning | None) -> Json:
    if reasoning is None:
        return {"effort": None, "summary": None}
    said: Json = {"effort": reasoning.effort, "summary": reasoning.summary}
    return said if reasoning.max_tokens is None else said | {"max_tokens": reasoning.max_tokens}


def tools_of(repeated: Mapping[str, Any]) -> Tools | None:
    """Raises BadRequest."""
    defined = [_tool(one, f"tools[{place}]") for place, one in enumerate(repeated["tools"])]
    choice = repeated["tool_choice"]
    mode: Mode = "auto"
    names: list[str] | None = None
    match choice:
        case "auto" | "none" | "required":
            mode = choice
        case {"type": "function", "name": name}:
            mode, names = "required", [name]
        case {"mode": "auto" | "required" as mode, "tools": tools}:
            names = [one["name"] for one in tools]
    is_named = isinstance(choice, dict) and choice["type"] == "function"
    is_parallel = repeated["parallel_tool_calls"] and not is_named
    return offered(defined, mode, names, is_parallel=is_parallel, field="tool_choice")


def _tool(one: Json, where: str) -> Tool:
    if one["name"] is None:
        raise BadRequest("it is required", f"{where}.name")
    described = one["description"]
    return tool(one["name"], described, one["parameters"], where=where, schema="parameters")


def thinking_of(repeated: Mapping[str, Any]) -> Thinking | None:
    """Raises BadRequest."""
    asked = repeated["reasoning"]
    return read_reasoning(Reasoning(asked.get("max_tokens"), asked["effort"]), None)
