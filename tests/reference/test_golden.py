"""Reads the golden repositories with the reference reader, and compares with what their sources held."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
import tempfile
import unittest
from typing import Any
from urllib.parse import unquote_to_bytes

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "tools")]

import larder_reader
import make_golden
import objects
import sealing
from repository import Folder, Repository

GOLDEN = os.path.join(os.path.dirname(HERE), "golden")
VERSIONS = ["v1"]
IS_ROOT = os.geteuid() == 0


def run(*arguments: str) -> tuple[int, str, list[str]]:
    """Runs the reader's command line and returns its exit code and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    before = sys.argv
    sys.argv = ["larder_reader", *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            return larder_reader.main(), out.getvalue(), err.getvalue().splitlines()
    finally:
        sys.argv = before


class Comparing(unittest.TestCase):
    """What restores golden snapshots and compares them with what their sources held."""

    maxDiff = 4000

    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, self.folder)

    def compare(self, where: tuple[str, ...], wanted: list[dict[str, Any]], *, partial: bool) -> None:
        repository, snapshot, source, *secret = where
        out = os.path.join(self.folder, snapshot, source.strip("/"))
        code, _, err = run("restore", repository, snapshot, out, "--source", source, *secret)
        if not IS_ROOT:
            err = [line for line in err if "only root can make devices" not in line]
            wanted = [self.of_anybody(e) for e in wanted if "device" not in e]
        self.assertEqual(err, [])
        found = make_golden.walk(os.fsencode(out))
        if not IS_ROOT:
            found = [self.of_anybody(e) for e in found]
        self.assertEqual(len({json.dumps(e) for e in found}), len(found))
        if partial:
            self.assertTrue(1 < len(found) < len(wanted), "a checkpoint on the way")
            wanted = wanted[: len(found)]
        self.assertEqual(found, wanted)

    @staticmethod
    def of_anybody(entry: dict[str, Any]) -> dict[str, Any]:
        return entry | {"uid": 0, "gid": 0}

    def expected(self, version: str) -> dict[str, Any]:
        with open(os.path.join(GOLDEN, f"{version}.expected.json"), encoding="ascii") as file:
            expected: dict[str, Any] = json.load(file)
        return expected

    def secrets(self, expected: dict[str, Any]) -> list[tuple[str, str]]:
        given = expected["secrets"]
        files = {"--password-file": given["passphrase"] + "\n", "--key-file": given["key file"]}
        for option, content in files.items():
            with open(os.path.join(self.folder, option), "w", encoding="utf-8") as file:
                file.write(content)
        options = [(option, os.path.join(self.folder, option)) for option in files]
        return [*options, ("--recovery-key", given["recovery key"])]


class Golden(Comparing):
    def test_the_folder_holds_every_version_and_nothing_else(self) -> None:
        wanted = {name for version in VERSIONS for name in (version, f"{version}.expected.json")}
        self.assertEqual(set(os.listdir(GOLDEN)), wanted)

    def test_every_secret_opens_and_verifies_it(self) -> None:
        for version in VERSIONS:
            repository, expected = os.path.join(GOLDEN, version), self.expected(version)
            self.assertEqual(run("scrub", repository), (0, "", []))
            for secret in self.secrets(expected):
                self.assertEqual(run("verify", repository, *secret), (0, "", []))

    def test_snapshots_hold_what_their_sources_held(self) -> None:
        for version in VERSIONS:
            repository, expected = os.path.join(GOLDEN, version), self.expected(version)
            secret = self.secrets(expected)[0]
            listed = json.loads(run("list", repository, *secret)[1])
            self.assertEqual(len(listed), len(expected["snapshots"]))
            for snapshot, wanted in zip(listed, expected["snapshots"]):
                self.assertEqual(snapshot["kind"], wanted["kind"])
                self.assertEqual(snapshot["tags"], wanted["tags"])
                self.assertEqual([source["path"] for source in snapshot["sources"]], list(wanted["sources"]))
                for source, entries in wanted["sources"].items():
                    where = (repository, snapshot["id"], source, *secret)
                    self.compare(where, entries, partial=snapshot["kind"] == "partial")

    def test_every_form_of_the_format_occurs(self) -> None:
        """Counts what the objects hold, so that a golden repository keeps covering the format."""
        for version in VERSIONS:
            expected = self.expected(version)
            key = sealing.parse_raw_key(expected["secrets"]["key file"].encode())
            folder = Folder(os.path.join(GOLDEN, version))
            repository = Repository(folder, (sealing.RAW_KEY, key))
            repository.load()
            self.assertEqual(sorted(slot.params[0] for slot in repository.slots), [1, 2, 3])
            self.assertEqual(len(repository.configs), 3)
            cells = repository.cells.values()
            kinds = [cell.body[0] for cell in cells]
            self.assertEqual((kinds.count(objects.COMPLETE), kinds.count(objects.PARTIAL)), (4, 2))
            changes = sorted(a[2] for cell in cells for a in cell.amendments)
            self.assertEqual(changes, [1, 2, 4], "tags set, a pin, a snapshot forgotten")
            self.assertTrue(any(2 in cell.body for cell in cells), "a predecessor")
            self.assertTrue(any(3 in cell.body for cell in cells), "a parent")
            types = {place.block.chunk_type for places in repository.places.values() for place in places}
            self.assertEqual(types, {1, 2, 3, 4, 5, 6})

    def test_what_opens_it_is_read_from_its_twins(self) -> None:
        """Damages and removes configs and slots of which there are twins."""
        expected = self.expected(VERSIONS[-1])
        key = sealing.parse_raw_key(expected["secrets"]["key file"].encode())
        copy = os.path.join(self.folder, "copy")
        shutil.copytree(os.path.join(GOLDEN, VERSIONS[-1]), copy)
        for kind in ("config", "keys"):
            shutil.copytree(os.path.join(copy, kind), os.path.join(copy, "twins", kind))
            for number, name in enumerate(sorted(os.listdir(os.path.join(copy, kind)))):
                path = os.path.join(copy, kind, name)
                os.chmod(path, 0o600)
                if number % 2:
                    with open(path, "wb") as file:
                        file.write(b"rotten")
                else:
                    os.remove(path)
        repository = Repository(Folder(copy), (sealing.RAW_KEY, key))
        repository.load()
        self.assertEqual((len(repository.configs), len(repository.slots)), (3, 3))


class Shown(unittest.TestCase):
    def test_names_go_both_ways(self) -> None:
        every = bytes(range(256))
        self.assertEqual(unquote_to_bytes(make_golden.shown(every)), every)


if __name__ == "__main__":
    unittest.main()
