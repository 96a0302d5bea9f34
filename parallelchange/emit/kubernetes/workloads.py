"""The app's Deployments and Services: one of each for every role, labelled as the layout's tool labels them."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

from parallelchange.emit.kubernetes.documents import Document
from parallelchange.emit.kubernetes.source import Request
from parallelchange.errors import InvalidFile
from parallelchange.layout import Role

__all__ = [
    "about_deployment",
    "add_pull_secrets",
    "deployment",
    "disruption_budgets",
    "own_budget",
    "preview",
    "root_service",
    "service",
]

PREVIEW = "preview"

# What a variant of the Service has as well; addresses, node ports and load balancers belong to the root alone.
_SERVICE_KEYS = (
    "sessionAffinity",
    "sessionAffinityConfig",
    "ipFamilies",
    "ipFamilyPolicy",
    "internalTrafficPolicy",
    "publishNotReadyAddresses",
    "trafficDistribution",
)
_MESH = {
    "smi": ("annotations", "linkerd.io/inject", "enabled"),
    "gateway-api": ("annotations", "linkerd.io/inject", "enabled"),
    "istio": ("labels", "sidecar.istio.io/inject", "true"),
}


def deployment(request: Request, role: Role) -> dict[str, Any]:
    """The Deployment of a role: the user's, under the role's name, with its label and its version's image."""
    source = request.deployment
    label = {request.layout.label: role.value}
    made = deepcopy(source.data)
    made["metadata"] = request.given(source, request.workload(role), role)
    spec = made["spec"]
    if role is not Role.STABLE:
        spec["replicas"] = 1
    spec["selector"]["matchLabels"] = {**(spec["selector"].get("matchLabels") or {}), **label}
    template = spec["template"]
    template["metadata"]["labels"] |= label
    if request.change.traffic.router in _MESH:
        part, key, value = _MESH[request.change.traffic.router]
        # A way of injection that the user has chosen is left as it is.
        template["metadata"][part] = {key: value, **(template["metadata"].get(part) or {})}
    pod = template["spec"]
    for container in _app_containers(request, pod):
        container["image"] = request.images[role]
    add_pull_secrets(pod, request)
    made.pop("status", None)
    return made


def add_pull_secrets(pod: dict[str, Any], request: Request) -> None:
    """Have a pod pull its images with the Secrets the command line names, beside those it names itself."""
    named = [*(pod.get("imagePullSecrets") or []), *({"name": name} for name in request.options.pull_secrets)]
    if named:
        pod["imagePullSecrets"] = list({str(item["name"]): item for item in named}.values())


def _app_containers(request: Request, pod: dict[str, Any]) -> list[dict[str, Any]]:
    """The containers that are the app: those of its image's repository, or the only one there is."""
    ours = {_repository(image) for image in request.images.values()}
    every = [*pod["containers"], *(pod.get("initContainers") or [])]
    found = [container for container in every if _repository(str(container.get("image", ""))) in ours]
    if any(container in found for container in pod["containers"]):
        return found
    if len(pod["containers"]) == 1:
        return [*found, pod["containers"][0]]
    raise _which(request, pod)


def _which(request: Request, pod: dict[str, Any]) -> InvalidFile:
    names = ", ".join(str(container["name"]) for container in pod["containers"])
    image = request.images[Role.STABLE]
    return request.deployment.error(
        f"which of its containers {names} is the app cannot be told: none runs {_repository(image)}",
        *("spec", "template", "spec", "containers"),
        hint=f"set `versions.old.image` to the app's image; it is {image} now",
    )


def _repository(image: str) -> str:
    """An image without its tag and digest; a registry's port is no tag."""
    name = image.partition("@")[0]
    path, colon, tag = name.rpartition(":")
    return path if colon and "/" not in tag else name


def about_deployment(request: Request, role: Role) -> str:
    """What the reader of a role's Deployment should know."""
    name = request.workload(role)
    if role is not Role.STABLE:
        version = request.change.new.name if role is Role.CANARY else request.change.old.name
        extra = ", to hold the canary against in equal circumstances" if role is Role.BASELINE else ""
        return f"One copy of {version}{extra}; scale it to the share of traffic it gets."
    if name == request.deployment.name:
        return _adopt_in_place(request)
    old = request.deployment.name
    why = (
        f"Stands beside a Deployment {old} that runs already. So, from the folder above, that one's pods serve until "
        "the new ones do; after an earlier change, leave out the last line:"
    )
    return "\n".join((why, *_beside(request), request.kubectl(f"delete deployment {old}")))


def _adopt_in_place(request: Request) -> str:
    name, label = request.workload(Role.STABLE), request.layout.label
    pods = request.deployment.labels("spec", "template", "metadata", "labels")
    labels = request.deployment.labels("spec", "selector", "matchLabels") or pods
    old = ",".join([*(f"{key}={value}" for key, value in sorted(labels.items())), f"!{label}"])
    why = (
        f"A selector cannot be changed, and this one has got `{label}`: where a Deployment {name} without it runs "
        "already, applying this is refused as `field is immutable`. So, from the folder above, its pods serve until "
        "the new ones do; after an earlier change, leave out the first and the last line:"
    )
    first = request.kubectl(f"delete deployment {name} --cascade=orphan")
    return "\n".join((why, first, *_beside(request), request.kubectl(f"delete replicaset -l '{old}'")))


def _beside(request: Request) -> tuple[str, ...]:
    """Stable is ready before it gets the traffic, and has the traffic before the canary changes."""
    return (
        request.kubectl("apply -f base/deployment-stable.yaml -f base/service-stable.yaml"),
        request.kubectl(f"rollout status deployment/{request.workload(Role.STABLE)}"),
        request.kubectl("apply -f base/traffic.yaml"),
        request.kubectl("apply -k ."),
    )


def root_service(request: Request) -> dict[str, Any]:
    """The root Service, which clients call: the user's own."""
    made = deepcopy(request.service.data)
    made["metadata"] = request.given(request.service)
    made.pop("status", None)
    return made


def service(request: Request, role: Role, name: str | None = None) -> dict[str, Any]:
    """The Service of a role: the same ports, only this role's pods.

    Args:
        request: What is made.
        role: Whose pods.
        name: Its name; None for the layout's.
    """
    source = request.service
    spec = source.get("spec")
    metadata = request.given(source, name or request.backend(role), role)
    # A DNS name belongs to the root Service alone.
    metadata["annotations"] = {k: v for k, v in metadata["annotations"].items() if not k.startswith("external-dns.")}
    return {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": metadata,
        "spec": {
            **{key: deepcopy(spec[key]) for key in _SERVICE_KEYS if key in spec},
            "selector": {**source.labels("spec", "selector"), request.layout.label: role.value},
            "ports": [{key: value for key, value in port.items() if key != "nodePort"} for port in spec["ports"]],
        },
    }


def preview(request: Request) -> dict[str, Any]:
    """The Service by which the new version is looked at before it has traffic."""
    return service(request, Role.CANARY, f"{request.root}-{PREVIEW}")


def own_budget(request: Request) -> Document | None:
    """The PodDisruptionBudget of the user's that covers the app's pods, if there is one."""
    labels = request.deployment.labels("spec", "template", "metadata", "labels")
    budgets = (item for item in request.others if item.kind == "PodDisruptionBudget")
    return next((item for item in budgets if _covers(item, labels)), None)


def _covers(budget: Document, labels: Mapping[str, str]) -> bool:
    return budget.labels("spec", "selector", "matchLabels").items() <= labels.items()


def disruption_budgets(request: Request) -> list[dict[str, Any]]:
    """A PodDisruptionBudget for stable and canary; none where the user's own covers these pods.

    A pod that two of them cover cannot be evicted at all.
    """
    if own_budget(request):
        return []
    return [
        {
            "apiVersion": "policy/v1",
            "kind": "PodDisruptionBudget",
            "metadata": request.metadata(request.backend(role), {request.layout.label: role.value}),
            "spec": {"maxUnavailable": 1, "selector": deployment(request, role)["spec"]["selector"]},
        }
        for role in (Role.STABLE, Role.CANARY)
    ]
