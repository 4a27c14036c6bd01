"""What the person asked for (Config), and what this machine will do about it (Plan).

A Config is never edited. Numbers that depend on the checkpoint or the free memory live in the
Plan, so no field ever means "not decided yet".
"""

from dataclasses import dataclass

from octavo.errors import BadConfig


@dataclass(frozen=True, slots=True)
class Config:
    """Help texts of the command line come from the comments beside these fields."""

    model: str
    memory: int | None = None  # bytes for weights, buffers and KV pages; None: what is free
    max_context: int | None = None  # tokens per sequence; None: what the model was trained for
    max_running: int = 16  # sequences decoded in one step
    max_waiting: int = 256  # requests that may queue for a place; one more is refused
    step_tokens: int = 256  # tokens of one step; smaller is smoother, larger is faster
    threads: int | None = None  # None: one for each CPU this process may use
    prefix_cache: bool = True  # find the pages of earlier prompts again
    kv_dtype: str = "float16"  # how KV pages keep numbers: float16, int8 (half the memory)
    tool_dialect: str | None = None  # how the model writes calls; None: as its chat template does
    home: str = "cpu"  # which kernels compute: cpu, reference

    def __post_init__(self) -> None:
        for name, most in (
            ("memory", 2**63 - 1),
            ("max_context", 2**31 - 1),
            ("max_running", 4096),
            ("max_waiting", 2**31 - 1),
            ("step_tokens", 2**16),
            ("threads", 1024),
        ):
            value = getattr(self, name)
            if value is None and name in ("memory", "max_context", "threads"):
                continue
            if not isinstance(value, int) or not 1 <= value <= most:
                problem = f"{value!r} is not in [1, {most}]: give a whole number within"
                raise BadConfig(name, problem)
        if self.step_tokens < self.max_running:
            least = self.max_running
            problem = f"{self.step_tokens} is less than max_running: give at least {least}"
            raise BadConfig("step_tokens", problem)

    @property
    def max_requests(self) -> int:
        """That run and wait; as many again in the background."""
        return self.max_running + self.max_waiting


@dataclass(frozen=True, slots=True)
class Plan:
    """Every byte has its use before the first request: weights + buffers + pages <= memory."""

    memory: int  # bytes allowed
    weight_bytes: int
    buffer_bytes: int  # of the compiled program
    page_bytes: int  # of all pages of all groups
    num_pages: tuple[int, ...]  # per KV group
    max_context: int  # tokens per sequence
    threads: int
