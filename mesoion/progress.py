"""Progress with the remaining time on a terminal; silent everywhere else."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Iterator, Sized
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from rich.progress import Progress

T = TypeVar("T")
_shared: Progress | None = None


@contextmanager
def _bars() -> Iterator[Progress]:
    """The process's one live display: nested loops add lines to it."""
    global _shared
    if _shared is not None:
        yield _shared
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
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        _shared = progress
        try:
            yield progress
        finally:
            _shared = None


def track(
    iterable: Iterable[T], label: str, total: int | None = None, *, done: int = 0, show: bool | None = None
) -> Iterator[T]:
    """The items of `iterable`, with a progress bar on stderr.

    total: number of items (taken from `len` where it has one). done: items finished earlier, of `total`.
    show: None shows the bar when stderr is a terminal.
    """
    if not (sys.stderr.isatty() if show is None else show):
        yield from iterable
        return
    if total is None and isinstance(iterable, Sized):
        total = len(iterable) + done
    with _bars() as progress:
        task = progress.add_task(label, total=total, completed=done)
        try:
            for item in iterable:
                yield item
                progress.advance(task)
        finally:
            progress.remove_task(task)
