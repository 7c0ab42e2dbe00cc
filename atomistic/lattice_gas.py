"""Placing ions on candidate sites at minimal repulsion: a lattice gas, annealed by Monte Carlo.

The energy is a model of repulsion only, good enough to avoid bad starting structures, not to rank real ones:

    E = Σ_{i<j} [ q_i q_j C(d_ij) + o_i o_j H(d_ij) ] + Σ_i e_i(s_i)

with charge q and occupation o (0 or 1) of the species s on each site, a screened Coulomb term C, a core H and a
site energy e from the framework around it. Lengths in Å, energies in eV.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba
import numpy as np
from ase import Atoms
from ase.neighborlist import primitive_neighbor_list
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from atomistic.errors import InputError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

COULOMB = 14.399645
"""e²/(4π ε0), eV Å."""
SCREENING_PERMITTIVITY = 10.0
"""Relative permittivity that stands for the framework's response; scales C against H only."""
CORE_DISTANCE = 2.2
"""Distance of two placed ions, Å, at which the core H reaches 1 eV."""
CUTOFF = 5.0

VACANCY = ""


@dataclass(frozen=True)
class Occupation:
    """An arrangement: species on each site ("" empty), its repulsion energy (eV) and shortest distance (Å)."""

    species: list[str]
    energy: float
    shortest_distance: float


@numba.njit(cache=True)
def _local(i: int, s: int, skip: int, ptr: Any, idx: Any, c: Any, h: Any, q: Any, o: Any, occ: Any) -> float:
    total = 0.0
    for k in range(ptr[i], ptr[i + 1]):
        j = idx[k]
        if j != i and j != skip:
            total += q[s] * q[occ[j]] * c[k] + o[s] * o[occ[j]] * h[k]
    return total


@numba.njit(cache=True)
def _anneal(
    ptr: Any, idx: Any, c: Any, h: Any, q: Any, o: Any, site: Any, allowed: Any, occ: Any,
    steps: int, hot: float, cold: float, seed: int,
) -> None:  # fmt: skip
    np.random.seed(seed)  # noqa: NPY002  (numba's generator; the seed comes from the caller's)
    n = occ.size
    for step in range(steps):
        temperature = hot * (cold / hot) ** (step / steps)
        i = np.random.randint(n)  # noqa: NPY002
        j = np.random.randint(n)  # noqa: NPY002
        a, b = occ[i], occ[j]
        if a == b or not (allowed[i, b] and allowed[j, a]):
            continue
        change = site[i, b] + site[j, a] - site[i, a] - site[j, b]
        change += _local(i, b, j, ptr, idx, c, h, q, o, occ) + _local(j, a, i, ptr, idx, c, h, q, o, occ)
        change -= _local(i, a, j, ptr, idx, c, h, q, o, occ) + _local(j, b, i, ptr, idx, c, h, q, o, occ)
        if change <= 0.0 or np.random.random() < np.exp(-change / temperature):  # noqa: NPY002
            occ[i] = b
            occ[j] = a


def screened_coulomb(distance: Floats) -> Floats:
    """C(d) = e²/(4π ε0 ε_r d), shifted to reach zero at the cutoff with zero slope; eV, d in Å."""
    inside = distance < CUTOFF
    wolf = 1 / distance - 1 / CUTOFF + (distance - CUTOFF) / CUTOFF**2
    return np.where(inside, COULOMB / SCREENING_PERMITTIVITY * wolf, 0.0)


def core(distance: Floats, contact: Floats | float = CORE_DISTANCE) -> Floats:
    """H(d) = (d_c/d)^8 eV, zero beyond the cutoff; d_c the contact distance, Å."""
    return np.where(distance < CUTOFF, (contact / distance) ** 8, 0.0)


def cross_neighbours(points: Floats, others: Floats, cell: Floats, reach: float) -> tuple[Ints, Ints, Floats]:
    """Pairs (i of points, j of others, distance/Å) within `reach`, every periodic image of `others` counted."""
    inverse = np.linalg.inv(cell)
    inner, outer = points @ inverse, others @ inverse
    inner, outer = (inner - np.floor(inner)) @ cell, outer - np.floor(outer)
    margin = reach * np.linalg.norm(inverse, axis=0) + 1e-9
    index = np.arange(len(others))
    for axis in range(3):
        copies, labels = [outer], [index]
        for n in range(1, math.ceil(margin[axis]) + 1):
            for shift in (-n, n):
                moved = outer.copy()
                moved[:, axis] += shift
                keep = (moved[:, axis] > -margin[axis]) & (moved[:, axis] < 1 + margin[axis])
                copies.append(moved[keep])
                labels.append(index[keep])
        outer, index = np.vstack(copies), np.concatenate(labels)
    if not len(inner) or not len(outer):
        return np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64), np.empty(0)
    pairs = cKDTree(inner).sparse_distance_matrix(cKDTree(outer @ cell), reach, output_type="ndarray")
    return pairs["i"].astype(np.int64), index[pairs["j"]].astype(np.int64), pairs["v"]


def neighbours(positions: Floats, cell: Floats, cutoff: float = CUTOFF) -> tuple[Ints, Ints, Floats]:
    """Pairs (i, j, distance/Å) of a periodic set of points within the cutoff, both directions, sorted by i, then j."""
    i, j, d = cross_neighbours(positions, positions, cell, cutoff)
    other = (i != j) | (d > 1e-6)
    i, j, d = i[other], j[other], d[other]
    order = np.lexsort((d, j, i))
    return i[order], j[order], d[order]


def framework_energy(
    framework: Atoms, sites: Floats, charges: dict[str, float], contacts: dict[str, float]
) -> tuple[Floats, Floats]:
    """Potential and core energy of a framework at candidate sites.

    `charges` are the framework's effective charges by element (e; elements not named count as neutral), `contacts`
    the distances (Å) at which an ion on a site touches an element. Returns the potential (eV per e, n_sites) and the
    core energy (eV, n_sites).
    """
    i, j, d = cross_neighbours(sites, framework.positions, framework.cell.array, CUTOFF)
    n = len(sites)
    symbols = np.array(framework.get_chemical_symbols(), dtype=object)
    q = np.array([charges.get(s, 0.0) for s in symbols], dtype=float)
    contact = np.array([contacts.get(s, 0.0) for s in symbols], dtype=float)
    d = np.maximum(d, 0.1)
    potential: Floats = np.bincount(i, q[j] * screened_coulomb(d), minlength=n).astype(float)
    repulsion: Floats = np.bincount(i, core(d, contact[j]), minlength=n).astype(float)
    return potential, repulsion


def place(
    sites: Floats,
    cell: Floats,
    counts: dict[str, int],
    charges: dict[str, float],
    rng: np.random.Generator,
    *,
    allowed: dict[str, NDArray[np.bool_]] | None = None,
    site_energy: dict[str, Floats] | None = None,
    steps_per_site: int = 300,
    hottest: float = 2.0,
    coldest: float = 0.02,
) -> Occupation:
    """Distribute ions over candidate sites and anneal their repulsion.

    `sites` (n, 3) Å in the periodic `cell` (3, 3) Å; `counts` ions by species, `charges` theirs (e); `allowed` masks
    (n,) of the sites a species may take (default all); `site_energy` (n,) eV by species. The temperature falls
    geometrically from `hottest` to `coldest` eV over `steps_per_site`·n swaps. Equal generators give equal results.

    Raises InputError when the allowed sites do not suffice.
    """
    sites = np.asarray(sites, dtype=float).reshape(-1, 3)
    n, names = len(sites), [s for s in counts if counts[s] > 0]
    allowed, site_energy = allowed or {}, site_energy or {}
    occ = np.zeros(n, dtype=np.int64)
    may = np.ones((n, len(names) + 1), dtype=bool)
    energy = np.zeros((n, len(names) + 1))
    for k, name in enumerate(names, start=1):
        may[:, k] = allowed.get(name, np.ones(n, dtype=bool))
        energy[:, k] = site_energy.get(name, np.zeros(n))
    # The species with the fewest sites chooses first, so that a filling is found where one exists.
    for k in sorted(range(1, len(names) + 1), key=lambda m: int(may[:, m].sum())):
        free = np.flatnonzero(may[:, k] & (occ == 0))
        if counts[names[k - 1]] > len(free):
            raise InputError(
                f"number of {names[k - 1]}",
                counts[names[k - 1]],
                f"at most {len(free)} candidate sites are free",
            )
        occ[rng.choice(free, counts[names[k - 1]], replace=False)] = k
    if n == 0 or not names:
        return Occupation([VACANCY] * n, 0.0, np.inf)
    i, j, d = neighbours(sites, cell)
    d = np.maximum(d, 0.1)
    ptr = np.concatenate([[0], np.cumsum(np.bincount(i, minlength=n))]).astype(np.int64)
    q = np.array([0.0] + [charges[s] for s in names])
    o = np.array([0.0] + [1.0] * len(names))
    c, h = screened_coulomb(d), core(d)
    seed = int(rng.integers(2**31 - 1))
    _anneal(ptr, j, c, h, q, o, energy, may, occ, steps_per_site * n, hottest, coldest, seed)
    total = 0.5 * float(np.sum(q[occ[i]] * q[occ[j]] * c + o[occ[i]] * o[occ[j]] * h))
    total += float(energy[np.arange(n), occ].sum())
    both = (occ[i] > 0) & (occ[j] > 0)
    shortest = float(d[both].min()) if both.any() else np.inf
    labels = [VACANCY, *names]
    return Occupation([labels[k] for k in occ], total, shortest)


def place_apart(
    sites: Floats,
    cell: Floats,
    counts: dict[str, int],
    charges: dict[str, float],
    rng: np.random.Generator,
    *,
    allowed: dict[str, NDArray[np.bool_]] | None = None,
    site_energy: dict[str, Floats] | None = None,
    distance: float = 2.0,
    coldest: float = 0.02,
    attempts: int = 6,
) -> Occupation:
    """As `place`, annealed anew, each time twice as slowly, until no two ions are closer than `distance` Å.

    After `attempts` the arrangement with the longest shortest distance is taken: its `shortest_distance` tells.
    """
    best: Occupation | None = None
    for attempt in range(attempts):
        trial = place(
            sites, cell, counts, charges, rng,
            allowed=allowed, site_energy=site_energy, coldest=coldest,
            steps_per_site=200 * 2**attempt,
        )  # fmt: skip
        if best is None or trial.shortest_distance > best.shortest_distance:
            best = trial
        if best.shortest_distance >= distance:
            break
    assert best is not None
    return best


def push_apart(
    positions: Floats,
    cell: Floats,
    kind: Ints,
    distances: Floats,
    *,
    movable: NDArray[np.bool_] | None = None,
    max_iterations: int = 4000,
) -> tuple[Floats, float]:
    """Move points of a periodic set until no pair is closer than its minimal distance.

    `positions` (n, 3) Å, `kind` (n,) indices into `distances` (k, k) Å, `movable` (n,) points that may move. Each
    overlapping pair shares the push. Returns the new positions and the largest remaining overlap (Å, 0 if none).
    """
    x, cell = np.array(positions, dtype=float), np.asarray(cell, dtype=float)
    free = np.ones(len(x)) if movable is None else np.asarray(movable, dtype=float)
    reach, skin = float(distances.max()), 0.8
    worst, listed = 0.0, None
    for _ in range(max_iterations):
        if listed is None or np.max(np.linalg.norm(x - listed, axis=1)) > 0.45 * skin:
            listed = x.copy()
            i, j, shift = primitive_neighbor_list("ijS", [True] * 3, cell, x, reach + skin)
            half = i < j
            i, j, offset = i[half], j[half], shift[half] @ cell
        step = x[i] - x[j] - offset
        d = np.maximum(np.linalg.norm(step, axis=1), 1e-6)
        overlap = distances[kind[i], kind[j]] - d
        share = free[i] + free[j]
        bad = (overlap > 0) & (share > 0)
        if not bad.any():
            return x, 0.0
        worst = float(overlap[bad].max())
        # A little more than the overlap, so that the last contacts open in few rounds.
        push = (0.6 * (overlap[bad] + 0.02) / d[bad] / share[bad])[:, None] * step[bad]
        np.add.at(x, i[bad], free[i[bad], None] * push)
        np.add.at(x, j[bad], -free[j[bad], None] * push)
    return x, worst


def sorted_atoms(symbols: Sequence[str], positions: Floats, cell: Floats, order: Sequence[str]) -> Atoms:
    """A periodic structure with its atoms grouped by element in the given order (others after, alphabetically)."""
    rank = {s: k for k, s in enumerate([*order, *sorted(set(symbols) - set(order))])}
    index = np.argsort([rank[s] for s in symbols], kind="stable")
    atoms = Atoms([symbols[k] for k in index], positions=np.asarray(positions)[index], cell=cell, pbc=True)
    atoms.wrap()
    return atoms
