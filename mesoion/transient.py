"""Transients of a Poisson-Nernst-Planck system: TR-BDF2 with error control, exact in charge and mass.

dQ/dt + F = 0 on the balance rows and F = 0 on the algebraic ones (Poisson, split faces) at every stage, which
share one matrix C + (gamma/2) h J. Source: Bank et al. 1985, embedded error of Hosea and Shampine 1996.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mesoion.assembly import two_words
from mesoion.errors import ConvergenceError, InputError
from mesoion.linear_algebra import Factor, SparsePattern
from mesoion.solve import NewtonFailure, PNPSystem, State

Floats = NDArray[np.float64]

_GAMMA = 2.0 - np.sqrt(2.0)
_D = 0.5 * _GAMMA
_W = 0.25 * np.sqrt(2.0)
# Second-order weights less the embedded third-order ones.
_ERROR = np.array([(4.0 * _W - 1.0) / 3.0, -1.0 / 3.0, 2.0 * _D / 3.0])
_ITERATIONS = 12
_SMALLEST_STEP = 1e-13
_LARGEST_UPDATE = 5.0


@dataclass(frozen=True, eq=False)
class Transient:
    """What happened: `time` (k,) [s], first entry 0 (just after a jump of the voltage there).

    voltage, current, charge: per electrode (k,). current [A, A/m, A/m^2 in 3D, 2D, 1D] flows from the electrode
    into the solid, displacement included; charge [C, C/m, C/m^2] is all that has passed since the start, that of a
    voltage jump at t = 0 included. ionic_charge: the part carried by ions and electrons. final: the last state;
    states: all of them where asked for.
    """

    time: Floats
    voltage: dict[str, Floats]
    current: dict[str, Floats]
    charge: dict[str, Floats]
    ionic_charge: dict[str, Floats]
    final: State
    states: tuple[State, ...]
    rejected_steps: int


class _Stages:
    """Newton solves of implicit stages, with the factors kept while they serve."""

    def __init__(self, system: PNPSystem) -> None:
        self.d = system.discretisation
        self.factor: Factor | None = None
        self.factor_h = -1.0
        # A jump of the voltage is a step of no length; points without storage need some to keep their equation.
        self.shortest = 1e-6 * _dielectric_time(system)

    def matrix(self, u: Floats, v: Floats, h: float) -> tuple[Floats, Floats, Factor]:
        """F, Q and the factors of C + h J (J on the Poisson rows) at u."""
        d = self.d
        lin = d.linearise(u, v)
        if self.factor is None or h != self.factor_h:
            data = np.where(
                d.poisson_entries, lin.jacobian, lin.capacity + max(h, self.shortest) * lin.jacobian
            )
            self.factor, self.factor_h = d.pattern.factor(data, "both-ways"), h
        return lin.residual, lin.storage, self.factor

    def solve(self, u: Floats, v: Floats, h: float, known: Floats) -> tuple[Floats, Floats, Floats]:
        """u with Q(u) + h F(u) = known on the balance rows and F(u) = 0 on the others; also F(u) and Q(u)."""
        d = self.d
        previous, size = np.inf, np.inf
        for iteration in range(_ITERATIONS):
            stale = size > 0.1 * previous and iteration > 1
            if d.pattern.banded or stale:
                self.factor = None
            try:
                f, q, factor = self.matrix(u, v, h)
                g = np.where(d.algebraic_rows, max(h, self.shortest) * f, q + h * f - known)
                g[d.poisson_rows] = f[d.poisson_rows]
                delta = factor.solve(-g)
            except ZeroDivisionError as error:
                raise NewtonFailure("the Jacobian is singular") from error
            previous, size = size, float(np.abs(delta).max())
            if not np.isfinite(size):
                break
            if size > 0.0:
                u = two_words(u, delta * min(1.0, _LARGEST_UPDATE / size))
            # The balances are kept to round-off, so iterate past what accuracy alone would ask.
            if size < 1e-13 or (size < 1e-9 and (d.pattern.banded or size > 0.1 * previous)):
                return u, *d.residual(u, v)
        raise NewtonFailure(f"the last Newton update is {size:.2g} kT/e")


def integrate(
    system: PNPSystem,
    voltage: Mapping[str, Callable[[float], float]],
    t_end: float,
    start: State,
    *,
    tolerance: float = 1e-4,
    first_step: float | None = None,
    largest_step: float | None = None,
    keep_states: bool = False,
) -> Transient:
    """Evolution from `start` over t_end [s] under electrode voltages V(t) [V]; electrodes not named keep theirs.

    tolerance: local error of a step in any potential or ln(theta/(1 - theta)) [kT/e]. A V(0) other than the
    start's acts as a jump at t = 0: displacement without transport. first_step, largest_step [s]: by default
    from the shortest dielectric relaxation up to what the tolerance allows.
    Raises InputError for impossible arguments and ConvergenceError (with the last State) where steps shrink to
    nothing.
    """
    d = system.discretisation
    unknown = [name for name in voltage if name not in d.names]
    if unknown or not d.names:
        name = unknown[0] if unknown else "none"
        raise InputError("voltage", name, f"the electrodes are {', '.join(d.names) or '(none)'}")
    for name, value in (("t_end", t_end), ("tolerance", tolerance)):
        if not 0.0 < value < np.inf:
            raise InputError(name, value, "give a finite number above zero")

    def applied(t: float) -> Floats:
        held = {name: start.voltages.get(name, 0.0) for name in d.names}
        return d.voltages(
            {name: float(voltage[name](t)) if name in voltage else held[name] for name in d.names}
        )

    stages = _Stages(system)
    v = d.voltages(start.voltages)
    u = two_words(start.unknowns)
    charge_before = d.electrode_flows(u, v)[1]
    known = d.storage(u, v)
    t, h = 0.0, _dielectric_time(system) * 0.01 if first_step is None else first_step
    limit = t_end if largest_step is None else largest_step
    v = applied(0.0)
    try:
        u, f, q = stages.solve(u, v, 0.0, known)
    except NewtonFailure as failure:
        raise ConvergenceError(
            f"the voltage jump at the start failed: {failure}; make it smaller",
            at="t = 0 s",
            last_good=start,
        ) from failure
    ionic, on_metal = d.electrode_flows(u, v)
    passed_ionic = np.zeros(len(d.names))
    induced = _InducedCurrent(system)
    near = 1e-3 * h
    current = induced.current(f, ionic, (applied(near) - v) / near)
    record = [(t, v, current, on_metal - charge_before, passed_ionic)]
    states = [State(system, u[0], system.named(v))]
    rejected = 0
    while t < t_end:
        h = min(h, limit)
        # Two equal last steps rather than a tiny one.
        h = t_end - t if t + h >= t_end * (1.0 - 1e-12) else min(h, max(0.5 * (t_end - t), 0.5 * h))
        try:
            v_mid, v_new = applied(t + _GAMMA * h), applied(t + h)
            u_mid, f_mid, _ = stages.solve(u, v_mid, _D * h, q - _D * h * f)
            u_new, f_new, q_new = stages.solve(u_mid, v_new, _D * h, q - _W * h * (f + f_mid))
            defect = np.where(
                d.algebraic_rows, 0.0, h * (_ERROR[0] * f + _ERROR[1] * f_mid + _ERROR[2] * f_new)
            )
            error = float(np.abs(stages.matrix(u_new, v_new, _D * h)[2].solve(defect)).max()) / tolerance
        except NewtonFailure:
            error = np.inf
        if not error <= 1.0:
            rejected += 1
            h *= max(0.2, 0.9 * error ** (-1.0 / 3.0)) if np.isfinite(error) else 0.25
            if h < _SMALLEST_STEP * max(t, 1e-6 * t_end):
                raise ConvergenceError(
                    "the transient cannot go on: its steps shrink to nothing; check the voltage for jumps after the "
                    "start, or allow a larger tolerance",
                    at=f"t = {t:.6g} s",
                    last_good=State(system, u[0], system.named(v)),
                )
            continue
        ionic_mid, _ = d.electrode_flows(u_mid, v_mid)
        ionic_new, on_new = d.electrode_flows(u_new, v_new)
        passed_ionic = passed_ionic + h * (_W * (ionic + ionic_mid) + _D * ionic_new)
        t = t_end if t + h >= t_end * (1.0 - 1e-12) else t + h
        u, f, q, v = u_new, f_new, q_new, v_new
        ionic, on_metal = ionic_new, on_new
        near = 1e-3 * h
        current = induced.current(f, ionic, (applied(t + near) - applied(t - near)) / (2.0 * near))
        record.append((t, v, current, on_metal - charge_before + passed_ionic, passed_ionic))
        if keep_states:
            states.append(State(system, u[0], system.named(v)))
        h *= min(4.0, 0.9 * max(error, 1e-9) ** (-1.0 / 3.0))
    final = State(system, u[0], system.named(v))
    system.checked(final)
    unit = d.ampere()
    columns = [np.array(column) for column in zip(*record, strict=True)]

    def per_electrode(values: Floats, scale: float) -> dict[str, Floats]:
        return {name: values[:, i] * scale for i, name in enumerate(d.names)}

    return Transient(
        time=columns[0],
        voltage=per_electrode(columns[1], d.thermal_voltage),
        current=per_electrode(columns[2], unit),
        charge=per_electrode(columns[3], unit),
        ionic_charge=per_electrode(columns[4], unit),
        final=final,
        states=tuple(states) if keep_states else (),
        rejected_steps=rejected,
    )


def _dielectric_time(system: PNPSystem) -> float:
    """Shortest eps/sigma of the cells [s]."""
    state = system.rest
    sigma = np.maximum(state.conductivity_across, state.conductivity_along)
    return float((system.discretisation.permittivity / sigma).min())


class _InducedCurrent:
    """Current at the electrodes by the theorem of Ramo and Shockley, in its discrete form.

    With h_e the potential of electrode e at one volt and no charge inside, I_e = sum of h_e times the divergence of
    the ionic current, plus what V(t) charges directly. The h_e add up to one, so the currents add up to zero.
    """

    def __init__(self, system: PNPSystem) -> None:
        d = self._d = system.discretisation
        dofs = d.dof[:, 0]
        self._points = np.unique(dofs[dofs < d.n_unknowns])
        size = len(self._points)
        index = np.full(d.n_unknowns + 1, size)
        index[self._points] = np.arange(size)
        k, m, t = d.potential_links()
        i, j = (index[np.minimum(node, d.n_unknowns)] for node in (k, m))
        pattern = SparsePattern(np.r_[i, j, i, j], np.r_[i, j, j, i], size)
        factor = pattern.factor(pattern.assemble(np.r_[t, t, -t, -t]))
        count = len(d.names)
        couple = np.zeros((size, count))
        outer = m >= d.n_unknowns
        electrode = (m[outer] - d.n_unknowns) // (1 + d.n_species)
        np.add.at(couple, (i[outer], electrode), t[outer])
        self._weights = factor.solve(couple).T
        self._geometric = np.diag(np.bincount(electrode, t[outer], count)) - self._weights @ couple

    def current(self, f: Floats, ionic: Floats, ramp: Floats) -> Floats:
        """Into the solid at each electrode [e/s], from F, its own ionic current and dV/dt [kT/e per s]."""
        d = self._d
        divergence = np.zeros(d.n_unknowns)
        for s, charge in enumerate(d.charges):
            inner = d.dof[: d.n_cells + d.n_split]
            divergence[inner[:, 0]] += charge * f[inner[:, 1 + s]]
        walls = d.free_wall_unknowns
        divergence[walls] = f[walls]
        return np.asarray(ionic + self._weights @ divergence[self._points] + self._geometric @ ramp)
