"""POST /v1/files: a file for a batch, up to 200 MB, as a form (multipart/form-data).

It goes to disk as it comes: no more than a few fields are held.
"""

import asyncio
from typing import Literal

from msgspec import Struct
from starlette.requests import Request as HttpRequest
from starlette.responses import Response

from octavo.errors import BadRequest
from octavo.server.endpoints._files import shown
from octavo.server.exchange import json_response, tenant
from octavo.server.files import INPUTS_KEPT, ExpiresAfter
from octavo.server.forms import FILE, MAX_AROUND, receive
from octavo.server.protocols._openai import problem
from octavo.server.running import Engine

__all__ = ["METHOD", "NEEDS_KEY", "PATHS", "answer", "problem"]

METHOD, PATHS = "POST", ("/v1/files",)
NEEDS_KEY = True
MAX_FILE = 200 << 20  # bytes
MAX_BODY = MAX_FILE + MAX_AROUND


class Form(Struct):
    """Beside the file."""

    purpose: Literal["batch"]
    expires_after: ExpiresAfter | None = None


async def answer(engine: Engine, http: HttpRequest) -> Response:
    files, owner = http.app.state.files, tenant(http)
    await asyncio.to_thread(files.check_room, owner)
    with files.draft() as draft:
        sent = await receive(http, draft.contents, MAX_FILE)
        form, unknown = sent.read(Form)
        headers = http.app.state.unknown_fields.headers(unknown)
        if sent.filename is None:
            raise BadRequest("it is required", FILE)
        seconds = form.expires_after.seconds if form.expires_after else INPUTS_KEPT
        name, purpose = sent.filename, form.purpose
        file = await asyncio.to_thread(files.keep, draft, owner, name, purpose, seconds)
    return json_response(shown(file), headers=headers)
