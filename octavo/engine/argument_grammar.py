"""The arguments of a call as a grammar: a JSON Schema in the notation of a dialect.

JSON itself is llguidance's, and so is every value that Python's keywords have. Gemma's notation is
written here, as far as it has words for a schema; what it has none for is refused by name and path.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Any, TypeAlias

from octavo.engine.notations import ENDS_BARE, Notation
from octavo.engine.tools import MAX_TOOLS
from octavo.errors import BadRequest
from octavo.grammar.fronts._keywords import ANNOTATIONS, NEUTRAL
from octavo.grammar.fronts._places import names_of, references, shown
from octavo.grammar.fronts._references import located
from octavo.grammar.fronts.json_schema import enforceable
from octavo.types import Json, Tool

MOST_CHARACTERS = 1 << 18  # of a schema as JSON
REMEMBERED = 1 << 13  # characters of a schema whose check is remembered
NO_VALUE = "no value is allowed, change what it says"
NO_TYPE = "give it a type"
ONLY_SHARED = "only what is in $defs can be pointed to, put it there"
_SHARED = ("$defs", "definitions")
_UNSPOKEN = frozenset({"$schema", "$id", *_SHARED})
_TYPES: Mapping[str, Any] = {
    "string": str,
    "integer": (int, float),
    "number": (int, float),
    "boolean": bool,
    "null": type(None),
    "array": list,
    "object": dict,
}
_OF_OBJECTS = frozenset({"type", "properties", "required", "additionalProperties"})
_OPENS = frozenset(  # keywords by which there may be, or must be, other properties
    {"additionalProperties", "unevaluatedProperties", "patternProperties", "minProperties"}
    | {"allOf", "anyOf", "oneOf", "$ref"}
)
_NEVER_BARE = ENDS_BARE | frozenset("<>\"'")

Value: TypeAlias = Callable[[Any, str], str]  # (schema, path) -> a Lark expression


def opening(notation: Notation) -> str:
    """What comes before `rule`_rest: nothing in JSON, whose brackets are within."""
    return notation.brackets[0] if notation.bare_names else ""


class Parts:
    """Rules for parts of arguments, of all tools: parts that are written alike share one."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._new: list[str] = []

    def named(self, body: str) -> str:
        """The name of the rule that has this body."""
        if (name := self._names.get(body)) is None:
            name = self._names[body] = f"part_{len(self._names)}"
            self._new.append(f"{name}: {body}")
        return name

    def new_rules(self) -> Iterable[str]:
        """Those made since the last call."""
        new, self._new = self._new, []
        return new


def arguments_rules(
    rule: str, tool: Tool, notation: Notation, quote: str, parts: Parts
) -> Iterable[str]:
    """Two rules, and those they need: `rule` is all arguments, `rule`_rest what follows `opening`.
    `quote` is the notation's, as a Lark expression. Raises BadRequest."""
    bracket = opening(notation)
    yield f"{rule}: {json.dumps(bracket) if bracket else ''} {rule}_rest"
    if not notation.bare_names:
        yield f"{rule}_rest: {parts.named(_json(_closed(tool.parameters), tool.field))}"
        yield from parts.new_rules()
        return
    _json(tool.parameters, tool.field)  # checks it, so that what follows reads a sound schema
    writer = _Writer(rule, tool, notation, quote, parts)
    value = writer.gemma if notation.bare_keys else writer.python
    body = writer.pairs(writer.root, tool.field, value, ends_name=notation.ends_name)
    yield f"{rule}_rest: {body} {json.dumps(notation.brackets[1])}"
    yield from writer.rules
    yield from parts.new_rules()


def _fits(value: Any, kind: Any) -> bool:
    """`kind`: a type, several, or None for any."""
    kinds = [kind] if isinstance(kind, str) else kind or _TYPES
    return any(_is_of_type(value, one) for one in kinds if one in _TYPES)


def _is_of_type(value: Any, kind: str) -> bool:
    if not isinstance(value, _TYPES[kind]) or isinstance(value, bool) != (kind == "boolean"):
        return False
    return kind != "integer" or value % 1 == 0  # 1.0 is one


def _said(schema: Json) -> Json:
    """Without the keywords that say nothing of a value, and what others may refer to."""
    return {word: value for word, value in schema.items() if _matters(word, value)}


def _matters(word: str, value: Any) -> bool:
    if word in ANNOTATIONS or word in _UNSPOKEN or word.startswith("x-"):
        return False
    return not (word in NEUTRAL and value is NEUTRAL[word])


def _closed(schema: Json) -> Json:
    """A schema that lists properties and says nothing of others means these: small models would
    invent more."""
    properties = schema.get("properties")
    if not isinstance(properties, dict) or schema.keys() & _OPENS:
        return schema
    required = schema.get("required", [])
    if not isinstance(required, list):
        return schema
    are_listed = all(isinstance(name, str) and name in properties for name in required)
    return schema | {"additionalProperties": False} if are_listed else schema


def _json(schema: Any, field: str) -> str:
    text = json.dumps(schema)
    if len(text) > MOST_CHARACTERS:
        problem = f"{len(text)} characters are more than {MOST_CHARACTERS}, shorten it"
        raise BadRequest(problem, field)
    try:
        return _remembered(text) if len(text) <= REMEMBERED else _checked(text)
    except BadRequest as error:
        raise BadRequest(error.problem, field) from None


def _checked(schema: str) -> str:
    return "%json " + json.dumps(enforceable(json.loads(schema), "schema"))


_remembered = lru_cache(2 * MAX_TOOLS)(_checked)  # a client sends its tools with every turn


class _Writer:
    def __init__(self, rule: str, tool: Tool, notation: Notation, quote: str, parts: Parts) -> None:
        self._rule, self.root, self._where = rule, located(tool.parameters, tool.field), tool.field
        self._shared = {name: self.root[name] for name in _SHARED if name in self.root}
        self._num_shared, self._num_repeated = len(json.dumps(self._shared)), 0  # characters
        self._notation, self._quote, self._parts = notation, quote, parts
        self._named: dict[str, str] = {}  # what a $ref points to -> its rule
        self.rules: list[str] = []

    def pairs(self, schema: Json, path: str, value: Value, *, ends_name: str) -> str:
        """The properties in their order, of which those that are not required may be left out; no
        others."""
        _refuse_others(schema, _OF_OBJECTS, path)
        properties: Mapping[str, Any] = schema.get("properties", {})
        required = set(schema.get("required", ()))
        if missing := required - properties.keys():
            raise _unspeakable(f"{path}.required", f"{min(missing)!r} is none of the properties")
        pairs = []
        for name, inner in properties.items():
            where = f"{path}.properties.{name}"
            _check_bare(name, where)
            pair = f"{json.dumps(name + ends_name)} {value(inner, where)}"
            pairs.append((self._parts.named(pair), name in required))
        return self._in_order(pairs)

    def _in_order(self, pairs: Sequence[tuple[str, bool]]) -> str:
        """Built from the last pair to the first. `begun`: what may follow, once a pair is written;
        `firsts`: what may begin, where none is, which a required pair lets nothing after it do."""
        comma = json.dumps("," + self._notation.space)
        begun = '""'
        firsts = [begun]
        for pair, is_required in reversed(pairs):
            more, first = f"{comma} {pair} {begun}", f"{pair} {begun}"
            firsts = [first] if is_required else [*firsts, first]
            begun = self._parts.named(more if is_required else f"{more} | {begun}")
        return self._either(reversed(firsts))

    def python(self, schema: Any, path: str) -> str:
        """JSON, but for True, False and None, where a type says no more than that it is one of
        them. Elsewhere, as within lists, they are true, false and null, which are read as well."""
        said = _said(schema) if isinstance(schema, dict) else {}
        if said.keys() == {"anyOf"}:
            options = enumerate(said["anyOf"])
            return self._either(self.python(one, f"{path}.anyOf[{i}]") for i, one in options)
        if said == {"type": "boolean"}:
            return '("True" | "False")'
        if said == {"type": "null"}:
            return '"None"'
        return self._as_json(schema, path)

    def _as_json(self, schema: Any, path: str) -> str:
        """A part of the root as a schema of its own. What the root shares comes with it, so that
        references lead where they did; one that leads elsewhere would not, and is refused."""
        if isinstance(schema, dict):  # without descriptions more parts are alike
            schema = _said(schema)
        if any(references(schema)):
            schema = schema | self._shared
            self._num_repeated += self._num_shared
        if self._num_repeated > MOST_CHARACTERS:
            problem = (
                f"$defs, written once for each argument that refers to it, are more than "
                f"{MOST_CHARACTERS} characters: shorten them, or refer to them less often"
            )
            raise _unspeakable(path, problem)
        for names, target in references(schema):
            if not target.startswith(("#/$defs/", "#/definitions/")):
                where = self._where if names and names[0] in self._shared else path
                raise _unspeakable(f"{where}{shown(names)}.$ref", ONLY_SHARED)
        return self._parts.named(_json(schema, path))

    def gemma(self, schema: Any, path: str) -> str:
        if not isinstance(schema, dict):
            raise _unspeakable(path, NO_TYPE)
        if "$ref" in schema:
            return self._pointed_to(schema, path)
        if "anyOf" in schema:
            _refuse_others(schema, {"anyOf"}, path)
            options = enumerate(schema["anyOf"])
            return self._either(self.gemma(inner, f"{path}.anyOf[{i}]") for i, inner in options)
        if "enum" in schema or "const" in schema:
            return self._one_of(schema, path)
        kind = schema.get("type")
        if isinstance(kind, list):
            kinds = ({**schema, "type": one} for one in kind)
            return self._either(self.gemma(one, path) for one in kinds)
        return self._of_type(kind, schema, path)

    def _of_type(self, kind: Any, schema: Json, path: str) -> str:
        match kind:
            case "object":
                pairs = self.pairs(schema, path, self.gemma, ends_name=":")
                return f'"{{" {pairs} "}}"'
            case "array":
                return self._array(schema, path)
            case "string":
                _refuse_others(schema, {"type", "minLength", "maxLength"}, path)
                least, most = _range(schema, "minLength", "maxLength", path)
                times = f"{least},{'' if most is None else most}"
                return f"{self._quote} /(?s:[^<]){{{times}}}/ {self._quote}"
            case "number" | "integer" | "boolean" | "null":
                return self._as_json(schema, path)
        raise _unspeakable(path, NO_TYPE)

    def _array(self, schema: Json, path: str) -> str:
        _refuse_others(schema, {"type", "items", "minItems", "maxItems"}, path)
        item = self._parts.named(self.gemma(schema.get("items", {}), f"{path}.items"))
        least, most = _range(schema, "minItems", "maxItems", path)
        if most == 0:
            return '"[]"'
        items = item
        if most != 1:
            items += f' ("," {item}){{{max(least - 1, 0)},{"" if most is None else most - 1}}}'
        items = items if least else f"({items})?"
        return f'"[" {items} "]"'

    def _one_of(self, schema: Json, path: str) -> str:
        _refuse_others(schema, {"enum", "const", "type"}, path)
        values, keyword = schema.get("enum", [schema.get("const")]), "enum"
        if "const" in schema:
            only, keyword = json.dumps(schema["const"]), "const"  # 1 is not true
            values = [value for value in values if json.dumps(value) == only]
        fitting = [value for value in values if _fits(value, schema.get("type"))]
        if not fitting:
            raise _unspeakable(path, NO_VALUE)
        self._check_literal(fitting, f"{path}.{keyword}")
        return self._either(map(self._literal, fitting))

    def _pointed_to(self, schema: Json, path: str) -> str:
        _refuse_others(schema, {"$ref"}, path)
        ref = schema["$ref"]
        if ref not in self._named:
            keyword, *names = names_of(ref) or ("",)
            if keyword not in _SHARED or len(names) != 1:
                raise _unspeakable(f"{path}.$ref", ONLY_SHARED)
            place = self._named[ref] = f"{self._rule}_ref_{len(self._named)}"
            shared, where = self._shared[keyword][names[0]], f"{self._where}.{keyword}.{names[0]}"
            self.rules.append(f"{place}: {self.gemma(shared, where)}")
        return self._named[ref]

    def _check_literal(self, value: Any, path: str) -> None:
        """Raises BadRequest for a text with the quote in it, and for a key that needs quotes."""
        match value:
            case str() if self._notation.quotes[0] in value:
                problem = f"{value[:80]!r} cannot be written between two {self._notation.quotes[0]}"
                raise _unspeakable(path, problem)
            case list():
                for item in value:
                    self._check_literal(item, path)
            case dict():
                for key, item in value.items():
                    _check_bare(key, path)
                    self._check_literal(item, path)

    def _literal(self, value: Any) -> str:
        parts = self._notation.value(value).split(self._notation.quotes[0])
        return f" {self._quote} ".join(json.dumps(part) if part else "" for part in parts)

    def _either(self, options: Iterable[str]) -> str:
        return "(" + " | ".join(options) + ")"


def _range(schema: Json, low: str, high: str, path: str) -> tuple[int, int | None]:
    least, most = schema.get(low, 0), schema.get(high)
    if most is not None and least > most:
        raise _unspeakable(path, NO_VALUE)
    return least, most


def _refuse_others(schema: Json, known: Iterable[str], path: str) -> None:
    for keyword in _said(schema).keys() - set(known):
        problem = "the model's way of writing arguments cannot be held to it, leave it out"
        raise _unspeakable(f"{path}.{keyword}", problem)


def _check_bare(name: str, path: str) -> None:
    if not name or _NEVER_BARE & set(name):
        raise _unspeakable(path, f"the name {name[:80]!r} cannot be written without quotes")


def _unspeakable(path: str, problem: str) -> BadRequest:
    return BadRequest(problem, path)
