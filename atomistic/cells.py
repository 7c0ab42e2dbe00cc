"""Bulk and amorphous cells of oxide electrolytes: garnet LLZO, perovskites LSTZ and LLTO, with exact charge.

Contents are per formula unit and are rounded to whole atoms of the cell; Li is then the number that makes the cell
neutral, so that it is exact. Every arrangement is drawn from the generator given. Lengths in Å, as in ASE.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from ase import Atoms
from ase.data import atomic_masses, atomic_numbers
from ase.spacegroup import crystal
from numpy.typing import NDArray

from atomistic.errors import CompositionError, InputError
from atomistic.lattice_gas import VACANCY, framework_energy, place, place_apart, push_apart, sorted_atoms

Floats = NDArray[np.float64]

VALENCE: dict[str, int] = {
    "Li": 1, "Na": 1, "K": 1, "Sr": 2, "Ba": 2, "Ca": 2, "Mg": 2, "Zn": 2, "La": 3, "Al": 3, "Ga": 3, "Y": 3,
    "Fe": 3, "Sc": 3, "In": 3, "Nd": 3, "Zr": 4, "Ti": 4, "Hf": 4, "Sn": 4, "Si": 4, "Ge": 4, "Ta": 5, "Nb": 5,
    "Sb": 5, "P": 5, "W": 6, "Mo": 6, "O": -2, "S": -2, "F": -1, "Cl": -1, "Br": -1, "I": -1, "N": -3,
}  # fmt: skip
"""Formal charges, e."""

SPECIES_ORDER = ("Li", "Sr", "La", "Ti", "Zr", "Nb", "Ta", "Al", "Ga", "O")

LLZO_LATTICE_CONSTANT = 12.97
"""Å; cubic Li7La3Zr2O12 near room temperature, J. Awaka et al., Chem. Lett. 40, 60 (2011): 12.9827 Å; with Ta less."""
GARNET_FRAMEWORK = {"La": (1 / 8, 0.0, 1 / 4), "Zr": (0.0, 0.0, 0.0), "O": (0.1003, 0.1955, 0.2809)}
GARNET_TETRAHEDRAL = (3 / 8, 0.0, 1 / 4)
GARNET_OCTAHEDRAL = (0.0982, 0.6853, 0.5770)
"""Fractional coordinates in Ia-3d (230): La 24c, Zr 16a, O 96h; Li 24d and 96h; near those of Awaka 2011."""

PEROVSKITE_LATTICE_CONSTANT = {"LSTZ": 4.00, "LLTO": 3.87}
"""Å, pseudocubic."""

CONTACT = {
    "O": 1.75, "La": 2.6, "Sr": 2.6, "Zr": 2.3, "Ta": 2.3, "Nb": 2.3, "Ti": 2.2, "Al": 2.2, "Ga": 2.2, "Li": 2.0,
}  # fmt: skip
"""Distance, Å, below which a placed Li touches an element (the core energy is then above 1 eV)."""

TETRAHEDRAL_PREFERENCE = 2.0
"""eV by which the model favours 24d: brings the occupancy near the refined one of 0.4 to 0.55."""

DISORDER = 0.2
"""eV at which the annealing of Li in LLZO ends: colder, Li orders as in the tetragonal phase."""

_HOST_VALENCE = {"Ta": 1.0, "Nb": 1.0}


def total_charge(atoms: Atoms) -> int:
    """Sum of the formal charges, e. Raises CompositionError for an element without a tabulated valence."""
    counts: Counter[str] = Counter(atoms.get_chemical_symbols())
    for symbol in counts:
        if symbol not in VALENCE:
            raise CompositionError(
                f"{symbol}: no formal charge is known; known: {', '.join(sorted(VALENCE))}"
            )
    return sum(n * VALENCE[s] for s, n in counts.items())


def _whole(name: str, content: float, units: float, limit: float) -> int:
    if not np.isfinite(content) or content < 0 or content > limit:
        raise InputError(name, content, f"give a content per formula unit from 0 to {limit:g}")
    return round(content * units)


def _repeat(repeat: Sequence[int]) -> tuple[int, int, int]:
    values = tuple(int(n) for n in repeat)
    if len(values) != 3 or any(n < 1 or n > 100 for n in values):
        raise InputError("repeat", tuple(repeat), "give three whole numbers from 1 to 100")
    return values[0], values[1], values[2]


def _lattice_constant(value: float) -> float:
    if not (2.0 < value < 100.0):
        raise InputError("lattice_constant", value, "give a length in Å between 2 and 100")
    return float(value)


def garnet_sites(lattice_constant: float, primitive: bool = False) -> tuple[Atoms, Floats, Floats]:
    """Framework La3Zr2O12 of the cubic garnet and its Li sites 24d and 96h (positions, Å) in the same cell."""
    kwargs = {
        "spacegroup": 230,
        "cellpar": [lattice_constant] * 3 + [90] * 3,
        "primitive_cell": primitive,
    }
    framework = crystal(list(GARNET_FRAMEWORK), list(GARNET_FRAMEWORK.values()), **kwargs)
    tetrahedral = crystal(["Li"], [GARNET_TETRAHEDRAL], **kwargs).positions
    octahedral = crystal(["Li"], [GARNET_OCTAHEDRAL], **kwargs).positions
    plain = Atoms(
        framework.get_chemical_symbols(), positions=framework.positions, cell=framework.cell, pbc=True
    )
    return plain, tetrahedral, octahedral


def llzo(
    *,
    ta: float = 0.0,
    nb: float = 0.0,
    al: float = 0.0,
    ga: float = 0.0,
    lattice_constant: float = LLZO_LATTICE_CONSTANT,
    primitive: bool = False,
    repeat: Sequence[int] = (1, 1, 1),
    rng: np.random.Generator,
) -> Atoms:
    """Cubic garnet Li(7-ta-nb-3al-3ga) Al(al) Ga(ga) La3 Zr(2-ta-nb) Ta(ta) Nb(nb) O12, exactly neutral.

    Ta and Nb sit on random Zr sites (16a), Al and Ga on tetrahedral Li sites (24d), Li on 24d and 96h at minimal
    repulsion, all from `rng`. The conventional cell (8 formula units, 192 atoms undoped) or the primitive one (4, 96
    atoms), repeated. Contents are rounded to whole atoms; `atoms.info` holds the contents reached, the number of Li
    on 24d and the shortest Li-Li distance (Å).

    Raises InputError for contents out of range, CompositionError when charge balance leaves negative Li.
    """
    copies = _repeat(repeat)
    framework, tetrahedral, octahedral = garnet_sites(_lattice_constant(lattice_constant), primitive)
    n24d, n96h = len(tetrahedral), len(octahedral)
    sites = framework * (1, 1, 1)
    for points in (tetrahedral, octahedral):
        sites += Atoms(f"X{len(points)}", positions=points)
    label = np.repeat([0, 1, 2], [len(framework), n24d, n96h])
    supercell = sites.repeat(copies)
    label = np.tile(label, copies[0] * copies[1] * copies[2])
    framework = supercell[label == 0]
    points, on_24d = supercell.positions[label > 0], label[label > 0] == 1
    units = int(np.sum(on_24d)) // 3
    counts = {
        "Ta": _whole("ta", ta, units, 2), "Nb": _whole("nb", nb, units, 2),
        "Al": _whole("al", al, units, 3), "Ga": _whole("ga", ga, units, 3),
    }  # fmt: skip
    if counts["Ta"] + counts["Nb"] > 2 * units:
        raise InputError("ta + nb", ta + nb, "at most 2 per formula unit (the Zr sites)")
    lithium = 7 * units - counts["Ta"] - counts["Nb"] - 3 * (counts["Al"] + counts["Ga"])
    if lithium < 0:
        raise CompositionError(
            f"LLZO with ta={ta:g}, nb={nb:g}, al={al:g}, ga={ga:g}: charge balance leaves {lithium / units:.3g} Li "
            "per formula unit; lower the contents so that ta + nb + 3 al + 3 ga <= 7"
        )
    if counts["Al"] + counts["Ga"] > 3 * units:
        raise InputError("al + ga", al + ga, "at most 3 per formula unit (the 24d sites)")
    symbols = np.array(framework.get_chemical_symbols(), dtype=object)
    chosen = rng.permutation(np.flatnonzero(symbols == "Zr"))
    symbols[chosen[: counts["Ta"]]] = "Ta"
    symbols[chosen[counts["Ta"] : counts["Ta"] + counts["Nb"]]] = "Nb"
    framework.set_chemical_symbols(list(symbols))
    # Only what differs from the host is charged: the host's own field is the same at all sites of a kind.
    potential, _ = framework_energy(framework, points, _HOST_VALENCE, {})
    ions = {"Li": lithium, "Al": counts["Al"], "Ga": counts["Ga"]}
    charges = {"Li": 1.0, "Al": 3.0, "Ga": 3.0}
    occupation = place_apart(
        points,
        framework.cell.array,
        ions,
        charges,
        rng,
        allowed={"Al": on_24d, "Ga": on_24d},
        site_energy={s: charges[s] * potential - TETRAHEDRAL_PREFERENCE * on_24d for s in ions},
        coldest=DISORDER,
    )
    species = np.array(occupation.species, dtype=object)
    taken = species != VACANCY
    atoms = sorted_atoms(
        [*symbols, *species[taken]],
        np.vstack([framework.positions, points[taken]]),
        framework.cell.array,
        SPECIES_ORDER,
    )
    atoms.info.update(
        material="LLZO",
        formula_units=units,
        **{f"{s.lower()}_per_formula_unit": counts[s] / units for s in counts},
        li_per_formula_unit=lithium / units,
        li_on_24d=int(np.sum((species == "Li") & on_24d)),
        shortest_li_distance=occupation.shortest_distance,
    )
    return atoms


def perovskite_sites(lattice_constant: float, repeat: Sequence[int]) -> tuple[Floats, Floats, Floats, Floats]:
    """A, B and O positions (Å) of a cubic perovskite supercell and its cell (3, 3); A at the corner."""
    n = np.array(_repeat(repeat))
    grid = np.array(np.meshgrid(*[np.arange(k) for k in n], indexing="ij")).reshape(3, -1).T
    a = grid * lattice_constant
    b = (grid + 0.5) * lattice_constant
    oxygen = np.vstack([(grid + f) * lattice_constant for f in ((0.5, 0.5, 0), (0.5, 0, 0.5), (0, 0.5, 0.5))])
    return a, b, oxygen, np.diag(n * lattice_constant).astype(float)


def largest_a_site_order(occupancy: float) -> float:
    """Largest S of alternate layers at the cation's overall A-site occupancy R: (min(2R, 1) - R)/(1 - R)."""
    return (min(2 * occupancy, 1.0) - occupancy) / (1 - occupancy)


def a_site_order(layers: NDArray[np.int64], heavy: NDArray[np.bool_]) -> float:
    """Order parameter S = (R_rich - R_all)/(1 - R_all) of a cation on alternating A layers.

    `layers` (n,) the layer index of every A site, `heavy` (n,) whether the cation is there; the richer of the even and
    odd layers counts as rich, so that S >= 0.
    """
    overall = float(np.mean(heavy))
    rich = max(float(np.mean(heavy[layers % 2 == parity])) for parity in (0, 1))
    return (rich - overall) / (1 - overall)


def _perovskite(
    name: str,
    heavy: str,
    n_heavy: int,
    n_lithium: int,
    b_counts: Mapping[str, int],
    order: float,
    lattice_constant: float,
    repeat: Sequence[int],
    layer_axis: int,
    off_centre: float,
    rng: np.random.Generator,
) -> Atoms:
    a, b, oxygen, cell = perovskite_sites(lattice_constant, repeat)
    units = len(a)
    if layer_axis not in (0, 1, 2):
        raise InputError("layer_axis", layer_axis, "0, 1 or 2")
    if n_lithium < 0 or n_heavy + n_lithium > units:
        raise CompositionError(
            f"{name}: {n_heavy} {heavy} and {n_lithium} Li do not fit {units} A sites at charge balance; "
            "change the content or take a larger cell"
        )
    layer = np.rint(a[:, layer_axis] / lattice_constant).astype(np.int64)
    overall = n_heavy / units
    largest = largest_a_site_order(overall)
    if not (0 <= order <= largest + 0.005):
        raise InputError("order", order, f"S from 0 to {largest:.4f} at {overall:.4f} {heavy} per A site")
    rich = np.flatnonzero(layer % 2 == 0)
    poor = np.flatnonzero(layer % 2 == 1)
    if order > 0 and _repeat(repeat)[layer_axis] % 2:
        raise InputError(
            f"repeat[{layer_axis}]", _repeat(repeat)[layer_axis], "take an even number for alternating layers"
        )
    site = np.full(units, VACANCY, dtype=object)
    if len(poor):
        in_rich = round((overall + min(order, largest) * (1 - overall)) * len(rich))
        in_rich = min(max(in_rich, n_heavy - len(poor)), n_heavy, len(rich))
        site[rng.choice(rich, in_rich, replace=False)] = heavy
        site[rng.choice(poor, n_heavy - in_rich, replace=False)] = heavy
    else:
        site[rng.choice(rich, n_heavy, replace=False)] = heavy
    free = np.flatnonzero(site == VACANCY)
    b_symbols = rng.permutation(np.repeat(np.array(list(b_counts), dtype=object), list(b_counts.values())))
    fixed = np.flatnonzero(site == heavy)
    framework = Atoms(
        [*site[fixed], *b_symbols, *["O"] * len(oxygen)],
        positions=np.vstack([a[fixed], b, oxygen]),
        cell=cell,
        pbc=True,
    )
    excess = {heavy: float(VALENCE[heavy]), "Ta": 1.0, "Nb": 1.0}
    potential, _ = framework_energy(framework, a[free], excess, {})
    occupation = place(a[free], cell, {"Li": n_lithium}, {"Li": 1.0}, rng, site_energy={"Li": potential})
    chosen = free[np.array(occupation.species, dtype=object) == "Li"]
    # Li sits off the centre of the cage, towards one of its six windows.
    direction = np.eye(3)[rng.integers(3, size=len(chosen))] * rng.choice([-1, 1], size=(len(chosen), 1))
    lithium = a[chosen] + off_centre * direction
    atoms = sorted_atoms(
        [*["Li"] * len(chosen), *framework.get_chemical_symbols()],
        np.vstack([lithium, framework.positions]),
        cell,
        SPECIES_ORDER,
    )
    atoms.info.update(
        material=name,
        formula_units=units,
        li_per_formula_unit=n_lithium / units,
        a_site_order=a_site_order(layer, site == heavy),
    )
    return atoms


def lstz(
    *,
    ta: float = 0.75,
    order: float = 0.0,
    lattice_constant: float = PEROVSKITE_LATTICE_CONSTANT["LSTZ"],
    repeat: Sequence[int] = (4, 4, 4),
    layer_axis: int = 2,
    off_centre: float = 0.5,
    rng: np.random.Generator,
) -> Atoms:
    """Perovskite Li(0.5y) Sr(1-0.75y) Ta(y) Zr(1-y) O3 with y = `ta`, at the A-site order S = `order`.

    S = (R_rich - R_all)/(1 - R_all), R the Sr occupancy of the A sites in the Sr-rich (every second) layers along
    `layer_axis` and overall (doi 10.1038/s41467-023-37115-6, caption of its Fig. 2); for
    LSTZ0.75 it runs from 0 (random on average) to 0.7778. Ta and Zr are random, Li is on free A sites at minimal
    repulsion, `off_centre` Å towards a window. 4x4x4 gives 308 atoms. `info["a_site_order"]` is the S reached.

    Raises InputError for an order or content out of range, CompositionError when Li does not fit.
    """
    units = int(np.prod(_repeat(repeat)))
    n_ta = _whole("ta", ta, units, 1.0)
    n_sr = round((1 - 0.75 * ta) * units)
    n_lithium = 2 * units - n_ta - 2 * n_sr
    return _perovskite(
        "LSTZ", "Sr", n_sr, n_lithium, {"Ta": n_ta, "Zr": units - n_ta}, order,
        _lattice_constant(lattice_constant), repeat, layer_axis, off_centre, rng,
    )  # fmt: skip


def llto(
    *,
    x: float = 0.11,
    order: float = 0.0,
    lattice_constant: float = PEROVSKITE_LATTICE_CONSTANT["LLTO"],
    repeat: Sequence[int] = (4, 4, 4),
    layer_axis: int = 2,
    off_centre: float = 0.5,
    rng: np.random.Generator,
) -> Atoms:
    """Perovskite Li(3x) La(2/3-x) TiO3 at the A-site order S = `order`: 0 disordered, near 1 layered.

    S as in `lstz`, with La-rich layers. Li is on free A sites at minimal repulsion, `off_centre` Å towards a window.

    Raises InputError for an order or content out of range, CompositionError when Li does not fit.
    """
    if not (0 <= x <= 2 / 3):
        raise InputError("x", x, "give 0 to 2/3; phases are known for 0 < x < 0.16")
    units = int(np.prod(_repeat(repeat)))
    n_la = round((2 / 3 - x) * units)
    return _perovskite(
        "LLTO", "La", n_la, 2 * units - 3 * n_la, {"Ti": units}, order,
        _lattice_constant(lattice_constant), repeat, layer_axis, off_centre, rng,
    )  # fmt: skip


_BOND = {
    "Li": 1.75, "Sr": 2.30, "La": 2.20, "Ti": 1.75, "Zr": 1.90, "Nb": 1.80, "Ta": 1.80, "Al": 1.65, "Ga": 1.70,
}  # fmt: skip


def minimal_distance(first: str, second: str) -> float:
    """Shortest distance, Å, allowed between two elements in a random packing (about 90 % of a bond's length)."""
    anions = {s for s in (first, second) if VALENCE.get(s, 0) < 0}
    if len({first, second}) == 2 and len(anions) == 1:
        cation = first if second in anions else second
        return _BOND.get(cation, 1.8)
    if anions:
        return 2.35
    light = {"Li"} & {first, second}
    return 2.3 if light else 2.9


def parse_formula(formula: str) -> dict[str, float]:
    """Contents by element of a formula such as "Li6.5La3Zr1.5Ta0.5O12". Raises InputError where it does not parse."""
    tokens = re.findall(r"([A-Z][a-z]?)(\d+(?:\.\d+)?|\.\d+)?", formula)
    if not tokens or "".join(s + n for s, n in tokens) != formula.replace(" ", ""):
        raise InputError("formula", formula, "write elements with contents, such as Li6.5La3Zr1.5Ta0.5O12")
    contents: dict[str, float] = {}
    for symbol, number in tokens:
        if symbol not in atomic_numbers:
            raise InputError("formula", formula, f"{symbol} is not an element")
        contents[symbol] = contents.get(symbol, 0.0) + (float(number) if number else 1.0)
    return contents


def neutral_counts(contents: Mapping[str, float], units: int, balance: str = "Li") -> dict[str, int]:
    """Whole numbers of atoms nearest `units` formula units with exact neutrality, `balance` taking up the rest.

    Raises CompositionError when neutrality needs a negative or fractional number of the balancing ion.
    """
    for symbol in contents:
        if symbol not in VALENCE:
            raise CompositionError(
                f"{symbol}: no formal charge is known; known: {', '.join(sorted(VALENCE))}"
            )
    counts = {s: round(c * units) for s, c in contents.items() if s != balance}
    charge = sum(n * VALENCE[s] for s, n in counts.items())
    number, rest = divmod(-charge, VALENCE[balance])
    if rest or number < 0:
        raise CompositionError(
            f"{dict(contents)} in {units} formula units: neutrality needs {-charge / VALENCE[balance]:g} {balance}; "
            "change the contents or the number of formula units"
        )
    return {s: n for s, n in {balance: number, **counts}.items() if n}


def amorphous(
    formula: str,
    units: int,
    *,
    density: float,
    rng: np.random.Generator,
    max_iterations: int = 4000,
) -> Atoms:
    """A random packing in a cubic cell, to be melted and quenched: no two atoms closer than `minimal_distance`.

    `formula` with contents per formula unit, `units` how many, `density` in kg/m³ (LLZO: crystal 5.1e3, amorphous
    about 4.3e3). Random points are pushed apart until every pair respects its distance. Neutral: Li balances.

    Raises InputError when the density does not permit the distances.
    """
    if not (1 <= units <= 10_000):
        raise InputError("units", units, "give 1 to 10000 formula units")
    if not (100.0 < density < 30_000.0):
        raise InputError("density", density, "give kg/m³ between 100 and 30000")
    contents = parse_formula(formula)
    counts = (
        neutral_counts(contents, units, "Li") if "Li" in contents else neutral_counts(contents, units, "O")
    )
    symbols = [s for s, n in counts.items() for _ in range(n)]
    mass = sum(float(atomic_masses[atomic_numbers[s]]) for s in symbols) * 1.66053907e-27
    edge = (mass / density) ** (1 / 3) * 1e10
    kinds = sorted(set(symbols))
    kind = np.array([kinds.index(s) for s in symbols])
    table = np.array([[minimal_distance(p, q) for q in kinds] for p in kinds])
    reach = float(table.max())
    if edge < 2 * reach:
        raise InputError("units", units, f"the cell's edge of {edge:.1f} Å must be above {2 * reach:.1f} Å")
    x = rng.random((len(symbols), 3)) * edge
    x, overlap = push_apart(x, np.eye(3) * edge, kind, table, max_iterations=max_iterations)
    if overlap == 0:
        return sorted_atoms(symbols, x, np.eye(3) * edge, SPECIES_ORDER)
    raise InputError(
        "density", density, f"{formula} could not be packed with the minimal distances; take a lower density"
    )
