"""Llama 3.2 and 4 where told so: the whole reply is a list of calls, as Python writes them."""

from octavo.engine.dialect import Dialect

DIALECT = Dialect(
    opens="[", call="$name$arguments", between=", ", closes="]", marker=None, notation="python"
)
EXAMPLE = '<think>\nhm\n</think>\n\n[look(at="é\\n", deep=True), look()]'


def is_spoken(template: str) -> bool:
    return "<|start_header_id|>" in template and "func_name1(" in template
