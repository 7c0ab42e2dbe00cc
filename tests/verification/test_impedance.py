"""Impedance against closed forms, finite differences of steady states, its limits and its own bound."""

from __future__ import annotations

import numpy as np
import pytest

from mesoion.errors import InputError
from mesoion.impedance.kramers_kronig import kramers_kronig_residual
from mesoion.material import Phase
from mesoion.mesh import CellMesh, tensor_mesh
from mesoion.physics import (
    BOLTZMANN,
    ELEMENTARY_CHARGE,
    VACUUM_PERMITTIVITY,
    CellFields,
    DiluteSpecies,
    Electrode,
    debye_length,
)
from mesoion.smallsignal import impedance
from mesoion.solve import PNPSystem, State

TEMPERATURE = 300.0
KT = BOLTZMANN * TEMPERATURE
VT = KT / ELEMENTARY_CHARGE
NM = 1e-9
SITES, THETA, PERMITTIVITY, SIGMA = 1e26, 0.3, 50.0, 1e-3
EPS = PERMITTIVITY * VACUUM_PERMITTIVITY
LAMBDA = float(debye_length(np.array(PERMITTIVITY), TEMPERATURE, np.array(SITES), np.array(THETA)))
DECADES = np.logspace(-2, 11, 60)


def graded(length: float, ratio: float, first: float) -> np.ndarray:
    widths = [first]
    while sum(widths) < length:
        widths.append(widths[-1] * ratio)
    return np.array(widths) * (length / sum(widths))


def mirrored(length: float, ratio: float, first: float) -> np.ndarray:
    half = graded(0.5 * length, ratio, first)
    return np.r_[0.0, np.cumsum(np.r_[half, half[::-1]])]


def slab(mesh: CellMesh, electrodes: dict[str, Electrode], **options: object) -> PNPSystem:
    grain = Phase("grain", TEMPERATURE, SITES, THETA, -SITES * THETA, PERMITTIVITY, SIGMA, SIGMA, 0.0)
    fields = CellFields.from_phases(mesh, {"grain": grain})
    return PNPSystem(mesh, fields, TEMPERATURE, electrodes, **options)


def blocking_closed_form(frequency: np.ndarray, length: float) -> np.ndarray:
    """Z A of one mobile ion on a fixed background between blocking electrodes."""
    iw = 2j * np.pi * frequency
    s = np.sqrt(1.0 + iw * EPS / SIGMA)
    return length / SIGMA / s**2 + 2.0 * LAMBDA * np.tanh(0.5 * s * length / LAMBDA) / (iw * EPS * s**3)


def bicrystal(kind: str = "reversible", permittivity: float = 1000.0, **electrode: object) -> PNPSystem:
    half = np.r_[
        mirrored(200 * NM, 1.15, 0.02 * NM)[1:], 200 * NM + np.cumsum(graded(1 * NM, 1.15, 0.02 * NM)[::-1])
    ]
    edges = np.r_[0.0, half, 402 * NM - half[-2::-1], 402 * NM]
    mesh = tensor_mesh([edges])
    mesh = mesh.with_regions(
        (np.abs(mesh.centers[:, 0] - 201 * NM) < 1 * NM).astype(int), ("grain", "boundary")
    )
    grain = Phase("grain", TEMPERATURE, 1.7e28, 0.5, -0.85e28, permittivity, 1e-2, 1e-2, 0.0)
    core = Phase("boundary", TEMPERATURE, 1.7e28, 0.5, -0.85e28, permittivity, 1e-4, 1e-4, 4.0 * KT, 2 * NM)
    fields = CellFields.from_phases(mesh, {"grain": grain, "boundary": core})
    contact = Electrode(kind, **electrode)
    return PNPSystem(mesh, fields, TEMPERATURE, {"left": contact, "right": contact})


@pytest.mark.parametrize("method", ["direct", "reduced"])
@pytest.mark.parametrize("compact", [None, 0.02])
def test_blocking_electrodes_over_thirteen_decades(method: str, compact: float | None):
    """A compact layer carries the whole current as displacement: it adds 2/(i omega C)."""
    length = 200.0 * LAMBDA
    contact = Electrode("blocking", compact)
    system = slab(tensor_mesh([mirrored(length, 1.05, 0.05 * LAMBDA)]), {"left": contact, "right": contact})
    z = impedance(system, system.equilibrium(), DECADES, method=method).impedance
    exact = blocking_closed_form(DECADES, length)
    if compact is not None:
        exact = exact + 2.0 / (2j * np.pi * DECADES * compact)
    np.testing.assert_allclose(z, exact, rtol=1e-3)
    np.testing.assert_allclose(z.real, exact.real, rtol=1e-3)


@pytest.mark.parametrize("method", ["direct", "reduced"])
@pytest.mark.parametrize("left", [0.0, 1e-7, 1e-3, 10.0])
@pytest.mark.parametrize("right", [0.0, 1e-7, 1e-3, 10.0])
def test_charge_transfer_adds_its_resistance_to_a_uniform_slab(method: str, left: float, right: float):
    """Z A = L/(sigma + i omega eps) + R: far above 1/(R C) of a cell the electrodes are all that is left."""
    length = 200 * NM
    contacts = {
        name: Electrode("reversible", charge_transfer_resistance=r)
        for name, r in (("left", left), ("right", right))
    }
    system = slab(tensor_mesh([mirrored(length, 1.15, 0.02 * NM)]), contacts)
    exact = length / (SIGMA + 2j * np.pi * DECADES * EPS) + left + right
    for name in contacts:
        z = impedance(system, system.equilibrium(), DECADES, electrode=name, method=method)
        error = np.abs(z.impedance / exact - 1.0)
        assert error.max() < 1e-8
        assert np.all(error <= z.error_bound + 1e-9)


@pytest.mark.parametrize("resistance", [1e-7, 1e-5, 1e-3, 0.1, 10.0])
def test_charge_transfer_adds_its_resistance_to_a_bicrystal(resistance: float):
    """In series with all frequencies of the solid, within the bound also where round-off decides."""
    bare = bicrystal()
    exact = impedance(bare, bare.equilibrium(), DECADES, method="direct").impedance + 2.0 * resistance
    system = bicrystal(charge_transfer_resistance=resistance)
    state = system.equilibrium()
    direct = impedance(system, state, DECADES, method="direct")
    np.testing.assert_allclose(direct.impedance, exact, rtol=1e-9)
    reduced = impedance(system, state, DECADES, method="reduced")
    assert np.all(np.abs(reduced.impedance / exact - 1.0) <= reduced.error_bound + 1e-9)
    assert reduced.error_bound.max() <= 1e-5
    # About a biased state nothing is symmetric, and its impedance is nearly that at rest.
    biased = impedance(system, system.steady_state({"right": 1e-6}), DECADES, method="auto")
    np.testing.assert_allclose(biased.impedance, exact, rtol=1e-4)


@pytest.mark.parametrize(("left", "right"), [(1e-7, 1e-7), (1e-3, 0.0), (1e-5, 1e-2)])
def test_charge_transfer_in_two_dimensions(left: float, right: float):
    """Exact series sum on a uniform sheet; beside an insulating inclusion, where the current spreads along the
    electrodes, the reduction against direct solves, at rest and under bias."""
    contacts = {
        name: Electrode("reversible", charge_transfer_resistance=r)
        for name, r in (("left", left), ("right", right))
    }
    length, width = 20 * NM, 4 * NM
    edges = [mirrored(length, 1.3, 0.05 * NM), np.linspace(0.0, width, 7)]
    mesh = tensor_mesh(edges, periodic=(False, True))
    sheet = slab(mesh, contacts)
    exact = (length / (SIGMA + 2j * np.pi * DECADES * EPS) + left + right) / width
    for method in ("direct", "reduced"):
        z = impedance(sheet, sheet.equilibrium(), DECADES[::6], method=method)
        error = np.abs(z.impedance / exact[::6] - 1.0)
        assert error.max() < 1e-7
        assert np.all(error <= z.error_bound + 1e-9)
    inside = (np.abs(mesh.centers[:, 0] - 4 * NM) < 2 * NM) & (np.abs(mesh.centers[:, 1] - 2 * NM) < 1 * NM)
    mesh = mesh.with_regions(inside.astype(int), ("grain", "inclusion"))
    phases = {
        name: Phase(name, TEMPERATURE, SITES, THETA, -SITES * THETA, PERMITTIVITY, sigma, sigma, 0.0)
        for name, sigma in (("grain", SIGMA), ("inclusion", 1e-3 * SIGMA))
    }
    system = PNPSystem(mesh, CellFields.from_phases(mesh, phases), TEMPERATURE, contacts)
    for state in (system.equilibrium(), system.steady_state({"right": 0.2})):
        direct = impedance(system, state, DECADES[::6], method="direct")
        reduced = impedance(system, state, DECADES[::6])
        error = np.abs(reduced.impedance / direct.impedance - 1.0)
        assert np.all(error <= reduced.error_bound + 1e-8)
        assert reduced.error_bound.max() <= 1e-5
        # The inclusion slows ions down: more than the sheet without it.
        assert direct.impedance[0].real > exact[0].real


def test_blocking_impedance_is_second_order():
    length = 40.0 * LAMBDA
    frequency = np.logspace(0, 9, 10)
    errors = []
    for cells in (100, 200):
        mesh = tensor_mesh([np.linspace(0.0, length, cells + 1)])
        system = slab(mesh, {s: Electrode("blocking") for s in ("left", "right")})
        z = impedance(system, system.equilibrium(), frequency).impedance
        errors.append(np.abs(z / blocking_closed_form(frequency, length) - 1.0).max())
    assert np.log2(errors[0] / errors[1]) > 1.95


@pytest.mark.parametrize(
    "electrode",
    [
        {},
        {"kind": "blocking"},
        {"kind": "blocking", "compact_capacitance": 0.1},
        {"charge_transfer_resistance": 1e-5, "compact_capacitance": 0.1},
    ],
    ids=["reversible", "blocking", "compact layer", "charge transfer"],
)
def test_reduced_agrees_with_full_within_its_bound(electrode: dict):
    system = bicrystal(**electrode)
    state = system.equilibrium()
    full = impedance(system, state, DECADES, method="direct")
    for tolerance in (1e-3, 1e-5):
        reduced = impedance(system, state, DECADES, method="reduced", tolerance=tolerance)
        error = np.abs(reduced.impedance / full.impedance - 1.0)
        assert error.max() < tolerance
        assert reduced.error_bound.max() <= tolerance
        assert np.all(error <= 1.5 * reduced.error_bound + 1e-9)
    assert reduced.n_solves <= 9
    assert np.abs(kramers_kronig_residual(DECADES, full.impedance)).max() < 1e-4


def test_charge_transfer_and_compact_layer_in_a_homogeneous_slab():
    """R_ct parallel to the compact layer on both sides, in series with the slab's own R parallel C."""
    length, resistance, capacitance = 50 * NM, 3e-5, 0.02
    contact = Electrode("reversible", capacitance, resistance)
    system = slab(tensor_mesh([np.linspace(0.0, length, 30)]), {"left": contact, "right": contact})
    z = impedance(system, system.equilibrium(), DECADES).impedance
    iw = 2j * np.pi * DECADES
    expected = length / (SIGMA + iw * EPS) + 2.0 / (1.0 / resistance + iw * capacitance)
    np.testing.assert_allclose(z, expected, rtol=1e-9)


def test_limits_at_low_and_high_frequency():
    system = bicrystal()
    state = system.equilibrium()
    z = impedance(system, state, [1e-3, 1e17]).impedance
    small = 1e-6
    np.testing.assert_allclose(
        z[0], small / system.steady_state({"right": small}).current("right"), rtol=1e-6
    )
    length = 402 * NM
    np.testing.assert_allclose(z[1], length / (2j * np.pi * 1e17 * 1000.0 * VACUUM_PERMITTIVITY), rtol=1e-5)


def biased(kind: str, bias: float) -> tuple[PNPSystem, State, list[State]]:
    system = bicrystal(kind, permittivity=12085.0)
    h = 1e-4 * VT
    state, *sides = (system.steady_state({"right": b}) for b in (bias, bias - h, bias + h))
    return system, state, sides


def test_biased_resistance_is_the_slope_of_the_steady_characteristic():
    system, state, (below, above) = biased("reversible", 0.3)
    slope = (above.voltages["right"] - below.voltages["right"]) / (
        above.current("right") - below.current("right")
    )
    z = impedance(system, state, [1e-2]).impedance[0]
    np.testing.assert_allclose(z.real, slope, rtol=1e-6)
    assert abs(slope / (0.3 / state.current("right")) - 1.0) > 0.05


@pytest.mark.parametrize("bias", [0.05, 0.6])
def test_nonlinear_storage_capacitance_is_the_slope_of_the_charge(bias: float):
    """Li fills and empties at the electrodes: the low-frequency capacitance follows the bias."""
    system, state, (below, above) = biased("blocking", bias)
    capacitance = (above.electrode_charge("right") - below.electrode_charge("right")) / (
        above.voltages["right"] - below.voltages["right"]
    )
    f = 1e-3
    z = impedance(system, state, [f]).impedance[0]
    np.testing.assert_allclose((1.0 / (2j * np.pi * f * z)).real, capacitance, rtol=1e-6)
    at_rest = impedance(system, system.equilibrium(), [f]).impedance[0]
    if bias > 0.1:
        assert abs(z / at_rest - 1.0) > 0.05


def test_biased_reduction_is_checked():
    system, state, _ = biased("reversible", 0.3)
    full = impedance(system, state, DECADES, method="direct").impedance
    reduced = impedance(system, state, DECADES, method="reduced")
    np.testing.assert_allclose(reduced.impedance, full, rtol=1e-5)
    assert reduced.method == "reduced"


def test_both_electrodes_see_the_same_current():
    system, state, _ = biased("reversible", 0.3)
    z = [impedance(system, state, DECADES, electrode=name).impedance for name in ("left", "right")]
    np.testing.assert_allclose(z[0], z[1], rtol=1e-9)


def test_two_dimensions_agree_with_one_and_use_the_sparse_path():
    x = mirrored(20 * NM, 1.3, 0.05 * NM)
    contacts = {s: Electrode("blocking") for s in ("left", "right")}
    line, sheet = (tensor_mesh([x]), tensor_mesh([x, np.linspace(0.0, 4 * NM, 5)], periodic=(False, True)))
    one, two = (slab(mesh, contacts) for mesh in (line, sheet))
    z1 = impedance(one, one.equilibrium(), DECADES).impedance
    spectrum = impedance(two, two.equilibrium(), DECADES, tolerance=1e-6)
    assert spectrum.method == "reduced"
    assert (spectrum.unit, impedance(one, one.equilibrium(), [1.0]).unit) == ("ohm m", "ohm m^2")
    np.testing.assert_allclose(spectrum.impedance * 4 * NM, z1, rtol=1e-6)
    direct = impedance(two, two.equilibrium(), DECADES[::10], method="direct").impedance
    np.testing.assert_allclose(direct * 4 * NM, z1[::10], rtol=1e-9)


def test_electrons_short_the_ions_at_low_frequency():
    """Blocked Li beside electrons that pass: the resistance is that of the electrons alone, then of both."""
    length, density, diffusivity = 100 * NM, 1e24, 1e-10
    electron = DiluteSpecies("e", -1, density, diffusivity, diffusivity)
    mesh = tensor_mesh([mirrored(length, 1.1, 0.05 * LAMBDA)])
    grain = Phase("grain", TEMPERATURE, SITES, THETA, -SITES * THETA, PERMITTIVITY, SIGMA, SIGMA, 0.0)
    fields = CellFields.from_phases(mesh, {"grain": grain})
    fields = CellFields(**{**fields.__dict__, "fixed_charge": fields.fixed_charge + density})
    contact = Electrode("blocking", passes=("e",))
    system = PNPSystem(mesh, fields, TEMPERATURE, {"left": contact, "right": contact}, species=[electron])
    z = impedance(system, system.equilibrium(), [1e-4]).impedance[0]
    electronic = ELEMENTARY_CHARGE * diffusivity / VT * density
    np.testing.assert_allclose(z.real, length / electronic, rtol=1e-3)


def test_kramers_kronig_residual_sees_a_spectrum_that_drifts():
    system = bicrystal()
    z = impedance(system, system.equilibrium(), DECADES).impedance
    assert np.abs(kramers_kronig_residual(DECADES, z)).max() < 1e-6
    drift = z * (1.0 + 0.02 * np.linspace(0.0, 1.0, len(z)))
    assert np.abs(kramers_kronig_residual(DECADES, drift)).max() > 1e-4


def test_bad_requests_are_refused():
    system = slab(tensor_mesh([np.linspace(0.0, 10 * NM, 9)]), {s: Electrode() for s in ("left", "right")})
    state = system.equilibrium()
    for bad in ([0.0, 1.0], [-1.0], [np.nan], []):
        with pytest.raises(InputError, match="frequencies"):
            impedance(system, state, bad)
    with pytest.raises(InputError, match="electrode"):
        impedance(system, state, [1.0], electrode="top")
    with pytest.raises(InputError, match="method"):
        impedance(system, state, [1.0], method="fast")  # type: ignore[arg-type]
