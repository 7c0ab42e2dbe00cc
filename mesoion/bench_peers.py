"""Other people's solvers on our cells: DEVSIM (PyPI, extra `bench`), and FiPy the way it is usually written.

All are given the same cells, volumes, faces and coefficients as the kernel and solve the same equations: Li on a
lattice with site exclusion, Poisson's equation, two reversible electrodes called "left" and "right". They serve
`mesoion bench` and the tests; nothing else of mesoion needs them.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.constants import elementary_charge, epsilon_0
from scipy.constants import k as boltzmann

from mesoion.errors import ConvergenceError, InputError, MeshError, MesoionError
from mesoion.mesh import CellMesh
from mesoion.physics import CellFields

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Complexes = NDArray[np.complex128]

_NANOMETRE = 1e-9
_ELECTRODES = ("left", "right")


class PeerMissingError(MesoionError):
    """A peer is not installed, or cannot start."""


def load_devsim() -> Any:
    """The module `devsim`; raises PeerMissingError where it, or the BLAS it needs, is missing."""
    try:
        # DEVSIM prints its search for a BLAS library.
        with _quiet():
            import devsim
    except (ImportError, RuntimeError) as error:
        raise PeerMissingError(
            f"DEVSIM does not start ({error}); pip install 'mesoion[bench]' brings it with MKL"
        ) from error
    return devsim


class _quiet:
    """Send what a library prints on the file descriptor of standard output to nowhere."""

    def __enter__(self) -> None:
        sys.stdout.flush()
        self._saved = os.dup(1)
        self._null = os.open(os.devnull, os.O_WRONLY)
        os.dup2(self._null, 1)

    def __exit__(self, *_: object) -> None:
        os.dup2(self._saved, 1)
        os.close(self._saved)
        os.close(self._null)


class _Edges:
    """Edges between cells and wall nodes of a mesh, in nm: the two-point data every peer is given."""

    def __init__(self, mesh: CellMesh, fields: CellFields, temperature: float) -> None:
        if not np.all(fields.vacancy) or np.ptp(fields.site_density) > 0.0:
            raise InputError(
                "fields",
                "dilute law or uneven site density",
                "peers are set up for one lattice with vacancies",
            )
        missing = [name for name in _ELECTRODES if name not in mesh.outer_names]
        if missing or np.any(mesh.period > 0.0):
            raise MeshError("peers need a mesh without periodic faces and with outer faces left and right")
        n, d = mesh.n_cells, mesh.dimension
        walls = [mesh.outer_faces(name) for name in _ELECTRODES]
        outer = np.concatenate(walls)
        self.electrode = np.repeat([0, 1], [len(w) for w in walls])
        self.cell = mesh.outer_cells[outer]
        self.first = np.r_[mesh.face_cells[:, 0], self.cell]
        self.second = np.r_[mesh.face_cells[:, 1], n + np.arange(len(outer))]
        self.area = np.r_[mesh.face_areas, mesh.outer_areas[outer]] / _NANOMETRE ** (d - 1)
        near = np.r_[mesh.face_distances[:, 0], mesh.outer_distances[outer]] / _NANOMETRE
        far = np.r_[mesh.face_distances[:, 1], np.zeros(len(outer))] / _NANOMETRE
        self.length = near + far
        normals = np.concatenate([mesh.face_normals, mesh.outer_normals[outer]])
        # Nodes of the electrodes lie at mirror images: a triangulation then has an edge for every face.
        away = 2.0 * mesh.outer_normals[outer] * mesh.outer_distances[outer, np.newaxis]
        self.points = np.concatenate([mesh.centers, mesh.centers[self.cell] + away]) / _NANOMETRE
        # DEVSIM multiplies the conditions at a contact by its node's volume, which therefore may not vanish.
        self.volumes = np.r_[mesh.volumes, 1e-6 * mesh.volumes[self.cell]] / _NANOMETRE**d
        material = np.r_[np.arange(n), self.cell]
        self.material = material
        thermal = boltzmann * temperature
        self.thermal_voltage = thermal / elementary_charge

        def series(across: Floats, along: Floats) -> Floats:
            halves = []
            for cells in (material[self.first], material[self.second]):
                layer = mesh.layer_normals[cells]
                cosine = np.einsum("ij,ij->i", layer, normals) ** 2
                value = along[cells] + (across[cells] - along[cells]) * cosine
                halves.append(np.where(layer.any(axis=1), value, across[cells]))
            return np.asarray(self.length / (near / halves[0] + far / halves[1]))

        theta = fields.reference_occupancy
        # D = sigma kT/(e² N theta (1 − theta)) in nm²/s.
        to_diffusivity = thermal / (elementary_charge**2 * fields.site_density * theta * (1.0 - theta))
        self.diffusivity = (
            series(fields.conductivity_across * to_diffusivity, fields.conductivity_along * to_diffusivity)
            / _NANOMETRE**2
        )
        eps = fields.relative_permittivity * epsilon_0 * self.thermal_voltage / elementary_charge * _NANOMETRE
        self.permittivity = series(eps, eps)
        self.sites = float(fields.site_density[0]) * _NANOMETRE**3
        self.fixed = fields.fixed_charge[material] * _NANOMETRE**3
        self.energy = (fields.standard_energy[material] - fields.reservoir_potential) / thermal
        self.ampere = elementary_charge / _NANOMETRE ** (3 - d)


class DevsimPNP:
    """The cell's equations in DEVSIM's model language, solved by DEVSIM: Newton's method and its own AC analysis.

    Nodes are the generators of the cells and one for each electrode face; volumes, couplings and lengths are those of
    our cells, handed to DEVSIM as custom models, so both solve on the same control volumes. Between materials DEVSIM
    has one edge where the kernel has a point on the interface. One instance at a time: DEVSIM keeps global state.
    """

    def __init__(self, mesh: CellMesh, fields: CellFields, temperature: float) -> None:
        self._devsim = load_devsim()
        self._edges = edges = _Edges(mesh, fields, temperature)
        self._n = mesh.n_cells
        if mesh.dimension > 2:
            raise MeshError("DEVSIM is set up for one and two dimensions")
        with _quiet():
            self._close()
            (self._mesh_1d if mesh.dimension == 1 else self._mesh_2d)(edges)
            self._data(edges)
            self._equations()

    def _close(self) -> None:
        ds = self._devsim
        for device in ds.get_device_list():
            ds.delete_device(device=device)
        for name in ds.get_mesh_list():
            ds.delete_mesh(mesh=name)
        # There is no way to ask whether a circuit exists.
        with contextlib.suppress(ds.error):
            ds.delete_circuit()

    def _mesh_1d(self, edges: _Edges) -> None:
        ds = self._devsim
        order = np.argsort(edges.points[:, 0])
        self._node = order
        ds.create_1d_mesh(mesh="cells")
        for rank, x in enumerate(edges.points[order, 0]):
            ds.add_1d_mesh_line(mesh="cells", pos=float(x), ps=1e12, tag=f"p{rank}")
        last = f"p{len(order) - 1}"
        for name, tag in (("left", "p0"), ("right", last)):
            ds.add_1d_contact(mesh="cells", name=name, tag=tag, material="metal")
        ds.add_1d_region(mesh="cells", material="solid", region="solid", tag1="p0", tag2=last)
        ds.finalize_mesh(mesh="cells")
        ds.create_device(mesh="cells", device="cell")

    def _mesh_2d(self, edges: _Edges) -> None:
        from scipy.spatial import Delaunay

        ds = self._devsim
        self._node = np.arange(len(edges.points))
        triangles = Delaunay(edges.points).simplices
        corners = edges.points[triangles]
        side_1, side_2 = corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0]
        twice = np.abs(side_1[:, 0] * side_2[:, 1] - side_1[:, 1] * side_2[:, 0])
        longest = (np.ptp(corners, axis=1) ** 2).sum(axis=1)
        triangles = triangles[twice > 1e-10 * longest]
        elements = [
            np.column_stack([np.full((len(triangles), 1), 2), np.zeros((len(triangles), 1)), triangles])
        ]
        for side in (0, 1):
            nodes = self._n + np.flatnonzero(edges.electrode == side)
            nodes = nodes[np.argsort(edges.points[nodes, 1])]
            pairs = np.column_stack([np.full((len(nodes) - 1, 2), (1, 1 + side)), nodes[:-1], nodes[1:]])
            elements.append(pairs)
        flat = np.concatenate([e.astype(int).ravel() for e in elements])
        coordinates = np.column_stack([edges.points, np.zeros(len(edges.points))])
        ds.create_gmsh_mesh(
            mesh="cells",
            coordinates=coordinates.ravel().tolist(),
            elements=flat.tolist(),
            physical_names=["solid", "left", "right"],
        )
        ds.add_gmsh_region(gmsh_name="solid", mesh="cells", region="solid", material="solid")
        for name in _ELECTRODES:
            ds.add_gmsh_contact(gmsh_name=name, mesh="cells", region="solid", material="metal", name=name)
        ds.finalize_mesh(mesh="cells")
        ds.create_device(mesh="cells", device="cell")

    def _data(self, edges: _Edges) -> None:
        """Hand over volumes, couplings and coefficients by node and by edge."""
        ds, here = self._devsim, {"device": "cell", "region": "solid"}
        x = np.array(ds.get_node_model_values(**here, name="x"))
        if len(x) != len(edges.points) or not np.allclose(
            x, edges.points[self._node, 0], rtol=1e-9, atol=1e-9
        ):
            raise MeshError("DEVSIM numbered its nodes differently")
        node_values = {
            "number": self._node.astype(float),
            "mu": edges.energy[self._node],
            "fixed": edges.fixed[self._node],
            "CellVolume": edges.volumes[self._node],
        }
        for name, values in node_values.items():
            ds.node_solution(**here, name=name)
            ds.set_node_values(**here, name=name, values=values.tolist())
        ds.edge_from_node_model(**here, node_model="number")
        ends = [
            np.array(ds.get_edge_model_values(**here, name=f"number@n{i}")).astype(np.int64) for i in (0, 1)
        ]
        size = np.int64(len(edges.points))
        key = np.minimum(ends[0], ends[1]) * size + np.maximum(ends[0], ends[1])
        ours = np.minimum(edges.first, edges.second) * size + np.maximum(edges.first, edges.second)
        order = np.argsort(ours)
        where = np.minimum(np.searchsorted(ours[order], key), len(ours) - 1)
        found = ours[order][where] == key
        # A face shorter than rounding may lie on the other diagonal of the triangulation.
        lost = np.setdiff1d(ours, key[found])
        if edges.area[np.isin(ours, lost)].sum() > 1e-9 * edges.area.sum():
            raise MeshError("the triangulation for DEVSIM misses faces of the mesh")
        index = order[where]
        for name, values in (
            ("CellCouple", edges.area),
            ("De", edges.diffusivity / edges.length),
            ("eps", edges.permittivity / edges.length),
        ):
            ds.edge_solution(**here, name=name)
            ds.set_edge_values(
                **here,
                name=name,
                values=np.where(found, values[index], 0.0 if name == "CellCouple" else 1.0).tolist(),
            )
        ds.set_parameter(device="cell", name="node_volume_model", value="CellVolume")
        ds.set_parameter(device="cell", name="edge_couple_model", value="CellCouple")
        ds.set_parameter(**here, name="N", value=edges.sites)

    def _equations(self) -> None:
        ds, here = self._devsim, {"device": "cell", "region": "solid"}
        for name in ("phi", "logit", "phi_rest", "logit_rest"):
            ds.node_solution(**here, name=name)
        for name in ("phi", "logit"):
            ds.edge_from_node_model(**here, node_model=name)
        nodes = {
            "theta": "1/(1+exp(-logit))",
            "theta:logit": "theta*(1-theta)",
            "c": "N*theta",
            "c:logit": "N*theta*(1-theta)",
            "px": "phi+mu+log(1+exp(logit))",
            "px:phi": "1",
            "px:logit": "theta",
            "charge": "-(c+fixed)",
            "charge:logit": "-N*theta*(1-theta)",
        }
        for name, equation in nodes.items():
            ds.node_model(**here, name=name, equation=equation)
        for name in ("theta", "theta:logit", "c", "c:logit", "px"):
            ds.edge_from_node_model(**here, node_model=name)
        edge_models = {
            "field": "eps*(phi@n0-phi@n1)",
            "field:phi@n0": "eps",
            "field:phi@n1": "-eps",
            "rise": "px@n1-px@n0",
            "empty": "1-0.5*(theta@n0+theta@n1)",
            "exchange": "B(rise)*c@n0-B(-rise)*c@n1",
            "slope": "dBdx(rise)*c@n0+dBdx(-rise)*c@n1",
            "flux": "De*empty*exchange",
            "flux:phi@n0": "-De*empty*slope",
            "flux:phi@n1": "De*empty*slope",
            "flux:logit@n0": "De*(empty*(B(rise)*c:logit@n0-theta@n0*slope)-0.5*theta:logit@n0*exchange)",
            "flux:logit@n1": "De*(empty*(theta@n1*slope-B(-rise)*c:logit@n1)-0.5*theta:logit@n1*exchange)",
        }
        for name, equation in edge_models.items():
            ds.edge_model(**here, name=name, equation=equation)
        ds.equation(
            **here,
            name="Poisson",
            variable_name="phi",
            node_model="charge",
            edge_model="field",
            time_node_model="",
            variable_update="default",
        )
        ds.equation(
            **here,
            name="Balance",
            variable_name="logit",
            node_model="",
            edge_model="flux",
            time_node_model="c",
            variable_update="default",
        )
        # At rest wall nodes have no charge and no flux: phi follows the cell, y is the reservoir's.
        for name in _ELECTRODES:
            at = {"device": "cell", "contact": name}
            ds.contact_node_model(**at, name=f"hold_logit_{name}", equation="phi+mu+logit")
            ds.contact_node_model(**at, name=f"hold_logit_{name}:logit", equation="1")
            ds.contact_node_model(**at, name=f"hold_logit_{name}:phi", equation="1")
            ds.contact_equation(
                **at, name="Balance", node_model=f"hold_logit_{name}", edge_current_model="flux"
            )

    def _solve(self, tolerance: float) -> int:
        ds = self._devsim
        with _quiet():
            result = ds.solve(
                type="dc", absolute_error=tolerance, relative_error=1e10, maximum_iterations=60, info=True
            )
        if not result["converged"]:
            raise ConvergenceError("DEVSIM did not converge", at="steady state")
        return len(result["iterations"])

    def _values(self, name: str) -> Floats:
        values = np.empty(len(self._node))
        values[self._node] = self._devsim.get_node_model_values(device="cell", region="solid", name=name)
        return values

    def equilibrium(self, tolerance: float = 1e-8) -> int:
        """Solve the equilibrium, from neutral cells without potential; returns the Newton iterations."""
        ds, here = self._devsim, {"device": "cell", "region": "solid"}
        ds.set_node_values(**here, name="phi", values=[0.0] * len(self._node))
        # DEVSIM's Newton steps are not damped: from cells out of neutrality they diverge.
        neutral = -self._edges.fixed[self._node]
        ds.set_node_values(
            **here, name="logit", values=np.log(neutral / (self._edges.sites - neutral)).tolist()
        )
        return self._solve(tolerance)

    def contacts(self) -> None:
        """Let the electrodes hold the potentials reached at rest, the right one through a voltage source."""
        ds, here = self._devsim, {"device": "cell", "region": "solid"}
        with _quiet():
            for name in ("phi", "logit"):
                ds.set_node_values(**here, name=f"{name}_rest", init_from=name)
            ds.circuit_element(name="V1", n1="drive", n2="0", value=0.0, acreal=1.0, acimag=0.0)
            for name in _ELECTRODES:
                at = {"device": "cell", "contact": name}
                drive = "-drive" if name == "right" else ""
                ds.contact_node_model(**at, name=f"hold_phi_{name}", equation=f"phi-phi_rest{drive}")
                ds.contact_node_model(**at, name=f"hold_phi_{name}:phi", equation="1")
                ds.contact_node_model(**at, name=f"rest_logit_{name}", equation="logit-logit_rest")
                ds.contact_node_model(**at, name=f"rest_logit_{name}:logit", equation="1")
                circuit = {}
                if name == "right":
                    ds.contact_node_model(**at, name=f"hold_phi_{name}:drive", equation="-1")
                    circuit = {"circuit_node": "drive"}
                ds.contact_equation(
                    **at, name="Poisson", node_model=f"hold_phi_{name}", edge_charge_model="field", **circuit
                )
                ds.contact_equation(
                    **at,
                    name="Balance",
                    node_model=f"rest_logit_{name}",
                    edge_current_model="flux",
                    **circuit,
                )

    def steady_state(self, voltage: float, tolerance: float = 1e-8) -> int:
        """Steady state with `voltage` [V] on the right electrode; returns the Newton iterations."""
        self._devsim.circuit_alter(name="V1", value=voltage / self._edges.thermal_voltage)
        return self._solve(tolerance)

    @property
    def version(self) -> str:
        """DEVSIM's version and the linear solver it uses."""
        info = self._devsim.get_parameter(name="info")
        return f"DEVSIM {info['version']}, {info['direct_solver']}"

    @property
    def potential(self) -> Floats:
        """phi (n,) [V]."""
        return np.asarray(self._values("phi")[: self._n] * self._edges.thermal_voltage)

    @property
    def occupancy(self) -> Floats:
        """theta (n,)."""
        return self._values("theta")[: self._n]

    @property
    def current(self) -> float:
        """Current from the right electrode into the solid [A per m^(3-d)]."""
        flux = self._devsim.get_contact_current(device="cell", contact="right", equation="Balance")
        return float(flux * self._edges.ampere)

    def impedance(self, frequencies: Sequence[float] | Floats) -> Complexes:
        """Impedance about the present state seen at the right electrode [ohm m^(3-d)], at frequencies [Hz]."""
        ds = self._devsim
        out = np.empty(len(frequencies), dtype=complex)
        for index, frequency in enumerate(frequencies):
            with _quiet():
                ds.solve(type="ac", frequency=float(frequency))
            real, imaginary = (
                ds.get_circuit_node_value(node="V1.I", solution=f"ssac_{part}") for part in ("real", "imag")
            )
            out[index] = -self._edges.thermal_voltage / ((real + 1j * imaginary) * self._edges.ampere)
        return out


class FiPyConcentration:
    """Steady PNP from FiPy terms in potential and concentration, the form FiPy's users write first.

    N = −D (grad c + c(1 − c/N) grad(psi + mu°)) with the mobility averaged between cells, both equations in one coupled
    sweep, the mobility by substitution; on our cells, with the solver given. `mesoion.fipy_pnp` is the faster
    formulation in electrochemical potentials.
    """

    def __init__(self, mesh: CellMesh, fields: CellFields, temperature: float, solver: Any) -> None:
        from mesoion.fipy_bridge import load_fipy, to_fipy
        from mesoion.fipy_objects import SignedImplicitSource

        fipy = load_fipy()
        edges = _Edges(mesh, fields, temperature)
        self.solver, self._edges = solver, edges
        self._cells = cells = to_fipy(mesh, length_unit=_NANOMETRE)
        self.mesh = cells.mesh
        first, second = (np.asarray(side) for side in cells.mesh._adjacentCellIDs)
        self._first, self._second = first, second
        self._energy = edges.energy[: mesh.n_cells]
        theta = fields.reference_occupancy
        at_reference = theta * (1.0 - theta)
        self._conductivity = cells.mesh.coefficient(
            fields.conductivity_across / at_reference, fields.conductivity_along / at_reference
        )
        per_volume = elementary_charge / edges.thermal_voltage * _NANOMETRE**2
        self.psi, self.theta = (fipy.CellVariable(mesh=cells.mesh, name=name) for name in ("psi", "theta"))
        self._drift = fipy.FaceVariable(mesh=cells.mesh)
        self._segregation = fipy.FaceVariable(mesh=cells.mesh, rank=1)
        sites = fipy.CellVariable(mesh=cells.mesh, value=per_volume * fields.site_density)
        fixed = fipy.CellVariable(mesh=cells.mesh, value=per_volume * fields.fixed_charge)
        permittivity = cells.mesh.coefficient(epsilon_0 * fields.relative_permittivity)
        self._equations = (
            fipy.DiffusionTerm(permittivity, var=self.psi)
            + SignedImplicitSource(sites, var=self.theta)
            + fixed
            == 0
        ) & (
            fipy.DiffusionTerm(self._conductivity, var=self.theta)
            + fipy.DiffusionTerm(self._drift, var=self.psi)
            + self._segregation.divergence
            == 0
        )

    def steady_state(self, voltage: float, potential: Floats, tolerance: float = 1e-8) -> float:
        """Current [A per m^(3-d)] from the right electrode at `voltage` [V], from an equilibrium potential (n,) [V].

        `tolerance` [kT/e]: last change of psi. Raises ConvergenceError after 300 sweeps.
        """
        edges, cells = self._edges, self._cells
        rest = potential / edges.thermal_voltage
        occupancy = 1.0 / (1.0 + np.exp(self._energy + rest))
        walls = np.where(cells.faces["right"].value, voltage / edges.thermal_voltage, 0.0) + rest[self._first]
        contacts = occupancy[self._first]
        self.psi.setValue(rest)
        self.theta.setValue(occupancy)
        for name in _ELECTRODES:
            self.psi.constrain(walls, where=cells.faces[name])
            self.theta.constrain(contacts, where=cells.faces[name])
        outer = np.asarray(self.mesh.exteriorFaces.value)
        rise = (self._energy[self._second] - self._energy[self._first]) / self.mesh._cellDistances
        for _ in range(300):
            before = self.psi.value.copy()
            self._set_drift(outer, contacts, rise)
            self._equations.sweep(solver=self.solver)
            self.theta.setValue(np.clip(self.theta.value, 1e-9, 1.0 - 1e-9))
            if float(np.abs(self.psi.value - before).max()) < tolerance:
                self._set_drift(outer, contacts, rise)
                return self._current(walls, contacts)
        raise ConvergenceError("FiPy's coupled sweeps did not converge", at=f"{voltage} V")

    def _set_drift(self, outer: NDArray[np.bool_], contacts: Floats, rise: Floats) -> None:
        theta = self.theta.value
        near, far = theta[self._first], np.where(outer, contacts, theta[self._second])
        step = np.log(far / (1.0 - far)) - np.log(near / (1.0 - near))
        middle = 0.5 * (near + far)
        small = np.abs(step) < 1e-6
        mean = np.where(small, middle * (1.0 - middle), (far - near) / np.where(small, 1.0, step))
        drift = self._conductivity.value * mean
        self._drift.setValue(drift)
        self._segregation.setValue(drift * rise * self.mesh.faceNormals)

    def _current(self, walls: Floats, contacts: Floats) -> float:
        here = np.asarray(self._cells.faces["right"].value)
        cell = self._first[here]
        gradient = self._conductivity.value[here] * (contacts[here] - self.theta.value[cell])
        gradient = gradient + self._drift.value[here] * (walls[here] - self.psi.value[cell])
        flow = (gradient * self.mesh._faceAreas[here] / self.mesh._cellDistances[here]).sum()
        return float(flow * self._edges.thermal_voltage * _NANOMETRE ** (self.mesh.dim - 2))
