"""A study small enough to run in milliseconds, for tests of the machinery around studies."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pandas as pd
from pydantic import Field

from mesoion.config import InputFile, Model, StudyModel
from mesoion.errors import ConvergenceError
from mesoion.runfolder import Comparison, RunFolder
from mesoion.units import Length, Temperature


class Layer(Model):
    type: Literal["layer"] = "layer"
    width: Annotated[Length, Field(gt=0, lt=1e-6)]
    temperature: Temperature = 298.15


class Gap(Model):
    type: Literal["gap"] = "gap"
    height: Annotated[float, Field(ge=0)] = 0.0


class Study(StudyModel):
    kind: Literal["toy"] = "toy"
    layers: Annotated[list[Annotated[Layer | Gap, Field(discriminator="type")]], Field(min_length=1)]
    points: Annotated[int, Field(ge=2, le=50)] = 5
    spread: tuple[float, float] = (0.0, 1.0)
    notes: InputFile | None = None
    log: str = ""
    fail: Literal["", "newton", "value"] = ""


def thickness(widths: list[float], log: str) -> float:
    """Sum of widths; leaves a line in `log` each time it really runs."""
    if log:
        with Path(log).open("a") as stream:
            stream.write("ran\n")
    return float(np.sum(widths))


def run(study: Study, folder: RunFolder, rng: np.random.Generator) -> None:
    widths = [layer.width for layer in study.layers if isinstance(layer, Layer)]
    total = folder.once(thickness, widths=widths, log=study.log)
    if study.fail == "newton":
        last = {"potential": np.linspace(0, 0.1, 4)}
        raise ConvergenceError("no convergence", at="0.2 V", last_good=last["potential"])
    frequencies = np.logspace(6, 0, study.points)
    noise = rng.normal(size=study.points)
    folder.result("thickness", {"value": total, "low": 0.9 * total, "high": 1.1 * total})
    folder.spectrum("toy", frequencies, total / (1 + 1j * frequencies / 1e3) * (1 + 0.01 * noise))
    folder.table("noise", pd.DataFrame({"noise": noise}))
    folder.result("noise", noise)
    folder.compare(Comparison("toy", "thickness", "m", total, 0.9 * total, 1.1 * total, 2e-9, "a ruler"))
    folder.paragraph("Words", "One.\n\nTwo <b>tags</b>.")
    if study.fail == "value":
        folder.result("bad", float("nan"))
