"""How far a download has come, shown on stderr. Knows nothing of who is downloading."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

PERIOD = 0.1  # seconds between two looks


@contextmanager
def growth(title: str, folder: Path, total: int | None) -> Iterator[None]:
    """A bar that follows the bytes in `folder`; one line where stderr is no terminal.

    Watching the folder works for any downloader and any version of it, which reading its output
    would not.
    """
    if not sys.stderr.isatty():
        print(title, file=sys.stderr, flush=True)
        yield
        return
    done = Event()
    follower = Thread(target=_follow, args=(title, folder, total, done), daemon=True)
    follower.start()
    try:
        yield
    finally:
        done.set()
        follower.join()


def _follow(title: str, folder: Path, total: int | None, done: Event) -> None:
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"),
        progress.BarColumn(),
        progress.DownloadColumn(),
        progress.TransferSpeedColumn(),
    )
    with progress.Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(title, total=total)
        most = 0
        while not done.wait(PERIOD):
            # A file being copied counts twice for a moment; a bar that runs back helps nobody.
            most = max(most, _bytes_in(folder))
            bar.update(task, completed=min(most, total or most))


def _bytes_in(folder: Path) -> int:
    size = 0
    for path in folder.rglob("*"):
        try:
            size += path.stat().st_size
        except OSError:  # moved away while we looked
            continue
    return size
