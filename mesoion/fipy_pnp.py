"""Coupled Poisson-Nernst-Planck from FiPy terms: the independent check of the kernel on the same cell mesh.

Nothing of the kernel's assembly is used. With psi the potential and eta the electrochemical potential of Li, both in
kT/e, theta = 1/(1 + exp(mu° + psi − eta)) and C = e²N theta(1 − theta)/kT,

    div(eps grad psi) + e (N theta + n_fix) e/kT = 0,        div(sigma(theta) grad eta) = 0 (steady),
    div(eps grad d_psi) + C (d_eta − d_psi) = 0,             div(sigma grad d_eta) = i omega C (d_eta − d_psi),

the first pair by Newton's method in psi and substitution in sigma, the second one (small signal about equilibrium) as
four coupled real equations. Lengths are in nanometres inside, everything else is SI.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.constants import elementary_charge, epsilon_0
from scipy.constants import k as boltzmann
from scipy.special import expit

from mesoion.errors import ConvergenceError, InputError
from mesoion.fipy_bridge import load_fipy, to_fipy
from mesoion.fipy_objects import RowScaledLU, SignedImplicitSource
from mesoion.mesh import CellMesh
from mesoion.physics import CellFields, Electrode

fipy: Any = load_fipy()

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]

_NANOMETRE = 1e-9
_LARGEST_STEP = 5.0


@dataclass(frozen=True, eq=False)
class FiPyState:
    """A state in SI: potential (n,) [V], electrochemical potential over e (n,) [V, zero at rest], occupancy (n,).

    current: from each electrode into the solid [A per m^(3-d) in d dimensions]; sweeps: linear solves it took.
    """

    potential: Floats
    electrochemical_potential: Floats
    occupancy: Floats
    current: dict[str, float]
    sweeps: int


def _mean_of_product(y_1: Floats, y_2: Floats) -> Floats:
    """Mean of theta(1 − theta) over y = ln(theta/(1 − theta)) from y_1 to y_2: (theta_2 − theta_1)/(y_2 − y_1)."""
    half = 0.5 * (y_2 - y_1)
    with np.errstate(invalid="ignore", divide="ignore"):
        ratio = np.where(np.abs(half) < 1e-4, 1.0 + half**2 / 6.0, np.sinh(half) / half)
    return np.asarray(0.25 * ratio / (np.cosh(0.5 * y_1) * np.cosh(0.5 * y_2)))


def _mean_of_occupancy(y_1: Floats, y_2: Floats) -> Floats:
    """Mean of theta over y from y_1 to y_2."""
    step = y_2 - y_1
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = (np.logaddexp(0.0, y_2) - np.logaddexp(0.0, y_1)) / step
    return np.asarray(np.where(np.abs(step) < 1e-4, expit(0.5 * (y_1 + y_2)), mean))


class FiPyPNP:
    """Li on its lattice and the potential it makes, from FiPy terms.

    mesh, fields, temperature [K] and electrodes as for `mesoion.solve.PNPSystem`; electrodes are reversible without
    charge-transfer resistance, or blocking, both without compact layer (InputError otherwise). solver: any FiPy solver;
    the row-scaled one unless given.
    """

    def __init__(
        self,
        mesh: CellMesh,
        fields: CellFields,
        temperature: float,
        electrodes: Mapping[str, Electrode],
        *,
        solver: Any = None,
    ) -> None:
        for name, electrode in electrodes.items():
            if electrode.charge_transfer_resistance or electrode.compact_capacitance is not None:
                raise InputError(
                    f"electrode {name}", "charge transfer or compact layer", "the FiPy check has none"
                )
        cells = to_fipy(mesh, length_unit=_NANOMETRE)
        self.mesh, self.faces = cells.mesh, cells.faces
        self.electrodes = dict(electrodes)
        self.thermal_voltage = boltzmann * temperature / elementary_charge
        thermal = boltzmann * temperature
        # Volume terms count per nm² of the diffusion terms' lengths.
        self._per_volume = elementary_charge / self.thermal_voltage * _NANOMETRE**2
        self._sites, self._fixed = fields.site_density, fields.fixed_charge
        self._energy = (fields.standard_energy - fields.reservoir_potential) / thermal
        self._permittivity = self.mesh.sides(epsilon_0 * fields.relative_permittivity)
        self.permittivity = self.mesh.in_series(self._permittivity)
        theta = fields.reference_occupancy
        at_reference = np.where(fields.vacancy, theta * (1.0 - theta), theta)
        self._conductivity = self.mesh.sides(
            fields.conductivity_across / at_reference, fields.conductivity_along / at_reference
        )
        self._vacancy = fields.vacancy
        self.solver = RowScaledLU(self.mesh) if solver is None else solver
        outer = self.mesh._pairs[1] < 0
        self._first = self.mesh._pairs[0]
        self._second = np.where(outer, self._first, self.mesh._pairs[1])
        self._outer = outer
        self._rest: FiPyState | None = None

    # Local relations -------------------------------------------------------------------------------------------

    def _occupancy(self, psi: ArrayLike, eta: ArrayLike) -> Floats:
        return np.asarray(expit(np.asarray(eta) - np.asarray(psi) - self._energy))

    def _capacity(self, theta: Floats) -> Floats:
        """C [F/m per nm²]."""
        return np.asarray(self._per_volume * self._sites * theta * (1.0 - theta))

    def _charge(self, theta: Floats) -> Floats:
        return np.asarray(self._per_volume * (self._sites * theta + self._fixed))

    def conductivity(self, psi: Floats, eta: Floats, psi_walls: Floats, eta_walls: Floats) -> Any:
        """Conductivity of faces [S/m]: each half averaged between its cell and the face, both in series.

        psi, eta (n,) in kT/e; psi_walls, eta_walls (faces,): values on outer faces.
        """
        ends = [self._first, self._second]
        halves = self.mesh._halves
        with np.errstate(divide="ignore", invalid="ignore"):
            field = np.where(halves > 0.0, self._permittivity / halves, 0.0)
            theta = [self._occupancy(psi, eta)[e] for e in ends]
            local = [np.where(self._vacancy[e], t * (1.0 - t), t) for e, t in zip(ends, theta, strict=True)]
            weight = np.where(halves > 0.0, self._conductivity * np.array(local) / halves, 0.0)
        psi_face = (field[0] * psi[ends[0]] + field[1] * psi[ends[1]]) / field.sum(axis=0)
        eta_face = (weight[0] * eta[ends[0]] + weight[1] * eta[ends[1]]) / weight.sum(axis=0)
        psi_face = np.where(self._outer, psi_walls, psi_face)
        eta_face = np.where(self._outer, eta_walls, eta_face)
        sides = np.empty_like(halves)
        for side, e in enumerate(ends):
            y_cell = eta[e] - psi[e] - self._energy[e]
            y_face = eta_face - psi_face - self._energy[e]
            mean = np.where(
                self._vacancy[e], _mean_of_product(y_cell, y_face), _mean_of_occupancy(y_cell, y_face)
            )
            sides[side] = self._conductivity[side] * mean
        return self.mesh.in_series(sides)

    # Equilibrium and steady states -----------------------------------------------------------------------------

    def equilibrium(self) -> FiPyState:
        """Equilibrium with all electrodes at 0 V; the potential at an electrode is that of its cells.

        Raises ConvergenceError after 100 Newton steps.
        """
        if self._rest is not None:
            return self._rest
        psi = fipy.CellVariable(mesh=self.mesh, name="psi")
        capacity = fipy.CellVariable(mesh=self.mesh)
        source = fipy.CellVariable(mesh=self.mesh)
        for name, electrode in self.electrodes.items():
            held = self._held_contact(electrode)
            if held is not None:
                psi.constrain(held, where=self.faces[name])
        equation = (
            fipy.DiffusionTerm(self.permittivity, var=psi) - SignedImplicitSource(capacity, var=psi) + source
            == 0
        )
        for sweep in range(1, 101):
            before = psi.value.copy()
            theta = self._occupancy(before, 0.0)
            capacity.setValue(self._capacity(theta))
            source.setValue(self._charge(theta) + self._capacity(theta) * before)
            equation.sweep(var=psi, solver=self.solver)
            step = psi.value - before
            size = float(np.abs(step).max())
            psi.setValue(before + step * min(1.0, _LARGEST_STEP / max(size, 1e-300)))
            if size < 1e-9:
                self._rest = self._state(psi.value, np.zeros(len(step)), {}, sweep)
                return self._rest
        raise ConvergenceError("FiPy's Poisson equation did not converge", at="0 V")

    def _held_contact(self, electrode: Electrode) -> float | None:
        """Potential of the solid at a contact at 0 V [kT/e] where the electrode sets it."""
        if electrode.contact_potential is not None:
            return float(electrode.contact_potential / self.thermal_voltage)
        return 0.0 if electrode.kind == "blocking" else None

    def _wall(self, voltages: Mapping[str, float]) -> tuple[Floats, Floats]:
        """psi and eta (faces,) imposed on electrodes at the given voltages [V]."""
        rest = self.equilibrium().potential[self._first] / self.thermal_voltage
        psi, eta = rest.copy(), np.zeros_like(rest)
        for name, electrode in self.electrodes.items():
            here = np.asarray(self.faces[name].value)
            volt = voltages.get(name, 0.0) / self.thermal_voltage
            held = self._held_contact(electrode)
            psi[here] = volt + (rest[here] if held is None else held)
            eta[here] = volt
        return psi, eta

    def _constrain(self, psi: Any, eta: Any, psi_walls: Floats, eta_walls: Floats) -> None:
        for name, electrode in self.electrodes.items():
            psi.constrain(psi_walls, where=self.faces[name])
            if electrode.kind == "reversible":
                eta.constrain(eta_walls, where=self.faces[name])

    def steady_state(self, voltages: Mapping[str, float], *, tolerance: float = 1e-9) -> FiPyState:
        """Steady state under electrode voltages [V], the two equations coupled, sigma(theta) by substitution.

        `tolerance` [kT/e]: last change of psi and eta. Raises InputError for a blocking electrode (no steady current
        fixes eta there) and ConvergenceError after 300 sweeps.
        """
        for name, electrode in self.electrodes.items():
            if electrode.kind != "reversible":
                raise InputError(
                    f"electrode {name}", electrode.kind, "steady states need reversible electrodes here"
                )
        rest = self.equilibrium()
        psi = fipy.CellVariable(mesh=self.mesh, name="psi", value=rest.potential / self.thermal_voltage)
        eta = fipy.CellVariable(mesh=self.mesh, name="eta")
        psi_walls, eta_walls = self._wall(voltages)
        self._constrain(psi, eta, psi_walls, eta_walls)
        sigma = fipy.FaceVariable(mesh=self.mesh)
        capacity = fipy.CellVariable(mesh=self.mesh)
        source = fipy.CellVariable(mesh=self.mesh)
        equations = (
            fipy.DiffusionTerm(self.permittivity, var=psi)
            + SignedImplicitSource(capacity, var=eta)
            - SignedImplicitSource(capacity, var=psi)
            + source
            == 0
        ) & (fipy.DiffusionTerm(sigma, var=eta) == 0)
        for sweep in range(1, 301):
            before = [psi.value.copy(), eta.value.copy()]
            theta = self._occupancy(before[0], before[1])
            capacity.setValue(self._capacity(theta))
            source.setValue(self._charge(theta) - self._capacity(theta) * (before[1] - before[0]))
            sigma.setValue(self.conductivity(before[0], before[1], psi_walls, eta_walls).value)
            equations.sweep(solver=self.solver)
            change = [psi.value - before[0], eta.value - before[1]]
            size = max(float(np.abs(c).max()) for c in change)
            scale = min(1.0, _LARGEST_STEP / max(size, 1e-300))
            psi.setValue(before[0] + scale * change[0])
            eta.setValue(before[1] + scale * change[1])
            if size < tolerance:
                sigma.setValue(self.conductivity(psi.value, eta.value, psi_walls, eta_walls).value)
                flow = self._inflow(sigma, eta, eta_walls)
                return self._state(psi.value, eta.value, {n: float(flow[n].real) for n in flow}, sweep)
        raise ConvergenceError(
            f"FiPy's coupled sweeps still change by {size:.1e} kT/e", at=str(dict(voltages))
        )

    def _inflow(self, coefficient: Any, variable: Any, walls: Floats) -> dict[str, complex]:
        """Current from each electrode into the solid, from a face coefficient [S/m] and a potential [kT/e]."""
        mesh = self.mesh
        per_face = (
            coefficient.value * (walls - variable.value[self._first]) / mesh._cellDistances * mesh._faceAreas
        )
        unit = self.thermal_voltage * _NANOMETRE ** (mesh.dim - 2)
        return {
            name: complex(per_face[np.asarray(self.faces[name].value)].sum() * unit)
            for name in self.electrodes
        }

    def _state(self, psi: Floats, eta: Floats, current: dict[str, float], sweeps: int) -> FiPyState:
        volt = self.thermal_voltage
        return FiPyState(psi * volt, eta * volt, self._occupancy(psi, eta), current, sweeps)

    # Small signal ----------------------------------------------------------------------------------------------

    def impedance(self, frequencies: Sequence[float] | Floats, electrode: str) -> Complexes:
        """Impedance about equilibrium seen at one electrode, the others held [ohm m^(3-d)], at frequencies [Hz].

        Four coupled real equations a frequency.
        """
        rest = self.equilibrium()
        psi_0, eta_0 = rest.potential / self.thermal_voltage, np.zeros(self.mesh.numberOfCells)
        sigma = self.conductivity(psi_0, eta_0, *self._wall({}))
        theta = rest.occupancy
        capacity = fipy.CellVariable(mesh=self.mesh, value=self._capacity(theta))
        omega = fipy.Variable(1.0)
        names = ("psi_r", "psi_i", "eta_r", "eta_i")
        psi_r, psi_i, eta_r, eta_i = (fipy.CellVariable(mesh=self.mesh, name=name) for name in names)
        unit = np.asarray(self.faces[electrode].value, dtype=float)
        zero = np.zeros_like(unit)
        self._constrain(psi_r, eta_r, unit, unit)
        self._constrain(psi_i, eta_i, zero, zero)
        source = SignedImplicitSource

        def poisson(psi: Any, eta: Any) -> Any:
            return (
                fipy.DiffusionTerm(self.permittivity, var=psi)
                + source(capacity, var=eta)
                - source(capacity, var=psi)
                == 0
            )

        stored = omega * capacity
        equations = (
            poisson(psi_r, eta_r)
            & poisson(psi_i, eta_i)
            & (
                fipy.DiffusionTerm(sigma, var=eta_r) + source(stored, var=eta_i) - source(stored, var=psi_i)
                == 0
            )
            & (
                fipy.DiffusionTerm(sigma, var=eta_i) - source(stored, var=eta_r) + source(stored, var=psi_r)
                == 0
            )
        )
        blocking = self.electrodes[electrode].kind == "blocking"
        out = np.empty(len(frequencies), dtype=complex)
        for index, frequency in enumerate(frequencies):
            omega.setValue(2.0 * np.pi * frequency)
            equations.sweep(solver=self.solver)
            s = 2j * np.pi * frequency
            current = s * (
                self._inflow(self.permittivity, psi_r, unit)[electrode]
                + 1j * self._inflow(self.permittivity, psi_i, zero)[electrode]
            )
            if not blocking:
                current += (
                    self._inflow(sigma, eta_r, unit)[electrode]
                    + 1j * self._inflow(sigma, eta_i, zero)[electrode]
                )
            # Unit drive is one kT/e.
            out[index] = self.thermal_voltage / current
        return out
