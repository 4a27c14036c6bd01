"""GET /openapi.json: what is served here, as an OpenAPI 3.1 document made from the code itself."""

import re
from importlib.metadata import version
from types import ModuleType

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from octavo.registry import entry, names
from octavo.server.exchange import json_response
from octavo.server.protocols.openai_chat import problem
from octavo.server.running import Engine
from octavo.types import Json

__all__ = ["METHOD", "NEEDS_KEY", "PATHS", "answer", "problem"]

METHOD, PATHS = "GET", ("/openapi.json",)
NEEDS_KEY = True

_PARAMETER = re.compile(r"{(\w+)(?::\w+)?}")


async def answer(engine: Engine, http: HttpRequest) -> Response:
    return json_response(document())


def document() -> Json:
    served = [entry("octavo.server.protocols", n) for n in names("octavo.server.protocols")]
    served += [entry("octavo.server.endpoints", n) for n in names("octavo.server.endpoints")]
    bodies = [file.Body for file in served if hasattr(file, "Body")]
    queries = [file.Query for file in served if hasattr(file, "Query")]
    found, shapes = _schemas(bodies)
    schemas = dict(zip(bodies, found, strict=True))
    for query in queries:
        (_,), shape = _schemas([query])
        schemas[query] = shape[query.__name__]
    paths: Json = {}
    for file in served:
        for path in _paths(file):
            shown = _PARAMETER.sub(r"{\1}", path)
            method = getattr(file, "METHOD", "POST").lower()
            paths.setdefault(shown, {})[method] = _operation(file, path, schemas)
    schemes = {
        "bearer": {"type": "http", "scheme": "bearer"},
        "header": {"type": "apiKey", "in": "header", "name": "x-api-key"},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Octavo", "version": version("octavo")},
        "paths": paths,
        "components": {"schemas": shapes, "securitySchemes": schemes},
    }


def _schemas(shapes: list[type[msgspec.Struct]]) -> tuple[tuple[Json, ...], Json]:
    """One for each, and those that they refer to, by name."""
    template = "#/components/schemas/{name}"
    return msgspec.json.schema_components(shapes, ref_template=template)


def _paths(file: ModuleType) -> tuple[str, ...]:
    return (file.PATH,) if hasattr(file, "PATH") else file.PATHS


def _operation(file: ModuleType, path: str, schemas: Json) -> Json:
    first = (file.__doc__ or "").partition("\n\n")[0]
    operation: Json = {
        "summary": " ".join(first.split()),
        "operationId": file.__name__.rsplit(".", 1)[1] + ("_one" if "{" in path else ""),
        "responses": {
            "200": {"description": "What was asked for."},
            "default": {"description": "One sentence that says what to change, in an envelope."},
        },
    }
    parameters: list[Json] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(path)
    ]
    if hasattr(file, "Query"):
        properties = schemas[file.Query]["properties"].items()
        parameters += [{"name": name, "in": "query", "schema": kind} for name, kind in properties]
    if parameters:
        operation["parameters"] = parameters
    if hasattr(file, "Body"):
        content = {"application/json": {"schema": schemas[file.Body]}}
        operation["requestBody"] = {"required": True, "content": content}
    if getattr(file, "NEEDS_KEY", True):
        operation["security"] = [{}, {"bearer": []}, {"header": []}]
    return operation
