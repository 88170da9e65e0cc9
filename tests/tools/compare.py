#!/usr/bin/env python3
"""Compares two trees: bytes and metadata. Silent and 0 when equal, a line for each difference and 1 when not.

Works by directory handles, so that paths of any length are compared; follows no symlink.
"""

from __future__ import annotations

import argparse
import os
import stat
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

PIECE = 1 << 20
HOLE_TOLERANCE_BYTES = 64 << 10
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
TYPES = {
    stat.S_IFREG: "file", stat.S_IFDIR: "directory", stat.S_IFLNK: "symlink", stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket", stat.S_IFCHR: "character device", stat.S_IFBLK: "block device",
}  # fmt: skip


@dataclass
class Options:
    """What is compared beyond names, types, sizes, contents, targets and device numbers."""

    owner: bool = True
    mode: bool = True
    mtime: bool = True
    atime: bool = False
    links: bool = True
    xattrs: bool = True
    holes: bool = False
    root_mtime: bool = True
    allow_unreadable: bool = False
    skip_xattrs: tuple[bytes, ...] = ()
    exclude: frozenset[bytes] = frozenset()


@dataclass
class Comparison:
    """One run over two trees; `differences` holds a line for each that was found."""

    options: Options
    tell: Callable[[str], None]
    groups: tuple[dict[tuple[int, int], list[bytes]], dict[tuple[int, int], list[bytes]]] = field(
        default_factory=lambda: ({}, {})
    )
    found: int = 0

    def run(self, a: bytes, b: bytes) -> int:
        handles = [os.open(path, os.O_RDONLY | os.O_DIRECTORY) for path in (a, b)]
        try:
            self._metadata(b".", os.fstat(handles[0]), os.fstat(handles[1]), is_root=True)
            self._attributes(b".", *(b"/proc/self/fd/%d/." % handle for handle in handles))
            self._folders(b"", *handles)
        finally:
            for handle in handles:
                os.close(handle)
        if self.options.links:
            self._hard_links()
        return self.found

    def _differ(self, path: bytes, what: str, a: object = None, b: object = None) -> None:
        self.found += 1
        values = "" if a is None and b is None else f": {a} | {b}"
        self.tell(f"{shown(path)}: {what}{values}")

    def _folders(self, path: bytes, a: int, b: int) -> None:
        names = [set(os.listdir(b"/proc/self/fd/%d" % handle)) for handle in (a, b)]
        for name in sorted(names[0] | names[1]):
            below = path + name
            if below in self.options.exclude:
                continue
            if name not in names[0] or name not in names[1]:
                self._differ(below, "only in the first" if name in names[0] else "only in the second")
            else:
                self._entry(below, name, a, b)

    def _entry(self, path: bytes, name: bytes, a: int, b: int) -> None:
        first, second = (os.stat(name, dir_fd=at, follow_symlinks=False) for at in (a, b))
        types = [stat.S_IFMT(found.st_mode) for found in (first, second)]
        if types[0] != types[1]:
            self._differ(path, "type", *(TYPES[t] for t in types))
            return
        self._metadata(path, first, second)
        self._attributes(path, *(b"/proc/self/fd/%d/%s" % (at, name) for at in (a, b)))
        for side, found in enumerate((first, second)):
            if found.st_nlink > 1 and types[0] != stat.S_IFDIR:
                self.groups[side].setdefault((found.st_dev, found.st_ino), []).append(path)
        if types[0] == stat.S_IFREG:
            self._files(path, name, a, b, first, second)
        elif types[0] == stat.S_IFLNK:
            targets = [os.readlink(name, dir_fd=at) for at in (a, b)]
            if targets[0] != targets[1]:
                self._differ(path, "target", *targets)
        elif types[0] in (stat.S_IFCHR, stat.S_IFBLK) and first.st_rdev != second.st_rdev:
            self._differ(path, "device number", first.st_rdev, second.st_rdev)
        elif types[0] == stat.S_IFDIR:
            self._descend(path, name, a, b)

    def _descend(self, path: bytes, name: bytes, a: int, b: int) -> None:
        handles = self._open(path, name, a, b, _FOLDER)
        if handles:
            try:
                self._folders(path + b"/", *handles)
            finally:
                for handle in handles:
                    os.close(handle)

    def _open(self, path: bytes, name: bytes, a: int, b: int, flags: int) -> tuple[int, int] | None:
        """Opens both sides, or says that one or both cannot be read."""
        handles: list[int] = []
        for at in (a, b):
            try:
                handles.append(os.open(name, flags, dir_fd=at))
            except PermissionError:
                pass
        if len(handles) == 2:
            return handles[0], handles[1]
        for handle in handles:
            os.close(handle)
        if handles or not self.options.allow_unreadable:
            self._differ(path, "cannot be read" + (" in one of the trees" if handles else ""))
        return None

    def _metadata(self, path: bytes, a: os.stat_result, b: os.stat_result, *, is_root: bool = False) -> None:
        options, is_link = self.options, stat.S_ISLNK(a.st_mode)
        if options.mode and not is_link and stat.S_IMODE(a.st_mode) != stat.S_IMODE(b.st_mode):
            self._differ(path, "mode", oct(stat.S_IMODE(a.st_mode)), oct(stat.S_IMODE(b.st_mode)))
        if options.owner and (a.st_uid, a.st_gid) != (b.st_uid, b.st_gid):
            self._differ(path, "owner", f"{a.st_uid}:{a.st_gid}", f"{b.st_uid}:{b.st_gid}")
        if options.mtime and a.st_mtime_ns != b.st_mtime_ns and (options.root_mtime or not is_root):
            self._differ(path, "mtime", a.st_mtime_ns, b.st_mtime_ns)
        if options.atime and a.st_atime_ns != b.st_atime_ns:
            self._differ(path, "atime", a.st_atime_ns, b.st_atime_ns)

    def _attributes(self, path: bytes, a: bytes, b: bytes) -> None:
        if not self.options.xattrs:
            return
        first, second = (self._read_attributes(side) for side in (a, b))
        for name in sorted(first.keys() | second.keys()):
            if first.get(name) != second.get(name):
                values = [None if v is None else v[:40] for v in (first.get(name), second.get(name))]
                self._differ(path, f"attribute {name!r}", *values)

    def _read_attributes(self, path: bytes) -> dict[bytes, bytes]:
        # Listed by their raw names: not all of them are text.
        names = [os.fsencode(name) for name in os.listxattr(path, follow_symlinks=False)]
        return {
            name: os.getxattr(path, name, follow_symlinks=False)
            for name in names
            if not name.startswith(self.options.skip_xattrs)
        }

    def _files(
        self, path: bytes, name: bytes, a: int, b: int, first: os.stat_result, second: os.stat_result
    ) -> None:
        if first.st_size != second.st_size:
            self._differ(path, "size", first.st_size, second.st_size)
            return
        if self.options.holes and abs(first.st_blocks - second.st_blocks) * 512 > HOLE_TOLERANCE_BYTES:
            self._differ(path, "bytes on disk", first.st_blocks * 512, second.st_blocks * 512)
        handles = self._open(path, name, a, b, os.O_RDONLY | os.O_NOFOLLOW)
        if handles is None:
            return
        try:
            offset = first_difference(handles[0], handles[1], first.st_size)
            if offset is not None:
                self._differ(path, f"content from byte {offset} on")
        finally:
            for handle in handles:
                os.close(handle)

    def _hard_links(self) -> None:
        """Compares the two partitions of paths into files."""
        partitions = [{frozenset(paths) for paths in side.values() if len(paths) > 1} for side in self.groups]
        for only, group in [("first", g) for g in partitions[0] - partitions[1]] + [
            ("second", g) for g in partitions[1] - partitions[0]
        ]:
            paths = " = ".join(shown(path) for path in sorted(group))
            self._differ(min(group), f"hard-linked so only in the {only}: {paths}")


def first_difference(a: int, b: int, size: int) -> int | None:
    """Returns the first offset at which two files differ; skips what is a hole in both."""
    offset = 0
    while offset < size:
        offset = min(next_data(a, offset, size), next_data(b, offset, size))
        pieces = [read_fully(handle, offset, min(PIECE, size - offset)) for handle in (a, b)]
        if pieces[0] != pieces[1]:
            return offset + next(
                (at for at, (x, y) in enumerate(zip(*pieces, strict=False)) if x != y), min(map(len, pieces))
            )
        offset += PIECE
    return None


def next_data(handle: int, offset: int, size: int) -> int:
    try:
        return os.lseek(handle, offset, os.SEEK_DATA)
    except OSError:
        return size if offset < size and is_hole(handle, offset) else offset


def is_hole(handle: int, offset: int) -> bool:
    try:
        return os.lseek(handle, offset, os.SEEK_HOLE) == offset
    except OSError:
        return False


def read_fully(handle: int, offset: int, length: int) -> bytes:
    pieces = []
    while length:
        piece = os.pread(handle, length, offset)
        if not piece:
            break
        pieces.append(piece)
        offset, length = offset + len(piece), length - len(piece)
    return b"".join(pieces)


def shown(path: bytes) -> str:
    return os.fsdecode(path).encode("unicode_escape", "backslashreplace").decode("ascii") or "."


def compare(a: bytes, b: bytes, options: Options | None = None) -> Iterator[str]:
    """Yields one line for each difference between two trees."""
    lines: list[str] = []
    Comparison(options or Options(), lines.append).run(a, b)
    yield from lines


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("a")
    parser.add_argument("b")
    for flag in ("owner", "mode", "mtime", "links", "xattrs"):
        parser.add_argument(f"--no-{flag}", dest=flag, action="store_false")
    parser.add_argument("--atime", action="store_true", help="compare access times too")
    parser.add_argument("--no-atime", dest="atime", action="store_false", help="the default")
    parser.add_argument("--holes", action="store_true", help="compare the space that files take, roughly")
    parser.add_argument(
        "--ignore-dir-mtime-of-root", dest="root_mtime", action="store_false", help="leave the roots' own mtime out"
    )
    parser.add_argument(
        "--allow-unreadable", action="store_true", help="take contents that neither tree lets be read as equal"
    )
    parser.add_argument("--skip-xattr", action="append", default=[], metavar="PREFIX")
    parser.add_argument("--exclude", action="append", default=[], metavar="PATH", help="relative to both roots")
    arguments = vars(parser.parse_args())
    a, b = (os.fsencode(arguments.pop(side)) for side in "ab")
    skip = tuple(os.fsencode(prefix) for prefix in arguments.pop("skip_xattr"))
    exclude = frozenset(os.fsencode(path) for path in arguments.pop("exclude"))
    return 1 if Comparison(Options(**arguments, skip_xattrs=skip, exclude=exclude), print).run(a, b) else 0


if __name__ == "__main__":
    sys.exit(main())
