"""The rehearsal: the whole change on a scratch copy, before anything touches the real database."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from parallelchange.adapters.postgres.database import PostgresDatabase
from parallelchange.adapters.postgres.execute import execute_all
from parallelchange.adapters.postgres.ledger import PostgresLedger
from parallelchange.change import Version
from parallelchange.corpus import read_corpus
from parallelchange.errors import ParallelChangeError, SchemaState
from parallelchange.gates import execute, laws, prepare, rehearsal, shape
from parallelchange.gates.execute import Executed
from parallelchange.local.copy import copy_database
from parallelchange.local.postgres import scratch_postgres
from parallelchange.model import Evidence, EvidenceKey, Finding, GateResult, Phase, Place, State, Verdict, combine
from parallelchange.plan import Plan, state_of
from parallelchange.ports import Applied
from parallelchange.rollout.observe import ALL_VERSIONS, corpora, specs

__all__ = ["Rehearsal", "rehearse"]


@dataclass
class Rehearsal:
    """One rehearsal on one copy.

    Args:
        plan: The plan.
        database: The copy.
        builds: Version to what runs as it; goes into the evidence.
        tell: Told what is done next.
    """

    plan: Plan
    database: PostgresDatabase
    builds: Mapping[str, str | None]
    tell: Callable[[str], None]
    run: str = field(default_factory=lambda: uuid.uuid4().hex)
    evidence: list[Evidence] = field(default_factory=list)
    applied: dict[str, Applied] = field(default_factory=dict)
    _before: dict[str, tuple[Executed, ...]] = field(default_factory=dict)

    def all(self) -> list[Evidence]:
        """Go through the phases; what cannot be reached because of an error is failed with that error."""
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
            self._keep(ALL_VERSIONS, state, rehearsal.judge(state, stopped))
            for version in versions:
                if broken is None:
                    self._version(version, state)
        return self.evidence

    def _base(self) -> tuple[Finding, ...]:
        state, differences = self._state()
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
        self.applied["expand"] = self.database.apply(Phase.EXPAND)
        self.database.backfill(lambda _what, _done, _total: None)
        return laws.judge(self.database.laws(State.EXPANDED)).findings

    def _contract(self) -> tuple[Finding, ...]:
        self.applied["migrate"] = self.database.apply(Phase.MIGRATE)
        self.applied["contract"] = self.database.apply(Phase.CONTRACT)
        state, differences = self._state()
        if state is not State.CONTRACTED:
            raise SchemaState(f"after contract the schema is {state}: {'; '.join(differences)}")
        return ()

    def _state(self) -> tuple[State, tuple[str, ...]]:
        return state_of(self.plan, self.database.catalog())

    def _version(self, version: Version, state: State) -> None:
        """Prepare, describe and execute what the version sends, in this state."""
        told = self.database.statements(version)
        self._keep(version.name, state, prepare.judge(version.name, told))
        self._keep(version.name, state, shape.judge(version.name, told))
        executed: tuple[Executed, ...] = ()
        if version.statements is not None:
            corpus = read_corpus(version.statements, version.name)
            executed = execute_all(self.database.url, version.application_name, corpus)
        run = execute.PhaseRun(version.name, state, executed, self._before.get(version.name))
        self._keep(version.name, state, execute.judge(run))
        self._before[version.name] = executed

    def _keep(self, version: str, state: State, result: GateResult) -> None:
        """Keep a verdict with what it was measured on."""
        key = EvidenceKey(
            change=self.plan.change.name,
            version=version,
            gate=result.gate,
            build=self.builds.get(version) or "",
            fingerprint=self.database.catalog().fingerprint,
            statements=corpora(self.plan).get(version, ""),
            plan=self.plan.digest,
            spec=specs(self.plan).get(version, ""),
            place=Place.COPY,
        )
        self.evidence.append(Evidence(key, result, self.database.now(), self.run, state))

    @property
    def verdict(self) -> Verdict:
        """All of it joined."""
        return combine(item.result.verdict for item in self.evidence)


def rehearse(
    plan: Plan, url: str, ini: Path, builds: Mapping[str, str | None], tell: Callable[[str], None]
) -> Rehearsal:
    """Run the whole change on a scratch copy of the database.

    Args:
        plan: The plan.
        url: The shared database; it is only read.
        ini: The repository's `alembic.ini`.
        builds: Version to what runs as it.
        tell: Told what is done next.

    Raises:
        Unavailable: The copy cannot be made.
    """
    tell("copying the schema and some rows")
    with scratch_postgres() as server:
        copy = server.create_database("rehearsal")
        copy_database(url, copy, server.bin)
        ledger = PostgresLedger(copy, plan.change.name)
        database = PostgresDatabase(copy, plan, ini)
        try:
            ledger.open()
            rehearsal_ = Rehearsal(plan, database, builds, tell)
            rehearsal_.all()
        finally:
            ledger.close()
            database.close()
    return rehearsal_
