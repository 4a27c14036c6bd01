"""Where text is cut. Golden: the cuts of every pre-tokenizer. Oracle: the patterns as their authors
published them, run by another regular expression engine, give the same."""

import json
from pathlib import Path

import pytest

from octavo.errors import BadCheckpoint
from octavo.loader import pretokenizers

GOLDEN = Path(__file__).parent / "golden" / "pretokenizers.json"

TEXTS = (
    "Hello, World! It's 12345 o'clock; I'LL pay $1,234.56.",
    "  two  spaces,\ttabs\t\tand   \n\n\r\n  lines \n",
    "def f(x):\n    return x**2 + y[0] != {'a': \"b\"}  # café_1\n",
    "camelCase HTTPServer XMLHttpRequest ÀÉÎ straße ǅ",
    "中文字符和English混合，标点。日本語のテキスト カタカナ한국어 ไทยภาษา العربية हिन्दी",
    "🚀 (normal) 😶‍🌫️✅ ½ ² Ⅷ ٣٤٥٦ 1234567890",
    "www.example.com/a/b?c=d&e=f -- ... ---- !!! \\n /// ~~~ <|x|> a_b-c",
    "don't DON'T we've y'all 's 'tis x'D é́ n̂",
    " \u00a0\u3000\u2028wide \u200bspaces 🚀   ",
)

NAMES = (
    *("gpt-2", "smollm", "llama-bpe", "qwen2", "starcoder", "refact", "command-r", "deepseek-llm"),
    *("deepseek-coder", "falcon", "mpt", "gpt-neox", "olmo", "stablelm2", "tekken", "chatglm-bpe"),
    *("gpt-4o", "default", "deepseek-v3", "dbrx"),
)


def pieces(name, text):
    """With every byte as a printable character, as GPT-2 has it."""
    return [piece for piece, _ in pretokenizers.named(name).build().pre_tokenize_str(text)]


@pytest.mark.parametrize("name", NAMES)
def test_text_is_cut_as_the_golden_file_says(name, request):
    if request.config.getoption("--bless"):
        cuts = {name: {text: pieces(name, text) for text in TEXTS} for name in NAMES}
        GOLDEN.parent.mkdir(exist_ok=True)
        GOLDEN.write_text(json.dumps(cuts, ensure_ascii=False, indent=1) + "\n")
    wanted = json.loads(GOLDEN.read_text())[name]
    assert wanted == {text: pieces(name, text) for text in TEXTS}


def test_an_unknown_pre_tokenizer_is_refused_by_name_with_the_closest_that_is_known():
    with pytest.raises(BadCheckpoint, match=r"tokenizer\.ggml\.pre is 'qwen-2'.*'qwen2'"):
        pretokenizers.named("qwen-2")


def test_every_name_and_alias_can_be_built():
    for name in pretokenizers.known():
        assert pieces(name, "a b")


# As published: tokenizer.json of each model; for tekken, its own file; for "default", llama.cpp.
GPT2 = r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
LLAMA3 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN2 = LLAMA3.replace("{1,3}", "")
TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
O200K = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
DEEPSEEK_V3 = (
    r"\p{N}{1,3}",
    "[一-龥\u3040-ゟ゠-ヿ]+",
    r"[!\"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+"
    r"| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
)
CJK = "[\u4e00-\u9fa5\u0800-\u4e00\uac00-\ud7ff]+"
CASED = r"[\p{Lu}\p{Ll}\p{Lt}]"  # DeepSeek's list, but for letters that its texts here have not
PUNCTUATION = r"[\p{P}$+<=>^`|~]+"
BYTES = object()  # from here on, the characters that stand for bytes

PUBLISHED = {
    "gpt-2": (GPT2, BYTES),
    "smollm": (r"\p{N}", GPT2, BYTES),
    "llama-bpe": (LLAMA3, BYTES),
    "qwen2": (QWEN2, BYTES),
    "tekken": (TEKKEN, BYTES),
    "gpt-4o": (O200K, BYTES),
    "deepseek-v3": (*DEEPSEEK_V3, BYTES),
    "deepseek-coder": (r"[\r\n]", r"\s?\p{L}+", r"\s?\p{P}+", CJK, r"\p{N}", BYTES),
    "deepseek-llm": (
        *(r"[\r\n]", rf"\s?{CASED}+", r"\s?[!-/:-~！-／：-～‘-‟\u3000-。]+"),
        *(r"\s+$", CJK, r"\p{N}", BYTES),
    ),
    "falcon": (PUNCTUATION, GPT2, BYTES, r"\p{N}+", "[0-9][0-9][0-9]"),
    "default": (PUNCTUATION.replace("`", ""), GPT2, r"\p{N}+", "[0-9][0-9][0-9]", BYTES),
}
SAME = {
    **dict.fromkeys(("starcoder", "refact", "command-r"), "smollm"),
    **dict.fromkeys(("mpt", "gpt-neox", "olmo"), "gpt-2"),
    **dict.fromkeys(("chatglm-bpe", "dbrx"), "llama-bpe"),
    "stablelm2": "qwen2",
}


def printable(text):
    """GPT-2's bytes_to_unicode."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    hidden = [byte for byte in range(256) if byte not in shown]
    table = dict(zip([*shown, *hidden], [*shown, *range(256, 512)], strict=False))
    return "".join(chr(table[byte]) for byte in text.encode())


def cut_by(regex, text, pattern):
    """Matches and what lies between them."""
    end = 0
    for match in regex.finditer(pattern, text):
        yield from (part for part in (text[end : match.start()], match.group()) if part)
        end = match.end()
    if text[end:]:
        yield text[end:]


@pytest.mark.oracle
@pytest.mark.parametrize("name", NAMES)
def test_the_published_patterns_cut_the_same_in_another_engine(name):
    import regex

    wanted = {}
    for text in TEXTS:
        parts = [text]
        for step in PUBLISHED[SAME.get(name, name)]:
            if step is BYTES:
                parts = [printable(part) for part in parts]
            else:
                parts = [p for part in parts for p in cut_by(regex, part, step)]
        wanted[text] = parts
    assert wanted == json.loads(GOLDEN.read_text())[name]
