"""What every notation promises. A new file in octavo/grammar/fronts/ is tested by existing."""

import json

import pytest
from grammars import allows, grammars

from octavo import BadRequest
from octavo.registry import entry, names
from octavo.types import Grammar, SamplingParams

FOLDER = "octavo.grammar.fronts"


@pytest.fixture(params=names(FOLDER))
def kind(request):
    return request.param


def test_its_example_says_what_it_allows_and_what_not(kind):
    text, answer, other = entry(FOLDER, kind).EXAMPLE
    assert allows(Grammar(kind, text), answer)
    assert not allows(Grammar(kind, text), other)


def test_it_is_reached_from_python(kind):
    front = entry(FOLDER, kind)
    text = front.EXAMPLE[0]
    value = tuple(json.loads(text)) if kind == "choice" else text
    if kind == "reply":  # nobody writes one by hand
        assert SamplingParams().held_to(Grammar(kind, text)).constraint == Grammar(kind, text)
    else:
        assert SamplingParams(**{front.FIELD: value}).constraint == Grammar(kind, text)


@pytest.mark.parametrize(
    ("kind", "text", "problem"),
    [
        ("regex", "(", "unclosed group"),
        ("regex", "a(?=b)", "look-around"),
        ("regex", r"(a)\1", "backreferences"),
        ("regex", r"[^\x00-\u{10FFFF}]", "no answer fits it"),
        ("lark", "start: word", 'unknown name: "word"'),
        ("lark", "", "Empty grammar"),
        ("lark", 'start: "' + '\\"' * 50_000, "lexer error"),  # not looked through from each
        ("lark", "start: /" + r"\/" * 50_000, "lexer error"),
        ("lark", 'start: %json {"a": 1}', "'a' at $ is not enforced"),
        ("lark", 'start: %json {"a": ', "not JSON"),
        ("gbnf", "root ::= (", "not GBNF"),
        ("gbnf", 'twig ::= "a"', "not GBNF"),
        ("choice", '["a", ""]', "none that is empty"),
        ("choice", '["a", "\\ud800"]', "half of a surrogate pair"),
        ("regex", "\ud800", "half of a surrogate pair"),
        ("gbnf", 'root ::= "\ud800"', "half of a surrogate pair"),
        (
            "choice",
            json.dumps([f"{i:x}" for i in range(15_000)]),
            "15003 texts, patterns, names and comments are more than 15000",
        ),
        ("gbnf", 'root ::= "a"' + "\n#" * 15_000, "15002 texts, patterns, names and comments"),
        ("lark", "start: A\nA: " + " & ".join(["/a/"] * 102), "101 patterns and schemas"),
        ("lark", "start: A\nA: /" + "a|" * 25_001 + "/", "25001 alternatives"),
        ("lark", 'start: %regex {"substring_chars": "' + "a" * 100_000 + '"}', "in %regex"),
        (
            "lark",
            "start: " + "%json {} " * 501,
            "501 %json, %regex and %llguidance are more than 500",
        ),
        ("regex", r"\w" * 20_001, "20001 classes such as"),
        ("regex", "[" + r"\x{61}b" * 5_000 + "]", "10001 characters in sets such as"),
        (
            "json_schema",
            json.dumps({"items": {"pattern": "^[" + "ä" * 10_000 + "]$"}}),
            "'pattern' at $.items: 10013 characters in sets",
        ),
        ("gbnf", 'root ::= "' + "a" * (1 << 18) + '"', "262155 characters are more than 262144"),
        (
            "json_schema",
            json.dumps({"const": [*range(15_000)]}),
            "texts, patterns, names and comments are more",
        ),
        (
            "json_schema",
            json.dumps({"allOf": [{"minLength": 1}] * 102}),
            "101 patterns and schemas",
        ),
        (
            "json_schema",
            json.dumps({"patternProperties": {f"^{i:04}": {} for i in range(142)}}),
            "10011 pairs of 'patternProperties'",
        ),
        ("json_schema", "{", "not JSON"),
        ("json_schema", "[]", "object or true"),
        ("json_schema", "false", "object or true"),
    ],
)
def test_what_cannot_be_held_to_is_refused_in_a_sentence(kind, text, problem):
    with pytest.raises(BadRequest) as refusal:
        grammars().compile(Grammar(kind, text))
    assert refusal.value.field == entry(FOLDER, kind).FIELD
    assert problem in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_schema_within_lark_is_written_as_one_that_stands_alone():
    lark = 'start: "call " %json {"type": "array", "items": {"type": "integer"}, "title": "x"} "."'
    assert allows(Grammar("lark", lark), "call [1, 2].")
    assert not allows(Grammar("lark", lark), "call [1,2].")
    assert not allows(Grammar("lark", lark), "call [1,  2].")


WORD = '%json {"a": 1} %json {'


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        ("lark", f"start: {json.dumps(WORD)}"),
        ("lark", f'start: {json.dumps(WORD)} // "{WORD}\n# "{WORD}'),
        ("lark", f'# "\nstart: {json.dumps(WORD)}'),
        ("lark", 'start: /%json \\{"a": 1\\} %json \\{/'),
        ("gbnf", f"root ::= {json.dumps(WORD)} # {WORD}"),
        ("gbnf", f'# "{WORD}\nroot ::= {json.dumps(WORD)}'),
    ],
)
def test_a_word_within_texts_expressions_and_comments_is_none(kind, text):
    assert allows(Grammar(kind, text), WORD)


@pytest.mark.parametrize(
    "before",
    ['"%json {"', "/a\\//", '/a"/', '"\\""', '<|"|>', "</*>", "<#>", 'a // "\n', "# /\n|"],
)
def test_no_word_is_overlooked_behind_texts_expressions_and_comments(before):
    with pytest.raises(BadRequest, match="'a' at \\$ is not enforced"):
        grammars().compile(Grammar("lark", f'start: {before} %json {{"a": 1}} "x"'))


@pytest.mark.parametrize("text", ["\x7f", "a\x00b", "\n\r\t\x1f", "\x85\u2028", "😀", "é", '"\\'])
def test_a_choice_may_be_any_text(text):
    grammar = SamplingParams(choice=("plain", text)).constraint
    assert allows(grammar, text)
    assert not allows(grammar, text + text)


def test_a_choice_may_be_of_thousands():
    grammar = SamplingParams(choice=tuple(f"{i:05}" for i in range(5000))).constraint
    assert allows(grammar, "04999")
    assert not allows(grammar, "05000")


@pytest.mark.parametrize("text", ['root ::= "a"', '  root::="a"', '# x\nroot ::=\n  "a"'])
def test_gbnf_is_told_by_its_arrows(text):
    assert SamplingParams(grammar=text).constraint.kind == "gbnf"
    lark = SamplingParams(grammar='start: "x ::= y"')
    assert lark.constraint.kind == "lark"


def test_one_of_them_at_most():
    with pytest.raises(BadRequest, match="regex: it cannot stand beside a schema"):
        SamplingParams(schema={}, regex="a")
    with pytest.raises(BadRequest, match="choice: 'ab' is one text"):
        SamplingParams(choice="ab")
    with pytest.raises(BadRequest, match="schema: Object of type set is not JSON"):
        SamplingParams(schema={"const": {1}})
    grammar = Grammar("lark", 'start: "a"')
    assert SamplingParams(grammar=grammar).constraint is grammar
