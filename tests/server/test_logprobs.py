"""Where each token of a legacy completion stands in its text."""

import pytest

from octavo.server.protocols._logprobs import LegacyLogprobs
from octavo.types import TokenLogprob

END = 256
IDS = (END, *b"Hi", END, *"é!".encode())  # the first is put before the text


class Bytes:
    """A byte is a token, and END a control token."""

    def token_bytes(self, token_id, *, special=False):
        return bytes([token_id]) if token_id < END else b"<end>" * special


def scored(ids):
    return [TokenLogprob(token_id, -0.5) for token_id in ids]


@pytest.mark.parametrize(
    ("text", "offsets", "answer"),
    [
        ("Hi<end>é!", [0, 0, 1, 2, 7, 7, 8], 9),
        ("", [0, 0, 1, 2, 2, 2, 3], 4),  # it came as ids: control tokens are not said
    ],
)
def test_a_control_token_takes_the_room_it_has_in_the_text(text, offsets, answer):
    scribe = LegacyLogprobs(Bytes())
    assert scribe.prompt(IDS, scored(IDS[1:]), text)["text_offset"] == offsets
    assert scribe.part(scored([END, *b"o"]))["text_offset"] == [answer, answer]
