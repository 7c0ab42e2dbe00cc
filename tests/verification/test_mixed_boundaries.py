"""Polycrystals with a share of blocking boundaries, reduced: against full solutions, limits and symmetries."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from mesoion.collapsed import CollapsedPolycrystal
from mesoion.errors import InputError
from mesoion.mixed_boundaries import (
    CLASSES,
    KINDS,
    MixedPolycrystal,
    at_fraction,
    mean_conductances,
    mixed_polycrystal,
    random_excess,
)

GRAINS, TOLERANCE = 6, 3e-3
FRACTIONS = (0.0, 0.5, 1.0)


@pytest.fixture(scope="module")
def volume() -> CollapsedPolycrystal:
    return mixed_polycrystal(GRAINS, 0.35, (4, 0))


@pytest.fixture(scope="module")
def model() -> MixedPolycrystal:
    return MixedPolycrystal.build(
        grains=GRAINS, realisations=1, seed=4, fractions=FRACTIONS, tolerance=TOLERANCE
    )


@pytest.mark.parametrize("fraction", FRACTIONS)
def test_reduced_meets_full_solutions_at_fresh_parameters(
    model: MixedPolycrystal, volume: CollapsedPolycrystal, fraction: float
) -> None:
    excess = random_excess(8, 987)
    exact = mean_conductances([at_fraction(volume, round(fraction * CLASSES))], *excess)
    assert np.abs(model.unit(*excess, fraction) / exact - 1).max() < TOLERANCE
    assert model.facts.node_error < TOLERANCE


def test_between_two_nodes_a_pellet_is_a_share_of_each_in_parallel(model: MixedPolycrystal) -> None:
    excess = random_excess(16, 5)
    low, high = (model.unit(*excess, f) for f in (0.0, 0.5))
    assert_allclose(model.unit(*excess, 0.2), 0.6 * low + 0.4 * high, rtol=2 * TOLERANCE, atol=0)


def test_boundaries_like_the_grain_leave_the_grain(model: MixedPolycrystal) -> None:
    grain = np.array([0.3 + 0.1j, 2.0])
    none = dict.fromkeys(KINDS, 0.0)
    for fraction in (0.0, 0.3, 1.0):
        found = model.effective_admittivity(grain, none, none, 1e-6, fraction)
        assert_allclose(found, grain, rtol=TOLERANCE / 30, atol=0)


def test_conductivity_and_size_enter_by_scaling_alone(model: MixedPolycrystal) -> None:
    grain, r, s = np.array([0.1 + 0.02j]), 2e-5, -1e-9
    one = model.effective_admittivity(
        grain, {"open": r, "blocking": 50 * r}, dict.fromkeys(KINDS, s), 1e-6, 0.4
    )
    two = model.effective_admittivity(
        7 * grain,
        {"open": 3 * r / 7, "blocking": 150 * r / 7},
        dict.fromkeys(KINDS, 21 * s),
        3e-6,
        0.4,
    )
    assert_allclose(two, 7 * one, rtol=1e-9, atol=0)


def test_strong_uniform_boundaries_are_a_series_of_facets(
    model: MixedPolycrystal, volume: CollapsedPolycrystal
) -> None:
    """With every facet alike and dominant, ten times the resistance is ten times less conductance."""
    zero = [np.zeros(2), np.zeros(2)]
    rho = np.array([3e2, 3e3])
    found = model.unit([rho, rho], zero, 0.0).real
    assert_allclose(found[0] / found[1], 10.0, rtol=0.02, atol=0)
    # All open and all blocking are the same polycrystal when the layers are.
    assert_allclose(model.unit([rho, rho], zero, 1.0).real, found, rtol=2 * TOLERANCE, atol=0)


@settings(max_examples=60, deadline=None)
@given(
    fraction=st.floats(0, 1),
    log_width=st.floats(-4.9, -2.0),
    log_ratio=st.floats(-5.4, 0.9),
    log_time=st.floats(-7, 1.4),
)
def test_the_admittivity_is_passive_and_falls_with_every_blocked_facet(
    model: MixedPolycrystal, fraction: float, log_width: float, log_ratio: float, log_time: float
) -> None:
    width, ratio, x = 10**log_width, 10**log_ratio, 10**log_time
    grain = 1 + 1j * x
    layer, blocked = ratio + 1j * x, 1e-6 + 1j * x
    across = [np.array([width * (1 / k - 1 / grain) * grain]) for k in (layer, blocked)]
    along = [np.array([width * (k - grain) / grain]) for k in (layer, blocked)]
    sigma = grain * model.unit(across, along, fraction)[0]
    assert sigma.real > 0
    assert sigma.imag > -1e-3 * abs(sigma)
    static = [np.array([width * (1 / k - 1)]) for k in (ratio, min(1e-6, ratio))]
    sheet = [np.array([width * (k - 1)]) for k in (ratio, min(1e-6, ratio))]
    more = min(fraction + 0.2, 1.0)
    slack = 1 + 2 * TOLERANCE
    assert model.unit(static, sheet, more)[0].real <= slack * model.unit(static, sheet, fraction)[0].real


def test_a_group_of_types_acts_as_one(volume: CollapsedPolycrystal) -> None:
    names = volume.boundary_names
    r = {n: 2.0 if k < 7 else 0.05 for k, n in enumerate(names)}
    s = {n: -0.01 if k < 7 else 0.02 for k, n in enumerate(names)}
    view = volume.grouped({"first": names[:7], "rest": names[7:]})
    assert_allclose(
        view.effective(1.0, {"first": 2.0, "rest": 0.05}, {"first": -0.01, "rest": 0.02}),
        volume.effective(1.0, r, s),
        rtol=1e-9,
        atol=1e-12,
    )
    with pytest.raises(InputError, match="into one group"):
        volume.grouped({"first": names[:7]})
    with pytest.raises(InputError, match="into one group"):
        volume.grouped({"first": names, "second": names[:1]})


def test_a_saved_model_answers_the_same(model: MixedPolycrystal, tmp_path: Path) -> None:
    path = model.save(tmp_path / "model.npz")
    again = MixedPolycrystal.load(path)
    excess = random_excess(8, 6)
    assert_allclose(again.unit(*excess, 0.35), model.unit(*excess, 0.35), rtol=1e-12, atol=0)
    assert again.facts == replace(model.facts)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"MixedPolycrystal\.save"):
        MixedPolycrystal.load(path)


def test_what_no_polycrystal_is_is_refused(model: MixedPolycrystal) -> None:
    excess = random_excess(2, 1)
    with pytest.raises(InputError, match="blocking_fraction"):
        model.unit(*excess, 1.5)
    with pytest.raises(InputError, match="may not be below"):
        model.unit([np.array([-0.5]), np.array([1.0])], [np.zeros(1), np.zeros(1)], 0.5)
    for wrong in ((0.0, 0.52, 1.0), (0.0, 0.5), (0.0, 0.5, 0.5, 1.0)):
        with pytest.raises(InputError, match="fractions"):
            MixedPolycrystal.build(fractions=wrong)
