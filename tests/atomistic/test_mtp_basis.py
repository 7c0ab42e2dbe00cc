"""Basis tables: published counts, the contractions themselves, invariance."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from scipy.spatial.transform import Rotation

from atomistic.errors import InputError
from atomistic.mtp.basis import BasisTables, basis_tables, untrained

# level: radial functions, basic moments, scalars, and moments and products as an upper limit. These are the
# counts of the tables that come with MLIP-2 (untrained_mtps/02.mtp to 28.mtp).
PUBLISHED = {
    2: (1, 1, 1, 1, 0),
    4: (1, 1, 2, 2, 1),
    6: (2, 5, 5, 8, 5),
    8: (2, 11, 9, 18, 14),
    10: (3, 25, 16, 41, 42),
    12: (3, 46, 29, 84, 117),
    14: (4, 81, 52, 174, 348),
    16: (4, 130, 92, 350, 969),
    18: (5, 201, 163, 718, 2634),
    20: (5, 295, 288, 1352, 6349),
    22: (6, 421, 500, 2621, 15431),
    24: (6, 581, 864, 4991, 36170),
    26: (6, 706, 1464, 9396, 82520),
    28: (6, 866, 2445, 17366, 180069),
}


def scalars(
    tables: BasisTables, f: npt.NDArray[np.float64], u: npt.NDArray[np.float64]
) -> npt.NDArray[np.float64]:
    """B of one neighbourhood: f (neighbours, functions), unit vectors u (neighbours, 3)."""
    m = np.zeros(tables.moment_count)
    for b, (mu, x, y, z) in enumerate(tables.alpha_index_basic):
        m[b] = (f[:, mu] * u[:, 0] ** x * u[:, 1] ** y * u[:, 2] ** z).sum()
    for left, right, factor, out in tables.alpha_index_times:
        m[out] += factor * m[left] * m[right]
    return m[tables.alpha_moment_mapping]


def neighbourhood(seed: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    rng = np.random.default_rng(seed)
    u = rng.normal(size=(12, 3))
    return rng.uniform(0.2, 1.0, (12, 6)), u / np.linalg.norm(u, axis=1)[:, None]


@pytest.mark.parametrize("level", PUBLISHED)
def test_counts_agree_with_the_published_tables(level: int) -> None:
    tables = basis_tables(level)
    functions, basic, n_scalars, moments, products = PUBLISHED[level]
    assert tables.radial_function_count == functions
    assert len(tables.alpha_index_basic) == basic
    assert tables.scalar_count == n_scalars
    # Our splits of the contractions need no more intermediate moments; up to level 12 exactly as many.
    assert tables.moment_count <= moments
    assert len(tables.alpha_index_times) <= products
    if level <= 12:
        assert (tables.moment_count, len(tables.alpha_index_times)) == (moments, products)


def test_parameters_of_a_five_component_potential_of_level_8() -> None:
    potential = untrained(
        ["Li", "La", "Zr", "Ta", "O"], 8, cutoff=5.0, min_distance=1.5, rng=np.random.default_rng(0)
    )
    assert potential.parameters.size == 9 + 5 + 5 * 5 * 2 * 8 == 414


@pytest.mark.parametrize("level", [8, 12, 16, 20])
def test_scalars_do_not_change_under_rotation_and_reflection(level: int) -> None:
    f, u = neighbourhood(1)
    turn = Rotation.random(rng=np.random.default_rng(2)).as_matrix()
    tables = basis_tables(level)
    before = scalars(tables, f, u)
    np.testing.assert_allclose(scalars(tables, f, u @ turn), before, rtol=1e-9, atol=1e-10)
    np.testing.assert_allclose(scalars(tables, f, -u), before, rtol=1e-12, atol=0)


def test_levels_are_nested() -> None:
    f, u = neighbourhood(3)
    lower = scalars(basis_tables(10), f, u)
    higher = scalars(basis_tables(14), f, u)
    for value in lower:
        assert np.isclose(higher, value, rtol=1e-12, atol=0).any()


def test_scalars_are_all_contractions_of_explicit_tensors() -> None:
    """Level 12 against einsum over full tensors, contraction by contraction."""
    f, u = neighbourhood(4)

    def tensor(mu: int, rank: int) -> npt.NDArray[np.float64]:
        letters = "abcd"[:rank]
        factors = ",".join(["i", *(f"i{letter}" for letter in letters)])
        return np.asarray(np.einsum(f"{factors}->{letters}", f[:, mu], *[u] * rank))

    expected = []
    vertices = [(mu, rank) for mu in range(3) for rank in range(5)]
    seen = set()
    for n in range(1, 5):
        for chosen in itertools.combinations_with_replacement(vertices, n):
            if sum(2 + 4 * mu + rank for mu, rank in chosen) > 12:
                continue
            for subscripts in contractions([rank for _, rank in chosen]):
                operands = [tensor(mu, rank) for mu, rank in chosen]
                value = float(np.einsum(",".join(subscripts) + "->", *operands))
                key = (tuple(chosen), round(value, 9))
                if key not in seen:
                    seen.add(key)
                    expected.append(value)
    got = np.sort(scalars(basis_tables(12), f, u))
    np.testing.assert_allclose(got, np.sort(expected), rtol=1e-10, atol=0)


def contractions(ranks: list[int]) -> list[list[str]]:
    """All ways to join the legs of tensors in pairs, never within one tensor, as einsum subscripts."""
    legs = [(t, k) for t, rank in enumerate(ranks) for k in range(rank)]
    found = []

    def join(free: list[tuple[int, int]], pairs: list[tuple[tuple[int, int], tuple[int, int]]]) -> None:
        if not free:
            names = {}
            for letter, (a, b) in zip("abcdefghijkl", pairs, strict=False):
                names[a] = names[b] = letter
            found.append(["".join(names[t, k] for k in range(rank)) for t, rank in enumerate(ranks)])
            return
        for other in free[1:]:
            if other[0] != free[0][0]:
                join([leg for leg in free[1:] if leg != other], [*pairs, (free[0], other)])

    if len(legs) % 2 == 0:
        join(legs, [])
    return found


@pytest.mark.parametrize("level", [0, 1, 29, 8.0, "8", -4])
def test_other_levels_are_refused(level: object) -> None:
    with pytest.raises(InputError, match="level"):
        basis_tables(level)  # type: ignore[arg-type]


def test_untrained_refuses_impossible_ranges() -> None:
    rng = np.random.default_rng(0)
    with pytest.raises(InputError, match="min_distance"):
        untrained(["Li"], 8, cutoff=2.0, min_distance=3.0, rng=rng)
    with pytest.raises(InputError, match="radial_basis_size"):
        untrained(["Li"], 20, cutoff=5.0, min_distance=1.0, rng=rng, radial_basis_size=4)
    with pytest.raises(InputError, match="Lj"):
        untrained(["Lj"], 8, cutoff=5.0, min_distance=1.0, rng=rng)
