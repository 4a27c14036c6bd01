"""The items of a conversation, as OpenAI's Responses have them: read, kept, listed, gone on from.

    body ─read─▶ items ─numbered─▶ kept with their ids ─▶ listed
                   └────chat────▶ Messages for the model's template

Knows not where they are kept.
"""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any, Literal

from msgspec import Struct

from octavo.engine.tools import called, check_results, one_turn
from octavo.errors import BadRequest
from octavo.server.bodies import check_fields, refuse_unserved
from octavo.types import Chat, Json, Message, ToolCall

# How ids begin. All ids of a response go on alike: resp_X, msg_X, rs_X_out0 ...
RESPONSE, MESSAGE = "resp_", "msg_"
REFERENCE = "item_reference"
KINDS = {
    "message": MESSAGE,
    "reasoning": "rs_",
    "function_call": "fc_",
    "function_call_output": "fco_",
}
REQUIRED: dict[str, tuple[str, ...]] = {
    "message": ("role", "content"),
    "reasoning": (),
    "function_call": ("call_id", "name", "arguments"),
    "function_call_output": ("call_id", "output"),
}
OTHERS: dict[str, tuple[str, ...]] = {  # that such an item may have
    "message": ("phase",),
    "reasoning": ("content", "summary"),
    "function_call": (),
    "function_call_output": ("name",),  # the call's id names the tool
}
PARTS = {  # by where they stand
    "message": ("input_text", "output_text"),
    "function_call_output": ("input_text",),
    "reasoning": ("reasoning_text",),
    "summary": ("summary_text",),
}
# The values that ask for nothing, so that clients which always send the field are served.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "caller": ({"type": "direct"},),
    "encrypted_content": ("",),  # we write none, and cannot read another's
    "namespace": (),
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
    # Of a thought.
    summary: list[Part] | None = None
    # A call's that is incomplete is half a call; of others accepted because it changes no token.
    status: str | None = None
    # Not served: see NEUTRAL.
    caller: Any = None
    encrypted_content: Any = None
    namespace: Any = None


def read(given: str | Sequence[Item]) -> tuple[Json, ...]:
    """Without ids, but for those of references. Raises BadRequest for what is not served yet."""
    if isinstance(given, str):
        return (_message("user", [given]),)
    return tuple(_item(item, f"input[{place}].") for place, item in enumerate(given))


def _item(item: Item, where: str) -> Json:
    kind = item.type or ("message" if item.role or item.id is None else REFERENCE)
    if kind == REFERENCE:
        check_fields(item, where, f"an item of type {kind!r}", ("id",))
        return {"type": REFERENCE, "id": item.id}
    if kind not in KINDS:
        problem = f"an item of type {kind[:40]!r} is not served, give one of {', '.join(KINDS)}"
        raise BadRequest(problem, where + "type")
    _check(kind, item, where)
    match kind:
        case "message":
            phase = {} if item.phase is None else {"phase": item.phase}
            texts = _texts(kind, item.content, where + "content")
            return _message(str(item.role), texts) | phase
        case "reasoning":
            return _thought(item, where)
        case "function_call":
            return _call(item, where)
    output = "\n".join(_texts(kind, item.output, where + "output"))
    return _done(kind) | {"call_id": item.call_id, "output": output}


def _check(kind: str, item: Item, where: str) -> None:
    """It has what such an item needs, and nothing that would be lost. Raises BadRequest."""
    refuse_unserved(item, NEUTRAL, where)
    others = (*OTHERS[kind], "id", "status", *NEUTRAL)
    check_fields(item, where, f"an item of type {kind!r}", REQUIRED[kind], others)


def _thought(item: Item, where: str) -> Json:
    content = _texts("reasoning", item.content, where + "content")
    summary = _texts("summary", item.summary, where + "summary")
    return _done("reasoning") | {
        "summary": [{"type": "summary_text", "text": text} for text in summary],
        "content": [reasoning_text(text) for text in content],
    }


def _call(item: Item, where: str) -> Json:
    said = {"call_id": item.call_id, "name": item.name, "arguments": item.arguments}
    if item.status == "incomplete":  # kept as it is; see `_whole_call`
        return _done("function_call") | {"status": item.status} | said
    call = called(str(item.call_id), str(item.name), str(item.arguments), field=where + "arguments")
    return _done("function_call") | said | {"arguments": call.arguments}


def _done(kind: str) -> Json:
    return {"type": kind, "status": "completed"}


def _texts(kind: str, content: str | Sequence[Part] | None, where: str) -> list[str]:
    if content is None or isinstance(content, str):
        return [] if content is None else [content]
    for place, part in enumerate(content):
        if part.type not in PARTS[kind]:
            problem = f"a part of type {part.type[:40]!r} is not served, give {PARTS[kind][0]}"
            raise BadRequest(problem, f"{where}[{place}].type")
        if part.text is None:
            raise BadRequest("it is required", f"{where}[{place}].text")
    return [part.text or "" for part in content]


def _message(role: str, texts: Iterable[str]) -> Json:
    one = output_text if role == "assistant" else _input_text
    content = [one(text) for text in texts]
    return _done("message") | {"role": role, "content": content}


def _input_text(text: str) -> Json:
    return {"type": "input_text", "text": text}


def output_text(text: str, logprobs: Sequence[Json] = ()) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def reasoning_text(text: str) -> Json:
    return {"type": "reasoning_text", "text": text}


def chat(opening: Chat, before: Sequence[Json], own: Sequence[Json]) -> Chat:
    """`opening` with the items in it: the body's `own`, after those it goes on from; none is a
    reference. Parts of one are joined by line ends. Raises BadRequest for the result of a call
    nobody made."""
    said = [("instructions", message) for message in opening.messages]
    for place, item in enumerate((*before, *own), start=-len(before)):
        if (message := _as_message(item)) is None:
            continue
        if said and _is_one_turn(said[-1][1], message):
            message = one_turn(said.pop()[1], message)
        said.append((f"input[{place}].call_id", message))
    check_results(said)
    return replace(opening, messages=tuple(message for _, message in said))


def _as_message(item: Json) -> Message | None:
    """None: it says nothing."""
    match item["type"]:
        case "reasoning":
            text = _joined_texts(item["content"] or item["summary"])
            return Message("assistant", "", reasoning=text) if text else None
        case "function_call":
            call = _whole_call(item)
            return Message("assistant", "", tool_calls=(call,)) if call else None
        case "function_call_output":
            return Message("tool", item["output"], tool_call_id=item["call_id"])
    role = "system" if item["role"] == "developer" else item["role"]  # templates know no other
    return Message(role, _joined_texts(item["content"]))


def _whole_call(item: Json) -> ToolCall | None:
    """None: half a call, of an answer that was cut short. No model has written such a one."""
    try:
        return called(item["call_id"], item["name"], item["arguments"], field="arguments")
    except BadRequest:
        return None


def _joined_texts(parts: Iterable[Json]) -> str:
    return "\n".join(part["text"] for part in parts)


def _is_one_turn(first: Message, second: Message) -> bool:
    """A thought, what was said after it and calls, as a model says them. What is said between
    calls is part of it, so that results follow their calls."""
    if not first.role == second.role == "assistant":
        return False
    if second.reasoning:
        return not (first.content or first.tool_calls)
    return bool(second.tool_calls or first.tool_calls or not first.content)


def item_id(kind: str, response: str, place: int) -> str:
    """Of the answer's item at that place, unless it is its first message."""
    return f"{KINDS[kind]}{response.removeprefix(RESPONSE)}_out{place}"


def answer_id(response: str) -> str:
    return MESSAGE + response.removeprefix(RESPONSE)


def numbered(response: str, items: Iterable[Json]) -> list[Json]:
    """With ids that tell which response they came with."""
    name = response.removeprefix(RESPONSE)
    return [
        {"id": f"{KINDS[item['type']]}{name}_{place}"} | item for place, item in enumerate(items)
    ]


def response_of(item: str) -> str:
    """The id of the response that an item came with, or came of."""
    return RESPONSE + item.partition("_")[2].partition("_")[0]
