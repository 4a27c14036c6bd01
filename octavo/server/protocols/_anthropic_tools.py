"""Tools and thoughts in Anthropic's words: definitions, the choice among them, budgets."""

from typing import Any, Literal

from msgspec import Struct

from octavo.engine.tools import Mode, offered, tool
from octavo.errors import BadRequest
from octavo.server.bodies import check_fields, refuse_unserved
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
    # Not served: see NEUTRAL.
    allowed_callers: Any = None
    defer_loading: Any = None
    input_examples: Any = None


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


# The values that ask for nothing, so that clients which always send the field are served.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "allowed_callers": (["direct"],),
    "defer_loading": (False,),
    "input_examples": ([],),
}
MODES: dict[str, Mode] = {"auto": "auto", "any": "required", "tool": "named", "none": "none"}


def read_tools(tools: list[ToolDefinition] | None, choice: ToolChoice | None) -> Tools | None:
    """Raises BadRequest."""
    defined = [_tool(one, f"tools[{place}]") for place, one in enumerate(tools or ())]
    if choice is None:
        return offered(defined, "auto", None)
    required = ("name",) if choice.type == "tool" else ()
    others = () if choice.type == "none" else ("disable_parallel_tool_use",)
    check_fields(choice, "tool_choice.", f"a choice of type {choice.type!r}", required, others)
    names = None if choice.name is None else [choice.name]
    is_parallel = not choice.disable_parallel_tool_use
    return offered(defined, MODES[choice.type], names, is_parallel=is_parallel)


def _tool(one: ToolDefinition, where: str) -> Tool:
    if one.type not in (None, "custom"):
        problem = f"a tool of type {one.type[:40]!r} is not served, give your own"
        raise BadRequest(problem, f"{where}.type")
    refuse_unserved(one, NEUTRAL, f"{where}.")
    if one.input_schema is None:
        raise BadRequest("it is required", f"{where}.input_schema")
    return tool(one.name, one.description, one.input_schema, where=where, schema="input_schema")


def read_thinking(config: ThinkingConfig | None, max_tokens: int | None) -> Thinking | None:
    """`max_tokens` of the whole answer. Raises BadRequest."""
    if config is None:
        return None
    required = ("budget_tokens",) if config.type == "enabled" else ()
    others = () if config.type == "disabled" else ("display",)
    check_fields(config, "thinking.", f"thinking of type {config.type!r}", required, others)
    if config.budget_tokens is None:
        return Thinking("thinking", is_wanted=config.type == "adaptive")
    budget, field = config.budget_tokens, "thinking.budget_tokens"
    if budget < MIN_BUDGET:
        raise BadRequest(f"{budget} is less than {MIN_BUDGET} tokens, give more", field)
    if max_tokens is not None and budget >= max_tokens:
        raise BadRequest(f"{budget} leaves nothing of max_tokens {max_tokens}, give less", field)
    return Thinking("thinking", is_wanted=True, max_tokens=budget)
