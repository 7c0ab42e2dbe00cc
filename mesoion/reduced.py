"""Reduced-basis model of a collapsed polycrystal: its effective conductivity in microseconds, with an error bound.

The conduction problem is affine, A(q) = sum_i q_i A_i with symmetric A_i, and its output is an energy. A Galerkin
projection on a few solutions at real parameters keeps that structure (symmetric, passive, the same affine form), so
it may be evaluated at complex parameters; the error of the output is r^T A(q)^-1 r with r the residual, and

    |error| <= |r|^2_{M^-1} / alpha,    alpha = max_phi min_i Re(e^{i phi} q_i)/m_i,    M = sum_i m_i A_i,

with M one of the matrices the snapshots were solved with (min-theta bound: Patera, Rozza, Reduced Basis Approximation
and A Posteriori Error Estimation, 2007). Snapshots are taken where that bound is largest over a training set.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mesoion.collapsed import CollapsedPolycrystal, affine_coefficients, affine_coefficients_many, in_order
from mesoion.errors import ConvergenceError, InputError

Floats = NDArray[np.float64]
Numbers = NDArray[Any]
Span = tuple[float, float]

_FORMAT = 1
# Below this a snapshot has no sheet at all: its matrix then measures residuals at every other point.
_LEAST_SHEET = 1e-6
_MAX_REFERENCES = 12
_SOFT = 1e-3


@dataclass(frozen=True)
class BoundaryRange:
    """Where a boundary type may lie: layer over grain conductivity and width over mean grain size.

    A layer of width w and conductivities sigma_across, sigma_along in a grain of sigma has
    r sigma/d = (w/d)(sigma/sigma_across - 1) and s/(sigma d) = (w/d)(sigma_along/sigma - 1).
    anisotropy: sigma_along/sigma_across up to this factor; phase: largest |argument| of the ratios in radians, which
    admittivities of boundary and grain reach where the ratio's modulus is below `phase_below` (the ratio of the
    permittivities: above it the boundary's conduction decides).
    """

    ratio: Span = (1e-4, 1e2)
    width: Span = (1e-5, 1e-2)
    anisotropy: float = 1.0
    phase: float = 1.4
    phase_below: float = 3.0

    def samples(self, ratios: int, widths: int) -> Iterator[tuple[complex, complex]]:
        """Dimensionless (resistance, sheet) on a logarithmic grid, real and of both phases."""
        for z in np.geomspace(*self.ratio, ratios):
            for w in np.geomspace(*self.width, widths):
                for a in {1.0, self.anisotropy}:
                    for phase in (0.0, self.phase) if self.phase > 0 and z < self.phase_below else (0.0,):
                        k = complex(z * np.exp(1j * phase))
                        yield w * (a / k - 1.0), w * (k - 1.0)


class ReducedPolycrystal:
    """Effective conductivity of a collapsed polycrystal from a reduced basis (build it with `build` or `load`).

    matrices (q, n, n), sources (q, n, 2), own (q, 2, 2): the projected affine parts; references (m, q): coefficients
    of the matrices that measure residuals; grams (m, p, p), p = q (2 + n): inner products of the residual's parts.
    """

    def __init__(self, **arrays: Any) -> None:
        self.matrices = np.asarray(arrays["matrices"], dtype=float)
        self.sources = np.asarray(arrays["sources"], dtype=float)
        self.own = np.asarray(arrays["own"], dtype=float)
        self.references = np.asarray(arrays["references"], dtype=float)
        self.grams = np.asarray(arrays["grams"], dtype=float)
        self.boundary_names = tuple(str(n) for n in arrays["boundary_names"])
        self.grain_size = float(arrays["grain_size"])
        self.pair_distance = float(arrays["pair_distance"])
        self.box_area = float(arrays["box_area"])
        self.deficit_limit = float(arrays["deficit_limit"])
        self.full_solves = int(arrays["full_solves"])
        self.training_bound = float(arrays["training_bound"])

    @property
    def size(self) -> int:
        """Number of basis functions."""
        return int(self.matrices.shape[1])

    @classmethod
    def build(
        cls,
        collapsed: CollapsedPolycrystal,
        ranges: Mapping[str, BoundaryRange] | None = None,
        tolerance: float = 1e-4,
        max_solves: int = 40,
        progress: Callable[[int, float], None] | None = None,
    ) -> ReducedPolycrystal:
        """Choose snapshots greedily until the bound is below `tolerance` (relative) on a training set in `ranges`.

        ranges: one `BoundaryRange` for every boundary type, its defaults where None. progress(solves, bound) is called
        after each full solve. Raises InputError for ranges that fit no boundary, ConvergenceError when `max_solves`
        full solves are not enough.
        """
        names = collapsed.boundary_names
        spans = {name: BoundaryRange() for name in names} if ranges is None else dict(ranges)
        for name in names:
            if name not in spans:
                raise InputError("ranges", sorted(spans), f"the boundary type {name!r} needs a range")
        training = _training(collapsed, spans)
        before = collapsed.full_solves
        basis = _Basis(collapsed)
        bounds = np.zeros(len(training))
        bounds[len(training) // 2] = 1.0
        worst = np.inf
        while True:
            real = _next_snapshot(training, bounds, basis.snapshots)
            if real is None:
                raise ConvergenceError(
                    f"the reduced basis stopped at a bound of {worst:.1e}; allow a larger tolerance",
                    at=f"{len(basis.snapshots)} full solves",
                )
            basis.add(real)
            model = basis.model(collapsed.full_solves - before)
            _, bounds = model.evaluate(training)
            model.training_bound = worst = float(bounds.max())
            if progress is not None:
                progress(model.full_solves, worst)
            if worst <= tolerance:
                return model
            if model.full_solves >= max_solves:
                raise ConvergenceError(
                    f"the reduced basis reached a bound of {worst:.1e}, not {tolerance:.1e}; raise max_solves or"
                    " narrow the ranges",
                    at=f"{model.full_solves} full solves",
                )

    def effective(
        self,
        sigma_grain: complex,
        resistance: Mapping[str, complex],
        sheet: Mapping[str, complex],
        grain_size: float | None = None,
    ) -> tuple[Numbers, float]:
        """Effective conductivity tensor (2, 2) [S/m] and the bound of its relative error.

        sigma_grain [S/m]; resistance, sheet: excess r [ohm m^2] and s [S] of every type; grain_size: mean grain size
        [m] of a geometrically similar polycrystal, the original one's by default.
        """
        d = self.grain_size if grain_size is None else grain_size
        if not (np.isfinite(d) and d > 0):
            raise InputError("grain_size", d, "give a positive length in metres")
        q = affine_coefficients(
            self.boundary_names,
            self.pair_distance,
            {name: r * sigma_grain / d for name, r in resistance.items()},
            {name: s / (sigma_grain * d) for name, s in sheet.items()},
        )
        tensor, bound = self.evaluate(q[None])
        return sigma_grain * tensor[0], float(bound[0])

    def effective_many(
        self,
        sigma_grain: ArrayLike,
        resistance: Mapping[str, ArrayLike],
        sheet: Mapping[str, ArrayLike],
        grain_size: ArrayLike | None = None,
        with_bounds: bool = True,
    ) -> tuple[Numbers, Floats]:
        """As `effective` for arrays that broadcast to (m,): tensors (m, 2, 2) and bounds (m,), NaN if not asked for."""
        d = self.grain_size if grain_size is None else np.asarray(grain_size, dtype=float)
        sigma = np.asarray(sigma_grain)
        rho = [np.asarray(r) * sigma / d for r in in_order(self.boundary_names, "resistance", resistance)]
        zeta = [np.asarray(s) / (sigma * d) for s in in_order(self.boundary_names, "sheet", sheet)]
        flat = [a.ravel() for a in np.broadcast_arrays(sigma, *rho, *zeta)]
        k = len(self.boundary_names)
        q = affine_coefficients_many(self.boundary_names, self.pair_distance, flat[1 : k + 1], flat[k + 1 :])
        tensors, bounds = self.evaluate(q, with_bounds)
        return flat[0][:, None, None] * tensors, bounds

    def evaluate(self, coefficients: Numbers, with_bounds: bool = True) -> tuple[Numbers, Floats]:
        """Tensors (m, 2, 2) for a unit grain conductivity and bounds (m,), for affine coefficients (m, q)."""
        q = np.asarray(coefficients)
        parts, n = self.matrices.shape[0], self.size
        a = (q @ self.matrices.reshape(parts, -1)).reshape(-1, n, n)
        b = (q @ self.sources.reshape(parts, -1)).reshape(-1, n, 2)
        own = (q @ self.own.reshape(parts, -1)).reshape(-1, 2, 2)
        y = np.linalg.solve(a, b)
        tensors = (own - np.swapaxes(b, 1, 2) @ y) / self.box_area
        if not with_bounds:
            return tensors, np.full(len(q), np.nan)
        alpha = self._coercivity(q)
        # Among the references that bound the matrix from below, the one that is also least below it.
        size, held = np.abs(q[:, None, :]), self.references[None]
        excess = np.where(np.arange(parts) % 3 > 0, (size + _SOFT) / (np.abs(held) + _SOFT), 1.0).max(axis=2)
        best = (alpha / excess).argmax(axis=1)
        # Residual of field j in the columns [sources of field 0 and 1, matrices times basis] of every affine part.
        residual = np.zeros((len(q), parts, 2 + n, 2), dtype=np.result_type(q, y))
        residual[:, :, 0, 0] = residual[:, :, 1, 1] = q
        residual[:, :, 2:, :] = -q[:, :, None, None] * y[:, None]
        flat = residual.reshape(len(q), -1, 2)
        if len(q) == 1:
            weighted = (self.grams[best[0]] @ flat[0])[None]
        else:
            weighted = np.empty_like(flat)
            for m in np.unique(best):
                weighted[best == m] = self.grams[m] @ flat[best == m]
        square = np.maximum((flat.conj() * weighted).sum(axis=1).real, 0.0)
        strongest = alpha[np.arange(len(q)), best]
        scale = 0.5 * np.abs(tensors[:, 0, 0] + tensors[:, 1, 1]) * self.box_area
        bounds = np.full(len(q), np.inf)
        good = strongest > 0
        bounds[good] = square[good].max(axis=1) / (strongest[good] * scale[good])
        return tensors, bounds

    def _coercivity(self, q: Numbers) -> Floats:
        """alpha (m, references) of the bound; 0 where the matrix is not shown to be coercive."""
        angle = np.angle(np.concatenate([q[:, :1], q[:, 1::3], q[:, 2::3]], axis=1))
        turn = np.exp(-0.5j * (angle.max(axis=1) + angle.min(axis=1)))[:, None]
        turned = (q * turn).real
        # The deficit lowers the grain's own links by at most this share.
        interior = turned[:, 0] - self.deficit_limit * np.abs(q[:, 3::3]).max(axis=1)
        alpha = np.repeat(interior[:, None], len(self.references), axis=1)
        for column in range(1, q.shape[1]):
            if column % 3:
                reference = self.references[None, :, column]
                share = turned[:, column, None] / np.where(reference > 0, reference, 1.0)
                alpha = np.minimum(alpha, np.where(reference > 0, share, np.inf))
        return np.asarray(np.maximum(alpha, 0.0), dtype=float)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write the model to `path` (.npz, no pickles) and return it; the file appears only when complete."""
        target = Path(path)
        partial = target.with_name(target.name + ".partial")
        with partial.open("wb") as stream:
            np.savez(
                stream,
                format=_FORMAT,
                matrices=self.matrices,
                sources=self.sources,
                own=self.own,
                references=self.references,
                grams=self.grams,
                boundary_names=np.array(self.boundary_names),
                grain_size=self.grain_size,
                pair_distance=self.pair_distance,
                box_area=self.box_area,
                deficit_limit=self.deficit_limit,
                full_solves=self.full_solves,
                training_bound=self.training_bound,
            )
        partial.replace(target)
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> ReducedPolycrystal:
        """Read a model written by `save`; raises InputError for another file."""
        try:
            # Opened here: numpy leaves the stream of a damaged file open.
            with Path(path).open("rb") as stream, np.load(stream, allow_pickle=False) as data:
                arrays = {name: data[name] for name in data.files}
            if int(arrays.pop("format")) != _FORMAT:
                raise KeyError("format")
            return cls(**arrays)
        except (KeyError, ValueError, EOFError, OSError, BadZipFile, zlib.error) as error:
            raise InputError(
                str(path), type(error).__name__, "give a file written by ReducedPolycrystal.save"
            ) from error


class _Basis:
    """Snapshots, their orthonormal basis and the residual's inner products, grown one full solve at a time."""

    def __init__(self, collapsed: CollapsedPolycrystal) -> None:
        self.collapsed = collapsed
        self.basis = np.empty((collapsed.n_unknowns, 0))
        self.snapshots: list[Floats] = []
        self.references: list[Floats] = []
        self.solvers: list[Callable[[Numbers], Numbers]] = []
        sources = np.concatenate(collapsed.sources, axis=1)
        # Columns of the residual: first the sources of every part, then part by part for each basis function.
        self.columns = np.where(np.arange(len(sources))[:, None] == 0, 0.0, sources)
        self.lifted: list[Floats] = []

    def add(self, coefficients: Floats) -> None:
        """Solve at real coefficients and extend basis and inner products."""
        solver = self.collapsed.factorised(coefficients)
        u = np.real(solver(self.collapsed.affine(self.collapsed.sources, coefficients)))
        # The output is an energy: the potentials of cells and of sheet nodes may scale apart.
        for _ in range(2):
            u = u - self.basis @ (self.basis.T @ u)
        fresh, weight = np.linalg.qr(u)
        fresh = fresh[:, np.abs(np.diag(weight)) > 1e-12 * np.abs(weight).max()]
        self.basis = np.concatenate([self.basis, fresh], axis=1)
        added = np.concatenate([laplacian @ fresh for laplacian in self.collapsed.laplacians], axis=1)
        added[0] = 0.0
        # Order: basis function first, part second, as the columns are only ever appended.
        parts = len(self.collapsed.laplacians)
        added = added.reshape(len(added), parts, -1).swapaxes(1, 2).reshape(len(added), -1)
        self.columns = np.concatenate([self.columns, added], axis=1)
        self.lifted = [
            np.concatenate([r, solver_(added)], axis=1)
            for r, solver_ in zip(self.lifted, self.solvers, strict=True)
        ]
        self.snapshots.append(coefficients)
        if len(self.references) < _MAX_REFERENCES:
            self.references.append(coefficients)
            self.solvers.append(solver)
            self.lifted.append(np.real(solver(self.columns)))

    def model(self, full_solves: int) -> ReducedPolycrystal:
        """The reduced model of what has been added."""
        c, v = self.collapsed, self.basis
        parts, n = len(c.laplacians), v.shape[1]
        # Columns as `evaluate` has them: for every part the two sources, then the basis functions.
        place = [np.r_[2 * p, 2 * p + 1, 2 * parts + parts * np.arange(n) + p] for p in range(parts)]
        order = np.concatenate(place)
        grams = np.array([(self.columns.T @ lifted)[np.ix_(order, order)] for lifted in self.lifted])
        return ReducedPolycrystal(
            matrices=[v.T @ (laplacian @ v) for laplacian in c.laplacians],
            sources=[v.T @ s for s in c.sources],
            own=c.own,
            references=np.array(self.references),
            grams=0.5 * (grams + np.swapaxes(grams, 1, 2)),
            boundary_names=c.boundary_names,
            grain_size=c.grain_size,
            pair_distance=c.pair_distance,
            box_area=c.box_area,
            deficit_limit=c.deficit_limit,
            full_solves=full_solves,
            training_bound=np.inf,
        )


def _training(collapsed: CollapsedPolycrystal, ranges: Mapping[str, BoundaryRange]) -> Numbers:
    """Affine coefficients (m, q) of the training points, at most some thousands."""
    names = collapsed.boundary_names
    ratios, widths = {1: (15, 7), 2: (7, 3)}.get(len(names), (4, 2))
    points = []
    samples = [list(ranges[name].samples(ratios, widths)) for name in names]
    combined = list(product(*samples))
    if len(combined) > 4000:
        rng = np.random.default_rng(0)
        combined = [combined[i] for i in rng.choice(len(combined), 4000, replace=False)]
    for combination in combined:
        rho = {name: c[0] for name, c in zip(names, combination, strict=True)}
        zeta = {name: c[1] for name, c in zip(names, combination, strict=True)}
        points.append(affine_coefficients(names, collapsed.pair_distance, rho, zeta))
    return np.array(points, dtype=complex)


def _next_snapshot(training: Numbers, bounds: Floats, taken: list[Floats]) -> Floats | None:
    """Real coefficients of the size of the worst training point that is not yet near a snapshot."""
    for point in training[np.argsort(-bounds)][:500]:
        q = np.abs(point)
        q[3::3] *= -1.0
        q[2::3][q[2::3] < _LEAST_SHEET] = 0.0
        near = [np.abs(np.log((np.abs(q[1:]) + 1e-6) / (np.abs(t[1:]) + 1e-6))).max() for t in taken]
        if not near or min(near) > 0.4:
            return np.asarray(q, dtype=float)
    return None
