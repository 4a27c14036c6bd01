"""JSON bodies: bytes in, a typed body and the names nobody knows out.

Whatever is wrong with the bytes becomes a BadRequest that names the field it lies in. Knows no
protocol. What JSON leaves open is closed here: a name stands once in an object, a number fits a
float, and there are limits to how many values a body has and how deep they nest, so that whoever
sends one holds up nobody else. No pattern below backtracks: what is wrong is found in linear time.
"""

import json
import re
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import accumulate
from math import isinf
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec
from msgspec import Meta, Struct, inspect

from octavo.errors import BadRequest
from octavo.server.marks import marks

Body = TypeVar("Body", bound=Struct)
Timeout = Annotated[float, Meta(gt=0, le=86400)]  # seconds that a request may take
CacheSalt = Annotated[str, Meta(min_length=1)]  # for prefixes of its own
Unknown: TypeAlias = Mapping[str, str | None]  # where a field stands -> the known one it is like

TWICE = "it is given more than once, give it once"
INLINE_BODY = 16 << 10  # bytes; a larger one is read beside the event loop, not on it
MAX_MESSAGES = 4096  # of one conversation
MAX_COMMAS = 1_000_000  # of one body, between its values: token ids, say
MAX_NAMED = 500_000  # of its objects, lists and names, each of which takes some hundred bytes
MAX_DEPTH = 128  # of objects and lists within each other
MAX_DIGITS = 308  # in a row; a number with more may not fit a float
MAX_HINTED = 20  # unknown fields for which the closest known one is looked for

_STRING = rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?'  # or what begins as one and does not end
# Numbers that may be huge: for its exponent, or for its digits.
_NUMBER = rb"(?<![0-9.])[0-9.]++[eE]\+?[0-9]++|(?<![0-9])[0-9]{%d,}+" % (MAX_DIGITS + 1)
_TOKEN = re.compile(rb"%s|%s|[{}\[\]:]" % (_STRING, _NUMBER), re.DOTALL)
# In a group of its own: half of a surrogate pair.
_HALF = re.compile(
    rb"\\(?:u[dD][89abAB]\w\w\\u[dD][c-fC-F]\w\w|(u[dD][89a-fA-F]\w\w)|.)", re.DOTALL
)
_DIGITS = bytes(0x30 if byte in b"0123456789" else 0x20 for byte in range(256))  # all are 0s
_MANY_DIGITS = b"0" * (MAX_DIGITS + 1)
_PLACE = re.compile(r" - at (`key` in )?`\$\.?([^`]*)`$")
ANY = "[...]"  # of an object's values, in msgspec's words
_STEP = re.compile(r"(\w+)|\[(\d+)\]")
_MISSING = re.compile(r"missing required field `(\w+)`")


@dataclass(frozen=True, slots=True)
class Unserved:
    """A field whose meaning we know, of a body that does not have it."""

    neutral: tuple[Any, ...] = ()  # the values that ask for nothing; null does, too
    instead: str | None = None  # the field that does it here


def decode(
    raw: bytes,
    shape: type[Body],
    *,
    unserved: Mapping[str, Unserved] = {},
    strict: bool = True,
) -> tuple[Body, Unknown]:
    """The body, and the fields in it that `shape` does not have. Raises BadRequest, also for a
    field of `unserved` whose value asks for something.

    strict  False: numbers and the like may be written as strings
    """
    try:
        raw.decode()
        found = marks(raw)
        _refuse_extremes(raw, found)
        body = msgspec.json.decode(raw, type=shape, strict=strict)
        sent = msgspec.json.decode(raw)
        if marks(msgspec.json.encode(sent)).count(b":") < found.count(b":"):
            json.loads(raw, object_pairs_hook=_once)
    except UnicodeDecodeError as error:
        raise BadRequest(f"byte {error.start} is not UTF-8", _field_at(raw, error.start)) from None
    except msgspec.ValidationError as error:
        if "out of range" in str(error) and _huge_number(raw):
            raise _too_large(raw) from None
        raise _invalid(str(error), raw, shape, strict=strict) from None
    except msgspec.DecodeError as error:
        raise _malformed(str(error), raw) from None
    unknown: dict[str, str | None] = {}
    for path, name, known in _unknown(sent, body, ""):
        if not path and name in unserved:
            _refuse_more(sent[name], unserved[name], name)
            continue
        close = get_close_matches(name[:50], known, n=1) if len(unknown) < MAX_HINTED else []
        unknown[path + name] = path + close[0] if close else None
    return body, unknown


def _refuse_extremes(raw: bytes, found: bytes) -> None:
    """Before anything makes as many things as a body has values, recurses as deep as they nest, or
    makes a number of a million digits. `found`: the marks of `raw`."""
    num_commas, num_begun = found.count(b","), found.count(b"[") + found.count(b"{")
    for number, limit, what in (
        (num_commas, MAX_COMMAS, "commas between values"),
        (num_begun + found.count(b":"), MAX_NAMED, "objects, lists and names"),
    ):
        if number > limit:
            raise BadRequest(f"the body has {number} {what}, the limit is {limit}: send fewer")
    if num_begun > MAX_DEPTH:
        brackets = found.translate(None, b'",:')
        steps = (1 if bracket in b"[{" else -1 for bracket in brackets)
        if max(accumulate(steps), default=0) > MAX_DEPTH:
            field = next(field for _, depth, field in _walk(raw) if depth > MAX_DEPTH)
            raise BadRequest(f"it is nested deeper than {MAX_DEPTH} levels: flatten it", field)
    if _MANY_DIGITS in raw.translate(_DIGITS) and _huge_number(raw):
        raise _too_large(raw)


def _once(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """JSON does not say which of two fields of one name holds: neither does here."""
    found = dict(pairs)
    if len(found) < len(pairs):
        ((name, _),) = Counter(name for name, _ in pairs).most_common(1)
        raise BadRequest(TWICE, name[:100])
    return found


def refuse_unserved(body: Struct, neutral: Mapping[str, tuple[Any, ...]], where: str = "") -> None:
    """Raises BadRequest for a field of `neutral` that asks for more than one of its values."""
    for name, nothing in neutral.items():
        _refuse_more(getattr(body, name), Unserved(nothing), where + name)


def _refuse_more(value: Any, known: Unserved, field: str) -> None:
    if value is None or value in known.neutral:
        return
    if known.instead is not None:
        raise BadRequest(f"not served, give {known.instead} instead", field)
    accepted = " or ".join(["null", *(msgspec.json.encode(v).decode() for v in known.neutral)])
    raise BadRequest(f"not served yet, leave it out or give {accepted}", field)


def check_fields(
    given: Struct, where: str, kind: str, required: Iterable[str], others: Iterable[str] = ()
) -> None:
    """`where` it stands, up to the dot, and what `kind` of thing it is. Raises BadRequest where it
    lacks a field that such a one needs, or has one that it cannot have and that would be lost."""
    for name in given.__struct_fields__:
        if getattr(given, name) is None:
            if name in required:
                raise BadRequest("it is required", where + name)
        elif name not in ("type", *required, *others):
            raise BadRequest(f"{kind} has none, leave it out", where + name)


def _too_large(raw: bytes) -> BadRequest:
    field, number = _huge_number(raw) or (None, "a number")
    return BadRequest(f"{number[:40]} is larger than any float, give a smaller number", field)


def _huge_number(raw: bytes) -> tuple[str | None, str] | None:
    """The top-level field it lies in, and the number."""
    for token, _, field in _walk(raw):
        if token[:1] in b"0123456789" and isinf(_as_float(token)):
            return field, token.decode()
    return None


def _as_float(token: bytes) -> float:
    try:
        return float(token)
    except ValueError:  # 1.2.3e4
        return 0.0


def _malformed(problem: str, raw: bytes) -> BadRequest:
    half = next((escape for escape in _HALF.finditer(raw) if escape[1]), None)
    if half and ("surrogate" in problem or "truncated" in problem):
        said = f"{half[0].decode()} is half of a surrogate pair, give both halves or neither"
        return BadRequest(said, _field_at(raw, half.start()))
    byte = re.search(r"\(byte (\d+)\)", problem)
    return BadRequest(f"not JSON: {problem}", _field_at(raw, int(byte[1]) if byte else len(raw)))


def _invalid(problem: str, raw: bytes, shape: type[Struct], *, strict: bool) -> BadRequest:
    place = _PLACE.search(problem)
    is_key, path = (place[1], place[2]) if place else (None, "")
    said = _PLACE.sub("", problem)
    if missing := _MISSING.search(said):
        return BadRequest("it is required", f"{path}.{missing[1]}".lstrip("."))
    value = _value_at(raw, path)
    if (is_key or path.endswith(ANY)) and (
        entry := _entry(value, path, shape, said, strict=strict)
    ):
        key, value = entry
        path, value = (path, key) if is_key else (f"{path.removesuffix(ANY)}.{key[:100]}", value)
    elif said.startswith("Invalid enum value"):
        allowed = ", ".join(map(repr, _allowed(shape, path)))
        return BadRequest(f"{str(value)[:40]!r} is none of {allowed}", path)
    shown = "" if isinstance(value, dict | list | None) else f", {str(value)[:40]!r} is not"
    return BadRequest(f"{said[0].lower()}{said[1:]}{shown}", path or None)


def _entry(
    object: Any, path: str, shape: type[Struct], problem: str, *, strict: bool
) -> tuple[str, Any] | None:
    """(name, value) of the entry that is at fault in the object at `path`, which is all that
    msgspec names: each entry is tried alone until one has that `problem`."""
    for key, value in object.items() if isinstance(object, dict) else ():
        alone: Any = {key: value}
        for name, _ in reversed(_STEP.findall(path)):
            alone = {name: alone} if name else [alone]
        try:
            msgspec.json.decode(msgspec.json.encode(alone), type=shape, strict=strict)
        except msgspec.ValidationError as error:
            if _PLACE.sub("", str(error)) == problem:
                return key, value
    return None


def _allowed(shape: type[Struct], path: str) -> list[Any]:
    """The values that may stand at "messages[0].role"."""
    kinds = [inspect.type_info(shape)]
    for name, _ in _STEP.findall(path):
        kinds = [inner for kind in _plain(kinds) for inner in _inner(kind, name)]
    literals = [kind for kind in _plain(kinds) if isinstance(kind, inspect.LiteralType)]
    return [value for literal in literals for value in literal.values]


def holds_list(kind: Any) -> bool:
    """May a field of that type be a list?"""
    return any(isinstance(one, inspect.ListType) for one in _plain([inspect.type_info(kind)]))


def _plain(kinds: Iterable[inspect.Type]) -> Iterator[inspect.Type]:
    """Without unions and metadata around them."""
    for kind in kinds:
        if isinstance(kind, inspect.UnionType):
            yield from _plain(kind.types)
        elif isinstance(kind, inspect.Metadata):
            yield from _plain([kind.type])
        else:
            yield kind


def _inner(kind: inspect.Type, name: str) -> Iterator[inspect.Type]:
    """Of the field of that name, or of the items where there is none."""
    if name and isinstance(kind, inspect.StructType):
        yield from (field.type for field in kind.fields if field.encode_name == name)
    elif not name and isinstance(kind, inspect.ListType):
        yield kind.item_type


def _value_at(raw: bytes, path: str) -> Any:
    """What stands at "messages[0].role"; None where the rest of the body cannot be read."""
    try:
        tree = msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return None
    for name, index in _STEP.findall(path):
        tree = tree[name] if name else tree[int(index)]
    return tree


def _unknown(sent: Any, read: object, path: str) -> Iterator[tuple[str, str, tuple[str, ...]]]:
    """(where it stands, its name, what is known there) of each."""
    if isinstance(read, Struct):
        for name, value in sent.items():
            if name in read.__struct_fields__:
                yield from _unknown(value, getattr(read, name), f"{path}{name}.")
            else:
                yield path, name, read.__struct_fields__
    elif isinstance(read, list) and any(isinstance(item, Struct) for item in read):
        for place, (value, item) in enumerate(zip(sent, read, strict=True)):
            yield from _unknown(value, item, f"{path[:-1]}[{place}].")


def _field_at(raw: bytes, place: int) -> str | None:
    """The top-level field whose value holds byte `place`, as far as the bytes can be read."""
    last = deque(_walk(raw[:place]), maxlen=1)
    return last[0][2] if last else None


def _walk(raw: bytes) -> Iterator[tuple[bytes, int, str | None]]:
    """Every token of bytes that need not be JSON, the depth after it and the top-level field it
    belongs to."""
    depth, last, field = 0, "", None
    for found in _TOKEN.finditer(raw):
        token = found[0]
        if token in b"{[":
            depth += 1
        elif token in b"}]":
            depth -= 1
            field = field if depth else None
        elif token == b":" and depth == 1:
            field = last
        elif token[:1] == b'"' and depth == 1:
            last = token[1:101].rstrip(b'"').decode(errors="replace")
        yield token, depth, field
