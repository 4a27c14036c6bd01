"""Hermes, Qwen and many others: JSON between <tool_call> and </tool_call>."""

from octavo.engine.dialect import Dialect

DIALECT = Dialect(
    call='<tool_call>\n{"name": "$name", "arguments": $arguments}\n</tool_call>',
    between="\n",
    marker="<tool_call>",
)
EXAMPLE = (
    "<think>\nhm\n</think>\n\nLet me see.\n"
    '<tool_call>\n{"name": "look", "arguments": {"at": "é\\n", "deep": true}}\n</tool_call>\n'
    '<tool_call>\n{"name": "look", "arguments": {}}\n</tool_call>'
)


def is_spoken(template: str) -> bool:
    """Some templates have the word for models that write XML within it."""
    return (
        "<tool_call>" in template and "<function=" not in template and "<arg_key>" not in template
    )
