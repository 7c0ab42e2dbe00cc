"""Passive reduction of a symmetric RC network with one port, by rational Krylov spaces at real shifts.

The port's admittance is Y(s) = own(s) - b(s)^T x, (G + sC) x = b(s), with G and C positive semidefinite and own and
b linear in s. With one solution x0 at a shift s0, x = x0 + (s - s0) u where (G + sC) u = d, d = b1 - C x0 does not
depend on s: u is sought by Galerkin's method in spaces grown by solutions at a few real shifts. Together with the
port itself that is a congruence of the network, so the reduced one is passive. Sources: Ruhe 1994; Druskin and
Simoncini 2011.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray

from mesoion.errors import ConvergenceError

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]

_MOST_SHIFTS = 24
# Solutions taken from a new factorisation, further ones from it later, and the distance that asks for a new one.
SOLUTIONS_PER_FACTOR, _LONGER, _LONGEST, _NEAR = 6, 3, 16, 10.0
# Squares of parts of unit vectors smaller than this are round-off.
_NEW = 1e-14
# A few units in the last place of each term of the admittance.
_ROUND_OFF = 1e-15


class Factor(Protocol):
    """A solver of (G + sC) x = b at one real s."""

    def solve(self, b: Floats) -> Floats:
        """x, (n,) or (n, c) as b."""


class Links:
    """A symmetric matrix A with A u = g as its links w (x_i/u_i - x_j/u_j) and what ties it to the electrodes.

    Its products and energies are accurate relative to the currents in the links, also where A x is far smaller
    than the entries of A.
    """

    def __init__(self, matrix: sp.csc_matrix, uniform: Floats, ground: Floats) -> None:
        upper = sp.triu(matrix, 1, format="coo")
        i, j, count = upper.row, upper.col, upper.nnz
        self._weight = -upper.data * uniform[i] * uniform[j]
        rows = np.tile(np.arange(count), 2)
        data = np.concatenate([1.0 / uniform[i], -1.0 / uniform[j]])
        self._steps = sp.csr_matrix((data, (rows, np.concatenate([i, j]))), shape=(count, len(uniform)))
        self._back = self._steps.T.tocsr()
        self._ground, self._uniform = ground / uniform, uniform

    def __matmul__(self, x: Floats) -> Floats:
        return np.asarray(self._back @ (self._weight * (self._steps @ x)) + self._ground * x)

    def energy(self, x: Floats, b: Floats) -> float:
        """own - 2 b.x + x.A x, for a port whose links to the nodes are -b; own is their sum."""
        links = -self._uniform * b
        y = x / self._uniform
        steps = self._steps @ x
        others = self._ground * self._uniform**2 - links
        return float(steps @ (self._weight * steps) + others @ y**2 + links @ (1.0 + y) ** 2)


class Reduction:
    """A growing reduced network, kept in the inner product of P = G + sigma C at one real sigma.

    The space W of u holds solutions with right-hand sides d and C W at real shifts. So (G + sC) W y lies in the span
    of d and C W, and the residual of Galerkin's y is at every s a multiple of one vector r.
    """

    def __init__(
        self,
        conductance: sp.csc_matrix | Links,
        capacity: sp.csc_matrix | Links,
        b: Floats,
        own: Floats,
        still: Floats,
        sigma: float,
    ) -> None:
        """b (2, n) and own (2,): values at s = 0 and slopes. still (m, n): what G maps to zero, exactly."""
        self._conductance, self._capacity = conductance, capacity
        self._b, self._own = b, own
        self.sigma = sigma
        self._w, self._pw = np.zeros((0, b.shape[1])), np.zeros((0, b.shape[1]))
        self._c = np.zeros((0, 0))
        self._still = 0
        if len(still):
            self._extend(still)
            self._still = len(self._w)
            self._c = np.eye(self._still) / sigma

    def lift(self, shift: float, factor: Factor) -> None:
        """Take the solution at `shift` as x0; its own error counts to first order in Y."""
        self._s0 = shift
        self._x0 = factor.solve(self._b[0] + shift * self._b[1])
        self._d = self._b[1] - self._capacity @ self._x0
        if isinstance(self._conductance, Links) and isinstance(self._capacity, Links):
            # Sums of positive parts: nothing cancels.
            at_rest = self._conductance.energy(self._x0, self._b[0])
            slope = self._capacity.energy(self._x0, self._b[1])
        else:
            slope = float(self._own[1] - self._b[1] @ self._x0 - self._x0 @ self._d)
            at_rest = float(self._own[0] - self._b[0] @ self._x0 + shift * (self._x0 @ self._d))
        self._first = at_rest, slope
        self.residual = self._d

    def chain(self, factor: Factor, start: Floats, length: int) -> list[Floats]:
        """`start`, A^-1 C start, ... by Lanczos' recurrence, A that of `factor`: `length` vectors."""
        out: list[Floats] = []
        before: list[tuple[Floats, Floats]] = []
        x = start
        for step in range(length):
            for _ in range(2):
                for v, cv in before[-2:]:
                    x = x - v * (cv @ x)
            cx = self._capacity @ x
            square = float(x @ cx)
            if not square > 0.0:
                break
            size = 1.0 / np.sqrt(square)
            before.append((x * size, cx * size))
            out.append(before[-1][0])
            if step + 1 < length:
                x = factor.solve(before[-1][1])
        return out

    def extend(self, vectors: list[Floats], at: complex) -> None:
        """Add vectors to the space; r is taken from the residual at s = `at`."""
        self._extend(np.array(vectors))
        wd = self._w @ self._d
        m = self._still
        slow, turn = np.linalg.eigh(self._c[m:, m:])
        # The rates of relaxation lambda of the modes are 1/slow - sigma.
        self._slow = np.concatenate([np.full(m, 1.0 / self.sigma), slow.clip(0.0, 1.0 / self.sigma)])
        self._modes = np.eye(len(wd))
        self._modes[m:, m:] = turn
        self._coefficients = wd @ self._modes
        full = self.true_residual(at) / (at - self._s0)
        r = full.real if np.linalg.norm(full.real) > np.linalg.norm(full.imag) else full.imag
        self.residual = np.ascontiguousarray(r)
        self._square = float(r @ r)
        self._rd = float(r @ self._d)
        rc = self._capacity @ r
        rp = self._conductance @ r + self.sigma * rc
        self._r = np.array([self._w @ rp, self._w @ rc]) @ self._modes

    def _extend(self, block: Floats) -> None:
        pb = np.array([self._conductance @ v + self.sigma * (self._capacity @ v) for v in block])
        size = np.sqrt(np.einsum("ij,ij->i", block, pb))
        good = size > 0.0
        block, pb = block[good] / size[good, np.newaxis], pb[good] / size[good, np.newaxis]
        for _ in range(2):
            known = pb @ self._w.T
            block, pb = block - known @ self._w, pb - known @ self._pw
            gram = block @ pb.T
            values, turn = np.linalg.eigh(0.5 * (gram + gram.T))
            new = values > _NEW
            turn = turn[:, new] / np.sqrt(values[new])
            block, pb = turn.T @ block, turn.T @ pb
        cb = np.array([self._capacity @ v for v in block]).reshape(block.shape)
        across, corner = self._w @ cb.T, block @ cb.T
        across[: self._still] = 0.0
        self._c = np.block([[self._c, across], [across.T, 0.5 * (corner + corner.T)]])
        self._w, self._pw = np.concatenate([self._w, block]), np.concatenate([self._pw, pb])

    def _reduced(self, s: Complexes) -> Complexes:
        """Reduced u (k, modes) at each s (k,)."""
        return np.asarray(self._coefficients / (1.0 + (s[:, np.newaxis] - self.sigma) * self._slow))

    def admittance(self, s: Complexes) -> tuple[Complexes, Complexes, Floats]:
        """Y (k,) at each s (k,), the multiples (k,) of r that are the residuals of x, and Y's round-off (k,)."""
        step, y = s - self._s0, self._reduced(s)
        exact = self._first[0] + s * self._first[1]
        along = self._rd - y @ self._r[0] - (s - self.sigma) * (y @ self._r[1])
        scale = 1.0 / self._square if self._square > 0.0 else 0.0
        # Terms that cancel, and 1/sigma in the reduced C beside modes far faster than sigma.
        moved = np.abs(y) @ np.abs(self._coefficients)
        moved = moved + np.abs(s / self.sigma - 1.0) * np.einsum("ki,ki->k", y, y.conj()).real
        rounded = _ROUND_OFF * (np.abs(s * self._first[1]) + np.abs(step) ** 2 * moved)
        return exact - step**2 * (y @ self._coefficients), step * along * scale, rounded

    def true_residual(self, s: complex) -> Complexes:
        """b(s) - (G + sC) x of the reduced solution x at one s, formed in full."""
        y = self._modes @ self._reduced(np.array([s]))[0]
        x = self._x0 + (s - self._s0) * (y @ self._w)
        gx = self._conductance @ x.real + 1j * (self._conductance @ x.imag)
        cx = self._capacity @ x.real + 1j * (self._capacity @ x.imag)
        return np.asarray(self._b[0] + s * self._b[1] - gx - s * cx)


def reduce_network(
    network: Reduction,
    factor: Callable[[float], Factor],
    omega: Floats,
    tolerance: float,
    length: int = SOLUTIONS_PER_FACTOR,
) -> tuple[Complexes, Floats, int]:
    """Y (k,) at s = i omega (k,) with bounds (k,) of its error relative to |Y|, and the factorisations made.

    With P = G + omega C and the residual a r, |Y - Y_r| <= sqrt(2) |a|^2 h, h(omega) = r^T P^-1 r. One solution at
    every factorised shift gives h there; 1/h is concave, so that its chords bound h between them, and the ends of
    the frequencies are among the shifts. `length` is how many solutions a
    factorisation is worth. Raises ConvergenceError where the tolerance is not reached.
    """
    s = np.asarray(1j * omega, dtype=np.complex128)
    low, high = float(omega.min()), float(omega.max())
    shifts: list[float] = []
    factors: list[Factor] = []
    taken: list[int] = []

    def solutions(at: int, count: int) -> list[Floats]:
        taken[at] += count
        return network.chain(factors[at], factors[at].solve(network.residual), count)

    def add(shift: float) -> int:
        shifts.append(shift)
        factors.append(factor(shift))
        taken.append(0)
        return len(shifts) - 1

    network.lift(low, factors[add(low)])
    vectors = solutions(0, 1)
    if high > _NEAR * low:
        vectors += solutions(add(network.sigma), length)
    if high > low:
        vectors += solutions(add(high), 1)
    worst = len(s) // 2
    while True:
        network.extend(vectors, complex(s[worst]))
        y, size, rounded = network.admittance(s)
        vectors = [f.solve(network.residual) for f in factors]
        order = np.argsort(shifts)
        h = np.array([max(float(v @ network.residual), 1e-300) for v in vectors])
        inverse = np.interp(omega, np.array(shifts)[order], 1.0 / h[order])
        bound = np.sqrt(2.0) * np.abs(size) ** 2 / inverse / np.abs(y)
        worst = int(np.argmax(bound))
        distance = np.abs(np.log(np.array(shifts) / omega[worst]))
        near = int(np.argmin(distance))
        if bound[worst] <= tolerance:
            # Round-off and inexact solutions could break the residual's form: formed in full, it is no larger.
            r = network.true_residual(complex(s[worst]))
            parts = np.stack([r.real, r.imag], axis=1)
            true = float(np.sum(parts * factors[near].solve(parts)))
            bound = bound * max(1.0, true / max(abs(size[worst]) ** 2 * h[near], 1e-300))
            if bound[worst] <= tolerance:
                return y, bound + rounded / np.abs(y), len(shifts)
        if len(shifts) >= _MOST_SHIFTS:
            raise ConvergenceError(
                f"the reduced model still errs by {bound[worst]:.1g} after {len(shifts)} factorisations; use method "
                '"direct" or a larger tolerance',
                at=f"{omega[worst] / (2.0 * np.pi):.3g} Hz",
            )
        if length > 1 and distance[near] < np.log(_NEAR) and taken[near] < _LONGEST:
            taken[near] += _LONGER
            vectors += network.chain(factors[near], vectors[near], _LONGER)[1:]
        else:
            vectors += solutions(add(float(omega[worst])), length)
