"""What all routers of the cluster have in common: whose share is whose, and writing by compare-and-swap."""

from __future__ import annotations

import time
import uuid
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from parallelchange.adapters.kubernetes.client import FIELD_MANAGER, Cluster, Object
from parallelchange.adapters.kubernetes.preflight import problems
from parallelchange.adapters.kubernetes.routers.form import Form
from parallelchange.adapters.kubernetes.routers.shares import thousandths
from parallelchange.adapters.kubernetes.running import Behind, Namespace, Running
from parallelchange.change import Change
from parallelchange.errors import Blocked, Busy, Unavailable, Uncertain, UsageError
from parallelchange.layout import BREAK_GLASS, LAYOUTS, STAMP, Role
from parallelchange.model import FULL, format_weight
from parallelchange.ports import Split

__all__ = ["ClusterRouter", "owners_of"]

_BEHIND = 5.0
"""Seconds by which the approvals that the API server's policies see may be behind those that were just written."""
_AGAIN = 0.2


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
            Unavailable: It is not there, or cannot be read.
        """
        # Always anew: every observation begins with it, and contract asks again under its locks.
        return self._split(self.form.find(), self.running.look(anew=True))

    def set(self, weight: int, *, resource_version: str) -> Split:
        """Give the new version that share, if the object is still the one that was read.

        All traffic goes back to the old version (0) whatever the weights are, as long as one backend surely runs it.

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
        shares, untold = self._shares(body)
        if untold and weight:
            raise self._unreadable(body, untold)
        live = {backend: shares.get(backend, Fraction(0)) for backend in self._backends(body)}
        patch = self.form.patch(body, self._targets(weight, live, seen))
        stamp = uuid.uuid4().hex
        metadata = patch.setdefault("metadata", {})
        metadata["resourceVersion"] = version
        # A reason to break the glass was one for the write that brought it, and not for ours.
        metadata["annotations"] = {**metadata.get("annotations", {}), STAMP: stamp, BREAK_GLASS: None}
        try:
            written = self._patch(name, patch)
        except (Busy, Uncertain) as error:
            written = self._written(stamp, error)
        split = self._split(written, seen)
        if split.untold or split.weight != weight:
            live_now = split.untold or format_weight(split.weight)
            raise Unavailable(
                f"{split.name} was given {format_weight(weight)} and now says: {live_now}",
                hint="something rewrites it as it is written: see its owners with `parallelchange doctor`",
            )
        return split

    def settled(self, split: Split) -> bool:
        """Whether the object still says the same, and the mesh is seen to route by it.

        Its version may have moved on: controllers write what they think of it into its status.
        """
        body = self.form.find()
        shares, untold = self._shares(body)
        return not untold and _in_thousandths(shares) == split.backends and self.form.follows(body, shares)

    def problems(self) -> tuple[str, ...]:
        """Why the backends could not take a growing share, in sentences; empty when they could."""
        body, seen = self.form.find(), self.running.look()
        shares, untold = self._shares(body)
        if untold:
            return (f"{self._full(body)}: {untold}",)
        return (
            *problems(self.change, seen, list(shares), full=self._new_share(shares, seen) == 1),
            *self.form.overridden(body),
        )

    def owners(self) -> tuple[str, ...]:
        """Who else writes the object: its controller, and field managers of its spec."""
        return owners_of(self.form.find())

    def describe(self) -> dict[str, Any]:
        """The object and its backends, for people and for `--json`."""
        body, seen = self.form.find(), self.running.look()
        shares, untold = self._shares(body)
        return {
            "object": self._full(body),
            "api_version": self.form.served().api_version,
            "resource_version": body["metadata"]["resourceVersion"],
            "backends": [
                {
                    "service": name,
                    "share": format_weight(thousandths(share)),
                    "runs": seen.behind(name).told(),
                    "ready": seen.behind(name).ready,
                }
                for name, share in shares.items()
            ],
            "untold": untold or self._split(body, seen).untold,
            "owners": list(owners_of(body)),
            "break_glass": _break_glass(body) or None,
            "follows": not untold and self.form.follows(body, shares),
        }

    def old_backends(self) -> tuple[str, ...]:
        """Backend Services all of whose pods run the old version."""
        body, seen = self.form.find(), self.running.look(anew=True)
        return tuple(name for name in self._backends(body) if seen.behind(name).version == self.change.old.name)

    def _full(self, body: Object) -> str:
        return self.cluster.full(self.form.kind, body["metadata"]["name"])

    def _shares(self, body: Object) -> tuple[dict[str, Fraction], str]:
        """Each backend's share; none, and why, where they cannot be told."""
        try:
            return self.form.shares(body), ""
        except ValueError as error:
            return {}, str(error)

    def _backends(self, body: Object) -> tuple[str, ...]:
        try:
            return self.form.backends(body)
        except ValueError as error:
            raise self._unreadable(body, str(error)) from None

    def _unreadable(self, body: Object, why: str) -> Unavailable:
        return Unavailable(f"{self._full(body)}: {why}", hint="mend it by hand; traffic stays as it is until then")

    def _patch(self, name: str, patch: Object) -> Object:
        give_up = time.monotonic() + _BEHIND
        while True:
            try:
                return self.cluster.patch(self.form.served(), name, patch)
            except Blocked:
                if time.monotonic() > give_up:
                    raise
                time.sleep(_AGAIN)

    def _written(self, stamp: str, error: Busy | Uncertain) -> Object:
        """The object, if it bears our stamp: then a first try went through, and only its answer was lost.

        Raises:
            Busy: Somebody else wrote it.
            Uncertain: It may or may not be written.
        """
        try:
            body = self.form.find()
        except Unavailable as unseen:
            told = f"whether {self.form.kind.name} of Service {self.form.service} was written is not known"
            raise Uncertain(
                f"{told}: {unseen.message}", hint="run the same command again: it finds out whether it was written"
            ) from None
        if _annotations(body).get(STAMP) != stamp:
            raise error
        return body

    def _new_share(self, shares: Mapping[str, Fraction], seen: Namespace) -> Fraction:
        new = self.change.new.name
        return sum((share for name, share in shares.items() if seen.behind(name).version == new), Fraction(0))

    def _split(self, body: Object, seen: Namespace) -> Split:
        shares, unreadable = self._shares(body)
        behind = [seen.behind(name) for name, share in shares.items() if share]
        untold = [item for item in behind if item.version is None]
        # What cannot be told may be the new version's.
        others = sum((shares[item.service] for item in untold), Fraction(0))
        told = "; ".join(f"{item.told()}, and has {_percent(shares[item.service])}" for item in untold)
        return Split(
            name=self._full(body),
            weight=FULL if unreadable else thousandths(self._new_share(shares, seen) + others),
            resource_version=body["metadata"]["resourceVersion"],
            backends=_in_thousandths(shares),
            untold=unreadable or told,
            break_glass=_break_glass(body),
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
            taking = [name for name in mine if shares[name]]
            if not share:
                continue
            if sum((shares[name] for name in taking), Fraction(0)) * FULL == share and all(
                behind[name].ready for name in taking
            ):
                # It has that already, perhaps shared out by a pipeline's own task.
                targets |= {name: int(shares[name] * FULL) for name in taking}
                targets[taking[0]] += share - sum(targets[name] for name in taking)
            else:
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


def _in_thousandths(shares: Mapping[str, Fraction]) -> dict[str, int]:
    return {name: thousandths(share) for name, share in shares.items()}


def _percent(share: Fraction) -> str:
    return format_weight(thousandths(share))


def _annotations(body: Object) -> Mapping[str, str]:
    return body["metadata"].get("annotations") or {}


def _break_glass(body: Object) -> str:
    return _annotations(body).get(BREAK_GLASS, "")


def owners_of(body: Object) -> tuple[str, ...]:
    """The controller an object belongs to, and who else has set fields of its spec.

    Sources: `metadata.ownerReferences` and `metadata.managedFields` of the Kubernetes API conventions.
    """
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
