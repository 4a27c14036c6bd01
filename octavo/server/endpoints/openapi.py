"""GET /openapi.json: what is served here, as an OpenAPI 3.1 document made from the code itself."""

import re
from importlib.metadata import version
from types import ModuleType

import msgspec
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from octavo.registry import entry, names
from octavo.server.exchange import json_response
from octavo.server.protocols._openai import problem
from octavo.server.running import Engine
from octavo.types import Json

__all__ = ["METHOD", "NEEDS_KEY", "PATHS", "answer", "problem"]

METHOD, PATHS = "GET", ("/openapi.json",)
NEEDS_KEY = True

FOLDERS = ("octavo.server.protocols", "octavo.server.endpoints")
SENT = ("Body", "Form")
FILE = {  # that comes with a form
    "type": "object",
    "properties": {"file": {"type": "string", "format": "binary"}},
    "required": ["file"],
}
_PARAMETER = re.compile(r"{(\w+)(?::\w+)?}")


async def answer(engine: Engine, http: HttpRequest) -> Response:
    return json_response(document())


def document() -> Json:
    served = [entry(folder, name) for folder in FOLDERS for name in names(folder)]
    structs = [getattr(file, kind) for file in served for kind in SENT if hasattr(file, kind)]
    found, shapes = msgspec.json.schema_components(
        structs, ref_template="#/components/schemas/{name}"
    )
    schemas = dict(zip(structs, found, strict=True))
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
    if parameters := [*_in_path(path), *_in_query(file)]:
        operation["parameters"] = parameters
    if hasattr(file, "Body"):
        content = {"application/json": {"schema": schemas[file.Body]}}
        operation["requestBody"] = {"required": True, "content": content}
    if hasattr(file, "Form"):
        form = {"allOf": [schemas[file.Form], FILE]}
        content = {"multipart/form-data": {"schema": form}}
        operation["requestBody"] = {"required": True, "content": content}
    if getattr(file, "NEEDS_KEY", True):
        operation["security"] = [{}, {"bearer": []}, {"header": []}]
    return operation


def _in_path(path: str) -> list[Json]:
    return [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _PARAMETER.findall(path)
    ]


def _in_query(file: ModuleType) -> list[Json]:
    if not hasattr(file, "Query"):
        return []
    (shape,) = msgspec.json.schema(file.Query)["$defs"].values()
    return [
        {"name": name, "in": "query", "schema": schema}
        for name, schema in shape["properties"].items()
    ]
