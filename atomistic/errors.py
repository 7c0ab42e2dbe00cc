"""Typed errors of `atomistic`: what went wrong, where, and what to try.

The command line turns every `AtomisticError` into one message and exit code 2.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any


class AtomisticError(Exception):
    """Base of all errors a user can cause or mend; `str()` is the whole message."""


class InputError(AtomisticError):
    """A value given by the user is not allowed: `where` names it, `remedy` says what is allowed.

    A value of `...` or None says that no single one is at fault, or that it is missing: the message leaves it out.
    """

    def __init__(self, where: str, value: Any, remedy: str) -> None:
        self.where, self.value, self.remedy = where, value, remedy
        shown = str(value) if isinstance(value, Path) else value
        said = "" if value is ... or value is None else f"{shown!r} is not allowed; "
        super().__init__(f"{where}: {said}{remedy}")


class FileFormatError(AtomisticError):
    """A file is damaged or of another kind: `path`, `line` (None: the whole file), what, remedy."""

    def __init__(self, path: str | Path, line: int | None, what: str, remedy: str) -> None:
        self.path, self.line, self.what, self.remedy = Path(path), line, what, remedy
        place = f"{path}" if line is None else f"{path}:{line}"
        super().__init__(f"{place}: {what}; {remedy}")


class PotentialError(AtomisticError):
    """A potential's numbers contradict each other or are not usable."""


class SpeciesError(AtomisticError):
    """A structure holds an element that the potential does not know, or the potential names none."""


class GeometryError(AtomisticError):
    """A structure cannot be evaluated: coinciding atoms, a degenerate cell, positions that are not numbers."""


class FramesError(AtomisticError):
    """A set of structures lacks what is asked of it: energies, forces, or any frame at all."""


class CompilerError(AtomisticError):
    """No C++ compiler was found, or the LAMMPS plugin did not compile."""


class LammpsError(AtomisticError):
    """LAMMPS is missing, did not start, or stopped with an error; the message holds its own last words."""


class RunError(AtomisticError):
    """A simulation ended early: atoms lost, temperature or grade above the limit. `step` is where."""

    def __init__(self, message: str, *, step: int | None = None) -> None:
        self.step = step
        super().__init__(message if step is None else f"{message} (step {step})")


class CompositionError(AtomisticError):
    """A composition cannot be built: negative Li, no neutral ordering, an element without a formal charge."""


class CoincidenceError(AtomisticError):
    """No coincidence lattice or no periodic boundary cell exists within the size asked for."""


class TrajectoryError(AtomisticError):
    """A trajectory cannot be analysed: missing frames, changing atoms, too short for what is asked."""
