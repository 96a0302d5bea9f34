"""The shop in a cluster, named as Azure's task does: both versions, their Services, and what splits the traffic."""

from __future__ import annotations

import json
from collections.abc import Sequence
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
    "LAYOUT",
    "PORT",
    "RESOURCES",
    "STABLE",
    "accept_route",
    "approvals",
    "client_of",
    "cluster_change",
    "deployment",
    "put",
    "service",
    "shop",
    "split_object",
    "wait_ready",
    "weights_of",
]

LAYOUT = LAYOUTS["azure"]
STABLE, CANARY = "shop-stable", "shop-canary"
IMAGES = {"v1": "registry.example/shop:1", "v2": "registry.example/shop:2", "v3": "registry.example/shop:3"}
PORT = 8080
RESOURCES = {
    "smi": "trafficsplits.split.smi-spec.io",
    "gateway-api": "httproutes.gateway.networking.k8s.io",
    "nginx": "ingresses.networking.k8s.io",
    "istio": "virtualservices.networking.istio.io",
    "flagd": "featureflags.core.openfeature.dev",
}
"""What splits the traffic, for each router, as kubectl calls it."""
_CANARY = "nginx.ingress.kubernetes.io/canary"


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
        unit = 1 if canary % 10 else 10  # in percent where that is exact, as Istio's own documents have it
        route = [
            {"destination": {"host": STABLE}, "weight": stable // unit},
            {"destination": {"host": CANARY}, "weight": canary // unit},
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
    annotations = {_CANARY: "true", f"{_CANARY}-weight": str(canary), f"{_CANARY}-weight-total": "1000"}
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


def weights_of(cluster: Cluster, router: str, name: str = "shop") -> dict[str, Any]:
    """Each backend's weight as the object has it; of the first rule, where there are several."""
    body = cluster.get(RESOURCES[router], name)
    if router == "smi":
        return {item["service"]: item["weight"] for item in body["spec"]["backends"]}
    if router == "gateway-api":
        rule = next(rule for rule in body["spec"]["rules"] if rule.get("backendRefs"))
        return {ref["name"]: ref["weight"] for ref in rule["backendRefs"]}
    if router == "istio":
        return {item["destination"]["host"]: item["weight"] for item in body["spec"]["http"][0]["route"]}
    if router == "flagd":
        parts = body["spec"]["flagSpec"]["flags"]["shop"]["targeting"]["fractional"]
        return {f"shop-{part[0]}": part[1] for part in parts if isinstance(part, list)}
    annotations = body["metadata"]["annotations"]
    weight, total = (int(annotations[f"{_CANARY}-weight{end}"]) for end in ("", "-total"))
    return {STABLE: total - weight, CANARY: weight}


def put(cluster: Cluster, router: str, weights: Sequence[tuple[str, Any]], name: str = "shop") -> None:
    """Write weights by hand, past all gates; of a single rule."""
    if router == "smi":
        spec: dict[str, Any] = {"backends": [{"service": backend, "weight": weight} for backend, weight in weights]}
    elif router == "gateway-api":
        spec = {"rules": [{"backendRefs": [{"name": b, "port": 80, "weight": weight} for b, weight in weights]}]}
    elif router == "istio":
        spec = {"http": [{"route": [{"destination": {"host": b}, "weight": weight} for b, weight in weights]}]}
    elif router == "flagd":
        pairs = [[backend.removeprefix("shop-"), weight] for backend, weight in weights]
        spec = {"flagSpec": {"flags": {"shop": {"targeting": {"fractional": pairs}}}}}
    else:
        total = sum(weight for _, weight in weights)
        told = {f"{_CANARY}-weight": str(dict(weights)[CANARY]), f"{_CANARY}-weight-total": str(total)}
        _patch(cluster, router, name, {"metadata": {"annotations": told}})
        return
    _patch(cluster, router, name, {"spec": spec})


def _patch(cluster: Cluster, router: str, name: str, body: dict[str, Any], *more: str) -> None:
    cluster.kubectl("patch", RESOURCES[router], name, "--type=merge", f"--patch={json.dumps(body)}", *more)


def accept_route(
    cluster: Cluster,
    *,
    kinds: Sequence[str] = ("Service", "Gateway"),
    type: str = "Accepted",  # noqa: A002 - as the API has it
    status: str = "True",
) -> None:
    """Say of the HTTPRoute as it stands what its parents' controllers would; what is not said is well."""
    body = cluster.get(RESOURCES["gateway-api"], "shop")
    told = {"Accepted": "True", "ResolvedRefs": "True"} | {type: status}
    conditions = [
        {
            "type": condition,
            "status": holds,
            "reason": "Test",
            "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z",
            "observedGeneration": body["metadata"]["generation"],
        }
        for condition, holds in told.items()
    ]
    parents = [
        {"controllerName": "mesh.test/x", "parentRef": parent, "conditions": conditions}
        for parent in body["spec"]["parentRefs"]
        if parent["kind"] in kinds
    ]
    _patch(cluster, "gateway-api", "shop", {"status": {"parents": parents}}, "--subresource=status")
