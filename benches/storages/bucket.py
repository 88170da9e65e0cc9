"""Backs up to a bucket with latency and errors, beside the same transfer by PUT and GET alone.

Prints a Markdown table: seconds of larder, of restic if it is named, and of the bare transfer in
the same run, and the requests that each needed for a GiB.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import random
import shutil
import socket
import subprocess
import tempfile
import threading
import time
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

MIB = 1 << 20
OBJECT_BYTES = 24 * MIB
PASSWORD = "benchmark"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--larder", type=Path, required=True)
    parser.add_argument("--server", type=Path, required=True, help="the example s3_server of benches")
    parser.add_argument("--restic", type=Path)
    parser.add_argument("--mib", type=int, default=1024, help="size of the source")
    parser.add_argument("--latency-ms", type=int, default=20)
    parser.add_argument("--errors", type=float, default=0.01)
    parser.add_argument("--connections", type=int, default=4, help="of the bare transfer")
    parser.add_argument("--scratch", type=Path, default=Path("/dev/shm"))
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.scratch) as scratch:
        measure(options, Path(scratch))


def measure(options: argparse.Namespace, scratch: Path) -> None:
    source = scratch / "source"
    make_source(source, options.mib)
    rows = [bare(options)]
    rows.append(tool(options, scratch, source, "larder", larder_commands(options)))
    if options.restic:
        rows.append(tool(options, scratch, source, "restic", restic_commands(options)))
    print(
        f"{options.mib} MiB of noise in files of 4 MiB; each request takes {options.latency_ms} ms more,"
        f" {options.errors:.1%} of them answer 503.\n"
    )
    print("| | write, s | read, s | requests to write a GiB | to read one | bytes sent / stored |")
    print("| --- | ---: | ---: | ---: | ---: | ---: |")
    gib = options.mib / 1024
    for row in rows:
        requests = [sum_requests(row[step]) / gib for step in ("write", "read")]
        print(
            f"| {row['name']} | {row['write_s']:.2f} | {row['read_s']:.2f} |"
            f" {requests[0]:.0f} | {requests[1]:.0f} | {row['write']['received_bytes'] / (options.mib * MIB):.3f} |"
        )
    for row in rows[1:]:
        print(
            f"\n{row['name']}: {rows[0]['write_s'] / row['write_s']:.2f} of the rate of bare PUTs,"
            f" {rows[0]['read_s'] / row['read_s']:.2f} of that of bare GETs"
        )


def make_source(source: Path, mib: int) -> None:
    source.mkdir()
    noise = random.Random(1)
    for number in range(mib // 4):
        (source / f"{number:05}").write_bytes(noise.randbytes(4 * MIB))


class Server:
    """The server of a run: empty at first, ended with the block."""

    def __init__(self, options: argparse.Namespace) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        arguments = [str(self.port), "--latency-ms", str(options.latency_ms), "--errors", str(options.errors)]
        self.process = subprocess.Popen([options.server, *arguments])

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

    def ask(self, path: str) -> bytes:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{path}") as answer:
            return answer.read()

    def counts(self) -> dict[str, int]:
        return json.loads(self.ask("_counts"))


def sum_requests(counts: dict[str, int]) -> int:
    return sum(counts.get(kind, 0) for kind in ("get", "put", "head", "list", "delete", "post"))


def bare(options: argparse.Namespace) -> dict:
    body = os.urandom(OBJECT_BYTES)
    total = options.mib * MIB
    sizes = [OBJECT_BYTES] * (total // OBJECT_BYTES)
    if total % OBJECT_BYTES:
        sizes.append(total % OBJECT_BYTES)
    local = threading.local()

    with Server(options) as server:

        def send(method: str, number: int, size: int) -> None:
            data = memoryview(body)[:size] if method == "PUT" else None
            while True:
                connection = getattr(local, "connection", None)
                if connection is None:
                    connection = local.connection = http.client.HTTPConnection("127.0.0.1", server.port)
                connection.request(method, f"/bench/bare/{number}", body=data)
                answer = connection.getresponse()
                while answer.readinto(bytearray(MIB)):
                    pass
                if answer.status < 300:
                    return

        row: dict = {"name": f"{options.connections} connections alone"}
        for step, method in (("write", "PUT"), ("read", "GET")):
            server.ask("_reset")
            start = time.monotonic()
            with ThreadPoolExecutor(options.connections) as pool:
                list(pool.map(lambda item, method=method: send(method, *item), enumerate(sizes)))
            row[f"{step}_s"] = time.monotonic() - start
            row[step] = server.counts()
        return row


def larder_commands(options: argparse.Namespace) -> dict:
    def say(port: int, scratch: Path, *words: str) -> list[str]:
        return [
            str(options.larder), "-q", "-r", "s3://bench/larder", "--cache-dir", str(scratch / "cache"),
            "--set", f"endpoint=http://127.0.0.1:{port}", "--set", "access-key-id=bench", *words,
        ]

    return {
        "environment": {"LARDER_PASSWORD": PASSWORD, "LARDER_STORAGE_SECRET_ACCESS_KEY": "bench"},
        "init": lambda port, scratch, _: say(port, scratch, "init"),
        "write": lambda port, scratch, source: say(port, scratch, "backup", str(source)),
        "read": lambda port, scratch, _: say(port, scratch, "restore", "latest", "--target", str(scratch / "target")),
    }


def restic_commands(options: argparse.Namespace) -> dict:
    def say(port: int, scratch: Path, *words: str) -> list[str]:
        location = f"s3:http://127.0.0.1:{port}/bench/restic"
        return [str(options.restic), "-q", "-r", location, "--cache-dir", str(scratch / "cache"), *words]

    return {
        "environment": {
            "RESTIC_PASSWORD": PASSWORD, "AWS_ACCESS_KEY_ID": "bench", "AWS_SECRET_ACCESS_KEY": "bench",
        },
        "init": lambda port, scratch, _: say(port, scratch, "init"),
        "write": lambda port, scratch, source: say(port, scratch, "backup", str(source)),
        "read": lambda port, scratch, _: say(port, scratch, "restore", "latest", "--target", str(scratch / "target")),
    }


def tool(options: argparse.Namespace, scratch: Path, source: Path, name: str, commands: dict) -> dict:
    own = scratch / name
    own.mkdir()
    environment = {**os.environ, **commands["environment"], "HOME": str(own)}
    row: dict = {"name": name}
    with Server(options) as server:

        def run(step: str) -> float:
            command = commands[step](server.port, own, source)
            start = time.monotonic()
            subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL)
            return time.monotonic() - start

        run("init")
        for step in ("write", "read"):
            server.ask("_reset")
            row[f"{step}_s"] = run(step)
            row[step] = server.counts()
    restored = own / "target" / source.relative_to("/")
    subprocess.run(["diff", "-r", str(source), str(restored)], check=True)
    shutil.rmtree(own)
    return row


if __name__ == "__main__":
    main()
