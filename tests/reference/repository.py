"""A repository in a folder: opening it, what counts in it (SPEC.md §12), and fetching chunks."""

from __future__ import annotations

import os
import re
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any

import objects
import sealing
from objects import PARTIAL, REVOKED, Block, Directory, Object, parse_object
from sealing import Keyring, Slot, blake3_keyed
from wire import Damage, Missing

SET_TAGS, FORGET = 1, 4
CACHE_BYTES = 128 << 20


_PART = re.compile(r"[0-9a-z.]+")


class Folder:
    """The objects below one folder, by name; files whose names no object can have are none."""

    # Features to read that a repository here may require.
    features: tuple[str, ...] = ()

    def __init__(self, path: str) -> None:
        self.path = path
        if not os.path.isdir(os.path.join(path, "config")):
            raise Damage(f"{path}: no repository there (it has no config)")
        self.marker: dict[int, Any] | None = None
        self.manifest: dict[int, Any] | None = None
        if os.path.exists(os.path.join(path, objects.MARKER)):
            self._read_mirror()

    def _read_mirror(self) -> None:
        """Reads what makes the folder a mirror (SPEC.md §12): what counts is what its newest manifest lists."""
        self.marker = objects.parse_config(self.read(objects.MARKER))
        if self.marker[5] != ["mirror"]:
            raise Damage(f"{objects.MARKER}: needs features that this reader does not know: {self.marker[5]}")
        manifests = [name for name in self.names("mirror") if objects.kinds_of_name(name)]
        if not manifests:
            raise Damage(f"{self.path}: a mirror to which no sync has ended yet")
        self.manifest = objects.parse_manifest(self.read(manifests[-1]))
        for same, of in ((1, self.marker), (2, self.marker)):
            if self.manifest[same] != of[same]:
                raise Damage(f"{manifests[-1]}: it is the manifest of another mirror")

    def names(self, prefix: str = "") -> list[str]:
        def fail(error: OSError) -> None:
            raise error

        found = []
        top = os.path.join(self.path, prefix)
        if not os.path.isdir(top):
            return []
        for folder, folders, files in os.walk(top, onerror=fail):
            folders[:] = filter(_PART.fullmatch, folders)
            relative = os.path.relpath(folder, self.path)
            found += [name if relative == "." else f"{relative}/{name}" for name in files if _PART.fullmatch(name)]
        return sorted(found)

    def known(self, prefix: str = "") -> list[str]:
        known = [name for name in self.names(prefix) if objects.kinds_of_name(name)]
        manifest = self.manifest
        return known if manifest is None else [name for name in known if objects.lists(manifest, name)]

    def read(self, name: str) -> Object:
        return parse_object(name, self.read_bytes(name))

    def read_or_twin(self, name: str) -> Object:
        """Reads a config or a key slot, or its twin where it cannot be used (SPEC.md §11)."""
        try:
            return self.read(name)
        except Damage:
            if not self.has(f"twins/{name}"):
                raise
            return parse_object(name, self.read_bytes(f"twins/{name}"))

    def has(self, name: str) -> bool:
        return os.path.exists(os.path.join(self.path, name))

    def check_end(self, keyring: Keyring, repository_id: bytes) -> None:
        """Checks what only keys can tell of all objects together: nothing in a folder."""

    def read_bytes(self, name: str) -> bytes:
        limit = (objects.kinds_of_name(name) or ((), 1 << 62))[1]
        try:
            with open(os.path.join(self.path, name), "rb") as file:
                if os.fstat(file.fileno()).st_size > limit:
                    raise Damage(f"{name}: larger than the limit of {limit} bytes")
                return file.read()
        except FileNotFoundError as error:
            raise Missing(f"{name}: is missing") from error

    def read_ranges(self, name: str, *ranges: tuple[int, int]) -> list[bytes]:
        """Reads some ranges of an object, each an offset and a length."""
        try:
            with open(os.path.join(self.path, name), "rb") as file:
                return [os.pread(file.fileno(), length, offset) for offset, length in ranges]
        except FileNotFoundError as error:
            raise Missing(f"{name}: is missing") from error


@dataclass
class Cell:
    """A snapshot cell with its amendments."""

    body: dict[int, Any]
    amendments: list[dict[int, Any]] = field(default_factory=list)

    @property
    def sid(self) -> bytes:
        sid: bytes = self.body[1]
        return sid

    @property
    def number(self) -> int:
        return session_number(self.sid)

    @property
    def forgotten(self) -> bool:
        return any(amendment[2] == FORGET for amendment in self.amendments)

    @property
    def tags(self) -> list[str]:
        tags: list[str] = self.body[8]
        for amendment in self.amendments:
            tags = amendment[3] if amendment[2] == SET_TAGS else tags
        return tags


@dataclass
class State:
    """What the collectors' objects say: the newest final state and the round above it."""

    floor: int = 0
    live: set[bytes] = field(default_factory=set)
    segments: set[bytes] = field(default_factory=set)
    deleted: set[bytes] = field(default_factory=set)
    unresolved: dict[int, Any] | None = None

    def committed(self, cell: Cell) -> bool:
        return cell.body[0] != REVOKED and (cell.number >= self.floor or cell.sid in self.live)


@dataclass(frozen=True)
class Place:
    pack_id: bytes
    block: Block
    position: int


def session_number(sid: bytes) -> int:
    return int.from_bytes(sid[:8], "big")


class Repository:
    """An opened repository. Everything is read once, in the order that §12 asks for."""

    def __init__(self, folder: Folder, secret: tuple[int, bytes]) -> None:
        self.folder = folder
        self.configs = read_configs(folder)
        self.config = self.configs[-1][1]
        self.id: bytes = self.config[1]
        self.slots = read_slots(folder, self.config)
        self.keyring = unlock(self.slots, secret, self.id)
        for found, config in self.configs:
            objects.check_config_mac(found, config, self.keyring)
        folder.check_end(self.keyring, self.id)
        self.cells: dict[bytes, Cell] = {}
        self.state = State()
        self.segments: dict[bytes, objects.Segment] = {}
        self.places: dict[bytes, list[Place]] = {}
        self._blocks: OrderedDict[tuple[bytes, int], list[bytes]] = OrderedDict()
        self._cached_bytes = 0

    def load(self) -> None:
        """Reads what counts, and starts over if a collector took something away meanwhile."""
        try:
            self._load()
        except Missing:
            self._load()

    def _load(self) -> None:
        """Reads cells, then collectors, then the segments that count."""
        self.cells = self._read_cells(self.folder.known("snapshots"))
        self.state = self._read_state(self.folder.known("gc"))
        for cell in self.committed():
            if cell.body[14] > self.config[0]:
                raise Damage(f"config {cell.body[14]} is named but gone: the repository was rolled back")
        self.segments, self.places = {}, {}
        for segment_id in sorted(self.counting_segments()):
            self.segments[segment_id] = self.open_segment(f"index/{segment_id.hex()}")
            self._index(self.segments[segment_id])

    def committed(self) -> list[Cell]:
        return [cell for cell in self.cells.values() if self.state.committed(cell)]

    def snapshots(self) -> list[Cell]:
        """Returns the committed cells that are neither forgotten nor superseded, oldest first."""
        superseded = {cell.body.get(2) for cell in self.committed()}
        kept = [
            cell
            for cell in self.committed()
            if not cell.forgotten and not (cell.body[0] == PARTIAL and cell.sid in superseded)
        ]
        return sorted(kept, key=lambda cell: (cell.body[4], cell.sid))

    def counting_segments(self) -> set[bytes]:
        counting = set(self.state.segments)
        if self.state.unresolved:
            counting.update(self.state.unresolved[3])
        for cell in self.committed():
            if cell.number >= self.state.floor:
                counting.update(cell.body[10])
        return counting

    def open_record(self, name: str) -> dict[int, Any]:
        return objects.open_record(self.folder.read(name), self.keyring, self.id)

    def open_segment(self, name: str) -> objects.Segment:
        return objects.open_segment(self.folder.read(name), self.keyring, self.id)

    def open_directory(self, found: Object) -> Directory:
        return objects.open_pack_directory(found, self.keyring, self.id)

    def chunk_id(self, chunk_type: int, plaintext: bytes) -> bytes:
        return blake3_keyed(self.keyring.id_key, bytes([chunk_type]) + plaintext)

    def fetch(self, chunk_type: int, chunk_id: bytes) -> bytes:
        """Returns a chunk from the first place that holds it, its id checked."""
        failure: Damage | None = None
        for place in self.places.get(chunk_id[:16], []):
            if place.block.chunk_type != chunk_type:
                continue
            try:
                plaintext = self._block(place)[place.position]
                if self.chunk_id(chunk_type, plaintext) == chunk_id:
                    return plaintext
            except Damage as error:
                failure = error
        why = f": {failure}" if failure else ""
        raise Damage(f"chunk {chunk_id.hex()} of type {chunk_type} cannot be found{why}") from failure

    def _read_cells(self, names: list[str]) -> dict[bytes, Cell]:
        cells = {}
        for name in names:
            if "." not in name:
                body = self.open_record(name)
                cells[body[1]] = Cell(body)
        for name in names:
            if bytes.fromhex(name[10:58]) not in cells:
                raise Damage(f"{name}: amends a cell that is missing")
        for sid, cell in cells.items():
            prefix = f"snapshots/{sid.hex()}."
            amendments = sorted(int(name.removeprefix(prefix)) for name in names if name.startswith(prefix))
            if amendments != list(range(1, len(amendments) + 1)):
                raise Damage(f"{prefix}{len(amendments)}: an amendment is missing")
            cell.amendments = [self.open_record(f"{prefix}{k}") for k in amendments]
        return cells

    def _read_state(self, names: list[str]) -> State:
        final_names = sorted(name for name in names if name.endswith(".final"))
        state = State()
        if final_names:
            final = self.open_record(final_names[-1])
            state = State(final[0], set(final[1]), set(final[2]), set(final[3]))
        above = [name for name in names if "." not in name and int(name[3:], 16) > state.floor]
        if above and above != [f"gc/{state.floor + 1:016x}"]:
            raise Damage(f"{above[-1]}: more than one round above the newest final state")
        if above:
            state.unresolved = self.open_record(above[0])
        return state

    def _index(self, segment: objects.Segment) -> None:
        for pack in segment.packs:
            for block in pack.directory.blocks:
                for position, prefix in enumerate(block.prefixes):
                    self.places.setdefault(prefix, []).append(Place(pack.pack_id, block, position))

    def _block(self, place: Place) -> list[bytes]:
        key = (place.pack_id, place.block.offset)
        if key in self._blocks:
            self._blocks.move_to_end(key)
            return self._blocks[key]
        name = pack_name(place.pack_id)
        ranges = ((0, objects.HEADER_SIZE), (place.block.offset, place.block.sealed_size))
        header, sealed = self.folder.read_ranges(name, *ranges)
        chunks = self.open_block(sealed, place.block, header[9:10], header[16:48], name)
        self._blocks[key] = chunks
        self._cached_bytes += sum(place.block.lengths)
        while self._cached_bytes > CACHE_BYTES:
            self._cached_bytes -= sum(map(len, self._blocks.popitem(last=False)[1]))
        return chunks

    def open_block(self, sealed: bytes, block: Block, kind: bytes, key_id: bytes, name: str) -> list[bytes]:
        expected = objects.DATA_PACK if block.chunk_type == 1 else objects.TREE_PACK
        if kind != bytes([expected]):
            raise Damage(f"{name}: not a pack of kind {expected}")
        what = f"{name}: block at {block.offset}"
        return objects.open_block(sealed, block, expected, key_id, self.keyring, self.id, what)


def pack_name(pack_id: bytes) -> str:
    return f"packs/{pack_id.hex()[:2]}/{pack_id.hex()}"


def read_configs(folder: Folder) -> list[tuple[Object, dict[int, Any]]]:
    """Reads all configs in order and checks what they must have in common."""
    twins = [name.removeprefix("twins/") for name in folder.names("twins/config")]
    names = sorted({*folder.known("config"), *twins})
    if not names:
        raise Damage(f"{folder.path}: no repository there (it has no config)")
    if names != [f"config/{n:016x}" for n in range(1, len(names) + 1)]:
        raise Damage(f"{names[-1]}: a config before it is missing")
    found = [folder.read_or_twin(name) for name in names]
    configs = [(each, objects.parse_config(each)) for each in found]
    first = configs[0][1]
    if folder.marker and any(folder.marker[same] != first[same] for same in (1, 4)):
        raise Damage(f"{objects.MARKER}: repository id or chunker differ from the first config's")
    for each, config in configs:
        if any(config[same] != first[same] for same in (1, 3, 4)):
            raise Damage(f"{each.name}: repository id, creation or chunker differ from the first config's")
    if unknown := [feature for feature in configs[-1][1][5] if feature not in folder.features]:
        raise Damage(f"{names[-1]}: needs features that this reader does not know: {', '.join(unknown)}")
    return configs


def read_slots(folder: Folder, config: dict[int, Any]) -> list[Slot]:
    """Reads the slots that the config lists; their cost is bounded before anything is derived."""
    slots = []
    for slot_id in config[8]:
        found = folder.read_or_twin(f"keys/{slot_id.hex()}")
        slots.append(sealing.parse_slot(found.name, found.key_id, found.uid, found.body))
    if sum(slot.cost_kib for slot in slots) > sealing.TOTAL_COST_KIB:
        raise Damage("key slots: together they cost more than memory × passes of 64 GiB")
    return slots


def unlock(slots: list[Slot], secret: tuple[int, bytes], repository_id: bytes) -> Keyring:
    kind, value = secret
    for slot in slots:
        if slot.params[0] == kind:
            stretched = slot.stretch(value) if kind == sealing.PASSPHRASE else value
            if keyring := slot.open(stretched, repository_id):
                return keyring
    raise Damage("no key slot of this repository opens with that password or key")
