"""Energy changes of a moment tensor potential when a few atoms move: only the atoms nearby are evaluated again.

The energy is a sum over atoms, each of which sees its neighbours within the cutoff. Moving atoms far (a Monte Carlo
exchange) changes the energies of those within the cutoff of the old and new places, about a hundred atoms whatever the
size of the cell. Atoms are kept in bins of the cell; periodic images are walked through, so any cell works.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from atomistic.errors import GeometryError
from atomistic.mtp.core import RepulsiveCore
from atomistic.mtp.kernel import (
    _add_core,
    _moments,
    _radial,
    _workspace,
    build_model,
)
from atomistic.mtp.neighbours import FloatArray, IntArray, compiled, inlined
from atomistic.mtp.potential import MTPotential

MOST_NEIGHBOURS = 1000


class Bins(NamedTuple):
    """Atoms by bin of the cell: fractions (n, 3) in [0, 1), positions (n, 3) Å, types, doubly linked lists, lattice.

    head: (bins) first atom or -1; after, before, where: (n,) next and previous atom of the same bin, and the bin.
    counts: bins along each vector; reach: bins to walk in each direction.
    """

    fractions: FloatArray
    positions: FloatArray
    types: IntArray
    head: IntArray
    after: IntArray
    before: IntArray
    where: IntArray
    cell: FloatArray
    counts: IntArray
    reach: IntArray


class Found(NamedTuple):
    """Room for the neighbours of one place: vectors, squared distances, atoms, and the fill of each type."""

    vector: FloatArray
    squared: FloatArray
    atom: IntArray
    slots: IntArray


@inlined
def _bin_of(fractions: Any, i: Any, counts: Any) -> Any:
    a = min(int(fractions[i, 0] * counts[0]), counts[0] - 1)
    b = min(int(fractions[i, 1] * counts[1]), counts[1] - 1)
    c = min(int(fractions[i, 2] * counts[2]), counts[2] - 1)
    return (a * counts[1] + b) * counts[2] + c


@compiled
def _insert(bins: Any, i: Any) -> Any:
    place = _bin_of(bins.fractions, i, bins.counts)
    first = bins.head[place]
    bins.where[i] = place
    bins.before[i] = -1
    bins.after[i] = first
    if first >= 0:
        bins.before[first] = i
    bins.head[place] = i
    for a in range(3):
        bins.positions[i, a] = 0.0
        for b in range(3):
            bins.positions[i, a] += bins.fractions[i, b] * bins.cell[b, a]


@compiled
def _remove(bins: Any, i: Any) -> Any:
    left, right = bins.before[i], bins.after[i]
    if left >= 0:
        bins.after[left] = right
    else:
        bins.head[bins.where[i]] = right
    if right >= 0:
        bins.before[right] = left


@compiled
def _fill(bins: Any) -> Any:
    bins.head[:] = -1
    for i in range(bins.types.size - 1, -1, -1):
        _insert(bins, i)


@inlined
def _around(i: Any, bins: Any, cutoff: Any, found: Any) -> Any:
    """Atoms within the cutoff of atom i, images of i itself included; their number, -1 where there are too many."""
    cell, counts, reach, positions = bins.cell, bins.counts, bins.reach, bins.positions
    limit = cutoff * cutoff
    place = bins.where[i]
    c_first = place % counts[2] - reach[2]
    b_first = (place // counts[2]) % counts[1] - reach[1]
    a_first = place // (counts[2] * counts[1]) - reach[0]
    xi, yi, zi = positions[i, 0], positions[i, 1], positions[i, 2]
    n = 0
    for a in range(a_first, a_first + 2 * reach[0] + 1):
        sa = a // counts[0]
        for b in range(b_first, b_first + 2 * reach[1] + 1):
            sb = b // counts[1]
            row = ((a - sa * counts[0]) * counts[1] + b - sb * counts[1]) * counts[2]
            sc = c_first // counts[2]
            c = c_first - sc * counts[2]
            for _ in range(2 * reach[2] + 1):
                if c == counts[2]:
                    c = 0
                    sc += 1
                j = bins.head[row + c]
                c += 1
                if j < 0:
                    continue
                x0 = sa * cell[0, 0] + sb * cell[1, 0] + sc * cell[2, 0] - xi
                y0 = sa * cell[0, 1] + sb * cell[1, 1] + sc * cell[2, 1] - yi
                z0 = sa * cell[0, 2] + sb * cell[1, 2] + sc * cell[2, 2] - zi
                own = sa == 0 and sb == 0 and sc == 0
                while j >= 0:
                    x = positions[j, 0] + x0
                    y = positions[j, 1] + y0
                    z = positions[j, 2] + z0
                    squared = x * x + y * y + z * z
                    if squared < limit and not (own and j == i):
                        if n == found.atom.size:
                            return -1
                        found.vector[0, n] = x
                        found.vector[1, n] = y
                        found.vector[2, n] = z
                        found.squared[n] = squared
                        found.atom[n] = j
                        n += 1
                    j = bins.after[j]
    return n


@inlined
def _site_energy(i: Any, n: Any, bins: Any, model: Any, work: Any, found: Any) -> Any:
    """Energy of atom i among the n neighbours found."""
    types, slots = bins.types, found.slots
    limit = model.cutoff * model.cutoff
    slots[:] = 0
    for k in range(n):
        slots[types[found.atom[k]]] += 1
    # Every type begins at a multiple of 8 and the whole ends at one of 32, filled with atoms on the cutoff.
    count = 0
    for t in range(slots.size):
        held = slots[t]
        work.bound[t] = count
        slots[t] = count
        end = count + (held + 7) // 8 * 8
        if t == slots.size - 1:
            end = (end + 31) // 32 * 32
        for k in range(count + held, end):
            work.unit[0, k] = 0.0
            work.unit[1, k] = 0.0
            work.unit[2, k] = 0.0
            work.r[k] = limit
            work.near[k] = -1
        count = end
    work.bound[slots.size] = count
    for k in range(n):
        t = types[found.atom[k]]
        at = slots[t]
        slots[t] = at + 1
        work.unit[0, at] = found.vector[0, k]
        work.unit[1, at] = found.vector[1, k]
        work.unit[2, at] = found.vector[2, k]
        work.r[at] = found.squared[k]
        work.near[at] = found.atom[k]
    zi = types[i]
    _radial(count, model, model.coefficients[zi], work)
    _moments(count, model, work)
    energy = model.species_energy[zi]
    for s in range(model.mapping.size):
        energy += model.xi[s] * work.m[model.mapping[s]]
    if model.use_core:
        energy += _add_core(zi, count, types, model, work)
    return energy


@compiled
def site_energies(
    which: Any, count: Any, check: Any, closest: Any, bins: Any, model: Any, work: Any, found: Any, out: Any
) -> Any:
    """Energies of the atoms which[:count] into out[:count].

    With `check`, ends with infinity where one has a neighbour closer than `closest` (species, species), squared,
    allows; nan where it has too many; else 0.
    """
    for index in range(count):
        i = which[index]
        n = _around(i, bins, model.cutoff, found)
        if n < 0:
            return np.nan
        if check:
            for k in range(n):
                if found.squared[k] < closest[bins.types[i], bins.types[found.atom[k]]]:
                    return np.inf
        out[index] = _site_energy(i, n, bins, model, work, found)
    return 0.0


@compiled
def _mark(
    which: Any, count: Any, bins: Any, cutoff: Any, found: Any, marked: Any, touched: Any, n: Any
) -> Any:
    """Adds the atoms which[:count] and all within the cutoff of them to `touched`; its new length, -1 without room."""
    for index in range(count):
        i = which[index]
        near = _around(i, bins, cutoff, found)
        if near < 0:
            return -1
        if not marked[i]:
            marked[i] = True
            touched[n] = i
            n += 1
        for k in range(near):
            j = found.atom[k]
            if not marked[j]:
                marked[j] = True
                touched[n] = j
                n += 1
    return n


@compiled
def _place(i: Any, fraction: Any, bins: Any) -> Any:
    _remove(bins, i)
    for a in range(3):
        value = fraction[a] - math.floor(fraction[a])
        # A tiny negative number rounds up to 1.
        bins.fractions[i, a] = value if value < 1.0 else 0.0
    _insert(bins, i)


@compiled
def move_energy(
    moved: Any, count: Any, new: Any, old: Any, closest: Any,
    bins: Any, model: Any, work: Any, found: Any, energies: Any, marked: Any, touched: Any, trial: Any,
) -> Any:  # fmt: skip
    """Moves atoms moved[:count] to fractions new[:count]; the energy change (eV) and how many atoms it touches.

    old receives where they were; touched[:n] the atoms whose energies change and trial[:n] their new energies.
    The change is infinite where an atom comes closer to another than `closest` (species, species), squared, allows, and
    nan beyond the room.
    """
    for k in range(count):
        for a in range(3):
            old[k, a] = bins.fractions[moved[k], a]
    n = _mark(moved, count, bins, model.cutoff, found, marked, touched, 0)
    if n < 0:
        return np.nan, 0
    for k in range(count):
        _place(moved[k], new[k], bins)
    n = _mark(moved, count, bins, model.cutoff, found, marked, touched, n)
    if n < 0:
        return np.nan, 0
    for k in range(n):
        marked[touched[k]] = False
    # The moved atoms first: most refused moves bring two atoms together.
    end = site_energies(moved, count, True, closest, bins, model, work, found, trial)
    if end != 0.0:
        return end, n
    end = site_energies(touched, n, False, closest, bins, model, work, found, trial)
    if end != 0.0:
        return end, n
    change = 0.0
    for k in range(n):
        change += trial[k] - energies[touched[k]]
    return change, n


@compiled
def keep_move(n: Any, touched: Any, trial: Any, energies: Any) -> Any:
    """Takes over the energies of the move just tried."""
    for k in range(n):
        energies[touched[k]] = trial[k]


@compiled
def undo_move(moved: Any, count: Any, old: Any, bins: Any) -> Any:
    """Puts the atoms back where they were."""
    for k in range(count):
        _place(moved[k], old[k], bins)


class LocalEnergies:
    """Energies per atom of one structure, kept up to date while atoms are moved.

    atoms given by fractions (n, 3) of `cell` (3, 3) Å, types (n,) of the potential's species. `energies` (n,) eV.
    Raises GeometryError for a flat cell or more than 1000 neighbours within the cutoff.
    """

    def __init__(
        self,
        potential: MTPotential,
        fractions: npt.ArrayLike,
        types: npt.ArrayLike,
        cell: npt.ArrayLike,
        core: RepulsiveCore | None = None,
    ) -> None:
        box = np.ascontiguousarray(cell, dtype=np.float64)
        inside = np.array(fractions, dtype=np.float64)
        inside -= np.floor(inside)
        inside[inside >= 1.0] = 0.0
        kinds = np.ascontiguousarray(types, dtype=np.int64)
        volume = abs(float(np.linalg.det(box)))
        if not (np.isfinite(inside).all() and volume > 1e-3):
            raise GeometryError("positions or cell are not usable: not finite, or a flat cell")
        heights = 1.0 / np.linalg.norm(np.linalg.inv(box), axis=0)
        counts = np.maximum(1, np.floor(2 * heights / potential.cutoff)).astype(np.int64)
        while np.prod(counts, dtype=float) > 8 * len(kinds) + 27:
            counts = np.maximum(counts // 2, 1)
        reach = np.ceil(potential.cutoff / (heights / counts) - 1e-12).astype(np.int64)
        n = len(kinds)
        after, before, where = (np.full(n, -1, np.int64) for _ in range(3))
        head = np.full(int(np.prod(counts)), -1, np.int64)
        self.bins = Bins(inside, np.empty((n, 3)), kinds, head, after, before, where, box, counts, reach)
        _fill(self.bins)
        self.model = build_model(potential, core)
        self.work = _workspace(self.model, MOST_NEIGHBOURS)
        room = MOST_NEIGHBOURS
        self.found = Found(
            np.empty((3, room)),
            np.empty(room),
            np.empty(room, np.int64),
            np.zeros(potential.species_count, np.int64),
        )
        self.energies = np.empty(n)
        self.marked = np.zeros(n, np.bool_)
        self.touched = np.empty(n, np.int64)
        self.trial = np.empty(max(n, 2))
        everything = np.arange(n)
        self.no_contact = np.zeros((potential.species_count, potential.species_count))
        end = site_energies(
            everything, n, False, self.no_contact, self.bins, self.model, self.work, self.found, self.energies
        )
        if end != 0.0:
            raise GeometryError(f"more than {room} atoms lie within the cutoff of one; the cell is too dense")

    @property
    def fractions(self) -> FloatArray:
        """(n, 3), in [0, 1)."""
        return self.bins.fractions

    def change(self, moved: npt.ArrayLike, new: npt.ArrayLike, *, keep: bool) -> float:
        """Energy change (eV) when atoms `moved` go to fractions `new`; with `keep` they stay there."""
        which = np.atleast_1d(np.asarray(moved, dtype=np.int64))
        to = np.ascontiguousarray(np.atleast_2d(np.asarray(new, dtype=np.float64)))
        old = np.empty_like(to)
        change, n = move_energy(
            which, len(which), to, old, self.no_contact, self.bins, self.model, self.work, self.found,
            self.energies, self.marked, self.touched, self.trial,
        )  # fmt: skip
        if math.isnan(change):
            raise GeometryError(f"more than {MOST_NEIGHBOURS} atoms lie within the cutoff of one")
        if keep:
            keep_move(n, self.touched, self.trial, self.energies)
        else:
            undo_move(which, len(which), old, self.bins)
        return float(change)
