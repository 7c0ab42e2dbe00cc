"""What several files of tests share and is made once: walks of known D, their analysis, an active set."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from alloys import DATA, alloy
from walks import (
    HEAD,
    KELVINS,
    LAYERS,
    walk,
)

from atomistic.analysis import Analysis, analyse
from atomistic.analysis_settings import open_sources
from atomistic.mtp.grade import ActiveSet, select_active_set
from atomistic.mtp.potential import read_mtp
from atomistic.trajectory import save_trajectory


@pytest.fixture(scope="session")
def bulk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three temperatures and two seeds in the own format, and the TOML that names them."""
    folder = tmp_path_factory.mktemp("bulk")
    text = HEAD
    for kelvin in KELVINS:
        for seed in (1, 2):
            save_trajectory(walk(kelvin, seed), folder / f"{kelvin:g}-{seed}.bin")
            text += f'[[runs]]\nfile = "{kelvin:g}-{seed}.bin"\ntemperature_K = {kelvin}\nseed = {seed}\n'
    (folder / "forces.txt").write_text("none\n", encoding="utf-8")
    (folder / "runs.toml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def analysed(bulk: Path) -> Analysis:
    return analyse(open_sources(bulk / "runs.toml"))


@pytest.fixture(scope="session")
def layered(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with layers a third as fast about two planes."""
    folder = tmp_path_factory.mktemp("layered")
    text = HEAD.replace("walks-bulk", "walks-layer") + LAYERS
    for kelvin in KELVINS:
        save_trajectory(walk(kelvin, 1, slow=0.3, across=0.5, frames=600), folder / f"{kelvin:g}.bin")
        text += f'[[runs]]\nfile = "{kelvin:g}.bin"\ntemperature_K = {kelvin}\n'
    (folder / "forces.txt").write_text("none\n", encoding="utf-8")
    (folder / "runs.toml").write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="session")
def graded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ActiveSet]:
    rng = np.random.default_rng(0)
    frames = []
    for seed in range(30):
        atoms = alloy(seed=seed)
        atoms.positions += rng.normal(0, 0.12, atoms.positions.shape)
        frames.append(atoms)
    active_set = select_active_set(read_mtp(DATA), frames)
    path = tmp_path_factory.mktemp("grade") / "p.grade"
    active_set.save(path)
    return path, active_set
