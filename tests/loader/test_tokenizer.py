"""Text to ids and back, on vocabularies that fit on a page and on the real ones."""

import functools
import unicodedata
from itertools import pairwise

import pytest
from examples import examples
from hypothesis import example, given
from hypothesis import strategies as st

from octavo.errors import BadCheckpoint, BadRequest
from octavo.loader import pretokenizers
from octavo.loader.checkpoint import open_checkpoint
from octavo.loader.tokenizer import Tokenizer
from octavo.loader.vocabulary import TokenType, Vocabulary

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = TokenType

HARD = (
    "Hello, World! It's 12345 o'clock.\r\n\r\n\tx  = [1, 2]\n\n\n\n  # done" + " " * 70,
    "สวัสดีชาวโลก ภาษาไทย مرحبا بالعالم العَرَبِيَّة 你好，世界。日本語 한국어 हिन्दी",
    "👩‍👩‍👧‍👦🏳️‍🌈🇩🇪 e\u0301 \u0000\u0004\u200b\ufeff\ufffd\U0010ffff ﬁ ①²½",
    "<|end|> <s> </s> [INST] ▁ Ġ <0x41> \\u0041",
)

text = st.one_of(st.text(max_size=40), st.sampled_from(HARD), st.text("abc <|end>\n", max_size=30))


def vocabulary(kind, tokens, **fields):
    """`tokens`: (token, type) in the order of their ids."""
    spelled, types = zip(*tokens, strict=True)
    return Vocabulary(kind=kind, tokens=list(spelled), types=list(types), **fields)


def printable(byte):
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    return (
        chr(byte)
        if byte in shown
        else chr(256 + [b for b in range(256) if b not in shown].index(byte))
    )


MERGES = ["h e", "l l", "he ll", "hell o", "Ġ w", "a b", "ab c", "b c", "1 2"]


def byte_level(pre="gpt-2", **fields):
    words = ["".join(merge.split()) for merge in MERGES]
    tokens = [
        *((printable(byte), NORMAL) for byte in range(256)),
        *((word, NORMAL) for word in words),
        *(("<s>", CONTROL), ("<|end|>", CONTROL), ("<think>", USER_DEFINED), ("<unk>", UNKNOWN)),
        ("<|end|>>", CONTROL),
    ]
    return vocabulary("bpe", tokens, pre=pre, merges=MERGES, bos_id=265, eos_id=266, **fields)


PIECES = {"▁": -1, "h": -2, "e": -3, "l": -4, "o": -5, "a": -6, "b": -7, "he": -8, "ll": -9}
PIECES |= {"▁hello": -10, "hell": -11, "hello": -12, "▁he": -13, "ab": -14, "ba": -15, "aba": -16}


def score_ranked(**fields):
    byte_tokens = [(f"<0x{byte:02X}>", BYTE) for byte in range(256)]
    tokens = [
        *(("<unk>", UNKNOWN), ("<s>", CONTROL), ("</s>", CONTROL)),
        *byte_tokens,
        *((piece, NORMAL) for piece in PIECES),
        *(("\n\n", USER_DEFINED), ("   ", USER_DEFINED)),
    ]
    scores = [0.0] * 259 + [float(score) for score in PIECES.values()] + [-1000.0] * 2
    return vocabulary(
        "spm", tokens, scores=scores, unk_id=0, bos_id=1, eos_id=2, add_bos=True, **fields
    )


@functools.cache
def shared(kind, name):
    if kind == "bpe":
        return Tokenizer(byte_level(name))
    return Tokenizer(score_ranked(add_space_prefix=name == "prefix"))


def spelled(tokenizer, given_text, **options):
    return [
        tokenizer.token_bytes(i, special=True).decode()
        for i in tokenizer.encode(given_text, **options)
    ]


@pytest.mark.parametrize("name", pretokenizers.known())
@examples(15)
@given(text)
@example(HARD[0])
@example(HARD[1])
@example(HARD[2])
@example(HARD[3])
def test_byte_level_text_comes_back_whole(name, written):
    tokenizer = shared("bpe", name)
    nfc = pretokenizers.named(name).nfc
    wanted = unicodedata.normalize("NFC", written) if nfc else written
    assert tokenizer.decode(tokenizer.encode(written)) == wanted


@pytest.mark.parametrize("name", ["prefix", "bare"])
@examples(60)
@given(text)
@example(HARD[0])
@example(HARD[1])
@example(HARD[2])
@example(HARD[3])
def test_score_ranked_text_comes_back_whole(name, written):
    tokenizer = shared("spm", name)
    assert tokenizer.decode(tokenizer.encode(written)) == written.replace("▁", " ")


@pytest.mark.parametrize("kind", ["bpe", "spm"])
@examples(60)
@given(text, st.characters(categories=["Cs"]), text)
def test_half_a_surrogate_pair_is_refused(kind, before, surrogate, after):
    tokenizer = shared(kind, "gpt-2")
    for refuse in (tokenizer.encode, tokenizer.prompt_ids):
        with pytest.raises(BadRequest, match=f"character {len(before)} is U\\+D[89A-F]"):
            refuse(before + surrogate + after)


def test_merges_go_by_rank_and_stay_within_the_cuts():
    tokenizer = shared("bpe", "gpt-2")
    assert spelled(tokenizer, "hello") == ["hello"]
    assert spelled(tokenizer, "abc abc") == ["abc", " ", "abc"]
    assert spelled(tokenizer, "12") == ["12"]
    assert spelled(shared("bpe", "qwen2"), "12") == ["1", "2"], "qwen2 cuts between digits"


def test_a_piece_that_is_a_token_is_taken_whole_only_where_the_original_does():
    tokens = [*((printable(b), NORMAL) for b in range(256)), ("xyz", NORMAL)]
    whole = Tokenizer(vocabulary("bpe", tokens, pre="llama-bpe", merges=[]))
    merged = Tokenizer(vocabulary("bpe", tokens, pre="qwen2", merges=[]))
    assert (whole.encode("xyz"), merged.encode("xyz")) == ([256], [120, 121, 122])


def test_the_highest_score_joins_first_wherever_it_stands():
    tokenizer = shared("spm", "bare")
    assert spelled(tokenizer, "hello") == ["hello"]
    assert spelled(tokenizer, "abab") == ["ab", "ab"]
    assert spelled(tokenizer, "aba") == ["aba"], "ab before ba: -14 > -15"
    assert spelled(tokenizer, " hello") == [" hello"], "hello (-12) before ▁he (-13)"
    assert tokenizer.encode("é") == [3 + 0xC3, 3 + 0xA9]


def test_a_space_goes_before_the_text_only_as_the_file_says():
    assert spelled(shared("spm", "prefix"), "b") == [" ", "b"]
    assert spelled(shared("spm", "bare"), "b") == ["b"]
    assert shared("spm", "prefix").encode("") == []


def test_tokens_that_the_user_of_a_vocabulary_defined_are_found_before_merging():
    assert spelled(shared("bpe", "gpt-2"), "x<think>hello") == ["x", "<think>", "hello"]
    assert spelled(shared("spm", "bare"), "b    \n\nb") == ["b", "   ", " ", "\n\n", "b"]


def test_control_tokens_are_recognised_only_when_asked_the_longest_first():
    tokenizer = shared("bpe", "gpt-2")
    assert tokenizer.encode("a<|end|>b<unk><s>", special=True) == [97, 266, 98, 268, 265]
    assert tokenizer.encode("<|end|>>", special=True) == [269]
    assert not {265, 266, 268, 269} & {*tokenizer.encode("<s><|end|><unk><|end|>>")}
    assert tokenizer.decode([265, 97, 266]) == "a"
    assert tokenizer.decode([265, 97, 266], special=True) == "<s>a<|end|>"


@examples(60)
@given(st.text("<s>|end unk", max_size=30))
def test_no_text_becomes_a_control_token_unasked(written):
    for tokenizer in (shared("bpe", "gpt-2"), shared("spm", "bare")):
        ids = tokenizer.encode(written)
        assert b"" not in [tokenizer.token_bytes(i) for i in ids]
        assert tokenizer.decode(ids) == written


def test_merges_to_a_control_token_never_happen():
    tokens = [*((printable(b), NORMAL) for b in range(256)), ("en", NORMAL), ("end", CONTROL)]
    tokenizer = Tokenizer(vocabulary("bpe", tokens, pre="gpt-2", merges=["e n", "en d"]))
    assert tokenizer.encode("end") == [256, ord("d")]


def test_raw_prompts_carry_bos_and_eos_as_the_file_says_but_never_two():
    def ids(written, **fields):
        return Tokenizer(byte_level(**fields)).prompt_ids(written)

    assert ids("a") == [97]
    assert ids("a", add_bos=True) == [265, 97]
    assert ids("<s>a", add_bos=True) == [265, 97]
    assert ids("a", add_bos=True, add_eos=True) == [265, 97, 266]
    assert ids("a<|end|>", add_eos=True) == [97, 266]
    assert ids("", add_bos=True) == [265]


def test_turns_end_with_eos_and_every_other_end_that_the_file_names():
    tokenizer = Tokenizer(byte_level(eot_ids=(269,)))
    assert (tokenizer.bos_id, tokenizer.eos_ids) == (265, {266, 269})
    assert tokenizer.vocab_size == 270


def test_bytes_that_are_no_characters_are_shown_as_such():
    tokenizer = shared("spm", "bare")
    half = tokenizer.encode("é")[:1]
    assert tokenizer.token_bytes(half[0]) == b"\xc3"
    assert tokenizer.decode([*half, *tokenizer.encode("b")]) == "\ufffdb"


@pytest.mark.parametrize("token_id", [-1, 270])
def test_an_id_outside_the_vocabulary_is_refused(token_id):
    with pytest.raises(BadRequest, match=rf"token id: {token_id} is not in \[0, 270\)"):
        shared("bpe", "gpt-2").decode([97, token_id])


def test_a_vocabulary_that_contradicts_itself_is_refused():
    twice = [("a", NORMAL), ("b", NORMAL), ("a", NORMAL)]
    with pytest.raises(BadCheckpoint, match="tokens 0 and 2 are both 'a'"):
        Tokenizer(vocabulary("bpe", twice, pre="gpt-2", merges=[]))
    with pytest.raises(BadCheckpoint, match="merges: 'ab' is not two tokens and a space"):
        Tokenizer(vocabulary("bpe", [("ab", NORMAL)], pre="gpt-2", merges=["ab"]))
    with pytest.raises(BadCheckpoint, match="'<0xZZ>' is of type byte"):
        Tokenizer(vocabulary("spm", [("<0xZZ>", BYTE)], scores=[0.0])).decode([0])
    with pytest.raises(BadCheckpoint, match="'made-up'"):
        Tokenizer(byte_level("made-up"))


def joined_by_score(pieces, written):
    """SentencePiece's rule as it reads: join the best of all neighbours, the leftmost of equals."""
    parts = [*written]
    while True:
        pairs = [(pieces.get(a + b, -99), -i) for i, (a, b) in enumerate(pairwise(parts))]
        if not pairs or (best := max(pairs))[0] == -99:
            return parts
        i = -best[1]
        parts[i : i + 2] = [parts[i] + parts[i + 1]]


@pytest.mark.thorough
@examples(200)
@given(st.text("helo ab", max_size=30))
def test_score_ranked_merges_are_those_of_the_rule(written):
    pieces = PIECES | {"b▁a": -17, "b▁": -18}  # joining words, which some vocabularies do
    kinds = [(token, BYTE) for token in (f"<0x{b:02X}>" for b in range(256))]
    tokens = [*kinds, *((piece, NORMAL) for piece in pieces)]
    scores = [0.0] * 256 + [*map(float, pieces.values())]
    ours = Tokenizer(vocabulary("spm", tokens, scores=scores))
    wanted = joined_by_score(pieces, written.replace(" ", "▁"))
    assert spelled(ours, written) == [part.replace("▁", " ") for part in wanted]


# The real vocabularies.


@functools.cache
def real(path):
    checkpoint = open_checkpoint(path)
    return Tokenizer(checkpoint.vocabulary, checkpoint.chat_template)


@pytest.mark.models
@examples(60)
@given(text)
@example(HARD[0])
@example(HARD[1])
@example(HARD[2])
@example(HARD[3])
def test_any_text_comes_back_from_gemma(gemma3_path, written):
    tokenizer = real(gemma3_path)
    assert tokenizer.decode(tokenizer.encode(written)) == written.replace("▁", " ")


@pytest.mark.models
@examples(60)
@given(text)
@example(HARD[0])
@example(HARD[1])
@example(HARD[3])
def test_any_text_comes_back_from_smollm2_but_for_bytes_that_it_has_not(smollm2_path, written):
    tokenizer = real(smollm2_path)
    known = {tokenizer.token_bytes(i) for i in range(tokenizer.vocab_size)}
    missing = {byte for byte in range(256) if bytes([byte]) not in known}
    assert missing.isdisjoint(range(0x20, 0x7F))
    left = bytes(byte for byte in written.encode() if byte not in missing)
    assert tokenizer.decode(tokenizer.encode(written)) == left.decode(errors="replace")


@pytest.mark.models
def test_every_token_of_the_real_vocabularies_has_bytes_or_is_control(smollm2_path, gemma3_path):
    for path in (smollm2_path, gemma3_path):
        tokenizer = real(path)
        silent = {i for i in range(tokenizer.vocab_size) if not tokenizer.token_bytes(i)}
        shown = {tokenizer.decode([i], special=True) for i in silent}
        assert tokenizer.bos_id in silent
        assert silent >= tokenizer.eos_ids
        assert all(token[0] in "<[" for token in shown)


# Oracles.


def smollm_parts(path):
    data = open_checkpoint(path).vocabulary
    vocab = {token: i for i, token in enumerate(data.tokens)}
    return data, vocab, [tuple(merge.split(" ")) for merge in data.merges]


CORPUS = [*HARD[:2], "e\u0301 a\u030a Ω K \ufb01", "the quick brown fox\n\n" * 5, "x = 1234567.89"]


@pytest.mark.oracle
@pytest.mark.models
@pytest.mark.parametrize(
    ("pre", "oracle"),
    [
        ("gpt-2", "GPT2Tokenizer"),
        ("qwen2", "Qwen2Tokenizer"),
        ("command-r", "CohereTokenizer"),
        ("gpt-neox", "GPTNeoXTokenizer"),
    ],
)
@examples(60)
@given(text)
def test_ids_are_those_of_transformers(smollm2_path, pre, oracle, written):
    """transformers' classes, given SmolLM2's tokens and merges, bring their own cuts."""
    theirs = their_byte_level(smollm2_path, oracle)
    ours = our_byte_level(smollm2_path, pre)
    for sample in (written, *CORPUS):
        assert ours.encode(sample) == theirs.encode(sample, add_special_tokens=False)
        assert ours.decode(ours.encode(sample)) == theirs.decode(theirs.encode(sample))


@functools.cache
def their_byte_level(path, name):
    import transformers

    _, vocab, merges = smollm_parts(path)
    return getattr(transformers, name)(vocab=vocab, merges=merges)


@functools.cache
def our_byte_level(path, pre):
    data, _, _ = smollm_parts(path)
    types = [NORMAL] * len(data.tokens)
    return Tokenizer(Vocabulary("bpe", data.tokens, types, pre=pre, merges=data.merges))


@pytest.mark.oracle
@pytest.mark.models
@examples(60)
@given(text)
def test_gemma_ids_are_those_of_sentencepiece(gemma3_path, written):
    theirs, ours = their_sentencepiece(gemma3_path), real(gemma3_path)
    for sample in (written, *HARD, *CORPUS, "-" * 37, "hahaha" * 9, "\t\t <b>  </b>\n \n"):
        assert ours.encode(sample) == theirs.EncodeAsIds(sample)


@functools.cache
def their_sentencepiece(path):
    import sentencepiece
    from sentencepiece import sentencepiece_model_pb2

    data = open_checkpoint(path).vocabulary
    model = sentencepiece_model_pb2.ModelProto()
    for token, kind, score in zip(data.tokens, data.types, data.scores, strict=True):
        piece = token.replace(" ", "▁") if kind == USER_DEFINED else token
        model.pieces.add(piece=piece, type=kind, score=score)
    model.pieces[data.unk_id].type = UNKNOWN
    model.trainer_spec.model_type = 2  # byte-pair encoding
    model.trainer_spec.byte_fallback = True
    for name in ("unk", "bos", "eos"):
        token_id = getattr(data, f"{name}_id")
        setattr(model.trainer_spec, f"{name}_id", token_id)
        setattr(model.trainer_spec, f"{name}_piece", data.tokens[token_id])
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = data.add_space_prefix
    model.normalizer_spec.remove_extra_whitespaces = False
    processor = sentencepiece.SentencePieceProcessor()
    processor.LoadFromSerializedProto(model.SerializeToString())
    return processor
