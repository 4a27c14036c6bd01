"""What Anthropic's endpoints say alike: the conversation a body holds, and the error envelope."""

import json
from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from octavo.engine.tools import check_results, one_turn
from octavo.errors import BadRequest, OctavoError
from octavo.server.bodies import MAX_MESSAGES, check_fields, refuse_unserved
from octavo.server.protocols._anthropic_tools import (
    ThinkingConfig,
    ToolChoice,
    ToolDefinition,
    read_thinking,
    read_tools,
)
from octavo.types import Chat, Json, Message, ToolCall

THOUGHTS = ("thinking", "redacted_thinking")


class Block(Struct):
    type: str
    text: str | None = None
    # Of a thought that is sent back; what it was signed with is nothing of ours.
    thinking: str | None = None
    signature: str | None = None
    # Of a call, and of its result.
    id: str | None = None
    name: str | None = None
    input: dict[str, Any] | None = None
    tool_use_id: str | None = None
    content: "str | list[Block] | None" = None
    is_error: bool | None = None
    # Accepted because they change no token: every prefix is cached, and cites nothing.
    cache_control: Any = None
    citations: Any = None
    caller: Any = None
    toolset_name: Any = None  # not served: see NEUTRAL_BLOCK


class Turn(Struct):
    role: Literal["user", "assistant"]
    content: str | list[Block]


class OutputFormat(Struct):
    type: Literal["json_schema"]
    schema: Json


class OutputConfig(Struct):
    format: OutputFormat | None = None
    # Not served: see NEUTRAL_OUTPUT.
    effort: Any = None
    task_budget: Any = None


class Conversation(Struct, kw_only=True):
    """Fields of both bodies. Absent and null mean the same."""

    model: str
    messages: Annotated[list[Turn], Meta(min_length=1, max_length=MAX_MESSAGES)]
    system: str | list[Block] | None = None
    tools: list[ToolDefinition] | None = None
    tool_choice: ToolChoice | None = None
    thinking: ThinkingConfig | None = None
    output_config: OutputConfig | None = None
    output_format: OutputFormat | None = None  # as `output_config.format` was called at first
    cache_control: Any = None  # accepted because it changes no token
    # Not served: see NEUTRAL.
    billing_policy: Any = None
    compaction: Any = None
    container: Any = None
    context_management: Any = None
    fallback_credit_token: Any = None
    fallbacks: Any = None
    mcp_servers: Any = None
    speed: Any = None
    thread: Any = None


# The values that ask for nothing, so that clients which always send the field are served.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "billing_policy": (),
    "compaction": (),
    "container": (),
    "context_management": ({},),
    "fallback_credit_token": (),
    "fallbacks": ([],),
    "mcp_servers": ([],),
    "speed": ("standard",),
    "thread": (),
}
NEUTRAL_BLOCK: dict[str, tuple[Any, ...]] = {"toolset_name": ()}
NEUTRAL_OUTPUT: dict[str, tuple[Any, ...]] = {
    "effort": ("high",),  # which is Anthropic's default
    "task_budget": (),
}
REQUIRED: dict[str, tuple[str, ...]] = {  # by the type of a block
    "text": ("text",),
    "thinking": ("thinking",),
    "redacted_thinking": (),
    "tool_use": ("id", "name", "input"),
    "tool_result": ("tool_use_id",),
}
OTHERS: dict[str, tuple[str, ...]] = {  # that such a block may have
    "text": ("citations",),
    "thinking": ("signature",),
    "redacted_thinking": (),
    "tool_use": ("caller",),
    "tool_result": ("content", "is_error"),
}


def schema_of(body: Conversation) -> tuple[Json | None, str]:
    """What the text must be, None: anything; and where that stands. Raises BadRequest."""
    given = body.output_config.format if body.output_config else None
    if body.output_format is None:
        return given.schema if given else None, "output_config.format.schema"
    if given is not None:
        problem = "it cannot stand beside output_config.format, leave it out"
        raise BadRequest(problem, "output_format")
    return body.output_format.schema, "output_format.schema"


def chat(body: Conversation, max_tokens: int | None = None) -> Chat:
    """`max_tokens` of the answer, where there is to be one. Raises BadRequest for what is not
    served yet."""
    refuse_unserved(body, NEUTRAL)
    if body.output_config is not None:
        refuse_unserved(body.output_config, NEUTRAL_OUTPUT, "output_config.")
    system = [Message("system", _text(body.system, "system"))] if body.system else []
    turns: list[Message] = []
    said: list[tuple[str, Message]] = []
    for place, turn in enumerate(body.messages):
        for where, message in _messages(turn, f"messages[{place}].content"):
            said.append((where, message))
            if turns and turns[-1].role == message.role != "tool":  # one turn, as it has it
                message = one_turn(turns.pop(), message)
            turns.append(message)
    if turns[-1].role == "assistant":
        place = len(body.messages) - 1
        problem = "the last turn is the assistant's, which is not continued: end with a user's"
        raise BadRequest(problem, f"messages[{place}].role")
    check_results(said)
    tools = read_tools(body.tools, body.tool_choice)
    return Chat((*system, *turns), tools, read_thinking(body.thinking, max_tokens))


def _messages(turn: Turn, where: str) -> Iterator[tuple[str, Message]]:
    """(where it stands, message). What tools returned comes before what the user says to it."""
    if isinstance(turn.content, str):
        yield where, Message(turn.role, turn.content)
        return
    allowed = ("text", "tool_result") if turn.role == "user" else ("text", "tool_use", *THOUGHTS)
    for place, block in enumerate(turn.content):
        _check(block, allowed, f"{where}[{place}]")
    for place, block in enumerate(turn.content):
        if block.type == "tool_result":
            text = _text(block.content or "", f"{where}[{place}].content")
            said = f"Error: {text}" if block.is_error else text
            result = Message("tool", said, tool_call_id=block.tool_use_id)
            yield f"{where}[{place}].tool_use_id", result
    others = [block for block in turn.content if block.type != "tool_result"]
    if others or not turn.content:
        yield (
            where,
            Message(
                turn.role,
                "\n".join(block.text or "" for block in others if block.type == "text"),
                "\n".join(block.thinking or "" for block in others if block.type == "thinking"),
                tuple(_call(block) for block in others if block.type == "tool_use"),
            ),
        )


def _call(block: Block) -> ToolCall:
    assert block.id is not None
    assert block.name is not None
    return ToolCall(block.id, block.name, json.dumps(block.input, ensure_ascii=False))


def _text(content: str | Sequence[Block], where: str) -> str:
    if isinstance(content, str):
        return content
    for place, block in enumerate(content):
        _check(block, ("text",), f"{where}[{place}]")
    return "\n".join(block.text or "" for block in content)


def _check(block: Block, allowed: Sequence[str], where: str) -> None:
    if block.type not in allowed:
        problem = f"a block of type {block.type[:40]!r} is not served here, give {allowed[0]}"
        raise BadRequest(problem, f"{where}.type")
    refuse_unserved(block, NEUTRAL_BLOCK, f"{where}.")
    others = (*OTHERS[block.type], "cache_control")
    kind = f"a block of type {block.type!r}"
    check_fields(block, f"{where}.", kind, REQUIRED[block.type], others)


KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    405: "invalid_request_error",
    409: "conflict_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def problem(error: OctavoError) -> Json:
    """The error envelope."""
    said: Json = {"type": KINDS.get(error.status, "api_error"), "message": str(error)}
    if isinstance(error, BadRequest) and error.field == "thread":
        # The words on which Anthropic's clients send the whole conversation instead.
        said["details"] = {"error_code": "thread_unsupported_request", "unsupported": ["thread"]}
    return {"type": "error", "error": said}
