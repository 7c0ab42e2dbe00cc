"""Results of an analysis as data: what `results.json` holds, and what a record is computed from.

Every number carries its unit in the field's name; diffusivities are in m²/s with their 95 % interval.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from atomistic.arrhenius_fit import ArrheniusFit, Estimate
from atomistic.diffusivity import DiffusionWarning, Diffusivity
from atomistic.errors import FileFormatError

Kind = Literal["tracer", "collective"]
WHOLE = "cell"
"""Name of the region that is the whole cell."""


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class RunRow(_Model):
    """One run that was analysed."""

    temperature_K: float
    seed: int
    file: str
    frames: int
    frame_interval_ps: float
    time_ps: float
    atoms: int
    ions: int
    volume_A3: float


class DiffusivityRow(_Model):
    """One diffusivity of one run. log_variance: of ln D, None where nothing diffused.

    used: whether it enters means and Arrhenius laws. All runs of a temperature do or none does, since leaving out the
    slow ones would raise the mean: none where half of them or more show no jumps, or one has D <= 0.
    """

    region: str
    direction: str
    kind: Kind
    temperature_K: float
    seed: int
    value_m2_per_s: float
    low_m2_per_s: float
    high_m2_per_s: float
    log_variance: float | None
    degrees_of_freedom: float
    start_time_ps: float
    intercept_A2: float
    directions: int
    warnings: tuple[tuple[str, str], ...] = ()
    used: bool

    @classmethod
    def of(
        cls, d: Diffusivity, region: str, direction: str, kind: Kind, kelvin: float, seed: int
    ) -> DiffusivityRow:
        """A row of a diffusivity."""
        return cls(
            region=region,
            direction=direction,
            kind=kind,
            temperature_K=kelvin,
            seed=seed,
            value_m2_per_s=d.value,
            low_m2_per_s=d.low,
            high_m2_per_s=d.high,
            log_variance=d.log_variance if math.isfinite(d.log_variance) else None,
            degrees_of_freedom=d.degrees_of_freedom,
            start_time_ps=d.start_time,
            intercept_A2=d.intercept,
            directions=d.directions,
            warnings=tuple((w.code, w.message) for w in d.warnings),
            used=d.value > 0 and math.isfinite(d.log_variance),
        )

    def diffusivity(self) -> Diffusivity:
        """The diffusivity the row was made of."""
        return Diffusivity(
            self.value_m2_per_s,
            self.low_m2_per_s,
            self.high_m2_per_s,
            math.inf if self.log_variance is None else self.log_variance,
            self.degrees_of_freedom,
            self.start_time_ps,
            self.intercept_A2,
            self.directions,
            tuple(DiffusionWarning(code, message) for code, message in self.warnings),
        )


class HavenRow(_Model):
    """Haven ratio of one run with its 95 % interval; None where it has none."""

    temperature_K: float
    seed: int
    value: float | None
    low: float
    high: float | None


class EstimateRow(_Model):
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float

    @classmethod
    def of(cls, estimate: Estimate) -> EstimateRow:
        """A row of an estimate."""
        return cls(value=estimate.value, low=estimate.low, high=estimate.high)


class ArrheniusRow(_Model):
    """The Arrhenius law of one region and direction; p_value: of one regime against two (None below five temperatures).

    activation_energy_eV is that below the break. extrapolated_m2_per_s: by temperature in K, as text.
    """

    region: str
    direction: str
    kind: Kind
    temperatures_K: tuple[float, ...]
    D0_m2_per_s: float
    activation_energy_eV: EstimateRow
    high_temperature_activation_energy_eV: EstimateRow | None
    break_temperature_K: EstimateRow | None
    p_value: float | None
    chi2_per_dof: float | None
    extrapolated_m2_per_s: dict[str, EstimateRow]

    @classmethod
    def of(
        cls, fit: ArrheniusFit, region: str, direction: str, kind: Kind, wanted: Iterable[float]
    ) -> ArrheniusRow:
        """A row of a fit, extrapolated to the temperatures wanted (K)."""

        def row(estimate: Estimate | None) -> EstimateRow | None:
            return None if estimate is None else EstimateRow.of(estimate)

        return cls(
            region=region,
            direction=direction,
            kind=kind,
            temperatures_K=tuple(float(t) for t in fit.temperatures),
            D0_m2_per_s=math.exp(fit.log_d0),
            activation_energy_eV=EstimateRow.of(fit.activation_energy_interval),
            high_temperature_activation_energy_eV=row(fit.high_temperature_activation_energy),
            break_temperature_K=row(fit.break_temperature),
            p_value=fit.p_value if math.isfinite(fit.p_value) else None,
            chi2_per_dof=fit.chi2_per_dof if math.isfinite(fit.chi2_per_dof) else None,
            extrapolated_m2_per_s={f"{t:g}": EstimateRow.of(fit.at(t)) for t in wanted},
        )


class WidthRow(_Model):
    """A boundary's width by one rule, Å. rule: in words; name: of the setting."""

    name: str
    value_A: float
    standard_uncertainty_A: float
    rule: str


class BoundaryRow(_Model):
    """The boundaries of the cell: name (None: not known), their distance, all widths found, the one used."""

    name: str | None
    separation_A: float
    width: WidthRow
    widths: tuple[WidthRow, ...]
    no_width: tuple[str, ...] = ()


class DensityRow(_Model):
    """Carriers and sites per volume of a region, means over all runs."""

    region: str
    carrier_density_per_m3: float
    carrier_density_uncertainty_per_m3: float
    site_density_per_m3: float
    site_density_uncertainty_per_m3: float


class CompositionRow(_Model):
    """Atomic percent of a species in a region; None where too few frames tell the uncertainty."""

    region: str
    species: str
    atomic_percent: float
    standard_error: float | None


class SegregationRow(_Model):
    """A segregation energy from occupancies; negative: the solute prefers the boundary."""

    solute: str
    runs: str
    temperature_K: float
    energy_eV: float
    standard_uncertainty_eV: float
    boundary_occupancy: float
    bulk_occupancy: float
    converged: bool


class RestRow(_Model):
    """Energy of a defect at rest in the boundary less that in the bulk. standard_uncertainty_eV: from the scatter over
    sites, None with one in a region. lowest_eV: of the best boundary site less the bulk mean."""

    defect: str
    difference_eV: float
    standard_uncertainty_eV: float | None
    lowest_eV: float
    boundary_sites: int
    bulk_sites: int
    relaxed: bool
    all_converged: bool


class OrderRow(_Model):
    """A-site order of one run."""

    temperature_K: float
    seed: int
    order: float
    standard_error: float


class AnisotropyRow(_Model):
    """Ratio of two tracer diffusivities of a region at one temperature."""

    region: str
    temperature_K: float
    ratio: str
    value: float
    low: float
    high: float


class PeakRow(_Model):
    """g(r) of a pair: the first minimum and the coordination up to it; None where g has no second shell."""

    pair: str
    region: str
    first_minimum_A: float | None
    coordination: float | None


class IsosurfaceRow(_Model):
    """The level of the ions' density that encloses a share of them, and the volume it fills."""

    enclosed_share: float
    level_per_A3: float
    share_of_volume: float
    file: str


class AnalysisResults(_Model):
    """All that an analysis found. settings: of the analysis; settings_sha256: of it and of the campaign."""

    schema_version: Literal[1] = 1
    kind: Literal["analysis"] = "analysis"
    title: str
    mobile: str
    formula: str
    species: dict[str, int]
    potential: str | None
    potential_sha256: str | None
    settings_sha256: str
    settings: dict[str, Any]
    campaign_settings: dict[str, Any] | None
    runs: tuple[RunRow, ...]
    diffusivities: tuple[DiffusivityRow, ...]
    means: tuple[DiffusivityRow, ...]
    haven: tuple[HavenRow, ...]
    haven_ratio: EstimateRow | None
    arrhenius: tuple[ArrheniusRow, ...]
    anisotropy: tuple[AnisotropyRow, ...]
    boundary: BoundaryRow | None
    densities: tuple[DensityRow, ...]
    composition: tuple[CompositionRow, ...]
    segregation: tuple[SegregationRow, ...]
    rest: tuple[RestRow, ...] = ()
    order: tuple[OrderRow, ...]
    radial: tuple[PeakRow, ...]
    isosurface: IsosurfaceRow | None
    warnings: tuple[str, ...]
    versions: dict[str, str]

    def dump(self) -> str:
        """As JSON; the same results give the same text."""
        return json.dumps(self.model_dump(mode="json"), indent=1, ensure_ascii=False, allow_nan=False) + "\n"

    def used(self, region: str, direction: str, kind: Kind = "tracer") -> dict[float, list[Diffusivity]]:
        """Diffusivities that count, by temperature (K), rising."""
        found: dict[float, list[Diffusivity]] = {}
        for row in sorted(self.diffusivities, key=lambda r: (r.temperature_K, r.seed)):
            if (row.region, row.direction, row.kind) == (region, direction, kind) and row.used:
                found.setdefault(row.temperature_K, []).append(row.diffusivity())
        return found


def load_results(folder: str | Path) -> AnalysisResults:
    """`results.json` of an analysis's folder. Raises FileFormatError where it is none, or damaged."""
    path = Path(folder) / "results.json" if Path(folder).is_dir() else Path(folder)
    remedy = "give a folder written by atomistic analyse"
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise FileFormatError(path, None, f"cannot be read ({error.strerror})", remedy) from None
    except ValueError as error:
        raise FileFormatError(path, None, f"is not JSON ({error})", remedy) from None
    if not isinstance(values, dict) or values.get("kind") != "analysis":
        raise FileFormatError(path, None, "holds no analysis", remedy)
    try:
        return AnalysisResults(**values)
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(str(part) for part in first["loc"])
        raise FileFormatError(path, None, f"{key}: {first['msg']}", "analyse again") from None
