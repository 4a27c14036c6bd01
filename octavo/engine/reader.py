"""Characters and marks in; thoughts, text and calls out.

Owns the order in which a dialect's forms may come, and that whatever is no call is told as the text
it is. Knows no token and no model: a Spelling says what to look for.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from octavo.engine.dialect import Spelling
from octavo.engine.notations import ArgumentsReader, Malformed
from octavo.types import CallDelta, Reading


@dataclass(frozen=True, slots=True)
class Said:
    text: str


@dataclass(frozen=True, slots=True)
class Thought:
    text: str


Part: TypeAlias = Said | Thought | CallDelta
State: TypeAlias = Callable[[str], None]

SPACE = " \t\r\n"


class Reader:
    """A machine: each state takes one character.

        prose ──marker──▶ form ──▶ name ──▶ form ──▶ arguments ──▶ form ──▶ after ──▶ prose
          ▲ │                                                                 │
          │ └──thought                 as text, where it was no call          └──▶ form
          └─────────────────────────────────────┘

    White space around thoughts and before calls is layout, and left out.
    """

    def __init__(self, spelling: Spelling, reading: Reading, id_of: Callable[[int], str]) -> None:
        self._spelling, self._names, self._id_of = spelling, frozenset(reading.tools), id_of
        self._is_held = reading.is_held
        self._state: State = self._think if reading.is_thinking else self._prose
        self._then: State = self._prose  # where a form that is read to its end leads
        self._parts: list[Part] = []
        self._space = ""  # held until it is known what follows
        self._is_fresh = True  # no text and no call was told yet
        self._drops_space = reading.is_thinking
        self._raw: list[str] = []  # what may become a call, and else is text
        self._form, self._place = "", 0
        self._name = ""
        self._arguments: ArgumentsReader | None = None
        self.num_calls = 0
        self.is_broken = False  # a call was begun and went wrong: nothing can be told any more

    @property
    def is_thinking(self) -> bool:
        return self._state == self._think

    @property
    def is_whole(self) -> bool:
        """No call has begun that has not ended."""
        is_within = self._state == self._argue or self._is_marked
        return not self.is_broken and not is_within

    @property
    def expects_mark(self) -> bool:
        """Nothing can follow but marks: the rest of what ends a call, another call, or the end of
        all calls. So what may be half a mark is one, and no text."""
        is_ending = self._state == self._read_form and not self._raw
        has_more = self._spelling.next is not None or bool(self._spelling.closes)
        return is_ending or (self._state == self._after and has_more)

    @property
    def _is_marked(self) -> bool:
        """What may become a call began with the mark of one."""
        return bool(self._raw) and self._spelling.dialect.marker is not None

    def push(self, text: str) -> list[Part]:
        self._parts = []
        for character in text:
            if self.is_broken:
                break
            self._state(character)
        return self._parts

    def flush(self) -> list[Part]:
        self._parts = []
        if self._raw and not self._is_marked:  # half a call is nothing to show
            self._give_up()
        if not self.is_thinking:
            self._tell(Said(self._space))
        return self._parts

    def _tell(self, part: Part) -> None:
        self._parts.append(part)

    # ---- text and thoughts

    def _prose(self, c: str) -> None:
        if self._begins_thought(c):
            self._state, self._space, self._drops_space = self._think, "", True
        elif self._begins_call(c):
            self._begin_form(self._spelling.first, self._read_name)
            self._read_form(c)
        else:
            self._text(c)

    def _begins_thought(self, c: str) -> bool:
        """Only before all else, as models do: later a mark is text that speaks of it."""
        return (
            self._is_fresh and self._spelling.thought is not None and c == self._spelling.thought[0]
        )

    def _begins_call(self, c: str) -> bool:
        if not self._names or c != self._spelling.first[0]:
            return False
        return self._is_fresh or (self._spelling.dialect.marker is not None and not self._is_held)

    def _text(self, c: str) -> None:
        if c in SPACE:
            self._space += "" if self._drops_space else c
        else:
            self._tell(Said(self._take_space() + self._spelling.shown(c)))
            self._is_fresh = self._drops_space = False

    def _take_space(self) -> str:
        space, self._space = self._space, ""
        return space

    def _think(self, c: str) -> None:
        assert self._spelling.thought is not None
        if c == self._spelling.thought[1]:
            self._state, self._space, self._drops_space = self._prose, "", True
        elif c in SPACE:
            self._space += "" if self._drops_space else c
        else:
            self._tell(Thought(self._take_space() + self._spelling.shown(c)))
            self._drops_space = False

    # ---- calls

    def _begin_form(self, form: str, then: State) -> None:
        """`then` takes the character after the form's last."""
        self._form, self._place, self._then = form, 0, then
        self._state = self._read_form if form else then

    def _read_form(self, c: str) -> None:
        form = self._form
        if c in SPACE and form[self._place] in SPACE:
            self._keep(c)
            return
        while form[self._place] in SPACE:
            self._place += 1
        if c != form[self._place]:
            self._fail(c)
            return
        self._keep(c)
        self._place += 1
        if self._place == len(form):
            self._state = self._then

    def _keep(self, c: str) -> None:
        if self._then in (self._read_name, self._argue):  # until it is a call
            self._raw.append(c)

    def _read_name(self, c: str) -> None:
        if c.isalnum() or c in "_-.":
            self._raw.append(c)
            self._name += c
        elif not self._name and c in SPACE:
            self._raw.append(c)
        elif self._name in self._names:
            self._begin_form(self._spelling.middle, self._argue)
            self._state(c)
        else:
            self._fail(c)

    def _argue(self, c: str) -> None:
        try:
            said = self._arguments.push(c) if self._arguments else self._begin_arguments(c)
        except Malformed:
            self._fail(c)
            return
        if said:
            self._tell(CallDelta(self.num_calls - 1, said))
        if self._arguments and self._arguments.is_done:
            self._arguments = None
            self._begin_form(self._spelling.after, self._after)

    def _begin_arguments(self, c: str) -> str:
        """Their first character makes it a call."""
        if c in SPACE and not self._spelling.spaces_arguments:
            raise Malformed
        arguments = self._spelling.arguments_reader()
        said = arguments.push(c)
        if not said:  # white space
            self._raw.append(c)
            return ""
        self._arguments = arguments
        self._tell(CallDelta(self.num_calls, "", self._id_of(self.num_calls), self._name))
        self.num_calls += 1
        self._raw, self._name, self._space, self._is_fresh = [], "", "", False
        return said

    def _after(self, c: str) -> None:
        """A call has ended: another, the end of them all, or text."""
        closes, following = self._spelling.closes, self._spelling.next
        if c in SPACE:
            return
        if closes and c == closes[0]:
            self._begin_form(closes, self._prose)
            self._state(c)
        elif following and c == following[0]:
            self._begin_form(following, self._read_name)
            self._state(c)
        else:
            self._state = self._prose
            self._prose(c)

    def _fail(self, c: str) -> None:
        """What went wrong before it was a call is text; after that nothing can be told."""
        if self._raw:
            self._give_up()
            self._prose(c)
        else:
            self.is_broken = True

    def _give_up(self) -> None:
        raw, self._raw, self._name = self._raw, [], ""
        self._state = self._prose
        for c in raw:
            self._text(c)
