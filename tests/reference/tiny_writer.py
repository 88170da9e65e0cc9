"""Writes tiny repositories by SPEC.md, for the reader's tests; shares no code with the reader.

Every stage passes what it made through `tweak`, so that a test can damage exactly one thing
and leave hashes, seals and names around it right.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import argon2.low_level
import zstandard
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.cmac import CMAC

MASK = (1 << 64) - 1
Tweaks = dict[str, Callable[[Any], Any]]


def le(value: int, width: int) -> bytes:
    return value.to_bytes(width, "little")


def varint(value: int) -> bytes:
    septets = []
    while True:
        septets.append(value % 128)
        value //= 128
        if not value:
            return bytes([s + 128 for s in septets[:-1]] + septets[-1:])


def zigzag(value: int) -> int:
    return 2 * value if value >= 0 else -2 * value - 1


def cbor(value: Any) -> bytes:
    if isinstance(value, int):
        return cbor_head(0, value) if value >= 0 else cbor_head(1, -1 - value)
    if isinstance(value, bytes):
        return cbor_head(2, len(value)) + value
    if isinstance(value, str):
        return cbor_head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return cbor_head(4, len(value)) + b"".join(map(cbor, value))
    pairs = sorted((cbor(key), cbor(item)) for key, item in value.items())
    return cbor_head(5, len(pairs)) + b"".join(key + item for key, item in pairs)


def cbor_head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes([major * 32 + argument])
    for additional, width in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if argument < 256**width:
            return bytes([major * 32 + additional]) + argument.to_bytes(width, "big")
    raise ValueError(argument)


def integers(values: list[int]) -> bytes:
    if len(set(values)) == 1:
        return b"\0" + varint(values[0])
    forms = [b"\1" + b"".join(varint(v) for v in values)]
    steps = [(b - a + (1 << 63)) % (1 << 64) - (1 << 63) for a, b in zip([0, *values], values)]
    forms.append(b"\2" + b"".join(varint(zigzag(step)) for step in steps))
    k = 0
    while any(values) and k < 9 and all(v % 10 ** (k + 1) == 0 for v in values):
        k += 1
    if k:
        forms.append(b"\3" + bytes([k]) + b"".join(varint(v // 10**k) for v in values))
    best = forms[0]
    for form in forms[1:]:
        if len(form) < len(best):
            best = form
    return best


def strings(values: list[bytes]) -> bytes:
    lengths = integers([len(v) for v in values])
    return varint(len(lengths)) + lengths + b"".join(values)


def page(level: int, items: int, columns: dict[int, bytes]) -> bytes:
    present = sorted((field, data) for field, data in columns.items() if data)
    head = bytes([level]) + varint(items) + varint(len(present))
    head += b"".join(bytes([field]) + varint(len(data)) for field, data in present)
    return head + b"".join(data for _, data in present)


def xaes_seal(key: bytes, nonce: bytes, plaintext: bytes, aad: bytes) -> bytes:
    halves = []
    for number in (1, 2):
        mac = CMAC(AES256(key))
        mac.update(bytes([0, number]) + b"X\0" + nonce[:12])
        halves.append(mac.finalize())
    return nonce + AESGCM(b"".join(halves)).encrypt(nonce[12:], plaintext, aad)


class Writer:
    """Holds the keys of one repository and the chunks that await a pack."""

    def __init__(self, folder: str, tweaks: Tweaks | None = None) -> None:
        self.folder = folder
        self.tweaks = tweaks or {}
        self.id, self.replica = os.urandom(16), os.urandom(16)
        self.secrets = {purpose: os.urandom(32) for purpose in range(1, 6)}
        self.id_key, self.chunker_key, self.boundary_key = (os.urandom(32) for _ in range(3))
        self.pending: dict[tuple[int, int], list[bytes]] = {}  # (type, codec): chunks
        self.segment_packs: list[bytes] = []

    def tweak(self, stage: str, value: Any) -> Any:
        return self.tweaks[stage](value) if stage in self.tweaks else value

    # Objects.

    def put(self, name: str, data: bytes) -> str:
        path = os.path.join(self.folder, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "xb") as file:
            file.write(data)
        return name

    def header(self, kind: int, key_id: bytes, uid: bytes) -> bytes:
        return self.tweak("header", b"\x89LARDER\n" + bytes([1, kind]) + bytes(6) + key_id + uid)

    def derived(self, secret: bytes, purpose: int) -> tuple[bytes, bytes]:
        material = secret + bytes([purpose]) + le(0, 4) + self.id
        contexts = ("larder v1 key id", "larder v1 seal key")
        key_id, seal_key = (blake3(material, derive_key_context=c).digest() for c in contexts)
        return key_id, seal_key

    def closed(self, data: bytes) -> bytes:
        return data + blake3(data).digest()

    def record(self, name: str, kind: int, purpose: int, value: Any) -> str:
        key_id, seal_key = self.derived(self.secrets[purpose], purpose)
        uid = os.urandom(16)
        encoded = self.tweak(f"cbor {kind}", cbor(self.tweak(f"record {kind}", value)))
        plaintext = le(len(encoded), 4) + encoded
        plaintext = self.tweak("record plaintext", plaintext + bytes(-len(plaintext) % 256))
        aad = bytes([1, 4, kind]) + self.id + key_id + uid + name.encode()
        body = xaes_seal(seal_key, os.urandom(24), plaintext, aad)
        return self.put(name, self.closed(self.header(kind, key_id, uid) + body))

    def slot(self, slot_id: bytes, kind: int, secret: bytes, cost: dict[int, Any] | None = None) -> None:
        params = {0: kind, 1: "test", 2: 1_700_000_000} | ({3: cost} if cost else {})
        encoded = cbor(self.tweak("params", params))
        key_id, seal_key = self.derived(secret, 0)
        keys = [[purpose, 0, key] for purpose, key in sorted(self.secrets.items())]
        ring = cbor(self.tweak("keyring", {0: keys, 1: self.id_key, 2: self.chunker_key, 3: self.boundary_key}))
        uid, name = os.urandom(16), f"keys/{slot_id.hex()}"
        aad = bytes([1, 5, 2]) + self.id + key_id + uid + blake3(encoded).digest() + name.encode()
        sealed = xaes_seal(seal_key, os.urandom(24), ring, aad)
        self.put(name, self.closed(self.header(2, key_id, uid) + varint(len(encoded)) + encoded + sealed))

    def config(self, slot_ids: list[bytes]) -> None:
        value = {0: 1, 1: self.id, 2: self.replica, 3: 1_700_000_000,
                 4: {0: "fastcdc-v2020", 1: 262144, 2: 1048576, 3: 4194304},
                 5: [], 6: [], 7: [], 8: sorted(slot_ids)}  # fmt: skip
        name, header = f"config/{1:016x}", self.header(1, bytes(32), os.urandom(16))
        body = cbor(self.tweak("config", value))
        key = blake3(self.id_key + self.id, derive_key_context="larder v1 config mac").digest()
        mac = self.tweak("config mac", blake3(header + name.encode() + body, key=key).digest())
        self.put(name, self.closed(header + body + mac))

    def passphrase_slot(self, slot_id: bytes, passphrase: bytes) -> None:
        salt = os.urandom(32)
        kind = argon2.low_level.Type.ID
        secret = argon2.low_level.hash_secret_raw(passphrase, salt, 1, 64, 1, 32, kind, 0x13)
        self.slot(slot_id, 1, secret, {0: 64, 1: 1, 2: 1, 3: salt})

    # Chunks, packs and segments.

    def chunk(self, kind: int, data: bytes, codec: int) -> bytes:
        self.pending.setdefault((kind, codec), []).append(data)
        return blake3(bytes([kind]) + data, key=self.id_key).digest()

    def packs(self, kind: int) -> None:
        """Writes what is pending in blocks of at most 1 MiB (or one chunk) and packs of 40 blocks."""
        blocks = []
        for key in [key for key in self.pending if (key[0] == 1) == (kind == 3)]:
            block: list[bytes] = []
            for chunk in self.pending.pop(key):
                if block and sum(map(len, block)) + len(chunk) > 1 << 20:
                    blocks.append((key, block))
                    block = []
                block.append(chunk)
            blocks.append((key, block))
        for start in range(0, len(blocks), 40):
            self.pack(kind, blocks[start : start + 40])

    def pack(self, kind: int, mine: list[tuple[tuple[int, int], list[bytes]]]) -> None:
        purpose = kind - 2
        key_id, seal_key = self.derived(self.secrets[purpose], purpose)
        blocks, shapes, prefixes = b"", b"", b""
        for (chunk_type, codec), chunks in mine:
            payload = self.tweak(f"payload {codec}", bytes([codec]) + self.encode(chunks, codec))
            aad = bytes([1, 1, chunk_type]) + self.id + key_id
            sealed = xaes_seal(seal_key, os.urandom(24), payload, aad)
            shapes += bytes([chunk_type]) + varint(len(sealed)) + varint(len(chunks))
            shapes += b"".join(varint(len(c)) for c in chunks)
            prefixes += b"".join(blake3(bytes([chunk_type]) + c, key=self.id_key).digest()[:16] for c in chunks)
            blocks += sealed
        directory = self.tweak("directory", varint(len(mine)) + shapes + prefixes)
        uid = os.urandom(16)
        aad = bytes([1, 2, kind]) + self.id + key_id + uid
        padded = directory + bytes(-(len(directory) + 40) % 512)
        sealed = xaes_seal(seal_key, os.urandom(24), self.tweak("padded directory", padded), aad)
        footer = self.tweak("footer", le(len(sealed), 4) + le(0, 4) + b"LARDEND\n")
        size = 64 + len(blocks) + len(sealed) + 16
        padding = os.urandom(self.tweak("padding", padme(size) - size))
        data = self.header(kind, key_id, uid) + blocks + padding + sealed + footer
        pack_id = blake3(data).digest()
        self.put(f"packs/{pack_id.hex()[:2]}/{pack_id.hex()}", data)
        copy = self.tweak("directory copy", directory)
        self.segment_packs.append(pack_id + bytes([kind]) + varint(len(data)) + varint(len(copy)) + copy)

    def encode(self, chunks: list[bytes], codec: int) -> bytes:
        if codec == 0:
            return b"".join(chunks)
        if codec == 1:
            return zstandard.compress(b"".join(chunks))
        streams: dict[int, bytes] = {0: b""}
        for chunk in chunks:
            head, columns = take_page_apart(chunk)
            streams[0] += head
            for field, data in columns:
                streams[field] = streams.get(field, b"") + data
        table, stored = b"", b""
        for position, field in enumerate(sorted(streams)):
            raw = streams[field]
            packed = zstandard.compress(raw) if position % 2 == 0 else raw
            table += bytes([field, 1 - position % 2]) + varint(len(raw)) + varint(len(packed))
            stored += packed
        return varint(len(chunks)) + varint(len(streams)) + table + stored

    def segment(self, owner: bytes) -> bytes:
        key_id, seal_key = self.derived(self.secrets[3], 3)
        uid = os.urandom(16)
        plaintext = b"\0" + self.tweak("owner", owner) + varint(len(self.segment_packs)) + b"".join(self.segment_packs)
        plaintext = plaintext + bytes(-(len(plaintext) + 40) % 512)
        aad = bytes([1, 3, 5]) + self.id + key_id + uid
        data = self.header(5, key_id, uid) + xaes_seal(seal_key, os.urandom(24), plaintext, aad)
        self.segment_packs = []
        self.put(f"index/{blake3(data).hexdigest()}", data)
        return blake3(data).digest()

    # Trees and lists.

    def tree(self, entries: list[dict[str, Any]]) -> tuple[bytes, int, int, int]:
        """Returns the root, its level, the entries and the sum of their sizes."""
        entries = self.tweak("entries", entries)
        level, items = 0, [
            {"first": e["key"], "last": e["key"], "sort": e["key"], "entries": 1, "size": e.get("size", 0), "entry": e}
            for e in entries
        ]
        while True:
            nodes = self.tweak(f"cuts {level}", self.cut_tree(items, level))
            for node in nodes:
                data = self.leaf([i["entry"] for i in node]) if level == 0 else self.interior(node, level)
                data = self.tweak(f"page {level}", data)
                node[0:0] = [{"id": self.chunk(3 if level else 2, data, 2)}]
            parents, before = [], None
            for [made, *node] in nodes:
                first = node[0]["first"] if node else b""
                sort = b"" if before is None else next(
                    first[:n] for n in range(len(first) + 1) if first[:n] > before
                )
                parents.append({
                    "first": first, "last": node[-1]["last"] if node else b"", "sort": sort, "id": made["id"],
                    "entries": sum(i["entries"] for i in node), "size": sum(i["size"] for i in node),
                })  # fmt: skip
                before = parents[-1]["last"]
            if len(parents) == 1:
                return parents[0]["id"], level, parents[0]["entries"], parents[0]["size"]
            items, level = parents, level + 1

    def rank(self, key: bytes) -> int:
        digest = blake3(le(len(key), 4) + key + le(0, 8), key=self.boundary_key).digest()
        return min(16, (format(int.from_bytes(digest[:8], "little"), "064b") + "1").index("1") // 4)

    def cut_tree(self, items: list[dict[str, Any]], level: int) -> list[list[dict[str, Any]]]:
        nodes: list[list[dict[str, Any]]] = [[]]
        for item in items:
            nodes[-1].append(item)
            enough = len(nodes[-1]) >= 16 and self.rank(item["last"]) > level
            long_keys = sum(len(i["sort"]) for i in nodes[-1]) >= 65536 and (level == 0 or len(nodes[-1]) >= 16)
            if enough or len(nodes[-1]) == 512 or long_keys:
                nodes.append([])
        return nodes if nodes[-1] or len(nodes) == 1 else nodes[:-1]

    def key_columns(self, keys: list[bytes]) -> dict[int, bytes]:
        shared = [len(os.path.commonprefix([a, b])) for a, b in zip([b"", *keys], keys)]
        added = [len(key) - common for key, common in zip(keys, shared)]
        tails = b"".join(key[common:] for key, common in zip(keys, shared))
        return {1: column(shared), 2: column(added), 3: tails}

    def interior(self, node: list[dict[str, Any]], level: int) -> bytes:
        columns = self.key_columns([i["sort"] for i in node])
        columns[5] = column([self.rank(i["last"]) for i in node])
        columns[6] = b"".join(i["id"] for i in node)
        columns[7], columns[8] = column([i["entries"] for i in node]), column([i["size"] for i in node])
        return page(level, len(node), self.tweak("interior", columns))

    def leaf(self, entries: list[dict[str, Any]]) -> bytes:
        def get(name: str, default: Any = 0) -> list[Any]:
            return [e.get(name, default) for e in entries]

        columns = self.key_columns(get("key"))
        types = get("type", 1)
        columns[5] = integers(types) if set(types) - {1} else b""
        for field, name in ((6, "size"), (7, "mode"), (8, "uid"), (9, "gid"), (18, "inode"), (20, "links"),
                            (19, "fs"), (22, "device"), (23, "flags")):  # fmt: skip
            columns[field] = column(get(name))
        for field, name in ((12, "mtime"), (14, "ctime")):
            columns[field] = column([zigzag(t // 10**9) for t in get(name)])
            columns[field + 1] = column([t % 10**9 for t in get(name)])
        for field, name in ((10, "user"), (11, "group"), (21, "target")):
            columns[field] = strings(get(name, b"")) if any(get(name, b"")) else b""
        self.content_columns(entries, columns)
        records = [
            self.tweak("attributes", cbor({0: [list(x) for x in sorted(e["xattrs"])]})) if e.get("xattrs") else b""
            for e in entries
        ]
        inline = [r for r in records if r and len(r) <= 1024]
        columns[29] = column([0 if not r else 1 if len(r) <= 1024 else 2 for r in records])
        columns[30] = strings(inline) if inline else b""
        columns[31] = b"".join(self.chunk(6, r, 0) for r in records if len(r) > 1024)
        return page(0, len(entries), self.tweak("leaf", columns))

    def content_columns(self, entries: list[dict[str, Any]], columns: dict[int, bytes]) -> None:
        kinds, counts, lengths, ids, levels = [], [], [], b"", []
        for e in entries:
            extents = e.get("extents", [])
            if len(extents) > 31:
                root, level = self.list(extents)
                kinds.append(3)
                levels.append(level)
                ids += root
            elif len(extents) == 1 and extents[0][1]:
                kinds.append(1)
                ids += extents[0][1]
            else:
                kinds.append(2 if extents else 0)
                counts += [len(extents)] if extents else []
                lengths += [length * 2 + (not chunk) for length, chunk in extents]
                ids += b"".join(chunk for _, chunk in extents if chunk)
        columns[24], columns[27], columns[28] = column(kinds), ids, column(levels)
        columns[25] = integers(counts) if counts else b""
        columns[26] = integers(lengths) if lengths else b""

    def list(self, extents: list[tuple[int, bytes | None]]) -> tuple[bytes, int]:
        items = [
            {"rank": list_rank(chunk), "length": length, "count": 1, "chunk": chunk} for length, chunk in extents
        ]
        level = 0
        while True:
            nodes: list[list[dict[str, Any]]] = [[]]
            for item in items:
                nodes[-1].append(item)
                if (len(nodes[-1]) >= 64 and item["rank"] > level) or len(nodes[-1]) == 2048:
                    nodes.append([])
            parents = []
            for node in filter(None, self.tweak(f"list cuts {level}", nodes)):
                lengths = [i["length"] for i in node]
                ids = b"".join(i["chunk"] or b"" for i in node)
                if level == 0:
                    columns = {1: integers([n * 2 + (not i["chunk"]) for n, i in zip(lengths, node)]), 2: ids}
                else:
                    columns = {1: ids, 2: integers(lengths), 3: integers([i["count"] for i in node])}
                chunk = self.chunk(5 if level else 4, page(level, len(node), columns), 2)
                count = sum(i["count"] for i in node)
                parents.append({"rank": node[-1]["rank"], "length": sum(lengths), "count": count, "chunk": chunk})
            if len(parents) == 1:
                return parents[0]["chunk"], level
            items, level = parents, level + 1


def column(values: list[int]) -> bytes:
    return integers(values) if any(values) else b""


def list_rank(chunk: bytes | None) -> int:
    if chunk is None:
        return 0
    return min(10, (format(int.from_bytes(chunk[:8], "big"), "064b") + "1").index("1") // 6)


def padme(size: int) -> int:
    exponent = size.bit_length() - 1
    step = 1 << (exponent - (len(bin(exponent)) - 2))
    return (size + step - 1) // step * step


def take_page_apart(data: bytes) -> tuple[bytes, list[tuple[int, bytes]]]:
    def number(at: int) -> tuple[int, int]:
        value = shift = 0
        while True:
            value |= (data[at] & 127) << shift
            at, shift = at + 1, shift + 7
            if data[at - 1] < 128:
                return value, at

    _, at = number(1)
    count, at = number(at)
    shapes = []
    for _ in range(count):
        length, after = number(at + 1)
        shapes.append((data[at], length))
        at = after
    head, columns = data[:at], []
    for field, length in shapes:
        columns.append((field, data[at : at + length]))
        at += length
    return head, columns


class TinyRepository:
    """One finished snapshot of a small tree, with everything that version 1 has."""

    PASSPHRASE = b"correct horse"

    def __init__(
        self, folder: str, tweaks: Tweaks | None = None, entries: Callable[[Writer], list[dict[str, Any]]] | None = None
    ) -> None:
        self.writer = writer = Writer(folder, tweaks)
        self.raw_key, self.recovery_key = os.urandom(32), os.urandom(32)
        slots = [os.urandom(16) for _ in range(3)]
        writer.passphrase_slot(slots[0], self.PASSPHRASE)
        writer.slot(slots[1], 2, self.raw_key)
        writer.slot(slots[2], 3, self.recovery_key)
        writer.config(slots)
        self.contents: dict[bytes, bytes] = {}
        self.sid = bytes(8) + os.urandom(16)
        name = self.sid.hex()
        who = {4: "host", 5: "user", 6: "test 1", 7: 1}
        writer.record(f"sessions/{name}", 6, 4, {0: self.sid, 2: 0, 3: 1_700_000_000 * 10**9} | who)
        root, level, count, size = writer.tree(entries(writer) if entries else self.entries())
        writer.packs(3)
        writer.packs(4)
        segment = writer.segment(self.sid)
        source = writer.tweak("source", {0: 1, 1: b"/data", 2: root, 3: level, 4: count, 5: size})
        self.cell = {
            0: 1, 1: self.sid, 4: 1_700_000_000 * 10**9, 5: 1_700_000_001 * 10**9, 6: "host", 7: "user",
            8: ["a", "b"], 9: [source], 10: [segment], 11: {0: 1, 99: 5}, 12: {"k": "v"}, 13: "test 1",
            14: 1, 15: [], 16: 0,
        }  # fmt: skip
        writer.record(f"snapshots/{name}", 8, 4, self.cell)
        with open(os.path.join(folder, f"snapshots/{name}"), "rb") as file:
            cell_hash = blake3(file.read()).digest()
        end = {0: self.sid, 1: 1_700_000_002 * 10**9, 2: cell_hash}
        writer.record(f"sessions/{name}.done", 7, 4, end)
        ledger = os.urandom(16)
        packs = [bytes([n]) * 16 for n in range(3)]
        groups = [[-5, 2, packs[2]], [1_700_000_000, 1, b"".join(packs[:2])], [1_700_000_000, 2, packs[0]]]
        writer.record(f"ledger/{ledger.hex()}", 14, 4, {0: ledger, 1: writer.replica, 2: groups})
        run = os.urandom(16)
        what = {0: run, 1: "nightly", 2: 1, 3: b"s3://bucket", 4: "host", 5: 4, 6: [b"a", b"b/"], 7: "", 8: self.sid}
        writer.record(f"runs/{run.hex()}", 18, 4, what)
        writer.record(f"runs/{run.hex()}.joined", 19, 4, {0: run, 1: 2, 2: self.sid})

    def entries(self) -> list[dict[str, Any]]:
        base = {"mtime": -1_234_567_891_000_000_001, "ctime": 1_700_000_000 * 10**9, "uid": os.getuid(),
                "gid": os.getgid(), "user": b"u"}  # fmt: skip
        made: list[dict[str, Any]] = [
            {"key": b"", "type": 2, "mode": 0o755, "inode": 1},
            {"key": b"d/", "type": 2, "mode": 0o711, "inode": 2},
            {"key": b"d.x", "mode": 0o600, "inode": 3},
            {"key": b"empty", "mode": 0o4640, "inode": 4},
            {"key": b"link", "type": 3, "mode": 0o777, "target": b"../\xff nowhere", "inode": 5},
            {"key": b"fifo", "type": 4, "mode": 0o620, "inode": 6},
            {"key": b"socket", "type": 5, "mode": 0o640, "inode": 7},
            self.file(b"plain", [b"whole content"], xattrs=[(b"user.small", b"value"), (b"user.b", b"")]),
            self.file(b"big-xattr", [b"x"], xattrs=[(b"user.large", bytes(2000))]),
            self.file(b"d/hard", [b"one file"], links=2, inode=50),
            self.file(b"z-hard", [b"one file"], links=2, inode=50),
            self.file(b"sparse", [70_000, b"middle", 1 << 20]),
            self.file(b"all-hole", [5_000_000_000]),
            self.file(b"long", [b"%08d" % n for n in range(1500)]),
            self.file(b"d/\xff\n name", [b"name"]),
            {"key": b"unreadable", "size": 77, "flags": 2, "inode": 9},
        ]
        made += [self.file(b"many-%04d" % n, [b"m%d" % n]) for n in range(1000)]
        return [base | entry for entry in sorted(made, key=lambda entry: entry["key"])]

    def file(self, key: bytes, parts: list[bytes | int], **more: Any) -> dict[str, Any]:
        codec = len(key) % 2
        extents = [
            (part, None) if isinstance(part, int) else (len(part), self.writer.chunk(1, part, codec))
            for part in parts
        ]
        if key != b"all-hole":
            self.contents[key] = b"".join(bytes(p) if isinstance(p, int) else p for p in parts)
        return {"key": key, "mode": 0o644, "size": sum(n for n, _ in extents), "extents": extents,
                "inode": 100 + sum(key), "links": 1} | more  # fmt: skip


def read_folder(writer: Writer, top: bytes) -> list[dict[str, Any]]:
    """Reads a tree of files into entries, by directory handles."""
    entries: list[dict[str, Any]] = []

    def add(handle: int, name: bytes, key: bytes) -> None:
        found = os.stat(name, dir_fd=handle, follow_symlinks=False)
        kind = {0o10: 1, 0o04: 2, 0o12: 3, 0o01: 4, 0o14: 5, 0o02: 6, 0o06: 7}[found.st_mode >> 12]
        through = b"/proc/self/fd/%d/%s" % (handle, name)
        xattrs = [
            (os.fsencode(n), os.getxattr(through, n, follow_symlinks=False))
            for n in os.listxattr(through, follow_symlinks=False)
        ]
        entry = {
            "key": key + b"/" * (kind == 2 and key != b""), "type": kind, "mode": found.st_mode & 0o7777,
            "uid": found.st_uid, "gid": found.st_gid, "mtime": found.st_mtime_ns, "ctime": found.st_ctime_ns,
            "inode": found.st_ino, "links": found.st_nlink, "xattrs": xattrs,
        }  # fmt: skip
        if kind == 1:
            entry |= {"size": found.st_size, "extents": read_extents(writer, handle, name, found.st_size)}
        elif kind == 3:
            entry |= {"mode": 0o777, "target": os.readlink(name, dir_fd=handle)}
        elif kind in (6, 7):
            entry["device"] = os.major(found.st_rdev) << 32 | os.minor(found.st_rdev)
        entries.append(entry)
        if kind == 2:
            below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=handle)
            for child in os.listdir(b"/proc/self/fd/%d" % below):
                add(below, child, entry["key"] + child)
            os.close(below)

    handle = os.open(top, os.O_RDONLY)
    add(handle, b".", b"")
    os.close(handle)
    return sorted(entries, key=lambda entry: entry["key"])


def read_extents(writer: Writer, at: int, name: bytes, size: int) -> list[tuple[int, bytes | None]]:
    handle = os.open(name, os.O_RDONLY, dir_fd=at)
    extents: list[tuple[int, bytes | None]] = []
    offset = 0
    while offset < size:
        try:
            data = os.lseek(handle, offset, os.SEEK_DATA)
        except OSError:
            data = size
        if data > offset:
            extents.append((data - offset, None))
            offset = data
            continue
        piece = os.pread(handle, min(1 << 20, os.lseek(handle, offset, os.SEEK_HOLE) - offset), offset)
        extents.append((len(piece), writer.chunk(1, piece, 1)))
        offset += len(piece)
    os.close(handle)
    return extents
