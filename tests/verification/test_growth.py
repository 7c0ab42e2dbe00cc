"""Growth of metal in a layer: rate, conservation, where it starts, when it joins the electrodes."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import constants

from mesoion.errors import ConvergenceError, InputError, NoElectronsError
from mesoion.growth import LITHIUM_ATOMS, Deposit, Growth, grow
from mesoion.lithium_potential import mixed_bicrystal
from mesoion.material import Phase
from mesoion.mesh import CellMesh, tensor_mesh

T = 298.15
VT = constants.k * T / constants.e
NM = 1e-9
SITES = 3.3e28
WIDTH = 1.6 * NM


def grain(**changes: float) -> Phase:
    phase = Phase("grain", T, SITES, 0.7, -0.7 * SITES, 12085.0, 0.073, 0.073, 0.0)
    return replace(phase, **({"electronic_conductivity": 1e-6, "electron_density": 6e18} | changes))


def layer(conductivity: float = 1e-4) -> Phase:
    return Phase(
        "boundary",
        T,
        SITES,
        0.7,
        -0.7 * SITES,
        12085.0,
        conductivity,
        conductivity,
        0.0,
        WIDTH,
        electronic_conductivity=1e-5,
        electron_density=6e20,
    )


PHASES = {"grain": grain(), "boundary": layer()}


def strip(cells: int = 6, length: float = 30 * NM) -> CellMesh:
    """A layer that runs from electrode to electrode between two grains."""
    mesh = tensor_mesh(
        [np.linspace(0.0, length, cells + 1), np.r_[0.0, 4.0, 7.0, 9.2, 10.0, 10.8, 13.0, 16.0, 20.0] * NM]
    )
    inside = np.abs(mesh.centers[:, 1] - 10 * NM) < 0.5 * WIDTH
    mesh = mesh.with_regions(inside.astype(int), ("grain", "boundary"))
    return replace(mesh, layer_normals=np.where(inside[:, None], [0.0, 1.0], 0.0))


@pytest.fixture(scope="module")
def grown() -> Growth:
    return grow(strip(), PHASES, Deposit({"boundary": 0.2}), 100.0 * 20 * NM, 10.0)


def test_metal_enters_from_the_cathode_and_joins_the_electrodes(grown: Growth) -> None:
    assert grown.connected_at is not None
    assert grown.note == "metal joins both electrodes"
    in_layer = grown.mesh.region == 1
    x = grown.mesh.centers[:, 0]
    assert np.all(x[grown.first_metal] > 0.9 * x.max())
    np.testing.assert_array_equal(grown.filling[:, ~in_layer], 0.0)
    assert grown.filling.min() >= 0.0
    assert grown.filling.max() <= 1.0 + 1e-14
    tip = [x[in_layer & (s > 0.3)].min(initial=x.max()) for s in grown.filling]
    assert np.all(np.diff(tip) <= 0.0)
    assert tip[-1] == x.min()
    assert np.all(np.diff(grown.deposited) > 0.0)


def test_lithium_and_charge_are_conserved(grown: Growth) -> None:
    assert grown.lithium_error < 1e-10
    assert grown.charge_error < 1e-10
    atoms = 0.2 * LITHIUM_ATOMS * (grown.filling @ grown.mesh.volumes)
    np.testing.assert_allclose(grown.deposited, atoms, rtol=1e-12)
    # Faraday: what the anode fed in is there or left at the cathode.
    fed = 100.0 * 20 * NM * grown.time / constants.e
    assert np.all(grown.deposited <= fed * (1.0 + 1e-6))


def crank() -> CellMesh:
    """A layer from each electrode to the middle, at different heights, and one along the electrodes that joins them."""
    x = np.r_[0.0, 5.0, 9.2, 10.8, 15.0, 20.0] * NM
    y = np.r_[0.0, 4.0, 5.2, 6.8, 8.0, 12.0, 13.2, 14.8, 16.0, 20.0] * NM
    mesh = tensor_mesh([x, y])
    at = mesh.centers / NM
    right = (at[:, 0] > 9.2) & (np.abs(at[:, 1] - 6) < 0.8)
    left = (at[:, 0] < 10.8) & (np.abs(at[:, 1] - 14) < 0.8)
    upright = (np.abs(at[:, 0] - 10) < 0.8) & (at[:, 1] > 5.2) & (at[:, 1] < 14.8)
    inside = right | left | upright
    mesh = mesh.with_regions(inside.astype(int), ("grain", "boundary"))
    normal = np.where((upright & ~right & ~left)[:, None], [1.0, 0.0], [0.0, 1.0])
    return replace(mesh, layer_normals=np.where(inside[:, None], normal, 0.0))


def test_metal_turns_where_layers_meet_and_joins_the_electrodes_through_both_junctions() -> None:
    mesh = crank()
    current = 100.0 * 20 * NM
    result = grow(mesh, PHASES, Deposit({"boundary": 0.2}), current, 10.0, largest_filling=0.5)
    assert result.note == "metal joins both electrodes"
    assert result.lithium_error < 1e-10
    assert result.charge_error < 1e-10
    at = mesh.centers / NM
    layer_cells = mesh.region == 1
    assert np.isnan(result.full_at[~layer_cells]).all()
    # Along the way from the cathode every cell is full later than the one before it.
    way = [
        *np.flatnonzero(layer_cells & (at[:, 0] > 9.2) & (at[:, 1] < 6.8)).tolist(),
        *np.flatnonzero(layer_cells & (np.abs(at[:, 0] - 10) < 0.8) & (at[:, 1] > 6.8)).tolist(),
    ]
    way.sort(key=lambda c: (-at[c, 0], at[c, 1]))
    way += sorted(np.flatnonzero(layer_cells & (at[:, 0] < 9.2)).tolist(), key=lambda c: -at[c, 0])
    assert len(way) == layer_cells.sum()
    times = result.full_at[way]
    assert np.all(np.diff(times) >= 0.0)
    assert np.diff(times).max() > 0.0
    assert result.connected_at == times[-1]
    assert 0.0 < result.electronic_share < 1.0


@pytest.mark.slow
def test_time_to_a_path_does_not_depend_on_the_mesh_or_the_step() -> None:
    times = [
        grow(
            strip(cells), PHASES, Deposit({"boundary": 0.2}), 100.0 * 20 * NM, 10.0, largest_filling=filling
        ).connected_at
        for cells, filling in ((4, 0.25), (8, 0.25), (16, 0.25), (8, 0.12))
    ]
    assert None not in times
    np.testing.assert_allclose(times[1:], times[2], rtol=0.03)
    np.testing.assert_allclose(times[0], times[2], rtol=0.06)


def test_rate_of_a_cell_at_a_given_overpotential() -> None:
    """s = 1 − exp(−2 kappa sinh(e eta/2kT) t) on the cathode's face, a = 1/dx; implicit Euler is of order one."""
    inner, contact, current = 1e2, 1e-3, 30.0
    mesh = strip(4)
    deposit = Deposit({"boundary": 0.5}, charge_transfer_resistance=inner, diffusivity=0.0)
    eta = current * contact
    kappa = 4.0 / (30 * NM) * VT / inner / constants.e / (0.5 * LITHIUM_ATOMS)
    t_end = 0.5 / (2.0 * kappa * np.sinh(eta / (2.0 * VT)))
    phases = {"grain": grain(), "boundary": layer(0.073)}
    errors = []
    for largest in (0.1, 0.05):
        result = grow(
            mesh,
            phases,
            replace(deposit, percolation_threshold=0.9),
            current * 20 * NM,
            t_end,
            electrode_resistance=contact,
            first_step=t_end * largest / 2.0,
            largest_filling=largest,
        )
        # Overpotential in the middle of the last cell, a little off the cathode's face.
        first = result.first_metal
        local = float(result.overpotential[0])
        exact = 1.0 - np.exp(-2.0 * kappa * np.sinh(local / (2.0 * VT)) * t_end)
        errors.append(abs(result.filling[-1][first].mean() / exact - 1.0))
        assert result.time[-1] == pytest.approx(t_end, rel=1e-12)
    assert errors[1] < 0.02
    assert 1.5 < errors[0] / errors[1] < 2.8, errors


def test_nucleates_inside_on_the_side_of_the_anode() -> None:
    blocking = layer(1e-7)
    mesh = mixed_bicrystal(grain(), blocking, half_length=100 * NM).mesh
    phases = {"grain": grain(), "boundary": blocking}
    deposit = Deposit({"boundary": 0.2}, {"boundary": 0.012})
    result = grow(mesh, phases, deposit, 10.0, 0.05)
    x = mesh.centers[:, 0]
    assert result.connected_at is None
    assert len(result.first_metal)
    assert np.all(x[result.first_metal] < 0.0)
    assert result.deposited[-1] > 0.0
    assert result.lithium_error < 1e-10
    # Metal takes the excess lithium: the overpotential falls.
    assert result.overpotential[1] < 0.6 * result.overpotential[0]

    calm = grow(mesh, phases, replace(deposit, nucleation_overpotential={"boundary": 5.0}), 10.0, 1.0)
    assert calm.note.startswith("no cell reaches its nucleation overpotential")
    assert calm.deposited[-1] == 0.0


def test_refused_values() -> None:
    with pytest.raises(InputError, match="barrier"):
        Deposit({"boundary": 0.2}, {"boundary": -0.1})
    with pytest.raises(InputError, match="free_volume"):
        Deposit({"boundary": 1.5})
    with pytest.raises(InputError, match="the regions are"):
        grow(strip(4), PHASES, Deposit({"pore": 0.2}), 1.0, 1.0)
    with pytest.raises(InputError, match="t_end"):
        grow(strip(4), PHASES, Deposit({"boundary": 0.2}), 1.0, 0.0)
    bare = grain(electronic_conductivity=0.0, electron_density=0.0)
    with pytest.raises(NoElectronsError):
        grow(strip(4), PHASES | {"grain": bare}, Deposit({"boundary": 0.2}), 1.0, 1.0)


def test_steps_that_shrink_to_nothing_are_a_typed_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mesoion.growth._ITERATIONS", 1)
    with pytest.raises(ConvergenceError, match="growth cannot go on") as failure:
        grow(strip(4), PHASES, Deposit({"boundary": 0.2}), 100.0 * 20 * NM, 10.0)
    assert failure.value.last_good is not None
