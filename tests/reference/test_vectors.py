"""Computes the worked examples of SPEC.md §15 and §17 anew, from its text and the test writer's code alone."""

from __future__ import annotations

import base64
import os
import re
import sys
import unittest

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE]

import argon2.low_level
import objects
import tiny_writer
import trees
from blake3 import blake3
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from tiny_writer import cbor, column, integers, le, padme, page, strings, varint, xaes_seal, zigzag
from wire import Cursor

REPOSITORY, UID, FRESH = b"\x10" * 16, b"\x20" * 16, b"\x30" * 32
SECRETS = {purpose: bytes([purpose]) * 32 for purpose in range(1, 6)}
ID_KEY, CHUNKER_KEY, BOUNDARY_KEY = (bytes([n]) * 32 for n in (6, 7, 8))
SESSION = le(3, 8)[::-1] + b"\x40" * 16
NAME = SESSION.hex()


def spec_lines(heading: str) -> dict[str, str]:
    with open(os.path.join(HERE, "../../SPEC.md"), encoding="utf-8") as file:
        section = file.read().split(f"\n## {heading}\n")[1].split("\n## ")[0]
    blocks = re.findall(r"```text\n(.*?)```", section, re.DOTALL)
    return dict(line.split(" = ", 1) for block in blocks for line in block.splitlines())


def derive(context: str, material: bytes, size: int = 32) -> bytes:
    return blake3(material, derive_key_context=context).digest(size)


def keys(secret: bytes, purpose: int) -> tuple[bytes, bytes, bytes]:
    """Gives key id, seal key and nonce key of epoch 0."""
    material = secret + bytes([purpose]) + bytes(4) + REPOSITORY
    key_id, seal_key, nonce_key = (derive(f"larder v1 {word}", material) for word in ("key id", "seal key", "nonce key"))
    return key_id, seal_key, nonce_key


def seal(secret: bytes, purpose: int, aad: bytes, plaintext: bytes, ids: bytes | None = None) -> bytes:
    key_id, seal_key, nonce_key = keys(secret, purpose)
    commitment = b"\1" + plaintext if ids is None else b"\0" + ids
    nonce = blake3(key_id + FRESH + le(len(aad), 8) + aad + commitment, key=nonce_key).digest()[:24]
    return xaes_seal(seal_key, nonce, plaintext, aad)


def aad(role: int, kind: int, key_id: bytes, *rest: bytes) -> bytes:
    return bytes([1, role, kind]) + REPOSITORY + key_id + b"".join(rest)


def header(kind: int, key_id: bytes) -> bytes:
    return b"\x89LARDER\n" + bytes([1, kind]) + bytes(6) + key_id + UID


def chunk_id(kind: int, data: bytes) -> bytes:
    return blake3(bytes([kind]) + data, key=ID_KEY).digest()


def h(key: bytes, ordinal: int) -> int:
    return int.from_bytes(blake3(le(len(key), 4) + key + le(ordinal, 8), key=BOUNDARY_KEY).digest()[:8], "little")


def rank(key: bytes) -> int:
    return min(16, (64 - h(key, 0).bit_length()) // 4)


def leaf(entries: list[tuple[bytes, int, int, int, bytes, bytes]]) -> bytes:
    """Encodes entries of (key, type, mode, nanoseconds, target, chunk) whose mtime and size the examples share."""
    names, types, modes, nanoseconds, targets, chunks = map(list, zip(*entries))
    shared = [len(os.path.commonprefix([a, b])) for a, b in zip([b"", *names], names)]
    added = [len(name) - common for name, common in zip(names, shared)]
    columns = {
        1: column(shared), 2: column(added), 3: b"".join(n[s:] for n, s in zip(names, shared)),
        5: b"" if set(types) == {1} else integers(types), 6: column([5 if c else 0 for c in chunks]), 7: column(modes),
        12: integers([zigzag(1_700_000_000)] * len(names)), 13: column(nanoseconds),
        21: strings(targets) if any(targets) else b"",
        24: column([1 if c else 0 for c in chunks]), 27: b"".join(chunks),
    }  # fmt: skip
    return page(0, len(names), columns)


class WorkedExamples(unittest.TestCase):
    def test_all_of_them(self) -> None:
        shown = spec_lines("17. Worked examples")
        found = self.derived() | self.record() | self.run_of_shards() | self.config_and_slot() | self.pack() | self.nodes()
        self.assertEqual(found.keys(), shown.keys())
        for name, value in found.items():
            self.assertEqual(value.hex() if isinstance(value, bytes) else value, shown[name], name)

    def derived(self) -> dict[str, str | bytes]:
        key_id, seal_key, nonce_key = keys(SECRETS[1], 1)
        check = blake3(b"larder v1 recovery key" + b"\x09" * 32).digest()[:3]
        letters = base64.b32encode(b"\x09" * 32 + check).decode()
        seed = int.from_bytes(derive("larder v1 fastcdc seed", CHUNKER_KEY + REPOSITORY)[:8], "little")
        return {
            "data key id": key_id, "data seal key": seal_key, "data nonce key": nonce_key,
            "config mac key": derive("larder v1 config mac", ID_KEY + REPOSITORY),
            "fastcdc seed": f"{seed:#018x}",
            "toeplitz-aes secret": derive("larder v1 toeplitz-aes", CHUNKER_KEY + REPOSITORY, 144),
            "chunk id of hello": chunk_id(1, b"hello"),
            "h of (a, 2)": f"{h(b'a', 2):#018x}",
            "first decimal number with rank 2": next(str(n) for n in range(10**6) if rank(str(n).encode()) == 2),
            "keyring CBOR": self.keyring(),
            "session name": f"sessions/{NAME}", "amendment name": f"snapshots/{NAME}.12",
            "recovery key text": "-".join(letters[at : at + 4] for at in range(0, 56, 4)),
            "Padmé of 1000, 1025, 1000000": ", ".join(str(padme(n)) for n in (1000, 1025, 1_000_000)),
        }  # fmt: skip

    def keyring(self) -> bytes:
        rows = [[purpose, 0, secret] for purpose, secret in SECRETS.items()]
        return cbor({0: rows, 1: ID_KEY, 2: CHUNKER_KEY, 3: BOUNDARY_KEY})

    def record(self) -> dict[str, str | bytes]:
        key_id = keys(SECRETS[4], 4)[0]
        record = cbor({0: SESSION, 1: 1_000_000_007, 2: blake3(b"cell").digest()})
        bound = aad(4, 7, key_id, UID, f"sessions/{NAME}.done".encode())
        plaintext = le(len(record), 4) + record
        sealed = seal(SECRETS[4], 4, bound, plaintext + bytes(-len(plaintext) % 256))
        return {
            "session end header": header(7, key_id), "session end CBOR": record, "session end AAD": bound,
            "session end nonce": sealed[:24], "session end tag": sealed[-16:],
            "session end closing hash": blake3(header(7, key_id) + sealed).digest(),
        }  # fmt: skip

    def run_of_shards(self) -> dict[str, str | bytes]:
        key = derive("larder v1 run id", ID_KEY + REPOSITORY)
        run = blake3(b"nightly", key=key).digest()[:16]
        record = {0: run, 1: "nightly", 2: 1_000_000_007, 3: b"s3://photos", 4: "h", 5: 3, 6: [b"a/b", b"m"],
                  7: "0011223344556677", 8: SESSION}  # fmt: skip
        return {
            "run name": f"runs/{run.hex()}", "run CBOR": cbor(record),
            "run end name": f"runs/{run.hex()}.joined", "run end CBOR": cbor({0: run, 1: 1_000_000_008, 2: SESSION}),
        }  # fmt: skip

    def config_and_slot(self) -> dict[str, str | bytes]:
        chunker = {0: "fastcdc-v2020", 1: 1 << 18, 2: 1 << 20, 3: 1 << 22}
        config = cbor({0: 1, 1: REPOSITORY, 2: b"\x11" * 16, 3: 1_700_000_000, 4: chunker, 5: [], 6: [], 7: [],
                       8: [b"\x12" * 16]})  # fmt: skip
        mac_key = derive("larder v1 config mac", ID_KEY + REPOSITORY)
        covered = header(1, bytes(32)) + b"config/0000000000000001" + config
        params = cbor({0: 1, 1: "example", 2: 1_700_000_000, 3: {0: 64, 1: 1, 2: 1, 3: b"\x13" * 32}})
        kind = argon2.low_level.Type.ID
        secret = argon2.low_level.hash_secret_raw(b"correct horse", b"\x13" * 32, 1, 64, 1, 32, kind, 0x13)
        key_id = keys(secret, 0)[0]
        bound = aad(5, 2, key_id, UID, blake3(params).digest(), b"keys/" + b"12" * 16)
        slot = header(2, key_id) + varint(len(params)) + params + seal(secret, 0, bound, self.keyring())
        return {
            "config CBOR": config, "config MAC": blake3(covered, key=mac_key).digest(),
            "slot params": params, "slot secret": secret, "slot key id": key_id,
            "slot closing hash": blake3(slot).digest(),
        }  # fmt: skip

    def pack(self) -> dict[str, str | bytes]:
        key_id = keys(SECRETS[1], 1)[0]
        ids = [chunk_id(1, b"hello"), chunk_id(1, b"world!")]
        block = seal(SECRETS[1], 1, aad(1, 1, key_id), b"\0helloworld!", b"".join(ids))
        directory = b"\1\1" + varint(len(block)) + b"\2\5\6" + ids[0][:16] + ids[1][:16]
        padded = directory + bytes(-(len(directory) + 40) % 512)
        sealed = seal(SECRETS[1], 1, aad(2, 3, key_id, UID), padded)
        footer = le(len(sealed), 4) + bytes(4) + b"LARDEND\n"
        size = 64 + len(block) + len(sealed) + 16
        padding = derive("larder v1 padding", b"\x31" * 32, padme(size) - size)
        data = header(3, key_id) + block + padding + sealed + footer
        pack_id = blake3(data).digest()
        segment = b"\0" + SESSION + b"\1" + pack_id + b"\3" + varint(len(data)) + varint(len(directory)) + directory
        index_id = keys(SECRETS[3], 3)[0]
        segment += bytes(-(len(segment) + 40) % 512)
        segment = header(5, index_id) + seal(SECRETS[3], 3, aad(3, 5, index_id, UID), segment)
        return {
            "block": block, "directory": directory, "sealed directory begins": sealed[:32], "pack footer": footer,
            "pack length": str(len(data)), "pack name": f"packs/{pack_id.hex()[:2]}/{pack_id.hex()}",
            "segment name": f"index/{blake3(segment).hexdigest()}",
        }  # fmt: skip

    def nodes(self) -> dict[str, str | bytes]:
        hello = chunk_id(1, b"hello")
        first = leaf([(b"", 2, 0o755, 0, b"", b""), (b"ab", 1, 0o644, 7, b"", hello), (b"ac", 3, 0o777, 0, b"ab", b"")])
        other = leaf([(b"b", 1, 0o600, 0, b"", b"")])
        properties = cbor({1: [[b"content-type", b"text/plain"]]})
        bucket = page(0, 2, {
            1: integers([0, 1]), 2: integers([1, 1]), 3: b"a/", 5: integers([8, 8]), 6: integers([5, 0]),
            12: integers([zigzag(1_700_000_000)] * 2), 24: integers([1, 0]), 27: hello,
            29: integers([1, 0]), 30: strings([properties]), 40: strings([b"e1", b"e2"]),
            41: strings([b"v1", b""]), 42: strings([b"STANDARD", b"STANDARD"]),
        })  # fmt: skip
        leaf_id = chunk_id(2, first)
        interior = page(1, 2, {
            2: integers([0, 1]), 3: b"b", 5: integers([2, 0]), 6: leaf_id + b"\x41" * 32, 7: integers([3, 16]),
            8: integers([5, 1000]),
        })  # fmt: skip
        list_leaf = page(0, 3, {1: integers([2048, 8193, 10]), 2: b"\x42" * 32 + hello})
        streams: dict[int, bytes] = {}
        for each in (first, other):
            head, columns = tiny_writer.take_page_apart(each)
            for field, data in [(0, head), *columns]:
                streams[field] = streams.get(field, b"") + data
        table = b"".join(bytes([f, 0]) + varint(len(streams[f])) * 2 for f in sorted(streams))
        both = varint(2) + varint(len(streams)) + table + b"".join(streams[f] for f in sorted(streams))
        self.read_back(first, interior, both, first + other)
        one, two = trees.parse_leaf(bucket, "leaf of objects")
        self.assertEqual((one.etag, one.version, one.storage_class, two.key), (b"e1", b"v1", b"STANDARD", b"a/"))
        self.assertEqual(trees.attributes(one, lambda kind, chunk: b""), [(b"content-type", b"text/plain")])
        return {
            "h of (154, 0)": f"{h(b'154', 0):#018x}", "rank of (154, 0)": str(rank(b"154")),
            "leaf of a tree": first, "leaf id": leaf_id, "interior node of a tree": interior,
            "leaf of a list": list_leaf, "another leaf": other, "leaf of objects": bucket, "both leaves by column": both,
        }  # fmt: skip

    def read_back(self, first: bytes, interior: bytes, both: bytes, pages: bytes) -> None:
        """The reader takes them as what they are said to be."""
        source, file, symlink = trees.parse_leaf(first, "leaf")
        self.assertEqual([e.key for e in (source, file, symlink)], [b"", b"ab", b"ac"])
        self.assertEqual((file.mtime_ns, symlink.target), (1_700_000_000 * 10**9 + 7, b"ab"))
        children = trees.parse_interior(interior, 1, "interior")
        self.assertEqual([(c.order, c.rank, c.entries, c.size) for c in children],
                         [((b"", 0), 2, 3, 5), ((b"b", 0), 0, 16, 1000)])  # fmt: skip
        decoded = objects._decode_columns(Cursor(both, "columns"), 2, len(pages))
        self.assertEqual(b"".join(decoded), pages)


def times_z(element: int) -> int:
    """Multiplies by z in GF(2)[z] / (z^128 + z^7 + z^2 + z + 1)."""
    return element << 1 if not element >> 127 else (element << 1) ^ (1 << 128) ^ 0x87


class ToeplitzAes:
    """The cut rule of SPEC.md §15 with one secret."""

    def __init__(self, secret: bytes) -> None:
        self.cipher = Cipher(algorithms.AES128(secret[:16]), modes.ECB())
        states = [int.from_bytes(secret[at : at + 16], "little") for at in range(16, 144, 16)]
        self.newest = [self.sum_of_bits(states, byte) for byte in range(256)]
        for _ in range(63):
            states = [times_z(state) for state in states]
        self.oldest = [self.sum_of_bits(states, byte) for byte in range(256)]

    def sum_of_bits(self, states: list[int], byte: int) -> int:
        total = 0
        for bit, state in enumerate(states):
            total ^= state if byte >> bit & 1 else 0
        return total

    def digest(self, window: bytes) -> bytes:
        digest = 0
        for byte in window:
            digest = times_z(digest) ^ self.newest[byte]
        return digest.to_bytes(16, "little")

    def enciphered(self, digests: bytes) -> bytes:
        return self.cipher.encryptor().update(digests)

    def values(self, data: bytes) -> list[int]:
        """Gives the value at each position from 64 to the end."""
        digest, digests = int.from_bytes(self.digest(data[:64]), "little"), bytearray()
        for position in range(64, len(data)):
            digests += digest.to_bytes(16, "little")
            digest = times_z(digest ^ self.oldest[data[position - 64]]) ^ self.newest[data[position]]
        digests += digest.to_bytes(16, "little")
        blocks = self.enciphered(bytes(digests))
        return [int.from_bytes(blocks[at : at + 4], "little") for at in range(0, len(blocks), 16)]

    def lengths(self, data: bytes, minimum: int, mean: int, maximum: int) -> list[int]:
        values, bits, start, lengths = self.values(data), mean.bit_length() - 1, 0, []
        while start < len(data):
            end = min(maximum, len(data) - start)
            zeros = (bits + 1 if c < mean else bits - 1 for c in range(minimum, end))
            cuts = (c for c, n in enumerate(zeros, minimum) if values[start + c - 64] % (1 << n) == 0)
            lengths.append(next(cuts, end))
            start += lengths[-1]
        return lengths


class Chunking(unittest.TestCase):
    def test_the_worked_example_of_toeplitz_aes(self) -> None:
        shown = spec_lines("15. Chunking")
        rule = ToeplitzAes(derive("larder v1 toeplitz-aes", CHUNKER_KEY + REPOSITORY, 144))
        digest = rule.digest(bytes(range(64)))
        enciphered = rule.enciphered(digest)
        found = {
            "digest of 63 zeros and a one": rule.digest(bytes(63) + b"\1").hex(),
            "digest of 00 01 ... 3f": digest.hex(),
            "enciphered": enciphered.hex(),
            "value": f"{int.from_bytes(enciphered[:4], 'little'):#010x}",
            "lengths": " ".join(map(str, rule.lengths(blake3(b"larder").digest(200_000), 4096, 16_384, 65_536))),
        }
        self.assertEqual(found, shown)


if __name__ == "__main__":
    unittest.main()
