"""Parameters of a pellet's fit and their priors, in coordinates in which these are normal."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit

from mesoion.errors import InputError

Floats = NDArray[np.float64]
Scale = Literal["log", "share", "exponent", "plain"]

LEAST_EXPONENT = 0.5


@dataclass(frozen=True)
class Parameter:
    """One parameter and its normal prior in fit coordinates.

    scale: "log" ln x; "share" logit x; "exponent" logit of (x − ½)/½; "plain" x. mean, deviation: of the prior in
    those coordinates; bounds: hard limits there. free: fitted, or held at `mean`. unit: of x.
    """

    name: str
    unit: str
    scale: Scale
    mean: float
    deviation: float
    bounds: tuple[float, float]
    free: bool = True

    def value(self, coordinate: float | Floats) -> Floats:
        """x from its fit coordinate."""
        u = np.asarray(coordinate, dtype=float)
        if self.scale == "log":
            return np.asarray(np.exp(u))
        if self.scale == "share":
            return np.asarray(expit(u))
        if self.scale == "exponent":
            return np.asarray(LEAST_EXPONENT + (1 - LEAST_EXPONENT) * expit(u))
        return u

    def coordinate(self, value: float) -> float:
        """Fit coordinate of x; InputError where x is impossible."""
        with np.errstate(divide="ignore", invalid="ignore"):
            if self.scale == "log":
                u = np.log(value)
            elif self.scale == "share":
                u = logit(value)
            elif self.scale == "exponent":
                u = logit((value - LEAST_EXPONENT) / (1 - LEAST_EXPONENT))
            else:
                u = np.float64(value)
        if np.isnan(u):
            raise InputError(self.name, value, "a value this parameter can take")
        return float(u)

    def with_prior(self, value: float, factor: float) -> Parameter:
        """Prior around `value` with one standard deviation `factor` (a factor for "log", else an increment)."""
        deviation = np.log(factor) if self.scale == "log" else factor
        return replace(self, mean=self.coordinate(value), deviation=float(deviation), free=True)

    def fixed(self, value: float) -> Parameter:
        """Held at `value`."""
        return replace(self, mean=self.coordinate(value), free=False)


def default_parameters() -> dict[str, Parameter]:
    """All parameters with wide priors (assumptions, stated in docs/reconcile.md); what rarely matters is held.

    Conductivities hold at the reference temperature of the series; their priors are set from the data's magnitude.
    """
    ln = np.log
    listed = [
        Parameter("bulk_conductivity", "S/m", "log", ln(1e-2), 4.0, (-35.0, 8.0)),
        Parameter("bulk_activation_energy", "eV", "plain", 0.4, 0.25, (0.0, 2.5)),
        Parameter("boundary_conductivity", "S/m", "log", ln(1e-5), 5.0, (-45.0, 8.0)),
        Parameter("boundary_activation_energy", "eV", "plain", 0.5, 0.3, (0.0, 2.5)),
        Parameter("width_over_grain_size", "1", "log", ln(5e-4), 1.2, (-30.0, 0.0)),
        Parameter("blocking_fraction", "1", "share", -3.0, 1.5, (-12.0, 12.0)),
        Parameter("permittivity", "1", "log", ln(60.0), 1.0, (0.0, 12.0)),
        Parameter("permittivity_ratio", "1", "log", 0.0, 0.3, (-4.6, 4.6)),
        Parameter("bulk_exponent", "1", "exponent", 3.0, 1.5, (-8.0, 25.0)),
        Parameter("boundary_exponent", "1", "exponent", 2.0, 1.5, (-8.0, 25.0)),
        Parameter("electrode_capacitance", "S s^n/m^2", "log", ln(1e-2), 3.0, (-30.0, 12.0)),
        Parameter("electrode_exponent", "1", "exponent", 1.5, 1.5, (-8.0, 25.0)),
        Parameter("electrode_activation_energy", "eV", "plain", 0.0, 0.2, (-1.0, 2.0)),
        Parameter("charge_transfer_resistance", "ohm m^2", "log", ln(1e-3), 4.0, (-30.0, 20.0), free=False),
        Parameter("charge_transfer_activation_energy", "eV", "plain", 0.4, 0.25, (0.0, 2.5), free=False),
        Parameter("core_charge", "e/nm^2", "plain", 0.0, 1.5, (-8.0, 8.0), free=False),
        Parameter("lead_resistance", "ohm", "log", ln(1e-9), 1.0, (-60.0, 20.0), free=False),
        Parameter("lead_inductance", "H", "log", ln(1e-15), 1.0, (-60.0, 5.0), free=False),
        Parameter("noise", "1", "log", ln(0.01), 1.5, (ln(1e-5), ln(0.5))),
    ]
    return {p.name: p for p in listed}
