"""`atomistic batch-import`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    batch: Annotated[Path, typer.Argument(metavar="DIR", help="A batch that has run.", show_default=False)],
) -> None:
    """Put the runs of a batch into their campaigns, as if `atomistic md` had made them.

    Example: atomistic batch-import batch
    """
    from atomistic.batch import import_batch

    records = import_batch(batch)
    for record in records:
        if record["stopped"]:
            typer.echo(
                f"{record['temperature_K']:g} K seed {record['seed']}: {record['stopped']} after"
                f" {record['time_ps']:g} ps"
            )
    complete = sum(record["stopped"] is None for record in records)
    typer.echo(f"{len(records)} runs, {complete} complete")
