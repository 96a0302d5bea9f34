"""What moves traffic, what runs and what is measured: on this machine or in a cluster, as the change's router says."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, closing, contextmanager, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

from parallelchange.change import Change
from parallelchange.cli.settings import Settings
from parallelchange.ports import Enforcement, Lead, Metrics, Router, Workloads
from parallelchange.rollout.world import Alone, Event, NotEnforced

if TYPE_CHECKING:
    from parallelchange.adapters.kubernetes.client import Cluster
    from parallelchange.adapters.local_router import LocalRouter

__all__ = ["Surroundings", "cluster_of", "local_router", "surroundings"]

_CLUSTER_TICK = 5.0
"""Seconds between two looks in a cluster, where watches tell of what changes sooner."""


@dataclass(frozen=True)
class Surroundings:
    """The ports that differ between this machine and a cluster; each as `World` has it."""

    router: Router
    workloads: Workloads
    metrics: Metrics
    tell: Callable[[Event], None]
    enforcement: Enforcement
    lead: Callable[[], AbstractContextManager[Lead]]
    pause: Callable[[float], None] | None


@contextmanager
def surroundings(
    change: Change, settings: Settings, tell: Callable[[Event], None], *, stand_by: bool = False
) -> Iterator[Surroundings]:
    """Open what the change's router names.

    Args:
        change: The change.
        settings: Where the cluster or the local mesh is.
        tell: Told what happens; in a cluster, its Events are told as well.
        stand_by: Wait for as long as another process runs the rollout.
    """
    if change.traffic.router == "local":
        yield _local(change, settings, tell)
        return
    with _cluster(change, settings, tell, stand_by=stand_by) as found:
        yield found


def cluster_of(settings: Settings) -> Cluster:
    """The cluster that settings name."""
    from parallelchange.adapters.kubernetes.client import connect

    return connect(kubeconfig=settings.kubeconfig, context=settings.context, namespace=settings.namespace)


def local_router(change: Change, settings: Settings) -> LocalRouter:
    """What moves the traffic on this machine."""
    from parallelchange.adapters.local_files import TRAFFIC_SPLIT
    from parallelchange.adapters.local_router import LocalRouter

    service = change.traffic.service
    path = settings.state_dir / TRAFFIC_SPLIT
    return LocalRouter(path, service=service, stable=f"{service}-stable", canary=f"{service}-canary")


def _local(change: Change, settings: Settings, tell: Callable[[Event], None]) -> Surroundings:
    from parallelchange.adapters.local_files import METRICS
    from parallelchange.adapters.local_metrics import LocalMetrics
    from parallelchange.adapters.local_workloads import LocalWorkloads

    router = local_router(change, settings)
    clusters = {change.old.name: router.stable, change.new.name: router.canary}
    return Surroundings(
        router,
        LocalWorkloads(settings.state_dir, [version.name for version in change.versions]),
        LocalMetrics(settings.state_dir / METRICS, clusters),
        tell,
        NotEnforced(),
        lambda: nullcontext(Alone()),
        None,
    )


@contextmanager
def _cluster(
    change: Change, settings: Settings, tell: Callable[[Event], None], *, stand_by: bool
) -> Iterator[Surroundings]:
    from parallelchange.adapters.kubernetes.approvals import Approvals
    from parallelchange.adapters.kubernetes.events import Events
    from parallelchange.adapters.kubernetes.kinds import DEPLOYMENT, ENDPOINT_SLICE, POD, SERVICE
    from parallelchange.adapters.kubernetes.lease import Lease
    from parallelchange.adapters.kubernetes.metrics import make_metrics
    from parallelchange.adapters.kubernetes.routers import make_router
    from parallelchange.adapters.kubernetes.running import Running
    from parallelchange.adapters.kubernetes.watch import Watcher
    from parallelchange.adapters.kubernetes.workloads import ClusterWorkloads

    cluster = cluster_of(settings)
    running = Running(cluster, change)
    router = make_router(change, cluster, running)
    events = Events(cluster, router, change.name)

    def tell_both(event: Event) -> None:
        tell(event)
        events.tell(event)

    def lead() -> AbstractContextManager[Lead]:
        def waiting(what: str) -> None:
            tell(Event("waiting", what))

        return Lease(cluster, f"parallelchange-{change.name}", stand_by=stand_by, tell=waiting)

    with closing(cluster), Watcher(cluster, (router.form.kind, POD, DEPLOYMENT, SERVICE, ENDPOINT_SLICE)) as watcher:
        yield Surroundings(
            router,
            ClusterWorkloads(cluster, running, change.traffic.service, scaled=events.scaled),
            make_metrics(change, cluster, running, router, settings.prometheus),
            tell_both,
            Approvals(cluster, change, router),
            lead,
            lambda seconds: watcher.wait(max(seconds, _CLUSTER_TICK)),
        )
