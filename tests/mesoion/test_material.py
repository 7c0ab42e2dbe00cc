"""Phases and materials: what they refuse, and that every number is the records'."""

import math

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mesoion.errors import InputError
from mesoion.material import Material, Phase, flat_band_energy
from mesoion.transport import Quantity, Source, load_record
from mesoion.units import BOLTZMANN, ELEMENTARY_CHARGE, VACUUM_PERMITTIVITY

SOURCE = Source(kind="assumption", text="made up for a test")


def phase(**changes):
    fields = {
        "name": "grain",
        "temperature": 300.0,
        "site_density": 2e28,
        "reference_occupancy": 0.25,
        "fixed_charge": -0.5e28,
        "relative_permittivity": 50.0,
        "conductivity_across": 0.1,
        "conductivity_along": 0.2,
        "standard_energy": 0.0,
    }
    return Phase(**(fields | changes))


@pytest.mark.parametrize(
    ("key", "value", "remedy"),
    [
        ("temperature", 0.0, "positive"),
        ("site_density", -1.0, "positive"),
        ("relative_permittivity", math.nan, "positive and finite"),
        ("conductivity_across", 0.0, "positive"),
        ("conductivity_along", math.inf, "finite"),
        ("conductivity_along", "fast", "positive and finite"),
        ("width", -1e-9, "positive"),
        ("width", 0.0, "positive"),
        ("standard_energy", math.inf, "finite"),
        ("fixed_charge", math.nan, "finite"),
        ("reference_occupancy", 0.0, "between 0 and 1"),
        ("reference_occupancy", 1.0, "between 0 and 1"),
        ("reference_occupancy", 1.2, "between 0 and 1"),
        ("mobility_law", "magic", "vacancy"),
        ("fixed_charge", -0.4e28, "site_density * reference_occupancy = -5e+27"),
    ],
)
def test_impossible_phases_are_refused(key, value, remedy):
    with pytest.raises(InputError) as caught:
        phase(**{key: value})
    assert str(caught.value).startswith(f"grain.{key}: {value!r}")
    assert remedy in str(caught.value)


def test_a_boundary_layer_may_be_charged():
    layer = phase(width=1e-9, fixed_charge=-0.4e28)
    assert_allclose(layer.core_charge, 0.1e28 * 1e-9, rtol=1e-12, atol=0)
    assert phase().core_charge == 0.0


def test_derived_properties():
    grain = phase()
    assert_allclose(grain.carrier_density, 0.5e28, rtol=1e-14, atol=0)
    thermal = BOLTZMANN * 300.0
    per_conductivity = thermal / (ELEMENTARY_CHARGE**2 * 0.5e28)
    assert_allclose(grain.charge_diffusivity_across, 0.1 * per_conductivity, rtol=1e-13, atol=0)
    assert_allclose(grain.charge_diffusivity_along, 0.2 * per_conductivity, rtol=1e-13, atol=0)
    square = VACUUM_PERMITTIVITY * 50 * thermal / (ELEMENTARY_CHARGE**2 * 2e28 * 0.25 * 0.75)
    assert_allclose(grain.debye_length, math.sqrt(square), rtol=1e-13, atol=0)


def test_debye_length_of_llzo_for_both_permittivities():
    # before the (1 - theta) factor: near 1 nm with 12085 and 0.05 nm with 50
    for permittivity, expected in ((12085.0, 0.85e-9), (50.0, 0.055e-9)):
        grain = Material.from_records("llzo-bulk", relative_permittivity=permittivity).grain(298.15)
        bare = grain.debye_length * math.sqrt(1 - grain.reference_occupancy)
        assert_allclose(bare, expected, rtol=0.03, atol=0)


MATERIALS = {
    "LSTZ0.75": ("lstz075-bulk", {"general": "lstz075-boundary"}),
    "LLTO": ("llto-bulk", {"general": "llto-boundary"}),
    "LLZO": (
        "llzo-bulk",
        {"Sigma17": "llzo-sigma17", "Sigma17 Ta": "llzo-sigma17-ta", "Sigma33": "llzo-sigma33"},
    ),
}


@pytest.fixture(params=sorted(MATERIALS))
def material(request):
    bulk, boundaries = MATERIALS[request.param]
    return Material.from_records(bulk, boundaries)


def test_phases_hold_the_records_numbers(material):
    grain = material.grain(350.0)
    assert grain.width is None
    assert_allclose(grain.conductivity_across, material.bulk.conductivity(350.0).value, rtol=1e-14, atol=0)
    assert_allclose(grain.fixed_charge, -material.bulk.carrier_density_per_m3.value, rtol=1e-12, atol=0)
    assert grain.relative_permittivity == material.bulk.relative_permittivity.value
    for name in material.boundary_names:
        layer, record = material.boundary(350.0, name), material.boundaries[name]
        assert layer.name == name
        assert layer.width == record.boundary_width_m.value
        assert_allclose(
            layer.conductivity_along, record.conductivity(350.0, "along").value, rtol=1e-14, atol=0
        )
        assert_allclose(layer.carrier_density, record.carrier_density_per_m3.value, rtol=1e-12, atol=0)
        assert layer.relative_permittivity == material.bulk.relative_permittivity.value
        assert abs(layer.core_charge) < 1e-9 * layer.carrier_density * layer.width


def test_boundary_without_segregation_energy_is_in_equilibrium_with_the_grain(material):
    for temperature in (300.0, 600.0):
        grain = material.grain(temperature)
        for name in material.boundary_names:
            layer = material.boundary(temperature, name)
            potentials = [
                p.standard_energy
                + BOLTZMANN * temperature * math.log(p.reference_occupancy / (1 - p.reference_occupancy))
                for p in (grain, layer)
            ]
            assert_allclose(potentials[1] - potentials[0], 0, rtol=0, atol=1e-12 * BOLTZMANN * temperature)


def test_stated_segregation_energy_and_core_charge_are_used():
    record = load_record("llto-boundary").model_copy(
        update={
            "segregation_energy_eV": Quantity(value=0.1, standard_uncertainty=0.02, source=SOURCE),
            "core_charge_e_per_m2": Quantity(value=3e17, standard_uncertainty=1e17, source=SOURCE),
        }
    )
    layer = Material.from_records("llto-bulk", {"general": record}).boundary(300.0, "general")
    assert_allclose(layer.standard_energy, 0.1 * ELEMENTARY_CHARGE, rtol=1e-14, atol=0)
    assert_allclose(layer.core_charge, 3e17, rtol=1e-9, atol=0)


def test_flat_band_energy_is_that_of_the_odds():
    energy = flat_band_energy(300.0, 0.5, 0.25)
    assert_allclose(energy, BOLTZMANN * 300.0 * math.log(3), rtol=1e-12, atol=0)


def test_draws_are_materials_within_the_uncertainties(material):
    rng = np.random.default_rng(11)
    draws = [material.sample(rng) for _ in range(2000)]
    assert draws[0].boundary_names == material.boundary_names
    predictions = {"grain": material.bulk.conductivity(400.0)}
    predictions |= {name: material.boundaries[name].conductivity(400.0) for name in material.boundary_names}
    for name, prediction in predictions.items():
        phases = [d.grain(400.0) if name == "grain" else d.boundary(400.0, name) for d in draws]
        logs = np.log([p.conductivity_across for p in phases])
        spread = prediction.log_standard_uncertainty
        assert_allclose(logs.std(), spread, rtol=0.08, atol=0)
        assert_allclose(logs.mean(), math.log(prediction.value), rtol=0, atol=0.1 * spread)
        assert all(0 < p.reference_occupancy < 1 for p in phases)


def test_same_seed_same_material(material):
    assert material.sample(np.random.default_rng(4)) == material.sample(np.random.default_rng(4))


def test_given_permittivity_replaces_the_records_and_stays_in_draws():
    material = Material.from_records("llzo-bulk", {"x": "llzo-sigma17"}, relative_permittivity=50.0)
    for one in (material, material.sample(np.random.default_rng(0))):
        assert one.grain(300.0).relative_permittivity == 50.0
        assert one.boundary(300.0, "x").relative_permittivity == 50.0


def test_wrong_records_and_names_are_refused():
    with pytest.raises(InputError, match=r"bulk: 'llzo-sigma17'.*give a bulk record"):
        Material.from_records("llzo-sigma17")
    with pytest.raises(InputError, match=r"boundaries\.x: 'llzo-bulk'.*give a boundary record"):
        Material.from_records("llzo-bulk", {"x": "llzo-bulk"})
    with pytest.raises(InputError, match="the boundaries of LLZO are: Sigma17"):
        Material.from_records("llzo-bulk", {"Sigma17": "llzo-sigma17"}).boundary(300.0, "Sigma5")


def test_what_a_reader_must_know():
    material = Material.from_records("llzo-bulk", {"Sigma17": "llzo-sigma17"})
    assert material.extrapolated(298.15) == ("llzo-sigma17",)
    assert material.extrapolated(800.0) == ()
    said = " / ".join(material.assumptions(298.15))
    for part in (
        "extrapolated to 298.15 K",
        "no segregation energy",
        "no core charge",
        "no relative permittivity",
    ):
        assert part in said
