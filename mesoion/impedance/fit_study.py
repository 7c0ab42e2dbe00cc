"""The study of kind "spectra": measured spectra fitted by circuits, named arcs, conductivities, activation energies."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, PlainValidator, ValidationInfo, model_validator

from mesoion.config import StudyModel
from mesoion.errors import ConvergenceError, InputError
from mesoion.impedance.arcs import ACCURACY, Estimate, PelletReading, choose_circuit, read_pellet
from mesoion.impedance.circuit_fit import CircuitFit, fit_circuit
from mesoion.impedance.circuit_notation import parse_circuit
from mesoion.impedance.circuits import Circuit
from mesoion.impedance.measurement import Measurement
from mesoion.impedance.readers import Batch, batch_files, read_batch
from mesoion.impedance.temperature_series import (
    SCATTERS,
    TemperatureSeries,
    common_circuit,
    fit_series,
    series_of,
)
from mesoion.runfolder import RunFolder
from mesoion.units import Area, Length, PureNumber, Temperature

Positive = Field(gt=0)


def _path(value: object, info: ValidationInfo) -> str:
    if not isinstance(value, (str, Path)) or not str(value) or "\0" in str(value):
        raise ValueError("give the path of a measured file or a folder of them, relative to the study")
    return str(Path((info.context or {}).get("directory", Path())) / value)


MeasuredPath = Annotated[str, PlainValidator(_path)]
"""A measured file or a folder of them; one that is missing is a problem of the batch, not of the study."""


class Study(StudyModel):
    """Spectra to fit: files or folders; geometry and temperature hold for all files that do not state their own."""

    kind: Literal["spectra"] = "spectra"
    files: Annotated[list[MeasuredPath], Field(min_length=1)]
    thickness: Annotated[Length, Positive] | None = None
    diameter: Annotated[Length, Positive] | None = None
    area: Annotated[Area, Positive] | None = None
    temperature: Annotated[Temperature, Positive] | None = None
    circuit: Annotated[str, Field(min_length=1)] | None = None
    """In the notation of `circuit_notation`; chosen among arcs, leads and electrode unless given."""
    arcs: Annotated[int, Field(ge=1, le=5)] | None = None
    """Number of arcs, instead of the number the data need."""
    accuracy: Annotated[PureNumber, Field(gt=0, le=0.2)] = ACCURACY
    starts: Annotated[int, Field(ge=1, le=500)] = 4

    @model_validator(mode="after")
    def _one_circuit(self) -> Study:
        if self.circuit is not None:
            parse_circuit(self.circuit)
            if self.arcs is not None:
                raise ValueError("give a circuit or a number of arcs, not both")
        return self

    def further_files(self) -> list[Path]:
        """The measured files and what is known beside them."""
        files, _ = batch_files(self.files)
        sidecars = [f.with_suffix(".toml") for f in files]
        return [f for f in [*files, *sidecars] if f.is_file()]


def run(study: Study, folder: RunFolder, rng: np.random.Generator) -> None:
    """Read, fit, name, and write numbers, tables, spectra, figures."""
    batch = read_batch(
        study.files,
        thickness=study.thickness,
        diameter=study.diameter,
        area=study.area,
        temperature=study.temperature,
        show_progress=folder.show_progress,
    )
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
    folder.result("notes", said)
    write_results(folder, readings, series, failed)


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
        return choose_circuit(
            measurement, accuracy=study.accuracy, arcs=study.arcs, starts=study.starts, seed=study.seed
        )[0]
    return fit_circuit(
        measurement.frequency, measurement.impedance, circuit, starts=max(study.starts, 8), seed=study.seed
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


def described(reading: PelletReading) -> dict[str, Any]:
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
        "relative_misfit": float(np.sqrt(np.mean(np.abs(fit.relative_residuals) ** 2) / 2)),
        "residuals_correlated": fit.widening > fit.scale,
        "at_bound": list(fit.at_bound),
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
    folder.result("spectra", [described(r) for r in readings])
    folder.result("failed", list(failed))
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
    taken: set[str] = set()
    for reading in readings:
        m = reading.measurement
        name = file_name(m.name, taken)
        folder.spectrum(f"{name}_measured", m.frequency, m.impedance)
        folder.spectrum(f"{name}_fitted", m.frequency, reading.fit.model)
