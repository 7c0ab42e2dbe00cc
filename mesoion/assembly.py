"""Poisson-Nernst-Planck on a cell mesh as dQ(u)/dt + F(u) = 0 with analytic sparse Jacobians.

Unknowns u are potentials phi [kT/e] and electrochemical potentials eta [kT] of the mobile species, numbered in
elimination order; ln(theta/(1 - theta)) = eta - phi - mu° never leaves 0 < theta < 1. Inside, lengths are in nm,
amounts in ions and time in seconds. A face across which mu° jumps carries a point of its own, so that every
cell is one material up to its faces; an electrode behind a charge-transfer resistance carries one too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from mesoion import physics
from mesoion.errors import InputError
from mesoion.linear_algebra import SparsePattern, elimination_order, sums
from mesoion.mesh import CellMesh
from mesoion.physics import BOLTZMANN, ELEMENTARY_CHARGE, CellFields, DiluteSpecies, Electrode

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

NANOMETRE = 1e-9
_ZERO = np.zeros(1)


def two_words(u: Floats, change: Floats | None = None) -> Floats:
    """u + change as an unevaluated sum of two numbers (2, n), the second what rounding takes from the first.

    u: (n,) or (2, n). Potentials of volts differ by their last digit across a cell of a hundredth of a nanometre;
    two words keep the fluxes through it, and so the balances, to full precision. Source: Knuth's two-sum.
    """
    high, low = u if u.ndim == 2 else (u, np.zeros_like(u))
    if change is None:
        return np.stack([high, low])
    total = high + change
    part = total - high
    low = low + ((high - (total - part)) + (change - part))
    rounded = total + low
    return np.stack([rounded, low - (rounded - total)])


@dataclass(frozen=True, eq=False)
class _Species:
    """One mobile species on the nodes and edges of a discretisation; index 0 is Li on its lattice."""

    name: str
    charge: float
    lattice: bool
    energy: Floats  # mu° of each node less the reservoir's eta, kT
    amount: Floats  # ions in a full (Li) or reference-filled (dilute) cell
    conductance: Floats  # transmissibility of each edge, ions/s
    vacancy: Floats  # 1 or 0 on each edge
    reservoir: float  # electrochemical potential of the reservoir at zero voltage, the zero of eta, kT


@dataclass(frozen=True, eq=False)
class Profile:
    """phi, eta and what follows from them on all nodes; lists run over species."""

    phi: Floats
    eta: list[Floats]
    filling: list[Floats]  # theta, or c/c_ref
    empty: list[Floats]  # 1 - theta, or 1
    logarithm: list[Floats]
    # Of u in two words: (nodes, components) what rounding took from phi and eta; (cells,) theta less theta_0.
    low: Floats | None = None
    excess: Floats | None = None

    def step(self, component: int, k: Ints, m: Ints) -> Floats:
        """phi (component 0) or eta of species component - 1 at nodes k less that at nodes m."""
        values = self.phi if component == 0 else self.eta[component - 1]
        step: Floats = values[k] - values[m]
        if self.low is not None:
            step = step + (self.low[k, component] - self.low[m, component])
        return step


class Discretisation:
    """Residual, storage and Jacobians of one system; see the module's text for the unknowns."""

    def __init__(
        self,
        mesh: CellMesh,
        fields: CellFields,
        temperature: float,
        electrodes: Mapping[str, Electrode],
        species: Sequence[DiluteSpecies],
        source: Floats | None,
    ) -> None:
        self.mesh, self.fields, self.temperature = mesh, fields, temperature
        self.electrodes = dict(electrodes)
        self.names = list(electrodes)
        self.thermal_voltage = BOLTZMANN * temperature / ELEMENTARY_CHARGE
        self._lay_out(species)
        self._number()
        self._species = self._transport(species)
        self.n_species = len(self._species)
        self._volumes = mesh.volumes / NANOMETRE**mesh.dimension
        self._fixed = fields.fixed_charge * NANOMETRE**3 * self._volumes
        # theta_0 of each cell: that of its framework's charge where Li can balance it, 0 else.
        li = self._species[0]
        neutral = -self._fixed / li.amount
        self._neutral = np.where((neutral > 0.0) & (neutral < 1.0), neutral, 0.0)
        inside = np.where(self._neutral > 0.0, self._neutral, 0.5)
        self._neutral_step = li.energy[: mesh.n_cells] + np.log(inside / (1.0 - inside))
        self._neutral_charge = self._fixed + li.amount * self._neutral
        self._source = np.zeros(mesh.n_cells) if source is None else source * NANOMETRE**3 * self._volumes
        self._boundary_values()
        self._patterns()

    # Nodes and edges -------------------------------------------------------------------------------------------

    def _lay_out(self, species: Sequence[DiluteSpecies]) -> None:
        """Nodes: cells, then both sides of faces where mu° jumps, then one wall node per electrode face."""
        mesh, fields = self.mesh, self.fields
        n, d = mesh.n_cells, mesh.dimension
        k, m = mesh.face_cells.T
        energies = [fields.standard_energy, *(np.broadcast_to(s.standard_energy, n) for s in species)]
        jump = fields.vacancy[k] != fields.vacancy[m]
        for energy in energies:
            jump |= np.abs(energy[k] - energy[m]) > 1e-9 * BOLTZMANN * self.temperature
        plain, split = np.flatnonzero(~jump), np.flatnonzero(jump)
        q = len(split)
        side_k, side_l = n + np.arange(q), n + q + np.arange(q)
        outer = [mesh.outer_faces(name) for name in self.names]
        self._outer = np.concatenate(outer) if outer else np.empty(0, dtype=np.int64)
        self.electrode_of_wall = np.repeat(np.arange(len(outer)), [len(o) for o in outer])
        walls = n + 2 * q + np.arange(len(self._outer))
        wall_cells = mesh.outer_cells[self._outer]
        self.n_cells, self.n_split, self._walls = n, q, walls
        self.n_nodes = n + 2 * q + len(walls)
        self._material = np.r_[np.arange(n), k[split], m[split], wall_cells]
        self.edge_k = np.r_[k[plain], k[split], side_l, wall_cells]
        self.edge_l = np.r_[m[plain], side_k, m[split], walls]
        self._plain, self._split = plain, split
        self._walls_start = len(plain) + 2 * q
        scale = NANOMETRE ** (d - 1)
        self._face_areas, self._outer_areas = mesh.face_areas / scale, mesh.outer_areas[self._outer] / scale
        permittivity = (
            fields.relative_permittivity
            * physics.VACUUM_PERMITTIVITY
            * self.thermal_voltage
            / ELEMENTARY_CHARGE
            * NANOMETRE
        )
        field = self._edges(permittivity, permittivity)
        wall_field = field[self._walls_start :]
        bare = wall_field.copy()
        capacitance = np.zeros(len(walls))
        self._free = np.zeros(len(walls), dtype=bool)
        for index, electrode in enumerate(self.electrodes.values()):
            here = self.electrode_of_wall == index
            area = self._outer_areas[here]
            compact = electrode.compact_capacitance
            if compact is not None:
                own = compact * area * self.thermal_voltage / ELEMENTARY_CHARGE * NANOMETRE**2
                if electrode.kind == "blocking":
                    wall_field[here] = 1.0 / (1.0 / wall_field[here] + 1.0 / own)
                else:
                    capacitance[here] = own
            self._free[here] = electrode.kind == "reversible" and electrode.charge_transfer_resistance > 0.0
        self.field = field
        self._compact = capacitance
        # Share of the potential step at an electrode that falls in the solid, not in its compact layer.
        self._solid_share = wall_field / bare

    def _edges(self, across: Floats, along: Floats) -> Floats:
        """Transmissibility of every edge from cell coefficients; lengths in nm."""
        mesh = self.mesh
        k, m = mesh.face_cells.T
        distances = mesh.face_distances / NANOMETRE
        p_k = physics.projected(along[k], across[k], mesh.layer_normals[k], mesh.face_normals)
        p_l = physics.projected(along[m], across[m], mesh.layer_normals[m], mesh.face_normals)
        p, s, area = self._plain, self._split, self._face_areas
        regular = physics.face_transmissibility(area[p], distances[p], p_k[p], p_l[p])
        half_k, half_l = area[s] * p_k[s] / distances[s, 0], area[s] * p_l[s] / distances[s, 1]
        o, c = self._outer, mesh.outer_cells[self._outer]
        p_wall = physics.projected(along[c], across[c], mesh.layer_normals[c], mesh.outer_normals[o])
        wall = self._outer_areas * p_wall / (mesh.outer_distances[o] / NANOMETRE)
        edges: Floats = np.concatenate([regular, half_k, half_l, wall])
        return edges

    def _number(self) -> None:
        """Number the unknowns: m to a cell or split face, one to an electrode behind a charge transfer."""
        n, q = self.n_cells, self.n_split
        free = np.flatnonzero(self._free)
        point = np.full(self.n_nodes, -1, dtype=np.int64)
        point[: n + q] = np.arange(n + q)
        point[n + q : n + 2 * q] = point[n : n + q]
        point[self._walls[free]] = n + q + np.arange(len(free))
        self._point = point
        k, m = point[self.edge_k], point[self.edge_l]
        inner = (k >= 0) & (m >= 0)
        centers = self.mesh.centers
        faces = self.mesh.face_cells[self._split]
        # Along a line the face lies between its cells; elsewhere only the graph counts.
        middle = 0.5 * (centers[faces[:, 0]] + centers[faces[:, 1]])
        wall_points = (
            centers[self._material[self._walls[free]]]
            + self.mesh.outer_normals[self._outer[free]]
            * self.mesh.outer_distances[self._outer[free], np.newaxis]
        )
        position = elimination_order(
            n + q + len(free), k[inner], m[inner], np.concatenate([centers, middle, wall_points])
        )
        self._position = position

    def _unknowns(self, n_components: int) -> None:
        n, q = self.n_cells, self.n_split
        size = np.full(len(self._position), n_components)
        size[n + q :] = 1
        by_position = np.empty_like(size)
        by_position[self._position] = size
        start = np.concatenate([[0], np.cumsum(by_position)])
        self.n_unknowns = int(start[-1])
        first = start[self._position]
        components = np.arange(n_components)
        dof = np.empty((self.n_nodes, n_components), dtype=np.int64)
        inner = slice(0, n + 2 * q)
        dof[inner] = first[self._point[inner]][:, np.newaxis] + components
        dof[self._walls] = self.n_unknowns + self.electrode_of_wall[:, np.newaxis] * n_components + components
        free = self._walls[self._free]
        dof[free, :2] = first[self._point[free]][:, np.newaxis]
        self.dof = dof

    def _transport(self, species: Sequence[DiluteSpecies]) -> list[_Species]:
        mesh, fields, material = self.mesh, self.fields, self._material
        kt = BOLTZMANN * self.temperature
        volumes = mesh.volumes / NANOMETRE**mesh.dimension
        vacancy = fields.vacancy.astype(float)
        edge_material = material[self.edge_k]
        to_ions = kt / ELEMENTARY_CHARGE**2 * NANOMETRE
        across, along = (
            to_ions * physics.intrinsic_conductivity(sigma, fields.reference_occupancy, vacancy)
            for sigma in (fields.conductivity_across, fields.conductivity_along)
        )
        blocking = [e.kind == "blocking" for e in self.electrodes.values()]
        conductance = self._edges(across, along)
        conductance[self._walls_start :][np.array(blocking, dtype=bool)[self.electrode_of_wall]] = 0.0
        out = [
            _Species(
                "Li",
                1.0,
                True,
                (fields.standard_energy[material] - fields.reservoir_potential) / kt,
                fields.site_density * NANOMETRE**3 * volumes,
                conductance,
                vacancy[edge_material],
                fields.reservoir_potential / kt,
            )
        ]
        n = mesh.n_cells
        self._reference_conductivity: list[Floats] = []
        home = int(np.flatnonzero(mesh.region == 0)[0])
        for s in species:
            unknown = [
                name
                for e in self.electrodes.values()
                for name in e.passes
                if name not in {t.name for t in species}
            ]
            if unknown:
                raise InputError(
                    "electrode.passes", unknown[0], f"the dilute species are {[t.name for t in species]}"
                )
            energy = np.broadcast_to(np.asarray(s.standard_energy, dtype=float), n) / kt
            reference = np.broadcast_to(np.asarray(s.reference_concentration, dtype=float), n)
            d_across, d_along = (
                np.broadcast_to(np.asarray(d, dtype=float), n) * reference * NANOMETRE
                for d in (s.diffusivity_across, s.diffusivity_along)
            )
            self._reference_conductivity.append(
                d_across * (s.charge * ELEMENTARY_CHARGE) ** 2 / (kt * NANOMETRE)
            )
            passing = np.array([s.name in e.passes for e in self.electrodes.values()], dtype=bool)
            conductance = self._edges(d_across, d_along)
            conductance[self._walls_start :][~passing[self.electrode_of_wall]] = 0.0
            out.append(
                _Species(
                    s.name,
                    float(s.charge),
                    False,
                    energy[material] - energy[home],
                    reference * NANOMETRE**3 * volumes,
                    conductance,
                    np.zeros(len(self.edge_k)),
                    float(energy[home]),
                )
            )
        return out

    def _boundary_values(self) -> None:
        """Offsets of wall nodes from the electrode's voltage; `set_contact` replaces that of the potential."""
        self._unknowns(1 + self.n_species)
        self._offset = np.zeros((self.n_nodes, 1 + self.n_species))
        for index, electrode in enumerate(self.electrodes.values()):
            if electrode.contact_potential is not None:
                here = self._walls[self.electrode_of_wall == index]
                self._offset[here, 0] = electrode.contact_potential / self.thermal_voltage
        self.floating_contacts = np.array(
            [e.kind == "reversible" and e.contact_potential is None for e in self.electrodes.values()],
            dtype=bool,
        )[self.electrode_of_wall]
        self.blocking_walls = np.array([e.kind == "blocking" for e in self.electrodes.values()], dtype=bool)[
            self.electrode_of_wall
        ]
        self.charges = np.array([s.charge for s in self._species])
        self._per_voltage = np.concatenate([[1.0], self.charges])
        self.blocked = [not np.any(s.conductance[self._walls_start :] > 0.0) for s in self._species]

    def set_contact(self, phi: Floats) -> None:
        """Let the potential at reversible contacts follow the equilibrium potential `phi` (n,) of their cells."""
        walls = self._walls[self.floating_contacts]
        self._offset[walls, 0] = phi[self._material[walls]]

    def reservoir(self, index: int) -> float:
        """Electrochemical potential of a species in the reservoir at zero voltage, the zero of eta [kT]."""
        return self._species[index].reservoir

    @property
    def outer_faces(self) -> Ints:
        """Outer faces that carry an electrode."""
        return self._outer

    def species_index(self, name: str) -> int:
        """Index of a species by name; raises InputError for an unknown one."""
        names = [s.name for s in self._species]
        if name not in names:
            raise InputError("species", name, f"this system has {', '.join(names)}")
        return names.index(name)

    @property
    def species_names(self) -> list[str]:
        """Names of the mobile species, Li first."""
        return [s.name for s in self._species]

    def dilute_conductivity(self, index: int) -> Floats:
        """Conductivity across of a dilute species in each cell at its reference concentration [S/m]."""
        return self._reference_conductivity[index - 1]

    def set_dilute_conductivity(self, index: int, sigma: Floats) -> None:
        """Give a dilute species another conductivity in each cell at its reference concentration [S/m], isotropic."""
        species = self._species[index]
        kt = BOLTZMANN * self.temperature
        mobile = sigma * kt * NANOMETRE / (species.charge * ELEMENTARY_CHARGE) ** 2
        conductance = self._edges(mobile, mobile)
        conductance[self._walls_start :][species.conductance[self._walls_start :] == 0.0] = 0.0
        self._species[index] = replace(species, conductance=conductance)
        self._reference_conductivity[index - 1] = sigma

    def wall_fluxes(self, p: Profile) -> list[Floats]:
        """Flux of each species out of the solid through every electrode face [ions/s]."""
        return [j[self._walls_start :] for j in self.fluxes(p)[1]]

    def concentration(self, p: Profile, index: int) -> Floats:
        """Concentration of a species in each cell [m^-3]."""
        return self._species[index].amount * p.filling[index][: self.n_cells] / self._volumes / NANOMETRE**3

    # Sparsity --------------------------------------------------------------------------------------------------

    def _patterns(self) -> None:
        n, dof = self.n_cells, self.dof
        k, m = self.edge_k, self.edge_l
        drop = np.int64(-1)
        free = self._walls[self._free]
        poisson = dof[:, 0].copy()
        poisson[free] = drop
        cells = slice(0, n)
        rows: list[Ints] = []
        columns: list[Ints] = []

        def entries(row: Ints, *column: Ints) -> slice:
            start = sum(len(r) for r in rows)
            for c in column:
                rows.append(row)
                columns.append(c)
            return slice(start, start + sum(len(c) for c in column))

        phi_k, phi_l = dof[k, 0], dof[m, 0]
        self._slots_field = [entries(poisson[k], phi_k, phi_l), entries(poisson[m], phi_k, phi_l)]
        self._slots_charge, self._slots_flux, self._slots_storage = [], [], []
        for s in range(self.n_species):
            eta_k, eta_l, eta = dof[k, 1 + s], dof[m, 1 + s], dof[cells, 1 + s]
            self._slots_charge.append(entries(poisson[cells], dof[cells, 0], eta))
            first = entries(eta_k, phi_k, eta_k, phi_l, eta_l)
            second = entries(eta_l, phi_k, eta_k, phi_l, eta_l)
            self._slots_flux.append(slice(first.start, second.stop))
            self._slots_storage.append(entries(eta, dof[cells, 0], eta))
        edges = self._walls_start + np.flatnonzero(self._free)
        self._free_edges = edges
        wall = dof[free, 0]
        self._slots_wall = [entries(wall, dof[k[edges], 0], wall)]
        self._wall_rows = wall
        kinds, points = None, None
        if self.mesh.dimension == 3:
            inner = slice(0, n + self.n_split)
            kinds, points = (
                np.zeros(self.n_unknowns, dtype=np.int64),
                np.empty(self.n_unknowns, dtype=np.int64),
            )
            points[wall] = n + self.n_split + np.arange(len(wall))
            points[dof[inner]] = np.arange(n + self.n_split)[:, np.newaxis]
            kinds[dof[inner]] = np.arange(1 + self.n_species)
        self.pattern = SparsePattern(
            np.concatenate(rows), np.concatenate(columns), self.n_unknowns, kinds, points
        )
        t = self.field
        self._field_data = self.pattern.assemble(np.r_[t, -t], self._slots_field[0]) + self.pattern.assemble(
            np.r_[-t, t], self._slots_field[1]
        )
        self._poisson_rows = poisson
        in_poisson = np.zeros(self.n_unknowns, dtype=bool)
        in_poisson[poisson[(poisson >= 0) & (poisson < self.n_unknowns)]] = True
        self.poisson_rows = in_poisson
        self.poisson_entries = in_poisson[self.pattern.rows]
        # Points on split faces store nothing: their flux balance is algebraic too.
        self.algebraic_rows = in_poisson.copy()
        self.algebraic_rows[dof[n : n + self.n_split, 1:]] = True
        self.algebraic_entries = self.algebraic_rows[self.pattern.rows]
        self._field_row_k = np.where(poisson[k] < 0, self.n_unknowns, np.minimum(poisson[k], self.n_unknowns))
        self._field_row_l = np.where(poisson[m] < 0, self.n_unknowns, np.minimum(poisson[m], self.n_unknowns))
        self._flux_rows = [
            (np.minimum(dof[k, 1 + s], self.n_unknowns), np.minimum(dof[m, 1 + s], self.n_unknowns))
            for s in range(self.n_species)
        ]

    # Values ----------------------------------------------------------------------------------------------------

    def voltages(self, voltages: Mapping[str, float]) -> Floats:
        """Electrode voltages in kT/e, in the order of the electrodes; those not named are at zero."""
        unknown = [name for name in voltages if name not in self.electrodes]
        if unknown:
            raise InputError(
                "voltages", unknown[0], f"the electrodes are {', '.join(self.names) or '(none)'}"
            )
        return np.array([voltages.get(name, 0.0) / self.thermal_voltage for name in self.names])

    def nodal(self, u: NDArray[np.floating], v: Floats) -> Floats:
        """phi and eta (nodes, components) from unknowns u and electrode voltages v [kT/e]."""
        tail = v[:, np.newaxis] * self._per_voltage
        values: Floats = np.concatenate([u, tail.ravel()])[self.dof] + self._offset
        return values

    def profile(self, u: Floats, v: Floats) -> Profile:
        """Everything that follows from u and v node by node; u (n,), or (2, n) in two words (`two_words`)."""
        low = excess = None
        if u.ndim == 2:
            u, rest = u
            low = np.concatenate([rest, np.zeros(len(v) * (1 + self.n_species))])[self.dof]
        x = self.nodal(u, v)
        phi = np.ascontiguousarray(x[:, 0])
        eta, filling, empty, logarithm = [], [], [], []
        for index, s in enumerate(self._species):
            e = np.ascontiguousarray(x[:, 1 + index])
            y = e - s.charge * phi - s.energy
            if low is not None:
                y = (e - s.charge * phi) + (low[:, 1 + index] - s.charge * low[:, 0])
                if s.lattice:
                    excess = self._excess(y[: self.n_cells])
                y = y - s.energy
            if s.lattice:
                f, g, ln = physics.lattice_occupancy(y)
            else:
                f, g, ln = np.exp(np.minimum(y, 700.0)), np.ones_like(y), y
            eta.append(e)
            filling.append(f)
            empty.append(g)
            logarithm.append(ln)
        return Profile(phi, eta, filling, empty, logarithm, low, excess)

    def _excess(self, step: Floats) -> Floats:
        """theta - theta_0 of the cells from eta - phi, without taking one full occupancy from another."""
        growth = np.expm1(np.minimum(step - self._neutral_step, 700.0))
        theta = self._neutral
        return np.asarray(theta * (1.0 - theta) * growth / (1.0 + theta * growth))

    def _lattice_amounts(self, p: Profile) -> Floats:
        """Li of each cell less that at theta_0; where the last digits do not count, by subtraction."""
        above = p.filling[0][: self.n_cells] - self._neutral
        if p.excess is not None:
            above = np.where(self._neutral > 0.0, p.excess, above)
        return np.asarray(self._species[0].amount * above)

    def fluxes(self, p: Profile) -> tuple[Floats, list[Floats]]:
        """Displacement through every edge [e] and flux of each species along it [ions/s]."""
        k, m = self.edge_k, self.edge_l
        out = []
        for index, s in enumerate(self._species):
            ln = p.logarithm[index]
            f = physics.sedan_flux(p.step(1 + index, k, m), _ZERO, ln[k], ln[m]).flux
            if s.lattice:
                empty = p.empty[index]
                f = f * physics.mobility_factor(empty[k], empty[m], s.vacancy)[0]
            out.append(s.conductance * f)
        return self.field * p.step(0, k, m), out

    def storage(self, u: Floats, v: Floats) -> Floats:
        """Q(u): ions in each cell on the balance rows (Li beyond theta_0), charge on free walls, zero elsewhere."""
        p = self.profile(u, v)
        return self._storage(p, v)

    def _storage(self, p: Profile, v: Floats) -> Floats:
        q = np.zeros(self.n_unknowns)
        n = self.n_cells
        q[self.dof[:n, 1]] = self._lattice_amounts(p)
        for index, s in enumerate(self._species[1:], 1):
            q[self.dof[:n, 1 + index]] = s.amount * p.filling[index][:n]
        if len(self._free_edges):
            e = self._free_edges
            drop = self._drop(p, v)
            into = self.field[e] * p.step(0, self.edge_k[e], self.edge_l[e])
            q[self._wall_rows] = self._compact[self._free] * drop - into
        return q

    def _drop(self, p: Profile, v: Floats) -> Floats:
        """Voltage between free walls and their electrodes [kT/e]."""
        walls = self._walls[self._free]
        drop = p.phi[walls] - self._offset[walls, 0] - v[self.electrode_of_wall[self._free]]
        return np.asarray(drop if p.low is None else drop + p.low[walls, 0])

    def _charge_transfer(self, p: Profile, v: Floats) -> tuple[Floats, Floats]:
        """Current from free walls into their electrodes [ions/s] and its derivative by the wall potential."""
        drop = self._drop(p, v)
        current, slope = np.zeros_like(drop), np.zeros_like(drop)
        owner = self.electrode_of_wall[self._free]
        area = self._outer_areas[self._free]
        for index, electrode in enumerate(self.electrodes.values()):
            here = owner == index
            if electrode.kind == "reversible" and electrode.charge_transfer_resistance > 0.0:
                scale = (
                    self.thermal_voltage
                    / (ELEMENTARY_CHARGE * electrode.charge_transfer_resistance)
                    * NANOMETRE**2
                    * area[here]
                )
                i, di = physics.charge_transfer(drop[here], electrode.kinetics)
                current[here], slope[here] = scale * i, scale * di
        return current, slope

    def residual(self, u: Floats, v: Floats) -> tuple[Floats, Floats]:
        """F(u) and Q(u)."""
        p = self.profile(u, v)
        return self._residual(p, v, *self.fluxes(p)), self._storage(p, v)

    def _residual(self, p: Profile, v: Floats, displacement: Floats, fluxes: list[Floats]) -> Floats:
        n, size = self.n_cells, self.n_unknowns
        f = sums(self._field_row_k, displacement, size + 1)
        f -= sums(self._field_row_l, displacement, size + 1)
        f[self.dof[:n, 0]] -= self.charge(p)
        for index, j in enumerate(fluxes):
            row_k, row_l = self._flux_rows[index]
            f += sums(row_k, j, size + 1)
            f -= sums(row_l, j, size + 1)
        f[self.dof[:n, 1]] -= self._source
        if len(self._free_edges):
            f[self._wall_rows] += self._charge_transfer(p, v)[0]
        return f[:-1]

    def charge(self, p: Profile) -> Floats:
        """Net charge of each cell [e]; `charge_density` gives it in C/m^3."""
        n = self.n_cells
        total = self._neutral_charge + self._lattice_amounts(p)
        for s, filling in zip(self._species[1:], p.filling[1:], strict=True):
            total += s.charge * s.amount * filling[:n]
        return total

    def charge_density(self, p: Profile) -> Floats:
        """Net charge of each cell [C/m^3]."""
        return self.charge(p) / self._volumes * (ELEMENTARY_CHARGE / NANOMETRE**3)

    def charge_slope(self, p: Profile) -> Floats:
        """-d(charge)/d(phi) of each cell at fixed eta: sum of z^2 c (1 - theta) [e per kT/e]."""
        n = self.n_cells
        total = np.zeros(n)
        for index, s in enumerate(self._species):
            total += s.charge**2 * s.amount * p.filling[index][:n] * p.empty[index][:n]
        return total

    def wall_steps(self, p: Profile) -> Floats:
        """Potential of each electrode face's cell less that of the solid at the face [kT/e]."""
        k, wall = self.edge_k[self._walls_start :], self.edge_l[self._walls_start :]
        return np.asarray((p.phi[k] - p.phi[wall]) * self._solid_share)

    @property
    def permittivity(self) -> Floats:
        """eps0 eps_r of each cell [F/m]."""
        return physics.VACUUM_PERMITTIVITY * self.fields.relative_permittivity

    def local_debye_length(self, p: Profile) -> Floats:
        """sqrt(eps kT/(e^2 sum z^2 c (1 - theta))) of each cell [m]."""
        ions = np.maximum(self.charge_slope(p), 1e-300) / self._volumes / NANOMETRE**3
        return np.asarray(np.sqrt(self.permittivity * self.thermal_voltage / (ELEMENTARY_CHARGE * ions)))

    def linearise(self, u: Floats, v: Floats) -> Linearisation:
        """F, Q and their Jacobians at u, with what is needed to drive and read electrodes."""
        p = self.profile(u, v)
        n, k, m = self.n_cells, self.edge_k, self.edge_l
        pattern = self.pattern
        data = self._field_data.copy()
        stored = np.zeros(pattern.size)
        displacement = self.field * p.step(0, k, m)
        fluxes, derivatives = [], []
        for index, s in enumerate(self._species):
            ln, empty, z = p.logarithm[index], p.empty[index], s.charge
            f, slope, by_k, by_l = physics.sedan_flux(p.step(1 + index, k, m), _ZERO, ln[k], ln[m])
            if s.lattice:
                theta = p.filling[index]
                theta_k, theta_l = theta[k], theta[m]
                empty_k, empty_l = empty[k], empty[m]
                omega, domega = physics.mobility_factor(empty_k, empty_l, s.vacancy)
                by_k = (omega * by_k + domega * theta_k * f) * empty_k
                by_l = (omega * by_l + domega * theta_l * f) * empty_l
                f, slope = omega * f, omega * slope
            t = s.conductance
            by_k, by_l, slope = t * by_k, t * by_l, t * slope
            fluxes.append(t * f)
            d = np.concatenate([-z * by_k, by_k + slope, -z * by_l, by_l - slope])
            derivatives.append(d)
            data += pattern.assemble(np.concatenate([d, -d]), self._slots_flux[index])
            capacity = s.amount * p.filling[index][:n] * empty[:n]
            data += pattern.assemble(
                np.concatenate([z * z * capacity, -z * capacity]), self._slots_charge[index]
            )
            stored += pattern.assemble(np.concatenate([-z * capacity, capacity]), self._slots_storage[index])
        if len(self._free_edges):
            te = self.field[self._free_edges]
            slope = self._charge_transfer(p, v)[1]
            data += pattern.assemble(np.concatenate([0.0 * te, slope]), self._slots_wall[0])
            stored += pattern.assemble(
                np.concatenate([-te, te + self._compact[self._free]]), self._slots_wall[0]
            )
        return Linearisation(
            self._residual(p, v, displacement, fluxes),
            self._storage(p, v),
            data,
            stored,
            [d.reshape(4, -1)[:, self._walls_start :] for d in derivatives],
            self._charge_transfer(p, v)[1] if len(self._free_edges) else np.empty(0),
        )

    # Electrodes ------------------------------------------------------------------------------------------------

    def conductance(self, p: Profile, index: int = 0) -> Floats:
        """Flux of a species along each edge over the step of eta across it, for small steps [ions/s per kT]."""
        s = self._species[index]
        k, m = self.edge_k, self.edge_l
        eta, ln = p.eta[index], p.logarithm[index]
        slope = physics.sedan_flux(eta[k], eta[m], ln[k], ln[m]).slope
        if s.lattice:
            empty = p.empty[index]
            slope = slope * physics.mobility_factor(empty[k], empty[m], s.vacancy)[0]
        return np.asarray(s.conductance * slope)

    def potential_links(self) -> tuple[Ints, Ints, Floats]:
        """Unknowns k, l of phi at the ends of all links and the permittance [e per kT/e] of each.

        l >= n_unknowns where a link ends on an electrode, number (l - n_unknowns) // components.
        """
        free = self._walls[self._free]
        n_components = 1 + self.n_species
        metal = self.n_unknowns + self.electrode_of_wall[self._free] * n_components
        phi = self.dof[:, 0]
        return (
            np.r_[phi[self.edge_k], phi[free]],
            np.r_[phi[self.edge_l], metal],
            np.r_[self.field, self._compact[self._free]],
        )

    @property
    def free_wall_unknowns(self) -> Ints:
        """Unknowns of walls behind a charge-transfer resistance, phi and eta in one."""
        rows: Ints = self._wall_rows
        return rows

    def ampere(self) -> float:
        """Current density or current [A per m^(3-d)] of one ion a second in the scaled units."""
        return float(ELEMENTARY_CHARGE / NANOMETRE ** (3 - self.mesh.dimension))

    def electrode_flows(self, u: Floats, v: Floats) -> tuple[Floats, Floats]:
        """Ionic current [e/s] into the solid and charge [e] on the metal, per electrode."""
        p = self.profile(u, v)
        displacement, fluxes = self.fluxes(p)
        walls = slice(self._walls_start, None)
        current = -sum((s.charge * j[walls] for s, j in zip(self._species, fluxes, strict=True)), np.zeros(1))
        charge = -displacement[walls]
        if len(self._free_edges):
            # What reaches the wall also splits into charge transfer and the compact layer.
            current[self._free] += fluxes[0][self._free_edges] - self._charge_transfer(p, v)[0]
            charge[self._free] = -self._compact[self._free] * self._drop(p, v)
        count = len(self.names)
        owner = self.electrode_of_wall
        return sums(owner, current, count), sums(owner, charge, count)

    def drive(self, lin: Linearisation, electrode: int) -> tuple[Floats, Floats, Floats, Floats]:
        """(dF/dV, d(poisson, storage)/dV, their counterparts of the current) of one electrode.

        Returns b_f, b_q (n_unknowns,): derivatives by the voltage of F without its Poisson rows, and of the charge
        rows (Poisson rows and stored wall charge); read (2, n_unknowns) and own (2,) likewise give the current
        into the solid I = (read_f + s read_q).du + (own_f + s own_q) dV, all in e/s per kT/e.
        """
        size = self.n_unknowns
        walls = np.flatnonzero(self.electrode_of_wall == electrode)
        edges = self._walls_start + walls
        free = self._free[walls]
        fixed = ~free
        k = self.edge_k[edges]
        b_f, b_q = np.zeros(size), np.zeros(size)
        read, own = np.zeros((2, size)), np.zeros(2)
        te = self.field[edges]
        w, kf = edges[fixed] - self._walls_start, k[fixed]
        np.add.at(b_q, self.dof[kf, 0], -te[fixed])
        np.add.at(read[1], self.dof[kf, 0], -te[fixed])
        own[1] += te[fixed].sum()
        for index, s in enumerate(self._species):
            d = lin.wall_derivatives[index]
            by_voltage = d[2] + s.charge * d[3]
            active = w if index == 0 else edges - self._walls_start
            cells = kf if index == 0 else k
            own[0] -= s.charge * by_voltage[active].sum()
            if index > 0:
                # The potential at a free wall is an unknown, its other species follow the electrode.
                moved = np.where(self._free[active], s.charge * d[3][active], by_voltage[active])
                own[0] += s.charge * (by_voltage[active] - moved).sum()
                np.add.at(b_f, self.dof[cells, 1 + index], moved)
                walls_dof = self.dof[self._walls[active[self._free[active]]], 0]
                np.add.at(read[0], walls_dof, -s.charge * d[2][active[self._free[active]]])
            else:
                np.add.at(b_f, self.dof[cells, 1], by_voltage[active])
            np.add.at(read[0], self.dof[cells, 0], -s.charge * d[0][active])
            np.add.at(read[0], self.dof[cells, 1 + index], -s.charge * d[1][active])
        if np.any(free):
            rows = self.dof[self._walls[walls[free]], 0]
            inside = np.cumsum(self._free) - 1
            slope = lin.transfer_slope[inside[walls[free]]]
            compact = self._compact[walls[free]]
            b_f[rows] -= slope
            b_q[rows] -= compact
            read[0, rows] -= slope
            read[1, rows] -= compact
            own += [slope.sum(), compact.sum()]
        return b_f, b_q, read, own


@dataclass(frozen=True, eq=False)
class Linearisation:
    """F and Q at a state and the data of dF/du and dQ/du on the discretisation's pattern."""

    residual: Floats
    storage: Floats
    jacobian: Floats
    capacity: Floats
    wall_derivatives: list[Floats]  # per species (4, walls): flux by phi_k, eta_k, phi_l, eta_l
    transfer_slope: Floats
