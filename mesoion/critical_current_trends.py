"""Trends and scatter of critical current densities: those of the model beside those of the measured pellets.

A trend is a slope of ln i. Of the model it is taken sample by sample, all else equal, so that its interval says how
far the assumptions leave the trend open, whatever they do to the value; of the measured pellets by least squares, with
their scatter in the interval. Nothing is fitted to the measured values.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.stats import chi2
from scipy.stats import t as student

from mesoion.errors import InputError
from mesoion.nucleation_sampling import Criterion, PelletCase, interval
from mesoion.transport import MeasuredCriticalCurrent
from mesoion.units import BOLTZMANN, ELEMENTARY_CHARGE

Floats = NDArray[np.float64]

DOPANTS = ("Al", "Ga", "Nb", "Ta")
"""Named in a composition; the others (La, Li, O, Zr) are the host's."""


@dataclass(frozen=True)
class Trend:
    """A slope with the bounds of its 95 % interval, from `count` values or samples.

    scatter: standard deviation of ln i about the line; 0 where the model has none.
    """

    slope: float
    low: float
    high: float
    count: int
    scatter: float = 0.0

    @property
    def certain(self) -> bool:
        """Whether the interval leaves out zero."""
        return self.low > 0 or self.high < 0


def log_trend(x: ArrayLike, currents: ArrayLike) -> Trend:
    """Slope of ln i against x by least squares, with Student's 95 % interval.

    x, currents (n,), n >= 3. Raises InputError for fewer values, currents that are not positive, or a single x.
    """
    at, values = np.asarray(x, dtype=float), np.asarray(currents, dtype=float)
    if len(at) != len(values) or len(at) < 3:
        raise InputError("currents", len(values), "give three values or more, one for each x")
    if not (np.all(values > 0) and np.all(np.isfinite(values))):
        raise InputError("currents", float(values.min()), "give positive, finite values")
    if np.ptp(at) == 0:
        raise InputError("x", float(at[0]), "a slope needs two different values")
    step, logs = at - at.mean(), np.log(values)
    spread = float(step @ step)
    slope = float(step @ logs) / spread
    freedom = len(at) - 2
    scatter = float(np.sqrt(((logs - logs.mean() - slope * step) ** 2).sum() / freedom))
    error = scatter / spread**0.5
    half = float(student.ppf(0.975, freedom)) * error
    return Trend(slope, slope - half, slope + half, len(at), scatter)


def sampled_trend(x: ArrayLike, currents: ArrayLike) -> Trend:
    """Slope of ln i against x (k,) of every sample, i (k, n): median and 95 % interval over the samples.

    Samples that are infinite somewhere have no slope and are left out. Raises InputError where none has one.
    """
    at, values = np.asarray(x, dtype=float), np.asarray(currents, dtype=float)
    values = values[:, np.all(np.isfinite(values), axis=0)]
    if values.shape[1] == 0:
        raise InputError("currents", "infinite values", "give samples that are finite at every x")
    step = at - at.mean()
    if not np.any(step):
        raise InputError("x", float(at[0]), "a slope needs two different values")
    slopes = step @ np.log(values) / (step @ step)
    middle, low, high = interval(slopes)
    return Trend(middle, low, high, values.shape[1])


def grain_size_trend(
    case: PelletCase, values: Mapping[str, Floats], temperature: float, sizes: ArrayLike, criterion: Criterion
) -> Trend:
    """d ln i/d ln d of a case at its samples over grain sizes d (k,) [m]; i is that of the first site.

    values: of `draws`. Raises what `PelletCase.critical_currents` and `sampled_trend` raise.
    """
    d = np.asarray(sizes, dtype=float)
    found = [case.critical_currents(values, temperature, float(s))[criterion, "first"] for s in d]
    return sampled_trend(np.log(d), np.array(found))


def temperature_trend(
    case: PelletCase, values: Mapping[str, Floats], temperatures: ArrayLike, criterion: Criterion
) -> Trend:
    """−d ln i/d(1/kT) [eV] of a case at its samples over temperatures (k,) [K]; i is that of the first site."""
    kelvin = np.asarray(temperatures, dtype=float)
    found = [case.critical_currents(values, float(t))[criterion, "first"] for t in kelvin]
    return sampled_trend(-inverse_temperature(kelvin), np.array(found))


def inverse_temperature(kelvin: ArrayLike) -> Floats:
    """1/kT [1/eV]."""
    return np.asarray(ELEMENTARY_CHARGE / (BOLTZMANN * np.asarray(kelvin, dtype=float)))


def dopant_of(composition: str) -> str:
    """Dopants named in a composition, "Al", "Ga", "Ta" or "Al, Ta"; "none" where there is none.

    >>> dopant_of("Li6.45Al0.05La3Zr1.6Ta0.4O12"), dopant_of("Ta-doped LLZO")
    ('Al, Ta', 'Ta')
    """
    return ", ".join(d for d in DOPANTS if d in composition) or "none"


def by_dopant(measured: Sequence[MeasuredCriticalCurrent]) -> dict[str, Floats]:
    """Critical currents [A/m²] by dopant, in the order of their names."""
    names = sorted({dopant_of(m.composition) for m in measured})
    return {
        name: np.array(
            [m.critical_current_density_A_per_m2 for m in measured if dopant_of(m.composition) == name]
        )
        for name in names
    }


def ratio(first: ArrayLike, second: ArrayLike) -> tuple[float, float, float]:
    """Ratio of the geometric means of two groups of pellets with its 95 % interval (Welch, in logarithms).

    Raises InputError for groups of fewer than two.
    """
    a, b = np.log(np.asarray(first, dtype=float)), np.log(np.asarray(second, dtype=float))
    if min(len(a), len(b)) < 2:
        raise InputError("groups", min(len(a), len(b)), "give at least two values in each")
    own = [float(g.var(ddof=1)) / len(g) for g in (a, b)]
    total = sum(own)
    if total == 0:
        middle = float(np.exp(a.mean() - b.mean()))
        return middle, middle, middle
    freedom = total**2 / sum(v**2 / (len(g) - 1) for v, g in zip(own, (a, b), strict=True))
    half = float(student.ppf(0.975, freedom)) * total**0.5
    middle = float(a.mean() - b.mean())
    return float(np.exp(middle)), float(np.exp(middle - half)), float(np.exp(middle + half))


def scatter(currents: ArrayLike) -> float:
    """Standard deviation of ln i of pellets or samples; infinite samples are left out."""
    values = np.asarray(currents, dtype=float)
    return float(np.log(values[np.isfinite(values)]).std(ddof=1))


def scatter_interval(deviation: float, freedom: int) -> tuple[float, float, float]:
    """A standard deviation with its 95 % interval (chi squared), from `freedom` degrees of freedom."""
    low, high = chi2.ppf([0.975, 0.025], freedom)
    return deviation, deviation * float(freedom / low) ** 0.5, deviation * float(freedom / high) ** 0.5


def scatter_at_one_composition(measured: Sequence[MeasuredCriticalCurrent]) -> tuple[float, int, int]:
    """Pooled standard deviation of ln i among pellets of the same composition, its degrees of freedom, and how many
    pellets that rests on.

    Raises InputError where no composition occurs twice.
    """
    squares, freedom, count = 0.0, 0, 0
    for name in {m.composition for m in measured}:
        logs = np.log([m.critical_current_density_A_per_m2 for m in measured if m.composition == name])
        if len(logs) > 1:
            squares += float(((logs - logs.mean()) ** 2).sum())
            freedom += len(logs) - 1
            count += len(logs)
    if freedom == 0:
        raise InputError("measured", len(measured), "give at least two pellets of one composition")
    return (squares / freedom) ** 0.5, freedom, count
