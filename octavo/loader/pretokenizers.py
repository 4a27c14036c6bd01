"""How text is cut before byte-level merging, by the name that GGUF gives it (tokenizer.ggml.pre).

A row says what the tokenizer published with the model does: the patterns that cut the text, one
after the other, each within the pieces of the one before; whether Unicode is composed first (NFC);
whether a piece that is a token whole is taken without merging. Knows no vocabulary.
"""
# ruff: noqa: RUF001  (patterns name characters of every script)

from collections.abc import Callable
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Final, TypeAlias

from tokenizers import Regex, normalizers, pre_tokenizers

from octavo.errors import BadCheckpoint

Step: TypeAlias = Callable[[], pre_tokenizers.PreTokenizer]


@dataclass(frozen=True, slots=True)
class PreTokenizer:
    steps: tuple[Step, ...]
    nfc: bool = False
    whole_pieces: bool = False

    def build(self) -> pre_tokenizers.PreTokenizer:
        return pre_tokenizers.Sequence([step() for step in self.steps])

    def normalizer(self) -> normalizers.Normalizer | None:
        return normalizers.NFC() if self.nfc else None


def named(name: str) -> PreTokenizer:
    """Raises BadCheckpoint for a name whose cuts Octavo does not know: guessing would give a model
    tokens that it never saw, and nothing would tell."""
    if (found := _TABLE.get(_ALIASES.get(name, name))) is None:
        close = get_close_matches(name, [*_TABLE, *_ALIASES], n=1)
        hint = f", the closest is {close[0]!r}" if close else ""
        raise BadCheckpoint(f"tokenizer.ggml.pre is {name!r}, which Octavo does not know{hint}")
    return found


def known() -> list[str]:
    return sorted([*_TABLE, *_ALIASES])


def _cut(pattern: str) -> Step:
    return lambda: pre_tokenizers.Split(Regex(pattern), "isolated")


def _digits() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Digits(individual_digits=True)


def _runs_of_digits() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Digits(individual_digits=False)


def _punctuation() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Punctuation("contiguous")


def _gpt2() -> pre_tokenizers.PreTokenizer:
    """GPT-2's own pattern, and bytes as printable characters."""
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _bytes() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)


def _tiktoken(digits: str) -> Step:
    """The pattern of cl100k_base, with as many digits to a piece as the model has."""
    return _cut(
        r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|"
        + digits
        + r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
        r"|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


def _cased(digits: str, *, contractions: str = "") -> Step:
    """The pattern of o200k_base: words are cut where lower case turns to upper."""
    upper, lower = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
    return _cut(
        rf"[^\r\n\p{{L}}\p{{N}}]?{upper}*{lower}+{contractions}"
        rf"|[^\r\n\p{{L}}\p{{N}}]?{upper}+{lower}*{contractions}"
        rf"|{digits}| ?[^\s\p{{L}}\p{{N}}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
    )


_THREE_DIGITS: Final = _cut("[0-9][0-9][0-9]")
_CJK: Final = _cut("[一-龥ࠀ-一가-퟿]+")
# Letters of the scripts that have case, as DeepSeek lists them. Escaped: those that Unicode would
# compose to others, which an editor might do.
_CASED_LETTERS: Final = (
    "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅ"
    "Ὀ-Ὅὐ-ὗὙὛὝ\u1f5f-\u1f7dᾀ-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌ\u1fd0-\u1fd3\u1fd6-\u1fdbῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ"
    "\u2126ℨ\u212a-\u212dℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃"
)

_TABLE: Final[dict[str, PreTokenizer]] = {
    "gpt-2": PreTokenizer((_gpt2,)),
    "gpt-neox": PreTokenizer((_gpt2,), nfc=True),
    "smollm": PreTokenizer((_digits, _gpt2)),
    "command-r": PreTokenizer((_digits, _gpt2), nfc=True),
    "llama-bpe": PreTokenizer((_tiktoken(r"\p{N}{1,3}"), _bytes), whole_pieces=True),
    "dbrx": PreTokenizer((_tiktoken(r"\p{N}{1,3}"), _bytes)),
    "qwen2": PreTokenizer((_tiktoken(r"\p{N}"), _bytes), nfc=True),
    "tekken": PreTokenizer((_cased(r"\p{N}"), _bytes), whole_pieces=True),
    "gpt-4o": PreTokenizer(
        (_cased(r"\p{N}{1,3}", contractions="(?i:'s|'t|'re|'ve|'m|'ll|'d)?"), _bytes),
        whole_pieces=True,
    ),
    "deepseek-llm": PreTokenizer(
        (
            _cut("[\r\n]"),
            _cut(rf"\s?[{_CASED_LETTERS}]+"),
            _cut(r"\s?[!-/:-~！-／：-～‘-‟　-。]+"),
            _cut(r"\s+$"),
            _CJK,
            _digits,
            _bytes,
        )
    ),
    "deepseek-coder": PreTokenizer(
        (_cut("[\r\n]"), _cut(r"\s?\p{L}+"), _cut(r"\s?\p{P}+"), _CJK, _digits, _bytes)
    ),
    "deepseek-v3": PreTokenizer(
        (
            _cut(r"\p{N}{1,3}"),
            _cut("[一-龥぀-ゟ゠-ヿ]+"),
            _cut(
                r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+"
                r"|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*"
                r"|\s*[\r\n]+|\s+(?!\S)|\s+"
            ),
            _bytes,
        )
    ),
    # The cuts after bytes have become characters see those characters, as in the original.
    "falcon": PreTokenizer((_punctuation, _gpt2, _runs_of_digits, _THREE_DIGITS)),
    # What llama.cpp falls back to; files that name no pre-tokenizer were made for it.
    "default": PreTokenizer(
        (
            _cut(r"[\p{P}\$\+<=>\^~\|]+"),
            _cut(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)"),
            _cut(r"\p{N}+"),
            _THREE_DIGITS,
            _bytes,
        )
    ),
}

_ALIASES: Final[dict[str, str]] = {
    "phi-2": "gpt-2",
    "olmo": "gpt-neox",
    "mpt": "gpt-neox",
    "starcoder": "smollm",
    "refact": "smollm",
    "codeshell": "smollm",
    "llama3": "llama-bpe",
    "llama-v3": "llama-bpe",
    "falcon3": "llama-bpe",
    "pixtral": "llama-bpe",
    "smaug-bpe": "dbrx",
    "chatglm-bpe": "dbrx",
    "glm4": "dbrx",
    "stablelm2": "qwen2",
    "deepseek-r1-qwen": "qwen2",
    "megrez": "qwen2",
    "llama4": "gpt-4o",
}
