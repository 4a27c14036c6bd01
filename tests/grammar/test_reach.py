"""How long a piece of a grammar is said to be, beside what llguidance makes come."""

import json
from contextlib import suppress
from math import inf

import pytest
from dialects import DIALECTS, spelling
from grammars import END, Bytes, allowed_in, grammars, is_allowed
from hypothesis import given
from hypothesis import strategies as st

from octavo import BadRequest, StepFailed
from octavo.engine.reply_grammar import reply_grammar
from octavo.grammar.compiled import Compiled
from octavo.grammar.fronts import json_schema, lark, reply
from octavo.grammar.fronts._checked import LONGEST_FORCED, LONGEST_PIECE
from octavo.grammar.fronts._form import unforced
from octavo.grammar.fronts._reach import reach
from octavo.grammar.matcher import Grammars
from octavo.types import Grammar, Reading, Tool, Tools

LONG = "so it goes on, " * 20  # 300


@pytest.mark.parametrize(
    ("text", "length"),
    [
        ('start: "abc" "defgh"', 5),
        ('start: "漢字"', 6),
        ('start: T "!"\nT: "abc" "defgh" | "x" | U{3}\nU: "no"', 8),
        ('start: ("abc" "defgh"){9}', 5),  # of a rule, not of a terminal
        ('T: ("abc" "defgh"){9}', 72),
        ('T: ("abc" | "defgh"){9,12} "x"', 61),
        ('T: "ab"~3..5', 10),
        ('T: ["ab" "c"] "d"*', inf),
        ("T: A A\nA: B B\nB: C C\nC: /x{50}/", 400),
        ("T: A\nA: T", inf),
        ('T: /a+/ & "aaa"', inf),
        ('T: ~"aaa"', inf),
        ('t[lazy]: "abc" "defgh"\nstart: t', 8),
        ('T.5: "abc" // "comment"\n  | "de" # T: "comment"', 3),
        ('start: "a\\"b|c" <|abc|> <[1-2]>', 6),
        ('T: "ab"{+40}', 80),
        ('T: "ab"{ 0000000000040}', 80),
        ('T: "ab"~0000000000040', 80),
        ('T: "ab"i{40}', 80),
        ("T: /(ab){0000000000040}/", 80),
        ("T: /(ab){ 40 }/", 80),
        ('start: p::0\np::_: B %if ge([0:3], 0)\nA: "abc"\nB: A{40}', 120),
        ('start: "x"\n%ignore A{40} /[ab]/\nA: "abc"', 121),
        ('start: %lark { start: "a" }', inf),
        ("T: /a+/", inf),
        ("T: /a{1,9}/", 9),
        ("T: /[ab]+[^c]*/", 2),
        ("T: /(a[ab]|.c)*/", 2),
        ("T: /(a[ab]|c)*/", inf),
        (r"T: /(.|\n)*(cc|[ab])*/", 3),
        (r"T: /(a[^\x00-`b-\xff])*/", inf),  # one byte, where not all is UTF-8
        ("T: /(a[ab]?)*/", inf),
        ("T: /[a-a]+/", inf),
        (r"T: /[\x61a]+/", inf),
        (r"T: /[\/\/]+/", inf),
        (r"T: /[^\x00-`b-\x{10FFFF}]+/", inf),
        (r"T: /[^\D1-9]+/", inf),
        (r"T: /[b-z&&a-b]+/", inf),
        (r'T: "\"" (/[^"\\\x00-\x1f]/ | /\\["\\nrt]/)* "\""', 6),
        ('T: ("a" -> t)+\nt: /[ab]/', inf),
        ("T: A+\nA: B\nB: /[ab]c/", 2),
        ('T: ([A] "c")*\nA: /[ab][a&&b]/', inf),
        ("T: INT+\n%import common.INT", inf),
        ('start: "x"\n%ignore " "', inf),
        ('start: "x"\n%ignore /[ \\t]/', 1),
        (r"start: /a[bc(|]{4}(?:de|f)\)\/\x{41}[^]]{2}/", 12),
        ("start: /a(b{3}|cc{2}){4,6}$/", 19),
        ("start: /a{100}{3}?{2}/", 600),
        ("start: /(?i:ab)(?P<name>c){2}(?-s)/", 4),
        ("start: /[a&&[^b(]]{30}/", 30),
        ("start: /(ab # )\n){300}/x", inf),
        ("start: /(?x)(ab # )\n){300}/", inf),
        ("start: /[a[b[c]]]/", inf),
        ('start: %regex {"substring_chars": "abc"}', inf),
        ('%llguidance {"no_forcing": false}\nstart: %json {"const": "abc"} "x"', 5),
        (f'start: %json {{"const": "{LONG}"}}', 302),
        ("\n".join(f"A{i}: A{i + 1}" for i in range(3000)) + '\nA3000: "x"', inf),
    ],
)
def test_a_piece_of_lark_is_as_long_as(text, length):
    assert reach(text, inf) == length


@pytest.mark.parametrize(
    ("schema", "length"),
    [
        ({"type": "string"}, 0),
        ({"enum": ["漢字", 1]}, 8),
        ({"properties": {"abc": {"enum": [1, "defg", None]}}, "required": ["abcdefgh"]}, 8),
        ({"items": {"anyOf": [{"const": {"a": [1, 2]}}, {"pattern": "^x{3}$"}]}}, 13),
        ({"pattern": "^a{3,5}$", "minLength": 40}, 43),
        ({"minLength": 400}, 0),
        ({"patternProperties": {"^abcdef": {}}}, 6),
        ({"properties": {"ab": {}}, "patternProperties": {"^abcdef": {}}}, 6),
        ({"properties": {"ab": {}}, "patternProperties": {"^a": {"pattern": "^(aa)+$"}}}, inf),
        ({"$defs": {"a": {"const": "abcdefgh"}}, "$ref": "#/$defs/a"}, 10),
        ({"allOf": [{"pattern": "^(aa)+$"}]}, 2),
        ({"allOf": [{"pattern": "^(aa)+$"}, {"pattern": "^(aaa)+$"}]}, inf),
        ({"pattern": "^(aa)+$", "anyOf": [{"pattern": "^(aaa)+$"}]}, inf),
        ({"items": {"$ref": "#/$defs/a", "minLength": 9}, "$defs": {"a": {"pattern": "a"}}}, inf),
        ({"allOf": [{"pattern": "^a"}, {"anyOf": [{"items": {"minLength": 9}}]}]}, inf),
        ({"pattern": "^a", "anyOf": [{"required": ["ab"]}, {"required": ["abc"]}]}, 3),
        ({"pattern": "^a", "allOf": [{"required": ["ab"]}, {"required": ["abc"]}]}, 3),
    ],
)
def test_a_piece_of_a_schema_is_as_long_as(schema, length):
    assert reach(json.dumps({"grammars": [{"json_schema": schema}]}), inf) == length


def regexes():
    def within(some):
        times = st.sampled_from(["", "?", "*", "+", "{2}", "{3,}", "{2,4}"])
        alternatives = st.lists(some, min_size=1, max_size=3).map("|".join)
        rows = st.lists(some, min_size=1, max_size=3).map("".join)
        return st.tuples(alternatives | rows, times).map(lambda one: f"(?:{one[0]}){one[1]}")

    return st.recursive(st.sampled_from(["a", "b", "ab", "aab", "[ab]", "ba{3}"]), within)


@given(regex=regexes(), after=st.just("y") | regexes(), data=st.data())
def test_no_more_comes_than_is_told(regex, after, data):
    """In a row, of one piece, or of two that may begin alike."""
    lark = f"start: /x/ T U /y/\nT: /{regex}/\nU: /{after}/"
    compiled = Compiled(unforced(lark), grammars()._prepared())
    one, num_forced, most = compiled.matcher(), 0, 0
    one.consume(ord("x"))
    with suppress(StepFailed):  # some are too much
        for _ in range(60):
            allowed = [byte for byte in range(END) if is_allowed(one.mask(), byte)]
            if ord("y") in allowed:
                break
            num_forced = num_forced + 1 if len(allowed) == 1 else 0
            most = max(most, num_forced)
            one.consume(data.draw(st.sampled_from(allowed)))
    assert most <= reach(f"T: /{regex}/", inf) + reach(f"T: /{after}/", inf)


@pytest.mark.parametrize(
    ("kind", "text", "said"),
    [
        ("lark", f'start: t{{1000}}\nt: "{LONG}"', LONG),
        ("lark", 'start: "!" T "!"\nT: /(ab)+/ & /(aba|bab)+/', "!ab"),
        ("json_schema", json.dumps({"const": [LONG, 1]}), f'["{LONG}", 1]'),
        ("lark", 'start: "!" T U\nT: /a+/\nU: "ab"', "!aaa"),  # no "ab" can begin
        ("gbnf", f'root ::= "{LONG}" [a-z]+', LONG),
        (
            "reply",
            json.dumps({"lark": "start: @answer", "answer": ["choice", f'["{LONG}"]']}),
            LONG,
        ),
        (
            "reply",
            json.dumps(
                {"lark": 'start: @answer "!"', "answer": ["lark", 'start: T\nT: "ab" & /a./']}
            ),
            "ab!",
        ),
    ],
)
def test_where_a_piece_is_long_nothing_is_forced_and_the_same_comes(kind, text, said):
    one = grammars().compile(Grammar(kind, text)).matcher()
    for byte in said.encode():
        assert one.forced() == []
        assert allowed_in(one.mask()) == [byte]
        one.consume(byte)


def test_what_is_forced_stays_what_may_come_where_nothing_is():
    """In tokens of several bytes masks alone allow each way of cutting a text."""

    class Pairs(Bytes):
        vocab_size = 258

        def token_bytes(self, token_id, *, special=False):
            return b"ab" if token_id == 257 else super().token_bytes(token_id, special=special)

        def encode_within(self, text):
            cut = text.encode().split(b"ab")
            return [i for part in cut for i in (257, *part)][1:]

    grammar = lark.read('start: "xabab" | "y"')
    both = (grammar, unforced(grammar))
    near, far = (Compiled(one, Grammars(Pairs(), 258)._prepared()).matcher() for one in both)
    for one in (near, far):
        one.consume(ord("x"))
    assert near.forced() == [257, 257]
    assert far.forced() == []
    assert allowed_in(near.mask()) == [257]
    assert allowed_in(far.mask()) == [ord("a"), 257]


@pytest.mark.parametrize(
    "kind_and_text",
    [
        ("lark", f'start: "{"a" * (LONGEST_PIECE + 1)}"'),
        ("regex", "a{10001}"),
        ("choice", json.dumps(["b", "a" * (LONGEST_PIECE + 1)])),
        ("json_schema", json.dumps({"items": {"const": "a" * (LONGEST_PIECE - 1)}})),
    ],
)
def test_the_longest_piece_is_limited(kind_and_text):
    with pytest.raises(BadRequest, match="makes 10001 bytes come, more than 10000: shorten"):
        grammars().compile(Grammar(*kind_and_text))


@pytest.mark.parametrize("control", [True, False])
@pytest.mark.parametrize("dialect", DIALECTS)
def test_calls_of_usual_tools_are_forced(dialect, control):
    parameters = {
        "type": "object",
        "properties": {
            "city": {"type": "string", "pattern": "^[A-Z][a-z]+$"},
            "when": {"type": "string", "format": "date-time"},
            "unit": {"enum": ["celsius", "fahrenheit"]},
        },
        "required": ["city", "unit"],
        "additionalProperties": False,
    }
    if dialect in ("gemma", "llama3_pythonic"):
        del parameters["properties"]["when"], parameters["properties"]["city"]["pattern"]
    several = [Tool(f"get_{i}", "", parameters) for i in range(30)]
    tools = Tools(tuple(several), tuple(one.name for one in several))
    written = reply_grammar(spelling(dialect, control=control), tools, Reading(), None)
    assert "no_forcing" not in reply.read(written.text)
    assert reach(reply.read(written.text), 0) <= LONGEST_FORCED / 2


def test_a_usual_schema_is_forced():
    fields = {"type": "string", "format": "date-time"}
    schema = {"type": "object", "properties": {"when": fields}, "anyOf": [{"required": ["when"]}]}
    assert "no_forcing" not in json_schema.read(json.dumps(schema))
