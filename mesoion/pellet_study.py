"""The study of kind "pellets": what transport records predict for real pellets, beside what was measured."""

from __future__ import annotations

import math
from contextlib import suppress
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import ConfigDict, Field, TypeAdapter, model_validator

from mesoion.config import Model, StudyModel
from mesoion.effective_medium import specific_from_apparent
from mesoion.errors import InputError
from mesoion.material import Material
from mesoion.pellet import Conductivities, Interval, Leads, Pellet, RepresentativeVolume
from mesoion.pellet_figures import Measured, Shown, draw, draw_profile, file_name
from mesoion.pellet_picture import picture
from mesoion.physics import Electrode
from mesoion.provenance import content_hash
from mesoion.reading import SpectrumReading, read_spectrum
from mesoion.reduced import BoundaryRange
from mesoion.runfolder import Comparison, RunFolder, write_atomically
from mesoion.transport import measured_conductivities
from mesoion.units import (
    AreaCapacitance,
    AreaResistance,
    Conductivity,
    Frequency,
    Inductance,
    Length,
    PureNumber,
    Resistance,
    SurfaceDensity,
    Temperature,
)

PER_CM = 0.01
"""S/m to S/cm."""

Positive = Field(gt=0)
QUANTITIES = ("bulk", "apparent grain boundary", "total")
LARGEST_RATIO = 30.0
"""The reduced model is built for layers up to this much more conductive than the grain; beyond, full solves."""
TEMPERATURE_TOLERANCE = 3.0
"""A measurement this near to the report temperature is compared with it [K]."""


class SpectrumInput(Model):
    """Frequencies of the simulated spectra."""

    lowest_frequency: Annotated[Frequency, Positive] = 0.1
    highest_frequency: Annotated[Frequency, Positive] = 1e9
    points_per_decade: Annotated[int, Field(ge=2, le=100)] = 8

    @model_validator(mode="after")
    def _ordered(self) -> SpectrumInput:
        if self.highest_frequency < 10 * self.lowest_frequency:
            raise ValueError("the highest frequency must be at least ten times the lowest")
        return self

    def frequencies(self) -> np.ndarray[Any, np.dtype[np.float64]]:
        """Logarithmically spaced [Hz]."""
        decades = math.log10(self.highest_frequency / self.lowest_frequency)
        count = round(decades * self.points_per_decade) + 1
        return np.geomspace(self.lowest_frequency, self.highest_frequency, count)


class VolumeInput(Model):
    """The representative volume: grains, spread of ln(grain size), realisations."""

    grains: Annotated[int, Field(ge=4, le=2000)] = 80
    grain_size_spread: Annotated[PureNumber, Field(ge=0, le=1)] = 0.35
    realisations: Annotated[int, Field(ge=1, le=50)] = 3


class BoundaryInput(Model):
    """A boundary type: its record, its share of the boundary length, and a charge added to the record's core."""

    record: str
    fraction: Annotated[PureNumber, Field(gt=0, le=1)] = 1.0
    core_charge: SurfaceDensity = 0.0
    """Elementary charges per area [1/m²]."""


class ElectrodeInput(Model):
    """Both electrodes of the pellet."""

    kind: Literal["blocking", "reversible"] = "blocking"
    compact_capacitance: Annotated[AreaCapacitance, Positive] | None = None
    charge_transfer_resistance: Annotated[AreaResistance, Field(ge=0)] = 0.0


class LeadsInput(Model):
    """Series resistance and inductance of the leads."""

    resistance: Annotated[Resistance, Field(ge=0)] = 0.0
    inductance: Annotated[Inductance, Field(ge=0)] = 0.0


class MeasuredInput(Model):
    """A measured conductivity of the user's own pellet at the report temperature."""

    quantity: Literal["bulk", "apparent grain boundary", "total"]
    conductivity: Annotated[Conductivity, Positive]
    source: str


class PelletInput(Model):
    """One pellet: records, geometry, electrodes, and what was measured on it."""

    name: Annotated[str, Field(min_length=1, max_length=80)]
    grain: str
    boundaries: Annotated[dict[str, BoundaryInput], Field(min_length=1)]
    mean_grain_size: Annotated[Length, Positive]
    grain_size_factor: Annotated[PureNumber, Field(ge=1, le=100)] = 1.0
    """The grain size is known to within this factor (one standard deviation)."""
    thickness: Annotated[Length, Positive] = 1e-3
    diameter: Annotated[Length, Positive] = 1e-2
    relative_permittivity: Annotated[PureNumber, Positive] | None = None
    """Replaces the records' value in grain and boundary alike."""
    electrode: ElectrodeInput = ElectrodeInput()
    leads: LeadsInput = LeadsInput()
    measured_material: str | None = None
    """Name under which the shipped measured conductivities list this material."""
    measured: tuple[MeasuredInput, ...] = ()
    note: str = ""
    picture: bool = True
    """Solve and draw a few grains of it with resolved layers."""


class Study(StudyModel):
    """Pellets at one report temperature and over a list of temperatures."""

    report_temperature: Annotated[Temperature, Positive] = 298.15
    temperatures: Annotated[list[Annotated[Temperature, Positive]], Field(min_length=1)]
    samples: Annotated[int, Field(ge=20, le=100000)] = 200
    instrument_accuracy: Annotated[PureNumber, Field(gt=0, lt=0.2)] = 0.005
    spectrum: SpectrumInput = SpectrumInput()
    representative_volume: VolumeInput = VolumeInput()
    picture_grains: Annotated[int, Field(ge=0, le=200)] = 12
    pellets: Annotated[list[PelletInput], Field(min_length=1)]

    @model_validator(mode="after")
    def _distinct(self) -> Study:
        names = [p.name for p in self.pellets]
        if len(set(names)) < len(names):
            raise ValueError("every pellet needs a name of its own")
        return self


def material_of(given: PelletInput) -> Material:
    """The material of a pellet's input; InputError for an unknown record."""
    return Material.from_records(
        given.grain,
        {name: b.record for name, b in given.boundaries.items()},
        relative_permittivity=given.relative_permittivity,
    )


def pellet_of(given: PelletInput, volume: RepresentativeVolume) -> Pellet:
    """The pellet of an input in a representative volume with its boundary fractions."""
    return Pellet(
        material=material_of(given),
        volume=volume,
        mean_grain_size=given.mean_grain_size,
        thickness=given.thickness,
        area=math.pi * given.diameter**2 / 4,
        electrode=Electrode(
            given.electrode.kind,
            given.electrode.compact_capacitance,
            given.electrode.charge_transfer_resistance,
        ),
        leads=Leads(given.leads.resistance, given.leads.inductance),
        core_charge={name: b.core_charge for name, b in given.boundaries.items()},
        grain_size_factor=given.grain_size_factor,
    )


Fractions = tuple[tuple[str, float], ...]


def _fractions(given: PelletInput) -> Fractions:
    return tuple(sorted((name, b.fraction) for name, b in given.boundaries.items()))


def _volumes(study: Study, folder: RunFolder) -> dict[Fractions, RepresentativeVolume]:
    """One representative volume for each set of boundary fractions, reduced over the range its pellets need."""
    wanted = study.representative_volume
    groups: dict[Fractions, list[PelletInput]] = {}
    for given in study.pellets:
        total = sum(b.fraction for b in given.boundaries.values())
        if abs(total - 1) > 1e-6:
            where = f"pellets.{given.name}.boundaries"
            raise InputError(where, total, "the fractions of the boundary types sum to 1")
        groups.setdefault(_fractions(given), []).append(given)
    built: dict[Fractions, RepresentativeVolume] = {}
    for fractions, group in groups.items():
        temperatures = [*study.temperatures, study.report_temperature]
        bare = RepresentativeVolume.unmeshed(dict(fractions))
        spans = np.array([pellet_of(g, bare).boundary_range(temperatures) for g in group])
        low, high = spans.min(axis=0), spans.max(axis=0)
        built[fractions] = RepresentativeVolume.build(
            n_grains=wanted.grains,
            grain_size_spread=wanted.grain_size_spread,
            boundary_fractions=dict(fractions),
            boundary_range=BoundaryRange(
                ratio=(low[0] / 5, min(high[1] * 5, LARGEST_RATIO)), width=(low[2] / 1.5, high[3] * 1.5)
            ),
            realisations=wanted.realisations,
            seed=study.seed,
            progress=folder.progress,
        )
    return built


def _measured(given: PelletInput, temperature: float) -> list[Measured]:
    found: list[Measured] = [Measured(m.quantity, m.conductivity, m.source) for m in given.measured]
    if given.measured_material is None:
        return found
    listed = measured_conductivities(given.measured_material)
    if not listed:
        known = ", ".join(sorted({m.material for m in measured_conductivities()}))
        where = f"pellets.{given.name}.measured_material"
        raise InputError(where, given.measured_material, f"one of: {known}")
    for m in listed:
        if abs(m.temperature_K - temperature) <= TEMPERATURE_TOLERANCE:
            source = ", ".join(p for p in (m.source.text, m.source.doi, m.note) if p)
            found.append(Measured(m.quantity, m.conductivity_S_per_m, source))
    return found


def _compare(
    folder: RunFolder, given: PelletInput, predicted: Conductivities, measured: list[Measured]
) -> None:
    intervals = dict(zip(QUANTITIES, (predicted.bulk, predicted.apparent_gb, predicted.total), strict=True))
    for m in measured:
        interval = intervals[m.quantity]
        if math.isfinite(interval.high):
            shown, unit, reference = interval.scaled(PER_CM), "S/cm", m.conductivity * PER_CM
            name = f"{m.quantity} conductivity"
        else:
            # A boundary that may add no resistance at all has an unbounded conductivity: compare resistivities.
            value = 100 / interval.value if math.isfinite(interval.value) else 0.0
            shown, unit, reference = Interval(value, 0.0, 100 / interval.low), "ohm cm", 100 / m.conductivity
            name = f"{m.quantity} resistivity"
        folder.compare(
            Comparison(given.name, name, unit, shown.value, shown.low, shown.high, reference, m.source)
        )


def gap_in_words(
    given: PelletInput, pellet: Pellet, predicted: Conductivities, measured: list[Measured]
) -> str:
    """The distance between the predicted and the measured apparent boundary conductivity, and what it would take."""
    arcs = [m.conductivity for m in measured if m.quantity == "apparent grain boundary"]
    if not arcs:
        return ""
    value = arcs[0]
    app, total = predicted.apparent_gb, predicted.total
    layers = ", ".join(
        f"{name}: {_short(v.value * PER_CM)} S/cm in "
        f"{1e9 * (pellet.material.boundary(predicted.temperature, name).width or 0.0):.2g} nm"
        for name, v in predicted.specific_gb.items()
    )
    share = 1 - total.value / predicted.bulk.value
    text = (
        f"The boundaries' own (specific) conductivity is {layers}. On grains of "
        f"{given.mean_grain_size * 1e6:.3g} µm this layer would show as an apparent grain-boundary conductivity of "
        f"{_say(app)} S/cm and take {100 * share:.2g} % of the pellet's resistance. Measured were "
        f"{_short(value * PER_CM)} S/cm. "
    )
    if app.low <= value <= app.high:
        breadth = app.high / app.low
        spans = (
            f"a factor of {_short(breadth)}" if math.isfinite(breadth) else "everything above its lower end"
        )
        return text + (
            f"The measurement lies inside the prediction's 95 % interval, which spans {spans}: these records can "
            "neither explain the pellet nor contradict it."
        )
    ratio = app.value / value
    if not math.isfinite(ratio):
        return (
            text + "Predicted boundaries add no resistance at all, so the whole measured arc is unexplained."
        )
    width = max(
        pellet.material.boundary(predicted.temperature, n).width or 0.0 for n in predicted.specific_gb
    )
    needed = specific_from_apparent(value, width / given.mean_grain_size)
    side = "better" if ratio > 1 else "worse"
    return text + (
        f"The prediction conducts {_short(max(ratio, 1 / ratio))} times {side} than the measurement "
        f"(95 % interval {_range(app.low / value, app.high / value)} times the measured value): a layer of "
        f"{width * 1e9:.2g} nm would need {needed * PER_CM:.2g} S/cm for the measured arc. "
        "Intrinsic boundary transport alone does not give the pellet; space charge, blocking boundaries, a second "
        "phase, constriction and segregation are the candidates for the rest."
    )


def _space_charge(folder: RunFolder, given: PelletInput, pellet: Pellet, predicted: Conductivities) -> str:
    """What core charge alone would give the measured arc, with the profile it makes; for single boundary types."""
    arc = [c for c in folder.comparisons if c.material == given.name and c.quantity.startswith("apparent")]
    if len(given.boundaries) > 1 or not arc or arc[-1].measured >= arc[-1].low or arc[-1].unit != "S/cm":
        return ""
    (name,) = given.boundaries
    plain = pellet.boundaries(predicted.temperature)[name]
    needed = plain.excess_resistance * arc[-1].ratio
    charged = pellet.charged_boundary(predicted.temperature, name, needed)
    if charged is None:
        return " No positive core charge up to 15 e/nm² would do it at this permittivity."
    charge = charged.boundary.core_charge - pellet.layer(predicted.temperature, name).core_charge
    folder.result(f"core_charge_for_measured_arc_per_m2 {given.name}", charge)
    draw_profile(
        folder,
        f"profile_{file_name(given.name)}_charged",
        charged,
        f"{given.name}: what a core charge of {charge * 1e-18:.2g} e/nm² would do (not a record: the "
        "charge that alone gives the measured arc): potential, Li occupancy and conductivity across the layer (grey).",
    )
    permittivity = pellet.material.grain(predicted.temperature).relative_permittivity
    return (
        f" Space charge alone, at ε_r = {permittivity:.3g}, would need a core charge of "
        f"{charge * 1e-18:.2g} e/nm²."
    )


def _say(interval: Interval) -> str:
    return f"{_short(interval.value * PER_CM)} ({_range(interval.low * PER_CM, interval.high * PER_CM)})"


def _range(low: float, high: float) -> str:
    return f"{_short(low)} to {'unbounded' if math.isinf(high) else _short(high)}"


def _short(value: float) -> str:
    """Two significant digits, without an exponent between 0.001 and 100 000."""
    if not 1e-3 <= abs(value) < 1e5:
        return f"{value:.1e}"
    return f"{float(f'{value:.2g}'):g}"


def _summary(study: Study, comparisons: list[Comparison]) -> str:
    """The gap of every material whose measured arc lies outside the prediction, with its size."""
    arcs = [c for c in comparisons if c.quantity == "apparent grain boundary conductivity"]
    outside = [c for c in arcs if not c.low <= c.measured <= c.high]
    if not outside:
        return "No measured boundary arc lies outside its prediction."
    gaps = "; ".join(
        f"{c.material}: predicted {_short(c.predicted)} S/cm ({_range(c.low, c.high)}), measured {_short(c.measured)} "
        f"S/cm, a factor of {_short(max(c.ratio, 1 / c.ratio))}"
        for c in outside
    )
    return (
        f"Apparent grain-boundary conductivity at {study.report_temperature - 273.15:.0f} °C that the transport "
        f"records predict, and what was measured on pellets: {gaps}. Intrinsic boundary transport alone does not give "
        "these pellets."
    )


def _reading_row(name: str, reading: SpectrumReading, exact: Conductivities) -> dict[str, Any]:
    def per_cm(value: float | None) -> float:
        return math.nan if value is None else value * PER_CM

    return {
        "pellet": name,
        "bulk, read / S/cm": per_cm(reading.bulk_conductivity),
        "bulk, model / S/cm": per_cm(exact.bulk.value),
        "apparent GB, read / S/cm": per_cm(reading.apparent_gb_conductivity),
        "apparent GB, model / S/cm": per_cm(exact.apparent_gb.value),
        "total, read / S/cm": per_cm(reading.total_conductivity),
        "total, model / S/cm": per_cm(exact.total.value),
        "specific GB, read / S/cm": per_cm(reading.specific_gb_conductivity),
        "width/grain size, read": reading.width_over_grain_size,
        "largest residual": reading.largest_residual,
    }


def _conductivity_rows(name: str, results: list[Conductivities]) -> list[dict[str, Any]]:
    rows = []
    for c in results:
        row: dict[str, Any] = {"pellet": name, "T / K": c.temperature}
        columns = {
            "bulk": c.bulk,
            "apparent GB": c.apparent_gb,
            "total": c.total,
            "brick layer": c.brick_layer_total,
        }
        columns |= {f"specific {t}": v for t, v in c.specific_gb.items()}
        for label, v in columns.items():
            for part in ("value", "low", "high"):
                row[f"{label} {part} / S/cm"] = getattr(v, part) * PER_CM
        rows.append(row)
    return rows


def run(study: Study, folder: RunFolder, rng: np.random.Generator) -> None:
    """Predict every pellet of the study and write tables, spectra, figures, comparisons and the gap in words."""
    import pandas as pd

    for given in study.pellets:
        material_of(given)
        _measured(given, study.report_temperature)
    volumes = _volumes(study, folder)
    f = study.spectrum.frequencies()
    temperatures = sorted({*study.temperatures, study.report_temperature})
    rows: list[dict[str, Any]] = []
    readings: list[dict[str, Any]] = []
    shown: list[Shown] = []
    for given in folder.progress(study.pellets, "pellets"):
        pellet = pellet_of(given, volumes[_fractions(given)])
        results = _drawn(folder, study, given, pellet, temperatures, int(rng.integers(2**63)))
        at_report = results[temperatures.index(study.report_temperature)]
        measured = _measured(given, study.report_temperature)
        _compare(folder, given, at_report, measured)
        z = pellet.impedance(study.report_temperature, f)
        folder.spectrum(file_name(given.name), f, z)
        reading = read_spectrum(
            f,
            z,
            thickness=pellet.thickness,
            area=pellet.area,
            lead_resistance=pellet.leads.resistance,
            lead_inductance=pellet.leads.inductance,
            blocking=given.electrode.kind == "blocking",
            accuracy=study.instrument_accuracy,
        )
        readings.append(_reading_row(given.name, reading, at_report))
        rows += _conductivity_rows(given.name, results)
        n_grains = study.picture_grains if given.picture else 0
        seen = picture(pellet, study.report_temperature, n_grains, study.seed)
        if seen is not None:
            folder.field(file_name(given.name), seen.mesh, seen.fields)
        shown.append(
            Shown(
                name=given.name,
                results=results,
                measured=measured,
                report_temperature=study.report_temperature,
                frequency=f,
                impedance=z * pellet.area / pellet.thickness,
                boundaries=pellet.boundaries(study.report_temperature),
                picture=seen,
            )
        )
        words = gap_in_words(given, pellet, at_report, measured) + _space_charge(
            folder, given, pellet, at_report
        )
        folder.paragraph(given.name, "\n\n".join(p for p in (given.note, words, _assumed(at_report)) if p))
    folder.paragraphs.insert(0, ("Predicted and measured boundaries", _summary(study, folder.comparisons)))
    folder.table("conductivities", pd.DataFrame(rows))
    folder.table("read_off_the_spectra", pd.DataFrame(readings))
    folder.result("conductivities", [_finite(row) for row in rows])
    folder.result("readings", [_finite(row) for row in readings])
    folder.result("representative_volume", [_volume_row(v) for v in volumes.values()])
    draw(folder, shown)


def _drawn(
    folder: RunFolder, study: Study, given: PelletInput, pellet: Pellet, temperatures: list[float], seed: int
) -> list[Conductivities]:
    """The pellet's conductivities, kept in the run's cache so that a killed run does not draw them again."""
    plain = TypeAdapter(list[Conductivities], config=ConfigDict(ser_json_inf_nan="constants"))
    kept = folder.cache / f"conductivities_{content_hash([folder.key, given.name, seed])}.json"
    if folder.key:
        with suppress(OSError, ValueError):
            return plain.validate_json(kept.read_bytes())
    results = pellet.conductivities(temperatures, samples=study.samples, seed=seed)
    write_atomically(kept, plain.dump_json(results))
    return results


def _assumed(c: Conductivities) -> str:
    return "Taken for granted: " + "; ".join(c.assumptions) + "." if c.assumptions else ""


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """None for what is unbounded or could not be read."""
    return {k: None if isinstance(v, float) and not math.isfinite(v) else v for k, v in row.items()}


def _volume_row(volume: RepresentativeVolume) -> dict[str, Any]:
    return {
        "grains": volume.n_grains,
        "realisations": len(volume.collapsed),
        "boundary_fractions": volume.boundary_fractions,
        "full_solves": volume.full_solves,
        "reduced_model_bounds": [None if r is None else r.training_bound for r in volume.reduced],
    }
