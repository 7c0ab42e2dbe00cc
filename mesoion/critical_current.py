"""Current density at which a pellet between lithium electrodes first reaches an overpotential somewhere inside.

At the plating electrode the interfacial resistance R lifts the electrochemical potential of Li⁺ over the metal's, and
in a steady state the electrons that lithium sends into the solid carry that overpotential into the pellet
(`mesoion.wagner`). Boundaries add to it locally: ions and electrons drive the same mean field E = i/sigma_eff but
spread differently over grains, resistive and electronically conducting boundaries,

    eta = i R/c + g i d/sigma_grain                                                                     c: contact

with c the share of the interface in contact and g the constriction, a number that a polycrystal with collapsed
boundaries gives: g = (u_ion - u_electron) E sigma_grain/i at the faces of the boundaries, u the periodic parts of both
potentials in units of the grain size (`CollapsedPolycrystal.solve`). For plane boundaries across the current
g = rho/2 (exact), rho = r sigma_grain/d. This is the linear regime, e eta/kT small over one grain; beyond it electrons
are dragged along and level the differences, so that g then bounds the local part from above.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.interpolate import RegularGridInterpolator
from scipy.spatial import cKDTree

from mesoion.collapsed import CollapsedPolycrystal
from mesoion.errors import ConvergenceError, InputError
from mesoion.microstructure import Microstructure
from mesoion.units import BOLTZMANN, ELEMENTARY_CHARGE

Floats = NDArray[np.float64]
Where = Literal["boundary", "junction"]
Kinetics = Literal["linear", "butler-volmer"]

RESISTANCE_RANGE = (1e-5, 30.0)
"""rho = r sigma_grain/d of the tabulated boundaries."""
SHEET_RANGE = (1e-5, 100.0)
"""beta = s_e/(sigma_e d) of the tabulated boundaries, s_e the excess electronic sheet conductance."""
JUNCTION_REACH = 0.03
"""Faces within this distance of a junction count as its own, in mean grain sizes."""
_ITERATIONS = 60


@dataclass(frozen=True, eq=False)
class Constriction:
    """g over (ln rho, ln beta) for boundary faces and for those beside a junction.

    log_resistance (p,), log_sheet (q,): the grid. boundary, junction (p, q): g. quantile: share of the boundary length
    (over fields along +x, -x, +y, -y) that stays below g.
    """

    log_resistance: Floats
    log_sheet: Floats
    boundary: Floats
    junction: Floats
    quantile: float

    @classmethod
    def build(cls, microstructure: Microstructure, points: int = 9, quantile: float = 0.99) -> Self:
        """Tabulate g for one periodic polycrystal with one boundary type: 2 `points` solves.

        Raises InputError for a quantile outside 0.5 to 1 and what `CollapsedPolycrystal` raises.
        """
        if not 0.5 <= quantile <= 1.0:
            raise InputError("quantile", quantile, "give a share of the boundary length from 0.5 to 1")
        plain = microstructure.with_boundary_types({"general": 1.0}, 0)
        model = CollapsedPolycrystal(plain)
        rho, beta = np.geomspace(*RESISTANCE_RANGE, points), np.geomspace(*SHEET_RANGE, points)
        at, length, near = _faces(model)
        ions, electrons = [], []
        for value in rho:
            tensor, u = model.solve(model.coefficients({"general": value}, {"general": 0.0}))
            # i = sigma_eff E: in units of i d/sigma_grain the field is 1/tensor.
            ions.append((u[at], np.diag(np.linalg.inv(tensor.real))))
        for value in beta:
            electrons.append(model.solve(model.coefficients({"general": 0.0}, {"general": value}))[1][at])
        tables = {name: np.empty((points, points)) for name in ("boundary", "junction")}
        for i, (u, field) in enumerate(ions):
            for j, v in enumerate(electrons):
                local = (u - v) * field
                local = local - (length @ local) / length.sum()
                for name, here in (("boundary", np.ones(len(at), dtype=bool)), ("junction", near)):
                    values = np.r_[local[here].ravel(), -local[here].ravel()]
                    weights = np.tile(np.repeat(length[here], 2), 2)
                    tables[name][i, j] = _quantile(values, weights, quantile)
        return cls(np.log(rho), np.log(beta), tables["boundary"], tables["junction"], quantile)

    def __call__(self, where: Where, resistance: ArrayLike, sheet: ArrayLike) -> Floats:
        """g at rho = r sigma_grain/d and beta = s_e/(sigma_e d), arrays that broadcast.

        Interpolated in logarithms. Beyond the table's upper ends g follows its limits, proportional to rho and
        independent of beta; a boundary below its lower ends (or of negative excess) takes the least g tabulated,
        1e-5 grain sizes of grain. Raises InputError for values that are not finite.
        """
        rho, beta = np.broadcast_arrays(np.asarray(resistance, dtype=float), np.asarray(sheet, dtype=float))
        for name, values in (("resistance", rho), ("sheet", beta)):
            if not np.all(np.isfinite(values)):
                raise InputError(name, float(values[~np.isfinite(values)].flat[0]), "give finite values")
        table = self.boundary if where == "boundary" else self.junction
        grids = (self.log_resistance, self.log_sheet)
        inside = RegularGridInterpolator(grids, np.log(table))
        at = [
            np.clip(np.log(np.maximum(v, 1e-300)), grid[0], grid[-1])
            for v, grid in zip((rho, beta), grids, strict=True)
        ]
        beyond = np.maximum(rho / np.exp(self.log_resistance[-1]), 1.0)
        found = np.asarray(inside(np.stack(at, axis=-1))).reshape(rho.shape)
        return np.asarray(np.exp(found) * beyond)


def _faces(model: CollapsedPolycrystal) -> tuple[NDArray[np.int64], Floats, NDArray[np.bool_]]:
    """Cells beside the boundaries, the boundary length of each, and which lie at a junction."""
    n = model.mesh.n_cells
    length = 0.5 * model.laplacians[1].diagonal()[:n]
    at = np.flatnonzero(length > 0)
    box = model.microstructure.box / model.grain_size
    vertices = np.mod(model.microstructure.vertices / model.grain_size, box)
    points = np.mod(model.mesh.centers[at] / model.grain_size, box)
    distance, _ = cKDTree(vertices, boxsize=box).query(points)
    return at, length[at], np.asarray(distance < JUNCTION_REACH)


def _quantile(values: Floats, weights: Floats, share: float) -> float:
    order = np.argsort(values)
    below = (np.cumsum(weights[order]) - 0.5 * weights[order]) / weights.sum()
    return float(np.interp(share, below, values[order]))


def _checked(name: str, value: ArrayLike, *, zero: bool = False) -> Floats:
    number = np.asarray(value, dtype=float)
    bad = ~(np.isfinite(number) & ((number >= 0) if zero else (number > 0)))
    if np.any(bad):
        remedy = "give a finite value, zero or positive" if zero else "give a positive, finite value"
        raise InputError(name, float(number[bad].flat[0]), remedy)
    return number


def interfacial_overpotential(
    current_density: ArrayLike,
    interfacial_resistance: ArrayLike,
    temperature: ArrayLike,
    *,
    contact_fraction: ArrayLike = 1.0,
    kinetics: Kinetics = "linear",
) -> Floats:
    """eta [V] of Li⁺ at the plating electrode: i R/c, or (2kT/e) asinh(e i R/(2 kT c)) with Butler-Volmer kinetics.

    current_density i [A/m²] of the pellet. interfacial_resistance R [Ω m²] of full contact. contact_fraction c: share
    of the interface in contact, through which the whole current passes. temperature [K].
    """
    r, t = (
        _checked("interfacial_resistance", interfacial_resistance, zero=True),
        _checked("temperature", temperature),
    )
    c = _checked("contact_fraction", contact_fraction)
    if np.any(c > 1):
        raise InputError("contact_fraction", float(c.max()), "at most 1")
    linear = np.asarray(current_density, dtype=float) * r / c
    if kinetics == "linear":
        return np.asarray(linear)
    thermal = BOLTZMANN * t / ELEMENTARY_CHARGE
    return np.asarray(2.0 * thermal * np.arcsinh(0.5 * linear / thermal))


def critical_current_density(
    required: ArrayLike,
    *,
    interfacial_resistance: ArrayLike,
    local_resistance: ArrayLike,
    temperature: ArrayLike,
    contact_fraction: ArrayLike = 1.0,
    kinetics: Kinetics = "linear",
) -> Floats:
    """i [A/m²] at which eta = i R/c + i G reaches `required` [V]; arrays that broadcast.

    local_resistance: G = g d/sigma_grain [Ω m²] of the site. Otherwise as `interfacial_overpotential`. A sum of R and G
    of zero gives inf: no current makes an overpotential there. Raises InputError for a required overpotential that
    is not positive (metal would form at rest), ConvergenceError where the iteration does not end.
    """
    eta = _checked("required", required)
    g = _checked("local_resistance", local_resistance, zero=True)
    r = _checked("interfacial_resistance", interfacial_resistance, zero=True)
    c, t = _checked("contact_fraction", contact_fraction), _checked("temperature", temperature)
    eta, g, r, c, t = np.broadcast_arrays(eta, g, r, c, t)
    total = r / c + g
    with np.errstate(divide="ignore"):
        current = eta / total
    if kinetics == "linear":
        return np.asarray(current)
    # Concave in i: Newton from below, where the linear law overestimates eta, climbs without overshooting.
    thermal = BOLTZMANN * t / ELEMENTARY_CHARGE
    finite = np.isfinite(current)
    x = np.where(finite, current, 0.0)
    for _ in range(_ITERATIONS):
        linear = 0.5 * x * r / c / thermal
        miss = 2.0 * thermal * np.arcsinh(linear) + x * g - eta
        slope = r / c / np.sqrt(1.0 + linear**2) + g
        step = np.where(finite, miss / np.where(finite, slope, 1.0), 0.0)
        x = x - step
        if np.all(np.abs(step) <= 1e-13 * np.abs(x) + 1e-300):
            return np.asarray(np.where(finite, x, np.inf))
    raise ConvergenceError("the critical current was not found", at=f"overpotential {float(eta.max()):.3g} V")
