"""Polycrystals: the distribution asked for is met, geometry closes, bad input is refused."""

import numpy as np
import pytest

from mesoion.errors import InputError, MeshError
from mesoion.microstructure import Microstructure, bricks, lamellae, polycrystal, polycrystal_from_sizes

PERIODICITY = [(True, True), (False, True), (True, False), (False, False)]


def check_geometry(micro: Microstructure) -> None:
    """Areas fill the box, every facet is shared by the two grains it names, divergence theorem per grain."""
    np.testing.assert_allclose(micro.grain_areas.sum(), micro.box.prod(), rtol=1e-12, atol=0)
    seen = np.concatenate(micro.outline_facets)
    counts = np.bincount(seen[seen >= 0], minlength=micro.n_facets)
    assert np.all(counts == 2)
    for g, facets in enumerate(micro.outline_facets):
        inside = facets[facets >= 0]
        assert np.all((micro.facet_grains[inside] == g).any(axis=1))
    span = micro.facet_end - micro.facet_start
    for end, xy in ((0, micro.facet_start), (1, micro.facet_end)):
        miss = xy - micro.vertices[micro.facet_vertices[:, end]]
        for axis in (0, 1):
            if micro.periodic[axis]:
                miss[:, axis] -= micro.box[axis] * np.round(miss[:, axis] / micro.box[axis])
        assert np.abs(miss).max() < 1e-8 * micro.box.max()
    assert np.all(np.hypot(*span.T) > 0)


@pytest.mark.parametrize("periodic", PERIODICITY)
@pytest.mark.parametrize(("n", "spread"), [(12, 0.35), (50, 0.6), (80, 0.0)])
def test_prescribed_distribution_is_met(n, spread, periodic):
    micro = polycrystal(n, 3e-6, spread, rng=5, periodic=periodic)
    assert micro.n_grains == n
    np.testing.assert_allclose(micro.mean_grain_size, 3e-6, rtol=1e-8, atol=0)
    assert abs(micro.size_spread - spread) < 1e-8
    check_geometry(micro)


def test_distribution_is_log_normal():
    micro = polycrystal(400, 1e-6, 0.4, rng=2)
    x = np.log(micro.grain_diameters)
    x = (x - x.mean()) / x.std()
    assert abs((x**3).mean()) < 0.02
    assert abs((x**4).mean() - 3.0) < 0.25


def test_measured_sizes_are_met_one_by_one():
    sizes = np.array([1.0, 2.0, 0.5, 1.5, 0.7, 1.2, 1.1, 0.9]) * 1e-6
    micro = polycrystal_from_sizes(sizes, rng=1)
    np.testing.assert_allclose(np.sort(micro.grain_diameters), np.sort(sizes), rtol=1e-8, atol=0)


@pytest.mark.parametrize("n", [1, 2, 3])
def test_few_grains_that_touch_their_own_images(n):
    micro = polycrystal(n, 1e-6, 0.2, rng=3)
    check_geometry(micro)
    assert micro.facet_lengths.sum() > 0


def test_same_seed_same_polycrystal_and_other_seed_another():
    a, b, c = (polycrystal(20, 1e-6, rng=s, boundary_types={"a": 0.5, "b": 0.5}) for s in (1, 1, 2))
    np.testing.assert_array_equal(a.facet_start, b.facet_start)
    np.testing.assert_array_equal(a.facet_type, b.facet_type)
    assert not np.array_equal(a.seeds, c.seeds)


def test_boundary_types_take_their_share_of_the_length():
    micro = polycrystal(200, 1e-6, rng=1, boundary_types={"sigma5": 0.2, "general": 0.7, "blocking": 0.1})
    got = micro.boundary_fractions
    for name, share in {"sigma5": 0.2, "general": 0.7, "blocking": 0.1}.items():
        assert abs(got[name] - share) < 1.5 * micro.facet_lengths.max() / micro.facet_lengths.sum()
    other = micro.with_boundary_types({"x": 3.0, "y": 1.0}, 4)
    assert abs(other.boundary_fractions["x"] - 0.75) < 0.01


def test_three_facets_meet_at_every_junction_of_a_random_polycrystal():
    micro = polycrystal(50, 1e-6, 0.35, rng=3)
    assert np.all(micro.junction_degrees == 3)
    assert micro.n_facets == 3 * micro.n_grains
    assert len(micro.vertices) == 2 * micro.n_grains


def test_mean_linear_intercept_against_counted_crossings():
    micro = polycrystal(60, 1e-6, 0.35, rng=8)
    rng = np.random.default_rng(0)
    a, b = micro.facet_start, micro.facet_end
    crossings, length = 0, 0.0
    # Lines through a periodic box in the directions that close on themselves.
    for p, q in [
        (1, 0),
        (0, 1),
        (1, 1),
        (1, -1),
        (1, 2),
        (2, 1),
        (1, -2),
        (2, -1),
        (1, 3),
        (3, -1),
        (3, 1),
        (1, -3),
    ]:
        step = np.array([p, q]) * micro.box
        normal = np.array([-step[1], step[0]]) / np.hypot(*step)
        gap = np.prod(micro.box) / np.hypot(*step)
        for offset in rng.random(50) * gap:
            lo = np.floor((np.minimum(a @ normal, b @ normal) - offset) / gap)
            hi = np.floor((np.maximum(a @ normal, b @ normal) - offset) / gap)
            crossings += int((hi - lo).sum())
            length += float(np.hypot(*step))
    np.testing.assert_allclose(micro.mean_linear_intercept, length / crossings, rtol=0.03, atol=0)


def test_bricks_and_lamellae():
    wall = bricks(3, 2e-6)
    check_geometry(wall)
    assert np.all(wall.junction_degrees == 4)
    assert wall.n_facets == 18
    np.testing.assert_allclose(wall.facet_lengths, 2e-6, rtol=1e-12, atol=0)
    pair = lamellae(2, 1e-6, 3e-6, periodic=(False, True))
    check_geometry(pair)
    assert pair.n_facets == 1
    np.testing.assert_allclose(pair.facet_lengths, [3e-6], rtol=1e-12, atol=0)


def test_merging_a_facet_joins_its_junctions_and_keeps_the_area():
    micro = polycrystal(30, 1e-6, 0.35, rng=4)
    short = np.zeros(micro.n_facets, dtype=bool)
    short[np.argmin(micro.facet_lengths)] = True
    merged = micro.with_merged_facets(short)
    check_geometry(merged)
    assert merged.n_facets == micro.n_facets - 1
    assert sorted(merged.junction_degrees)[-1] == 4
    many = micro.with_merged_facets(micro.facet_lengths < np.quantile(micro.facet_lengths, 0.1))
    check_geometry(many)


def test_short_facets_go_until_none_is_left():
    micro = polycrystal(60, 1e-6, 0.4, rng=4)
    merged = micro.without_short_facets(1e-7)
    check_geometry(merged)
    assert micro.facet_lengths.min() < 1e-7 <= merged.facet_lengths.min()
    np.testing.assert_allclose(merged.mean_grain_size, micro.mean_grain_size, rtol=5e-3, atol=0)


def test_a_single_crystal_between_walls_has_no_boundary():
    micro = polycrystal(1, 1e-6, 0.0, rng=1, periodic=(False, False))
    assert micro.n_facets == 0
    assert micro.mean_linear_intercept == np.inf


def test_merging_keeps_wall_junctions_on_the_wall():
    micro = polycrystal(40, 1e-6, 0.35, rng=4, periodic=(False, True))
    on_wall = (np.abs(micro.vertices[:, 0]) < 1e-15) | (np.abs(micro.vertices[:, 0] - micro.box[0]) < 1e-15)
    touching = on_wall[micro.facet_vertices].any(axis=1)
    short = np.zeros(micro.n_facets, dtype=bool)
    short[np.flatnonzero(touching)[np.argmin(micro.facet_lengths[touching])]] = True
    merged = micro.with_merged_facets(short)
    check_geometry(merged)
    assert merged.n_facets == micro.n_facets - 1


def test_merging_a_whole_grain_away_is_refused():
    micro = polycrystal(30, 1e-6, 0.35, rng=4)
    g = int(np.argmin(micro.grain_areas))
    short = np.zeros(micro.n_facets, dtype=bool)
    short[micro.outline_facets[g][:-1]] = True
    with pytest.raises(MeshError, match=f"grain {g} .* smaller grain-boundary width"):
        micro.with_merged_facets(short)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_grains": 0}, "n_grains: 0 is not allowed"),
        ({"mean_grain_size": -1e-6}, "mean_grain_size: -1e-06 is not allowed"),
        ({"mean_grain_size": float("nan")}, "mean_grain_size"),
        ({"size_spread": 1.5}, "size_spread: 1.5"),
        ({"boundary_types": {}}, "at least one boundary type"),
        ({"boundary_types": {"a": -0.1, "b": 1.1}}, "non-negative"),
        ({"boundary_types": {"grain": 1.0}}, "taken by the grains"),
        ({"aspect": 0.0}, "aspect"),
    ],
)
def test_impossible_values_are_refused(arguments, message):
    with pytest.raises(InputError, match=message):
        polycrystal(**{"n_grains": 5, "mean_grain_size": 1e-6, **arguments})


def test_empty_or_negative_measured_distribution_is_refused():
    with pytest.raises(InputError, match="empty distribution"):
        polycrystal_from_sizes([])
    with pytest.raises(InputError, match=r"-1\.0"):
        polycrystal_from_sizes([1.0, -1.0])
