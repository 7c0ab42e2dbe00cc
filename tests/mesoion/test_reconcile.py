"""Mechanisms that close the gap between records and pellets: closed forms, limits, and what tells them apart."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pytest
from numpy.testing import assert_allclose
from scipy.stats import norm

from mesoion.distinguish import (
    Law,
    draw_of,
    excess_resistivity,
    predict,
    relaxation_time,
    separations,
)
from mesoion.errors import InputError
from mesoion.material import Material
from mesoion.mechanisms import (
    Case,
    ChargedParts,
    Mechanism,
    ParameterPrior,
    charged,
    holm_resistance,
    nothing_added,
    partial_contact,
    second_phase,
    segregation,
    space_charge,
)
from mesoion.mixed_boundaries import BLOCKING, OPEN
from mesoion.reconcile import bayes_factors, infer
from mesoion.reconcile_study import PairInput, reaches, segregation_prior
from mesoion.units import BOLTZMANN_EV

T = 298.15


@dataclass(frozen=True)
class Laminate:
    """Slabs in series: 1/σ = 1/σ_b + [(1 − p) r_open + p r_blocking]/d, exact in one dimension."""

    relative_error: float = 0.0
    width_range: tuple[float, float] = (1e-9, 0.1)

    def effective_admittivity(
        self,
        grain: Any,
        resistance: Mapping[str, Any],
        sheet: Mapping[str, Any],
        grain_size: float,
        blocking_fraction: float,
    ) -> Any:
        p = blocking_fraction
        across = (1 - p) * np.asarray(resistance[OPEN]) + p * np.asarray(resistance[BLOCKING]) * (p > 0)
        return 1 / (1 / np.asarray(grain) + across / grain_size)


def prior(name: str, shape: Any, low: float, high: float) -> ParameterPrior:
    return ParameterPrior(name, "", shape, low, high, (low, high), "the range itself")


def case(**changes: Any) -> Case:
    """LLTO in slabs: ρ_app = r/d."""
    made = Case(
        "LLTO",
        Material.from_records("llto-bulk", {"general": "llto-boundary"}),
        "general",
        Laminate(),
        T,
        5e-6,
        1.5,
        0.01,
        1.2,
        "a test",
    )
    return replace(made, **changes)


def mechanisms() -> list[Mechanism]:
    return [
        nothing_added(),
        second_phase(prior("width", "log", 0.5, 20.0), prior("conductivity", "log", 1e-12, 1e-3)),
        partial_contact(prior("share", "log", 1e-5, 0.999), prior("radius", "log", 1.0, 500.0)),
        segregation(prior("barrier", "normal", -0.1, 0.1)),
        space_charge(prior("charge", "log", 0.05, 8.0)),
        space_charge(prior("charge", "log", 0.05, 8.0), prior("permittivity", "log", 20.0, 200.0)),
    ]


def gap(of: Case) -> float:
    """ln of the record's apparent resistivity times the measured conductivity, in slabs."""
    return math.log(of.own_resistance(np.zeros(1))[0] / of.grain_size * of.measured_apparent)


def spreads(of: Case) -> float:
    return math.sqrt(
        of.record_spread**2 + math.log(of.grain_size_factor) ** 2 + math.log(of.measured_factor) ** 2
    )


@pytest.mark.parametrize("measured", [0.05, 0.01, 1e-5])
def test_evidence_of_the_records_alone_is_the_normal_density_of_the_gap(measured: float) -> None:
    of = case(measured_apparent=measured)
    found = infer(of, nothing_added()).log_evidence
    # r = w/σ_gb − w/σ_b: a thousandth of it does not scale with the layer.
    assert_allclose(found, norm.logpdf(gap(of), 0.0, spreads(of)), rtol=0.01, atol=0.01)


def test_the_barrier_that_closes_a_gap_is_the_normal_posterior() -> None:
    of = case(measured_apparent=2e-4)
    barrier = prior("barrier", "normal", -0.098, 0.098)
    sd = 0.05 / (BOLTZMANN_EV * T)
    found = infer(of, segregation(barrier))
    missing = -gap(of)
    variance = spreads(of) ** 2 + sd**2
    mean = missing * sd**2 / variance * BOLTZMANN_EV * T
    half = 1.96 * math.sqrt(sd**2 * (1 - sd**2 / variance)) * BOLTZMANN_EV * T
    median, low, high = found.interval(0)
    assert_allclose([median, low, high], [mean, mean - half, mean + half], rtol=0.03, atol=0.001)
    assert_allclose(found.log_evidence, norm.logpdf(gap(of), 0.0, math.sqrt(variance)), rtol=0.01, atol=0.02)


def test_a_film_needs_the_resistance_that_is_missing() -> None:
    of = case(measured_apparent=1e-5)
    found = infer(of, mechanisms()[1])
    film = found.values[0] * 1e-9 / (100 * found.values[1])
    weight = found.weights.sum(axis=0)
    mean = float(np.log(film) @ weight)
    # Of slabs: r = d/σ_app, the layer's own share being a thousandth of it.
    assert_allclose(math.exp(mean), of.grain_size / of.measured_apparent, rtol=0.05, atol=0)
    assert reaches(found)
    value, low, high = found.predicted()
    assert low < value < high
    assert_allclose(value, 1e-5, rtol=0.1, atol=0)


@pytest.mark.parametrize("mechanism", mechanisms(), ids=lambda m: m.name)
def test_at_rest_the_spectrum_ends_in_what_was_fitted(mechanism: Mechanism) -> None:
    of = case()
    a, log_size = 0.3, -0.2
    values = {
        "second-phase film": (2.0, 1e-8),
        "partial contact": (0.1, 20.0),
        "dopant segregation": (0.05,),
        "space charge": (4.0,),
        "space charge, permittivity free": (4.0, 60.0),
    }.get(mechanism.name, ())
    fitted = mechanism.resistivity(
        of, np.array([a]), np.array([log_size]), [np.array([v]) for v in values]
    ).item()
    (grain, _), (layer, _) = of.energies()
    pellet = draw_of(of, a, log_size, Law(grain, layer, 0.6), T)
    outcome: Any = type("O", (), {"mechanism": mechanism, "case": of})
    static = excess_resistivity(outcome, pellet, values, np.array([0.0, 1e-6]))
    assert_allclose(static.real, fitted, rtol=2e-5, atol=0)


def test_no_charge_leaves_the_layer_as_it_was() -> None:
    of = case()
    parts = ChargedParts.of(of, 0.0)
    own = of.own_resistance(np.zeros(1))[0] + of.width / of.grain.conductivity_across
    assert_allclose(parts.layer, own, rtol=1e-6, atol=0)
    assert abs(parts.sides) < 1e-6 * parts.layer
    more = [ChargedParts.of(of, q) for q in (2.0, 10.0)]
    assert parts.layer < more[0].layer < more[1].layer
    for q, found in zip((2.0, 10.0), more, strict=True):
        third = charged(of, q, scale=3.0).excess_resistance + of.width / of.grain.conductivity_across
        assert_allclose(found.layer / 3.0 + found.sides, third, rtol=1e-6, atol=0)


def test_splines_between_charges_meet_the_boundary_itself() -> None:
    of = case()
    mechanism = space_charge(prior("charge", "log", 0.05, 8.0))
    charges, _ = mechanism.parameters[0].grid(57)
    still = np.zeros(1)
    table = mechanism.resistivity(of, still, still, [charges])[0]
    for j in (7, 33, 50):
        direct = charged(of, float(charges[j])).excess_resistance / of.grain_size
        assert_allclose(table[j], direct, rtol=0.02, atol=0)


def test_contact_everywhere_has_no_constriction_and_little_contact_is_holms() -> None:
    assert holm_resistance(np.array(1.0), np.array(1e-8), 2.0) == 0.0
    share, radius = 1e-6, 1e-8
    spot = 1 / (2 * radius * 0.5)
    per_area = spot * math.pi * radius**2 / share
    assert_allclose(holm_resistance(np.array(share), np.array(radius), 0.5), per_area, rtol=0.002, atol=0)


def test_observables_of_slabs_are_known() -> None:
    """In slabs ρ_app = r/d with r of one layer: E_a, width and exponent are the layer's own."""
    of = case(measured_apparent=0.05)
    laws = of.energies()
    found = predict(
        infer(of, nothing_added(), 0.3),
        np.random.default_rng(1),
        draws=40,
        film_energy=(0.6, 0.1),
        temperatures=np.array([280.0, 320.0]),
        biases=np.array([0.0, 0.1]),
    )
    energy, width, exponent, bias = found.observables
    assert_allclose(energy.median, laws[1][0], rtol=0, atol=4 * laws[1][1] / math.sqrt(40))
    assert_allclose(width.median, of.width * 1e9, rtol=0.02, atol=0)
    assert_allclose(exponent.draws, 1.0, rtol=1e-6, atol=0)
    assert_allclose(bias.draws, 1.0, rtol=0, atol=0)


def test_mechanisms_that_agree_on_the_arc_part_elsewhere() -> None:
    of = case(measured_apparent=0.003)
    rng = np.random.default_rng(3)
    options: dict[str, Any] = {
        "draws": 8,
        "film_energy": (0.6, 0.05),
        "temperatures": np.array([298.15]),
        "biases": np.array([0.0, 0.1]),
    }
    chosen = [mechanisms()[k] for k in (1, 4)]
    film, charge = (predict(infer(of, m, 0.3), rng, **options) for m in chosen)
    # Back-to-back barriers conduct better under bias; films are ohmic.
    assert charge.observables[3].median < 0.9
    told = separations([film, charge])
    assert len(told) == 4
    assert told[0].deviations >= told[-1].deviations > 0


def test_relaxation_time_of_one_arc() -> None:
    f = np.geomspace(1e-2, 1e8, 101)
    assert_allclose(relaxation_time(f, 3.0 / (1 + 2j * np.pi * f * 2.7e-4)), 2.7e-4, rtol=0.005, atol=0)


def test_the_best_mechanism_has_a_factor_of_zero() -> None:
    of = case(measured_apparent=1e-4)
    found = [infer(of, m, 0.3) for m in mechanisms()[:4]]
    factors = bayes_factors(found)
    assert max(factors.values()) == 0.0
    assert factors["records alone"] < -3
    # Akaike's criterion charges two for every parameter where both reach the measurement.
    assert_allclose(found[1].information_criterion - found[3].information_criterion, 2.0, rtol=0, atol=0.2)


def test_shifts_by_segregation_come_from_the_records() -> None:
    assert segregation_prior([]) is None
    found = segregation_prior([PairInput(without="llzo-sigma33", with_dopant="llzo-sigma33-ta")])
    assert found is not None
    assert_allclose(0.5 * (found.low + found.high), -0.02, rtol=1e-9, atol=0)


def test_impossible_inputs_are_refused() -> None:
    with pytest.raises(InputError, match="low below high"):
        prior("x", "flat", 1.0, 1.0)
    with pytest.raises(InputError, match="above zero"):
        prior("x", "log", 0.0, 1.0)
    with pytest.raises(InputError, match="grain_size_factor"):
        case(grain_size_factor=1.0)
    with pytest.raises(InputError, match="no resistance anywhere"):
        infer(case(), segregation(prior("barrier", "normal", -3.0, -2.5)), 0.2)
