"""`atomistic analyse`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="CAMPAIGN|RUNS.toml",
            help="A campaign's folder, or a TOML file that names trajectories of any program.",
            show_default=False,
        ),
    ],
    settings: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="TOML, for a campaign's folder.", show_default=False),
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR")] = Path("runs/analysis"),
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Diffusivities by region and direction, Arrhenius laws, boundary width and composition, figures and a report.

    Example: atomistic analyse runs/llzo-sigma5 --settings llzo-sigma5.toml --out runs/llzo-sigma5-analysis
    """
    import tempfile

    from atomistic.analysis import analyse
    from atomistic.analysis_report import check_folder, main_names, number, write_analysis
    from atomistic.analysis_settings import open_sources, read_analysis_settings

    check_folder(out)
    chosen = None if settings is None else read_analysis_settings(settings)
    with tempfile.TemporaryDirectory(prefix="atomistic-") as scratch:
        analysis = analyse(open_sources(source, chosen, scratch=Path(scratch)))
    folder = write_analysis(analysis, out)
    results = analysis.results
    if as_json:
        typer.echo(results.dump(), nl=False)
        return
    typer.echo(results.title)
    for row in results.means:
        if (row.region, row.direction, row.kind) in main_names(results):
            typer.echo(
                f"{row.temperature_K:7g} K  {row.region}, {row.direction}, {row.kind}: "
                f"D = {number(1e4 * row.value_m2_per_s)} "
                f"({number(1e4 * row.low_m2_per_s)} to {number(1e4 * row.high_m2_per_s)}) cm2/s"
            )
    for law in results.arrhenius:
        if (law.region, law.direction, law.kind) in main_names(results):
            energy = law.activation_energy_eV
            typer.echo(
                f"{law.region}, {law.direction}, {law.kind}: E_a = {energy.value:.3f} "
                f"({energy.low:.3f} to {energy.high:.3f}) eV"
            )
    if results.boundary is not None:
        typer.echo(f"width: {results.boundary.width.value_A:.2f} A, {results.boundary.width.rule}")
    for warning in results.warnings:
        typer.echo(f"note: {warning}")
    typer.echo(f"report: {folder / 'report.html'}\nnumbers: {folder / 'results.json'}")
