"""A polycrystal of conducting and blocking boundaries, reduced so that a whole spectrum costs less than a millisecond.

The facets of one periodic polycrystal are put in a random order; the first of them, by a share p of the boundary
length, block, the others are open. For a few shares p (the nodes) the conduction problem is affine in

    1, 1/(f + r_j σ_b/d), s_j/(σ_b d) > 0, s_j/(σ_b d) < 0,     j = open, blocking

(`mesoion.collapsed`) and is projected on a small space of its own solutions (`mesoion.reduced` says why that works
at complex parameters too). Between two nodes a pellet is a share of each in parallel. Both errors are measured
against full solutions that the spaces were not built from, and travel with the model.
"""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol, cast
from zipfile import BadZipFile

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import qmc

from mesoion.collapsed import CollapsedPolycrystal, affine_coefficients_many
from mesoion.errors import ConvergenceError, InputError
from mesoion.microstructure import polycrystal

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]
Numbers = NDArray[Any]

OPEN, BLOCKING = "open", "blocking"
KINDS = (OPEN, BLOCKING)
PARTS = 7
CLASSES = 20
"""Facets are dealt into this many classes of equal length; a blocking fraction counts the blocking ones."""
FRACTIONS = (0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.55, 0.6, 0.65, 0.7, 0.8, 0.9, 1.0)
"""Nodes of the shipped model."""
LARGEST_SPACE = 30
SHORTEST_FACET = 0.05
"""Facets shorter than this share of the mean grain size are junctions: open ones between blocked grains would be
point contacts (docs/meshes.md)."""

WIDTHS = (1e-5, 1.2e-2)
"""Layer width over mean grain size that a shipped model is built for."""
RATIOS = (3e-6, 10.0)
"""Conductivity of open layers over that of the grain at zero frequency that a shipped model is built for."""
BLOCKED_RATIOS = (1e-8, 0.1)
"""The same for blocking layers."""

_FORMAT = 1
_BLOCK = 32
SHIPPED = Path(__file__).parent / "models" / "planar_mixed_boundaries.npz"


class PolycrystalModel(Protocol):
    """What a fit asks of a polycrystal, planar or spatial: boundary types "open" and "blocking"."""

    @property
    def relative_error(self) -> float:
        """Largest relative error measured against full solutions."""

    @property
    def width_range(self) -> tuple[float, float]:
        """Layer width over mean grain size for which that error holds."""

    @property
    def kinks(self) -> Floats:
        """Blocking fractions at which the admittivity's derivative jumps; a fit has to step over them."""

    def effective_admittivity(
        self,
        grain: ArrayLike,
        resistance: Mapping[str, ArrayLike],
        sheet: Mapping[str, ArrayLike],
        grain_size: float,
        blocking_fraction: float,
    ) -> Complexes:
        """Effective admittivity (m,) [S/m].

        grain: admittivity σ + iωε of the grain (m,) [S/m]. resistance, sheet: signed excess [ohm m²] and [S] of
        facets "open" and "blocking". grain_size: mean [m]. blocking_fraction: share of the boundary's area.
        """


@dataclass(frozen=True)
class _Block:
    """The conduction problem of one realisation along one axis on a small space: (7, n, n), (7, n), (7,)."""

    matrices: Floats
    sources: Floats
    own: Floats


@dataclass(frozen=True)
class _Interval:
    """Two neighbouring nodes reduced together: matrices (2, 7, n, n), sources (2, 7, n), own (2, 7)."""

    matrices: Floats
    sources: Floats
    own: Floats

    def at(self, share: float) -> _Block:
        """The problem of a share 1 − `share` of the lower and `share` of the upper node in parallel."""
        weight = np.array([1.0 - share, share])
        return _Block(
            np.tensordot(weight, self.matrices, 1),
            np.tensordot(weight, self.sources, 1),
            weight @ self.own,
        )


@dataclass(frozen=True)
class ModelFacts:
    """Where a reduced model comes from and how well it was found to hold.

    grains, realisations, seed: of the polycrystals. node_error: largest relative error of the admittivity at the
    nodes against full solutions. between_error: median and largest between nodes. scatter: relative standard error of
    the mean over realisations at every node, median over the test parameters.
    """

    grains: int
    realisations: int
    seed: int
    node_error: float
    between_error: tuple[float, float]
    scatter: tuple[float, ...]


class MixedPolycrystal:
    """Reduced polycrystal with a share of blocking boundaries; `shipped()` loads the package's own."""

    def __init__(
        self, fractions: Floats, intervals: list[_Interval], pair_distance: float, facts: ModelFacts
    ) -> None:
        self.fractions = np.asarray(fractions, dtype=float)
        self.intervals = intervals
        self.pair_distance = pair_distance
        self.facts = facts

    @property
    def relative_error(self) -> float:
        """Largest relative error at the nodes against full solutions."""
        return self.facts.node_error

    @property
    def width_range(self) -> tuple[float, float]:
        """Layer width over mean grain size for which that error holds."""
        return WIDTHS

    @property
    def kinks(self) -> Floats:
        """Blocking fractions at which the admittivity's derivative jumps: the inner nodes."""
        return np.asarray(self.fractions[1:-1])

    def scatter(self, blocking_fraction: float) -> float:
        """Relative standard error of the mean over realisations: what a finite number of grains leaves open."""
        return float(np.interp(blocking_fraction, self.fractions, self.facts.scatter))

    def effective_admittivity(
        self,
        grain: ArrayLike,
        resistance: Mapping[str, ArrayLike],
        sheet: Mapping[str, ArrayLike],
        grain_size: float,
        blocking_fraction: float,
    ) -> Complexes:
        """As `PolycrystalModel`; raises InputError for a fraction outside 0 to 1 or an excess no facet can have."""
        sigma = np.atleast_1d(np.asarray(grain, dtype=complex))
        across = [np.broadcast_to(np.asarray(resistance[k]) * sigma / grain_size, sigma.shape) for k in KINDS]
        along = [np.broadcast_to(np.asarray(sheet[k]) / (sigma * grain_size), sigma.shape) for k in KINDS]
        return np.asarray(sigma * self.unit(across, along, blocking_fraction))

    def unit(self, across: list[Numbers], along: list[Numbers], blocking_fraction: float) -> Complexes:
        """For a grain of unit conductivity and size; r σ_b/d and s/(σ_b d) of open and blocking facets (m,)."""
        if not 0.0 <= blocking_fraction <= 1.0:
            raise InputError("blocking_fraction", blocking_fraction, "a share from 0 to 1")
        q = affine_coefficients_many(KINDS, self.pair_distance, across, along)
        j = min(max(int(np.searchsorted(self.fractions, blocking_fraction)) - 1, 0), len(self.intervals) - 1)
        low, high = self.fractions[j], self.fractions[j + 1]
        return _conductances(q, self.intervals[j].at(float((blocking_fraction - low) / (high - low))))

    # ---- making one ---------------------------------------------------------------------------------------------
    @classmethod
    def build(
        cls,
        *,
        grains: int = 80,
        realisations: int = 2,
        grain_size_spread: float = 0.35,
        seed: int = 1,
        fractions: tuple[float, ...] = FRACTIONS,
        tolerance: float = 3e-3,
        progress: Callable[[Iterable[float], str], Iterable[float]] | None = None,
    ) -> MixedPolycrystal:
        """Mesh polycrystals and reduce their mean admittivity at blocking `fractions`, multiples of 0.05 from 0 to 1.

        tolerance: relative error at the nodes, measured on random complex parameters (`random_excess`).
        Raises ConvergenceError where it is not reached, MeshError, InputError.
        """
        steps = np.rint(np.array(fractions) * CLASSES).astype(int)
        rising = (
            len(steps) > 1 and bool(np.all(np.diff(steps) > 0)) and steps[0] == 0 and steps[-1] == CLASSES
        )
        if not rising or realisations < 1 or not np.allclose(steps / CLASSES, fractions, rtol=0, atol=1e-9):
            raise InputError(
                "fractions", fractions, "rising multiples of 0.05 from 0 to 1, and a realisation"
            )
        volumes = [mixed_polycrystal(grains, grain_size_spread, (seed, k)) for k in range(realisations)]
        tests = random_excess(8, seed + 500)
        q = affine_coefficients_many(KINDS, volumes[0].pair_distance, *tests)
        training = affine_coefficients_many(
            KINDS, volumes[0].pair_distance, *random_excess(1024, seed + 1000)
        )
        intervals: list[_Interval] = []
        scatter: list[float] = []
        error = 0.0
        before: list[_Block] = []
        numbers: Iterable[float] = fractions
        if progress is not None:
            numbers = progress(numbers, "blocking fractions")
        for step, _ in zip(steps.tolist(), numbers, strict=True):
            views = [at_fraction(v, step) for v in volumes]
            blocks = [block for view in views for block in _project(view, seed, tolerance)]
            exact = _exact(views, q)
            mean = exact.mean(axis=0)
            spread = np.abs(exact - mean).std(axis=0) / np.abs(mean) / np.sqrt(len(exact))
            scatter.append(float(np.median(spread)))
            if before:
                intervals.append(_together(before, blocks, training, tolerance))
                found = _conductances(q, intervals[-1].at(1.0))
                error = max(error, float(np.abs(found / mean - 1).max()))
            if error > tolerance:
                raise ConvergenceError(
                    f"the reduced polycrystal reached {error:.1e}, not {tolerance:.1e}; allow a larger tolerance",
                    at=f"blocking fraction {step / CLASSES:.2g}",
                )
            before = blocks
        facts = ModelFacts(grains, realisations, seed, error, (0.0, 0.0), tuple(scatter))
        model = cls(np.array(fractions), intervals, volumes[0].pair_distance, facts)
        model.facts = replace(facts, between_error=model.error_between_nodes(volumes))
        return model

    def error_between_nodes(
        self, volumes: list[CollapsedPolycrystal], points: int = 4, seed: int = 77
    ) -> tuple[float, float]:
        """Median and largest relative error between nodes, against full solutions at `points` parameters each."""
        errors: list[float] = []
        for step in range(CLASSES):
            if np.abs(self.fractions - step / CLASSES).min() > 1e-9:
                excess = random_excess(points, seed + step)
                exact = mean_conductances([at_fraction(v, step) for v in volumes], *excess)
                found = self.unit(*excess, step / CLASSES)
                errors += np.abs(found / exact - 1).tolist()
        return (float(np.median(errors)), max(errors)) if errors else (0.0, 0.0)

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write to `path` (.npz without pickles) and return it; the file appears only when complete."""
        target = Path(path)
        partial = target.with_name(target.name + ".partial")
        arrays: dict[str, Any] = {f.name: getattr(self.facts, f.name) for f in fields(self.facts)}
        for j, part in enumerate(self.intervals):
            # Symmetric: the lower triangle is enough.
            rows = np.tril_indices(part.matrices.shape[-1])
            arrays |= {
                f"matrices_{j}": part.matrices[:, :, rows[0], rows[1]],
                f"sources_{j}": part.sources,
                f"own_{j}": part.own,
            }
        with partial.open("wb") as stream:
            np.savez_compressed(
                stream, format=_FORMAT, fractions=self.fractions, pair_distance=self.pair_distance, **arrays
            )
        partial.replace(target)
        return target

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> MixedPolycrystal:
        """Read a model written by `save`; raises InputError for another file."""
        try:
            # Opened here: numpy leaves the stream of a damaged file open.
            with Path(path).open("rb") as stream, np.load(stream, allow_pickle=False) as data:
                if int(data["format"]) != _FORMAT:
                    raise KeyError("format")
                intervals = []
                for j in range(len(data["fractions"]) - 1):
                    sources, packed = data[f"sources_{j}"], data[f"matrices_{j}"]
                    n = sources.shape[-1]
                    matrices = np.zeros((*packed.shape[:2], n, n))
                    i, k = np.tril_indices(n)
                    matrices[:, :, i, k] = packed
                    matrices[:, :, k, i] = packed
                    intervals.append(_Interval(matrices, sources, data[f"own_{j}"]))
                facts = ModelFacts(
                    int(data["grains"]),
                    int(data["realisations"]),
                    int(data["seed"]),
                    float(data["node_error"]),
                    (float(data["between_error"][0]), float(data["between_error"][1])),
                    tuple(data["scatter"].tolist()),
                )
                return cls(data["fractions"], intervals, float(data["pair_distance"]), facts)
        except (KeyError, ValueError, EOFError, OSError, BadZipFile, zlib.error) as error:
            raise InputError(
                str(path), type(error).__name__, "give a file written by MixedPolycrystal.save"
            ) from error


@cache
def shipped() -> MixedPolycrystal:
    """The planar polycrystal that comes with the package (`MixedPolycrystal.build()`, saved)."""
    return MixedPolycrystal.load(SHIPPED)


def mixed_polycrystal(grains: int, grain_size_spread: float, seed: tuple[int, ...]) -> CollapsedPolycrystal:
    """The meshed polycrystal whose facets lie in `CLASSES` random classes of equal length, unit mean grain size."""
    share = {f"class {k:02d}": 1.0 / CLASSES for k in range(CLASSES)}
    structure = polycrystal(grains, 1.0, grain_size_spread, np.random.default_rng(seed), boundary_types=share)
    return CollapsedPolycrystal(
        structure.without_short_facets(SHORTEST_FACET),
        max_cell=0.15,
        junction_cell=0.01,
        tangential_growth=0.4,
    )


def at_fraction(collapsed: CollapsedPolycrystal, blocked: int) -> CollapsedPolycrystal:
    """The polycrystal with its first `blocked` classes blocking and the others open."""
    names = collapsed.boundary_names
    groups = {OPEN: names[blocked:], BLOCKING: names[:blocked]}
    return collapsed.grouped({k: v for k, v in groups.items() if v})


def random_excess(count: int, seed: int, real: bool = False) -> tuple[list[Numbers], list[Numbers]]:
    """Dimensionless excess resistances and sheets [open, blocking] (count,) of layers met in spectra.

    With x = ωε/σ of the grain, layer over grain is z = (z₀ + ixe)/(1 + ix), e the ratio of permittivities (1/2 to 2);
    w/d, z₀ of both types and x are drawn log-uniformly. `real` puts x for ix: real parameters of the same size.
    """
    u = qmc.Sobol(5, rng=np.random.default_rng(seed)).random(1 << max(count - 1, 0).bit_length())[:count]
    spans = np.log10(np.array([WIDTHS, RATIOS, (1e-8, 30.0), BLOCKED_RATIOS]))
    w, z_open, x, z_blocking = 10.0 ** (spans[:, :1] + np.diff(spans) * u[:, :4].T)
    z_blocking = np.minimum(z_blocking, z_open)
    permittivity = 4.0 ** (u[:, 4] - 0.5)
    step = x if real else 1j * x
    across, along = [], []
    for z0 in (z_open, z_blocking):
        z = (z0 + step * permittivity) / (1 + step)
        across.append(w * (1 / z - 1))
        along.append(w * (z - 1))
    return across, along


def mean_conductances(
    views: list[CollapsedPolycrystal], across: list[Numbers], along: list[Numbers]
) -> Complexes:
    """Mean of the two principal conductivities over the polycrystals, by full solutions (m,), for a unit grain."""
    q = affine_coefficients_many(KINDS, views[0].pair_distance, across, along)
    return np.asarray(_exact(views, q).mean(axis=0))


def _columns(view: CollapsedPolycrystal) -> list[int]:
    """Which of the seven affine coefficients the types of this view have."""
    return [0] + [1 + 3 * KINDS.index(name) + k for name in view.boundary_names for k in range(3)]


def _full(view: CollapsedPolycrystal, q: Numbers) -> tuple[Complexes, Numbers]:
    """Conductivities (2,) along both axes and the potentials (n, 2) of the full problem."""
    tensor, u = view.solve(q[_columns(view)])
    return np.asarray(np.diagonal(tensor), dtype=complex), u


def _exact(views: list[CollapsedPolycrystal], q: Numbers) -> Complexes:
    """(2 realisations, m): along both axes of every polycrystal."""
    return np.concatenate([np.array([_full(view, row)[0] for row in q]).T for view in views])


def _project(view: CollapsedPolycrystal, seed: int, tolerance: float) -> list[_Block]:
    """The problem of one realisation along both axes on solutions at real and complex parameters.

    Draws of complex parameters are added where the model errs until a fresh draw finds it right.
    """
    columns: list[list[Floats]] = [[], []]
    for row in affine_coefficients_many(KINDS, view.pair_distance, *random_excess(24, seed + 10, real=True)):
        u = np.real(_full(view, row)[1])
        for axis in (0, 1):
            columns[axis].append(u[:, axis])
    for draw in range(8):
        blocks = [_galerkin(view, columns[axis], axis) for axis in (0, 1)]
        tests = affine_coefficients_many(KINDS, view.pair_distance, *random_excess(16, seed + 20 + draw))
        exact, fields = zip(*(_full(view, row) for row in tests), strict=True)
        errors = np.abs(np.array([_conductances(tests, b) for b in blocks]) / np.array(exact).T - 1)
        if errors.max() < 0.3 * tolerance:
            return blocks
        for axis, row in enumerate(errors):
            for j in np.flatnonzero(row > 0.03 * tolerance):
                columns[axis] += [fields[j][:, axis].real, fields[j][:, axis].imag]
    raise ConvergenceError(
        f"the reduced polycrystal did not reach {tolerance:.1e}; allow a larger tolerance",
        at=f"{len(columns[0])} solutions",
    )


def _galerkin(view: CollapsedPolycrystal, columns: list[Floats], axis: int) -> _Block:
    u = np.array(columns).T
    basis, weight, _ = np.linalg.svd(u / np.linalg.norm(u, axis=0), full_matrices=False)
    basis = basis[:, weight > 1e-9 * weight[0]]
    n = basis.shape[1]
    block = _Block(np.zeros((PARTS, n, n)), np.zeros((PARTS, n)), np.zeros(PARTS))
    for p, laplacian, source, own in zip(
        _columns(view), view.laplacians, view.sources, view.own, strict=True
    ):
        block.matrices[p] = basis.T @ (laplacian @ basis) / view.box_area
        block.sources[p] = basis.T @ source[:, axis] / view.box_area
        block.own[p] = own[axis, axis] / view.box_area
    return block


def _together(low: list[_Block], high: list[_Block], training: Numbers, tolerance: float) -> _Interval:
    """The smallest greedy space for the means of both nodes that meets half the tolerance on complex `training`.

    The mean of the outputs is the output of the block-diagonal problem of all realisations and directions, whose
    solutions change with the parameters in as few ways as those of one: averaging costs nothing afterwards. The same
    holds for two nodes in parallel.
    """
    blocks = [*low, *high]
    exact, potentials = zip(*(_solutions(training, block) for block in blocks), strict=True)
    means = np.array([np.mean(exact[: len(low)], axis=0), np.mean(exact[len(low) :], axis=0)])
    spaces = [np.zeros((block.matrices.shape[1], 0)) for block in blocks]
    worst = int(np.abs(means).min(axis=0).argmin())

    def joined(part: list[_Block], space: list[Floats]) -> _Block:
        return _Block(
            np.mean([s.T @ b.matrices @ s for s, b in zip(space, part, strict=True)], axis=0),
            np.mean([b.sources @ s for s, b in zip(space, part, strict=True)], axis=0),
            np.mean([b.own for b in part], axis=0),
        )

    while True:
        pair = np.concatenate([np.stack([u[worst].real, u[worst].imag], axis=1) for u in potentials])
        stacked = np.concatenate(spaces)
        pair = pair / np.maximum(np.linalg.norm(pair, axis=0), 1e-300)
        left, weight, _ = np.linalg.svd(pair - stacked @ (stacked.T @ pair), full_matrices=False)
        stacked = np.linalg.qr(np.concatenate([stacked, left[:, weight > 1e-9]], axis=1))[0]
        spaces = np.split(stacked, np.cumsum([len(s) for s in spaces])[:-1])
        a, b = joined(low, spaces[: len(low)]), joined(high, spaces[len(low) :])
        interval = _Interval(
            *(np.array([getattr(a, k), getattr(b, k)]) for k in ("matrices", "sources", "own"))
        )
        ends = np.array([_conductances(training, interval.at(t)) for t in (0.0, 0.5, 1.0)])
        wanted = np.array([means[0], means.mean(axis=0), means[1]])
        errors = np.abs(ends / wanted - 1).max(axis=0)
        worst = int(errors.argmax())
        if errors.max() <= 0.5 * tolerance or stacked.shape[1] >= LARGEST_SPACE:
            return interval


def _solutions(q: Numbers, block: _Block) -> tuple[Complexes, Complexes]:
    """Conductances (m,) and reduced solutions (m, n)."""
    matrix = np.einsum("mp,pij->mij", q, block.matrices)
    right = q @ block.sources
    y = np.linalg.solve(matrix, right[:, :, None])[:, :, 0]
    return np.asarray(q @ block.own - (right * y).sum(axis=1)), np.asarray(y)


def _conductances(q: Numbers, block: _Block) -> Complexes:
    """Mean conductivities (m,) for a grain of unit conductivity, from affine coefficients (m, q)."""
    kernel = _kernel()
    rows = np.ascontiguousarray(q.T)
    real = np.ascontiguousarray(rows.real, dtype=float)
    imaginary = np.ascontiguousarray(rows.imag, dtype=float)
    out = np.empty((2, q.shape[0]))
    kernel(real, imaginary, block.matrices, block.sources, block.own, out[0], out[1])
    return np.asarray(out[0] + 1j * out[1])


@cache
def _kernel() -> Callable[..., None]:
    """The compiled elimination; numba is loaded on first use."""
    import numba

    return cast(Callable[..., None], numba.njit(cache=True, fastmath=True, error_model="numpy")(_schur))


def _schur(
    qr: Floats, qi: Floats, matrices: Floats, sources: Floats, own: Floats, out_r: Floats, out_i: Floats
) -> None:
    """own − bᵀA⁻¹b for many points: the last pivot of the symmetric elimination of [[A, b], [bᵀ, own]].

    Blocks of points lie innermost so that one instruction serves several of them.
    """
    parts, m = qr.shape
    n = matrices.shape[1]
    ar = np.empty((n + 1, n + 1, _BLOCK))
    ai = np.empty((n + 1, n + 1, _BLOCK))
    lr = np.empty(_BLOCK)
    li = np.empty(_BLOCK)
    ir = np.empty(_BLOCK)
    ii = np.empty(_BLOCK)
    cr = np.empty((parts, _BLOCK))
    ci = np.empty((parts, _BLOCK))
    for start in range(0, m, _BLOCK):
        for p in range(parts):
            for b in range(_BLOCK):
                at = min(start + b, m - 1)
                cr[p, b] = qr[p, at]
                ci[p, b] = qi[p, at]
        for i in range(n + 1):
            for j in range(i + 1):
                for b in range(_BLOCK):
                    ar[i, j, b] = 0.0
                    ai[i, j, b] = 0.0
                for p in range(parts):
                    if i < n:
                        value = matrices[p, i, j]
                    elif j < n:
                        value = sources[p, j]
                    else:
                        value = own[p]
                    for b in range(_BLOCK):
                        ar[i, j, b] += cr[p, b] * value
                        ai[i, j, b] += ci[p, b] * value
        for k in range(n):
            for b in range(_BLOCK):
                size = 1.0 / (ar[k, k, b] ** 2 + ai[k, k, b] ** 2)
                ir[b] = ar[k, k, b] * size
                ii[b] = -ai[k, k, b] * size
            for i in range(k + 1, n + 1):
                for b in range(_BLOCK):
                    lr[b] = ar[i, k, b] * ir[b] - ai[i, k, b] * ii[b]
                    li[b] = ar[i, k, b] * ii[b] + ai[i, k, b] * ir[b]
                for j in range(k + 1, i + 1):
                    for b in range(_BLOCK):
                        ar[i, j, b] -= lr[b] * ar[j, k, b] - li[b] * ai[j, k, b]
                        ai[i, j, b] -= lr[b] * ai[j, k, b] + li[b] * ar[j, k, b]
        for b in range(_BLOCK):
            if start + b < m:
                out_r[start + b] = ar[n, n, b]
                out_i[start + b] = ai[n, n, b]
