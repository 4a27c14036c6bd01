"""A body that is read before anybody knows what to do with it, and then again.

Owns its bytes, in memory while they are few and on disk beyond, and what tells it from another
body. Knows no protocol.
"""

import asyncio
from functools import partial
from hashlib import sha256
from tempfile import SpooledTemporaryFile

from python_multipart.multipart import parse_options_header
from starlette.requests import Request as HttpRequest
from starlette.types import Message

from octavo.errors import BodyTooLarge

IN_MEMORY = 1 << 20  # bytes
PIECE = 64 << 10  # bytes


class Spool:
    """Whoever has it closes it."""

    def __init__(self) -> None:
        self._file = SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115
        self._is_read = False
        self.digest = b""

    @classmethod
    async def of(cls, http: HttpRequest, limit: int) -> "Spool":
        """All of the body. Raises BodyTooLarge."""
        if int(http.headers.get("content-length", "0")) > limit:
            raise BodyTooLarge(limit)
        spool, size = cls(), 0
        try:
            async for part in http.stream():
                if (size := size + len(part)) > limit:
                    raise BodyTooLarge(limit)
                if size > IN_MEMORY:
                    await asyncio.to_thread(spool._file.write, part)
                else:
                    spool._file.write(part)
            _, options = parse_options_header(http.headers.get("content-type"))
            boundary = options.get(b"boundary")
            spool.digest = await asyncio.to_thread(spool._digest, boundary)
        except BaseException:
            spool.close()
            raise
        return spool

    async def receive(self) -> Message | None:
        """The next piece, as if it came from the client; None: that was all."""
        if self._is_read:
            return None
        piece = await asyncio.to_thread(self._file.read, PIECE)
        self._is_read = len(piece) < PIECE
        return {"type": "http.request", "body": piece, "more_body": not self._is_read}

    def close(self) -> None:
        self._file.close()

    def _digest(self, boundary: bytes | None) -> bytes:
        """Clients draw a new boundary of a form's parts each time they send it: it does not count.
        A line of one is shorter than a piece, so none is cut."""
        digest = sha256()
        self._file.seek(0)
        for line in iter(partial(self._file.readline, PIECE), b""):
            if boundary is None or not line.startswith(b"--" + boundary):
                digest.update(line)
        self._file.seek(0)
        return digest.digest()
