"""Circuits as text, in Boukamp's notation: `R-(RC)-(RQ)`, `LR(RQ)(RQ)Q`, `R(Q[RW])`.

    circuit  = part { ["-"] part }                      in series
    part     = element | "(" item item { item } ")"     in parallel
    item     = part | "[" circuit "]"                   a series inside a parallel
    element  = symbol [ digits | "_" label ] [ "{" value { "," value } "}" ]
             | "T" [...] "<" circuit ">"                transmission line, its wall in angle brackets
    value    = a positive number in SI units, "?" for one to be found; "f" behind a number holds it

Symbols: R, C, L, Q (constant phase), W (semi-infinite Warburg), Ws and Wo (finite length, short and open end),
G (Gerischer), Z (ZARC), T (transmission line). Source: B. A. Boukamp, Solid State Ionics 20, 31 (1986).
"""

from __future__ import annotations

import re

from mesoion.errors import InputError
from mesoion.impedance.circuits import ELEMENTS, Circuit, Element, Parallel, R, Series, TransmissionLine

MAX_ELEMENTS = 40
_SYMBOL = re.compile(r"(Ws|Wo|[RCLQWGZT])(\d{1,3}|_[A-Za-z][A-Za-z0-9]{0,15})?")
_VALUES = re.compile(r"\{([^{}]*)\}")
_NUMBER = re.compile(r"(\d+\.?\d*|\.\d+)(?:[eE]([+-]?\d{1,3}))?(f?)")
_MAX_DEPTH = 12


def parse_circuit(text: str, where: str = "circuit") -> Circuit:
    """The circuit that `text` describes; `where` names it in messages.

    Raises InputError with the position and what is expected there.
    """
    if len(text) > 2000:
        raise InputError(where, text[:40] + "...", "a circuit's text has 2000 characters at most")
    reader = _Reader("".join(text.split()), where)
    circuit = reader.series(0)
    if reader.position < len(reader.text):
        raise reader.error("an element, '-' or '('")
    if reader.count > MAX_ELEMENTS:
        raise InputError(where, f"{reader.count} elements", f"{MAX_ELEMENTS} are the most")
    # Equal labels of one kind are found here, not at the first fit.
    _ = circuit.parameters
    return circuit


class _Reader:
    def __init__(self, text: str, where: str) -> None:
        self.text, self.where, self.position, self.count = text, where, 0, 0

    def error(self, expected: str) -> InputError:
        at = self.position
        found = f"{self.text[:at]} >>>{self.text[at:]}" if at < len(self.text) else self.text
        return InputError(self.where, found, f"at position {at + 1} {expected} is expected")

    def peek(self) -> str:
        return self.text[self.position : self.position + 1]

    def take(self, character: str) -> None:
        if self.peek() != character:
            raise self.error(f"{character!r}")
        self.position += 1

    def series(self, depth: int) -> Circuit:
        if depth > _MAX_DEPTH:
            raise self.error(f"a circuit of at most {_MAX_DEPTH} nested brackets")
        parts = [self.part(depth)]
        while self.peek() and self.peek() not in ")]>":
            if self.peek() == "-":
                self.position += 1
            parts.append(self.part(depth))
        return parts[0] if len(parts) == 1 else Series(tuple(parts))

    def part(self, depth: int) -> Circuit:
        if self.peek() != "(":
            return self.element(depth)
        self.take("(")
        items: list[Circuit] = []
        while self.peek() != ")":
            if self.peek() == "[":
                self.take("[")
                items.append(self.series(depth + 1))
                self.take("]")
            else:
                if depth > _MAX_DEPTH:
                    raise self.error(f"a circuit of at most {_MAX_DEPTH} nested brackets")
                items.append(self.part(depth + 1))
        if len(items) < 2:
            raise self.error("a second element of the parallel connection")
        self.take(")")
        return Parallel(tuple(items))

    def element(self, depth: int) -> Circuit:
        match = _SYMBOL.match(self.text, self.position)
        if match is None:
            raise self.error(f"an element ({', '.join([*ELEMENTS, 'T'])}) or '('")
        self.count += 1
        symbol, label = match[1], (match[2] or "").lstrip("_")
        self.position = match.end()
        kind = R if symbol == "T" else ELEMENTS[symbol]
        values, fixed = self.values(kind)
        element = self.made(kind, values, label, fixed)
        if symbol != "T":
            return element
        self.take("<")
        wall = self.series(depth + 1)
        self.take(">")
        return TransmissionLine(element, wall)

    def made(self, kind: type[Element], values: list[float | None], label: str, fixed: list[str]) -> Element:
        try:
            return kind(*values, label=label, fixed=fixed)
        except InputError as error:
            raise InputError(self.where, error.value, error.remedy) from None

    def values(self, kind: type[Element]) -> tuple[list[float | None], list[str]]:
        if self.peek() != "{":
            return [], []
        match = _VALUES.match(self.text, self.position)
        if match is None:
            raise self.error("values in '{' and '}'")
        values: list[float | None] = []
        fixed: list[str] = []
        for index, text in enumerate(match[1].split(",")):
            number = _NUMBER.fullmatch(text)
            if index >= len(kind.slots) or (number is None and text != "?"):
                names = ", ".join(slot[0] for slot in kind.slots)
                raise self.error(f"{{{names}}}, each a positive number (an f behind it holds it) or '?',")
            values.append(None if number is None else float(text.rstrip("f")))
            if number is not None and number[3]:
                fixed.append(kind.slots[index][0])
        self.position = match.end()
        return values, fixed
