"""The reader against files of the `gguf` package, and against files that nobody should trust."""

import gc
import struct
import time
import tracemalloc

import gguf
import numpy as np
import pytest
from checkpoints import ALL_FORMATS, write_tiny
from examples import examples
from hypothesis import HealthCheck, example, given
from hypothesis import strategies as st

from octavo.errors import BadCheckpoint
from octavo.loader.checkpoint import Weights, open_checkpoint
from octavo.loader.gguf import read_gguf
from octavo.registry import entry

U8, U32, I32, F32, BOOL, STRING, ARRAY, U64 = 0, 4, 5, 6, 7, 8, 9, 10


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return write_tiny(tmp_path_factory.mktemp("gguf") / "tiny.gguf", formats=ALL_FORMATS)


def test_fields_and_tensors_are_what_gguf_reads(tiny):
    ours, theirs = read_gguf(tiny), gguf.GGUFReader(tiny)
    for name, field in theirs.fields.items():
        if not name.startswith("GGUF."):  # the header's numbers
            value, kinds = field.contents(), [kind.name for kind in field.types]
            assert plain(ours.fields, name, kinds) == value
    assert ours.tensors.keys() == {tensor.name for tensor in theirs.tensors}
    for tensor in theirs.tensors:
        raw = ours.tensors[tensor.name].tensor
        assert raw.format == tensor.tensor_type.name.lower()
        assert raw.shape == tuple(reversed(tensor.shape.tolist()))
        assert raw.data.tobytes() == tensor.data.tobytes()


def plain(fields, name, kinds):
    """The field's value as Python's own types."""
    if kinds == ["ARRAY", "STRING"]:
        return fields.texts(name)
    if kinds[0] == "ARRAY":
        return fields.array(name).tolist()
    read = {"STRING": fields.text, "BOOL": fields.flag, "FLOAT32": fields.number}
    return read.get(kinds[0], fields.integer)(name)


def test_nothing_is_copied_and_the_mapping_outlives_the_reader(tiny):
    raw = read_gguf(tiny).tensors["token_embd.weight"].tensor
    gc.collect()
    assert not raw.data.flags.owndata
    assert not raw.data.flags.writeable
    assert raw.data.tobytes() in tiny.read_bytes()


def test_version_2_is_read_like_version_3(tiny, tmp_path):
    content = bytearray(tiny.read_bytes())
    content[4] = 2
    old = read_gguf(write(tmp_path, content))
    assert old.tensors.keys() == read_gguf(tiny).tensors.keys()


@pytest.mark.thorough
def test_a_quarter_of_a_million_strings_take_less_than_half_a_second(tmp_path):
    words = b"".join(string(b"token %d" % i) for i in range(262_144))
    tokens = field("tokens", ARRAY, struct.pack("<IQ", STRING, 262_144) + words)
    path = write(tmp_path, header(0, 1) + tokens)
    start = time.process_time()  # a neighbour's work is not ours
    assert read_gguf(path).fields.texts("tokens")[-1] == "token 262143"
    assert time.process_time() - start < 0.5


# A small file, by hand: two tensors of one row of 8 floats each, in 32 aligned bytes.


def string(text):
    text = text.encode() if isinstance(text, str) else text
    return struct.pack("<Q", len(text)) + text


def header(num_tensors, num_fields, version=3):
    return b"GGUF" + struct.pack("<IQQ", version, num_tensors, num_fields)


def field(key, kind, value):
    return string(key) + struct.pack("<I", kind) + value


def described(name, sizes=(8,), kind=0, offset=0):
    dimensions = struct.pack(f"<I{len(sizes)}Q", len(sizes), *sizes)
    return string(name) + dimensions + struct.pack("<IQ", kind, offset)


NAME = field("general.name", STRING, string("x"))
START = len(header(0, 0))


def with_fields(*fields):
    return header(0, len(fields)) + b"".join(fields)


def with_tensors(*tensors, fields=(), data=64, alignment=32):
    content = header(len(tensors), len(fields)) + b"".join(fields) + b"".join(tensors)
    return content + bytes(-len(content) % alignment) + bytes(data)


def aligned_to(number):
    return field("general.alignment", U32, struct.pack("<I", number))


ONE, TWO = described("one"), described("two", offset=32)
A_LENGTH = struct.pack("<Q", 2**63)

# name: (content, a part of the message, the offset it names)
HOSTILE = {
    "nothing": (b"", "in no format", 0),
    "another format": (b"GGML" + bytes(60), "in no format", 0),
    "cut in the magic": (b"GGU", "in no format", 0),
    "cut in the header": (header(0, 0)[:20], "the number of metadata fields takes 8 bytes", 16),
    "version 1": (header(0, 0, version=1), "the version is 1, only (2, 3)", 4),
    "version 4": (header(0, 0, version=4), "the version is 4", 4),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian", 4),
    "absurdly many fields": (header(0, 2**62), "metadata fields do not fit in the 0 bytes", START),
    "absurdly many tensors": (header(2**62, 0), "tensors do not fit in the 0 bytes", START),
    "a key beyond the end": (header(0, 1) + A_LENGTH + bytes(9), "a metadata key takes", START + 8),
    "a key that is no text": (with_fields(field(b"\xff", BOOL, b"\1")), "not UTF-8", START + 8),
    "a key twice": (with_fields(NAME, NAME), "'general.name' is there twice", START + len(NAME)),
    "an unknown type": (with_fields(field("key", 13, bytes(8))), "'key' is of the unknown", 39),
    "a boolean of 2": (with_fields(field("key", BOOL, b"\2")), "neither 0 nor 1", 39),
    "a string beyond the end": (with_fields(field("key", STRING, A_LENGTH)), "'key' takes", 47),
    "a string that is no text": (
        with_fields(field("key", STRING, string(b"\xc3\x28"))),
        "'key' is not UTF-8",
        47,
    ),
    "an array beyond the end": (
        with_fields(field("key", ARRAY, struct.pack("<IQ", F32, 2**61) + bytes(8))),
        "'key' takes 9223372036854775808 bytes",
        51,
    ),
    "an array of arrays": (
        with_fields(field("key", ARRAY, struct.pack("<IQIQ", ARRAY, 1, U8, 0))),
        "'key' is an array of arrays",
        51,
    ),
    "an array of a type unknown": (
        with_fields(field("key", ARRAY, struct.pack("<IQ", 99, 1) + bytes(8))),
        "unknown type 99",
        51,
    ),
    "absurdly many strings": (
        with_fields(field("key", ARRAY, struct.pack("<IQ", STRING, 2**60) + string("a"))),
        "strings of 'key' do not fit",
        43,
    ),
    "an item beyond the end": (
        with_fields(field("key", ARRAY, struct.pack("<IQ", STRING, 2) + string("a") + A_LENGTH)),
        "string 1 of 'key' ends beyond the file",
        68,
    ),
    "an item that is no text": (
        with_fields(
            field("key", ARRAY, struct.pack("<IQ", STRING, 2) + string("a") + string(b"\xe0"))
        ),
        "string 1 of 'key' is not UTF-8",
        68,
    ),
    "a tensor twice": (with_tensors(ONE, ONE), "'one' is there twice", START + len(ONE)),
    "a tensor's name beyond the end": (
        header(1, 0) + A_LENGTH + bytes(40),
        "name takes",
        START + 8,
    ),
    "no dimensions": (with_tensors(described("one", ())), "0 dimensions", START),
    "five dimensions": (with_tensors(described("one", (8, 1, 1, 1, 1))), "5 dimensions", START),
    "absurd dimensions": (header(1, 0) + string("a") + b"\xff" * 40, "4294967295 dim", START),
    "a dimension of 0": (with_tensors(described("one", (8, 0))), "dimension of 0", START),
    "dimensions that overflow": (
        with_tensors(described("one", (2**62, 2**62))),
        "ends at byte",
        START,
    ),
    "half a block": (with_tensors(described("one", (48,), 2)), "48 columns, q4_0 wants", START),
    "a format not read": (
        with_tensors(described("one", (32,), 20)),
        "'one' is iq4_nl, these",
        START,
    ),
    "a format unknown": (with_tensors(described("one", (32,), 77)), "unknown type 77", START),
    "data beyond the end": (
        with_tensors(ONE, TWO, data=32),
        "'two' ends at byte",
        START + len(ONE),
    ),
    "an offset beyond the end": (
        with_tensors(ONE, described("two", offset=2**63)),
        "'two' ends at byte",
        START + len(ONE),
    ),
    "data that overlap": (
        with_tensors(described("one", (16,)), TWO),
        "'two' overlaps",
        START + len(described("one", (16,))),
    ),
    "data unaligned": (with_tensors(described("one", offset=8)), "not a multiple of 32", START),
    "an alignment of 24": (with_tensors(ONE, fields=[aligned_to(24)]), "is 24, not a power", 53),
    "an alignment of 0": (with_tensors(ONE, fields=[aligned_to(0)]), "is 0, not a power", 53),
    "an alignment in words": (
        with_tensors(ONE, fields=[field("general.alignment", STRING, string("32"))]),
        "is '32', not a whole number",
        53,
    ),
    "an alignment beyond the end": (
        with_tensors(ONE, fields=[aligned_to(2**30)]),
        "'one' ends at byte 1073741856",
        START + len(aligned_to(0)),
    ),
    "an unknown architecture": (
        with_tensors(ONE, fields=[field("general.architecture", STRING, string("lama"))]),
        "general.architecture is 'lama', these are served: gemma3",
        56,
    ),
    "no architecture": (with_tensors(ONE), "no general.architecture", None),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_file_is_refused_by_field_and_byte(name, tmp_path):
    content, words, offset = HOSTILE[name]
    with pytest.raises(BadCheckpoint) as refused:
        open_checkpoint(write(tmp_path, content))
    assert words in str(refused.value)
    assert refused.value.offset == offset


def test_the_file_made_by_hand_is_read_where_nothing_is_wrong_with_it(tmp_path):
    path = write(tmp_path, with_tensors(ONE, TWO, fields=[NAME]))
    assert read_gguf(path).tensors.keys() == {"one", "two"}
    assert read_gguf(path).tensors["two"].tensor.shape == (8,)


def test_a_wider_alignment_is_kept(tmp_path):
    tensors = ONE, described("two", offset=64)
    content = with_tensors(*tensors, fields=[aligned_to(64)], data=96, alignment=64)
    content = content[:-32] + np.arange(8, dtype="<f4").tobytes()
    raw = read_gguf(write(tmp_path, content)).tensors["two"].tensor
    assert raw.data.view(np.float32).tolist() == [[0, 1, 2, 3, 4, 5, 6, 7]]


def test_an_empty_file_is_refused(tmp_path):
    with pytest.raises(BadCheckpoint, match="the file is empty"):
        read_gguf(write(tmp_path, b""))


def test_what_is_not_a_file_is_refused(tmp_path):
    for path in (tmp_path, tmp_path / "missing.gguf"):
        with pytest.raises(BadCheckpoint, match="is not a file"):
            open_checkpoint(path)


# Bytes changed anywhere: what comes out is a checkpoint or BadCheckpoint, for memory that the file
# justifies: the smallest tensor takes 32 bytes there, and here a view, a name and three dicts.
MEMORY_PER_BYTE, MEMORY = 64, 2**20

changes = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.one_of(
            st.binary(min_size=1, max_size=1),
            st.sampled_from([2**63, 2**64 - 1, 2**32, 2**31, 2**20, 0, 1]).map(
                struct.Struct("<Q").pack
            ),
        ),
    ),
    min_size=1,
    max_size=4,
)


@pytest.mark.thorough
@examples(300, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(changes=changes, kept=st.floats(0, 1), is_cut=st.booleans())
@example(changes=[(0.0, b"G")], kept=1.0, is_cut=False)
def test_changed_bytes_are_refused_or_harmless(tiny_head, tmp_path, changes, kept, is_cut):
    content, described_end = bytearray(tiny_head[0]), tiny_head[1]
    for place, patch in changes:
        at = int(place * described_end)
        content[at : at + len(patch)] = patch
    if is_cut:
        content = content[: int(kept * len(content))]
    opens_or_is_refused(write(tmp_path, content))


@examples(200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(tail=st.binary(max_size=200), tensors=st.integers(0, 3), fields=st.integers(0, 3))
def test_random_bytes_behind_a_header_are_refused(tmp_path, tail, tensors, fields):
    opens_or_is_refused(write(tmp_path, header(tensors, fields) + tail))


@pytest.mark.thorough
@pytest.mark.parametrize("kind", [STRING, ARRAY])
def test_a_small_file_of_many_fields_takes_no_more_memory_than_it_justifies(tmp_path, kind):
    value = string("") if kind == STRING else struct.pack("<IQ", STRING, 0)
    fields = [field(f"{i:x}", kind, value) for i in range(5_000)]
    opens_or_is_refused(write(tmp_path, with_fields(*fields)), opening=read_gguf)


def test_a_small_file_of_many_tensors_takes_no_more_memory_than_it_justifies(tmp_path):
    tensors = [described(f"{i:x}", (1,), offset=32 * i) for i in range(2_000)]
    path = write(tmp_path, with_tensors(*tensors, data=32 * 2_000))
    opens_or_is_refused(path, opening=read_gguf)


@pytest.fixture(scope="module")
def tiny_head(tiny):
    """A checkpoint with little in it that is not structure, and where its weights begin."""
    few = {"tokens": list("abcd"), "token_type": [3, 3, 3, 1], "merges": ["a b"]}
    fields = {f"tokenizer.ggml.{name}": value for name, value in few.items()}
    fields["tokenizer.chat_template"] = ""
    path = tiny.parent / "head.gguf"
    write_tiny(path, layers=1, formats="q2_k", tied=False, metadata=fields)
    first = min(tensor.data_offset for tensor in gguf.GGUFReader(path).tensors)
    return path.read_bytes(), first


def build(path):
    """As far as a checkpoint goes without arithmetic."""
    checkpoint = open_checkpoint(path)
    model = entry("octavo.models", checkpoint.metadata.text("model_type"))
    config = model.Config.read(checkpoint.metadata)
    model.Model(config, Weights(checkpoint.tensors, load=lambda raw: raw))


def opens_or_is_refused(path, opening=build):
    offset = None
    tracemalloc.start()
    try:
        opening(path)
    except BadCheckpoint as refused:
        offset = refused.offset
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert offset is None or 0 <= offset <= path.stat().st_size
    assert peak < MEMORY + MEMORY_PER_BYTE * path.stat().st_size


def write(folder, content):
    path = folder / "file.gguf"
    path.write_bytes(content)
    return path
