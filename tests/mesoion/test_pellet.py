"""Pellets: exact limits of the scale-up, intervals, electrodes, and the arcs read off the simulated spectrum."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from numpy.testing import assert_allclose

from mesoion.errors import InputError
from mesoion.material import Material
from mesoion.pellet import Leads, Pellet, RepresentativeVolume, electrode_impedance
from mesoion.pellet_study import LEAST_RATIO
from mesoion.physics import Electrode
from mesoion.reading import read_spectrum
from mesoion.reduced import BoundaryRange
from mesoion.units import VACUUM_PERMITTIVITY

ROOM = 298.15
SIZE = 3e-6


@pytest.fixture(scope="module")
def volume() -> RepresentativeVolume:
    span = BoundaryRange(ratio=(5e-4, 1.0), width=(1e-5, 1e-2))
    return RepresentativeVolume.build(n_grains=12, boundary_range=span, realisations=2, seed=4)


@pytest.fixture(scope="module")
def llto() -> Material:
    return Material.from_records("llto-bulk", {"general": "llto-boundary"})


def pellet(material: Material, volume: RepresentativeVolume, **changes: object) -> Pellet:
    made = Pellet(material, volume, SIZE, 1e-3, 1e-4, Electrode("blocking", 0.1))
    return replace(made, **changes)


def test_boundaries_like_the_grain_leave_the_bulk(volume: RepresentativeVolume) -> None:
    nothing = {"general": 0.0}
    full = replace(volume, reduced=(None, None))
    assert_allclose(full.effective(0.02, nothing, nothing, SIZE), 0.02, rtol=1e-9, atol=0)
    assert_allclose(volume.effective(0.02, nothing, nothing, SIZE), 0.02, rtol=1e-5, atol=0)


def test_grain_size_and_boundary_scale_together(volume: RepresentativeVolume) -> None:
    """Only r σ/d and s/(σ d) matter."""
    one = volume.effective(0.02, {"general": 3e-5}, {"general": -2e-11}, SIZE)
    ten = volume.effective(0.02, {"general": 3e-4}, {"general": -2e-10}, 10 * SIZE)
    assert_allclose(one, ten, rtol=1e-9, atol=0)


def test_resistive_boundaries_follow_the_mean_linear_intercept(volume: RepresentativeVolume) -> None:
    """Thin resistive boundaries: 1/σ − 1/σ_b = r k/l with l the mean linear intercept; k near 1 bounds the detour."""
    resistance = 1e-3
    for j, polycrystal in enumerate(volume.collapsed):
        intercept = polycrystal.microstructure.mean_linear_intercept * SIZE
        total = volume.effective(1.0, {"general": resistance}, {"general": 0.0}, SIZE, j)[0].real
        k = (1 / total - 1) * intercept / resistance
        assert 0.75 < k < 1.0


def test_reduced_and_full_volumes_agree_for_complex_admittivities(volume: RepresentativeVolume) -> None:
    full = replace(volume, reduced=(None, None))
    grain = 0.1 * (1 + 1j * np.logspace(-4, 2, 7))
    layer = 0.1 * (1e-3 + 1j * np.logspace(-4, 2, 7))
    across = {"general": 1e-9 * (1 / layer - 1 / grain)}
    along = {"general": 1e-9 * (layer - grain)}
    before = volume.full_solves
    fast = volume.effective(grain, across, along, SIZE)
    assert volume.full_solves == before
    assert_allclose(fast, full.effective(grain, across, along, SIZE), rtol=1e-3, atol=0)


def test_layers_far_more_resistive_than_the_reduced_range_need_no_full_solve() -> None:
    """Where all resistance is in the boundaries σ_eff falls as 1/r, far below the end of the range at 1e-7 too."""
    span = BoundaryRange(ratio=(LEAST_RATIO, 1.0), width=(1e-5, 1e-2))
    wide = RepresentativeVolume.build(n_grains=12, boundary_range=span, realisations=1, seed=4)
    before = wide.full_solves
    resistance = 1e-9 / np.logspace(-9, -15, 7)
    found = wide.effective(1.0, {"general": resistance}, {"general": np.full(7, -1e-9)}, SIZE).real
    assert wide.full_solves == before
    # At 1e-9 the grains still add 1 / (r/d) of 3e-6.
    assert_allclose(found * resistance, found[-1] * resistance[-1], rtol=1e-5, atol=0)


def test_several_boundary_types_are_solved_in_full_and_mix_between_their_pure_cases() -> None:
    types = {"open": 0.7, "blocking": 0.3}
    mixed = RepresentativeVolume.build(n_grains=10, boundary_fractions=types, realisations=1)
    sheet = {"open": 0.0, "blocking": 0.0}
    good = mixed.effective(1.0, {"open": 1e-8, "blocking": 1e-8}, sheet, SIZE)[0].real
    both = mixed.effective(1.0, {"open": 1e-8, "blocking": 1e-4}, sheet, SIZE)[0].real
    bad = mixed.effective(1.0, {"open": 1e-4, "blocking": 1e-4}, sheet, SIZE)[0].real
    assert bad < both < good < 1.0


def test_conductivities_close_and_their_intervals_hold_the_prediction(
    volume: RepresentativeVolume, llto: Material
) -> None:
    (c,) = pellet(llto, volume).conductivities([ROOM], samples=40, seed=1)
    assert_allclose(1 / c.apparent_gb.value, 1 / c.total.value - 1 / c.bulk.value, rtol=1e-9, atol=0)
    assert_allclose(c.bulk.value, llto.grain(ROOM).conductivity_across, rtol=1e-12, atol=0)
    for interval in (c.bulk, c.total, c.apparent_gb, c.specific_gb["general"], c.brick_layer_total):
        assert interval.low < interval.value < interval.high
    # The layer's conductivity is known within a factor of 3 (one standard deviation), the bulk's within 15 %.
    assert c.apparent_gb.high / c.apparent_gb.low > 10 * c.bulk.high / c.bulk.low
    again = pellet(llto, volume).conductivities([ROOM], samples=40, seed=1)
    assert again == [c]


def test_an_uncertain_grain_size_widens_the_boundary_but_not_the_bulk(
    volume: RepresentativeVolume, llto: Material
) -> None:
    known = pellet(llto, volume).conductivities([ROOM], samples=60, seed=2)[0]
    unsure = pellet(llto, volume, grain_size_factor=5.0).conductivities([ROOM], samples=60, seed=2)[0]

    def width(c: object) -> float:
        return float(np.log(c.high / c.low))  # type: ignore[attr-defined]

    assert width(unsure.apparent_gb) > 1.2 * width(known.apparent_gb)
    assert_allclose(unsure.bulk.value, known.bulk.value, rtol=1e-12, atol=0)


def test_spectrum_has_the_direct_current_and_the_geometric_limits(
    volume: RepresentativeVolume, llto: Material
) -> None:
    between = pellet(llto, volume, electrode=Electrode("reversible"))
    total = between.conductivities([ROOM], samples=20)[0].total.value
    low, high = between.impedance(ROOM, np.array([1e-3, 1e15]))
    assert_allclose(low.real, 1e-3 / (1e-4 * total), rtol=2e-3, atol=0)
    capacitance = VACUUM_PERMITTIVITY * llto.grain(ROOM).relative_permittivity * 1e-4 / 1e-3
    assert_allclose(-1 / (2 * np.pi * 1e15 * high.imag), capacitance, rtol=1e-3, atol=0)


def test_blocking_electrodes_complete_the_exact_cell(llto: Material) -> None:
    """Grain between blocking electrodes: Z A = (L/σ)/(1+iωτ) + 2λ/(iωε s³) for L >> λ."""
    grain = llto.grain(ROOM)
    f = np.logspace(-2, 11, 27)
    w = 2j * np.pi * f
    eps = VACUUM_PERMITTIVITY * grain.relative_permittivity
    tau = eps / grain.conductivity_across
    s = np.sqrt(1 + w * tau)
    length = 1e-3
    exact = (length / grain.conductivity_across) / (1 + w * tau) + 2 * grain.debye_length / (w * eps * s**3)
    bulk = length / (grain.conductivity_across + w * eps)
    assert_allclose(
        bulk + 2 * electrode_impedance(Electrode("blocking"), grain, f), exact, rtol=1e-12, atol=0
    )
    with_layer = electrode_impedance(Electrode("blocking", 0.1), grain, f)
    assert_allclose(
        with_layer - electrode_impedance(Electrode("blocking"), grain, f), 1 / (w * 0.1), rtol=1e-9, atol=0
    )


def test_charge_transfer_and_leads(llto: Material) -> None:
    f = np.array([1e-6, 1e3, 1e9])
    z = electrode_impedance(Electrode("reversible", 1.0, 0.01), llto.grain(ROOM), f)
    assert_allclose(z, 0.01 / (1 + 2j * np.pi * f * 0.01), rtol=1e-12, atol=0)
    assert_allclose(Leads(2.0, 1e-7).impedance(f), 2.0 + 2j * np.pi * f * 1e-7, rtol=1e-12, atol=0)


def test_an_experimenter_reads_the_models_conductivities_off_the_spectrum(
    volume: RepresentativeVolume, llto: Material
) -> None:
    measured = pellet(llto, volume, leads=Leads(0.5, 2e-7))
    f = np.geomspace(0.1, 1e9, 81)
    reading = read_spectrum(
        f,
        measured.impedance(ROOM, f),
        thickness=measured.thickness,
        area=measured.area,
        lead_resistance=0.5,
        lead_inductance=2e-7,
    )
    exact = measured.conductivities([ROOM], samples=20)[0]
    assert_allclose(reading.bulk_conductivity, exact.bulk.value, rtol=0.01, atol=0)
    assert_allclose(reading.total_conductivity, exact.total.value, rtol=0.01, atol=0)
    assert_allclose(reading.apparent_gb_conductivity, exact.apparent_gb.value, rtol=0.03, atol=0)


@pytest.mark.parametrize(
    ("changes", "where"),
    [
        ({"mean_grain_size": 2e-9}, "width"),
        ({"mean_grain_size": -1.0}, "mean_grain_size"),
        ({"thickness": 0.0}, "thickness"),
        ({"area": float("nan")}, "area"),
        ({"grain_size_factor": 0.5}, "grain_size_factor"),
    ],
)
def test_impossible_pellets_are_refused(
    volume: RepresentativeVolume, llto: Material, changes: dict[str, float], where: str
) -> None:
    with pytest.raises(InputError, match=where):
        pellet(llto, volume, **changes)


def test_unknown_boundary_types_are_refused(volume: RepresentativeVolume) -> None:
    material = Material.from_records("llto-bulk", {"film": "llto-boundary"})
    with pytest.raises(InputError, match="general"):
        pellet(material, volume)


def test_the_core_charge_for_a_resistance_is_found_and_is_the_least(volume: RepresentativeVolume) -> None:
    material = Material.from_records("lstz075-bulk", {"general": "lstz075-boundary"})
    made = pellet(material, volume)
    plain = made.boundaries(ROOM)["general"].excess_resistance
    charged = made.charged_boundary(ROOM, "general", 100 * plain)
    assert charged is not None
    assert_allclose(charged.excess_resistance, 100 * plain, rtol=1e-3, atol=0)
    assert 1e18 < charged.boundary.core_charge < 1.5e19
    assert charged.space_charge_potential > 0
    # Positive charge drives Li⁺ out of the layer.
    assert charged.occupancy.min() < made.boundaries(ROOM)["general"].occupancy.min()
    assert made.charged_boundary(ROOM, "general", 0.5 * plain) is None


def test_a_high_permittivity_lets_no_core_charge_block(volume: RepresentativeVolume) -> None:
    material = Material.from_records(
        "llzo-bulk", {"general": "llzo-sigma33-ta"}, relative_permittivity=12085.0
    )
    made = pellet(material, volume)
    plain = made.boundaries(ROOM)["general"].excess_resistance
    assert made.charged_boundary(ROOM, "general", 100 * plain) is None
