"""How the allowed bytes are shared out, and what is refused because it does not fit.

Arithmetic only: allocates nothing and asks the machine nothing.

    memory = weights + buffers + pages (+ what no sequence could use)

The full groups get F pages each, a window group min(F, what the running sequences' windows can
hold), with the largest F that fits. More pages than all running sequences need hold the prefixes
of finished ones: up to PREFIX_SHARE times that need, because memory beyond it would be touched once
and hardly ever read again.
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

from octavo.config import Config, Plan
from octavo.errors import BadConfig
from octavo.kvcache.pool import page_bytes
from octavo.kvcache.tables import most_pages
from octavo.types import PAGE_SIZE, KVGroup

PREFIX_SHARE = 2
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class Needs:
    """What a model takes, whatever the machine."""

    groups: Sequence[KVGroup]
    trained_context: int  # tokens
    weight_bytes: int
    buffer_bytes: int
    kv_dtype: str  # of the pages


def make_plan(config: Config, needs: Needs, memory: int, threads: int) -> Plan:
    """Raises BadConfig, with the arithmetic, where `memory` bytes do not hold one sequence."""
    context = config.max_context or needs.trained_context
    if context > needs.trained_context:
        raise BadConfig(
            "max_context",
            f"{context} tokens asked, the model was trained for {needs.trained_context}: "
            f"give at most {needs.trained_context}",
        )
    most = pages_for(context) * config.max_running * (PREFIX_SHARE if config.prefix_cache else 1)
    left = memory - needs.weight_bytes - needs.buffer_bytes
    fitting = bisect_right(
        range(most + 1), left, key=lambda full: _bytes(needs, _share(config, needs, full))
    )
    full = fitting - 1
    if full < 1:
        raise BadConfig("memory", _nothing_left(config, needs, memory))
    if config.max_context and full < pages_for(context):
        raise BadConfig("max_context", _too_long(config, needs, memory, full))
    num_pages = _share(config, needs, full)
    return Plan(
        memory=memory,
        weight_bytes=needs.weight_bytes,
        buffer_bytes=needs.buffer_bytes,
        page_bytes=_bytes(needs, num_pages),
        num_pages=num_pages,
        max_context=min(context, full * PAGE_SIZE),
        threads=threads,
    )


def pages_for(tokens: int) -> int:
    return -(-tokens // PAGE_SIZE)


def _share(config: Config, needs: Needs, full: int) -> tuple[int, ...]:
    """Pages of each group, if the full ones get `full`."""
    return tuple(min(full, _most_useful(config, group, full)) for group in needs.groups)


def _most_useful(config: Config, group: KVGroup, full: int) -> int:
    if group.window is None:
        return full
    # One step's tokens are counted for every sequence, though only one can have them all: what
    # the others leave holds prefixes.
    return config.max_running * most_pages(group.window, full * PAGE_SIZE, config.step_tokens)


def _bytes(needs: Needs, num_pages: Sequence[int]) -> int:
    sizes = [page_bytes(group, needs.kv_dtype) for group in needs.groups]
    return sum(size * count for size, count in zip(sizes, num_pages, strict=True))


def _nothing_left(config: Config, needs: Needs, memory: int) -> str:
    least = needs.weight_bytes + needs.buffer_bytes + _bytes(needs, _share(config, needs, 1))
    at_least = "at least" if needs.buffer_bytes else "more than"  # what those take is not known yet
    return (
        f"{_taken(config, needs, memory)}; nothing is left for one sequence of one page "
        f"({PAGE_SIZE} tokens): give {at_least} {_mib(least)}"
    )


def _too_long(config: Config, needs: Needs, memory: int, full: int) -> str:
    asked = pages_for(config.max_context or 0)
    takes = _bytes(needs, _share(config, needs, asked))
    least = needs.weight_bytes + needs.buffer_bytes + takes
    return (
        f"{config.max_context} tokens of one sequence take {_mib(takes)} of pages; "
        f"{_taken(config, needs, memory)}: give at most {full * PAGE_SIZE} tokens or at least "
        f"{_mib(least)} of memory"
    )


def _taken(config: Config, needs: Needs, memory: int) -> str:
    source = "is free" if config.memory is None else "asked"
    return (
        f"{_mib(memory)} {source}, weights take {_mib(needs.weight_bytes)}, "
        f"buffers {_mib(needs.buffer_bytes)}"
    )


def _mib(num_bytes: int) -> str:
    """Rounded up, so that what an error tells to give is enough."""
    return f"{-(-num_bytes // MIB)} MiB"
