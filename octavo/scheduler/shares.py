"""Who has had how much, so that nobody's crowd keeps another waiting.

Every tenant has a counter of virtual tokens: a prompt's count once, cached ones hardly, generated
ones twice (Sheng et al. 2024, "Fairness in Serving Large Language Models", section 4). A request is
tagged, when it comes, with its tenant's counter, which its estimate then moves on; requests are
served in order of their tags. Who comes back after a pause is lifted to the lowest tag that is
there: a pause saves nothing up.

    flood   tags 0 300 600 900 ...        one tenant alone is served in order of arrival
    guest              lifted to the lowest of those that wait or run: next but one

When a request ends, its estimate is replaced by what it took.
"""

from octavo.types import SamplingParams

PROMPT, CACHED, GENERATED = 1.0, 0.1, 2.0  # virtual tokens of one token
ANSWER = 512  # tokens that an answer is estimated at, at most: few are longer
MOST_TENANTS = 1000  # remembered beyond those that are ahead of everybody


class Shares:
    def __init__(self) -> None:
        self._used: dict[str, float] = {}
        self._tags: dict[str, float] = {}  # of each tenant's last request

    def tag(self, tenant: str, cost: float, floor: float) -> float:
        """Of a request that comes now; `floor` is the lowest tag among all that wait or run. A
        tenant's own requests keep their order."""
        tag = max(self._used.get(tenant, 0.0), self._tags.get(tenant, 0.0), floor)
        self._used[tenant], self._tags[tenant] = tag + cost, tag
        if len(self._used) > MOST_TENANTS:
            self._forget_below(floor)
        return tag

    def another_precedes(self, tenant: str, tag: float) -> bool:
        """Of another who is remembered, whether here or not, a request that came now would come
        before one with that tag."""
        return any(used < tag for one, used in self._used.items() if one != tenant)

    def settle(self, tenant: str, estimated: float, true: float) -> None:
        if tenant in self._used:
            self._used[tenant] += true - estimated

    def clear(self) -> None:
        """Nobody is there: all begin anew."""
        self._used.clear()
        self._tags.clear()

    def _forget_below(self, floor: float) -> None:
        """A request of theirs would be lifted to the floor, remembered or not."""
        for tenant in [one for one, used in self._used.items() if used <= floor]:
            del self._used[tenant], self._tags[tenant]


def estimate(num_prompt: int, params: SamplingParams) -> float:
    answer = ANSWER if params.max_tokens is None else min(params.max_tokens, ANSWER)
    return cost(num_prompt, 0, answer)


def cost(num_prompt: int, num_cached: int, num_generated: int) -> float:
    """In virtual tokens."""
    return PROMPT * (num_prompt - num_cached) + CACHED * num_cached + GENERATED * num_generated
