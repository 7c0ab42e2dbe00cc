"""Mean-square displacements of a trajectory by FFT, in chunks of ions.

For positions r_i(t) with N frames, the sum over all time origins at lag n follows from the autocorrelation of r
(V. Calandrini et al., Collection SFN 12, 201 (2011), doi 10.1051/sfn/201112010):

    MSD(n) = 1/(M (N-n)) Σ_i Σ_t |r_i(t+n) - r_i(t)|² = [S1(n) - 2 S2(n)] / (M (N-n))

with S1 from sums of squares and S2 from the summed power spectra: one forward transform per ion and direction, one
backward per direction. Lengths in Å, times in ps.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.fft
from numpy.typing import NDArray

from atomistic.errors import InputError, TrajectoryError

Floats = NDArray[np.float64]

_CHUNK_BYTES = 48e6


@dataclass(frozen=True)
class MeanSquareDisplacement:
    """MSD by lag: time (n,) ps, tracer (n, 3) Å² per ion and direction, collective (n, 3) Å² of the summed
    displacement divided by the number of ions, ions, frames, frame_interval ps."""

    time: Floats
    tracer: Floats
    collective: Floats
    ions: int
    frames: int
    frame_interval: float


def checked_positions(positions: NDArray[np.floating]) -> NDArray[np.floating]:
    """Unwrapped positions (frames, ions, 3); raises TrajectoryError for another shape or fewer than 8 frames."""
    if positions.ndim != 3 or positions.shape[2] != 3 or positions.shape[1] < 1:
        raise TrajectoryError(f"positions have shape {positions.shape}; give (frames, ions, 3), unwrapped")
    if positions.shape[0] < 8:
        raise TrajectoryError(f"{positions.shape[0]} frames are too few for a diffusivity; give at least 8")
    return positions


def checked_interval(frame_interval: float) -> float:
    """A positive time between frames, ps."""
    if not (np.isfinite(frame_interval) and 0 < frame_interval < 1e9):
        raise InputError("frame_interval", frame_interval, "give the time between frames in ps, above 0")
    return float(frame_interval)


def rotation_to(directions: Sequence[Sequence[float]] | None) -> Floats:
    """Rows of an orthonormal set of directions (3, 3); the Cartesian ones by default."""
    if directions is None:
        return np.eye(3)
    rows: Floats = np.asarray(directions, dtype=float)
    if rows.shape != (3, 3) or not np.allclose(rows @ rows.T, np.eye(3), atol=1e-8):
        raise InputError("directions", directions, "give three orthonormal rows")
    return rows


def framework_drift(framework: NDArray[np.floating], masses: Sequence[float] | None = None) -> Floats:
    """Path (frames, 3) of a framework's centre of mass from its unwrapped positions (frames, atoms, 3)."""
    weights = np.ones(framework.shape[1]) if masses is None else np.asarray(masses, dtype=float)
    path: Floats = np.einsum("tad,a->td", framework, weights / weights.sum())
    drift: Floats = path - path[0]
    return drift


def mean_square_displacement(
    positions: NDArray[np.floating],
    frame_interval: float,
    *,
    drift: Floats | None = None,
    directions: Sequence[Sequence[float]] | None = None,
    max_lag: int | None = None,
) -> MeanSquareDisplacement:
    """Tracer and collective MSD at lags 0 .. max_lag (default: half the frames), by direction.

    `positions` (frames, ions, 3) Å, unwrapped, an array or a memory map of any float type; `frame_interval` ps;
    `drift` (frames, 3) Å is taken off every ion; `directions` (3, 3) orthonormal rows replace x, y, z. Beyond the
    input, needs about 50 MB and a few vectors of the number of frames.

    Raises TrajectoryError for wrong shapes, positions that are not numbers, or jumps of a wrapped trajectory's size.
    """
    positions = checked_positions(positions)
    interval = checked_interval(frame_interval)
    frames, ions, _ = positions.shape
    lags = frames // 2 + 1 if max_lag is None else min(int(max_lag), frames - 1) + 1
    turn = rotation_to(directions)
    length = scipy.fft.next_fast_len(frames + lags, real=True)
    power = np.zeros((3, length // 2 + 1))
    squares = np.zeros((3, frames))
    total = np.zeros((3, frames))
    chunk = max(1, int(_CHUNK_BYTES / (length * 8 * 3 * 4)))
    for start in range(0, ions, chunk):
        part = np.asarray(positions[:, start : start + chunk], dtype=float)
        if drift is not None:
            part = part - np.asarray(drift, dtype=float)[:, None]
        if directions is not None:
            part = part @ turn.T
        series = np.ascontiguousarray(part.transpose(2, 1, 0))
        # A constant does not change the MSD; without it the two large sums cancel to fewer digits.
        series -= series.mean(axis=2, keepdims=True)
        if not np.all(np.isfinite(series)):
            raise TrajectoryError(
                f"positions of ions {start} to {start + part.shape[1] - 1} are not all finite"
            )
        total += series.sum(axis=1)
        squares += np.einsum("dit,dit->dt", series, series)
        for axis in range(3):
            transform = scipy.fft.rfft(series[axis], n=length, axis=-1)
            power[axis] += np.einsum("if,if->f", transform.real, transform.real)
            power[axis] += np.einsum("if,if->f", transform.imag, transform.imag)
    tracer = _from_sums(squares, power, frames, lags, length) / ions
    total_power = np.abs(scipy.fft.rfft(total, n=length, axis=-1)) ** 2
    collective = _from_sums(total**2, total_power, frames, lags, length) / ions
    return MeanSquareDisplacement(np.arange(lags) * interval, tracer.T, collective.T, ions, frames, interval)


def _from_sums(squares: Floats, power: Floats, frames: int, lags: int, length: int) -> Floats:
    correlation = scipy.fft.irfft(power, n=length, axis=-1)[:, :lags]
    below = np.concatenate([np.zeros((3, 1)), np.cumsum(squares, axis=1)], axis=1)
    n = np.arange(lags)
    sums = below[:, frames - n] + (below[:, -1:] - below[:, n])
    msd: Floats = np.maximum(sums - 2 * correlation, 0.0) / (frames - n)
    msd[:, 0] = 0.0
    return msd


@functools.lru_cache(maxsize=4096)
def _common_steps_squared(n: int, m: int, steps: int) -> float:
    """Σ c² of the common steps c of all windows of n and of m >= n steps."""
    windows = steps - m + 1
    total = windows * (m - n + 1) * float(n) ** 2
    q = min(n - 1, windows - 1)
    if q >= 1:
        k = np.arange(1, q + 1, dtype=float)
        total += 2.0 * float(np.sum((n - k) ** 2 * (windows - k)))
    return total


def window_covariance(first: int, second: int, steps: int, step_variance: float, noise: float = 0.0) -> float:
    """Covariance of the MSDs at two lags, over all windows of one path of `steps` steps in one direction.

    The path is Brownian with the variance `step_variance` per step, each position with independent Gaussian noise of
    variance `noise`: two windows' displacements covary by C_ij = step_variance · (common steps), plus `noise` for every
    common end and minus it where one ends as the other starts; the MSDs' covariance is 2 Σ_ij C_ij² / (K_1 K_2), K the
    numbers of windows.
    """
    n, m = sorted((first, second))
    small, large = steps - n + 1, steps - m + 1
    total = _common_steps_squared(n, m, steps) * step_variance**2
    if noise > 0:
        common = step_variance * n
        ends = 2 if n == m else 1
        # Equal starts and equal ends; for one and the same lag these are the same pairs of windows.
        total += (2 if n != m else 1) * large * ((common + ends * noise) ** 2 - common**2)
        touching = max(steps - n - m + 1, 0)
        total += 2 * touching * noise**2
    return 2.0 * total / (float(small) * float(large))
