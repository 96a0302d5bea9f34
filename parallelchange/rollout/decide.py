"""The one decision: what may be done next. Pure; `gate`, `promote` and `rollout` all ask here.

What may happen when (design §8)::

                           weight 0              0 < weight < 1000   1000, not drained   drained
    base                   expand                -                   -                   -
    expanded, not filled   backfill, revert      never               never               never
    filled, laws hold      advance, revert       advance, abort      abort               contract
    contracted             -                     -                   -                   next change
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from parallelchange.gates.base import Act
from parallelchange.model import FULL, Finding, GateResult, Severity, State, Verdict, combine, format_weight
from parallelchange.plan import Plan
from parallelchange.rollout.judge import Judgement, judge
from parallelchange.rollout.observe import Observation

__all__ = ["APPROVAL", "Decision", "Kind", "decide"]

GRACE = 30.0
"""Seconds beyond the soak for which missing metrics are waited for."""
APPROVAL = 900.0
"""Seconds in which a pipeline's own task must have set the weight that a gate approved."""
TICK = 1.0
"""Seconds between two looks while waiting."""


class Kind(StrEnum):
    """Kinds of decision."""

    DO = "do"  # carry out `act`
    WAIT = "wait"  # look again in `seconds`
    BLOCKED = "blocked"  # gates said fail or unknown
    HALTED = "halted"  # the world is not as we left it: somebody must look
    DONE = "done"  # nothing is left to do


_ADVANCES = (Act.EXPAND, Act.BACKFILL, Act.SET_WEIGHT, Act.RETIRE, Act.CONTRACT)


@dataclass(frozen=True)
class Decision:
    """One decision.

    Args:
        kind: Its kind.
        why: In a sentence.
        act: For `do`, what to do.
        weight: For `do set-weight` and `do adopt`, the share in thousandths.
        results: What the gates said.
        findings: What was found besides the gates.
        seconds: For `wait`, when to look again.
        gates: Ids of the gates that decided it.
    """

    kind: Kind
    why: str
    act: Act | None = None
    weight: int | None = None
    results: tuple[GateResult, ...] = ()
    findings: tuple[Finding, ...] = ()
    seconds: float = 0.0
    gates: tuple[str, ...] = ()

    @property
    def verdict(self) -> Verdict:
        """Pass only when the change may advance or is done; what must be measured first is unknown."""
        if self.kind is Kind.DONE or (self.kind is Kind.DO and self.act in _ADVANCES):
            return Verdict.PASS
        joined = combine(result.verdict for result in self.results)
        return Verdict.FAIL if self.kind is Kind.HALTED or joined is Verdict.FAIL else Verdict.UNKNOWN

    @property
    def unavailable(self) -> bool:
        """Whether it rests on something that could not be read, and not on what a gate said."""
        return any(finding.id == "rollout.split" for finding in self.findings)


def _error(kind: str, message: str, remedy: str) -> Finding:
    return Finding(kind, Severity.ERROR, message, "rollout", remedy)


def _halt(message: str, remedy: str) -> Decision:
    return Decision(Kind.HALTED, message, findings=(_error("rollout.drift", message, remedy),))


def decide(plan: Plan, obs: Observation, *, to: int | None = None) -> Decision:  # noqa: PLR0911 - a list of cases
    """What may be done next.

    Args:
        plan: The plan.
        obs: What was seen.
        to: Go to this weight and no further, in thousandths; None for all the way through contract.
    """
    if obs.split is None:
        return Decision(
            Kind.BLOCKED,
            obs.split_error,
            findings=(_error("rollout.split", obs.split_error, obs.split_remedy or "make the split readable"),),
        )
    weight = obs.split.weight
    untold = obs.split.untold
    if untold and (obs.record is None or (obs.record.pending or {}).get("act") != Act.ABORT):
        # An abort that was begun is finished whatever runs: it needs the old version only.
        message = f"{obs.split.name}: {untold}: whose traffic it is cannot be told"
        remedy = "let the rollout of its Deployment end, or name the image in the change file"
        return Decision(Kind.BLOCKED, message, findings=(_error("rollout.untold", message, remedy),))
    unfinished = _unfinished(plan, obs)
    if unfinished:
        return unfinished
    if obs.state is State.CONTRACTED:
        return _contracted(plan, weight, to)
    drift = _drift(plan, obs)
    if drift:
        return drift
    if to is not None and to <= weight:
        return _back(plan, obs, weight, to)
    if obs.state is State.BASE:
        return _guarded(plan, obs, Act.EXPAND, "make the new shape beside the old one")
    if obs.state is State.PARTIAL:
        judged = judge(plan, obs, Act.SET_WEIGHT)
        why = f"the schema is half-way: {'; '.join(obs.differences)}"
        return Decision(Kind.BLOCKED, why, results=judged.results, gates=("schema",))
    if not _filled(plan, obs):
        if weight:
            return _halt(
                f"{plan.change.new.name} has {format_weight(weight)} of the traffic and the backfill is not finished",
                "parallelchange abort, then parallelchange backfill",
            )
        return _guarded(plan, obs, Act.BACKFILL, "fill the new shape")
    if weight < FULL:
        return _next_stage(plan, obs, weight, to)
    return _leave(plan, obs)


def _contracted(plan: Plan, weight: int, to: int | None) -> Decision:
    if weight != FULL:
        return _halt(
            f"the schema is contracted and {plan.change.old.name}, which cannot work on it, still has "
            f"{format_weight(FULL - weight)} of the traffic",
            f"send all traffic to {plan.change.new.name} with whatever moves it, and find out who contracted",
        )
    if to is None or to == weight:
        return Decision(Kind.DONE, f"{plan.change.name} is contracted: {plan.change.new.name} alone is left")
    message = f"{plan.change.name} is contracted: {plan.change.old.name} cannot work on this schema any more"
    return Decision(Kind.BLOCKED, message, findings=(_error("rollout.contracted", message, "roll forward"),))


def _back(plan: Plan, obs: Observation, weight: int, to: int) -> Decision:
    """Less traffic for the new version needs no proof, but copies of the old one to take it."""
    if to == weight:
        return Decision(Kind.DONE, f"the weight is {format_weight(weight)}")
    if not obs.ready.get(plan.change.old.name):
        message = f"no copy of {plan.change.old.name} is ready to take the traffic"
        remedy = f"`parallelchange abort {plan.change.name}` starts it first"
        return Decision(Kind.BLOCKED, message, findings=(_error("rollout.no-way-back", message, remedy),))
    return Decision(Kind.DO, f"back to {format_weight(to)}", Act.SET_WEIGHT, to)


def _unfinished(plan: Plan, obs: Observation) -> Decision | None:
    """What a killed process had begun, or a pipeline was let do, if anything."""
    pending = (obs.record.pending if obs.record else None) or {}
    assert obs.split is not None
    if pending.get("act") == Act.CONTRACT and obs.state is State.CONTRACTED:
        return Decision(Kind.DO, "contract was committed by a process that ended before it said so", Act.ADOPT)
    if pending.get("act") == Act.ABORT and obs.state is not State.CONTRACTED:
        return Decision(Kind.DO, "an abort was begun and not finished", Act.ABORT)
    moved = obs.record is not None and obs.record.weight != obs.split.weight
    if not moved or obs.split.weight != pending.get("weight"):
        return None
    if pending.get("act") == Act.APPROVE and _still_approved(plan, obs, pending):
        return Decision(
            Kind.DO,
            f"{format_weight(obs.split.weight)} was set as the gate had approved it",
            Act.ADOPT,
            obs.split.weight,
        )
    if pending.get("act") == Act.SET_WEIGHT:
        return Decision(
            Kind.DO,
            f"{format_weight(obs.split.weight)} was set by a process that ended before it said so",
            Act.ADOPT,
            obs.split.weight,
        )
    return None


def _still_approved(plan: Plan, obs: Observation, pending: Mapping[str, Any]) -> bool:
    approved = [pending.get(part) for part in ("fingerprint", "plan", "incarnation")]
    proven = dict(pending.get("builds") or {})
    # A build that cannot be told just now is no other one; it lets no traffic grow.
    same = all(build is None or build == proven.get(version) for version, build in obs.builds.items())
    age = obs.now - float(pending.get("at", 0))
    return (
        same
        and approved == [obs.fingerprint, plan.digest, obs.incarnation]
        and age <= min(APPROVAL, plan.change.max_age)
    )


def _drift(plan: Plan, obs: Observation) -> Decision | None:
    """Whether the live weight is one that nobody here set."""
    assert obs.split is not None
    intended = obs.record.weight if obs.record else None
    live = obs.split.weight
    if live != (intended or 0):
        return _halt(
            f"{obs.split.name} gives {plan.change.new.name} {format_weight(live)}, and the ledger has "
            f"{format_weight(intended or 0)}: somebody else moved the traffic"
            + (f", breaking the glass: {obs.split.break_glass}" if obs.split.break_glass else ""),
            f"find out who; `parallelchange abort {plan.change.name}` sends all traffic to {plan.change.old.name}",
        )
    if live and obs.state is State.BASE:
        return _halt(
            f"{plan.change.new.name} has {format_weight(live)} of the traffic and the schema is not expanded",
            "send all traffic to the old version",
        )
    return None


def _filled(plan: Plan, obs: Observation) -> bool:
    recorded = (obs.record.backfills if obs.record else None) or {}
    passes = [recorded.get(work.id, {}) for work in plan.backfills]
    return all(at.get("finished") and at.get("incarnation") == obs.incarnation for at in passes)


def _guarded(plan: Plan, obs: Observation, act: Act, why: str) -> Decision:
    """Do it if all its gates pass; measure what is not measured; else be blocked."""
    return _decided(judge(plan, obs, act), act, why)


def _decided(judged: Judgement, act: Act, why: str, weight: int | None = None) -> Decision:
    failing = [r for r in judged.results if r.verdict is Verdict.FAIL]
    if failing:
        return Decision(Kind.BLOCKED, _because(failing), results=judged.results, gates=_ids(failing))
    # The cheaper measurement first: what it finds need not be rehearsed.
    for need, reason in (
        (Act.VERIFY, "measure both versions"),
        (Act.REHEARSE, "rehearse the change on a scratch copy"),
    ):
        if need in judged.needs:
            return Decision(Kind.DO, reason, need, results=judged.results)
    if judged.verdict is not Verdict.PASS:
        untold = [r for r in judged.results if r.verdict is Verdict.UNKNOWN]
        return Decision(Kind.BLOCKED, _because(untold), results=judged.results, gates=_ids(untold))
    return Decision(Kind.DO, why, act, weight, judged.results)


def _because(results: list[GateResult]) -> str:
    first = next((f.message for r in results for f in r.findings if f.severity is Severity.ERROR), "")
    return f"{', '.join(_ids(results))}: {first}"


def _ids(results: list[GateResult]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(result.gate for result in results))


def _watch(plan: Plan, obs: Observation, judged: Judgement, weight: int) -> Decision | None:
    """While a stage stands: back at once when it harms, else wait its soak out."""
    stood, soak = obs.stood or 0.0, plan.change.traffic.soak
    if weight and judged.of("metrics") is Verdict.FAIL:
        harmed = [r for r in judged.results if r.gate == "metrics" and r.verdict is Verdict.FAIL]
        return Decision(Kind.DO, _because(harmed), Act.ABORT, results=judged.results, gates=_ids(harmed))
    if weight and stood < soak:
        return Decision(
            Kind.WAIT,
            f"soak: {stood:.0f} of {soak:.0f} s at {format_weight(weight)}",
            results=judged.results,
            seconds=min(TICK, soak - stood),
        )
    # A stage, or a process that has only begun to look, is given time for its first requests.
    young = min(stood - soak if weight else obs.watched, obs.watched) < GRACE
    if weight and not obs.settled and young:
        return Decision(Kind.WAIT, "the mesh is not seen to follow yet", results=judged.results, seconds=TICK)
    if judged.of("metrics") is Verdict.UNKNOWN and young:
        return Decision(Kind.WAIT, "not enough is known of the traffic yet", results=judged.results, seconds=TICK)
    return None


def _next_stage(plan: Plan, obs: Observation, weight: int, to: int | None) -> Decision:
    following = next(stage for stage in plan.change.traffic.stages if stage > weight)
    judged = judge(plan, obs, Act.SET_WEIGHT)
    if to is not None and to > following:
        message = f"{format_weight(to)} skips the stage {format_weight(following)}"
        finding = _error("rollout.stage", message, f"go to {format_weight(following)} first")
        return Decision(Kind.BLOCKED, message, results=judged.results, findings=(finding,))
    target = following if to is None else to
    return _watch(plan, obs, judged, weight) or _decided(
        judged, Act.SET_WEIGHT, f"{format_weight(target)} to {plan.change.new.name}", target
    )


def _leave(plan: Plan, obs: Observation) -> Decision:
    """All traffic is on the new version: let the old one go, then contract."""
    old, traffic = plan.change.old.name, plan.change.traffic
    stood, ready = obs.stood or 0.0, obs.ready.get(old)
    runs = bool(ready or obs.wanted.get(old))
    judged = judge(plan, obs, Act.RETIRE if runs else Act.CONTRACT)
    watched = _watch(plan, obs, judged, FULL)
    if watched:
        return watched
    if stood < traffic.drain:
        return Decision(
            Kind.WAIT,
            f"drain: {stood:.0f} of {traffic.drain:.0f} s without traffic for {old}",
            results=judged.results,
            seconds=min(TICK, traffic.drain - stood),
        )
    if runs:
        return _decided(judged, Act.RETIRE, f"stop the copies of {old}")
    patience = max(traffic.soak, traffic.drain) + traffic.drain_timeout
    if ready == 0 and obs.sessions and stood < patience:
        return Decision(
            Kind.WAIT, f"{len(obs.sessions)} sessions of {old} are still open", results=judged.results, seconds=TICK
        )
    if ready == 0 and obs.calls is not None and obs.calls.restless(traffic.drain) and stood < patience:
        why = f"statements of {old} have not stood still for {traffic.drain:.0f} s"
        return Decision(Kind.WAIT, why, results=judged.results, seconds=TICK)
    return _decided(judged, Act.CONTRACT, "leave only the new shape")
