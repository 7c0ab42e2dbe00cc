"""Does a potential hold its atoms? Many short runs from harsh starts, each resumable."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from atomistic.errors import InputError
from atomistic.labels import normalised, write_bytes

if TYPE_CHECKING:
    from ase import Atoms

    from atomistic.mtp.core import RepulsiveCore
    from atomistic.mtp.potential import MTPotential


@dataclass(frozen=True)
class HotStart:
    """One run: system, seed, start and target temperature (K), how it ended, time done and asked for (ps).

    ended: "complete", or "lost", "temperature" (above three times the target + 500 K) as `MDResult.stopped`.
    """

    system: str
    seed: int
    start_temperature_K: float
    temperature_K: float
    ended: str
    time_ps: float
    wanted_ps: float


def hot_starts(
    potential: MTPotential,
    systems: Mapping[str, Callable[[int], Atoms]],
    folder: str | Path,
    *,
    temperature: float,
    factor: float = 1.8,
    starts: int = 5,
    time_ps: float = 100.0,
    timestep_fs: float = 2.0,
    minimise: Sequence[str] = (),
    core: RepulsiveCore | None = None,
    engine: str = "auto",
    say: Callable[[str], None] | None = None,
) -> list[HotStart]:
    """Start every system `starts` times with velocities of factor x temperature, unrelaxed, and run on at temperature.

    systems: by name, a function from a seed to a structure. minimise: names of those relaxed first (random packings,
    whose atoms overlap). temperature: K. The outcomes stand in folder/starts.json; the same call continues.
    """
    from atomistic.lammps import run_md

    if factor <= 0 or time_ps <= 0 or starts < 1:
        raise InputError(
            "factor, time_ps, starts", (factor, time_ps, starts), "numbers above zero are expected"
        )
    unknown = sorted(set(minimise) - set(systems))
    if unknown:
        raise InputError("minimise", unknown, f"systems are {', '.join(systems)}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    outcomes: list[HotStart] = []
    for name, build in systems.items():
        for seed in range(1, starts + 1):
            steps = round(time_ps * 1e3 / timestep_fs)
            run = run_md(
                normalised(build(seed)),
                potential,
                directory=folder / f"{name}-{seed}",
                core=core,
                engine=engine,  # type: ignore[arg-type]
                temperature=temperature,
                start_temperature=factor * temperature,
                steps=steps,
                timestep_fs=timestep_fs,
                minimise=name in minimise,
                ramp_steps=500,
                dump_every=max(1, steps // 50),
                seed=seed,
                temperature_limit=max(3.0 * temperature + 500.0, 2.0 * factor * temperature),
            )
            outcome = HotStart(
                name,
                seed,
                factor * temperature,
                temperature,
                run.stopped or "complete",
                run.steps * timestep_fs * 1e-3,
                time_ps,
            )
            outcomes.append(outcome)
            text = json.dumps([asdict(o) for o in outcomes], indent=1)
            write_bytes(folder / "starts.json", text.encode())
            if say is not None:
                say(f"{name} {seed}: {outcome.ended}, {outcome.time_ps:.1f} of {time_ps:g} ps")
    return outcomes
