"""`atomistic build`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def command(
    settings: Annotated[
        Path, typer.Argument(metavar="SETTINGS.toml", help="A campaign's settings.", show_default=False)
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", metavar="DIR", help="Default: runs/ and the name of SETTINGS.", show_default=False
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Build the cells of a campaign: bulk or boundary, one per seed, with a picture and a report.

    Example: atomistic build sigma5.toml --out runs/sigma5
    """
    from atomistic.campaign import run_campaign
    from atomistic.sampling import read_settings

    folder = out or Path("runs") / settings.stem
    run_campaign(read_settings(settings), folder, base=settings.parent, until="build")
    text = (folder / "build" / "results.json").read_text(encoding="utf-8")
    if as_json:
        typer.echo(text, nl=False)
        return
    report = json.loads(text)
    for seed, cell in report["cells"].items():
        charge = "unknown" if cell["charge_e"] is None else f"{cell['charge_e']:+d}"
        lengths = " x ".join(f"{length:.2f}" for length in cell["lengths_A"])
        typer.echo(
            f"seed {seed}: {cell['formula']}, {cell['atoms']} atoms, charge {charge} e, {lengths} Å,"
            f" {cell['density_kg_per_m3']:.0f} kg/m³, shortest distance {cell['shortest_distance_A']:.2f} Å"
        )
    for row in report.get("search", [])[:5]:
        energy = row["energies"].get("boundary_energy_J_per_m2")
        candidate = row["candidate"]
        shown = "" if energy is None else f", boundary energy {energy:.2f} J/m²"
        shift = ", ".join(f"{value:.2f}" for value in candidate["shift"])
        typer.echo(
            f"candidate: shift {shift} Å, gap {candidate['gap']:g} Å, removed {candidate['removed']}, model"
            f" {candidate['energy']:.2f} J/m²{shown}"
        )
    typer.echo(f"cells: {folder / 'cells'}\npicture: {folder / 'build' / 'structure.png'}")
