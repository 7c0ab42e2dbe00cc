"""Fitting a moment tensor potential to labelled frames.

Minimised is the mean over frames of

    w_E ((E - E_t)/N)^2 + w_F sum_i |F_i - F_t,i|^2 s_i^2 / N + w_S |V (S - S_t)/N|^2,   s_i = 1/(1 + |F_t,i|/F_0)

plus a ridge on the radial and moment coefficients and a weak pull of the species energies to a prior, which alone
decides combinations that no frame determines. First a linear solve for moment and species coefficients, then
Levenberg-Marquardt in all coefficients on exact derivatives, with columns scaled to unit norm (the raw scales
differ by orders of magnitude, and quasi-Newton methods stall on them), the linear ones solved anew in every trial
step. Ridges are tried from strong to weak, each starting from the one before, and the one with the lowest loss on
held-out frames is taken.

Every iteration is saved: a killed training continues with the next one and ends with the same numbers.
"""

from __future__ import annotations

import hashlib
import io
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from atomistic.errors import FileFormatError, FramesError, InputError, PotentialError
from atomistic.labels import attach, labels_of, structure_hash, write_bytes
from atomistic.mtp.accuracy import accuracy_by_group, predict, without_core
from atomistic.mtp.basis import untrained
from atomistic.mtp.core import RepulsiveCore
from atomistic.mtp.jacobian import check_frame_count, shortest_distance
from atomistic.mtp.objective import Problem, pair_weights
from atomistic.mtp.potential import FloatArray, MTPotential, check_symbols, write_mtp

if TYPE_CHECKING:
    from ase import Atoms

STATE_NAME: Final = "state.npz"
PATIENCE: Final = 4  # iterations below the tolerance before a fit ends; plateaus of two or three are common


class TrainingSettings(BaseModel):
    """What to fit and how; every key may stand in the [training] table of a TOML file.

    species: in the order of the coefficients. level: of the basis. cutoff, min_distance: angstrom; min_distance
    is the shortest distance of the frames unless given. radial_basis_size: Chebyshev polynomials per function.
    energy_weight, force_weight (angstrom^2), stress_weight: w_E, w_F, w_S. force_scale: F_0 in eV/angstrom.
    group_weights: factor on the frames of a group. ridges: from strong to weak. species_prior_weight: strength of
    the pull of the species energies. species_energies: the prior in eV (teacher's references); least squares of
    the frames' energies for species not named. held_out: fraction of the frames, spread over the groups.
    seeds: restarts; each runs `race_iterations`, the best goes on. iterations: at most; tolerance: relative decrease
    below which a ridge's fit ends, four times in a row. minimum_pairs: a pair of species with fewer neighbour pairs
    in all frames, each weighted by ((cutoff - r)/(cutoff - min_distance))^2, is excluded. coefficient_limit:
    potentials with a larger radial coefficient are refused. core: inner and outer radius (angstrom) of a repulsive
    core by pair ("Li-O"); its part is taken off the labels, and it has to be added again when the potential is used
    (potential.core lies beside potential.mtp). near_start: the ridge pulls to the coefficients of the potential that
    the training starts from instead of zero, the species energies to that potential's plus the least-squares
    difference of the labels' energies, and only pairs without any coefficient in it are excluded: for few labels.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    species: tuple[str, ...]
    level: Annotated[int, Field(ge=2, le=28)] = 8
    cutoff: Annotated[float, Field(gt=1.0, lt=20.0)] = 5.0
    min_distance: Annotated[float, Field(ge=0.0, lt=10.0)] | None = None
    radial_basis_size: Annotated[int, Field(ge=2, le=30)] = 8
    energy_weight: Annotated[float, Field(ge=0.0)] = 1.0
    force_weight: Annotated[float, Field(ge=0.0)] = 0.01
    stress_weight: Annotated[float, Field(ge=0.0)] = 0.001
    force_scale: Annotated[float, Field(gt=0.0)] | None = 10.0
    group_weights: dict[str, Annotated[float, Field(ge=0.0)]] = {}
    ridges: tuple[Annotated[float, Field(ge=0.0)], ...] = (1e-6, 1e-7, 1e-8)
    species_prior_weight: Annotated[float, Field(gt=0.0)] = 1e-8
    species_energies: dict[str, float] = {}
    held_out: Annotated[float, Field(ge=0.0, lt=0.9)] = 0.1
    seeds: tuple[int, ...] = (0, 1, 2)
    race_iterations: Annotated[int, Field(ge=1)] = 15
    iterations: Annotated[int, Field(ge=1)] = 100
    tolerance: Annotated[float, Field(ge=0.0)] = 1e-3
    minimum_pairs: Annotated[float, Field(ge=0.0)] = 20.0
    coefficient_limit: Annotated[float, Field(gt=0.0)] = 20.0
    threads: Annotated[int, Field(ge=1, le=64)] = 1
    core: dict[str, tuple[float, float]] = {}
    near_start: bool = False

    @model_validator(mode="after")
    def _consistent(self) -> TrainingSettings:
        if not self.species:
            raise ValueError("species: name at least one element")
        check_symbols(self.species)
        if not self.seeds or not self.ridges:
            raise ValueError("seeds and ridges: at least one of each is needed")
        if list(self.ridges) != sorted(self.ridges, reverse=True):
            raise ValueError(f"ridges: {self.ridges} must fall from strong to weak")
        if self.energy_weight == self.force_weight == self.stress_weight == 0.0:
            raise ValueError("energy_weight, force_weight, stress_weight: one must be above zero")
        self.repulsive_core()
        return self

    def repulsive_core(self) -> RepulsiveCore | None:
        """The core the potential is trained around, or None. Raises InputError for unknown pairs."""
        if not self.core:
            return None
        radii: dict[tuple[str, str], tuple[float, float]] = {}
        for pair, (inner, outer) in self.core.items():
            first, _, second = pair.partition("-")
            radii[first, second] = (inner, outer)
            if outer > self.cutoff:
                raise InputError(f"training.core.{pair}", outer, f"at most the cutoff {self.cutoff} angstrom")
        return RepulsiveCore.of_pairs(self.species, radii)

    def identity(self) -> dict[str, Any]:
        """What decides the numbers of a training, for comparison with an earlier one."""
        plain = self.model_dump(mode="json", exclude={"threads"})
        for name in ("core", "near_start"):
            if not plain[name]:
                del plain[name]
        return plain


@dataclass(frozen=True)
class TrainingResult:
    """A fitted potential and how the fit went.

    ridge: chosen. losses: rows (seed, ridge, iteration, loss, held-out loss or nan at the end of a ridge).
    largest: largest |radial coefficient| by pair of species. excluded: pairs fixed at zero.
    training, held_out: the frames' indices. wall_time_s: over all runs of a resumed training.
    """

    potential: MTPotential
    ridge: float
    seed: int
    losses: list[tuple[int, float, int, float, float]]
    largest: dict[str, float]
    excluded: list[str]
    training: list[int]
    held_out: list[int]
    wall_time_s: float

    def summary(self) -> str:
        """Ridge, losses, and the largest coefficient of every pair of species, as printed after a training."""
        last = [row for row in self.losses if not np.isnan(row[4])]
        lines = [f"ridge {row[1]:.0e}: loss {row[3]:.4e}, held out {row[4]:.4e}" for row in last]
        lines.append(f"taken: ridge {self.ridge:.0e}, seed {self.seed}, {self.wall_time_s:.0f} s")
        lines.append("largest radial coefficient by pair of species:")
        lines += [f"  {pair:8s}{value:9.3f}" for pair, value in self.largest.items()]
        if self.excluded:
            lines.append(f"excluded, hardly within the cutoff in any frame: {', '.join(self.excluded)}")
        return "\n".join(lines)


def least_squares_energies(frames: Sequence[Atoms], species: Sequence[str]) -> dict[str, float]:
    """Energy per atom of each species (eV) that fits the frames' energies best, smallest spread where undetermined.

    Solves E/N = sum_s x_s e_s about the mean energy per atom, so that combinations which no frame varies get it.
    """
    counts = np.array([[list(f.symbols).count(s) for s in species] for f in frames], float)
    energies = np.array([labels_of(f, f"frame {i}")[0] for i, f in enumerate(frames)])
    fractions = counts / counts.sum(axis=1, keepdims=True)
    per_atom = energies / counts.sum(axis=1)
    mean = per_atom.mean()
    shift, *_ = np.linalg.lstsq(fractions, per_atom - mean, rcond=1e-6)
    return {s: float(mean + d) for s, d in zip(species, shift, strict=True)}


def split_frames(frames: Sequence[Atoms], fraction: float) -> tuple[list[int], list[int]]:
    """Indices of training and held-out frames: of each group, about every (1/fraction)-th by structure hash.

    A hash decides, not the position in the list, so that frames added later do not move others across.
    """
    training: list[int] = []
    held: list[int] = []
    for index, frame in enumerate(frames):
        draw = int(structure_hash(frame)[:8], 16) / 16**8
        (held if draw < fraction else training).append(index)
    if not training:
        training, held = held, []
    return training, held


def largest_coefficients(potential: MTPotential) -> dict[str, float]:
    """Largest |radial coefficient| of every ordered pair of species, by "centre-neighbour"."""
    largest = np.abs(potential.radial_coefficients).max(axis=(2, 3))
    names = potential.species or tuple(str(i) for i in range(potential.species_count))
    return {f"{a}-{b}": float(largest[i, j]) for i, a in enumerate(names) for j, b in enumerate(names)}


class _Fit:
    """State of a training: which seed and ridge, the parameters, the damping, what was found so far."""

    def __init__(self) -> None:
        self.phase = "race"
        self.member = 0
        self.ridge = 0
        self.iteration = 0
        self.damping = 1e-2
        self.parameters = np.zeros(0)
        self.raced: list[tuple[float, list[float], float]] = []
        self.finished: list[tuple[float, float, list[float]]] = []
        self.losses: list[tuple[int, float, int, float, float]] = []
        self.seed = 0
        self.wall_time_s = 0.0
        self.slow = 0

    def save(self, path: Path, fingerprint: str) -> None:
        plain = {
            key: getattr(self, key)
            for key in (
                "phase",
                "member",
                "ridge",
                "iteration",
                "damping",
                "raced",
                "finished",
                "losses",
                "seed",
                "wall_time_s",
                "slow",
            )
        }
        stream = io.BytesIO()
        text = json.dumps({**plain, "fingerprint": fingerprint})
        np.savez(stream, parameters=self.parameters, state=np.frombuffer(text.encode(), np.uint8))
        write_bytes(path, stream.getvalue())

    @classmethod
    def load(cls, path: Path, fingerprint: str) -> _Fit:
        try:
            # From memory: a damaged archive leaves numpy's own handle on a file open.
            with np.load(io.BytesIO(path.read_bytes()), allow_pickle=False) as data:
                plain = json.loads(data["state"].tobytes())
                parameters = np.array(data["parameters"], np.float64)
        except Exception as error:
            # A damaged zip raises anything from BadZipFile to KeyError.
            raise FileFormatError(
                path, None, f"is not a training's state ({error})", "delete it to start the training anew"
            ) from None
        if plain.pop("fingerprint", None) != fingerprint:
            raise InputError(
                "training folder",
                str(path.parent),
                "it holds a training of other frames or settings; use an empty folder",
            )
        fit = cls()
        fit.parameters = parameters
        for key, value in plain.items():
            setattr(fit, key, value)
        fit.losses = [tuple(row) for row in plain["losses"]]
        return fit


class Training:
    """One training: set up from frames and settings, then `run` until done or `step` by step.

    frames: labelled. settings: what to fit. folder: where the state is saved each iteration and the results are
    written; None keeps everything in memory. start: a potential to start from instead of random seeds (same
    species, tables, cutoff and radial basis); further frames then need few iterations.
    held_out: indices of frames kept out of the fit; `split_frames` decides unless given.
    """

    def __init__(
        self,
        frames: Sequence[Atoms],
        settings: TrainingSettings,
        folder: str | Path | None = None,
        *,
        start: MTPotential | None = None,
        held_out: Sequence[int] | None = None,
    ) -> None:
        check_frame_count(len(frames))
        self.settings = settings
        self.frames = without_core(frames, settings.repulsive_core())
        self.folder = None if folder is None else Path(folder)
        if held_out is None:
            self.training, self.held_out = split_frames(frames, settings.held_out)
        else:
            self.held_out = sorted(set(held_out))
            if self.held_out and not 0 <= self.held_out[0] <= self.held_out[-1] < len(frames):
                raise InputError(
                    "held_out", list(held_out), f"indices from 0 to {len(frames) - 1} are expected"
                )
            self.training = [i for i in range(len(frames)) if i not in set(self.held_out)]
            check_frame_count(len(self.training))
        if settings.near_start and start is None:
            raise InputError(
                "training.near_start", True, "it needs a potential to stay near: give start in the settings"
            )
        self.template = self._template(start)
        self.start = start
        names = [f"frame {i}" for i in range(len(frames))]
        pick = [self.frames[i] for i in self.training]
        self.problem = Problem(self.template, pick, settings, [names[i] for i in self.training])
        self.check = Problem(
            self.template,
            [self.frames[i] for i in self.held_out],
            settings,
            [names[i] for i in self.held_out],
        )
        self.prior = self._prior(pick)
        counts = pair_weights(self.template, self.problem)
        excluded = counts < settings.minimum_pairs
        # Both directions of a pair or neither: one alone would break the balance of the site energies.
        self.excluded = excluded | excluded.T
        if settings.near_start:
            # The start knows pairs that these frames may lack; what it excluded itself stays so.
            self.excluded = ~np.any(self.template.radial_coefficients != 0.0, axis=(2, 3))
        present = {s for f in pick for s in f.get_chemical_symbols()}
        self.absent = [s for s in settings.species if s not in present]
        free = np.ones(self.template.parameters.size, bool)
        radial = np.broadcast_to(~self.excluded[:, :, None, None], self.template.radial_coefficients.shape)
        free[-radial.size :] = radial.ravel()
        self.free = np.flatnonzero(free)
        self.fingerprint = self._fingerprint()
        path = None if self.folder is None else self.folder / STATE_NAME
        if path is not None and path.exists():
            self.fit = _Fit.load(path, self.fingerprint)
        else:
            self.fit = _Fit()
        self._evaluated: tuple[FloatArray, float, FloatArray, FloatArray] | None = None

    def _template(self, start: MTPotential | None) -> MTPotential:
        s = self.settings
        if start is not None:
            if start.species != s.species:
                raise InputError(
                    "start", start.species, f"a potential for {', '.join(s.species)} is expected"
                )
            fresh = untrained(
                s.species,
                s.level,
                cutoff=start.cutoff,
                min_distance=start.min_distance,
                rng=np.random.default_rng(0),
                radial_basis_size=s.radial_basis_size,
            )
            same = (
                start.cutoff == s.cutoff
                and start.radial_coefficients.shape == fresh.radial_coefficients.shape
                and np.array_equal(start.alpha_index_basic, fresh.alpha_index_basic)
                and np.array_equal(start.alpha_index_times, fresh.alpha_index_times)
            )
            if not same:
                raise InputError(
                    "start", start.name, f"it is not of level {s.level}, cutoff {s.cutoff} angstrom"
                )
            return start
        shortest = s.min_distance
        if shortest is None:
            shortest = min(shortest_distance(frame, s.cutoff) for frame in self.frames)
            shortest = float(np.floor(shortest * 20.0) / 20.0)
        if not 0.0 <= shortest < s.cutoff:
            raise InputError(
                "training.min_distance", shortest, f"0 to the cutoff {s.cutoff} angstrom is allowed"
            )
        return untrained(
            s.species,
            s.level,
            cutoff=s.cutoff,
            min_distance=float(shortest),
            rng=np.random.default_rng(0),
            radial_basis_size=s.radial_basis_size,
        )

    def _prior(self, frames: Sequence[Atoms]) -> FloatArray:
        if self.settings.near_start:
            assert self.start is not None
            fitted = self._shifted_energies(frames, self.start)
        else:
            fitted = least_squares_energies(frames, self.settings.species)
        unknown = sorted(set(self.settings.species_energies) - set(self.settings.species))
        if unknown:
            raise InputError("training.species_energies", unknown, "only trained species may be named")
        return np.array([self.settings.species_energies.get(s, fitted[s]) for s in self.settings.species])

    def _shifted_energies(self, frames: Sequence[Atoms], start: MTPotential) -> dict[str, float]:
        """The start's species energies plus the least-squares difference of the labels' energies from its own."""
        rest = []
        for frame, found in zip(frames, predict(start, frames), strict=True):
            energy, forces, stress = labels_of(frame)
            rest.append(attach(frame, energy - found.energy[0] * len(frame), forces, stress))
        shift = least_squares_energies(rest, self.settings.species)
        known = zip(self.settings.species, start.species_coefficients, strict=True)
        return {s: float(e) + shift[s] for s, e in known}

    def _fingerprint(self) -> str:
        digest = hashlib.sha256(
            json.dumps(self.settings.identity(), separators=(",", ":"), ensure_ascii=False).encode()
        )
        digest.update(self.template.checksum.encode())
        digest.update(json.dumps([self.training, self.held_out, self.start is None]).encode())
        for frame in self.frames:
            energy, forces, stress = labels_of(frame)
            digest.update(structure_hash(frame).encode())
            digest.update(np.float64(energy).tobytes() + np.ascontiguousarray(forces).tobytes())
            digest.update(b"" if stress is None else np.ascontiguousarray(stress).tobytes())
        return digest.hexdigest()

    def _penalty(self, ridge: float) -> tuple[FloatArray, FloatArray]:
        """Diagonal of the quadratic penalty and the values it pulls to, for all parameters."""
        n_moment, n_species = self.template.moment_coefficients.size, self.template.species_count
        diagonal = np.full(self.template.parameters.size, max(ridge, 1e-14))
        centre = np.zeros(diagonal.size)
        if self.settings.near_start and self.start is not None:
            centre = np.array(self.start.parameters)
        diagonal[n_moment : n_moment + n_species] = self.settings.species_prior_weight
        centre[n_moment : n_moment + n_species] = self.prior
        return diagonal, centre

    def _members(self) -> int:
        return 1 if self.start is not None else len(self.settings.seeds)

    def _initial(self, member: int) -> FloatArray:
        if self.start is not None:
            parameters = np.array(self.start.parameters)
        else:
            seeded = untrained(
                self.settings.species,
                self.settings.level,
                cutoff=self.template.cutoff,
                min_distance=self.template.min_distance,
                rng=np.random.default_rng(self.settings.seeds[member]),
                radial_basis_size=self.settings.radial_basis_size,
            )
            parameters = np.array(seeded.parameters)
            # Species that start nearly alike leave a plateau only slowly; 0.2 proved best between 0.03 and 1.
            n_radial = self.template.radial_coefficients.size
            rng = np.random.default_rng([self.settings.seeds[member], 1])
            parameters[-n_radial:] += rng.normal(0.0, 0.2, n_radial)
        fixed = np.setdiff1d(np.arange(parameters.size), self.free)
        parameters[fixed] = 0.0
        return self._projected(parameters, self.settings.ridges[0])[0]

    def _projected(self, parameters: FloatArray, ridge: float) -> tuple[FloatArray, float, float]:
        """The best moment and species coefficients for these radial ones; parameters, loss and cost."""
        diagonal, centre = self._penalty(ridge)
        loss, normal, gradient = self.problem(parameters, "linear")
        if not np.isfinite(loss):
            return parameters, loss, loss
        active = np.arange(gradient.size)
        full = np.zeros(parameters.size)
        full[active] = gradient
        moved = self._shifted(parameters, active, normal, full, diagonal, centre, 0.0)
        # The cost is quadratic in these, so that the gain is known without another evaluation.
        slope = gradient + (diagonal * (parameters - centre))[active]
        step = (moved - parameters)[active]
        gain = -2.0 * slope @ step - step @ normal @ step - diagonal[active] @ step**2
        cost = max(self._cost(loss, parameters, ridge) - float(gain), 0.0)
        return moved, cost - self._cost(0.0, moved, ridge), cost

    @staticmethod
    def _shifted(
        parameters: FloatArray,
        active: Any,
        normal: FloatArray,
        gradient: FloatArray,
        diagonal: FloatArray,
        centre: FloatArray,
        damping: float,
    ) -> FloatArray:
        """One damped Gauss-Newton step in the active parameters, columns scaled to unit norm."""
        from scipy.linalg import LinAlgError, cho_factor, cho_solve

        matrix = normal[np.ix_(active, active)] + np.diag(diagonal[active])
        slope = gradient[active] + diagonal[active] * (parameters[active] - centre[active])
        scale = np.sqrt(np.diag(matrix))
        scale = np.maximum(scale, 1e-12 * scale.max())
        scaled = matrix / np.outer(scale, scale)
        step = None
        floor = 1e-13
        while step is None:
            try:
                factor = cho_factor(scaled + max(damping, floor) * np.eye(len(active)), lower=True)
                step = cho_solve(factor, slope / scale) / scale
            except LinAlgError:
                floor *= 100.0
                if floor > 1.0:
                    raise FramesError(
                        "the fit's equations have no solution; the labels hold values far out of range"
                    ) from None
        moved = parameters.copy()
        moved[active] -= step
        return moved

    def _cost(self, loss: float, parameters: FloatArray, ridge: float) -> float:
        diagonal, centre = self._penalty(ridge)
        return loss + float(diagonal[self.free] @ (parameters - centre)[self.free] ** 2)

    @property
    def done(self) -> bool:
        """Whether nothing is left to do."""
        return self.fit.phase == "done"

    def step(self) -> None:
        """One iteration (or the start of a seed), then the state is saved."""
        fit, started = self.fit, time.perf_counter()
        if fit.phase == "race":
            self._race_step()
        elif fit.phase == "path":
            self._path_step()
        fit.wall_time_s += time.perf_counter() - started
        if self.folder is not None:
            self.folder.mkdir(parents=True, exist_ok=True)
            fit.save(self.folder / STATE_NAME, self.fingerprint)

    def _race_step(self) -> None:
        fit = self.fit
        if fit.iteration == 0 and fit.parameters.size == 0:
            # A fitted potential is near a minimum, where strong damping only costs iterations.
            damping = 1e-2 if self.start is None else 1e-5
            fit.parameters, fit.damping, fit.slow = self._initial(fit.member), damping, 0
            return
        loss, ended = self._iterate(self.settings.ridges[0])
        if not ended and fit.iteration < self.settings.race_iterations and self._members() > 1:
            return
        fit.raced.append((loss, fit.parameters.tolist(), fit.damping))
        fit.member += 1
        fit.parameters, fit.iteration = np.zeros(0), 0
        if fit.member < self._members():
            return
        best = min(range(len(fit.raced)), key=lambda k: fit.raced[k][0])
        fit.parameters, fit.damping = np.array(fit.raced[best][1]), fit.raced[best][2]
        fit.seed = -1 if self.start is not None else self.settings.seeds[best]
        fit.phase, fit.ridge, fit.slow, fit.raced, fit.member = "path", 0, 0, [], best

    def _path_step(self) -> None:
        fit, settings = self.fit, self.settings
        ridge = settings.ridges[fit.ridge]
        loss, ended = self._iterate(ridge)
        if not ended and fit.iteration < settings.iterations:
            return
        checked = self.check(fit.parameters, "loss")[0] if self.held_out else loss
        seed, _, iteration, last, _ = fit.losses[-1]
        fit.losses[-1] = (seed, ridge, iteration, last, checked)
        fit.finished.append((ridge, checked, fit.parameters.tolist()))
        fit.ridge += 1
        fit.iteration, fit.slow = 0, 0
        worse = len(fit.finished) > 1 and checked > 1.05 * min(row[1] for row in fit.finished)
        if fit.ridge == len(settings.ridges) or worse:
            fit.phase = "done"

    def _iterate(self, ridge: float) -> tuple[float, bool]:
        """One accepted Levenberg-Marquardt step; returns the loss and whether no further one is worth it."""
        fit = self.fit
        diagonal, centre = self._penalty(ridge)
        known = self._evaluated
        if known is None or not np.array_equal(known[0], fit.parameters):
            known = (fit.parameters.copy(), *self.problem(fit.parameters))
        _, loss, normal, gradient = known
        cost = self._cost(loss, fit.parameters, ridge)
        moved, growth = None, 2.0
        for _ in range(10):
            stepped = self._shifted(
                fit.parameters, self.free, normal, gradient, diagonal, centre, fit.damping
            )
            # Radial and moment coefficients form a narrow curved valley; this stays on its floor.
            trial, trial_loss, trial_cost = self._projected(stepped, ridge)
            if np.isfinite(trial_cost) and trial_cost < cost:
                moved = trial
                break
            fit.damping *= growth
            growth *= 2.0
        fit.iteration += 1
        seed = fit.seed if fit.phase == "path" else (-1 if self.start else self.settings.seeds[fit.member])
        if moved is None:
            fit.damping = 1e-2  # for the next ridge
            fit.losses.append((seed, ridge, fit.iteration, loss, float("nan")))
            return loss, True
        step = (stepped - fit.parameters)[self.free]
        pull = gradient[self.free] + (diagonal * (fit.parameters - centre))[self.free]
        curvature = normal[np.ix_(self.free, self.free)] @ step + diagonal[self.free] * step
        # Nielsen's rule: the ratio of the gained to the predicted decrease sets the next damping.
        predicted = -float(2.0 * pull @ step + curvature @ step)
        ratio = min((cost - trial_cost) / predicted, 1.0) if predicted > 0.0 else 1.0
        shrink = max(1.0 / 3.0, 1.0 - (2.0 * ratio - 1.0) ** 3)
        fit.damping = max(fit.damping * shrink, 1e-10)
        fit.parameters = moved
        fit.losses.append((seed, ridge, fit.iteration, trial_loss, float("nan")))
        small = (cost - trial_cost) < self.settings.tolerance * cost
        fit.slow = fit.slow + 1 if small else 0
        return trial_loss, fit.slow >= PATIENCE

    def run(self, progress: Callable[[str], None] | None = None) -> TrainingResult:
        """Iterate to the end and write the results. Raises PotentialError for runaway coefficients."""
        while not self.done:
            self.step()
            if progress is not None and self.fit.losses:
                seed, ridge, iteration, loss, _ = self.fit.losses[-1]
                progress(f"seed {seed} ridge {ridge:.0e} iteration {iteration}: loss {loss:.4e}")
        result = self.result()
        if self.folder is not None:
            core = self.settings.repulsive_core()
            if core is not None:
                core.save(self.folder / "potential.core")
            write_mtp(result.potential, self.folder / "potential.mtp")
            write_report(self.folder, result, self.frames)
        return result

    def potential_at(self, parameters: FloatArray, name: str = "MTP") -> MTPotential:
        """The potential with these parameters."""
        from dataclasses import replace

        return replace(self.template.with_parameters(parameters), name=name)

    def result(self) -> TrainingResult:
        """The finished fit. Raises PotentialError where every ridge left a coefficient above the limit."""
        fit, limit = self.fit, self.settings.coefficient_limit
        if not self.done:
            raise InputError("training", fit.phase, "it has not ended; call run() first")
        candidates = []
        for ridge, checked, values in fit.finished:
            potential = self.potential_at(np.array(values))
            worst = max(largest_coefficients(potential).items(), key=lambda item: item[1])
            candidates.append((checked, ridge, potential, worst))
        sound = [c for c in candidates if c[3][1] <= limit]
        if not sound:
            table = "; ".join(f"ridge {c[1]:.0e}: {c[3][0]} {c[3][1]:.3g}" for c in candidates)
            raise PotentialError(
                f"radial coefficients ran away beyond {limit:g} ({table}); label more frames with these pairs, "
                "raise minimum_pairs so that they are excluded, or use stronger ridges"
            )
        checked, ridge, potential, _ = min(sound, key=lambda c: c[0])
        names = self.settings.species
        return TrainingResult(
            potential=potential,
            ridge=ridge,
            seed=fit.seed,
            losses=list(fit.losses),
            largest=largest_coefficients(potential),
            excluded=[
                f"{a}-{b}"
                for i, a in enumerate(names)
                for j, b in enumerate(names)
                if i <= j and self.excluded[i, j]
            ],
            training=self.training,
            held_out=self.held_out,
            wall_time_s=fit.wall_time_s,
        )


def write_report(folder: Path, result: TrainingResult, frames: Sequence[Atoms]) -> Mapping[str, Any]:
    """Write training.json, loss.csv, loss.png and parity.png; returns the content of training.json."""
    from atomistic.mtp.figures import loss_figure, parity_figure

    sets = {
        "training": predict(result.potential, [frames[i] for i in result.training]),
        "held out": predict(result.potential, [frames[i] for i in result.held_out]),
    }
    report = {
        "potential_checksum": result.potential.checksum,
        "ridge": result.ridge,
        "seed": result.seed,
        "wall_time_s": result.wall_time_s,
        "parameters": int(result.potential.parameters.size),
        "largest_radial_coefficient": result.largest,
        "excluded_pairs": result.excluded,
        "errors": {
            name: {g: a.plain() for g, a in accuracy_by_group(p).items()} for name, p in sets.items() if p
        },
    }
    write_bytes(folder / "training.json", json.dumps(report, indent=1).encode())
    rows = [
        f"{s},{r:.17g},{i},{v:.17g},{'' if np.isnan(c) else f'{c:.17g}'}" for s, r, i, v, c in result.losses
    ]
    text = "\n".join(["seed,ridge,iteration,loss,held_out_loss", *rows]) + "\n"
    write_bytes(folder / "loss.csv", text.encode())
    loss_figure(folder / "loss.png", result.losses)
    parity_figure(folder / "parity.png", sets)
    return report


def grown(potential: MTPotential, level: int, rng: np.random.Generator) -> MTPotential:
    """A start for a training at a higher level: the radial functions kept, further ones random, moments not yet fitted.

    The linear solve at the start of a training finds the lower level's moment coefficients again, so that the fit
    begins where that of the lower level ended. Raises InputError for a level that is not higher.
    """
    start = untrained(
        potential.species,
        level,
        cutoff=potential.cutoff,
        min_distance=potential.min_distance,
        rng=rng,
        radial_basis_size=potential.radial_basis_size,
    )
    count = potential.radial_function_count
    if start.moment_coefficients.size <= potential.moment_coefficients.size:
        raise InputError("level", level, "a level above that of the potential is expected")
    radial = np.array(start.radial_coefficients)
    # Envelopes differ by the scaling alone.
    radial[:, :, :count] = potential.radial_coefficients * (potential.scaling / start.scaling)
    n_radial = radial.size
    return start.with_parameters(np.concatenate([start.parameters[:-n_radial], radial.ravel()]))


def train(
    frames: Sequence[Atoms],
    settings: TrainingSettings,
    folder: str | Path | None = None,
    *,
    start: MTPotential | None = None,
    held_out: Sequence[int] | None = None,
    progress: Callable[[str], None] | None = None,
) -> TrainingResult:
    """Fit a potential to labelled frames; the same call resumes a killed one. See `Training`."""
    return Training(frames, settings, folder, start=start, held_out=held_out).run(progress)
