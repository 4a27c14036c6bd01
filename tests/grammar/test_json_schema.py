"""Schemas against `jsonschema`: what it calls invalid is never allowed, and what would not be
enforced is refused, by keyword and place."""

import json
from random import Random

import pytest
from examples import examples
from grammars import allows, answer, grammars
from hypothesis import HealthCheck, given, reject
from hypothesis import strategies as st
from hypothesis.errors import InvalidArgument
from schemas import from_schema, is_valid, schemas, several_of_an_object

from octavo import BadRequest
from octavo.grammar.fronts.json_schema import enforceable
from octavo.types import Grammar


def schema_of(value):
    return Grammar("json_schema", json.dumps(value))


ONLY_A = {
    "$defs": {"only_a": {"patternProperties": {"^a$": {}}, "additionalProperties": False}},
}


def endless(name):
    again = {"properties": {name: {"$ref": "#/$defs/a"}}, "required": [name]}
    return {"allOf": [{"type": "object"}, again]}


@pytest.mark.parametrize(
    ("schema", "place"),
    [
        ({"uniqueItems": True}, "'uniqueItems' at $ "),
        ({"properties": {"tags": {"items": {"not": {}}}}}, "'not' at $.properties.tags.items "),
        ({"properties": {"a b": {"if": {}}}}, "'if' at $.properties[\"a b\"] "),
        ({"anyOf": [{}, {"contains": {}}]}, "'contains' at $.anyOf[1] "),
        ({"prefixItems": [{"minlength": 2}]}, "'minlength' at $.prefixItems[0] "),
        ({"$defs": {"a": {"dependentRequired": {}}}}, "'dependentRequired' at $.$defs.a "),
        ({"additionalProperties": {"nullable": True}}, "'nullable' at $.additionalProperties "),
        ({"unevaluatedProperties": False}, "'unevaluatedProperties' at $ "),
        ({"items": {"format": "uri-template"}}, "'format' at $.items is 'uri-template'"),
        ({"format": "unknown"}, "'format' at $ is 'unknown'"),
        ({"format": ["date"]}, "'format' at $ is "),
        ({"minProperties": 2}, "'minProperties' at $ is enforced up to 1"),
        ({"multipleOf": 99_999_989}, "'multipleOf' at $ needs more than"),
        ({"allOf": [{"multipleOf": 97}, {"multipleOf": 997}]}, "'multipleOf' at $.allOf[1] needs"),
        ({"multipleOf": 0}, "'multipleOf' at $ is not a number above 0"),
        ({"properties": {"a": {"const": "x\0y"}}}, "'const' at $.properties.a has a control"),
        ({"properties": {"a": {"type": "strng"}}}, "'type' at $.properties.a: "),
        (
            {
                "type": "object",
                "required": ["a"],
                "properties": {"a": {"type": "integer", "minimum": 3, "maximum": 2}},
            },
            "'required' at $: Unsatisfiable",
        ),
        ({"properties": {"a": {"pattern": "(?=a)"}}}, "'pattern' at $.properties.a has '(?='"),
        (
            {"$ref": "#/$defs/a", "$defs": {"a": {"items": {"pattern": "a^b"}}}},
            "'pattern' at $.$defs.a.items: ",
        ),
        (
            {"items": {"oneOf": [{"type": "number"}, {"type": "integer"}]}},
            "'oneOf' at $.items: it is enforced only where",
        ),
        ({"patternProperties": {"^a": {}, "b$": {}}}, "'patternProperties' at $: "),
        (
            {
                "items": {
                    "type": "object",
                    "properties": {"id": {"type": "integer"}},
                    "patternProperties": {"^id$": {"minimum": 3}},
                    "additionalProperties": False,
                }
            },
            "'patternProperties' at $.items has no name left",
        ),
        (
            {
                "type": "object",
                "properties": {"q": {"type": "string", "pattern": "^a{65536}$"}},
                "required": ["q"],
            },
            "'pattern' at $.properties.q: a text or pattern makes 65536 bytes come, more",
        ),
        ({"patternProperties": {"^y{65536}$": {}}}, "'patternProperties' at $: a text or pattern"),
        (
            {"items": {"required": ["a"], "allOf": [{"$ref": "#/$defs/only_a"}]}} | ONLY_A,
            "'allOf' at $.items has no name left",
        ),
        (
            {"properties": {"o": {"$ref": "#/$defs/only_a", "required": ["a"]}}} | ONLY_A,
            "'$ref' at $.properties.o has no name left",
        ),
        (
            {"required": ["a"], "anyOf": [{"required": ["b"]}, {"$ref": "#/$defs/only_a"}]}
            | ONLY_A,
            "'anyOf' at $ has no name left",
        ),
        (
            {"properties": {"a": {}}, "patternProperties": {"": False}},
            "'patternProperties' at $ has no name left",
        ),
        ({"$ref": "#"}, "'$ref' at $ leads to what no finite answer fits"),
        (
            {"properties": {"child": {"$ref": "#/$defs/a"}}, "$defs": {"a": endless("child")}},
            "'$ref' at $.properties.child leads to what no finite",
        ),
        (
            {"anyOf": [{"type": "null"}, {"$ref": "#/$defs/a"}], "$defs": {"a": endless("b")}},
            "'$ref' at $.anyOf[1] leads to what no finite",
        ),
        (
            {"items": {"type": "array", "minItems": 1, "items": {"$ref": "#/items"}}},
            "'$ref' at $.items.items leads to what no finite",
        ),
        (
            {
                "items": {
                    "type": "object",
                    "minProperties": 1,
                    "additionalProperties": {"anyOf": [{"$ref": "#/items"}, {"$ref": "#/items"}]},
                }
            },
            "'$ref' at $.items.additionalProperties.anyOf[0] leads to what no finite",
        ),
        ({"$ref": "http://example.com/x"}, "'$ref' at $ leads to no schema"),
        ({"items": 3}, "$.items is not a schema"),
        ({"properties": {"a": None}}, "$.properties.a is not a schema"),
        ({"properties": {str(i): {} for i in range(401)}}, "'properties' at $ has 401 that are"),
        (
            {"items": {"pattern": "^((a{1000}){1000}){1000}$"}},
            "'pattern' at $.items: a text or pattern makes 1000000000 bytes come",
        ),
    ],
)
def test_what_is_not_enforced_is_refused_by_keyword_and_place(schema, place):
    with pytest.raises(BadRequest) as refusal:
        grammars().compile(schema_of(schema))
    assert refusal.value.field == "schema"
    assert str(refusal.value).startswith("schema: ")
    assert place in str(refusal.value)


@pytest.mark.parametrize(
    "schema",
    [
        {"uniqueItems": False, "nullable": False, "unevaluatedItems": True},
        {"title": "A", "description": "B", "default": 1, "examples": [1], "x-order": 2},
        {"$schema": "http://json-schema.org/draft-07/schema#", "type": "integer"},
        {"type": "integer", "minimum": -9007199254740991, "maximum": 9007199254740991},
        {"properties": {"a": {"multipleOf": 0.01}, "b": {"multipleOf": 5}}},
        {"$defs": {"node": {"properties": {"next": {"$ref": "#/$defs/node"}}}}},
        {
            "type": "object",
            "properties": {"left": {"anyOf": [{"type": "null"}, {"$ref": "#"}]}},
            "required": ["left"],
        },
        {"type": "array", "minItems": 1, "prefixItems": [{"const": 1}], "items": {"$ref": "#"}},
        {"items": {"required": ["b"], "enum": [1, {}], "$ref": "#/$defs/only_a"}} | ONLY_A,
        {
            "prefixItems": [
                {"properties": {f"n{i}": {}}, "patternProperties": {"^x-": {}, f"^{i}{{8}}$": {}}}
                for i in range(150)
            ]
        },
    ],
)
def test_what_says_nothing_about_an_answer_is_taken(schema):
    grammars().compile(schema_of(schema))


@pytest.mark.parametrize(
    ("schema", "good", "bad"),
    [
        ({}, ['{"a": [1, null]}', "3"], ['{"a":1}', "[1,2]", " 3", "3 ", "[ ]"]),
        # One spelling for each key: an alias would escape what is said of it.
        (
            {"properties": {"a": {"type": "integer"}}},
            ['{"a": 1, "b": "x"}', '{"b\\n": 1}'],
            ['{"\\u0061": "x"}', '{"a": "x"}', '{"a": 1, "a": "x"}'],
        ),
        ({"properties": {"a/": {"type": "null"}}}, ['{"a/": null}'], ['{"a\\/": 1}']),
        (
            {"type": "object", "patternProperties": {"^a": {"type": "integer"}}},
            ['{"ab": 1}', '{"b": "x"}'],
            ['{"\\u0061": "x"}', '{"ab": "x"}'],
        ),
        # Two equal keys are one.
        (
            {"type": "object", "minProperties": 2, "required": ["a"]},
            ['{"a": 1, "b": 1}'],
            ['{"a": 1, "a": 1}', '{"a": 1}'],
        ),
        (
            {"type": "string", "format": "date"},
            ['"2024-02-29"', '"2000-02-29"', '"0001-01-01"'],
            ['"2023-02-29"', '"1900-02-29"', '"2024-04-31"', '"0000-01-01"', '"2024-1-1"'],
        ),
        (
            {"type": "string", "format": "date-time", "pattern": "Z$"},
            ['"2024-02-29T23:59:59.5Z"'],
            ['"2024-02-29T23:59:60Z"', '"2024-02-29T23:59:59+01:00"', '"2023-02-29T00:00:00Z"'],
        ),
        (
            {"type": "string", "pattern": r"^[\S]\s$"},
            ['"a "', '"a\ufeff"'],
            ['"\ufeff "', '"ab"'],
        ),
        (
            {"type": "string", "minLength": 2, "maxLength": 3},
            ['"ab"', '"é😀x"'],
            ['"a"', '"abcd"', '"\\ud83d\\ude00"'],
        ),
    ],
)
def test_an_answer_is_spelled_one_way(schema, good, bad):
    grammar = schema_of(schema)
    assert [text for text in good if not allows(grammar, text)] == []
    assert [text for text in bad if allows(grammar, text)] == []


def test_one_of_several_objects_that_a_property_tells_apart():
    def shape(name, **fields):
        kind = {"kind": {"const": name}} | fields
        return {"type": "object", "properties": kind, "required": [*kind]}

    schema = {
        "oneOf": [{"$ref": "#/$defs/cat"}, shape("dog", bark={"type": "boolean"})],
        "discriminator": {"propertyName": "kind"},
        "$defs": {"cat": shape("cat", lives={"type": "integer"})},
    }
    assert allows(schema_of(schema), '{"kind": "cat", "lives": 9}')
    assert allows(schema_of(schema), '{"kind": "dog", "bark": true}')
    assert not allows(schema_of(schema), '{"kind": "cat", "bark": true}')
    schema["oneOf"][1]["properties"]["kind"] = {"enum": ["dog", "cat"]}
    with pytest.raises(BadRequest, match="'oneOf' at \\$: it is enforced only where"):
        grammars().compile(schema_of(schema))


@examples(60, suppress_health_check=list(HealthCheck))
@given(schemas(), schemas(), st.data())
def test_nothing_that_jsonschema_calls_invalid_is_allowed(schema, near, data):
    """Values that fit the schema, or one drawn beside it."""
    try:
        grammars().compile(schema_of(schema))
    except BadRequest:
        return
    try:
        value = data.draw(from_schema(data.draw(st.sampled_from([schema, near]))))
    except InvalidArgument:  # of bounds that leave no value between them
        reject()
    text = json.dumps(value, ensure_ascii=False)
    if allows(schema_of(schema), text):
        assert is_valid(text, schema)


@examples(100, suppress_health_check=list(HealthCheck))
@given(st.one_of(schemas(), several_of_an_object()), st.integers(0, 1 << 32))
def test_what_is_accepted_leads_to_valid_answers_wherever_it_is_followed(schema, seed):
    try:
        grammars().compile(schema_of(schema))
    except BadRequest:
        reject()
    random = Random(seed)
    for said in (answer(schema_of(schema), random) for _ in range(5)):
        assert said is None or is_valid(said, schema)


@pytest.mark.thorough
@pytest.mark.parametrize(
    ("schema", "said"),
    [
        ({"multipleOf": True}, "multipleOf"),
        ({"multipleOf": 10**400}, "multipleOf"),
        ({"format": "date", "pattern": "x", "allOf": 5}, "allOf"),
        ({"patternProperties": ["a"], "properties": {"a": {}}}, "patternProperties"),
        (
            {
                "anyOf": [
                    {"properties": {f"a{i}": {}}, "patternProperties": {f"^(b{i}|c)$": {}}}
                    for i in range(101)
                ]
            },
            r"'patternProperties' at \$\.anyOf\[100\] is one of more than 200 parts",
        ),
    ],
)
def test_what_makes_no_sense_is_refused_and_not_a_crash(schema, said):
    with pytest.raises(BadRequest, match=said):
        enforceable(schema, "schema")


def test_long_names_that_begin_alike_keep_their_own_schemas():
    names = ["a" * 90 + "1", "a" * 90 + "2"]
    kinds = {names[0]: {"type": "string"}, names[1]: {"type": "integer"}}
    kept = enforceable({"type": "object", "properties": kinds}, "schema")
    assert kept["properties"] == kinds
