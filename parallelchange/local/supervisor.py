"""Runs the services of a change as child processes, each on a port of its own."""

from __future__ import annotations

import hashlib
import os
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parallelchange.adapters.local_files import RUNTIME, SCALE, read_object, write_object
from parallelchange.errors import Unavailable
from parallelchange.local.process import LOOPBACK, Child, ReservedPort, http_get, last_lines

__all__ = ["Service", "Supervisor", "build_digest"]

_PROBE_TIMEOUT = 1.0
_PROBE_STARTING = 0.1
_PROBE_READY = 1.0
_OK, _REDIRECT = 200, 300
_PATIENCE = 3
"""Health checks in a row that a ready copy must fail before it counts as not ready."""
_BACKOFF = (0.2, 5.0)
_STEADY = 10.0
"""Seconds a copy must have lived for its next crash to count as the first."""


@dataclass(frozen=True)
class Service:
    """One service of the change.

    Args:
        version: The app version it runs.
        command: Program and arguments; `{port}` in any of them becomes its port. It listens on the loopback
            address, sets SO_REUSEADDR, keeps idle connections for over a second, and is one process.
        env: Variables beside ours; `{port}` is put in here too.
        cwd: Its working directory.
        replicas: Copies to begin with, 0 or 1.
        sources: Files and directories of the app, part of its build.
        health: Path that answers 2xx when it is ready; empty: when its port accepts connections.
    """

    version: str
    command: tuple[str, ...]
    env: Mapping[str, str] = field(default_factory=dict)
    cwd: Path | None = None
    replicas: int = 1
    sources: tuple[Path, ...] = ()
    health: str = "/healthz"


def build_digest(service: Service) -> str:
    """sha256 over the command as it was given and the content of the sources.

    Raises:
        Unavailable: A source cannot be read.
    """
    total = hashlib.sha256()
    for part in service.command:
        total.update(part.encode() + b"\0")
    try:
        for source in service.sources:
            for path in sorted(source.rglob("*")) if source.is_dir() else [source]:
                if path.is_file() and "__pycache__" not in path.parts:
                    name = path.relative_to(source) if source.is_dir() else path.name
                    total.update(f"\0{name}\0".encode() + hashlib.sha256(path.read_bytes()).digest())
    except OSError as error:
        raise Unavailable(f"{error.filename} of {service.version} cannot be read: {error.strerror}") from error
    return total.hexdigest()


class _Copy:
    """The one copy of a service: off, starting, ready or ending."""

    def __init__(self, name: str, service: Service, log: Path) -> None:
        self.name, self.service, self.log = name, service, log
        self.port = ReservedPort()
        self.child: Child | None = None
        self.build: str | None = None
        self.ready = False
        self._missed = 0
        self._started = self._probe_at = self._start_at = 0.0
        self._backoff = _BACKOFF[0]

    def step(self, replicas: int) -> None:
        """Go one step towards that many copies."""
        now = time.monotonic()
        if self.child is not None and self.child.reap():
            self._ended(now)
        if self.child is None:
            if replicas and now >= self._start_at:
                self._start(now)
        elif not replicas:
            self.ready = False
            self.child.end()
        elif now >= self._probe_at and not self.child.ending:
            self._probe()

    def stop(self) -> None:
        """End it and give its port back."""
        if self.child is not None:
            self.child.stop()
        self.child, self.build, self.ready = None, None, False
        self.port.release()

    def _start(self, now: float) -> None:
        port = str(self.port.number)
        env = {name: value.replace("{port}", port) for name, value in self.service.env.items()}
        self._started, self._start_at = now, now + self._backoff
        self.build = build_digest(self.service)
        self.child = Child(
            [part.replace("{port}", port) for part in self.service.command],
            log=self.log,
            env={**os.environ, **env},
            cwd=self.service.cwd,
        )
        self._probe_at, self._missed = now + _PROBE_STARTING, 0

    def _ended(self, now: float) -> None:
        asked = self.child is not None and self.child.ending
        if asked or now - self._started >= _STEADY:
            self._backoff = _BACKOFF[0]
        self._start_at = now if asked else now + self._backoff
        self._backoff = min(self._backoff * 2, _BACKOFF[1])
        self.child, self.build, self.ready = None, None, False

    def _probe(self) -> None:
        if self._answers():
            self.ready, self._missed = True, 0
        else:
            self._missed += 1
            self.ready = self.ready and self._missed < _PATIENCE
        self._probe_at = time.monotonic() + (_PROBE_READY if self.ready else _PROBE_STARTING)

    def _answers(self) -> bool:
        if self.service.health:
            answer = http_get(self.port.number, self.service.health, timeout=_PROBE_TIMEOUT)
            return answer is not None and _OK <= answer[0] < _REDIRECT
        try:
            socket.create_connection((LOOPBACK, self.port.number), _PROBE_TIMEOUT).close()
        except OSError:
            return False
        return True


class Supervisor:
    """Keeps the wanted number of copies running, and says in `runtime.json` what runs.

    It acts in `step` only, and its children live no longer than the thread that calls it.

    Args:
        state_dir: Where `runtime.json`, `scale.json` and the logs are kept.
        services: By name.
        about: What else to say in `runtime.json`.
    """

    def __init__(
        self, state_dir: Path, services: Mapping[str, Service], *, about: Mapping[str, Any] | None = None
    ) -> None:
        logs = state_dir / "logs"
        logs.mkdir(parents=True, exist_ok=True)
        self._state_dir, self._about = state_dir, dict(about or {})
        self._copies = {name: _Copy(name, service, logs / f"{name}.log") for name, service in services.items()}
        self._wanted = {name: service.replicas for name, service in services.items()}
        self._told: dict[str, Any] = {}

    @property
    def ports(self) -> dict[str, int]:
        """Service to its port, the same for as long as this lives."""
        return {name: copy.port.number for name, copy in self._copies.items()}

    def step(self) -> None:
        """Read what is wanted, go a step towards it, and tell what runs.

        Raises:
            Unavailable: `scale.json` is of no use (what was wanted before still is), or a service cannot be
                started; the others were looked after all the same.
        """
        faults: list[Unavailable] = []
        try:
            self._wanted = self._read_wanted()
        except Unavailable as fault:
            faults.append(fault)
        for name, copy in self._copies.items():
            try:
                copy.step(self._wanted[name])
            except Unavailable as fault:
                faults.append(fault)
        self._tell()
        if faults:
            raise faults[0]

    def ready(self, name: str) -> bool:
        """Whether that service is ready, or is not wanted."""
        return self._copies[name].ready or not self._wanted[name]

    def log_of(self, name: str) -> str:
        """The end of its log, for a message."""
        return last_lines(self._copies[name].log)

    def stop(self) -> None:
        """End all children, at the same time, and take `runtime.json` back."""
        for copy in self._copies.values():
            if copy.child is not None:
                copy.child.end()
        for copy in self._copies.values():
            copy.stop()
        (self._state_dir / RUNTIME).unlink(missing_ok=True)

    def _read_wanted(self) -> dict[str, int]:
        path = self._state_dir / SCALE
        wanted = read_object(path) or {}
        for name, replicas in wanted.items():
            if name in self._copies and replicas not in (0, 1):
                raise Unavailable(f"{path}: {name} is {replicas!r}, neither 0 nor 1")
        return {name: int(wanted.get(name, copy.service.replicas)) for name, copy in self._copies.items()}

    def _tell(self) -> None:
        services = {
            name: {
                "version": copy.service.version,
                "port": copy.port.number,
                "replicas": self._wanted[name],
                "ready": int(copy.ready),
                "build": copy.build,
                "pid": copy.child.pid if copy.child is not None else None,
            }
            for name, copy in self._copies.items()
        }
        told = {"pid": os.getpid(), **self._about, "services": services}
        if told != self._told:
            write_object(self._state_dir / RUNTIME, told)
            self._told = told
