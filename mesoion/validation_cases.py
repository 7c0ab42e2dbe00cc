"""The rows of `mesoion validate`: closed forms, exact limits, independent solvers, published numbers.

Each function computes one number of one row; the rows are declared at the end. `mesoion.validation` runs them.
"""

from __future__ import annotations

import decimal
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import erfi

from mesoion import effective_medium
from mesoion.arrhenius import (
    DiffusivityArrhenius,
    EnergyBarrier,
    PositiveQuantity,
    Source,
    crossover_temperatures,
)
from mesoion.homogenise import effective_conductivity
from mesoion.layered_mesh import layered_mesh
from mesoion.material import Phase
from mesoion.mesh import CellMesh, tensor_mesh
from mesoion.microstructure import lamellae, polycrystal
from mesoion.nested_cubes import nested_cube_octant
from mesoion.physics import CellFields, DiluteSpecies, Electrode, bernoulli, debye_length
from mesoion.smallsignal import impedance, kramers_kronig_residual
from mesoion.solve import PNPSystem
from mesoion.transport import measured_conductivities
from mesoion.units import BOLTZMANN, BOLTZMANN_EV, ELEMENTARY_CHARGE, VACUUM_PERMITTIVITY
from mesoion.validation import case

Floats = NDArray[np.float64]

TEMPERATURE = 300.0
KT = BOLTZMANN * TEMPERATURE
THERMAL_VOLTAGE = KT / ELEMENTARY_CHARGE
NM = 1e-9
DECADES = np.logspace(-2, 11, 60)
"""Thirteen decades of frequency [Hz]."""


# ---- meshes and systems ------------------------------------------------------------------------------------------
def graded_edges(length: float, first: float, cells: int) -> Floats:
    """Edges from 0 to `length` of `cells` cells in geometric progression, the first one `first` long [m]."""
    low, high = 1.0 + 1e-9, 3.0
    for _ in range(100):
        ratio = 0.5 * (low + high)
        total = first * (ratio**cells - 1.0) / (ratio - 1.0)
        low, high = (ratio, high) if total < length else (low, ratio)
    edges = np.r_[0.0, np.cumsum(ratio ** np.arange(cells))]
    scaled: Floats = edges * (length / edges[-1])
    return scaled


def symmetric_edges(length: float, first: float, cells: int) -> Floats:
    """Edges from 0 to `length`, fine at both ends, 2·cells cells."""
    half = graded_edges(0.5 * length, first, cells)
    edges: Floats = np.r_[half, length - half[-2::-1]]
    return edges


def grain_fields(
    mesh: CellMesh,
    sites: float,
    theta: float,
    permittivity: float,
    sigma: float,
    *,
    law: str = "vacancy",
    **fields: Any,
) -> CellFields:
    """One neutral grain everywhere; `fields` replace arrays of it."""
    n = np.ones(mesh.n_cells)
    values: dict[str, Any] = {
        "site_density": sites * n,
        "reference_occupancy": theta * n,
        "fixed_charge": -sites * theta * n,
        "relative_permittivity": permittivity * n,
        "conductivity_across": sigma * n,
        "conductivity_along": sigma * n,
        "standard_energy": 0.0 * n,
        "vacancy": np.full(mesh.n_cells, law == "vacancy"),
        "reservoir_potential": KT * float(np.log(theta / (1.0 - theta))),
    }
    return CellFields(
        **{**values, **{key: np.asarray(value, dtype=float) * n for key, value in fields.items()}}
    )


def bicrystal_line(electrode: Electrode, permittivity: float, segregation: float = 4.0) -> PNPSystem:
    """Grain, boundary layer of 2 nm with `segregation` [kT] and a hundredth of the conductivity, grain; 402 nm."""
    grain_edges, layer_edges = symmetric_edges(200 * NM, 0.02 * NM, 40), graded_edges(1 * NM, 0.02 * NM, 14)
    half = np.r_[np.diff(grain_edges), np.diff(layer_edges)]
    edges = np.r_[0.0, np.cumsum(np.r_[half, half[::-1]])]
    mesh = tensor_mesh([edges])
    layer = np.abs(mesh.centers[:, 0] - 201 * NM) < 1 * NM
    mesh = mesh.with_regions(layer.astype(np.int64), ("grain", "boundary"))
    sites, theta = 1.7e28, 0.5
    grain = Phase("grain", TEMPERATURE, sites, theta, -sites * theta, permittivity, 1e-2, 1e-2, 0.0)
    core = Phase(
        "boundary",
        TEMPERATURE,
        sites,
        theta,
        -sites * theta,
        permittivity,
        1e-4,
        1e-4,
        segregation * KT,
        2 * NM,
    )
    fields = CellFields.from_phases(mesh, {"grain": grain, "boundary": core})
    return PNPSystem(mesh, fields, TEMPERATURE, {"left": electrode, "right": electrode}, resolution="ignore")


# ---- Bernoulli function --------------------------------------------------------------------------------------------
def bernoulli_exact(x: float) -> tuple[decimal.Decimal, decimal.Decimal]:
    """B(x) = x/(e^x − 1) and B'(x) in 60 digits and more, by a series near 0 where the closed form cancels."""
    with decimal.localcontext() as context:
        context.prec = 80
        context.Emin, context.Emax = decimal.MIN_EMIN, decimal.MAX_EMAX
        z = decimal.Decimal(x)
        if abs(x) < 1e-3:
            # e^z − 1 = z s: s and its derivative as power series, both without cancellation.
            s, slope, term = decimal.Decimal(1), decimal.Decimal(1) / 2, decimal.Decimal(1)
            for k in range(1, 40):
                term *= z / (k + 1)
                s += term
                if k > 1:
                    slope += term * k / z if z else 0
            return +(1 / s), +(-slope / s**2)
        growth = z.exp()
        value = z / (growth - 1)
        return +value, +(1 / (growth - 1) - z * growth / (growth - 1) ** 2)


def bernoulli_error(which: int) -> float:
    """Largest relative error of B (0) or B' (1) over |x| from 1e-300 to 700, both signs."""
    x = np.r_[np.logspace(-300, -4, 60), np.logspace(-4, np.log10(700.0), 400)]
    worst = 0.0
    for argument in np.r_[-x, x]:
        exact = bernoulli_exact(float(argument))[which]
        got = decimal.Decimal(float(bernoulli(argument)[which]))
        worst = max(worst, float(abs(got / exact - 1)))
    return worst


# ---- Poisson-Nernst-Planck -----------------------------------------------------------------------------------------
def gouy_chapman_system(cells: int) -> tuple[PNPSystem, float]:
    """A 1:1 electrolyte between a metal and a reservoir, and its Debye length [m].

    Li at vanishing occupancy and a dilute anion; the cells at the metal shrink with their number.
    """
    density, permittivity, theta = 1e25, 80.0, 1e-9
    eps = VACUUM_PERMITTIVITY * permittivity
    length = float(np.sqrt(eps * KT / (2.0 * ELEMENTARY_CHARGE**2 * density)))
    mesh = tensor_mesh([graded_edges(25.0 * length, 0.4 * length / cells, cells)])
    fields = grain_fields(mesh, density / theta, theta, permittivity, 1e-2, fixed_charge=0.0)
    anion = DiluteSpecies("anion", -1, density, 1e-10, 1e-10)
    electrodes = {
        "left": Electrode("blocking"),
        "right": Electrode("reversible", contact_potential=0.0, passes=("anion",)),
    }
    return PNPSystem(mesh, fields, TEMPERATURE, electrodes, species=[anion]), length


@cache
def gouy_chapman_errors(psi: float, cells: int) -> tuple[float, float]:
    """Errors of the profile (over its amplitude) and of the capacitance at a wall of `psi` kT/e.

    Exact: tanh(ψ/4) = tanh(ψ₀/4) e^(−x/λ); C = (ε/λ) cosh(ψ₀/2).
    """
    system, length = gouy_chapman_system(cells)
    step = 1e-3
    low, state, high = (
        system.steady_state({"left": p * THERMAL_VOLTAGE}) for p in (psi - step, psi, psi + step)
    )
    x = system.mesh.centers[:, 0]
    exact = 4.0 * np.arctanh(np.tanh(psi / 4.0) * np.exp(-x / length))
    profile = float(np.abs(state.potential / THERMAL_VOLTAGE - exact).max() / abs(psi))
    slope = (high.electrode_charge("left") - low.electrode_charge("left")) / (2.0 * step * THERMAL_VOLTAGE)
    capacitance = VACUUM_PERMITTIVITY * 80.0 / length * float(np.cosh(psi / 2.0))
    return profile, abs(slope / capacitance - 1.0)


def order(errors: Callable[[int], float], coarse: int, ratio: int = 2) -> float:
    """Observed order of convergence between `coarse` and `ratio`·`coarse` cells an axis."""
    return float(np.log(errors(coarse) / errors(ratio * coarse)) / np.log(ratio))


@cache
def mott_schottky_ratio(barrier: float, cells: int) -> float:
    """Resistivity ratio of a depletion layer with a parabolic barrier of `barrier` kT over that of the bulk."""
    theta, sites, width, tail, permittivity = 1e-6, 1e31, 20 * NM, 30 * NM, 100.0
    depleted = graded_edges(width, 0.2 * width / cells, cells)
    mesh = tensor_mesh([np.r_[depleted, width + np.linspace(0.0, tail, cells)[1:]]])
    x = mesh.centers[:, 0]
    psi = np.where(x < width, barrier * (1.0 - x / width) ** 2, 0.0)
    curvature = np.where(x < width, 2.0 * barrier * THERMAL_VOLTAGE / width**2, 0.0)
    occupancy = theta / (theta + (1.0 - theta) * np.exp(psi))
    fixed = -sites * occupancy - VACUUM_PERMITTIVITY * permittivity * curvature / ELEMENTARY_CHARGE
    fields = grain_fields(mesh, sites, theta, permittivity, 1e-2, law="dilute", fixed_charge=fixed)
    electrodes = {
        "left": Electrode("reversible", contact_potential=barrier * THERMAL_VOLTAGE),
        "right": Electrode("reversible", contact_potential=0.0),
    }
    voltage = 1e-7
    state = PNPSystem(mesh, fields, TEMPERATURE, electrodes).steady_state({"left": voltage})
    return (voltage / state.current("left") * 1e-2 - tail) / width


def mott_schottky_exact(barrier: float) -> float:
    """(√π/2) erfi(√Φ)/√Φ."""
    return float(0.5 * np.sqrt(np.pi) * erfi(np.sqrt(barrier)) / np.sqrt(barrier))


@cache
def manufactured_errors(dimension: int, cells: int, stretch: float) -> tuple[float, float]:
    """L2 errors of φ (in kT/e) and θ for sine and cosine profiles with sources on [0, L]^d, cells stretched."""
    length, sites, theta0, permittivity, sigma = 10 * NM, 2e28, 0.4, 2000.0, 1e-2
    s = np.linspace(0.0, 1.0, cells + 1)
    mesh = tensor_mesh([length * (s + stretch * np.sin(2.0 * np.pi * s) / (2.0 * np.pi))] * dimension)
    k, amplitude, swing, x = np.pi / length, 2.0, 0.25, mesh.centers
    across = np.prod(np.cos(k * x[:, 1:]), axis=1)
    psi, shift = amplitude * np.sin(k * x[:, 0]) * across, swing * np.sin(2.0 * k * x[:, 0]) * across
    theta = theta0 + shift
    laplace_psi, laplace_theta = -dimension * k**2 * psi, -(3 + dimension) * k**2 * shift
    gradients = 2.0 * np.cos(k * x[:, 0]) * np.cos(2.0 * k * x[:, 0]) * across**2
    for axis in range(1, dimension):
        others = np.prod(np.cos(k * np.delete(x[:, 1:], axis - 1, axis=1)), axis=1)
        gradients += np.sin(k * x[:, 0]) * np.sin(2.0 * k * x[:, 0]) * (np.sin(k * x[:, axis]) * others) ** 2
    gradients *= amplitude * swing * k**2
    mobility = sigma * KT / ELEMENTARY_CHARGE**2 / (theta0 * (1.0 - theta0))
    source = -mobility * (
        laplace_theta + (1.0 - 2.0 * theta) * gradients + theta * (1.0 - theta) * laplace_psi
    )
    eps = VACUUM_PERMITTIVITY * permittivity
    fixed = -sites * theta - eps * THERMAL_VOLTAGE * laplace_psi / ELEMENTARY_CHARGE
    fields = grain_fields(mesh, sites, theta0, permittivity, sigma, fixed_charge=fixed)
    contact = Electrode("reversible", contact_potential=0.0)
    electrodes = {"left": contact, "right": contact}
    system = PNPSystem(mesh, fields, TEMPERATURE, electrodes, source=source, resolution="ignore")
    state = system.steady_state()
    weights = mesh.volumes / mesh.volumes.sum()
    misfits = state.potential / THERMAL_VOLTAGE - psi, state.occupancy - theta
    return tuple(float(np.sqrt(weights @ m**2)) for m in misfits)  # type: ignore[return-value]


def manufactured_order(dimension: int, cells: int, stretch: float) -> float:
    """The lower of the orders of φ and θ between `cells` and 2·`cells` an axis."""
    return min(
        order(lambda n, which=which: manufactured_errors(dimension, n, stretch)[which], cells)  # type: ignore[misc]
        for which in (0, 1)
    )


def transient_balances() -> tuple[float, float]:
    """Relative defects of charge and of Li over a transient: what came in through the electrodes against the change."""
    contact = Electrode("reversible")
    system = bicrystal_line(contact, 1000.0)
    start = system.equilibrium()
    run = system.transient({"right": lambda t: 0.05}, 1e-6, start, tolerance=1e-3)
    return run.charge_defect, run.mass_defect


# ---- impedance -----------------------------------------------------------------------------------------------------
SITES, THETA, PERMITTIVITY, SIGMA = 1e26, 0.3, 50.0, 1e-3


def blocking_exact(frequency: Floats, length: float) -> NDArray[np.complex128]:
    """Z A = (L/σ)/(1 + iωτ) + 2λ tanh(sL/2λ)/(iωε s³), s = √(1 + iωτ), τ = ε/σ [Ω m²]."""
    eps = PERMITTIVITY * VACUUM_PERMITTIVITY
    debye = _debye()
    iw = 2j * np.pi * frequency
    s = np.sqrt(1.0 + iw * eps / SIGMA)
    return np.asarray(
        length / SIGMA / s**2 + 2.0 * debye * np.tanh(0.5 * s * length / debye) / (iw * eps * s**3)
    )


def _debye() -> float:
    one = np.ones(1)
    return float(debye_length(PERMITTIVITY * one, TEMPERATURE, SITES * one, THETA * one)[0])


def blocking_error(method: str) -> float:
    """Largest |Z/Z_exact − 1| over thirteen decades, slab of 200 Debye lengths."""
    debye = _debye()
    mesh = tensor_mesh([symmetric_edges(200.0 * debye, 0.05 * debye, 100)])
    fields = grain_fields(mesh, SITES, THETA, PERMITTIVITY, SIGMA)
    blocking = {side: Electrode("blocking") for side in ("left", "right")}
    system = PNPSystem(mesh, fields, TEMPERATURE, blocking)
    z = impedance(system, system.equilibrium(), DECADES, method=method).impedance  # type: ignore[arg-type]
    return float(np.abs(z / blocking_exact(DECADES, 200.0 * debye) - 1.0).max())


REVERSIBLE = Electrode("reversible")
BLOCKING = Electrode("blocking")


@cache
def _bicrystal_spectra(blocking: bool) -> tuple[Any, Any]:
    system = bicrystal_line(BLOCKING if blocking else REVERSIBLE, 1000.0)
    state = system.equilibrium()
    return tuple(impedance(system, state, DECADES, method=m) for m in ("direct", "reduced"))  # type: ignore


def reduced_error(blocking: bool) -> float:
    """Largest relative difference of the reduced from the full impedance of a bicrystal, 13 decades."""
    direct, reduced = _bicrystal_spectra(blocking)
    return float(np.abs(reduced.impedance / direct.impedance - 1.0).max())


def kramers_kronig(blocking: bool) -> float:
    """Largest Kramers-Kronig residual of the reduced spectrum."""
    return float(np.abs(kramers_kronig_residual(DECADES, _bicrystal_spectra(blocking)[1].impedance)).max())


def biased_capacitance_error(bias: float) -> float:
    """Low-frequency capacitance about a bias against dQ/dV of steady states: a storage nonlinear in the unknowns."""
    system = bicrystal_line(BLOCKING, 12085.0)
    step = 1e-4 * THERMAL_VOLTAGE
    low, state, high = (system.steady_state({"right": v}) for v in (bias - step, bias, bias + step))
    exact = (high.electrode_charge("right") - low.electrode_charge("right")) / (2.0 * step)
    f = 1e-3
    z = impedance(system, state, [f]).impedance[0]
    return float(abs((1.0 / (2j * np.pi * f * z)).real / exact - 1.0))


def biased_resistance_error(bias: float) -> float:
    """Low-frequency resistance about a bias against dV/dI of steady states."""
    system = bicrystal_line(REVERSIBLE, 12085.0)
    step = 1e-4 * THERMAL_VOLTAGE
    low, state, high = (system.steady_state({"right": v}) for v in (bias - step, bias, bias + step))
    exact = 2.0 * step / (high.current("right") - low.current("right"))
    return float(abs(impedance(system, state, [1e-2]).impedance[0].real / exact - 1.0))


# ---- homogenisation ------------------------------------------------------------------------------------------------
def keller_defect(ratio: float, seed: int) -> float:
    """|G_x[σ] G_y[1/σ] − 1| of a periodic polycrystal with resolved layers of σ_gb/σ_b = `ratio`.

    Exact in two dimensions for the full tensor: σ_eff[R(1/σ)] det = R σ_eff[σ]⁻¹ R^T; here as
    σ_eff[1/σ] = R^T σ_eff[σ]^-1 R with R the quarter turn.
    """
    mesh = _polycrystal_mesh(seed)
    sigma = np.where(mesh.region > 0, ratio, 1.0)
    tensor, dual = effective_conductivity(mesh, sigma), effective_conductivity(mesh, 1.0 / sigma)
    turn = np.array([[0.0, -1.0], [1.0, 0.0]])
    exact = turn.T @ np.linalg.inv(tensor) @ turn
    return float(np.abs(dual - exact).max() / np.abs(exact).max())


@cache
def _polycrystal_mesh(seed: int) -> CellMesh:
    micro = polycrystal(10, 1e-6, rng=np.random.default_rng(seed))
    return layered_mesh(micro, {"general": 1e-8})


def linear_field_error(gradient: tuple[float, float]) -> float:
    """Defect of σ_eff of a uniform conductor on a mesh with resolved layers: a linear field must be exact."""
    mesh = _polycrystal_mesh(1)
    tensor = effective_conductivity(mesh, np.full(mesh.n_cells, 3.0))
    g = np.array(gradient)
    return float(np.abs(tensor @ g / 3.0 - g).max() / np.abs(g).max())


NESTED_CUBES = {
    (0.01, 1e-3): 0.09033,
    (0.01, 0.1): 0.90199,
    (0.01, 10.0): 1.18855,
    (0.05, 1e-3): 0.019044,
    (0.05, 1e-2): 0.16133,
    (0.05, 10.0): 1.93294,
    (0.2, 1e-3): 0.004427,
    (0.2, 10.0): 4.53746,
}
"""(δ/d, σ_gb/σ_b) -> σ_eff/σ_b of a cube of edge d − δ in a cell of edge d, good to 0.2 %."""


def nested_cube(width: float, ratio: float) -> float:
    """σ_eff/σ_b of the resolved nested cube."""
    mesh = nested_cube_octant(1.0, width)
    return float(effective_conductivity(mesh, np.where(mesh.region > 0, ratio, 1.0))[0, 0])


def nested_cube_point(width: float, ratio: float) -> dict[str, float]:
    """σ_eff/σ_b of a nested cube as a point of a sweep; width δ/d, ratio σ_gb/σ_b."""
    return {"conductivity": nested_cube(width, ratio)}


def lamellar_conductivity(axis: int, along: float) -> float:
    """σ_eff of lamellae with 2 % of layers, 0.1 σ_b across and `along` along; axis 0 across them, 1 along.

    Two-point fluxes are exact where the layer is isotropic; where `along` differs, the oblique faces that its
    tangential grading needs cost what the row states.
    """
    mesh = layered_mesh(lamellae(2, 1e-6, 0.5e-6), {"general": 2e-8})
    layer = mesh.region > 0
    tensor = effective_conductivity(mesh, np.where(layer, 0.1, 1.0), np.where(layer, along, 1.0))
    return float(tensor[axis, axis])


def fipy_difference(quantity: str) -> float:
    """Relative difference of the kernel from coupled PNP assembled from FiPy terms on the same mesh."""
    from mesoion.fipy_pnp import FiPyPNP

    system = bicrystal_line(REVERSIBLE, 1000.0)
    other = FiPyPNP(system.mesh, system.fields, TEMPERATURE, {"left": REVERSIBLE, "right": REVERSIBLE})
    if quantity == "current":
        got = other.steady_state({"right": 0.1}).current["right"]
        return float(abs(got / system.steady_state({"right": 0.1}).current("right") - 1.0))
    frequencies = np.array([1e2, 1e6, 1e9])
    other.equilibrium()
    z = impedance(system, system.equilibrium(), frequencies, electrode="right").impedance
    return float(np.abs(other.impedance(frequencies, "right") / z - 1.0).max())


# ---- published -----------------------------------------------------------------------------------------------------
def crossover() -> float:
    """Temperature [K] where D_gb = D_b for D₀ 3.72e-4 and 10 cm²/s, E_a 0.28 and 0.52 eV."""
    source = Source(kind="literature", text="Arrhenius fits of bulk and grain-boundary diffusivity")

    def law(prefactor: float, energy: float) -> DiffusivityArrhenius:
        return DiffusivityArrhenius(
            law="diffusivity",
            D0_m2_per_s=PositiveQuantity(value=prefactor, uncertainty_factor=1.0, source=source),
            activation_energy_eV=EnergyBarrier(value=energy, standard_uncertainty=0.0, source=source),
        )

    return crossover_temperatures(law(3.72e-8, 0.28), law(1e-3, 0.52))[0]


def total_from_parts(material: str) -> float:
    """σ_total / (S/cm) from the measured bulk and apparent boundary: 1/σ_total = 1/σ_b + 1/σ_gb,app."""
    entries = {m.quantity: m.conductivity_S_per_m for m in measured_conductivities(material)}
    return 0.01 / (1.0 / entries["bulk"] + 1.0 / entries["apparent grain boundary"])


# ---- the rows ------------------------------------------------------------------------------------------------------
def _declare_numerics() -> None:
    for which, name in enumerate(("bernoulli", "bernoulli_derivative")):
        about = "largest relative error against 80 digits, |x| from 1e-300 to 700"
        case(
            name,
            partial(bernoulli_error, which),
            expected=0.0,
            tolerance=1e-14,
            relation="absolute",
            about=about,
        )
    for dimension, cells in ((1, 80), (2, 24), (3, 8)):
        for stretch, mesh in ((0.0, "uniform"), (0.6, "graded")):
            name = f"manufactured_{dimension}d_{mesh}_order"
            measure = partial(manufactured_order, dimension, cells, stretch)
            case(name, measure, expected=1.95, relation="at least", about="order in L2 of phi and theta")
    for gradient in ((1.0, 0.0), (0.3, -0.8)):
        name = f"linear_field_{gradient[0]:g}_{gradient[1]:g}"
        about = "uniform conductor on a mesh with resolved layers"
        measure = partial(linear_field_error, gradient)
        case(name, measure, expected=0.0, tolerance=1e-12, relation="absolute", about=about)


def _declare_space_charge() -> None:
    for psi in (0.2, -3.0, 6.0):
        for which, name in enumerate(("profile", "capacitance")):
            measure = partial(lambda p, i: gouy_chapman_errors(p, 200)[i], psi, which)
            label = f"gouy_chapman_{name}_psi_{psi:g}"
            case(label, measure, expected=0.0, tolerance=1e-3, relation="absolute", about="relative error")
            rate = partial(lambda p, i: order(lambda n: gouy_chapman_errors(p, n)[i], 100), psi, which)
            case(f"{label}_order", rate, expected=1.85, relation="at least", about="order of convergence")
    for barrier in (5.0, 10.0, 20.0):
        exact = mott_schottky_exact(barrier)
        label = f"mott_schottky_{barrier:g}kT"
        case(label, partial(mott_schottky_ratio, barrier, 100), expected=exact, tolerance=1e-3)
        rate = partial(
            lambda b, x: order(lambda n: abs(mott_schottky_ratio(b, n) / x - 1.0), 50), barrier, exact
        )
        case(f"{label}_order", rate, expected=1.9, relation="at least", about="order of convergence")


def _declare_impedance() -> None:
    for method in ("direct", "reduced"):
        measure = partial(blocking_error, method)
        about = "blocking electrodes, closed form, 13 decades"
        name = f"blocking_impedance_{method}"
        case(name, measure, expected=0.0, tolerance=1e-3, relation="absolute", about=about)
    for blocking, name in ((False, "reversible"), (True, "blocking")):
        measure = partial(reduced_error, blocking)
        about = "reduced against full impedance of a bicrystal"
        case(f"reduced_{name}", measure, expected=0.0, tolerance=1e-5, relation="absolute", about=about)
        measure = partial(kramers_kronig, blocking)
        about = "largest residual"
        case(
            f"kramers_kronig_{name}", measure, expected=0.0, tolerance=1e-4, relation="absolute", about=about
        )
    about = "storage nonlinear in the unknowns: against dQ/dV of steady states"
    for bias in (0.05, 0.6):
        measure = partial(biased_capacitance_error, bias)
        name = f"biased_capacitance_{bias:g}V"
        case(name, measure, expected=0.0, tolerance=1e-3, relation="absolute", about=about)
    about = "against dV/dI of steady states"
    measure = partial(biased_resistance_error, 0.3)
    case("biased_resistance_0.3V", measure, expected=0.0, tolerance=1e-3, relation="absolute", about=about)


def _declare_homogenisation() -> None:
    for ratio in (1e-4, 1e-2, 10.0, 100.0):
        for seed in (1, 2):
            name = f"keller_duality_{ratio:g}_seed_{seed}"
            measure = partial(keller_defect, ratio, seed)
            case(
                name,
                measure,
                expected=0.0,
                tolerance=1e-3,
                relation="absolute",
                about="polycrystal of 10 grains",
            )
    for (width, ratio), expected in NESTED_CUBES.items():
        name = f"nested_cube_{width:g}_{ratio:g}"
        case(
            name, partial(nested_cube, width, ratio), expected=expected, tolerance=5e-3, about="resolved, 3D"
        )
    across = effective_medium.series_brick_layer(1.0, 0.1, 0.02)
    for along, tolerance, label in ((0.1, 1e-12, "isotropic"), (0.3, 3e-3, "anisotropic")):
        for axis, direction, expected in ((0, "across", across), (1, "along", 0.98 + 0.02 * along)):
            name = f"lamellae_{label}_{direction}"
            measure = partial(lamellar_conductivity, axis, along)
            case(name, measure, expected=expected, tolerance=tolerance, about="series, parallel")


def _declare_peers_and_published() -> None:
    for quantity in ("current", "impedance"):
        about = "coupled PNP from FiPy terms on the same mesh"
        measure = partial(fipy_difference, quantity)
        case(f"fipy_{quantity}", measure, expected=0.0, tolerance=1e-3, relation="absolute", about=about)
    exact = 0.24 / (BOLTZMANN_EV * float(np.log(10.0 / 3.72e-4)))
    about = "temperature / K where boundary and bulk diffuse alike"
    case("crossover_temperature", crossover, expected=exact, tolerance=1e-12, about=about)
    about = "as published, to the kelvin"
    case(
        "crossover_temperature_published",
        crossover,
        expected=273.0,
        tolerance=0.5,
        relation="absolute",
        about=about,
    )
    for material, total in (("LSTZ0.75", 2.7e-4), ("LLTO", 7e-5)):
        about = "S/cm, from the published bulk and apparent grain-boundary conductivity; two digits"
        measure = partial(total_from_parts, material)
        case(f"published_total_{material}", measure, expected=total, tolerance=0.02, about=about)


_declare_numerics()
_declare_space_charge()
_declare_impedance()
_declare_homogenisation()
_declare_peers_and_published()
