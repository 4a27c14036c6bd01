"""Flags out of dataclass fields: name, type, default and the comment beside the field.

So an option is written once, where it is defined; the command line follows.
"""

import inspect
import re
from collections.abc import Callable
from dataclasses import MISSING, Field, fields
from functools import wraps
from types import UnionType
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from octavo.cli._words import parse_size

PARSERS = {"memory": parse_size}  # fields whose values people write in their own way


def flags(parameter: str, kind: type, *, leave: set[str], **defaults: object) -> Callable[..., Any]:
    """Decorates a command: in place of `parameter` it takes one flag per field of the dataclass
    `kind`, except those it is told to `leave`, and is called with the chosen values by name.

    `defaults` are the command's own where they differ from the dataclass's.
    """
    chosen = [field for field in fields(kind) if field.name not in leave]
    hints, helps = get_type_hints(kind), comments(kind)
    options = [
        inspect.Parameter(
            field.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=_listed(defaults.get(field.name, _default(field))),
            annotation=_option(field.name, hints[field.name], _help(helps, field, defaults)),
        )
        for field in chosen
    ]

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @wraps(command)
        def with_flags(*args: Any, **kwargs: Any) -> None:
            values = {field.name: _frozen(kwargs.pop(field.name)) for field in chosen}
            command(*args, **kwargs, **{parameter: values})

        signature = inspect.signature(command)
        others = [own for own in signature.parameters.values() if own.name != parameter]
        with_flags.__signature__ = signature.replace(parameters=others + options)  # type: ignore[attr-defined]
        with_flags.__annotations__ = {one.name: one.annotation for one in others + options}
        return with_flags

    return decorate


def comments(kind: type) -> dict[str, str]:
    """What stands beside each field: "    top_p: float = 1.0  # keep the likeliest ..." """
    lines = re.findall(r"^    (\w+): .*?  # (.*)$", inspect.getsource(kind), re.MULTILINE)
    return {name: comment[:1].upper() + comment[1:] + "." for name, comment in lines}


def _help(helps: dict[str, str], field: Field[Any], defaults: dict[str, object]) -> str:
    """A field's comment may end in "None: MEANING": that is shown as what happens if the flag is
    not given, unless the command has a default of its own, which is then never None."""
    about, none, meaning = helps.get(field.name, "").partition("None: ")
    if not none:
        return about
    if field.name in defaults:
        return about.rstrip("; ") + "."
    return f"{about}{'if' if about else 'If'} not given: {meaning}"


def _default(field: Field[Any]) -> Any:
    return field.default if field.default_factory is MISSING else field.default_factory()


def _option(name: str, hint: Any, comment: str) -> Any:
    extra: dict[str, Any] = {"help": comment}
    if name in PARSERS:
        extra |= {"parser": PARSERS[name], "metavar": "SIZE"}
    return Annotated[_typers(hint), typer.Option(**extra)]


def _typers(hint: Any) -> Any:
    """typer reads a repeated flag into a list; a missing one is None."""
    if hint is Any:
        return str | None  # a schema, which Python may give in other forms too
    if get_origin(hint) is tuple:
        return list[get_args(hint)[0]]  # type: ignore[misc]
    if isinstance(hint, UnionType):
        one = next(one for one in get_args(hint) if one is not type(None))
        return _typers(one) | None
    return hint


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _frozen(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value
