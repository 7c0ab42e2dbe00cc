"""Circuit fits: exact recovery over bounds and starts, intervals against their stated coverage, model choice."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import t as student_t

from mesoion.errors import InputError
from mesoion.impedance.arc_places import arc_places
from mesoion.impedance.circuit_fit import CircuitFit, fit_circuit, refitted, select_circuit
from mesoion.impedance.circuits import CPE, ZARC, C, Circuit, L, R

FREQUENCY = np.logspace(7, 0, 71)


def pellet(capacitance: float) -> Circuit:
    return R(100.0) + (R(1e3) | C(capacitance)) + (R(5e3) | CPE(1e-8, 0.9))


def noisy(circuit: Circuit, rng: np.random.Generator, noise: float = 0.005) -> np.ndarray:
    z = circuit.impedance(FREQUENCY)
    return z + noise * np.abs(z) * (rng.normal(size=z.size) + 1j * rng.normal(size=z.size))


@pytest.mark.parametrize("capacitance", [5e-11, 5e-12])
def test_picofarads_from_one_start_a_factor_two_off(capacitance: float) -> None:
    truth = pellet(capacitance)
    z = truth.impedance(FREQUENCY)
    for signs in itertools.islice(itertools.product((-1, 1), repeat=5), 0, 32, 3):
        start = truth.values * np.array([*(2.0**s for s in signs), 0.8 / 0.9])
        fit = fit_circuit(FREQUENCY, z, truth.with_values(start), starts=1)
        assert_allclose(fit.circuit.values, truth.values, rtol=1e-8, atol=0)


def test_recovery_from_no_values_at_all() -> None:
    truth = pellet(5e-11)
    circuit = R() + (R() | C()) + (R() | CPE())
    fit = fit_circuit(FREQUENCY, truth.impedance(FREQUENCY), circuit, starts=4, seed=1)
    assert_allclose(fit.circuit.values, truth.values, rtol=1e-7, atol=0)


def test_exchanged_arcs_are_left_for_the_better_minimum() -> None:
    truth = pellet(5e-12)
    z = truth.impedance(FREQUENCY)
    start = truth.with_values(truth.values * np.array([0.5, 0.5, 0.5, 0.5, 0.5, 0.8 / 0.9]))
    stuck = fit_circuit(FREQUENCY, z, start, starts=1, exchange=False)
    assert stuck.chi_squared > 1e-3
    assert fit_circuit(FREQUENCY, z, start, starts=1).chi_squared < 1e-20


def test_fixed_values_are_held_and_bounds_are_named() -> None:
    z = (R(100.0) + (R(1e3) | C(1e-9))).impedance(FREQUENCY)
    circuit = R(90.0, fixed=True) + (R(1e3) | CPE(1e-9, 0.95))
    fit = fit_circuit(FREQUENCY, z, circuit, starts=1)
    assert fit.value("R1") == pytest.approx(90.0, rel=1e-15)
    assert fit.free == (1, 2, 3)
    exact = fit_circuit(FREQUENCY, z, R() + (R() | CPE()), starts=4)
    assert exact.at_bound == ("n1",)


def one_resistor(rng: np.random.Generator) -> tuple[np.ndarray, CircuitFit]:
    z = np.full(30, 50.0 + 0j) + rng.normal(size=30) + 1j * rng.normal(size=30)
    return z, fit_circuit(np.logspace(3, 0, 30), z, R(40.0), deviation=1.0, starts=1)


def test_one_resistor_is_the_mean_with_its_standard_error() -> None:
    z, fit = one_resistor(np.random.default_rng(3))
    assert_allclose(fit.value("R1"), z.real.mean(), rtol=1e-10, atol=0)
    assert_allclose(fit.log_uncertainty({"R1": 1.0}) * fit.value("R1"), 1 / math.sqrt(30), rtol=1e-8, atol=0)


def test_profile_of_one_resistor_is_exact() -> None:
    z, fit = one_resistor(np.random.default_rng(4))
    half = student_t.ppf(0.975, 59) / math.sqrt(30)
    low, high = fit.profile_interval("R1")
    assert_allclose([low, high], [z.real.mean() - half, z.real.mean() + half], rtol=1e-4, atol=0)


def test_unknown_noise_is_found() -> None:
    fit = fit_circuit(FREQUENCY, noisy(pellet(5e-11), np.random.default_rng(5)), pellet(5e-11), starts=1)
    assert fit.scale == pytest.approx(0.005, rel=0.2)


def test_weights_decide_between_points() -> None:
    z = np.array([10.0, 20.0, 20.0]) + 0j
    fit = fit_circuit([3.0, 2.0, 1.0], z, R(1.0), deviation=[1e-3, 1.0, 1.0], starts=1)
    assert_allclose(fit.value("R1"), 10.0, rtol=1e-5, atol=0)
    assert fit.scale > 5


def test_known_noise_that_explains_the_misfit_is_not_widened() -> None:
    truth = pellet(5e-11)
    z = noisy(truth, np.random.default_rng(6))
    known = fit_circuit(FREQUENCY, z, truth, deviation=0.005 * np.abs(z), starts=1)
    assert known.scale == 1.0
    free = fit_circuit(FREQUENCY, z, truth, starts=1)
    ratio = known.log_uncertainty({"C1": 1.0}) / free.log_uncertainty({"C1": 1.0})
    assert_allclose(ratio, 0.005 / free.scale, rtol=1e-6, atol=0)


@pytest.mark.parametrize("criterion", ["aic", "bic"])
def test_selection_finds_the_number_of_arcs(criterion: str) -> None:
    rng = np.random.default_rng(8)
    candidates = [R() + ZARC(), R() + ZARC() + ZARC(), R() + ZARC() + ZARC() + ZARC()]
    truth = R(100.0) + ZARC(1e3, 1e-6, 0.95) + ZARC(5e3, 1e-3, 0.9)
    best, fits = select_circuit(
        FREQUENCY, noisy(truth, rng), candidates, criterion=criterion, starts=4, seed=2
    )
    assert len(arc_places(best.circuit)) == 2
    assert len(fits) == 3
    assert fits[0].bic <= fits[1].bic


def test_information_criteria_of_one_resistor() -> None:
    z, fit = one_resistor(np.random.default_rng(9))
    residual = np.sum((z.real - z.real.mean()) ** 2 + z.imag**2)
    minus_two_log = residual + 60 * math.log(2 * math.pi)
    assert_allclose(fit.bic, minus_two_log + math.log(60), rtol=1e-12, atol=0)
    assert_allclose(fit.aic, minus_two_log + 2 + 4 / 58, rtol=1e-12, atol=0)


def test_arcs_are_read_and_written_in_every_form() -> None:
    circuit = (
        R(1.0) + (C(1e-9) | R(50.0)) + (R(7.0) | CPE(1e-6, 0.8)) + ZARC(9.0, 1e-2, 0.9) + (R(1.0) | L(1.0))
    )
    values = circuit.values
    places = arc_places(circuit)
    assert [p.read(values)[2] for p in places] == [1.0, 0.8, 0.9]
    assert_allclose([p.read(values)[1] for p in places], [5e-8, 7e-6 ** (1 / 0.8), 1e-2], rtol=1e-12, atol=0)
    for place in places:
        read = place.read(values)
        copy = values * 1.3
        place.write(copy, *read)
        assert_allclose(place.read(copy), read, rtol=1e-12, atol=0)
        for k, gradient in enumerate(zip(*place.gradients(values), strict=True)):
            up, down = values.copy(), values.copy()
            up[k] *= math.exp(1e-6)
            down[k] *= math.exp(-1e-6)
            (r1, t1, _), (r0, t0, _) = place.read(up), place.read(down)
            numeric = np.log([r1 / r0, t1 / t0, t1 * r0 / (r1 * t0)]) / 2e-6
            assert_allclose(gradient, numeric, rtol=1e-7, atol=1e-8)


def test_refitting_with_a_value_held_raises_the_misfit() -> None:
    fit = fit_circuit(FREQUENCY, noisy(pellet(5e-11), np.random.default_rng(5)), pellet(5e-11), starts=1)
    low, _ = fit.profile_interval("C1")
    held = refitted(fit, C1=low)
    quantile = student_t.ppf(0.975, fit.degrees_of_freedom)
    assert_allclose(held.chi_squared - fit.chi_squared, (quantile * fit.scale) ** 2, rtol=0.02, atol=0)


@pytest.mark.parametrize(
    ("frequency", "impedance", "match"),
    [
        ([1.0, 2.0], [1.0], "equally long"),
        ([1.0, -2.0], [1.0, 1.0], "above zero"),
        ([1.0, 2.0], [1.0, float("nan")], "finite"),
        ([1.0], [1.0], "needs more than"),
    ],
)
def test_bad_spectra_are_refused(frequency: list[float], impedance: list[float], match: str) -> None:
    with pytest.raises(InputError, match=match):
        fit_circuit(frequency, impedance, R() + C())


@pytest.mark.slow
@pytest.mark.parametrize("capacitance", [5e-11, 5e-12])
def test_intervals_hold_the_truth_as_often_as_stated(capacitance: float) -> None:
    truth, rng = pellet(capacitance), np.random.default_rng(7)
    start = truth.with_values(truth.values * np.array([0.5, 2.0, 0.5, 2.0, 0.5, 0.9]))
    names, draws = [p.name for p in truth.parameters], 500
    held = np.zeros(len(names))
    for _ in range(draws):
        fit = fit_circuit(FREQUENCY, noisy(truth, rng), start, starts=1)
        ends = np.array([fit.interval(name) for name in names])
        held += (ends[:, 0] <= truth.values) & (truth.values <= ends[:, 1])
    assert np.all((held / draws >= 0.93) & (held / draws <= 0.97)), held / draws
