"""Input keys of measured spectra: files or folders, what holds for files that do not state it, a circuit."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field, PlainValidator, ValidationInfo, model_validator

from mesoion.config import Model
from mesoion.impedance.circuit_notation import parse_circuit
from mesoion.impedance.readers import Batch, batch_files, read_batch
from mesoion.units import Area, Length, Temperature

Positive = Field(gt=0)


def _path(value: object, info: ValidationInfo) -> str:
    if not isinstance(value, (str, Path)) or not str(value) or "\0" in str(value):
        raise ValueError("give the path of a measured file or a folder of them, relative to the study")
    return str(Path((info.context or {}).get("directory", Path())) / value)


MeasuredPath = Annotated[str, PlainValidator(_path)]
"""A measured file or a folder of them; one that is missing is a problem of the batch, not of the study."""


class MeasuredFiles(Model):
    """Measured files or folders; geometry and temperature hold for files that do not state their own."""

    files: Annotated[list[MeasuredPath], Field(min_length=1)]
    thickness: Annotated[Length, Positive] | None = None
    diameter: Annotated[Length, Positive] | None = None
    area: Annotated[Area, Positive] | None = None
    temperature: Annotated[Temperature, Positive] | None = None

    def further_files(self) -> list[Path]:
        """The measured files and what is known beside them."""
        files, _ = batch_files(self.files)
        sidecars = [f.with_suffix(".toml") for f in files]
        return [f for f in [*files, *sidecars] if f.is_file()]

    def read(self, show_progress: bool | None = None) -> Batch:
        """Spectra of all files, and the problems of those that cannot be used."""
        return read_batch(
            self.files,
            thickness=self.thickness,
            diameter=self.diameter,
            area=self.area,
            temperature=self.temperature,
            show_progress=show_progress,
        )


class FilesForCircuits(MeasuredFiles):
    """Files to fit by a circuit, chosen among arcs, leads and electrode unless given."""

    circuit: Annotated[str, Field(min_length=1)] | None = None
    """In the notation of `circuit_notation`."""
    arcs: Annotated[int, Field(ge=1, le=5)] | None = None
    """Number of arcs, instead of the number the data need."""

    @model_validator(mode="after")
    def _one_circuit(self) -> FilesForCircuits:
        if self.circuit is not None:
            parse_circuit(self.circuit)
            if self.arcs is not None:
                raise ValueError("give a circuit or a number of arcs, not both")
        return self
