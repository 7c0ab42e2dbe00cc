"""A transport record from an analysis: what the runs told, and what no run can, each with its source.

The record is computed from `results.json` alone: its diffusivities are fitted anew, so a record can be made again, or
changed, without the trajectories. The same results and settings give the same bytes.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from atomistic.analysis_results import AnalysisResults
from atomistic.analysis_settings import _Settings
from atomistic.arrhenius_fit import ArrheniusFit, Estimate
from atomistic.averages import BlockAverage
from atomistic.boundaries import BoundaryEnergy
from atomistic.boundary_analysis import RegionComposition, SegregationEnergy
from atomistic.boundary_width import Width
from atomistic.coincidence import BoundarySpec
from atomistic.errors import InputError
from atomistic.record import RegionDensities, arrhenius_of_runs, build_record, file_sha256
from atomistic.settings_files import validated
from mesoion.transport import PositiveQuantity, Source, TransportRecord


class StatedNumber(_Settings):
    """A number the runs do not give: value with either uncertainty, and where it comes from."""

    value: Annotated[float, Field(ge=1e-40, le=1e40)]
    standard_uncertainty: Annotated[float, Field(ge=0.0)] | None = None
    uncertainty_factor: Annotated[float, Field(ge=1.0, le=1e6)] | None = None
    kind: Literal["measured", "computed", "literature", "assumption"]
    source: Annotated[str, Field(min_length=1)]
    doi: Annotated[str, Field(pattern=r"^10\.[0-9]{4,9}/[^\s]+$")] | None = None

    @model_validator(mode="after")
    def _one_uncertainty(self) -> StatedNumber:
        if (self.standard_uncertainty is None) == (self.uncertainty_factor is None):
            raise ValueError("give standard_uncertainty or uncertainty_factor")
        if self.standard_uncertainty is not None and self.standard_uncertainty > self.value:
            raise ValueError("standard_uncertainty exceeds the value; give an uncertainty_factor instead")
        return self

    def quantity(self, factor: float = 1.0) -> PositiveQuantity:
        """As a record holds it, value times `factor`."""
        spread = self.standard_uncertainty
        return PositiveQuantity(
            value=factor * self.value,
            standard_uncertainty=None if spread is None else factor * spread,
            uncertainty_factor=self.uncertainty_factor,
            source=Source(kind=self.kind, text=self.source, doi=self.doi),
        )


class RecordSettings(_Settings):
    """[record]: what the record is called and what no run tells.

    name: of the record and its file. material: as in "LLZO". region: of a boundary cell "boundary" (default) or the
    "bulk" between its boundaries. formula: default that of the cell. method: how the potential was made, for the
    sources. relative_permittivity: needed for a bulk. haven_ratio: instead of the runs'. boundary: as in
    "Sigma5[100](01-2)", where the analysis does not know it. potential: file of what gave the forces, relative to the
    TOML, where the analysis does not know it. boundary_energy_J_per_m2: from relaxed cells. notes: for a reader.
    """

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._+-]{0,99}$")]
    material: Annotated[str, Field(min_length=1)]
    region: Literal["bulk", "boundary"] | None = None
    formula: str | None = None
    method: Annotated[str, Field(min_length=1)]
    relative_permittivity: StatedNumber | None = None
    haven_ratio: StatedNumber | None = None
    lattice_parameter_A: StatedNumber | None = None
    boundary: str | None = None
    boundary_energy_J_per_m2: StatedNumber | None = None
    potential: str | None = None
    notes: tuple[str, ...] = ()


def record_settings(results: AnalysisResults, values: dict[str, Any] | None, where: str) -> RecordSettings:
    """The [record] table given, or that of the analysis. Raises InputError for what is missing or not allowed."""
    table = results.settings.get("record", {}) if values is None else values
    if not table:
        raise InputError(f"{where}: record", table, "give a [record] table with name, material and method")
    return validated(RecordSettings, table, where, "record")


def record_of(
    results: AnalysisResults, settings: RecordSettings, *, folder: Path = Path(), region: str | None = None
) -> TransportRecord:
    """The record of one region of an analysis.

    folder: that of the settings file, for paths in it. region: "bulk" or "boundary", instead of the settings'. Raises
    InputError that names what is missing: a second temperature, `sites`, a permittivity, a potential, a width.
    """
    place = region or settings.region or ("bulk" if results.boundary is None else "boundary")
    if place == "boundary" and results.boundary is None:
        raise InputError("record.region", place, "these cells have no boundaries: 'bulk'")
    whole = results.boundary is None
    along = _law(results, place, "all" if whole else "along")
    across = None if whole else _law(results, place, "across")
    haven: Estimate | PositiveQuantity
    if settings.haven_ratio is not None:
        haven = settings.haven_ratio.quantity()
    elif results.haven_ratio is not None:
        haven = Estimate(results.haven_ratio.value, results.haven_ratio.low, results.haven_ratio.high)
    else:
        raise InputError(
            "record.haven_ratio", None, "no run gives one: run longer, or state it with its source"
        )
    lattice = settings.lattice_parameter_A
    common: dict[str, Any] = {
        "name": settings.name,
        "material": settings.material,
        "formula": settings.formula or results.formula,
        "along": along,
        "across": across,
        "haven": haven,
        "densities": _densities(results, place),
        "potential_sha256": _potential(results, settings, folder),
        "method": f"{_runs(results)}; {settings.method}",
        "settings": {"analysis": results.settings_sha256},
        "composition": _composition(results),
        "lattice_parameter": None if lattice is None else lattice.quantity(1e-10),
        "notes": (*settings.notes, *_notes(results, place, along, across)),
    }
    if place == "bulk":
        permittivity = settings.relative_permittivity
        return build_record(
            **common, relative_permittivity=None if permittivity is None else permittivity.quantity()
        )
    assert results.boundary is not None
    name = settings.boundary or results.boundary.name
    if name is None:
        raise InputError("record.boundary", None, "say which boundary it is, as in Sigma5[100](01-2)")
    width = results.boundary.width
    energy = settings.boundary_energy_J_per_m2
    if energy is not None and energy.standard_uncertainty is None:
        raise InputError("record.boundary_energy_J_per_m2", energy.value, "give its standard_uncertainty")
    return build_record(
        **common,
        boundary=BoundarySpec.parse(name),
        width=Width(width.value_A, width.standard_uncertainty_A, width.rule),
        boundary_energy=None
        if energy is None
        else BoundaryEnergy(energy.value, energy.standard_uncertainty or 0.0, math.nan, 0),
        segregation=_segregation(results),
        relative_permittivity=None
        if settings.relative_permittivity is None
        else settings.relative_permittivity.quantity(),
    )


def _law(results: AnalysisResults, region: str, direction: str) -> ArrheniusFit:
    used = results.used(region, direction)
    if len(used) < 2:
        known = ", ".join(f"{kelvin:g} K" for kelvin in used) or "none"
        raise InputError(
            f"activation energy of {region}, {direction}",
            known,
            "it needs diffusion at two or more temperatures; run at another one",
        )
    return arrhenius_of_runs(used, np.random.default_rng(results.settings.get("seed", 0)))


def _densities(results: AnalysisResults, region: str) -> RegionDensities:
    for row in results.densities:
        if row.region == region:
            return RegionDensities(
                row.carrier_density_per_m3,
                row.carrier_density_uncertainty_per_m3,
                row.site_density_per_m3,
                row.site_density_uncertainty_per_m3,
                math.nan,
            )
    raise InputError(
        "sites",
        results.settings.get("sites", {}),
        "a record needs the sites open to the ions: give [sites] in the analysis' settings, such as Zr = 4.5, and "
        "analyse again",
    )


def _potential(results: AnalysisResults, settings: RecordSettings, folder: Path) -> str:
    if settings.potential is not None:
        return file_sha256(folder / settings.potential)
    if results.potential_sha256 is None:
        raise InputError(
            "record.potential", None, "name the file of what gave the forces; its checksum is recorded"
        )
    return results.potential_sha256


def _composition(results: AnalysisResults) -> RegionComposition | None:
    names = tuple(dict.fromkeys(row.species for row in results.composition))
    by_key = {(row.region, row.species): row for row in results.composition}
    if any(row.standard_error is None for row in results.composition):
        return None

    def part(region: str) -> BlockAverage:
        rows = [by_key.get((region, name)) for name in names]
        mean = np.array([math.nan if row is None else row.atomic_percent for row in rows])
        error = np.array([math.nan if row is None else row.standard_error for row in rows], dtype=float)
        return BlockAverage(mean, error, np.ones(len(names), np.int64), np.ones(len(names), np.bool_))

    return RegionComposition(names, part("boundary"), part("bulk"), np.zeros((0, 2, len(names))), 1)


def _segregation(results: AnalysisResults) -> SegregationEnergy | None:
    """Of the mobile ion, over all temperatures; the scatter between them counts."""
    rows = [row for row in results.segregation if row.solute == results.mobile]
    if not rows:
        return None
    energies = np.array([row.energy_eV for row in rows])
    spreads = np.maximum([row.standard_uncertainty_eV for row in rows], 1e-6)
    weight = 1 / spreads**2
    mean = float(np.sum(weight * energies) / weight.sum())
    excess = float(np.sum(weight * (energies - mean) ** 2)) / max(len(rows) - 1, 1)
    return SegregationEnergy(
        mean,
        math.sqrt(max(1.0, excess) / float(weight.sum())),
        float(np.mean([row.boundary_occupancy for row in rows])),
        float(np.mean([row.bulk_occupancy for row in rows])),
        0.0,
        float(np.std(energies, ddof=1)) if len(rows) > 1 else math.nan,
        all(row.converged for row in rows),
    )


def _runs(results: AnalysisResults) -> str:
    kelvins = sorted({run.temperature_K for run in results.runs})
    seeds = len({run.seed for run in results.runs})
    longest = sum(run.time_ps for run in results.runs)
    atoms = max(run.atoms for run in results.runs)
    return (
        f"MD at {', '.join(f'{k:g}' for k in kelvins)} K, {len(results.runs)} runs ({seeds} seeds) of {atoms} atoms, "
        f"{longest:.4g} ps in all"
    )


def _notes(
    results: AnalysisResults, region: str, along: ArrheniusFit, across: ArrheniusFit | None
) -> list[str]:
    notes = []
    if results.boundary is not None:
        notes.append("Haven ratio: of the whole cell, boundaries and bulk together")
    if region == "bulk" and results.boundary is not None:
        notes.append("bulk: of the grains between the boundaries of one cell")
    for name, fit in (("along", along), ("across", across)):
        if fit is not None and len(np.unique(fit.temperatures)) < 5:
            notes.append(
                f"{'D' if across is None else f'D {name}'}: fewer than five temperatures, two regimes were not tested"
            )
    return notes
