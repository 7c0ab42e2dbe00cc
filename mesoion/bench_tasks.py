"""The work that `mesoion bench` times, one task a process: `python -m mesoion.bench_tasks TASK '{"options": ...}'`.

Each task prints its rows as JSON lines as they are ready. In a row that names a peer, both sides solved the same
equations on the same cells, alternating in the same process on one thread; `agreement` is how far their answers are
apart and `agreement_limit` what is allowed: a ratio of different answers counts for nothing.
"""

from __future__ import annotations

import gc
import json
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.constants import k as boltzmann

from mesoion.bench_peers import DevsimPNP, FiPyConcentration
from mesoion.errors import MeshError, MesoionError
from mesoion.layered_mesh import layered_mesh
from mesoion.material import Phase
from mesoion.mesh import CellMesh, tensor_mesh
from mesoion.microstructure import Microstructure, polycrystal
from mesoion.physics import CellFields, Electrode
from mesoion.smallsignal import impedance
from mesoion.solve import PNPSystem, State

Floats = NDArray[np.float64]
Row = dict[str, Any]

TEMPERATURE, SITES, WIDTH, BIAS = 298.15, 1.7e28, 2e-9, 0.1
PEER_CELL = 0.05e-9
ELECTRODES = {"left": Electrode(), "right": Electrode()}
FREQUENCIES: Floats = np.logspace(-2, 11, 60)


def phases(relative_permittivity: float) -> dict[str, Phase]:
    """A grain of 0.1 S/m and a boundary 100 times less conducting that repels Li by 4 kT."""
    fixed, eps = -0.5 * SITES, relative_permittivity
    energy = 4.0 * boltzmann * TEMPERATURE
    return {
        "grain": Phase("grain", TEMPERATURE, SITES, 0.5, fixed, eps, 0.1, 0.1, 0.0),
        "general": Phase("general", TEMPERATURE, SITES, 0.5, fixed, eps, 1e-3, 1e-3, energy, WIDTH),
    }


def bicrystal_mesh(n_cells: int = 256, grain: float = 500e-9, first: float = 0.01e-9) -> CellMesh:
    """n_cells cells, graded away from both interfaces of a layer in the middle of two grains [m]."""

    def graded(length: float, n: int) -> Floats:
        # Sizes first, first q, first q², ... that fill `length` with n cells.
        low, high = 1.0 + 1e-9, 10.0
        for _ in range(200):
            q = 0.5 * (low + high)
            low, high = (q, high) if first * (q**n - 1.0) / (q - 1.0) < length else (low, q)
        sizes = first * q ** np.arange(n)
        return np.concatenate([[0.0], np.cumsum(sizes) * (length / sizes.sum())])

    inside = 0.5 * WIDTH - graded(0.5 * WIDTH, n_cells // 8)[::-1]
    half = np.concatenate([inside, 0.5 * WIDTH + graded(grain, n_cells // 2 - n_cells // 8)[1:]])
    mesh = tensor_mesh([np.concatenate([-half[:0:-1], half])])
    layer = np.abs(mesh.centers[:, 0]) < 0.5 * WIDTH
    mesh = mesh.with_regions(layer.astype(np.int64), ["grain", "general"])
    return replace(mesh, layer_normals=layer[:, np.newaxis].astype(float))


def grains(n_grains: int, periodic: tuple[bool, bool]) -> tuple[Microstructure, int]:
    """Grains of 140 nm of the first seed whose layers of 2 nm can be meshed, and that seed."""
    for seed in range(20):
        structure = polycrystal(
            n_grains, 140e-9, size_spread=0.3, rng=np.random.default_rng(seed), periodic=periodic
        )
        try:
            layered_mesh(structure, {"general": WIDTH})
        except MeshError:
            continue
        return structure, seed
    raise MeshError(f"no seed from 0 to 19 gives {n_grains} grains that can be meshed")


# Timing -------------------------------------------------------------------------------------------------------


def timed(prepare: Callable[[], Any], work: Callable[[Any], Any], least: float = 0.02) -> tuple[float, Any]:
    """CPU seconds of one work(prepare()), averaged over as many as fill `least` seconds, and the last result.

    Only the work is timed, without garbage collection. On one thread CPU time is the time on a quiet machine.
    """
    total, count, result = 0.0, 0, None
    gc.collect()
    gc.disable()
    try:
        while count == 0 or total < least:
            subject = prepare()
            start = time.process_time()
            result = work(subject)
            total += time.process_time() - start
            count += 1
    finally:
        gc.enable()
    return total / count, result


def _given(subject: Any) -> Callable[[], Any]:
    """What hands out `subject`, for `timed`."""
    return lambda: subject


def row(
    name: str,
    own: Sequence[float],
    peer: str,
    theirs: Sequence[float],
    agreement: float,
    *,
    target: float | None = None,
    limit: float = 1e-2,
    note: str = "",
    unknowns: int,
) -> Row:
    """One comparison: medians over repetitions, the ratio's median taken repetition by repetition."""
    ratio = float(np.median(np.asarray(theirs) / np.asarray(own)))
    agrees = bool(agreement <= limit)
    return {
        "name": name,
        "own_seconds": float(np.median(own)),
        "peer": peer,
        "peer_seconds": float(np.median(theirs)),
        "ratio": ratio,
        "target": target,
        "met": None if target is None else bool(agrees and ratio >= target),
        "agreement": float(agreement),
        "agreement_limit": limit,
        "agrees": agrees,
        "repeats": len(own),
        "unknowns": unknowns,
        "note": note,
    }


def value_row(
    name: str, value: float, unit: str, *, target: float | None = None, note: str = "", **more: Any
) -> Row:
    """One measured number, to stay at or below its target."""
    met = None if target is None else bool(value <= target)
    return {
        "name": name,
        "value": float(value),
        "unit": unit,
        "target": target,
        "met": met,
        "note": note,
        **more,
    }


def skipped(name: str, peer: str, why: object) -> Row:
    """A comparison that could not be made."""
    return {"name": name, "peer": peer, "skipped": str(why)}


def emit(result: Row) -> None:
    """Print a row for the parent process."""
    print("ROW " + json.dumps(result), flush=True)


# The comparisons ----------------------------------------------------------------------------------------------


class _Own:
    """The kernel's side of a comparison."""

    def __init__(self, mesh: CellMesh, fields: CellFields) -> None:
        self.mesh, self.fields = mesh, fields
        self.system = self.fresh()
        self.rest = self.system.equilibrium()
        self.biased = self.system.steady_state({"right": BIAS})
        self.spectrum = impedance(self.system, self.rest, FREQUENCIES).impedance
        self.unknowns = self.system.discretisation.n_unknowns

    def fresh(self) -> PNPSystem:
        """A system that has not been solved."""
        return PNPSystem(self.mesh, self.fields, TEMPERATURE, ELECTRODES, resolution="warn")

    def equilibrium(self) -> float:
        """Seconds of an equilibrium."""
        return timed(self.fresh, lambda system: system.equilibrium())[0]

    def direct_current(self) -> float:
        """Seconds of a steady state from equilibrium."""
        return timed(lambda: self.system, lambda system: system.steady_state({"right": BIAS}))[0]

    def spectra(self) -> float:
        """Seconds of 60 frequencies about equilibrium."""
        return timed(lambda: self.system, lambda system: impedance(system, self.rest, FREQUENCIES))[0]

    def off_current(self, current: float) -> float:
        """Relative difference of a peer's current."""
        return abs(current / self.biased.current("right") - 1.0)

    def off_potential(self, potential: Floats) -> float:
        """Difference of a peer's equilibrium potential relative to the largest."""
        return float(np.abs(potential - self.rest.potential).max() / np.abs(self.rest.potential).max())


class _Times:
    """Seconds of both sides, repetition by repetition, and how far their answers are apart, for each kind of work."""

    def __init__(self, kinds: Sequence[str]) -> None:
        self.own: dict[str, list[float]] = {kind: [] for kind in kinds}
        self.peer: dict[str, list[float]] = {kind: [] for kind in kinds}
        self.off = dict.fromkeys(kinds, 0.0)

    def add(self, kind: str, own: float, peer: float, off: float) -> None:
        """One repetition."""
        self.own[kind].append(own)
        self.peer[kind].append(peer)
        self.off[kind] = max(self.off[kind], off)

    def emit(
        self, label: str, peer: str, unknowns: int, targets: dict[str, float], notes: dict[str, str]
    ) -> None:
        """Print the rows."""
        for kind in self.own:
            result = row(
                f"{label}: {kind}",
                self.own[kind],
                peer,
                self.peer[kind],
                self.off[kind],
                target=targets.get(kind),
                note=notes.get(kind, ""),
                unknowns=unknowns,
            )
            emit(result)


REST, DC, AC = "equilibrium", "DC 0.1 V", "60 frequencies"


def _scaled(frequencies: Floats) -> str:
    whole = len(frequencies) == len(FREQUENCIES)
    return "" if whole else f"; the peer measured at {len(frequencies)} of the 60 frequencies and scaled"


def against_devsim(own: _Own, label: str, repeats: int, targets: dict[str, float], stride: int) -> None:
    """Equilibrium, DC and 60 frequencies against DEVSIM, whose time for every `stride`-th frequency is scaled."""
    frequencies = FREQUENCIES[::stride]
    scale = len(FREQUENCIES) / len(frequencies)
    times = _Times((REST, DC, AC))
    try:
        for _ in range(repeats):
            peer = DevsimPNP(own.mesh, own.fields, TEMPERATURE)

            def rest(_: Any, peer: DevsimPNP = peer) -> int:
                return peer.equilibrium()

            def bias(_: Any, peer: DevsimPNP = peer) -> int:
                return peer.steady_state(BIAS)

            def back(peer: DevsimPNP = peer) -> int:
                return peer.steady_state(0.0)

            def spectrum(_: Any, peer: DevsimPNP = peer) -> Any:
                return peer.impedance(frequencies)

            mine = own.equilibrium()
            seconds, _result = timed(list, rest)
            times.add(REST, mine, seconds, own.off_potential(peer.potential))
            peer.contacts()
            mine = own.spectra()
            seconds, z = timed(list, spectrum)
            times.add(AC, mine, seconds * scale, float(np.abs(z / own.spectrum[::stride] - 1.0).max()))
            mine = own.direct_current()
            seconds, _result = timed(back, bias)
            times.add(DC, mine, seconds, own.off_current(peer.current))
    except MesoionError as error:
        for kind in (REST, DC, AC):
            emit(skipped(f"{label}: {kind}", "DEVSIM", error))
        return
    note = peer.version
    times.emit(
        label, "DEVSIM", own.unknowns, targets, {REST: note, DC: note, AC: note + _scaled(frequencies)}
    )


def against_fipy(
    own: _Own, label: str, repeats: int, solver: str, targets: dict[str, float], count: int
) -> None:
    """The same against FiPy with its "stock" LU solver or with "ours", and `count` of the 60 frequencies."""
    from mesoion.fipy_pnp import FiPyPNP

    frequencies = FREQUENCIES[:: max(1, len(FREQUENCIES) // count)]
    picked = np.isin(FREQUENCIES, frequencies)
    times = _Times((REST, DC, AC))

    def fresh() -> FiPyPNP:
        chosen = stock_solver() if solver == "stock" else None
        return FiPyPNP(own.mesh, own.fields, TEMPERATURE, ELECTRODES, solver=chosen)

    for _ in range(repeats):
        peer = fresh()

        mine = own.equilibrium()
        seconds, state = timed(_given(peer), lambda subject: subject.equilibrium(), 0.0)
        times.add(REST, mine, seconds, own.off_potential(state.potential))
        mine = own.direct_current()
        seconds, state = timed(_given(peer), lambda subject: subject.steady_state({"right": BIAS}), 0.0)
        times.add(DC, mine, seconds, own.off_current(state.current["right"]))
        mine = own.spectra()
        seconds, z = timed(_given(peer), lambda subject: subject.impedance(frequencies, "right"), 0.0)
        off = float(np.abs(z / own.spectrum[picked] - 1.0).max())
        times.add(AC, mine, seconds * len(FREQUENCIES) / len(frequencies), off)
    note = "potential and electrochemical potential"
    times.emit(
        label,
        f"FiPy, {solver} solver",
        own.unknowns,
        targets,
        {REST: note, DC: note, AC: note + _scaled(frequencies)},
    )


def stock_solver() -> Any:
    """FiPy's LU solver, asked for the accuracy that the others reach."""
    from fipy.solvers.scipy import LinearLUSolver

    return LinearLUSolver(tolerance=1e-10, iterations=10)


def against_fipy_concentrations(own: _Own, label: str, repeats: int, target: float | None) -> None:
    """DC against FiPy in potential and concentration, the form its users write first, with its own LU solver."""
    times = _Times((DC,))
    for _ in range(repeats):
        peer = FiPyConcentration(own.mesh, own.fields, TEMPERATURE, stock_solver())

        mine = own.direct_current()
        seconds, current = timed(
            _given(peer), lambda subject: subject.steady_state(BIAS, own.rest.potential), 0.0
        )
        times.add(DC, mine, seconds, own.off_current(current))
    targets = {} if target is None else {DC: target}
    notes = {DC: "the form FiPy's users write first, with FiPy's own LU solver"}
    times.emit(label, "FiPy, potential and concentration", own.unknowns, targets, notes)


def task_bicrystal(repeats: int, fipy_frequencies: int, fipy_repeats: int) -> None:
    """1D: a resolved boundary between two grains, 256 cells."""
    mesh = bicrystal_mesh()
    own = _Own(mesh, CellFields.from_phases(mesh, phases(100.0)))
    against_devsim(own, "1D bicrystal", repeats, {DC: 3.0, AC: 20.0}, 1)
    against_fipy_concentrations(own, "1D bicrystal", fipy_repeats, 200.0)
    against_fipy(own, "1D bicrystal", fipy_repeats, "stock", {AC: 400.0}, fipy_frequencies)
    against_fipy(own, "1D bicrystal", fipy_repeats, "our", {}, fipy_frequencies)


def task_polycrystal_peers(
    n_grains: int,
    repeats: int,
    devsim_stride: int,
    fipy_frequencies: int,
    fipy_repeats: int,
    stock_repeats: int,
    judged: bool,
) -> None:
    """2D: resolved layers, each peer on the same cells; FiPy's own LU solver takes minutes and 0 leaves it out.

    judged: compare with the targets, which are set for 70 000 unknowns.
    """
    structure, _ = grains(n_grains, (False, False))
    # DEVSIM has no point on interfaces: its answer needs small cells there to be the same.
    mesh = layered_mesh(structure, {"general": WIDTH}, first_cell=PEER_CELL)
    own = _Own(mesh, CellFields.from_phases(mesh, phases(12085.0)))
    label = f"2D, {n_grains} grains"
    against_devsim(own, label, repeats, {DC: 2.5, AC: 60.0} if judged else {}, devsim_stride)
    against_fipy(own, label, fipy_repeats, "our", {}, fipy_frequencies)
    if stock_repeats:
        against_fipy(own, label, stock_repeats, "stock", {DC: 4.0, AC: 200.0} if judged else {}, 2)


# Measurements of our own --------------------------------------------------------------------------------------


def task_grains(n_grains: int, repeats: int) -> None:
    """Time and peak memory of one resolved 2D polycrystal: mesh, equilibrium, DC, 60 frequencies."""
    import resource

    # Compiled kernels are loaded once a process, whatever its size: not part of any time below.
    few, _seed = grains(6, (False, True))
    small = layered_mesh(few, {"general": WIDTH})
    warm = PNPSystem(
        small, CellFields.from_phases(small, phases(12085.0)), TEMPERATURE, ELECTRODES, resolution="warn"
    )
    impedance(warm, warm.equilibrium(), FREQUENCIES)
    warm.steady_state({"right": BIAS})
    structure, seed = grains(n_grains, (False, True))
    start = time.process_time()
    mesh = layered_mesh(structure, {"general": WIDTH})
    meshing = time.process_time() - start
    fields = CellFields.from_phases(mesh, phases(12085.0))
    seconds: dict[str, list[float]] = {"set-up": [], "equilibrium": [], "DC": [], "spectrum": []}
    for _ in range(repeats):

        def build(_: Any) -> PNPSystem:
            return PNPSystem(mesh, fields, TEMPERATURE, ELECTRODES, resolution="warn")

        def rest_of(system: PNPSystem) -> State:
            return system.equilibrium()

        def biased(rest: State) -> State:
            return rest.system.steady_state({"right": BIAS})

        def spectrum_of(rest: State) -> Any:
            return impedance(rest.system, rest, FREQUENCIES)

        build_time, system = timed(list, build, 0.0)
        rest_time, rest = timed(_given(system), rest_of, 0.0)
        dc, _biased = timed(_given(rest), biased, 0.0)
        ac, spectrum = timed(_given(rest), spectrum_of, 0.0)
        for name, value in zip(seconds, (build_time, rest_time, dc, ac), strict=True):
            seconds[name].append(value)
    # Linux counts kilobytes, macOS bytes.
    unit = 1024.0**2 if sys.platform == "darwin" else 1024.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
    medians = {name: float(np.median(values)) for name, values in seconds.items()}
    emit(
        value_row(
            f"2D, {n_grains} grains: mesh, equilibrium, DC and 60 frequencies",
            meshing + sum(medians.values()),
            "s",
            note=f"seed {seed}",
            grains=n_grains,
            cells=mesh.n_cells,
            unknowns=system.discretisation.n_unknowns,
            peak_memory_MiB=float(peak),
            real_solves=spectrum.n_solves,
            spectrum_error_bound=float(np.max(spectrum.error_bound)),
            mesh_seconds=meshing,
            set_up_seconds=medians["set-up"],
            equilibrium_seconds=medians["equilibrium"],
            dc_seconds=medians["DC"],
            spectrum_seconds=medians["spectrum"],
        )
    )


def task_sweep(n_grains: int, points: int) -> None:
    """Grain size x GB width: full solves the reduced basis needs for a bound of 1e-4, and its truth at corners."""
    from mesoion.collapsed import CollapsedPolycrystal
    from mesoion.reduced import BoundaryRange, ReducedPolycrystal

    structure = polycrystal(n_grains, 1e-6, rng=np.random.default_rng(0), periodic=(True, True))
    # Layers up to a tenth of a grain need their pairs of generators that far apart.
    collapsed = CollapsedPolycrystal(structure, pair_distance=0.12)
    side = round(points**0.5)
    sizes, widths = np.geomspace(50e-9, 20e-6, side), np.geomspace(0.5e-9, 5e-9, side)
    ratios, sigma = (1e-3, 0.03, 0.4), 0.1
    span = BoundaryRange(
        ratio=(ratios[0], ratios[-1]), width=(widths[0] / sizes[-1], widths[-1] / sizes[0]), phase=0.0
    )

    def built(_: Any) -> ReducedPolycrystal:
        return ReducedPolycrystal.build(collapsed, {"general": span}, 1e-4)

    build, model = timed(list, built, 0.0)
    grids = np.meshgrid(np.array(ratios), sizes, widths, indexing="ij")
    ratio, size, width = (grid.ravel() for grid in grids)

    def layer(ratio: Any, w: Any) -> tuple[dict[str, Any], dict[str, Any]]:
        return {"general": w * (1.0 / ratio - 1.0) / sigma}, {"general": w * (ratio - 1.0) * sigma}

    def whole(_: Any) -> Any:
        return model.effective_many(sigma, *layer(ratio, width), grain_size=size)

    seconds, (tensors, bounds) = timed(list, whole)
    solves = model.full_solves
    off = 0.0
    checked = [
        r * side**2 + i for r in range(len(ratios)) for i in (0, side - 1, side**2 - side, side**2 - 1)
    ]
    for index in checked:
        # The same polycrystal scaled to that grain size.
        scale = collapsed.grain_size / size[index]
        full = collapsed.effective(sigma, *layer(ratio[index], width[index] * scale))
        off = max(off, float(np.abs(tensors[index] - full).max() / np.abs(full).max()))
    agrees = off <= 1e-4 and float(bounds.max()) <= 1e-4
    result = value_row(
        f"grain size x width sweep, {len(size)} points: full solves",
        solves,
        "solves",
        target=12.0,
        note=f"{n_grains} grains; sizes 50 nm to 20 µm, widths 0.5 to 5 nm, boundary over grain conductivity 1e-3, "
        f"0.03 and 0.4; largest bound {bounds.max():.1e}, largest error at {len(checked)} full solves {off:.1e}, "
        f"{1e6 * seconds / len(size):.1f} µs a point",
        largest_bound=float(bounds.max()),
        largest_error=off,
        build_seconds=build,
        seconds_per_point=seconds / len(size),
    )
    result["met"] = bool(result["met"] and agrees)
    emit(result)


TASKS: dict[str, Callable[..., None]] = {
    "bicrystal": task_bicrystal,
    "polycrystal_peers": task_polycrystal_peers,
    "grains": task_grains,
    "sweep": task_sweep,
}

if __name__ == "__main__":
    TASKS[sys.argv[1]](**json.loads(sys.argv[2]))
