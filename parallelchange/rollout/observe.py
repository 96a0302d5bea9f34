"""Gathering facts. A fact that cannot be read is None or an error's text, never a guess."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from parallelchange.corpus import read_corpus
from parallelchange.errors import Unavailable
from parallelchange.model import Evidence, EvidenceKey, Place, State
from parallelchange.plan import Plan, incarnation_of, state_of
from parallelchange.ports import Record, Sample, Split
from parallelchange.rollout.world import World

__all__ = ["ALL_VERSIONS", "Observation", "corpora", "expected_key", "observe"]

ALL_VERSIONS = "*"
"""The version of evidence that speaks of the data and of no version."""


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
        watched: Seconds for which this process has been looking.
        incarnation: Which expand it is whose objects are there.
        settled: Whether the mesh is seen to route by the split.
        routing: What stands against more traffic on the way of a request; None when it could not be looked at.
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
    watched: float = 0.0
    incarnation: str = ""
    settled: bool = False
    routing: tuple[str, ...] | None = None

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
    """Digest of each version's recorded statements; empty where there are none."""
    return {
        version.name: read_corpus(version.statements, version.name).digest if version.statements else ""
        for version in plan.change.versions
    }


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
    settled, routing = False, None
    try:
        split = world.router.get()
        split_error, split_remedy = split.untold, ""
        settled = world.router.settled(split)
        routing = world.router.problems()
    except Unavailable as error:
        split, split_error, split_remedy = None, error.message, error.hint or ""
    record = world.ledger.read()
    now = world.database.now()
    since = record.weight_since if record else None
    window = change.metrics.window if change.metrics else 0.0
    if since is not None:
        # What was served at an earlier weight says nothing of this one.
        window = min(window, max(1.0, now - since))
    application = change.old.application_name
    return Observation(
        now=now,
        state=state,
        differences=differences,
        fingerprint=live.fingerprint,
        revisions=world.database.revision_problems(state) if revisions else ("they were not read",),
        record=record,
        evidence=tuple(world.ledger.evidence()),
        split=split,
        split_error=split_error,
        split_remedy=split_remedy,
        builds={v.name: v.build or world.workloads.build(v.name) for v in change.versions},
        ready={v.name: world.workloads.ready(v.name) for v in change.versions},
        sessions=world.database.sessions(application) if application else None,
        samples={v.name: world.metrics.read(v.name, window) for v in change.versions} if change.metrics else {},
        corpora=corpora(plan),
        watched=0.0 if began is None else world.clock.now() - began,
        incarnation=incarnation_of(live),
        settled=settled,
        routing=routing,
    )


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
        # On a copy the objects are others.
        incarnation="" if place is Place.COPY else obs.incarnation,
        place=place,
    )
