"""The user's own objects that route to the root Service: one of them may become the split."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from parallelchange.change import Change
from parallelchange.emit.kubernetes.documents import Document
from parallelchange.errors import InvalidFile

__all__ = ["NGINX", "find_route", "host_of", "targets"]

NGINX = "nginx.ingress.kubernetes.io/"
"""What the annotations of ingress-nginx begin with."""

Target = tuple[tuple[Any, ...], str]


def find_route(change: Change, documents: Sequence[Document]) -> Document | None:
    """The user's object that routes to the root Service, where the router has such objects; None where there is none.

    Raises:
        InvalidFile: There are several, or it splits traffic already, or the router needs one and there is none.
    """
    router, root = change.traffic.router, change.traffic.service
    kind = _KINDS[router][0]
    found = [item for item in documents if item.kind == kind and root in {name for _, name in targets(item)}]
    if router in ("smi", "flagd"):
        if found:
            raise found[0].error(f"splits Service {root} already", "spec", hint="leave it out: it is made anew")
        return None
    if len(found) > 1:
        raise found[1].error(
            f"routes to Service {root}, and so does {found[0].told}", "spec", hint="let one of them route to it"
        )
    if found:
        _check(found[0], root)
    elif router == "nginx":
        raise InvalidFile(
            f"`traffic.router`: the manifests have no Ingress that routes to Service {root}",
            path=change.path,
            line=change.line_of("traffic", "router"),
            hint="give its manifest: the canary Ingress is made from it",
        )
    return found[0] if found else None


def targets(document: Document) -> Iterator[Target]:
    """Place and name of each Service that an object routes to."""
    for kind, find in _KINDS.values():
        if kind == document.kind:
            yield from find(document)


def _check(route: Document, root: str) -> None:
    if route.kind == "Ingress":
        if route.data["apiVersion"] != "networking.k8s.io/v1":
            raise route.error(f"is of {route.data['apiVersion']}", "apiVersion", hint="write networking.k8s.io/v1")
        canary = f"{NGINX}canary"
        if canary in route.get("metadata", "annotations", default={}):
            raise route.error(
                "is a canary already", "metadata", "annotations", canary, hint="give the main Ingress: this one is made"
            )
        return
    for place, name in targets(route):
        if name == root and len(route.get(*place[:-1], kind=list)) > 1:
            raise route.error(
                f"splits the traffic of Service {root} already",
                *place,
                hint=f"route to {root} alone: the split is made",
            )
        if name == root and route.kind == "VirtualService" and route.get(*place, "destination", "subset", kind=str):
            raise route.error(
                f"routes to a subset of {root}", *place, hint="leave it out: each version has a Service of its own"
            )


def host_of(host: str, namespace: str | None) -> str:
    """The Service of our namespace that an Istio host names; another host as it is."""
    name, _, rest = host.partition(".")
    inside = not rest or (rest.split(".", 1)[0] == namespace if namespace else rest.split(".")[1:2] == ["svc"])
    return name if inside else host


def _ingress(document: Document) -> Iterator[Target]:
    for i in _indices(document, "spec", "rules"):
        for j in _indices(document, "spec", "rules", i, "http", "paths"):
            place = ("spec", "rules", i, "http", "paths", j, "backend")
            yield place, document.get(*place, "service", "name", kind=str, default="")
    default = ("spec", "defaultBackend")
    yield default, document.get(*default, "service", "name", kind=str, default="")


def _http_route(document: Document) -> Iterator[Target]:
    for i in _indices(document, "spec", "rules"):
        for j in _indices(document, "spec", "rules", i, "backendRefs"):
            place = ("spec", "rules", i, "backendRefs", j)
            reference = document.get(*place, default={})
            here = reference.get("namespace") in (None, document.namespace)
            if here and reference.get("kind", "Service") == "Service":
                yield place, str(reference.get("name"))


def _virtual_service(document: Document) -> Iterator[Target]:
    for i in _indices(document, "spec", "http"):
        for j in _indices(document, "spec", "http", i, "route"):
            place = ("spec", "http", i, "route", j)
            yield place, host_of(document.get(*place, "destination", "host", kind=str, default=""), document.namespace)


def _traffic_split(document: Document) -> Iterator[Target]:
    yield ("spec", "service"), document.get("spec", "service", kind=str, default="")


def _feature_flag(document: Document) -> Iterator[Target]:
    flags: Mapping[str, Any] = document.get("spec", "flagSpec", "flags", default={})
    for key in flags:
        yield ("spec", "flagSpec", "flags", key), str(key)


def _indices(document: Document, *place: Any) -> range:
    return range(len(document.get(*place, kind=list, default=[])))


_KINDS: Mapping[str, tuple[str, Callable[[Document], Iterator[Target]]]] = {
    "smi": ("TrafficSplit", _traffic_split),
    "gateway-api": ("HTTPRoute", _http_route),
    "nginx": ("Ingress", _ingress),
    "istio": ("VirtualService", _virtual_service),
    "flagd": ("FeatureFlag", _feature_flag),
}
