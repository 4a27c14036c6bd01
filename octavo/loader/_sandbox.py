"""Where a chat template runs: Jinja's immutable sandbox, set up as transformers does, and bounded.

A template is code from a file. The sandbox keeps it from the machine; here it is kept from taking
all of it. Everything that repeats or grows text passes a meter: loops (their iterables are wrapped
when the template is compiled), calls, filters, operators, lists and dicts, output. The meter bounds
the time, and the sum of all text and items ever made, hence the memory. What multiplies text at one
stroke ("a" * 10**10, center, replace, ...) is reckoned before it is done.
"""

import json
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from datetime import datetime
from functools import wraps
from types import BuiltinMethodType
from typing import Any, Final

from jinja2 import Template, nodes, pass_context
from jinja2.exceptions import TemplateError, TemplateRuntimeError
from jinja2.ext import Extension, loopcontrols
from jinja2.parser import Parser
from jinja2.runtime import Context
from jinja2.sandbox import ImmutableSandboxedEnvironment

MAX_SECONDS: Final = 5.0
MAX_SIZE: Final = 1 << 26  # characters, and 64 for an item, that one render may make in all
_ITEM: Final = 64
_SLOW: Final = 64  # what a character costs that a regular expression reads


class Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(ImmutableSandboxedEnvironment.default_binop_table)

    def __init__(self, tojson_filter: Callable[..., str] | None = None) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Generation, loopcontrols],
            optimized=False,  # or the compiler would compute constants, unmetered
            finalize=self._output,
        )
        self._running = threading.local()
        del self.globals["lipsum"]
        self.globals |= {"raise_exception": _raise_exception, "strftime_now": _strftime_now}
        self.filters = {name: self._metered(name, call) for name, call in self.filters.items()}
        self.filters |= {"tojson": self._metered("tojson", tojson_filter or tojson)}
        self.filters |= {"_each": self._each, "_kept": self._kept}

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        """Bytes are not weighed, so a template gets none."""
        is_encode = isinstance(obj, str) and attr == "encode"
        return not is_encode and super().is_safe_attribute(obj, attr, value)

    def compile_template(
        self, source: str, rewrite: Callable[[nodes.Template], None] | None = None
    ) -> Template:
        """`rewrite` may change the syntax tree first. Raises TemplateSyntaxError."""
        tree = self.parse(source)
        if rewrite is not None:
            rewrite(tree)
        _wrap(tree)
        return Template.from_code(self, self.compile(tree), self.make_globals(None))

    def run(self, template: Template, variables: Mapping[str, Any], size: int) -> str:
        """`size` is that of the variables: a long chat may make more text than a short one."""
        self._running.meter = meter = _Meter(MAX_SIZE + 64 * size)
        try:
            chunks = []
            for chunk in template.generate(**variables):
                meter.add(len(chunk))
                chunks.append(chunk)
            return "".join(chunks)
        finally:
            del self._running.meter

    def call(self, context: Context, callee: Any, /, *args: Any, **kwargs: Any) -> Any:
        if isinstance(callee, BuiltinMethodType):
            self._meter.add(_growth(callee.__name__, callee.__self__, args, kwargs))
        return self._kept(super().call(context, callee, *args, **kwargs))

    def wrap_str_format(self, value: Any) -> Callable[..., str] | None:
        """The sandbox replaces `text.format` by a function of its own, which `call` cannot know."""
        if (formatted := super().wrap_str_format(value)) is None:
            return None

        def metered(*args: Any, **kwargs: Any) -> str:
            self._meter.add(_growth("format", value.__self__, args, kwargs))
            return formatted(*args, **kwargs)

        return metered

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        self._meter.add(_product(operator, left, right))
        return self._kept(super().call_binop(context, operator, left, right))

    @property
    def _meter(self) -> "_Meter":
        meter: _Meter = self._running.meter
        return meter

    def _each(self, items: Iterable[Any], literal_size: int) -> Iterator[Any]:
        """`literal_size`: characters that stand in the loop's body."""
        for item in items:
            self._meter.add(_ITEM + literal_size)
            yield item

    def _kept(self, value: Any) -> Any:
        """Counts a value. What is made one by one while read becomes a list, so that it is counted
        before anybody reads it."""
        value = list(value) if isinstance(value, Iterator) else value
        self._meter.add(_ITEM)
        self._meter.weigh(value)
        return value

    def _metered(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        has_context = hasattr(call, "jinja_pass_arg")

        @wraps(call)
        def metered(*args: Any, **kwargs: Any) -> Any:
            value, rest = args[has_context], args[has_context + 1 :]
            self._meter.add(_growth(name, value, rest, kwargs))
            return self._kept(call(*args, **kwargs))

        return metered

    @pass_context  # unknown while compiling, so that nothing is folded into a constant
    def _output(self, context: Context, value: Any) -> Any:
        return self._kept(value)


class _Meter:
    def __init__(self, size: int) -> None:
        self._left, self._deadline = size, time.monotonic() + MAX_SECONDS

    def add(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise TemplateRuntimeError("the template makes more text than is allowed")
        if time.monotonic() > self._deadline:
            raise TemplateRuntimeError(f"the template ran for more than {MAX_SECONDS:g} s")

    def weigh(self, value: Any) -> None:
        """Stops within what holds itself: every round weighs something."""
        size, unseen = 0, [value]
        while unseen and size <= self._left:
            item = unseen.pop()
            if isinstance(item, str):
                size += len(item)
                continue
            size += _ITEM
            if isinstance(item, dict):
                unseen += item.keys()
                unseen += item.values()
            elif isinstance(item, list | tuple):
                unseen += item
            elif isinstance(item, int):
                size += item.bit_length() // 8
        self.add(size)


class _Generation(Extension):
    """{% generation %} marks, for training, what the model is to say. Here it changes nothing."""

    tags = {"generation"}  # noqa: RUF012

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


def tojson(
    value: Any,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002
) -> str:
    """transformers' filter: Jinja's own would escape what HTML must."""
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _strftime_now(format: str) -> str:
    return datetime.now().strftime(format)


def _wrap(tree: nodes.Template) -> None:
    for loop in list(tree.find_all(nodes.For)):
        literals = sum(len(text.data) for text in loop.find_all(nodes.TemplateData))
        loop.iter = _filtered(loop.iter, "_each", nodes.Const(literals))
    _wrap_made(tree)


def _wrap_made(node: nodes.Node) -> None:
    """Wraps what puts values together: a ~ b, [a, b], (a, b), {a: b}."""
    for field, value in node.iter_fields():
        if isinstance(value, nodes.Node):
            _wrap_made(value)
            if _makes(value):
                setattr(node, field, _filtered(value, "_kept"))
        elif isinstance(value, list):
            for child in value:
                if isinstance(child, nodes.Node):
                    _wrap_made(child)
            value[:] = [_filtered(v, "_kept") if _makes(v) else v for v in value]


def _makes(node: Any) -> bool:
    if isinstance(node, nodes.Tuple):
        return node.ctx == "load"
    return isinstance(node, nodes.Concat | nodes.List | nodes.Dict)


def _filtered(node: nodes.Node, name: str, *args: nodes.Expr) -> nodes.Filter:
    return nodes.Filter(node, name, list(args), [], None, None, lineno=node.lineno)


def _product(operator: str, left: Any, right: Any) -> int:
    """At least the size of left operator right, where that can be much more than theirs."""
    if operator == "*":
        return _length(left) * _whole(right) + _length(right) * _whole(left)
    if operator == "**" and isinstance(left, int):
        return left.bit_length() * _whole(right)
    if operator == "%" and isinstance(left, str):
        return _widths(left, [right])
    return 0


def _growth(name: str, value: Any, args: Iterable[Any], kwargs: Mapping[str, Any]) -> int:
    """At least what a filter or a method makes of `value`, beyond the size of what it is given."""
    args = [*args, *kwargs.values()]
    whole = sum(_whole(arg) for arg in args)
    match name:
        case "replace" if isinstance(value, str) and len(args) > 1:
            return value.count(str(args[0])) * len(str(args[1]))
        case "join":
            return max(_length(value), 1) * max((_length(arg) for arg in args), default=1)
        case "format" | "format_map" if isinstance(value, str):
            return _widths(value, args)
        case "indent" | "expandtabs" | "wordwrap" if isinstance(value, str):
            widths = whole + sum(_length(arg) for arg in args)
            return widths * (1 + value.count("\n") + value.count("\t") + value.count(" "))
        case "tojson":
            return whole * len(repr(value)) if whole else 0
        case "urlize" | "striptags" | "title" | "wordcount":
            return _SLOW * _length(value)
    return whole


def _widths(form: str, args: Iterable[Any]) -> int:
    """The widest that "%9d" or "{:9}" may ask for, times the number of places."""
    widths = [*(int(digits) for digits in re.findall(r"\d{1,18}", form)), 0]
    places = form.count("%") + form.count("{")
    return places * (max(widths) + sum(_whole(arg) for arg in args))


def _length(value: Any) -> int:
    return len(value) if isinstance(value, str | list | tuple) else 0


def _whole(value: Any) -> int:
    if isinstance(value, list | tuple):
        return sum(_whole(item) for item in value)
    return abs(value) if isinstance(value, int) else 0
