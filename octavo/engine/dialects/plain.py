"""For models whose template knows no tools: the system prompt tells of them, and of this form."""

from octavo.engine.dialect import Dialect

DIALECT = Dialect(
    call='<tool_call>{"name": "$name", "arguments": $arguments}</tool_call>',
    between="\n",
    marker="<tool_call>",
    is_told=True,
)
EXAMPLE = (
    "<think>\nhm\n</think>\n\nLet me see.\n"
    '<tool_call>{"name": "look", "arguments": {"at": "é\\n", "deep": true}}</tool_call>\n'
    '<tool_call>{"name": "look", "arguments": {}}</tool_call>'
)


def is_spoken(template: str) -> bool:
    """It is what is left where no other is."""
    return False
