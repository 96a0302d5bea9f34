"""All files of an emission, as text by their path: the same change and manifests always give the same."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from textwrap import dedent
from typing import Any

from ruamel.yaml.scalarstring import LiteralScalarString

from parallelchange.change import Change
from parallelchange.emit.kubernetes.access import approvals, binding, role, service_account
from parallelchange.emit.kubernetes.documents import Document
from parallelchange.emit.kubernetes.jobs import DATABASE_KEY, DATABASE_SECRET, about_job, jobs
from parallelchange.emit.kubernetes.render import given, render
from parallelchange.emit.kubernetes.source import Options, Request, find, replicas
from parallelchange.emit.kubernetes.traffic import Traffic, traffic
from parallelchange.emit.kubernetes.workloads import (
    about_deployment,
    deployment,
    disruption_budgets,
    own_budget,
    preview,
    root_service,
    service,
)
from parallelchange.layout import GUARDED, SERVICE_ACCOUNT, Role

__all__ = ["Emission", "emit", "guard_policies"]

_KUSTOMIZATION = "kustomization.yaml"


@dataclass(frozen=True)
class Emission:
    """All that is to be written.

    Args:
        files: Text of each file, by its path.
        notes: What of the user's other manifests does not go with it, in sentences.
    """

    files: dict[str, str]
    notes: tuple[str, ...]


def emit(change: Change, documents: Sequence[Document], options: Options) -> Emission:
    """The manifests of a change, made from the user's own.

    Args:
        change: The change.
        documents: The user's manifests.
        options: What the command line says.

    Raises:
        UsageError: An option or the change file cannot be used so.
        InvalidFile: The manifests hold too little, too much, or what the API server would not take.
    """
    request = find(change, documents, options)
    moved = traffic(request)
    _refuse_twice(request, moved)
    made = {
        _KUSTOMIZATION: _kustomization(_about_all(request), [f"overlays/{options.strategy}"]),
        **_within("base", _base(request, moved)),
        **_within(f"overlays/{options.strategy}", _overlay(request, moved)),
        **_within("guard", _guard(request, moved)),
        **_within("guard/cluster", _cluster(request)),
        **_within("gates", _gates(request)),
    }
    return Emission(made, tuple(_notes(request)))


def _refuse_twice(request: Request, moved: Traffic) -> None:
    """Two objects of one name cannot both be applied."""
    ours = {("Deployment", request.workload(role)) for role in Role} | {(moved.split["kind"], moved.name)}
    ours |= {("Service", str(item["metadata"]["name"])) for item in (preview(request), *_services(request))}
    ours |= {("PodDisruptionBudget", str(item["metadata"]["name"])) for item in disruption_budgets(request)}
    for item in request.others:
        if (item.kind, item.name) in ours and item.namespace in (None, request.namespace):
            raise item.error("is made here too", "metadata", "name", hint="leave it out, or give it another name")


def _services(request: Request) -> list[dict[str, Any]]:
    return [service(request, role) for role in Role]


def _notes(request: Request) -> Iterator[str]:
    name, stable = request.deployment.name, request.workload(Role.STABLE)
    for item in request.others:
        spec = item.data.get("spec")
        scaled = spec.get("scaleTargetRef") if isinstance(spec, dict) else None
        if isinstance(scaled, dict) and scaled.get("name") == name != stable:
            yield f"{item.told} scales Deployment {name}, which is {stable} here: change it"
        if request.namespace and item.namespace not in (None, request.namespace):
            yield f"{item.told} is in namespace {item.namespace}: `kubectl -n {request.namespace}` does not take it"
        if item is own_budget(request):
            yield f"{item.told} is for these pods: none is made, since two of them would keep a pod from being evicted"


def guard_policies() -> dict[str, str]:
    """The admission policies, by the name of their file."""
    folder = files("parallelchange.emit.kubernetes") / "guard"
    found = sorted(item.name for item in folder.iterdir() if item.name.endswith(".yaml")) if folder.is_dir() else []
    return {name: (folder / name).read_text(encoding="utf-8") for name in found}


def _within(folder: str, made: Mapping[str, str]) -> dict[str, str]:
    return {f"{folder}/{name}": text for name, text in made.items()}


def _kustomization(about: str, resources: Iterable[str], patches: Sequence[dict[str, Any]] = ()) -> str:
    made: dict[str, Any] = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "resources": list(resources),
    }
    if patches:
        made["patches"] = list(patches)
    return render(about, made)


def _about_all(request: Request) -> str:
    where = request.namespace or "NAMESPACE"
    secret = f'create secret generic {DATABASE_SECRET} --from-literal={DATABASE_KEY}="$PARALLELCHANGE_DATABASE_URL"'
    old, new = request.change.old.name, request.change.new.name
    lines = (
        f"Change {request.change.name}: {old} and {new} of Service {request.root}. From this folder, in this order:",
        request.kubectl(secret),
        request.kubectl("apply -k .      # where the app runs already: first see base/deployment-stable.yaml"),
        request.kubectl("apply -k guard  # once: from then on only the gate writes the approvals"),
        "  kubectl apply -k guard/cluster  # as a cluster's administrator",
        f"  kubectl label namespace {where} {GUARDED}=true",
        request.kubectl("apply -f gates/rollout.yaml"),
    )
    return "\n".join(lines)


def _base(request: Request, moved: Traffic) -> dict[str, str]:
    made = {
        f"deployment-{role}.yaml": render(about_deployment(request, role), deployment(request, role)) for role in Role
    }
    root = f"What clients call. It selects the pods of every version: {moved.split['kind']} {moved.name} decides."
    made["service.yaml"] = render(root, root_service(request))
    made |= {f"service-{role}.yaml": render("", service(request, role)) for role in Role}
    budgets = disruption_budgets(request)
    if budgets:
        made["disruption.yaml"] = render("", *budgets)
    made["traffic.yaml"] = render(moved.about, *moved.besides, moved.split)
    made |= _within("given", dict(_given(request.others)))
    about = "Both versions, and what moves the traffic between them: all of it is on the old version."
    return {_KUSTOMIZATION: _kustomization(about, sorted(made)), **made}


def _given(others: Sequence[Document]) -> Iterator[tuple[str, str]]:
    taken: set[str] = set()
    for item in others:
        stem = re.sub(r"[^a-z0-9.]+", "-", f"{item.kind}-{item.name}".lower()).strip("-.")
        name, number = stem, 1
        while name in taken:
            number += 1
            name = f"{stem}-{number}"
        taken.add(name)
        yield f"{name}.yaml", given("Passed on as it was given.", item.text)


def _overlay(request: Request, moved: Traffic) -> dict[str, str]:
    if request.options.strategy == "canary":
        about = "The new version gets its share in stages."
        return {_KUSTOMIZATION: _kustomization(about, ["../../base"])}
    name = "service-preview.yaml"
    about = "The new version stands at full size, is tried through the preview Service, and gets all traffic at once."
    return {
        _KUSTOMIZATION: _kustomization(about, ["../../base", name], list(_blue_green(request, moved))),
        name: render("For looking at the new version before it has traffic.", preview(request)),
    }


def _blue_green(request: Request, moved: Traffic) -> Iterator[dict[str, Any]]:
    for kind, name in (
        ("Deployment", request.workload(Role.BASELINE)),
        ("Service", request.backend(Role.BASELINE)),
    ):
        api = "apps/v1" if kind == "Deployment" else "v1"
        patch = {"$patch": "delete", "apiVersion": api, "kind": kind, "metadata": {"name": name}}
        yield {"target": {"kind": kind, "name": name}, "patch": _inline(patch)}
    copies = {"op": "replace", "path": "/spec/replicas", "value": replicas(request.deployment)}
    canary = {"kind": "Deployment", "name": request.workload(Role.CANARY)}
    yield {"target": canary, "patch": _inline([copies])}
    for at, told, value in moved.baseline:
        # Tested first, so that nothing else is taken out should the base be changed by hand.
        steps = [{"op": "test", "path": told, "value": value}, {"op": "remove", "path": at}]
        yield {"target": {"kind": moved.split["kind"], "name": moved.name}, "patch": _inline(steps)}


def _inline(patch: Any) -> Any:
    # kustomize takes the first line's indent away and no other's.
    return LiteralScalarString(dedent(render("", patch).partition("\n")[2]))


def _guard(request: Request, moved: Traffic) -> dict[str, str]:
    approved = (
        "What the gate has approved. The policies read it, and let nobody write it but ServiceAccount "
        f"{SERVICE_ACCOUNT}: applied again while a change is under way, this is refused."
    )
    made = {
        "approvals.yaml": render(approved, approvals(request)),
        "account.yaml": render("The gate, and the rollout.", service_account(request)),
        "role.yaml": render("What the gate needs, and no more.", role(request, moved), binding(request)),
    }
    about = "The gate's account, its rights, and its approvals. Apply it before the namespace is labelled as guarded."
    return {_KUSTOMIZATION: _kustomization(about, sorted(made)), **made}


def _cluster(request: Request) -> dict[str, str]:
    policies = guard_policies()
    if not policies:
        return {}
    about = (
        "What holds everybody to the approvals, in all namespaces that are labelled so. The label is put on by "
        "hand: a Namespace in here would be deleted with this folder, and all that is in it."
    )
    label = f"  kubectl label namespace {request.namespace or 'NAMESPACE'} {GUARDED}=true"
    made = {name: given("", text) for name, text in policies.items()}
    return {_KUSTOMIZATION: _kustomization(f"{about}\n{label}", sorted(made)), **made}


def _gates(request: Request) -> dict[str, str]:
    made = {f"{name}.yaml": render(about_job(request, name), job) for name, job in jobs(request).items()}
    lines = (
        "Lists the Jobs for dry runs. Apply them one by one, each when it is its turn:",
        request.kubectl("apply -f gates/verify.yaml"),
    )
    return {_KUSTOMIZATION: _kustomization("\n".join(lines), list(made)), **made}
