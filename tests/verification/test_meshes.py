"""Resolved meshes: exact geometry, closed cells, linear fields, files."""

import meshio
import numpy as np
import pytest
from scipy.sparse import coo_array
from scipy.sparse.linalg import splu

from mesoion.errors import InputError, MeshError
from mesoion.layered_mesh import layered_mesh, merged_for_widths
from mesoion.mesh import CellMesh, tensor_mesh
from mesoion.microstructure import bricks, lamellae, polycrystal
from mesoion.nested_cubes import nested_cube_octant
from mesoion.vtu import write_vtu

D = 1e-6
CASES = {
    "periodic": ({"n_grains": 12, "rng": 1}, {"general": 1e-2 * D}),
    "thin": ({"n_grains": 6, "rng": 2}, {"general": 1e-4 * D}),
    "wide spread": ({"n_grains": 20, "size_spread": 0.6, "rng": 3}, {"general": 1e-2 * D}),
    "two widths": (
        {"n_grains": 15, "rng": 4, "boundary_types": {"a": 0.5, "b": 0.5}},
        {"a": 2e-2 * D, "b": 1e-2 * D},
    ),
    "electrodes": ({"n_grains": 12, "rng": 5, "periodic": (False, True)}, {"general": 1e-2 * D}),
    "four walls": ({"n_grains": 12, "rng": 6, "periodic": (False, False)}, {"general": 2e-2 * D}),
}


@pytest.fixture(scope="module", params=list(CASES))
def case(request):
    arguments, widths = CASES[request.param]
    micro = polycrystal(mean_grain_size=D, **arguments)
    return micro, widths, layered_mesh(micro, widths)


def closure(mesh: CellMesh) -> np.ndarray:
    """Sum of area times outward normal of every cell (n, d)."""
    total = np.zeros((mesh.n_cells, mesh.dimension))
    for axis in range(mesh.dimension):
        flow = mesh.face_areas * mesh.face_normals[:, axis]
        total[:, axis] += np.bincount(mesh.face_cells[:, 0], flow, mesh.n_cells)
        total[:, axis] -= np.bincount(mesh.face_cells[:, 1], flow, mesh.n_cells)
        np.add.at(total[:, axis], mesh.outer_cells, mesh.outer_areas * mesh.outer_normals[:, axis])
    return total


def inset_area(micro, widths) -> np.ndarray:
    """Area of every grain inside its layers, by clipping the outline with the moved lines: an independent count."""
    areas = []
    for outline, facets in zip(micro.outlines, micro.outline_facets, strict=True):
        polygon = outline
        for j, f in enumerate(facets):
            a, b = outline[j], outline[(j + 1) % len(outline)]
            u = (b - a) / np.hypot(*(b - a))
            n = np.array([-u[1], u[0]])
            shift = 0.5 * widths[micro.boundary_names[micro.facet_type[f]]] if f >= 0 else 0.0
            height = (polygon - a) @ n - shift
            kept = []
            for k in range(len(polygon)):
                p, q, hp, hq = (
                    polygon[k],
                    polygon[(k + 1) % len(polygon)],
                    height[k],
                    height[(k + 1) % len(polygon)],
                )
                if hp >= 0:
                    kept.append(p)
                if (hp >= 0) != (hq >= 0):
                    kept.append(p + (q - p) * hp / (hp - hq))
            polygon = np.array(kept)
        x, y = (polygon - polygon[0]).T
        areas.append(0.5 * (x * np.roll(y, -1) - y * np.roll(x, -1)).sum())
    return np.array(areas)


def test_cells_fill_the_box_and_close(case):
    micro, _, mesh = case
    np.testing.assert_allclose(mesh.volumes.sum(), micro.box.prod(), rtol=1e-11, atol=0)
    assert mesh.volumes.min() > 0
    assert mesh.face_areas.min() > 0
    assert np.abs(closure(mesh)).max() < 1e-11 * micro.mean_grain_size


def test_every_grain_has_its_exact_area_so_no_face_leaves_an_interface(case):
    micro, widths, mesh = case
    merged = merged_for_widths(micro, widths)
    expected = inset_area(merged, widths)
    inside = mesh.grain >= 0
    got = np.bincount(mesh.grain[inside], mesh.volumes[inside], micro.n_grains)
    # Layers of unequal width that meet almost straight may taper near their junction.
    tolerance = 1e-10 if len(set(widths.values())) == 1 else 2e-3
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=0)


def test_layer_area_is_facet_length_times_width_less_the_overlap_at_junctions(case):
    micro, widths, mesh = case
    merged = merged_for_widths(micro, widths)
    width = np.array([widths[n] for n in merged.boundary_names])[merged.facet_type]
    strips = (merged.facet_lengths * width).sum()
    layer = mesh.volumes[mesh.region > 0].sum()
    ends = len(merged.vertices) * width.max() ** 2
    assert strips - ends < layer < strips + 0.2 * ends


def test_grains_touch_only_through_layers(case):
    _, _, mesh = case
    k, m = mesh.face_cells.T
    both = (mesh.grain[k] >= 0) & (mesh.grain[m] >= 0)
    assert np.all(mesh.grain[k[both]] == mesh.grain[m[both]])
    assert np.all((mesh.region > 0) == (mesh.facet >= 0))
    assert np.all((mesh.region > 0) == (mesh.grain < 0))
    np.testing.assert_allclose(np.hypot(*mesh.layer_normals[mesh.region > 0].T), 1.0, rtol=1e-12, atol=0)
    assert np.all(mesh.layer_normals[mesh.region == 0] == 0)


def test_faces_halve_the_line_between_generators(case):
    micro, _, mesh = case
    step = mesh.centers[mesh.face_cells[:, 1]] - mesh.centers[mesh.face_cells[:, 0]]
    for axis in (0, 1):
        if micro.periodic[axis]:
            over = np.abs(step[:, axis]) > 0.5 * micro.box[axis]
            step[over, axis] -= np.sign(step[over, axis]) * micro.box[axis]
    np.testing.assert_allclose(
        step, mesh.face_normals * mesh.face_lengths[:, None], rtol=0, atol=1e-9 * micro.mean_grain_size
    )


def linear_field_error(mesh: CellMesh, gradient: np.ndarray) -> float:
    """Largest error of the solution of a Laplace problem whose solution is linear, relative to its range.

    Walls hold the exact values, periodic faces carry the macroscopic step. Solved for the deviation from the exact
    field, so that the round-off of the linear solver does not hide the scheme.
    """
    n = mesh.n_cells
    k, m = mesh.face_cells.T
    link = mesh.face_areas / mesh.face_lengths
    wall = mesh.outer_areas / mesh.outer_distances
    flow = link * (mesh.face_normals @ gradient * mesh.face_lengths)
    outflow = wall * (mesh.outer_normals @ gradient * mesh.outer_distances)
    b = np.bincount(k, flow, n) - np.bincount(m, flow, n)
    np.add.at(b, mesh.outer_cells, outflow)
    diagonal = np.zeros(n)
    np.add.at(diagonal, mesh.outer_cells, wall)
    free = np.arange(n) if diagonal.any() else np.arange(1, n)
    data = np.r_[link, link, -link, -link, diagonal]
    row, col = np.r_[k, m, k, m, np.arange(n)], np.r_[k, m, m, k, np.arange(n)]
    matrix = coo_array((data, (row, col)), shape=(n, n)).tocsr()[free][:, free].tocsc()
    deviation = splu(matrix).solve(b[free])
    return float(np.abs(deviation).max() / np.ptp(mesh.centers @ gradient))


@pytest.mark.parametrize("gradient", [(1.0, 0.0), (0.3, -0.8)])
def test_linear_fields_are_exact(case, gradient):
    _, widths, mesh = case
    # Coordinates are rounded to 1e-16 of the box: over a layer of 1e-4 grain sizes that is 1e-12.
    tolerance = max(1e-12, 1e-15 * D / min(widths.values()))
    assert linear_field_error(mesh.scaled(1 / D), np.array(gradient)) < tolerance


def test_linear_fields_are_exact_on_tensor_meshes():
    x = np.cumsum(np.r_[0.0, 1.3 ** np.arange(9)])
    assert linear_field_error(tensor_mesh([x]), np.array([2.0])) < 1e-12
    assert linear_field_error(tensor_mesh([x, x], (True, False)), np.array([1.0, -2.0])) < 1e-12
    assert linear_field_error(nested_cube_octant(1.0, 0.05, 3, 8), np.array([1.0, 2.0, 3.0])) < 1e-12


def test_cells_grow_with_the_logarithm_of_the_inverse_width():
    micro = polycrystal(8, D, rng=7)
    counts = [layered_mesh(micro, {"general": w * D}).n_cells for w in (1e-2, 1e-3, 1e-4)]
    steps = np.diff(counts)
    assert counts[2] < 5 * counts[0]
    assert steps[1] < 2.0 * steps[0]


def test_first_cell_resolves_what_is_asked_for():
    micro = polycrystal(4, D, rng=7)
    width, first = 1e-2 * D, 1e-4 * D
    mesh = layered_mesh(micro, {"general": width}, first_cell=first)
    k, m = mesh.face_cells.T
    across = (mesh.region[k] > 0) != (mesh.region[m] > 0)
    across &= mesh.face_areas > 1e-9 * D
    assert np.all(mesh.face_lengths[across] <= first * (1 + 1e-9))


def test_bricks_and_a_single_boundary_are_meshed_exactly():
    mesh = layered_mesh(bricks(2, D), {"general": 0.04 * D})
    np.testing.assert_allclose(mesh.volumes[mesh.region == 0].sum(), 4 * (0.96 * D) ** 2, rtol=1e-11, atol=0)
    mesh = layered_mesh(lamellae(2, D, 0.5 * D, (False, True)), {"general": 0.04 * D})
    np.testing.assert_allclose(mesh.volumes[mesh.region == 1].sum(), 0.02 * D * D, rtol=1e-11, atol=0)
    assert set(mesh.outer_names) == {"left", "right"}
    np.testing.assert_allclose(mesh.outer_areas[mesh.outer_faces("left")].sum(), 0.5 * D, rtol=1e-11, atol=0)


def test_short_facets_become_one_junction():
    micro = polycrystal(50, D, 0.35, rng=1)
    assert micro.facet_lengths.min() < 0.012 * D
    widths = {"general": 0.03 * D}
    merged = merged_for_widths(micro, widths)
    assert merged.n_facets < micro.n_facets
    assert merged.facet_lengths.min() > 0.8 * widths["general"]
    assert merged.junction_degrees.max() >= 4


@pytest.mark.parametrize(
    ("widths", "options", "message"),
    [
        ({}, {}, "'general' needs a width"),
        ({"general": -1e-9}, {}, "-1e-09 is not allowed"),
        ({"general": 2e-6}, {}, "thinner than half the mean grain size"),
        ({"general": 1e-8}, {"cells_across": 3}, "even number"),
        ({"general": 1e-8}, {"growth": 0.9}, "growth: 0.9"),
        ({"general": 1e-8}, {"first_cell": 0.0}, "first_cell"),
    ],
)
def test_impossible_layers_are_refused(widths, options, message):
    with pytest.raises(InputError, match=message):
        layered_mesh(polycrystal(5, D, rng=1), widths, **options)


def test_a_layer_wider_than_a_small_grain_is_refused():
    micro = polycrystal(40, D, 0.9, rng=1)
    with pytest.raises(MeshError, match="smaller grain-boundary width"):
        layered_mesh(micro, {"general": 0.4 * D})


def test_vtu_is_read_back_by_meshio(tmp_path):
    micro = polycrystal(3, D, rng=1, boundary_types={"a": 0.5, "b": 0.5})
    mesh = layered_mesh(micro, {"a": 2e-2 * D, "b": 2e-2 * D})
    vector = np.column_stack([mesh.centers, np.zeros(mesh.n_cells)])
    path = write_vtu(
        tmp_path / "cells.vtu",
        mesh,
        {"potential & more": mesh.centers[:, 0] * 1e6, "v": vector, "z": vector[:, 0] * 1j},
    )
    back = meshio.read(path)
    assert sum(len(block.data) for block in back.cells) == mesh.n_cells
    assert {block.type for block in back.cells} == {"polygon"}
    area = 0.0
    for block in back.cells:
        for corners in block.data:
            x, y = back.points[corners, :2].T
            area += 0.5 * np.sum(x * np.roll(y, -1) - y * np.roll(x, -1))
    np.testing.assert_allclose(area, micro.box.prod(), rtol=1e-10, atol=0)
    field = np.concatenate(back.cell_data["potential & more"])
    np.testing.assert_allclose(np.sort(field), np.sort(mesh.centers[:, 0] * 1e6), rtol=1e-14, atol=0)
    assert not list(tmp_path.glob("*.partial"))
    with pytest.raises(InputError, match="cells"):
        write_vtu(tmp_path / "x.vtu", mesh, {"bad": np.zeros(3)})


def test_vtu_of_a_line_mesh(tmp_path):
    path = write_vtu(tmp_path / "line.vtu", tensor_mesh([np.array([0.0, 1.0, 3.0])]), {"u": [1.0, 2.0]})
    back = meshio.read(path)
    np.testing.assert_allclose(back.cell_data["u"][0], [1.0, 2.0], rtol=0, atol=0)
    with pytest.raises(MeshError, match="no polygons"):
        write_vtu(tmp_path / "cube.vtu", nested_cube_octant(1.0, 0.1, 1, 2))
