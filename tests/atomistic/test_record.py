"""Records of our own runs: what goes in comes out in SI, the same each time, and `mesoion` reads it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from atomistic.arrhenius_fit import ArrheniusFit, Estimate, fit_arrhenius
from atomistic.averages import BlockAverage
from atomistic.boundaries import BoundaryEnergy
from atomistic.boundary_analysis import RegionComposition, SegregationEnergy
from atomistic.boundary_planes import BoundaryPlanes
from atomistic.boundary_width import spacings_width
from atomistic.coincidence import BoundarySpec
from atomistic.diffusivity import Diffusivity, TransportResult, diffusivity
from atomistic.displacements import MeanSquareDisplacement
from atomistic.errors import FileFormatError, InputError, TrajectoryError
from atomistic.record import (
    RegionDensities,
    arrhenius_of_runs,
    boundary_character,
    build_record,
    haven_ratio,
    positive_quantity,
    region_densities,
    save,
    settings_sha256,
)
from atomistic.trajectory import Trajectory
from mesoion.material import Material
from mesoion.transport import (
    PositiveQuantity,
    Source,
    TransportRecord,
    dump_record,
    load_record,
    nernst_einstein,
)

KELVIN = (600.0, 700.0, 800.0, 1000.0)
ASSUMED = Source(kind="assumption", text="lattice part of the permittivity")
PERMITTIVITY = PositiveQuantity(value=50.0, uncertainty_factor=1.5, source=ASSUMED)
DENSITIES = RegionDensities(2.0e28, 1.0e26, 4.0e28, 2.0e26, 1e-26)
SETTINGS = {"temperatures": [600, 700], "seed": 3, "time_step_fs": 1.0}


def measured(kelvin: float, log_d0: float, energy: float, log_variance: float = 0.01) -> Diffusivity:
    value = math.exp(log_d0 - energy / (8.617333262e-5 * kelvin))
    return Diffusivity(value, 0.8 * value, 1.25 * value, log_variance, 40.0, 1.0, 0.1, 3)


def law(log_d0: float, energy: float) -> ArrheniusFit:
    return fit_arrhenius(KELVIN, [measured(t, log_d0, energy) for t in KELVIN])


@pytest.fixture
def potential(tmp_path: Path) -> Path:
    path = tmp_path / "potential.mtp"
    path.write_bytes(b"MTP\nversion = 1.1.0\n")
    return path


def bulk_record(potential: Path, **changes: Any) -> TransportRecord:
    given: dict[str, Any] = {
        "name": "toy-bulk",
        "material": "toy",
        "formula": "Li2O",
        "along": law(math.log(1e-7), 0.25),
        "haven": Estimate(0.5, 0.4, 0.625),
        "densities": DENSITIES,
        "potential": potential,
        "method": "MD at 600 to 1000 K with a moment tensor potential taught by CHGNet",
        "settings": SETTINGS,
        "relative_permittivity": PERMITTIVITY,
    }
    return build_record(**(given | changes))


def boundary_record(potential: Path, **changes: Any) -> TransportRecord:
    composition = RegionComposition(
        ("Li", "O"),
        BlockAverage(np.array([60.0, 40.0]), np.array([0.5, 0.5]), np.ones(2, np.int64), np.ones(2, bool)),
        BlockAverage(np.array([66.0, 34.0]), np.array([0.1, 0.1]), np.ones(2, np.int64), np.ones(2, bool)),
        np.zeros((1, 2, 2)),
        1,
    )
    given: dict[str, Any] = {
        "name": "toy-sigma5",
        "boundary": BoundarySpec((1, 0, 0), 5, (0, -1, 2)),
        "across": law(math.log(2e-7), 0.40),
        "width": spacings_width(2.2),
        "composition": composition,
        "boundary_energy": BoundaryEnergy(0.7, 0.05, 400.0, 900),
        "segregation": SegregationEnergy(-0.05, 0.01, 0.6, 0.4, 0.3, math.nan, True),
        "relative_permittivity": None,
    }
    return bulk_record(potential, **(given | changes))


def test_a_material_of_our_records_conducts_as_nernst_and_einstein_say(
    potential: Path, tmp_path: Path
) -> None:
    bulk, boundary = bulk_record(potential), boundary_record(potential)
    paths = [save(record, tmp_path) for record in (bulk, boundary)]
    material = Material.from_records(paths[0], {"sigma5": paths[1]})
    kelvin = 700.0
    grain, layer = material.grain(kelvin), material.boundary(kelvin, "sigma5")
    along = 1e-7 * math.exp(-0.25 / (8.617333262e-5 * kelvin))
    across = 2e-7 * math.exp(-0.40 / (8.617333262e-5 * kelvin))
    for got, d in (
        (grain.conductivity_across, along),
        (layer.conductivity_along, along),
        (layer.conductivity_across, across),
    ):
        np.testing.assert_allclose(got, nernst_einstein(d, 2.0e28, kelvin, 0.5), rtol=1e-6, atol=0)
    np.testing.assert_allclose(layer.width, 4 * 2.2e-10, rtol=1e-12, atol=0)
    np.testing.assert_allclose(layer.standard_energy, -0.05 * 1.602176634e-19, rtol=1e-12, atol=0)
    np.testing.assert_allclose(grain.reference_occupancy, 0.5, rtol=1e-12, atol=0)
    assert load_record(paths[1]) == boundary


def test_the_record_keeps_every_number_with_its_uncertainty_and_source(potential: Path) -> None:
    record = boundary_record(potential)
    assert (record.origin, record.region) == ("own", "boundary")
    assert record.source.kind == "computed"
    assert record.boundary is not None
    assert (record.boundary.kind, record.boundary.sigma, record.boundary.plane) == ("tilt", 5, (0, -1, 2))
    assert record.composition_atomic_percent is not None
    assert record.composition_atomic_percent["Li"].value == 60.0
    assert record.composition_atomic_percent["Li"].standard_uncertainty == 0.5
    assert record.boundary_energy_J_per_m2 is not None
    assert (record.boundary_energy_J_per_m2.value, record.boundary_energy_J_per_m2.standard_uncertainty) == (
        0.7,
        0.05,
    )
    np.testing.assert_allclose(
        record.haven_ratio.log_standard_uncertainty, math.log(1.25) / 1.96, rtol=1e-3, atol=0
    )
    assert (record.temperature_range_K.low, record.temperature_range_K.high) == (600.0, 1000.0)
    assert any("4 interplanar spacings" in note for note in record.notes)
    assert any(settings_sha256(SETTINGS) in note for note in record.notes)


def test_the_laws_uncertainty_and_correlation_arrive(potential: Path) -> None:
    fit = law(math.log(1e-7), 0.25)
    record = bulk_record(potential)
    for kelvin in (300.0, 800.0):
        row = np.array([1.0, -1 / (8.617333262e-5 * kelvin)])
        exact = math.sqrt(row @ fit.covariance @ row)
        got = float(record.law().log_standard_uncertainty(kelvin))
        np.testing.assert_allclose(got, exact, rtol=1e-6, atol=0)
    assert record.conductivity(300.0).extrapolated


def test_the_same_inputs_give_the_same_bytes(potential: Path, tmp_path: Path) -> None:
    one, two = (save(boundary_record(potential), tmp_path / f"{k}.json").read_bytes() for k in "ab")
    assert one == two
    turned = dict(reversed(SETTINGS.items()))
    assert dump_record(boundary_record(potential, settings=turned)).encode() == one
    assert dump_record(boundary_record(potential, settings=SETTINGS | {"seed": 4})).encode() != one
    potential.write_bytes(b"another")
    assert dump_record(boundary_record(potential)).encode() != one


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"relative_permittivity": None}, "needs relative_permittivity"),
        ({"name": "a b"}, "name"),
        ({"densities": RegionDensities(5e28, 1e26, 4e28, 1e26, 1e-26)}, "must be smaller than site_density"),
        ({"haven": Estimate(0.5, 0.0, 1.0)}, "haven"),
        ({"settings": {"a": object()}}, "settings"),
        ({"settings": {"a": math.nan}}, "settings"),
        ({"width": spacings_width(2.2)}, "width"),
    ],
)
def test_what_a_record_cannot_hold_is_refused_by_name(
    potential: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        bulk_record(potential, **changes)


def test_boundaries_need_a_width_and_known_uncertainties(potential: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="boundary_width_m"):
        boundary_record(potential, width=None)
    with pytest.raises(InputError, match="standard_uncertainty"):
        boundary_record(potential, boundary_energy=BoundaryEnergy(0.7, math.nan, 400.0, 900))
    with pytest.raises(FileFormatError, match="cannot be read"):
        boundary_record(tmp_path / "none.mtp")
    with pytest.raises(FileFormatError, match="cannot be written"):
        save(boundary_record(potential), tmp_path / "no" / "a.json")
    drifting = SegregationEnergy(-0.05, 0.01, 0.6, 0.4, 5.0, math.nan, False)
    assert any("not converged" in note for note in boundary_record(potential, segregation=drifting).notes)


def test_a_wide_uncertainty_becomes_a_factor() -> None:
    assert positive_quantity(2.0, 0.1, ASSUMED).standard_uncertainty == 0.1
    wide = positive_quantity(2.0, 1.0, ASSUMED)
    np.testing.assert_allclose(wide.log_standard_uncertainty, 0.5, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        (BoundarySpec((1, 0, 0), 5, (1, 0, 0)), "twist"),
        (BoundarySpec((1, 1, 0), 51, (0, 0, 1), (3, -3, 10)), "tilt"),
        (BoundarySpec((1, 1, 1), 3, (1, 0, 0)), "mixed"),
    ],
)
def test_the_boundarys_character(spec: BoundarySpec, kind: str) -> None:
    character = boundary_character(spec)
    assert (character.kind, character.second_plane, character.label) == (kind, spec.plane_2, spec.name)


def layered(frames: int = 400) -> Trajectory:
    """40 Zr at rest, 20 in the layers of ±2 Å about 10 and 30 Å; Li in these layers with probability 0.3, else bulk."""
    rng = np.random.default_rng(0)
    cell = np.diag([10.0, 10.0, 40.0])
    zr = np.column_stack(
        [
            rng.random((40, 2)) * 10,
            np.concatenate([np.linspace(9, 11, 10), np.linspace(29, 31, 10), np.linspace(14, 26, 20)]),
        ]
    )
    inside = rng.random((frames, 50)) < 0.3
    layer = np.where(rng.random((frames, 50)) < 0.5, 10.0, 30.0) + 4 * (rng.random((frames, 50)) - 0.5)
    bulk = 15 + 10 * rng.random((frames, 50))
    li = np.stack([*(rng.random((2, frames, 50)) * 10), np.where(inside, layer, bulk)], axis=2)
    x = np.concatenate([np.tile(zr, (frames, 1, 1)), li], axis=1)
    return Trajectory(("Zr",) * 40 + ("Li",) * 50, np.arange(float(frames)), np.tile(cell, (frames, 1, 1)), x)


def test_region_densities_of_known_layers() -> None:
    run, planes = layered(), BoundaryPlanes(2, (0.25, 0.75), 40.0)
    volume = 2 * 4.0 * 100 * 1e-30
    found = region_densities(run, sites={"Zr": 2.0}, planes=planes, width=4.0)
    np.testing.assert_allclose(found.volume, volume, rtol=1e-9, atol=0)
    assert abs(found.carrier_density - 15 / volume) < 3.5 * found.carrier_density_uncertainty
    exact = math.sqrt(50 * 0.3 * 0.7 / 400) / volume
    np.testing.assert_allclose(found.carrier_density_uncertainty, exact, rtol=0.3, atol=0)
    np.testing.assert_allclose(found.site_density, 40 / volume, rtol=1e-9, atol=0)
    far = region_densities(run, sites={"Zr": 3.0}, planes=planes, bulk_beyond=3.0)
    np.testing.assert_allclose(far.volume, 2800e-30, rtol=1e-9, atol=0)
    np.testing.assert_allclose(far.site_density, 60 / far.volume, rtol=1e-9, atol=0)
    whole = region_densities(run, sites={"Zr": 2.0})
    np.testing.assert_allclose(whole.carrier_density, 50 / 4000e-30, rtol=1e-9, atol=0)
    with pytest.raises(TrajectoryError, match="do not hold the carriers"):
        region_densities(run, sites={"Zr": 1.0})
    with pytest.raises(InputError, match="either width"):
        region_densities(run, sites={"Zr": 2.0}, planes=planes)


def ratio(value: float, spread: float) -> TransportResult:
    nothing = measured(600.0, 0.0, 0.2)
    msd = MeanSquareDisplacement(np.zeros(1), np.zeros((1, 3)), np.zeros((1, 3)), 1, 8, 1.0)
    low, high = value * math.exp(-1.96 * spread), value * math.exp(1.96 * spread)
    return TransportResult(nothing, (nothing,) * 3, nothing, value, low, high, msd, ())


def test_one_haven_ratio_of_several_runs() -> None:
    rng = np.random.default_rng(1)
    inside = 0
    for _ in range(200):
        found = haven_ratio([ratio(0.4 * math.exp(0.2 * rng.normal()), 0.2) for _ in range(8)])
        inside += found.low <= 0.4 <= found.high
    assert 180 <= inside <= 200
    steady = haven_ratio([ratio(0.4, 0.2)] * 4)
    np.testing.assert_allclose(math.log(steady.high / steady.low) / 3.92, 0.1, rtol=1e-3, atol=0)
    torn = haven_ratio([ratio(0.2, 0.05), ratio(0.8, 0.05)])
    assert torn.high / torn.low > 4
    with pytest.raises(TrajectoryError, match="no run gives a Haven ratio"):
        haven_ratio([replace(ratio(0.4, 0.2), haven_ratio=math.nan)])


def test_from_random_walks_to_a_record(potential: Path) -> None:
    """Brownian ions of a known Arrhenius law, five runs: analysed, recorded and read back."""
    rng = np.random.default_rng(6)
    log_d0, energy = math.log(4e-8), 0.2
    runs: dict[float, list[Diffusivity]] = {}
    havens = []
    for kelvin in (700.0, 900.0, 1200.0):
        d = math.exp(log_d0 - energy / (8.617333262e-5 * kelvin)) * 1e20 / 1e12
        results = []
        for _ in range(2):
            steps = rng.normal(scale=math.sqrt(2 * d * 0.5), size=(2000, 20, 3))
            results.append(diffusivity(np.cumsum(steps, axis=0), 0.5))
        runs[kelvin] = [r.tracer for r in results]
        havens += results
    fit = arrhenius_of_runs(runs)
    record = bulk_record(potential, along=fit, haven=haven_ratio(havens))
    for kelvin in (700.0, 1200.0):
        exact = math.exp(log_d0 - energy / (8.617333262e-5 * kelvin))
        got = record.diffusivity(kelvin)
        assert got.low < exact < got.high
        assert got.high / got.low < 1.5
    assert abs(record.law().activation_energy_eV.value - energy) < 0.02
    assert abs(math.log(record.haven_ratio.value)) < 3 * record.haven_ratio.log_standard_uncertainty
