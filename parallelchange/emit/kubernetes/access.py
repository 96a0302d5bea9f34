"""Who may do what: the gate's ServiceAccount and its rights, and the approvals that the policies read."""

from __future__ import annotations

from typing import Any

from parallelchange.emit.kubernetes.source import Request
from parallelchange.emit.kubernetes.traffic import Resource, Traffic
from parallelchange.layout import APPROVALS, SERVICE_ACCOUNT, Approval, Role, approvals_name

__all__ = ["approvals", "binding", "role", "service_account"]

_LOOK = ("get", "list", "watch")
_WRITE = ("patch", "update")
_CORE, _APPS, _RBAC = "", "apps", "rbac.authorization.k8s.io"


def approvals(request: Request) -> dict[str, Any]:
    """The ConfigMap of the approvals, in which nothing is approved yet."""
    old = [request.backend(role) for role in request.roles if role is not Role.CANARY]
    selector = request.service.labels("spec", "selector")
    data = {
        Approval.CHANGE: request.change.name,
        Approval.SERVICE: request.root,
        Approval.APPROVED: "0",
        Approval.UNTIL: "",
        Approval.STANDING: "0",
        Approval.OLD_IMAGE: request.images[Role.STABLE],
        Approval.NEW_IMAGE: request.images[Role.CANARY],
        Approval.OLD_BACKENDS: ",".join(old),
        # Not the baseline: deployment tools delete it with the canary, and it brings nothing back.
        Approval.OLD_DEPLOYMENTS: request.workload(Role.STABLE),
        Approval.SELECTOR: ",".join(f"{key}={value}" for key, value in sorted(selector.items())),
        Approval.CONTRACTED: "false",
    }
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": request.metadata(approvals_name(request.root), {APPROVALS: request.root}),
        "data": {key.value: value for key, value in data.items()},
    }


def service_account(request: Request) -> dict[str, Any]:
    """The gate's ServiceAccount."""
    made: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        # It is every change's, so it names none.
        "metadata": {k: v for k, v in request.metadata(SERVICE_ACCOUNT).items() if k != "annotations"},
    }
    if request.options.pull_secrets:
        made["imagePullSecrets"] = [{"name": name} for name in request.options.pull_secrets]
    return made


def role(request: Request, moved: Traffic) -> dict[str, Any]:
    """What the gate needs, and no more.

    Args:
        request: What is made.
        moved: What moves the traffic.
    """
    workloads = [request.workload(role) for role in request.roles]
    split = moved.resource
    rules = [
        _rule(_CORE, ["services", "pods"], _LOOK),
        _rule("discovery.k8s.io", ["endpointslices"], _LOOK),
        _rule(_APPS, ["deployments", "replicasets"], _LOOK),
        _rule(split.group, [split.plural], _LOOK),
        _rule(split.group, [split.plural], _WRITE, [moved.name]),
        *(_rule(item.group, [item.plural], verbs) for item, verbs in _besides(request)),
        _rule(_CORE, ["configmaps"], ("get", *_WRITE), [approvals_name(request.root)]),
        # How many copies a Deployment had is kept in an annotation while it has none.
        _rule(_APPS, ["deployments"], ("patch",), workloads),
        _rule(_APPS, ["deployments/scale"], ("get", *_WRITE), workloads),
        _rule("coordination.k8s.io", ["leases"], ("get", "create", *_WRITE)),
        _rule(_CORE, ["events"], ("create", "patch")),
        _rule("events.k8s.io", ["events"], ("create", "patch")),
    ]
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "Role",
        "metadata": request.metadata(approvals_name(request.root)),
        "rules": rules,
    }


def _besides(request: Request) -> list[tuple[Resource, tuple[str, ...]]]:
    """What else tells how traffic goes."""
    found: list[tuple[Resource, tuple[str, ...]]] = []
    if request.change.traffic.router in ("smi", "gateway-api"):
        found.append((Resource("linkerd.io", "serviceprofiles"), _LOOK))
    if request.change.metrics and request.change.metrics.smi:
        found.append((Resource("metrics.smi-spec.io", "deployments"), ("get", "list")))
    return found


def _rule(group: str, resources: list[str], verbs: tuple[str, ...], names: list[str] | None = None) -> dict[str, Any]:
    rule: dict[str, Any] = {"apiGroups": [group], "resources": resources}
    if names:
        rule["resourceNames"] = names
    return {**rule, "verbs": list(verbs)}


def binding(request: Request) -> dict[str, Any]:
    """The role, given to the ServiceAccount."""
    subject = {"kind": "ServiceAccount", "name": SERVICE_ACCOUNT}
    if request.namespace:
        subject["namespace"] = request.namespace
    return {
        "apiVersion": f"{_RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": request.metadata(approvals_name(request.root)),
        "roleRef": {"apiGroup": _RBAC, "kind": "Role", "name": approvals_name(request.root)},
        "subjects": [subject],
    }
