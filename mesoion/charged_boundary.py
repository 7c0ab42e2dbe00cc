"""The excess of one boundary with a charged core, fast enough for a likelihood: under a millisecond a spectrum.

The same physics as `mesoion.bicrystal`, for one mobile ion on a lattice and a flat-banded layer of width w that carries
a core charge Q per area: with ψ = eφ/kT, and θ(ψ) of ln[θ/(1 − θ)] = ln[θ_ref/(1 − θ_ref)] − ψ,

    (εkT/e²) ψ'' = −N (θ − θ_ref) − Q/(ew) inside the layer,   σ = σ_ref θ(1 − θ)/[θ_ref(1 − θ_ref)] ,

and with y the displacement admittivity (iωε), k = σ + y, C = e²Nθ(1 − θ)/kT the small signal is one real-space equation
for the chemical part u of the driving force at unit current, a screened one, from which the excess across follows:

    (σ y/k u')' − iωC u = −(y/k)' ,   r(ω) = ∫ (1/k − 1/k_b) dx − ∫ (y/k) u' dx ,   s(ω) = ∫ (k_along − k_b) dx .

The integral over u is what charging over a Debye length adds to slabs in series; it vanishes at zero frequency and for
Debye lengths short beside the layer. Half of the symmetric boundary is solved, on a mesh of `INTERVALS` steps.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from mesoion.errors import ConvergenceError, InputError
from mesoion.material import Material
from mesoion.units import BOLTZMANN, ELEMENTARY_CHARGE, VACUUM_PERMITTIVITY

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]

INTERVALS = (24, 72)
"""Steps of the half layer and of the grain beside it."""
FACE = 0.05
"""Step at the layer's face over the shortest Debye length."""
BESIDE = 16.0
"""Debye lengths of grain beside the layer, on top of the depletion that the charge can make."""
LARGEST_STEP, MOST_STEPS, SETTLED = 4.0, 200, 1e-10
"""Newton's step is cut to this [kT/e], at most so many are taken, and the last is this small."""
MOST_RESISTANCE = 1e60
"""Of a step over the same with its reference occupancy: beyond it squares leave the range of doubles."""


@dataclass(frozen=True)
class Lattice:
    """Sites of Li⁺ in grain and layer: densities [1/m³] and the occupancies at which the conductivities hold.

    Raises InputError for a density not above zero and an occupancy outside 0 to 1.
    """

    site_density: float
    occupancy: float
    boundary_site_density: float
    boundary_occupancy: float

    def __post_init__(self) -> None:
        for key in ("site_density", "boundary_site_density"):
            if not (math.isfinite(getattr(self, key)) and getattr(self, key) > 0):
                raise InputError(key, getattr(self, key), "sites per m³, above zero")
        for key in ("occupancy", "boundary_occupancy"):
            if not 0 < getattr(self, key) < 1:
                raise InputError(key, getattr(self, key), "a share of the sites, between 0 and 1")

    @classmethod
    def of(cls, material: Material, boundary: str, temperature: float) -> Lattice:
        """Of a material's records at a temperature [K]."""
        grain, layer = material.grain(temperature), material.boundary(temperature, boundary)
        return cls(
            grain.site_density, grain.reference_occupancy, layer.site_density, layer.reference_occupancy
        )

    def debye_length(self, permittivity: float, temperature: float) -> float:
        """√(εkT/(e² N θ(1 − θ))) of the grain [m], permittivity relative."""
        free = self.site_density * self.occupancy * (1 - self.occupancy)
        return math.sqrt(
            VACUUM_PERMITTIVITY * permittivity * BOLTZMANN * temperature / (ELEMENTARY_CHARGE**2 * free)
        )


@dataclass(frozen=True, eq=False)
class ChargedBoundary:
    """Equilibrium of half a boundary, from its middle to the grain's interior.

    steps (n,) [m], the first `in_layer` of them in the layer; potential (n + 1,) [kT/e]; resistivity, conductivity
    (n,): means of σ_ref/σ and σ/σ_ref over a step; capacity (n + 1,): of a node for Li [F/m²].
    """

    steps: Floats
    in_layer: int
    potential: Floats
    resistivity: Floats
    conductivity: Floats
    capacity: Floats

    @property
    def face_potential(self) -> float:
        """ψ at the layer's face against the grain [kT/e]: the barrier in the grain."""
        return float(self.potential[self.in_layer])

    @property
    def at_rest(self) -> tuple[float, float]:
        """A and G [m]: the whole boundary's resistance at zero frequency is A/σ_gb + (G − w)/σ_b over a bare grain's.

        A: of the layer, its width without a charge; G: of the grain beside it, zero without.
        """
        a = self.in_layer
        layer = 2 * self.steps[:a] @ self.resistivity[:a]
        return float(layer), float(2 * self.steps[a:] @ (self.resistivity[a:] - 1))

    def excess(
        self, bulk: float, boundary: float, of_bulk: Complexes, of_boundary: Complexes, omega: Floats
    ) -> tuple[Complexes, Complexes]:
        """Excess across r [ohm m²] and along s [S] (m,) at angular frequencies `omega` (m,) [1/s].

        bulk, boundary [S/m]: conductivities at the reference occupancies. of_bulk, of_boundary (m,) [S/m]: displacement
        admittivities, iωε.
        """
        grain, layer = np.asarray(of_bulk, dtype=complex), np.asarray(of_boundary, dtype=complex)
        sigma = np.where(np.arange(len(self.steps)) < self.in_layer, boundary, bulk) / self.resistivity
        across = _kernels()[1](
            self.steps,
            self.in_layer,
            sigma,
            self.capacity,
            bulk,
            grain,
            layer,
            np.asarray(omega, dtype=float),
        )
        a = self.in_layer
        along = boundary * (self.steps[:a] @ self.conductivity[:a])
        along += bulk * (self.steps[a:] @ (self.conductivity[a:] - 1)) - bulk * self.steps[:a].sum()
        return 2 * across, np.asarray(2 * (along + (layer - grain) * self.steps[:a].sum()))


def charged_boundary(
    lattice: Lattice,
    *,
    width: float,
    core_charge: float,
    temperature: float,
    permittivity: float,
    permittivity_ratio: float = 1.0,
    intervals: tuple[int, int] = INTERVALS,
) -> ChargedBoundary:
    """Equilibrium of a layer of `width` [m] with `core_charge` [elementary charges per m²], positive or negative.

    permittivity: relative, of the grain; permittivity_ratio: of the layer over it. Raises ConvergenceError where the
    potential is not found, or empties or fills the sites altogether.
    """
    decay = lattice.debye_length(permittivity, temperature)
    dense = max(lattice.site_density, lattice.boundary_site_density * min(1.0, 1 / permittivity_ratio))
    shortest = decay * math.sqrt(
        lattice.site_density * lattice.occupancy * (1 - lattice.occupancy) / (0.25 * dense)
    )
    # A charge beyond what empties (or fills) the sites beside the layer reaches further than the Debye length.
    spare = lattice.occupancy if core_charge > 0 else 1 - lattice.occupancy
    reach = BESIDE * decay + 0.5 * abs(core_charge) / (lattice.site_density * spare)
    inner = _graded(0.5 * width, FACE * shortest, intervals[0])[::-1]
    steps = np.concatenate([inner, _graded(reach, FACE * shortest, intervals[1])])
    scale = VACUUM_PERMITTIVITY * permittivity * BOLTZMANN * temperature / ELEMENTARY_CHARGE**2
    found = _kernels()[0](
        steps,
        len(inner),
        scale,
        permittivity_ratio,
        lattice.site_density,
        lattice.occupancy,
        lattice.boundary_site_density,
        lattice.boundary_occupancy,
        core_charge / width,
    )
    psi, resistivity, conductivity, free, left = found
    emptied = not (np.all(resistivity < MOST_RESISTANCE) and np.all(free[:-1] * MOST_RESISTANCE > free[-1]))
    if emptied or not left <= SETTLED:
        raise ConvergenceError(
            "the core charge empties or fills the sites beyond what numbers hold, or its potential was not found; give "
            "a smaller one",
            at=f"{core_charge:.3g} e/m², width {width:.3g} m",
        )
    capacity = free * ELEMENTARY_CHARGE**2 / (BOLTZMANN * temperature)
    return ChargedBoundary(steps, len(inner), psi, resistivity, conductivity, capacity)


def _graded(length: float, first: float, count: int) -> Floats:
    """`count` steps that fill `length`, each longer than the one before by one factor, from about `first` on."""
    if first * count >= length:
        return np.full(count, length / count)
    ratio, target = 1.0 + 1.0 / count, length / first
    for _ in range(60):
        power = ratio**count
        value, slope = (power - 1) / (ratio - 1), 0.0
        slope = (count * power / ratio - value) / (ratio - 1)
        step = math.log(value / target) * value / slope
        ratio = max(ratio - step, 1 + 0.1 * (ratio - 1))
        if abs(step) < 1e-12:
            break
    steps = first * ratio ** np.arange(count)
    return np.asarray(steps * (length / steps.sum()))


@cache
def _kernels() -> tuple[Callable[..., Any], Callable[..., Any]]:
    """The compiled kernels; numba is loaded on first use."""
    import numba

    compiled = numba.njit(cache=True, error_model="numpy")
    return cast(tuple[Callable[..., Any], Callable[..., Any]], (compiled(_equilibrium), compiled(_across)))


def _equilibrium(
    steps: Floats,
    inner: int,
    scale: float,
    ratio: float,
    density: float,
    occupancy: float,
    layer_density: float,
    layer_occupancy: float,
    core: float,
) -> tuple[Floats, Floats, Floats, Floats, float]:
    """ψ at the nodes, means of σ_ref/σ and σ/σ_ref over the steps, N θ(1 − θ) times length of the nodes, last step.

    Newton's iteration on a tridiagonal system; lumped charges, ψ = 0 at the last node, ψ' = 0 at the first.
    """
    n = len(steps)
    psi = np.zeros(n + 1)
    diagonal, right = np.empty(n), np.empty(n)
    free = np.empty(n + 1)
    at = np.log(occupancy / (1 - occupancy))
    layer_at = np.log(layer_occupancy / (1 - layer_occupancy))
    left = np.inf
    for _ in range(MOST_STEPS):
        for i in range(n + 1):
            charge, slope = 0.0, 0.0
            for side in range(2):
                k = i - 1 + side
                if k < 0 or k >= n:
                    continue
                half = 0.5 * steps[k]
                if k < inner:
                    theta = 1 / (1 + np.exp(psi[i] - layer_at))
                    charge += half * (layer_density * (theta - layer_occupancy) + core)
                    slope += half * layer_density * theta * (1 - theta)
                else:
                    theta = 1 / (1 + np.exp(psi[i] - at))
                    charge += half * density * (theta - occupancy)
                    slope += half * density * theta * (1 - theta)
            free[i] = slope
            if i < n:
                diagonal[i], right[i] = slope, charge
        for k in range(n):
            stiff = scale * (ratio if k < inner else 1.0) / steps[k]
            pull = stiff * (psi[k + 1] - psi[k])
            right[k] += pull
            diagonal[k] += stiff
            if k + 1 < n:
                right[k + 1] -= pull
                diagonal[k + 1] += stiff
        for k in range(n - 1):
            stiff = scale * (ratio if k < inner else 1.0) / steps[k]
            diagonal[k + 1] -= stiff * stiff / diagonal[k]
            right[k + 1] += stiff / diagonal[k] * right[k]
        left = 0.0
        change = 0.0
        for k in range(n - 1, -1, -1):
            stiff = scale * (ratio if k < inner else 1.0) / steps[k]
            change = (right[k] + stiff * change) / diagonal[k]
            right[k] = change
            left = max(left, abs(change))
        share = 1.0 if left <= LARGEST_STEP else LARGEST_STEP / left
        for k in range(n):
            psi[k] += share * right[k]
        if left <= SETTLED or not np.isfinite(left):
            break
    resistivity, conductivity = np.empty(n), np.empty(n)
    for k in range(n):
        at_k, theta_k = (layer_at, layer_occupancy) if k < inner else (at, occupancy)
        a, d = at_k - psi[k], psi[k] - psi[k + 1]
        both = theta_k * (1 - theta_k)
        # Exact for a potential linear over the step: 1/[θ(1 − θ)] = 2 + e^a + e^−a, θ(1 − θ) = −dθ/dψ.
        if abs(d) < 1e-5:
            m = a + 0.5 * d
            resistivity[k] = both * (2 + np.exp(m) + np.exp(-m))
            conductivity[k] = 1 / resistivity[k]
        else:
            rise, fall = np.expm1(d) / d, -np.expm1(-d) / d
            resistivity[k] = both * (2 + np.exp(a) * rise + np.exp(-a) * fall)
            conductivity[k] = (1 / (1 + np.exp(-a - d)) - 1 / (1 + np.exp(-a))) / d / both
    return psi, resistivity, conductivity, free, left


def _across(
    steps: Floats,
    inner: int,
    sigma: Floats,
    capacity: Floats,
    bulk: float,
    of_bulk: Complexes,
    of_boundary: Complexes,
    omega: Floats,
) -> Complexes:
    """Excess of the half boundary across (m,): Σ h(1/k − 1/k_b) + bᵀA⁻¹b by elimination, all frequencies in step."""
    m, n = len(omega), len(steps)
    found = np.zeros(m, np.complex128)
    pivot, right = np.zeros(m, np.complex128), np.zeros(m, np.complex128)
    before = np.zeros(m, np.complex128)
    for k in range(n):
        for j in range(m):
            y = of_boundary[j] if k < inner else of_bulk[j]
            whole = sigma[k] + y
            inverse = whole.conjugate() / (whole.real * whole.real + whole.imag * whole.imag)
            outer = bulk + of_bulk[j]
            base = outer.conjugate() / (outer.real * outer.real + outer.imag * outer.imag)
            found[j] += steps[k] * (bulk - sigma[k] + of_bulk[j] - y) * inverse * base
            share = y * inverse
            stiff = sigma[k] * share / steps[k]
            if k > 0:
                # Node k, between the steps k − 1 and k; the first and the last node hold no u.
                p = pivot[j] + stiff + 1j * omega[j] * capacity[k]
                b = right[j] + share - before[j]
                inverse = p.conjugate() / (p.real * p.real + p.imag * p.imag)
                found[j] += b * b * inverse
                pivot[j] = stiff - stiff * stiff * inverse
                right[j] = stiff * inverse * b
            else:
                pivot[j] = stiff
            before[j] = share
    return found
