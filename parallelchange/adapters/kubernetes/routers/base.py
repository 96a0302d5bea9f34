"""What all routers of the cluster have in common: whose share is whose, and writing by compare-and-swap."""

from __future__ import annotations

import math
import uuid
from abc import ABC, abstractmethod
from collections.abc import Mapping
from fractions import Fraction
from typing import Any, ClassVar

from parallelchange.adapters.kubernetes.client import Cluster, Object
from parallelchange.adapters.kubernetes.kinds import Kind
from parallelchange.adapters.kubernetes.preflight import problems
from parallelchange.adapters.kubernetes.running import Behind, Namespace, Running
from parallelchange.change import Change
from parallelchange.errors import Busy, NotFound, Unavailable, UsageError
from parallelchange.layout import BREAK_GLASS, LAYOUTS, STAMP, Role
from parallelchange.model import FULL, format_weight
from parallelchange.ports import Split

__all__ = ["ClusterRouter", "Form", "backend_names", "newest_served", "only_one", "owners_of", "shares_of_weights"]


class Form(ABC):
    """How one kind of object says which backend gets which share.

    Args:
        cluster: The namespace.
        service: The root Service.
    """

    kind: ClassVar[Kind]

    def __init__(self, cluster: Cluster, service: str) -> None:
        self.cluster, self.service = cluster, service

    @abstractmethod
    def find(self) -> Object:
        """The one object that splits the root Service's traffic.

        Raises:
            Unavailable: There is none, or more than one, or it cannot be read.
        """

    @abstractmethod
    def shares(self, body: Object) -> dict[str, Fraction]:
        """Backend Service to its share (0..1); the shares add up to 1.

        Raises:
            ValueError: Saying why they cannot be told.
        """

    @abstractmethod
    def patch(self, body: Object, shares: Mapping[str, int]) -> Object:
        """The merge patch that gives each backend its share in thousandths."""

    def follows(self, body: Object) -> bool:  # noqa: ARG002 - most meshes cannot tell
        """Whether the mesh is seen to route by the object as it stands; True where it has no way to tell."""
        return True

    def overridden(self, body: Object) -> tuple[str, ...]:  # noqa: ARG002
        """What else would decide over this traffic, in sentences."""
        return ()

    def served(self) -> Kind:
        """The kind in a version that the API server serves.

        Raises:
            Unavailable: It serves none.
        """
        return self.kind


class ClusterRouter:
    """Moves the traffic of a root Service.

    Args:
        change: Whose versions are told apart.
        cluster: The namespace.
        running: What runs there.
        form: How the object says it.
    """

    def __init__(self, change: Change, cluster: Cluster, running: Running, form: Form) -> None:
        self.change, self.cluster, self.running, self.form = change, cluster, running, form

    def get(self) -> Split:
        """Read the split, and whose each share is.

        Raises:
            Unavailable: It is not there, cannot be read, or says something no share can be told from.
        """
        return self._split(self.form.find(), self.running.look())

    def set(self, weight: int, *, resource_version: str) -> Split:
        """Give the new version that share, if the object is still the one that was read.

        Raises:
            Busy: It changed since; nothing was written.
            Blocked: The API server's policies refuse it.
            Uncertain: The API server went away; the same command finds out.
            Unavailable: It cannot be written, or no backend runs a version that would get a share.
        """
        if not 0 <= weight <= FULL:
            raise UsageError(f"weight {weight} is outside 0..{FULL} thousandths")
        body, seen = self.form.find(), self.running.look(anew=True)
        name, version = body["metadata"]["name"], body["metadata"]["resourceVersion"]
        if version != resource_version:
            raise Busy(
                f"{self._full(body)} changed since it was read: resourceVersion {version}, not {resource_version}",
                hint="read it again and ask the gate again",
            )
        stamp = uuid.uuid4().hex
        patch = self.form.patch(body, self._targets(weight, self._shares(body), seen))
        metadata = patch.setdefault("metadata", {})
        metadata["resourceVersion"] = version
        metadata["annotations"] = {**metadata.get("annotations", {}), STAMP: stamp}
        try:
            written = self.cluster.patch(self.form.served(), name, patch)
        except Busy:
            # The answer to a first try may have been lost: then the conflict is with ourselves.
            written = self.form.find()
            if (written["metadata"].get("annotations") or {}).get(STAMP) != stamp:
                raise
        split = self._split(written, seen)
        if not split.untold and split.weight != weight:
            raise Unavailable(
                f"{split.name} was given {format_weight(weight)} and reads {format_weight(split.weight)}",
                hint="something rewrites it as it is written: see its owners with `parallelchange doctor`",
            )
        return split

    def settled(self, split: Split) -> bool:
        """Whether the mesh is seen to route by this version of the split."""
        body = self.form.find()
        return body["metadata"]["resourceVersion"] == split.resource_version and self.form.follows(body)

    def problems(self) -> tuple[str, ...]:
        """Why the backends could not take a growing share, in sentences; empty when they could."""
        body, seen = self.form.find(), self.running.look()
        shares = self._shares(body)
        return (
            *problems(self.change, seen, list(shares), full=FULL * self._new_share(shares, seen) >= FULL),
            *self.form.overridden(body),
        )

    def owners(self) -> tuple[str, ...]:
        """Who else writes the object: its controller, and field managers of its spec."""
        return owners_of(self.form.find())

    def describe(self) -> dict[str, Any]:
        """The object and its backends, for people and for `--json`."""
        body, seen = self.form.find(), self.running.look()
        shares = self._shares(body)
        return {
            "object": self._full(body),
            "api_version": self.form.served().api_version,
            "resource_version": body["metadata"]["resourceVersion"],
            "backends": [
                {
                    "service": name,
                    "share": format_weight(_thousandths(share)),
                    "runs": seen.behind(name).told(),
                    "ready": seen.behind(name).ready,
                }
                for name, share in shares.items()
            ],
            "owners": list(owners_of(body)),
            "break_glass": (body["metadata"].get("annotations") or {}).get(BREAK_GLASS),
            "follows": self.form.follows(body),
        }

    def old_backends(self) -> tuple[str, ...]:
        """Backend Services all of whose pods run the old version."""
        seen, shares = self.running.look(), self._shares(self.form.find())
        return tuple(name for name in shares if seen.behind(name).version == self.change.old.name)

    def _full(self, body: Object) -> str:
        return self.cluster.full(self.form.kind, body["metadata"]["name"])

    def _shares(self, body: Object) -> dict[str, Fraction]:
        try:
            shares = self.form.shares(body)
        except ValueError as error:
            raise Unavailable(
                f"{self._full(body)}: {error}", hint="mend it by hand; traffic stays as it is until then"
            ) from None
        if sum(shares.values()) != 1:
            raise Unavailable(f"{self._full(body)}: its weights are all 0", hint="give one backend a weight")
        return shares

    def _new_share(self, shares: Mapping[str, Fraction], seen: Namespace) -> Fraction:
        new = self.change.new.name
        return sum((share for name, share in shares.items() if seen.behind(name).version == new), Fraction(0))

    def _split(self, body: Object, seen: Namespace) -> Split:
        shares = self._shares(body)
        behind = {name: seen.behind(name) for name, share in shares.items() if share}
        untold = [item for item in behind.values() if item.version is None]
        # What cannot be told may be the new version's.
        others = sum((shares[item.service] for item in untold), Fraction(0))
        return Split(
            name=self._full(body),
            weight=_thousandths(self._new_share(shares, seen) + others),
            resource_version=body["metadata"]["resourceVersion"],
            backends={name: _thousandths(share) for name, share in shares.items()},
            untold="; ".join(f"{item.told()}, and has {_percent(shares[item.service])}" for item in untold),
            break_glass=(body["metadata"].get("annotations") or {}).get(BREAK_GLASS, ""),
        )

    def _targets(self, weight: int, shares: Mapping[str, Fraction], seen: Namespace) -> dict[str, int]:
        """Each backend's share once the new version has that weight."""
        behind = {name: seen.behind(name) for name in shares}
        targets = dict.fromkeys(shares, 0)
        for version, role, share in (
            (self.change.old.name, Role.STABLE, FULL - weight),
            (self.change.new.name, Role.CANARY, weight),
        ):
            mine = [name for name in shares if behind[name].version == version]
            if share and sum((shares[name] for name in mine), Fraction(0)) * FULL == share:
                # It has that already, perhaps shared out by a pipeline's own task.
                targets |= {name: int(shares[name] * FULL) for name in mine}
                targets[mine[0]] += share - sum(targets[name] for name in mine)
            elif share:
                targets[self._taker(version, role, mine, behind)] += share
        return targets

    def _taker(self, version: str, role: Role, mine: list[str], behind: Mapping[str, Behind]) -> str:
        if not mine:
            told = "; ".join(item.told() for item in behind.values())
            raise Unavailable(
                f"no backend of Service {self.cluster.namespace}/{self.change.traffic.service} runs {version}: {told}",
                hint=f"deploy {version} behind a backend of its own",
            )
        by_role = LAYOUTS[self.change.traffic.layout].service(self.change.traffic.service, role)
        return max(mine, key=lambda name: (behind[name].ready > 0, name == by_role))


def _thousandths(share: Fraction) -> int:
    """Rounded up: a share is never told smaller than it is."""
    return math.ceil(share * FULL)


def _percent(share: Fraction) -> str:
    return format_weight(_thousandths(share))


def owners_of(body: Object) -> tuple[str, ...]:
    """The controller an object belongs to, and who else has set fields of its spec.

    Sources: `metadata.ownerReferences` and `metadata.managedFields` of the Kubernetes API conventions.
    """
    from parallelchange.adapters.kubernetes.client import FIELD_MANAGER

    metadata = body["metadata"]
    controllers = [
        f"{item['kind']} {item['name']} (its controller)"
        for item in metadata.get("ownerReferences") or ()
        if item.get("controller")
    ]
    writers = {
        f"field manager {item['manager']}"
        for item in metadata.get("managedFields") or ()
        if item.get("manager") != FIELD_MANAGER and "f:spec" in (item.get("fieldsV1") or {})
    }
    return (*controllers, *sorted(writers))


def backend_names(service: str) -> frozenset[str]:
    """Names that Services behind a root Service have."""
    return frozenset({service, *(f"{service}-{role}" for role in Role)})


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
    raise NotFound(
        f"{cluster.name}: the API server serves no version of {kind.resource}",
        hint=f"install its CRD, or serve a version of it again: kubectl get crd {kind.resource}",
    )


def shares_of_weights(weights: Mapping[str, Fraction]) -> dict[str, Fraction]:
    """Shares from weights of any sum; all 0 where the sum is.

    Raises:
        ValueError: A weight is negative.
    """
    if any(weight < 0 for weight in weights.values()):
        raise ValueError("a weight is below 0")
    total = sum(weights.values(), Fraction(0))
    return {name: weight / total if total else Fraction(0) for name, weight in weights.items()}
