"""Arrhenius laws from diffusivities with uncertainties: one regime or two, the break, and extrapolation.

One regime: ln D = ln D0 - E_a x with x = 1/k_BT. Two: the same below the break temperature and another slope above it,
continuous. Both by weighted least squares; where the points scatter more than their uncertainties say, all variances
grow by χ²/dof. Two regimes are accepted when the drop in χ² is one that a single regime shows in fewer than 5 % of
simulated data sets: the break is searched for, so the F distribution does not hold (R. B. Davies, Biometrika 74, 33
(1987), doi 10.1093/biomet/74.1.33). Energies in eV, temperatures in K, D in m²/s.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from atomistic.diffusivity import Diffusivity
from atomistic.errors import InputError

if TYPE_CHECKING:
    from mesoion.transport import DiffusivityArrhenius, Source

Floats = NDArray[np.float64]

BOLTZMANN_EV = 8.617333262e-5
"""eV/K."""

_GRID = 160
_SIMULATIONS = 1000
_DRAWS = 8000
_SIGNIFICANCE = 0.05
_LEAST_FOR_BREAK = 5


@dataclass(frozen=True)
class Estimate:
    """A value with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class ArrheniusFit:
    """A fitted Arrhenius law; `log_d0` and `activation_energy` are those of the regime below the break.

    covariance: (2, 2) of (ln D0, E_a); activation_energy_interval: 95 %, eV; high_temperature_activation_energy and
    break_temperature: estimates, None for one regime; p_value: of one regime against two (nan below five temperatures);
    chi2_per_dof; scale: factor on the variances; temperatures (n,) K, log_diffusivity (n,), log_variance (n,).
    """

    log_d0: float
    activation_energy: float
    covariance: Floats
    activation_energy_interval: Estimate
    high_temperature_activation_energy: Estimate | None
    break_temperature: Estimate | None
    p_value: float
    chi2_per_dof: float
    scale: float
    temperatures: Floats
    log_diffusivity: Floats
    log_variance: Floats

    @property
    def regimes(self) -> int:
        """1 or 2."""
        return 1 if self.break_temperature is None else 2

    def value(self, temperature: float) -> float:
        """The fitted law at a temperature (K), m²/s."""
        x, slope = 1 / (BOLTZMANN_EV * temperature), self.activation_energy
        log = self.log_d0 - slope * x
        if self.break_temperature is not None and self.high_temperature_activation_energy is not None:
            above = min(x - 1 / (BOLTZMANN_EV * self.break_temperature.value), 0.0)
            log += (slope - self.high_temperature_activation_energy.value) * above
        return math.exp(log)

    def at(self, temperature: float, rng: np.random.Generator | None = None) -> Estimate:
        """D at a temperature (K), within or beyond the data, with a 95 % interval.

        The interval holds the scatter of the points, the uncertainty of a break, and, from five temperatures on, that
        of whether there is one (both laws drawn by their Akaike weights). It cannot hold a change of mechanism below
        the lowest temperature.
        """
        if not (1 <= temperature <= 1e5):
            raise InputError("temperature", temperature, "give K between 1 and 100000")
        rng = np.random.default_rng(0) if rng is None else rng
        draws = _draws(self, 1 / (BOLTZMANN_EV * temperature), rng)
        low, high = np.quantile(draws, [0.025, 0.975])
        value = self.value(temperature)
        return Estimate(value, min(math.exp(low), value), max(math.exp(high), value))

    def law(self, source: Source) -> DiffusivityArrhenius:
        """The fit as a record's law, with the given source for all its numbers."""
        from mesoion.transport import DiffusivityArrhenius, EnergyBarrier, PositiveQuantity

        spread = np.sqrt(np.diag(self.covariance))
        correlation = float(self.covariance[0, 1] / max(spread[0] * spread[1], 1e-300))
        above = self.high_temperature_activation_energy
        change = self.break_temperature
        return DiffusivityArrhenius(
            law="diffusivity",
            D0_m2_per_s=PositiveQuantity(
                value=math.exp(self.log_d0), uncertainty_factor=min(math.exp(spread[0]), 1e6), source=source
            ),
            activation_energy_eV=EnergyBarrier(
                value=max(self.activation_energy, 0.0), standard_uncertainty=float(spread[1]), source=source
            ),
            correlation=min(max(correlation, -1.0), 1.0),
            break_temperature_K=None
            if change is None
            else PositiveQuantity(
                value=change.value, standard_uncertainty=(change.high - change.low) / 3.92, source=source
            ),
            high_temperature_activation_energy_eV=None
            if above is None
            else EnergyBarrier(
                value=max(above.value, 0.0),
                standard_uncertainty=(above.high - above.low) / 3.92,
                source=source,
            ),
        )


def fit_arrhenius(
    temperatures: Sequence[float],
    diffusivities: Sequence[Diffusivity],
    rng: np.random.Generator | None = None,
) -> ArrheniusFit:
    """Fit one or two Arrhenius regimes to diffusivities with uncertainties.

    `temperatures` K, one per diffusivity (repeats allowed); `rng` for the test of two regimes (default: seed 0).

    Raises InputError for fewer than two different temperatures, or a diffusivity that is not positive.
    """
    t = np.asarray(temperatures, dtype=float)
    if len(t) != len(diffusivities):
        raise InputError(
            "temperatures", list(temperatures), f"give one per diffusivity ({len(diffusivities)})"
        )
    if len(np.unique(t)) < 2:
        raise InputError(
            "temperatures",
            list(temperatures),
            "an activation energy needs at least two different temperatures",
        )
    if np.any(~np.isfinite(t) | (t <= 0)):
        raise InputError("temperatures", list(temperatures), "give temperatures in K, above 0")
    for kelvin, d in zip(t, diffusivities, strict=True):
        if not (d.value > 0 and math.isfinite(d.log_variance)):
            raise InputError(
                f"diffusivity at {kelvin:g} K", d.value, "nothing diffused there; run longer or leave it out"
            )
    order = np.argsort(t, kind="stable")
    t = t[order]
    y = np.log(np.array([diffusivities[k].value for k in order]))
    v = np.array([max(diffusivities[k].log_variance, 1e-12) for k in order])
    x = 1 / (BOLTZMANN_EV * t)
    one, chi2_one, covariance = _least_squares(_line(x), y, v)
    p_value = math.nan
    if len(np.unique(t)) >= _LEAST_FOR_BREAK:
        p_value = _p_value(x, y, v, np.random.default_rng(0) if rng is None else rng)
    if not p_value < _SIGNIFICANCE:
        freedom = len(y) - 2
        scale = max(1.0, chi2_one / freedom) if freedom else 1.0
        covariance = covariance * scale
        half = _quantile(scale, freedom) * math.sqrt(float(covariance[1, 1]))
        energy = Estimate(float(one[1]), float(one[1]) - half, float(one[1]) + half)
        return ArrheniusFit(
            float(one[0]), float(one[1]), covariance, energy, None, None, p_value,
            chi2_one / freedom if freedom else math.nan, scale, t, y, v,
        )  # fmt: skip
    breaks, chi2, thetas, covariances = _profile(x, y, v)
    best = int(np.argmin(chi2))
    freedom = max(len(y) - 4, 1)
    scale = max(1.0, float(chi2[best]) / freedom)
    weights: Floats = np.exp(-0.5 * (chi2 - chi2[best]) / scale)
    weights = weights / weights.sum()
    mean: Floats = np.einsum("g,gk->k", weights, thetas)
    spread: Floats = np.einsum("g,gkl->kl", weights, covariances) * scale
    spread += np.einsum("g,gk,gl->kl", weights, thetas - mean, thetas - mean)
    quantile = _quantile(scale, freedom)
    theta = thetas[best]
    inside = breaks[chi2 - chi2[best] <= quantile**2 * scale]
    change = Estimate(*[float(1 / (BOLTZMANN_EV * b)) for b in (breaks[best], inside.max(), inside.min())])
    half = quantile * math.sqrt(float(spread[1, 1]))
    low = Estimate(float(theta[1]), float(theta[1]) - half, float(theta[1]) + half)
    # Above the break the slope is E_a minus the kink's coefficient.
    upper = float(theta[1] - theta[2])
    half = quantile * math.sqrt(max(float(spread[1, 1] + spread[2, 2] - 2 * spread[1, 2]), 0.0))
    return ArrheniusFit(
        float(theta[0]), float(theta[1]), spread[:2, :2], low, Estimate(upper, upper - half, upper + half), change,
        p_value, float(chi2[best]) / freedom, scale, t, y, v,
    )  # fmt: skip


def _quantile(scale: float, freedom: int) -> float:
    return float(stats.t.ppf(0.975, freedom)) if scale > 1 else float(stats.norm.ppf(0.975))


def _line(x: Floats) -> Floats:
    return np.column_stack([np.ones_like(x), -x])


def _kinked(x: Floats, at: float) -> Floats:
    return np.column_stack([np.ones_like(x), -x, np.minimum(x - at, 0.0)])


def _least_squares(design: Floats, y: Floats, v: Floats) -> tuple[Floats, float, Floats]:
    weighted = design / np.sqrt(v)[:, None]
    covariance = np.asarray(np.linalg.pinv(weighted.T @ weighted, rcond=1e-14, hermitian=True), dtype=float)
    theta = np.asarray(np.linalg.lstsq(weighted, y / np.sqrt(v), rcond=None)[0], dtype=float)
    residual = y - design @ theta
    return theta, float(np.sum(residual**2 / v)), covariance


def _break_grid(x: Floats) -> Floats:
    """Candidate breaks (in x) with at least two temperatures on either side."""
    levels = np.unique(x)
    return np.linspace(levels[1], levels[-2], _GRID)


def _profile(x: Floats, y: Floats, v: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    grid = _break_grid(x)
    fits = [_least_squares(_kinked(x, b), y, v) for b in grid]
    return (
        grid,
        np.array([f[1] for f in fits]),
        np.array([f[0] for f in fits]),
        np.array([f[2] for f in fits]),
    )


def _p_value(x: Floats, y: Floats, v: Floats, rng: np.random.Generator) -> float:
    """Share of data sets simulated with one regime whose χ² falls as much, relative to what stays, with a break."""
    root = np.sqrt(v)
    line = np.linalg.qr(_line(x) / root[:, None])[0]
    kinks = np.empty((_GRID, len(x)))
    for k, b in enumerate(_break_grid(x)):
        extra = np.minimum(x - b, 0.0) / root
        extra = extra - line @ (line.T @ extra)
        kinks[k] = extra / max(float(np.linalg.norm(extra)), 1e-300)

    def statistic(z: Floats) -> Floats:
        residual = z - (z @ line) @ line.T
        drop = np.max((residual @ kinks.T) ** 2, axis=-1)
        rest = np.sum(residual**2, axis=-1) - drop
        freedom = max(len(x) - 4, 1)
        # Scatter beyond the stated uncertainties counts against the break, as in the fit itself.
        ratio: Floats = drop / np.maximum(1.0, rest / freedom)
        return ratio

    observed = statistic(y / root)
    simulated = statistic(rng.normal(size=(_SIMULATIONS, len(x))))
    return float((1 + np.sum(simulated >= observed)) / (1 + _SIMULATIONS))


def _draws(fit: ArrheniusFit, at: float, rng: np.random.Generator) -> Floats:
    x = 1 / (BOLTZMANN_EV * fit.temperatures)
    y, v = fit.log_diffusivity, fit.log_variance
    one, chi2_one, covariance = _least_squares(_line(x), y, v)
    n = len(y)
    models = [(chi2_one / fit.scale + 4 + 12 / max(n - 3, 1), 1)]
    profile = None
    if len(np.unique(x)) >= _LEAST_FOR_BREAK:
        profile = _profile(x, y, v)
        models.append((float(profile[1].min()) / fit.scale + 8 + 40 / max(n - 5, 1), 2))
    criterion = np.array([m[0] for m in models])
    weight = np.exp(-0.5 * (criterion - criterion.min()))
    weight /= weight.sum()
    if fit.regimes == 2:
        weight = np.array([0.0, 1.0])
    numbers = rng.multinomial(_DRAWS, weight)
    freedom = n - 2 * fit.regimes
    inflate = rng.standard_t(freedom, _DRAWS) if fit.scale > 1 and freedom > 0 else rng.normal(size=_DRAWS)
    row = np.array([1.0, -at])
    parts = [
        float(row @ one)
        + inflate[: numbers[0]] * math.sqrt(max(float(row @ covariance @ row) * fit.scale, 0.0))
    ]
    if profile is not None and numbers[1]:
        grid, chi2, thetas, covariances = profile
        likelihood = np.exp(-0.5 * (chi2 - chi2.min()) / fit.scale)
        chosen = rng.choice(len(grid), numbers[1], p=likelihood / likelihood.sum())
        rows = np.column_stack([np.ones(_GRID), np.full(_GRID, -at), np.minimum(at - grid, 0.0)])
        centre = np.einsum("gk,gk->g", rows, thetas)
        spread = np.sqrt(np.maximum(np.einsum("gk,gkl,gl->g", rows, covariances, rows) * fit.scale, 0.0))
        parts.append(centre[chosen] + inflate[numbers[0] :] * spread[chosen])
    drawn: Floats = np.concatenate(parts)
    return drawn
