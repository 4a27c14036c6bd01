"""What a model file may ask of a checkpoint, whatever its file format.

Owns the one vocabulary that models know, Hugging Face's: metadata as config.json names it, tensors
as transformers names them. How a file format says the same is a file in loader/dialects/.

Nothing in a checkpoint is dropped in silence: `Metadata` and `Weights` remember what was asked of
them, and `refuse_unread` names what an architecture left unread although it bears on the result.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from reprlib import repr as shown
from typing import Any, TypeVar

from octavo.errors import BadCheckpoint
from octavo.loader import hub
from octavo.loader.vocabulary import Vocabulary
from octavo.registry import entry, names
from octavo.types import RawTensor

T = TypeVar("T")
REQUIRED: Any = object()  # stands for "there is no default"


class Metadata:
    """config.json, read one typed field at a time. A default of None makes a field optional."""

    def __init__(
        self,
        fields: Mapping[str, Any],
        spelled: Mapping[str, str] | None = None,
        vital: Iterable[str] = (),
    ) -> None:
        """`spelled` says how the file itself calls a field, for errors; `vital` are the fields that
        change what the model computes, so that an architecture must ask for them."""
        self._fields, self._spelled = fields, spelled or {}
        self._vital, self._asked = frozenset(vital), set[str]()

    def __contains__(self, name: str) -> bool:
        return name in self._fields

    def integer(self, name: str, default: T = REQUIRED) -> int | T:
        return self._read(name, (int,), "a whole number", default)

    def number(self, name: str, default: T = REQUIRED) -> float | T:
        return self._read(name, (float, int), "a number", default)

    def text(self, name: str, default: T = REQUIRED) -> str | T:
        return self._read(name, (str,), "text", default)

    def numbers(self, name: str, default: T = REQUIRED) -> tuple[float, ...] | T:
        return self._read(name, (tuple,), "a list of numbers", default)

    def section(self, name: str) -> "Metadata | None":
        """The fields of a nested object, such as rope_scaling."""
        fields = self._read(name, (dict,), "an object", None)
        return None if fields is None else Metadata(fields, vital=fields)

    def require(self, **implemented: object) -> None:
        """Refuses a checkpoint that asks for what this architecture file does not implement."""
        for name, value in implemented.items():
            self._asked.add(name)
            if (found := self._fields.get(name, value)) != value:
                raise BadCheckpoint(
                    f"{self._called(name)} is {shown(found)}, only {value!r} is implemented"
                )

    def refuse_unread(self) -> None:
        for name in sorted(self._vital & self._fields.keys() - self._asked):
            raise BadCheckpoint(
                f"{self._called(name)} is {shown(self._fields[name])}, "
                "which Octavo does not implement for this architecture"
            )

    def _read(self, name: str, kinds: tuple[type, ...], wanted: str, default: Any) -> Any:
        self._asked.add(name)
        value = self._fields.get(name)
        if value is None:
            if default is REQUIRED:
                raise BadCheckpoint(f"the checkpoint does not say {self._called(name)}")
            return default
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise BadCheckpoint(f"{self._called(name)} is {shown(value)}, not {wanted}")
        return value

    def _called(self, name: str) -> str:
        return f"{name} ({self._spelled[name]})" if name in self._spelled else name


class Weights:
    """Tensors by name, without their ".weight"; a bias by its whole name, "q_proj.bias". `under`
    narrows to one layer, so no model ever assembles a long name."""

    def __init__(
        self, tensors: Mapping[str, RawTensor], load: Callable[[RawTensor], Any], prefix: str = ""
    ) -> None:
        """`load` is the home's: it brings a tensor into the form that its ops take."""
        self._tensors, self._load, self._prefix = tensors, load, prefix
        self._asked: set[str] = set()

    def under(self, name: str) -> "Weights":
        narrowed = Weights(self._tensors, self._load, f"{self._prefix}{name}.")
        narrowed._asked = self._asked
        return narrowed

    def __getitem__(self, name: str) -> Any:
        """Raises BadCheckpoint where the tensor is missing."""
        if (key := self._key(name)) not in self._tensors:
            raise BadCheckpoint(f"tensor {key!r} is missing")
        return self.get(name)

    def get(self, name: str) -> Any:
        """None where the tensor is missing."""
        key = self._key(name)
        self._asked.add(key)
        return self._load(self._tensors[key]) if key in self._tensors else None

    def refuse_unread(self) -> None:
        if left := sorted(self._tensors.keys() - self._asked):
            others = f" and {len(left) - 1} more" if len(left) > 1 else ""
            raise BadCheckpoint(
                f"tensor {left[0]!r}{others} would not be used, so the model would not be itself"
            )

    def _key(self, name: str) -> str:
        return self._prefix + (name if name.endswith(".bias") else f"{name}.weight")


@dataclass(frozen=True, slots=True)
class Checkpoint:
    path: Path
    metadata: Metadata
    tensors: Mapping[str, RawTensor]  # empty in a file that holds a vocabulary only
    vocabulary: Vocabulary | None
    chat_template: str | None = None  # Jinja
    name: str | None = None
    license: str | None = None


def open_checkpoint(path: Path | str) -> Checkpoint:
    """Maps the file; no tensor is read yet. Raises BadCheckpoint, with the file's name and what to
    do about it."""
    path = Path(path)
    try:
        return _open(path)
    except OSError as error:
        problem = f"{path}: it cannot be read ({error.strerror}); {hub.remedy(path)}"
        raise BadCheckpoint(problem) from error
    except BadCheckpoint as error:
        error.args = (f"{path}: {error}; {hub.remedy(path)}",)  # and the offset as it was
        raise


def _open(path: Path) -> Checkpoint:
    if not path.is_file():
        raise BadCheckpoint("it is not a file")
    dialects = names("octavo.loader.dialects")
    for name in dialects:
        dialect = entry("octavo.loader.dialects", name)
        if dialect.speaks(path):
            return dialect.open_file(path)
    raise BadCheckpoint(f"it is in no format that is read ({', '.join(dialects)})", 0)
