"""Transients: balances to round-off, closed forms, order in time, and the frequency domain."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.interpolate import CubicHermiteSpline

from mesoion.errors import ConvergenceError, InputError
from mesoion.material import Phase
from mesoion.mesh import tensor_mesh
from mesoion.physics import (
    BOLTZMANN,
    ELEMENTARY_CHARGE,
    VACUUM_PERMITTIVITY,
    CellFields,
    DiluteSpecies,
    Electrode,
)
from mesoion.smallsignal import impedance
from mesoion.solve import PNPSystem
from mesoion.transient import Transient

TEMPERATURE = 300.0
VT = BOLTZMANN * TEMPERATURE / ELEMENTARY_CHARGE
NM = 1e-9


def line(kind: str = "blocking", permittivity: float = 2000.0, **electrode: object) -> PNPSystem:
    """A layer between two grains, graded towards the electrodes and the layer."""
    widths = 0.05 * NM * 1.25 ** np.arange(20)
    grain_edges = np.r_[widths, widths[::-1]]
    core = np.full(8, 0.2 * NM)
    mesh = tensor_mesh([np.r_[0.0, np.cumsum(np.r_[grain_edges, core, grain_edges])]])
    middle = 0.5 * mesh.volumes.sum()
    mesh = mesh.with_regions(
        (np.abs(mesh.centers[:, 0] - middle) < 0.8 * NM).astype(int), ("grain", "boundary")
    )
    grain = Phase("grain", TEMPERATURE, 1.7e28, 0.5, -0.85e28, permittivity, 1e-2, 1e-2, 0.0)
    layer = Phase(
        "boundary",
        TEMPERATURE,
        1.7e28,
        0.5,
        -0.85e28,
        permittivity,
        1e-4,
        1e-4,
        3.0 * VT * ELEMENTARY_CHARGE,
        1.6 * NM,
    )
    fields = CellFields.from_phases(mesh, {"grain": grain, "boundary": layer})
    contact = Electrode(kind, **electrode)
    return PNPSystem(mesh, fields, TEMPERATURE, {"left": contact, "right": contact}, resolution="ignore")


def imbalance(sides: dict[str, np.ndarray]) -> float:
    return float(np.abs(sides["left"] + sides["right"]).max() / np.abs(sides["right"]).max())


@pytest.mark.parametrize(
    "electrode",
    [
        {"kind": "blocking"},
        {"kind": "blocking", "compact_capacitance": 0.5},
        {"kind": "reversible"},
        {"charge_transfer_resistance": 1e-6, "compact_capacitance": 0.2, "kinetics": "butler-volmer"},
    ],
    ids=["blocking", "compact layer", "reversible", "charge transfer"],
)
def test_charge_and_mass_balance_to_round_off(electrode: dict):
    system = line(**electrode)
    rest = system.equilibrium()
    result = system.transient({"right": lambda t: 0.3 * np.cos(2e7 * t)}, 3e-7, keep_states=True)
    assert len(result.time) > 12
    assert imbalance(result.current) < 2e-12
    assert imbalance(result.charge) < 2e-12
    lithium = np.array([system.mesh.volumes @ state.concentration for state in result.states])
    gained = ELEMENTARY_CHARGE * (lithium - system.mesh.volumes @ rest.concentration)
    passed = result.ionic_charge["left"] + result.ionic_charge["right"]
    np.testing.assert_allclose(gained, passed, rtol=0, atol=1e-12 * ELEMENTARY_CHARGE * lithium[0])
    for state in result.states[1:]:
        on_metal = sum(state.electrode_charge(name) for name in ("left", "right"))
        inside = state.charge_density @ system.mesh.volumes
        scale = np.abs(state.charge_density) @ system.mesh.volumes
        if electrode.get("charge_transfer_resistance", 0.0) == 0.0:
            assert abs(on_metal + inside) < 1e-11 * scale


@pytest.mark.parametrize(
    "electrode",
    [
        {"kind": "blocking"},
        {"kind": "reversible"},
        {"kind": "reversible", "charge_transfer_resistance": 1e-6, "compact_capacitance": 0.2},
    ],
    ids=["blocking", "reversible", "charge transfer"],
)
@pytest.mark.parametrize("permittivity", [2000.0, 12085.0])
def test_charge_balance_of_a_long_line_with_cells_of_a_fiftieth_of_a_nanometre(
    electrode: dict, permittivity: float
):
    """402 nm: the middle cells hold thousands of times the charge that passes, the end cells a step of 1e-5 kT."""
    widths = 0.02 * NM * 1.15 ** np.arange(47)
    grain_widths = np.r_[widths, widths[::-1]] * (200 * NM / (2.0 * widths.sum()))
    core = np.full(20, 0.1 * NM)
    mesh = tensor_mesh([np.r_[0.0, np.cumsum(np.r_[grain_widths, core, grain_widths])]])
    mesh = mesh.with_regions(
        (np.abs(mesh.centers[:, 0] - 201 * NM) < 1 * NM).astype(int), ("grain", "boundary")
    )
    # An occupancy off one half: its logit is no round number.
    grain = Phase("grain", TEMPERATURE, 1.7e28, 0.7, -0.7 * 1.7e28, permittivity, 1e-2, 1e-2, 0.0)
    layer = replace(
        grain,
        name="boundary",
        conductivity_along=1e-4,
        conductivity_across=1e-4,
        standard_energy=4.0 * VT * ELEMENTARY_CHARGE,
        width=2 * NM,
    )
    fields = CellFields.from_phases(mesh, {"grain": grain, "boundary": layer})
    contact = Electrode(**electrode)
    system = PNPSystem(mesh, fields, TEMPERATURE, {"left": contact, "right": contact}, resolution="ignore")
    result = system.transient({"right": lambda t: 0.3 * float(np.cos(2e6 * t))}, 3e-6)
    assert imbalance(result.charge) < 1e-12


def test_electrons_and_ions_are_balanced_together():
    mesh = tensor_mesh([np.linspace(0.0, 20.0, 81) * NM])
    grain = Phase("grain", TEMPERATURE, 1e26, 0.3, -0.3e26, 50.0, 1e-3, 1e-3, 0.0)
    fields = CellFields.from_phases(mesh, {"grain": grain})
    fields = CellFields(**{**fields.__dict__, "fixed_charge": fields.fixed_charge + 1e24})
    electron = DiluteSpecies("e", -1, 1e24, 1e-9, 1e-9)
    contacts = {
        "left": Electrode("blocking", passes=("e",)),
        "right": Electrode("reversible", charge_transfer_resistance=1e-5, passes=("e",)),
    }
    system = PNPSystem(mesh, fields, TEMPERATURE, contacts, species=[electron])
    result = system.transient({"right": lambda _: 0.1}, 1e-1)
    assert imbalance(result.current) < 1e-12
    assert imbalance(result.charge) < 1e-12
    steady = system.steady_state({"right": 0.1}, start=result.final)
    np.testing.assert_allclose(result.current["right"][-1], steady.current("right"), rtol=1e-4)


def test_step_response_of_a_slab_behind_charge_transfer_in_closed_form():
    """Z(p) = L/(sigma + p eps) + 2/(1/R + p C) has two poles in its admittance."""
    length, sigma, eps, resistance, capacitance = 50 * NM, 1e-3, 50.0 * VACUUM_PERMITTIVITY, 3e-5, 0.02
    grain = Phase("grain", TEMPERATURE, 1e26, 0.3, -0.3e26, 50.0, sigma, sigma, 0.0)
    mesh = tensor_mesh([np.linspace(0.0, length, 20)])
    contact = Electrode("reversible", capacitance, resistance)
    system = PNPSystem(
        mesh, CellFields.from_phases(mesh, {"grain": grain}), TEMPERATURE, {"left": contact, "right": contact}
    )
    volt = 0.01
    result = system.transient({"right": lambda _: volt}, 3e-6, tolerance=1e-7)
    numerator = np.polymul([eps, sigma], [capacitance, 1.0 / resistance])
    denominator = np.polyadd(length * np.array([capacitance, 1.0 / resistance]), 2.0 * np.array([eps, sigma]))
    # Y(p)/p without the impulse of the geometric capacitance.
    pole = -denominator[1] / denominator[0]
    dc = numerator[-1] / denominator[-1]
    direct = np.polydiv(numerator, denominator)[0][1]
    expected = volt * (dc + (direct - dc) * np.exp(pole * result.time))
    np.testing.assert_allclose(result.current["right"], expected, rtol=2e-4)
    impulse = np.polydiv(numerator, denominator)[0][0] * volt
    np.testing.assert_allclose(result.charge["right"][0], impulse, rtol=1e-9)


def test_second_order_in_time():
    system = line("reversible")
    end = 2e-8

    def charge(steps: int) -> float:
        h = end / steps
        ramp = {"right": lambda t: 0.2 * np.sin(0.5 * np.pi * t / end) ** 2}
        result = system.transient(ramp, end, tolerance=1e6, first_step=h, largest_step=h)
        assert len(result.time) == steps + 1
        # Current and charge come by different ways: induced current, and charge on the metal plus ions passed.
        passed = np.trapezoid(result.current["right"], result.time)
        np.testing.assert_allclose(passed, result.charge["right"][-1], rtol=1e-3)
        return float(result.charge["right"][-1])

    values = [charge(n) for n in (40, 80, 160)]
    assert np.log2(abs((values[0] - values[1]) / (values[1] - values[2]))) > 1.9


def test_error_control_follows_the_tolerance():
    system = line("blocking")
    runs = [system.transient({"right": lambda _: 0.2}, 1e-7, tolerance=tol) for tol in (1e-2, 1e-4, 1e-6)]
    exact = system.transient({"right": lambda _: 0.2}, 1e-7, tolerance=1e-8).charge["right"][-1]
    errors = [abs(r.charge["right"][-1] / exact - 1.0) for r in runs]
    assert errors[2] < errors[1] < errors[0] < 0.05
    assert errors[2] < 1e-5
    assert len(runs[0].time) < len(runs[1].time) < len(runs[2].time)


def test_long_transient_ends_in_the_steady_state():
    system = line("blocking")
    result = system.transient({"right": lambda _: 0.4}, 1.0)
    steady = system.steady_state({"right": 0.4})
    np.testing.assert_allclose(result.final.potential, steady.potential, rtol=0, atol=1e-6)
    np.testing.assert_allclose(result.charge["right"][-1], steady.electrode_charge("right"), rtol=1e-6)


def fourier(result: Transient, step: float, frequency: np.ndarray) -> np.ndarray:
    """Admittance of a step response that ends without current: Y dV = i omega (q_end + i omega FT[q - q_end])."""
    t, q, i = result.time, result.charge["right"], result.current["right"]
    cubic = CubicHermiteSpline(t, q - q[-1], i)
    h = np.diff(t)
    nodes, weights = np.polynomial.legendre.leggauss(8)
    at = t[:-1, np.newaxis] + 0.5 * h[:, np.newaxis] * (1.0 + nodes)
    gauss = cubic(at) * (0.5 * h[:, np.newaxis] * weights)
    out = []
    for w in 2j * np.pi * frequency:
        by_nodes = (gauss * np.exp(-w * at)).sum(axis=1)
        # Over long steps the oscillation is integrated by parts, exactly for a cubic.
        ends = [
            -np.exp(-w * x) * sum(v / w ** (k + 1) for k, v in enumerate(c))
            for x, c in ((t[1:], derivatives(cubic, h)), (t[:-1], derivatives(cubic, 0.0 * h)))
        ]
        integral = np.where(np.abs(w) * h < 2.0, by_nodes, ends[0] - ends[1]).sum()
        out.append(w * (q[-1] + w * integral) / step)
    return np.array(out)


def derivatives(cubic: CubicHermiteSpline, x: np.ndarray) -> list[np.ndarray]:
    """Value and derivatives of each piece at x beyond its start."""
    a, b, c, d = cubic.c
    return [((a * x + b) * x + c) * x + d, (3 * a * x + 2 * b) * x + c, 6 * a * x + 2 * b, 6 * a]


@pytest.mark.parametrize("bias", [0.0, 0.5])
def test_fourier_transform_of_a_small_step_is_the_impedance(bias: float):
    """At 0.5 V the storage at the electrodes is far from linear."""
    system = line("blocking", compact_capacitance=1.0)
    start = system.steady_state({"right": bias})
    step = 1e-3 * VT
    result = system.transient({"right": lambda _: bias + step}, 1e-2, start, tolerance=1e-9)
    frequency = np.logspace(4.0, 8.5, 10)
    expected = 1.0 / impedance(system, start, frequency).impedance
    np.testing.assert_allclose(fourier(result, step, frequency), expected, rtol=1e-4)


def test_bad_requests_are_refused_and_failures_keep_the_last_state():
    system = line("blocking")
    with pytest.raises(InputError, match="voltage"):
        system.transient({"top": lambda _: 0.1}, 1e-6)
    with pytest.raises(InputError, match="t_end"):
        system.transient({"right": lambda _: 0.1}, -1e-6)
    with pytest.raises(ConvergenceError, match=r"t = .* s") as caught:
        system.transient({"right": lambda t: 0.1 if t < 1e-8 else np.nan}, 1e-7)
    assert 0.0 < caught.value.last_good.voltages["right"] <= 0.1
