"""The study of kind "spectra": measured spectra fitted by circuits, named arcs, conductivities, activation energies."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field

from mesoion.config import StudyModel
from mesoion.errors import ConvergenceError, InputError
from mesoion.impedance.arcs import ACCURACY, Estimate, PelletReading, choose_circuit, read_pellet
from mesoion.impedance.audit import audit_geometry
from mesoion.impedance.checks import SpectrumCheck, check_spectrum
from mesoion.impedance.circuit_fit import CircuitFit, fit_circuit
from mesoion.impedance.circuit_notation import parse_circuit
from mesoion.impedance.circuits import Circuit
from mesoion.impedance.measured_files import FilesForCircuits
from mesoion.impedance.measurement import Measurement
from mesoion.impedance.readers import Batch
from mesoion.impedance.relaxation_times import RelaxationTimes, relaxation_times
from mesoion.impedance.temperature_series import (
    SCATTERS,
    TemperatureSeries,
    common_circuit,
    fit_series,
    series_of,
)
from mesoion.report import number
from mesoion.runfolder import RunFolder
from mesoion.units import PureNumber

MOST_FIGURES = 12
"""Spectra that get a figure and words in the report; numbers and tables have them all."""
CONDUCTIVITY_LABELS = {
    "bulk": "bulk",
    "apparent_gb": "grain boundary, apparent",
    "specific_gb": "grain boundary, specific",
    "total": "total",
}


class Study(FilesForCircuits, StudyModel):
    """Spectra to fit by circuits."""

    kind: Literal["spectra"] = "spectra"
    accuracy: Annotated[PureNumber, Field(gt=0, le=0.2)] = ACCURACY
    starts: Annotated[int, Field(ge=1, le=500)] = 4
    weighting: Literal["modulus", "noise"] = "modulus"
    """Deviations in proportion to |Z|, or as estimated at each frequency by the Kramers-Kronig check."""


def run(study: Study, folder: RunFolder, rng: np.random.Generator) -> None:
    """Read, fit, name, and write numbers, tables, spectra, figures."""
    batch = study.read(folder.show_progress)
    failed = [{"file": str(p.path), "error": str(p.error)} for p in batch.problems]
    if not batch.measurements:
        _refuse(batch)
    measured: list[Measurement] = []
    fits: list[CircuitFit] = []
    for measurement in folder.progress(batch.measurements, "fitting spectra"):
        try:
            fits.append(fit_one(study, measurement))
        except (InputError, ConvergenceError) as error:
            failed.append(
                {"file": measurement.source.split(": ")[0], "error": f"{measurement.name}: {error}"}
            )
            continue
        measured.append(measurement)
    if not fits:
        raise InputError(failed[0]["file"], "the spectrum", failed[0]["error"])
    readings, series, said = read_all(study, folder, measured, fits)
    if said:
        folder.result("notes", said)
    details = [examined(study, r) for r in folder.progress(readings, "checks and relaxation times")]
    write_results(folder, readings, series, details, failed)
    draw(folder, readings, series, details)
    describe(folder, readings, series, details, failed, said)


@dataclass(frozen=True)
class Details:
    """What was found of a spectrum beside its circuit; None where it has too few points."""

    check: SpectrumCheck | None
    times: RelaxationTimes | None
    words: tuple[str, ...]


def examined(study: Study, reading: PelletReading) -> Details:
    """Kramers-Kronig, noise, geometry and relaxation times of a spectrum."""
    m, words = reading.measurement, []
    check: SpectrumCheck | None = None
    times: RelaxationTimes | None = None
    try:
        check = check_spectrum(m, seed=study.seed)
        words += list(check.words)
    except InputError as error:
        words.append(f"not checked: {error}")
    if m.geometry is not None:
        words += list(audit_geometry(m).words)
    try:
        times = relaxation_times(m.frequency, m.impedance, seed=study.seed)
    except (InputError, ConvergenceError) as error:
        words.append(f"no relaxation times: {error}")
    return Details(check, times, tuple(words))


def read_all(
    study: Study, folder: RunFolder, measured: Sequence[Measurement], fits: Sequence[CircuitFit]
) -> tuple[list[PelletReading], list[TemperatureSeries], list[str]]:
    """Readings in the order of the spectra, those of temperature series fitted together, and what went wrong there."""
    readings = [read_pellet(m, fit) for m, fit in zip(measured, fits, strict=True)]
    found, said = [], []
    for members in folder.progress(series_of(measured), "fitting series"):
        group = [measured[k] for k in members]
        try:
            one_circuit = common_circuit(
                group, [fits[k] for k in members], starts=study.starts, seed=study.seed
            )
            series = fit_series(group, one_circuit)
        except (InputError, ConvergenceError) as error:
            said.append(f"{', '.join(m.name for m in group)}: not fitted together: {error}")
            continue
        found.append(series)
        for k, reading in zip(members, series.readings, strict=True):
            readings[k] = reading
    return readings, found, said


def _refuse(batch: Batch) -> None:
    first = batch.problems[0].error
    if len(batch.problems) == 1:
        raise first
    said = "\n  ".join(str(p.error) for p in batch.problems)
    raise InputError("files", f"{len(batch.problems)} files", f"none of them can be used:\n  {said}")


def fit_one(study: Study, measurement: Measurement, circuit: Circuit | None = None) -> CircuitFit:
    """The fit of one spectrum as the study asks: its circuit, or the one the data need."""
    if circuit is None and study.circuit is not None:
        circuit = parse_circuit(study.circuit)
    if circuit is None:
        chosen = choose_circuit(
            measurement, accuracy=study.accuracy, arcs=study.arcs, starts=study.starts, seed=study.seed
        )[0]
        if study.weighting == "modulus":
            return chosen
        circuit = chosen.circuit
    size = None
    if study.weighting == "noise":
        size = check_spectrum(measurement, seed=study.seed).noise.sigma * np.abs(measurement.impedance)
    return fit_circuit(
        measurement.frequency,
        measurement.impedance,
        circuit,
        deviation=size,
        starts=max(study.starts, 8),
        seed=study.seed,
    )


# ---- numbers ---------------------------------------------------------------------------------------------------
def entry(found: Estimate, factor: float = 1.0) -> dict[str, float]:
    """An estimate as value, low, high."""
    return {"value": found.value * factor, "low": found.low * factor, "high": found.high * factor}


_SUFFIX = {"S/m": ("S_per_cm", 0.01), "ohm": ("ohm", 1.0), "": ("", 1.0)}


def quantities(reading: PelletReading) -> dict[str, dict[str, float]]:
    """Every quantity of a reading under a name with its unit; conductivities in S/cm."""
    found: dict[str, dict[str, float]] = {}
    for name, value in reading.quantities.items():
        suffix, factor = _SUFFIX[value.unit]
        found[f"{name}_{suffix}".rstrip("_")] = entry(value, factor)
    for arc in reading.arcs:
        key = arc.name.replace(" ", "_")
        if arc.capacitance is not None and arc.relaxation_time is not None:
            found[f"{key}_capacitance_F"] = entry(arc.capacitance)
            found[f"{key}_relaxation_time_s"] = entry(arc.relaxation_time)
        if key.startswith("electrode"):
            found[f"{key}_resistance_ohm"] = entry(arc.resistance)
    return found


def described(reading: PelletReading, details: Details) -> dict[str, Any]:
    """One spectrum's part of results.json."""
    m, fit = reading.measurement, reading.fit
    return {
        "name": m.name,
        "source": m.source,
        "temperature_K": m.temperature,
        "thickness_m": None if m.geometry is None else m.geometry.thickness,
        "area_m2": None if m.geometry is None else m.geometry.area,
        **quantities(reading),
        "circuit": fit.circuit.description(),
        "circuit_with_values": fit.circuit.description(values=True),
        "parameters": parameters(fit),
        "arcs": [
            {
                "name": a.name,
                "why": a.why,
                "resistance_ohm": a.resistance.value,
                "capacitance_F": None if a.capacitance is None else a.capacitance.value,
                "exponent": a.exponent,
            }
            for a in reading.arcs
        ],
        "relative_misfit": misfit(reading),
        "residuals_correlated": fit.widening > fit.scale,
        "at_bound": list(fit.at_bound),
        "kramers_kronig_valid": None if details.check is None else details.check.valid,
        "noise": None if details.check is None else details.check.noise.level,
        "checks": list(details.words),
        "relaxation_times": [
            {
                "relaxation_time_s": p.relaxation_time,
                "frequency_Hz": p.frequency,
                "resistance_ohm": {"value": p.resistance, "low": p.low, "high": p.high},
                "capacitance_F": p.capacitance,
            }
            for p in (details.times.peaks if details.times is not None else ())
        ],
        "notes": [*m.notes, *reading.notes],
    }


def energies(series: TemperatureSeries) -> dict[str, dict[str, float]]:
    """Activation energies of σT [eV] by conductivity."""
    return {
        name: {"value": e.value, "low": e.low, "high": e.high}
        for name, e in series.activation_energies.items()
    }


def described_series(series: TemperatureSeries) -> dict[str, Any]:
    """One temperature series' part of results.json."""
    return {
        "spectra": [r.measurement.name for r in series.readings],
        "activation_energies_eV": energies(series),
        "circuit": series.readings[0].fit.circuit.description(),
        "assumed_scatter": SCATTERS,
        "scatter_by_arc": series.scatters,
    }


def parameters(fit: CircuitFit) -> dict[str, dict[str, Any]]:
    """The circuit's parameters with intervals and units; the interval of a held one is its value."""
    found = {}
    for p in fit.parameters:
        low, high = fit.interval(p.name)
        found[p.name] = {"value": p.value, "low": low, "high": high, "unit": p.unit, "fixed": p.fixed}
    return found


def file_name(name: str, taken: set[str]) -> str:
    """`name` as the name of a file in a run's folder, unlike those in `taken` (any case)."""
    base = re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("_.-")[:80] or "spectrum"
    candidate, number = base, 1
    while candidate.casefold() in taken:
        number += 1
        candidate = f"{base}_{number}"
    taken.add(candidate.casefold())
    return candidate


def write_results(
    folder: RunFolder,
    readings: Sequence[PelletReading],
    series: Sequence[TemperatureSeries],
    details: Sequence[Details],
    failed: Sequence[Mapping[str, str]],
) -> None:
    """Numbers, tables and spectra into the run's folder."""
    import pandas as pd

    if len(readings) == 1:
        for key, value in quantities(readings[0]).items():
            folder.result(key, value)
    if len(series) == 1:
        folder.result("activation_energies_eV", energies(series[0]))
    if series:
        folder.result("series", [described_series(s) for s in series])
    folder.result("spectra", [described(r, d) for r, d in zip(readings, details, strict=True)])
    folder.result("failed", list(failed))
    folder.table("conductivities", pd.DataFrame([_row(r) for r in readings]), lead=True)
    rows: list[dict[str, Any]] = []
    for reading in readings:
        m = reading.measurement
        head = {"spectrum": m.name, "T / K": m.temperature}
        rows += [{**head, "quantity": k, **v} for k, v in quantities(reading).items()]
    folder.table("quantities", pd.DataFrame(rows))
    folder.table(
        "parameters",
        pd.DataFrame(
            [
                {"spectrum": r.measurement.name, "parameter": name, **values}
                for r in readings
                for name, values in parameters(r.fit).items()
            ]
        ),
    )
    for name, reading, detail in zip(file_names(readings), readings, details, strict=True):
        m = reading.measurement
        folder.spectrum(f"{name}_measured", m.frequency, m.impedance)
        folder.spectrum(f"{name}_fitted", m.frequency, reading.fit.model)
        if detail.times is not None:
            d = detail.times
            columns = {
                "tau / s": d.tau,
                "gamma / ohm": d.distribution,
                "low / ohm": d.low,
                "high / ohm": d.high,
            }
            text = pd.DataFrame(columns).to_csv(index=False)
            folder.attach("tables", f"{name}_relaxation_times.csv", text)


def _row(reading: PelletReading) -> dict[str, Any]:
    """One spectrum's line of the table of conductivities."""
    kelvin = reading.measurement.temperature
    row: dict[str, Any] = {
        "spectrum": reading.measurement.name,
        "T / °C": None if kelvin is None else kelvin - 273.15,
        "circuit": reading.fit.circuit.description(),
        "misfit / %": 100 * misfit(reading),
    }
    sized = reading.measurement.geometry is not None
    for name, label in CONDUCTIVITY_LABELS.items():
        found = reading.quantities.get(f"{name}_{'conductivity' if sized else 'resistance'}")
        unit = "S/cm" if sized else "ohm"
        row[f"{label} / {unit}"] = None if found is None else _with_interval(found, 0.01 if sized else 1.0)
    return row


def _with_interval(found: Estimate, factor: float) -> str:
    value, low, high = (number(v * factor, 3) for v in (found.value, found.low, found.high))
    return f"{value} ({low} to {high})"


def misfit(reading: PelletReading) -> float:
    """Root mean square of the relative residual of Z' and Z''."""
    return float(np.sqrt(np.mean(np.abs(reading.fit.relative_residuals) ** 2) / 2))


def file_names(readings: Sequence[PelletReading]) -> list[str]:
    """A file name for every spectrum, all different."""
    taken: set[str] = set()
    return [file_name(r.measurement.name, taken) for r in readings]


# ---- the report ------------------------------------------------------------------------------------------------
def draw(
    folder: RunFolder,
    readings: Sequence[PelletReading],
    series: Sequence[TemperatureSeries],
    details: Sequence[Details],
) -> None:
    """Figures of the series and of the first spectra."""
    from mesoion.impedance.fit_figures import series_figure, spectrum_figure, title

    for number_, s in enumerate(series, 1):
        folder.figure(
            "series" if len(series) == 1 else f"series_{number_}",
            series_figure(s),
            f"{s.readings[0].measurement.name} to {s.readings[-1].measurement.name}: conductivities with 95 % "
            "intervals, effective capacitances and exponents of the arcs that were followed over temperature.",
        )
    rows = list(zip(file_names(readings), readings, details, strict=True))[:MOST_FIGURES]
    for name, reading, detail in folder.progress(rows, "figures"):
        folder.figure(
            f"spectrum_{name}",
            spectrum_figure(reading, detail.check, detail.times),
            f"{title(reading)}: {reading.fit.circuit.description()}. Nyquist plot with decades of frequency marked, "
            "Bode plot, residuals, distribution of relaxation times with its 95 % band and the circuit's arcs.",
        )


def describe(
    folder: RunFolder,
    readings: Sequence[PelletReading],
    series: Sequence[TemperatureSeries],
    details: Sequence[Details],
    failed: Sequence[Mapping[str, str]],
    said: Sequence[str],
) -> None:
    """The report in words."""
    if failed:
        folder.paragraph("Not used", "\n\n".join(f["error"] for f in failed))
    for s in series:
        energies_said = ", ".join(
            f"{CONDUCTIVITY_LABELS[name]} {e.value:.3f} eV ({e.low:.3f} to {e.high:.3f})"
            for name, e in s.activation_energies.items()
        )
        folder.paragraph(
            "Activation energies of σT",
            f"{len(s.readings)} spectra fitted together, {s.readings[0].fit.circuit.description()}: {energies_said}. "
            "Every arc belongs to the series: its R/T may scatter by 10 % about an Arrhenius line, its capacitance and "
            "its exponent by 10 % about one value (assumed).",
        )
    if said:
        folder.paragraph("Series", "\n\n".join(said))
    lines = []
    for reading, detail in list(zip(readings, details, strict=True))[:MOST_FIGURES]:
        arcs = "; ".join(
            f"{a.name}: {number(a.resistance.value, 3)} Ω"
            + ("" if a.capacitance is None else f", {number(a.capacitance.value, 3)} F, n = {a.exponent:.3f}")
            + f" ({a.why})"
            for a in reading.arcs
        )
        notes = "; ".join([*reading.notes, *_doubts(reading), *detail.words])
        lines.append(f"{reading.measurement.name}: {arcs}. {notes}.")
    folder.paragraph("Spectra", "\n\n".join(lines))
    sources = "\n\n".join("; ".join([r.measurement.source, *r.measurement.notes]) for r in readings)
    folder.paragraph("What was read", sources)


def _doubts(reading: PelletReading) -> list[str]:
    """What a reader must know before believing the fit."""
    said = []
    if reading.fit.widening > reading.fit.scale:
        ratio = reading.fit.widening / reading.fit.scale
        said.append(
            f"residuals are correlated from one frequency to the next: the circuit is not the whole truth, "
            f"intervals widened {ratio:.1f} times"
        )
    if reading.fit.at_bound:
        said.append(f"ended at a bound: {', '.join(reading.fit.at_bound)}")
    return said
