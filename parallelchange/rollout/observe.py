"""Gathering facts. A fact that cannot be read is None or an error's text, never a guess."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from parallelchange.calls import Counts, Stillness, only_in, stillness
from parallelchange.corpus import read_corpus, read_recorded
from parallelchange.errors import InvalidFile, Tampered, Unavailable
from parallelchange.evidence import ALL_VERSIONS
from parallelchange.model import FULL, Evidence, EvidenceKey, Place, State
from parallelchange.plan import Plan, incarnation_of, state_of
from parallelchange.ports import Database, Record, Router, Sample, Split
from parallelchange.rollout.world import World
from parallelchange.sessions import Connected, can_be_told, describe, sessions_of

__all__ = [
    "ALL_VERSIONS",
    "Observation",
    "calls_of",
    "corpora",
    "expected_key",
    "observe",
    "old_sessions",
    "read_counts",
    "specs",
    "watched",
]


@dataclass(frozen=True)
class Observation:
    """What was seen, all of it at once.

    Args:
        now: The database's clock, seconds since the epoch.
        state: State of the schema.
        differences: For a partial state, what is there and what is missing.
        fingerprint: Of the whole schema.
        revisions: What is wrong with the revisions.
        record: What the ledger holds.
        evidence: Recorded verdicts.
        split: The traffic split; None when it cannot be read.
        split_error: Why it cannot be read, or why it cannot be told whose a share is.
        split_remedy: What to do about that.
        builds: Version to what runs as it; None when nothing tells.
        ready: Version to its number of ready copies; None when it cannot be told.
        sessions: The old version's sessions; None when they cannot be told.
        samples: Version to what it served; None when nothing can be told.
        corpora: Version to the digest of its recorded statements.
        specs: Version to the digest of its OpenAPI document.
        tampered: How recorded evidence is not what was written, so that none counts; empty when it is.
        tampered_remedy: What to do about that.
        schema_changes: Fingerprint that evidence was measured on to what differs in the schema now, where it is known.
        watched: Seconds for which this process has been looking.
        incarnation: Which expand it is whose objects are there.
        settled: Whether the mesh is seen to route by the split.
        routing: What stands against more traffic on the way of a request; None when it could not be looked at.
        connected: Who is connected to the database; None when it could not be looked at.
        others: What runs and is neither version; None when it cannot be told.
        wanted: Version to the number of copies asked for; None when it cannot be told.
        counts: What the server has counted of the old version's statements; None where it counts none.
        calls: Whether they stand still; None while nobody looks, as nothing of the old version is to be gone yet.
    """

    now: float
    state: State
    differences: tuple[str, ...] = ()
    fingerprint: str = ""
    revisions: tuple[str, ...] = ()
    record: Record | None = None
    evidence: tuple[Evidence, ...] = ()
    split: Split | None = None
    split_error: str = ""
    split_remedy: str = ""
    builds: Mapping[str, str | None] = field(default_factory=dict)
    ready: Mapping[str, int | None] = field(default_factory=dict)
    sessions: tuple[str, ...] | None = None
    samples: Mapping[str, Sample | None] = field(default_factory=dict)
    corpora: Mapping[str, str] = field(default_factory=dict)
    specs: Mapping[str, str] = field(default_factory=dict)
    tampered: str = ""
    tampered_remedy: str = ""
    schema_changes: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    watched: float = 0.0
    incarnation: str = ""
    settled: bool = False
    routing: tuple[str, ...] | None = None
    connected: Connected | None = None
    others: tuple[str, ...] | None = None
    wanted: Mapping[str, int | None] = field(default_factory=dict)
    counts: Counts | None = None
    calls: Stillness | None = None

    @property
    def weight(self) -> int | None:
        """The canary's live share in thousandths; None when it cannot be told."""
        return self.split.weight if self.split and not self.split.untold else None

    @property
    def stood(self) -> float | None:
        """Seconds since the weight was set; None when nobody recorded it."""
        since = self.record.weight_since if self.record else None
        return None if since is None else max(0.0, self.now - since)


def corpora(plan: Plan) -> dict[str, str]:
    """sha256 of each version's recorded statements; empty where there are none.

    The file's bytes count, and are not read as statements here: whatever is changed in it is seen as a change.

    Raises:
        InvalidFile: One is not there or cannot be read.
    """
    found = ((version.name, version.statements) for version in plan.change.versions)
    return {name: hashlib.sha256(read_recorded(path, name)).hexdigest() if path else "" for name, path in found}


def specs(plan: Plan) -> dict[str, str]:
    """sha256 of each version's OpenAPI document; empty where it has none.

    Raises:
        InvalidFile: One cannot be read.
    """
    return {version.name: _sha256(version.openapi) for version in plan.change.versions}


def _sha256(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise InvalidFile(f"cannot be read: {error.strerror}", path=path) from None


def _recorded(world: World) -> tuple[tuple[Evidence, ...], str, str]:
    """Recorded verdicts; or none, why they do not count, and what to do."""
    try:
        return tuple(world.ledger.evidence()), "", ""
    except Tampered as error:
        return (), error.message, error.hint or ""


def _schema_changes(
    world: World, evidence: tuple[Evidence, ...], live: str, state: State
) -> dict[str, tuple[str, ...]]:
    """For the schemas that evidence was measured on and that are no longer so: what differs."""
    found = {}
    # On a copy the other states have schemas of their own, which are no sign of a change.
    for fingerprint in {item.key.fingerprint for item in evidence if item.state is state} - {live}:
        told = world.ledger.schema_changes(fingerprint)
        if told:
            found[fingerprint] = told
    return found


@dataclass(frozen=True)
class _Traffic:
    """What the router tells; see `Observation`."""

    split: Split | None
    error: str
    remedy: str = ""
    settled: bool = False
    problems: tuple[str, ...] | None = None


def _look_at_traffic(router: Router) -> _Traffic:
    try:
        split = router.get()
        return _Traffic(split, split.untold, settled=router.settled(split), problems=router.problems())
    except Unavailable as error:
        return _Traffic(None, error.message, error.hint or "")


def observe(world: World, *, began: float | None = None, revisions: bool = True) -> Observation:
    """Look at everything that a decision rests on.

    Args:
        world: The ports.
        began: When this process began to look, by the world's clock; None for just now.
        revisions: Whether to read the revisions, which takes longer than all else; unread they let nothing pass.

    Raises:
        Unavailable: The database does not answer.
    """
    plan, change = world.plan, world.plan.change
    live = world.database.catalog()
    state, differences = state_of(plan, live)
    traffic = _look_at_traffic(world.router)
    split = traffic.split
    record = world.ledger.read()
    evidence, tampered, remedy = _recorded(world)
    now = world.database.now()
    since = record.weight_since if record else None
    window = change.metrics.window if change.metrics else 0.0
    if since is not None:
        # What was served at an earlier weight says nothing of this one.
        window = min(window, max(1.0, now - since))
    connected = world.database.connected()
    leaving = state is State.EXPANDED and split is not None and split.weight == FULL
    counts = read_counts(plan, world.database) if leaving else None
    return Observation(
        now=now,
        state=state,
        differences=differences,
        fingerprint=live.fingerprint,
        revisions=world.database.revision_problems(state) if revisions else ("they were not read",),
        record=record,
        evidence=evidence,
        split=split,
        split_error=traffic.error,
        split_remedy=traffic.remedy,
        builds={v.name: v.build or world.workloads.build(v.name) for v in change.versions},
        ready={v.name: world.workloads.ready(v.name) for v in change.versions},
        sessions=old_sessions(plan, connected),
        samples={v.name: world.metrics.read(v.name, window) for v in change.versions} if change.metrics else {},
        corpora=corpora(plan),
        specs=specs(plan),
        tampered=tampered,
        tampered_remedy=remedy,
        schema_changes=_schema_changes(world, evidence, live.fingerprint, state),
        watched=0.0 if began is None else world.clock.now() - began,
        incarnation=incarnation_of(live),
        settled=traffic.settled,
        routing=traffic.problems,
        connected=connected,
        others=world.workloads.others(),
        wanted={v.name: world.workloads.wanted(v.name) for v in change.versions},
        counts=counts,
        calls=calls_of(plan, counts, record, now) if leaving else None,
    )


def old_sessions(plan: Plan, connected: Connected) -> tuple[str, ...] | None:
    """The old version's sessions, described; None when they cannot be told."""
    old, new = plan.change.identities
    return tuple(map(describe, sessions_of(old, new, connected))) if can_be_told(old, new) else None


def watched(plan: Plan) -> frozenset[str]:
    """Statements that the old version alone sends; none where either's are not recorded."""
    old, new = plan.change.versions
    if old.statements is None or new.statements is None:
        return frozenset()
    return _alone(old.statements, old.name, new.statements, new.name, _stamp(old.statements), _stamp(new.statements))


def _stamp(path: Path) -> tuple[int, int]:
    try:
        found = path.stat()
    except OSError:
        return 0, 0  # reading it tells what is wrong
    return found.st_mtime_ns, found.st_size


@lru_cache(maxsize=4)  # asked for at every look, also under the locks of contract
def _alone(old: Path, old_name: str, new: Path, new_name: str, *_stamps: tuple[int, int]) -> frozenset[str]:
    texts = ([s.sql for s in read_corpus(path, name).statements] for path, name in ((old, old_name), (new, new_name)))
    return only_in(*texts)


def read_counts(plan: Plan, database: Database) -> Counts | None:
    """What the server has counted of the old version's statements; None where there is nothing to count."""
    alone = watched(plan)
    return database.calls(alone) if alone else None


def calls_of(plan: Plan, counts: Counts | None, record: Record | None, now: float) -> Stillness:
    """Whether the old version's statements stand still."""
    alone = watched(plan)
    if not alone:
        return Stillness(None, f"no recorded statement is {plan.change.old.name}'s alone")
    if counts is None:
        return Stillness(None, "the extension pg_stat_statements is not in this database")
    sample, since = (record.calls, record.weight_since) if record else (None, None)
    return stillness(alone, counts, sample, now=now, since=since)


def expected_key(plan: Plan, obs: Observation, version: str, gate: str, place: Place = Place.LIVE) -> EvidenceKey:
    """What evidence must have been measured on to count now."""
    return EvidenceKey(
        change=plan.change.name,
        version=version,
        gate=gate,
        build=obs.builds.get(version) or "",
        fingerprint=obs.fingerprint,
        statements=obs.corpora.get(version, ""),
        plan=plan.digest,
        spec=obs.specs.get(version, ""),
        # On a copy the objects are others.
        incarnation="" if place is Place.COPY else obs.incarnation,
        place=place,
    )
