"""`atomistic md`."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Annotated, Any

import typer

MOST_ATOMS = 50_000_000
"""Of a repeated structure; beyond, one machine's memory ends before LAMMPS has started."""

_MARKS = ("state.json", "structure.data")

Symbols = Annotated[
    str | None,
    typer.Option(
        help="Symbols in the potential's order, 'Li La Zr O', for files that name none.", show_default=False
    ),
]


def command(
    structure: Annotated[
        Path,
        typer.Argument(
            help="Any file ASE reads; the last frame. Or a campaign's SETTINGS.toml, whose temperatures and seeds"
            " are run; then only --out, --workers and --json apply.",
            show_default=False,
        ),
    ],
    temperature: Annotated[float | None, typer.Option(min=0.0, help="K", show_default=False)] = None,
    steps: Annotated[int | None, typer.Option(min=0, help="Recorded steps.", show_default=False)] = None,
    potential: Annotated[Path | None, typer.Option(help="A .mtp file.", show_default=False)] = None,
    pair: Annotated[
        list[str] | None,
        typer.Option(
            help="Instead: a LAMMPS line, repeatable; {species} stands for --species.", show_default=False
        ),
    ] = None,
    pair_file: Annotated[
        list[Path] | None, typer.Option(help="A file that --pair lines read, repeatable.", show_default=False)
    ] = None,
    species: Symbols = None,
    timestep_fs: Annotated[float, typer.Option(min=0.0)] = 2.0,
    ensemble: Annotated[str, typer.Option(help="nvt, npt or nve")] = "nvt",
    pressure_bar: Annotated[float, typer.Option()] = 0.0,
    barostat: Annotated[str, typer.Option(help="iso, aniso or tri")] = "iso",
    repeat: Annotated[str, typer.Option(help="Copies along the three cell vectors.")] = "1 1 1",
    seed: Annotated[int, typer.Option(min=1)] = 1,
    dump_every: Annotated[int, typer.Option(min=1)] = 100,
    thermo_every: Annotated[int, typer.Option(min=1)] = 100,
    engine: Annotated[str, typer.Option(help="auto, plugin, numba or ase")] = "auto",
    core: Annotated[
        Path | None,
        typer.Option(
            help="Repulsive core: lines 'Li O inner outer'. Default: the .core beside the potential."
        ),
    ] = None,
    grade: Annotated[
        Path | None, typer.Option(help="Active set, to stop where the potential extrapolates.")
    ] = None,
    grade_every: Annotated[int, typer.Option(min=1)] = 20,
    grade_limit: Annotated[float, typer.Option(min=0.0)] = 10.0,
    processes: Annotated[int, typer.Option(min=1, help="MPI processes.")] = 1,
    workers: Annotated[int, typer.Option(min=1, help="Runs of a campaign at a time.")] = 1,
    out: Annotated[
        Path | None,
        typer.Option("--out", metavar="DIR", help="Default: runs/md, or runs/SETTINGS.", show_default=False),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Run molecular dynamics; the same command continues a killed run and returns a complete one.

    Example: atomistic md llzo.cif --potential llzo.mtp --temperature 900 --steps 50000 --out runs/llzo-900K

    Example: atomistic md campaign.toml --out runs/campaign --workers 2
    """
    if structure.suffix == ".toml":
        _campaign(structure, out, workers, as_json)
        return
    from atomistic.dynamics import LammpsPotential
    from atomistic.errors import InputError
    from atomistic.labels import read_frames
    from atomistic.lammps import run_md
    from atomistic.mtp.core import RepulsiveCore
    from atomistic.mtp.grade import ActiveSet
    from atomistic.mtp.potential import read_mtp

    out = out or Path("runs/md")
    if out.is_dir() and any(out.iterdir()) and not any((out / name).exists() for name in _MARKS):
        raise InputError("--out", out, "it holds something else than a run; use a new folder")
    for name, value in (("--temperature", temperature), ("--steps", steps)):
        if value is None:
            raise InputError(
                name, ..., "it is needed with a structure; without, give a campaign's SETTINGS.toml"
            )
    symbols = tuple(species.split()) if species else None
    if (potential is None) == (not pair):
        raise InputError("--potential", ..., "give either --potential FILE.mtp or --pair lines")
    counts = repeat.split()
    if len(counts) != 3 or not all(count.isdigit() and 1 <= int(count) <= 1000 for count in counts):
        raise InputError("--repeat", repeat, "three whole numbers such as '2 2 2' are expected")
    atoms = read_frames(structure)[-1]
    if (total := len(atoms) * math.prod(int(count) for count in counts)) > MOST_ATOMS:
        raise InputError("--repeat", repeat, f"{total} atoms are more than {MOST_ATOMS}")
    atoms = atoms.repeat([int(count) for count in counts])
    settings: dict[str, Any] = {}
    model: Any
    repulsion = None
    if potential is not None:
        model = read_mtp(potential, symbols)
        if core is not None:
            repulsion = RepulsiveCore.load(core, model.species)
        else:
            repulsion = RepulsiveCore.beside(potential, model.species)
        if grade is not None:
            ActiveSet.load(grade, model)
            settings = {"grade_every": grade_every, "grade_limit": grade_limit}
    else:
        if symbols is None:
            raise InputError("--species", ..., "the symbols of the LAMMPS types are needed with --pair")
        if core is not None or grade is not None:
            raise InputError("--pair", ..., "cores and grades belong to moment tensor potentials")
        model = LammpsPotential(pair or [], symbols, pair_file or [])
    result = run_md(
        atoms,
        model,
        directory=out,
        engine=engine,  # type: ignore[arg-type]
        core=repulsion,
        grade_file=grade,
        temperature=temperature,
        steps=steps,
        timestep_fs=timestep_fs,
        ensemble=ensemble,
        pressure_bar=pressure_bar,
        barostat=barostat,
        seed=seed,
        dump_every=dump_every,
        thermo_every=thermo_every,
        processes=processes,
        **settings,
    )
    thermo = result.thermo
    later = thermo[thermo["step"] > 0.2 * thermo["step"].max()] if len(thermo) > 5 else thermo
    numbers = {
        "steps": result.steps,
        "stopped": result.stopped,
        "stage": result.stage,
        "grade": result.grade,
        "engine": result.engine,
        "atoms": len(result.final),
        "seconds": result.seconds,
        "microseconds_per_atom_step": result.microseconds_per_atom_step if result.steps else None,
        "mean_temperature_K": float(later["temperature_K"].mean()),
        "mean_potential_energy_eV": float(later["potential_energy_eV"].mean()),
        "mean_pressure_bar": float(later["pressure_bar"].mean()),
        "mean_volume_A3": float(later["volume_A3"].mean()),
        "trajectory": result.trajectory.name,
    }
    text = json.dumps(numbers, indent=1)
    (out / "results.json").write_text(text + "\n", encoding="utf-8")
    if as_json:
        typer.echo(text)
        return
    if result.stopped is not None:
        typer.echo(
            f"stopped by {result.stopped} in the {result.stage} at step {result.steps}; frames before are kept"
        )
    typer.echo(
        f"{result.steps} steps of {len(result.final)} atoms, mean temperature {numbers['mean_temperature_K']:.0f} K"
    )
    typer.echo(f"trajectory: {result.trajectory}\nnumbers: {out / 'results.json'}")


def _campaign(settings: Path, out: Path | None, workers: int, as_json: bool) -> None:
    from atomistic.campaign import run_campaign
    from atomistic.commands.mcmd import show
    from atomistic.sampling import read_settings

    folder = out or Path("runs") / settings.stem
    records = run_campaign(
        read_settings(settings),
        folder,
        base=settings.parent,
        workers=workers,
        say=lambda text: typer.echo(text, err=True),
    )
    show(records, folder, as_json)
