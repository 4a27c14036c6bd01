"""One request on its way through the engine: its tokens and how many of them are computed.

tokens   [ prompt ............ | output ...... ]
         [ in pages ............... | to do .. ]
                                    ^ num_computed
"""

from octavo.kvcache.tables import PageTable
from octavo.types import Request


class Sequence:
    """Made and changed by the Scheduler alone; the engine reads it."""

    def __init__(
        self, request: Request, seed: int, order: tuple[bool, int, float, int], table: PageTable
    ) -> None:
        self.request = request
        self.seed = seed
        self.tokens = list(request.prompt_ids)  # prompt and output; only ever grows
        self.output_ids: list[int] = []
        self.num_computed = 0  # tokens whose keys and values lie in pages
        self.cached_tokens = 0  # of the prompt, found in pages of earlier requests
        self.num_read = 0  # of the prompt, those and all that a step had or has
        self.num_preempted = 0  # times
        self.table = table
        # (in the background, priority, tag of its share, arrival): the lower runs first
        self.order = order

    def __repr__(self) -> str:
        return f"Sequence({self.id!r}, {self.num_computed}/{len(self.tokens)} tokens computed)"

    @property
    def id(self) -> str:
        return self.request.id

    @property
    def is_background(self) -> bool:
        return self.request.is_background

    @property
    def num_prompt(self) -> int:
        return len(self.request.prompt_ids)

    @property
    def num_spent(self) -> int:
        """Tokens of prompt and answer that it took to compute, each once. Any thread may look."""
        return self.num_read - self.cached_tokens + len(self.output_ids)

    @property
    def num_left(self) -> int:
        """Tokens to compute before the next one can be chosen; 1: it is decoding."""
        return len(self.tokens) - self.num_computed

    @property
    def is_prompt_left(self) -> bool:
        """Some of the prompt is to be computed."""
        return self.num_computed < self.num_prompt

    @property
    def wants_prompt_logits(self) -> bool:
        """Then no cached prefix will do: it has pages, but no logits."""
        return self.request.params.prompt_logprobs is not None
