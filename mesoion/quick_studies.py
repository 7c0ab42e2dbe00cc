"""Studies written from a few options: what `mesoion pellet`, `spectrum` and `fit` run, kept beside the results."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mesoion.errors import InputError
from mesoion.runfolder import disk_errors, write_atomically
from mesoion.study import Outcome, run_study


def _toml(tables: Mapping[str, Mapping[str, Any]]) -> str:
    """Tables of plain values as TOML; JSON's strings, numbers, booleans and lists are TOML's too."""
    lines: list[str] = []
    for header, values in tables.items():
        if header:
            lines.append(f"\n{header}")
        lines += [f"{key} = {json.dumps(value)}" for key, value in values.items() if value is not None]
    return "\n".join(lines) + "\n"


def _run(tables: Mapping[str, Mapping[str, Any]], out: Path, name: str, force: bool) -> Outcome:
    with disk_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    study = out / f"{name}.toml"
    write_atomically(study, _toml(tables))
    return run_study(study, out, force=force)


def parse_boundaries(given: Sequence[str]) -> dict[str, tuple[str, float]]:
    """`NAME=VALUE[:FRACTION]` options as name -> (value, fraction); fractions left out share what remains.

    Raises InputError for an option of another form.
    """
    found: dict[str, tuple[str, float | None]] = {}
    for text in given:
        name, _, rest = text.partition("=")
        value, _, share = rest.rpartition(":") if ":" in rest else (rest, "", "")
        try:
            fraction = float(share) if share else None
        except ValueError:
            fraction = float("nan")
        if not name.isidentifier() or not value or fraction != fraction or name in found:
            raise InputError("--boundary", text, "give NAME=VALUE or NAME=VALUE:FRACTION, every name once")
        found[name] = (value, fraction)
    stated = sum(f for _, f in found.values() if f is not None)
    open_ones = sum(f is None for _, f in found.values())
    rest_each = (1 - stated) / open_ones if open_ones else 0.0
    return {name: (value, rest_each if f is None else f) for name, (value, f) in found.items()}


def build_pellet(
    *,
    grains: int,
    grain_size: str,
    spread: float,
    boundaries: Mapping[str, tuple[str, float]],
    seed: int,
    out: Path,
    force: bool = False,
) -> Outcome:
    """Build, mesh and draw one microstructure; boundaries: type -> (width, fraction)."""
    tables: dict[str, dict[str, Any]] = {
        "": {
            "kind": "microstructure",
            "title": f"{grains} grains of {grain_size}",
            "seed": seed,
            "grains": grains,
            "mean_grain_size": grain_size,
            "grain_size_spread": spread,
        }
    }
    for name, (width, fraction) in boundaries.items():
        tables[f"[boundaries.{name}]"] = {"width": width, "fraction": fraction}
    return _run(tables, out, "microstructure", force)


def _fit_files(
    kind: str, files: Sequence[Path], out: Path, force: bool, keys: Mapping[str, str | int | float | None]
) -> Outcome:
    """A study of measured files; a folder that this call made is gone again where the input is refused."""
    from mesoion.config import check
    from mesoion.study import kind_of

    title = ", ".join(f.name for f in files[:3]) + (f" and {len(files) - 3} more" if len(files) > 3 else "")
    said = {name: value for name, value in keys.items() if value is not None}
    inputs = {"kind": kind, "title": title, "files": [str(f.absolute()) for f in files], **said}
    check(kind_of(kind).model, inputs, where="options")
    new = not out.exists()
    try:
        return _run({"": inputs}, out, kind, force)
    except InputError:
        if new:
            shutil.rmtree(out, ignore_errors=True)
        raise


def fit_spectra(
    files: Sequence[Path], *, out: Path, force: bool = False, **keys: str | int | float | None
) -> Outcome:
    """Fit measured spectra; keys: of `mesoion.impedance.fit_study.Study`, None for those left to it.

    Files with problems are named under "failed" in results.json. Raises InputError where no file can be used; a
    folder that this call made is then gone again.
    """
    return _fit_files("spectra", files, out, force, keys)


def fit_pellet(
    files: Sequence[Path], *, out: Path, force: bool = False, **keys: str | int | float | None
) -> Outcome:
    """Fit the pellet itself to its spectra; keys: of `mesoion.pellet_fit_study.Study`. Raises as `fit_spectra`."""
    return _fit_files("pellet_fit", files, out, force, keys)


def simulate_spectrum(
    *,
    grain: str,
    boundaries: Mapping[str, tuple[str, float]],
    grain_size: str,
    thickness: str,
    diameter: str,
    temperature: str,
    relative_permittivity: float | None,
    samples: int,
    seed: int,
    out: Path,
    force: bool = False,
) -> Outcome:
    """Simulate the spectrum of one pellet; boundaries: type -> (record, fraction)."""
    tables: dict[str, dict[str, Any]] = {
        "": {
            "kind": "pellets",
            "title": f"Spectrum of {grain} at {temperature}",
            "seed": seed,
            "report_temperature": temperature,
            "temperatures": [temperature],
            "samples": samples,
            "picture_grains": 0,
        },
        "[[pellets]]": {
            "name": grain,
            "grain": grain,
            "mean_grain_size": grain_size,
            "thickness": thickness,
            "diameter": diameter,
            "relative_permittivity": relative_permittivity,
        },
        "[pellets.electrode]": {"kind": "blocking", "compact_capacitance": "10 uF/cm^2"},
    }
    for name, (record, fraction) in boundaries.items():
        tables[f"[pellets.boundaries.{name}]"] = {"record": record, "fraction": fraction}
    return _run(tables, out, "spectrum", force)
