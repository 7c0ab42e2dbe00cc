"""`atomistic batch-run`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    batch: Annotated[
        Path, typer.Argument(metavar="DIR", help="A folder of batch-export.", show_default=False)
    ],
    seconds: Annotated[float, typer.Option(min=1e-3, help="End at the first frame after this time.")] = 1e9,
    host: Annotated[bool, typer.Option("--host", help="One core of this machine, without a GPU.")] = False,
) -> None:
    """Compile and run a batch, on a GPU where nvcc is found.

    Without this package: nvcc -std=c++17 -O3 -arch=native -x cu batch_md.cpp -o md; ./md job.txt out.bin 1e9

    Example: atomistic batch-run batch --seconds 500
    """
    from atomistic.batch import run_batch

    typer.echo(run_batch(batch, seconds=seconds, gpu=False if host else None))
