"""One pellet's spectra over temperature, fitted together so that every arc keeps its name, and what follows from them.

The misfits of all spectra are minimised in one sum with the deviations of every arc j from a smooth course,

    [ln(R_jk/T_k) − a_j − E_j β_k]²/s_R²  +  [ln C_jk − c_j]²/s_C²  +  [ln n_jk − m_j]²/s_n² ,   β = 1/(k_BT),

a_j, E_j, c_j, m_j free. The scatters s are assumptions (`SCATTERS`), wide enough that arcs the data fix are hardly
touched, narrow enough that two arcs cannot change places on the way: an arc belongs to the series, not to a spectrum.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares
from scipy.stats import norm, theilslopes
from scipy.stats import t as student_t

from mesoion.errors import ConvergenceError, InputError
from mesoion.impedance.arc_places import ArcPlace, arc_places
from mesoion.impedance.arcs import PelletReading, arc_names, credible, read_pellet, series_resistor
from mesoion.impedance.circuit_fit import CircuitFit, CircuitProblem, fit_circuit
from mesoion.impedance.measurement import Geometry, Measurement
from mesoion.impedance.metadata import temperatures_in_name
from mesoion.units import BOLTZMANN_EV

Floats = NDArray[np.float64]

FEWEST_TEMPERATURES = 3
SCATTERS = {"ln R": 0.1, "ln C": 0.1, "ln n": 0.1}
"""Standard deviations about the smooth course; assumed. Exponents drift by 10 % within 60 K in measured series."""
_MAX_EVALUATIONS = 200


@dataclass(frozen=True)
class ActivationEnergy:
    """ln(σT) = intercept − E/(k_BT) over a series: E [eV] with its 95 % interval, and the line."""

    value: float
    low: float
    high: float
    intercept: float
    temperatures: tuple[float, ...]
    largest_deviation: float
    """Of ln(σT) from the line."""

    def conductivity(self, temperature: Floats) -> Floats:
        """σ of the line [S/m] at `temperature` [K]."""
        t = np.asarray(temperature, float)
        return np.asarray(np.exp(self.intercept - self.value / (BOLTZMANN_EV * t)) / t)


@dataclass(frozen=True)
class TemperatureSeries:
    """Spectra of one pellet fitted together; scatters: root mean square about the course, by arc and logarithm.

    covariance: of the logarithms of all spectra's free parameters, one spectrum after the other, then of the courses'.
    """

    readings: tuple[PelletReading, ...]
    activation_energies: Mapping[str, ActivationEnergy]
    scatters: Mapping[str, Mapping[str, float]]
    covariance: Floats


def series_of(measurements: Sequence[Measurement]) -> list[list[int]]:
    """Indices of measurements that belong together: same geometry, same name but for temperature and numbers.

    Groups with fewer than three temperatures are left out.
    """
    groups: dict[tuple[Geometry | None, str], list[int]] = {}
    for index, m in enumerate(measurements):
        if m.temperature is None:
            continue
        base = m.name
        for _, words in temperatures_in_name(base):
            base = base.replace(words, "")
        groups.setdefault((m.geometry, re.sub(r"[\W\d_]+", " ", base).strip().casefold()), []).append(index)
    found = []
    for members in groups.values():
        temperatures = {round(measurements[k].temperature or 0.0, 1) for k in members}
        if len(temperatures) >= FEWEST_TEMPERATURES:
            found.append(sorted(members, key=lambda k: measurements[k].temperature or 0.0))
    return found


def fit_series(measurements: Sequence[Measurement], fits: Sequence[CircuitFit]) -> TemperatureSeries:
    """The spectra of one pellet at several temperatures, fitted together from fits of one circuit to each.

    Raises InputError for fewer than three temperatures, unknown ones, or fits of different circuits; ConvergenceError
    where the joint fit does not converge.
    """
    problem = _SeriesProblem(measurements, fits)
    starts = problem.starts()
    solutions = [problem.solve(start) for start in starts]
    best = min(solutions, key=lambda s: s.cost)
    if not best.converged:
        raise ConvergenceError(
            "the spectra of the series could not be fitted together; fit them with a circuit of your own",
            at=f"{len(fits)} spectra",
        )
    return problem.result(best)


def common_circuit(
    measurements: Sequence[Measurement], fits: Sequence[CircuitFit], *, starts: int = 4, seed: int = 0
) -> list[CircuitFit]:
    """Fits of one circuit to all spectra of a series: of those chosen for single spectra, the one with the lowest sum
    of BIC; circuits whose arcs are credible in fewer than half of the spectra come last.

    Raises ConvergenceError where none of them can be fitted to all.
    """
    by_kind: dict[str, CircuitFit] = {}
    for fit in fits:
        by_kind.setdefault(fit.circuit.description(), fit)
    complete: list[tuple[bool, float, list[CircuitFit]]] = []
    for kind, example in by_kind.items():
        row: list[CircuitFit] = []
        for m, fit in zip(measurements, fits, strict=True):
            if fit.circuit.description() != kind:
                try:
                    fit = _refit(m, example, starts, seed)
                except ConvergenceError:
                    break
            row.append(fit)
        else:
            # Half of them suffice: arcs that cross are close on the way, and the series tells them apart.
            implausible = sum(credible(f) for f in row) < len(row) / 2
            complete.append((implausible, sum(f.bic for f in row), row))
    if not complete:
        raise ConvergenceError(
            "no circuit fits all spectra of the series; give one with --circuit", at="series"
        )
    return min(complete, key=lambda entry: entry[:2])[2]


def _refit(m: Measurement, example: CircuitFit, starts: int, seed: int) -> CircuitFit:
    """The example's circuit on another spectrum, its resistances scaled and its times shifted to begin with."""
    ratio = float(np.ptp(m.impedance.real) / max(np.ptp(example.measured.real), 1e-300))
    values = example.circuit.values
    for place in arc_places(example.circuit):
        r, tau, n = place.read(values)
        place.write(values, r * ratio, tau * ratio, n)
    start = example.circuit.with_values(values)
    return fit_circuit(m.frequency, m.impedance, start, starts=2 * starts, seed=seed)


@dataclass(frozen=True)
class _Joint:
    unknowns: Floats
    cost: float
    covariance: Floats
    converged: bool


class _SeriesProblem:
    """Unknowns: the free logarithms of every spectrum, then a, E, c, m of every arc."""

    def __init__(self, measurements: Sequence[Measurement], fits: Sequence[CircuitFit]) -> None:
        temperatures = [m.temperature for m in measurements]
        if len({t for t in temperatures if t is not None}) < FEWEST_TEMPERATURES or None in temperatures:
            raise InputError(
                "series", temperatures, "three different, known temperatures are needed at least"
            )
        if len({f.circuit.description() for f in fits}) != 1 or len(fits) != len(measurements):
            raise InputError("series", "the circuits", "all spectra of a series are fitted by one circuit")
        self.measurements, self.fits = list(measurements), list(fits)
        self.temperature = np.array([t for t in temperatures if t is not None], float)
        beta = 1.0 / (BOLTZMANN_EV * self.temperature)
        self.middle = float(beta.mean())
        self.beta = beta - self.middle
        self.places: list[ArcPlace] = arc_places(fits[0].circuit)
        self.problems = [
            CircuitProblem(f.circuit, f.frequency, f.measured, f.deviation * max(f.widening, 1e-12))
            for f in fits
        ]
        self.size = len(self.problems[0].free)
        self.base = [np.log(f.circuit.values) for f in fits]
        self.scatter = np.array(list(SCATTERS.values()))

    def logs(self, unknowns: Floats, k: int) -> Floats:
        """All logarithms of spectrum k."""
        full = self.base[k].copy()
        full[self.problems[k].free] = unknowns[k * self.size : (k + 1) * self.size]
        return full

    def course(self, unknowns: Floats) -> tuple[Floats, Floats]:
        """Deviations (arcs, spectra, 3) from the smooth course and their derivatives (arcs, spectra, 3, unknowns)."""
        spectra, arcs = len(self.problems), len(self.places)
        deviation = np.zeros((arcs, spectra, 3))
        slope = np.zeros((arcs, spectra, 3, len(unknowns)))
        for k in range(spectra):
            values = np.exp(self.logs(unknowns, k))
            free = self.problems[k].free
            own = slice(k * self.size, (k + 1) * self.size)
            for j, place in enumerate(self.places):
                r, tau, n = place.read(values)
                by_r, _, by_c = place.gradients(values)
                at = spectra * self.size + 4 * j
                a, energy, c, m = unknowns[at : at + 4]
                deviation[j, k] = (
                    math.log(r / self.temperature[k]) - a - energy * self.beta[k],
                    math.log(tau / r) - c,
                    math.log(n) - m,
                )
                slope[j, k, 0, own], slope[j, k, 1, own] = by_r[free], by_c[free]
                if place.exponent is not None:
                    slope[j, k, 2, own] = (free == place.exponent).astype(float)
                slope[j, k, 0, at : at + 2] = -1.0, -self.beta[k]
                slope[j, k, 1, at + 2] = slope[j, k, 2, at + 3] = -1.0
        return deviation, slope

    def residuals(self, unknowns: Floats) -> tuple[Floats, Floats]:
        """All residuals and their derivatives."""
        parts, slopes = [], []
        for k, problem in enumerate(self.problems):
            r, j = problem.residuals(self.logs(unknowns, k))
            wide = np.zeros((len(r), len(unknowns)))
            wide[:, k * self.size : (k + 1) * self.size] = j
            parts.append(r)
            slopes.append(wide)
        deviation, slope = self.course(unknowns)
        weight = 1.0 / self.scatter
        parts.append((deviation * weight).ravel())
        slopes.append((slope * weight[..., None]).reshape(-1, len(unknowns)))
        return np.concatenate(parts), np.concatenate(slopes)

    def solve(self, start: Floats) -> _Joint:
        """The minimum from `start`, with the present scatters."""
        free = np.full(4 * len(self.places), np.inf)
        lower = np.concatenate([*(p.lower for p in self.problems), -free])
        upper = np.concatenate([*(p.upper for p in self.problems), free])
        memory: dict[bytes, tuple[Floats, Floats]] = {}

        def at(x: Floats) -> tuple[Floats, Floats]:
            key = x.tobytes()
            if key not in memory:
                memory.clear()
                memory[key] = self.residuals(x)
            return memory[key]

        found = least_squares(
            lambda x: at(x)[0],
            np.clip(start, lower + 1e-9, upper - 1e-9),
            jac=lambda x: at(x)[1],
            bounds=(lower, upper),
            x_scale="jac",
            ftol=1e-10,
            xtol=1e-10,
            gtol=1e-10,
            max_nfev=_MAX_EVALUATIONS,
        )
        covariance = np.linalg.pinv(found.jac.T @ found.jac, rcond=1e-14, hermitian=True)
        return _Joint(found.x, float(found.cost), covariance, found.status > 0)

    def starts(self) -> list[Floats]:
        """Arcs of every spectrum ordered by τ, or by C, each as they are and drawn onto robust lines."""
        found = []
        read = np.array(
            [[p.read(f.circuit.values) for p in self.places] for f in self.fits]
        )  # (spectra, arcs, R τ n)
        for key in (read[:, :, 1], read[:, :, 1] / read[:, :, 0]):
            order = np.argsort(key, axis=1)
            arranged = np.take_along_axis(read, order[:, :, None], axis=1)
            found += [self.start(arranged, lines=False), self.start(arranged, lines=True)]
        return found

    def start(self, arranged: Floats, lines: bool) -> Floats:
        """Unknowns for arcs `arranged` (spectra, arcs, R τ n); lines: on robust lines instead of where they are."""
        arcs, course = arranged.copy(), []
        for j in range(arcs.shape[1]):
            y = np.log(arcs[:, j, 0] / self.temperature)
            slope, intercept, *_ = theilslopes(y, self.beta)
            c, m = np.median(np.log(arcs[:, j, 1] / arcs[:, j, 0])), np.median(np.log(arcs[:, j, 2]))
            if lines:
                arcs[:, j, 0] = np.exp(intercept + slope * self.beta) * self.temperature
                arcs[:, j, 1] = np.exp(c) * arcs[:, j, 0]
                arcs[:, j, 2] = np.exp(m)
            course += [intercept, slope, c, m]
        pieces = []
        for k, fit in enumerate(self.fits):
            values = fit.circuit.values.copy()
            for j, place in enumerate(self.places):
                place.write(values, *(float(v) for v in arcs[k, j]))
            logs = np.log(values)
            held = np.setdiff1d(np.arange(len(logs)), self.problems[k].free)
            logs[held] = self.base[k][held]
            pieces.append(logs[self.problems[k].free])
        return np.concatenate([*pieces, course])

    # ---- what comes out ----------------------------------------------------------------------------------------
    def result(self, solution: _Joint) -> TemperatureSeries:
        """Readings with names of the series, activation energies, scatters."""
        spectra = len(self.problems)
        geometry = self.measurements[0].geometry
        cell = 100.0 if geometry is None else geometry.cell_constant
        deviation, _ = self.course(solution.unknowns)
        course = solution.unknowns[spectra * self.size :].reshape(-1, 4)
        times = [float(np.exp(c + a) * np.exp(np.log(self.temperature).mean())) for a, _, c, _ in course]
        lead = series_resistor(self.fits[0].circuit) is not None
        names, _ = arc_names([float(np.exp(c)) * cell for _, _, c, _ in course], times, lead)
        readings = []
        for k, fit in enumerate(self.fits):
            own = slice(k * self.size, (k + 1) * self.size)
            circuit = fit.circuit.with_values(np.exp(self.logs(solution.unknowns, k)))
            residual = self.problems[k].residuals(self.logs(solution.unknowns, k))[0]
            joint = replace(
                fit,
                circuit=circuit,
                log_covariance=solution.covariance[own, own],
                chi_squared=float(residual @ residual) * max(fit.widening, 1e-12) ** 2,
            )
            readings.append(read_pellet(self.measurements[k], joint, names))
        scatters = {
            name: {
                quantity: float(np.sqrt(np.mean(deviation[j, :, q] ** 2)))
                for q, quantity in enumerate(SCATTERS)
            }
            for j, name in enumerate(names)
        }
        energies = self.activation_energies(readings, solution.covariance)
        return TemperatureSeries(tuple(readings), energies, scatters, solution.covariance)

    def activation_energies(
        self, readings: Sequence[PelletReading], covariance: Floats
    ) -> dict[str, ActivationEnergy]:
        """Of σT of every conductivity that all spectra have (of T/R without a geometry)."""
        found = {}
        for name in ("bulk", "apparent_gb", "specific_gb", "total"):
            key = f"{name}_conductivity"
            sign = 1.0
            if key not in readings[0].quantities:
                key, sign = f"{name}_resistance", -1.0
            if not all(key in r.quantities for r in readings):
                continue
            log = np.array([sign * math.log(r.quantities[key].value) for r in readings])
            gradient = np.zeros((len(readings), covariance.shape[0]))
            for k, r in enumerate(readings):
                gradient[k, k * self.size : (k + 1) * self.size] = sign * r.quantities[key].log_gradient
            found[name] = arrhenius_line(self.temperature, log, gradient @ covariance @ gradient.T)
        return found


def arrhenius_line(temperature: Floats, log_conductivity: Floats, covariance: Floats) -> ActivationEnergy:
    """The line of ln(σT) against 1/(k_BT).

    temperature (n,) [K]; log_conductivity (n,) of σ [S/m]; covariance (n, n) of it. Weights are the inverse of each
    variance with the scatter about an unweighted line added. The interval is the wider of that propagated from
    `covariance` and that of the scatter (Student's t, n − 2). Raises InputError for fewer than two temperatures.
    """
    t = np.asarray(temperature, float)
    if len(set(t.tolist())) < 2:
        raise InputError("temperatures", t.tolist(), "an activation energy needs two temperatures at least")
    y, x = np.asarray(log_conductivity, float) + np.log(t), 1.0 / (BOLTZMANN_EV * t)
    design = np.stack([np.ones_like(x), -x], axis=1)
    dof = len(t) - 2

    def line(weight: Floats) -> tuple[Floats, Floats]:
        root = np.sqrt(weight)
        solver = np.asarray(np.linalg.pinv(design * root[:, None]) * root, float)
        return np.asarray(solver @ y, float), solver

    plain, _ = line(np.ones_like(y))
    scatter = float(np.sum((y - design @ plain) ** 2)) / dof if dof else 0.0
    variance = np.diag(covariance) + scatter
    weight = np.full_like(y, 1.0) if not (variance > 0).all() else variance.min() / variance
    (intercept, energy), solver = line(weight)
    residual = y - design @ np.array([intercept, energy])
    propagated = float(norm.ppf(0.975)) * math.sqrt(max(0.0, float(solver[1] @ covariance @ solver[1])))
    observed = 0.0
    if dof:
        spread = float(np.sum(weight * residual**2)) / dof
        observed = float(student_t.ppf(0.975, dof)) * math.sqrt(
            spread * float(np.sum(solver[1] ** 2 / weight))
        )
    half = max(propagated, observed)
    return ActivationEnergy(
        float(energy),
        float(energy) - half,
        float(energy) + half,
        float(intercept),
        tuple(t.tolist()),
        float(np.abs(residual).max()),
    )
