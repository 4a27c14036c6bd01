"""What an answer must be, in OpenAI's words: the value of `response_format`, and of `text.format`
in Responses, which names the same things one level higher.

Knows what is asked; whether a schema can be held to is the engine's to say.
"""

from typing import Any, Literal

from msgspec import Struct

from octavo.errors import BadRequest
from octavo.server.bodies import check_fields
from octavo.types import Json

ANY_OBJECT: Json = {"type": "object"}


class JsonSchema(Struct):
    schema: dict[str, Any] | None = None
    # They say nothing of the answer.
    name: str | None = None
    description: str | None = None
    strict: bool | None = None  # it is held to either way


class Format(Struct):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None
    schema: Any = None  # where llama.cpp and others have it; not served: see schema_of


class FlatFormat(JsonSchema, kw_only=True):
    """As Responses have it."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: Any = None  # where chat completions have it; not served: see schema_of


def schema_of(given: Format | FlatFormat | None, field: str) -> Json | None:
    """None: any text will do. Raises BadRequest."""
    if given is None:
        return None
    misplaced = "schema" if isinstance(given, Format) else "json_schema"
    if getattr(given, misplaced) is not None:
        problem = f"not served, give type 'json_schema' and {schema_field(given, field)} instead"
        raise BadRequest(problem, f"{field}.{misplaced}")
    if given.type != "json_schema":
        check_fields(given, f"{field}.", f"a format of type {given.type!r}", ())
        return ANY_OBJECT if given.type == "json_object" else None
    where = given.json_schema if isinstance(given, Format) else given
    if where is None or where.schema is None:
        raise BadRequest("it is required", schema_field(given, field))
    return where.schema


def schema_field(given: Format | FlatFormat, field: str) -> str:
    """Where the schema stands."""
    return f"{field}.json_schema.schema" if isinstance(given, Format) else f"{field}.schema"
