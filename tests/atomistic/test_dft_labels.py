"""The shipped PBE labels: the documented fit to them comes nearer to PBE than the shipped potential does."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from ase import Atoms

from atomistic.active_learning import fit_only
from atomistic.labels import attach, read_frames, structure_hash, write_frames
from atomistic.mtp.accuracy import accuracy, predict
from atomistic.mtp.model_card import load_potential
from atomistic.mtp.potential import read_mtp
from atomistic.mtp.training import split_frames

DATA = Path(__file__).parents[2] / "atomistic" / "potentials" / "data"


def refitted_error(frames: list[Atoms], held: list[Atoms], folder: Path) -> float:
    """Force error on `held` after the documented fit, two iterations of it, to `frames`."""
    text = (DATA / "lstz-pbe.toml").read_text().replace("iterations = 6", "iterations = 2")
    assert "iterations = 2" in text
    folder.mkdir()
    (folder / "fit.toml").write_text(text)
    write_frames(folder / "labels.xyz", frames)
    fit_only(folder / "fit.toml", [folder / "labels.xyz"], folder / "out")
    return accuracy(predict(read_mtp(folder / "out" / "potential.mtp"), held)).force_rmse


def test_labels_of_another_functional_are_learned(tmp_path: Path) -> None:
    """Labels that repeat the shipped potential's own energies and forces leave its error where it was."""
    frames = read_frames(DATA / "lstz-pbe.labels.xyz.gz", labelled=True)
    for frame in frames:
        assert frame.info["teacher"] == "gpaw"
        assert "PBE" in frame.info["teacher_version"]
        assert frame.info["structure"] == structure_hash(frame)
    held = [frames[i] for i in split_frames(frames, 0.25)[1]]
    start = load_potential("lstz-level12")
    before = accuracy(predict(start, held)).force_rmse
    assert refitted_error(frames, held, tmp_path / "pbe") < 0.8 * before
    own = [
        attach(f, p.energy[0] * len(f), p.forces[0], None)
        for f, p in zip(frames, predict(start, frames), strict=True)
    ]
    np.testing.assert_allclose(refitted_error(own, held, tmp_path / "own"), before, rtol=0.01, atol=0)
