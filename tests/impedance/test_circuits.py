"""Circuits: closed forms, derivatives against complex steps, the notation."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from mesoion.errors import InputError
from mesoion.impedance.circuit_notation import parse_circuit
from mesoion.impedance.circuits import (
    CPE,
    ELEMENTS,
    ZARC,
    C,
    Circuit,
    Gerischer,
    L,
    R,
    TransmissionLine,
    Warburg,
    WarburgOpen,
    WarburgShort,
)

FREQUENCY = np.logspace(7, -3, 41)
OMEGA = 2 * np.pi * FREQUENCY
EVERYTHING = (
    R(100.0)
    + L(1e-6)
    + (R(1e3) | C(5e-11))
    + (R(5e3) | CPE(1e-8, 0.9))
    + (CPE(1e-6, 0.8) | (R(2e3) + Warburg(50.0)))
    + WarburgShort(300.0, 2.0)
    + WarburgOpen(400.0, 0.3)
    + Gerischer(70.0, 1e-3)
    + ZARC(800.0, 1e-4, 0.85)
    + TransmissionLine(R(900.0), R(1e4) | CPE(1e-5, 0.95))
)


def test_series_and_parallel_are_kirchhoffs() -> None:
    z = (R(100.0) + (R(1e3) | C(5e-11))).impedance(FREQUENCY)
    assert_allclose(z, 100.0 + 1e3 / (1 + 1j * OMEGA * 1e3 * 5e-11), rtol=1e-14, atol=0)


def test_parallel_of_three_adds_admittances() -> None:
    z = (R(10.0) | C(1e-6) | L(1e-3)).impedance(FREQUENCY)
    assert_allclose(1 / z, 0.1 + 1j * OMEGA * 1e-6 + 1 / (1j * OMEGA * 1e-3), rtol=1e-13, atol=0)


def test_zarc_is_resistor_beside_cpe() -> None:
    r, q, n = 5e3, 1e-8, 0.9
    zarc = ZARC(r, (r * q) ** (1 / n), n)
    assert_allclose(zarc.impedance(FREQUENCY), (R(r) | CPE(q, n)).impedance(FREQUENCY), rtol=1e-13, atol=0)


def test_warburg_lies_at_45_degrees() -> None:
    z = Warburg(30.0).impedance(FREQUENCY)
    assert_allclose(z.real, 30.0 / np.sqrt(OMEGA), rtol=1e-13, atol=0)
    assert_allclose(-z.imag, z.real, rtol=1e-13, atol=0)


def test_finite_diffusion_is_semi_infinite_when_fast_and_lumped_when_slow() -> None:
    resistance, tau = 300.0, 2.0
    fast, slow = np.array([1e5]), np.array([1e-6])
    infinite = Warburg(resistance / math.sqrt(2 * tau)).impedance(fast)
    for kind in (WarburgShort, WarburgOpen):
        assert_allclose(kind(resistance, tau).impedance(fast), infinite, rtol=1e-12, atol=0)
    assert_allclose(WarburgShort(resistance, tau).impedance(slow).real, resistance, rtol=1e-9, atol=0)
    blocked = WarburgOpen(resistance, tau).impedance(slow)
    assert_allclose(blocked.real, resistance / 3, rtol=1e-9, atol=0)
    assert_allclose(-blocked.imag * 2 * np.pi * slow, resistance / tau, rtol=1e-9, atol=0)


def test_gerischer_limits() -> None:
    gerischer = Gerischer(70.0, 1e-3)
    assert_allclose(gerischer.impedance([1e-6]).real, 70.0, rtol=1e-9, atol=0)
    at_high = gerischer.impedance([1e9])
    assert_allclose(np.angle(at_high), -np.pi / 4, rtol=1e-6, atol=0)


def test_transmission_line_limits() -> None:
    # A pore much less resistive than its wall: wall + R/3. A pore much more so: √(R Z_wall).
    low = TransmissionLine(R(1.0), R(1e6)).impedance([1.0])
    assert_allclose(low, 1e6 + 1 / 3, rtol=1e-12, atol=0)
    high = TransmissionLine(R(1e6), R(1.0)).impedance([1.0])
    assert_allclose(high, 1e3, rtol=1e-12, atol=0)


def test_transmission_line_with_capacitive_wall_is_open_warburg() -> None:
    line = TransmissionLine(R(400.0), C(0.3 / 400.0)).impedance(FREQUENCY)
    assert_allclose(line, WarburgOpen(400.0, 0.3).impedance(FREQUENCY), rtol=1e-12, atol=0)


def test_derivatives_against_central_differences() -> None:
    values = EVERYTHING.values
    z, slopes = EVERYTHING.derivatives(FREQUENCY, values)
    assert_allclose(z, EVERYTHING.impedance(FREQUENCY), rtol=0, atol=0)
    step = 1e-5
    for k in range(len(values)):
        up, down = values.copy(), values.copy()
        up[k] *= math.exp(step)
        down[k] *= math.exp(-step)
        numeric = (EVERYTHING.impedance(FREQUENCY, up) - EVERYTHING.impedance(FREQUENCY, down)) / (2 * step)
        # The difference loses digits to the whole circuit's |Z|; relative to it the error is step²/6 + ε/step.
        assert_allclose(slopes[:, k] / np.abs(z), numeric / np.abs(z), rtol=1e-6, atol=3e-10)


def test_names_are_unique_and_values_go_back_by_name() -> None:
    circuit = R(1.0) + ZARC(2.0, 3.0, 0.9) + (R(4.0, label="gb") | CPE(5.0, 0.8))
    assert [p.name for p in circuit.parameters] == ["R1", "R2", "tau2", "n2", "R_gb", "Q1", "n1"]
    changed = circuit.with_values({"R_gb": 40.0})
    assert_allclose(changed.values, [1.0, 2.0, 3.0, 0.9, 40.0, 5.0, 0.8], rtol=0, atol=0)
    with pytest.raises(InputError, match="R9"):
        circuit.with_values({"R9": 1.0})


@pytest.mark.parametrize("bad", [(0.0,), (-1.0,), (float("nan"),), (1.0, 2.0)])
def test_element_refuses_impossible_values(bad: tuple[float, ...]) -> None:
    with pytest.raises(InputError):
        R(*bad)


def test_equal_labels_are_refused() -> None:
    with pytest.raises(InputError, match="R_a"):
        _ = (R(1.0, label="a") + R(2.0, label="a")).parameters


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("R-(RC)-(RQ)", R() + (R() | C()) + (R() | CPE())),
        ("LR(RQ)(RQ)Q", L() + R() + (R() | CPE()) + (R() | CPE()) + CPE()),
        ("R(Q[RW])", R() + (CPE() | (R() + Warburg()))),
        ("R_gb - Wo2 Ws", R(label="gb") + WarburgOpen(label="2") + WarburgShort()),
        ("T{9,}<(RQ{1e-5,0.95f})>", None),
        (
            "T{900}<(RQ{1e-5,0.95f})>",
            TransmissionLine(R(900.0), R() | CPE(1e-5, 0.95, fixed=["n"])),
        ),
        ("(R[R(RC)])Z{5,?,0.9}", (R() | (R() + (R() | C()))) + ZARC(5.0, None, 0.9)),
    ],
)
def test_notation(text: str, same: Circuit | None) -> None:
    if same is None:
        with pytest.raises(InputError, match="position 2"):
            parse_circuit(text)
        return
    assert parse_circuit(text) == same
    assert parse_circuit(same.description(values=True)) == same


@pytest.mark.parametrize(
    "text",
    [
        "",
        "X",
        "R-",
        "(R)",
        "(RC",
        "R)",
        "R(R[C)]",
        "R{-1}",
        "R{1e999}",
        "R{?f}",
        "Q{1,2}",
        "T(RC)",
        "R1R1",
        "(R" * 200,
        "R" * 41,
        "[RC]",
        "R{1}{2}",
        "__import__('os')",
    ],
)
def test_notation_refuses(text: str) -> None:
    with pytest.raises(InputError):
        parse_circuit(text)


@given(st.text(alphabet="RCLQWGZTso()[]<>{}-_,?f0123456789.e ", max_size=60))
def test_notation_never_breaks(text: str) -> None:
    try:
        circuit = parse_circuit(text)
    except InputError:
        return
    assert parse_circuit(circuit.description(values=True)) == circuit


def test_every_symbol_has_its_element() -> None:
    assert {kind.symbol for kind in ELEMENTS.values()} == set(ELEMENTS)
    for symbol, kind in ELEMENTS.items():
        assert parse_circuit(symbol) == kind()
