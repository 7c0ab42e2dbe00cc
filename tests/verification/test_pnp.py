"""Poisson-Nernst-Planck against closed forms, manufactured solutions and its own conservation laws."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from mesoion.errors import ConvergenceError, InputError, MeshError
from mesoion.material import Phase
from mesoion.mesh import CellMesh, tensor_mesh
from mesoion.physics import (
    BOLTZMANN,
    ELEMENTARY_CHARGE,
    CellFields,
    DiluteSpecies,
    Electrode,
)
from mesoion.smallsignal import impedance
from mesoion.solve import MeshWarning, PNPSystem
from mesoion.validation_cases import (
    gouy_chapman_errors,
    graded_edges,
    irregular_mesh,
    manufactured_errors,
    mott_schottky_exact,
    mott_schottky_ratio,
    stretched_mesh,
)

TEMPERATURE = 300.0
KT = BOLTZMANN * TEMPERATURE
VT = KT / ELEMENTARY_CHARGE
NM = 1e-9


def uniform_fields(mesh: CellMesh, *, vacancy: bool = True, **changes: float | np.ndarray) -> CellFields:
    values: dict = {
        "site_density": 2e28,
        "reference_occupancy": 0.4,
        "fixed_charge": -0.8e28,
        "relative_permittivity": 500.0,
        "conductivity_across": 1e-2,
        "conductivity_along": 1e-2,
        "standard_energy": 0.0,
    }
    theta = changes.get("reference_occupancy", 0.4)
    values.update(changes)
    arrays = {
        key: np.broadcast_to(np.asarray(value, dtype=float), mesh.n_cells) for key, value in values.items()
    }
    return CellFields(
        **arrays,
        vacancy=np.full(mesh.n_cells, vacancy),
        reservoir_potential=KT * float(np.log(theta / (1.0 - theta))),
    )


def two_phase(
    mesh: CellMesh, layer: np.ndarray, permittivity: float, segregation: float
) -> tuple[CellMesh, CellFields]:
    """Grain with a layer where `layer` (n,) is true; segregation energy in kT."""
    mesh = mesh.with_regions(layer.astype(int), ("grain", "boundary"))
    grain = Phase("grain", TEMPERATURE, 1.7e28, 0.5, -0.85e28, permittivity, 1e-2, 1e-2, 0.0)
    boundary = Phase(
        "boundary", TEMPERATURE, 1.7e28, 0.5, -0.85e28, permittivity, 1e-4, 3e-4, segregation * KT, 2 * NM
    )
    return mesh, CellFields.from_phases(mesh, {"grain": grain, "boundary": boundary})


def bicrystal_line(permittivity: float, segregation: float, first: float = 0.02 * NM) -> tuple:
    a, b = graded_edges(200 * NM, first, 60), graded_edges(1 * NM, first, 15)
    half = np.r_[np.diff(a)[::-1], np.diff(b)]
    edges = np.r_[0.0, np.cumsum(np.r_[half, half[::-1]])]
    mesh = tensor_mesh([edges])
    return two_phase(mesh, np.abs(mesh.centers[:, 0] - 201 * NM) < 1 * NM, permittivity, segregation)


# Gouy-Chapman ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("psi", [0.2, -3.0, 6.0])
def test_gouy_chapman_profile_and_capacitance(psi: float):
    coarse, fine = (np.array(gouy_chapman_errors(psi, cells)) for cells in (100, 200))
    assert np.all(fine < 1e-3)
    assert np.all(np.log2(coarse / fine) > 1.85)


# Mott-Schottky -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("barrier", [5.0, 10.0, 20.0])
def test_mott_schottky_resistivity_ratio(barrier: float):
    """A parabolic barrier of width W in a grain: resistance over W against (sqrt(pi)/2) erfi(sqrt b)/sqrt b."""
    exact = mott_schottky_exact(barrier)
    errors = [abs(mott_schottky_ratio(barrier, cells) / exact - 1.0) for cells in (50, 100)]
    assert errors[1] < 1e-3
    assert np.log2(errors[0] / errors[1]) > 1.9


# Manufactured solution ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("stretch", [0.0, 0.6], ids=["uniform", "graded"])
@pytest.mark.parametrize(("dimension", "cells"), [(1, (80, 160)), (2, (24, 48)), (3, (10, 20))])
def test_manufactured_solution_is_second_order(dimension: int, cells: tuple[int, int], stretch: float):
    coarse, fine = (np.array(manufactured_errors(stretched_mesh(dimension, n, stretch))) for n in cells)
    assert np.all(fine < 0.02)
    assert np.all(np.log2(coarse / fine) > 1.95)


def test_manufactured_solution_on_irregular_cells():
    coarse, fine = (np.array(manufactured_errors(irregular_mesh(n))) for n in (20, 80))
    assert np.all(fine < 0.005)
    assert np.all(0.5 * np.log2(coarse / fine) > 1.95)


# Solver ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("charge_transfer", [0.0, 1e-9])
def test_jacobians_are_the_derivatives_of_residual_and_storage(charge_transfer: float):
    rng = np.random.default_rng(3)
    mesh = tensor_mesh([np.cumsum(rng.uniform(0.5, 1.5, 6)) * 0.3 * NM, np.linspace(0, 1, 4) * NM])
    mesh, fields = two_phase(mesh, np.abs(mesh.centers[:, 0] - 1 * NM) < 0.4 * NM, 300.0, 4.0)
    contact = Electrode(
        "reversible",
        0.05,
        charge_transfer_resistance=charge_transfer,
        kinetics="butler-volmer",
        passes=("e",),
    )
    electrodes = {"left": contact, "right": Electrode("blocking", 0.1)}
    electron = DiluteSpecies("e", -1, 1e27, 1e-12, 1e-12, 1.0 * KT * (mesh.region == 1))
    system = PNPSystem(mesh, fields, TEMPERATURE, electrodes, species=[electron], resolution="ignore")
    d = system.discretisation
    v = np.array([0.7, -0.4])
    u = system.equilibrium().unknowns + rng.uniform(-0.5, 0.5, d.n_unknowns)
    lin = d.linearise(u, v)
    for data, index in ((lin.jacobian, 0), (lin.capacity, 1)):
        matrix = d.pattern.matrix(data).toarray()
        scale = np.abs(matrix).max(axis=1)
        scale[scale == 0.0] = 1.0
        for column in range(d.n_unknowns):
            h = 1e-5
            step = np.zeros_like(u)
            step[column] = h
            numeric = (d.residual(u + step, v)[index] - d.residual(u - step, v)[index]) / (2.0 * h)
            np.testing.assert_allclose(matrix[:, column] / scale, numeric / scale, rtol=0, atol=2e-9)


def test_drive_and_read_out_of_electrodes_are_derivatives():
    rng = np.random.default_rng(4)
    mesh = tensor_mesh([np.linspace(0, 2, 7) * NM])
    fields = uniform_fields(mesh)
    left = Electrode(
        "reversible", 0.05, charge_transfer_resistance=1e-8, kinetics="butler-volmer", passes=("e",)
    )
    electron = DiluteSpecies("e", -1, 1e27, 1e-12, 1e-12)
    for other in (Electrode("blocking", 0.1), Electrode("reversible", passes=("e",))):
        system = PNPSystem(
            mesh, fields, TEMPERATURE, {"left": left, "right": other}, species=[electron], resolution="ignore"
        )
        d = system.discretisation
        u = system.equilibrium().unknowns + rng.uniform(-0.5, 0.5, d.n_unknowns)
        v = np.array([0.3, -0.6])
        h = 1e-5
        for e in range(2):
            b_f, b_q, read, own = d.drive(d.linearise(u, v), e)
            dv = np.eye(2)[e] * h
            up, down = d.residual(u, v + dv), d.residual(u, v - dv)
            f, q = ((a - b) / (2.0 * h) for a, b in zip(up, down, strict=True))
            balance = np.where(d.poisson_rows, 0.0, f)
            charge = np.where(d.poisson_rows, f, q)
            np.testing.assert_allclose(b_f, balance, rtol=1e-6, atol=1e-6 * np.abs(f).max())
            np.testing.assert_allclose(b_q, charge, rtol=1e-6, atol=1e-6 * np.abs(charge).max())
            up, down = d.electrode_flows(u, v + dv), d.electrode_flows(u, v - dv)
            flows = [(a[e] - b[e]) / (2.0 * h) for a, b in zip(up, down, strict=True)]
            np.testing.assert_allclose(own, flows, rtol=1e-6)
            for column in range(d.n_unknowns):
                du = np.eye(d.n_unknowns)[column] * h
                up, down = d.electrode_flows(u + du, v), d.electrode_flows(u - du, v)
                flows = [(a[e] - b[e]) / (2.0 * h) for a, b in zip(up, down, strict=True)]
                np.testing.assert_allclose(read[:, column], flows, rtol=1e-5, atol=1e-7 * np.abs(read).max())


@pytest.mark.parametrize("permittivity", [50.0, 1000.0, 12085.0])
@pytest.mark.parametrize("segregation", [-8.0, 4.0, 16.0])
def test_newton_reaches_one_volt_and_currents_agree(permittivity: float, segregation: float):
    mesh, fields = bicrystal_line(permittivity, segregation)
    contacts = {"left": Electrode(), "right": Electrode()}
    system = PNPSystem(mesh, fields, TEMPERATURE, contacts, resolution="ignore")
    state = system.steady_state({"right": 1.0})
    assert np.all((state.occupancy > 0.0) & (state.occupancy < 1.0))
    assert state.current("right") > 0.0
    np.testing.assert_allclose(state.current("left"), -state.current("right"), rtol=1e-12)


@pytest.mark.parametrize("vacancy", [True, False])
def test_linear_potential_is_exact_and_ohm_holds(vacancy: bool):
    rng = np.random.default_rng(5)
    mesh = tensor_mesh([np.r_[0.0, np.cumsum(rng.uniform(0.2, 2.0, 20))] * NM, np.linspace(0, 3, 5) * NM])
    length = float(mesh.volumes.sum() / (3 * NM))
    fields = uniform_fields(mesh, vacancy=vacancy)
    system = PNPSystem(mesh, fields, TEMPERATURE, {"left": Electrode(), "right": Electrode()})
    state = system.steady_state({"left": 0.3})
    np.testing.assert_allclose(state.potential, 0.3 * (1.0 - mesh.centers[:, 0] / length), rtol=1e-12)
    np.testing.assert_allclose(state.current("left"), 0.3 * 1e-2 * 3 * NM / length, rtol=1e-12)


def test_blocking_electrodes_keep_all_lithium():
    half = graded_edges(10 * NM, 0.02 * NM, 60)
    mesh = tensor_mesh([np.r_[half, 20 * NM - half[-2::-1]]])
    blocking = {"left": Electrode("blocking", 0.2), "right": Electrode("blocking")}
    system = PNPSystem(mesh, uniform_fields(mesh), TEMPERATURE, blocking)
    rest = system.equilibrium()
    state = system.steady_state({"left": 0.5})
    np.testing.assert_allclose(
        mesh.volumes @ state.concentration, mesh.volumes @ rest.concentration, rtol=1e-13
    )
    np.testing.assert_allclose(state.electrode_charge("left"), -state.electrode_charge("right"), rtol=1e-10)
    np.testing.assert_allclose(
        state.electrochemical_potential, state.electrochemical_potential[0], rtol=0, atol=1e-9 * KT
    )


def test_periodic_sides_and_a_slanted_layer_normal():
    """Current along a layer follows the conductivity along it; the sides of the box are periodic."""
    mesh = tensor_mesh(
        [np.linspace(0, 20, 21) * NM, graded_edges(6 * NM, 0.5 * NM, 8)], periodic=(False, True)
    )
    layer = mesh.centers[:, 1] < 2 * NM
    mesh, fields = two_phase(mesh, layer, 1e5, 0.0)
    normals = np.where(layer[:, np.newaxis], [0.0, 1.0], [0.0, 0.0])
    mesh = replace(mesh, layer_normals=normals)
    system = PNPSystem(mesh, fields, TEMPERATURE, {"left": Electrode(), "right": Electrode()})
    state = system.steady_state({"left": 0.1})
    in_layer = mesh.volumes[layer].sum() / (20 * NM)
    expected = 0.1 / (20 * NM) * (1e-2 * (6 * NM - in_layer) + 3e-4 * in_layer)
    np.testing.assert_allclose(state.current("left"), expected, rtol=1e-9)


@pytest.mark.parametrize("kind", ["blocking", "reversible"])
def test_three_dimensions_by_multigrid_agree_with_one(kind: str, monkeypatch: pytest.MonkeyPatch):
    """A layer across a box: nothing varies along it, but the solver is another one."""
    monkeypatch.setattr("mesoion.linear_algebra._DIRECT_IN_3D", 500)
    a, b = graded_edges(10 * NM, 0.1 * NM, 9), graded_edges(1 * NM, 0.1 * NM, 5)
    half = np.r_[np.diff(a), np.diff(a)[::-1], np.diff(b)]
    x = np.r_[0.0, np.cumsum(np.r_[half, half[::-1]])]
    side = np.linspace(0.0, 2 * NM, 5)
    results = []
    for edges in ([x], [x, side, side]):
        mesh = tensor_mesh(edges, periodic=(False, True, True)[: len(edges)])
        layer = np.abs(mesh.centers[:, 0] - 21 * NM) < 1 * NM
        mesh, fields = two_phase(mesh, layer, 500.0, 3.0)
        contact = Electrode(kind, compact_capacitance=0.2)
        system = PNPSystem(
            mesh, fields, TEMPERATURE, {"left": contact, "right": contact}, resolution="ignore"
        )
        assert system.discretisation.pattern.multigrid == (len(edges) == 3)
        area = (2 * NM) ** (len(edges) - 1)
        state = system.steady_state({"left": 0.2})
        spectrum = impedance(
            system, system.equilibrium(), [1e-2, 1e6, 1e10], method="reduced", tolerance=1e-6
        )
        about_bias = impedance(system, state, [1e-2, 1e7], method="direct")
        step = system.transient({"left": lambda _: 0.1}, 1e-8)
        results.append(
            [
                state.current("left") / area,
                state.electrode_charge("left") / area,
                *(spectrum.impedance * area),
                *(about_bias.impedance * area),
                step.charge["left"][-1] / area,
            ]
        )
    np.testing.assert_allclose(results[1][0], results[0][0], rtol=1e-9)
    np.testing.assert_allclose(results[1][1:], results[0][1:], rtol=3e-6)


# Errors ------------------------------------------------------------------------------------------------------


def test_failure_to_converge_names_the_bias_and_keeps_the_last_state():
    mesh, fields = bicrystal_line(1000.0, 4.0)
    system = PNPSystem(mesh, fields, TEMPERATURE, {"left": Electrode(), "right": Electrode()})
    with pytest.raises(ConvergenceError, match=r"right = .* V") as caught:
        system.steady_state({"right": 0.5}, tolerance=1e-40)
    assert caught.value.last_good.voltages == {"left": 0.0, "right": 0.0}
    assert "try" in str(caught.value)


def test_unresolved_debye_length_is_refused_with_both_lengths():
    mesh = tensor_mesh([np.linspace(0.0, 40.0, 41) * NM])
    mesh, fields = two_phase(mesh, np.abs(mesh.centers[:, 0] - 20 * NM) < 1 * NM, 10.0, 6.0)
    with pytest.raises(MeshError, match=r"Debye length .* m, distance between cells 1e-09 m"):
        PNPSystem(mesh, fields, TEMPERATURE).equilibrium()
    with pytest.warns(MeshWarning, match="Debye length"):
        PNPSystem(mesh, fields, TEMPERATURE, resolution="warn").equilibrium()


def test_bad_names_and_values_are_refused():
    mesh = tensor_mesh([np.linspace(0.0, 4.0, 5) * NM])
    fields = uniform_fields(mesh)
    with pytest.raises(MeshError, match="'top'"):
        PNPSystem(mesh, fields, TEMPERATURE, {"top": Electrode()})
    with pytest.raises(InputError, match="temperature"):
        PNPSystem(mesh, fields, -3.0)
    system = PNPSystem(mesh, fields, TEMPERATURE, {"left": Electrode(), "right": Electrode()})
    with pytest.raises(InputError, match="rigth"):
        system.steady_state({"rigth": 0.1})
    with pytest.raises(InputError, match="electrode"):
        system.equilibrium().current("top")
    other = tensor_mesh([np.linspace(0.0, 4.0, 9) * NM])
    with pytest.raises(InputError, match="start"):
        system.steady_state(start=PNPSystem(other, uniform_fields(other), TEMPERATURE).equilibrium())
    with pytest.raises(InputError, match="electrodes"):
        PNPSystem(mesh, fields, TEMPERATURE).steady_state()
    with pytest.raises(MeshError, match="'boundary'"):
        CellFields.from_phases(mesh.with_regions(mesh.region, ("boundary",)), {})
