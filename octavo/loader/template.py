"""Chats as a model's own template writes them, and which of their characters are the user's.

`render_hidden` keeps what users say from becoming control tokens. Every character that could begin,
end or join one (`<`, `|`, `>`, ... whatever the vocabulary's control tokens have besides letters)
is exchanged, in all that comes from outside, for a lone surrogate: one for one, so that trimming,
slicing, splitting, counting and joining do to it what they would do to the character. Text with
lone surrogates of its own is refused, so nothing can be taken for a hidden character that is not.
A control token that stands in the rendered text has thus been opened and closed by the template.
Where the template compares or searches for a literal ("</think>" in message.content), the literal
is hidden too, when the template is compiled. `reveal` gives the characters back.

A template that itself opens and closes a control token around somebody's word, as some do with
"<|" + message.role + "|>", makes that token as before.
"""

import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

from jinja2 import Template, TemplateSyntaxError, nodes
from jinja2.meta import find_undeclared_variables

from octavo.errors import BadCheckpoint, BadRequest
from octavo.loader._sandbox import Sandbox, tojson
from octavo.types import Json, Message, ToolCall

_SURROGATES: Final = range(0xD800, 0xE000)
_MAX_SOURCE: Final = 1 << 18
_LARGEST: Final = sys.float_info.max
_MANY_DIGITS: Final = 300  # a whole number with fewer fits a double

# Methods of text that look for what they are given; only the first argument of `replace` does.
_SEARCHES: Final = frozenset(
    {"split", "rsplit", "partition", "rpartition", "startswith", "endswith", "find", "rfind"}
    | {"index", "rindex", "count", "strip", "lstrip", "rstrip", "removeprefix", "removesuffix"}
    | {"trim", "replace"}
)


class ChatTemplate:
    def __init__(
        self, source: str | None, control: Iterable[str], variables: Mapping[str, str]
    ) -> None:
        """`control`: how control tokens are spelled. `variables`: bos_token and the like. The
        source is compiled when first used, so that a broken one does not forbid raw prompts."""
        self._source, self._variables = source, variables
        self._control = control

    def render(
        self,
        messages: Sequence[Message | Mapping[str, Any]],
        tools: Sequence[Json] | None,
        add_generation_prompt: bool,  # noqa: FBT001
        extra: Mapping[str, Any],
    ) -> str:
        """Raises BadRequest where the model has no template, or its template refuses."""
        user = _user_part(messages, tools, extra)
        return self._run(self._plain, {"add_generation_prompt": add_generation_prompt, **user})

    def render_hidden(
        self,
        messages: Sequence[Message | Mapping[str, Any]],
        tools: Sequence[Json] | None,
        add_generation_prompt: bool,  # noqa: FBT001
        extra: Mapping[str, Any],
    ) -> str:
        """As `render`, with the user's characters hidden where they could be of a control token."""
        user = _user_part(messages, tools, extra)
        hidden = _exchanged_within(user, self._hide)
        compiled = self._plain if hidden == user else self._hiding
        return self._run(compiled, {"add_generation_prompt": add_generation_prompt, **hidden})

    @cached_property
    def variables(self) -> frozenset[str]:
        """The names that the template looks up. Raises BadCheckpoint."""
        sandbox, _ = self._plain
        return frozenset(find_undeclared_variables(sandbox.parse(self._source or "")))

    def reveal(self, text: str) -> str:
        return _exchanged(text, self._reveal)

    def _run(self, compiled: tuple[Sandbox, Template], given: Json) -> str:
        sandbox, template = compiled
        try:
            return sandbox.run(template, {**self._variables, **given}, size=len(repr(given)))
        except Exception as error:  # whatever the file's code does wrong
            reason = str(error) or type(error).__name__
            raise BadRequest(f"the model's chat template refuses: {reason}", "messages") from error

    @cached_property
    def _plain(self) -> tuple[Sandbox, Template]:
        return self._compiled(Sandbox(), lambda tree: None)

    @cached_property
    def _hiding(self) -> tuple[Sandbox, Template]:
        sandbox = Sandbox(tojson_filter=self._hidden_json)
        return self._compiled(sandbox, lambda tree: _hide_searched(tree, self._hide))

    def _compiled(
        self, sandbox: Sandbox, rewrite: Callable[[nodes.Template], None]
    ) -> tuple[Sandbox, Template]:
        if self._source is None:
            raise BadRequest(
                "the model has no chat template, send a raw prompt instead (octavo run --raw)",
                "messages",
            )
        if len(self._source) > _MAX_SOURCE:
            raise BadCheckpoint(f"the chat template is longer than {_MAX_SOURCE} characters")
        try:
            return sandbox, sandbox.compile_template(self._source, rewrite)
        except TemplateSyntaxError as error:
            raise BadCheckpoint(
                f"the chat template, line {error.lineno}: {error.message}"
            ) from error
        except Exception as error:  # Python's compiler has limits of its own, on nesting
            raise BadCheckpoint(f"the chat template cannot be compiled: {error}") from error

    def _hidden_json(self, value: Any, *args: Any, **kwargs: Any) -> str:
        """JSON escapes characters by what they are."""
        revealed = _exchanged_within(value, self._reveal)
        return _exchanged(tojson(revealed, *args, **kwargs), self._hide)

    @cached_property
    def _hide(self) -> dict[str, str]:
        ends = {character for token in self._control for character in (token[0], token[-1])}
        within = {c for c in set("".join(self._control)) if not (c.isalnum() or c in "_▁ ")}
        if len(marks := sorted(ends | within)) > len(_SURROGATES):
            raise BadCheckpoint(
                f"control tokens are spelled with {len(marks)} different marks, "
                f"at most {len(_SURROGATES)} can be told from text"
            )
        return {mark: chr(hidden) for mark, hidden in zip(marks, _SURROGATES, strict=False)}

    @cached_property
    def _reveal(self) -> dict[str, str]:
        return {hidden: mark for mark, hidden in self._hide.items()}


def message_data(message: Message) -> Json:
    """A message as chat templates have come to expect it. What it has not, is not there."""
    data: Json = {"role": message.role, "content": message.content}
    if message.reasoning:
        data["reasoning_content"] = message.reasoning
    if message.tool_calls:
        data["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": arguments_data(call)},
            }
            for call in message.tool_calls
        ]
    if message.tool_call_id is not None:
        data["tool_call_id"] = message.tool_call_id
    return data


def arguments_data(call: ToolCall) -> Json:
    """A number that no double holds is the one next to it that one does."""

    def held(number: str) -> float:
        return max(-_LARGEST, min(float(number), _LARGEST))

    def whole(number: str) -> float:
        return int(number) if len(number) < _MANY_DIGITS else held(number)

    arguments: Json = json.loads(call.arguments, parse_float=held, parse_int=whole)
    return arguments


def check_text(text: str, field: str) -> None:
    """Raises BadRequest for a lone surrogate."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRequest(
            f"character {error.start} is U+{ord(text[error.start]):04X}, half of a surrogate pair, "
            "which is no text by itself",
            field,
        ) from None


def _user_part(
    messages: Sequence[Message | Mapping[str, Any]],
    tools: Sequence[Json] | None,
    extra: Mapping[str, Any],
) -> Json:
    """All that comes from outside, as JSON's own types, so that a template meets no others."""
    try:
        return {
            "messages": _data(messages, "messages"),
            "tools": _data(tools, "tools"),
            "documents": None,
            **{name: _data(value, name) for name, value in extra.items()},
        }
    except RecursionError as error:
        raise BadRequest("lists and objects are nested too deeply", "messages") from error


def _data(value: Any, field: str) -> Any:
    match value:
        case None | bool() | int() | float():
            return value
        case str():
            check_text(value, field)
            return value
        case Message():
            return _data(message_data(value), field)
        case Mapping():
            return {_data(key, field): _data(item, f"{field}.{key}") for key, item in value.items()}
        case Sequence():
            return [_data(item, f"{field}[{i}]") for i, item in enumerate(value)]
    raise BadRequest(f"a {type(value).__name__} is not JSON", field)


def _exchanged(text: str, table: Mapping[str, str]) -> str:
    for character, other in table.items():
        text = text.replace(character, other)
    return text


def _exchanged_within(value: Any, table: Mapping[str, str]) -> Any:
    match value:
        case str():
            return _exchanged(value, table)
        case dict():  # a name that a template may look up is no text
            return {
                key if key.isidentifier() else _exchanged(key, table): _exchanged_within(
                    item, table
                )
                for key, item in value.items()
            }
        case list() | tuple():
            return [_exchanged_within(item, table) for item in value]
    return value


def _hide_searched(tree: nodes.Template, table: Mapping[str, str]) -> None:
    for node in tree.find_all((nodes.Compare, nodes.Test, nodes.Call, nodes.Filter)):
        for part in _searched(node):
            for literal in (part, *part.find_all(nodes.Const)):
                if isinstance(literal, nodes.Const) and isinstance(literal.value, str):
                    literal.value = _exchanged(literal.value, table)


def _searched(node: nodes.Node) -> Iterable[nodes.Node]:
    """The parts of an expression that are looked for in other text, or compared with it."""
    match node:
        case nodes.Compare() | nodes.Test():
            return (node,)
        case nodes.Call(node=nodes.Getattr(attr=name), args=args) if name in _SEARCHES:
            return args[:1] if name == "replace" else args
        case nodes.Filter(name="replace" | "trim", args=args):
            return args[:1]
        case nodes.Filter(name="select" | "selectattr" | "reject" | "rejectattr", args=args):
            return args
    return ()
