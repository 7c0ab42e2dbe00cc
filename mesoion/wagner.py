"""Mixed conduction along a line in closed form: Wagner's steady state of ions and electrons between lithium electrodes.

    dmu_Li/dx = e (i_e/sigma_e - i_ion/sigma_ion),   sigma_e ∝ exp(±mu_Li/kT) or constant

mu_Li is counted from lithium metal, eta = mu_Li/e is the overpotential for plating inside the solid, positive when
metal is favoured. Current flows from the anode (x = 0, lithium dissolves) to the cathode. With a = exp(mu_Li/kT) the
equation is linear, so that a stack of layers needs one multiplication each; arrays of samples go through at once.
Source: C. Wagner, Proc. 7th Meeting CITCE, Lindau 1955 (1957) 361; M. H. Hebb, J. Chem. Phys. 20 (1952) 185.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mesoion.errors import ConvergenceError, InputError, LimitingCurrentError
from mesoion.physics import BOLTZMANN, ELEMENTARY_CHARGE

Floats = NDArray[np.float64]
ElectronicLaw = Literal["electrons", "holes", "constant"]
"""How the electronic conductivity follows mu_Li: exp(mu_Li/kT), exp(-mu_Li/kT), or not at all."""

_LARGEST_EXPONENT = 690.0
_ITERATIONS = 200


@dataclass(frozen=True, eq=False)
class MixedConduction:
    """Steady state of a line of layers; arrays over samples.

    overpotential (nodes, ...) [V]: at the anode's face, between the layers, at the cathode's face (of a repeated
    stack: in its first and in its last unit). ionic_current_density, electronic_current_density [A/m²] add up to the
    current asked for. voltage [V]: anode against cathode.
    """

    overpotential: Floats
    ionic_current_density: Floats
    electronic_current_density: Floats
    voltage: Floats

    @property
    def largest_overpotential(self) -> Floats:
        """Largest eta of all nodes [V]: mu_Li is monotonic inside a layer, so it lies at one of them."""
        return np.asarray(self.overpotential.max(axis=0))

    @property
    def smallest_overpotential(self) -> Floats:
        """Smallest eta of all nodes [V]; negative where lithium is depleted."""
        return np.asarray(self.overpotential.min(axis=0))


def mixed_conduction(
    ionic_resistance: ArrayLike,
    electronic_resistance: ArrayLike,
    current_density: ArrayLike,
    temperature: ArrayLike,
    *,
    repeats: ArrayLike = 1,
    law: ElectronicLaw = "electrons",
    charge_transfer_resistance: ArrayLike = 0.0,
    kinetics: Literal["linear", "butler-volmer"] = "linear",
) -> MixedConduction:
    """Layers in series between two lithium electrodes that pass ions and electrons.

    ionic_resistance, electronic_resistance (m, ...) [Ω m²]: of each layer from anode to cathode, the electronic one in
    equilibrium with lithium metal (L/σ_e); a layer given by its excess over grain may be negative.
    current_density (...) [A/m²], electrons included. temperature (...) [K]. repeats: how often the stack follows
    itself (a pellet of many alike grains), at no cost.
    charge_transfer_resistance [Ω m²]: of ions at each electrode, with linear or Butler-Volmer kinetics; electrons are
    in equilibrium there. Shapes after the first axis broadcast. There is no limiting current: a steady state exists
    for every current. Raises InputError for a line whose resistance is not positive and for voltages beyond 17 V,
    ConvergenceError where the split between ions and electrons is not found.
    """
    ions, electrons = (
        np.atleast_1d(np.asarray(r, dtype=float)) for r in (ionic_resistance, electronic_resistance)
    )
    for name, values in (("ionic_resistance", ions), ("electronic_resistance", electrons)):
        if not (np.all(np.isfinite(values)) and np.all(values.sum(axis=0) > 0.0)):
            raise InputError(
                name,
                float(np.min(values)),
                "give ohm m^2; excess quantities may be negative, not the whole line",
            )
    current, kelvin, contact, count = (
        np.asarray(v, dtype=float)
        for v in (current_density, temperature, charge_transfer_resistance, repeats)
    )
    if not (np.all(np.isfinite(kelvin)) and np.all(kelvin > 0.0)):
        raise InputError("temperature", float(np.min(kelvin)), "give kelvin above zero")
    if not (np.all(np.isfinite(contact)) and np.all(contact >= 0.0)):
        raise InputError("charge_transfer_resistance", float(np.min(contact)), "give ohm m^2, zero or above")
    if not np.all(np.isfinite(current)):
        raise InputError("current_density", "nan or inf", "give finite A/m^2")
    if not (np.all(np.isfinite(count)) and np.all(count >= 1.0)):
        raise InputError("repeats", float(np.min(count)), "give one or more")
    shape = np.broadcast_shapes(
        ions.shape[1:], electrons.shape[1:], current.shape, kelvin.shape, contact.shape, count.shape
    )
    current, kelvin, contact, count = (np.broadcast_to(v, shape) for v in (current, kelvin, contact, count))
    layers = max(len(ions), len(electrons))
    ions, electrons = (
        np.broadcast_to(
            r.reshape(r.shape[:1] + (1,) * (len(shape) + 1 - r.ndim) + r.shape[1:]), (layers, *shape)
        )
        for r in (ions, electrons)
    )
    line = _Line(ions, electrons, kelvin, contact, np.round(count), law, kinetics)
    ionic = line.split(current)
    electronic, nodes = line.solve(ionic)
    return MixedConduction(nodes, ionic, electronic, line.voltage(ionic))


def pellet_overpotential(
    current_density: ArrayLike,
    *,
    grain_size: ArrayLike,
    thickness: ArrayLike,
    ionic_conductivity: ArrayLike,
    boundary_resistance: ArrayLike,
    electronic_conductivity: ArrayLike,
    boundary_electronic_resistance: ArrayLike,
    temperature: ArrayLike,
    law: ElectronicLaw = "electrons",
    charge_transfer_resistance: ArrayLike = 0.0,
    kinetics: Literal["linear", "butler-volmer"] = "linear",
) -> MixedConduction:
    """Overpotentials at the boundaries of a pellet of alike grains in series, for thousands of samples at once.

    grain_size, thickness [m]; ionic_conductivity, electronic_conductivity of the grain [S/m];
    boundary_resistance, boundary_electronic_resistance [Ω m²]: across one boundary, its space charge included. The
    line is (half a grain, boundary, half a grain) times thickness/grain_size, at least one. Otherwise as
    `mixed_conduction`. In a resistive boundary the overpotential is largest at the face towards the anode.
    """
    size, sigma, sigma_e = (
        np.asarray(v, dtype=float) for v in (grain_size, ionic_conductivity, electronic_conductivity)
    )
    for name, values in (
        ("grain_size", size),
        ("ionic_conductivity", sigma),
        ("electronic_conductivity", sigma_e),
    ):
        if not (np.all(np.isfinite(values)) and np.all(values > 0.0)):
            raise InputError(name, float(np.min(values)), "give a value above zero")
    half, half_e = np.asarray(0.5 * size / sigma), np.asarray(0.5 * size / sigma_e)

    def stack(grain: Floats, layer: ArrayLike) -> Floats:
        return np.stack(np.broadcast_arrays(grain, np.asarray(layer, dtype=float), grain))

    return mixed_conduction(
        stack(half, boundary_resistance),
        stack(half_e, boundary_electronic_resistance),
        current_density,
        temperature,
        repeats=np.maximum(1.0, np.round(np.asarray(thickness, dtype=float) / size)),
        law=law,
        charge_transfer_resistance=charge_transfer_resistance,
        kinetics=kinetics,
    )


def hebb_wagner_current(
    voltage: ArrayLike,
    length: float,
    electronic_conductivity: float,
    temperature: float,
    hole_conductivity: float = 0.0,
) -> Floats:
    """Electronic current density [A/m²] of Li | mixed conductor | ion-blocking metal, the metal at `voltage` [V] to Li.

    i = (kT/(eL)) {σ_e [1 − exp(−eV/kT)] + σ_h [exp(eV/kT) − 1]} with both conductivities [S/m] against lithium metal,
    `length` [m]; positive from the metal to lithium.
    """
    thermal = BOLTZMANN * temperature / ELEMENTARY_CHARGE
    x = np.asarray(voltage, dtype=float) / thermal
    return np.asarray(
        thermal / length * (-electronic_conductivity * np.expm1(-x) + hole_conductivity * np.expm1(x))
    )


def hebb_wagner_voltage(
    current_density: float, length: float, electronic_conductivity: float, temperature: float
) -> float:
    """Voltage [V] of the blocking metal against Li at an electronic current density [A/m²], without holes.

    V = −(kT/e) ln(1 − i/i_lim). Raises LimitingCurrentError at and beyond i_lim = σ_e kT/(eL): all electrons are then
    swept out at the metal.
    """
    thermal = BOLTZMANN * temperature / ELEMENTARY_CHARGE
    limit = electronic_conductivity * thermal / length
    if current_density >= limit:
        raise LimitingCurrentError(
            current_density, limit, "A/m^2", "electrons in Li | solid | blocking metal"
        )
    return float(-thermal * np.log1p(-current_density / limit))


@dataclass(frozen=True, eq=False)
class _Line:
    """Layers (m, ...), repeated; the state at a given ionic current is explicit."""

    ions: Floats
    electrons: Floats
    temperature: Floats
    contact: Floats
    repeats: Floats
    law: ElectronicLaw
    kinetics: str

    @property
    def thermal(self) -> Floats:
        return np.asarray(BOLTZMANN * self.temperature / ELEMENTARY_CHARGE)

    def contact_drop(self, ionic: Floats) -> Floats:
        """Voltage lost at each electrode [V]."""
        linear = ionic * self.contact
        if self.kinetics == "linear":
            return linear
        return np.asarray(2.0 * self.thermal * np.arcsinh(0.5 * linear / self.thermal))

    def voltage(self, ionic: Floats) -> Floats:
        """Anode against cathode [V]: the drop of the ions' electrochemical potential, and so of the electrons'."""
        return np.asarray(ionic * self.ions.sum(axis=0) * self.repeats + 2.0 * self.contact_drop(ionic))

    def solve(self, ionic: Floats) -> tuple[Floats, Floats]:
        """Electronic current density and overpotential at the nodes of the first and of the last unit."""
        thermal, n = self.thermal, self.repeats
        contact = self.contact_drop(ionic)
        drop = ionic * self.ions / thermal
        total = drop.sum(axis=0)
        if self.law == "constant":
            gain, lost = self.electrons / thermal, 2.0 * contact / thermal
            electronic = (n * total + lost) / (n * gain.sum(axis=0))
            step = electronic * gain - drop
            inside = np.concatenate([np.zeros((1, *total.shape)), np.cumsum(step, axis=0)])
            first = -contact / thermal
            last = first + (n - 1.0) * inside[-1]
            return electronic, thermal * np.concatenate([first + inside, last + inside])
        if np.any(np.abs(n * total) > _LARGEST_EXPONENT):
            raise InputError(
                "current_density", "too large", "the voltage along the line must stay below 17 V"
            )
        # Hole activity obeys the same equation seen from the cathode: every term stays positive.
        order = slice(None) if self.law == "electrons" else slice(None, None, -1)
        sign = 1.0 if self.law == "electrons" else -1.0
        decay = np.exp(-drop[order])
        gain = self.electrons[order] / thermal * _mean_decay(drop[order])
        one = np.ones((1, *total.shape))
        p, q = [one[0]], [np.zeros_like(one[0])]
        for e, g in zip(decay, gain, strict=True):
            p.append(p[-1] * e)
            q.append(q[-1] * e + g)
        start, end = np.exp(-contact / thermal), np.exp(contact / thermal)

        def before(k: Floats) -> tuple[Floats, Floats]:
            return np.exp(-k * total), q[-1] * k * _mean_decay(k * total) / _mean_decay(total)

        p_all, q_all = before(n)
        electronic = (end - p_all * start) / q_all
        nodes: list[Floats] = []
        for k in (np.zeros_like(n), n - 1.0):
            p_k, q_k = before(k)
            at_start = p_k * start + electronic * q_k
            nodes.extend(a * at_start + electronic * b for a, b in zip(p, q, strict=True))
        activity = np.array(nodes)[order]
        if not np.all(activity > 0.0):
            raise InputError(
                "electronic_resistance",
                "below zero in one layer",
                "the grains beside it are too thin to hold its excess",
            )
        return electronic, np.asarray(thermal * sign * np.log(activity))

    def split(self, current: Floats) -> Floats:
        """Ionic part of the total current density, by bracketed secants (Illinois)."""

        def miss(ionic: Floats) -> Floats:
            return np.asarray(ionic + self.solve(ionic)[0] - current)

        return _illinois(miss, np.zeros_like(current), np.array(current, dtype=float))


def _mean_decay(x: Floats) -> Floats:
    """(1 − exp(−x))/x, 1 at zero."""
    safe = np.where(x == 0.0, 1.0, x)
    return np.asarray(np.where(x == 0.0, 1.0, -np.expm1(-safe) / safe))


def _illinois(function: Callable[[Floats], Floats], low: Floats, high: Floats) -> Floats:
    """Root of an array of monotonic functions between `low` and `high`, which differ in sign."""
    f_low, f_high = function(low), function(high)
    scale = np.maximum(np.abs(high - low), 1e-300)
    x = high
    for _ in range(_ITERATIONS):
        width = f_high - f_low
        flat = width == 0.0
        x = np.where(flat, high, high - f_high * (high - low) / np.where(flat, 1.0, width))
        f = function(x)
        if np.all((np.abs(f) <= 4e-15 * scale) | (np.abs(high - low) <= 4e-15 * scale) | flat):
            return np.asarray(x)
        crossed = np.sign(f) != np.sign(f_high)
        low, f_low = np.where(crossed, high, low), np.where(crossed, f_high, 0.5 * f_low)
        if np.all(np.abs(x - high) <= 4e-15 * scale):
            return np.asarray(x)
        high, f_high = x, f
    raise ConvergenceError("the shares of ions and electrons were not found", at="mixed conduction of a line")
