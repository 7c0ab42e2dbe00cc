"""Bulk, amorphous and CIF cells: exact charge and content, sane distances, named errors."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.neighborlist import neighbor_list
from hypothesis import given, settings
from hypothesis import strategies as st

from atomistic import cells, disorder
from atomistic.errors import AtomisticError, CompositionError, FileFormatError, InputError
from atomistic.lattice_gas import core, neighbours, place, push_apart, screened_coulomb


def shortest_distances(atoms: Atoms, reach: float = 3.2) -> dict[tuple[str, str], float]:
    i, j, d = neighbor_list("ijd", atoms, reach)
    symbols = np.array(atoms.get_chemical_symbols())
    found: dict[tuple[str, str], float] = {}
    for a, b, r in zip(symbols[i], symbols[j], d, strict=True):
        key = (str(min(a, b)), str(max(a, b)))
        found[key] = min(found.get(key, np.inf), float(r))
    return found


# --- LLZO ---------------------------------------------------------------------------------------------------------


@given(
    ta=st.floats(0, 1),
    nb=st.floats(0, 0.5),
    al=st.floats(0, 0.6),
    ga=st.floats(0, 0.4),
    seed=st.integers(0, 99),
)
@settings(max_examples=12, deadline=None)
def test_llzo_is_neutral_with_the_contents_asked_for(
    ta: float, nb: float, al: float, ga: float, seed: int
) -> None:
    atoms = cells.llzo(ta=ta, nb=nb, al=al, ga=ga, rng=np.random.default_rng(seed))
    counts = Counter(atoms.get_chemical_symbols())
    assert cells.total_charge(atoms) == 0
    assert counts["La"] == 24
    assert counts["O"] == 96
    assert counts["Zr"] + counts["Ta"] + counts["Nb"] == 16
    for element, content in (("Ta", ta), ("Nb", nb), ("Al", al), ("Ga", ga)):
        assert abs(counts[element] - 8 * content) <= 0.5 + 1e-9
    assert counts["Li"] == 56 - counts["Ta"] - counts["Nb"] - 3 * (counts["Al"] + counts["Ga"])


@pytest.mark.parametrize(
    ("options", "atoms_expected"),
    [
        ({}, 192),
        ({"primitive": True}, 96),
        ({"primitive": True, "repeat": (1, 1, 2)}, 192),
        ({"repeat": (2, 1, 1)}, 384),
    ],
)
def test_llzo_cells_have_the_right_size_and_density(options: dict[str, object], atoms_expected: int) -> None:
    atoms = cells.llzo(rng=np.random.default_rng(1), **options)  # type: ignore[arg-type]
    assert len(atoms) == atoms_expected
    per_volume = len(atoms) / atoms.get_volume()
    np.testing.assert_allclose(per_volume, 192 / cells.LLZO_LATTICE_CONSTANT**3, rtol=1e-12, atol=0)


@pytest.mark.parametrize("seed", range(6))
def test_llzo_lithium_keeps_apart_and_sits_between_oxygens(seed: int) -> None:
    atoms = cells.llzo(ta=0.5, al=0.25, rng=np.random.default_rng(seed))
    close = shortest_distances(atoms)
    assert close[("Li", "Li")] > 2.2
    assert close[("Li", "O")] > 1.75
    assert close.get(("Al", "Li"), 9.0) > 2.2
    i, j = neighbor_list("ij", atoms, 2.1)
    symbols = np.array(atoms.get_chemical_symbols())
    for aluminium in np.flatnonzero(symbols == "Al"):
        assert np.sum((i == aluminium) & (symbols[j] == "O")) == 4


def test_llzo_arrangements_follow_the_generator() -> None:
    first = cells.llzo(ta=0.5, rng=np.random.default_rng(3))
    again = cells.llzo(ta=0.5, rng=np.random.default_rng(3))
    other = cells.llzo(ta=0.5, rng=np.random.default_rng(4))
    np.testing.assert_array_equal(first.positions, again.positions)
    tantalum = [
        np.sort(a.positions[np.array(a.get_chemical_symbols()) == "Ta"], axis=0) for a in (first, other)
    ]
    assert not np.allclose(*tantalum, rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("contents", "error", "word"),
    [
        ({"al": 2.5}, CompositionError, "ta \\+ nb \\+ 3 al"),
        ({"ta": 2.5}, InputError, "0 to 2"),
        ({"ta": 1.5, "nb": 1.0}, InputError, "Zr sites"),
        ({"al": -0.1}, InputError, "0 to 3"),
        ({"ta": float("nan")}, InputError, "0 to 2"),
        ({"lattice_constant": 0.5}, InputError, "Å"),
        ({"repeat": (0, 1, 1)}, InputError, "1 to 100"),
    ],
)
def test_impossible_llzo_is_refused(
    contents: dict[str, object], error: type[AtomisticError], word: str
) -> None:
    with pytest.raises(error, match=word):
        cells.llzo(rng=np.random.default_rng(0), **contents)  # type: ignore[arg-type]


# --- perovskites --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", [0.0, 0.2, 0.5, 0.7778])
def test_lstz_reaches_the_order_asked_for(order: float) -> None:
    atoms = cells.lstz(order=order, rng=np.random.default_rng(0))
    counts = Counter(atoms.get_chemical_symbols())
    assert counts == {"Li": 24, "Sr": 28, "Ta": 48, "Zr": 16, "O": 192}
    assert cells.total_charge(atoms) == 0
    # One Sr moved between layers changes S by 1/(32·(1 - R)).
    assert abs(atoms.info["a_site_order"] - order) <= 0.5 / (32 * (1 - 28 / 64)) + 1e-9
    symbols = np.array(atoms.get_chemical_symbols())
    layer = np.rint(atoms.positions[symbols == "Sr", 2] / 4.0).astype(int) % 2
    rich = max(np.mean(layer), 1 - np.mean(layer)) * 28 / 32
    np.testing.assert_allclose(
        (rich - 28 / 64) / (1 - 28 / 64), atoms.info["a_site_order"], rtol=1e-9, atol=1e-12
    )


def test_lstz_lithium_is_off_centre_and_apart() -> None:
    atoms = cells.lstz(order=0.4, off_centre=0.5, rng=np.random.default_rng(5))
    close = shortest_distances(atoms)
    assert close[("Li", "O")] > 2.2
    symbols = np.array(atoms.get_chemical_symbols())
    offset = atoms.positions[symbols == "Li"] / 4.0
    offset = np.abs(offset - np.rint(offset)) * 4.0
    np.testing.assert_allclose(np.sort(offset, axis=1), np.tile([0, 0, 0.5], (24, 1)), rtol=1e-9, atol=1e-9)


def test_order_beyond_the_largest_is_refused() -> None:
    np.testing.assert_allclose(cells.largest_a_site_order(0.4375), 7 / 9, rtol=1e-12, atol=0)
    with pytest.raises(InputError, match=r"0\.7778"):
        cells.lstz(order=0.9, rng=np.random.default_rng(0))
    with pytest.raises(InputError, match="even number"):
        cells.lstz(order=0.5, repeat=(4, 4, 3), rng=np.random.default_rng(0))


def test_llto_layered_and_disordered() -> None:
    layered = cells.llto(x=0.11, order=0.9, layer_axis=0, rng=np.random.default_rng(0))
    random = cells.llto(x=0.11, order=0.0, rng=np.random.default_rng(0))
    assert cells.total_charge(layered) == cells.total_charge(random) == 0
    assert layered.info["a_site_order"] > 0.85
    assert random.info["a_site_order"] < 0.05
    counts = Counter(random.get_chemical_symbols())
    assert counts["La"] == round(64 * (2 / 3 - 0.11))
    assert counts["Li"] == 2 * 64 - 3 * counts["La"]
    with pytest.raises(CompositionError, match="A sites"):
        cells.llto(x=0.6, rng=np.random.default_rng(0))


# --- amorphous ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("density", [3800.0, 4600.0])
def test_amorphous_cell_has_density_charge_and_distances(density: float) -> None:
    atoms = cells.amorphous("Li6.4La3Zr1.4Ta0.6O12", 8, density=density, rng=np.random.default_rng(2))
    assert cells.total_charge(atoms) == 0
    mass = atoms.get_masses().sum() * 1.66053907e-27
    np.testing.assert_allclose(mass / (atoms.get_volume() * 1e-30), density, rtol=1e-6, atol=0)
    for (a, b), distance in shortest_distances(atoms).items():
        assert distance >= cells.minimal_distance(a, b) - 1e-9, (a, b)


def test_impossible_amorphous_cells_are_refused() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="lower density"):
        cells.amorphous("Li7La3Zr2O12", 8, density=9000.0, rng=rng, max_iterations=20)
    with pytest.raises(InputError, match="formula"):
        cells.amorphous("Li7La3Zr2O12)", 8, density=4600.0, rng=rng)
    with pytest.raises(CompositionError, match="formal charge"):
        cells.amorphous("Li7Pr3Zr2O12", 8, density=4600.0, rng=rng)
    with pytest.raises(CompositionError, match="neutrality"):
        cells.amorphous("LiTa3O2", 8, density=4600.0, rng=rng)


# --- lattice gas --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_annealing_finds_the_least_repulsion_of_all_arrangements(seed: int) -> None:
    rng = np.random.default_rng(seed)
    cell = np.diag([9.0, 9.0, 9.0])
    sites = rng.random((10, 3)) * 9
    i, j, d = neighbours(sites, cell)
    pair = screened_coulomb(d) + core(d)

    def energy(occupied: tuple[int, ...]) -> float:
        taken = np.zeros(10)
        taken[list(occupied)] = 1
        return 0.5 * float(np.sum(taken[i] * taken[j] * pair))

    least = min(energy(c) for c in itertools.combinations(range(10), 4))
    found = place(sites, cell, {"Li": 4}, {"Li": 1.0}, rng, steps_per_site=3000, coldest=1e-5)
    np.testing.assert_allclose(found.energy, least, rtol=1e-9, atol=0)
    assert sum(s == "Li" for s in found.species) == 4


def test_push_apart_respects_fixed_points_and_triclinic_cells() -> None:
    rng = np.random.default_rng(0)
    cell = np.array([[8.0, 0, 0], [3.0, 7.0, 0], [-2.0, 1.0, 9.0]])
    points = rng.random((24, 3)) @ cell
    movable = np.arange(24) > 3
    moved, overlap = push_apart(
        points, cell, np.zeros(24, dtype=np.int64), np.array([[1.8]]), movable=movable
    )
    assert overlap == 0
    np.testing.assert_array_equal(moved[:4], points[:4])
    _, _, distance = neighbours(moved, cell, 2.0)
    rest = neighbours(moved[4:], cell, 2.0)[2]
    assert rest.min() >= 1.8 - 1e-9
    assert distance.size >= rest.size


# --- CIF ----------------------------------------------------------------------------------------------------------

GARNET_CIF = """data_LLZO
_cell_length_a 12.97
_cell_length_b 12.97
_cell_length_c 12.97
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_space_group_IT_number 230
_symmetry_space_group_name_H-M 'I a -3 d'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Li1 Li 0.375 0 0.25 0.54
Li2 Li 0.0982 0.6853 0.5770 0.44
La1 La 0.125 0 0.25 1
Zr1 Zr 0 0 0 0.8
Ta1 Ta 0 0 0 0.2
O1 O 0.1003 0.1955 0.2809 1
"""

PEROVSKITE_CIF = """data_LSTZ
_cell_length_a 4.0
_cell_length_b 4.0
_cell_length_c 4.0
_cell_angle_alpha 90
_cell_angle_beta 90
_cell_angle_gamma 90
_space_group_IT_number 221
_symmetry_space_group_name_H-M 'P m -3 m'
loop_
_atom_site_label
_atom_site_type_symbol
_atom_site_fract_x
_atom_site_fract_y
_atom_site_fract_z
_atom_site_occupancy
Li1 Li 0 0 0 0.375
Sr1 Sr 0 0 0 0.4375
Ta1 Ta 0.5 0.5 0.5 0.75
Zr1 Zr 0.5 0.5 0.5 0.25
O1 O 0.5 0.5 0 1
"""


def test_garnet_cif_is_ordered_neutral_and_full_where_full(tmp_path: Path) -> None:
    path = tmp_path / "garnet.cif"
    path.write_text(GARNET_CIF)
    atoms = disorder.cell_from_cif(path, rng=np.random.default_rng(0))
    counts = Counter(atoms.get_chemical_symbols())
    assert cells.total_charge(atoms) == 0
    assert counts["Zr"] + counts["Ta"] == 16
    assert counts["La"] == 24
    assert counts["Ta"] == 3
    np.testing.assert_allclose(atoms.info["composition_change"]["Li"], counts["Li"] - 55.2, rtol=0, atol=1e-6)
    assert shortest_distances(atoms)[("Li", "Li")] > 1.9


def test_perovskite_cif_in_a_supercell_that_fits_keeps_its_composition(tmp_path: Path) -> None:
    path = tmp_path / "perovskite.cif"
    path.write_text(PEROVSKITE_CIF)
    atoms = disorder.cell_from_cif(path, rng=np.random.default_rng(0), repeat=(4, 4, 4), balance=None)
    assert Counter(atoms.get_chemical_symbols()) == {"Li": 24, "Sr": 28, "Ta": 48, "Zr": 16, "O": 192}
    assert atoms.info["composition_change"] == {}
    other = disorder.cell_from_cif(path, rng=np.random.default_rng(1), repeat=(4, 4, 4))
    assert not np.allclose(atoms.positions[:24], other.positions[:24], rtol=0, atol=1e-6)


@pytest.mark.parametrize("repeat", [(1, 1, 1), (2, 1, 1), (3, 1, 1), (5, 1, 1), (3, 2, 1), (3, 3, 1)])
def test_sites_full_in_the_cif_stay_full(tmp_path: Path, repeat: tuple[int, int, int]) -> None:
    path = tmp_path / "perovskite.cif"
    path.write_text(PEROVSKITE_CIF)
    atoms = disorder.cell_from_cif(path, rng=np.random.default_rng(0), repeat=repeat, max_change=1.0)
    counts, units = Counter(atoms.get_chemical_symbols()), math.prod(repeat)
    assert counts["Ta"] + counts["Zr"] == units
    assert counts["O"] == 3 * units
    assert cells.total_charge(atoms) == 0


@pytest.mark.parametrize(
    ("old", "new", "error", "word"),
    [
        ("0.25 0.54", "0.25 1.54", CompositionError, "1.54"),
        ("Ta1 Ta 0 0 0 0.2", "Ta1 Ta 0 0 0 0.6", CompositionError, "add up to 1.4"),
        ("Zr1 Zr 0 0 0 0.8", "Zr1 W 0 0 0 0.8", CompositionError, "charges do not add up"),
        ("_cell_length_a 12.97", "_cell_length_a abc", FileFormatError, "garnet.cif"),
        ("_cell_length_a 12.97", "_cell_length_a nan", FileFormatError, "garnet.cif"),
        ("La1 La", "La1 Xx", FileFormatError, "Xx"),
        ("data_LLZO", "", FileFormatError, "not a crystal"),
        ("0.2809 1", "0.2809 0.2", CompositionError, "negative"),
        ("La1 La 0.125", "La1 Pr 0.125", CompositionError, "Pr"),
        ("La1 La 0.125 0 0.25 1", "La1 La 0.02 0 0 1", CompositionError, "cannot be ordered|add up"),
    ],
)
def test_cifs_that_cannot_be_ordered_are_refused_by_name(
    tmp_path: Path, old: str, new: str, error: type[AtomisticError], word: str
) -> None:
    path = tmp_path / "garnet.cif"
    assert old in GARNET_CIF
    path.write_text(GARNET_CIF.replace(old, new, 1))
    with pytest.raises(error, match=word):
        disorder.cell_from_cif(path, rng=np.random.default_rng(0))


def test_a_crystal_without_the_balancing_ion_says_so(tmp_path: Path) -> None:
    path = tmp_path / "perovskite.cif"
    path.write_text(
        PEROVSKITE_CIF.replace("Li1 Li 0 0 0 0.375\n", "")
        .replace("Zr1 Zr", "Ta2 Ta")
        .replace("Sr1 Sr", "Sr1 Na")
    )
    with pytest.raises(CompositionError, match="no rounding"):
        disorder.cell_from_cif(path, rng=np.random.default_rng(0), repeat=(2, 1, 1), balance=None)
    with pytest.raises(FileFormatError, match=r"nothere\.cif"):
        disorder.read_cif(tmp_path / "nothere.cif")


@pytest.mark.parametrize("seed", range(4))
def test_mutated_cifs_give_a_structure_or_a_named_error(tmp_path: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    source = PEROVSKITE_CIF.encode()
    outcomes = set()
    for _ in range(40):
        text = bytearray(source)
        for _ in range(int(rng.integers(1, 6))):
            where = int(rng.integers(len(text)))
            action = int(rng.integers(3))
            if action == 0:
                text[where] = int(rng.integers(256))
            elif action == 1:
                del text[where : where + int(rng.integers(1, 30))]
            else:
                text[where:where] = rng.choice([b"0", b"-", b"e9", b"\n", b"loop_", b"?", b"'"])
        path = tmp_path / "mutant.cif"
        path.write_bytes(bytes(text))
        try:
            atoms = disorder.cell_from_cif(path, rng=rng, repeat=(2, 2, 2))
            assert cells.total_charge(atoms) == 0
            outcomes.add("cell")
        except AtomisticError:
            outcomes.add("error")
    assert outcomes == {"cell", "error"}


def test_a_full_site_is_not_emptied_to_reach_neutrality() -> None:
    crystal = disorder.DisorderedCrystal(
        np.eye(3) * 4.0,
        np.array([[0.0, 0, 0], [2.0, 2, 2]]),
        np.array([0, 1]),
        ({"Na": 0.5, "K": 0.5}, {"Cl": 0.5}),
    )
    atoms = disorder.order_crystal(crystal, rng=np.random.default_rng(0), balance=None)
    assert len(atoms) == 2
    assert cells.total_charge(atoms) == 0
