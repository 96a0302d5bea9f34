"""Linkerd: what the proxies of the version's own pods have answered.

The labels `namespace` and `deployment` are those that Linkerd's own Prometheus gives, and that Linkerd's
documentation has another one give.
"""

from __future__ import annotations

from parallelchange.adapters.prometheus.promql import Part, Queries, matcher
from parallelchange.adapters.prometheus.target import Target

__all__ = ["LINKERD"]

# The kubelet's probes never fail while a pod is ready, and would water down the failures of a version with
# little traffic. They can be told where no HTTPRoute of the user's own matches them (Linkerd 2.12 and newer).
_NO_PROBES = (
    matcher("route_kind", "!=", "default"),
    matcher("route_kind", "=", "default") + "," + matcher("route_name", "!=", "probe"),
)


def _parts(target: Target) -> tuple[Part, ...]:
    return tuple(_part(target.namespace, name) for name in target.deployments)


def _part(namespace: str, name: str) -> Part:
    pods = ",".join(
        (
            matcher("namespace", "=", namespace),
            matcher("deployment", "=", name),
            matcher("direction", "=", "inbound"),
        )
    )
    return Part(f"Deployment {namespace}/{name}", tuple(f"{pods},{further}" for further in _NO_PROBES))


LINKERD = Queries(
    counter="response_total",
    buckets="response_latency_ms_bucket",
    unit=1.0,
    # Linkerd classifies an answer by its HTTP status, its gRPC status and how its stream ended.
    succeeded=(("classification", "success"),),
    parts=_parts,
)
