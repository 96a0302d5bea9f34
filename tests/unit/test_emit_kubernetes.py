"""Manifests of a change: what is made of the app's own, what is refused, and how files are written."""

from __future__ import annotations

import copy
import io
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from helpers.changes import SPLIT, make_change
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from parallelchange.change import Bound, Change, MetricsSpec
from parallelchange.cli.emit import command
from parallelchange.emit.kubernetes import MARKER, Document, Options, emit, guard_policies, parse, read, write
from parallelchange.errors import InvalidFile, ParallelChangeError, UsageError
from parallelchange.layout import LAYOUTS, Approval, Role

ROOT = Path(__file__).resolve().parents[2]
SHOP = ROOT / "examples" / "01_split_customer_name" / "deploy" / "shop.yaml"
OLD, NEW = "registry.example/shop:1", "registry.example/shop:2"
KUSTOMIZATION = "Kustomization"
ROUTERS = ("smi", "gateway-api", "nginx", "istio", "flagd")
OPTIONS = Options(gate_image="registry.example/gate:1", reference="changes/a-change.yaml")

INGRESS = """\
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata:
  name: web
  annotations:
    nginx.ingress.kubernetes.io/ssl-redirect: "true"
    nginx.ingress.kubernetes.io/affinity: cookie
    cert-manager.io/cluster-issuer: main
spec:
  ingressClassName: nginx
  tls: [{hosts: [shop.example], secretName: shop-tls}]
  rules:
    - host: shop.example
      http:
        paths:
          - {path: /, pathType: Prefix, backend: {service: {name: shop, port: {name: http}}}}
          - {path: /help, pathType: Prefix, backend: {service: {name: help, port: {number: 80}}}}
    - host: help.example
      http:
        paths:
          - {path: /, pathType: Prefix, backend: {service: {name: help, port: {number: 80}}}}
"""
HTTP_ROUTE = """\
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: web}
spec:
  parentRefs: [{name: edge}]
  rules:
    - matches: [{path: {type: PathPrefix, value: /help}}]
      backendRefs: [{name: help, port: 80}]
    - backendRefs: [{name: shop, port: 80}]
"""
VIRTUAL_SERVICE = """\
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [shop.example]
  http:
    - match: [{uri: {prefix: /help}}]
      route: [{destination: {host: help}}]
    - timeout: 3s
      route: [{destination: {host: shop.prod.svc.cluster.local, port: {number: 80}}}]
"""


def a_change(
    router: str = "smi", layout: str = "azure", old: str | None = OLD, new: str | None = NEW, **rest: Any
) -> Change:
    change = make_change(SPLIT.operation, **{k: v for k, v in rest.items() if k not in ("stages", "service")})
    traffic = replace(
        change.traffic, router=router, layout=layout, **{k: v for k, v in rest.items() if k in ("stages", "service")}
    )
    return replace(change, traffic=traffic, old=replace(change.old, image=old), new=replace(change.new, image=new))


def manifests(router: str = "smi", more: str = "", text: str | None = None) -> list[Document]:
    own = SHOP.read_text(encoding="utf-8") if text is None else text
    extra = "\n---\n".join(filter(None, [INGRESS if router == "nginx" and "Ingress" not in own else "", more]))
    return parse(Path("shop.yaml"), own + (f"\n---\n{extra}" if extra else ""))


def made(
    router: str = "smi", more: str = "", text: str | None = None, options: Options = OPTIONS, **change: Any
) -> dict[str, str]:
    return emit(a_change(router, **change), manifests(router, more, text), options).files


def objects(files: dict[str, str], *names: str) -> list[Any]:
    """The objects in files, as kubectl reads them."""
    return [found for name in names or files for found in yaml.load_all(files[name], yaml.CSafeLoader)]


def one(files: dict[str, str], name: str) -> Any:
    (found,) = objects(files, name)
    return found


def refused(
    text: str = "", router: str = "smi", own: str | None = None, options: Options = OPTIONS, **change: Any
) -> InvalidFile:
    with pytest.raises(InvalidFile) as error:
        made(router, text, own, options, **change)
    assert error.value.hint, error.value
    assert error.value.line, error.value
    return error.value


def edited(*changes: tuple[str, str]) -> str:
    """The shop's manifests with some of their text replaced."""
    text = SHOP.read_text(encoding="utf-8")
    for before, after in changes:
        assert before in text
        text = text.replace(before, after)
    return text


def an_object(api: str, kind: str, name: str, spec: str = "{}") -> str:
    """A document on one line."""
    return f"{{apiVersion: {api}, kind: {kind}, metadata: {{name: {name}}}, spec: {spec}}}"


# --- the two versions ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layout", "label", "names"),
    [
        ("azure", "azure-pipelines/version", ["shop", "shop-baseline", "shop-canary"]),
        ("k8s-deploy", "workflow/version", ["shop-stable", "shop-baseline", "shop-canary"]),
    ],
)
def test_each_role_is_named_and_labelled_as_its_tool_does_it(layout: str, label: str, names: list[str]) -> None:
    files = made(layout=layout)
    for role, name in zip(Role, names, strict=True):
        deployment, service = one(files, f"base/deployment-{role}.yaml"), one(files, f"base/service-{role}.yaml")
        assert deployment["metadata"]["name"] == name
        assert service["metadata"]["name"] == f"shop-{role}"
        for item in (deployment, service):
            assert item["metadata"]["labels"] == {"app": "shop", label: role}
            assert item["metadata"]["annotations"] == {label: role, "parallelchange/change": "a-change"}
        assert deployment["spec"]["selector"] == {"matchLabels": {"app": "shop", label: role}}
        assert deployment["spec"]["template"]["metadata"]["labels"] == {"app": "shop", label: role}
        assert service["spec"]["selector"] == {"app": "shop", label: role}
    assert one(files, "base/service.yaml")["spec"]["selector"] == {"app": "shop"}


def test_old_and_new_images_and_sizes() -> None:
    files = made()
    found = {role: one(files, f"base/deployment-{role}.yaml")["spec"] for role in Role}
    assert {role: spec["replicas"] for role, spec in found.items()} == {"stable": 3, "baseline": 1, "canary": 1}
    images = {role: spec["template"]["spec"]["containers"][0]["image"] for role, spec in found.items()}
    assert images == {"stable": OLD, "baseline": OLD, "canary": NEW}


def test_a_size_the_user_leaves_to_others_is_left_to_them() -> None:
    files = made(text=edited(("  replicas: 3\n", "")))
    assert "replicas" not in one(files, "base/deployment-stable.yaml")["spec"]


def test_only_the_apps_own_containers_get_its_image() -> None:
    more = (
        "      initContainers:\n"
        "        - {name: migrate, image: 'registry.example/shop@sha256:abc'}\n"
        "        - {name: wait, image: 'registry.example:5000/wait:1'}\n"
        "      containers:\n        - {name: log, image: registry.example/log:1}\n"
    )
    files = made(text=edited(("      containers:\n", more)))
    pod = one(files, "base/deployment-canary.yaml")["spec"]["template"]["spec"]
    assert [c["image"] for c in pod["initContainers"]] == [NEW, "registry.example:5000/wait:1"]
    assert [c["image"] for c in pod["containers"]] == ["registry.example/log:1", NEW]


def test_a_sole_container_is_the_app_whatever_it_ran_before() -> None:
    files = made(text=edited(("registry.example/shop:1", "elsewhere.example/boutique:7")))
    assert one(files, "base/deployment-stable.yaml")["spec"]["template"]["spec"]["containers"][0]["image"] == OLD


def test_which_container_is_the_app_is_not_guessed() -> None:
    own = edited(
        ("image: registry.example/shop:1", "image: elsewhere.example/a:1"),
        ("      containers:\n", "      containers:\n        - {name: log, image: 'registry.example/log:1'}\n"),
    )
    assert "log, shop" in refused(own=own).message


def test_variants_of_the_service_have_its_ports_and_none_of_its_addresses() -> None:
    annotations = "{external-dns.alpha.kubernetes.io/hostname: shop.example, config.linkerd.io/opaque-ports: '25'}"
    balanced = (
        "  type: LoadBalancer\n  clusterIP: 10.96.0.9\n  loadBalancerIP: 192.0.2.1\n"
        "  externalTrafficPolicy: Local\n  sessionAffinity: ClientIP\n"
    )
    own = edited(
        (_PORTS, f"{balanced}{_PORTS}"),
        ("port: 80,", "port: 80, nodePort: 30080, appProtocol: http,"),
        ("kind: Service\nmetadata:\n", f"kind: Service\nmetadata:\n  annotations: {annotations}\n"),
    )
    files = made(text=own)
    root, canary = one(files, "base/service.yaml"), one(files, "base/service-canary.yaml")
    assert root["spec"]["type"] == "LoadBalancer"
    assert root["spec"]["ports"][0]["nodePort"] == 30080
    assert canary["spec"] == {
        "sessionAffinity": "ClientIP",
        "selector": {"app": "shop", "azure-pipelines/version": "canary"},
        "ports": [{"name": "http", "port": 80, "appProtocol": "http", "targetPort": "http"}],
    }
    assert "config.linkerd.io/opaque-ports" in canary["metadata"]["annotations"]
    assert "external-dns.alpha.kubernetes.io/hostname" not in canary["metadata"]["annotations"]


@pytest.mark.parametrize(
    ("router", "part", "key", "value"),
    [
        ("smi", "annotations", "linkerd.io/inject", "enabled"),
        ("gateway-api", "annotations", "linkerd.io/inject", "enabled"),
        ("istio", "labels", "sidecar.istio.io/inject", "true"),
        ("nginx", "annotations", "linkerd.io/inject", None),
        ("flagd", "annotations", "linkerd.io/inject", None),
    ],
)
def test_the_mesh_is_injected(router: str, part: str, key: str, value: str | None) -> None:
    files = made(router)
    for role in Role:
        template = one(files, f"base/deployment-{role}.yaml")["spec"]["template"]["metadata"]
        assert template.get(part, {}).get(key) == value


def test_a_way_of_injection_that_was_chosen_stays() -> None:
    labels = "      labels: {app: shop}\n"
    own = edited((labels, f"{labels}      annotations: {{linkerd.io/inject: ingress}}\n"))
    template = one(made(text=own), "base/deployment-canary.yaml")["spec"]["template"]["metadata"]
    assert template["annotations"] == {"linkerd.io/inject": "ingress"}


def test_pull_secrets_go_to_every_pod_once() -> None:
    own = edited(("      containers:\n", "      imagePullSecrets: [{name: one}]\n      containers:\n"))
    files = made(text=own, options=replace(OPTIONS, pull_secrets=("one", "two")))
    pods = [
        item["spec"]["template"]["spec"] for item in objects(files) if item and item["kind"] in ("Deployment", "Job")
    ]
    assert len(pods) == 3 + 6
    wanted = {(("name", "one"),), (("name", "two"),)}
    assert all({tuple(item.items()) for item in pod["imagePullSecrets"]} == wanted for pod in pods)
    assert all(len(pod["imagePullSecrets"]) == 2 for pod in pods)


def test_disruption_budgets_stand_aside_for_the_users_own() -> None:
    files = made()
    assert [item["metadata"]["name"] for item in objects(files, "base/disruption.yaml")] == [
        "shop-stable",
        "shop-canary",
    ]
    assert all(item["spec"]["maxUnavailable"] == 1 for item in objects(files, "base/disruption.yaml"))
    budget = an_object("policy/v1", "PodDisruptionBudget", "b", "{selector: {matchLabels: {app: shop}}}")
    emission = emit(a_change(), manifests(more=budget), OPTIONS)
    assert "base/disruption.yaml" not in emission.files
    assert "PodDisruptionBudget b" in emission.notes[0]


def test_what_scales_the_old_name_is_told() -> None:
    scaler = (
        "{apiVersion: autoscaling/v2, kind: HorizontalPodAutoscaler, metadata: {name: h},"
        " spec: {maxReplicas: 9, scaleTargetRef: {apiVersion: apps/v1, kind: Deployment, name: shop}}}"
    )
    assert not emit(a_change(), manifests(more=scaler), OPTIONS).notes
    (note,) = emit(a_change(layout="k8s-deploy"), manifests(more=scaler), OPTIONS).notes
    assert "shop-stable" in note


def test_how_a_running_deployment_is_adopted_is_told() -> None:
    azure = made(options=replace(OPTIONS, namespace="prod"))["base/deployment-stable.yaml"]
    assert "kubectl -n prod delete deployment shop --cascade=orphan" in azure
    assert "delete replicaset -l 'app=shop,!azure-pipelines/version'" in azure
    assert "kubectl delete deployment shop\n" in made(layout="k8s-deploy")["base/deployment-stable.yaml"]


# --- what moves traffic ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v1alpha1", "v1alpha2", "v1alpha3", "v1alpha4"])
@pytest.mark.parametrize(
    ("layout", "name"), [("azure", "shop-azure-pipelines-rollout"), ("k8s-deploy", "shop-workflow-rollout")]
)
def test_traffic_split(version: str, layout: str, name: str) -> None:
    split = one(made(layout=layout, options=replace(OPTIONS, split_version=version)), "base/traffic.yaml")
    assert split["apiVersion"] == f"split.smi-spec.io/{version}"
    assert split["metadata"]["name"] == name
    assert split["spec"]["service"] == "shop"
    weights = {item["service"]: item["weight"] for item in split["spec"]["backends"]}
    whole, none = ("1000m", "0m") if version == "v1alpha1" else (1000, 0)
    assert weights == {"shop-stable": whole, "shop-baseline": none, "shop-canary": none}


def test_http_route_of_the_service() -> None:
    spec = one(made("gateway-api"), "base/traffic.yaml")["spec"]
    assert spec["parentRefs"] == [{"group": "", "kind": "Service", "name": "shop", "port": 80}]
    assert spec["rules"][0]["backendRefs"] == [
        {"name": "shop-stable", "port": 80, "weight": 1000},
        {"name": "shop-baseline", "port": 80, "weight": 0},
        {"name": "shop-canary", "port": 80, "weight": 0},
    ]


def test_http_route_takes_the_one_port_that_is_http() -> None:
    own = edited(("targetPort: http}", "targetPort: http}\n    - {name: metrics, port: 9090, targetPort: http}"))
    assert one(made("gateway-api", text=own), "base/traffic.yaml")["spec"]["parentRefs"][0]["port"] == 80
    two = refused(router="gateway-api", own=own.replace("name: metrics", "name: http-admin"))
    assert "http, http-admin" in two.message


def test_a_route_of_the_users_own_becomes_the_split() -> None:
    files = made("gateway-api", HTTP_ROUTE)
    route = one(files, "base/traffic.yaml")
    assert route["metadata"]["name"] == "web"
    assert route["spec"]["parentRefs"] == [{"name": "edge"}]
    assert route["spec"]["rules"][0]["backendRefs"] == [{"name": "help", "port": 80}]
    weights = [(item["name"], item["port"], item["weight"]) for item in route["spec"]["rules"][1]["backendRefs"]]
    assert weights == [("shop-stable", 80, 1000), ("shop-baseline", 80, 0), ("shop-canary", 80, 0)]
    assert not any(name.startswith("base/given") for name in files)


def test_virtual_service() -> None:
    spec = one(made("istio"), "base/traffic.yaml")["spec"]
    assert spec == {
        "hosts": ["shop"],
        "http": [
            {
                "route": [
                    {"destination": {"host": "shop-stable"}, "weight": 100},
                    {"destination": {"host": "shop-baseline"}, "weight": 0},
                    {"destination": {"host": "shop-canary"}, "weight": 0},
                ]
            }
        ],
    }


def test_a_virtual_service_of_the_users_own_becomes_the_split() -> None:
    spec = one(made("istio", VIRTUAL_SERVICE), "base/traffic.yaml")["spec"]
    assert spec["http"][0]["route"] == [{"destination": {"host": "help"}}]
    assert spec["http"][1]["timeout"] == "3s"
    assert [(r["destination"], r["weight"]) for r in spec["http"][1]["route"]] == [
        ({"host": f"shop-{role}", "port": {"number": 80}}, 100 if role == "stable" else 0) for role in Role
    ]


def test_ingress_and_its_canary() -> None:
    main, canary = objects(made("nginx"), "base/traffic.yaml")
    paths = main["spec"]["rules"][0]["http"]["paths"]
    assert [path["backend"]["service"]["name"] for path in paths] == ["shop-stable", "help"]
    assert main["spec"]["tls"]
    assert main["metadata"]["annotations"]["cert-manager.io/cluster-issuer"] == "main"
    assert canary["metadata"]["name"] == "web-canary"
    assert canary["metadata"]["annotations"] == {
        "nginx.ingress.kubernetes.io/affinity": "cookie",
        "nginx.ingress.kubernetes.io/canary": "true",
        "nginx.ingress.kubernetes.io/canary-weight": "0",
        "nginx.ingress.kubernetes.io/canary-weight-total": "1000",
        "parallelchange/change": "a-change",
    }
    backend = {"service": {"name": "shop-canary", "port": {"name": "http"}}}
    paths = [{"path": "/", "pathType": "Prefix", "backend": backend}]
    rules = [{"host": "shop.example", "http": {"paths": paths}}]
    assert canary["spec"] == {"ingressClassName": "nginx", "rules": rules}


def test_feature_flag() -> None:
    flag = one(made("flagd"), "base/traffic.yaml")
    assert flag["apiVersion"] == "core.openfeature.dev/v1beta1"
    assert flag["spec"]["flagSpec"]["flags"] == {
        "shop": {
            "state": "ENABLED",
            "variants": {"stable": "shop-stable", "canary": "shop-canary"},
            "defaultVariant": "stable",
            "targeting": {"fractional": [["stable", 1000], ["canary", 0]]},
        }
    }


# --- guard, gates and overlays ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("layout", "stable"), [("azure", "shop"), ("k8s-deploy", "shop-stable")])
def test_approvals_begin_with_nothing(layout: str, stable: str) -> None:
    found = one(made(layout=layout), "guard/approvals.yaml")
    assert found["metadata"]["name"] == "parallelchange-shop"
    assert found["metadata"]["labels"] == {"parallelchange/approvals": "shop"}
    assert set(found["data"]) == set(Approval)
    assert found["data"] == {
        "change": "a-change",
        "service": "shop",
        "approved": "0",
        "approved-until": "",
        "standing": "0",
        "old-image": OLD,
        "new-image": NEW,
        "old-backends": "shop-stable,shop-baseline",
        "old-deployments": stable,
        "selector": "app=shop",
        "contracted": "false",
    }


def rights(router: str = "smi", **change: Any) -> dict[tuple[str, str], tuple[set[str], list[str] | None]]:
    role = objects(made(router, **change), "guard/role.yaml")[0]
    found: dict[Any, Any] = {}
    for rule in role["rules"]:
        for resource in rule["resources"]:
            key = (rule["apiGroups"][0], resource, "resourceNames" in rule)
            assert key not in found
            found[key] = (set(rule["verbs"]), rule.get("resourceNames"))
    return found


@pytest.mark.parametrize(
    ("router", "group", "plural", "name"),
    [
        ("smi", "split.smi-spec.io", "trafficsplits", "shop-azure-pipelines-rollout"),
        ("gateway-api", "gateway.networking.k8s.io", "httproutes", "shop-azure-pipelines-rollout"),
        ("nginx", "networking.k8s.io", "ingresses", "web-canary"),
        ("istio", "networking.istio.io", "virtualservices", "shop-azure-pipelines-rollout"),
        ("flagd", "core.openfeature.dev", "featureflags", "shop-azure-pipelines-rollout"),
    ],
)
def test_rights_are_the_least(router: str, group: str, plural: str, name: str) -> None:
    found = rights(router)
    assert found[group, plural, False] == ({"get", "list", "watch"}, None)
    assert found[group, plural, True] == ({"patch", "update"}, [name])
    assert found["", "configmaps", True] == ({"get", "patch", "update"}, ["parallelchange-shop"])
    assert found["apps", "deployments/scale", True][1] == ["shop", "shop-baseline", "shop-canary"]
    assert (("linkerd.io", "serviceprofiles", False) in found) == (router in ("smi", "gateway-api"))
    # What may be written without a name to hold it to.
    writing = {
        key[:2] for key, (verbs, names) in found.items() if names is None and not verbs <= {"get", "list", "watch"}
    }
    assert writing == {("coordination.k8s.io", "leases"), ("", "events"), ("events.k8s.io", "events")}
    assert not any("*" in part for key in found for part in key[:2])
    assert not any(verbs & {"delete", "deletecollection", "*"} for verbs, _ in found.values())


def test_the_metrics_api_is_read_only_where_it_is_used() -> None:
    bound = Bound(at_least=True, value=0.99, text=">= 99%")
    metrics = MetricsSpec(success_rate=bound, latency_p99=bound, window=60.0, min_requests=1, smi=True)
    assert rights(metrics=metrics)["metrics.smi-spec.io", "deployments", False] == ({"get", "list"}, None)
    assert ("metrics.smi-spec.io", "deployments", False) not in rights()


def test_the_policies_are_copied_as_they_are() -> None:
    files = made()
    assert guard_policies()
    for name, text in guard_policies().items():
        assert files[f"guard/cluster/{name}"] == f"{MARKER}\n{text}"
    assert one(files, "guard/cluster/kustomization.yaml")["resources"] == sorted(guard_policies())


def test_a_job_for_each_gate() -> None:
    files = made(stages=(5, 125, 1000))
    names = ["verify", "gate-0-5", "gate-12-5", "gate-100", "rollout"]
    assert one(files, "gates/kustomization.yaml")["resources"] == [f"{name}.yaml" for name in names]
    found = {name: one(files, f"gates/{name}.yaml") for name in names}
    assert all(job["metadata"]["name"] == f"a-change-{name}" for name, job in found.items())
    commands = {name: job["spec"]["template"]["spec"]["containers"][0]["command"] for name, job in found.items()}
    assert commands["gate-12-5"] == ["parallelchange", "gate", "changes/a-change.yaml", "--to", "12.5%"]
    assert commands["rollout"] == ["parallelchange", "rollout", "changes/a-change.yaml", "--stand-by"]


def test_a_job_gets_its_database_from_a_secret_and_may_do_nothing_it_need_not() -> None:
    job = one(made(), "gates/rollout.yaml")
    pod = job["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    env = {item["name"]: item.get("value", item.get("valueFrom")) for item in container["env"]}
    assert env["PARALLELCHANGE_DATABASE_URL"] == {"secretKeyRef": {"name": "parallelchange-database", "key": "url"}}
    assert (env["PARALLELCHANGE_IMAGE_OLD"], env["PARALLELCHANGE_IMAGE_NEW"]) == (OLD, NEW)
    assert pod["serviceAccountName"] == "parallelchange"
    assert pod["restartPolicy"] == "Never"
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert container["securityContext"]["allowPrivilegeEscalation"] is False
    assert job["spec"]["template"]["metadata"]["annotations"]["linkerd.io/inject"] == "disabled"
    first = job["spec"]["podFailurePolicy"]["rules"][0]
    assert (first["action"], first["onExitCodes"]["values"]) == ("FailJob", [1, 2])
    assert job["spec"]["backoffLimit"] > 3


def test_an_address_of_the_database_never_gets_into_the_output(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PARALLELCHANGE_DATABASE_URL", "postgresql://app:hunter2@db/shop")
    assert not any("hunter2" in text for text in made().values())


def test_blue_green_has_a_preview_and_no_baseline() -> None:
    files = made(options=replace(OPTIONS, strategy="blue-green"), stages=(1000,))
    assert "overlays/canary/kustomization.yaml" not in files
    kustomization = one(files, "overlays/blue-green/kustomization.yaml")
    patches = [(p["target"]["kind"], p["target"]["name"], yaml.safe_load(p["patch"])) for p in kustomization["patches"]]
    assert patches[0][:2] == ("Deployment", "shop-baseline")
    assert patches[0][2]["$patch"] == "delete"
    assert patches[2] == ("Deployment", "shop-canary", [{"op": "replace", "path": "/spec/replicas", "value": 3}])
    assert patches[3][2] == [
        {"op": "test", "path": "/spec/backends/1/service", "value": "shop-baseline"},
        {"op": "remove", "path": "/spec/backends/1"},
    ]
    preview = one(files, "overlays/blue-green/service-preview.yaml")
    assert preview["metadata"]["name"] == "shop-preview"
    assert preview["spec"]["selector"] == {"app": "shop", "azure-pipelines/version": "canary"}
    assert one(files, "guard/approvals.yaml")["data"]["old-backends"] == "shop-stable"
    assert [name for name in files if name.startswith("gates/gate")] == ["gates/gate-100.yaml"]
    assert one(files, "kustomization.yaml")["resources"] == ["overlays/blue-green"]


def test_blue_green_has_no_stages_between() -> None:
    change = replace(a_change(), lines={"traffic.stages": 7})
    with pytest.raises(InvalidFile, match="blue-green") as error:
        emit(change, manifests(), replace(OPTIONS, strategy="blue-green"))
    assert error.value.line == 7


# --- what is passed on, and what is refused --------------------------------------------------------------------------


def test_other_objects_are_passed_on_word_for_word() -> None:
    other = (
        "# why\napiVersion: v1\nkind: ConfigMap\nmetadata: {name: Settings}\n"
        "data:\n  on: 'yes'   # kept\n  long: >\n    a\n    b\n"
    )
    files = made(more=other)
    assert files["base/given/configmap-settings.yaml"].endswith(other.removeprefix("# why\n"))
    assert "given/configmap-settings.yaml" in one(files, "base/kustomization.yaml")["resources"]


def test_names_of_passed_on_files_are_told_apart() -> None:
    first = "{apiVersion: v1, kind: ConfigMap, metadata: {name: a, namespace: one}}"
    files = made(more=f"{first}\n---\n{first.replace('one', 'two')}")
    assert {name for name in files if "given" in name} == {
        "base/given/configmap-a.yaml",
        "base/given/configmap-a-2.yaml",
    }


_PORTS = "  selector: {app: shop}\n  ports"
_CONTAINERS = "      containers:\n"
_SERVICE = "kind: Service\nmetadata:\n"
_ENV = "valueFrom:\n                secretKeyRef: {name: shop-database, key: url}"


@pytest.mark.parametrize(
    ("message", "before", "after"),
    [
        ("have no Service shop", "kind: Service", "kind: Surface"),
        ("selects the pods of no Deployment: app=cart", _PORTS, "  selector: {app: cart}\n  ports"),
        ("has no selector", _PORTS, "  ports"),
        ("has no port", "  ports:\n    - {name: http, port: 80, targetPort: http}", "  ports: []"),
        ("its port 80 goes to web, which no container", "targetPort: http}", "targetPort: web}"),
        ("its port 80 goes to 9999, which no container", "targetPort: http}", "targetPort: 9999}"),
        ("has a port without a number", "port: 80, ", ""),
        ("headless", _PORTS, f"  clusterIP: None\n{_PORTS}"),
        ("ExternalName", _PORTS, f"  type: ExternalName\n{_PORTS}"),
        ("does not select its own pods", "matchLabels: {app: shop}", "matchLabels: {app: cart}"),
        ("is of extensions/v1beta1", "apiVersion: apps/v1", "apiVersion: extensions/v1beta1"),
        (
            "ends with -canary",
            "kind: Deployment\nmetadata:\n  name: shop",
            "kind: Deployment\nmetadata:\n  name: shop-canary",
        ),
        ("which cannot be split", "kind: Deployment", "kind: StatefulSet"),
        ("`spec.template.metadata.labels.app` is 1", "      labels: {app: shop}", "      labels: {app: 1}"),
        ("`spec.replicas` is no whole number", "replicas: 3", "replicas: three"),
        ("`metadata.resourceVersion` was read from a cluster", _SERVICE, f"{_SERVICE}  resourceVersion: '1'\n"),
        (
            "has a role already",
            "  labels: {app: shop}\nspec:\n  selector",
            "  labels: {workflow/version: stable}\nspec:\n  selector",
        ),
        ("holds a password", _ENV, "value: postgresql://app:hunter2@db/shop"),
        ("imagePullSecrets.0` is no mapping", _CONTAINERS, f"      imagePullSecrets: [one]\n{_CONTAINERS}"),
        ("has no container", _CONTAINERS, "      boxes:\n"),
    ],
)
def test_manifests_that_cannot_be_used(message: str, before: str, after: str) -> None:
    change = replace(a_change(), lines={"traffic": 3})
    with pytest.raises(InvalidFile) as error:
        emit(change, manifests(text=edited((before, after))), OPTIONS)
    assert message in error.value.message
    assert "hunter2" not in str(error.value)
    assert error.value.line


@pytest.mark.parametrize(
    "value", ["postgresql://$(USER):$(PASSWORD)@db/shop", "postgresql://app@db/shop", "https://shop.example:8443/@x"]
)
def test_an_address_without_a_password_is_none(value: str) -> None:
    text = made(text=edited((_ENV, f"value: {value}")))["base/deployment-stable.yaml"]
    assert value in text


@pytest.mark.parametrize(
    ("message", "more"),
    [
        ("is a list", "{apiVersion: v1, kind: List, items: []}"),
        ("a Secret is not copied", an_object("v1", "Secret", "s")),
        ("a kustomization is no manifest", "{apiVersion: kustomize.config.k8s.io/v1beta1, kind: Kustomization}"),
        ("no object", "- a"),
        ("has no `kind`", "{apiVersion: v1, metadata: {name: x}}"),
        ("has no `metadata.name`", "{apiVersion: v1, kind: ConfigMap, metadata: {}}"),
        ("is there twice", an_object("v1", "Service", "shop")),
        ("is made here too", an_object("v1", "Service", "shop-canary")),
        ("is made here too", an_object("apps/v1", "Deployment", "shop-canary")),
        (
            "splits Service shop already",
            an_object("split.smi-spec.io/v1alpha2", "TrafficSplit", "x", "{service: shop}"),
        ),
        ("is no YAML", "a: [1"),
        ("of 2 Deployments", an_object("apps/v1", "Deployment", "b", "{template: {metadata: {labels: {app: shop}}}}")),
    ],
)
def test_documents_that_cannot_be_used(message: str, more: str) -> None:
    with pytest.raises(InvalidFile) as error:
        made(more=more)
    assert message in error.value.message
    assert error.value.line
    assert error.value.line > 35


_FLAG = an_object("core.openfeature.dev/v1beta1", "FeatureFlag", "f", "{flagSpec: {flags: {shop: {}}}}")


@pytest.mark.parametrize(
    ("router", "message", "more"),
    [
        ("nginx", "is a canary already", INGRESS.replace("ssl-redirect", "canary")),
        ("nginx", "routes to Service shop, and so does", f"{INGRESS}\n---\n{INGRESS.replace('web', 'two')}"),
        ("nginx", "is of extensions/v1beta1", INGRESS.replace("networking.k8s.io/v1", "extensions/v1beta1")),
        (
            "gateway-api",
            "splits the traffic of Service shop already",
            HTTP_ROUTE.replace("[{name: s", "[{name: t}, {name: s"),
        ),
        ("istio", "routes to a subset", VIRTUAL_SERVICE.replace("local,", "local, subset: v1,")),
        ("flagd", "splits Service shop already", _FLAG),
    ],
)
def test_routes_that_cannot_be_used(router: str, message: str, more: str) -> None:
    own = SHOP.read_text(encoding="utf-8") + "\n---\n" + more
    assert message in refused(router=router, own=own).message


def test_nginx_needs_an_ingress() -> None:
    change = replace(a_change("nginx"), lines={"traffic.router": 5})
    with pytest.raises(InvalidFile, match="no Ingress that routes to Service shop") as error:
        emit(change, manifests(), OPTIONS)
    assert error.value.line == 5


def test_an_error_names_file_and_line() -> None:
    error = refused(own=edited(("targetPort: http}", "targetPort: web}")))
    line = SHOP.read_text(encoding="utf-8").splitlines().index("    - {name: http, port: 80, targetPort: http}") + 1
    assert (error.path, error.line) == (Path("shop.yaml"), line)
    assert "shop.yaml:15" in str(error.hint)  # where the containers are


@pytest.mark.parametrize(
    ("key", "variable"), [("old", "PARALLELCHANGE_IMAGE_OLD"), ("new", "PARALLELCHANGE_IMAGE_NEW")]
)
def test_a_version_without_an_image(key: str, variable: str) -> None:
    with pytest.raises(UsageError) as error:
        made(**{key: None})
    assert f"versions.{key}.image" in str(error.value.hint)
    assert variable in str(error.value.hint)


@pytest.mark.parametrize("options", [{"namespace": "A b"}, {"pull_secrets": ("a b",)}, {"gate_image": "a b"}])
def test_options_that_cannot_be_used(options: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        made(options=replace(OPTIONS, **options))


def test_both_versions_cannot_be_the_same_image() -> None:
    with pytest.raises(UsageError, match="the same image"):
        made(new=OLD)


def test_the_local_mesh_is_not_in_a_cluster() -> None:
    change = replace(a_change("local"), lines={"traffic.router": 9})
    with pytest.raises(InvalidFile, match="one machine") as error:
        emit(change, manifests(), OPTIONS)
    assert error.value.line == 9


def test_too_long_a_name() -> None:
    name = "s" * 55
    own = SHOP.read_text(encoding="utf-8").replace("name: shop\n", f"name: {name}\n")
    assert "longer than 63" in refused(own=own, service=name).message


def of_ours(files: dict[str, str]) -> list[Any]:
    """What is made for a namespace."""
    return [
        item
        for name in files
        if "cluster" not in name
        for item in objects(files, name)
        if item["kind"] != KUSTOMIZATION
    ]


def test_namespaces_agree() -> None:
    own = edited((_SERVICE, f"{_SERVICE}  namespace: prod\n"))
    files = made(text=own)
    assert {item["metadata"].get("namespace") for item in of_ours(files)} == {"prod"}
    assert objects(files, "guard/role.yaml")[1]["subjects"][0]["namespace"] == "prod"
    assert "--namespace says test" in refused(own=own, options=replace(OPTIONS, namespace="test")).message
    both = own.replace("kind: Deployment\nmetadata:\n", "kind: Deployment\nmetadata:\n  namespace: test\n")
    assert "Service shop is in prod" in str(refused(own=both))
    assert "'A b' is no namespace" in refused(own=own.replace("namespace: prod", "namespace: A b")).message
    other = "{apiVersion: v1, kind: ConfigMap, metadata: {name: c, namespace: test}}"
    (note,) = emit(a_change(), manifests(more=other, text=own), OPTIONS).notes
    assert "is in namespace test" in note


def test_without_a_namespace_the_context_decides() -> None:
    assert all("namespace" not in item["metadata"] for item in of_ours(made()))


# --- properties ------------------------------------------------------------------------------------------------------

_ODD = st.sampled_from(
    [
        None,
        True,
        0,
        -1,
        3.5,
        "",
        "on",
        "a b",
        [],
        {},
        [None],
        [1],
        ["a"],
        {"a": 1},
        {"name": None},
        [{"name": 1}],
        "x" * 70,
    ]
)


def _places(node: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield place
    for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
        yield from _places(value, (*place, key))


@given(data=st.data(), router=st.sampled_from(ROUTERS))
def test_odd_manifests_are_refused_or_used_and_nothing_else(data: st.DataObject, router: str) -> None:
    more = {"nginx": INGRESS, "gateway-api": HTTP_ROUTE, "istio": VIRTUAL_SERVICE}.get(router, "")
    documents = list(yaml.safe_load_all(SHOP.read_text(encoding="utf-8") + (f"\n---\n{more}" if more else "")))
    for _ in range(data.draw(st.integers(1, 2))):
        document = data.draw(st.sampled_from(documents))
        *above, key = data.draw(st.sampled_from([place for place in _places(document) if place]))
        node = document
        for step in above:
            node = node[step] if isinstance(node, dict | list) else {}
        if isinstance(node, dict) or (isinstance(node, list) and key < len(node)):
            node[key] = copy.deepcopy(data.draw(_ODD))
    text = yaml.safe_dump_all(documents)
    with suppress(ParallelChangeError):
        assert objects(emit(a_change(router), parse(Path("odd.yaml"), text), OPTIONS).files)


_LABEL = st.from_regex(r"[a-zA-Z0-9]([-a-zA-Z0-9_.]{0,20}[a-zA-Z0-9])?", fullmatch=True)
_KEY = st.builds(
    lambda prefix, name: f"{prefix}/{name}" if prefix else name, st.sampled_from(["", "a.example"]), _LABEL
)


@settings(max_examples=25)
@given(
    labels=st.dictionaries(_KEY, _LABEL, min_size=1, max_size=4),
    more=st.dictionaries(_KEY, _LABEL, max_size=3),
    layout=st.sampled_from(sorted(LAYOUTS)),
)
def test_odd_selectors_stay_what_they_are(labels: dict[str, str], more: dict[str, str], layout: str) -> None:
    deployment, service = yaml.safe_load_all(SHOP.read_text(encoding="utf-8"))
    deployment["spec"]["selector"]["matchLabels"] = labels
    deployment["spec"]["template"]["metadata"]["labels"] = {**more, **labels}
    service["spec"]["selector"] = labels
    files = made(text=yaml.safe_dump_all([deployment, service]), layout=layout)
    label = LAYOUTS[layout].label
    for role in Role:
        spec = one(files, f"base/deployment-{role}.yaml")["spec"]
        assert spec["selector"]["matchLabels"] == {**labels, label: role}
        assert spec["template"]["metadata"]["labels"].items() >= {**more, **labels, label: role}.items()
        assert one(files, f"base/service-{role}.yaml")["spec"]["selector"] == {**labels, label: role}
    assert one(files, "base/service.yaml")["spec"]["selector"] == labels
    pairs = one(files, "guard/approvals.yaml")["data"]["selector"].split(",")
    assert dict(pair.split("=") for pair in pairs) == labels


@settings(max_examples=25)
@given(
    service=st.from_regex(r"[a-z]([-a-z0-9]{0,52}[a-z0-9])?", fullmatch=True),
    change=st.from_regex(r"[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?", fullmatch=True),
    stages=st.sets(st.integers(1, 999), max_size=4),
    layout=st.sampled_from(sorted(LAYOUTS)),
)
def test_names_fit(service: str, change: str, stages: set[int], layout: str) -> None:
    text = SHOP.read_text(encoding="utf-8").replace(
        "kind: Service\nmetadata:\n  name: shop", f"kind: Service\nmetadata:\n  name: '{service}'"
    )
    files = made(text=text, name=change, service=service, stages=(*sorted(stages), 1000), layout=layout)
    found = of_ours(files)
    names = [item["metadata"]["name"] for item in found]
    assert all(isinstance(name, str) for name in names)
    assert all(
        len(item["metadata"]["name"]) <= 63 for item in found if item["kind"] in ("Service", "Job", "Deployment")
    )
    kinds = [(item["kind"], item["metadata"]["name"]) for item in found]
    assert len(kinds) == len(set(kinds))
    texts = [
        item["metadata"]["annotations"]["parallelchange/change"] for item in found if "annotations" in item["metadata"]
    ]
    assert set(texts) == {change}


_TEXT = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Co", "Cn"), exclude_characters="\ufeff\u2028\u2029\x85"), max_size=30
)
_PLAIN = st.sampled_from(
    ["on", "no", "0644", "1e3", "1_000", "~", "null", "0x1f", "true", "12", "1.50", "shop", "0o17"]
)


@settings(max_examples=30)
@given(
    quoted=st.lists(_TEXT, max_size=3),
    plain=st.lists(_PLAIN, max_size=4),
    block=_TEXT.filter(str.strip).map(str.strip),
)
def test_values_reach_the_cluster_as_kubectl_would_have_read_them(
    quoted: list[str], plain: list[str], block: str
) -> None:
    lines = [
        f"            - {{name: Q{i}, value: {yaml.safe_dump(text, default_style=chr(34), width=9999).strip()}}}"
        for i, text in enumerate(quoted)
    ]
    lines += [f"            - {{name: P{i}, value: {text}}}" for i, text in enumerate(plain)]
    lines += [f"            - name: B\n              value: |-\n                x{block}\n                y"]
    folded = "one\n                two\n\n                three"
    lines += [f"            - name: F\n              value: >\n                {folded}"]
    text = edited(("          env:\n", "          env:\n" + "\n".join(lines) + "\n"))
    before = next(yaml.safe_load_all(text))["spec"]["template"]["spec"]["containers"][0]["env"]
    if any("://" in str(item) for item in before):
        return
    after = one(made(text=text), "base/deployment-stable.yaml")["spec"]["template"]["spec"]["containers"][0]["env"]
    assert after == before


def test_anchors_and_merge_keys_are_written_out() -> None:
    term = "{topologyKey: host, labelSelector: {matchLabels: *l}}"
    affinity = f"{{podAntiAffinity: {{requiredDuringSchedulingIgnoredDuringExecution: [{term}]}}}}"
    own = edited(
        ("  labels: {app: shop}\nspec:\n  replicas", "  labels: &l {app: shop}\nspec:\n  replicas"),
        ("    matchLabels: {app: shop}", "    matchLabels: *l"),
        ("      labels: {app: shop}", "      labels:\n        <<: *l\n        tier: web"),
        (_CONTAINERS, f"      affinity: {affinity}\n{_CONTAINERS}"),
    )
    text = made(text=own)["base/deployment-canary.yaml"]
    spec = yaml.safe_load(text)["spec"]
    label = {"azure-pipelines/version": "canary"}
    assert "&" not in text
    assert spec["selector"]["matchLabels"] == {"app": "shop", **label}
    assert spec["template"]["metadata"]["labels"] == {"app": "shop", "tier": "web", **label}
    terms = spec["template"]["spec"]["affinity"]["podAntiAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
    assert terms[0]["labelSelector"]["matchLabels"] == {"app": "shop"}


@pytest.mark.parametrize("router", ROUTERS)
@pytest.mark.parametrize("layout", sorted(LAYOUTS))
def test_the_same_input_gives_the_same_bytes_and_leaves_the_input_alone(router: str, layout: str) -> None:
    documents = manifests(router)
    before = copy.deepcopy([item.data for item in documents])
    first = emit(a_change(router, layout), documents, OPTIONS).files
    assert emit(a_change(router, layout), documents, OPTIONS).files == first
    assert [item.data for item in documents] == before
    for name, text in first.items():
        assert text.startswith(f"{MARKER}\n"), name
        assert text.endswith("\n"), name
        # Both versions of YAML read the same.
        assert list(YAML(typ="safe", pure=True).load_all(io.StringIO(text))) == list(yaml.safe_load_all(text)), name


def test_a_kustomization_lists_what_is_there() -> None:
    files = made("nginx", "{apiVersion: v1, kind: ConfigMap, metadata: {name: c}}")
    for name in files:
        folder, _, last = name.rpartition("/")
        if last == "kustomization.yaml":
            for resource in one(files, name)["resources"]:
                assert any(
                    str(path).startswith(resource.replace("../../", "")) or str(path) == f"{folder}/{resource}"
                    for path in files
                )


# --- files -----------------------------------------------------------------------------------------------------------


def test_only_what_changed_is_written(tmp_path: Path) -> None:
    files = made()
    first = write(files, tmp_path / "out")
    assert {path.relative_to(tmp_path / "out").as_posix() for path in first.written} == set(files)
    again = write(files, tmp_path / "out")
    assert (again.written, again.removed, again.unchanged) == ((), (), len(files))
    changed = write({**files, "base/service.yaml": f"{MARKER}\n"}, tmp_path / "out")
    assert changed.written == (tmp_path / "out" / "base" / "service.yaml",)


def test_what_is_no_longer_made_is_removed_and_what_others_wrote_is_not(tmp_path: Path) -> None:
    write(made(), tmp_path)
    mine = tmp_path / "gates" / "mine.yaml"
    mine.write_text("kind: Job\n")
    other = tmp_path / "elsewhere" / "base" / "x.yaml"
    other.parent.mkdir(parents=True)
    other.write_text(f"{MARKER}\n")
    done = write(made(stages=(50, 1000)), tmp_path)
    assert {path.name for path in done.removed} == {"gate-25.yaml", "gate-50.yaml"}
    assert mine.exists()
    assert other.exists()


@pytest.mark.parametrize("text", ["kind: Service\n", "", f" {MARKER}\n"])
def test_a_file_of_somebody_else_is_not_overwritten(tmp_path: Path, text: str) -> None:
    theirs = tmp_path / "guard" / "role.yaml"
    theirs.parent.mkdir()
    theirs.write_text(text)
    with pytest.raises(InvalidFile, match="was not written by") as error:
        write(made(), tmp_path)
    assert error.value.hint
    assert theirs.read_text() == text
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == [theirs]


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "base").write_text("")
    with pytest.raises(InvalidFile, match="cannot be written"):
        write(made(), tmp_path)


def test_manifests_are_read_from_files_and_folders(tmp_path: Path) -> None:
    deployment, service = SHOP.read_text(encoding="utf-8").split("---\n")
    (tmp_path / "b.yml").write_text(deployment)
    (tmp_path / "a.json").write_text('{"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "c"}}')
    (tmp_path / "notes.txt").write_text("no manifest")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "service.yaml").write_text(f"---\n{service}\n---\n")
    found = read([tmp_path, tmp_path / "sub" / "service.yaml"])
    assert [item.kind for item in found] == ["ConfigMap", "Deployment", "Service"]


@pytest.mark.parametrize(
    ("name", "message"),
    [("none.yaml", "no such manifest"), ("empty", "no manifest in this folder"), ("bytes.yaml", "cannot be read")],
)
def test_manifests_that_cannot_be_read(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InvalidFile, match=message):
        read([tmp_path / name])


def test_what_emit_wrote_is_not_taken_for_a_manifest() -> None:
    with pytest.raises(InvalidFile, match="was written by `emit` itself"):
        parse(Path("x.yaml"), made()["base/service.yaml"])


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def shop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A repository with a change that names a router of the cluster."""
    folder = tmp_path / "shop"
    (folder / "changes").mkdir(parents=True)
    (folder / "deploy").mkdir()
    (folder / "parallelchange.toml").write_text("")
    (folder / "deploy" / "shop.yaml").write_text(SHOP.read_text(encoding="utf-8"))
    text = (SHOP.parents[1] / "changes" / "split-customer-name.yaml").read_text(encoding="utf-8")
    text = text.replace("router: local", "router: smi").replace(
        "    statements: ../recorded/shop-v", "    # recorded/shop-v"
    )
    (folder / "changes" / "split-customer-name.yaml").write_text(text)
    monkeypatch.setenv("PARALLELCHANGE_IMAGE_OLD", OLD)
    monkeypatch.setenv("PARALLELCHANGE_IMAGE_NEW", NEW)
    monkeypatch.chdir(folder)
    return folder


def test_the_command_writes_and_tells(shop: Path) -> None:
    arguments = ["kubernetes", "split-customer-name", "--manifests", "deploy", "--image-pull-secret", "one"]
    first = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert first.exit_code == 0
    out = shop / "deploy" / "split-customer-name"
    assert f"wrote {out / 'base' / 'traffic.yaml'}" in first.stdout
    job = yaml.safe_load((out / "gates" / "verify.yaml").read_text())
    container = job["spec"]["template"]["spec"]["containers"][0]
    assert container["command"] == ["parallelchange", "verify", "changes/split-customer-name.yaml"]
    assert container["image"].startswith("parallelchange:")
    again = CliRunner().invoke(command, arguments, catch_exceptions=False)
    assert again.stdout == ""
    assert "as they should be" in again.stderr


def test_the_command_writes_nothing_when_the_input_is_bad(shop: Path) -> None:
    (shop / "deploy" / "shop.yaml").write_text("kind: [")
    done = CliRunner().invoke(command, ["kubernetes", "split-customer-name", "--manifests", "deploy", "--out", "out"])
    assert isinstance(done.exception, InvalidFile)
    assert not (shop / "out").exists()
