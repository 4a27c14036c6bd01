"""What an answer with calls must be, written for llguidance as Lark, from a dialect's description.

    required      calls, at least one, and no text
    otherwise     text, or text and then calls: from the marker on nothing but calls may follow
    reasons       a thought may come first, in which nothing is a call

Owns the shape of the whole and of calls. What their arguments may be is argument_grammar.py's.
"""

import json
import re
from collections.abc import Iterable, Iterator

from octavo.engine.argument_grammar import Parts, arguments_rules, opening
from octavo.engine.dialect import Spelling
from octavo.errors import BadRequest
from octavo.grammar.fronts.reply import FIELD, write
from octavo.grammar.matcher import MOST_CHARACTERS
from octavo.registry import entry
from octavo.types import Grammar, Reading, Tools

_SPACE = r"[ \t\r\n]*"


def reply_grammar(
    spelling: Spelling, tools: Tools | None, reading: Reading, answer: Grammar | None
) -> Grammar:
    """`answer`: what the text must be. Where calls are required there is no text: a schema is then
    passed over, since clients send one with every turn, and any other constraint is refused by
    name. Raises BadRequest, also for a tool's schema that the dialect's notation cannot spell."""
    if tools is not None and tools.is_required and answer is not None:
        if answer.kind != "json_schema":
            problem = "the answer must be calls of tools, so no text can match it: leave one out"
            raise BadRequest(problem, entry("octavo.grammar.fronts", answer.kind).FIELD)
        answer = None
    writer = _Writer(spelling, tools, reading, is_free=answer is None)
    lark = "".join(f"{rule}\n" for rule in _as_many_as_compile(writer.rules()))
    return write(lark, answer)


def _as_many_as_compile(rules: Iterable[str]) -> Iterator[str]:
    """Raises BadRequest at the first rule too many: no time goes into the tools after it."""
    num_characters = 0
    for rule in rules:
        num_characters += len(rule)
        if num_characters > MOST_CHARACTERS:
            problem = f"they make a grammar of more than {MOST_CHARACTERS} characters, give fewer"
            raise BadRequest(problem, FIELD)
        yield rule


class _Writer:
    def __init__(
        self, spelling: Spelling, tools: Tools | None, reading: Reading, *, is_free: bool
    ) -> None:
        self._spelling, self._reading, self._is_free = spelling, reading, is_free
        self._tools = tools or Tools((), ())
        self._ids = {character: token for token, character in spelling.ids.items()}
        may_think = spelling.thought is not None and reading.max_thought != 0
        self._may_begin_thought = may_think and not reading.is_thinking

    def rules(self) -> Iterable[str]:
        yield "%llguidance {}"
        thought = "thought GAP " if self._reading.is_thinking else ""
        if self._may_begin_thought:
            thought = "(begin_thought thought GAP)? "
        yield f"start: {thought}{'calls' if self._tools.is_required else 'reply'}"
        yield "ANY: /(?s:.*)/"
        if thought:
            yield from self._thought_rules()
        if not self._tools.is_required:
            yield from self._reply_rules() if self._is_free else self._answer_rules()
        if self._tools.callable:
            yield from self._call_rules()

    def _thought_rules(self) -> Iterable[str]:
        assert self._spelling.thought is not None
        begin, end = self._spelling.thought
        yield r"GAP: /[ \r\n]{0,2}/"
        yield self._up_to("thought", "ANY", end)
        if self._may_begin_thought:
            yield f"begin_thought: {self._sequence(begin)}"

    def _answer_rules(self) -> Iterable[str]:
        """No text but one that has a grammar of its own."""
        yield f"reply: @answer{' | calls' if self._tools.callable else ''}"

    def _reply_rules(self) -> Iterable[str]:
        """A lexer takes the longest match, so PROSE must leave out whatever begins a thought or a
        call."""
        excluded = []
        thought = self._spelling.thought
        if thought and self._may_begin_thought and thought[0] not in self._ids:
            excluded.append(self._loosely(thought[0]))
        if self._spelling.dialect.marker is None:
            excluded.append(self._head("(" + "|".join(map(_escaped, self._tools.callable)) + ")"))
        beginnings = "|".join(excluded)
        yield "PROSE: ANY" + (f" & ~/{_SPACE}({beginnings})(?s:.*)/" if excluded else "")
        if self._spelling.dialect.marker is None:
            yield from self._unmarked_rules()
        else:
            marker, rest = self._spelling.first[0], self._opening()[1:]
            yield f"reply: PROSE | lead {self._sequence(rest)} call{self._more()}"
            yield self._up_to("lead", "PROSE", marker)

    def _unmarked_rules(self) -> Iterable[str]:
        """A reply that begins as a call does is one."""
        heads = [f"HEAD_{place} rest_{place}" for place in range(len(self._tools.callable))]
        yield f"reply: PROSE | ({' | '.join(heads)}){self._more()}"
        after = self._sequence(self._spelling.marked(self._spelling.dialect.parts()[2]))
        for place, name in enumerate(self._tools.callable):
            yield f"HEAD_{place}: /{_SPACE}{self._head(_escaped(name))}/"
            yield f'rest_{place}: " "? arguments_{place}_rest {after}'

    def _head(self, name: str) -> str:
        """As a regular expression, all that reader.py takes for the beginning of a call."""
        first, middle = self._loosely(self._spelling.first), self._loosely(self._spelling.middle)
        return f"{first}{_SPACE}{name}{middle}{_escaped(opening(self._spelling.notation))}"

    def _up_to(self, rule: str, text: str, mark: str) -> str:
        """Such text, and the first `mark` after it."""
        is_lazy = "" if mark in self._ids else "[lazy]"
        return f"{rule}{is_lazy}: {text} {self._sequence(mark)}"

    def _loosely(self, form: str) -> str:
        """As a regular expression, with any white space where the form has some."""
        words = re.split(r"[ \t\r\n]+", form)
        return _SPACE.join(_escaped("".join(map(self._spelling.shown, word))) for word in words)

    def _call_rules(self) -> Iterable[str]:
        spelling, by_name = self._spelling, {tool.name: tool for tool in self._tools.all}
        tools = [by_name[name] for name in self._tools.callable]
        _, middle, after = map(spelling.marked, spelling.dialect.parts())
        yield f"calls: {self._sequence(self._opening())} call{self._more()}"
        yield "call: " + " | ".join(f"call_{place}" for place in range(len(tools)))
        parts = Parts()
        for place, tool in enumerate(tools):
            name, arguments = self._sequence(tool.name + middle), f"arguments_{place}"
            yield f"call_{place}: {name} {arguments} {self._sequence(after)}"
            yield from arguments_rules(arguments, tool, spelling.notation, self._quote(), parts)

    def _opening(self) -> str:
        return self._spelling.marked(self._spelling.dialect.opens + self._before_name)

    @property
    def _before_name(self) -> str:
        return self._spelling.dialect.parts()[0]

    def _more(self) -> str:
        """What may follow the first call."""
        dialect, spelling = self._spelling.dialect, self._spelling
        closes = self._sequence(spelling.marked(dialect.closes))
        if dialect.between is None or not self._tools.is_parallel:
            return f" {closes}"
        following = self._sequence(spelling.marked(dialect.between + self._before_name))
        return f" ({following} call)* {closes}"

    def _quote(self) -> str:
        return self._sequence(self._spelling.marked(self._spelling.notation.quotes[0]))

    def _sequence(self, marked: str) -> str:
        """Text and marks as Lark has them: literals, and tokens by their ids."""
        parts: list[str] = []
        text = ""
        for character in marked:
            if (token := self._ids.get(character)) is None:
                text += self._spelling.shown(character)
                continue
            parts += [json.dumps(text)] if text else []
            parts.append(f"<[{token}]>")
            text = ""
        return " ".join([*parts, json.dumps(text)] if text else parts)


def _escaped(text: str) -> str:
    return "".join(rf"\{c}" if c in r".^$*+?()[]{}|\/-&~#" else c for c in text)
