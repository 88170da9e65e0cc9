"""Pages, entries and nodes (SPEC.md §9), trees and lists (§10), read with every rule checked."""

from __future__ import annotations

from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

from objects import parse_page_head
from sealing import blake3_keyed
from wire import U64, Cursor, Damage, array, decode_cbor, decode_integers, decode_strings, fields, octets, row, unzigzag

DATA_CHUNK, TREE_LEAF, TREE_NODE, LIST_LEAF, LIST_NODE, VALUE = 1, 2, 3, 4, 5, 6
FILE, DIRECTORY, SYMLINK, FIFO, SOCKET, CHARACTER, BLOCK, OBJECT = 1, 2, 3, 4, 5, 6, 7, 8
UNREADABLE, ATIME_KEPT, READ_AS_SPECIAL = 2, 4, 8
INLINE_EXTENTS = 31
Order = tuple[bytes, int]
Fetch = Callable[[int, bytes], bytes]
"""Fetches the chunk of a type and id, its id checked."""


@dataclass(frozen=True)
class Extent:
    length: int
    chunk: bytes | None  # nothing for a hole


@dataclass(frozen=True)
class Entry:
    key: bytes
    ordinal: int
    type: int
    size: int
    mode: int
    uid: int
    gid: int
    user: bytes
    group: bytes
    mtime_ns: int
    ctime_ns: int
    atime_ns: int
    inode: int
    file_system: int
    links: int
    target: bytes
    device: int
    flags: int
    extents: list[Extent] | None  # nothing if they stand in a list
    list_root: tuple[bytes, int] | None
    attributes: bytes | None
    attributes_id: bytes | None
    etag: bytes
    version: bytes
    storage_class: bytes


@dataclass(frozen=True)
class Child:
    order: Order
    rank: int
    chunk: bytes
    entries: int
    size: int


class Page:
    """One page taken apart; its columns are asked for by field and must all be asked for."""

    def __init__(self, data: bytes, level: int, most_items: int, what: str) -> None:
        cursor = Cursor(data, what)
        parts = parse_page_head(cursor)[1]
        self.columns = {field: Cursor(cursor.take(length), f"{what}: field {field}") for field, length in parts}
        cursor.finish()
        head = Cursor(data, what)
        if (found := head.uint(1)) != level:
            raise Damage(f"{what}: level {found} where level {level} belongs")
        self.items = head.varint(most_items)
        self.what = what

    def integers(self, field: int, count: int, most: int = U64, *, default: bool = True) -> list[int]:
        if not self._present(field, count, default):
            return [0] * count
        cursor = self.columns.pop(field)
        values = decode_integers(cursor, count)
        cursor.finish()
        if max(values) > most:
            raise Damage(f"{cursor.what}: {max(values)} is above the limit of {most}")
        if default and not any(values):
            raise Damage(f"{cursor.what}: a column of nothing but defaults")
        return values

    def signed(self, field: int, count: int) -> list[int]:
        return [unzigzag(value) for value in self.integers(field, count)]

    def strings(self, field: int, count: int, longest: int, *, default: bool = True) -> list[bytes]:
        if not self._present(field, count, default):
            return [b""] * count
        cursor = self.columns.pop(field)
        values = decode_strings(cursor, count, longest)
        cursor.finish()
        if default and not any(values):
            raise Damage(f"{cursor.what}: a column of nothing but defaults")
        return values

    def raw(self, field: int, length: int) -> Cursor:
        if not self._present(field, length, False):
            return Cursor(b"", self.what)
        cursor = self.columns.pop(field)
        if len(cursor.data) != length:
            raise Damage(f"{cursor.what}: {len(cursor.data)} bytes instead of {length}")
        return cursor

    def keys(self) -> list[bytes]:
        shared = self.integers(1, self.items, 65536)
        added = self.integers(2, self.items, 65536)
        tails = self.raw(3, sum(added))
        keys: list[bytes] = []
        for position, (common, more) in enumerate(zip(shared, added)):
            previous = keys[-1] if keys else b""
            if common > len(previous) or common + more > 65536:
                raise Damage(f"{self.what}: key {position} is too long or shares too much")
            key = previous[:common] + tails.take(more)
            if common != _shared(previous, key):
                raise Damage(f"{self.what}: key {position} shares more than it says")
            keys.append(key)
        return keys

    def finish(self) -> None:
        if self.columns:
            raise Damage(f"{self.what}: unknown field {min(self.columns)}")

    def _present(self, field: int, count: int, default: bool) -> bool:
        present = field in self.columns
        if present and count == 0 or not present and count > 0 and not default:
            raise Damage(f"{self.what}: field {field} is there without values or missing with some")
        return present


def _shared(a: bytes, b: bytes) -> int:
    length = min(len(a), len(b))
    return next((i for i in range(length) if a[i] != b[i]), length)


def parse_leaf(data: bytes, what: str) -> list[Entry]:
    """Decodes a leaf; the columns are asked for in the order of `Entry`'s members."""
    page = Page(data, 0, 512, what)
    n = page.items
    keys, ordinals = page.keys(), page.integers(4, n)
    types = _types(page, n)
    sizes, modes = page.integers(6, n), page.integers(7, n, 0o7777)
    uids, gids = (page.integers(field, n, (1 << 32) - 1) for field in (8, 9))
    users, groups = page.strings(10, n, 256), page.strings(11, n, 256)
    mtimes, ctimes, atimes = (_times(page, field, n) for field in (12, 14, 16))
    inodes, file_systems, links = (page.integers(field, n) for field in (18, 19, 20))
    targets, devices = page.strings(21, n, 4096), page.integers(22, n)
    flags, contents = page.integers(23, n, 31), page.integers(24, n, 3)
    extents, roots = _contents(page, sizes, contents)
    kinds = page.integers(29, n, 2)
    inline = iter(page.strings(30, kinds.count(1), 1024, default=False))
    outside = page.raw(31, 32 * kinds.count(2))
    etags, versions, classes = page.strings(40, n, 1024), page.strings(41, n, 1024), page.strings(42, n, 256)
    page.finish()
    return [
        _checked(
            what,
            Entry(*members, next(inline) if kind == 1 else None, outside.take(32) if kind == 2 else None, *facts),  # type: ignore[call-arg]
        )
        for *members, kind, facts in zip(  # the first twenty members, in their order
            keys, ordinals, types, sizes, modes, uids, gids, users, groups, mtimes, ctimes, atimes, inodes,
            file_systems, links, targets, devices, flags, extents, roots, kinds, zip(etags, versions, classes),
        )
    ]  # fmt: skip


def _types(page: Page, count: int) -> list[int]:
    """Reads field 5, whose default is 1."""
    if 5 not in page.columns:
        return [FILE] * count
    types = page.integers(5, count, 8, default=False)
    if 0 in types or set(types) == {FILE}:
        raise Damage(f"{page.what}: field 5: a type that is not defined, or all defaults")
    return types


def _times(page: Page, field: int, count: int) -> list[int]:
    seconds, nanoseconds = page.signed(field, count), page.integers(field + 1, count, 10**9 - 1)
    return [s * 10**9 + ns for s, ns in zip(seconds, nanoseconds)]


def _contents(
    page: Page, sizes: list[int], contents: list[int]
) -> tuple[list[list[Extent] | None], list[tuple[bytes, int] | None]]:
    counts = page.integers(25, contents.count(2), INLINE_EXTENTS, default=False)
    lengths = page.integers(26, sum(counts), default=False)
    solid = sum(1 for length in lengths if length % 2 == 0)
    ids = page.raw(27, 32 * (contents.count(1) + solid + contents.count(3)))
    levels = iter(page.integers(28, contents.count(3), 16))
    next_count, next_length = iter(counts), iter(lengths)
    extents: list[list[Extent] | None] = []
    roots: list[tuple[bytes, int] | None] = []
    for size, content in zip(sizes, contents):
        roots.append((ids.take(32), next(levels)) if content == 3 else None)
        if content == 1:
            extents.append([Extent(size, ids.take(32))])
        elif content == 2:
            some = [_extent(next(next_length), ids) for _ in range(next(next_count))]
            if not some or (len(some) == 1 and some[0].chunk):
                raise Damage(f"{page.what}: extents that should be a whole content, or none at all")
            extents.append(some)
        else:
            extents.append([] if content == 0 else None)
    return extents, roots


def _extent(packed: int, ids: Cursor) -> Extent:
    return Extent(packed >> 1, None if packed & 1 else ids.take(32))


def _checked(what: str, entry: Entry) -> Entry:
    where = f"{what}: entry {entry.key!r}"
    if entry.type == OBJECT:
        _check_object(entry, where)
    else:
        _check_file(entry, where)
    has_content = entry.extents != []
    if entry.type not in (FILE, OBJECT) and (has_content or entry.size):
        raise Damage(f"{where}: content or a size, but no file")
    if entry.type != FILE and entry.flags & READ_AS_SPECIAL:
        raise Damage(f"{where}: flag 3, but no file")
    if not has_content and entry.size and not entry.flags & UNREADABLE:
        raise Damage(f"{where}: a file of {entry.size} bytes without content")
    if entry.extents:
        _check_extents(entry.extents, where)
        if sum(extent.length for extent in entry.extents) != entry.size:
            raise Damage(f"{where}: its extents do not add up to its size")
    return entry


def _check_object(entry: Entry, where: str) -> None:
    numbers = (entry.mode, entry.uid, entry.gid, entry.ctime_ns, entry.atime_ns, entry.inode, entry.file_system)
    if any(numbers) or entry.flags & ATIME_KEPT or entry.links or entry.device:
        raise Damage(f"{where}: an object with what only files have")
    if entry.user or entry.group or entry.target:
        raise Damage(f"{where}: an object with an owner or a target")


def _check_file(entry: Entry, where: str) -> None:
    if entry.etag or entry.version or entry.storage_class:
        raise Damage(f"{where}: a file with what only objects have")
    path = entry.key.removesuffix(b"/") if entry.type == DIRECTORY else entry.key
    components = path.split(b"/") if entry.key else []
    if entry.ordinal or b"\0" in entry.key or any(part in (b"", b".", b"..") for part in components):
        raise Damage(f"{where}: a name that no file can have")
    if (entry.type == DIRECTORY) != entry.key.endswith(b"/") and entry.key:
        raise Damage(f"{where}: its key and its type disagree on whether it is a directory")
    if entry.target and entry.type != SYMLINK or b"\0" in entry.target:
        raise Damage(f"{where}: a target that no symlink can have")
    if not entry.target and entry.type == SYMLINK and not entry.flags & UNREADABLE:
        raise Damage(f"{where}: a symlink without target")
    if entry.device and entry.type not in (CHARACTER, BLOCK):
        raise Damage(f"{where}: a device number, but no device")
    if entry.atime_ns and not entry.flags & ATIME_KEPT:
        raise Damage(f"{where}: an access time that was not kept")


def _check_extents(extents: list[Extent], where: str) -> None:
    for previous, extent in zip([None, *extents], extents):
        if extent.length == 0 or (extent.chunk and extent.length > 4 << 20):
            raise Damage(f"{where}: an extent of {extent.length} bytes")
        if previous and not previous.chunk and not extent.chunk:
            raise Damage(f"{where}: two holes in a row")


_ATTRIBUTES = fields({0: array(row(octets(), octets()), least=1)})
_PROPERTIES = fields({1: array(row(octets(), octets()), least=1)})


def attributes(entry: Entry, fetch: Fetch) -> list[tuple[bytes, bytes]]:
    """Returns an entry's extended attributes, or an object's properties."""
    record, what = entry.attributes, f"attributes of {entry.key!r}"
    if entry.attributes_id:
        record = fetch(VALUE, entry.attributes_id)
        if len(record) <= 1024:
            raise Damage(f"{what}: out of line, though short enough to stand inline")
    if record is None:
        return []
    value = decode_cbor(record, what)
    is_object = entry.type == OBJECT
    (_PROPERTIES if is_object else _ATTRIBUTES)(value, what)
    pairs = [(name, content) for name, content in value[1 if is_object else 0]]
    if any(a[0] >= b[0] for a, b in zip(pairs, pairs[1:])):
        raise Damage(f"{what}: not sorted, or with duplicates")
    return pairs


def parse_interior(data: bytes, level: int, what: str) -> list[Child]:
    page = Page(data, level, 512, what)
    n = page.items
    keys, ordinals, ranks = page.keys(), page.integers(4, n), page.integers(5, n, 16)
    ids = page.raw(6, 32 * n)
    entries, sizes = page.integers(7, n), page.integers(8, n)
    page.finish()
    return [Child((k, o), r, ids.take(32), e, s) for k, o, r, e, s in zip(keys, ordinals, ranks, entries, sizes)]


# Walks. They are generators of entries and extents whose return value sums a subtree up.


@dataclass(frozen=True)
class TreeSum:
    first: Order | None
    last: Order | None
    entries: int
    size: int


class TreeWalk:
    """Walks one tree in order; the shape rules of §10 are checked on the way."""

    def __init__(self, fetch: Fetch, boundary_key: bytes) -> None:
        self.fetch = fetch
        self.boundary_key = boundary_key
        self.previous: Order | None = None
        self.is_bucket = False
        self.above: list[bytes] = []  # the keys so far that the next one may begin with

    def run(self, root: bytes, level: int) -> Generator[Entry, None, TreeSum]:
        return (yield from self._node(root, level, last=True, root=True))

    def _node(self, chunk: bytes, level: int, *, last: bool, root: bool = False) -> Generator[Entry, None, TreeSum]:
        what = f"node {chunk.hex()[:16]} of level {level}"
        data = self.fetch(TREE_NODE if level else TREE_LEAF, chunk)
        if level == 0:
            return (yield from self._leaf(parse_leaf(data, what), what, last, root))
        children = parse_interior(data, level, what)
        if len(children) < (2 if root else 1):
            raise Damage(f"{what}: too few children")
        sums = []
        for child in children:
            before = self.previous
            is_last = last and child is children[-1]
            below = yield from self._node(child.chunk, level - 1, last=is_last)
            sums.append(below)
            if child.order != separator(before, below.first):
                raise Damage(f"{what}: the separator {child.order} is not the one between its neighbours")
            if (child.entries, child.size) != (below.entries, below.size):
                raise Damage(f"{what}: its counts and those of its child disagree")
            if child.rank != self._rank(below.last):
                raise Damage(f"{what}: a boundary rank that is not its child's")
        self._check_end([(child.order[0], child.rank) for child in children], level, last, what)
        size = sum(below.size for below in sums) & U64
        return TreeSum(sums[0].first, sums[-1].last, sum(below.entries for below in sums), size)

    def _leaf(self, entries: list[Entry], what: str, last: bool, root: bool) -> Generator[Entry, None, TreeSum]:
        if not entries and not root:
            raise Damage(f"{what}: an empty leaf")
        ranked = []
        for entry in entries:
            order = (entry.key, entry.ordinal)
            if self.previous is not None and order <= self.previous:
                raise Damage(f"{what}: entry {entry.key!r} is out of order")
            self._check_place(entry)
            self.previous = order
            ranked.append((entry.key, self._rank(order)))
            yield entry
        self._check_end(ranked, 0, last, what)
        first, last_order = ((e[0].key, e[0].ordinal) if e else None for e in (entries[:1], entries[-1:]))
        return TreeSum(first, last_order, len(entries), sum(entry.size for entry in entries) & U64)

    def _check_place(self, entry: Entry) -> None:
        """Checks that an entry's folder is an entry before it, and that its path is its alone."""
        if self.previous is None:
            self.is_bucket = entry.type == OBJECT
        if self.is_bucket != (entry.type == OBJECT):
            raise Damage(f"entry {entry.key!r}: objects and files in one tree")
        if self.is_bucket:
            return
        if self.previous is None:
            if entry.key:
                raise Damage(f"entry {entry.key!r}: the source itself is no entry before it")
            self.above = [b""] if entry.type == DIRECTORY else []
            return
        if not self.above:
            raise Damage(f"entry {entry.key!r}: in a source that is no folder")
        while not entry.key.startswith(self.above[-1]):
            self.above.pop()
        path = entry.key.removesuffix(b"/")
        if path[: path.rfind(b"/") + 1] not in self.above:
            raise Damage(f"entry {entry.key!r}: the folder that it is in is no entry before it")
        if entry.type == DIRECTORY and path in self.above:
            raise Damage(f"entry {entry.key!r}: the same path is another entry too")
        self.above.append(entry.key)

    def _rank(self, order: Order | None) -> int:
        assert order is not None, "only the root can be empty"
        key, ordinal = order
        material = len(key).to_bytes(4, "little") + key + ordinal.to_bytes(8, "little")
        h = int.from_bytes(blake3_keyed(self.boundary_key, material)[:8], "little")
        return min(16, (64 - h.bit_length()) // 4)

    @staticmethod
    def _check_end(items: list[tuple[bytes, int]], level: int, last: bool, what: str) -> None:
        """Checks that a node of (key, rank) items ends where §10 says, and not before or after."""
        key_bytes = 0
        for count, (key, rank) in enumerate(items, 1):
            key_bytes += len(key)
            long_keys = key_bytes >= 65536 and (level == 0 or count >= 16)
            ends = (count >= 16 and rank > level) or count == 512 or long_keys
            if ends and count < len(items):
                raise Damage(f"{what}: should have ended after {count} of its {len(items)} items")
            if not ends and count == len(items) and not last:
                raise Damage(f"{what}: ends after {count} items, where no boundary is")


def separator(before: Order | None, first: Order | None) -> Order:
    assert first is not None, "only the root can be empty"
    if before is None:
        return (b"", 0)
    if before[0] == first[0]:
        return first
    return (first[0][: _shared(before[0], first[0]) + 1], 0)


@dataclass(frozen=True)
class ListSum:
    rank: int
    extents: int
    length: int


class ListWalk:
    """Walks the list of one long file in order."""

    def __init__(self, fetch: Fetch) -> None:
        self.fetch = fetch
        self.previous_hole = False

    def run(self, root: bytes, level: int) -> Generator[Extent, None, ListSum]:
        return (yield from self._node(root, level, last=True, root=True))

    def _node(self, chunk: bytes, level: int, *, last: bool, root: bool = False) -> Generator[Extent, None, ListSum]:
        what = f"list node {chunk.hex()[:16]} of level {level}"
        page = Page(self.fetch(LIST_NODE if level else LIST_LEAF, chunk), level, 2048, what)
        n = page.items
        if n < (2 if root and level else 1):
            raise Damage(f"{what}: too few items")
        if level == 0:
            lengths = page.integers(1, n, default=False)
            ids = page.raw(2, 32 * sum(1 for length in lengths if length % 2 == 0))
            page.finish()
            sums = []
            for extent in [_extent(length, ids) for length in lengths]:
                _check_extents([extent], what)
                if self.previous_hole and not extent.chunk:
                    raise Damage(f"{what}: two holes in a row")
                self.previous_hole = not extent.chunk
                sums.append(ListSum(_list_rank(extent), 1, extent.length))
                yield extent
        else:
            ids = page.raw(1, 32 * n)
            lengths, counts = page.integers(2, n, default=False), page.integers(3, n, default=False)
            page.finish()
            sums = []
            for position in range(n):
                below = yield from self._node(ids.take(32), level - 1, last=last and position == n - 1)
                if (below.length, below.extents) != (lengths[position], counts[position]):
                    raise Damage(f"{what}: its counts and those of its child disagree")
                sums.append(below)
        for count, item in enumerate(sums, 1):
            ends = (count >= 64 and item.rank > level) or count == 2048
            if ends != (count == n) and not (count == n and last):
                raise Damage(f"{what}: does not end where the list's rule says")
        return ListSum(sums[-1].rank, sum(s.extents for s in sums), sum(s.length for s in sums))


def _list_rank(extent: Extent) -> int:
    if extent.chunk is None:
        return 0
    return min(10, (64 - int.from_bytes(extent.chunk[:8], "big").bit_length()) // 6)


def extents_of(entry: Entry, fetch: Fetch) -> Generator[Extent, None, Any]:
    """Yields an entry's extents and checks that they add up to its size."""
    if entry.list_root is None:
        yield from entry.extents or []
        return
    total = yield from ListWalk(fetch).run(*entry.list_root)
    if total.length != entry.size:
        raise Damage(f"entry {entry.key!r}: its list holds {total.length} bytes instead of {entry.size}")
    if total.extents <= INLINE_EXTENTS:
        raise Damage(f"entry {entry.key!r}: a list of only {total.extents} extents")
