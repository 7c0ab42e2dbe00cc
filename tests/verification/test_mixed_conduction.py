"""Ions and electrons together: Wagner's and Hebb's closed forms, and the resolved solver against them."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
from scipy import constants
from scipy.integrate import solve_bvp

from mesoion.bicrystal import solve_bicrystal
from mesoion.errors import ConvergenceError, InputError, LimitingCurrentError, NoElectronsError
from mesoion.layered_mesh import layered_mesh, merged_for_widths
from mesoion.lithium_potential import (
    boundary_resistances,
    boundary_sides,
    electronic_conductivity,
    galvanostatic,
    ion_blocking_electrode,
    lithium_chemical_potential,
    lithium_electrode,
    mixed_bicrystal,
    mixed_conductor,
    overpotential,
    overpotential_at_boundaries,
    partial_currents,
)
from mesoion.material import Material, Phase
from mesoion.mesh import tensor_mesh
from mesoion.microstructure import bricks, lamellae, polycrystal
from mesoion.smallsignal import impedance
from mesoion.solve import PNPSystem
from mesoion.transport import assumed_fields, dump_record, load_record, parse_record
from mesoion.wagner import (
    ElectronicLaw,
    hebb_wagner_current,
    hebb_wagner_voltage,
    mixed_conduction,
    pellet_overpotential,
)

T = 298.15
VT = constants.k * T / constants.e
NM = 1e-9
SITES = 3.3e28
LAWS: tuple[ElectronicLaw, ...] = ("electrons", "holes", "constant")


def grain(**changes: float) -> Phase:
    phase = Phase(
        "grain",
        T,
        SITES,
        0.7,
        -0.7 * SITES,
        12085.0,
        0.073,
        0.073,
        0.0,
        electronic_conductivity=1e-6,
        electron_density=6e18,
    )
    return replace(phase, **changes)


def layer(energy: float = 0.0, **changes: float) -> Phase:
    """Boundary 1.6 nm wide; Li segregation energy in kT."""
    phase = Phase(
        "boundary",
        T,
        SITES,
        0.7,
        -0.7 * SITES,
        12085.0,
        1e-4,
        1e-4,
        energy * constants.k * T,
        1.6 * NM,
        electronic_conductivity=1e-5,
        electron_density=6e20,
    )
    return replace(phase, **changes)


# Closed forms ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("law", LAWS)
def test_uniform_conductor_between_lithium_has_no_overpotential(law: ElectronicLaw) -> None:
    result = mixed_conduction([3e-3] * 4, [7.0] * 4, 25.0, T, law=law, repeats=5)
    np.testing.assert_allclose(result.overpotential, 0.0, atol=1e-13)
    np.testing.assert_allclose(
        result.electronic_current_density / result.ionic_current_density, 3e-3 / 7.0, rtol=1e-12
    )
    np.testing.assert_allclose(result.voltage, result.ionic_current_density * 5 * 4 * 3e-3, rtol=1e-14)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("kinetics", ["linear", "butler-volmer"])
def test_stack_against_the_differential_equation(law: ElectronicLaw, kinetics: str) -> None:
    ions, electrons, contact, current = np.array([1e-3, 5e-3, 2e-3]), np.array([10.0, 1.0, 30.0]), 2e-3, 12.0
    result = mixed_conduction(
        ions, electrons, current, T, law=law, charge_transfer_resistance=contact, kinetics=kinetics
    )  # type: ignore[call-overload]
    sign = {"electrons": 1.0, "holes": -1.0, "constant": 0.0}[law]
    ionic = float(result.ionic_current_density)
    linear = ionic * contact / VT
    drop = linear if kinetics == "linear" else 2.0 * np.arcsinh(0.5 * linear)

    # Three layers side by side on one interval: continuity joins them, i_e is the free parameter.
    def slopes(_: np.ndarray, u: np.ndarray, p: np.ndarray) -> np.ndarray:
        return (p[0] * electrons[:, None] * np.exp(-sign * u) - ionic * ions[:, None]) / VT

    def ends(a: np.ndarray, b: np.ndarray, _: np.ndarray) -> np.ndarray:
        return np.r_[a[0] + drop, a[1:] - b[:-1], b[-1] - drop]

    exact = solve_bvp(
        slopes, ends, np.linspace(0, 1, 41), np.zeros((3, 41)), p=[1e-3 * current], tol=1e-9, max_nodes=200000
    )
    assert exact.success
    u = np.r_[exact.y[:, 0], exact.y[-1, -1]] * VT
    np.testing.assert_allclose(result.overpotential[:4], u, rtol=1e-6)
    np.testing.assert_allclose(result.electronic_current_density, exact.p[0], rtol=1e-6)
    np.testing.assert_allclose(
        result.ionic_current_density + result.electronic_current_density, current, rtol=1e-13
    )


@pytest.mark.parametrize("law", LAWS)
def test_repeats_are_the_same_stack_written_out(law: ElectronicLaw) -> None:
    ions, electrons = np.array([1e-3, 5e-3, 1e-3]), np.array([10.0, 1.0, 10.0])
    short = mixed_conduction(ions, electrons, 30.0, T, law=law, repeats=4, charge_transfer_resistance=1e-3)
    long = mixed_conduction(
        np.tile(ions, 4), np.tile(electrons, 4), 30.0, T, law=law, charge_transfer_resistance=1e-3
    )
    first, last = long.overpotential[:4], long.overpotential[9:13]
    np.testing.assert_allclose(short.overpotential, np.r_[first, last], rtol=1e-9, atol=1e-15)
    np.testing.assert_allclose(short.largest_overpotential, long.largest_overpotential, rtol=1e-9)
    np.testing.assert_allclose(short.smallest_overpotential, long.smallest_overpotential, rtol=1e-9)


def test_resistive_boundary_raises_lithium_towards_the_anode() -> None:
    """Two thick grains and a boundary that only electrons cross easily: ± half its ionic drop."""
    half, r, current = 1e-3, 1e-5, 10.0
    result = mixed_conduction([half, r, half], [1e3, 1e-9, 1e3], current, T, law="constant")
    drop = result.ionic_current_density * r
    np.testing.assert_allclose(
        result.overpotential[:4], np.array([0.0, 0.5, -0.5, 0.0]) * drop, rtol=1e-6, atol=1e-12
    )


@pytest.mark.parametrize("place", [0.2, 0.5, 0.95])
def test_electrons_of_excess_lithium_cap_the_overpotential(place: float) -> None:
    """A boundary that ions hardly cross, electrons easily, at x = place L: eta = kT ln[1/(1 − x/L)] before it."""
    grains = np.array([place, 1.0 - place])
    result = mixed_conduction(
        [1e-9 * grains[0], 0.1, 1e-9 * grains[1]], [10.0 * grains[0], 1e-9, 10.0 * grains[1]], 30.0, T
    )
    np.testing.assert_allclose(result.largest_overpotential, -VT * np.log(1.0 - place), rtol=1e-5)


def test_pellets_of_many_samples_at_once() -> None:
    rng = np.random.default_rng(3)
    n = 50
    size, r = 10 ** rng.uniform(-7, -5, n), 10 ** rng.uniform(-6, -4, n)
    values = {
        "ionic_conductivity": 0.07,
        "electronic_conductivity": 1e-6,
        "boundary_electronic_resistance": 1e-4,
        "temperature": T,
        "charge_transfer_resistance": 1e-4,
    }
    together = pellet_overpotential(10.0, grain_size=size, thickness=1e-4, boundary_resistance=r, **values)
    for i in (0, 17, 49):
        alone = pellet_overpotential(
            10.0, grain_size=size[i], thickness=1e-4, boundary_resistance=r[i], **values
        )
        np.testing.assert_allclose(together.overpotential[:, i], alone.overpotential, rtol=1e-12, atol=1e-16)
        units = round(1e-4 / size[i])
        expected = alone.ionic_current_density * (units * (size[i] / 0.07 + r[i]) + 2e-4)
        np.testing.assert_allclose(alone.voltage, expected, rtol=1e-12)


def test_refused_values_of_the_closed_form() -> None:
    with pytest.raises(InputError, match="ionic_resistance"):
        mixed_conduction([0.0], [1.0], 1.0, T)
    with pytest.raises(InputError, match="17 V"):
        mixed_conduction([1.0], [1e6], 100.0, T)
    with pytest.raises(InputError, match="repeats"):
        mixed_conduction([1.0], [1.0], 1.0, T, repeats=0)
    with pytest.raises(InputError, match="grain_size"):
        pellet_overpotential(
            1.0,
            grain_size=0.0,
            thickness=1e-3,
            ionic_conductivity=1.0,
            boundary_resistance=1.0,
            electronic_conductivity=1.0,
            boundary_electronic_resistance=1.0,
            temperature=T,
        )


# The resolved solver against them -----------------------------------------------------------------------------------


def polarisation_cell(cells: int, length: float) -> PNPSystem:
    mesh = tensor_mesh([np.linspace(0.0, length, cells + 1)])
    contacts = {"left": lithium_electrode(), "right": ion_blocking_electrode(1e-3)}
    return mixed_conductor(mesh, {"grain": grain()}, contacts)


@pytest.mark.parametrize("voltage", [-0.02, 0.03, 0.1])
def test_hebb_wagner_cell(voltage: float) -> None:
    """Ions at rest, exp(mu_Li/kT) linear between its values at lithium and at the blocking metal."""
    length, errors = 1e-6, []
    exact = hebb_wagner_current(voltage, length, 1e-6, T)
    for cells in (50, 100, 200):
        system = polarisation_cell(cells, length)
        state = system.steady_state({"right": voltage})
        errors.append(state.current("right") / exact - 1.0)
        assert abs(partial_currents(state, "right")["Li"]) < 1e-9 * abs(exact)
    # The half cell at the metal sees the metal's potential: order one, and clean enough to extrapolate.
    orders = np.log2(np.abs(np.array(errors[:-1]) / errors[1:]))
    np.testing.assert_allclose(orders, 1.0, atol=0.02)
    assert abs(2.0 * errors[2] - errors[1]) < 3e-5
    x = system.mesh.centers[:, 0]
    profile = VT * np.log(1.0 + np.expm1(-voltage / VT) * x / length)
    bulk = x < 0.9 * length
    np.testing.assert_allclose(overpotential(state)[bulk], profile[bulk], rtol=8e-3)
    np.testing.assert_allclose(
        electronic_conductivity(state)[bulk], 1e-6 * np.exp(overpotential(state)[bulk] / VT), rtol=1e-6
    )


def test_beyond_the_limiting_current() -> None:
    length = 1e-6
    limit = 1e-6 * VT / length
    with pytest.raises(LimitingCurrentError) as closed:
        hebb_wagner_voltage(1.1 * limit, length, 1e-6, T)
    assert closed.value.limiting_current == pytest.approx(limit, rel=1e-12)
    system = polarisation_cell(200, length)
    with pytest.raises(LimitingCurrentError, match="limiting current") as resolved:
        galvanostatic(system, "right", 1.1 * limit)
    np.testing.assert_allclose(resolved.value.limiting_current, limit, rtol=5e-3)
    with pytest.raises(ConvergenceError, match="loosen the tolerance"):
        galvanostatic(system, "right", 0.9 * limit, tolerance=0.0)
    state = galvanostatic(system, "right", 0.9 * limit)
    np.testing.assert_allclose(state.current("right"), 0.9 * limit, rtol=1e-8)
    np.testing.assert_allclose(
        state.voltages["right"], hebb_wagner_voltage(0.9 * limit, length, 1e-6, T), rtol=0.01
    )


def test_at_rest_lithium_is_the_same_everywhere() -> None:
    system = mixed_bicrystal(grain(), layer(6.0), half_length=60 * NM, core_charge=2e18)
    rest = system.equilibrium()
    assert np.abs(rest.potential).max() > VT
    np.testing.assert_allclose(overpotential(rest) / VT, 0.0, atol=1e-11)
    np.testing.assert_allclose(lithium_chemical_potential(rest), 0.0, atol=1e-31)


def test_flat_boundary_against_wagner() -> None:
    half, current = 2e-6, 200.0
    system = mixed_bicrystal(grain(), layer(), half_length=half)
    state = galvanostatic(system, "left", current)
    inside = half - 0.8 * NM
    result = mixed_conduction(
        [inside / 0.073, 1.6 * NM / 1e-4, inside / 0.073],
        [inside / 1e-6, 1.6 * NM / 1e-5, inside / 1e-6],
        current,
        T,
    )
    sides = boundary_sides(state)
    np.testing.assert_allclose(sides.overpotential, result.overpotential[1:3], rtol=2e-3)
    for name, sign in (("left", 1.0), ("right", -1.0)):
        flows = partial_currents(state, name)
        np.testing.assert_allclose(sign * flows["Li"], result.ionic_current_density, rtol=1e-8)
        np.testing.assert_allclose(sign * flows["electron"], result.electronic_current_density, rtol=1e-3)
    np.testing.assert_allclose(state.voltages["left"], result.voltage, rtol=1e-4)


@pytest.mark.parametrize("energy", [-3.0, 3.0])
def test_boundary_with_space_charge_against_wagner(energy: float) -> None:
    """The space charge enters through the two resistances of the boundary alone."""
    half, current = 10e-6, 10.0
    boundary = layer(energy)
    state = galvanostatic(mixed_bicrystal(grain(), boundary, half_length=half), "left", current)
    ions, electrons = boundary_resistances(solve_bicrystal(grain(), boundary))
    inside = half - 0.8 * NM
    result = mixed_conduction(
        [inside / 0.073, ions, inside / 0.073], [inside / 1e-6, electrons, inside / 1e-6], current, T
    )
    found = overpotential_at_boundaries(state)["boundary"]
    np.testing.assert_allclose(found.largest, result.largest_overpotential, rtol=5e-3)
    np.testing.assert_allclose(found.smallest, result.smallest_overpotential, rtol=5e-3)
    assert found.position[0] < 0.0


def test_overpotential_at_a_boundary_converges_with_the_mesh() -> None:
    found = []
    for cells in (2.0, 4.0, 8.0, 32.0):
        system = mixed_bicrystal(grain(), layer(3.0), half_length=200 * NM, cells_per_debye_length=cells)
        state = galvanostatic(system, "left", 1e4, tolerance=1e-11)
        found.append(overpotential_at_boundaries(state)["boundary"].largest)
    errors = np.abs(np.array(found[:-1]) / found[-1] - 1.0)
    orders = np.log2(errors[:-1] / errors[1:])
    assert errors[-1] < 1e-3
    assert np.all(orders > 1.8), (errors, orders)


def test_overpotential_in_a_polycrystal_converges_with_the_mesh() -> None:
    """Resistive layers with space charge that meet in junctions: the largest and the smallest eta in them."""
    phases = {"grain": grain(), "gb": layer(2.0, conductivity_across=1e-5, conductivity_along=1e-5)}
    widths = {"gb": 1.6 * NM}
    structure = polycrystal(3, 0.3e-6, 0.2, 3, boundary_types={"gb": 1.0}, periodic=(False, True))
    structure = merged_for_widths(structure, widths)
    assert (structure.junction_degrees >= 3).sum() >= 2
    found = []
    for across, first, growth, along in ((2, 0.8, 2.0, 0.8), (2, 0.4, 1.6, 0.5), (4, 0.15, 1.25, 0.3)):
        mesh = layered_mesh(
            structure,
            widths,
            cells_across=across,
            first_cell=first * NM,
            growth=growth,
            tangential_growth=along,
        )
        state = galvanostatic(mixed_conductor(mesh, phases), "left", 1.0 * float(structure.box[1]))
        there = overpotential_at_boundaries(state, structure)
        found.append([there["gb"].largest, there["gb"].smallest, there["junction"].largest])
    errors = np.abs(np.array(found[:-1]) / found[-1] - 1.0)
    assert errors[0].max() < 0.02, errors
    assert np.all(errors[1] < 0.75 * errors[0]), errors


def test_current_enriches_one_side_and_depletes_the_other() -> None:
    system = mixed_bicrystal(grain(), layer(2.0, conductivity_across=1e-6), half_length=300 * NM)
    rest, driven = boundary_sides(system.equilibrium()), boundary_sides(galvanostatic(system, "left", 50.0))
    change = driven.occupancy - rest.occupancy
    assert list(rest.grain) == [0, 1]
    np.testing.assert_allclose(rest.occupancy[0], rest.occupancy[1], rtol=1e-9)
    assert change[0] > 1e-4
    assert change[1] < -1e-4
    assert driven.overpotential[0] > 0.0 > driven.overpotential[1]


@pytest.mark.parametrize("kinetics", ["linear", "butler-volmer"])
def test_interfacial_resistance_lifts_lithium_at_the_cathode(kinetics: str) -> None:
    resistance, current = 5e-3, 10.0
    contact = lithium_electrode(resistance, kinetics)  # type: ignore[arg-type]
    mesh = tensor_mesh([np.linspace(0.0, 1e-6, 201)])
    system = mixed_conductor(mesh, {"grain": grain()}, {"left": contact, "right": contact})
    state = galvanostatic(system, "left", current)
    half_cell = 0.5e-6 / 200
    pieces = np.array([half_cell, 1e-6 - 2.0 * half_cell, half_cell])
    exact = mixed_conduction(
        pieces / 0.073, pieces / 1e-6, current, T, charge_transfer_resistance=resistance, kinetics=kinetics
    )  # type: ignore[call-overload]
    np.testing.assert_allclose(overpotential(state)[[0, -1]], exact.overpotential[1:3], rtol=1e-3)
    np.testing.assert_allclose(state.voltages["left"], exact.voltage, rtol=1e-4)


def test_holes_of_the_grain_carry_their_share() -> None:
    both = grain(hole_conductivity=2e-6, hole_density=1e19)
    mesh = tensor_mesh([np.linspace(0.0, 1e-6, 51)])
    state = mixed_conductor(mesh, {"grain": both}).steady_state({"left": 1e-3})
    flows = partial_currents(state, "left")
    np.testing.assert_allclose(flows["electron"], 1e-6 * 1e-3 / 1e-6, rtol=1e-6)
    np.testing.assert_allclose(flows["hole"], 2e-6 * 1e-3 / 1e-6, rtol=1e-6)
    np.testing.assert_allclose(flows["Li"], 0.073 * 1e-3 / 1e-6, rtol=1e-6)
    np.testing.assert_allclose(overpotential(state), 0.0, atol=1e-9)


def test_no_electrons_no_metal() -> None:
    bare = grain(electronic_conductivity=0.0, electron_density=0.0)
    mesh = tensor_mesh([np.linspace(0.0, 1e-7, 11)])
    with pytest.raises(NoElectronsError, match="electronic_transport"):
        mixed_conductor(mesh, {"grain": bare})
    with pytest.raises(NoElectronsError, match="grain"):
        mixed_bicrystal(bare, layer())
    state = mixed_conductor(mesh, {"grain": grain()}).equilibrium()
    from mesoion.physics import CellFields, Electrode

    ions_only = PNPSystem(
        mesh, CellFields.from_phases(mesh, {"grain": bare}), T, {"left": Electrode()}
    ).equilibrium()
    with pytest.raises(NoElectronsError):
        overpotential(ions_only)
    with pytest.raises(NoElectronsError):
        mixed_bicrystal(*_phases_of("lstz075-bulk", "lstz075-boundary"))
    assert overpotential(state).shape == (10,)


def _phases_of(bulk: str, boundary: str) -> tuple[Phase, Phase]:
    material = Material.from_records(bulk, {"gb": boundary}, relative_permittivity=12085.0)
    return material.grain(T), material.boundary(T, "gb")


def test_records_bring_electrons_into_the_phases() -> None:
    inner, boundary = _phases_of("llzo-bulk", "llzo-sigma17-ta")
    np.testing.assert_allclose(inner.electronic_conductivity, 3e-6, rtol=1e-12)
    factor = np.exp(0.06 / VT)
    np.testing.assert_allclose(boundary.electronic_conductivity, 3e-6 * factor, rtol=1e-9)
    np.testing.assert_allclose(boundary.electron_density / inner.electron_density, factor, rtol=1e-9)
    crowded = grain(electron_density=1e29)  # ions alone may be solved with it
    with pytest.raises(InputError, match="more carriers than Li sites"):
        mixed_bicrystal(crowded, boundary)
    with pytest.raises(InputError, match="electron_density"):
        grain(electron_density=0.0)


# Two dimensions -----------------------------------------------------------------------------------------------------


def test_planar_bicrystal_is_the_line() -> None:
    flat = layer()
    micro = lamellae(2, 60 * NM, 20 * NM, periodic=(False, True))
    mesh = layered_mesh(micro, {"general": 1.6 * NM}, cells_across=6)
    phases = {"grain": grain(), "general": flat}
    state = galvanostatic(mixed_conductor(mesh, phases), "left", 20.0 * 20 * NM)
    inside = 60 * NM - 0.8 * NM
    exact = mixed_conduction(
        [inside / 0.073, 1.6 * NM / 1e-4, inside / 0.073],
        [inside / 1e-6, 1.6 * NM / 1e-5, inside / 1e-6],
        20.0,
        T,
    )
    sides = boundary_sides(state)
    by_grain = sides.overpotential[np.argsort(sides.overpotential)[::-1]]
    np.testing.assert_allclose(by_grain, exact.overpotential[1:3], rtol=3e-2)
    np.testing.assert_allclose(state.voltages["left"], exact.voltage, rtol=1e-3)


def test_polycrystal_with_junctions() -> None:
    micro = replace(bricks(2, 30 * NM), periodic=(True, True))
    mesh = layered_mesh(micro, {"general": 1.6 * NM}, cells_across=4)
    assert mesh.outer_names == ()
    from mesoion.microstructure import polycrystal

    micro = polycrystal(6, 30 * NM, rng=4, periodic=(False, True))
    widths = {"general": 1.6 * NM}
    micro = merged_for_widths(micro, widths)
    mesh = layered_mesh(micro, widths)
    system = mixed_conductor(mesh, {"grain": grain(), "general": layer()})
    state = galvanostatic(system, "left", 100.0 * micro.box[1])
    flows = [partial_currents(state, name) for name in ("left", "right")]
    for species in ("Li", "electron"):
        np.testing.assert_allclose(flows[0][species], -flows[1][species], rtol=1e-8)
    found = overpotential_at_boundaries(state, micro)
    assert set(found) == {"general", "junction"}
    assert found["general"].largest >= found["junction"].largest > 0.0 > found["junction"].smallest
    assert found["junction"].cells < found["general"].cells


def test_impedance_of_a_mixed_conductor() -> None:
    """Both carriers at low frequency, electrons alone where one metal blocks the ions; reduced as direct."""
    length = 1e-6
    mesh = tensor_mesh([np.linspace(0.0, length, 101)])
    frequency = np.logspace(-4, 8, 13)
    for right, conductivity in ((lithium_electrode(), 0.073 + 1e-6), (ion_blocking_electrode(), 1e-6)):
        system = mixed_conductor(mesh, {"grain": grain()}, {"left": lithium_electrode(), "right": right})
        spectra = [
            impedance(system, system.equilibrium(), frequency, method=method).impedance
            for method in ("direct", "reduced")
        ]  # type: ignore[arg-type]
        np.testing.assert_allclose(spectra[1], spectra[0], rtol=1e-5)
        # The half cell at a blocking metal counts as metal.
        np.testing.assert_allclose(spectra[0][0].real, length / conductivity, rtol=6e-3)


@pytest.mark.parametrize("energy", [-3.0, 3.0])
def test_resistances_of_a_boundary_are_those_of_its_steady_state(energy: float) -> None:
    half, voltage = 100 * NM, 1e-6
    boundary = layer(energy)
    ions, electrons = boundary_resistances(solve_bicrystal(grain(), boundary))
    state = mixed_bicrystal(grain(), boundary, half_length=half).steady_state({"left": voltage})
    flows = partial_currents(state, "left")
    inside = 2.0 * half - 1.6 * NM
    np.testing.assert_allclose(voltage / flows["electron"] - inside / 1e-6, electrons, rtol=5e-3)
    np.testing.assert_allclose(voltage / flows["Li"] - inside / 0.073, ions, rtol=5e-3)


def test_electronic_fields_of_records() -> None:
    bulk, boundary = load_record("llzo-bulk"), load_record("llzo-sigma17")
    assert parse_record(dump_record(bulk)) == bulk
    material = Material(bulk, {"gb": boundary})
    rng = np.random.default_rng(5)
    drawn = [material.sample(rng) for _ in range(400)]
    grains = np.array([m.grain(T).electronic_conductivity for m in drawn])
    ratios = np.array([m.boundary(T, "gb").electronic_conductivity for m in drawn]) / grains
    np.testing.assert_allclose(np.log(grains).std(), np.log(2.0), rtol=0.1)
    np.testing.assert_allclose(np.log(ratios).std(), 0.06 / VT, rtol=0.1)
    np.testing.assert_allclose(np.log(ratios).mean(), 0.06 / VT, rtol=0.15)
    assert "electronic_transport.conductivity_S_per_m" in assumed_fields(bulk)
    assert "electronic_band_offset_eV" in assumed_fields(boundary)
    without = json.loads(dump_record(bulk))
    del without["electronic_mobility_m2_per_V_s"]
    with pytest.raises(InputError, match="electronic_mobility"):
        parse_record(json.dumps(without))
    offset = json.loads(dump_record(bulk)) | {
        "electronic_band_offset_eV": json.loads(dump_record(boundary))["electronic_band_offset_eV"]
    }
    with pytest.raises(InputError, match="a bulk record has no electronic_band_offset_eV"):
        parse_record(json.dumps(offset))
