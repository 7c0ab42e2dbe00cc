"""The rows of `mesoion validate`: closed forms, exact limits, independent solvers, published numbers.

Each function computes one number of one row; the rows are declared at the end. `mesoion.validation` runs them.
"""

from __future__ import annotations

import decimal
import importlib.util
from collections.abc import Callable
from functools import cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.interpolate import CubicHermiteSpline
from scipy.special import erfi

from mesoion.impedance.kramers_kronig import kramers_kronig_residual
from mesoion.material import Phase
from mesoion.mesh import CellMesh, tensor_mesh
from mesoion.physics import CellFields, DiluteSpecies, Electrode, bernoulli, debye_length
from mesoion.smallsignal import impedance
from mesoion.solve import PNPSystem
from mesoion.transient import Transient
from mesoion.units import BOLTZMANN, ELEMENTARY_CHARGE, VACUUM_PERMITTIVITY
from mesoion.validation import case
from mesoion.voronoi import CellLabels, voronoi_mesh

Floats = NDArray[np.float64]

TEMPERATURE = 300.0
KT = BOLTZMANN * TEMPERATURE
THERMAL_VOLTAGE = KT / ELEMENTARY_CHARGE
NM = 1e-9
DECADES = np.logspace(-2, 11, 60)
"""Thirteen decades of frequency [Hz]."""

REVERSIBLE = Electrode("reversible")
BLOCKING = Electrode("blocking")


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


def bicrystal_line(
    electrode: Electrode, permittivity: float, *, grain_width: float = 200 * NM, first_cell: float = 0.02 * NM
) -> PNPSystem:
    """Grain, boundary layer of 2 nm that repels Li by 4 kT and conducts a hundredth, grain; fine at each face."""
    grain_edges = symmetric_edges(grain_width, first_cell, 40)
    layer_edges = graded_edges(1 * NM, first_cell, 14)
    half = np.r_[np.diff(grain_edges), np.diff(layer_edges)]
    edges = np.r_[0.0, np.cumsum(np.r_[half, half[::-1]])]
    mesh = tensor_mesh([edges])
    layer = np.abs(mesh.centers[:, 0] - grain_width - 1 * NM) < 1 * NM
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
        4.0 * KT,
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


def stretched_mesh(dimension: int, cells: int, stretch: float) -> CellMesh:
    """Rectangular cells on [0, 10 nm]^d, uniform (stretch 0) or graded by a sine."""
    s = np.linspace(0.0, 1.0, cells + 1)
    edges = 10 * NM * (s + stretch * np.sin(2.0 * np.pi * s) / (2.0 * np.pi))
    return tensor_mesh([edges] * dimension)


def irregular_mesh(cells: int) -> CellMesh:
    """Voronoi cells on [0, 10 nm]² of generators shaken off a square grid by up to 0.3 of its step."""
    rng = np.random.default_rng(cells)
    grid = (np.arange(cells) + 0.5) / cells
    points = np.stack(np.meshgrid(grid, grid), axis=-1).reshape(-1, 2)
    points += rng.uniform(-0.3, 0.3, points.shape) / cells
    zero = np.zeros(len(points), dtype=np.int64)
    labels = CellLabels(zero, ("grain",), zero, zero - 1, np.zeros((len(points), 2)))
    return voronoi_mesh(points, labels, np.ones(2), (False, False), 4.0 / cells, 10 * NM)


def manufactured_errors(mesh: CellMesh) -> tuple[float, float]:
    """L2 errors of φ (in kT/e) and θ for sine and cosine profiles with sources on a mesh of [0, 10 nm]^d."""
    length, sites, theta0, permittivity, sigma = 10 * NM, 2e28, 0.4, 2000.0, 1e-2
    dimension = mesh.dimension
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
    phi, occupancy = state.potential / THERMAL_VOLTAGE - psi, state.occupancy - theta
    return float(np.sqrt(weights @ phi**2)), float(np.sqrt(weights @ occupancy**2))


def manufactured_order(build: Callable[[int], CellMesh], coarse: int, ratio: int = 2) -> float:
    """The lower of the orders of φ and θ between meshes of `coarse` and ratio·`coarse` cells an axis."""
    first, second = (np.array(manufactured_errors(build(n))) for n in (coarse, ratio * coarse))
    return float(np.log(first / second).min() / np.log(ratio))


@cache
def _driven_transient() -> tuple[PNPSystem, Transient]:
    # The potential's own rounding shows in the flux through the finest cells: 1e-16 times length over cell.
    system = bicrystal_line(REVERSIBLE, 2000.0, grain_width=20 * NM, first_cell=0.05 * NM)
    run = system.transient({"right": lambda t: 0.3 * float(np.cos(2e6 * t))}, 3e-6, keep_states=True)
    return system, run


def charge_balance() -> float:
    """Largest sum of the charges passed at both electrodes over a transient, over the charge passed."""
    charge = _driven_transient()[1].charge
    return float(np.abs(charge["left"] + charge["right"]).max() / np.abs(charge["right"]).max())


def mass_balance() -> float:
    """Li gained over a transient less Li that came through the electrodes, over the Li there."""
    system, run = _driven_transient()
    lithium = np.array([system.mesh.volumes @ state.concentration for state in run.states])
    gained = ELEMENTARY_CHARGE * (lithium - system.mesh.volumes @ system.equilibrium().concentration)
    passed = run.ionic_charge["left"] + run.ionic_charge["right"]
    return float(np.abs(gained - passed).max() / (ELEMENTARY_CHARGE * lithium[0]))


def step_admittance(run: Transient, step: float, frequency: Floats) -> NDArray[np.complex128]:
    """Admittance [S, S/m, S/m²] from the response to a step of `step` V that ends without current.

    Y ΔV = iω [q_end + iω ∫ (q − q_end) e^(−iωt) dt], the charge a cubic between the steps.
    """
    t, q, current = run.time, run.charge["right"], run.current["right"]
    cubic = CubicHermiteSpline(t, q - q[-1], current)
    h = np.diff(t)
    a, b, c, d = cubic.c

    def ends(iw: complex, x: Floats) -> NDArray[np.complex128]:
        derivatives = (((a * x + b) * x + c) * x + d, (3 * a * x + 2 * b) * x + c, 6 * a * x + 2 * b, 6 * a)
        by_parts = sum(value / iw ** (k + 1) for k, value in enumerate(derivatives))
        return np.asarray(-np.exp(-iw * (t[:-1] + x)) * by_parts)

    nodes, weights = np.polynomial.legendre.leggauss(8)
    at = t[:-1, np.newaxis] + 0.5 * h[:, np.newaxis] * (1.0 + nodes)
    sampled = cubic(at) * (0.5 * h[:, np.newaxis] * weights)
    found = []
    for iw in 2j * np.pi * frequency:
        # By parts where a step holds many periods, by quadrature where that would cancel.
        short = (sampled * np.exp(-iw * at)).sum(axis=1)
        integral = np.where(np.abs(iw) * h < 2.0, short, ends(iw, h) - ends(iw, 0.0 * h)).sum()
        found.append(iw * (q[-1] + iw * integral) / step)
    return np.array(found)


def transient_fourier_error(bias: float) -> float:
    """Impedance against the Fourier transform of a small step of a transient about `bias`, 10 kHz to 300 MHz."""
    electrode = Electrode("blocking", compact_capacitance=1.0)
    system = bicrystal_line(electrode, 2000.0)
    start = system.steady_state({"right": bias})
    step = 1e-3 * THERMAL_VOLTAGE
    run = system.transient({"right": lambda t: bias + step}, 1.0, start, tolerance=1e-8)
    frequency = np.logspace(3.0, 8.5, 12)
    y = 1.0 / impedance(system, start, frequency, electrode="right").impedance
    return float(np.abs(step_admittance(run, step, frequency) / y - 1.0).max())


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


def devsim_difference(quantity: str) -> float:
    """Relative difference of the kernel from DEVSIM on the same control volumes."""
    from mesoion.bench_peers import DevsimPNP

    system = bicrystal_line(REVERSIBLE, 1000.0)
    other = DevsimPNP(system.mesh, system.fields, TEMPERATURE)
    other.equilibrium()
    other.contacts()
    if quantity == "current":
        other.steady_state(0.1)
        return float(abs(other.current / system.steady_state({"right": 0.1}).current("right") - 1.0))
    frequencies = np.array([1e2, 1e6, 1e9])
    z = impedance(system, system.equilibrium(), frequencies, electrode="right").impedance
    return float(np.abs(other.impedance(frequencies) / z - 1.0).max())


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
            build = partial(lambda d, s, n: stretched_mesh(d, n, s), dimension, stretch)
            measure = partial(manufactured_order, build, cells)
            case(name, measure, expected=1.95, relation="at least", about="order in L2 of phi and theta")
    measure = partial(manufactured_order, irregular_mesh, 20, 4)
    about = "order in L2 of phi and theta, Voronoi cells of shaken generators"
    case("manufactured_2d_irregular_order", measure, expected=1.95, relation="at least", about=about)


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
    for bias in (0.0, 0.5):
        about = "Fourier transform of a small step of a transient"
        measure = partial(transient_fourier_error, bias)
        name = f"transient_fourier_{bias:g}V"
        case(name, measure, expected=0.0, tolerance=1e-3, relation="absolute", about=about)
    about = "over a driven transient"
    case("charge_balance", charge_balance, expected=0.0, tolerance=1e-12, relation="absolute", about=about)
    case("mass_balance", mass_balance, expected=0.0, tolerance=1e-12, relation="absolute", about=about)
    about = "against dV/dI of steady states"
    measure = partial(biased_resistance_error, 0.3)
    case("biased_resistance_0.3V", measure, expected=0.0, tolerance=1e-3, relation="absolute", about=about)


def _declare_peers() -> None:
    for quantity in ("current", "impedance"):
        about = "coupled PNP from FiPy terms on the same mesh"
        measure = partial(fipy_difference, quantity)
        case(f"fipy_{quantity}", measure, expected=0.0, tolerance=1e-3, relation="absolute", about=about)
    # DEVSIM comes with the [bench] extra only.
    for quantity in ("current", "impedance") if importlib.util.find_spec("devsim") else ():
        about = "DEVSIM on the same control volumes"
        measure = partial(devsim_difference, quantity)
        case(f"devsim_{quantity}", measure, expected=0.0, tolerance=1e-2, relation="absolute", about=about)


_declare_numerics()
_declare_space_charge()
_declare_impedance()
_declare_peers()
