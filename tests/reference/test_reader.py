"""Tests of the reference reader: known vectors, a repository written by SPEC.md, and its damage."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import random
import shutil
import stat
import sys
import tempfile
import unittest
from collections.abc import Callable
from typing import Any

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path[:0] = [HERE, os.path.join(os.path.dirname(HERE), "tools")]

import awkward
import larder_reader
import objects
import sealing
import tiny_writer
import wire
from compare import Options, compare
from repository import Folder, Repository
from tiny_writer import TinyRepository, cbor, read_folder, varint
from wire import Cursor, Damage


def run(*arguments: str) -> tuple[int, str, str]:
    """Runs the reader's command line and returns its exit code and what it printed."""
    out, err = io.StringIO(), io.StringIO()
    before = sys.argv
    sys.argv = ["larder_reader", *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            return larder_reader.main(), out.getvalue(), err.getvalue()
    finally:
        sys.argv = before


class Scratch(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = tempfile.mkdtemp()
        self.addCleanup(awkward.remove, os.fsencode(self.folder))

    def path(self, name: str) -> str:
        return os.path.join(self.folder, name)

    def file(self, name: str, content: bytes) -> str:
        with open(self.path(name), "wb") as file:
            file.write(content)
        return self.path(name)

    def make(self, name: str = "repo", tweaks: tiny_writer.Tweaks | None = None) -> TinyRepository:
        made = TinyRepository(self.path(name), tweaks)
        self.file("key", made.raw_key.hex().encode() + b"\n")
        return made

    def verify(self, name: str = "repo") -> tuple[int, str, str]:
        return run("verify", self.path(name), "--key-file", self.path("key"))


class Vectors(unittest.TestCase):
    def test_xaes_256_gcm(self) -> None:
        nonce = b"ABCDEFGHIJKLMNOPQRSTUVWX"
        for key, aad, expected in (
            (1, b"", "ce546ef63c9cc60765923609b33a9a1974e96e52daf2fcf7075e2271"),
            (3, b"c2sp.org/XAES-256-GCM", "986ec1832593df5443a179437fd083bf3fdb41abd740a21f71eb769d"),
        ):
            sealed = nonce + bytes.fromhex(expected)
            self.assertEqual(sealing.xaes_open(bytes([key]) * 32, sealed, aad, "x"), b"XAES-256-GCM")
            self.assertEqual(tiny_writer.xaes_seal(bytes([key]) * 32, nonce, b"XAES-256-GCM", aad), sealed)
            with self.assertRaises(Damage):
                sealing.xaes_open(bytes([key]) * 32, sealed, aad + b"!", "x")

    def test_varints(self) -> None:
        for value, encoded in ((0, "00"), (127, "7f"), (128, "8001"), (300, "ac02"), (2**64 - 1, "ff" * 9 + "01")):
            cursor = Cursor(bytes.fromhex(encoded), "x")
            self.assertEqual(cursor.varint(), value)
            self.assertEqual(wire.varint(value).hex(), encoded)
        for refused in ("80", "8000", "ff" * 9 + "02", "ff" * 10 + "01", "ff00"):
            with self.assertRaises(Damage):
                Cursor(bytes.fromhex(refused), "x").varint()

    def test_columns_are_canonical(self) -> None:
        known = (
            ([7, 7, 7], "0007"),
            ([5], "0005"),
            ([10**9] * 2, "008094ebdc03"),  # longer than form 3, and than form 2 below; yet the only form
            ([2**64 - 1], "00" + "ff" * 9 + "01"),
            ([1, 2], "010102"),
            ([1000, 1001, 1002], "02d00f0202"),
            ([1000, 3000], "03030103"),
            ([0, 2**64 - 1], "020001"),
        )
        for values, encoded in known:
            self.assertEqual(wire.encode_integers(values).hex(), encoded)
            self.assertEqual(wire.decode_integers(Cursor(bytes.fromhex(encoded), "x"), len(values)), values)
        for count, refused in ((3, "01070707"), (2, "0303e807e807"), (2, "04"), (2, "03000102"), (1, "0105"),
                               (2, "03090101"), (1, "0201")):  # fmt: skip
            with self.assertRaises(Damage):
                wire.decode_integers(Cursor(bytes.fromhex(refused), "x"), count)

    def test_both_column_encoders_agree(self) -> None:
        chance = random.Random(7)
        for _ in range(3000):
            scale = chance.choice((1, 10, 1000, 10**9, 10**12, 2**40))
            top = chance.choice((2, 100, 2**40, 2**64 // scale))
            values = [chance.randrange(top) * scale % 2**64 for _ in range(chance.randrange(1, 9))]
            encoded = tiny_writer.integers(values)
            self.assertEqual(wire.encode_integers(values), encoded)
            cursor = Cursor(encoded, "x")
            self.assertEqual(wire.decode_integers(cursor, len(values)), values)
            cursor.finish()

    def test_cbor_must_be_deterministic(self) -> None:
        value = {0: [1, -1, 24, 2**32], 1: b"x", 24: "ü", 256: {2: 2**64 - 1}}
        self.assertEqual(wire.decode_cbor(cbor(value), "x"), value)
        refused = (
            "1817", "190017", "1a00000017", "1b0000000000000017", "5f4100ff", "9f00ff", "bf0000ff",
            "a201000000", "a200000000", "f5", "f97e00", "c000", "61ff", "8100ff", "82", "00ff",
            "9bffffffffffffffff", "81" * 9 + "00", "a1f500",
        )  # fmt: skip
        for encoded in refused:
            with self.subTest(encoded), self.assertRaises(Damage):
                wire.decode_cbor(bytes.fromhex(encoded), "x")

    def test_recovery_keys(self) -> None:
        key = bytes(range(32))
        check = sealing.blake3(b"larder v1 recovery key" + key)[:3]
        letters = base64.b32encode(key + check).decode()
        self.assertEqual(len(letters), 56)
        groups = [letters[at : at + 4] for at in range(0, 56, 4)]
        self.assertEqual(sealing.parse_recovery_key("-".join(groups)), key)
        self.assertEqual(sealing.parse_recovery_key(" ".join(groups).lower()), key)
        altered = "B" + letters[1:]
        for refused in (letters[:-1], letters + "A", "1" + letters[1:], altered):
            with self.assertRaises(Damage):
                sealing.parse_recovery_key(refused)


class WholeRepository(Scratch):
    def test_every_kind_of_secret_opens_it(self) -> None:
        made = self.make()
        check = sealing.blake3(b"larder v1 recovery key" + made.recovery_key)[:3]
        recovery = base64.b32encode(made.recovery_key + check).decode()
        password = self.file("password", made.PASSPHRASE + b"\n")
        for secret in (
            ("--password-file", password), ("--key-file", self.path("key")), ("--recovery-key", recovery),
        ):  # fmt: skip
            code, out, err = run("list", self.path("repo"), *secret)
            self.assertEqual((code, err), (0, ""))
            (snapshot,) = json.loads(out)
            self.assertEqual(snapshot["id"], made.sid[8:].hex())
            self.assertEqual((snapshot["kind"], snapshot["tags"]), ("complete", ["a", "b"]))
            self.assertEqual(snapshot["sources"][0]["path"], "/data")
        wrong = self.file("wrong", b"wrong")
        code, _, err = run("list", self.path("repo"), "--password-file", wrong)
        self.assertEqual(code, 1)
        self.assertIn("no key slot", err)

    def test_it_verifies_scrubs_and_lists(self) -> None:
        self.make()
        self.assertEqual(self.verify(), (0, "", ""))
        self.assertEqual(run("scrub", self.path("repo")), (0, "", ""))
        code, out, _ = run("ls", self.path("repo"), "latest", "--key-file", self.path("key"))
        self.assertEqual(code, 0)
        self.assertEqual(len(out.splitlines()), 1 + 16 + 1000)

    def test_restored_files_are_whole(self) -> None:
        made = self.make()
        code, _, err = run(
            "restore", self.path("repo"), "latest", self.path("out"), "--key-file", self.path("key")
        )
        self.assertIn("unreadable", err)
        self.assertEqual(len(err.splitlines()), 1, err)
        self.assertEqual(code, 1)
        top = os.fsencode(self.path("out/data"))
        for key, content in made.contents.items():
            with open(os.path.join(top, key), "rb") as file:
                self.assertEqual(file.read(), content, key)
        for entry in made.entries():
            if entry["key"] != b"unreadable":
                self.check_metadata(os.path.join(top, entry["key"]), entry)
        self.assertTrue(os.path.samefile(os.path.join(top, b"d/hard"), os.path.join(top, b"z-hard")))

    def test_a_source_that_is_a_single_file_comes_back_under_its_name(self) -> None:
        alone = lambda entries: [e | {"key": b""} for e in entries if e["key"] == b"plain"]  # noqa: E731
        made = self.make(tweaks={"entries": alone, "source": lambda source: source | {1: b"/dumps/shop.sql"}})
        self.assertEqual(self.verify(), (0, "", ""))
        for more, path in ((), "out/dumps/shop.sql"), (("--source", "/dumps/shop.sql"), "one/shop.sql"):
            arguments = (self.path("repo"), "latest", self.path(path.partition("/")[0]), *more)
            self.assertEqual(run("restore", *arguments, "--key-file", self.path("key")), (0, "", ""))
            with open(self.path(path), "rb") as file:
                self.assertEqual(file.read(), made.contents[b"plain"])

    def check_metadata(self, path: bytes, entry: dict[str, Any]) -> None:
        found = os.lstat(path)
        types = {2: stat.S_IFDIR, 3: stat.S_IFLNK, 4: stat.S_IFIFO, 5: stat.S_IFSOCK}
        self.assertEqual(stat.S_IFMT(found.st_mode), types.get(entry.get("type"), stat.S_IFREG))
        self.assertEqual(stat.S_IMODE(found.st_mode), entry["mode"], path)
        self.assertEqual(found.st_mtime_ns, entry["mtime"], path)
        if "target" in entry:
            self.assertEqual(os.readlink(path), entry["target"])
        if entry["key"] in (b"all-hole", b"sparse"):
            self.assertEqual(found.st_size, entry["size"])
            self.assertLess(found.st_blocks * 512, 1 << 17)
        for name, value in entry.get("xattrs", []):
            self.assertEqual(os.getxattr(path, name), value)

    def test_amendments_and_collectors(self) -> None:
        made = self.make()
        writer, name = made.writer, made.sid.hex()
        who = {4: 0, 5: "h", 6: "u"}
        writer.record(f"snapshots/{name}.1", 9, 4, {0: made.sid, 1: 1, 2: 1, 3: ["new"]} | who)
        self.assertEqual(self.listed()[0]["tags"], ["new"])
        rounds = {1: [], 2: [], 3: [], 4: [], 5: 0, 6: "h"}
        writer.record(f"gc/{1:016x}", 10, 5, {0: 1} | rounds)
        self.assertEqual(len(self.listed()), 1)
        segments = made.cell[10]
        writer.record(f"gc/{1:016x}.final", 11, 5, {0: 1, 1: [made.sid], 2: segments, 3: [], 4: []})
        self.assertEqual(len(self.listed()), 1)
        self.assertEqual(self.verify(), (0, "", ""))
        writer.record(f"gc/{2:016x}", 10, 5, {0: 2} | rounds)
        writer.record(f"gc/{2:016x}.final", 11, 5, {0: 2, 1: [], 2: segments, 3: [], 4: []})
        self.assertEqual(self.listed(), [])
        self.assertEqual(self.verify(), (0, "", ""))

    def test_forgotten_and_superseded_snapshots_are_not_listed(self) -> None:
        made = self.make(tweaks={"record 8": lambda cell: cell | {0: 2}})
        second = bytes(8) + os.urandom(16)
        made.writer.tweaks = {}
        self.assertEqual(self.listed()[0]["kind"], "partial")
        made.writer.record(f"snapshots/{second.hex()}", 8, 4, made.cell | {1: second, 2: made.sid, 10: []})
        self.assertEqual([each["session"] for each in self.listed()], [second.hex()])
        self.assertEqual(self.verify(), (0, "", ""))
        forget = {0: second, 1: 1, 2: 4, 4: 0, 5: "h", 6: "u"}
        made.writer.record(f"snapshots/{second.hex()}.1", 9, 5, forget)
        self.assertEqual(self.listed(), [])

    def test_collectors_sort_what_they_list(self) -> None:
        made = self.make()
        rounds = {1: [], 2: [], 3: [], 4: [], 5: 0, 6: "h"}
        unsorted = {0: 1} | rounds | {1: [b"\1" * 32, b"\0" * 32]}
        made.writer.record(f"gc/{1:016x}", 10, 5, unsorted)
        self.assertIn("not sorted", self.verify()[2])

    def test_files_with_other_names_are_none_of_the_repository(self) -> None:
        self.make()
        for name in ("packs/ab#1", "README"):
            self.file(f"repo/{name}", b"something else")
        self.assertEqual(run("scrub", self.path("repo")), (0, "", ""))

    def test_a_forget_under_the_wrong_key_is_refused(self) -> None:
        made = self.make()
        forget = {0: made.sid, 1: 1, 2: 4, 4: 0, 5: "h", 6: "u"}
        made.writer.record(f"snapshots/{made.sid.hex()}.1", 9, 4, forget)
        self.assertIn("snapshot key", self.verify()[2])

    def listed(self) -> list[dict[str, Any]]:
        code, out, err = run("list", self.path("repo"), "--key-file", self.path("key"))
        self.assertEqual((code, err), (0, ""))
        return json.loads(out)


class AwkwardTree(Scratch):
    @unittest.skipUnless(os.geteuid() == 0, "only root can read all of the tree")
    def test_every_awkward_file_comes_back(self) -> None:
        tree, out = os.fsencode(self.path("tree")), os.fsencode(self.path("out"))
        with contextlib.redirect_stdout(io.StringIO()):
            awkward.make(tree, 1, small=True)
        made = TinyRepository(self.path("repo"), entries=lambda writer: read_folder(writer, tree))
        self.file("key", made.raw_key.hex().encode())
        self.assertEqual(self.verify(), (0, "", ""))
        arguments = (self.path("repo"), "latest", self.path("out"), "--source", "/data")
        self.assertEqual(run("restore", *arguments, "--key-file", self.path("key")), (0, "", ""))
        self.assertEqual(list(compare(tree, out, Options(holes=True))), [])


def without_bytes(count: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:-count]


def byte(position: int, value: int) -> Callable[[bytes], bytes]:
    return lambda data: data[:position] + bytes([value]) + data[position + 1 :]


def change_entry(key: bytes, /, **fields: Any) -> Callable[[Any], Any]:
    return lambda entries: [e | fields if e["key"] == key else e for e in entries]


def move_first_cut(nodes: list[list[Any]]) -> list[list[Any]]:
    first, second, *others = nodes
    return [first[:-1], first[-1:] + second, *others]


def join_first_two(nodes: list[list[Any]]) -> list[list[Any]]:
    return [nodes[0] + nodes[1], *nodes[2:]]


def swap_entries(entries: list[Any]) -> list[Any]:
    return [entries[0], entries[2], entries[1], *entries[3:]]


def longer_integers(columns: dict[int, bytes], field: int, values: list[int]) -> dict[int, bytes]:
    return columns | {field: b"\1" + b"".join(map(varint, values))}


# (what is wrong, stage of the writer, how the stage's value is changed, a word of the message)
_WITHOUT_FILE: dict[str, Any] = {
    "mode": 0, "uid": 0, "gid": 0, "user": b"", "group": b"", "ctime": 0, "inode": 0, "fs": 0, "links": 0,
}  # fmt: skip
SHARD: dict[int, Any] = {0: bytes(16), 1: "nightly", 2: 2, 3: 2, 4: b"a"}
DAMAGED: list[tuple[str, str, Callable[[Any], Any], str]] = [
    ("magic", "header", byte(0, 0x88), "magic"),
    ("version 2", "header", byte(8, 2), "format version 2"),
    ("header not zero", "header", byte(12, 1), "zero"),
    ("features to read", "config", lambda c: c | {5: ["time-travel"]}, "time-travel"),
    ("unknown config field", "config", lambda c: c | {9: 1}, "unknown field"),
    ("config number", "config", lambda c: c | {0: 2}, "says that it is config 2"),
    ("config MAC", "config mac", byte(0, 0), "MAC"),
    ("slots not sorted", "config", lambda c: c | {8: c[8][::-1]}, "sorted"),
    ("slot missing", "config", lambda c: c | {8: sorted([*c[8], bytes(16)])}, "missing"),
    ("keyring order", "keyring", lambda k: k | {0: k[0][::-1]}, "out of order"),
    ("record padding", "record plaintext", lambda p: p + bytes(256), "padding"),
    ("record padding not zero", "record plaintext", lambda p: p[:-1] + b"\1", "padding"),
    ("record not CBOR", "cbor 8", lambda c: b"\xbf" + c[1:], "indefinite"),
    ("cell named otherwise", "record 8", lambda c: c | {1: bytes(24)}, "another object"),
    ("cell without a field", "record 8", lambda c: {k: v for k, v in c.items() if k != 9}, "field 9"),
    ("cell tags unsorted", "record 8", lambda c: c | {8: ["b", "a"]}, "sorted"),
    ("shard that says not which", "record 8", lambda c: c | {0: 3}, "which one it is"),
    ("snapshot that is a shard", "record 8", lambda c: c | {17: SHARD}, "which one it is"),
    ("shard beyond the last", "record 8", lambda c: c | {0: 3, 17: SHARD | {2: 4}}, "no such shard"),
    ("shard without its end", "record 8", lambda c: c | {0: 3, 17: SHARD | {3: 3}}, "no such shard"),
    ("shard of no keys", "record 8", lambda c: c | {0: 3, 17: SHARD | {3: 3, 5: b"a"}}, "empty"),
    ("run named otherwise", "record 18", lambda c: c | {0: bytes(16)}, "another object"),
    ("run divided backwards", "record 18", lambda c: c | {6: c[6][::-1]}, "sorted"),
    ("run divided too finely", "record 18", lambda c: c | {6: [b"%04d" % n for n in range(1024)]}, "0 to 1023"),
    ("run end named otherwise", "record 19", lambda c: c | {0: bytes(16)}, "another object"),
    ("cell with too many options", "record 8", lambda c: c | {12: {str(n): "" for n in range(257)}}, "at most 256"),
    ("cell of unknown kind", "record 8", lambda c: c | {0: 5}, "integer from 1 to 4"),
    ("rolled back config", "record 8", lambda c: c | {14: 2}, "rolled back"),
    ("rolled back collector", "record 8", lambda c: c | {16: 3}, "collector round"),
    ("vanished snapshot", "record 8", lambda c: c | {15: [bytes(23) + b"\1"]}, "is missing"),
    ("session end of another cell", "record 7", lambda c: c | {2: bytes(32)}, "not the object"),
    ("ledger named otherwise", "record 14", lambda c: c | {0: bytes(16)}, "another object"),
    ("ledger groups unsorted", "record 14", lambda c: c | {2: c[2][::-1]}, "sorted"),
    ("ledger packs unsorted", "record 14", lambda c: c | {2: [[1, 1, c[2][1][2][::-1]]]}, "sorted"),
    ("ledger with half a pack", "record 14", lambda c: c | {2: [[1, 1, bytes(8)]]}, "16 bytes"),
    ("ledger of an unknown way", "record 14", lambda c: c | {2: [[1, 3, bytes(16)]]}, "integer from 1 to 2"),
    ("segment of another session", "owner", lambda _: bytes(24), "does not belong"),
    ("unknown codec", "payload 0", byte(0, 3), "codec 3"),
    ("stored block too long", "payload 0", lambda p: p + b"x", "the directory says"),
    ("stored block altered", "payload 0", lambda p: p[:-1] + bytes([p[-1] ^ 1]), "another id"),
    ("zstd frame cut", "payload 1", without_bytes(3), "zstd"),
    ("zstd with a tail", "payload 1", lambda p: p + b"tail", "zstd"),
    ("columns with a tail", "payload 2", lambda p: p + b"x", "too many"),
    ("directory padding", "padded directory", lambda d: d + bytes(512), "padding"),
    ("directory without a prefix", "directory", without_bytes(16), "ends"),
    ("segment's copy differs", "directory copy", lambda d: d[:-1] + bytes([d[-1] ^ 1]), "differ"),
    ("footer", "footer", byte(4, 1), "footer"),
    ("pack size", "padding", lambda n: n + 1, "Padmé"),
    ("source counts", "source", lambda s: s | {4: s[4] + 1}, "not as many"),
    ("source sizes", "source", lambda s: s | {5: s[5] + 1}, "not as many"),
    ("source level", "source", lambda s: s | {3: s[3] + 1}, "level"),
    ("leaf cut early", "cuts 0", move_first_cut, "no boundary"),
    ("leaf cut late", "cuts 0", join_first_two, "should have ended"),
    ("list cut late", "list cuts 0", join_first_two, "list's rule"),
    ("entries out of order", "entries", swap_entries, "out of order"),
    ("entry twice", "entries", lambda e: [e[0], e[1], *e[1:]], "out of order"),
    ("page level", "page 0", byte(0, 1), "level"),
    ("column not canonical", "leaf", lambda c: longer_integers(c, 9, [0] * 3), "field 9"),
    ("column of defaults", "interior", lambda c: c | {4: b"\0\0"}, "defaults"),
    ("unknown column", "leaf", lambda c: c | {39: b"\0\1"}, "unknown field"),
    ("separator too long", "interior", lambda c: c | {4: b"\0\1"}, "separator"),
    ("rank", "interior", lambda c: c | {5: b"\0\x0f"}, "rank"),
    ("counts", "interior", lambda c: c | {7: b"\0\x07"}, "counts"),
    ("dot-dot", "entries", change_entry(b"d/hard", key=b"d/.."), "name"),
    ("NUL in a name", "entries", change_entry(b"d/hard", key=b"d/a\0"), "name"),
    ("empty component", "entries", change_entry(b"many-0005", key=b"many-0004//"), "name"),
    ("directory without slash", "entries", change_entry(b"many-0005", type=2, extents=[], size=0), "directory"),
    ("folder that is no entry", "entries", lambda e: [x for x in e if x["key"] != b"d/"], "is no entry"),
    ("source that is no entry", "entries", lambda e: e[1:], "source itself"),
    ("source that is no folder", "entries", change_entry(b"", type=1), "no folder"),
    ("path of a file and a folder", "entries", change_entry(b"d.x", key=b"d"), "another entry"),
    ("fifo with a size", "entries", change_entry(b"fifo", size=1), "no file"),
    ("fifo read as special", "entries", change_entry(b"fifo", flags=8), "no file"),
    ("device number of a fifo", "entries", change_entry(b"fifo", device=1), "no device"),
    ("file without content", "entries", change_entry(b"plain", extents=[]), "without content"),
    ("size of a whole file", "entries", change_entry(b"plain", size=14), "another length"),
    ("size of a sparse file", "entries", change_entry(b"sparse", size=14), "add up"),
    ("size of a long file", "entries", change_entry(b"long", size=14), "its list holds"),
    ("chunk nowhere", "entries", change_entry(b"plain", extents=[(13, bytes(32))]), "is missing"),
    ("two holes", "entries", change_entry(b"all-hole", extents=[(1, None), (4_999_999_999, None)]), "holes"),
    ("target of a file", "entries", change_entry(b"plain", target=b"x"), "target"),
    ("symlink without target", "entries", change_entry(b"link", target=b""), "target"),
    ("mode", "entries", change_entry(b"plain", mode=0o10000), "limit"),
    ("type 9", "entries", change_entry(b"fifo", type=9), "limit"),
    ("an object among files", "entries", change_entry(b"fifo", type=8, **_WITHOUT_FILE), "one tree"),
    ("an object with a mode", "entries", change_entry(b"fifo", type=8), "only files have"),
    ("empty attributes", "attributes", lambda _: b"\xa0", "field 0"),
    ("attributes twice", "entries", change_entry(b"plain", xattrs=[(b"a", b""), (b"a", b"")]), "duplicates"),
]  # fmt: skip


class DamagedRepositories(Scratch):
    def test_each_damaged_form_is_refused(self) -> None:
        for number, (what, stage, change, word) in enumerate(DAMAGED):
            with self.subTest(what):
                self.make(f"repo{number}", {stage: change})
                code, _, err = self.verify(f"repo{number}")
                self.assertEqual(code, 1, err)
                self.assertIn(word, err)
                self.assertNotIn("Traceback", err)
                shutil.rmtree(self.path(f"repo{number}"))

    def test_costly_slots_are_refused_before_they_are_computed(self) -> None:
        for cost in ({0: (2 << 20) + 1}, {0: 15, 2: 2}, {1: 0}, {1: 65}, {2: 0}, {2: 17}):
            with self.subTest(cost):
                change = lambda p: p | {3: p[3] | cost} if 3 in p else p  # noqa: E731
                self.make(f"repo-{cost}", {"params": change})
                password = self.file("password", TinyRepository.PASSPHRASE)
                code, _, err = run("list", self.path(f"repo-{cost}"), "--password-file", password)
                self.assertEqual(code, 1)
                self.assertIn("8 KiB for each lane" if 15 in cost.values() else "is not an integer from", err)

    def test_every_object_flipped_cut_emptied_or_gone_is_found(self) -> None:
        self.make()
        names = [os.path.join(folder, f) for folder, _, files in os.walk(self.path("repo")) for f in files]
        self.assertEqual(len(names), 13)
        chance = random.Random(3)
        for name in names:
            with open(name, "rb") as file:
                content = file.read()
            position = chance.randrange(len(content))
            flipped = byte(position, content[position] ^ 0x10)(content)
            for damaged in (flipped, content[:-1], content + b"\0", b"", bytes(len(content)), None):
                os.unlink(name)
                if damaged is not None:
                    with open(name, "wb") as file:
                        file.write(damaged)
                code, _, err = self.verify()
                may_go = damaged is None and os.path.basename(os.path.dirname(name)) in ("sessions", "ledger", "runs")
                self.assertEqual(code, 0 if may_go else 1, name)
                if damaged is not None:
                    self.assertEqual(run("scrub", self.path("repo"))[0], 1, name)
                    self.assertIn(os.path.relpath(name, self.path("repo")), err)
                with open(name, "wb") as file:
                    file.write(content)
        self.assertEqual(self.verify(), (0, "", ""))

    def test_what_repairs_put_aside_is_passed_over(self) -> None:
        self.make()
        os.makedirs(self.path("repo/quarantine/" + "0" * 32))
        self.file("repo/quarantine/" + "0" * 32 + "/undo.1", b"anything")
        self.assertEqual(self.verify(), (0, "", ""))

    def test_a_mirror_shows_what_its_manifest_lists(self) -> None:
        made = self.make()
        key = ("--key-file", self.path("key"))
        repository = Repository(Folder(self.path("repo")), (sealing.RAW_KEY, made.raw_key))
        config = repository.config
        marker = {**config, 0: 2**64 - 1, 2: bytes(16), 5: ["mirror"], 8: []}
        self.unsealed("repo/config/" + "f" * 16, 1, cbor(marker) + bytes(32))
        manifest = {0: 1, 1: config[1], 2: bytes(16), 3: 0, 4: 0, 5: [], 6: [], 7: [], 8: [], 9: 0}
        self.assertIn("no sync has ended", run("list", self.path("repo"), *key)[2])
        os.mkdir(self.path("repo/mirror"))
        self.unsealed("repo/mirror/" + f"{1:016x}", 15, cbor(manifest))
        self.assertEqual(run("list", self.path("repo"), *key)[:2], (0, "[]\n"))
        # A newer manifest takes its place; what it lists is read and verified.
        self.unsealed("repo/mirror/" + f"{2:016x}", 15, cbor(manifest | {0: 2, 5: [made.sid]}))
        self.assertIn(made.sid[8:].hex(), run("list", self.path("repo"), *key)[1])
        self.assertEqual(self.verify(), (0, "", ""))
        self.unsealed("repo/mirror/" + f"{3:016x}", 15, cbor(manifest | {0: 3, 2: b"x" * 16}))
        self.assertIn("of another mirror", self.verify()[2])

    def unsealed(self, name: str, kind: int, body: bytes) -> None:
        data = objects.MAGIC + bytes([1, kind]) + bytes(6 + 32) + b"u" * 16 + body
        self.file(name, data + sealing.blake3(data))

    def test_an_object_under_another_name_is_refused(self) -> None:
        made = self.make()
        other = bytes(8) + os.urandom(16)
        cell = self.path(f"repo/snapshots/{made.sid.hex()}")
        shutil.copy(cell, self.path(f"repo/snapshots/{other.hex()}"))
        self.assertIn("belongs elsewhere", self.verify()[2])

    def test_a_damaged_file_is_not_left_behind(self) -> None:
        made = self.make(tweaks={"entries": change_entry(b"plain", extents=[(13, bytes(32))])})
        code, _, err = run(
            "restore", self.path("repo"), "latest", self.path("out"), "--source", "/data",
            "--key-file", self.path("key"),
        )  # fmt: skip
        self.assertEqual(code, 1)
        self.assertIn("plain: not restored: its bytes 0..13 are lost", err)
        self.assertFalse(os.path.exists(self.path("out/plain")))
        with open(self.path("out/long"), "rb") as file:
            self.assertEqual(file.read(), made.contents[b"long"])

    def test_a_symlink_does_not_lead_a_restore_outside(self) -> None:
        def hostile(entries: list[Any]) -> list[Any]:
            added = [
                {"key": b"evil", "type": 3, "target": b"/tmp"},
                {"key": b"evil/larder-was-here", "mode": 0o644},
            ]
            return sorted([*entries, *added], key=lambda e: e["key"])

        self.make(tweaks={"entries": hostile})
        run("restore", self.path("repo"), "latest", self.path("out"), "--key-file", self.path("key"))
        self.assertFalse(os.path.exists("/tmp/larder-was-here"))


if __name__ == "__main__":
    unittest.main()
