"""`atomistic validate`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer


def command(
    potential: Annotated[Path, typer.Argument(help="A .mtp file.", show_default=False)],
    frames: Annotated[Path, typer.Argument(help="Labelled structures, extxyz.", show_default=False)],
    species: Annotated[
        str | None,
        typer.Option(help="Symbols in the potential's order, for files that name none.", show_default=False),
    ] = None,
    energy_limit: Annotated[
        float | None, typer.Option(help="Fail above this energy MAE, meV/atom.", show_default=False)
    ] = None,
    force_limit: Annotated[
        float | None, typer.Option(help="Fail above this force RMSE, eV/angstrom.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", metavar="DIR", help="Also write results.json.", show_default=False)
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Energy and force errors of a potential on labelled frames, by system; exit code 1 above a limit.

    Example: atomistic validate llzo.mtp held_out.xyz --energy-limit 2 --force-limit 0.13
    """
    from atomistic.labels import read_frames
    from atomistic.mtp.core import RepulsiveCore
    from atomistic.mtp.potential import read_mtp
    from atomistic.validation import frame_errors, mtp_evaluation, summarise

    model = read_mtp(potential, species.split() if species else None)
    core = RepulsiveCore.beside(potential, model.species)
    table = summarise(frame_errors(mtp_evaluation(model, core), read_frames(frames, labelled=True)))
    systems = [
        {key: None if isinstance(value, float) and math.isnan(value) else value for key, value in row.items()}
        for row in table.to_dict("records")
    ]
    quantities: tuple[tuple[str, str, float | None], ...] = (
        ("energy MAE, meV/atom", "energy_MAE_meV_per_atom", energy_limit),
        ("force RMSE, eV/angstrom", "force_RMSE_eV_per_A", force_limit),
    )
    rows: list[dict[str, Any]] = [
        {
            "name": f"{name}, {system['system']}",
            "expected": 0.0,
            "got": system[key],
            "error": system[key],
            "tolerance": limit,
            "passed": bool(limit is None or float(system[key] or 0.0) <= limit),
        }
        for system in systems
        for name, key, limit in quantities
    ]
    report = {"potential": potential.name, "checksum": model.checksum, "systems": systems, "rows": rows}
    text = json.dumps(report, indent=1)
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)
        (out / "results.json").write_text(text + "\n", encoding="utf-8")
    if as_json:
        typer.echo(text)
    else:
        typer.echo("system                frames   atoms  energy MAE / meV per atom  force RMSE / eV per A")
        for row in systems:
            typer.echo(
                f"{row['system']!s:<20} {row['frames']:>7} {row['atoms']:>7}"
                f" {row['energy_MAE_meV_per_atom']:>26.3f} {row['force_RMSE_eV_per_A']:>22.4f}"
            )
    if not all(row["passed"] for row in rows):
        raise typer.Exit(1)
