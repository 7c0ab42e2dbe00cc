"""A cheap energy of an oxide framework, to rank boundary cells before a real potential does.

Rigid ions with Wolf's shifted-force Coulomb sum (D. Wolf et al., J. Chem. Phys. 110, 8254 (1999),
doi 10.1063/1.478738) and a core A/d^8 that puts every cation-anion pair at rest at its bond length:

    E = Σ_{i<j} [ k q_i q_j W(d_ij) + A_ij / d_ij^8 ],   A_ij = k |q_i q_j| b_ij^7 / 8 · (1 - b²/d_c²)

It ranks terminations and shifts; it is not a boundary energy. Lengths in Å, energies in eV.
"""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

COULOMB = 14.399645
CHARGE_SCALE = 0.6
"""Of the formal charges; about what oxides' Born charges and ionicities call for."""
CUTOFF = 6.5
_CLOSEST = 0.55


@numba.njit(cache=True)
def _energies(
    x: Any, cell: Any, images: Any, q: Any, kind: Any, strength: Any, cut: float, closest: float
) -> Any:
    n = x.shape[0]
    energy = np.zeros(n)
    force = np.zeros((n, 3))
    for m in range(images.shape[0]):
        sx = images[m, 0] * cell[0, 0] + images[m, 1] * cell[1, 0] + images[m, 2] * cell[2, 0]
        sy = images[m, 0] * cell[0, 1] + images[m, 1] * cell[1, 1] + images[m, 2] * cell[2, 1]
        sz = images[m, 0] * cell[0, 2] + images[m, 1] * cell[1, 2] + images[m, 2] * cell[2, 2]
        for i in range(n):
            xi, yi, zi = x[i, 0] - sx, x[i, 1] - sy, x[i, 2] - sz
            for j in range(n):
                dx = xi - x[j, 0]
                if dx > cut or dx < -cut:
                    continue
                dy = yi - x[j, 1]
                dz = zi - x[j, 2]
                r2 = dx * dx + dy * dy + dz * dz
                if r2 >= cut * cut or r2 < 1e-10:
                    continue
                r = np.sqrt(r2)
                # Below this distance the energy goes on linearly, so that one bad contact does not drown the rest.
                s = r if r > closest else closest
                qq = q[i] * q[j]
                a = strength[kind[i], kind[j]]
                wolf = 1 / s - 1 / cut + (s - cut) / cut**2
                slope = qq * (-1 / s**2 + 1 / cut**2) - 8 * a / s**9
                value = qq * wolf + a / s**8 + slope * (r - s)
                energy[i] += 0.5 * value
                force[i, 0] -= slope * dx / r
                force[i, 1] -= slope * dy / r
                force[i, 2] -= slope * dz / r
    return energy, force


def core_strengths(charges: Floats, bonds: Floats) -> Floats:
    """A_ij (k, k), eV Å^8, from scaled charges (k,) in units of √(eV Å) and bond lengths (k, k) Å (0: no core)."""
    product = np.abs(np.outer(charges, charges))
    strength: Floats = product * (1 - bonds**2 / CUTOFF**2) * bonds**7 / 8
    return strength


def image_cells(cell: Floats, cutoff: float = CUTOFF) -> Ints:
    """All periodic images (m, 3) that a sphere of `cutoff` about any point of the cell can reach."""
    heights = 1 / np.linalg.norm(np.linalg.inv(cell), axis=0)
    reach = np.ceil(cutoff / heights).astype(int)
    axes = [np.arange(-r, r + 1) for r in reach]
    return np.array(np.meshgrid(*axes, indexing="ij"), dtype=np.int64).reshape(3, -1).T


def atom_energies(
    positions: Floats, cell: Floats, charges: Floats, kind: Ints, strengths: Floats
) -> tuple[Floats, Floats]:
    """Energy of each atom (eV; their sum is the energy) and the forces (eV/Å) in a periodic cell.

    `charges` (n,) scaled, in √(eV Å): formal charge · CHARGE_SCALE · √COULOMB; `kind` (n,) indices into `strengths`.
    Positions need not be wrapped but must lie within one cell of it.
    """
    fractional = positions @ np.linalg.inv(cell)
    wrapped = (fractional - np.floor(fractional)) @ cell
    energy, force = _energies(
        wrapped,
        np.ascontiguousarray(cell),
        image_cells(cell),
        charges,
        kind,
        strengths,
        CUTOFF,
        _CLOSEST * 2.4,
    )
    # Wolf's self term makes neutral pieces of matter comparable at any size.
    return energy - 0.5 * charges**2 / CUTOFF, force


def zero_pressure_factor(
    positions: Floats, cell: Floats, charges: Floats, kind: Ints, strengths: Floats
) -> float:
    """Factor on the cores at which a crystal is at zero pressure in its own cell: λ = -C'(a)/R'(a) for E = C + λR."""

    def energy(scale: float, cores: Floats) -> float:
        return float(atom_energies(positions * scale, cell * scale, charges, kind, cores)[0].sum())

    step = 2e-3
    none = np.zeros_like(strengths)
    coulomb = energy(1 + step, none) - energy(1 - step, none)
    total = energy(1 + step, strengths) - energy(1 - step, strengths)
    return -coulomb / (total - coulomb)


def relax(
    positions: Floats, cell: Floats, charges: Floats, kind: Ints, strengths: Floats, *, steps: int = 60
) -> tuple[Floats, Floats]:
    """Move the atoms downhill (FIRE-like, at most 0.1 Å a step); returns positions and atom energies at the end."""
    x, velocity = np.array(positions, dtype=float), np.zeros_like(positions)
    dt = 0.05
    energy, force = atom_energies(x, cell, charges, kind, strengths)
    best, best_energy = x.copy(), energy
    for _ in range(steps):
        power = float(np.sum(force * velocity))
        if power > 0:
            norm = np.linalg.norm(velocity) / max(float(np.linalg.norm(force)), 1e-12)
            velocity = 0.85 * velocity + 0.15 * norm * force
            dt = min(dt * 1.1, 0.2)
        else:
            velocity[:] = 0
            dt *= 0.6
        velocity = velocity + dt * force
        step = dt * velocity
        length = np.linalg.norm(step, axis=1, keepdims=True)
        x = x + step * np.minimum(1.0, 0.1 / np.maximum(length, 1e-12))
        energy, force = atom_energies(x, cell, charges, kind, strengths)
        if energy.sum() < best_energy.sum():
            best, best_energy = x.copy(), energy
    return best, best_energy
