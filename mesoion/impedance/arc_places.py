"""Where the arcs of a circuit are: a resistor beside a capacitor or a constant-phase element, or a ZARC."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mesoion.impedance.circuits import CPE, ZARC, C, Circuit, Element, Parallel, R, Series

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ArcPlace:
    """One arc: indices of its parameters in the circuit. `storage` is C, Q or τ; `exponent` None for a capacitor."""

    resistance: int
    storage: int
    exponent: int | None
    element: type[Element]

    def read(self, values: Floats) -> tuple[float, float, float]:
        """R [ohm], τ [s] and n of the arc at parameter values (k,)."""
        r, x = float(values[self.resistance]), float(values[self.storage])
        n = 1.0 if self.exponent is None else float(values[self.exponent])
        if self.element is ZARC:
            return r, x, n
        return r, math.exp((math.log(r) + math.log(x)) / n), n

    def write(self, values: Floats, r: float, tau: float, n: float) -> None:
        """Put an arc's R, τ and n into parameter values (k,); a capacitor keeps τ."""
        values[self.resistance] = r
        if self.exponent is not None:
            values[self.exponent] = n
        if self.element is ZARC:
            values[self.storage] = tau
        else:
            values[self.storage] = math.exp(
                (1.0 if self.exponent is None else n) * math.log(tau) - math.log(r)
            )

    def gradients(self, values: Floats) -> tuple[Floats, Floats, Floats]:
        """Gradients (k,) of ln R, ln τ and ln C, C = τ/R, by the logarithms of the parameters."""
        r, _, n = self.read(values)
        by_r, by_tau = np.zeros(len(values)), np.zeros(len(values))
        by_r[self.resistance] = 1.0
        if self.element is ZARC:
            by_tau[self.storage] = 1.0
        else:
            by_tau[[self.resistance, self.storage]] = 1.0 / n
            if self.exponent is not None:
                by_tau[self.exponent] = -(math.log(r) + math.log(values[self.storage])) / n
        return by_r, by_tau, by_tau - by_r


def arc_places(circuit: Circuit) -> list[ArcPlace]:
    """The arcs in series along a circuit, from left to right."""
    return list(_walk(circuit, 0))


def _walk(circuit: Circuit, offset: int) -> Iterator[ArcPlace]:
    if isinstance(circuit, ZARC):
        yield ArcPlace(offset, offset + 1, offset + 2, ZARC)
    elif isinstance(circuit, Series):
        for part in circuit.parts:
            yield from _walk(part, offset)
            offset += sum(len(e.slots) for e in part.elements())
    elif isinstance(circuit, Parallel) and len(circuit.parts) == 2:
        kinds = [type(part) for part in circuit.parts]
        if R not in kinds or not ({C, CPE} & set(kinds)):
            return
        place = {}
        for part in circuit.parts:
            place[type(part)] = offset
            offset += len(type(part).slots) if isinstance(part, Element) else 0
        storage = C if C in place else CPE
        exponent = place[CPE] + 1 if storage is CPE else None
        yield ArcPlace(place[R], place[storage], exponent, storage)
