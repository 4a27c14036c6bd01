"""Tools and thoughts in the words of chat completions: definitions, choice, calls, deltas."""

from typing import Any, Literal

from msgspec import Struct

from octavo.errors import BadRequest
from octavo.server.calls import Answer
from octavo.server.tools import Mode, called, offered, tool
from octavo.types import CallDelta, Delta, Json, Thinking, Tool, ToolCall, Tools

PREFIX = "call_"  # of the ids of calls


class Function(Struct):
    name: str
    description: str | None = None
    parameters: Any = None
    strict: bool | None = None  # arguments always keep to their schema


class FunctionTool(Struct):
    type: str
    function: Function | None = None


class CalledFunction(Struct):
    name: str
    arguments: str


class CallBack(Struct):
    """A call of an earlier answer that is sent back."""

    id: str
    function: CalledFunction | None = None
    type: str = "function"
    index: int | None = None  # some clients keep a stream's


class Named(Struct):
    name: str


class ChosenTool(Struct):
    type: str
    function: Named | None = None


class Allowed(Struct):
    mode: Literal["auto", "required"]
    tools: list[ChosenTool]


class Choice(Struct):
    type: str
    function: Named | None = None
    allowed_tools: Allowed | None = None


class Reasoning(Struct):
    """Ours, as OpenRouter has it."""

    max_tokens: int | None = None
    effort: str | None = None


def read_tools(
    tools: list[FunctionTool] | None,
    choice: str | Choice | None = None,
    *,
    is_parallel: bool | None = None,
) -> Tools | None:
    """Raises BadRequest."""
    defined = [_tool(one, f"tools[{place}]") for place, one in enumerate(tools or ())]
    mode, names = _choice(choice)
    is_named = isinstance(choice, Choice) and choice.type == "function"
    is_parallel = is_parallel is not False and not is_named
    return offered(defined, mode, names, is_parallel=is_parallel, field="tool_choice")


def _tool(one: FunctionTool, where: str) -> Tool:
    if one.type != "function":
        problem = f"a tool of type {one.type[:40]!r} is not served, give functions"
        raise BadRequest(problem, f"{where}.type")
    if one.function is None:
        raise BadRequest("it is required", f"{where}.function")
    given = one.function
    where = f"{where}.function"
    return tool(given.name, given.description, given.parameters, where=where, schema="parameters")


def _choice(choice: str | Choice | None) -> tuple[Mode, list[str] | None]:
    match choice:
        case None | "auto":
            return "auto", None
        case "none" | "required":
            return choice, None
        case Choice(type="function", function=Named(name=name)):
            return "required", [name]
        case Choice(type="allowed_tools", allowed_tools=Allowed(mode=mode, tools=tools)):
            return mode, [_chosen(one, place) for place, one in enumerate(tools)]
        case Choice(type="function" | "allowed_tools" as missing):
            raise BadRequest("it is required", f"tool_choice.{missing}")
    kind = choice if isinstance(choice, str) else choice.type
    problem = f"{kind[:40]!r} is none of 'auto', 'none', 'required', a function, 'allowed_tools'"
    raise BadRequest(problem, "tool_choice")


def _chosen(one: ChosenTool, place: int) -> str:
    where = f"tool_choice.allowed_tools.tools[{place}]"
    if one.type != "function" or one.function is None:
        raise BadRequest("only functions are served, name one", where)
    return one.function.name


def read_calls(calls: list[CallBack] | None, where: str) -> tuple[ToolCall, ...]:
    """Raises BadRequest."""
    return tuple(_call(one, f"{where}[{place}]") for place, one in enumerate(calls or ()))


def _call(one: CallBack, where: str) -> ToolCall:
    if one.type != "function" or one.function is None:
        raise BadRequest("only calls of functions are served, give one", where)
    field = f"{where}.function.arguments"
    return called(one.id, one.function.name, one.function.arguments, field=field)


def read_thinking(reasoning: Reasoning | None, effort: str | None) -> Thinking | None:
    """Raises BadRequest where they contradict each other."""
    field = "reasoning_effort"
    if reasoning is not None and reasoning.effort is not None:
        if effort not in (None, reasoning.effort):
            raise BadRequest(f"{effort!r} contradicts reasoning.effort, give one", field)
        field, effort = "reasoning.effort", reasoning.effort
    most = reasoning.max_tokens if reasoning else None
    if most is not None and most < 0:
        raise BadRequest(f"{most} is not a number of tokens", "reasoning.max_tokens")
    if effort is None and most is None:
        return None
    if effort == "none":
        return Thinking(field, is_wanted=False)
    return Thinking(field if effort else "reasoning.max_tokens", None, most, effort)


def deltas(event: Delta) -> list[Json]:
    """What an event adds to a message, one thing at a time; at least one, if only to be empty."""
    said: list[Json] = [{"reasoning_content": event.reasoning}] if event.reasoning else []
    said += [{"content": event.text}] if event.text else []
    said += [{"tool_calls": [_call_delta(part)]} for part in event.calls]
    return said or [{"content": ""}]


def _call_delta(part: CallDelta) -> Json:
    function: Json = {"arguments": part.arguments}
    if part.id is None:
        return {"index": part.index, "function": function}
    head = {"index": part.index, "id": PREFIX + part.id, "type": "function"}
    return head | {"function": {"name": part.name, **function}}


def message(answer: Answer) -> Json:
    """Some clients' schemas take `tool_calls` for a list, and a list alone."""
    text = answer.text if answer.text or not answer.calls else None
    said: Json = {"role": "assistant", "content": text, "refusal": None}
    if answer.reasoning:
        said["reasoning_content"] = answer.reasoning
    if answer.calls:
        said["tool_calls"] = [
            {
                "id": PREFIX + call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in answer.calls
        ]
    return said
