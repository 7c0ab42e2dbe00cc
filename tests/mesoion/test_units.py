"""Conversion at the edge: what is accepted, what is refused and how."""

import contextlib
import math
import subprocess
import sys
from typing import Annotated

import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from pydantic import BaseModel, Field, ValidationError

from mesoion import units
from mesoion.errors import InputError
from mesoion.units import parse_quantity


@pytest.mark.parametrize(
    ("text", "unit", "expected"),
    [
        ("1.6 nm", "m", 1.6e-9),
        ("1.6nm", "m", 1.6e-9),
        ("4 Å", "m", 4e-10),
        ("3.38 µm", "m", 3.38e-6),
        ("3.38 um", "m", 3.38e-6),
        ("2.1mm", "m", 2.1e-3),
        ("25 C", "K", 298.15),
        ("25 degC", "K", 298.15),
        ("25°C", "K", 298.15),
        ("-20 C", "K", 253.15),
        ("298.15 K", "K", 298.15),
        ("3.5e-4 S/cm", "S/m", 3.5e-2),
        ("0.73 mS/cm", "S/m", 0.073),
        ("10 Ω cm²", "ohm m^2", 1e-3),
        ("10 ohm*cm^2", "ohm m^2", 1e-3),
        ("5 uF/cm2", "F/m^2", 0.05),
        ("0.3 mA cm^-2", "A/m^2", 3.0),
        ("0.3 mA cm⁻²", "A/m^2", 3.0),
        ("2.4e22 cm^-3", "1/m^3", 2.4e28),
        ("1e14 1/cm2", "1/m^2", 1e18),
        ("96.48533212331 kJ/mol", "eV", 1.0),
        ("330 meV", "eV", 0.33),
        ("1e-9 cm**2/s", "m^2/s", 1e-13),
        ("1 MHz", "Hz", 1e6),
        ("12 %", "", 0.12),
        ("0.12", "", 0.12),
        ("2 h", "s", 7200.0),
        (3, "m", 3.0),
        (2.5e-9, "m", 2.5e-9),
        (300, "K", 300.0),
    ],
)
def test_accepted(text, unit, expected):
    assert_allclose(parse_quantity(text, unit), expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("value", "unit", "reason"),
    [
        ("1.6 nn", "m", "not a known unit"),
        ("1.6 S/cm", "m", "another dimension"),
        ("1.6", "m", "has no unit"),
        ("nm", "m", "not a number followed by a unit"),
        ("", "m", "not a number followed by a unit"),
        ("1e999 nm", "m", "not finite"),
        (math.nan, "m", "not finite"),
        (math.inf, "K", "not finite"),
        (10**400, "m", "too large"),
        (True, "m", "a bool is not a quantity"),
        (None, "m", "a NoneType is not a quantity"),
        ([1.0], "m", "a list is not a quantity"),
        ("-300 C", "K", "below absolute zero"),
        (-1.0, "K", "below absolute zero"),
        ("25 C", "V", "another dimension"),
        ("300 C0", "K", "not a known unit"),
        ("25 delta_degC", "K", "not a unit"),
        ("1 m**9**9**9**9", "m", "not a unit"),
        ("1 __import__", "m", "not a unit"),
        ("1 m m^", "m", "not a unit"),
        ("5 kJ/mol", "V", "another dimension"),
        ("1 degC/m", "m", "not a known unit|another dimension"),
    ],
)
def test_refused_with_path_value_and_remedy(value, unit, reason):
    with pytest.raises(InputError, match=reason) as caught:
        parse_quantity(value, unit, where="pellets[0].width")
    assert str(caught.value).startswith("pellets[0].width: ")
    assert "give a finite quantity such as" in str(caught.value)


@given(st.text(max_size=100), st.sampled_from(["m", "K", "S/m", "eV", ""]))
def test_any_text_is_a_finite_number_or_an_input_error(text, unit):
    with contextlib.suppress(InputError):
        assert math.isfinite(parse_quantity(text, unit))


@given(
    st.text(alphabet="0123456789.eE+-* /^%°CKmnµcSVΩohmdegJl()", max_size=24),
    st.sampled_from(["m", "K", "eV"]),
)
def test_near_misses_are_a_finite_number_or_an_input_error(text, unit):
    with contextlib.suppress(InputError):
        assert math.isfinite(parse_quantity(text, unit))


@given(st.floats(allow_nan=False, allow_infinity=False, width=64))
def test_plain_numbers_pass_unchanged(number):
    assert parse_quantity(number, "V") == number


def test_annotated_types_convert_then_check_bounds():
    class Layer(BaseModel):
        width: Annotated[units.Length, Field(gt=0)]
        temperature: units.Temperature = 300.0
        barrier: units.Energy_eV = 0.3

    layer = Layer.model_validate({"width": "1.6 nm", "temperature": "25 C", "barrier": "330 meV"})
    assert_allclose(
        [layer.width, layer.temperature, layer.barrier], [1.6e-9, 298.15, 0.33], rtol=1e-12, atol=0
    )
    with pytest.raises(ValidationError, match="greater than 0"):
        Layer.model_validate({"width": "-1 nm"})
    with pytest.raises(ValidationError, match="another dimension than m; give a finite quantity such as"):
        Layer.model_validate({"width": "1 V"})


def test_every_annotated_type_accepts_its_own_example():
    annotated = [v for v in vars(units).values() if hasattr(v, "__metadata__")]
    assert len(annotated) > 15
    for unit, example in units._EXAMPLES.items():
        for text in example.split(" or "):
            assert math.isfinite(parse_quantity(text.strip('"'), unit))


def test_constants():
    assert_allclose(units.BOLTZMANN_EV, 8.617333262e-5, rtol=1e-9, atol=0)
    assert_allclose(units.FARADAY, 96485.33212, rtol=1e-9, atol=0)


def test_pint_is_loaded_on_first_use_only():
    code = "import sys, mesoion.units; assert 'pint' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
