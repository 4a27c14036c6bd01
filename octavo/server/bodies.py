"""JSON bodies: bytes in, a typed body and the names nobody knows out.

Whatever is wrong with the bytes becomes a BadRequest that names the field it lies in. Knows no
protocol.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, TypeAlias, TypeVar

import msgspec
from msgspec import Meta, Struct, inspect

from octavo.errors import BadRequest

Body = TypeVar("Body", bound=Struct)
Timeout = Annotated[float, Meta(gt=0, le=86400)]  # seconds that a request may take
Unknown: TypeAlias = Mapping[str, str | None]  # where a field stands -> the known one it is like

_TOKEN = re.compile(rb'"(?:[^"\\]|\\.)*"|[{}\[\]:]')
_PLACE = re.compile(r" - at (?:`key` in )?`\$\.?([^`]*)`$")
_STEP = re.compile(r"(\w+)|\[(\d+)\]")
_MISSING = re.compile(r"missing required field `(\w+)`")


def decode(raw: bytes, shape: type[Body], *, strict: bool = True) -> tuple[Body, Unknown]:
    """The body, and the fields in it that `shape` does not have. Not strict: a text may stand for a
    number, as in queries and forms."""
    try:
        raw.decode()
        body = msgspec.json.decode(raw, type=shape, strict=strict)
        sent = msgspec.json.decode(raw)
    except UnicodeDecodeError as error:
        raise BadRequest(f"byte {error.start} is not UTF-8", _field_at(raw, error.start)) from None
    except RecursionError:
        raise BadRequest("it is nested too deeply", _deepest_field(raw)) from None
    except msgspec.ValidationError as error:
        raise _invalid(str(error), raw, shape) from None
    except msgspec.DecodeError as error:
        byte = re.search(r"\(byte (\d+)\)", str(error))
        place = int(byte[1]) if byte else len(raw)
        raise BadRequest(f"not JSON: {error}", _field_at(raw, place)) from None
    return body, dict(_unknown(sent, body, ""))


def refuse_unserved(body: Struct, neutral: Mapping[str, tuple[Any, ...]], where: str = "") -> None:
    """Raises BadRequest for a field of `neutral` that asks for more than one of its values."""
    for name, nothing in neutral.items():
        value = getattr(body, name)
        if value is not None and value not in nothing:
            accepted = " or ".join(["null", *(msgspec.json.encode(v).decode() for v in nothing)])
            raise BadRequest(f"not served yet, leave it out or give {accepted}", where + name)


def _invalid(problem: str, raw: bytes, shape: type[Struct]) -> BadRequest:
    place = _PLACE.search(problem)
    path = place[1] if place else ""
    said = _PLACE.sub("", problem)
    if missing := _MISSING.search(said):
        return BadRequest("it is required", f"{path}.{missing[1]}".lstrip("."))
    value = _value_at(raw, path)
    if said.startswith("Invalid enum value"):
        allowed = ", ".join(map(repr, _allowed(shape, path)))
        return BadRequest(f"{str(value)[:40]!r} is none of {allowed}", path)
    shown = "" if isinstance(value, dict | list | None) else f", {str(value)[:40]!r} is not"
    return BadRequest(f"{said[0].lower()}{said[1:]}{shown}", path or None)


def _allowed(shape: type[Struct], path: str) -> list[Any]:
    """The values that may stand at "messages[0].role"."""
    kinds = [inspect.type_info(shape)]
    for name, _ in _STEP.findall(path):
        kinds = [inner for kind in _plain(kinds) for inner in _inner(kind, name)]
    literals = [kind for kind in _plain(kinds) if isinstance(kind, inspect.LiteralType)]
    return [value for literal in literals for value in literal.values]


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
    except (msgspec.DecodeError, RecursionError):
        return None
    for name, index in _STEP.findall(path):
        tree = tree[name] if name else tree[int(index)]
    return tree


def _unknown(sent: Any, read: object, path: str) -> Iterator[tuple[str, str | None]]:
    if isinstance(read, Struct):
        for name, value in sent.items():
            if name in read.__struct_fields__:
                yield from _unknown(value, getattr(read, name), f"{path}{name}.")
            else:
                close = get_close_matches(name[:50], read.__struct_fields__, n=1)
                yield path + name, path + close[0] if close else None
    elif isinstance(read, list) and any(isinstance(item, Struct) for item in read):
        for place, (value, item) in enumerate(zip(sent, read, strict=True)):
            yield from _unknown(value, item, f"{path[:-1]}[{place}].")


def _field_at(raw: bytes, place: int) -> str | None:
    """The top-level field whose value holds byte `place`, as far as the bytes can be read."""
    return _walk(raw[:place])[0]


def _deepest_field(raw: bytes) -> str | None:
    return _walk(raw)[1]


def _walk(raw: bytes) -> tuple[str | None, str | None]:
    """The top-level field the bytes end in, and the one that is nested deepest."""
    depth = deepest = 0
    last = field = deep = None
    for token in _TOKEN.findall(raw):
        if token in b"{[":
            depth += 1
            if depth > deepest:
                deepest, deep = depth, field
        elif token in b"}]":
            depth -= 1
        elif token == b":" and depth == 1:
            field = last
        else:
            last = token[1:-1].decode(errors="replace")
    return field, deep
