"""Llama 3.1 to 3.3: the whole reply is one call, as JSON."""

from octavo.engine.dialect import Dialect

DIALECT = Dialect(
    call='{"name": "$name", "parameters": $arguments}',
    between=None,  # their template refuses a message with two
    marker=None,
)
EXAMPLE = '<think>\nhm\n</think>\n\n{"name": "look", "parameters": {"at": "é\\n", "deep": true}}'


def is_spoken(template: str) -> bool:
    return "<|start_header_id|>" in template and '"parameters": ' in template
