"""The admission policies, on a real API server: what each lets through and what it refuses, and in which words."""

from __future__ import annotations

import json
import ssl
from collections.abc import Mapping
from copy import deepcopy
from datetime import UTC, datetime, timedelta
from functools import cached_property, partial
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest
from helpers.controlplane import Cluster, ControlPlane, wait_until
from ruamel.yaml import YAML

from parallelchange.layout import APPROVALS, BREAK_GLASS, LAYOUTS, SERVICE_ACCOUNT, Approval, approvals_name

pytestmark = pytest.mark.xdist_group("cluster-2")

GUARD = files("parallelchange") / "emit" / "kubernetes" / "guard"
CHANGE = "split-customer-name"
OLD, NEW = "registry.example/shop:v1", "registry.example/shop:v2"
GUARDED = "parallelchange/guarded"
NGINX = "nginx.ingress.kubernetes.io/canary"
SHOP = {
    Approval.CHANGE: CHANGE,
    Approval.SERVICE: "shop",
    Approval.APPROVED: "0",
    Approval.OLD_IMAGE: OLD,
    Approval.NEW_IMAGE: NEW,
    Approval.OLD_BACKENDS: "shop-stable, shop-baseline",
    Approval.OLD_DEPLOYMENTS: "shop,shop-baseline",
    Approval.SELECTOR: "app=shop,tier=web",
    Approval.CONTRACTED: "false",
}
LATER = "2999-01-01T00:00:00Z"
NO_APPROVALS = "no params found for policy binding with `Deny` parameterNotFoundAction"


# --- the objects ----------------------------------------------------------------------------------------------------


def an_object(api: str, kind: str, name: str, spec: Any, **annotations: str) -> dict[str, Any]:
    return {
        "apiVersion": api,
        "kind": kind,
        "metadata": {"name": name, "annotations": {key.replace("__", "/"): text for key, text in annotations.items()}},
        "spec": spec,
    }


def a_split(weights: Mapping[str, Any], *, service: str = "shop", version: str = "v1alpha2", name: str = "") -> Any:
    backends = [{"service": backend, "weight": weight} for backend, weight in weights.items()]
    spec: dict[str, Any] = {"service": service, "backends": backends}
    return an_object(f"split.smi-spec.io/{version}", "TrafficSplit", name or f"{service}-rollout", spec)


def of_shop(canary: int) -> Any:
    """A split that gives the canary so many thousandths."""
    return a_split({"shop-stable": 1000 - canary, "shop-canary": canary})


def a_route(*rules: Any, parent: Mapping[str, str] | None = None, version: str = "v1") -> Any:
    """An HTTPRoute; a rule is its backends' weights, None for one that is left out, or the rule itself."""
    spec = {
        "parentRefs": [parent or {"name": "edge"}],
        "rules": [
            rule if "backendRefs" in rule else {"backendRefs": [_ref(*item) for item in rule.items()]} for rule in rules
        ],
    }
    return an_object(f"gateway.networking.k8s.io/{version}", "HTTPRoute", "shop", spec)


def _ref(name: str, weight: int | None) -> dict[str, Any]:
    return {"name": name, "port": 80} | ({} if weight is None else {"weight": weight})


def an_ingress(backend: str, **annotations: str) -> Any:
    """An Ingress; the annotations' names are what comes after `canary`."""
    path = {"path": "/", "pathType": "Prefix", "backend": {"service": {"name": backend, "port": {"number": 80}}}}
    found = an_object("networking.k8s.io/v1", "Ingress", "shop-canary", {"rules": [{"http": {"paths": [path]}}]})
    found["metadata"]["annotations"] = {NGINX + key.replace("_", "-"): text for key, text in annotations.items()}
    return found


def a_virtual_service(*routes: Any, hosts: tuple[str, ...] = ("shop.example",), **more: Any) -> Any:
    """A VirtualService; a route is its hosts' weights, a host may end in `/subset`."""
    http = [{"route": [_destination(*item) for item in route.items()], **more} for route in routes]
    return an_object("networking.istio.io/v1", "VirtualService", "shop", {"hosts": list(hosts), "http": http})


def _destination(host: str, weight: int | None) -> dict[str, Any]:
    host, _, subset = host.partition("/")
    destination = {"host": host} | ({"subset": subset} if subset else {})
    return {"destination": destination} | ({} if weight is None else {"weight": weight})


def a_flag(targeting: Any, *, default: str = "stable", key: str = "shop") -> Any:
    flag = {
        "state": "ENABLED",
        "variants": {"stable": "v1", "canary": "v2"},
        "defaultVariant": default,
        "targeting": targeting,
    }
    return an_object("core.openfeature.dev/v1beta1", "FeatureFlag", "flags", {"flagSpec": {"flags": {key: flag}}})


def fractional(*parts: Any) -> Any:
    return {"fractional": list(parts)}


def a_deployment(
    name: str = "shop",
    image: str = OLD,
    *,
    role: str = "",
    labels: Mapping[str, str] | None = None,
    replicas: int = 1,
    kind: str = "Deployment",
) -> Any:
    labels = {"app": "shop", "tier": "web"} if labels is None else labels
    own = {**labels, "of": name} | ({"azure-pipelines/version": role} if role else {})
    spec: dict[str, Any] = {
        "replicas": replicas,
        "selector": {"matchLabels": {"of": name}},
        "template": {
            "metadata": {"labels": own},
            "spec": {"containers": [{"name": "app", "image": image}, {"name": "proxy", "image": "proxy:1"}]},
        },
    }
    return an_object("apps/v1", kind, name, spec | ({"serviceName": "shop"} if kind == "StatefulSet" else {}))


def a_service(name: str = "shop", **selector: str) -> Any:
    spec = {"selector": selector or {"app": "shop"}, "ports": [{"port": 80}]}
    return an_object("v1", "Service", name, spec)


def a_namespace(name: str) -> Any:
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {GUARDED: "true"}}}


def approvals(data: Mapping[str, str], **more: str) -> Any:
    service = data.get("service", "shop")
    return {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": approvals_name(service), "labels": {APPROVALS: service}},
        "data": {**data, **{key.replace("_", "-"): text for key, text in more.items()}},
    }


def because(body: Any, reason: str) -> Any:
    """The same with a reason to break the glass."""
    found = deepcopy(body)
    found["metadata"].setdefault("annotations", {})[BREAK_GLASS] = reason
    return found


def in_seconds(seconds: int) -> str:
    return (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")


def refusal(told: str) -> str:
    """What a policy said, out of what is told of it."""
    _, denied, said = told.partition(" denied request: ")
    assert denied, f"not refused by a policy: {told}"
    return said.strip()


# --- the cluster ----------------------------------------------------------------------------------------------------


class Guarded:
    """A guarded namespace. Writes answer with the policies' refusal, which is empty when they let them through."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.name = cluster.namespace
        api, by = "rbac.authorization.k8s.io/v1", {"metadata": {"name": SERVICE_ACCOUNT}}
        rule = {"apiGroups": [""], "resources": ["configmaps"], "verbs": ["*"]}
        account = {"kind": "ServiceAccount", "name": SERVICE_ACCOUNT, "namespace": self.name}
        role = {"apiGroup": api.partition("/")[0], "kind": "Role", "name": SERVICE_ACCOUNT}
        cluster.apply(
            [
                a_namespace(self.name),
                {"apiVersion": "v1", "kind": "ServiceAccount", **by},
                {"apiVersion": api, "kind": "Role", **by, "rules": [rule]},
                {"apiVersion": api, "kind": "RoleBinding", **by, "subjects": [account], "roleRef": role},
            ]
        )

    @cached_property
    def gate(self) -> Path:
        """The gate's credentials."""
        return self.cluster.kubeconfig_for_service_account(SERVICE_ACCOUNT)

    @cached_property
    def _trust(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.cluster.plane.certificate))

    def kubectl(self, *args: str, body: Any = None, **options: Any) -> str:
        given = None if body is None else json.dumps(body)
        ended = self.cluster.kubectl(*args, input=given, check=False, **options)
        return "" if ended.returncode == 0 else refusal(ended.stderr)

    def judge(self, body: Any) -> str:
        """What would be said of it as a new object; nothing is kept."""
        return self._send("POST", body)

    def judge_as_sent(self, body: Any) -> str:
        """What would be said of it in place of the one that is there, sent as it is: kubectl has its own ideas."""
        return self._send("PUT", body)

    def _send(self, method: str, body: Any) -> str:
        # By hand, as kubectl takes its time to start.
        place = f"{'apis' if '/' in body['apiVersion'] else 'api'}/{body['apiVersion']}/namespaces/{self.name}/"
        place += body["kind"].lower() + ("es" if body["kind"] == "Ingress" else "s")
        place += f"/{body['metadata']['name']}" if method == "PUT" else ""
        request = Request(f"{self.cluster.plane.url}/{place}?dryRun=All", json.dumps(body).encode(), method=method)
        request.add_header("Authorization", f"Bearer {self.cluster.plane.tokens['admin']}")
        request.add_header("Content-Type", "application/json")
        try:
            with urlopen(request, context=self._trust):
                return ""
        except HTTPError as error:
            with error:
                return refusal(json.load(error)["message"])

    def judge_instead(self, body: Any) -> str:
        """What would be said of it in place of the one that is there."""
        return self.kubectl("replace", "--dry-run=server", "-f", "-", body=body)

    def write(self, body: Any, verb: str = "apply") -> str:
        return self.kubectl(verb, "-f", "-", body=body)

    def delete(self, kind: str, name: str) -> str:
        return self.kubectl("delete", kind, name)

    def protect(self, data: Mapping[str, str]) -> None:
        """Make approvals that approve nothing, as whoever installs them does."""
        assert self.write(approvals(data), "create") == ""
        self._await(data["service"], "is approved for 0%")

    def approve(self, share: int, service: str = "shop", **more: str) -> None:
        """Approve a share, as the gate does; another one than before, since its arrival is what is waited for."""
        self._decide(service, approved=str(share), **more)
        self._await(service, "" if more.get("contracted") == "true" else f"is approved for {share / 10:g}%")

    def let_lapse(self, share: int, standing: int) -> str:
        """Approve a share until a moment that has passed on return; what stands is another share than before."""
        end = in_seconds(1)
        self._decide("shop", approved=str(share), standing=str(standing), approved_until=end)
        self._await("shop", f"is approved for {standing / 10:g}%")
        return end

    def _decide(self, service: str, **data: str) -> None:
        patch = json.dumps({"data": {key.replace("_", "-"): text for key, text in data.items()}})
        name = approvals_name(service)
        assert self.kubectl("patch", "configmap", name, "--type=merge", "-p", patch, kubeconfig=self.gate) == ""

    def _await(self, service: str, told: str) -> None:
        # The API server reads approvals from a cache that runs a little behind.
        probe = a_split({"nobody": 0}, service=service, name="probe")

        def seen() -> bool:
            said = self.judge(probe)
            return told in said and bool(told) == bool(said)

        wait_until(seen, what=f"approvals of {service}")


@pytest.fixture(scope="session")
def guard(control_plane: ControlPlane) -> ControlPlane:
    """The control plane with the policies of this package, all of them in force."""
    for file in sorted(GUARD.iterdir(), key=lambda file: file.name):
        control_plane.kubectl("apply", "-f", "-", input=file.read_text(encoding="utf-8"))
    cluster = Guarded(control_plane.new_cluster())
    probes = [
        of_shop(0),
        a_route({"shop": 1}),
        an_ingress("shop"),
        a_virtual_service({"shop": 1}),
        a_flag({}),
        a_deployment(),
        approvals(SHOP, approved="1"),
    ]
    for probe in probes:
        wait_until(partial(cluster.judge, probe), what=f"the policy for {probe['kind']}")
    assert cluster.write(a_service(), "create") == ""
    wait_until(partial(cluster.judge_instead, a_service(app="cart")), what="the policy for Service")
    cluster.cluster.close()
    return control_plane


@pytest.fixture
def shop(guard: ControlPlane, cluster: Cluster) -> Guarded:
    """A guarded namespace with approvals for Service shop, which approve nothing yet."""
    guarded = Guarded(cluster)
    guarded.protect(SHOP)
    return guarded


def audited(cluster: Cluster, policy: str) -> list[str]:
    """What the audit log has of broken glass."""
    key = f"parallelchange-{policy}/break-glass"
    return [event["annotations"][key] for event in cluster.audit() if key in event.get("annotations", {})]


# --- the files ------------------------------------------------------------------------------------------------------


def documents(name: str) -> tuple[Any, list[Any]]:
    policy, *bindings = YAML(typ="safe").load_all((GUARD / name).read_text(encoding="utf-8"))
    return policy, bindings


NAMES = sorted(file.name for file in GUARD.iterdir() if file.name.endswith(".yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_every_policy_fails_closed_and_is_bound(name: str) -> None:
    policy, bindings = documents(name)
    assert policy["metadata"]["name"] == f"parallelchange-{name.removesuffix('.yaml')}"
    assert policy["spec"]["failurePolicy"] == "Fail"
    assert all(rule["reason"] == "Forbidden" and rule["messageExpression"] for rule in policy["spec"]["validations"])
    for binding in bindings:
        assert binding["spec"]["policyName"] == policy["metadata"]["name"]
        assert binding["spec"]["validationActions"] == ["Deny", "Audit"]
    bound = {operation for binding in bindings for operation in _operations(binding["spec"].get("matchResources"))}
    asked = {
        operation for rule in policy["spec"]["matchConstraints"]["resourceRules"] for operation in rule["operations"]
    }
    assert asked <= bound


def _operations(resources: Any) -> list[str]:
    return resources["resourceRules"][0]["operations"] if resources else ["CREATE", "UPDATE", "DELETE"]


def test_what_the_policies_share_is_the_same_in_each() -> None:
    every = {name: documents(name)[0]["spec"] for name in NAMES}
    approved = ("times", "until", "ended", "approved", "percents", "granted", "past", "limit", "grant")
    for variable in ("reason", "glass", "change", *approved, "old", "asked", "ours", "here"):
        told = {
            item["expression"]
            for name, spec in every.items()
            for item in spec["variables"]
            if item["name"] == variable and (name, variable) != ("approvals.yaml", "change")
        }
        assert len(told) == 1, variable
    assert len({json.dumps(spec["auditAnnotations"]) for spec in every.values()}) == 1


def test_the_policies_use_the_names_of_the_layout() -> None:
    text = "".join((GUARD / name).read_text(encoding="utf-8") for name in NAMES)
    for name in (APPROVALS, BREAK_GLASS, f":{SERVICE_ACCOUNT}'", *(layout.label for layout in LAYOUTS.values())):
        assert name in text
    for key in Approval:
        assert f"'{key}'" in text or f".{key}" in text or f".?{key}" in text, key


# --- TrafficSplit ---------------------------------------------------------------------------------------------------

QUANTITY = ("v1alpha1", lambda share: f"{share}m")
FORMS = [QUANTITY, *((version, lambda share: share) for version in ("v1alpha2", "v1alpha3", "v1alpha4"))]


@pytest.mark.parametrize(("version", "form"), FORMS, ids=[version for version, _ in FORMS])
def test_a_split_is_held_to_the_share_that_is_approved(shop: Guarded, version: str, form: Any) -> None:
    shop.approve(50)

    def of(canary: int) -> Any:
        return a_split({"shop-stable": form(1000 - canary), "shop-canary": form(canary)}, version=version)

    assert shop.write(of(50)) == ""
    assert shop.write(of(250)) == (
        f"TrafficSplit shop-rollout: a canary share of 25% is above the 5% the gate has approved for change {CHANGE}; "
        f"run: parallelchange gate {CHANGE} --to 25%"
    )
    assert "a canary share of 5.1% is above the 5%" in shop.judge_instead(of(51))
    shop.approve(125)
    assert shop.write(of(125)) == ""
    assert "a canary share of 12.6% is above the 12.5%" in shop.judge_instead(of(126))


def test_weights_are_relative_and_may_be_mixed(shop: Guarded) -> None:
    shop.approve(50)
    for weights in (
        {"shop-stable": 19, "shop-canary": 1},
        {"shop-stable": 950000, "shop-canary": 50000},
        {"shop-stable": 7, "shop-baseline": 12, "shop-canary": 1},
    ):
        assert shop.judge(a_split(weights)) == ""
    for weights, told in (
        ({"shop-stable": 2, "shop-canary": 1}, "33.4%"),
        ({"shop-stable": 94999, "shop-canary": 5001}, "5.1%"),
        ({"shop-stable": 0, "shop-canary": 1}, "100%"),
        ({"shop-canary": 1}, "100%"),
        ({"shop-stable": 90, "shop-canary": 5, "other": 5}, "10%"),  # one that nobody knows counts as canary
        ({"shop-stable": 90, "shop": 10}, "10%"),  # and so does the root, which selects pods of both versions
    ):
        assert f"a canary share of {told} is above the 5%" in shop.judge(a_split(weights))
    assert shop.judge(a_split({"shop-stable": "0.95", "shop-canary": "50m"}, version="v1alpha1")) == ""
    for weights, told in (
        ({"shop-stable": "900m", "shop-canary": "100m"}, "10%"),
        ({"shop-stable": "1", "shop-canary": "1k"}, "100%"),
    ):
        assert f"a canary share of {told} is above the 5%" in shop.judge(a_split(weights, version="v1alpha1"))


def test_nothing_approved_is_nothing_at_all(shop: Guarded) -> None:
    assert shop.judge(of_shop(0)) == ""
    assert "0.1% is above the 0%" in shop.judge(a_split({"shop-stable": 1000000000, "shop-canary": 1}))


@pytest.mark.parametrize("approved", [0, 50, 1000])
def test_a_split_from_which_no_share_can_be_told_is_refused(shop: Guarded, approved: int) -> None:
    if approved:
        shop.approve(approved)
    for weights in (
        {},
        {"shop-stable": 0},
        {"shop-stable": 0, "shop-canary": 0},
        {"shop-stable": 10, "shop-canary": -1},
    ):
        assert shop.judge(a_split(weights)) == (
            "TrafficSplit shop-rollout: no share can be told from its weights: there is none, all are 0, or one is no "
            f"number; change {CHANGE} is approved for {approved / 10:g}%; give every backend a number, and one of them "
            "more than 0"
        )


def test_a_split_stays_until_the_change_is_contracted(shop: Guarded) -> None:
    stays = (
        f"TrafficSplit shop-rollout: it holds the canary share of service shop down, so it stays until change {CHANGE} "
        f"is contracted; run: parallelchange contract {CHANGE}"
    )
    assert shop.write(of_shop(0)) == ""
    elsewhere = a_split({"shop-stable": 1}, service="elsewhere", name="shop-rollout")
    for share in (0, 1000):
        shop.approve(share)
        assert shop.delete("trafficsplit", "shop-rollout") == stays
        everything = f"/apis/split.smi-spec.io/v1alpha2/namespaces/{shop.name}/trafficsplits"
        assert shop.kubectl("delete", "--raw", everything) == stays
        assert shop.judge_instead(elsewhere) == stays
    shop.approve(1000, contracted="true")
    assert shop.judge_instead(elsewhere) == ""
    assert shop.delete("trafficsplit", "shop-rollout") == ""


def test_a_root_written_as_a_domain_name_is_the_same_root(shop: Guarded) -> None:
    for root in (f"shop.{shop.name}", f"shop.{shop.name}.svc.cluster.local"):
        split = a_split({"shop-canary": 1}, service=root, name="shop")
        assert "a canary share of 100% is above the 0%" in shop.judge(split)
    assert shop.judge(a_split({"shop-canary": 1}, service="shop.elsewhere", name="shop")) == ""


def test_a_write_that_leaves_the_spec_alone_asks_for_nothing(shop: Guarded) -> None:
    shop.approve(250)
    assert shop.write(of_shop(250)) == ""
    shop.approve(0)
    assert shop.kubectl("annotate", "trafficsplit", "shop-rollout", "note=1") == ""
    assert shop.judge_instead(of_shop(0)) == ""
    assert "a canary share of 24.9% is above the 0%" in shop.judge_instead(of_shop(249))


def test_every_way_to_write_is_judged(shop: Guarded) -> None:
    shop.approve(50)
    above, within = of_shop(250), of_shop(50)
    told = "a canary share of 25% is above the 5%"
    by_server = ("apply", "--server-side", "--force-conflicts", "-f", "-")
    for dry in ((), ("--dry-run=server",)):
        assert told in shop.kubectl(*by_server, *dry, body=above)
        assert shop.kubectl(*by_server, *dry, body=within) == ""
    patches = {
        "merge": {"spec": {"backends": above["spec"]["backends"]}},
        "json": [{"op": "replace", "path": "/spec/backends/1/weight", "value": 1000}],
    }
    for kind, patch in patches.items():
        told_so = shop.kubectl("patch", "trafficsplit", "shop-rollout", f"--type={kind}", "-p", json.dumps(patch))
        assert "is above the 5%" in told_so
    for verb in ("apply", "replace"):
        for dry in ((), ("--dry-run=server",)):
            assert told in shop.kubectl(verb, *dry, "-f", "-", body=above)
    assert shop.cluster.get("trafficsplit", "shop-rollout")["spec"] == within["spec"]
    assert shop.judge_instead(within) == ""
    assert "is above the 5%" in shop.write(above | {"metadata": {"generateName": "shop-"}}, "create")


# --- which services, which namespaces -------------------------------------------------------------------------------


def test_each_service_has_approvals_of_its_own(shop: Guarded) -> None:
    shop.protect({**SHOP, "service": "cart", "change": "rename-total", "old-backends": "cart-stable"})
    shop.approve(50)
    shop.approve(500, "cart")
    cart = a_split({"cart-stable": 500, "cart-canary": 500}, service="cart")
    assert shop.judge(cart) == ""
    assert shop.judge(of_shop(50)) == ""
    assert f"25% is above the 5% the gate has approved for change {CHANGE}" in shop.judge(of_shop(250))
    more = a_split({"cart-stable": 400, "cart-canary": 600}, service="cart")
    assert "60% is above the 50% the gate has approved for change rename-total" in shop.judge(more)
    both = a_route({"shop-stable": 95, "shop-canary": 5}, {"cart-stable": 1, "cart-canary": 1})
    assert shop.judge(both) == ""
    both["spec"]["rules"][0]["backendRefs"][1]["weight"] = 6
    assert f"6% is above the 5% the gate has approved for change {CHANGE}" in shop.judge(both)


def test_a_service_without_approvals_is_nobodys_business(shop: Guarded) -> None:
    # Its name begins as the guarded one's does, which means nothing.
    for body in (
        a_split({"shop-admin-canary": 1}, service="shop-admin"),
        a_route({"shop-admin-canary": 1}),
        an_ingress("shop-admin-canary", **{"": "true", "_weight": "100"}),
        a_virtual_service({"shop-admin-canary": 1}, hosts=("shop-admin",)),
        a_flag({"if": [True, "canary", "stable"]}, key="shop-admin"),
        a_deployment("shop-admin", "admin:9", labels={"app": "shop-admin", "tier": "web"}),
    ):
        assert shop.write(body, "create") == ""
        assert shop.delete(body["kind"].lower(), body["metadata"]["name"]) == ""
    admin = a_service("shop-admin", app="shop-admin")
    assert shop.write(admin, "create") == ""
    assert shop.write(a_service("shop-admin", app="shop"), "replace") == ""
    assert shop.delete("service", "shop-admin") == ""


def test_a_namespace_without_the_label_is_free(guard: ControlPlane, cluster: Cluster) -> None:
    cluster.apply(approvals(SHOP, approved="7"))
    cluster.apply([of_shop(1000), a_route({"shop-canary": 1}), a_deployment(image="another:1"), a_service()])
    cluster.apply(a_service(app="cart"))
    cluster.kubectl("delete", "trafficsplit,httproute,deployment,service", "--all")


def test_without_approvals_nothing_is_let_through(shop: Guarded) -> None:
    shop.approve(1000)
    assert shop.write(of_shop(1000)) == ""
    assert shop.write(a_service()) == ""
    assert shop.kubectl("delete", "configmap", approvals_name("shop"), kubeconfig=shop.gate) == ""
    wait_until(lambda: NO_APPROVALS in shop.judge_instead(of_shop(0)), what="the loss of the approvals")
    for body in (
        a_route({"shop-stable": 1}),
        an_ingress("shop"),
        a_virtual_service({"shop-stable": 1}),
        a_flag({}),
        a_deployment(),
        because(a_split({"shop-stable": 1}, name="another"), "nobody is there to read it"),
    ):
        assert NO_APPROVALS in shop.judge(body)
    assert NO_APPROVALS in shop.judge_instead(a_service(app="cart"))
    assert shop.judge(a_service("another")) == ""
    # But what is there may go: the gate has let go of it, and a namespace that goes needs it.
    assert shop.delete("trafficsplit", "shop-rollout") == ""
    assert shop.delete("service", "shop") == ""


def test_approvals_that_cannot_be_read_let_nothing_through(shop: Guarded) -> None:
    # Written while nobody looked: the namespace was not guarded yet.
    shop.kubectl("label", "namespace", shop.name, f"{GUARDED}-")
    broken = approvals(SHOP, approved="lots")
    wait_until(lambda: not shop.judge_instead(broken), what="the end of the guard")
    assert shop.write(broken, "replace") == ""
    shop.kubectl("label", "namespace", shop.name, f"{GUARDED}=true")
    wait_until(lambda: "type conversion error" in shop.judge(of_shop(0)), what="the guard")
    assert "type conversion error" in shop.judge(a_deployment(image=NEW))


# --- breaking the glass ---------------------------------------------------------------------------------------------


def test_a_reason_lets_one_write_through_and_is_recorded(shop: Guarded) -> None:
    told = "is above the 0%"
    assert told in shop.write(because(of_shop(250), "  "))
    assert shop.write(because(of_shop(250), "shop is down, see incident 7")) == ""
    recorded = audited(shop.cluster, "trafficsplit")
    assert recorded == ["admin: shop is down, see incident 7"]
    assert told in shop.write(because(of_shop(500), "shop is down, see incident 7"))
    assert told in shop.judge_instead(of_shop(500))  # taking the reason away is none
    assert audited(shop.cluster, "trafficsplit") == recorded
    assert shop.write(because(of_shop(500), "still down")) == ""
    assert audited(shop.cluster, "trafficsplit") == [*recorded, "admin: still down"]
    # To delete, it must be on the object.
    assert shop.delete("trafficsplit", "shop-rollout") == ""
    assert audited(shop.cluster, "trafficsplit") == [*recorded, "admin: still down", "admin: still down"]


def test_the_one_who_breaks_it_is_named(shop: Guarded) -> None:
    alice = shop.cluster.kubeconfig_for("alice", ["system:masters"])
    assert shop.kubectl("create", "-f", "-", body=because(of_shop(250), "drill"), kubeconfig=alice) == ""
    assert audited(shop.cluster, "trafficsplit") == ["alice: drill"]


def test_refusals_are_in_the_audit_log(shop: Guarded) -> None:
    assert shop.write(of_shop(250))
    key = "validation.policy.admission.k8s.io/validation_failure"
    found = [json.loads(event["annotations"][key]) for event in shop.cluster.audit() if key in event["annotations"]]
    assert "a canary share of 25% is above the 0%" in found[-1][0]["message"]
    assert found[-1][0]["policy"] == "parallelchange-trafficsplit"


@pytest.mark.parametrize(
    ("policy", "body"),
    [
        ("httproute", a_route({"shop-canary": 1})),
        ("ingress", an_ingress("shop-canary", **{"": "true", "_weight": "50"})),
        ("virtualservice", a_virtual_service({"shop-canary": 1})),
        ("featureflag", a_flag({"if": [True, "canary", "stable"]})),
        ("deployment", a_deployment(image="another:1")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_every_policy_has_its_glass(shop: Guarded, policy: str, body: Any) -> None:
    assert shop.judge(body)
    assert shop.write(because(body, "drill"), "create") == ""
    assert audited(shop.cluster, policy) == ["admin: drill"]


# --- approvals that end ---------------------------------------------------------------------------------------------

# Of each kind what is within 5%, what needs the share that is named, and a patch that makes the one of the other.
KINDS: dict[str, tuple[Any, Any, int, Any]] = {
    "TrafficSplit": (of_shop(50), of_shop(250), 250, {"spec": {"backends": of_shop(250)["spec"]["backends"]}}),
    "HTTPRoute": (
        a_route({"shop-stable": 95, "shop-canary": 5}),
        a_route({"shop-stable": 75, "shop-canary": 25}),
        250,
        {"spec": {"rules": a_route({"shop-stable": 75, "shop-canary": 25})["spec"]["rules"]}},
    ),
    "Ingress": (
        an_ingress("shop-canary", **{"": "true", "_weight": "5"}),
        an_ingress("shop-canary", **{"": "true", "_weight": "25"}),
        250,
        {"metadata": {"annotations": {f"{NGINX}-weight": "25"}}},
    ),
    "VirtualService": (
        a_virtual_service({"shop-stable": 95, "shop-canary": 5}),
        a_virtual_service({"shop-stable": 75, "shop-canary": 25}),
        250,
        {"spec": {"http": a_virtual_service({"shop-stable": 75, "shop-canary": 25})["spec"]["http"]}},
    ),
    "FeatureFlag": (
        a_flag(fractional(["stable", 95], ["canary", 5])),
        a_flag(fractional(["stable", 75], ["canary", 25])),
        250,
        {"spec": {"flagSpec": {"flags": {"shop": {"targeting": fractional(["stable", 75], ["canary", 25])}}}}},
    ),
    "Deployment": (
        a_deployment(),
        a_deployment(image=NEW),
        1000,
        {"spec": {"template": {"spec": {"containers": [{"name": "app", "image": NEW}]}}}},
    ),
}
every_kind = pytest.mark.parametrize("kind", KINDS)


def test_the_words_for_an_approval_that_has_ended(shop: Guarded) -> None:
    assert shop.write(of_shop(0)) == ""
    shop.approve(250, standing="25", approved_until=LATER)
    assert shop.judge_instead(of_shop(500)) == (
        f"TrafficSplit shop-rollout: a canary share of 50% is above the 25% the gate has approved for change {CHANGE}; "
        f"run: parallelchange gate {CHANGE} --to 50%"
    )
    end = shop.let_lapse(125, 50)
    told = (
        f"TrafficSplit shop-rollout: a canary share of 12.5% is above the 5% that stands; the gate's approval of 12.5% "
        f"for change {CHANGE} has ended at {end}; run: parallelchange gate {CHANGE} --to 12.5%"
    )
    assert shop.write(of_shop(125)) == told
    assert shop.judge(of_shop(125)) == told
    assert shop.write(of_shop(50)) == ""
    assert "5.1% is above the 5% that stands" in shop.judge_instead(of_shop(51))
    assert "no share can be told" in shop.judge_instead(a_split({"shop-stable": 0}))


def test_an_approval_ends_by_itself(shop: Guarded) -> None:
    assert shop.write(of_shop(0)) == ""
    shop.approve(250, approved_until=in_seconds(8))
    assert shop.write(of_shop(125)) == ""
    assert "is above the 0% that stands" in wait_until(lambda: shop.judge_instead(of_shop(250)), what="the end")


@every_kind
def test_every_way_to_write_has_its_time(shop: Guarded, kind: str) -> None:
    within, above, share, merge = KINDS[kind]
    name = within["metadata"]["name"]
    another = above | {"metadata": above["metadata"] | {"name": "another"}}
    if kind == "Deployment":
        another = a_deployment("another", NEW, role="stable")
    shop.approve(share, standing="25", approved_until=LATER)
    assert shop.write(within) == ""

    def said() -> list[str]:
        exact = [{"op": "replace", "path": "/spec", "value": above["spec"]}]
        exact += [{"op": "replace", "path": "/metadata/annotations", "value": above["metadata"]["annotations"]}]
        given = [
            shop.kubectl("apply", "--dry-run=server", "-f", "-", body=above),
            shop.kubectl("apply", "--server-side", "--force-conflicts", "--dry-run=server", "-f", "-", body=above),
            shop.kubectl("replace", "--dry-run=server", "-f", "-", body=above),
            *(
                shop.kubectl("patch", kind, name, "--dry-run=server", f"--type={form}", "-p", json.dumps(change))
                for form, change in (("merge", merge), ("json", exact))
            ),
            shop.judge(another),
        ]
        if kind in ("Ingress", "Deployment"):
            given.append(shop.kubectl("patch", kind, name, "--dry-run=server", "-p", json.dumps(merge)))
        return given

    assert not any(said())
    end = shop.let_lapse(share, 50)
    for told in said():
        assert f"the gate's approval of {share / 10:g}% for change {CHANGE} has ended at {end}; run: " in told


@every_kind
def test_no_older_time_is_believed(shop: Guarded, kind: str) -> None:
    within, above, share, _ = KINDS[kind]
    shop.approve(share, standing="25", approved_until=LATER)
    assert shop.write(within) == ""
    old = "2020-01-01T00:00:00Z"

    def said(**managed: Any) -> str:
        body = shop.cluster.get(kind, within["metadata"]["name"])
        body["metadata"]["annotations"] |= above["metadata"]["annotations"]
        body["metadata"] |= managed
        if kind == "Deployment":
            del body["metadata"]["resourceVersion"]  # its controller writes, too
        return shop.judge_as_sent(body | {"spec": above["spec"]})

    shown = ("get", kind, within["metadata"]["name"], "--show-managed-fields", "--output=json")
    fields = json.loads(shop.cluster.kubectl(*shown).stdout)["metadata"]["managedFields"]
    one = {"operation": "Update", "apiVersion": within["apiVersion"], "fieldsType": "FieldsV1", "time": old}
    everything = {"f:spec": {}, "f:metadata": {"f:annotations": {}}}
    agent = "Python-urllib"  # the manager that this very write is noted for
    crowd = [{**one, "manager": f"of-{number}", "fieldsV1": {"f:spec": {f"f:{number}": {}}}} for number in range(30)]
    forged = (
        [{**each, "time": old} for each in fields],
        [{**one, "manager": agent, "fieldsV1": everything}],
        [{**one, "manager": agent, "operation": "Apply", "fieldsV1": everything}],
        crowd,
    )
    for managed in (None, fields, *forged):
        assert said(managedFields=managed) == ""
    # One of the future counts as it stands there, and the end belongs to what comes after it.
    for time, passes in (("2998-12-31T23:59:59Z", True), (LATER, False)):
        assert (said(managedFields=[{**fields[0], "time": time}]) == "") is passes
    end = shop.let_lapse(share, 50)
    for managed in (None, fields, *forged):
        assert f"has ended at {end}" in said(managedFields=managed)
    assert f"ends at {end}, and managedFields do not tell when this is written" in said(managedFields=[{}])


def of_which_is_left(kind: str) -> tuple[Any, Any, int]:
    """What is there, what is left when something of it is taken away, and the share that both need."""
    given = deepcopy(a_deployment() if kind == "Deployment" else KINDS[kind][1])
    left = deepcopy(given)
    match kind:
        case "HTTPRoute":
            given["spec"]["hostnames"] = ["testers.example"]
        case "VirtualService":
            given["spec"]["tls"] = given["spec"]["http"]
        case "Ingress":
            del left["metadata"]["annotations"][NGINX]
        case "FeatureFlag":
            given["spec"]["flagSpec"]["flags"]["shop"]["defaultVariant"] = "canary"
            left["spec"]["flagSpec"]["flags"]["shop"] |= {"defaultVariant": "canary", "targeting": {}}
        case "Deployment":
            left = a_deployment(labels={"app": "shop"})
    return given, left, 250 if kind in ("HTTPRoute", "VirtualService") else 1000


# A TrafficSplit has nothing of which less would be more.
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "TrafficSplit"])
def test_taking_away_leaves_no_time(shop: Guarded, kind: str) -> None:
    """The API server stamps what is given; what is taken away shows the times of earlier writes, or invented ones."""
    given, left, share = of_which_is_left(kind)
    shop.approve(share, standing=str(share))
    assert shop.write(given, "create") == ""

    def said(time: str = "") -> str:
        body = shop.cluster.get(kind, given["metadata"]["name"])
        body["metadata"]["annotations"] = left["metadata"]["annotations"]
        if kind == "Deployment":
            del body["metadata"]["resourceVersion"]  # its controller writes, too
        if time:
            kept = {"operation": "Update", "apiVersion": given["apiVersion"], "fieldsType": "FieldsV1", "time": time}
            body["metadata"]["managedFields"] = [{**kept, "manager": "me", "fieldsV1": {"f:spec": {}}}]
        return shop.judge_as_sent(body | {"spec": left["spec"]})

    assert said() == ""
    end = shop.let_lapse(share, 50)
    for time in ("", "2020-01-01T00:00:00Z"):
        assert f"ends at {end}, and managedFields do not tell when this is written" in said(time)
    shop.approve(share, standing="25", approved_until=LATER)
    assert f"ends at {LATER}, and managedFields do not tell when this is written" in said()


def test_an_object_without_managed_fields_gets_them_back(shop: Guarded) -> None:
    shop.approve(250, approved_until=LATER)
    assert shop.write(of_shop(125), "create") == ""
    reset = json.dumps({"metadata": {"managedFields": [{}]}})
    assert shop.kubectl("patch", "trafficsplit", "shop-rollout", "--type=merge", "-p", reset) == ""
    told = (
        f"TrafficSplit shop-rollout: a canary share of 25% is above the 0% that stands; the gate's approval of 25% for "
        f"change {CHANGE} ends at {LATER}, and managedFields do not tell when this is written; "
        f"run: parallelchange gate {CHANGE} --to 25%"
    )
    assert shop.judge_instead(of_shop(250)) == told
    assert shop.kubectl("apply", "--server-side", "--force-conflicts", "-f", "-", body=of_shop(250)) == ""


def test_a_scale_has_no_time(shop: Guarded) -> None:
    assert shop.write(a_deployment()) == ""
    shop.approve(1000, standing="500", approved_until=LATER)
    assert shop.kubectl("scale", "deployment/shop", "--replicas=0") == (
        "Deployment shop: without replicas the old version of service shop gets traffic and has no pods, and 50% "
        f"stands; the gate's approval of 100% for change {CHANGE} ends at {LATER}, and managedFields do not tell when "
        f"this is written; run: parallelchange gate {CHANGE} --to 100%"
    )
    none = json.dumps({"spec": {"replicas": 0}})
    assert shop.kubectl("patch", "deployment", "shop", "--dry-run=server", "-p", none) == ""
    assert shop.kubectl("scale", "deployment/shop", "--replicas=2") == ""
    shop.let_lapse(1000, 250)
    assert "has ended at" in shop.kubectl("patch", "deployment", "shop", "--dry-run=server", "-p", none)
    shop.approve(1000, standing="1000")
    assert shop.kubectl("scale", "deployment/shop", "--replicas=0") == ""


def test_what_else_an_approval_allows_ends_with_it(shop: Guarded) -> None:
    mirrored = a_virtual_service({"shop-stable": None}, mirror={"host": "shop-canary"})
    copy = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": "shop-canary", "port": 80}}}
    route = a_route({"backendRefs": [_ref("shop-stable", 1)], "filters": [copy]})
    by_header = an_ingress("shop-canary", **{"": "true", "_by_header": "x-canary"})
    bodies = mirrored, route, by_header
    shop.approve(50, approved_until=LATER)
    assert [shop.judge(body) for body in bodies] == ["", "", ""]
    end = shop.let_lapse(51, 0)
    past = f"and 0% stands; the gate's approval of 5.1% for change {CHANGE} has ended at {end}; run: "
    assert all(past in shop.judge(body) for body in bodies)
    flag = a_flag(fractional(["stable", 1]), default="canary")
    shop.let_lapse(1000, 999)
    assert "is not stable, and 99.9% stands; the gate's approval of 100%" in shop.judge(flag)
    shop.let_lapse(999, 1000)
    assert shop.judge(flag) == ""


def test_deleting_does_not_wait_for_approvals(shop: Guarded) -> None:
    bodies = (
        *(a_split({"cart": 1}, service="cart"), a_route({"cart": 1}), a_virtual_service({"cart": 1})),
        a_flag({}, key="cart"),
    )
    shop.cluster.apply(bodies)
    shop.cluster.apply(a_deployment("shop-canary", NEW))
    shop.let_lapse(250, 50)
    for body in (*bodies, a_deployment("shop-canary")):
        assert shop.delete(body["kind"].lower(), body["metadata"]["name"]) == ""


# --- HTTPRoute ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", ["v1", "v1beta1"])
def test_each_rule_of_a_route_is_held_to_the_share(shop: Guarded, version: str) -> None:
    shop.approve(50)
    within = {"shop-stable": 95, "shop-canary": 5}
    assert shop.write(a_route(within, version=version)) == ""
    above = a_route(within, {"shop-stable": 3, "shop-canary": 1}, {"elsewhere": 1}, version=version)
    assert shop.write(above) == (
        f"HTTPRoute shop: a canary share of 25% is above the 5% the gate has approved for change {CHANGE}; "
        f"run: parallelchange gate {CHANGE} --to 25%"
    )


def test_what_a_route_sends_where(shop: Guarded) -> None:
    shop.approve(50)
    mesh = {"kind": "Service", "group": "", "name": "shop"}
    for route in (
        a_route({"shop-stable": None}),
        a_route({"shop-stable": 0, "shop-canary": 0}),  # answers are errors, and nobody gets any
        a_route({"elsewhere": 1}),
        a_route({"shop-stable": 19, "shop-canary": 1}, parent=mesh),
        a_route({"cart": 1}, parent=mesh | {"name": "cart"}),
    ):
        assert shop.judge(route) == ""
    foreign = {"backendRefs": [{"name": "shop-stable", "namespace": "elsewhere", "port": 80}, _ref("shop-stable", 1)]}
    for route, share in (
        (a_route({"shop-stable": None, "shop-canary": None}), "50%"),  # without a weight it is 1
        (a_route({"shop-canary": None}), "100%"),
        (a_route({"shop": 1}), "100%"),  # the root selects pods of both versions
        (a_route({"shop-stable": 2, "unknown": 1}), "33.4%"),
        (a_route(foreign), "50%"),  # another namespace's Service of that name is another Service
        (a_route({"unknown": 1}, parent=mesh), "100%"),
    ):
        assert f"a canary share of {share} is above the 5%" in shop.judge(route)


def test_a_route_mirrors_nothing_to_a_canary_that_nobody_approved(shop: Guarded) -> None:
    def mirrored(name: str, *, to_backend: bool = False) -> Any:
        copy = {"type": "RequestMirror", "requestMirror": {"backendRef": {"name": name, "port": 80}}}
        ref = _ref("shop-stable", 1)
        rule = {"backendRefs": [ref | {"filters": [copy]}]} if to_backend else {"backendRefs": [ref], "filters": [copy]}
        return a_route(rule)

    assert shop.judge(mirrored("shop-stable")) == ""
    assert shop.judge(mirrored("elsewhere")) == ""
    for to_backend in (False, True):
        assert shop.judge(mirrored("shop-canary", to_backend=to_backend)) == (
            f"HTTPRoute shop: it mirrors traffic to the canary, and the gate has approved 0% for change {CHANGE}; "
            f"run: parallelchange gate {CHANGE} --to <share>"
        )
    shop.approve(50)
    assert shop.judge(mirrored("shop-canary")) == ""


def test_a_route_stays_until_the_change_is_contracted(shop: Guarded) -> None:
    stays = (
        f"HTTPRoute shop: it holds the canary share of service shop down, so it stays until change {CHANGE} "
        f"is contracted; run: parallelchange contract {CHANGE}"
    )
    assert shop.write(a_route({"shop-stable": 1}, {"elsewhere": 1})) == ""
    assert shop.delete("httproute", "shop") == stays
    assert shop.judge_instead(a_route({"shop-v2": 1})) == stays
    shop.approve(1000, contracted="true")
    assert shop.delete("httproute", "shop") == ""


# --- Ingress --------------------------------------------------------------------------------------------------------


def test_a_canary_ingress_is_held_to_the_share(shop: Guarded) -> None:
    shop.approve(50)
    assert shop.write(an_ingress("shop-canary", **{"": "true", "_weight": "5"})) == ""
    assert shop.write(an_ingress("shop-canary", **{"": "true", "_weight": "25"})) == (
        f"Ingress shop-canary: a canary share of 25% is above the 5% the gate has approved for change {CHANGE}; "
        f"run: parallelchange gate {CHANGE} --to 25%"
    )
    assert shop.write(an_ingress("shop-canary", **{"": "true", "_weight": "50", "_weight_total": "1000"})) == ""
    annotate = ("annotate", "ingress", "shop-canary", "--overwrite")
    assert "a canary share of 5.1%" in shop.kubectl(*annotate, f"{NGINX}-weight=51")
    assert "a canary share of 50%" in shop.kubectl(*annotate, f"{NGINX}-weight-total=100")
    assert "a canary share of 100%" in shop.kubectl(*annotate, f"{NGINX}=false")
    assert shop.kubectl(*annotate, f"{NGINX}-weight=49") == ""

    def through_status(document: Any) -> str:
        patch = ("--subresource=status", "--type=merge", f"--patch={json.dumps(document)}")
        return shop.kubectl("patch", "ingress", "shop-canary", *patch)

    # What is written into the status may carry annotations with it.
    assert "a canary share of 10%" in through_status({"metadata": {"annotations": {f"{NGINX}-weight": "100"}}})
    assert through_status({"status": {"loadBalancer": {"ingress": [{"ip": "10.0.0.1"}]}}}) == ""


def test_what_an_ingress_sends_where(shop: Guarded) -> None:
    shop.approve(50)
    for ingress in (
        an_ingress("shop"),  # the main one
        an_ingress("shop-stable"),
        an_ingress("shop-canary", **{"": "true"}),  # no weight is none
        an_ingress("shop-stable", **{"": "true", "_weight": "100"}),
        an_ingress("elsewhere", **{"": "true", "_weight": "100"}),
    ):
        assert shop.judge(ingress) == ""
    only = an_ingress("elsewhere")
    only["spec"]["defaultBackend"] = {"service": {"name": "shop-canary", "port": {"number": 80}}}
    for ingress, share in (
        (an_ingress("shop-canary"), "100%"),
        (only, "100%"),
        (an_ingress("shop", **{"": "true", "_weight": "10"}), "10%"),
        (an_ingress("shop-canary", **{"": "T", "_weight": "200"}), "100%"),
        (an_ingress("shop-canary", **{"": "true", "_weight": "1", "_weight_total": "3"}), "33.4%"),
    ):
        assert f"a canary share of {share} is above the 5%" in shop.judge(ingress)
    for bad in ({"_weight": "a few"}, {"_weight": "-1"}, {"_weight": "1", "_weight_total": "0"}):
        assert shop.judge(an_ingress("shop-canary", **{"": "true", **bad})) == (
            "Ingress shop-canary: its canary-weight or canary-weight-total is no whole number, so no share can be "
            f"told; change {CHANGE} is approved for 5%; write both as whole numbers"
        )


@pytest.mark.parametrize("key", ["_by_header", "_by_cookie"])
def test_no_header_and_no_cookie_before_anything_is_approved(shop: Guarded, key: str) -> None:
    ingress = an_ingress("shop-canary", **{"": "true", key: "x-canary"})
    assert shop.judge(ingress) == (
        "Ingress shop-canary: canary-by-header and canary-by-cookie send traffic to the canary whatever its weight, "
        f"and the gate has approved 0% for change {CHANGE}; run: parallelchange gate {CHANGE} --to <share>"
    )
    shop.approve(50)
    assert shop.judge(ingress) == ""


# --- VirtualService -------------------------------------------------------------------------------------------------


def test_each_route_of_a_virtual_service_is_held_to_the_share(shop: Guarded) -> None:
    shop.approve(50)
    within = {"shop-stable": 95, "shop-canary": 5}
    assert shop.write(a_virtual_service(within)) == ""
    assert shop.write(a_virtual_service(within, {"shop-stable": 75, "shop-canary": 25}, {"elsewhere": None})) == (
        f"VirtualService shop: a canary share of 25% is above the 5% the gate has approved for change {CHANGE}; "
        f"run: parallelchange gate {CHANGE} --to 25%"
    )
    stays = (
        f"VirtualService shop: it holds the canary share of service shop down, so it stays until change {CHANGE} "
        f"is contracted; run: parallelchange contract {CHANGE}"
    )
    assert shop.delete("virtualservice", "shop") == stays
    assert shop.judge_instead(a_virtual_service({"shop-v2": None})) == stays
    shop.approve(1000, contracted="true")
    assert shop.delete("virtualservice", "shop") == ""


def test_what_a_virtual_service_sends_where(shop: Guarded) -> None:
    shop.approve(50)
    domain = f"{shop.name}.svc.cluster.local"
    tcp = a_virtual_service({"shop-canary": None})
    tcp["spec"]["tcp"] = tcp["spec"].pop("http")
    for body in (
        a_virtual_service({"shop-stable": None}),
        a_virtual_service({f"shop-stable.{domain}": 95, f"shop-canary.{domain}": 5}),
        a_virtual_service({"shop-stable": 100, "shop-canary": None}),  # of several, one without a weight has none
        a_virtual_service({"shop-canary.elsewhere.svc.cluster.local": None}),
        a_virtual_service({"shop-stable/blue": None}),
    ):
        assert shop.judge(body) == ""
    for body, share in (
        (a_virtual_service({"shop-canary": None}), "100%"),
        (a_virtual_service({"shop-canary": 0}), "100%"),  # a sole one has all, whatever it weighs
        (a_virtual_service({f"shop-canary.{domain}": 1, f"shop-stable.{domain}": 1}), "50%"),
        (a_virtual_service({"shop-stable": 1, "shop-stable.elsewhere.svc.cluster.local": 1}), "50%"),
        (a_virtual_service({"shop/stable": 90, "shop/canary": 10}), "100%"),
        (a_virtual_service({"unknown": None}, hosts=("shop",)), "100%"),
        (tcp, "100%"),
    ):
        assert f"a canary share of {share} is above the 5%" in shop.judge(body)
    for weights in ({"shop-stable": 0, "shop-canary": 0}, {"shop-stable": 10, "shop-canary": -1}):
        assert "no share can be told from its weights" in shop.judge(a_virtual_service(weights))


def test_a_subset_of_the_root_is_canary_even_where_the_root_is_old(shop: Guarded) -> None:
    shop.approve(50, old_backends="shop,shop-stable")
    assert shop.judge(a_virtual_service({"shop": None})) == ""
    assert "a canary share of 100%" in shop.judge(a_virtual_service({"shop/v2": None}))


def test_a_virtual_service_mirrors_nothing_to_a_canary_that_nobody_approved(shop: Guarded) -> None:
    for more in ({"mirror": {"host": "shop-canary"}}, {"mirrors": [{"destination": {"host": "shop-canary"}}]}):
        body = a_virtual_service({"shop-stable": None}, **more)
        assert "it mirrors traffic to the canary, and the gate has approved 0%" in shop.judge(body)
    assert shop.judge(a_virtual_service({"shop-stable": None}, mirror={"host": "shop-stable"})) == ""
    shop.approve(50)
    assert shop.judge(body) == ""


# --- FeatureFlag ----------------------------------------------------------------------------------------------------


def test_a_flag_is_held_to_the_share(shop: Guarded) -> None:
    shop.approve(50)
    assert shop.write(a_flag(fractional(["stable", 950], ["canary", 50]))) == ""
    assert shop.write(a_flag(fractional(["stable", 750], ["canary", 250]))) == (
        f"FeatureFlag flags: a canary share of 25% is above the 5% the gate has approved for change {CHANGE}; "
        f"run: parallelchange gate {CHANGE} --to 25%"
    )
    stays = (
        f"FeatureFlag flags: it holds the canary share of service shop down, so it stays until change {CHANGE} "
        f"is contracted; run: parallelchange contract {CHANGE}"
    )
    assert shop.delete("featureflag", "flags") == stays
    assert shop.judge_instead(a_flag({}, key="another")) == stays
    shop.approve(1000, contracted="true")
    assert shop.delete("featureflag", "flags") == ""


def test_what_a_flag_answers(shop: Guarded) -> None:
    shop.approve(50)
    by_user = {"cat": [{"var": "$flagd.flagKey"}, {"var": "user"}]}
    for targeting in (
        {},
        fractional(["stable", 1]),
        fractional(["stable", 95], ["canary", 5]),
        fractional(["stable", 9.5], ["canary", 0.5]),
        fractional(by_user, ["stable", 95], ["canary", 5]),
        fractional({"var": "user"}, ["stable", 95], ["canary", 5]),
    ):
        assert shop.judge(a_flag(targeting)) == ""
    for targeting, share in (
        (fractional(["stable"], ["canary"]), "50%"),  # without a weight it is 1
        (fractional(["stable", 2], ["unknown", 1]), "33.4%"),
        (fractional(by_user, ["canary", 1]), "100%"),
    ):
        assert f"a canary share of {share} is above the 5%" in shop.judge(a_flag(targeting))
    for targeting in (
        {"if": [{"==": [{"var": "beta"}, True]}, "canary", "stable"]},
        {"$ref": "rollout"},
        fractional(),
        fractional(["stable", 0], ["canary", 0]),
        fractional(["stable", "95"], ["canary", 5]),
        fractional(["stable", 95], ["canary", -5]),
        fractional(["stable", 95], [{"if": [True, "canary", "stable"]}, 5]),
        fractional({"if": [True, "a", "b"]}, ["stable", 95], ["canary", 5]),
        fractional({"cat": ["all", "the same"]}, ["stable", 95], ["canary", 5]),
        fractional({"cat": [{"var": "$flagd.flagKey"}]}, ["stable", 95], ["canary", 5]),
        fractional(["stable", 95], {"var": "user"}, ["canary", 5]),
        {**fractional(["stable", 95], ["canary", 5]), "if": [True, "canary"]},
    ):
        assert shop.judge(a_flag(targeting)) == (
            "FeatureFlag flags: no share can be told from the targeting of flag shop, which is no plain fractional; "
            f'change {CHANGE} is approved for 5%; write it as {{"fractional": [["stable", 1000], ["canary", 0]]}}'
        )


def test_a_flag_falls_back_to_stable_until_everything_is_approved(shop: Guarded) -> None:
    shop.approve(999)
    assert shop.judge(a_flag(fractional(["stable", 95], ["canary", 5]), default="canary")) == (
        f"FeatureFlag flags: the default variant of flag shop is not stable, and the gate has approved 99.9% for "
        f"change {CHANGE}; make it stable, or run: parallelchange gate {CHANGE} --to 100%"
    )
    assert "a canary share of 100% is above the 99.9%" in shop.judge(a_flag({}, default="canary"))
    shop.approve(1000)
    assert shop.judge(a_flag({}, default="canary")) == ""


# --- Deployment and StatefulSet -------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_what_runs_behind_the_service_is_the_old_or_the_new_version(shop: Guarded, kind: str) -> None:
    assert shop.judge(a_deployment(kind=kind)) == ""
    assert shop.judge(a_deployment("shop-canary", NEW, kind=kind)) == ""
    assert shop.judge(a_deployment("other", "another:1", labels={"app": "shop"}, kind=kind)) == ""
    assert shop.judge(a_deployment("shop-canary", "another:1", kind=kind)) == (
        f"{kind} shop-canary: its pods are behind service shop, and none of its images (another:1, proxy:1) is the "
        f"old or the new one of change {CHANGE} ({OLD}, {NEW}); deploy one of these, or end the change first"
    )


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_the_old_version_does_not_become_the_new_one_behind_the_splits_back(shop: Guarded, kind: str) -> None:
    assert shop.write(a_deployment(kind=kind)) == ""
    told = (
        f"{kind} shop: {NEW} would get the share of the old version of service shop, and the gate has approved 99.9% "
        f"for change {CHANGE}; run: parallelchange gate {CHANGE} --to 100%"
    )
    shop.approve(999)
    assert shop.write(a_deployment(image=NEW, kind=kind)) == told
    assert shop.kubectl("set", "image", f"{kind.lower()}/shop", f"app={NEW}") == told
    assert shop.kubectl("set", "image", f"{kind.lower()}/shop", f"proxy={NEW}") == told  # beside the old one, too
    assert "none of its images" in shop.kubectl("set", "image", f"{kind.lower()}/shop", "app=another:1")
    assert shop.kubectl("set", "image", f"{kind.lower()}/shop", "proxy=proxy:2") == ""
    # Nor under another name, where the pods' labels put it behind an old backend.
    for role in ("stable", "baseline"):
        assert "would get the share of the old version" in shop.judge(a_deployment("v2", NEW, role=role, kind=kind))
    assert shop.judge(a_deployment("v2", NEW, role="canary", kind=kind)) == ""
    shop.approve(1000)
    assert shop.kubectl("set", "image", f"{kind.lower()}/shop", f"app={NEW}") == ""
    assert "none of its images" in shop.kubectl("set", "image", f"{kind.lower()}/shop", "app=another:1")


@pytest.mark.parametrize("kind", ["Deployment", "StatefulSet"])
def test_what_brings_the_old_version_back_stays(shop: Guarded, kind: str) -> None:
    assert shop.write(a_deployment(kind=kind, replicas=2)) == ""
    assert shop.write(a_deployment("shop-canary", NEW, kind=kind)) == ""
    scale = ("scale", f"{kind.lower()}/shop")
    none = (
        f"{kind} shop: without replicas the old version of service shop gets traffic and has no pods, and the gate has "
        f"approved 50% for change {CHANGE}; run: parallelchange gate {CHANGE} --to 100%"
    )
    shop.approve(500)
    assert shop.kubectl(*scale, "--replicas=1") == ""
    assert shop.kubectl(*scale, "--replicas=0") == none
    assert shop.write(a_deployment(kind=kind, replicas=0)) == none
    assert shop.kubectl("scale", f"{kind.lower()}/shop-canary", "--replicas=0") == ""
    moved = a_deployment(kind=kind, labels={"app": "shop", "tier": "shelf"})
    assert shop.judge_instead(moved) == (
        f"{kind} shop: with these labels its pods leave service shop, and with them the old version; the gate has "
        f"approved 50% for change {CHANGE}; run: parallelchange gate {CHANGE} --to 100%"
    )
    shop.approve(1000)
    assert shop.kubectl(*scale, "--replicas=0") == ""
    stays = (
        f"{kind} shop: it brings the old version of service shop back, so it stays until change {CHANGE} is "
        f"contracted; run: parallelchange contract {CHANGE}"
    )
    assert shop.delete(kind, "shop") == stays
    assert shop.delete(kind, "shop-canary") == ""
    shop.approve(1000, contracted="true")
    assert shop.judge_instead(a_deployment(kind=kind, image="another:1")) == ""
    assert shop.delete(kind, "shop") == ""


def test_a_deployment_rolls_out_under_guard(shop: Guarded) -> None:
    """Controllers write to it as well, and they must not be held up."""
    assert shop.write(a_deployment()) == ""
    revision = "deployment.kubernetes.io/revision"

    def rolled_out(times: str) -> bool:
        found = shop.cluster.get("deployment", "shop")
        seen = found.get("status", {}).get("observedGeneration") == found["metadata"]["generation"]
        return seen and found["metadata"]["annotations"].get(revision) == times

    wait_until(lambda: rolled_out("1"), what="the first revision")
    assert shop.kubectl("rollout", "restart", "deployment/shop") == ""
    wait_until(lambda: rolled_out("2"), what="the second revision")


def test_images_and_selectors_that_nobody_named_are_not_looked_at(shop: Guarded) -> None:
    shop.approve(1, new_image="")
    assert shop.judge(a_deployment(image="another:1")) == ""
    shop.approve(2, new_image=NEW, selector="")
    assert shop.judge(a_deployment("shop-canary", "another:1")) == ""
    assert "none of its images" in shop.judge(a_deployment(image="another:1"))  # named in the approvals


# --- Service --------------------------------------------------------------------------------------------------------


def test_a_service_stays_on_its_pods(shop: Guarded) -> None:
    shop.approve(1000, old_backends="shop-stable,shop-baseline,shop-v1")
    names = ("shop", "shop-stable", "shop-baseline", "shop-canary", "shop-v1")
    shop.cluster.apply([a_service(name) for name in names])
    away = {"spec": {"type": "ExternalName", "externalName": "elsewhere.example", "selector": {"app": "shop"}}}
    for name in names:
        told = (
            f"Service {name}: another selector or externalName moves traffic of service shop past its split, so both "
            f"stay as they are until change {CHANGE} is contracted; move it with the split, or run: parallelchange "
            f"contract {CHANGE}"
        )
        assert shop.write(a_service(name, app="shop", tier="canary")) == told
        assert shop.judge_instead(a_service(name, app="cart")) == told
        patch = ("patch", "service", name, "--type=merge", "-p")
        assert shop.kubectl(*patch, json.dumps({"spec": {"selector": None}})) == told
        assert shop.kubectl(*patch, json.dumps(away)) == told
        # Which port, which node and whose turn it is are the operator's.
        free = {"type": "NodePort", "sessionAffinity": "ClientIP", "ports": [{"port": 80, "targetPort": 8080}]}
        assert shop.kubectl(*patch, json.dumps({"spec": free, "metadata": {"labels": {"team": "a"}}})) == ""
        assert shop.kubectl("annotate", "service", name, "note=1") == ""
    shop.approve(1000, contracted="true")
    for name in names:
        assert shop.kubectl("patch", "service", name, "--type=merge", "-p", json.dumps(away)) == ""
        assert shop.delete("service", name) == ""


def test_where_an_external_name_leads_stays(shop: Guarded) -> None:
    away = an_object("v1", "Service", "shop-stable", {"type": "ExternalName", "externalName": "old.example"})
    assert shop.write(away, "create") == ""
    told = "Service shop-stable: another selector or externalName moves traffic of service shop past its split"
    patch = ("patch", "service", "shop-stable", "--type=merge", "-p")
    assert told in shop.kubectl(*patch, json.dumps({"spec": {"externalName": "new.example"}}))
    back = {"spec": {"type": "ClusterIP", "externalName": None, "ports": [{"port": 80}]}}
    assert told in shop.kubectl(*patch, json.dumps(back))
    assert told in shop.kubectl(*patch, json.dumps({"spec": back["spec"] | {"externalName": "old.example"}}))


def test_a_service_that_traffic_goes_through_stays(shop: Guarded) -> None:
    shop.approve(1000, old_backends="shop-stable,shop-baseline,shop-v1")
    shop.cluster.apply([a_service(f"shop{end}") for end in ("", "-stable", "-baseline", "-canary", "-v1", "-v2")])
    for name in ("shop", "shop-stable", "shop-v1"):
        assert shop.delete("service", name) == (
            f"Service {name}: traffic of service shop goes through it, so it stays until change {CHANGE} is "
            f"contracted; run: parallelchange contract {CHANGE}"
        )
    for name in ("shop-baseline", "shop-canary", "shop-v2"):
        assert shop.delete("service", name) == ""
        assert shop.write(a_service(name), "create") == ""
    # Once the new version is the stable one, the names stay.
    shop.approve(999, old_backends="")
    assert "it stays until" in shop.delete("service", "shop-stable")
    assert shop.delete("service", "shop-v1") == ""


def test_a_service_has_its_glass(shop: Guarded) -> None:
    assert shop.write(a_service()) == ""
    other = a_service(app="cart")
    assert "moves traffic" in shop.write(because(other, " "))
    assert shop.write(because(other, "drill")) == ""
    assert audited(shop.cluster, "service") == ["admin: drill"]
    assert "moves traffic" in shop.write(because(a_service(), "drill"))
    assert shop.delete("service", "shop") == ""
    assert audited(shop.cluster, "service") == ["admin: drill", "admin: drill"]


# --- the approvals --------------------------------------------------------------------------------------------------


def test_only_the_gate_approves(shop: Guarded) -> None:
    name = approvals_name("shop")
    gate = f"system:serviceaccount:{shop.name}:{SERVICE_ACCOUNT}"

    def told(user: str) -> str:
        return (
            f'ConfigMap {name}: only {gate} writes approvals, and this is {user}; it may create them with approved "0" '
            f'and contracted "false" and no more; for change {CHANGE} run: parallelchange gate {CHANGE} --to <share>'
        )

    more = json.dumps({"data": {"approved": "1000"}})
    assert shop.kubectl("patch", "configmap", name, "--type=merge", "-p", more) == told("admin")
    assert shop.kubectl("label", "configmap", name, f"{APPROVALS}-") == told("admin")
    assert shop.kubectl("annotate", "configmap", name, "note=1") == told("admin")
    assert shop.write(approvals(SHOP, approved="1000"), "replace") == told("admin")
    assert shop.delete("configmap", name) == told("admin")
    # Neither one of that name elsewhere, nor another one here.
    for user in ("system:serviceaccount:elsewhere:parallelchange", f"system:serviceaccount:{shop.name}:default"):
        masters = shop.cluster.kubeconfig_for(user, ["system:masters"])
        said = shop.kubectl("patch", "configmap", name, "--type=merge", "-p", more, kubeconfig=masters)
        assert said == told(user)
    assert shop.kubectl("patch", "configmap", name, "--type=merge", "-p", more, kubeconfig=shop.gate) == ""
    assert shop.kubectl("delete", "configmap", name, kubeconfig=shop.gate) == ""


def test_new_approvals_approve_nothing(shop: Guarded) -> None:
    cart = {**SHOP, "service": "cart"}
    for data in (
        *({"approved": "1"}, {"approved": ""}, {"contracted": "true"}),
        *({"standing": "1"}, {"standing": ""}, {"approved-until": LATER}),
    ):
        assert "only system:serviceaccount:" in shop.judge(approvals({**cart, **data}))
    for data in ({}, {"standing": "0"}, {"approved-until": ""}, {"standing": "0", "approved-until": ""}):
        assert shop.judge(approvals({**cart, **data})) == ""
    assert shop.kubectl("create", "-f", "-", body=approvals(cart, approved="7"), kubeconfig=shop.gate) == ""
    # A ConfigMap that is no approvals yet is not made one by its label.
    plain = approvals({**cart, "service": "till"})
    del plain["metadata"]["labels"]
    assert shop.write(plain, "create") == ""
    said = shop.kubectl("label", "configmap", approvals_name("till"), f"{APPROVALS}=till")
    assert "only system:serviceaccount:" in said


def test_approvals_that_nobody_could_read_are_refused_to_the_gate_as_well(shop: Guarded) -> None:
    name = approvals_name("shop")
    for data in (
        {"approved": "5%"},
        {"approved": "1001"},
        {"approved": "-1"},
        {"contracted": "yes"},
        {"service": "cart"},
        {"standing": "5%"},
        {"standing": ""},
        {"standing": "1001"},
        {"approved-until": "tomorrow"},
        {"approved-until": "2026-11-23"},
        {"approved-until": "2026-11-23T09:00:00+01:00"},
        {"approved-until": "2026-11-23T09:00:00.5Z"},
        {"approved-until": f" {LATER}"},
    ):
        patch = ("patch", "configmap", name, "--type=merge", "-p", json.dumps({"data": data}))
        assert shop.kubectl(*patch, kubeconfig=shop.gate) == (
            f"ConfigMap {name}: approvals need a service that is also the value of label {APPROVALS}, approved as a "
            "whole number of thousandths (0 to 1000), standing likewise or not at all, approved-until as a time like "
            f"2026-11-23T09:00:00Z or empty, and contracted as true or false; for change {CHANGE} run: parallelchange "
            f"gate {CHANGE} --to <share>"
        )
    for time in ("2026-02-30T09:00:00Z", "2026-11-23T25:00:00Z"):
        patch = ("patch", "configmap", name, "--type=merge", "-p", json.dumps({"data": {"approved-until": time}}))
        assert "type conversion error" in shop.kubectl(*patch, kubeconfig=shop.gate)
    for data in ({"standing": "1000"}, {"standing": None}, {"approved-until": LATER}, {"approved-until": ""}):
        patch = ("patch", "configmap", name, "--type=merge", "-p", json.dumps({"data": data}))
        assert shop.kubectl(*patch, kubeconfig=shop.gate) == ""


def test_the_glass_of_approvals(shop: Guarded) -> None:
    assert shop.write(because(approvals(SHOP, approved="250"), "the database is gone"), "replace") == ""
    assert audited(shop.cluster, "approvals") == ["admin: the database is gone"]
    again = because(approvals(SHOP, approved="500"), "the database is gone")
    assert "only system:serviceaccount:" in shop.write(again, "replace")
    assert shop.delete("configmap", approvals_name("shop")) == ""


def test_other_configmaps_are_free(shop: Guarded) -> None:
    shop.cluster.kubectl("create", "configmap", "settings", "--from-literal=approved=1000")
    shop.cluster.kubectl("delete", "configmap", "settings")


@pytest.mark.parametrize("approvals_first", [False, True])
def test_a_guarded_namespace_can_be_deleted(guard: ControlPlane, approvals_first: bool) -> None:
    shop = Guarded(guard.new_cluster())
    shop.protect(SHOP)
    bodies = (
        *(of_shop(0), a_route({"shop-stable": 1}), a_virtual_service({"shop-stable": 1}), a_flag({})),
        *(a_deployment(), a_service()),
    )
    shop.cluster.apply(bodies)
    for body in bodies:
        assert "until change" in shop.delete(body["kind"].lower(), body["metadata"]["name"])
    if approvals_first:
        assert shop.kubectl("delete", "configmap", approvals_name("shop"), kubeconfig=shop.gate) == ""
    guard.kubectl("delete", "namespace", shop.name, "--wait=false")
    shop.kubectl("delete", "pods", "--all", "--force", "--grace-period=0")
    guard.kubectl("wait", "--for=delete", f"namespace/{shop.name}", "--timeout=120s")


# --- what it costs --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("until", ["", LATER])
def test_large_objects_are_judged_within_the_cost_limit(shop: Guarded, until: str) -> None:
    old = ",".join(["shop-stable", *(f"shop-old-{number}" for number in range(20))])
    shop.approve(50, standing="0", approved_until=until, old_backends=old)
    for make in (a_route, a_virtual_service):
        wide = {"shop-stable": 950} | {f"elsewhere-{number}": 0 for number in range(14)} | {"shop-canary": 50}
        rules = [wide] * (15 if make is a_route else 50)
        assert shop.judge(make(*rules)) == ""
        assert shop.write(make(*rules[1:], {**wide, "shop-canary": 49}), "create") == ""
        assert shop.judge_instead(make(*rules)) == ""
        for judge in (shop.judge, shop.judge_instead):
            assert "a canary share of 5.2%" in judge(make(*rules, {**wide, "shop-canary": 52}))
    many = {f"shop-old-{number}": 1 for number in range(20)} | {f"unknown-{number}": 0 for number in range(80)}
    assert shop.judge(a_split(many)) == ""
    assert shop.judge(a_split({**many, "shop-canary": 1})) == ""
    assert shop.write(a_split(many), "create") == ""
    assert shop.judge_instead(a_split({**many, "shop-canary": 1})) == ""
    assert "a canary share of 9.1%" in shop.judge_instead(a_split({**many, "shop-canary": 2}))
    large = a_deployment()
    spec = large["spec"]["template"]["spec"]
    spec["containers"] += [{"name": f"beside-{number}", "image": f"beside:{number}"} for number in range(50)]
    assert shop.write(large, "create") == ""
    assert shop.kubectl("set", "image", "deployment/shop", "beside-49=beside:50") == ""
    assert "would get the share" in shop.kubectl("set", "image", "deployment/shop", f"beside-49={NEW}")
