"""The OpenAPI document: valid, complete, and nothing that fits it breaks the server."""

from collections import Counter

import pytest
from checkpoints import write_tiny
from hypothesis import HealthCheck, given, settings
from msgspec import Struct
from serving import serving

from octavo.config import Config
from octavo.engine.async_engine import AsyncEngine
from octavo.registry import entry, names
from octavo.server.app import ENDPOINTS, PROTOCOLS
from octavo.server.endpoints.openapi import document

PATIENT = settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))


def test_every_path_is_in_it_and_every_field_of_every_body():
    shown = document()
    for file in [entry(PROTOCOLS, n) for n in names(PROTOCOLS)]:
        body = shown["paths"][file.PATH]["post"]["requestBody"]["content"]["application/json"]
        name = body["schema"]["$ref"].rsplit("/", 1)[1]
        properties = shown["components"]["schemas"][name]["properties"]
        assert set(properties) == set(file.Body.__struct_fields__)
    for file in [entry(ENDPOINTS, n) for n in names(ENDPOINTS)]:
        for path in file.PATHS:
            assert file.METHOD.lower() in shown["paths"][path.replace(":path}", "}")]
        operation = shown["paths"][file.PATHS[0].replace(":path}", "}")][file.METHOD.lower()]
        kinds = {"Body": "application/json", "Form": "multipart/form-data"}
        (sent,) = [kinds[kind] for kind in kinds if hasattr(file, kind)] or [None]
        assert operation.get("requestBody", {"content": {None: {}}})["content"].keys() == {sent}
        asked = {one["name"] for one in operation.get("parameters", []) if one["in"] == "query"}
        assert asked == set(getattr(file, "Query", Struct).__struct_fields__)


def test_every_optional_field_may_be_null():
    for name, shape in document()["components"]["schemas"].items():
        for field in shape.get("properties", {}).keys() - set(shape.get("required", ())):
            assert may_be_null(shape["properties"][field]), f"{name}.{field}"


def may_be_null(schema):
    if kinds := schema.get("anyOf"):
        return any(map(may_be_null, kinds))
    return (
        None in schema["enum"]
        if "enum" in schema
        else schema.get("type", "null") == "null" and "$ref" not in schema
    )


def test_operations_have_names_of_their_own():
    operations = [one for path in document()["paths"].values() for one in path.values()]
    assert len({one["operationId"] for one in operations}) == len(operations)
    assert all(one["summary"] for one in operations)


@pytest.mark.oracle
def test_it_is_openapi():
    import openapi_spec_validator

    openapi_spec_validator.validate(document())


@pytest.mark.oracle
def test_nothing_that_fits_it_is_an_error_of_ours(tmp_path):
    """Whatever schemathesis makes of the document, for a real engine over a tiny model."""
    import schemathesis

    path = write_tiny(tmp_path / "tiny.gguf", context=64)
    statuses = Counter()

    def send(url, case):
        if isinstance(case.body, dict) and "model" in case.body:
            case.body["model"] = "tiny"
            case.body.pop("timeout", None)  # who asks for no time at all is owed a 504
        statuses[case.call(base_url=url).status_code] += 1

    with serving(AsyncEngine(Config(str(path), memory=64 << 20))) as (_, url):
        schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
        for operation in schema.get_all_operations():
            cases = operation.ok().as_strategy()
            PATIENT(given(cases)(lambda case: send(url, case)))()
    assert statuses[200] > 50
    assert statuses[400] > 500
    assert max(statuses.keys() - {504}) < 500  # 504: some ask for a timeout that nothing meets
