"""FiPy on our cells: linear fields, round trips, a user's equation, and coupled PNP against the kernel."""

from __future__ import annotations

import re
import subprocess
import sys
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.constants import e, epsilon_0, k

from mesoion.errors import ConvergenceError, InputError, MeshError
from mesoion.fipy_bridge import cell_gradient, from_fipy, joule_heat, load_fipy, to_fipy
from mesoion.layered_mesh import layered_mesh
from mesoion.material import Phase
from mesoion.mesh import CellMesh, tensor_mesh
from mesoion.microstructure import polycrystal
from mesoion.physics import CellFields, Electrode
from mesoion.smallsignal import impedance
from mesoion.solve import PNPSystem

TEMPERATURE = 298.15
SITES = 1.7e28
LAYER_WIDTH = 2e-9


def uneven(rng: np.random.Generator, n: int) -> np.ndarray:
    return 1e-9 * np.concatenate([[0.0], np.cumsum(rng.uniform(0.05, 3.0, n))])


def polycrystal_mesh(
    periodic: tuple[bool, bool], n_grains: int = 12, seed: int = 1, **options: float
) -> CellMesh:
    rng = np.random.default_rng(seed)
    grains = polycrystal(n_grains, 60e-9, size_spread=0.2, rng=rng, periodic=periodic)
    return layered_mesh(grains, {"general": LAYER_WIDTH}, **options)


MESHES = {
    "1D": lambda rng: tensor_mesh([uneven(rng, 30)]),
    "2D rectangles": lambda rng: tensor_mesh([uneven(rng, 12), uneven(rng, 1)]),
    "2D, one periodic cell across": lambda rng: tensor_mesh([uneven(rng, 12), uneven(rng, 1)], (False, True)),
    "3D": lambda rng: tensor_mesh([uneven(rng, 6), uneven(rng, 5), uneven(rng, 4)], (False, False, True)),
    "2D layers": lambda rng: polycrystal_mesh((False, False)),
    "2D layers, periodic": lambda rng: polycrystal_mesh((False, True)),
}


@pytest.mark.parametrize("name", MESHES)
@pytest.mark.parametrize("length_unit", [1.0, 1e-9])
def test_linear_fields_are_exact(name: str, length_unit: float) -> None:
    fipy = load_fipy()
    from mesoion.fipy_objects import RowScaledLU

    mesh = MESHES[name](np.random.default_rng(0))
    cells = to_fipy(mesh, length_unit=length_unit)
    slope = np.array([1.3, -0.7, 0.4])[: mesh.dimension] * (mesh.period == 0.0)
    exact = slope @ cells.mesh.cellCenters.value
    u = fipy.CellVariable(mesh=cells.mesh)
    u.constrain(slope @ cells.mesh.faceCenters.value, where=cells.mesh.exteriorFaces)
    # The plain DiffusionTerm: no non-orthogonal correction may be switched on.
    (fipy.DiffusionTerm(coeff=2.0) == 0).solve(var=u, solver=RowScaledLU(cells.mesh))
    assert np.abs(u.value - exact).max() < 1e-12 * np.abs(exact).max()
    assert np.abs(cell_gradient(u) - slope[:, None]).max() < 1e-10
    normal = (u.faceGrad.value * cells.mesh.faceNormals).sum(axis=0)
    assert np.abs(normal - slope @ cells.mesh.faceNormals).max() < 1e-10


@pytest.mark.parametrize("name", MESHES)
def test_geometry_and_values_round_trip(name: str) -> None:
    rng = np.random.default_rng(1)
    mesh = MESHES[name](rng)
    fields = {
        "scalar": rng.normal(size=mesh.n_cells),
        "vector": rng.normal(size=(mesh.dimension, mesh.n_cells)),
    }
    cells = to_fipy(mesh, fields, length_unit=1e-9)
    for key, values in fields.items():
        np.testing.assert_array_equal(from_fipy(cells.fields[key]), values)
    scale = 1e-9
    np.testing.assert_allclose(
        cells.mesh.cellVolumes * scale**mesh.dimension, mesh.volumes, rtol=1e-14, atol=0
    )
    np.testing.assert_allclose(cells.mesh.cellCenters.value.T * scale, mesh.centers, rtol=1e-14, atol=0)
    assert set(cells.faces) == set(mesh.outer_names)
    for face in mesh.outer_names:
        area = (cells.mesh._faceAreas * cells.faces[face].value).sum() * scale ** (mesh.dimension - 1)
        np.testing.assert_allclose(area, mesh.outer_areas[mesh.outer_faces(face)].sum(), rtol=1e-13, atol=0)
    for index, region in enumerate(mesh.region_names):
        np.testing.assert_array_equal(cells.regions[region].value, mesh.region == index)
    # A closed cell: its outward areas cancel, in the middle of the box and at its walls.
    area = cells.mesh._faceAreas * cells.mesh.faceNormals
    for axis in range(mesh.dimension):
        outward = fipy_divergence(cells.mesh, area[axis])
        assert np.abs(outward).max() < 1e-9 * area.max()


def fipy_divergence(mesh: object, through: np.ndarray) -> np.ndarray:
    fipy = load_fipy()
    flux = fipy.FaceVariable(mesh=mesh, value=through / mesh._faceAreas)
    return np.asarray(
        (flux * fipy.FaceVariable(mesh=mesh, rank=1, value=mesh.faceNormals)).divergence.value
    ) * (mesh.cellVolumes)


def test_layers_between_regions_and_anisotropy() -> None:
    # A stripe of width 2 in a box of 6 x 1: across it resistances add, along it conductances.
    fipy = load_fipy()
    from mesoion.fipy_objects import RowScaledLU

    edges = np.linspace(0.0, 6.0, 13)
    mesh = tensor_mesh([edges, np.linspace(0.0, 1.0, 4)])
    layer = np.abs(mesh.centers[:, 0] - 3.0) < 1.0
    mesh = mesh.with_regions(layer.astype(int), ["grain", "layer"])
    mesh = replace(mesh, layer_normals=np.where(layer[:, None], [1.0, 0.0], 0.0))
    across, along = np.where(layer, 0.1, 2.0), np.where(layer, 5.0, 77.0)
    conductance = {}
    for first, second in (("left", "right"), ("bottom", "top")):
        cells = to_fipy(mesh)
        u = fipy.CellVariable(mesh=cells.mesh)
        u.constrain(0.0, where=cells.faces[first])
        u.constrain(1.0, where=cells.faces[second])
        sigma = cells.mesh.coefficient(across, along)
        (fipy.DiffusionTerm(coeff=sigma) == 0).solve(var=u, solver=RowScaledLU(cells.mesh))
        flow = sigma.value * (u.faceGrad.value * cells.mesh.faceNormals).sum(axis=0) * cells.mesh._faceAreas
        conductance[first] = flow[cells.faces[second].value].sum()
        assert cells.mesh.between("grain", "layer").value.sum() == 6
    np.testing.assert_allclose(conductance["left"], 1.0 / (4.0 / 2.0 + 2.0 / 0.1), rtol=1e-12, atol=0)
    np.testing.assert_allclose(conductance["bottom"], 4.0 * 2.0 + 2.0 * 5.0, rtol=1e-12, atol=0)
    # A face at 60 degrees to the layer's normal sees a quarter of the across and three quarters of the along value.
    tilted = replace(mesh, layer_normals=np.where(layer[:, None], [0.5, np.sqrt(0.75)], 0.0))
    seen = to_fipy(tilted).mesh.sides(across, along)[0]
    upright = np.abs(to_fipy(tilted).mesh.faceNormals[0]) == 1.0
    inside = layer[to_fipy(tilted).mesh.faceCellIDs[0]]
    np.testing.assert_allclose(seen[upright & inside], 0.25 * 0.1 + 0.75 * 5.0, rtol=1e-12, atol=0)
    np.testing.assert_allclose(seen[upright & ~inside], 2.0, rtol=1e-12, atol=0)


def test_bad_fields_and_names_are_refused() -> None:
    mesh = tensor_mesh([np.linspace(0.0, 1.0, 4)])
    with pytest.raises(MeshError, match=r"field 'x' has shape \(2,\)"):
        to_fipy(mesh, {"x": np.zeros(2)})
    with pytest.raises(MeshError, match="complex"):
        to_fipy(mesh, {"x": np.zeros(3, dtype=complex)})
    with pytest.raises(MeshError, match="length unit"):
        to_fipy(mesh, length_unit=0.0)
    cells = to_fipy(mesh)
    with pytest.raises(MeshError, match="no region is called 'layer'"):
        cells.mesh.between("grain", "layer")
    with pytest.raises(MeshError, match="no outer faces are called 'top'"):
        cells.mesh.outer("top")


def test_fipy_loads_late_and_leaves_the_command_line_alone() -> None:
    code = (
        "import sys, warnings; warnings.simplefilter('error'); sys.argv = ['x', '--inline', '--cache', '--trilinos'];"
        "import mesoion.fipy_bridge as b; assert 'fipy' not in sys.modules;"
        "from mesoion.mesh import tensor_mesh; import numpy as np; b.to_fipy(tensor_mesh([np.linspace(0, 1, 3)]));"
        "assert 'fipy' in sys.modules and sys.argv[1:] == ['--inline', '--cache', '--trilinos'];"
        "assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)


def test_the_solver_says_when_it_fails() -> None:
    fipy = load_fipy()
    from mesoion.fipy_objects import RowScaledLU

    cells = to_fipy(tensor_mesh([np.linspace(0.0, 1.0, 5)]))
    u = fipy.CellVariable(mesh=cells.mesh)
    # No wall holds u: the matrix is singular and the source has nowhere to go.
    with pytest.raises(ConvergenceError, match="singular"):
        (fipy.DiffusionTerm(coeff=1.0) + 1.0 == 0).solve(var=u, solver=RowScaledLU(cells.mesh))
    # A tolerance below rounding is missed, and said to be.
    w = fipy.CellVariable(mesh=cells.mesh)
    w.constrain(1.0 / 3.0, where=cells.mesh.exteriorFaces)
    with pytest.raises(ConvergenceError, match="no accurate solution"):
        (fipy.DiffusionTerm(coeff=0.7) + 1.1 == 0).solve(
            var=w, solver=RowScaledLU(cells.mesh, tolerance=1e-30)
        )
    # Nothing at all in the matrix.
    with pytest.raises(ConvergenceError, match="empty"):
        (fipy.DiffusionTerm(coeff=0.0) + 1.0 == 0).solve(var=u, solver=RowScaledLU(cells.mesh))


def test_the_solver_pivots_where_it_has_to() -> None:
    # Equations on each other's rows: v = −1 and u = −3 with hardly a diagonal.
    fipy = load_fipy()
    from mesoion.fipy_objects import RowScaledLU, SignedImplicitSource

    cells = to_fipy(tensor_mesh([np.linspace(0.0, 1.0, 5)]))
    u, v = fipy.CellVariable(mesh=cells.mesh), fipy.CellVariable(mesh=cells.mesh)
    crossed = (fipy.DiffusionTerm(1e-22, var=u) + SignedImplicitSource(1.0, var=v) + 1.0 == 0) & (
        fipy.DiffusionTerm(1e-22, var=v) + SignedImplicitSource(1.0, var=u) + 3.0 == 0
    )
    crossed.sweep(solver=RowScaledLU(cells.mesh))
    np.testing.assert_allclose(v.value, -1.0, rtol=1e-12, atol=0)
    np.testing.assert_allclose(u.value, -3.0, rtol=1e-12, atol=0)


def test_signed_source_couples_where_the_stock_term_does_not() -> None:
    # u'' = v, v'' = 0 with v = 1: u = x(x - 1)/2 in one coupled solve.
    fipy = load_fipy()
    from mesoion.fipy_objects import RowScaledLU, SignedImplicitSource

    cells = to_fipy(tensor_mesh([np.linspace(0.0, 1.0, 41)]))

    def solve(source: type) -> float:
        u, v = fipy.CellVariable(mesh=cells.mesh), fipy.CellVariable(mesh=cells.mesh)
        u.constrain(0.0, where=cells.mesh.exteriorFaces)
        v.constrain(1.0, where=cells.mesh.exteriorFaces)
        both = (fipy.DiffusionTerm(1.0, var=u) - source(1.0, var=v) == 0) & (
            fipy.DiffusionTerm(1.0, var=v) == 0
        )
        both.sweep(solver=RowScaledLU(cells.mesh))
        x = cells.mesh.cellCenters.value[0]
        return float(np.abs(u.value - 0.5 * x * (x - 1.0)).max())

    assert solve(SignedImplicitSource) < 1e-4
    both_signs = {solve(fipy.ImplicitSourceTerm)}
    assert max(both_signs) > 0.1


# A user's own equation ----------------------------------------------------------------------------------------


def test_joule_heat_of_a_uniform_grain_is_the_parabola() -> None:
    # kappa T'' + sigma (V/L)² = 0: T = q x (L - x)/(2 kappa), and the cells' values lie q h²/(8 kappa) above it.
    fipy = load_fipy()
    from mesoion.fipy_objects import RowScaledLU

    n, length, volt, kappa = 40, 2e-7, 0.05, 2.0
    mesh = tensor_mesh([np.linspace(0.0, length, n + 1)])
    grain = Phase("grain", TEMPERATURE, SITES, 0.5, -0.5 * SITES, 12085.0, 0.1, 0.1, 0.0)
    system = PNPSystem(
        mesh,
        CellFields.from_phases(mesh, {"grain": grain}),
        TEMPERATURE,
        {"left": Electrode(), "right": Electrode()},
        resolution="ignore",
    )
    state = system.steady_state({"right": volt})
    cells = to_fipy(mesh, {"ions": state.electrochemical_potential / e})
    ions = cells.fields["ions"]
    ions.constrain(0.0, where=cells.faces["left"])
    ions.constrain(volt, where=cells.faces["right"])
    heat = joule_heat(cells.mesh.coefficient(state.conductivity_across, state.conductivity_along), ions)
    q = 0.1 * (volt / length) ** 2
    np.testing.assert_allclose(heat, q, rtol=1e-8, atol=0)
    warming = fipy.CellVariable(mesh=cells.mesh)
    warming.constrain(0.0, where=cells.mesh.exteriorFaces)
    source = fipy.CellVariable(mesh=cells.mesh, value=heat)
    (fipy.DiffusionTerm(coeff=kappa) + source == 0).solve(var=warming, solver=RowScaledLU(cells.mesh))
    x, h = mesh.centers[:, 0], length / n
    np.testing.assert_allclose(
        warming.value, q * x * (length - x) / (2 * kappa) + q * h**2 / (8 * kappa), rtol=1e-8, atol=0
    )
    power = heat @ mesh.volumes
    np.testing.assert_allclose(power, state.current("right") * volt, rtol=1e-8, atol=0)


def test_the_worked_example_conserves_energy() -> None:
    text = (Path(__file__).parents[2] / "docs" / "fipy.md").read_text(encoding="utf-8")
    names: dict[str, object] = {}
    for block in re.findall(r"```python test\n(.*?)```", text, flags=re.S):
        exec(compile(block, "docs/fipy.md", "exec"), names)
    mesh, cells = names["mesh"], names["cells"]
    warming = names["warming"]
    normal = (warming.faceGrad.value * cells.mesh.faceNormals).sum(axis=0)
    leaving = -names["kappa"] * normal[cells.mesh.exteriorFaces.value].sum()
    made = joule_heat(names["conductivity"], names["ions"]) @ mesh.volumes
    np.testing.assert_allclose(leaving, made, rtol=1e-9, atol=0)
    np.testing.assert_allclose(made, names["power"], rtol=1e-3, atol=0)
    assert 0.5 < names["share"] < 1.0


# The cross-check of the kernel --------------------------------------------------------------------------------


def phases(
    relative_permittivity: float, mobility_law: str = "vacancy", theta: float = 0.5
) -> dict[str, Phase]:
    """A grain and a boundary that conducts 100 times worse across, 50 times along, and repels Li by 4 kT."""
    fixed, eps = -theta * SITES, relative_permittivity
    repelled = 4.0 * k * TEMPERATURE
    return {
        "grain": Phase("grain", TEMPERATURE, SITES, theta, fixed, eps, 0.1, 0.1, 0.0, None, mobility_law),
        "general": Phase(
            "general", TEMPERATURE, SITES, theta, fixed, eps, 1e-3, 2e-3, repelled, LAYER_WIDTH, mobility_law
        ),
    }


def bicrystal_mesh(first: float, growth: float, grain: float = 100e-9) -> CellMesh:
    """Cells graded away from both interfaces of a layer in the middle, its normal along x."""

    def graded(length: float) -> np.ndarray:
        sizes = [first]
        while sum(sizes) < length:
            sizes.append(sizes[-1] * growth)
        return np.concatenate([[0.0], np.cumsum(sizes) * (length / sum(sizes))])

    inside = 0.5 * LAYER_WIDTH - graded(0.5 * LAYER_WIDTH)[::-1]
    half = np.concatenate([inside, 0.5 * LAYER_WIDTH + graded(grain)[1:]])
    mesh = tensor_mesh([np.concatenate([-half[:0:-1], half])])
    layer = np.abs(mesh.centers[:, 0]) < 0.5 * LAYER_WIDTH
    mesh = mesh.with_regions(layer.astype(int), ["grain", "general"])
    return replace(mesh, layer_normals=layer[:, None].astype(float))


def compare(mesh: CellMesh, fields: CellFields, frequencies: np.ndarray, tolerance: float) -> None:
    from mesoion.fipy_pnp import FiPyPNP

    electrodes = {"left": Electrode(), "right": Electrode()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        own = PNPSystem(mesh, fields, TEMPERATURE, electrodes, resolution="ignore")
        rest, biased = own.equilibrium(), own.steady_state({"right": 0.1})
        spectrum = impedance(own, rest, frequencies)
    other = FiPyPNP(mesh, fields, TEMPERATURE, electrodes)
    there, there_biased = other.equilibrium(), other.steady_state({"right": 0.1})
    # Equilibrium is exact on the mesh in both: only rounding is left.
    scale = np.abs(rest.potential).max()
    assert scale > 0.02
    assert np.abs(there.potential - rest.potential).max() < 1e-8 * scale
    np.testing.assert_allclose(there.occupancy, rest.occupancy, rtol=1e-7, atol=0)
    currents = [there_biased.current["right"], -there_biased.current["left"]]
    np.testing.assert_allclose(currents, biased.current("right"), rtol=tolerance, atol=0)
    assert np.abs(there_biased.potential - biased.potential).max() < tolerance * 0.1
    np.testing.assert_allclose(there_biased.occupancy, biased.occupancy, rtol=10 * tolerance, atol=0)
    z = other.impedance(frequencies, "right")
    assert np.abs(z / spectrum.impedance - 1.0).max() < tolerance


@pytest.mark.parametrize(
    ("relative_permittivity", "mobility_law", "theta"),
    [(100.0, "vacancy", 0.5), (1000.0, "vacancy", 0.3), (100.0, "dilute", 0.5)],
)
def test_bicrystal_agrees_with_the_kernel(
    relative_permittivity: float, mobility_law: str, theta: float
) -> None:
    mesh = bicrystal_mesh(0.01e-9, 1.1)
    fields = CellFields.from_phases(mesh, phases(relative_permittivity, mobility_law, theta))
    compare(mesh, fields, np.array([1e2, 1e6, 1e8, 1e10]), 1e-3)


def test_a_layer_of_its_own_lattice_and_permittivity_agrees_with_the_kernel() -> None:
    # Fewer sites, a lower permittivity, a charged core and an attraction, all in the layer.
    mesh = bicrystal_mesh(0.01e-9, 1.1)
    grain = phases(1000.0)["grain"]
    layer = Phase(
        "general",
        TEMPERATURE,
        0.6 * SITES,
        0.4,
        -0.1 * SITES,
        300.0,
        2e-3,
        5e-2,
        -1.5 * k * TEMPERATURE,
        LAYER_WIDTH,
    )
    fields = CellFields.from_phases(mesh, {"grain": grain, "general": layer})
    compare(mesh, fields, np.array([1e2, 1e6, 1e8, 1e10]), 1e-3)


def test_polycrystal_agrees_with_the_kernel() -> None:
    mesh = polycrystal_mesh(
        (False, True), n_grains=4, seed=2, cells_across=16, first_cell=0.05e-9, growth=1.3
    )
    fields = CellFields.from_phases(mesh, phases(1000.0))
    compare(mesh, fields, np.array([1e3, 1e6]), 1e-3)


def test_blocking_cell_from_fipy_terms_is_the_closed_form() -> None:
    # Z A = (L/sigma)/(1 + i w tau) + 2 lambda tanh(s L/2 lambda)/(i w eps s³), s = sqrt(1 + i w tau).
    from mesoion.fipy_pnp import FiPyPNP

    length, sigma, eps_r = 20e-9, 0.1, 1000.0
    edge = 0.5 * length * (1.0 - np.sinh(np.linspace(5.0, 0.0, 121)) / np.sinh(5.0))
    mesh = tensor_mesh([np.sort(np.concatenate([0.5 * length - edge, 0.5 * length + edge[1:]]))])
    grain = Phase("grain", TEMPERATURE, SITES, 0.5, -0.5 * SITES, eps_r, sigma, sigma, 0.0)
    blocking = Electrode(kind="blocking")
    other = FiPyPNP(
        mesh,
        CellFields.from_phases(mesh, {"grain": grain}),
        TEMPERATURE,
        {"left": blocking, "right": blocking},
    )
    f = np.logspace(0, 12, 7)
    eps, debye = eps_r * epsilon_0, grain.debye_length
    w = 2j * np.pi * f
    s = np.sqrt(1.0 + w * eps / sigma)
    exact = (length / sigma) / s**2 + 2.0 * debye * np.tanh(s * length / (2.0 * debye)) / (w * eps * s**3)
    assert np.abs(other.impedance(f, "right") / exact - 1.0).max() < 1e-3
    with pytest.raises(InputError, match="reversible"):
        other.steady_state({"right": 0.1})
