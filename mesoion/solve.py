"""Poisson-Nernst-Planck on any cell mesh: equilibrium, steady states under bias, and the way into transients.

Newton's method in (phi, eta) with the analytic Jacobian of `mesoion.assembly`; SI at the interface.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from mesoion.assembly import Discretisation, Linearisation, Profile
from mesoion.errors import ConvergenceError, InputError, MeshError
from mesoion.linear_algebra import SparsePattern, sums
from mesoion.mesh import CellMesh
from mesoion.physics import BOLTZMANN, CellFields, DiluteSpecies, Electrode

if TYPE_CHECKING:
    from mesoion.transient import Transient

Floats = NDArray[np.float64]

# Largest change of any potential in one Newton step [kT/e].
_LARGEST_STEP = 5.0
# A quadratically converging update of this size leaves an error at round-off [kT/e].
_LAST_UPDATE = 1e-8
# Updates below this [kT/e] may use the Jacobian of the step before.
_REUSE_BELOW = 0.3
_SMALLEST_BIAS_FRACTION = 1.0 / 64.0
# Band bending between neighbours more than half a Debye length apart [kT] that is worth a warning, or too much.
_WARN_RESOLUTION, _REFUSE_RESOLUTION = 1.0, 2.0


class MeshWarning(UserWarning):
    """A mesh resolves a space charge only coarsely."""


class NewtonFailure(Exception):
    """Newton's method stopped at a bounded number of steps; turned into ConvergenceError by its callers."""


class PNPSystem:
    """Li on its lattice (and further dilute species) with the potential it makes, on a cell mesh.

    mesh and fields describe the solid, `electrodes` the named outer faces that carry one; outer faces that are
    not named are insulating. temperature [K]. species: dilute ones beside Li. source (n,) [m^-3 s^-1]: Li
    generated in each cell. resolution: what to do where a cell is too large for the space charge in it.
    Raises MeshError for unknown outer faces and InputError for impossible values.
    """

    def __init__(
        self,
        mesh: CellMesh,
        fields: CellFields,
        temperature: float,
        electrodes: Mapping[str, Electrode] | None = None,
        *,
        species: Sequence[DiluteSpecies] = (),
        source: Floats | None = None,
        resolution: Literal["refuse", "warn", "ignore"] = "refuse",
    ) -> None:
        if not 0.0 < temperature < np.inf:
            raise InputError("temperature", temperature, "give kelvin above zero")
        if len(fields.site_density) != mesh.n_cells:
            raise InputError(
                "fields", len(fields.site_density), f"the mesh has {mesh.n_cells} cells; give one value each"
            )
        self.mesh, self.fields, self.temperature = mesh, fields, temperature
        self.electrodes = dict(electrodes or {})
        self.resolution = resolution
        self.discretisation = Discretisation(mesh, fields, temperature, self.electrodes, species, source)

    @cached_property
    def rest(self) -> State:
        """The equilibrium state, solved once; see `equilibrium`."""
        return self._equilibrium()

    def equilibrium(self) -> State:
        """State without flux, all electrodes at 0 V, in exchange with Li of the grain's reference composition.

        One electrochemical potential everywhere; div(eps grad phi) = -rho(phi) by Newton's method.
        Raises ConvergenceError, and MeshError where the mesh does not resolve the space charge.
        """
        return self.rest

    def steady_state(
        self,
        voltages: Mapping[str, float] | None = None,
        start: State | None = None,
        *,
        tolerance: float = 1e-8,
    ) -> State:
        """State that no longer changes at the given electrode voltages [V] (0 where not named).

        Species that no electrode passes keep their total amount of `start` (default: the equilibrium).
        `tolerance` [kT/e] bounds the Newton update that is left out. Biases out of reach at once are approached in
        steps. Raises ConvergenceError (with the last converged State) or MeshError for an unresolved space charge.
        """
        start = self._checked_start(start)
        d = self.discretisation
        if not self.electrodes:
            raise InputError("electrodes", "none", "a steady state under bias needs at least one electrode")
        target = d.voltages(voltages or {})
        origin = d.voltages(start.voltages)
        totals = self.totals(d.storage(start.unknowns, origin))
        u, reached, step = start.unknowns, 0.0, 1.0
        v = origin
        while reached < 1.0:
            trial = origin + min(1.0, reached + step) * (target - origin)
            try:
                u = self._newton(u, trial, totals, tolerance)
            except NewtonFailure as failure:
                step *= 0.5
                if step < _SMALLEST_BIAS_FRACTION:
                    raise ConvergenceError(
                        f"the steady state was not found: {failure}; try a smaller bias, a start state near it, "
                        "or a finer mesh at the boundaries",
                        at=self._describe(trial),
                        last_good=State(self, u, self.named(v)),
                    ) from failure
            else:
                v = trial
                reached = min(1.0, reached + step)
                step = min(2.0 * step, 1.0)
        return self.checked(State(self, u, {name: (voltages or {}).get(name, 0.0) for name in d.names}))

    def transient(
        self,
        voltage: Mapping[str, Callable[[float], float]],
        t_end: float,
        start: State | None = None,
        *,
        tolerance: float = 1e-4,
        first_step: float | None = None,
        largest_step: float | None = None,
        keep_states: bool = False,
    ) -> Transient:
        """Evolution over t_end [s] under electrode voltages of time; see `mesoion.transient.integrate`."""
        from mesoion.transient import integrate

        return integrate(
            self,
            voltage,
            t_end,
            self._checked_start(start),
            tolerance=tolerance,
            first_step=first_step,
            largest_step=largest_step,
            keep_states=keep_states,
        )

    def _checked_start(self, start: State | None) -> State:
        rest = self.rest
        if start is None:
            return rest
        if start.unknowns.shape != rest.unknowns.shape or start.system.mesh is not self.mesh:
            raise InputError(
                "start", "a state of another system", "start from a state on the same mesh and species"
            )
        return start

    # Newton ----------------------------------------------------------------------------------------------------

    def totals(self, storage: Floats) -> Floats:
        """Total amount of each species in a storage vector."""
        d = self.discretisation
        return np.array([storage[d.dof[: d.n_cells, 1 + s]].sum() for s in range(d.n_species)])

    def _newton(self, u: Floats, v: Floats, totals: Floats, tolerance: float) -> Floats:
        d = self.discretisation
        span = float(np.ptp(v)) if len(v) else 0.0
        previous, size = np.inf, np.inf
        step: _SteadyStep | None = None
        for _ in range(60 + int(span)):
            lin = d.linearise(u, v)
            # Where factors are dear, keep them as long as each update shrinks tenfold.
            keep = step is not None and not d.pattern.banded and size < min(0.1 * previous, _REUSE_BELOW)
            if step is None or not keep:
                step = _SteadyStep(self, lin)
            delta = step.update(lin, totals)
            previous, size = size, float(np.abs(delta).max())
            if not np.isfinite(size):
                raise NewtonFailure("an update is not finite")
            u = u + delta * min(1.0, _LARGEST_STEP / size) if size > 0.0 else u
            # A kept Jacobian converges linearly and has to go further; round-off can hold updates above that.
            enough = 1e-3 * tolerance if keep else tolerance
            # Newton's updates shrink ever faster: at the last rate, the next would be far below the tolerance.
            done = not keep and size < 0.1 * previous < np.inf and size * size < 0.01 * tolerance * previous
            if done or size < enough or (size < tolerance and size > 0.5 * previous):
                return u
        raise NewtonFailure(f"the last Newton update is {size:.2g} kT/e")

    @cached_property
    def pinned_cells(self) -> list[int]:
        """Cell whose eta is pinned for each species: the largest store."""
        p = self.rest.profile
        d = self.discretisation
        return [
            int(np.argmax(f[: d.n_cells] * e[: d.n_cells])) for f, e in zip(p.filling, p.empty, strict=True)
        ]

    def _equilibrium(self) -> State:
        d = self.discretisation
        n, k, m = d.n_cells, d.edge_k, d.edge_l
        # Split faces hold no charge: the two halves act in series.
        q = d.n_split
        plain = len(d.edge_k) - len(d.electrode_of_wall) - 2 * q
        half_k, half_l = d.field[plain : plain + q], d.field[plain + q : plain + 2 * q]
        series = half_k * half_l / (half_k + half_l) if q else half_k
        edge_k = np.r_[k[:plain], k[plain : plain + q]]
        edge_l = np.r_[m[:plain], m[plain + q : plain + 2 * q]]
        t = np.r_[d.field[:plain], series]
        rank = np.empty(n, dtype=np.int64)
        rank[np.argsort(d.dof[:n, 0], kind="stable")] = np.arange(n)
        i, j = rank[edge_k], rank[edge_l]
        walls = np.flatnonzero(~d.floating_contacts)
        wall_t = d.field[len(d.edge_k) - len(d.electrode_of_wall) :][walls]
        wall_cell = k[len(d.edge_k) - len(d.electrode_of_wall) :][walls]
        cells = np.arange(n)
        alike = np.zeros(n, dtype=np.int64) if self.mesh.dimension == 3 else None
        pattern = SparsePattern(np.r_[i, j, i, j, rank], np.r_[i, j, j, i, rank], n, alike, alike)
        stiffness = sums(wall_cell, wall_t, n)
        base = pattern.assemble(np.r_[t, t, -t, -t, stiffness])
        v = np.zeros(len(d.names))
        wall_phi = d.nodal(np.zeros(d.n_unknowns), v)[:, 0][
            m[len(d.edge_k) - len(d.electrode_of_wall) :][walls]
        ]
        u = np.zeros(d.n_unknowns)
        phi = np.zeros(n)
        diagonal = slice(4 * len(t), None)
        for _ in range(200):
            u[d.dof[cells, 0]] = phi
            p = d.profile(u, v)
            charge = d.charge(p)
            flux = t * (phi[edge_k] - phi[edge_l])
            residual = sums(edge_k, flux, n) - sums(edge_l, flux, n) - charge
            residual += sums(wall_cell, wall_t * (phi[wall_cell] - wall_phi), n)
            data = base + pattern.assemble(d.charge_slope(p), diagonal)
            ranked = np.empty(n)
            ranked[rank] = -residual
            try:
                delta = pattern.factor(data, definite=True).solve(ranked)[rank]
            except ZeroDivisionError:
                break
            size = float(np.abs(delta).max())
            if not np.isfinite(size):
                break
            phi = phi + delta * min(1.0, _LARGEST_STEP / max(size, 1e-300))
            if size < _LAST_UPDATE:
                u[d.dof[cells, 0]] = phi
                if q:
                    middle = (half_k * phi[edge_k[plain:]] + half_l * phi[edge_l[plain:]]) / (half_k + half_l)
                    u[d.dof[n : n + q, 0]] = middle
                d.set_contact(phi)
                return self.checked(State(self, u, dict.fromkeys(d.names, 0.0)))
        raise ConvergenceError(
            f"the equilibrium was not found: the potential had reached {np.abs(phi).max() * d.thermal_voltage:.3g} V; "
            "check fixed charges and segregation energies for impossible values",
            at="0 V on the electrodes",
        )

    # Resolution ------------------------------------------------------------------------------------------------

    def checked(self, state: State, refuse: bool = False) -> State:
        """The state itself, after the check of its space charge against the mesh (see `resolution`).

        `refuse` checks as with resolution "refuse". Raises MeshError, or gives a MeshWarning.
        """
        if self.resolution == "ignore" and not refuse:
            return state
        worst, length, size, where = state.unresolved()
        if worst <= _WARN_RESOLUTION:
            return state
        text = (
            f"the space charge is not resolved near {where}: Debye length {length:.3g} m, "
            f"distance between cells {size:.3g} m; refine there to about half the Debye length"
        )
        if worst > _REFUSE_RESOLUTION and (refuse or self.resolution == "refuse"):
            raise MeshError(text)
        warnings.warn(text, MeshWarning, stacklevel=4)
        return state

    def named(self, v: Floats) -> dict[str, float]:
        """Electrode voltages [V] by name, from those in kT/e."""
        d = self.discretisation
        return {name: float(x) * d.thermal_voltage for name, x in zip(d.names, v, strict=True)}

    def _describe(self, v: Floats) -> str:
        return ", ".join(f"{name} = {x:.4g} V" for name, x in self.named(v).items())


class _SteadyStep:
    """Newton steps towards a steady state with one factorised Jacobian.

    The total of a species that no electrode passes is free in the equations: one eta of each is pinned, then chosen
    to conserve the total.
    """

    def __init__(self, system: PNPSystem, lin: Linearisation) -> None:
        d = self._d = system.discretisation
        pattern = d.pattern
        self._blocked = np.flatnonzero(d.blocked)
        self._dofs = [d.dof[: d.n_cells, 1 + s] for s in self._blocked]
        self._pins = [
            int(dofs[system.pinned_cells[s]]) for s, dofs in zip(self._blocked, self._dofs, strict=True)
        ]
        try:
            if not self._pins:
                self._factor = pattern.factor(lin.jacobian)
                return
            data = lin.jacobian.copy()
            rows = []
            for pin, dofs in zip(self._pins, self._dofs, strict=True):
                in_row = pattern.rows == pin
                data[in_row] = 0.0
                data[in_row & (pattern.columns == pin)] = 1.0
                own = np.zeros(d.n_unknowns)
                own[dofs] = 1.0
                rows.append(sums(pattern.columns, lin.capacity * own[pattern.rows], d.n_unknowns))
            self._factor = pattern.factor(data)
        except ZeroDivisionError as error:
            raise NewtonFailure("the Jacobian is singular") from error
        units = np.zeros((d.n_unknowns, len(self._pins)))
        units[self._pins, np.arange(len(self._pins))] = 1.0
        self._response = self._factor.solve(units)
        self._rows = np.array(rows)

    def update(self, lin: Linearisation, totals: Floats) -> Floats:
        """The step for the residual in `lin`; raises NewtonFailure where nothing stores a blocked species."""
        if not self._pins:
            return np.asarray(self._factor.solve(-lin.residual))
        rhs = -lin.residual
        rhs[self._pins] = 0.0
        x = self._factor.solve(rhs)
        excess = [
            lin.storage[dofs].sum() - totals[s] for s, dofs in zip(self._blocked, self._dofs, strict=True)
        ]
        try:
            shift = np.linalg.solve(self._rows @ self._response, -np.array(excess) - self._rows @ x)
        except np.linalg.LinAlgError as error:
            raise NewtonFailure("nothing stores a species that no electrode passes") from error
        return np.asarray(x + self._response @ shift)


@dataclass(frozen=True, eq=False)
class State:
    """A state of a system: fields over its n cells in SI, and what its electrodes carry.

    `unknowns` are the solver's own; `voltages` [V] those of the electrodes.
    """

    system: PNPSystem
    unknowns: Floats
    voltages: dict[str, float]

    @cached_property
    def profile(self) -> Profile:
        """Scaled fields on the solver's nodes."""
        d = self.system.discretisation
        return d.profile(self.unknowns, d.voltages(self.voltages))

    @property
    def potential(self) -> Floats:
        """phi (n,) [V], zero in the neutral grain at rest."""
        d = self.system.discretisation
        return self.profile.phi[: d.n_cells] * d.thermal_voltage

    @property
    def occupancy(self) -> Floats:
        """theta (n,), the filled fraction of Li sites."""
        return self.profile.filling[0][: self.system.discretisation.n_cells]

    @property
    def concentration(self) -> Floats:
        """Li (n,) [m^-3]."""
        return self.system.fields.site_density * self.occupancy

    @property
    def electrochemical_potential(self) -> Floats:
        """mu°+ kT ln(theta/(1 - theta)) + e phi of Li (n,) [J]."""
        d = self.system.discretisation
        return (self.profile.eta[0][: d.n_cells] + d.reservoir(0)) * (BOLTZMANN * self.system.temperature)

    def species(self, name: str) -> tuple[Floats, Floats]:
        """Concentration [m^-3] and electrochemical potential [J] (n,) of a species by name ("Li" too)."""
        d = self.system.discretisation
        index = d.species_index(name)
        eta = self.profile.eta[index][: d.n_cells] + d.reservoir(index)
        return d.concentration(self.profile, index), eta * (BOLTZMANN * self.system.temperature)

    def _conductivity(self, reference: Floats) -> Floats:
        fields = self.system.fields
        theta, full = self.occupancy, fields.reference_occupancy
        empty = self.profile.empty[0][: self.system.discretisation.n_cells]
        scale = theta / full * np.where(fields.vacancy, empty / (1.0 - full), 1.0)
        return np.asarray(reference * scale)

    @property
    def conductivity_across(self) -> Floats:
        """Li conductivity normal to the layer (n,) [S/m] at the state's occupancy; isotropic in grains."""
        return self._conductivity(self.system.fields.conductivity_across)

    @property
    def conductivity_along(self) -> Floats:
        """Li conductivity along the layer (n,) [S/m] at the state's occupancy."""
        fields = self.system.fields
        layer = self.system.mesh.layer_normals.any(axis=1)
        return self._conductivity(np.where(layer, fields.conductivity_along, fields.conductivity_across))

    @property
    def charge_density(self) -> Floats:
        """Net charge (n,) [C/m^3]."""
        return self.system.discretisation.charge_density(self.profile)

    @property
    def debye_length(self) -> Floats:
        """Local Debye length (n,) [m]: sqrt(eps kT/(e^2 sum z^2 c (1 - theta)))."""
        return self.system.discretisation.local_debye_length(self.profile)

    def current(self, electrode: str) -> float:
        """Steady current [A, A/m, A/m^2 in 3D, 2D, 1D] from the electrode into the solid, from its equations."""
        return float(self._flows[0][self._index(electrode)]) * self.system.discretisation.ampere()

    def electrode_charge(self, electrode: str) -> float:
        """Charge on the metal [C, C/m, C/m^2 in 3D, 2D, 1D]."""
        return float(self._flows[1][self._index(electrode)]) * self.system.discretisation.ampere()

    def _index(self, electrode: str) -> int:
        names = self.system.discretisation.names
        if electrode not in names:
            raise InputError("electrode", electrode, f"the electrodes are {', '.join(names) or '(none)'}")
        return names.index(electrode)

    @cached_property
    def _flows(self) -> tuple[Floats, Floats]:
        d = self.system.discretisation
        return d.electrode_flows(self.unknowns, d.voltages(self.voltages))

    def unresolved(self) -> tuple[float, float, float, str]:
        """Largest change of e phi - mu_Li between neighbours [kT] that a space charge makes, and where.

        Also the Debye length [m], the distance [m] and the place. Counted where neighbours are more than half a
        Debye length apart; an ohmic drop moves phi and mu_Li alike and does not count.
        """
        d = self.system.discretisation
        mesh = self.system.mesh
        k, m = mesh.face_cells.T
        length = self.debye_length
        bending = self.profile.phi - self.profile.eta[0]
        face_length = np.minimum(length[k], length[m])
        faces = np.abs(bending[k] - bending[m]) * (mesh.face_lengths > 0.5 * face_length)
        # A blocking electrode bends the bands between its face and the first cell, beside the compact layer.
        outer = d.outer_faces[d.blocking_walls]
        cells, distance = mesh.outer_cells[outer], mesh.outer_distances[outer]
        walls = d.wall_steps(self.profile)[d.blocking_walls] * (2.0 * distance > 0.5 * length[cells])
        both = np.r_[faces, np.abs(walls)]
        if not len(both):
            return 0.0, np.inf, 0.0, ""
        worst = int(np.argmax(both))
        if worst < len(faces):
            cell = int(k[worst] if length[k[worst]] < length[m[worst]] else m[worst])
            size = float(mesh.face_lengths[worst])
        else:
            cell = int(cells[worst - len(faces)])
            size = 2.0 * float(distance[worst - len(faces)])
        place = "(" + ", ".join(f"{x:.4g}" for x in mesh.centers[cell]) + ") m"
        return float(both[worst]), float(length[cell]), size, place
