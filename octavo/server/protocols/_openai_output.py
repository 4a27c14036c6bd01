"""What a response of OpenAI's puts out: items, whole and as the events they come in.

    reasoning      output_item.added content_part.added reasoning_text.delta...
                   reasoning_text.done content_part.done output_item.done
    message        the same, of output_text
    function_call  output_item.added function_call_arguments.delta... .done output_item.done

One item is open at a time. Only text has logprobs. Those of a token that shows nothing by itself
(half a character, the mark of a call) are held back: they go with the next piece of text, or are
dropped where a thought or a call comes instead. Knows neither numbers nor frames.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from typing import TypeAlias

from octavo.server.calls import Answer, Reply, says
from octavo.server.protocols._logprobs import chat_logprobs
from octavo.server.protocols._openai_items import answer_id, item_id, output_text, reasoning_text
from octavo.server.protocols._openai_tools import PREFIX as CALL
from octavo.types import CallDelta, Delta, Json, TokenLogprob

Told: TypeAlias = Iterator[tuple[str, Json]]  # (kind of event without "response.", its fields)


class Output:
    def __init__(self, reply: Reply) -> None:
        self.items: list[Json] = []  # that are done
        self._reply = reply
        self._open: str | None = None  # the type of the item under way
        self._text, self._logprobs = "", list[TokenLogprob]()
        self._waiting = list[TokenLogprob]()  # of tokens of which nothing came yet
        self._call = CallDelta(0)

    def hear(self, delta: Delta) -> Told:
        self._waiting += delta.logprobs
        if delta.reasoning:
            yield from self._enter("reasoning")
            self._text += delta.reasoning
            yield self._of_part("reasoning_text.delta", delta=delta.reasoning)
        if delta.text:
            yield from self._say(delta.text)
        for call in delta.calls:
            yield from self._add(call)
        if says(delta):
            self._waiting = []

    def _say(self, text: str) -> Told:
        yield from self._enter("message")
        waiting, self._waiting = self._waiting, []
        self._text += text
        self._logprobs += waiting
        spelled = self._spelled(waiting)
        yield self._of_part("output_text.delta", delta=text, logprobs=spelled)

    def _add(self, call: CallDelta) -> Told:
        if call.id is not None:
            yield from self.close("completed")
            self._call = call
            yield from self._enter("function_call")
        if call.arguments:
            self._text += call.arguments
            yield self._of_item("function_call_arguments.delta", delta=call.arguments)

    def _enter(self, kind: str) -> Told:
        if self._open == kind:
            return
        yield from self.close("completed")
        self._open, self._text, self._logprobs = kind, "", []
        yield self._item_event("added", self._item("in_progress", empty=True))
        if kind == "reasoning":
            yield self._of_part("content_part.added", part=reasoning_text(""))
        elif kind == "message":
            yield self._of_part("content_part.added", part=output_text(""))

    def close(self, status: str) -> Told:
        """The item under way ends."""
        if self._open is None:
            return
        item = self._item(status)
        if self._open == "function_call":
            yield self._of_item("function_call_arguments.done", arguments=self._text)
        else:
            (part,) = item["content"]
            spelled = {} if self._open == "reasoning" else {"logprobs": part["logprobs"]}
            yield self._of_part(f"{part['type']}.done", text=self._text, **spelled)
            yield self._of_part("content_part.done", part=part)
        yield self._item_event("done", item)
        self.items.append(item)
        self._open = None

    def finish(self, status: str) -> Told:
        """All has been heard; an answer that said nothing is an empty message."""
        if not self.items and self._open is None:
            yield from self._enter("message")
        if self._open == "message" and self._waiting:  # of the end of a turn, which shows nothing
            yield from self._say("")
        yield from self.close(status)

    def _item(self, status: str, *, empty: bool = False) -> Json:
        head = {"id": self._id(), "type": self._open, "status": status}
        match self._open:
            case "reasoning":
                content = [] if empty else [reasoning_text(self._text)]
                return head | {"summary": [], "content": content}
            case "message":
                part = output_text(self._text, self._spelled(self._logprobs))
                return head | {"role": "assistant", "content": [] if empty else [part]}
        call = {"call_id": f"{CALL}{self._call.id}", "name": self._call.name}
        return head | call | {"arguments": self._text}

    def _id(self) -> str:
        """The first message has the answer's own."""
        if self._open == "message" and all(item["type"] != "message" for item in self.items):
            return answer_id(self._reply.id)
        return item_id(str(self._open), self._reply.id, len(self.items))

    def _item_event(self, kind: str, item: Json) -> tuple[str, Json]:
        return f"output_item.{kind}", {"output_index": len(self.items), "item": item}

    def _of_item(self, kind: str, **fields: object) -> tuple[str, Json]:
        return kind, {"item_id": self._id(), "output_index": len(self.items), **fields}

    def _of_part(self, kind: str, **fields: object) -> tuple[str, Json]:
        return self._of_item(kind, content_index=0, **fields)

    def _spelled(self, logprobs: Sequence[TokenLogprob]) -> list[Json]:
        return chat_logprobs(logprobs, self._reply.tokenizer)["content"] if logprobs else []


def output_of(reply: Reply, answer: Answer, status: str) -> list[Json]:
    """The same items, for whoever hears no events."""
    output = Output(reply)
    for delta in answer.deltas:
        deque(output.hear(delta), maxlen=0)
    deque(output.finish(status), maxlen=0)
    return output.items
