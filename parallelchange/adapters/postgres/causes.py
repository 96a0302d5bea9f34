"""Which DDL broke a statement: the phase's own, run one at a time on the copy until it does."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import psycopg

from parallelchange.adapters.postgres.connection import Connection
from parallelchange.adapters.postgres.execute import execute_all, scratch_session
from parallelchange.adapters.postgres.replay import Replay
from parallelchange.adapters.postgres.sequences import kept_sequences
from parallelchange.adapters.postgres.shapes import Describer
from parallelchange.change import Version
from parallelchange.corpus import Corpus, Recorded, Unit
from parallelchange.errors import Unavailable
from parallelchange.gates.execute import Executed, Outcome, PhaseRun, broken
from parallelchange.gates.prepare import StatementFact
from parallelchange.model import State, Statement
from parallelchange.sqltext import Kind

__all__ = ["Causes", "changed", "find_causes", "foresee_causes"]

_TRY = "parallelchange_try"


@dataclass(frozen=True)
class Causes:
    """Statement ids to the DDL after which they fail, as it runs.

    Args:
        executed: Of those that fail when they are executed.
        described: Of those that are refused, or have another shape.
    """

    executed: Mapping[str, str] = field(default_factory=dict)
    described: Mapping[str, str] = field(default_factory=dict)

    def of_facts(self, facts: Sequence[StatementFact] | None) -> Sequence[StatementFact] | None:
        """The facts, with their causes."""
        return facts and [replace(fact, cause=fact.cause or self.described.get(fact.id, "")) for fact in facts]

    def of_executed(self, executed: Iterable[Executed]) -> tuple[Executed, ...]:
        """The statements, with their causes."""
        return tuple(replace(item, cause=self.executed.get(item.id, "")) for item in executed)


def changed(facts: Sequence[StatementFact] | None) -> set[str]:
    """Statements that are refused or have another shape."""
    return {
        fact.id
        for fact in facts or ()
        if fact.error or (not fact.unasked and fact.found is not None and fact.found != fact.recorded)
    }


def foresee_causes(
    url: str, version: Version, corpus: Corpus, phase: Sequence[Statement], before: Sequence[Executed]
) -> Causes:
    """What a phase that has not run yet will break, and by which statement: afterwards it can no longer be undone.

    Args:
        url: The scratch copy.
        version: The version.
        corpus: What it sends.
        phase: What is going to be run.
        before: What its statements did in this state.
    """
    try:
        after = execute_all(url, version.application_name, corpus, role=version.role, before=before, after=phase)
        fails = broken(PhaseRun(version.name, State.CONTRACTED, after, tuple(before)))
        refused: set[str] = set()
        with scratch_session(url) as connection, _undone(connection, phase) as there:
            if there:
                refused = {s.id for s in corpus.statements if not _describes(connection, corpus, s)}
    except (psycopg.Error, Unavailable):
        return Causes()  # what is wrong is told when it is done in earnest
    return find_causes(url, version, corpus, phase, fails, refused, before=before)


def find_causes(
    url: str,
    version: Version,
    corpus: Corpus,
    phase: Sequence[Statement],
    fails: Mapping[str, int],
    refused: Collection[str],
    *,
    before: Sequence[Executed] = (),
    undo: Sequence[Statement] = (),
) -> Causes:
    """The first statement of a phase after which a version's statement fails; none where that cannot be told.

    Args:
        url: The scratch copy.
        version: The version.
        corpus: What it sends.
        phase: What broke them.
        fails: Those that fail when executed, each with the first sending that does.
        refused: Those that are refused or have another shape.
        before: What they did in the state before.
        undo: Brings the copy back to that state.
    """
    if not fails and not refused:
        return Causes()
    told = {item.id: item.outcomes for item in before}
    executed: dict[str, str] = {}
    described: dict[str, str] = {}
    try:
        with scratch_session(url) as connection, kept_sequences(connection), _undone(connection, undo) as there:
            if not there:
                return Causes()
            probes: dict[tuple[bool, str], Callable[[], bool]] = {}
            for id_ in refused:
                probes[False, id_] = lambda s=corpus.by_id[id_]: _describes(connection, corpus, s)  # type: ignore[misc]
            for id_, sending in fails.items():
                place = _place(corpus, id_, sending)
                known = told[id_][sending] if len(told.get(id_, ())) > sending else None
                probes[True, id_] = lambda p=place, k=known: _works(connection, version, corpus, p, k)  # type: ignore[misc]
            left = {key: probe for key, probe in probes.items() if probe()}
            for statement in phase:
                connection.execute(statement.sql.encode())
                for runs, id_ in [key for key, probe in left.items() if not probe()]:
                    (executed if runs else described)[id_] = statement.sql
                    del left[runs, id_]
                if not left:
                    break
    except (psycopg.Error, Unavailable):
        pass  # the failure itself is told all the same
    return Causes(executed, described)


class _undone:  # noqa: N801 - reads as what it does
    """A transaction in which some DDL was run, rolled back at the end."""

    def __init__(self, connection: Connection, ddl: Sequence[Statement]) -> None:
        self.connection, self.ddl = connection, ddl

    def __enter__(self) -> bool:
        self.connection.execute("BEGIN")
        try:
            for statement in self.ddl:
                self.connection.execute(statement.sql.encode())
        except psycopg.Error:
            return False
        return True

    def __exit__(self, *_: object) -> None:
        if not self.connection.closed:
            self.connection.execute("ROLLBACK")


def _describes(connection: Connection, corpus: Corpus, statement: Recorded) -> bool:
    """Whether it is taken, and has the columns it was recorded with."""
    if statement.kind is Kind.UTILITY:
        return True
    connection.execute(f"SAVEPOINT {_TRY}")
    try:
        text = statement.text(corpus.examples.get(statement.id))
        found, _ = Describer(connection).describe(text, statement.types)
    except psycopg.Error:
        return False
    else:
        return found == statement.columns
    finally:
        connection.execute(f"ROLLBACK TO SAVEPOINT {_TRY}")


def _place(corpus: Corpus, id_: str, sending: int) -> tuple[Unit, int]:
    """The unit and the step of a statement's n-th sending."""
    seen = 0
    for unit in corpus.units:
        for index, step in enumerate(unit.steps):
            if step.statement == id_:
                if seen == sending:
                    return unit, index
                seen += 1
    raise LookupError(id_)


def _works(
    connection: Connection, version: Version, corpus: Corpus, place: tuple[Unit, int], known: Outcome | None
) -> bool:
    """Whether a step does what it did before, run with those before it in its unit."""
    unit, index = place
    statement = corpus.by_id[unit.steps[index].statement]
    sent = {statement.id: [known.sent]} if known and known.sent else {}
    connection.execute(f"SAVEPOINT {_TRY}")
    try:
        replay = Replay(connection, corpus, version.application_name, version.role, sent)
        outcome = replay.unit(unit, until=index)[-1]
    finally:
        connection.execute(f"ROLLBACK TO SAVEPOINT {_TRY}")
        connection.execute("DEALLOCATE ALL")
    now = Executed(statement.id, statement.sql, statement.where, (outcome,))
    before = Executed(statement.id, statement.sql, statement.where, (known,)) if known else None
    run = PhaseRun(version.name, State.EXPANDED, (now,), (before,) if before else None)
    return outcome.error is None and not outcome.late and not broken(run)
