#!/usr/bin/env python3
"""Measures larder's peak memory over trees of more and more entries; fails past the allowed ratio."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "peers"))

import measure  # noqa: E402
import report  # noqa: E402
import tools  # noqa: E402

BASE_ENTRIES = 100_000
FILES_PER_FOLDER = 1000
RATIO_MAX = 1.1
# Every so-manieth file has content, of its own; a page of memory each, so not all of them.
CONTENT_EVERY = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--larder", type=Path, required=True)
    parser.add_argument("--scratch", type=Path, required=True)
    parser.add_argument("--entries", type=int, default=5_000_000, help="of the large tree; 0 for none")
    parser.add_argument("--one-folder", type=int, default=1_000_000, help="files in one folder; 0 for none")
    parser.add_argument("--rounds", type=int, default=1, help="of which the median is given")
    parser.add_argument("--no-save", action="store_true")
    given = parser.parse_args()
    cases = [(f"{BASE_ENTRIES:,} entries", BASE_ENTRIES, FILES_PER_FOLDER)]
    if given.one_folder:
        cases.append((f"{given.one_folder:,} files in one folder", given.one_folder, given.one_folder))
    if given.entries:
        cases.append((f"{given.entries:,} entries", given.entries, FILES_PER_FOLDER))
    tool = tools.larder(given.larder)
    rows = []
    for name, entries, per_folder in cases:
        rounds = [one_case(tool, given.scratch, entries, per_folder) for _ in range(given.rounds)]
        peaks = {step: sorted(one[step]["rss_mib"] for one in rounds)[len(rounds) // 2] for step in rounds[0]}
        rows.append({"name": name, "entries": entries, "rss_mib": peaks, "all": rounds})
        print(name, peaks, {step: one["wall_s"] for step, one in rounds[0].items()}, file=sys.stderr)
    command = f"benches/memory/run.sh --entries {given.entries} --one-folder {given.one_folder}"
    result = {"command": command, "machine": measure.machine(), "rows": rows}
    print("\n".join(report.memory_section(result)))
    if not given.no_save:
        (HERE / "results.json").write_text(json.dumps(result, indent=1) + "\n")
    base = rows[0]["rss_mib"]
    grown = [
        f"{row['name']}, {step}" for row in rows for step, peak in row["rss_mib"].items()
        if peak > RATIO_MAX * base[step]
    ]  # fmt: skip
    if grown:
        sys.exit(f"more than {RATIO_MAX} times the memory: {'; '.join(grown)}")


def make_tree(root: Path, entries: int, per_folder: int) -> None:
    root.mkdir()
    for start in range(0, entries, per_folder):
        folder = os.open(make_folder(root, start // per_folder), os.O_RDONLY | os.O_DIRECTORY)
        for number in range(start, min(start + per_folder, entries)):
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL
            file = os.open(f"entry-{number:08}", flags, 0o644, dir_fd=folder)
            if number % CONTENT_EVERY == 0:
                os.write(file, f"content of {number}\n".encode())
            os.close(file)
        os.close(folder)


def make_folder(root: Path, number: int) -> Path:
    folder = root / f"{number // 100:03}" / f"{number % 100:02}"
    folder.mkdir(parents=True)
    return folder


def one_case(tool: tools.Tool, scratch: Path, entries: int, per_folder: int) -> dict[str, dict[str, float]]:
    base = scratch / "work"
    base.mkdir()
    there = tools.Places(scratch / "source", base / "repository", base / "cache", base / "target")
    make_tree(there.source, entries, per_folder)
    measure.run(tool.init(there), tool.environment, base / "log")
    found = {step: step_of(tool, there, base, step) for step in ("first", "unchanged")}
    # What was saved and what is restored need not be in memory together.
    remove(there.source)
    found["restore"] = step_of(tool, there, base, "restore")
    remove(base)
    return found


def remove(folder: Path) -> None:
    # shutil.rmtree holds all names of a folder at once, and a child's peak begins with its parent's.
    subprocess.run(["rm", "-rf", "--", str(folder)], check=True)


def step_of(tool: tools.Tool, there: tools.Places, base: Path, step: str) -> dict[str, float]:
    return measure.run(tool.steps[step](there), tool.environment, base / "log")


if __name__ == "__main__":
    main()
