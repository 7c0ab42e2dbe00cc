"""Local physics of Poisson-Nernst-Planck transport on a lattice: functions of cell and face values, no assembly.

Faces join cells `k` and `l`; fluxes count positive from k to l. Potentials are in kT/e and electrochemical
potentials in kT unless a unit is given. Source of the flux: Bessemoulin-Chatard, Chainais-Hillairet, SEDAN III.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import constants
from scipy.special import bernoulli as _bernoulli_numbers
from scipy.special import factorial

from mesoion.errors import InputError, MeshError
from mesoion.mesh import CellMesh

if TYPE_CHECKING:
    from mesoion.material import Phase

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

ELEMENTARY_CHARGE: float = constants.e
BOLTZMANN: float = constants.k
VACUUM_PERMITTIVITY: float = constants.epsilon_0

# B'(x) = -1/2 + sum_m b_2m x^(2m-1) / (2m-1)!, used where the closed form cancels.
_SERIES_LIMIT = 0.25
_SERIES = _bernoulli_numbers(14)[2::2] / factorial(np.arange(1, 14, 2))
# Beyond this the Bernoulli function is zero in double precision, and exp(x) overflows soon after.
_LARGEST_ARGUMENT = 709.0


def bernoulli(x: ArrayLike) -> tuple[Floats, Floats]:
    """Bernoulli function B(x) = x/(exp(x) - 1) and its derivative, both to 1e-14 relative for |x| up to 700."""
    z: Floats = np.minimum(np.asarray(x, dtype=float), _LARGEST_ARGUMENT)
    tiny = z == 0.0
    safe = np.where(tiny, 1.0, z)
    em1 = np.expm1(safe)
    value = np.where(tiny, 1.0, safe / em1)
    # B(-x) = B(x) + x.
    slope = (1.0 - (value + z)) / em1
    near = np.clip(z, -_SERIES_LIMIT, _SERIES_LIMIT)
    square = near * near
    series = np.full_like(near, _SERIES[-1])
    for coefficient in _SERIES[-2::-1]:
        series *= square
        series += coefficient
    return value, np.where(np.abs(z) < _SERIES_LIMIT, near * series - 0.5, slope)


class EdgeFlux(NamedTuple):
    """Flux F of one species along edges, per unit transmissibility, and its partial derivatives.

    dF = slope (d eta_k - d eta_l) + by_k d ln c_k + by_l d ln c_l.
    """

    flux: Floats
    slope: Floats
    by_k: Floats
    by_l: Floats


def sedan_flux(eta_k: Floats, eta_l: Floats, ln_k: Floats, ln_l: Floats) -> EdgeFlux:
    """F = B(d) c_k - B(-d) c_l with d the step from k to l of eta - ln c: drift, site exclusion and mu° alike.

    `eta` is the electrochemical potential [kT] and `ln` the logarithm of the concentration over its unit
    (theta for a lattice gas). Written as F = -2 sqrt(B(d) B(-d) c_k c_l) sinh((eta_l - eta_k)/2), which is
    exactly zero in equilibrium and loses no digits near it.
    """
    x = eta_l - eta_k
    d = x - (ln_l - ln_k)
    size = np.minimum(np.abs(d), 600.0)
    b, db = bernoulli(size)
    # Slope of ln(B(d) B(-d)) by d: odd in d, and negative above zero.
    skew = np.copysign(1.0, d) * (1.0 + 2.0 * db / b)
    half = 0.5 * x
    conductance = np.sqrt(b * (b + size)) * np.exp(0.5 * (ln_k + ln_l))
    flux = -2.0 * conductance * np.sinh(half)
    return EdgeFlux(
        flux,
        conductance * np.cosh(half) - 0.5 * skew * flux,
        0.5 * (1.0 + skew) * flux,
        0.5 * (1.0 - skew) * flux,
    )


def lattice_occupancy(y: Floats) -> tuple[Floats, Floats, Floats]:
    """theta, 1 - theta and ln theta of y = ln(theta/(1 - theta)), each to full relative precision."""
    e = np.exp(-np.abs(y))
    inverse = 1.0 / (1.0 + e)
    small = e * inverse
    above = y > 0.0
    return np.where(above, inverse, small), np.where(above, small, inverse), np.minimum(y, 0.0) - np.log1p(e)


def mobility_factor(empty_k: Floats, empty_l: Floats, vacancy: Floats) -> tuple[Floats, Floats]:
    """Edge mean of the mobility's dependence on occupancy, and its derivative by either theta.

    The empty fraction 1 - theta where jumps need a vacancy (`vacancy` = 1), 1 in the dilute law (`vacancy` = 0); the
    transmissibility of `intrinsic_conductivity` completes it to (1 - theta)/(1 - theta_ref).
    """
    return 1.0 - vacancy + 0.5 * vacancy * (empty_k + empty_l), -0.5 * vacancy


def intrinsic_conductivity(sigma: Floats, theta: Floats, vacancy: Floats) -> Floats:
    """sigma/(theta (1 - theta)) with the vacancy law, sigma/theta with the dilute one: sigma at theta [S/m]."""
    return np.asarray(sigma / (theta * (1.0 - vacancy * theta)))


def projected(along: Floats, across: Floats, layer_normals: Floats, face_normals: Floats) -> Floats:
    """n.(P_along (I - m m^T) + P_across m m^T).n on a face of normal n in a layer of normal m (zero in grains).

    In a grain, where m = 0, the across value holds: grains are isotropic.
    """
    cosine = np.einsum("ij,ij->i", layer_normals, face_normals) ** 2
    isotropic = ~layer_normals.any(axis=1)
    return np.asarray(np.where(isotropic, across, along + (across - along) * cosine))


def face_transmissibility(areas: Floats, distances: Floats, p_k: Floats, p_l: Floats) -> Floats:
    """A/(d_k/p_k + d_l/p_l), zero where either coefficient is; `distances` (f, 2) from both generators."""
    blocked = (p_k <= 0.0) | (p_l <= 0.0)
    series = distances[:, 0] / np.where(blocked, 1.0, p_k) + distances[:, 1] / np.where(blocked, 1.0, p_l)
    return np.asarray(np.where(blocked, 0.0, areas / series))


@dataclass(frozen=True)
class Electrode:
    """What the solid meets on a named outer face.

    blocking: no Li passes; the potential meets that of the metal through `compact_capacitance` [F/m^2]
    (None: directly). reversible: mu_Li = e V behind `charge_transfer_resistance` [ohm m^2], with
    `compact_capacitance` in parallel to it. Kinetics: "linear" i = U/R, or "butler-volmer" (symmetric)
    i = (2 kT/(e R)) sinh(e U/(2 kT)), with U the voltage left across the contact.
    The potential of the solid at a reversible contact is the local equilibrium one plus V, so the contact makes
    no space charge of its own; `contact_potential` [V] prescribes it instead of the equilibrium one.
    `passes`: names of dilute species that keep their reference concentration at this electrode.
    """

    kind: Literal["blocking", "reversible"] = "reversible"
    compact_capacitance: float | None = None
    charge_transfer_resistance: float = 0.0
    kinetics: Literal["linear", "butler-volmer"] = "linear"
    contact_potential: float | None = None
    passes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.kind not in ("blocking", "reversible"):
            raise InputError("electrode.kind", self.kind, 'use "blocking" or "reversible"')
        if self.kinetics not in ("linear", "butler-volmer"):
            raise InputError("electrode.kinetics", self.kinetics, 'use "linear" or "butler-volmer"')
        if self.compact_capacitance is not None and not self.compact_capacitance > 0.0:
            raise InputError(
                "electrode.compact_capacitance", self.compact_capacitance, "give F/m^2 above zero"
            )
        if not 0.0 <= self.charge_transfer_resistance < np.inf:
            raise InputError(
                "electrode.charge_transfer_resistance",
                self.charge_transfer_resistance,
                "give ohm m^2, zero or above",
            )


def charge_transfer(u: Floats, kinetics: str) -> tuple[Floats, Floats]:
    """Current over kT/(e R_ct) through a contact at a voltage u [kT/e], and its derivative by u."""
    if kinetics == "linear":
        return u, np.ones_like(u)
    return 2.0 * np.sinh(0.5 * u), np.cosh(0.5 * u)


@dataclass(frozen=True)
class DiluteSpecies:
    """A further species without site exclusion (electrons, holes): mu = mu° + kT ln(c/c_ref) + z e phi.

    charge z; reference_concentration c_ref [m^-3]; diffusivity along and across layers [m^2/s];
    standard_energy mu° [J]. Each is one number or an array over cells.
    """

    name: str
    charge: int
    reference_concentration: float | Floats
    diffusivity_across: float | Floats
    diffusivity_along: float | Floats
    standard_energy: float | Floats = 0.0

    def __post_init__(self) -> None:
        if self.charge == 0:
            raise InputError(
                f"species {self.name}: charge", self.charge, "give a whole number of elementary charges"
            )
        if not np.all(np.asarray(self.reference_concentration) > 0.0):
            raise InputError(f"species {self.name}: reference_concentration", "<= 0", "give m^-3 above zero")


@dataclass(frozen=True, eq=False)
class CellFields:
    """Properties of Li and of the framework in each of n cells, SI, all arrays (n,).

    site_density N [m^-3], reference_occupancy theta_ref, fixed_charge n_fix [m^-3], relative_permittivity,
    conductivity_across and conductivity_along [S/m] at theta_ref, standard_energy mu° [J],
    vacancy (bool): the conductivity scales with theta (1 - theta), else with theta.
    reservoir_potential [J]: electrochemical potential of Li that a reversible electrode at 0 V imposes.
    """

    site_density: Floats
    reference_occupancy: Floats
    fixed_charge: Floats
    relative_permittivity: Floats
    conductivity_across: Floats
    conductivity_along: Floats
    standard_energy: Floats
    vacancy: Bools
    reservoir_potential: float

    def __post_init__(self) -> None:
        n = len(self.site_density)
        for name in (
            "reference_occupancy",
            "fixed_charge",
            "relative_permittivity",
            "conductivity_across",
            "conductivity_along",
            "standard_energy",
            "vacancy",
        ):
            values = getattr(self, name)
            if np.shape(values) != (n,):
                raise InputError(f"fields.{name}", np.shape(values), f"give one value a cell, ({n},)")
            if not np.all(np.isfinite(values)):
                raise InputError(f"fields.{name}", "nan or inf", "give finite values")
        for name in ("site_density", "relative_permittivity", "conductivity_across", "conductivity_along"):
            values = getattr(self, name)
            if not np.all(values > 0.0):
                raise InputError(f"fields.{name}", float(values.min()), "every cell needs a value above zero")
        theta = self.reference_occupancy
        if not np.all((theta > 0.0) & (theta < 1.0)):
            bad = theta[(theta <= 0.0) | (theta >= 1.0)][0]
            raise InputError(
                "fields.reference_occupancy", float(bad), "occupancies lie strictly between 0 and 1"
            )

    @classmethod
    def from_phases(cls, mesh: CellMesh, phases: Mapping[str, Phase]) -> CellFields:
        """Fields of a mesh whose regions are called as in `phases`; its first region is the grain.

        Raises MeshError for a region without a phase and InputError for a grain that is not neutral at its
        reference occupancy (|N theta_ref + n_fix| > 1e-6 N theta_ref).
        """
        missing = [name for name in mesh.region_names if name not in phases]
        if missing:
            raise MeshError(
                f"no phase is given for the mesh region {missing[0]!r}; phases: {', '.join(phases)}"
            )
        rows = [phases[name] for name in mesh.region_names]
        grain = rows[0]
        check_neutral(grain)

        def per_cell(values: list[float]) -> Floats:
            return np.array(values, dtype=float)[mesh.region]

        theta = grain.reference_occupancy
        thermal = BOLTZMANN * grain.temperature
        return cls(
            site_density=per_cell([p.site_density for p in rows]),
            reference_occupancy=per_cell([p.reference_occupancy for p in rows]),
            fixed_charge=per_cell([p.fixed_charge for p in rows]),
            relative_permittivity=per_cell([p.relative_permittivity for p in rows]),
            conductivity_across=per_cell([p.conductivity_across for p in rows]),
            conductivity_along=per_cell([p.conductivity_along for p in rows]),
            standard_energy=per_cell([p.standard_energy for p in rows]),
            vacancy=np.array([p.mobility_law == "vacancy" for p in rows])[mesh.region],
            reservoir_potential=grain.standard_energy + thermal * float(np.log(theta / (1.0 - theta))),
        )


def check_neutral(grain: Phase) -> None:
    """Raises InputError for a grain whose fixed charge does not balance Li at its reference occupancy."""
    lithium = grain.site_density * grain.reference_occupancy
    if abs(lithium + grain.fixed_charge) > 1e-6 * lithium:
        raise InputError(
            f"phase {grain.name}: fixed_charge",
            grain.fixed_charge,
            f"the grain must be neutral at its reference occupancy: {-lithium:.6g} per m^3",
        )


def debye_length(
    relative_permittivity: Floats, temperature: float, site_density: Floats, theta: Floats
) -> Floats:
    """sqrt(eps0 eps_r kT/(e^2 N theta (1 - theta))) [m], one mobile ion with site exclusion."""
    permittivity = VACUUM_PERMITTIVITY * relative_permittivity
    ions = site_density * theta * (1.0 - theta)
    return np.sqrt(permittivity * BOLTZMANN * temperature / (ELEMENTARY_CHARGE**2 * ions))
