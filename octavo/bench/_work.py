"""The work that ours and every peer's speed is measured on: made-up tokens, the same for all."""


def token_id(i: int, vocab_size: int = 21_000) -> int:
    """Spread over the lower part of a vocabulary of real size; repeats after 20,000."""
    return (1000 + i * 7919 % 20_000) % vocab_size
