"""Energies, forces and virial of a moment tensor potential, compiled by numba.

Per atom: Chebyshev radial functions of all neighbours, monomials of their unit vectors, basic moments as dot products
over the neighbours, products of moments, and the reverse of all of it for the gradient. No distance is clamped.

Loops over neighbours write one array each: the compiler gives up on vectors where too many could overlap.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

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
    inlined,
)
from atomistic.mtp.potential import MTPotential
from atomistic.mtp.vector import contract_eight

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


class Model(NamedTuple):
    """A potential as the compiled functions want it.

    coefficients: the radial ones, size: the number of polynomials in them;
    basics: (basic moments, 2) mu and monomial, ordered by monomial; position: their indices among the moments;
    group: where each monomial's basics begin; by_mu, mu_group: the same by mu;
    parent, axis: each monomial is one coordinate times its parent; children, child_group: the other way round;
    by_axis, axis_group: monomials ordered by axis, without the first;
    times: left, right, out; factor: of each product; core: (species, species, 4), see RepulsiveCore.table.
    """

    cutoff: float
    low: float
    scaling: float
    coefficients: FloatArray
    size: int
    species_energy: FloatArray
    xi: FloatArray
    mapping: IntArray
    basics: IntArray
    position: IntArray
    group: IntArray
    by_mu: IntArray
    mu_group: IntArray
    parent: IntArray
    axis: IntArray
    children: IntArray
    child_group: IntArray
    by_axis: IntArray
    axis_group: IntArray
    times: IntArray
    factor: FloatArray
    n_moments: int
    core: FloatArray
    use_core: bool


class Work(NamedTuple):
    """Scratch arrays for one atom; the last axis runs over its neighbours."""

    unit: FloatArray
    r: FloatArray
    near: npt.NDArray[np.int32]
    bound: IntArray
    t: FloatArray
    dt: FloatArray
    f: FloatArray
    df: FloatArray
    mono: FloatArray
    back: FloatArray
    along: FloatArray
    g: FloatArray
    m: FloatArray
    d: FloatArray


def _monomials(alpha_index_basic: IntArray) -> tuple[IntArray, IntArray, IntArray]:
    """Monomials of unit vectors in rising degree: parent and axis of each, and which one each basic moment uses."""

    def parent(powers: tuple[int, int, int]) -> tuple[tuple[int, int, int], int]:
        a, b, c = powers
        if a:
            return (a - 1, b, c), 0
        return ((a, b - 1, c), 1) if b else ((a, b, max(c - 1, 0)), 2)

    used = [(int(row[1]), int(row[2]), int(row[3])) for row in alpha_index_basic]
    needed: set[tuple[int, int, int]] = set()
    for powers in used:
        while powers not in needed:
            needed.add(powers)
            powers = parent(powers)[0]
    ordered = sorted(needed | {(0, 0, 0)}, key=lambda p: (sum(p), p))
    index = {powers: i for i, powers in enumerate(ordered)}
    links = [parent(powers) for powers in ordered]
    return (
        np.array([index[powers] for powers, _ in links], dtype=np.int64),
        np.array([axis for _, axis in links], dtype=np.int64),
        np.array([index[powers] for powers in used], dtype=np.int64),
    )


def build_model(potential: MTPotential, core: RepulsiveCore | None = None) -> Model:
    """Tables of the compiled functions for one potential."""
    n = potential.species_count
    size = potential.radial_basis_size
    parent, axis, of_basic = _monomials(potential.alpha_index_basic)
    order = np.argsort(of_basic, kind="stable")
    mu = potential.alpha_index_basic[order, 0]
    by_mu = np.argsort(mu, kind="stable")
    children = 1 + np.argsort(parent[1:], kind="stable")
    by_axis = 1 + np.argsort(axis[1:], kind="stable")
    times = potential.alpha_index_times
    return Model(
        cutoff=potential.cutoff,
        low=potential.min_distance,
        scaling=potential.scaling,
        coefficients=potential.radial_coefficients.copy(),
        size=size,
        species_energy=potential.species_coefficients.copy(),
        xi=potential.moment_coefficients.copy(),
        mapping=potential.alpha_moment_mapping.copy(),
        basics=np.stack([mu, of_basic[order]], axis=1),
        position=order.astype(np.int64),
        group=np.searchsorted(of_basic[order], np.arange(len(parent) + 1)).astype(np.int64),
        by_mu=by_mu.astype(np.int64),
        mu_group=np.searchsorted(mu[by_mu], np.arange(potential.radial_function_count + 1)).astype(np.int64),
        parent=parent,
        axis=axis,
        children=children.astype(np.int64),
        child_group=np.searchsorted(parent[children], np.arange(len(parent) + 1)).astype(np.int64),
        by_axis=by_axis.astype(np.int64),
        axis_group=np.searchsorted(axis[by_axis], np.arange(4)).astype(np.int64),
        times=np.ascontiguousarray(times[:, (0, 1, 3)]),
        factor=times[:, 2].astype(np.float64),
        n_moments=potential.moment_count,
        core=np.zeros((n, n, 4)) if core is None else core.table(potential.species),
        use_core=core is not None,
    )


@compiled
def _workspace(model: Any, longest: Any) -> Any:
    n_species, n_functions, size = (
        model.coefficients.shape[0],
        model.coefficients.shape[2],
        model.coefficients.shape[3],
    )
    # Room for the padding of every type to 8 and of the whole to 32.
    room = (longest + 8 * n_species + 39) // 8 * 8
    return Work(
        _aligned(3, room),
        _aligned(1, room)[0],
        np.empty(room, np.int32),
        np.zeros(n_species + 1, np.int64),
        _aligned(size, room),
        _aligned(size, room),
        _aligned(n_functions, room),
        _aligned(n_functions, room),
        _aligned(model.parent.size, room),
        _aligned(model.parent.size, room),
        _aligned(1, room)[0],
        _aligned(3, room),
        np.empty(model.n_moments),
        np.empty(model.n_moments),
    )


@compiled
def _aligned(rows: Any, room: Any) -> Any:
    """An array (rows, room) that begins on a cache line."""
    raw = np.empty(rows * room + 8)
    offset = (-(raw.ctypes.data // 8)) % 8
    return raw[offset : offset + rows * room].reshape(rows, room)


@inlined
def _pad(count: Any, mask: Any, squared: Any, work: Any) -> Any:
    """Fills up with neighbours on the cutoff, which contribute nothing, so that vector loops leave no rest."""
    while count & mask:
        work.unit[0, count] = 0.0
        work.unit[1, count] = 0.0
        work.unit[2, count] = 0.0
        work.r[count] = squared
        work.near[count] = -1
        count += 1
    return count


@inlined
def _gather(i: Any, x: Any, types: Any, start: Any, neighbours: Any, cutoff: Any, work: Any) -> Any:
    """Neighbours of atom i inside the cutoff: vectors, squared distances, indices, where each type begins."""
    unit, r, near, bound = work.unit, work.r, work.near, work.bound
    count = 0
    current = 0
    bound[0] = 0
    limit = cutoff * cutoff
    xi, yi, zi = x[i, 0], x[i, 1], x[i, 2]
    for index in range(start[i], start[i + 1]):
        j = neighbours[index]
        if current < types[j]:
            count = _pad(count, 7, limit, work)
            while current < types[j]:
                current += 1
                bound[current] = count
        dx = x[j, 0] - xi
        dy = x[j, 1] - yi
        dz = x[j, 2] - zi
        squared = dx * dx + dy * dy + dz * dz
        unit[0, count] = dx
        unit[1, count] = dy
        unit[2, count] = dz
        r[count] = squared
        near[count] = j
        # No branch: which candidates are inside cannot be predicted.
        count += 1 if squared < limit else 0
    count = _pad(count, 31, limit, work)
    while current < bound.size - 1:
        current += 1
        bound[current] = count
    return count


@inlined
def _radial(count: Any, model: Any, coefficients: Any, work: Any) -> Any:
    """Distances and unit vectors; smoothed Chebyshev polynomials t and radial functions f with derivatives."""
    unit, r, t, dt, f, df, bound = work.unit, work.r, work.t, work.dt, work.f, work.df, work.bound
    along = work.along
    cutoff, low, scaling = model.cutoff, model.low, model.scaling
    slope = 2.0 / (cutoff - low)
    for k in range(count):
        r[k] = math.sqrt(r[k])
    for k in range(count):
        along[k] = 1.0 / r[k]
    for a in range(3):
        for k in range(count):
            unit[a, k] *= along[k]
    for k in range(count):
        t[0, k] = scaling * (cutoff - r[k]) * (cutoff - r[k])
    for k in range(count):
        dt[0, k] = -2.0 * scaling * (cutoff - r[k])
    for k in range(count):
        t[1, k] = (slope * (r[k] - low) - 1.0) * t[0, k]
    for k in range(count):
        dt[1, k] = slope * t[0, k] + (slope * (r[k] - low) - 1.0) * dt[0, k]
    for n in range(2, model.size):
        for k in range(count):
            t[n, k] = 2.0 * (slope * (r[k] - low) - 1.0) * t[n - 1, k] - t[n - 2, k]
        for k in range(count):
            xi = slope * (r[k] - low) - 1.0
            dt[n, k] = 2.0 * (slope * t[n - 1, k] + xi * dt[n - 1, k]) - dt[n - 2, k]
    for species in range(bound.size - 1):
        for mu in range(f.shape[0]):
            c = coefficients[species, mu]
            for k in range(bound[species], bound[species + 1], 8):
                contract_eight(c, t, f, mu, k)
                contract_eight(c, dt, df, mu, k)


@inlined
def _moments(count: Any, model: Any, work: Any) -> Any:
    """Monomials of the neighbours and all moments of one atom."""
    unit, f, mono, m = work.unit, work.f, work.mono, work.m
    parent, axis, basics, position = model.parent, model.axis, model.basics, model.position
    for k in range(count):
        mono[0, k] = 1.0
    for p in range(1, parent.size):
        up, a = parent[p], axis[p]
        for k in range(count):
            mono[p, k] = mono[up, k] * unit[a, k]
    by_mu, mu_group = model.by_mu, model.mu_group
    for mu in range(f.shape[0]):
        q, end = mu_group[mu], mu_group[mu + 1]
        while q + 3 < end:
            b0, b1, b2, b3 = by_mu[q], by_mu[q + 1], by_mu[q + 2], by_mu[q + 3]
            p0, p1, p2, p3 = basics[b0, 1], basics[b1, 1], basics[b2, 1], basics[b3, 1]
            s0, s1, s2, s3 = 0.0, 0.0, 0.0, 0.0
            for k in range(count):
                s0 += f[mu, k] * mono[p0, k]
                s1 += f[mu, k] * mono[p1, k]
                s2 += f[mu, k] * mono[p2, k]
                s3 += f[mu, k] * mono[p3, k]
            m[position[b0]], m[position[b1]], m[position[b2]], m[position[b3]] = s0, s1, s2, s3
            q += 4
        while q < end:
            b0 = by_mu[q]
            p0 = basics[b0, 1]
            s0 = 0.0
            for k in range(count):
                s0 += f[mu, k] * mono[p0, k]
            m[position[b0]] = s0
            q += 1
    m[basics.shape[0] :] = 0.0
    times, factor = model.times, model.factor
    for row in range(times.shape[0]):
        m[times[row, 2]] += factor[row] * m[times[row, 0]] * m[times[row, 1]]


@inlined
def _moment_gradient(model: Any, work: Any) -> Any:
    """Derivatives d of the site energy with respect to every moment."""
    m, d, times, factor, mapping = work.m, work.d, model.times, model.factor, model.mapping
    d[:] = 0.0
    for s in range(mapping.size):
        d[mapping[s]] = model.xi[s]
    for row in range(times.shape[0] - 1, -1, -1):
        left, right = times[row, 0], times[row, 1]
        g = d[times[row, 2]] * factor[row]
        # Both derivatives are added in turn, so that left == right gives the factor 2.
        d[left] += g * m[right]
        d[right] += g * m[left]


@inlined
def _pair_gradient(count: Any, model: Any, work: Any) -> Any:
    """g (3, neighbours): derivative of the site energy with respect to each neighbour's position."""
    unit, r, f, df, mono, d = work.unit, work.r, work.f, work.df, work.mono, work.d
    back, along, g = work.back, work.along, work.g
    group, basics, position = model.group, model.basics, model.position
    for p in range(model.parent.size - 1, -1, -1):
        b, end = group[p], group[p + 1]
        if b == end:
            back[p, :count] = 0.0
        elif b + 1 == end:
            mu, first = basics[b, 0], d[position[b]]
            for k in range(count):
                back[p, k] = first * f[mu, k]
        else:
            mu, first = basics[b, 0], d[position[b]]
            nu, second = basics[b + 1, 0], d[position[b + 1]]
            for k in range(count):
                back[p, k] = first * f[mu, k] + second * f[nu, k]
        for row in range(b + 2, end):
            mu, first = basics[row, 0], d[position[row]]
            for k in range(count):
                back[p, k] += first * f[mu, k]
        c, end = model.child_group[p], model.child_group[p + 1]
        if c + 3 == end:
            p0, p1, p2 = model.children[c], model.children[c + 1], model.children[c + 2]
            a0, a1, a2 = model.axis[p0], model.axis[p1], model.axis[p2]
            for k in range(count):
                back[p, k] += (
                    back[p0, k] * unit[a0, k] + back[p1, k] * unit[a1, k] + back[p2, k] * unit[a2, k]
                )
        elif c + 2 == end:
            p0, p1 = model.children[c], model.children[c + 1]
            a0, a1 = model.axis[p0], model.axis[p1]
            for k in range(count):
                back[p, k] += back[p0, k] * unit[a0, k] + back[p1, k] * unit[a1, k]
        elif c + 1 == end:
            p0 = model.children[c]
            a0 = model.axis[p0]
            for k in range(count):
                back[p, k] += back[p0, k] * unit[a0, k]
    by_axis, axis_group, parent = model.by_axis, model.axis_group, model.parent
    for a in range(3):
        q, end = axis_group[a], axis_group[a + 1]
        g[a, :count] = 0.0
        while q + 3 < end:
            p0, p1, p2, p3 = by_axis[q], by_axis[q + 1], by_axis[q + 2], by_axis[q + 3]
            u0, u1, u2, u3 = parent[p0], parent[p1], parent[p2], parent[p3]
            for k in range(count):
                g[a, k] += (
                    back[p0, k] * mono[u0, k]
                    + back[p1, k] * mono[u1, k]
                    + back[p2, k] * mono[u2, k]
                    + back[p3, k] * mono[u3, k]
                )
            q += 4
        while q < end:
            p0 = by_axis[q]
            u0 = parent[p0]
            for k in range(count):
                g[a, k] += back[p0, k] * mono[u0, k]
            q += 1
    along[:count] = 0.0
    by_mu, mu_group = model.by_mu, model.mu_group
    for mu in range(f.shape[0]):
        q, end = mu_group[mu], mu_group[mu + 1]
        while q + 3 < end:
            b0, b1, b2, b3 = by_mu[q], by_mu[q + 1], by_mu[q + 2], by_mu[q + 3]
            p0, p1, p2, p3 = basics[b0, 1], basics[b1, 1], basics[b2, 1], basics[b3, 1]
            d0, d1, d2, d3 = d[position[b0]], d[position[b1]], d[position[b2]], d[position[b3]]
            for k in range(count):
                along[k] += df[mu, k] * (
                    d0 * mono[p0, k] + d1 * mono[p1, k] + d2 * mono[p2, k] + d3 * mono[p3, k]
                )
            q += 4
        while q < end:
            b0 = by_mu[q]
            p0, d0 = basics[b0, 1], d[position[b0]]
            for k in range(count):
                along[k] += df[mu, k] * d0 * mono[p0, k]
            q += 1
    for k in range(count):
        back[0, k] = 1.0 / r[k]
    for k in range(count):
        along[k] -= (unit[0, k] * g[0, k] + unit[1, k] * g[1, k] + unit[2, k] * g[2, k]) * back[0, k]
    for a in range(3):
        for k in range(count):
            g[a, k] = g[a, k] * back[0, k] + along[k] * unit[a, k]


@inlined
def _add_core(zi: Any, count: Any, types: Any, model: Any, work: Any) -> Any:
    """Half the core energy of atom i with its neighbours; half its gradient goes to g."""
    energy = 0.0
    for k in range(count):
        j = work.near[k]
        if j < 0:
            continue
        pair = model.core[zi, types[j]]
        if work.r[k] < pair[1]:
            phi, slope = core_energy(work.r[k], pair[0], pair[1], pair[2], pair[3])
            energy += 0.5 * phi
            for a in range(3):
                work.g[a, k] += 0.5 * slope * work.unit[a, k]
    return energy


@compiled
def _longest(start: Any) -> Any:
    longest = 0
    for i in range(start.size - 1):
        longest = max(longest, start[i + 1] - start[i])
    return longest


@compiled
def _evaluate(
    x: Any, types: Any, start: Any, neighbours: Any, model: Any, energies: Any, forces: Any, virial: Any
) -> Any:
    """Fills energies (n,), forces (atoms and images, 3), virial (3, 3); returns the smallest squared distance."""
    work = _workspace(model, _longest(start))
    unit, r, g, near = work.unit, work.r, work.g, work.near
    smallest = model.cutoff * model.cutoff
    for i in range(start.size - 1):
        count = _gather(i, x, types, start, neighbours, model.cutoff, work)
        for k in range(count):
            smallest = min(smallest, r[k])
        zi = types[i]
        _radial(count, model, model.coefficients[zi], work)
        _moments(count, model, work)
        energy = model.species_energy[zi]
        for s in range(model.mapping.size):
            energy += model.xi[s] * work.m[model.mapping[s]]
        _moment_gradient(model, work)
        _pair_gradient(count, model, work)
        if model.use_core:
            energy += _add_core(zi, count, types, model, work)
        energies[i] = energy
        for a in range(3):
            total = 0.0
            for k in range(count):
                total += g[a, k]
            forces[i, a] += total
            for b in range(a, 3):
                total = 0.0
                for k in range(count):
                    total += r[k] * unit[a, k] * g[b, k]
                virial[a, b] -= total
        for k in range(count):
            j = near[k]
            if j >= 0:
                forces[j, 0] -= g[0, k]
                forces[j, 1] -= g[1, k]
                forces[j, 2] -= g[2, k]
    return smallest


@compiled
def _fold(forces: Any, owner: Any, n: Any) -> Any:
    for j in range(n, owner.size):
        for a in range(3):
            forces[owner[j], a] += forces[j, a]


@compiled
def _site_derivatives(x: Any, types: Any, start: Any, neighbours: Any, model: Any, out: Any) -> Any:
    """Rows of `out`: scalars B, then d E_i / d c[z_i, z_j, mu, n]; returns the smallest squared distance."""
    work = _workspace(model, _longest(start))
    mono, t, h = work.mono, work.t, work.df
    smallest = model.cutoff * model.cutoff
    for i in range(start.size - 1):
        count = _gather(i, x, types, start, neighbours, model.cutoff, work)
        for k in range(count):
            smallest = min(smallest, work.r[k])
        _radial(count, model, model.coefficients[types[i]], work)
        _moments(count, model, work)
        _moment_gradient(model, work)
        for s in range(model.mapping.size):
            out[i, s] = work.m[model.mapping[s]]
        h[:, :count] = 0.0
        for b in range(model.basics.shape[0]):
            mu, p, weight = model.basics[b, 0], model.basics[b, 1], work.d[model.position[b]]
            for k in range(count):
                h[mu, k] += weight * mono[p, k]
        position = model.mapping.size
        for species in range(work.bound.size - 1):
            for mu in range(h.shape[0]):
                for n in range(model.size):
                    total = 0.0
                    for k in range(work.bound[species], work.bound[species + 1]):
                        total += h[mu, k] * t[n, k]
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
        self.model = build_model(potential, core)
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
            followed = old.follow(x, full, cutoff)
            if followed is not None:
                return old, followed
        new = build_list(x, full, wraps, z, self.potential.species_count, cutoff + self.skin)
        self._list = new
        self.builds += 1
        followed = new.follow(x, full, 0.0)
        assert followed is not None
        return new, followed

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
        smallest = _evaluate(
            x, neighbours.types, neighbours.start, neighbours.neighbours, self.model, energies, forces, virial
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
            x, neighbours.types, neighbours.start, neighbours.neighbours, self.model, out
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
