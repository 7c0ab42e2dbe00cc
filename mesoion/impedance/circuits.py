"""Equivalent circuits: elements joined by `+` (in series) and `|` (in parallel), with exact derivatives.

    R(100.0) + (R(1e3) | C(5e-11)) + (R(5e3) | CPE(1e-8, 0.9))

An element holds its values (None where they are still to be found). A circuit's parameters are those of its elements
from left to right; derivatives are by the natural logarithm of each, so that picofarads and megaohms weigh alike.
Time dependence exp(+iωt): capacitive arcs have a negative imaginary part.
Source of the elements: E. Barsoukov & J. R. Macdonald (eds), Impedance Spectroscopy, 3rd ed., Wiley 2018.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from mesoion.errors import InputError

Floats = NDArray[np.float64]
Complexes = NDArray[np.complex128]

EXPONENT_RANGE = (0.3, 1.0)
"""Exponents of depressed arcs: below, an arc is too flat for its resistance to mean anything."""


@dataclass(frozen=True)
class Parameter:
    """One positive number of a circuit: name, unit, value (None: to be found), bounds, and whether it is held."""

    name: str
    unit: str
    value: float | None
    lower: float
    upper: float
    fixed: bool = False


class Circuit(ABC):
    """Something with an impedance. `a + b` is in series, `a | b` in parallel."""

    def __add__(self, other: Circuit) -> Circuit:
        return Series((*_parts(self, Series), *_parts(other, Series)))

    def __or__(self, other: Circuit) -> Circuit:
        return Parallel((*_parts(self, Parallel), *_parts(other, Parallel)))

    @abstractmethod
    def elements(self) -> Iterator[Element]:
        """The elements from left to right."""

    @abstractmethod
    def _replaced(self, elements: Iterator[Element]) -> Circuit:
        """The same circuit with its elements taken from `elements`, from left to right."""

    @abstractmethod
    def _evaluate(self, omega: Floats, values: Iterator[float]) -> tuple[Complexes, Complexes]:
        """Z (m,) and ∂Z/∂ln p (m, k) at angular frequencies `omega` (m,)."""

    @abstractmethod
    def description(self, values: bool = False) -> str:
        """The circuit in the notation of `circuit_notation.parse_circuit`, with its values where asked for."""

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """All parameters from left to right, each with a name of its own (`R1`, `C1`, `R_bulk`)."""
        taken = {p.name for e in self.elements() if e.label for p in e.named_parameters(e.label)}
        found: list[Parameter] = []
        for element in self.elements():
            label, number = element.label, 1
            while not element.label:
                label = str(number)
                if taken.isdisjoint(p.name for p in element.named_parameters(label)):
                    break
                number += 1
            own = element.named_parameters(label)
            taken.update(p.name for p in own)
            found += own
        names = [p.name for p in found]
        if len(set(names)) < len(names):
            twice = next(n for n in names if names.count(n) > 1)
            raise InputError("circuit", twice, "give every element of one kind a label of its own")
        return tuple(found)

    @property
    def values(self) -> Floats:
        """The parameters' values (k,); InputError where one is still to be found."""
        for parameter in self.parameters:
            if parameter.value is None:
                raise InputError(f"circuit, {parameter.name}", None, "give it a value, or fit the circuit")
        return np.array([p.value for p in self.parameters], float)

    def with_values(self, values: Mapping[str, float] | ArrayLike) -> Self:
        """The same circuit with other values: some by name, or all (k,) in order."""
        parameters = self.parameters
        if isinstance(values, Mapping):
            unknown = sorted(set(values) - {p.name for p in parameters})
            if unknown:
                known = ", ".join(p.name for p in parameters)
                raise InputError("circuit", unknown[0], f"the circuit has the parameters {known}")
            new = [values.get(p.name, p.value) for p in parameters]
        else:
            new = [float(v) for v in np.asarray(values, float)]
            if len(new) != len(parameters):
                raise InputError("circuit", len(new), f"give {len(parameters)} values")
        rest = iter(new)
        return self._replaced(e.with_own([next(rest) for _ in e.own]) for e in self.elements())  # type: ignore[return-value]

    def impedance(self, frequency: ArrayLike, values: ArrayLike | None = None) -> Complexes:
        """Z(f) (m,) [ohm] at `frequency` (m,) [Hz], for the circuit's own values or `values` (k,)."""
        return self.derivatives(frequency, self.values if values is None else values)[0]

    def derivatives(self, frequency: ArrayLike, values: ArrayLike) -> tuple[Complexes, Complexes]:
        """Z (m,) and ∂Z/∂ln p (m, k), both in ohm, at `frequency` (m,) [Hz] and parameter values (k,)."""
        omega = 2.0 * np.pi * np.asarray(frequency, float)
        return self._evaluate(omega, iter(np.asarray(values, float).tolist()))


def _parts(circuit: Circuit, kind: type[Series] | type[Parallel]) -> tuple[Circuit, ...]:
    return circuit.parts if isinstance(circuit, kind) else (circuit,)


@dataclass(frozen=True)
class Series(Circuit):
    """Z = Σ Z_j."""

    parts: tuple[Circuit, ...]

    def elements(self) -> Iterator[Element]:
        """The elements from left to right."""
        for part in self.parts:
            yield from part.elements()

    def _replaced(self, elements: Iterator[Element]) -> Circuit:
        return Series(tuple(part._replaced(elements) for part in self.parts))

    def _evaluate(self, omega: Floats, values: Iterator[float]) -> tuple[Complexes, Complexes]:
        pieces = [part._evaluate(omega, values) for part in self.parts]
        return np.sum([z for z, _ in pieces], axis=0), np.concatenate([d for _, d in pieces], axis=1)

    def description(self, values: bool = False) -> str:
        """The parts, joined by `-`."""
        return "-".join(p.description(values) for p in self.parts)


@dataclass(frozen=True)
class Parallel(Circuit):
    """1/Z = Σ 1/Z_j."""

    parts: tuple[Circuit, ...]

    def elements(self) -> Iterator[Element]:
        """The elements from left to right."""
        for part in self.parts:
            yield from part.elements()

    def _replaced(self, elements: Iterator[Element]) -> Circuit:
        return Parallel(tuple(part._replaced(elements) for part in self.parts))

    def _evaluate(self, omega: Floats, values: Iterator[float]) -> tuple[Complexes, Complexes]:
        pieces = [part._evaluate(omega, values) for part in self.parts]
        z = 1.0 / np.sum([1.0 / part for part, _ in pieces], axis=0)
        return z, np.concatenate([((z / part) ** 2)[:, None] * d for part, d in pieces], axis=1)

    def description(self, values: bool = False) -> str:
        """The parts in round brackets; a part in series in square ones."""
        texts = [p.description(values) for p in self.parts]
        bracketed = [f"[{t}]" if isinstance(p, Series) else t for p, t in zip(self.parts, texts, strict=True)]
        return f"({''.join(bracketed)})"


@dataclass(frozen=True, init=False)
class Element(Circuit):
    """One element; its values may be None until they are found. `label` tells it from others of its kind."""

    own: tuple[float | None, ...]
    label: str
    held: frozenset[str]

    symbol: ClassVar[str]
    slots: ClassVar[tuple[tuple[str, str, float, float], ...]]
    """(name, unit, lower, upper) of each parameter."""

    def __init__(self, *values: float | None, label: str = "", fixed: Sequence[str] | bool = ()) -> None:
        """Values in the order of `slots`; fixed: True, or names of slots to hold in a fit."""
        names = [slot[0] for slot in self.slots]
        if len(values) > len(names):
            raise InputError(f"circuit, {self.symbol}", len(values), f"it takes {', '.join(names)}")
        held = frozenset(names if fixed is True else () if fixed is False else fixed)
        if not held <= set(names):
            raise InputError(f"circuit, {self.symbol}", sorted(held - set(names))[0], f"it has {names}")
        own = (*values, *[None] * (len(names) - len(values)))
        for (name, unit, lower, upper), value in zip(self.slots, own, strict=True):
            if value is None:
                if name in held:
                    raise InputError(f"circuit, {self.symbol}", name, "a fixed parameter needs its value")
            elif not (math.isfinite(value) and lower <= value <= upper):
                remedy = f"{name} lies between {lower:g} and {upper:g} {unit}".rstrip()
                raise InputError(f"circuit, {self.symbol}", value, remedy)
        object.__setattr__(self, "own", own)
        object.__setattr__(self, "label", label)
        object.__setattr__(self, "held", held)

    def elements(self) -> Iterator[Element]:
        """Itself."""
        yield self

    def _replaced(self, elements: Iterator[Element]) -> Circuit:
        return next(elements)

    def with_own(self, own: Sequence[float | None]) -> Self:
        """The same element with other values."""
        return type(self)(*own, label=self.label, fixed=tuple(self.held))

    def named_parameters(self, label: str) -> list[Parameter]:
        """Its parameters, their names ending in `label`: after an underscore where it is no number."""
        tail = label if label.isdigit() else f"_{label}"
        return [
            Parameter(f"{name}{tail}", unit, value, lower, upper, name in self.held)
            for (name, unit, lower, upper), value in zip(self.slots, self.own, strict=True)
        ]

    def _evaluate(self, omega: Floats, values: Iterator[float]) -> tuple[Complexes, Complexes]:
        z, derivatives = self._law(np.asarray(1j * omega, complex), *(next(values) for _ in self.slots))
        return z, np.stack(derivatives, axis=1)

    @abstractmethod
    def _law(self, s: Complexes, *p: float) -> tuple[Complexes, list[Complexes]]:
        """Z and its derivatives by the logarithm of each parameter, at s = iω."""

    def description(self, values: bool = False) -> str:
        """Its symbol and label."""
        text = self.symbol + (self.label if self.label.isdigit() or not self.label else f"_{self.label}")
        if not values:
            return text
        held = ["f" if slot[0] in self.held else "" for slot in self.slots]
        shown = ["?" if v is None else f"{v!r}{f}" for v, f in zip(self.own, held, strict=True)]
        return f"{text}{{{','.join(shown)}}}"


_RESISTANCE = ("ohm", 1e-9, 1e18)
_CAPACITANCE = ("F", 1e-20, 1e6)
_TIME = ("s", 1e-18, 1e12)
_EXPONENT = ("", *EXPONENT_RANGE)


class R(Element):
    """Resistor, Z = R."""

    symbol = "R"
    slots = (("R", *_RESISTANCE),)

    def _law(self, s: Complexes, *p: float) -> tuple[Complexes, list[Complexes]]:
        z = np.full_like(s, p[0])
        return z, [z]


class C(Element):
    """Capacitor, Z = 1/(iωC)."""

    symbol = "C"
    slots = (("C", *_CAPACITANCE),)

    def _law(self, s: Complexes, *p: float) -> tuple[Complexes, list[Complexes]]:
        z = 1.0 / (s * p[0])
        return z, [-z]


class L(Element):
    """Inductor, Z = iωL."""

    symbol = "L"
    slots = (("L", "H", 1e-15, 1e6),)

    def _law(self, s: Complexes, *p: float) -> tuple[Complexes, list[Complexes]]:
        z = s * p[0]
        return z, [z]


class CPE(Element):
    """Constant-phase element, Z = 1/(Q (iω)^n); Q in F s^(n−1)."""

    symbol = "Q"
    slots = (("Q", "F s^(n-1)", 1e-20, 1e6), ("n", *_EXPONENT))

    def _law(self, s: Complexes, *p: float) -> tuple[Complexes, list[Complexes]]:
        q, n = p
        z = s**-n / q
        return z, [-z, -n * np.log(s) * z]


class Warburg(Element):
    """Semi-infinite diffusion, Z = A(1 − i)/√ω; A in ohm s^(−1/2)."""

    symbol = "W"
    slots = (("A", "ohm s^(-1/2)", 1e-9, 1e18),)

    def _law(self, s: Complexes, *p: float) -> tuple[Complexes, list[Complexes]]:
        z = p[0] * math.sqrt(2.0) / s**0.5
        return z, [z]


class WarburgShort(Element):
    """Diffusion to a reservoir at finite length, Z = R tanh(√(iωτ))/√(iωτ); Z(0) = R."""

    symbol = "Ws"
    slots = (("R", *_RESISTANCE), ("tau", *_TIME))

    def _law(self, s: Complexes, *p: float) -> tuple[Complexes, list[Complexes]]:
        r, tau = p
        x = (s * tau) ** 0.5
        tanh = np.tanh(x)
        z = r * tanh / x
        return z, [z, 0.5 * (r * (1.0 - tanh**2) - z)]


class WarburgOpen(Element):
    """Diffusion to a blocking end at finite length, Z = R coth(√(iωτ))/√(iωτ); capacitance τ/R at low frequency."""

    symbol = "Wo"
    slots = (("R", *_RESISTANCE), ("tau", *_TIME))

    def _law(self, s: Complexes, *p: float) -> tuple[Complexes, list[Complexes]]:
        r, tau = p
        x = (s * tau) ** 0.5
        tanh = np.tanh(x)
        z = r / (x * tanh)
        return z, [z, 0.5 * (r * (1.0 - tanh**-2) - z)]


class Gerischer(Element):
    """Diffusion with reaction, Z = R/√(1 + iωτ)."""

    symbol = "G"
    slots = (("R", *_RESISTANCE), ("tau", *_TIME))

    def _law(self, s: Complexes, *p: float) -> tuple[Complexes, list[Complexes]]:
        r, tau = p
        z = r / (1.0 + s * tau) ** 0.5
        return z, [z, -0.5 * s * tau / (1.0 + s * tau) * z]


class ZARC(Element):
    """Depressed arc, Z = R/(1 + (iωτ)^n): R ‖ CPE with Q = τ^n/R; effective capacitance τ/R = (R^(1−n)Q)^(1/n)."""

    symbol = "Z"
    slots = (("R", *_RESISTANCE), ("tau", *_TIME), ("n", *_EXPONENT))

    def _law(self, s: Complexes, *p: float) -> tuple[Complexes, list[Complexes]]:
        r, tau, n = p
        power = (s * tau) ** n
        z = r / (1.0 + power)
        slope = -z * power / (1.0 + power)
        return z, [z, n * slope, n * np.log(s * tau) * slope]


@dataclass(frozen=True)
class TransmissionLine(Circuit):
    """Porous electrode with a blocked end (de Levie): Z = √(R Z_i) coth √(R/Z_i).

    rail: a resistor, the whole resistance R of the electrolyte in the pores. interface: the circuit of the whole
    pore wall, of impedance Z_i, spread evenly along the pore.
    """

    rail: Element
    interface: Circuit

    def elements(self) -> Iterator[Element]:
        """The rail, then the interface's."""
        yield self.rail
        yield from self.interface.elements()

    def _replaced(self, elements: Iterator[Element]) -> Circuit:
        return replace(self, rail=next(elements), interface=self.interface._replaced(elements))

    def _evaluate(self, omega: Floats, values: Iterator[float]) -> tuple[Complexes, Complexes]:
        rail, rail_slopes = self.rail._evaluate(omega, values)
        wall, wall_slopes = self.interface._evaluate(omega, values)
        x = (rail / wall) ** 0.5
        coth = 1.0 / np.tanh(x)
        z = rail**0.5 * wall**0.5 * coth
        # ∂Z/∂ln R = (Z + R(1 − coth²))/2 and ∂Z/∂ln Z_i = (Z − R(1 − coth²))/2, with x ∂coth/∂x = x(1 − coth²).
        bend = rail * (1.0 - coth**2)
        by_rail, by_wall = 0.5 * (z + bend) / rail, 0.5 * (z - bend) / wall
        return z, np.concatenate([by_rail[:, None] * rail_slopes, by_wall[:, None] * wall_slopes], axis=1)

    def description(self, values: bool = False) -> str:
        """`T` with the wall's circuit in angle brackets."""
        return f"T{self.rail.description(values)[1:]}<{self.interface.description(values)}>"


ELEMENTS: dict[str, type[Element]] = {
    kind.symbol: kind for kind in (R, C, L, CPE, Warburg, WarburgShort, WarburgOpen, Gerischer, ZARC)
}
"""Element by its symbol in the notation."""
