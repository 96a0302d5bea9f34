"""Who runs the rollout: one process at a time, whoever is killed, stopped or cut off, and whatever others write."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from helpers.app import CANARY, RESOURCES, STABLE, client_of, cluster_change, put, shop, wait_ready, weights_of
from helpers.controlplane import Cluster, wait_until
from helpers.kubelet import Kubelet
from helpers.world import Scene, scene_of, walk
from urllib3.exceptions import ProtocolError

from parallelchange.adapters.kubernetes.client import Cluster as Client
from parallelchange.adapters.kubernetes.lease import Lease
from parallelchange.adapters.kubernetes.routers import make_router
from parallelchange.adapters.kubernetes.running import Running
from parallelchange.errors import Busy, Uncertain
from parallelchange.gates.base import Act
from parallelchange.layout import BREAK_GLASS
from parallelchange.rollout.advance import abort
from parallelchange.rollout.decide import Decision, Kind
from parallelchange.rollout.run import promote, rollout
from parallelchange.rollout.world import Event, World, silent

pytestmark = pytest.mark.xdist_group("cluster")

NAME = "parallelchange-split-name"
SHORT, LONG = 3.0, 60.0
"""Seconds: one that is over soon, and one that is not over before the test is."""
HOLDER = """
import sys, time
from pathlib import Path
from parallelchange.adapters.kubernetes.client import connect
from parallelchange.adapters.kubernetes.lease import Lease
from parallelchange.errors import Busy
with Lease(connect(kubeconfig=Path(sys.argv[1])), sys.argv[2], duration=float(sys.argv[3])) as lease:
    print(lease.identity, flush=True)
    for line in sys.stdin:
        try:
            lease.check()
            print("ours", flush=True)
        except Busy as lost:
            print(lost.message, flush=True)
"""


@pytest.fixture
def client(cluster: Cluster) -> Iterator[Client]:
    client = client_of(cluster, patience=LONG)
    yield client
    client.close()


def spec(cluster: Cluster) -> dict[str, Any]:
    found = cluster.kubectl("get", "lease", NAME, "--output=json", check=False)
    return dict(json.loads(found.stdout)["spec"]) if not found.returncode else {}


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def patch(cluster: Cluster, **changes: Any) -> None:
    cluster.kubectl("patch", "lease", NAME, "--type=merge", f"--patch={json.dumps({'spec': changes})}")


@contextmanager
def another_process(cluster: Cluster, duration: float) -> Iterator[subprocess.Popen[str]]:
    """One that holds the Lease, and says of every line it is sent whether the Lease is still its own."""
    command = [sys.executable, "-c", HOLDER, str(cluster.kubeconfig), NAME, str(duration)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def say(process: subprocess.Popen[str]) -> str:
    assert process.stdin
    assert process.stdout
    process.stdin.write("?\n")
    process.stdin.flush()
    return process.stdout.readline().strip()


# --- taking, keeping and letting go ---------------------------------------------------------------------------------


def test_a_free_lease_is_taken_renewed_and_let_go(cluster: Cluster, client: Client) -> None:
    for transitions in range(2):
        with Lease(client, NAME, duration=SHORT) as lease:
            lease.check()
            found = spec(cluster)
            assert found["holderIdentity"] == lease.identity
            assert found["leaseDurationSeconds"] == SHORT
            assert found["leaseTransitions"] == transitions
            for _ in range(2):
                last = spec(cluster)["renewTime"]
                wait_until(lambda last=last: moment(spec(cluster)["renewTime"]) > moment(last), what="a renewal")
            assert spec(cluster)["acquireTime"] == found["acquireTime"]
            lease.check()
        assert "holderIdentity" not in spec(cluster), "whoever waits need not wait until it runs out"


def test_each_process_has_an_identity_of_its_own(client: Client) -> None:
    one, other = Lease(client, NAME), Lease(client, NAME)
    assert one.identity != other.identity
    assert str(os.getpid()) in one.identity


@pytest.mark.parametrize("there", [False, True], ids=["new", "let go"])
def test_of_two_that_come_at_once_exactly_one_gets_it(cluster: Cluster, there: bool) -> None:
    clients = [client_of(cluster) for _ in range(3)]
    if there:
        with Lease(clients[0], NAME, duration=LONG):
            pass
    together, got, refused = threading.Barrier(len(clients)), [], []
    over = threading.Event()

    def come(client: Client) -> None:
        together.wait()
        try:
            with Lease(client, NAME, duration=LONG) as lease:
                got.append(lease.identity)
                over.wait(LONG)
                lease.check()
        except Busy as busy:
            refused.append(busy.message)
        if len(refused) == len(clients) - 1:
            over.set()

    threads = [threading.Thread(target=come, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    [holder] = got
    assert len(refused) == len(clients) - 1
    assert all(f"is held by {holder}, which is alive" in message for message in refused)
    for client in clients:
        client.close()


def test_one_that_stands_by_waits_until_the_other_lets_go(cluster: Cluster, client: Client) -> None:
    told: list[str] = []
    second = Lease(client, NAME, stand_by=True, tell=told.append, duration=LONG)
    with Lease(client, NAME, duration=LONG) as first:
        thread = threading.Thread(target=second.__enter__)
        thread.start()
        wait_until(lambda: told, what="the second to wait")
        assert first.identity in told[0]
        assert spec(cluster)["holderIdentity"] == first.identity
    thread.join()
    assert spec(cluster)["holderIdentity"] == second.identity
    second.check()
    second.__exit__(None, None, None)
    assert len(told) == 1, "it is told once for each holder"


def test_a_lease_of_somebody_whose_clock_is_wrong_is_his_while_he_renews_it(cluster: Cluster, client: Client) -> None:
    with Lease(client, NAME, duration=1.0):
        pass
    old = "2001-01-01T00:00:00.000000Z"
    patch(cluster, holderIdentity="elsewhere", renewTime=old, leaseDurationSeconds=int(LONG))
    stop = threading.Event()

    def renew() -> None:
        number = 0
        while not stop.wait(0.2):
            number += 1
            patch(cluster, renewTime=f"2001-01-01T00:00:00.{number:06}Z")

    thread = threading.Thread(target=renew)
    thread.start()
    try:
        with pytest.raises(Busy, match="held by elsewhere, which is alive"), Lease(client, NAME, duration=1.0):
            raise AssertionError
    finally:
        stop.set()
        thread.join()


# --- holders that are gone, stopped or robbed -----------------------------------------------------------------------


def test_after_a_kill_exactly_one_of_two_takes_it_over_and_not_before_its_time(cluster: Cluster) -> None:
    clients = [client_of(cluster) for _ in range(2)]
    with another_process(cluster, SHORT) as holder:
        assert holder.stdout
        first = holder.stdout.readline().strip()
        assert say(holder) == "ours"
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        last = spec(cluster)
        assert last["holderIdentity"] == first
        leases = [Lease(each, NAME, stand_by=True, duration=SHORT) for each in clients]
        entered: list[Lease] = []

        def enter(lease: Lease) -> None:
            lease.__enter__()
            entered.append(lease)

        threads = [threading.Thread(target=enter, args=(lease,)) for lease in leases]
        for thread in threads:
            thread.start()
        wait_until(lambda: entered, seconds=LONG, what="one of the two")
        taken = spec(cluster)
        assert taken["holderIdentity"] == entered[0].identity
        assert taken["leaseTransitions"] == last["leaseTransitions"] + 1
        waited = moment(taken["acquireTime"]) - moment(last["renewTime"])
        assert waited.total_seconds() >= SHORT
        # The other one waits for as long as this one renews it.
        for _ in range(3):
            entered[0].check()
            renewed = spec(cluster)["renewTime"]
            wait_until(lambda renewed=renewed: spec(cluster)["renewTime"] != renewed, what="a renewal")
            assert len(entered) == 1
        entered[0].__exit__(None, None, None)
        for thread in threads:
            thread.join()
        assert len(entered) == 2
        entered[1].__exit__(None, None, None)
    for each in clients:
        each.close()


def test_one_that_was_stopped_for_too_long_finds_that_another_goes_on(cluster: Cluster, client: Client) -> None:
    with another_process(cluster, SHORT) as holder:
        assert holder.stdout
        holder.stdout.readline()
        assert say(holder) == "ours"
        holder.send_signal(signal.SIGSTOP)
        try:
            with Lease(client, NAME, duration=SHORT) as lease:
                holder.send_signal(signal.SIGCONT)
                assert f"{lease.identity} holds it" in say(holder)
                lease.check()
                assert f"{lease.identity} holds it" in say(holder), "and it stays lost"
        finally:
            holder.send_signal(signal.SIGCONT)


def test_a_lease_that_somebody_else_takes_is_lost_and_left_to_him(cluster: Cluster, client: Client) -> None:
    with Lease(client, NAME, duration=SHORT) as lease:
        patch(cluster, holderIdentity="elsewhere")
        lost = wait_until(lambda: refusal(lease), what="the loss")
        assert f"Lease {cluster.namespace}/{NAME} is lost: elsewhere holds it" in lost
    assert spec(cluster)["holderIdentity"] == "elsewhere"


def refusal(lease: Lease) -> str:
    try:
        lease.check()
    except Busy as busy:
        return busy.message
    return ""


def test_a_lease_that_is_deleted_is_lost(cluster: Cluster, client: Client) -> None:
    with Lease(client, NAME, duration=SHORT) as lease:
        cluster.kubectl("delete", "lease", NAME)
        assert "somebody has deleted it" in wait_until(lambda: refusal(lease), what="the loss")
    assert spec(cluster) == {}, "it is not made again"


# --- outages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("outage", ["stopped", "paused"])
def test_an_outage_that_is_shorter_than_the_lease_goes_unnoticed(cluster: Cluster, client: Client, outage: str) -> None:
    plane = cluster.plane
    with Lease(client, NAME, duration=15.0) as lease:
        (plane.stop_api if outage == "stopped" else plane.pause_api)()
        until = time.monotonic() + 8.0
        while time.monotonic() < until:
            lease.check()
            time.sleep(0.1)
        (plane.start_api if outage == "stopped" else plane.resume_api)()
        back = datetime.now(UTC)
        wait_until(lambda: moment(spec(cluster)["renewTime"]) > back, what="a renewal after it")
        lease.check()
        assert spec(cluster)["holderIdentity"] == lease.identity
        assert spec(cluster)["leaseTransitions"] == 0


def test_during_a_longer_outage_nothing_may_be_done_and_afterwards_it_is_ours_again(
    cluster: Cluster, client: Client
) -> None:
    answers: list[str] = []
    with Lease(client, NAME, duration=SHORT) as lease:
        cluster.plane.stop_api()
        wait_until(lambda: time.monotonic() - lease._renewed > SHORT, what="the lease to run out")
        thread = threading.Thread(target=lambda: answers.append(refusal(lease)))
        thread.start()
        time.sleep(1.0)
        assert answers == [], "it neither goes on nor gives up"
        cluster.plane.start_api()
        thread.join()
        assert answers == [""]
        assert spec(cluster)["holderIdentity"] == lease.identity


def test_an_outage_that_lasts_too_long_ends_it_with_what_was_answered(cluster: Cluster, client: Client) -> None:
    with Lease(client, NAME, duration=SHORT) as lease:
        client.patience = 1.0
        cluster.plane.stop_api()
        wait_until(lambda: time.monotonic() - lease._renewed > SHORT, what="the lease to run out")
        with pytest.raises(Busy, match=r"could not be renewed in time: .*the API server does not answer") as lost:
            lease.check()
        assert "another rollout may go on" in (lost.value.hint or "")
        assert lost.value.exit_code == 3
    cluster.plane.start_api()


class LostAnswer:
    """Carries out the next request of that method, and loses its answer."""

    def __init__(self, client: Client, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
        self.send, self.method, self.lost = client._send, method, 0
        monkeypatch.setattr(client, "_send", self)

    def __call__(self, method: str, path: str, **options: Any) -> Any:
        answer = self.send(method, path, **options)
        if method == self.method and not self.lost:
            self.lost += 1
            _ = answer.data  # else its connection would be left open
            raise ProtocolError("the connection was cut")
        return answer


@pytest.mark.parametrize("method", ["post", "patch"])
def test_one_that_was_taken_and_whose_answer_was_lost_is_ours_at_once(
    cluster: Cluster, client: Client, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    if method == "patch":
        with Lease(client, NAME):
            pass
    told: list[str] = []
    loser = LostAnswer(client, monkeypatch, method)
    # Otherwise it would wait for itself, for all of its duration.
    with Lease(client, NAME, tell=told.append, duration=3600.0) as lease:
        assert loser.lost == 1
        lease.check()
        assert told == []
        assert spec(cluster)["holderIdentity"] == lease.identity


# --- two rollouts of one change, on a real database -----------------------------------------------------------------

ROUTER = "istio"
"""One whose mesh has no way to tell whether it follows: that is not what this is about."""
Worlds = Callable[..., World]


@pytest.fixture
def scene(database: str, tmp_path: Path) -> Iterator[Scene]:
    with scene_of(database, tmp_path) as scene:
        yield scene


@pytest.fixture
def worlds(cluster: Cluster, kubelet: Kubelet, scene: Scene) -> Iterator[Worlds]:
    """Opens worlds on one change, each with sessions and a client of its own as another process has."""
    clients: list[Client] = []
    cluster.apply(shop(ROUTER))
    wait_ready(cluster)

    def make(tell: Callable[[Event], None] = silent, *, lead: bool = True) -> World:
        client, change = client_of(cluster, patience=LONG), cluster_change(ROUTER)
        clients.append(client)
        world = replace(scene.world(tell), router=make_router(change, client, Running(client, change)))
        return replace(world, lead=lambda: Lease(client, NAME, duration=SHORT)) if lead else world

    yield make
    for client in clients:
        client.close()


def canary(cluster: Cluster) -> float:
    weights = weights_of(cluster, ROUTER)
    return float(weights[CANARY] / sum(weights.values()))


def annotate(cluster: Cluster, key: str, text: str) -> None:
    cluster.kubectl("annotate", "--overwrite", RESOURCES[ROUTER], "shop", f"{key}={text}")


def test_a_whole_rollout_moves_the_traffic_of_the_cluster(cluster: Cluster, worlds: Worlds) -> None:
    weights: list[str] = []
    world = worlds(lambda event: weights.append(event.what) if event.kind == "weight" else None)
    decision = rollout(world)
    assert (decision.kind, decision.why) == (Kind.DONE, "a-change is contracted: v2 alone is left")
    assert weights == ["5%", "100%"]
    assert canary(cluster) == 1
    assert "holderIdentity" not in spec(cluster)


@pytest.mark.parametrize("lead", [True, False], ids=["by the Lease", "by the database alone"])
def test_of_two_rollouts_exactly_one_goes_on(cluster: Cluster, worlds: Worlds, lead: bool) -> None:
    together, ended = threading.Barrier(2), []

    def run(world: World) -> None:
        together.wait()
        try:
            ended.append(rollout(world))
        except Busy as busy:
            ended.append(busy)

    # What both do is told: an act that was done twice would show.
    acts: list[str] = []
    tell = lambda event: acts.append(event.what) if event.kind in ("applied", "weight") else None  # noqa: E731
    threads = [threading.Thread(target=run, args=(worlds(tell, lead=lead),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    done = [each for each in ended if isinstance(each, Decision) and each.kind is Kind.DONE]
    assert done
    assert acts == ["expand", "5%", "100%", "contract"]
    for each in ended:
        if isinstance(each, Busy):
            assert each.hint
            assert "alive" in each.message or "another" in each.message
    assert canary(cluster) == 1


def test_a_weight_that_is_edited_by_hand_halts_the_rollout_with_the_reason_given(
    cluster: Cluster, worlds: Worlds
) -> None:
    def at_five(event: Event) -> None:
        if event.kind == "weight" and event.what == "5%":
            put(cluster, ROUTER, [(STABLE, 70), (CANARY, 30)])
            annotate(cluster, BREAK_GLASS, "INC-7: the old one is down")

    decision = rollout(worlds(at_five))
    assert decision.kind is Kind.HALTED
    assert "gives v2 30%, and the ledger has 5%: somebody else moved the traffic" in decision.why
    assert "breaking the glass: INC-7: the old one is down" in decision.why
    assert canary(cluster) == 0.3
    assert rollout(worlds()).kind is Kind.HALTED, "and it stays halted"
    # An abort is the way out, and clears the reason: who moves traffic after that gave none.
    abort(worlds(), "as INC-7 says")
    assert canary(cluster) == 0
    put(cluster, ROUTER, [(STABLE, 80), (CANARY, 20)])
    again = rollout(worlds(), again=True)
    assert again.kind is Kind.HALTED
    assert "INC-7" not in again.why


def test_a_weight_that_is_edited_between_the_decision_and_the_write_is_never_written_over(
    cluster: Cluster, worlds: Worlds
) -> None:
    conflicts: list[str] = []
    world = worlds(lambda event: conflicts.append(event.what) if event.kind == "conflict" else None)
    edits = [lambda: put(cluster, ROUTER, [(STABLE, 70), (CANARY, 30)])]

    class Edited:
        """The approvals are the last thing that is written before the weight."""

        def allow(self, weight: int, *, until: float | None = None) -> None:
            if edits:
                edits.pop()()

        def release(self) -> None:
            """Nothing."""

    decision = rollout(replace(world, enforcement=Edited()))
    assert decision.kind is Kind.HALTED
    assert "gives v2 30%, and the ledger has 0%" in decision.why
    assert len(conflicts) == 1
    assert canary(cluster) == 0.3


def test_a_rollout_that_loses_its_lease_stops_before_its_next_act(cluster: Cluster, worlds: Worlds) -> None:
    leases: list[Lease] = []

    def at_five(event: Event) -> None:
        if event.kind == "weight" and event.what == "5%":
            patch(cluster, holderIdentity="elsewhere")
            wait_until(lambda: leases[0]._lost, what="the loss to be seen")

    world = worlds(at_five)

    def lead() -> Lease:
        leases.append(Lease(world.router.cluster, NAME, duration=SHORT))
        return leases[0]

    with pytest.raises(Busy, match="elsewhere holds it"):
        rollout(replace(world, lead=lead))
    assert canary(cluster) == 0.05


@pytest.mark.parametrize("written", [True, False], ids=["written", "not written"])
def test_the_run_after_one_that_was_cut_off_finds_out_what_became_of_its_write(
    cluster: Cluster, worlds: Worlds, monkeypatch: pytest.MonkeyPatch, written: bool
) -> None:
    world = worlds()
    walk(world, Act.SET_WEIGHT)
    client = world.router.cluster
    send = client._send

    def cut_off(method: str, path: str, **options: Any) -> Any:
        # From the first write on nothing comes back, whether it arrives or not.
        if method == "patch" and written:
            _ = send(method, path, **options).data
        if method == "patch" or cut_off.begun:
            cut_off.begun, client.patience = True, 0.5
            raise ProtocolError("the connection was cut")
        return send(method, path, **options)

    cut_off.begun = False
    monkeypatch.setattr(client, "_send", cut_off)
    with pytest.raises(Uncertain):
        promote(world, 50)
    record = world.ledger.read()
    assert record
    assert record.pending
    assert (record.pending["act"], record.pending["weight"]) == (Act.SET_WEIGHT, 50)
    assert canary(cluster) == (0.05 if written else 0)

    again = worlds()
    decision = promote(again, 50)
    assert decision.kind is (Kind.DONE if written else Kind.DO), decision.why
    record = again.ledger.read()
    assert record
    assert (record.weight, record.pending) == (50, None)
    assert canary(cluster) == 0.05


def test_an_abort_wins_over_a_rollout_that_was_about_to_move_traffic(cluster: Cluster, worlds: Worlds) -> None:
    other: list[World] = []

    def before_all(event: Event) -> None:
        decision = event.data.get("decision")
        if other and decision and decision.act is Act.SET_WEIGHT and decision.weight == 1000:
            abort(other.pop(), "by hand")

    world = worlds(before_all)
    other.append(worlds())
    decision = rollout(world)
    assert decision.kind is Kind.BLOCKED
    assert "it was aborted: by hand" in decision.why
    assert canary(cluster) == 0
