"""FunctionGemma: call:NAME{...}, keys bare, texts between two <escape>."""

from octavo.engine.dialect import Dialect

DIALECT = Dialect(
    call="<start_function_call>call:$name$arguments<end_function_call>",
    marker="<start_function_call>",
    notation="gemma",
    no_content="",  # its template takes null for content of an unknown kind
)
EXAMPLE = (
    "<think>hm</think>Let me see."
    "<start_function_call>call:look{at:<escape>é\n<escape>,deep:true}<end_function_call>"
    "<start_function_call>call:look{}<end_function_call>"
)


def is_spoken(template: str) -> bool:
    return "<start_function_call>" in template
