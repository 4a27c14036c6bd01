"""How much each key may ask for: requests and tokens a minute, requests at a time.

Owns a bucket of each kind per key. Knows no clock of its own, no HTTP and no engine.

A bucket holds a minute's worth and is refilled evenly. Tokens are reserved as an estimate, prompt
and the most that may be answered, and settled when the truth is known, which is what was computed,
also for one whose client left before its end:

    admit ─▶ Grant, or RateLimited ─▶ ... ─▶ settle(tokens)

What runs in the background leaves half of each bucket to the key's other requests, and takes none
of its places.
"""

from dataclasses import dataclass, field

from octavo.errors import BadRequest, RateLimited
from octavo.scheduler.forecast import Forecast
from octavo.server.keys import Key

MINUTE = 60.0


class Bucket:
    """`level` may go below 0, where more was used than was reserved: the key pays it back."""

    def __init__(self, capacity: int, now: float) -> None:
        self.capacity = capacity
        self._level, self._at = float(capacity), now

    def level(self, now: float) -> float:
        refill = (now - self._at) * self.capacity / MINUTE
        return min(float(self.capacity), self._level + refill)

    def take(self, amount: float, now: float) -> None:
        """A negative amount is given back."""
        self._level, self._at = self.level(now) - amount, now

    def seconds_until(self, level: float, now: float) -> float:
        return max(0.0, level - self.level(now)) * MINUTE / self.capacity


@dataclass(eq=False)
class Account:
    """Of one key."""

    requests: Bucket | None
    tokens: Bucket | None
    running: int = 0
    forecast: Forecast = field(default_factory=Forecast)


@dataclass(eq=False)
class Grant:
    """A request that may run. Whoever was granted it settles it, which counts once."""

    account: Account
    reserved: int  # tokens
    places: int  # of those that run at a time
    begun: float
    is_settled: bool = field(default=False)

    def settle(self, num_tokens: int, now: float) -> None:
        if self.is_settled:
            return
        self.is_settled = True
        self.account.running -= self.places
        if self.places and num_tokens:  # else it did not run
            self.account.forecast.ended(now - self.begun)
        if self.account.tokens:
            self.account.tokens.take(num_tokens - self.reserved, now)


class Limiter:
    def __init__(self) -> None:
        self._accounts: dict[str, Account] = {}

    def admit(self, key: Key, num_tokens: int, now: float, *, in_background: bool = False) -> Grant:
        """Takes one request and `num_tokens` tokens, or nothing: RateLimited, or BadRequest where
        waiting would not help."""
        account, limits, places = self.account(key, now), key.limits, int(not in_background)
        if limits.concurrency is not None and account.running + places > limits.concurrency:
            wait = account.forecast.next_end(account.running)
            raise RateLimited("requests at a time", account.running, limits.concurrency, wait)
        for kind, bucket, amount in (
            ("requests a minute", account.requests, 1),
            ("tokens a minute", account.tokens, num_tokens),
        ):
            if bucket is None:
                continue
            if amount > bucket.capacity:
                raise BadRequest(
                    f"the prompt and the answer may take {amount} tokens, the key's limit is "
                    f"{bucket.capacity} a minute: shorten the prompt or ask for less",
                    "max_tokens",
                )
            needed = amount + bucket.capacity / 2 if in_background else amount
            needed = min(needed, bucket.capacity)
            if bucket.level(now) < needed:
                left = int(max(0.0, bucket.level(now)))
                wait = bucket.seconds_until(needed, now)
                raise RateLimited(kind, bucket.capacity - left, bucket.capacity, wait)
        if account.requests:
            account.requests.take(1, now)
        if account.tokens:
            account.tokens.take(num_tokens, now)
        account.running += places
        return Grant(account, num_tokens, places, now)

    def account(self, key: Key, now: float) -> Account:
        """It begins with full buckets."""
        if (account := self._accounts.get(key.id)) is None:
            account = self._accounts[key.id] = Account(
                _bucket(key.limits.requests_per_minute, now),
                _bucket(key.limits.tokens_per_minute, now),
            )
        return account

    def headers(self, key: Key, now: float) -> dict[str, str]:
        """OpenAI's: what is left, and in how long all of it will be there again."""
        account, headers = self.account(key, now), {}
        for kind, bucket in (("requests", account.requests), ("tokens", account.tokens)):
            if bucket:
                full = bucket.seconds_until(bucket.capacity, now)
                headers[f"x-ratelimit-limit-{kind}"] = str(bucket.capacity)
                headers[f"x-ratelimit-remaining-{kind}"] = str(int(max(0.0, bucket.level(now))))
                headers[f"x-ratelimit-reset-{kind}"] = _duration(full)
        return headers


def _bucket(capacity: int | None, now: float) -> Bucket | None:
    return None if capacity is None else Bucket(capacity, now)


def _duration(seconds: float) -> str:
    """12ms, 1.5s, 6m0s."""
    if seconds < 1:
        return f"{seconds * 1000:.0f}ms"
    if seconds < MINUTE:
        return f"{seconds:.3g}s"
    return f"{int(seconds // MINUTE)}m{int(seconds % MINUTE)}s"
