"""Energies, forces, virials and their derivatives with respect to every parameter of a moment tensor potential.

For one site, E = e + sum_b xi_b B_b(m) with the basic moments m_a = sum_j f_mu(r_j) n^a(r_j), f_mu = sum_n c_n g_n.
With b_a = dE/dm_a, H = d2E/dm dm, P_a = dm_a/dc and G_a = dm_a/dr_k,

    d2E/dr_k dxi = dB/dm G,        d2E/dr_k dc = (H G)_a P_a + b_a d(g_n n^a)/dr_k,

H and dB/dm from one forward tangent and one reverse sweep per basic moment. The products over all neighbours of
a site are matrix products.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numba
import numpy as np

from atomistic.errors import FramesError, GeometryError
from atomistic.mtp.potential import FloatArray, IntArray, MTPotential

if TYPE_CHECKING:
    from ase import Atoms


@dataclass(frozen=True)
class Neighbours:
    """Neighbour pairs of one structure within a cutoff, sorted by the first atom.

    types: (atoms,) species index. first: (atoms + 1,) where each atom's pairs begin. second: (pairs,) the
    neighbour. vectors: (pairs, 3) angstrom, from the first atom to the second. volume: angstrom^3 (0 if not
    periodic in all directions).
    """

    types: IntArray
    first: IntArray
    second: IntArray
    vectors: FloatArray
    volume: float


def neighbours(atoms: Atoms, potential: MTPotential, where: str = "frame") -> Neighbours:
    """Pairs within the potential's cutoff, periodic images included (the cell may be smaller than the cutoff).

    Raises GeometryError, naming `where`, for coinciding atoms, SpeciesError for unknown elements.
    """
    types = potential.types_of(atoms.get_chemical_symbols())
    positions, cell, count = lattice_images(atoms, potential.cutoff, where)
    first, second, vectors = _pairs(positions, cell, count, potential.cutoff)
    if len(vectors):
        distances = np.linalg.norm(vectors, axis=1)
        pair = int(np.argmin(distances))
        if distances[pair] < 1e-3:
            one = int(np.searchsorted(first, pair, side="right")) - 1
            raise GeometryError(f"{where}: atoms {one} and {second[pair]} coincide")
    volume = float(atoms.get_volume()) if atoms.cell.rank == 3 and atoms.pbc.all() else 0.0
    return Neighbours(types, first, second, vectors, volume)


def lattice_images(
    atoms: Atoms, cutoff: float, where: str = "frame"
) -> tuple[FloatArray, FloatArray, IntArray]:
    """Positions wrapped into the cell, the cell (3, 3), and how many images each way a cutoff reaches (3,).

    Raises GeometryError for positions that are not finite and for cells without volume or so flat that more than
    twenty images are needed.
    """
    positions = np.array(atoms.get_positions(), np.float64)
    if not (np.isfinite(positions).all() and np.isfinite(atoms.cell.array).all()):
        raise GeometryError(f"{where} has positions or a cell that are not finite numbers")
    periodic = np.asarray(atoms.get_pbc(), bool)
    if not periodic.any():
        return positions, np.eye(3), np.zeros(3, np.int64)
    cell = np.array(atoms.cell.complete().array, np.float64)
    if abs(np.linalg.det(cell)) < 1e-6:
        raise GeometryError(f"{where} is periodic but its cell has no volume")
    inverse = np.linalg.inv(cell)
    heights = 1.0 / np.linalg.norm(inverse, axis=0)
    count = np.where(periodic, np.ceil(cutoff / heights), 0).astype(np.int64)
    if count.max() > 20:
        raise GeometryError(f"{where}: the cell is only {heights.min():.2g} angstrom high; use a supercell")
    fractional = positions @ inverse
    fractional -= np.where(periodic, np.floor(fractional), 0.0)
    return fractional @ cell, cell, count


def shortest_distance(atoms: Atoms, cutoff: float, where: str = "frame") -> float:
    """The smallest distance between two atoms, images included, in angstrom; `cutoff` if none is within it."""
    positions, cell, count = lattice_images(atoms, cutoff, where)
    _, _, vectors = _pairs(positions, cell, count, cutoff)
    return float(np.linalg.norm(vectors, axis=1).min()) if len(vectors) else cutoff


@numba.njit(cache=True, nogil=True)
def _pairs(positions: Any, cell: Any, count: Any, cutoff: float) -> Any:
    # Frames are small and each is searched once: all images of all atoms are tried, in a fixed order.
    n = positions.shape[0]
    first = np.zeros(n + 1, np.int64)
    capacity = 64 * n
    second = np.empty(capacity, np.int64)
    vectors = np.empty((capacity, 3))
    found = 0
    for i in range(n):
        for j in range(n):
            for a in range(-count[0], count[0] + 1):
                for b in range(-count[1], count[1] + 1):
                    for c in range(-count[2], count[2] + 1):
                        if i == j and a == 0 and b == 0 and c == 0:
                            continue
                        x = (
                            positions[j, 0]
                            - positions[i, 0]
                            + a * cell[0, 0]
                            + b * cell[1, 0]
                            + c * cell[2, 0]
                        )
                        y = (
                            positions[j, 1]
                            - positions[i, 1]
                            + a * cell[0, 1]
                            + b * cell[1, 1]
                            + c * cell[2, 1]
                        )
                        z = (
                            positions[j, 2]
                            - positions[i, 2]
                            + a * cell[0, 2]
                            + b * cell[1, 2]
                            + c * cell[2, 2]
                        )
                        if x * x + y * y + z * z >= cutoff * cutoff:
                            continue
                        if found == capacity:
                            capacity *= 2
                            more, wider = np.empty(capacity, np.int64), np.empty((capacity, 3))
                            more[:found], wider[:found] = second, vectors
                            second, vectors = more, wider
                        second[found] = j
                        vectors[found, 0], vectors[found, 1], vectors[found, 2] = x, y, z
                        found += 1
        first[i + 1] = found
    return first, second[:found].copy(), vectors[:found].copy()


@dataclass(frozen=True)
class Workspace:
    """A potential's tables in the form the kernel reads; `parameters` change, the rest does not."""

    basic: IntArray
    times: IntArray
    mapping: IntArray
    order: IntArray
    mu_start: IntArray
    moment_count: int
    shape: tuple[int, int, int, int]
    cutoff: float
    min_distance: float
    scaling: float

    @classmethod
    def of(cls, potential: MTPotential) -> Workspace:
        """Tables of `potential`, with the basic moments grouped by their radial function."""
        basic = np.array(potential.alpha_index_basic)
        order = np.argsort(basic[:, 0], kind="stable").astype(np.int64)
        counts = np.bincount(basic[:, 0], minlength=potential.radial_function_count)
        shape = potential.radial_coefficients.shape
        return cls(
            basic=np.ascontiguousarray(basic[order]),
            times=np.array(potential.alpha_index_times),
            mapping=np.array(potential.alpha_moment_mapping),
            order=order,
            mu_start=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            moment_count=potential.moment_count,
            shape=(shape[0], shape[1], shape[2], shape[3]),
            cutoff=potential.cutoff,
            min_distance=potential.min_distance,
            scaling=potential.scaling,
        )

    def evaluate(
        self, pairs: Neighbours, parameters: FloatArray, jacobian: bool, linear_only: bool = False
    ) -> tuple[float, FloatArray, FloatArray, FloatArray, FloatArray, FloatArray]:
        """Energy, forces (atoms, 3), virial dE/dstrain (3, 3), and the derivatives of the three.

        parameters: moment, species and radial coefficients, as `MTPotential.parameters`. The derivatives have the
        shapes (n,), (3 atoms, n) and (9, n); without `jacobian` they are empty. With `linear_only` n counts the moment
        and species coefficients only, in which the energy is linear. eV, eV/angstrom.
        """
        n_atoms, n = len(pairs.types), parameters.size
        if linear_only:
            n = len(self.mapping) + self.shape[0]
        forces, virial = np.zeros((n_atoms, 3)), np.zeros((3, 3))
        rows = (n_atoms * 3, 9) if jacobian else (0, 0)
        j_energy = np.zeros(n if jacobian else 0)
        j_forces, j_virial = np.zeros((rows[0], n)), np.zeros((rows[1], n))
        n_scalar = len(self.mapping)
        energy = _evaluate(
            pairs.types,
            pairs.first,
            pairs.second,
            pairs.vectors,
            np.ascontiguousarray(parameters[:n_scalar]),
            np.ascontiguousarray(parameters[n_scalar : n_scalar + self.shape[0]]),
            np.ascontiguousarray(parameters[n_scalar + self.shape[0] :]).reshape(self.shape),
            self.basic,
            self.times,
            self.mapping,
            self.order,
            self.mu_start,
            self.moment_count,
            self.cutoff,
            self.min_distance,
            self.scaling,
            jacobian,
            linear_only,
            forces,
            virial,
            j_energy,
            j_forces,
            j_virial,
        )
        return energy, forces, virial, j_energy, j_forces, j_virial


@numba.njit(cache=True, nogil=True)
def _evaluate(
    types: Any,
    first: Any,
    second: Any,
    vectors: Any,
    xi: Any,
    species: Any,
    radial: Any,
    basic: Any,
    times: Any,
    mapping: Any,
    order: Any,
    mu_start: Any,
    moment_count: int,
    cutoff: float,
    min_distance: float,
    scaling: float,
    jacobian: bool,
    linear_only: bool,
    forces: Any,
    virial: Any,
    j_energy: Any,
    j_forces: Any,
    j_virial: Any,
) -> float:
    n_species, _, n_mu, n_q = radial.shape
    n_basic, n_scalar, n_times = basic.shape[0], mapping.shape[0], times.shape[0]
    max_power = 0
    for a in range(n_basic):
        max_power = max(max_power, basic[a, 1], basic[a, 2], basic[a, 3])
    largest = 0
    for i in range(types.shape[0]):
        largest = max(largest, first[i + 1] - first[i])
    # Basic moments are handled sorted by mu; `times` refers to the original numbering.
    slope = np.zeros((3 * largest, n_basic))
    mono = np.zeros((largest, n_basic))
    d_mono = np.zeros((largest, n_basic, 3))
    g = np.zeros((largest, n_q))
    dg = np.zeros((largest, n_q))
    unit = np.zeros((largest, 3))
    power = np.ones((3, max_power + 1))
    f = np.zeros(n_mu)
    df = np.zeros(n_mu)
    moments = np.zeros(moment_count)
    adjoint = np.zeros(moment_count)
    tangent = np.zeros(moment_count)
    d_adjoint = np.zeros(moment_count)
    by_basic = np.zeros((n_basic, n_species * n_q))
    hessian = np.zeros((n_basic, n_basic))
    d_scalar = np.zeros((n_basic, n_scalar))
    block = n_mu * n_q
    pair_block = np.zeros((3 * largest, n_species * block))
    total = 0.0
    for i in range(types.shape[0]):
        zi = types[i]
        start, count = first[i], first[i + 1] - first[i]
        moments[:] = 0.0
        by_basic[:] = 0.0
        for k in range(count):
            x, y, z = vectors[start + k, 0], vectors[start + k, 1], vectors[start + k, 2]
            r = np.sqrt(x * x + y * y + z * z)
            unit[k, 0], unit[k, 1], unit[k, 2] = x / r, y / r, z / r
            zj = types[second[start + k]]
            width = cutoff - min_distance
            t = (2.0 * r - min_distance - cutoff) / width
            envelope = scaling * (cutoff - r) ** 2
            d_envelope = -2.0 * scaling * (cutoff - r)
            c0, c1, d0, d1 = 1.0, t, 0.0, 1.0
            for n in range(n_q):
                g[k, n] = envelope * c0
                dg[k, n] = d_envelope * c0 + envelope * d0 * 2.0 / width
                c0, c1, d0, d1 = c1, 2.0 * t * c1 - c0, d1, 2.0 * c1 + 2.0 * t * d1 - d0
            for mu in range(n_mu):
                f[mu] = 0.0
                df[mu] = 0.0
                for n in range(n_q):
                    f[mu] += radial[zi, zj, mu, n] * g[k, n]
                    df[mu] += radial[zi, zj, mu, n] * dg[k, n]
            for axis in range(3):
                for p in range(1, max_power + 1):
                    power[axis, p] = power[axis, p - 1] * unit[k, axis]
            for a in range(n_basic):
                mu, px, py, pz = basic[a, 0], basic[a, 1], basic[a, 2], basic[a, 3]
                value = power[0, px] * power[1, py] * power[2, pz]
                dx = px * power[0, px - 1] * power[1, py] * power[2, pz] if px > 0 else 0.0
                dy = py * power[0, px] * power[1, py - 1] * power[2, pz] if py > 0 else 0.0
                dz = pz * power[0, px] * power[1, py] * power[2, pz - 1] if pz > 0 else 0.0
                nu = px + py + pz
                mono[k, a] = value
                d_mono[k, a, 0] = (dx - nu * value * unit[k, 0]) / r
                d_mono[k, a, 1] = (dy - nu * value * unit[k, 1]) / r
                d_mono[k, a, 2] = (dz - nu * value * unit[k, 2]) / r
                moments[order[a]] += f[mu] * value
                for axis in range(3):
                    slope[3 * k + axis, a] = df[mu] * unit[k, axis] * value + f[mu] * d_mono[k, a, axis]
                if jacobian and not linear_only:
                    for n in range(n_q):
                        by_basic[a, zj * n_q + n] += g[k, n] * value
        for row in range(n_times):
            moments[times[row, 3]] += times[row, 2] * moments[times[row, 0]] * moments[times[row, 1]]
        adjoint[:] = 0.0
        total += species[zi]
        for b in range(n_scalar):
            total += xi[b] * moments[mapping[b]]
            adjoint[mapping[b]] += xi[b]
        for row in range(n_times - 1, -1, -1):
            left, right = times[row, 0], times[row, 1]
            carried = times[row, 2] * adjoint[times[row, 3]]
            adjoint[left] += carried * moments[right]
            adjoint[right] += carried * moments[left]
        for k in range(count):
            j = second[start + k]
            for axis in range(3):
                pull = 0.0
                for a in range(n_basic):
                    pull += adjoint[order[a]] * slope[3 * k + axis, a]
                forces[j, axis] -= pull
                forces[i, axis] += pull
                for other in range(3):
                    virial[axis, other] += pull * vectors[start + k, other]
        if not jacobian:
            continue
        for a in range(n_basic):
            tangent[:] = 0.0
            d_adjoint[:] = 0.0
            tangent[order[a]] = 1.0
            for row in range(n_times):
                left, right = times[row, 0], times[row, 1]
                tangent[times[row, 3]] += times[row, 2] * (
                    tangent[left] * moments[right] + moments[left] * tangent[right]
                )
            for b in range(n_scalar):
                d_scalar[a, b] = tangent[mapping[b]]
            if linear_only:
                continue
            for row in range(n_times - 1, -1, -1):
                left, right = times[row, 0], times[row, 1]
                carried = times[row, 2] * adjoint[times[row, 3]]
                d_carried = times[row, 2] * d_adjoint[times[row, 3]]
                d_adjoint[left] += d_carried * moments[right] + carried * tangent[right]
                d_adjoint[right] += d_carried * moments[left] + carried * tangent[left]
            for other in range(n_basic):
                hessian[a, other] = d_adjoint[order[other]]
        offset = n_scalar + n_species + zi * n_species * block
        for b in range(n_scalar):
            j_energy[b] += moments[mapping[b]]
        j_energy[n_scalar + zi] += 1.0
        linear = np.dot(slope[: 3 * count], d_scalar)
        for k in range(count):
            j = second[start + k]
            for axis in range(3):
                row = 3 * k + axis
                to_j, to_i = 3 * j + axis, 3 * i + axis
                for b in range(n_scalar):
                    value = linear[row, b]
                    j_forces[to_j, b] -= value
                    j_forces[to_i, b] += value
                    for other in range(3):
                        j_virial[3 * axis + other, b] += value * vectors[start + k, other]
        if linear_only:
            continue
        for a in range(n_basic):
            mu = basic[a, 0]
            weight = adjoint[order[a]]
            for zj in range(n_species):
                for n in range(n_q):
                    j_energy[offset + zj * block + mu * n_q + n] += weight * by_basic[a, zj * n_q + n]
        curved = np.dot(slope[: 3 * count], hessian)
        pair_block[:] = 0.0
        for mu in range(n_mu):
            low, high = mu_start[mu], mu_start[mu + 1]
            part = np.dot(np.ascontiguousarray(curved[:, low:high]), by_basic[low:high])
            for row in range(3 * count):
                for zj in range(n_species):
                    for n in range(n_q):
                        pair_block[row, zj * block + mu * n_q + n] = part[row, zj * n_q + n]
        for k in range(count):
            zj = types[second[start + k]]
            for mu in range(n_mu):
                radial_part = 0.0
                turn_x, turn_y, turn_z = 0.0, 0.0, 0.0
                for a in range(mu_start[mu], mu_start[mu + 1]):
                    weight = adjoint[order[a]]
                    radial_part += weight * mono[k, a]
                    turn_x += weight * d_mono[k, a, 0]
                    turn_y += weight * d_mono[k, a, 1]
                    turn_z += weight * d_mono[k, a, 2]
                for n in range(n_q):
                    column = zj * block + mu * n_q + n
                    along = dg[k, n] * radial_part
                    pair_block[3 * k, column] += along * unit[k, 0] + g[k, n] * turn_x
                    pair_block[3 * k + 1, column] += along * unit[k, 1] + g[k, n] * turn_y
                    pair_block[3 * k + 2, column] += along * unit[k, 2] + g[k, n] * turn_z
            j = second[start + k]
            for axis in range(3):
                row = 3 * k + axis
                to_j, to_i = 3 * j + axis, 3 * i + axis
                for column in range(n_species * block):
                    value = pair_block[row, column]
                    j_forces[to_j, offset + column] -= value
                    j_forces[to_i, offset + column] += value
                    for other in range(3):
                        j_virial[3 * axis + other, offset + column] += value * vectors[start + k, other]
    return total


def check_frame_count(frames: int) -> None:
    """Raise FramesError for an empty training set."""
    if frames == 0:
        raise FramesError("there is no frame to train on; label some first (atomistic.teachers.label_frames)")
