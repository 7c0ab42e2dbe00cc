"""Energies, forces and virial of a moment tensor potential, compiled by numba.

Per atom: Chebyshev radial functions of all neighbours, monomials of their unit vectors, basic moments as dot products
over the neighbours, products of moments, and the reverse of all of it for the gradient. No distance is clamped.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from atomistic.errors import GeometryError, InputError, SpeciesError
from atomistic.mtp.core import RepulsiveCore, core_energy
from atomistic.mtp.neighbours import (
    FloatArray,
    IntArray,
    NeighbourList,
    build_list,
    compiled,
    complete_cell,
)
from atomistic.mtp.potential import MTPotential

if TYPE_CHECKING:
    from ase import Atoms

MIN_DISTANCE = 1e-2


@dataclass(frozen=True)
class Evaluation:
    """Result of one structure.

    energy: eV; energies: (n,) eV per atom; forces: (n, 3) eV/angstrom; virial: (3, 3) eV, minus the derivative of
    the energy with respect to strain (the sum of r F), so the stress is -virial/volume.
    """

    energy: float
    energies: FloatArray
    forces: FloatArray
    virial: FloatArray


class Monomials:
    """Monomials x^a y^b z^c of unit vectors up to the highest rank of a basis, each one coordinate times its parent.

    parent, axis: how each is made; of_basic: which one each basic moment uses.
    """

    def __init__(self, alpha_index_basic: IntArray) -> None:
        rank = int(alpha_index_basic[:, 1:].sum(axis=1).max())
        powers = [
            (a, b, degree - a - b)
            for degree in range(rank + 1)
            for a in range(degree, -1, -1)
            for b in range(degree - a, -1, -1)
        ]
        needed: set[tuple[int, int, int]] = set()
        for row in alpha_index_basic:
            a, b, c = (int(v) for v in row[1:])
            while (a, b, c) not in needed:
                needed.add((a, b, c))
                a, b, c = self._parent((a, b, c))[0]
        powers = [p for p in powers if p in needed]
        index = {p: i for i, p in enumerate(powers)}
        links = [self._parent(p) for p in powers]
        self.parent = np.array([index[p] for p, _ in links], dtype=np.int64)
        self.axis = np.array([axis for _, axis in links], dtype=np.int64)
        self.of_basic = np.array(
            [index[int(r[1]), int(r[2]), int(r[3])] for r in alpha_index_basic], dtype=np.int64
        )

    @staticmethod
    def _parent(powers: tuple[int, int, int]) -> tuple[tuple[int, int, int], int]:
        a, b, c = powers
        if a:
            return (a - 1, b, c), 0
        if b:
            return (a, b - 1, c), 1
        return (a, b, max(c - 1, 0)), 2


@compiled
def gather(
    i: Any,
    x: Any,
    types: Any,
    start: Any,
    neighbours: Any,
    cutoff: Any,
    unit: Any,
    r: Any,
    near: Any,
    bound: Any,
) -> Any:
    """Neighbours of atom i inside the cutoff: unit vectors, distances, indices, and where each type begins."""
    count = 0
    current = 0
    bound[0] = 0
    limit = cutoff * cutoff
    xi, yi, zi = x[i, 0], x[i, 1], x[i, 2]
    for index in range(start[i], start[i + 1]):
        j = neighbours[index]
        dx = x[j, 0] - xi
        dy = x[j, 1] - yi
        dz = x[j, 2] - zi
        squared = dx * dx + dy * dy + dz * dz
        if squared < limit:
            while current < types[j]:
                current += 1
                bound[current] = count
            unit[0, count] = dx
            unit[1, count] = dy
            unit[2, count] = dz
            r[count] = squared
            near[count] = j
            count += 1
    while current < bound.size - 1:
        current += 1
        bound[current] = count
    return count


@compiled
def radial(
    count: Any,
    cutoff: Any,
    low: Any,
    scaling: Any,
    coefficients: Any,
    bound: Any,
    unit: Any,
    r: Any,
    t: Any,
    dt: Any,
    f: Any,
    df: Any,
) -> Any:
    """Distances and unit vectors from squares; smoothed Chebyshev polynomials t, dt; radial functions f, df."""
    slope = 2.0 / (cutoff - low)
    for k in range(count):
        distance = math.sqrt(r[k])
        inverse = 1.0 / distance
        r[k] = distance
        unit[0, k] *= inverse
        unit[1, k] *= inverse
        unit[2, k] *= inverse
        away = cutoff - distance
        xi = slope * (distance - low) - 1.0
        t[0, k] = scaling * away * away
        dt[0, k] = -2.0 * scaling * away
        t[1, k] = xi * t[0, k]
        dt[1, k] = slope * t[0, k] + xi * dt[0, k]
    for n in range(2, t.shape[0]):
        for k in range(count):
            xi = slope * (r[k] - low) - 1.0
            t[n, k] = 2.0 * xi * t[n - 1, k] - t[n - 2, k]
            dt[n, k] = 2.0 * (slope * t[n - 1, k] + xi * dt[n - 1, k]) - dt[n - 2, k]
    for mu in range(f.shape[0]):
        for species in range(bound.size - 1):
            first, last = bound[species], bound[species + 1]
            c = coefficients[species, mu, 0]
            for k in range(first, last):
                f[mu, k] = c * t[0, k]
                df[mu, k] = c * dt[0, k]
            for n in range(1, t.shape[0]):
                c = coefficients[species, mu, n]
                for k in range(first, last):
                    f[mu, k] += c * t[n, k]
                    df[mu, k] += c * dt[n, k]


@compiled
def moments(
    count: Any,
    unit: Any,
    f: Any,
    parent: Any,
    axis: Any,
    basic: Any,
    of_basic: Any,
    times: Any,
    mono: Any,
    m: Any,
) -> Any:
    """All moments m of one atom; mono is filled with the monomials of its neighbours."""
    for k in range(count):
        mono[0, k] = 1.0
    for p in range(1, parent.size):
        up, a = parent[p], axis[p]
        for k in range(count):
            mono[p, k] = mono[up, k] * unit[a, k]
    for b in range(basic.shape[0]):
        mu, p = basic[b, 0], of_basic[b]
        total = 0.0
        for k in range(count):
            total += f[mu, k] * mono[p, k]
        m[b] = total
    for b in range(basic.shape[0], m.size):
        m[b] = 0.0
    for row in range(times.shape[0]):
        m[times[row, 3]] += times[row, 2] * m[times[row, 0]] * m[times[row, 1]]


@compiled
def moment_gradient(m: Any, times: Any, mapping: Any, xi: Any, d: Any) -> Any:
    """Derivatives d of the site energy with respect to every moment."""
    for b in range(d.size):
        d[b] = 0.0
    for s in range(mapping.size):
        d[mapping[s]] = xi[s]
    for row in range(times.shape[0] - 1, -1, -1):
        left, right = times[row, 0], times[row, 1]
        g = d[times[row, 3]] * times[row, 2]
        # Both derivatives are added in turn, so that left == right gives the factor 2.
        d[left] += g * m[right]
        d[right] += g * m[left]


@compiled
def pair_gradient(
    count: Any,
    unit: Any,
    r: Any,
    f: Any,
    df: Any,
    parent: Any,
    axis: Any,
    basic: Any,
    of_basic: Any,
    mono: Any,
    d: Any,
    back: Any,
    along: Any,
    g: Any,
) -> Any:
    """g (3, neighbours): derivative of the site energy with respect to each neighbour's position."""
    for k in range(count):
        along[k] = 0.0
        g[0, k] = 0.0
        g[1, k] = 0.0
        g[2, k] = 0.0
    for p in range(parent.size):
        for k in range(count):
            back[p, k] = 0.0
    for b in range(basic.shape[0]):
        mu, p, weight = basic[b, 0], of_basic[b], d[b]
        for k in range(count):
            back[p, k] += weight * f[mu, k]
            along[k] += weight * df[mu, k] * mono[p, k]
    for p in range(parent.size - 1, 0, -1):
        up, a = parent[p], axis[p]
        for k in range(count):
            g[a, k] += back[p, k] * mono[up, k]
            back[up, k] += back[p, k] * unit[a, k]
    for k in range(count):
        inverse = 1.0 / r[k]
        dot = unit[0, k] * g[0, k] + unit[1, k] * g[1, k] + unit[2, k] * g[2, k]
        shift = along[k] - dot * inverse
        g[0, k] = g[0, k] * inverse + shift * unit[0, k]
        g[1, k] = g[1, k] * inverse + shift * unit[1, k]
        g[2, k] = g[2, k] * inverse + shift * unit[2, k]


@compiled
def _evaluate(
    n: Any,
    x: Any,
    types: Any,
    start: Any,
    neighbours: Any,
    cutoff: Any,
    low: Any,
    scaling: Any,
    coefficients: Any,
    species_energy: Any,
    xi: Any,
    mapping: Any,
    basic: Any,
    of_basic: Any,
    parent: Any,
    axis: Any,
    times: Any,
    n_moments: Any,
    core: Any,
    use_core: Any,
    energies: Any,
    forces: Any,
    virial: Any,
) -> Any:
    """Fills energies (n,), forces (atoms and images, 3), virial (3, 3); returns the smallest squared distance."""
    longest = 0
    for i in range(n):
        longest = max(longest, start[i + 1] - start[i])
    n_functions, size = coefficients.shape[2], coefficients.shape[3]
    unit = np.empty((3, longest))
    r = np.empty(longest)
    near = np.empty(longest, np.int32)
    bound = np.zeros(coefficients.shape[0] + 1, np.int64)
    t, dt = np.empty((size, longest)), np.empty((size, longest))
    f, df = np.empty((n_functions, longest)), np.empty((n_functions, longest))
    mono, back = np.empty((parent.size, longest)), np.empty((parent.size, longest))
    along, g = np.empty(longest), np.empty((3, longest))
    m, d = np.empty(n_moments), np.empty(n_moments)
    smallest = cutoff * cutoff
    for i in range(n):
        count = gather(i, x, types, start, neighbours, cutoff, unit, r, near, bound)
        for k in range(count):
            smallest = min(smallest, r[k])
        radial(count, cutoff, low, scaling, coefficients[types[i]], bound, unit, r, t, dt, f, df)
        moments(count, unit, f, parent, axis, basic, of_basic, times, mono, m)
        energy = species_energy[types[i]]
        for s in range(mapping.size):
            energy += xi[s] * m[mapping[s]]
        moment_gradient(m, times, mapping, xi, d)
        pair_gradient(count, unit, r, f, df, parent, axis, basic, of_basic, mono, d, back, along, g)
        if use_core:
            for k in range(count):
                pair = core[types[i], types[near[k]]]
                if r[k] < pair[1]:
                    phi, slope = core_energy(r[k], pair[0], pair[1], pair[2], pair[3])
                    energy += 0.5 * phi
                    for a in range(3):
                        g[a, k] += 0.5 * slope * unit[a, k]
        energies[i] = energy
        for k in range(count):
            j = near[k]
            for a in range(3):
                forces[i, a] += g[a, k]
                forces[j, a] -= g[a, k]
                for b in range(a, 3):
                    virial[a, b] -= r[k] * unit[a, k] * g[b, k]
    return smallest


@compiled
def _fold(forces: Any, owner: Any, n: Any) -> Any:
    for j in range(n, owner.size):
        for a in range(3):
            forces[owner[j], a] += forces[j, a]


@compiled
def _site_derivatives(
    n: Any,
    x: Any,
    types: Any,
    start: Any,
    neighbours: Any,
    cutoff: Any,
    low: Any,
    scaling: Any,
    coefficients: Any,
    xi: Any,
    mapping: Any,
    basic: Any,
    of_basic: Any,
    parent: Any,
    axis: Any,
    times: Any,
    n_moments: Any,
    out: Any,
) -> Any:
    """Rows of `out`: scalars B, then d E_i / d c[z_i, z_j, mu, n]; returns the smallest squared distance."""
    longest = 0
    for i in range(n):
        longest = max(longest, start[i + 1] - start[i])
    n_species, n_functions, size = coefficients.shape[0], coefficients.shape[2], coefficients.shape[3]
    unit = np.empty((3, longest))
    r = np.empty(longest)
    near = np.empty(longest, np.int32)
    bound = np.zeros(n_species + 1, np.int64)
    t, dt = np.empty((size, longest)), np.empty((size, longest))
    f, df = np.empty((n_functions, longest)), np.empty((n_functions, longest))
    mono = np.empty((parent.size, longest))
    h = np.empty((n_functions, longest))
    m, d = np.empty(n_moments), np.empty(n_moments)
    smallest = cutoff * cutoff
    for i in range(n):
        count = gather(i, x, types, start, neighbours, cutoff, unit, r, near, bound)
        for k in range(count):
            smallest = min(smallest, r[k])
        radial(count, cutoff, low, scaling, coefficients[types[i]], bound, unit, r, t, dt, f, df)
        moments(count, unit, f, parent, axis, basic, of_basic, times, mono, m)
        moment_gradient(m, times, mapping, xi, d)
        for s in range(mapping.size):
            out[i, s] = m[mapping[s]]
        h[:, :count] = 0.0
        for b in range(basic.shape[0]):
            mu, p, weight = basic[b, 0], of_basic[b], d[b]
            for k in range(count):
                h[mu, k] += weight * mono[p, k]
        position = mapping.size
        for species in range(n_species):
            for mu in range(n_functions):
                for q in range(size):
                    total = 0.0
                    for k in range(bound[species], bound[species + 1]):
                        total += h[mu, k] * t[q, k]
                    out[i, position] = total
                    position += 1
    return smallest


class Evaluator:
    """Evaluates one potential for a sequence of structures, keeping the neighbour list while it is valid.

    skin: extra radius of the list, angstrom. core: optional repulsive core, added to the potential.
    """

    def __init__(
        self, potential: MTPotential, *, skin: float = 0.5, core: RepulsiveCore | None = None
    ) -> None:
        if not 0.0 <= skin < 10.0:
            raise InputError("skin", skin, "0 to 10 angstrom is allowed")
        if core is not None and core.outer.max(initial=0.0) > potential.cutoff:
            raise InputError(
                "core.outer", core.outer.max(), f"at most the cutoff {potential.cutoff} angstrom"
            )
        self.potential, self.skin, self.core = potential, float(skin), core
        monomials = Monomials(potential.alpha_index_basic)
        self._ranges = (potential.cutoff, potential.min_distance, potential.scaling)
        self._tables = (
            potential.alpha_moment_mapping,
            potential.alpha_index_basic,
            monomials.of_basic,
            monomials.parent,
            monomials.axis,
            potential.alpha_index_times,
            potential.moment_count,
        )
        n = potential.species_count
        self._core = np.zeros((n, n, 4)) if core is None else core.table(potential.species)
        self._list: NeighbourList | None = None
        self._periodic = np.zeros(3, dtype=np.bool_)
        self.builds = 0

    def _neighbours(
        self, positions: npt.ArrayLike, types: npt.ArrayLike, cell: npt.ArrayLike, periodic: npt.ArrayLike
    ) -> tuple[NeighbourList, FloatArray]:
        x = np.ascontiguousarray(positions, dtype=np.float64)
        z = np.ascontiguousarray(types, dtype=np.int64)
        wraps = np.broadcast_to(np.asarray(periodic, dtype=np.bool_), 3).copy()
        lattice = np.asarray(cell, dtype=np.float64)
        if x.ndim != 2 or x.shape[1] != 3 or z.shape != (len(x),) or lattice.shape != (3, 3):
            raise GeometryError(
                f"positions {x.shape}, types {z.shape} and cell {lattice.shape} do not fit together"
            )
        if len(x) == 0:
            raise GeometryError("the structure holds no atoms")
        if z.min() < 0 or z.max() >= self.potential.species_count:
            raise SpeciesError(
                f"types from 0 to {self.potential.species_count - 1} are allowed, not {z.min()}..{z.max()}"
            )
        full = complete_cell(lattice, wraps, x)
        old = self._list
        cutoff = self.potential.cutoff
        if (
            old is not None
            and len(old.reference_positions) == len(x)
            and np.array_equal(old.periodic, wraps)
            and np.array_equal(old.types[: len(x)], z)
        ):
            # Directions that are not periodic have no lattice to strain with.
            full = np.where(wraps[:, None], full, old.reference_cell)
            followed = old.follow(x, full)
            if old.valid(followed, full, cutoff):
                return old, old.positions(followed, full)
        self._list = build_list(x, full, wraps, z, self.potential.species_count, cutoff + self.skin)
        self.builds += 1
        return self._list, self._list.positions(self._list.follow(x, full), full)

    def evaluate(
        self,
        positions: npt.ArrayLike,
        types: npt.ArrayLike,
        cell: npt.ArrayLike,
        periodic: npt.ArrayLike = True,
    ) -> Evaluation:
        """Energy, forces and virial of one structure.

        positions: (n, 3) angstrom; types: (n,) indices of the potential's species; cell: (3, 3) rows, angstrom;
        periodic: bool or (3,). Raises GeometryError for coinciding atoms, flat cells and values that are not finite.
        """
        neighbours, x = self._neighbours(positions, types, cell, periodic)
        n = len(neighbours.start) - 1
        energies, forces, virial = np.empty(n), np.zeros_like(x), np.zeros((3, 3))
        potential = self.potential
        smallest = _evaluate(
            n,
            x,
            neighbours.types,
            neighbours.start,
            neighbours.neighbours,
            *self._ranges,
            potential.radial_coefficients,
            potential.species_coefficients,
            potential.moment_coefficients,
            *self._tables,
            self._core,
            self.core is not None,
            energies,
            forces,
            virial,
        )
        self._refuse_coinciding(smallest, neighbours, x)
        _fold(forces, neighbours.owner, n)
        full = virial + np.triu(virial, 1).T
        return Evaluation(float(energies.sum()), energies, forces[:n].copy(), full)

    def site_derivatives(
        self,
        positions: npt.ArrayLike,
        types: npt.ArrayLike,
        cell: npt.ArrayLike,
        periodic: npt.ArrayLike = True,
    ) -> FloatArray:
        """(n, scalars + species * functions * size): B of every atom, then the derivatives of its energy with respect
        to the radial coefficients of its own species as centre, in the order of `radial_coefficients[z_i]`."""
        neighbours, x = self._neighbours(positions, types, cell, periodic)
        n = len(neighbours.start) - 1
        potential = self.potential
        width = potential.alpha_moment_mapping.size + potential.radial_coefficients[0].size
        out = np.empty((n, width))
        smallest = _site_derivatives(
            n,
            x,
            neighbours.types,
            neighbours.start,
            neighbours.neighbours,
            *self._ranges,
            potential.radial_coefficients,
            potential.moment_coefficients,
            *self._tables,
            out,
        )
        self._refuse_coinciding(smallest, neighbours, x)
        return out

    def _refuse_coinciding(self, smallest: float, neighbours: NeighbourList, x: FloatArray) -> None:
        if smallest >= MIN_DISTANCE**2:
            return
        for i in range(len(neighbours.start) - 1):
            near = neighbours.neighbours[neighbours.start[i] : neighbours.start[i + 1]]
            distances = np.linalg.norm(x[near] - x[i], axis=1)
            if distances.min(initial=1.0) < MIN_DISTANCE:
                j = neighbours.owner[near[distances.argmin()]]
                raise GeometryError(
                    f"atoms {i} and {j} (counted from 0) are {distances.min():.2g} angstrom apart; move one of them"
                )


def evaluate(potential: MTPotential, atoms: Atoms, core: RepulsiveCore | None = None) -> Evaluation:
    """Energy, forces and virial of an ASE structure. Raises SpeciesError and GeometryError."""
    types = potential.types_of(atoms.get_chemical_symbols())
    return Evaluator(potential, core=core).evaluate(atoms.positions, types, atoms.cell.array, atoms.pbc)
