#!/usr/bin/env python3
"""Measures backup tools on one source, tool by tool in turn, and writes table, chart and JSON."""

from __future__ import annotations

import argparse
import datetime
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import measure
import report
import tools

HERE = Path(__file__).resolve().parent
COMPARE = HERE.parents[1] / "tests" / "tools" / "compare.py"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--larder", type=Path, required=True)
    parser.add_argument("--restic", type=Path, required=True)
    parser.add_argument("--source", type=Path, required=True, help="the tree that is backed up")
    parser.add_argument("--scratch", type=Path, required=True, help="where repositories lie: a tmpfs")
    parser.add_argument("--name", default="linux-6.1", help="of the data set")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--steps", default=",".join(tools.STEPS))
    parser.add_argument("--no-save", action="store_true", help="only print the table")
    given = parser.parse_args()
    steps = [step for step in tools.STEPS if step in given.steps.split(",")]
    compared = [tools.larder(given.larder), tools.restic(given.restic)]

    source_bytes, source_files = measure.warm(given.source)
    found = {tool.name: {step: [] for step in steps} for tool in compared}
    sizes: dict[str, list[tuple[int, int]]] = {tool.name: [] for tool in compared}
    load = os.getloadavg()[0]
    for number in range(given.runs):
        # Whoever comes first in one run comes last in the next.
        order = compared if number % 2 == 0 else compared[::-1]
        print(f"run {number + 1} of {given.runs}", file=sys.stderr)
        with tempfile.TemporaryDirectory(dir=given.scratch, prefix="larder-bench-") as scratch:
            one_run(order, steps, given.source, Path(scratch), found, sizes)

    result = {
        "data": {"name": given.name, "bytes": source_bytes, "files": source_files},
        "date": datetime.date.today().isoformat(),
        "machine": measure.machine(),
        "load_before": round(load, 1),
        "command": f"benches/peers/run.sh --runs {given.runs}",
        "runs": given.runs,
        "tools": {tool.name: tool.version for tool in compared},
        "median": {
            name: {step: median(rounds) for step, rounds in by_step.items()}
            for name, by_step in found.items()
        },
        "repository": {
            name: {"bytes": statistics.median(b for b, _ in all_), "objects": statistics.median(n for _, n in all_)}
            for name, all_ in sizes.items() if all_
        },
        "all": found,
    }  # fmt: skip
    print(report.markdown(result))
    if not given.no_save:
        stem = HERE / "results" / given.name
        stem.parent.mkdir(exist_ok=True)
        stem.with_name(stem.name + ".json").write_text(json.dumps(result, indent=1) + "\n")
        stem.with_name(stem.name + ".svg").write_text(report.chart(result))
        (HERE.parent / "FIGURES.md").write_text(report.page(result, HERE.parent))


def one_run(order, steps, source: Path, scratch: Path, found, sizes) -> None:
    places = {}
    for tool in order:
        base = scratch / tool.name
        base.mkdir()
        places[tool.name] = tools.Places(source, base / "repository", base / "cache", base / "target")
        measure.run(tool.init(places[tool.name]), tool.environment, base / "log")
    for step in steps:
        for tool in order:
            there = places[tool.name]
            log = there.repository.with_name("log")
            command = tool.steps[step](there)
            found[tool.name][step].append(measure.run(command, tool.environment, log))
            if step == "first":
                sizes[tool.name].append(measure.size_of(there.repository))
            if step == "restore":
                verify(source, there.restored, tool.name)
                shutil.rmtree(there.target)


def verify(source: Path, restored: Path, name: str) -> None:
    """Ends everything if a restored tree differs from the source."""
    done = subprocess.run(
        [sys.executable, COMPARE, source, restored], capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        sys.exit(f"what {name} restored differs from the source:\n{done.stdout[:2000]}{done.stderr[:2000]}")


def median(rounds: list[dict[str, float]]) -> dict[str, float]:
    return {key: round(statistics.median(one[key] for one in rounds), 3) for key in rounds[0]} if rounds else {}


if __name__ == "__main__":
    main()
