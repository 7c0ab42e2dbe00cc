"""`atomistic batch-export`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    campaigns: Annotated[
        list[Path], typer.Argument(metavar="CAMPAIGN...", help="Folders of campaigns.", show_default=False)
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="The batch.", show_default=False)],
    time_ps: Annotated[
        float | None, typer.Option(min=1e-3, help="Instead of the settings'.", show_default=False)
    ] = None,
    npt_ps: Annotated[
        float | None, typer.Option(min=0.0, help="Instead of the settings'.", show_default=False)
    ] = None,
    frame_interval_ps: Annotated[
        float | None, typer.Option(min=1e-3, help="Instead of the settings'.", show_default=False)
    ] = None,
) -> None:
    """Collect the open production runs of campaigns, for a GPU.

    Their equilibration and swaps must have ended (`atomistic mcmd`). The folder needs only a compiler to run.

    Example: atomistic batch-export runs/llzo-bulk runs/llzo-sigma5 --out batch --time-ps 1000
    """
    from atomistic.batch import export_batch

    index = export_batch(campaigns, out, time_ps=time_ps, npt_ps=npt_ps, frame_interval_ps=frame_interval_ps)
    steps = index["npt_steps"] + index["steps"]
    typer.echo(f"{len(index['replicas'])} runs, {index['atoms']} atoms, {steps} steps: {out}")
