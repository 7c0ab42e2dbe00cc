"""Coincidence, boundary cells of all published families, boundary energy: against exact and independent results."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.lj import LennardJones
from ase.neighborlist import neighbor_list

from atomistic import boundaries, cells, rigid_ion
from atomistic.boundaries import FAMILIES, boundary_energy, build, rank, resolve, search
from atomistic.building import BulkReference
from atomistic.campaign import SHIPPED
from atomistic.cells import lstz
from atomistic.coincidence import BoundarySpec, coincidence_angles, find_coincidence, plane_lattice
from atomistic.crystals import CRYSTALS, Crystal, Garnet, Perovskite
from atomistic.errors import AtomisticError, CoincidenceError, CompositionError, InputError
from atomistic.mtp.potential import read_mtp
from atomistic.sampling import CellSettings

SIMPLE = np.eye(3) * 4.0
CENTRED = 12.97 * np.array([[-0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0.5, 0.5, -0.5]])

QUICK = {"terminations": 1, "max_shifts": 4, "gaps": (0.5,), "keep": 1, "relax_steps": 5}


def titanate() -> Perovskite:
    """SrTiO3: no Li, so every cell of it is one and the same."""
    return Perovskite._make("SrTiO3", 3.905, "Sr", 1.0, {"Ti": 1.0}, 0.0)


# --- names and coincidence ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "axis", "sigma", "plane", "plane_2", "kind"),
    [
        ("Sigma5[100](01-2)", (1, 0, 0), 5, (0, 1, -2), None, "symmetric"),
        ("∑3[110](11-1)", (1, 1, 0), 3, (1, -1, 1), None, "symmetric"),
        ("Sigma3[110](110)", (1, 1, 0), 3, (1, 1, 0), None, "twist"),
        ("Σ51[110](001)(33-10)", (1, 1, 0), 51, (0, 0, 1), (3, -3, 10), "asymmetric"),
        ("Σ17 (530)[001]", (0, 0, 1), 17, (5, 3, 0), None, "symmetric"),
        ("Sigma33(52-2)[011]", (0, 1, 1), 33, (5, 2, -2), None, "symmetric"),
        ("Sigma19 (3 2 -5)[1 1 1]", (1, 1, 1), 19, (3, 2, -5), None, "symmetric"),
        ("Sigma13[001](10,2,0)", (0, 0, 1), 13, (5, 1, 0), None, "symmetric"),
    ],
)
def test_names_are_read_as_published(
    name: str, axis: object, sigma: int, plane: object, plane_2: object, kind: str
) -> None:
    spec = BoundarySpec.parse(name)
    assert (spec.axis, spec.sigma, spec.plane, spec.plane_2) == (axis, sigma, plane, plane_2)
    assert spec.is_symmetric_tilt == (kind == "symmetric")
    assert spec.is_twist == (kind == "twist")
    assert BoundarySpec.parse(spec.name) == spec


@pytest.mark.parametrize(
    "name", ["", "Sigma5", "Sigma4[100](012)", "Sigma5[100]", "Sigma5(012)", "Sigma5[000](012)", "5]["]
)
def test_names_that_mean_nothing_are_refused(name: str) -> None:
    with pytest.raises(InputError):
        BoundarySpec.parse(name)


@pytest.mark.parametrize(
    ("axis", "sigma", "degrees"),
    [
        ((1, 0, 0), 5, 36.870),
        ((1, 1, 0), 3, 70.529),
        ((1, 1, 1), 3, 60.0),
        ((1, 1, 1), 7, 38.213),
        ((1, 1, 0), 9, 38.942),
        ((1, 1, 0), 11, 50.479),
        ((0, 0, 1), 17, 28.072),
        ((1, 1, 1), 19, 46.826),
        ((1, 1, 0), 33, 20.050),
        ((1, 1, 0), 51, 22.8435),
    ],
)
def test_coincidence_angles_are_the_tabulated_ones(
    axis: tuple[int, int, int], sigma: int, degrees: float
) -> None:
    angles = np.degrees(coincidence_angles(axis, sigma))
    assert np.min(np.abs(angles - degrees)) < 6e-4


@pytest.mark.parametrize("lattice", [SIMPLE, CENTRED], ids=["simple", "centred"])
@pytest.mark.parametrize(
    "name",
    [
        "Sigma5[100](0 1 2)",
        "Sigma5[100](100)",
        "Sigma5[001](100)",
        "Sigma3[110](1 -1 1)",
        "Sigma3[110](110)",
        "Sigma9[110](110)",
        "Sigma7[111](111)",
        "Sigma11[110](1 -1 3)",
        "Sigma13[001](001)",
        "Sigma5[001](1 1 1)",
    ],
)
def test_the_common_cell_belongs_to_both_lattices_and_is_the_smallest(name: str, lattice: np.ndarray) -> None:
    spec = BoundarySpec.parse(name)
    found = find_coincidence(spec, lattice, max_area=6e4 / lattice.shape[0])
    assert found.strain < 1e-9
    flat = np.column_stack([found.cell, np.zeros(2)])
    for frame in (found.frame_1, found.frame_2):
        np.testing.assert_allclose(frame @ frame.T, np.eye(3), rtol=0, atol=1e-12)
        whole = flat @ frame @ np.linalg.inv(lattice)
        np.testing.assert_allclose(whole, np.rint(whole), rtol=0, atol=1e-6)
    # Brute force: no pair of common vectors spans less. All in-plane lattice vectors of 1 that are in 2 as well.
    basis, _, _ = plane_lattice(lattice, np.array(spec.plane, dtype=float))
    n = 14
    grid = np.array([(a, b) for a in range(-n, n + 1) for b in range(-n, n + 1)])
    vectors = grid @ basis
    in_second = vectors @ found.frame_1.T @ found.frame_2 @ np.linalg.inv(lattice)
    common = (vectors @ found.frame_1.T)[np.all(np.abs(in_second - np.rint(in_second)) < 1e-6, axis=1)][:, :2]
    areas = _areas(common)
    smallest = areas[areas > 1e-6].min()
    np.testing.assert_allclose(found.area, smallest, rtol=1e-9, atol=0)


def _areas(vectors: np.ndarray) -> np.ndarray:
    return np.abs(vectors[:, None, 0] * vectors[None, :, 1] - vectors[:, None, 1] * vectors[None, :, 0])


@pytest.mark.parametrize(("sigma", "axis"), [(5, (1, 0, 0)), (13, (0, 0, 1)), (7, (1, 1, 1))])
def test_twist_cell_holds_sigma_plane_cells(sigma: int, axis: tuple[int, int, int]) -> None:
    """In a pure twist about a lattice plane's normal the planar coincidence index is Σ itself."""
    found = find_coincidence(BoundarySpec(axis, sigma, axis), SIMPLE, max_area=2000)
    basis, _, _ = plane_lattice(SIMPLE, np.array(axis, dtype=float))
    ratio = found.area / float(np.linalg.norm(np.cross(basis[0], basis[1])))
    np.testing.assert_allclose(ratio, sigma, rtol=1e-9, atol=0)
    displacement = abs(float(np.linalg.det(found.displacements)))
    np.testing.assert_allclose(displacement * sigma**2, found.area, rtol=1e-9, atol=0)


def test_the_coherent_twin_plane_coincides_fully() -> None:
    found = find_coincidence(BoundarySpec((1, 1, 1), 3, (1, 1, 1)), SIMPLE, max_area=2000)
    np.testing.assert_allclose(found.area, math.sqrt(3) * 16, rtol=1e-9, atol=0)


def test_rounded_planes_are_fitted_by_a_small_stated_strain() -> None:
    spec = resolve("Sigma51[110](001)(33-10)")
    found = find_coincidence(spec, SIMPLE, max_area=2500, max_strain=0.02)
    assert 0.001 < found.strain < 0.02
    with pytest.raises(CoincidenceError, match="strain"):
        find_coincidence(spec, SIMPLE, max_area=300, max_strain=0.001)
    # 11 half diagonals of a square against 2 of [5 -5 -3]: lengths that differ by 1.3 %, shared by both grains.
    lengths = sorted(np.linalg.norm(found.cell, axis=1) / 4.0)
    np.testing.assert_allclose(lengths[0], math.sqrt(2), rtol=1e-9, atol=0)
    np.testing.assert_allclose(lengths[1], 0.5 * (11 * math.sqrt(2) + 2 * math.sqrt(59)), rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("spec", "word"),
    [
        (BoundarySpec((1, 0, 0), 41, (0, 3, 1)), "no common cell within an area"),
        (BoundarySpec((1, 0, 0), 7, (1, 0, 0)), "no rotation about"),
        (BoundarySpec((1, 1, 0), 51, (0, 0, 1), (1, -1, 1)), "no common cell"),
    ],
)
def test_no_coincidence_is_said_by_name(spec: BoundarySpec, word: str) -> None:
    with pytest.raises(CoincidenceError, match=word):
        find_coincidence(spec, SIMPLE, max_area=150)


# --- cells --------------------------------------------------------------------------------------------------------


def check_cell(atoms: Atoms, crystal: Crystal, separation: float) -> None:
    counts = Counter(atoms.get_chemical_symbols())
    units = atoms.info["formula_units"]
    assert cells.total_charge(atoms) == 0
    assert counts["O"] == crystal.formula["O"] * units
    if crystal.name == "LLZO":
        assert counts["La"] == 3 * units
        assert counts["Zr"] + counts["Ta"] + counts["Nb"] == 2 * units
    else:
        assert sum(counts[s] for s in ("Ti", "Zr", "Ta")) == units
        assert counts["Li"] + counts["Sr"] + counts["La"] <= units
    low, high = atoms.info["boundary_heights"]
    height = atoms.cell.array[2, 2]
    np.testing.assert_allclose(atoms.cell.array[:2, 2], 0, rtol=0, atol=1e-9)
    assert min(high - low, height - high + low) >= separation - 1e-6
    area = np.linalg.norm(np.cross(atoms.cell.array[0], atoms.cell.array[1]))
    np.testing.assert_allclose(atoms.info["boundary_area"], area, rtol=1e-9, atol=0)
    i, j, d = neighbor_list("ijd", atoms, 3.0)
    symbols = atoms.get_chemical_symbols()
    for a, b, r in zip(i, j, d, strict=True):
        assert r > 0.9 * cells.minimal_distance(symbols[a], symbols[b]), (symbols[a], symbols[b], r)


def family_cases() -> list[object]:
    cases = []
    for name, (materials, _) in FAMILIES.items():
        for material in materials[:1]:
            large = name in ("Sigma33(52-2)[011]", "Sigma17(530)[001]", "Sigma19(32-5)[111]")
            cases.append(
                pytest.param(material, name, marks=pytest.mark.slow if large else (), id=f"{material}-{name}")
            )
    return cases


@pytest.mark.parametrize(("material", "name"), family_cases())
def test_every_published_family_is_built(material: str, name: str) -> None:
    crystal = CRYSTALS[material]()
    candidate = search(crystal, name, **QUICK)[0]  # type: ignore[arg-type]
    atoms = build(crystal, name, rng=np.random.default_rng(0), candidate=candidate, min_separation=9.0)
    check_cell(atoms, crystal, 9.0)
    again = build(crystal, name, rng=np.random.default_rng(0), candidate=candidate, min_separation=9.0)
    np.testing.assert_array_equal(atoms.positions, again.positions)


@pytest.mark.parametrize(
    "name", ["Sigma9[110](2 -2 1)", "Sigma5[001](100)", "Sigma5[001](1 1 1)", "Sigma13[001](001)"]
)
def test_any_axis_sigma_plane_can_be_built(name: str) -> None:
    crystal = Perovskite.llto()
    candidate = search(crystal, name, **QUICK)[0]  # type: ignore[arg-type]
    check_cell(
        build(crystal, name, rng=np.random.default_rng(1), candidate=candidate, min_separation=7.0),
        crystal,
        7.0,
    )


def test_training_variants_are_small() -> None:
    crystal = Perovskite.lstz()
    for name in ("Sigma5[100](01-2)", "Sigma5[100](100)", "Sigma3[110](11-1)", "Sigma3[110](110)"):
        candidate = search(crystal, name, **QUICK)[0]  # type: ignore[arg-type]
        atoms = build(crystal, name, rng=np.random.default_rng(0), candidate=candidate, min_separation=7.0)
        assert len(atoms) < 250
    garnet = Garnet.llzo(ta=0.5)
    candidate = search(garnet, "Sigma3(1-21)[111]", **QUICK)[0]  # type: ignore[arg-type]
    atoms = build(
        garnet, "Sigma3(1-21)[111]", rng=np.random.default_rng(0), candidate=candidate, min_separation=5.0
    )
    assert len(atoms) < 250
    check_cell(atoms, garnet, 5.0)


def test_doped_garnet_boundary_is_neutral_with_its_dopants() -> None:
    garnet = Garnet.llzo(ta=0.4, al=0.2)
    candidate = search(garnet, "Sigma3(1-21)[111]", **QUICK)[0]  # type: ignore[arg-type]
    atoms = build(
        garnet, "Sigma3(1-21)[111]", rng=np.random.default_rng(0), candidate=candidate, min_separation=9.0
    )
    check_cell(atoms, garnet, 9.0)
    counts, units = Counter(atoms.get_chemical_symbols()), atoms.info["formula_units"]
    assert counts["Ta"] == round(0.4 * units)
    assert counts["Al"] == round(0.2 * units)
    assert counts["Li"] == 7 * units - counts["Ta"] - 3 * counts["Al"]
    over = Garnet.llzo(al=2.6)
    with pytest.raises(CompositionError, match="Li per formula unit"):
        build(
            over, "Sigma3(1-21)[111]", rng=np.random.default_rng(0), candidate=candidate, min_separation=9.0
        )


def test_overlapping_grains_are_merged_by_whole_formula_units() -> None:
    crystal = titanate()
    options = dict(QUICK, gaps=(-1.6,), max_shifts=1)
    removed = max(
        sum(c.removed)
        for c in search(crystal, "Sigma5[100](01-2)", **dict(options, keep=4))  # type: ignore[arg-type]
    )
    assert removed > 0
    candidate = search(crystal, "Sigma5[100](01-2)", **options)[0]  # type: ignore[arg-type]
    merged = replace(candidate, removed=(1, 1))
    whole = build(
        crystal,
        "Sigma5[100](01-2)",
        rng=np.random.default_rng(0),
        candidate=replace(candidate, gap=0.5, removed=(0, 0)),
    )
    less = build(
        crystal, "Sigma5[100](01-2)", rng=np.random.default_rng(0), candidate=replace(merged, gap=0.5)
    )
    counts = Counter(less.get_chemical_symbols())
    assert counts["Sr"] == counts["Ti"] == counts["O"] // 3
    assert counts["O"] % 3 == 0
    assert len(whole) - len(less) == 5 * sum(less.info["removed_formula_units"]) > 0


def test_sizes_out_of_reach_are_said_by_name() -> None:
    crystal = Perovskite.lstz()
    with pytest.raises(CoincidenceError, match="allow more atoms"):
        build(crystal, "Sigma5[100](01-2)", rng=np.random.default_rng(0), max_atoms=50)
    with pytest.raises(InputError, match="min_separation"):
        build(crystal, "Sigma5[100](01-2)", rng=np.random.default_rng(0), min_separation=-1.0)
    with pytest.raises(CoincidenceError, match="no common cell"):
        search(crystal, "Sigma51[110](001)(33-10)", max_area=100.0)


# --- energies -----------------------------------------------------------------------------------------------------


def test_rigid_ion_forces_are_the_slope_of_its_energy() -> None:
    rng = np.random.default_rng(0)
    cell = np.array([[7.0, 0, 0], [1.5, 6.5, 0], [-1.0, 0.5, 8.0]])
    x = np.array([[0, 0, 0], [2.2, 0.1, 0.3], [0.2, 3.0, 2.0], [3.5, 3.2, 5.0], [5.0, 1.0, 3.0]])
    x = x + 0.05 * rng.normal(size=x.shape)
    q, kind = np.array([1.5, -1.2, 0.9, -1.8, 0.6]), np.array([0, 1, 0, 1, 0])
    strength = np.array([[0.0, 300.0], [300.0, 0.0]])
    _, force = rigid_ion.atom_energies(x, cell, q, kind, strength)
    for atom, axis in ((0, 0), (1, 1), (3, 2), (4, 0)):
        shift = np.zeros_like(x)
        shift[atom, axis] = 1e-5
        up = rigid_ion.atom_energies(x + shift, cell, q, kind, strength)[0].sum()
        down = rigid_ion.atom_energies(x - shift, cell, q, kind, strength)[0].sum()
        np.testing.assert_allclose(force[atom, axis], -(up - down) / 2e-5, rtol=1e-6, atol=1e-8)


def test_model_bulk_has_no_excess_in_any_supercell() -> None:
    crystal = titanate()
    model = boundaries._Model.of(crystal, 0)
    for repeat in (1, 2, 3):
        copies = Atoms("X5", positions=crystal.points, cell=crystal.lattice, pbc=True).repeat(repeat)
        energy, force = rigid_ion.atom_energies(
            copies.positions,
            copies.cell.array,
            *model.terms(np.tile(np.array(crystal.labels, dtype=object), repeat**3)),
        )
        np.testing.assert_allclose(energy.mean(), model.bulk_per_atom, rtol=1e-10, atol=0)
        np.testing.assert_allclose(force, 0, rtol=0, atol=1e-9)


def bulk_titanate() -> Atoms:
    a, b, oxygen, cell = cells.perovskite_sites(3.905, (3, 3, 3))
    symbols = ["Sr"] * len(a) + ["Ti"] * len(b) + ["O"] * len(oxygen)
    return Atoms(symbols, positions=np.vstack([a, b, oxygen]), cell=cell, pbc=True)


def test_boundary_energy_does_not_depend_on_the_grains_thickness() -> None:
    crystal = titanate()
    candidate = search(crystal, "Sigma5[100](01-2)", **QUICK)[0]  # type: ignore[arg-type]
    calculator = LennardJones(sigma=2.0, epsilon=0.3, rc=4.5, smooth=True)
    values = []
    for separation in (10.0, 16.0):
        atoms = build(
            crystal,
            "Sigma5[100](01-2)",
            rng=np.random.default_rng(0),
            candidate=candidate,
            min_separation=separation,
        )
        values.append(boundary_energy(atoms, [bulk_titanate()], calculator))
    np.testing.assert_allclose(values[0].value, values[1].value, rtol=1e-6, atol=0)
    assert abs(values[0].value) > 1e-3
    assert values[0].area == values[1].area


def test_a_cell_without_a_boundary_has_no_boundary_energy() -> None:
    atoms = bulk_titanate()
    atoms.info["boundary_area"] = 100.0
    calculator = LennardJones(sigma=2.0, epsilon=0.3, rc=4.5, smooth=True)
    energy = boundary_energy(atoms, [bulk_titanate(), bulk_titanate()], calculator)
    np.testing.assert_allclose(energy.value, 0, rtol=0, atol=1e-9)
    np.testing.assert_allclose(energy.standard_uncertainty, 0, rtol=0, atol=1e-9)


def test_boundary_energy_needs_a_bulk_of_the_same_composition() -> None:
    atoms = bulk_titanate()
    calculator = LennardJones(rc=4.5)
    with pytest.raises(InputError, match="build"):
        boundary_energy(atoms, [bulk_titanate()], calculator)
    atoms.info["boundary_area"] = 100.0
    with pytest.raises(InputError, match="at least one bulk"):
        boundary_energy(atoms, [], calculator)
    other = bulk_titanate()
    del other[0]
    with pytest.raises(CompositionError, match="differ in composition"):
        boundary_energy(atoms, [other], calculator)


def test_bulk_cells_reach_the_composition_of_a_perovskites_boundary() -> None:
    settings = CellSettings(kind="boundary", host="lstz", boundary="Sigma5[100](100)")
    reference = BulkReference(settings, read_mtp(SHIPPED / "lstz-level12.mtp"), fmax=0.2)
    assert reference.rank == 3
    # Crystals of few units round the Sr, as boundary cells do: no excess but that of the arrangement.
    for repeat, formula in (((3, 3, 4), "Li13O108Sr16Ta27Zr9"), ((2, 3, 4), "Li10O72Sr10Ta18Zr6")):
        crystal = lstz(repeat=repeat, rng=np.random.default_rng(5))
        assert crystal.get_chemical_formula() == formula
        crystal.info["boundary_area"] = 100.0
        energy, uncertainty = reference.boundary_energy(crystal)
        assert 0.0 < uncertainty < 0.2
        assert abs(energy) < 3 * uncertainty


def test_candidates_are_ranked_by_the_calculator() -> None:
    crystal = titanate()
    candidates = search(
        crystal, "Sigma5[100](01-2)", terminations=1, max_shifts=9, gaps=(0.0, 0.5), keep=3, relax_steps=5
    )
    assert [c.energy for c in candidates] == sorted(c.energy for c in candidates)
    calculator = LennardJones(sigma=2.0, epsilon=0.3, rc=4.5, smooth=True)
    ranked = rank(
        crystal, "Sigma5[100](01-2)", candidates, [bulk_titanate()], calculator,
        rng=np.random.default_rng(0), fmax=0.5, steps=5, min_separation=8.0,
    )  # fmt: skip
    energies = [r[0].value for r in ranked]
    assert energies == sorted(energies)
    assert len(set(energies)) > 1


def test_a_wider_search_does_not_find_worse() -> None:
    crystal = titanate()
    few = search(
        crystal, "Sigma5[100](01-2)", terminations=1, max_shifts=1, gaps=(0.5,), keep=1, relax_steps=0
    )
    many = search(
        crystal, "Sigma5[100](01-2)", terminations=2, max_shifts=16, gaps=(0.0, 0.5), keep=1, relax_steps=0
    )
    assert many[0].energy < few[0].energy - 0.05


def test_orthogonal_cells_on_request() -> None:
    crystal = titanate()
    options = dict(QUICK, max_shifts=9)
    candidate = search(crystal, "Sigma3[110](110)", orthogonal=True, **options)[0]  # type: ignore[arg-type]
    atoms = build(crystal, "Sigma3[110](110)", rng=np.random.default_rng(0), candidate=candidate)
    np.testing.assert_allclose(atoms.cell.array[2, :2], 0, rtol=0, atol=1e-9)


def test_errors_are_of_the_package() -> None:
    for error in (CoincidenceError, CompositionError, InputError):
        assert issubclass(error, AtomisticError)
