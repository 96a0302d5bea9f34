"""The router of the local mesh: the cluster's TrafficSplit, kept in a file."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parallelchange.adapters.local_files import MESH, locked, read_object, write_object
from parallelchange.errors import Busy, Unavailable, UsageError
from parallelchange.model import FULL, format_weight
from parallelchange.ports import Split

__all__ = ["API_VERSION", "LocalRouter", "TrafficSplit"]

API_VERSION = "split.smi-spec.io/v1alpha2"
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")


_NO_SPLIT = "say in the change file what moves the traffic: `traffic.router`; `local` is for `parallelchange demo`"
"""What to do where there is no split: most often nobody has said yet which router there is."""


@dataclass(frozen=True)
class TrafficSplit:
    """The object as the file holds it.

    Args:
        name: Its metadata.name.
        resource_version: Changes with every write.
        service: The root service, which clients call.
        backends: Backend service to its share in thousandths; the shares add up to the whole.
    """

    name: str
    resource_version: str
    service: str
    backends: Mapping[str, int]

    @classmethod
    def load(cls, path: Path) -> TrafficSplit:
        """Read the file.

        Raises:
            Unavailable: It is not there, or says something no mesh could route by.
        """
        document = read_object(path)
        if document is None:
            raise Unavailable(f"{path}: there is no traffic split", hint=_NO_SPLIT)
        try:
            return cls.parse(document)
        except ValueError as error:
            raise Unavailable(
                f"{path}: {error}", hint="mend the file by hand; its traffic stays as it was until then"
            ) from error

    @classmethod
    def parse(cls, document: Mapping[str, Any]) -> TrafficSplit:
        """Read the object.

        Raises:
            ValueError: Saying what is wrong with it.
        """
        kind = (document.get("apiVersion"), document.get("kind"))
        if kind != (API_VERSION, "TrafficSplit"):
            raise ValueError(f"apiVersion and kind are {kind[0]} {kind[1]}, not {API_VERSION} TrafficSplit")
        metadata, spec = _object(document, "metadata"), _object(document, "spec")
        entries = spec.get("backends")
        if not isinstance(entries, list) or not entries:
            raise ValueError("spec.backends is no list of backends")
        backends: dict[str, int] = {}
        for entry in entries:
            service, weight = _backend(entry)
            if service in backends:
                raise ValueError(f"backend {service} is listed twice")
            backends[service] = weight
        if sum(backends.values()) != FULL:
            raise ValueError(f"weights add up to {sum(backends.values())}, not {FULL}")
        return cls(
            name=_text(metadata, "name"),
            resource_version=_text(metadata, "resourceVersion"),
            service=_text(spec, "service"),
            backends=backends,
        )

    def document(self) -> dict[str, Any]:
        """The object as it is written."""
        return {
            "apiVersion": API_VERSION,
            "kind": "TrafficSplit",
            "metadata": {"name": self.name, "resourceVersion": self.resource_version},
            "spec": {
                "service": self.service,
                "backends": [{"service": name, "weight": weight} for name, weight in self.backends.items()],
            },
        }


class LocalRouter:
    """Moves the local mesh's traffic by writing its TrafficSplit.

    Args:
        path: The split's file; what the mesh says of it is read beside it.
        service: The root service.
        stable: The backend that runs the old version.
        canary: The backend that runs the new version.
    """

    def __init__(self, path: Path, *, service: str, stable: str, canary: str) -> None:
        for name in (service, stable, canary):
            if not _NAME.fullmatch(name):
                raise UsageError(f"{name!r} is no name of a service", hint="use a-z, 0-9 and - as in shop-canary")
        if len({service, stable, canary}) != len((service, stable, canary)):
            raise UsageError(f"the service and its two backends need three names, not {service}, {stable}, {canary}")
        self.path, self.service, self.stable, self.canary = path, service, stable, canary

    def create(self, weight: int = 0) -> Split:
        """Make the split when it is not there; one that is there is left as it is and answered.

        Args:
            weight: The canary's share in thousandths of a new split.
        """
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._locked():
            if not self.path.exists():
                # The first version is a time, so a split made anew is never taken for one of before.
                self._write(weight, resource_version=str(time.time_ns() // 1_000_000))
            return self.get()

    def get(self) -> Split:
        """Read the split as it stands.

        Raises:
            Unavailable: It is not there, or is not one of our service and backends.
        """
        found = TrafficSplit.load(self.path)
        if found.service != self.service:
            raise Unavailable(f"{self.path}: spec.service is {found.service}, not {self.service}")
        if set(found.backends) != {self.stable, self.canary}:
            raise Unavailable(
                f"{self.path}: its backends are {', '.join(found.backends)}, not {self.stable} and {self.canary}"
            )
        return Split(
            name=f"TrafficSplit {found.name} in {self.path}",
            weight=found.backends[self.canary],
            resource_version=found.resource_version,
            backends=found.backends,
        )

    def set(self, weight: int, *, resource_version: str) -> Split:
        """Set the canary's weight, if the split is still the one that was read.

        Args:
            weight: Thousandths.
            resource_version: As read by `get`.

        Raises:
            Busy: The split changed since; nothing was written.
            Unavailable: It cannot be read or written.
        """
        with self._locked():
            live = self.get()
            if live.resource_version != resource_version:
                raise Busy(
                    f"{live.name} changed since it was read: resourceVersion {live.resource_version}, "
                    f"not {resource_version}",
                    hint="read it again and ask the gate again",
                )
            self._write(weight, resource_version=_next(resource_version))
            return self.get()

    def settled(self, split: Split) -> bool:
        """Whether the mesh has confirmed that it routes by this version of the split."""
        mesh = read_object(self.path.parent / MESH)
        return mesh is not None and mesh.get("resourceVersion") == split.resource_version

    def problems(self) -> tuple[str, ...]:
        """None: Envoy has one cluster for each backend, and the supervisor says which are ready."""
        return ()

    def owners(self) -> tuple[str, ...]:
        """Nobody that the file would tell of."""
        return ()

    def describe(self) -> dict[str, Any]:
        """The file and its backends."""
        split = self.get()
        return {
            "object": split.name,
            "api_version": API_VERSION,
            "resource_version": split.resource_version,
            "backends": [{"service": name, "share": format_weight(weight)} for name, weight in split.backends.items()],
            "owners": [],
            "follows": self.settled(split),
        }

    def _locked(self) -> AbstractContextManager[None]:
        return locked(self.path.with_name(f"{self.path.name}.lock"))

    def _write(self, weight: int, *, resource_version: str) -> None:
        if not 0 <= weight <= FULL:
            raise UsageError(f"weight {weight} is outside 0..{FULL} thousandths")
        split = TrafficSplit(
            name=self.service,
            resource_version=resource_version,
            service=self.service,
            backends={self.stable: FULL - weight, self.canary: weight},
        )
        try:
            write_object(self.path, split.document())
        except OSError as error:
            raise Unavailable(f"{self.path} cannot be written: {error.strerror}") from error


def _next(resource_version: str) -> str:
    """The version after this one; a hand-written one that is no number gives way to the time."""
    return str(int(resource_version) + 1 if resource_version.isdecimal() else time.time_ns() // 1_000_000)


def _object(document: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = document.get(key)
    if not isinstance(value, dict):
        raise ValueError(f"{key} is no object")  # noqa: TRY004 - one kind of error for a bad document
    return value


def _text(document: Mapping[str, Any], key: str) -> str:
    value = document.get(key)
    if not isinstance(value, str) or not value:
        raise ValueError(f"{key} is no text")
    return value


def _backend(entry: Any) -> tuple[str, int]:
    if not isinstance(entry, dict):
        raise ValueError(f"backend {entry!r} is no object")  # noqa: TRY004
    service, weight = _text(entry, "service"), entry.get("weight")
    if not _NAME.fullmatch(service):
        raise ValueError(f"{service!r} is no name of a service")
    if not isinstance(weight, int) or isinstance(weight, bool):
        raise ValueError(f"weight of {service} is {weight!r}, no whole number of thousandths")  # noqa: TRY004
    if not 0 <= weight <= FULL:
        raise ValueError(f"weight of {service} is {weight}, outside 0..{FULL}")
    return service, weight
