"""Distribution of relaxation times: which processes a spectrum holds, without a circuit.

    Z(ω) = R_∞ + iωL + 1/(iωC) + ∫ γ(ln τ)/(1 + iωτ) d ln τ ,   γ ≥ 0

γ is piecewise linear in ln τ. It minimises Σ|Z_model − Z|²/s² + λ m ∫(d²γ/d(ln τ)²)² d ln τ / R², R the range of Z',
over non-negative γ, R_∞, L, 1/C; λ is the largest one whose fits predict left-out frequencies as well as the best one's
to within a standard error. The band is that of posterior samples by randomise-then-optimise, each with the λ that a
bootstrap of the left-out frequencies would choose: the chosen one smooths, and a band at it alone would be too narrow
by what that hides. Sources: T. H. Wan,
M. Saccoccio, C. Chen & F. Ciucci, Electrochim. Acta 184, 483 (2015); J. M. Bardsley, A. Solonen, H. Haario & M. Laine,
SIAM J. Sci. Comput. 36, A1895 (2014).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.linalg import cholesky, solve_triangular
from scipy.ndimage import uniform_filter1d
from scipy.optimize import nnls
from scipy.signal import find_peaks

from mesoion.errors import ConvergenceError, InputError

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]

REGULARISATIONS = np.logspace(-10, 0, 21)
"""λ tried by the cross-validation."""
BEYOND_WINDOW = 10.0
"""Factor by which the relaxation times reach beyond those of the highest and lowest frequency."""
SMALLEST_PEAK = 0.02
"""Prominence of a peak relative to the highest one, below which it is not named."""
FEWEST_POINTS = 10


@dataclass(frozen=True)
class Peak:
    """One maximum of the distribution: τ [s], its resistance [ohm] with 95 % interval, C = τ/R [F].

    The resistance is that between the minima on either side, first and last [s], inside the measured window.
    """

    relaxation_time: float
    resistance: float
    low: float
    high: float
    first: float
    last: float

    @property
    def frequency(self) -> float:
        """1/(2πτ) [Hz]."""
        return 1.0 / (2.0 * math.pi * self.relaxation_time)

    @property
    def capacitance(self) -> float:
        """τ/R [F]."""
        return self.relaxation_time / self.resistance


@dataclass(frozen=True)
class RelaxationTimes:
    """γ (n,) [ohm] at τ (n,) [s], rising, with its 95 % band; what is in series; how it was found.

    inverse_capacitance [1/F] and inductance [H] are zero where the data show none. cross_validation: λ tried and the
    mean squared relative error of prediction of each (empty where λ was given). peaks: inside the measured window.
    """

    tau: Floats
    distribution: Floats
    low: Floats
    high: Floats
    series_resistance: float
    inductance: float
    inverse_capacitance: float
    regularisation: float
    cross_validation: tuple[Floats, Floats]
    noise: float
    frequency: Floats
    model: Complexes
    peaks: tuple[Peak, ...]

    def resistance_between(self, first: float, last: float) -> float:
        """∫ γ d ln τ from `first` to `last` [s], in ohm."""
        return float(_weights(self.tau, first, last) @ self.distribution)


def zarc_distribution(tau: ArrayLike, resistance: float, relaxation_time: float, exponent: float) -> Floats:
    """γ(ln τ) [ohm] of R/(1 + (iωτ₀)^n), 0 < n < 1, at τ of any shape [s]; its integral over ln τ is R.

    γ = (R/2π) sin((1−n)π) / (cosh(n ln(τ/τ₀)) − cos((1−n)π)). Source: K. S. Cole & R. H. Cole, J. Chem. Phys. 9, 341
    (1941). Raises InputError for n outside (0, 1).
    """
    if not 0.0 < exponent < 1.0:
        raise InputError("exponent", exponent, "between 0 and 1; at 1 the distribution is a single time")
    x = exponent * np.log(np.asarray(tau, float) / relaxation_time)
    angle = (1.0 - exponent) * math.pi
    return np.asarray(resistance / (2 * math.pi) * math.sin(angle) / (np.cosh(x) - math.cos(angle)))


def kernel(frequency: Floats, tau: Floats) -> Complexes:
    """∫ h_k(ln τ)/(1 + iωτ) d ln τ (m, n) for the hat functions h_k on the nodes `tau` (n,), by Gauss's rule."""
    nodes, weights = np.polynomial.legendre.leggauss(6)
    share = 0.5 * (nodes + 1.0)
    x = np.log(tau)
    width = np.diff(x)
    omega = 2 * np.pi * np.asarray(frequency, float)
    inside = np.exp(x[:-1, None] + width[:, None] * share)
    value = 0.5 * weights * width[:, None] / (1.0 + 1j * omega[:, None, None] * inside)
    matrix = np.zeros((len(omega), len(tau)), complex)
    matrix[:, :-1] += np.sum(value * (1.0 - share), axis=2)
    matrix[:, 1:] += np.sum(value * share, axis=2)
    return matrix


def _weights(tau: Floats, first: float, last: float) -> Floats:
    """Weights (n,) of the node values in ∫ γ d ln τ between two times inside the grid, γ piecewise linear."""
    x = np.log(tau)
    a, b = np.clip(np.log([first, last]), x[0], x[-1])
    weights = np.zeros(len(x))
    for k in range(len(x) - 1):
        lo, hi = max(a, x[k]), min(b, x[k + 1])
        if hi > lo:
            middle = (0.5 * (lo + hi) - x[k]) / (x[k + 1] - x[k])
            weights[k] += (hi - lo) * (1.0 - middle)
            weights[k + 1] += (hi - lo) * middle
    return weights


class _Inversion:
    """The linear problem in the unknowns (R_∞, L, 1/C, γ), each scaled to order one."""

    def __init__(
        self, f: Floats, z: Complexes, deviation: Floats, per_decade: int, coils: bool, blocks: bool
    ) -> None:
        omega = 2 * np.pi * f
        first, last = 1.0 / (omega.max() * BEYOND_WINDOW), BEYOND_WINDOW / omega.min()
        count = math.ceil(per_decade * math.log10(last / first)) + 1
        self.tau = np.geomspace(first, last, count)
        self.range = float(np.ptp(z.real)) or float(np.abs(z).max())
        size = float(np.abs(z).min())
        self.scales = np.array([size, size / omega.max(), float(np.abs(z).max()) * omega.min()])
        series = np.stack([np.ones_like(omega) + 0j, 1j * omega * coils, blocks / (1j * omega)], axis=1)
        matrix = np.concatenate([series * self.scales, kernel(f, self.tau) * self.range], axis=1)
        weighted, b = matrix / deviation[:, None], z / deviation
        self.points = len(f)
        self.rows = np.stack([weighted.real, weighted.imag], axis=1)
        self.data = np.stack([b.real, b.imag], axis=1)
        self.matrix = matrix
        h = float(np.log(self.tau[1] / self.tau[0]))
        bend = (
            np.eye(count - 2, count) - 2 * np.eye(count - 2, count, 1) + np.eye(count - 2, count, 2)
        ) / h**2
        self.bend = np.concatenate([np.zeros((count - 2, 3)), bend * math.sqrt(h)], axis=1)

    def normal(self, keep: NDArray[np.int64]) -> tuple[Floats, Floats]:
        """AᵀA and Aᵀb of the frequencies kept."""
        a, b = self.rows[keep].reshape(-1, self.rows.shape[2]), self.data[keep].ravel()
        return a.T @ a, a.T @ b

    def penalty(self, regularisation: float, points: int) -> Floats:
        """√(λm) D (rows of the penalty)."""
        return np.asarray(math.sqrt(regularisation * points) * self.bend)

    def solve(self, normal: tuple[Floats, Floats], rows: Floats, target: Floats | None = None) -> Floats:
        """The non-negative minimum of |Ax − b|² + |rows x − target|²."""
        square = normal[0] + rows.T @ rows
        right = normal[1] if target is None else normal[1] + rows.T @ target
        square = square + np.eye(len(square)) * (1e-13 * np.trace(square) / len(square))
        upper = cholesky(square)
        try:
            found, _ = nnls(upper, solve_triangular(upper, right, trans="T"), maxiter=60 * len(right))
        except RuntimeError as error:
            raise ConvergenceError(
                f"the distribution of relaxation times was not found ({error}); give a larger regularisation",
                at=f"{self.points} frequencies",
            ) from None
        return np.asarray(found)


def relaxation_times(
    frequency: ArrayLike,
    impedance: ArrayLike,
    *,
    deviation: ArrayLike | None = None,
    regularisation: float | None = None,
    per_decade: int = 10,
    folds: int = 5,
    draws: int = 100,
    inductance: bool = True,
    capacitance: bool = True,
    seed: int = 0,
) -> RelaxationTimes:
    """The distribution of relaxation times of a spectrum.

    frequency (m,) [Hz], impedance (m,) [ohm]. deviation: standard deviation of Z' and Z'' [ohm], (m,) or one number;
    proportional to |Z| unless given (its size is found from the misfit either way). regularisation: λ, found by
    `folds`-fold cross-validation over interleaved frequencies unless given, when the band is at this λ alone. draws:
    samples of the band. inductance,
    capacitance: allow what is in series. Raises InputError for fewer than 10 points or impossible values,
    ConvergenceError where the minimum is not found.
    """
    f, z = np.asarray(frequency, float), np.asarray(impedance, complex)
    if f.ndim != 1 or f.shape != z.shape or f.size < FEWEST_POINTS:
        raise InputError(
            "spectrum", f"{f.shape} and {z.shape}", f"at least {FEWEST_POINTS} points are expected"
        )
    if not (np.isfinite(f).all() and (f > 0).all() and np.isfinite(z).all() and (z != 0).all()):
        raise InputError("spectrum", "a point", "frequencies above zero, finite impedances other than zero")
    if folds < 2 or draws < 2 or not 2 <= per_decade <= 100:
        raise InputError(
            "folds, draws, per_decade", (folds, draws, per_decade), "at least 2 of each; 100 per decade"
        )
    if regularisation is not None and not (math.isfinite(regularisation) and regularisation > 0):
        raise InputError("regularisation", regularisation, "a finite number above zero")
    size = np.abs(z) if deviation is None else np.broadcast_to(np.asarray(deviation, float), f.shape)
    problem = _Inversion(f, z, size, per_decade, inductance, capacitance)
    rng = np.random.default_rng(seed)
    tried, errors = np.zeros(0), np.zeros(0)
    if regularisation is None:
        tried, by_point = _cross_validated(problem, folds)
        regularisation, errors = _simplest(tried, by_point), 0.5 * by_point.mean(axis=1)
        of_draws = _bootstrapped(tried, by_point, draws, rng)
    else:
        of_draws = np.full(draws, regularisation)
    rows = problem.penalty(regularisation, problem.points)
    normal = problem.normal(np.arange(problem.points))
    best = problem.solve(normal, rows)
    noise = _noise(problem, normal, rows, best)
    samples = _samples(problem, normal, of_draws, rng)
    gamma = best[3:] * problem.range
    drawn = samples[:, 3:] * problem.range
    low, high = np.quantile(drawn, [0.025, 0.975], axis=0)
    r_inf, coil, elastance = best[:3] * problem.scales
    return RelaxationTimes(
        tau=problem.tau,
        distribution=gamma,
        low=np.minimum(low, gamma),
        high=np.maximum(high, gamma),
        series_resistance=float(r_inf),
        inductance=float(coil) if inductance else 0.0,
        inverse_capacitance=float(elastance) if capacitance else 0.0,
        regularisation=regularisation,
        cross_validation=(tried, errors),
        noise=noise,
        frequency=f,
        model=np.asarray(problem.matrix @ best),
        peaks=_peaks(problem.tau, gamma, drawn, f),
    )


def _cross_validated(problem: _Inversion, folds: int) -> tuple[Floats, Floats]:
    """(λ (l,), squared weighted errors (l, m − 2) of frequencies left out), over interleaved folds."""
    everything = np.arange(problem.points)
    errors = np.zeros((len(REGULARISATIONS), problem.points))
    for fold in range(folds):
        # The ends stay in: predicting beyond the window is not what is asked.
        out = everything[(everything % folds == fold) & (everything > 0) & (everything < problem.points - 1)]
        keep = np.setdiff1d(everything, out)
        normal = problem.normal(keep)
        for index, value in enumerate(REGULARISATIONS):
            x = problem.solve(normal, problem.penalty(float(value), len(keep)))
            errors[index, out] = np.sum((problem.rows[out] @ x - problem.data[out]) ** 2, axis=1)
    return REGULARISATIONS.copy(), errors[:, 1:-1]


def _simplest(tried: Floats, errors: Floats) -> float:
    """The largest λ whose error exceeds the smallest one's by no more than a standard error, point by point."""
    best = int(np.argmin(errors.mean(axis=1)))
    for index in range(len(tried) - 1, best, -1):
        excess = errors[index] - errors[best]
        if excess.mean() <= excess.std(ddof=1) / math.sqrt(len(excess)):
            return float(tried[index])
    return float(tried[best])


def _noise(problem: _Inversion, normal: tuple[Floats, Floats], rows: Floats, best: Floats) -> float:
    """Standard deviation of the weighted data: misfit over what the unknowns in use leave of them."""
    used = best > 0
    square = normal[0][np.ix_(used, used)]
    penal = rows[:, used]
    both = square + penal.T @ penal + np.eye(len(square)) * 1e-13 * np.trace(square) / max(len(square), 1)
    effective = float(np.trace(np.linalg.solve(both, square)))
    misfit = float(np.sum((problem.rows @ best - problem.data) ** 2))
    return math.sqrt(misfit / max(2 * problem.points - effective, 1.0))


def _bootstrapped(tried: Floats, errors: Floats, draws: int, rng: np.random.Generator) -> Floats:
    """λ (draws,) of least error over frequencies drawn with replacement from those left out."""
    points = errors.shape[1]
    chosen = [int(np.argmin(errors[:, rng.integers(points, size=points)].sum(axis=1))) for _ in range(draws)]
    return np.asarray(tried[chosen])


def _samples(
    problem: _Inversion, normal: tuple[Floats, Floats], regularisations: Floats, rng: np.random.Generator
) -> Floats:
    """Posterior samples (draws, 3 + n), one a λ: data and smoothness perturbed by their deviations, solved again."""
    a = problem.rows.reshape(-1, problem.rows.shape[2])
    found = np.zeros((len(regularisations), a.shape[1]))
    known: dict[float, tuple[Floats, float]] = {}
    for k, value in enumerate(regularisations.tolist()):
        if value not in known:
            rows = problem.penalty(value, problem.points)
            known[value] = rows, _noise(problem, normal, rows, problem.solve(normal, rows))
        rows, noise = known[value]
        kicked = (normal[0], normal[1] + a.T @ (noise * rng.normal(size=len(a))))
        found[k] = problem.solve(kicked, rows, noise * rng.normal(size=len(rows)))
    return found


def _parted(tau: Floats, tops: NDArray[np.int64], gamma: Floats, drawn: Floats) -> NDArray[np.int64]:
    """The maxima (indices) whose minimum between is one in 97.5 % of the samples; of a doubtful pair the higher stays.

    A sample of little smoothness breaks a peak into spikes; what it says of a time is the mean of half a decade.
    """
    kept = tops.tolist()
    reach = max(1, round(0.25 * math.log(10) / math.log(tau[1] / tau[0])))
    drawn = uniform_filter1d(drawn, 2 * reach + 1, axis=1)
    while len(kept) > 1:
        depths = []
        for a, b in pairwise(kept):
            valley = a + int(np.argmin(gamma[a : b + 1]))
            depths.append(float(np.quantile(drawn[:, [a, b]].min(axis=1) - drawn[:, valley], 0.025)))
        worst = int(np.argmin(depths))
        if depths[worst] > 0:
            break
        pair = kept[worst : worst + 2]
        kept.remove(min(pair, key=lambda top: gamma[top]))
    return np.array(kept, dtype=np.int64)


def _peaks(tau: Floats, gamma: Floats, drawn: Floats, f: Floats) -> tuple[Peak, ...]:
    """Maxima inside the measured window, each with the resistance between its neighbouring minima."""
    highest = float(gamma.max(initial=0.0))
    if highest <= 0.0:
        return ()
    padded = np.concatenate([[0.0], gamma, [0.0]])
    # Beyond, the distribution cannot be told from what is in series, and a sum over it means nothing.
    edges = 0.5 / (2 * np.pi * f.max()), 2.0 / (2 * np.pi * f.min())
    window = (tau >= edges[0]) & (tau <= edges[1])
    inside = float(gamma[window].max(initial=0.0))
    tops, _ = find_peaks(padded, prominence=SMALLEST_PEAK * inside)
    tops = tops - 1
    # What rises beyond the window cuts the last peak, but is too little known to take its place.
    parted = _parted(tau, tops[window[tops]], gamma, drawn)
    tops = np.sort(np.concatenate([parted, tops[~window[tops]]]))
    cuts = [
        0,
        *(int(a + np.argmin(gamma[a : b + 1])) for a, b in pairwise(tops)),
        len(tau) - 1,
    ]
    found = []
    for k, top in enumerate(tops):
        if not window[top]:
            continue
        first, last = np.clip(tau[[cuts[k], cuts[k + 1]]], *edges).tolist()
        weights = _weights(tau, first, last)
        resistance = float(weights @ gamma)
        low, high = np.quantile(drawn @ weights, [0.025, 0.975])
        found.append(
            Peak(
                float(tau[top]),
                resistance,
                min(float(low), resistance),
                max(float(high), resistance),
                first,
                last,
            )
        )
    return tuple(found)
