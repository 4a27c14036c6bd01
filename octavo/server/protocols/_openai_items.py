"""The items of a conversation, as OpenAI's Responses have them: read, kept, listed, gone on from.

    body ─read─▶ items ─numbered─▶ kept with their ids ─▶ listed
                   └────chat────▶ Messages for the model's template

Knows not where they are kept.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from msgspec import Struct

from octavo.errors import BadRequest
from octavo.server.tools import called, check_results
from octavo.types import Chat, Json, Message, Thinking, ToolCall, Tools

RESPONSE, MESSAGE = "resp_", "msg_"  # how ids begin; what follows is the response's, for both
REFERENCE = "item_reference"
KINDS = {"message": MESSAGE, "reasoning": "rs_", "function_call": "fc_"}
REQUIRED = {
    "reasoning": (),
    "function_call": ("call_id", "name", "arguments"),
    "function_call_output": ("call_id", "output"),
}


class Part(Struct):
    type: str
    text: str | None = None
    # Accepted because they change no token.
    annotations: Any = None
    logprobs: Any = None
    prompt_cache_breakpoint: Any = None


class Item(Struct):
    type: str | None = None
    id: str | None = None
    role: Literal["user", "assistant", "system", "developer"] | None = None
    content: str | list[Part] | None = None
    phase: str | None = None
    # Of a call, and of its result.
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | list[Part] | None = None
    # Accepted because they change no token: a thought is told by its content.
    status: str | None = None
    summary: Any = None
    encrypted_content: Any = None


def read(given: str | Sequence[Item]) -> tuple[Json, ...]:
    """Without ids, but for those of references. Raises BadRequest for what is not served yet."""
    if isinstance(given, str):
        return (_message("user", [given]),)
    return tuple(_item(item, f"input[{place}].") for place, item in enumerate(given))


def _item(item: Item, where: str) -> Json:
    kind = item.type or ("message" if item.role or item.id is None else REFERENCE)
    if kind == REFERENCE:
        if item.id is None:
            raise BadRequest("it is required", where + "id")
        return {"type": REFERENCE, "id": item.id}
    if kind in REQUIRED:
        return _other(kind, item, where)
    if kind != "message":
        problem = f"an item of type {kind[:40]!r} is not served yet, give messages"
        raise BadRequest(problem, where + "type")
    if item.role is None:
        raise BadRequest("it is required", where + "role")
    if item.content is None:
        raise BadRequest("it is required", where + "content")
    phase = {} if item.phase is None else {"phase": item.phase}
    return _message(item.role, _texts(item.content, where)) | phase


def _other(kind: str, item: Item, where: str) -> Json:
    """A thought, a call, a result. Raises BadRequest."""
    for name in REQUIRED[kind]:
        if getattr(item, name) is None:
            raise BadRequest("it is required", where + name)
    said: Json = {"type": kind, "status": "completed"}
    if kind == "reasoning":
        texts = [reasoning_text(text) for text in _texts(item.content or [], where)]
        return said | {"summary": [], "content": texts}
    if kind == "function_call_output":
        output = "\n".join(_texts(item.output or "", where, "output"))
        return said | {"call_id": item.call_id, "output": output}
    call = called(
        item.call_id or "", item.name or "", item.arguments or "", field=f"{where}arguments"
    )
    return said | {"call_id": call.id, "name": call.name, "arguments": call.arguments}


def _texts(content: str | Sequence[Part], where: str, field: str = "content") -> list[str]:
    if isinstance(content, str):
        return [content]
    for place, part in enumerate(content):
        if part.type not in ("input_text", "output_text", "reasoning_text"):
            problem = f"a part of type {part.type[:40]!r} is not served, give input_text"
            raise BadRequest(problem, f"{where}{field}[{place}].type")
        if part.text is None:
            raise BadRequest("it is required", f"{where}{field}[{place}].text")
    return [part.text or "" for part in content]


def _message(role: str, texts: Iterable[str]) -> Json:
    one = output_text if role == "assistant" else _input_text
    content = [one(text) for text in texts]
    return {"type": "message", "status": "completed", "role": role, "content": content}


def _input_text(text: str) -> Json:
    return {"type": "input_text", "text": text}


def output_text(text: str, logprobs: Sequence[Json] = ()) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def reasoning_text(text: str) -> Json:
    return {"type": "reasoning_text", "text": text}


def chat(
    instructions: str | None,
    items: Iterable[Json],
    *,
    tools: Tools | None,
    thinking: Thinking | None,
    may_shorten: bool,
) -> Chat:
    """The items hold no references. Parts of one are joined by line ends; a thought, what was said
    after it and calls are one message. Raises BadRequest for the result of a call nobody made."""
    said = [Message("system", instructions)] if instructions else []
    was = ""
    for item in items:
        message, kind = _as_message(item), item["type"]
        goes_on = said and said[-1].role == message.role == "assistant"
        if goes_on and (was == "reasoning" or kind == "function_call"):
            message = _joined(said.pop(), message)
        said.append(message)
        was = kind
    check_results(("input", message) for message in said)
    return Chat(tuple(said), tools, thinking, field="input", may_shorten=may_shorten)


def _as_message(item: Json) -> Message:
    match item["type"]:
        case "reasoning":
            return Message("assistant", "", reasoning=_joined_texts(item))
        case "function_call":
            call = ToolCall(item["call_id"], item["name"], item["arguments"])
            return Message("assistant", "", tool_calls=(call,))
        case "function_call_output":
            return Message("tool", item["output"], tool_call_id=item["call_id"])
    role = "system" if item["role"] == "developer" else item["role"]  # templates know no other
    return Message(role, _joined_texts(item))


def _joined_texts(item: Json) -> str:
    return "\n".join(part["text"] for part in item["content"])


def _joined(first: Message, second: Message) -> Message:
    return Message(
        "assistant",
        first.content + second.content,
        first.reasoning + second.reasoning,
        (*first.tool_calls, *second.tool_calls),
    )


def item_id(kind: str, response: str, place: int) -> str:
    """Of the answer's item at that place, unless it is its first message."""
    return f"{KINDS[kind]}{response.removeprefix(RESPONSE)}_out{place}"


def answer_id(response: str) -> str:
    return MESSAGE + response.removeprefix(RESPONSE)


def numbered(response: str, items: Iterable[Json]) -> list[Json]:
    """With ids that tell which response they came with."""
    return [{"id": f"{answer_id(response)}_{place}"} | item for place, item in enumerate(items)]


def response_of(item: str) -> str:
    """The id of the response that an item came with, or came of."""
    return RESPONSE + item.partition("_")[2].partition("_")[0]
