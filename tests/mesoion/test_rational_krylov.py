"""The passive reduction of RC networks against dense algebra on random networks."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.sparse as sp
from hypothesis import given, settings
from hypothesis import strategies as st

from mesoion.errors import ConvergenceError
from mesoion.rational_krylov import Reduction, reduce_network


class Network:
    """A chain of n nodes with shunts, resistors and capacitors over `decades`, and a port at its first node."""

    def __init__(self, n: int, decades: float, seed: int) -> None:
        rng = np.random.default_rng(seed)

        def chain(ground: float) -> np.ndarray:
            link = 10.0 ** rng.uniform(-decades / 2, decades / 2, n + 1)
            whole = np.diag(np.r_[link, 0.0]) + np.diag(np.r_[0.0, link])
            whole -= np.diag(link, 1) + np.diag(link, -1)
            # The last node is earth; the first is the port.
            return whole[:-1, :-1] + ground * np.diag(10.0 ** rng.uniform(-decades, 0.0, n + 1))

        self.g, self.c = chain(0.0), chain(1.0)
        self.own = np.array([self.g[0, 0], self.c[0, 0]])
        self.b = -np.array([self.g[0, 1:], self.c[0, 1:]])
        self.solves = 0

    def reduction(self, sigma: float) -> Reduction:
        g, c = (sp.csc_matrix(m[1:, 1:]) for m in (self.g, self.c))
        return Reduction(g, c, self.b, self.own, np.zeros((0, len(self.g) - 1)), sigma)

    def factor(self, shift: float) -> Dense:
        return Dense(self.g[1:, 1:] + shift * self.c[1:, 1:])

    def admittance(self, s: complex) -> complex:
        x = np.linalg.solve(self.g[1:, 1:] + s * self.c[1:, 1:], self.b[0] + s * self.b[1])
        return complex(self.own[0] + s * self.own[1] - (self.b[0] + s * self.b[1]) @ x)


class Dense:
    def __init__(self, matrix: np.ndarray) -> None:
        self.inverse = np.linalg.inv(matrix)

    def solve(self, b: np.ndarray) -> np.ndarray:
        return np.asarray(self.inverse @ b)


@settings(max_examples=25, deadline=None)
@given(
    n=st.integers(2, 120),
    decades=st.floats(0.5, 4.0),
    seed=st.integers(0, 2**31),
    tolerance=st.sampled_from([1e-2, 1e-4, 1e-6]),
    width=st.floats(0.0, 8.0),
    length=st.sampled_from([1, 6]),
)
def test_error_is_below_its_bound(
    n: int, decades: float, seed: int, tolerance: float, width: float, length: int
) -> None:
    network = Network(n, decades, seed)
    omega = np.logspace(-width / 2, width / 2, 25)
    y, bound, _ = reduce_network(network.reduction(1.0), network.factor, omega, tolerance, length)
    exact = np.array([network.admittance(1j * w) for w in omega])
    assert bound.max() <= tolerance
    error = np.abs(y / exact - 1.0)
    assert np.all(error <= 1.001 * bound + 1e-9)


def test_the_bound_is_not_far_from_the_error() -> None:
    network = Network(300, 3.0, 7)
    omega = np.logspace(-4, 4, 40)
    y, bound, n_factors = reduce_network(network.reduction(1.0), network.factor, omega, 1e-4)
    error = np.abs(y / np.array([network.admittance(1j * w) for w in omega]) - 1.0)
    worst = int(np.argmax(bound))
    assert bound[worst] < 100.0 * error[worst]
    assert n_factors <= 6


def test_the_reduced_network_is_passive_and_exact_at_its_shifts() -> None:
    """A real part above zero in the whole right half plane, and no error at the shift of the lift."""
    network = Network(200, 4.0, 3)
    reduction = network.reduction(1.0)
    factor = network.factor(0.03)
    reduction.lift(0.03, factor)
    reduction.extend(reduction.chain(factor, factor.solve(reduction.residual), 4), 0.3j)
    rng = np.random.default_rng(0)
    s = 10.0 ** rng.uniform(-6, 6, 500) * np.exp(1j * rng.uniform(-0.5, 0.5, 500) * np.pi)
    y, _, _ = reduction.admittance(s)
    assert y.real.min() > 0.0
    at = np.array([0.03 + 0j])
    np.testing.assert_allclose(reduction.admittance(at)[0], network.admittance(0.03), rtol=1e-12, atol=0)
    # Galerkin's value lies above the true one at real s, where both are energies.
    real = np.array([1e-3, 0.5, 20.0])
    exact = np.array([network.admittance(x).real for x in real])
    assert np.all(reduction.admittance(real + 0j)[0].real > exact)


def test_residuals_are_multiples_of_one_vector() -> None:
    network = Network(150, 2.0, 5)
    reduction = network.reduction(1.0)
    low, middle = network.factor(0.01), network.factor(1.0)
    reduction.lift(0.01, low)
    vectors = reduction.chain(low, low.solve(reduction.residual), 1)
    vectors += reduction.chain(middle, middle.solve(reduction.residual), 3)
    reduction.extend(vectors, 1j)
    for s in (0.1j, 5j, 100j, 0.3 + 0j):
        true = reduction.true_residual(s)
        factor = reduction.admittance(np.array([s]))[1][0]
        assert np.linalg.norm(true - factor * reduction.residual) < 1e-9 * np.linalg.norm(true)


@pytest.mark.parametrize("seed", range(6))
def test_inexact_solutions_do_not_make_the_bound_lie(seed: int) -> None:
    """But for the first, their residuals are not multiples of one vector: formed in full at the worst place."""
    network = Network(100, 4.0, seed)
    omega = np.logspace(-3, 3, 20)

    class Sloppy(Dense):
        def solve(self, b: np.ndarray) -> np.ndarray:
            return np.asarray((super().solve(b).T * (1.0 + 1e-4 * np.sin(np.arange(len(b))))).T)

    def factor(shift: float) -> Dense:
        kind = Dense if shift == omega[0] else Sloppy
        return kind(network.g[1:, 1:] + shift * network.c[1:, 1:])

    exact = np.array([network.admittance(1j * w) for w in omega])
    y, bound, _ = reduce_network(network.reduction(1.0), factor, omega, 1e-5)
    assert np.abs(y / exact - 1.0).max() <= 1.01 * bound.max()


def test_an_unreachable_tolerance_is_said() -> None:
    network = Network(400, 8.0, 1)
    with pytest.raises(ConvergenceError, match="still errs"):
        reduce_network(network.reduction(1.0), network.factor, np.logspace(-6, 6, 30), 1e-300, 1)
