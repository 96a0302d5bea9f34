"""The copies of the two versions that the local supervisor runs."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from parallelchange.adapters.local_files import (
    RUNTIME,
    SCALE,
    SUPERVISOR_LOCK,
    is_locked,
    locked,
    read_object,
    write_object,
)
from parallelchange.errors import Unavailable

__all__ = ["LocalWorkloads"]


class LocalWorkloads:
    """Reads what the supervisor says it runs, and tells it how many copies are wanted.

    Args:
        state_dir: Where the supervisor keeps its files.
        versions: Names of the change's versions.
    """

    def __init__(self, state_dir: Path, versions: Collection[str] = ()) -> None:
        self.state_dir, self.versions = state_dir, versions

    def build(self, version: str) -> str | None:
        """Digest of what runs as this version; None when nothing runs or its services differ."""
        builds = {service.get("build") for service in self._services(version).values()}
        build = builds.pop() if len(builds) == 1 else None
        return build if isinstance(build, str) else None

    def ready(self, version: str) -> int | None:
        """Number of copies that are ready; None without a living supervisor that knows the version."""
        services = self._services(version)
        return sum(int(service["ready"]) for service in services.values()) if services else None

    def wanted(self, version: str) -> int | None:
        """Number of copies that are asked for, ready or not; None where `ready` is None."""
        asked = [service.get("replicas") for service in self._services(version).values()]
        return None if not asked or None in asked else sum(map(int, filter(None, asked)))

    def others(self) -> tuple[str, ...] | None:
        """Services that run neither version; None where a supervisor was killed, or has not said yet what it runs."""
        lives, told = is_locked(self.state_dir / SUPERVISOR_LOCK), read_object(self.state_dir / RUNTIME)
        if not lives and told is None:
            return ()  # none began, or it ended in order and its services with it
        services = (told or {}).get("services") if lives else None
        if services is None:
            return None
        return tuple(
            f"service {name} runs {service['version']}"
            for name, service in services.items()
            if service["version"] not in self.versions and (service["replicas"] or service["ready"])
        )

    def address(self, version: str) -> str | None:
        """`host:port` of one ready copy; None when there is none."""
        for service in self._services(version).values():
            if service["ready"]:
                return f"127.0.0.1:{service['port']}"
        return None

    def scale(self, version: str, replicas: int) -> None:
        """Ask for that many copies.

        Args:
            version: App version.
            replicas: 0 or 1: a service has one port here.

        Raises:
            Unavailable: No supervisor lives, it does not know the version, or it cannot run that many.
        """
        services = self._services(version)
        if not services:
            raise Unavailable(
                f"no supervisor in {self.state_dir} runs {version}",
                hint="start the local mesh; it can be scaled as long as it runs",
            )
        if replicas not in (0, 1):
            raise Unavailable(f"{version} cannot have {replicas} copies: on one machine it is 0 or 1")
        path = self.state_dir / SCALE
        with locked(path.with_name(f"{SCALE}.lock")):
            wanted = read_object(path) or {}
            write_object(path, {**wanted, **dict.fromkeys(services, replicas)})

    def _services(self, version: str) -> Mapping[str, Mapping[str, Any]]:
        """Services of that version; none when their supervisor is dead, whatever it wrote before."""
        if not is_locked(self.state_dir / SUPERVISOR_LOCK):
            return {}
        services = (read_object(self.state_dir / RUNTIME) or {}).get("services", {})
        return {name: service for name, service in services.items() if service["version"] == version}
