"""Files of moment tensor potentials: exact round trips, motep in both directions, damage named or harmless."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atomistic.errors import AtomisticError, FileFormatError, InputError, PotentialError, SpeciesError
from atomistic.mtp.basis import untrained
from atomistic.mtp.potential import MTPotential, format_mtp, read_mtp, write_mtp

DATA = Path(__file__).parent / "data" / "al_cu_level6.mtp"


def random_potential(level: int, species: tuple[str, ...] = ("Li", "La", "O"), seed: int = 0) -> MTPotential:
    rng = np.random.default_rng(seed)
    potential = untrained(species, level, cutoff=5.0, min_distance=1.5, rng=rng)
    return potential.with_parameters(rng.normal(size=potential.parameters.size))


@pytest.mark.parametrize("level", [2, 4, 8, 16])
def test_a_written_file_reads_back_to_the_last_digit(tmp_path: Path, level: int) -> None:
    potential = random_potential(level)
    potential.save(tmp_path / "p.mtp")
    again = MTPotential.load(tmp_path / "p.mtp")
    assert again == potential
    assert again.species == ("Li", "La", "O")
    np.testing.assert_array_equal(again.parameters, potential.parameters)


@pytest.mark.parametrize("level", [2, 8, 12])
def test_motep_reads_ours_identically(tmp_path: Path, level: int) -> None:
    motep = pytest.importorskip("motep.io.mlip.mtp")
    potential = random_potential(level)
    write_mtp(potential, tmp_path / "p.mtp")
    theirs = motep.read_mtp(tmp_path / "p.mtp")
    np.testing.assert_array_equal(theirs.parameters, potential.parameters)
    np.testing.assert_array_equal(theirs.alpha_index_times, potential.alpha_index_times)
    assert (theirs.radial_basis.min, theirs.radial_basis.max) == (1.5, 5.0)


@pytest.mark.parametrize("legacy", [True, False])
def test_what_motep_writes_reads_back_with_the_species(tmp_path: Path, legacy: bool) -> None:
    motep = pytest.importorskip("motep.io.mlip.mtp")
    potential = random_potential(8)
    write_mtp(potential, tmp_path / "p.mtp")
    motep.write_mtp(tmp_path / "q.mtp", motep.read_mtp(tmp_path / "p.mtp"), legacy=legacy)
    again = read_mtp(tmp_path / "q.mtp")
    assert again.species == potential.species
    # motep writes 16 digits.
    np.testing.assert_allclose(again.parameters, potential.parameters, rtol=1e-15, atol=0)


def test_the_binary_active_set_of_mlip2_behind_the_text_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "p.mtp"
    path.write_bytes(DATA.read_bytes() + b"#MVS_v1.1\nenergy_weight 1\n#\x00\xff\xfe\x07")
    assert read_mtp(path) == read_mtp(DATA)


def test_windows_line_endings(tmp_path: Path) -> None:
    (tmp_path / "p.mtp").write_bytes(DATA.read_bytes().replace(b"\n", b"\r\n"))
    assert read_mtp(tmp_path / "p.mtp") == read_mtp(DATA)


def test_species_can_be_given_for_files_that_name_none(tmp_path: Path) -> None:
    text = DATA.read_text().replace("potential_tag = species: Al Cu", "potential_tag = ")
    (tmp_path / "p.mtp").write_text(text)
    unnamed = read_mtp(tmp_path / "p.mtp")
    assert unnamed.species == ()
    with pytest.raises(SpeciesError, match="names no species"):
        unnamed.types_of(["Al"])
    named = read_mtp(tmp_path / "p.mtp", ["Al", "Cu"])
    assert named == read_mtp(DATA)
    with pytest.raises(FileFormatError, match="is for Al Cu"):
        read_mtp(DATA, ["Cu", "Al"])
    with pytest.raises(InputError, match="Xx"):
        read_mtp(tmp_path / "p.mtp", ["Al", "Xx"])


def test_older_keys_and_a_scaling_of_the_radial_basis(tmp_path: Path) -> None:
    text = DATA.read_text()
    for new, old in (("min_dist", "min_val"), ("max_dist", "max_val"), ("radial_basis_size", "basis_size")):
        text = text.replace(f"{new} =", f"{old} =")
    (tmp_path / "p.mtp").write_text(text)
    assert read_mtp(tmp_path / "p.mtp") == read_mtp(DATA)
    # MLIP-2 multiplies the two.
    second = text.replace("RBChebyshev\n", "RBChebyshev\n\tscaling = 0.5\n")
    (tmp_path / "q.mtp").write_text(second)
    assert read_mtp(tmp_path / "q.mtp").scaling == 0.5 * read_mtp(DATA).scaling
    (tmp_path / "r.mtp").write_text(second.replace("scaling = 0.5", "scaling = 0.5\n\tscaling = 0.5"))
    with pytest.raises(FileFormatError, match="scaling stands twice"):
        read_mtp(tmp_path / "r.mtp")


def test_unknown_elements_are_named() -> None:
    with pytest.raises(SpeciesError, match=r"does not know O, Zr; it is for Al, Cu"):
        read_mtp(DATA).types_of(["Al", "Zr", "O"])


REFUSED = [
    ("MTP\n", "HTML\n", 1, "does not begin"),
    ("version = 1.1.0", "version = 2.0", 2, "version"),
    ("species_count = 2", "species_count = -2", 5, "species_count"),
    ("species_count = 2", "species_count = 999999999999", 5, "species_count"),
    ("RBChebyshev", "RBShapeev", 7, "RBShapeev"),
    ("max_dist = 5.0", "max_dist = nan", 9, "max_dist"),
    ("radial_funcs_count = 2", "radial_funcs_count = 3", 15, "radial functions"),
    ("0-1", "0-7", 16, "0-1"),
    ("{0.35", "{x0.35", 15, "number"),
    ("alpha_index_basic = {{", "alpha_index_basic = {", None, "alpha_index_basic"),
    ("alpha_scalar_moments = 5", "alpha_scalar_moments = 4", None, "alpha_scalar_moments"),
    ("moment_coeffs = {", "moment_coefs = {", None, "moment_coefs"),
    ("species: Al Cu", "species: Al Al", 6, "once"),
]


@pytest.mark.parametrize(("old", "new", "line", "words"), REFUSED)
def test_damage_is_named_with_its_line(
    tmp_path: Path, old: str, new: str, line: int | None, words: str
) -> None:
    text = DATA.read_text()
    assert old in text
    path = tmp_path / "p.mtp"
    path.write_text(text.replace(old, new, 1))
    with pytest.raises(FileFormatError, match=words) as caught:
        read_mtp(path)
    assert str(path) in str(caught.value)
    if line is not None:
        assert caught.value.line == line


def test_foreign_missing_and_untrained_files(tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match="cannot be read"):
        read_mtp(tmp_path / "none.mtp")
    with pytest.raises(FileFormatError, match="cannot be read"):
        read_mtp(tmp_path)
    (tmp_path / "b.mtp").write_bytes(b"\x7fELF\xff\xff")
    with pytest.raises(FileFormatError, match="not a text file"):
        read_mtp(tmp_path / "b.mtp")
    head = DATA.read_text().split("species_coeffs")[0]
    (tmp_path / "u.mtp").write_text(head)
    with pytest.raises(FileFormatError, match="train it first"):
        read_mtp(tmp_path / "u.mtp")


def test_tables_that_cannot_be_evaluated_in_order_are_refused() -> None:
    potential = random_potential(8)
    times = potential.alpha_index_times.copy()
    times[[0, -1]] = times[[-1, 0]]
    with pytest.raises(PotentialError, match="before it is complete"):
        replace(potential, alpha_index_times=times)
    with pytest.raises(PotentialError, match="twice"):
        replace(potential, alpha_moment_mapping=np.zeros_like(potential.alpha_moment_mapping))
    with pytest.raises(PotentialError, match="finite"):
        replace(potential, species_coefficients=np.array([0.0, np.inf, 0.0]))


def test_arrays_are_read_only_and_parameters_have_one_length() -> None:
    potential = random_potential(6)
    with pytest.raises(ValueError, match="read-only"):
        potential.radial_coefficients[0, 0, 0, 0] = 1.0
    with pytest.raises(InputError, match="length"):
        potential.with_parameters(np.zeros(3))


def _read_or_refuse(path: Path) -> None:
    """Damage gives a typed error with the path, or a potential that is as good as any: it writes and reads back."""
    complaint = ""
    try:
        potential = read_mtp(path)
    except FileFormatError as error:
        complaint = str(error)
    if complaint:
        assert str(path) in complaint
        return
    again = path.with_suffix(".again")
    again.write_text(format_mtp(potential), encoding="utf-8")
    assert read_mtp(again) == potential


def test_random_mutations_of_a_valid_file(tmp_path: Path) -> None:
    original = DATA.read_bytes()
    rng = np.random.default_rng(7)
    path = tmp_path / "p.mtp"
    for _ in range(1500):
        data = bytearray(original)
        for _ in range(int(rng.integers(1, 4))):
            kind, at = rng.integers(5), int(rng.integers(len(data)))
            if kind == 0:
                data[at] = int(rng.integers(256))
            elif kind == 1:
                del data[at : at + int(rng.integers(1, 40))]
            elif kind == 2:
                data[at:at] = data[at : at + int(rng.integers(1, 40))]
            elif kind == 3:
                data[at] = rng.choice(list(b"0123456789{},-=.e \n"))
            else:
                del data[at:]
            if not data:
                break
        path.write_bytes(bytes(data))
        _read_or_refuse(path)


@settings(max_examples=100, deadline=None)
@given(st.text(alphabet="MTP=\n {},0123456789.-eradilfcoulnpts_", max_size=300))
def test_any_text_is_a_potential_or_a_named_error(
    tmp_path_factory: pytest.TempPathFactory, text: str
) -> None:
    path = tmp_path_factory.mktemp("any") / "p.mtp"
    path.write_text("MTP\n" + text)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(AtomisticError):
            read_mtp(path)
