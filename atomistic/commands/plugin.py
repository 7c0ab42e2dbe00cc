"""`atomistic plugin`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    script: Annotated[
        bool, typer.Option("--script", help="Print the lines for a LAMMPS script instead.")
    ] = False,
    potential: Annotated[
        Path | None,
        typer.Option(help="A .mtp file: straight code for its moments, up to twice as fast."),
    ] = None,
) -> None:
    """Compile the LAMMPS pair style mtp if need be, and print where it is.

    Example: export LAMMPS_PLUGIN_PATH=$(atomistic plugin --potential llzo.mtp), then lmp -in in.lammps
    """
    from atomistic.mtp.plugin import build_plugin
    from atomistic.mtp.potential import read_mtp

    plugin = build_plugin(None if potential is None else read_mtp(potential))
    if script:
        typer.echo(f"plugin load {plugin}\npair_style mtp\npair_coeff * * FILE.mtp SYMBOL...")
    else:
        typer.echo(str(plugin.parent))
