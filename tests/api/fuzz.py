"""Fuzzes the HTTP API of a real service over a real repository, by what its OpenAPI document says, with tokens of every scope.

    fuzz.py PROGRAM [EXAMPLES]

Schemathesis, which lies beside the Python that runs this, makes requests that fit the document and requests that do not, and
holds each answer against it: no 5xx, no status, type, header or body that the document does not have, and nothing that does
not fit it is taken. The seed is fixed. All of it happens in a temporary folder, and the service may touch nothing else.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

SEED = "8"
EXAMPLES = 6
# Requests that take longer than this are a fault; a machine may be slow.
SECONDS_MAX = "60"
PASSWORD = "a password for the tests alone"
SCOPES = ("portable", "read-only", "backup-only", "operate", "admin")

# What a request names, so that it is not always something that is not there. What is changed and removed lies apart
# ("attic"), or whatever comes later would find nothing any more.
CONFIG = """
[output.sanitization]
enabled = true

[dictionaries]
locations = {{ values = ["cellar"] }}
changed = {{ values = ["attic"] }}
jobs = {{ values = ["nightly"] }}
snapshots = {{ values = ["latest", "{snapshot}"] }}
runs = {{ values = ["{run}"] }}
paths = {{ values = ["{source}", "{source}/letters", "{source}/letters/a.txt"] }}
targets = {{ values = ["{folder}/restored"] }}
patterns = {{ values = ["*.txt"] }}

[[operations]]
include-path-regex = "^/api/v1/locations/"
exclude-method = ["PATCH", "PUT", "DELETE"]
exclude-path-regex = "/(forget|prune|repository)$"
[operations.parameters]
"path.name" = {{ dictionary = "locations", probability = 0.8 }}
"path.id" = {{ dictionary = "snapshots", probability = 0.8 }}
"query.path" = {{ dictionary = "paths", probability = 0.7 }}
"query.from" = {{ dictionary = "snapshots", probability = 0.7 }}
"query.pattern" = {{ dictionary = "patterns", probability = 0.7 }}

[[operations]]
include-path-regex = "^/api/v1/locations/"
include-method = ["PATCH", "PUT"]
parameters = {{ "path.name" = {{ dictionary = "changed", probability = 0.6 }} }}

[[operations]]
include-path-regex = "^/api/v1/locations/.*/(forget|prune|repository)$"
parameters = {{ "path.name" = {{ dictionary = "changed", probability = 0.6 }} }}

[[operations]]
include-path-regex = "^/api/v1/jobs/"
exclude-method = ["PATCH", "DELETE"]
parameters = {{ "path.name" = {{ dictionary = "jobs", probability = 0.8 }} }}

[[operations]]
include-path-regex = "^/api/v1/runs/"
parameters = {{ "path.id" = {{ dictionary = "runs", probability = 0.8 }} }}

[[operations]]
include-path = "/api/v1/restores"
[operations.parameters]
"body.location" = {{ dictionary = "locations", probability = 0.8 }}
"body.snapshot" = {{ dictionary = "snapshots", probability = 0.7 }}
"body.path" = {{ dictionary = "paths", probability = 0.5 }}
"body.target" = {{ dictionary = "targets", probability = 0.7 }}
"""

CHECKS = ",".join(
    (
        "not_a_server_error",
        "status_code_conformance",
        "content_type_conformance",
        "response_headers_conformance",
        "response_schema_conformance",
        "negative_data_rejection",
        "unsupported_method",
    )
)


class Service:
    """A `larder serve` of its own, with one job that was run."""

    def __init__(self, program: str, folder: Path):
        home = folder / "home"
        home.mkdir()
        config = folder / "larder.toml"
        config.touch(mode=0o600)
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("LARDER_", "AWS_", "XDG_"))}
        arguments = ["--config", str(config), "--json", "serve", "--listen", "127.0.0.1:0"]
        arguments += ["--data", str(folder / "data"), "--allow-path", str(folder), "--patience", "20s"]
        self.process = subprocess.Popen(
            [program, *arguments],
            env={**kept, "HOME": str(home)},
            stdout=subprocess.PIPE,
            stderr=(folder / "service.log").open("wb"),
        )
        said = json.loads(self.process.stdout.readline())
        self.url = f"http://{said['address']}"
        self.tokens = {"admin": said["token"], "portable": said["portable_token"]}
        for scope in ("read-only", "backup-only", "operate"):
            made = self.ask("POST", "/api/v1/tokens", {"name": scope, "scope": scope})
            self.tokens[scope] = made["token"]

    def ask(self, method: str, path: str, body: object = None) -> object:
        """Sends a request as an administrator."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Authorization": f"Bearer {self.tokens['admin']}"}
        request = urllib.request.Request(self.url + path, data, headers, method=method)
        with urllib.request.urlopen(request, timeout=120) as answer:
            text = answer.read()
        return json.loads(text) if text else None

    def ended(self, run: str) -> str:
        """Waits for the end of a run, which ends its events."""
        headers = {"Authorization": f"Bearer {self.tokens['admin']}"}
        request = urllib.request.Request(f"{self.url}/api/v1/runs/{run}/events", headers=headers)
        with urllib.request.urlopen(request, timeout=120) as answer:
            answer.read()
        return self.ask("GET", f"/api/v1/runs/{run}")["outcome"]

    def end(self) -> int:
        """Asks it to end, and gives its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout=120)


def prepare(service: Service, folder: Path) -> dict:
    """Makes two repositories and a job, runs it, and gives what requests may name."""
    letters = folder / "source" / "letters"
    letters.mkdir(parents=True)
    (letters / "a.txt").write_text("dear all\n")
    (letters / "b.bin").write_bytes(bytes(range(256)) * 64)
    for name in ("cellar", "attic"):
        location = {"name": name, "url": str(folder / name), "password": PASSWORD}
        service.ask("POST", "/api/v1/locations", location)
        service.ask("POST", f"/api/v1/locations/{name}/repository", {"password": PASSWORD})
    settings = {"location": "cellar", "sources": [str(folder / "source")]}
    service.ask("POST", "/api/v1/jobs", {"name": "nightly", "settings": settings})
    run = service.ask("POST", "/api/v1/jobs/nightly/run", {})["id"]
    assert service.ended(run) == "success"
    service.ask("PUT", "/api/v1/portable", {"job": "nightly"})
    snapshots = service.ask("GET", "/api/v1/locations/cellar/snapshots")
    (folder / "restored").mkdir()
    return {"snapshot": snapshots["items"][0]["id"], "run": run, "source": folder / "source", "folder": folder}


def fuzz(service: Service, config: Path, scope: str, examples: int, more: list) -> bool:
    """Fuzzes with a token, and tells whether nothing was found."""
    program = Path(sys.executable).with_name("st")
    arguments = ["--config-file", str(config), "run", f"{service.url}/api/v1/openapi.json"]
    arguments += ["--header", f"Authorization: Bearer {service.tokens[scope]}", "--checks", CHECKS, "--warnings", "off"]
    arguments += ["--max-examples", str(examples), "--seed", SEED, "--generation-database", "none"]
    arguments += ["--request-timeout", SECONDS_MAX, "--continue-on-failure", "--no-shrink", "--no-color", *more]
    done = subprocess.run([program, *arguments], cwd=config.parent, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode != 0:
        print(f"== with a token of the scope {scope}\n{done.stdout}")
    return done.returncode == 0


def main() -> int:
    program, *rest = sys.argv[1:]
    examples = int(rest[0]) if rest else EXAMPLES
    folder = Path(tempfile.mkdtemp(prefix="larder-api-"))
    service = Service(program, folder)
    try:
        config = folder / "schemathesis.toml"
        config.write_text(CONFIG.format(**prepare(service, folder)))
        # What a token does not open needs few examples: it is refused before anybody looks at what it says.
        looks = ["--phases", "fuzzing", "--exclude-path", "/login"]
        few = max(1, examples // 3)
        found = [scope for scope in SCOPES[:-1] if not fuzz(service, config, scope, few, looks)]
        everything = ["--phases", "coverage,fuzzing", "--exclude-path", "/login"]
        found += [scope for scope in SCOPES[-1:] if not fuzz(service, config, scope, examples, everything)]
        # The last, for wrong tokens close the service to whoever sends them.
        found += [] if fuzz(service, config, "admin", examples, ["--include-path", "/login"]) else ["login"]
        code = service.end()
        if code != 0:
            print(f"the service ended with {code}")
            found.append("end")
        if found:
            print((folder / "service.log").read_text(errors="replace")[-4000:])
        return 1 if found else 0
    finally:
        if service.process.poll() is None:
            service.process.kill()
            service.process.wait()
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
