#!/usr/bin/env python3
"""Makes a golden repository, and writes down what its sources held.

    cargo build --release -p larder-tests --example make_golden
    make_golden.py MAKER tests/golden/v1

MAKER is the program that was built. The sources are the same each time; what the program draws at
random is not, so the repository is made once for each version of the format and then kept. Only
root can make all that it holds (owners, a device).
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import random
import shutil
import stat
import subprocess
import sys
from typing import Any
from urllib.parse import quote_from_bytes

from blake3 import blake3

PASSPHRASE = "golden passphrase, spoken aloud: ü"
RAW_KEY, RECOVERY_KEY = bytes(range(32)), bytes(range(100, 132))
SCRATCH = "/tmp/larder-golden"  # snapshots keep the path of what they hold
NOON = 1_700_000_000 * 10**9
TYPES = {
    stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket", stat.S_IFCHR: "character device", stat.S_IFBLK: "block device",
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("maker")
    parser.add_argument("repository", help="a folder that does not exist yet")
    arguments = parser.parse_args()
    os.umask(0o022)
    os.mkdir(SCRATCH)
    try:
        expected = make(os.path.abspath(arguments.maker), arguments.repository, SCRATCH)
    finally:
        shutil.rmtree(SCRATCH)
    with open(f"{arguments.repository.rstrip('/')}.expected.json", "w", encoding="ascii") as file:
        file.write(dumped(expected))
    return 0


def make(maker: str, repository: str, scratch: str) -> dict[str, Any]:
    raw_key, recovery_key = RAW_KEY.hex() + "\n", recovery_text(RECOVERY_KEY)

    def larder(*step: str) -> None:
        subprocess.run([maker, repository, PASSPHRASE, *step], check=True)

    tree, letters, unfinished = (os.path.join(scratch, name) for name in ("tree", "letters", "unfinished"))
    larder("init", raw_key, recovery_key)
    snapshots = []

    def take(kind: str, *sources: str, tags: tuple[str, ...] = ("golden",)) -> None:
        snapshots.append({"kind": kind, "tags": tags, "sources": {s: walk(os.fsencode(s)) for s in sorted(sources)}})

    make_tree(tree)
    larder("backup", tree)
    take("complete", tree, tags=("amended", "golden"))
    edit_tree(tree)
    make_letters(letters, 26)
    larder("interrupt", letters)
    larder("backup", letters)
    take("complete", letters)
    larder("backup", tree, letters)
    take("complete", tree, letters)
    larder("backup", letters)
    larder("amend")
    make_letters(unfinished, 40)
    larder("interrupt", unfinished)
    take("partial", unfinished)
    secrets = {"passphrase": PASSPHRASE, "key file": raw_key, "recovery key": recovery_key}
    return {"secrets": secrets, "snapshots": snapshots}


def recovery_text(key: bytes) -> str:
    letters = base64.b32encode(key + blake3(b"larder v1 recovery key" + key).digest()[:3]).decode()
    return "-".join(letters[at : at + 4] for at in range(0, len(letters), 4))


def dumped(expected: dict[str, Any]) -> str:
    """Writes a line for each entry, so that a change shows as one."""
    text = json.dumps(expected, indent=1)
    expanded = json.loads(text)
    for snapshot in expanded["snapshots"]:
        for name, entries in snapshot["sources"].items():
            snapshot["sources"][name] = [json.dumps(entry) for entry in entries]
    text = json.dumps(expanded, indent=1)
    lines = []
    for line in text.splitlines():
        stripped = line.strip().rstrip(",")
        if stripped.startswith('"{'):
            comma = "," if line.endswith(",") else ""
            line = line[: len(line) - len(line.lstrip())] + json.loads(stripped) + comma
        lines.append(line)
    return "\n".join(lines) + "\n"


# The sources.


def make_tree(top: str) -> None:
    chance = random.Random(1)
    put = lambda name, content, mode=0o644: write(os.path.join(top, name), content, mode)  # noqa: E731
    os.makedirs(os.path.join(top, "folder/deeper/still"))
    os.mkdir(os.path.join(top, "empty folder"), 0o750)
    put("empty", b"")
    put("one byte", b"1", 0o4755)
    put("folder.txt", b"sorts before the folder's own key\n")
    put("folder/text", b"the quick brown fox\n" * 60, 0o600)
    put("folder/deeper/still/bytes", chance.randbytes(700), 0o444)
    put("extents", chance.randbytes(5000))
    put("list", chance.randbytes(22_000))
    put("long list", chance.randbytes(65_000))
    for number in range(130):
        put(f"many/{number:03}", b"%d\n" % number)
    with open(os.path.join(top, "holes"), "wb") as file:
        file.write(chance.randbytes(4096))
        file.seek(1 << 20)
        file.write(chance.randbytes(4096))
        file.truncate(3 << 20)
    with open(os.path.join(top, "hole"), "wb") as file:
        file.truncate(1 << 33)
    folder = os.fsencode(top)
    with open(os.path.join(folder, b"not UTF-8 \xff\n"), "wb") as file:
        file.write(b"name\n")
    os.link(os.path.join(top, "folder/text"), os.path.join(top, "hard link"))
    os.symlink(b"folder/\xfe nowhere", os.path.join(folder, b"symlink"))
    os.mkfifo(os.path.join(top, "fifo"), 0o620)
    os.mknod(os.path.join(top, "socket"), 0o640 | stat.S_IFSOCK)
    os.mknod(os.path.join(top, "device"), 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.setxattr(os.path.join(top, "one byte"), "user.small", b"value")
    os.setxattr(os.path.join(top, "one byte"), "user.empty", b"")
    os.setxattr(os.path.join(top, "extents"), "user.large", chance.randbytes(1500))
    os.setxattr(os.path.join(top, "folder"), "user.of a folder", b"\0\xff")
    os.chown(os.path.join(top, "folder/deeper"), 4_000_000_000, 1234)
    os.chown(os.path.join(top, "symlink"), 1, 2, follow_symlinks=False)
    settle(folder, NOON + 123_456_789)
    os.utime(os.path.join(top, "empty"), ns=(0, -(10**9) - 1))


def edit_tree(top: str) -> None:
    os.unlink(os.path.join(top, "many/017"))
    os.rename(os.path.join(top, "many/018"), os.path.join(top, "many/018 renamed"))
    with open(os.path.join(top, "long list"), "r+b") as file:
        file.seek(30_000)
        file.write(b"changed in the middle")
    write(os.path.join(top, "folder/new"), b"new\n", 0o640)
    os.chmod(os.path.join(top, "folder.txt"), 0o600)
    for name in ("long list", "folder/new", "folder", "many"):
        os.utime(os.path.join(top, name), ns=(NOON, NOON + 86_400 * 10**9 + 1))


def make_letters(top: str, count: int) -> None:
    for number in range(count):
        write(os.path.join(top, f"letter {number:02}"), b"Dear reader %d,\n" % number * 8, 0o644)
    settle(os.fsencode(top), NOON + 1)


def write(path: str, content: bytes, mode: int) -> None:
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "wb") as file:
        file.write(content)
    os.chmod(path, mode)


def settle(top: bytes, time_ns: int) -> None:
    for folder, folders, files in os.walk(top, topdown=False):
        for name in files + folders:
            os.utime(os.path.join(folder, name), ns=(time_ns, time_ns), follow_symlinks=False)
    os.utime(top, ns=(time_ns, time_ns))


# What they hold.


def walk(top: bytes) -> list[dict[str, Any]]:
    """Describes all below a folder, by the operating system's word alone, in the order of the format's keys."""
    found = [(b"", describe(top, b""))]
    for folder, folders, files in os.walk(top):
        for name in folders + files:
            path = os.path.join(folder, name)
            relative = os.path.relpath(path, top)
            is_folder = stat.S_ISDIR(os.lstat(path).st_mode)
            found.append((relative + b"/" * is_folder, describe(path, relative)))
    found.sort(key=lambda pair: pair[0])
    links: dict[int, str] = {}
    for _, entry in found:
        inode = entry.pop("inode")
        if inode is not None and links.setdefault(inode, entry["path"]) != entry["path"]:
            entry["same file as"] = links[inode]
    return [entry for _, entry in found]


def describe(path: bytes, relative: bytes) -> dict[str, Any]:
    of = os.lstat(path)
    kind = TYPES[stat.S_IFMT(of.st_mode)]
    entry: dict[str, Any] = {
        "path": shown(relative), "type": kind, "mode": f"{stat.S_IMODE(of.st_mode):04o}",
        "uid": of.st_uid, "gid": of.st_gid, "mtime_ns": of.st_mtime_ns,
        "inode": of.st_ino if of.st_nlink > 1 and kind != "directory" else None,
    }  # fmt: skip
    if kind == "file":
        with open(path, "rb") as file:
            sparse = of.st_blocks * 512 < of.st_size
            content = None if sparse and of.st_size > 1 << 30 else file.read()
        entry["size"] = of.st_size
        if content is None:
            entry["all zeros"] = True
        else:
            entry |= {"sha256": hashlib.sha256(content).hexdigest(), "blake3": blake3(content).hexdigest()}
        if sparse:
            entry["sparse"] = True
    elif kind == "symlink":
        entry["target"] = shown(os.readlink(path))
    elif kind == "character device":
        entry["device"] = [os.major(of.st_rdev), os.minor(of.st_rdev)]
    names = sorted(os.listxattr(path, follow_symlinks=False))
    if names:
        entry["xattrs"] = {name: os.getxattr(path, name, follow_symlinks=False).hex() for name in names}
    return entry


def shown(name: bytes) -> str:
    """Writes bytes as a URL does, which any program can take back."""
    return quote_from_bytes(name, safe="/ .-_")


if __name__ == "__main__":
    sys.exit(main())
