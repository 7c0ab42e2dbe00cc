"""Impedance of a Poisson-Nernst-Planck system about any state.

The small signal linearises the residual F and the storage Q of the transient itself: (G + i omega C) du = -b dV.
In (phi, eta) about a state without flux, G + sC is a real symmetric RC network, which `mesoion.rational_krylov`
reduces to a small passive one; about others the reduction is checked by true solutions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import scipy.linalg
from numpy.typing import ArrayLike, NDArray

from mesoion.errors import ConvergenceError, InputError
from mesoion.linear_algebra import Factor, SparsePattern, sums
from mesoion.rational_krylov import SOLUTIONS_PER_FACTOR, Links, Reduction, reduce_network
from mesoion.solve import PNPSystem, State

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]
Bools = NDArray[np.bool_]
Ints = NDArray[np.int64]

_DECADES_PER_SHIFT, _MOST_SHIFTS = 2.2, 24
# Parts of unit snapshots smaller than this are round-off.
_NEW = 1e-13
# eta this uniform [kT] means a state without flux.
_AT_REST = 1e-7


@dataclass(frozen=True, eq=False)
class Spectrum:
    """An impedance spectrum.

    frequency (n,) [Hz]. impedance (n,): of the whole specimen [ohm] in 3D, times depth [ohm m] in 2D, times area
    [ohm m^2] in 1D. error_bound (n,): bound of the numerical error relative to |Z|; zero for direct
    solves; about a biased state the tolerance, held at the frequencies where true solves check it.
    method: "reduced" or "direct"; n_solves: factorisations used.
    """

    frequency: Floats
    impedance: Complexes
    error_bound: Floats
    method: str
    n_solves: int
    unit: str = "ohm"

    @property
    def admittance(self) -> Complexes:
        """1/Z (n,)."""
        return np.asarray(1.0 / self.impedance)


@dataclass(frozen=True, eq=False)
class _Network:
    """Y(s) = own(s) + read(s).x, (G + sC) x = -b(s); b, read and own are linear in s: rows 0 and 1."""

    pattern: SparsePattern
    conductance: Floats
    capacity: Floats
    b: Floats  # (2, n)
    read: Floats  # (2, n)
    own: Floats  # (2,)
    groups: tuple[Bools, ...]
    symmetric: bool
    still: tuple[Bools, ...]  # unknowns of each species that no electrode passes
    balances: tuple[_Balance, ...]
    uniform: Floats  # (n,) per volt where everything follows one voltage
    ground: Floats  # (2, n): (G + sC) uniform
    loose: bool  # whether a charge transfer stands between the solid and an electrode

    def factor(self, s: complex) -> Factor | _ConservingFactor:
        data = self.conductance + s * self.capacity
        if self.balances:
            return _ConservingFactor(self, data, s)
        return self.pattern.factor(data, "both-ways", definite=self.symmetric)

    def admittances(self, s: Complexes) -> Complexes:
        """Y (k,) by a direct solution at each imaginary s (k,)."""
        if not self.pattern.banded or not self.symmetric or self.balances:
            return np.array([self.admittance(z) for z in s])
        first = int(np.argmax(np.any(self.b != 0.0, axis=0) | np.any(self.read != 0.0, axis=0)))
        x = self.pattern.solve_pencil(self.conductance, self.capacity, s.imag, self.b, first)
        read = self.read[:, first:]
        own: Complexes = self.own[0] + s * self.own[1] - x @ read[0] - s * (x @ read[1])
        return own

    def admittance(self, s: complex) -> complex:
        x = self.factor(s).solve(self.b[0] + s * self.b[1])
        return complex(self.own[0] + s * self.own[1] - (self.read[0] + s * self.read[1]) @ x)


@dataclass(frozen=True, eq=False)
class _Balance:
    """A weighted sum of rows of G + sC in which all large links cancel: row[0] + s row[1], known without them."""

    pin: int  # the row that the sum replaces
    weights: Floats  # (n,)
    row: Floats  # (2, n)


class _ConservingFactor:
    """Factors of G + sC with one row of each `_Balance` replaced by the sum.

    Elimination forgets what is small beside the links inside: s, and with it the amount of a blocked species that
    must stay, or the charge transfer that alone ties the solid to its electrodes. The sums hold nothing else.
    """

    def __init__(self, network: _Network, data: NDArray[Any], s: complex) -> None:
        pattern = network.pattern
        pinned = data.copy()
        self._pins = [balance.pin for balance in network.balances]
        self._members = np.array([balance.weights for balance in network.balances])
        self._sums = np.array([balance.row[0] + s * balance.row[1] for balance in network.balances])
        for pin in self._pins:
            row = pattern.rows == pin
            pinned[row] = 0.0
            pinned[row & (pattern.columns == pin)] = 1.0
        self._factor = pattern.factor(pinned, "both-ways")
        units = np.zeros((pattern.n, len(self._pins)))
        units[self._pins, np.arange(len(self._pins))] = 1.0
        self._response = self._factor.solve(units)
        self._small = self._sums @ self._response

    def solve(self, b: NDArray[Any]) -> NDArray[Any]:
        """x with A x = b, (n,) or (n, c)."""
        rhs = b.copy()
        rhs[self._pins] = 0.0
        x = self._factor.solve(rhs)
        shift = np.linalg.solve(self._small, self._members @ b - self._sums @ x)
        return np.asarray(x + self._response @ shift)

    def solve_transposed(self, b: NDArray[Any]) -> NDArray[Any]:
        """x with A^T x = b, (n,)."""
        # A = T^-1 M with M the matrix solved above and T the replacement of rows: x = T^T M^-T b.
        shift = np.linalg.solve(self._small.T, self._response.T @ b)
        rest = b - self._sums.T @ shift
        x = self._factor.solve_transposed(rest)
        x[self._pins] = 0.0
        return np.asarray(x + self._members.T @ shift)


def impedance(
    system: PNPSystem,
    state: State,
    frequencies: ArrayLike,
    *,
    electrode: str | None = None,
    tolerance: float = 1e-5,
    method: Literal["auto", "reduced", "direct"] = "auto",
) -> Spectrum:
    """Z = dV/dI about `state` at `frequencies` [Hz] > 0, seen at `electrode` (default: the last) with the others held.

    I is the whole current, ionic and displacement, of the electrode's own equations. method "reduced" projects on
    real-shift solutions until the error is below `tolerance` relative to |Z|; "direct" solves at every frequency;
    "auto" reduces, and solves directly where the reduction of a biased state fails its check.
    Raises InputError for frequencies that are not positive and for unknown electrodes.
    """
    f = np.atleast_1d(np.asarray(frequencies, dtype=float))
    if f.ndim != 1 or not len(f) or not np.all((f > 0.0) & np.isfinite(f)):
        raise InputError("frequencies", f.tolist()[:3], "give one list of frequencies above 0 Hz")
    if method not in ("auto", "reduced", "direct"):
        raise InputError("method", method, 'use "auto", "reduced" or "direct"')
    if not 0.0 < tolerance < 1.0:
        raise InputError("tolerance", tolerance, "give a number between 0 and 1")
    s = 2j * np.pi * f
    network = _network(system, state, electrode, float(s.imag.max()))
    unit = ("ohm m^2", "ohm m", "ohm")[system.mesh.dimension - 1]
    scale = system.discretisation.ampere() / system.discretisation.thermal_voltage
    # Along a line a direct solve costs no more than the reduction, and is exact.
    if method == "reduced" or (method == "auto" and not network.pattern.banded):
        # A biased state left to "auto" should not cost more than half of solving directly.
        budget = 2 * _MOST_SHIFTS if method == "reduced" else min(len(s) // 2, 2 * _MOST_SHIFTS)
        try:
            if network.symmetric:
                y, bound, n_solves = _reduce_symmetric(network, s, tolerance, _rate(system, state))
            else:
                y, bound, n_solves = _reduce_biased(network, s, tolerance, budget)
        except ConvergenceError:
            if method == "reduced":
                raise
        else:
            return Spectrum(f, 1.0 / (y * scale), bound, "reduced", n_solves, unit)
    y = network.admittances(s)
    return Spectrum(f, 1.0 / (y * scale), np.zeros(len(f)), "direct", len(f), unit)


def _network(system: PNPSystem, state: State, electrode: str | None, fastest: float) -> _Network:
    """The network seen at an electrode; `fastest` is the largest omega."""
    d = system.discretisation
    if not d.names:
        raise InputError("electrodes", "none", "an impedance needs at least one electrode")
    name = d.names[-1] if electrode is None else electrode
    if name not in d.names:
        raise InputError("electrode", name, f"the electrodes are {', '.join(d.names)}")
    lin = d.linearise(state.unknowns, d.voltages(state.voltages))
    ports = [d.drive(lin, index) for index in range(len(d.names))]
    conductance = np.where(d.poisson_entries, 0.0, lin.jacobian)
    capacity = np.where(d.poisson_entries, lin.jacobian, lin.capacity)
    inner = d.dof[: d.n_cells + 2 * d.n_split]
    groups = []
    taken = np.zeros(d.n_unknowns, dtype=bool)
    uniform = np.ones(d.n_unknowns)
    for component, charge in zip(inner.T, (1.0, *d.charges), strict=True):
        mask = np.zeros(d.n_unknowns, dtype=bool)
        mask[component] = True
        uniform[component] = charge
        groups.append(mask)
        taken |= mask
    if not np.all(taken):
        groups.append(~taken)
    at_rest = all(np.ptp(eta[: d.n_cells]) < _AT_REST for eta in state.profile.eta)
    still = tuple(groups[1 + index] for index in np.flatnonzero(d.blocked))
    pattern = d.pattern
    balances = []
    for index, members in zip(np.flatnonzero(d.blocked), still, strict=True):
        column_sums = sums(pattern.columns, capacity * members[pattern.rows], pattern.n)
        balances.append(
            _Balance(
                int(d.dof[system.pinned_cells[index], 1 + index]),
                members.astype(float),
                np.array([0.0 * column_sums, column_sums]),
            )
        )
    if len(d.free_wall_unknowns) == len(d.outer_faces) and not pattern.multigrid:
        # The charge that rows give up, weighted by their ions' charge, leaves through the electrodes.
        out = -np.sum([read for _, _, read, _ in ports], axis=0)
        balances.append(_Balance(int(d.dof[d.n_cells // 2, 0]), uniform, out))
    here = d.names.index(name)
    b_f, b_q, read, own = ports[here]
    if at_rest and len(ports) > 1:
        # What enters here leaves through the others: read where less cancels, at the looser end.
        others = [
            np.sum(parts, axis=0)
            for parts in zip(*(port for i, port in enumerate(ports) if i != here), strict=True)
        ]
        if others[3][0] + fastest * others[3][1] < own[0] + fastest * own[1]:
            b_f, b_q, read, own = others
    return _Network(
        pattern,
        conductance,
        capacity,
        np.array([b_f, b_q]),
        read,
        own,
        tuple(groups),
        at_rest,
        still,
        tuple(balances),
        uniform,
        -np.sum([[f, q] for f, q, _, _ in ports], axis=0),
        len(d.free_wall_unknowns) > 0,
    )


def _rate(system: PNPSystem, state: State) -> float:
    """Geometric mean of the largest and the smallest conductance over permittance of a link, sigma/eps [1/s]."""
    d, profile = system.discretisation, state.profile
    conductance = sum(z**2 * d.conductance(profile, i) for i, z in enumerate(d.charges))
    rates = conductance / d.field
    rates = rates[rates > 0.0]
    return float(np.sqrt(rates.min() * rates.max())) if len(rates) else 1.0


class _Projection:
    """A network restricted to a growing basis, kept apart for each kind of unknown."""

    def __init__(self, network: _Network) -> None:
        self.network = network
        self._waiting: list[Floats] = []
        n = len(network.b[0])
        self.basis, self._gw, self._cw = (np.zeros((n, 0)) for _ in range(3))
        self._g, self._c = np.zeros((0, 0)), np.zeros((0, 0))
        blocks: list[Floats] = []
        for mask in network.groups:
            if any(mask is members for members in network.still):
                # A uniform eta drives no flux: kept apart, so that its conductance is exactly zero.
                blocks.append(mask[:, np.newaxis] / np.sqrt(mask.sum()))
        self._still = len(blocks)
        if blocks:
            self._extend(np.concatenate(blocks, axis=1))

    def add(self, snapshot: Floats) -> None:
        self._waiting.append(snapshot)

    def project(self) -> None:
        """Take the parts of the snapshots added since that are new, for each kind of unknown."""
        columns = np.array(self._waiting).T
        self._waiting = []
        blocks: list[Floats] = []
        for mask in self.network.groups:
            part = columns[mask]
            size = np.linalg.norm(part, axis=0)
            part = part[:, size > 0.0] / size[size > 0.0]
            known = self.basis[mask]
            known = known[:, np.any(known, axis=0)]
            for _ in range(2):
                part = part - known @ (known.T @ part)
            if not part.shape[1]:
                continue
            q, r, _ = scipy.linalg.qr(part, mode="economic", pivoting=True)
            rank = int((np.abs(np.diag(r)) > _NEW).sum())
            block = np.zeros((len(mask), rank))
            block[mask] = q[:, :rank]
            blocks.append(block)
        self._extend(np.concatenate(blocks, axis=1))

    def _extend(self, block: Floats) -> None:
        n = self.network
        gw = n.pattern.multiply(n.conductance, block)
        cw = n.pattern.multiply(n.capacity, block)
        old = self.basis
        gw[:, : max(0, self._still - old.shape[1])] = 0.0
        g, c = old.T @ gw, old.T @ cw
        self._g = np.block([[self._g, g], [block.T @ self._gw, block.T @ gw]])
        self._c = np.block([[self._c, c], [block.T @ self._cw, block.T @ cw]])
        self._g[: self._still] = 0.0
        self.basis = np.concatenate([old, block], axis=1)
        self._gw = np.concatenate([self._gw, gw], axis=1)
        self._cw = np.concatenate([self._cw, cw], axis=1)
        self._b, self._read = n.b @ self.basis, n.read @ self.basis

    def solve(self, s: Complexes) -> tuple[Complexes, Complexes]:
        """Y (k,) and reduced solutions (k, r) of (G + sC) x = b(s)."""
        n = self.network
        a = self._g + s[:, np.newaxis, np.newaxis] * self._c
        rhs = self._b[0] + s[:, np.newaxis] * self._b[1]
        scale = 1.0 / np.sqrt(np.abs(np.einsum("kii->ki", a)))
        a *= scale[:, :, np.newaxis] * scale[:, np.newaxis, :]
        x = np.linalg.solve(a, (rhs * scale)[:, :, np.newaxis])[:, :, 0] * scale
        read = self._read[0] + s[:, np.newaxis] * self._read[1]
        y = n.own[0] + s * n.own[1] - np.einsum("ki,ki->k", read, x)
        return y, x

    def residuals(self, s: Complexes, x: Complexes) -> Complexes:
        """b(s) - (G + sC) W x, (n, k), for imaginary s."""
        n, omega, xt = self.network, s.imag, x.T
        flat = np.concatenate([xt.real, xt.imag], axis=1)
        turned = np.concatenate([-omega * xt.imag, omega * xt.real], axis=1)
        both = self._gw @ flat + self._cw @ turned
        out = np.empty((len(n.b[0]), len(s)), dtype=complex)
        out.real = n.b[0][:, np.newaxis] - both[:, : len(s)]
        out.imag = n.b[1][:, np.newaxis] * omega - both[:, len(s) :]
        return out


def _first_shifts(omega: Floats) -> Floats:
    """Real shifts spread over the frequencies, geometric and away from the ends."""
    low, high = np.log(omega.min()), np.log(omega.max())
    count = max(1, round((high - low) / np.log(10.0) / _DECADES_PER_SHIFT))
    fractions = (np.arange(count) + 0.5) / count
    return np.asarray(np.exp(low + (high - low) * fractions))


def _reduce_symmetric(
    network: _Network, s: Complexes, tolerance: float, rate: float
) -> tuple[Complexes, Floats, int]:
    """Passive reduction of an RC network with its error bound; see `mesoion.rational_krylov`."""
    # A uniform eta of a species that nothing passes drives no flux: its conductance is exactly zero.
    still = np.array(network.still, dtype=float).reshape(-1, network.pattern.n)
    g, c = (network.pattern.compact(data) for data in (network.conductance, network.capacity))
    if network.loose:
        g, c = (Links(m, network.uniform, out) for m, out in zip((g, c), network.ground, strict=True))
    reduction = Reduction(
        g,
        c,
        network.b,
        network.own,
        still,
        float(np.clip(rate, s.imag.min(), s.imag.max())),
    )
    # An iterative solution costs the same at every shift.
    length = 1 if network.pattern.multigrid else SOLUTIONS_PER_FACTOR
    return reduce_network(reduction, network.factor, s.imag, tolerance, length)


def _unused(omega: float, shifts: list[float]) -> float:
    """The shift nearest to omega, among omega and points around it, that was not taken yet."""
    for power in range(2 * len(shifts) + 1):
        candidate = omega * 1.7 ** ((-1) ** power * ((power + 1) // 2))
        if not any(abs(np.log(candidate / used)) < 0.2 for used in shifts):
            return float(candidate)
    return float(omega)


def _reduce_biased(
    network: _Network, s: Complexes, tolerance: float, budget: int
) -> tuple[Complexes, Floats, int]:
    """Reduction about a state with flux: G is not symmetric, so true solves at the worst places check the error.

    The basis holds solutions and adjoint solutions; the product of both residuals estimates the error between
    the checked frequencies.
    """
    omega = s.imag
    projection = _Projection(network)
    n_solves = 0
    shifts: list[float] = []

    def snapshot(shift: float) -> None:
        shifts.append(shift)
        factor = network.factor(shift)
        projection.add(factor.solve(network.b[0] + shift * network.b[1]))
        projection.add(factor.solve_transposed(network.read[0] + shift * network.read[1]))

    for shift in _first_shifts(omega):
        snapshot(float(shift))
        n_solves += 1
    checked: dict[int, complex] = {}
    while True:
        projection.project()
        y, x = projection.solve(s)
        residual = np.abs(projection.residuals(s, x))
        size = np.abs(network.b[0])[:, np.newaxis] + np.abs(network.b[1])[:, np.newaxis] * omega
        measure = np.sqrt((residual**2).sum(axis=0) / (size**2).sum(axis=0))
        order = np.argsort(-measure)
        fresh = [int(i) for i in order if int(i) not in checked]
        # True values at the worst residual and in the largest gap between checks.
        for index in fresh[:1] + fresh[len(fresh) // 2 : len(fresh) // 2 + 1]:
            checked[index] = network.admittance(s[index])
            n_solves += 1
        errors = np.array([abs(y[i] / true - 1.0) for i, true in checked.items()])
        effectivity = max(e / max(measure[i], 1e-300) for e, i in zip(errors, checked, strict=True))
        bound = np.asarray(measure * effectivity)
        worst = max(float(bound.max()), float(errors.max()))
        if worst <= tolerance:
            # Between the frequencies checked the estimate can be far too small: no less than what was asked for.
            return y, np.maximum(bound, tolerance), n_solves
        if n_solves >= budget:
            raise ConvergenceError(
                f"the reduced model of the biased state still errs by {worst:.1g} after {n_solves} factorisations; "
                'use method "direct" or a larger tolerance',
                at=f"{omega[int(np.argmax(bound))] / (2.0 * np.pi):.3g} Hz",
            )
        snapshot(_unused(float(omega[int(np.argmax(bound))]), shifts))
        n_solves += 1
