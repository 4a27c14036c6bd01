"""What a dialect is: the forms in which a model writes calls and thoughts.

    thought  text  opens call (between call)* closes

From this one description calls are rendered (chat_format.py), constrained (reply_grammar.py) and
read (reader.py). Owns the choice among dialects, and which of their words are tokens of a model.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

from octavo.engine.notations import NOTATIONS, ArgumentsReader, Notation
from octavo.errors import BadConfig, UnknownName
from octavo.registry import entry, names

FOLDER = "octavo.engine.dialects"
_MARK = re.compile(r"<[^<>\s]+>|\[/?[A-Z_]+\]")
_FIRST_MARK = 0xD800  # lone surrogates, which no text has


@dataclass(frozen=True, slots=True)
class Dialect:
    """White space in a form is what the model is made to write; any other is read as well."""

    call: str  # one call, with $name and $arguments in their places
    marker: str | None  # what opens + call begin with. None: no text may come before a call
    opens: str = ""  # before the first call
    between: str | None = ""  # two calls. None: a reply has one at most
    closes: str = ""  # after the last
    notation: str = "json"  # how arguments are spelled, of notations.py
    thought: tuple[str, str] = ("<think>\n", "\n</think>\n\n")  # its beginning and its end
    # What the model's chat template is given.
    id_length: int | None = None  # of the ids of calls. None: it takes any
    takes_text: bool = False  # arguments as JSON text, not as an object
    no_content: str | None = None  # beside calls with no text
    is_told: bool = False  # tools, calls and results as text: it knows nothing of them

    def parts(self) -> tuple[str, str, str]:
        """Of a call: before the name, between name and arguments, after them."""
        before, rest = self.call.split("$name")
        middle, after = rest.split("$arguments")
        return before, middle, after

    def marks(self) -> tuple[str, ...]:
        """The words that may be tokens of their own."""
        forms = (self.opens, self.call, self.closes, *self.thought)
        found = (mark for form in forms for mark in _MARK.findall(form))
        return tuple(dict.fromkeys([*found, *NOTATIONS[self.notation].marks]))


def choose(name: str | None, template: str | None) -> Dialect:
    """By its name, or by the chat template. Raises BadConfig."""
    if name is not None:
        try:
            named: Dialect = entry(FOLDER, name).DIALECT
        except UnknownName as error:
            raise BadConfig("tool_dialect", f"{error}: {', '.join(names(FOLDER))}") from None
        return named
    spoken = (one for one in names(FOLDER) if entry(FOLDER, one).is_spoken(template or ""))
    chosen: Dialect = entry(FOLDER, next(spoken, "plain")).DIALECT
    return chosen


class Spelling:
    """A dialect in the tokens of one model. Each mark becomes one character that occurs in no text,
    whether the model has a token for it or spells it out."""

    def __init__(
        self, dialect: Dialect, control_ids: Mapping[str, int], *, reasons: bool = True
    ) -> None:
        """`control_ids` are the model's. A mark among them is that token and never its letters; any
        other is its letters."""
        self.dialect = dialect
        thought = [mark.strip() for mark in dialect.thought]
        marks = [mark for mark in dialect.marks() if reasons or mark not in thought]
        self.marks = {mark: chr(_FIRST_MARK + place) for place, mark in enumerate(marks)}
        self.ids = {control_ids[mark]: self.marks[mark] for mark in marks if mark in control_ids}
        self.letters = tuple(mark for mark in marks if mark not in control_ids)
        self.notation: Notation = NOTATIONS[dialect.notation]
        self.thought = [self.marks[mark] for mark in thought] if reasons else None
        before, middle, after = map(self.marked, dialect.parts())
        between, self.closes = dialect.between, self.marked(dialect.closes).strip()
        self.first = (self.marked(dialect.opens) + before).rstrip()  # up to the name
        self.next = None if between is None else (self.marked(between) + before).strip()
        self.middle, self.after = middle.rstrip(), after.rstrip()
        self.spaces_arguments = middle != self.middle  # white space may come before them

    def marked(self, text: str) -> str:
        """Marks exchanged for their characters."""
        for mark, character in self.marks.items():
            text = text.replace(mark, character)
        return text

    def arguments_reader(self) -> ArgumentsReader:
        return ArgumentsReader(
            self.notation, [self.marked(quote) for quote in self.notation.quotes], self.shown
        )

    def shown(self, character: str) -> str:
        """The text that a character stands for: a mark's letters, or itself. A token that begins or
        ends a thought out of place is a slip of the model's, shown as nothing."""
        return self._shown.get(character, character)

    @cached_property
    def _shown(self) -> dict[str, str]:
        shown = {character: mark for mark, character in self.marks.items()}
        slips = set(self.thought or ()) & set(self.ids.values())
        return shown | dict.fromkeys(slips, "")
