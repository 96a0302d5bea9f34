"""The demo: a whole rollout under load, and what came of it."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parallelchange.local.checker import CheckReport, Shape, check
from parallelchange.local.shop import ShopStage
from parallelchange.model import GateResult, State, Verdict, format_weight, to_json
from parallelchange.plan import state_of
from parallelchange.rollout.decide import Decision, Kind
from parallelchange.rollout.observe import Observation
from parallelchange.rollout.run import rollout
from parallelchange.rollout.world import Event, World

__all__ = ["Story", "report_of", "run_rollout", "wait_for_end", "write_report"]

_INJECTED = "SHOP_FAIL_RATE"
_AFTER = 3.0
"""Seconds the load goes on after the rollout has ended: what contract broke would show now."""


@dataclass
class Story:
    """What happened, as it is told by the rollout; read by whoever shows it.

    Args:
        stage_file: Tells the load in which stage its requests are counted.
    """

    stage_file: Path
    began: float = field(default_factory=time.monotonic)
    weight: int = 0
    reached: int = 0
    state: State = State.BASE
    doing: str = ""
    results: dict[tuple[str, str], GateResult] = field(default_factory=dict)
    gates: list[dict[str, Any]] = field(default_factory=list)
    applied: dict[str, dict[str, Any]] = field(default_factory=dict)
    backfill: dict[str, Any] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    _backfill_began: float = 0.0

    def tell(self, event: Event) -> None:
        """Take in an event of the rollout."""
        match event.kind:
            case "decision":
                self._decision(event.data["decision"], event.data["observation"])
            case "weight":
                self.weight = event.data["weight"]
                self.reached = max(self.reached, self.weight)
                self.label(format_weight(self.weight))
            case "applied":
                self.applied[event.what] = dict(event.data)
                held = event.data["exclusive_seconds"] * 1000
                self._line(f"{event.what} is committed; ACCESS EXCLUSIVE was held for {held:.0f} ms")
                if event.what == "contract":
                    self.label("contracted")
            case "progress":
                self._progress(event)
            case "rehearsal" | "conflict":
                self.doing = event.what

    def _decision(self, decision: Decision, obs: Observation) -> None:
        self.state = obs.state
        for result in decision.results:
            self.results[result.gate, result.version or "data"] = result
        if decision.kind is not Kind.WAIT:
            self._line(f"{decision.kind}: {decision.act or ''} {decision.why}".replace(":  ", ": "))
            at = {"weight": format_weight(obs.weight or 0), "before": str(decision.act or decision.kind)}
            self.gates += [{**at, **to_json(result)} for result in decision.results]
        self.doing = decision.why

    def _progress(self, event: Event) -> None:
        done, total = event.data["done"], event.data["total"]
        self._backfill_began = self._backfill_began or time.monotonic()
        took = time.monotonic() - self._backfill_began
        self.backfill = {"rows": done, "seconds": round(took, 2), "rows_per_second": round(done / max(took, 0.01))}
        self.doing = f"backfill: {done:,} of {total:,} rows" if total else f"backfill: {done:,} rows"

    def label(self, label: str) -> None:
        """Name the stage in which the load counts its requests from now on."""
        part = self.stage_file.with_suffix(".part")
        part.write_text(label)
        part.replace(self.stage_file)

    def _line(self, text: str) -> None:
        self.lines.append(f"{time.monotonic() - self.began:6.1f} s  {text}")


def run_rollout(world: World, stage: ShopStage, tick: Callable[[], None]) -> Decision:
    """Run the rollout in a thread while `tick` shows how it goes.

    Args:
        world: The ports; its `tell` is the story's.
        stage: The demo's servers.
        tick: Called twice a second.

    Raises:
        ParallelChangeError: The rollout or one of the servers failed.
    """
    outcome: list[Decision] = []
    errors: list[BaseException] = []

    def run() -> None:
        try:
            outcome.append(rollout(world))
        except BaseException as error:  # noqa: BLE001 - raised again in the main thread
            errors.append(error)

    thread = threading.Thread(target=run, name="rollout", daemon=True)
    thread.start()
    while thread.is_alive():
        thread.join(0.5)
        stage.check()
        tick()
    if errors:
        raise errors[0]
    give_up = time.monotonic() + _AFTER
    while time.monotonic() < give_up:
        time.sleep(0.5)
        stage.check()
        tick()
    return outcome[0]


def wait_for_end(world: World, stage: ShopStage, story: Story, tick: Callable[[], None]) -> None:
    """Keep everything running until somebody else's rollout has contracted, or Ctrl-C."""
    while True:
        state, _ = state_of(world.plan, world.database.catalog())
        weight = world.router.get().weight
        if weight != story.weight:
            story.tell(Event("weight", format_weight(weight), {"weight": weight}))
        stage.check()
        tick()
        if state is State.CONTRACTED:
            story.label("contracted")
            time.sleep(_AFTER)
            return
        time.sleep(0.5)


def report_of(world: World, stage: ShopStage, story: Story, decision: Decision | None) -> dict[str, Any]:
    """Stop the load, hold every acknowledged write against the database, and put all figures together.

    Args:
        world: The ports.
        stage: The demo's servers; its load is stopped.
        story: What happened.
        decision: How the rollout ended; None when somebody else ran it.
    """
    old_works = stage.old_session_works()
    old = world.plan.change.old
    probe = None
    if old.probe is not None and world.workloads.address(old.name):
        probe = world.prober.probe(old, world.workloads.address(old.name)).ok
    stage.stop_load()
    state, _ = state_of(world.plan, world.database.catalog())
    checked = check(stage.url, stage.log, state=_shape(world, state))
    figures = stage.figures()
    injected = sum(count for reason, count in figures.get("reasons", {}).items() if _INJECTED in reason)
    failed = int(figures.get("failed_requests", -1))
    journal = world.ledger.journal() if hasattr(world.ledger, "journal") else []
    held = [e["detail"].get("exclusive_seconds") for e in journal if e["detail"].get("exclusive_seconds") is not None]
    report = {
        "change": world.plan.change.name,
        "broken": stage.broken,
        "contracted": state is State.CONTRACTED,
        "state": state,
        "weight_reached": format_weight(story.reached),
        "weight": format_weight(world.router.get().weight),
        "blocked_by": list(decision.gates) if decision and decision.kind is not Kind.DONE else [],
        "why": decision.why if decision else "",
        "requests": figures.get("sent", 0),
        "rate": figures.get("rate_achieved", 0),
        "late": figures.get("late", 0),
        "failed_requests": failed,
        "failed_requests_asked_for": injected,
        "failed_requests_by_schema": failed - injected,
        "failures": figures.get("failures", []),
        "wrong_reads": figures.get("wrong_reads", 0),
        "acknowledged_writes": checked.acknowledged_writes,
        "lost_writes": checked.lost_writes,
        "wrong_rows": checked.wrong_rows,
        "rows": checked.rows,
        "old_version_serves": probe if old_works is None else old_works,
        "longest_access_exclusive_ms": round(max(held) * 1000, 1) if held else None,
        "backfill": story.backfill,
        "stages": figures.get("stages", {}),
        "gates": story.gates,
        "seconds": round(time.monotonic() - story.began, 1),
        "synced_to_disk": False,
    }
    report["verdict"] = _verdict(report, checked)
    return report


def _shape(world: World, state: State) -> Shape:
    """What the checker can hold the writes against: both shapes once the backfill is finished."""
    if state is State.CONTRACTED:
        return "contracted"
    record = world.ledger.read()
    passes = (record.backfills or {}) if record else {}
    filled = bool(passes) and all(at["finished"] for at in passes.values())
    return "expanded" if state is State.EXPANDED and filled else "base"


def _verdict(report: dict[str, Any], checked: CheckReport) -> Verdict:
    """Whether the demo showed what it promises; figures that are missing are no pass."""
    unharmed = checked.verdict is Verdict.PASS and not report["wrong_reads"] and report["requests"] > 0
    if report["broken"] is None:
        held = report["longest_access_exclusive_ms"]
        fine = unharmed and report["failed_requests"] == 0 and report["contracted"] and held is not None
    else:
        fine = unharmed and report["failed_requests_by_schema"] == 0 and not report["contracted"]
        fine = fine and bool(report["blocked_by"]) and report["old_version_serves"] is True
    return Verdict.PASS if fine else Verdict.FAIL


def write_report(report: dict[str, Any], path: Path) -> None:
    """Write the report."""
    path.write_text(json.dumps(report, indent=2, ensure_ascii=False, default=str) + "\n", encoding="utf-8")
