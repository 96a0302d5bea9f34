"""Observations of a rollout in which all is well, and ways in which it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from parallelchange.calls import Stillness
from parallelchange.changefile import Bound, MetricsSpec
from parallelchange.gates import LIVE, ON_COPY
from parallelchange.model import FULL, Evidence, EvidenceKey, GateResult, Place, State, Verdict
from parallelchange.plan import Plan
from parallelchange.ports import Record, Sample, Split
from parallelchange.rollout.observe import ALL_VERSIONS, Observation
from parallelchange.sessions import Connected, Prepared, Session

from .changes import RENAME, pure_plan

METRICS = MetricsSpec(
    success_rate=Bound(at_least=True, value=0.99, text=">= 99%"),
    latency_p99=Bound(at_least=False, value=500.0, text="<= 500ms"),
    window=60.0,
    min_requests=20,
)
PLAN: Plan = pure_plan(RENAME, metrics=METRICS)
OLD, NEW = (version.name for version in PLAN.change.versions)
OLD_NAME, NEW_NAME = (str(version.application_name) for version in PLAN.change.versions)
NOW = 1_000_000.0
ZERO, STAGE, LAST = "at 0", "at a stage", "at the end"

WANTED = (
    {(gate, Place.LIVE): ((OLD, State.EXPANDED), (NEW, State.EXPANDED)) for gate in LIVE}
    | {
        (gate, Place.COPY): ((OLD, State.BASE), (OLD, State.EXPANDED), (NEW, State.EXPANDED), (NEW, State.CONTRACTED))
        for gate in ON_COPY
    }
    | {
        ("laws", Place.LIVE): ((ALL_VERSIONS, State.EXPANDED),),
        ("roundtrip", Place.COPY): ((OLD, State.EXPANDED), (NEW, State.EXPANDED)),
        ("rehearsal", Place.COPY): tuple((ALL_VERSIONS, s) for s in (State.BASE, State.EXPANDED, State.CONTRACTED)),
    }
)
"""Gate and place to what must be proven there while both versions serve."""
BUILDS = {OLD: "build-1", NEW: "build-2"}
CORPORA = {OLD: "corpus-1", NEW: "corpus-2"}


def session(name: str, **changes: Any) -> Session:
    """A session of that name."""
    return Session(1, name, "app", **changes)


def evidence(
    gate: str, version: str, state: State, verdict: Verdict = Verdict.PASS, *, place: Place = Place.LIVE
) -> Evidence:
    """Fresh evidence."""
    build, statements = BUILDS.get(version, ""), CORPORA.get(version, "")
    fingerprint = "live" if state is State.EXPANDED else f"of {state}"
    copied = place is Place.COPY
    key = EvidenceKey(
        PLAN.change.name, version, gate, build, fingerprint, statements, PLAN.digest,
        incarnation="" if copied else "1", place=place,
    )  # fmt: skip
    result = GateResult(gate, verdict, (), None if version == ALL_VERSIONS else version)
    # A rehearsal counts across stages; what was measured on the live data must be newer than the weight.
    measured = NOW - (2000.0 if copied else 10.0)
    return Evidence(key, result, measured, "run-1", state)


def sample(version: str, **changes: Any) -> Sample:
    """A version that serves well."""
    return replace(Sample(version, requests=100, failures=0, p99_ms=20.0, window=60.0, age=1.0), **changes)


def all_is_well(weight: int) -> Observation:
    """An expanded, filled and proven change at a weight; at 100 % the old version is drained."""
    left = 0 if weight == FULL else 1
    done = {"cursor": None, "rows": 9, "total": 9, "finished": True, "incarnation": "1"}
    backfills = {work.id: done for work in PLAN.backfills}
    return Observation(
        now=NOW,
        state=State.EXPANDED,
        fingerprint="live",
        record=Record(
            PLAN.change.name, 3, weight=weight, weight_since=NOW - 1000.0, backfills=backfills, old_seen=True
        ),
        evidence=tuple(evidence(gate, *which, place=at) for (gate, at), wanted in WANTED.items() for which in wanted),
        split=Split("trafficsplit shop", weight, "7", {}),
        builds=BUILDS,
        ready={OLD: left, NEW: 1},
        sessions=() if weight == FULL else ("pid 1",),
        samples={OLD: sample(OLD), NEW: sample(NEW)},
        corpora=CORPORA,
        watched=3000.0,
        incarnation="1",
        settled=True,
        routing=(),
        connected=Connected(
            (*((session(OLD_NAME),) if left else ()), session(NEW_NAME), session("parallelchange", ours=True))
        ),
        others=(),
        wanted={OLD: left, NEW: 1},
        calls=Stillness(3, seconds=500.0),
    )


Change = Callable[[Observation], Observation]


@dataclass(frozen=True)
class Wrong:
    """One thing that is wrong, by itself enough to stop.

    Args:
        name: In words.
        make: Makes it wrong.
        says: What a decision must say of it, as a part of its reason or of a finding; empty for anything.
        matters: Where in the rollout it matters.
    """

    name: str
    make: Change
    says: str = ""
    matters: tuple[str, ...] = (ZERO, STAGE, LAST)


def put(**changes: Any) -> Change:
    """Replace fields."""
    return lambda obs: replace(obs, **changes)


def record(**changes: Any) -> Change:
    """Replace fields of the ledger's record, where there is one."""
    return lambda obs: replace(obs, record=obs.record and replace(obs.record, **changes))


def join(*sessions: Session) -> Change:
    """More sessions are connected."""

    def make(obs: Observation) -> Observation:
        assert obs.connected is not None
        return replace(obs, connected=replace(obs.connected, sessions=(*obs.connected.sessions, *sessions)))

    return make


def prepare(gid: str) -> Change:
    """A prepared transaction is open."""
    return lambda obs: replace(
        obs, connected=obs.connected and replace(obs.connected, prepared=(Prepared(gid, "app", 9.0),))
    )


def served(version: str, **changes: Any) -> Change:
    """Replace what a version served."""
    return lambda obs: replace(obs, samples={**obs.samples, version: sample(version, **changes)})


def proof(
    gate: str, place: Place, change: Callable[[Evidence], Evidence | None], versions: Iterable[str] | None = None
) -> Change:
    """Replace or drop evidence of one gate at one place."""

    def make(obs: Observation) -> Observation:
        kept = []
        for item in obs.evidence:
            mine = (item.key.gate, item.key.place) == (gate, place) and (
                versions is None or item.key.version in versions
            )
            changed = change(item) if mine else item
            kept += [changed] if changed else []
        return replace(obs, evidence=tuple(kept))

    return make


def key(**changes: str) -> Callable[[Evidence], Evidence]:
    """Evidence that was measured on something else."""
    return lambda item: replace(item, key=replace(item.key, **changes))


def said(verdict: Verdict) -> Callable[[Evidence], Evidence]:
    """Evidence that says something else."""
    return lambda item: replace(item, result=replace(item.result, verdict=verdict))


def _stale() -> list[Wrong]:
    """Evidence that does not count, in every way it can fail to, for every gate and version."""
    wrongs = []
    for (gate, place), wanted in WANTED.items():
        live = place is Place.LIVE
        for version in dict.fromkeys(version for version, _ in wanted):
            # Once all traffic is on the new version, nothing needs to be shown of the old one but its rehearsal.
            matters = (ZERO, STAGE) if live and version == OLD else (ZERO, STAGE, LAST)

            def add(
                name: str, change: Any, says: str, matters: Any = matters, at: Any = (gate, place), v: str = version
            ) -> None:
                wrongs.append(Wrong(f"{'/'.join(at)} of {v}: {name}", proof(*at, change, [v]), says, matters))

            add("none", lambda _: None, "nothing was measured")
            add("failed", said(Verdict.FAIL), gate)
            add("unknown", said(Verdict.UNKNOWN), gate)
            add("another plan", key(plan="x"), "the plan (x was measured")
            add("too old", lambda item: replace(item, measured_at=NOW - 3601.0), "3601 s ago")
            if live:
                add("another schema", key(fingerprint="x"), "the schema (x was measured, live is live)")
                add("another expand", key(incarnation="0"), "the expanded columns")
                add("before the weight was set", lambda item: replace(item, measured_at=NOW - 1000.1), "traffic moved")
            else:
                add("another run", lambda item: replace(item, run="run-2"), "another rehearsal is the newest")
            if version != ALL_VERSIONS:
                add("another OpenAPI document", key(spec="x"), f"the OpenAPI document of {version} (x was measured")
                add("other statements", key(statements="x"), f"the recorded statements of {version} (")
                # Of a version that has stopped nothing runs that could be another build.
                add(
                    "another build",
                    key(build="x"),
                    f"the build of {version} (x was measured",
                    (ZERO, STAGE) if version == OLD else matters,
                )
    rehearsed = proof("rehearsal", Place.COPY, lambda item: replace(item, key=replace(item.key, fingerprint="x")))
    tampered = put(evidence=(), tampered="row 7 is not what was written")
    return [*wrongs, Wrong("rehearsed on another schema", rehearsed, "the schema"),
            Wrong("evidence that somebody changed", tampered, "row 7")]  # fmt: skip


def _backfilled(**changes: Any) -> Change:
    """A backfill that is recorded otherwise."""
    at = {"cursor": None, "rows": 1, "total": 9, "finished": True, "incarnation": "1", **changes}
    return record(backfills={work.id: at for work in PLAN.backfills})


WRONGS = [
    Wrong("the split cannot be read", put(split=None, split_error="no such object"), "no such object"),
    Wrong(
        "somebody else moved the traffic", lambda o: replace(o, split=o.split and replace(o.split, weight=77)), "7.7%"
    ),
    Wrong("the ledger has another weight", record(weight=333), "33.3%"),
    Wrong("half a schema", put(state=State.PARTIAL, differences=("a trigger is missing",)), "a trigger is missing"),
    Wrong("no new shape", put(state=State.BASE), "", (STAGE, LAST)),
    Wrong("edited revisions", put(revisions=("the expand revision holds other SQL",)), "other SQL"),
    Wrong("an abort was begun", record(pending={"act": "abort"}), "abort"),
    Wrong("no backfill", record(backfills={}), ""),
    Wrong("half a backfill", _backfilled(finished=False), ""),
    Wrong("a backfill of another expand", _backfilled(incarnation="0"), ""),
    Wrong("the mesh does not follow", put(settled=False), "mesh", (STAGE, LAST)),
    Wrong(
        "whose a share is cannot be told",
        lambda o: replace(o, split=o.split and replace(o.split, untold="shop-stable runs v1 and v2, and has 5%")),
        "cannot be told",
    ),
    Wrong("a backend without endpoints", put(routing=("Service c has no endpoint",)), "no endpoint", (ZERO, STAGE)),
    Wrong("nobody looked at the backends", put(routing=None), "not be looked at", (ZERO, STAGE)),
    Wrong("no copy of the new version", lambda o: replace(o, ready={**o.ready, NEW: 0}), "no copy"),
    Wrong("no copy of the old version", lambda o: replace(o, ready={**o.ready, OLD: 0}), "no copy", (ZERO, STAGE)),
    Wrong(
        "another build is declared and does not run yet",
        lambda o: replace(o, ready={**o.ready, NEW: 0}, builds={**o.builds, NEW: "build-3"}),
        "the build of",
        (LAST,),
    ),
    Wrong("nobody knows what runs", put(builds={OLD: None, NEW: None}), "cannot be told"),
    Wrong("the old version's name was never seen", record(old_seen=False), "was ever seen", (LAST,)),
    Wrong("no ledger", put(record=None), ""),
    Wrong("no evidence", put(evidence=()), "nothing was measured"),
    Wrong("not soaked", record(weight_since=NOW - 9.5), "", (STAGE, LAST)),
    Wrong("nobody knows since when", record(weight_since=None), "", (STAGE, LAST)),
    Wrong("the new version fails", served(NEW, failures=2), "98.00%", (STAGE, LAST)),
    Wrong("the old version fails", served(OLD, failures=2), "98.00%", (ZERO, STAGE)),
    Wrong("the new version is slow", served(NEW, p99_ms=501.0), "501 ms", (STAGE, LAST)),
    Wrong("the old version is slow", served(OLD, p99_ms=501.0), "501 ms", (ZERO, STAGE)),
    Wrong("few requests", served(NEW, requests=19), "19 requests", (STAGE, LAST)),
    Wrong("old figures", served(NEW, age=16.0), "16 s old", (STAGE, LAST)),
    Wrong("no figures", put(samples={}), "nothing can be read"),
    Wrong("a copy of the old version", lambda o: replace(o, ready={**o.ready, OLD: 1}), "", (LAST,)),
    Wrong("nobody knows the copies", lambda o: replace(o, ready={NEW: 1}), "cannot be told", (LAST,)),
    Wrong("a session of the old version", put(sessions=("pid 7",)), "pid 7", (LAST,)),
    Wrong("nobody knows the sessions", put(sessions=None), "cannot be told", (LAST,)),
    Wrong("a third version is connected", join(session("v0-worker")), "'v0-worker'"),
    Wrong("a session without a name", join(session("")), "application_name ''"),
    Wrong("another role under our name", join(session("parallelchange")), "'parallelchange'"),
    Wrong("nobody knows who is connected", put(connected=None), ""),
    Wrong("a third version runs", put(others=("Pod x runs a third version",)), "Pod x"),
    Wrong("nobody knows what else runs", put(others=None), "cannot be told"),
    Wrong("nobody knows the copies asked for", lambda o: replace(o, wanted={}), "asked for cannot be told", (LAST,)),
    Wrong("a prepared transaction", prepare("x"), "'x'", (LAST,)),
    Wrong("a statement of the old version is sent", put(calls=Stillness(3, grew=("1 call of x",))), "1 call", (LAST,)),
    Wrong("counted for too short", put(calls=Stillness(3, seconds=29.0)), "29 of 30 s", (LAST,)),
    Wrong("the counts were reset", put(calls=Stillness(3, "they were reset")), "were reset", (LAST,)),
    Wrong("nobody looked at the counts", put(calls=None), "not looked at", (LAST,)),
    *_stale(),
]
"""Each of them must stop a rollout that else would go on."""
