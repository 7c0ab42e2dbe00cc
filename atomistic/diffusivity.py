"""Diffusivities from trajectories with intervals that hold: tracer, collective, Haven ratio.

D is the slope of the mean-square displacement in its linear part, by generalised least squares with an intercept:

    MSD(t) = 2 d D t + c,   cov[MSD(n), MSD(m)] = κ · 2 Σ_ij C_ij² / (K_n K_m) / M

The covariance between lags is that of overlapping windows of a Brownian path with noise (vibration) on its positions
(H. Qian, M. P. Sheetz and E. L. Elson, Biophys. J. 60, 910 (1991), doi 10.1016/S0006-3495(91)82125-7), in the spirit of
kinisi (A. R. McCluskey et al., J. Chem. Theory Comput. 21, 79 (2025), doi 10.1021/acs.jctc.4c01249). Its scale κ is
measured: from the scatter of the ions' mean square displacement over non-overlapping windows, so that ions that move
together, or unequally, widen the interval as they should; Student's t accounts for the number of windows.

Lengths in Å and times in ps go in, m²/s come out.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from atomistic.displacements import (
    MeanSquareDisplacement,
    checked_interval,
    checked_positions,
    mean_square_displacement,
    rotation_to,
    window_covariance,
)
from atomistic.errors import InputError, TrajectoryError

Floats = NDArray[np.float64]

ANGSTROM2_PER_PS = 1e-8
"""Å²/ps in m²/s."""
LI_SITE_DISTANCE = 2.0
"""Å; a jump between neighbouring Li sites (garnet 24d-96h 1.6 to 2.3 Å, perovskite A-A about 4 Å)."""

_LEVEL = 0.95
_LAG_FACTOR = math.sqrt(2.0)
_SPAN = 16
_MIN_WINDOWS = 4
_REJECTION = 0.05
_MARGIN = 2.5


@dataclass(frozen=True)
class DiffusionWarning:
    """Something that makes a diffusivity doubtful: `code` for programs, `message` for people."""

    code: str
    message: str


@dataclass(frozen=True)
class Diffusivity:
    """A diffusivity and its 95 % interval.

    value, low, high: m²/s (value may be negative where nothing moved: the interval then starts at 0); log_variance: of
    ln value, for fits over temperature (inf where value is not positive); degrees_of_freedom: of the interval;
    start_time: where the linear part begins, ps; intercept: Å²; directions: how many; warnings.
    """

    value: float
    low: float
    high: float
    log_variance: float
    degrees_of_freedom: float
    start_time: float
    intercept: float
    directions: int
    warnings: tuple[DiffusionWarning, ...] = ()


@dataclass(frozen=True)
class TransportResult:
    """Diffusivities of one species in one run (or several, combined).

    tracer: over all directions; by_direction: along each; collective: of the summed displacement (Einstein), over all;
    haven_ratio = D_tracer/D_collective with its 95 % interval; msd: of the (first) run.
    """

    tracer: Diffusivity
    by_direction: tuple[Diffusivity, Diffusivity, Diffusivity]
    collective: Diffusivity
    haven_ratio: float
    haven_low: float
    haven_high: float
    msd: MeanSquareDisplacement
    warnings: tuple[DiffusionWarning, ...]


def _lags(start: int, last: int) -> list[int]:
    values: list[int] = []
    x = float(start)
    while round(x) <= last:
        if not values or round(x) > values[-1]:
            values.append(round(x))
        x *= _LAG_FACTOR
    return values


def _covariance(lags: Sequence[int], steps: int, slope: float, intercept: float) -> Floats:
    """Covariance of the MSDs of one path in one direction that has this slope (per step) and intercept."""
    n = len(lags)
    matrix = np.empty((n, n))
    for a in range(n):
        for b in range(a, n):
            matrix[a, b] = window_covariance(lags[a], lags[b], steps, slope, max(intercept, 0.0) / 2)
            matrix[b, a] = matrix[a, b]
    return matrix


@dataclass(frozen=True)
class _Fit:
    slope: float
    variance: float
    intercept: float
    chi2: float
    points: int
    lags: list[int]


def _straight(lags: Sequence[int], values: Floats, steps: int, independent: float) -> _Fit:
    """Generalised least squares of MSD = slope·n + intercept; `independent` Gaussian series of equal variance."""
    n = np.asarray(lags, dtype=float)
    largest = float(np.max(values))
    if largest < 1e-20:
        return _Fit(0.0, 0.0, 0.0, 0.0, len(n), list(lags))
    # In units of the largest value the matrices are well scaled for any material.
    values = values / largest
    design = np.column_stack([n, np.ones_like(n)])
    slope, intercept = float(np.max(values / n)), 0.0
    for _ in range(3):
        covariance = _covariance(lags, steps, max(slope, 1e-3 / float(n[-1])), intercept) / independent
        inverse = np.linalg.pinv(covariance, rcond=1e-12, hermitian=True)
        normal = design.T @ inverse @ design
        slope, intercept = (float(z) for z in np.linalg.solve(normal, design.T @ inverse @ values))
    residual = values - design @ [slope, intercept]
    variance = float(np.linalg.inv(normal)[0, 0])
    return _Fit(
        float(slope) * largest, variance * largest**2, float(intercept) * largest,
        float(residual @ inverse @ residual), len(n), list(lags),
    )  # fmt: skip


def _block_factor(
    positions: NDArray[np.floating], drift: Floats | None, turn: Floats, lag: int
) -> tuple[Floats, int]:
    """Mean-square displacement of the ions in each non-overlapping window (windows, 3) Å², and the windows' number."""
    taken = np.asarray(positions[::lag], dtype=float)
    if drift is not None:
        taken = taken - np.asarray(drift, dtype=float)[::lag][:, None]
    steps = np.diff(taken, axis=0) @ turn.T
    squares: Floats = np.mean(steps**2, axis=1)
    return squares, len(squares)


def _start_lag(
    msd: MeanSquareDisplacement, blocks: _Blocks, start_time: float | None, columns: Sequence[int]
) -> tuple[int, list[DiffusionWarning]]:
    """The lag from which the MSD is straight: as given, or found by testing the fit's χ² from ever later lags.

    Where early lags are rejected, the first accepted one still bends by about its own uncertainty: a margin follows.
    """
    frames = msd.frames
    last_start = max(1, (frames - 1) // _MIN_WINDOWS)
    if start_time is not None:
        lag = max(1, math.ceil(start_time / msd.frame_interval - 1e-9))
        if lag > last_start:
            raise TrajectoryError(
                f"a start of {start_time:g} ps leaves fewer than {_MIN_WINDOWS} windows in "
                f"{frames * msd.frame_interval:g} ps; run longer or start earlier"
            )
        return lag, []
    values = msd.tracer[:, list(columns)].sum(1)
    lag = 1
    while True:
        lags = _lags(lag, min(_SPAN * lag, (frames - 1) // 2, len(values) - 1))
        if len(lags) >= 4:
            kappa, _ = blocks.inflation(lag, columns)
            independent = msd.ions * len(columns) / kappa
            fit = _straight(lags, values[lags], frames - 1, independent)
            if fit.slope > 0 and stats.chi2.sf(fit.chi2, len(lags) - 2) > _REJECTION:
                return (lag if lag == 1 else min(round(_MARGIN * lag), last_start)), []
        following = max(lag + 1, round(lag * _LAG_FACTOR))
        if following > last_start or following * 2 > len(values) - 1:
            break
        lag = following
    return max(1, last_start // 4), [
        DiffusionWarning(
            "not_linear",
            "the mean-square displacement is nowhere straight; the run is too short for a diffusivity",
        )
    ]


class _Blocks:
    """Scatter of the ions' mean square displacement over windows, by window length."""

    def __init__(self, positions: NDArray[np.floating], drift: Floats | None, turn: Floats) -> None:
        self._positions, self._drift, self._turn = positions, drift, turn
        self._known: dict[int, tuple[Floats, int]] = {}

    def inflation(self, lag: int, columns: Sequence[int]) -> tuple[float, float]:
        """κ, the variance relative to that of independent Gaussian ions, and the degrees of freedom behind it."""
        if lag not in self._known:
            self._known[lag] = _block_factor(self._positions, self._drift, self._turn, lag)
        squares, windows = self._known[lag]
        chosen = squares[:, list(columns)]
        mean = chosen.mean(0)
        expected = float(np.sum(2 * mean**2)) / self._positions.shape[1]
        if windows < 2 or expected <= 0:
            return 1.0, 1.0
        summed = chosen.sum(1)
        variance = float(np.var(summed, ddof=1))
        # A scatter's own scatter grows with the kurtosis of what scatters; for a normal one it is 2/(n-1).
        kurtosis = float(stats.kurtosis(summed, bias=True)) if windows > 3 and variance > 0 else 0.0
        freedom = 2 * (windows - 1) / max(2 + kurtosis * (windows - 1) / windows, 0.5)
        return max(variance / expected, 1e-3), max(freedom, 1.0)


def _interval(slope: float, variance: float, freedom: float) -> tuple[float, float, float]:
    """95 % limits of a positive slope, log-normal with Student's t, and the variance of its logarithm."""
    if slope <= 0:
        return 0.0, max(slope + stats.t.ppf(0.5 + _LEVEL / 2, freedom) * math.sqrt(variance), 0.0), math.inf
    log_variance = variance / slope**2
    half = float(stats.t.ppf(0.5 + _LEVEL / 2, freedom)) * math.sqrt(log_variance)
    return slope * math.exp(-min(half, 700.0)), slope * math.exp(min(half, 500.0)), log_variance


def _tracer(
    msd: MeanSquareDisplacement,
    blocks: _Blocks,
    lag: int,
    columns: Sequence[int],
    warnings: Sequence[DiffusionWarning],
) -> Diffusivity:
    values = msd.tracer[:, list(columns)].sum(1)
    lags = _lags(lag, min(_SPAN * lag, (msd.frames - 1) // 2, len(values) - 1))
    if len(lags) < 3:
        raise TrajectoryError(f"only {len(lags)} lags lie between {lag} frames and half the run; run longer")
    kappa, freedom = blocks.inflation(lag, columns)
    squares = msd.tracer[lag, list(columns)]
    # Directions of unequal diffusivity count as fewer: (Σv)²/Σv² of them.
    effective = float(squares.sum() ** 2 / max(np.sum(squares**2), 1e-300))
    fit = _straight(lags, values[lags], msd.frames - 1, msd.ions * effective / kappa)
    scale = ANGSTROM2_PER_PS / (2 * len(columns) * msd.frame_interval)
    low, high, log_variance = _interval(fit.slope, fit.variance, freedom)
    return Diffusivity(
        fit.slope * scale, low * scale, high * scale, log_variance, freedom, lag * msd.frame_interval, fit.intercept,
        len(columns), tuple(warnings),
    )  # fmt: skip


def _collective(msd: MeanSquareDisplacement, lag: int, warnings: Sequence[DiffusionWarning]) -> Diffusivity:
    """The summed displacement is one Gaussian path: its covariance is known, the interval that of a scaled χ²."""
    values = msd.collective.sum(1)
    lags = _lags(lag, min(_SPAN * lag, (msd.frames - 1) // 2, len(values) - 1))
    squares = msd.collective[lag]
    effective = float(squares.sum() ** 2 / max(np.sum(squares**2), 1e-300))
    fit = _straight(lags, values[lags], msd.frames - 1, effective)
    scale = ANGSTROM2_PER_PS / (6 * msd.frame_interval)
    if fit.slope <= 0:
        low, high, log_variance = _interval(fit.slope, fit.variance, 10.0)
        freedom = 1.0
    else:
        freedom = 2 * fit.slope**2 / fit.variance
        low = fit.slope * freedom / float(stats.chi2.ppf(0.5 + _LEVEL / 2, freedom))
        high = fit.slope * freedom / max(float(stats.chi2.ppf(0.5 - _LEVEL / 2, freedom)), 1e-300)
        log_variance = fit.variance / fit.slope**2
    return Diffusivity(
        fit.slope * scale, low * scale, high * scale, log_variance, freedom, lag * msd.frame_interval, fit.intercept,
        3, tuple(warnings),
    )  # fmt: skip


def diffusivity(
    positions: NDArray[np.floating],
    frame_interval: float,
    *,
    drift: Floats | None = None,
    directions: Sequence[Sequence[float]] | None = None,
    start_time: float | None = None,
    site_distance: float = LI_SITE_DISTANCE,
) -> TransportResult:
    """Tracer and collective diffusivity and Haven ratio of one species in one run.

    `positions` (frames, ions, 3) Å, unwrapped; `frame_interval` ps; `drift` (frames, 3) Å of the framework;
    `directions` (3, 3) orthonormal rows, for instance two along and one across a boundary; `start_time` ps of the
    linear part (default: 2.5 times the first from which a straight line is not rejected at 5 %); `site_distance` Å:
    ions that have moved less in half the run raise the warning "no_jumps".

    Raises TrajectoryError for a trajectory that is too short or damaged, InputError for wrong arguments.
    """
    positions = checked_positions(positions)
    checked_interval(frame_interval)
    turn = rotation_to(directions)
    msd = mean_square_displacement(positions, frame_interval, drift=drift, directions=directions)
    blocks = _Blocks(positions, drift, turn)
    warnings = list(no_jumps_warning(msd, site_distance))
    lag, more = _start_lag(msd, blocks, start_time, (0, 1, 2))
    warnings += more
    tracer = _tracer(msd, blocks, lag, (0, 1, 2), warnings)
    by_direction = (
        _tracer(msd, blocks, lag, (0,), warnings),
        _tracer(msd, blocks, lag, (1,), warnings),
        _tracer(msd, blocks, lag, (2,), warnings),
    )
    collective = _collective(msd, lag, warnings)
    haven, low, high = _ratio(tracer, collective)
    return TransportResult(tracer, by_direction, collective, haven, low, high, msd, tuple(warnings))


def linear_start_time(
    positions: NDArray[np.floating],
    frame_interval: float,
    *,
    drift: Floats | None = None,
    directions: Sequence[Sequence[float]] | None = None,
    columns: Sequence[int] = (0, 1, 2),
) -> tuple[float, tuple[DiffusionWarning, ...]]:
    """Time (ps) from which the mean-square displacement along some of the directions is straight; warnings if never."""
    positions = checked_positions(positions)
    turn = rotation_to(directions)
    msd = mean_square_displacement(positions, frame_interval, drift=drift, directions=directions)
    lag, warnings = _start_lag(msd, _Blocks(positions, drift, turn), None, columns)
    return lag * msd.frame_interval, tuple(warnings)


def no_jumps_warning(msd: MeanSquareDisplacement, site_distance: float) -> tuple[DiffusionWarning, ...]:
    """A warning "no_jumps" when the ions have moved less than a site distance (Å, rms) in half the run."""
    if not (0 < site_distance < 100):
        raise InputError("site_distance", site_distance, "give Å, above 0")
    furthest = float(msd.tracer[-1].sum())
    if furthest >= site_distance**2:
        return ()
    return (
        DiffusionWarning(
            "no_jumps",
            f"ions have moved {math.sqrt(furthest):.2f} Å (rms) in {msd.time[-1]:g} ps, less than a site distance "
            f"of {site_distance:g} Å: this is vibration, not diffusion",
        ),
    )


def _ratio(tracer: Diffusivity, collective: Diffusivity) -> tuple[float, float, float]:
    if tracer.value <= 0 or collective.value <= 0:
        return math.nan, 0.0, math.inf
    ratio = tracer.value / collective.value
    up = math.hypot(math.log(tracer.high / tracer.value), math.log(collective.value / collective.low))
    down = math.hypot(math.log(tracer.value / tracer.low), math.log(collective.high / collective.value))
    return ratio, ratio * math.exp(-min(down, 700)), ratio * math.exp(min(up, 500))


def combine(results: Sequence[Diffusivity]) -> Diffusivity:
    """One diffusivity from independent runs, with the scatter between them.

    Random effects on ln D (R. DerSimonian and N. Laird, Control. Clin. Trials 7, 177 (1986)): runs are weighted by
    1/(v_i + τ²), τ² the variance between runs; the interval is that of Hartung and Knapp, not narrower than the one
    within runs. Runs with no positive D cannot be combined so: they raise TrajectoryError. One run returns as it is.
    """
    if not results:
        raise InputError("results", len(results), "give at least one run")
    if len(results) == 1:
        return results[0]
    if any(r.value <= 0 or not math.isfinite(r.log_variance) for r in results):
        raise TrajectoryError("a run shows no diffusion (D <= 0); run longer or leave the temperature out")
    y = np.log([r.value for r in results])
    within = np.array([max(r.log_variance, 1e-300) for r in results])
    w = 1 / within
    mean = float(np.sum(w * y) / w.sum())
    heterogeneity = float(np.sum(w * (y - mean) ** 2))
    spread = float(w.sum() - np.sum(w**2) / w.sum())
    between = max(0.0, (heterogeneity - (len(y) - 1)) / spread)
    w = 1 / (within + between)
    mean = float(np.sum(w * y) / w.sum())
    plain = 1 / float(w.sum())
    knapp = float(np.sum(w * (y - mean) ** 2)) / (len(y) - 1) * plain
    freedom = len(y) - 1.0
    inner = sum(r.degrees_of_freedom for r in results)
    half = max(
        float(stats.t.ppf(0.5 + _LEVEL / 2, freedom)) * math.sqrt(knapp),
        float(stats.t.ppf(0.5 + _LEVEL / 2, inner)) * math.sqrt(plain),
    )
    warnings = tuple(dict.fromkeys(w for r in results for w in r.warnings))
    first = results[0]
    value = math.exp(mean)
    return Diffusivity(
        value, value * math.exp(-half), value * math.exp(half), max(plain, knapp), freedom if between else inner,
        max(r.start_time for r in results), float(np.mean([r.intercept for r in results])), first.directions, warnings,
    )  # fmt: skip
