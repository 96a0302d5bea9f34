"""A real Prometheus for the tests, on this machine. `python -m helpers.prometheus` only builds the program."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.parse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parallelchange.errors import Unavailable
from parallelchange.local.process import LOOPBACK, Child, ReservedPort, http_get, last_lines, tied_to_us

__all__ = ["NoPrometheus", "Prometheus", "Scraped", "find_prometheus"]

MODULE = Path(__file__).parents[1] / "prometheus"
"""The Go module that names the program and pins its version."""
PACKAGE = "github.com/prometheus/prometheus/cmd/prometheus"
TAGS = "remove_all_sd"
"""Leaves out the discovery of targets in clouds, which is most of what would have to be downloaded and built.

The module lists only what is needed with this tag: update it with `go get -tags`, and not with `go mod tidy`.
"""
STARTED = 30.0
"""Seconds it may take to answer; it takes less than one."""

PREFIX = "/prometheus"
"""As where it is behind an ingress."""


class NoPrometheus(Exception):
    """There is none on this machine, and none can be built; the message says why."""


# --- the program ----------------------------------------------------------------------------------------------------


def find_prometheus() -> Path:
    """Where the program is; if it is nowhere it is built, once for this version.

    Raises:
        NoPrometheus: It is missing and cannot be built.
    """
    given = shutil.which("prometheus")
    if given is not None:
        return Path(given)
    go, folder = shutil.which("go"), _cache_folder()
    built = folder / "prometheus"
    if built.is_file():
        return built
    if go is None:
        raise NoPrometheus("there is no prometheus, and no Go to build it with: install one of them")
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # the kernel gives it back when we are killed
        if not built.is_file():
            _build(go, built)
    return built


def _cache_folder() -> Path:
    """Where it is kept: one folder for each state of the Go module."""
    state = hashlib.sha256(TAGS.encode())
    for name in ("go.mod", "go.sum"):
        state.update((MODULE / name).read_bytes())
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "parallelchange" / "prometheus" / state.hexdigest()[:16]


def _build(go: str, built: Path) -> None:
    """Build it. It gets its name only when it is whole, so a build that is killed leaves none behind."""
    for abandoned in built.parent.glob("building-*"):
        shutil.rmtree(abandoned, ignore_errors=True)
    _say("building it for the tests, once for this version; this takes minutes")
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="building-", dir=built.parent) as workplace:
        half_made = Path(workplace) / built.name
        flags = ["-mod=readonly", "-trimpath", "-tags", TAGS, "-ldflags", "-s -w"]
        ended = subprocess.run(
            [*tied_to_us(), go, "build", *flags, "-o", str(half_made), PACKAGE],
            cwd=MODULE,
            env=os.environ | {"CGO_ENABLED": "0", "GOWORK": "off"},
            capture_output=True,
            text=True,
            check=False,
        )
        if ended.returncode:
            lines = ended.stderr.strip().splitlines()[-3:]
            raise NoPrometheus(f"it cannot be built: {'; '.join(lines) or f'go ended with {ended.returncode}'}")
        half_made.replace(built)
    _say(f"built it in {time.monotonic() - began:.0f} s")


def _say(message: str) -> None:
    print(f"prometheus: {message}", file=sys.stderr, flush=True)  # noqa: T201 - minutes of silence look like a hang


# --- the server -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Scraped:
    """One target.

    Args:
        port: Its port on the loopback interface.
        path: Where its metrics are.
        labels: What it is labelled with, as discovery and relabelling would do; `instance` tells it from others.
    """

    port: int
    path: str
    labels: Mapping[str, str] = field(default_factory=dict)


class Prometheus:
    """The server, on a free port of the loopback interface.

    It is killed with the thread that started it, so start it from the main thread. What it scrapes is settled
    before it starts, because it takes up new targets every five seconds only.

    Args:
        folder: Where data and log go; empty, and the caller's to delete.
        program: As `find_prometheus` says.
        targets: What it scrapes.
        every: Seconds from scrape to scrape.
    """

    def __init__(self, folder: Path, program: Path, targets: Sequence[Scraped], *, every: float = 1.0) -> None:
        self.folder, self._program = folder, program
        self._port = ReservedPort()
        self._child: Child | None = None
        self.url = f"http://{LOOPBACK}:{self._port.number}{PREFIX}"
        interval = f"{every * 1000:.0f}ms"
        job = {
            "job_name": "pods",
            "static_configs": [
                {"targets": [f"{LOOPBACK}:{each.port}"], "labels": {"__metrics_path__": each.path, **each.labels}}
                for each in targets
            ],
        }
        settings = {"global": {"scrape_interval": interval, "scrape_timeout": interval}, "scrape_configs": [job]}
        (folder / "prometheus.yml").write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML

    def start(self) -> None:
        """Start it, and wait until it is ready.

        Raises:
            Unavailable: It does not come up; the message has the end of its log.
        """
        log = self.folder / "prometheus.log"
        command = [
            str(self._program),
            f"--config.file={self.folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={self.folder / 'data'}",
            f"--web.listen-address={LOOPBACK}:{self._port.number}",
            f"--web.external-url={self.url}",
            "--log.level=warn",
        ]
        self._child = Child(command, log=log, cwd=self.folder)
        deadline = time.monotonic() + STARTED
        while (answer := http_get(self._port.number, f"{PREFIX}/-/ready", timeout=1.0)) is None or answer[0] != 200:
            if self._child.exit_code is not None or time.monotonic() > deadline:
                self.stop()
                raise Unavailable(f"Prometheus does not start:\n{last_lines(log)}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it at once; what it has scraped stays in its folder."""
        child, self._child = self._child, None
        if child is not None:
            with contextlib.suppress(ProcessLookupError):
                if child.exit_code is None:
                    os.kill(child.pid, signal.SIGKILL)
            child.stop()
            self._port.release()

    def ask(self, promql: str) -> dict[str, Any]:
        """Its answer as it is."""
        path = f"{PREFIX}/api/v1/query?{urllib.parse.urlencode({'query': promql})}"
        answer = http_get(self._port.number, path, timeout=STARTED)
        assert answer is not None
        document: dict[str, Any] = json.loads(answer[1])
        return document

    def pause(self) -> None:
        """Stop it in its tracks: connections are taken and nothing is answered."""
        assert self._child is not None
        os.kill(self._child.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on."""
        assert self._child is not None
        os.kill(self._child.pid, signal.SIGCONT)


def main() -> None:
    """Build it if it is missing, so that no test has to wait for it."""
    try:
        find_prometheus()
    except NoPrometheus as reason:
        _say(f"none on this machine: {reason}")


if __name__ == "__main__":
    main()
