"""Elimination by fronts against dense algebra, on patterns of meshes and on random ones."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from mesoion.fronts import analyse
from mesoion.linear_algebra import SparsePattern, elimination_order
from mesoion.multifrontal import Elimination


def laplacian(nx: int, ny: int, seed: int) -> sp.csc_matrix:
    """A grounded Laplacian of a grid with random weights over eight decades, in nested dissection order."""
    index = np.arange(nx * ny).reshape(nx, ny)
    k = np.r_[index[:-1].ravel(), index[:, :-1].ravel()]
    m = np.r_[index[1:].ravel(), index[:, 1:].ravel()]
    rng = np.random.default_rng(seed)
    weight = 10.0 ** rng.uniform(-4, 4, len(k))
    position = elimination_order(nx * ny, k, m, rng.uniform(size=(nx * ny, 2)))
    i, j = position[k], position[m]
    n = nx * ny
    ground = np.zeros(n)
    ground[position[index[0]]] = 1.0
    data = np.r_[weight, weight, -weight, -weight, ground]
    rows, columns = np.r_[i, j, i, j, np.arange(n)], np.r_[i, j, j, i, np.arange(n)]
    return sp.csc_matrix(sp.coo_matrix((data, (rows, columns)), shape=(n, n)))


def residual(matrix: sp.csc_matrix, x: np.ndarray, b: np.ndarray) -> float:
    """Largest componentwise backward error (Oettli and Prager)."""
    scale = abs(matrix) @ abs(x) + abs(b)
    return float((abs(matrix @ x - b) / scale).max())


@pytest.mark.parametrize(("nx", "ny"), [(1, 1), (1, 40), (7, 5), (60, 45)])
def test_cholesky_and_lu_solve_a_grid_to_round_off(nx: int, ny: int) -> None:
    matrix = laplacian(nx, ny, 1)
    fronts = analyse(matrix.indptr, matrix.indices)
    rng = np.random.default_rng(2)
    for definite in (True, False):
        factors = Elimination(fronts, matrix.data, definite=definite)
        for shape in ((nx * ny,), (nx * ny, 1), (nx * ny, 5)):
            b = rng.normal(size=shape)
            x = factors.solve(b)
            assert x.shape == shape
            assert residual(matrix, x, b) < 1e-12


def test_fronts_hold_the_fill_of_the_factor() -> None:
    """Wide fronts cover at least the entries of L and do not add more than they are allowed."""
    matrix = laplacian(60, 45, 3)
    fronts = analyse(matrix.indptr, matrix.indices)
    dense = matrix.toarray()[np.ix_(fronts.order, fronts.order)]
    count = int((abs(np.linalg.cholesky(dense)) > 0.0).sum())
    width, below = np.diff(fronts.first), np.diff(fronts.start)
    stored = int((width * (width + 1) // 2 + width * below).sum())
    assert count <= stored <= 2.0 * count
    assert sorted(fronts.order) == list(range(matrix.shape[0]))
    assert len(fronts.first) - 1 < matrix.shape[0] // 3


@settings(max_examples=30, deadline=None)
@given(
    n=st.integers(2, 60),
    density=st.floats(0.0, 0.4),
    seed=st.integers(0, 2**31),
)
def test_lu_solves_both_ways_on_random_patterns(n: int, density: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    pattern = rng.uniform(size=(n, n)) < density
    pattern = pattern | pattern.T | np.eye(n, dtype=bool)
    dense = np.where(pattern, rng.normal(size=(n, n)), 0.0)
    dense[np.diag_indices(n)] = np.abs(dense).sum(axis=1) + np.abs(dense).sum(axis=0) + 0.1
    rows, columns = np.nonzero(pattern.T)[::-1]
    matrix = sp.csc_matrix(
        (dense[rows, columns], rows, np.r_[0, np.cumsum(pattern.sum(axis=0))]), shape=(n, n)
    )
    factors = Elimination(analyse(matrix.indptr, matrix.indices), matrix.data, definite=False)
    b = rng.normal(size=(n, 3))
    np.testing.assert_allclose(factors.solve(b), np.linalg.solve(dense, b), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(
        factors.solve(b, transposed=True), np.linalg.solve(dense.T, b), rtol=1e-10, atol=1e-12
    )


def test_rows_are_exchanged_inside_a_front() -> None:
    """A zero on the diagonal is no obstacle beside its own partner."""
    dense = np.array([[0.0, 2.0, 0.0], [3.0, 1.0, 1.0], [0.0, 1.0, 5.0]])
    matrix = sp.csc_matrix(dense)
    pattern = sp.csc_matrix(np.ones((3, 3)))
    data = dense.T[np.nonzero(np.ones((3, 3)))]
    factors = Elimination(analyse(pattern.indptr, pattern.indices), data, definite=False)
    b = np.array([1.0, -2.0, 3.0])
    np.testing.assert_allclose(matrix @ factors.solve(b), b, rtol=1e-14, atol=0)
    np.testing.assert_allclose(matrix.T @ factors.solve(b, transposed=True), b, rtol=1e-14, atol=0)


@pytest.mark.parametrize("definite", [True, False])
def test_singular_matrices_are_refused(definite: bool) -> None:
    matrix = laplacian(12, 9, 4)
    floating = matrix.copy()
    floating.setdiag(floating.diagonal() * (1.0 if not definite else -1.0))
    if not definite:
        floating.data[:] = 0.0
    with pytest.raises(ZeroDivisionError, match="singular"):
        Elimination(analyse(matrix.indptr, matrix.indices), floating.data, definite=definite)


def test_large_patterns_take_the_fronts_and_agree_with_superlu() -> None:
    matrix = laplacian(90, 70, 5)
    coo = matrix.tocoo()
    pattern = SparsePattern(coo.row.astype(np.int64), coo.col.astype(np.int64), matrix.shape[0])
    data = pattern.assemble(coo.data)
    b = np.random.default_rng(6).normal(size=(matrix.shape[0], 2))
    complex_ = pattern.factor(data.astype(complex), "both-ways", definite=True).solve(b)
    for definite in (True, False):
        x = pattern.factor(data, definite=definite).solve(b)
        np.testing.assert_allclose(x, complex_.real, rtol=1e-7, atol=1e-9 * np.abs(x).max())
        assert residual(matrix, x[:, 0], b[:, 0]) < 1e-12
    turned = pattern.factor(data).solve_transposed(b[:, 0] + 1j * b[:, 1])
    assert residual(matrix, turned.real, b[:, 0]) < 1e-10
    assert residual(matrix, turned.imag, b[:, 1]) < 1e-10
