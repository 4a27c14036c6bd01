"""What Anthropic's endpoints say alike: the conversation a body holds, and the error envelope."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from msgspec import Meta, Struct

from octavo.errors import BadRequest, OctavoError
from octavo.server.bodies import MAX_MESSAGES, refuse_unserved
from octavo.server.calls import Chat
from octavo.types import Json, Message


class Block(Struct):
    type: str
    text: str | None = None
    # Accepted because they change no token: every prefix is cached, and cites nothing.
    cache_control: Any = None
    citations: Any = None


class Turn(Struct):
    role: Literal["user", "assistant"]
    content: str | list[Block]


class Conversation(Struct, kw_only=True):
    """Fields of both bodies. Absent and null mean the same."""

    model: str
    messages: Annotated[list[Turn], Meta(min_length=1, max_length=MAX_MESSAGES)]
    system: str | list[Block] | None = None
    cache_control: Any = None  # accepted because it changes no token
    # Not served: see NEUTRAL.
    container: Any = None
    context_management: Any = None
    mcp_servers: Any = None
    output_config: Any = None
    output_format: Any = None
    speed: Any = None
    thinking: Any = None
    thread: Any = None
    tool_choice: Any = None
    tools: Any = None


# The values that ask for nothing, so that clients which always send the field are served.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "container": (),
    "context_management": ({},),
    "mcp_servers": ([],),
    "output_config": ({},),
    "output_format": (),
    "speed": ("standard",),
    "thinking": ({"type": "disabled"},),
    "thread": (),
    "tool_choice": ({"type": "auto"}, {"type": "none"}),
    "tools": ([],),
}


def chat(body: Conversation) -> Chat:
    """Raises BadRequest for what is not served yet."""
    refuse_unserved(body, NEUTRAL)
    messages = [Message("system", _text(body.system, "system"))] if body.system else []
    for place, turn in enumerate(body.messages):
        text = _text(turn.content, f"messages[{place}].content")
        if messages and messages[-1].role == turn.role:  # one turn, as the protocol has it
            text = f"{messages.pop().content}\n{text}"
        messages.append(Message(turn.role, text))
    if messages[-1].role == "assistant":
        place = len(body.messages) - 1
        problem = "the last turn is the assistant's, which is not continued: end with a user's"
        raise BadRequest(problem, f"messages[{place}].role")
    return Chat(tuple(messages))


def _text(content: str | Sequence[Block], where: str) -> str:
    if isinstance(content, str):
        return content
    for place, block in enumerate(content):
        if block.type != "text":
            problem = f"a block of type {block.type[:40]!r} is not served, give text"
            raise BadRequest(problem, f"{where}[{place}].type")
        if block.text is None:
            raise BadRequest("it is required", f"{where}[{place}].text")
    return "\n".join(block.text or "" for block in content)


KINDS = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
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
