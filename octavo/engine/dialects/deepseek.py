"""DeepSeek V3 and R1: calls as fenced JSON between control tokens of their own."""

from octavo.engine.dialect import Dialect

DIALECT = Dialect(
    opens="<｜tool▁calls▁begin｜>",
    call="<｜tool▁call▁begin｜>function<｜tool▁sep｜>$name\n```json\n$arguments\n```<｜tool▁call▁end｜>",
    between="\n",
    closes="<｜tool▁calls▁end｜>",
    marker="<｜tool▁calls▁begin｜>",
    takes_text=True,
)
EXAMPLE = (
    "<think>\nhm\n</think>\n\nLet me see.<｜tool▁calls▁begin｜>"
    '<｜tool▁call▁begin｜>function<｜tool▁sep｜>look\n```json\n{"at": "é\\n", "deep": true}\n```'
    "<｜tool▁call▁end｜>\n"
    "<｜tool▁call▁begin｜>function<｜tool▁sep｜>look\n```json\n{}\n```<｜tool▁call▁end｜>"
    "<｜tool▁calls▁end｜>"
)


def is_spoken(template: str) -> bool:
    return "<｜tool▁calls▁begin｜>" in template and "```json" in template
