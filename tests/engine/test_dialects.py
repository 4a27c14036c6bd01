"""What every dialect promises. A new file in octavo/engine/dialects/ is tested by existing."""

import json
from functools import cache

import llguidance
import pytest
from dialects import DIALECTS, TOOL, dialect, said, spelling, told
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from octavo.engine.dialect import Spelling, choose
from octavo.engine.notations import Malformed
from octavo.engine.reply_grammar import reply_grammar
from octavo.errors import BadConfig, BadRequest
from octavo.grammar.fronts.reply import read as as_llguidance
from octavo.types import Reading, Tool, Tools

EACH = pytest.mark.parametrize("name", DIALECTS)
CONTROL = pytest.mark.parametrize("control", [False, True], ids=["letters", "tokens"])
CALLS = [
    (0, "id0", "look", '{"at": "é\\n", "deep": true}'),
    (1, "id1", "look", "{}"),
]


def expected(name):
    described = dialect(name).DIALECT
    text = "" if described.marker is None else "Let me see."
    return "hm", text, CALLS[: 1 if described.between is None else 2]


@EACH
@CONTROL
def test_its_example_is_read(name, control):
    deltas, stream = told(name, dialect(name).EXAMPLE, control=control)
    assert said(deltas) == expected(name)
    assert stream.is_whole
    assert not stream.is_broken


@EACH
@CONTROL
@examples(10)
@given(data=st.data())
def test_however_tokens_are_cut_the_same_is_told(name, control, data):
    text = dialect(name).EXAMPLE
    cuts = data.draw(st.sets(st.integers(1, len(text.encode()))))
    assert said(told(name, text, cuts, control=control)[0]) == expected(name)


@EACH
@examples(20)
@given(data=st.data())
def test_noise_is_told_the_same_however_it_is_cut(name, data):
    """Pieces of the dialect's own forms in any order: whatever is no call is text."""
    described = dialect(name).DIALECT
    words = [described.opens, *described.parts(), described.between or "", described.closes]
    words += [*described.thought, "look", "{}", "(", '"', " ", "\n", "é", "a", "<"]
    text = "".join(data.draw(st.lists(st.sampled_from(words), max_size=12)))
    cuts = data.draw(st.sets(st.integers(1, 40)))
    whole, first = told(name, text)
    parts, second = told(name, text, cuts)
    assert said(whole) == said(parts)
    assert (first.is_whole, first.is_broken) == (second.is_whole, second.is_broken)
    for _, _, called, arguments in said(whole)[2]:
        assert called == "look"
        if first.is_whole:
            assert isinstance(json.loads(arguments), dict)


@EACH
def test_what_is_no_call_is_shown_as_it_was_said(name):
    described = dialect(name).DIALECT
    before, middle, after = described.parts()
    other = f"{described.opens}{before}other{middle}{{}}{after}{described.closes}"
    deltas, stream = told(name, other)
    assert said(deltas) == ("", other, [])
    assert stream.is_whole


@EACH
def test_a_call_that_goes_wrong_after_it_began_is_no_call(name):
    described = dialect(name).DIALECT
    before, middle, after = described.parts()
    bracket = Spelling(described, {}).notation.brackets[0]
    wrong = f"{described.opens}{before}look{middle}{bracket}@,@{after}"
    _, stream = told(name, wrong)
    assert stream.is_broken or not stream.is_whole


@EACH
def test_what_ends_within_a_call_is_not_whole(name):
    described = dialect(name).DIALECT
    text = dialect(name).EXAMPLE
    cut = text.index("look") + 4 + len(described.parts()[1]) + 3
    _, stream = told(name, text[:cut])
    assert not stream.is_whole


@EACH
def test_where_a_call_must_come_no_text_is_told_of_one_that_is_cut_off(name):
    """Nor of what ends a thought, wherever there is one."""
    example = dialect(name).EXAMPLE.replace("Let me see.", "")
    for length in range(len(example)):
        thought, text, _ = said(told(name, example[:length], must_call=True)[0])
        assert ("hm".startswith(thought), text) == (True, "")


@EACH
def test_without_tools_nothing_is_a_call(name):
    text = dialect(name).EXAMPLE
    thought, shown, calls = said(told(name, text, tools=())[0])
    assert (thought, calls) == ("hm", [])
    assert "look" in shown


@EACH
def test_without_thoughts_their_marks_are_text(name):
    begin, end = dialect(name).DIALECT.thought
    assert said(told(name, f"{begin}hm{end}", reasons=False)[0])[1] == f"{begin}hm{end}"


@EACH
@CONTROL
def test_a_prompt_may_have_opened_the_thought(name, control):
    _, end = dialect(name).DIALECT.thought
    deltas, stream = told(name, f"hm{end}yes", control=control, is_thinking=True)
    assert said(deltas) == ("hm", "yes", [])
    assert stream.num_thought > 0


def test_marks_within_a_text_of_the_arguments_are_its_letters():
    call = (
        '<tool_call>\n{"name": "look", "arguments": {"at": "</tool_call> <think>"}}\n</tool_call>'
    )
    calls = said(told("hermes", call)[0])[2]
    assert json.loads(calls[0][3]) == {"at": "</tool_call> <think>"}


def test_stop_strings_are_looked_for_in_the_text_only():
    text = '<think>one STOP</think>two\n<tool_call>\n{"name": "look", "arguments": {"at": "STOP"}}'
    deltas, stream = told("hermes", text + "\n</tool_call>", stop=("STOP",))
    assert (said(deltas)[:2], stream.stopped) == (("one STOP", "two"), None)
    deltas, stream = told("hermes", "<think>one</think>two STOP three", stop=("STOP",))
    assert (said(deltas)[:2], stream.stopped) == (("one", "two "), "STOP")


def test_text_about_marks_is_text():
    said_of_them = "It writes <think> first, then </think>."
    assert said(told("hermes", said_of_them)[0]) == ("", said_of_them, [])
    slip = said(told("hermes", "It says</think> so.", control=True)[0])
    assert slip == ("", "It says so.", []), "a token that says nothing where it stands"


def test_a_step_that_says_things_in_another_order_is_several_deltas():
    text = '<tool_call>\n{"name": "look", "arguments": {}}\n</tool_call>and <tool_call>'
    deltas, _ = told("hermes", text)
    kinds = [(bool(delta.text), bool(delta.calls)) for delta in deltas if delta.text or delta.calls]
    assert kinds == [(False, True), (True, False), (True, False)]


# ---- as grammars: what is constrained is what is read


class Bytes:
    """llguidance's own kind of tokenizer: bytes, and the marks that are tokens."""

    bos_token_id, eos_token_id = None, 256

    def __init__(self, control_ids):
        self.tokens = [bytes([byte]) for byte in range(256)] + [b"<eos>"]
        self.tokens += [mark.encode() for mark in control_ids]
        self.special_token_ids = [256, *control_ids.values()]

    def __call__(self, text):
        return list(text if isinstance(text, bytes) else text.encode())


@cache
def spelled(name, *, control):
    described = dialect(name).DIALECT
    marks = described.marks() if control else ()
    ids = {mark: 257 + place for place, mark in enumerate(marks)}
    wrapper = llguidance.TokenizerWrapper(Bytes(ids))
    return Spelling(described, ids), llguidance.LLTokenizer(wrapper)


def tokens_of(spelling, text):
    ids = {character: token for token, character in spelling.ids.items()}
    marked = text
    for mark in spelling.marks:
        if spelling.marks[mark] in ids:
            marked = marked.replace(mark, spelling.marks[mark])
    return [t for c in marked for t in ([ids[c]] if c in ids else c.encode())]


def taken(name, text, tools, *, control=False, **reading):
    """(how much of it the grammar takes, whether the answer may end there)"""
    spelling, tokenizer = spelled(name, control=control)
    grammar = reply_grammar(spelling, tools, Reading(tools.callable, **reading), None)
    matcher = llguidance.LLMatcher(tokenizer, as_llguidance(grammar.text))
    assert not matcher.is_error(), matcher.get_error()
    tokens = tokens_of(spelling, text)
    return matcher.try_consume_tokens(tokens) == len(tokens), matcher.is_accepting()


AUTO = Tools((TOOL,), ("look",))
REQUIRED = Tools((TOOL,), ("look",), is_required=True)


def without_text(name):
    return dialect(name).EXAMPLE.replace("Let me see.\n", "").replace("Let me see.", "")


@EACH
@CONTROL
def test_its_grammar_takes_its_example(name, control):
    assert taken(name, dialect(name).EXAMPLE, AUTO, control=control) == (True, True)
    assert taken(name, without_text(name), REQUIRED, control=control) == (True, True)


@EACH
@CONTROL
def test_required_is_a_call_and_nothing_else(name, control):
    assert taken(name, "Let me see.", AUTO, control=control) == (True, True)
    assert taken(name, "Let me see.", REQUIRED, control=control) == (False, False)


@EACH
@CONTROL
def test_from_the_moment_a_call_begins_its_arguments_are_constrained(name, control):
    """Unless it was no call: then the reader must say so, too."""
    text = without_text(name).replace("deep", "other")
    for tools in (AUTO, REQUIRED):
        assert not taken(name, text, tools, control=control)[0]


@EACH
@CONTROL
def test_one_call_at_most_where_calls_are_not_parallel(name, control):
    one = Tools((TOOL,), ("look",), is_required=True, is_parallel=False)
    text = without_text(name)
    assert taken(name, text, one, control=control)[0] == (dialect(name).DIALECT.between is None)


@EACH
@CONTROL
def test_only_callable_tools_are_called(name, control):
    other = Tool("other", None, {"type": "object", "properties": {}})
    tools = Tools((TOOL, other), ("other",), is_required=True)
    assert not taken(name, without_text(name), tools, control=control)[0]
    text = without_text(name).replace("look", "other")
    assert not taken(name, text, REQUIRED, control=control)[0]


@EACH
@CONTROL
def test_a_thought_that_the_prompt_opened_ends_before_the_call(name, control):
    begin, _ = dialect(name).DIALECT.thought
    text = without_text(name).removeprefix(begin.strip())
    text = text.replace("hm", f"{dialect(name).DIALECT.marker or 'x'} hm") if not control else text
    for tools in (AUTO, REQUIRED):
        assert taken(name, text, tools, control=control, is_thinking=True) == (True, True)


@EACH
@examples(15)
@given(st.lists(st.sampled_from(["[look", "(", "<tool_call>", '{"name": "look', '", ', "a", " "])))
def test_text_that_the_grammar_takes_to_its_end_is_read_without_a_broken_call(name, words):
    text = "".join(words)
    if taken(name, text, AUTO) == (True, True):
        _, stream = told(name, text)
        assert stream.is_whole


def test_five_hundred_tools_in_one_request():
    tools = tuple(
        Tool(f"tool_{i}", 'a "quoted" {brace} <|im_end|>', TOOL.parameters) for i in range(500)
    )
    names = tuple(tool.name for tool in tools)
    for name in ("hermes", "llama3_pythonic"):
        text = without_text(name).replace("look", "tool_499")
        assert taken(name, text, Tools(tools, names, is_required=True)) == (True, True)


# ---- notations

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=6),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text("abcxyz_é", min_size=1, max_size=4), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip
arguments = st.dictionaries(st.text("abcxyz_é", min_size=1, max_size=5), json_values, max_size=4)


@pytest.mark.thorough
@EACH
@examples(20)
@given(arguments)
def test_arguments_that_are_written_are_read_again(name, given):
    described = spelling(name, control=False)
    reader = described.arguments_reader()
    told = "".join(map(reader.push, described.marked(described.notation.write(given))))
    assert reader.is_done
    assert json.loads(told) == given
    assert told == json.dumps(given, ensure_ascii=False)


def read(notation, text):
    described = spelling({"json": "hermes", "python": "llama3_pythonic"}[notation], control=False)
    reader = described.arguments_reader()
    said = "".join(map(reader.push, text))
    assert reader.is_done
    return json.loads(said)


def test_python_is_read_as_python_has_it():
    text = r"""(a='it\'s "x"\x41\n', b=[True, None, -1.5e3], c={'k': "v"}, d=false)"""
    assert read("python", text) == {
        "a": "it's \"x\"A\n", "b": [True, None, -1500.0], "c": {"k": "v"}, "d": False,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("notation", "text"),
    [
        ("json", '{"a": 01}'),
        ("json", '{"a": True}'),
        ("json", '{"a" 1}'),
        ("json", '{"a": 1,}'),
        ("json", '{"a": "\n"}'),
        ("json", '{"a": "\\x41"}'),
        ("json", '{"a": [}'),
        ("json", '{"a": ' + "[" * 300),
        ("json", "[]"),
        ("python", "(1)"),
        ("python", "(a=b)"),
        ("python", "(a=f(1))"),
        ("python", "(a='x' 'y')"),
    ],
)
def test_what_is_malformed_is_refused(notation, text):
    with pytest.raises(Malformed):
        read(notation, text)


def test_what_gemma_has_no_words_for_is_refused_by_name_and_path():
    parameters = {"type": "object", "properties": {"a": {"type": "string", "pattern": "x"}}}
    tool = Tool("f", None, parameters, "tools[0].function.parameters")
    spelling, _ = spelled("gemma", control=True)
    with pytest.raises(BadRequest) as refused:
        reply_grammar(spelling, Tools((tool,), ("f",)), Reading(("f",)), None)
    assert refused.value.field == "tools[0].function.parameters.properties.a.pattern"


RICH = {
    "type": "object",
    "properties": {
        "n": {"type": "integer", "minimum": 0},
        "kind": {"enum": ["a", "b"]},
        "tags": {"type": "array", "items": {"type": "string"}, "maxItems": 2},
        "at": {"$ref": "#/$defs/place"},
        "maybe": {"anyOf": [{"type": "boolean"}, {"type": "null"}]},
        "pair": {"enum": [["a", {"k": "b"}], "", []]},
        "one": {"type": "array", "items": {"type": "integer"}, "maxItems": 1},
    },
    "required": ["n", "at"],
    "$defs": {
        "place": {
            "type": "object",
            "properties": {"x": {"type": "number"}, "in": {"$ref": "#/$defs/place"}},
        }
    },
}


@pytest.mark.parametrize("name", ["gemma", "llama3_pythonic", "hermes"])
@pytest.mark.parametrize(
    ("given", "fits"),
    [
        ({"n": 1, "at": {}}, True),
        (
            {"n": 1, "kind": "b", "tags": ["é"], "at": {"x": 1.5, "in": {"x": 2}}, "maybe": None},
            True,
        ),
        ({"n": 1, "at": {}, "pair": ["a", {"k": "b"}], "one": [1]}, True),
        ({"n": 1, "at": {}, "pair": "", "one": []}, True),
        ({"n": 1, "at": {}, "one": [1, 2]}, False),
        ({"n": 1}, False),
        ({"at": {}}, False),
        ({"n": "1", "at": {}}, False),
        ({"n": 1, "kind": "c", "at": {}}, False),
        ({"n": 1, "tags": ["a", "b", "c"], "at": {}}, False),
        ({"n": 1, "at": {"x": "1"}}, False),
    ],
)
def test_every_notation_keeps_to_a_schema(name, given, fits):
    described = dialect(name).DIALECT
    before, middle, after = described.parts()
    written = Spelling(described, {}).notation.write(given)
    text = f"{described.opens}{before}f{middle}{written}{after}{described.closes}"
    tools = Tools((Tool("f", None, RICH),), ("f",), is_required=True)
    for control in (False, True):
        assert taken(name, text, tools, control=control)[0] == fits


# ---- which one

TEMPLATES = {
    "deepseek": "'<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' + '```json'",
    "deepseek_v31": "'<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>' + tool['function']['name']",
    "gemma": "{{- '<start_function_call>call:' + function['name'] + '{' -}}",
    "hermes": '{{- \'\\n<tool_call>\\n{"name": "\' }}',
    "llama3_json": "<|start_header_id|> {{- '\"parameters\": ' }}",
    "llama3_pythonic": "<|start_header_id|> [func_name1(params_name1=params_value1)]",
    "mistral": '{{- "[TOOL_CALLS] [" }}',
    "mistral_args": '{{- "[TOOL_CALLS]" + name + "[ARGS]" }}',
    "plain": "<|im_start|>{{ message['content'] }}",
}


@EACH
def test_it_is_chosen_by_the_chat_template_or_by_name(name):
    assert choose(None, TEMPLATES[name]) == dialect(name).DIALECT
    assert choose(name, None) == dialect(name).DIALECT


def test_a_dialect_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(BadConfig, match=r"tool_dialect.*hermes"):
        choose("hermse", None)
