"""A batch's input, line by line, and the lines of the files it ends in.

    {"custom_id": "r-1", "method": "POST", "url": "/v1/chat/completions", "body": {...}}

Knows the shape of a line, but neither what a body says nor who answers it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal
from uuid import uuid4

import msgspec
from msgspec import Meta, Raw, Struct

from octavo.errors import BadRequest
from octavo.server.bodies import Unknown, decode
from octavo.server.exchange import MAX_BODY
from octavo.server.marks import marks
from octavo.types import Json

MOST_LINES = 50_000
MOST_PROBLEMS = 100  # that a batch names; more are the same mistake in every line


@dataclass(frozen=True, slots=True)
class Line:
    number: int  # in the file, from 1
    custom_id: str
    body: bytes
    ignored: Unknown = field(default_factory=dict)  # beside the body


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong with the input of a batch, as the batch shows it."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


def input_lost(advice: str) -> Problem:
    return Problem("input_lost", f"the input is gone from the server's disk: {advice}")


class BadLine(Exception):
    def __init__(self, code: str, message: str, line: int, param: str | None = None) -> None:
        super().__init__(message)
        self.problem = Problem(code, message, line, param)


class _Shape(Struct):
    custom_id: Annotated[str, Meta(min_length=1, max_length=512)]
    method: Literal["POST"]
    url: str
    body: Raw


_decoder = msgspec.json.Decoder(_Shape)
_fields = msgspec.json.Decoder(dict[str, Raw])


def lines(path: Path, endpoint: str) -> Iterator[Line]:
    """Raises BadLine."""
    for number, raw in _raw_lines(path):
        yield _line(number, raw, endpoint)


def check(path: Path, endpoint: str) -> tuple[int, list[Problem]]:
    """How many lines there are, and what is wrong with them. Takes about a second for 50,000.
    Raises FileNotFoundError."""
    problems: list[Problem] = []
    seen: dict[str, int] = {}
    count = 0
    for number, raw in _raw_lines(path):
        count += 1
        if count > MOST_LINES:
            problem = f"there are more than {MOST_LINES}, make several batches of them"
            problems.append(Problem("too_many_lines", problem, number))
            break
        try:
            line = _line(number, raw, endpoint)
            if (first := seen.setdefault(line.custom_id, number)) != number:
                problem = f"{line.custom_id!r} is line {first}'s already, choose another"
                raise BadLine("duplicate_custom_id", problem, number, "custom_id")
        except BadLine as error:
            problems.append(error.problem)
            if len(problems) == MOST_PROBLEMS:
                break
    if not count:
        problems.append(Problem("empty_file", "the file has no lines, give at least one"))
    return count, problems


def _raw_lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Numbered, without their ends; blank ones left out. Of a line of more than MAX_BODY bytes
    only the first MAX_BODY + 1, which tell that it is too long."""
    number = 0
    with path.open("rb") as file:
        while raw := file.readline(MAX_BODY + 1):
            number += 1
            rest = raw
            while len(rest) > MAX_BODY and not rest.endswith(b"\n"):
                rest = file.readline(MAX_BODY + 1)
            if text := raw if len(raw) > MAX_BODY else raw.strip():
                yield number, text


def _line(number: int, raw: bytes, endpoint: str) -> Line:
    if len(raw) > MAX_BODY:
        raise BadLine("line_too_long", f"it has more than {MAX_BODY} bytes: ask for less", number)
    try:
        raw.decode()
        read, sent = _decoder.decode(raw), _fields.decode(raw)
    except (UnicodeDecodeError, msgspec.DecodeError, RecursionError):
        _looked_at(number, raw)
        raise AssertionError("the same bytes cannot be read twice alike") from None
    is_twice = marks(msgspec.json.encode(sent)).count(b":") < marks(raw).count(b":")
    is_plain = not is_twice and sent.keys() == set(_Shape.__struct_fields__)
    ignored = {} if is_plain else _looked_at(number, raw)
    body = bytes(read.body)
    if body[:1] != b"{":
        raise BadLine("invalid_body", "body: it is no object, give one", number, "body")
    if read.url != endpoint:
        problem = f"url: {read.url[:100]!r} is not the batch's endpoint {endpoint!r}"
        raise BadLine("invalid_url", problem, number, "url")
    return Line(number, read.custom_id, body, ignored)


def _looked_at(number: int, raw: bytes) -> Unknown:
    """The fields nobody knows. Raises BadLine in the words of a body over HTTP."""
    try:
        return decode(raw, _Shape)[1]
    except BadRequest as error:
        is_line = error.field in _Shape.__struct_fields__
        code = f"invalid_{error.field}" if is_line else "invalid_json_line"
        raise BadLine(code, str(error), number, error.field) from None


def answered(line: Line, status: int, request_id: str, body: bytes, **more: Json) -> bytes:
    """A line of the output file, or of the error file where `status` is an error's."""
    response = {"status_code": status, "request_id": request_id, "body": Raw(body), **more}
    return _entry(line, response=response, error=None)


def unanswered(line: Line, code: str, message: str) -> bytes:
    """A line of the error file."""
    return _entry(line, response=None, error={"code": code, "message": message})


def _entry(line: Line, **said: Json | None) -> bytes:
    named = {"id": f"batch_req_{uuid4().hex}", "custom_id": line.custom_id}
    return msgspec.json.encode(named | said) + b"\n"
