"""How one kind of object says which backend gets which share."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from fractions import Fraction
from typing import ClassVar

from parallelchange.adapters.kubernetes.client import Cluster, Object
from parallelchange.adapters.kubernetes.kinds import Kind
from parallelchange.adapters.kubernetes.routers.shares import shares_of
from parallelchange.errors import NotFound, Unavailable

__all__ = ["Form", "newest_served", "only_one"]


class Form(ABC):
    """One kind of object that splits traffic.

    Args:
        cluster: The namespace.
        service: The root Service.
    """

    kind: ClassVar[Kind]

    def __init__(self, cluster: Cluster, service: str) -> None:
        self.cluster, self.service = cluster, service
        self._served: Kind | None = None

    @abstractmethod
    def find(self) -> Object:
        """The one object that splits the root Service's traffic.

        Raises:
            Unavailable: There is none, or more than one, or it cannot be read.
        """

    @abstractmethod
    def weights(self, body: Object) -> list[list[tuple[str, object]]]:
        """Of each rule, the backend Services and their weights, as they are written.

        Raises:
            ValueError: Saying why backends cannot be told.
        """

    @abstractmethod
    def patch(self, body: Object, shares: Mapping[str, int]) -> Object:
        """The merge patch that gives each backend its share in thousandths."""

    def shares(self, body: Object) -> dict[str, Fraction]:
        """Backend Service to its share (0..1); the shares add up to 1.

        Raises:
            ValueError: Saying why they cannot be told.
        """
        return shares_of(self.weights(body))

    def backends(self, body: Object) -> tuple[str, ...]:
        """The backend Services, whatever their weights are.

        Raises:
            ValueError: Saying why they cannot be told.
        """
        return tuple(dict.fromkeys(name for rule in self.weights(body) for name, _ in rule))

    def follows(self, body: Object, shares: Mapping[str, Fraction]) -> bool:  # noqa: ARG002 - most meshes cannot tell
        """Whether the mesh is seen to route by the object as it stands; True where it has no way to tell."""
        return True

    def overridden(self, body: Object) -> tuple[str, ...]:  # noqa: ARG002
        """What else would decide over this traffic, in sentences."""
        return ()

    def served(self) -> Kind:
        """The kind in the version that the API server prefers.

        Raises:
            NotFound: It serves none.
        """
        if self._served is None:
            self._served = newest_served(self.cluster, self.kind)
        return self._served

    def _all(self) -> list[Object]:
        """All objects of the kind."""
        try:
            return self.cluster.all(self.served())
        except NotFound:
            # A version may cease to be served while we run.
            self._served = None
            return self.cluster.all(self.served())


def newest_served(cluster: Cluster, kind: Kind) -> Kind:
    """The kind in the version the API server prefers.

    Raises:
        NotFound: It serves none.
    """
    try:
        group = cluster.request("get", f"/apis/{kind.group}", f"read which versions of {kind.resource} there are")
    except NotFound:
        group = {"versions": []}
    preferred = (group.get("preferredVersion") or {}).get("version")
    versions = sorted((item["version"] for item in group["versions"]), key=lambda v: v != preferred)
    for version in versions:
        try:
            listed = cluster.request("get", f"/apis/{kind.group}/{version}", f"read what {kind.group}/{version} holds")
        except NotFound:
            continue
        if any(item["name"] == kind.plural for item in listed.get("resources") or ()):
            return kind.at(version)
    try:
        cluster.all(kind)  # one that is starting may not list yet what it serves
    except NotFound:
        raise NotFound(
            f"{cluster.name}: the API server serves no version of {kind.resource}",
            hint=f"install its CRD, or serve a version of it again: kubectl get crd {kind.resource}",
        ) from None
    return kind


def only_one(cluster: Cluster, kind: Kind, found: list[Object], service: str, what: str) -> Object:
    """The one object of a list.

    Raises:
        NotFound: There is none.
        Unavailable: There are several.
    """
    if not found:
        raise NotFound(
            f"no {kind.name} in {cluster.namespace} {what} Service {service}",
            hint="make it: `parallelchange emit kubernetes`, then `kubectl apply -k`",
        )
    if len(found) > 1:
        names = ", ".join(sorted(cluster.full(kind, item["metadata"]["name"]) for item in found))
        raise Unavailable(
            f"{names} all {what} Service {cluster.namespace}/{service}: which one counts cannot be told",
            hint="delete all but one",
        )
    return found[0]
