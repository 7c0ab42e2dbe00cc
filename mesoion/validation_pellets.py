"""Further rows of `mesoion validate`: polycrystals, effective conductivities, published numbers."""

from __future__ import annotations

from functools import cache, partial

import numpy as np
from numpy.typing import NDArray

from mesoion import effective_medium
from mesoion.arrhenius import (
    DiffusivityArrhenius,
    EnergyBarrier,
    PositiveQuantity,
    Source,
    crossover_temperatures,
)
from mesoion.collapsed import CollapsedPolycrystal
from mesoion.homogenise import effective_conductivity
from mesoion.layered_mesh import layered_mesh
from mesoion.mesh import CellMesh
from mesoion.microstructure import Microstructure, lamellae, polycrystal
from mesoion.nested_cubes import nested_cube_octant
from mesoion.reading import read_spectrum
from mesoion.reduced import ReducedPolycrystal
from mesoion.transport import measured_conductivities
from mesoion.units import BOLTZMANN_EV
from mesoion.validation import case


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


@cache
def _collapsed() -> tuple[Microstructure, CollapsedPolycrystal]:
    micro = polycrystal(10, 1e-6, rng=np.random.default_rng(1))
    return micro, CollapsedPolycrystal(micro)


@cache
def _resolved_mesh(width: float) -> CellMesh:
    return layered_mesh(_collapsed()[0], {"general": width})


def collapsed_error(width: float, ratio: float) -> float:
    """Largest relative difference of the collapsed from the resolved conductivity of 10 grains of 1 µm.

    width [m] and ratio σ_gb/σ_b of the layer; r = w(1/σ_gb − 1/σ_b), s = w(σ_gb − σ_b).
    """
    collapsed = _collapsed()[1].effective(
        1.0, {"general": width * (1.0 / ratio - 1.0)}, {"general": width * (ratio - 1.0)}
    )
    mesh = _resolved_mesh(width)
    resolved = effective_conductivity(mesh, np.where(mesh.region > 0, ratio, 1.0))
    return float(np.abs(collapsed - resolved).max() / np.abs(resolved).max())


@cache
def _reduced() -> ReducedPolycrystal:
    return ReducedPolycrystal.build(_collapsed()[1], tolerance=1e-4)


def reduced_polycrystal_solves() -> float:
    """Full solves that a reduced basis needs for σ_gb/σ_b 1e-4 to 1e2, w/d 1e-5 to 1e-2, at every frequency."""
    return float(_reduced().full_solves)


def reduced_polycrystal_error() -> float:
    """Largest relative error of the reduced polycrystal against full solves at random complex parameters."""
    rng = np.random.default_rng(7)
    collapsed, worst = _collapsed()[1], 0.0
    for _ in range(40):
        ratio = 10.0 ** rng.uniform(-4.0, 2.0)
        k = ratio * np.exp(1j * rng.uniform(0.0, 1.4)) if ratio < 3.0 else complex(ratio)
        width = 1e-6 * 10.0 ** rng.uniform(-5.0, -2.0)
        given = {"general": width * (1.0 / k - 1.0)}, {"general": width * (k - 1.0)}
        full = collapsed.effective(1.0, *given)
        worst = max(
            worst, float(np.abs(_reduced().effective(1.0, *given)[0] - full).max() / np.abs(full).max())
        )
    return worst


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


def reading_error(quantity: str) -> float:
    """Relative error of a conductivity read off the spectrum of a known circuit: two arcs and a blocking tail."""
    bulk, boundary, capacitances = 1000.0, 5000.0, (1e-11, 2e-8)
    frequency: NDArray[np.float64] = np.logspace(0, 8, 65)
    iw = 2j * np.pi * frequency
    z = (
        bulk / (1 + iw * bulk * capacitances[0])
        + boundary / (1 + iw * boundary * capacitances[1])
        + 1 / (iw * 1e-5)
    )
    reading = read_spectrum(frequency, z, thickness=1e-3, area=1e-4, blocking=True)
    exact = {
        "bulk_conductivity": 10.0 / bulk,
        "total_conductivity": 10.0 / (bulk + boundary),
        "apparent_gb_conductivity": 10.0 / boundary,
        "width_over_grain_size": capacitances[0] / capacitances[1],
    }
    got = getattr(reading, quantity)
    return float("nan") if got is None else float(abs(got / exact[quantity] - 1.0))


def total_from_parts(material: str) -> float:
    """σ_total / (S/cm) from the measured bulk and apparent boundary: 1/σ_total = 1/σ_b + 1/σ_gb,app."""
    entries = {m.quantity: m.conductivity_S_per_m for m in measured_conductivities(material)}
    return 0.01 / (1.0 / entries["bulk"] + 1.0 / entries["apparent grain boundary"])


# ---- the rows ------------------------------------------------------------------------------------------------------
def _declare_homogenisation() -> None:
    for gradient in ((1.0, 0.0), (0.3, -0.8)):
        name = f"linear_field_{gradient[0]:g}_{gradient[1]:g}"
        about = "uniform conductor on a mesh with resolved layers"
        measure = partial(linear_field_error, gradient)
        case(name, measure, expected=0.0, tolerance=1e-12, relation="absolute", about=about)
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
    for width in (1e-8, 1e-10):
        for ratio in (1e-4, 1e-2, 0.1, 10.0, 100.0):
            name = f"collapsed_{width * 1e6:g}_{ratio:g}"
            about = "collapsed against resolved, 2D, width over grain size and conductivity ratio"
            measure = partial(collapsed_error, width, ratio)
            case(name, measure, expected=0.0, tolerance=1e-2, relation="absolute", about=about)
    about = "full solves of a reduced basis with a bound of 1e-4"
    case(
        "reduced_polycrystal_solves",
        reduced_polycrystal_solves,
        expected=12.0,
        relation="at most",
        about=about,
    )
    about = "reduced against full at 40 random complex parameters"
    error = reduced_polycrystal_error
    case("reduced_polycrystal", error, expected=0.0, tolerance=1e-4, relation="absolute", about=about)
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


def _declare_published() -> None:
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
    about = "read off the noise-free spectrum of two arcs and a blocking tail"
    for quantity in (
        "bulk_conductivity",
        "total_conductivity",
        "apparent_gb_conductivity",
        "width_over_grain_size",
    ):
        read = partial(reading_error, quantity)
        case(f"reading_{quantity}", read, expected=0.0, tolerance=1e-3, relation="absolute", about=about)
    for material, total in (("LSTZ0.75", 2.7e-4), ("LLTO", 7e-5)):
        about = "S/cm, from the published bulk and apparent grain-boundary conductivity; two digits"
        measure = partial(total_from_parts, material)
        case(f"published_total_{material}", measure, expected=total, tolerance=0.02, about=about)


_declare_homogenisation()
_declare_published()
