"""Measured spectra as the data of a reconciliation: what their arcs say of a pellet, with its covariance.

The circuit's fit gives y = (ln σ_b, ln σ_gb,app) at one temperature with covariance C_fit; geometry scales both and the
choice of the circuit moves the boundary's,

    C = C_fit + ln²g (1 1; 1 1) + ln²s (0 0; 0 1) .

The arc's activation energy (three or more temperatures) and its capacitance, C_b/C_gb, are further data: with draws i
from the posterior of the conductivity alone, p(all) = p(σ) · mean_i p(E_a, C_b/C_gb | i).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field
from scipy.special import logsumexp

from mesoion.distinguish import OBSERVABLES, ArcDraws
from mesoion.errors import ConvergenceError, InputError
from mesoion.impedance import fit_study
from mesoion.impedance.arcs import PelletReading, read_pellet
from mesoion.impedance.measured_files import FilesForCircuits
from mesoion.impedance.measurement import Measurement
from mesoion.impedance.temperature_series import common_circuit, fit_series, series_of
from mesoion.mechanisms import Case
from mesoion.reconcile import Outcome, quantiles
from mesoion.runfolder import RunFolder
from mesoion.units import PureNumber

Floats = NDArray[np.float64]

ENERGY, WIDTH = OBSERVABLES[0], OBSERVABLES[1]
NORMAL_95 = 1.959964
PER_CM = 0.01
FEW_DRAWS = 5.0
"""Effective draws below which a factor of the evidence is a rough estimate."""


class SpectraInput(FilesForCircuits):
    """Spectra of one pellet; geometry_factor: one standard deviation of thickness over area, as a factor."""

    geometry_factor: Annotated[PureNumber, Field(gt=1, le=2)] = 1.02


@dataclass(frozen=True, eq=False)
class ArcReading:
    """What the spectra say of a pellet at one temperature [K].

    bulk, apparent [S/m]; covariance (2, 2) of their logarithms by the fit alone. energy: E_a of σ_gb,app T and its
    standard uncertainty [eV]; log_width: ln(C_b/C_gb) and its; None where the spectra do not give them. failed: file
    and error of what could not be used.
    """

    temperature: float
    bulk: float
    apparent: float
    covariance: Floats
    energy: tuple[float, float] | None
    log_width: tuple[float, float] | None
    spectra: tuple[PelletReading, ...]
    source: str
    failed: tuple[dict[str, str], ...] = ()
    notes: tuple[str, ...] = ()

    def joint(self, geometry_factor: float, measured_factor: float) -> Floats:
        """Covariance (2, 2) of ln σ_b and ln σ_gb,app with geometry and choice of the circuit."""
        found = self.covariance + math.log(geometry_factor) ** 2
        found[1, 1] += math.log(measured_factor) ** 2
        return np.asarray(found)


def read_arcs(
    given: SpectraInput, temperature: float, tolerance: float, where: str, seed: int = 0
) -> ArcReading:
    """The spectra fitted by circuits, those of a series together, and read at the one measured at `temperature` [K].

    Raises InputError where no file can be used, none lies within `tolerance` [K], or the spectrum there has no
    geometry, no bulk or no boundary arc. Files that cannot be used are named in the result.
    """
    batch = given.read(show_progress=False)
    failed = [{"file": str(p.path), "error": str(p.error)} for p in batch.problems]
    if not batch.measurements:
        raise batch.problems[0].error
    _nearest(batch.measurements, temperature, tolerance, where)
    study = fit_study.Study(files=list(given.files), circuit=given.circuit, arcs=given.arcs, seed=seed)
    measured, fits = [], []
    for m in batch.measurements:
        try:
            fits.append(fit_study.fit_one(study, m))
            measured.append(m)
        except (InputError, ConvergenceError) as error:
            failed.append({"file": m.source.split(": ")[0], "error": f"{m.name}: {error}"})
    if not fits:
        raise InputError(failed[0]["file"], "the spectrum", failed[0]["error"])
    readings = [read_pellet(m, f) for m, f in zip(measured, fits, strict=True)]
    energies: dict[int, tuple[float, float]] = {}
    notes: list[str] = []
    for members in series_of(measured):
        group = [measured[k] for k in members]
        try:
            one_circuit = common_circuit(group, [fits[k] for k in members], starts=study.starts, seed=seed)
            series = fit_series(group, one_circuit)
        except (InputError, ConvergenceError) as error:
            notes.append(f"{', '.join(m.name for m in group)}: not fitted together: {error}")
            continue
        for k, reading in zip(members, series.readings, strict=True):
            readings[k] = reading
            line = series.activation_energies.get("apparent_gb")
            if line is not None and reading.measurement.geometry is not None:
                energies[k] = (line.value, (line.high - line.low) / (2 * NORMAL_95))
    near = _nearest(measured, temperature, tolerance, where)
    return _read_at(near, readings, energies.get(near), failed, notes)


def _nearest(measured: Sequence[Measurement], temperature: float, tolerance: float, where: str) -> int:
    """Index of the spectrum at `temperature` [K]; InputError where none is within `tolerance` or has a geometry."""
    known = {k: m.temperature for k, m in enumerate(measured) if m.temperature is not None}
    near = sorted(known, key=lambda k: abs(known[k] - temperature))
    if not near or abs(known[near[0]] - temperature) > tolerance:
        listed = ", ".join(f"{t - 273.15:.1f} C" for t in sorted(known.values())) or "none known"
        raise InputError(
            f"{where}.temperature",
            f"{temperature - 273.15:.1f} C",
            f"the temperature of one of the spectra ({listed}), within {tolerance:g} K",
        )
    m = measured[near[0]]
    if m.geometry is None:
        raise InputError(m.name, "no geometry", "a reconciliation needs thickness and diameter or area")
    return near[0]


def _read_at(
    k: int,
    readings: Sequence[PelletReading],
    energy: tuple[float, float] | None,
    failed: Sequence[dict[str, str]],
    notes: Sequence[str],
) -> ArcReading:
    reading = readings[k]
    m = reading.measurement
    found = [reading.quantities.get(f"{name}_conductivity") for name in ("bulk", "apparent_gb")]
    bulk, apparent = found
    if bulk is None or apparent is None:
        missing = "bulk" if bulk is None else "boundary"
        arcs = ", ".join(a.name for a in reading.arcs) or "none"
        raise InputError(
            m.name, f"no {missing} arc (arcs: {arcs})", "a spectrum with both; arcs or circuit may be given"
        )
    gradients = np.stack([bulk.log_gradient, apparent.log_gradient])
    return ArcReading(
        temperature=float(m.temperature or 0.0),
        bulk=bulk.value,
        apparent=apparent.value,
        covariance=np.asarray(gradients @ reading.fit.log_covariance @ gradients.T),
        energy=energy,
        log_width=_log_width(reading),
        spectra=tuple(readings),
        source=f"{m.name}, fitted by {reading.fit.circuit.description()}",
        failed=tuple(failed),
        notes=(*notes, *reading.notes),
    )


def _log_width(reading: PelletReading) -> tuple[float, float] | None:
    """ln(C_b/C_gb) and its standard uncertainty, C_gb = τ/R_gb with τ of the largest boundary arc and R_gb of all.

    As `distinguish.predict` reads it off the whole excess impedance; None where an arc lies above the window.
    """
    bulk, resistance = reading.arc("bulk"), reading.quantities["apparent_gb_resistance"]
    boundaries = [a for a in reading.arcs if a.name.startswith("grain boundary")]
    time = max(boundaries, key=lambda a: a.resistance.value).relaxation_time if boundaries else None
    if bulk is None or bulk.capacitance is None or time is None:
        return None
    gradient = bulk.capacitance.log_gradient + resistance.log_gradient - time.log_gradient
    variance = float(gradient @ reading.fit.log_covariance @ gradient)
    return math.log(bulk.capacitance.value * resistance.value / time.value), math.sqrt(max(variance, 0.0))


@dataclass(frozen=True)
class Agreement:
    """How a mechanism's draws agree with one further datum: measured value and its standard uncertainty, median, 95 %.

    deviations: difference over both uncertainties together.
    """

    name: str
    unit: str
    measured: float
    uncertainty: float
    median: float
    low: float
    high: float
    deviations: float


@dataclass(frozen=True)
class Further:
    """ln of the factor that E_a and capacitance of the arc put on a mechanism's evidence, and from how many draws."""

    mechanism: str
    log_factor: float
    effective_draws: float
    agreements: tuple[Agreement, ...]

    @property
    def rough(self) -> bool:
        """Too few draws carry the factor."""
        return self.effective_draws < FEW_DRAWS


def further(drawn: ArcDraws, reading: ArcReading) -> Further | None:
    """What E_a and C_b/C_gb of the spectra say of a mechanism; None where they were not measured.

    The model's own uncertainty (0.02 eV, 20 % of the width: `distinguish.OBSERVABLES`) is added to the fit's.
    """
    log_weight, agreements = drawn.log_weight.copy(), []
    with np.errstate(invalid="ignore", divide="ignore"):
        log_ratio = np.log(drawn.capacitance_ratio)
    for observable, datum, column in (
        (ENERGY, reading.energy, drawn.energy),
        (WIDTH, reading.log_width, log_ratio),
    ):
        if datum is None:
            continue
        if np.count_nonzero(np.isfinite(column) & np.isfinite(drawn.log_weight)) < 2:
            return Further(drawn.name, -math.inf, 0.0, ())
        value, spread = datum[0], math.hypot(datum[1], observable.uncertainty)
        log_weight += -0.5 * ((column - value) / spread) ** 2 - math.log(spread * math.sqrt(2 * math.pi))
        good = np.isfinite(column)
        share = np.exp(drawn.log_weight[good])
        middle, low, high = quantiles(column[good], share)
        of_draws = math.sqrt(float(np.cov(column[good], aweights=share)))
        apart = abs(middle - value) / math.hypot(spread, of_draws)
        if observable is WIDTH:
            x, mid, least, most = np.exp([value, middle, low, high]).tolist()
            agreements.append(Agreement("C_b/C_gb of the arc", "1", x, x * spread, mid, least, most, apart))
        else:
            agreements.append(
                Agreement(
                    "activation energy of the arc", observable.unit, value, spread, middle, low, high, apart
                )
            )
    if not agreements:
        return None
    log_weight = np.where(np.isfinite(log_weight), log_weight, -np.inf)
    total = float(logsumexp(log_weight))
    if not math.isfinite(total):
        return Further(drawn.name, -math.inf, 0.0, tuple(agreements))
    effective = math.exp(2 * total - float(logsumexp(2 * log_weight)))
    return Further(drawn.name, total - math.log(len(log_weight)), effective, tuple(agreements))


def described(reading: ArcReading) -> dict[str, Any]:
    """What was read, for results.json."""
    return {
        "temperature_K": reading.temperature,
        "bulk_S_per_cm": reading.bulk * PER_CM,
        "apparent_gb_S_per_cm": reading.apparent * PER_CM,
        "covariance_of_logarithms_by_the_fit": reading.covariance.tolist(),
        "activation_energy_eV": None if reading.energy is None else list(reading.energy),
        "ln_width_over_grain_size": None if reading.log_width is None else list(reading.log_width),
        "spectra": [r.measurement.name for r in reading.spectra],
        "source": reading.source,
        "notes": list(reading.notes),
    }


def whole_spectrum(
    folder: RunFolder,
    case: Case,
    reading: ArcReading,
    outcomes: Sequence[Outcome],
    drawn: Sequence[ArcDraws],
) -> list[dict[str, Any]]:
    """Rows a mechanism that reaches the arc: what E_a and C_b/C_gb of the spectra add; and the words of it."""
    evidence = {o.mechanism.name: o.log_evidence for o in outcomes}
    found = [f for d in drawn if (f := further(d, reading)) is not None]
    whole = {f.mechanism: evidence[f.mechanism] + f.log_factor for f in found}
    best = max(whole.values(), default=-math.inf)
    rows = [
        {
            "material": case.name,
            "mechanism": f.mechanism,
            "measurement": a.name,
            "unit": a.unit,
            "measured": a.measured,
            "standard uncertainty": a.uncertainty,
            "predicted": a.median,
            "low": a.low,
            "high": a.high,
            "difference / standard deviations": a.deviations,
            "ln factor of the evidence": f.log_factor,
            "effective draws": f.effective_draws,
            "ln Bayes factor, whole spectrum": whole[f.mechanism] - best if math.isfinite(best) else math.nan,
        }
        for f in found
        for a in f.agreements
    ]
    folder.paragraph(f"{case.name}: the spectra", _in_words(case, reading, found, whole))
    return rows


def _in_words(case: Case, reading: ArcReading, found: Sequence[Further], whole: dict[str, float]) -> str:
    record = case.material.grain(case.temperature).conductivity_across
    errors = np.sqrt(np.diag(reading.covariance))
    said = [
        f"{reading.source}, at {reading.temperature - 273.15:.0f} °C: bulk {reading.bulk * PER_CM:.3g} S/cm "
        f"(fit {100 * errors[0]:.2g} %), which takes the place of the record's {record * PER_CM:.3g} S/cm, boundary "
        f"arc {reading.apparent * PER_CM:.3g} S/cm (fit {100 * errors[1]:.2g} %)."
    ]
    if not found:
        said.append(
            "No mechanism reaches the arc, or the spectra give neither its activation energy (three temperatures) nor "
            "its capacitance beside the bulk's: nothing beyond the conductivities is compared."
        )
    else:
        best = max(whole.values())
        ranked = sorted(found, key=lambda f: -whole[f.mechanism])
        data = " and ".join(a.name for a in found[0].agreements)
        parts = []
        for f in ranked:
            each = ", ".join(
                f"{a.name} {a.median:.3g} against {a.measured:.3g} ± {a.uncertainty:.2g}"
                f"{'' if a.unit == '1' else ' ' + a.unit} ({a.deviations:.1f} standard deviations)"
                for a in f.agreements
            )
            odds = whole[f.mechanism] - best if math.isfinite(best) else -math.inf
            factor = f"ln Bayes factor {odds:.1f}" if math.isfinite(odds) else "none of its draws comes near"
            rough = (
                f"; rough, {f.effective_draws:.1f} effective draws: raise spectrum_draws" if f.rough else ""
            )
            parts.append(f"{f.mechanism}: {each}; {factor}{rough}")
        said.append(f"With {data} as further data:\n\n" + "\n\n".join(parts))
    if reading.notes:
        said.append("Of the fit: " + "; ".join(reading.notes) + ".")
    if reading.failed:
        said.append("Left out: " + "; ".join(p["error"] for p in reading.failed) + ".")
    return "\n\n".join(said)
