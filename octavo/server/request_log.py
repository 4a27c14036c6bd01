"""What was asked and answered, word for word, in the log: only where a person wants it so.

Nothing else in this package logs any text of a request.
"""

import logging

import msgspec

from octavo.server.calls import Reply
from octavo.types import Delta, Event

logger = logging.getLogger(__name__)
logger.setLevel(logging.INFO)


class LoggedRequest:
    """One line of JSON, when the request is over or its client has left."""

    def __init__(self, reply: Reply) -> None:
        self._reply = reply
        self._texts: list[list[str]] = [[] for _ in range(reply.num_choices)]

    def hear(self, index: int, event: Event) -> None:
        if isinstance(event, Delta):
            calls = (f"{call.name or ''}{call.arguments}" for call in event.calls)
            self._texts[index] += [event.reasoning, event.text, *calls]

    def close(self) -> None:
        decode = self._reply.tokenizer.decode
        line = {
            "id": self._reply.id,
            "prompts": [decode(ids, special=True) for ids in self._reply.prompt_ids],
            "answers": ["".join(texts) for texts in self._texts],
        }
        logger.info("%s", msgspec.json.encode(line).decode())
