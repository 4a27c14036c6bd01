"""References within a tool's parameters, against `jsonschema`: what a random model is made to write
fits the schema they lead to, in every notation, or the tool is refused by the place of one."""

import json

import pytest
from dialects import spelling
from schemas import is_valid

from octavo import LLM, BadRequest, SamplingParams
from octavo.engine import argument_grammar, reply_grammar
from octavo.engine.argument_grammar import Parts, arguments_rules
from octavo.engine.notations import NOTATIONS
from octavo.grammar.matcher import MOST_CHARACTERS
from octavo.types import Reading, Tool, Tools

SHARED = {
    "$defs": {
        "x": {"const": 1},
        "a/b": {"const": 2},
        "a~1b": {"const": 3},
        "named": {"$anchor": "n", "const": 4},
        "nine": {"minimum": 9, "maximum": 9},
        "pair": {"type": "object", "properties": {"x": {"const": 5}}, "required": ["x"]},
        "chain": {"$ref": "#/$defs/x"},
    },
    "definitions": {"x": {"const": 6}},
}
OWN = {"$defs": {"x": {"const": 7}, "nine": {"minimum": 3, "maximum": 3}}}
INNER = {"type": "object", "properties": {"b": {"const": 8}}, "required": ["b"]}
LIST = {"type": "array", "minItems": 1, "maxItems": 1}
# What the argument `a` is, and where that is refused in notations that have no words for it.
CASES = {
    "shared": ({"$ref": "#/$defs/x"}, {}),
    "an older word": ({"$ref": "#/definitions/x"}, {}),
    "an escaped name": ({"$ref": "#/$defs/a~1b"}, {}),
    "a name that looks escaped": ({"$ref": "#/$defs/a~01b"}, {}),
    "an encoded name": ({"$ref": "#/%24defs/%78"}, {}),
    "an anchor": ({"$ref": "#n"}, {}),
    "a chain": ({"$ref": "#/$defs/chain"}, {}),
    "in a list": (LIST | {"items": {"$ref": "#/$defs/x"}}, {}),
    "one of two": ({"anyOf": [{"$ref": "#/$defs/x"}, {"$ref": "#n"}]}, {}),
    "past its own": (OWN | {"$ref": "#/$defs/x"}, {}),
    "in a list past its own": (OWN | LIST | {"items": {"$ref": "#/$defs/x"}}, {}),
    "a number past its own": (
        OWN | {"type": "integer", "allOf": [{"$ref": "#/$defs/nine"}]},
        {},
    ),
    "its own": (
        OWN | {"$id": "http://a/b", "$ref": "#/$defs/x"},
        {"python": ".$ref", "gemma": ".$ref"},
    ),
    "within what is shared": (
        {"$ref": "#/$defs/pair/properties/x"},
        {"gemma": ".$ref"},
    ),
    "another argument": (
        LIST | {"items": {"$ref": "#/properties/b"}},
        {"python": ".items.$ref", "gemma": ".items.$ref"},
    ),
    "another argument, by a name that is its own, too": (
        INNER | {"properties": {"b": {"const": 8}, "c": {"$ref": "#/properties/b"}}},
        {"python": ".properties.c.$ref", "gemma": ".properties.c.$ref"},
    ),
    "all arguments": (
        {"type": ["array", "null"], "maxItems": 1, "items": {"$ref": "#"}},
        {"python": ".items.$ref", "gemma": ".items.$ref"},
    ),
}
DIALECTS = {"json": "hermes", "python": "llama3_pythonic", "gemma": "gemma"}


def parameters_of(argument):
    arguments = {"type": "object", "properties": {"a": argument, "b": {"const": 9}}}
    return arguments | {"required": ["a"], "additionalProperties": False} | SHARED


def written(llm, parameters):
    tools = [{"type": "function", "function": {"name": "f", "parameters": parameters}}]
    asked = SamplingParams(max_tokens=200, seed=1, temperature=2)
    answer = llm.chat([{"role": "user", "content": "hi"}], asked, tools=tools, tool_choice="f")
    return answer.tool_calls[0].arguments


@pytest.mark.parametrize("notation", DIALECTS)
def test_a_reference_leads_where_it_says_in_every_notation(llama_path, notation):
    with LLM(llama_path, memory=64 << 20, tool_dialect=DIALECTS[notation]) as llm:
        for name, (argument, refused) in CASES.items():
            parameters = parameters_of(argument)
            if notation in refused:
                with pytest.raises(BadRequest) as refusal:
                    written(llm, parameters)
                place = f"tools[0].function.parameters.properties.a{refused[notation]}"
                assert refusal.value.field == place, name
            else:
                said = written(llm, parameters)
                assert is_valid(said, parameters), (name, said)


def rules(parameters, notation):
    tool = Tool("f", None, {"type": "object"} | parameters, "tool")
    return list(arguments_rules("r", tool, NOTATIONS[notation], '"<escape>"', Parts()))


def test_what_is_shared_is_not_repeated_without_end(monkeypatch):
    """Python's spelling has it once for each argument that refers to it."""
    many = {"properties": {f"a{i}": {"$ref": "#/$defs/x"} for i in range(9)}} | SHARED
    monkeypatch.setattr(argument_grammar, "MOST_CHARACTERS", 2 * len(json.dumps(many)))
    for notation in ("json", "gemma"):
        rules(many, notation)
    with pytest.raises(
        BadRequest, match=r"^tool\.properties\.a\d: \$defs, written once for each argument that"
    ):
        rules(many, "python")
    rules(many | {"properties": {f"a{i}": {"const": "x"} for i in range(9)}}, "python")


@pytest.mark.parametrize(
    "argument",
    [
        {"type": "array", "items": {"type": "null"}, "minItems": 1, "maxItems": 0},
        {"type": "array", "items": {"type": "null"}, "minItems": 2, "maxItems": 1},
        {"type": "string", "minLength": 2, "maxLength": 1},
        {"const": True, "enum": [1]},
        {"enum": ["x", True], "type": "number"},
        {"enum": [1.5], "type": "integer"},
    ],
)
def test_an_argument_that_no_value_fits_is_refused_where_it_would_be_written(argument):
    with pytest.raises(BadRequest, match=r"^tool\.properties\.a: no value is allowed, "):
        rules({"properties": {"a": argument}}, "gemma")


@pytest.mark.parametrize("beside", [{"x-order": 1, "example": 1}, {"nullable": False}])
def test_what_says_nothing_of_a_value_is_no_keyword_in_any_notation(beside):
    kinds = [{"anyOf": [{"type": "null"} | beside]}, {"const": 1.0, "type": "integer"}]
    for argument in [*kinds, {"type": "boolean"}, {"type": "array", "items": {"type": "string"}}]:
        for notation in NOTATIONS:
            plain = rules({"properties": {"a": argument}}, notation)
            assert rules(beside | {"properties": {"a": argument | beside}}, notation) == plain


@pytest.mark.parametrize(
    ("argument", "keyword"),
    [
        ({"enum": ["b", "a<escape>b"]}, "enum"),
        ({"const": ["<escape>"]}, "const"),
        ({"enum": [{"a": "<escape>"}]}, "enum"),
        ({"const": {"a b": 1}}, "const"),
    ],
)
def test_a_literal_that_gemma_cannot_spell_is_refused_by_keyword(argument, keyword):
    with pytest.raises(BadRequest, match=rf"^tool\.properties\.a\.{keyword}: .* cannot be written"):
        rules({"properties": {"a": argument}}, "gemma")
    rules({"properties": {"a": argument}}, "python")
    rules({"properties": {"a": {"enum": ["a<esc", {"a": ["b c"]}]}}}, "gemma")


def test_what_is_shared_may_refer_to_what_is_shared_only():
    there = {"properties": {"a": {"$ref": "#/$defs/y"}}}
    there |= {"$defs": {"y": {"items": {"$ref": "#/properties/a"}}}}
    with pytest.raises(BadRequest, match=r"^tool\.\$defs\.y\.items\.\$ref: only what is in \$defs"):
        rules(there, "python")


@pytest.mark.parametrize(("required", "is_open"), [([], False), (["a"], False), (["a", "b"], True)])
def test_who_lists_all_properties_that_it_requires_expects_no_others(required, is_open):
    parameters = {"properties": {"a": {}}, "required": required}
    *_, body = rules(parameters, "json")
    assert ('"additionalProperties": false' not in body) == is_open
    *_, body = rules(parameters | {"unevaluatedProperties": True}, "json")
    assert '"additionalProperties": false' not in body


@pytest.mark.parametrize("required", [5, [["a"]]])
def test_nonsense_is_refused_by_name(required):
    for notation in NOTATIONS:
        with pytest.raises(BadRequest, match=r"^tool: 'required' at"):
            rules({"properties": {"a": {}}, "required": required}, notation)


# ---- many tools


def reply_with(tools, dialect):
    offered = Tools(tuple(tools), tuple(tool.name for tool in tools))
    spelled = spelling(dialect, control=False)
    return reply_grammar.reply_grammar(spelled, offered, Reading(offered.callable), None)


def of_its_own(place):
    """No two tools have an argument that is the same, and most are of a few kinds."""
    kinds = ["string", "integer", "number", "boolean", "array"]
    arguments = {
        f"argument_{i}_of_tool_{place}": {"type": kinds[i % 5], "description": f"{i} of {place}"}
        for i in range(8)
    }
    return Tool(f"tool_{place}", None, {"type": "object", "properties": arguments})


@pytest.mark.thorough
def test_five_hundred_tools_of_several_arguments_each_are_not_too_many():
    """And the same tools, which come with every turn, are not checked anew."""
    tools = list(map(of_its_own, range(500)))
    grammar = reply_with(tools, "llama3_pythonic")  # a rule for each argument
    assert len(grammar.text) < MOST_CHARACTERS
    num_checked = argument_grammar._remembered.cache_info().misses
    assert reply_with(tools, "llama3_pythonic") == grammar
    assert argument_grammar._remembered.cache_info().misses == num_checked


def test_tools_of_more_than_a_grammar_may_have_cost_what_it_may_have(monkeypatch):
    """Those after it are not looked at."""
    monkeypatch.setattr(reply_grammar, "MOST_CHARACTERS", 20_000)
    bad = Tool("bad", None, {"not": {}}, "tools[200].parameters")
    some = [Tool(f"tool_{i}", None, INNER) for i in range(200)]
    for tools, field in (([*some, bad], "tools"), ([some[0], bad], "tools[200].parameters")):
        with pytest.raises(BadRequest) as refused:
            reply_with(tools, "hermes")
        assert refused.value.field == field
