"""`parallelchange demo`: the whole rollout, and every break of it, on real servers under load."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from acceptance.conftest import Ran, run
from parallelchange.cli.demo import _KINDS
from parallelchange.gates import GATES
from parallelchange.local.shop import BREAKS

# What each break is blocked by, the weight it may reach at most, and the state it leaves.
EXPECTED = {
    "lossy": ("laws", 0.0, "base"),
    "old-statement": ("prepare, execute", 0.0, "base"),
    "slow-canary": ("metrics", 5.0, "expanded"),
    "failing-canary": ("metrics", 5.0, "expanded"),
    "undrained": ("drained", 100.0, "expanded"),
}


pytestmark = pytest.mark.xdist_group("demo")  # each fills a machine


def demo(folder: Path, *arguments: str) -> tuple[Ran, dict[str, Any]]:
    ran = run("demo", "--folder", folder / "demo", "--report", folder / "report.json", *arguments, cwd=folder)
    return ran, json.loads((folder / "report.json").read_text())


def test_the_whole_rollout_loses_nothing(tmp_path: Path) -> None:
    ran, report = demo(tmp_path)
    assert ran.code == 0, ran.out + ran.err
    assert report["failed_requests"] == 0, report["failures"]
    assert report["lost_writes"] == 0
    assert report["wrong_reads"] == 0
    assert report["wrong_rows"] == 0
    assert report["contracted"] is True
    assert report["acknowledged_writes"] > 1000
    assert 0 < report["longest_access_exclusive_ms"] <= 200
    for stage in ("5%", "25%", "50%"):
        for version in ("shop-v1", "shop-v2"):
            assert report["stages"][stage][version]["requests"] > 0
            assert report["stages"][stage][version]["p99_ms"] > 0
    assert set(report["stages"]["contracted"]) == {"shop-v2"}
    gates = {gate["gate"] for gate in report["gates"]}
    assert gates == set(GATES), "some gate never spoke"
    final = [gate for gate in report["gates"] if gate["before"] == "contract"]
    assert {gate["verdict"] for gate in final} == {"pass"}
    assert "0 failed" in ran.out
    missing = shapes(shown_in_readme()) - shapes(ran.out)
    assert not missing, "the README shows what the demo does not print"


def shown_in_readme() -> str:
    text = (Path(__file__).parents[2] / "README.md").read_text()
    return text.split("<!-- output:")[1].split("```text\n")[1].split("```")[0]


def shapes(output: str) -> set[str]:
    """Lines with every figure but those of the outcome made equal."""
    lines = (
        " ".join(re.sub(r"\d+(\.\d+)?(?!%| lost| failed| wrong)", "#", line).split()) for line in output.splitlines()
    )
    return {line for line in lines if line}


@pytest.mark.parametrize("broken", list(EXPECTED))
def test_what_is_broken_is_blocked(broken: str, tmp_path: Path) -> None:
    gate, most, state = EXPECTED[broken]
    ran, report = demo(tmp_path, "--break", broken, "--rows", "20000", "--soak", "7")
    assert ran.code == 1, ran.out + ran.err
    assert report["verdict"] == "pass", ran.out + ran.err
    assert report["blocked_by"] == gate.split(", ")
    assert report["why"]
    assert f"blocked by gate {gate}: " in ran.out
    assert float(report["weight_reached"].rstrip("%")) == most
    assert report["weight"] == ("100%" if broken == "undrained" else "0%")
    assert report["state"] == state
    assert report["failed_requests_by_schema"] == 0, report["failures"]
    assert report["lost_writes"] == 0
    assert report["old_version_serves"] is True
    assert (report["failed_requests_asked_for"] > 0) == (broken == "failing-canary")


def test_every_break_is_tested_and_offered() -> None:
    assert set(EXPECTED) == set(BREAKS) == set(_KINDS)


def test_a_folder_that_holds_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    ran = run("demo", "--folder", tmp_path / "mine", cwd=tmp_path)
    assert ran.code == 2
    assert "holds something else" in ran.err
    assert (tmp_path / "mine" / "letter.txt").read_text() == "dear"
