"""The routers' pure parts: from weights to shares and back, whose share is whose, and what stands against more."""

from __future__ import annotations

import json
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest
from helpers.app import CANARY, IMAGES, LAYOUT, STABLE, cluster_change, deployment, service, split_object
from hypothesis import assume, given
from hypothesis import strategies as st

from parallelchange.adapters.kubernetes.failures import away, is_transient, refused
from parallelchange.adapters.kubernetes.kinds import EVENT, NAMESPACE, TRAFFIC_SPLIT
from parallelchange.adapters.kubernetes.preflight import problems
from parallelchange.adapters.kubernetes.routers import ROUTERS, ClusterRouter
from parallelchange.adapters.kubernetes.routers.form import Form
from parallelchange.adapters.kubernetes.routers.shares import number, shares_of, thousandths, weighted
from parallelchange.adapters.kubernetes.running import Behind, Namespace, backend_names, matches
from parallelchange.errors import (
    Blocked,
    Busy,
    Denied,
    NotFound,
    ParallelChangeError,
    Unavailable,
    Uncertain,
)
from parallelchange.layout import Role
from parallelchange.model import FULL

BASELINE = "shop-baseline"
BACKENDS = (STABLE, BASELINE, CANARY)
MANY = st.integers(0, 10**6)
weights = st.lists(MANY, min_size=1, max_size=5).filter(any)
shares_in_thousandths = st.integers(0, FULL)


class NoCluster:
    """Answers what a form asks of the API server besides its object."""

    namespace = "shop-test"
    name = "no cluster"

    def __init__(self, weight: Mapping[str, Any]) -> None:
        items = {"type": "array", "items": {"type": "object", "properties": {"weight": weight}}}
        spec = {"type": "object", "properties": {"backends": items}}
        kind = {"group": "split.smi-spec.io", "version": "v1alpha4", "kind": "TrafficSplit"}
        self.schema = {"x-kubernetes-group-version-kind": [kind], "properties": {"spec": spec}}

    def request(self, *_: Any) -> Any:
        return {"components": {"schemas": {"TrafficSplit": self.schema}}}

    def full(self, kind: Any, name: str) -> str:
        return f"{kind.name} {self.namespace}/{name}"


def form_of(kind: str, weight: Mapping[str, Any] | None = None) -> Any:
    form: Any = ROUTERS[kind](NoCluster(weight or {"type": "number"}), "shop")  # type: ignore[arg-type]
    form._served = TRAFFIC_SPLIT.at("v1alpha4")
    return form


def body_of(kind: str, form: Any, canary: int = 0) -> Any:
    """The object that splits the traffic, as `find` gives it."""
    *main, body = split_object(kind, canary=canary)
    if main:
        form._main = tuple(main)
    return body


def merged(body: Any, patch: Any) -> Any:
    """A JSON merge patch, carried out (RFC 7386)."""
    if not isinstance(patch, dict):
        return patch
    result = dict(body) if isinstance(body, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merged(result.get(key), value)
    return result


# --- weights and shares ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("weight", "value"),
    [
        (0, 0),
        (900, 900),
        (0.1, Fraction(1, 10)),
        (1e-7, Fraction(1, 10**7)),
        ("900m", Fraction(9, 10)),
        ("1", 1),
        ("1.5", Fraction(3, 2)),
        (".5", Fraction(1, 2)),
        ("5.", 5),
        ("+3", 3),
        ("-3", -3),
        ("2k", 2000),
        ("1Ki", 1024),
        ("1e3", 1000),
        ("1E-3", Fraction(1, 1000)),
        ("1E", 10**18),
        ("100u", Fraction(1, 10**4)),
    ],
)
def test_a_weight_is_a_number_or_a_quantity(weight: Any, value: Any) -> None:
    assert number(weight) == value


@pytest.mark.parametrize(
    "weight",
    [
        *(None, True, False, [], {}, float("nan"), float("inf")),
        *("", " ", "lots", "1_000", " 1", "1 ", "1\n", "1K", "1e", "٣", "½", "NaN", "nan", "inf", "Infinity"),
        *("1e999999999", "0x10", "1,5", "--1", "900mm", "1 m"),
    ],
)
def test_what_kubernetes_takes_for_no_quantity_is_none_here(weight: Any) -> None:
    with pytest.raises(ValueError, match="is no number and no quantity"):
        number(weight)


@given(st.text(max_size=12) | st.floats() | st.integers() | st.none() | st.booleans())
def test_whatever_a_weight_is_it_is_read_exactly_or_refused(weight: Any) -> None:
    try:
        value = number(weight)
    except ValueError:
        return
    assert not isinstance(weight, bool | None)
    if not isinstance(weight, str):
        assert value == Fraction(str(weight))


@given(weights, st.integers(1, 10**6))
def test_shares_add_up_to_one_and_only_their_ratio_counts(values: list[int], factor: int) -> None:
    rule = [(str(i), value) for i, value in enumerate(values)]
    shares = shares_of([rule])
    assert sum(shares.values()) == 1
    assert shares == {name: Fraction(value, sum(values)) for name, value in rule}
    assert shares == shares_of([[(name, value * factor) for name, value in rule]])
    assert shares == shares_of([[(name, f"{value}m") for name, value in rule]])
    assert shares == shares_of([rule, rule[::-1]])
    # What a rule leaves out has nothing there.
    assert shares == {**shares_of([rule, [item for item in rule if item[1]]])}


@given(weights, weights)
def test_rules_that_differ_have_no_share(one: list[int], other: list[int]) -> None:
    rules = [[(str(i), value) for i, value in enumerate(values)] for values in (one, other)]
    each = [{name: share for name, share in shares_of([rule]).items() if share} for rule in rules]
    assume(each[0] != each[1])
    with pytest.raises(ValueError, match="different shares"):
        shares_of(rules)


@pytest.mark.parametrize(
    ("rules", "told"),
    [
        ([], "it has no backend"),
        ([[]], "it has no backend"),
        ([[("a", 1)], []], "it has no backend"),
        ([[("a", 0), ("b", 0)]], "its weights are all 0"),
        ([[("a", 1)], [("a", 0)]], "its weights are all 0"),
        ([[("a", -1), ("b", 2)]], "the weight of a is below 0"),
        ([[("a", 1), ("b", 1), ("a", 1)]], "backend a is named twice"),
        ([[("a", "x")]], "the weight 'x' is no number and no quantity"),
    ],
)
def test_why_no_share_can_be_told(rules: Any, told: str) -> None:
    with pytest.raises(ValueError, match=f"^{told}$"):
        shares_of(rules)


@given(st.fractions(0, 1))
def test_a_share_is_told_no_smaller_than_it_is_and_all_of_it_only_when_it_is(share: Fraction) -> None:
    told = thousandths(share)
    assert (told == FULL) == (share == 1)
    assert (told == 0) == (share == 0)
    assert told >= share * FULL or told == FULL - 1
    assert told - share * FULL < 1


@given(st.fractions(0, 1), st.fractions(0, 1))
def test_a_larger_share_is_told_no_smaller(one: Fraction, other: Fraction) -> None:
    assert (one <= other) <= (thousandths(one) <= thousandths(other))


def test_an_item_that_is_there_twice_is_left_once_and_a_stranger_gets_nothing() -> None:
    items = [("a", 1), ("b", 2), ("a", 3)]
    assert weighted(items, lambda item: item[0], {"a": 250}) == [(("a", 1), 250), (("b", 2), 0)]


# --- the forms ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ROUTERS)
@given(before=shares_in_thousandths, after=shares_in_thousandths)
def test_what_a_form_writes_it_reads(kind: str, before: int, after: int) -> None:
    form = form_of(kind)
    body = body_of(kind, form, before)
    assert form.shares(body) == {STABLE: Fraction(FULL - before, FULL), CANARY: Fraction(before, FULL)}
    assert set(form.backends(body)) == {STABLE, CANARY}
    kept = deepcopy(body)
    patch = form.patch(body, {STABLE: FULL - after, CANARY: after})
    assert body == kept, "what was read is left as it is"
    assert json.loads(json.dumps(patch)) == patch
    written = merged(body, patch)
    assert form.shares(written) == {STABLE: Fraction(FULL - after, FULL), CANARY: Fraction(after, FULL)}
    assert form.patch(written, {STABLE: FULL - after, CANARY: after}) == patch, "once more changes nothing"


@pytest.mark.parametrize(
    ("schema", "written"),
    [
        ({"type": "number"}, [875, 125]),
        ({"type": "integer"}, [875, 125]),
        ({"x-kubernetes-int-or-string": True}, [875, 125]),
        ({}, [875, 125]),
        ({"type": "string"}, ["875m", "125m"]),
    ],
)
def test_a_split_is_written_as_its_schema_has_it(schema: dict[str, Any], written: list[Any]) -> None:
    form = form_of("smi", schema)
    patch = form.patch(body_of("smi", form), {STABLE: 875, CANARY: 125})
    assert [item["weight"] for item in patch["spec"]["backends"]] == written


@pytest.mark.parametrize(
    ("weights_", "written"), [([1000, 0], [875, 125]), (["1000m", "0"], ["875m", "125m"]), (["1", 0], [875, 125])]
)
def test_while_no_schema_is_published_it_is_written_as_it_is(weights_: list[Any], written: list[Any]) -> None:
    form = form_of("smi")
    form.cluster.schema = {}
    body = body_of("smi", form)
    for item, weight in zip(body["spec"]["backends"], weights_, strict=True):
        item["weight"] = weight
    patch = form.patch(body, {STABLE: 875, CANARY: 125})
    assert [item["weight"] for item in patch["spec"]["backends"]] == written


def test_istio_gets_percent_where_that_is_exact() -> None:
    form = form_of("istio")
    body = body_of("istio", form)

    def written(canary: int) -> list[int]:
        patch = form.patch(body, {STABLE: FULL - canary, CANARY: canary})
        return [item["weight"] for item in patch["spec"]["http"][0]["route"]]

    assert [written(canary) for canary in (50, 125, 1000)] == [[95, 5], [875, 125], [0, 100]]


@pytest.mark.parametrize(
    ("host", "backend"),
    [
        (CANARY, CANARY),
        (f"{CANARY}.shop-test", CANARY),
        (f"{CANARY}.shop-test.svc", CANARY),
        (f"{CANARY}.shop-test.svc.cluster.local", CANARY),
        (f"{CANARY}.elsewhere", f"{CANARY}.elsewhere"),
        (f"{CANARY}.elsewhere.svc.cluster.local", f"{CANARY}.elsewhere.svc.cluster.local"),
    ],
)
def test_a_host_is_a_service_of_this_namespace_or_none_of_ours(host: str, backend: str) -> None:
    form = form_of("istio")
    body = body_of("istio", form, 100)
    body["spec"]["http"][0]["route"][1]["destination"]["host"] = host
    assert form.shares(body)[backend] == Fraction(1, 10)


@pytest.mark.parametrize(
    ("reference", "backend"),
    [
        ({}, CANARY),
        ({"kind": "Service", "group": ""}, CANARY),
        ({"kind": "Service", "group": "core"}, CANARY),
        ({"namespace": "shop-test"}, CANARY),
        ({"namespace": "elsewhere"}, f"Service elsewhere/{CANARY}"),
        ({"kind": "ServiceImport", "group": "multicluster.x-k8s.io"}, f"ServiceImport shop-test/{CANARY}"),
        ({"kind": "Service", "group": "example.com"}, f"Service shop-test/{CANARY}"),
    ],
)
def test_a_reference_is_a_service_of_this_namespace_or_none_of_ours(reference: dict[str, Any], backend: str) -> None:
    form = form_of("gateway-api")
    body = body_of("gateway-api", form, 100)
    body["spec"]["rules"][0]["backendRefs"][1] |= reference
    assert form.shares(body)[backend] == Fraction(1, 10)


@pytest.mark.parametrize("kind", ["gateway-api", "istio"])
def test_a_weight_that_is_left_out_is_what_the_mesh_makes_of_it(kind: str) -> None:
    form = form_of(kind)
    body = body_of(kind, form, 500)
    rule = body["spec"]["rules" if kind == "gateway-api" else "http"][0]
    entries = rule["backendRefs" if kind == "gateway-api" else "route"]
    entries[0]["weight"] = 3
    del entries[1]["weight"]
    # Gateway API: 1. Istio: 0, unless it is alone.
    assert form.shares(body)[CANARY] == (Fraction(1, 4) if kind == "gateway-api" else 0)
    del entries[1]
    del entries[0]["weight"]
    assert form.shares(body) == {STABLE: 1}


def test_a_flag_needs_no_bucket_and_a_pair_no_weight() -> None:
    form = form_of("flagd")
    body = body_of("flagd", form)
    body["spec"]["flagSpec"]["flags"]["shop"]["targeting"] = {"fractional": [["stable"], ["canary", 3]]}
    assert form.shares(body)[CANARY] == Fraction(3, 4)
    patch = form.patch(body, {STABLE: 900, CANARY: 100})
    written = patch["spec"]["flagSpec"]["flags"]["shop"]["targeting"]
    assert written == {"fractional": [["stable", 900], ["canary", 100]]}


def test_backends_are_told_whatever_their_weights_are() -> None:
    form = form_of("smi")
    body = body_of("smi", form)
    body["spec"]["backends"] = [
        {"service": "shop", "weight": 1},
        {"service": STABLE, "weight": "lots"},
        {"service": CANARY, "weight": -1},
        {"service": STABLE, "weight": 0},
        {"weight": 5},
    ]
    assert form.backends(body) == (STABLE, CANARY, "")
    written = merged(body, form.patch(body, {STABLE: 1000, CANARY: 0, "": 0}))
    assert form.shares(written) == {STABLE: 1, CANARY: 0, "": 0}


def test_every_router_has_a_form_of_its_own_kind() -> None:
    kinds = [form.kind for form in ROUTERS.values()]
    assert len(set(kinds)) == len(ROUTERS)
    assert all(issubclass(form, Form) for form in ROUTERS.values())


# --- whose share it is, and who gets the next one ------------------------------------------------------------------


def namespace(runs: Mapping[str, str | None], *, ready: Mapping[str, bool] | None = None) -> Namespace:
    """Services that each select pods of one version; of several, joined by `+`; of none where it is None."""
    pods = []
    for name, versions in runs.items():
        for number_, version in enumerate(versions.split("+") if versions else ()):
            status = "True" if (ready or {}).get(name, True) else "False"
            pods.append(
                {
                    "metadata": {"name": f"{name}-{number_}", "labels": {"behind": name, "app": "shop"}},
                    "spec": {"containers": [{"name": "shop", "image": IMAGES[version]}]},
                    "status": {"conditions": [{"type": "Ready", "status": status}]},
                }
            )
    services = {}
    for name in runs:
        services[name] = service(name)
        services[name]["spec"]["selector"] = {"behind": name}
    return Namespace(cluster_change(), tuple(pods), services, {}, ())


def router_on(kind: str = "smi") -> ClusterRouter:
    form = form_of(kind)
    return ClusterRouter(cluster_change(), form.cluster, None, form)  # type: ignore[arg-type]


runs = st.fixed_dictionaries(
    {name: st.sampled_from([None, "v1", "v2", "v3", "v1+v2", "v1+v3", "v2+v2"]) for name in BACKENDS}
)
readiness = st.fixed_dictionaries({name: st.booleans() for name in BACKENDS})
live_weights = st.lists(MANY, min_size=3, max_size=3).filter(any)


@given(runs, readiness, live_weights, shares_in_thousandths)
def test_shares_go_to_backends_that_surely_run_the_version_and_to_nobody_else(
    behind: dict[str, str | None], ready: dict[str, bool], values: list[int], weight: int
) -> None:
    seen, router = namespace(behind, ready=ready), router_on()
    total = sum(values)
    live = {name: Fraction(value, total) for name, value in zip(BACKENDS, values, strict=True)}
    versions = {name: seen.behind(name).version for name in BACKENDS}
    needed = [version for version, share in (("v1", FULL - weight), ("v2", weight)) if share]
    if any(version not in versions.values() for version in needed):
        with pytest.raises(Unavailable, match="no backend of Service"):
            router._targets(weight, live, seen)
        return
    targets = router._targets(weight, live, seen)
    assert set(targets) == set(BACKENDS)
    assert all(isinstance(share, int) and share >= 0 for share in targets.values())
    by_version = {
        version: sum(t for name, t in targets.items() if versions[name] == version) for version in ("v1", "v2")
    }
    assert by_version == {"v1": FULL - weight, "v2": weight}
    for version in needed:
        mine = [name for name in BACKENDS if versions[name] == version]
        if any(ready[name] for name in mine):
            assert all(ready[name] for name in mine if targets[name]), "nobody who is down gets a share"


@given(runs, live_weights)
def test_the_new_versions_weight_is_never_told_smaller_than_it_may_be(
    behind: dict[str, str | None], values: list[int]
) -> None:
    seen, router = namespace(behind), router_on()
    body = body_of("smi", router.form)
    body["metadata"] |= {"resourceVersion": "7"}
    body["spec"]["backends"] = [
        {"service": name, "weight": value} for name, value in zip(BACKENDS, values, strict=True)
    ]
    split = router._split(body, seen)
    old = sum(value for name, value in zip(BACKENDS, values, strict=True) if behind[name] == "v1")
    may_be_new = Fraction(sum(values) - old, sum(values))
    assert split.weight == thousandths(may_be_new)
    assert (split.weight == FULL) == (old == 0)
    known = {"v1", "v2", "v2+v2"}
    unknown = [name for name, value in zip(BACKENDS, values, strict=True) if value and behind[name] not in known]
    assert bool(split.untold) == bool(unknown)
    assert all(name in split.untold for name in unknown)


def test_what_it_has_already_is_left_as_a_pipeline_shared_it_out() -> None:
    seen, router = namespace({STABLE: "v1", BASELINE: "v1", CANARY: "v2"}), router_on()
    live = {STABLE: Fraction(1, 3), BASELINE: Fraction(1, 3), CANARY: Fraction(1, 3)}
    # A third is no whole number of thousandths; what rounding leaves goes to one of them.
    live = {STABLE: Fraction(6332, 10000), BASELINE: Fraction(2668, 10000), CANARY: Fraction(1, 10)}
    assert router._targets(100, live, seen) == {STABLE: 634, BASELINE: 266, CANARY: 100}
    assert router._targets(200, live, seen) == {STABLE: 800, BASELINE: 0, CANARY: 200}


def test_of_those_who_could_take_it_the_one_that_is_ready_does_and_then_the_one_by_its_role() -> None:
    router, live = router_on(), dict.fromkeys(BACKENDS, Fraction(0))
    all_old = {STABLE: "v1", BASELINE: "v1", CANARY: "v1"}
    assert router._targets(0, live, namespace(all_old))[STABLE] == FULL
    down = namespace(all_old, ready={STABLE: False, CANARY: False})
    assert router._targets(0, live, down)[BASELINE] == FULL
    none_ready = namespace(all_old, ready=dict.fromkeys(BACKENDS, False))
    assert router._targets(0, live, none_ready)[STABLE] == FULL


@pytest.mark.parametrize(
    ("behind", "told"),
    [
        (Behind("a", frozenset(), 0, (), 0, exists=False), "there is no Service a"),
        (Behind("a", frozenset(), 0, (), 0, exists=True), "a has no pod and no Deployment"),
        (Behind("a", frozenset({"v1"}), 1, (), 1, exists=True), "a runs v1"),
        (Behind("a", frozenset({"v2", "v1"}), 1, (), 1, exists=True), "a runs v1 and v2"),
        (
            Behind("a", frozenset({"v1"}), 1, (), 1, exists=True, strangers=("x", "y")),
            "a leads to more than its pods: EndpointSlice x, y",
        ),
        (
            Behind("a", frozenset({"v1", ""}), 1, (), 1, exists=True),
            "a runs a version that is neither the old nor the new one and v1",
        ),
    ],
)
def test_what_is_behind_a_service_is_told_in_words(behind: Behind, told: str) -> None:
    assert behind.told() == told
    assert (behind.version is not None) == (told == "a runs v1")


@pytest.mark.parametrize(
    ("selector", "labels", "selected"),
    [
        ({"a": "1"}, {"a": "1", "b": "2"}, True),
        ({"a": "1", "b": "2"}, {"a": "1"}, False),
        ({"a": "1"}, {"a": "2"}, False),
        ({"a": "1"}, None, False),
        ({}, {"a": "1"}, False),
        (None, {"a": "1"}, False),
    ],
)
def test_an_empty_selector_selects_nothing(selector: Any, labels: Any, selected: bool) -> None:
    assert matches(selector, labels) is selected


def test_names_of_backends_are_the_roots_and_the_roles() -> None:
    assert backend_names("shop") == {"shop", STABLE, BASELINE, CANARY}


# --- what stands against more traffic -------------------------------------------------------------------------------


def shop_that_is_well(**changes: Any) -> Namespace:
    """Both versions behind Services of their own and a root that has both, all with endpoints."""
    seen = namespace({STABLE: "v1", CANARY: "v2"})
    services = {**seen.services, "shop": service("shop")}
    return replace(seen, services=services, slices=tuple(slice_of(name) for name in (STABLE, CANARY)), **changes)


def slice_of(name: str, *, ready: bool | None = True, **changes: Any) -> dict[str, Any]:
    conditions = {} if ready is None else {"ready": ready}
    labels = {
        "kubernetes.io/service-name": name,
        "endpointslice.kubernetes.io/managed-by": "endpointslice-controller.k8s.io",
    }
    plain = {
        "metadata": {"name": f"{name}-x", "labels": labels},
        "ports": [{"port": 8080}],
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": conditions}],
    }
    return {**plain, **changes}


def asked(seen: Namespace, *, full: bool = False, backends: tuple[str, ...] = (STABLE, CANARY)) -> tuple[str, ...]:
    return problems(cluster_change(), seen, backends, full=full)


def test_nothing_stands_against_a_shop_that_is_well() -> None:
    assert asked(shop_that_is_well()) == ()


@pytest.mark.parametrize(
    ("part", "holds"),
    [
        (slice_of(CANARY), True),
        (slice_of(CANARY, ready=None), True),
        (slice_of(CANARY, ready=False), False),
        (slice_of(CANARY, endpoints=None), False),
        (slice_of(CANARY, endpoints=[{"conditions": {"ready": True}}]), False),
        (slice_of(CANARY, ports=None), False),
        (slice_of(CANARY, ports=[]), False),
        (slice_of("another"), False),
    ],
)
def test_an_endpoint_is_one_that_is_ready_and_has_the_port(part: dict[str, Any], holds: bool) -> None:
    found = asked(replace(shop_that_is_well(), slices=(slice_of(STABLE), part)))
    assert found == (() if holds else (f"Service {CANARY} has no ready endpoint",))


def test_one_ready_backend_of_a_version_is_enough_and_none_is_not() -> None:
    well = shop_that_is_well()
    seen = namespace({STABLE: "v1", BASELINE: "v1", CANARY: "v2"}, ready={STABLE: False})
    seen = replace(
        seen,
        services={**seen.services, "shop": well.services["shop"]},
        slices=tuple(slice_of(name) for name in BACKENDS),
    )
    assert asked(seen, backends=BACKENDS) == ()
    assert asked(seen) == (f"Service {STABLE}: no pod of v1 is ready",)
    assert asked(seen, full=True) == ()


def test_a_version_that_is_mixed_with_another_is_nobodys() -> None:
    mixed = namespace({STABLE: "v1", CANARY: "v1+v2"})
    seen = replace(shop_that_is_well(), pods=mixed.pods)
    assert asked(seen) == ("no backend of Service shop runs v2 and nothing else",)


def test_every_port_of_the_root_is_needed() -> None:
    seen = shop_that_is_well()
    seen.services["shop"]["spec"]["ports"] = [{"port": port} for port in (80, 443, 9000)]
    told = "has no port 443, 9000, which Service shop has"
    assert asked(seen) == tuple(f"Service {name} {told}" for name in (STABLE, CANARY))
    for name in (STABLE, CANARY):
        seen.services[name]["spec"]["ports"] = [{"port": port} for port in (9000, 80, 443, 1)]
    assert asked(seen) == ()


def test_selectors_overlap_where_a_pod_is_behind_both() -> None:
    seen = namespace({STABLE: "v1", BASELINE: "v1", CANARY: "v2"})
    seen.services["shop"] = service("shop")
    seen = replace(seen, slices=tuple(slice_of(name) for name in BACKENDS))
    assert asked(seen, backends=BACKENDS) == ()
    seen.services[STABLE]["spec"]["selector"] = {"behind": BASELINE}
    told = f"Services {STABLE} and {BASELINE} select the same pods: their shares cannot be told apart"
    assert asked(seen, backends=BACKENDS) == (told,)


def test_a_deployment_without_pods_shows_an_overlap_as_well() -> None:
    body = deployment(Role.CANARY, "v2")
    body["spec"]["template"]["metadata"]["labels"] |= {"behind": STABLE}
    seen = shop_that_is_well()
    seen.services[CANARY]["spec"]["selector"] = {LAYOUT.label: "canary"}
    seen = replace(seen, deployments={"shop-canary": body}, pods=())
    # Stable is told by the same Deployment, which is the new version's.
    assert any("select the same pods" in told for told in asked(seen))


# --- what the API server answers ------------------------------------------------------------------------------------


class Answer(Exception):
    def __init__(self, status: int, body: str | None = None, reason: str = "why") -> None:
        super().__init__(f"({status})")
        self.status, self.body, self.reason = status, body, reason


def told_by(status: int, message: str = "m", method: str = "patch") -> ParallelChangeError:
    return refused("context x", method, "patch TrafficSplit shop/y", Answer(status, json.dumps({"message": message})))


@pytest.mark.parametrize(
    ("status", "message", "kind", "code"),
    [
        (401, "Unauthorized", Denied, 3),
        (403, "forbidden: User x cannot patch", Denied, 3),
        (404, "not found", NotFound, 3),
        (409, "the object has been modified", Busy, 3),
        (403, "ValidatingAdmissionPolicy 'x' with binding 'y' denied request: no", Blocked, 1),
        (422, "ValidatingAdmissionPolicy 'x' with binding 'y' denied request: no", Blocked, 1),
        (422, "spec.weight: Invalid value", Unavailable, 3),
        (400, "bad", Unavailable, 3),
        (0, "SSLError", Uncertain, 3),
        (500, "internal", Uncertain, 3),
        (503, "shutting down", Uncertain, 3),
    ],
)
def test_every_answer_is_one_error_of_ours(status: int, message: str, kind: type[Exception], code: int) -> None:
    error = told_by(status, message)
    assert type(error) is kind
    assert error.exit_code == code
    assert error.hint
    assert "\n" not in error.message
    assert message in error.message or status in (401, 404, 409)
    assert "shop/y" in error.message


def test_a_rule_about_policies_is_no_refusal_by_one() -> None:
    message = 'validatingadmissionpolicies.admissionregistration.k8s.io is forbidden: User "x" cannot list resource'
    assert type(told_by(403, message)) is Denied


def test_of_a_read_that_is_not_answered_nothing_is_uncertain() -> None:
    assert type(told_by(503, method="get")) is Unavailable
    assert type(away("x", "get", "get Pod a/b", "gone")) is Unavailable
    assert type(away("x", "post", "create Pod a/b", "gone")) is Uncertain


@pytest.mark.parametrize(
    ("error", "again"),
    [
        *((Answer(status), True) for status in (0, 429, 500, 502, 503, 504)),
        *((Answer(status), False) for status in (200, 400, 401, 403, 404, 409, 410, 422)),
        (Answer(0, reason="SSLError\n[SSL: CERTIFICATE_VERIFY_FAILED] certificate verify failed"), False),
        (Answer(0, reason="SSLError\n[SSL: UNEXPECTED_EOF_WHILE_READING] EOF occurred"), True),
        (ValueError("x"), False),
    ],
)
def test_what_may_help_to_ask_again(error: Exception, again: bool) -> None:
    assert is_transient(error) is again


@pytest.mark.parametrize("body", [None, "", "{", "[]", "5", '{"code": 5}', "<html>\n</html>"])
def test_an_answer_without_a_message_is_told_by_its_reason(body: str | None) -> None:
    error = refused("context x", "get", "list pods", Answer(418, body, "I'm a\nteapot"))
    assert error.message == "context x: list pods: 418 I'm a teapot"


def test_paths_and_names_of_kinds() -> None:
    assert TRAFFIC_SPLIT.at("v1alpha4").path("a", "b") == (
        "/apis/split.smi-spec.io/v1alpha4/namespaces/a/trafficsplits/b"
    )
    assert EVENT.path("a") == "/api/v1/namespaces/a/events"
    assert NAMESPACE.path("a", "b") == "/api/v1/namespaces/b"
    assert (TRAFFIC_SPLIT.resource, EVENT.resource) == ("trafficsplits.split.smi-spec.io", "events")
    assert (TRAFFIC_SPLIT.api_version, EVENT.api_version) == ("split.smi-spec.io/v1alpha2", "v1")
