"""Watches wake a rollout that waits, and never tell it anything."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Self

import pytest
from helpers.app import CANARY, IMAGES, STABLE, client_of, cluster_change, put, shop, wait_ready
from helpers.controlplane import Cluster, wait_until
from helpers.kubelet import Kubelet
from helpers.world import scene_of

from parallelchange.adapters.kubernetes.client import Cluster as Client
from parallelchange.adapters.kubernetes.kinds import CONFIG_MAP, LEASE, POD, SERVICE, Kind
from parallelchange.adapters.kubernetes.routers import make_router
from parallelchange.adapters.kubernetes.running import Running
from parallelchange.adapters.kubernetes.watch import Watcher
from parallelchange.errors import Gone, Unavailable
from parallelchange.rollout import decide as decisions
from parallelchange.rollout.run import rollout
from parallelchange.rollout.world import Event

pytestmark = pytest.mark.xdist_group("cluster")

LONG = 120.0
"""Seconds that pass only where nothing wakes."""


class Wakes:
    """A watcher whose waits are counted in a thread of its own, as a rollout's are."""

    def __init__(self, client: Client, *kinds: Kind) -> None:
        self.watcher = Watcher(client, kinds or (CONFIG_MAP,))
        self.count = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        wait_until(lambda: self.watcher.listed == len(self.watcher.kinds), what="the watches")
        return self

    def __exit__(self, *arguments: object) -> None:
        self._stop.set()
        self.watcher._changed.set()
        self._thread.join()
        self.watcher.__exit__(*arguments)

    def _run(self) -> None:
        while not self._stop.is_set():
            self.watcher.wait(LONG)
            self.count += 1

    def woken_by(self, act: Callable[[], Any]) -> None:
        """Wait until it is woken after that; what came before is let come first."""
        wait_until(self._calm, what="no wakes")
        before = self.count
        act()
        wait_until(lambda: self.count > before, what="being woken")

    def _calm(self) -> bool:
        before = self.count
        time.sleep(0.5)
        return self.count == before


@pytest.fixture
def client(cluster: Cluster) -> Iterator[Client]:
    client = client_of(cluster, patience=LONG)
    yield client
    client.close()


def made(cluster: Cluster, name: str) -> Callable[[], Any]:
    return lambda: cluster.kubectl("create", "configmap", name)


def test_it_wakes_on_what_is_made_changed_and_deleted(cluster: Cluster, client: Client) -> None:
    with Wakes(client) as wakes:
        wakes.woken_by(made(cluster, "one"))
        wakes.woken_by(lambda: cluster.kubectl("annotate", "configmap", "one", "x=y"))
        wakes.woken_by(lambda: cluster.kubectl("delete", "configmap", "one"))
        assert wakes.watcher.listed == 1


def test_it_watches_every_kind_and_its_own_namespace_only(cluster: Cluster, client: Client) -> None:
    lease = {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": {"name": "one"}}
    service = {**shop()[2], "metadata": {"name": "one"}}
    other = cluster.plane.new_cluster()
    try:
        # Kinds that no controller has a hand in.
        with Wakes(client, LEASE, SERVICE) as wakes:
            wakes.woken_by(lambda: cluster.apply(lease))
            wakes.woken_by(lambda: cluster.apply(service))
            wait_until(wakes._calm, what="no wakes")
            before = wakes.count
            other.apply([lease, service])
            made(cluster, "one")()
            assert wakes._calm()
            assert wakes.count == before
    finally:
        other.close()


def test_it_waits_no_longer_than_it_is_told_to(client: Client) -> None:
    with Watcher(client, (CONFIG_MAP,)) as watcher:
        wait_until(lambda: waited(watcher) and watcher.listed, what="the watch")
        for _ in range(3):
            assert waited(watcher), "nothing changes, so it is time alone that ends this"


def waited(watcher: Watcher) -> bool:
    watcher.wait(0.2)
    return True


def test_a_change_while_nobody_waits_ends_the_next_wait(cluster: Cluster, client: Client) -> None:
    with Watcher(client, (CONFIG_MAP,)) as watcher:
        wait_until(lambda: waited(watcher) and watcher.listed, what="the watch")
        made(cluster, "one")()
        wait_until(watcher._changed.is_set, what="the change")
        began = time.monotonic()
        watcher.wait(LONG)
        assert time.monotonic() - began < LONG


def test_after_a_restart_of_the_api_server_it_goes_on(cluster: Cluster, client: Client) -> None:
    with Wakes(client) as wakes:
        wakes.woken_by(made(cluster, "one"))
        wakes.woken_by(cluster.plane.stop_api)
        cluster.plane.start_api()
        wakes.woken_by(made(cluster, "two"))


def test_a_stream_that_breaks_off_wakes_and_what_it_missed_comes_with_the_next(
    cluster: Cluster, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut, stream = threading.Event(), client.stream

    def unreliable(*arguments: Any) -> Iterator[Any]:
        for event in stream(*arguments):
            if cut.is_set():
                cut.clear()
                raise Unavailable("cut off")
            seen.append(event)
            yield event

    seen: list[Any] = []
    monkeypatch.setattr(client, "stream", unreliable)
    with Wakes(client) as wakes:
        wakes.woken_by(made(cluster, "one"))
        cut.set()
        wakes.woken_by(made(cluster, "two"))
        wait_until(lambda: [kind for kind, _ in seen].count("ADDED") >= 2, what="what was missed")
        assert wakes.watcher.listed == 1
    assert not cut.is_set()


def compact(cluster: Cluster) -> None:
    """Have etcd forget all versions but the newest, as it does every few minutes."""
    import http.client

    def ask(path: str, body: dict[str, Any]) -> dict[str, Any]:
        connection = http.client.HTTPConnection("127.0.0.1", cluster.plane._etcd_port.number, timeout=30)
        try:
            connection.request("POST", path, json.dumps(body))
            return dict(json.loads(connection.getresponse().read()))
        finally:
            connection.close()

    revision = ask("/v3/kv/range", {"key": "AA=="})["header"]["revision"]
    ask("/v3/kv/compaction", {"revision": revision, "physical": True})


def test_where_it_would_go_on_from_is_gone_it_lists_again_and_wakes(cluster: Cluster, client: Client) -> None:
    made(cluster, "one")()
    _, version = client.listing(CONFIG_MAP)
    for number in range(3):
        made(cluster, f"more-{number}")()
    cluster.plane.stop_api()  # it keeps a while of its own
    compact(cluster)
    cluster.plane.start_api()
    with pytest.raises(Gone, match="configmaps"):
        list(client.stream(CONFIG_MAP, version, 5.0))
    with pytest.raises(Gone):
        list(client.stream(CONFIG_MAP, "1", 5.0))

    watcher = Watcher(client, (CONFIG_MAP,))
    listing, first = client.listing, [version]

    def old_at_first(kind: Kind) -> Any:
        return ([], first.pop()) if first else listing(kind)

    client.listing = old_at_first  # type: ignore[method-assign]
    wakes = Wakes(client)
    wakes.watcher = watcher
    wakes._thread.start()
    wait_until(lambda: watcher.listed == 2, what="the second list")
    wait_until(lambda: wakes.count, what="being woken: something may have been missed")
    wakes.woken_by(made(cluster, "two"))
    wakes.__exit__(None, None, None)


def test_a_stream_that_ends_goes_on_where_it_was(
    cluster: Cluster, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun: list[str] = []
    stream = client.stream

    def short(kind: Kind, version: str, _: float) -> Iterator[Any]:
        begun.append(version)
        return stream(kind, version, 1.0)

    monkeypatch.setattr(client, "stream", short)
    with Wakes(client) as wakes:
        wakes.woken_by(made(cluster, "one"))
        wait_until(lambda: len(begun) > 2, what="a few streams")
        assert int(begun[-1]) > int(begun[0])
        wakes.woken_by(made(cluster, "two"))
        assert wakes.watcher.listed == 1


def test_what_may_not_be_watched_wakes_now_and_then_and_breaks_nothing(cluster: Cluster) -> None:
    cluster.kubectl("create", "serviceaccount", "nobody")
    client = client_of(cluster, kubeconfig=cluster.kubeconfig_for_service_account("nobody"))
    with Watcher(client, (POD,)) as watcher:
        for _ in range(2):
            began = time.monotonic()
            watcher.wait(LONG)
            assert time.monotonic() - began < LONG
        assert watcher.listed == 0
    client.close()


# --- a watch that tells nothing -------------------------------------------------------------------------------------


def test_a_watch_that_stalls_never_leads_to_a_decision_on_what_was(
    cluster: Cluster, kubelet: Kubelet, database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traffic is moved by hand while the watch is silent: the rollout's very next decision knows of it."""
    client, change = client_of(cluster, patience=LONG), cluster_change("istio")
    stalled = threading.Event()

    def silent(*_: Any) -> Iterator[Any]:
        stalled.wait(LONG)
        return iter(())

    monkeypatch.setattr(client, "stream", silent)
    monkeypatch.setattr(decisions, "TICK", 0.2)
    cluster.apply(shop("istio"))
    wait_ready(cluster)
    seen: list[str] = []
    edited: list[int] = []

    def tell(event: Event) -> None:
        if event.kind == "decision":
            seen.append(event.what)
            if "soak" in event.what and not edited:
                edited.append(len(seen))
                put(cluster, "istio", [(STABLE, 70), (CANARY, 30)])

    router = make_router(change, client, Running(client, change))
    with scene_of(database, tmp_path) as scene, Watcher(client, (router.form.served(), POD)) as watcher:
        world = scene.world(tell)
        traffic = replace(world.plan.change.traffic, soak=3600.0)
        plan = replace(world.plan, change=replace(world.plan.change, traffic=traffic))
        decision = rollout(replace(world, plan=plan, router=router, pause=watcher.wait))
        stalled.set()
    assert "gives v2 30%" in decision.why
    assert len(seen) == edited[0] + 1, "no decision in between was taken on what was"
    client.close()


def test_a_version_that_changes_while_the_watch_is_silent_is_seen_at_the_next_look(
    cluster: Cluster, kubelet: Kubelet
) -> None:
    client, change = client_of(cluster), cluster_change()
    cluster.apply(shop(canary=250))
    wait_ready(cluster)
    router = make_router(change, client, Running(client, change))
    for image, told in ((IMAGES["v3"], True), (IMAGES["v2"], False)):
        cluster.kubectl("set", "image", "deployment/shop-canary", f"shop={image}")
        cluster.kubectl("rollout", "status", "deployment/shop-canary", "--timeout=60s")
        wait_until(lambda told=told: bool(router.get().untold) is told, what="the end of the rollout")
        assert router.get().weight == 250
    client.close()
