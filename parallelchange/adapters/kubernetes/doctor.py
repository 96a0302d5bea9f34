"""Whether the cluster is as a guarded canary needs it, from the API server to the mesh's proxies."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from typing import Any

from parallelchange.adapters.kubernetes.client import FIELD_MANAGER, Cluster
from parallelchange.adapters.kubernetes.kinds import (
    CONFIG_MAP,
    DEPLOYMENT,
    ENDPOINT_SLICE,
    EVENT,
    LEASE,
    NAMESPACE,
    POD,
    POLICY,
    POLICY_BINDING,
    SERVICE,
    Kind,
)
from parallelchange.adapters.kubernetes.metrics import make_metrics
from parallelchange.adapters.kubernetes.routers import make_router
from parallelchange.adapters.kubernetes.routers.base import ClusterRouter
from parallelchange.adapters.kubernetes.running import Running, is_ready
from parallelchange.change import Change
from parallelchange.checks import Check, Section
from parallelchange.errors import Denied, ParallelChangeError
from parallelchange.layout import GUARDED, Approval, approvals_name
from parallelchange.model import format_weight
from parallelchange.ports import Metrics

__all__ = ["check_cluster"]

_OLDEST = (1, 30)
"""ValidatingAdmissionPolicy is stable from Kubernetes 1.30 on."""
_SKEW = 5.0
_PROXIES = {"smi": "linkerd-proxy", "gateway-api": "linkerd-proxy", "istio": "istio-proxy"}
_ALWAYS = (("parallelchange-deployment", POLICY), ("parallelchange-service", POLICY))
_POLICIES = {
    "smi": "trafficsplit",
    "gateway-api": "httproute",
    "nginx": "ingress",
    "istio": "virtualservice",
    "flagd": "featureflag",
}


def check_cluster(change: Change, cluster: Cluster, prometheus: str | None = None) -> Iterator[Check]:
    """Look at everything a change needs of its cluster.

    Args:
        change: The change.
        cluster: Its namespace.
        prometheus: Address of a Prometheus that settings name; None for the change file's.
    """
    api = list(_api(cluster))
    yield from api
    if any(check.bad for check in api):
        return
    running = Running(cluster, change)
    router = make_router(change, cluster, running)
    yield from _rights(change, cluster, router)
    yield from _traffic(router)
    yield from _copies(change, running)
    yield from _guard(change, cluster)
    yield _figures(change, make_metrics(change, cluster, running, router, prometheus))


def _figures(change: Change, metrics: Metrics) -> Check:
    """Whether the figures of the version that serves can be read."""
    section, old = Section("metrics"), change.old.name
    if change.metrics is None:
        return section.told("read", "figures can be read", holds=True, detail="the change file declares no metrics")
    sample = metrics.read(old, change.metrics.window)
    detail = f"{sample.requests} requests in {sample.window:.0f} s" if sample else _why(metrics, old)
    remedy = "name the Prometheus (metrics.prometheus, PARALLELCHANGE_PROMETHEUS) and whose metrics it holds (queries)"
    return section.told("read", f"figures of {old} can be read", holds=sample is not None, detail=detail, remedy=remedy)


def _why(metrics: Metrics, version: str) -> str:
    reasons: dict[str, str] = getattr(metrics, "reasons", {})
    return reasons.get(version, "nothing was named that could tell")


def _api(cluster: Cluster) -> Iterator[Check]:
    section = Section("kubernetes API")
    found: dict[str, Any] = {}

    def version() -> str:
        found.update(cluster.request("get", "/version", "ask for its version"))
        return f"{cluster.name}, {found.get('gitVersion')}"

    answers = section.tried("answers", "the API server answers", version)
    yield answers
    if answers.bad:
        return
    number = (int(found["major"]), int("".join(c for c in found["minor"] if c.isdigit())))
    yield section.told(
        "version",
        f"it is Kubernetes {_OLDEST[0]}.{_OLDEST[1]} or newer",
        holds=number >= _OLDEST,
        detail=str(found.get("gitVersion")),
        remedy="upgrade it: older ones cannot enforce approvals",
    )
    yield _identity(section, cluster)
    yield section.tried("namespace", f"namespace {cluster.namespace} is there", lambda: _namespace(cluster))


def _identity(section: Section, cluster: Cluster) -> Check:
    """Who we are to the API server; its answer also carries its time, to the second."""
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    what = "its clock agrees with ours"
    try:
        path = "/apis/authentication.k8s.io/v1/selfsubjectreviews"
        answer = cluster.request("post", path, "ask who we are", body=body)
    except ParallelChangeError as error:
        return section.told("clock", what, holds=None, detail=error.message, remedy=error.hint or "", warning=True)
    made = answer["metadata"].get("creationTimestamp")
    who = answer.get("status", {}).get("userInfo", {}).get("username", "nobody")
    if not made:
        return section.told("clock", what, holds=None, detail=f"we are {who}; it tells no time", warning=True)
    skew = abs(time.time() - datetime.fromisoformat(made).timestamp())
    remedy = "run a time service on both"
    return section.told(
        "clock", what, holds=skew <= _SKEW, detail=f"we are {who}, {skew:.0f} s apart", remedy=remedy, warning=True
    )


def _namespace(cluster: Cluster) -> str:
    try:
        cluster.read(NAMESPACE, cluster.namespace)
    except Denied:
        cluster.all(SERVICE)  # to look into it is all that is needed
    return ""


def _rights(change: Change, cluster: Cluster, router: ClusterRouter) -> Iterator[Check]:
    section = Section("rights")
    seen = (SERVICE, POD, DEPLOYMENT, ENDPOINT_SLICE, router.form.kind)
    wanted: list[tuple[str, Kind, str | None, str]] = [(verb, kind, None, "") for kind in seen for verb in _READ]
    wanted += [("patch", router.form.kind, _name(router), ""), ("create", EVENT, None, "")]
    wanted += [(verb, LEASE, None, "") for verb in ("get", "create", "patch")]
    wanted += [(verb, CONFIG_MAP, approvals_name(change.traffic.service), "") for verb in ("get", "patch")]
    try:
        backends = router.running.look()
        wanted += [
            (verb, DEPLOYMENT, item["metadata"]["name"], sub)
            for item in backends.deployments.values()
            if backends.version_of(item["spec"]["template"])
            for verb, sub in (("patch", ""), ("patch", "scale"))
        ]
    except ParallelChangeError:
        pass  # the missing right to list is told by its own line
    missing = []
    for verb, kind, name, sub in wanted:
        if not cluster.may(verb, kind, name, sub):
            resource = f"{kind.resource}{f'/{sub}' if sub else ''}"
            missing.append(f"{verb} {resource}{f' {name}' if name else ''}")
    yield section.told(
        "granted",
        f"all {len(wanted)} rights that a rollout needs are granted",
        holds=not missing,
        detail=f"missing: {', '.join(missing)}" if missing else "",
        remedy="apply the Role that `parallelchange emit kubernetes` writes, and bind it to who runs this",
    )


def _name(router: ClusterRouter) -> str | None:
    """The name of the object that splits the traffic: a Role may grant writing of that one only."""
    try:
        return str(router.form.find()["metadata"]["name"])
    except ParallelChangeError:
        return None


_READ = ("get", "list", "watch")


def _traffic(router: ClusterRouter) -> Iterator[Check]:
    section = Section("traffic")
    kind = router.form.kind
    yield section.tried("served", f"{kind.resource} is served", lambda: router.form.served().api_version)

    def split() -> str:
        live = router.get()
        shares = ", ".join(f"{name} {format_weight(share)}" for name, share in live.backends.items())
        return f"{live.name}: {shares}" + (f"; {live.untold}" if live.untold else "")

    found = section.tried("split", f"one {kind.name} splits Service {router.change.traffic.service}", split)
    yield found
    if found.bad:
        return
    problems = router.problems()
    yield section.told(
        "backends",
        "its backends can take traffic, and nothing overrides it",
        holds=not problems,
        detail="; ".join(problems),
        remedy="mend what is named",
    )
    live = router.get()
    yield section.told(
        "mesh",
        "the mesh routes by it",
        holds=router.settled(live),
        detail="" if router.settled(live) else "it is not seen to follow",
        remedy="see whether the mesh's controller runs (for SMI on Linkerd: the smi-adaptor)",
    )
    others = [owner for owner in router.owners() if FIELD_MANAGER not in owner]
    controllers = [owner for owner in others if "controller" in owner]
    yield section.told(
        "owners",
        "no other controller writes it",
        holds=not controllers,
        detail=", ".join(others),
        remedy="let that controller ask our gate before it moves traffic, or take its hands off",
        warning=True,
    )


def _copies(change: Change, running: Running) -> Iterator[Check]:
    section = Section("copies")
    proxy = _PROXIES.get(change.traffic.router)
    for version in change.versions:
        pods = running.look().running(version.name, change.traffic.service)
        ready = [pod for pod in pods if is_ready(pod)]
        yield section.told(
            "ready",
            f"{version.name} has ready pods",
            holds=bool(ready),
            detail=f"{len(ready)} of {len(pods)}" + (f", image {version.image}" if version.image else ""),
            remedy="deploy it behind a backend of its own; name its image in the change file",
        )
        if proxy and ready:
            bare = [pod["metadata"]["name"] for pod in ready if proxy not in _containers(pod)]
            yield section.told(
                "proxy",
                f"every pod of {version.name} has its {proxy}",
                holds=not bare,
                detail=", ".join(bare[:3]),
                remedy="annotate the namespace or the pods for injection, and restart them",
            )


def _containers(pod: Any) -> set[str]:
    """Names of a pod's containers; a proxy may also be an init container that stays."""
    spec = pod["spec"]
    return {item["name"] for key in ("containers", "initContainers") for item in spec.get(key) or ()}


def _guard(change: Change, cluster: Cluster) -> Iterator[Check]:
    section = Section("guard")
    install = "apply `guard/cluster` of what `parallelchange emit kubernetes` writes, as a cluster admin"
    policy = f"parallelchange-{_POLICIES[change.traffic.router]}"
    for name, kind in ((policy, POLICY), (policy, POLICY_BINDING), *_ALWAYS):
        try:
            there: bool | None = cluster.find(kind, name) is not None
        except Denied:
            there = None
        told = "" if there is not None else "we may not look"
        yield section.told(
            "policy", f"{kind.name} {name} is in place", holds=there, detail=told, remedy=install, warning=there is None
        )
    try:
        labels = cluster.read(NAMESPACE, cluster.namespace)["metadata"].get("labels") or {}
        guarded: bool | None = labels.get(GUARDED) == "true"
    except Denied:
        guarded = None
    yield section.told(
        "namespace",
        f"namespace {cluster.namespace} is labelled {GUARDED}=true",
        holds=guarded,
        remedy=f"kubectl label namespace {cluster.namespace} {GUARDED}=true",
        warning=guarded is None,
    )

    def approvals() -> str:
        data = cluster.read(CONFIG_MAP, approvals_name(change.traffic.service)).get("data") or {}
        approved = data.get(Approval.APPROVED, "")
        return f"{format_weight(int(approved))} for {data.get(Approval.CHANGE)}" if approved.isdecimal() else ""

    yield section.tried("approvals", "the approvals are kept", approvals)
