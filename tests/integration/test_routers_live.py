"""The cluster's routers on a real API server: what they read, what they write, and what they leave alone."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from copy import deepcopy
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

import pytest
from helpers.app import (
    CANARY,
    IMAGES,
    LAYOUT,
    RESOURCES,
    STABLE,
    accept_route,
    client_of,
    cluster_change,
    deployment,
    put,
    service,
    shop,
    split_object,
    wait_ready,
    weights_of,
)
from helpers.controlplane import Cluster, wait_until
from helpers.kubelet import Kubelet
from helpers.observations import PLAN, all_is_well

from parallelchange.adapters.kubernetes.client import FIELD_MANAGER
from parallelchange.adapters.kubernetes.kinds import TRAFFIC_SPLIT
from parallelchange.adapters.kubernetes.routers import ROUTERS, ClusterRouter, make_router
from parallelchange.adapters.kubernetes.running import Running
from parallelchange.change import Change
from parallelchange.errors import Blocked, Busy, NotFound, Unavailable, UsageError
from parallelchange.layout import BREAK_GLASS, STAMP, VERSION, Role
from parallelchange.model import FULL
from parallelchange.rollout.decide import Kind, decide

pytestmark = pytest.mark.xdist_group("cluster")

EVERY = tuple(ROUTERS)
STAGES = (0, 1, 50, 125, 333, 500, 999, 1000, 0)
SPLITS = RESOURCES["smi"]
Open = Callable[..., ClusterRouter]


@pytest.fixture
def opened(cluster: Cluster) -> Iterator[Open]:
    """Opens routers, each with a client of its own as another process has, and closes them in the end."""
    made: list[ClusterRouter] = []

    def make(kind: str = "smi", change: Change | None = None, **options: Any) -> ClusterRouter:
        change, client = change or cluster_change(kind), client_of(cluster, **options)
        made.append(make_router(change, client, Running(client, change)))
        return made[-1]

    yield make
    for router in made:
        router.cluster.close()


def send(router: ClusterRouter, weight: int) -> Any:
    """Set a weight on what stands now."""
    return router.set(weight, resource_version=router.get().resource_version)


def stored(cluster: Cluster, kind: str) -> Any:
    return cluster.get(RESOURCES[kind], "shop")


def live(cluster: Cluster, kind: str = "smi") -> dict[str, Fraction]:
    """The shares as the object has them, told by the tests' own reading of it."""
    weights = {name: Fraction(weight) for name, weight in weights_of(cluster, kind).items()}
    return {name: weight / sum(weights.values()) for name, weight in weights.items()}


def patch(cluster: Cluster, kind: str, name: str, body: Any, kind_of: str = "merge") -> None:
    cluster.kubectl("patch", kind, name, f"--type={kind_of}", f"--patch={json.dumps(body)}")


def v1_of(router: ClusterRouter) -> int:
    return FULL - router.get().weight


# --- reading and writing --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EVERY)
def test_every_stage_is_written_and_read_back_and_nothing_else_changes(
    cluster: Cluster, opened: Open, kind: str
) -> None:
    objects = shop(kind)
    for each in objects:
        each["metadata"].setdefault("annotations", {})["someone.example/else"] = "keeps this"
        each["metadata"].setdefault("labels", {})["team"] = "shop"
    cluster.apply(objects)
    router = opened(kind)
    before = stored(cluster, kind)
    seen = []
    for weight in STAGES:
        written = send(router, weight)
        read = opened(kind).get()
        assert (written.weight, written.untold, written.resource_version) == (weight, "", read.resource_version)
        assert read.weight == weight
        assert live(cluster, kind) == {STABLE: Fraction(FULL - weight, FULL), CANARY: Fraction(weight, FULL)}
        seen.append(read.resource_version)
    assert all(one != other for one, other in pairwise(seen)), "each write is one, even of the weight that stands"

    after = stored(cluster, kind)
    shown = cluster.kubectl("get", RESOURCES[kind], "shop", "--output=json", "--show-managed-fields").stdout
    managers = {item["manager"]: item["fieldsV1"] for item in json.loads(shown)["metadata"]["managedFields"]}
    assert "f:spec" in managers[FIELD_MANAGER] or kind == "nginx"
    assert f"f:{STAMP}" in managers[FIELD_MANAGER]["f:metadata"]["f:annotations"]
    for body in (before, after):
        for key in ("resourceVersion", "generation"):
            body["metadata"].pop(key, None)
        body["metadata"]["annotations"].pop(STAMP, None)
        body["metadata"]["annotations"].pop("kubectl.kubernetes.io/last-applied-configuration")
    # Back at the first weight, the object is as it was.
    assert after == before


@pytest.mark.parametrize("weight", [-1, 1001])
def test_a_weight_that_is_none_is_refused_before_anything_is_asked(opened: Open, weight: int) -> None:
    with pytest.raises(UsageError, match="outside"):
        opened().set(weight, resource_version="1")


@pytest.mark.parametrize("version", ["v1alpha1", "v1alpha2", "v1alpha3", "v1alpha4"])
def test_a_traffic_split_is_written_in_whichever_version_is_served(
    cluster: Cluster, opened: Open, version: str
) -> None:
    cluster.apply(shop())
    router = opened()
    router.form._served = TRAFFIC_SPLIT.at(version)
    assert send(router, 125).weight == 125
    body = cluster.get(f"trafficsplits.{version}.split.smi-spec.io", "shop")
    assert [item["weight"] for item in body["spec"]["backends"]] == [875, 125]
    asked = [event for event in cluster.audit() if event["verb"] == "patch"]
    assert asked[-1]["objectRef"]["apiVersion"] == version


def test_quantities_of_an_older_version_are_read_and_replaced_by_what_the_newer_one_takes(
    cluster: Cluster, opened: Open
) -> None:
    [split] = split_object("smi")
    split["apiVersion"] = "split.smi-spec.io/v1alpha1"
    split["spec"]["backends"] = [{"service": STABLE, "weight": "875m"}, {"service": CANARY, "weight": "125m"}]
    cluster.apply([*shop()[:-1], split])
    router = opened()
    assert router.form.served().version == "v1alpha4"
    assert router.get().weight == 125
    send(router, 250)
    assert [item["weight"] for item in stored(cluster, "smi")["spec"]["backends"]] == [750, 250]


def test_weights_are_quantities_where_the_schema_wants_text(cluster: Cluster, opened: Open) -> None:
    cluster.apply(shop())
    router = opened()
    router.form._served = TRAFFIC_SPLIT.at("v1alpha1")
    weight = "properties/spec/properties/backends/items/properties/weight"
    place = f"/spec/versions/0/schema/openAPIV3Schema/{weight}"
    crd = ("crd", "trafficsplits.split.smi-spec.io")

    def published(form: str) -> bool:
        document = cluster.kubectl("get", "--raw", "/openapi/v3/apis/split.smi-spec.io/v1alpha1").stdout
        return ('"weight":{"type":"string"' in document.replace(" ", "")) == (form == "string")

    patch(cluster, *crd, [{"op": "replace", "path": place, "value": {"type": "string"}}], "json")
    try:
        wait_until(lambda: published("string"), what="the schema with quantities")
        send(router, 125)
        assert [item["weight"] for item in stored(cluster, "smi")["spec"]["backends"]] == ["875m", "125m"]
        assert router.get().weight == 125
    finally:
        mixed = {"x-kubernetes-int-or-string": True}
        patch(cluster, *crd, [{"op": "replace", "path": place, "value": mixed}], "json")
        wait_until(lambda: published("mixed"), what="the schema as it was")


def test_an_http_route_keeps_its_filters_matches_and_other_rules(cluster: Cluster, opened: Open) -> None:
    [route] = split_object("gateway-api")
    header = {"type": "RequestHeaderModifier", "requestHeaderModifier": {"set": [{"name": "x", "value": "y"}]}}
    refs = route["spec"]["rules"][0]["backendRefs"]
    refs[1] |= {"filters": [header]}
    static = {
        "matches": [{"path": {"type": "PathPrefix", "value": "/static"}}],
        "backendRefs": [{"name": "assets", "port": 8000, "weight": 7}],
    }
    beta = {"matches": [{"headers": [{"name": "x-beta", "value": "1"}]}], "backendRefs": deepcopy(refs)}
    moved = {"filters": [{"type": "RequestRedirect", "requestRedirect": {"scheme": "https"}}]}
    # A rule may leave a backend without traffic out, and a weight that is 1.
    short = {"backendRefs": [{"name": STABLE, "port": 80}], "filters": [header]}
    route["spec"]["rules"] = [static, {"backendRefs": refs}, beta, moved, short]
    cluster.apply([*shop()[:-1], route])
    router = opened("gateway-api")
    before = stored(cluster, "gateway-api")["spec"]
    assert router.get().weight == 0
    assert send(router, 125).weight == 125

    after = stored(cluster, "gateway-api")["spec"]
    assert [rule.get("backendRefs") for rule in (after["rules"][0], after["rules"][3])] == [
        before["rules"][0]["backendRefs"],
        None,
    ]
    for rule in (after["rules"][1], after["rules"][2], after["rules"][4]):
        assert [(ref["name"], ref["weight"], ref["port"]) for ref in rule["backendRefs"]] == [
            (STABLE, 875, 80),
            (CANARY, 125, 80),
        ]
    assert after["rules"][1]["backendRefs"][1]["filters"] == [header]
    for spec in (before, after):
        for rule in spec["rules"]:
            rule.pop("backendRefs", None)
    assert after == before


def test_a_gateway_as_parent_is_as_good_as_a_service(cluster: Cluster, opened: Open) -> None:
    [route] = split_object("gateway-api")
    route["spec"] |= {"parentRefs": [{"name": "edge", "sectionName": "https"}], "hostnames": ["shop.example"]}
    cluster.apply([*shop()[:-1], route])
    router = opened("gateway-api")
    split = send(router, 250)
    assert not router.settled(split), "no controller has said anything"
    accept_route(cluster)
    assert router.settled(split)
    assert stored(cluster, "gateway-api")["spec"]["parentRefs"][0]["name"] == "edge"


def test_a_virtual_service_keeps_what_is_not_ours(cluster: Cluster, opened: Open) -> None:
    [body] = split_object("istio")
    ours = body["spec"]["http"][0]
    ours |= {"retries": {"attempts": 3}, "timeout": "2s", "name": "main"}
    ours["route"][0] |= {"headers": {"response": {"add": {"x": "y"}}}}
    ours["route"][0]["destination"] |= {
        "host": f"{STABLE}.{cluster.namespace}.svc.cluster.local",
        "port": {"number": 80},
    }
    other = {"match": [{"uri": {"prefix": "/static"}}], "route": [{"destination": {"host": "assets"}}]}
    short = {"match": [{"uri": {"prefix": "/x"}}], "route": [{"destination": {"host": STABLE, "port": {"number": 80}}}]}
    body["spec"]["http"] = [other, ours, short]
    cluster.apply([*shop()[:-1], body])
    router = opened("istio")
    assert router.get().weight == 0
    send(router, 250)
    http = stored(cluster, "istio")["spec"]["http"]
    assert http[0] == other
    assert http[1]["route"] == [ours["route"][0] | {"weight": 75}, ours["route"][1] | {"weight": 25}]
    assert {key: http[1][key] for key in ("retries", "timeout", "name")} == {
        key: ours[key] for key in ("retries", "timeout", "name")
    }
    assert [(item["destination"]["host"], item["weight"]) for item in http[2]["route"]] == [(STABLE, 75), (CANARY, 25)]
    send(router, 125)
    assert [item["weight"] for item in stored(cluster, "istio")["spec"]["http"][1]["route"]] == [875, 125]


def test_what_a_flag_decides_by_stays(cluster: Cluster, opened: Open) -> None:
    [flags] = split_object("flagd")
    other = {"state": "ENABLED", "variants": {"on": True, "off": False}, "defaultVariant": "off", "targeting": {}}
    flags["spec"]["flagSpec"]["flags"]["banner"] = other
    cluster.apply([*shop()[:-1], flags])
    send(opened("flagd"), 125)
    found = stored(cluster, "flagd")["spec"]["flagSpec"]["flags"]
    assert found["banner"] == other
    assert found["shop"]["targeting"] == {"fractional": [{"var": "targetingKey"}, ["stable", 875], ["canary", 125]]}
    assert found["shop"]["variants"] == {"stable": "stable", "canary": "canary"}


def test_a_share_that_leaves_next_to_nothing_is_not_all(cluster: Cluster, opened: Open) -> None:
    cluster.apply(shop())
    router = opened()
    backends = [{"service": STABLE, "weight": 1}, {"service": CANARY, "weight": 99999}]
    patch(cluster, SPLITS, "shop", {"spec": {"backends": backends}})
    assert router.get().weight == 999, "the old version still gets one request in a hundred thousand"
    backends = [{"service": STABLE, "weight": 99999}, {"service": CANARY, "weight": 1}]
    patch(cluster, SPLITS, "shop", {"spec": {"backends": backends}})
    assert router.get().weight == 1, "the new version gets some"


def test_describe_tells_the_object_and_its_backends(cluster: Cluster, opened: Open) -> None:
    cluster.apply(shop(canary=125))
    patch(cluster, SPLITS, "shop", {"metadata": {"annotations": {BREAK_GLASS: "INC-7"}}})
    told = opened().describe()
    assert told["object"] == f"TrafficSplit {cluster.namespace}/shop"
    assert told["api_version"] == "split.smi-spec.io/v1alpha4"
    assert [(item["service"], item["share"], item["runs"]) for item in told["backends"]] == [
        (STABLE, "87.5%", f"{STABLE} runs v1"),
        (CANARY, "12.5%", f"{CANARY} runs v2"),
    ]
    assert (told["untold"], told["break_glass"], told["follows"]) == ("", "INC-7", False)
    assert any("kubectl" in owner for owner in told["owners"])
    patch(cluster, SPLITS, "shop", {"spec": {"backends": [{"service": STABLE, "weight": 0}]}})
    assert "all 0" in opened().describe()["untold"]


def test_owners_are_its_controller_and_who_else_writes_its_spec(cluster: Cluster, opened: Open) -> None:
    cluster.apply(shop())
    owner = cluster.get("deployment", "shop")["metadata"]["uid"]
    reference = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop", "uid": owner, "controller": True}
    patch(cluster, SPLITS, "shop", {"metadata": {"ownerReferences": [reference]}})
    assert opened().owners() == ("Deployment shop (its controller)", "field manager kubectl-client-side-apply")


# --- one writer at a time -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EVERY)
def test_an_object_that_was_edited_since_is_not_written(cluster: Cluster, opened: Open, kind: str) -> None:
    cluster.apply(shop(kind))
    router = opened(kind)
    read = router.get()
    cluster.kubectl("annotate", RESOURCES[kind], "shop", "someone=was here")
    before = stored(cluster, kind)
    with pytest.raises(Busy, match="changed since it was read"):
        router.set(250, resource_version=read.resource_version)
    assert stored(cluster, kind) == before


def test_a_change_between_our_last_look_and_the_write_is_found_by_the_api_server(
    cluster: Cluster, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.apply(shop())
    router = opened()
    read = router.get()
    patch_of = router.form.patch

    def late(body: Any, shares: Any) -> Any:
        cluster.kubectl("annotate", SPLITS, "shop", "someone=was here")
        return patch_of(body, shares)

    monkeypatch.setattr(router.form, "patch", late)
    with pytest.raises(Busy, match="changed since"):
        router.set(250, resource_version=read.resource_version)
    assert live(cluster)[CANARY] == 0


def test_of_two_writers_exactly_one_wins(cluster: Cluster, opened: Open) -> None:
    cluster.apply(shop())
    writers = {100: opened(), 200: opened(), 300: opened()}
    for _ in range(6):
        read = {weight: router.get().resource_version for weight, router in writers.items()}
        assert len(set(read.values())) == 1
        won, lost, together = [], [], threading.Barrier(len(writers))

        def write(weight: int, read=read, won=won, lost=lost, together=together) -> None:
            together.wait()
            try:
                won.append(writers[weight].set(weight, resource_version=read[weight]).weight)
            except Busy:
                lost.append(weight)

        threads = [threading.Thread(target=write, args=(weight,)) for weight in writers]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert (len(won), len(lost)) == (1, 2)
        assert live(cluster)[CANARY] == Fraction(won[0], FULL)


def test_a_reason_to_break_the_glass_is_shown_until_we_write(cluster: Cluster, opened: Open) -> None:
    cluster.apply(shop())
    router = opened()
    assert router.get().break_glass == ""
    patch(cluster, SPLITS, "shop", {"metadata": {"annotations": {BREAK_GLASS: "INC-7: the old one is down"}}})
    assert router.get().break_glass == "INC-7: the old one is down"
    # The next one who moves traffic by hand must not be taken for the one who gave that reason.
    assert send(router, 50).break_glass == ""
    assert BREAK_GLASS not in stored(cluster, "smi")["metadata"]["annotations"]


def test_a_refusal_of_the_policies_is_told_and_nothing_is_written(
    cluster: Cluster, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.apply(shop())
    router = opened()
    # How long approvals are waited for is not what this is about.
    monkeypatch.setattr("parallelchange.adapters.kubernetes.routers.base._BEHIND", 0.5)
    hold_weights(cluster)
    limit(cluster, 50)
    assert send(router, 50).weight == 50
    with pytest.raises(Blocked, match="not approved") as refused:
        send(router, 250)
    assert refused.value.exit_code == 1
    assert live(cluster)[CANARY] == Fraction(50, FULL)


def test_an_approval_that_the_policies_see_a_moment_later_is_waited_for(
    cluster: Cluster, opened: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.apply(shop())
    router = opened()
    # On a slow day the moment is a long one.
    monkeypatch.setattr("parallelchange.adapters.kubernetes.routers.base._BEHIND", 60.0)
    hold_weights(cluster)
    limit(cluster, 0)
    later = threading.Timer(1.0, lambda: patch(cluster, "configmap", "approved", {"data": {"weight": "250"}}))
    later.start()
    try:
        assert send(router, 250).weight == 250
    finally:
        later.join()


def hold_weights(cluster: Cluster) -> None:
    """A policy that refuses a canary weight above what a ConfigMap of this namespace says.

    It stays, and concerns nothing any more once its namespace is gone: without any binding that has a ConfigMap, the
    API server would go by old approvals until it is started anew (kubernetes/kubernetes#130887).
    """
    cluster.kubectl("create", "configmap", "approved", "--from-literal=weight=0")
    api, name = "admissionregistration.k8s.io/v1", f"{cluster.namespace}.routers.test"
    resource = {"apiGroups": ["split.smi-spec.io"], "apiVersions": ["*"], "resources": ["trafficsplits"]}
    here = {"matchLabels": {"kubernetes.io/metadata.name": cluster.namespace}}
    expression = "object.spec.backends.all(b, b.service != 'shop-canary' || b.weight <= int(params.data.weight))"
    policy = {
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "matchConstraints": {"resourceRules": [{**resource, "operations": ["UPDATE"]}], "namespaceSelector": here},
        "validations": [{"expression": expression, "message": "that much is not approved"}],
    }
    approvals = {"name": "approved", "namespace": cluster.namespace, "parameterNotFoundAction": "Deny"}
    binding = {"policyName": name, "validationActions": ["Deny"], "paramRef": approvals}
    kinds = {"ValidatingAdmissionPolicy": policy, "ValidatingAdmissionPolicyBinding": binding}
    cluster.apply(
        [{"apiVersion": api, "kind": kind, "metadata": {"name": name}, "spec": spec} for kind, spec in kinds.items()]
    )


def limit(cluster: Cluster, weight: int) -> None:
    """Approve a weight, and wait until the policy is in force and sees it."""
    patch(cluster, "configmap", "approved", {"data": {"weight": str(weight)}})

    def refused(canary: int) -> bool:
        body = {"spec": {"backends": [{"service": CANARY, "weight": canary}]}}
        given = ("patch", SPLITS, "shop", "--type=merge", "--dry-run=server", f"--patch={json.dumps(body)}")
        return bool(cluster.kubectl(*given, check=False).returncode)

    wait_until(lambda: refused(weight + 1) and not refused(weight), what="the policy")


# --- whose share it is ----------------------------------------------------------------------------------------------


def untold_decision(router: ClusterRouter) -> Any:
    """What would be decided on the split as it stands, all else being well."""
    return decide(PLAN, replace(all_is_well(STAGE_WEIGHT), split=router.get()))


STAGE_WEIGHT = 250


def test_after_a_promotion_the_new_version_has_all_of_it(cluster: Cluster, kubelet: Kubelet, opened: Open) -> None:
    cluster.apply(shop(canary=1000))
    wait_ready(cluster)
    router = opened()
    # What Azure's task does: stable becomes the new version, gets all traffic, and canary and baseline go.
    cluster.kubectl("set", "image", "deployment/shop", f"shop={IMAGES['v2']}")
    assert router.get().weight == 1000
    wait_until(lambda: router.running.look(anew=True).behind(STABLE).version == "v2", what="the new version as stable")
    backends = [{"service": STABLE, "weight": 1000}, {"service": CANARY, "weight": 0}]
    patch(cluster, SPLITS, "shop", {"spec": {"backends": backends}})
    cluster.kubectl("delete", "deployment/shop-canary", f"service/{CANARY}")
    split = router.get()
    assert (split.weight, split.untold) == (1000, "")
    # All of it is what it has: that is written as it stands, and nothing goes to where nothing runs.
    assert send(router, 1000).backends == {STABLE: 1000, CANARY: 0}
    with pytest.raises(Unavailable, match="runs v1"):
        send(router, 0)
    assert live(cluster)[STABLE] == 1


def test_during_a_rolling_update_it_is_untold_whose_share_it_is(
    cluster: Cluster, kubelet: Kubelet, opened: Open
) -> None:
    cluster.apply(shop(canary=STAGE_WEIGHT))
    wait_ready(cluster)
    router = opened()
    assert untold_decision(router).kind is Kind.DO
    # The new pods of stable never become ready: both versions' pods stay behind one Service.
    kubelet.hold(lambda pod: pod["metadata"]["labels"][LAYOUT.label] == "stable")
    kubelet.hold(lambda pod: pod["spec"]["containers"][0]["image"] == IMAGES["v2"])
    cluster.kubectl("set", "image", "deployment/shop", f"shop={IMAGES['v2']}")
    wait_until(lambda: len(cluster.list("pods", f"{LAYOUT.label}=stable")) == 2, what="a pod of each version")
    split = router.get()
    assert split.weight == 1000, "what cannot be told may all be the new version's"
    assert f"{STABLE} runs v1 and v2, and has 75%" in split.untold
    decision = untold_decision(router)
    assert decision.kind is Kind.BLOCKED
    assert "whose traffic it is cannot be told" in decision.why
    with pytest.raises(Unavailable, match=f"{STABLE} runs v1 and v2"):
        send(router, 500)
    kubelet.release()
    cluster.kubectl("rollout", "status", "deployment/shop", "--timeout=60s")
    wait_until(lambda: not router.get().untold, what="the end of the rolling update")
    assert router.get().weight == 1000


def third_version(cluster: Cluster) -> None:
    cluster.kubectl("set", "image", "deployment/shop-canary", f"shop={IMAGES['v3']}")


def no_service(cluster: Cluster) -> None:
    cluster.kubectl("delete", "service", CANARY)


def no_selector(cluster: Cluster) -> None:
    patch(cluster, "service", CANARY, {"spec": {"selector": None}})


def external(cluster: Cluster) -> None:
    patch(cluster, "service", CANARY, {"spec": {"type": "ExternalName", "externalName": "shop.example"}})


def both_in_a_pod(cluster: Cluster) -> None:
    body = deployment(Role.CANARY, "v2")
    body["spec"]["template"]["spec"]["containers"].append({"name": "old", "image": IMAGES["v1"]})
    cluster.apply(body)


def another_app(cluster: Cluster) -> None:
    labels = {"app": "shop", LAYOUT.label: "canary"}
    pod = {
        "metadata": {"name": "debug", "labels": labels},
        "spec": {"containers": [{"name": "sh", "image": "busybox"}]},
    }
    cluster.apply({"apiVersion": "v1", "kind": "Pod", **pod})


def a_slice_by_hand(cluster: Cluster) -> None:
    cluster.apply(
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {"name": "by-hand", "labels": {"kubernetes.io/service-name": CANARY}},
            "addressType": "IPv4",
            "ports": [{"name": "http", "port": 8080}],
            "endpoints": [{"addresses": ["10.1.2.3"]}],
        }
    )


def half_of_it_in_another_namespace(cluster: Cluster) -> None:
    patch(
        cluster,
        SPLITS,
        "shop",
        {"spec": {"backends": [{"service": STABLE, "weight": 3}, {"service": "x", "weight": 1}]}},
    )


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (third_version, f"{CANARY} runs a version that is neither the old nor the new one"),
        (no_service, f"there is no Service {CANARY}"),
        (no_selector, f"{CANARY} has no pod and no Deployment"),
        (external, f"{CANARY} has no pod and no Deployment"),
        (both_in_a_pod, f"{CANARY} runs a version that is neither the old nor the new one"),
        (another_app, f"{CANARY} runs a version that is neither the old nor the new one and v2, and"),
        (a_slice_by_hand, f"{CANARY} leads to more than its pods: EndpointSlice by-hand"),
        (half_of_it_in_another_namespace, "there is no Service x"),
    ],
)
def test_a_share_of_what_is_not_known_is_untold_and_an_abort_takes_it_back(
    cluster: Cluster, opened: Open, spoil: Callable[[Cluster], None], told: str
) -> None:
    cluster.apply(shop(canary=STAGE_WEIGHT))
    router = opened()
    spoil(cluster)
    split = router.get()
    assert split.untold.startswith(told)
    assert split.untold.endswith(", and has 25%")
    assert split.weight == 250
    assert untold_decision(router).kind is Kind.BLOCKED
    before = live(cluster)
    with pytest.raises(Unavailable, match="runs v2"):
        send(router, 500)
    assert live(cluster) == before
    written = send(router, 0)
    assert (written.weight, written.untold) == (0, "")
    assert live(cluster)[STABLE] == 1
    assert router.get().untold == ""


def test_a_version_without_pods_is_told_by_its_deployment(cluster: Cluster, opened: Open) -> None:
    cluster.apply(shop(canary=STAGE_WEIGHT))
    cluster.kubectl("scale", "deployment", "--all", "--replicas=0")
    wait_until(lambda: not cluster.list("pods"), what="the end of the pods")
    split = opened().get()
    assert (split.weight, split.untold) == (250, "")


def test_a_version_without_a_deployment_is_told_by_its_pods(cluster: Cluster, opened: Open) -> None:
    body = deployment(Role.CANARY, "v2")
    pod = {**body["spec"]["template"], "apiVersion": "v1", "kind": "Pod"}
    pod["metadata"] |= {"name": "bare"}
    set_of = deployment(Role.STABLE, "v1") | {"kind": "ReplicaSet"}
    cluster.apply([pod, set_of, *(each for each in shop(canary=STAGE_WEIGHT) if each["kind"] != "Deployment")])
    wait_until(lambda: len(cluster.list("pods")) == 2, what="both pods")
    split = opened().get()
    assert (split.weight, split.untold) == (250, "")
    cluster.kubectl("delete", "pod", "bare", "--force", "--grace-period=0")
    assert opened().get().untold.startswith(f"{CANARY} has no pod and no Deployment")


def test_pods_that_ended_or_are_leaving_are_nobodys(cluster: Cluster, kubelet: Kubelet, opened: Open) -> None:
    labels = {"app": "shop", LAYOUT.label: "canary"}
    job = {"containers": [{"name": "migrate", "image": "migrate:1"}], "restartPolicy": "Never"}
    cluster.apply({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "job", "labels": labels}, "spec": job})
    kubelet.exit_code = lambda _: 0
    wait_until(lambda: cluster.get("pod", "job")["status"]["phase"] == "Succeeded", what="the end of the job")
    cluster.apply(shop(canary=STAGE_WEIGHT))
    assert opened().get().untold == ""

    # Leaving, and kept from going by a finalizer.
    patch_ = {"metadata": {"name": "old", "labels": labels, "finalizers": ["test.example/stay"]}}
    cluster.apply(
        {"apiVersion": "v1", "kind": "Pod", **patch_, "spec": {"containers": [{"name": "x", "image": "x:1"}]}}
    )
    assert opened().get().untold
    cluster.kubectl("delete", "pod", "old", "--wait=false")
    try:
        assert opened().get().untold == ""
    finally:
        patch(cluster, "pod", "old", {"metadata": {"finalizers": None}})


def by_label(**images: str | None) -> Change:
    change = cluster_change()
    old, new = (replace(v, image=images.get(v.name)) for v in change.versions)
    return replace(change, old=old, new=new)


def test_where_no_image_is_named_the_pods_label_tells_the_version(
    cluster: Cluster, kubelet: Kubelet, opened: Open
) -> None:
    objects = shop(canary=STAGE_WEIGHT)
    for body, version in zip(objects[:2], ("v1", "v2"), strict=True):
        body["spec"]["template"]["metadata"]["labels"][VERSION] = version
        body["spec"]["template"]["spec"]["containers"][0]["image"] = "shop:anything"
    cluster.apply(objects)
    assert opened(change=by_label()).get().weight == 250
    # The other one by its image.
    mixed = opened(change=by_label(v1="shop:anything")).get()
    assert mixed.untold.startswith(f"{CANARY} runs a version that is neither"), "it is both: v1's image, v2's label"
    cluster.kubectl("set", "image", "deployment/shop-canary", "shop=shop:other")
    router = opened(change=by_label(v1="shop:anything"))
    wait_until(lambda: not router.get().untold, what="the new pods alone")
    assert router.get().weight == 250


def test_versions_with_the_same_image_are_never_told_apart(cluster: Cluster, opened: Open) -> None:
    objects = shop(canary=STAGE_WEIGHT)
    objects[1]["spec"]["template"]["spec"]["containers"][0]["image"] = IMAGES["v1"]
    cluster.apply(objects)
    split = opened(change=by_label(v1=IMAGES["v1"], v2=IMAGES["v1"])).get()
    assert (split.weight, bool(split.untold)) == (1000, True)


def test_digests_sidecars_and_init_containers(cluster: Cluster, opened: Open) -> None:
    pinned = f"registry.example:5000/shop@sha256:{'ab' * 32}"
    objects = shop(canary=STAGE_WEIGHT)
    for body, image in zip(objects[:2], (IMAGES["v1"], pinned), strict=True):
        spec = body["spec"]["template"]["spec"]
        spec["containers"] = [{"name": "proxy", "image": "proxy:9"}, {**spec["containers"][0], "image": image}]
        # It prepares the database with the new version's tools, and serves nothing.
        spec["initContainers"] = [{"name": "migrate", "image": pinned}]
    cluster.apply(objects)
    split = opened(change=by_label(v1=IMAGES["v1"], v2=pinned)).get()
    assert (split.weight, split.untold) == (250, "")
    # The same digest under another name is another image: what is not said is not guessed.
    other = opened(change=by_label(v1=IMAGES["v1"], v2=f"shop@sha256:{'ab' * 32}")).get()
    assert other.untold.startswith(f"{CANARY} runs a version that is neither")


def with_baseline(weights: dict[str, int], baseline: str = "v1") -> list[dict[str, Any]]:
    split = split_object("smi")[0]
    split["spec"]["backends"] = [{"service": name, "weight": weight} for name, weight in weights.items()]
    body = deployment(Role.BASELINE, baseline)
    return [*shop()[:-1], body, service("shop-baseline", **{LAYOUT.label: "baseline"}), split]


def test_a_baseline_is_the_old_versions_share(cluster: Cluster, kubelet: Kubelet, opened: Open) -> None:
    cluster.apply(with_baseline({STABLE: 900, "shop-baseline": 50, CANARY: 50}))
    wait_ready(cluster, STABLE, CANARY, "shop-baseline")
    router = opened()
    assert router.get().weight == 50
    assert send(router, 50).backends == {STABLE: 900, "shop-baseline": 50, CANARY: 50}, "it has that already"
    assert send(router, 250).backends == {STABLE: 750, "shop-baseline": 0, CANARY: 250}


def test_a_backend_whose_pods_are_down_is_not_left_its_share(cluster: Cluster, kubelet: Kubelet, opened: Open) -> None:
    kubelet.hold(lambda pod: pod["metadata"]["labels"][LAYOUT.label] == "baseline")
    cluster.apply(with_baseline({STABLE: 0, "shop-baseline": 1000, CANARY: 0}))
    wait_ready(cluster)
    router = opened()
    assert send(router, 0).backends == {STABLE: 1000, "shop-baseline": 0, CANARY: 0}
    # Who takes it is who is ready, rather than who is called so.
    kubelet.hold(lambda pod: pod["metadata"]["labels"][LAYOUT.label] == "stable")
    wait_ready(cluster, "shop-baseline")
    wait_until(lambda: opened().running.look().behind(STABLE).ready == 0, what="stable to be down")
    assert send(router, 0).backends == {STABLE: 0, "shop-baseline": 1000, CANARY: 0}


# --- abort ----------------------------------------------------------------------------------------------------------


def all_zero(weights: Any) -> Any:
    return [(name, 0) for name, _ in weights]


def twice(weights: Any) -> Any:
    return [*weights, weights[0], weights[1]]


@pytest.mark.parametrize("kind", ["smi", "gateway-api", "istio", "flagd"])
@pytest.mark.parametrize(("spoil", "told"), [(all_zero, "its weights are all 0"), (twice, "is named twice")])
def test_weights_that_say_nothing_block_and_an_abort_mends_them(
    cluster: Cluster, opened: Open, kind: str, spoil: Callable[[Any], Any], told: str
) -> None:
    cluster.apply(shop(kind, canary=STAGE_WEIGHT))
    put(cluster, kind, spoil([(STABLE, 750), (CANARY, 250)]))
    router = opened(kind)
    split = router.get()
    assert told in split.untold
    assert split.weight == 1000
    assert not router.settled(split)
    assert told in router.problems()[0]
    decision = untold_decision(router)
    assert (decision.kind, told in decision.why) == (Kind.BLOCKED, True)
    with pytest.raises(Unavailable, match=told):
        send(router, 500)
    written = send(router, 0)
    assert (written.weight, written.untold) == (0, "")
    assert live(cluster, kind) == {STABLE: 1, CANARY: 0}


@pytest.mark.parametrize("garbage", ["lots", "", "1_000", "NaN", "Infinity", "-1", "900mm"])
def test_a_weight_that_is_no_quantity_blocks_and_an_abort_mends_it(
    cluster: Cluster, opened: Open, garbage: str
) -> None:
    [split] = split_object("smi")
    split["apiVersion"] = "split.smi-spec.io/v1alpha1"
    split["spec"]["backends"] = [{"service": STABLE, "weight": 750}, {"service": CANARY, "weight": garbage}]
    cluster.apply([*shop()[:-1], split])
    router = opened()
    assert router.get().weight == 1000
    assert untold_decision(router).kind is Kind.BLOCKED
    assert send(router, 0).weight == 0
    assert live(cluster) == {STABLE: 1, CANARY: 0}


@pytest.mark.parametrize(
    ("weight", "total", "canary"),
    [
        ("lots", "1000", None),
        ("1_0", "1000", None),
        (" 5", "1000", None),
        ("-5", "1000", None),
        ("5", "0", None),
        ("1001", "1000", None),
        ("50", "", None),
        ("5", None, 50),
        (None, "1000", 0),
        ("1", "3", 334),
    ],
)
def test_the_annotations_of_nginx_are_read_as_nginx_reads_them(
    cluster: Cluster, opened: Open, weight: str | None, total: str | None, canary: int | None
) -> None:
    cluster.apply(shop("nginx"))
    prefix = "nginx.ingress.kubernetes.io/canary-weight"
    patch(cluster, "ingress", "shop", {"metadata": {"annotations": {prefix: weight, f"{prefix}-total": total}}})
    router = opened("nginx")
    split = router.get()
    assert split.weight == (1000 if canary is None else canary)
    assert bool(split.untold) == (canary is None)
    assert send(router, 0).weight == 0
    assert stored(cluster, "nginx")["metadata"]["annotations"][f"{prefix}-total"] == "1000"


@pytest.mark.parametrize("kind", ["gateway-api", "istio"])
def test_rules_with_different_shares_block_and_an_abort_mends_all_of_them(
    cluster: Cluster, opened: Open, kind: str
) -> None:
    [body] = split_object(kind, canary=100)
    rules = body["spec"]["rules" if kind == "gateway-api" else "http"]
    rules.append(deepcopy(rules[0]))
    (rules[1]["backendRefs"] if kind == "gateway-api" else rules[1]["route"])[1]["weight"] = 1000
    cluster.apply([*shop()[:-1], body])
    router = opened(kind)
    assert "different shares" in router.get().untold
    assert send(router, 0).weight == 0
    found = stored(cluster, kind)["spec"]["rules" if kind == "gateway-api" else "http"]
    for rule in found:
        entries = rule["backendRefs" if kind == "gateway-api" else "route"]
        weights = [entry["weight"] for entry in entries]
        assert weights[1] == 0 < weights[0]


def test_a_root_among_its_own_backends_blocks_and_an_abort_takes_its_share(cluster: Cluster, opened: Open) -> None:
    cluster.apply(shop())
    put(cluster, "smi", [("shop", 500), (STABLE, 500)])
    # Even where the root selects pods of the old version only: a split that leads to itself leads nowhere.
    cluster.kubectl("delete", "deployment", "shop-canary")
    router = opened()
    assert "its root Service shop is one of its backends" in router.get().untold
    assert send(router, 0).weight == 0
    assert live(cluster) == {"shop": 0, STABLE: 1}


def test_backends_of_other_kinds_and_namespaces_are_nobodys(cluster: Cluster, opened: Open) -> None:
    [route] = split_object("gateway-api", canary=100)
    refs = route["spec"]["rules"][0]["backendRefs"]
    refs += [
        {"name": CANARY, "port": 80, "namespace": "elsewhere", "weight": 100},
        {"group": "example.com", "kind": "Bucket", "name": STABLE, "weight": 100},
    ]
    cluster.apply([*shop()[:-1], route])
    router = opened("gateway-api")
    split = router.get()
    assert "there is no Service Service elsewhere/shop-canary" in split.untold
    assert f"there is no Service Bucket {cluster.namespace}/{STABLE}" in split.untold
    assert split.weight == 250, "what they get may be the new version's: 300 of 1200"
    assert send(router, 0).weight == 0
    found = stored(cluster, "gateway-api")["spec"]["rules"][0]["backendRefs"]
    assert [ref["weight"] for ref in found] == [1000, 0, 0, 0]
    assert found[2]["namespace"] == "elsewhere"


def test_subsets_of_a_host_are_not_told_apart(cluster: Cluster, opened: Open) -> None:
    [body] = split_object("istio")
    for item, subset in zip(body["spec"]["http"][0]["route"], ("v1", "v2"), strict=True):
        item["destination"] |= {"host": "shop", "subset": subset}
    cluster.apply([*shop()[:-1], body])
    router = opened("istio")
    assert "give each version a Service of its own" in router.get().untold
    with pytest.raises(Unavailable, match="runs v1"):
        send(router, 0)


def test_no_traffic_goes_back_to_a_backend_that_does_not_run_the_old_version(cluster: Cluster, opened: Open) -> None:
    cluster.apply(shop(canary=STAGE_WEIGHT))
    third_version(cluster)
    cluster.kubectl("set", "image", "deployment/shop", f"shop={IMAGES['v2']}")
    router = opened()
    before = stored(cluster, "smi")
    with pytest.raises(Unavailable, match="/shop runs v1: ") as refused:
        send(router, 0)
    assert STABLE in refused.value.message
    assert "deploy v1" in (refused.value.hint or "")
    assert stored(cluster, "smi") == before


def test_a_sole_backend_keeps_its_traffic_and_cannot_be_split(cluster: Cluster, opened: Open) -> None:
    cluster.apply(shop())
    put(cluster, "smi", [(STABLE, 1)])
    router = opened()
    assert router.get().weight == 0
    assert send(router, 0).backends == {STABLE: 1000}
    with pytest.raises(Unavailable, match="/shop runs v2: "):
        send(router, 50)
    assert live(cluster) == {STABLE: 1}


def flag(**changes: Any) -> dict[str, Any]:
    return {"spec": {"flagSpec": {"flags": {"shop": changes}}}}


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (flag(state="DISABLED"), "is not ENABLED"),
        (flag(targeting={"if": [True, "canary"], "fractional": None}), "something else than one `fractional`"),
        (flag(targeting={"fractional": []}), "no list of variants and weights"),
        (flag(targeting={"fractional": [["stable", 1], "canary"]}), "no list of variants and weights"),
        (flag(targeting={"fractional": [["stable", 1], ["gold", 1]]}), "no variant gold"),
        (flag(variants={"canary": None}), "no variant canary"),
        (flag(targeting={"fractional": [["stable", "1"], ["canary", None]]}), "no number"),
        (flag(targeting={"fractional": [["stable", 1], ["canary", {"var": "x"}]]}), "no number"),
        (flag(targeting={"fractional": [["stable", 1], ["canary", True]]}), "no number"),
    ],
)
def test_a_flag_that_decides_by_something_else_has_no_share(
    cluster: Cluster, opened: Open, changes: dict[str, Any], told: str
) -> None:
    cluster.apply(shop("flagd"))
    patch(cluster, "featureflag", "shop", changes)
    split = opened("flagd").get()
    assert told in split.untold
    assert split.weight == 1000


# --- which object it is ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EVERY)
def test_a_split_that_is_not_there_is_said_to_be_missing(cluster: Cluster, opened: Open, kind: str) -> None:
    objects = [
        each for each in shop(kind) if each["metadata"]["name"] != "shop" or each["kind"] in ("Deployment", "Service")
    ]
    cluster.apply(objects)
    router = opened(kind)
    for ask in (router.get, router.problems, lambda: router.set(0, resource_version="1")):
        with pytest.raises(NotFound, match=f"no {router.form.kind.name} in {cluster.namespace}") as missing:
            ask()
        assert "emit kubernetes" in (missing.value.hint or "")


@pytest.mark.parametrize("kind", EVERY)
def test_two_splits_of_one_service_are_not_chosen_between(cluster: Cluster, opened: Open, kind: str) -> None:
    cluster.apply([*shop(kind), *split_object(kind, name="other", canary=500)])
    router = opened(kind)
    for ask in (router.get, lambda: router.set(0, resource_version="1")):
        with pytest.raises(Unavailable, match="which one counts cannot be told") as several:
            ask()
        assert f"{router.form.kind.name} {cluster.namespace}/other" in several.value.message
        assert f"{router.form.kind.name} {cluster.namespace}/shop" in several.value.message


def test_another_route_of_the_service_counts_even_when_it_leads_elsewhere(cluster: Cluster, opened: Open) -> None:
    [other] = split_object("gateway-api", name="other")
    other["spec"]["rules"] = [{"backendRefs": [{"name": "legacy", "port": 80}]}]
    cluster.apply([*shop("gateway-api"), other])
    with pytest.raises(Unavailable, match="which one counts cannot be told"):
        opened("gateway-api").get()


@pytest.mark.parametrize("kind", ["smi", "gateway-api", "istio"])
def test_a_split_of_another_service_is_none_of_ours(cluster: Cluster, opened: Open, kind: str) -> None:
    text = json.dumps(split_object(kind, name="cart", canary=500)).replace("shop", "cart")
    cluster.apply([*shop(kind, canary=50), *json.loads(text)])
    assert opened(kind).get().weight == 50


def served(cluster: Cluster, crd: str, *versions: str) -> None:
    """Serve these versions of a custom resource and no others, and wait until it is so."""
    body = json.loads(cluster.kubectl("get", "crd", crd, "--output=json").stdout)
    group, names = body["spec"]["group"], [version["name"] for version in body["spec"]["versions"]]
    changes = [
        {"op": "replace", "path": f"/spec/versions/{i}/served", "value": name in versions}
        for i, name in enumerate(names)
    ]
    patch(cluster, "crd", crd, changes, "json")

    def answers(version: str) -> bool:
        path = f"/apis/{group}/{version}/{crd.partition('.')[0]}"
        return not cluster.kubectl("get", "--raw", path, check=False).returncode

    def told(version: str) -> bool:
        found = cluster.kubectl("get", "--raw", f"/apis/{group}/{version}", check=False).stdout
        return any(item["name"] == crd.partition(".")[0] for item in json.loads(found or "{}").get("resources", ()))

    for what in (answers, told):
        wait_until(lambda what=what: {name for name in names if what(name)} == set(versions), what=f"{versions} alone")


def test_a_version_that_ceases_to_be_served_is_left_for_one_that_is(cluster: Cluster, opened: Open) -> None:
    cluster.apply(shop(canary=50))
    router = opened()
    assert router.form.served().version == "v1alpha4"
    crd = "trafficsplits.split.smi-spec.io"
    try:
        served(cluster, crd, "v1alpha1")
        assert router.get().weight == 50
        assert send(router, 125).weight == 125
        assert router.form.served().version == "v1alpha1"
        served(cluster, crd)
        for ask in (router.get, opened().get, lambda: router.set(0, resource_version="1")):
            with pytest.raises(NotFound, match="serves no version of trafficsplits") as none:
                ask()
            assert "CRD" in (none.value.hint or "")
    finally:
        served(cluster, crd, "v1alpha1", "v1alpha2", "v1alpha3", "v1alpha4")
    assert router.get().weight == 125, "it goes on by itself"


@pytest.mark.parametrize("kind", ["gateway-api", "istio", "flagd"])
def test_without_its_custom_resource_a_router_says_so(cluster: Cluster, opened: Open, kind: str) -> None:
    crd = RESOURCES[kind]
    body = json.loads(cluster.kubectl("get", "crd", crd, "--output=json").stdout)
    versions = [version["name"] for version in body["spec"]["versions"]]
    try:
        served(cluster, crd)
        with pytest.raises(NotFound, match=f"serves no version of {crd}"):
            opened(kind).get()
    finally:
        served(cluster, crd, *versions)


# --- whether the mesh follows ---------------------------------------------------------------------------------------


def test_a_route_is_settled_once_every_parent_has_accepted_this_very_version(cluster: Cluster, opened: Open) -> None:
    [route] = split_object("gateway-api")
    route["spec"]["parentRefs"].append({"name": "edge"})
    cluster.apply([*shop("gateway-api")[:-1], route])
    router = opened("gateway-api")
    split = send(router, 250)
    assert not router.settled(split)
    accept_route(cluster, kinds=("Service",))
    assert not router.settled(split), "the Gateway has said nothing"
    accept_route(cluster)
    # Controllers write their answer into the object, which makes it a new version of it.
    assert stored(cluster, "gateway-api")["metadata"]["resourceVersion"] != split.resource_version
    assert router.settled(split)
    accept_route(cluster, status="False")
    assert not router.settled(split)
    accept_route(cluster, type="ResolvedRefs", status="False")
    assert not router.settled(split), "it is accepted, and a backend is not found"
    accept_route(cluster)
    assert router.settled(split)
    later = send(router, 500)
    assert not router.settled(later), "what was accepted is the version before"
    assert not router.settled(split), "and that is not what stands"


def profile(cluster: Cluster, weights: dict[str, Any], **annotations: str) -> dict[str, Any]:
    host = f"{cluster.namespace}.svc.cluster.local"
    overrides = [{"authority": f"{name}.{host}:80", "weight": weight} for name, weight in weights.items()]
    return {
        "apiVersion": "linkerd.io/v1alpha2",
        "kind": "ServiceProfile",
        "metadata": {
            "name": f"shop.{host}",
            "annotations": {f"smi.linkerd.io/{key}": text for key, text in annotations.items()},
        },
        "spec": {"dstOverrides": overrides},
    }


@pytest.mark.parametrize(
    ("weights", "follows"),
    [
        ({}, False),
        ({STABLE: 750, CANARY: 250}, True),
        ({STABLE: "750m", CANARY: "250m"}, True),
        ({STABLE: 3, CANARY: 1}, True),
        ({STABLE: 750}, False),
        ({STABLE: 250, CANARY: 750}, False),
        ({STABLE: 0, CANARY: 0}, False),
        ({STABLE: 750, CANARY: 250, "shop-baseline": 1}, False),
        ({STABLE: 750, CANARY: 250, "shop-baseline": 0}, True),
        ({STABLE: "many", CANARY: 250}, False),
        ({STABLE: 750, f"{CANARY}.elsewhere": 250}, False),
    ],
)
def test_linkerd_follows_when_its_profile_has_the_same_shares(
    cluster: Cluster, opened: Open, weights: dict[str, Any], follows: bool
) -> None:
    cluster.apply(shop(canary=STAGE_WEIGHT))
    router = opened()
    split = router.get()
    assert not router.settled(split), "there is no profile yet"
    body = profile(cluster, weights)
    for item in body["spec"]["dstOverrides"]:
        item["authority"] = item["authority"].replace(f".elsewhere.{cluster.namespace}", ".elsewhere")
    cluster.apply(body)
    assert router.settled(split) is follows


def test_where_no_linkerd_is_served_there_is_nothing_to_wait_for(cluster: Cluster, opened: Open) -> None:
    cluster.apply(shop(canary=STAGE_WEIGHT))
    router = opened()
    try:
        served(cluster, "serviceprofiles.linkerd.io")
        assert router.settled(router.get())
        assert router.problems()
    finally:
        served(cluster, "serviceprofiles.linkerd.io", "v1alpha2")
    assert not router.settled(router.get())


@pytest.mark.parametrize("kind", ["nginx", "istio", "flagd"])
def test_what_stands_is_settled_only_while_it_stands(cluster: Cluster, opened: Open, kind: str) -> None:
    cluster.apply(shop(kind))
    router = opened(kind)
    split = send(router, 250)
    assert router.settled(split)
    put(cluster, kind, [(STABLE, 50), (CANARY, 50)])
    assert not router.settled(split)


# --- whether the backends could take it -----------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EVERY)
def test_nothing_stands_against_a_shop_that_is_well(
    cluster: Cluster, kubelet: Kubelet, opened: Open, kind: str
) -> None:
    cluster.apply(shop(kind))
    wait_ready(cluster)
    assert opened(kind).problems() == ()


def held(cluster: Cluster, kubelet: Kubelet) -> None:
    kubelet.hold(lambda pod: pod["metadata"]["labels"][LAYOUT.label] == "canary")
    wait_until(lambda: not ready(cluster, CANARY), what="the canary to be down")


def ready(cluster: Cluster, name: str) -> bool:
    slices = cluster.list("endpointslices", f"kubernetes.io/service-name={name}")
    return any(e["conditions"]["ready"] for s in slices for e in s.get("endpoints") or ())


def port_that_pods_lack(cluster: Cluster, kubelet: Kubelet) -> None:
    patch(
        cluster, "service", CANARY, {"spec": {"ports": [{"name": "http", "port": 80, "targetPort": "grpc"}]}}, "merge"
    )
    wait_until(
        lambda: any(s.get("endpoints") and not s.get("ports") for s in slices_of(cluster, CANARY)),
        what="endpoints without ports",
    )


def slices_of(cluster: Cluster, name: str) -> list[dict[str, Any]]:
    return cluster.list("endpointslices", f"kubernetes.io/service-name={name}")


def port_of_the_root(cluster: Cluster, kubelet: Kubelet) -> None:
    ports = [{"name": "http", "port": 80, "targetPort": "http"}, {"name": "admin", "port": 9000, "targetPort": "http"}]
    patch(cluster, "service", "shop", {"spec": {"ports": ports}})


def no_root(cluster: Cluster, kubelet: Kubelet) -> None:
    cluster.kubectl("delete", "service", "shop")


def same_pods(cluster: Cluster, kubelet: Kubelet) -> None:
    # It takes the canary's pods, in a namespace where stable runs nothing of its own.
    patch(cluster, "service", STABLE, {"spec": {"selector": {LAYOUT.label: "canary"}}})


def nothing_new(cluster: Cluster, kubelet: Kubelet) -> None:
    third_version(cluster)


def skipped(cluster: Cluster, kubelet: Kubelet) -> None:
    cluster.apply(profile(cluster, {STABLE: 1}, skip="true"))


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (held, f"Service {CANARY}: no pod of v2 is ready"),
        (port_that_pods_lack, f"Service {CANARY} has no ready endpoint"),
        (port_of_the_root, f"Service {CANARY} has no port 9000, which Service shop has"),
        (no_root, "there is no root Service shop"),
        (same_pods, f"Services {STABLE} and {CANARY} select the same pods: their shares cannot be told apart"),
        (nothing_new, "no backend of Service shop runs v2 and nothing else"),
        (skipped, "is annotated smi.linkerd.io/skip: Linkerd routes by it and not by the TrafficSplit"),
    ],
)
def test_what_stands_against_more_traffic_is_told(
    cluster: Cluster, kubelet: Kubelet, opened: Open, spoil: Callable[[Cluster, Kubelet], None], told: str
) -> None:
    cluster.apply(shop())
    wait_ready(cluster)
    router = opened()
    assert router.problems() == ()
    spoil(cluster, kubelet)
    found = opened().problems()
    assert any(told in problem for problem in found), found
    decision = decide(PLAN, replace(all_is_well(STAGE_WEIGHT), routing=found))
    assert (decision.kind, decision.gates) == (Kind.BLOCKED, ("routing",))


def test_with_all_traffic_on_the_new_version_nothing_old_need_be_ready(
    cluster: Cluster, kubelet: Kubelet, opened: Open
) -> None:
    cluster.apply(shop(canary=1000))
    wait_ready(cluster)
    cluster.kubectl("scale", "deployment/shop", "--replicas=0")
    wait_until(lambda: not ready(cluster, STABLE), what="stable to be gone")
    assert opened().problems() == ()
    put(cluster, "smi", [(STABLE, 1), (CANARY, 99999)])
    assert opened().problems() == (f"Service {STABLE}: no pod of v1 is ready",), "some of it is still the old one's"


def test_a_profile_that_is_left_over_overrides_a_route(cluster: Cluster, kubelet: Kubelet, opened: Open) -> None:
    cluster.apply([*shop("gateway-api"), profile(cluster, {})])
    wait_ready(cluster)
    name = f"ServiceProfile {cluster.namespace}/shop.{cluster.namespace}.svc.cluster.local"
    assert opened("gateway-api").problems() == (f"{name} is left over, and overrides the HTTPRoute: delete it",)
    # Only meshes go by profiles, and a Gateway is none.
    patch(cluster, "httproute", "shop", {"spec": {"parentRefs": [{"name": "edge"}]}})
    assert opened("gateway-api").problems() == ()


def by_header(cluster: Cluster) -> str:
    key = "nginx.ingress.kubernetes.io/canary-by-header"
    cluster.kubectl("annotate", "ingress", "shop", f"{key}=x-canary")
    return f"Ingress {cluster.namespace}/shop has {key}, which sends traffic beside the weight"


def mirrored_by_nginx(cluster: Cluster) -> str:
    key = "nginx.ingress.kubernetes.io/mirror-target"
    cluster.kubectl("annotate", "ingress", "shop-main", f"{key}=http://{CANARY}")
    return f"Ingress {cluster.namespace}/shop-main has {key}, which sends traffic beside the weight"


def another_path(cluster: Cluster) -> str:
    path = {"path": "/admin", "pathType": "Prefix", "backend": {"service": {"name": STABLE, "port": {"number": 80}}}}
    patch(cluster, "ingress", "shop-main", [{"op": "add", "path": "/spec/rules/0/http/paths/-", "value": path}], "json")
    return f"Ingress {cluster.namespace}/shop and its main Ingress differ in shop.example/admin"


def another_host(cluster: Cluster) -> str:
    patch(cluster, "ingress", "shop", [{"op": "replace", "path": "/spec/rules/0/host", "value": "x.example"}], "json")
    return f"Ingress {cluster.namespace}/shop and its main Ingress differ in shop.example/"


def mirrored_by_istio(cluster: Cluster) -> str:
    mirror = {"host": f"{CANARY}.{cluster.namespace}.svc.cluster.local"}
    patch(cluster, RESOURCES["istio"], "shop", [{"op": "add", "path": "/spec/http/0/mirror", "value": mirror}], "json")
    return f"VirtualService {cluster.namespace}/shop mirrors traffic to {CANARY}"


def mirrored_from_elsewhere(cluster: Cluster) -> str:
    mirrors = [{"destination": {"host": CANARY}, "percentage": {"value": 100}}]
    entry = {"route": [{"destination": {"host": "cart"}}], "mirrors": mirrors}
    patch(cluster, RESOURCES["istio"], "shop", [{"op": "add", "path": "/spec/http/-", "value": entry}], "json")
    return f"VirtualService {cluster.namespace}/shop mirrors traffic to {CANARY}"


def tcp(cluster: Cluster) -> str:
    patch(cluster, RESOURCES["istio"], "shop", {"spec": {"tcp": [{"route": [{"destination": {"host": CANARY}}]}]}})
    return f"VirtualService {cluster.namespace}/shop routes tcp to backends of shop as well"


def mirrored_by_a_rule(cluster: Cluster) -> str:
    filters = [{"type": "RequestMirror", "requestMirror": {"backendRef": {"name": CANARY, "port": 80}}}]
    patch(cluster, "httproute", "shop", [{"op": "add", "path": "/spec/rules/0/filters", "value": filters}], "json")
    return f"HTTPRoute {cluster.namespace}/shop mirrors traffic to {CANARY}"


def canary_by_default(cluster: Cluster) -> str:
    patch(cluster, "featureflag", "shop", flag(defaultVariant="canary"))
    return f"FeatureFlag {cluster.namespace}/shop: the default variant is canary, not stable"


@pytest.mark.parametrize(
    ("kind", "spoil"),
    [
        ("nginx", by_header),
        ("nginx", mirrored_by_nginx),
        ("nginx", another_path),
        ("nginx", another_host),
        ("istio", mirrored_by_istio),
        ("istio", mirrored_from_elsewhere),
        ("istio", tcp),
        ("gateway-api", mirrored_by_a_rule),
        ("flagd", canary_by_default),
    ],
)
def test_what_sends_traffic_beside_the_weight_is_told(
    cluster: Cluster, opened: Open, kind: str, spoil: Callable[[Cluster], str]
) -> None:
    cluster.apply(shop(kind))
    router = opened(kind)
    before = set(router.problems())
    told = spoil(cluster)
    found = set(router.problems()) - before
    assert any(problem.startswith(told) for problem in found), found
    assert kind == "nginx" or len(found) == 1


def test_an_ingress_is_a_canary_in_every_way_go_writes_true(cluster: Cluster, opened: Open) -> None:
    cluster.apply(shop("nginx", canary=50))
    router = opened("nginx")
    for true in ("1", "t", "T", "TRUE", "True"):
        cluster.kubectl("annotate", "--overwrite", "ingress", "shop", f"nginx.ingress.kubernetes.io/canary={true}")
        assert router.get().weight == 50
    cluster.kubectl("annotate", "--overwrite", "ingress", "shop", "nginx.ingress.kubernetes.io/canary=yes")
    with pytest.raises(NotFound, match="is the canary of"):
        router.get()
