"""The copies of the two versions that the cluster runs."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from parallelchange.adapters.kubernetes.client import Cluster, Object
from parallelchange.adapters.kubernetes.kinds import DEPLOYMENT
from parallelchange.adapters.kubernetes.running import Namespace, Running, backend_names, is_ready
from parallelchange.errors import Unavailable
from parallelchange.layout import REPLICAS

__all__ = ["ClusterWorkloads"]

_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class ClusterWorkloads:
    """Reads pods and scales Deployments.

    Args:
        cluster: The namespace.
        running: What runs there.
        service: The root Service.
        scaled: Told of each Deployment that was scaled, and to how many copies.
    """

    def __init__(
        self,
        cluster: Cluster,
        running: Running,
        service: str,
        *,
        scaled: Callable[[Object, int], None] = lambda _item, _replicas: None,
    ) -> None:
        self.cluster, self.running, self.service, self.scaled = cluster, running, service, scaled

    def build(self, version: str) -> str | None:
        """Digest of the image all ready pods of the version run; None when none does or they differ."""
        pods = [pod for pod in self.running.look().running(version, self.service) if is_ready(pod)]
        image = next(v.image for v in self.running.change.versions if v.name == version)
        builds = {_build(pod, image) for pod in pods}
        return builds.pop() if len(builds) == 1 else None

    def ready(self, version: str) -> int | None:
        """Number of ready pods, those that are about to leave counted in: they may still write."""
        return sum(is_ready(pod) for pod in self.running.look().running(version, self.service))

    def wanted(self, version: str) -> int | None:
        """Number of copies that the version's Deployments ask for, whether they start or not."""
        found = next(v for v in self.running.change.versions if v.name == version)
        return self.running.look().wanted(found, self.service)

    def others(self) -> tuple[str, ...] | None:
        """What runs behind the Service and its backends and is neither version, described."""
        return self.running.look().others(self.service)

    def address(self, version: str) -> str | None:
        """`host:port` of one ready pod; None when there is none."""
        seen = self.running.look()
        for pod in seen.running(version, self.service):
            address = (pod.get("status") or {}).get("podIP")
            if is_ready(pod) and address and not pod["metadata"].get("deletionTimestamp"):
                port = _target_port(seen, self.service, pod)
                return f"{address}:{port}" if port else None
        return None

    def scale(self, version: str, replicas: int) -> None:
        """Scale the version's Deployments: down to none all of them, up again to what each had before.

        Args:
            version: App version.
            replicas: 0, or any other number for as many as there were.

        Raises:
            Unavailable: There is no Deployment of it, or it may not be scaled.
        """
        seen = self.running.look(anew=True)
        found = [item for item in self._deployments(seen) if seen.version_of(item["spec"]["template"]) == version]
        if not found:
            raise Unavailable(
                f"no Deployment in {self.cluster.namespace} behind Service {self.service} runs {version}",
                hint="scale by hand what runs it",
            )
        for item in found:
            self._scale(item, replicas)

    def _scale(self, item: Object, replicas: int) -> None:
        name, now = item["metadata"]["name"], int(item["spec"].get("replicas", 1))
        if replicas == 0 and now:
            # Kept on the object itself, so that whoever starts it again knows how many there were.
            kept = {"metadata": {"annotations": {REPLICAS: str(now)}}}
            self.cluster.patch(DEPLOYMENT, name, kept)
            self.cluster.patch(DEPLOYMENT, name, {"spec": {"replicas": 0}}, subresource="scale")
            self.scaled(item, 0)
        elif replicas and not now:
            before = (item["metadata"].get("annotations") or {}).get(REPLICAS, "")
            wanted = max(replicas, int(before) if before.isdecimal() else 0)
            self.cluster.patch(DEPLOYMENT, name, {"spec": {"replicas": wanted}}, subresource="scale")
            self.scaled(item, wanted)

    def _deployments(self, seen: Namespace) -> list[Object]:
        names = backend_names(self.service)
        found = {item["metadata"]["name"]: item for name in names for item in seen.deployments_of(name)}
        return [found[name] for name in sorted(found)]


def _build(pod: Object, image: str | None) -> str | None:
    """Digest of what the pod's container of that image really runs; of all its containers where none is named."""
    wanted = {c["name"] for c in pod["spec"]["containers"] if image is None or c.get("image") == image}
    statuses: list[Any] = (pod.get("status") or {}).get("containerStatuses") or []
    found = sorted(
        match[0]
        for status in statuses
        if status["name"] in wanted and (match := _DIGEST.search(status.get("imageID") or ""))
    )
    return "+".join(found) if len(found) == len(wanted) else None


def _target_port(seen: Namespace, service: str, pod: Object) -> int | None:
    """The pod's port behind the Service's first one."""
    ports = (seen.services.get(service, {}).get("spec") or {}).get("ports") or ()
    if not ports:
        return None
    target = ports[0].get("targetPort", ports[0]["port"])
    if isinstance(target, int):
        return target
    named = (p for c in pod["spec"]["containers"] for p in c.get("ports") or () if p.get("name") == target)
    return next((int(port["containerPort"]) for port in named), None)
