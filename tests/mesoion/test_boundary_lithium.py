"""Lithium at a boundary against segregation energy and permittivity, and the figures of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import constants

from mesoion.boundary_lithium import BoundaryLithium, boundary_lithium
from mesoion.errors import InputError
from mesoion.lithium_figures import growth_sequence, overpotential_profile, segregation_overpotential
from mesoion.lithium_potential import galvanostatic, mixed_bicrystal, mixed_conductor
from mesoion.material import Material
from mesoion.mesh import tensor_mesh
from mesoion.plots import new_figure

T = 298.15
CURRENT = 10.0


def rows_of(boundary: str, energies: tuple[float, ...]) -> list[BoundaryLithium]:
    material = Material.from_records("llzo-bulk", {"gb": boundary}, relative_permittivity=50.0)
    return boundary_lithium(
        material.grain(T),
        material.boundary(T, "gb"),
        CURRENT,
        segregation_energies=energies,
        half_length=1e-7,
    )


@pytest.fixture(scope="module")
def rows() -> list[BoundaryLithium]:
    return rows_of("llzo-sigma17", (-0.1, 0.0, 0.1))


def test_space_charge_holds_what_the_layer_takes(rows: list[BoundaryLithium]) -> None:
    for row in rows:
        scale = max(abs(row.layer_excess), 1e14)
        np.testing.assert_allclose((row.layer_excess + 2.0 * row.side_excess) / scale, 0.0, atol=1e-5)
        assert np.sign(row.layer_excess) == -np.sign(row.segregation_energy) or row.segregation_energy == 0.0


def test_more_permittivity_more_lithium_moves(rows: list[BoundaryLithium]) -> None:
    excess = {(r.relative_permittivity, r.segregation_energy): abs(r.layer_excess) for r in rows}
    for energy in (-0.1, 0.1):
        assert excess[12085.0, energy] > 3.0 * excess[50.0, energy]


def test_current_moves_lithium_from_one_side_to_the_other(rows: list[BoundaryLithium]) -> None:
    """To first order the two sides change by opposite amounts; the charge they hold drives the current through."""
    for row in rows:
        assert row.anode_side_change > 0.0
        np.testing.assert_allclose(row.anode_side_change, -row.cathode_side_change, rtol=1e-2)
        assert abs(row.layer_change) < 1e-2 * row.anode_side_change


def test_overpotential_is_half_the_excess_drop_without_segregation(rows: list[BoundaryLithium]) -> None:
    for row in (r for r in rows if r.segregation_energy == 0.0):
        grain = 1.6e-9 / 0.073
        # Electrons cross the boundary more easily than the grain it replaces.
        width = 1.6e-9
        share = row.electronic_resistance / ((2e-7 - width) / 3e-6 + row.electronic_resistance)
        drop = 0.5 * CURRENT * row.ionic_resistance - 0.5 * share * row.voltage
        np.testing.assert_allclose(row.overpotential_anode_side, drop, rtol=0.02)
        assert row.ionic_resistance > grain


def test_tantalum_at_a_boundary_of_the_records() -> None:
    """Slower Li in the Ta-rich boundary (0.33 against 0.32 eV) and nothing else: exp(0.01 eV/kT) more resistance."""
    plain, segregated = (rows_of(name, (0.0,))[0] for name in ("llzo-sigma17", "llzo-sigma17-ta"))
    factor = np.exp(0.01 * constants.e / (constants.k * T))
    np.testing.assert_allclose(segregated.ionic_resistance / plain.ionic_resistance, factor, rtol=1e-3)
    assert segregated.largest_overpotential > plain.largest_overpotential


def test_figures(rows: list[BoundaryLithium], tmp_path: Path) -> None:
    figure, (left, right) = new_figure(1, 2)
    segregation_overpotential(left, rows, label="no Ta")
    assert left.get_xlabel() == "Li segregation energy / eV"
    assert len(left.get_lines()) == 2
    material = Material.from_records("llzo-bulk", {"gb": "llzo-sigma17"}, relative_permittivity=12085.0)
    grain, boundary = material.grain(T), material.boundary(T, "gb")
    state = galvanostatic(mixed_bicrystal(grain, boundary, half_length=3e-7), "left", CURRENT)
    overpotential_profile(right, state)
    assert right.get_xlabel() == "x / µm"
    figure.savefig(tmp_path / "boundary.png")
    flat = tensor_mesh([np.linspace(0, 1e-8, 4), np.linspace(0, 1e-8, 4)])
    with pytest.raises(InputError, match="along a line"):
        overpotential_profile(right, mixed_conductor(flat, {"grain": grain}).equilibrium())


def test_growth_sequence_shows_the_metal(tmp_path: Path) -> None:
    from mesoion.growth import Deposit, grow

    material = Material.from_records("llzo-bulk", {"gb": "llzo-sigma17"}, relative_permittivity=12085.0)
    mesh = tensor_mesh([np.linspace(0, 2e-8, 5), np.array([0.0, 4.0, 7.2, 8.0, 8.8, 12.0, 16.0]) * 1e-9])
    inside = np.abs(mesh.centers[:, 1] - 8e-9) < 0.8e-9
    mesh = mesh.with_regions(inside.astype(int), ("grain", "gb"))
    mesh = replace(mesh, layer_normals=np.where(inside[:, None], [0.0, 1.0], 0.0))
    phases = {"grain": material.grain(T), "gb": material.boundary(T, "gb")}
    result = grow(mesh, phases, Deposit({"gb": 0.3}), 200.0 * 16e-9, 0.02)
    figure = growth_sequence(result, 3)
    titles = [ax.get_title() for ax in figure.axes if ax.get_title()]
    assert len(titles) == len(set(titles)) == 3
    figure.savefig(tmp_path / "growth.png")
    with pytest.raises(InputError, match="two dimensions"):
        growth_sequence(replace(result, mesh=tensor_mesh([np.linspace(0, 1, 3)])))
