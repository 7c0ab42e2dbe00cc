"""Basis tables of a moment tensor potential of any level.

A scalar basis function B is a full contraction of at most four moment tensors M_{mu,nu}: a multigraph whose
vertices are tensors (nu edges leave M_{mu,nu}; none returns to its own vertex, because that trace is M_{mu,nu-2}).
The level of M_{mu,nu} is 2 + 4 mu + nu, that of B the sum over its tensors, and a potential of level L holds every
B of at most that level, up to relabelling of the vertices (Novikov et al., Mach. Learn.: Sci. Technol. 2, 025002
(2021), whose tables stop at four tensors, six radial functions and rank ten).

Every contraction is evaluated by splitting its vertices in two groups over and over. The components of a group
with open indices are the intermediate moments; equal ones are shared, and splits are chosen for few products.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from atomistic.errors import InputError
from atomistic.mtp.potential import IntArray, MTPotential, check_symbols

MAX_TENSORS = 4
MAX_RADIAL_FUNCTIONS = 6
MAX_RANK = 10
LEVELS = range(2, 29)

Powers = tuple[int, int, int]
Vertex = tuple[int, ...]  # label of a vertex; the first two entries are mu and nu
Edges = tuple[int, ...]  # upper triangle of the edge multiplicities, row by row
Graph = tuple[tuple[Vertex, ...], Edges]


@dataclass(frozen=True)
class BasisTables:
    """Tables of one level, as `.mtp` files hold them.

    alpha_index_basic: (n, 4) mu and powers of x, y, z; alpha_index_times: (n, 4) left, right, factor, out;
    alpha_moment_mapping: (scalars,) indices of the scalar moments, by rising level.
    """

    level: int
    alpha_index_basic: IntArray
    alpha_index_times: IntArray
    alpha_moment_mapping: IntArray

    @property
    def radial_function_count(self) -> int:
        """Number of radial functions mu."""
        return int(self.alpha_index_basic[:, 0].max()) + 1

    @property
    def moment_count(self) -> int:
        """Number of moments, basic ones and products."""
        largest = int(self.alpha_index_times[:, 3].max()) if len(self.alpha_index_times) else 0
        return max(largest + 1, len(self.alpha_index_basic))

    @property
    def scalar_count(self) -> int:
        """Number of scalar basis functions B."""
        return len(self.alpha_moment_mapping)


@functools.cache
def _pairs(n: int) -> tuple[tuple[int, int], ...]:
    return tuple(itertools.combinations(range(n), 2))


@functools.cache
def _powers(degree: int) -> tuple[tuple[Powers, int], ...]:
    """Exponents of x, y, z of one degree, each with its multinomial coefficient."""
    return tuple(
        (
            (x, y, degree - x - y),
            math.factorial(degree)
            // (math.factorial(x) * math.factorial(y) * math.factorial(degree - x - y)),
        )
        for x in range(degree, -1, -1)
        for y in range(degree - x, -1, -1)
    )


@functools.cache
def _edge_position(n: int) -> dict[tuple[int, int], int]:
    return {pair: k for k, (a, b) in enumerate(_pairs(n)) for pair in ((a, b), (b, a))}


@functools.cache
def _edge_order(order: tuple[int, ...]) -> tuple[int, ...]:
    position = _edge_position(len(order))
    return tuple(position[order[a], order[b]] for a, b in _pairs(len(order)))


def _canonical(vertices: Sequence[Vertex], edges: Sequence[int]) -> tuple[Graph, tuple[int, ...]]:
    """The smallest relabelling of a graph, and the order of the old vertices in it."""
    n = len(vertices)
    first = sorted(range(n), key=lambda v: vertices[v])
    groups = [list(group) for _, group in itertools.groupby(first, key=lambda v: vertices[v])]
    labels = tuple(vertices[v] for v in first)
    best: tuple[tuple[int, ...], tuple[int, ...]] | None = None
    for arrangement in itertools.product(*(itertools.permutations(group) for group in groups)):
        order = tuple(itertools.chain.from_iterable(arrangement))
        candidate = tuple([edges[k] for k in _edge_order(order)])
        if best is None or candidate < best[0]:
            best = (candidate, order)
    assert best is not None
    return (labels, best[0]), best[1]


def _degrees(n: int, edges: Sequence[int]) -> list[int]:
    degrees = [0] * n
    for (a, b), multiplicity in zip(_pairs(n), edges, strict=True):
        degrees[a] += multiplicity
        degrees[b] += multiplicity
    return degrees


def _scalars(level: int, max_radial_functions: int) -> list[Graph]:
    """All contractions of at most this level, each once, by rising level and number of tensors."""
    found: set[Graph] = set()
    for n in range(1, MAX_TENSORS + 1):
        for mus in itertools.combinations_with_replacement(range(max_radial_functions), n):
            budget = (level - 2 * n - 4 * sum(mus)) // 2
            for edges in _bounded(len(_pairs(n)), budget):
                degrees = _degrees(n, edges)
                if max(degrees) <= MAX_RANK:
                    found.add(_canonical(list(zip(mus, degrees, strict=True)), edges)[0])
    return sorted(found, key=lambda graph: (_level_of(graph), len(graph[0]), graph))


def _bounded(length: int, total: int) -> Iterator[tuple[int, ...]]:
    """All tuples of this length of non-negative numbers with at most this sum."""
    if total < 0:
        return
    if length == 0:
        yield ()
        return
    for head in range(total + 1):
        for tail in _bounded(length - 1, total - head):
            yield (head, *tail)


def _level_of(graph: Graph) -> int:
    return sum(2 + 4 * vertex[0] + vertex[1] for vertex in graph[0])


class _Tables:
    """Moments under construction: components are named by canonical graphs whose vertex labels are
    (mu, nu, and the powers of x, y, z of the open indices); skeletons by (mu, nu, number of open indices)."""

    def __init__(self, basic: Sequence[tuple[int, int, int, int]]) -> None:
        self.rows: list[tuple[int, int, int, int]] = []
        self.index: dict[Graph, int] = {}
        for mu, x, y, z in basic:
            self.index[((mu, x + y + z, x, y, z),), ()] = len(self.index)
        self.splits: dict[Graph, tuple[int, ...]] = {}

    def split_of(self, skeleton: Graph) -> tuple[int, ...]:
        """The group of vertices (always with vertex 0) that a skeleton is split into; chosen once."""
        if skeleton not in self.splits:
            self.splits[skeleton] = min(
                _groups(len(skeleton[0])), key=lambda group: self._cost(skeleton, group)
            )
        return self.splits[skeleton]

    def _cost(self, skeleton: Graph, group: tuple[int, ...]) -> tuple[int, int]:
        vertices, edges = skeleton
        n = len(vertices)
        rest = tuple(v for v in range(n) if v not in group)
        position = _edge_position(n)
        terms = math.prod(len(_powers(edges[position[a, b]])) for a in group for b in rest)
        terms *= math.prod(len(_powers(vertex[2])) for vertex in vertices)
        for part in (group, rest):
            child = self._part(skeleton, part)
            if len(part) > 1 and child not in self.splits:
                terms += min(self._cost(child, inner)[0] for inner in _groups(len(part)))
        return terms, abs(len(group) - len(rest))

    @staticmethod
    def _part(skeleton: Graph, part: tuple[int, ...]) -> Graph:
        vertices, edges = skeleton
        position = _edge_position(len(vertices))
        inner = [edges[position[part[a], part[b]]] for a, b in _pairs(len(part))]
        degrees = _degrees(len(part), inner)
        labels = [
            (vertices[v][0], vertices[v][1], vertices[v][1] - d) for v, d in zip(part, degrees, strict=True)
        ]
        return _canonical(labels, inner)[0]

    def component(self, vertices: Sequence[Vertex], edges: Sequence[int]) -> int:
        """Index of the moment that is this component, made together with all it needs."""
        graph, _ = _canonical(vertices, edges)
        if graph in self.index:
            return self.index[graph]
        vertices, edges = graph
        n = len(vertices)
        skeleton, order = _canonical([(v[0], v[1], v[2] + v[3] + v[4]) for v in vertices], edges)
        group = tuple(order[v] for v in self.split_of(skeleton))
        rest = tuple(v for v in range(n) if v not in group)
        position = _edge_position(n)
        crossing = [(a, b, edges[position[a, b]]) for a in group for b in rest if edges[position[a, b]]]
        inner = [[edges[position[part[a], part[b]]] for a, b in _pairs(len(part))] for part in (group, rest)]
        products: Counter[tuple[int, int]] = Counter()
        for choice in itertools.product(*(_powers(multiplicity) for _, _, multiplicity in crossing)):
            open_powers = [list(vertex[2:]) for vertex in vertices]
            factor = 1
            for (a, b, _), (powers, weight) in zip(crossing, choice, strict=True):
                factor *= weight
                for axis in range(3):
                    open_powers[a][axis] += powers[axis]
                    open_powers[b][axis] += powers[axis]
            left, right = (
                self.component([(*vertices[v][:2], *open_powers[v]) for v in part], part_edges)
                for part, part_edges in zip((group, rest), inner, strict=True)
            )
            products[min(left, right), max(left, right)] += factor
        self.index[graph] = out = len(self.index)
        self.rows.extend((left, right, factor, out) for (left, right), factor in products.items())
        return out


@functools.cache
def _groups(n: int) -> tuple[tuple[int, ...], ...]:
    return tuple(
        group for size in range(1, n) for group in itertools.combinations(range(n), size) if 0 in group
    )


def _basic_moments(level: int, max_radial_functions: int) -> list[tuple[int, int, int, int]]:
    return [
        (mu, *powers)
        for mu in range(min(max_radial_functions, (level - 2) // 4 + 1))
        for nu in range(MAX_RANK + 1)
        # M_{mu,0} is a scalar by itself; any other tensor needs at least M_{0,nu} beside it.
        if (nu == 0 and 2 + 4 * mu <= level) or (nu > 0 and 4 + 4 * mu + 2 * nu <= level)
        for powers, _ in _powers(nu)
    ]


@functools.lru_cache(maxsize=32)
def basis_tables(level: int, max_radial_functions: int = MAX_RADIAL_FUNCTIONS) -> BasisTables:
    """Tables of a level from 2 to 28 (an odd level has the tables of the even one below it).

    max_radial_functions: upper limit of the number of radial functions; 6 in MLIP-2, felt from level 26 on.
    Raises InputError for other levels. Level 20 takes 0.1 s, level 28 about 2 s.
    """
    if not isinstance(level, int) or level not in LEVELS:
        raise InputError("level", level, f"a whole number from {LEVELS[0]} to {LEVELS[-1]} is expected")
    if not isinstance(max_radial_functions, int) or max_radial_functions < 1:
        raise InputError("max_radial_functions", max_radial_functions, "at least 1 is needed")
    basic = _basic_moments(level, max_radial_functions)
    tables = _Tables(basic)
    mapping = [
        tables.component([(*vertex, 0, 0, 0) for vertex in vertices], edges)
        for vertices, edges in _scalars(level, max_radial_functions)
    ]
    arrays = (
        np.array(basic, dtype=np.int64).reshape(-1, 4),
        np.array(tables.rows, dtype=np.int64).reshape(-1, 4),
        np.array(mapping, dtype=np.int64),
    )
    for array in arrays:
        array.setflags(write=False)
    return BasisTables(level, *arrays)


def untrained(
    species: Sequence[str],
    level: int,
    *,
    cutoff: float,
    min_distance: float,
    rng: np.random.Generator,
    radial_basis_size: int = 8,
    name: str = "MTP",
) -> MTPotential:
    """A potential of this level before training: zero energies, radial functions near the Chebyshev polynomials.

    cutoff, min_distance: angstrom. The scaling 1/(cutoff - min_distance)^2 keeps the radial functions of order one.
    Small random numbers (0.03) from `rng` break the symmetry between pairs of species.
    """
    check_symbols(species)
    tables = basis_tables(level)
    if not 0.0 <= min_distance < cutoff:
        raise InputError("min_distance", min_distance, f"0 to the cutoff {cutoff} angstrom is allowed")
    if radial_basis_size < max(2, tables.radial_function_count):
        raise InputError(
            "radial_basis_size", radial_basis_size, f"at least {tables.radial_function_count} is needed"
        )
    n, functions = len(species), tables.radial_function_count
    radial = rng.normal(0.0, 0.03, (n, n, functions, radial_basis_size))
    radial[:, :, np.arange(functions), np.arange(functions)] += 0.3
    return MTPotential(
        species=tuple(species),
        cutoff=cutoff,
        min_distance=min_distance,
        scaling=1.0 / (cutoff - min_distance) ** 2,
        radial_coefficients=radial,
        alpha_index_basic=tables.alpha_index_basic,
        alpha_index_times=tables.alpha_index_times,
        alpha_moment_mapping=tables.alpha_moment_mapping,
        moment_coefficients=np.zeros(tables.scalar_count),
        species_coefficients=np.zeros(n),
        name=name,
    )
