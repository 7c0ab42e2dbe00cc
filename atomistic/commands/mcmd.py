"""`atomistic mcmd`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

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
    workers: Annotated[int, typer.Option(min=1, help="Seeds at a time, each in a process.")] = 1,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Equilibrate the cells of a campaign: gentle start, constant pressure, swaps of species or with vacancies.

    Builds the cells where that is not done. The same command continues a killed campaign.

    Example: atomistic mcmd lstz.toml --out runs/lstz --workers 2
    """
    from atomistic.campaign import run_campaign
    from atomistic.sampling import read_settings

    folder = out or Path("runs") / settings.stem
    records = run_campaign(
        read_settings(settings),
        folder,
        base=settings.parent,
        until="mcmd",
        workers=workers,
        say=lambda text: typer.echo(text, err=True),
    )
    show(records, folder, as_json)


def show(records: list[dict[str, Any]], folder: Path, as_json: bool) -> None:
    """Print the units of a campaign; exit code 1 where one was stopped."""
    if as_json:
        typer.echo(json.dumps(records, indent=1))
    else:
        for record in records:
            typer.echo(
                f"{record['stage']:<13} {record['temperature_K']:>7g} K  seed {record['seed']:<4}"
                f" {record['time_ps']:g} of {record['wanted_ps']:g} ps, {record['stopped'] or 'complete'}"
            )
            for pair, share in (record.get("acceptance") or {}).items():
                typer.echo(f"{'':<13} swaps {pair}: {share:.2e} accepted")
        typer.echo(f"results: {folder / 'results.json'}")
    if any(record["stopped"] for record in records):
        raise typer.Exit(1)
