"""Diffusivities against random walks of known D: intervals that hold, by direction, region and temperature."""

from __future__ import annotations

import math
import time
import tracemalloc
from collections.abc import Callable

import numba
import numpy as np
import pytest
from scipy import stats

from atomistic.arrhenius_fit import BOLTZMANN_EV, fit_arrhenius
from atomistic.diffusivity import ANGSTROM2_PER_PS, Diffusivity, combine, diffusivity
from atomistic.displacements import framework_drift, mean_square_displacement, window_covariance
from atomistic.errors import InputError, TrajectoryError
from atomistic.regional_diffusivity import _Layered, _Propagator, regional_diffusivity

Walk = tuple[np.ndarray, np.ndarray, np.ndarray, float]
FRAMES, IONS, STEP = 1000, 20, 0.5


def isotropic(rng: np.random.Generator) -> Walk:
    d = np.full(3, 0.05)
    return np.cumsum(rng.normal(size=(FRAMES, IONS, 3)) * np.sqrt(2 * d * STEP), axis=0), d, d, STEP


def anisotropic(rng: np.random.Generator) -> Walk:
    d = np.array([0.02, 0.05, 0.2])
    return np.cumsum(rng.normal(size=(FRAMES, IONS, 3)) * np.sqrt(2 * d * STEP), axis=0), d, d, STEP


def together(rng: np.random.Generator) -> Walk:
    """Ions that share a part of every step: the summed displacement diffuses faster than they do."""
    d, share = np.full(3, 0.05), 0.05
    own, common = rng.normal(size=(FRAMES, IONS, 3)), rng.normal(size=(FRAMES, 1, 3))
    steps = (math.sqrt(1 - share) * own + math.sqrt(share) * common) * np.sqrt(2 * d * STEP)
    return np.cumsum(steps, axis=0), d, d * (1 + (IONS - 1) * share), STEP


def vibrating(rng: np.random.Generator) -> Walk:
    x, d, c, step = isotropic(rng)
    return x + 0.3 * rng.normal(size=x.shape), d, c, step


def jumping_back(rng: np.random.Generator) -> Walk:
    """Jumps of 2 Å that reverse with probability 0.7: D is a²Γ/2 times the correlation factor (1+g)/(1-g)."""
    jump, rate, g = 2.0, 0.2, -0.4
    jumps = rng.random((FRAMES, IONS, 3)) < rate
    turns = np.where(jumps & (rng.random((FRAMES, IONS, 3)) < (1 - g) / 2), -1.0, 1.0)
    direction = np.cumprod(turns, axis=0) * rng.choice([-1.0, 1.0], size=(1, IONS, 3))
    d = np.full(3, jump**2 * rate / STEP * (1 + g) / (1 - g) / 2)
    return np.cumsum(jumps * direction * jump, axis=0), d, d, STEP


WALKS: dict[str, Callable[[np.random.Generator], Walk]] = {
    "isotropic": isotropic,
    "anisotropic": anisotropic,
    "together": together,
    "vibrating": vibrating,
    "jumping back": jumping_back,
}


def layered(
    rng: np.random.Generator, frames: int, ions: int, along: tuple[float, float], across: tuple[float, float],
    density: float = 1.0,
) -> np.ndarray:  # fmt: skip
    """Two layers, 0-14 and 14-20 Å; hops on a fine grid in z with detailed balance, Gaussian steps in the plane."""
    grid, height = 0.125, 20.0
    n = round(height / grid)
    region = ((np.arange(n) + 0.5) * grid > 14.0).astype(np.int64)
    d, weight = np.array(across)[region], np.where(region == 1, density, 1.0)
    current = 1 / (0.5 / (d * weight) + 0.5 / np.roll(d * weight, -1)) / grid**2
    right, left = current / weight, np.roll(current, 1) / weight
    substeps = math.ceil((right + left).max() / 0.5)
    site = rng.choice(n, size=ions, p=weight / weight.sum()).astype(np.int64)
    variance = 2 * np.array(along)[region] / substeps
    heights, spread = _hops(site, right / substeps, left / substeps, variance, substeps, frames, rng)
    path = np.empty((frames, ions, 3))
    # Within a frame only the variance that the sites visited add up to matters in the plane.
    path[..., :2] = np.cumsum(rng.normal(size=(frames, ions, 2)) * np.sqrt(spread)[..., None], axis=0)
    path[..., 2] = (heights + 0.5) * grid + (rng.random((frames, ions)) - 0.5) * grid
    return path


@numba.njit  # type: ignore[misc]
def _hops(
    site: np.ndarray, right: np.ndarray, left: np.ndarray, variance: np.ndarray, substeps: int, frames: int,
    rng: np.random.Generator,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Sites (frames, ions) of a hopping chain, and the in-plane variance gathered since the frame before."""
    n = len(right)
    heights = np.empty((frames, len(site)), dtype=np.int64)
    spread = np.zeros((frames, len(site)))
    for t in range(frames):
        for i in range(len(site)):
            heights[t, i] = site[i]
        if t == frames - 1:
            break
        for _ in range(substeps):
            for i in range(len(site)):
                here = site[i] % n
                spread[t + 1, i] += variance[here]
                u = rng.random()
                if u < right[here]:
                    site[i] += 1
                elif u < right[here] + left[here]:
                    site[i] -= 1
    return heights, spread


def holds(estimate: Diffusivity, d: float) -> bool:
    return bool(estimate.low <= d * ANGSTROM2_PER_PS <= estimate.high)


def assert_coverage(hits: int, trials: int, name: str) -> None:
    """Inside what a true coverage of 93 to 97 % gives with probability 99.9 %."""
    low, high = stats.binom.ppf(0.0005, trials, 0.93), stats.binom.ppf(0.9995, trials, 0.97)
    assert low <= hits <= high, f"{name}: {hits} of {trials}"


# --- mean-square displacement -------------------------------------------------------------------------------------


def test_msd_equals_the_direct_sum_over_all_windows() -> None:
    rng = np.random.default_rng(0)
    x = np.cumsum(rng.normal(size=(157, 7, 3)), axis=0) + 1e3
    msd = mean_square_displacement(x, 0.25)
    total = x.sum(axis=1)
    for lag in (1, 2, 5, 31, 78):
        direct = np.mean((x[lag:] - x[:-lag]) ** 2, axis=(0, 1))
        np.testing.assert_allclose(msd.tracer[lag], direct, rtol=1e-10, atol=0)
        direct = np.mean((total[lag:] - total[:-lag]) ** 2, axis=0) / 7
        np.testing.assert_allclose(msd.collective[lag], direct, rtol=1e-10, atol=0)
    np.testing.assert_allclose(msd.time, np.arange(79) * 0.25, rtol=1e-12, atol=0)


def test_msd_follows_turned_directions_and_drift() -> None:
    rng = np.random.default_rng(1)
    x = np.cumsum(rng.normal(size=(200, 5, 3)) * [1.0, 2.0, 3.0], axis=0)
    turned = mean_square_displacement(x, 1.0, directions=[[0, 0, 1], [1, 0, 0], [0, 1, 0]])
    plain = mean_square_displacement(x, 1.0)
    np.testing.assert_allclose(turned.tracer, plain.tracer[:, [2, 0, 1]], rtol=1e-10, atol=0)
    wander = np.cumsum(rng.normal(size=(200, 1, 3)), axis=0)
    drift = framework_drift(np.repeat(wander, 3, axis=1))
    freed = mean_square_displacement(x + wander, 1.0, drift=drift)
    np.testing.assert_allclose(freed.tracer[1:], plain.tracer[1:], rtol=1e-9, atol=0)


def test_msd_needs_less_memory_than_the_trajectory() -> None:
    x = np.random.default_rng(0).normal(size=(20_000, 200, 3)).astype(np.float32)
    whole = mean_square_displacement(x[:, :3], 1.0)
    tracemalloc.start()
    try:
        mean_square_displacement(x, 1.0)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < x.nbytes
    assert whole.tracer.shape == (10_001, 3)


@pytest.mark.slow
def test_msd_takes_a_tenth_of_kinisis_time() -> None:
    """On 2e4 frames of 100 ions, with kinisi's own function on 100 of its lags only (its default is all of them)."""
    scipp = pytest.importorskip("scipp")
    from types import SimpleNamespace

    from kinisi.displacement import calculate_msd

    frames, ions = 20_000, 100
    x = np.cumsum(np.random.default_rng(0).normal(size=(frames, ions, 3)), axis=0)
    start = time.perf_counter()
    own = mean_square_displacement(x, 1.0)
    ours = time.perf_counter() - start
    stand_in = SimpleNamespace(time_step=scipp.scalar(1.0, unit="ps"), step_skip=scipp.scalar(1))
    stand_in.displacements = scipp.array(
        dims=["obs", "particle", "dimension"], values=x[1:] - x[0], unit="angstrom"
    )
    stand_in.dimensionality = scipp.scalar(3.0)
    lags = np.unique(np.geomspace(1, frames - 2, 100).astype(int))
    stand_in.dt_index = scipp.array(dims=["time interval"], values=lags)
    stand_in.dt = stand_in.dt_index.to(dtype="float64") * stand_in.time_step
    start = time.perf_counter()
    theirs_msd = calculate_msd(stand_in, progress=False)["da"]
    theirs = time.perf_counter() - start
    for k in (0, 20, 40):
        lag = int(stand_in.dt_index.values[k])
        np.testing.assert_allclose(own.tracer[lag].sum(), theirs_msd.values[k], rtol=1e-8, atol=0)
    assert ours < theirs / 10


@pytest.mark.parametrize("noise", [0.0, 2.0])
def test_covariance_of_overlapping_windows_is_that_of_sampled_paths(noise: float) -> None:
    rng = np.random.default_rng(5)
    steps, trials = 60, 20_000
    x = np.concatenate([np.zeros((1, trials)), np.cumsum(rng.normal(size=(steps, trials)), axis=0)])
    x += math.sqrt(noise) * rng.normal(size=x.shape)
    msds = {n: np.mean((x[n:] - x[:-n]) ** 2, axis=0) for n in (1, 3, 10, 40)}
    for n, m in ((1, 1), (1, 3), (3, 3), (3, 10), (10, 40), (40, 40)):
        expected = window_covariance(n, m, steps, 1.0, noise)
        np.testing.assert_allclose(np.cov(msds[n], msds[m])[0, 1], expected, rtol=0.08, atol=0)


# --- intervals ----------------------------------------------------------------------------------------------------


def coverage(name: str, trials: int) -> tuple[dict[str, int], float]:
    hits = {"tracer": 0, "x": 0, "y": 0, "z": 0, "collective": 0}
    ratio = 0.0
    for seed in range(trials):
        x, d, collective, step = WALKS[name](np.random.default_rng([seed, 77]))
        result = diffusivity(x, step, site_distance=0.5)
        hits["tracer"] += holds(result.tracer, d.mean())
        for axis, key in enumerate("xyz"):
            hits[key] += holds(result.by_direction[axis], d[axis])
        hits["collective"] += holds(result.collective, collective.mean())
        ratio += result.tracer.value / (d.mean() * ANGSTROM2_PER_PS) / trials
    return hits, ratio


@pytest.mark.parametrize("name", list(WALKS))
def test_intervals_hold_the_known_diffusivity(name: str) -> None:
    trials = 60
    hits, ratio = coverage(name, trials)
    for key, count in hits.items():
        low = stats.binom.ppf(0.0005, trials, 0.93)
        assert count >= low, f"{name} {key}: {count} of {trials}"
    assert abs(ratio - 1) < 0.03


@pytest.mark.slow
@pytest.mark.parametrize("name", list(WALKS))
def test_intervals_hold_in_93_to_97_percent_of_500_walks(name: str) -> None:
    hits, _ = coverage(name, 500)
    assert_coverage(hits["tracer"], 500, name)
    assert 0.93 * 500 <= hits["tracer"] <= 0.97 * 500


def test_haven_ratio_of_ions_that_move_together() -> None:
    inside = 0
    for seed in range(40):
        x, d, collective, step = together(np.random.default_rng([seed, 5]))
        result = diffusivity(x, step, site_distance=0.5)
        inside += result.haven_low <= d.mean() / collective.mean() <= result.haven_high
        assert result.haven_high < 1.0
    assert inside >= stats.binom.ppf(0.0005, 40, 0.93)


def test_ions_moving_together_widen_the_interval() -> None:
    alone = diffusivity(isotropic(np.random.default_rng(0))[0], STEP)
    common = np.cumsum(np.random.default_rng(1).normal(size=(FRAMES, 1, 3)) * math.sqrt(0.05), axis=0)
    jointly = diffusivity(np.repeat(common, IONS, axis=1), STEP)
    np.testing.assert_allclose(
        jointly.tracer.log_variance / alone.tracer.log_variance, IONS, rtol=0.4, atol=0
    )


def test_runs_are_combined_with_the_scatter_between_them() -> None:
    hits_equal = hits_scattered = 0
    trials = 25
    for seed in range(trials):
        rng = np.random.default_rng([seed, 9])
        runs, scattered = [], []
        for _ in range(5):
            x = np.cumsum(rng.normal(size=(300, 10, 3)) * math.sqrt(0.05), axis=0)
            runs.append(diffusivity(x, STEP, start_time=STEP).tracer)
            factor = math.exp(0.3 * rng.normal())
            scattered.append(diffusivity(x * math.sqrt(factor), STEP, start_time=STEP).tracer)
        hits_equal += holds(combine(runs), 0.05)
        hits_scattered += holds(combine(scattered), 0.05)
    low = stats.binom.ppf(0.0005, trials, 0.93)
    assert hits_equal >= low
    assert hits_scattered >= low
    assert combine(runs).log_variance < min(r.log_variance for r in runs)
    assert combine(runs[:1]) is runs[0]


def test_vibration_is_not_called_diffusion() -> None:
    rng = np.random.default_rng(0)
    result = diffusivity(0.2 * rng.normal(size=(500, 10, 3)), 0.1)
    codes = {w.code for w in result.warnings}
    assert "no_jumps" in codes
    assert result.tracer.low * 1.0 <= 1e-12
    assert "no_jumps" in {w.code for w in result.tracer.warnings}
    moving = diffusivity(isotropic(rng)[0], STEP)
    assert moving.warnings == ()


@pytest.mark.parametrize(
    ("positions", "interval", "options", "error", "word"),
    [
        (np.zeros((5, 3, 3)), 1.0, {}, TrajectoryError, "too few"),
        (np.zeros((50, 3)), 1.0, {}, TrajectoryError, "shape"),
        (np.full((50, 3, 3), np.nan), 1.0, {}, TrajectoryError, "not all finite"),
        (np.ones((50, 3, 3)), 0.0, {}, InputError, "frame_interval"),
        (np.ones((50, 3, 3)), 1.0, {"directions": np.ones((3, 3))}, InputError, "orthonormal"),
        (np.ones((50, 3, 3)), 1.0, {"start_time": 45.0}, TrajectoryError, "windows"),
        (np.ones((50, 3, 3)), 1.0, {"site_distance": -1.0}, InputError, "site_distance"),
    ],
)
def test_damaged_trajectories_are_refused(
    positions: np.ndarray, interval: float, options: dict[str, object], error: type[Exception], word: str
) -> None:
    with pytest.raises(error, match=word):
        diffusivity(positions, interval, **options)  # type: ignore[arg-type]


def test_ions_at_rest_have_no_diffusivity() -> None:
    result = diffusivity(np.ones((100, 4, 3)), 1.0)
    assert result.tracer.value <= 0
    assert result.tracer.low == 0.0
    assert "no_jumps" in {w.code for w in result.warnings}


# --- regions ------------------------------------------------------------------------------------------------------

LAYERS = {"bulk": [(0.0, 14.0)], "boundary": [(14.0, 20.0)]}


def regional_coverage(trials: int, frames: int, ions: int, density: float) -> tuple[np.ndarray, np.ndarray]:
    along, across = (0.5, 0.15), (0.4, 0.1)
    truth = np.array([along[0], along[1], across[0], across[1]])
    hits, ratios = np.zeros(4, dtype=int), np.zeros(4)
    for seed in range(trials):
        x = layered(np.random.default_rng([seed, 3]), frames, ions, along, across, density)
        found = regional_diffusivity(x, 1.0, LAYERS, 20.0)
        estimates = [found[r].along for r in LAYERS] + [found[r].across for r in LAYERS]
        hits += [holds(e, d) for e, d in zip(estimates, truth, strict=True)]
        ratios += [e.value / (d * ANGSTROM2_PER_PS) / trials for e, d in zip(estimates, truth, strict=True)]
    return hits, ratios


def test_layers_are_told_apart_through_crossings() -> None:
    hits, ratios = regional_coverage(5, 400, 30, 1.0)
    assert hits.min() >= stats.binom.ppf(0.0005, 5, 0.93)
    np.testing.assert_allclose(ratios, 1, rtol=0.12, atol=0)


def test_a_layer_with_fewer_ions_is_no_less_right() -> None:
    hits, ratios = regional_coverage(5, 400, 40, 0.4)
    assert hits.min() >= stats.binom.ppf(0.0005, 5, 0.93)
    np.testing.assert_allclose(ratios, 1, rtol=0.2, atol=0)


@pytest.mark.parametrize(
    ("along", "across"),
    [
        ((0.02, 0.02), (0.4, 0.1)),
        ((0.01, 0.3), (0.4, 0.1)),
        ((0.005, 0.005), (0.5, 0.5)),
        ((0.3, 0.3), (0.05, 0.3)),
    ],
)
def test_across_is_found_however_far_from_along(
    along: tuple[float, float], across: tuple[float, float]
) -> None:
    ratios = np.zeros(2)
    for seed in range(3):
        x = layered(np.random.default_rng([seed, 9]), 600, 30, along, across)
        found = regional_diffusivity(x, 1.0, LAYERS, 20.0)
        for k, (name, d) in enumerate(zip(LAYERS, across, strict=True)):
            ratios[k] += found[name].across.value / (d * ANGSTROM2_PER_PS) / 3
    np.testing.assert_allclose(ratios, 1, rtol=0.12, atol=0)


def test_slope_of_the_likelihood_is_that_of_its_differences() -> None:
    rng = np.random.default_rng(5)
    region = np.repeat([0, 1, 2, 0], [7, 5, 4, 3])
    edges = np.concatenate([[0.0], np.cumsum(rng.uniform(0.2, 0.4, len(region)))])
    layers = _Layered(edges, region, rng.uniform(0.5, 2.0, 3)[region], 1.5)
    counts, at = rng.uniform(0, 5, (len(region), len(region))), np.log([0.3, 0.05, 0.8])

    def likelihood(log_d: np.ndarray) -> float:
        return float(np.sum(counts * layers.propagator(log_d).logarithm()))

    shifts = 1e-5 * np.eye(3)
    differences = [(likelihood(at + h) - likelihood(at - h)) / 2e-5 for h in shifts]
    np.testing.assert_allclose(layers.propagator(at).slope(counts, region), differences, rtol=1e-7, atol=0)


def test_a_search_that_ends_short_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    x = layered(np.random.default_rng(3), 400, 30, (0.5, 0.15), (0.4, 0.1))
    exact = _Propagator.slope
    monkeypatch.setattr(_Propagator, "slope", lambda *given: exact(*given) * np.array([1.0, -1.0]))
    with pytest.raises(TrajectoryError, match="ended short"):
        regional_diffusivity(x, 1.0, LAYERS, 20.0)


@pytest.mark.slow
def test_layered_intervals_hold_in_93_to_97_percent_of_500_walks() -> None:
    hits, _ = regional_coverage(500, 600, 20, 1.0)
    for count, name in zip(
        hits, ("bulk along", "boundary along", "bulk across", "boundary across"), strict=True
    ):
        assert_coverage(int(count), 500, name)


def test_one_region_gives_what_the_whole_gives() -> None:
    x = isotropic(np.random.default_rng(2))[0]
    whole = diffusivity(x, STEP)
    found = regional_diffusivity(x, STEP, {"all": [(0.0, 7.0), (7.0, 12.0)]}, 12.0)["all"]
    np.testing.assert_allclose(found.along.value, whole.tracer.value, rtol=0.08, atol=0)
    np.testing.assert_allclose(found.across.value, whole.by_direction[2].value, rtol=0.1, atol=0)
    np.testing.assert_allclose(found.time_share, 1.0, rtol=1e-12, atol=0)


def test_layers_may_pass_the_periods_end() -> None:
    x = isotropic(np.random.default_rng(2))[0]
    shifted = regional_diffusivity(x, STEP, {"a": [(-2.0, 3.0)], "b": [(3.0, 10.0)]}, 12.0)
    same = regional_diffusivity(x, STEP, {"a": [(10.0, 15.0)], "b": [(3.0, 10.0)]}, 12.0)
    np.testing.assert_allclose(shifted["a"].along.value, same["a"].along.value, rtol=1e-9, atol=0)
    np.testing.assert_allclose(shifted["b"].across.value, same["b"].across.value, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("regions", "word"),
    [
        ({"a": [(0.0, 5.0)]}, "cover"),
        ({"a": [(0.0, 6.0)], "b": [(5.0, 12.0)]}, "overlap"),
        ({"a": [(0.0, 5.0)], "b": [(6.0, 12.0)]}, "gap"),
        ({"a": [(5.0, 5.0)]}, "low to high"),
        ({}, "at least one"),
    ],
)
def test_regions_that_do_not_tile_are_refused(
    regions: dict[str, list[tuple[float, float]]], word: str
) -> None:
    with pytest.raises(InputError, match=word):
        regional_diffusivity(np.zeros((100, 3, 3)), 1.0, regions, 12.0)


# --- Arrhenius ----------------------------------------------------------------------------------------------------


def made(value: float, log_variance: float) -> Diffusivity:
    half = math.exp(1.96 * math.sqrt(log_variance))
    return Diffusivity(value, value / half, value * half, log_variance, 50.0, 1.0, 0.0, 3)


TEMPERATURES = np.array([500.0, 600.0, 700.0, 800.0, 900.0, 1000.0, 1200.0])


def arrhenius_trials(trials: int, scatter: float, stated: float, kink: bool) -> dict[str, float]:
    counts = {"two": 0, "energy": 0, "300 K": 0, "break": 0}
    for seed in range(trials):
        rng = np.random.default_rng([seed, 4])
        x = 1 / (BOLTZMANN_EV * TEMPERATURES)
        y = math.log(1e-7) - 0.35 * x + scatter * rng.normal(size=len(x))
        if kink:
            y += np.minimum(x - 1 / (BOLTZMANN_EV * 750.0), 0) * 0.15
        fit = fit_arrhenius(TEMPERATURES, [made(math.exp(v), stated**2) for v in y])
        counts["two"] += fit.regimes == 2
        counts["energy"] += fit.activation_energy_interval.low <= 0.35 <= fit.activation_energy_interval.high
        at = fit.at(300.0)
        counts["300 K"] += at.low <= 1e-7 * math.exp(-0.35 / (BOLTZMANN_EV * 300)) <= at.high
        if fit.break_temperature is not None:
            counts["break"] += fit.break_temperature.low <= 750.0 <= fit.break_temperature.high
    return {k: v / trials for k, v in counts.items()}


def test_one_regime_is_seldom_called_two_and_its_intervals_hold() -> None:
    shares = arrhenius_trials(60, 0.05, 0.05, kink=False)
    assert shares["two"] <= 0.16
    assert shares["energy"] >= 0.82
    assert shares["300 K"] >= 0.82


def test_a_break_is_found_with_its_temperature() -> None:
    shares = arrhenius_trials(40, 0.05, 0.05, kink=True)
    assert shares["two"] > 0.95
    assert min(shares["break"], shares["energy"], shares["300 K"]) >= 0.82


def test_scatter_beyond_the_stated_uncertainty_widens_the_intervals() -> None:
    shares = arrhenius_trials(60, 0.2, 0.05, kink=False)
    assert shares["energy"] >= 0.8
    assert shares["two"] <= 0.2


def test_the_law_goes_through_its_points_and_into_a_record() -> None:
    from mesoion.transport import Source

    x = 1 / (BOLTZMANN_EV * TEMPERATURES)
    fit = fit_arrhenius(TEMPERATURES, [made(math.exp(-16.0 - 0.3 * v), 1e-4) for v in x])
    np.testing.assert_allclose(fit.activation_energy, 0.3, rtol=1e-9, atol=0)
    np.testing.assert_allclose(
        fit.value(650.0), math.exp(-16 - 0.3 / (BOLTZMANN_EV * 650)), rtol=1e-8, atol=0
    )
    at = fit.at(300.0)
    assert at.low < at.value < at.high
    law = fit.law(Source(kind="computed", text="test"))
    np.testing.assert_allclose(law.value(650.0), fit.value(650.0), rtol=1e-6, atol=0)
    kinked = fit_arrhenius(
        TEMPERATURES,
        [made(math.exp(-16.0 - 0.3 * v + 0.1 * min(v - 1 / (BOLTZMANN_EV * 750), 0)), 1e-4) for v in x],
    )
    assert kinked.regimes == 2
    record = kinked.law(Source(kind="computed", text="test"))
    for kelvin in (400.0, 700.0, 1100.0):
        np.testing.assert_allclose(record.value(kelvin), kinked.value(kelvin), rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("temperatures", "values", "word"),
    [
        ([800.0], [1e-9], "at least two different temperatures"),
        ([800.0, 800.0], [1e-9, 2e-9], "at least two different temperatures"),
        ([800.0, 900.0], [1e-9], "one per diffusivity"),
        ([800.0, -900.0], [1e-9, 1e-9], "above 0"),
        ([800.0, 900.0], [1e-9, 0.0], "nothing diffused"),
    ],
)
def test_too_little_for_an_activation_energy_is_refused(
    temperatures: list[float], values: list[float], word: str
) -> None:
    points = [
        made(v, 1e-3) if v > 0 else Diffusivity(v, 0.0, 1e-12, math.inf, 5.0, 1.0, 0.0, 3) for v in values
    ]
    with pytest.raises(InputError, match=word):
        fit_arrhenius(temperatures, points)
