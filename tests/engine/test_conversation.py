"""What Python callers say in OpenAI's dicts, and what octavo.LLM tells apart in the answers."""

import pytest
from checkpoints import write_tiny
from dialects import LOOK
from schemas import is_valid

import octavo
from octavo import LLM, Message, SamplingParams, ToolCall
from octavo.engine.conversation import read_messages, read_tools

LOOKS = {"type": "function", "function": {"name": "look", "parameters": LOOK, "strict": True}}
OTHER = {"type": "function", "function": {"name": "other", "description": "Does nothing."}}
CHAT = [{"role": "user", "content": "hello"}]
CALL = {"id": "c", "type": "function", "function": {"name": "look", "arguments": {"at": "é"}}}
CALLED = {"role": "assistant", "content": None, "reasoning_content": "hm", "tool_calls": [CALL]}
RESULT = {"role": "tool", "tool_call_id": "c", "content": "a"}
THINKS = (
    "{% for m in messages %}{{ m.content }}{% endfor %}"
    "{% if opens is not defined %}<think>\n{% endif %}{# </think> #}"
)


@pytest.fixture(scope="module")
def llm(llama_path):
    with LLM(llama_path, memory=64 << 20) as llm:
        yield llm


@pytest.fixture(scope="module")
def thinker(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "thinker.gguf"
    with LLM(write_tiny(path, metadata={"tokenizer.chat_template": THINKS})) as llm:
        yield llm


def test_a_dict_is_the_message_it_spells():
    parts = {"role": "user", "content": [{"type": "text", "text": word} for word in "ab"]}
    turns = read_messages([*CHAT, CALLED, RESULT, Message("user", "and?"), parts])
    assert turns == (
        Message("user", "hello"),
        Message("assistant", "", "hm", (ToolCall("c", "look", '{"at": "é"}'),)),
        Message("tool", "a", tool_call_id="c"),
        Message("user", "and?"),
        Message("user", "a\nb"),
    )
    as_text = CALL | {"function": {"name": "look", "arguments": '{"at": "é"}'}}
    assert read_messages([CALLED | {"tool_calls": [as_text], "refusal": None}]) == turns[1:2]


@pytest.mark.parametrize(
    ("messages", "problem"),
    [
        ([CHAT[0] | {"audio": 1}], r"messages\[0\]: .*`audio`"),
        ([*CHAT, {"content": "x"}], r"messages\[1\]: .*`role`"),
        ([{"role": "user", "content": [1]}], r"messages\[0\]: .*\$\.content"),
        ([RESULT], r"messages\[0\]\.tool_call_id: no message before it"),
        (
            [CALLED | {"tool_calls": [CALL | {"function": {"name": "f", "arguments": "["}}]}],
            r"messages\[0\]\.tool_calls\[0\]\.function\.arguments",
        ),
    ],
)
def test_what_no_template_would_be_given_is_refused(messages, problem):
    with pytest.raises(octavo.BadRequest, match=problem):
        read_messages(messages)


@pytest.mark.parametrize(
    ("tools", "choice", "problem"),
    [
        ([LOOKS, {"type": "custom"}], "auto", r"tools\[1\]: "),
        ([LOOKS, LOOKS], "auto", r"tools\[1\]\.function\.name"),
        ([LOOKS], "other", "tool_choice: there is no tool 'other'"),
        (None, "required", "tool_choice: no tool is given"),
    ],
)
def test_tools_that_cannot_be_given_are_refused(tools, choice, problem):
    with pytest.raises(octavo.BadRequest, match=problem):
        read_tools(tools, choice)


def test_calls_are_told_apart_from_text_and_go_back_in(llm):
    asked = SamplingParams(max_tokens=300, seed=1)
    answer = llm.chat(CHAT, asked, tools=[OTHER, LOOKS], tool_choice="look")
    ((call,), text) = answer.tool_calls, answer.text
    assert (call.name, text, answer.finish_reason) == ("look", "", "tool_calls")
    assert is_valid(call.arguments, LOOK)
    with llm.stream(CHAT, asked, tools=[OTHER, LOOKS], tool_choice="look") as stream:
        assert "".join(part.arguments for delta in stream for part in delta.calls) == call.arguments
        assert stream.completion.tool_calls == (call,)
    said = Message("assistant", answer.text, answer.reasoning, answer.tool_calls)
    turns = [*CHAT, said, Message("tool", "here", tool_call_id=call.id)]
    after = llm.chat(turns, SamplingParams(max_tokens=1), tools=[LOOKS])
    shown = llm.tokenizer.decode(after.prompt_ids, special=True)
    assert "<tool_result>\nhere\n</tool_result>" in shown
    assert shown.count('"name": "look"') == 2  # what it may call, and its call


def test_a_schema_beside_tools_is_of_the_text(llm):
    asked = {"schema": {"const": [1]}, "max_tokens": 300, "temperature": 3}
    answers = [llm.chat(CHAT, SamplingParams(**asked, seed=k), tools=[OTHER]) for k in range(20)]
    for answer in answers:
        assert answer.parsed == (None if answer.tool_calls else [1])
    assert {bool(answer.tool_calls) for answer in answers} == {True, False}


def test_thoughts_are_told_apart_from_text(thinker):
    thought = thinker.chat(CHAT, SamplingParams(max_tokens=30, seed=1, ignore_eos=True))
    assert thought.reasoning
    assert (thought.text, thought.usage.reasoning_tokens) == ("", 30)
    (bracket,) = thinker.tokenizer.encode("<")
    asked = SamplingParams(schema={"const": [1]}, max_tokens=50, logit_bias={bracket: -100})
    said = thinker.chat(CHAT, asked, opens=False)
    assert (said.reasoning, said.text, said.parsed) == ("", "[1]", [1])
    raw = thinker.generate(
        thought.prompt_ids, SamplingParams(max_tokens=30, seed=1, ignore_eos=True)
    )
    assert (raw.token_ids, raw.reasoning) == (thought.token_ids, "")


@pytest.mark.thorough
def test_what_is_at_fault_is_named(llm, thinker):
    nothing = SamplingParams(regex=r"[^\x00-\u{10FFFF}]")
    for model, tools in ((llm, [LOOKS]), (thinker, None)):
        with pytest.raises(octavo.BadRequest, match=r"^regex: no answer fits it"):
            model.chat(CHAT, nothing, tools=tools)
    unenforced = LOOK | {"not": {}}
    bad = {"type": "function", "function": {"name": "f", "parameters": unenforced}}
    with pytest.raises(octavo.BadRequest, match=r"tools\[1\]\.function\.parameters: 'not' at \$"):
        llm.chat(CHAT, tools=[LOOKS, bad])
    costly = {"type": "string", "pattern": "^((a{1000}){1000}){1000}$"}
    bad["function"]["parameters"] = {"properties": {"a": costly}, "required": ["a"]}
    named = r"^tools\[1\]\.function\.parameters: 'pattern' at \$\.properties\.a: .*makes 1000000000"
    with pytest.raises(octavo.BadRequest, match=named):
        llm.chat(CHAT, tools=[LOOKS, bad], tool_choice="f")
    with pytest.raises(octavo.BadRequest, match=r"choice: .*calls of tools"):
        llm.chat(CHAT, SamplingParams(choice=("a",)), tools=[LOOKS], tool_choice="required")


def test_only_conversations_have_tools_and_templates(llm):
    for given in ({"tools": [LOOKS]}, {"enable_thinking": False}):
        with pytest.raises(octavo.BadRequest, match=f"{min(given)}: only conversations"):
            llm.stream("hello", **given)
