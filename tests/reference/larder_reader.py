#!/usr/bin/env python3
"""The reference reader of the Larder repository format: slow, and written from SPEC.md alone."""

from __future__ import annotations

import argparse
import itertools
import json
import os
import sys
from typing import Any

import sealing
import trees
from bundle import Bundle
from repository import Cell, Folder, Repository
from restoring import Restorer, warn
from verifying import Verifier, scrub
from wire import Damage

KINDS = {1: "complete", 2: "partial", 3: "shard", 4: "revoked"}
LETTERS = "?-dlpscbo"


def main() -> int:
    arguments = _arguments().parse_args()
    failures: list[str] = []

    def report(message: str) -> None:
        failures.append(message)
        warn(message)

    try:
        folder = Bundle(arguments.repo) if os.path.isfile(arguments.repo) else Folder(arguments.repo)
        if arguments.command == "scrub":
            scrub(folder, report, warn)
        else:
            _with_key(folder, arguments, report)
    except (Damage, OSError) as error:
        report(str(error))
    return 1 if failures else 0


def _with_key(folder: Folder, arguments: argparse.Namespace, report: Any) -> None:
    if arguments.command == "verify":
        scrub(folder, report, warn)
    repository = Repository(folder, _secret(arguments))
    repository.load()
    if arguments.command == "list":
        print(json.dumps([_listed(cell) for cell in repository.snapshots()], indent=2))
    elif arguments.command == "ls":
        _ls(repository, arguments.snapshot)
    elif arguments.command == "restore":
        _restore(repository, arguments, report)
    else:
        Verifier(repository, report).run()


def _secret(arguments: argparse.Namespace) -> tuple[int, bytes]:
    if arguments.recovery_key:
        return sealing.RECOVERY_KEY, sealing.parse_recovery_key(arguments.recovery_key)
    with open(arguments.password_file or arguments.key_file, "rb") as file:
        content = file.read()
    if arguments.key_file:
        return sealing.RAW_KEY, sealing.parse_raw_key(content)
    return sealing.PASSPHRASE, content.removesuffix(b"\n").removesuffix(b"\r")


def _listed(cell: Cell) -> dict[str, Any]:
    body = cell.body
    return {
        "id": cell.sid[8:].hex(),
        "session": cell.sid.hex(),
        "kind": KINDS[body[0]],
        "parent": body[3][8:].hex() if 3 in body else None,
        "start_ns": body[4],
        "end_ns": body[5],
        "host": body[6],
        "user": body[7],
        "tags": cell.tags,
        "sources": [
            {"path": os.fsdecode(source[1]), "entries": source[4], "bytes": source[5]} for source in body[9]
        ],
        "statistics": {str(number): value for number, value in body[11].items()},
        "program": body[13],
    }


def _find(repository: Repository, wanted: str) -> Cell:
    cells = repository.snapshots()
    if wanted == "latest" and cells:
        return cells[-1]
    found = [cell for cell in cells if wanted and cell.sid[8:].hex().startswith(wanted.lower())]
    if len(found) != 1:
        raise Damage(f"snapshot {wanted}: {'several begin so' if found else 'there is none'}")
    return found[0]


def _ls(repository: Repository, wanted: str) -> None:
    for source in _find(repository, wanted).body[9]:
        print(f"{_shown(source[1])}:")
        walk = trees.TreeWalk(repository.fetch, repository.keyring.boundary_key)
        for entry in walk.run(source[2], source[3]):
            target = f" -> {_shown(entry.target)}" if entry.target else ""
            letter, owner = LETTERS[entry.type], f"{entry.uid}:{entry.gid}"
            print(f"{letter}{entry.mode:04o} {owner} {entry.size} {entry.mtime_ns} {_shown(entry.key)}{target}")


def _restore(repository: Repository, arguments: argparse.Namespace, report: Any) -> None:
    target = os.fsencode(arguments.target)
    for source in _find(repository, arguments.snapshot).body[9]:
        below = target
        if arguments.source is None:
            parts = [part for part in source[1].split(b"/") if part]
            if b".." in parts or b"\0" in source[1]:
                raise Damage(f"source {source[1]!r}: a path that leads elsewhere")
            below = os.path.join(target, *parts)
        elif os.fsencode(arguments.source) != source[1]:
            continue
        walk = trees.TreeWalk(repository.fetch, repository.keyring.boundary_key)
        entries = walk.run(source[2], source[3])
        first = list(itertools.islice(entries, 1))
        name = source[1].rpartition(b"/")[2]
        is_file = bool(first) and not first[0].key and first[0].type not in (trees.DIRECTORY, trees.OBJECT)
        if is_file and arguments.source is None:
            below = os.path.dirname(below)
        Restorer(below, repository.fetch, report, name).run(itertools.chain(first, entries))


def _shown(name: bytes) -> str:
    return os.fsdecode(name).encode("unicode_escape", "backslashreplace").decode("ascii")


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    helps = {
        "list": "print the snapshots as JSON",
        "ls": "print the entries of a snapshot",
        "restore": "restore a snapshot below TARGET, each source under its own path",
        "verify": "check everything, with a key",
        "scrub": "check every object's hash and header, without a key",
    }
    for name, explanation in helps.items():
        command = commands.add_parser(name, help=explanation)
        command.add_argument("repo")
        if name in ("ls", "restore"):
            command.add_argument("snapshot", help="a prefix of its id, or 'latest'")
        if name == "restore":
            command.add_argument("target")
            command.add_argument("--source", help="restore only this source, right into TARGET")
        if name != "scrub":
            secret = command.add_mutually_exclusive_group(required=True)
            secret.add_argument("--password-file")
            secret.add_argument("--key-file")
            secret.add_argument("--recovery-key")
    return parser


if __name__ == "__main__":
    sys.exit(main())
