"""A bundle (SPEC.md §19): a repository in one stream, here in a file."""

from __future__ import annotations

import os
import re
from typing import Any

import objects
import sealing
from objects import Object, blake3, xaes_open
from repository import Folder
from sealing import Keyring, aad
from wire import Cursor, Damage, Missing, decode_cbor, fields, integer, octets

START = b"\x89LARBUN\n" + bytes([1]) + bytes(7)
BUNDLE_RECORD = 17
MOST_OBJECTS, MOST_NAME, MOST_RECORD = 1 << 20, 128, 64 << 10
CONFIG = "config/0000000000000001"

_ALLOWED = re.compile(r"config/0{15}1|keys/.*|packs/.*|index/.*|sessions/.*|snapshots/[0-9a-f]{48}")
_RECORD = fields({0: integer(), 1: integer(), 2: octets(32)})


class Bundle(Folder):
    """The objects of a bundle, by name."""

    features = ("bundle",)

    def __init__(self, path: str) -> None:
        self.path = path
        self.marker: dict[int, Any] | None = None
        self.manifest: dict[int, Any] | None = None
        self.spans: dict[str, tuple[int, int]] = {}
        self.heads = START
        self.end = (0, 0)
        with open(path, "rb") as file:
            self._read_heads(file.fileno(), os.fstat(file.fileno()).st_size)
        config = objects.parse_config(self.read(CONFIG))
        if "bundle" not in config[5]:
            raise Damage(f"{path}: its config is not that of a bundle")
        if self.names("keys") != [f"keys/{slot.hex()}" for slot in config[8]]:
            raise Damage(f"{path}: its key slots are not those that its config lists")

    def _read_heads(self, file: int, size: int) -> None:
        if os.pread(file, len(START), 0) != START:
            raise Damage(f"{self.path}: it does not begin as a bundle of version 1 does")
        at = len(START)
        while not self.end[1]:
            head = Cursor(os.pread(file, 1 + 255 + 8, at), f"{self.path}: head at {at}")
            name = head.take(head.uint(1)).decode("ascii", "replace")
            length = head.uint(8)
            encoded = head.data[: head.at]
            at += len(encoded)
            if at + length > size:
                raise Damage(f"{self.path}: it was cut off")
            if name:
                self._check(name, length)
                self.spans[name] = (at, length)
                self.heads += encoded
            elif not 96 <= length <= MOST_RECORD or len(self.spans) < 2:
                raise Damage(f"{self.path}: its end cannot be its end")
            else:
                self.end = (at, length)
            at += length
        if at != size:
            raise Damage(f"{self.path}: something follows its end")

    def _check(self, name: str, length: int) -> None:
        known = objects.kinds_of_name(name)
        if not known or not _ALLOWED.fullmatch(name) or len(name) > MOST_NAME:
            raise Damage(f"{self.path}: {name!r} is no name of an object in a bundle")
        hashed = 0 if name.startswith(("packs/", "index/")) else 32
        if not objects.HEADER_SIZE + hashed <= length <= known[1] or len(self.spans) >= MOST_OBJECTS:
            raise Damage(f"{self.path}: {name}: {length} bytes are not possible")
        if name in self.spans:
            raise Damage(f"{self.path}: {name} stands in it twice")
        before = next(reversed(self.spans), "")
        if not before or not name.startswith("keys/"):
            # The config comes first, and a slot after it.
            in_order = (name == CONFIG) == (not before) and before != CONFIG
        else:
            in_order = before == CONFIG or (before.startswith("keys/") and before < name)
        if not in_order:
            raise Damage(f"{self.path}: {name} comes out of order")

    def check_end(self, keyring: Keyring, repository_id: bytes) -> None:
        """Checks that the record at the end says what stands before it."""
        what = f"{self.path}: bundle record"
        with open(self.path, "rb") as file:
            data = os.pread(file.fileno(), self.end[1], self.end[0])
        cursor = Cursor(data[:-32], what)
        wanted = objects.MAGIC + bytes([1, BUNDLE_RECORD]) + bytes(6)
        if cursor.take(16) != wanted or blake3(data[:-32]) != data[-32:]:
            raise Damage(f"{what}: its header or closing hash is wrong")
        key_id, uid = cursor.take(32), cursor.take(16)
        key = keyring.find(key_id, frozenset({sealing.SNAPSHOT}), what)
        bound = aad(sealing.RECORD_ROLE, BUNDLE_RECORD, repository_id, key.key_id, uid, b"bundle")
        plaintext = xaes_open(key.seal_key, cursor.rest(), bound, what)
        if len(plaintext) % 256:
            raise Damage(f"{what}: its plaintext is not a multiple of 256 bytes")
        inner = Cursor(plaintext, what)
        record: dict[int, Any] = decode_cbor(inner.take(inner.uint(4)), what)
        inner.finish_zeros(256)
        _RECORD(record, what)
        total = sum(length for _, length in self.spans.values())
        if record != {0: len(self.spans), 1: total, 2: blake3(self.heads)}:
            raise Damage(f"{what}: it does not say what stands before it")

    def names(self, prefix: str = "") -> list[str]:
        return sorted(name for name in self.spans if not prefix or name.startswith(f"{prefix}/"))

    def has(self, name: str) -> bool:
        return name in self.spans

    def read(self, name: str) -> Object:
        return objects.parse_object(name, self.read_bytes(name))

    def read_bytes(self, name: str) -> bytes:
        return self.read_ranges(name, (0, self.spans.get(name, (0, 0))[1]))[0]

    def read_ranges(self, name: str, *ranges: tuple[int, int]) -> list[bytes]:
        if name not in self.spans:
            raise Missing(f"{name}: is missing")
        start, size = self.spans[name]
        with open(self.path, "rb") as file:
            parts = [os.pread(file.fileno(), min(most, size - at), start + at) for at, most in ranges if at <= size]
        return parts + [b""] * (len(ranges) - len(parts))
