"""Models that say what a test wants, in whatever tokens: for whoever tells answers apart.

from dialects import Pieces, TOOL, told, tokens_of        (tests/ is on the path)
"""

from itertools import pairwise

from octavo.engine.dialect import FOLDER, Spelling
from octavo.engine.reply import ReplyStream, deltas
from octavo.registry import entry, names
from octavo.types import Reading, Tool

DIALECTS = names(FOLDER)
LOOK = {
    "type": "object",
    "properties": {"at": {"type": "string"}, "deep": {"type": "boolean"}},
    "additionalProperties": False,
}
TOOL = Tool("look", 'Say "where" {it} is, </tool_call> or [not].', LOOK)


class Pieces:
    """A tokenizer whose tokens are any pieces of bytes; `control` ones show nothing."""

    def __init__(self, pieces, control=()):
        self.pieces = [*pieces, *(spelled.encode() for spelled in control)]
        self.control_ids = {spelled: len(pieces) + i for i, spelled in enumerate(control)}

    def token_bytes(self, token_id, *, special=False):
        is_control = token_id in self.control_ids.values()
        return b"" if is_control and not special else self.pieces[token_id]


def dialect(name):
    return entry(FOLDER, name)


def spelling(name, *, control, reasons=True):
    """Of a model whose marks are tokens of their own, or of one that has none."""
    described = dialect(name).DIALECT
    marks = described.marks() if control else ()
    return Spelling(described, {mark: i for i, mark in enumerate(marks)}, reasons=reasons)


def split(text, marks):
    """The text between marks, and the marks."""
    parts = [text]
    for mark in marks:
        parts = [
            part
            for whole in parts
            for part in (
                [whole]
                if whole in marks
                else [p for i, t in enumerate(whole.split(mark)) for p in ([mark] * (i > 0) + [t])]
            )
        ]
    return [part for part in parts if part]


def told(name, text, cuts=(), *, control=False, reasons=True, stop=(), **reading):
    """The Deltas of a reply: cut at these bytes, and at its marks where these are tokens."""
    marks = dialect(name).DIALECT.marks() if control else ()
    pieces = []
    for part in split(text, marks):
        raw = part.encode()
        ends = [0, *sorted({cut for cut in cuts if cut < len(raw)}), len(raw)]
        whole = part in marks
        pieces += [part] if whole else [raw[a:b] for a, b in pairwise(ends)]
    plain = [piece for piece in pieces if isinstance(piece, bytes)]
    tokenizer = Pieces(plain, marks)
    spelled = Spelling(dialect(name).DIALECT, tokenizer.control_ids, reasons=reasons)
    reading = Reading(**{"tools": ("look",), **reading})
    stream = ReplyStream(tokenizer, spelled, reading, stop, "id{}".format, ())
    order = iter(range(len(plain)))
    ids = [next(order) if isinstance(p, bytes) else tokenizer.control_ids[p] for p in pieces]
    told = [delta for token in ids for delta in deltas(stream.push(token))]
    return [*told, *deltas(stream.flush())], stream


def said(deltas):
    """(thought, text, [(index, id, name, arguments)])"""
    calls = {}
    for delta in deltas:
        for call in delta.calls:
            if call.id is not None:
                assert call.index not in calls
                calls[call.index] = [call.index, call.id, call.name, ""]
            calls[call.index][3] += call.arguments
    thought = "".join(delta.reasoning for delta in deltas)
    return thought, "".join(delta.text for delta in deltas), [tuple(c) for c in calls.values()]
