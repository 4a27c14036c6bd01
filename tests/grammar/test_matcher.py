"""Compiled grammars and the answers that follow them, over tokens of several bytes."""

import gc
import json
import threading
import time
from contextlib import suppress
from random import Random

import numpy as np
import pytest
from checkpoints import write_tiny
from grammars import Bytes, allowed_in, is_allowed
from llguidance import LLParserLimits

from octavo import BadRequest, StepFailed
from octavo.engine.loading import _tokenizer
from octavo.grammar import matcher
from octavo.grammar.compiled import Matcher
from octavo.grammar.fronts import _checked
from octavo.grammar.matcher import Grammars
from octavo.loader.checkpoint import open_checkpoint
from octavo.types import Grammar


@pytest.fixture(scope="module", params=["llama", "gemma3"])
def tokenizer(request, tmp_path_factory):
    path = write_tiny(tmp_path_factory.mktemp("models") / "tiny.gguf", request.param)
    return _tokenizer(open_checkpoint(path))


@pytest.fixture
def grammars(tokenizer):
    return Grammars(tokenizer, tokenizer.vocab_size)


def schema(value):
    return Grammar("json_schema", json.dumps(value))


LONG_KEYS = {
    "type": "object",
    "properties": {
        "the_name_of_the_other": {"type": "string"},
        "kind": {"enum": ["another one", "another two"]},
    },
    "required": ["the_name_of_the_other", "kind"],
    "additionalProperties": False,
}


def follow(one, token_ids):
    for token_id in token_ids:
        assert is_allowed(one.mask(), token_id)
        one.consume(token_id)


def test_forced_tokens_spell_the_only_text_that_may_come(tokenizer, grammars):
    one = grammars.compile(schema(LONG_KEYS)).matcher()
    forced = one.forced()
    said = b"".join(map(tokenizer.token_bytes, forced)).decode()
    assert len(forced) > 5
    assert '{"the_name_of_the_other": "'.startswith(said)
    follow(one, forced)
    assert one.forced() == []


def test_where_tokens_are_forced_the_mask_allows_nothing_else(tokenizer, grammars):
    """So that masks alone choose the same tokens, one at a time."""
    one = grammars.compile(schema(LONG_KEYS)).matcher()
    for forced in one.forced():
        allowed = [i for i in range(tokenizer.vocab_size) if is_allowed(one.mask(), i)]
        assert allowed == [forced]
        one.consume(forced)


def test_a_grammar_is_complete_where_nothing_can_follow(tokenizer, grammars):
    one = grammars.compile(Grammar("choice", '["the end", "the ends", "no"]')).matcher()
    follow(one, tokenizer.encode_within("the end"))
    assert not one.is_complete
    assert all(is_allowed(one.mask(), end) for end in tokenizer.eos_ids)
    assert not any(is_allowed(one.mask(keeps_eos=False), end) for end in tokenizer.eos_ids)
    follow(one, tokenizer.encode_within("s"))
    assert one.is_complete
    assert one.forced() == []


def test_control_tokens_are_no_text(tokenizer, grammars):
    one = grammars.compile(Grammar("regex", "(.|\n)*")).matcher()
    mask = one.mask()
    for control in tokenizer.control_ids - tokenizer.eos_ids:
        assert not is_allowed(mask, control)
    assert is_allowed(mask, tokenizer.encode_within("a")[0])


def test_a_grammar_may_name_control_tokens(tokenizer, grammars):
    control = min(tokenizer.control_ids)
    one = grammars.compile(Grammar("lark", f'start: "a" <[{control}]>')).matcher()
    follow(one, [*tokenizer.encode_within("a"), control])
    assert one.is_complete


def test_ids_beyond_the_tokenizers_are_never_allowed(tokenizer):
    size = tokenizer.vocab_size + 70
    mask = Grammars(tokenizer, size).compile(Grammar("regex", "(.|\n)*")).matcher().mask()
    assert len(mask) == -(-size // 32)
    assert not any(is_allowed(mask, i) for i in range(tokenizer.vocab_size, size))


def test_answers_under_one_grammar_do_not_meet(tokenizer, grammars):
    compiled = grammars.compile(Grammar("choice", '["ab", "cd"]'))
    one, two = compiled.matcher(), compiled.matcher()
    one.consume(tokenizer.encode_within("a")[0])
    assert is_allowed(two.mask(), tokenizer.encode_within("c")[0])
    assert not is_allowed(one.mask(), tokenizer.encode_within("c")[0])


def limited(monkeypatch, num_states):
    """The limits as they are, but for one."""
    names = [name for name in dir(LLParserLimits) if not name.startswith("_")]
    usual = {name: getattr(_checked.LIMITS, name) for name in names}
    limits = LLParserLimits(**usual | {"max_lexer_states": num_states})
    monkeypatch.setattr(_checked, "LIMITS", limits)


def say(one, text):
    """Forced text is asked for, and left aside."""
    for byte in text.encode():
        one.forced()
        follow(one, [byte])


def test_what_answers_come_to_never_fills_the_grammar_for_others(monkeypatch):
    """Each has 300 bytes of its own, and there is room for 1,000."""
    limited(monkeypatch, num_states=1_000)
    texts = [chr(ord("a") + i) * 300 for i in range(20)]
    compiled = Grammars(Bytes(), 257).compile(Grammar("choice", json.dumps(texts)))
    for text in texts:
        say(one := compiled.matcher(), text)
        assert one.is_complete
    abreast = [compiled.matcher() for _ in texts]
    for i in range(300):
        for one, text in zip(abreast, texts, strict=True):
            say(one, text[i])
    assert all(one.is_complete for one in abreast)


def texts(random, num):
    return ["".join(random.choices("abcdefgh", k=12)) for _ in range(num)]


@pytest.mark.parametrize(
    "seed", [0, *(pytest.param(seed, marks=pytest.mark.thorough) for seed in range(1, 5))]
)
def test_no_answer_sees_that_others_have_filled_the_grammar(monkeypatch, seed):
    """Whenever that comes, masks and forced text are those of a grammar that has room for all."""
    random = Random(seed)
    fields = {name: {"enum": texts(random, 30)} for name in texts(random, 40)}
    value = {"type": "object", "properties": fields, "required": list(fields)}
    limited(monkeypatch, num_states=1 << 20)
    compiled = Grammars(Bytes(), 257).compile(schema(value))
    roomy, made = compiled.matcher, []
    limited(monkeypatch, num_states=3_000)
    small = Grammars(Bytes(), 257).compile(schema(value))
    monkeypatch.setattr(small, "_renewing", Counted(made))
    pairs = []
    for _ in range(600):
        while len(pairs) < 6:
            pairs.append((small.matcher(), roomy()))
        pair = one, other = random.choice(pairs)
        for _ in range(random.randrange(8)):
            forced, rest = one.forced(), other.forced()
            assert forced in ([], rest)  # none where it was just then filled
            if not forced:
                np.testing.assert_array_equal(one.mask(), other.mask())
                forced = [random.choice(allowed_in(one.mask()))]
            for token_id in forced:
                one.consume(token_id)
                other.consume(token_id)
            assert one.is_complete == other.is_complete
            if one.is_complete:
                pairs.remove(pair)
                break
    assert len(made) > 5


class Counted:
    """A lock that tells how often it was taken."""

    def __init__(self, taken):
        self.taken = taken

    def __enter__(self):
        self.taken.append(True)

    def __exit__(self, *_):
        pass


def test_an_answer_that_fills_the_grammar_alone_ends_and_no_other(monkeypatch):
    limited(monkeypatch, num_states=1_000)
    compiled = Grammars(Bytes(), 257).compile(Grammar("regex", "x[yz]+|(a[bc]){1200}"))
    other = compiled.matcher()
    say(other, "x")
    with pytest.raises(StepFailed, match="its texts and patterns are too long together"):
        say(compiled.matcher(), "ab" * 1200)
    say(other, "yyy")
    say(compiled.matcher(), "xz")


def test_where_nothing_is_forced_few_masks_tell_that_an_answer_can_go_on(monkeypatch):
    made = []
    mask = Matcher.mask
    monkeypatch.setattr(
        Matcher, "mask", lambda one, **kinds: made.append(one) or mask(one, **kinds)
    )
    Grammars(Bytes(), 257).compile(Grammar("regex", "a{1000}b?"))
    assert 10 < len(made) < 100


def test_what_is_not_allowed_ends_in_one_sentence(tokenizer, grammars):
    one = grammars.compile(Grammar("regex", "a+")).matcher()
    with pytest.raises(StepFailed, match="cannot be followed") as failure:
        one.consume(tokenizer.encode_within("b")[0])
    assert "\n" not in str(failure.value)


def test_a_grammar_is_compiled_once_while_it_is_kept_or_in_use(grammars, monkeypatch):
    monkeypatch.setattr(matcher, "KEPT", 2)
    held = grammars.compile(Grammar("regex", "held"))
    for i in range(4):
        grammars.compile(Grammar("regex", f"other {i}"))
    assert grammars.compile(Grammar("regex", "held")) is held
    del held
    for i in range(4):
        grammars.compile(Grammar("regex", f"other {i}"))
    gc.collect()
    assert len(grammars._recent) == 2
    assert len(grammars._in_use) <= 3


def test_a_refusal_is_remembered_and_raised_anew(grammars):
    errors = []
    for _ in range(2):
        with pytest.raises(BadRequest, match="unclosed group") as refusal:
            grammars.compile(Grammar("regex", "("))
        errors.append(refusal.value)
    assert errors[0] is not errors[1]


def test_a_refusal_keeps_nothing_alive_but_its_sentence(grammars):
    with pytest.raises(BadRequest):
        grammars.compile(schema({"enum": ["large"] * 1000, "not": {}}))
    (kept,) = grammars._recent.values()
    assert not isinstance(kept, BaseException)
    assert [type(one) for one in gc.get_referents(kept) if one is not type(kept)] == [str, str]


LARGE, SMALL = Grammar("regex", "(" + "a" * 5000), Grammar("regex", "(" + "a" * 500)


@pytest.mark.parametrize(
    ("limit", "kept"), [(1 << 20, {SMALL, LARGE}), (4000, {SMALL}), (100, set())]
)
def test_what_is_kept_has_a_limit_in_bytes(grammars, monkeypatch, limit, kept):
    monkeypatch.setattr(matcher, "KEPT_BYTES", limit)
    for one in (SMALL, LARGE, SMALL):
        with pytest.raises(BadRequest):
            grammars.compile(one)
    assert grammars._recent.keys() == kept


def test_a_text_has_a_limit(grammars, monkeypatch):
    monkeypatch.setattr(matcher, "MOST_CHARACTERS", 10)
    with pytest.raises(BadRequest, match="regex: 11 characters are more than 10"):
        grammars.compile(Grammar("regex", "a" * 11))


HOSTILE = {
    "nested repetition": {"pattern": "^((a{1000}){1000}){1000}$"},
    "products": {"allOf": [{"anyOf": [{"minimum": i}, {"maximum": -i}]} for i in range(16)]},
    "many names": {"properties": {f"p{i}": {} for i in range(5000)}},
    "many values": {"enum": [f"value {i * 7919 % 100003}" for i in range(30_000)]},
    "a long cycle": {"multipleOf": 9_973},
    "itself": {"$ref": "#"},
    "deep": json.loads('{"items": ' * 300 + "{}" + "}" * 300),
}


@pytest.mark.parametrize(
    "name", [*list(HOSTILE)[:-1], pytest.param("deep", marks=pytest.mark.thorough)]
)
def test_a_hostile_schema_is_compiled_or_refused(grammars, name):
    with suppress(BadRequest):
        one = grammars.compile(schema(HOSTILE[name])).matcher()
        with suppress(StepFailed):
            one.mask()


@pytest.mark.thorough
def test_other_threads_go_on_while_a_schema_compiles(grammars):
    grammars.prepare()
    ticks, is_done = 0, False

    def compile_some():
        nonlocal is_done
        for divisor in range(9_900, 9_904):  # tens of milliseconds each
            grammars.compile(schema({"type": "integer", "multipleOf": divisor}))
        is_done = True

    thread = threading.Thread(target=compile_some)
    thread.start()
    while not is_done:
        time.sleep(0.001)
        ticks += 1
    thread.join()
    assert ticks > 4  # one a schema, where they keep the interpreter to themselves


def test_what_is_kept_waits_for_no_other_that_is_compiled(grammars):
    grammar = Grammar("regex", "[a-z]+")
    kept = grammars.compile(grammar)
    with grammars._compiling:
        assert grammars.known(grammar) is kept
        assert grammars.known(Grammar("regex", "[0-9]+")) is None


@pytest.mark.thorough
def test_text_that_must_come_is_cut_in_pieces_as_in_whole(tokenizer, grammars, monkeypatch):
    """However little of it is looked at, and where tokens come one at a time."""
    texts = [f"the {i * 7919 % 100003} quick brown foxes, " for i in range(40)]
    said = "".join(texts)
    lark = "start: " + " ".join(map(json.dumps, texts))
    compiled = grammars.compile(Grammar("lark", lark))
    pieces, one = [], compiled.matcher()
    while forced := one.forced():
        assert sum(len(tokenizer.token_bytes(i)) for i in forced) <= matcher.FORESIGHT
        for token_id in forced:
            one.consume(token_id)
        pieces += forced
    assert one.is_complete
    assert pieces == tokenizer.encode_within(said)
    single = compiled.matcher()
    for token_id in pieces:
        mask = single.mask()
        assert is_allowed(mask, token_id)
        assert len(allowed_in(mask)) == 1
        single.consume(token_id)


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"$ref": "#"}, r"'\$ref' at \$ leads to what no finite answer fits"),
        (
            {"type": "object", "properties": {"n": {"$ref": "#"}}, "required": ["n"]},
            r"'\$ref' at \$.properties.n leads to .*: let something be left out there",
        ),
        ({"const": "ab" * 100_000}, "makes 200002 bytes come, more than 10000: shorten it"),
    ],
)
def test_what_cannot_be_followed_is_told_with_what_to_do(grammars, value, told):
    with pytest.raises(BadRequest, match=told):
        grammars.compile(schema(value))


@pytest.mark.parametrize(("times", "is_followed"), [(900, True), (2000, False)])
def test_text_that_must_come_piece_after_piece_has_a_limit(tokenizer, grammars, times, is_followed):
    """llguidance goes through all of it at once, and meanwhile no other thread runs."""
    one = grammars.compile(Grammar("lark", f'start: "a"? "!" t{{{times}}}\nt: "so on, "')).matcher()
    (mark,) = tokenizer.encode_within("!")

    def spelled():
        follow(one, [mark])
        follow(one, forced := one.forced())
        one.mask()
        return b"".join(map(tokenizer.token_bytes, forced))

    if is_followed:
        assert spelled().startswith(b"so on, so on")
    else:
        with pytest.raises(StepFailed, match="too much may follow at one place"):
            spelled()


@pytest.mark.thorough
def test_more_rules_than_llguidance_counts_are_refused(grammars):
    rules = "".join(f'a{i}: a{i + 1} "y"\n' for i in range(33_000))
    with pytest.raises(BadRequest, match=r"99004 texts, .* are more than 15000: give fewer"):
        grammars.compile(Grammar("lark", f'start: a0\n{rules}a33000: "x"'))
