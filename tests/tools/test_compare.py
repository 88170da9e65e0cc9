"""Tests of the comparison, the awkward tree and the edits: what they stand on must be sure."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import subprocess
import sys
import tempfile
import unittest
from collections.abc import Callable

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))

import awkward
import edits
from compare import Options, compare

ROOT = os.geteuid() == 0
CP_CANNOT: frozenset[bytes] = frozenset(
    # GNU cp opens long paths by name, and stops where they pass PATH_MAX.
    [b"deep"]
    # An ordinary user's cp reads neither of these.
    + ([] if ROOT else [b"closed", b"modes/file-0000", b"modes/file-0001", b"modes/file-0007", b"modes/file-0070"])
    + ([] if ROOT else [b"modes/file-0111", b"modes/file-0222"])
)


def replace(path: bytes, make: Callable[[bytes], object]) -> None:
    found = os.lstat(path)
    os.unlink(path)
    make(path)
    if not stat.S_ISLNK(found.st_mode):
        os.chmod(path, stat.S_IMODE(found.st_mode))
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns), follow_symlinks=False)


def write(path: bytes, content: bytes, offset: int = 0) -> None:
    found = os.stat(path)
    with open(path, "r+b") as file:
        file.seek(offset)
        file.write(content)
    os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


def put(path: bytes) -> None:
    with open(path, "xb") as file:
        file.write(b"1234")



# (name, change, the only line's beginning): each change alone must give exactly one line.
MUTATIONS: list[tuple[str, Callable[[bytes], object], str]] = [
    ("a byte", lambda d: write(d + b"/file", b"X", 700_001), "file: content from byte 700001"),
    ("the last byte", lambda d: write(d + b"/file", b"X", 1_500_000 - 1), "file: content from byte 1499999"),
    ("a byte behind a hole", lambda d: write(d + b"/holes", b"X", 5 << 20), "holes: content from byte 5242880"),
    ("size", lambda d: write(d + b"/file", b"X", 1_500_000), "file: size"),
    ("a hole filled", lambda d: write(d + b"/holes", bytes(1 << 20), 0), "holes: bytes on disk"),
    ("mode", lambda d: os.chmod(d + b"/file", 0o600), "file: mode"),
    ("setuid", lambda d: os.chmod(d + b"/file", 0o4644), "file: mode"),
    ("mode of a folder", lambda d: os.chmod(d + b"/folder", 0o700), "folder: mode"),
    ("mode of the root", lambda d: os.chmod(d, 0o711), ".: mode"),
    ("a nanosecond", lambda d: os.utime(d + b"/file", ns=(5, 1001)), "file: mtime"),
    ("mtime of a symlink", lambda d: os.utime(d + b"/link", ns=(5, 7), follow_symlinks=False), "link: mtime"),
    ("mtime of a folder", lambda d: os.utime(d + b"/folder", ns=(5, 7)), "folder: mtime"),
    ("mtime of a fifo", lambda d: os.utime(d + b"/fifo", ns=(5, 7)), "fifo: mtime"),
    ("mtime of the root", lambda d: os.utime(d, ns=(5, 7)), ".: mtime"),
    ("target", lambda d: replace(d + b"/link", lambda p: os.symlink(b"else", p)), "link: target"),
    ("type", lambda d: replace(d + b"/fifo", put), "fifo: type"),
    ("an attribute", lambda d: os.setxattr(d + b"/file", b"user.a", b"2"), "file: attribute b'user.a'"),
    ("attribute more", lambda d: os.setxattr(d + b"/file", b"user.b", b""), "file: attribute b'user.b'"),
    ("attribute less", lambda d: os.removexattr(d + b"/file", b"user.a"), "file: attribute b'user.a'"),
    ("attribute of the root", lambda d: os.setxattr(d, b"user.b", b""), ".: attribute b'user.b'"),
    ("a file more", lambda d: put(d + b"/folder/\xff\n"), "folder/\\udcff\\n: only in the second"),
    ("a file less", lambda d: os.unlink(d + b"/folder/inside"), "folder/inside: only in the first"),
    ("link broken", lambda d: replace(d + b"/hard-2", put), "hard-1: hard-linked so only in the first"),
    ("link made", lambda d: replace(d + b"/same", lambda p: os.link(d + b"/folder/inside", p)), "folder/inside: hard"),
]
ROOT_MUTATIONS: list[tuple[str, Callable[[bytes], object], str]] = [
    ("owner", lambda d: os.chown(d + b"/file", 5, 0), "file: owner"),
    ("group of a symlink", lambda d: os.chown(d + b"/link", 0, 5, follow_symlinks=False), "link: owner"),
    ("trusted", lambda d: os.setxattr(d + b"/fifo", b"trusted.a", b""), "fifo: attribute b'trusted.a'"),
    (
        "device number",
        lambda d: replace(d + b"/null", lambda p: os.mknod(p, stat.S_IFCHR | 0o600, os.makedev(1, 5))),
        "null: device number",
    ),
]


class Scratch(unittest.TestCase):
    def setUp(self) -> None:
        self.folder = os.fsencode(tempfile.mkdtemp())
        self.addCleanup(awkward.remove, self.folder)


class SingleDifferences(Scratch):
    def make(self, name: bytes) -> bytes:
        top = os.path.join(self.folder, name)
        os.makedirs(top + b"/folder")
        with open(top + b"/file", "wb") as file:
            file.write(b"ab" * 750_000)
        with open(top + b"/holes", "wb") as file:
            file.seek(5 << 20)
            file.write(b"after")
        for path in (b"/folder/inside", b"/hard-1", b"/same"):
            put(top + path)
        os.link(top + b"/hard-1", top + b"/hard-2")
        os.symlink(b"where", top + b"/link")
        os.mkfifo(top + b"/fifo", 0o644)
        if ROOT:
            os.mknod(top + b"/null", stat.S_IFCHR | 0o600, os.makedev(1, 3))
        os.setxattr(top + b"/file", b"user.a", b"1")
        for folder, folders, files in os.walk(top, topdown=False):
            for path in folders + files:
                os.utime(os.path.join(folder, path), ns=(5, 1000), follow_symlinks=False)
        os.utime(top, ns=(5, 1000))
        return top

    def test_equal_trees_are_equal(self) -> None:
        first, second = self.make(b"a"), self.make(b"b")
        self.assertEqual(list(compare(first, second, Options(holes=True, atime=False))), [])
        self.assertEqual(run("compare.py", first, second), (0, ""))

    def test_each_single_difference_is_one_line(self) -> None:
        first = self.make(b"a")
        for number, (name, change, expected) in enumerate(MUTATIONS + (ROOT_MUTATIONS if ROOT else [])):
            with self.subTest(name):
                second = self.make(b"b%d" % number)
                folders = [second, second + b"/folder"]
                before = [os.stat(path).st_mtime_ns for path in folders]
                change(second)
                if not name.startswith("mtime"):
                    for path, moment in zip(folders, before):
                        os.utime(path, ns=(5, moment))
                    for path in (b"/hard-1", b"/same", b"/hard-2"):
                        os.utime(second + path, ns=(5, 1000))
                lines = list(compare(first, second, Options(holes=True)))
                self.assertEqual(len(lines), 1, lines)
                self.assertTrue(lines[0].startswith(expected), lines)
                self.assertEqual(len(list(compare(second, first, Options(holes=True)))), 1)
                self.assertEqual(run("compare.py", first, second, "--holes")[0], 1)

    def test_what_is_left_out_is_not_compared(self) -> None:
        first, second = self.make(b"a"), self.make(b"b")
        os.utime(second, ns=(5, 7))
        os.setxattr(second + b"/file", b"user.b", b"")
        os.unlink(second + b"/fifo")
        os.utime(second, ns=(5, 7))
        options = ("--ignore-dir-mtime-of-root", "--skip-xattr", "user.b", "--exclude", "fifo")
        self.assertEqual(run("compare.py", first, second, *options), (0, ""))
        self.assertEqual(len(run("compare.py", first, second)[1].splitlines()), 3)


class AwkwardTree(Scratch):
    def make(self, name: bytes, seed: int = 1) -> bytes:
        top = os.path.join(self.folder, name)
        with contextlib.redirect_stdout(io.StringIO()):
            awkward.make(top, seed, small=True)
        return top

    def test_the_same_seed_makes_the_same_tree(self) -> None:
        first, second = self.make(b"a"), self.make(b"b")
        self.assertEqual(list(compare(first, second, Options(holes=True, allow_unreadable=True))), [])
        other = list(compare(first, self.make(b"c", 2), Options(allow_unreadable=True)))
        self.assertTrue(other)
        self.assertTrue(all("content" in line or "attribute" in line for line in other), other)

    def test_paths_beyond_path_max_are_compared(self) -> None:
        first, second = self.make(b"a"), self.make(b"b")
        folder = os.open(second + b"/deep", os.O_RDONLY)
        for _ in range(awkward.DEEP_LEVELS):
            below = os.open(awkward.DEEP_NAME, os.O_RDONLY, dir_fd=folder)
            os.close(folder)
            folder = below
        os.chmod(b"bottom", 0o600, dir_fd=folder)
        os.close(folder)
        lines = list(compare(first, second, Options(allow_unreadable=True)))
        self.assertEqual([line.rpartition("/")[2] for line in lines], [
            "bottom: mode: 0o644 | 0o600", "bottom-again: mode: 0o644 | 0o600",
        ])  # fmt: skip

    def test_a_copy_by_cp_is_equal(self) -> None:
        first, second = self.make(b"a"), os.path.join(self.folder, b"b")
        subprocess.run(["cp", "-a", "--sparse=always", first, second], capture_output=True)
        lines = list(compare(first, second, Options(exclude=CP_CANNOT)))
        self.assertEqual(lines, [])


class Edits(Scratch):
    def test_the_same_seed_makes_the_same_edits(self) -> None:
        tops = [os.path.join(self.folder, name) for name in (b"a", b"b", b"untouched")]
        printed = []
        for top in tops:
            with contextlib.redirect_stdout(io.StringIO()):
                awkward.make(top, 1, small=True)
        for top in tops[:2]:
            with contextlib.redirect_stdout(io.StringIO()) as out:
                edits.Editor(top, 5).run(150)
            printed.append(out.getvalue())
        self.assertEqual(printed[0], printed[1])
        kinds = {line.split()[0] for line in printed[0].splitlines()}
        self.assertGreater(len(kinds), 14)
        options = Options(allow_unreadable=True)
        self.assertEqual(list(compare(tops[0], tops[1], options)), [])
        self.assertGreater(len(list(compare(tops[0], tops[2], options))), 50)


def run(tool: str, *arguments: bytes | str) -> tuple[int, str]:
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), tool)
    done = subprocess.run([sys.executable, path, *arguments], capture_output=True)
    return done.returncode, done.stdout.decode()


if __name__ == "__main__":
    unittest.main()
