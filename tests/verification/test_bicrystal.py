"""One resolved boundary against an independent boundary-value solver, closed forms and its own limits."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.integrate import solve_bvp
from scipy.special import expit

from mesoion.bicrystal import Bicrystal, excess, solve_bicrystal
from mesoion.errors import InputError, MeshError
from mesoion.material import Phase, flat_band_energy
from mesoion.physics import BOLTZMANN, ELEMENTARY_CHARGE, VACUUM_PERMITTIVITY

TEMPERATURE = 298.15
KT = BOLTZMANN * TEMPERATURE
VT = KT / ELEMENTARY_CHARGE
WIDTH = 1.6e-9


def phases(
    permittivity: float, sites: float = 2.5e28, theta: float = 0.6, segregation: float = 0.0
) -> tuple[Phase, Phase]:
    grain = Phase("grain", TEMPERATURE, sites, theta, -sites * theta, permittivity, 1e-2, 1e-2, 0.0)
    layer = replace(
        grain,
        name="boundary",
        conductivity_across=1e-4,
        conductivity_along=1e-3,
        standard_energy=segregation * KT,
        width=WIDTH,
    )
    return grain, layer


def reference(b: Bicrystal) -> tuple[float, float, float]:
    """r, s and the potential in the middle from a collocation solver of the Poisson-Boltzmann equation."""
    grain, layer = b.grain, b.boundary
    end = float(b.mesh.volumes.sum() / 2.0)
    lengths = (0.5 * WIDTH, end - 0.5 * WIDTH)
    logit = np.log(grain.reference_occupancy / (1.0 - grain.reference_occupancy))

    def local(phase: Phase, psi: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        y = logit - psi - phase.standard_energy / KT
        theta, empty = expit(y), expit(-y)
        full = phase.reference_occupancy
        scale = theta * empty / (full * (1.0 - full))
        curvature = -(phase.site_density * theta + phase.fixed_charge) * ELEMENTARY_CHARGE
        curvature /= VACUUM_PERMITTIVITY * phase.relative_permittivity * VT
        return curvature, phase.conductivity_across * scale, phase.conductivity_along * scale

    sigma = grain.conductivity_across

    def slopes(_: np.ndarray, y: np.ndarray) -> np.ndarray:
        out = np.empty_like(y)
        for i, (phase, length) in enumerate(((layer, lengths[0]), (grain, lengths[1]))):
            psi, slope = y[4 * i], y[4 * i + 1]
            curvature, across, along = local(phase, psi)
            along = along if i == 0 else across
            out[4 * i] = slope * length / WIDTH
            out[4 * i + 1] = curvature * length * WIDTH
            out[4 * i + 2] = (sigma / across - 1.0) * length / WIDTH
            out[4 * i + 3] = (along / sigma - 1.0) * length / WIDTH
        return out

    ratio = layer.relative_permittivity / grain.relative_permittivity

    def ends(a: np.ndarray, z: np.ndarray) -> np.ndarray:
        return np.array([a[1], a[2], a[3], a[4] - z[0], a[5] - ratio * z[1], z[4], a[6] - z[2], a[7] - z[3]])

    t = np.r_[0.0, np.geomspace(1e-4, 1.0, 300)]
    centre = np.abs(b.x)
    order = np.argsort(centre)
    # In the layer the mesh is fine towards its face.
    mesh = np.unique(np.r_[t, 1.0 - t])
    guess = np.zeros((8, len(mesh)))
    positions = (lengths[0] * mesh, lengths[0] + lengths[1] * mesh)
    for i, x in enumerate(positions):
        psi = np.interp(x, centre[order], b.potential[order] / VT)
        guess[4 * i] = psi
        guess[4 * i + 1] = np.gradient(psi, x) * WIDTH
    solution = solve_bvp(slopes, ends, mesh, guess, tol=1e-6, max_nodes=100000)
    assert solution.success, solution.message
    y0, y1 = solution.sol(0.0), solution.sol(1.0)
    return 2.0 * y1[6] * WIDTH / sigma, 2.0 * y1[7] * WIDTH * sigma, y0[0]


@pytest.mark.parametrize("permittivity", [50.0, 12085.0])
@pytest.mark.parametrize(("segregation", "charge"), [(4.0, 0.0), (-6.0, 0.0), (0.0, 2e18), (12.0, -1e18)])
def test_default_mesh_against_a_boundary_value_solver(permittivity: float, segregation: float, charge: float):
    b = solve_bicrystal(*phases(permittivity, segregation=segregation), core_charge=charge)
    r, s, middle = reference(b)
    np.testing.assert_allclose(b.excess_resistance, r, rtol=1e-3)
    np.testing.assert_allclose(b.excess_sheet_conductance, s, rtol=1e-3)
    np.testing.assert_allclose(b.core_potential / VT, middle, rtol=1e-3, atol=1e-4)


def test_second_order_in_the_cell_size():
    pair = phases(50.0, segregation=8.0)
    values = np.array(
        [
            (b.excess_resistance, b.excess_sheet_conductance)
            for b in (solve_bicrystal(*pair, cells_per_debye_length=n) for n in (8.0, 16.0, 32.0))
        ]
    )
    assert np.all(np.log2(np.abs((values[0] - values[1]) / (values[1] - values[2]))) > 1.9)


def test_layer_without_space_charge_is_its_own_excess():
    grain, layer = phases(500.0)
    layer = replace(layer, relative_permittivity=200.0)
    b = solve_bicrystal(grain, layer)
    np.testing.assert_allclose(b.potential, 0.0, rtol=0, atol=1e-12)
    np.testing.assert_allclose(b.excess_resistance, WIDTH * (1 / 1e-4 - 1 / 1e-2), rtol=1e-9)
    np.testing.assert_allclose(b.excess_sheet_conductance, WIDTH * (1e-3 - 1e-2), rtol=1e-12)
    f = np.logspace(0, 12, 7)
    iw = 2j * np.pi * f * VACUUM_PERMITTIVITY
    # With no space charge at rest, the grain beside the layer still polarises over a Debye length: limits only.
    z = b.excess_impedance(f)
    np.testing.assert_allclose(z[0].real, b.excess_resistance, rtol=1e-6)
    np.testing.assert_allclose(z[-1], (WIDTH / (1e-4 + 200 * iw) - WIDTH / (1e-2 + 500 * iw))[-1], rtol=1e-3)
    y = WIDTH * ((1e-3 + 200 * iw) - (1e-2 + 500 * iw))
    np.testing.assert_allclose(b.excess_sheet_admittance(f), y, rtol=1e-12)


@pytest.mark.parametrize("permittivity", [50.0, 12085.0])
def test_space_charge_balances_the_core_and_follows_its_sign(permittivity: float):
    for charge in (3e18, -3e18):
        b = solve_bicrystal(*phases(permittivity), core_charge=charge)
        assert np.sign(b.core_potential) == np.sign(b.space_charge_potential) == np.sign(charge)
        total = b.state.charge_density @ b.mesh.volumes
        assert abs(total) < 1e-6 * abs(b.core_charge)
        assert abs(b.core_potential) > abs(b.space_charge_potential)
    assert "Debye length" in b.mesh_note


def test_excess_impedance_is_an_arc_that_starts_at_r():
    b = solve_bicrystal(*phases(50.0, segregation=8.0))
    z = b.excess_impedance(np.logspace(-2, 11, 40))
    np.testing.assert_allclose(z[0].real, b.excess_resistance, rtol=1e-7)
    # Above the grain's own relaxation the better conductor dissipates more, and the excess turns negative.
    arc = np.abs(z) > 0.1 * abs(z[0])
    assert 10 < arc.sum() < 40
    assert np.all(z[arc].real > 0.0)
    assert np.all(z[arc].imag < 0.0)


def test_permittivity_decides_the_width_of_the_space_charge():
    narrow, wide = (solve_bicrystal(*phases(eps), core_charge=1e18) for eps in (50.0, 12085.0))
    np.testing.assert_allclose(wide.debye_length / narrow.debye_length, np.sqrt(12085.0 / 50.0), rtol=1e-12)
    assert wide.mesh.volumes.sum() > 5.0 * narrow.mesh.volumes.sum()


def test_bad_input_is_refused():
    grain, layer = phases(50.0)
    with pytest.raises(InputError, match="width"):
        solve_bicrystal(grain, replace(layer, width=None, fixed_charge=grain.fixed_charge))
    with pytest.raises(InputError, match="temperature"):
        solve_bicrystal(grain, replace(layer, temperature=400.0))
    with pytest.raises(InputError, match="half_length"):
        solve_bicrystal(grain, layer, half_length=0.5e-9)
    with pytest.raises(InputError, match="core_charge"):
        solve_bicrystal(grain, layer, core_charge=np.nan)
    with pytest.raises(MeshError, match="cuts the space charge"):
        solve_bicrystal(grain, layer, core_charge=1e18, half_length=1e-9)


@pytest.mark.parametrize(
    ("shift", "charge"), [(0.0, 0.0), (1e-6, 0.0), (0.0, 1e-6), (-0.5, 0.0), (0.0, 0.01)]
)
def test_excess_is_the_resolved_one_with_and_without_space_charge(shift: float, charge: float) -> None:
    """Flat bands in closed form, everything else resolved: no jump between the two."""
    grain, layer = phases(60.0)
    sites, theta = 3.1e28, 0.35
    layer = replace(
        layer,
        site_density=sites,
        reference_occupancy=theta,
        fixed_charge=-sites * theta * (1.0 - charge),
        standard_energy=flat_band_energy(TEMPERATURE, grain.reference_occupancy, theta) + shift * KT,
    )
    resolved = solve_bicrystal(grain, layer)
    np.testing.assert_allclose(
        excess(grain, layer),
        (resolved.excess_resistance, resolved.excess_sheet_conductance),
        rtol=1e-10,
        atol=0,
    )
