"""Closed forms for a polycrystal of grains (d) behind boundary layers (δ), for comparison with the resolved solution.

All take the fraction f = δ/d and conductivities or complex admittivities σ + iωε in the same unit, as scalars or
arrays, and return the effective value in that unit.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mesoion.errors import InputError

Value = TypeVar("Value", float, complex, NDArray[np.float64], NDArray[np.complex128])


def _check(fraction: float) -> None:
    if not 0 <= fraction < 1:
        raise InputError("boundary width over grain size", fraction, "0 <= width/grain size < 1")


def series_brick_layer(bulk: Value, boundary: Value, fraction: float) -> Value:
    """1/σ = (1 − f)/σ_b + f/σ_gb: grains and boundaries in series, no path along the boundaries.

    The textbook's 1/σ_b + f/σ_gb counts the layer's thickness twice; both agree for f → 0.
    """
    _check(fraction)
    return 1 / ((1 - fraction) / bulk + fraction / boundary)


def brick_layer(bulk: Value, boundary: Value, fraction: float) -> Value:
    """σ = (1−f)² [(1−f)/σ_b + f/σ_gb]⁻¹ + [1−(1−f)²] σ_gb: cubes with side paths.

    Source: Näfe, Solid State Ionics 13, 255 (1984); a lower bound (isolated columns) of the nested cube.
    """
    _check(fraction)
    core = (1 - fraction) ** 2
    return core / ((1 - fraction) / bulk + fraction / boundary) + (1 - core) * boundary


def maxwell_wagner(bulk: Value, boundary: Value, fraction: float) -> Value:
    """Coated spheres with a volume fraction φ = (1−f)³ of core.

        σ = σ_gb [(1+2φ) σ_b + 2(1−φ) σ_gb] / [(1−φ) σ_b + (2+φ) σ_gb]

    Source: Maxwell's mixture formula; exact for the Hashin-Shtrikman assemblage of coated spheres.
    """
    _check(fraction)
    phi = (1 - fraction) ** 3
    return (
        boundary
        * ((1 + 2 * phi) * bulk + 2 * (1 - phi) * boundary)
        / ((1 - phi) * bulk + (2 + phi) * boundary)
    )


def hart(bulk: Value, boundary: Value, fraction: float) -> Value:
    """D = g D_gb + (1 − g) D_b with g = 3f, capped at 1: short circuits in parallel (an upper bound).

    Source: Hart, Acta Metall. 5, 597 (1957).
    """
    _check(fraction)
    g = min(3 * fraction, 1.0)
    return g * boundary + (1 - g) * bulk


def specific_from_apparent(apparent: Value, fraction: float) -> Value:
    """Thin brick layer: σ_gb,spec = σ_gb,app δ/d."""
    _check(fraction)
    return apparent * fraction


def crossing_fraction(bulk: float, boundary: float, fraction: float) -> float:
    """Share of the resistance that sits in the boundaries of the series brick layer (0 to 1)."""
    _check(fraction)
    in_boundary = fraction / boundary
    return in_boundary / (in_boundary + (1 - fraction) / bulk)
