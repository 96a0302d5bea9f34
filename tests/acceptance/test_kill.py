"""A rollout killed with SIGKILL, anywhere, is gone on with by the same command."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import pytest

from acceptance.conftest import CLI, background, clean_env, run, wait_until

ROWS = 60_000
pytestmark = pytest.mark.xdist_group("demo")  # each fills a machine


def start(change: Path, log: Path) -> subprocess.Popen[bytes]:
    with log.open("wb") as out:
        return subprocess.Popen([*CLI, "rollout", str(change), "--local"], stdout=out, stderr=out, env=clean_env())


def kill_when(change: Path, log: Path, seen: str) -> str:
    """Start a rollout and kill it once its log shows something."""
    process = start(change, log)
    try:
        wait_until(seen, lambda: re.search(seen, log.read_text()) or process.poll() is not None)
        assert process.poll() is None, log.read_text()
    finally:
        process.kill()
        process.wait()
    return log.read_text()


def test_killed_in_the_backfill_and_in_a_stage(tmp_path: Path) -> None:
    folder, hold = tmp_path / "demo", tmp_path / "hold.log"
    arguments = ["demo", "--hold", "--rows", str(ROWS), "--soak", "6", "--folder", folder,
                 "--report", tmp_path / "report.json"]  # fmt: skip
    with background(arguments, cwd=tmp_path, log=hold) as demo:
        wait_until("the demo is ready", lambda: "ready" in hold.read_text() or demo.poll() is not None)
        assert demo.poll() is None, hold.read_text()
        change = folder / "changes" / "split-customer-name.yaml"
        with change.open("a") as file:
            file.write("backfill: {rows_per_second: 15000}\n")

        first = kill_when(change, tmp_path / "1.log", r"\(\d\d%\) rows")
        assert "do: expand" in first
        status = json.loads(run("status", change, "--json", cwd=tmp_path).out)
        (at,) = status["record"]["backfills"].values()
        assert 0 < at["rows"] < ROWS
        assert not at["finished"]

        second = kill_when(change, tmp_path / "2.log", r"soak: \d+ of 6 s at 25%")
        assert "do: expand" not in second
        begun = re.search(r"first_name,last_name: (\d+) of", second)
        assert begun
        assert int(begun[1]) > at["rows"], "the backfill began again instead of going on"

        status = json.loads(run("status", change, "--json", cwd=tmp_path).out)
        assert status["weight"] == "25%"
        third = run("rollout", change, "--local", cwd=tmp_path)
        assert third.code == 0, third.out + third.err
        assert "do: backfill" not in third.err
        assert "set-weight 5%" not in third.err
        demo.wait(60)
    report = json.loads((tmp_path / "report.json").read_text())
    assert demo.returncode == 0, hold.read_text()
    assert (report["contracted"], report["failed_requests"], report["lost_writes"]) == (True, 0, 0)
    assert report["wrong_reads"] == 0
