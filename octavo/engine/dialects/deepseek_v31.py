"""DeepSeek V3.1: as before it, but a name and plain JSON for each call."""

from octavo.engine.dialect import Dialect

DIALECT = Dialect(
    opens="<｜tool▁calls▁begin｜>",
    call="<｜tool▁call▁begin｜>$name<｜tool▁sep｜>$arguments<｜tool▁call▁end｜>",
    closes="<｜tool▁calls▁end｜>",
    marker="<｜tool▁calls▁begin｜>",
    takes_text=True,
)
EXAMPLE = (
    "<think>hm</think>Let me see.<｜tool▁calls▁begin｜>"
    '<｜tool▁call▁begin｜>look<｜tool▁sep｜>{"at": "é\\n", "deep": true}<｜tool▁call▁end｜>'
    "<｜tool▁call▁begin｜>look<｜tool▁sep｜>{}<｜tool▁call▁end｜><｜tool▁calls▁end｜>"
)


def is_spoken(template: str) -> bool:
    return "<｜tool▁calls▁begin｜>" in template and "```json" not in template
