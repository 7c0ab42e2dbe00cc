"""Fitting a circuit to a spectrum: logarithmic parameters, several starts, honest intervals, the choice of a circuit.

The misfit is χ² = Σ_k |Z_model(f_k) − Z_k|²/s_k² over real and imaginary parts. The standard deviations s_k are either
known (an array) or proportional to |Z_k|; in the second case, and where the model leaves more than the known ones
explain, the intervals are widened by √(χ²/(M − k)), M = 2m real data and k free parameters.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import least_squares
from scipy.stats import chi2 as chi2_distribution
from scipy.stats import t as student_t

from mesoion.errors import ConvergenceError, InputError
from mesoion.impedance.arc_places import arc_places
from mesoion.impedance.circuits import ZARC, Circuit, Parameter

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]

MAX_EVALUATIONS = 400
"""Most model evaluations of one start."""
_NEAR_BOUND = 1e-3


@dataclass(frozen=True)
class CircuitFit:
    """A circuit with the values that describe a spectrum best, and how well they are known.

    circuit: with its fitted values. frequency [Hz], measured [ohm], deviation [ohm] (m,): the data and their standard
    deviations as used, before widening. free: indices of the fitted parameters. log_covariance (k, k): of the
    natural logarithms of the free parameters. chi_squared, degrees_of_freedom, scale: χ², M − k, and the factor by
    which the deviations were widened; widening: `scale` times that for residuals correlated from one frequency to the
    next, which are the model's and not noise. at_bound: names of parameters that ended at a bound. starts, agreeing:
    starts tried and how many reached the same minimum.
    """

    circuit: Circuit
    frequency: Floats
    measured: Complexes
    deviation: Floats
    free: tuple[int, ...]
    log_covariance: Floats
    chi_squared: float
    degrees_of_freedom: int
    scale: float
    widening: float
    known_noise: bool
    at_bound: tuple[str, ...]
    starts: int
    agreeing: int

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The circuit's parameters with their fitted values."""
        return self.circuit.parameters

    @property
    def model(self) -> Complexes:
        """The circuit's impedance at the data's frequencies [ohm]."""
        return self.circuit.impedance(self.frequency)

    @property
    def relative_residuals(self) -> Complexes:
        """(Z_model − Z)/|Z|, complex (m,)."""
        return np.asarray((self.model - self.measured) / np.abs(self.measured))

    @property
    def log_likelihood(self) -> float:
        """ln L at the maximum; with unknown noise its scale is maximised too."""
        data = 2 * len(self.frequency)
        constant = -2.0 * float(np.sum(np.log(self.deviation))) - 0.5 * data * math.log(2 * math.pi)
        if self.known_noise:
            return constant - 0.5 * self.chi_squared
        return constant - 0.5 * data * (math.log(max(self.chi_squared, 1e-300) / data) + 1.0)

    @property
    def aic(self) -> float:
        """Akaike's criterion with the small-sample correction."""
        k, data = len(self.free) + (not self.known_noise), 2 * len(self.frequency)
        return 2 * k - 2 * self.log_likelihood + 2 * k * (k + 1) / max(data - k - 1, 1)

    @property
    def bic(self) -> float:
        """Schwarz's criterion."""
        k, data = len(self.free) + (not self.known_noise), 2 * len(self.frequency)
        return k * math.log(data) - 2 * self.log_likelihood

    def _index(self, name: str) -> int:
        names = [p.name for p in self.parameters]
        if name not in names:
            raise InputError("circuit", name, f"the circuit has the parameters {', '.join(names)}")
        return names.index(name)

    def value(self, name: str) -> float:
        """The fitted value of a parameter, in its unit."""
        return float(self.circuit.values[self._index(name)])

    def log_gradient(self, weights: Mapping[str, float]) -> Floats:
        """Σ weight × unit vector of the named parameters, in the space of the free logarithms (k,)."""
        gradient = np.zeros(len(self.free))
        for name, weight in weights.items():
            index = self._index(name)
            if index in self.free:
                gradient[self.free.index(index)] += weight
        return gradient

    def log_uncertainty(self, weights: Mapping[str, float]) -> float:
        """Standard uncertainty of Σ weight · ln(parameter), by linear propagation with all correlations."""
        gradient = self.log_gradient(weights)
        return math.sqrt(max(0.0, float(gradient @ self.log_covariance @ gradient)))

    def quantile(self, level: float = 0.95) -> float:
        """Half-width of a two-sided interval in standard uncertainties."""
        return _quantile(level, self.degrees_of_freedom)

    def interval(self, name: str, level: float = 0.95) -> tuple[float, float]:
        """Interval of one parameter from the covariance of its logarithm; within the parameter's bounds."""
        parameter = self.parameters[self._index(name)]
        value = self.value(name)
        factor = math.exp(min(self.quantile(level) * self.log_uncertainty({name: 1.0}), 300.0))
        return max(value / factor, min(parameter.lower, value)), min(
            value * factor, max(parameter.upper, value)
        )

    def profile_interval(self, name: str, level: float = 0.95) -> tuple[float, float]:
        """Interval of one parameter by profile likelihood: where refitting all others raises χ² by (t·widening)².

        A side on which χ² never rises that far within the bounds ends at the bound. Raises InputError for a
        parameter that was held.
        """
        index = self._index(name)
        if index not in self.free:
            raise InputError("profile_interval", name, "it was held in the fit and has no interval")
        target = self.chi_squared + (self.quantile(level) * self.widening) ** 2
        parameter = self.parameters[index]
        step = max(self.quantile(level) * self.log_uncertainty({name: 1.0}), 1e-12)
        ends = (parameter.lower, parameter.upper)
        low, high = (
            self._crossing(index, side, step, math.log(end), target)
            for side, end in zip((-1, 1), ends, strict=True)
        )
        return low, high

    def _crossing(self, index: int, side: int, step: float, end: float, target: float) -> float:
        """exp of where the profile crosses `target` on one side of the optimum; bounded bracketing and bisection."""
        problem = CircuitProblem(self.circuit, self.frequency, self.measured, self.deviation, (index,))
        best = np.log(self.circuit.values)
        # The others start where the covariance says they follow: a step or two from their new minimum.
        column = self.log_covariance[:, self.free.index(index)]
        follow = np.zeros(len(best))
        follow[list(self.free)] = column / max(column[self.free.index(index)], 1e-300)
        state, at = best.copy(), float(best[index])

        def profile(position: float) -> float:
            nonlocal at
            others = problem.solve(state + follow * (position - at), rough=True)
            state[:], at = others.logs, position
            state[index] = position
            return others.chi_squared - target

        inside, outside = best[index], best[index] + side * step
        for _ in range(40):
            if side * (outside - end) >= 0:
                outside = end
                if profile(outside) <= 0:
                    return math.exp(end)
                break
            if profile(outside) > 0:
                break
            inside, outside = outside, outside + 1.6 * (outside - inside)
        # √Δχ² is nearly linear in ln p, so the secant in it lands in a few steps; bisection guards it.
        floor = self.chi_squared - target
        root_low, root_high = None, None
        for _ in range(30):
            if abs(outside - inside) < 5e-3 * step:
                break
            if root_low is not None and root_high is not None and root_high > root_low:
                goal = math.sqrt(-floor)
                share = min(max((goal - root_low) / (root_high - root_low), 0.05), 0.95)
                middle = inside + share * (outside - inside)
            else:
                middle = 0.5 * (inside + outside)
            excess = profile(middle)
            if excess > 0:
                outside, root_high = middle, math.sqrt(excess - floor)
            else:
                inside, root_low = middle, math.sqrt(max(excess - floor, 0.0))
        return math.exp(0.5 * (inside + outside))


def _quantile(level: float, degrees_of_freedom: int) -> float:
    return float(student_t.ppf(0.5 + level / 2, max(degrees_of_freedom, 1)))


@dataclass(frozen=True)
class _Solution:
    logs: Floats
    chi_squared: float
    jacobian: Floats
    converged: bool


class CircuitProblem:
    """The least-squares problem of one circuit and one spectrum; `also_held` are further indices held."""

    def __init__(
        self,
        circuit: Circuit,
        frequency: Floats,
        measured: Complexes,
        deviation: Floats,
        also_held: tuple[int, ...] = (),
    ) -> None:
        self.circuit, self.frequency, self.measured = circuit, frequency, measured
        self.weight = 1.0 / deviation
        self.parameters = circuit.parameters
        self.free = np.array(
            [k for k, p in enumerate(self.parameters) if not p.fixed and k not in also_held], int
        )
        self.lower = np.log([self.parameters[k].lower for k in self.free])
        self.upper = np.log([self.parameters[k].upper for k in self.free])

    def residuals(self, logs: Floats) -> tuple[Floats, Floats]:
        """Weighted residuals (2m,) and their derivatives (2m, k) by the free logarithms."""
        z, slopes = self.circuit.derivatives(self.frequency, np.exp(logs))
        r = (z - self.measured) * self.weight
        j = slopes[:, self.free] * self.weight[:, None]
        return np.concatenate([r.real, r.imag]), np.concatenate([j.real, j.imag])

    def solve(self, logs: Floats, rough: bool = False) -> _Solution:
        """The minimum reached from `logs` (all parameters); rough: χ² to about 1e-9 only."""
        full = np.array(logs, float)
        if self.free.size == 0:
            r, j = self.residuals(full)
            return _Solution(full, float(r @ r), j, True)
        start = np.clip(full[self.free], self.lower + 1e-9, self.upper - 1e-9)

        def both(x: Floats) -> tuple[Floats, Floats]:
            at = full.copy()
            at[self.free] = x
            return self.residuals(at)

        cache: dict[bytes, tuple[Floats, Floats]] = {}

        def at(x: Floats) -> tuple[Floats, Floats]:
            key = x.tobytes()
            if key not in cache:
                cache.clear()
                cache[key] = both(x)
            return cache[key]

        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            found = least_squares(
                lambda x: at(x)[0],
                start,
                jac=lambda x: at(x)[1],
                bounds=(self.lower, self.upper),
                x_scale="jac",
                ftol=1e-9 if rough else 1e-14,
                xtol=1e-9 if rough else 1e-13,
                gtol=1e-9 if rough else 1e-14,
                max_nfev=MAX_EVALUATIONS,
            )
        full[self.free] = found.x
        return _Solution(full, 2.0 * float(found.cost), np.asarray(found.jac), found.status > 0)


def _checked_data(frequency: ArrayLike, impedance: ArrayLike) -> tuple[Floats, Complexes]:
    f, z = np.asarray(frequency, float), np.asarray(impedance, complex)
    if f.ndim != 1 or f.shape != z.shape or f.size == 0:
        raise InputError(
            "spectrum", f"{f.shape} and {z.shape}", "frequency and impedance are equally long lists"
        )
    if not (np.isfinite(f).all() and (f > 0).all() and np.isfinite(z).all() and (z != 0).all()):
        raise InputError(
            "spectrum", "a point", "frequencies above zero and finite impedances other than zero"
        )
    return f, z


def fit_circuit(
    frequency: ArrayLike,
    impedance: ArrayLike,
    circuit: Circuit,
    *,
    deviation: ArrayLike | None = None,
    starts: int = 8,
    spread: float = 1.0,
    seed: int = 0,
    exchange: bool = True,
) -> CircuitFit:
    """The values of `circuit` that describe a spectrum best.

    frequency (m,) [Hz], impedance (m,) [ohm]. circuit: values it has are the first start, those it lacks are guessed
    from the data; fixed ones are held. deviation: standard deviation of Z' and of Z'' [ohm], (m,) or one number;
    None: proportional to |Z|, its size found from the misfit. starts: further ones are drawn about the first, with
    standard deviation `spread` in each logarithm (whole ranges for values guessed), from `seed`. exchange: also try
    the minimum found with each pair of its arcs exchanged: two arcs in each other's place are a local minimum.

    Raises InputError for fewer real data than free parameters and data that are not finite; ConvergenceError where
    no start converges.
    """
    f, z = _checked_data(frequency, impedance)
    if starts < 1:
        raise InputError("starts", starts, "at least one start is expected")
    size = np.abs(z) if deviation is None else np.broadcast_to(np.asarray(deviation, float), f.shape)
    if not (np.isfinite(size).all() and (size > 0).all()):
        raise InputError("deviation", "a value", "standard deviations are finite and above zero")
    problem = CircuitProblem(circuit, f, z, size)
    data, free = 2 * f.size, problem.free.size
    if data <= free:
        remedy = (
            f"the circuit has {free} free parameters and needs more than {math.ceil((free + 1) / 2)} points"
        )
        raise InputError("spectrum", f"{f.size} points", remedy)
    rng = np.random.default_rng(seed)
    solutions = [
        problem.solve(start, rough=True) for start in _starting_points(problem, f, z, starts, spread, rng)
    ]
    good = [s for s in solutions if s.converged] or solutions
    best = min(good, key=lambda s: s.chi_squared)
    agreeing = sum(s.chi_squared <= best.chi_squared * (1 + 1e-4) for s in good)
    if exchange:
        best = _exchanged(problem, best)
    best = problem.solve(best.logs)
    if not (np.isfinite(best.chi_squared) and best.converged):
        raise ConvergenceError(
            "no start of the circuit fit converged; give starting values nearer the spectrum or a smaller circuit",
            at=f"{circuit.description()}, {starts} starts",
        )
    return _as_fit(problem, best, deviation is not None, len(solutions), agreeing)


def _exchanged(problem: CircuitProblem, best: _Solution) -> _Solution:
    """The best minimum reached from `best` with pairs of arcs in each other's place; bounded."""
    places = arc_places(problem.circuit)
    pairs = [
        (a, b)
        for i, a in enumerate(places)
        for b in places[i + 1 :]
        if (a.element, b.element) != (ZARC, ZARC)
    ]
    for _ in range(3):
        before = best.chi_squared
        for first, second in pairs:
            values = np.exp(best.logs)
            one, other = first.read(values), second.read(values)
            first.write(values, *other)
            second.write(values, *one)
            held = [k for k, p in enumerate(problem.parameters) if p.fixed]
            logs = np.log(values)
            logs[held] = best.logs[held]
            found = problem.solve(logs, rough=True)
            if found.converged and found.chi_squared < best.chi_squared:
                best = found
        if not best.chi_squared < before * (1 - 1e-9):
            break
    return best


def _as_fit(problem: CircuitProblem, best: _Solution, known: bool, starts: int, agreeing: int) -> CircuitFit:
    data, free = 2 * problem.frequency.size, problem.free
    dof = data - free.size
    scale = math.sqrt(best.chi_squared / dof)
    if known and best.chi_squared <= chi2_distribution.ppf(0.99, dof):
        scale = 1.0
    widening = scale * correlation_widening(problem.residuals(best.logs)[0])
    covariance = _inverse(best.jacobian) * widening**2
    ends = zip(free, best.logs[free] - problem.lower, problem.upper - best.logs[free], strict=True)
    at_bound = tuple(problem.parameters[k].name for k, a, b in ends if min(a, b) < _NEAR_BOUND)
    return CircuitFit(
        circuit=problem.circuit.with_values(np.exp(best.logs)),
        frequency=problem.frequency,
        measured=problem.measured,
        deviation=1.0 / problem.weight,
        free=tuple(int(k) for k in free),
        log_covariance=covariance,
        chi_squared=best.chi_squared,
        degrees_of_freedom=dof,
        scale=scale,
        widening=widening,
        known_noise=known,
        at_bound=at_bound,
        starts=starts,
        agreeing=agreeing,
    )


def correlation_widening(residuals: Floats) -> float:
    """Factor on standard uncertainties for residuals (2m,), real then imaginary, correlated along frequency.

    With ρ the correlation of neighbours, √((1 + ρ)/(1 − ρ)), that of the mean of a first-order autoregressive series;
    1 where ρ is within three standard errors, 3/√2m, of zero. Source: N. F. Zhang, Metrologia 43, S276 (2006).
    """
    m = residuals.size // 2
    parts = residuals.reshape(2, m) if m else residuals.reshape(2, 0)
    power = float(np.sum(parts**2))
    if m < 8 or power == 0.0:
        return 1.0
    rho = float(np.sum(parts[:, 1:] * parts[:, :-1])) / power
    return math.sqrt((1 + rho) / (1 - rho)) if rho > 3 / math.sqrt(2 * m) else 1.0


def _inverse(jacobian: Floats) -> Floats:
    """(JᵀJ)⁻¹ with columns scaled to one; directions the data do not see keep a huge, finite variance."""
    norms = np.linalg.norm(jacobian, axis=0)
    norms = np.where(norms > 0, norms, 1e-150)
    _, singular, vt = np.linalg.svd(jacobian / norms, full_matrices=False)
    inverse = vt.T / np.maximum(singular, 1e-14)
    covariance = inverse @ inverse.T
    return np.asarray(covariance / norms[:, None] / norms[None, :])


def _starting_points(
    problem: CircuitProblem, f: Floats, z: Complexes, starts: int, spread: float, rng: np.random.Generator
) -> list[Floats]:
    """The first start and `starts` − 1 about it; the best of many random ones where values are missing."""
    given = np.array([math.nan if p.value is None else math.log(p.value) for p in problem.parameters])
    missing = np.isnan(given)
    if not missing.any():
        held = np.array([p.fixed for p in problem.parameters])
        moves = rng.normal(0.0, spread, (starts - 1, given.size))
        return [given, *(given + np.where(held, 0.0, moves))]
    low, high = _ranges(problem.parameters, f, z)
    candidates: list[tuple[float, int, Floats]] = []
    for _ in range(60 * starts):
        logs = np.where(missing, rng.uniform(low, high), given)
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            r, _ = problem.residuals(logs)
        # A robust distance: one arc far off must not hide that the others are right.
        distance = float(np.mean(np.log1p(r**2 * np.mean(np.abs(z) ** -2 * problem.weight**-2))))
        candidates.append((distance if math.isfinite(distance) else math.inf, len(candidates), logs))
    candidates.sort()
    return [logs for _, _, logs in candidates[:starts]]


def _ranges(parameters: Sequence[Parameter], f: Floats, z: Complexes) -> tuple[Floats, Floats]:
    """Logarithms of the range of values that a parameter may have to show in the spectrum."""
    omega = 2 * np.pi * np.array([f.min(), f.max()])
    size = np.array([np.abs(z).min(), np.abs(z).max()])
    by_unit: dict[str, tuple[float, float]] = {
        "ohm": (0.03 * size[0], 1.2 * size[1]),
        "F": (1 / (omega[1] * size[1]), 30 / (omega[0] * size[0])),
        "F s^(n-1)": (1 / (omega[1] * size[1]), 30 / (omega[0] * size[0])),
        "H": (0.01 * size[0] / omega[1], size[1] / omega[0]),
        "s": (0.3 / omega[1], 3 / omega[0]),
        "ohm s^(-1/2)": (0.03 * size[0] * math.sqrt(omega[0]), size[1] * math.sqrt(omega[1])),
        "": (0.75, 1.0),
    }
    ends = [by_unit[p.unit] for p in parameters]
    low = np.array([max(a, p.lower) for (a, _), p in zip(ends, parameters, strict=True)])
    high = np.array([min(b, p.upper) for (_, b), p in zip(ends, parameters, strict=True)])
    return np.log(low), np.log(np.maximum(high, low))


def select_circuit(
    frequency: ArrayLike,
    impedance: ArrayLike,
    candidates: Sequence[Circuit],
    *,
    criterion: str = "bic",
    deviation: ArrayLike | None = None,
    starts: int = 8,
    seed: int = 0,
    progress: Callable[[Sequence[Circuit]], Sequence[Circuit]] = lambda c: c,
) -> tuple[CircuitFit, list[CircuitFit]]:
    """The candidate with the lowest criterion ("bic" or "aic"), and the fits of all that could be fitted, best first.

    Candidates that do not converge, or need more data than there are, are left out. Raises ConvergenceError where
    none is left, InputError for an unknown criterion.
    """
    if criterion not in ("aic", "bic"):
        raise InputError("criterion", criterion, "'aic' or 'bic' is expected")
    _checked_data(frequency, impedance)
    fits: list[CircuitFit] = []
    for circuit in progress(candidates):
        try:
            fits.append(
                fit_circuit(frequency, impedance, circuit, deviation=deviation, starts=starts, seed=seed)
            )
        except (ConvergenceError, InputError):
            continue
    if not fits:
        raise ConvergenceError(
            "none of the candidate circuits could be fitted; give a circuit of your own", at="model selection"
        )
    fits.sort(key=lambda fit: float(getattr(fit, criterion)))
    return fits[0], fits


def refitted(fit: CircuitFit, **held: float) -> CircuitFit:
    """The same data fitted again with some parameters held at given values (by name), from where the fit ended."""
    circuit = fit.circuit.with_values(held)
    indices = tuple(fit._index(name) for name in held)
    problem = CircuitProblem(circuit, fit.frequency, fit.measured, fit.deviation, indices)
    result = _as_fit(problem, problem.solve(np.log(circuit.values)), fit.known_noise, 1, 1)
    return replace(result, circuit=result.circuit)
