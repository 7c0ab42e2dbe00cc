"""Metropolis swaps of atoms at one temperature, with the energies of a moment tensor potential.

Three moves, each its own reverse, tried one at a time with pair and partners drawn evenly:

- exchange: two atoms of different species take each other's positions;
- translate: two atoms are carried by the vector between their lattice sites, each keeping its displacement from the
  site; refused unless each is then nearest to the other's site, or the way back would be another move;
- vacancy: one atom is carried to a lattice site that holds none, from a site that held it alone.

Each is accepted with min(1, exp(-ΔU/kT)), which leaves exp(-U/kT) unchanged: the number of atoms of a species and,
for vacancies, of empty sites is the same before and after, so that proposals are symmetric. Momenta stay with their
atoms. Moves that bring two atoms closer than any MD does are refused: a potential was never trained there and may have
deep holes, which swaps, unlike MD, reach in one step. Positions as fractions of the cell, lengths in Å, energies in eV.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from atomistic.cells import minimal_distance
from atomistic.errors import GeometryError, InputError
from atomistic.learning_cells import BOLTZMANN_EV
from atomistic.mtp.core import RepulsiveCore
from atomistic.mtp.local import LocalEnergies, keep_move, move_energy, undo_move
from atomistic.mtp.neighbours import FloatArray, IntArray, compiled
from atomistic.mtp.potential import MTPotential
from atomistic.sampling import VACANCY

if TYPE_CHECKING:
    from ase import Atoms

EXCHANGE, TRANSLATE, TO_VACANCY = 0, 1, 2
CONTACT_SHARE = 0.8
"""Of about 90 % of a bond's length: shorter than what hot MD of these oxides reaches."""


class _Lattice(NamedTuple):
    """Sites as fractions (m, 3); site of every atom (-1: none), atoms per site, empty sites, their place there."""

    sites: FloatArray
    site_of: IntArray
    held: IntArray
    empty: IntArray
    listed: IntArray


@compiled
def _nearest(fraction: Any, sites: Any, cell: Any) -> Any:
    """The site nearest to a point, by the image nearest in fractions."""
    best, chosen = np.inf, -1
    for s in range(sites.shape[0]):
        u = fraction[0] - sites[s, 0]
        v = fraction[1] - sites[s, 1]
        w = fraction[2] - sites[s, 2]
        u -= np.rint(u)
        v -= np.rint(v)
        w -= np.rint(w)
        x = u * cell[0, 0] + v * cell[1, 0] + w * cell[2, 0]
        y = u * cell[0, 1] + v * cell[1, 1] + w * cell[2, 1]
        z = u * cell[0, 2] + v * cell[1, 2] + w * cell[2, 2]
        squared = x * x + y * y + z * z
        if squared < best:
            best, chosen = squared, s
    return chosen


@compiled
def _attempts(
    uniform: Any, kinds: Any, first: Any, second: Any, members: Any, beta: Any, closest: Any,
    lattice: Any, n_empty: Any, bins: Any, model: Any, work: Any, found: Any,
    energies: Any, marked: Any, touched: Any, trial: Any, counts: Any,
) -> Any:  # fmt: skip
    """Tries uniform.shape[0] swaps; returns the energy change kept, nan where the neighbours do not fit.

    first, second: (pairs, 2) ranges of `members`; counts (pairs, 2) of attempts and acceptances.
    """
    total = 0.0
    moved = np.empty(2, np.int64)
    new = np.empty((2, 3))
    old = np.empty((2, 3))
    sites = lattice.sites
    for t in range(uniform.shape[0]):
        p = min(int(uniform[t, 0] * kinds.size), kinds.size - 1)
        counts[p, 0] += 1
        n = first[p, 1] - first[p, 0]
        a = members[first[p, 0] + min(int(uniform[t, 1] * n), n - 1)]
        moved[0] = a
        count = 2
        b = -1
        target = -1
        if kinds[p] == TO_VACANCY:
            if n_empty == 0:
                continue
            origin = lattice.site_of[a]
            if lattice.held[origin] != 1:
                continue
            target = lattice.empty[min(int(uniform[t, 2] * n_empty), n_empty - 1)]
            count = 1
            for k in range(3):
                new[0, k] = bins.fractions[a, k] + sites[target, k] - sites[origin, k]
            if _nearest(new[0], sites, bins.cell) != target:
                continue
        else:
            m = second[p, 1] - second[p, 0]
            b = members[second[p, 0] + min(int(uniform[t, 2] * m), m - 1)]
            moved[1] = b
            if kinds[p] == EXCHANGE:
                for k in range(3):
                    new[0, k] = bins.fractions[b, k]
                    new[1, k] = bins.fractions[a, k]
            else:
                here, there = lattice.site_of[a], lattice.site_of[b]
                if here == there:
                    continue
                for k in range(3):
                    new[0, k] = bins.fractions[a, k] + sites[there, k] - sites[here, k]
                    new[1, k] = bins.fractions[b, k] + sites[here, k] - sites[there, k]
                if _nearest(new[0], sites, bins.cell) != there or _nearest(new[1], sites, bins.cell) != here:
                    continue
        change, n_touched = move_energy(
            moved, count, new, old, closest, bins, model, work, found, energies, marked, touched, trial
        )
        if np.isnan(change):
            return np.nan
        if change <= 0.0 or uniform[t, 3] < np.exp(-beta * change):
            keep_move(n_touched, touched, trial, energies)
            total += change
            counts[p, 1] += 1
            if kinds[p] == TO_VACANCY:
                origin = lattice.site_of[a]
                lattice.held[origin] = 0
                lattice.held[target] = 1
                lattice.site_of[a] = target
                at = lattice.listed[target]
                lattice.empty[at] = origin
                lattice.listed[origin] = at
                lattice.listed[target] = -1
            elif sites.shape[0] > 0:
                here = lattice.site_of[a]
                lattice.site_of[a] = lattice.site_of[b]
                lattice.site_of[b] = here
        else:
            undo_move(moved, count, old, bins)
    return total


@dataclass(frozen=True)
class Swaps:
    """What a call of `SwapSampler.run` did.

    fractions: (n, 3) in [0, 1); energy: of the structure after it, eV; change: of the energy; attempts, accepted:
    (pairs,) numbers.
    """

    fractions: FloatArray
    energy: float
    change: float
    attempts: IntArray
    accepted: IntArray


class SwapSampler:
    """Swaps of given pairs in one structure's atoms, wherever they are by now.

    symbols: of the atoms. pairs: of species, or a species and "vacancy". temperature: K. moves: of pairs of species
    on the sites; other pairs exchange.
    sites: fractions (m, 3) of the lattice sites, needed by "translate" and vacancies; the species in `on_sites` stand
    on them (default: all species of the pairs). contact: no swap may go below this share of the pair's
    `atomistic.cells.minimal_distance`.

    Raises InputError for pairs the structure lacks, or without sites where they are needed.
    """

    def __init__(
        self,
        potential: MTPotential,
        symbols: Sequence[str],
        pairs: Sequence[tuple[str, str]],
        temperature: float,
        *,
        moves: Literal["exchange", "translate"] = "exchange",
        sites: npt.ArrayLike | None = None,
        on_sites: Sequence[str] = (),
        core: RepulsiveCore | None = None,
        contact: float = CONTACT_SHARE,
    ) -> None:
        if not temperature > 0:
            raise InputError("temperature", temperature, "give kelvin above zero")
        if not pairs:
            raise InputError("pairs", list(pairs), "give at least one pair")
        names = np.array(symbols)
        present = sorted(set(symbols))
        for pair in pairs:
            for symbol in pair:
                if symbol != VACANCY and symbol not in present:
                    raise InputError("pairs", list(pair), f"the cell holds {', '.join(present)}")
        self.potential, self.core = potential, core
        self.types = np.array(potential.types_of(list(symbols)), dtype=np.int64)
        self.beta = 1.0 / (BOLTZMANN_EV * temperature)
        if not 0 <= contact <= 1:
            raise InputError("contact", contact, "0 to 1")
        shortest = [[minimal_distance(a, b) for b in potential.species] for a in potential.species]
        self.closest = (contact * np.array(shortest)) ** 2
        wanted = sorted({s for pair in pairs for s in pair if s != VACANCY})
        standing = set(on_sites) or set(wanted)
        kinds = [EXCHANGE] * len(pairs)
        for k, pair in enumerate(pairs):
            if pair[1] == VACANCY:
                kinds[k] = TO_VACANCY
            elif moves == "translate" and standing & set(pair):
                kinds[k] = TRANSLATE
        self.kinds = np.array(kinds, dtype=np.int64)
        start: dict[str, tuple[int, int]] = {}
        members: list[int] = []
        for symbol in wanted:
            chosen = np.flatnonzero(names == symbol).tolist()
            start[symbol] = (len(members), len(members) + len(chosen))
            members += chosen
        self.members = np.array(members, dtype=np.int64)
        self.first = np.array([start[a] for a, _ in pairs], dtype=np.int64)
        self.second = np.array([start.get(b, (0, 0)) for _, b in pairs], dtype=np.int64)
        needs_sites = TO_VACANCY in kinds or TRANSLATE in kinds
        self.sites = np.zeros((0, 3)) if sites is None else np.array(sites, dtype=np.float64).reshape(-1, 3)
        if needs_sites and not len(self.sites):
            raise InputError(
                "sites", None, "swaps with vacancies, and moves = 'translate', need lattice sites"
            )
        stand = np.isin(names, sorted(standing))
        bound = {s for pair, kind in zip(pairs, kinds, strict=True) if kind != EXCHANGE for s in pair}
        missing = sorted(bound - {VACANCY} - standing)
        if missing:
            raise InputError(
                "on_sites", list(on_sites), f"{', '.join(missing)} are swapped and belong to them"
            )
        self.stand = np.flatnonzero(stand) if len(self.sites) else np.zeros(0, dtype=np.int64)

    def _lattice(self, fractions: FloatArray, cell: FloatArray, offset: FloatArray) -> tuple[_Lattice, int]:
        sites = self.sites + offset
        site_of = np.full(len(fractions), -1, dtype=np.int64)
        held = np.zeros(len(sites), dtype=np.int64)
        for atom in self.stand:
            site_of[atom] = _nearest(fractions[atom], sites, cell)
            held[site_of[atom]] += 1
        free = np.flatnonzero(held == 0)
        empty = np.full(max(len(sites), 1), -1, dtype=np.int64)
        empty[: len(free)] = free
        listed = np.full(len(sites), -1, dtype=np.int64)
        listed[free] = np.arange(len(free))
        return _Lattice(sites, site_of, held, empty, listed), len(free)

    def run(
        self,
        fractions: npt.ArrayLike,
        cell: npt.ArrayLike,
        attempts: int,
        rng: np.random.Generator,
        *,
        offset: npt.ArrayLike = (0.0, 0.0, 0.0),
    ) -> Swaps:
        """Try `attempts` swaps on atoms at `fractions` (n, 3) of `cell` (3, 3) Å.

        offset: of the lattice sites, as a fraction, where the host lattice has drifted. Raises GeometryError where more
        than 1000 atoms lie within the cutoff of one.
        """
        state = LocalEnergies(self.potential, fractions, self.types, cell, self.core)
        lattice, n_empty = self._lattice(
            state.fractions, state.bins.cell, np.asarray(offset, dtype=np.float64)
        )
        counts = np.zeros((len(self.kinds), 2), dtype=np.int64)
        change = _attempts(
            rng.random((attempts, 4)), self.kinds, self.first, self.second, self.members, self.beta,
            self.closest, lattice, n_empty, state.bins, state.model, state.work, state.found,
            state.energies, state.marked, state.touched, state.trial, counts,
        )  # fmt: skip
        if np.isnan(change):
            raise GeometryError("a swap brought more than 1000 atoms within the cutoff of one")
        return Swaps(
            state.fractions.copy(), float(state.energies.sum()), float(change), counts[:, 0], counts[:, 1]
        )


def lattice_sites(
    atoms: Atoms, species: Sequence[str], *, mobile: Sequence[str] = ("Li",), share: float = 0.85
) -> FloatArray:
    """Fractions (m, 3) of the lattice sites of `species`: the places they hold and the voids like them.

    Corners of the Voronoi cells of the host (all atoms but `species` and `mobile`) are taken in the order of their
    distance from it, none within 0.6 of that distance of one taken before, as long as it is at least `share` of what
    the lowest tenth of the species' own atoms have. Best given a time-averaged structure. Raises InputError without
    the species or a host.
    """
    from scipy.spatial import Voronoi, cKDTree

    names = np.array(atoms.get_chemical_symbols())
    own = np.isin(names, list(species))
    host = ~own & ~np.isin(names, list(mobile))
    for symbol in species:
        if symbol not in names:
            raise InputError(
                "sites", list(species), f"species of the cell: {', '.join(sorted(set(names.tolist())))}"
            )
    if host.sum() < 4:
        raise InputError("sites", list(species), "too few other atoms are left to be their host")
    cell = np.asarray(atoms.cell.array, dtype=np.float64)
    inverse = np.linalg.inv(cell)
    scaled = np.asarray(atoms.get_scaled_positions(wrap=True), dtype=np.float64)
    margin = np.minimum(7.0 * np.linalg.norm(inverse, axis=0), 2.0)
    points = _images(scaled[host], margin)[0] @ cell
    corners = np.asarray(Voronoi(points).vertices) @ inverse
    corners = corners[np.all((corners > -0.02) & (corners < 1.02), axis=1)]
    corners -= np.floor(corners)
    tree = cKDTree(points)
    clearance = tree.query(corners @ cell)[0]
    held = tree.query(scaled[own] @ cell)[0]
    enough = share * float(np.quantile(held, 0.1))
    order = np.argsort(-clearance, kind="stable")
    order = order[clearance[order] >= enough]
    chosen: list[int] = []
    corners, clearance = corners[order], clearance[order]
    if not len(order):
        raise InputError(
            "sites", list(species), "the host has no voids like their places; check the structure"
        )
    widest = 0.6 * float(clearance[0])
    images, owners = _images(corners, np.minimum(widest * np.linalg.norm(inverse, axis=0), 2.0))
    near = cKDTree(images @ cell)
    refused = np.zeros(len(corners), dtype=bool)
    for k, corner in enumerate(corners):
        if not refused[k]:
            chosen.append(k)
            refused[owners[near.query_ball_point(corner @ cell, 0.6 * float(clearance[k]))]] = True
    found: FloatArray = corners[chosen]
    return found


def _images(scaled: FloatArray, margin: FloatArray) -> tuple[FloatArray, IntArray]:
    """Points with their copies within `margin` (fractions) of the cell, and the index of each one's original."""
    parts, owners = [scaled], [np.arange(len(scaled))]
    most = np.ceil(margin).astype(int)
    for shift in np.ndindex(*(2 * most + 1)):
        step = np.array(shift) - most
        if not step.any():
            continue
        moved = scaled + step
        keep = np.all((moved > -margin) & (moved < 1 + margin), axis=1)
        parts.append(moved[keep])
        owners.append(np.flatnonzero(keep))
    return np.vstack(parts), np.concatenate(owners)
