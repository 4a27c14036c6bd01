"""Tools and thoughts in the words of chat completions: definitions, choice, calls, deltas."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

from msgspec import Struct

from octavo.engine.tools import Mode, called, offered, tool
from octavo.errors import BadRequest
from octavo.server.bodies import check_fields
from octavo.server.calls import Answer
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
    type: str | None = None
    index: int | None = None  # some clients keep a stream's


class Named(Struct):
    name: str


class ChosenTool(Struct):
    type: str
    function: Named | None = None

    @property
    def name(self) -> str | None:
        return self.function.name if self.function else None


class Allowed(Struct):
    mode: Literal["auto", "required"]
    tools: list[ChosenTool]


class Choice(Struct):
    type: str
    function: Named | None = None
    allowed_tools: Allowed | None = None


CHOICES = {"function": ("function",), "allowed_tools": ("allowed_tools",)}


class Reasoning(Struct):
    """Ours, as OpenRouter has it."""

    max_tokens: int | None = None
    effort: str | None = None


class ThinkingSwitch(Struct):
    """DeepSeek's and others'."""

    type: Literal["enabled", "disabled"]
    budget_tokens: Any = None  # not served


def read_tools(
    tools: list[FunctionTool] | None,
    choice: str | Choice | None = None,
    *,
    is_parallel: bool | None = None,
) -> Tools | None:
    """Raises BadRequest."""
    defined = [_tool(one, f"tools[{place}]") for place, one in enumerate(tools or ())]
    mode, names = _choice(choice)
    return offered(defined, mode, names, is_parallel=is_parallel is not False)


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
    if not isinstance(choice, Choice):
        return mode_of(choice), None
    check_choice(choice, choice.type, CHOICES)
    if choice.function is not None:
        return "named", [choice.function.name]
    assert choice.allowed_tools is not None
    where = "tool_choice.allowed_tools.tools"
    chosen = enumerate(choice.allowed_tools.tools)
    names = [chosen_name(one.type, one.name, f"{where}[{place}]") for place, one in chosen]
    return choice.allowed_tools.mode, names


def mode_of(choice: str | None) -> Mode:
    """Of a choice that is a word, or none. Raises BadRequest."""
    match choice:
        case None:
            return "auto"
        case "auto" | "none" | "required":
            return choice
    raise _no_choice(choice)


def check_choice(choice: Struct, kind: str, known: Mapping[str, Sequence[str]]) -> None:
    """`known`: the kinds, and what such a choice has. Raises BadRequest."""
    if kind not in known:
        raise _no_choice(kind)
    check_fields(choice, "tool_choice.", f"a choice of type {kind!r}", known[kind])


def _no_choice(kind: str) -> BadRequest:
    problem = f"{kind[:40]!r} is none of 'auto', 'none', 'required', a function, 'allowed_tools'"
    return BadRequest(problem, "tool_choice")


def chosen_name(kind: str, name: str | None, where: str) -> str:
    """Raises BadRequest."""
    if kind != "function" or name is None:
        raise BadRequest("only functions are served, name one", where)
    return name


def read_calls(calls: list[CallBack] | None, where: str) -> tuple[ToolCall, ...]:
    """Raises BadRequest."""
    return tuple(_call(one, f"{where}[{place}]") for place, one in enumerate(calls or ()))


def _call(one: CallBack, where: str) -> ToolCall:
    if one.type not in (None, "function") or one.function is None:
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
        raise BadRequest(
            f"{most} is not a number of tokens, give 0 or more", "reasoning.max_tokens"
        )
    if effort is None and most is None:
        return None
    if effort == "none" and most:
        raise BadRequest(f"{most} contradicts {field} 'none', give one", "reasoning.max_tokens")
    if effort == "none":
        return Thinking(field, is_wanted=False)
    return Thinking(field if effort else "reasoning.max_tokens", None, most, effort)


def switched(thinking: Thinking | None, switches: Iterable[tuple[str, Any]]) -> Thinking | None:
    """`thinking` with what they say of it: (where it stands, true, false or null) of each. Raises
    BadRequest where they contradict it."""
    for field, is_wanted in switches:
        if not isinstance(is_wanted, bool | None):
            raise BadRequest("it is a switch, give true or false", field)
        if is_wanted is None:
            continue
        if thinking is None:
            thinking = Thinking(field, is_wanted)
        elif thinking.is_wanted is None and is_wanted:
            thinking = replace(thinking, is_wanted=True)
        elif thinking.is_wanted is not is_wanted:
            raise BadRequest(f"it contradicts {thinking.field}, give one", field)
    return thinking


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
