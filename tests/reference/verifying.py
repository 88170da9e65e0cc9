"""Checks a whole repository: without a key (`scrub`) and with one (`verify`)."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import objects
import sealing
import trees
from objects import Object
from repository import Cell, Folder, Repository, pack_name, session_number
from sealing import blake3
from wire import Damage

Report = Callable[[str], None]


def scrub(folder: Folder, report: Report, note: Report) -> None:
    """Checks every object's name, size, header and hash, and what else shows without a key."""
    for name in folder.names():
        if name.startswith(("probe/", "quarantine/")):
            continue
        with _reporting(report):
            original = name.removeprefix("twins/") if re.match("twins/(config|keys)/", name) else name
            if not objects.kinds_of_name(original):
                note(f"{name}: a name that this version does not know; left alone")
                continue
            found = objects.parse_object(original, folder.read_bytes(name))
            if found.kind in (objects.DATA_PACK, objects.TREE_PACK):
                objects.check_pack_frame(found)
            elif found.kind == objects.CONFIG:
                objects.parse_config(found)
            elif found.kind == objects.MANIFEST:
                objects.parse_manifest(found)
            elif found.kind == objects.SLOT:
                sealing.parse_slot(original, found.key_id, found.uid, found.body)
            elif found.kind == objects.SEGMENT and len(found.body) % 512:
                report(f"{name}: its length is not one that padding makes")
            elif found.kind in objects.RECORDS and len(found.body) % 256 != sealing.OVERHEAD:
                report(f"{name}: its length is not one that padding makes")


class Verifier:
    """Checks all objects of an opened repository against each other."""

    def __init__(self, repository: Repository, report: Report) -> None:
        self.repository = repository
        self.report = report
        self.chunks: dict[bytes, tuple[int, int]] = {}

    def run(self) -> None:
        self._records()
        self._history()
        for name in self.repository.folder.known("index"):
            with _reporting(self.report):
                self.repository.open_segment(name)
        self._packs()
        for cell in self.repository.snapshots():
            self._snapshot(cell)

    def _records(self) -> None:
        folder = self.repository.folder
        for name in folder.known("sessions") + folder.known("snapshots") + folder.known("gc") + folder.known("ledger") + folder.known("runs"):
            with _reporting(self.report):
                self.repository.open_record(name)

    def _history(self) -> None:
        """Finds cells and collector rounds that others saw, and that are gone."""
        repository, state = self.repository, self.repository.state
        newest = state.floor + (1 if state.unresolved else 0)
        for name in repository.folder.known("sessions"):
            if name.endswith(".done"):
                with _reporting(self.report):
                    end = repository.open_record(name)
                    self._expect_cell(end[0], name)
                    cell_name = f"snapshots/{end[0].hex()}"
                    if end[0] in repository.cells and blake3(repository.folder.read_bytes(cell_name)) != end[2]:
                        self.report(f"{cell_name}: not the object that {name} saw")
        for sid in state.live:
            self._expect_cell(sid, "the newest collector state")
        for cell in repository.committed():
            for seen in cell.body[15]:
                self._expect_cell(seen, f"snapshots/{cell.sid.hex()}")
            if max(cell.body[16], cell.number) > newest:
                self.report(f"snapshots/{cell.sid.hex()}: it saw a collector round that is gone")
            if cell.number >= state.floor:
                for segment_id in cell.body[10]:
                    if repository.segments[segment_id].owner != cell.sid:
                        self.report(f"index/{segment_id.hex()}: does not belong to the session that names it")

    def _expect_cell(self, sid: bytes, witness: str) -> None:
        counts = session_number(sid) >= self.repository.state.floor or sid in self.repository.state.live
        if counts and sid not in self.repository.cells:
            self.report(f"snapshots/{sid.hex()}: is missing, though {witness} names it")

    def _packs(self) -> None:
        named: dict[bytes, list[objects.SegmentPack]] = {}
        for segment in self.repository.segments.values():
            for pack in segment.packs:
                named.setdefault(pack.pack_id, []).append(pack)
        present = {bytes.fromhex(name[9:]) for name in self.repository.folder.known("packs")}
        for pack_id in sorted(named.keys() - present - self.repository.state.deleted):
            self.report(f"{pack_name(pack_id)}: is missing")
        for pack_id in sorted(present):
            with _reporting(self.report):
                self._pack(self.repository.folder.read(pack_name(pack_id)), named.get(pack_id, []))

    def _pack(self, found: Object, named: list[objects.SegmentPack]) -> None:
        repository = self.repository
        directory = repository.open_directory(found)
        for pack in named:
            if (pack.kind, pack.size) != (found.kind, objects.HEADER_SIZE + len(found.body)):
                self.report(f"{found.name}: a segment has another kind or size for it")
            if pack.directory.encoded != directory.encoded:
                self.report(f"{found.name}: its directory and a segment's copy differ")
        for block in directory.blocks:
            with _reporting(self.report):
                start = block.offset - objects.HEADER_SIZE
                sealed = found.body[start : start + block.sealed_size]
                kind = bytes([found.kind])
                chunks = repository.open_block(sealed, block, kind, found.key_id, found.name)
                for chunk, prefix in zip(chunks, block.prefixes):
                    chunk_id = repository.chunk_id(block.chunk_type, chunk)
                    if chunk_id[:16] != prefix:
                        self.report(f"{found.name}: a chunk of the block at {block.offset} has another id")
                    elif named:
                        self.chunks[chunk_id] = (block.chunk_type, len(chunk))

    def _snapshot(self, cell: Cell) -> None:
        for source in cell.body[9]:
            try:
                self._source(source)
            except Damage as error:
                path = source[1].decode("utf-8", "backslashreplace")
                self.report(f"snapshot {cell.sid[8:].hex()}, {path}: {error}")

    def _source(self, source: dict[int, Any]) -> None:
        repository = self.repository
        fetch = repository.fetch
        total = yield_all(
            trees.TreeWalk(fetch, repository.keyring.boundary_key).run(source[2], source[3]), self._entry
        )
        if (total.entries, total.size) != (source[4], source[5]):
            raise Damage("its entries or sizes are not as many as the cell says")

    def _entry(self, entry: trees.Entry) -> None:
        trees.attributes(entry, self.repository.fetch)
        for extent in trees.extents_of(entry, self.repository.fetch):
            if extent.chunk and self.chunks.get(extent.chunk) != (trees.DATA_CHUNK, extent.length):
                raise Damage(f"{entry.key!r}: chunk {extent.chunk.hex()} is missing or of another length")


def yield_all(walk: Any, visit: Callable[[trees.Entry], None]) -> trees.TreeSum:
    """Visits every entry of a walk and returns the walk's sum."""
    while True:
        try:
            entry = next(walk)
        except StopIteration as stop:
            total: trees.TreeSum = stop.value
            return total
        visit(entry)


@contextmanager
def _reporting(report: Report) -> Iterator[None]:
    try:
        yield
    except Damage as error:
        report(str(error))
