"""`atomistic active-set`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    potential: Annotated[Path, typer.Argument(help="A .mtp file.", show_default=False)],
    frames: Annotated[Path, typer.Argument(help="The structures it was trained on.", show_default=False)],
    out: Annotated[Path, typer.Option("--out", metavar="FILE")] = Path("active_set.grade"),
    species: Annotated[
        str | None,
        typer.Option(help="Symbols in the potential's order, for files that name none.", show_default=False),
    ] = None,
) -> None:
    """Select the active set of a potential: what `atomistic md --grade` and `pair_style mtp grade` measure against.

    Example: atomistic active-set llzo.mtp training.xyz --out llzo.grade
    """
    from atomistic.labels import read_frames
    from atomistic.mtp.grade import select_active_set
    from atomistic.mtp.potential import read_mtp

    model = read_mtp(potential, species.split() if species else None)
    structures = read_frames(frames)
    active_set = select_active_set(model, structures)
    out.parent.mkdir(parents=True, exist_ok=True)
    active_set.save(out)
    held = (active_set.origin[..., 0] >= 0).sum(axis=1)
    for symbol, count in zip(model.species, held, strict=True):
        typer.echo(f"{symbol:<3} {count} of {active_set.dimension} directions held by the frames")
    typer.echo(str(out))
