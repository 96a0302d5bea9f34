"""Where a change's figures come from in a cluster: Prometheus, or the cluster's own SMI metrics API."""

from __future__ import annotations

from parallelchange.adapters.kubernetes.client import Cluster, Object
from parallelchange.adapters.kubernetes.kinds import TRAFFIC_METRICS
from parallelchange.adapters.kubernetes.routers.base import ClusterRouter
from parallelchange.adapters.kubernetes.running import Running
from parallelchange.adapters.kubernetes.smi_metrics import SmiMetrics
from parallelchange.adapters.prometheus.metrics import PrometheusMetrics
from parallelchange.adapters.prometheus.target import Target
from parallelchange.change import Change
from parallelchange.ports import Metrics, Sample

__all__ = ["make_metrics"]


class _Untold:
    """Nothing was named that could tell."""

    def read(self, version: str, window: float) -> Sample | None:  # noqa: ARG002 - the port's signature
        return None


def make_metrics(
    change: Change, cluster: Cluster, running: Running, router: ClusterRouter, prometheus: str | None
) -> Metrics:
    """The metrics a change names.

    Args:
        change: The change.
        cluster: The namespace.
        running: Tells which Deployments and Services are which version.
        router: Tells which of them take traffic.
        prometheus: Address the settings name; None for the change file's.
    """
    spec = change.metrics

    def target(version: str) -> Target:
        """What takes traffic and runs the version: what takes none has no figures."""
        seen, shares = running.look(), router.get().backends
        services = sorted(name for name in shares if shares[name] and seen.behind(name).version == version)
        deployments = {name for service in services for name in seen.behind(service).deployments}
        return Target(cluster.namespace, tuple(sorted(deployments)), tuple(services))

    def read(deployment: str) -> Object:
        return cluster.read(TRAFFIC_METRICS, deployment)

    if spec is not None and spec.smi:
        return SmiMetrics(read, target)
    address = prometheus or (spec.prometheus if spec else None)
    if spec is None or address is None:
        return _Untold()
    return PrometheusMetrics(address, spec.queries, target)
