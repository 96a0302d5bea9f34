"""Envoy as it is: what it has passed on to the version's clusters, whichever control plane made them.

A cluster's name need not tell its namespace, so the Prometheus that is asked must not hold another namespace's
clusters of the same name. A gRPC error that comes with status 200 is a success to Envoy.
"""

from __future__ import annotations

from parallelchange.adapters.prometheus.promql import Part, Queries, literally, matcher
from parallelchange.adapters.prometheus.target import Target

__all__ = ["ENVOY"]


def _parts(target: Target) -> tuple[Part, ...]:
    return tuple(_part(target.namespace, name) for name in target.services)


def _part(namespace: str, name: str) -> Part:
    # A cluster that is called as the Service, or as Contour does it: namespace, Service and port.
    clusters = f"{literally(name)}|{literally(f'{namespace}_{name}_')}[0-9a-zA-Z-]+"
    return Part(f"Service {namespace}/{name}", (matcher("envoy_cluster_name", "=~", clusters),))


ENVOY = Queries(
    counter="envoy_cluster_upstream_rq",
    buckets="envoy_cluster_upstream_rq_time_bucket",
    unit=1.0,
    succeeded=(("envoy_response_code", "[1-4].."),),
    parts=_parts,
)
