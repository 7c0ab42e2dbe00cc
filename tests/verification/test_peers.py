"""The kernel against other solvers of the same equations: scipy's collocation, DEVSIM, pyscses, FiPy's usual form."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
from scipy.constants import e, epsilon_0, k
from scipy.integrate import quad, solve_bvp

from mesoion.bench_peers import DevsimPNP, FiPyConcentration, PeerMissingError, load_devsim
from mesoion.errors import InputError, MeshError
from mesoion.layered_mesh import layered_mesh
from mesoion.material import Phase
from mesoion.mesh import CellMesh, tensor_mesh
from mesoion.microstructure import polycrystal
from mesoion.physics import CellFields, Electrode
from mesoion.smallsignal import impedance
from mesoion.solve import PNPSystem, State

TEMPERATURE = 298.15
SITES = 1.7e28
WIDTH = 2e-9
ELECTRODES = {"left": Electrode(), "right": Electrode()}


def phases(relative_permittivity: float, theta: float = 0.5, steps: float = 4.0) -> dict[str, Phase]:
    """A grain and a boundary 100 times less conducting that repels Li by `steps` kT."""
    fixed, eps = -theta * SITES, relative_permittivity
    energy = steps * k * TEMPERATURE
    return {
        "grain": Phase("grain", TEMPERATURE, SITES, theta, fixed, eps, 0.1, 0.1, 0.0),
        "general": Phase("general", TEMPERATURE, SITES, theta, fixed, eps, 1e-3, 1e-3, energy, WIDTH),
    }


def bicrystal_mesh(first: float, growth: float, grain: float = 100e-9) -> CellMesh:
    """Cells graded away from both interfaces of a layer in the middle."""

    def graded(length: float) -> np.ndarray:
        sizes = [first]
        while sum(sizes) < length:
            sizes.append(sizes[-1] * growth)
        return np.concatenate([[0.0], np.cumsum(sizes) * (length / sum(sizes))])

    inside = 0.5 * WIDTH - graded(0.5 * WIDTH)[::-1]
    half = np.concatenate([inside, 0.5 * WIDTH + graded(grain)[1:]])
    mesh = tensor_mesh([np.concatenate([-half[:0:-1], half])])
    layer = np.abs(mesh.centers[:, 0]) < 0.5 * WIDTH
    mesh = mesh.with_regions(layer.astype(int), ["grain", "general"])
    return replace(mesh, layer_normals=layer[:, None].astype(float))


def solved(mesh: CellMesh, fields: CellFields) -> tuple[PNPSystem, State]:
    system = PNPSystem(mesh, fields, TEMPERATURE, ELECTRODES, resolution="ignore")
    return system, system.equilibrium()


# Collocation on the Poisson-Boltzmann equation ----------------------------------------------------------------


class Collocation:
    """Half a boundary and its grain, eps psi'' = −e (N theta(psi) + n_fix) e/kT, solved to 1e-9 by scipy."""

    def __init__(self, both: dict[str, Phase], grain_length: float) -> None:
        grain, layer = both["grain"], both["general"]
        self.lengths = (0.5 * WIDTH, grain_length)
        self.phases = (layer, grain)
        bulk = np.log(grain.reference_occupancy / (1.0 - grain.reference_occupancy))
        self.offset = [bulk - p.standard_energy / (k * TEMPERATURE) for p in self.phases]
        debye = grain.debye_length
        start = np.linspace(0.0, 1.0, 400)
        guess = np.zeros((4, len(start)))
        guess[0] = self.offset[0] - bulk

        def right_hand_side(s: np.ndarray, y: np.ndarray) -> np.ndarray:
            rows = []
            for i, phase in enumerate(self.phases):
                psi, slope = y[2 * i], y[2 * i + 1]
                dx = self._position(i, s)[1]
                rho = phase.site_density * self._theta(i, psi) + phase.fixed_charge
                eps = epsilon_0 * phase.relative_permittivity
                rows += [slope / debye * dx, -(e**2) / (k * TEMPERATURE) * rho / eps * debye * dx]
            return np.array(rows)

        def conditions(left: np.ndarray, right: np.ndarray) -> np.ndarray:
            ratio = layer.relative_permittivity / grain.relative_permittivity
            return np.array([left[1], right[0] - left[2], right[1] * ratio - left[3], right[3]])

        self.solution = solve_bvp(right_hand_side, conditions, start, guess, tol=1e-9, max_nodes=200_000)
        assert self.solution.success, self.solution.message

    def _theta(self, i: int, psi: np.ndarray) -> np.ndarray:
        return 1.0 / (1.0 + np.exp(psi - self.offset[i]))

    def _position(self, i: int, s: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """x(s) and dx/ds, from the middle of the layer; the grain is stretched towards its far end."""
        if i == 0:
            return self.lengths[0] * s, np.full_like(s, self.lengths[0])
        a = 8.0
        scale = self.lengths[1] / np.expm1(a)
        return self.lengths[0] + scale * np.expm1(a * s), scale * a * np.exp(a * s)

    def at(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """psi [kT/e] and theta at distances x from the middle."""
        psi, theta = np.empty_like(x), np.empty_like(x)
        layer = x < self.lengths[0]
        a = 8.0
        s_grain = np.log1p(
            (x - self.lengths[0]) / self.lengths[1] * np.expm1(a), where=~layer, out=np.zeros_like(x)
        )
        for i, here, s in ((0, layer, x / self.lengths[0]), (1, ~layer, s_grain / a)):
            psi[here] = self.solution.sol(s[here])[2 * i]
            theta[here] = self._theta(i, psi[here])
        return psi, theta

    def resistance(self) -> float:
        """2 ∫ dx/sigma [ohm m²] from the middle of the layer to the end of the grain, twice."""
        total = 0.0
        for i, phase in enumerate(self.phases):
            reference = phase.reference_occupancy * (1.0 - phase.reference_occupancy)

            def integrand(s: float, i: int = i, phase: Phase = phase, reference: float = reference) -> float:
                theta = self._theta(i, self.solution.sol(s)[2 * i])
                sigma = phase.conductivity_across * theta * (1.0 - theta) / reference
                return float(self._position(i, np.float64(s))[1] / sigma)

            total += quad(integrand, 0.0, 1.0, limit=500, epsrel=1e-8)[0]
        return 2.0 * total


@pytest.mark.parametrize(
    ("relative_permittivity", "theta", "steps"), [(100.0, 0.5, 4.0), (1000.0, 0.3, 8.0), (12085.0, 0.5, -4.0)]
)
def test_space_charge_is_the_collocation_solution(
    relative_permittivity: float, theta: float, steps: float
) -> None:
    both = phases(relative_permittivity, theta, steps)
    reference = Collocation(both, 100e-9)
    thermal = k * TEMPERATURE / e
    errors = []
    # Half the cells' size everywhere: half the first one, the root of the growth.
    for first, growth in ((0.01e-9, 1.08), (0.005e-9, 1.08**0.5)):
        mesh = bicrystal_mesh(first, growth)
        system, rest = solved(mesh, CellFields.from_phases(mesh, both))
        psi, occupancy = reference.at(np.abs(mesh.centers[:, 0]))
        errors.append(np.abs(rest.potential / thermal - psi).max() / np.abs(psi).max())
    assert np.abs(psi).max() > 0.5
    assert errors[1] < 1e-3
    assert np.log2(errors[0] / errors[1]) > 1.8
    # An error of psi in kT is a relative one of theta.
    np.testing.assert_allclose(rest.occupancy, occupancy, rtol=4e-3, atol=0)
    # At low frequency the specimen shows 2 ∫ dx/sigma along the collocation profile.
    z = impedance(system, rest, np.array([1e-3])).impedance[0]
    np.testing.assert_allclose(z.real, reference.resistance(), rtol=1e-3, atol=0)


# DEVSIM -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def devsim_or_skip() -> None:
    try:
        load_devsim()
    except PeerMissingError as error:
        pytest.skip(str(error))


def compare_with_devsim(mesh: CellMesh, fields: CellFields, tolerance: float) -> None:
    frequencies = np.array([1e2, 1e6, 1e8, 1e10])
    system, rest = solved(mesh, fields)
    biased = system.steady_state({"right": 0.1})
    spectrum = impedance(system, rest, frequencies)
    peer = DevsimPNP(mesh, fields, TEMPERATURE)
    peer.equilibrium()
    scale = np.abs(rest.potential).max()
    assert scale > 0.02
    assert np.abs(peer.potential - rest.potential).max() < 1e-5 * scale
    np.testing.assert_allclose(peer.occupancy, rest.occupancy, rtol=1e-5, atol=0)
    peer.contacts()
    z = peer.impedance(frequencies)
    assert np.abs(z / spectrum.impedance - 1.0).max() < tolerance
    peer.steady_state(0.1)
    np.testing.assert_allclose(peer.current, biased.current("right"), rtol=tolerance, atol=0)
    assert np.abs(peer.potential - biased.potential).max() < tolerance * 0.1
    # And about the biased state.
    z = peer.impedance(frequencies)
    spectrum = impedance(system, biased, frequencies)
    assert np.abs(z / spectrum.impedance - 1.0).max() < tolerance


@pytest.mark.usefixtures("devsim_or_skip")
@pytest.mark.parametrize("relative_permittivity", [100.0, 1000.0])
def test_bicrystal_agrees_with_devsim(relative_permittivity: float) -> None:
    mesh = bicrystal_mesh(0.01e-9, 1.1)
    compare_with_devsim(mesh, CellFields.from_phases(mesh, phases(relative_permittivity)), 1e-2)


@pytest.mark.usefixtures("devsim_or_skip")
def test_polycrystal_agrees_with_devsim() -> None:
    grains = polycrystal(4, 60e-9, size_spread=0.2, rng=np.random.default_rng(2), periodic=(False, False))
    mesh = layered_mesh(grains, {"general": WIDTH}, first_cell=0.05e-9, growth=1.3)
    compare_with_devsim(mesh, CellFields.from_phases(mesh, phases(1000.0)), 1e-2)


@pytest.mark.usefixtures("devsim_or_skip")
def test_devsim_refuses_what_it_is_not_set_up_for() -> None:
    mesh = bicrystal_mesh(0.1e-9, 1.5)
    fields = CellFields.from_phases(mesh, phases(100.0))
    with pytest.raises(InputError, match="one lattice"):
        DevsimPNP(mesh, replace(fields, vacancy=np.zeros(mesh.n_cells, dtype=bool)), TEMPERATURE)
    box = tensor_mesh([np.linspace(0.0, 1e-8, 5)], (True,))
    with pytest.raises(MeshError, match="left and right"):
        DevsimPNP(box, CellFields.from_phases(box, {"grain": phases(100.0)["grain"]}), TEMPERATURE)


# FiPy in potential and concentration --------------------------------------------------------------------------


def test_fipy_in_concentrations_agrees() -> None:
    from mesoion.fipy_objects import RowScaledLU

    mesh = bicrystal_mesh(0.02e-9, 1.2)
    fields = CellFields.from_phases(mesh, phases(100.0))
    system, rest = solved(mesh, fields)
    peer = FiPyConcentration(mesh, fields, TEMPERATURE, None)
    peer.solver = RowScaledLU(peer.mesh)
    current = peer.steady_state(0.1, rest.potential)
    np.testing.assert_allclose(
        current, system.steady_state({"right": 0.1}).current("right"), rtol=1e-2, atol=0
    )


# pyscses ------------------------------------------------------------------------------------------------------

PYSCSES = """
import sys, warnings
warnings.simplefilter("ignore")
import numpy as np
from types import SimpleNamespace
from scipy.sparse import diags
import pyscses.matrix_solver
# pyscses 1.0.0 asks SciPy for an attribute that is gone since 1.14.
pyscses.matrix_solver.diags = lambda *a, **k: SimpleNamespace(A=diags(*a, **k).toarray())
from pyscses.calculation import Calculation
from pyscses.defect_species import DefectSpecies
from pyscses.grid import Grid
from pyscses.set_of_sites import Set_of_Sites
from pyscses.site import Site

x, energy, theta, spacing, density, eps, temperature = np.load(sys.argv[1], allow_pickle=False)["data"].T
spacing, density, eps, temperature = spacing[0], density[0], eps[0], temperature[0]
per_point = density * spacing * 1e-18
li = DefectSpecies("Li", 1.0, theta[0])
fixed, scaling = -theta[0] * per_point, np.array([per_point])
sites = Set_of_Sites([Site("A", float(p), [li], [float(u)], scaling, fixed) for p, u in zip(x, energy)])
# Not needed, and stopped by numpy 2: a list of one number set into an array.
Set_of_Sites.calculate_probabilities = lambda *a: None
grid = Grid.grid_from_set_of_sites(sites, [spacing, spacing], [spacing, spacing], 1e-9, 1e-9)
calculation = Calculation(grid, x[0] - spacing, x[10], 0.02, 1e-14, eps, temperature, "dirichlet")
calculation.form_subgrids(["A"])
calculation.solve("gouy-chapman")
np.savez(sys.argv[2], phi=calculation.phi)
"""


@pytest.mark.skipif(importlib.util.find_spec("pyscses") is None, reason="pyscses is not installed")
def test_space_charge_agrees_with_pyscses(tmp_path: object) -> None:
    # Sites every 0.1 nm, a layer of 2 nm between 5 nm of grain; pyscses stays within a few Debye lengths to converge.
    both = phases(1000.0)
    spacing, reach = 0.05e-9, 4e-9
    count = round((2 * reach + WIDTH) / spacing)
    mesh = tensor_mesh([np.linspace(-0.5, 0.5, count + 1) * (2 * reach + WIDTH)])
    layer = np.abs(mesh.centers[:, 0]) < 0.5 * WIDTH
    mesh = mesh.with_regions(layer.astype(int), ["grain", "general"])
    fields = CellFields.from_phases(mesh, both)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        _, rest = solved(mesh, fields)
    energy = fields.standard_energy / e
    ones = np.ones(mesh.n_cells)
    columns = [mesh.centers[:, 0], energy, 0.5 * ones, spacing * ones, SITES * ones, 1000.0 * ones]
    data = np.stack([*columns, TEMPERATURE * ones], axis=1)
    source, result = tmp_path / "in.npz", tmp_path / "out.npz"
    np.savez(source, data=data)
    # A process of its own: pyscses iterates without a bound.
    subprocess.run([sys.executable, "-c", PYSCSES, str(source), str(result)], check=True, timeout=120)
    phi = np.load(result)["phi"]
    assert np.abs(phi - rest.potential).max() < 1e-2 * np.abs(rest.potential).max()
