"""Objects (SPEC.md §2), blocks (§6), packs (§7), segments (§8) and records (§11)."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import sealing
import zstandard
from sealing import Keyring, aad, blake3, blake3_derive, blake3_keyed, xaes_open
from wire import Check, Cursor, Damage, array, decode_cbor, fields, integer, octets, row, table, text

MAGIC = b"\x89LARDER\n"
FOOTER = bytes(4) + b"LARDEND\n"
HEADER_SIZE = 64
KIB, MIB = 1 << 10, 1 << 20
COMPLETE, PARTIAL, SHARD, REVOKED = 1, 2, 3, 4

CONFIG, SLOT, DATA_PACK, TREE_PACK, SEGMENT, SESSION, SESSION_END = 1, 2, 3, 4, 5, 6, 7
CELL, AMENDMENT, ROUND, STATE, RESERVE, LEDGER, MANIFEST = 8, 9, 10, 11, 12, 14, 15
RUN, RUN_END = 18, 19
MARKER = "config/ffffffffffffffff"

_NAMES = [
    (r"config/[0-9a-f]{16}", (CONFIG,), 64 * KIB),
    (r"keys/[0-9a-f]{32}", (SLOT,), 64 * KIB),
    (r"packs/([0-9a-f]{2})/\1[0-9a-f]{62}", (DATA_PACK, TREE_PACK), 64 * MIB),
    (r"index/[0-9a-f]{64}", (SEGMENT,), 64 * MIB),
    (r"sessions/[0-9a-f]{48}", (SESSION,), 64 * KIB),
    (r"sessions/[0-9a-f]{48}\.done", (SESSION_END,), 64 * KIB),
    (r"snapshots/[0-9a-f]{48}", (CELL,), 16 * MIB),
    (r"snapshots/[0-9a-f]{48}\.[1-9][0-9]*", (AMENDMENT,), 64 * KIB),
    (r"gc/[0-9a-f]{16}", (ROUND,), 256 * MIB),
    (r"gc/[0-9a-f]{16}\.final", (STATE,), 256 * MIB),
    (r"reserve", (RESERVE,), 16 * MIB),
    (r"ledger/[0-9a-f]{32}", (LEDGER,), 80 * MIB),
    (r"mirror/[0-9a-f]{16}", (MANIFEST,), 256 * MIB),
    (r"runs/[0-9a-f]{32}", (RUN,), 8 * MIB),
    (r"runs/[0-9a-f]{32}\.joined", (RUN_END,), 64 * KIB),
]
_PURPOSES = {
    DATA_PACK: {sealing.DATA}, TREE_PACK: {sealing.TREE}, SEGMENT: {sealing.INDEX},
    SESSION: {sealing.SNAPSHOT}, SESSION_END: {sealing.SNAPSHOT}, CELL: {sealing.SNAPSHOT},
    AMENDMENT: {sealing.SNAPSHOT, sealing.COLLECTOR},
    ROUND: {sealing.COLLECTOR}, STATE: {sealing.COLLECTOR}, LEDGER: {sealing.SNAPSHOT},
    RUN: {sealing.SNAPSHOT}, RUN_END: {sealing.SNAPSHOT},
}  # fmt: skip


def kinds_of_name(name: str) -> tuple[tuple[int, ...], int] | None:
    """Returns the kinds and the size limit that go with a name, or nothing for unknown names."""
    for pattern, kinds, size in _NAMES:
        if re.fullmatch(pattern, name):
            return kinds, size
    return None


@dataclass(frozen=True)
class Object:
    """An object whose header, size and hash were found right; its body is not yet opened."""

    name: str
    kind: int
    key_id: bytes
    uid: bytes
    header: bytes
    body: bytes


def parse_object(name: str, data: bytes) -> Object:
    found = kinds_of_name(name)
    if found is None:
        raise Damage(f"{name}: a name that this version does not know")
    kinds, limit = found
    if len(data) > limit:
        raise Damage(f"{name}: {len(data)} bytes are above the limit of {limit}")
    cursor = Cursor(data, name)
    if cursor.take(8) != MAGIC:
        raise Damage(f"{name}: not an object of a Larder repository (wrong magic)")
    if (version := cursor.uint(1)) != 1:
        raise Damage(f"{name}: format version {version}; this reader knows version 1 only")
    kind = cursor.uint(1)
    if kind not in kinds:
        raise Damage(f"{name}: object kind {kind} does not belong to this name")
    if any(cursor.take(6)):
        raise Damage(f"{name}: header bytes that must be zero are not")
    key_id, uid = cursor.take(32), cursor.take(16)
    if kind in (CONFIG, RESERVE, MANIFEST) and any(key_id):
        raise Damage(f"{name}: a key id where none belongs")
    body = cursor.rest()
    if kind in (DATA_PACK, TREE_PACK, SEGMENT):
        if blake3(data).hex() != name.rsplit("/", 1)[1]:
            raise Damage(f"{name}: its bytes do not hash to its name")
    elif len(body) < 32 or blake3(data[:-32]) != data[-32:]:
        raise Damage(f"{name}: its closing hash is wrong")
    else:
        body = body[:-32]
    return Object(name, kind, key_id, uid, data[:HEADER_SIZE], body)


# Records.

_I64 = integer(-(1 << 63), (1 << 63) - 1)
_SID, _OID, _U64 = octets(24), octets(32), integer()
COLLECTOR_IDS = 1 << 22
_OIDS = array(_OID, COLLECTOR_IDS, ascending=True)
_LABEL = text(1024)
_SHARD = fields(
    {0: octets(16), 1: _LABEL, 2: integer(1), 3: integer(1, 1024)},
    {4: octets(most=4096), 5: octets(most=4096)},
)
_TAGS = array(text(256), 1024, ascending=True)
_SOURCE = fields(
    {0: integer(1, 1), 1: octets(most=64 * KIB), 2: _OID, 3: integer(0, 16), 4: _U64, 5: _U64}
)
_CONFIG = fields({
    0: _U64, 1: octets(16), 2: octets(16), 3: _I64,
    4: fields({0: text(256), 1: _U64, 2: _U64, 3: _U64}),
    5: array(text(256), 64), 6: array(text(256), 64), 7: array(text(256), 64),
    8: array(octets(16), 64, ascending=True),
})  # fmt: skip


def _ledger_groups(value: Any, what: str) -> None:
    """Checks the groups of a ledger: ascending, each with packs of 16 bytes in ascending order."""
    array(row(_I64, integer(1, 2), octets()), 4096)(value, what)
    if any(a[:2] >= b[:2] for a, b in zip(value, value[1:])):
        raise Damage(f"{what}: not sorted, or with duplicates")
    packs = [joined[at : at + 16] for _, _, joined in value for at in range(0, len(joined), 16)]
    if len(packs) > COLLECTOR_IDS or any(not joined or len(joined) % 16 for _, _, joined in value):
        raise Damage(f"{what}: too many packs, or some that are not 16 bytes")
    for _, _, joined in value:
        ids = [joined[at : at + 16] for at in range(0, len(joined), 16)]
        if any(a >= b for a, b in zip(ids, ids[1:])):
            raise Damage(f"{what}: packs not sorted, or with duplicates")


_MANIFEST = fields({
    0: integer(1), 1: octets(16), 2: octets(16), 3: _U64, 4: _U64,
    5: array(_SID, COLLECTOR_IDS, ascending=True), 6: array(row(_SID, _U64), COLLECTOR_IDS, ascending=True),
    7: _OIDS, 8: _OIDS, 9: _I64,
})  # fmt: skip
RECORDS: dict[int, Check] = {
    SESSION: fields(
        {0: _SID, 2: integer(0, 2), 3: _I64, 4: _LABEL, 5: _LABEL, 6: _LABEL, 7: _U64}, {1: _SID}
    ),
    SESSION_END: fields({0: _SID, 1: _I64, 2: _OID}),
    CELL: fields(
        {0: integer(1, 4), 1: _SID, 4: _I64, 5: _I64, 6: _LABEL, 7: _LABEL, 8: _TAGS,
         9: array(_SOURCE, 4096), 10: array(_OID, 262_144, ascending=True), 11: table(_U64, _U64, 256),
         12: table(text(4096), text(4096), 256), 13: _LABEL, 14: _U64,
         15: array(_SID, 16, ascending=True), 16: _U64},
        {2: _SID, 3: _SID, 17: _SHARD},
    ),
    AMENDMENT: fields(
        {0: _SID, 1: integer(1), 2: integer(1, 4), 4: _I64, 5: _LABEL, 6: _LABEL}, {3: _TAGS}
    ),
    ROUND: fields({0: integer(1), 1: _OIDS, 2: _OIDS, 3: _OIDS, 4: _OIDS, 5: _I64, 6: _LABEL}),
    LEDGER: fields({0: octets(16), 1: octets(16), 2: _ledger_groups}),
    RUN: fields(
        {0: octets(16), 1: _LABEL, 2: _I64, 3: octets(most=64 * KIB), 4: _LABEL, 5: _U64,
         6: array(octets(most=4096), 1023, ascending=True), 7: _LABEL},
        {8: _SID},
    ),
    RUN_END: fields({0: octets(16), 1: _I64, 2: _SID}),
    STATE: fields({0: integer(1), 1: array(_SID, COLLECTOR_IDS, ascending=True), 2: _OIDS, 3: _OIDS, 4: _OIDS}),
}  # fmt: skip


def open_record(found: Object, keyring: Keyring, repository_id: bytes) -> dict[int, Any]:
    """Opens a sealed record and checks it against its CDDL and its own name."""
    key = keyring.find(found.key_id, frozenset(_PURPOSES[found.kind]), found.name)
    bound = aad(
        sealing.RECORD_ROLE, found.kind, repository_id, key.key_id, found.uid, found.name.encode()
    )
    plaintext = xaes_open(key.seal_key, found.body, bound, found.name)
    if len(plaintext) % 256:
        raise Damage(f"{found.name}: its plaintext is not a multiple of 256 bytes")
    cursor = Cursor(plaintext, found.name)
    record: dict[int, Any] = decode_cbor(cursor.take(cursor.uint(4)), found.name)
    cursor.finish_zeros(256)
    RECORDS[found.kind](record, found.name)
    _check_record_against_name(found, key.purpose, record)
    return record


def _check_record_against_name(found: Object, purpose: int, record: dict[int, Any]) -> None:
    stem = re.split(r"[/.]", found.name)
    if found.kind == CELL:
        _check_shard(found, record)
    if found.kind in (ROUND, STATE):
        named = f"{record[0]:016x}" == stem[1]
    elif found.kind == AMENDMENT:
        named = [record[0].hex(), str(record[1])] == stem[1:]
        if (record[2] == 4) != (purpose == sealing.COLLECTOR):
            raise Damage(f"{found.name}: sealed under the {sealing.PURPOSE_NAMES[purpose]} key")
        if (record[2] == 1) != (3 in record):
            raise Damage(f"{found.name}: tags belong to amendments that set them, and only there")
    else:
        named = record[1 if found.kind == CELL else 0].hex() == stem[1]
    if not named:
        raise Damage(f"{found.name}: it says that it is another object")


def _check_shard(found: Object, cell: dict[int, Any]) -> None:
    shard = cell.get(17)
    if (shard is None) == (cell[0] == SHARD) or (shard is not None and cell[0] not in (PARTIAL, SHARD)):
        raise Damage(f"{found.name}: a shard, and no other than it and its checkpoints, says which one it is")
    if shard is None:
        return
    number, count = shard[2], shard[3]
    if not 1 <= number <= count or (4 in shard) != (number > 1) or (5 in shard) != (number < count):
        raise Damage(f"{found.name}: there is no such shard, or its range ends where another one should be")
    if 4 in shard and 5 in shard and shard[4] >= shard[5]:
        raise Damage(f"{found.name}: a shard's range is empty")


def parse_config(found: Object) -> dict[int, Any]:
    """Parses a config without authenticating it."""
    if len(found.body) < 32:
        raise Damage(f"{found.name}: too short")
    config: dict[int, Any] = decode_cbor(found.body[:-32], found.name)
    _CONFIG(config, found.name)
    if found.name != f"config/{config[0]:016x}":
        raise Damage(f"{found.name}: it says that it is config {config[0]}")
    return config


def check_config_mac(found: Object, config: dict[int, Any], keyring: Keyring) -> None:
    mac_key = blake3_derive("larder v1 config mac", keyring.id_key + config[1])
    covered = found.header + found.name.encode() + found.body[:-32]
    if blake3_keyed(mac_key, covered) != found.body[-32:]:
        raise Damage(f"{found.name}: its MAC is wrong; somebody without the keys changed it")


def parse_manifest(found: Object) -> dict[int, Any]:
    """Parses what a mirror lists; nobody authenticates it."""
    manifest: dict[int, Any] = decode_cbor(found.body, found.name)
    _MANIFEST(manifest, found.name)
    if found.name != f"mirror/{manifest[0]:016x}":
        raise Damage(f"{found.name}: it says that it is manifest {manifest[0]}")
    if manifest[4] not in (0, manifest[3] + 1):
        raise Damage(f"{found.name}: its round is not the one after its state")
    return manifest


def lists(manifest: dict[int, Any], name: str) -> bool:
    """Tells whether a mirror with this manifest lists an object."""
    folder, _, rest = name.partition("/")
    if folder == "gc":
        return rest in (f"{manifest[3]:016x}.final", f"{manifest[4]:016x}")
    if folder not in ("snapshots", "sessions"):
        return folder != "mirror" and name != MARKER
    stem, _, suffix = rest.partition(".")
    if folder == "snapshots" and suffix:
        return [bytes.fromhex(stem), int(suffix)] in manifest[6]
    return bytes.fromhex(stem) in manifest[5]


# Packs and segments.


@dataclass(frozen=True)
class Block:
    chunk_type: int
    offset: int
    sealed_size: int
    lengths: list[int]
    prefixes: list[bytes]


@dataclass(frozen=True)
class Directory:
    encoded: bytes
    blocks: list[Block]


def parse_directory(cursor: Cursor, kind: int) -> Directory:
    start, offset, chunks = cursor.at, HEADER_SIZE, 0
    shapes: list[tuple[int, int, int, list[int]]] = []
    for _ in range(cursor.varint(65536)):
        chunk_type = cursor.uint(1)
        if chunk_type not in ((1,) if kind == DATA_PACK else (2, 3, 4, 5, 6)):
            raise Damage(f"{cursor.what}: chunk type {chunk_type} in a pack of kind {kind}")
        sealed_size = cursor.varint(8 * MIB + 64 * KIB)
        if sealed_size <= sealing.OVERHEAD:
            raise Damage(f"{cursor.what}: a block of {sealed_size} bytes is too short to be one")
        lengths = [cursor.varint(4 * MIB) for _ in range(cursor.varint(65536))]
        chunks += len(lengths)
        if not lengths or min(lengths) == 0 or sum(lengths) > 8 * MIB or chunks > MIB:
            raise Damage(f"{cursor.what}: chunk counts or lengths outside the limits")
        shapes.append((chunk_type, offset, sealed_size, lengths))
        offset += sealed_size
    if offset > 64 * MIB:
        raise Damage(f"{cursor.what}: its blocks are longer than a pack can be")
    blocks = [Block(*shape, [cursor.take(16) for _ in shape[3]]) for shape in shapes]
    return Directory(cursor.data[start : cursor.at], blocks)


def open_pack_directory(found: Object, keyring: Keyring, repository_id: bytes) -> Directory:
    size = HEADER_SIZE + len(found.body)
    check_pack_frame(found)
    sealed_size = int.from_bytes(found.body[-16:-12], "little")
    key = keyring.find(found.key_id, frozenset(_PURPOSES[found.kind]), found.name)
    bound = aad(sealing.DIRECTORY_ROLE, found.kind, repository_id, key.key_id, found.uid)
    sealed = found.body[-16 - sealed_size : -16]
    cursor = Cursor(xaes_open(key.seal_key, sealed, bound, found.name), f"{found.name}: directory")
    directory = parse_directory(cursor, found.kind)
    cursor.finish_zeros(512)
    blocks_end = HEADER_SIZE + sum(block.sealed_size for block in directory.blocks)
    if blocks_end > size - 16 - sealed_size:
        raise Damage(f"{found.name}: its blocks overlap its directory")
    return directory


def check_pack_frame(found: Object) -> None:
    """Checks what can be seen of a pack without a key: its footer and its size."""
    size = HEADER_SIZE + len(found.body)
    sealed_size = int.from_bytes(found.body[-16:-12], "little")
    if found.body[-12:] != FOOTER or sealed_size % 512 or not 0 < sealed_size <= size - 80:
        raise Damage(f"{found.name}: its footer is wrong")
    exponent = size.bit_length() - 1
    if size & ((1 << (exponent - exponent.bit_length())) - 1):
        raise Damage(f"{found.name}: {size} bytes is not a Padmé size")


@dataclass(frozen=True)
class SegmentPack:
    pack_id: bytes
    kind: int
    size: int
    directory: Directory


@dataclass(frozen=True)
class Segment:
    owner: bytes | int
    packs: list[SegmentPack]


def open_segment(found: Object, keyring: Keyring, repository_id: bytes) -> Segment:
    key = keyring.find(found.key_id, frozenset(_PURPOSES[SEGMENT]), found.name)
    bound = aad(sealing.SEGMENT_ROLE, SEGMENT, repository_id, key.key_id, found.uid)
    if len(found.body) % 512:
        raise Damage(f"{found.name}: its sealed length is not a multiple of 512 bytes")
    cursor = Cursor(xaes_open(key.seal_key, found.body, bound, found.name), found.name)
    if (owner_kind := cursor.uint(1)) > 1:
        raise Damage(f"{found.name}: owner kind {owner_kind} is not defined")
    owner = cursor.uint(8) if owner_kind else cursor.take(24)
    packs = []
    for _ in range(cursor.varint(65536)):
        pack_id, kind, size = cursor.take(32), cursor.uint(1), cursor.varint(64 * MIB)
        if kind not in (DATA_PACK, TREE_PACK):
            raise Damage(f"{found.name}: pack kind {kind} is not defined")
        inner = Cursor(cursor.take(cursor.varint(64 * MIB)), f"{found.name}: directory")
        packs.append(SegmentPack(pack_id, kind, size, parse_directory(inner, kind)))
        inner.finish()
    cursor.finish_zeros(512)
    return Segment(owner, packs)


# Blocks.


def open_block(
    sealed: bytes, block: Block, kind: int, key_id: bytes, keyring: Keyring, repository_id: bytes, what: str
) -> list[bytes]:
    """Opens a block and returns its chunks; their ids are not yet checked."""
    key = keyring.find(key_id, frozenset(_PURPOSES[kind]), what)
    bound = aad(sealing.BLOCK_ROLE, block.chunk_type, repository_id, key.key_id)
    payload = Cursor(xaes_open(key.seal_key, sealed, bound, what), what)
    codec, size = payload.uint(1), sum(block.lengths)
    if codec == 0:
        plaintext = payload.rest()
    elif codec == 1:
        plaintext = _unzstd(payload.rest(), size, what)
    elif codec == 2 and 2 <= block.chunk_type <= 5:
        pages = _decode_columns(payload, len(block.lengths), size)
        if [len(page) for page in pages] != block.lengths:
            raise Damage(f"{what}: its pages are not as long as the directory says")
        return pages
    else:
        raise Damage(f"{what}: codec {codec} is not defined for chunk type {block.chunk_type}")
    if len(plaintext) != size:
        raise Damage(f"{what}: {len(plaintext)} bytes of plaintext, the directory says {size}")
    cursor = Cursor(plaintext, what)
    return [cursor.take(length) for length in block.lengths]


def _unzstd(frame: bytes, size: int, what: str) -> bytes:
    try:
        if zstandard.get_frame_parameters(frame).content_size != size:
            raise Damage(f"{what}: a zstd frame without the right content size ({size})")
        return zstandard.ZstdDecompressor().decompress(frame, max_output_size=size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        raise Damage(f"{what}: zstd: {error}") from error


def _decode_columns(payload: Cursor, pages: int, most: int) -> list[bytes]:
    what = payload.what
    if payload.varint() != pages:
        raise Damage(f"{what}: its pages are not as many as the directory says")
    shapes = []
    for _ in range(payload.varint(65)):
        shapes.append((payload.uint(1), payload.uint(1), payload.varint(most), payload.varint(8 * MIB)))
    streams: dict[int, Cursor] = {}
    for field, codec, raw, stored in shapes:
        if codec > 1 or raw == 0 or field <= max(streams, default=-1) or (not streams and field != 0):
            raise Damage(f"{what}: streams out of order or of an unknown codec")
        data = payload.take(stored)
        data = _unzstd(data, raw, what) if codec else data
        if len(data) != raw:
            raise Damage(f"{what}: a stream that is not as long as it says")
        streams[field] = Cursor(data, what)
    payload.finish()
    if sum(raw for _, _, raw, _ in shapes) != most or not streams:
        raise Damage(f"{what}: its streams are not as long as the directory says")
    result = []
    for _ in range(pages):
        head, parts = parse_page_head(streams[0])
        if any(field not in streams for field, _ in parts):
            raise Damage(f"{what}: a page with a column that has no stream")
        result.append(head + b"".join(streams[field].take(length) for field, length in parts))
    for stream in streams.values():
        stream.finish()
    return result


def parse_page_head(cursor: Cursor) -> tuple[bytes, list[tuple[int, int]]]:
    """Returns a page's head as it stands and the fields and lengths of its columns."""
    start = cursor.at
    if (level := cursor.uint(1)) > 16:
        raise Damage(f"{cursor.what}: level {level} is above the limit of 16")
    cursor.varint()
    parts: list[tuple[int, int]] = []
    for _ in range(cursor.varint(64)):
        field, length = cursor.uint(1), cursor.varint(4 * MIB)
        if length == 0 or not 1 <= field <= 63 or (parts and field <= parts[-1][0]):
            raise Damage(f"{cursor.what}: columns out of order or empty")
        parts.append((field, length))
    return cursor.data[start : cursor.at], parts
