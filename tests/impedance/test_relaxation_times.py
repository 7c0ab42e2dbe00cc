"""Distribution of relaxation times against the closed form of a depressed arc."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mesoion.errors import InputError
from mesoion.impedance.circuits import ZARC, C, L, R
from mesoion.impedance.relaxation_times import (
    RelaxationTimes,
    kernel,
    relaxation_times,
    zarc_distribution,
)

FREQUENCY = np.logspace(7, -1, 65)
ARCS = ((1e3, 1e-6, 0.85), (5e3, 1e-3, 0.8))
CIRCUIT = R(50.0) + L(1e-7) + ZARC(*ARCS[0]) + ZARC(*ARCS[1]) + C(1e-5)


def spectrum(noise: float, seed: int = 0) -> np.ndarray:
    rng, z = np.random.default_rng(seed), CIRCUIT.impedance(FREQUENCY)
    return z + noise * np.abs(z) * (rng.normal(size=z.size) + 1j * rng.normal(size=z.size))


def truth(found: RelaxationTimes) -> tuple[np.ndarray, np.ndarray]:
    """The exact distribution, and which times lie in the measured window."""
    exact = sum(zarc_distribution(found.tau, *arc) for arc in ARCS)
    window = (found.tau > 1 / (2 * np.pi * FREQUENCY[0])) & (found.tau < 1 / (2 * np.pi * FREQUENCY[-1]))
    return np.asarray(exact), window


def test_closed_form_integrates_to_the_resistance() -> None:
    x = np.linspace(-60, 60, 20001)
    gamma = zarc_distribution(np.exp(x), 7.0, 1.0, 0.8)
    assert_allclose(np.trapezoid(gamma, x), 7.0, rtol=1e-9, atol=0)
    assert_allclose(gamma[10000], 7.0 / (2 * math.pi) / math.tan(0.1 * math.pi), rtol=1e-12, atol=0)


def test_kernel_of_the_closed_form_is_the_arc_to_second_order() -> None:
    errors = []
    for count in (1001, 2001):
        tau = np.geomspace(1e-24, 1e16, count)
        z = kernel(FREQUENCY, tau) @ zarc_distribution(tau, 1e3, 1e-4, 0.8)
        errors.append(np.max(np.abs(z / ZARC(1e3, 1e-4, 0.8).impedance(FREQUENCY) - 1)))
    assert errors[1] < 2e-4
    assert math.log2(errors[0] / errors[1]) > 1.8


def test_kernel_of_a_constant_is_its_integral() -> None:
    tau = np.geomspace(1e-7, 1e-2, 51)
    omega = 2 * np.pi * FREQUENCY
    exact = np.log(tau[-1] / tau[0]) - np.log((1 + 1j * omega * tau[-1]) / (1 + 1j * omega * tau[0]))
    assert_allclose(kernel(FREQUENCY, tau).sum(axis=1), exact, rtol=1e-9, atol=0)


def test_noise_free_arcs_are_recovered() -> None:
    found = relaxation_times(FREQUENCY, spectrum(0.0), draws=4)
    exact, window = truth(found)
    assert np.max(np.abs(found.distribution - exact)[window]) < 0.05 * exact.max()
    assert_allclose(found.series_resistance, 50.0, rtol=0.05, atol=0)
    assert_allclose(found.inductance, 1e-7, rtol=0.05, atol=0)
    assert_allclose(1 / found.inverse_capacitance, 1e-5, rtol=1e-3, atol=0)
    assert len(found.peaks) == 2
    assert_allclose([p.relaxation_time for p in found.peaks], [1e-6, 1e-3], rtol=0.15, atol=0)
    assert_allclose(found.model, spectrum(0.0), rtol=1e-4, atol=0)
    # What one arc has beyond the minimum between them counts for the other.
    cut = found.peaks[0].last
    x = np.linspace(math.log(found.peaks[0].first), math.log(cut), 4001)
    shares = np.trapezoid(sum(zarc_distribution(np.exp(x), *arc) for arc in ARCS), x)
    assert_allclose(found.peaks[0].resistance, shares, rtol=0.02, atol=0)
    assert_allclose(
        found.resistance_between(found.peaks[0].first, cut), found.peaks[0].resistance, rtol=1e-12
    )


@pytest.mark.parametrize("noise", [1e-3, 5e-3])
def test_noise_is_found_and_the_band_holds_most_of_the_truth(noise: float) -> None:
    held, levels = [], []
    for seed in range(4):
        found = relaxation_times(FREQUENCY, spectrum(noise, seed), seed=seed)
        exact, window = truth(found)
        held.append(np.mean(((found.low <= exact) & (exact <= found.high))[window]))
        levels.append(found.noise)
        tops = [p.relaxation_time for p in found.peaks]
        assert min(abs(math.log(t / 1e-6)) for t in tops) < 0.5
        assert min(abs(math.log(t / 1e-3)) for t in tops) < 0.5
    assert_allclose(np.mean(levels), noise, rtol=0.15, atol=0)
    # 0.86 to 0.89 at the chosen smoothness alone.
    assert np.mean(held) > 0.94


PAIRS = {
    "apart": ((1000.0, 1e-6, 0.9), (3000.0, 1e-3, 0.85)),
    "overlapping": ((1000.0, 1e-5, 0.9), (1500.0, 2e-4, 0.9)),
    "broad": ((1000.0, 1e-6, 0.75), (800.0, 3e-4, 0.7)),
    "uneven": ((200.0, 1e-6, 0.9), (5000.0, 1e-3, 0.9)),
    "tail": ((1000.0, 1e-6, 0.92), (2000.0, 1e-3, 0.88)),
}


def peaks_of(kind: str, seeds: range) -> tuple[list[int], list[bool]]:
    """How many peaks each spectrum shows, and whether each interval of a resistance holds the exact integral."""
    omega = 2j * np.pi * FREQUENCY
    exact = 50.0 + 1e-7 * omega + sum(r / (1 + (omega * t) ** n) for r, t, n in PAIRS[kind])
    elastance = 1e5 if kind == "tail" else 0.0
    exact = exact + elastance / omega**0.9
    numbers, held = [], []
    for seed in seeds:
        rng, noise = np.random.default_rng(seed), (1e-3, 5e-3)[seed % 2]
        errors = rng.normal(size=FREQUENCY.size) + 1j * rng.normal(size=FREQUENCY.size)
        found = relaxation_times(FREQUENCY, exact + noise * np.abs(exact) * errors, seed=seed)
        numbers.append(len(found.peaks))
        for peak in found.peaks:
            x = np.linspace(math.log(peak.first), math.log(peak.last), 2001)
            density = sum(zarc_distribution(np.exp(x), *arc) for arc in PAIRS[kind])
            # The distribution of 1/(Q (iω)^n) is sin(nπ) τ^n / (π Q).
            density = density + elastance * math.sin(0.9 * math.pi) / math.pi * np.exp(0.9 * x)
            held.append(bool(peak.low <= np.trapezoid(density, x) <= peak.high))
    return numbers, held


@pytest.mark.parametrize("kind", PAIRS)
def test_two_arcs_are_two_peaks_with_their_resistances(kind: str) -> None:
    numbers, held = peaks_of(kind, range(4))
    # Ripples of an arc are no processes: before they were told from peaks there were four or five.
    assert set(numbers) <= {1, 2}
    assert np.mean(numbers) > 1.4
    assert sum(held) >= len(held) - 1


@pytest.mark.slow
def test_intervals_of_peaks_hold_their_resistance() -> None:
    numbers, held = [], []
    for kind in PAIRS:
        more, right = peaks_of(kind, range(100, 140))
        numbers += more
        held += right
    assert np.mean(held) > 0.97
    # A tail of the electrodes does not hide the arc before it.
    assert min(numbers) == 1
    assert np.mean(np.array(numbers) == 2) > 0.9


def test_smoothness_rises_with_regularisation() -> None:
    z = spectrum(5e-3)
    rough = [
        np.sum(np.diff(relaxation_times(FREQUENCY, z, regularisation=v, draws=2).distribution, 2) ** 2)
        for v in (1e-8, 1e-5, 1e-2)
    ]
    assert rough[0] > 2 * rough[1] > 4 * rough[2]


def test_same_seed_same_band() -> None:
    z = spectrum(5e-3)
    one, two, other = (
        relaxation_times(FREQUENCY, z, regularisation=1e-5, draws=8, seed=s) for s in (1, 1, 2)
    )
    assert_allclose(one.high, two.high, rtol=0, atol=0)
    assert not np.allclose(one.high, other.high, rtol=1e-6, atol=0)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"frequency": FREQUENCY[:5], "impedance": np.ones(5)}, "10 points"),
        ({"impedance": np.full(65, np.nan)}, "finite"),
        ({"regularisation": -1.0}, "above zero"),
        ({"folds": 1}, "at least 2"),
    ],
)
def test_bad_input(change: dict, match: str) -> None:
    with pytest.raises(InputError, match=match):
        relaxation_times(**{"frequency": FREQUENCY, "impedance": spectrum(0.0), **change})


@pytest.mark.parametrize("exponent", [0.0, 1.0, 1.2])
def test_closed_form_refuses(exponent: float) -> None:
    with pytest.raises(InputError):
        zarc_distribution([1.0], 1.0, 1.0, exponent)
