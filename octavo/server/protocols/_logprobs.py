"""Logprobs in OpenAI's two spellings, the chat one and the legacy one, and in vLLM's.

A token whose bytes are no whole text is spelled out ("\\xf0\\x9f"), so that two of them stay two.
"""

import codecs
from collections.abc import Iterable, Sequence

from octavo.server.calls import Tokenizer
from octavo.types import Json, TokenLogprob

LOWEST = -9999.0  # stands for minus infinity, which JSON has no word for


def chat_logprobs(tokens: Iterable[TokenLogprob], tokenizer: Tokenizer) -> Json:
    def one(token_id: int, logprob: float) -> Json:
        raw = tokenizer.token_bytes(token_id, special=True)
        return {"token": _spelled(raw), "logprob": max(logprob, LOWEST), "bytes": list(raw)}

    content = [
        one(token.token_id, token.logprob)
        | {"top_logprobs": [one(rival, logprob) for rival, logprob in token.top]}
        for token in tokens
    ]
    return {"content": content, "refusal": None}


class LegacyLogprobs:
    """Logprobs of /v1/completions: parallel lists. Keeps the text offset from part to part."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        self.decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self.offset = 0  # characters said so far

    def part(self, tokens: Sequence[TokenLogprob], text: str = "") -> Json:
        """`text`: all of the text that the tokens come from, where control tokens may be written
        out in it."""
        return {
            "tokens": [self._name(token.token_id) for token in tokens],
            "token_logprobs": [max(token.logprob, LOWEST) for token in tokens],
            "top_logprobs": [self._rivals(token) for token in tokens],
            "text_offset": [self._pass(token.token_id, text) for token in tokens],
        }

    def prompt(self, ids: Sequence[int], scored: Sequence[TokenLogprob], text: str) -> Json:
        """The first token has nothing before it to be likely after: its entries are null. `text` as
        for a part."""
        first = self.part([TokenLogprob(ids[0], 0.0)], text)
        first |= {"token_logprobs": [None], "top_logprobs": [None]}
        return joined(first, self.part(scored, text))

    def _name(self, token_id: int) -> str:
        raw = self.tokenizer.token_bytes(token_id, special=True)
        spelled = _spelled(raw)
        return spelled if _is_text(raw) else f"bytes:{spelled}"

    def _rivals(self, token: TokenLogprob) -> dict[str, float]:
        """The chosen token is always named, so there may be one more than asked for."""
        likeliest = (*token.top, (token.token_id, token.logprob))
        return {self._name(rival): max(logprob, LOWEST) for rival, logprob in likeliest}

    def _pass(self, token_id: int, text: str) -> int:
        start, raw = self.offset, self.tokenizer.token_bytes(token_id)
        if not raw:  # a control token: written in the text, or put before it
            control = self.tokenizer.token_bytes(token_id, special=True)
            raw = control if text.startswith(control.decode(), start) else b""
        self.offset += len(self.decoder.decode(raw))
        return start


def joined(left: Json, right: Json) -> Json:
    return {name: left[name] + right[name] for name in left}


def prompt_logprobs(scored: Iterable[TokenLogprob], tokenizer: Tokenizer) -> list[Json | None]:
    """vLLM's shape: for each prompt token the candidates by id, null for the first."""

    def one(token_id: int, logprob: float, rank: int | None) -> Json:
        spelled = _spelled(tokenizer.token_bytes(token_id, special=True))
        return {"logprob": max(logprob, LOWEST), "rank": rank, "decoded_token": spelled}

    def candidates(token: TokenLogprob) -> Json:
        ranked = [(*rival, rank) for rank, rival in enumerate(token.top, start=1)]
        known = {str(rival): one(rival, logprob, rank) for rival, logprob, rank in ranked}
        return {str(token.token_id): one(token.token_id, token.logprob, None)} | known

    return [None, *map(candidates, scored)]


def _spelled(raw: bytes) -> str:
    return raw.decode() if _is_text(raw) else "".join(f"\\x{byte:02x}" for byte in raw)


def _is_text(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
