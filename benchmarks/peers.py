"""The full benchmark against FiPy and DEVSIM: writes benchmarks/results.json and docs/benchmarks.md.

    python benchmarks/peers.py [--quick] [--only GROUP] [--from results.json]

Run it on a quiet machine with the extra `bench` installed; it takes about half an hour. With `--only` the groups that
ran replace theirs in the file and the others stay. `--from` writes the page again from an earlier run.
"""

from __future__ import annotations

import argparse
import json
import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from mesoion.bench import as_markdown, as_text, run_bench

ROOT = Path(__file__).resolve().parents[1]


def machine() -> str:
    """Processor, Python and the versions that matter, without the machine's name."""
    processor = platform.processor() or platform.machine()
    info = Path("/proc/cpuinfo")
    if info.is_file():
        models = [
            line.split(":", 1)[1].strip() for line in info.read_text().splitlines() if "model name" in line
        ]
        processor = models[0] if models else processor
    versions = []
    for package in ("numpy", "scipy", "FiPy", "devsim"):
        try:
            versions.append(f"{package} {version(package)}")
        except PackageNotFoundError:
            continue
    return ", ".join([processor, f"Python {platform.python_version()}", *versions])


def kept(file: Path, only: str | None, rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows of an earlier run whose groups did not run again."""
    if only is None or not file.is_file():
        return []
    again = {row["group"] for row in rows}
    earlier: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["rows"]
    return [row for row in earlier if row["group"] not in again]


def main(arguments: list[str] | None = None) -> int:
    """Run, print, and write both files; returns the number of targets missed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="small cases, under two minutes")
    parser.add_argument("--only", metavar="GROUP", help="1d, 2d, growth, grains, sweep or import")
    parser.add_argument(
        "--json", type=Path, default=ROOT / "benchmarks" / "results.json", help="file of the results"
    )
    parser.add_argument(
        "--page", type=Path, default=ROOT / "docs" / "benchmarks.md", help="the page to write"
    )
    parser.add_argument("--from", dest="source", type=Path, help="results of an earlier run; nothing is run")
    given = parser.parse_args(arguments)
    if given.source is None:
        rows = run_bench(
            given.only, quick=given.quick, progress=lambda line: print(line, file=sys.stderr, flush=True)
        )
        for row in rows:
            row["mode"] = "quick" if given.quick else "full"
        results: dict[str, Any] = {"machine": machine(), "rows": [*kept(given.json, given.only, rows), *rows]}
        given.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    else:
        results = json.loads(given.source.read_text(encoding="utf-8"))
    print(as_text(results["rows"]))
    given.page.write_text(as_markdown(results["rows"], results["machine"]), encoding="utf-8")
    return sum(row.get("met") is False for row in results["rows"])


if __name__ == "__main__":
    sys.exit(1 if main() else 0)
