"""Order of sites and boundary types under the assumptions: counts against known distributions, what the report says."""

from __future__ import annotations

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mesoion.nucleation_order import pair, verdict


def test_flips_of_two_normal_logarithms_are_those_of_their_difference() -> None:
    """ln i of standard deviation 1 each, a apart: the first is lower in Phi(a/sqrt 2) of the samples (exact)."""
    rng = np.random.default_rng(2)
    first, second = np.exp(rng.normal(0.0, 1.0, 40000)), np.exp(rng.normal(1.0, 1.0, 40000))
    found = pair(first, second)
    assert found is not None
    exact = 0.5 * (1 + math.erf(0.5))
    assert_allclose(found["first is lower in"], exact, rtol=0, atol=0.007)
    assert_allclose(found["order flips in"], 1 - exact, rtol=0, atol=0.007)


def test_a_common_factor_does_not_flip_an_order() -> None:
    common = np.exp(np.random.default_rng(4).normal(0, 3, 1000))
    found = pair(common, 1.02 * common)
    assert found == {"first is lower in": 1.0, "order flips in": 0.0, "within 5 % in": 1.0, "reached in": 1.0}


def test_sites_that_are_never_reached_have_no_order_and_one_reached_alone_comes_first() -> None:
    never = np.full(4, math.inf)
    assert pair(never, never) is None
    found = pair(np.array([1.0, 2.0, math.inf, math.inf]), never)
    assert found is not None
    assert (found["first is lower in"], found["reached in"]) == (1.0, 0.5)


def test_equal_values_are_no_order() -> None:
    found = pair(np.ones(5), np.ones(5))
    assert found is not None
    assert found["order flips in"] == 0.5


@pytest.mark.parametrize(
    ("flips", "word"), [(0.0, "holds"), (0.025, "holds"), (0.1, "likely, not certain"), (0.3, "no order")]
)
def test_verdicts(flips: float, word: str) -> None:
    assert verdict(flips) == word
