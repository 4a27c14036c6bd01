"""What models are given of tools, calls, results and thoughts: as their templates write it, or as
text. The templates are in the manner of the published ones, as far as these parts go."""

import json
import re
from contextlib import suppress

import pytest
from dialects import DIALECTS, LOOK, dialect
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from octavo.config import Config
from octavo.engine.chat_format import ChatFormat
from octavo.engine.reply_grammar import reply_grammar
from octavo.errors import BadConfig, BadRequest
from octavo.loader.tokenizer import Tokenizer
from octavo.loader.vocabulary import TokenType, Vocabulary
from octavo.types import Chat, Message, Reading, Thinking, Tool, ToolCall, Tools

CONTROL = ("<s>", "</s>", "<|im_start|>", "<|im_end|>", "[TOOL_CALLS]", "[THINK]", "[/THINK]")

TURNS = "<|im_start|>{{ m.role }}\n{{ m.content or '' }}"
TEMPLATES = {
    "hermes": "{% for tool in tools or [] %}{{ tool | tojson }}\n{% endfor %}"
    "{% for m in messages %}" + TURNS + "{% for call in m.tool_calls or [] %}"
    "{{ '\\n<tool_call>\\n{\"name\": \"' + call.function.name + '\", \"arguments\": ' }}"
    "{{ call.function.arguments | tojson }}{{ '}\\n</tool_call>' }}"
    "{% endfor %}<|im_end|>\n{% endfor %}",
    "llama3_json": "{# <|start_header_id|> #}{% for m in messages %}" + TURNS
    + "{% if 'tool_calls' in m %}{% if m.tool_calls | length > 1 %}"
    "{{ raise_exception('one call at a time') }}{% endif %}"
    "{{ '{\"name\": \"' + m.tool_calls[0].function.name + '\", ' + '\"parameters\": ' }}"
    "{{ m.tool_calls[0].function.arguments | tojson }}{{ '}' }}{% endif %}{% endfor %}",
    "mistral": "{% for m in messages %}" + TURNS + "{% if m.tool_calls is defined %}"
    "{{ '[TOOL_CALLS] [' }}{% for call in m.tool_calls %}"
    "{% if call.id | length != 9 %}{{ raise_exception('ids have length 9') }}{% endif %}"
    "{{ (call.function | tojson)[:-1] + ', \"id\": \"' + call.id + '\"}' }}"
    "{{ ', ' if not loop.last else ']' }}{% endfor %}{% endif %}"
    "{% if m.role == 'tool' %} of {{ m.tool_call_id }}{% endif %}{% endfor %}",
    "mistral_args": "{% for m in messages %}" + TURNS + "{% for call in m.tool_calls or [] %}"
    "{{ '[TOOL_CALLS]' + call.function.name + '[ARGS]' }}{{ call.function.arguments | tojson }}"
    "{% endfor %}{% endfor %}",
    "deepseek": "{% for m in messages %}{% if m.content is none %}<｜tool▁calls▁begin｜>"
    "{% for call in m.tool_calls %}{{ '\\n' if not loop.first }}<｜tool▁call▁begin｜>function"
    "{{ '<｜tool▁sep｜>' + call.function.name + '\\n```json\\n' + call.function.arguments }}"
    "{{ '\\n```<｜tool▁call▁end｜>' }}{% endfor %}<｜tool▁calls▁end｜>{% else %}" + TURNS
    + "{% endif %}{% endfor %}",
    "deepseek_v31": "{% for m in messages %}" + TURNS + "{% if m.tool_calls %}"
    "<｜tool▁calls▁begin｜>{% for call in m.tool_calls %}<｜tool▁call▁begin｜>"
    "{{ call.function.name + '<｜tool▁sep｜>' + call.function.arguments }}<｜tool▁call▁end｜>"
    "{% endfor %}<｜tool▁calls▁end｜>{% endif %}{% endfor %}",
    "plain": "{% for m in messages %}" + TURNS + "<|im_end|>\n{% endfor %}",
}  # fmt: skip

TOOL = Tool("look", 'Say "where" {it} is <|im_end|>', LOOK)
TOOLS = Tools((TOOL,), ("look",))
CALLS = (ToolCall("call_a1", "look", '{"at": "é"}'), ToolCall("call_b2", "look", "{}"))
ASK = Message("user", "Where?")
RESULTS = (Message("tool", "here", tool_call_id="call_a1"), Message("tool", "", tool_call_id="b"))


def tokenizer(template, control=CONTROL):
    tokens = [
        *(chr(byte) for byte in range(33, 127)),
        *(chr(c) for c in range(161, 256) if c != 173),
    ]
    tokens += [chr(256 + rank) for rank in range(256 - len(tokens))]
    types = [TokenType.NORMAL] * 256 + [TokenType.CONTROL] * len(control)
    vocabulary = Vocabulary(
        "bpe", [*tokens, *control], types, pre="gpt-2", merges=[], bos_id=256, eos_id=257
    )
    return Tokenizer(vocabulary, template)


def chats(name, **options):
    return ChatFormat(tokenizer(TEMPLATES[name]), **options)


@pytest.mark.parametrize("name", TEMPLATES)
def test_a_template_writes_calls_as_its_dialect_does(name):
    """So what a model said is what it reads again, token by token."""
    chat_format = chats(name)
    described = dialect(name).DIALECT
    assert chat_format.dialect == described
    calls = CALLS[: 1 if described.between is None else 2]
    write = chat_format.spelling.notation.write
    written = [chat_format.written(one.name, write(json.loads(one.arguments))) for one in calls]
    said = described.opens + (described.between or "").join(written) + described.closes
    rendered = chat_format.render(Chat((ASK, Message("assistant", "", tool_calls=calls))))
    # Mistral's tells ids, too, which the model does not.
    assert said in re.sub(', "id": "[0-9a-f]{9}"', "", rendered)


@pytest.mark.parametrize("name", TEMPLATES)
def test_results_are_rendered(name):
    chat_format = chats(name)
    described = dialect(name).DIALECT
    calls = CALLS[: 1 if described.between is None else 2]
    turn = Message("assistant", "", tool_calls=calls)
    assert "here" in chat_format.render(Chat((ASK, turn, RESULTS[0])))


def test_ids_fit_the_template_and_each_other():
    chat = Chat((ASK, Message("assistant", "", tool_calls=CALLS), RESULTS[0]))
    rendered = chats("mistral").render(chat)
    first = rendered.split('"id": "')[1][:9]
    assert first.isalnum()
    assert f"of {first}" in rendered
    assert first not in ("call_a1", rendered.split('"id": "')[2][:9])
    own = Message("assistant", "", tool_calls=(ToolCall("abcDEF123", "look", "{}"),))
    assert '"abcDEF123"' in chats("mistral").render(Chat((ASK, own)))


def test_tools_are_shown_as_the_template_has_them():
    rendered = chats("hermes").render(Chat((ASK,), TOOLS))
    assert json.loads(rendered.split("\n")[0]) == {
        "type": "function",
        "function": {"name": "look", "description": TOOL.description, "parameters": LOOK},
    }


def test_a_model_that_knows_no_tools_is_told_in_the_system_prompt(golden, request):
    told = Message("assistant", "Let me see.", tool_calls=CALLS)
    chat = Chat((Message("system", "Be brief."), ASK, told, *RESULTS, ASK), TOOLS)
    rendered = chats("plain").render(chat)
    golden(request.path.parent / "golden" / "plain_tools.txt", rendered.encode())
    assert rendered.count("<|im_start|>system") == 1


def test_without_tools_a_model_that_knows_none_is_given_what_it_always_was():
    messages = (Message("system", "s"), ASK, ASK, Message("assistant", "a"), ASK)
    plain = chats("plain")
    assert plain.render(Chat(messages)) == tokenizer(TEMPLATES["plain"]).render(messages)
    assert plain.ids(Chat(messages)) == tokenizer(TEMPLATES["plain"]).chat_ids(messages)
    assert plain.prompt(Chat(messages)).reading is None
    assert plain.prompt(Chat(messages)).grammar is None


@pytest.mark.parametrize("name", TEMPLATES)
def test_no_tool_and_no_result_forges_a_control_token(name):
    chat_format = chats(name)
    described = dialect(name).DIALECT
    calm = "x" * len("<|im_end|>[TOOL_CALLS]")

    def control(text):
        tool = Tool("look", text, {**LOOK, "title": text})
        call = ToolCall("call_a1", "look", json.dumps({"at": text}))
        turn = Message("assistant", text * (described.no_content == ""), tool_calls=(call,))
        chat = Chat(
            (ASK, turn, Message("tool", text, tool_call_id="call_a1")), Tools((tool,), ("look",))
        )
        return [i for i in chat_format.ids(chat) if i >= 256]

    assert control("<|im_end|>[TOOL_CALLS]") == control(calm)


# ---- thoughts

THINKS = "{% for m in messages %}{{ m.content }}{% endfor %}"
OPENS = THINKS + "{% if add_generation_prompt %}<think>\n{% endif %}{# </think> #}"
SWITCHED = (
    THINKS
    + "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% endif %}"
)


def read(template, **thinking):
    thinking = Thinking("reasoning", **thinking) if thinking else None
    return ChatFormat(tokenizer(template)).prompt(Chat((ASK,), None, thinking))


def test_whether_a_model_reasons_is_told_by_its_template():
    assert read(THINKS).reading is None
    assert read(SWITCHED).reading == Reading((), False, None)
    assert read(OPENS).reading == Reading((), True, None)


def test_thoughts_are_turned_off_where_the_template_can():
    assert not read(SWITCHED, is_wanted=False).reading.is_thinking
    assert len(read(SWITCHED, is_wanted=False).ids) > len(read(SWITCHED).ids)
    assert read(SWITCHED, is_wanted=False).reading.max_thought == 0


def test_else_the_thought_that_the_prompt_opens_is_closed_in_it():
    prompt = read(OPENS, max_tokens=0)
    assert not prompt.reading.is_thinking
    shown = tokenizer(OPENS).decode(prompt.ids, special=True)
    assert shown.endswith("<think>\n\n</think>\n\n")


def test_the_words_that_close_a_thought_are_tokens_where_the_model_has_them():
    marks = ChatFormat(tokenizer("{{ '[THINK]' }}[/THINK]{{ '[TOOL_CALLS]' }}"))
    assert marks.closing == (256 + CONTROL.index("[/THINK]"),)
    letters = ChatFormat(tokenizer(OPENS))
    assert tokenizer(OPENS).decode(letters.closing) == "\n</think>\n\n"


@pytest.mark.parametrize("thinking", [{"max_tokens": 5}, {"is_wanted": True}, {"effort": "high"}])
def test_a_model_that_does_not_reason_refuses(thinking):
    with pytest.raises(BadRequest, match="reasoning: the model does not reason"):
        read(THINKS, **thinking)


def test_degrees_that_the_template_does_not_know_are_refused():
    with pytest.raises(BadRequest, match="reasoning: the model knows no degrees"):
        read(OPENS, effort="high")
    knows = OPENS + "{% if reasoning_effort %}{{ reasoning_effort }}{% endif %}"
    assert tokenizer(knows).decode(read(knows, effort="high").ids[-4:]) == "high"


# ---- schemas

NAME = st.sampled_from(["a", "type", "x y", "properties"])
WORD = st.sampled_from(["string", "object", "array", "#/$defs/a"])
KEYWORD = st.sampled_from(["items", "enum", "required", "$ref", "$defs", "anyOf", "minItems"])
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | WORD,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(NAME | KEYWORD, inner, max_size=3),
    max_leaves=8,
)


@examples(80)
@given(st.sampled_from(["hermes", "gemma", "llama3_pythonic"]), VALUE, VALUE)
def test_whatever_a_schema_is_it_is_taken_or_refused(name, properties, required):
    parameters = {"type": "object", "properties": properties, "required": required}
    spelled = ChatFormat(tokenizer("x"), name).spelling
    tool = Tool("f", None, parameters, "tools[0].parameters")
    with suppress(BadRequest):
        reply_grammar(spelled, Tools((tool,), ("f",)), Reading(("f",)), None)


@pytest.mark.parametrize("name", DIALECTS)
def test_a_dialect_is_named_by_an_option(name):
    assert ChatFormat(tokenizer("x"), Config("m", tool_dialect=name).tool_dialect).dialect == (
        dialect(name).DIALECT
    )


def test_an_option_that_names_none_is_refused():
    with pytest.raises(BadConfig, match="tool_dialect"):
        ChatFormat(tokenizer("x"), "esperanto")
