"""Local functions against extended precision and closed forms."""

from __future__ import annotations

import mpmath
import numpy as np
import pytest

from mesoion import physics
from mesoion.errors import InputError
from mesoion.mesh import tensor_mesh


def test_bernoulli_and_derivative_against_extended_precision():
    magnitudes = np.r_[np.logspace(-300, np.log10(700.0), 600), np.linspace(0.2, 3.0, 100), 0.25, 700.0]
    x = np.r_[magnitudes, -magnitudes]
    value, slope = physics.bernoulli(x)
    for xi, b, db in zip(x, value, slope, strict=True):
        with mpmath.workdps(50 if abs(xi) > 1e-10 else 700):
            z = mpmath.mpf(float(xi))
            em1 = mpmath.expm1(z)
            assert abs(mpmath.mpf(float(b)) * em1 / z - 1) < 1e-14, xi
            exact = (em1 - z * mpmath.exp(z)) / em1**2
            assert abs(mpmath.mpf(float(db)) / exact - 1) < 1e-14, xi


def test_bernoulli_at_zero_and_beyond_double_range():
    value, slope = physics.bernoulli([0.0, 800.0, -800.0])
    np.testing.assert_allclose(value, [1.0, 0.0, 800.0], rtol=1e-14, atol=1e-300)
    np.testing.assert_allclose(slope, [-0.5, 0.0, -1.0], rtol=1e-14, atol=1e-300)


def test_sedan_flux_is_the_bernoulli_form_and_vanishes_in_equilibrium():
    rng = np.random.default_rng(1)
    theta_k, theta_l = rng.uniform(0.02, 0.98, (2, 200))
    eta_k, eta_l = rng.uniform(-4.0, 4.0, (2, 200))
    step = (eta_l - np.log(theta_l)) - (eta_k - np.log(theta_k))
    expected = physics.bernoulli(step)[0] * theta_k - physics.bernoulli(-step)[0] * theta_l
    got = physics.sedan_flux(eta_k, eta_l, np.log(theta_k), np.log(theta_l)).flux
    np.testing.assert_allclose(got, expected, rtol=1e-10, atol=1e-12)
    still = physics.sedan_flux(eta_k, eta_k, np.log(theta_k), np.log(theta_l)).flux
    assert np.all(still == 0.0)


@pytest.mark.parametrize("index", range(4))
def test_sedan_flux_derivatives(index: int):
    rng = np.random.default_rng(2)
    arguments = [*rng.uniform(-3.0, 3.0, (2, 100)), *np.log(rng.uniform(0.01, 0.99, (2, 100)))]
    edge = physics.sedan_flux(*arguments)
    analytic = [edge.slope, -edge.slope, edge.by_k, edge.by_l][index]
    h = 1e-5
    up, down = list(arguments), list(arguments)
    up[index], down[index] = up[index] + h, down[index] - h
    numeric = (physics.sedan_flux(*up).flux - physics.sedan_flux(*down).flux) / (2.0 * h)
    np.testing.assert_allclose(analytic, numeric, rtol=1e-7, atol=1e-9)


def test_occupancy_keeps_relative_precision_at_both_ends():
    y = np.array([-600.0, -40.0, 0.0, 40.0, 600.0])
    theta, empty, ln = physics.lattice_occupancy(y)
    for yi, t, e, logarithm in zip(y, theta, empty, ln, strict=True):
        with mpmath.workdps(400):
            exact = 1 / (1 + mpmath.exp(-mpmath.mpf(yi)))
            assert abs(mpmath.mpf(float(t)) / exact - 1) < 1e-14
            assert abs(mpmath.mpf(float(e)) * (1 + mpmath.exp(mpmath.mpf(yi))) - 1) < 1e-14
            assert abs(mpmath.mpf(float(logarithm)) / mpmath.log(exact) - 1) < 1e-14


def test_transmissibility_of_a_layer_is_projected_on_the_face():
    normal = np.array([[0.6, 0.8], [0.0, 0.0]])
    face = np.array([[1.0, 0.0], [1.0, 0.0]])
    along, across = np.array([5.0, 5.0]), np.array([2.0, 2.0])
    got = physics.projected(along, across, normal, face)
    tensor = 5.0 * (np.eye(2) - np.outer(normal[0], normal[0])) + 2.0 * np.outer(normal[0], normal[0])
    np.testing.assert_allclose(got, [face[0] @ tensor @ face[0], 2.0], rtol=1e-14)
    series = physics.face_transmissibility(np.array([3.0]), np.array([[1.0, 2.0]]), got[:1], np.array([4.0]))
    np.testing.assert_allclose(series, 3.0 / (1.0 / got[0] + 2.0 / 4.0), rtol=1e-14)


def test_butler_volmer_has_the_linear_law_as_its_limit():
    u = np.array([1e-6, 3.0])
    current, slope = physics.charge_transfer(u, "butler-volmer")
    np.testing.assert_allclose(current, [1e-6, 2.0 * np.sinh(1.5)], rtol=1e-12)
    np.testing.assert_allclose(slope, [1.0, np.cosh(1.5)], rtol=1e-12)


@pytest.mark.parametrize(
    "wrong",
    [
        {"kind": "metal"},
        {"compact_capacitance": 0.0},
        {"charge_transfer_resistance": -1.0},
        {"kinetics": "tafel"},
    ],
)
def test_impossible_electrodes_are_refused(wrong: dict):
    with pytest.raises(InputError, match=f"electrode.{next(iter(wrong))}"):
        physics.Electrode(**wrong)


def test_impossible_fields_are_refused():
    mesh = tensor_mesh([np.linspace(0.0, 1e-8, 5)])
    n = np.ones(mesh.n_cells)
    good = {
        "site_density": 1e28 * n,
        "reference_occupancy": 0.5 * n,
        "fixed_charge": -0.5e28 * n,
        "relative_permittivity": 50.0 * n,
        "conductivity_across": 1e-2 * n,
        "conductivity_along": 1e-2 * n,
        "standard_energy": 0.0 * n,
        "vacancy": n.astype(bool),
        "reservoir_potential": 0.0,
    }
    physics.CellFields(**good)
    for key, value in (("reference_occupancy", 1.0 * n), ("site_density", -n), ("fixed_charge", np.nan * n)):
        with pytest.raises(InputError, match=key):
            physics.CellFields(**{**good, key: value})
    with pytest.raises(InputError, match="relative_permittivity"):
        physics.CellFields(**{**good, "relative_permittivity": n[:-1]})
