"""Linear Kramers-Kronig fits: what a causal, linear and stable sample can show of a spectrum, and what is left.

    Z_fit(ω) = R + iωL + 1/(iωC) + Σ_k R_k / (1 + iωτ_k)

obeys the relations for any real R, L, 1/C, R_k; with fixed τ_k the fit is linear. Sources: Boukamp, J. Electrochem.
Soc. 142, 1885 (1995); instead of a number of elements chosen by hand (or by Schönleber's μ, Electrochim. Acta 131, 20
(2014)) the R_k are shrunk by a ridge whose size minimises the generalised cross-validation of Golub, Heath & Wahba
(1979): the number of elements the data support is the trace of the hat matrix.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mesoion.errors import InputError

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]

FEWEST_POINTS = 8
"""A Kramers-Kronig fit needs as many points."""

# Plain cross-validation now and then leaves almost nothing to judge by; Kim & Gu (2004) count each element as 1.4.
_CAUTION = 1.4
_RIDGES = np.logspace(-17.0, 2.0, 96)


def relaxation_times(frequency: ArrayLike, *, per_decade: int = 8, beyond: float = 0.5) -> Floats:
    """τ_k [s], evenly spaced in log τ over 1/ω of the frequencies and `beyond` decades more at both ends."""
    omega = 2.0 * np.pi * np.asarray(frequency, float)
    low, high = -np.log10(omega.max()) - beyond, -np.log10(omega.min()) + beyond
    return np.logspace(low, high, max(3, int(per_decade * (high - low))))


def elements(frequency: ArrayLike, tau: ArrayLike) -> Complexes:
    """Columns (n, 3 + m) of R, L, 1/C and the m relaxations, in ohm per ohm, per henry, per 1/farad, per ohm."""
    omega = 2.0 * np.pi * np.asarray(frequency, float)[:, np.newaxis]
    times = np.asarray(tau, float)[np.newaxis, :]
    alone = np.concatenate([np.ones_like(omega), 1j * omega, 1.0 / (1j * omega)], axis=1)
    return np.concatenate([alone, 1.0 / (1.0 + 1j * omega * times)], axis=1)


def kramers_kronig_residual(frequency: ArrayLike, impedance: ArrayLike, *, per_decade: int = 8) -> Complexes:
    """(Z - Z_fit)/|Z| (n,) of the best fit by real R-C elements, for spectra without noise.

    Z_fit = R + 1/(i omega C) + i omega L + sum_k R_k/(1 + i omega tau_k), tau_k fixed, `per_decade` of them, all
    coefficients real and fitted by linear least squares weighted by 1/|Z|. Source: Boukamp 1995, "linear KK".
    """
    z = np.asarray(impedance, dtype=complex)
    a = elements(frequency, relaxation_times(frequency, per_decade=per_decade)) / np.abs(z)[:, np.newaxis]
    stacked, target = _real(a), _real(z / np.abs(z))
    scale = np.linalg.norm(stacked, axis=0)
    solution, *_ = np.linalg.lstsq(stacked / scale, target, rcond=1e-13)
    return _complex(target - stacked / scale @ solution)


@dataclass(frozen=True)
class KramersKronigFit:
    """A regularised linear fit of a spectrum by elements that obey the Kramers-Kronig relations.

    frequency (n,) [Hz], impedance (n,) [ohm]: what was fitted. fitted (n,): Z_fit. residual (n,): (Z - Z_fit)/|Z|.
    sigma (n,): relative standard deviation of Re Z and of Im Z by which the points were weighted. hat (2n, 2n): of the
    weighted data, real parts first. coefficients: R [ohm], L [H], 1/C [1/F], R_k [ohm]; their standard errors for
    sigma = 1 are in `errors`. n_elements: trace of the hat matrix. noise: residual in units of sigma, root mean square
    with n_elements subtracted. ridge: what shrank the R_k. change, change_error: relative change of Z over the
    measurement, where it was asked for.
    """

    frequency: Floats
    impedance: Complexes
    fitted: Complexes
    residual: Complexes
    sigma: Floats
    hat: Floats
    tau: Floats
    coefficients: Floats
    errors: Floats
    n_elements: float
    noise: float
    ridge: float
    change: float | None = None
    change_error: float | None = None

    def at(self, frequency: ArrayLike) -> Complexes:
        """Z_fit [ohm] at other frequencies, which should lie within the fitted ones."""
        return np.asarray(elements(frequency, self.tau) @ self.coefficients)

    @property
    def inductance(self) -> tuple[float, float]:
        """Series inductance [H] and its standard error; relaxations beyond the highest frequency lower it by Rτ."""
        return float(self.coefficients[1]), float(self.errors[1]) * self.noise

    @property
    def blocks(self) -> Floats:
        """(n, 2, 2): 1 - hat of each point's real and imaginary part."""
        n = len(self.frequency)
        i = np.arange(n)
        rest = np.eye(2 * n) - self.hat
        pairs = [[rest[i, i], rest[i, i + n]], [rest[i + n, i], rest[i + n, i + n]]]
        return np.asarray(np.moveaxis(np.array(pairs), 2, 0))


def fit_kramers_kronig(
    frequency: ArrayLike,
    impedance: ArrayLike,
    *,
    sigma: ArrayLike | None = None,
    inductance: bool = True,
    capacitance: bool = True,
    change: bool = False,
    per_decade: int = 8,
    ridge: float | None = None,
) -> KramersKronigFit:
    """The linear Kramers-Kronig fit of a spectrum, the number of elements chosen by cross-validation.

    frequency (n,) [Hz], impedance (n,) [ohm], n >= 8. sigma (n,): relative standard deviations for the weights, equal
    where None. inductance, capacitance: whether a series L and a series C are among the elements. change: also fit a
    relative change of Z that grows with the time of measurement, taken as Σ 1/f from the highest frequency down: the
    first-order effect of a sample that drifts, which the relations forbid. per_decade: elements per decade of τ. ridge:
    instead of the one that cross-validation chooses.

    Raises InputError for fewer points, unequal lengths, or values that are not finite.
    """
    f = np.asarray(frequency, float)
    z = np.asarray(impedance, complex)
    weight = np.ones(f.shape) if sigma is None else np.asarray(sigma, float)
    if f.ndim != 1 or f.shape != z.shape or f.shape != weight.shape or len(f) < FEWEST_POINTS:
        shapes = f"shapes {f.shape}, {z.shape} and {weight.shape}"
        raise InputError(
            "spectrum", shapes, f"give at least {FEWEST_POINTS} frequencies and as many impedances"
        )
    if not (
        np.isfinite(f).all()
        and (f > 0).all()
        and np.isfinite(z).all()
        and (z != 0).all()
        and (weight > 0).all()
    ):
        raise InputError(
            "spectrum", "a point", "frequencies and sigma above zero, finite impedances other than zero"
        )
    tau = relaxation_times(f, per_decade=per_decade)
    columns = elements(f, tau) / (np.abs(z) * weight)[:, np.newaxis]
    free = [0, *([1] if inductance else []), *([2] if capacitance else [])]
    alone = columns[:, free]
    if change:
        order = np.argsort(-f)
        time = np.empty(len(f))
        time[order] = np.cumsum(1.0 / f[order])
        alone = np.concatenate([alone, (time / time.max() * z / (np.abs(z) * weight))[:, np.newaxis]], axis=1)
    a, g, y = _real(alone), _real(columns[:, 3:]), _real(z / (np.abs(z) * weight))
    a_scale, g_scale = np.linalg.norm(a, axis=0), np.linalg.norm(g, axis=0)
    q, triangle = np.linalg.qr(a / a_scale)
    scaled = g / g_scale
    u, s, vt = np.linalg.svd(scaled - q @ (q.T @ scaled), full_matrices=False)
    keep = s > 1e-13 * s[0]
    u, s, vt = u[:, keep], s[keep], vt[keep]
    if ridge is None:
        ridge = _cross_validated(y - q @ (q.T @ y), u, s, len(free) + change)
    shrink = s**2 / (s**2 + ridge)
    to_relaxations = (vt.T * (s / (s**2 + ridge))) @ u.T
    to_alone = np.linalg.solve(triangle, q.T - q.T @ scaled @ to_relaxations)
    alone_values, relaxations = to_alone @ y / a_scale, to_relaxations @ y / g_scale
    hat = q @ q.T + (u * shrink) @ u.T
    coefficients, errors = np.zeros(3 + len(tau)), np.zeros(3 + len(tau))
    coefficients[free], coefficients[3:] = alone_values[: len(free)], relaxations
    spread_alone = np.linalg.norm(to_alone, axis=1) / a_scale
    errors[free], errors[3:] = spread_alone[: len(free)], np.linalg.norm(to_relaxations, axis=1) / g_scale
    left = y - hat @ y
    n_elements = float(np.trace(hat))
    residual = _complex(left) * weight
    return KramersKronigFit(
        f,
        z,
        z - residual * np.abs(z),
        residual,
        weight,
        hat,
        tau,
        coefficients,
        errors,
        n_elements,
        float(np.sqrt(left @ left / (len(y) - n_elements))),
        float(ridge),
        float(alone_values[-1]) if change else None,
        float(spread_alone[-1]) if change else None,
    )


def _cross_validated(y: Floats, u: Floats, s: Floats, n_free: int) -> float:
    """The ridge with the least generalised cross-validation N·RSS/(N - γ tr H)², γ = _CAUTION."""
    b = u.T @ y
    outside = max(float(y @ y - b @ b), 0.0)
    shrink = s**2 / (s**2 + _RIDGES[:, np.newaxis])
    rss = outside + (((1.0 - shrink) * b) ** 2).sum(axis=1)
    freedom = len(y) - _CAUTION * (n_free + shrink.sum(axis=1))
    score = np.where(freedom > 0.0, rss / np.maximum(freedom, 1e-9) ** 2, np.inf)
    return float(_RIDGES[-1] if not np.isfinite(score).any() else _RIDGES[int(np.argmin(score))])


def _real(values: Complexes) -> Floats:
    return np.concatenate([values.real, values.imag], axis=0)


def _complex(values: Floats) -> Complexes:
    n = len(values) // 2
    return np.asarray(values[:n] + 1j * values[n:])
