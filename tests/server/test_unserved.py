"""What other servers take and we do not is refused by name, with what does it here. A value that
asks for nothing is not."""

import msgspec
import pytest

from octavo.errors import BadRequest
from octavo.server.protocols import (
    anthropic_messages,
    openai_chat,
    openai_completions,
    openai_responses,
)
from octavo.server.protocols._unserved import UNSERVED

MESSAGES = [{"role": "user", "content": "Hello"}]
PROTOCOLS = {
    openai_chat: {"model": "echo", "messages": MESSAGES},
    openai_completions: {"model": "echo", "prompt": "Hello"},
    openai_responses: {"model": "echo", "input": "Hello"},
}
WORDS = {"model": "echo", "messages": MESSAGES, "max_tokens": 5}
SCHEMA = {"type": "object", "properties": {"a": {"type": "integer"}}}
JSON_SCHEMA = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}


def parsed(protocol, **fields):
    common = WORDS if protocol is anthropic_messages else PROTOCOLS[protocol]
    return protocol.parse(msgspec.json.encode(common | fields))


def check_refusal(protocol, field, known):
    """By name, with what to do; the values that ask for nothing are taken."""
    with pytest.raises(BadRequest) as refused:
        parsed(protocol, **{field: {"asks": "for more"}})
    assert refused.value.field == field
    assert (known.instead or "leave it out") in str(refused.value)
    for nothing in (None, *known.neutral):
        assert parsed(protocol, **{field: nothing}).ignored == {}


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_what_asks_for_more_than_we_serve_is_refused_by_name(protocol):
    own = {field.name for field in msgspec.structs.fields(protocol.Body)}
    own |= getattr(protocol, "ELSEWHERE", {}).keys()  # see below
    for field, known in UNSERVED.items():
        if field in own:  # best_of, as OpenAI has it
            continue
        check_refusal(protocol, field, known)


@pytest.mark.parametrize("protocol", [openai_responses, anthropic_messages])
def test_so_are_the_names_of_siblings(protocol):
    for field, known in protocol.ELSEWHERE.items():
        check_refusal(protocol, field, known)


@pytest.mark.parametrize(
    ("protocol", "fields", "field"),
    [
        (openai_chat, {"response_format": {"type": "json_object", "schema": SCHEMA}}, "schema"),
        (openai_responses, {"response_format": JSON_SCHEMA}, "text.format"),
        (openai_responses, {"reasoning_effort": "low"}, "reasoning.effort"),
        (openai_responses, {"max_tokens": 5}, "give max_output_tokens"),
        (openai_responses, {"messages": MESSAGES}, "give input"),
        (openai_responses, {"n": 2}, "null or 1"),
        (anthropic_messages, {"stop": "x"}, "give stop_sequences"),
        (anthropic_messages, {"max_completion_tokens": 5}, "give max_tokens"),
        (anthropic_messages, {"logit_bias": {"1": 1}}, "logit_bias"),
        (anthropic_messages, {"n": 2}, "null or 1"),
        (openai_chat, {"max_output_tokens": 5}, "give max_tokens"),
        (openai_completions, {"messages": MESSAGES}, "give prompt"),
        (openai_completions, {"max_completion_tokens": 5}, "give max_tokens"),
        (openai_completions, {"top_logprobs": 5}, "give logprobs"),
        (openai_completions, {"tools": [{"type": "function"}]}, "tools"),
        (openai_chat, {"echo": True}, "echo"),
        (openai_chat, {"prompt_cache_options": {"prewarm": True}}, "prompt_cache_options.prewarm"),
        (anthropic_messages, {"response_format": JSON_SCHEMA}, "output_config.format"),
        (anthropic_messages, {"guided_json": SCHEMA}, "output_config.format"),
        (openai_chat, {"chat_template_kwargs": {"tools_in_user": True}}, "tools_in_user"),
        (openai_chat, {"thinking": {"type": "enabled", "budget_tokens": 9}}, "budget_tokens"),
        (openai_chat, {"chat_template_kwargs": {"enable_thinking": "no"}}, "enable_thinking"),
    ],
)
def test_the_words_of_a_sibling_are_no_words_here(protocol, fields, field):
    with pytest.raises(BadRequest, match=field):
        parsed(protocol, **fields)


def test_a_completion_has_a_format_as_a_chat_has():
    call = parsed(openai_completions, response_format=JSON_SCHEMA)
    assert call.params == parsed(openai_chat, response_format=JSON_SCHEMA, max_tokens=16).params
    assert call.names["schema"].startswith("response_format")


@pytest.mark.parametrize(
    "fields",
    [
        {"enable_thinking": False},
        {"thinking": {"type": "disabled"}},
        {"chat_template_kwargs": {"enable_thinking": False}},
        {"chat_template_kwargs": {"thinking": False}, "enable_thinking": False},
    ],
)
def test_thoughts_are_turned_off_in_whichever_words(fields):
    (chat,) = parsed(openai_chat, **fields).prompts
    assert chat.thinking.is_wanted is False
    with pytest.raises(BadRequest, match="contradicts"):
        parsed(openai_chat, **fields, reasoning={"max_tokens": 5}, reasoning_effort="low")
