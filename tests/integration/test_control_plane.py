"""The tests' own Kubernetes is a real one: what it serves, runs, refuses and survives."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from helpers.controlplane import CRDS, TOOLS, Cluster, ControlPlane, NoControlPlane, find_tools, wait_until
from helpers.kubelet import Kubelet, image_id
from kubernetes import client, config

pytestmark = pytest.mark.xdist_group("cluster-2")

SPLITS = "trafficsplits.{version}.split.smi-spec.io"
IMAGE = "registry.test:5000/shop:1.0"


def pod_template(**spec: Any) -> dict[str, Any]:
    return {
        "metadata": {"labels": {"app": "shop"}},
        "spec": {"containers": [{"name": "shop", "image": IMAGE, "ports": [{"containerPort": 8080}]}], **spec},
    }


def deployment(replicas: int = 2) -> dict[str, Any]:
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "shop"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": "shop"}},
            "template": pod_template(terminationGracePeriodSeconds=600),
        },
    }


SERVICE = {
    "apiVersion": "v1",
    "kind": "Service",
    "metadata": {"name": "shop"},
    "spec": {"selector": {"app": "shop"}, "ports": [{"port": 80, "targetPort": 8080}]},
}


def split(version: str, weight: object, **spec: Any) -> dict[str, Any]:
    return {
        "apiVersion": f"split.smi-spec.io/{version}",
        "kind": "TrafficSplit",
        "metadata": {"name": f"shop-{version}"},
        "spec": {"service": "shop", "backends": [{"service": "shop-stable", "weight": weight}], **spec},
    }


def endpoints(cluster: Cluster) -> dict[str, bool]:
    """Address and readiness of what is behind the Service."""
    slices = cluster.list("endpointslices", "kubernetes.io/service-name=shop")
    found = [endpoint for each in slices for endpoint in each["endpoints"] or []]
    return {endpoint["addresses"][0]: endpoint["conditions"]["ready"] for endpoint in found}


def rolled_out(cluster: Cluster) -> None:
    cluster.kubectl("rollout", "status", "deployment/shop", "--timeout=60s")


# --- what is served -------------------------------------------------------------------------------------------------


def test_it_is_a_kubernetes_with_admission_policies(control_plane: ControlPlane) -> None:
    versions = json.loads(control_plane.kubectl("version", "--output=json").stdout)
    for side in ("clientVersion", "serverVersion"):
        major, minor = re.match(r"v(\d+)\.(\d+)\.", versions[side]["gitVersion"]).groups()
        assert (int(major), int(minor)) >= (1, 31)
    served = control_plane.kubectl("api-resources", "--output=name").stdout
    assert "validatingadmissionpolicies.admissionregistration.k8s.io" in served


def test_every_custom_resource_is_established(control_plane: ControlPlane) -> None:
    ours = {yaml.safe_load(path.read_text())["metadata"]["name"] for path in CRDS.glob("*.yaml")}
    found = json.loads(control_plane.kubectl("get", "crds", "--output=json").stdout)["items"]
    conditions = {
        crd["metadata"]["name"]: {each["type"]: each["status"] for each in crd["status"]["conditions"]} for crd in found
    }
    assert conditions.keys() == ours
    assert len(ours) == 7
    for name, holds in conditions.items():
        assert holds["Established"] == "True", name
        assert holds["NamesAccepted"] == "True", name
        assert holds.get("NonStructuralSchema", "False") == "False", name


def test_only_v1alpha1_takes_a_quantity_as_weight(cluster: Cluster) -> None:
    cluster.apply(split("v1alpha1", "900m"))
    for version in ("v1alpha2", "v1alpha3", "v1alpha4"):
        refused = cluster.kubectl("create", "-f", "-", input=json.dumps(split(version, "900m")), check=False)
        assert refused.returncode
        assert "weight" in refused.stderr
        cluster.apply(split(version, 900))
        assert cluster.get(SPLITS.format(version=version), f"shop-{version}")["spec"]["backends"][0]["weight"] == 900


def test_a_stored_quantity_is_read_in_every_version_and_may_only_be_written_back_unchanged(cluster: Cluster) -> None:
    cluster.apply(split("v1alpha1", "900m"))
    stored = cluster.get(SPLITS.format(version="v1alpha2"), "shop-v1alpha1")
    [backend] = stored["spec"]["backends"]
    assert backend["weight"] == "900m"

    # The API server lets pass what was invalid before and has not changed.
    stored["metadata"]["labels"] = {"seen": "true"}
    cluster.kubectl("replace", "-f", "-", input=json.dumps(stored))
    stored["spec"]["backends"].append({"service": "shop-canary", "weight": 100})
    del stored["metadata"]["resourceVersion"]
    refused = cluster.kubectl("replace", "-f", "-", input=json.dumps(stored), check=False)
    assert refused.returncode
    assert "spec.backends[0].weight" in refused.stderr


def test_only_the_later_splits_have_matches(cluster: Cluster) -> None:
    matches = [{"kind": "HTTPRouteGroup", "name": "staff"}]
    for version in ("v1alpha3", "v1alpha4"):
        cluster.apply(split(version, 1, matches=matches))
    refused = cluster.kubectl("create", "-f", "-", input=json.dumps(split("v1alpha2", 1, matches=matches)), check=False)
    assert "matches" in refused.stderr


def test_a_route_gets_its_defaults_and_a_status_of_its_own(cluster: Cluster) -> None:
    backends = [{"name": "shop-stable", "port": 80}, {"name": "shop-canary", "port": 80, "weight": 0}]
    parent = {"group": "core", "kind": "Service", "name": "shop", "port": 80}
    route = {
        "apiVersion": "gateway.networking.k8s.io/v1",
        "kind": "HTTPRoute",
        "metadata": {"name": "shop"},
        "spec": {"parentRefs": [parent], "rules": [{"backendRefs": backends}]},
    }
    cluster.apply(route)
    stored = cluster.get("httproutes.v1beta1.gateway.networking.k8s.io", "shop")
    rule = stored["spec"]["rules"][0]
    assert [(each["kind"], each["group"], each["weight"]) for each in rule["backendRefs"]] == [
        ("Service", "", 1),
        ("Service", "", 0),
    ]
    assert rule["matches"] == [{"path": {"type": "PathPrefix", "value": "/"}}]

    condition = {
        "type": "Accepted",
        "status": "True",
        "reason": "Accepted",
        "message": "",
        "lastTransitionTime": "2026-01-01T00:00:00Z",
        "observedGeneration": stored["metadata"]["generation"],
    }
    status = {"parents": [{"controllerName": "mesh.test/x", "parentRef": parent, "conditions": [condition]}]}
    patch = json.dumps({"status": status})
    cluster.kubectl("patch", "httproute", "shop", "--subresource=status", "--type=merge", f"--patch={patch}")
    cluster.apply(route | {"spec": {**route["spec"], "hostnames": ["shop.test"]}})
    changed = cluster.get("httproute", "shop")
    assert changed["metadata"]["generation"] == stored["metadata"]["generation"] + 1
    assert changed["status"]["parents"][0]["conditions"] == [condition]

    backends[1]["weight"] = -1
    refused = cluster.kubectl("replace", "-f", "-", input=json.dumps(route), check=False)
    assert "weight" in refused.stderr


@pytest.mark.parametrize(
    ("api", "kind", "spec"),
    [
        (
            "linkerd.io/v1alpha2",
            "ServiceProfile",
            {"dstOverrides": [{"authority": "shop-canary.x.svc.cluster.local:80", "weight": "100m"}]},
        ),
        (
            "networking.istio.io/v1beta1",
            "VirtualService",
            {"hosts": ["shop"], "http": [{"route": [{"destination": {"host": "shop"}, "weight": 100}]}]},
        ),
        (
            "gateway.networking.k8s.io/v1",
            "Gateway",
            {"gatewayClassName": "mesh", "listeners": [{"name": "http", "port": 80, "protocol": "HTTP"}]},
        ),
        (
            "core.openfeature.dev/v1beta1",
            "FeatureFlag",
            {
                "flagSpec": {
                    "flags": {
                        "new": {"state": "ENABLED", "variants": {"on": True}, "defaultVariant": "on", "targeting": {}}
                    }
                }
            },
        ),
    ],
)
def test_an_object_is_stored_as_it_was_written(cluster: Cluster, api: str, kind: str, spec: dict[str, Any]) -> None:
    cluster.apply({"apiVersion": api, "kind": kind, "metadata": {"name": "shop"}, "spec": spec})
    assert cluster.get(kind, "shop")["spec"] == spec


def test_metrics_answer_at_the_path_of_the_metrics_api(cluster: Cluster) -> None:
    metrics = [{"name": "success_count", "value": "100"}, {"name": "p99_response_latency", "value": "10m"}]
    cluster.apply(
        {
            "apiVersion": "metrics.smi-spec.io/v1alpha1",
            "kind": "TrafficMetrics",
            "metadata": {"name": "shop-canary"},
            "metrics": metrics,
        }
    )
    path = f"/apis/metrics.smi-spec.io/v1alpha1/namespaces/{cluster.namespace}/deployments/shop-canary"
    assert json.loads(cluster.kubectl("get", "--raw", path).stdout)["metrics"] == metrics


# --- what runs ------------------------------------------------------------------------------------------------------


def test_a_deployment_becomes_ready_pods_behind_a_service(cluster: Cluster, kubelet: Kubelet) -> None:
    cluster.apply([deployment(), SERVICE])
    rolled_out(cluster)
    pods = cluster.list("pods", "app=shop")
    assert [pod["status"]["containerStatuses"][0]["imageID"] for pod in pods] == [image_id(IMAGE)] * 2
    assert image_id(IMAGE).startswith("registry.test:5000/shop@sha256:")
    addresses = dict.fromkeys((pod["status"]["podIP"] for pod in pods), True)
    wait_until(lambda: endpoints(cluster) == addresses, what="both pods behind the Service")

    kubelet.hold(lambda pod: pod["metadata"]["name"] == pods[0]["metadata"]["name"])
    addresses[pods[0]["status"]["podIP"]] = False
    wait_until(lambda: endpoints(cluster) == addresses, what="one pod that is not ready")
    kubelet.release()
    rolled_out(cluster)


def test_each_pod_is_started_once_and_stopped_once(cluster: Cluster, kubelet: Kubelet) -> None:
    started: list[str] = []
    stopped: list[str] = []
    kubelet.on_start = lambda pod: started.append(pod["status"]["podIP"])
    kubelet.on_stop = lambda pod: stopped.append(pod["status"]["podIP"])
    cluster.apply(deployment())
    rolled_out(cluster)
    assert len(set(started)) == len(started) == 2

    cluster.kubectl("scale", "deployment/shop", "--replicas=1")
    wait_until(lambda: len(cluster.list("pods")) == 1, what="the end of one pod, long before its grace is over")
    assert len(stopped) == 1
    cluster.kubectl("delete", "pods", "--all", "--force", "--grace-period=0")
    rolled_out(cluster)
    wait_until(lambda: len(stopped) == 2, what="the end of the pod that was deleted by force")
    kubelet.stop()
    assert sorted(stopped) == sorted(started)
    assert len(started) == 3


def test_a_pod_has_one_address_whoever_looks_after_it(cluster: Cluster, kubelet: Kubelet) -> None:
    cluster.apply([deployment(1), SERVICE])
    rolled_out(cluster)
    kubelet.stop()
    [before] = cluster.list("pods")
    started: list[str] = []
    with Kubelet(cluster, on_start=lambda pod: started.append(pod["status"]["podIP"])):
        wait_until(lambda: started)
    assert started == [before["status"]["podIP"]]


@pytest.mark.parametrize(("code", "condition"), [(0, "Complete"), (3, "Failed")])
def test_a_job_ends_as_its_pod_does(cluster: Cluster, kubelet: Kubelet, code: int, condition: str) -> None:
    kubelet.exit_code = lambda _: code
    cluster.apply(
        {
            "apiVersion": "batch/v1",
            "kind": "Job",
            "metadata": {"name": "migrate"},
            "spec": {"backoffLimit": 0, "template": pod_template(restartPolicy="Never")},
        }
    )
    cluster.kubectl("wait", f"--for=condition={condition}", "job/migrate", "--timeout=60s")


def test_a_callback_that_fails_is_told_when_the_kubelet_is_stopped(cluster: Cluster) -> None:
    def fail(_: object) -> None:
        raise LookupError("no such program")

    kubelet = Kubelet(cluster, on_start=fail)
    kubelet.start()
    cluster.apply(deployment())
    wait_until(lambda: not kubelet.alive)
    with pytest.raises(LookupError):
        kubelet.stop()


# --- outages --------------------------------------------------------------------------------------------------------


def test_an_outage_loses_no_data_and_the_kubelet_goes_on(cluster: Cluster, kubelet: Kubelet) -> None:
    cluster.apply(deployment(1))
    rolled_out(cluster)
    before = cluster.get("deployment", "shop")["metadata"]
    cluster.plane.stop_api()
    assert cluster.kubectl("get", "deployments", check=False).returncode
    cluster.plane.start_api()
    assert cluster.get("deployment", "shop")["metadata"]["uid"] == before["uid"]
    cluster.kubectl("scale", "deployment/shop", "--replicas=2")
    rolled_out(cluster)
    assert len(cluster.list("pods")) == 2


def test_a_paused_api_server_answers_nothing_until_it_goes_on(cluster: Cluster) -> None:
    cluster.plane.pause_api()
    asked = cluster.kubectl("get", "pods", "--request-timeout=1s", check=False)
    cluster.plane.resume_api()
    assert asked.returncode
    assert "exceeded" in asked.stderr.lower() or "timeout" in asked.stderr.lower()
    cluster.kubectl("get", "pods")


# --- who may do what ------------------------------------------------------------------------------------------------


def test_a_service_account_may_do_what_it_is_given_and_no_more(cluster: Cluster) -> None:
    cluster.kubectl("create", "serviceaccount", "gate")
    gate = cluster.kubeconfig_for_service_account("gate")
    refused = cluster.kubectl("get", "configmaps", kubeconfig=gate, check=False)
    assert f"system:serviceaccount:{cluster.namespace}:gate" in refused.stderr
    assert "forbidden" in refused.stderr
    cluster.kubectl("create", "role", "reader", "--verb=get,list", "--resource=configmaps")
    cluster.kubectl("create", "rolebinding", "reader", "--role=reader", f"--serviceaccount={cluster.namespace}:gate")
    wait_until(lambda: cluster.kubectl("get", "configmaps", kubeconfig=gate, check=False).returncode == 0)
    refused = cluster.kubectl("create", "configmap", "x", kubeconfig=gate, check=False)
    assert "forbidden" in refused.stderr


def test_the_roles_that_every_cluster_has_are_filled(cluster: Cluster) -> None:
    cluster.kubectl("create", "rolebinding", "dev", "--clusterrole=edit", "--user=dev@example.com")
    developer = cluster.kubeconfig_for("dev@example.com")
    asked = ("auth", "can-i", "delete", "deployments.apps")
    wait_until(lambda: cluster.kubectl(*asked, kubeconfig=developer, check=False).stdout == "yes\n")


def test_the_python_client_speaks_with_a_token(cluster: Cluster) -> None:
    settings = client.Configuration()
    config.load_kube_config(str(cluster.kubeconfig_for_service_account("default")), client_configuration=settings)
    api = client.ApiClient(settings)
    who = client.AuthenticationV1Api(api).create_self_subject_review({})
    assert who.status.user_info.username == f"system:serviceaccount:{cluster.namespace}:default"
    api.rest_client.pool_manager.clear()


def test_a_user_is_whoever_the_test_says(cluster: Cluster) -> None:
    someone = cluster.kubeconfig_for("eve@example.com", ["developers"])
    told = json.loads(cluster.kubectl("auth", "whoami", "--output=json", kubeconfig=someone).stdout)
    assert told["status"]["userInfo"]["username"] == "eve@example.com"
    assert "developers" in told["status"]["userInfo"]["groups"]
    refused = cluster.kubectl("get", "pods", kubeconfig=someone, check=False)
    assert "forbidden" in refused.stderr


@contextmanager
def policy(cluster: Cluster) -> Iterator[None]:
    """Refuses ConfigMaps named `forbidden` in this namespace, and notes the name of all others in the audit log."""
    name = f"{cluster.namespace}.parallelchange.test"
    rules = [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}]
    here = {"matchLabels": {"kubernetes.io/metadata.name": cluster.namespace}}
    cluster.apply(
        [
            {
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "ValidatingAdmissionPolicy",
                "metadata": {"name": name},
                "spec": {
                    "matchConstraints": {"resourceRules": rules, "namespaceSelector": here},
                    "validations": [{"expression": "object.metadata.name != 'forbidden'", "message": "not this one"}],
                    "auditAnnotations": [{"key": "name", "valueExpression": "string(object.metadata.name)"}],
                },
            },
            {
                "apiVersion": "admissionregistration.k8s.io/v1",
                "kind": "ValidatingAdmissionPolicyBinding",
                "metadata": {"name": name},
                "spec": {"policyName": name, "validationActions": ["Deny", "Audit"]},
            },
        ]
    )
    try:
        yield
    finally:
        for kind in ("validatingadmissionpolicybinding", "validatingadmissionpolicy"):
            cluster.kubectl("delete", kind, name)


def test_an_admission_policy_refuses_and_annotates_the_audit_log(cluster: Cluster) -> None:
    with policy(cluster):
        # A policy is in force a moment after it is made.
        dry = ("create", "configmap", "forbidden", "--dry-run=server")
        refused = wait_until(
            lambda: (ended := cluster.kubectl(*dry, check=False)).returncode and ended, what="the policy"
        )
        assert "not this one" in refused.stderr
        cluster.kubectl("create", "configmap", "allowed")

    [event] = [
        event
        for event in cluster.audit()
        if event["verb"] == "create" and event.get("requestObject", {}).get("metadata", {}).get("name") == "allowed"
    ]
    assert event["user"]["username"] == "admin"
    assert "allowed" in [
        value for key, value in event["annotations"].items() if key.endswith(".parallelchange.test/name")
    ]


# --- the programs ---------------------------------------------------------------------------------------------------


@pytest.fixture
def toolbox(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a folder of programs that comes first on the PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    return folder


def put_go(toolbox: Path, script: str) -> None:
    """A `go` that runs this script, in which $out is the file that it is to write."""
    go = toolbox / "go"
    find_output = 'while [ "$1" != -o ]; do shift; done; out=$2'
    go.write_text(f"#!/bin/sh\n{find_output}\n{script}\n")
    go.chmod(0o755)


def built(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in (tmp_path / "cache").rglob("*") if path.is_file() and path.name != "lock")


def test_a_killed_build_leaves_nothing_half_made(toolbox: Path, tmp_path: Path) -> None:
    put_go(toolbox, f'echo half > "$out"; touch {tmp_path}/begun; exec sleep 60')
    building = subprocess.Popen(
        [sys.executable, "-m", "helpers.controlplane"], cwd=Path(__file__).parents[1], stderr=subprocess.PIPE
    )
    with building:
        wait_until((tmp_path / "begun").exists)
        building.send_signal(signal.SIGKILL)
        assert b"building etcd" in building.stderr.read()
    [half_made] = (tmp_path / "cache").rglob("etcd")
    assert half_made.parent.name.startswith("building-"), "it has no name under which anybody would take it"

    put_go(toolbox, 'echo whole > "$out"')
    tools = find_tools()
    assert {path.read_text() for path in tools.values()} == {"whole\n"}
    assert built(tmp_path) == sorted(TOOLS), "the half-made one is gone"


def test_what_was_given_is_used_and_only_the_rest_is_built(
    toolbox: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = tmp_path / "given"
    given.mkdir()
    (given / "etcd").touch()
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(given))
    put_go(toolbox, 'echo built > "$out"')
    assert find_tools()["etcd"] == given / "etcd"
    assert built(tmp_path) == sorted(TOOLS.keys() - {"etcd"})


def test_the_reason_is_told_when_nothing_can_be_built(toolbox: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_go(toolbox, "echo 'go: no network' >&2; exit 1")
    with pytest.raises(NoControlPlane, match="etcd cannot be built: go: no network"):
        find_tools()
    monkeypatch.setenv("PATH", "")
    with pytest.raises(NoControlPlane, match="no Go"):
        find_tools()
