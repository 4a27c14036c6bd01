"""Tokens to text that is safe to show, one token at a time and in linear time.

    bytes of tokens -> whole characters -> text, less what may begin a stop string

Owns what is held back and where a stop string cuts. Knows no model and no request.
"""

import codecs
from collections.abc import Mapping, Sequence

from octavo.loader.tokenizer import Tokenizer


class Characters:
    """Whole characters of tokens."""

    def __init__(self, tokenizer: Tokenizer, marks: Mapping[int, str] | None = None) -> None:
        """Each token of `marks` is that character, and what it cuts short is U+FFFD."""
        self._tokenizer, self._marks = tokenizer, marks or {}
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def push(self, token_id: int) -> str:
        if (mark := self._marks.get(token_id)) is not None:
            return self.flush() + mark
        return self._decoder.decode(self._tokenizer.token_bytes(token_id))

    def flush(self) -> str:
        """A character half done becomes U+FFFD."""
        return self._decoder.decode(b"", final=True)

    @property
    def is_whole(self) -> bool:
        """No character has begun that has not ended."""
        return not self._decoder.getstate()[0]


class TextStream:
    """The text that continues a prompt. However tokens are cut, what `push` and `flush` return
    joins to the same text: that of all the tokens' bytes, up to the stop string that is complete
    first (of several complete at one character, the longest)."""

    def __init__(self, tokenizer: Tokenizer, stop: Sequence[str] = ()) -> None:
        self._characters = Characters(tokenizer)
        self._stops = Stops(stop)

    @property
    def stopped(self) -> str | None:
        """The stop string that ended the text."""
        return self._stops.stopped

    def push(self, token_id: int) -> str:
        """What this token makes safe to show: nothing any more once `stopped`."""
        return self._stops.push(self._characters.push(token_id))

    def flush(self) -> str:
        """The rest, when no more tokens come."""
        return self._stops.push(self._characters.flush()) + self._stops.flush()


class Stops:
    """Text in, the text before the first stop string out; what may begin one is held back."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stops = [_Progress(text) for text in stop]
        self._held = ("", 0)  # seen and not shown: this many first characters of this text
        self.stopped: str | None = None  # the stop string that was complete first

    def push(self, text: str) -> str:
        if self.stopped is not None:
            return ""
        if not self._stops:
            return text
        for length, character in enumerate(text, 1):
            if (found := self._advance(character)) is not None:
                self.stopped = found
                return self._release(text[:length], keep=len(found))
        longest = max(self._stops, key=lambda stop: stop.matched)
        return self._release(text, keep=longest.matched, then=(longest.text, longest.matched))

    def flush(self) -> str:
        """What was held, when nothing that follows may complete it."""
        for stop in self._stops:
            stop.matched = 0
        return self._release("", keep=0)

    def _advance(self, character: str) -> str | None:
        """Follows every stop string by a character; the longest that is now complete."""
        complete = [stop.text for stop in self._stops if stop.advance(character)]
        return max(complete, key=len, default=None)

    def _release(self, text: str, *, keep: int, then: tuple[str, int] = ("", 0)) -> str:
        """What was held, and `text`, but for the last `keep` characters; these are `then` held."""
        held, num_held = self._held
        self._held = then
        num_shown = num_held + len(text) - keep
        return held[: min(num_held, num_shown)] + text[: max(num_shown - num_held, 0)]


class _Progress:
    """How much of one stop string the end of the text matches: Knuth, Morris and Pratt (1977)."""

    def __init__(self, text: str) -> None:
        self.text, self.matched = text, 0
        self._borders = _borders(text)

    def advance(self, character: str) -> bool:
        """True where the stop string is complete; nothing may follow."""
        while self.matched and self.text[self.matched] != character:
            self.matched = self._borders[self.matched - 1]
        self.matched += self.text[self.matched] == character
        return self.matched == len(self.text)


def _borders(text: str) -> list[int]:
    """For each prefix, the longest that it both begins and ends with, itself aside."""
    borders = [0] * len(text)
    for end in range(1, len(text)):
        length = borders[end - 1]
        while length and text[length] != text[end]:
            length = borders[length - 1]
        borders[end] = length + (text[length] == text[end])
    return borders
