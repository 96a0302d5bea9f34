"""The rehearsal: the whole change on a scratch copy, before anything touches the real database."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

import psycopg

from parallelchange.adapters.postgres.causes import Causes, changed, find_causes, foresee_causes
from parallelchange.adapters.postgres.connection import connect
from parallelchange.adapters.postgres.database import PostgresDatabase
from parallelchange.adapters.postgres.execute import execute_all
from parallelchange.adapters.postgres.fingerprint import schema_lines
from parallelchange.adapters.postgres.held import Held, held
from parallelchange.change import Version
from parallelchange.corpus import Corpus, read_corpus
from parallelchange.errors import Busy, ParallelChangeError, SchemaState, Unavailable
from parallelchange.gates import execute, laws, prepare, rehearsal, roundtrip, shape
from parallelchange.gates import plan as planning
from parallelchange.gates.execute import Executed
from parallelchange.gates.prepare import PlanFact, StatementFact
from parallelchange.local.changing import changing, expand
from parallelchange.local.copy import copy_database
from parallelchange.local.likeness import Likeness, likeness
from parallelchange.local.scratch import scratch_database
from parallelchange.model import (
    Evidence,
    EvidenceKey,
    Finding,
    GateResult,
    Phase,
    Place,
    State,
    Verdict,
    combine,
)
from parallelchange.plan import Plan, state_of
from parallelchange.ports import Applied
from parallelchange.rollout.observe import ALL_VERSIONS, corpora, specs

__all__ = ["Rehearsal", "rehearse"]

_SHOWN = 5
_LONGEST = 200


@dataclass
class Rehearsal:
    """One rehearsal on one copy.

    Args:
        plan: The plan.
        database: The copy.
        builds: Version to what runs as it; goes into the evidence.
        tell: Told what is done next.
        like: How the copy came out beside its database; None where it is no copy of any.
    """

    plan: Plan
    database: PostgresDatabase
    builds: Mapping[str, str | None]
    tell: Callable[[str], None]
    like: Likeness | None = None
    run: str = field(default_factory=lambda: uuid.uuid4().hex)
    evidence: list[Evidence] = field(default_factory=list)
    applied: dict[str, Applied] = field(default_factory=dict)
    _fingerprint: str = ""
    _began: State | None = None
    _before: dict[str, tuple[Executed, ...]] = field(default_factory=dict)
    _planned: dict[str, dict[str, PlanFact]] = field(default_factory=dict)
    _foreseen: Causes = field(default_factory=Causes)
    _held: dict[str, Held] = field(default_factory=dict)
    _open: ExitStack = field(default_factory=ExitStack)
    _sent: dict[str, Corpus] = field(default_factory=dict)
    _corpora: Mapping[str, str] = field(init=False)
    _specs: Mapping[str, str] = field(init=False)

    def __post_init__(self) -> None:
        # What is rehearsed is what was there at the beginning: the files may change meanwhile.
        self._corpora, self._specs = corpora(self.plan), specs(self.plan)

    def all(self) -> list[Evidence]:
        """Go through the phases; what cannot be reached because of an error is failed with that error."""
        with self._open:
            return self._all()

    def _all(self) -> list[Evidence]:
        old, new = self.plan.change.versions
        stages: tuple[tuple[Callable[[], tuple[Finding, ...]], State, tuple[Version, ...]], ...] = (
            (self._base, State.BASE, (old,)),
            (self._expand, State.EXPANDED, (old, new)),
            (self._contract, State.CONTRACTED, (new,)),
        )
        broken: Finding | None = None
        for reach, state, versions in stages:
            self.tell(f"rehearsing: {state}")
            findings: tuple[Finding, ...] = ()
            if broken is None:
                try:
                    findings = reach()
                except ParallelChangeError as error:
                    broken = rehearsal.GATE.finding(
                        "step",
                        f"{state} cannot be reached on the copy: {error.message}",
                        where="rehearsal copy",
                        remedy=error.hint or "",
                    )
            stopped = (broken,) if broken else findings
            self._fingerprint = self._fingerprint_in(state)
            self._keep(ALL_VERSIONS, state, rehearsal.judge(state, stopped, self._unlike()))
            broken = broken or self._layers(versions, state)
        return self.evidence

    def _layers(self, versions: Sequence[Version], state: State) -> Finding | None:
        """All layers in this state.

        What breaks off ends the rehearsal, unless something was found before: that would be forgotten with it, and an
        older rehearsal, in which it was not found, would go on counting.

        Returns:
            What broke off, if anything did.
        """
        try:
            for version in versions:
                self._version(version, state)
            if state is State.EXPANDED:
                self._round_trips()
        except (ParallelChangeError, psycopg.Error) as error:
            if self.verdict is Verdict.PASS:
                raise
            told = error.message if isinstance(error, ParallelChangeError) else str(error).splitlines()[0]
            return rehearsal.GATE.finding("step", f"it broke off once {state}: {told}", where="rehearsal copy")
        return None

    def _base(self) -> tuple[Finding, ...]:
        state, differences = self._state()
        self._began = state
        if state is State.EXPANDED:
            # The live database is expanded already: the copy goes back to where the change began.
            self.applied["revert"] = self.database.revert()
            state, differences = self._state()
        if state is not State.BASE:
            raise SchemaState(
                f"the schema is {state}: {'; '.join(differences)}",
                hint="a rehearsal begins with nothing of the change, or all of its expand",
            )
        return ()

    def _expand(self) -> tuple[Finding, ...]:
        self.applied["expand"] = expand(self.database)
        return laws.judge(self.database.laws(State.EXPANDED)).findings

    def _contract(self) -> tuple[Finding, ...]:
        new, phase = self.plan.change.new, (*self.plan.migrate, *self.plan.contract)
        if new.name in self._sent:
            before = self._before.get(new.name, ())
            self._foreseen = foresee_causes(self.database.url, new, self._sent[new.name], phase, before)
        self.applied["migrate"] = self.database.apply(Phase.MIGRATE)
        self.applied["contract"] = self.database.apply(Phase.CONTRACT)
        state, differences = self._state()
        if state is not State.CONTRACTED:
            raise SchemaState(f"after contract the schema is {state}: {'; '.join(differences)}")
        return ()

    def _fingerprint_in(self, state: State) -> str:
        """The state that the copy was made in is the database's own, whatever this server prints of it."""
        if self.like is not None and state is self._began:
            return self.like.fingerprint
        return self.database.catalog().fingerprint

    def _unlike(self) -> tuple[Finding, ...]:
        """What the copy has otherwise than its database."""
        if self.like is None:
            return ()
        there, here = self.like.versions
        if there != here:
            # What writes is asked nowhere else, and a newer server takes what this one does not even parse.
            told = f"it was rehearsed on PostgreSQL {here}, and the database runs on {there}: another takes other SQL"
            remedy = "rehearse on a server of its version: `parallelchange rehearse --on DSN`"
            return (rehearsal.GATE.finding("version", told, remedy=remedy),)
        remedy = "rehearse where it can be copied whole: `parallelchange rehearse --on DSN`"
        return tuple(
            rehearsal.GATE.finding("unlike", f"the copy is unlike the database: {line[:_LONGEST]}", remedy=remedy)
            for line in self.like.differences[:_SHOWN]
        )

    def _state(self) -> tuple[State, tuple[str, ...]]:
        return state_of(self.plan, self.database.catalog())

    def _corpus(self, path: Path, version: str) -> Corpus:
        """What a version sends, as it was when the rehearsal began."""
        corpus = read_corpus(path, version)
        if corpus.digest != self._corpora[version]:
            told = f"the recorded statements of {version} changed while they were rehearsed"
            raise Busy(told, hint="run it again when nobody records")
        self._sent[version] = corpus
        return corpus

    def _version(self, version: Version, state: State) -> None:
        """All layers of what the version sends, in this state."""
        self.tell(f"  {version.name}: preparing and executing what it sends")
        told = self.database.statements(version, on_copy=True)
        if told is not None and version.name in self._held:
            told = self._held.pop(version.name).told(told)
        before = self._before.get(version.name)
        run = execute.PhaseRun(version.name, state, (), before, version.role)
        if version.statements is not None:
            corpus = self._corpus(version.statements, version.name)
            executed = execute_all(
                self.database.url, version.application_name, corpus, role=version.role, before=before
            )
            run = replace(run, executed=executed)
            causes = self._causes(version, corpus, run, told)
            told, run = causes.of_facts(told), replace(run, executed=causes.of_executed(executed))
        for result in (
            prepare.judge(version.name, told),
            shape.judge(version.name, told),
            planning.judge(version.name, told, self._planned.get(version.name)),
        ):
            self._keep(version.name, state, result)
        self._planned[version.name] = planning.plans(told)
        self._keep(version.name, state, execute.judge(run))
        self._before[version.name] = run.executed
        last = State.EXPANDED if version.name == self.plan.change.old.name else State.CONTRACTED
        if version.statements is not None and state is not last:
            # The version's sessions live through what comes next; this one stands for them.
            self._held[version.name] = self._open.enter_context(held(self.database.url, corpus, version.role))

    def _round_trips(self) -> None:
        """Rows that each version writes, through the eyes of both."""
        self.tell("  both versions: writing rows that the other one reads")
        try:
            from parallelchange.local.roundtrip import round_trips
        except ModuleNotFoundError as error:
            raise Unavailable(f"{error.name} is not installed", hint="pip install 'parallelchange[local]'") from None
        for version, facts in round_trips(self.database.url, self.plan).items():
            self._keep(version, State.EXPANDED, roundtrip.judge(version, facts))

    def _causes(
        self, version: Version, corpus: Corpus, run: execute.PhaseRun, told: Sequence[StatementFact] | None
    ) -> Causes:
        """The DDL that broke what fails."""
        if run.state is State.CONTRACTED:
            return self._foreseen  # what contract has dropped nothing brings back to be tried again
        if run.state is State.BASE:
            return Causes()
        return find_causes(
            self.database.url, version, corpus, self.plan.expand, execute.broken(run), changed(told),
            before=run.before or (), undo=self.plan.revert,
        )  # fmt: skip

    def _keep(self, version: str, state: State, result: GateResult) -> None:
        """Keep a verdict with what it was measured on."""
        key = EvidenceKey(
            change=self.plan.change.name,
            version=version,
            gate=result.gate,
            build=self.builds.get(version) or "",
            fingerprint=self._fingerprint,
            statements=self._corpora.get(version, ""),
            plan=self.plan.digest,
            spec=self._specs.get(version, ""),
            place=Place.COPY,
        )
        self.evidence.append(Evidence(key, result, self.database.now(), self.run, state))

    @property
    def verdict(self) -> Verdict:
        """All of it joined."""
        return combine(item.result.verdict for item in self.evidence)


def rehearse(
    plan: Plan,
    url: str,
    ini: Path,
    builds: Mapping[str, str | None],
    tell: Callable[[str], None],
    *,
    on: str | None = None,
) -> Rehearsal:
    """Run the whole change on a scratch copy of the database.

    Args:
        plan: The plan.
        url: The shared database; it is only read.
        ini: The repository's `alembic.ini`.
        builds: Version to what runs as it.
        tell: Told what is done next.
        on: A database on the server to make the copy on; None for a server of our own.

    Raises:
        InvalidFile: A masking rule cannot be followed, or recorded statements cannot be read.
        Unavailable: The copy cannot be made.
    """
    corpora(plan)  # one that is not there is told now, and not in the middle
    tell("copying the schema and some rows")
    with connect(url) as source:
        before = schema_lines(source)
    roles = {version.role for version in plan.change.versions if version.role}
    with scratch_database(url, on, tell) as scratch:
        copy = scratch.url
        copy_database(url, copy, scratch.tools, spec=plan.change.rehearsal, roles=roles, tell=tell)
        with connect(url) as source, connect(copy) as made:
            like = likeness(source, made, before)
        with changing(copy, plan, ini) as database:
            rehearsal_ = Rehearsal(plan, database, builds, tell, like)
            rehearsal_.all()
    return rehearsal_
