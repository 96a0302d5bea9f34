"""The copies of both versions in a cluster, what the policies are told, and the Events that tell people."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from helpers.app import (
    CANARY,
    IMAGES,
    LAYOUT,
    PORT,
    STABLE,
    approvals,
    client_of,
    cluster_change,
    deployment,
    put,
    service,
    shop,
    split_object,
    wait_ready,
)
from helpers.controlplane import Cluster, wait_until
from helpers.kubelet import Kubelet, image_id

from parallelchange.adapters.kubernetes import client as client_module
from parallelchange.adapters.kubernetes.approvals import Approvals
from parallelchange.adapters.kubernetes.client import Cluster as Client
from parallelchange.adapters.kubernetes.events import Events
from parallelchange.adapters.kubernetes.kinds import CONFIG_MAP
from parallelchange.adapters.kubernetes.routers import make_router
from parallelchange.adapters.kubernetes.running import Running
from parallelchange.adapters.kubernetes.workloads import ClusterWorkloads
from parallelchange.change import Change
from parallelchange.errors import Busy, Unavailable
from parallelchange.gates.base import Act
from parallelchange.layout import CHANGE, REPLICAS, VERSION, Approval, Role, approvals_name
from parallelchange.rollout.decide import Decision, Kind
from parallelchange.rollout.world import Event

pytestmark = pytest.mark.xdist_group("cluster")

OLD, NEW = "v1", "v2"
ROLE = LAYOUT.label


class Parts:
    """What a rollout has of a cluster besides its router."""

    def __init__(self, client: Client, change: Change) -> None:
        self.client, self.running = client, Running(client, change)
        self.router = make_router(change, client, self.running)
        self.workloads = ClusterWorkloads(client, self.running, "shop")
        self.approvals = Approvals(client, change, self.router)

    def anew(self) -> ClusterWorkloads:
        """The workloads as they are now; an observation begins with the split, and so with a look at everything."""
        self.running.look(anew=True)
        return self.workloads


@pytest.fixture
def parts(cluster: Cluster) -> Iterator[Callable[..., Parts]]:
    """Opens parts, and closes their clients in the end."""
    made: list[Parts] = []

    def make(change: Change | None = None) -> Parts:
        made.append(Parts(client_of(cluster), change or cluster_change()))
        return made[-1]

    yield make
    for each in made:
        each.client.close()


def digest(image: str) -> str:
    return image_id(image).partition("@")[2]


def pods(cluster: Cluster, role: str) -> list[dict[str, Any]]:
    return cluster.list("pods", f"{ROLE}={role}")


def replicas(cluster: Cluster, name: str) -> int:
    return int(cluster.get("deployment", name)["spec"]["replicas"])


# --- builds ---------------------------------------------------------------------------------------------------------


def test_the_build_is_the_digest_that_ready_pods_run(
    cluster: Cluster, kubelet: Kubelet, parts: Callable[..., Parts]
) -> None:
    cluster.apply(shop())
    wait_ready(cluster)
    one = parts()
    assert one.workloads.build(OLD) == digest(IMAGES["v1"])
    assert one.workloads.build(NEW) == digest(IMAGES["v2"])
    kubelet.hold(lambda pod: pod["metadata"]["labels"][ROLE] == "canary")
    wait_until(lambda: one.anew().ready(NEW) == 0, what="the canary to be down")
    assert one.workloads.build(NEW) is None, "what does not run is no build"
    assert one.workloads.build(OLD) == digest(IMAGES["v1"])


def test_pods_that_run_different_digests_of_one_image_have_no_build(
    cluster: Cluster, kubelet: Kubelet, parts: Callable[..., Parts]
) -> None:
    resolve = kubelet._status

    # A tag that was moved between the starts of two pods.
    def moved(pod: Any) -> Any:
        status = resolve(pod)
        if pod["metadata"]["labels"][ROLE] == "baseline":
            status["containerStatuses"][0]["imageID"] = f"registry.example/shop@sha256:{'ab' * 32}"
        return status

    kubelet._status = moved
    cluster.apply([*shop(), deployment(Role.BASELINE, "v1"), service("shop-baseline", **{ROLE: "baseline"})])
    wait_ready(cluster, STABLE, CANARY, "shop-baseline")
    one = parts()
    assert one.workloads.ready(OLD) == 2
    assert one.workloads.build(OLD) is None
    assert one.workloads.build(NEW) == digest(IMAGES["v2"])


def test_the_build_is_of_the_apps_container_and_not_of_what_was_injected_beside_it(
    cluster: Cluster, kubelet: Kubelet, parts: Callable[..., Parts]
) -> None:
    objects = shop()
    for body in objects[:2]:
        body["spec"]["template"]["spec"]["containers"].insert(0, {"name": "proxy", "image": "proxy:9"})
    cluster.apply(objects)
    wait_ready(cluster)
    assert parts().workloads.build(NEW) == digest(IMAGES["v2"])


def test_without_an_image_in_the_change_file_the_build_is_all_that_a_pod_runs(
    cluster: Cluster, kubelet: Kubelet, parts: Callable[..., Parts]
) -> None:
    objects = shop()
    for body, version in zip(objects[:2], (OLD, NEW), strict=True):
        body["spec"]["template"]["metadata"]["labels"][VERSION] = version
        body["spec"]["template"]["spec"]["containers"].append({"name": "worker", "image": "worker:1"})
    cluster.apply(objects)
    wait_ready(cluster)
    change = cluster_change()
    old, new = (replace(version, image=None) for version in change.versions)
    one = parts(replace(change, old=old, new=new))
    assert one.workloads.build(OLD) == "+".join(sorted([digest(IMAGES["v1"]), digest("worker:1")]))


def test_a_pod_that_does_not_tell_its_digest_has_no_build(
    cluster: Cluster, kubelet: Kubelet, parts: Callable[..., Parts]
) -> None:
    resolve = kubelet._status

    def silent(pod: Any) -> Any:
        status = resolve(pod)
        status["containerStatuses"][0]["imageID"] = ""
        return status

    kubelet._status = silent
    cluster.apply(shop())
    wait_ready(cluster)
    assert parts().workloads.build(OLD) is None


# --- copies ---------------------------------------------------------------------------------------------------------


def test_copies_that_are_about_to_leave_count_as_long_as_they_are_ready(
    cluster: Cluster, kubelet: Kubelet, parts: Callable[..., Parts]
) -> None:
    objects = shop()
    # They go on for as long as somebody holds them, as pods do in their grace period.
    objects[0]["spec"]["template"]["metadata"]["finalizers"] = ["test.example/stay"]
    cluster.apply(objects)
    wait_ready(cluster)
    one = parts()
    kubelet._delete = lambda pod: None
    kubelet._end = lambda pod: None
    [leaving] = pods(cluster, "stable")
    cluster.kubectl("scale", "deployment/shop", "--replicas=0")
    wait_until(lambda: pods(cluster, "stable")[0]["metadata"].get("deletionTimestamp"), what="the pod to be leaving")
    assert one.anew().ready(OLD) == 1, "it may still write"
    assert one.workloads.address(OLD) is None, "and nobody is sent to it any more"
    name = leaving["metadata"]["name"]
    cluster.kubectl("patch", "pod", name, "--type=merge", '--patch={"metadata":{"finalizers":null}}')
    cluster.kubectl("delete", "pod", name, "--force", "--grace-period=0")
    wait_until(lambda: one.anew().ready(OLD) == 0, what="the end of the pod")


def test_pods_that_are_not_behind_the_service_or_are_another_apps_are_not_asked(
    cluster: Cluster, kubelet: Kubelet, parts: Callable[..., Parts]
) -> None:
    """Another app may call its versions the same, and its Service may begin with the same word."""
    objects = shop()
    for body, version in zip(objects[:2], (OLD, NEW), strict=True):
        body["spec"]["template"]["metadata"]["labels"][VERSION] = version
    labels = {"app": "admin", VERSION: OLD}
    admin = deployment(Role.STABLE, "v3", replicas=2)
    admin["metadata"] = {"name": "admin"}
    admin["spec"] |= {"selector": {"matchLabels": {"app": "admin"}}}
    admin["spec"]["template"]["metadata"]["labels"] = labels
    its_service = service("shop-admin")
    its_service["spec"]["selector"] = {"app": "admin"}
    cluster.apply([*objects, admin, its_service])
    wait_ready(cluster, STABLE, CANARY, "shop-admin")
    change = cluster_change()
    old, new = (replace(version, image=None) for version in change.versions)
    one = parts(replace(change, old=old, new=new))
    assert one.workloads.build(OLD) == digest(IMAGES["v1"])
    [pod] = pods(cluster, "stable")
    assert one.workloads.address(OLD) == f"{pod['status']['podIP']}:{PORT}"
    assert one.workloads.ready(OLD) == 1
    one.workloads.scale(OLD, 0)
    assert (replicas(cluster, "shop"), replicas(cluster, "admin")) == (0, 2)


def test_a_pod_with_both_versions_is_a_copy_of_both_and_a_deployment_of_both_is_nobodys_to_scale(
    cluster: Cluster, kubelet: Kubelet, parts: Callable[..., Parts]
) -> None:
    objects = shop()
    objects[0]["spec"]["template"]["spec"]["containers"].append({"name": "new", "image": IMAGES["v2"]})
    cluster.apply(objects)
    wait_ready(cluster)
    one = parts()
    assert (one.workloads.ready(OLD), one.workloads.ready(NEW)) == (1, 2)
    assert one.workloads.build(OLD) == digest(IMAGES["v1"])
    with pytest.raises(Unavailable, match="runs v1"):
        one.workloads.scale(OLD, 0)


def test_scaled_to_none_and_back_to_as_many_as_there_were(
    cluster: Cluster, kubelet: Kubelet, parts: Callable[..., Parts]
) -> None:
    objects = shop()
    objects[0]["spec"]["replicas"] = 3
    cluster.apply([*objects, deployment(Role.BASELINE, "v1"), service("shop-baseline", **{ROLE: "baseline"})])
    wait_ready(cluster, STABLE, CANARY, "shop-baseline")
    one = parts()
    wait_until(lambda: one.anew().ready(OLD) == 4, what="all copies")

    one.workloads.scale(OLD, 0)
    one.workloads.scale(OLD, 0)  # once more, as whoever was killed in between does
    wait_until(lambda: one.anew().ready(OLD) == 0, what="the end of all copies")
    assert cluster.get("deployment", "shop")["metadata"]["annotations"][REPLICAS] == "3"
    assert replicas(cluster, "shop-canary") == 1
    assert one.anew().ready(NEW) == 1

    one.workloads.scale(OLD, 1)
    assert (replicas(cluster, "shop"), replicas(cluster, "shop-baseline")) == (3, 1)
    wait_until(lambda: one.anew().ready(OLD) == 4, what="all copies")
    cluster.kubectl("scale", "deployment/shop", "--replicas=2")
    one.workloads.scale(OLD, 1)
    assert replicas(cluster, "shop") == 2, "what runs is the operator's to number"


def test_one_that_was_at_none_by_hand_is_started_with_what_was_asked_for(
    cluster: Cluster, parts: Callable[..., Parts]
) -> None:
    objects = shop()
    objects[0]["spec"]["replicas"] = 0
    objects[0]["metadata"]["annotations"] = {REPLICAS: "many"}
    cluster.apply(objects)
    parts().workloads.scale(OLD, 2)
    assert replicas(cluster, "shop") == 2


def test_what_no_deployment_runs_cannot_be_scaled(
    cluster: Cluster, kubelet: Kubelet, parts: Callable[..., Parts]
) -> None:
    pod = {**deployment(Role.STABLE, "v1")["spec"]["template"], "apiVersion": "v1", "kind": "Pod"}
    pod["metadata"] |= {"name": "bare"}
    cluster.apply(
        [pod, *(each for each in shop() if each["metadata"]["name"] != "shop" or each["kind"] != "Deployment")]
    )
    wait_ready(cluster)
    one = parts()
    assert one.workloads.ready(OLD) == 1
    with pytest.raises(Unavailable, match="behind Service shop runs v1") as refused:
        one.workloads.scale(OLD, 0)
    assert "by hand" in (refused.value.hint or "")
    cluster.kubectl("set", "image", "deployment/shop-canary", f"shop={IMAGES['v3']}")
    with pytest.raises(Unavailable, match="runs v2"):
        one.workloads.scale(NEW, 0)
    assert replicas(cluster, "shop-canary") == 1, "what it runs now is not the new version"


# --- addresses ------------------------------------------------------------------------------------------------------


def target(cluster: Cluster, port: int | str | None) -> None:
    entry = {"name": "http", "port": 80} | ({} if port is None else {"targetPort": port})
    patch = '--patch={"spec":{"ports":[' + str(entry).replace("'", '"') + "]}}"
    cluster.kubectl("patch", "service", "shop", "--type=merge", patch)


@pytest.mark.parametrize(
    ("port", "told"), [("http", PORT), (9000, 9000), ("9000", 9000), (None, 80), ("nothing", None)]
)
def test_the_address_has_the_port_that_the_service_leads_to(
    cluster: Cluster, kubelet: Kubelet, parts: Callable[..., Parts], port: int | str | None, told: int | None
) -> None:
    objects = shop()
    for body in objects[:2]:
        body["spec"]["template"]["spec"]["containers"].insert(0, {"name": "proxy", "image": "proxy:9"})
    cluster.apply(objects)
    wait_ready(cluster)
    target(cluster, int(port) if isinstance(port, str) and port.isdecimal() else port)
    [pod] = pods(cluster, "canary")
    wanted = None if told is None else f"{pod['status']['podIP']}:{told}"
    assert parts().workloads.address(NEW) == wanted


def test_there_is_no_address_without_a_ready_pod_or_a_root_service(
    cluster: Cluster, kubelet: Kubelet, parts: Callable[..., Parts]
) -> None:
    cluster.apply(shop())
    wait_ready(cluster)
    one = parts()
    assert one.workloads.address(NEW)
    cluster.kubectl("delete", "service", "shop")
    assert one.anew().address(NEW) is None
    cluster.apply(service("shop"))
    assert one.anew().address(NEW)
    kubelet.hold(lambda pod: pod["metadata"]["labels"][ROLE] == "canary")
    wait_until(lambda: one.anew().address(NEW) is None, what="no address any more")


# --- what was seen a moment ago -------------------------------------------------------------------------------------


def test_an_observation_begins_with_a_look_at_what_is_there_now(
    cluster: Cluster, kubelet: Kubelet, parts: Callable[..., Parts], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Contract asks again under its locks, a moment after it asked first: then it must not be told what was."""
    monkeypatch.setattr("parallelchange.adapters.kubernetes.running._FRESH", 3600.0)
    cluster.apply(shop(canary=1000))
    wait_ready(cluster)
    one = parts()
    cluster.kubectl("scale", "deployment/shop", "--replicas=0")
    wait_until(lambda: not pods(cluster, "stable"), what="the end of the old version")
    one.router.get()
    assert one.workloads.ready(OLD) == 0
    cluster.kubectl("scale", "deployment/shop", "--replicas=1")
    wait_ready(cluster)
    one.router.get()
    assert one.workloads.ready(OLD) == 1


# --- what the policies are told -------------------------------------------------------------------------------------


def data(cluster: Cluster) -> dict[str, str]:
    return dict(cluster.get("configmap", approvals_name("shop"))["data"])


def test_approvals_follow_what_the_gates_say(cluster: Cluster, parts: Callable[..., Parts]) -> None:
    stale = {
        Approval.OLD_BACKENDS: "",
        Approval.CHANGE: "another",
        Approval.OLD_DEPLOYMENTS: "x",
        Approval.SELECTOR: "x=y",
    }
    cluster.apply([*shop(), approvals(**stale)])
    one = parts()
    one.approvals.allow(125)
    found = data(cluster)
    assert found[Approval.APPROVED] == "125"
    assert found[Approval.CHANGE] == "split-name"
    assert found[Approval.OLD_BACKENDS] == STABLE
    assert (found[Approval.OLD_IMAGE], found[Approval.NEW_IMAGE]) == (IMAGES["v1"], IMAGES["v2"])
    assert (found[Approval.OLD_DEPLOYMENTS], found[Approval.SELECTOR]) == ("shop", "app=shop")
    one.approvals.allow(0)
    assert data(cluster)[Approval.APPROVED] == "0"
    one.approvals.release()
    assert (data(cluster)[Approval.APPROVED], data(cluster)[Approval.CONTRACTED]) == ("1000", "true")
    one.approvals.allow(50)
    assert (data(cluster)[Approval.APPROVED], data(cluster)[Approval.CONTRACTED]) == ("50", "false")


def test_without_installed_policies_there_is_nobody_to_tell(cluster: Cluster, parts: Callable[..., Parts]) -> None:
    one = parts()
    one.approvals.allow(125)
    one.approvals.release()
    assert one.client.find(CONFIG_MAP, approvals_name("shop")) is None, "and nothing is made"


def test_a_backend_of_the_new_version_is_never_called_old(
    cluster: Cluster, kubelet: Kubelet, parts: Callable[..., Parts]
) -> None:
    cluster.apply(
        [
            *shop(),
            deployment(Role.BASELINE, "v1"),
            service("shop-baseline", **{ROLE: "baseline"}),
            approvals(**{Approval.OLD_BACKENDS: f"{STABLE},shop-baseline"}),
        ]
    )
    put(cluster, "smi", [(STABLE, 90), ("shop-baseline", 5), (CANARY, 5)])
    wait_ready(cluster, STABLE, CANARY, "shop-baseline")
    one = parts()
    one.approvals.allow(50)
    assert data(cluster)[Approval.OLD_BACKENDS] == f"{STABLE},shop-baseline"

    kubelet.hold(lambda pod: pod["spec"]["containers"][0]["image"] == IMAGES["v2"])
    cluster.kubectl("set", "image", "deployment/shop", f"shop={IMAGES['v2']}")
    wait_until(lambda: len(pods(cluster, "stable")) == 2, what="a pod of each version")
    one.approvals.allow(50)
    assert data(cluster)[Approval.OLD_BACKENDS] == "shop-baseline", "it is on its way"
    kubelet.release()
    cluster.kubectl("rollout", "status", "deployment/shop", "--timeout=60s")
    cluster.kubectl("delete", "deployment/shop-baseline", "service/shop-baseline")
    one.approvals.allow(1000)
    assert data(cluster)[Approval.OLD_BACKENDS] == "", "all that is left is the new version"
    # What brings the old version back, and which pods are behind the Service, is still known and still held.
    cluster.kubectl("delete", "service", "shop")
    one.approvals.allow(1000)
    assert (data(cluster)[Approval.OLD_DEPLOYMENTS], data(cluster)[Approval.SELECTOR]) == ("shop", "app=shop")
    cluster.apply(service("shop"))

    # A split whose weights say nothing still has its backends.
    put(cluster, "smi", [(STABLE, 0), (CANARY, 0)])
    cluster.kubectl("set", "image", "deployment/shop", f"shop={IMAGES['v1']}")
    cluster.kubectl("rollout", "status", "deployment/shop", "--timeout=60s")
    wait_until(lambda: one.running.look(anew=True).behind(STABLE).version == OLD, what="the old version again")
    one.approvals.allow(0)
    assert data(cluster)[Approval.OLD_BACKENDS] == STABLE


def test_approvals_that_others_write_at_the_same_time_are_written_all_the_same(
    cluster: Cluster, parts: Callable[..., Parts], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.apply([*shop(), approvals()])
    one = parts()
    conflicts = 3
    old_backends = one.router.old_backends

    def interfere() -> tuple[str, ...]:
        nonlocal conflicts
        if conflicts:
            conflicts -= 1
            cluster.kubectl("annotate", "configmap", approvals_name("shop"), f"by-hand-{conflicts}=x")
        return old_backends()

    monkeypatch.setattr(one.router, "old_backends", interfere)
    one.approvals.allow(250)
    assert conflicts == 0
    assert data(cluster)[Approval.APPROVED] == "250"
    conflicts = 1000
    with pytest.raises(Busy, match="is being written by somebody else all the time"):
        one.approvals.allow(500)
    assert data(cluster)[Approval.APPROVED] == "250"


def test_of_many_who_approve_at_once_each_is_heard(cluster: Cluster, parts: Callable[..., Parts]) -> None:
    cluster.apply([*shop(), approvals()])
    weights = (100, 200)
    failed: list[Exception] = []

    def allow(one: Parts, weight: int) -> None:
        try:
            one.approvals.allow(weight)
        except Unavailable as error:
            failed.append(error)

    threads = [threading.Thread(target=allow, args=(parts(), weight)) for weight in weights]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failed == []
    assert data(cluster)[Approval.APPROVED] in {str(weight) for weight in weights}


# --- Events ---------------------------------------------------------------------------------------------------------


def events(cluster: Cluster) -> list[dict[str, Any]]:
    return [each for each in cluster.list("events") if each["source"].get("component") == "parallelchange"]


def test_what_a_rollout_does_is_told_as_events_of_the_split(cluster: Cluster, parts: Callable[..., Parts]) -> None:
    cluster.apply(shop())
    one = parts()
    told = Events(one.client, one.router, "split-name")
    blocked = Decision(Kind.BLOCKED, "laws: 3 rows break the law")
    told.tell(Event("weight", "25%", {"weight": 250}))
    for _ in range(3):
        told.tell(Event("decision", blocked.why, {"decision": blocked}))  # every look finds the same
    told.tell(Event("decision", "it harms", {"decision": Decision(Kind.DO, "it harms", Act.ABORT)}))
    told.tell(Event("decision", "wait", {"decision": Decision(Kind.WAIT, "soak")}))
    told.tell(Event("conflict", "x" * 5000))
    split = cluster.get("trafficsplits.split.smi-spec.io", "shop")
    found = {each["reason"]: each for each in events(cluster)}
    assert {reason: each["type"] for reason, each in found.items()} == {
        "WeightSet": "Normal",
        "Blocked": "Warning",
        "Aborting": "Warning",
        "Conflict": "Warning",
    }
    assert len(events(cluster)) == len(found)
    assert found["WeightSet"]["message"] == "split-name: the new version has 25%"
    assert found["WeightSet"]["metadata"]["annotations"][CHANGE] == "split-name"
    assert found["WeightSet"]["involvedObject"]["uid"] == split["metadata"]["uid"]
    shown = cluster.kubectl("describe", "trafficsplits.split.smi-spec.io", "shop").stdout
    assert "laws: 3 rows break the law" in shown


def test_what_cannot_be_told_stops_nothing(cluster: Cluster, parts: Callable[..., Parts]) -> None:
    one = parts()
    told = Events(one.client, one.router, "split-name")
    told.tell(Event("weight", "25%", {"weight": 250}))  # there is no split
    cluster.apply([*shop()[:-1], *split_object("smi")])
    told.tell(Event("weight", "50%", {"weight": 500}))
    assert [each["message"] for each in events(cluster)] == ["split-name: the new version has 50%"]


def test_an_outage_holds_no_rollout_up_for_its_events(
    cluster: Cluster, parts: Callable[..., Parts], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.apply(shop())
    one = parts()
    told = Events(one.client, one.router, "split-name")
    waited: list[float] = []
    away = client_module.away
    monkeypatch.setattr(client_module, "away", lambda *arguments: waited.append(0.0) or away(*arguments))
    cluster.plane.stop_api()
    told.tell(Event("weight", "25%", {"weight": 250}))
    told.scaled({"metadata": {"name": "shop", "uid": "1", "resourceVersion": "1"}}, 0)
    assert len(waited) == 2, "it gave up both times"
    assert told.cluster.patience < one.client.patience
    cluster.plane.start_api()
