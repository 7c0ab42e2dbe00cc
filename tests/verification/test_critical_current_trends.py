"""Trends of critical currents: exact slopes, intervals that cover, groups, and the measured table's own numbers."""

from __future__ import annotations

import math
import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from scipy import stats

from mesoion import critical_current_trends as trends
from mesoion.critical_current import Constriction
from mesoion.errors import InputError
from mesoion.material import Material
from mesoion.microstructure import bricks
from mesoion.nucleation_sampling import PelletCase
from mesoion.nucleation_study import ROOM
from mesoion.transport import measured_critical_currents

T = 298.15


@given(slope=st.floats(-3, 3), offset=st.floats(-5, 5))
def test_an_exact_power_law_has_its_slope_and_no_scatter(slope: float, offset: float) -> None:
    x = np.log([1.0, 2.0, 5.0, 9.0])
    found = trends.log_trend(x, np.exp(offset + slope * x))
    assert_allclose([found.slope, found.low, found.high], slope, rtol=0, atol=1e-9)
    assert found.scatter < 1e-9


def test_the_interval_is_student_s_and_holds_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    x = np.linspace(0, 1, 12)
    held = 0
    for _ in range(400):
        y = np.exp(1.5 * x + rng.normal(0, 0.8, len(x)))
        found = trends.log_trend(x, y)
        held += found.low < 1.5 < found.high
    assert 0.92 < held / 400 < 0.98
    line = stats.linregress(x, np.log(y))
    half = stats.t.ppf(0.975, 10) * line.stderr
    assert_allclose([found.slope, found.low, found.high], line.slope + half * np.array([0, -1, 1]), rtol=1e-9)


def test_slopes_of_samples_do_not_care_how_far_the_samples_lie_apart() -> None:
    """i = a x^s with a over eight decades: the slopes' interval is that of s alone."""
    rng = np.random.default_rng(1)
    a, s = 10 ** rng.uniform(-4, 4, 2000), rng.normal(0.3, 0.05, 2000)
    x = np.log([1.0, 3.0, 30.0])
    found = trends.sampled_trend(x, a * np.exp(np.outer(x, s)))
    assert_allclose([found.slope, found.low, found.high], [0.3, 0.202, 0.398], rtol=0, atol=0.006)
    shorted = a * np.exp(np.outer(x, s))
    shorted[1, ::2] = math.inf
    assert trends.sampled_trend(x, shorted).count == 1000


def test_thin_boundaries_make_no_trend_with_grain_size_and_the_interface_makes_that_with_temperature() -> (
    None
):
    """R >> G: i = eta c/R, so nothing in it knows d, and its activation energy is that of R (exact)."""
    case = PelletCase(
        "LLZO",
        Material.from_records("llzo-bulk", {"general": "llzo-sigma17"}),
        {"general": 1.0},
        5e-6,
        1e-3,
        Constriction.build(bricks(2, 1.0), points=3),
    )
    eV = 1.602176634e-19
    own = {p.name: np.full(2, p.nominal) for p in case.parameters()}
    energies = np.array([0.35, 0.45])
    fixed = {
        "surface energy": 0.5,
        "boundary energy": 0.6,
        "contact angle": 2.0,
        "elastic energy": 1e7,
        "pore diameter": 3e-7,
        "barrier": 1.0 * eV,
        "interfacial resistance": 1.0,
        "contact fraction": 0.5,
        "grain conductivity": 0.0,
        "electronic conductivity": -20.0,
        "grain size": 1.0,
    }
    values = {k: np.full(2, v) for k, v in fixed.items()} | own
    values["interfacial activation energy"] = energies * eV
    size = trends.grain_size_trend(case, values, T, [1e-7, 1e-6, 1e-4], "stable")
    assert max(abs(size.low), abs(size.high)) < 1e-4
    warm = trends.temperature_trend(case, values, [T, 320.0, 350.0], "stable")
    assert_allclose([warm.low, warm.high], energies, rtol=1e-4, atol=0)


@pytest.mark.parametrize(
    ("composition", "dopant"),
    [
        ("Li6.45Al0.05La3Zr1.6Ta0.4O12", "Al, Ta"),
        ("Ta-Doped LLZO", "Ta"),
        ("Li6.1Ga0.3La3Zr2O12", "Ga"),
        ("Li7La3Zr2O12, single crystal", "none"),
    ],
)
def test_dopants(composition: str, dopant: str) -> None:
    assert trends.dopant_of(composition) == dopant


def test_ratio_of_two_groups_is_welch_s() -> None:
    rng = np.random.default_rng(5)
    a, b = np.exp(rng.normal(1.0, 0.5, 8)), np.exp(rng.normal(0.2, 1.0, 11))
    expected = stats.ttest_ind(np.log(a), np.log(b), equal_var=False).confidence_interval(0.95)
    middle, low, high = trends.ratio(a, b)
    assert_allclose([low, high], np.exp([expected.low, expected.high]), rtol=1e-9, atol=0)
    assert_allclose(middle, math.exp(np.log(a).mean() - np.log(b).mean()), rtol=1e-12, atol=0)
    assert trends.ratio([2.0, 2.0], [1.0, 1.0]) == (2.0, 2.0, 2.0)


def test_interval_of_a_standard_deviation_holds_it_as_often_as_it_says() -> None:
    rng = np.random.default_rng(8)
    held = 0
    for _ in range(400):
        _, low, high = trends.scatter_interval(trends.scatter(np.exp(rng.normal(0, 0.7, 9))), 8)
        held += low < 0.7 < high
    assert 0.92 < held / 400 < 0.98


def test_values_without_a_trend_are_refused() -> None:
    with pytest.raises(InputError, match="three values"):
        trends.log_trend([1.0, 2.0], [1.0, 2.0])
    with pytest.raises(InputError, match="positive"):
        trends.log_trend([1.0, 2.0, 3.0], [1.0, 0.0, 2.0])
    with pytest.raises(InputError, match="two different"):
        trends.log_trend([1.0, 1.0, 1.0], [1.0, 2.0, 3.0])
    with pytest.raises(InputError, match="two different"):
        trends.sampled_trend([1.0, 1.0], np.ones((2, 3)))
    with pytest.raises(InputError, match="finite at every x"):
        trends.sampled_trend([1.0, 2.0], [[math.inf], [1.0]])
    with pytest.raises(InputError, match="two values in each"):
        trends.ratio([1.0], [1.0, 2.0])
    with pytest.raises(InputError, match="of one composition"):
        trends.scatter_at_one_composition(measured_critical_currents("LLZO")[:1])


def test_measured_pellets_follow_from_the_published_table() -> None:
    """Temperature slope, scatter at one composition and densities, from the table's file by other means."""
    folder = os.environ.get("MESOION_REFERENCE")
    if folder is None:
        pytest.skip("MESOION_REFERENCE is not set")
    table = pd.read_csv(Path(folder) / "llzo_critical_current_density.csv")
    table = table[table["critical_current_density_mA_per_cm2"].notna()]
    # A temperature that is not printed counts as room temperature.
    kelvin = table["temperature_C"].fillna(25.0).to_numpy() + 273.15
    logs = np.log(table["critical_current_density_mA_per_cm2"].to_numpy())
    line = stats.linregress(-1 / (8.617333262e-5 * kelvin), logs)
    measured = measured_critical_currents("LLZO")
    at = np.array([m.temperature_K for m in measured])
    found = trends.log_trend(
        -trends.inverse_temperature(at), [m.critical_current_density_A_per_m2 for m in measured]
    )
    assert_allclose(found.slope, line.slope, rtol=1e-6, atol=0)
    room = [m for m in measured if ROOM[0] <= m.temperature_K <= ROOM[1]]
    near = (kelvin >= ROOM[0]) & (kelvin <= ROOM[1])
    frame = pd.DataFrame({"name": table["composition_or_dopant"].to_numpy()[near], "ln": logs[near]})
    groups = frame.groupby("name")["ln"]
    freedom = int((groups.size() - 1).sum())
    pooled = math.sqrt(((groups.size() - 1) * groups.var().fillna(0.0)).sum() / freedom)
    same, degrees, _ = trends.scatter_at_one_composition(room)
    assert degrees == freedom
    assert_allclose(same, pooled, rtol=1e-9, atol=0)
    density = pd.read_csv(Path(folder) / "llzo_conductivity_vs_density.csv").set_index(
        "source_reference_number"
    )
    known = {
        m.source.text.rsplit(" ", 1)[1]: m.relative_density_percent
        for m in measured
        if m.relative_density_percent is not None
    }
    printed = density.index.astype(str)
    assert set(known) == set(table["source_reference_number"].astype(str)) & set(printed)
    for reference, value in known.items():
        assert value == density.loc[int(reference), "relative_density_percent"]
