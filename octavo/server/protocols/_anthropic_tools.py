"""Tools and thoughts in Anthropic's words: definitions, the choice among them, budgets."""

from typing import Any, Literal

from msgspec import Struct

from octavo.errors import BadRequest
from octavo.server.tools import Mode, offered, tool
from octavo.types import Thinking, Tool, Tools

PREFIX = "toolu_"  # of the ids of calls
MIN_BUDGET = 1024  # tokens; Anthropic's


class ToolDefinition(Struct):
    name: str
    description: str | None = None
    input_schema: Any = None
    type: str | None = None
    strict: bool | None = None  # input always keeps to its schema
    # Accepted because they change no token: every prefix is cached, input streams as it comes.
    cache_control: Any = None
    eager_input_streaming: bool | None = None


class ToolChoice(Struct):
    type: Literal["auto", "any", "tool", "none"]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class ThinkingConfig(Struct):
    type: Literal["enabled", "adaptive", "disabled"]
    budget_tokens: int | None = None
    display: Literal["summarized", "omitted"] | None = None

    @property
    def is_shown(self) -> bool:
        return self.type != "disabled" and self.display != "omitted"


def read_tools(tools: list[ToolDefinition] | None, choice: ToolChoice | None) -> Tools | None:
    """Raises BadRequest."""
    defined = [_tool(one, f"tools[{place}]") for place, one in enumerate(tools or ())]
    if choice is None:
        choice = ToolChoice("auto")
    modes: dict[str, Mode] = {"auto": "auto", "any": "required", "tool": "required", "none": "none"}
    names = None
    if choice.type == "tool":
        if choice.name is None:
            raise BadRequest("it is required", "tool_choice.name")
        names = [choice.name]
    is_parallel = choice.type != "tool" and not choice.disable_parallel_tool_use
    field = "tool_choice"
    return offered(defined, modes[choice.type], names, is_parallel=is_parallel, field=field)


def _tool(one: ToolDefinition, where: str) -> Tool:
    if one.type not in (None, "custom"):
        problem = f"a tool of type {one.type[:40]!r} is not served, give your own"
        raise BadRequest(problem, f"{where}.type")
    if one.input_schema is None:
        raise BadRequest("it is required", f"{where}.input_schema")
    return tool(one.name, one.description, one.input_schema, where=where, schema="input_schema")


def read_thinking(config: ThinkingConfig | None, max_tokens: int | None) -> Thinking | None:
    """`max_tokens` of the whole answer. Raises BadRequest."""
    if config is None:
        return None
    if config.type != "enabled":
        return Thinking("thinking", is_wanted=config.type == "adaptive")
    budget, field = config.budget_tokens, "thinking.budget_tokens"
    if budget is None:
        raise BadRequest("it is required", field)
    if budget < MIN_BUDGET:
        raise BadRequest(f"{budget} is less than {MIN_BUDGET} tokens", field)
    if max_tokens is not None and budget >= max_tokens:
        raise BadRequest(f"{budget} leaves nothing of max_tokens {max_tokens}", field)
    return Thinking("thinking", is_wanted=True, max_tokens=budget)
