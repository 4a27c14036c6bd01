"""Forms with a file in them (multipart/form-data): however large, it goes to disk as it comes.

Owns the bounds on what is held: a few short fields. Knows not what they mean.
"""

import asyncio
import re
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import msgspec
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request as HttpRequest

from octavo.errors import BadRequest, BodyTooLarge
from octavo.server.bodies import TWICE, Body, Unknown, decode

FILE = "file"  # the name of the part that is one
MAX_PARTS = 16
MAX_HELD = 4096  # bytes of all fields, names and part headers together
MAX_AROUND = 64 << 10  # bytes of a form beside its file

_NESTED = re.compile(r"(\w+)\[(\w+)\]")


@dataclass(slots=True)
class Form:
    fields: dict[str, Any] = field(default_factory=dict)  # a[b]=c as {"a": {"b": "c"}}
    filename: str | None = None  # None: no file came

    def read(self, shape: type[Body]) -> tuple[Body, Unknown]:
        """The fields, and those nobody knows. Raises BadRequest."""
        return decode(msgspec.json.encode(self.fields), shape, strict=False)


async def receive(http: HttpRequest, contents: BinaryIO, limit: int) -> Form:
    """Writes the file to `contents`. Raises BadRequest, and BodyTooLarge before more than `limit`
    bytes of it are written."""
    kind, options = parse_options_header(http.headers.get("content-type"))
    if kind != b"multipart/form-data" or b"boundary" not in options:
        raise BadRequest("send multipart/form-data with a boundary", "content-type")
    if int(http.headers.get("content-length", "0")) > limit + MAX_AROUND:
        raise BodyTooLarge(limit)
    parts = _Parts(contents, limit)
    try:
        parser = MultipartParser(options[b"boundary"], parts.callbacks())
        async for data in http.stream():
            await asyncio.to_thread(parser.write, data)
        parser.finalize()
    except FormParserError as error:
        raise BadRequest(f"not multipart/form-data: {error}") from None
    if not parts.is_complete:
        raise BadRequest("not multipart/form-data: it ends too early")
    return parts.form


class _Parts:
    """Hears the parser."""

    def __init__(self, contents: BinaryIO, limit: int) -> None:
        self.form, self.is_complete = Form(), False
        self._contents, self._limit = contents, limit
        self._num_parts = self._num_held = self._num_written = 0
        self._name, self._is_file = "", False
        self._header, self._value, self._text = bytearray(), bytearray(), bytearray()
        self._disposition = b""

    def callbacks(self) -> Any:
        return {
            "on_part_begin": self._begin,
            "on_header_field": lambda data, start, end: self._hold(self._header, data[start:end]),
            "on_header_value": lambda data, start, end: self._hold(self._value, data[start:end]),
            "on_header_end": self._end_header,
            "on_headers_finished": self._name_part,
            "on_part_data": self._take,
            "on_part_end": self._end,
            "on_end": self._complete,
        }

    def _hold(self, held: bytearray, data: bytes) -> None:
        self._num_held += len(data)
        if self._num_held > MAX_HELD:
            raise BadRequest(f"the fields take more than {MAX_HELD} bytes: shorten them")
        held += data

    def _begin(self) -> None:
        self._num_parts += 1
        if self._num_parts > MAX_PARTS:
            raise BadRequest(f"there are more than {MAX_PARTS} parts: leave some out")
        self._disposition = b""
        self._text.clear()

    def _end_header(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def _name_part(self) -> None:
        _, options = parse_options_header(self._disposition)
        if not (name := options.get(b"name")):
            raise BadRequest("a part has no name, give it one in its content-disposition")
        self._name = name.decode(errors="replace")
        self._is_file = self._name == FILE
        if self._is_file:
            if self.form.filename is not None:
                raise BadRequest("there are two, send one at a time", FILE)
            self.form.filename = options.get(b"filename", b"upload").decode(errors="replace")

    def _take(self, data: bytes, start: int, end: int) -> None:
        if not self._is_file:
            self._hold(self._text, data[start:end])
            return
        self._num_written += end - start
        if self._num_written > self._limit:
            raise BodyTooLarge(self._limit)
        self._contents.write(memoryview(data)[start:end])

    def _end(self) -> None:
        if self._is_file:
            return
        text = self._text.decode(errors="replace")
        within, name = self.form.fields, self._name
        if nested := _NESTED.fullmatch(name):
            within, name = within.setdefault(nested[1], {}), nested[2]
        if not isinstance(within, dict) or name in within:
            raise BadRequest(TWICE, self._name[:100])
        within[name] = text

    def _complete(self) -> None:
        self.is_complete = True
