"""Istio: what the sidecars of the version's own pods have answered."""

from __future__ import annotations

from parallelchange.adapters.prometheus.promql import Part, Queries, matcher
from parallelchange.adapters.prometheus.target import Target

__all__ = ["ISTIO"]


def _parts(target: Target) -> tuple[Part, ...]:
    return tuple(_part(target.namespace, name) for name in target.deployments)


def _part(namespace: str, name: str) -> Part:
    # The caller's sidecar counts the same request once more.
    workload = (
        matcher("reporter", "=", "destination"),
        matcher("destination_workload_namespace", "=", namespace),
        matcher("destination_workload", "=", name),
    )
    return Part(f"Deployment {namespace}/{name}", (",".join(workload),))


ISTIO = Queries(
    counter="istio_requests_total",
    buckets="istio_request_duration_milliseconds_bucket",
    unit=1.0,
    succeeded=(
        # 0 is no answer.
        ("response_code", "[1-4].."),
        # A gRPC error comes with response code 200. These are OK and the codes that blame the caller; there is
        # no such label on plain HTTP. UNIMPLEMENTED (12) is the server's: a version that lacks a method.
        ("grpc_response_status", "|0|1|3|5|6|7|8|9|10|11|16"),
    ),
    parts=_parts,
)
