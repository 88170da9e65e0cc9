"""Backs a bucket of many small objects up, and restores it, beside bare requests to the same server.

Prints Markdown: what the first and the unchanged run cost, what changes cost, and at which rate objects are restored.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path

MIB = 1 << 20
OBJECT_BYTES = 4096


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--larder", type=Path, required=True)
    parser.add_argument("--server", type=Path, required=True, help="the example s3_server of benches")
    parser.add_argument("--bare", type=Path, required=True, help="the example bare_bucket of benches")
    parser.add_argument("--objects", type=int, default=1_000_000)
    parser.add_argument("--restored", type=int, default=100_000)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--scratch", type=Path, default=Path("/dev/shm"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        with Server(options.server) as server:
            Bench(options, server, Path(scratch)).run()


class Server:
    """A server in memory: empty at first, ended with the block."""

    def __init__(self, program: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.process = subprocess.Popen([program, str(self.port)])

    def __enter__(self) -> Server:
        for _ in range(500):
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return self
            except OSError:
                time.sleep(0.02)
        raise RuntimeError("the server does not answer")

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()

    def post(self, path: str) -> None:
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/{path}", method="POST")
        urllib.request.urlopen(request).read()

    def counts(self) -> dict[str, int]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/_counts") as answer:
            return json.loads(answer.read())


class Bench:
    def __init__(self, options: argparse.Namespace, server: Server, scratch: Path) -> None:
        self.options, self.server, self.scratch = options, server, scratch
        self.environment = {
            **os.environ,
            "HOME": str(scratch),
            "LARDER_KEY_FILE": str(scratch / "key"),
            "AWS_ACCESS_KEY_ID": "bench",
            "AWS_SECRET_ACCESS_KEY": "bench",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.port}",
            "AWS_REGION": "us-east-1",
            "AWS_ALLOW_HTTP": "true",
        }

    def run(self) -> None:
        count, server = self.options.objects, self.server
        self.larder("key", "generate", str(self.scratch / "key"))
        self.larder("init")
        server.post(f"_fill?bucket=source&count={count}&bytes={OBJECT_BYTES}")
        print(f"{count:,} objects of {OBJECT_BYTES} bytes of noise; the server is in memory and on the same two cores.\n")
        print("| | s | s of CPU | MiB of memory at most | GETs | bytes written |")
        print("| --- | ---: | ---: | ---: | ---: | ---: |")
        self.row("first backup", self.backup())
        pairs = [(self.timed([self.options.bare, "list", "s3://source"]), self.backup()) for _ in range(self.options.pairs)]
        listing = median([bare["s"] for bare, _ in pairs])
        unchanged = sorted((run for _, run in pairs), key=lambda run: run["s"])[len(pairs) // 2]
        self.row("unchanged", unchanged)
        changed = count // 100
        size = f"count={changed}&bytes={OBJECT_BYTES}"
        server.post(f"_change?bucket=source&first=7&step=100&{size}")
        scattered = self.backup()
        self.row("1 % changed, scattered", scattered)
        server.post(f"_change?bucket=source&first={count // 2}&step=1&{size}")
        clustered = self.backup()
        self.row("1 % changed, in one place", clustered)
        print(f"\nThe listing alone takes {listing:.1f} s, an unchanged run {unchanged['s'] / listing:.2f} times that.")
        for name, run in (("scattered", scattered), ("in one place", clustered)):
            metadata = (run["written"] - changed * OBJECT_BYTES) / changed
            print(f"Besides its bytes a changed object costs {metadata:,.0f} bytes where changes are {name}.")
        self.restore()

    def restore(self) -> None:
        count = self.options.restored
        self.server.post(f"_fill?bucket=small&count={count}&bytes={OBJECT_BYTES}")
        self.backup("s3://small")
        bare, restored = [], []
        for number in range(self.options.pairs):
            bare.append(self.timed([self.options.bare, "put", f"s3://bare-{number}", str(count), str(OBJECT_BYTES)])["s"])
            words = ["restore", "latest:s3://small", "--path", "s3://small", "--target", f"s3://target-{number}"]
            restored.append(self.timed([self.options.larder, "-q", "-r", str(self.scratch / "repository"), *words])["s"])
        rate = median(bare) / median(restored)
        print(f"Restoring {count:,} objects into a bucket runs at {rate:.2f} of the rate of bare PUTs ({count / median(bare):,.0f} a second).")

    def larder(self, *words: str) -> None:
        subprocess.run(
            [self.options.larder, "-q", "-r", self.scratch / "repository", *words], env=self.environment, check=True
        )

    def backup(self, source: str = "s3://source") -> dict:
        before = self.stored()
        self.server.post("_reset")
        command = [self.options.larder, "-q", "-r", self.scratch / "repository", "backup", source]
        run = self.timed(command)
        run["gets"] = self.server.counts().get("get", 0)
        run["written"] = self.stored() - before
        return run

    def stored(self) -> int:
        files = (self.scratch / "repository").rglob("*")
        return sum(file.stat().st_size for file in files if file.is_file())

    def timed(self, command: list) -> dict:
        start = time.monotonic()
        process = subprocess.Popen(command, env=self.environment, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
        if process.returncode != 0:
            raise RuntimeError(f"{command} ended with {process.returncode}")
        return {
            "s": time.monotonic() - start,
            "cpu": usage.ru_utime + usage.ru_stime,
            "mib": usage.ru_maxrss * 1024 / MIB,
        }

    def row(self, name: str, run: dict) -> None:
        print(
            f"| {name} | {run['s']:.1f} | {run['cpu']:.1f} | {run['mib']:.0f} | {run['gets']:,} | {run['written']:,} |",
            flush=True,
        )


def median(values: list[float]) -> float:
    return sorted(values)[len(values) // 2]


if __name__ == "__main__":
    main()
