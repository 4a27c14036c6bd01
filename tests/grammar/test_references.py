"""References of schemas against `jsonschema`: what is taken leads where the specification says, and
what leads anywhere else is refused, by keyword and place."""

import json

import jsonschema
import pytest
from grammars import allows, grammars
from hypothesis import given
from hypothesis import strategies as st
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from octavo import BadRequest
from octavo.grammar.fronts._places import found, names_of, pointer
from octavo.grammar.fronts._references import located
from octavo.types import Grammar

ODD = ["a b", "a/b", "a~b", "~1", "a%b", "%25", 'q"', "größe", "#", "?", "0", "", "$ref", "a\\b"]


def grammar_of(schema):
    return Grammar("json_schema", json.dumps(schema))


@pytest.mark.parametrize(
    "reference",
    [
        "#/enum/0",
        "#/properties",
        "#/properties/a/const",
        "#/x-ours/one",
        "#/default",
        "#/required/0",
        "#/$defs",
        "#/$defs/",
        "#/$defs/b/",
        "#/$defs/%ff",
        "#/$defs/a~2b",
        "#/$defs/a b",
        "#/anyOf/-",
        "#/anyOf/01",
        "#/anyOf/2",
        "#nowhere",
        "#B",
        "other.json",
        "other.json#/$defs/b",
        "http://json-schema.org/draft-07/schema#",
        "http://[x",
        None,
        3,
        ["#"],
    ],
)
def test_a_reference_to_anything_but_a_schema_of_the_document_is_refused(reference):
    schema = {
        "properties": {"a": {"const": {"type": "string"}}, "r": {"items": {"$ref": reference}}},
        "enum": [{"type": "string"}],
        "x-ours": {"one": {"type": "string"}},
        "default": {"type": "string"},
        "required": ["r"],
        "anyOf": [{}, {}],
        "$defs": {"b": {"$anchor": "b"}, "a~2b": {}, "a b": {}, "�": {}},
    }
    with pytest.raises(BadRequest, match=r"schema: '\$ref' at \$.properties.r.items ") as refusal:
        grammars().compile(grammar_of(schema))
    assert "\n" not in str(refusal.value)


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        ({"items": {"$id": "a", "$anchor": "1"}}, "'$anchor' at $.items is no name"),
        ({"items": {"$id": 3}}, "'$id' at $.items is no URI"),
        ({"items": {"$id": "a b"}}, "'$id' at $.items is no URI"),
        ({"$id": "http://a/#b"}, "'$id' at $ has a fragment"),
        (
            {"$id": "urn:a:b", "items": {"$id": "c"}},
            "'$id' at $.items is no URI, or not one beside",
        ),
        (
            {"$defs": {"a": {"$id": "x"}, "b": {"$id": "x"}}},
            "'$id' at $.$defs.b is that of another schema, too",
        ),
        (
            {"anyOf": [{"$anchor": "x"}, {"$anchor": "x"}]},
            "'$anchor' at $.anyOf[1] is that of another",
        ),
        (
            {"items": {"$schema": "http://json-schema.org/draft-07/schema#"}},
            "'$schema' at $.items is not that of the root",
        ),
        (
            {
                "$schema": "http://json-schema.org/draft-07/schema#",
                "items": {"$id": "x", "$ref": "#"},
            },
            "'$id' at $.items says nothing beside '$ref'",
        ),
        ({"$dynamicRef": "#a"}, "'$dynamicRef' at $ is not enforced"),
        ({"items": {"$dynamicAnchor": "a"}}, "'$dynamicAnchor' at $.items is not enforced"),
        ({"$recursiveRef": "#"}, "'$recursiveRef' at $ is not enforced"),
    ],
)
def test_what_names_a_schema_ambiguously_or_not_at_all_is_refused(schema, problem):
    with pytest.raises(BadRequest) as refusal:
        grammars().compile(grammar_of(schema))
    assert problem in str(refusal.value)


@pytest.mark.parametrize("name", ODD)
def test_a_pointer_may_spell_any_name(name):
    schema = {
        "type": "object",
        "properties": {"r": {"$ref": pointer(["$defs", name])}},
        "required": ["r"],
        "additionalProperties": False,
        "$defs": {other: {"const": i} for i, other in enumerate(ODD)},
    }
    assert names_of(pointer(["$defs", name])) == ("$defs", name)
    said = [i for i in range(len(ODD)) if allows(grammar_of(schema), json.dumps({"r": i}))]
    assert said == [ODD.index(name)]
    assert jsonschema.Draft202012Validator(schema).is_valid({"r": said[0]})


WITHIN = {
    "$id": "http://a/b/c",
    "properties": {
        "root": {"$ref": "#/$defs/one"},
        "anchor": {"$ref": "#two"},
        "id": {"$ref": "d"},
        "absolute": {"$ref": "http://a/b/d"},
        "anchor_of_another": {"$ref": "d#two"},
        "pointer_in_another": {"$ref": "/b/d#/$defs/%6fne"},
        "whole_way": {"$ref": "#/$defs/three/$defs/one"},
        "of_another": {"$ref": "#/$defs/three/properties/own"},
    },
    "$defs": {
        "one": {"const": 1},
        "two": {"$anchor": "two", "const": 2},
        "three": {
            "$id": "d",
            "enum": [3, {"own": 4}],
            "properties": {"own": {"$ref": "#/$defs/one"}},
            "$defs": {"one": {"const": 4}, "two": {"$anchor": "two", "const": 5}},
        },
    },
    "additionalProperties": False,
}


@pytest.mark.parametrize("name", WITHIN["properties"])
def test_a_reference_is_relative_to_the_schema_that_it_is_within(name):
    values = [*range(7), {"own": 4}, {"own": 1}]
    valid = jsonschema.Draft202012Validator(WITHIN).is_valid
    said = [v for v in values if allows(grammar_of(WITHIN), json.dumps({name: v}))]
    assert said == [v for v in values if valid({name: v})]
    assert said


def kind(name):
    return {"type": "object", "properties": {"kind": {"const": name}}, "required": ["kind"]}


REWRITTEN = {
    "properties": {
        "one": {"oneOf": [kind("a"), {"oneOf": [kind("b"), kind("c")]} | kind("b")]},
        "oneOf": {"patternProperties": {r"^\d$": {"const": 1}, "^oneOf$": {"const": 2}}},
        "a": {"$ref": "#/properties/one/oneOf/0"},
        "b": {"$ref": "#/properties/one/oneOf/1/oneOf/0/properties/kind"},
        "c": {"$ref": "#/properties/oneOf/patternProperties/%5E%5Cd$"},
        "d": {"$ref": "#/properties/oneOf/patternProperties/^oneOf$"},
        "e": {"$ref": "#/properties/oneOf"},
    },
    "additionalProperties": False,
}


@pytest.mark.parametrize("name", REWRITTEN["properties"])
def test_a_reference_may_lead_through_what_is_written_anew(name):
    values = [{"kind": k} for k in "abc"] + [*"abc", 1, 2, {"1": 1}, {"1": 2}, {"oneOf": 2}]
    valid = jsonschema.Draft202012Validator(REWRITTEN).is_valid
    said = [v for v in values if allows(grammar_of(REWRITTEN), json.dumps({name: v}))]
    assert said == [v for v in values if valid({name: v})]
    assert 0 < len(said) < len(values)


URIS = st.sampled_from(["a", "b/", "b/a", "../a", "http://x/a", "http://y/b/", "urn:z", "/a"])
FRAGMENTS = st.sampled_from(["", "#n", "#m", "#/$defs/p", "#/$defs/p/$defs/q", "#/$defs/%70"])


def named(inner):
    """Perhaps with names of its own."""
    return st.builds(
        lambda id, anchor, inner: {"$defs": inner} | id | anchor,
        st.one_of(st.just({}), URIS.map(lambda uri: {"$id": uri})),
        st.one_of(st.just({}), st.sampled_from("nm").map(lambda name: {"$anchor": name})),
        st.dictionaries(st.sampled_from("pq"), inner),
    )


def places(schema, names=()):
    yield names, schema
    for name, part in schema["$defs"].items():
        yield from places(part, (*names, "$defs", name))


def meant(root, names, reference):
    """What the schema at `names` refers to, by the package `referencing`."""
    resource, here = DRAFT202012.create_resource(root), root
    resolver = Registry().with_resource("", resource).resolver().in_subresource(resource)
    for keyword, name in zip(names[::2], names[1::2], strict=True):
        here = here[keyword][name]
        resolver = resolver.in_subresource(DRAFT202012.create_resource(here))
    return resolver.lookup(reference).contents


@given(named(named(named(st.nothing()))), st.one_of(st.just(""), URIS), FRAGMENTS, st.data())
def test_a_reference_that_is_taken_leads_where_the_specification_says(root, uri, fragment, data):
    for number, (_, schema) in enumerate(places(root)):
        schema["title"] = number
    names, origin = data.draw(st.sampled_from(list(places(root))))
    origin["$ref"] = uri + fragment
    try:
        written = located(root, "schema")
    except BadRequest:
        return
    assert (
        found(written, found(written, pointer(names))["$ref"])["title"]
        == (meant(root, names, uri + fragment)["title"])
    )
