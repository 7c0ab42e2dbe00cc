"""Progress with the remaining time on a terminal; silent everywhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sized
from typing import TypeVar

T = TypeVar("T")


def track(
    iterable: Iterable[T], label: str, total: int | None = None, *, done: int = 0, show: bool | None = None
) -> Iterator[T]:
    """The items of `iterable`, with a progress bar on stderr.

    total: number of items. done: items finished earlier, of `total`. show: None shows the bar on a terminal.
    """
    if not (sys.stderr.isatty() if show is None else show):
        yield from iterable
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("left"),
        TimeRemainingColumn(),
    )
    if total is None and isinstance(iterable, Sized):
        total = len(iterable) + done
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(label, total=total, completed=done)
        for item in iterable:
            yield item
            progress.advance(task)
