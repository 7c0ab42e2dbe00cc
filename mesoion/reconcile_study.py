"""The study of kind "reconcile": what must be true of the boundaries for records and measured pellets to agree."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, model_validator

from mesoion.config import Model, StudyModel
from mesoion.distinguish import Prediction, Separation, arc_draws, predict, separations
from mesoion.errors import InputError
from mesoion.material import Material
from mesoion.mechanisms import (
    Case,
    MeasuredBulk,
    Mechanism,
    ParameterPrior,
    blocking_boundaries,
    nothing_added,
    partial_contact,
    second_phase,
    segregation,
    space_charge,
)
from mesoion.mixed_boundaries import shipped
from mesoion.provenance import finite
from mesoion.reconcile import Outcome, bayes_factors, infer
from mesoion.reconcile_figures import draw_distinguishing, draw_evidence, draw_needed, spoken
from mesoion.reconcile_spectra import ArcReading, SpectraInput, described, read_arcs, whole_spectrum
from mesoion.runfolder import Comparison, RunFolder
from mesoion.transport import load_record, measured_conductivities
from mesoion.units import Energy_eV, Length, PureNumber, Temperature, Voltage

PER_CM = 0.01
TEMPERATURE_TOLERANCE = 3.0
APPARENT = "apparent grain boundary"
Positive = Field(gt=0)
Bounds = Annotated[list[float], Field(min_length=2, max_length=2)]


class PriorInput(Model):
    """Prior range of a parameter in the unit it is reported in, and what the literature makes plausible."""

    prior: Bounds
    plausible: Bounds
    plausible_source: Annotated[str, Field(min_length=1)]

    @model_validator(mode="after")
    def _ordered(self) -> PriorInput:
        for name, (low, high) in (("prior", self.prior), ("plausible", self.plausible)):
            if not low < high:
                raise ValueError(f"{name}: the first bound must lie below the second")
        return self

    def of(self, name: str, unit: str, shape: Literal["log", "flat", "normal"]) -> ParameterPrior:
        """As the inference takes it."""
        (first, last), (low, high) = self.prior, self.plausible
        return ParameterPrior(name, unit, shape, first, last, (low, high), self.plausible_source)


class MechanismsInput(Model):
    """Priors of the mechanisms' parameters: assumptions, each with the ground for its plausible interval."""

    core_charge: PriorInput
    """e/nm²"""
    relative_permittivity: PriorInput
    blocking_fraction: PriorInput
    film_width: PriorInput
    """nm"""
    film_conductivity: PriorInput
    """S/cm"""
    film_activation_energy: Annotated[Energy_eV, Positive] = 0.6
    film_activation_energy_uncertainty: Annotated[Energy_eV, Positive] = 0.15
    contact_share: PriorInput
    contact_radius: PriorInput
    """nm"""


class PairInput(Model):
    """Records of one boundary without and with segregated dopant."""

    without: str
    with_dopant: str


class CaseInput(Model):
    """A material: records, grain size, and its measured conductivities by name, or the measured spectra themselves.

    temperature: of this case, the study's unless given; for spectra one of theirs.
    """

    name: Annotated[str, Field(min_length=1, max_length=60)]
    grain: str
    boundary: str
    mean_grain_size: Annotated[Length, Positive]
    grain_size_factor: Annotated[PureNumber, Field(gt=1, le=100)]
    measured_material: str | None = None
    spectra: SpectraInput | None = None
    temperature: Annotated[Temperature, Positive] | None = None
    measured_factor: Annotated[PureNumber, Field(gt=1, le=10)] = 1.15
    """One standard deviation of the logarithm of the measured conductivity, as a factor; with spectra of what the
    choice of the circuit leaves open, beside its covariance."""
    relative_permittivity: Annotated[PureNumber, Positive] | None = None
    segregation: tuple[PairInput, ...] = ()
    note: str = ""

    @model_validator(mode="after")
    def _one_measurement(self) -> CaseInput:
        if (self.measured_material is None) == (self.spectra is None):
            raise ValueError("give either measured_material or [cases.spectra]")
        return self


class Study(StudyModel):
    """Materials to reconcile with their measured boundary arcs."""

    kind: Literal["reconcile"] = "reconcile"
    temperature: Annotated[Temperature, Positive] = 298.15
    draws: Annotated[int, Field(ge=4, le=2000)] = 30
    spectrum_draws: Annotated[int, Field(ge=20, le=20_000)] = 400
    """Pellets a mechanism whose arc is held against that of measured spectra."""
    resolution: Annotated[PureNumber, Field(ge=0.2, le=4)] = 1.0
    """Factor on the number of grid points along every axis of the evidence integrals."""
    lowest_temperature: Annotated[Temperature, Positive] = 248.15
    highest_temperature: Annotated[Temperature, Positive] = 398.15
    bias_per_boundary: Annotated[Voltage, Positive] = 0.1
    mechanisms: MechanismsInput
    cases: Annotated[list[CaseInput], Field(min_length=1)]

    @model_validator(mode="after")
    def _distinct(self) -> Study:
        names = [c.name for c in self.cases]
        if len(set(names)) < len(names):
            raise ValueError("every case needs a name of its own")
        if self.highest_temperature <= self.lowest_temperature:
            raise ValueError("the highest temperature must exceed the lowest")
        return self

    def further_files(self) -> list[Path]:
        """The measured spectra and what is known beside them."""
        return [f for c in self.cases if c.spectra is not None for f in c.spectra.further_files()]


def case_of(given: CaseInput, temperature: float) -> Case:
    """The case of an input with a named measurement; InputError where none is near the temperature."""
    listed = [
        m
        for m in measured_conductivities(given.measured_material or "")
        if m.quantity == APPARENT and abs(m.temperature_K - temperature) <= TEMPERATURE_TOLERANCE
    ]
    if not listed:
        known = sorted({m.material for m in measured_conductivities() if m.quantity == APPARENT})
        raise InputError(
            f"cases.{given.name}.measured_material",
            given.measured_material,
            f"a material with a measured apparent boundary conductivity near {temperature:g} K: {', '.join(known)}",
        )
    measured = listed[0]
    source = ", ".join(p for p in (measured.source.text, measured.source.doi, measured.note) if p)
    return _case(given, temperature, measured.conductivity_S_per_m, given.measured_factor, source)


def case_of_spectra(given: CaseInput, temperature: float, seed: int) -> tuple[Case, ArcReading]:
    """The case of measured spectra and what they say; InputError as of `read_arcs`."""
    assert given.spectra is not None
    reading = read_arcs(given.spectra, temperature, TEMPERATURE_TOLERANCE, f"cases.{given.name}", seed)
    c = reading.joint(given.spectra.geometry_factor, given.measured_factor)
    bulk = MeasuredBulk(reading.bulk, ((float(c[0, 0]), float(c[0, 1])), (float(c[1, 0]), float(c[1, 1]))))
    case = _case(given, reading.temperature, reading.apparent, math.exp(math.sqrt(c[1, 1])), reading.source)
    factor = reading.bulk / case.grain.conductivity_across
    return replace(case, bulk_factor=factor, measured_bulk=bulk), reading


def _case(given: CaseInput, temperature: float, apparent: float, factor: float, source: str) -> Case:
    material = Material.from_records(
        given.grain, {"general": given.boundary}, relative_permittivity=given.relative_permittivity
    )
    return Case(
        name=given.name,
        material=material,
        boundary="general",
        polycrystal=shipped(),
        temperature=temperature,
        grain_size=given.mean_grain_size,
        grain_size_factor=given.grain_size_factor,
        measured_apparent=apparent,
        measured_factor=factor,
        source=source,
    )


def segregation_prior(pairs: Sequence[PairInput]) -> ParameterPrior | None:
    """Shift of the layer's activation energy by segregation: mean and spread of the records' pairs; None without any.

    The standard deviation joins the scatter between the boundaries and the records' own uncertainties.
    """
    if not pairs:
        return None
    shifts, errors = [], []
    for pair in pairs:
        without, dopant = (
            load_record(r).law("across").activation_energy_eV for r in (pair.without, pair.with_dopant)
        )
        shifts.append(dopant.value - without.value)
        errors.append(math.hypot(dopant.standard_uncertainty, without.standard_uncertainty))
    spread = math.sqrt(float(np.var(shifts)) + float(np.mean(np.square(errors))))
    half = 1.959964 * spread
    middle = float(np.mean(shifts))
    low, high = middle - half, middle + half
    text = f"the interval of the prior itself, from {len(pairs)} boundaries with and without dopant in the records"
    return ParameterPrior("extra barrier", "eV", "normal", low, high, (low, high), text)


def mechanisms_of(study: Study, given: CaseInput) -> list[Mechanism]:
    """The mechanisms that can be tried on a case."""
    m = study.mechanisms
    charge = m.core_charge.of("core charge", "e/nm²", "log")
    found = [
        nothing_added(),
        space_charge(charge),
        space_charge(charge, m.relative_permittivity.of("relative permittivity", "", "log")),
        blocking_boundaries(m.blocking_fraction.of("blocking fraction", "", "flat")),
        second_phase(
            m.film_width.of("film width", "nm", "log"),
            m.film_conductivity.of("film conductivity", "S/cm", "log"),
        ),
        partial_contact(
            m.contact_share.of("contact share", "", "log"),
            m.contact_radius.of("contact radius", "nm", "log"),
        ),
    ]
    prior = segregation_prior(given.segregation)
    return found if prior is None else [*found, segregation(prior)]


def run(study: Study, folder: RunFolder, rng: np.random.Generator) -> None:
    """Infer every mechanism for every case, predict what tells them apart, and write tables, figures and words."""
    import pandas as pd

    cases: list[Case] = []
    arcs: dict[str, ArcReading] = {}
    for c in folder.progress(study.cases, "measurements"):
        kelvin = study.temperature if c.temperature is None else c.temperature
        if c.spectra is None:
            cases.append(case_of(c, kelvin))
        else:
            case, arcs[c.name] = case_of_spectra(c, kelvin, study.seed)
            cases.append(case)
    m = study.mechanisms
    film_energy = (m.film_activation_energy, m.film_activation_energy_uncertainty)
    temperatures = np.linspace(study.lowest_temperature, study.highest_temperature, 7)
    biases = np.linspace(0.0, study.bias_per_boundary, 5)
    needed: list[dict[str, Any]] = []
    observed: list[dict[str, Any]] = []
    apart: list[dict[str, Any]] = []
    results: dict[str, list[Outcome]] = {}
    beyond: list[dict[str, Any]] = []
    for given, case in folder.progress(list(zip(study.cases, cases, strict=True)), "materials"):
        # What the arc's own data fix is narrower than the cells of a coarse grid.
        resolution = max(study.resolution, 1.0) if case.name in arcs else study.resolution
        outcomes = [infer(case, m, resolution) for m in mechanisms_of(study, given)]
        results[case.name] = outcomes
        close = [o for o in outcomes if reaches(o)]
        predictions = [
            predict(
                o,
                rng,
                draws=study.draws,
                film_energy=film_energy,
                temperatures=temperatures,
                biases=biases,
            )
            for o in close
        ]
        told = separations(predictions)
        needed += _needed_rows(case, outcomes)
        observed += _observed_rows(case, predictions)
        apart += [_apart_row(case, s) for s in told]
        for o in outcomes:
            value, low, high = o.predicted()
            folder.compare(
                Comparison(
                    case.name,
                    f"apparent grain boundary conductivity, {o.mechanism.name}",
                    "S/cm",
                    value * PER_CM,
                    low * PER_CM,
                    high * PER_CM,
                    case.measured_apparent * PER_CM,
                    case.source,
                )
            )
        folder.paragraph(case.name, _words(given, case, outcomes, predictions, told))
        if case.name in arcs:
            drawn = [
                arc_draws(o, rng, draws=study.spectrum_draws, film_energy=film_energy)
                for o in folder.progress(close, f"{case.name}: the arc")
            ]
            beyond += whole_spectrum(folder, case, arcs[case.name], outcomes, drawn)
        draw_distinguishing(folder, case, predictions)
    draw_needed(folder, results)
    draw_evidence(folder, results)
    folder.paragraphs.insert(0, ("What would close the gap", _summary(results)))
    folder.paragraph("Taken for granted", _assumptions(study))
    folder.table("needed", pd.DataFrame(needed), lead=True)
    if arcs:
        folder.table("whole_spectrum", pd.DataFrame(beyond))
        folder.result("whole_spectrum", [finite(row) for row in beyond])
        folder.result("spectra", {name: described(a) for name, a in arcs.items()})
        folder.result("failed", [problem for a in arcs.values() for problem in a.failed])
    folder.table("predicted_observables", pd.DataFrame(observed))
    folder.table("told_apart", pd.DataFrame(apart))
    folder.result("needed", needed)
    folder.result("predicted_observables", observed)
    folder.result("told_apart", apart)


def reaches(outcome: Outcome) -> bool:
    """Whether the mechanism gives the measured value within twice its uncertainty somewhere in its posterior."""
    value, _, _ = outcome.predicted()
    return abs(math.log(value / outcome.case.measured_apparent)) < 2 * math.log(outcome.case.measured_factor)


def _needed_rows(case: Case, outcomes: list[Outcome]) -> list[dict[str, Any]]:
    factors = bayes_factors(outcomes)
    rows = []
    for o in outcomes:
        base = {
            "material": case.name,
            "mechanism": o.mechanism.name,
            "ln evidence": o.log_evidence,
            "ln Bayes factor": factors[o.mechanism.name],
            "information criterion": o.information_criterion,
            "reaches the measurement": reaches(o),
        }
        if not o.values:
            rows.append({**base, "parameter": "", "unit": "", "value": None, "low": None, "high": None})
        for j, p in enumerate(o.mechanism.parameters):
            value, low, high = o.interval(j)
            rows.append(
                {
                    **base,
                    "parameter": p.name,
                    "unit": p.unit or "1",
                    "value": value,
                    "low": low,
                    "high": high,
                    "plausible low": p.plausible[0],
                    "plausible high": p.plausible[1],
                    "share of posterior plausible": o.plausibility(j),
                }
            )
    return rows


def _observed_rows(case: Case, predictions: list[Prediction]) -> list[dict[str, Any]]:
    return [
        {
            "material": case.name,
            "mechanism": p.name,
            "observable": x.observable.name,
            "unit": x.observable.unit,
            "value": x.median,
            "low": x.low,
            "high": x.high,
        }
        for p in predictions
        for x in p.observables
    ]


def _apart_row(case: Case, s: Separation) -> dict[str, Any]:
    return {
        "material": case.name,
        "first": s.first,
        "second": s.second,
        "measurement": s.observable.name,
        "unit": s.observable.unit,
        "of the first": s.values[0],
        "of the second": s.values[1],
        "difference / standard deviations": s.deviations,
    }


def _verdict(o: Outcome) -> str:
    """What the mechanism would need, in words, with intervals and plausibility."""
    said = o.mechanism.says.format(*(spoken(p, *o.interval(j)) for j, p in enumerate(o.mechanism.parameters)))
    if not reaches(o):
        value, _, _ = o.predicted()
        ratio = value / o.case.measured_apparent
        side = "above" if ratio > 1 else "below"
        return f"{o.mechanism.name}: does not reach the measurement ({max(ratio, 1 / ratio):.2g} times {side} it)"
    beyond = [
        f"{p.name} beyond the plausible {p.plausible[0]:g} to {p.plausible[1]:g} {p.unit}".rstrip()
        for j, p in enumerate(o.mechanism.parameters)
        if o.plausibility(j) < 0.025
    ]
    judged = "implausible: " + "; ".join(beyond) if beyond else "within what is plausible"
    return f"{o.mechanism.name}: {said} ({judged})"


def _words(
    given: CaseInput,
    case: Case,
    outcomes: list[Outcome],
    predictions: list[Prediction],
    told: list[Separation],
) -> str:
    factors = bayes_factors(outcomes)
    gap = outcomes[0]
    rho = case.apparent_resistivity(
        case.own_resistance(np.zeros(1)), case.own_sheet(np.zeros(1)), np.array([case.grain_size])
    )[0]
    record = (
        f"The record's layer would show as {PER_CM / rho:.2g} S/cm"
        if rho > 0
        else "The record's layer would show no arc"
    )
    text = f"{given.note} {record}; measured were {case.measured_apparent * PER_CM:.2g} S/cm. " + (
        "The records alone can hold the measurement within their uncertainty. "
        if reaches(gap)
        else "No value of the records within their uncertainty gives that. "
    )
    needs = "\n\n".join(
        f"{_verdict(o)}; ln Bayes factor {factors[o.mechanism.name]:.1f}." for o in outcomes[1:]
    )
    best: dict[tuple[str, str], Separation] = {}
    for s in told:
        best.setdefault((s.first, s.second), s)
    lines = [
        f"{s.first} or {s.second}: {s.observable.name} {_number(s.values[0])} against {_number(s.values[1])} "
        f"{s.observable.unit if s.observable.unit != '1' else ''}".rstrip()
        + (f" ({s.deviations:.1f} standard deviations)" if s.deviations < 100 else " (beyond doubt)")
        for s in best.values()
    ]
    weak = [f"{s.first} and {s.second}" for s in best.values() if s.deviations < 2]
    tail = (
        f"\n\nNone of the four tells apart, at two standard deviations: {'; '.join(weak)}."
        if weak
        else "\n\nEvery pair is told apart by one of the four at two standard deviations."
    )
    missing = (
        "" if given.segregation else "\n\nThe records hold no transport with and without segregated dopant."
    )
    return (
        f"{text.strip()}\n\n{needs}{missing}\n\nThe measurement that tells a pair apart best: "
        + ("; ".join(lines) if lines else "there is no pair")
        + "."
        + tail
    )


def _number(value: float) -> str:
    return f"{value:.3g}"


def _summary(results: dict[str, list[Outcome]]) -> str:
    parts = []
    for name, outcomes in results.items():
        factors = bayes_factors(outcomes)
        ranked = sorted((o for o in outcomes if reaches(o)), key=lambda o: -factors[o.mechanism.name])
        listed = ", ".join(f"{o.mechanism.name} ({factors[o.mechanism.name]:.1f})" for o in ranked)
        parts.append(f"{name}: {listed}." if ranked else f"{name}: none of them.")
    return (
        "Mechanisms that reach the measured boundary arc, by evidence (ln Bayes factor against the best in brackets). "
        "One conductivity cannot tell them apart: the evidence says how much of each prior gives the measured value, "
        "and what separates them is another measurement.\n\n" + "\n\n".join(parts)
    )


def _assumptions(study: Study) -> str:
    m = study.mechanisms
    lines = [
        f"{name.replace('_', ' ')}: prior {p.prior[0]:g} to {p.prior[1]:g}, plausible {p.plausible[0]:g} to "
        f"{p.plausible[1]:g} ({p.plausible_source})"
        for name in type(m).model_fields
        if isinstance(p := getattr(m, name), PriorInput)
    ]
    lines.append(
        f"a second phase conducts with {m.film_activation_energy:g} ± {m.film_activation_energy_uncertainty:g} eV "
        "(assumption)"
    )
    lines.append(
        "measurements of E_a to 0.02 eV, of the electrical width to 20 %, of the grain-size exponent to 0.1 and of the "
        "ratio under bias to 5 % (assumptions)"
    )
    lines.append(
        "blocking facets are those of a planar polycrystal, where open paths end at about two thirds blocked; in space "
        "they end later, and the same arc needs more blocked boundaries"
    )
    lines.append("beside contacts lies an empty gap as wide as the record's layer")
    return "; ".join(lines) + "."
