"""The fronts in which a sparse matrix of symmetric pattern is eliminated, found once for each pattern.

Sources: Liu 1990 (elimination trees), Gilbert, Ng and Peyton 1994 (column counts), Ashcraft and Grimes 1989 (merging).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]
Function = TypeVar("Function", bound=Callable[..., Any])

# Neighbouring fronts are merged up to these widths with these shares of zeros, as CHOLMOD does.
_WIDTHS, _ZEROS = (4, 16, 48), (0.8, 0.1, 0.05)


def compiled(function: Function) -> Function:
    """numba's `njit` with reassociated sums; not-a-numbers keep their meaning."""
    flags = {"reassoc", "contract", "nsz"}
    return cast(Function, numba.njit(cache=True, fastmath=flags, error_model="numpy")(function))


class Fronts(NamedTuple):
    """The fronts of a pattern; all arrays, so that compiled code takes it as it is."""

    order: Ints  # (n,) unknown eliminated at each step
    first: Ints  # (f + 1,) first step of each front
    start: Ints  # (f + 1,) where the rows below each front begin in `rows`
    rows: Ints  # steps that the front's update touches, sorted
    place: Ints  # their places in the front above
    children: Ints  # (f,) number of fronts below
    panel: Ints  # (f + 1,) where each front's columns of L begin in the factor
    side: Ints  # (f + 1,) where its rows of U begin
    entry: Ints  # (f + 1,) where its matrix entries begin in `source`
    source: Ints  # their places in the matrix data
    target: Ints  # where they go: 0.. in the panel, -1 - place in the rows of U
    stack: Ints  # (1,) largest size of the pending updates


@compiled
def _tree(n: int, pointers: Any, indices: Any) -> Any:
    """Parents (n,) in the elimination tree of a symmetric pattern, -1 at roots."""
    parent = np.full(n, -1, np.int64)
    ancestor = np.full(n, -1, np.int64)
    for j in range(n):
        for p in range(pointers[j], pointers[j + 1]):
            i = indices[p]
            while i != -1 and i < j:
                above = ancestor[i]
                ancestor[i] = j
                if above == -1:
                    parent[i] = j
                i = above
    return parent


@compiled
def _postorder(parent: Any) -> Any:
    n = len(parent)
    head = np.full(n + 1, -1, np.int64)
    after = np.full(n, -1, np.int64)
    for j in range(n - 1, -1, -1):
        p = parent[j] if parent[j] >= 0 else n
        after[j] = head[p]
        head[p] = j
    order = np.empty(n, np.int64)
    stack = np.empty(n + 1, np.int64)
    k, top = 0, 0
    stack[0] = n
    while top >= 0:
        node = stack[top]
        child = head[node]
        if child == -1:
            if node < n:
                order[k] = node
                k += 1
            top -= 1
        else:
            head[node] = after[child]
            top += 1
            stack[top] = child
    return order


@compiled
def _counts(parent: Any, pointers: Any, indices: Any) -> Any:
    """Entries of each column of L with its diagonal, in a postordered tree (Gilbert, Ng and Peyton 1994)."""
    n = len(parent)
    level = np.zeros(n, np.int64)
    for j in range(n - 1, -1, -1):
        if parent[j] >= 0:
            level[j] = level[parent[j]] + 1
    first = np.full(n, -1, np.int64)
    weight = np.zeros(n, np.int64)
    for j in range(n):
        if first[j] == -1:
            weight[j] = 1
        i = j
        while i != -1 and first[i] == -1:
            first[i] = j
            i = parent[i]
    largest = np.full(n, -1, np.int64)
    last = np.full(n, -1, np.int64)
    union = np.arange(n)
    for j in range(n):
        if parent[j] >= 0:
            weight[parent[j]] -= 1
        for p in range(pointers[j], pointers[j + 1]):
            i = indices[p]
            if i <= j:
                continue
            if first[j] > largest[i]:
                weight[j] += 1
                before = last[i]
                if before >= 0:
                    q = before
                    while q != union[q]:
                        q = union[q]
                    while before != q:
                        following = union[before]
                        union[before] = q
                        before = following
                    weight[q] -= 1
                last[i] = j
                largest[i] = first[j]
        if parent[j] >= 0:
            union[j] = parent[j]
    for j in range(n):
        if parent[j] >= 0:
            weight[parent[j]] += weight[j]
    return weight


@compiled
def _supernodes(parent: Any, counts: Any) -> Any:
    """First columns of fundamental supernodes, merged where that costs few zeros."""
    n = len(parent)
    kids = np.zeros(n + 1, np.int64)
    for j in range(n):
        kids[parent[j] if parent[j] >= 0 else n] += 1
    begin = np.empty(n + 1, np.int64)
    f = 0
    for j in range(n):
        if j == 0 or parent[j - 1] != j or counts[j - 1] != counts[j] + 1 or kids[j] > 1:
            begin[f] = j
            f += 1
    begin[f] = n
    # Each front joins the one that ends just before it while that is its child and few zeros appear.
    head = np.empty(f + 1, np.int64)
    zeros = np.zeros(f + 1, np.int64)
    top = 0
    for s in range(f):
        head[top] = begin[s]
        zeros[top] = 0
        top += 1
        end = begin[s + 1]
        while top >= 2:
            a, b = head[top - 2], head[top - 1]
            if parent[b - 1] < b or parent[b - 1] >= end:
                break
            wa, wb = b - a, end - b
            below = counts[b] - wb
            size = counts[a]
            # Rows of the child that the joined front has and the child had not.
            extra = (wa + wb + below) - size
            new = zeros[top - 2] + zeros[top - 1] + wa * extra
            width = wa + wb
            total = width * (width + 1) // 2 + width * below
            share = new / total
            if not (
                width <= _WIDTHS[0]
                or (width <= _WIDTHS[1] and share < _ZEROS[0])
                or (width <= _WIDTHS[2] and share < _ZEROS[1])
                or share < _ZEROS[2]
            ):
                break
            top -= 1
            zeros[top - 1] = new
            counts[a] = width + below
    head[top] = n
    return head[: top + 1].copy()


@compiled
def _structure(parent: Any, first: Any, pointers: Any, indices: Any) -> Any:
    """Front of each step, rows below each front, their places in the front above, and how many are below."""
    n, f = len(parent), len(first) - 1
    owner = np.empty(n, np.int64)
    for s in range(f):
        owner[first[s] : first[s + 1]] = s
    start = np.zeros(f + 1, np.int64)
    rows = np.empty(4 * n + 16, np.int64)
    mark = np.full(n, -1, np.int64)
    above = np.full(f, -1, np.int64)
    head = np.full(f, -1, np.int64)
    after = np.full(f, -1, np.int64)
    for s in range(f):
        end = first[s + 1]
        k = start[s]
        if k + n - end > len(rows):
            grown = np.empty(2 * len(rows) + n, np.int64)
            grown[:k] = rows[:k]
            rows = grown
        for j in range(first[s], end):
            for p in range(pointers[j], pointers[j + 1]):
                i = indices[p]
                if i >= end and mark[i] != s:
                    mark[i] = s
                    rows[k] = i
                    k += 1
        c = head[s]
        while c != -1:
            for p in range(start[c], start[c + 1]):
                i = rows[p]
                if i >= end and mark[i] != s:
                    mark[i] = s
                    rows[k] = i
                    k += 1
            c = after[c]
        start[s + 1] = k
        rows[start[s] : k] = np.sort(rows[start[s] : k])
        if k > start[s]:
            t = owner[rows[start[s]]]
            above[s] = t
            after[s] = head[t]
            head[t] = s
    rows = rows[: start[f]].copy()
    place = np.empty(len(rows), np.int64)
    where = np.empty(n, np.int64)
    children = np.zeros(f, np.int64)
    for t in range(f):
        w = first[t + 1] - first[t]
        for i in range(w):
            where[first[t] + i] = i
        for p in range(start[t], start[t + 1]):
            where[rows[p]] = w + p - start[t]
        c = head[t]
        while c != -1:
            children[t] += 1
            for p in range(start[c], start[c + 1]):
                place[p] = where[rows[p]]
            c = after[c]
    return owner, start, rows, place, children


@compiled
def _entries(owner: Any, first: Any, start: Any, rows: Any, position: Any, indptr: Any, indices: Any) -> Any:
    """Matrix entries by front, and where they go."""
    n, f = len(owner), len(first) - 1
    count = np.zeros(f + 1, np.int64)
    for column in range(n):
        j = position[column]
        for p in range(indptr[column], indptr[column + 1]):
            count[owner[min(j, position[indices[p]])] + 1] += 1
    entry = np.cumsum(count)
    at = entry[:-1].copy()
    source = np.empty(len(indices), np.int64)
    target = np.empty(len(indices), np.int64)
    column_of = np.empty(len(indices), np.int64)
    for column in range(n):
        j = position[column]
        for p in range(indptr[column], indptr[column + 1]):
            s = owner[min(j, position[indices[p]])]
            source[at[s]] = p
            column_of[at[s]] = j
            at[s] += 1
    where = np.empty(n, np.int64)
    for s in range(f):
        a, w, m = first[s], first[s + 1] - first[s], start[s + 1] - start[s]
        for i in range(w):
            where[a + i] = i
        for p in range(start[s], start[s + 1]):
            where[rows[p]] = w + p - start[s]
        for e in range(entry[s], entry[s + 1]):
            i, j = where[position[indices[source[e]]]], where[column_of[e]]
            target[e] = j * (w + m) + i if j < w else -1 - ((j - w) * w + i)
    return entry, source, target


@compiled
def _sizes(first: Any, start: Any, children: Any) -> Any:
    f = len(children)
    panel, side = np.zeros(f + 1, np.int64), np.zeros(f + 1, np.int64)
    pending = np.empty(f + 1, np.int64)
    top, used, largest = 0, 0, 0
    for s in range(f):
        w, m = first[s + 1] - first[s], start[s + 1] - start[s]
        panel[s + 1] = panel[s] + w * (w + m)
        side[s + 1] = side[s] + w * m
        largest = max(largest, used + m * m)
        for _ in range(children[s]):
            top -= 1
            used -= pending[top]
        if m > 0:
            pending[top] = m * m
            top += 1
            used += m * m
    return panel, side, largest


def analyse(indptr: NDArray[Any], indices: NDArray[Any]) -> Fronts:
    """Fronts of a square matrix in compressed columns of symmetric pattern, eliminated in about its own order.

    Only the order of independent parts changes.
    """
    n = len(indptr) - 1
    parent = _tree(n, indptr, indices)
    order = _postorder(parent)
    position = np.empty(n, dtype=np.int64)
    position[order] = np.arange(n)
    columns = np.repeat(np.arange(n), np.diff(indptr))
    i, j = position[indices], position[columns]
    lower = i >= j
    i, j = i[lower], j[lower]
    sort = np.argsort(j, kind="stable")
    pointers = np.zeros(n + 1, dtype=np.int64)
    np.cumsum(np.bincount(j, minlength=n), out=pointers[1:])
    below = i[sort]
    new_parent = np.where(parent[order] >= 0, position[parent[order]], -1)
    first = _supernodes(new_parent, _counts(new_parent, pointers, below))
    owner, start, rows, place, children = _structure(new_parent, first, pointers, below)
    entry, source, target = _entries(owner, first, start, rows, position, indptr, indices)
    panel, side, largest = _sizes(first, start, children)
    return Fronts(
        order, first, start, rows, place, children, panel, side, entry, source, target, np.array([largest])
    )
