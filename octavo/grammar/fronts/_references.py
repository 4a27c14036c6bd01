"""Where the references of a JSON Schema lead (draft 2020-12, sections 8.2 and 9.2; RFC 3986).

    {"$id": "http://a/b", "$defs": {"c": {"$anchor": "d"}}, "$ref": "b#d"}
    {"$defs": {"c": {}}, "$ref": "#/$defs/c"}

Each becomes a pointer from the root, so that whoever reads the schema finds the same. One that
leads out of the document, or to a place where no schema stands, is refused: what lies there was
not read, and nobody would be held to it.
"""

import re
from typing import Any, Final
from urllib.parse import urldefrag, urljoin, urlsplit

from octavo.errors import BadRequest
from octavo.grammar.fronts._places import Names, names_of, pointer, replaced, shown, subschemas
from octavo.types import Json

_ANCHOR: Final = re.compile(r"[A-Za-z_][-A-Za-z0-9._]*")
_NEVER_IN_URIS: Final = re.compile(r"[\x00-\x20\x7f\ud800-\udfff]")


def located(root: Json, field: str) -> Json:
    """The schema with all `$ref`s as pointers from its root, and without `$id` and `$anchor`.
    Raises BadRequest that names the keyword and where it stands."""
    return _Document(root, field).written()


class _Document:
    def __init__(self, root: Json, field: str) -> None:
        self._root, self._field = root, field
        self._places: dict[str, Names] = {"": ()}  # of URIs, with or without an anchor
        self._bases: dict[Names, str] = {}  # of every schema: the URI it is within
        self._note(root, (), "")

    def written(self) -> Json:
        written: Json = self._written(self._root, ())
        return written

    def _note(self, schema: Any, names: Names, base: str) -> None:
        if isinstance(schema, dict):
            base = self._named(schema, names, base)
            for inner, part in subschemas(schema):
                self._note(part, names + inner, base)
        self._bases[names] = base

    def _named(self, schema: Json, names: Names, base: str) -> str:
        """What references within `schema` are relative to."""
        draft = self._root.get("$schema")
        if schema.get("$schema", draft) != draft:
            raise self._refusal("$schema", names, "is not that of the root")
        if "$id" in schema:
            if "$ref" in schema and "draft-0" in str(draft):
                raise self._refusal("$id", names, "says nothing beside '$ref' in this draft")
            base, fragment = self._resolved("$id", schema["$id"], names, base)
            if fragment:
                raise self._refusal("$id", names, "has a fragment: give an $anchor instead")
            self._place(base, names, "$id")
        if "$anchor" in schema:
            if not _ANCHOR.fullmatch(str(schema["$anchor"])):
                raise self._refusal("$anchor", names, "is no name")
            self._place(f"{base}#{schema['$anchor']}", names, "$anchor")
        return base

    def _place(self, uri: str, names: Names, keyword: str) -> None:
        if self._places.setdefault(uri, names) != names:
            raise self._refusal(keyword, names, "is that of another schema, too")

    def _resolved(self, keyword: str, uri: Any, names: Names, base: str) -> tuple[str, str]:
        """(the URI, its fragment)."""
        try:
            if not isinstance(uri, str) or _NEVER_IN_URIS.search(uri):
                raise ValueError("no text, or not one of a URI")
            before, fragment = urldefrag(uri)
            whole = urljoin(base, before) if before else base
            if urlsplit(base).scheme and not urlsplit(whole).scheme:
                raise ValueError("relative to what has no parts")
        except ValueError:
            raise self._refusal(keyword, names, "is no URI, or not one beside its base") from None
        return whole, fragment

    def _written(self, schema: Any, names: Names) -> Any:
        if not isinstance(schema, dict):
            return schema
        parts = {inner: self._written(part, names + inner) for inner, part in subschemas(schema)}
        kept = {word: value for word, value in schema.items() if word not in ("$id", "$anchor")}
        if "$ref" in kept:
            kept["$ref"] = pointer(self._target(kept["$ref"], names, self._bases[names]))
        return replaced(kept, parts)

    def _target(self, reference: Any, names: Names, base: str) -> Names:
        uri, fragment = self._resolved("$ref", reference, names, base)
        is_pointer = not fragment or fragment.startswith("/")
        try:
            target = self._places[uri if is_pointer else f"{uri}#{fragment}"]
            target += names_of(fragment) if is_pointer else ()
            if target in self._bases:
                return target
        except (KeyError, ValueError):
            pass
        raise self._refusal(
            "$ref", names, f"leads to no schema of this document: {reference[:80]!r}"
        )

    def _refusal(self, word: str, names: Names, problem: str) -> BadRequest:
        return BadRequest(f"{word!r} at ${shown(names)} {problem}", self._field)
