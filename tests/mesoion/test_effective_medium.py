"""Limits, bounds and the nested-cube numbers for the closed effective-medium forms."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

from mesoion.effective_medium import (
    brick_layer,
    crossing_fraction,
    hart,
    maxwell_wagner,
    series_brick_layer,
    specific_from_apparent,
)
from mesoion.errors import InputError

FORMS = [series_brick_layer, brick_layer, maxwell_wagner, hart]
conductivities = st.floats(1e-8, 1e2)
fractions = st.floats(0.0, 0.3)


@pytest.mark.parametrize("form", FORMS)
@given(sigma=conductivities, f=fractions)
def test_a_boundary_like_the_grain_changes_nothing(form, sigma, f):
    assert_allclose(form(sigma, sigma, f), sigma, rtol=1e-12, atol=0)


@pytest.mark.parametrize("form", FORMS)
@given(bulk=conductivities, boundary=conductivities)
def test_no_boundary_gives_the_grain(form, bulk, boundary):
    assert_allclose(form(bulk, boundary, 0.0), bulk, rtol=1e-12, atol=0)


@given(bulk=conductivities, boundary=conductivities, f=fractions)
def test_every_form_lies_between_series_and_parallel(bulk, boundary, f):
    """Wiener bounds with the form's own boundary fraction."""
    phi = (1 - f) ** 3
    low = 1 / (phi / bulk + (1 - phi) / boundary)
    high = phi * bulk + (1 - phi) * boundary
    for form in (brick_layer, maxwell_wagner):
        assert low * (1 - 1e-9) <= form(bulk, boundary, f) <= high * (1 + 1e-9)


# Three-dimensional nested cubes, converged finite-volume values good to 0.2 % (docs/meshes.md).
@pytest.mark.parametrize(
    ("f", "ratio", "exact", "brick_error", "shell_error"),
    [
        (0.01, 1e-3, 0.09033, 0.03, 0.40),
        (0.01, 0.1, 0.90199, 0.02, 0.03),
        (0.05, 1e-2, 0.16133, 0.06, 0.35),
        (0.05, 10.0, 1.93294, 0.03, 0.03),
    ],
)
def test_nested_cubes_bracket_the_forms(f, ratio, exact, brick_error, shell_error):
    assert_allclose(brick_layer(1.0, ratio, f), exact, rtol=brick_error, atol=0)
    assert_allclose(maxwell_wagner(1.0, ratio, f), exact, rtol=shell_error, atol=0)
    # Isolated columns carry no current around a boundary, so the brick layer never lies above the cube.
    assert brick_layer(1.0, ratio, f) <= exact * 1.002


def test_complex_admittivity_is_accepted():
    bulk, boundary = np.array([1 + 1j, 1 + 10j]), np.array([1e-3 + 1j, 1e-3 + 10j])
    value = series_brick_layer(bulk, boundary, 0.01)
    assert_allclose(1 / value, 0.99 / bulk + 0.01 / boundary, rtol=1e-12, atol=0)


def test_apparent_specific_and_share():
    """The gap of LSTZ0.75 (doi 10.1038/s41467-023-37115-6): 1.4e-4 S/cm in 1 nm on 3.4 µm shows as 0.48 S/cm."""
    f = 1e-9 / 3.4e-6
    assert_allclose(specific_from_apparent(0.476, f), 1.4e-4, rtol=1e-3, atol=0)
    assert_allclose(crossing_fraction(1.0, 0.01, 0.01), 1 / 1.99, rtol=1e-12, atol=0)


@pytest.mark.parametrize("f", [-0.1, 1.0, float("nan")])
def test_impossible_fractions_are_refused(f):
    with pytest.raises(InputError, match="width/grain size"):
        hart(1.0, 1.0, f)
