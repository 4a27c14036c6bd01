"""An answer told apart as it comes: tokens in; thoughts, text and calls out.

    tokens -> characters and marks -> Reader -> parts, their text less stop strings -> deltas

Owns what may be half a mark or half a stop string. However tokens are cut, what is told joins to
the same.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from octavo.engine.dialect import Spelling
from octavo.engine.reader import Part, Reader, Said, Thought
from octavo.engine.text import Characters, Stops
from octavo.loader.tokenizer import Tokenizer
from octavo.types import CallDelta, Delta, Reading, TokenLogprob


class ReplyStream:
    """Tokens in, parts out."""

    def __init__(
        self,
        tokenizer: Tokenizer,
        spelling: Spelling,
        reading: Reading,
        stop: Sequence[str],
        id_of: Callable[[int], str],
        closing: tuple[int, ...],
    ) -> None:
        """`id_of` names a call, by its place among the answer's; `closing` closes a thought."""
        self._characters = Characters(tokenizer, spelling.ids)
        self._letters = _Letters(spelling)
        self._stops = Stops(stop)
        self._reader = Reader(spelling, reading, id_of)
        self._closing, self._max_thought = closing, reading.max_thought
        self.num_thought = 0  # tokens

    def push(self, token_id: int) -> list[Part]:
        """Nothing more is told once `stopped`."""
        was_thinking = self._reader.is_thinking
        parts = self._reader.push(self._letters.push(self._characters.push(token_id)))
        self.num_thought += was_thinking or self._reader.is_thinking
        return self._cut(parts)

    def flush(self) -> list[Part]:
        """The rest, when no more tokens come."""
        begun = self._letters.push(self._characters.flush())
        if not self._reader.is_thinking:  # or it is half of what ends the thought
            begun += self._letters.flush()
        parts = [] if self._reader.expects_mark else self._reader.push(begun)
        parts = self._cut([*parts, *self._reader.flush()])
        return [*parts, Said(self._stops.flush())]

    @property
    def closing(self) -> tuple[int, ...]:
        """The tokens that close a thought, where it has had all it may and its last character is
        whole: a grammar lets nothing end within one."""
        most = self._max_thought
        is_over = most is not None and self.num_thought >= most and self._reader.is_thinking
        return self._closing if is_over and self._characters.is_whole else ()

    @property
    def stopped(self) -> str | None:
        """The stop string that ended it. They are looked for in the text, not in thoughts and
        calls."""
        return self._stops.stopped

    @property
    def is_whole(self) -> bool:
        """No call has begun that has not ended."""
        return self._reader.is_whole

    @property
    def is_broken(self) -> bool:
        """A call was begun and went wrong: nothing more is told."""
        return self._reader.is_broken

    def _cut(self, parts: Sequence[Part]) -> list[Part]:
        kept: list[Part] = []
        for part in parts:
            if self._stops.stopped is not None:
                break
            if isinstance(part, Said):
                kept.append(Said(self._stops.push(part.text)))
            else:
                kept += [Said(self._stops.flush()), part]
        return kept


def deltas(
    parts: Sequence[Part],
    token_ids: tuple[int, ...] = (),
    logprobs: tuple[TokenLogprob, ...] = (),
) -> list[Delta]:
    """As few as keep the order, one at least; the first has the tokens."""
    told = [Delta("", token_ids, logprobs)]
    for part in parts:
        last = told[-1]
        match part:
            case Thought(text):
                if last.text or last.calls:
                    told.append(Delta("", (), reasoning=text))
                else:
                    told[-1] = replace(last, reasoning=last.reasoning + text)
            case Said(text) if text:
                if last.calls:
                    told.append(Delta(text, ()))
                else:
                    told[-1] = replace(last, text=last.text + text)
            case CallDelta():
                told[-1] = replace(last, calls=_joined(last.calls, part))
    return told


def _joined(calls: tuple[CallDelta, ...], more: CallDelta) -> tuple[CallDelta, ...]:
    if calls and more.id is None:
        last = calls[-1]
        return (*calls[:-1], replace(last, arguments=last.arguments + more.arguments))
    return (*calls, more)


class _Letters:
    """Exchanges marks that are spelled out for their characters, also where several tokens spell
    one."""

    def __init__(self, spelling: Spelling) -> None:
        self._marks = {mark: spelling.marks[mark] for mark in spelling.letters}
        self._begun = {mark[:length] for mark in self._marks for length in range(1, len(mark))}
        self._most = max(map(len, self._begun), default=0)
        self._held = ""

    def push(self, text: str) -> str:
        text = self._held + text
        for mark, character in self._marks.items():
            text = text.replace(mark, character)
        lengths = range(min(self._most, len(text)), 0, -1)
        keep = next((length for length in lengths if text[-length:] in self._begun), 0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def flush(self) -> str:
        held, self._held = self._held, ""
        return held
