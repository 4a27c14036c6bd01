"""Mistral since Small 3.2: [TOOL_CALLS], a name, [ARGS] and JSON for each call."""

from octavo.engine.dialect import Dialect

DIALECT = Dialect(
    call="[TOOL_CALLS]$name[ARGS]$arguments",
    marker="[TOOL_CALLS]",
    thought=("[THINK]", "[/THINK]"),
    id_length=9,  # their template refuses others
)
EXAMPLE = (
    "[THINK]hm[/THINK]Let me see."
    '[TOOL_CALLS]look[ARGS]{"at": "é\\n", "deep": true}[TOOL_CALLS]look[ARGS]{}'
)


def is_spoken(template: str) -> bool:
    return "[TOOL_CALLS]" in template and "[ARGS]" in template
