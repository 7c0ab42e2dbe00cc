"""Exact rows of nucleation: published numbers of the classical nucleus, shapes, constriction, share of electrons."""

from __future__ import annotations

import math

from mesoion.critical_current import Constriction
from mesoion.microstructure import bricks
from mesoion.nucleation import critical_radius, nucleation_barrier, shape_factor
from mesoion.nucleation_sampling import electron_share
from mesoion.units import ELEMENTARY_CHARGE
from mesoion.validation import case
from mesoion.wagner import mixed_conduction

_RESISTANCE = 1.0


def plane_boundaries() -> float:
    """g over rho/2 of brick-shaped grains: boundaries across the current, others along it."""
    made = Constriction.build(bricks(2, 1.0), points=5, quantile=1.0)
    return float(made("boundary", _RESISTANCE, 1e-5)) / (0.5 * _RESISTANCE)


def electrons() -> float:
    """Share of electrons at 60 A/m² with 10 ohm cm² at either electrode, over Wagner's line."""
    sigma, electronic, length, contact = 0.073, 3e-6, 1e-3, 1e-3
    line = mixed_conduction(
        [length / sigma], [length / electronic], 60.0, 298.15, charge_transfer_resistance=contact
    )
    ionic = float(line.ionic_current_density)
    share = electron_share(ionic, ionic * contact, length, sigma, electronic, 298.15)
    return float(share) * ionic / float(line.electronic_current_density)


case(
    "critical nucleus of lithium at 0.1 V, 0.5 J/m² / nm",
    lambda: float(critical_radius(0.1, 0.5)) * 1e9,
    expected=1.35,
    tolerance=5e-3,
    about="Gibbs; V_m 13.0 cm³/mol",
)
for _voltage, _energy, _digits in ((0.1, 24.0, 2e-2), (0.5, 0.95, 6e-3)):
    case(
        f"nucleation barrier of lithium at {_voltage:g} V, 0.5 J/m² / eV",
        lambda v=_voltage: float(nucleation_barrier(v, 0.5)) / ELEMENTARY_CHARGE,  # type: ignore[misc]
        expected=_energy,
        tolerance=_digits,
        about="Volmer 1939; V_m 13.0 cm³/mol",
    )
case(
    "shape factor of a cap at 90 degrees",
    lambda: float(shape_factor("wall", 0.5 * math.pi)),
    expected=0.5,
    tolerance=1e-14,
)
case(
    "shape factor along a junction at 90 degrees",
    lambda: float(shape_factor("junction", 0.5 * math.pi)),
    expected=1.0,
    tolerance=1e-14,
    about="Clemm, Fisher 1955",
)
case(
    "overpotential beside plane boundaries over half their drop",
    plane_boundaries,
    expected=1.0,
    tolerance=0.02,
    about="series of grains and boundaries",
)
case(
    "electrons' share of a current over Wagner's",
    electrons,
    expected=1.0,
    tolerance=1e-8,
    about="Wagner 1957",
)
