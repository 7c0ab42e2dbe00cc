"""Trajectories: every format against the walk it was written from, and every damage by name."""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms

from atomistic.errors import AtomisticError, FileFormatError, InputError, TrajectoryError
from atomistic.trajectory import Trajectory, open_trajectory, read_trajectory, save_trajectory
from atomistic.trajectory_store import RESOLUTION, TrajectoryWriter

SPECIES = ("Li", "Li", "Zr", "O", "O", "O")
TYPES = {"Li": 1, "Zr": 2, "O": 3}
BY_TYPE = {kind: symbol for symbol, kind in TYPES.items()}


def walk(frames: int = 40, seed: int = 3, breathing: float = 0.02, step: float = 0.5) -> Trajectory:
    """A walk through several cells, in a tilted cell that breathes."""
    rng = np.random.default_rng(seed)
    cell = np.array([[6.0, 0, 0], [1.5, 7.0, 0], [-0.7, 0.4, 8.0]])
    cells = cell * (1.0 + breathing * rng.normal(size=(frames, 1, 1)))
    steps = rng.normal(scale=step, size=(frames, len(SPECIES), 3))
    steps[0] = 0.0
    start = rng.random((len(SPECIES), 3)) @ cell
    return Trajectory(SPECIES, 0.1 * np.arange(frames), cells, start + np.cumsum(steps, axis=0))


def dump_text(walked: Trajectory, style: str = "xu", shuffle: bool = True, every: int = 100) -> str:
    rng = np.random.default_rng(11)
    columns = {
        "xu": "xu yu zu",
        "xsu": "xsu ysu zsu",
        "image": "x y z ix iy iz",
        "wrapped": "x y z",
        "xs": "xs ys zs ix iy iz",
    }
    origin = np.array([-1.0, 2.0, 0.5])
    out = []
    for k in range(walked.n_frames):
        cell = walked.cells[k]
        scaled = walked.positions[k] @ np.linalg.inv(cell)
        image = np.floor(scaled).astype(int)
        xy, xz, yz = cell[1, 0], cell[2, 0], cell[2, 1]
        low = origin + np.array([min(0, xy, xz, xy + xz), min(0, yz), 0])
        high = origin + np.diag(cell) + np.array([max(0, xy, xz, xy + xz), max(0, yz), 0])
        out.append(f"ITEM: TIMESTEP\n{k * every}\nITEM: NUMBER OF ATOMS\n{walked.n_atoms}")
        out.append("ITEM: BOX BOUNDS xy xz yz pp pp pp")
        out += [f"{lo:.17g} {hi:.17g} {t:.17g}" for lo, hi, t in zip(low, high, (xy, xz, yz), strict=True)]
        out.append(f"ITEM: ATOMS id type {columns[style]}")
        for i in rng.permutation(walked.n_atoms) if shuffle else range(walked.n_atoms):
            values = {
                "xu": walked.positions[k, i] + origin,
                "xsu": scaled[i],
                "image": (scaled[i] - image[i]) @ cell + origin,
                "wrapped": (scaled[i] - image[i]) @ cell + origin,
                "xs": scaled[i] - image[i],
            }[style]
            tail = [str(n) for n in image[i]] if style in ("image", "xs") else []
            kind = TYPES[walked.species[i]]
            out.append(" ".join([str(i + 1), str(kind), *[f"{v:.17g}" for v in values], *tail]))
    return "\n".join(out) + "\n"


def write(path: Path, text: str | bytes) -> Path:
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def frames_of(walked: Trajectory) -> list[Atoms]:
    return [walked.atoms(k, wrap=True) for k in range(walked.n_frames)]


DUMP: dict[str, Any] = {"time_step": 1e-3, "species": BY_TYPE}


@pytest.mark.parametrize("style", ["xu", "xsu", "image", "xs"])
def test_a_dump_in_any_coordinates_is_the_walk_it_came_from(tmp_path: Path, style: str) -> None:
    walked = walk()
    got = read_trajectory(write(tmp_path / "a.dump", dump_text(walked, style)), **DUMP)
    assert got.species == SPECIES
    np.testing.assert_allclose(got.positions, walked.positions, rtol=0, atol=1e-10)
    np.testing.assert_allclose(got.cells, walked.cells, rtol=0, atol=1e-12)
    np.testing.assert_allclose(got.times, walked.times, rtol=1e-12, atol=0)


def test_positions_without_images_follow_the_nearest_image(tmp_path: Path) -> None:
    walked = walk()
    file = write(tmp_path / "a.dump", dump_text(walked, "wrapped"))
    got = read_trajectory(file, **DUMP)
    assert np.abs(got.positions - got.positions[0]).max() > 4.0
    scaled = (got.positions - walked.positions) @ np.linalg.inv(walked.cells)
    np.testing.assert_allclose(scaled, np.tile(scaled[:1], (walked.n_frames, 1, 1)), rtol=0, atol=1e-10)
    np.testing.assert_allclose(scaled, np.rint(scaled), rtol=0, atol=1e-10)


def test_a_breathing_cell_adds_no_displacement_at_the_mean_cell(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    edges = 10.0 * (1 + 0.02 * rng.normal(size=200))
    # Li steps through the wall at every frame; O rests in the middle of the cell.
    outside = 0.005 * (-1.0) ** np.arange(200)
    frames = [
        Atoms("LiO", [[(f % 1) * a, 1, 1], [a / 2, a / 2, a / 2]], cell=[a, a, a], pbc=True)
        for f, a in zip(outside, edges, strict=True)
    ]
    ase.io.write(tmp_path / "a.xyz", frames, format="extxyz")
    got = read_trajectory(tmp_path / "a.xyz", frame_interval=0.1)
    # Structure stays that of the frame, up to its 8 decimals; displacements lose the breathing.
    np.testing.assert_allclose(got.positions[:, 1, 0], edges / 2, rtol=0, atol=1e-7)
    steady = got.at_mean_cell()
    moved = steady.positions - steady.positions[0]
    np.testing.assert_allclose(moved[:, 1], 0, rtol=0, atol=1e-7)
    np.testing.assert_allclose(moved[:, 0, 0], (outside - outside[0]) * edges.mean(), rtol=0, atol=1e-7)


def test_extxyz_and_xdatcar_from_ase(tmp_path: Path) -> None:
    walked = walk(breathing=0.0)
    ase.io.write(tmp_path / "a.xyz", frames_of(walked), format="extxyz")
    ase.io.write(tmp_path / "XDATCAR", frames_of(walked), format="vasp-xdatcar")
    for name, tolerance in (("a.xyz", 1e-6), ("XDATCAR", 2e-6)):
        got = read_trajectory(tmp_path / name, frame_interval=0.1)
        assert sorted(got.species) == sorted(SPECIES)
        moved = got.positions - got.positions[0]
        order = np.argsort(walked.species, kind="stable")
        mine = np.argsort(got.species, kind="stable")
        expected = walked.positions - walked.positions[0]
        np.testing.assert_allclose(moved[:, mine], expected[:, order], rtol=0, atol=tolerance * 40)
        np.testing.assert_allclose(np.diff(got.times), 0.1, rtol=1e-9, atol=0)


def test_gzip_is_read_like_plain_text(tmp_path: Path) -> None:
    text = dump_text(walk()).encode()
    plain = read_trajectory(write(tmp_path / "a.dump", text), **DUMP)
    packed = read_trajectory(write(tmp_path / "a.dump.gz", gzip.compress(text)), **DUMP)
    np.testing.assert_array_equal(packed.positions, plain.positions)


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (7, 1), (7, 3), (1000, 4)])
def test_chunks_join_to_the_whole(tmp_path: Path, size: int, stride: int) -> None:
    walked = walk(41)
    file = open_trajectory(write(tmp_path / "a.dump", dump_text(walked, "wrapped")), **DUMP)
    whole = file.read()
    for source in (file, whole):
        parts = list(source.chunks(size, stride))
        assert max(part.n_frames for part in parts) <= size
        np.testing.assert_array_equal(
            np.concatenate([part.positions for part in parts]), whole.positions[::stride]
        )
        assert [part.first_frame for part in parts] == list(range(0, 41, size * stride))


def test_streaming_keeps_memory_below_the_trajectory(tmp_path: Path) -> None:
    path = tmp_path / "long.bin"
    rng = np.random.default_rng(1)
    frames, atoms = 4000, 100
    start = rng.random((atoms, 3)) * 12
    with TrajectoryWriter(path, ("Li",) * atoms) as writer:
        for k in range(frames):
            writer.append(0.1 * k, 12 * np.eye(3), start + 0.1 * rng.normal(size=(atoms, 3)))
    file = open_trajectory(path)
    tracemalloc.start()
    seen = sum(chunk.n_frames for chunk in file.chunks(100))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert seen == frames
    assert peak < 0.25 * frames * atoms * 3 * 8


# The own format


def test_own_format_rounds_within_half_its_resolution(tmp_path: Path) -> None:
    walked = walk(200)
    path = save_trajectory(walked, tmp_path / "a.bin")
    got = read_trajectory(path)
    error = np.abs(got.positions - walked.positions)
    assert 0.3 * RESOLUTION < error.max() <= 0.5 * RESOLUTION * (1 + 1e-9)
    np.testing.assert_array_equal(got.positions[0], walked.positions[0])
    np.testing.assert_array_equal(got.cells, walked.cells)
    np.testing.assert_array_equal(got.times, walked.times)


def test_own_format_without_rounding_is_float32(tmp_path: Path) -> None:
    walked = walk(200)
    got = read_trajectory(save_trajectory(walked, tmp_path / "a.bin", resolution=None))
    moved = walked.positions - walked.positions[0]
    assert np.all(np.abs(got.positions - walked.positions) <= 2.0**-24 * np.abs(moved) + 1e-14)


def test_own_format_is_smaller_than_half_of_float64(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    steps = np.cumsum(rng.normal(scale=0.02, size=(500, 50, 3)), axis=0)
    run = Trajectory(("Li",) * 50, np.arange(500.0), np.tile(10 * np.eye(3), (500, 1, 1)), steps)
    assert save_trajectory(run, tmp_path / "a.bin").stat().st_size < 0.35 * steps.nbytes


def test_the_same_trajectory_gives_the_same_bytes_and_provenance_returns(tmp_path: Path) -> None:
    file = open_trajectory(write(tmp_path / "run.dump", dump_text(walk())), **DUMP)
    one, two = (save_trajectory(file, tmp_path / name).read_bytes() for name in ("a.bin", "b.bin"))
    assert one == two
    assert open_trajectory(tmp_path / "a.bin").provenance["file"] == "run.dump"


def test_exchanged_species_are_kept(tmp_path: Path) -> None:
    lines = dump_text(walk(12)).replace("\n3 2 ", "\n3 3 ", 6)
    path = write(tmp_path / "mc.dump", lines)
    with pytest.raises(TrajectoryError, match="frame 6: atom 2 is Zr instead of O"):
        read_trajectory(path, **DUMP)
    got = read_trajectory(path, exchanges=True, **DUMP)
    assert [chr_of(got, k) for k in range(12)] == ["O"] * 6 + ["Zr"] * 6
    again = read_trajectory(save_trajectory(got, tmp_path / "mc.bin"))
    assert again.exchanged is not None
    np.testing.assert_array_equal(again.exchanged, got.exchanged)


def chr_of(run: Trajectory, frame: int) -> str:
    return str(run.atoms(frame).get_chemical_symbols()[2])


@pytest.mark.parametrize("cut", [1, 40, 3000])
def test_a_killed_writer_loses_one_block_and_goes_on(tmp_path: Path, cut: int) -> None:
    walked = walk(100)

    def fill(path: Path, last: int, append: bool = False) -> None:
        with TrajectoryWriter(path, SPECIES, frames_per_block=10, append=append) as writer:
            for k in range(last):
                if writer.last_time is None or walked.times[k] > writer.last_time:
                    writer.append(walked.times[k], walked.cells[k], walked.positions[k])

    fill(tmp_path / "whole.bin", 100)
    fill(tmp_path / "killed.bin", 60)
    data = (tmp_path / "killed.bin").read_bytes()
    write(tmp_path / "killed.bin", data[:-cut])
    with pytest.raises(FileFormatError, match="the last complete frame is"):
        read_trajectory(tmp_path / "killed.bin")
    file = open_trajectory(tmp_path / "killed.bin", truncated="drop")
    kept = file.read()
    assert file.truncated
    assert file.last_complete_frame == kept.n_frames - 1
    assert kept.n_frames % 10 == 0
    fill(tmp_path / "killed.bin", 100, append=True)
    assert (tmp_path / "killed.bin").read_bytes() == (tmp_path / "whole.bin").read_bytes()


def test_a_short_run_after_a_kill_leaves_no_rest_of_the_broken_block(tmp_path: Path) -> None:
    walked = walk(60)
    path = save_trajectory(walked.part(slice(0, 50)), tmp_path / "a.bin")
    path.write_bytes(path.read_bytes()[:-1])
    with TrajectoryWriter(path, SPECIES, append=True) as writer:
        assert writer.last_time is None
        writer.append(walked.times[0], walked.cells[0], walked.positions[0])
    assert read_trajectory(path).n_frames == 1


def test_a_flipped_bit_is_found(tmp_path: Path) -> None:
    path = save_trajectory(walk(), tmp_path / "a.bin")
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 4
    with pytest.raises(FileFormatError, match="checksum"):
        read_trajectory(write(tmp_path / "b.bin", bytes(data)))


def test_the_writer_refuses_what_does_not_fit(tmp_path: Path) -> None:
    with TrajectoryWriter(tmp_path / "a.bin", ("Li", "O")) as writer:
        writer.append(1.0, np.eye(3), np.zeros((2, 3)))
        with pytest.raises(TrajectoryError, match="not after"):
            writer.append(1.0, np.eye(3), np.zeros((2, 3)))
        with pytest.raises(TrajectoryError, match="not finite"):
            writer.append(2.0, np.eye(3), np.full((2, 3), np.nan))
        with pytest.raises(TrajectoryError, match="2 atoms"):
            writer.append(2.0, np.eye(3), np.zeros((3, 3)))
    with pytest.raises(InputError, match="holds other atoms"):
        TrajectoryWriter(tmp_path / "a.bin", ("Li", "Li"), append=True)
    with pytest.raises(InputError, match="power of two"):
        TrajectoryWriter(tmp_path / "c.bin", ("Li",), resolution=1e-4)


# Faults, by name and frame


def edit_frame(text: str, frame: int, change: Callable[[list[str]], list[str]]) -> str:
    parts = ["ITEM: TIMESTEP" + part for part in text.split("ITEM: TIMESTEP")[1:]]
    parts[frame] = "\n".join([*change(parts[frame].splitlines()), ""])
    return "".join(parts)


def without_frame(text: str, frame: int) -> str:
    return (
        edit_frame(text, frame, lambda lines: [])[0:]
        if frame < 0
        else "".join(
            "ITEM: TIMESTEP" + part for k, part in enumerate(text.split("ITEM: TIMESTEP")[1:]) if k != frame
        )
    )


def swap_ids(lines: list[str]) -> list[str]:
    return [line.replace("4 3 ", "9 3 ", 1) if line.startswith("4 3 ") else line for line in lines]


def lose_atom(lines: list[str]) -> list[str]:
    return [*lines[:3], "5", *lines[4:-1]]


@pytest.mark.parametrize(
    ("damage", "error", "message"),
    [
        (lambda text: without_frame(text, 7), TrajectoryError, "frame 7: step 800 .* 1 frames are missing"),
        (
            lambda text: edit_frame(text, 7, lambda lines: [lines[0], "650", *lines[2:]]),
            TrajectoryError,
            "frame 7: step 650 .* uneven",
        ),
        (
            lambda text: edit_frame(text, 7, lambda lines: [lines[0], "600", *lines[2:]]),
            TrajectoryError,
            "frame 7: step 600 repeats",
        ),
        (lambda text: edit_frame(text, 5, lose_atom), TrajectoryError, "frame 5: 5 atoms instead of 6"),
        (lambda text: edit_frame(text, 5, swap_ids), TrajectoryError, "frame 5: its atoms have other ids"),
        (lambda text: text[:-30], FileFormatError, "ends within frame 39 .*last complete frame is 38"),
        (lambda text: text[:-1], FileFormatError, "ends within frame 39 .*last number may be cut"),
        (lambda text: text.replace("ITEM: BOX", "ITEM: FOX"), FileFormatError, ":5: b'ITEM: FOX"),
        (lambda text: "", FileFormatError, "neither a LAMMPS dump"),
    ],
)
def test_damage_of_a_dump_is_named(tmp_path: Path, damage: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        read_trajectory(write(tmp_path / "a.dump", damage(dump_text(walk()))), **DUMP)


def test_the_whole_frames_of_a_cut_file_can_be_kept(tmp_path: Path) -> None:
    text = dump_text(walk())
    file = open_trajectory(write(tmp_path / "a.dump", text[:-30]), truncated="drop", **DUMP)
    assert file.read().n_frames == 39
    assert (file.truncated, file.last_complete_frame) == (True, 38)
    packed = gzip.compress(text.encode())
    file = open_trajectory(write(tmp_path / "a.gz", packed[: len(packed) // 2]), truncated="drop", **DUMP)
    assert 5 < file.read().n_frames < 39


def test_missing_knowledge_is_asked_for(tmp_path: Path) -> None:
    path = write(tmp_path / "a.dump", dump_text(walk()))
    with pytest.raises(InputError, match="give species"):
        open_trajectory(path, time_step=1e-3)
    with pytest.raises(InputError, match="pass time_step"):
        open_trajectory(path, species=BY_TYPE)
    with pytest.raises(InputError, match="not an element"):
        open_trajectory(path, time_step=1e-3, species={1: "Xx"})
    ase.io.write(tmp_path / "a.xyz", frames_of(walk(5)), format="extxyz")
    with pytest.raises(InputError, match="pass frame_interval"):
        open_trajectory(tmp_path / "a.xyz")


@pytest.mark.parametrize("pair", [(3, 4), (0, 2)])
def test_a_changed_order_without_ids_is_found(tmp_path: Path, pair: tuple[int, int]) -> None:
    walked = walk(10, step=0.05, breathing=0.0)
    frames = frames_of(walked)
    order = list(range(6))
    order[pair[0]], order[pair[1]] = order[pair[1]], order[pair[0]]
    frames[6:] = [frame[order] for frame in frames[6:]]
    ase.io.write(tmp_path / "a.xyz", frames, format="extxyz")
    with pytest.raises(TrajectoryError, match=r"frame 6: .*order of the atoms changed"):
        read_trajectory(tmp_path / "a.xyz", frame_interval=0.1)


def test_two_lithium_may_take_each_others_places(tmp_path: Path) -> None:
    x = np.array([[1.0, 1, 1], [3.5, 1, 1], [6.0, 6, 6], [4, 4, 4]])
    frames = [
        Atoms("Li3O", x, cell=[9, 9, 9], pbc=True),
        Atoms("Li3O", x[[1, 0, 2, 3]], cell=[9, 9, 9], pbc=True),
    ]
    ase.io.write(tmp_path / "a.xyz", frames, format="extxyz")
    got = read_trajectory(tmp_path / "a.xyz", frame_interval=0.1)
    np.testing.assert_allclose(got.positions[1, 0] - got.positions[0, 0], [2.5, 0, 0], rtol=0, atol=1e-7)


def test_a_jump_of_half_a_cell_is_not_guessed(tmp_path: Path) -> None:
    frames = [Atoms("LiO", [[1, 1, 1], [x, 4, 4]], cell=[8, 8, 8], pbc=True) for x in (4.0, 7.8)]
    ase.io.write(tmp_path / "a.xyz", frames, format="extxyz")
    with pytest.raises(TrajectoryError, match=r"frame 1: atom 1 \(O\) moved by nearly half the cell"):
        read_trajectory(tmp_path / "a.xyz", frame_interval=0.1)
    got = read_trajectory(tmp_path / "a.xyz", frame_interval=0.1, unwrapped=True)
    np.testing.assert_allclose(got.positions[1, 1, 0], 7.8, rtol=1e-9, atol=0)


def test_a_trajectory_checks_itself() -> None:
    walked = walk(5)
    with pytest.raises(TrajectoryError, match="frame 2: its time"):
        Trajectory(SPECIES, [0, 1, 1, 2, 3], walked.cells, walked.positions)  # type: ignore[arg-type]
    broken = walked.positions.copy()
    broken[3, 0, 0] = np.nan
    with pytest.raises(TrajectoryError, match="frame 3: positions are not finite"):
        Trajectory(SPECIES, walked.times, walked.cells, broken)
    with pytest.raises(TrajectoryError, match="no Na in the trajectory; it holds Li, O, Zr"):
        walked.indices("Na")
    with pytest.raises(TrajectoryError, match="shape"):
        Trajectory(SPECIES[:4], walked.times, walked.cells, walked.positions)


def test_drift_is_removed_with_the_framework() -> None:
    walked = walk(30)
    steady = walked.without_drift("O", "Zr")
    framework = steady.positions[:, steady.indices("O", "Zr")].mean(axis=1)
    np.testing.assert_allclose(framework - framework[0], 0, rtol=0, atol=1e-12)
    apart = steady.positions[:, 0] - steady.positions[:, 1]
    np.testing.assert_allclose(apart, walked.positions[:, 0] - walked.positions[:, 1], rtol=0, atol=1e-12)


def mutate(data: bytes, rng: np.random.Generator) -> bytes:
    out = bytearray(data)
    for _ in range(int(rng.integers(1, 5))):
        at = int(rng.integers(0, max(len(out), 1)))
        kind = rng.integers(6)
        if kind == 0 and out:
            out[at] = int(rng.integers(256))
        elif kind == 1:
            del out[at : at + int(rng.integers(1, 60))]
        elif kind == 2:
            out[at:at] = bytes(rng.integers(32, 127, size=int(rng.integers(1, 8))).tolist())
        elif kind == 3:
            out[at:at] = rng.choice(
                np.array([b"nan", b"1e400", b"-5", b"99999999999", b"\n", b"ITEM: ", b"1_0"])
            )
        elif kind == 4:
            del out[at:]
        else:
            out[at:at] = out[at : at + int(rng.integers(1, 200))]
    return bytes(out)


@pytest.mark.parametrize("kind", ["dump", "xyz", "XDATCAR", "own", "gz"])
def test_no_mutation_of_a_file_ends_in_a_traceback(tmp_path: Path, kind: str) -> None:
    walked = walk(6)
    ase.io.write(tmp_path / "a.xyz", frames_of(walked), format="extxyz")
    ase.io.write(tmp_path / "XDATCAR", frames_of(walked), format="vasp-xdatcar")
    whole = {
        "dump": dump_text(walked, "image").encode(),
        "xyz": (tmp_path / "a.xyz").read_bytes(),
        "XDATCAR": (tmp_path / "XDATCAR").read_bytes(),
        "own": save_trajectory(walked, tmp_path / "a.bin").read_bytes(),
        "gz": gzip.compress(dump_text(walked).encode()),
    }[kind]
    rng = np.random.default_rng(abs(sum(kind.encode())))
    refused = 0
    for trial in range(400):
        path = write(tmp_path / "mutated", mutate(whole, rng))
        options: dict[str, Any] = {"time_step": 1e-3, "frame_interval": 0.1, "species": BY_TYPE}
        if trial % 2:
            options["truncated"] = "drop"
        try:
            got = read_trajectory(path, **options)
        except AtomisticError:
            refused += 1
        else:
            assert np.all(np.isfinite(got.positions))
    assert refused > 100
