#!/usr/bin/env python3
"""Makes a tree of every awkward file that a Linux system knows.

The same seed makes the same tree. What the user may not make or the file system does not take is
left out, and a line on standard output says so. The tree's folders end up read-only in places:
remove it with `awkward.py --remove DIR`.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import shutil
import socket
import stat
import struct
import subprocess
import sys
import unicodedata
from collections.abc import Callable, Iterator

KIB, MIB, TIB = 1 << 10, 1 << 20, 1 << 40
NOON = 1_700_000_000 * 10**9 + 123_456_789
DEEP_NAME, DEEP_LEVELS = b"d" * 203, 40
MANY_FILES = 20_000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dir")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--remove", action="store_true", help="remove such a tree instead")
    parser.add_argument("--small", action="store_true", help="leave out what is large or many")
    arguments = parser.parse_args()
    if arguments.remove:
        remove(os.fsencode(arguments.dir))
        return 0
    make(os.fsencode(arguments.dir), arguments.seed, small=arguments.small)
    return 0


def make(top: bytes, seed: int, *, small: bool = False) -> None:
    os.makedirs(top)
    before = os.umask(0o022)
    here = os.open(".", os.O_RDONLY)
    os.chdir(top)
    try:
        parts: list[Callable[[random.Random], None]] = [
            sizes, sparse, symlinks, hard_links, special_files, modes, owners, times, attributes, acls,
            names, sort_traps, twins, deep_path,
        ]  # fmt: skip
        for part in parts if small else [*parts, large, many_files]:
            part(random.Random(f"{seed} {part.__name__}"))
        settle_times()
        closed_folder()
    finally:
        os.fchdir(here)
        os.close(here)
        os.umask(before)


def remove(top: bytes) -> None:
    """Removes a tree whatever its modes and however long its paths are."""
    os.chmod(top, 0o700)
    for folder, folders, _ in os.walk(top):
        for name in folders:
            path = os.path.join(folder, name)
            if len(path) < 4000 and not os.path.islink(path):
                os.chmod(path, 0o700)
    subprocess.run(["rm", "-rf", "--", top], check=True)


@contextlib.contextmanager
def optional(what: str) -> Iterator[None]:
    """Leaves out what is not permitted or not supported, and says so."""
    try:
        yield
    except (OSError, OverflowError, subprocess.CalledProcessError) as error:
        print(f"left out: {what}: {error}")


@contextlib.contextmanager
def inside(folder: bytes) -> Iterator[None]:
    os.mkdir(folder)
    os.chdir(folder)
    yield
    os.chdir("..")


def put(name: bytes, content: bytes = b"") -> bytes:
    with open(name, "xb") as file:
        file.write(content)
    return name


def sizes(chance: random.Random) -> None:
    with inside(b"sizes"):
        os.mkdir("empty-folder")
        put(b"empty")
        put(b"one-byte", b"x")
        for label, size in ((b"256KiB", 256 * KIB), (b"1MiB", MIB), (b"4MiB", 4 * MIB)):
            for shift in (-1, 0, 1):
                put(b"%s%+d" % (label, shift), chance.randbytes(size + shift))
        put(b"zeros-written", bytes(3 * MIB))


def large(chance: random.Random) -> None:
    with inside(b"large"):
        content = chance.randbytes(40 * MIB)
        put(b"incompressible-40MiB", content)
        put(b"duplicate-40MiB", content)
        put(b"duplicate-shifted", b"x" + content[: 20 * MIB])
        put(b"million-lines", b"".join(b"%d the same words on every line\n" % n for n in range(1_000_000)))


def sparse(chance: random.Random) -> None:
    def holed(name: bytes, size: int, *extents: tuple[int, int]) -> None:
        with open(name, "xb") as file:
            for offset, length in extents:
                os.pwrite(file.fileno(), chance.randbytes(length), offset)
            file.truncate(size)

    with inside(b"sparse"):
        holed(b"hole-at-start", 2 * MIB, (MIB, MIB))
        holed(b"hole-in-middle", 3 * MIB, (0, MIB), (2 * MIB, MIB))
        holed(b"hole-at-end", 2 * MIB, (0, MIB))
        holed(b"all-hole", 8 * MIB)
        holed(b"hole-of-odd-size", 123_457)
        holed(b"many-holes", 200 * 128 * KIB, *((n * 128 * KIB, 4 * KIB) for n in range(200)))
        with optional("a file of 1 TiB that is a hole"):
            holed(b"all-hole-1TiB", TIB, (TIB // 2, 4 * KIB))


def symlinks(_: random.Random) -> None:
    with inside(b"symlinks"):
        put(b"file", b"x")
        os.mkdir("folder")
        targets = {
            b"to-file": b"file", b"to-folder": b"folder", b"to-folder-slash": b"folder/", b"to-parent": b"..",
            b"dangling": b"nowhere/at all", b"absolute": b"/etc/passwd", b"loop-a": b"loop-b", b"loop-b": b"loop-a",
            b"self": b"self", b"not-utf8": b"\xff\xfe\x80", b"newline": b"a\nb", b"dots": b"./.././/x",
            b"long-255": b"x" * 255,
        }  # fmt: skip
        for name, target in targets.items():
            os.symlink(target, name)
        with optional("a symlink with a target of 4095 bytes"):
            os.symlink((b"t" * 254 + b"/") * 16 + b"t" * 15, b"long-4095")


def hard_links(_: random.Random) -> None:
    with inside(b"hard-links"):
        os.mkdir("folder")
        put(b"b-first", b"three names")
        os.link(b"b-first", b"a-second")
        os.link(b"b-first", b"folder/third")
        put(b"other", b"three names")
        put(b"empty-1")
        os.link(b"empty-1", b"empty-2")
        os.symlink(b"nowhere", b"link-1")
        os.link(b"link-1", b"link-2", follow_symlinks=False)
        os.mkfifo(b"fifo-1")
        os.link(b"fifo-1", b"folder/fifo-2")


def special_files(_: random.Random) -> None:
    with inside(b"special"):
        os.mkfifo(b"fifo", 0o640)
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(b"socket")
        for name, kind, major, minor in (
            (b"null", stat.S_IFCHR, 1, 3), (b"large-numbers", stat.S_IFCHR, 4095, 1_048_575),
            (b"block", stat.S_IFBLK, 7, 200),
        ):  # fmt: skip
            with optional(f"device {name.decode()}"):
                os.mknod(name, kind | 0o660, os.makedev(major, minor))
        with optional("a whiteout (character device 0, 0)"):
            os.mknod(b"whiteout", stat.S_IFCHR, os.makedev(0, 0))


def modes(_: random.Random) -> None:
    with inside(b"modes"):
        for mode in (0, 0o1, 0o7, 0o70, 0o111, 0o222, 0o400, 0o444, 0o600, 0o644, 0o666, 0o700, 0o755, 0o777):
            os.chmod(put(b"file-%04o" % mode, b"%o" % mode), mode)
        for mode in (0o1644, 0o2644, 0o2755, 0o4755, 0o6755, 0o7777):
            with optional(f"a file of mode {mode:o}"):
                os.chmod(put(b"file-%04o" % mode, b"%o" % mode), mode)
        for mode in (0o500, 0o555, 0o700, 0o711, 0o777, 0o1777, 0o2775, 0o4755):
            name = b"folder-%04o" % mode
            os.mkdir(name)
            put(name + b"/inside", b"x")
            os.chmod(name, mode)


def owners(_: random.Random) -> None:
    with inside(b"owners"):
        for uid, gid in ((1, 2), (54_321, 54_322), (65_534, 65_534), (4_294_967_290, 4_294_967_280)):
            name = put(b"%d-%d" % (uid, gid), b"x")
            with optional(f"a file of owner {uid}:{gid}"):
                os.chown(name, uid, gid)
                os.mkdir(b"folder-" + name)
                os.chown(b"folder-" + name, uid, gid)
                os.symlink(b"x", b"link-" + name)
                os.chown(b"link-" + name, uid, gid, follow_symlinks=False)
        setuid = put(b"setuid-of-another", b"x")
        with optional("a setuid file of another owner"):
            os.chown(setuid, 54_321, 54_322)
            os.chmod(setuid, 0o6755)


def times(_: random.Random) -> None:
    moments = {
        b"epoch": 0, b"one-ns": 1, b"before-1970": -1, b"1901": -2_147_483_648 * 10**9, b"1960": -315_619_200 * 10**9 + 7,
        b"2038": 2_147_483_647 * 10**9 + 999_999_999, b"2038-after": 2_147_483_648 * 10**9, b"2106": 4_294_967_297 * 10**9,
        b"2242": 8_589_934_592 * 10**9, b"2261": 9_200_000_000 * 10**9 + 1, b"2446": 15_032_385_535 * 10**9 + 5,
        b"2447-after": 15_100_000_000 * 10**9, b"odd-ns": NOON, b"999999999": 10**9 * 1_600_000_000 + 999_999_999,
    }  # fmt: skip
    with inside(b"times"):
        for name, moment in moments.items():
            put(name, name)
            with optional(f"the modification time {name.decode()}"):
                os.utime(name, ns=(NOON, moment))
                if os.stat(name).st_mtime_ns != moment:
                    print(f"left out: the modification time {name.decode()}: the file system cuts it")
        os.symlink(b"x", b"symlink-1999")
        os.mkdir(b"folder-1999")


def attributes(chance: random.Random) -> None:
    capability = struct.pack("<5I", 0x02000001, 1 << 10, 0, 0, 0)  # cap_net_bind_service+ep
    values: list[tuple[bytes, bytes, bytes]] = [
        (b"plain", b"user.plain", b"value"),
        (b"empty-value", b"user.empty", b""),
        (b"binary-value", b"user.binary", bytes(range(256))),
        (b"one-kib", b"user.kib", chance.randbytes(1000)),
        (b"large-3KiB", b"user.large", chance.randbytes(3000)),
        (b"large-60KiB", b"user.large", chance.randbytes(60 * KIB)),
        (b"name-not-utf8", b"user.\xff\xfe\n", b"x"),
        (b"name-long", b"user." + b"n" * 250, b"x"),
        (b"trusted", b"trusted.larder", b"root only"),
        (b"capability", b"security.capability", capability),
    ]
    with inside(b"xattrs"):
        for name, attribute, value in values:
            put(name, b"x")
            with optional(f"extended attribute {attribute[:30]!r} of {len(value)} bytes"):
                os.setxattr(name, attribute, value)
        many = put(b"many", b"x")
        with optional("forty extended attributes on one file"):
            for number in range(40):
                os.setxattr(many, b"user.number-%02d" % number, b"v" * number)
        os.mkdir(b"folder")
        with optional("an extended attribute of a folder"):
            os.setxattr(b"folder", b"user.folder", b"x")
        read_only = put(b"read-only", b"x")
        with optional("an extended attribute of a read-only file"):
            os.setxattr(read_only, b"user.x", b"y")
        os.chmod(read_only, 0o400)
        os.symlink(b"x", b"symlink")
        with optional("an extended attribute of a symlink"):
            os.setxattr(b"symlink", b"trusted.symlink", b"x", follow_symlinks=False)
        os.mkfifo(b"fifo")
        with optional("an extended attribute of a fifo"):
            os.setxattr(b"fifo", b"trusted.fifo", b"x")


def acls(_: random.Random) -> None:
    with inside(b"acls"):
        put(b"file", b"x")
        os.mkdir(b"folder")
        os.mkdir(b"folder-both")
        if shutil.which("setfacl") is None:
            print("left out: ACLs: setfacl is not installed")
            return
        for name, entries in (
            (b"file", "u:54321:rw,g:54322:r,m::rw"), (b"folder", "d:u:54321:rwx,d:g:54322:rx,d:m::rwx"),
            (b"folder-both", "u:54321:rx,d:u:54321:rwx,d:o::-"),
        ):  # fmt: skip
            with optional(f"the ACL of {name.decode()}"):
                subprocess.run(["setfacl", "-m", entries, name], check=True, capture_output=True)
        put(b"folder-both/inherits", b"x")


def names(_: random.Random) -> None:
    awkward = [
        b"new\nline", b"tab\there", b"-leading-dash", b"--", b"with space", b" ", b" leading", b"trailing ", b"'single'",
        b'"double"', b"back\\slash", b"\\", b"*", b"?", b"[a-z]", b"{a,b}", b"$HOME", b"`id`", b"!", b"#", b"~", b";", b"&",
        b"|", b"%s%n", b":", b"C:", b"CON", b"ends.", b"ends..", b"...", b".hidden",
        b".larder-temporary", b".larder-x.tmp",
        b"n" * 255, b"\xff", b"\xfe\xff\x80", b"\xc3\x28", b"\xed\xa0\x80", b"\x01\x02\x1b[31m", b"\x7f",
        "Zoë".encode(), "日本語".encode(), "👩‍👧".encode(), "\u202egnp.exe".encode(), "a\u0300".encode(), b"\xef\xbb\xbfbom",
        ("ü" * 127).encode(), b"\r", b"a\r\nb", b"@[latest]",
    ]  # fmt: skip
    with inside(b"names"):
        for name in awkward:
            with optional(f"the name {name!r}"):
                put(name, name)
        with inside(b"folders"):
            for name in awkward[:12] + [b"\xff", b".larder-folder", b"n" * 255, b"ends."]:
                with optional(f"the folder name {name!r}"):
                    os.mkdir(name)
                    put(name + b"/inside", name)


def twins(_: random.Random) -> None:
    with inside(b"twins"):
        for word in ("é", "한글", "ﬁ", "Å"):
            for form in ("NFC", "NFD", "NFKC"):
                name = unicodedata.normalize(form, word).encode()
                if not os.path.exists(name):
                    put(name, form.encode())
        for name in (b"Case", b"case", b"CASE", b"I", b"i", "ı".encode(), "İ".encode()):
            with optional(f"the name {name!r} beside its twin"):
                put(name, name)


def sort_traps(_: random.Random) -> None:
    with inside(b"sort"):
        for name in (b"a.b", b"a0", b"a b", b"a-", b"a!", b"a\x01", b"A", b"aa", b"a~", b"a\xff"):
            put(name, name)
        with inside(b"a"):
            for name in (b"z", b"0", b".", b"!"):
                if name != b".":
                    put(name, name)
            with inside(b"a"):
                put(b"a.b", b"x")
        with inside(b"b.d"):
            put(b"x", b"x")
        with inside(b"b"):
            put(b"x", b"x")
        put(b"b/.d", b"x")


def deep_path(_: random.Random) -> None:
    os.mkdir(b"deep")
    folder = os.open(b"deep", os.O_RDONLY | os.O_DIRECTORY)
    for _level in range(DEEP_LEVELS):
        os.mkdir(DEEP_NAME, dir_fd=folder)
        below = os.open(DEEP_NAME, os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder)
        os.close(folder)
        folder = below
    file = os.open(b"bottom", os.O_WRONLY | os.O_CREAT, 0o644, dir_fd=folder)
    os.write(file, b"at the bottom")
    os.close(file)
    os.symlink(b"bottom", b"link", dir_fd=folder)
    os.link(b"bottom", b"bottom-again", src_dir_fd=folder, dst_dir_fd=folder)
    os.mkfifo(b"fifo", dir_fd=folder)
    os.close(folder)


def many_files(_: random.Random) -> None:
    with inside(b"many"):
        for number in range(MANY_FILES):
            os.close(os.open(b"file-%05d" % number, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644))


def settle_times() -> None:
    """Gives everything outside of `times` a time that follows from its place in the tree."""

    def settle(folder: int, skip: bytes | None) -> None:
        for position, name in enumerate(sorted(os.listdir(os.fsencode(f"/proc/self/fd/{folder}")))):
            moment = NOON + position * 1_000_000_007
            found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode) and name != skip:
                below = os.open(name, os.O_RDONLY | os.O_DIRECTORY, dir_fd=folder)
                settle(below, None)
                os.close(below)
            if skip is not None or not stat.S_ISREG(found.st_mode) or found.st_nlink == 1:
                os.utime(name, ns=(NOON, moment), dir_fd=folder, follow_symlinks=False)
            else:
                os.utime(name, ns=(NOON, NOON), dir_fd=folder, follow_symlinks=False)

    top = os.open(".", os.O_RDONLY | os.O_DIRECTORY)
    settle(top, b"times")
    os.close(top)
    for name in (b"times/symlink-1999", b"times/folder-1999"):
        os.utime(name, ns=(NOON, 915_148_800 * 10**9 + 3), follow_symlinks=False)
    os.utime(b"times", ns=(NOON, NOON))
    os.utime(b".", ns=(NOON, NOON))


def closed_folder() -> None:
    """Makes, last of all, what its own owner cannot read."""
    os.mkdir(b"closed", 0o700)
    put(b"closed/inside", b"x")
    os.utime(b"closed/inside", ns=(NOON, NOON))
    os.utime(b"closed", ns=(NOON, NOON))
    os.chmod(b"closed", 0)
    os.utime(b".", ns=(NOON, NOON))


if __name__ == "__main__":
    sys.exit(main())
