"""Growth of lithium metal inside a solid: a transient field of deposit, coupled to the ions and electrons it takes.

    f n_m ∂s/∂t = f n_m ∇·(D ∇s) + R,        Li⁺ + e⁻ → Li at the rate R [m⁻³ s⁻¹]
    R = (a i₀/e) 2 sinh[e(eta − eta_c)/2kT] · (1 − s while it plates, s while it dissolves),   i₀ = kT/(e R_ct)

s is the filled share of the volume f that a boundary layer or pore leaves free, n_m the atoms per volume of metal, a
the area per volume on which metal meets the solid: the walls of the layer where it nucleates, and the faces of cells
that are full, so that a tip advances by i/(e f n_m s_c) on any mesh. R is a sink in the balances of Li⁺ and electrons,
solved with them and with s by implicit Euler steps; the field s then moves by FiPy terms with that same R, so lithium
and charge are conserved to rounding. Filled cells conduct electrons as metal does: the deposit is a piece of its
electrode from then on.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import scipy.sparse as sp
from numpy.typing import NDArray
from scipy.sparse.csgraph import connected_components
from scipy.sparse.linalg import splu

from mesoion.errors import ConvergenceError, InputError
from mesoion.lithium_potential import (
    ELECTRON,
    galvanostatic,
    lithium_electrode,
    mixed_conductor,
    overpotential,
    partial_currents,
)
from mesoion.material import Phase
from mesoion.mesh import CellMesh
from mesoion.physics import ELEMENTARY_CHARGE
from mesoion.progress import track
from mesoion.solve import PNPSystem, State

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

AVOGADRO = 6.02214076e23
LITHIUM_MOLAR_VOLUME = 13.0e-6
"""Of the metal [m³/mol], as in the nucleation criterion."""
LITHIUM_ATOMS = AVOGADRO / LITHIUM_MOLAR_VOLUME

_NANOMETRE = 1e-9
_LARGEST_UPDATE = 5.0
_ITERATIONS = 40
_CONVERGED = 1e-10
_STEEPEST = 60.0


@dataclass(frozen=True)
class Deposit:
    """What metal may do in the layers; every value an assumption of the study unless its source says otherwise.

    free_volume: share of the volume of each region that metal may fill (pores, excess volume of the boundary); regions
    not named, the grain among them, take none. nucleation_overpotential [V], by region: where metal appears without
    metal beside it, 2γV_m/(F r) for example; regions not named never nucleate. growth_overpotential [V]: of a deposit
    that spreads to the next cell. charge_transfer_resistance [Ω m²]: of Li⁺ + e⁻ → Li inside. contact_area [1/m]: of
    the walls per volume of layer, by default both of them. metal_conductivity [S/m]: of electrons in filled cells; it
    stands for a metal as soon as it exceeds the solid's by far, and more only costs digits. percolation_threshold s_c:
    filling above which the metal of a cell is in one piece: the cell is full in what follows, touches the next one and
    conducts as ((s − s_c)/(1 − s_c))². diffusivity [m²/s]: of the deposit along its layer.
    """

    free_volume: Mapping[str, float]
    nucleation_overpotential: Mapping[str, float] = field(default_factory=dict)
    growth_overpotential: float = 0.0
    charge_transfer_resistance: float = 1e-3
    contact_area: float | None = None
    metal_conductivity: float = 10.0
    percolation_threshold: float = 0.3
    diffusivity: float = 0.0

    def __post_init__(self) -> None:
        for name, share in self.free_volume.items():
            if not 0.0 < share <= 1.0:
                raise InputError(f"free_volume[{name!r}]", share, "give a share above 0 and at most 1")
        for name, barrier in self.nucleation_overpotential.items():
            if not barrier > 0.0:
                raise InputError(
                    f"nucleation_overpotential[{name!r}]", barrier, "a barrier is above zero; give volts"
                )
        if not 0.0 <= self.percolation_threshold < 1.0:
            raise InputError("percolation_threshold", self.percolation_threshold, "give a share below 1")
        for key in ("charge_transfer_resistance", "metal_conductivity"):
            if not 0.0 < getattr(self, key) < np.inf:
                raise InputError(key, getattr(self, key), "give a finite value above zero")
        for key in ("growth_overpotential", "diffusivity"):
            if not 0.0 <= getattr(self, key) < np.inf:
                raise InputError(key, getattr(self, key), "give a finite value, zero or above")


@dataclass(frozen=True, eq=False)
class Growth:
    """What grew. Arrays over the k recorded times, the start first.

    time (k,) [s]; filling (k, n): s of every cell; deposited (k,): Li atoms in metal [1, 1/m, 1/m² in 3D, 2D, 1D];
    voltage (k,) [V] and overpotential (k,) [V], the largest where metal has room. connected_at [s]: when filled
    cells first joined both electrodes, None where they did not. first_metal: cells that held metal first.
    lithium_error, charge_error: largest imbalance so far, relative to the lithium and the charge that have passed.
    steps: accepted ones. note: why it ended.
    """

    mesh: CellMesh
    time: Floats
    filling: Floats
    deposited: Floats
    voltage: Floats
    overpotential: Floats
    connected_at: float | None
    first_metal: NDArray[np.int64]
    full_at: Floats
    electronic_share: float
    lithium_error: float
    charge_error: float
    steps: int
    note: str
    final: State


def grow(
    mesh: CellMesh,
    phases: Mapping[str, Phase],
    deposit: Deposit,
    current: float,
    t_end: float,
    *,
    anode: str = "left",
    cathode: str = "right",
    electrode_resistance: float = 1e-3,
    first_step: float = 1e-3,
    largest_filling: float = 0.25,
    max_steps: int = 2000,
    pictures: int = 24,
) -> Growth:
    """Metal in the layers of a mixed conductor under a constant current, until it joins the electrodes or t_end [s].

    mesh, phases: as for `mixed_conductor`. current [A, A/m, A/m² in 3D, 2D, 1D]: fed in at the anode, taken out at
    the cathode, which is the zero of voltage. electrode_resistance [Ω m²]: charge transfer of both lithium electrodes.
    Layer cells on the cathode's face are in touch with metal from the start. The path is complete when cells filled
    above the percolation threshold join both electrodes: what follows is a short circuit, not growth.
    largest_filling: of a cell in one step.
    pictures: how many states are kept, evenly over what was deposited. The start is the steady state at that current.
    Raises NoElectronsError, LimitingCurrentError, InputError, MeshError where cells are too large for the space charge,
    and ConvergenceError with the last good State.
    """
    for name, value in (("t_end", t_end), ("first_step", first_step), ("largest_filling", largest_filling)):
        if not 0.0 < value < np.inf:
            raise InputError(name, value, "give a finite value above zero")
    unknown = [name for name in deposit.free_volume if name not in mesh.region_names]
    if unknown:
        raise InputError("free_volume", unknown[0], f"the regions are {', '.join(mesh.region_names)}")
    contact = lithium_electrode(electrode_resistance)
    # The mesh is held against the space charge at rest and at this current, not at those tried on the way to it.
    system = mixed_conductor(mesh, phases, {anode: contact, cathode: contact}, resolution="ignore")
    run = _Run(system, phases, deposit, anode, cathode)
    rest = system.checked(system.equilibrium(), refuse=True)
    state = system.checked(galvanostatic(system, anode, current, rest), refuse=True)
    by_species = partial_currents(state, anode)
    electronic = 1.0 - by_species["Li"] / sum(by_species.values())
    run.start(state)
    kept: list[tuple[float, Floats, float, float, float]] = [run.snapshot(0.0)]
    full_at = np.full(mesh.n_cells, np.nan)
    t, h, steps, rejected = 0.0, first_step, 0, 0
    note, connected = "the time asked for is over", None
    for _ in track(range(max_steps), "growth"):
        if not run.active.any():
            note = f"no cell reaches its nucleation overpotential: the largest eta is {kept[-1][4]:.3g} V"
            break
        h = min(h, t_end - t)
        try:
            change = run.step(current, h, largest_filling)
        except _StepFailure as failure:
            rejected += 1
            h *= 0.3
            if h < 1e-12 * first_step:
                raise ConvergenceError(
                    f"growth cannot go on: {failure}; try a smaller current or a coarser layer",
                    at=f"t = {t:.6g} s",
                    last_good=run.state(),
                ) from failure
            continue
        t, steps = t + h, steps + 1
        kept.append(run.snapshot(t))
        full_at[np.isnan(full_at) & run.full] = t
        if run.connected():
            connected, note = t, "metal joins both electrodes"
            break
        if t >= t_end * (1.0 - 1e-12):
            break
        h = min(h * min(3.0, max(0.5, 0.8 * largest_filling / max(change, 1e-12))), run.until_full(h))
    else:
        note = f"{max_steps} steps were not enough"
    picked = _evenly(np.array([k[2] for k in kept]), pictures)
    chosen = [kept[i] for i in picked]
    return Growth(
        mesh=mesh,
        time=np.array([k[0] for k in chosen]),
        filling=np.array([k[1] for k in chosen]),
        deposited=np.array([k[2] for k in chosen]),
        voltage=np.array([k[3] for k in chosen]),
        overpotential=np.array([k[4] for k in chosen]),
        connected_at=connected,
        first_metal=run.first_metal,
        full_at=full_at,
        electronic_share=electronic,
        lithium_error=run.lithium_error,
        charge_error=run.charge_error,
        steps=steps,
        note=note,
        final=run.state(),
    )


def _evenly(amount: Floats, count: int) -> list[int]:
    """Indices of about `count` entries, evenly over the amount and with both ends."""
    if len(amount) <= count:
        return list(range(len(amount)))
    targets = np.linspace(amount[0], amount[-1], count)
    return sorted({0, len(amount) - 1, *(int(i) for i in np.abs(amount[:, None] - targets).argmin(axis=0))})


class _StepFailure(Exception):
    """A step did not converge or filled a cell too fast; the next try is shorter."""


class _Run:
    """The growing system: unknowns of the ions and electrons, voltage of the anode, and the deposit."""

    def __init__(
        self, system: PNPSystem, phases: Mapping[str, Phase], deposit: Deposit, anode: str, cathode: str
    ) -> None:
        from mesoion.fipy_bridge import load_fipy, to_fipy

        fipy = load_fipy()
        from mesoion.fipy_objects import RowScaledLU

        self.system, self.deposit = system, deposit
        d = self.d = system.discretisation
        mesh = self.mesh = system.mesh
        n = mesh.n_cells
        names = mesh.region_names
        free = np.array([deposit.free_volume.get(name, 0.0) for name in names])[mesh.region]
        barrier = np.array([deposit.nucleation_overpotential.get(name, np.inf) for name in names])[
            mesh.region
        ]
        widths = np.array([phases[name].width or np.inf for name in names])[mesh.region]
        self.free, self.barrier = free, np.where(free > 0.0, barrier, np.inf)
        self.walls = 2.0 / widths if deposit.contact_area is None else np.full(n, deposit.contact_area)
        # Ions per area and second at 2 sinh = 1.
        self.exchange = d.thermal_voltage / deposit.charge_transfer_resistance / ELEMENTARY_CHARGE
        self.room = free * LITHIUM_ATOMS
        self.rate = np.zeros(n)
        # Ions per cell in the solver's units at s = 1.
        self.capacity = self.room * mesh.volumes * _NANOMETRE ** (3 - mesh.dimension)
        self.s, self.gained = np.zeros(n), np.zeros(n)
        self.nuclei: Bools = np.zeros(n, dtype=bool)
        outer = mesh.outer_faces(cathode)
        self.at_cathode = np.bincount(mesh.outer_cells[outer], mesh.outer_areas[outer], n)
        self.active: Bools = np.zeros(n, dtype=bool)
        self.ends = [mesh.outer_cells[mesh.outer_faces(name)] for name in (cathode, anode)]
        self.anode = d.names.index(anode)
        self.electron = d.species_index(ELECTRON)
        self.solid = d.dilute_conductivity(self.electron).copy()
        cells = to_fipy(mesh, {"filling": self.s}, length_unit=_NANOMETRE)
        self.variable = cells.fields["filling"]
        self.source = fipy.CellVariable(mesh=cells.mesh, value=0.0)
        along = free * deposit.diffusivity / _NANOMETRE**2
        store = np.where(free > 0.0, free, 1.0)
        self.equation = (
            fipy.TransientTerm(coeff=fipy.CellVariable(mesh=cells.mesh, value=store), var=self.variable)
            == fipy.DiffusionTerm(coeff=cells.mesh.coefficient(along), var=self.variable) + self.source
        )
        self.solver = RowScaledLU(cells.mesh)
        self.first_metal = np.empty(0, dtype=np.int64)
        self.lithium_error = self.charge_error = 0.0
        self._lithium = self._charge = self._passed_lithium = self._passed_charge = 0.0

    def start(self, state: State) -> None:
        """Take over a steady state."""
        d = self.d
        self.u, self.v = state.unknowns, d.voltages(state.voltages)
        self.q = d.storage(self.u, self.v)
        self.on_metal = d.electrode_flows(self.u, self.v)[1]
        self._activate()

    @property
    def full(self) -> Bools:
        """Cells (n,) filled above the percolation threshold."""
        return np.asarray(self.s > self.deposit.percolation_threshold)

    def state(self) -> State:
        """The present state of ions and electrons."""
        return State(self.system, self.u, self.system.named(self.v))

    def snapshot(self, t: float) -> tuple[float, Floats, float, float, float]:
        """Time, filling, atoms deposited, voltage, largest overpotential where metal has room."""
        atoms = float(self.room @ (self.s * self.mesh.volumes))
        eta = overpotential(self.state())
        return (
            t,
            self.s.copy(),
            atoms,
            float(self.v[self.anode]) * self.d.thermal_voltage,
            float(eta[self.free > 0.0].max(initial=-np.inf)),
        )

    def _activate(self) -> None:
        """Where metal and solid meet: nuclei cover the walls of a layer, tips the faces of full cells."""
        eta = overpotential(self.state())
        mesh, room = self.mesh, self.free > 0.0
        k, m = mesh.face_cells.T
        full = self.full
        tip = self.at_cathode + np.bincount(m, mesh.face_areas * full[k], mesh.n_cells)
        tip += np.bincount(k, mesh.face_areas * full[m], mesh.n_cells)
        self.nuclei |= eta > self.barrier
        area = np.where(room, self.walls * self.nuclei + tip / mesh.volumes, 0.0)
        above = eta > self.deposit.growth_overpotential
        self.active = (area > 0.0) & (above | (self.s > 0.0))
        self.rate = area * self.exchange / np.where(room, self.room, 1.0)
        if not len(self.first_metal):
            self.first_metal = np.flatnonzero(self.active & above)
        critical = self.deposit.percolation_threshold
        joined = np.maximum(self.s - critical, 0.0) / (1.0 - critical)
        self.d.set_dilute_conductivity(
            self.electron, self.solid + self.deposit.metal_conductivity * joined**2
        )

    def _reaction(self, eta: Floats, h: float) -> tuple[Floats, Floats]:
        """Filling gained in a step by the active cells at their eta [kT/e], and its slope by eta."""
        a = self.active
        threshold = self.deposit.growth_overpotential / self.d.thermal_voltage
        half = 0.5 * np.clip(eta - threshold, -_STEEPEST, _STEEPEST)
        speed = h * self.rate[a]
        drive, slope = speed * 2.0 * np.sinh(half), speed * np.cosh(half)
        s = self.s[a]
        plating = drive > 0.0
        room = np.where(plating, 1.0 - s, s)
        below = 1.0 + np.abs(drive)
        gain = drive * room / below
        return gain, slope * room / below**2

    def _linear_step(self, jacobian: Floats, slope: Floats, right: Floats) -> Floats:
        """Solve with the reaction's coupling of eta_Li and eta_e, which the pattern does not hold."""
        d = self.d
        cells = np.flatnonzero(self.active)
        ion, electron = d.dof[cells, 1], d.dof[cells, 1 + self.electron]
        k = self.capacity[cells] * slope
        extra = sp.csc_matrix(
            (np.r_[k, k, k, k], (np.r_[ion, ion, electron, electron], np.r_[ion, electron, ion, electron])),
            shape=(d.n_unknowns, d.n_unknowns),
        )
        matrix = (d.pattern.matrix(jacobian) + extra).tocsc()
        scale = 1.0 / np.maximum(abs(matrix).max(axis=1).toarray().ravel(), 1e-300)
        scaled = (sp.diags(scale) @ matrix).tocsc()
        rhs = (right.T * scale).T
        try:
            factors = splu(
                scaled,
                permc_spec="NATURAL",
                diag_pivot_thresh=0.0,
                panel_size=1,
                options={"SymmetricMode": True},
            )
        except RuntimeError as error:
            raise _StepFailure("the equations are singular") from error
        x = factors.solve(rhs)
        x += factors.solve(rhs - scaled @ x)
        return np.asarray(x)

    def step(self, current: float, h: float, largest: float) -> float:
        """One implicit Euler step of h [s] at the given current; returns the largest gain of filling."""
        d = self.d
        wanted = current / d.ampere()
        u, v = self.u, self.v.copy()
        cells = np.flatnonzero(self.active)
        ion, electron = d.dof[cells, 1], d.dof[cells, 1 + self.electron]
        size, before = np.inf, np.inf
        for _ in range(_ITERATIONS):
            lin = d.linearise(u, v)
            x = d.nodal(u, v)
            gain, slope = self._reaction(x[cells, 1] + x[cells, 1 + self.electron], h)
            g = np.where(d.algebraic_rows, h * lin.residual, lin.storage + h * lin.residual - self.q)
            g[d.poisson_rows] = lin.residual[d.poisson_rows]
            g[ion] += self.capacity[cells] * gain
            g[electron] += self.capacity[cells] * gain
            data = np.where(d.poisson_entries, lin.jacobian, lin.capacity + h * lin.jacobian)
            b_f, b_q, read, own = d.drive(lin, self.anode)
            by_v = np.where(d.poisson_rows, b_q, b_q + h * b_f)
            ionic, on_metal = d.electrode_flows(u, v)
            miss = ionic[self.anode] + (on_metal[self.anode] - self.on_metal[self.anode]) / h - wanted
            both = self._linear_step(data, slope, np.stack([-g, -by_v], axis=1))
            row = read[0] + read[1] / h
            dv = -(miss + row @ both[:, 0]) / (own[0] + own[1] / h + row @ both[:, 1])
            du = both[:, 0] + dv * both[:, 1]
            before, size = size, float(max(np.abs(du).max(), abs(dv)))
            if not np.isfinite(size):
                raise _StepFailure("an update is not finite")
            damp = min(1.0, _LARGEST_UPDATE / size) if size > 0.0 else 1.0
            u = u + damp * du
            v[self.anode] += damp * dv
            if size < 1e-12 or (size < _CONVERGED and size > 0.3 * before):
                break
        else:
            raise _StepFailure(f"the last update is {size:.2g} kT/e")
        x = d.nodal(u, v)
        gain, _ = self._reaction(x[cells, 1] + x[cells, 1 + self.electron], h)
        change = float(np.abs(gain).max(initial=0.0))
        if change > 1.5 * largest:
            raise _StepFailure("a cell fills too fast")
        self._accept(u, v, h, cells, gain)
        return change

    def _accept(self, u: Floats, v: Floats, h: float, cells: NDArray[np.int64], gain: Floats) -> None:
        d = self.d
        source = np.zeros(self.mesh.n_cells)
        source[cells] = gain / h * self.free[cells]
        self.source.setValue(source)
        old = self.s
        self.variable.setValue(old)
        self.equation.solve(var=self.variable, dt=h, solver=self.solver)
        # Rounding of the linear solve may leave 1 + 1e-16.
        new = np.array(self.variable.value)
        q = d.storage(u, v)
        ionic, on_metal = d.electrode_flows(u, v)
        fluxes = d.wall_fluxes(d.profile(u, v))
        n = d.n_cells
        stored = float((q - self.q)[d.dof[:n, 1]].sum())
        metal = float(self.capacity @ (new - old))
        out = h * float(fluxes[0].sum())
        self._lithium += stored + metal + out
        self._passed_lithium += h * float(np.abs(fluxes[0]).sum()) / 2.0 + abs(metal)
        self._charge += float(h * ionic.sum() + (on_metal - self.on_metal).sum())
        self._passed_charge += h * float(np.abs(ionic).sum()) / 2.0
        self.lithium_error = max(self.lithium_error, abs(self._lithium) / max(self._passed_lithium, 1e-300))
        self.charge_error = max(self.charge_error, abs(self._charge) / max(self._passed_charge, 1e-300))
        self.gained = new - old
        self.u, self.v, self.q, self.on_metal, self.s = u, v, q, on_metal, new
        self._activate()

    def until_full(self, h: float) -> float:
        """Time [s] after which the next cell becomes full at the rates of the last step, of length h."""
        missing = self.deposit.percolation_threshold - self.s
        growing = self.active & (missing > 0.0) & (self.gained > 1e-9)
        if not growing.any():
            return np.inf
        # A hair longer, so that it is full; where many cells fill at once, not shorter than a quarter of a step.
        return float(max(1.001 * h * (missing[growing] / self.gained[growing]).min(), 0.25 * h))

    def connected(self) -> bool:
        """Whether filled cells join the two electrodes."""
        full = self.full
        starts, ends = (cells[full[cells]] for cells in self.ends)
        if not (len(starts) and len(ends)):
            return False
        k, m = self.mesh.face_cells.T
        joined = full[k] & full[m]
        graph = sp.coo_matrix((np.ones(int(joined.sum())), (k[joined], m[joined])), shape=2 * (len(full),))
        labels = connected_components(graph, directed=False)[1]
        return bool(np.intersect1d(labels[starts], labels[ends]).size)
