"""What must be true of the boundaries for atomistic transport and measured pellets to agree.

A record gives the boundary's own transport; a pellet shows an apparent boundary resistivity that it does not explain.
Each mechanism adds one or two parameters q to the same pellet, and with the records as prior for the layer's
conductivity σ_gb = σ_record e^a, its width and the grain size d,

    evidence = ∫∫∫ N(ln ρ_measured; ln ρ_model(a, d, q), s) p(a) p(d) p(q) da dd dq ,   1/σ_app = 1/σ_t − 1/σ_b,

summed on a grid: exact up to its spacing, and without a random number. ρ_model is that of `mesoion.mechanisms`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mesoion.errors import InputError
from mesoion.mechanisms import SPREAD, Case, MeasuredBulk, Mechanism

Floats = NDArray[np.float64]

NUISANCE_POINTS = (31, 15)
PARAMETER_POINTS = {1: 161, 2: 41}
ALONE_POINTS, ALONE_SPREAD = (281, 141), 14.0
"""The same where nothing is added: the records may be far from the measurement."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """Posterior of one mechanism on its grid.

    values: of every parameter (j,), weights (k, j): posterior over nuisances and parameters, sum 1. log_evidence;
    log_best: largest log likelihood. a, log_size: nuisances (k,).
    """

    case: Case
    mechanism: Mechanism
    values: tuple[Floats, ...]
    weights: Floats
    a: Floats
    log_size: Floats
    log_evidence: float
    log_best: float

    @property
    def information_criterion(self) -> float:
        """Akaike's, 2k − 2 ln L: k parameters of the mechanism."""
        return 2.0 * len(self.values) - 2.0 * self.log_best

    def interval(self, parameter: int) -> tuple[float, float, float]:
        """Median and 95 % limits of a parameter."""
        return quantiles(self.values[parameter], self.weights.sum(axis=0))

    def draw(self, count: int, rng: np.random.Generator) -> list[tuple[float, float, tuple[float, ...]]]:
        """`count` draws of (a, ln(d/given), parameters)."""
        flat = rng.choice(self.weights.size, size=count, p=self.weights.ravel())
        rows, columns = np.unravel_index(flat, self.weights.shape)
        return [
            (float(self.a[k]), float(self.log_size[k]), tuple(float(v[j]) for v in self.values))
            for k, j in zip(rows, columns, strict=True)
        ]

    def smooth_draw(
        self, count: int, rng: np.random.Generator
    ) -> list[tuple[float, float, tuple[float, ...], float]]:
        """Draws of (a, ln(d/given), parameters, ln weight) between the grid's points, at the middle bulk.

        Parameters are uniform in the cell of a drawn point; the nuisances are drawn anew there, and the weight is the
        likelihood integrated over them, over that at the point. Cells may so be wider than the likelihood.
        """
        if not self.values:
            return [(a, d, v, 0.0) for a, d, v in self.draw(count, rng)]
        case = self.case
        prior = np.exp(
            -0.5 * (self.a / case.record_spread) ** 2
            - 0.5 * (self.log_size / math.log(case.grain_size_factor)) ** 2
        )
        at_points = (prior[:, None] * self._likelihood(self._resistivity)).sum(axis=0)
        found = []
        for j in rng.choice(len(self.values[0]), size=count, p=self.weights.sum(axis=0)).tolist():
            moved = tuple(
                p.within_cell(float(v[j]), len(np.unique(v)), float(rng.uniform(-0.5, 0.5)))
                for p, v in zip(self.mechanism.parameters, self.values, strict=True)
            )
            column = self.mechanism.resistivity(case, self.a, self.log_size, [np.array([x]) for x in moved])
            joint = prior * self._likelihood(column)[:, 0]
            total = float(joint.sum())
            if total <= 0:
                found.append((0.0, 0.0, moved, -math.inf))
                continue
            k = int(rng.choice(len(joint), p=joint / total))
            found.append((float(self.a[k]), float(self.log_size[k]), moved, math.log(total / at_points[j])))
        return found

    def _likelihood(self, resistivity: Floats) -> Floats:
        """Of resistivities [ohm m], not normalised."""
        with np.errstate(invalid="ignore", divide="ignore"):
            miss = np.log(np.where(resistivity > 0, resistivity, np.nan) * self.case.measured_apparent)
        return np.nan_to_num(np.exp(-0.5 * (miss / math.log(self.case.measured_factor)) ** 2))

    def predicted(self) -> tuple[float, float, float]:
        """Median and 95 % limits of the apparent boundary conductivity [S/m] after the fit."""
        rho = self._resistivity
        low, middle, high = _weighted(rho.ravel(), self.weights.ravel(), (0.025, 0.5, 0.975))
        return 1 / middle, 1 / high, 1 / low

    @cached_property
    def _resistivity(self) -> Floats:
        return self.mechanism.resistivity(self.case, self.a, self.log_size, self.values)

    def plausibility(self, parameter: int) -> float:
        """Share of the posterior inside the plausible interval of a parameter."""
        low, high = self.mechanism.parameters[parameter].plausible
        inside = (self.values[parameter] >= low) & (self.values[parameter] <= high)
        return float(self.weights.sum(axis=0)[inside].sum())


def infer(case: Case, mechanism: Mechanism, resolution: float = 1.0) -> Outcome:
    """Evidence and posterior of `mechanism` for the measured apparent conductivity of `case`, on a grid.

    resolution: factor on the number of points along every axis. With a measured bulk the integral runs over it too.
    """
    if case.measured_bulk is not None:
        return _over_bulk(case, case.measured_bulk, mechanism, resolution)
    count = len(mechanism.parameters)
    points, spread = (ALONE_POINTS, ALONE_SPREAD) if count == 0 else (NUISANCE_POINTS, SPREAD)
    a, log_size, prior = case.nuisance(
        (max(round(points[0] * resolution), 5), max(round(points[1] * resolution), 5)), spread
    )
    if count == 0:
        values: tuple[Floats, ...] = ()
        of_values = np.ones(1)
    else:
        along = max(round(PARAMETER_POINTS[count] * resolution), 5)
        axes = [p.grid(along) for p in mechanism.parameters]
        mesh = np.meshgrid(*(v for v, _ in axes), indexing="ij")
        values = tuple(m.ravel() for m in mesh)
        of_values = np.ones(1)
        for _, weight in axes:
            of_values = np.multiply.outer(of_values, weight)
        of_values = of_values.ravel()
    rho = mechanism.resistivity(case, a, log_size, values)
    s = math.log(case.measured_factor)
    with np.errstate(invalid="ignore", divide="ignore"):
        miss = (np.log(np.where(rho > 0, rho, np.nan)) + math.log(case.measured_apparent)) / s
    log_likelihood = np.where(np.isfinite(miss), -0.5 * miss**2, -np.inf) - math.log(
        s * math.sqrt(2 * math.pi)
    )
    best = float(log_likelihood.max())
    if not math.isfinite(best):
        raise InputError(
            f"{case.name}: {mechanism.name}", "no resistance anywhere", "widen the priors of its parameters"
        )
    with np.errstate(divide="ignore"):
        joint = log_likelihood + np.log(prior)[:, None] + np.log(of_values)[None]
    top = float(joint.max())
    weights = np.exp(joint - top)
    total = float(weights.sum())
    return Outcome(case, mechanism, values, weights / total, a, log_size, top + math.log(total), best)


def _over_bulk(case: Case, bulk: MeasuredBulk, mechanism: Mechanism, resolution: float) -> Outcome:
    """Evidence and posterior summed over the bulk conductivities that the spectrum leaves."""
    outcomes, logs = [], []
    for of_bulk, of_apparent, weight in bulk.nodes():
        node = replace(
            case,
            bulk_factor=case.bulk_factor * math.exp(of_bulk),
            measured_apparent=case.measured_apparent * math.exp(of_apparent),
            measured_factor=bulk.remaining_factor,
            measured_bulk=None,
        )
        outcomes.append(infer(node, mechanism, resolution))
        logs.append(math.log(weight) + outcomes[-1].log_evidence)
    top = max(logs)
    shares = np.exp(np.array(logs) - top)
    weights = sum(s * o.weights for s, o in zip(shares / shares.sum(), outcomes, strict=True))
    first = outcomes[0]
    return Outcome(
        case,
        mechanism,
        first.values,
        np.asarray(weights),
        first.a,
        first.log_size,
        top + math.log(float(shares.sum())),
        max(o.log_best for o in outcomes),
    )


def quantiles(values: Floats, weights: Floats) -> tuple[float, float, float]:
    """Median, 2.5 and 97.5 percentile of values with weights."""
    low, middle, high = _weighted(values, weights, (0.025, 0.5, 0.975))
    return middle, low, high


def _weighted(values: Floats, weights: Floats, levels: Sequence[float]) -> list[float]:
    distinct, where = np.unique(values, return_inverse=True)
    mass = np.bincount(where.ravel(), weights.ravel(), len(distinct))
    # Mid-point rule: every grid value stands for the interval around it.
    share = (np.cumsum(mass) - 0.5 * mass) / mass.sum()
    return [float(np.interp(level, share, distinct)) for level in levels]


def bayes_factors(outcomes: Sequence[Outcome]) -> Mapping[str, float]:
    """ln(evidence) of every mechanism less that of the best."""
    best = max(o.log_evidence for o in outcomes)
    return {o.mechanism.name: o.log_evidence - best for o in outcomes}
