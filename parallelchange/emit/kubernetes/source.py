"""What of the user's manifests the change is about: the root Service, its one Deployment, and what routes to it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

from parallelchange.change import Change
from parallelchange.emit.kubernetes.documents import Document
from parallelchange.emit.kubernetes.routes import find_route
from parallelchange.errors import InvalidFile, UsageError
from parallelchange.layout import CHANGE, LAYOUTS, Layout, Role

__all__ = ["STRATEGIES", "Options", "Request", "find", "matches", "replicas"]

STRATEGIES = ("canary", "blue-green")
"""Ways to go from the old version to the new one."""

_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
_LONGEST = 63
_NAME = re.compile(r"[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?")
_SECRET = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_IMAGE = re.compile(r"[a-z0-9][\w./:@-]{0,254}", re.ASCII)
_WORKLOADS = ("StatefulSet", "DaemonSet", "ReplicaSet", "ReplicationController", "Rollout")


@dataclass(frozen=True, kw_only=True)
class Options:
    """What the command line adds to the change.

    Args:
        gate_image: Image that holds the repository and this toolkit.
        reference: How a Job in that image names the change.
        strategy: One of `STRATEGIES`.
        namespace: Where everything goes; None for the manifests' own namespace, or the context's.
        pull_secrets: Secrets with which images are pulled.
        split_version: Version of the TrafficSplit API.
    """

    gate_image: str
    reference: str
    strategy: str = "canary"
    namespace: str | None = None
    pull_secrets: tuple[str, ...] = ()
    split_version: str = "v1alpha2"


@dataclass(frozen=True, kw_only=True)
class Request:
    """All that the manifests are made from.

    Args:
        change: The change.
        options: What the command line says.
        layout: How things are named.
        service: The root Service.
        deployment: The Deployment behind it.
        route: The user's own object that routes to the root Service, where the router needs or has one.
        others: Everything else that was given.
        namespace: Where everything goes; None for the context's namespace.
        images: Each role's image.
    """

    change: Change
    options: Options
    layout: Layout
    service: Document
    deployment: Document
    route: Document | None
    others: tuple[Document, ...]
    namespace: str | None
    images: Mapping[Role, str]

    @property
    def root(self) -> str:
        """Name of the root Service."""
        return self.change.traffic.service

    @property
    def roles(self) -> tuple[Role, ...]:
        """The roles that the strategy has."""
        return (Role.STABLE, Role.CANARY) if self.options.strategy == "blue-green" else tuple(Role)

    def backend(self, role: Role) -> str:
        """Name of a role's Service."""
        return self.layout.service(self.root, role)

    def workload(self, role: Role) -> str:
        """Name of a role's Deployment."""
        return self.layout.deployment(self.deployment.name, role)

    def metadata(
        self,
        name: str,
        labels: Mapping[str, str] | None = None,
        annotations: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        """Metadata of an object we make."""
        made: dict[str, Any] = {"name": name}
        if self.namespace:
            made["namespace"] = self.namespace
        if labels:
            made["labels"] = dict(labels)
        made["annotations"] = {**(annotations or {}), CHANGE: self.change.name}
        return made

    def given(self, source: Document, name: str | None = None, role: Role | None = None) -> dict[str, Any]:
        """Metadata of an object that is made from one of the user's.

        Args:
            source: The user's.
            name: Its name; None for the same.
            role: Its role, which becomes label and annotation; None for none.
        """
        label = {self.layout.label: role.value} if role else {}
        labels = {**source.labels("metadata", "labels"), **label}
        annotations = {**source.get("metadata", "annotations", default={}), **label}
        annotations.pop(_APPLIED, None)
        made = self.metadata(name or source.name, labels, annotations)
        rest = {
            key: value for key, value in source.data["metadata"].items() if key not in (*made, "labels", "namespace")
        }
        return {**made, **deepcopy(rest)}

    def kubectl(self, rest: str) -> str:
        """A kubectl command line for comments."""
        where = f" -n {self.namespace}" if self.namespace else ""
        return f"  kubectl{where} {rest}"


def matches(selector: Mapping[str, str], labels: Mapping[str, str]) -> bool:
    """Whether a Service's selector selects pods with these labels; an empty one selects nothing."""
    return bool(selector) and selector.items() <= labels.items()


def replicas(deployment: Document) -> int:
    """How many copies a Deployment asks for; 1 where it does not say, as the API has it."""
    return int(deployment.get("spec", "replicas", kind=int, default=1))


def find(change: Change, documents: Sequence[Document], options: Options) -> Request:
    """Find what the change is about among the user's manifests.

    Args:
        change: The change.
        documents: The user's manifests.
        options: What the command line says.

    Raises:
        UsageError: An option or the change file cannot be used so.
        InvalidFile: The manifests hold too little, too much, or what the API server would not take.
    """
    _check_options(options)
    images = _images(change)
    _check_change(change, options)
    layout = LAYOUTS[change.traffic.layout]
    service = _service(change, documents)
    _check_service(service, layout)
    deployment = _deployment(service, documents, layout)
    _check_ports(service, deployment)
    route = find_route(change, documents)
    used = [item for item in (service, deployment, route) if item is not None]
    return Request(
        change=change,
        options=options,
        layout=layout,
        service=service,
        deployment=deployment,
        route=route,
        others=tuple(item for item in documents if not any(item is one for one in used)),
        namespace=_namespace(used, options),
        images=images,
    )


def _check_options(options: Options) -> None:
    if options.namespace is not None and not _NAME.fullmatch(options.namespace):
        raise UsageError(f"{options.namespace!r} is no namespace", hint="use up to 63 of a-z, 0-9 and -")
    for name in options.pull_secrets:
        if not _SECRET.fullmatch(name):
            raise UsageError(f"{name!r} is no name of a Secret", hint="use a-z, 0-9, - and .")
    if not _IMAGE.fullmatch(options.gate_image):
        raise UsageError(f"{options.gate_image!r} is no image", hint="write --gate-image NAME:TAG")


def _images(change: Change) -> dict[Role, str]:
    for key, version in (("old", change.old), ("new", change.new)):
        if not version.image:
            raise UsageError(
                f"{change.path}: no image is named for {version.name}",
                hint=f"set `versions.{key}.image` there, or PARALLELCHANGE_IMAGE_{key.upper()} in the environment",
            )
    old, new = str(change.old.image), str(change.new.image)
    if old == new:
        raise UsageError(
            f"{change.path}: {change.old.name} and {change.new.name} are the same image {old}",
            hint="set `versions.new.image`, or PARALLELCHANGE_IMAGE_NEW, to the image of the new version",
        )
    return {Role.STABLE: old, Role.BASELINE: old, Role.CANARY: new}


def _check_change(change: Change, options: Options) -> None:
    if change.traffic.router == "local":
        raise InvalidFile(
            "`traffic.router`: local is the mesh of one machine",
            path=change.path,
            line=change.line_of("traffic", "router"),
            hint="write smi, gateway-api, nginx, istio or flagd",
        )
    if options.strategy == "blue-green" and len(change.traffic.stages) > 1:
        raise InvalidFile(
            "`traffic.stages`: blue-green has no stage between 0% and 100%",
            path=change.path,
            line=change.line_of("traffic", "stages"),
            hint="write `stages: [100%]`, or use --strategy canary",
        )


def _service(change: Change, documents: Sequence[Document]) -> Document:
    root = change.traffic.service
    services = [item for item in documents if item.kind == "Service" and item.data["apiVersion"] == "v1"]
    found = [item for item in services if item.name == root]
    if not found:
        told = ", ".join(item.told for item in services) or "none"
        raise InvalidFile(
            f"`traffic.service`: the manifests have no Service {root}; there is {told}",
            path=change.path,
            line=change.line_of("traffic", "service"),
            hint="give the manifest it is in, or name another Service",
        )
    if len(found) > 1:
        raise found[1].error(f"is there twice: also at {found[0].path}:{found[0].line()}", hint="give one of them")
    return found[0]


def _check_service(service: Document, layout: Layout) -> None:
    longest = max((layout.service(service.name, role) for role in Role), key=len)
    if len(longest) > _LONGEST:
        raise service.error(f"{longest} is longer than {_LONGEST} characters", "metadata", "name", hint="shorten it")
    kind = service.get("spec", "type", kind=str, default="ClusterIP")
    if kind == "ExternalName" or service.get("spec", "clusterIP", kind=str) == "None":
        what = "ExternalName" if kind == "ExternalName" else "headless"
        raise service.error(
            f"is {what}, and its traffic cannot be split",
            *(("spec", "type") if kind == "ExternalName" else ("spec", "clusterIP")),
            hint="give it a cluster IP: clients must reach one address for all pods",
        )
    if not service.labels("spec", "selector"):
        raise service.error("has no selector", "spec", hint="select the pods of the app: `selector: {app: ...}`")
    if not service.get("spec", "ports", kind=list, default=[]):
        raise service.error("has no port", "spec", hint="name the port that clients call")


def _deployment(service: Document, documents: Sequence[Document], layout: Layout) -> Document:
    selector = service.labels("spec", "selector")
    told = ",".join(f"{key}={value}" for key, value in selector.items())
    found = [
        item
        for item in documents
        if item.kind == "Deployment" and matches(selector, item.labels("spec", "template", "metadata", "labels"))
    ]
    if not found:
        others = [
            item
            for item in documents
            if item.kind in _WORKLOADS and matches(selector, item.labels("spec", "template", "metadata", "labels"))
        ]
        but = f"; it selects those of {others[0].told}, which cannot be split" if others else ""
        raise service.error(
            f"selects the pods of no Deployment: {told}{but}", "spec", "selector", hint="give the Deployment's manifest"
        )
    if len(found) > 1:
        raise service.error(
            f"selects the pods of {len(found)} Deployments: {', '.join(item.told for item in found)}",
            "spec",
            "selector",
            hint="give only the app's own Deployment, or select its pods alone",
        )
    _check_deployment(found[0], layout)
    return found[0]


def _check_deployment(deployment: Document, layout: Layout) -> None:
    if deployment.data["apiVersion"] != "apps/v1":
        raise deployment.error(f"is of {deployment.data['apiVersion']}", "apiVersion", hint="write apps/v1")
    ours = [f"-{Role.CANARY}", f"-{Role.BASELINE}", *filter(None, [layout.stable_suffix])]
    suffix = next((end for end in ours if deployment.name.endswith(end)), None)
    if suffix:
        raise deployment.error(
            f"is one of a split already: its name ends with {suffix}",
            "metadata",
            "name",
            hint=f"give {deployment.name.removesuffix(suffix)} as it is without a canary",
        )
    selector = deployment.labels("spec", "selector", "matchLabels")
    labels = deployment.labels("spec", "template", "metadata", "labels")
    if not selector and not deployment.get("spec", "selector", "matchExpressions", kind=list):
        raise deployment.error("has no selector", "spec", hint="write `selector: {matchLabels: ...}`")
    if not selector.items() <= labels.items():
        raise deployment.error(
            "its selector does not select its own pods", "spec", "selector", "matchLabels", hint="use the pods' labels"
        )
    _check_named(deployment)
    replicas(deployment)


def _check_named(deployment: Document) -> None:
    """Whatever of the pods is looked through must have names."""
    pod = ("spec", "template", "spec")
    if not deployment.get(*pod, "containers", kind=list, default=[]):
        raise deployment.error("has no container", *pod, hint="name the one that is the app")
    for key in ("containers", "initContainers", "imagePullSecrets"):
        for index in range(len(deployment.get(*pod, key, kind=list, default=[]))):
            if deployment.get(*pod, key, index, "name", kind=str) is None:
                raise deployment.error(f"has one of its `{key}` without a name", *pod, key, index, hint="name it")
            if key != "imagePullSecrets":
                deployment.get(*pod, key, index, "ports", kind=list)


def _check_ports(service: Document, deployment: Document) -> None:
    pod = ("spec", "template", "spec")
    containers = [
        container
        for key in ("containers", "initContainers")
        for container in deployment.get(*pod, key, kind=list, default=[])
    ]
    declared = [port for container in containers for port in container.get("ports") or () if isinstance(port, dict)]
    known = [port[key] for port in declared for key in ("containerPort", "name") if key in port]
    for index, port in enumerate(service.get("spec", "ports", kind=list)):
        number = service.get("spec", "ports", index, "port", kind=int)
        if number is None:
            raise service.error("has a port without a number", "spec", "ports", index, hint="write `port: 80`")
        target = port.get("targetPort", number)
        # Containers need not declare a port; where they declare some, one that is missing is a mistake.
        if target not in known and (declared or isinstance(target, str)):
            raise service.error(
                f"its port {number} goes to {target}, which no container of Deployment {deployment.name} has",
                *("spec", "ports", index),
                hint=f"there is {', '.join(map(str, known)) or 'no port'}; "
                f"see {deployment.path}:{deployment.line(*pod, 'containers')}",
            )


def _namespace(used: Sequence[Document], options: Options) -> str | None:
    wanted = options.namespace
    for item in used:
        here = item.namespace
        if here is not None and not _NAME.fullmatch(here):
            raise item.error(
                f"{here!r} is no namespace", "metadata", "namespace", hint="use up to 63 of a-z, 0-9 and -"
            )
        if wanted is not None and here is not None and here != wanted:
            other = "--namespace says" if options.namespace else f"{used[0].kind} {used[0].name} is in"
            raise item.error(
                f"is in namespace {here}, and {other} {wanted}",
                *("metadata", "namespace"),
                hint="a Service reaches only pods of its own namespace",
            )
        wanted = wanted or here
    return wanted
