"""`atomistic plugin`."""

from __future__ import annotations

from typing import Annotated

import typer


def command(
    script: Annotated[
        bool, typer.Option("--script", help="Print the lines for a LAMMPS script instead.")
    ] = False,
) -> None:
    """Compile the LAMMPS pair style mtp if need be, and print where it is.

    Example: export LAMMPS_PLUGIN_PATH=$(atomistic plugin), then lmp -in in.lammps with `pair_style mtp`
    """
    from atomistic.mtp.plugin import build_plugin

    plugin = build_plugin()
    if script:
        typer.echo(f"plugin load {plugin}\npair_style mtp\npair_coeff * * FILE.mtp SYMBOL...")
    else:
        typer.echo(str(plugin.parent))
