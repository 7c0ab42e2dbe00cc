"""Reading an impedance spectrum the way an experimenter does: arcs, intercepts, conductivities.

The spectrum is described by a lead (R, L), one or two depressed arcs and a blocking tail,

    Z(ω) = R₀ + iωL + Σ_j R_j / (1 + (iωτ_j)^n_j) + [Q (iω)^n]⁻¹ ,      C_j = τ_j / R_j  (= (R^(1−n) Q)^(1/n)),

and a second arc is only believed where one arc alone leaves more than the instrument's accuracy unexplained.
Source of the brick-layer relations: Haile, West & Campbell, J. Mater. Res. 13, 1576 (1998).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from mesoion.errors import InputError

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]


@dataclass(frozen=True)
class Arc:
    """One depressed arc: resistance [ohm], relaxation time [s], exponent n, effective capacitance [F]."""

    resistance: float
    relaxation_time: float
    exponent: float

    @property
    def capacitance(self) -> float:
        """C = τ/R [F], equal to (R^(1−n) Q)^(1/n) of the arc's constant-phase element."""
        return self.relaxation_time / self.resistance


@dataclass(frozen=True)
class SpectrumReading:
    """What a spectrum shows of a pellet of given thickness and area; conductivities in S/m.

    `grain_boundary` is None where a second arc is not needed to describe the spectrum to within the instrument's
    accuracy; the apparent and specific grain-boundary conductivities are then None too.
    """

    bulk: Arc
    grain_boundary: Arc | None
    thickness: float
    area: float
    largest_residual: float

    def _conductivity(self, resistance: float) -> float:
        return self.thickness / (self.area * resistance)

    @property
    def bulk_conductivity(self) -> float:
        """σ_b = L/(A R_b) [S/m]."""
        return self._conductivity(self.bulk.resistance)

    @property
    def total_conductivity(self) -> float:
        """σ_t = L/(A (R_b + R_gb)) [S/m]."""
        extra = 0.0 if self.grain_boundary is None else self.grain_boundary.resistance
        return self._conductivity(self.bulk.resistance + extra)

    @property
    def apparent_gb_conductivity(self) -> float | None:
        """σ_gb,app = L/(A R_gb) [S/m], the pellet's geometry with the boundary arc's resistance."""
        return None if self.grain_boundary is None else self._conductivity(self.grain_boundary.resistance)

    @property
    def width_over_grain_size(self) -> float | None:
        """δ/d = C_b/C_gb, brick layer with equal permittivities."""
        return (
            None if self.grain_boundary is None else self.bulk.capacitance / self.grain_boundary.capacitance
        )

    @property
    def specific_gb_conductivity(self) -> float | None:
        """σ_gb,spec = σ_b R_b C_b/(R_gb C_gb) [S/m], brick layer with equal permittivities."""
        if self.grain_boundary is None:
            return None
        return self.bulk_conductivity * self.bulk.relaxation_time / self.grain_boundary.relaxation_time


def _model(
    parameters: Floats, omega: Floats, n_arcs: int, tail: bool, leads: tuple[float, float]
) -> Complexes:
    z = leads[0] + 1j * omega * leads[1]
    for j in range(n_arcs):
        log_r, log_tau, n = parameters[3 * j : 3 * j + 3]
        z = z + np.exp(log_r) / (1 + (1j * omega * np.exp(log_tau)) ** n)
    if tail:
        log_q, n = parameters[3 * n_arcs :]
        z = z + np.exp(-log_q) / (1j * omega) ** n
    return np.asarray(z, dtype=complex)


def _fit(
    omega: Floats, z: Complexes, starts: list[Floats], n_arcs: int, tail: bool, leads: tuple[float, float]
) -> tuple[Floats, float]:
    scale = np.abs(z)
    lower = [np.log(scale.min()) - 25, -45.0, 0.55] * n_arcs + [-60.0, 0.55] * tail
    upper = [np.log(scale.max()) + 5, 15.0, 1.0] * n_arcs + [60.0, 1.0] * tail

    def residual(p: Floats) -> Floats:
        d = (_model(p, omega, n_arcs, tail, leads) - z) / scale
        return np.concatenate([d.real, d.imag])

    best: tuple[Floats, float] | None = None
    for start in starts:
        p0 = np.clip(start, np.array(lower) + 1e-6, np.array(upper) - 1e-6)
        fit = least_squares(residual, p0, bounds=(lower, upper), x_scale="jac", max_nfev=400)
        if best is None or fit.cost < best[1]:
            best = (fit.x, float(fit.cost))
    assert best is not None
    return best


def read_spectrum(
    frequency: Floats,
    impedance: Complexes,
    *,
    thickness: float,
    area: float,
    lead_resistance: float = 0.0,
    lead_inductance: float = 0.0,
    blocking: bool = True,
    accuracy: float = 0.005,
) -> SpectrumReading:
    """Read bulk and grain-boundary resistance off a spectrum.

    frequency (m,) [Hz], impedance (m,) [ohm]; thickness [m] and area [m²] of the pellet; the leads' resistance [ohm]
    and inductance [H] are known from a short-circuit measurement; `blocking` adds the electrodes' tail; `accuracy` is
    the instrument's relative accuracy, below which a second arc is not believed.

    Raises InputError for fewer than 12 points, unequal lengths, non-finite values or non-positive frequencies.
    """
    f = np.asarray(frequency, dtype=float)
    z = np.asarray(impedance, dtype=complex)
    if f.shape != z.shape or f.ndim != 1 or len(f) < 12:
        raise InputError("spectrum", f.shape, "give at least 12 frequencies and as many impedances")
    if not (np.all(np.isfinite(f)) and np.all(np.isfinite(z)) and np.all(f > 0)):
        raise InputError(
            "spectrum", "non-finite or non-positive entries", "frequencies > 0 and finite impedances"
        )
    order = np.argsort(f)
    omega, z = 2 * np.pi * f[order], z[order]
    leads = (lead_resistance, lead_inductance)
    corrected = z - leads[0] - 1j * omega * leads[1]
    plateau = corrected.real[np.argmin(np.abs(corrected.imag) / np.abs(corrected))]
    loss = -corrected.imag
    tail_start = [np.log(max(1e-30, 1 / (max(loss[0], 1e-300) * omega[0]))), 0.95] if blocking else []
    tau_bulk = 1 / omega[np.argmax((1j * omega * corrected).imag)]
    one_starts = [np.array([np.log(plateau), np.log(tau_bulk), 0.98, *tail_start])]
    one, _ = _fit(omega, z, one_starts, 1, blocking, leads)
    misfit_one = float(np.max(np.abs(_model(one, omega, 1, blocking, leads) - z) / np.abs(z)))
    if misfit_one <= accuracy:
        arc = Arc(float(np.exp(one[0])), float(np.exp(one[1])), float(one[2]))
        return SpectrumReading(arc, None, thickness, area, misfit_one)
    two_starts = [
        np.array(
            [
                np.log(plateau * b),
                np.log(tau_bulk),
                0.98,
                np.log(plateau * (1 - b)),
                np.log(tau_bulk * k),
                0.95,
            ]
        )
        for b in (0.5, 0.1, 0.9)
        for k in (1e1, 1e2, 1e3, 1e4)
    ]
    two, _ = _fit(omega, z, [np.r_[s, tail_start] for s in two_starts], 2, blocking, leads)
    misfit = float(np.max(np.abs(_model(two, omega, 2, blocking, leads) - z) / np.abs(z)))
    arcs = sorted(
        (
            Arc(*(float(v) for v in (np.exp(two[3 * j]), np.exp(two[3 * j + 1]), two[3 * j + 2])))
            for j in (0, 1)
        ),
        key=lambda a: a.relaxation_time,
    )
    return SpectrumReading(arcs[0], arcs[1], thickness, area, misfit)
