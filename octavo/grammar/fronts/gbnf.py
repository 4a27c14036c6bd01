"""A context-free grammar in llama.cpp's GBNF, which begins at `root`."""

from llguidance.gbnf_to_lark import gbnf_to_lark

from octavo.errors import BadRequest
from octavo.grammar.fronts import lark
from octavo.grammar.fronts._amounts import excess_of

FIELD = "grammar"
MOST_CHARACTERS = 1 << 18  # to be translated, in 6 us each
EXAMPLE = ('root ::= "x" word+\nword ::= " " [a-z]+', "x one two", "x 1")


def read(text: str) -> str:
    if len(text) > MOST_CHARACTERS:
        most = f"more than {MOST_CHARACTERS}"
        raise BadRequest(f"{len(text)} characters are {most}: give it in Lark", FIELD)
    if problem := excess_of(text):  # translating, too, costs
        raise BadRequest(problem, FIELD)
    try:
        translated = gbnf_to_lark(text)
    except Exception as error:  # it raises bare Exceptions, too
        raise BadRequest(f"not GBNF: {error}", FIELD) from None
    return lark.read(translated)
