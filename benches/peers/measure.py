"""Running a command and measuring what it took."""

from __future__ import annotations

import os
import platform
import resource
import sys
import time
from pathlib import Path


def run(command: list[str], environment: dict[str, str], log: Path) -> dict[str, float]:
    """Runs a command; gives wall and CPU seconds and the peak resident set in MiB (of it and its children)."""
    with log.open("wb") as output:
        begun = time.perf_counter()
        child = os.posix_spawn(
            command[0],
            command,
            {**os.environ, **environment},
            file_actions=[
                (os.POSIX_SPAWN_DUP2, output.fileno(), 1),
                (os.POSIX_SPAWN_DUP2, output.fileno(), 2),
            ],
        )
        _, status, usage = os.wait4(child, 0)
        wall = time.perf_counter() - begun
    if os.waitstatus_to_exitcode(status) != 0:
        sys.exit(f"{' '.join(command)} failed:\n{log.read_text(errors='replace')}")
    # A child starts with its parent's peak, as the kernel counts.
    if usage.ru_maxrss <= resource.getrusage(resource.RUSAGE_SELF).ru_maxrss:
        sys.exit(f"{' '.join(command)} needed less memory than this program: its peak is unknown")
    return {
        "wall_s": round(wall, 3),
        "cpu_s": round(usage.ru_utime + usage.ru_stime, 3),
        "rss_mib": round(usage.ru_maxrss / 1024, 1),
        "switches": usage.ru_nvcsw,
    }


def size_of(folder: Path) -> tuple[int, int]:
    """Gives the bytes and the number of the files below a folder."""
    sizes = [
        os.lstat(os.path.join(base, name)).st_size for base, _, names in os.walk(folder) for name in names
    ]
    return sum(sizes), len(sizes)


def warm(folder: Path) -> tuple[int, int]:
    """Reads every file once, so that the page cache has it; gives bytes and files."""
    count = total = 0
    for base, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(base, name)
            if os.path.isfile(path) and not os.path.islink(path):
                with open(path, "rb", buffering=0) as file:
                    while piece := file.read(1 << 20):
                        total += len(piece)
                count += 1
    return total, count


def machine() -> dict[str, str | int]:
    """Tells what the figures were taken on."""
    cpu = next(
        (line.split(":", 1)[1].strip() for line in Path("/proc/cpuinfo").read_text().splitlines()
         if line.startswith("model name")),
        platform.machine(),
    )  # fmt: skip
    return {
        "cpu": cpu,
        "cores": os.cpu_count() or 0,
        "memory_gib": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "kernel": ".".join(platform.release().split(".")[:2]),
    }
