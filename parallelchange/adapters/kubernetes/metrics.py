"""Where a change's figures come from in a cluster: Prometheus, or the cluster's own SMI metrics API."""

from __future__ import annotations

from parallelchange.adapters.kubernetes.client import Cluster, Object
from parallelchange.adapters.kubernetes.kinds import TRAFFIC_METRICS
from parallelchange.adapters.kubernetes.running import Running
from parallelchange.adapters.kubernetes_metrics import SmiMetrics
from parallelchange.adapters.prometheus.metrics import PrometheusMetrics
from parallelchange.adapters.prometheus.target import Target
from parallelchange.change import Change
from parallelchange.ports import Metrics, Sample

__all__ = ["make_metrics"]


class _Untold:
    """Nothing was named that could tell."""

    def read(self, version: str, window: float) -> Sample | None:  # noqa: ARG002 - the port's signature
        return None


def make_metrics(change: Change, cluster: Cluster, running: Running, prometheus: str | None) -> Metrics:
    """The metrics a change names.

    Args:
        change: The change.
        cluster: The namespace.
        running: Tells which Deployments and Services are which version.
        prometheus: Address the settings name; None for the change file's.
    """
    spec, service = change.metrics, change.traffic.service

    def target(version: str) -> Target:
        seen = running.look()
        pods = [item for item in seen.deployments.values() if seen.version_of(item["spec"]["template"]) == version]
        backends = [name for name in seen.services if name.startswith(f"{service}-") or name == service]
        return Target(
            namespace=cluster.namespace,
            deployments=tuple(sorted(item["metadata"]["name"] for item in pods)),
            services=tuple(sorted(name for name in backends if seen.behind(name).version == version)),
        )

    def read(name: str) -> Object:
        return cluster.read(TRAFFIC_METRICS, name)

    if spec is not None and spec.smi:
        return SmiMetrics(read, target)
    address = prometheus or (spec.prometheus if spec else None)
    if spec is None or address is None:
        return _Untold()
    return PrometheusMetrics(address, spec.queries, target)
