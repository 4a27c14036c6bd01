"""Chats as templates write them, what a template may do, and that no message forges a token."""

import datetime
import json
import re
import time

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from octavo.errors import BadCheckpoint, BadRequest
from octavo.loader import _sandbox
from octavo.loader.tokenizer import Tokenizer
from octavo.loader.vocabulary import TokenType, Vocabulary
from octavo.types import Message

CONTROL = (
    *("<s>", "</s>", "<|im_start|>", "<|im_end|>", "<|user|>", "<|assistant|>", "<|system|>"),
    *("<|end|>", "[INST]", "[/INST]", "<start_of_turn>", "<end_of_turn>"),
)
USER_DEFINED = ("<think>", "</think>", "<tool_call>")

# One of a kind: how the families of templates treat what they are given.
TEMPLATES = {
    "chatml": "{% for message in messages %}"
    "{{'<|im_start|>' + message['role'] + '\\n' + message['content'] + '<|im_end|>' + '\\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "merging roles, trimming, slicing": "{{ bos_token }}"
    "{% if messages[0]['role'] == 'system' %}"
    "{% set system = '<<SYS>>\\n' + messages[0]['content'] | trim + '\\n<</SYS>>\\n\\n' %}"
    "{% set messages = messages[1:] %}{% else %}{% set system = '' %}{% endif %}"
    "{% for message in messages %}"
    "{% set content = system + message['content'] if loop.first else message['content'] %}"
    "{% if message['role'] == 'user' %}{{ '[INST] ' + content.strip() + ' [/INST]' }}"
    "{% else %}{{ ' ' ~ content[:200] ~ eos_token }}{% endif %}{% endfor %}",
    "tokens made of roles": "{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}<|end|>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|' ~ 'assistant' ~ '|>' }}{% endif %}",
    "reasoning cut off, tools": "{%- if tools %}{% for tool in tools %}{{ tool | tojson }}\n"
    "{{ '<' ~ tool.function.name ~ '>' }}{% endfor %}{% endif %}"
    "{%- set ns = namespace(last=0) %}"
    "{%- for m in messages %}{% if m.content.startswith('<tool_call>') or '<s>' in m.content %}"
    "{% set ns.last = loop.index0 %}{% endif %}{% endfor %}"
    "{%- for m in messages %}{% set content = m.content %}"
    "{% if '</think>' in content %}{% set content = content.split('</think>')[-1].lstrip('\\n') %}"
    "{% endif %}<start_of_turn>{{ m.role }} {{ ns.last }}\n"
    "{{ content | replace('<|', '< |') | trim }}<end_of_turn>\n{% endfor %}",
    "parts, blocks, filters": "{% macro say(m) %}{{ m.role | upper }} {{ m.content }}{% endmacro %}"
    "{% for m in messages | rejectattr('role', 'equalto', 'tool') | list %}"
    "{% generation %}{{ say(m) }}{% endgeneration %}"
    "{% filter trim %}  </s> {% endfilter %}"
    "{% set joined %}{{ [m.content, '|'] | join('-') }}{% endset %}{{ joined | length }}"
    "{% if m.content is string and m.content[-1:] != '>' %}{{ m.content.count('<') }}{% endif %}"
    "{% for line in m.content.split('\\n') %}{% if loop.index > 3 %}{% break %}{% endif %}"
    "{{ loop.index }}/{{ loop.length }}{{ line }}{{ {'k': line} | tojson(indent=2) }}{% endfor %}"
    "{% endfor %}",
}


def tokenizer(template, **fields):
    tokens = [
        *(chr(byte) for byte in range(33, 127)),
        *(chr(c) for c in range(161, 256) if c != 173),
    ]
    tokens += [chr(256 + rank) for rank in range(256 - len(tokens))]
    types = [TokenType.NORMAL] * 256
    for spelled, kind in ((CONTROL, TokenType.CONTROL), (USER_DEFINED, TokenType.USER_DEFINED)):
        tokens += spelled
        types += [kind] * len(spelled)
    vocabulary = Vocabulary(
        "bpe", tokens, types, pre="gpt-2", merges=[], bos_id=256, eos_id=257, **fields
    )
    return Tokenizer(vocabulary, template)


TOKENIZERS = {name: tokenizer(template) for name, template in TEMPLATES.items()}

CHAT = [
    {"role": "system", "content": "  Be brief.\n"},
    {"role": "user", "content": "Is 1 < 2 and [3] > 2?\n\nAsk \"why\" 'not' | or é😀 "},
    {"role": "assistant", "content": "<think>\nhm < hm\n</think>\n\n Yes. "},
    {"role": "user", "content": "<tool_call>Thanks\r\n"},
]
TOOLS = [
    {"type": "function", "function": {"name": "look<up>", "description": "é </s> \"x\" & 'y'"}}
]


def control_tokens(ids):
    return [CONTROL[i - 256] for i in ids if 256 <= i < 256 + len(CONTROL)]


@pytest.mark.parametrize("name", TEMPLATES)
def test_chats_are_written_as_the_golden_files_say(name, golden, request):
    chat = json.dumps(TOKENIZERS[name].render(CHAT, TOOLS), ensure_ascii=False).encode()
    file = re.sub(r"\W+", "_", name)
    golden(request.path.parent / "golden" / f"template_{file}.json", chat + b"\n")


@pytest.mark.oracle
@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("asked", [{}, {"add_generation_prompt": False}, {"custom": [1, "<s>"]}])
def test_chats_are_written_as_transformers_writes_them(name, asked):
    from transformers.utils.chat_template_utils import render_jinja_template

    options = {"add_generation_prompt": True, **asked}
    for tools in (None, TOOLS):
        theirs, _ = render_jinja_template(
            [CHAT], tools=tools, chat_template=TEMPLATES[name], bos_token="<s>", eos_token="</s>",
            **options,
        )  # fmt: skip
        assert TOKENIZERS[name].render(CHAT, tools, **options) == theirs[0]


def test_messages_are_dicts_or_our_own():
    ours = [Message(m["role"], m["content"]) for m in CHAT]
    assert TOKENIZERS["chatml"].render(ours) == TOKENIZERS["chatml"].render(CHAT)


def test_a_model_without_a_template_says_what_to_do():
    with pytest.raises(BadRequest, match=r"messages: .* no chat template.*--raw") as refused:
        tokenizer(None).chat_ids(CHAT)
    assert refused.value.status == 400


def test_a_template_that_refuses_is_quoted():
    strict = tokenizer("{{ raise_exception('Roles must alternate') }}")
    with pytest.raises(BadRequest, match="refuses: Roles must alternate"):
        strict.render(CHAT)


def test_a_template_gets_what_hugging_face_gives():
    def render(template, **extra):
        return tokenizer(template).render(CHAT[:1], **extra)

    assert render("{{ bos_token }}{{ eos_token }}{{ unk_token }}") == "<s></s>"
    assert render("{{ strftime_now('%Y') }}") == str(datetime.datetime.now().year)
    assert render("{{ {'é': '<&>'} | tojson }}") == '{"é": "<&>"}'
    assert render("{{ {'b': 1, 'a': [2]} | tojson(indent=1, sort_keys=True) }}").startswith(
        '{\n "a"'
    )
    assert render("{{ tools }} {{ documents }} {{ flag }}", flag=True) == "None None True"
    assert render("a\n  {% if true %}\nb\n  {% endif %}\nc") == "a\nb\nc"


def test_bos_comes_once_whether_the_template_or_the_file_asks_for_it():
    with_bos = "merging roles, trimming, slicing"
    for template in (TEMPLATES["chatml"], TEMPLATES[with_bos]):
        assert tokenizer(template, add_bos=True).chat_ids(CHAT)[:2].count(256) == 1
    assert TOKENIZERS["chatml"].chat_ids(CHAT)[0] != 256


# Forging.

FRAGMENTS = (
    *CONTROL,
    *USER_DEFINED,
    *("<|im_", "end|>", "<", "|>", ">", "|", "|im_end|", "im_end", "[", "INST]", "/", "start_of"),
    *("\\u003c|im_end|>", "&lt;s>", "{{ eos_token }}", "\\", '"', " ", "\n", "é", "a"),
    *("\ue000", "\uf8ff", "\U0010ffff", "\u200b", "\ufffd"),
)
hostile = st.lists(st.sampled_from(FRAGMENTS), max_size=8).map("".join)


@pytest.mark.parametrize("name", TEMPLATES)
@examples(60)
@given(st.lists(hostile, min_size=4, max_size=4), hostile)
def test_no_message_and_no_tool_forges_a_control_token(name, contents, tool):
    def asked(texts, tool_name):
        chat = [{**m, "content": text} for m, text in zip(CHAT, texts, strict=True)]
        described = {"name": tool_name, "description": tool_name, "keys": {tool_name: [tool_name]}}
        return chat, [{"type": "function", "function": described}]

    ours = TOKENIZERS[name]
    ids = ours.chat_ids(*asked(contents, tool))
    harmless = ours.chat_ids(*asked(["x"] * 4, "x"))
    if name == "parts, blocks, filters":
        assert control_tokens(ids) == ["</s>"] * 4
    else:
        assert control_tokens(ids) == control_tokens(harmless)
    assert ours.decode(ids, special=True) == ours.render(*asked(contents, tool))


def test_a_role_may_be_part_of_a_token_that_the_template_makes_but_make_none_itself():
    ours = TOKENIZERS["tokens made of roles"]
    chat = [{"role": "user", "content": "a"}, {"role": "user|>b<|end", "content": "c"}]
    assert control_tokens(ours.chat_ids(chat)) == [
        "<|user|>",
        "<|end|>",
        "<|end|>",
        "<|assistant|>",
    ]


def test_what_a_caller_hands_to_the_template_forges_nothing_either():
    ours = tokenizer("<s>{{ note }}{{ bos_token }}{{ nested.a[0] | tojson }}")
    ids = ours.chat_ids(CHAT, note="</s>", nested={"a": [{"<s>": "</s>"}]}, eos_token="<|end|>")
    assert control_tokens(ids) == ["<s>", "<s>"]
    assert ours.decode(ids, special=True) == '<s></s><s>{"<s>": "</s>"}'


def test_a_template_that_puts_brackets_around_a_name_forges_nothing():
    ours = tokenizer("{{ '<' ~ name ~ '>' }}{{ '[' }}{{ name }}{{ ']' }}")
    for name in ("|im_end|", "/INST", "x><|im_end|", "/s"):
        assert control_tokens(ours.chat_ids([], name=name)) == []
        assert ours.render([], name=name) == f"<{name}>[{name}]"


def test_what_is_hidden_survives_json_and_comparing():
    ours = tokenizer(
        "{{ word | tojson(ensure_ascii=True) }} {{ word == '<|é|>' }} {{ word in ['<|é|>'] }} "
        "{{ '|' in word }} {{ word is eq('<|é|>') }} {{ word.replace('<|', '[') }} "
        "{{ [word] | select('equalto', '<|é|>') | list | length }} {{ word.partition('|')[2] }}"
    )
    written = ours.render([], word="<|é|>")
    assert written == '"<|\\u00e9|>" True True True True [é|> 1 é|>'
    assert ours.decode(ours.chat_ids([], word="<|é|>"), special=True) == written


def test_tokens_spelled_like_words_are_not_forged_and_break_no_lookup():
    vocabulary = Vocabulary(
        "bpe", [*"abcdeSTOP_<>", "STOP", "_<e>"], [1] * 12 + [3] * 2, pre="gpt-2", merges=[]
    )
    ours = Tokenizer(vocabulary, "{{ messages[0].a_S_P }}STOP{{ messages[0].e }}_<e>")
    assert ours.chat_ids([{"a_S_P": "STOP", "e": "_<e>"}]) == [5, 6, 7, 8, 12, 9, 10, 4, 11, 13]
    opening = Tokenizer(vocabulary, "ST{{ word }} {{ word[:0] }}_<{{ word }}>")
    assert not {12, 13} & {*opening.chat_ids([], word="OP"), *opening.chat_ids([], word="e>")}


def test_half_a_surrogate_pair_is_refused_where_it_stands():
    chat = [*CHAT, {"role": "user", "content": ["ok", {"text": "a\udc00"}]}]
    for write in (TOKENIZERS["chatml"].render, TOKENIZERS["chatml"].chat_ids):
        with pytest.raises(
            BadRequest, match=r"messages\[4\]\.content\[1\]\.text: character 1 is U\+DC00"
        ):
            write(chat)
    with pytest.raises(BadRequest, match=r"tools\[0\]: character 0"):
        TOKENIZERS["chatml"].chat_ids(CHAT, [{"\ud800": 1}])


def test_what_is_not_json_is_refused():
    with pytest.raises(BadRequest, match=r"messages\[0\]\.content: a object is not JSON"):
        TOKENIZERS["chatml"].render([{"role": "user", "content": object()}])
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(BadRequest, match="nested too deeply"):
        TOKENIZERS["chatml"].render([{"role": "user", "content": deep}])


# Templates are code from a file.

GREEDY = (
    "{% for i in range(10**9) %}x{% endfor %}",
    "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
    "{% for i in range(99999) %}{{ 'x' * 99999 }}{% endfor %}",
    "{% set x %}{% for i in range(99999) %}" + "y" * 99_999 + "{% endfor %}{% endset %}",
    "{{ 'a' * 10**10 }}",
    "{{ [0] * 10**10 }}",
    "{{ 2 ** 9999999999 }}",
    "{% set n = namespace(s='a') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}",
    "{% set n = namespace(s='a') %}{% for i in range(60) %}{% set n.s = n.s + n.s %}{% endfor %}",
    "{% set n = namespace(s='a') %}{% for i in range(60) %}"
    "{% set n.s %}{{ n.s }}{{ n.s }}{% endset %}{% endfor %}",
    "{% set n = namespace(s=1) %}{% for i in range(60) %}{% set n.s = [n.s, n.s] %}{% endfor %}"
    "{{ n.s | tojson }}",
    "{% set n = namespace(s=1) %}{% for i in range(60) %}"
    "{% set n.s = {1: n.s, 2: n.s} %}{% endfor %}{{ n.s == n.s }}",
    "{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}",
    "{% for x in [1, 2] recursive %}{{ loop([1, 2]) }}{% endfor %}",
    "{{ 'a'.center(10**10) }}",
    "{{ 'a' | center(10**10) }}",
    "{{ '%9999999999d' % 1 }}",
    "{{ '%*d' % (10**10, 1) }}",
    "{{ '%9999999999d' | format(1) }}",
    "{{ '{:9999999999}'.format(1) }}",
    "{{ '{:{}}'.format(1, 10**10) }}",
    "{{ ('a' * 10**6).replace('', 'a' * 10**6) }}",
    "{{ ('a' * 10**6) | replace('a', 'a' * 10**6) }}",
    "{{ ('a' * 10**6).join(range(99999) | map('string')) }}",
    "{{ range(99999) | map('string') | join('a' * 10**6) }}",
    "{{ ('\n' * 10**6) | indent(10**5) }}",
    "{{ ('\t' * 10**6).expandtabs(10**5) }}",
    "{{ [1] | batch(10**10, 'x') | list }}",
    "{{ 1.5 | round(10**9) }}",
    "{{ [[1]] | tojson(indent=10**10) }}",
    "{{ (1).to_bytes(10**10, 'big') }}",
    "{{ ('a ' * 10**7) | urlize }}",
)


@pytest.mark.thorough
@pytest.mark.parametrize("template", GREEDY)
def test_a_greedy_template_is_stopped(template):
    start = time.monotonic()
    with pytest.raises(
        BadRequest, match=r"refuses: (the template makes more|Range too big|.*recursion)"
    ):
        tokenizer(template).render(CHAT)
    assert time.monotonic() - start < _sandbox.MAX_SECONDS


def test_a_slow_template_is_stopped(monkeypatch):
    monkeypatch.setattr(_sandbox, "MAX_SECONDS", 0.05)
    slow = (
        "{% macro f(n) %}{% if n %}{{ f(n - 1) }}{{ f(n - 1) }}{% endif %}{% endmacro %}{{ f(60) }}"
    )
    with pytest.raises(BadRequest, match=r"ran for more than 0\.05 s"):
        tokenizer(slow).render(CHAT)


def test_a_long_chat_may_make_much_text():
    chat = [{"role": "user", "content": "word " * 2_000}] * 1_000  # 10 MB
    assert len(TOKENIZERS["chatml"].render(chat)) > 10_000_000


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__ }}",
        "{{ cycler.__init__.__globals__ }}",
        "{{ messages.append(1) }}",
        "{% include '/etc/passwd' %}",
        "{{ nothing.at.all }}",
        "{{ messages[9].content }}",
    ],
)
def test_what_the_sandbox_forbids_and_what_fails_is_the_callers_error(template):
    with pytest.raises(BadRequest, match="refuses: "):
        tokenizer(template).render(CHAT)


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("a\n{{ }", "line 2: "),
        ("{{ " + "(" * 10_000, "cannot be compiled"),
        ("{% if a %}" * 200 + "{% endif %}" * 200, "cannot be compiled"),
        ("a" * 300_000, "longer than"),
    ],
)
def test_a_template_that_is_none_is_refused_when_it_is_used(template, problem):
    broken = tokenizer(template)
    assert broken.prompt_ids("a")
    with pytest.raises(BadCheckpoint, match=problem):
        broken.render(CHAT)
