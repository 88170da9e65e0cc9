"""Restores one tree below a folder, entry by entry, and never outside of it."""

from __future__ import annotations

import contextlib
import os
import stat
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import trees
from trees import Entry
from wire import Damage

_OPEN_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_SPECIAL = {
    trees.FIFO: stat.S_IFIFO, trees.SOCKET: stat.S_IFSOCK,
    trees.CHARACTER: stat.S_IFCHR, trees.BLOCK: stat.S_IFBLK,
}  # fmt: skip
Report = Callable[[str], None]


class Restorer:
    """Works by directory handles, so that names of any depth fit and no symlink is followed."""

    def __init__(self, target: bytes, fetch: trees.Fetch, report: Report, name: bytes = b"") -> None:
        """`name` is what a source that is a single file is called below the target."""
        self.name = name
        self.fetch = fetch
        self.report = report
        self.is_root = os.geteuid() == 0
        os.makedirs(target, exist_ok=True)
        self.top = os.open(target, os.O_RDONLY | os.O_DIRECTORY)
        self.target = target
        self.folder: tuple[bytes, int] = (b"", os.dup(self.top))
        self.links: dict[tuple[int, int], bytes] = {}
        self.folders: list[Entry] = []

    def run(self, entries: Iterable[Entry]) -> None:
        try:
            for entry in entries:
                try:
                    self._entry(entry)
                except (Damage, OSError) as error:
                    self.report(f"{_shown(entry.key)}: not restored: {error}")
        finally:
            for entry in reversed(self.folders):
                with self._opened(entry.key.rstrip(b"/")) as handle:
                    self._metadata(entry, handle)

    def _entry(self, entry: Entry) -> None:
        if entry.flags & trees.UNREADABLE and entry.type in (trees.FILE, trees.OBJECT):
            self.report(f"{_shown(entry.key)}: could not be read when it was backed up")
            return
        if entry.type == trees.OBJECT:
            self._object(entry)
            return
        path = entry.key.rstrip(b"/")
        if not path and entry.type != trees.DIRECTORY:
            if self.name in (b"", b".", b".."):
                raise Damage("the source is a single file without a name")
            path = self.name
        parent, _, name = path.rpartition(b"/")
        at = self._parent(parent)
        if entry.type == trees.DIRECTORY:
            if entry.key:
                os.mkdir(name, 0o700, dir_fd=at)
            self.folders.append(entry)
            return
        file = (entry.file_system, entry.inode)
        if entry.links > 1 and file in self.links:
            first_parent, _, first = self.links[file].rpartition(b"/")
            with self._opened(first_parent) as source:
                os.link(first, name, src_dir_fd=source, dst_dir_fd=at, follow_symlinks=False)
            return
        self._create(entry, name, at)
        if entry.links > 1:
            self.links[file] = path

    def _object(self, entry: Entry) -> None:
        """Makes a file of an object whose key is a path that a file can have."""
        parts = entry.key.split(b"/")
        if b"\0" in entry.key or any(part in (b"", b".", b"..") for part in parts):
            self.report(f"{_shown(entry.key)}: no file can have this name")
            return
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
        try:
            for count in range(1, len(parts)):
                with self._opened(b"/".join(parts[: count - 1])) as folder, contextlib.suppress(FileExistsError):
                    os.mkdir(parts[count - 1], dir_fd=folder)
            with self._opened(b"/".join(parts[:-1])) as folder:
                handle = os.open(parts[-1], flags, 0o644, dir_fd=folder)
        except OSError as error:
            self.report(f"{_shown(entry.key)}: not restored: {error}")
            return
        try:
            self._content(entry, handle)
            os.utime(handle, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(handle)

    def _create(self, entry: Entry, name: bytes, at: int) -> None:
        if entry.type == trees.FILE or entry.extents != []:
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW
            handle = os.open(name, flags, 0o600, dir_fd=at)
            try:
                self._content(entry, handle)
                self._metadata(entry, handle)
            except Damage:
                os.unlink(name, dir_fd=at)
                raise
            finally:
                os.close(handle)
            return
        if entry.type == trees.SYMLINK:
            os.symlink(entry.target, name, dir_fd=at)
        elif entry.type in (trees.CHARACTER, trees.BLOCK) and not self.is_root:
            self.report(f"{_shown(entry.key)}: only root can make devices")
            return
        else:
            device = os.makedev(entry.device >> 32, entry.device & 0xFFFFFFFF)
            os.mknod(name, _SPECIAL[entry.type] | 0o600, device, dir_fd=at)
        self._metadata(entry, at, name)

    def _content(self, entry: Entry, handle: int) -> None:
        os.ftruncate(handle, entry.size)
        offset = 0
        for extent in trees.extents_of(entry, self.fetch):
            if extent.chunk is not None:
                try:
                    content = self.fetch(trees.DATA_CHUNK, extent.chunk)
                except Damage as error:
                    raise Damage(f"its bytes {offset}..{offset + extent.length} are lost: {error}") from error
                if len(content) != extent.length:
                    raise Damage(f"chunk {extent.chunk.hex()}: {len(content)} bytes instead of {extent.length}")
                while content:
                    written = os.pwrite(handle, content, offset)
                    content, offset = content[written:], offset + written
            else:
                offset += extent.length

    def _metadata(self, entry: Entry, handle: int, name: bytes | None = None) -> None:
        """Sets what an entry holds on an open file, or on a name in an open folder.

        The order matters: a change of owner takes capabilities and setuid away, and an attribute
        cannot be set on what its mode makes read-only.
        """
        how: dict[str, Any] = {} if name is None else {"dir_fd": handle, "follow_symlinks": False}
        what: int | bytes = handle if name is None else name
        with self._tolerant(entry, "owner"):
            if self.is_root:
                os.chown(what, entry.uid, entry.gid, **how)
        through = what if name is None else b"/proc/self/fd/%d/%s" % (handle, name)
        for attribute, value in trees.attributes(entry, self.fetch):
            with self._tolerant(entry, f"attribute {attribute!r}"):
                os.setxattr(through, attribute, value, follow_symlinks=name is None)
        if entry.type != trees.SYMLINK:
            with self._tolerant(entry, "mode"):
                os.chmod(what, entry.mode, dir_fd=None if name is None else handle)
        with self._tolerant(entry, "times"):
            kept = entry.flags & trees.ATIME_KEPT
            atime = entry.atime_ns if kept else os.stat(what, **how).st_atime_ns
            os.utime(what, ns=(atime, entry.mtime_ns), **how)

    @contextlib.contextmanager
    def _tolerant(self, entry: Entry, what: str) -> Iterator[None]:
        try:
            yield
        except (OSError, OverflowError) as error:
            self.report(f"{_shown(entry.key)}: {what} not restored: {error}")

    def _parent(self, path: bytes) -> int:
        if self.folder[0] != path:
            handle = self._walk(path)
            os.close(self.folder[1])
            self.folder = (path, handle)
        return self.folder[1]

    @contextlib.contextmanager
    def _opened(self, path: bytes) -> Iterator[int]:
        handle = self._walk(path)
        try:
            yield handle
        finally:
            os.close(handle)

    def _walk(self, path: bytes) -> int:
        handle = os.dup(self.top)
        for component in path.split(b"/") if path else []:
            try:
                below = os.open(component, _OPEN_FOLDER, dir_fd=handle)
            finally:
                os.close(handle)
            handle = below
        return handle


def warn(message: str) -> None:
    print(f"larder_reader: {message}", file=sys.stderr)


def _shown(path: bytes) -> str:
    return os.fsdecode(path).encode("utf-8", "backslashreplace").decode() or "."
