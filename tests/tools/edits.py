#!/usr/bin/env python3
"""Edits a tree at random, but the same seed makes the same edits to the same tree.

Prints a line for each edit. Modification times of all that is touched follow from the seed too.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import stat
import sys
from collections.abc import Callable

LONGEST_PATH = 2000
BASE_NS = 1_750_000_000 * 10**9


class Nothing(Exception):
    """The tree holds nothing that this kind of edit could be done to."""


class Editor:
    """Holds what the tree consists of at the moment, sorted, so that choices repeat."""

    def __init__(self, top: bytes, seed: int) -> None:
        self.top = top
        self.chance = random.Random(seed)
        self.seed = seed
        self.step = 0
        self.paths: dict[int, list[bytes]] = {}

    def run(self, count: int) -> None:
        edits: list[Callable[[], str]] = [
            self.change_bytes, self.change_bytes, self.append, self.truncate, self.insert, self.rewrite, self.new_file,
            self.new_file, self.new_folder, self.move, self.move_folder, self.delete, self.delete_folder, self.mode,
            self.mtime, self.retarget, self.file_to_folder, self.folder_to_file, self.new_hard_link, self.copy,
            self.punch,
        ]  # fmt: skip
        done = 0
        while done < count:
            self.step += 1
            self._scan()
            edit = self.chance.choice(edits)
            try:
                what = edit()
            except Nothing:
                continue
            print(f"{edit.__name__} {what}")
            done += 1

    def change_bytes(self) -> str:
        path = self._pick(stat.S_IFREG, nonempty=True)
        size = os.stat(path).st_size
        offset = self.chance.randrange(size)
        content = self._bytes(min(self.chance.randint(1, 5000), size - offset))
        with open(path, "r+b") as file:
            file.seek(offset)
            file.write(content)
        return self._touched(path)

    def append(self) -> str:
        path = self._pick(stat.S_IFREG)
        with open(path, "ab") as file:
            file.write(self._bytes(self.chance.randint(1, 100_000)))
        return self._touched(path)

    def truncate(self) -> str:
        path = self._pick(stat.S_IFREG, nonempty=True)
        os.truncate(path, self.chance.randrange(os.stat(path).st_size))
        return self._touched(path)

    def insert(self) -> str:
        """Moves what follows, as an editor does: chunk boundaries must find themselves again."""
        path = self._pick(stat.S_IFREG, nonempty=True, largest=64 << 20)
        with open(path, "r+b") as file:
            content = file.read()
            at = self.chance.randrange(len(content))
            file.seek(at)
            file.write(self._bytes(self.chance.randint(1, 300)) + content[at:])
        return self._touched(path)

    def rewrite(self) -> str:
        """Changes a file's content but neither its size nor its modification time."""
        path = self._pick(stat.S_IFREG, nonempty=True, largest=8 << 20)
        before = os.stat(path)
        with open(path, "r+b") as file:
            file.write(self._bytes(before.st_size))
        os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
        return self._shown(path)

    def new_file(self) -> str:
        path = self._new_path(b"new-file")
        size = self.chance.choice((0, 1, 300, 5000, 300_000, 3_000_000))
        with open(path, "xb") as file:
            file.write(self._bytes(self.chance.randint(0, size)))
        os.chmod(path, 0o644)
        return self._touched(path)

    def new_folder(self) -> str:
        path = self._new_path(b"new-folder")
        os.mkdir(path)
        for number in range(self.chance.randrange(5)):
            inside = os.path.join(path, b"inside-%d" % number)
            with open(inside, "xb") as file:
                file.write(self._bytes(self.chance.randint(0, 10_000)))
            os.chmod(inside, 0o644)
            self._touched(inside)
        os.chmod(path, 0o755)
        return self._touched(path)

    def move(self) -> str:
        path, to = self._pick(stat.S_IFREG), self._new_path(b"moved")
        os.rename(path, to)
        self._settle(os.path.dirname(path))
        self._settle(os.path.dirname(to))
        return f"{self._shown(path)} to {self._shown(to)}"

    def move_folder(self) -> str:
        path, to = self._pick(stat.S_IFDIR), self._new_path(b"moved-folder")
        if to.startswith(path + b"/"):
            raise Nothing
        os.rename(path, to)
        self._settle(os.path.dirname(path))
        self._settle(os.path.dirname(to))
        return f"{self._shown(path)} to {self._shown(to)}"

    def delete(self) -> str:
        path = self._pick(self.chance.choice((stat.S_IFREG, stat.S_IFLNK, stat.S_IFIFO)))
        os.unlink(path)
        return self._gone(path)

    def delete_folder(self) -> str:
        path = self._small_folder()
        shutil.rmtree(path)
        return self._gone(path)

    def mode(self) -> str:
        path = self._pick(self.chance.choice((stat.S_IFREG, stat.S_IFDIR)))
        mode = self.chance.choice((0o600, 0o640, 0o644, 0o700, 0o755, 0o1777, 0o4755))
        os.chmod(path, mode | (0o700 if os.path.isdir(path) else 0o600))
        return f"{self._shown(path)} to {mode:o}"

    def mtime(self) -> str:
        path = self._pick(self.chance.choice((stat.S_IFREG, stat.S_IFDIR, stat.S_IFLNK)))
        self._settle(path)
        return self._shown(path)

    def retarget(self) -> str:
        path = self._pick(stat.S_IFLNK)
        os.unlink(path)
        os.symlink(b"target-%d-%d" % (self.seed, self.step), path)
        return self._touched(path)

    def file_to_folder(self) -> str:
        path = self._pick(stat.S_IFREG)
        os.unlink(path)
        os.mkdir(path)
        os.chmod(path, 0o755)
        inside = os.path.join(path, b"was-a-file")
        with open(inside, "xb") as file:
            file.write(self._bytes(100))
        os.chmod(inside, 0o644)
        self._touched(inside)
        return self._touched(path)

    def folder_to_file(self) -> str:
        path = self._small_folder()
        shutil.rmtree(path)
        with open(path, "xb") as file:
            file.write(self._bytes(1000))
        os.chmod(path, 0o644)
        return self._touched(path)

    def new_hard_link(self) -> str:
        path, to = self._pick(stat.S_IFREG), self._new_path(b"hard-link")
        os.link(path, to)
        self._settle(os.path.dirname(to))
        return f"{self._shown(path)} as {self._shown(to)}"

    def copy(self) -> str:
        path, to = self._pick(stat.S_IFREG, largest=64 << 20), self._new_path(b"copy")
        shutil.copyfile(path, to)
        os.chmod(to, 0o644)
        return self._touched(to)

    def punch(self) -> str:
        """Grows a file by a hole with something behind it."""
        path = self._pick(stat.S_IFREG, largest=64 << 20)
        with open(path, "r+b") as file:
            file.seek(self.chance.randint(1, 4 << 20), os.SEEK_END)
            file.write(b"behind the hole")
        return self._touched(path)

    def _scan(self) -> None:
        """Lists what can be edited. What lies deeper than a path reaches is left alone."""
        self.paths = {}
        for folder, folders, files in os.walk(self.top):
            folders[:] = [name for name in folders if len(folder) + len(name) < LONGEST_PATH]
            for name in folders + files:
                path = os.path.join(folder, name)
                if len(path) < LONGEST_PATH:
                    self.paths.setdefault(stat.S_IFMT(os.lstat(path).st_mode), []).append(path)
        for paths in self.paths.values():
            paths.sort()

    def _pick(self, kind: int, *, nonempty: bool = False, largest: int = 1 << 30) -> bytes:
        for _ in range(20):
            if not self.paths.get(kind):
                raise Nothing
            path = self.chance.choice(self.paths[kind])
            found = os.lstat(path)
            fits = (found.st_size > 0 or not nonempty) and found.st_size <= largest
            if kind != stat.S_IFREG or (fits and os.access(path, os.R_OK | os.W_OK)):
                folders = [os.path.dirname(path)] + ([path] if kind == stat.S_IFDIR else [])
                if all(os.access(folder, os.W_OK | os.X_OK) for folder in folders):
                    return path
        raise Nothing

    def _small_folder(self) -> bytes:
        """Picks a folder that can go without taking half of the tree with it."""
        path = self._pick(stat.S_IFDIR)
        inside = 0
        for folder, folders, files in os.walk(path):
            inside += len(folders) + len(files)
            if not os.access(folder, os.R_OK | os.W_OK | os.X_OK):
                raise Nothing
        if inside > 50:
            raise Nothing
        return path

    def _new_path(self, name: bytes) -> bytes:
        folders = [path for path in self.paths.get(stat.S_IFDIR, []) if os.access(path, os.W_OK | os.X_OK)]
        folder = self.chance.choice([self.top, *folders])
        return os.path.join(folder, b"%s-%d-%d" % (name, self.seed, self.step))

    def _bytes(self, count: int) -> bytes:
        if self.chance.random() < 0.5:
            return self.chance.randbytes(count)
        words = b"the same words again, number %d; " % self.step
        return (words * (count // len(words) + 1))[:count]

    def _gone(self, path: bytes) -> str:
        self._settle(os.path.dirname(path))
        return self._shown(path)

    def _touched(self, path: bytes) -> str:
        self._settle(path)
        self._settle(os.path.dirname(path))
        return self._shown(path)

    def _settle(self, path: bytes) -> None:
        moment = BASE_NS + self.seed * 10**13 + self.step * 1_000_000_007
        os.utime(path, ns=(moment, moment), follow_symlinks=False)

    def _shown(self, path: bytes) -> str:
        relative = os.fsdecode(os.path.relpath(path, self.top))
        return relative.encode("unicode_escape", "backslashreplace").decode("ascii")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("dir")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--count", type=int, default=100)
    arguments = parser.parse_args()
    before = os.umask(0o022)
    Editor(os.fsencode(os.path.abspath(arguments.dir)), arguments.seed).run(arguments.count)
    os.umask(before)
    return 0


if __name__ == "__main__":
    sys.exit(main())
