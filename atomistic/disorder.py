"""Ordered cells from any CIF with partial occupancies: whole numbers of atoms, neutral, at minimal repulsion.

The counts on every kind of site are those nearest the CIF's occupancies that make the supercell neutral; where rounding
alone cannot, the balancing ion (Li) changes by as little as needed, and the result says by how much. Lengths in Å.
"""

from __future__ import annotations

import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.data import atomic_numbers
from numpy.typing import NDArray

from atomistic.cells import DISORDER, SPECIES_ORDER, VALENCE
from atomistic.errors import CompositionError, FileFormatError, InputError
from atomistic.lattice_gas import VACANCY, neighbours, place_apart, sorted_atoms

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_FULL = 0.995
_LARGEST_FILE = 5_000_000
_MOST_COMBINATIONS = 200_000
_CLOSEST = 1.2


@dataclass(frozen=True)
class DisorderedCrystal:
    """A crystal with partial occupancies: positions (n, 3) Å, kind (n,) of each site, occupancy by element per kind."""

    cell: Floats
    positions: Floats
    kind: Ints
    occupancies: tuple[dict[str, float], ...]

    @property
    def formula(self) -> dict[str, float]:
        """Atoms by element in the unit cell, fractional."""
        total: dict[str, float] = {}
        for k, occupancy in enumerate(self.occupancies):
            for element, share in occupancy.items():
                total[element] = total.get(element, 0.0) + share * float(np.sum(self.kind == k))
        return total


def read_cif(path: str | Path) -> DisorderedCrystal:
    """Sites and occupancies of the first structure in a CIF, symmetry applied.

    Raises FileFormatError naming the file where it cannot be read as a structure, CompositionError where occupancies
    are negative or add up to more than one.
    """
    from ase.io import read

    path = Path(path)
    if path.is_dir():
        raise FileFormatError(path, None, "is a folder", "give a CIF of one structure")
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise FileFormatError(path, None, "larger than 5 MB", "give a CIF of one structure")
    except OSError as error:
        raise FileFormatError(
            path, None, f"cannot be read ({error.strerror})", "give a readable file"
        ) from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            atoms = read(str(path), index=0, format="cif", fractional_occupancies=True)
        assert isinstance(atoms, Atoms)
        cell = np.asarray(atoms.cell.array, dtype=float)
        kinds = np.asarray(atoms.arrays["spacegroup_kinds"], dtype=np.int64)
        occupancy_of = {int(k): dict(v) for k, v in atoms.info["occupancy"].items()}
        positions = np.asarray(atoms.positions, dtype=float)
    except Exception as error:
        # The reader raises whatever its parsing trips over; to the user they are all one thing.
        raise FileFormatError(
            path, None, f"is not a crystal structure ({str(error)[:120] or 'no structure in it'})",
            "check cell, symmetry and the _atom_site loop",
        ) from error  # fmt: skip
    if not (np.all(np.isfinite(cell)) and np.all(np.isfinite(positions)) and abs(np.linalg.det(cell)) > 1.0):
        raise FileFormatError(
            path, None, "cell or coordinates are not usable numbers", "check the _cell_ entries"
        )
    levels = sorted(set(kinds.tolist()))
    occupancies = []
    for level in levels:
        occupancy = {str(s): float(x) for s, x in occupancy_of.get(level, {}).items()}
        for element, share in occupancy.items():
            if element not in atomic_numbers or not (math.isfinite(share) and -1e-9 <= share <= 1.02):
                raise CompositionError(f"{path}: occupancy {share:g} of {element} on a site; give 0 to 1")
        if not occupancy or sum(occupancy.values()) > 1.02:
            raise CompositionError(
                f"{path}: occupancies of a site add up to {sum(occupancy.values()):.3g} ({occupancy}); at most 1"
            )
        occupancies.append({s: x for s, x in occupancy.items() if x > 1e-6})
    kind = np.searchsorted(np.array(levels), kinds).astype(np.int64)
    return DisorderedCrystal(cell, positions, kind, tuple(occupancies))


def order_crystal(
    crystal: DisorderedCrystal,
    *,
    rng: np.random.Generator,
    repeat: Sequence[int] = (1, 1, 1),
    balance: str | None = "Li",
    max_change: float = 0.2,
    valences: Mapping[str, int] | None = None,
) -> Atoms:
    """One ordered, neutral arrangement of a disordered crystal; another generator state gives another.

    `repeat` of the unit cell; `balance` the ion whose number may change beyond rounding (None: none may), by
    at most `max_change` of its number or one atom; `valences`
    formal charges that replace the tabulated ones. The balancing ion is spread over all its sites at minimal
    repulsion, other elements keep the numbers of their own kind of site. `atoms.info["composition_change"]` holds what
    was added to the CIF's composition, by element, in atoms per cell.

    Raises CompositionError when no neutral arrangement exists: unknown valence, negative Li, too few sites, or atoms
    that stay closer than 1.2 Å.
    """
    copies = tuple(int(n) for n in repeat)
    if len(copies) != 3 or any(n < 1 or n > 50 for n in copies):
        raise InputError("repeat", tuple(repeat), "give three whole numbers from 1 to 50")
    charge_of = {**VALENCE, **(valences or {})}
    for occupancy in crystal.occupancies:
        for element in occupancy:
            if element not in charge_of:
                raise CompositionError(f"{element}: no formal charge is known; give it in `valences`")
    number = copies[0] * copies[1] * copies[2]
    base = Atoms(f"X{len(crystal.positions)}", positions=crystal.positions, cell=crystal.cell, pbc=True)
    supercell = base.repeat(copies)
    kind = np.tile(crystal.kind, number)
    size = np.bincount(kind, minlength=len(crystal.occupancies))
    counts, change = _whole_counts(crystal.occupancies, size, charge_of, balance, max_change)
    fixed = np.array([_is_full(o) for o in crystal.occupancies])[kind]
    symbols = [next(iter(crystal.occupancies[k])) for k in kind[fixed]]
    sites, site_kind = supercell.positions[~fixed], kind[~fixed]
    names: dict[str, int] = {}
    allowed: dict[str, NDArray[np.bool_]] = {}
    favour: dict[str, Floats] = {}
    charges: dict[str, float] = {}
    for (k, element), count in counts.items():
        if _is_full(crystal.occupancies[k]):
            continue
        # The balancing ion is one population over all its sites; others stay on their own kind.
        name = element if element == balance else f"{element}@{k}"
        names[name] = names.get(name, 0) + count
        mine = site_kind == k
        share = min(max(crystal.occupancies[k][element], 0.02), 0.98)
        allowed[name] = allowed.get(name, np.zeros(len(sites), dtype=bool)) | mine
        favour[name] = (
            favour.get(name, np.zeros(len(sites))) - DISORDER * math.log(share / (1 - share)) * mine
        )
        charges[name] = float(charge_of[element])
    filled = place_apart(
        sites, supercell.cell.array, names, charges, rng, allowed=allowed, site_energy=favour, coldest=DISORDER / 2,
        distance=1.9,
    )  # fmt: skip
    taken = [k for k, s in enumerate(filled.species) if s != VACANCY]
    symbols += [filled.species[k].split("@")[0] for k in taken]
    positions = np.vstack([supercell.positions[fixed], sites[taken]])
    _, _, distance = neighbours(positions, supercell.cell.array, 2.0)
    if len(distance) and distance.min() < _CLOSEST:
        raise CompositionError(
            f"the crystal cannot be ordered: atoms stay {distance.min():.2f} Å apart; check that close sites' "
            "occupancies can be filled one at a time, or take a larger supercell"
        )
    atoms = sorted_atoms(symbols, positions, supercell.cell.array, SPECIES_ORDER)
    atoms.info["composition_change"] = change
    return atoms


def _is_full(occupancy: Mapping[str, float]) -> bool:
    return len(occupancy) == 1 and next(iter(occupancy.values())) >= _FULL


def _whole_counts(
    occupancies: Sequence[Mapping[str, float]],
    size: Ints,
    charge_of: Mapping[str, int],
    balance: str | None,
    max_change: float,
) -> tuple[dict[tuple[int, str], int], dict[str, float]]:
    """Numbers of atoms by (kind, element), neutral and nearest the occupancies, and the change of composition."""
    target = {(k, s): x * float(size[k]) for k, o in enumerate(occupancies) for s, x in o.items()}
    for k, occupancy in enumerate(occupancies):
        if _is_full(occupancy):
            target[k, next(iter(occupancy))] = float(size[k])
    loose = [key for key, x in target.items() if abs(x - round(x)) > 1e-6 * max(1.0, x)]
    settled = {key: round(x) for key, x in target.items() if key not in loose}
    if 2 ** len(loose) > _MOST_COMBINATIONS:
        raise CompositionError(
            f"{len(loose)} partial occupancies are too many to round together; merge sites of one kind or take a "
            "supercell in which more of them are whole numbers"
        )
    filled = np.array([sum(o.values()) >= _FULL for o in occupancies])
    neutral = fitting = None
    least_neutral = least_fitting = math.inf
    for choice in itertools.product((0, 1), repeat=len(loose)):
        trial = {
            **settled,
            **{key: math.floor(target[key]) + c for key, c in zip(loose, choice, strict=True)},
        }
        deviation = sum((trial[key] - target[key]) ** 2 for key in loose)
        if deviation >= least_neutral or not _fits(trial, size, filled):
            continue
        if _charge(trial, charge_of) == 0:
            neutral, least_neutral = trial, deviation
        if deviation < least_fitting:
            fitting, least_fitting = trial, deviation
    if fitting is None:
        raise CompositionError(
            "the occupancies cannot be rounded to whole atoms on their sites; take a larger supercell"
        )
    best = _balanced(target, fitting, size, charge_of, balance, max_change) if neutral is None else neutral
    change: dict[str, float] = {}
    for key, x in target.items():
        change[key[1]] = change.get(key[1], 0.0) + best[key] - x
    return best, {s: round(x, 6) for s, x in change.items() if abs(x) > 1e-6}


def _charge(counts: Mapping[tuple[int, str], int], charge_of: Mapping[str, int]) -> int:
    return sum(n * charge_of[s] for (_, s), n in counts.items())


def _fits(counts: Mapping[tuple[int, str], int], size: Ints, filled: NDArray[np.bool_]) -> bool:
    used = np.zeros(len(size), dtype=np.int64)
    for (k, _), n in counts.items():
        used[k] += n
    return bool(np.all(used <= size) and np.all(used[filled] == size[filled]))


def _balanced(
    target: Mapping[tuple[int, str], float], counts: Mapping[tuple[int, str], int], size: Ints,
    charge_of: Mapping[str, int], balance: str | None, max_change: float,
) -> dict[tuple[int, str], int]:  # fmt: skip
    mine = [key for key in counts if key[1] == balance]
    charge = _charge(counts, charge_of)
    if balance is None or not mine:
        raise CompositionError(
            f"no rounding of the occupancies is neutral (charge {charge:+d}); take a larger supercell or name an ion "
            "present in the crystal that may balance"
        )
    wanted, rest = divmod(-charge, charge_of[balance])
    if rest:
        raise CompositionError(f"charge {charge:+d} cannot be balanced by {balance}; take a larger supercell")
    present = sum(counts[key] for key in mine)
    total = present + wanted
    if total < 0:
        raise CompositionError(
            f"neutrality needs {total} {balance} (the CIF has {present}): negative; its charges do not add up"
        )
    intended = sum(target[key] for key in mine)
    if abs(total - intended) > max(1.0, max_change * intended):
        raise CompositionError(
            f"neutrality needs {total} {balance} where the CIF has {intended:.4g}; its charges do not add up, or the "
            "supercell is too small to round its occupancies"
        )
    free = {
        k: int(size[k]) - sum(n for (kk, s), n in counts.items() if kk == k and s != balance) for k, _ in mine
    }
    room = sum(free.values())
    if total > room:
        raise CompositionError(
            f"neutrality needs {total} {balance} on {room} sites; the composition cannot be ordered"
        )
    weights = np.array([max(target[key], 1e-9) for key in mine])
    shares = np.floor(weights / weights.sum() * total).astype(int)
    numbers = {key: min(int(n), free[key[0]]) for key, n in zip(mine, shares, strict=True)}
    # What rounding left goes where the most room is.
    while sum(numbers.values()) < total:
        key = max(mine, key=lambda q: free[q[0]] - numbers[q])
        numbers[key] += 1
    return {**counts, **numbers}


def cell_from_cif(
    path: str | Path,
    *,
    rng: np.random.Generator,
    repeat: Sequence[int] = (1, 1, 1),
    balance: str | None = "Li",
    max_change: float = 0.2,
    valences: Mapping[str, int] | None = None,
) -> Atoms:
    """`read_cif` and `order_crystal` in one."""
    atoms = order_crystal(
        read_cif(path), rng=rng, repeat=repeat, balance=balance, max_change=max_change, valences=valences
    )
    atoms.info["material"] = Path(path).stem
    return atoms
