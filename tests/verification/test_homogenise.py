"""Effective conductivity: exact limits, duality, nested cubes, collapsed and reduced against resolved."""

import time
from dataclasses import replace

import numpy as np
import pytest

from mesoion.errors import ConvergenceError, InputError
from mesoion.homogenise import BoundaryRange, CollapsedPolycrystal, ReducedPolycrystal, effective_conductivity
from mesoion.layered_mesh import layered_mesh
from mesoion.mesh import tensor_mesh
from mesoion.microstructure import bricks, lamellae, polycrystal
from mesoion.nested_cubes import nested_cube_octant

D = 1e-6
RATIOS = (1e-4, 1e-2, 0.1, 10.0, 100.0)


def excess(z, width):
    """Excess resistance and sheet of a layer of relative conductivity z in a grain of 1 S/m."""
    return {"general": width * (1 / z - 1)}, {"general": width * (z - 1)}


@pytest.fixture(scope="module")
def micro():
    return polycrystal(12, D, 0.35, rng=11)


@pytest.fixture(scope="module")
def collapsed(micro):
    return CollapsedPolycrystal(micro)


@pytest.fixture(scope="module")
def reduced(collapsed):
    return ReducedPolycrystal.build(collapsed, tolerance=1e-4)


def test_uniform_medium_conducts_exactly(micro):
    mesh = layered_mesh(micro, {"general": 2e-2 * D})
    tensor = effective_conductivity(mesh, np.full(mesh.n_cells, 3.0))
    np.testing.assert_allclose(tensor, 3.0 * np.eye(2), rtol=0, atol=3e-12)


@pytest.mark.parametrize("z", [1e-4, 1e-2, 10.0, 100.0, 0.3 + 2.0j])
def test_lamellae_conduct_in_series_and_in_parallel(z):
    """Layers of width w every d: 1/sigma_x = (1 - f) + f/z_across, sigma_y = (1 - f) + f z_along, f = w/d."""
    width = 0.02 * D
    mesh = layered_mesh(lamellae(2, D, 0.7 * D), {"general": width})
    layer = mesh.region > 0
    across = np.where(layer, z, 1.0)
    along = np.where(layer, 5.0 * z, 1.0)
    tensor = effective_conductivity(mesh, across, along)
    f = width / D
    np.testing.assert_allclose(tensor[0, 0], 1.0 / (1 - f + f / z), rtol=1e-11, atol=0)
    np.testing.assert_allclose(tensor[1, 1], 1 - f + 5.0 * f * z, rtol=1e-11, atol=0)
    assert abs(tensor[0, 1]) + abs(tensor[1, 0]) < 1e-10


def test_one_boundary_between_electrodes_is_a_series_resistance():
    width = 0.01 * D
    mesh = layered_mesh(lamellae(2, D, D, periodic=(False, True)), {"general": width})
    tensor = effective_conductivity(mesh, np.where(mesh.region > 0, 1e-3, 2.0))
    np.testing.assert_allclose(
        tensor[0, 0], 2 * D / ((2 * D - width) / 2.0 + width / 1e-3), rtol=1e-11, atol=0
    )


def test_tensor_mesh_in_one_dimension():
    mesh = tensor_mesh([np.array([0.0, 1.0, 1.5, 4.0])], (True,))
    sigma = np.array([1.0, 0.1, 2.0])
    tensor = effective_conductivity(mesh, sigma)
    np.testing.assert_allclose(tensor[0, 0], 4.0 / (1.0 + 5.0 + 1.25), rtol=1e-13, atol=0)


@pytest.mark.parametrize(("seed", "width"), [(1, 1e-2), (2, 1e-2), (3, 1e-3)])
def test_keller_duality(seed, width):
    """sigma*_xx[sigma] sigma*_yy[1/sigma] = 1 for isotropic media; in general
    sigma*[1/sigma] = R^T (sigma*[sigma])^-1 R with R a right angle (exact)."""
    mesh = layered_mesh(polycrystal(8, D, 0.35, rng=seed), {"general": width * D})
    for z in RATIOS:
        a = effective_conductivity(mesh, np.where(mesh.region > 0, z, 1.0))
        b = effective_conductivity(mesh, np.where(mesh.region > 0, 1.0 / z, 1.0))
        turn = np.array([[0.0, -1.0], [1.0, 0.0]])
        error = b @ turn @ a @ turn.T - np.eye(2)
        assert np.abs(error).max() < 1e-3


NESTED = [
    (0.01, 1e-3, 0.09033),
    (0.01, 0.1, 0.90199),
    (0.01, 10.0, 1.18855),
    (0.05, 1e-3, 0.019044),
    (0.05, 1e-2, 0.16133),
    (0.05, 10.0, 1.93294),
    (0.2, 1e-3, 0.004427),
    (0.2, 10.0, 4.53746),
]


@pytest.mark.parametrize(("width", "z", "expected"), NESTED)
def test_nested_cubes(width, z, expected):
    mesh = nested_cube_octant(1.0, width, 6, 18)
    tensor = effective_conductivity(mesh, np.where(mesh.region > 0, z, 1.0))
    np.testing.assert_allclose(tensor[0, 0], expected, rtol=5e-3, atol=0)


def test_multigrid_agrees_with_the_direct_solver():
    mesh = nested_cube_octant(1.0, 0.05, 4, 10)
    sigma = np.where(mesh.region > 0, 0.01, 1.0)
    direct = effective_conductivity(mesh, sigma, method="direct")
    np.testing.assert_allclose(
        effective_conductivity(mesh, sigma, method="multigrid"), direct, rtol=0, atol=1e-8
    )
    with pytest.raises(InputError, match="direct"):
        effective_conductivity(mesh, sigma * 1j, method="multigrid")


def test_layer_tensor_is_projected_on_the_faces():
    """M = along (I - n n^T) + across n n^T: n . e_x = cos(30 deg) gives M_xx = 3/4 across + 1/4 along."""
    mesh = tensor_mesh([np.linspace(0, 1, 5)] * 2, (True, True))
    normal = np.array([np.cos(np.pi / 6), np.sin(np.pi / 6)])
    tilted = replace(mesh, layer_normals=np.tile(normal, (mesh.n_cells, 1)))
    tensor = effective_conductivity(tilted, np.full(mesh.n_cells, 2.0), np.full(mesh.n_cells, 10.0))
    np.testing.assert_allclose(np.diag(tensor), [4.0, 8.0], rtol=1e-12, atol=0)


def test_wrong_conductivities_are_refused():
    mesh = tensor_mesh([np.linspace(0, 1, 4)] * 2, (True, True))
    for bad in (np.ones(4), np.zeros(9), np.full(9, -1.0), np.full(9, np.nan)):
        with pytest.raises(InputError, match="sigma_across"):
            effective_conductivity(mesh, bad)


@pytest.mark.parametrize(("width", "allowed"), [(1e-2, 1e-2), (1e-3, 2e-3)])
def test_collapsed_against_resolved(micro, collapsed, width, allowed):
    mesh = layered_mesh(micro, {"general": width * D})
    for z in RATIOS:
        full = effective_conductivity(mesh, np.where(mesh.region > 0, z, 1.0))
        thin = collapsed.effective(1.0, *excess(z, width * D))
        error = np.abs(thin - full).max() / full[0, 0]
        assert error < allowed, (z, error)


def test_collapsed_across_and_along_are_told_apart(micro, collapsed):
    """A blocking layer that conducts along itself: neither r nor s alone gives the resolved value."""
    mesh = layered_mesh(micro, {"general": 1e-2 * D})
    layer = mesh.region > 0
    full = effective_conductivity(mesh, np.where(layer, 0.05, 1.0), np.where(layer, 10.0, 1.0))[0, 0]
    r, s = {"general": 1e-2 * D * 19.0}, {"general": 1e-2 * D * 9.0}
    both = collapsed.effective(1.0, r, s)[0, 0]
    assert abs(both / full - 1) < 1e-2
    assert abs(collapsed.effective(1.0, r, {"general": 0.0})[0, 0] / full - 1) > 2e-2
    assert abs(collapsed.effective(1.0, {"general": 0.0}, s)[0, 0] / full - 1) > 2e-2


def test_collapsed_limits_of_straight_boundaries():
    """Series: 1/sigma = 1 + r/d. Parallel: sigma = 1 + s/d (exact; the corner-free case)."""
    pair = CollapsedPolycrystal(lamellae(2, D, D))
    tensor = pair.effective(2.0, {"general": 3.0 * D}, {"general": 0.5 * D})
    np.testing.assert_allclose(tensor[0, 0], 1 / (1 / 2.0 + 3.0), rtol=1e-10, atol=0)
    np.testing.assert_allclose(tensor[1, 1], 2.0 + 0.5, rtol=1e-6, atol=0)
    tensor = pair.effective(2.0, {"general": -1e-3 * D}, {"general": -2e-2 * D})
    np.testing.assert_allclose(tensor[0, 0], 1 / (1 / 2.0 - 1e-3), rtol=1e-10, atol=0)
    np.testing.assert_allclose(tensor[1, 1], 2.0 - 2e-2, rtol=2e-3, atol=0)


def test_collapsed_without_excess_is_the_grain(collapsed):
    zero = {"general": 0.0}
    np.testing.assert_allclose(collapsed.effective(0.7, zero, zero), 0.7 * np.eye(2), rtol=0, atol=1e-10)


def test_collapsed_bricks_of_blocking_boundaries_conduct_in_series():
    wall = CollapsedPolycrystal(bricks(2, D))
    r = 1e3 * D
    tensor = wall.effective(1.0, {"general": r}, {"general": 0.0})
    np.testing.assert_allclose(tensor, np.eye(2) / (1 + r / D), rtol=0, atol=1e-5 / (1 + r / D))


def test_collapsed_scales_with_units_and_grain_size(collapsed):
    r, s = excess(0.01, 5e-3 * D)
    base = collapsed.effective(1.0, r, s)
    scaled = collapsed.effective(1e-3, {"general": 1e3 * r["general"]}, {"general": 1e-3 * s["general"]})
    np.testing.assert_allclose(scaled, 1e-3 * base, rtol=1e-12, atol=0)


def test_two_types_matter_by_their_length():
    micro = polycrystal(12, D, 0.3, rng=3, boundary_types={"open": 0.6, "blocking": 0.4})
    # One facet of 0.0025 grain sizes joins two grains across blocking boundaries: 3 % of the conductivity.
    micro = micro.without_short_facets(0.06 * D)
    model = CollapsedPolycrystal(micro)
    assert model.merged_facets == 0
    s = {"open": 0.0, "blocking": 0.0}
    some = model.effective(1.0, {"open": 0.0, "blocking": 10 * D}, s)[0, 0]
    every = model.effective(1.0, {"open": 10 * D, "blocking": 10 * D}, s)[0, 0]
    assert every < 0.15 < some < 0.9
    mesh = layered_mesh(micro, {"open": 2e-3 * D, "blocking": 2e-3 * D})
    sigma = np.where(mesh.region == 2, 2e-4, 1.0)
    resolved = effective_conductivity(mesh, sigma)
    thin = model.effective(
        1.0, {"open": 0.0, "blocking": 2e-3 * D * (1 / 2e-4 - 1)}, {"open": 0.0, "blocking": -2e-3 * D}
    )
    np.testing.assert_allclose(np.diag(thin), np.diag(resolved), rtol=1e-2, atol=0)


@pytest.mark.parametrize(
    ("resistance", "sheet", "message"),
    [
        ({}, {"general": 0.0}, "'general' needs a value"),
        ({"general": -1.0}, {"general": 0.0}, "larger pair_distance"),
        ({"general": np.nan}, {"general": 0.0}, "finite"),
    ],
)
def test_impossible_boundaries_are_refused(collapsed, resistance, sheet, message):
    with pytest.raises(InputError, match=message):
        collapsed.effective(1.0, resistance, sheet)


def test_collapsed_needs_a_periodic_cell():
    with pytest.raises(InputError, match="periodic"):
        CollapsedPolycrystal(polycrystal(5, D, rng=1, periodic=(False, True)))


def test_reduced_model_needs_at_most_twelve_solves(reduced):
    assert reduced.full_solves <= 12
    assert reduced.training_bound <= 1e-4


def test_reduced_against_full_at_complex_parameters(collapsed, reduced):
    rng = np.random.default_rng(4)
    for _ in range(25):
        width, z = 10 ** rng.uniform(-5, -2) * D, 10 ** rng.uniform(-4, 2)
        z = z * np.exp(1j * rng.uniform(-1.4, 1.4)) if z < 3 else z
        r, s = excess(z, width)
        full = (
            collapsed.effective(0.3, r, s)
            if np.isrealobj(z)
            else collapsed.effective(0.3, {"general": r["general"] / 0.3}, {"general": s["general"] * 0.3})
        )
        if np.isrealobj(z):
            got, bound = reduced.effective(0.3, r, s)
        else:
            got, bound = reduced.effective(
                0.3, {"general": r["general"] / 0.3}, {"general": s["general"] * 0.3}
            )
        error = np.abs(got - full).max() / (0.5 * abs(np.trace(full)))
        assert error < 1e-4
        assert error <= bound + 1e-11


def test_bound_warns_outside_the_range(collapsed, reduced):
    """Far outside the training range the bound grows; it still holds."""
    r, s = {"general": 3e3 * D}, {"general": 20.0 * D}
    got, bound = reduced.effective(1.0, r, s)
    full = collapsed.effective(1.0, r, s)
    assert bound > 1e-4
    assert np.abs(got - full).max() / full[0, 0] <= bound


def test_thousand_points_of_grain_size_and_width(collapsed, reduced):
    """A sweep of grain size x width costs no further full solve and agrees with full solves at spot checks."""
    solves = collapsed.full_solves
    size, width = (
        a.ravel() for a in np.meshgrid(np.geomspace(1e-7, 2e-5, 40), np.geomspace(5e-10, 1e-9, 25))
    )
    z, sigma = 1e-3, 0.05
    r, s = width * (1 / z - 1) / sigma, width * (z - 1) * sigma
    start = time.perf_counter()
    tensors, bounds = reduced.effective_many(sigma, {"general": r}, {"general": s}, size)
    elapsed = time.perf_counter() - start
    assert tensors.shape == (1000, 2, 2)
    assert bounds.max() < 1e-4
    assert collapsed.full_solves == solves
    assert elapsed < 2.0
    for i in (0, 500, 999):
        k = D / size[i]
        full = collapsed.effective(sigma, {"general": r[i] * k}, {"general": s[i] * k})
        np.testing.assert_allclose(np.diag(tensors[i]), np.diag(full), rtol=1e-4, atol=0)
        single, _ = reduced.effective(sigma, {"general": r[i]}, {"general": s[i]}, size[i])
        np.testing.assert_allclose(single, tensors[i], rtol=0, atol=1e-12)


def test_reduced_model_round_trip(reduced, tmp_path):
    back = ReducedPolycrystal.load(reduced.save(tmp_path / "model.npz"))
    r, s = excess(0.02 + 0.1j, 1e-3 * D)
    a, b = reduced.effective(1.0, r, s), back.effective(1.0, r, s)
    np.testing.assert_array_equal(a[0], b[0])
    assert a[1] == b[1]
    assert back.boundary_names == reduced.boundary_names
    (tmp_path / "text.npz").write_text("not a model")
    with pytest.raises(InputError, match=r"ReducedPolycrystal\.save"):
        ReducedPolycrystal.load(tmp_path / "text.npz")


def test_two_types_in_narrow_ranges(tmp_path):
    micro = polycrystal(10, D, 0.3, rng=5, boundary_types={"a": 0.7, "b": 0.3})
    model = CollapsedPolycrystal(micro)
    spans = {
        "a": BoundaryRange(ratio=(0.1, 1.0), width=(1e-3, 5e-3), phase=0.0),
        "b": BoundaryRange(ratio=(1e-3, 1e-2), width=(1e-3, 5e-3), phase=0.0),
    }
    small = ReducedPolycrystal.build(model, spans, 1e-3)
    r, s = {"a": 2e-3 * D * 4, "b": 3e-3 * D * 300}, {"a": -2e-3 * D * 0.8, "b": -3e-3 * D}
    got, bound = small.effective(1.0, r, s)
    full = model.effective(1.0, r, s)
    assert np.abs(got - full).max() / full[0, 0] <= bound <= 1e-3
    with pytest.raises(ConvergenceError, match="max_solves"):
        ReducedPolycrystal.build(model, spans, 1e-8, max_solves=2)
    with pytest.raises(InputError, match="'b' needs a range"):
        ReducedPolycrystal.build(model, {"a": spans["a"]})
