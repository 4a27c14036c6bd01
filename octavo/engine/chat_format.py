"""How one model's chats are written and how its answers are to be read.

    Chat -> prompt: token ids, Reading (what to look for in the answer), Grammar (what it must be)

Owns what dialects leave to text: the tools in a system prompt, calls and results in messages, the
words that close a thought. Knows no protocol and no engine.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from hashlib import blake2b
from itertools import groupby
from typing import Any

from octavo.engine.dialect import Spelling, choose
from octavo.engine.reply_grammar import reply_grammar
from octavo.engine.tools import one_turn
from octavo.errors import BadRequest
from octavo.loader.template import arguments_data, message_data
from octavo.loader.tokenizer import Tokenizer
from octavo.types import Chat, Grammar, Json, Message, Reading, Thinking, Tool, ToolCall

_TOLD = """You can call tools. Each line is one, with the JSON Schema of its arguments:
{tools}

To call a tool, write its name and arguments in this form, one call a line, and nothing after:
{form}
What it returns comes with the next message. Call a tool only where it helps."""
_RESULT = "<tool_result>\n{}\n</tool_result>"
_SWITCHES = ("enable_thinking", "thinking")  # variables by which templates turn thoughts on and off


@dataclass(frozen=True, slots=True)
class Prompt:
    ids: tuple[int, ...]
    reading: Reading | None
    grammar: Grammar | None  # None: the answer may be anything


class ChatFormat:
    def __init__(self, tokenizer: Tokenizer, tool_dialect: str | None = None) -> None:
        """Raises BadConfig for a dialect that is not there."""
        self._tokenizer = tokenizer
        template = tokenizer.chat_template or ""
        self.dialect = choose(tool_dialect, template)
        self.reasons = self.dialect.thought[1].strip() in template
        self.spelling = Spelling(self.dialect, tokenizer.control_tokens, reasons=self.reasons)

    def render(self, chat: Chat) -> str:
        """The prompt as text. Raises BadRequest."""
        return self._tokenizer.render(self._messages(chat), self._tools(chat), **self._extra(chat))

    def ids(self, chat: Chat, **template: Any) -> list[int]:
        """Raises BadRequest."""
        extra = self._extra(chat) | template
        ids = self._tokenizer.chat_ids(self._messages(chat), self._tools(chat), **extra)
        if self._max_thought(chat) == 0 and self._is_thinking(ids):
            ids = [*ids, *self.closing]
        return list(ids)

    def prompt(self, chat: Chat, answer: Grammar | None = None, **template: Any) -> Prompt:
        """`answer`: what the text of the answer must be; `template`: what else the model's template
        is given. Raises BadRequest, also for a schema that cannot be kept to."""
        ids = self.ids(chat, **template)
        names = chat.tools.callable if chat.tools else ()
        is_held = answer is not None and not (chat.tools and chat.tools.is_required)
        reading = Reading(names, self._is_thinking(ids), self._max_thought(chat), is_held)
        if not names and not self.reasons:
            return Prompt(tuple(ids), None, answer)
        if not names and answer is None:
            return Prompt(tuple(ids), reading, None)
        grammar = reply_grammar(self.spelling, chat.tools, reading, answer)
        return Prompt(tuple(ids), reading, grammar)

    @cached_property
    def closing(self) -> tuple[int, ...]:
        """The tokens that close a thought."""
        spelling = self.spelling
        tokens = {character: token for token, character in spelling.ids.items()}
        ids: list[int] = []
        marked = spelling.marked(self.dialect.thought[1])
        for is_token, part in groupby(marked, tokens.__contains__):
            if is_token:
                ids += [tokens[character] for character in part]
            else:
                ids += self._tokenizer.encode_within("".join(map(spelling.shown, part)))
        return tuple(ids)

    def _is_thinking(self, ids: Sequence[int]) -> bool:
        """The prompt ends within a thought, which the template has opened."""
        end = self._tokenizer.decode(ids[-16:], special=True).rstrip()
        return self.reasons and end.endswith(self.dialect.thought[0].strip())

    # ---- thoughts

    def _max_thought(self, chat: Chat) -> int | None:
        """Unwanted thoughts get 0: a template that cannot turn them off has them end at once."""
        thinking = chat.thinking
        if thinking is None or not self.reasons:
            return None
        return 0 if thinking.is_wanted is False else thinking.max_tokens

    def _extra(self, chat: Chat) -> Json:
        """What the template is told of thinking. Raises BadRequest for what the model cannot."""
        if (thinking := chat.thinking) is None:
            return {}
        if not self.reasons:
            if thinking.is_wanted or thinking.max_tokens is not None or thinking.effort:
                raise BadRequest("the model does not reason, leave it out", thinking.field)
            return {}
        return self._effort(thinking) | self._switch(thinking)

    def _effort(self, thinking: Thinking) -> Json:
        if thinking.effort is None:
            return {}
        if "reasoning_effort" not in self._tokenizer.template_variables:
            problem = "the model knows no degrees of it, leave it out or give a number of tokens"
            raise BadRequest(problem, thinking.field)
        return {"reasoning_effort": thinking.effort}

    def _switch(self, thinking: Thinking) -> Json:
        known = self._tokenizer.template_variables & set(_SWITCHES)
        return {} if thinking.is_wanted is None else dict.fromkeys(known, thinking.is_wanted)

    # ---- tools

    def _tools(self, chat: Chat) -> list[Json] | None:
        if self.dialect.is_told or chat.tools is None:
            return None
        return [{"type": "function", "function": _description(tool)} for tool in chat.tools.all]

    def _messages(self, chat: Chat) -> list[Json]:
        if self.dialect.is_told:
            return [message_data(message) for message in self._told(chat)]
        return [self._data(message) for message in chat.messages]

    def _data(self, message: Message) -> Json:
        """As the dialect's templates want it."""
        calls = tuple(replace(call, id=self._id(call.id)) for call in message.tool_calls)
        result = message.tool_call_id and self._id(message.tool_call_id)
        data = message_data(replace(message, tool_calls=calls, tool_call_id=result))
        if calls and not message.content:
            data["content"] = self.dialect.no_content
        if self.dialect.takes_text:
            for place, call in enumerate(calls):
                data["tool_calls"][place]["function"]["arguments"] = call.arguments
        return data

    def _id(self, id: str) -> str:
        length = self.dialect.id_length
        if length is None or (len(id) == length and id.isalnum()):
            return id
        return blake2b(id.encode(), digest_size=length).hexdigest()[:length]

    def _told(self, chat: Chat) -> list[Message]:
        """Tools, calls and results as text, for a template that has no place for them. Results are
        written as the user's, in one turn with what the user says before or after them."""
        turns: list[Message] = []
        is_result = False
        for message in chat.messages:
            was_result, is_result = is_result, message.role == "tool"
            turn = self._as_text(message)
            if (was_result or is_result) and turns and turns[-1].role == turn.role:
                turn = one_turn(turns.pop(), turn)
            turns.append(turn)
        return self._with_tools(turns, chat.tools.all) if chat.tools else turns

    def _as_text(self, message: Message) -> Message:
        if message.role == "tool":
            return Message("user", _RESULT.format(message.content))
        calls = (self.dialect.between or "").join(map(self._written, message.tool_calls))
        said = "\n".join(part for part in (message.content, calls) if part)
        return Message(message.role, said, message.reasoning)

    def _written(self, call: ToolCall) -> str:
        return self.written(call.name, self.spelling.notation.write(arguments_data(call)))

    def written(self, name: str, arguments: str) -> str:
        """A call in the dialect's form."""
        before, middle, after = self.dialect.parts()
        return f"{before}{name}{middle}{arguments}{after}"

    def _with_tools(self, turns: list[Message], tools: Iterable[Tool]) -> list[Message]:
        lines = (json.dumps(_description(tool), ensure_ascii=False) for tool in tools)
        told = _TOLD.format(tools="\n".join(lines), form=self.written("NAME", "ARGUMENTS"))
        if turns and turns[0].role == "system":
            first, *turns = turns
            told = f"{first.content}\n\n{told}"
        return [Message("system", told), *turns]


def _description(tool: Tool) -> Json:
    described = {"name": tool.name, "description": tool.description, "parameters": tool.parameters}
    return {name: value for name, value in described.items() if value is not None}
