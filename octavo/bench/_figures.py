"""A record as tables in Markdown, and their places in documents, which are written by command only.

<!-- figures: works -->
| ... what stood here is replaced ... |
<!-- end of figures -->
"""

import re
from collections.abc import Mapping, Sequence
from math import floor

from octavo.bench._record import PeerResult, Record, Result, Row
from octavo.errors import BadRequest

_PLACE = re.compile(r"(<!-- figures: (\w+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)


def tables(record: Record) -> dict[str, str]:
    """By the name that a place asks for."""
    return {name: table(record) for name, table in _TABLES.items()}


def fill(text: str, tables: Mapping[str, str], name: str) -> str:
    """`text` with `tables` in their places; `name` is the document's, for errors. Raises BadRequest
    where it has no place, or one for a table that there is not."""
    places = [found[2] for found in _PLACE.finditer(text)]
    if not places:
        problem = "it has no place for figures: <!-- figures: works --> ... <!-- end of figures -->"
        raise BadRequest(problem, name)
    if unknown := [place for place in places if place not in tables]:
        known = ", ".join(tables)
        raise BadRequest(f"there is no table {unknown[0]!r}, these are known: {known}", name)
    return _PLACE.sub(lambda found: found[1] + tables[found[2]] + found[3], text)


def _machine(record: Record) -> str:
    limits = [work.result.roofline for work in record.works]
    reads = _range([one.read_bytes_per_second / 1e9 for one in limits])
    peak = _range([one.byte_multiply_adds_per_second / 1e9 for one in limits])
    runs = _range([work.result.runs for work in record.works])
    threads = _range([one.threads for one in limits])
    kernels = ", ".join(dict.fromkeys(one.instruction_set for one in limits))
    peers = ", ".join(f"{peer} {'/'.join(record.versions(peer))}" for peer in record.peers)
    return (
        f"Recorded on {record.date} with Octavo {record.octavo} ({kernels}, {threads} threads) on "
        f"{record.processor}, {record.cpus} CPUs,\nwhich read {reads} GB/s and did {peak} G int8 "
        f"multiply-adds a second at most; medians of {runs}. Peers: {peers or 'none'}.\n"
    )


def _range(numbers: Sequence[float]) -> str:
    low, high = round(min(numbers)), round(max(numbers))
    return str(low) if low == high else f"{low}-{high}"


def _works(record: Record) -> str:
    head = ["model", "work", "ours", *record.peers, "to the better", "target", "of the limit"]
    return _table(
        head,
        [
            [
                *_cells(record, row, result),
                _target(row),
                _limit(result, row),
            ]
            for row, result in record.rows
        ],
    )


def _summary(record: Record) -> str:
    head = ["model", "work", "tokens/s", *record.peers, "to the better"]
    return _table(head, [_cells(record, row, result) for row, result in record.rows])


def _cells(record: Record, row: Row, result: Result) -> list[str]:
    peers = {peer.peer: peer for peer in result.peers}
    return [
        result.model,
        row.title,
        _number(result.speed(row.of)),
        *(_peer(peers.get(name), row) for name in record.peers),
        _ratio(result.ratio(row.of)),
    ]


def _peer(peer: PeerResult | None, row: Row) -> str:
    speed = getattr(peer, f"{row.of}_tokens_per_second", None)
    return "fails" if peer and speed is None else _number(speed)


def _limit(result: Result, row: Row) -> str:
    share, limit = result.limit(row.of)
    return f"{_percent(share)} of {limit}"


def _target(row: Row) -> str:
    if row.share is not None:
        return f"{row.share:.0%} of the limit"
    return _ratio(row.ratio)


def _ops(record: Record) -> str:
    if not record.steps:
        return ""
    head = ["model", "work", "ms", "linear", "of its limit", "attention", "of its limit"]
    return _table(
        [*head, "other operations", "Python", "threads waiting"],
        [
            [
                step.model,
                step.title,
                _number(step.seconds * 1e3),
                *(
                    shown
                    for kind in ("linear", "attention")
                    for shown in (_percent(step.share(kind)), _percent(step.limit_share(kind)))
                ),
                *(_percent(step.share(kind)) for kind in ("rows", "python", "waiting")),
            ]
            for step in record.steps
        ],
    )


def _percent(share: float | None) -> str:
    """Rounded down too."""
    return "" if share is None else f"{floor(share * 100 + 1e-9)}%"


def _number(number: float | None) -> str:
    if number is None:
        return ""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def _ratio(ratio: float | None) -> str:
    """Rounded down: 1.39 has not reached 1.4."""
    return "" if ratio is None else f"{floor(ratio * 10 + 1e-9) / 10:.1f}x"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines).replace("|  |", "| |")


_TABLES = {"machine": _machine, "works": _works, "summary": _summary, "ops": _ops}
NO_RECORD: Mapping[str, str] = dict.fromkeys(_TABLES, "")
