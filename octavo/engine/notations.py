"""How dialects spell the arguments of a call: JSON, Python's keywords, Gemma's own.

Owns each notation's description, and what works from it: a writer, and a reader that turns
arguments into JSON as their characters come. Knows no schema and no call.
"""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

MAX_DEPTH = 200  # of lists and objects; readers of JSON have limits of their own

_JSON_WORDS = {"true": "true", "false": "false", "null": "null"}
_PYTHON_WORDS = _JSON_WORDS | {"True": "true", "False": "false", "None": "null"}
_NUMBER = re.compile(r"-?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?", re.ASCII)
ENDS_BARE = frozenset(",:=()[]{} \t\r\n")  # a number, a word, or a name without quotes


class Malformed(Exception):
    """What came cannot be the arguments of a call."""


@dataclass(frozen=True, slots=True)
class Notation:
    brackets: str = "{}"  # around all arguments
    ends_name: str = ":"  # of an argument; within values it is always a colon
    space: str = " "  # after that within values, and after commas
    quotes: tuple[str, ...] = ('"',)  # either, of a text; the first is written
    escapes: str = "json"  # within a text: "json", "python", or "none"
    bare_names: bool = False  # of arguments, without quotes
    bare_keys: bool = False  # of objects within values, too
    words: Mapping[str, str] = field(default_factory=lambda: _JSON_WORDS)  # -> JSON's

    @property
    def marks(self) -> tuple[str, ...]:
        """The quotes that are more than a character."""
        return tuple(quote for quote in self.quotes if len(quote) > 1)

    def write(self, arguments: Mapping[str, Any]) -> str:
        """As the model would have written them: its earlier calls come back in its own spelling."""
        between = "," + self.space
        return between.join(
            f"{self._key(name, is_bare=self.bare_names)}{self.ends_name}"
            f"{self.space if self.ends_name == ':' else ''}{self.value(value)}"
            for name, value in arguments.items()
        ).join(self.brackets)

    def value(self, value: Any) -> str:
        match value:
            case str():
                return self._text(value)
            case list():
                return f",{self.space}".join(map(self.value, value)).join("[]")
            case dict():
                keys = [self._key(key, is_bare=self.bare_keys) for key in value]
                pairs = zip(keys, map(self.value, value.values()), strict=True)
                return f",{self.space}".join(f"{k}:{self.space}{v}" for k, v in pairs).join("{}")
        word = json.dumps(value)
        return next((own for own, meant in self._own_words if meant == word), word)

    @property
    def _own_words(self) -> list[tuple[str, str]]:
        return list(self.words.items())[::-1]

    def _key(self, key: str, *, is_bare: bool) -> str:
        return key if is_bare else self._text(key)

    def _text(self, text: str) -> str:
        if self.escapes == "none":
            return f"{self.quotes[0]}{text}{self.quotes[0]}"
        return json.dumps(text, ensure_ascii=False)


NOTATIONS = {
    "json": Notation(),
    "python": Notation(
        brackets="()",
        ends_name="=",
        quotes=('"', "'"),
        escapes="python",
        bare_names=True,
        words=_PYTHON_WORDS,
    ),
    "gemma": Notation(
        space="", quotes=("<escape>",), escapes="none", bare_names=True, bare_keys=True
    ),
}


class ArgumentsReader:
    """Arguments as they come, to JSON text. What `push` returns joins to the same object however
    the characters were cut, spelled as `json.dumps` does."""

    def __init__(
        self, notation: Notation, quotes: Sequence[str], shown: Callable[[str], str]
    ) -> None:
        """`quotes` are the notation's, each in one character; `shown` tells what any other was."""
        self._notation, self._quotes, self._shown = notation, quotes, shown
        self._open: list[str] = []  # the closing brackets to come
        self._expects = "bracket"
        self._text: _Text | None = None  # what is within quotes
        self._bare: list[str] = []  # a number or a word, or a name, as far as it came
        self.is_done = False

    def push(self, character: str) -> str:
        """Raises Malformed."""
        if self._text:
            said = self._text.push(character, self._shown)
            if self._text.is_done:
                self._text = None
                self._expects = "colon" if self._expects == "key" else "comma"
            return said
        if self._bare:
            if character not in ENDS_BARE:
                self._bare.append(character)
                return ""
            return self._end_bare() + self.push(character)
        return "" if character in " \t\r\n" else self._take(character)

    def _take(self, c: str) -> str:
        match self._expects:
            case "bracket" if c == self._notation.brackets[0]:
                return self._begin("{", self._notation.brackets[1])
            case "key" | "first key" | "value" | "first value" | "comma" if (
                self._open and c == self._open[-1] and self._expects not in ("key", "value")
            ):
                return self._end()
            case "key" | "first key":
                return self._begin_key(c)
            case "colon" if c == (":" if self._is_within else self._notation.ends_name):
                self._expects = "value"
                return ": "
            case "comma" if c == ",":
                self._expects = "value" if self._open[-1] == "]" else "key"
                return ", "
            case "value" | "first value":
                return self._begin_value(c)
        raise Malformed

    @property
    def _is_within(self) -> bool:
        """A value, not the arguments themselves."""
        return len(self._open) > 1

    def _begin(self, json_bracket: str, closing: str) -> str:
        if len(self._open) == MAX_DEPTH:
            raise Malformed
        self._open.append(closing)
        self._expects = "first value" if closing == "]" else "first key"
        return json_bracket

    def _end(self) -> str:
        closed = self._open.pop()
        self._expects = "comma"
        self.is_done = not self._open
        return "]" if closed == "]" else "}"

    def _begin_key(self, c: str) -> str:
        self._expects = "key"
        notation = self._notation
        if notation.bare_keys if self._is_within else notation.bare_names:
            if c in ENDS_BARE or c in self._quotes:
                raise Malformed
            self._bare.append(c)
            return ""
        return self._begin_text(c)

    def _begin_value(self, c: str) -> str:
        if c in "{[":
            return self._begin(c, "}" if c == "{" else "]")
        self._expects = "value"
        if c in self._quotes:
            return self._begin_text(c)
        if c in ENDS_BARE:
            raise Malformed
        self._bare.append(c)
        return ""

    def _begin_text(self, c: str) -> str:
        if c not in self._quotes:
            raise Malformed
        self._text = _Text(c, self._notation.escapes)
        return '"'

    def _end_bare(self) -> str:
        said, self._bare = "".join(self._bare), []
        if self._expects == "key":
            self._expects = "colon"
            return json.dumps(said, ensure_ascii=False)
        self._expects = "comma"
        if (word := self._notation.words.get(said)) is not None:
            return word
        if not _NUMBER.fullmatch(said):
            raise Malformed
        return said


_SIMPLE = {"\\": "\\", "'": "'", '"': '"', "n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
_SIMPLE_PYTHON = _SIMPLE | {"a": "\a", "v": "\v", "0": "\0", "\n": ""}
_CODES = {"x": 2, "u": 4, "U": 8}  # hexadecimal digits after it


class _Text:
    """What stands between quotes, to what stands between JSON's."""

    def __init__(self, quote: str, escapes: str) -> None:
        self._quote, self._escapes = quote, escapes
        self._escape = ""  # an escape as far as it came
        self.is_done = False

    def push(self, c: str, shown: Callable[[str], str]) -> str:
        if self._escape:
            self._escape += c
            return self._escaped()
        if c == self._quote:
            self.is_done = True
            return '"'
        if c == "\\" and self._escapes != "none":
            self._escape = c
            return ""
        if c < " " and self._escapes != "none":  # a line does not end within quotes
            raise Malformed
        return _quoted(shown(c))

    def _escaped(self) -> str:
        said, kind = self._escape, self._escape[1]
        if self._escapes == "json" and kind in '/bfnrt"\\':
            self._escape = ""
            return said
        if self._escapes == "python" and kind in _SIMPLE_PYTHON:
            self._escape = ""
            return _quoted(_SIMPLE_PYTHON[kind])
        length = _CODES.get(kind) if self._escapes == "python" or kind == "u" else None
        if length is None or not all(digit in "0123456789abcdefABCDEF" for digit in said[2:]):
            raise Malformed
        if len(said) < 2 + length:
            return ""
        self._escape = ""
        return said if kind == "u" else _quoted(_character(int(said[2:], 16)))


def _character(code: int) -> str:
    if code > 0x10FFFF:
        raise Malformed
    return chr(code)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]
