"""`atomistic record`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def command(
    analysis: Annotated[
        Path, typer.Argument(help="A folder written by atomistic analyse.", show_default=False)
    ],
    settings: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="TOML with a table \\[record], instead of the analysis' own.",
            show_default=False,
        ),
    ] = None,
    region: Annotated[
        str | None, typer.Option(help="bulk or boundary, of a boundary cell.", show_default=False)
    ] = None,
    out: Annotated[Path, typer.Option("--out", metavar="DIR", help="A folder or a .json file.")] = Path(
        "records"
    ),
    as_json: Annotated[bool, typer.Option("--json", help="Print the record.")] = False,
) -> None:
    """The transport record of a region, as JSON that mesoion reads.

    Example: atomistic record runs/llzo-analysis --settings llzo.toml --out records
    """
    from atomistic.analysis_record import record_of, record_settings
    from atomistic.analysis_results import load_results
    from atomistic.analysis_settings import read_analysis_settings
    from atomistic.errors import InputError
    from atomistic.record import save
    from mesoion.transport import dump_record

    if region not in (None, "bulk", "boundary"):
        raise InputError("--region", region, "bulk or boundary")
    results = load_results(analysis)
    table = None if settings is None else read_analysis_settings(settings).record
    folder = analysis if settings is None else settings.parent
    where = str(analysis if settings is None else settings.name)
    record = record_of(results, record_settings(results, table, where), folder=folder, region=region)
    if out.suffix != ".json":
        out.mkdir(parents=True, exist_ok=True)
    path = save(record, out)
    if as_json:
        typer.echo(dump_record(record), nl=False)
        return
    sigma = record.conductivity(298.15)
    energy = record.law().activation_energy_eV
    typer.echo(f"{record.name}: {record.region} of {record.material}, {record.formula}")
    typer.echo(f"E_a = {energy.value:.3f} ± {energy.standard_uncertainty:.3f} eV")
    typer.echo(
        f"conductivity at 298.15 K: {sigma.value / 100:.3g} ({sigma.low / 100:.3g} to {sigma.high / 100:.3g}) S/cm"
        + (", extrapolated" if sigma.extrapolated else "")
    )
    typer.echo(f"record: {path}")
