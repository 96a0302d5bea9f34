"""Emitted manifests on a real API server: all is taken, pods become ready, rights are enough and no more."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.changes import SPLIT, make_change
from helpers.controlplane import Cluster, wait_until
from helpers.kubelet import Kubelet

from parallelchange.adapters.kubernetes.approvals import Approvals
from parallelchange.adapters.kubernetes.client import connect
from parallelchange.adapters.kubernetes.lease import Lease
from parallelchange.adapters.kubernetes.routers import make_router
from parallelchange.adapters.kubernetes.running import Running
from parallelchange.adapters.kubernetes.workloads import ClusterWorkloads
from parallelchange.change import Change
from parallelchange.emit.kubernetes import Options, emit, parse, write
from parallelchange.layout import LAYOUTS

pytestmark = pytest.mark.xdist_group("cluster-2")

ROOT = Path(__file__).resolve().parents[2]
SHOP = ROOT / "examples" / "01_split_customer_name" / "deploy" / "shop.yaml"
OLD, NEW = "registry.example/shop:1", "registry.example/shop:2"
ROUTERS = ("smi", "gateway-api", "nginx", "istio", "flagd")
INGRESS = """
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: web}
spec:
  ingressClassName: nginx
  rules:
    - host: shop.example
      http:
        paths:
          - {path: /, pathType: Prefix, backend: {service: {name: shop, port: {name: http}}}}
"""
SETTINGS = "\n---\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: settings-2}\ndata: {on: 'yes'}\n"


def a_change(router: str, layout: str = "azure", stages: tuple[int, ...] = (50, 125, 1000)) -> Change:
    change = make_change(SPLIT.operation)
    return replace(
        change,
        traffic=replace(change.traffic, router=router, layout=layout, stages=stages),
        old=replace(change.old, image=OLD),
        new=replace(change.new, image=NEW),
    )


def emitted(folder: Path, change: Change, **options: Any) -> Path:
    """The folder, with all that is emitted for a change."""
    more = INGRESS if change.traffic.router == "nginx" else ""
    documents = parse(SHOP, SHOP.read_text(encoding="utf-8") + more + SETTINGS)
    settings = Options(gate_image="registry.example/gate:1", reference="changes/a-change.yaml", **options)
    write(emit(change, documents, settings).files, folder)
    return folder


def kustomized(cluster: Cluster, folder: Path) -> list[Any]:
    """What kubectl makes of a folder."""
    return list(yaml.safe_load_all(cluster.kubectl("kustomize", str(folder)).stdout))


def one_of(file: Path) -> Any:
    """The last object of a file."""
    return list(yaml.safe_load_all(file.read_text(encoding="utf-8")))[-1]


def named(found: list[Any], kind: str, name: str) -> Any:
    (item,) = [item for item in found if (item["kind"], item["metadata"]["name"]) == (kind, name)]
    return item


def deployments(layout: str) -> tuple[str, ...]:
    return (f"shop{LAYOUTS[layout].stable_suffix}", "shop-baseline", "shop-canary")


# --- taken as they are -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
@pytest.mark.parametrize("router", ROUTERS)
def test_the_api_server_takes_every_folder(cluster: Cluster, tmp_path: Path, router: str, layout: str) -> None:
    # It warns of what a namespace that restricts pods would refuse.
    cluster.kubectl("label", "namespace", cluster.namespace, "pod-security.kubernetes.io/warn=restricted")
    canary = emitted(tmp_path / "canary", a_change(router, layout), pull_secrets=("registry",))
    green = emitted(
        tmp_path / "green", a_change(router, layout, (1000,)), strategy="blue-green", namespace=cluster.namespace
    )
    folders = [canary / "overlays" / "canary", green / "overlays" / "blue-green"]
    folders += [out / name for out in (canary, green) for name in ("guard", "gates")]
    for folder in (*folders, canary, green):
        done = cluster.kubectl("apply", "--dry-run=server", "-k", str(folder))
        assert "(server dry run)" in done.stdout
        if folder.name in ("guard", "gates"):
            assert "Warning" not in done.stderr, done.stderr


def test_the_api_server_takes_the_policies(cluster: Cluster, tmp_path: Path) -> None:
    folder = emitted(tmp_path, a_change("smi"))
    done = cluster.kubectl("apply", "--dry-run=server", "-k", str(folder / "guard" / "cluster"))
    assert "validatingadmissionpolicy.admissionregistration.k8s.io/parallelchange-trafficsplit" in done.stdout
    kinds = {item["kind"] for item in kustomized(cluster, folder / "guard" / "cluster")}
    assert kinds == {"ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"}


@pytest.mark.parametrize("version", ["v1alpha1", "v1alpha2", "v1alpha3", "v1alpha4"])
def test_the_api_server_takes_every_version_of_the_split(cluster: Cluster, tmp_path: Path, version: str) -> None:
    folder = emitted(tmp_path, a_change("smi"), split_version=version)
    cluster.kubectl("apply", "--dry-run=server", "-f", str(folder / "base" / "traffic.yaml"))


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
@pytest.mark.parametrize("router", ROUTERS)
def test_blue_green_leaves_no_baseline(cluster: Cluster, tmp_path: Path, router: str, layout: str) -> None:
    folder = emitted(tmp_path, a_change(router, layout, (1000,)), strategy="blue-green")
    found = kustomized(cluster, folder / "overlays" / "blue-green")
    assert "baseline" not in json.dumps(found)
    assert named(found, "Deployment", "shop-canary")["spec"]["replicas"] == 3
    assert named(found, "Service", "shop-preview")["spec"]["selector"][LAYOUTS[layout].label] == "canary"
    assert "shop-stable" in json.dumps([item for item in found if item["kind"] not in ("Service", "Deployment")])


def test_canary_is_the_base_as_it_is(cluster: Cluster, tmp_path: Path) -> None:
    folder = emitted(tmp_path, a_change("smi"))
    base = kustomized(cluster, folder / "base")
    assert kustomized(cluster, folder / "overlays" / "canary") == base
    assert kustomized(cluster, folder) == base
    assert named(base, "ConfigMap", "settings-2")["data"] == {"on": "yes"}


def test_a_namespace_of_its_own(cluster: Cluster, tmp_path: Path) -> None:
    folder = emitted(tmp_path, a_change("smi"), namespace=cluster.namespace)
    elsewhere = ("--kubeconfig", str(cluster.plane.kubeconfig), "-n", cluster.namespace)
    for part in ("base", "guard"):
        cluster.kubectl(*elsewhere, "apply", "-k", str(folder / part))
    for kind, name in (
        ("deployment", "shop-canary"),
        ("trafficsplit", "shop-azure-pipelines-rollout"),
        ("role", "parallelchange-shop"),
    ):
        assert cluster.get(kind, name)["metadata"]["namespace"] == cluster.namespace


# --- applied ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("router", "layout"), [("smi", "azure"), ("nginx", "k8s-deploy")])
def test_pods_become_ready(cluster: Cluster, kubelet: Kubelet, tmp_path: Path, router: str, layout: str) -> None:
    folder = emitted(tmp_path, a_change(router, layout))
    cluster.kubectl("apply", "-k", str(folder))
    for name in deployments(layout):
        cluster.kubectl("rollout", "status", f"deployment/{name}", "--timeout=60s")
    behind = {f"shop-{role}": count for role, count in (("stable", 3), ("baseline", 1), ("canary", 1))} | {"shop": 5}
    for service, count in behind.items():
        wait_until(lambda service=service, count=count: ready(cluster, service) == count, what=f"{service} has {count}")
    images = {pod["spec"]["containers"][0]["image"] for pod in cluster.list("pods", f"{LAYOUTS[layout].label}=canary")}
    assert images == {NEW}
    # Applied again, it would change nothing.
    before = versions(cluster, folder)
    cluster.kubectl("apply", "-k", str(folder))
    assert versions(cluster, folder) == before


def versions(cluster: Cluster, folder: Path) -> dict[str, str]:
    """The generation of each object of a folder: it grows with every change of its spec."""
    found = json.loads(cluster.kubectl("get", "-k", str(folder), "-o", "json").stdout)["items"]
    return {f"{item['kind']} {item['metadata']['name']}": item["metadata"].get("generation") for item in found}


def ready(cluster: Cluster, service: str) -> int:
    """Number of a Service's addresses that are ready."""
    slices = cluster.list("endpointslices", f"kubernetes.io/service-name={service}")
    ends = [end for part in slices for end in part.get("endpoints") or ()]
    return sum(len(end["addresses"]) for end in ends if end["conditions"].get("ready"))


def told(file: Path) -> list[list[str]]:
    """The kubectl command lines in a file's comments."""
    lines = re.findall(r"^#   kubectl (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE)
    return [shlex.split(line, comments=True) for line in lines]


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_a_running_deployment_is_adopted_as_the_comment_says(
    cluster: Cluster, kubelet: Kubelet, tmp_path: Path, layout: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.kubectl("apply", "-f", str(SHOP))
    cluster.kubectl("rollout", "status", "deployment/shop", "--timeout=60s")
    wait_until(lambda: ready(cluster, "shop") == 3)
    before = {pod["metadata"]["name"] for pod in cluster.list("pods")}
    folder = emitted(tmp_path, a_change("smi", layout))
    if layout == "azure":
        refused = cluster.kubectl("apply", "-k", str(folder), check=False)
        assert "field is immutable" in refused.stderr
        cluster.kubectl("delete", "-k", str(folder), "--ignore-not-found", "--cascade=orphan")
        cluster.kubectl("apply", "-f", str(SHOP))
        wait_until(lambda: ready(cluster, "shop") == 3)
    monkeypatch.chdir(folder)
    for command in told(folder / "base" / "deployment-stable.yaml"):
        cluster.kubectl(*command)
        # Somebody serves all the time.
        assert ready(cluster, "shop") >= 3
    wait_until(lambda: not before & {pod["metadata"]["name"] for pod in cluster.list("pods")}, what="the old pods went")
    stable = deployments(layout)[0]
    assert cluster.get("deployment", stable)["status"]["readyReplicas"] == 3
    assert wait_until(lambda: ready(cluster, "shop-stable") == 3)
    assert {item["metadata"]["name"] for item in cluster.list("deployments")} == set(deployments(layout))


def test_a_change_after_a_change_never_sends_traffic_to_what_is_not_ready_or_not_approved(
    cluster: Cluster, kubelet: Kubelet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = emitted(tmp_path / "first", a_change("smi"))
    cluster.kubectl("apply", "-k", str(first))
    cluster.kubectl("rollout", "status", "deployment/shop-canary", "--timeout=60s")
    # As a change leaves it that is contracted: the canary has the traffic, and stable no copies.
    split = one_of(first / "base" / "traffic.yaml")
    for backend in split["spec"]["backends"]:
        backend["weight"] = 1000 if backend["service"] == "shop-canary" else 0
    cluster.apply(split)
    cluster.kubectl("scale", "deployment/shop", "--replicas=0")
    newest = "registry.example/shop:3"
    change = a_change("smi")
    following = replace(change, old=replace(change.old, image=NEW), new=replace(change.new, image=newest))
    folder = emitted(tmp_path / "second", following)
    monkeypatch.chdir(folder)
    for command in told(folder / "base" / "deployment-stable.yaml")[1:-1]:
        cluster.kubectl(*command)
        backends = cluster.get("trafficsplit", split["metadata"]["name"])["spec"]["backends"]
        (role,) = [item["service"].removeprefix("shop-") for item in backends if item["weight"]]
        pods = cluster.list("pods", f"azure-pipelines/version={role}")
        assert {pod["spec"]["containers"][0]["image"] for pod in pods} == {NEW}, command
        assert ready(cluster, f"shop-{role}"), command
    assert cluster.get("deployment", "shop")["spec"]["replicas"] == 3
    assert role == "stable"


# --- rights ----------------------------------------------------------------------------------------------------------


@contextmanager
def as_the_gate(cluster: Cluster, change: Change) -> Iterator[Any]:
    """The adapters, with the rights of the emitted ServiceAccount and no other."""
    opened = connect(kubeconfig=cluster.kubeconfig_for_service_account("parallelchange"), patience=5.0)
    running = Running(opened, change)
    router = make_router(change, opened, running)
    try:
        yield opened, running, router
    finally:
        opened.close()


@pytest.mark.parametrize("layout", sorted(LAYOUTS))
@pytest.mark.parametrize("router", ROUTERS)
def test_the_gate_may_do_what_a_rollout_does(
    cluster: Cluster, kubelet: Kubelet, tmp_path: Path, router: str, layout: str
) -> None:
    change = a_change(router, layout)
    folder = emitted(tmp_path, change)
    for part in (".", "guard", "guard/cluster"):
        cluster.kubectl("apply", "-k", str(folder / part))
    cluster.kubectl("label", "namespace", cluster.namespace, "parallelchange/guarded=true")
    for name in deployments(layout):
        cluster.kubectl("rollout", "status", f"deployment/{name}", "--timeout=60s")
    with as_the_gate(cluster, change) as (opened, running, moved):
        split = moved.get()
        assert split.weight == 0
        assert wait_until(lambda: not moved.problems()) is True
        with Lease(opened, "parallelchange-a-change"):
            Approvals(opened, change, moved).allow(50)
            assert moved.set(50, resource_version=split.resource_version).weight == 50
        workloads = ClusterWorkloads(opened, running, "shop")
        assert workloads.ready(change.new.name) == 1
        workloads.scale(change.new.name, 0)
        workloads.scale(change.new.name, 1)
    data = cluster.get("configmap", "parallelchange-shop")["data"]
    assert data["approved"] == "50"
    assert set(data["old-backends"].split(",")) <= {"shop-stable", "shop-baseline"}


def test_approvals_are_not_applied_over_those_the_gate_gave(cluster: Cluster, tmp_path: Path) -> None:
    folder = emitted(tmp_path, a_change("smi"))
    for part in ("guard", "guard/cluster"):
        cluster.kubectl("apply", "-k", str(folder / part))
    cluster.kubectl("label", "namespace", cluster.namespace, "parallelchange/guarded=true")
    account = cluster.kubeconfig_for_service_account("parallelchange")
    approved = ("patch", "configmap", "parallelchange-shop", "--type=merge", "--patch", '{"data": {"approved": "50"}}')
    cluster.kubectl(*approved, kubeconfig=account)
    again = ("apply", "--dry-run=server", "-k", str(folder / "guard"))
    refused = wait_until(lambda: next((r for r in [cluster.kubectl(*again, check=False)] if r.returncode), None))
    assert "writes approvals" in refused.stderr


@pytest.mark.parametrize("router", ROUTERS)
def test_the_gate_may_do_no_more(cluster: Cluster, tmp_path: Path, router: str) -> None:
    folder = emitted(tmp_path, a_change(router))
    cluster.kubectl("apply", "-k", str(folder / "guard"))
    account = cluster.kubeconfig_for_service_account("parallelchange")
    split = one_of(folder / "base" / "traffic.yaml")
    kind = {"TrafficSplit": "trafficsplits", "HTTPRoute": "httproutes", "Ingress": "ingresses"}.get(
        split["kind"], f"{split['kind'].lower()}s"
    )

    def may(*what: str) -> bool:
        done = cluster.kubectl("auth", "can-i", *what, kubeconfig=account, check=False)
        return done.stdout.strip() == "yes"

    name = split["metadata"]["name"]
    granted = [
        ("patch", f"{kind}/{name}"),
        ("patch", "configmap/parallelchange-shop"),
        ("patch", "deployments/shop-canary", "--subresource=scale"),
        ("list", "pods"),
        ("watch", "endpointslices.discovery.k8s.io"),
    ]
    assert [what for what in granted if not may(*what)] == []
    never = [
        ("get", "secrets"),
        ("list", "configmaps"),
        ("patch", "configmap/another"),
        ("create", "configmaps"),
        ("patch", kind),
        ("delete", f"{kind}/{name}"),
        ("create", kind),
        ("delete", "deployments/shop"),
        ("patch", "deployments/another"),
        ("patch", "deployments/another", "--subresource=scale"),
        ("delete", "pods"),
        ("create", "pods", "--subresource=exec"),
        ("patch", "services/shop"),
        ("get", "namespaces"),
        ("list", "pods", "-n", "kube-system"),
    ]
    assert [what for what in never if may(*what)] == []


# --- jobs ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "condition", "pods"), [(0, "Complete", 1), (1, "Failed", 1), (2, "Failed", 1), (3, None, 2)]
)
def test_a_job_ends_as_the_verb_does(
    cluster: Cluster, kubelet: Kubelet, tmp_path: Path, code: int, condition: str | None, pods: int
) -> None:
    kubelet.exit_code = lambda _: code
    folder = emitted(tmp_path, a_change("smi"))
    cluster.kubectl("apply", "-f", str(folder / "guard" / "account.yaml"))
    cluster.kubectl("apply", "-f", str(folder / "gates" / "gate-12-5.yaml"))
    # What is not there may come: that alone is tried again.
    wait_until(lambda: len(cluster.list("pods", "job-name=a-change-gate-12-5")) >= pods, seconds=60)
    if condition:
        cluster.kubectl("wait", f"--for=condition={condition}", "job/a-change-gate-12-5", "--timeout=30s")
        assert len(cluster.list("pods", "job-name=a-change-gate-12-5")) == pods
    (again,) = [command for command in told(folder / "gates" / "gate-12-5.yaml") if "replace" in command]
    cluster.kubectl(*again[:-1], str(folder / again[-1]))
