"""Which transport records a pellet is predicted from: those of our own runs, or those read off the literature."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from mesoion.errors import InputError
from mesoion.material import Material
from mesoion.transport import list_records

Origin = Literal["own", "literature"]

LABELS: dict[str, str] = {"own": "own records", "literature": "published records"}
"""What a prediction is called by the origin of its records."""


@dataclass(frozen=True)
class NamedRecords:
    """Records of one pellet by name or path; `material` loads them.

    where: the pellet's place in the study, for messages. slot: the keys they stand under, "own" or "literature".
    """

    where: str
    slot: Origin
    grain: str
    boundaries: Mapping[str, str]

    @property
    def missing(self) -> tuple[str, ...]:
        """Names that are no shipped record; a path is not among them, since it is read and refused by itself."""
        shipped = list_records()
        return tuple(
            name
            for name in dict.fromkeys((self.grain, *self.boundaries.values()))
            if not (name.endswith(".json") or "/" in name or name in shipped)
        )

    def material(self, relative_permittivity: float | None) -> Material:
        """The material; InputError for an unknown or damaged record, or a published one under a key of own ones."""
        material = Material.from_records(
            self.grain, self.boundaries, relative_permittivity=relative_permittivity
        )
        if self.slot == "own":
            for key, record in (("own_grain", material.bulk), *material.boundaries.items()):
                if record.origin != "own":
                    place = key if key == "own_grain" else f"boundaries.{key}.own_record"
                    raise InputError(
                        f"{self.where}.{place}",
                        record.name,
                        f"this record's origin is {record.origin!r}; give a record of an own run",
                    )
        return material


@dataclass(frozen=True)
class Prediction:
    """A material and what its records are called."""

    label: str
    material: Material


@dataclass(frozen=True)
class Choice:
    """What a pellet is predicted from.

    first: what spectra, pictures and words are made of; None where nothing named is shipped. beside: the other
    records, for comparison. said: what a reader must know of the choice; empty where the wanted records were there.
    """

    first: Prediction | None
    beside: Prediction | None
    said: str


def label_of(material: Material) -> str:
    """ "own records", "published records", or both, by the origins of the material's records."""
    origins = {r.origin for r in (material.bulk, *material.boundaries.values())}
    if len(origins) > 1:
        return "own and published records"
    return LABELS[origins.pop()]


def choose(
    named: Mapping[Origin, NamedRecords], wanted: Origin, relative_permittivity: float | None
) -> Choice:
    """The records a pellet is predicted from first, and those beside.

    named: by origin; an origin the study does not name is absent. Own records that are not shipped give way to the
    literature's, which is said. Raises InputError for records that are damaged, of the wrong region or origin, and for
    unknown literature records.
    """
    said: list[str] = []
    found: dict[Origin, Prediction] = {}
    own, literature = named.get("own"), named.get("literature")
    if own is not None and own.missing:
        missing = ", ".join(own.missing)
        said.append(f"no own record {missing} is shipped")
    elif own is not None:
        found["own"] = Prediction(LABELS["own"], own.material(relative_permittivity))
    if literature is not None:
        material = literature.material(relative_permittivity)
        found["literature"] = Prediction(label_of(material), material)
    other: Origin = "literature" if wanted == "own" else "own"
    if wanted in found:
        return Choice(found[wanted], found.get(other), "")
    if wanted == "own" and own is None:
        said.append("the study names no own records for it")
    if wanted == "literature":
        said.append("the study names no published records for it")
    if other not in found:
        return Choice(None, None, f"Left out: {'; '.join(said)}.")
    if found[other].label == LABELS[wanted]:
        return Choice(found[other], None, "")
    return Choice(found[other], None, f"Predicted from {found[other].label}: {'; '.join(said)}.")
