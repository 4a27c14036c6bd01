"""What callers of tools ask an echo for, and what it says then: the last message once more, in the
words of a model that calls tools and thinks.

from callers import ask, message, rendered         (tests/ is on the path)
"""

from dialects import LOOK, dialect

TEMPLATE = "{{ '<tool_call>' }} {{ '</think>' }} {{ enable_thinking }} {{ reasoning_effort }}"
SAYS = dialect("hermes").EXAMPLE
ARGUMENTS = ['{"at": "é\\n", "deep": true}', "{}"]
TOOL = {"type": "function", "function": {"name": "look", "parameters": LOOK, "strict": True}}
THEIRS = {"name": "look", "input_schema": LOOK, "eager_input_streaming": True}
USER = {"role": "user", "content": SAYS}
THINK = {"type": "enabled", "budget_tokens": 1024}


def ask(**fields):
    """Of chat completions."""
    return {"model": "echo", "messages": [USER], "tools": [TOOL]} | fields


def message(**fields):
    """Of Messages."""
    return {"model": "echo", "max_tokens": 2000, "messages": [USER], "tools": [THEIRS]} | fields


def rendered(engine):
    """What its template was given last."""
    return engine.tokenizer.given
