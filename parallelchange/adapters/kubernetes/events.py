"""What a rollout does, as Kubernetes Events on the objects it touches: `kubectl describe` shows them."""

from __future__ import annotations

import socket
import uuid
from contextlib import suppress
from datetime import UTC, datetime

from parallelchange.adapters.kubernetes.client import FIELD_MANAGER, Cluster, Object
from parallelchange.adapters.kubernetes.kinds import DEPLOYMENT, EVENT, Kind
from parallelchange.adapters.kubernetes.routers.base import ClusterRouter
from parallelchange.errors import ParallelChangeError
from parallelchange.gates.base import Act
from parallelchange.layout import CHANGE
from parallelchange.rollout.decide import Decision
from parallelchange.rollout.decide import Kind as Verb
from parallelchange.rollout.world import Event

__all__ = ["Events"]

_PATIENCE = 2.0
"""Seconds for which an API server that is away is waited for: an abort must not wait for its Event."""
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
        self.cluster, self.change = cluster.within(_PATIENCE), change
        self.form = type(router.form)(self.cluster, router.form.service)
        self._last = ""

    def tell(self, event: Event) -> None:
        """Make an Event of what is worth one: weights, phases, and why nothing goes on."""
        told = _worth_telling(event)
        if told is None or told[1] == self._last:
            return
        reason, message, warning = told
        self._last = message
        try:
            about, kind = self.form.find(), self.form.served()
        except ParallelChangeError:
            return
        self.about(kind, about, reason, message, warning=warning)

    def scaled(self, item: Object, replicas: int) -> None:
        """Make an Event about a Deployment that a rollout has scaled."""
        self.about(DEPLOYMENT, item, "Scaled", f"scaled to {replicas} copies")

    def about(self, kind: Kind, about: Object, reason: str, message: str, *, warning: bool = False) -> None:
        """Make an Event about an object.

        Args:
            kind: Its kind.
            about: The object.
            reason: In CamelCase, as the API has it.
            message: In a sentence.
            warning: Whether somebody should look.
        """
        with suppress(ParallelChangeError):
            self.cluster.create(EVENT, self._body(kind, about, reason, message, warning=warning))

    def _body(self, kind: Kind, about: Object, reason: str, message: str, *, warning: bool) -> Object:
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
                "apiVersion": kind.api_version,
                "kind": kind.name,
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
        reasons = {Verb.BLOCKED: "Blocked", Verb.HALTED: "Halted", Verb.DONE: "Done"}
        aborting = decision.act is Act.ABORT
        reason = "Aborting" if aborting else reasons.get(decision.kind)
        return (reason, decision.why, decision.kind is not Verb.DONE) if reason else None
    told = {
        "weight": ("WeightSet", f"the new version has {event.what}", False),
        "applied": ("PhaseApplied", f"{event.what} is done", False),
        "conflict": ("Conflict", event.what, True),
    }
    return told.get(event.kind)
