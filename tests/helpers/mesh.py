"""The local mesh as a cluster's: Envoy routes by the TrafficSplit in the API server, and pods are its processes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

from helpers.controlplane import Cluster
from helpers.kubelet import Kubelet, Pod
from parallelchange.adapters.kubernetes.client import Cluster as Client
from parallelchange.adapters.kubernetes.client import connect
from parallelchange.adapters.kubernetes.kinds import SERVICE_PROFILE, TRAFFIC_SPLIT
from parallelchange.adapters.local_files import TRAFFIC_SPLIT as SPLIT_FILE
from parallelchange.adapters.local_router import LocalRouter
from parallelchange.adapters.local_workloads import LocalWorkloads
from parallelchange.errors import Busy, NotFound, Unavailable
from parallelchange.layout import LAYOUTS

__all__ = ["ClusterMesh", "processes_as_pods"]

_LOOK = 0.1
_ROLES = LAYOUTS["azure"].label


class ClusterMesh:
    """Does what Linkerd and its SMI adaptor do: routes by the split, and says so in a ServiceProfile.

    Args:
        cluster: Where the split is.
        state_dir: Of the local mesh that has the traffic.
        service: The root Service; the local mesh knows its `-stable` and `-canary`.
        on_weight: Told each canary share, in thousandths, once Envoy routes by it.
    """

    def __init__(
        self, cluster: Cluster, state_dir: Path, service: str, on_weight: Callable[[int], None] = lambda _: None
    ) -> None:
        self.client: Client = connect(kubeconfig=cluster.kubeconfig, patience=1.0)
        self.service, self.stable, self.canary = service, f"{service}-stable", f"{service}-canary"
        self.router = LocalRouter(state_dir / SPLIT_FILE, service=service, stable=self.stable, canary=self.canary)
        self.on_weight, self._told = on_weight, -1
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="cluster-mesh")
        self.failure: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.client.close()
        if self.failure:
            raise self.failure

    def _run(self) -> None:
        try:
            while not self._stop.wait(_LOOK):
                try:
                    self._follow()
                except (Unavailable, Busy):
                    continue  # an API server that is away: traffic stays as it is
        except BaseException as error:  # noqa: BLE001 - raised again where the test sees it
            self.failure = error

    def _follow(self) -> None:
        found = [s for s in self.client.all(TRAFFIC_SPLIT) if s["spec"]["service"] == self.service]
        if len(found) != 1:
            return
        weights = {b["service"]: int(b["weight"]) for b in found[0]["spec"]["backends"]}
        assert {name for name, weight in weights.items() if weight} <= {self.stable, self.canary}
        live = self.router.get()
        if live.weight != weights[self.canary]:
            live = self.router.set(weights[self.canary], resource_version=live.resource_version)
        if self.router.settled(live):
            self._say(weights)
            if live.weight != self._told:
                self._told = live.weight
                self.on_weight(live.weight)

    def _say(self, weights: Mapping[str, int]) -> None:
        """As the adaptor writes it; only once Envoy has confirmed that it routes so."""
        name = f"{self.service}.{self.client.namespace}.svc.cluster.local"
        told = [
            {"authority": f"{s}.{self.client.namespace}.svc.cluster.local", "weight": w} for s, w in weights.items()
        ]
        try:
            profile = self.client.read(SERVICE_PROFILE, name)
        except NotFound:
            body: dict[str, Any] = {
                "apiVersion": SERVICE_PROFILE.api_version,
                "kind": "ServiceProfile",
                "metadata": {"name": name},
                "spec": {"dstOverrides": told},
            }
            self.client.create(SERVICE_PROFILE, body)
            return
        if profile["spec"].get("dstOverrides") != told:
            self.client.patch(SERVICE_PROFILE, name, {"spec": {"dstOverrides": told}})


def processes_as_pods(cluster: Cluster, state_dir: Path) -> Kubelet:
    """A kubelet whose stable and canary pods are the local mesh's two processes."""
    workloads = LocalWorkloads(state_dir)
    versions = {"stable": "shop-v1", "canary": "shop-v2"}
    running: dict[str, set[str]] = {role: set() for role in versions}

    def role_of(pod: Pod) -> str | None:
        role = (pod["metadata"].get("labels") or {}).get(_ROLES)
        return role if role in versions else None

    def start(pod: Pod) -> None:
        if role := role_of(pod):
            running[role].add(pod["metadata"]["uid"])
            workloads.scale(versions[role], 1)

    def stop(pod: Pod) -> None:
        role = role_of(pod)
        if role and not (running[role] - {pod["metadata"]["uid"]}):
            workloads.scale(versions[role], 0)
        if role:
            running[role].discard(pod["metadata"]["uid"])

    return Kubelet(cluster, on_start=start, on_stop=stop)
