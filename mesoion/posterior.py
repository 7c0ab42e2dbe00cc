"""Posterior of a pellet fit by an affine-invariant ensemble, its convergence, and what it predicts.

Sampler: emcee (Foreman-Mackey et al., PASP 125, 306 (2013)) with differential-evolution moves, started from the normal
approximation around the most probable parameters. Converged means: the chain is fifty autocorrelation times long
(Sokal's window; Goodman & Weare, Comm. App. Math. Comp. Sci. 5, 65 (2010)).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mesoion.errors import ConvergenceError, InputError
from mesoion.fit import MostProbable, PelletFit, verdict
from mesoion.pellet import Interval, inverse_interval

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]

LENGTHS_ASKED = 50
BURNED_LENGTHS = 5


@dataclass(frozen=True)
class Estimate:
    """One parameter: most probable value, median, 95 % interval, and how far the data narrowed its prior.

    narrowing: posterior over prior standard deviation in the fit coordinate; decided_by: "data", "both" or "prior".
    """

    name: str
    unit: str
    most_probable: float
    median: float
    low: float
    high: float
    prior_low: float
    prior_high: float
    narrowing: float
    decided_by: str


@dataclass(frozen=True, eq=False)
class Posterior:
    """Samples (s, n) in fit coordinates, with the sampler's own record.

    autocorrelation: longest integrated autocorrelation time over the parameters, in steps; steps, acceptance: of the
    ensemble after burning in.
    """

    fit: PelletFit
    start: MostProbable
    samples: Floats
    log_posterior: Floats
    autocorrelation: float
    steps: int
    acceptance: float

    @property
    def converged(self) -> bool:
        """At least fifty autocorrelation times were sampled."""
        return self.steps >= LENGTHS_ASKED * self.autocorrelation

    @property
    def effective_samples(self) -> float:
        """Independent samples: all of them over the autocorrelation time."""
        return len(self.samples) / self.autocorrelation

    def in_words(self) -> str:
        """Convergence in one sentence."""
        lengths = self.steps / self.autocorrelation
        end = (
            ""
            if self.converged
            else f"; {LENGTHS_ASKED} are asked, so take the tails of the intervals with care"
        )
        return (
            f"{self.steps} steps of the ensemble, {lengths:.0f} autocorrelation times of {self.autocorrelation:.0f} "
            f"steps, about {self.effective_samples:.0f} independent samples, {100 * self.acceptance:.0f} % of moves "
            f"accepted{end}."
        )

    def estimates(self) -> list[Estimate]:
        """Every free parameter, in its own unit."""
        found = []
        for j, p in enumerate(self.fit.free):
            u = self.samples[:, j]
            low, middle, high = p.value(np.percentile(u, [2.5, 50.0, 97.5])).tolist()
            ends = np.clip(p.mean + 1.959964 * p.deviation * np.array([-1.0, 1.0]), *p.bounds)
            narrowing = float(u.std() / p.deviation)
            best = float(p.value(self.start.coordinates[j]))
            first, last = p.value(ends).tolist()
            found.append(
                Estimate(p.name, p.unit, best, middle, low, high, first, last, narrowing, verdict(narrowing))
            )
        return found

    def conductivities(self, count: int = 1000) -> list[dict[str, Interval | float]]:
        """Bulk, total, apparent and specific boundary conductivity [S/m] at each temperature with 95 % intervals.

        apparent_gb: inf where the boundaries' resistance cannot be told from zero.
        """
        read = self._read(count)
        rho = read.pop("apparent_resistivity")
        return [
            {
                "temperature": float(t),
                **{k: self._interval(v[:, j]) for k, v in read.items()},
                "apparent_gb": inverse_interval(float(rho[0, j]), rho[1:, j]),
            }
            for j, t in enumerate(self.fit.temperatures)
        ]

    def _read(self, count: int) -> dict[str, Floats]:
        """Arrays (1 + s, t): the most probable parameters first."""
        rows: dict[str, list[Floats]] = {
            "bulk": [],
            "total": [],
            "specific_gb": [],
            "apparent_resistivity": [],
        }
        for u in [self.start.coordinates, *self._some(count)]:
            values = self.fit.values(u)
            bulk, specific = self.fit.conductivities(values)
            total = self.fit.total_conductivity(values)
            rows["bulk"].append(bulk)
            rows["specific_gb"].append(specific)
            rows["total"].append(total)
            rows["apparent_resistivity"].append(1 / total - 1 / bulk)
        return {k: np.array(v) for k, v in rows.items()}

    @staticmethod
    def _interval(column: Floats) -> Interval:
        low, high = np.percentile(column[1:], [2.5, 97.5])
        return Interval(float(column[0]), float(min(low, column[0])), float(max(high, column[0])))

    def _some(self, count: int) -> Floats:
        chosen = np.linspace(0, len(self.samples) - 1, min(count, len(self.samples))).astype(int)
        return np.asarray(self.samples[chosen])

    def predictive(self, temperature: float, frequency: Floats, seed: int, count: int = 200) -> Complexes:
        """Spectra (count, m) [ohm] a repeated measurement would show at `temperature` [K]: model and noise."""
        rng = np.random.default_rng(seed)
        drawn = []
        for u in self.samples[rng.integers(len(self.samples), size=count)]:
            values = self.fit.values(u)
            z = self.fit.spectrum(values, temperature, frequency)
            noise = rng.standard_normal(len(z)) + 1j * rng.standard_normal(len(z))
            drawn.append(z + values["noise"] * np.abs(z) * noise)
        return np.array(drawn)

    def coverage(self, seed: int) -> float:
        """Share of the measured points whose real and imaginary part lie inside the 95 % predictive band."""
        inside = []
        for m, t in zip(self.fit.measurements, self.fit.temperatures.tolist(), strict=True):
            drawn = self.predictive(t, m.frequency, seed)
            for part in (np.real, np.imag):
                low, high = np.percentile(part(drawn), [2.5, 97.5], axis=0)
                inside.append((part(m.impedance) >= low) & (part(m.impedance) <= high))
        return float(np.concatenate(inside).mean())


def autocorrelation_time(ensemble: Any, discard: int = 0) -> float:
    """The longest over the parameters [steps], of an `emcee` ensemble; all its steps where a walker never moved."""
    with np.errstate(invalid="ignore"):
        found = float(np.max(ensemble.get_autocorr_time(discard=discard, tol=0, quiet=True)))
    return found if np.isfinite(found) else float(ensemble.iteration - discard)


def _around(
    peak: MostProbable, count: int, log_density: Callable[[Floats], float], rng: np.random.Generator
) -> list[Floats]:
    """Points to start walkers from, in the sampler's coordinates, narrower than the normal approximation of a peak."""
    fit = peak.fit
    middle, slope = fit.straightened(peak.coordinates), fit.straightening(peak.coordinates)
    covariance = slope @ peak.covariance @ slope.T
    first: list[Floats] = []
    for shrink in (0.5, 0.1, 0.01):
        drawn = rng.multivariate_normal(middle, shrink**2 * covariance, size=20 * max(count, 1))
        # A most probable point on a bound would lose half of its neighbours: fold them back.
        for v in fit.within_bounds(drawn):
            if len(first) < count and np.isfinite(log_density(v)):
                first.append(v)
    if len(first) < count:
        raise ConvergenceError(
            "the posterior has no room around its most probable point; check the bounds of the priors",
            at="the start",
        )
    return first


def sample(
    start: MostProbable,
    *,
    seed: int,
    steps: int = 3000,
    most_steps: int | None = None,
    walkers: int | None = None,
    progress: Callable[[Iterable[Any], str, int], Iterable[Any]] | None = None,
) -> Posterior:
    """Draw from the posterior around its most probable point and the lower maxima beside it, by their evidence.

    walkers: four a parameter unless given. Where `steps` do not suffice for fifty autocorrelation times, as many again
    are taken until they do or `most_steps` are reached. Raises ConvergenceError where no walker can start, InputError
    for too few walkers or steps.
    """
    import emcee

    fit, n = start.fit, len(start.coordinates)
    count = 4 * n if walkers is None else walkers
    if count < 2 * n + 2 or steps < 100:
        raise InputError("walkers, steps", (count, steps), f"at least {2 * n + 2} walkers and 100 steps")
    rng = np.random.default_rng(seed)

    def log_density(v: Floats) -> float:
        u, log_jacobian = fit.bent(v)
        return fit.log_posterior(u) + log_jacobian if np.isfinite(log_jacobian) else -np.inf

    peaks = (start, *start.others)
    shares = np.exp(np.array([p.log_evidence for p in peaks]) - max(p.log_evidence for p in peaks))
    ends = np.round(count * np.cumsum(shares) / shares.sum()).astype(int)
    first: list[Floats] = []
    for peak, end in zip(peaks, ends.tolist(), strict=True):
        first += _around(peak, end - len(first), log_density, rng)
    moves = [(emcee.moves.DEMove(), 0.8), (emcee.moves.DESnookerMove(), 0.2)]
    if len(peaks) > 1:
        # The difference of two walkers on two peaks leads from one to the other.
        moves.append((emcee.moves.DEMove(gamma0=1.0), 0.2))
    ensemble = emcee.EnsembleSampler(count, n, log_density, moves=moves)
    ensemble.random_state = np.random.RandomState(int(rng.integers(2**31))).get_state()
    state: Any = np.array(first)
    taken, limit = 0, steps if most_steps is None else most_steps
    while True:
        block = min(steps, limit - taken)
        states: Iterable[Any] = ensemble.sample(state, iterations=block)
        for state in states if progress is None else progress(states, "posterior", block):  # noqa: B007
            pass
        taken += block
        rough = autocorrelation_time(ensemble)
        burned = min(int(BURNED_LENGTHS * rough), taken // 3)
        time = autocorrelation_time(ensemble, burned)
        if taken >= limit or taken - burned >= LENGTHS_ASKED * time:
            break
    bent = [fit.bent(v) for v in ensemble.get_chain(discard=burned, flat=True)]
    return Posterior(
        fit,
        start,
        np.array([u for u, _ in bent]),
        ensemble.get_log_prob(discard=burned, flat=True) - np.array([jacobian for _, jacobian in bent]),
        time,
        taken - burned,
        float(np.mean(ensemble.acceptance_fraction)),
    )
