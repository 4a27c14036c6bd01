"""Where schemas lie within a schema, and how such a place is spelled.

steps    ("properties", "a b")       one or two from a schema to those within it
shown    .properties["a b"]          from $ on, to people
pointer  #/properties/a%20b          from the root on (RFC 6901, section 6)
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TypeAlias
from urllib.parse import quote, unquote

from octavo.types import Json

Steps: TypeAlias = tuple[str, *tuple[str | int, ...]]

_ONE: Final = ("items", "additionalItems", "additionalProperties")  # each is a schema
_SEVERAL: Final = ("allOf", "anyOf", "oneOf", "prefixItems", "items")  # a list of them
_NAMED: Final = ("properties", "patternProperties", "$defs", "definitions")  # by name


def subschemas(schema: Json) -> Iterator[tuple[Steps, Any]]:
    """(the steps there, what lies there)."""
    for keyword, value in schema.items():
        if keyword in _NAMED and isinstance(value, dict):
            yield from (((keyword, name), part) for name, part in value.items())
        elif keyword in _SEVERAL and isinstance(value, list):
            yield from (((keyword, i), part) for i, part in enumerate(value))
        elif keyword in _ONE and not isinstance(value, list):
            yield (keyword,), value


def replaced(schema: Json, parts: Mapping[Steps, Any]) -> Json:
    """The schema, with these parts for its own."""
    out = {word: value.copy() if _holds(word, value) else value for word, value in schema.items()}
    for (keyword, *rest), part in parts.items():
        if rest:
            out[keyword][rest[0]] = part
        else:
            out[keyword] = part
    return out


def _holds(word: str, value: Any) -> bool:
    return isinstance(value, list | dict) and word in _SEVERAL + _NAMED


def shown(steps: Steps) -> str:
    """Whole: no two names have the same."""
    return "".join(map(_shown, steps))


def _shown(step: str | int) -> str:
    is_plain = isinstance(step, str) and re.fullmatch(r"[$\w-]{1,80}", step)
    return f".{step}" if is_plain else f"[{json.dumps(step)}]"


def pointer(names: Iterable[str]) -> str:
    escaped = (name.replace("~", "~0").replace("/", "~1") for name in names)
    return "#" + "".join("/" + quote(name, safe="~!$&'()*+,;=:@?") for name in escaped)


def names_of(pointer: str) -> tuple[str, ...]:
    """What `pointer` spells. Raises ValueError where it is none."""
    first, *names = unquote(pointer.removeprefix("#"), errors="strict").split("/")
    if first or any(re.search("~(?![01])", name) for name in names):
        raise ValueError(f"{pointer!r} is no pointer")
    return tuple(name.replace("~1", "/").replace("~0", "~") for name in names)


def found(root: Json, pointer: str) -> Any:
    """What lies there, which something does."""
    here: Any = root
    for name in names_of(pointer):
        here = here[int(name)] if isinstance(here, list) else here[name]
    return here


def references(schema: Any) -> Iterator[str]:
    """Of a schema and those within it."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield schema["$ref"]
        for _, part in subschemas(schema):
            yield from references(part)
