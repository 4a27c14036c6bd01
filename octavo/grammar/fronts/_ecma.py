r"""JSON Schema's patterns, which are ECMA-262's (section 22.2, flag u), in Rust's words.

    ^\w+\s.$   ──▶   ^[0-9A-Za-z_]+[\x{9}\x{A}\x{C}\x{D}\x{20}...][^\x{A}\x{D}\x{2028}...]$

Each construct is read here and written anew, so that nothing means one thing to a sender and
another to llguidance: characters by their numbers unless they are letters or digits, classes by
what they hold of what an answer may, since llguidance takes quotes for the control characters that
JSON has no letter for. What cannot be followed, or is no ECMA-262, is refused. An escape that only
flag u forbids, such as \- or \@, stands for its character.
"""

import re
from typing import Final

CONTROL: Final = re.compile(r"[\x00-\x07\x0b\x0e-\x1f\x7f]")  # in no answer
_CONTROL: Final = r"\x{0}-\x{7}\x{B}\x{E}-\x{1F}\x{7F}"
_PLAIN: Final = re.compile("(?:[0-9A-Za-z_](?:-[0-9A-Za-z])?)*")  # members, none of them one
_DIGIT: Final = "0-9"
_WORD: Final = "0-9A-Za-z_"
_LINE_END: Final = r"\x{A}\x{D}\x{2028}\x{2029}"
_SPACE: Final = (
    r"\x{9}\x{A}\x{C}\x{D}\x{20}\x{A0}\x{1680}\x{2000}-\x{200A}"
    r"\x{2028}\x{2029}\x{202F}\x{205F}\x{3000}\x{FEFF}"
)
_CLASSES: Final = {
    rf"\{letter}": f"[^{members}{_CONTROL}]" if letter.isupper() else f"[{members}]"
    for letters, members in (("dD", _DIGIT), ("wW", _WORD), ("sS", _SPACE))
    for letter in letters
}
_LETTERS: Final = {"f": 0x0C, "n": 0x0A, "r": 0x0D, "t": 0x09, "v": 0x0B, "0": 0}

_ESCAPE: Final = r"""
    (?P<class> \\[dDsSwW] )
  | (?P<property> \\[pP]\{ [A-Za-z_]+ (?: = [A-Za-z_]+ )? \} )
  | (?P<pair> \\u[dD][89abAB][0-9A-Fa-f]{2} \\u[dD][c-fC-F][0-9A-Fa-f]{2} )
  | (?P<code> \\x[0-9A-Fa-f]{2} | \\u[0-9A-Fa-f]{4} | \\u\{[0-9A-Fa-f]{1,8}\} )
  | (?P<control> \\c[A-Za-z] )
  | (?P<letter> \\[fnrtv] | \\0(?![0-9]) )
  | (?P<itself> \\[^0-9A-Za-z] )
"""
_MEMBER: Final = re.compile(
    rf"{_ESCAPE} | (?P<backspace> \\b ) | (?P<plain> [^\\] )", re.VERBOSE | re.DOTALL
)
_TERM: Final = re.compile(
    rf"""{_ESCAPE}
  | (?P<open> \( (?: (?!\?) | \?: | \?<[A-Za-z_$][0-9A-Za-z_$]*> ) )
  | (?P<close> \) )
  | (?P<other> [|^$] )
  | (?P<times> (?: [*+?] | \{{[0-9]+(?:,[0-9]*)?\}} ) \?? )
  | (?P<any> \. )
  | (?P<set> \[\^? )
  | (?P<plain> [^\\(\[{{] )
""",
    re.VERBOSE | re.DOTALL,
)
_REFUSED: Final = (
    (r"\(\?<?[=!]", "look-around is not enforced"),
    (r"\\[bB]", "word boundaries are not enforced"),
    (r"\\[1-9k]", "what a group has matched is not remembered"),
    (r"\(\?", "no flags are known, and no other kinds of groups"),
    (r"\\.?", "that is no escape of ECMA-262"),
    (r"\[", "it is not closed"),
    (r".", "escape it: there is nothing for it to repeat"),
)


def translated(pattern: str) -> str:
    """Raises ValueError that says what is refused, and why."""
    out: list[str] = []
    at, is_repeatable = 0, False
    while at < len(pattern):
        found = _TERM.match(pattern, at)
        if found is None or (found.lastgroup == "times" and not is_repeatable):
            raise _refusal(pattern, at)
        kind, text = str(found.lastgroup), found[0]
        is_repeatable = kind not in ("times", "open", "other")
        at = found.end()
        match kind:
            case "set":
                members, at = _members(pattern, found.start(), at)
                out.append(_set(members, is_negated=text == "[^"))
            case "open":
                out.append("(?:")  # nothing refers to it
            case "any":
                out.append(f"[^{_LINE_END}{_CONTROL}]")
            case "close" | "other" | "times":
                out.append(text)
            case _:
                out.append(_single(kind, text))
    return "".join(out)


def _members(pattern: str, start: int, at: int) -> tuple[str, int]:
    """(what is in the brackets that begin at `start`, where they have ended)."""
    out: list[str] = []
    while not pattern.startswith("]", at):
        first, at = _member(pattern, start, at)
        if pattern.startswith("-", at) and not pattern.startswith("-]", at):
            last, at = _member(pattern, start, at + 1)
            if any(one.startswith(("[", r"\p", r"\P")) for one in (first, last)):
                raise ValueError(f"has {pattern[start:at]!r}: a class is no end of a range")
            first += f"-{last}"
        out.append(first)
    return "".join(out), at + 1


def _member(pattern: str, start: int, at: int) -> tuple[str, int]:
    found = _MEMBER.match(pattern, at)
    if found is None:
        raise _refusal(pattern, at if at < len(pattern) else start)
    return _atom(str(found.lastgroup), found[0]), found.end()


def _single(kind: str, text: str) -> str:
    """One character, by itself or of a class."""
    if kind == "property":
        return _set(text, is_negated=False)
    if kind != "class" and CONTROL.match(chr(_code(kind, text))):
        raise ValueError(f"has {text!r}: a control character, which no answer may")
    return _atom(kind, text)


def _set(members: str, *, is_negated: bool) -> str:
    if is_negated:
        return f"[^{members}{_CONTROL}]"
    if not members:
        return r"[^\x{0}-\x{10FFFF}]"
    return f"[{members}]" if _PLAIN.fullmatch(members) else f"[{members}&&[^{_CONTROL}]]"


def _atom(kind: str, text: str) -> str:
    if kind == "class":
        return _CLASSES[text]
    if kind == "property":
        return text
    return _character(_code(kind, text), text)


def _code(kind: str, text: str) -> int:
    match kind:
        case "pair":
            high, low = int(text[2:6], 16), int(text[8:], 16)
            return 0x10000 + ((high & 0x3FF) << 10) + (low & 0x3FF)
        case "code":
            return int(text[2:].strip("{}"), 16)
        case "control":
            return ord(text[2]) % 32
        case "letter":
            return _LETTERS[text[1]]
        case "backspace":
            return 0x08
    return ord(text[-1])


def _character(code: int, text: str) -> str:
    if 0xD800 <= code < 0xE000 or code > 0x10FFFF:
        raise ValueError(f"has {text!r}: that is no character")
    letter = chr(code)
    return letter if letter.isascii() and letter.isalnum() else rf"\x{{{code:X}}}"


def _refusal(pattern: str, at: int) -> ValueError:
    for construct, why in _REFUSED:
        if found := re.compile(construct, re.DOTALL).match(pattern, at):
            return ValueError(f"has {found[0]!r}: {why}")
    raise AssertionError("the last of them matches whatever is there")
