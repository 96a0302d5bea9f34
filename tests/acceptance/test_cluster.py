"""A guarded canary from end to end: a real API server and its policies, a real Envoy and PostgreSQL, both versions."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from helpers.app import wait_ready
from helpers.controlplane import Cluster
from helpers.mesh import ClusterMesh, processes_as_pods
from helpers.prometheus import NoPrometheus, Prometheus, Scraped, find_prometheus

from acceptance.conftest import CLI, clean_env, run, wait_until
from parallelchange.adapters.local_workloads import LocalWorkloads
from parallelchange.local.checker import check
from parallelchange.local.shop import ShopStage
from parallelchange.model import format_weight

pytestmark = pytest.mark.xdist_group("demo")  # as heavy as a demo, so never beside one

SPLIT = "shop-azure-pipelines-rollout"
ROWS = 20_000
IMAGES = {"PARALLELCHANGE_IMAGE_OLD": "registry.example/shop:1", "PARALLELCHANGE_IMAGE_NEW": "registry.example/shop:2"}


@dataclass
class Scene:
    """All of it, running."""

    stage: ShopStage
    cluster: Cluster
    env: dict[str, str]

    def start(self, log: Path, *arguments: str) -> subprocess.Popen[bytes]:
        """`rollout`, as its pod would run it: with the gate's ServiceAccount."""
        command = [*CLI, "rollout", str(self.stage.change), *arguments]
        with log.open("ab") as out:
            return subprocess.Popen(command, stdout=out, stderr=out, env=clean_env(self.env), stdin=subprocess.DEVNULL)

    def weight(self) -> int:
        """The canary's share in the API server, in thousandths."""
        backends = self.cluster.get("trafficsplit", SPLIT)["spec"]["backends"]
        return int(next(b["weight"] for b in backends if b["service"] == "shop-canary"))

    def patch(self, canary: int) -> subprocess.CompletedProcess[str]:
        """What somebody in a hurry types, as the cluster's administrator."""
        weights = {"shop-stable": 1000 - canary, "shop-baseline": 0, "shop-canary": canary}
        backends = [{"service": name, "weight": weight} for name, weight in weights.items()]
        body = json.dumps({"spec": {"backends": backends}})
        return self.cluster.kubectl("patch", "trafficsplit", SPLIT, "--type=merge", "-p", body, check=False)


def adapt(stage: ShopStage) -> None:
    """The example's change, for a cluster; the processes' ports are this machine's."""
    workloads = LocalWorkloads(stage.state_dir)
    text = stage.change.read_text()
    for version in ("shop-v1", "shop-v2"):
        wait_until(f"{version} is ready", lambda version=version: workloads.address(version))
        text = text.replace("http://{host}", f"http://{workloads.address(version)}", 1)
    text = text.replace("router: local", "router: smi").replace("drain_timeout: 10s", "drain_timeout: 30s")
    text = text.replace("<= 500ms", "<= 9s")  # a slow day fails no test
    text = text.replace("min_requests: 30", "min_requests: 5")
    stage.change.write_text(text.replace("metrics:\n", "metrics:\n  queries: envoy\n"))


@contextmanager
def prometheus_of(folder: Path, envoy: int) -> Iterator[str]:
    """The address of a Prometheus that reads Envoy's own figures."""
    try:
        program = find_prometheus()
    except NoPrometheus as reason:
        pytest.skip(f"no Prometheus: {reason}")
    folder.mkdir()
    prometheus = Prometheus(folder, program, [Scraped(envoy, "/stats/prometheus")])
    prometheus.start()
    try:
        yield prometheus.url
    finally:
        prometheus.stop()


@contextmanager
def scene_of(cluster: Cluster, folder: Path) -> Iterator[Scene]:
    """Postgres, both versions, Envoy and its load; the emitted objects applied; and all of it tied together."""
    with ShopStage(folder, rows=ROWS, rate=60.0, soak=6.0, broken=None, say=lambda _: None) as stage:
        adapt(stage)
        admin = json.loads((stage.state_dir / "runtime.json").read_text())["admin"]
        done = run("emit", "kubernetes", stage.change, "--manifests", stage.folder / "deploy",
                   "--out", stage.folder / "out", cwd=folder, env=IMAGES)  # fmt: skip
        assert done.code == 0, done.err
        for part in ("guard", "guard/cluster", "overlays/canary"):
            cluster.kubectl("apply", "-k", str(stage.folder / "out" / part))
        cluster.kubectl("label", "namespace", cluster.namespace, "parallelchange/guarded=true")

        def label(weight: int) -> None:
            """Tell the load in which stage its requests are counted."""
            part = stage.stage_file.with_suffix(".part")
            part.write_text(format_weight(weight))
            part.replace(stage.stage_file)

        account = cluster.kubeconfig_for_service_account("parallelchange")
        with (
            prometheus_of(folder / "prometheus", int(admin.rpartition(":")[2])) as prometheus,
            processes_as_pods(cluster, stage.state_dir),
            ClusterMesh(cluster, stage.state_dir, "shop", label),
        ):
            wait_ready(cluster)
            env = {**IMAGES, "PARALLELCHANGE_KUBECONFIG": str(account), "PARALLELCHANGE_PROMETHEUS": prometheus}
            yield Scene(stage, cluster, env)


def seen(log: Path, what: str, process: subprocess.Popen[bytes]) -> None:
    wait_until(what, lambda: re.search(what, log.read_text()) or process.poll() is not None)
    assert process.poll() is None, log.read_text()


@pytest.mark.timeout(600)
def test_a_guarded_canary_survives_a_kill_an_outage_and_somebody_in_a_hurry(cluster: Cluster, tmp_path: Path) -> None:
    log = tmp_path / "rollout.log"
    with scene_of(cluster, tmp_path / "shop") as scene:
        refused = scene.patch(50)
        assert refused.returncode, "nothing is approved before the first gate"

        first = scene.start(log)
        try:
            seen(log, r"soak: \d+ of 6 s at 5%", first)
            refused = scene.patch(500)
            assert refused.returncode
            told = "a canary share of 50% is above the 5% the gate has approved for change split-customer-name"
            assert told in refused.stderr
            assert "parallelchange gate split-customer-name --to 50%" in refused.stderr
            assert _refusal_in_readme() in refused.stderr
            assert scene.weight() == 50
            seen(log, r"soak: \d+ of 6 s at 25%", first)
        finally:
            first.kill()
            first.wait()

        second = scene.start(log)
        try:
            wait_until("the second goes on", lambda: "waiting for Lease" in log.read_text())
            seen(log, r"set-weight 50%", second)
            cluster.plane.stop_api()
            time.sleep(10)
            cluster.plane.start_api()
            assert second.wait(240) == 0, log.read_text()
        finally:
            second.kill()
            second.wait()

        assert scene.weight() == 1000
        assert log.read_text().count("do: expand ") == 1, "what was done is not done again"
        _all_went_well(scene)


def _refusal_in_readme() -> str:
    readme = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
    return readme.split("<!-- refusal")[1].split("\n")[3]


def _all_went_well(scene: Scene) -> None:
    cluster, stage = scene.cluster, scene.stage
    time.sleep(2)  # what contract broke would show now
    stage.stop_load()
    figures: dict[str, Any] = stage.figures()
    checked = check(stage.url, stage.log, state="contracted")
    assert (figures["failed_requests"], figures["wrong_reads"], checked.lost_writes) == (0, 0, 0), figures["failures"]
    # Envoy's real traffic went where the API server's split said.
    for name, wanted in (("25%", 0.25), ("50%", 0.5), ("100%", 1.0)):
        counts = {version: of["requests"] for version, of in figures["stages"][name].items()}
        share = counts["shop-v2"] / sum(counts.values())
        assert abs(share - wanted) < 0.15, f"{name}: {counts}"

    reasons = {event["reason"] for event in cluster.list("events") if event["involvedObject"]["name"] == SPLIT}
    assert {"WeightSet", "PhaseApplied", "Done"} <= reasons
    scaled = [event for event in cluster.list("events") if event["reason"] == "Scaled"]
    assert "shop" in {event["involvedObject"]["name"] for event in scaled}
    assert cluster.get("configmap", "parallelchange-shop")["data"]["contracted"] == "true"
    assert cluster.get("deployment", "shop")["spec"]["replicas"] == 0, "the old version's copies are stopped"
    lease = cluster.get("lease", "parallelchange-split-customer-name")["spec"]
    assert lease.get("holderIdentity") is None, "the Lease is let go"
    assert lease["leaseTransitions"] >= 1


def test_a_pipeline_moves_just_what_the_gate_approved(cluster: Cluster, tmp_path: Path) -> None:
    with scene_of(cluster, tmp_path / "shop") as scene:
        stage, env = scene.stage, scene.env

        def verb(*arguments: str, code: int = 0) -> str:
            done = run(arguments[0], stage.change, *arguments[1:], cwd=tmp_path, env=env)
            assert done.code == code, done.out + done.err
            return done.out + done.err

        def missing() -> set[str]:
            found = json.loads(verb("doctor", "--json", code=1))["findings"]
            return {each["id"] for each in found if each["severity"] == "error"}

        # Nobody injects proxies here; all else is well, once Prometheus has read for a while.
        wait_until("only the proxies are missing", lambda: missing() == {"copies.proxy"})
        for name in ("rehearse", "verify"):
            verb(name)
        verb("expand")
        verb("backfill")
        verb("verify")
        verb("gate", "--to", "5%")
        assert scene.patch(250).returncode, "above what was approved"
        assert not scene.patch(50).returncode, "what was approved"
        document = json.loads(run("status", stage.change, "--json", cwd=tmp_path, env=env).out)
        assert document["weight"] == "5%"
        # The gate refuses before the soak is over; what it approved before is not approved any more.
        assert "soak" in verb("gate", "--to", "25%", code=1)
        assert scene.patch(250).returncode

        verb("abort", "--reason", "a test")
        assert scene.weight() == 0
        assert scene.patch(50).returncode, "an abort takes every approval back"
