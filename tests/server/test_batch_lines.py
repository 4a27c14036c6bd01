"""A batch's input: what is a line, what is none, and how soon that is known."""

import json

import pytest
from batching import CHAT, asked, jsonl

from octavo.server import batch_lines
from octavo.server.batch_lines import MOST_PROBLEMS, check, lines
from octavo.server.exchange import MAX_BODY


@pytest.fixture
def checked(tmp_path):
    """checked(content): (how many lines there are, what is wrong with them)"""

    def write_and_check(content):
        path = tmp_path / "in.jsonl"
        path.write_bytes(content)
        return check(path, CHAT)

    return write_and_check


def only(problems):
    (problem,) = problems
    return problem


A = f'{{"custom_id":"a","method":"POST","url":"{CHAT}","body":{{"x":1}}}}'.encode()
B = f'{{"custom_id":"b","method":"POST","url":"{CHAT}","body":{{}}}}'.encode()


@pytest.mark.parametrize(
    "content",
    [A + b"\n" + B, A + b"\r\n" + B + b"\r\n", b"\n\n  " + A + b" \n\t\n" + B + b"\n\n\n"],
    ids=["no end of line at the end", "CRLF", "blank lines"],
)
def test_lines_end_as_they_like(checked, tmp_path, content):
    assert checked(content) == (2, [])
    first, second = lines(tmp_path / "in.jsonl", CHAT)
    assert (first.custom_id, json.loads(first.body)) == ("a", {"x": 1})
    assert (second.custom_id, second.body) == ("b", b"{}")
    assert second.number == content[: content.index(b'"b"')].count(b"\n") + 1


def without(field):
    return json.dumps({k: v for k, v in asked("a").items() if k != field}).encode()


def with_(**fields):
    return json.dumps(asked("a") | fields).encode()


@pytest.mark.parametrize(
    ("line", "code", "param"),
    [
        (b"{", "invalid_json_line", None),
        (b"hello", "invalid_json_line", None),
        (b"[]", "invalid_json_line", None),
        (b"\xef\xbb\xbf" + with_(), "invalid_json_line", None),  # a byte order mark
        (with_().replace(b"hello", b"\xff"), "invalid_body", "body"),
        (with_().replace(b'"hello"', b"NaN"), "invalid_body", "body"),
        (with_().replace(b'"hello"', b'"a\rb"'), "invalid_body", "body"),
        (b'{"custom_id":' + b"[" * 100_000, "invalid_custom_id", "custom_id"),
        (with_().replace(b'"hello"', b"[" * 100_000 + b"]" * 100_000), "invalid_body", "body"),
        (without("custom_id"), "invalid_custom_id", "custom_id"),
        (without("method"), "invalid_method", "method"),
        (without("url"), "invalid_url", "url"),
        (without("body"), "invalid_body", "body"),
        (with_(custom_id=""), "invalid_custom_id", "custom_id"),
        (with_(custom_id="x" * 513), "invalid_custom_id", "custom_id"),
        (with_(custom_id=7), "invalid_custom_id", "custom_id"),
        (with_(method="GET"), "invalid_method", "method"),
        (with_(url="/v1/completions"), "invalid_url", "url"),
        (with_(body="text"), "invalid_body", "body"),
        (with_(body=None), "invalid_body", "body"),
        (with_()[:-1] + b', "custom_id": "b"}', "invalid_custom_id", "custom_id"),
        (with_()[:-1] + b', "x": 1, "\\u0078": 1}', "invalid_json_line", "x"),
    ],
)
def test_what_is_no_line_is_named_with_its_number(checked, line, code, param):
    good = jsonl([asked("first")])
    count, problems = checked(good + b"\n" + line + b"\n")
    problem = only(problems)
    assert (count, problem.code, problem.line, problem.param) == (2, code, 3, param)
    assert problem.message


def test_a_field_nobody_knows_is_carried_on(checked, tmp_path):
    body = {"x": {"a:b": 1}}
    assert checked(with_(custom_ids=1, note=":", body=body)) == (1, [])
    (line,) = lines(tmp_path / "in.jsonl", CHAT)
    assert line.ignored == {"custom_ids": "custom_id", "note": None}
    assert json.loads(line.body) == body


def test_an_id_may_be_used_once(checked):
    _, problems = checked(jsonl([asked("a"), asked("b"), asked("a")]))
    assert only(problems).code == "duplicate_custom_id"
    assert only(problems).line == 3
    assert "line 1" in only(problems).message


def test_every_line_that_is_none_is_named_up_to_a_bound(checked):
    assert [p.line for p in checked(b"x\ny\n" + jsonl([asked("a")]) + b"z")[1]] == [1, 2, 4]
    assert len(checked(b"x\n" * 1000)[1]) == MOST_PROBLEMS


@pytest.mark.parametrize("content", [b"", b"\n\r\n  \n"])
def test_a_file_without_lines_is_none(checked, content):
    count, problems = checked(content)
    assert (count, only(problems).code) == (0, "empty_file")


@pytest.mark.thorough
def test_a_line_is_as_large_as_a_body_may_be(checked):
    large = jsonl([asked("large", "x" * (10 << 20))])
    assert checked(large) == (1, [])
    too_large = jsonl([asked("too large", "x" * MAX_BODY)])
    count, problems = checked(too_large + jsonl([asked("b")]) + too_large.strip())
    assert count == 3
    assert [(p.code, p.line) for p in problems] == [("line_too_long", 1), ("line_too_long", 3)]
    spaces = A + b" " * MAX_BODY + b"and more\n"
    assert [p.code for p in checked(spaces + B)[1]] == ["line_too_long"]


def test_there_may_be_50_000_and_no_more(checked, monkeypatch):
    assert batch_lines.MOST_LINES == 50_000
    monkeypatch.setattr(batch_lines, "MOST_LINES", 500)
    content = jsonl(asked(k) for k in range(500))
    assert checked(content) == (500, [])
    _, problems = checked(content + jsonl([asked("one more")]))
    assert (only(problems).code, only(problems).line) == ("too_many_lines", 501)
