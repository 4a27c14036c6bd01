"""Streaming text: however tokens and stop strings fall, what is shown is the whole text's start."""

import pytest
from examples import examples
from hypothesis import given
from hypothesis import strategies as st

from octavo.engine.text import TextStream
from octavo.loader.tokenizer import Tokenizer
from octavo.loader.vocabulary import TokenType, Vocabulary

# Ids 0 to 255 are the bytes; then pieces that cut characters and stop strings anywhere.
PIECES = ("ab", "abc", "▁a", "é", "a\n", "bca", "▁▁")


def tokenizer(**fields):
    tokens = [f"<0x{byte:02X}>" for byte in range(256)] + [*PIECES, "</s>"]
    types = [TokenType.BYTE] * 256 + [TokenType.NORMAL] * len(PIECES) + [TokenType.CONTROL]
    return Tokenizer(Vocabulary("spm", tokens, types, scores=[0.0] * len(tokens), **fields))


TOKENIZER = tokenizer()
tokens = st.lists(
    st.one_of(st.sampled_from([*b"abc\n ", *"é😀".encode()]), st.integers(256, 256 + len(PIECES))),
    max_size=40,
)
stops = st.lists(st.text("abc\n é\ufffd", min_size=1, max_size=5), max_size=3).map(tuple)


def streamed(ids, stop=()):
    stream = TextStream(TOKENIZER, stop)
    return [*map(stream.push, ids), stream.flush()], stream.stopped


def cut(text, stop):
    """As a person would: the first character that completes a stop string, the longest of them."""
    for end in range(len(text) + 1):
        if complete := [s for s in stop if text[:end].endswith(s)]:
            found = max(complete, key=len)
            return text[: end - len(found)], found
    return text, None


@examples(150)
@given(tokens)
def test_what_is_streamed_joins_to_what_is_decoded_at_once(ids):
    shown, stopped = streamed(ids)
    assert ("".join(shown), stopped) == (TOKENIZER.decode(ids), None)


@examples(300)
@given(tokens, stops)
def test_the_text_ends_before_the_stop_string_that_is_complete_first(ids, stop):
    shown, stopped = streamed(ids, stop)
    assert ("".join(shown), stopped) == cut(TOKENIZER.decode(ids), stop)


@examples(150)
@given(tokens, stops)
def test_only_what_may_begin_a_stop_string_or_is_half_a_character_is_held_back(ids, stop):
    stream = TextStream(TOKENIZER, stop)
    shown = ""
    for count, token in enumerate(ids, 1):
        shown += stream.push(token)
        if stream.stopped is not None:
            break
        raw = b"".join(map(TOKENIZER.token_bytes, ids[:count]))
        whole = raw.decode(errors="ignore") if is_cut_short(raw) else raw.decode(errors="replace")
        if is_cut_short(raw) or "\ufffd" in whole:
            continue  # what an unfinished character will turn out to be is not known yet
        held = max((n for s in stop for n in range(len(s)) if whole.endswith(s[:n])), default=0)
        assert shown == whole[: len(whole) - held]


def is_cut_short(raw):
    try:
        raw.decode()
    except UnicodeDecodeError as error:
        return error.reason == "unexpected end of data"
    return False


def push_all(stream, text):
    return [stream.push(byte) for byte in text.encode()]


def test_a_character_is_shown_when_its_last_byte_comes():
    assert push_all(TextStream(TOKENIZER), "é😀") == ["", "é", "", "", "", "😀"]


def test_a_character_that_never_ends_is_shown_as_one_that_is_missing():
    stream = TextStream(TOKENIZER)
    assert [stream.push(byte) for byte in b"a\xf0\x9f"] == ["a", "", ""]
    assert stream.flush() == "\ufffd"


def test_a_stop_string_across_tokens_is_never_shown_and_nothing_after_it():
    stream = TextStream(TOKENIZER, ("bc",))
    assert [stream.push(256 + 0), stream.push(ord("c")), stream.push(ord("a"))] == ["a", "", ""]
    assert (stream.stopped, stream.flush()) == ("bc", "")


def test_text_that_only_seemed_to_begin_a_stop_string_is_shown_late():
    stream = TextStream(TOKENIZER, ("aab",))
    assert push_all(stream, "aaac") == ["", "", "a", "aac"]


def test_a_stop_string_within_another_ends_the_text_when_it_is_complete():
    assert streamed(list(b"xaby"), ("aby", "b")) == (["x", "", "a", "", ""], "b")
    assert streamed(list(b"xaby"), ("by", "aby"))[1] == "aby", "complete at once: the longest"


def test_a_control_token_shows_nothing():
    assert streamed([97, 256 + len(PIECES), 98])[0] == ["a", "", "b", ""]


def test_the_space_that_begins_a_continuation_is_kept():
    """Decoding a whole text drops the space that encoding put before it; a stream goes on after
    a prompt, where that space parts two words."""
    prefixing = tokenizer(add_space_prefix=True)
    stream = TextStream(prefixing)
    assert (stream.push(256 + 2), prefixing.decode([256 + 2])) == (" a", "a")
    assert prefixing.decode([97]) + " a" == prefixing.decode([97, 256 + 2])


SEVERAL = pytest.param(("ab" * 10_000 + "c", "b" * 20_000), marks=pytest.mark.thorough)


@pytest.mark.thorough
@pytest.mark.parametrize("stop", [("a" * 20_000 + "b",), SEVERAL])
def test_work_grows_with_the_text_and_not_with_the_stop_strings(stop):
    """Quadratic in either, this would take minutes."""
    shown, stopped = streamed([97] * 60_000, stop)
    assert ("".join(shown), stopped) == ("a" * 60_000, None)
