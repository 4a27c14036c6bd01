"""Mistral up to Small 3.1: [TOOL_CALLS] and a list of calls, as JSON."""

from octavo.engine.dialect import Dialect

DIALECT = Dialect(
    opens="[TOOL_CALLS] [",
    call='{"name": "$name", "arguments": $arguments}',
    between=", ",
    closes="]",
    marker="[TOOL_CALLS]",
    thought=("[THINK]", "[/THINK]"),
    id_length=9,  # their template refuses others
)
EXAMPLE = (
    "[THINK]hm[/THINK]Let me see."
    '[TOOL_CALLS] [{"name": "look", "arguments": {"at": "é\\n", "deep": true}}, '
    '{"name": "look", "arguments": {}}]'
)


def is_spoken(template: str) -> bool:
    return "[TOOL_CALLS]" in template and "[ARGS]" not in template
