"""Critical currents: constriction against exact limits and Wagner's pellet, inversion, sampling, Sobol indices."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from mesoion import nucleation_sampling as sampling
from mesoion.bicrystal import solve_bicrystal
from mesoion.collapsed import CollapsedPolycrystal
from mesoion.critical_current import (
    RESISTANCE_RANGE,
    Constriction,
    critical_current_density,
    interfacial_overpotential,
)
from mesoion.errors import InputError, NoElectronsError
from mesoion.material import Material
from mesoion.microstructure import bricks, polycrystal
from mesoion.nucleation import BarrierError, threshold_overpotential
from mesoion.units import BOLTZMANN, ELEMENTARY_CHARGE
from mesoion.wagner import mixed_conduction, pellet_overpotential

T = 298.15
THERMAL = BOLTZMANN * T / ELEMENTARY_CHARGE


@pytest.fixture(scope="module")
def bricklayer() -> Constriction:
    return Constriction.build(bricks(2, 1.0), points=5, quantile=1.0)


@pytest.fixture(scope="module")
def random_grains() -> Constriction:
    return Constriction.build(polycrystal(8, 1.0, 0.3, 1), points=6)


def test_plane_boundaries_across_the_current_add_half_their_drop(bricklayer: Constriction) -> None:
    """g = rho/2 (exact); the cells beside the faces lie 0.75 % of a grain inside it."""
    at = np.array([0.1, 1.0, 10.0, 30.0])
    assert_allclose(bricklayer("boundary", at, 1e-5), at / 2, rtol=0.02, atol=0)


def test_the_constriction_is_wagner_s_pellet_in_one_dimension(bricklayer: Constriction) -> None:
    """Weak currents: eta at a boundary's face towards the anode is i (R + g d/sigma), here by the closed form."""
    d, sigma, r, contact, current = 1e-6, 0.1, 4e-6, 1e-4, 0.5
    line = pellet_overpotential(
        current,
        grain_size=d,
        thickness=1e-3,
        ionic_conductivity=sigma,
        boundary_resistance=r,
        electronic_conductivity=1e-9,
        boundary_electronic_resistance=1e-6,
        temperature=T,
        charge_transfer_resistance=contact,
    )
    ionic = float(line.ionic_current_density)
    local = float(line.largest_overpotential) - ionic * contact
    g = float(bricklayer("boundary", r * sigma / d, 1e-5))
    assert_allclose(local, ionic * g * d / sigma, rtol=0.03, atol=0)


def test_conducting_boundaries_raise_overpotential_without_any_resistance(
    random_grains: Constriction,
) -> None:
    """Small sheets: g is proportional to beta; large ones: it saturates, as the boundaries then carry all electrons."""
    sheets = np.exp(random_grains.log_sheet)
    g = random_grains("boundary", 1e-5, sheets)
    assert_allclose(g[2] / g[1], sheets[2] / sheets[1], rtol=0.1, atol=0)
    assert 1 < g[5] / g[4] < 1.5
    assert random_grains("boundary", 1e-5, 1e6) == g[5]


def test_beyond_the_table_resistive_boundaries_keep_all_of_the_drop() -> None:
    structure = polycrystal(8, 1.0, 0.3, 1)
    made = Constriction.build(structure, points=2)
    model = CollapsedPolycrystal(structure)
    rho = 10 * RESISTANCE_RANGE[1]
    tensor, u = model.solve(model.coefficients({"general": rho}, {"general": 0.0}))
    length = 0.5 * model.laplacians[1].diagonal()[: model.mesh.n_cells]
    at = length > 0
    local = u[: model.mesh.n_cells][at] / np.diag(tensor)
    local = local - (length[at] @ local) / length[at].sum()
    from mesoion.critical_current import _quantile

    exact = _quantile(np.r_[local.ravel(), -local.ravel()], np.tile(np.repeat(length[at], 2), 2), 0.99)
    assert_allclose(made("boundary", rho, 1e-5), exact, rtol=0.05, atol=0)


def test_nothing_different_makes_nothing(random_grains: Constriction) -> None:
    assert random_grains("junction", -0.1, -0.5) < 3e-5
    with pytest.raises(InputError, match="resistance"):
        random_grains("boundary", math.nan, 1.0)
    with pytest.raises(InputError, match="quantile"):
        Constriction.build(bricks(2, 1.0), quantile=0.2)


@given(
    eta=st.floats(1e-4, 1.0),
    r=st.floats(1e-5, 1e-1),
    g=st.floats(0, 1e-2),
    c=st.floats(0.01, 1.0),
    kinetics=st.sampled_from(["linear", "butler-volmer"]),
)
def test_critical_current_inverts_the_overpotential(
    eta: float, r: float, g: float, c: float, kinetics: str
) -> None:
    options = {"interfacial_resistance": r, "temperature": T, "contact_fraction": c, "kinetics": kinetics}
    i = critical_current_density(eta, local_resistance=g, **options)  # type: ignore[arg-type]
    surface = interfacial_overpotential(i, **options)  # type: ignore[arg-type]
    assert_allclose(surface + i * g, eta, rtol=1e-9, atol=0)


def test_kinetics_agree_at_small_currents_and_no_resistance_means_no_limit() -> None:
    options = {"interfacial_resistance": 1e-3, "local_resistance": 1e-6, "temperature": T}
    linear = critical_current_density(1e-4, **options)  # type: ignore[arg-type]
    tafel = critical_current_density(1e-4, kinetics="butler-volmer", **options)  # type: ignore[arg-type]
    assert_allclose(tafel, linear, rtol=1e-5, atol=0)
    free = critical_current_density(
        [0.1, 0.1], interfacial_resistance=[0.0, 1e-3], local_resistance=0.0, temperature=T
    )
    assert np.isinf(free[0])
    assert_allclose(free[1], 100.0, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("change", "where"),
    [
        ({"required": 0.0}, "required"),
        ({"required": math.nan}, "required"),
        ({"interfacial_resistance": -1.0}, "interfacial_resistance"),
        ({"contact_fraction": 0.0}, "contact_fraction"),
        ({"temperature": -3.0}, "temperature"),
    ],
)
def test_impossible_pellets_are_refused(change: dict[str, float], where: str) -> None:
    given = {
        "required": 0.1,
        "interfacial_resistance": 1e-3,
        "local_resistance": 0.0,
        "temperature": T,
        **change,
    }
    with pytest.raises(InputError, match=where):
        critical_current_density(given.pop("required"), **given)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="contact_fraction"):
        interfacial_overpotential(1.0, 1e-3, T, contact_fraction=1.2)


@pytest.mark.parametrize("current", [0.3, 5.0, 60.0])
@pytest.mark.parametrize("contact", [0.0, 1e-3, 4e-3])
def test_the_electrons_share_is_wagner_s(current: float, contact: float) -> None:
    sigma, electronic, length = 0.073, 3e-6, 1e-3
    line = mixed_conduction(
        [length / sigma], [length / electronic], current, T, charge_transfer_resistance=contact
    )
    ionic = float(line.ionic_current_density)
    share = sampling.electron_share(ionic, ionic * contact, length, sigma, electronic, T)
    assert_allclose(share, float(line.electronic_current_density) / ionic, rtol=1e-8, atol=0)


# Sampling ----------------------------------------------------------------------------------------------------------


def llzo(constriction: Constriction, boundary: str = "llzo-sigma17", **changes: float) -> sampling.PelletCase:
    material = Material.from_records("llzo-bulk", {"general": boundary})
    return sampling.PelletCase("LLZO", material, {"general": 1.0}, 5e-6, 1e-3, constriction, **changes)


def median(case: sampling.PelletCase, **changes: float) -> dict[str, np.ndarray]:
    values = {
        "surface energy": 0.5,
        "boundary energy": 0.6,
        "contact angle": 2.0,
        "elastic energy": 1e7,
        "pore diameter": 3e-7,
        "barrier": 1.0 * ELEMENTARY_CHARGE,
        "interfacial resistance": 1e-3,
        "interfacial activation energy": 0.4 * ELEMENTARY_CHARGE,
        "contact fraction": 0.5,
        "grain conductivity": 0.0,
        "electronic conductivity": 0.0,
        "grain size": 1.0,
        **{p.name: p.nominal for p in case.parameters()},
        **{k.replace("_", " "): v for k, v in changes.items()},
    }
    return {k: np.array([v]) for k, v in values.items()}


def test_the_pore_s_critical_current_by_hand(random_grains: Constriction) -> None:
    """Threshold over R/c, as boundaries of 5 µm grains add next to nothing and electrons too at 5 mV."""
    case = llzo(random_grains)
    currents = case.critical_currents(median(case), T)
    threshold = float(threshold_overpotential(0.5, 1.5e-7, 1e7))
    ionic = threshold / (1e-3 / 0.5)
    assert_allclose(currents["stable", "wall"], ionic, rtol=5e-3, atol=0)
    assert currents["stable", "wall"] < currents["stable", "junction"] < currents["stable", "boundary"]
    assert currents["stable", "first"] == currents["stable", "wall"]
    for site in ("wall", "boundary", "junction"):
        assert currents["barrier", site] >= currents["stable", site]


def test_electrons_short_the_cell_where_they_carry_half(random_grains: Constriction) -> None:
    case = llzo(random_grains)
    values = median(case, barrier=1e-3 * ELEMENTARY_CHARGE)
    currents = case.critical_currents(values, T)
    assert np.isinf(currents["barrier", "wall"][0])
    assert currents["barrier", "first"] == currents["barrier", "electrons"]
    # eta = (kT/e) ln(sigma/sigma_e) at the plating face, twice the ions' current in a long pellet.
    rho, beta, _, sigma = case.boundary_numbers(values, T, 5e-6)
    eta = THERMAL * np.log(sigma / (1 + rho) / (3e-6 * (1 + beta)))
    assert_allclose(currents["barrier", "electrons"], 2 * eta / 2e-3, rtol=1e-6, atol=0)


def test_hotter_pellets_carry_more(random_grains: Constriction) -> None:
    case = llzo(random_grains)
    rising = [case.critical_currents(median(case), t)["stable", "first"][0] for t in (273.0, 298.15, 350.0)]
    assert rising[0] < rising[1] < rising[2]
    expected = math.exp(0.4 / 8.617333e-5 * (1 / 298.15 - 1 / 350.0))
    assert_allclose(rising[2] / rising[1], expected, rtol=0.02, atol=0)


def test_thin_boundaries_make_the_same_whatever_the_grain_size(random_grains: Constriction) -> None:
    """g is proportional to rho ~ 1/d: a boundary adds half to all of its own drop, however far the next one is."""
    case = llzo(random_grains)
    values = median(case, boundary_conductivity=math.log(1e-4))
    sizes = np.array([1e-5, 1e-3])
    few = [case.critical_currents(values, T, d)["stable", "boundary"][0] for d in sizes]
    assert_allclose(few[0], few[1], rtol=0.1, atol=0)
    rho, _, width, sigma = case.boundary_numbers(values, T, 1e-5)
    drop = float((0.5 * rho * 1e-5 / sigma)[0])
    ionic = case.ionic_critical_current({**values, "grain size": np.array([200.0])}, T, "boundary", "stable")
    needed = float(threshold_overpotential(0.5, 0.5 * width[0], 1e7))
    assert 1.0 < float((needed / ionic)[0] - 2e-3) / drop < 2.0


def test_positive_core_charge_opens_boundaries_to_electrons(random_grains: Constriction) -> None:
    """As much as the space charge of the resolved boundary says; lithium, with more vacancies, follows a little."""
    case = llzo(random_grains, "llzo-sigma33-ta", core_charge=5e17)
    assert {p.name for p in case.parameters()} >= {"core charge"}
    bare, charged = (case.boundary_numbers(median(case, core_charge=q), T, 5e-6) for q in (0.0, 5e17))
    grain, layer = case.material.grain(T), case.material.boundary(T, "general")
    line = solve_bicrystal(grain, layer, core_charge=5e17)
    inside = np.where(line.in_layer, layer.electronic_conductivity / grain.electronic_conductivity, 1.0)
    sheet = float((inside * np.exp(line.potential / THERMAL) - 1.0) @ line.mesh.volumes)
    assert_allclose(charged[1] * 5e-6, sheet, rtol=1e-3, atol=0)
    assert charged[1] > 1.01 * bare[1]
    assert 0.9 < charged[0] / bare[0] < 1.1


def test_sobol_indices_of_a_known_function() -> None:
    """Y = 3a + b with a, b uniform on the unit interval: first = total = 9/10 and 1/10."""
    parameters = [
        sampling.between(name, "", 0.0, 1.0, "test", log=False, assumed=True) for name in ("a", "b")
    ]
    found = sampling.sobol_indices(parameters, lambda v: 3 * v["a"] + v["b"] + 100.0, 256, 1)
    assert found.names == ("a", "b")
    assert_allclose(found.first, [0.9, 0.1], rtol=0.02, atol=0)
    assert_allclose(found.total, [0.9, 0.1], rtol=0.02, atol=0)
    with pytest.raises(InputError, match="power of 2"):
        sampling.sobol_indices(parameters, lambda v: v["a"], 100, 1)


@given(low=st.floats(1e-9, 1e9), factor=st.floats(1.0, 1e4), u=st.floats(0.0, 1.0), log=st.booleans())
def test_ranges_stay_inside_themselves(low: float, factor: float, u: float, log: bool) -> None:
    p = sampling.between("x", "", low, low * factor, "test", log=log, assumed=True)
    value = float(p.quantile(np.array(u)))
    assert low * (1 - 1e-12) <= value <= low * factor * (1 + 1e-12)
    assert_allclose(p.nominal, low * (math.sqrt(factor) if log else (1 + factor) / 2), rtol=1e-9, atol=0)


def test_bad_ranges_materials_and_barriers_are_named(random_grains: Constriction) -> None:
    with pytest.raises(InputError, match="low must not exceed high"):
        sampling.between("gap", "", 2.0, 1.0, "test", log=False, assumed=True)
    silent = sampling.PelletCase(
        "LLTO",
        Material.from_records("llto-bulk", {"general": "llto-boundary"}),
        {"general": 1.0},
        5e-6,
        1e-3,
        random_grains,
    )
    with pytest.raises(NoElectronsError, match="llto-bulk"):
        silent.critical_currents(median(silent), T)
    case = llzo(random_grains)
    with pytest.raises(BarrierError):
        case.critical_currents(median(case, barrier=-1e-19), T)
