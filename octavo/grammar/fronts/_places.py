"""Where schemas lie within a schema, and how such a place is spelled.

names    ("properties", "a b")   from a schema to one within it, or from the root on
shown    .properties["a b"]      to people
pointer  #/properties/a%20b      from the root on (RFC 6901, section 6)
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final, TypeAlias
from urllib.parse import quote, unquote

from octavo.types import Json

Names: TypeAlias = tuple[str, ...]

_ONE: Final = ("items", "additionalItems", "additionalProperties")  # each is a schema
_SEVERAL: Final = ("allOf", "anyOf", "oneOf", "prefixItems", "items")  # a list of them
_NAMED: Final = ("properties", "patternProperties", "$defs", "definitions")  # by name


def subschemas(schema: Json) -> Iterator[tuple[Names, Any]]:
    """(the one or two names of the way there, what lies there)."""
    for keyword, value in schema.items():
        if keyword in _NAMED and isinstance(value, dict):
            yield from (((keyword, name), part) for name, part in value.items())
        elif keyword in _SEVERAL and isinstance(value, list):
            yield from (((keyword, str(i)), part) for i, part in enumerate(value))
        elif keyword in _ONE and not isinstance(value, list):
            yield (keyword,), value


def by_keyword(schema: Json) -> dict[str, dict[str, Any]]:
    """The schemas within, by name; the only one of a keyword is called ""."""
    out: dict[str, dict[str, Any]] = defaultdict(dict)
    for (keyword, *name), part in subschemas(schema):
        out[keyword]["".join(name)] = part
    return out


def replaced(schema: Json, parts: Mapping[Names, Any]) -> Json:
    """The schema, with these parts for its own."""
    out = {word: value.copy() if _holds(word, value) else value for word, value in schema.items()}
    for (*way, last), part in parts.items():
        holder = _at(out, way)
        holder[_key(holder, last)] = part
    return out


def _holds(word: str, value: Any) -> bool:
    return isinstance(value, list | dict) and word in _SEVERAL + _NAMED


def shown(names: Names) -> str:
    """Whole: no two names have the same."""
    return "".join(map(_shown, names))


def _shown(name: str) -> str:
    if re.fullmatch("[0-9]+", name):
        return f"[{name}]"
    return f".{name}" if re.fullmatch(r"[$\w-]{1,80}", name) else f"[{json.dumps(name)}]"


def pointer(names: Iterable[str]) -> str:
    escaped = (name.replace("~", "~0").replace("/", "~1") for name in names)
    return "#" + "".join("/" + quote(name, safe="~!$&'()*+,;=:@?") for name in escaped)


def names_of(pointer: str) -> Names:
    """What `pointer` spells. Raises ValueError where it is none."""
    first, *names = unquote(pointer.removeprefix("#"), errors="strict").split("/")
    if first or any(re.search("~(?![01])", name) for name in names):
        raise ValueError(f"{pointer!r} is no pointer")
    return tuple(name.replace("~1", "/").replace("~0", "~") for name in names)


def found(root: Json, pointer: str) -> Any:
    """What lies there, which something does."""
    return _at(root, names_of(pointer))


def _at(here: Any, names: Iterable[str]) -> Any:
    for name in names:
        here = here[_key(here, name)]
    return here


def _key(holder: Any, name: str) -> str | int:
    return int(name) if isinstance(holder, list) else name


def references(schema: Any, names: Names = ()) -> Iterator[tuple[Names, str]]:
    """(the names of the way to who refers, the pointer) of a schema and those within it."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            yield names, schema["$ref"]
        for inner, part in subschemas(schema):
            yield from references(part, names + inner)
