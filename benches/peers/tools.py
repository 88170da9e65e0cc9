"""The tools that are compared: for each, how every step is said on its command line.

To add one (rustic, borg, bupstash), add a function here that returns its `Tool`.
"""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

PASSWORD = "benchmark"
STEPS = ("open", "first", "unchanged", "restore", "check")
STEP_NAMES = {
    "open": "open an empty repository (key derivation, start)",
    "first": "first backup",
    "unchanged": "unchanged backup",
    "restore": "restore",
    "check": "check, every byte read",
}


@dataclass(frozen=True)
class Places:
    """Where one tool works in one run; everything but the source is its own and empty at first."""

    source: Path
    repository: Path
    cache: Path
    target: Path

    @property
    def restored(self) -> Path:
        """Where the source lies after a restore: below the target under its own path."""
        return self.target / self.source.relative_to("/")


@dataclass(frozen=True)
class Tool:
    name: str
    version: str
    environment: dict[str, str]
    init: Callable[[Places], list[str]]
    steps: dict[str, Callable[[Places], list[str]]]


def larder(binary: Path) -> Tool:
    def say(places: Places, *words: str) -> list[str]:
        options = ["-q", "-r", str(places.repository), "--cache-dir", str(places.cache)]
        return [str(binary), *options, *words]

    return Tool(
        name="larder",
        version=first_line([str(binary), "version"]),
        environment={"LARDER_PASSWORD": PASSWORD},
        init=lambda places: say(places, "init"),
        steps={
            "open": lambda places: say(places, "snapshots"),
            "first": lambda places: say(places, "backup", str(places.source)),
            "unchanged": lambda places: say(places, "backup", str(places.source)),
            "restore": lambda places: say(places, "restore", "latest", "--target", str(places.target)),
            "check": lambda places: say(places, "check", "--read-data"),
        },
    )


def restic(binary: Path) -> Tool:
    def say(places: Places, *words: str) -> list[str]:
        options = ["-q", "-r", str(places.repository), "--cache-dir", str(places.cache)]
        return [str(binary), *options, *words]

    return Tool(
        name="restic",
        version=first_line([str(binary), "version"]),
        environment={"RESTIC_PASSWORD": PASSWORD},
        init=lambda places: say(places, "init"),
        steps={
            "open": lambda places: say(places, "snapshots"),
            "first": lambda places: say(places, "backup", str(places.source)),
            "unchanged": lambda places: say(places, "backup", str(places.source)),
            "restore": lambda places: say(places, "restore", "latest", "--target", str(places.target)),
            "check": lambda places: say(places, "check", "--read-data"),
        },
    )


def first_line(command: list[str]) -> str:
    text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return text.splitlines()[0]
