"""The command line of `mesoion`; every command is also a Python call.

A `MesoionError` becomes one message on stderr and exit code 2.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from mesoion.errors import MesoionError

INTERNAL_ERROR = 70
"""Exit code of an error that is nobody's but the program's (EX_SOFTWARE)."""

app = typer.Typer(
    name="mesoion",
    help="What grain boundaries do to a pellet of an oxide solid electrolyte.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

StudyFile = Annotated[
    Path, typer.Argument(metavar="STUDY.toml", help="The study's input.", show_default=False)
]
Out = Annotated[
    Path | None, typer.Option("--out", metavar="DIR", help="Folder of the results; runs/STUDY unless given.")
]
Force = Annotated[bool, typer.Option("--force", help="Compute all again, also what is cached.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def _report_outcome(path: Path, from_cache: bool) -> None:
    if from_cache:
        typer.echo(
            f"unchanged: served from {path} (same input, records and versions; --force computes again)"
        )
    else:
        typer.echo(f"done: {path / 'results.json'}")
    typer.echo(f"report: {path / 'report.html'}")


@app.command()
def run(study: StudyFile, out: Out = None, force: Force = False) -> None:
    """Run any study: results.json, report.html, figures, spectra, tables and fields.

    Example: mesoion run studies/perovskite_and_garnet_pellets.toml --out runs/pellets
    """
    from mesoion.study import run_study

    outcome = run_study(study, out, force=force)
    _report_outcome(outcome.path, outcome.from_cache)


@app.command()
def reconcile(study: StudyFile, out: Out = None, force: Force = False) -> None:
    """What must be true of the boundaries for atomistic records and measured pellets to agree.

    Example: mesoion reconcile studies/reconcile_perovskites_and_garnet.toml
    """
    from mesoion.config import InputProblems
    from mesoion.study import load_study, run_study

    kind, _ = load_study(study)
    if kind.name != "reconcile":
        remedy = "give a study of kind 'reconcile'; `mesoion run` runs any other"
        raise InputProblems(str(study), [("kind", kind.name, remedy)])
    outcome = run_study(study, out, force=force)
    _report_outcome(outcome.path, outcome.from_cache)
    _name_failed(outcome.path)


@app.command()
def sweep(
    study: StudyFile,
    out: Out = None,
    force: Force = False,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Local processes; one a core unless given.")
    ] = None,
    scheduler: Annotated[
        str | None, typer.Option(metavar="ADDRESS", help="A Dask scheduler instead, tcp://HOST:PORT.")
    ] = None,
) -> None:
    """Run a study over a grid of parameters; a killed sweep resumes, a failed point is recorded.

    Example: mesoion sweep studies/grain_size_and_width.toml --workers 2
    """
    from mesoion.config import InputProblems
    from mesoion.study import kind_of, load_study, run_study

    given = {k: v for k, v in {"workers": workers, "scheduler": scheduler}.items() if v is not None}
    kind, _ = load_study(study)
    known = kind_of(kind.name).model.model_fields
    if "workers" not in known:
        remedy = f"a study of kind {kind.name!r} has no points to sweep; use `mesoion run`, or a study of kind 'sweep'"
        raise InputProblems(str(study), [("kind", kind.name, remedy)])
    outcome = run_study(study, out, force=force, overrides=given)
    _report_outcome(outcome.path, outcome.from_cache)


@app.command()
def nucleation(study: StudyFile, out: Out = None, force: Force = False) -> None:
    """Where lithium metal appears inside a pellet first, and at what current density, with intervals.

    Example: mesoion nucleation studies/lithium_nucleation_llzo.toml
    """
    from mesoion.config import InputProblems
    from mesoion.study import load_study, run_study

    kind, _ = load_study(study)
    if kind.name != "nucleation":
        remedy = f"this command runs studies of kind 'nucleation'; use `mesoion run {study}`"
        raise InputProblems(str(study), [("kind", kind.name, remedy)])
    outcome = run_study(study, out, force=force)
    _report_outcome(outcome.path, outcome.from_cache)


Boundaries = Annotated[
    list[str],
    typer.Option("--boundary", metavar="NAME=VALUE[:FRACTION]", help="A boundary type; repeatable."),
]
Seed = Annotated[int, typer.Option("--seed", min=0, help="Of the random generator.")]


@app.command()
def pellet(
    boundary: Boundaries = ["general=2 nm"],  # noqa: B006
    grains: Annotated[int, typer.Option(min=2, help="Number of grains.")] = 50,
    grain_size: Annotated[str, typer.Option(help="Mean grain size.")] = "200 nm",
    spread: Annotated[float, typer.Option(min=0.0, help="Standard deviation of ln(grain size).")] = 0.35,
    seed: Seed = 1,
    out: Annotated[Path, typer.Option("--out", metavar="DIR")] = Path("runs/pellet"),
    force: Force = False,
) -> None:
    """Build one microstructure with resolved boundaries, mesh it and draw it; VALUE is a boundary's width.

    Example: mesoion pellet --grains 30 --boundary "general=2 nm:0.85" --boundary "blocking=5 nm"
    """
    from mesoion.quick_studies import build_pellet, parse_boundaries

    outcome = build_pellet(
        grains=grains,
        grain_size=grain_size,
        spread=spread,
        boundaries=parse_boundaries(boundary),
        seed=seed,
        out=out,
        force=force,
    )
    _report_outcome(outcome.path, outcome.from_cache)


@app.command()
def spectrum(
    grain: Annotated[str, typer.Option(help="Record of the grains.")] = "lstz075-bulk",
    boundary: Boundaries = ["general=lstz075-boundary"],  # noqa: B006
    grain_size: Annotated[str, typer.Option(help="Mean grain size.")] = "3.38 um",
    thickness: Annotated[str, typer.Option(help="Of the pellet.")] = "1 mm",
    diameter: Annotated[str, typer.Option(help="Of the pellet.")] = "10 mm",
    temperature: Annotated[str, typer.Option(help="Of the pellet.")] = "25 C",
    relative_permittivity: Annotated[
        float | None, typer.Option(help="Instead of the records' own.", show_default=False)
    ] = None,
    samples: Annotated[int, typer.Option(min=2, help="Draws of the records for the intervals.")] = 100,
    seed: Seed = 1,
    out: Annotated[Path, typer.Option("--out", metavar="DIR")] = Path("runs/spectrum"),
    force: Force = False,
) -> None:
    """Simulate one pellet's impedance spectrum; VALUE is a boundary's record (see `mesoion records`).

    Example: mesoion spectrum --grain llto-bulk --boundary general=llto-boundary --grain-size "5 um"
    """
    from mesoion.quick_studies import parse_boundaries, simulate_spectrum

    outcome = simulate_spectrum(
        grain=grain,
        boundaries=parse_boundaries(boundary),
        grain_size=grain_size,
        thickness=thickness,
        diameter=diameter,
        temperature=temperature,
        relative_permittivity=relative_permittivity,
        samples=samples,
        seed=seed,
        out=out,
        force=force,
    )
    _report_outcome(outcome.path, outcome.from_cache)


@app.command()
def fit(
    files: Annotated[
        list[Path],
        typer.Argument(metavar="FILE...", help="Measured spectra, or folders of them.", show_default=False),
    ],
    thickness: Annotated[str | None, typer.Option(help="Of the pellet, such as 2.1mm.")] = None,
    diameter: Annotated[str | None, typer.Option(help="Of the electrodes, such as 8mm.")] = None,
    area: Annotated[str | None, typer.Option(help="Of the electrodes, instead of a diameter.")] = None,
    temperature: Annotated[
        str | None, typer.Option(help="Where neither the file nor its name states it.")
    ] = None,
    circuit: Annotated[
        str | None,
        typer.Option(metavar="CIRCUIT", help='Such as "R-(RQ)-(RQ)-Q"; found from the data unless given.'),
    ] = None,
    arcs: Annotated[int | None, typer.Option(min=1, help="Number of arcs, instead of a circuit.")] = None,
    weighting: Annotated[
        str, typer.Option(metavar="modulus|noise", help="Deviations as |Z|, or as estimated from the data.")
    ] = "modulus",
    pellet: Annotated[
        bool,
        typer.Option(
            "--pellet",
            help="Fit the pellet itself, all temperatures together: boundaries, blocking ones, width, posterior.",
        ),
    ] = False,
    grain_size: Annotated[
        str | None, typer.Option(help="Mean, such as 3um; with --pellet the width is given in nm too.")
    ] = None,
    electrode: Annotated[
        str | None,
        typer.Option(metavar="blocking|'charge transfer'|none", help="With --pellet; blocking unless given."),
    ] = None,
    seed: Seed = 1,
    out: Annotated[Path, typer.Option("--out", metavar="DIR")] = Path("runs/fit"),
    force: Force = False,
) -> None:
    """Fit measured impedance spectra: bulk, grain-boundary and total conductivity with intervals, and a report.

    Example: mesoion fit pellet_140C.txt pellet_160C.txt --thickness 2.1mm --diameter 8mm --out runs/pellet
    """
    from mesoion.errors import InputError
    from mesoion.quick_studies import fit_pellet, fit_spectra

    geometry = {"thickness": thickness, "diameter": diameter, "area": area, "temperature": temperature}
    if pellet:
        for name, value in (("--circuit", circuit), ("--arcs", arcs)):
            if value is not None:
                raise InputError(name, value, "a circuit's option; leave it out with --pellet")
        outcome = fit_pellet(
            files, **geometry, grain_size=grain_size, electrode=electrode, seed=seed, out=out, force=force
        )
        _report_outcome(outcome.path, outcome.from_cache)
        _name_failed(outcome.path)
        return
    for name, given in (("--grain-size", grain_size), ("--electrode", electrode)):
        if given is not None:
            raise InputError(name, given, "it belongs to --pellet")
    outcome = fit_spectra(
        files,
        thickness=thickness,
        diameter=diameter,
        area=area,
        temperature=temperature,
        circuit=circuit,
        arcs=arcs,
        weighting=weighting,
        seed=seed,
        out=out,
        force=force,
    )
    _report_outcome(outcome.path, outcome.from_cache)
    _name_failed(outcome.path)


def _name_failed(path: Path) -> None:
    """Warnings and spectra that could not be used, on stderr; exit code 2 for the latter."""
    from mesoion.runfolder import read_results

    results = read_results(path)
    for warning in results.get("warnings", []):
        typer.echo(f"warning: {warning}", err=True)
    failed = results.get("failed", [])
    for problem in failed:
        typer.echo(f"error: {problem['error']}", err=True)
    if failed:
        typer.echo(f"{len(failed)} of the spectra could not be used; the others are in the report", err=True)
        raise typer.Exit(2)


@app.command()
def validate(
    only: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Only rows whose name contains NAME.", show_default=False),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Every exact test and published number: expected, got, error, tolerance; exit 1 if one fails.

    Example: mesoion validate --only bernoulli
    """
    from mesoion.validation import as_text, validation_rows

    rows = validation_rows(only)
    if as_json:
        typer.echo(json.dumps({"rows": [row.plain() for row in rows]}, indent=1))
    else:
        typer.echo(as_text(rows))
    if not all(row.passed for row in rows):
        raise typer.Exit(1)


@app.command()
def bench(
    only: Annotated[
        str | None,
        typer.Option(metavar="GROUP", help="Only groups whose name contains GROUP.", show_default=False),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Small cases, under two minutes.")] = False,
    repeats: Annotated[
        int | None, typer.Option(min=1, help="Repetitions of every comparison.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Ourselves against FiPy and DEVSIM on the same work in one run, and how our own work grows.

    Example: mesoion bench --quick --only 1d
    """
    from mesoion.bench import as_text, run_bench

    rows = run_bench(only, repeats, quick=quick, progress=lambda line: typer.echo(line, err=True))
    typer.echo(json.dumps({"rows": rows}, indent=1) if as_json else as_text(rows))


@app.command()
def records(
    name: Annotated[
        str | None, typer.Argument(metavar="[RECORD]", help="Name or file of a record.", show_default=False)
    ] = None,
    as_json: AsJson = False,
) -> None:
    """List the shipped transport records, or show one with its units, uncertainties and sources.

    Example: mesoion records
    """
    from mesoion.transport import list_records, load_record

    if name is not None:
        typer.echo(json.dumps(load_record(name).model_dump(mode="json"), indent=1, ensure_ascii=False))
        return
    listed: list[dict[str, Any]] = []
    for entry in list_records():
        record = load_record(entry)
        listed.append(
            {"name": entry, "material": record.material, "region": record.region, "origin": record.origin}
        )
    if as_json:
        typer.echo(json.dumps({"records": listed}, indent=1, ensure_ascii=False))
        return
    width = max((len(row["name"]) for row in listed), default=0)
    for row in listed:
        typer.echo(f"{row['name']:<{width}}  {row['material']}, {row['region']} ({row['origin']})")


def main(arguments: list[str] | None = None) -> None:
    """Entry point: run the command line; exit code 2 with one message for an error of the user's, 70 for one of ours.

    arguments: instead of the process's own.
    """
    try:
        app(args=arguments)
    except MesoionError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except MemoryError:
        typer.echo("error: not enough memory; use fewer grains, a coarser mesh or fewer workers", err=True)
        sys.exit(2)
    except KeyboardInterrupt:
        typer.echo("stopped; run the same command to resume", err=True)
        sys.exit(130)
    except Exception as error:
        typer.echo(
            f"internal error, {type(error).__name__}: {error}; details for a report: {_details()}", err=True
        )
        sys.exit(INTERNAL_ERROR)


def _details() -> str:
    """Path of a new file with the traceback of the error being handled."""
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="mesoion-", suffix=".txt", delete=False) as stream:
        stream.write(traceback.format_exc())
    return stream.name
