"""The study of kind "pellets": what transport records predict for real pellets, beside what was measured.

A pellet may name records of our own runs and records read off the literature; `source` says which of the two the
spectra, pictures and words are made of, and the conductivities of both are shown.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
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
from mesoion.pellet_sources import LABELS, Choice, NamedRecords, Origin, Prediction, choose
from mesoion.physics import Electrode
from mesoion.provenance import content_hash, finite
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
LARGEST_RATIO = 30.0
"""The reduced model is built for layers up to this much more conductive than the grain; beyond, full solves."""
LEAST_RATIO = 1e-7
"""And down to this: more resistive layers have the same fields, so that its answers hold for them too."""
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
    """A boundary type: its records, its share of the boundary length, and a charge added to the record's core."""

    record: str | None = None
    """From the literature, or any other."""
    own_record: str | None = None
    """Of our own runs."""
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
    grain: str | None = None
    own_grain: str | None = None
    """Bulk record of our own runs."""
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

    @model_validator(mode="after")
    def _records_named(self) -> PelletInput:
        for key, grain, boundaries in (
            ("record", self.grain, [b.record for b in self.boundaries.values()]),
            ("own_record", self.own_grain, [b.own_record for b in self.boundaries.values()]),
        ):
            if len({name is None for name in (grain, *boundaries)}) > 1:
                prefix = key.removesuffix("record")
                raise ValueError(
                    f"{prefix}grain and the {key} of every boundary belong together: give all of them or none"
                )
        if self.grain is None and self.own_grain is None:
            raise ValueError("give grain and the record of every boundary, or own_grain and every own_record")
        return self

    def named(self) -> dict[Origin, NamedRecords]:
        """The records the input names, by where they come from."""
        where, found = f"pellets.{self.name}", dict[Origin, NamedRecords]()
        if self.own_grain is not None:
            own = {t: b.own_record or "" for t, b in self.boundaries.items()}
            found["own"] = NamedRecords(where, "own", self.own_grain, own)
        if self.grain is not None:
            others = {t: b.record or "" for t, b in self.boundaries.items()}
            found["literature"] = NamedRecords(where, "literature", self.grain, others)
        return found


class Study(StudyModel):
    """Pellets at one report temperature and over a list of temperatures."""

    source: Literal["own", "literature"] = "own"
    """Which records come first; a pellet without own ones is predicted from the literature's, which is said."""
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


def pellet_of(given: PelletInput, material: Material, volume: RepresentativeVolume) -> Pellet:
    """The pellet of an input, of this material, in a representative volume with its boundary fractions."""
    return Pellet(
        material=material,
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


def choices(study: Study) -> dict[str, Choice]:
    """What each pellet is predicted from, by name. Raises InputError where no pellet is left, or for bad records."""
    chosen = {
        given.name: choose(given.named(), study.source, given.relative_permittivity)
        for given in study.pellets
    }
    if all(choice.first is None for choice in chosen.values()):
        said = " ".join(f"{name}: {choice.said}" for name, choice in chosen.items())
        raise InputError("source", study.source, f"give records that are there. {said}")
    return chosen


Fractions = tuple[tuple[str, float], ...]


def _fractions(given: PelletInput) -> Fractions:
    return tuple(sorted((name, b.fraction) for name, b in given.boundaries.items()))


def _predictions(choice: Choice) -> list[Prediction]:
    return [p for p in (choice.first, choice.beside) if p is not None]


def _volumes(
    study: Study, chosen: Mapping[str, Choice], folder: RunFolder
) -> dict[Fractions, RepresentativeVolume]:
    """One representative volume for each set of boundary fractions, reduced over the range its pellets need."""
    wanted = study.representative_volume
    groups: dict[Fractions, list[tuple[PelletInput, Material]]] = {}
    for given in study.pellets:
        total = sum(b.fraction for b in given.boundaries.values())
        if abs(total - 1) > 1e-6:
            where = f"pellets.{given.name}.boundaries"
            raise InputError(where, total, "the fractions of the boundary types sum to 1")
        for prediction in _predictions(chosen[given.name]):
            groups.setdefault(_fractions(given), []).append((given, prediction.material))
    built: dict[Fractions, RepresentativeVolume] = {}
    for fractions, group in groups.items():
        temperatures = [*study.temperatures, study.report_temperature]
        bare = RepresentativeVolume.unmeshed(dict(fractions))
        spans = np.array([pellet_of(g, m, bare).boundary_range(temperatures) for g, m in group])
        low, high = spans.min(axis=0), spans.max(axis=0)
        built[fractions] = RepresentativeVolume.build(
            n_grains=wanted.grains,
            grain_size_spread=wanted.grain_size_spread,
            boundary_fractions=dict(fractions),
            boundary_range=BoundaryRange(
                ratio=(max(low[0] / 5, LEAST_RATIO), min(high[1] * 5, LARGEST_RATIO)),
                width=(low[2] / 1.5, high[3] * 1.5),
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
    folder: RunFolder, given: PelletInput, predicted: Mapping[str, Conductivities], measured: list[Measured]
) -> None:
    """One comparison for each measured value and each of the predictions, by what their records are called."""
    for m in measured:
        for label, c in predicted.items():
            interval = _of_quantity(c, m.quantity)
            if math.isfinite(interval.high):
                shown, unit, reference = interval.scaled(PER_CM), "S/cm", m.conductivity * PER_CM
                name = f"{m.quantity} conductivity"
            else:
                # A boundary that may add no resistance has an unbounded conductivity: compare resistivities.
                value = 100 / interval.value if math.isfinite(interval.value) else 0.0
                shown, unit, reference = (
                    Interval(value, 0.0, 100 / interval.low),
                    "ohm cm",
                    100 / m.conductivity,
                )
                name = f"{m.quantity} resistivity"
            folder.compare(
                Comparison(
                    given.name, name, unit, shown.value, shown.low, shown.high, reference, m.source, label
                )
            )


def _of_quantity(c: Conductivities, quantity: str) -> Interval:
    return {"bulk": c.bulk, "apparent grain boundary": c.apparent_gb, "total": c.total}[quantity]


def beside_in_words(label: str, beside: Conductivities, first: str) -> str:
    """What the other records predict for the same pellet."""
    return (
        f"From {label} instead of {first}: bulk {_say(beside.bulk)}, apparent grain boundary "
        f"{_say(beside.apparent_gb)}, total {_say(beside.total)} S/cm."
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


def _space_charge(
    folder: RunFolder, given: PelletInput, pellet: Pellet, predicted: Conductivities, label: str
) -> str:
    """What core charge alone would give the measured arc, with the profile it makes; for single boundary types."""
    arc = [c for c in folder.comparisons if c.material == given.name and c.quantity.startswith("apparent")]
    arc = [c for c in arc if c.records == label]
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
    return f"{_short(low)} to {_short(high)}"


def _short(value: float) -> str:
    """Two significant digits, without an exponent between 0.001 and 100 000."""
    if math.isinf(value):
        return "unbounded"
    if not 1e-3 <= abs(value) < 1e5:
        return f"{value:.1e}"
    return f"{float(f'{value:.2g}'):g}"


def _summary(study: Study, chosen: Mapping[str, Choice], comparisons: list[Comparison]) -> str:
    """The gap of every material whose measured arc lies outside the prediction, with its size, and whose records."""
    first = {name: choice.first.label for name, choice in chosen.items() if choice.first is not None}
    arcs = [
        c
        for c in comparisons
        if c.quantity.startswith("apparent grain boundary") and c.records == first[c.material]
    ]
    outside = [c for c in arcs if not c.low <= c.measured <= c.high]
    said = []
    if outside:
        gaps = "; ".join(
            f"{c.material}, from {c.records}: predicted {_short(c.predicted)} {c.unit} ({_range(c.low, c.high)}), "
            f"measured {_short(c.measured)} {c.unit}"
            + (f", a factor of {_short(max(c.ratio, 1 / c.ratio))}" if c.predicted > 0 else "")
            for c in outside
        )
        said.append(
            f"Apparent grain-boundary conductivity at {study.report_temperature - 273.15:.0f} °C that the transport "
            f"records predict, and what was measured on pellets: {gaps}. Intrinsic boundary transport alone does not "
            "give these pellets."
        )
    else:
        said.append("No measured boundary arc lies outside its prediction.")
    by_text: dict[str, list[str]] = {}
    for name, choice in chosen.items():
        if choice.said:
            by_text.setdefault(choice.said, []).append(name)
    if any(choice.beside is not None for choice in chosen.values()):
        both = [name for name, choice in chosen.items() if choice.beside is not None]
        wanted, other = (
            LABELS[k] for k in (("own", "literature") if study.source == "own" else ("literature", "own"))
        )
        said.append(f"From {wanted}, with {other} beside: {', '.join(both)}.")
    said += [f"{', '.join(names)}: {text[0].lower()}{text[1:]}" for text, names in by_text.items()]
    return "\n\n".join(said)


def _reading_row(name: str, label: str, reading: SpectrumReading, exact: Conductivities) -> dict[str, Any]:
    def per_cm(value: float | None) -> float:
        return math.nan if value is None else value * PER_CM

    return {
        "pellet": name,
        "records": label,
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


def _conductivity_rows(name: str, label: str, results: list[Conductivities]) -> list[dict[str, Any]]:
    rows = []
    for c in results:
        row: dict[str, Any] = {"pellet": name, "records": label, "T / K": c.temperature}
        columns = {
            "bulk": c.bulk,
            "apparent GB": c.apparent_gb,
            "total": c.total,
            "brick layer": c.brick_layer_total,
        }
        columns |= {f"specific {t}": v for t, v in c.specific_gb.items()}
        for column, v in columns.items():
            for part in ("value", "low", "high"):
                row[f"{column} {part} / S/cm"] = getattr(v, part) * PER_CM
        rows.append(row)
    return rows


def run(study: Study, folder: RunFolder, rng: np.random.Generator) -> None:
    """Predict every pellet of the study and write tables, spectra, figures, comparisons and the gap in words."""
    import pandas as pd

    chosen = choices(study)
    for given in study.pellets:
        _measured(given, study.report_temperature)
    volumes = _volumes(study, chosen, folder)
    temperatures = sorted({*study.temperatures, study.report_temperature})
    rows: list[dict[str, Any]] = []
    readings: list[dict[str, Any]] = []
    shown: list[Shown] = []
    for given in folder.progress(study.pellets, "pellets"):
        seed, choice = int(rng.integers(2**63)), chosen[given.name]
        if choice.first is None:
            continue
        pellets = {
            p.label: pellet_of(given, p.material, volumes[_fractions(given)]) for p in _predictions(choice)
        }
        results = {
            label: _drawn(folder, study, given.name, label, pellet, temperatures, seed)
            for label, pellet in pellets.items()
        }
        at_report = {
            label: found[temperatures.index(study.report_temperature)] for label, found in results.items()
        }
        measured = _measured(given, study.report_temperature)
        _compare(folder, given, at_report, measured)
        impedances = {}
        for label, pellet in pellets.items():
            z = _spectrum(folder, study, given, pellet, label, label == choice.first.label)
            impedances[label] = z * pellet.area / pellet.thickness
            readings.append(_reading_row(given.name, label, _read(study, given, pellet, z), at_report[label]))
            rows += _conductivity_rows(given.name, label, results[label])
        label = choice.first.label
        pellet, predicted = pellets[label], at_report[label]
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
                frequency=study.spectrum.frequencies(),
                impedance=impedances,
                boundaries=pellet.boundaries(study.report_temperature),
                picture=seen,
            )
        )
        words = gap_in_words(given, pellet, predicted, measured) + _space_charge(
            folder, given, pellet, predicted, label
        )
        others = [beside_in_words(o, c, label) for o, c in at_report.items() if o != label]
        said = (choice.said, given.note, words, *others, _assumed(predicted))
        folder.paragraph(given.name, "\n\n".join(p for p in said if p))
    summary = _summary(study, chosen, folder.comparisons)
    folder.paragraphs.insert(0, ("Predicted and measured boundaries", summary))
    folder.table("conductivities", pd.DataFrame(rows))
    folder.table("read_off_the_spectra", pd.DataFrame(readings))
    folder.result("source", study.source)
    folder.result("predicted_from", {n: c.first.label for n, c in chosen.items() if c.first is not None})
    folder.result("conductivities", [finite(row) for row in rows])
    folder.result("readings", [finite(row) for row in readings])
    folder.result("representative_volume", [_volume_row(v) for v in volumes.values()])
    draw(folder, shown)


def _spectrum(
    folder: RunFolder, study: Study, given: PelletInput, pellet: Pellet, label: str, first: bool
) -> np.ndarray[Any, np.dtype[np.complex128]]:
    """Impedance [ohm] of a pellet, written under its name; that of the other records with their name added."""
    f = study.spectrum.frequencies()
    z = pellet.impedance(study.report_temperature, f)
    folder.spectrum(file_name(given.name if first else f"{given.name} {label}"), f, z)
    return z


def _read(study: Study, given: PelletInput, pellet: Pellet, z: Any) -> SpectrumReading:
    return read_spectrum(
        study.spectrum.frequencies(),
        z,
        thickness=pellet.thickness,
        area=pellet.area,
        lead_resistance=pellet.leads.resistance,
        lead_inductance=pellet.leads.inductance,
        blocking=given.electrode.kind == "blocking",
        accuracy=study.instrument_accuracy,
    )


def _drawn(
    folder: RunFolder,
    study: Study,
    name: str,
    label: str,
    pellet: Pellet,
    temperatures: list[float],
    seed: int,
) -> list[Conductivities]:
    """The pellet's conductivities, kept in the run's cache so that a killed run does not draw them again."""
    plain = TypeAdapter(list[Conductivities], config=ConfigDict(ser_json_inf_nan="constants"))
    kept = folder.cache / f"conductivities_{content_hash([folder.key, name, label, seed])}.json"
    if folder.key:
        with suppress(OSError, ValueError):
            return plain.validate_json(kept.read_bytes())
    results = pellet.conductivities(temperatures, samples=study.samples, seed=seed)
    write_atomically(kept, plain.dump_json(results))
    return results


def _assumed(c: Conductivities) -> str:
    return "Taken for granted: " + "; ".join(c.assumptions) + "." if c.assumptions else ""


def _volume_row(volume: RepresentativeVolume) -> dict[str, Any]:
    return {
        "grains": volume.n_grains,
        "realisations": len(volume.collapsed),
        "boundary_fractions": volume.boundary_fractions,
        "full_solves": volume.full_solves,
        "reduced_model_bounds": [None if r is None else r.training_bound for r in volume.reduced],
    }
