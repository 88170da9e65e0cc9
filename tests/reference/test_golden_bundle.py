"""Reads the golden bundle with the reference reader, and compares with what the golden sources held."""

from __future__ import annotations

import json
import os
import unittest

from bundle import START, Bundle
from test_golden import GOLDEN, Comparing, run

BUNDLE = os.path.join(os.path.dirname(GOLDEN), "golden-bundle", "v1.bundle")
VERSION = "v1"


class GoldenBundle(Comparing):
    def secret(self) -> tuple[str, str]:
        """Returns the raw key of the golden repository, which opens the bundle, too."""
        return next(one for one in self.secrets(self.expected(VERSION)) if one[0] == "--key-file")

    def test_it_verifies(self) -> None:
        self.assertEqual(run("scrub", BUNDLE), (0, "", []))
        self.assertEqual(run("verify", BUNDLE, *self.secret()), (0, "", []))

    def test_snapshots_hold_what_their_sources_held(self) -> None:
        wanted_all = [one for one in self.expected(VERSION)["snapshots"] if one["kind"] == "complete"]
        listed = json.loads(run("list", BUNDLE, *self.secret())[1])
        self.assertEqual(len(listed), len(wanted_all))
        for snapshot, wanted in zip(listed, wanted_all):
            self.assertEqual(snapshot["tags"], wanted["tags"])
            self.assertEqual([source["path"] for source in snapshot["sources"]], list(wanted["sources"]))
            for source, entries in wanted["sources"].items():
                where = (BUNDLE, snapshot["id"], source, *self.secret())
                self.compare(where, entries, partial=False)

    def test_what_is_cut_off_put_in_moved_or_altered_is_refused(self) -> None:
        with open(BUNDLE, "rb") as file:
            whole = file.read()
        bundle = Bundle(BUNDLE)
        spans = sorted([*bundle.spans.values(), bundle.end])
        heads = [len(START), *(start + length for start, length in spans[:-1])]
        frames = [whole[head : start + length] for head, (start, length) in zip(heads, spans)]
        self.assertEqual(START + b"".join(frames), whole)
        bad = [whole[:cut] for head in heads for cut in (head - 1, head, head + 1)]
        bad += [whole[:-1], whole + b"x", whole + frames[-1]]
        for at in range(len(frames)):
            without, doubled, moved = frames[:], frames[:], frames[:]
            del without[at]
            doubled.insert(at, frames[at])
            moved[at - 1], moved[at] = moved[at], moved[at - 1]
            bad += [START + b"".join(each) for each in (without, doubled, moved)]
        for head, (start, length) in zip(heads, spans):
            for at in (head, start - 1, start - 9, start, start + length // 2, start + length - 1):
                bad.append(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        path = os.path.join(self.folder, "bad.bundle")
        for data in bad:
            with open(path, "wb") as file:
                file.write(data)
            codes = (run("verify", path, *self.secret())[0], run("scrub", path)[0])
            self.assertEqual(codes[0], 1, f"{len(data)} bytes")


if __name__ == "__main__":
    unittest.main()
