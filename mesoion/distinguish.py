"""What each mechanism that closes the gap predicts for measurements that were not used to close it.

Four observables, computed for pellets drawn from a mechanism's posterior:

- the activation energy of σ_app T,
- the electrical width of the boundary, δ = d C_b/C_gb, from the arc of the excess impedance,
- the exponent of ρ_app ∝ d^(−m) with grain size,
- ρ_app at a bias on every boundary over that at rest (steady PNP for space charge; layers, films and contacts are
  ohmic in this model).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from mesoion.errors import ConvergenceError, MeshError
from mesoion.mechanisms import BLOCKED, Case, Draw, charged_draw
from mesoion.mixed_boundaries import BLOCKING, OPEN
from mesoion.reconcile import Outcome
from mesoion.units import BOLTZMANN_EV, VACUUM_PERMITTIVITY

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]

STEP_K = 30.0
STEP_LOG_SIZE = 0.3
FREQUENCIES = np.geomspace(1e-2, 1e11, 105)


@dataclass(frozen=True)
class Observable:
    """A measurement: name, unit, its own standard uncertainty (an assumption), whether compared in logarithms."""

    name: str
    unit: str
    uncertainty: float
    logarithmic: bool


OBSERVABLES = (
    Observable("activation energy", "eV", 0.02, False),
    Observable("electrical width", "nm", 0.2, True),
    Observable("grain-size exponent", "1", 0.1, False),
    Observable("resistivity under bias over that at rest", "1", 0.05, True),
)


@dataclass(frozen=True)
class Predicted:
    """One observable of one mechanism: median, 95 % interval, and the draws it comes from."""

    observable: Observable
    median: float
    low: float
    high: float
    draws: Floats

    @property
    def spread(self) -> float:
        """Standard deviation, of the logarithm where the observable is compared in logarithms."""
        values = np.log(self.draws) if self.observable.logarithmic else self.draws
        return float(np.std(values))


@dataclass(frozen=True, eq=False)
class Prediction:
    """What one mechanism predicts: observables, and curves of σ_app [S/m] over temperature (draws, t) and size."""

    name: str
    observables: tuple[Predicted, ...]
    temperatures: Floats
    over_temperature: Floats
    sizes: Floats
    over_size: Floats
    frequency: Floats
    excess: Complexes
    biases: Floats
    over_bias: Floats


@dataclass(frozen=True)
class Law:
    """Activation energies [eV] of one draw: grain, layer, film."""

    grain: float
    layer: float
    film: float


_Taken = tuple[float, float, tuple[float, ...], Law]


def draw_of(case: Case, a: float, log_size: float, law: Law, temperature: float) -> Draw:
    """The pellet of one posterior draw at `temperature` [K]; at the case's own it is the one that was fitted."""
    x = (1 / temperature - 1 / case.temperature) / BOLTZMANN_EV
    ratio = case.temperature / temperature

    def factor(energy: float) -> float:
        return ratio * math.exp(-energy * x)

    here = case.at(temperature)
    grain = replace(
        here.grain,
        conductivity_across=case.grain.conductivity_across * factor(law.grain),
        conductivity_along=case.grain.conductivity_along * factor(law.grain),
    )
    layer = replace(
        here.layer,
        conductivity_across=case.layer.conductivity_across * math.exp(a) * factor(law.layer),
        conductivity_along=case.layer.conductivity_along * math.exp(a) * factor(law.layer),
    )
    return Draw(grain, layer, case.grain_size * math.exp(log_size), factor(law.film))


def excess_resistivity(outcome: Outcome, draw: Draw, values: Sequence[float], omega: Floats) -> Complexes:
    """1/σ_eff − 1/k_b [ohm m] of the pellet at angular frequencies (m,)."""
    assert draw.layer.width is not None
    facets = outcome.mechanism.facets(draw, values, omega)
    grain = draw.admittivity(omega)
    blocked = BLOCKED * draw.grain.conductivity_across + (
        1j * omega * VACUUM_PERMITTIVITY * draw.layer.relative_permittivity
    )
    width = draw.layer.width
    effective = outcome.case.polycrystal.effective_admittivity(
        grain,
        {OPEN: facets.resistance, BLOCKING: width * (1 / blocked - 1 / grain)},
        {OPEN: facets.sheet, BLOCKING: width * (blocked - grain)},
        draw.grain_size,
        facets.blocking_fraction,
    )
    return np.asarray(1 / effective - 1 / grain)


def predict(
    outcome: Outcome,
    rng: np.random.Generator,
    *,
    draws: int,
    film_energy: tuple[float, float],
    temperatures: Floats,
    biases: Floats,
) -> Prediction:
    """Observables and curves of `draws` pellets of the posterior.

    film_energy: mean and standard deviation [eV] of a second phase's activation energy. temperatures [K] and biases [V
    a boundary] of the curves; the last bias is the observable's.
    """
    case = outcome.case
    (of_grain, grain_error), (of_layer, layer_error) = case.energies()
    still = np.zeros(1)
    sizes = case.grain_size * np.geomspace(0.1, 10.0, 9)
    rows: list[list[float]] = []
    by_temperature, by_size, by_bias = [], [], []
    excess: Complexes = np.zeros(len(FREQUENCIES), dtype=complex)
    taken = outcome.draw(draws, rng)
    for number, (a, log_size, values) in enumerate(taken):
        law = Law(
            of_grain + grain_error * rng.standard_normal(),
            of_layer + layer_error * rng.standard_normal(),
            film_energy[0] + film_energy[1] * rng.standard_normal(),
        )

        def static(
            temperature: float, size: float = 1.0, taken: _Taken = (a, log_size, values, law)
        ) -> float:
            pellet = draw_of(case, taken[0], taken[1] + math.log(size), taken[3], temperature)
            value = float(excess_resistivity(outcome, pellet, taken[2], still)[0].real)
            return value if value > 0 else math.nan

        here = draw_of(case, a, log_size, law, case.temperature)
        rest = static(case.temperature)
        energy = _energy(case.temperature, rest, static(case.temperature + STEP_K))
        spectrum = excess_resistivity(outcome, here, values, 2 * np.pi * FREQUENCIES)
        electrical = _electrical_width(here, rest, spectrum)
        larger, smaller = (static(case.temperature, math.exp(k * STEP_LOG_SIZE)) for k in (1, -1))
        exponent = -math.log(larger / smaller) / (2 * STEP_LOG_SIZE)
        under_bias = _bias_ratios(outcome, here, values, biases)
        rows.append([energy, electrical * 1e9, exponent, float(under_bias[-1])])
        by_temperature.append([1 / static(float(t)) for t in temperatures])
        by_size.append([1 / static(case.temperature, float(s) / case.grain_size) for s in sizes])
        by_bias.append(under_bias)
        if number == 0:
            excess = spectrum
    table = np.array(rows)
    found = []
    for o, column in zip(OBSERVABLES, table.T, strict=True):
        low, middle, high = np.nanpercentile(column, [2.5, 50.0, 97.5]).tolist()
        found.append(Predicted(o, middle, low, high, column[np.isfinite(column)]))
    return Prediction(
        outcome.mechanism.name,
        tuple(found),
        np.asarray(temperatures),
        np.array(by_temperature),
        sizes,
        np.array(by_size),
        FREQUENCIES,
        excess,
        np.asarray(biases),
        np.array(by_bias),
    )


def _energy(temperature: float, rest: float, warm: float) -> float:
    """E_a [eV] of σT from resistivities at `temperature` and `STEP_K` above; NaN where there is none."""
    x = (1 / temperature - 1 / (temperature + STEP_K)) / BOLTZMANN_EV
    return math.log(rest / warm * (temperature + STEP_K) / temperature) / x


def _electrical_width(draw: Draw, rest: float, spectrum: Complexes) -> float:
    """d C_b/C_gb [m] with C_gb = τ/ρ of the excess impedance."""
    permittivity = VACUUM_PERMITTIVITY * draw.grain.relative_permittivity
    return draw.grain_size * permittivity * rest / relaxation_time(FREQUENCIES, spectrum)


@dataclass(frozen=True, eq=False)
class ArcDraws:
    """The boundary arc of pellets drawn from a mechanism's posterior: E_a [eV] (n,) and C_b/C_gb (n,); NaN for none.

    log_weight (n,): of each draw, of `Outcome.smooth_draw`.
    """

    name: str
    energy: Floats
    capacitance_ratio: Floats
    log_weight: Floats


def arc_draws(
    outcome: Outcome, rng: np.random.Generator, *, draws: int, film_energy: tuple[float, float]
) -> ArcDraws:
    """Activation energy and capacitance of the arc alone, as `predict` finds them, for many draws."""
    case = outcome.case
    (of_grain, grain_error), (of_layer, layer_error) = case.energies()
    still, found = np.zeros(1), []
    taken = outcome.smooth_draw(draws, rng)
    for a, log_size, values, _ in taken:
        scatter = rng.standard_normal(3)
        law = Law(
            of_grain + grain_error * float(scatter[0]),
            of_layer + layer_error * float(scatter[1]),
            film_energy[0] + film_energy[1] * float(scatter[2]),
        )
        here, above = (
            draw_of(case, a, log_size, law, t) for t in (case.temperature, case.temperature + STEP_K)
        )
        rest, warm = (float(excess_resistivity(outcome, d, values, still)[0].real) for d in (here, above))
        if rest <= 0 or warm <= 0:
            found.append((math.nan, math.nan))
            continue
        spectrum = excess_resistivity(outcome, here, values, 2 * np.pi * FREQUENCIES)
        width = _electrical_width(here, rest, spectrum)
        found.append((_energy(case.temperature, rest, warm), width / here.grain_size))
    energy, ratio = np.array(found).T
    return ArcDraws(outcome.mechanism.name, energy, ratio, np.array([t[-1] for t in taken]))


def relaxation_time(frequency: Floats, impedance: Complexes) -> float:
    """τ [s] where −Z'' of an arc is largest; a parabola through three points of ln f refines it."""
    loss = -impedance.imag
    k = int(np.clip(np.argmax(loss), 1, len(loss) - 2))
    y = np.log(np.maximum(loss[k - 1 : k + 2], 1e-300))
    curve = y[0] - 2 * y[1] + y[2]
    shift = 0.5 * (y[0] - y[2]) / curve if curve < 0 else 0.0
    step = math.log(frequency[1] / frequency[0])
    return float(1 / (2 * math.pi * frequency[k] * math.exp(float(np.clip(shift, -1, 1)) * step)))


def _bias_ratios(outcome: Outcome, draw: Draw, values: Sequence[float], biases: Floats) -> Floats:
    """ρ_app(U)/ρ_app(0) (u,); NaN where no steady state was found."""
    if not outcome.mechanism.name.startswith("space charge"):
        return np.ones(len(biases))
    boundary = charged_draw(draw, values)
    length = float(boundary.mesh.volumes.sum()) / boundary.grain.conductivity_across
    ratios = []
    for bias in biases.tolist():
        if bias == 0:
            ratios.append(1.0)
            continue
        try:
            state = boundary.state.system.steady_state({"left": bias})
            ratios.append((bias / state.current("left") - length) / boundary.excess_resistance)
        except (ConvergenceError, MeshError):
            ratios.append(math.nan)
    return np.array(ratios)


@dataclass(frozen=True)
class Separation:
    """How well one measurement tells two mechanisms apart: their difference in standard deviations, all included."""

    first: str
    second: str
    observable: Observable
    values: tuple[float, float]
    deviations: float


def separations(predictions: Sequence[Prediction]) -> list[Separation]:
    """For every pair of mechanisms the measurements in order of how well they tell the pair apart."""
    found = []
    for one, two in combinations(predictions, 2):
        pair = []
        for x, y in zip(one.observables, two.observables, strict=True):
            o = x.observable
            gap = abs(math.log(x.median / y.median)) if o.logarithmic else abs(x.median - y.median)
            noise = math.hypot(x.spread, y.spread, o.uncertainty)
            pair.append(Separation(one.name, two.name, o, (x.median, y.median), gap / noise))
        found += sorted(pair, key=lambda s: -s.deviations)
    return found
