"""What the arcs of a fitted circuit say of a pellet: names, conductivities, permittivity, layer width, intervals.

    σ_b = L/(A R_b)    σ_gb,app = L/(A R_gb)    σ_total = L/(A (R_b + R_gb))
    C = τ/R = (R^(1−n) Q)^(1/n)    ε_r = C_b L/(ε₀ A)    δ/d = C_b/C_gb    σ_gb,spec = σ_b R_b C_b/(R_gb C_gb)

Brick layer with equal permittivities. Capacitances by which arcs are named: J. T. S. Irvine, D. C. Sinclair &
A. R. West, Adv. Mater. 2, 132 (1990). Relations: Haile, West & Campbell, J. Mater. Res. 13, 1576 (1998).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cmp_to_key
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from mesoion.errors import ConvergenceError, InputError
from mesoion.impedance.arc_places import ArcPlace, arc_places
from mesoion.impedance.circuit_fit import CircuitFit, fit_circuit
from mesoion.impedance.circuits import CPE, ZARC, Circuit, L, R, Series
from mesoion.impedance.measurement import Geometry, Measurement
from mesoion.units import VACUUM_PERMITTIVITY

Floats = NDArray[np.float64]

BULK_CAPACITANCE = 1e-8
"""Largest capacitance times thickness over area [F/m] (100 pF/cm) of an arc that is named bulk standing alone."""
ELECTRODE_CAPACITANCE = 1e-5
"""Smallest capacitance times thickness over area [F/m] (0.1 µF/cm) of an arc named electrode."""
ACCURACY = 0.005
"""Relative misfit (root mean square) that an instrument leaves: below, no further arc is looked for."""
LARGEST_ARC_COUNT = 3
_CLOSEST_TIMES = 5.0
_LARGEST_UNCERTAINTY = 0.3
_FLATTEST_ARC = 0.65


@dataclass(frozen=True)
class Estimate:
    """A positive quantity with its 95 % interval, in `unit`.

    log_uncertainty: standard uncertainty of its logarithm; log_gradient (k,): derivatives of the logarithm by those of
    the fit's free parameters.
    """

    value: float
    low: float
    high: float
    unit: str
    log_uncertainty: float
    log_gradient: Floats


@dataclass(frozen=True)
class NamedArc:
    """One arc: R [ohm], C = τ/R [F], τ [s], n; place: where in the circuit, None for a series resistor."""

    name: str
    resistance: Estimate
    capacitance: Estimate | None
    relaxation_time: Estimate | None
    exponent: float
    place: ArcPlace | None
    why: str


@dataclass(frozen=True)
class PelletReading:
    """A measured pellet read off its fitted circuit; conductivities in S/m where the geometry is known."""

    measurement: Measurement
    fit: CircuitFit
    arcs: tuple[NamedArc, ...]
    quantities: dict[str, Estimate] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def arc(self, name: str) -> NamedArc | None:
        """The arc of that name."""
        return next((a for a in self.arcs if a.name == name), None)


def arc_names(
    capacitances: Sequence[float], times: Sequence[float], series: bool = True
) -> tuple[list[str], list[str]]:
    """(names, reasons) of arcs by C·L/A [F/m] and τ [s].

    Arcs above `ELECTRODE_CAPACITANCE` are the electrodes'. Of the others the one with the least capacitance is the
    bulk's (the faster one, where two are within a factor 2), unless it has more than `BULK_CAPACITANCE` and stands
    alone or beside a resistor in `series`: then the bulk's arc lies above the window. The next is the grain boundary's,
    what follows are further boundaries or phases.
    """

    def order(one: int, other: int) -> int:
        by_capacitance = math.log(capacitances[one] / capacitances[other])
        by_time = times[one] - times[other]
        return int(np.sign(by_capacitance if abs(by_capacitance) > math.log(2.0) else by_time))

    names, reasons = [""] * len(times), [""] * len(times)
    ranked = sorted(range(len(times)), key=cmp_to_key(order))
    ceramic = [k for k in ranked if capacitances[k] < ELECTRODE_CAPACITANCE]
    electrodes = sorted((k for k in ranked if k not in ceramic), key=lambda k: times[k])
    roles = ["bulk", "grain boundary", *(f"grain boundary {k}" for k in range(2, len(times) + 2))]
    if ceramic and capacitances[ceramic[0]] > BULK_CAPACITANCE and (series or len(ceramic) == 1):
        roles = roles[1:]
    for k, role in zip(ceramic, roles, strict=False):
        names[k] = role
        reasons[k] = (
            f"{capacitances[k] * 1e10:.3g} pF/cm, {times[k]:.3g} s, number {ceramic.index(k) + 1} of the ceramic"
        )
    for number, k in enumerate(electrodes, 1):
        names[k] = "electrode" if number == 1 else f"electrode {number}"
        reasons[k] = f"{capacitances[k] * 1e4:.3g} µF/cm"
    return names, reasons


def series_resistor(circuit: Circuit) -> int | None:
    """Index of the parameter of a lone resistor in series, None where there is none."""
    offset = 0
    for part in circuit.parts if isinstance(circuit, Series) else (circuit,):
        if isinstance(part, R):
            return offset
        offset += sum(len(e.slots) for e in part.elements())
    return None


def read_pellet(
    measurement: Measurement, fit: CircuitFit, names: Sequence[str] | None = None, notes: Sequence[str] = ()
) -> PelletReading:
    """Names and quantities of a fitted spectrum; `names`: of the arcs from left to right, where known from a series."""
    places = arc_places(fit.circuit)
    values = fit.circuit.values
    geometry = measurement.geometry or Geometry(1e-2, 1e-4)
    cell = geometry.cell_constant
    read = [p.read(values) for p in places]
    lead = series_resistor(fit.circuit)
    said = list(notes)
    if names is None:
        scaled = [tau / r * cell for r, tau, _ in read]
        names, reasons = arc_names(scaled, [tau for _, tau, _ in read], lead is not None)
        if measurement.geometry is None:
            said.append("no geometry: arcs named as if thickness over area were 1/cm, no conductivities")
    else:
        reasons = ["named over the series"] * len(places)
    propagate = _Propagation(fit, values)
    arcs = [
        _named(place, name, why, propagate) for place, name, why in zip(places, names, reasons, strict=True)
    ]
    if lead is not None and not any(a.name == "bulk" for a in arcs):
        resistance = propagate(math.log(values[lead]), np.eye(len(values))[lead], "ohm")
        arcs.append(NamedArc("bulk", resistance, None, None, 1.0, None, "its arc lies above the window"))
        said.append(
            "the bulk's arc lies above the window: the series resistance, leads included, is taken for it"
        )
    order = sorted(
        arcs,
        key=lambda a: (a.relaxation_time is not None, a.relaxation_time.value if a.relaxation_time else 0),
    )
    quantities = _quantities(order, lead, cell, measurement.geometry is not None, propagate)
    return PelletReading(measurement, fit, tuple(order), quantities, tuple(said))


class _Propagation:
    """Estimates from a value's logarithm and its gradient by the logarithms of all parameters."""

    def __init__(self, fit: CircuitFit, values: Floats) -> None:
        self.values, self.quantile = values, fit.quantile()
        self.free, self.covariance = list(fit.free), fit.log_covariance

    def __call__(self, log_value: float, gradient: Floats, unit: str) -> Estimate:
        g = gradient[self.free]
        uncertainty = math.sqrt(max(0.0, float(g @ self.covariance @ g)))
        value, spread = math.exp(log_value), math.exp(min(self.quantile * uncertainty, 200.0))
        return Estimate(value, value / spread, value * spread, unit, uncertainty, g)


def _named(place: ArcPlace, name: str, why: str, propagate: _Propagation) -> NamedArc:
    r, tau, n = place.read(propagate.values)
    by_r, by_tau, by_c = place.gradients(propagate.values)
    return NamedArc(
        name,
        propagate(math.log(r), by_r, "ohm"),
        propagate(math.log(tau / r), by_c, "F"),
        propagate(math.log(tau), by_tau, "s"),
        n,
        place,
        why,
    )


def _quantities(
    arcs: Sequence[NamedArc], lead: int | None, cell: float, sized: bool, propagate: _Propagation
) -> dict[str, Estimate]:
    """Everything the pellet's arcs give; conductivities [S/m] only where the geometry is known."""
    found: dict[str, Estimate] = {}
    unit = np.eye(len(propagate.values))

    def log_r(arc: NamedArc) -> tuple[float, Floats]:
        index = arc.place.resistance if arc.place is not None else lead
        assert index is not None
        return math.log(propagate.values[index]), unit[index]

    ceramic = [a for a in arcs if not a.name.startswith("electrode")]
    bulk = next((a for a in ceramic if a.name == "bulk"), None)
    boundaries = [a for a in ceramic if a is not bulk]

    def of_sum(members: Sequence[NamedArc], name: str) -> None:
        if not members:
            return
        logs, gradients = zip(*(log_r(a) for a in members), strict=True)
        total = sum(math.exp(x) for x in logs)
        gradient = np.sum([math.exp(x) / total * g for x, g in zip(logs, gradients, strict=True)], axis=0)
        found[f"{name}_resistance"] = propagate(math.log(total), gradient, "ohm")
        if sized:
            found[f"{name}_conductivity"] = propagate(math.log(cell / total), -gradient, "S/m")

    of_sum([bulk] if bulk else [], "bulk")
    of_sum(boundaries, "apparent_gb")
    if bulk is not None or boundaries:
        of_sum(ceramic, "total")
    if bulk is not None and bulk.place is not None:
        r_b, tau_b, _ = bulk.place.read(propagate.values)
        _, by_tau_b, by_c_b = bulk.place.gradients(propagate.values)
        if sized:
            log = math.log(tau_b / r_b * cell / VACUUM_PERMITTIVITY)
            found["relative_permittivity"] = propagate(log, by_c_b, "")
        first = next((a for a in boundaries if a.place is not None), None)
        if first is not None and first.place is not None:
            r_g, tau_g, _ = first.place.read(propagate.values)
            _, by_tau_g, by_c_g = first.place.gradients(propagate.values)
            ratio = math.log(tau_b / r_b) - math.log(tau_g / r_g)
            found["width_over_grain_size"] = propagate(ratio, by_c_b - by_c_g, "")
            if sized:
                by_r_b = log_r(bulk)[1]
                log = math.log(cell / r_b * tau_b / tau_g)
                found["specific_gb_conductivity"] = propagate(log, by_tau_b - by_tau_g - by_r_b, "S/m")
    return found


# ---- which circuit ---------------------------------------------------------------------------------------------
def choose_circuit(
    measurement: Measurement,
    *,
    accuracy: float = ACCURACY,
    arcs: int | None = None,
    starts: int = 4,
    seed: int = 0,
) -> tuple[CircuitFit, list[CircuitFit]]:
    """The fit of the simplest credible circuit of arcs, leads and an electrode, and all that was tried.

    Arcs are added one by one while the misfit exceeds `accuracy`, BIC falls, and the arcs remain credible: relaxation
    times a factor 5 apart, each resistance known to 30 % and each exponent 0.65 or more; or, credible or not, while the
    circuit before is no description at all (misfit six times `accuracy`, three times the new one's). A blocking tail,
    a series resistor and an inductor stay where BIC wants them. arcs: their number, instead. Raises ConvergenceError
    where nothing could be fitted.
    """
    tried: list[CircuitFit] = []
    best: CircuitFit | None = None
    counts = range(1, LARGEST_ARC_COUNT + 1) if arcs is None else (arcs,)
    for count in counts:
        found = _best_with(measurement, count, best, tried, starts, seed)
        if found is None:
            continue
        believed = (
            arcs is not None or credible(found) or (best is not None and _far_better(found, best, accuracy))
        )
        if best is None or (believed and found.bic < best.bic):
            best = found
        if best.scale <= accuracy:
            break
    if best is None:
        raise ConvergenceError(
            "no circuit of arcs describes the spectrum; give one of your own with --circuit",
            at=measurement.name,
        )
    return best, tried


def _best_with(
    m: Measurement, count: int, before: CircuitFit | None, tried: list[CircuitFit], starts: int, seed: int
) -> CircuitFit | None:
    """The best fit with `count` arcs: tail, series resistor and inductor as BIC wants them."""
    f, z = m.frequency, m.impedance
    size = float(np.abs(z).min())
    omega = 2 * math.pi * float(f.max())

    def attempt(circuit: Circuit) -> CircuitFit | None:
        try:
            fit = fit_circuit(f, z, circuit, starts=starts, seed=seed)
        except (ConvergenceError, InputError):
            return None
        tried.append(fit)
        return fit

    def arcs_only() -> Circuit:
        circuit: Circuit = ZARC()
        for _ in range(count - 1):
            circuit = circuit + ZARC()
        return circuit

    found = [fit for fit in (attempt(arcs_only() + CPE()), attempt(arcs_only())) if fit is not None]
    found += _with_new_arc(m, count, before, tried)
    if not found:
        return None
    best = min(found, key=lambda fit: fit.bic)
    if _lead_at_bound(best) and isinstance(best.circuit, Series):
        best = attempt(Series(tuple(p for p in best.circuit.parts if not isinstance(p, R)))) or best
    with_r = attempt(R(0.3 * size) + best.circuit)
    if with_r is not None and with_r.bic < best.bic and not _lead_at_bound(with_r):
        best = with_r
        with_l = attempt(L(0.3 * size / omega) + best.circuit)
        if with_l is not None and with_l.bic < best.bic:
            best = with_l
    return best


def _with_new_arc(
    m: Measurement, count: int, before: CircuitFit | None, tried: list[CircuitFit]
) -> list[CircuitFit]:
    """The circuit fitted before with one arc more, started where there is room for it."""
    if before is None or len(arc_places(before.circuit)) != count - 1:
        return []
    total = float(np.ptp(m.impedance.real)) or float(np.abs(m.impedance).max())
    low, high = 0.5 / (2 * math.pi * m.frequency.max()), 2.0 / (2 * math.pi * m.frequency.min())
    found = []
    for tau in np.geomspace(low, high, 6):
        try:
            fit = fit_circuit(
                m.frequency, m.impedance, ZARC(0.1 * total, float(tau), 0.9) + before.circuit, starts=1
            )
        except (ConvergenceError, InputError):
            continue
        found.append(fit)
    best = sorted(found, key=lambda fit: fit.chi_squared)[:1]
    tried += best
    return best


def credible(fit: CircuitFit) -> bool:
    """Whether the arcs are ones to believe in: see `choose_circuit`."""
    values = fit.circuit.values
    places = arc_places(fit.circuit)
    read = sorted((p.read(values) for p in places), key=lambda a: a[1])
    apart = all(later[1] > _CLOSEST_TIMES * sooner[1] for sooner, later in pairwise(read))
    names = [p.name for p in fit.parameters]
    known = all(fit.log_uncertainty({names[p.resistance]: 1.0}) < _LARGEST_UNCERTAINTY for p in places)
    return apart and known and all(n >= _FLATTEST_ARC for _, _, n in read)


def _far_better(found: CircuitFit, before: CircuitFit, accuracy: float) -> bool:
    return before.scale > 6.0 * accuracy and found.scale < before.scale / 3.0


def _lead_at_bound(fit: CircuitFit) -> bool:
    lead = series_resistor(fit.circuit)
    return lead is not None and fit.parameters[lead].name in fit.at_bound
