"""The fast excess of a charged boundary against the resolved bicrystal, and its limit without charge."""

from __future__ import annotations

import numpy as np
import pytest

from mesoion.bicrystal import solve_bicrystal
from mesoion.charged_boundary import ChargedBoundary, Lattice, charged_boundary
from mesoion.errors import ConvergenceError, InputError
from mesoion.material import Material, Phase
from mesoion.units import VACUUM_PERMITTIVITY

T = 298.15
FREQUENCY = np.array([1e-3, 1e2, 1e4, 1e5])


def phases(permittivity: float) -> tuple[Phase, Phase, Lattice]:
    material = Material.from_records(
        "llzo-bulk", {"sigma17": "llzo-sigma17"}, relative_permittivity=permittivity
    )
    return material.grain(T), material.boundary(T, "sigma17"), Lattice.of(material, "sigma17", T)


def fast(
    grain: Phase, layer: Phase, lattice: Lattice, charge: float, **steps: tuple[int, int]
) -> ChargedBoundary:
    assert layer.width is not None
    ratio = layer.relative_permittivity / grain.relative_permittivity
    return charged_boundary(
        lattice, width=layer.width, core_charge=charge, temperature=T,
        permittivity=grain.relative_permittivity, permittivity_ratio=ratio, **steps,
    )  # fmt: skip


def excess(grain: Phase, layer: Phase, found: ChargedBoundary) -> tuple[np.ndarray, np.ndarray]:
    omega = 2 * np.pi * FREQUENCY
    iwe = 1j * omega * VACUUM_PERMITTIVITY
    of_bulk, of_layer = iwe * grain.relative_permittivity, iwe * layer.relative_permittivity
    return found.excess(grain.conductivity_across, layer.conductivity_across, of_bulk, of_layer, omega)


@pytest.mark.parametrize("charge", [2e17, 2e18, -5e17])
@pytest.mark.parametrize("permittivity", [50.0, 12085.0])
def test_excess_is_that_of_the_resolved_bicrystal(permittivity: float, charge: float) -> None:
    grain, layer, lattice = phases(permittivity)
    resolved = solve_bicrystal(grain, layer, core_charge=charge)
    across, along = excess(grain, layer, fast(grain, layer, lattice, charge))
    np.testing.assert_allclose(across[0].real, resolved.excess_resistance, rtol=3e-5, atol=0)
    np.testing.assert_allclose(along[0].real, resolved.excess_sheet_conductance, rtol=1e-3, atol=0)
    error = np.abs(across - resolved.excess_impedance(FREQUENCY))
    assert np.all(error < 2e-3 * np.abs(across))


def test_without_charge_the_layer_is_a_slab_in_series() -> None:
    grain, layer, lattice = phases(50.0)
    assert layer.width is not None
    across, along = excess(grain, layer, fast(grain, layer, lattice, 0.0))
    a, b = grain.conductivity_across, layer.conductivity_across
    np.testing.assert_allclose(across[0].real, layer.width * (1 / b - 1 / a), rtol=1e-10, atol=0)
    np.testing.assert_allclose(along[0].real, layer.width * (b - a), rtol=1e-10, atol=0)


def test_finer_steps_halve_the_error_twice() -> None:
    grain, layer, lattice = phases(50.0)
    exact = excess(grain, layer, fast(grain, layer, lattice, 2e18, intervals=(192, 576)))[0][0].real
    errors = [
        abs(excess(grain, layer, fast(grain, layer, lattice, 2e18, intervals=(n, 3 * n)))[0][0].real - exact)
        for n in (24, 48)
    ]
    assert errors[1] < errors[0] / 3


@pytest.mark.parametrize("change", [{"site_density": 0.0}, {"occupancy": 1.0}, {"boundary_occupancy": -0.1}])
def test_impossible_lattices_are_refused(change: dict[str, float]) -> None:
    good = {"site_density": 3e28, "occupancy": 0.7, "boundary_site_density": 3e28, "boundary_occupancy": 0.7}
    with pytest.raises(InputError, match=next(iter(change))):
        Lattice(**(good | change))


@pytest.mark.parametrize(("charge", "permittivity"), [(-7e18, 6.6), (-4.2e18, 2.4), (-5.3e18, 1.0)])
def test_a_charge_that_fills_every_site_is_a_typed_error(charge: float, permittivity: float) -> None:
    with pytest.raises(ConvergenceError, match="smaller"):
        charged_boundary(
            Lattice(2e27, 0.5, 2e27, 0.5),
            width=3e-10,
            core_charge=charge,
            temperature=T,
            permittivity=permittivity,
        )
