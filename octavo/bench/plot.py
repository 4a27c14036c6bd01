"""A recorded run as a picture and as the tables of the documents."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from octavo.bench import _figures, _record
from octavo.bench._record import Record, RecordedStep, Result, Row
from octavo.errors import BadConfig, BadRequest

ROW_HEIGHT, MARGIN = 0.34, 1.1  # inches
SHADES = {"int8 peak": "#4c72b0", "bandwidth": "#55a868"}
OURS, TARGET = "#4c72b0", "#c44e52"
KINDS = {
    "linear": "#4c72b0",
    "attention": "#55a868",
    "rows": "#ccb974",
    "python": "#c44e52",
    "waiting": "#bbbbbb",
}


def command(
    record: Annotated[
        Path,
        typer.Argument(exists=True, dir_okay=False, help="What `octavo bench record` wrote."),
    ],
    *,
    svg: Annotated[
        Path | None, typer.Option(help="The picture; beside the record if not given.")
    ] = None,
    into: Annotated[
        list[Path] | None,
        typer.Option(
            help="A document with places for figures; if not given, the .md beside the record and "
            "the README.md above it, where they are there. May be given several times."
        ),
    ] = None,
) -> None:
    """Draw a recorded run, and write its tables into documents.

    A document marks the places: <!-- figures: works --> and <!-- end of figures --> around what is
    replaced; machine, summary and ops are the other tables. Needs matplotlib: pip install
    '.[bench]' in Octavo's folder.

    \b
    Examples:
        octavo bench plot docs/performance.json
        octavo bench plot run.json --svg run.svg --into notes.md
    """
    require_matplotlib()
    found = read(record)
    documents = into if into is not None else documents_of(record)
    tables = _figures.tables(found)
    texts = {path: _figures.fill(_text(path), tables, str(path)) for path in documents}
    picture = svg or record.with_suffix(".svg")
    draw(found, picture)
    for path, text in texts.items():
        path.write_text(text, encoding="utf-8")
    typer.echo("\n".join(map(str, [picture, *texts])))


def read(path: Path) -> Record:
    """Raises BadRequest, also for a record of nothing."""
    found = _record.read(path)
    if not found.rows:
        raise BadRequest("nothing is recorded in it: record something first", str(path))
    return found


def documents_of(record: Path) -> list[Path]:
    usual = [record.with_suffix(".md"), record.absolute().parent.parent / "README.md"]
    return [path for path in usual if path.exists()]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        raise BadRequest("it is not UTF-8: convert it", str(path)) from None


def require_matplotlib() -> None:
    try:
        import_module("matplotlib")
    except ImportError as error:
        problem = "matplotlib is not installed: pip install '.[bench]' in Octavo's folder"
        raise BadConfig("plot", problem) from error


def draw(record: Record, path: Path) -> None:
    """The same bytes for the same record and matplotlib."""
    matplotlib: Any = import_module("matplotlib")
    figures: Any = import_module("matplotlib.figure")
    style = {"svg.hashsalt": "octavo", "svg.fonttype": "none", "font.size": 9}
    with matplotlib.rc_context(style):
        rows = max(len(record.rows), len(record.steps))
        panels = 3 if record.steps else 2
        figure = figures.Figure(
            figsize=(5.5 * panels, MARGIN + ROW_HEIGHT * rows), layout="constrained"
        )
        axes = figure.subplots(1, panels)
        _draw_shares(axes[0], record.rows)
        _draw_ratios(axes[1], record.rows)
        if record.steps:
            _draw_steps(axes[2], record.steps)
        figure.savefig(path, format="svg", metadata={"Date": None})


def _draw_shares(axes: Any, rows: Sequence[tuple[Row, Result]]) -> None:
    limits = [result.limit(row.of) for row, result in rows]
    _bars(axes, [_label(*one) for one in rows], [share for share, _ in limits], "{:.0%}")
    for bar, (_, limit) in zip(axes.patches, limits, strict=True):
        bar.set_color(SHADES[limit])
    _mark(axes, [row.share for row, _ in rows])
    axes.set_xlim(0, 1.05)
    axes.set_title("share of the machine's limit")
    axes.set_xlabel("blue: int8 peak; green: read bandwidth; red: target")


def _draw_ratios(axes: Any, rows: Sequence[tuple[Row, Result]]) -> None:
    ratios = [result.ratio(row.of) for row, result in rows]
    _bars(axes, [""] * len(rows), [ratio or 0 for ratio in ratios], "{:.2f}x")
    _mark(axes, [row.ratio for row, _ in rows])
    axes.axvline(1, color="black", linewidth=0.8)
    axes.margins(x=0.15)
    axes.set_title("tokens/s as a ratio to the better peer")
    axes.set_xlabel("red: target")


def _draw_steps(axes: Any, steps: Sequence[RecordedStep]) -> None:
    """Where the time of each goes; a dot is the share of the linear layers' limit."""
    places, before = range(len(steps)), [0.0] * len(steps)
    for kind, shade in KINDS.items():
        shares = [step.share(kind) for step in steps]
        axes.barh(places, shares, left=before, height=0.7, color=shade)
        before = [one + share for one, share in zip(before, shares, strict=True)]
    axes.plot([step.limit_share("linear") or 0 for step in steps], places, "o", color="black")
    axes.set_yticks(places, [f"{step.model}, {step.title}" for step in steps])
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlim(0, 1.05)
    axes.set_title("where the time goes")
    axes.set_xlabel(
        "blue: linear, green: attention, yellow: other operations, red: Python, grey: waiting\n"
        "dot: share of the limit of the linear layers"
    )


def _label(row: Row, result: Result) -> str:
    return f"{result.model}, {row.title}"


def _bars(axes: Any, names: Sequence[str], lengths: Sequence[float], shown: str) -> None:
    places = range(len(names))
    axes.barh(places, lengths, height=0.7, color=OURS)
    axes.set_yticks(places, names)
    axes.invert_yaxis()
    axes.spines[["top", "right"]].set_visible(False)
    for place, length in enumerate(lengths):
        axes.text(length, place, f" {shown.format(length)}" if length else " ?", va="center")


def _mark(axes: Any, targets: Sequence[float | None]) -> None:
    for place, target in enumerate(targets):
        if target is not None:
            axes.plot([target, target], [place - 0.4, place + 0.4], color=TARGET, linewidth=2)
