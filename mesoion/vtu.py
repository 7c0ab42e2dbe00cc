"""Cell meshes and cell fields as VTK unstructured grids (.vtu, XML with base64 data), for ParaView and VisIt.

Format: VTK File Formats, Kitware (XML unstructured grid, inline binary, 64-bit block headers). Two-dimensional cells
become VTK_POLYGON and one-dimensional ones VTK_LINE.
"""

from __future__ import annotations

import base64
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from xml.sax.saxutils import quoteattr

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mesoion.errors import InputError, MeshError
from mesoion.mesh import CellMesh

_LINE, _POLYGON = 3, 7
_TYPES = {"f8": "Float64", "i8": "Int64", "u1": "UInt8"}


def write_vtu(
    path: str | os.PathLike[str], mesh: CellMesh, fields: Mapping[str, ArrayLike] | None = None
) -> Path:
    """Write `mesh` with cell arrays to `path` and return it.

    fields: name -> (n,) or (n, components), real; a complex field is written as "name (real)" and "name (imaginary)".
    "region" (index), "grain", "facet" and "volume" are always written. The file appears only when it is complete.
    Raises InputError for a field of another length, MeshError for a mesh without polygons.
    """
    points, connectivity, offsets, kind = _topology(mesh)
    arrays: dict[str, NDArray[Any]] = {
        "region": mesh.region,
        "grain": mesh.grain,
        "facet": mesh.facet,
        "volume": mesh.volumes,
    }
    for name, value in (fields or {}).items():
        a = np.asarray(value)
        if a.ndim not in (1, 2) or len(a) != mesh.n_cells:
            raise InputError(f"fields[{name!r}]", a.shape, f"the first axis must have {mesh.n_cells} cells")
        if np.iscomplexobj(a):
            arrays[f"{name} (real)"], arrays[f"{name} (imaginary)"] = a.real, a.imag
        else:
            arrays[name] = a
    order = "LittleEndian" if sys.byteorder == "little" else "BigEndian"
    lines = [
        '<?xml version="1.0"?>',
        f'<VTKFile type="UnstructuredGrid" version="1.0" byte_order="{order}" header_type="UInt64">',
        f'<UnstructuredGrid><Piece NumberOfPoints="{len(points)}" NumberOfCells="{mesh.n_cells}">',
        "<Points>",
        _array("points", points),
        "</Points><Cells>",
        _array("connectivity", connectivity),
        _array("offsets", offsets),
        _array("types", np.full(mesh.n_cells, kind, dtype=np.uint8)),
        "</Cells><CellData>",
        *(_array(name, a) for name, a in arrays.items()),
        "</CellData></Piece></UnstructuredGrid></VTKFile>",
    ]
    target = Path(path)
    partial = target.with_name(target.name + ".partial")
    partial.write_text("\n".join(lines) + "\n", encoding="utf-8")
    partial.replace(target)
    return target


def _topology(mesh: CellMesh) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any], int]:
    """Points (p, 3), connectivity, offsets and the VTK cell type."""
    if mesh.dimension == 1:
        x, h = mesh.centers[:, 0], 0.5 * mesh.volumes
        ends = np.stack([x - h, x + h], axis=1).ravel()
        points = np.zeros((len(ends), 3))
        points[:, 0] = ends
        return points, np.arange(len(ends)), 2 * np.arange(1, mesh.n_cells + 1), _LINE
    if mesh.vertices is None or mesh.polygons is None:
        raise MeshError(
            f"this {mesh.dimension}-dimensional mesh carries no polygons; only 1D and 2D ones are written"
        )
    points = np.zeros((len(mesh.vertices), 3))
    points[:, :2] = mesh.vertices
    connectivity = np.concatenate(mesh.polygons)
    return points, connectivity, np.cumsum([len(p) for p in mesh.polygons]), _POLYGON


def _array(name: str, value: NDArray[Any]) -> str:
    code = "u1" if value.dtype == np.uint8 else "f8" if value.dtype.kind == "f" else "i8"
    data = np.ascontiguousarray(value, dtype=np.dtype(code)).tobytes()
    block = base64.b64encode(np.uint64(len(data)).tobytes() + data).decode("ascii")
    width = f' NumberOfComponents="{value.shape[1]}"' if value.ndim == 2 else ""
    return (
        f'<DataArray type="{_TYPES[code]}" Name={quoteattr(name)}{width} format="binary">{block}</DataArray>'
    )
