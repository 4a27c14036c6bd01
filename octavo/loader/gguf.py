"""GGUF files, versions 2 and 3: metadata and tensors over one read-only mapping of the file.

Owns the byte layout, and distrusts every number in it: a count, a length or an offset is used only
once it is known to lie within the file. Knows no architecture and no tokenizer.

    0   "GGUF"   version u32   tensors u64   fields u64
    24  fields   key string, type u32, value       string  length u64, UTF-8 bytes
                                                   array   type u32, count u64, values
        tensors  name string, dimensions u32, columns u64, rows u64, ..., type u32, offset u64
        padding to a multiple of general.alignment
        data     a tensor's bytes begin at its offset from here, aligned too

Integers and floats are little-endian. Arrays and tensors are views of the mapping, which lives as
long as one of them does.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from mmap import ACCESS_READ, mmap
from pathlib import Path
from reprlib import repr as shown
from typing import Any

import numpy as np

from octavo.errors import BadCheckpoint
from octavo.registry import entry, names
from octavo.types import RawTensor, Tensor

MAGIC = b"GGUF"
VERSIONS = (2, 3)
DEFAULT_ALIGNMENT = 32
MAX_DIMENSIONS = 4

_U32, _BOOL, _STRING, _ARRAY, _U64 = 4, 7, 8, 9, 10
_NUMBERS = {
    number: np.dtype(code)
    for number, code in zip(
        (0, 1, 2, 3, _U32, 5, 6, _BOOL, _U64, 11, 12),
        ("u1", "i1", "<u2", "<i2", "<u4", "<i4", "<f4", "u1", "<u8", "<i8", "<f8"),
        strict=True,
    )
}
_LEAST_FIELD = 13  # bytes: an empty key, a type and a value of one byte
_LEAST_TENSOR = 32  # bytes: an empty name and one dimension

# fmt: off
_FORMATS = {  # as GGUF numbers them; the gaps are types that were withdrawn
    0: "f32", 1: "f16", 2: "q4_0", 3: "q4_1", 6: "q5_0", 7: "q5_1", 8: "q8_0", 9: "q8_1",
    10: "q2_k", 11: "q3_k", 12: "q4_k", 13: "q5_k", 14: "q6_k", 15: "q8_k",
    16: "iq2_xxs", 17: "iq2_xs", 18: "iq3_xxs", 19: "iq1_s", 20: "iq4_nl", 21: "iq3_s",
    22: "iq2_s", 23: "iq4_xs", 24: "i8", 25: "i16", 26: "i32", 27: "i64", 28: "f64",
    29: "iq1_m", 30: "bf16", 34: "tq1_0", 35: "tq2_0", 39: "mxfp4", 40: "nvfp4", 41: "q1_0",
}
# fmt: on


@dataclass(frozen=True, slots=True)
class Field:
    value: Any  # int, float, bool, str, list of str, or a read-only array of numbers
    offset: int  # of the value


@dataclass(frozen=True, slots=True)
class Described:
    tensor: RawTensor
    offset: int  # of the description, not of the data


class Fields:
    """Metadata, read one typed value at a time; None where the file does not have it."""

    def __init__(self, fields: Mapping[str, Field]) -> None:
        self._fields = fields

    def __contains__(self, key: str) -> bool:
        return key in self._fields

    def text(self, key: str) -> str | None:
        return self._read(key, (str,), "text")

    def flag(self, key: str) -> bool | None:
        return self._read(key, (bool,), "true or false")

    def texts(self, key: str) -> list[str] | None:
        return self._read(key, (list,), "an array of strings")

    def array(self, key: str) -> Tensor | None:
        return self._read(key, (np.ndarray,), "an array of numbers")

    def integer(self, key: str, low: int = 0, high: int = 2**31 - 1) -> int | None:
        """In [low, high]."""
        value = self._read(key, (int,), "a whole number")
        if value is not None and not low <= value <= high:
            raise self.wrong(key, f"not in [{low}, {high}]")
        return value

    def number(self, key: str) -> float | None:
        """Finite."""
        value = self._read(key, (int, float), "a number")
        if value is not None and not math.isfinite(value):
            raise self.wrong(key, "not finite")
        return None if value is None else float(value)

    def positive(self, key: str) -> float | None:
        """Finite and above 0."""
        value = self.number(key)
        if value is not None and value <= 0:
            raise self.wrong(key, "not above 0")
        return value

    def wrong(self, key: str, why: str) -> BadCheckpoint:
        field = self._fields[key]
        return BadCheckpoint(f"{key} is {shown(field.value)}, {why}", field.offset)

    def _read(self, key: str, kinds: tuple[type, ...], wanted: str) -> Any:
        if key not in self._fields:
            return None
        value = self._fields[key].value
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            raise self.wrong(key, f"not {wanted}")
        return value


@dataclass(frozen=True, slots=True)
class GGUF:
    fields: Fields
    tensors: Mapping[str, Described]  # by the file's own names


def read_gguf(path: Path) -> GGUF:
    """Raises BadCheckpoint, before anything is loaded, where the file is not whole and consistent
    or holds a tensor in a format that octavo/quant does not have."""
    with path.open("rb") as file:
        if not (size := file.seek(0, 2)):
            raise BadCheckpoint("the file is empty", 0)
        reader = _Reader(mmap(file.fileno(), size, access=ACCESS_READ))
    num_tensors, num_fields = reader.header()
    fields = reader.fields(num_fields)
    descriptions = reader.descriptions(num_tensors)
    start = reader.start_of_data(Fields(fields))
    return GGUF(Fields(fields), reader.tensors(descriptions, *start))


@dataclass(frozen=True, slots=True)
class _Description:
    name: str
    format: str
    shape: tuple[int, ...]  # rows before columns
    begin: int  # from the start of the data
    offset: int  # of the description

    @property
    def packed(self) -> tuple[int, int]:
        """Rows, and the bytes of one."""
        form = entry("octavo.quant", self.format)
        return math.prod(self.shape[:-1]), self.shape[-1] // form.BLOCK * form.BYTES


class _Reader:
    """A place in the file that only moves forward."""

    def __init__(self, data: mmap) -> None:
        self._data, self._at, self._size = data, 0, len(data)

    def header(self) -> tuple[int, int]:
        """Checks magic and version; returns the number of tensors and of fields."""
        if self._data[: self._take(4, "the magic number") + 4] != MAGIC:
            raise BadCheckpoint("the file does not begin with 'GGUF'", 0)
        version = self._number(_U32, "the version")
        if version and version & 0xFFFF == 0:
            raise BadCheckpoint("the file is big-endian, only little-endian GGUF is read", 4)
        if version not in VERSIONS:
            raise BadCheckpoint(f"the version is {version}, only {VERSIONS} are read", 4)
        tensors = self._number(_U64, "the number of tensors")
        fields = self._number(_U64, "the number of metadata fields")
        self._hold(fields, _LEAST_FIELD, "metadata fields")
        self._hold(tensors, _LEAST_TENSOR, "tensors")
        return tensors, fields

    def fields(self, count: int) -> dict[str, Field]:
        found: dict[str, Field] = {}
        for _ in range(count):
            start = self._at
            key = self._string("a metadata key")
            if key in found:
                raise BadCheckpoint(f"the metadata key {shown(key)} is there twice", start)
            kind = self._number(_U32, f"the type of {shown(key)}")
            start = self._at
            found[key] = Field(self._value(kind, key), start)
        return found

    def descriptions(self, count: int) -> list[_Description]:
        self._hold(count, _LEAST_TENSOR, "tensors")
        found: dict[str, _Description] = {}
        for _ in range(count):
            described = self._description()
            if described.name in found:
                raise BadCheckpoint(
                    f"the tensor {shown(described.name)} is there twice", described.offset
                )
            found[described.name] = described
        return list(found.values())

    def start_of_data(self, fields: Fields) -> tuple[int, int]:
        """Where the tensors' bytes begin, and the alignment."""
        key = "general.alignment"
        alignment = fields.integer(key) if key in fields else DEFAULT_ALIGNMENT
        if not alignment or alignment % 8 or alignment & (alignment - 1):
            raise fields.wrong(key, "not a power of two of at least 8")
        return -(-self._at // alignment) * alignment, alignment

    def tensors(
        self, descriptions: list[_Description], start: int, alignment: int
    ) -> dict[str, Described]:
        whole = np.frombuffer(self._data, np.uint8)
        free, found = 0, {}  # data before `free` is taken
        for described in sorted(descriptions, key=lambda described: described.begin):
            name, begin = shown(described.name), described.begin
            rows, row = described.packed
            if begin % alignment:
                raise BadCheckpoint(
                    f"the data of tensor {name} is at {begin}, not a multiple of {alignment}",
                    described.offset,
                )
            if begin < free:
                raise BadCheckpoint(
                    f"the data of tensor {name} overlaps another's", described.offset
                )
            free = begin + rows * row
            if start + free > self._size:
                raise BadCheckpoint(
                    f"the data of tensor {name} ends at byte {start + free} "
                    f"of a file of {self._size} bytes",
                    described.offset,
                )
            data = whole[start + begin : start + free].reshape(rows, row)
            raw = RawTensor(described.name, described.format, described.shape, data)
            found[described.name] = Described(raw, described.offset)
        return found

    def _description(self) -> _Description:
        start = self._at
        name = self._string("a tensor's name")
        what = f"tensor {shown(name)}"
        dimensions = self._number(_U32, f"the number of dimensions of {what}")
        if not 1 <= dimensions <= MAX_DIMENSIONS:
            raise BadCheckpoint(f"{what} has {dimensions} dimensions, not 1 to 4", start)
        sizes = [self._number(_U64, f"a dimension of {what}") for _ in range(dimensions)]
        form = self._format(what, start)
        begin = self._number(_U64, f"the offset of {what}")
        if 0 in sizes:
            raise BadCheckpoint(f"{what} has a dimension of 0", start)
        if sizes[0] % (block := entry("octavo.quant", form).BLOCK):
            raise BadCheckpoint(
                f"{what} has {sizes[0]} columns, {form} wants a multiple of {block}", start
            )
        return _Description(name, form, tuple(reversed(sizes)), begin, start)

    def _format(self, what: str, start: int) -> str:
        number = self._number(_U32, f"the type of {what}")
        form = _FORMATS.get(number, f"of the unknown type {number}")
        if form not in (known := names("octavo.quant")):
            raise BadCheckpoint(f"{what} is {form}, these are read: {', '.join(known)}", start)
        return form

    def _value(self, kind: int, key: str) -> Any:
        if kind == _STRING:
            return self._string(shown(key))
        if kind == _ARRAY:
            return self._array(key)
        return self._number(kind, shown(key))

    def _array(self, key: str) -> Any:
        kind = self._number(_U32, f"the item type of {shown(key)}")
        start, count = self._at, self._number(_U64, f"the length of {shown(key)}")
        if kind == _STRING:
            self._hold(count, 8, f"strings of {shown(key)}", start)
            return self._strings(count, key)
        return self._numbers(kind, count, shown(key))

    def _strings(self, count: int, key: str) -> list[str]:
        """A loop without calls of our own: vocabularies have hundreds of thousands."""
        data, at, end, integer = self._data, self._at, self._size, int.from_bytes
        found: list[str] = []
        append = found.append
        try:
            for _ in range(count):
                begin = at + 8
                at = begin + integer(data[at:begin], "little")
                if at > end:
                    break
                append(data[begin:at].decode())
        except UnicodeDecodeError:
            raise BadCheckpoint(
                f"string {len(found)} of {shown(key)} is not UTF-8", begin
            ) from None
        if len(found) < count:
            raise BadCheckpoint(f"string {len(found)} of {shown(key)} ends beyond the file", begin)
        self._at = at
        return found

    def _string(self, what: str) -> str:
        length = self._number(_U64, f"the length of {what}")
        start = self._take(length, what)
        try:
            return self._data[start : self._at].decode()
        except UnicodeDecodeError:
            raise BadCheckpoint(f"{what} is not UTF-8", start) from None

    def _number(self, kind: int, what: str) -> Any:
        value = self._numbers(kind, 1, what)[0].item()
        return bool(value) if kind == _BOOL else value

    def _numbers(self, kind: int, count: int, what: str) -> Tensor:
        if (dtype := _NUMBERS.get(kind)) is None:
            named = "an array of arrays" if kind == _ARRAY else f"of the unknown type {kind}"
            raise BadCheckpoint(f"{what} is {named}", self._at)
        start = self._take(count * dtype.itemsize, what)
        values = np.frombuffer(self._data, dtype, count, start)
        if kind == _BOOL and count and values.max() > 1:
            raise BadCheckpoint(f"{what} holds a boolean that is neither 0 nor 1", start)
        return values

    def _take(self, length: int, what: str) -> int:
        """Where the next `length` bytes begin; moves behind them."""
        start, left = self._at, self._size - self._at
        if length > left:
            raise BadCheckpoint(f"{what} takes {length} bytes, the file has {left} more", start)
        self._at += length
        return start

    def _hold(self, count: int, least: int, what: str, offset: int | None = None) -> None:
        if count * least > (left := self._size - self._at):
            raise BadCheckpoint(
                f"{count} {what} do not fit in the {left} bytes left",
                self._at if offset is None else offset,
            )
