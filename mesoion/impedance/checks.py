"""Whether a measured spectrum can be trusted: Kramers-Kronig, noise, outliers, drift, leads, geometry."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from mesoion.errors import InputError
from mesoion.impedance.kramers_kronig import FEWEST_POINTS, KramersKronigFit, fit_kramers_kronig
from mesoion.impedance.measurement import Measurement
from mesoion.plots import COLOURS, style

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

TOO_NOISY = 0.1
"""Noise relative to |Z| above which a spectrum cannot be judged, and is not called valid."""

# Reach of the window (1 - (d/reach)²)² in which noise is averaged, decades of frequency.
_REACH = 1.2
# Standard deviation of the prior of the slope of ln σ² per decade: noise in proportion to f has 4.6.
_SLOPE = 5.0
# Chance of calling a good point of a spectrum an outlier, and a good spectrum systematic.
_OUTLIER_CHANCE, _SYSTEMATIC_CHANCE = 0.01, 1e-3
_DRAWS = 2000
# So many points that may hide in the fit are tried.
_TRIED = 3
# A change over the measurement counts from this many standard errors on.
_DRIFT_ERRORS = 5.0


@dataclass(frozen=True)
class Noise:
    """Random error of a spectrum: relative standard deviation of Re Z and of Im Z, each relative to |Z|.

    sigma (n,): the estimate at each frequency, an average over about a decade; low, high (n,): 95 % interval.
    """

    sigma: Floats
    low: Floats
    high: Floats

    @property
    def level(self) -> float:
        """Root mean square over the spectrum."""
        return float(np.sqrt(np.mean(self.sigma**2)))


@dataclass(frozen=True)
class Drift:
    """Relative change of Z over the measurement, from the lowest decades' conflict with Kramers-Kronig."""

    change: float
    standard_error: float

    @property
    def significant(self) -> bool:
        """Whether the change is larger than five standard errors."""
        return abs(self.change) > _DRIFT_ERRORS * self.standard_error


@dataclass(frozen=True)
class SpectrumCheck:
    """What was found about one spectrum.

    fit: of the points that are no outliers. noise, residual, outliers (n,): at every point; residual is
    (Z - Z_fit)/|Z|. systematic: root mean square of the part of the residual that neighbouring points share, of the
    real and of the imaginary part each, as the noise; chance: probability of as much in a spectrum with independent
    errors. valid: whether the spectrum obeys the Kramers-Kronig relations to within its noise or `tolerance`, at a
    noise that lets it be judged. words: the findings in sentences.
    """

    measurement: Measurement
    fit: KramersKronigFit
    noise: Noise
    residual: NDArray[np.complex128]
    outliers: Bools
    systematic: float
    chance: float
    drift: Drift
    valid: bool
    words: tuple[str, ...]

    def kept(self) -> Measurement:
        """The measurement without its outliers."""
        if not self.outliers.any():
            return self.measurement
        note = f"{int(self.outliers.sum())} outliers left out"
        kept = self.measurement.selected(~self.outliers)
        return replace(kept, notes=(*kept.notes, note))


def check_spectrum(
    measurement: Measurement,
    *,
    inductance: bool = True,
    capacitance: bool = True,
    tolerance: float = 0.01,
    seed: int = 0,
) -> SpectrumCheck:
    """Check a spectrum against the Kramers-Kronig relations and estimate its noise, outliers and drift.

    inductance, capacitance: whether a series L and C may be part of the sample. tolerance: systematic residual,
    relative to |Z|, that is still called valid. seed: of the draws that judge the systematic residual.

    Raises InputError for fewer than 8 points.
    """
    f, z = measurement.frequency, measurement.impedance
    if len(f) < FEWEST_POINTS:
        raise InputError(measurement.name, f"{len(f)} points", f"a check needs at least {FEWEST_POINTS}")
    keep = np.ones(len(f), bool)
    most = max(1, len(f) // 10)
    while True:
        fit, noise = _weighted_fit(f[keep], z[keep], inductance, capacitance)
        worst = _worst_outlier(fit)
        if worst is None:
            worst = _hidden_outlier(fit, inductance, capacitance)
        if worst is None or int((~keep).sum()) >= most or int(keep.sum()) <= FEWEST_POINTS:
            break
        keep[np.flatnonzero(keep)[worst]] = False
    residual = (z - fit.at(f)) / np.abs(z)
    everywhere, _ = _local_noise(fit, f)
    drift = _drift(fit, inductance, capacitance)
    systematic, chance = _systematic(fit, noise, np.random.default_rng(seed))
    valid = everywhere.level <= TOO_NOISY and (chance >= _SYSTEMATIC_CHANCE or systematic <= tolerance)
    check = SpectrumCheck(measurement, fit, everywhere, residual, ~keep, systematic, chance, drift, valid, ())
    return replace(check, words=_words(check, tolerance, worst is not None and int((~keep).sum()) >= most))


def estimate_noise(measurement: Measurement) -> Noise:
    """Random error at each frequency, for the weights of a fit; outliers are left out of the estimate."""
    return check_spectrum(measurement).noise


def _weighted_fit(
    f: Floats, z: NDArray[np.complex128], inductance: bool, capacitance: bool
) -> tuple[KramersKronigFit, Noise]:
    fit = fit_kramers_kronig(f, z, inductance=inductance, capacitance=capacitance)
    for _ in range(2):
        noise, _ = _local_noise(fit, f)
        fit = fit_kramers_kronig(f, z, sigma=noise.sigma, inductance=inductance, capacitance=capacitance)
    return fit, _local_noise(fit, f)[0]


def _local_noise(fit: KramersKronigFit, frequency: Floats, *, others: bool = False) -> tuple[Noise, Floats]:
    """Noise at `frequency` from the residuals around it, and how many squares each estimate rests on.

    Around each frequency ln σ² = a + b x is fitted to the squared residuals by the likelihood of a χ² variable, x the
    distance in decades and b held back by a normal prior. Each point counts with the freedom the fit has left it.
    others: leave out the point itself.
    """
    x = np.log10(fit.frequency)[np.newaxis, :] - np.log10(frequency)[:, np.newaxis]
    near = np.sort(np.abs(x), axis=1)[:, min(6, x.shape[1] - 1)]
    # Wider where the points stand far apart.
    reach = np.maximum(_REACH, 1.2 * near)[:, np.newaxis]
    weight = np.maximum(0.0, 1.0 - (x / reach) ** 2) ** 2
    if others:
        np.fill_diagonal(weight, 0.0)
    freedom = np.trace(fit.blocks, axis1=1, axis2=2)
    squares = np.maximum(np.abs(fit.residual) ** 2, 1e-30)
    a = np.log(weight @ squares / (weight @ freedom))
    b = np.zeros_like(a)
    for _ in range(50):
        ratio = weight * squares * np.exp(-np.clip(a[:, np.newaxis] + b[:, np.newaxis] * x, -80.0, 80.0))
        down = np.stack(
            [(weight * freedom - ratio).sum(axis=1), ((weight * freedom - ratio) * x).sum(axis=1)]
        )
        down[1] += 2.0 * b / _SLOPE**2
        h00, h01, h11 = (
            ratio.sum(axis=1),
            (ratio * x).sum(axis=1),
            (ratio * x**2).sum(axis=1) + 2.0 / _SLOPE**2,
        )
        determinant = h00 * h11 - h01**2
        step_a, step_b = (
            (h11 * down[0] - h01 * down[1]) / determinant,
            (h00 * down[1] - h01 * down[0]) / determinant,
        )
        a, b = a - np.clip(step_a, -1.0, 1.0), b - np.clip(step_b, -2.0, 2.0)
        if max(np.abs(step_a).max(), np.abs(step_b).max()) < 1e-6:
            break
    m00, m01 = weight @ freedom, (weight * x) @ freedom
    m11 = (weight * x**2) @ freedom + 2.0 / _SLOPE**2
    determinant = m00 * m11 - m01**2
    influence = weight * (m11[:, np.newaxis] - m01[:, np.newaxis] * x) / determinant[:, np.newaxis]
    count = 1.0 / (influence**2 @ freedom)
    sigma = np.maximum(np.exp(0.5 * a), 1e-15)
    low = sigma * np.sqrt(count / stats.chi2.ppf(0.975, count))
    high = sigma * np.sqrt(count / stats.chi2.ppf(0.025, count))
    return Noise(sigma, low, high), count


def _worst_outlier(fit: KramersKronigFit) -> int | None:
    """The point furthest out of what the others say of it, if it is out of the noise; None if none is."""
    others, count = _local_noise(fit, fit.frequency, others=True)
    excess = _squares(fit) / others.sigma**2 / _allowed(fit, count)
    worst = int(np.argmax(excess))
    return worst if excess[worst] > 1.0 else None


def _squares(fit: KramersKronigFit) -> Floats:
    """Squared deviation of each point from what the others predict, in proportion to the prediction's variance."""
    pairs = np.stack([fit.residual.real, fit.residual.imag], axis=1)
    return np.asarray(np.einsum("ni,nij,nj->n", pairs, np.linalg.inv(fit.blocks), pairs))


def _allowed(fit: KramersKronigFit, count: Floats) -> Floats:
    """What `_squares` over the noise may be where that rests on `count` squares."""
    return np.asarray(2.0 * stats.f.isf(_OUTLIER_CHANCE / len(fit.frequency), 2, count))


def _hidden_outlier(fit: KramersKronigFit, inductance: bool, capacitance: bool) -> int | None:
    """A point that hides behind what it does to the fit and to the noise of its neighbours; None if none does.

    Tried are the points furthest from a cubic through their neighbours, each by the ridge and the noise without it.
    """
    f, z = fit.frequency, fit.impedance
    found, largest = None, 1.0
    for k in _roughest(f, z)[:_TRIED]:
        rest = np.delete(np.arange(len(f)), k)
        if len(rest) < FEWEST_POINTS:
            break
        without, _ = _weighted_fit(f[rest], z[rest], inductance, capacitance)
        noise, count = _local_noise(without, f)
        whole = fit_kramers_kronig(
            f, z, sigma=noise.sigma, inductance=inductance, capacitance=capacitance, ridge=without.ridge
        )
        excess = float((_squares(whole) / noise.sigma**2 / _allowed(whole, count))[k])
        if excess > largest:
            found, largest = k, excess
    return found


def _roughest(f: Floats, z: NDArray[np.complex128]) -> list[int]:
    """Points by their relative distance from the cubic through two neighbours on either side, furthest first."""
    x, n = np.log(f), len(f)
    near = np.clip(np.arange(n), 2, n - 3)[:, np.newaxis] + np.array([-2, -1, 0, 1, 2])
    others = np.array([row[row != k] for k, row in enumerate(near)])
    at = x[others]
    weights = np.ones((n, 4))
    for j in range(4):
        for i in range(4):
            if i != j:
                weights[:, j] *= (x - at[:, i]) / (at[:, j] - at[:, i])
    # Ends are extrapolated, which multiplies the noise of the neighbours.
    distance = np.abs(z - (weights * z[others]).sum(axis=1)) / np.abs(z)
    order: list[int] = np.argsort(-distance / np.sqrt(1.0 + (weights**2).sum(axis=1))).tolist()
    return order


def _systematic(fit: KramersKronigFit, noise: Noise, rng: np.random.Generator) -> tuple[float, float]:
    """(size of the residual that neighbours share, chance of it for independent errors seen through the same fit)."""
    n = len(fit.frequency)
    scaled = np.concatenate([fit.residual.real, fit.residual.imag]) / np.tile(noise.sigma, 2)
    rest = np.eye(2 * n) - fit.hat
    draws = rng.standard_normal((_DRAWS, 2 * n)) @ rest.T

    def shared(values: Floats) -> Floats:
        products = values[..., :-1] * values[..., 1:]
        return np.asarray(np.delete(products, n - 1, axis=-1).sum(axis=-1) / (values**2).sum(axis=-1))

    seen, expected = float(shared(scaled)), shared(draws)
    chance = (1.0 + float((expected >= seen).sum())) / (1.0 + _DRAWS)
    excess = max(0.0, seen - float(expected.mean()))
    return math.sqrt(0.5 * excess * float(np.mean(np.abs(fit.residual) ** 2))), chance


def _drift(fit: KramersKronigFit, inductance: bool, capacitance: bool) -> Drift:
    changed = fit_kramers_kronig(
        fit.frequency,
        fit.impedance,
        sigma=fit.sigma,
        inductance=inductance,
        capacitance=capacitance,
        change=True,
    )
    assert changed.change is not None
    assert changed.change_error is not None
    return Drift(changed.change, changed.change_error * max(changed.noise, 1e-15))


def _words(check: SpectrumCheck, tolerance: float, more_outliers: bool) -> tuple[str, ...]:
    f, noise = check.measurement.frequency, check.noise
    quiet, loud = int(np.argmin(noise.sigma)), int(np.argmax(noise.sigma))
    words = [
        f"noise: {noise.level:.2g} of |Z| (root mean square), from {noise.sigma[quiet]:.1g} at {f[quiet]:.3g} Hz to "
        f"{noise.sigma[loud]:.1g} at {f[loud]:.3g} Hz"
    ]
    if not check.valid and (check.chance >= _SYSTEMATIC_CHANCE or check.systematic <= tolerance):
        words.append(f"Kramers-Kronig: cannot be judged where the noise is above {TOO_NOISY:.0%} of |Z|")
    elif not check.valid:
        words.append(
            f"Kramers-Kronig: violated; neighbouring points share a residual of {check.systematic:.2g} of |Z|: the "
            "sample changed, was not linear or not stable, or the sign or the columns are mistaken"
        )
    elif check.chance < _SYSTEMATIC_CHANCE:
        words.append(
            f"Kramers-Kronig: obeyed to {check.systematic:.2g} of |Z|, which neighbouring points share beyond chance"
        )
    else:
        words.append("Kramers-Kronig: obeyed to within the noise")
    if check.outliers.any():
        listed = ", ".join(f"{x:.4g} Hz" for x in f[check.outliers])
        words.append(f"outliers: {listed}" + ("; there may be more" if more_outliers else ""))
    if check.drift.significant:
        words.append(
            f"drift: |Z| changed by {check.drift.change:+.2g} ± {check.drift.standard_error:.1g} of itself over the "
            "measurement, if it was run from high to low frequency"
        )
    inductance, error = check.fit.inductance
    if inductance > 5.0 * error and 2 * np.pi * f[0] * inductance > 0.02 * abs(
        check.measurement.impedance[0]
    ):
        words.append(f"leads: a series inductance of {inductance:.2g} ± {error:.1g} H shows at {f[0]:.3g} Hz")
    return tuple(words)


def plot_residuals(ax: Axes, check: SpectrumCheck) -> Axes:
    """Draw the residuals of Z' and Z'' in per cent of |Z| over frequency, the noise as a band of ±2σ; returns `ax`."""
    f = check.measurement.frequency
    with style():
        band = 200.0 * check.noise.sigma
        ax.fill_between(f, -band, band, color="#bbbbbb", alpha=0.5, lw=0, label="±2σ noise")
        for values, name, colour, marker in (
            (check.residual.real, "Z′", COLOURS[0], "o"),
            (check.residual.imag, "Z″", COLOURS[1], "s"),
        ):
            ax.plot(f, 100.0 * values, ls="", marker=marker, ms=3, color=colour, label=name)
        if check.outliers.any():
            larger = np.where(
                np.abs(check.residual.real) > np.abs(check.residual.imag),
                check.residual.real,
                check.residual.imag,
            )
            out = check.outliers
            ax.plot(f[out], 100.0 * larger[out], ls="", marker="x", ms=7, color="black", label="outlier")
        ax.set_xscale("log")
        ax.set_xlabel("f / Hz")
        ax.set_ylabel("residual / % of |Z|")
        ax.set_title(check.measurement.name + ("" if check.valid else ": not valid"))
        ax.legend()
    return ax
