"""The nested-cube cell: a cubic grain of edge d - w in a cubic cell of edge d, resolved in three dimensions."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mesoion.errors import InputError
from mesoion.mesh import CellMesh, tensor_mesh

Floats = NDArray[np.float64]


def nested_cube_octant(
    edge: float, width: float, layer_cells: int = 6, grain_cells: int = 20, growth: float = 1.35
) -> CellMesh:
    """One eighth of the nested-cube cell as a graded tensor-product mesh.

    edge d [m] of the cell and width w [m] of the layer between neighbouring grains (w/2 lies in this cell). Planes of
    symmetry bound the octant: for a field along an axis its two walls are equipotentials and the others insulate,
    which is what `homogenise.effective_conductivity` does with walls. Cells are smallest at the interface, where the
    grain's edge and corner are singular, and grow by `growth` from it at most. Regions "grain" and "layer";
    layer_normals are zero where layers overlap.
    """
    if not (edge > 0 and 0 < width < edge):
        raise InputError("width", width, f"the layer must be thinner than the cell's edge {edge:.3g} m")
    if layer_cells < 1 or grain_cells < 2:
        raise InputError("layer_cells, grain_cells", (layer_cells, grain_cells), "give at least 1 and 2")
    half, inner = 0.5 * width, 0.5 * (edge - width)
    layer = growth ** np.arange(layer_cells)
    layer *= half / layer.sum()
    grain = _graded(inner, float(layer[0]), grain_cells)
    x = np.r_[0.0, np.cumsum(layer[::-1]), half + np.cumsum(grain)]
    x[-1] = 0.5 * edge
    mesh = tensor_mesh([x, x, x])
    inside = mesh.centers < half
    count = inside.sum(axis=1)
    normals = np.where((count == 1)[:, None], inside, 0.0)
    region = (count > 0).astype(np.int64)
    flagged = mesh.with_regions(region, ("grain", "layer"))
    return replace(
        flagged, layer_normals=normals, grain=np.where(count > 0, -1, 0), facet=np.where(count > 0, 0, -1)
    )


def _graded(length: float, first: float, count: int) -> Floats:
    """`count` sizes that sum to `length`, the first of them `first`, in geometric progression."""
    if first * count >= length:
        return np.full(count, length / count)
    low, high = 1.0, 20.0
    for _ in range(200):
        ratio = 0.5 * (low + high)
        total = first * (ratio**count - 1.0) / (ratio - 1.0)
        low, high = (ratio, high) if total < length else (low, ratio)
    sizes = first * ratio ** np.arange(count)
    return np.asarray(sizes * (length / sizes.sum()))
