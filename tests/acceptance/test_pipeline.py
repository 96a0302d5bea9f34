"""As a pipeline uses it: verify, gate, its own task moves the traffic; and what happens when somebody else does."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from acceptance.conftest import Ran, background, run, wait_until
from parallelchange.adapters.local_router import LocalRouter
from parallelchange.adapters.local_workloads import LocalWorkloads

pytestmark = pytest.mark.xdist_group("demo")  # each fills a machine

SOAK = 6


def test_a_pipeline_moves_the_traffic_itself(tmp_path: Path) -> None:
    folder, log = tmp_path / "demo", tmp_path / "hold.log"
    change = folder / "changes" / "split-customer-name.yaml"
    arguments = ["demo", "--hold", "--rows", "5000", "--soak", str(SOAK), "--folder", folder,
                 "--report", tmp_path / "report.json"]  # fmt: skip

    def verb(name: str, *more: str) -> Ran:
        return run(name, change, *more, cwd=tmp_path)

    def document(name: str, *more: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(verb(name, *more, "--json").out)
        return found

    def gate(weight: str) -> Ran:
        """Gate as a pipeline with a retry does: the first requests of a stage take a moment to be seen."""
        ran = verb("gate", "--to", weight)
        for _ in range(15):
            if ran.code == 0:
                break
            time.sleep(1)
            ran = verb("gate", "--to", weight)
        return ran

    with background(arguments, cwd=tmp_path, log=log) as demo:
        wait_until("the demo is ready", lambda: "ready" in log.read_text() or demo.poll() is not None)
        assert demo.poll() is None, log.read_text()
        router = LocalRouter(folder / "state" / "trafficsplit.json", service="shop", stable="shop-stable",
                             canary="shop-canary")  # fmt: skip

        def move(weight: int) -> None:
            router.set(weight, resource_version=router.get().resource_version)

        early = verb("gate", "--to", "5%")
        assert early.code == 1, "nothing is expanded yet"
        for name in ("verify", "rehearse", "expand", "backfill", "verify"):
            ran = verb(name)
            assert ran.code == 0, name + ran.out + ran.err
        passed = gate("5%")
        assert passed.code == 0, passed.out + passed.err
        assert router.get().weight == 0, "gate moves nothing"

        move(50)
        status = document("status")
        assert (status["decision"], status["act"], status["weight"]) == ("do", "adopt", "5%")
        assert verb("verify").code == 0
        soon = verb("gate", "--to", "25%")
        assert soon.code == 1
        assert "soak" in soon.out
        assert document("status")["record"]["weight"] == 50
        skipped = verb("promote", "--to", "100%")
        assert skipped.code == 1
        assert "skips the stage 25%" in skipped.out
        assert router.get().weight == 50

        # Traffic that no gate approved is drift: everything halts, and abort is open.
        move(300)
        for name, *more in (("gate", "--to", "50%"), ("promote", "--to", "50%"), ("rollout",)):
            halted = verb(name, *more)
            assert halted.code == 1, halted.out
            assert "somebody else moved the traffic" in halted.out
        assert router.get().weight == 300
        revert = verb("revert")
        assert revert.code == 1
        assert "30%" in revert.err
        aborted = verb("abort", "--reason", "unapproved traffic")
        assert aborted.code == 0, aborted.err
        assert router.get().weight == 0
        assert document("status")["record"]["aborted"] == "unapproved traffic"

        # And again, by promote.
        assert verb("verify").code == 0
        assert gate("5%").code == 0
        promoted = document("promote", "--to", "5%")
        assert (promoted["verdict"], promoted["weight"], router.get().weight) == ("pass", "5%", 50)
        back = verb("promote", "--to", "0%")
        assert back.code == 0
        assert router.get().weight == 0
        refused = verb("revert")
        assert refused.code == 1
        assert "copies of shop-v2 run" in refused.err
        LocalWorkloads(folder / "state").scale("shop-v2", 0)
        wait_until("shop-v2 is gone", lambda: verb("revert").code == 0, limit=30)
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["state"] == "base"
    assert (report["failed_requests"], report["lost_writes"], report["wrong_reads"]) == (0, 0, 0), report["failures"]
