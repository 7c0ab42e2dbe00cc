"""The folder of an analysis: results.json, tables, figures, the density for a viewer, and one HTML page."""

from __future__ import annotations

import base64
import math
import os
import shutil
import tempfile
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
from pydantic import BaseModel

from atomistic.analysis import Analysis
from atomistic.analysis_figures import (
    arrhenius_figure,
    distance_figure,
    msd_figure,
    structure_figure,
)
from atomistic.analysis_results import WHOLE, AnalysisResults, EstimateRow
from atomistic.analysis_structure import CUBE_NAME
from atomistic.boundary_figures import density_slice, profile_figure, rdf_figure, site_energy_figure
from atomistic.errors import FileFormatError

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CM2_PER_M2 = 1e4
_SUPERSCRIPT = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
_DPI = 150


def tables(results: AnalysisResults) -> dict[str, pd.DataFrame]:
    """The results as tables, one CSV each; those without a row are left out."""
    rows: dict[str, Sequence[BaseModel]] = {
        "runs": results.runs,
        "diffusivities": results.diffusivities,
        "haven_ratios": results.haven,
        "anisotropy": results.anisotropy,
        "densities": results.densities,
        "composition": results.composition,
        "segregation": results.segregation,
        "defects_at_rest": results.rest,
        "a_site_order": results.order,
        "radial_distributions": results.radial,
    }
    found = {name: pd.DataFrame([row.model_dump() for row in part]) for name, part in rows.items() if part}
    if "diffusivities" in found:
        found["diffusivities"]["warnings"] = [
            " ".join(code for code, _ in row.warnings) for row in results.diffusivities
        ]
    means = pd.DataFrame([row.model_dump() for row in results.means])
    if len(means):
        found["means"] = means[
            [
                "region",
                "direction",
                "kind",
                "temperature_K",
                "value_m2_per_s",
                "low_m2_per_s",
                "high_m2_per_s",
            ]
        ]
    if results.arrhenius:
        found["arrhenius"] = pd.DataFrame([_flat(row.model_dump()) for row in results.arrhenius])
    if results.boundary is not None:
        found["widths"] = pd.DataFrame([row.model_dump() for row in results.boundary.widths])
    return found


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{prefix}{key}.")
        else:
            flat[f"{prefix}{key}"] = " ".join(f"{v:g}" for v in value) if isinstance(value, tuple) else value
    return flat


def main_names(results: AnalysisResults) -> list[tuple[str, str, str]]:
    """The regions and directions to show first: bulk, or along and across in bulk and boundaries."""
    names = list(dict.fromkeys((m.region, m.direction, m.kind) for m in results.means))
    if results.boundary is None:
        return [n for n in names if n[0] == "bulk" and n[1] == "all"]
    return [n for n in names if n[1] in ("along", "across") and not n[0].endswith(" A")]


def figures(analysis: Analysis) -> dict[str, tuple[Figure, str]]:
    """Figures with their captions, by name; those without data are left out."""
    from matplotlib.figure import Figure

    results = analysis.results
    made: dict[str, tuple[Figure, str]] = {}

    def new(name: str, caption: str, width: float = 6.0, height: float = 4.2) -> Any:
        figure = Figure(figsize=(width, height), layout="constrained")
        made[name] = figure, caption
        return figure.subplots()

    whole = WHOLE if results.boundary is not None else "bulk"
    means = [m for m in results.means if (m.region, m.direction, m.kind) == (whole, "all", "tracer")]
    if analysis.msd:
        ax = new(
            "msd",
            f"Mean-square displacement of {results.mobile}, one thin line a run; dashed: 6 D t + c of the mean D, "
            "its band the 95 % interval, from where the displacement is straight.",
        )
        msd_figure(ax, analysis.msd, means)
    names = main_names(results)
    if names:
        ax = new(
            "arrhenius",
            "Tracer diffusivities with 95 % intervals, Arrhenius laws and their bands; dotted: extrapolated. "
            "Points are set apart sideways to be seen.",
            6.6,
            5.0,
        )
        arrhenius_figure(ax, results, analysis.fits, names)
    slabs = list(dict.fromkeys(m.region for m in results.means if m.region.endswith(" A")))
    for direction in ("along", "across") if slabs else ():
        ax = new(
            f"distance_{direction}",
            f"Diffusivity {direction} the boundary by distance from its plane.",
            5.2,
            3.8,
        )
        distance_figure(ax, results, slabs, direction)
    if analysis.profile is not None:
        ax = new(
            "profile",
            "Composition across the boundary with bands of one standard error; shaded: the width used.",
            6.6,
        )
        profile_figure(ax, analysis.profile, width=analysis.width)
    for name, energies in analysis.site_energies:
        caption = (
            f"Energy of a defect ({name}) by the distance of its site from the plane, less the bulk's mean"
        )
        ax = new(name.replace(" ", "_"), f"{caption}; shaded: half the width.", 5.2, 3.8)
        site_energy_figure(ax, energies, name, analysis.width)
    if analysis.radial:
        ax = new("rdf", "Radial distributions with bands of one standard error.")
        rdf_figure(ax, [g for _, g in analysis.radial], [name for name, _ in analysis.radial])
    if analysis.density is not None:
        axis = 2 if analysis.planes is None else analysis.planes.axis
        ax = new(
            "density",
            f"Density of {results.mobile} seen along a cell vector; {CUBE_NAME} holds it in three dimensions.",
            6.0,
            5.4,
        )
        density_slice(ax, analysis.density, along=(axis + 1) % 3)
    if analysis.structure is not None:
        axis = 2 if analysis.planes is None else analysis.planes.axis
        ax = new(
            "structure",
            "The first frame; dashed: the boundary planes." if analysis.planes else "The first frame.",
            6.0,
            5.4,
        )
        structure_figure(ax, analysis.structure, analysis.planes, along=(axis + 1) % 3)
    return made


def write_analysis(analysis: Analysis, folder: str | Path) -> Path:
    """Write the whole folder, or nothing: results.json, tables/, figures/, density.cube, report.html.

    An earlier analysis in `folder` is replaced; a folder of anything else is refused with FileFormatError.
    """
    folder = Path(folder)
    check_folder(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    scratch = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        scratch.chmod(0o755)
        _fill(analysis, scratch)
        if folder.exists():
            old = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
            os.replace(folder, old)
            os.replace(scratch, folder)
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.replace(scratch, folder)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return folder


def check_folder(folder: Path) -> None:
    """Raises FileFormatError where an analysis cannot be written to `folder` without loss of something else.

    Campaigns and runs of `atomistic md` hold a results.json too: only an analysis has its page beside it.
    """
    if not folder.exists():
        return
    if not folder.is_dir() or (
        any(folder.iterdir())
        and not all((folder / name).is_file() for name in ("results.json", "report.html"))
    ):
        raise FileFormatError(folder, None, "exists and is no analysis", "choose another --out")


def _fill(analysis: Analysis, folder: Path) -> None:
    results = analysis.results
    for name in ("tables", "figures"):
        (folder / name).mkdir()
    shown = tables(results)
    for name, frame in shown.items():
        frame.to_csv(folder / "tables" / f"{name}.csv", index=False)
    if analysis.profile is not None:
        _profile_table(analysis).to_csv(folder / "tables" / "profile.csv", index=False)
    pictures = []
    for name, (figure, caption) in figures(analysis).items():
        figure.savefig(folder / "figures" / f"{name}.png", dpi=_DPI)
        figure.savefig(folder / "figures" / f"{name}.svg")
        data = base64.b64encode((folder / "figures" / f"{name}.png").read_bytes()).decode()
        pictures.append({"name": name, "caption": caption, "data": data})
    if analysis.density is not None and results.isosurface is not None:
        analysis.density.write_cube(folder / results.isosurface.file)
    (folder / "report.html").write_text(_html(results, shown, pictures), encoding="utf-8")
    (folder / "results.json").write_text(results.dump(), encoding="utf-8")


def _profile_table(analysis: Analysis) -> pd.DataFrame:
    cross = analysis.profile
    assert cross is not None
    columns = {"distance_A": cross.position}
    for symbol in cross.density:
        columns[f"{symbol}_atomic_percent"] = cross.atomic_percent[symbol]
        columns[f"{symbol}_atomic_percent_error"] = cross.atomic_percent_error[symbol]
        columns[f"{symbol}_density_per_A3"] = cross.density[symbol]
        columns[f"{symbol}_density_error_per_A3"] = cross.density_error[symbol]
    return pd.DataFrame(columns)


def _html(results: AnalysisResults, shown: dict[str, pd.DataFrame], pictures: list[dict[str, str]]) -> str:
    from jinja2 import Environment

    template = Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        resources.files("atomistic").joinpath("templates/analysis.html").read_text(encoding="utf-8")
    )
    return template.render(
        results=results,
        laws=[_law(results, name) for name in _laws(results)],
        figures=pictures,
        facts=_facts(results),
        tables=[
            {
                "name": name,
                "columns": list(frame.columns),
                "rows": [[_cell(v) for v in row] for row in frame.itertuples(index=False)],
            }
            for name, frame in shown.items()
        ],
    )


def _laws(results: AnalysisResults) -> list[tuple[str, str, str]]:
    wanted = main_names(results)
    return [
        (a.region, a.direction, a.kind)
        for a in results.arrhenius
        if (a.region, a.direction, a.kind) in wanted
    ]


def _law(results: AnalysisResults, name: tuple[str, str, str]) -> dict[str, str]:
    row = next(a for a in results.arrhenius if (a.region, a.direction, a.kind) == name)
    return {
        "region": row.region,
        "direction": row.direction,
        "kind": row.kind,
        "energy": _interval(row.activation_energy_eV, "{:.3f}"),
        "prefactor": number(CM2_PER_M2 * row.D0_m2_per_s),
        "high": "–" if row.high_temperature_activation_energy_eV is None
        else _interval(row.high_temperature_activation_energy_eV, "{:.3f}"),
        "break": "–" if row.break_temperature_K is None else _interval(row.break_temperature_K, "{:.0f}"),
        "extrapolated": "; ".join(
            f"{kelvin} K: {_squares(e.value)} ({_squares(e.low)} to {_squares(e.high)})"
            for kelvin, e in row.extrapolated_m2_per_s.items()
        ),
    }  # fmt: skip


def _facts(results: AnalysisResults) -> list[tuple[str, str]]:
    facts = [("cell", f"{results.formula}, {sum(results.species.values())} atoms")]
    if results.haven_ratio is not None:
        facts.append(("Haven ratio, all runs", _interval(results.haven_ratio, "{:.2f}")))
    boundary = results.boundary
    if boundary is not None:
        facts.append(("boundary", boundary.name or "not named"))
        width = boundary.width
        facts.append(
            ("its width", f"{width.value_A:.2f} ± {width.standard_uncertainty_A:.2f} Å: {width.rule}")
        )
        facts.append(("boundaries apart", f"{boundary.separation_A:.1f} Å"))
    for row in results.segregation:
        state = "" if row.converged else ", not converged"
        facts.append(
            (
                f"segregation energy of {row.solute}, {row.temperature_K:g} K",
                f"{row.energy_eV:.3f} ± {row.standard_uncertainty_eV:.3f} eV{state}",
            )
        )
    for rest in results.rest:
        spread = "" if rest.standard_uncertainty_eV is None else f" ± {rest.standard_uncertainty_eV:.3f}"
        facts.append((f"{rest.defect}, boundary less bulk", f"{rest.difference_eV:.3f}{spread} eV"))
    for order in results.order:
        facts.append(
            (
                f"A-site order, {order.temperature_K:g} K, seed {order.seed}",
                f"{order.order:.3f} ± {order.standard_error:.3f}",
            )
        )
    if results.isosurface is not None:
        iso = results.isosurface
        facts.append(
            (
                f"isosurface around {100 * iso.enclosed_share:.0f} % of the {results.mobile}",
                f"{iso.level_per_A3:.3g} per Å³, {100 * iso.share_of_volume:.1f} % of the volume",
            )
        )
    return facts


def number(value: float, digits: int = 3) -> str:
    """A number to `digits` significant digits, in powers of ten where that is shorter."""
    if not math.isfinite(value):
        return "–"
    if value != 0 and not 1e-3 <= abs(value) < 1e5:
        mantissa, exponent = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa}·10{str(int(exponent)).translate(_SUPERSCRIPT)}"
    return f"{value:.{digits}g}"


def _squares(value: float) -> str:
    return number(CM2_PER_M2 * value)


def _interval(row: EstimateRow, form: str) -> str:
    return f"{form.format(row.value)} ({form.format(row.low)} to {form.format(row.high)})"


def _cell(value: Any) -> dict[str, Any]:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return {"value": "–", "text": False}
    if isinstance(value, bool):
        return {"value": "yes" if value else "no", "text": True}
    if isinstance(value, (int, float)):
        return {"value": str(value) if isinstance(value, int) else number(value, 4), "text": False}
    return {"value": str(value), "text": True}
