"""Patterns of schemas against an engine of ECMA-262's expressions, `regress`: what a pattern allows
it matches, and what it matches is allowed."""

import json
import random

import pytest
import regress
from examples import examples
from grammars import END, allows, grammars, is_allowed
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from octavo import BadRequest
from octavo.types import Grammar

# Where the two have other ideas of lines, spaces, digits, words and characters.
CHARACTERS = 'ab B_-09\n\r\t\x85\xa0\u2028\u2029\ufeff\u180e\u3000é٣ß😀\\/]"^&~'


def schema_of(pattern):
    return Grammar("json_schema", json.dumps({"type": "string", "pattern": pattern}))


def matches(pattern, text):
    return regress.Regex(pattern, "u").find(text) is not None


def spelled(text):
    return json.dumps(text, ensure_ascii=False)


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        ("^.$", "a \t\x85\xa0\ufeff😀", "\n\r\u2028\u2029"),
        (r"^\s$", " \t\n\r\f\xa0\u1680\u2003\u2028\u202f\u205f\u3000\ufeff", "a\x85\u180e\u200b"),
        (r"^\S$", "a\x85\u180e\u200b", " \t\n\xa0\u2028\u3000\ufeff"),
        (r"^[\s]$", "\ufeff\u2028", "\x85"),
        (r"^[^\s]$", "\x85", "\ufeff\u2028"),
        (r"^\d$", "09", "٣a²"),
        (r"^\D$", "٣a²", "09"),
        (r"^\w$", "aZ_0", "éß٣-ſ"),
        (r"^\W$", "éß٣-ſ", "aZ_0"),
        (r"^[\w-]$", "a-", "é"),
        (r"^[^\W]$", "a_", "é-"),
        (r"^[]$|^x$", "x", "a]"),
        (r"^[^]$", "a\n\u2028", ()),
        (r"^[a&&b]$", "ab&", "c"),
        (r"^[+--]$", "+,-", "a."),
        (r"^[[a]$", "[a", "]"),
        (r"^[~a~~b]$", "~ab", "c"),
        (r"^[\b]$", "\b", "b"),
        (r"^(\x41|\u0042|\u{43}|\ud83d\ude00)$", "ABC😀", "D\ud7ff"),
        (r"^\cJ$", "\n", "J"),
        (r"^\/\.\|$", ["/.|"], ["/a|"]),
        (r"^[\-\]\^]$", "-]^", "\\"),
        (r"^(?<stop>a)b$", ["ab"], "a"),
        (r"^(?:a|b)c$|d", ["ac", "bc", "ede"], ["a", "c", "acc"]),
        (r"^\p{Lu}$", "AÉ", "aé"),
        (r"^\P{Script=Greek}$", "a", "α"),
        (r"^[\p{Lu}\d]$", "É1", "a"),
        (r"^[\x00-\x1f]$", "\n\r\t\f\b", '" \\a'),
        (r"^[^\x20-\x7e]$", "\n\té", '" \\a'),
        (r"^[\0-\x22]{2}$", ['\n"', " !"], ['"#', "\\n"]),
        (r"^\p{Cc}$", "\n\t", '" \\a'),
        (r"^a{2}b{1,}?c{0,1}$", ["aab", "aabbc"], ["ab", "aabcc"]),
    ],
)
def test_what_the_words_of_an_expression_mean(pattern, good, bad):
    assert all(matches(pattern, one) for one in good)
    assert not any(matches(pattern, one) for one in bad)
    assert [one for one in good if not allows(schema_of(pattern), spelled(one))] == []
    assert [one for one in bad if allows(schema_of(pattern), spelled(one))] == []


def test_escapes_that_only_flag_u_forbids_are_their_characters():
    assert regress.Regex(r"^\-\@\"\_\ \<\>$").find('-@"_ <>')
    assert allows(schema_of(r"^\-\@\"\_\ \<\>$"), spelled('-@"_ <>'))


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        ("a(?=b)", "has '(?=': look-around"),
        ("(?<!a)b", "has '(?<!': look-around"),
        (r"\bword", r"has '\\b': word boundaries"),
        (r"\B", r"has '\\B': word boundaries"),
        (r"(a)\1", r"has '\\1': what a group has matched"),
        (r"(?<n>a)\k<n>", r"has '\\k': what a group has matched"),
        ("(?i)a", "has '(?': no flags"),
        ("(?i:a)", "has '(?': no flags"),
        ("(?P<n>a)", "has '(?': no flags"),
        (r"\Aa\z", r"has '\\A': that is no escape"),
        (r"\x01|a", r"has '\\x01': a control character"),
        (r"\x7f", r"has '\\x7f': a control character"),
        (r"\cA", r"has '\\cA': a control character"),
        (r"\ud83d", r"has '\\ud83d': that is no character"),
        (r"[\u{110000}]", r"has '\\u{110000}': that is no character"),
        (r"\x4", r"has '\\x': that is no escape"),
        ("a\\", r"has '\\': that is no escape"),
        ("a**", "has '*': escape it"),
        ("^*", "has '*': escape it"),
        ("|+", "has '+': escape it"),
        ("a{,2}", "has '{': escape it"),
        ("{", "has '{': escape it"),
        (r"[\w-z]", "a class is no end of a range"),
        (r"[a-\d]", "a class is no end of a range"),
        ("[abc", "has '[': it is not closed"),
        ("a)", "unopened group"),
        ("(a", "unclosed group"),
        ("[b-a]", "invalid character class range"),
        ("a{2,1}", "invalid repetition count range"),
        ("a^b", "lookarounds not supported"),
    ],
)
@pytest.mark.parametrize("keyword", ["pattern", "patternProperties"])
def test_what_cannot_be_followed_is_refused_by_name(keyword, pattern, problem):
    value = pattern if keyword == "pattern" else {pattern: {}}
    schema = {"items": {"type": ["string", "object"], keyword: value}}
    with pytest.raises(BadRequest) as refusal:
        grammars().compile(Grammar("json_schema", json.dumps(schema)))
    assert str(refusal.value).startswith(f"schema: '{keyword}' at $.items")
    assert problem in str(refusal.value)


def test_two_patterns_that_become_one_are_refused():
    schema = {"patternProperties": {"^[0-9]": {"type": "string"}, r"^\d": {"type": "number"}}}
    with pytest.raises(BadRequest, match="'patternProperties' at \\$ has two that say the same"):
        grammars().compile(Grammar("json_schema", json.dumps(schema)))


MEMBERS = [r"\s", r"\S", r"\d", r"\D", r"\w", r"\W", "a-b", r"\x00-\x1f", r"\u2000-\u2fff"]
MEMBERS += [
    r"\0-\t",
    r"\n",
    r"\x7f",
    r"\cK",
    "é",
    "&&",
    "[",
    "~~",
    r"\]",
    r"\b",
    "--",
    "_",
    "|",
    ".",
    "😀-😂",
]
SETS = st.builds(
    lambda sign, members: f"[{sign}{''.join(members)}]",
    st.sampled_from(["", "^"]),
    st.lists(st.sampled_from(MEMBERS), max_size=3),
)
ATOMS = [".", r"\s", r"\S", r"\d", r"\D", r"\w", r"\W", "a", "b", "-", "_", "é", "😀", " "]
ATOMS += [r"\n", r"\u2028", r"\x85", r"\ufeff", r"\cM", r"\\", r"\/", r"\p{L}"]
TIMES = st.sampled_from(["", "", "", "*", "+?", "{2}", "{1,2}", "?"])


def sequences(atoms):
    return st.lists(st.tuples(atoms, TIMES).map("".join), max_size=3).map("".join)


def either(parts):
    begin, finish = st.sampled_from(["", "^"]), st.sampled_from(["", "$"])
    return st.lists(st.tuples(begin, parts, finish).map("".join), min_size=1, max_size=3).map(
        "|".join
    )


EXPRESSIONS = either(
    sequences(
        st.recursive(
            st.sampled_from(ATOMS) | SETS,
            lambda inner: either(sequences(inner)).map("({})".format),
            max_leaves=4,
        )
    )
)


@examples(20, suppress_health_check=list(HealthCheck))
@given(EXPRESSIONS, st.lists(st.text(CHARACTERS, max_size=4), max_size=6), st.integers(0, 999))
def test_a_pattern_allows_what_its_expression_matches(pattern, texts, seed):
    try:
        grammars().compile(schema_of(pattern))
    except BadRequest:
        return
    for text in texts:
        assert allows(schema_of(pattern), spelled(text)) == matches(pattern, text)
    if (text := written(schema_of(pattern), random.Random(seed))) is not None:
        assert matches(pattern, json.loads(text))


def written(grammar, chance, most=40):
    """An answer that a model without a mind gives; None for one that found no end."""
    matcher, said = grammars().compile(grammar).matcher(), bytearray()
    while not matcher.is_complete:
        mask = matcher.mask()
        allowed = [i for i in range(END + 1) if is_allowed(mask, i)]
        if END in allowed and chance.random() < 0.3:
            break
        if len(said) == most:
            return None
        said.append(chance.choice([i for i in allowed if i != END]))
        matcher.consume(said[-1])
    return said.decode()
