"""The items of a conversation, as OpenAI's Responses have them: read, kept, listed, gone on from.

    body ─read─▶ items ─numbered─▶ kept with their ids ─▶ listed
                   └────chat────▶ Messages for the model's template

Knows not where they are kept.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

from msgspec import Struct

from octavo.errors import BadRequest
from octavo.types import Chat, Json, Message

RESPONSE, MESSAGE = "resp_", "msg_"  # how ids begin; what follows is the response's, for both
REFERENCE = "item_reference"


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
    status: str | None = None  # accepted because it changes no token


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
    if kind != "message":
        problem = f"an item of type {kind[:40]!r} is not served yet, give messages"
        raise BadRequest(problem, where + "type")
    if item.role is None:
        raise BadRequest("it is required", where + "role")
    if item.content is None:
        raise BadRequest("it is required", where + "content")
    phase = {} if item.phase is None else {"phase": item.phase}
    return _message(item.role, _texts(item.content, where)) | phase


def _texts(content: str | Sequence[Part], where: str) -> list[str]:
    if isinstance(content, str):
        return [content]
    for place, part in enumerate(content):
        if part.type not in ("input_text", "output_text"):
            problem = f"a part of type {part.type[:40]!r} is not served, give input_text"
            raise BadRequest(problem, f"{where}content[{place}].type")
        if part.text is None:
            raise BadRequest("it is required", f"{where}content[{place}].text")
    return [part.text or "" for part in content]


def _message(role: str, texts: Iterable[str]) -> Json:
    one = output_text if role == "assistant" else _input_text
    content = [one(text) for text in texts]
    return {"type": "message", "status": "completed", "role": role, "content": content}


def _input_text(text: str) -> Json:
    return {"type": "input_text", "text": text}


def output_text(text: str, logprobs: Sequence[Json] = ()) -> Json:
    return {"type": "output_text", "text": text, "annotations": [], "logprobs": logprobs}


def chat(instructions: str | None, items: Iterable[Json], *, may_shorten: bool) -> Chat:
    """The items hold no references. Parts of one are joined by line ends."""
    said = [Message("system", instructions)] if instructions else []
    for item in items:
        role = "system" if item["role"] == "developer" else item["role"]  # templates know no other
        said.append(Message(role, "\n".join(part["text"] for part in item["content"])))
    return Chat(tuple(said), field="input", may_shorten=may_shorten)


def answer_id(response: str) -> str:
    return MESSAGE + response.removeprefix(RESPONSE)


def numbered(response: str, items: Iterable[Json]) -> list[Json]:
    """With ids that tell which response they came with."""
    return [{"id": f"{answer_id(response)}_{place}"} | item for place, item in enumerate(items)]


def response_of(item: str) -> str:
    """The id of the response that an item came with, or came of."""
    return RESPONSE + item.removeprefix(MESSAGE).partition("_")[0]
