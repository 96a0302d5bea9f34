"""Carrying out one decision. Intent is recorded before an act and its outcome after it."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress

from parallelchange.errors import Blocked, Busy, ParallelChangeError, Refused, Unavailable, Uncertain
from parallelchange.gates import drained, laws, schema, versions
from parallelchange.gates.base import Act
from parallelchange.model import GateResult, Phase, State, Verdict, format_weight
from parallelchange.plan import state_of
from parallelchange.ports import Applied, Database, Split
from parallelchange.rollout.decide import APPROVAL, Decision
from parallelchange.rollout.judge import drained_fact, versions_fact
from parallelchange.rollout.measure import keep_calls, measure, rehearse
from parallelchange.rollout.observe import Observation, calls_of, old_sessions, read_counts
from parallelchange.rollout.world import Event, World
from parallelchange.sessions import describe, sessions_of

__all__ = ["abort", "adopt", "advance", "backfill", "contract", "expand", "retire", "revert", "set_weight"]

_SETTLE = 15.0
"""Seconds in which the mesh must be seen to follow a new weight."""
_STOP = 60.0
"""Seconds in which the copies of a version must start or stop, where the change does not give them more."""


def advance(world: World, obs: Observation, decision: Decision) -> None:
    """Carry out a decision to do something.

    Args:
        world: The ports.
        obs: What the decision was taken on.
        decision: The decision.
    """
    match decision.act:
        case Act.REHEARSE:
            rehearse(world)
        case Act.VERIFY:
            measure(world, obs)
        case Act.EXPAND:
            expand(world, obs)
        case Act.BACKFILL:
            backfill(world)
        case Act.SET_WEIGHT:
            assert decision.weight is not None
            set_weight(world, obs, decision.weight)
        case Act.ADOPT:
            adopt(world, decision)
        case Act.RETIRE:
            retire(world)
        case Act.CONTRACT:
            contract(world, obs)
        case Act.ABORT:
            abort(world, decision.why)
        case _:
            raise AssertionError(decision)


def _must(results: list[GateResult]) -> None:
    """Raise unless every gate passes."""
    for result in results:
        if result.verdict is not Verdict.PASS:
            finding = result.findings[0]
            raise Blocked(f"gate {result.gate} says {result.verdict}: {finding.message}", hint=finding.remedy)


def _recorded(world: World, act: Act, applied: Applied, **detail: object) -> None:
    world.ledger.settle(
        act,
        "done",
        seconds=applied.seconds,
        exclusive_seconds=applied.exclusive_seconds,
        attempts=applied.attempts,
        **detail,
    )
    world.tell(
        Event(
            "applied",
            act,
            {"seconds": applied.seconds, "exclusive_seconds": applied.exclusive_seconds, "attempts": applied.attempts},
        )
    )


def _unchanged(world: World, builds: Mapping[str, str | None]) -> None:
    """Locks may be had only minutes after all was proven: what runs must be what was proven."""
    for version in world.plan.change.versions:
        build, proven = version.build or world.workloads.build(version.name), builds.get(version.name)
        if build is not None and build != proven:
            told = f"{version.name} runs {build} now, and {proven or 'nothing that could be told'} when it was decided"
            raise Blocked(told, hint="run the same command again: it is proven anew")


def _same_schema(found: str, seen: str | None) -> None:
    if seen is not None and found != seen:
        raise Blocked("the schema changed since it was decided", hint="run the same command again: it is proven anew")


def expand(world: World, obs: Observation | None = None) -> None:
    """Make the new shape, its trigger and all, in one transaction.

    Args:
        world: The ports.
        obs: What it was decided on; None where nothing was proven.

    Raises:
        Blocked: What is there is no longer what was seen; nothing was changed.
    """

    def still_base(database: Database) -> None:
        live = database.catalog()
        state, differences = state_of(world.plan, live)
        _must([schema.judge(schema.SchemaFacts(state, differences, (), ""), Act.EXPAND)])
        if obs is not None:
            _same_schema(live.fingerprint, obs.fingerprint)
            _unchanged(world, obs.builds)

    world.ledger.intend(Act.EXPAND)
    try:
        applied = world.database.apply(Phase.EXPAND, checks=still_base)
    except ParallelChangeError:
        world.ledger.settle(Act.EXPAND, "failed")
        raise
    _recorded(world, Act.EXPAND, applied)


def backfill(world: World) -> None:
    """Fill the new shape, from where an earlier run stopped."""

    def progress(what: str, done: int, total: int | None) -> None:
        world.tell(Event("progress", what, {"done": done, "total": total}))

    world.ledger.intend(Act.BACKFILL)
    world.database.backfill(progress)
    world.ledger.settle(Act.BACKFILL, "done")


def set_weight(world: World, obs: Observation, weight: int) -> None:
    """Move traffic by compare-and-swap on the split that was observed.

    Raises:
        Busy: The split changed since; it must be looked at and judged again.
        Uncertain: It may or may not be written; the intent stays, and whoever goes on finds out.
        Unavailable: It cannot be written, or the mesh is not seen to follow.
    """
    assert obs.split is not None
    world.ledger.intend(Act.SET_WEIGHT, weight=weight, before=obs.split.weight)
    record = world.ledger.read()
    if record is None or obs.record is None or record.aborts != obs.record.aborts:
        world.ledger.settle(Act.SET_WEIGHT, "void")
        raise Busy("the change was aborted in the meantime", hint="see `parallelchange status`")
    try:
        world.enforcement.allow(max(weight, obs.split.weight), until=world.database.now() + APPROVAL)
        split = world.router.set(weight, resource_version=obs.split.resource_version)
    except Uncertain:
        raise
    except ParallelChangeError:
        world.ledger.settle(Act.SET_WEIGHT, "void")
        with suppress(ParallelChangeError):
            world.enforcement.allow(obs.split.weight)
        raise
    world.ledger.settle(Act.SET_WEIGHT, "done", weight=weight, **({"aborted": None} if weight else {}))
    keep_calls(world, weight)
    world.enforcement.allow(weight)
    _follow(world, split)
    world.tell(Event("weight", format_weight(weight), {"weight": weight}))


def _follow(world: World, split: Split) -> None:
    """Wait until the mesh is seen to route by the split."""
    give_up = world.clock.now() + _SETTLE
    while not world.router.settled(split):
        if world.clock.now() > give_up:
            raise Unavailable(
                f"{split.name} says {format_weight(split.weight)}, and the mesh does not follow",
                hint="see whether the mesh runs; then run the same command again",
            )
        world.clock.sleep(0.05)


def _scale(world: World, version: str, replicas: int) -> None:
    world.workloads.scale(version, replicas)
    give_up = world.clock.now() + max(_STOP, world.plan.change.traffic.drain_timeout)
    while (ready := world.workloads.ready(version)) is None or (ready > 0) != (replicas > 0):
        if world.clock.now() > give_up:
            raise Unavailable(f"{version} has {ready} ready copies and was asked for {replicas}", hint="see its log")
        world.clock.sleep(0.1)
    while not replicas and (wanted := world.workloads.wanted(version)) != 0:
        if world.clock.now() > give_up:
            raise Unavailable(
                f"{'an unknown number' if wanted is None else wanted} of copies of {version} are still asked for",
                hint="scale to 0 what else runs it, such as a worker that no Service leads to",
            )
        world.clock.sleep(0.1)


def adopt(world: World, decision: Decision) -> None:
    """Record what was done by somebody who could not say so."""
    if decision.weight is None:
        world.enforcement.release()
        world.ledger.settle(Act.CONTRACT, "done", contracted=True, adopted=True)
        return
    world.enforcement.allow(decision.weight)
    world.ledger.settle(Act.SET_WEIGHT, "done", weight=decision.weight, adopted=True)
    keep_calls(world, decision.weight)
    world.tell(Event("weight", format_weight(decision.weight), {"weight": decision.weight}))


def retire(world: World) -> None:
    """Stop the old version's copies; `abort` starts them again."""
    old = world.plan.change.old.name
    world.ledger.intend(Act.RETIRE, version=old)
    _scale(world, old, 0)
    world.ledger.settle(Act.RETIRE, "done", version=old)


def contract(world: World, obs: Observation | None = None) -> None:
    """Leave only the new shape. Its gates are asked again inside its own transaction.

    Args:
        world: The ports.
        obs: What it was decided on; None where nothing was proven.

    Raises:
        Blocked: A gate no longer passes; nothing was changed.
    """
    plan = world.plan

    def drained_now(database: Database) -> list[GateResult]:
        """As it is now: the split, the copies and the sessions need none of the locks held here."""
        split, record, now = world.router.get(), world.ledger.read(), database.now()
        connected = database.connected()
        seen = Observation(
            now=now,
            state=State.EXPANDED,
            record=record,
            split=split,
            settled=world.router.settled(split),
            ready={v.name: world.workloads.ready(v.name) for v in plan.change.versions},
            wanted={v.name: world.workloads.wanted(v.name) for v in plan.change.versions},
            others=world.workloads.others(),
            connected=connected,
            sessions=old_sessions(plan, connected),
            calls=calls_of(plan, read_counts(plan, database), record, now),
        )
        return [drained.judge(drained_fact(plan, seen)), versions.judge(versions_fact(plan, seen), Act.CONTRACT)]

    fingerprint = obs.fingerprint if obs is not None else None

    def all_holds(database: Database) -> None:
        live = database.catalog()
        state, differences = state_of(world.plan, live)
        _must(
            [
                schema.judge(schema.SchemaFacts(state, differences, (), ""), Act.CONTRACT),
                laws.judge(database.laws(State.EXPANDED)),
                *drained_now(database),
            ]
        )
        _same_schema(live.fingerprint, fingerprint)
        if obs is not None:
            _unchanged(world, obs.builds)

    def still_drained(database: Database) -> None:
        _must(drained_now(database))

    world.ledger.intend(Act.CONTRACT)
    try:
        proven = world.database.apply(Phase.MIGRATE, checks=all_holds)
        fingerprint = world.database.catalog().fingerprint  # migrate has changed it
        applied = world.database.apply(Phase.CONTRACT, checks=all_holds, last_check=still_drained)
    except ParallelChangeError:
        # The old version may be back, and would trip over what migrate has added.
        world.database.relax()
        world.ledger.settle(Act.CONTRACT, "failed")
        raise
    longest = max(proven.exclusive_seconds, applied.exclusive_seconds)
    world.enforcement.release()
    _recorded(
        world, Act.CONTRACT, Applied(proven.seconds + applied.seconds, longest, applied.attempts), contracted=True
    )


def revert(world: World) -> None:
    """Undo expand. Only while the new version has no traffic.

    Raises:
        Refused: It is not allowed in this state.
    """
    name, new = world.plan.change.name, world.plan.change.new.name

    def allowed(database: Database) -> None:
        split, record = world.router.get(), world.ledger.read()
        moved = record is not None and record.weight_since is not None
        if split.weight or (moved and not world.router.settled(split)):
            has = f"has {format_weight(split.weight)} of the traffic" if split.weight else "may still have traffic"
            raise Refused(f"{new} {has}", hint=f"first: parallelchange abort {name}")
        state, differences = state_of(world.plan, database.catalog())
        if state is State.CONTRACTED:
            raise Refused(f"{name} is contracted: the old shape is gone", hint="roll forward with a new change")
        _nothing_new(world, database)
        _must([schema.judge(schema.SchemaFacts(state, differences, (), ""), Act.REVERT)])

    allowed(world.database)
    world.ledger.intend(Act.REVERT)
    try:
        applied = world.database.revert(checks=allowed)
    except ParallelChangeError:
        world.ledger.settle(Act.REVERT, "failed")
        raise
    _recorded(world, Act.REVERT, applied, reverted=True)


def _nothing_new(world: World, database: Database) -> None:
    """Without traffic, workers and cron jobs of the new version would still trip over a shape that is gone."""
    (old, told), new = world.plan.change.identities, world.plan.change.new
    ready = world.workloads.ready(new.name)
    if ready:
        raise Refused(f"{ready} copies of {new.name} run", hint=f"stop {new.name} first")
    sessions = sessions_of(told, old, database.connected())
    if sessions:
        raise Refused(
            f"{len(sessions)} database sessions of {new.name} are open: {describe(sessions[0])}",
            hint=f"stop {new.name} first",
        )


def abort(world: World, reason: str) -> None:
    """All traffic back to the old version; the schema stays expanded. Open until contract.

    Needs no fence: a rollout that runs sees that the weight is no longer its own, and halts.

    Raises:
        Refused: The change is contracted.
        Unavailable: The split cannot be read or written, or the old version does not start.
    """
    plan = world.plan
    state, _ = state_of(plan, world.database.catalog())
    if state is State.CONTRACTED:
        raise Refused(
            f"{plan.change.name} is contracted: {plan.change.old.name} cannot work on this schema any more",
            hint="roll forward with a new change",
        )
    world.ledger.intend(Act.ABORT, reason=reason)
    world.database.relax()
    if world.workloads.ready(plan.change.old.name) == 0:
        _scale(world, plan.change.old.name, 1)
    with suppress(ParallelChangeError):
        # First of all: what the approvals name may be of before a pipeline promoted, and would refuse the way back.
        world.enforcement.allow(0)
    split = _to_zero(world)
    world.enforcement.allow(0)
    world.ledger.settle(Act.ABORT, "done", weight=0, aborted=reason)
    _follow(world, split)
    world.tell(Event("weight", format_weight(0), {"weight": 0}))


def _to_zero(world: World) -> Split:
    for _ in range(20):
        split = world.router.get()
        try:
            # Written even if it is 0 already: a weight that was decided on what stands now must not win.
            return world.router.set(0, resource_version=split.resource_version)
        except Busy:
            continue  # somebody else wrote; for an abort what they wrote does not matter
    raise Busy("the split is being written by somebody else all the time", hint="run the same command again")
