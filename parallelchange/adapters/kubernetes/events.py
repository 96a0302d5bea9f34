"""What a rollout does, as Kubernetes Events on the objects it touches: `kubectl describe` shows them."""

from __future__ import annotations

import socket
import uuid
from datetime import UTC, datetime

from parallelchange.adapters.kubernetes.client import FIELD_MANAGER, Cluster, Object
from parallelchange.adapters.kubernetes.kinds import EVENT
from parallelchange.adapters.kubernetes.routers.base import ClusterRouter
from parallelchange.errors import ParallelChangeError
from parallelchange.gates.base import Act
from parallelchange.layout import CHANGE
from parallelchange.rollout.decide import Decision, Kind
from parallelchange.rollout.world import Event

__all__ = ["Events"]

_LONGEST = 1024
"""Characters the API takes as a message."""


class Events:
    """Tells the cluster. What cannot be told is left untold: no rollout stops for it.

    Args:
        cluster: The namespace.
        router: Its object is what the Events are about.
        change: The change's name.
    """

    def __init__(self, cluster: Cluster, router: ClusterRouter, change: str) -> None:
        self.cluster, self.router, self.change = cluster, router, change
        self._last = ""

    def tell(self, event: Event) -> None:
        """Make an Event of what is worth one: weights, phases, and why nothing goes on."""
        told = _worth_telling(event)
        if told is None or told[1] == self._last:
            return
        reason, message, warning = told
        self._last = message
        try:
            about = self.router.form.find()
            self.cluster.create(EVENT, self._body(about, reason, message, warning=warning))
        except ParallelChangeError:
            pass

    def _body(self, about: Object, reason: str, message: str, *, warning: bool) -> Object:
        now = datetime.now(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
        metadata = about["metadata"]
        return {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {
                "name": f"{metadata['name']}.{uuid.uuid4().hex[:16]}",
                "annotations": {CHANGE: self.change},
            },
            "involvedObject": {
                "apiVersion": self.router.form.served().api_version,
                "kind": self.router.form.kind.name,
                "name": metadata["name"],
                "namespace": self.cluster.namespace,
                "uid": metadata["uid"],
                "resourceVersion": metadata["resourceVersion"],
            },
            "type": "Warning" if warning else "Normal",
            "reason": reason,
            "message": f"{self.change}: {message}"[:_LONGEST],
            "firstTimestamp": now,
            "lastTimestamp": now,
            "count": 1,
            "source": {"component": FIELD_MANAGER, "host": socket.gethostname()},
            "reportingComponent": FIELD_MANAGER,
            "reportingInstance": socket.gethostname(),
        }


def _worth_telling(event: Event) -> tuple[str, str, bool] | None:
    """Reason, message, and whether it is a warning; None when it is not."""
    if event.kind == "decision":
        decision: Decision = event.data["decision"]
        reasons = {Kind.BLOCKED: "Blocked", Kind.HALTED: "Halted", Kind.DONE: "Done"}
        aborting = decision.act is Act.ABORT
        reason = "Aborting" if aborting else reasons.get(decision.kind)
        return (reason, decision.why, decision.kind is not Kind.DONE) if reason else None
    told = {
        "weight": ("WeightSet", f"the new version has {event.what}", False),
        "applied": ("PhaseApplied", f"{event.what} is done", False),
        "conflict": ("Conflict", event.what, True),
    }
    return told.get(event.kind)
