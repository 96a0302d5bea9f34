"""What runs in the namespace, and so which version a Service's pods are. Pure, over what was listed at once.

A share of the traffic belongs to the version that a backend's pods run, whatever the Service is called:
after a pipeline has promoted, `-stable` runs the new version.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from parallelchange.adapters.kubernetes.client import Cluster, Object
from parallelchange.adapters.kubernetes.kinds import DEPLOYMENT, ENDPOINT_SLICE, POD, SERVICE
from parallelchange.change import Change, Version
from parallelchange.layout import VERSION, Role

__all__ = ["Behind", "Namespace", "Running", "backend_names", "is_ready", "matches"]

_FRESH = 0.5
"""Seconds for which what was listed is used again: one look asks for it several times."""
_SERVICE_OF = "kubernetes.io/service-name"
_MADE_BY = "endpointslice.kubernetes.io/managed-by"
_CONTROLLER = "endpointslice-controller.k8s.io"
"""Kubernetes' own: it puts a Service's pods into its EndpointSlices and nothing else."""


def backend_names(service: str) -> frozenset[str]:
    """Names that Services behind a root Service have, and its own."""
    return frozenset({service, *(f"{service}-{role}" for role in Role)})


def matches(selector: Mapping[str, str] | None, labels: Mapping[str, str] | None) -> bool:
    """Whether labels are selected; an empty selector selects nothing, as for a Service."""
    return bool(selector) and (selector or {}).items() <= (labels or {}).items()


@dataclass(frozen=True)
class Behind:
    """What runs behind one Service.

    Args:
        service: Its name.
        versions: Names of the app versions; "" stands for one that is neither.
        ready: Number of its pods that are ready.
        deployments: Names of its Deployments.
        endpoints: Number of addresses its EndpointSlices call ready.
        exists: Whether there is such a Service.
        strangers: EndpointSlices that lead to something else than its pods.
    """

    service: str
    versions: frozenset[str]
    ready: int
    deployments: tuple[str, ...]
    endpoints: int
    exists: bool
    strangers: tuple[str, ...] = ()

    @property
    def version(self) -> str | None:
        """The one app version all of it is; None when it is several, another one, or nothing."""
        only = next(iter(self.versions)) if len(self.versions) == 1 and not self.strangers else None
        return only or None

    def told(self) -> str:
        """What it is, for messages."""
        if not self.exists:
            return f"there is no Service {self.service}"
        if self.strangers:
            return f"{self.service} leads to more than its pods: EndpointSlice {', '.join(self.strangers)}"
        if not self.versions:
            return f"{self.service} has no pod and no Deployment"
        named = sorted(name or "a version that is neither the old nor the new one" for name in self.versions)
        return f"{self.service} runs {' and '.join(named)}"


@dataclass(frozen=True)
class Namespace:
    """All that was listed, at one time.

    Args:
        change: Whose versions are told apart.
        pods: Pods that have not ended.
        services: Services by name.
        deployments: Deployments by name.
        slices: EndpointSlices.
    """

    change: Change
    pods: tuple[Object, ...]
    services: Mapping[str, Object]
    deployments: Mapping[str, Object]
    slices: tuple[Object, ...]

    def version_of(self, template: Mapping[str, Any]) -> str:
        """The app version a pod or a pod template is; empty when it is neither, or both."""
        found = self._versions_in(template)
        return found[0] if len(found) == 1 else ""

    def _versions_in(self, template: Mapping[str, Any]) -> list[str]:
        return [version.name for version in self.change.versions if _is(version, template)]

    def selector(self, service: str) -> Mapping[str, str]:
        """A Service's selector; empty when it is not there, has none, or leads out of the cluster."""
        spec = self.services.get(service, {}).get("spec") or {}
        return {} if spec.get("type") == "ExternalName" else spec.get("selector") or {}

    def pods_of(self, service: str) -> list[Object]:
        """The pods a Service selects, those that are being deleted left out."""
        selector = self.selector(service)
        return [
            pod
            for pod in self.pods
            if matches(selector, pod["metadata"].get("labels")) and not pod["metadata"].get("deletionTimestamp")
        ]

    def deployments_of(self, service: str) -> list[Object]:
        """The Deployments whose pods a Service selects."""
        selector = self.selector(service)
        return [
            item
            for item in self.deployments.values()
            if matches(selector, item["spec"]["template"]["metadata"].get("labels"))
        ]

    def behind(self, service: str) -> Behind:
        """What runs behind a Service: its pods, and what its Deployments would run."""
        pods, deployments = self.pods_of(service), self.deployments_of(service)
        found = {self.version_of(pod) for pod in pods}
        found |= {self.version_of(item["spec"]["template"]) for item in deployments}
        return Behind(
            service=service,
            versions=frozenset(found),
            ready=sum(is_ready(pod) for pod in pods),
            deployments=tuple(item["metadata"]["name"] for item in deployments),
            endpoints=sum(_ready_addresses(part) for part in self.slices_of(service)),
            exists=service in self.services,
            strangers=tuple(part["metadata"]["name"] for part in self.slices_of(service) if _is_strange(part)),
        )

    def slices_of(self, service: str) -> list[Object]:
        """EndpointSlices of a Service."""
        return [part for part in self.slices if (part["metadata"].get("labels") or {}).get(_SERVICE_OF) == service]

    def running(self, version: str, root: str) -> list[Object]:
        """Pods with an app version behind the root Service or one of its backends, ready or not, leaving or not.

        Another app's Service may begin with the same word, and its versions may be called the same.
        """
        return [pod for pod in self._pods_behind(root) if version in self._versions_in(pod)]

    def _pods_behind(self, root: str) -> list[Object]:
        """Pods of the root Service and its backends, ready or not, leaving or not."""
        selectors = [self.selector(name) for name in backend_names(root)]
        return [
            pod for pod in self.pods if any(matches(selector, pod["metadata"].get("labels")) for selector in selectors)
        ]

    def _deployments_behind(self, root: str) -> list[Object]:
        found = {item["metadata"]["name"]: item for name in backend_names(root) for item in self.deployments_of(name)}
        return [found[name] for name in sorted(found)]

    def wanted(self, version: Version, root: str) -> int:
        """Copies that Deployments ask for of an app version, whether they start or not.

        By its image a version is told wherever it runs, such as in a worker that no Service leads to; by its label
        only behind the root Service, as other apps call theirs the same.
        """
        deployments = self.deployments.values() if version.image else self._deployments_behind(root)
        return sum(_replicas(item) for item in deployments if _is(version, item["spec"]["template"]))

    def others(self, root: str) -> tuple[str, ...]:
        """What runs behind the root Service or one of its backends and is neither version, or both, described."""
        told = "runs a version that is neither the old nor the new one"
        named = {f"Deployment {item['metadata']['name']}": item["spec"]["template"]
                 for item in self._deployments_behind(root) if _replicas(item)}  # fmt: skip
        named |= {f"Pod {pod['metadata']['name']}": pod for pod in self._pods_behind(root)}
        return tuple(f"{name} {told}" for name, template in named.items() if not self.version_of(template))


class Running:
    """Lists what runs in the namespace.

    Args:
        cluster: The namespace.
        change: Whose versions are told apart.
    """

    def __init__(self, cluster: Cluster, change: Change) -> None:
        self.cluster, self.change = cluster, change
        self._seen: tuple[float, Namespace] | None = None

    def look(self, *, anew: bool = False) -> Namespace:
        """What runs now.

        Args:
            anew: Do not use what was listed a moment ago.

        Raises:
            Unavailable: It cannot be listed.
        """
        if not anew and self._seen and time.monotonic() - self._seen[0] < _FRESH:
            return self._seen[1]
        cluster = self.cluster
        found = Namespace(
            change=self.change,
            pods=tuple(pod for pod in cluster.all(POD) if not _has_ended(pod)),
            services=_by_name(cluster.all(SERVICE)),
            deployments=_by_name(cluster.all(DEPLOYMENT)),
            slices=tuple(cluster.all(ENDPOINT_SLICE)),
        )
        self._seen = (time.monotonic(), found)
        return found


def _by_name(items: Iterable[Object]) -> dict[str, Object]:
    return {item["metadata"]["name"]: item for item in items}


def _replicas(deployment: Object) -> int:
    return int(deployment["spec"].get("replicas", 1))


def _has_ended(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in ("Succeeded", "Failed")


def is_ready(pod: Object) -> bool:
    """Whether the pod says it is ready."""
    conditions = (pod.get("status") or {}).get("conditions") or ()
    return any(item["type"] == "Ready" and item["status"] == "True" for item in conditions)


def _is_strange(part: Object) -> bool:
    """Whether it has addresses that did not come from the Service's selector."""
    return bool(part.get("endpoints")) and (part["metadata"].get("labels") or {}).get(_MADE_BY) != _CONTROLLER


def _ready_addresses(part: Object) -> int:
    if not part.get("ports"):
        return 0  # of pods that lack the port the Service names
    # Absent means ready, as the API has it.
    return sum(
        len(item.get("addresses") or ())
        for item in part.get("endpoints") or ()
        if (item.get("conditions") or {}).get("ready") is not False
    )


def _is(version: Version, template: Mapping[str, Any]) -> bool:
    if version.image is None:
        return (template["metadata"].get("labels") or {}).get(VERSION) == version.name
    return any(container.get("image") == version.image for container in template["spec"].get("containers") or ())
