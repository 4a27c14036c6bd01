"""Tools and thoughts in the words of Responses, which are one level flatter than chat's.

Tools that a server would run itself are left out, and named: clients send them to whoever answers,
and do without.
"""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

from octavo.engine.tools import Mode, offered, tool
from octavo.errors import BadRequest
from octavo.server.bodies import Unknown, refuse_unserved
from octavo.server.protocols._openai_tools import (
    Reasoning,
    check_choice,
    chosen_name,
    mode_of,
    read_thinking,
)
from octavo.types import Json, Thinking, Tool, Tools


class FlatTool(Struct):
    type: str
    name: str | None = None
    description: str | None = None
    parameters: Any = None
    strict: bool | None = None  # arguments always keep to their schema
    # Not served: see NEUTRAL.
    allowed_callers: Any = None
    defer_loading: Any = None
    output_schema: Any = None

    @property
    def is_function(self) -> bool:
        return self.type == "function"


class FlatChosen(Struct):
    type: str
    name: str | None = None


class FlatChoice(Struct):
    type: str
    name: str | None = None
    mode: Literal["auto", "required"] | None = None
    tools: list[FlatChosen] | None = None


CHOICES = {"function": ("name",), "allowed_tools": ("mode", "tools")}


class FlatReasoning(Reasoning):
    # As much as there is: a thought comes whole, and not again in short.
    summary: Literal["auto"] | None = None
    generate_summary: Literal["auto"] | None = None
    # Not served: see NEUTRAL.
    context: Any = None
    mode: Any = None


# The values that ask for nothing, so that clients which always send the field are served.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "allowed_callers": (["direct"],),
    "defer_loading": (False,),
    "output_schema": (),
}
NEUTRAL_REASONING: dict[str, tuple[Any, ...]] = {"context": ("auto",), "mode": ("standard",)}


def without_hosted(ignored: Unknown, tools: list[FlatTool] | None) -> Unknown:
    """`ignored` with each tool that is left out, instead of the fields within."""
    left_out = [f"tools[{i}]" for i, one in enumerate(tools or ()) if not one.is_function]
    within = tuple(f"{name}." for name in left_out)
    others = {name: close for name, close in ignored.items() if not name.startswith(within)}
    return {**others, **dict.fromkeys(left_out)}


def read_tools(
    tools: list[FlatTool] | None,
    choice: str | FlatChoice | None,
    *,
    is_parallel: bool | None,
) -> Tools | None:
    """Raises BadRequest."""
    defined = [
        _tool(one, f"tools[{place}]") for place, one in enumerate(tools or ()) if one.is_function
    ]
    mode, names = _choice(choice)
    return offered(defined, mode, names, is_parallel=is_parallel is not False)


def _tool(one: FlatTool, where: str) -> Tool:
    refuse_unserved(one, NEUTRAL, f"{where}.")
    if one.name is None:
        raise BadRequest("it is required", f"{where}.name")
    return tool(one.name, one.description, one.parameters, where=where, schema="parameters")


def _choice(choice: str | FlatChoice | None) -> tuple[Mode, list[str] | None]:
    if not isinstance(choice, FlatChoice):
        return mode_of(choice), None
    check_choice(choice, choice.type, CHOICES)
    if choice.name is not None:
        return "named", [choice.name]
    assert choice.mode is not None
    assert choice.tools is not None
    chosen, where = enumerate(choice.tools), "tool_choice.tools"
    names = [chosen_name(one.type, one.name, f"{where}[{place}]") for place, one in chosen]
    return choice.mode, names


def thinking_of(reasoning: FlatReasoning | None) -> Thinking | None:
    """Raises BadRequest."""
    if reasoning is not None:
        refuse_unserved(reasoning, NEUTRAL_REASONING, "reasoning.")
    return read_thinking(reasoning, None)


# ---- what a response says again of its request


def repeated_tools(tools: list[FlatTool] | None) -> list[Json]:
    """Those that the model may be told of."""
    return [
        {
            "type": "function",
            "name": one.name,
            "description": one.description,
            "parameters": one.parameters,
            "strict": True,
        }
        for one in tools or ()
        if one.is_function
    ]


def repeated_choice(choice: str | FlatChoice | None) -> str | Json:
    if choice is None or isinstance(choice, str):
        return choice or "auto"
    return _without_nulls(msgspec.to_builtins(choice))


def _without_nulls(given: Mapping[str, Any]) -> Json:
    kept = {name: value for name, value in given.items() if value is not None}
    if "tools" in kept:
        kept["tools"] = [_without_nulls(one) for one in kept["tools"]]
    return kept


def repeated_reasoning(reasoning: FlatReasoning | None) -> Json:
    if reasoning is None:
        return {"effort": None, "summary": None}
    summary = reasoning.summary or reasoning.generate_summary
    said: Json = {"effort": reasoning.effort, "summary": summary}
    return said if reasoning.max_tokens is None else said | {"max_tokens": reasoning.max_tokens}
