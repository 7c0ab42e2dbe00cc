"""Diffusivities along and across a boundary, region by region, with ions that cross from one region to the next.

Regions are layers of the height z over the boundary plane, periodic with the cell. No window is thrown away or
assigned to the region where it starts.

Along: given where an ion was, its squared displacement in a direction along the layers has the mean

    E[Δx²] = 2 Σ_r D_r T_r + Σ_r c_r (s_r + e_r)/2

with T_r the time it spent in region r and s_r, e_r whether it started, ended there. D_r and c_r (vibration) follow from
a regression over windows of three lengths; crossings are no error here, they are what the times T_r are for.

Across: the motion in z is taken as diffusion with D_r and the measured mean density in each region (Smoluchowski), on
bins finer than a step; its propagator over a lag gives the likelihood of all observed transitions, maximised over
ln D_r by its exact slope (G. Hummer, New J. Phys. 7, 34 (2005), doi 10.1088/1367-2630/7/1/034). The variance that
binning and vibration add to a displacement is taken off.

Both covariances are sandwiches over blocks of time, all ions of a block together: correlated ions widen them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from atomistic.diffusivity import (
    ANGSTROM2_PER_PS,
    LI_SITE_DISTANCE,
    DiffusionWarning,
    Diffusivity,
    linear_start_time,
    no_jumps_warning,
)
from atomistic.displacements import checked_interval, checked_positions, mean_square_displacement
from atomistic.errors import InputError, TrajectoryError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

Layers = Mapping[str, Sequence[tuple[float, float]]]

_BLOCKS = 30
_LEAST_WINDOWS = 16
_MOST_BINS = 320
_BINS_PER_STEP = 4.0
_MOST_GRIDS = 3
_FLOOR = 1e-14
_LARGEST_SLOPE = 1e-4
"""Of the mean ln P by ln D: what a search that found the maximum may leave."""


@dataclass(frozen=True)
class RegionalDiffusivity:
    """Of one region: along (both in-plane directions), across, and the share of the ions' time spent in it."""

    name: str
    along: Diffusivity
    across: Diffusivity
    time_share: float


@dataclass(frozen=True)
class _Map:
    """Which region a height belongs to: sorted edges of one period and the region of each interval."""

    names: list[str]
    edges: Floats
    region: Ints
    height: float

    def of(self, z: Floats) -> Ints:
        folded = np.mod(z, self.height)
        return self.region[np.searchsorted(self.edges, folded, side="right") - 1]


def _layer_map(regions: Layers, height: float) -> _Map:
    if not (math.isfinite(height) and height > 0):
        raise InputError("height", height, "give the cell's height in Å")
    if len(regions) < 1:
        raise InputError(
            "regions", list(regions), "name at least one region with its layers (low, high) in Å"
        )
    names = list(regions)
    pieces: list[tuple[float, float, int]] = []
    for k, name in enumerate(names):
        for low, high in regions[name]:
            a = float(low) % height
            thickness = float(high) - float(low)
            if not (0 < thickness <= height * (1 + 1e-9)):
                raise InputError(f"regions.{name}", (low, high), f"low to high, at most {height:g} Å thick")
            b = a + thickness
            if b <= height * (1 + 1e-12):
                pieces.append((a, min(b, height), k))
            else:
                pieces += [(a, height, k), (0.0, b - height, k)]
    pieces.sort()
    tolerance = 1e-6 * height
    reached = 0.0
    for a, b, k in pieces:
        if abs(a - reached) > tolerance:
            what = "overlap" if a < reached else "leave a gap"
            raise InputError(
                f"regions.{names[k]}", (a, b), f"layers {what} at {reached:g} Å; cover each height once"
            )
        reached = b
    if abs(reached - height) > tolerance:
        raise InputError("regions", reached, f"cover the heights from 0 to {height:g} Å")
    return _Map(
        names, np.array([p[0] for p in pieces]), np.array([p[2] for p in pieces], dtype=np.int64), height
    )


def regional_diffusivity(
    positions: NDArray[np.floating],
    frame_interval: float,
    regions: Layers,
    height: float,
    *,
    drift: Floats | None = None,
    directions: Sequence[Sequence[float]] | None = None,
    start_time: float | None = None,
    site_distance: float = LI_SITE_DISTANCE,
) -> dict[str, RegionalDiffusivity]:
    """Tracer diffusivities along and across the layers of each region.

    `positions` (frames, ions, 3) Å, unwrapped; `frame_interval` ps; `regions` layers (low, high) in Å of the third of
    `directions` (default x, y, z), every height of the period `height` (Å, the cell's height along the normal) in
    exactly one; a layer may pass the period's end. `drift` (frames, 3) Å of the framework. `start_time` ps: the
    shortest window (default: where the MSD of all ions becomes straight).

    Raises InputError for regions that overlap or leave gaps, TrajectoryError for too short a run or an empty region.
    """
    positions = checked_positions(positions)
    interval = checked_interval(frame_interval)
    layers = _layer_map(regions, float(height))
    turn = np.eye(3) if directions is None else np.asarray(directions, dtype=float)
    msd = mean_square_displacement(positions, interval, drift=drift, directions=directions)
    warnings = no_jumps_warning(msd, site_distance)
    if start_time is None:
        # Across the layers the displacement never is straight: the slower region ends it.
        start_time, more = linear_start_time(
            positions, interval, drift=drift, directions=directions, columns=(0, 1)
        )
        warnings += more
    lag = max(1, math.ceil(start_time / interval - 1e-9))
    frames = positions.shape[0]
    if (frames - 1) // lag < _LEAST_WINDOWS:
        raise TrajectoryError(
            f"windows of {lag * interval:g} ps fit {(frames - 1) // lag} times in the run, {_LEAST_WINDOWS} are "
            "needed; run longer or start earlier"
        )
    moved = np.asarray(positions, dtype=float)
    if drift is not None:
        moved = moved - np.asarray(drift, dtype=float)[:, None]
    if directions is not None:
        moved = moved @ turn.T
    inside = layers.of(moved[..., 2])
    share = np.bincount(inside.ravel(), minlength=len(layers.names)) / inside.size
    for name, part in zip(layers.names, share, strict=True):
        if part * inside.size < 50:
            raise TrajectoryError(f"region {name!r} was hardly ever visited; choose wider layers")
    along, vibration, along_covariance, freedom = _along(moved, inside, len(layers.names), lag, interval)
    across, across_covariance, across_freedom = _across(
        moved[..., 2], layers, lag, interval, vibration, np.diag(along_covariance)[len(layers.names) :]
    )
    start = lag * interval
    result = {}
    for k, name in enumerate(layers.names):
        result[name] = RegionalDiffusivity(
            name,
            _diffusivity(along[k], along_covariance[k, k], freedom, start, vibration[k], 2, warnings),
            _diffusivity(
                across[k], across_covariance[k, k], across_freedom, start, vibration[k], 1, warnings
            ),
            float(share[k]),
        )
    return result


def _diffusivity(
    value: float, variance: float, freedom: float, start: float, intercept: float, directions: int,
    warnings: Sequence[DiffusionWarning],
) -> Diffusivity:  # fmt: skip
    half = float(stats.t.ppf(0.975, freedom)) * math.sqrt(max(variance, 0.0))
    if value <= 0:
        low, high, log_variance = 0.0, max(value + half, 0.0), math.inf
    else:
        log_variance = variance / value**2
        factor = math.exp(min(half / value, 500.0))
        low, high = value / factor, value * factor
    scale = ANGSTROM2_PER_PS
    return Diffusivity(
        value * scale, low * scale, high * scale, log_variance, freedom, start, float(intercept), directions,
        tuple(warnings),
    )  # fmt: skip


def _along(
    moved: Floats, inside: Ints, regions: int, lag: int, interval: float
) -> tuple[Floats, Floats, Floats, float]:
    """D (regions,) Å²/ps, vibration c (regions,) Å² per direction, their covariance, and its degrees of freedom."""
    frames, ions = inside.shape
    lengths = [m * lag for m in (1, 2, 4) if (frames - 1) // (m * lag) >= _LEAST_WINDOWS // 2]
    blocks = min(_BLOCKS, (frames - 1) // lengths[-1])
    features, targets, block_of = [], [], []
    for length in lengths:
        starts = np.arange(0, frames - length, length)
        windows = len(starts)
        ends = starts + length
        rows = np.empty((windows, ions, 2 * regions))
        for r in range(regions):
            here = (inside == r).astype(float)
            passed = np.concatenate([np.zeros((1, ions)), np.cumsum(0.5 * (here[1:] + here[:-1]), axis=0)])
            rows[..., r] = 2 * (passed[ends] - passed[starts]) * interval
            rows[..., regions + r] = 0.5 * (here[starts] + here[ends])
        square = 0.5 * np.sum((moved[ends, :, :2] - moved[starts, :, :2]) ** 2, axis=2)
        features.append(rows.reshape(-1, 2 * regions))
        targets.append(square.ravel())
        block_of.append(np.repeat(np.minimum(starts * blocks // (frames - 1), blocks - 1), ions))
    design, target, block = np.vstack(features), np.concatenate(targets), np.concatenate(block_of)
    expected = design[:, :regions].sum(1)
    theta = np.zeros(2 * regions)
    for _ in range(4):
        weight = 1 / np.maximum(expected, 1e-12) ** 2
        normal = (design * weight[:, None]).T @ design
        inverse = np.linalg.pinv(normal, rcond=1e-12, hermitian=True)
        theta = inverse @ ((design * weight[:, None]).T @ target)
        fitted = design @ theta
        expected = np.maximum(fitted, 0.05 * float(np.mean(fitted)))
    residual = (target - design @ theta) * weight
    scores = np.array(
        [np.bincount(block, residual * design[:, k], minlength=blocks) for k in range(2 * regions)]
    )
    covariance = inverse @ (scores @ scores.T) @ inverse * blocks / max(blocks - 2, 1)
    return theta[:regions], theta[regions:], covariance, float(max(blocks - 2, 1))


def _bins(layers: _Map, width: float) -> tuple[Floats, Ints]:
    """Edges of bins (k+1,) over one period, those of the layers among them, and the region of each bin."""
    edges, region = [], []
    bounds = np.append(layers.edges, layers.height)
    for k in range(len(layers.edges)):
        count = max(2, math.ceil((bounds[k + 1] - bounds[k]) / width))
        edges += list(np.linspace(bounds[k], bounds[k + 1], count + 1)[:-1])
        region += [int(layers.region[k])] * count
    return np.append(edges, layers.height), np.array(region, dtype=np.int64)


@dataclass(frozen=True)
class _Layered:
    """Diffusion on periodic bins: edges (k+1,) Å, the region of each bin, its density, and the lag in ps."""

    edges: Floats
    region: Ints
    density: Floats
    time: float

    def propagator(self, log_d: Floats) -> _Propagator:
        """P(i → j) (k, k) over the lag, with equilibrium weights density·width."""
        width = np.diff(self.edges)
        k = len(width)
        after = np.roll(np.arange(k), -1)
        # Two half bins in series, so that an interface between regions is exact for a steady current.
        half = 0.5 * width / (np.exp(log_d)[self.region] * self.density)
        conductance = 1 / (half + half[after])
        weight = self.density * width
        root = np.sqrt(weight)
        symmetric = np.zeros((k, k))
        np.add.at(symmetric, (np.arange(k), after), conductance / (root * root[after]))
        np.add.at(symmetric, (after, np.arange(k)), conductance / (root * root[after]))
        symmetric -= np.diag((conductance + np.roll(conductance, 1)) / weight)
        values, vectors = np.linalg.eigh(symmetric)
        decay = np.exp(np.minimum(values, 0.0) * self.time)
        exponential = (vectors * decay) @ vectors.T
        # Below the floor rounding decides; such a transition pulls D nowhere.
        exponential[exponential * (root / root[:, None]) < _FLOOR] = 0.0
        gap = values[:, None] - values
        near = np.abs(gap) * self.time < 1e-7
        divided = np.where(
            near,
            0.5 * self.time * (decay[:, None] + decay),
            (decay[:, None] - decay) / np.where(near, 1.0, gap),
        )
        return _Propagator(
            exponential, root, vectors, divided, after, conductance**2 * half, conductance**2 * half[after]
        )


@dataclass(frozen=True)
class _Propagator:
    """exp(S t) of the symmetric generator S, and what its derivative by each ln D needs.

    With S = V Λ Vᵀ the derivative of exp(S t) is V (F ∘ Vᵀ dS V) Vᵀ, where F_ij = (e^(λ_i t) − e^(λ_j t))/(λ_i − λ_j)
    (`divided`). before, behind: d(conductance k)/d(ln D) of the bins k and k + 1 that it joins.
    """

    exponential: Floats
    root: Floats
    vectors: Floats
    divided: Floats
    after: Ints
    before: Floats
    behind: Floats

    def logarithm(self) -> Floats:
        """ln P(i → j) (k, k)."""
        scaled = self.exponential * (self.root / self.root[:, None])
        logarithm: Floats = np.log(np.maximum(scaled, _FLOOR))
        return logarithm

    def slope(self, counts: Floats, region: Ints) -> Floats:
        """d(Σ counts·ln P)/d(ln D) (regions,)."""
        known = self.exponential > 0
        share = np.where(known, counts / np.where(known, self.exponential, 1.0), 0.0)
        inner = self.vectors.T @ share @ self.vectors
        outer = self.vectors @ (self.divided * inner) @ self.vectors.T
        k = np.arange(len(self.root))
        root, after = self.root, self.after
        by_conductance = (
            (outer[k, after] + outer[after, k]) / (root * root[after])
            - outer[k, k] / root**2
            - outer[after, after] / root[after] ** 2
        )
        number = int(region.max()) + 1
        found = np.zeros(number)
        np.add.at(found, region, by_conductance * self.before)
        np.add.at(found, region[after], by_conductance * self.behind)
        return found


def _across(
    z: Floats,
    layers: _Map,
    lag: int,
    interval: float,
    vibration: Floats,
    vibration_variance: Floats,
) -> tuple[Floats, Floats, float]:
    """D (regions,) Å²/ps across the layers, its covariance, and the degrees of freedom."""
    time = lag * interval
    starts = np.arange(0, len(z) - lag, lag)
    squares = (z[starts + lag] - z[starts]) ** 2
    inside = layers.of(z[starts])
    guess = np.array([float(squares[inside == r].mean()) for r in range(len(layers.names))]) / (2 * time)
    if guess.max() <= 0:
        guess = np.full(len(layers.names), 1e-12)
    guess = np.maximum(guess, 1e-3 * guess.max())
    for _ in range(_MOST_GRIDS):
        step = math.sqrt(2 * float(guess.min()) * time)
        width = max(step / _BINS_PER_STEP, layers.height / _MOST_BINS)
        optimum, covariance, freedom, bin_width = _most_likely(z, layers, lag, time, width, np.log(guess))
        d = np.exp(optimum)
        finer = math.sqrt(2 * float(d.min()) * time) / _BINS_PER_STEP
        if width <= 1.5 * max(finer, layers.height / _MOST_BINS):
            break
        # The ions of a slow region stay within bins as wide as a fast one's steps: count again, finer.
        guess = np.maximum(d, 1e-3 * d.max())
    corrected = d - bin_width**2 / (12 * time) - vibration / (2 * time)
    covariance = covariance * np.outer(d, d) + np.diag(vibration_variance) / (4 * time**2)
    return corrected, covariance, freedom


def _most_likely(
    z: Floats, layers: _Map, lag: int, time: float, width: float, start: Floats
) -> tuple[Floats, Floats, float, Floats]:
    """ln D (regions,) of greatest likelihood on bins of this width, covariance, degrees of freedom, bin widths.

    Raises TrajectoryError when the search ends short of the maximum.
    """
    frames, ions = z.shape
    edges, region = _bins(layers, width)
    folded = np.mod(z, layers.height)
    bin_of = np.minimum(np.searchsorted(edges, folded, side="right") - 1, len(region) - 1)
    widths = np.diff(edges)
    population = np.bincount(region[bin_of.ravel()]).astype(float)
    # One density a region: the layers of the crystal within it belong to what its D has averaged over.
    density = (population / np.bincount(region, widths))[region]
    density /= density.mean()
    blocks = min(_BLOCKS, (frames - 1) // (2 * lag))
    starts = np.arange(0, frames - lag, lag)
    block = np.minimum(starts * blocks // (frames - 1), blocks - 1)
    counts = np.zeros((blocks, len(region), len(region)))
    np.add.at(counts, (np.repeat(block, ions), bin_of[starts].ravel(), bin_of[starts + lag].ravel()), 1.0)
    total = counts.sum(0)
    number = len(layers.names)
    diffusion = _Layered(edges, region, density, time)

    def loss(log_d: Floats) -> tuple[float, Floats]:
        propagator = diffusion.propagator(log_d)
        value = -float(np.sum(total * propagator.logarithm())) / total.sum()
        return value, -propagator.slope(total, region) / total.sum()

    low, high = start - 12, start + 6
    found = optimize.minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=list(zip(low, high, strict=True)),
        options={"ftol": 1e-13, "gtol": 1e-7, "maxiter": 500},
    )  # fmt: skip
    optimum = np.asarray(found.x, dtype=float)
    free = (optimum > low) & (optimum < high)
    if np.any(np.abs(np.asarray(found.jac))[free] > _LARGEST_SLOPE):
        raise TrajectoryError(
            "D across the layers: the search of the greatest likelihood ended short of it "
            f"({found.message}); choose wider layers or a longer start_time"
        )
    at = diffusion.propagator(optimum)
    scores = np.array([at.slope(part, region) for part in counts]).T
    delta = 0.01
    hessian = np.array(
        [
            (loss(optimum + shift)[1] - loss(optimum - shift)[1]) / (2 * delta)
            for shift in np.eye(number) * delta
        ]
    )
    inverse = np.linalg.pinv(0.5 * (hessian + hessian.T) * total.sum(), hermitian=True)
    centred = scores - scores.mean(1, keepdims=True)
    covariance = inverse @ (centred @ centred.T) @ inverse * blocks / max(blocks - 1, 1)
    bin_width = np.array([float(widths[region == r].mean()) for r in range(number)])
    return optimum, covariance, float(max(blocks - 1, 1)), bin_width
