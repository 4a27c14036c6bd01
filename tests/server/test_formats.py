"""What an answer must be, over HTTP: said in OpenAI's words, refused in the same, and held to."""

import json
from typing import Literal

import anthropic
import httpx
import openai
import pytest
from checkpoints import write_tiny
from pydantic import BaseModel
from serving import serving

from octavo.config import Config
from octavo.engine.async_engine import AsyncEngine
from octavo.errors import BadRequest
from octavo.server.protocols import (
    anthropic_messages,
    openai_chat,
    openai_completions,
    openai_responses,
)
from octavo.server.protocols._formats import FlatFormat, schema_field, schema_of
from octavo.types import Grammar

SCHEMA = {"type": "object", "properties": {"z": {}, "a": {}}}
WRAPPED = {"type": "json_schema", "json_schema": {"name": "x", "schema": SCHEMA, "strict": True}}
FLAT = {"type": "json_schema", "name": "x", "schema": SCHEMA, "strict": True}
SAID = {"model": "tiny", "messages": [{"role": "user", "content": "Hi"}]}


def constraint(protocol, **fields):
    words = {openai_responses: {"input": "Hi"}, openai_completions: {"prompt": "Hi"}}
    body = {"model": "tiny"} | words.get(protocol, SAID) | fields
    return protocol.parse(json.dumps(body).encode()).params.constraint


def test_a_format_is_a_schema():
    assert constraint(openai_chat, response_format={"type": "text"}) is None
    assert constraint(openai_chat, response_format=None) is None
    any_object = Grammar("json_schema", '{"type": "object"}')
    assert constraint(openai_chat, response_format={"type": "json_object"}) == any_object
    held = constraint(openai_chat, response_format=WRAPPED)
    assert held == Grammar("json_schema", json.dumps(SCHEMA))  # its properties in their order


def test_responses_say_it_one_level_higher():
    flat = FlatFormat(type="json_schema", name="x", schema=SCHEMA)
    assert schema_of(flat, "text.format") == SCHEMA
    assert schema_field(flat, "text.format") == "text.format.schema"
    with pytest.raises(BadRequest, match=r"text\.format\.schema: it is required"):
        schema_of(FlatFormat(type="json_schema"), "text.format")


def test_text_format_is_one():
    def held(**given):
        return constraint(openai_responses, text={"format": given})

    assert held(type="text") is None
    assert held(type="json_object") == Grammar("json_schema", '{"type": "object"}')
    assert held(**FLAT) == Grammar("json_schema", json.dumps(SCHEMA))
    with pytest.raises(BadRequest, match="it cannot stand beside a schema, "):
        constraint(openai_responses, text={"format": FLAT}, regex="a")


def test_a_schema_beside_another_type_is_refused():
    for fields in ({"type": "json_object"}, {"type": "text"}):
        with pytest.raises(BadRequest, match=r"^response_format\.json_schema: "):
            constraint(openai_chat, response_format=WRAPPED | fields)


@pytest.mark.parametrize("protocol", [openai_chat, openai_completions, openai_responses])
def test_all_endpoints_take_our_own_fields(protocol):
    assert constraint(protocol, regex="a+") == Grammar("regex", "a+")
    assert constraint(protocol, grammar='start: "a"').kind == "lark"
    assert constraint(protocol, grammar='root ::= "a"').kind == "gbnf"
    assert constraint(protocol, choice=["a", "b"]) == Grammar("choice", '["a", "b"]')
    with pytest.raises(BadRequest, match="choice: it cannot stand beside regex"):
        constraint(protocol, regex="a", choice=["b"])
    with pytest.raises(BadRequest) as refusal:
        constraint(protocol, choice=[])
    assert refusal.value.field == "choice"


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"regex": "("}, "regex"),
        (
            {"response_format": WRAPPED | {"json_schema": {"schema": {"not": {}}}}},
            "response_format.json_schema.schema",
        ),
    ],
)
def test_a_refusal_names_the_field_in_the_callers_words(echo, fields, place):
    num_queued = len(echo[0].requests)
    reply = httpx.post(f"{echo[1]}/v1/chat/completions", json=SAID | {"model": "echo"} | fields)
    assert reply.status_code == 400
    assert len(echo[0].requests) == num_queued
    error = reply.json()["error"]
    assert error["param"] == place
    assert error["message"].startswith(f"{place}: ")


def test_responses_refuse_in_their_own_words(echo):
    fields = {"text": {"format": FLAT | {"schema": {"not": {}}}}}
    for more in ({}, {"stream": True}, {"background": True}, {"store": False}):
        body = {"model": "echo", "input": "Hi"} | fields | more
        reply = httpx.post(f"{echo[1]}/v1/responses", json=body)
        error = reply.json()["error"]
        assert (reply.status_code, error["param"]) == (400, "text.format.schema")


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    path = write_tiny(tmp_path_factory.mktemp("models") / "tiny.gguf")
    engine = AsyncEngine(Config(str(path), memory=64 << 20))
    with serving(engine) as (_, url):
        yield url


OPTIONS = {"api_key": "none", "max_retries": 0, "_strict_response_validation": True}


@pytest.fixture(scope="module")
def client(url):
    with openai.OpenAI(base_url=f"{url}/v1", **OPTIONS) as client:
        yield client


@pytest.fixture(scope="module")
def claude(url):
    with anthropic.Anthropic(base_url=url, **OPTIONS) as claude:
        yield claude


class Mark(BaseModel):
    colour: Literal["red", "green"]
    is_large: bool


def test_the_openai_client_parses_what_it_asked_for(client):
    ask = SAID | {"response_format": Mark, "max_tokens": 60}
    (choice,) = client.chat.completions.parse(**ask).choices
    assert choice.message.parsed.colour in ("red", "green")
    assert choice.finish_reason == "stop"
    with client.chat.completions.stream(**ask) as stream:
        events = list(stream)
    assert stream.get_final_completion().choices[0].message.parsed.is_large in (True, False)
    assert any(event.type == "content.delta" for event in events)


@pytest.mark.thorough
def test_responses_parse_what_they_asked_for(client):
    ask = {"model": "tiny", "input": "Hi", "text_format": Mark, "max_output_tokens": 60}
    made = client.responses.parse(**ask)
    assert made.output_parsed.colour in ("red", "green")
    assert (made.text.format.type, made.text.format.strict) == ("json_schema", True)
    with client.responses.stream(**ask) as stream:
        (done,) = [event for event in stream if event.type == "response.output_text.done"]
        assert stream.get_final_response().output_parsed == done.parsed
    anything = client.responses.create(
        model="tiny", input="Hi", extra_body={"choice": ["yes", "no"]}, max_output_tokens=9
    )
    assert anything.output_text in ("yes", "no")


def test_a_tool_called_in_responses_keeps_to_its_schema(client):
    tool = openai.pydantic_function_tool(Mark, name="mark")["function"] | {"type": "function"}
    ask = {"model": "tiny", "input": "Hi", "tools": [tool], "tool_choice": "required"}
    ask |= {"parallel_tool_calls": False, "max_output_tokens": 200, "extra_body": {"seed": 7}}
    made = client.responses.create(**ask)
    (call,) = made.output
    assert (made.status, call.type, call.status) == ("completed", "function_call", "completed")
    Mark.model_validate_json(call.arguments)
    with client.responses.stream(**ask) as stream:
        (again,) = stream.get_final_response().output
    assert (again.call_id, again.arguments) == (call.call_id, call.arguments)
    result = {"type": "function_call_output", "call_id": call.call_id, "output": "done"}
    asked = ask | {"input": [result], "tool_choice": "none", "max_output_tokens": 5}
    (then,) = client.responses.create(**asked, previous_response_id=made.id).output
    assert then.type == "message"


def test_what_is_cut_off_says_so(client):
    with pytest.raises(openai.LengthFinishReasonError):
        client.chat.completions.parse(**SAID, response_format=Mark, max_tokens=3)


def test_several_choices_follow_one_grammar_each(client):
    ask = SAID | {"n": 4, "extra_body": {"choice": ["yes", "no", "maybe"]}, "temperature": 2}
    said = {choice.message.content for choice in client.chat.completions.create(**ask).choices}
    assert said <= {"yes", "no", "maybe"}
    text = client.completions.create(
        model="tiny", prompt="x", max_tokens=9, extra_body={"regex": "[0-9]{3}"}
    ).choices[0]
    assert text.text.isdigit()
    assert text.finish_reason == "stop"


def test_an_unenforced_keyword_never_reaches_the_queue(client):
    bad = {"type": "json_schema", "json_schema": {"name": "x", "schema": {"items": {"not": {}}}}}
    with pytest.raises(openai.BadRequestError, match=r"'not' at \$\.items") as refusal:
        client.chat.completions.create(**SAID, response_format=bad)
    assert refusal.value.param == "response_format.json_schema.schema"


# ---- beside tools

PLACE = openai.pydantic_function_tool(Mark, name="mark")
FLAT_PLACE = PLACE["function"] | {"type": "function"}


def test_with_tools_an_answer_is_what_was_asked_for_or_a_call(client):
    ask = SAID | {"tools": [PLACE], "response_format": Mark, "max_tokens": 200, "temperature": 2}
    kinds = set()
    for seed in range(12):
        made = client.chat.completions.parse(**ask, parallel_tool_calls=False, seed=seed)
        said = made.choices[0].message
        kinds.add(made.choices[0].finish_reason)
        if said.tool_calls:
            assert said.parsed is None
            assert said.tool_calls[0].function.parsed_arguments.colour in ("red", "green")
        else:
            assert said.parsed.colour in ("red", "green")
    assert kinds == {"stop", "tool_calls"}


def test_responses_with_tools_are_what_was_asked_for_or_a_call(client):
    ask = {"model": "tiny", "input": "Hi", "tools": [FLAT_PLACE], "max_output_tokens": 200}
    ask |= {"parallel_tool_calls": False, "temperature": 2}
    kinds = set()
    for seed in range(12):
        made = client.responses.parse(**ask, text_format=Mark, extra_body={"seed": seed})
        (item,) = made.output
        kinds.add(item.type)
        said = item.parsed_arguments if item.type == "function_call" else made.output_parsed
        assert Mark.model_validate(said)
    assert kinds == {"message", "function_call"}


def test_a_format_beside_calls_that_must_be_is_of_the_text_that_is_not(client):
    """Agents send one with every turn, and require calls in the first."""
    ask = {"model": "tiny", "tool_choice": "required", "parallel_tool_calls": False}
    made = client.chat.completions.parse(
        **SAID | ask, tools=[PLACE], response_format=Mark, max_tokens=200
    )
    assert made.choices[0].message.tool_calls[0].function.parsed_arguments
    (call,) = client.responses.parse(
        **ask, input="Hi", tools=[FLAT_PLACE], text_format=Mark, max_output_tokens=200
    ).output
    assert call.type == "function_call"


NAMED = {"type": "function", "function": {"name": "mark"}}
UNENFORCED = {"type": "object", "properties": {"a": {"not": {}}}}


@pytest.mark.parametrize("choice", ["auto", "required", NAMED])
def test_a_schema_is_checked_also_where_no_text_will_keep_to_it(client, choice):
    format = {"type": "json_schema", "json_schema": {"name": "x", "schema": UNENFORCED}}
    with pytest.raises(openai.BadRequestError, match=r"'not' at \$\.properties\.a") as refused:
        client.chat.completions.create(
            **SAID, tools=[PLACE], tool_choice=choice, response_format=format
        )
    assert refused.value.param == "response_format.json_schema.schema"
    choice = choice if isinstance(choice, str) else {"type": "function", "name": "mark"}
    format = {"format": {"type": "json_schema", "name": "x", "schema": UNENFORCED}}
    ask = {"model": "tiny", "input": "Hi", "tools": [FLAT_PLACE], "tool_choice": choice}
    with pytest.raises(openai.BadRequestError, match=r"'not' at \$\.properties\.a") as refused:
        client.responses.create(**ask, text=format)
    assert refused.value.param == "text.format.schema"


@pytest.mark.parametrize("fields", [{"regex": "a"}, {"grammar": 'start: "a"'}, {"choice": ["a"]}])
def test_text_of_ours_that_no_answer_could_have_is_refused_by_name(client, fields):
    (name,) = fields
    for choice in ("required", NAMED):
        with pytest.raises(openai.BadRequestError, match="calls of tools") as refused:
            client.chat.completions.create(
                **SAID, tools=[PLACE], tool_choice=choice, extra_body=fields
            )
        assert refused.value.param == name
    with pytest.raises(openai.BadRequestError, match="calls of tools") as refused:
        client.responses.create(
            model="tiny",
            input="Hi",
            tools=[FLAT_PLACE],
            tool_choice="required",
            extra_body=fields,
        )
    assert refused.value.param == name


def test_what_no_answer_fits_is_told_of_itself_and_not_of_the_tools(client):
    nothing = {"regex": r"[^\x00-\u{10FFFF}]"}
    with pytest.raises(openai.BadRequestError, match="no answer fits it") as refused:
        client.chat.completions.create(**SAID, tools=[PLACE], extra_body=nothing)
    assert refused.value.param == "regex"


def test_what_tools_take_of_a_prompt_that_is_too_long_is_told(client):
    long = PLACE | {"function": PLACE["function"] | {"description": "x" * 3000}}
    with pytest.raises(openai.BadRequestError, match=r"3\d+ tokens, 3\d+ of them for tools, and"):
        client.chat.completions.create(**SAID, tools=[long])


@pytest.mark.thorough
def test_a_tool_that_no_model_could_call_is_named(client):
    costly = {"type": "string", "pattern": "^((a{1000}){1000}){1000}$"}
    bad = {"type": "object", "properties": {"a": costly}, "required": ["a"]}
    tools = [PLACE, {"type": "function", "function": {"name": "bad", "parameters": bad}}]
    choice = {"type": "function", "function": {"name": "bad"}}
    with pytest.raises(openai.BadRequestError, match="makes 1000000000 bytes come") as refused:
        client.chat.completions.create(**SAID, tools=tools, tool_choice=choice)
    assert refused.value.param == "tools[1].function.parameters"


# ---- in Anthropic's words

ASKED = SAID | {"max_tokens": 60}
THEIRS = {"type": "json_schema", "schema": SCHEMA}


def test_the_anthropic_client_parses_what_it_asked_for(claude):
    made = claude.messages.parse(**ASKED, output_format=Mark)
    assert made.parsed_output.colour in ("red", "green")
    assert made.stop_reason == "end_turn"
    with claude.messages.stream(**ASKED, output_format=Mark) as stream:
        said = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert final.parsed_output == Mark.model_validate_json(said)
    assert claude.beta.messages.parse(**ASKED, output_format=Mark).parsed_output
    turns = [*SAID["messages"], {"role": "assistant", "content": made.content}, *SAID["messages"]]
    assert claude.messages.parse(**ASKED | {"messages": turns}, output_format=Mark).parsed_output


def test_their_schema_goes_where_it_was_first_too(claude):
    schema = {"const": {"a": [1]}}
    for fields in (
        {"output_config": {"format": THEIRS | {"schema": schema}, "effort": "high"}},
        {"output_format": THEIRS | {"schema": schema}, "output_config": {}},
    ):
        made = claude.messages.create(**ASKED, extra_body=fields)
        assert json.loads(made.content[0].text) == {"a": [1]}


def test_their_tools_and_formats_stand_beside_each_other(claude):
    tool = {"name": "mark", "input_schema": Mark.model_json_schema()}
    made = claude.messages.create(
        **ASKED | {"max_tokens": 200},
        tools=[tool],
        tool_choice={"type": "any", "disable_parallel_tool_use": True},
        output_config={"format": THEIRS},
    )
    (call,) = made.content
    Mark.model_validate(call.input)


@pytest.mark.parametrize(
    ("fields", "place"),
    [
        ({"output_config": {"format": THEIRS}, "output_format": THEIRS}, "output_format"),
        ({"output_config": {"format": {"type": "json_object"}}}, "output_config.format.type"),
        ({"output_config": {"format": {"type": "json_schema"}}}, "output_config.format.schema"),
        ({"output_config": {"effort": "low"}}, "output_config.effort"),
        ({"output_config": {"task_budget": {"total": 5}}}, "output_config.task_budget"),
    ],
)
def test_what_they_cannot_ask_for_is_refused_by_name(fields, place):
    with pytest.raises(BadRequest) as refused:
        anthropic_messages.parse(json.dumps(ASKED | fields).encode())
    assert refused.value.field == place


@pytest.mark.parametrize("place", ["output_config.format", "output_format"])
def test_their_schema_is_refused_where_they_said_it(claude, place):
    format = THEIRS | {"schema": UNENFORCED}
    body = (
        {"output_format": format}
        if place == "output_format"
        else {"output_config": {"format": format}}
    )
    with pytest.raises(anthropic.BadRequestError) as refused:
        claude.messages.create(**ASKED, extra_body=body)
    assert refused.value.body["error"]["message"].startswith(f"{place}.schema: 'not' at ")
