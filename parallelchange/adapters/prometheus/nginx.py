"""ingress-nginx: what the controller has passed on to the version's Services.

A gRPC error that comes with status 200 is a success to it.
"""

from __future__ import annotations

from parallelchange.adapters.prometheus.promql import Part, Queries, literally, matcher
from parallelchange.adapters.prometheus.target import Target

__all__ = ["NGINX"]


def _parts(target: Target) -> tuple[Part, ...]:
    return tuple(_part(target.namespace, name) for name in target.services)


def _part(namespace: str, name: str) -> Part:
    # A Prometheus that gives the controller's namespace, or the Service it was found by, as labels of its own
    # keeps the Ingress' labels of that name as `exported_…`.
    spaces = [matcher(label, "=", namespace) for label in ("namespace", "exported_namespace")]
    services = [matcher(label, "=", name) for label in ("service", "exported_service")]
    # Every request has the labels of the main Ingress, and `canary` when it went to the other one's Service.
    mine = [f"{space},{service},{matcher('canary', '=~', '|-')}" for space in spaces for service in services]
    # It is namespace, Service and port. No dash in the port: `shop` is not to be taken for `shop-canary`.
    canary = matcher("canary", "=~", f"{literally(f'{namespace}-{name}-')}[0-9a-z]+")
    selectors = (*mine, *(f"{space},{canary}" for space in spaces))
    return Part(f"Service {namespace}/{name}", selectors)


NGINX = Queries(
    counter="nginx_ingress_controller_requests",
    buckets="nginx_ingress_controller_request_duration_seconds_bucket",
    unit=1000.0,
    # With status classes switched on it is `2xx`.
    succeeded=(("status", "[1-4].."),),
    parts=_parts,
)
