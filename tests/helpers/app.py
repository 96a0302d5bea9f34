"""The shop in a cluster, named as Azure's task does: both versions, their Services, and what splits the traffic."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from helpers.controlplane import Cluster, wait_until

from parallelchange.adapters.kubernetes.client import Cluster as Client
from parallelchange.adapters.kubernetes.client import connect
from parallelchange.change import Change, Traffic, Version
from parallelchange.layout import LAYOUTS, Approval, Role, approvals_name

__all__ = [
    "CANARY",
    "IMAGES",
    "PORT",
    "STABLE",
    "approvals",
    "client_of",
    "cluster_change",
    "deployment",
    "service",
    "shop",
    "split_object",
    "wait_ready",
]

LAYOUT = LAYOUTS["azure"]
STABLE, CANARY = "shop-stable", "shop-canary"
IMAGES = {"v1": "registry.example/shop:1", "v2": "registry.example/shop:2", "v3": "registry.example/shop:3"}
PORT = 8080


def cluster_change(router: str = "smi", **traffic: Any) -> Change:
    """A change between two versions of the shop; only what moves traffic matters here."""
    old, new = (
        Version(name=name, application_name=f"shop-{name}", statements=None, probe=None, build=None, image=IMAGES[name])
        for name in ("v1", "v2")
    )
    plain = {"stages": (50, 250, 500, 1000), "soak": 60.0, "drain": 30.0, "drain_timeout": 60.0}
    return Change(
        name="split-name",
        path=Path("changes/split-name.yaml"),
        old=old,
        new=new,
        database=(),
        traffic=Traffic(router=router, service="shop", **{**plain, **traffic}),
        metrics=None,
        rows_per_second=None,
        max_age=3600.0,
    )


def client_of(cluster: Cluster, *, kubeconfig: Path | None = None, patience: float = 10.0) -> Client:
    """Our own client of a test's cluster."""
    return connect(kubeconfig=kubeconfig or cluster.kubeconfig, patience=patience)


def deployment(role: Role, version: str, *, replicas: int = 1) -> dict[str, Any]:
    """A Deployment of the shop."""
    labels = {"app": "shop", LAYOUT.label: role.value}
    container = {"name": "shop", "image": IMAGES[version], "ports": [{"name": "http", "containerPort": PORT}]}
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": LAYOUT.deployment("shop", role), "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {"containers": [container], "terminationGracePeriodSeconds": 1},
            },
        },
    }


def service(name: str, **selector: str) -> dict[str, Any]:
    """A Service of the shop."""
    ports = [{"name": "http", "port": 80, "targetPort": "http"}]
    spec = {"selector": {"app": "shop", **selector}, "ports": ports}
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name}, "spec": spec}


def split_object(router: str, *, name: str = "shop", canary: int = 0) -> list[dict[str, Any]]:
    """What splits the traffic, in each router's own form; the canary's share in thousandths."""
    stable = 1000 - canary
    metadata = {"name": name}
    if router == "smi":
        backends = [{"service": STABLE, "weight": stable}, {"service": CANARY, "weight": canary}]
        spec: dict[str, Any] = {"service": "shop", "backends": backends}
        return [
            {"apiVersion": "split.smi-spec.io/v1alpha2", "kind": "TrafficSplit", "metadata": metadata, "spec": spec}
        ]
    if router == "gateway-api":
        refs = [{"name": STABLE, "port": 80, "weight": stable}, {"name": CANARY, "port": 80, "weight": canary}]
        parent = {"group": "core", "kind": "Service", "name": "shop", "port": 80}
        spec = {"parentRefs": [parent], "rules": [{"backendRefs": refs}]}
        api = "gateway.networking.k8s.io/v1"
        return [{"apiVersion": api, "kind": "HTTPRoute", "metadata": metadata, "spec": spec}]
    if router == "istio":
        route = [
            {"destination": {"host": STABLE}, "weight": stable},
            {"destination": {"host": f"{CANARY}"}, "weight": canary},
        ]
        spec = {"hosts": ["shop"], "http": [{"route": route}]}
        api = "networking.istio.io/v1"
        return [{"apiVersion": api, "kind": "VirtualService", "metadata": metadata, "spec": spec}]
    if router == "flagd":
        targeting = {"fractional": [{"var": "targetingKey"}, ["stable", stable], ["canary", canary]]}
        variants = {"stable": "stable", "canary": "canary"}
        flag = {"state": "ENABLED", "variants": variants, "defaultVariant": "stable", "targeting": targeting}
        spec = {"flagSpec": {"flags": {"shop": flag}}}
        api = "core.openfeature.dev/v1beta1"
        return [{"apiVersion": api, "kind": "FeatureFlag", "metadata": metadata, "spec": spec}]
    prefix = "nginx.ingress.kubernetes.io/canary"
    annotations = {prefix: "true", f"{prefix}-weight": str(canary), f"{prefix}-weight-total": "1000"}
    return [_ingress(f"{name}-main", STABLE, {}), _ingress(name, CANARY, annotations)]


def _ingress(name: str, backend: str, annotations: dict[str, str]) -> dict[str, Any]:
    path = {
        "path": "/",
        "pathType": "Prefix",
        "backend": {"service": {"name": backend, "port": {"number": 80}}},
    }
    return {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "Ingress",
        "metadata": {"name": name, "annotations": annotations},
        "spec": {"rules": [{"host": "shop.example", "http": {"paths": [path]}}]},
    }


def shop(router: str = "smi", *, canary: int = 0) -> list[dict[str, Any]]:
    """Both versions, their Services, and what splits the traffic."""
    return [
        deployment(Role.STABLE, "v1"),
        deployment(Role.CANARY, "v2"),
        service("shop"),
        service(STABLE, **{LAYOUT.label: Role.STABLE.value}),
        service(CANARY, **{LAYOUT.label: Role.CANARY.value}),
        *split_object(router, canary=canary),
    ]


def approvals(**data: str) -> dict[str, Any]:
    """The ConfigMap with the approvals, as it is installed."""
    plain = {
        Approval.CHANGE: "split-name",
        Approval.SERVICE: "shop",
        Approval.APPROVED: "0",
        Approval.OLD_IMAGE: IMAGES["v1"],
        Approval.NEW_IMAGE: IMAGES["v2"],
        Approval.OLD_BACKENDS: STABLE,
        Approval.OLD_DEPLOYMENTS: "shop",
        Approval.SELECTOR: "app=shop",
        Approval.CONTRACTED: "false",
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": approvals_name("shop"), "labels": {"parallelchange/approvals": "shop"}},
        "data": {key.value: value for key, value in plain.items()} | data,
    }


def wait_ready(cluster: Cluster, *services: str) -> None:
    """Wait until each Service has a ready endpoint."""

    def ready() -> bool:
        for name in services or (STABLE, CANARY):
            slices = cluster.list("endpointslices", f"kubernetes.io/service-name={name}")
            if not any(e.get("conditions", {}).get("ready") for s in slices for e in s.get("endpoints") or ()):
                return False
        return True

    wait_until(ready, what=f"ready endpoints of {services or (STABLE, CANARY)}")
