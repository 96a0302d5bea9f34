"""The object that moves traffic, for each kind of router: all of it on stable to begin with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from parallelchange.emit.kubernetes.documents import Document
from parallelchange.emit.kubernetes.routes import NGINX, targets
from parallelchange.emit.kubernetes.source import Request
from parallelchange.layout import Role
from parallelchange.model import FULL

__all__ = ["Resource", "Traffic", "traffic"]

# Of the canary's Ingress, ingress-nginx reads these alone; whatever else it needs it takes from the main one.
_NGINX_KEPT = (
    "kubernetes.io/ingress.class",
    f"{NGINX}load-balance",
    f"{NGINX}upstream-hash-by",
    f"{NGINX}affinity",
    f"{NGINX}session-cookie",
)
_PERCENT = 100
_WEIGHTS = {role: FULL if role is Role.STABLE else 0 for role in Role}
_Backend = Callable[[dict[str, Any], str, int], dict[str, Any]]
_AGAIN = (
    "Applied again while a rollout runs, this sends all traffic back to the old version; the rollout then halts, "
    "because somebody else moved the traffic."
)


@dataclass(frozen=True)
class Resource:
    """An API resource, as rights name it.

    Args:
        group: Its API group.
        plural: Its plural name.
    """

    group: str
    plural: str


@dataclass(frozen=True)
class Traffic:
    """What moves traffic.

    Args:
        split: The object whose weights are written.
        resource: Its resource.
        about: What its reader should know.
        baseline: JSON pointers of the baseline among the backends, and the pointer and value that tell it is there.
        besides: Objects of the user's that had to change with it.
    """

    split: dict[str, Any]
    resource: Resource
    about: str
    baseline: tuple[tuple[str, str, str], ...] = ()
    besides: tuple[dict[str, Any], ...] = ()

    @property
    def name(self) -> str:
        """The object's name."""
        return str(self.split["metadata"]["name"])


def traffic(request: Request) -> Traffic:
    """What moves the change's traffic.

    Raises:
        InvalidFile: The root Service has no one port that HTTP traffic is split on.
    """
    return _ROUTERS[request.change.traffic.router](request)


def _smi(request: Request) -> Traffic:
    version = request.options.split_version
    # Weights were quantities in the first version of the API, and have been whole numbers since.
    backends = [
        {"service": request.backend(role), "weight": f"{weight}m" if version == "v1alpha1" else weight}
        for role, weight in _WEIGHTS.items()
    ]
    split = {
        "apiVersion": f"split.smi-spec.io/{version}",
        "kind": "TrafficSplit",
        "metadata": request.metadata(request.layout.split(request.root)),
        "spec": {"service": request.root, "backends": backends},
    }
    baseline = _pointer(request, "/spec/backends/1", "service")
    return Traffic(split, Resource("split.smi-spec.io", "trafficsplits"), _AGAIN, (baseline,))


def _gateway(request: Request) -> Traffic:
    resource = Resource("gateway.networking.k8s.io", "httproutes")
    if request.route:
        return _rewritten(request, request.route, resource, _reference, "name")
    port = _http_port(request.service)
    split = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": request.metadata(request.layout.split(request.root)),
        "spec": {
            # The API has the core group as "", which Linkerd and Istio both read.
            "parentRefs": [{"group": "", "kind": "Service", "name": request.root, "port": port}],
            "rules": [
                {
                    "backendRefs": [
                        {"name": request.backend(role), "port": port, "weight": weight}
                        for role, weight in _WEIGHTS.items()
                    ]
                }
            ],
        },
    }
    about = f"Splits what meshed clients send to port {port} of Service {request.root}. {_AGAIN}"
    return Traffic(split, resource, about, (_pointer(request, "/spec/rules/0/backendRefs/1", "name"),))


def _istio(request: Request) -> Traffic:
    resource = Resource("networking.istio.io", "virtualservices")
    if request.route:
        return _rewritten(request, request.route, resource, _destination, "destination/host")
    route = [
        {"destination": {"host": request.backend(role)}, "weight": weight * _PERCENT // FULL}
        for role, weight in _WEIGHTS.items()
    ]
    split = {
        "apiVersion": "networking.istio.io/v1",
        "kind": "VirtualService",
        "metadata": request.metadata(request.layout.split(request.root)),
        # Without a port, each request keeps the one it came for.
        "spec": {"hosts": [request.root], "http": [{"route": route}]},
    }
    return Traffic(split, resource, _AGAIN, (_pointer(request, "/spec/http/0/route/1", "destination/host"),))


def _flagd(request: Request) -> Traffic:
    # The variants are named as the roles; what the app reads is the Service to call.
    roles = (Role.STABLE, Role.CANARY)
    flag = {
        "state": "ENABLED",
        "variants": {role.value: request.backend(role) for role in roles},
        "defaultVariant": Role.STABLE.value,
        "targeting": {"fractional": [[role.value, _WEIGHTS[role]] for role in roles]},
    }
    split = {
        "apiVersion": "core.openfeature.dev/v1beta1",
        "kind": "FeatureFlag",
        "metadata": request.metadata(request.layout.split(request.root)),
        "spec": {"flagSpec": {"flags": {request.root: flag}}},
    }
    about = (
        f"The flag `{request.root}` tells whoever calls the app which Service to call. The root Service still selects "
        f"the pods of every version, so call none but those two. {_AGAIN}"
    )
    return Traffic(split, Resource("core.openfeature.dev", "featureflags"), about)


def _nginx(request: Request) -> Traffic:
    assert request.route is not None
    source, stable = request.route, request.backend(Role.STABLE)
    main, canary = _given(request, source), _given(request, source)
    places = [place for place, name in targets(source) if name == request.root]
    for place in places:
        _at(main, place)["service"]["name"] = stable
        _at(canary, place)["service"]["name"] = request.backend(Role.CANARY)
    annotations = source.get("metadata", "annotations", default={})
    kept = {key: value for key, value in annotations.items() if key.startswith(_NGINX_KEPT)}
    weighed = {f"{NGINX}canary": "true", f"{NGINX}canary-weight": "0", f"{NGINX}canary-weight-total": str(FULL)}
    split = {
        "apiVersion": canary["apiVersion"],
        "kind": "Ingress",
        "metadata": request.metadata(
            f"{source.name}-{Role.CANARY}", {request.layout.label: Role.CANARY.value}, {**kept, **weighed}
        ),
        "spec": _leading(canary["spec"], places),
    }
    about = (
        f"Ingress {source.name} now routes to {stable}: the root Service {request.root} selects the pods of every "
        f"version, so the new one would get traffic at weight 0 already. {_AGAIN}"
    )
    return Traffic(split, Resource("networking.k8s.io", "ingresses"), about, besides=(main,))


def _leading(spec: dict[str, Any], places: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """What of an Ingress has these backends; certificates are the main one's."""
    kept = {key: spec[key] for key in ("ingressClassName",) if key in spec}
    paths: dict[int, list[Any]] = {}
    for _, key, *rest in places:
        if key == "defaultBackend":
            kept[key] = spec[key]
        else:
            paths.setdefault(rest[0], []).append(_at(spec, (key, *rest[:-1])))
    rules = [{**spec["rules"][index], "http": {"paths": found}} for index, found in paths.items()]
    return {**kept, "rules": rules} if rules else kept


def _rewritten(request: Request, route: Document, resource: Resource, each: _Backend, path: str) -> Traffic:
    """The user's route, with a backend for each role where the root Service was."""
    made = _given(request, route)
    baseline = []
    for place, name in targets(route):
        if name == request.root:
            *above, index = place
            backends = _at(made, above)
            sole = backends.pop(index)
            backends += [each(sole, request.backend(role), weight) for role, weight in _WEIGHTS.items()]
            baseline.append(_pointer(request, "/".join(map(str, ("", *above, 1))), path))
    about = f"The user's own {route.kind}, with a weight for each version. {_AGAIN}"
    return Traffic(made, resource, about, tuple(baseline))


def _given(request: Request, source: Document) -> dict[str, Any]:
    made = {**deepcopy(source.data), "metadata": request.given(source)}
    made.pop("status", None)
    return made


def _reference(sole: dict[str, Any], name: str, weight: int) -> dict[str, Any]:
    return {**deepcopy(sole), "name": name, "weight": weight}


def _destination(sole: dict[str, Any], name: str, weight: int) -> dict[str, Any]:
    destination = {**deepcopy(sole["destination"]), "host": name}
    return {**deepcopy(sole), "destination": destination, "weight": weight * _PERCENT // FULL}


def _pointer(request: Request, at: str, name: str) -> tuple[str, str, str]:
    """JSON pointers of the baseline and of its name, and the name."""
    return at, f"{at}/{name}", request.backend(Role.BASELINE)


def _at(node: Any, place: Sequence[Any]) -> Any:
    for key in place:
        node = node[key]
    return node


def _http_port(service: Document) -> int:
    """The port of the root Service whose traffic an HTTPRoute splits."""
    ports = service.get("spec", "ports", kind=list)
    if len(ports) == 1:
        return int(ports[0]["port"])
    named = [
        port
        for port in ports
        if str(port.get("name", "")).partition("-")[0] == "http" or port.get("appProtocol") == "http"
    ]
    if len(named) != 1:
        names = ", ".join(str(port.get("name", port["port"])) for port in ports)
        raise service.error(
            f"which of its ports {names} has the HTTP traffic cannot be told",
            *("spec", "ports"),
            hint="name that one http, and no other",
        )
    return int(named[0]["port"])


_ROUTERS: Mapping[str, Callable[[Request], Traffic]] = {
    "smi": _smi,
    "gateway-api": _gateway,
    "nginx": _nginx,
    "istio": _istio,
    "flagd": _flagd,
}
