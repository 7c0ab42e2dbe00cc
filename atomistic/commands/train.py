"""`atomistic train`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer


def command(
    settings: Annotated[
        Path,
        typer.Argument(metavar="SETTINGS.toml", help="What to learn, and from whom.", show_default=False),
    ],
    out: Annotated[Path, typer.Option("--out", metavar="DIR")] = Path("runs/train"),
    frames: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="Only fit these labelled frames (repeatable) by the table \\[training]; no sampling.",
            show_default=False,
        ),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Learn a moment tensor potential: sample, grade, select, label and train until it is good enough.

    The same command continues a killed run. Exit code 1 when the rounds ended before the quality was met.

    Example: atomistic train llzo.toml --out runs/llzo
    """
    from atomistic.active_learning import fit_only, learn

    def say(text: str) -> None:
        typer.echo(text, err=as_json)

    if frames:
        report = fit_only(settings, frames, out, say=say)
        if as_json:
            typer.echo(json.dumps(report, indent=1))
        else:
            typer.echo(f"potential: {out / 'potential.mtp'}")
        return
    results = learn(settings, out, say=say)
    if as_json:
        typer.echo(json.dumps(results, indent=1))
    else:
        rounds = results["rounds"]
        typer.echo(
            f"{len(rounds)} rounds, {results['labels']} labels, potential: {out / results['potential']}"
        )
        if not results["quality_met"]:
            missed = [system for system, met in rounds[-1]["met"].items() if not met]
            typer.echo(f"quality not met in: {', '.join(missed) or 'the long runs'}")
    if not results["quality_met"]:
        raise typer.Exit(1)
