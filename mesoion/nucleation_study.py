"""The study of kind "nucleation": where lithium metal appears in a pellet first, and at what current density.

Critical currents over grain size, boundary transport, temperature and interface with intervals over the assumed
ranges, sensitivity, the order of the cases and how often it flips; a resolved polycrystal under current as a hazard
map; lithium beside a boundary at rest and under current.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import BeforeValidator, Field, model_validator

from mesoion.config import Model, StudyModel
from mesoion.critical_current import Constriction
from mesoion.errors import InputError, NoElectronsError
from mesoion.material import Material
from mesoion.microstructure import polycrystal
from mesoion.nucleation_growth import GrowthInput, grow_cases, write_growth
from mesoion.nucleation_sampling import (
    CRITERIA,
    METAL_SITES,
    SITE_WORDS,
    Criterion,
    Parameter,
    PelletCase,
    Sensitivity,
    between,
    draws,
    interval,
    normal,
    sobol_indices,
)
from mesoion.runfolder import Comparison, RunFolder
from mesoion.transport import MeasuredCriticalCurrent, measured_critical_currents
from mesoion.units import (
    ELEMENTARY_CHARGE,
    AreaResistance,
    CurrentDensity,
    Energy_eV,
    Length,
    Pressure,
    PureNumber,
    SurfaceDensity,
    SurfaceEnergy,
    Temperature,
    quantity_validator,
)

Floats = NDArray[np.float64]
Positive = Field(gt=0)
Angle = Annotated[float, BeforeValidator(quantity_validator("rad"))]
T = TypeVar("T")

MA_PER_CM2 = 0.1
"""1 A/m² in mA/cm²."""
ROOM = (288.0, 303.5)
"""Temperatures [K] at which a measured value counts as one at room temperature."""
QUANTITIES: dict[Criterion, str] = {
    "stable": "critical current, metal stable",
    "barrier": "critical current, barrier crossed",
}
ALIKE = 0.05
"""Critical currents closer than this count as the same."""
CRITERION_WORDS: dict[Criterion, str] = {
    "stable": "metal is stable there",
    "barrier": "the barrier is crossed",
}


class Spread(Model, Generic[T]):
    """A range with its source: uniform in the logarithm, or in the value with `uniform = true`."""

    low: T
    high: T
    source: Annotated[str, Field(min_length=1, max_length=500)]
    kind: Literal["measured", "literature", "assumption"] = "assumption"
    uniform: bool = False

    def parameter(self, name: str, unit: str, factor: float = 1.0) -> Parameter:
        """As a parameter whose values are multiplied by `factor`; InputError for a range upside down."""
        low, high = float(self.low) * factor, float(self.high) * factor  # type: ignore[arg-type]
        return between(
            name,
            unit,
            low,
            high,
            self.source,
            log=not self.uniform and low > 0,
            assumed=self.kind == "assumption",
        )


class Assumptions(Model):
    """What nobody has measured on the pellet at hand; all of it travels into the interval."""

    surface_energy: Spread[Annotated[SurfaceEnergy, Positive]]
    boundary_energy: Spread[Annotated[SurfaceEnergy, Positive]]
    contact_angle: Spread[Annotated[Angle, Field(ge=0, le=math.pi)]]
    elastic_energy: Spread[Annotated[Pressure, Field(ge=0)]]
    pore_diameter: Spread[Annotated[Length, Positive]]
    barrier: Spread[Annotated[Energy_eV, Positive]]
    interfacial_resistance: Spread[Annotated[AreaResistance, Positive]]
    interfacial_activation_energy: Spread[Annotated[Energy_eV, Field(ge=0)]]
    contact_fraction: Spread[Annotated[PureNumber, Field(gt=0, le=1)]]

    def parameters(self) -> list[Parameter]:
        """All of them, in SI."""
        ev = ELEMENTARY_CHARGE
        return [
            self.surface_energy.parameter("surface energy", "J/m^2"),
            self.boundary_energy.parameter("boundary energy", "J/m^2"),
            self.contact_angle.parameter("contact angle", "rad"),
            self.elastic_energy.parameter("elastic energy", "J/m^3"),
            self.pore_diameter.parameter("pore diameter", "m"),
            self.barrier.parameter("barrier", "J", ev),
            self.interfacial_resistance.parameter("interfacial resistance", "ohm m^2"),
            self.interfacial_activation_energy.parameter("interfacial activation energy", "J", ev),
            self.contact_fraction.parameter("contact fraction", ""),
        ]


class BoundaryInput(Model):
    """A boundary type of a case: its record and its share of the boundary length."""

    record: str
    fraction: Annotated[PureNumber, Field(gt=0, le=1)] = 1.0


class CaseInput(Model):
    """A pellet to be compared with others of the study."""

    name: Annotated[str, Field(min_length=1, max_length=60)]
    grain: str
    boundaries: Annotated[dict[str, BoundaryInput], Field(min_length=1)]
    mean_grain_size: Annotated[Length, Positive]
    grain_size_factor: Annotated[PureNumber, Field(ge=1, le=100)] = 1.0
    thickness: Annotated[Length, Positive] = 1e-3
    relative_permittivity: Annotated[PureNumber, Positive] | None = None
    core_charge: Annotated[SurfaceDensity, Field(ge=0, le=1e20)] = 0.0
    """Most charges per area that segregation may leave in the boundaries; 0 to that is sampled."""
    note: str = ""

    @model_validator(mode="after")
    def _fractions(self) -> CaseInput:
        total = sum(b.fraction for b in self.boundaries.values())
        if abs(total - 1) > 1e-6:
            raise ValueError(f"the fractions of the boundary types sum to 1, not to {total:g}")
        return self


class Sizes(Model):
    """Logarithmically spaced grain sizes."""

    lowest: Annotated[Length, Positive]
    highest: Annotated[Length, Positive]
    points: Annotated[int, Field(ge=2, le=200)] = 15

    @model_validator(mode="after")
    def _ordered(self) -> Sizes:
        if self.highest <= self.lowest:
            raise ValueError("the highest value must exceed the lowest")
        return self

    def values(self) -> Floats:
        """[m]."""
        return np.geomspace(self.lowest, self.highest, self.points)


class MapInput(Model):
    """The resolved polycrystal under current; no grains, no map."""

    grains: Annotated[int, Field(ge=0, le=400)] = 16
    current_density: Annotated[CurrentDensity, Positive] | None = None
    """Of ions; without it, 5 % below the one at which the median parameters make metal stable in a boundary."""


class ProfileInput(Model):
    """Lithium beside one resolved boundary, for every permittivity and segregation energy."""

    record: str
    relative_permittivity: list[Annotated[PureNumber, Positive]] = Field(default=[50.0, 12085.0])
    segregation_energy: list[Energy_eV] = Field(default=[-0.1, 0.1])
    current_density: Annotated[CurrentDensity, Positive] = 10.0


class Study(StudyModel):
    """Lithium nucleation: cases over grain sizes and temperatures, against measured critical currents."""

    kind: Literal["nucleation"] = "nucleation"
    temperature: Annotated[Temperature, Field(ge=200, le=600)] = 298.15
    temperatures: list[Annotated[Temperature, Field(ge=200, le=600)]] = Field(default_factory=list)
    grain_sizes: Sizes
    samples: Annotated[int, Field(ge=64, le=65536)] = 2048
    sobol_samples: Annotated[int, Field(ge=8, le=16384)] = 512
    barriers: Annotated[list[Annotated[Energy_eV, Positive]], Field(min_length=1)] = Field(
        default=[0.25, 0.5, 1.0, 2.0]
    )
    polycrystal_grains: Annotated[int, Field(ge=4, le=400)] = 30
    grain_size_spread: Annotated[PureNumber, Field(ge=0, le=1)] = 0.35
    kinetics: Literal["linear", "butler-volmer"] = "linear"
    assumptions: Assumptions
    cases: Annotated[list[CaseInput], Field(min_length=1, max_length=6)]
    measured_material: str | None = None
    compare: str | None = None
    """The case that is set beside the measured values; the first one unless given."""
    map: MapInput = MapInput()
    profile: ProfileInput | None = None
    growth: GrowthInput | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Study:
        names = [c.name for c in self.cases]
        if len(set(names)) < len(names):
            raise ValueError("every case needs a name of its own")
        if self.compare is not None and self.compare not in names:
            raise ValueError(f"compare names one of the cases: {', '.join(names)}")
        network = None if self.growth is None else self.growth.polycrystal
        for name in () if network is None else network.cases or ():
            if name not in names:
                raise ValueError(
                    f"growth.polycrystal.cases: {name!r} is none of the cases {', '.join(names)}"
                )
        if self.sobol_samples & (self.sobol_samples - 1):
            raise ValueError("sobol_samples must be a power of 2")
        return self


@dataclass(frozen=True)
class CaseResult:
    """A case with its parameters (shared ones first) and critical currents (n,) at the study's temperature."""

    case: PelletCase
    given: CaseInput
    parameters: list[Parameter]
    cube: Floats
    currents: Mapping[tuple[Criterion, str], Floats]

    def values(self, cube: Floats | None = None) -> dict[str, Floats]:
        """Parameter values at the case's samples, or at points of the unit cube."""
        return draws(self.parameters, self.cube if cube is None else cube)

    @property
    def nominal(self) -> dict[str, Floats]:
        """Every parameter at its median, arrays of one."""
        return {p.name: np.array([p.nominal]) for p in self.parameters}


def material_of(given: CaseInput) -> Material:
    """The case's records; InputError names the case."""
    try:
        return Material.from_records(
            given.grain,
            {name: b.record for name, b in given.boundaries.items()},
            relative_permittivity=given.relative_permittivity,
        )
    except InputError as error:
        raise InputError(f"cases.{given.name}: {error.where}", error.value, error.remedy) from None


def require_electrons(given: CaseInput, temperature: float) -> None:
    """Raises NoElectronsError, which names the case and its record, where grain or boundaries have no electrons."""
    material = material_of(given)
    phases = {given.grain: material.grain(temperature)}
    phases |= {b.record: material.boundary(temperature, name) for name, b in given.boundaries.items()}
    for record, phase in phases.items():
        if not phase.electronic_conductivity > 0:
            raise NoElectronsError(f"cases.{given.name}: record {record!r}")


def shared_parameters(study: Study, material: Material) -> list[Parameter]:
    """The assumptions, and the grain's own conductivities: the same draw in every case."""
    record = material.bulk
    law = record.electronic_transport
    electronic = 0.0 if law is None else float(law.log_standard_uncertainty(study.temperature))
    return [
        *study.assumptions.parameters(),
        normal(
            "grain conductivity",
            "ln",
            record.conductivity(study.temperature).log_standard_uncertainty,
            f"record {record.name}",
            assumed=False,
        ),
        normal(
            "electronic conductivity",
            "ln",
            electronic,
            f"record {record.name}: electronic_transport",
            assumed=True,
        ),
    ]


def build_cases(study: Study, constriction: Constriction) -> list[CaseResult]:
    """Sample every case: shared parameters at the same draws, its own boundaries and grain size at others."""
    results = []
    for index, given in enumerate(study.cases):
        case = PelletCase(
            name=given.name,
            material=material_of(given),
            fractions={name: b.fraction for name, b in given.boundaries.items()},
            grain_size=given.mean_grain_size,
            thickness=given.thickness,
            constriction=constriction,
            core_charge=given.core_charge,
            kinetics=study.kinetics,
            reference_temperature=study.temperature,
        )
        shared = shared_parameters(study, case.material)
        factor = given.grain_size_factor
        own = [
            *case.parameters(),
            between(
                "grain size",
                "of the case's",
                1 / factor,
                factor,
                f"study, case {given.name}",
                log=True,
                assumed=True,
            ),
        ]
        cube = np.hstack(
            [
                np.random.default_rng([study.seed, 1]).random((study.samples, len(shared))),
                np.random.default_rng([study.seed, 2, index]).random((study.samples, len(own))),
            ]
        )
        parameters = [*shared, *own]
        currents = case.critical_currents(draws(parameters, cube), study.temperature)
        results.append(CaseResult(case, given, parameters, cube, currents))
    return results


def run(study: Study, folder: RunFolder, rng: np.random.Generator) -> None:
    """Sample the cases, compare, and write tables, figures, comparisons and words."""
    from mesoion import nucleation_report

    for given in study.cases:
        require_electrons(given, study.temperature)
    measured = _measured(study)
    # First what a current may be too large for: the sampling takes longer.
    profiles = nucleation_report.lithium_profiles(study)
    grown = None
    if study.growth is not None:
        cases = {
            given.name: (material_of(given), {name: b.fraction for name, b in given.boundaries.items()})
            for given in study.cases
        }
        grown = grow_cases(folder, study.growth, cases, study.temperature)
    constriction = constriction_of(study)
    results = build_cases(study, constriction)
    sensitivity = {
        criterion: sobol_indices(
            results[0].parameters,
            lambda values, c=criterion: np.log(  # type: ignore[misc]
                results[0].case.critical_currents(values, study.temperature)[c, "first"]
            ),
            study.sobol_samples,
            study.seed,
        )
        for criterion in CRITERIA
    }
    _tables(study, folder, results, sensitivity)
    _compare(study, folder, results, measured)
    nucleation_report.write(study, folder, results, sensitivity, measured, profiles)
    if study.growth is not None and grown is not None:
        write_growth(folder, study.growth, grown)


def constriction_of(study: Study) -> Constriction:
    """What boundaries add locally, tabulated for the study's polycrystal."""
    structure = polycrystal(
        study.polycrystal_grains, 1.0, study.grain_size_spread, np.random.default_rng([study.seed, 3])
    )
    return Constriction.build(structure)


def _measured(study: Study) -> tuple[MeasuredCriticalCurrent, ...]:
    if study.measured_material is None:
        return ()
    name = study.measured_material
    found = tuple(
        m for m in measured_critical_currents() if m.material == name or m.material.startswith(f"{name} ")
    )
    if not any(m.material == name for m in found):
        known = ", ".join(sorted({m.material for m in measured_critical_currents()}))
        raise InputError("measured_material", study.measured_material, f"one of: {known}")
    return found


def ordering(results: Sequence[CaseResult]) -> list[dict[str, Any]]:
    """For every pair of cases and criterion: how often the first has the lower critical current, and by what factor.

    The same draw of everything they share; only boundaries and grain sizes differ between the two. Samples in which
    electrons short both cells before either site is reached have no order; the shares are of the others.
    """
    rows: list[dict[str, Any]] = []
    for i, a in enumerate(results):
        for b in results[i + 1 :]:
            for criterion in CRITERIA:
                for site in (*METAL_SITES, "first"):
                    first, second = a.currents[criterion, site], b.currents[criterion, site]
                    some = np.isfinite(first) | np.isfinite(second)
                    both = np.isfinite(first) & np.isfinite(second)
                    if not both.any():
                        continue
                    middle, low, high = interval(first[both] / second[both])
                    lower = float(np.mean(first[some] < second[some]))
                    alike = np.abs(first[both] / second[both] - 1) < ALIKE
                    rows.append(
                        {
                            "first case": a.case.name,
                            "second case": b.case.name,
                            "criterion": CRITERION_WORDS[criterion],
                            "site": SITE_WORDS.get(site, "first of all"),
                            "first is lower in": lower,
                            "order flips in": min(lower, 1 - lower),
                            "within 5 % in": float(alike.sum() / some.sum()),
                            "ratio, median": middle,
                            "ratio, low": low,
                            "ratio, high": high,
                        }
                    )
    return rows


def finite(value: float) -> float | None:
    """None for what no current reaches before electrons short the cell."""
    return value if math.isfinite(value) else None


def _tables(
    study: Study,
    folder: RunFolder,
    results: Sequence[CaseResult],
    sensitivity: Mapping[Criterion, Sensitivity],
) -> None:
    import pandas as pd

    rows: list[dict[str, Any]] = []
    for r in results:
        for (criterion, site), values in r.currents.items():
            middle, low, high = interval(values * MA_PER_CM2)
            rows.append(
                {
                    "case": r.case.name,
                    "criterion": CRITERION_WORDS[criterion],
                    "site": SITE_WORDS.get(site, "first of all"),
                    "median / mA cm^-2": finite(middle),
                    "low / mA cm^-2": finite(low),
                    "high / mA cm^-2": finite(high),
                    "electrons short first in": float(np.mean(np.isinf(values))),
                }
            )
            folder.result(
                f"critical_current_density_mA_per_cm2 {r.case.name} {criterion} {site}",
                {k: finite(v) for k, v in (("value", middle), ("low", low), ("high", high))},
            )
    folder.table("critical_currents", pd.DataFrame(rows), lead=True)
    orders = ordering(results)
    if orders:
        folder.table("order_of_the_cases", pd.DataFrame(orders), lead=True)
    folder.result("ordering", orders)
    assumed: list[dict[str, Any]] = []
    for r in results:
        for p in r.parameters:
            low, high = p.interval
            row = {
                "parameter": p.name,
                "unit": p.unit,
                "median": p.nominal,
                "low": low,
                "high": high,
                "assumption": "yes" if p.assumed else "no",
                "source": p.source,
            }
            if row not in assumed:
                assumed.append(row)
    folder.table("parameters_and_their_ranges", pd.DataFrame(assumed))
    indices = [
        {
            "criterion": CRITERION_WORDS[c],
            "parameter": name,
            "first order": float(s.first[j]),
            "first order, 95 % +-": float(s.first_error[j]),
            "total": float(s.total[j]),
            "total, 95 % +-": float(s.total_error[j]),
        }
        for c, s in sensitivity.items()
        for j, name in enumerate(s.names)
    ]
    folder.table("sobol_indices", pd.DataFrame(indices))
    folder.result("sobol_indices", indices)


def compared_case(study: Study, results: Sequence[CaseResult]) -> CaseResult:
    """The case that stands for the measured pellets."""
    return next((r for r in results if r.case.name == study.compare), results[0])


def _compare(
    study: Study,
    folder: RunFolder,
    results: Sequence[CaseResult],
    measured: Sequence[MeasuredCriticalCurrent],
) -> None:
    chosen = compared_case(study, results)
    values = chosen.values()
    # A variety such as a single crystal is drawn, but is no pellet of these grains.
    measured = [m for m in measured if m.material == study.measured_material]
    at = {t: chosen.case.critical_currents(values, t) for t in sorted({m.temperature_K for m in measured})}
    for criterion in CRITERIA:
        for m in measured:
            middle, low, high = interval(at[m.temperature_K][criterion, "first"] * MA_PER_CM2)
            source = ", ".join(p for p in (m.source.text, m.source.doi, m.note) if p)
            folder.compare(
                Comparison(
                    f"{m.composition}, {m.temperature_K - 273.15:.0f} C",
                    QUANTITIES[criterion],
                    "mA/cm^2",
                    middle,
                    low,
                    high,
                    m.critical_current_density_A_per_m2 * MA_PER_CM2,
                    source,
                )
            )
