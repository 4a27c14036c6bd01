"""What every protocol promises. A new file in octavo/server/protocols/ is tested by existing."""

import json

import httpx
import pytest

from octavo.errors import BadRequest, QueueFull, StepFailed, UnknownName
from octavo.registry import entry, names

FOLDER = "octavo.server.protocols"


@pytest.fixture(params=names(FOLDER))
def protocol(request):
    return entry(FOLDER, request.param)


def test_every_error_fits_its_envelope(protocol):
    errors = [
        BadRequest("no", "n"),
        QueueFull(1, 1, 1),
        StepFailed("lost"),
        UnknownName("this server", "x", close=[]),
    ]
    for error in errors:
        assert str(error) in json.dumps(protocol.problem(error))


@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b"\xff", b'{"a":' * 10_000])
def test_bytes_that_are_no_body_are_a_bad_request(protocol, raw):
    with pytest.raises(BadRequest):
        protocol.parse(raw)


def test_it_is_served_at_its_path_and_answers_in_its_envelope(protocol, echo):
    reply = httpx.post(echo[1] + protocol.PATH, content=b"{")
    assert reply.status_code == 400
    assert reply.json().keys() == protocol.problem(StepFailed("lost")).keys()
    assert httpx.get(echo[1] + protocol.PATH).status_code == 405
