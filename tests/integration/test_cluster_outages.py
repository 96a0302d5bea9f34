"""An API server that is away, that starts, that loses answers, that does not let us: what becomes of what was asked."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from fractions import Fraction
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, Self

import pytest
from helpers.app import (
    CANARY,
    RESOURCES,
    STABLE,
    accept_route,
    approvals,
    client_of,
    cluster_change,
    put,
    shop,
    wait_ready,
    weights_of,
)
from helpers.controlplane import Cluster, wait_until
from helpers.kubelet import Kubelet, image_id

from parallelchange.adapters.kubernetes import client as client_module
from parallelchange.adapters.kubernetes.approvals import Approvals
from parallelchange.adapters.kubernetes.client import connect
from parallelchange.adapters.kubernetes.kinds import CONFIG_MAP, DEPLOYMENT, LEASE, POD, TRAFFIC_SPLIT
from parallelchange.adapters.kubernetes.lease import Lease
from parallelchange.adapters.kubernetes.routers import ROUTERS, ClusterRouter, make_router
from parallelchange.adapters.kubernetes.running import Running
from parallelchange.adapters.kubernetes.workloads import ClusterWorkloads
from parallelchange.errors import Busy, Denied, NotFound, Unavailable, Uncertain, UsageError
from parallelchange.layout import STAMP, approvals_name

pytestmark = pytest.mark.xdist_group("cluster")

SPLITS = RESOURCES["smi"]
LONG = 60.0
"""Seconds of patience that outlast any outage here, on a slow day too."""


class Parts:
    """All that speaks to the cluster, over one client."""

    def __init__(
        self, cluster: Cluster, kind: str = "smi", *, kubeconfig: Path | None = None, patience: float = LONG
    ) -> None:
        change = cluster_change(kind)
        self.client = client_of(cluster, kubeconfig=kubeconfig, patience=patience)
        running = Running(self.client, change)
        self.router: ClusterRouter = make_router(change, self.client, running)
        self.workloads = ClusterWorkloads(self.client, running, "shop")
        self.approvals = Approvals(self.client, change, self.router)

    def send(self, weight: int) -> Any:
        return self.router.set(weight, resource_version=self.router.get().resource_version)


@pytest.fixture
def parts(cluster: Cluster) -> Iterator[Callable[..., Parts]]:
    """Opens parts, and closes their clients in the end."""
    made: list[Parts] = []

    def make(kind: str = "smi", **options: Any) -> Parts:
        made.append(Parts(cluster, kind, **options))
        return made[-1]

    yield make
    for each in made:
        each.client.close()


def canary(cluster: Cluster, kind: str = "smi") -> Fraction:
    weights = weights_of(cluster, kind)
    return Fraction(weights[CANARY], sum(weights.values()))


def writes(cluster: Cluster, kind: str) -> list[dict[str, Any]]:
    """Writes of what splits the traffic that the API server carried out for us, oldest first."""
    plural = RESOURCES[kind].partition(".")[0]
    return [
        event
        for event in cluster.audit()
        if event["verb"] == "patch"
        and event["objectRef"]["resource"] == plural
        and event["responseStatus"]["code"] == 200
        and "python" in event["userAgent"].lower()
    ]


class Wire:
    """A connection to the API server that can be cut where it hurts: requests arrive, and answers do not."""

    def __init__(self, cluster: Cluster) -> None:
        self.target = cluster.plane._api_port.number
        self.deaf, self.dead = threading.Event(), threading.Event()
        self.lost = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._open: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        told = json.loads(cluster.kubeconfig.read_text())
        told["clusters"][0]["cluster"]["server"] = f"https://127.0.0.1:{self._listener.getsockname()[1]}"
        self.kubeconfig = cluster.plane.folder / f"{cluster.namespace}-wire.json"
        self.kubeconfig.write_text(json.dumps(told))

    def __enter__(self) -> Self:
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._cut()
        for thread in self._threads:
            thread.join()

    def lose_the_next_answer(self) -> None:
        self.deaf.set()

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if self.dead.is_set():
                near.close()
                continue
            try:
                far = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                near.close()
                continue
            self._open += [near, far]
            self._start(self._copy, near, far, False)
            self._start(self._copy, far, near, True)

    def _copy(self, one: socket.socket, other: socket.socket, answers: bool) -> None:
        with suppress(OSError), closing(one), closing(other):
            while data := one.recv(65536):
                if answers and self.deaf.is_set():
                    self.deaf.clear()
                    self.lost += 1
                    break
                other.sendall(data)
            for end in (one, other):
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)

    def _cut(self) -> None:
        for end in self._open:
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def before_the_write(parts: Parts, monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Have something happen right before the write, once."""
    send, pending = parts.client.patch, [act]

    def patch(*arguments: Any, **options: Any) -> Any:
        if pending:
            pending.pop()()
        return send(*arguments, **options)

    monkeypatch.setattr(parts.client, "patch", patch)


# --- answers that are lost ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", tuple(ROUTERS))
def test_a_write_whose_answer_is_lost_is_found_to_be_ours_and_is_not_done_again(
    cluster: Cluster, parts: Callable[..., Parts], monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    cluster.apply(shop(kind))
    with Wire(cluster) as wire:
        one = parts(kind, kubeconfig=wire.kubeconfig)
        before_the_write(one, monkeypatch, wire.lose_the_next_answer)
        written = one.send(250)
        assert wire.lost == 1
        one.client.close()
    assert canary(cluster, kind) == Fraction(1, 4)
    assert written.resource_version == cluster.get(RESOURCES[kind], "shop")["metadata"]["resourceVersion"]
    assert (written.weight, written.untold) == (250, "")
    assert len(writes(cluster, kind)) == 1


def edited(cluster: Cluster) -> None:
    put(cluster, "smi", [(STABLE, 70), (CANARY, 30)])


def edited_without_our_stamp(cluster: Cluster) -> None:
    edited(cluster)
    cluster.kubectl("annotate", SPLITS, "shop", f"{STAMP}-")


@pytest.mark.parametrize(
    ("act", "error", "told"),
    [(edited, Unavailable, "was given 25% and now says: 30%"), (edited_without_our_stamp, Busy, "changed since")],
)
def test_what_somebody_wrote_after_a_lost_answer_is_not_written_over(
    cluster: Cluster,
    parts: Callable[..., Parts],
    monkeypatch: pytest.MonkeyPatch,
    act: Callable[[Cluster], None],
    error: type[Unavailable],
    told: str,
) -> None:
    cluster.apply(shop())
    with Wire(cluster) as wire:
        one = parts(kubeconfig=wire.kubeconfig)
        before_the_write(one, monkeypatch, wire.lose_the_next_answer)
        send = one.client._send

        def patched(method: str, *arguments: Any, **options: Any) -> Any:
            # Between the try whose answer is lost and the next one.
            if method == "patch" and wire.lost == 1:
                wire.lost += 1
                act(cluster)
            return send(method, *arguments, **options)

        monkeypatch.setattr(one.client, "_send", patched)
        with pytest.raises(error, match=told):
            one.send(250)
        one.client.close()
    assert canary(cluster) == Fraction(30, 100)
    assert len(writes(cluster, "smi")) == 1


def test_a_write_that_went_through_before_a_long_outage_is_uncertain_and_never_said_to_have_failed(
    cluster: Cluster, parts: Callable[..., Parts], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.apply(shop())
    with Wire(cluster) as wire:
        one = parts(kubeconfig=wire.kubeconfig)

        def cut() -> None:
            one.client.patience = 1.0
            wire.dead.set()
            wire.lose_the_next_answer()

        before_the_write(one, monkeypatch, cut)
        with pytest.raises(Uncertain, match=r"is not known: .* does not answer") as uncertain:
            one.send(250)
        assert "it finds out whether it was written" in (uncertain.value.hint or "")
        one.client.close()
    assert canary(cluster) == Fraction(1, 4)


def test_a_write_that_is_refused_after_a_lost_answer_is_uncertain(
    cluster: Cluster, parts: Callable[..., Parts], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.apply(shop())
    with Wire(cluster) as wire:
        one = parts(kubeconfig=wire.kubeconfig)
        before_the_write(one, monkeypatch, wire.lose_the_next_answer)
        send = one.client._send

        def patched(method: str, *arguments: Any, **options: Any) -> Any:
            if method == "patch" and wire.lost == 1:
                # The one who is answered is not the one who asked: it may not write.
                options["header_params"] = {"Impersonate-User": "nobody"}
            return send(method, *arguments, **options)

        monkeypatch.setattr(one.client, "_send", patched)
        # It bears our stamp all the same.
        assert one.send(250).weight == 250
        wire.lost = 0
        cluster.apply(approvals())
        before_the_write(one, monkeypatch, wire.lose_the_next_answer)
        with pytest.raises(Uncertain, match=r"and later it said: .* may not patch ConfigMap"):
            one.approvals.allow(250)
        one.client.close()
    assert cluster.get("configmap", approvals_name("shop"))["data"]["approved"] == "250"


# --- an API server that is away -------------------------------------------------------------------------------------


def test_a_write_into_a_server_that_is_stopped_is_uncertain_and_can_be_done_afterwards(
    cluster: Cluster, parts: Callable[..., Parts], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.apply(shop())
    one = parts()

    def stop() -> None:
        one.client.patience = 1.0
        cluster.plane.stop_api()

    before_the_write(one, monkeypatch, stop)
    with pytest.raises(Uncertain) as uncertain:
        one.send(250)
    assert uncertain.value.exit_code == 3
    one.client.patience = LONG
    cluster.plane.start_api()
    assert canary(cluster) == 0
    wait_until(lambda: attempt(one.router.get), what="an answer")
    assert one.send(250).weight == 250


def attempt(ask: Callable[[], Any]) -> Any:
    try:
        return ask()
    except Unavailable:
        return None


def test_a_write_into_a_server_that_hangs_is_done_once_it_goes_on(
    cluster: Cluster, parts: Callable[..., Parts], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.apply(shop())
    one = parts()
    monkeypatch.setattr(client_module, "_TIMEOUT", (1.0, 1.0))
    resume = threading.Timer(4.0, cluster.plane.resume_api)  # several tries later, all of which arrive in the end

    def hang() -> None:
        pause(cluster)
        resume.start()

    before_the_write(one, monkeypatch, hang)
    before = cluster.get(SPLITS, "shop")["metadata"]["generation"]
    try:
        written = one.send(250)
    finally:
        resume.join()
    assert written.weight == 250
    assert canary(cluster) == Fraction(1, 4)
    assert cluster.get(SPLITS, "shop")["metadata"]["generation"] == before + 1, "its spec was changed once"


def test_a_write_that_hangs_for_longer_than_we_wait_may_still_come(
    cluster: Cluster, parts: Callable[..., Parts], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.apply(shop())
    one, other = parts(), parts()
    read = other.router.get()

    def hang() -> None:
        one.client.patience = 1.0
        pause(cluster)

    before_the_write(one, monkeypatch, hang)
    with pytest.raises(Uncertain):
        one.send(250)
    cluster.plane.resume_api()
    # Whatever comes of it: who goes on from what was read before either finds it or keeps it from coming.
    try:
        other.router.set(0, resource_version=read.resource_version)
    except Busy:
        assert canary(cluster) == Fraction(1, 4)
        other.send(0)
    wait_until(lambda: not writes_under_way(cluster), what="the end of every write")
    assert canary(cluster) == 0


def writes_under_way(cluster: Cluster) -> bool:
    """Whether the API server has yet to answer a write that was sent before it was asked this."""
    metrics = cluster.kubectl("get", "--raw", "/metrics").stdout.splitlines()
    counts = [line for line in metrics if line.startswith("apiserver_current_inflight_requests") and "mutating" in line]
    return any(float(line.rpartition(" ")[2]) for line in counts if 'request_kind="mutating"' in line)


def pause(cluster: Cluster) -> None:
    """Stop the API server in its tracks, all of its threads: one that is still running may answer."""
    plane = cluster.plane
    plane.pause_api()
    assert plane._api
    threads = Path(f"/proc/{plane._api.pid}/task")
    wait_until(
        lambda: all(stat.read_text().rpartition(")")[2].split()[0] == "T" for stat in threads.glob("*/stat")),
        what="the API server to be stopped",
    )


def everything(one: Parts) -> dict[str, Callable[[], Any]]:
    """Everything that is asked of a cluster."""
    return {
        "get": lambda: one.router.get().weight,
        "settled": lambda: one.router.settled(one.router.get()),
        "problems": one.router.problems,
        "describe": lambda: one.router.describe()["object"],
        "owners": one.router.owners,
        "ready": lambda: one.workloads.ready("v1"),
        "build": lambda: one.workloads.build("v2"),
        "address": lambda: bool(one.workloads.address("v2")),
        "scale": lambda: one.workloads.scale("v2", 1),
        "approvals": lambda: one.approvals.allow(50),
        "rights": lambda: one.client.may("patch", TRAFFIC_SPLIT),
        "missing": lambda: one.client.find(CONFIG_MAP, "nothing"),
    }


@pytest.mark.parametrize("outage", ["stopped", "paused"])
def test_whatever_is_asked_during_an_outage_is_answered_after_it(
    cluster: Cluster, kubelet: Kubelet, parts: Callable[..., Parts], monkeypatch: pytest.MonkeyPatch, outage: str
) -> None:
    cluster.apply([*shop("gateway-api", canary=50), approvals()])
    accept_route(cluster)
    wait_ready(cluster)
    asked = everything(parts("gateway-api"))
    before = {name: ask() for name, ask in asked.items()}
    assert before["settled"] is True
    assert before["build"] == image_id("registry.example/shop:2").partition("@")[2]
    monkeypatch.setattr(client_module, "_TIMEOUT", (2.0, 2.0))

    answers: dict[str, Any] = {}

    def put_answer(name: str, ask: Callable[[], Any]) -> None:
        try:
            answers[name] = ask()
        except Exception as error:  # noqa: BLE001 - shown below
            answers[name] = error

    plane = cluster.plane
    plane.stop_api() if outage == "stopped" else pause(cluster)
    # Each over a client of its own, so that none learns from another that the server is away.
    threads = [
        threading.Thread(target=put_answer, args=(name, everything(parts("gateway-api"))[name])) for name in asked
    ]
    for thread in threads:
        thread.start()
    time.sleep(3.0)
    assert answers == {}
    (plane.start_api if outage == "stopped" else plane.resume_api)()
    for thread in threads:
        thread.join()
    assert answers == before


def test_a_server_that_is_starting_is_not_believed_when_it_says_that_there_is_nothing_or_that_we_may_not(
    cluster: Cluster, parts: Callable[..., Parts]
) -> None:
    cluster.apply([*shop(canary=50), approvals()])
    account(cluster, "gate", [(("get", "list"), ("*", "*")), (("patch",), ("", "configmaps"))])
    one = parts(kubeconfig=cluster.kubeconfig_for_service_account("gate"))
    wait_until(lambda: attempt(one.router.get), what="the rights")
    stop, wrong, rounds = threading.Event(), [], []

    def ask() -> None:
        while not stop.is_set():
            try:
                split = one.router.get()
                seen = (split.weight, split.untold, one.router.settled(split))
                if seen != (50, "", False):  # there is a Linkerd, and no profile
                    wrong.append(seen)
                if one.client.find(CONFIG_MAP, approvals_name("shop")) is None:
                    wrong.append("approvals are gone")
            except Unavailable as error:
                wrong.append(error)
            rounds.append(time.monotonic())

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        for _ in range(2):
            cluster.plane.stop_api()
            time.sleep(0.5)
            cluster.plane.start_api()
            back, count = time.monotonic(), len(rounds)
            wait_until(lambda count=count: len(rounds) > count + 3, seconds=LONG, what="a few answers")
            assert rounds[-1] > back
    finally:
        stop.set()
        thread.join()
    assert wrong == []


def test_a_server_that_tells_nobody_whether_it_is_ready_is_believed_after_a_while(
    cluster: Cluster, parts: Callable[..., Parts], monkeypatch: pytest.MonkeyPatch
) -> None:
    one = parts()
    send, asked = one.client._send, []

    def hidden(method: str, path: str, **options: Any) -> Any:
        if path == "/readyz":
            asked.append(path)
            path, options["header_params"] = "/forbidden", {"Impersonate-User": "nobody"}
        return send(method, path, **options)

    monkeypatch.setattr(one.client, "_send", hidden)
    monkeypatch.setattr(client_module, "_HIDDEN", 2.0)
    assert one.client.all(POD) == [], "what is answered with more than a refusal is an answer"
    assert one.client.find(CONFIG_MAP, "nothing") is None
    assert len(asked) > 2, "it was asked for a while"
    count = len(asked)
    assert one.client.find(CONFIG_MAP, "nothing") is None
    assert len(asked) <= count + 1, "and is believed from then on"


def test_of_a_server_that_is_never_ready_only_what_it_says_is_not_there_or_not_allowed_is_doubted(
    cluster: Cluster, parts: Callable[..., Parts], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster.apply(shop("istio"))
    one = parts("istio")
    send = one.client._send

    class NotReady(Exception):
        status, reason = 500, "[-]informer-sync failed"

    def red(method: str, path: str, **options: Any) -> Any:
        if path == "/readyz":
            raise NotReady
        return send(method, path, **options)

    monkeypatch.setattr(one.client, "_send", red)
    # One check that stays red must not keep an abort from being written.
    assert one.send(250).weight == 250
    assert one.send(0).weight == 0
    one.client.patience = 1.0
    with pytest.raises(Unavailable, match=r"it is not ready, and says: .*there is none") as unknown:
        one.client.find(CONFIG_MAP, "nothing")
    assert not isinstance(unknown.value, NotFound)


def test_a_read_gives_up_when_its_patience_is_over(cluster: Cluster, parts: Callable[..., Parts]) -> None:
    cluster.apply(shop())
    one = parts(patience=1.0)
    cluster.plane.stop_api()
    for ask in (one.router.get, one.router.problems, lambda: one.workloads.ready("v1")):
        with pytest.raises(Unavailable, match="context test: the API server does not answer") as away:
            ask()
        assert not isinstance(away.value, NotFound | Uncertain | Denied)
        assert away.value.exit_code == 3
        assert away.value.hint


# --- who we are and what we may -------------------------------------------------------------------------------------


def account(cluster: Cluster, name: str, rules: list[tuple[tuple[str, ...], tuple[str, str]]]) -> None:
    """A ServiceAccount with these rights: verbs, and group and resource."""
    api = "rbac.authorization.k8s.io"
    role = [{"apiGroups": [group], "resources": [resource], "verbs": list(verbs)} for verbs, (group, resource) in rules]
    cluster.apply(
        [
            {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name}},
            {"apiVersion": f"{api}/v1", "kind": "Role", "metadata": {"name": name}, "rules": role},
            {
                "apiVersion": f"{api}/v1",
                "kind": "RoleBinding",
                "metadata": {"name": name},
                "roleRef": {"apiGroup": api, "kind": "Role", "name": name},
                "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": cluster.namespace}],
            },
        ]
    )


RIGHTS: dict[str, tuple[str, str]] = {
    "list pods": ("", "pods"),
    "list services": ("", "services"),
    "list deployments": ("apps", "deployments"),
    "list endpointslices": ("discovery.k8s.io", "endpointslices"),
    "list trafficsplits": ("split.smi-spec.io", "trafficsplits"),
    "patch trafficsplits": ("split.smi-spec.io", "trafficsplits"),
    "list serviceprofiles": ("linkerd.io", "serviceprofiles"),
    "get configmaps": ("", "configmaps"),
    "patch configmaps": ("", "configmaps"),
    "patch deployments": ("apps", "deployments"),
    "patch deployments/scale": ("apps", "deployments/scale"),
    "get leases": ("coordination.k8s.io", "leases"),
    "create leases": ("coordination.k8s.io", "leases"),
    "patch leases": ("coordination.k8s.io", "leases"),
}


def use_every_right(cluster: Cluster, one: Parts) -> None:
    """What needs each of them, and no other."""
    one.router.settled(one.router.get())
    one.approvals.allow(0)
    one.workloads.scale("v2", 0)
    one.workloads.scale("v2", 1)
    with Lease(one.client, "parallelchange-x") as lease:
        lease._renew(one.client)
    one.send(50)


def test_each_right_that_is_missing_is_named_with_its_object_and_nothing_is_changed(
    cluster: Cluster, parts: Callable[..., Parts]
) -> None:
    cluster.apply([*shop(), approvals()])
    accounts = {
        "all": list(RIGHTS),
        **{f"none-{i}": [r for r in RIGHTS if r != right] for i, right in enumerate(RIGHTS)},
    }
    for name, rights in accounts.items():
        account(cluster, name, [((right.split()[0],), RIGHTS[right]) for right in rights])
    whole = parts(kubeconfig=cluster.kubeconfig_for_service_account("all"))

    def granted() -> bool:
        try:
            use_every_right(cluster, whole)
        except Denied:
            return False
        return True

    wait_until(granted, what="the rights")
    seen = {kind: versions(cluster, kind) for kind in (SPLITS, "configmaps")}
    for i, (right, (_, resource)) in enumerate(RIGHTS.items()):
        cluster.kubectl("delete", "lease", "parallelchange-x", "--ignore-not-found")
        if right == "patch leases":
            lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "parallelchange-x"}}
            cluster.apply(lease)
        one = parts(kubeconfig=cluster.kubeconfig_for_service_account(f"none-{i}"))
        with pytest.raises(Denied) as denied:
            use_every_right(cluster, one)
        told = denied.value
        verb = right.split()[0]
        assert f'cannot {verb} resource "{resource}"' in told.message, right
        assert f'in the namespace "{cluster.namespace}"' in told.message
        assert f"none-{i}" in told.message, "who it is that may not"
        assert told.message.startswith(f"context test: may not {verb} ")
        assert told.exit_code == 3
        assert "doctor" in (told.hint or "")
    assert {kind: versions(cluster, kind) for kind in seen} == seen


def versions(cluster: Cluster, kind: str) -> dict[str, str]:
    return {each["metadata"]["name"]: each["metadata"]["resourceVersion"] for each in cluster.list(kind)}


def test_a_token_that_is_no_good_is_told_and_a_renewed_one_is_taken_up(
    cluster: Cluster, parts: Callable[..., Parts]
) -> None:
    cluster.apply(shop())
    everything_ = [(("get", "list", "patch"), ("*", "*"))]
    account(cluster, "gate", everything_)
    kubeconfig = cluster.kubeconfig_for_service_account("gate")
    one = parts(kubeconfig=kubeconfig)
    wait_until(lambda: attempt(one.router.get), what="the rights")

    # Its account is made anew, as another one: the token is of nobody any more.
    cluster.kubectl("delete", "serviceaccount", "gate")
    cluster.kubectl("create", "serviceaccount", "gate")
    refused = ("get", "pods", "--output=name")
    wait_until(lambda: cluster.kubectl(*refused, kubeconfig=kubeconfig, check=False).returncode, what="its end")
    for ask in (one.router.get, lambda: one.workloads.ready("v1")):
        with pytest.raises(Denied, match="does not accept the credentials") as denied:
            ask()
        assert "log in again" in (denied.value.hint or "")
        assert denied.value.exit_code == 3
    assert canary(cluster) == 0

    cluster.kubeconfig_for_service_account("gate")  # writes the same file
    assert one.send(50).weight == 50


# --- kubeconfigs ----------------------------------------------------------------------------------------------------


def config_of(**changes: Any) -> dict[str, Any]:
    """A kubeconfig in which something is wrong."""
    whole = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "test", "cluster": {"server": "https://127.0.0.1:1"}}],
        "users": [{"name": "test", "user": {"token": "x"}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        "current-context": "test",
    }
    return {key: value for key, value in {**whole, **changes}.items() if value is not ...}


def with_cluster(**more: Any) -> dict[str, Any]:
    return config_of(clusters=[{"name": "test", "cluster": {"server": "https://127.0.0.1:1", **more}}])


BAD_FILES: list[Any] = [
    "",
    "{",
    "hello",
    "- a list",
    "a: [1",
    "\x00\x01",
    b"\xff\xfe\x00",
    {},
    config_of(contexts=...),
    config_of(contexts=5),
    config_of(contexts=[{}]),
    config_of(contexts=[{"name": "test"}]),
    config_of(contexts=[{"name": "test", "context": "test"}]),
    config_of(**{"current-context": ...}),
    config_of(**{"current-context": "elsewhere"}),
    config_of(**{"current-context": ""}),
    config_of(clusters=[]),
    config_of(clusters=[{"name": "test"}]),
    config_of(users=7),
    with_cluster(**{"certificate-authority": "/does/not/exist"}),
    with_cluster(**{"certificate-authority-data": "not base64"}),
]


@pytest.mark.parametrize("content", BAD_FILES, ids=lambda content: str(content)[:60])
def test_a_kubeconfig_that_cannot_be_used_is_the_callers_mistake(tmp_path: Path, content: Any) -> None:
    path = tmp_path / "config"
    path.write_bytes(content if isinstance(content, bytes) else
                     (content if isinstance(content, str) else json.dumps(content)).encode())  # fmt: skip
    with pytest.raises(UsageError) as mistake:
        connect(kubeconfig=path, patience=0.5).all(POD)
    assert mistake.value.exit_code == 2
    assert mistake.value.hint
    assert "\n" not in mistake.value.message


def test_a_kubeconfig_that_is_not_there_or_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in (tmp_path / "missing", tmp_path):
        with pytest.raises(UsageError, match="no cluster is configured"):
            connect(kubeconfig=path)
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "missing"))
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(tmp_path / "missing"))
    with pytest.raises(UsageError, match="no cluster is configured") as mistake:
        connect()
    assert "KUBECONFIG" in (mistake.value.hint or "")


def test_a_context_that_is_not_there_is_told_with_those_that_are(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(json.dumps(config_of()))
    with pytest.raises(UsageError, match="there is no context production") as mistake:
        connect(kubeconfig=path, context="production")
    assert mistake.value.hint == "the kubeconfig has test"


def test_context_and_namespace_are_the_ones_that_are_named(tmp_path: Path) -> None:
    path = tmp_path / "config"
    contexts = [
        {"name": "one", "context": {"cluster": "test", "user": "test"}},
        {"name": "two", "context": {"cluster": "test", "user": "test", "namespace": "shop"}},
    ]
    path.write_text(json.dumps(config_of(contexts=contexts, **{"current-context": "one"})))
    opened = [
        connect(kubeconfig=path),
        connect(kubeconfig=path, context="two"),
        connect(kubeconfig=path, context="two", namespace="cart"),
    ]
    assert [(each.name, each.namespace) for each in opened] == [
        ("context one", "default"),
        ("context two", "shop"),
        ("context two", "cart"),
    ]


@contextmanager
def answering(status: int, body: bytes) -> Iterator[str]:
    """The address of a server that always answers the same."""

    class Always(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_PATCH = do_GET  # noqa: N815 - as the library has it

        def log_message(self, *_: object) -> None:
            """Not in the tests' output."""

    with HTTPServer(("127.0.0.1", 0), Always) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (200, b"<html>log in</html>", "what it says is no object: b'<html>log in"),
        (200, b"", "what it says is no object: b''"),
        (200, b"[]", "what it says is no object"),
        (302, b"elsewhere", "302"),
        (500, b"broken", "does not answer"),
        (503, b'{"kind": "Status", "message": "shutting down"}', "shutting down"),
        (418, b'{"kind": "Status", "message": "a teapot"}', "418 a teapot"),
        (403, b"<html>no</html>", "it is not ready, and says: context test: may not list pods"),
    ],
)
def test_what_is_no_api_server_or_a_broken_one_is_unavailable(
    tmp_path: Path, status: int, body: bytes, told: str
) -> None:
    with answering(status, body) as address:
        path = tmp_path / "config"
        path.write_text(json.dumps(with_cluster(server=address)))
        client = connect(kubeconfig=path, patience=0.5)
        with pytest.raises(Unavailable) as away:
            client.all(POD)
        assert told in away.value.message
        assert "\n" not in away.value.message
        assert away.value.hint
        with pytest.raises(Unavailable) as written:
            client.patch(DEPLOYMENT, "shop", {})
        # Of an answer nobody understands it is not known what was done.
        assert isinstance(written.value, Uncertain) == (status in (200, 403, 500, 503))
        client.close()


def test_a_server_that_does_not_answer_or_is_somebody_else_is_unavailable(cluster: Cluster, tmp_path: Path) -> None:
    path = tmp_path / "config"
    with closing(socket.create_server(("127.0.0.1", 0))) as silent:
        for address, told in (
            ("https://127.0.0.1:1", "refused"),
            (f"https://127.0.0.1:{silent.getsockname()[1]}", "timed out"),
            ("https://does-not-exist.invalid", "does-not-exist.invalid"),
            (cluster.plane.url, "certificate verify failed"),
        ):
            path.write_text(json.dumps(with_cluster(server=address)))
            client = connect(kubeconfig=path, patience=0.5)
            with pytest.raises(Unavailable, match="context test: the API server does not answer") as away:
                client.read(LEASE, "x")
            assert told in away.value.message
            assert away.value.exit_code == 3
            assert "kubeconfig" in (away.value.hint or "")
            client.close()


def test_an_object_of_that_name_that_is_there_already_is_no_success(cluster: Cluster) -> None:
    client = client_of(cluster)
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "one"}}
    client.create(CONFIG_MAP, body)
    with pytest.raises(Busy, match="is there already"):
        client.create(CONFIG_MAP, body)
    with pytest.raises(NotFound, match="/two: there is none"):
        client.patch(CONFIG_MAP, "two", {})
    client.close()
