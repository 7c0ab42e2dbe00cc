"""Typed errors of both packages: what went wrong, where, and what to try.

The command line turns every `MesoionError` into one message and exit code 2.
"""

from __future__ import annotations

from typing import Any


class MesoionError(Exception):
    """Base of all errors a user can cause or mend; `str()` is the whole message."""


class InputError(MesoionError):
    """A value in an input is not allowed.

    `where` is the key's path (`pellets[0].grain_boundary_width`) or `file:line`, `value` what stood there,
    `remedy` what is allowed.
    """

    def __init__(self, where: str, value: Any, remedy: str) -> None:
        self.where, self.value, self.remedy = where, value, remedy
        super().__init__(f"{where}: {value!r} is not allowed; {remedy}")


class MeasuredFileError(InputError):
    """A measured file cannot be used as it stands.

    `path` and `line` (from 1; None where the fault is no line's) say where, `fault` what is wrong, `remedy` what to do.
    """

    def __init__(self, path: Any, line: int | None, fault: str, remedy: str) -> None:
        self.path, self.line, self.fault = str(path), line, fault
        where = self.path if line is None else f"{self.path}:{line}"
        super().__init__(where, fault, remedy)
        self.args = (f"{where}: {fault}; {remedy}",)


class MeshError(MesoionError):
    """A mesh could not be built, or does not resolve the physics asked of it."""


class ConvergenceError(MesoionError):
    """A bounded iteration ended without converging.

    `last_good` is the last converged state (or None), `at` says at what bias, time or parameter it failed.
    """

    def __init__(self, message: str, *, at: str, last_good: Any = None) -> None:
        self.at, self.last_good = at, last_good
        super().__init__(f"{message} (at {at})")


class NoElectronsError(MesoionError):
    """Metal is asked about where no electronic species is given: Li nucleates from Li⁺ and electrons alone.

    `what` names the phase, record or state without them.
    """

    def __init__(self, what: str) -> None:
        self.what = what
        super().__init__(
            f"{what} has no electrons, and without them no lithium metal can form; give electronic_transport in the "
            "bulk record (or electronic_conductivity and electron_density of the grain's phase)"
        )


class LimitingCurrentError(MesoionError):
    """More current is asked for than the solid can carry in a steady state.

    `limiting_current` is the largest one, `asked` what was asked for, both in `unit`.
    """

    def __init__(self, asked: float, limiting_current: float, unit: str, at: str) -> None:
        self.asked, self.limiting_current, self.unit, self.at = asked, limiting_current, unit, at
        super().__init__(
            f"a current of {asked:.6g} {unit} is beyond the limiting current of {limiting_current:.6g} {unit} ({at}); "
            "ask for less"
        )
