"""Nucleation: published checks, exact limits, geometry by independent quadrature, named errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from mesoion import nucleation as n
from mesoion.errors import InputError
from mesoion.units import BOLTZMANN, ELEMENTARY_CHARGE, FARADAY

EV = ELEMENTARY_CHARGE
ANGLES = st.floats(0.0, math.pi)
GAMMAS = st.floats(0.05, 3.0)
OVERPOTENTIALS = st.floats(1e-3, 2.0)


def test_the_design_document_s_numbers() -> None:
    """V_m 13.0 cm³/mol, gamma 0.5 J/m², f = 1: r* = 1.35 nm, dG* 24 eV at 0.1 V and 0.95 eV at 0.5 V."""
    assert_allclose(n.critical_radius(0.1, 0.5), 1.35e-9, rtol=3e-3, atol=0)
    assert_allclose(n.nucleation_barrier(0.1, 0.5) / EV, 24.0, rtol=0.02, atol=0)
    assert_allclose(n.nucleation_barrier(0.5, 0.5) / EV, 0.95, rtol=5e-3, atol=0)


@given(eta=OVERPOTENTIALS, gamma=GAMMAS, f=st.floats(1e-3, 1.0), w=st.floats(0, 5e8))
def test_the_barrier_is_half_the_driving_force_of_the_critical_volume(
    eta: float, gamma: float, f: float, w: float
) -> None:
    """Gibbs: dG* = V* g/2 with g = F eta/V_m - w, whatever the shape; and it is the maximum of dG(r)."""
    g = FARADAY * eta / n.LITHIUM_MOLAR_VOLUME - w
    if g <= 0:
        with pytest.raises(n.NoDrivingForceError):
            n.nucleation_barrier(eta, gamma, f, w)
        return
    r = n.critical_radius(eta, gamma, w)
    barrier = n.nucleation_barrier(eta, gamma, f, w)
    assert_allclose(barrier, 0.5 * f * 4 / 3 * math.pi * r**3 * g, rtol=1e-9, atol=0)
    sphere = [f * (4 * math.pi * x**2 * gamma - 4 / 3 * math.pi * x**3 * g) for x in (0.99 * r, r, 1.01 * r)]
    assert_allclose(sphere[1], barrier, rtol=1e-9, atol=0)
    assert sphere[1] > max(sphere[0], sphere[2])


@given(barrier=st.floats(1e-3, 100.0), gamma=GAMMAS, f=st.floats(1e-4, 1.0), w=st.floats(0, 5e8))
def test_barrier_and_overpotential_invert_each_other(
    barrier: float, gamma: float, f: float, w: float
) -> None:
    eta = n.overpotential_for_barrier(barrier * EV, gamma, f, w)
    # The elastic part is subtracted again: what is left keeps fewer digits.
    lost = float(eta / (eta - n.elastic_overpotential(w)))
    assert_allclose(n.nucleation_barrier(eta, gamma, f, w), barrier * EV, rtol=1e-12 * lost, atol=0)


def test_the_threshold_is_where_the_critical_nucleus_just_fits() -> None:
    width, gamma, w = 1.6e-9, 0.5, 5e7
    for site in ("wall", "boundary", "junction"):
        r = n.room(site, width)
        eta = n.threshold_overpotential(gamma, r, w)
        assert_allclose(n.critical_radius(eta, gamma, w), r, rtol=1e-12, atol=0)
    # 1.6 nm and 0.5 J/m² without strain: 4 gamma V_m/(F w).
    assert_allclose(n.threshold_overpotential(0.5, n.room("boundary", width)), 0.16842, rtol=1e-4, atol=0)
    assert n.threshold_overpotential(0.5, n.room("grain", width)) == 0.0


def test_the_sphere_at_a_junction_touches_the_corners_of_the_three_grains() -> None:
    """Three strips of width w at 120 degrees: the nearest corner of grain lies w/sqrt(3) from the middle."""
    w, corner = 1.0, np.array([0.5 / math.tan(math.pi / 3), 0.5])
    # Its distance from the second strip's axis, at 120 degrees, is also w/2.
    axis = np.array([math.cos(2 * math.pi / 3), math.sin(2 * math.pi / 3)])
    assert_allclose(abs(axis[0] * corner[1] - axis[1] * corner[0]), w / 2, rtol=1e-12, atol=0)
    assert_allclose(n.room("junction", w), np.hypot(*corner), rtol=1e-12, atol=0)


def cap_volume(k: float) -> float:
    """Volume of the unit sphere above the plane at height k, by quadrature."""
    z, weight = np.polynomial.legendre.leggauss(60)
    z = k + (1 - k) * (z + 1) / 2
    return float(math.pi * (1 - z**2) @ weight * (1 - k) / 2)


def junction_volume(k: float) -> float:
    """Volume of three unit spheres' parts, each inside its 120 degree sector of grain, by quadrature in the plane.

    A sphere's centre lies on the far side of the edge, at the distance k from both of its boundaries.
    """
    centre = np.array([-k / math.sin(math.pi / 3), 0.0])
    phi, w_phi = np.polynomial.legendre.leggauss(80)
    phi = phi * math.pi / 3
    total = 0.0
    for angle, weight in zip(phi, w_phi, strict=True):
        u = np.array([math.cos(angle), math.sin(angle)])
        along = u @ centre
        reach = along + math.sqrt(along**2 + 1 - centre @ centre)
        # rho = reach (1 - t²) takes the square root out of the end of the interval.
        t, w_t = np.polynomial.legendre.leggauss(80)
        t = 0.5 * (t + 1)
        rho = reach * (1 - t**2)
        height = 2 * np.sqrt(np.maximum(0, 1 - ((rho[:, None] * u - centre) ** 2).sum(axis=1)))
        total += weight * float((rho * height * 2 * reach * t) @ w_t) * 0.5
    return 3 * total * math.pi / 3


@pytest.mark.parametrize("degrees", [1.0, 30.0, 60.0, 90.0, 146.0, 180.0])
def test_cap_on_a_wall_has_its_volume(degrees: float) -> None:
    k = math.cos(math.radians(degrees))
    expected = cap_volume(k) / (4 * math.pi / 3)
    assert_allclose(n.shape_factor("wall", math.radians(degrees)), expected, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("degrees", [35.0, 45.0, 60.0, 75.0, 89.0, 90.0])
def test_lens_and_junction_nucleus_have_their_volumes(degrees: float) -> None:
    k = math.cos(math.radians(degrees))
    sphere = 4 * math.pi / 3
    lens = n.shape_factor("boundary", math.radians(degrees))
    assert_allclose(lens, 2 * cap_volume(k) / sphere, rtol=1e-9, atol=0)
    edge = n.shape_factor("junction", math.radians(degrees))
    assert_allclose(edge, junction_volume(k) / sphere, rtol=2e-5, atol=0)


def test_published_and_limiting_shape_factors() -> None:
    assert_allclose(n.shape_factor("wall", math.pi / 2), 0.5, rtol=1e-12, atol=0)
    assert_allclose(n.shape_factor("wall", math.pi), 1.0, rtol=1e-12, atol=0)
    assert n.shape_factor("junction", math.radians(29.9)) == 0.0
    # Boundary nuclei end as spheres where the boundary gives nothing.
    assert_allclose(n.shape_factor("boundary", [math.pi / 2, 2.5]), 1.0, rtol=1e-12, atol=0)
    assert_allclose(n.shape_factor("junction", [math.pi / 2, 2.5]), 1.0, rtol=1e-12, atol=0)
    assert_allclose(n.shape_factor("grain", 0.3), 1.0, rtol=0, atol=0)


@given(angle=ANGLES)
def test_junctions_are_easier_than_planes_and_planes_than_grains(angle: float) -> None:
    grain, plane, edge = (float(n.shape_factor(s, angle)) for s in ("grain", "boundary", "junction"))
    assert -1e-12 <= edge <= plane + 1e-9
    assert plane <= grain


@given(a=ANGLES, b=ANGLES)
def test_better_wetting_never_raises_the_factor(a: float, b: float) -> None:
    low, high = sorted((a, b))
    for site in n.SITES:
        assert n.shape_factor(site, low) <= n.shape_factor(site, high) + 1e-9


def test_the_required_overpotential_is_the_harder_of_both() -> None:
    angle, size = math.radians(95), 1.6e-9
    fits = n.threshold_overpotential(0.5, n.room("wall", size), 1e8)
    crosses = n.overpotential_for_barrier(1.0 * EV, 0.5, n.shape_factor("wall", angle), 1e8)
    required = n.required_overpotential("wall", size, 0.5, angle, 1.0 * EV, 1e8)
    assert crosses > fits
    assert_allclose(required, crosses, rtol=1e-12, atol=0)
    # A barrier that is assumed to be no obstacle leaves the thermodynamic criterion.
    easy = n.required_overpotential("wall", size, 0.5, angle, 1e3 * EV, 1e8)
    assert_allclose(easy, fits, rtol=1e-12, atol=0)


def test_elastic_overpotential_of_a_megapascal() -> None:
    assert_allclose(n.elastic_overpotential(1e6), 1.3473e-4, rtol=1e-4, atol=0)


def test_propensity_is_boltzmann_s_ratio_times_the_sites() -> None:
    temperature = 298.15
    kt = BOLTZMANN * temperature
    assert_allclose(n.log_propensity(3 * kt, 5 * kt, temperature, math.log(10)), 2 + math.log(10), rtol=1e-12)
    assert n.log_propensity(math.inf, 5 * kt, temperature) == -math.inf


@pytest.mark.parametrize(
    ("call", "error", "where"),
    [
        (lambda: n.shape_factor("wall", 3.2), n.ContactAngleError, "contact_angle"),
        (lambda: n.shape_factor("wall", -0.1), n.ContactAngleError, "contact_angle"),
        (lambda: n.shape_factor("wall", math.nan), n.ContactAngleError, "contact_angle"),
        (lambda: n.shape_factor("corner", 1.0), n.NucleationError, "site"),  # type: ignore[arg-type]
        (lambda: n.overpotential_for_barrier(-1.0, 0.5), n.BarrierError, "barrier"),
        (lambda: n.overpotential_for_barrier([1.0, 0.0], 0.5), n.BarrierError, "barrier"),
        (lambda: n.log_propensity(-1e-20, 1e-19, 300.0), n.BarrierError, "barrier"),
        (lambda: n.log_propensity(1e-20, math.inf, 300.0), n.BarrierError, "reference_barrier"),
        (lambda: n.nucleation_barrier(0.1, 0.5, -0.2), n.BarrierError, "shape"),
        (lambda: n.nucleation_barrier(-0.1, 0.5), n.NoDrivingForceError, "overpotential"),
        (lambda: n.critical_radius([0.2, 0.05], 0.5, 5e8), n.NoDrivingForceError, "0.0674 V"),
        (lambda: n.critical_radius(0.1, 0.0), n.NucleationError, "surface_energy"),
        (lambda: n.threshold_overpotential(0.5, -1e-9), n.NucleationError, "radius"),
        (lambda: n.room("boundary", 0.0), n.NucleationError, "size"),
        (lambda: n.elastic_overpotential(-1.0), n.NucleationError, "elastic_energy"),
    ],
)
def test_impossible_values_are_named(call, error, where) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=where) as caught:
        call()
    assert isinstance(caught.value, InputError)
